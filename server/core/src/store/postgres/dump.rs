//! Everything, as rows, and back.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::connect::{Conn, Fault, Params};
use super::flush::{Deltas, DeploymentRows, DeviceRows, RecordRows, members};
use super::number::{Signed as _, Unsigned as _};
use super::read::{self, big, json, parse, text};
use crate::store::{DumpRow, Rows, StoreError};
use crate::work::{Event, Kind};

/// Rows in one statement.
const PIECE: usize = 2_000;

/// Gives everything, as it is at one moment.
pub(super) async fn dump(conn: &Conn, rows: &mut Rows<'_>) -> Result<(), Fault> {
    let mut give = |row| rows(row).map_err(Fault::Source);
    let none = Params::default();
    conn.begin_reading().await?;
    conn.each(&format!("{} ORDER BY d.num", read::VIEW), &none, |row| {
        give(DumpRow::Device(Box::new(read::view(row)?)))
    })
    .await?;
    conn.each("SELECT num, id FROM gone ORDER BY num", &none, |row| {
        give(DumpRow::Gone { number: row.try_get::<_, i32>(0)?.unsigned(), id: text(row, 1)? })
    })
    .await?;
    // A connection answers one question after the other, and each deployment needs two.
    let mut deployments = Vec::new();
    conn.each("SELECT seq, id FROM deployment ORDER BY seq", &none, |row| {
        deployments.push(text(row, 1)?);
        Ok(())
    })
    .await?;
    for piece in deployments.chunks(100) {
        let ids: Vec<&[u8]> = piece.iter().map(String::as_bytes).collect();
        let mut members = read::members(conn, piece).await?;
        for row in
            conn.rows("SELECT seq, data FROM deployment WHERE id = ANY($1) ORDER BY seq", &[&ids]).await?
        {
            let deployment = read::deployment(&row)?;
            let members = members.remove(&deployment.id).unwrap_or_default();
            give(DumpRow::Deployment(Box::new(deployment), members.into()))?;
        }
    }
    conn.each("SELECT status, finished, log, data FROM record ORDER BY dep, num, dev", &none, |row| {
        give(DumpRow::Record(Box::new(read::record(row)?)))
    })
    .await?;
    conn.each("SELECT dep, dev, data FROM log ORDER BY dep, dev", &none, |row| {
        give(DumpRow::Log { deployment: text(row, 0)?, device: text(row, 1)?, text: text(row, 2)? })
    })
    .await?;
    conn.each("SELECT kind, id, data FROM document ORDER BY kind, id", &none, |row| {
        let (name, id): (&str, String) = (row.try_get(0)?, text(row, 1)?);
        let value = parse(row.try_get(2)?, "").ok();
        give(match Kind::parse(name).zip(value) {
            Some((kind, value)) => DumpRow::Document(kind, id, value),
            None => DumpRow::Damaged(format!("the {name} {id}")),
        })
    })
    .await?;
    conn.each("SELECT num, stream, key, ts, data FROM event ORDER BY num", &none, |row| {
        give(DumpRow::Event(read::event(row)?.event))
    })
    .await?;
    conn.batch("COMMIT").await
}

/// Takes everything, in one transaction: a fill that is cut short has left nothing.
pub(super) async fn fill(
    conn: &Conn,
    rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
) -> Result<(), Fault> {
    // No server writes to a store that is filled, and none begins to before it is full.
    conn.batch("BEGIN; LOCK TABLE device, deployment, document, event, number IN EXCLUSIVE MODE").await?;
    const EMPTY: &str = "SELECT EXISTS (SELECT 1 FROM device) OR EXISTS (SELECT 1 FROM gone)
        OR EXISTS (SELECT 1 FROM deployment) OR EXISTS (SELECT 1 FROM document) OR EXISTS (SELECT 1 FROM event)";
    let full = conn.row(EMPTY, &[]).await?;
    if full.map_or(Ok(true), |row| row.try_get(0))? {
        return Err(Fault::NotEmpty);
    }
    // The rows of attributes are made when somebody asks for them.
    conn.batch("DELETE FROM hot; DELETE FROM attr").await?;
    let mut filling = Filling::default();
    loop {
        let mut piece = Vec::new();
        while piece.len() < PIECE {
            match rows.next() {
                Some(row) => piece.push(row.map_err(Fault::Source)?),
                None => break,
            }
        }
        if piece.is_empty() {
            break;
        }
        filling.piece(conn, piece).await?;
    }
    filling.end(conn).await?;
    conn.batch("COMMIT; ANALYZE").await
}

#[derive(Default)]
struct Filling {
    highest_number: i32,
    highest_sequence: i64,
    events: i64,
}

impl Filling {
    async fn piece(&mut self, conn: &Conn, piece: Vec<DumpRow>) -> Result<(), Fault> {
        let mut devices = DeviceRows::default();
        let mut deltas = Deltas::default();
        let mut inventories = (Vec::new(), Vec::new());
        let mut seen = (Vec::new(), Vec::new());
        let mut gone = (Vec::new(), Vec::new());
        let mut deployments = DeploymentRows::default();
        let mut lists = BTreeMap::new();
        let mut records = RecordRows::default();
        let mut logs = (Vec::new(), Vec::new(), Vec::new());
        let mut documents = (Vec::new(), Vec::new(), Vec::new());
        let mut events: Vec<(i64, Event)> = Vec::new();
        for row in piece {
            match row {
                DumpRow::Device(view) => {
                    let number = view.device.number.signed();
                    self.highest_number = self.highest_number.max(number);
                    devices.add(None, &view.device, view.device.number);
                    deltas.device(&view.device, 1);
                    deltas.inventory(&view.inventory, 1);
                    if view.inventory != crate::model::Inventory::default() {
                        inventories.0.push(number);
                        inventories.1.push(json(&view.inventory));
                    }
                    if let Some(time) = view.check_in {
                        seen.0.push(number);
                        seen.1.push(big(time.0));
                    }
                }
                DumpRow::Gone { number, id } => {
                    self.highest_number = self.highest_number.max(number.signed());
                    gone.0.push(number.signed());
                    gone.1.push(id.into_bytes());
                }
                DumpRow::Deployment(deployment, members) => {
                    self.highest_sequence = self.highest_sequence.max(big(deployment.sequence));
                    deployments.add(true, &deployment, deployment.sequence);
                    lists.insert(deployment.id.clone(), members);
                }
                DumpRow::Record(record) => records.add(true, &record),
                DumpRow::Log { deployment, device, text } => {
                    logs.0.push(deployment.into_bytes());
                    logs.1.push(device.into_bytes());
                    logs.2.push(text.into_bytes());
                }
                DumpRow::Document(kind, id, value) => {
                    documents.0.push(kind.name());
                    documents.1.push(id.into_bytes());
                    documents.2.push(json(&value));
                }
                DumpRow::Damaged(_) => {}
                DumpRow::Event(event) => {
                    self.events += 1;
                    events.push((self.events, event));
                }
            }
        }
        devices.write(conn).await?;
        deltas.write(conn).await?;
        conn.run(
            "INSERT INTO inventory SELECT * FROM unnest($1::int4[], $2::bytea[])",
            &[&inventories.0, &inventories.1],
        )
        .await?;
        conn.run("INSERT INTO seen SELECT * FROM unnest($1::int4[], $2::int8[])", &[&seen.0, &seen.1])
            .await?;
        conn.run("INSERT INTO gone SELECT * FROM unnest($1::int4[], $2::bytea[])", &[&gone.0, &gone.1])
            .await?;
        deployments.write(conn).await?;
        members(conn, lists.iter().map(|(id, members)| (id.as_str(), Some(&**members)))).await?;
        records.write(conn).await?;
        const LOGS: &str = "INSERT INTO log SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[])";
        conn.run(LOGS, &[&logs.0, &logs.1, &logs.2]).await?;
        const DOCUMENTS: &str =
            "INSERT INTO document SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])";
        conn.run(DOCUMENTS, &[&documents.0, &documents.1, &documents.2]).await?;
        const EVENTS: &str = "INSERT INTO event (num, stream, key, ts, data)
            SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::int8[], $5::bytea[])";
        let numbers: Vec<i64> = events.iter().map(|(number, _)| *number).collect();
        let streams: Vec<&str> = events.iter().map(|(_, event)| event.stream.name()).collect();
        let keys: Vec<&[u8]> = events.iter().map(|(_, event)| event.key.as_bytes()).collect();
        let times: Vec<i64> = events.iter().map(|(_, event)| big(event.time.0)).collect();
        let datas: Vec<Vec<u8>> = events.iter().map(|(_, event)| json(&event.data)).collect();
        conn.run(EVENTS, &[&numbers, &streams, &keys, &times, &datas]).await?;
        Ok(())
    }

    async fn end(&self, conn: &Conn) -> Result<(), Fault> {
        if self.highest_number > 0 {
            let mut params = Params::default();
            let last = params.bind(i64::from(self.highest_number), Type::INT8);
            conn.ask(&format!("SELECT setval('device_number', {last})"), &params).await?;
        }
        const NUMBER: &str = "UPDATE number SET n = greatest(n, $2) WHERE name = $1";
        conn.run(NUMBER, &[&"deployment", &self.highest_sequence]).await?;
        conn.run(NUMBER, &[&"event", &self.events]).await?;
        Ok(())
    }
}
