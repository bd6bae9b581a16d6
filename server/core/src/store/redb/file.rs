//! The file of an older server's database, which may be damaged in any way.

use std::any::Any;
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use crate::store::StoreError;

/// Why something could not be done with the database. The file's name is added by [`DatabaseFile`].
#[derive(Debug)]
pub(super) enum Fault {
    /// The library, or the disk below it.
    Library(Box<redb::Error>),
    /// The library has panicked: it does on some damage.
    Panicked(String),
    /// A record is not what was written.
    Record {
        /// In which table.
        table: String,
        /// Its key.
        key: String,
    },
    /// The records have another form.
    UnknownFormat(String),
    /// There is nothing in it, not even the form of its records.
    Empty,
    /// Of whoever takes what is read.
    Other(StoreError),
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Library(Box::new(error.into()))
    }
}

/// The file, and the database in it.
pub(super) struct DatabaseFile {
    path: PathBuf,
    database: Database,
}

impl DatabaseFile {
    /// Opens it. Another server that uses it is an error.
    pub(super) fn open(path: &Path) -> Result<DatabaseFile, StoreError> {
        let database = open(path)?;
        Ok(DatabaseFile { path: path.to_owned(), database })
    }

    /// What `work` finds in it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StoreError> {
        guarded(&self.path, || work(&self.database)).map_err(|fault| named(&self.path, fault))
    }
}

fn open(path: &Path) -> Result<Database, StoreError> {
    let file: Result<File, _> = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|source| StoreError::Io { doing: "opening", path: path.to_owned(), source })?;
    let opened = guarded(path, || {
        let backend = match FileBackend::new(file) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Ok(None),
            backend => Bounded(backend?),
        };
        Ok(Some(Database::builder().create_with_backend(backend)?))
    });
    match opened.map_err(|fault| named(path, fault))? {
        Some(database) => Ok(database),
        None => Err(StoreError::InUse(path.parent().unwrap_or(path).to_owned())),
    }
}

/// The file, of which nothing is read that is not there: on some damage the library asks for so many bytes that a program
/// ends when it tries to have them.
#[derive(Debug)]
struct Bounded(FileBackend);

impl StorageBackend for Bounded {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| self.0.len().is_ok_and(|all| end > all)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        self.0.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn named(path: &Path, fault: Fault) -> StoreError {
    let place = path.display().to_string();
    match fault {
        Fault::Library(error) if is_damage(&error) => {
            StoreError::Damaged { what: format!("{place} ({error})") }
        }
        Fault::Library(error) => StoreError::Database { place, reason: error.to_string() },
        Fault::Panicked(reason) => StoreError::Damaged { what: format!("{place} ({reason})") },
        Fault::Record { table, key } => {
            StoreError::Damaged { what: format!("the record {key} of {table} in {place}") }
        }
        Fault::UnknownFormat(found) => StoreError::UnknownFormat { place, found },
        Fault::Empty => StoreError::Empty { place },
        Fault::Other(error) => error,
    }
}

/// Whether an error is about what is in the file, and not about the disk.
fn is_damage(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let in_io = |error: &std::io::Error| matches!(error.kind(), InvalidData | UnexpectedEof);
    matches!(error, redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. })
        || matches!(error, redb::Error::Io(error) if in_io(error))
}

thread_local! {
    /// The file that this thread has the library look at.
    static LOOKING_AT: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Does `work`; a panic in it is a fault and nothing is printed. A program that is built to abort at a panic ends with the
/// name of the file.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // While a thread ends, its variables may be gone.
            let path = LOOKING_AT.try_with(|path| path.borrow().clone()).ok().flatten();
            match path {
                None => before(info),
                Some(path) if cfg!(panic = "abort") => {
                    let fault = Fault::Panicked(reason(info.payload()));
                    eprintln!("rust-ota-server: {}", named(&path, fault));
                    std::process::exit(1);
                }
                Some(_) => {}
            }
        }));
    });
    LOOKING_AT.with(|looking| *looking.borrow_mut() = Some(path.to_owned()));
    let result = catch_unwind(AssertUnwindSafe(work));
    LOOKING_AT.with(|looking| *looking.borrow_mut() = None);
    result.unwrap_or_else(|payload| Err(Fault::Panicked(reason(&*payload))))
}

/// What a panic says, on one line.
fn reason(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason");
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::{Fault, guarded};
    use std::path::Path;

    #[test]
    fn a_panic_of_the_library_is_a_fault() {
        let words: [fn() -> Result<(), Fault>; 2] =
            [|| panic!("no page {}\nat all", 7), || std::panic::panic_any(7)];
        let said = words.map(|work| match guarded(Path::new("x"), work) {
            Err(Fault::Panicked(reason)) => reason,
            other => format!("{other:?}"),
        });
        assert_eq!(said, ["no page 7", "no reason"]);
    }
}
