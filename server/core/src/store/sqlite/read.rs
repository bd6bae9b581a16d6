//! Reads single records, with whatever connection: within the transaction that writes, or beside it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use roaring::RoaringBitmap;
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::Value;

use super::code::{self, Id, id_of};
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory};
use crate::store::StoreError;
use crate::work::query::DeviceView;
use crate::work::{Kind, Next};

/// Why something could not be read or written. The name of the file is added by [`Fault::named`].
#[derive(Debug)]
pub(super) enum Fault {
    /// What the database says.
    Sql(rusqlite::Error),
    /// A record is not what was written.
    Damaged(String),
    /// A file beside it.
    Io(std::io::Error),
    /// Of a kind of its own.
    Other(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<FromSqlError> for Fault {
    fn from(error: FromSqlError) -> Fault {
        Fault::Sql(error.into())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Other(error)
    }
}

impl Fault {
    /// As an error of this file.
    pub(super) fn named(self, path: &Path) -> StoreError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Fault::Sql(error)
                if matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) =>
            {
                StoreError::Damaged { what: format!("{} ({error})", path.display()) }
            }
            Fault::Sql(error) => {
                StoreError::Database { place: path.display().to_string(), reason: error.to_string() }
            }
            Fault::Damaged(what) => StoreError::Damaged { what: format!("{what} in {}", path.display()) },
            Fault::Io(source) => {
                StoreError::Io { doing: "sorting the rows of", path: path.to_owned(), source }
            }
            Fault::Other(error) => error,
        }
    }
}

pub(super) fn damaged(what: &str, id: &str) -> Fault {
    Fault::Damaged(format!("the {what} {id}"))
}

/// Names of attributes by their numbers, which are never used again for another name.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<u64, String>>);

/// Names that are kept. A device may make as many as it likes.
const NAMES: usize = 4096;

impl Names {
    fn name(&self, connection: &Connection, number: u64) -> Result<String, Fault> {
        if let Some(name) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return Ok(name.clone());
        }
        let mut statement = connection.prepare_cached("SELECT name FROM attribute WHERE id = ?1")?;
        let name: Option<String> = statement.query_row([number as i64], |row| row.get(0)).optional()?;
        let name = name.ok_or_else(|| damaged("name of the attribute", &number.to_string()))?;
        // A transaction that is not committed may take its numbers back.
        if connection.is_autocommit() {
            let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if names.len() >= NAMES {
                names.clear();
            }
            names.insert(number, name.clone());
        }
        Ok(name)
    }
}

fn device_of(row: &Row<'_>) -> Result<Device, Fault> {
    let active = match row.get_ref(3)? {
        ValueRef::Null => None,
        id @ (ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_)) => {
            Some(id_of(id)?)
        }
    };
    let mut device = Device {
        id: id_of(row.get_ref(1)?)?,
        identity: Default::default(),
        identity_sha256: id_of(row.get_ref(2)?)?,
        created: Timestamp(0),
        updated: Timestamp(0),
        auth_sets: Vec::new(),
        group: None,
        number: row.get(0)?,
        active,
        last_finished: row.get::<_, i64>(4)? as u64,
        tags: Default::default(),
        monitor: Default::default(),
    };
    let data = row.get_ref(5)?.as_blob()?;
    match code::read_device(&mut device, data) {
        Some(()) => Ok(device),
        None => Err(damaged("device", &device.id)),
    }
}

fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    rows.next()?.map(read).transpose()
}

pub(super) fn device(connection: &Connection, id: &str) -> Result<Option<Device>, Fault> {
    one(
        connection,
        "SELECT number, id, sha, active, last_finished, data FROM device WHERE id = ?1",
        [Id(id)],
        device_of,
    )
}

pub(super) fn device_by_number(connection: &Connection, number: u32) -> Result<Option<Device>, Fault> {
    one(
        connection,
        "SELECT number, id, sha, active, last_finished, data FROM device WHERE number = ?1",
        [number],
        device_of,
    )
}

pub(super) fn all_devices(
    connection: &Connection,
    mut each: impl FnMut(Device) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut statement = connection
        .prepare_cached("SELECT number, id, sha, active, last_finished, data FROM device ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(device_of(row)?)?;
    }
    Ok(())
}

pub(super) fn number(connection: &Connection, id: &str) -> Result<Option<u32>, Fault> {
    one(connection, "SELECT number FROM device WHERE id = ?1", [Id(id)], |row| Ok(row.get(0)?))
}

/// The number of a device, also of one that is gone.
pub(super) fn number_ever(connection: &Connection, id: &str) -> Result<Option<u32>, Fault> {
    match number(connection, id)? {
        Some(number) => Ok(Some(number)),
        None => one(connection, "SELECT number FROM gone WHERE id = ?1", [Id(id)], |row| Ok(row.get(0)?)),
    }
}

/// The id of a device, also of one that is gone.
pub(super) fn id_ever(connection: &Connection, number: u32) -> Result<Option<String>, Fault> {
    let id = |row: &Row<'_>| Ok(id_of(row.get_ref(0)?)?);
    match one(connection, "SELECT id FROM device WHERE number = ?1", [number], id)? {
        Some(id) => Ok(Some(id)),
        None => one(connection, "SELECT id FROM gone WHERE number = ?1", [number], id),
    }
}

pub(super) fn device_of_identity(connection: &Connection, sha: &str) -> Result<Option<String>, Fault> {
    one(connection, "SELECT id FROM device WHERE sha = ?1", [Id(sha)], |row| Ok(id_of(row.get_ref(0)?)?))
}

pub(super) fn device_of_auth_set(connection: &Connection, set: &str) -> Result<Option<u32>, Fault> {
    one(connection, "SELECT device FROM auth_set WHERE id = ?1", [Id(set)], |row| Ok(row.get(0)?))
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    /// Devices with a status, by its number.
    Status = 0,
    /// Devices of a group.
    Group = 1,
}

pub(super) fn count(connection: &Connection, status: AuthStatus) -> Result<u64, Fault> {
    let values = (Counted::Status as u8, code::auth_status_number(status));
    let count = one(connection, "SELECT count FROM count WHERE kind = ?1 AND name = ?2", values, |row| {
        Ok(row.get::<_, i64>(0)?)
    });
    Ok(count?.unwrap_or(0) as u64)
}

pub(super) fn inventory(
    connection: &Connection,
    names: &Names,
    number: u32,
) -> Result<Option<Inventory>, Fault> {
    one(connection, "SELECT data FROM inventory WHERE device = ?1", [number], |row| {
        let data = row.get_ref(0)?.as_blob()?;
        let inventory = code::read_inventory(data, |number| names.name(connection, number))?;
        inventory.ok_or_else(|| damaged("inventory of the device", &number.to_string()))
    })
}

/// When devices were heard of: a row has [`SEEN`] of them, with 8 bytes of milliseconds each.
pub(super) const SEEN: u32 = 512;

pub(super) fn check_in(connection: &Connection, number: u32) -> Result<Option<Timestamp>, Fault> {
    let place = (number % SEEN) as usize * 8;
    let found = one(connection, "SELECT times FROM seen WHERE chunk = ?1", [number / SEEN], |row| {
        let times = row.get_ref(0)?.as_blob()?;
        let time = times.get(place..place + 8).and_then(|bytes| bytes.try_into().ok());
        Ok(time.map_or(0, u64::from_le_bytes))
    });
    Ok(found?.filter(|time| *time > 0).map(Timestamp))
}

/// A device with everything that lists show of it.
pub(super) fn view(connection: &Connection, names: &Names, device: Device) -> Result<DeviceView, Fault> {
    let inventory = inventory(connection, names, device.number)?.unwrap_or_default();
    let check_in = check_in(connection, device.number)?;
    Ok(DeviceView { device, inventory, check_in })
}

// ---- deployments ----

fn deployment_of(row: &Row<'_>) -> Result<Deployment, Fault> {
    let mut deployment: Deployment = serde_json::from_slice(row.get_ref(1)?.as_blob()?)
        .map_err(|_| damaged("deployment", &row.get::<_, i64>(0).unwrap_or(0).to_string()))?;
    deployment.sequence = row.get::<_, i64>(0)? as u64;
    Ok(deployment)
}

pub(super) fn deployment(connection: &Connection, id: &str) -> Result<Option<Deployment>, Fault> {
    one(connection, "SELECT sequence, data FROM deployment WHERE id = ?1", [Id(id)], deployment_of)
}

pub(super) fn deployment_by_sequence(
    connection: &Connection,
    sequence: u64,
) -> Result<Option<Deployment>, Fault> {
    one(
        connection,
        "SELECT sequence, data FROM deployment WHERE sequence = ?1",
        [sequence as i64],
        deployment_of,
    )
}

/// Deployments that a part of a statement behind `FROM deployment` is about.
pub(super) fn deployments(
    connection: &Connection,
    rest: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Deployment>, Fault> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT sequence, data FROM deployment {rest}"))?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(deployment_of(row)?);
    }
    Ok(found)
}

pub(super) fn sequence(connection: &Connection, id: &str) -> Result<Option<u64>, Fault> {
    one(connection, "SELECT sequence FROM deployment WHERE id = ?1", [Id(id)], |row| {
        Ok(row.get::<_, i64>(0)? as u64)
    })
}

pub(super) fn members(connection: &Connection, sequence: u64) -> Result<Option<RoaringBitmap>, Fault> {
    one(connection, "SELECT devices FROM members WHERE deployment = ?1", [sequence as i64], |row| {
        RoaringBitmap::deserialize_from(row.get_ref(0)?.as_blob()?)
            .map_err(|_| damaged("list of devices of the deployment", &sequence.to_string()))
    })
}

pub(super) fn members_of(connection: &Connection, id: &str) -> Result<Option<Arc<RoaringBitmap>>, Fault> {
    match sequence(connection, id)? {
        Some(sequence) => Ok(members(connection, sequence)?.map(Arc::new)),
        None => Ok(None),
    }
}

/// What the row of a record does not have in columns of its own: everything else, whatever it is.
pub(super) fn record_data(record: &DeviceDeployment) -> Vec<u8> {
    // A struct of strings and numbers: it always becomes JSON.
    let mut data = serde_json::to_value(record).unwrap_or_default();
    if let Value::Object(members) = &mut data {
        for column in ["deployment", "device", "status", "finished", "log"] {
            members.remove(column);
        }
        members.retain(|_, value| !value.is_null());
    }
    data.to_string().into_bytes()
}

/// Reads a record from the columns `status, finished, log, data`, from the first one on.
pub(super) fn record_of(
    row: &Row<'_>,
    first: usize,
    deployment: &str,
    device: &str,
) -> Result<DeviceDeployment, Fault> {
    let damaged = || damaged("record", &format!("{deployment}/{device}"));
    let mut data: Value =
        serde_json::from_slice(row.get_ref(first + 3)?.as_blob()?).map_err(|_| damaged())?;
    let members = data.as_object_mut().ok_or_else(damaged)?;
    members.insert("deployment".to_owned(), deployment.into());
    members.insert("device".to_owned(), device.into());
    let status = code::status_of(row.get(first)?).ok_or_else(damaged)?;
    members.insert("status".to_owned(), status.name().into());
    let finished = row.get::<_, Option<i64>>(first + 1)?.map(|time| Timestamp(time as u64).to_string());
    members.insert("finished".to_owned(), finished.into());
    members.insert("log".to_owned(), row.get::<_, bool>(first + 2)?.into());
    serde_json::from_value(data).map_err(|_| damaged())
}

/// The numbers of a deployment and of a device, which may be gone.
fn part(connection: &Connection, deployment: &str, device: &str) -> Result<Option<(u64, u32)>, Fault> {
    Ok(sequence(connection, deployment)?.zip(number_ever(connection, device)?))
}

pub(super) fn record(
    connection: &Connection,
    deployment: &str,
    device: &str,
) -> Result<Option<DeviceDeployment>, Fault> {
    let Some((sequence, number)) = part(connection, deployment, device)? else { return Ok(None) };
    one(
        connection,
        "SELECT status, finished, log, data FROM record WHERE deployment = ?1 AND device = ?2",
        (sequence as i64, number),
        |row| record_of(row, 0, deployment, device),
    )
}

pub(super) fn log(connection: &Connection, deployment: &str, device: &str) -> Result<Option<String>, Fault> {
    let Some((sequence, number)) = part(connection, deployment, device)? else { return Ok(None) };
    one(
        connection,
        "SELECT text FROM log WHERE device = ?1 AND deployment = ?2",
        (number, sequence as i64),
        |row| Ok(row.get(0)?),
    )
}

// ---- documents ----

fn document_of(kind: Kind, id: &str, text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|_| damaged(kind.name(), id))
}

pub(super) fn document(connection: &Connection, kind: Kind, id: &str) -> Result<Option<Value>, Fault> {
    one(connection, "SELECT data FROM document WHERE kind = ?1 AND id = ?2", (kind.name(), id), |row| {
        document_of(kind, id, row.get_ref(0)?.as_str()?)
    })
}

pub(super) fn documents(
    connection: &Connection,
    kind: Kind,
    mut each: impl FnMut(String, Result<Value, Fault>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut statement =
        connection.prepare_cached("SELECT id, data FROM document WHERE kind = ?1 ORDER BY id")?;
    let mut rows = statement.query([kind.name()])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let text = row.get_ref(1)?.as_str().map_err(|_| damaged(kind.name(), &id));
        let value = text.and_then(|text| document_of(kind, &id, text));
        each(id, value)?;
    }
    Ok(())
}

/// The numbers that come next.
pub(super) fn next(connection: &Connection) -> Result<Next, Fault> {
    let greatest = |sql| -> Result<i64, Fault> {
        Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0))
    };
    let device = greatest("SELECT max(number) FROM device")?.max(greatest("SELECT max(number) FROM gone")?);
    let sequence = greatest("SELECT max(sequence) FROM deployment")?;
    Ok(Next {
        device: u32::try_from(device).unwrap_or(u32::MAX).saturating_add(1),
        sequence: sequence as u64 + 1,
    })
}
