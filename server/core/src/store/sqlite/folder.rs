//! The folder: one process at a time, for its owner only, and never begun anew beside what belongs to a fleet.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::Sqlite;
use super::code::CHUNK;
use super::read::{Fault, Names, damaged};
use super::schema::{self, EMPTY, FORMAT, TABLES, Use};
use super::sort::Sorter;
use super::write::{self, Flush};
use crate::blobs::Folder;
use crate::model::Inventory;
use crate::model::time::Timestamp;
use crate::store::{DumpRow, Secrets, Store, StoreError, redb, tighten};

/// The file of the fleet.
const FILE: &str = "fleet.sqlite";
/// That of a server before, what it is called when it is imported, and a file that is not whole yet.
const OLD: &str = "fleet.redb";
const IMPORTED: &str = "fleet.redb.imported";
const BUILT: &str = "fleet.sqlite.new";
/// Locked by the process that serves the folder.
const LOCK: &str = "fleet.lock";
/// Rows of one transaction when a store is filled.
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
    let old = folder.join(OLD);
    let is_empty = !fs::metadata(&path).is_ok_and(|file| file.len() > 0);
    let is_new = is_empty && !redb::is_there(&old);
    let beside = Secrets::found(folder).or_else(|| Folder::has_any(folder).then(|| folder.join("artifacts")));
    if let (true, Some(beside)) = (is_new, &beside) {
        return Err(StoreError::Missing { path, beside: beside.clone() });
    }
    let lock = lock(folder)?;
    if redb::is_there(&old) {
        if is_empty {
            import(folder, &old)?;
        }
        // What is imported is imported whole, also when the power went before this.
        let imported = folder.join(IMPORTED);
        if fs::symlink_metadata(&imported).is_ok() {
            log::warn!("{} is not read: the fleet is in {}", old.display(), path.display());
        } else {
            fs::rename(&old, &imported).map_err(io("renaming", &old))?;
            sync(folder)?;
        }
    }
    let connection = open_file(&path, beside.is_none()).map_err(|fault| fault.named(&path))?;
    if is_new {
        // Secrets without it are an error, so it must not be the one that is lost.
        sync(folder)?;
    }
    Ok(Arc::new(Sqlite::start(&path, connection, Some(lock))?))
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("writing", folder))
}

/// Writes what an older server has kept beside it, and gives it its name when it is whole and on the disk.
fn import(folder: &Path, old: &Path) -> Result<(), StoreError> {
    let path = folder.join(FILE);
    let new = folder.join(BUILT);
    let began = std::time::Instant::now();
    log::warn!("{} is of an older server: it is imported", old.display());
    for name in ["", "-wal", "-shm"] {
        let left = folder.join(format!("{BUILT}{name}"));
        match fs::remove_file(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("removing", &left)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let old = redb::Old::open(old)?;
    let connection = open_file(&new, true).map_err(|fault| fault.named(&new))?;
    let names = Names::default();
    let mut devices = 0;
    let filled = (|| {
        let mut fill = Fill::begin(&new, &connection, &names)?;
        old.read(&mut |row| {
            devices += u64::from(matches!(row, DumpRow::Device(_)));
            fill.row(row).map_err(|fault| fault.named(&new))
        })?;
        fill.end()
    })();
    filled.map_err(|fault: Fault| fault.named(&new))?;
    // The last to close it has put everything into the one file.
    connection.close().map_err(|(_, error)| Fault::from(error).named(&new))?;
    fs::File::open(&new).and_then(|file| file.sync_all()).map_err(io("writing", &new))?;
    fs::rename(&new, &path).map_err(io("renaming", &new))?;
    sync(folder)?;
    log::warn!("{devices} devices are imported, in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Opens the fleet of a folder to read it beside the server that uses it: what it has acknowledged is there.
///
/// # Errors
/// There is none, or what is wrong with it.
pub(crate) fn open_beside(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let path = folder.join(FILE);
    fs::metadata(&path).map_err(io("opening", &path))?;
    let connection = open_file(&path, false).map_err(|fault| fault.named(&path))?;
    Ok(Arc::new(Sqlite::start(&path, connection, None)?))
}

/// Opens the fleet of a folder that nobody else uses, where there is one.
///
/// # Errors
/// There is none, or what is wrong with it.
pub(crate) fn open_known(folder: &Path) -> Result<Arc<dyn Store>, StoreError> {
    let path = folder.join(FILE);
    if !redb::is_there(&folder.join(OLD)) {
        fs::metadata(&path).map_err(io("opening", &path))?;
    }
    open(folder)
}

/// Makes a folder if need be, and keeps other processes out of it: for a server whose fleet is elsewhere.
///
/// # Errors
/// Another server uses it, or what is wrong with it.
pub(crate) fn hold(folder: &Path) -> Result<Lock, StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io("making", folder))?;
    lock(folder)
}

/// What keeps other processes out of a folder.
pub(crate) struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Given back, and not only closed: a process that is just being started by another thread has the file open too, until
        // it becomes another program.
        if let Err(error) = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock) {
            log::warn!("the lock of the data folder could not be given back: {error}");
        }
    }
}

fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let path = folder.join(LOCK);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(|source| StoreError::Io { doing: "opening", path: path.clone(), source })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
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
        for table in ["device", "gone", "deployment", "document", "event"] {
            let sql = format!("SELECT EXISTS(SELECT 1 FROM {table})");
            if connection.query_row(&sql, [], |row| row.get(0))? {
                return Err(StoreError::NotEmpty { place: path.display().to_string() }.into());
            }
        }
        let filled = (|| {
            let mut fill = Fill::begin(path, &connection, names)?;
            for row in rows {
                fill.row(row?)?;
            }
            fill.end()
        })();
        if filled.is_err() {
            // It can be filled again. Where that fails too the file says itself that it is not whole.
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            connection.execute_batch(EMPTY)?;
        }
        filled
    });
    filled.map_err(|fault| fault.named(path))
}

/// A file that is being filled. Nothing of it is anybody's before all of it is there: it says so itself.
struct Fill<'a> {
    connection: &'a Connection,
    flush: Flush<'a>,
    /// Where the last device is in the index.
    chunk: u32,
    check_ins: Vec<(u32, Timestamp)>,
    rows: usize,
}

impl<'a> Fill<'a> {
    fn begin(path: &Path, connection: &'a Connection, names: &'a Names) -> Result<Fill<'a>, Fault> {
        let sorter = Sorter::new(path.parent().unwrap_or(path))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute("INSERT INTO meta VALUES('filling', '')", [])?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Fill {
            connection,
            flush: Flush::sorting(connection, names, sorter),
            chunk: 0,
            check_ins: Vec::new(),
            rows: 0,
        })
    }

    fn row(&mut self, row: DumpRow) -> Result<(), Fault> {
        let flush = &mut self.flush;
        match row {
            DumpRow::Device(view) => {
                let number = view.device.number;
                if number == 0 {
                    return Err(damaged("number of the device", &view.device.id));
                }
                if number / CHUNK != self.chunk {
                    flush.end()?;
                    self.chunk = number / CHUNK;
                }
                flush.device(None, &view.device)?;
                if view.inventory != Inventory::default() {
                    flush.inventory(number, None, Some(&view.inventory))?;
                }
                self.check_ins.extend(view.check_in.map(|time| (number, time)));
            }
            DumpRow::Gone { number, id } => flush.gone(number, &id)?,
            DumpRow::Deployment(deployment, members) => {
                flush.deployment(&deployment)?;
                flush.members(deployment.sequence, &members)?;
            }
            DumpRow::Record(record) => flush.record(&record)?,
            DumpRow::Log { deployment, device, text } => flush.log(&deployment, &device, Some(&text))?,
            DumpRow::Document(kind, id, value) => flush.document(kind, &id, Some(&value))?,
            DumpRow::Damaged(_) => {}
            DumpRow::Event(event) => flush.event(&event)?,
        }
        self.rows += 1;
        if self.rows % FILL == 0 {
            self.commit()?;
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        self.flush.end()?;
        write::check_ins(self.connection, &std::mem::take(&mut self.check_ins))?;
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    fn end(mut self) -> Result<(), Fault> {
        self.commit()?;
        let connection = self.connection;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        self.flush.sorted(|| Ok(connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?))?;
        connection.execute_batch("COMMIT")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        // All of it is in the file before it is said to be whole.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.execute("DELETE FROM meta WHERE name = 'filling'", [])?;
        Ok(())
    }
}
