//! The folder: one process at a time, for its owner only, and never begun anew beside what belongs to a fleet.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::Sqlite;
use super::read::{self, Fault, Names, damaged};
use super::schema::{self, FORMAT, TABLES, Use};
use super::write::{self, Flush};
use crate::blobs::Folder;
use crate::store::{DumpRow, Secrets, Store, StoreError, tighten};

/// The file of the fleet.
const FILE: &str = "fleet.sqlite";
/// Locked by the process that serves the folder.
const LOCK: &str = "fleet.lock";
/// Devices that are written at a time when a store is filled: what one value has of them is written once.
const FILL: usize = 65_536;

/// Opens or makes the fleet in a data folder. A folder of an older server is imported once.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    if folder.as_os_str().is_empty() {
        return Err(StoreError::NoFolder);
    }
    // Keys of devices and what they report are for whoever runs the server.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StoreError::Io { doing: "making", path: folder.to_owned(), source })?;
    let path = folder.join(FILE);
    let is_new = fs::metadata(&path).map_or(true, |file| file.len() == 0);
    let beside = Secrets::found(folder).or_else(|| Folder::has_any(folder).then(|| folder.join("artifacts")));
    if let (true, Some(beside)) = (is_new, &beside) {
        return Err(StoreError::Missing { path, beside: beside.clone() });
    }
    let lock = lock(folder)?;
    let connection = open_file(&path, beside.is_none()).map_err(|fault| fault.named(&path))?;
    if is_new {
        // Secrets without it are an error, so it must not be the one that is lost.
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| StoreError::Io { doing: "writing", path: folder.to_owned(), source })?;
    }
    Ok(Arc::new(Sqlite::start(&path, connection, Some(lock))?))
}

/// Opens the fleet of a folder to read it beside the server that uses it: what it has acknowledged is there.
///
/// # Errors
/// There is none, or what is wrong with it.
pub(crate) fn open_beside(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let path = folder.join(FILE);
    fs::metadata(&path).map_err(|source| StoreError::Io { doing: "opening", path: path.clone(), source })?;
    let connection = open_file(&path, false).map_err(|fault| fault.named(&path))?;
    Ok(Arc::new(Sqlite::start(&path, connection, None)?))
}

fn lock(folder: &Path) -> Result<fs::File, StoreError> {
    let path = folder.join(LOCK);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| StoreError::Io { doing: "opening", path: path.clone(), source })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(StoreError::Io { doing: "locking", path, source: error.into() }),
    }
}

/// Opens the file, or makes it with its tables.
fn open_file(path: &Path, may_be_new: bool) -> Result<Connection, Fault> {
    let opened =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    // Closed before the library opens it: its locks would go with this one.
    drop(opened.map_err(|source| StoreError::Io { doing: "opening", path: path.to_owned(), source })?);
    tighten(path)?;
    let connection = schema::connect(path, Use::Write)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let unknown = |found: String| StoreError::UnknownFormat { place: path.display().to_string(), found };
    if tables == 0 {
        if !may_be_new {
            return Err(StoreError::Empty { place: path.display().to_string() }.into());
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(TABLES)?;
        connection.execute("INSERT INTO meta VALUES('format', ?1)", [FORMAT])?;
        connection.execute_batch("COMMIT")?;
        return Ok(connection);
    }
    let read = |name: &str| {
        connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get::<_, String>(0))
    };
    match read("format") {
        Ok(format) if format == FORMAT => {}
        Ok(other) => return Err(unknown(other).into()),
        Err(error) if matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt)) => {
            return Err(error.into());
        }
        Err(_) => return Err(unknown(String::new()).into()),
    }
    if read("filling").is_ok() {
        return Err(Fault::Damaged("what was to be filled, and was not to its end,".to_owned()));
    }
    Ok(connection)
}

/// Takes everything into an empty file.
pub(super) fn fill(
    path: &Path,
    names: &Names,
    rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
) -> Result<(), StoreError> {
    let filled = schema::connect(path, Use::Write).map_err(Fault::from).and_then(|connection| {
        let has = |table: &str| {
            connection.query_row(&format!("SELECT EXISTS(SELECT 1 FROM {table})"), [], |row| row.get(0))
        };
        for table in ["device", "gone", "deployment", "document", "event"] {
            if has(table)? {
                return Err(StoreError::NotEmpty { place: path.display().to_string() }.into());
            }
        }
        // Nothing of it is anybody's before all of it is there.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute("INSERT INTO meta VALUES('filling', '')", [])?;
        fill_all(&connection, names, rows)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute("DELETE FROM meta WHERE name = 'filling'", [])?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    });
    filled.map_err(|fault| fault.named(path))
}

fn fill_all(
    connection: &Connection,
    names: &Names,
    rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
) -> Result<(), Fault> {
    let mut is_over = false;
    while !is_over {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut flush = Flush::new(connection, names);
        let mut check_ins = Vec::new();
        for _ in 0..FILL {
            let Some(row) = rows.next() else {
                is_over = true;
                break;
            };
            match row? {
                DumpRow::Device(view) => {
                    let number = view.device.number;
                    if number == 0 {
                        return Err(damaged("number of the device", &view.device.id));
                    }
                    flush.device(None, &view.device)?;
                    if view.inventory.updated.is_some() || !view.inventory.attributes.is_empty() {
                        flush.inventory(number, None, Some(&view.inventory))?;
                    }
                    check_ins.extend(view.check_in.map(|time| (number, time)));
                }
                DumpRow::Gone { number, id } => flush.gone(number, &id)?,
                DumpRow::Deployment(deployment, members) => {
                    flush.deployment(&deployment)?;
                    flush.members(deployment.sequence, &members)?;
                }
                DumpRow::Record(record) => flush.record(&record)?,
                DumpRow::Log { deployment, device, text } => flush.log(&deployment, &device, Some(&text))?,
                DumpRow::Document(kind, id, value) => flush.document(kind, &id, Some(&value))?,
                DumpRow::Event(event) => flush.event(&event)?,
            }
        }
        flush.end()?;
        write::check_ins(connection, &check_ins)?;
        connection.execute_batch("COMMIT")?;
    }
    let _ = read::next(connection)?;
    Ok(())
}
