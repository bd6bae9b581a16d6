//! Lists: deployments, their devices, events, groups; and everything there is.

use std::sync::Arc;

use roaring::RoaringBitmap;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use super::Reading;
use super::code::{self, CHUNK, Chunk, id_of};
use super::find;
use super::read::{self, Counted, Fault, Names, damaged};
use super::write::{SCHEDULED, scope_number};
use crate::model::time::Timestamp;
use crate::model::{Deployment, DeviceDeployment, Status};
use crate::store::{DumpRow, Rows};
use crate::work::query::{
    Active, DeploymentQuery, EventQuery, Found, Listed, Numbered, RecordQuery, SCOPES, Scope,
};
use crate::work::{Event, KINDS, STREAMS, Stream};

fn sql(number: u64) -> Sql {
    Sql::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn nothing<T>() -> Found<T> {
    Found { items: Vec::new(), total: 0 }
}

/// All active deployments, the oldest first.
pub(super) fn active(connection: &Connection) -> Result<Vec<Active>, Fault> {
    let deployments = read::deployments(connection, "WHERE is_active ORDER BY sequence", [])?;
    let with_members = |deployment: Deployment| {
        let members = read::members(connection, deployment.sequence)?.unwrap_or_default();
        Ok(Active { deployment, members: Arc::new(members) })
    };
    deployments.into_iter().map(with_members).collect()
}

/// Every group with how many devices are in it.
pub(super) fn groups(connection: &Connection) -> Result<Vec<(String, u64)>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT name, count FROM count WHERE kind = ?1 ORDER BY name")?;
    let rows =
        statement.query_map([Counted::Group as u8], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Every attribute with how many devices have it.
pub(super) fn attributes(
    connection: &Connection,
    reading: Reading<'_>,
) -> Result<Vec<(Scope, String, u64)>, Fault> {
    let mut statement =
        connection.prepare_cached("SELECT scope, name, count FROM attribute ORDER BY scope, name")?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let number: u8 = row.get(0)?;
        if let Some(scope) = SCOPES.into_iter().find(|scope| scope_number(*scope) == number) {
            all.push((scope, row.get::<_, String>(1)?, row.get::<_, i64>(2)? as u64));
        }
    }
    let seen = find::seen_devices(connection, reading)?;
    if seen > 0 {
        let place = all
            .partition_point(|(scope, name, _)| (*scope, name.as_str()) < (Scope::System, "check_in_time"));
        all.insert(place, (Scope::System, "check_in_time".to_owned(), seen));
    }
    Ok(all)
}

// ---- deployments ----

/// A page of deployments.
pub(super) fn deployments(
    connection: &Connection,
    query: &DeploymentQuery,
) -> Result<Found<Deployment>, Fault> {
    let mut tests = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    let one_of = |column: &str, count: usize| format!("{column} IN ({})", vec!["?"; count].join(","));
    if let Some(wanted) = query.is_configuration {
        tests.push("is_configuration = ?".to_owned());
        values.push(Sql::from(wanted));
    }
    if !query.states.is_empty() {
        // Time goes by without a row being written.
        let waits = "(starts IS NOT NULL AND starts > ?)";
        let others = one_of("state", query.states.len());
        let scheduled = i64::from(query.states.iter().any(|state| state == SCHEDULED));
        tests.push(format!("(CASE WHEN {waits} THEN {scheduled} ELSE {others} END)"));
        values.push(sql(Timestamp::now().0));
        values.extend(query.states.iter().cloned().map(Sql::from));
    }
    if !query.ids.is_empty() {
        tests.push(one_of("id", query.ids.len()));
        for id in &query.ids {
            values.push(code::id_value(id));
        }
    }
    if !query.names.is_empty() {
        tests.push(one_of("name", query.names.len()));
        values.extend(query.names.iter().cloned().map(Sql::from));
    }
    if let Some(text) = &query.search {
        // Of text, and not of bytes.
        tests.push("(?1 = '' OR instr(name, ?1) OR instr(artifact, ?1))".replace("?1", "?"));
        values.extend(std::iter::repeat_n(Sql::from(text.clone()), 3));
    }
    if let Some(name) = &query.artifact_name {
        tests.push("artifact = ?".to_owned());
        values.push(Sql::from(name.clone()));
    }
    if let Some(time) = query.before {
        tests.push("created <= ?".to_owned());
        values.push(sql(time.0));
    }
    if let Some(time) = query.after {
        tests.push("created >= ?".to_owned());
        values.push(sql(time.0));
    }
    let tests = if tests.is_empty() { String::new() } else { format!("WHERE {}", tests.join(" AND ")) };
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM deployment {tests}"))?
        .query_row(params_from_iter(&values), |row| row.get(0))?;
    let order = if query.oldest_first { "ASC" } else { "DESC" };
    values.extend([sql(query.take), sql(query.skip)]);
    let rest = format!("{tests} ORDER BY sequence {order} LIMIT ? OFFSET ?");
    let items = read::deployments(connection, &rest, params_from_iter(&values))?;
    Ok(Found { items, total: total as u64 })
}

/// A page of the devices of a deployment.
pub(super) fn records(connection: &Connection, query: &RecordQuery) -> Result<Found<Listed>, Fault> {
    let Some(deployment) = read::deployment(connection, &query.deployment)? else { return Ok(nothing()) };
    let sequence = deployment.sequence as i64;
    let members = read::members(connection, deployment.sequence)?.unwrap_or_default();
    let numbers = if query.statuses.is_empty() {
        members
    } else {
        let mut wanted = RoaringBitmap::new();
        for status in &query.statuses {
            wanted |= numbers_with(connection, sequence, Some(*status))?;
        }
        wanted &= &members;
        let absent = deployment.ended.unwrap_or(match deployment.finished {
            Some(_) => Status::Aborted,
            None => Status::Pending,
        });
        if query.statuses.contains(&absent) && !query.recorded {
            wanted |= members - numbers_with(connection, sequence, None)?;
        }
        wanted
    };
    let mut record = connection.prepare_cached(
        "SELECT status, finished, log, data FROM record WHERE deployment = ?1 AND device = ?2",
    )?;
    let mut items = Vec::new();
    let take = usize::try_from(query.take).unwrap_or(usize::MAX);
    let first = u32::try_from(query.skip).ok().and_then(|skip| numbers.select(skip));
    for number in first.into_iter().flat_map(|first| numbers.range(first..)).take(take) {
        let Some(id) = read::id_ever(connection, number)? else {
            return Err(damaged("device of the deployment", &query.deployment));
        };
        let mut rows = record.query((sequence, number))?;
        let found = rows.next()?.map(|row| read::record_of(row, 0, &query.deployment, &id)).transpose()?;
        items.push((id, found));
    }
    Ok(Found { items, total: numbers.len() })
}

/// The devices that have a record, with this status.
fn numbers_with(
    connection: &Connection,
    sequence: i64,
    status: Option<Status>,
) -> Result<RoaringBitmap, Fault> {
    let collect = |rows: rusqlite::Rows<'_>| -> Result<RoaringBitmap, Fault> {
        let mut rows = rows;
        let mut numbers = RoaringBitmap::new();
        while let Some(row) = rows.next()? {
            numbers.insert(row.get(0)?);
        }
        Ok(numbers)
    };
    match status {
        Some(status) => {
            let sql = "SELECT device FROM record WHERE deployment = ?1 AND status = ?2 ORDER BY device";
            collect(connection.prepare_cached(sql)?.query((sequence, code::status_number(status)))?)
        }
        None => {
            let sql = "SELECT device FROM record INDEXED BY record_status WHERE deployment = ?1";
            collect(connection.prepare_cached(sql)?.query([sequence])?)
        }
    }
}

/// Deployments that list a device, the newest first.
pub(super) fn history(
    connection: &Connection,
    device: &str,
    skip: u64,
    take: u64,
) -> Result<Found<(Deployment, Option<DeviceDeployment>)>, Fault> {
    let Some(number) = read::number_ever(connection, device)? else { return Ok(nothing()) };
    let mut statement = connection
        .prepare_cached("SELECT deployment, devices FROM listed WHERE chunk = ?1 ORDER BY deployment DESC")?;
    let mut rows = statement.query([number / CHUNK])?;
    let mut sequences: Vec<i64> = Vec::new();
    while let Some(row) = rows.next()? {
        if Chunk::contains(row.get_ref(1)?.as_blob()?, (number % CHUNK) as u16) {
            sequences.push(row.get(0)?);
        }
    }
    let total = sequences.len() as u64;
    let (skip, take) =
        (usize::try_from(skip).unwrap_or(usize::MAX), usize::try_from(take).unwrap_or(usize::MAX));
    let mut record = connection.prepare_cached(
        "SELECT status, finished, log, data FROM record WHERE deployment = ?1 AND device = ?2",
    )?;
    let mut items = Vec::new();
    for sequence in sequences.into_iter().skip(skip).take(take) {
        let Some(deployment) = read::deployment_by_sequence(connection, sequence as u64)? else { continue };
        let mut rows = record.query((sequence, number))?;
        let found = rows.next()?.map(|row| read::record_of(row, 0, &deployment.id, device)).transpose()?;
        items.push((deployment, found));
    }
    Ok(Found { items, total })
}

// ---- events ----

fn event_of(row: &rusqlite::Row<'_>) -> Result<Numbered, Fault> {
    let number = row.get::<_, i64>(0)? as u64;
    let damaged = || damaged("event", &number.to_string());
    let event = Event {
        stream: Stream::parse(row.get_ref(1)?.as_str()?).ok_or_else(damaged)?,
        key: row.get(2)?,
        time: Timestamp(row.get::<_, i64>(3)? as u64),
        data: serde_json::from_str(row.get_ref(4)?.as_str()?).map_err(|_| damaged())?,
    };
    Ok(Numbered { number, event })
}

/// A page of events.
pub(super) fn events(connection: &Connection, query: &EventQuery) -> Result<Found<Numbered>, Fault> {
    let mut tests = vec!["stream = ?".to_owned()];
    let mut values = vec![Sql::from(query.stream.name().to_owned())];
    if !query.keys.is_empty() {
        tests.push(format!("key IN ({})", vec!["?"; query.keys.len()].join(",")));
        values.extend(query.keys.iter().cloned().map(Sql::from));
    }
    let mut test = |text: &str, value: Option<u64>| {
        if let Some(value) = value {
            tests.push(text.to_owned());
            values.push(sql(value));
        }
    };
    test("time >= ?", query.after.map(|time| time.0));
    test("time <= ?", query.before.map(|time| time.0));
    test("number > ?", query.above);
    let tests = tests.join(" AND ");
    let order = if query.oldest_first { "ASC" } else { "DESC" };
    let all = "SELECT number, stream, key, time, data FROM event";
    let mut found = nothing();
    if query.members.is_empty() {
        if !query.uncounted {
            let total: i64 = connection
                .prepare_cached(&format!("SELECT count(*) FROM event WHERE {tests}"))?
                .query_row(params_from_iter(&values), |row| row.get(0))?;
            found.total = total as u64;
        }
        values.extend([sql(query.take), sql(query.skip)]);
        let page = format!("{all} WHERE {tests} ORDER BY number {order} LIMIT ? OFFSET ?");
        let mut statement = connection.prepare_cached(&page)?;
        let mut rows = statement.query(params_from_iter(&values))?;
        while let Some(row) = rows.next()? {
            found.items.push(event_of(row)?);
        }
        return Ok(found);
    }
    let mut statement = connection.prepare_cached(&format!("{all} WHERE {tests} ORDER BY number {order}"))?;
    let mut rows = statement.query(params_from_iter(&values))?;
    while let Some(row) = rows.next()? {
        let numbered = event_of(row)?;
        let has = |(pointer, wanted): &(String, String)| {
            numbered.event.data.pointer(pointer).and_then(Value::as_str) == Some(wanted.as_str())
        };
        if query.members.iter().all(has) {
            let place = found.total;
            found.total += 1;
            if place >= query.skip && place - query.skip < query.take {
                found.items.push(numbered);
            }
        }
    }
    Ok(found)
}

// ---- everything ----

/// Gives everything.
pub(super) fn dump(connection: &Connection, names: &Names, rows: &mut Rows<'_>) -> Result<(), Fault> {
    read::all_devices(connection, |device| {
        let view = read::view(connection, names, device)?;
        Ok(rows(DumpRow::Device(Box::new(view)))?)
    })?;
    let mut statement = connection.prepare("SELECT number, id FROM gone ORDER BY number")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        rows(DumpRow::Gone { number: row.get(0)?, id: id_of(row.get_ref(1)?)? })?;
    }
    let mut sequences = Vec::new();
    let mut statement = connection.prepare("SELECT sequence FROM deployment ORDER BY sequence")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        sequences.push(row.get::<_, i64>(0)?);
    }
    for sequence in &sequences {
        let Some(deployment) = read::deployment_by_sequence(connection, *sequence as u64)? else { continue };
        let members = read::members(connection, *sequence as u64)?.unwrap_or_default();
        rows(DumpRow::Deployment(Box::new(deployment), Arc::new(members)))?;
    }
    let mut statement = connection.prepare(
        "SELECT r.status, r.finished, r.log, r.data, d.id, coalesce(device.id, gone.id) FROM record r
         JOIN deployment d ON d.sequence = r.deployment
         LEFT JOIN device ON device.number = r.device LEFT JOIN gone ON gone.number = r.device
         ORDER BY r.deployment, r.device",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (deployment, device) = (id_of(row.get_ref(4)?)?, id_of(row.get_ref(5)?)?);
        rows(DumpRow::Record(Box::new(read::record_of(row, 0, &deployment, &device)?)))?;
    }
    let mut statement = connection.prepare(
        "SELECT l.text, d.id, coalesce(device.id, gone.id) FROM log l JOIN deployment d ON d.sequence = l.deployment
         LEFT JOIN device ON device.number = l.device LEFT JOIN gone ON gone.number = l.device
         ORDER BY l.device, l.deployment",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (deployment, device) = (id_of(row.get_ref(1)?)?, id_of(row.get_ref(2)?)?);
        rows(DumpRow::Log { deployment, device, text: row.get(0)? })?;
    }
    for kind in KINDS {
        read::documents(connection, kind, |id, value| {
            let row = match value {
                Ok(value) => DumpRow::Document(kind, id, value),
                Err(Fault::Damaged(what)) => DumpRow::Damaged(what),
                Err(fault) => return Err(fault),
            };
            Ok(rows(row)?)
        })?;
    }
    for stream in STREAMS {
        let mut statement = connection
            .prepare("SELECT number, stream, key, time, data FROM event WHERE stream = ?1 ORDER BY number")?;
        let mut found = statement.query([stream.name()])?;
        while let Some(row) = found.next()? {
            rows(DumpRow::Event(event_of(row)?.event))?;
        }
    }
    Ok(())
}

/// Deployments that ended before a time, but for the newest of all.
pub(super) fn old_deployments(
    connection: &Connection,
    before: Timestamp,
    most: u64,
) -> Result<Vec<String>, Fault> {
    let mut old = Vec::new();
    let mut from = 0;
    // What was made before may have ended later: pieces, so that not all of those are in memory.
    while (old.len() as u64) < most {
        let rest = "WHERE sequence > ?1 AND NOT is_active AND created < ?2
            AND sequence < (SELECT max(sequence) FROM deployment) ORDER BY sequence LIMIT 500";
        let piece = read::deployments(connection, rest, (from as i64, before.0 as i64))?;
        let Some(last) = piece.last() else { break };
        from = last.sequence;
        let is_old = |one: &Deployment| one.finished.is_some_and(|finished| finished < before);
        old.extend(piece.into_iter().filter(is_old).map(|one| one.id));
    }
    old.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(old)
}

/// Logs of devices that were done before a time: deployment and device.
pub(super) fn old_logs(
    connection: &Connection,
    before: Timestamp,
    most: u64,
) -> Result<Vec<(String, String)>, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT d.id, l.device FROM log l JOIN record r ON r.deployment = l.deployment AND r.device = l.device
         JOIN deployment d ON d.sequence = l.deployment WHERE r.finished < ?1 LIMIT ?2",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query((before.0 as i64, most))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if let Some(device) = read::id_ever(connection, row.get(1)?)? {
            found.push((id_of(row.get_ref(0)?)?, device));
        }
    }
    Ok(found)
}
