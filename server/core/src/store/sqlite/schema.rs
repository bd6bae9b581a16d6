//! The tables, and how a connection is opened.
//!
//! Devices have numbers, which rise; everything else names a device by its number. What devices can be searched and sorted by
//! is in one index, `post`: for each attribute and value the devices that have it, 4096 numbers in a row, as numbers or as
//! bits. So a search is a union and an intersection of sets whatever it asks for, and an order is a walk over the values.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// The form of the records.
pub(super) const FORMAT: &str = "1";

pub(super) const TABLES: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE device(number INTEGER PRIMARY KEY, id NOT NULL UNIQUE, sha NOT NULL UNIQUE, active, last_finished INTEGER NOT NULL,
    data BLOB NOT NULL);
CREATE TABLE gone(number INTEGER PRIMARY KEY, id NOT NULL UNIQUE);
CREATE TABLE auth_set(id NOT NULL PRIMARY KEY, device INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE inventory(device INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE attribute(id INTEGER PRIMARY KEY AUTOINCREMENT, scope INTEGER NOT NULL, name TEXT NOT NULL,
    count INTEGER NOT NULL, UNIQUE(scope, name));
CREATE TABLE post(attribute INTEGER NOT NULL, key BLOB NOT NULL, chunk INTEGER NOT NULL, devices BLOB NOT NULL,
    PRIMARY KEY(attribute, key, chunk)) WITHOUT ROWID;
CREATE TABLE count(kind INTEGER NOT NULL, name NOT NULL, count INTEGER NOT NULL, PRIMARY KEY(kind, name)) WITHOUT ROWID;
CREATE TABLE seen(chunk INTEGER PRIMARY KEY, times BLOB NOT NULL);
CREATE TABLE deployment(sequence INTEGER PRIMARY KEY, id NOT NULL UNIQUE, state TEXT NOT NULL, is_configuration INTEGER NOT NULL,
    name TEXT NOT NULL, artifact TEXT NOT NULL, created INTEGER NOT NULL, starts INTEGER,
    is_active INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX deployment_state ON deployment(is_configuration, state, sequence);
CREATE INDEX deployment_active ON deployment(sequence) WHERE is_active;
CREATE TABLE members(deployment INTEGER PRIMARY KEY, devices BLOB NOT NULL);
CREATE TABLE listed(chunk INTEGER NOT NULL, deployment INTEGER NOT NULL, devices BLOB NOT NULL,
    PRIMARY KEY(chunk, deployment)) WITHOUT ROWID;
CREATE TABLE record(deployment INTEGER NOT NULL, device INTEGER NOT NULL, status INTEGER NOT NULL, finished INTEGER,
    log INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY(deployment, device)) WITHOUT ROWID;
CREATE INDEX record_status ON record(deployment, status, device);
CREATE INDEX record_device ON record(device, deployment);
CREATE TABLE log(device INTEGER NOT NULL, deployment INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE(device, deployment));
CREATE TABLE document(kind TEXT NOT NULL, id TEXT NOT NULL, data TEXT NOT NULL, UNIQUE(kind, id));
CREATE TABLE event(number INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, key TEXT NOT NULL, time INTEGER NOT NULL,
    data TEXT NOT NULL);
CREATE INDEX event_time ON event(stream, time);
CREATE INDEX event_key ON event(stream, key, number);
";

/// Takes everything away that filling has brought.
pub(super) const EMPTY: &str = "
BEGIN IMMEDIATE;
DELETE FROM device; DELETE FROM gone; DELETE FROM auth_set; DELETE FROM inventory; DELETE FROM attribute; DELETE FROM post;
DELETE FROM count; DELETE FROM seen; DELETE FROM deployment; DELETE FROM members; DELETE FROM listed; DELETE FROM record;
DELETE FROM log; DELETE FROM document; DELETE FROM event; DELETE FROM meta WHERE name = 'filling';
COMMIT;
";

/// Pages of the file that are mapped: they are the system's to keep or to give up, and reading them takes no call.
const MAPPED_BYTES: i64 = 16 << 30;
/// Pages of the log of writes before they are put into the file.
const CHECKPOINT_PAGES: i64 = 4000;
/// What the log of writes may keep on the disk when it is empty.
const LOG_BYTES: i64 = 64 << 20;
/// How long a connection waits for another one.
const WAIT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The one that writes.
    Write,
    /// One of those that read.
    Read,
}

/// Opens the file, and makes it when it is for writing.
pub(super) fn connect(path: &Path, what_for: Use) -> rusqlite::Result<Connection> {
    let flags = match what_for {
        Use::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Use::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(WAIT)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update(None, "mmap_size", MAPPED_BYTES)?;
    // Kibibytes.
    let cache = match what_for {
        Use::Write => -16_384,
        Use::Read => -2048,
    };
    connection.pragma_update(None, "cache_size", cache)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    if what_for == Use::Write {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    }
    Ok(connection)
}
