//! Rows as records, and the questions about one thing.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connect::{Conn, Fault, Params};
use super::number::{Signed as _, Unsigned as _};
use crate::model::time::Timestamp;
use crate::model::{Deployment, Device, DeviceDeployment, STATUSES, Status};
use crate::work::query::{
    Active, DeploymentQuery, DeviceView, EventQuery, Found, Listed, Numbered, RecordQuery,
};
use crate::work::{Event, Kind, Stream};

/// JSON of one of our types.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|_| Fault::Damaged(what.to_owned()))
}

/// JSON of one of our types: structs of strings, numbers and maps with text as keys always become JSON.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A column of text.
pub(super) fn text(row: &Row, at: usize) -> Result<String, Fault> {
    String::from_utf8(row.try_get(at)?).map_err(|_| Fault::Damaged("a text".to_owned()))
}

pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// `num, active, data` of a device.
pub(super) fn device(row: &Row) -> Result<Device, Fault> {
    let mut device: Device = parse(row.try_get(2)?, "a device")?;
    device.number = row.try_get::<_, i32>(0)?.unsigned();
    let active: Option<Vec<u8>> = row.try_get(1)?;
    let active = active.map(String::from_utf8).transpose();
    device.active = active.map_err(|_| Fault::Damaged("a device".to_owned()))?;
    Ok(device)
}

/// `seq, data` of a deployment.
pub(super) fn deployment(row: &Row) -> Result<Deployment, Fault> {
    let mut deployment: Deployment = parse(row.try_get(1)?, "a deployment")?;
    deployment.sequence = count(row.try_get(0)?);
    Ok(deployment)
}

/// The number of a status of a record in the database.
pub(super) fn record_status(status: Status) -> i16 {
    let at = STATUSES.iter().position(|one| *one == status);
    at.and_then(|at| i16::try_from(at).ok()).unwrap_or(-1)
}

/// `status, finished, log, data` of a record.
pub(super) fn record(row: &Row) -> Result<DeviceDeployment, Fault> {
    let damaged = || Fault::Damaged("the record of a deployment on a device".to_owned());
    let mut record: DeviceDeployment = parse(row.try_get(3)?, "the record of a deployment on a device")?;
    let status = usize::try_from(row.try_get::<_, i16>(0)?).map_err(|_| damaged())?;
    record.status = STATUSES.get(status).copied().ok_or_else(damaged)?;
    record.finished = row.try_get::<_, Option<i64>>(1)?.map(|time| Timestamp(count(time)));
    record.log = row.try_get(2)?;
    Ok(record)
}

/// Members in pieces of 65,536 numbers, so that one device is looked for in one piece of each deployment.
pub(super) fn pieces(members: &RoaringBitmap) -> Vec<(i32, i32, i32, Vec<u8>)> {
    let mut pieces = Vec::new();
    let mut next = members.min();
    while let Some(first) = next {
        let end = first | 0xffff;
        let mut piece = RoaringBitmap::new();
        piece.insert_range(first..=end);
        piece &= members;
        let mut data = Vec::new();
        if let (Some(low), Some(high), Ok(())) = (piece.min(), piece.max(), piece.serialize_into(&mut data)) {
            pieces.push(((first >> 16).signed(), low.signed(), high.signed(), data));
        }
        next = end.checked_add(1).and_then(|from| {
            let rank = members.rank(from - 1);
            u32::try_from(rank).ok().and_then(|rank| members.select(rank))
        });
    }
    pieces
}

fn piece(data: &[u8]) -> Result<RoaringBitmap, Fault> {
    RoaringBitmap::deserialize_from(data)
        .map_err(|_| Fault::Damaged("the devices of a deployment".to_owned()))
}

/// The members of deployments; none for one that there is not.
pub(super) async fn members(
    conn: &Conn,
    deployments: &[String],
) -> Result<BTreeMap<String, RoaringBitmap>, Fault> {
    const READ: &str =
        "SELECT d.id, m.data FROM deployment d LEFT JOIN members m ON m.dep = d.id WHERE d.id = ANY($1)";
    let ids: Vec<&[u8]> = deployments.iter().map(String::as_bytes).collect();
    let mut all: BTreeMap<String, RoaringBitmap> = BTreeMap::new();
    for row in conn.rows(READ, &[&ids]).await? {
        let members = all.entry(text(&row, 0)?).or_default();
        if let Some(data) = row.try_get::<_, Option<&[u8]>>(1)? {
            *members |= piece(data)?;
        }
    }
    Ok(all)
}

/// Active deployments, the oldest first.
pub(super) async fn active(conn: &Conn) -> Result<Vec<Active>, Fault> {
    const READ: &str = "SELECT seq, data FROM deployment WHERE NOT finished ORDER BY seq";
    conn.begin_reading().await?;
    let mut all = Vec::new();
    for row in conn.rows(READ, &[]).await? {
        all.push(deployment(&row)?);
    }
    let ids: Vec<String> = all.iter().map(|one| one.id.clone()).collect();
    let mut members = members(conn, &ids).await?;
    conn.batch("COMMIT").await?;
    let with_members = |deployment: Deployment| {
        let members = Arc::new(members.remove(&deployment.id).unwrap_or_default());
        Active { deployment, members }
    };
    Ok(all.into_iter().map(with_members).collect())
}

/// Deployments that ended before a time, but for the newest of all.
pub(super) async fn old_deployments(conn: &Conn, before: Timestamp, most: u64) -> Result<Vec<String>, Fault> {
    // What was made before may have ended later: pieces, so that not all of those are in memory.
    const READ: &str = "SELECT seq, data FROM deployment WHERE seq > $1 AND finished AND created < $2
        AND seq < (SELECT max(seq) FROM deployment) ORDER BY seq LIMIT 500";
    let mut old = Vec::new();
    let mut from: i64 = 0;
    while (old.len() as u64) < most {
        let rows = conn.rows(READ, &[&from, &big(before.0)]).await?;
        let Some(last) = rows.last() else { break };
        from = last.try_get(0)?;
        for row in &rows {
            let one = deployment(row)?;
            old.extend(one.finished.filter(|finished| *finished < before).map(|_| one.id));
        }
    }
    old.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(old)
}

/// Takes records of a deployment that has ended away, and the deployment with the last of them. Whether it is gone.
pub(super) async fn forget_deployment(conn: &Conn, id: &str, most: u64) -> Result<bool, Fault> {
    const LOGS: &str = "DELETE FROM log WHERE dep = $1 AND dev IN
        (SELECT dev FROM record WHERE dep = $1 ORDER BY dev LIMIT $2)";
    const RECORDS: &str = "DELETE FROM record WHERE dep = $1 AND dev IN
        (SELECT dev FROM record WHERE dep = $1 ORDER BY dev LIMIT $2)";
    const DEPLOYMENT: &str = "WITH gone AS (DELETE FROM deployment WHERE id = $1 AND finished
        AND NOT EXISTS (SELECT 1 FROM record WHERE dep = $1) RETURNING id)
        DELETE FROM members WHERE dep IN (SELECT id FROM gone)";
    let id = id.as_bytes();
    conn.batch("BEGIN").await?;
    // The lock keeps other processes from doing the same at once.
    let found = conn.row("SELECT finished FROM deployment WHERE id = $1 FOR UPDATE", &[&id]).await?;
    let is_gone = match found.map(|row| row.try_get::<_, bool>(0)).transpose()? {
        None => true,
        Some(false) => false,
        Some(true) => {
            conn.run(LOGS, &[&id, &big(most)]).await?;
            conn.run(RECORDS, &[&id, &big(most)]).await?;
            conn.run(DEPLOYMENT, &[&id]).await?;
            conn.row("SELECT 1 FROM deployment WHERE id = $1", &[&id]).await?.is_none()
        }
    };
    conn.batch("COMMIT").await?;
    Ok(is_gone)
}

/// All documents of a kind.
pub(super) async fn documents(conn: &Conn, kind: Kind) -> Result<Vec<(String, Value)>, Fault> {
    const READ: &str = "SELECT id, data FROM document WHERE kind = $1 ORDER BY id";
    let rows = conn.rows(READ, &[&kind.name()]).await?;
    rows.iter().map(|row| Ok((text(row, 0)?, parse(row.try_get(1)?, "a document")?))).collect()
}

/// Devices by their ids, those that there are.
pub(super) async fn devices(conn: &Conn, ids: &[String]) -> Result<Vec<Device>, Fault> {
    const READ: &str = "SELECT num, active, data FROM device WHERE id = ANY($1)";
    let ids: Vec<&[u8]> = ids.iter().map(String::as_bytes).collect();
    conn.rows(READ, &[&ids]).await?.iter().map(device).collect()
}

/// `num, active, data, inventory, check-in`.
pub(super) fn view(row: &Row) -> Result<DeviceView, Fault> {
    let inventory: Option<&[u8]> = row.try_get(3)?;
    let check_in: Option<i64> = row.try_get(4)?;
    Ok(DeviceView {
        device: device(row)?,
        inventory: inventory.map(|data| parse(data, "an inventory")).transpose()?.unwrap_or_default(),
        check_in: check_in.map(|time| Timestamp(count(time))),
    })
}

/// What [`view`] reads.
pub(super) const VIEW: &str = "SELECT d.num, d.active, d.data, i.data, s.ts FROM device d
    LEFT JOIN inventory i ON i.num = d.num LEFT JOIN seen s ON s.num = d.num";

/// Views of devices by their numbers, in the order of the numbers given.
pub(super) async fn views(conn: &Conn, numbers: &[i32]) -> Result<Vec<DeviceView>, Fault> {
    let mut params = Params::default();
    let bound = params.bind(numbers.to_vec(), Type::INT4_ARRAY);
    let mut found = BTreeMap::new();
    for row in conn.ask(&format!("{VIEW} WHERE d.num = ANY({bound})"), &params).await? {
        found.insert(row.try_get::<_, i32>(0)?, view(&row)?);
    }
    Ok(numbers.iter().filter_map(|number| found.remove(number)).collect())
}

/// The ids of devices by their numbers, also of those that are gone.
pub(super) async fn device_ids(conn: &Conn, numbers: &[u32]) -> Result<Vec<(u32, String)>, Fault> {
    const READ: &str = "SELECT num, id FROM device WHERE num = ANY($1)
        UNION ALL SELECT num, id FROM gone WHERE num = ANY($1)";
    let asked: Vec<i32> = numbers.iter().map(|number| number.signed()).collect();
    let mut found = BTreeMap::new();
    for row in conn.rows(READ, &[&asked]).await? {
        found.insert(row.try_get::<_, i32>(0)?.unsigned(), text(&row, 1)?);
    }
    Ok(numbers.iter().filter_map(|number| Some((*number, found.get(number)?.clone()))).collect())
}

/// A page of deployments.
pub(super) async fn deployments(conn: &Conn, query: &DeploymentQuery) -> Result<Found<Deployment>, Fault> {
    let DeploymentQuery {
        states,
        is_configuration,
        search,
        ids,
        names,
        artifact_name,
        before,
        after,
        oldest_first,
        skip,
        take,
    } = query;
    let mut params = Params::default();
    let mut all = vec!["true".to_owned()];
    let texts = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect::<Vec<_>>();
    if !states.is_empty() {
        let states = params.bind(states.clone(), Type::TEXT_ARRAY);
        let now = params.bind(big(Timestamp::now().0), Type::INT8);
        let scheduled = format!("state = 'pending' AND start > {now}");
        all.push(format!("CASE WHEN {scheduled} THEN 'scheduled' ELSE state END = ANY({states})"));
    }
    if let Some(wanted) = is_configuration {
        all.push(format!("configuration = {}", params.bind(*wanted, Type::BOOL)));
    }
    if let Some(part) = search.as_ref().filter(|part| !part.is_empty()) {
        let part = params.bind(part.clone().into_bytes(), Type::BYTEA);
        all.push(format!("(position({part} IN name) > 0 OR position({part} IN artifact) > 0)"));
    }
    if !ids.is_empty() {
        all.push(format!("id = ANY({})", params.bind(texts(ids), Type::BYTEA_ARRAY)));
    }
    if !names.is_empty() {
        all.push(format!("name = ANY({})", params.bind(texts(names), Type::BYTEA_ARRAY)));
    }
    if let Some(name) = artifact_name {
        all.push(format!("artifact = {}", params.bind(name.clone().into_bytes(), Type::BYTEA)));
    }
    if let Some(time) = before {
        all.push(format!("created <= {}", params.bind(big(time.0), Type::INT8)));
    }
    if let Some(time) = after {
        all.push(format!("created >= {}", params.bind(big(time.0), Type::INT8)));
    }
    let wanted = all.join(" AND ");
    conn.begin_reading().await?;
    let total = conn.ask(&format!("SELECT count(*) FROM deployment WHERE {wanted}"), &params).await?;
    let total = total.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
    let order = if *oldest_first { "ASC" } else { "DESC" };
    let (skip, take) = (params.bind(big(*skip), Type::INT8), params.bind(big(*take), Type::INT8));
    let page = format!(
        "SELECT seq, data FROM deployment JOIN (SELECT seq FROM deployment WHERE {wanted} ORDER BY seq {order}
         OFFSET {skip} LIMIT {take}) page USING (seq) ORDER BY seq {order}"
    );
    let items = conn.ask(&page, &params).await?.iter().map(deployment).collect::<Result<_, _>>()?;
    conn.batch("COMMIT").await?;
    Ok(Found { items, total: count(total) })
}

/// A page of the devices of a deployment, in the order of their numbers.
pub(super) async fn records(conn: &Conn, query: &RecordQuery) -> Result<Found<Listed>, Fault> {
    let RecordQuery { deployment: id, statuses, recorded, skip, take } = query;
    conn.begin_reading().await?;
    let found = conn.row("SELECT seq, data FROM deployment WHERE id = $1", &[&id.as_bytes()]).await?;
    let Some(found) = found else {
        conn.batch("COMMIT").await?;
        return Ok(Found::default());
    };
    let found = deployment(&found)?;
    let without = match (found.ended, found.finished) {
        (Some(status), _) => status,
        (None, Some(_)) => Status::Aborted,
        (None, None) => Status::Pending,
    };
    let mut wanted = members(conn, std::slice::from_ref(id)).await?.remove(id).unwrap_or_default();
    if !statuses.is_empty() {
        // A device without a record has a status too, so those with one of the others are taken away.
        let takes_rest = statuses.contains(&without) && !recorded;
        let mut params = Params::default();
        let dep = params.bind(id.clone().into_bytes(), Type::BYTEA);
        let list: Vec<i16> = statuses.iter().map(|status| record_status(*status)).collect();
        let list = params.bind(list, Type::INT2_ARRAY);
        let is = if takes_rest { "<> ALL" } else { "= ANY" };
        let mut numbers = RoaringBitmap::new();
        let sql = format!("SELECT num FROM record WHERE dep = {dep} AND status {is} ({list})");
        conn.each(&sql, &params, |row| {
            numbers.insert(row.try_get::<_, i32>(0)?.unsigned());
            Ok(())
        })
        .await?;
        if takes_rest {
            wanted -= numbers;
        } else {
            wanted &= numbers;
        }
    }
    let take = usize::try_from(*take).unwrap_or(usize::MAX);
    let mut page = Vec::new();
    if let Some(first) = u32::try_from(*skip).ok().and_then(|skip| wanted.select(skip)) {
        let mut rest = wanted.iter();
        rest.advance_to(first);
        page.extend(rest.take(take));
    }
    let ids = device_ids(conn, &page).await?;
    let devices: Vec<&[u8]> = ids.iter().map(|(_, id)| id.as_bytes()).collect();
    const READ: &str = "SELECT status, finished, log, data FROM record WHERE dep = $1 AND dev = ANY($2)";
    let mut records = BTreeMap::new();
    for row in conn.rows(READ, &[&id.as_bytes(), &devices]).await? {
        let record = record(&row)?;
        records.insert(record.device.clone(), record);
    }
    conn.batch("COMMIT").await?;
    let items = ids.into_iter().map(|(_, id)| {
        let record = records.remove(&id);
        (id, record)
    });
    Ok(Found { items: items.collect(), total: wanted.len() })
}

/// Deployments that list a device, the newest first.
pub(super) async fn history(
    conn: &Conn,
    device: &str,
    skip: u64,
    take: u64,
) -> Result<Found<(Deployment, Option<DeviceDeployment>)>, Fault> {
    const NUMBER: &str =
        "SELECT num FROM device WHERE id = $1 UNION ALL SELECT num FROM gone WHERE id = $1 LIMIT 1";
    const LISTS: &str = "SELECT d.seq, m.data FROM members m JOIN deployment d ON d.id = m.dep
        WHERE m.chunk = $1 AND m.low <= $2 AND m.high >= $2 ORDER BY d.seq DESC";
    const READ: &str = "SELECT seq, data FROM deployment WHERE seq = ANY($1) ORDER BY seq DESC";
    const RECORDS: &str =
        "SELECT r.status, r.finished, r.log, r.data FROM record r JOIN deployment d ON d.id = r.dep
        WHERE r.dev = $1 AND d.seq = ANY($2)";
    conn.begin_reading().await?;
    let Some(row) = conn.row(NUMBER, &[&device.as_bytes()]).await? else {
        conn.batch("COMMIT").await?;
        return Ok(Found { items: Vec::new(), total: 0 });
    };
    let number: i32 = row.try_get(0)?;
    let chunk = (number.unsigned() >> 16).signed();
    let mut lists: Vec<i64> = Vec::new();
    for row in conn.rows(LISTS, &[&chunk, &number]).await? {
        if piece(row.try_get(1)?)?.contains(number.unsigned()) {
            lists.push(row.try_get(0)?);
        }
    }
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let take = usize::try_from(take).unwrap_or(usize::MAX);
    let page: Vec<i64> = lists.iter().skip(skip).take(take).copied().collect();
    let mut records = BTreeMap::new();
    for row in conn.rows(RECORDS, &[&device.as_bytes(), &page]).await? {
        let record = record(&row)?;
        records.insert(record.deployment.clone(), record);
    }
    let mut items = Vec::new();
    for row in conn.rows(READ, &[&page]).await? {
        let deployment = deployment(&row)?;
        let record = records.remove(&deployment.id);
        items.push((deployment, record));
    }
    conn.batch("COMMIT").await?;
    Ok(Found { items, total: lists.len() as u64 })
}

/// `num, stream, key, ts, data` of an event.
pub(super) fn event(row: &Row) -> Result<Numbered, Fault> {
    let stream = Stream::parse(row.try_get(1)?).ok_or_else(|| Fault::Damaged("an event".to_owned()))?;
    Ok(Numbered {
        number: count(row.try_get(0)?),
        event: Event {
            stream,
            key: text(row, 2)?,
            time: Timestamp(count(row.try_get(3)?)),
            data: parse(row.try_get(4)?, "an event")?,
        },
    })
}

/// A page of events.
pub(super) async fn events(conn: &Conn, query: &EventQuery) -> Result<Found<Numbered>, Fault> {
    let EventQuery { stream, keys, after, before, members, above, oldest_first, skip, take, uncounted } =
        query;
    let mut params = Params::default();
    let mut all = vec![format!("stream = {}", params.bind(stream.name(), Type::TEXT))];
    if !keys.is_empty() {
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.clone().into_bytes()).collect();
        all.push(format!("key = ANY({})", params.bind(keys, Type::BYTEA_ARRAY)));
    }
    if let Some(time) = after {
        all.push(format!("ts >= {}", params.bind(big(time.0), Type::INT8)));
    }
    if let Some(time) = before {
        all.push(format!("ts <= {}", params.bind(big(time.0), Type::INT8)));
    }
    if let Some(number) = above {
        all.push(format!("num > {}", params.bind(big(*number), Type::INT8)));
    }
    let wanted = all.join(" AND ");
    let order = if *oldest_first { "ASC" } else { "DESC" };
    conn.begin_reading().await?;
    let mut found = Found { items: Vec::new(), total: 0 };
    if members.is_empty() {
        if !uncounted {
            let total = conn.ask(&format!("SELECT count(*) FROM event WHERE {wanted}"), &params).await?;
            found.total = count(total.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))?);
        }
        let (skip, take) = (params.bind(big(*skip), Type::INT8), params.bind(big(*take), Type::INT8));
        let page = format!(
            "SELECT num, stream, key, ts, data FROM event WHERE {wanted} ORDER BY num {order} OFFSET {skip} LIMIT {take}"
        );
        found.items = conn.ask(&page, &params).await?.iter().map(event).collect::<Result<_, _>>()?;
    } else {
        // What is in the data is looked at here: events are few, and each is read once.
        let all = format!("SELECT num, stream, key, ts, data FROM event WHERE {wanted} ORDER BY num {order}");
        conn.each(&all, &params, |row| {
            let event = event(row)?;
            let has = |(pointer, value): &(String, String)| {
                event.event.data.pointer(pointer).and_then(Value::as_str) == Some(value)
            };
            if members.iter().all(has) {
                if found.total >= *skip && (found.items.len() as u64) < *take {
                    found.items.push(event);
                }
                found.total += 1;
            }
            Ok(())
        })
        .await?;
    }
    conn.batch("COMMIT").await?;
    Ok(found)
}
