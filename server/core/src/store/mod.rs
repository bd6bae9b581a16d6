//! What survives: the fleet in a store, artifacts in a store of blobs, and the keys.
//!
//! Rules are functions over [`Work`](crate::work::Work); [`Store`] runs them in transactions and answers questions ([`crate::work::query`]). A fleet
//! is kept by SQLite in the data folder ([`sqlite`]), or by PostgreSQL ([`postgres`]) when several processes share it; one
//! suite says what both do (`conformance`). What older servers have written ([`redb`]) is imported once.
//!
//! ```text
//! DATA/fleet.sqlite         the fleet
//! DATA/artifacts/ID.mender  renamed into place when it is complete and on the disk
//! DATA/incoming/            uploads that are not complete; those of before are removed at every start
//! DATA/secrets/             the key of the tokens, the key of the links
//! DATA/management-token     the token of the person who runs the server
//! ```

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod postgres;
mod redb;
mod seam;
mod secrets;
pub(crate) mod sqlite;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::blobs::folder::tighten as tighten_folder;
pub(crate) use seam::{Committed, DumpRow, Job, Rows, Store, Watch, WriterFailed, committed, run_job};
pub(crate) use secrets::{Kept, Secrets};

/// What went wrong with what is stored.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// A file.
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A database: which one, and what it says.
    Database {
        /// Its file or its address, without a password.
        place: String,
        /// The reason.
        reason: String,
    },
    /// No folder was named.
    NoFolder,
    /// There is no database, but what belongs to one.
    Missing {
        /// Its file.
        path: PathBuf,
        /// What is there.
        beside: PathBuf,
    },
    /// The database has no records of ours.
    Empty {
        /// Its file or its address.
        place: String,
    },
    /// Another server uses the folder.
    InUse(PathBuf),
    /// Servers use the database.
    Served {
        /// Its address.
        place: String,
        /// The sessions of the database that they have.
        sessions: Vec<i32>,
    },
    /// A fleet is being moved out of the database, or into it.
    Moving {
        /// Its address.
        place: String,
        /// The session of the database that does it.
        sessions: Vec<i32>,
    },
    /// It was written by a server with another form of records.
    UnknownFormat {
        /// The file of the database, or its address.
        place: String,
        /// The form that it says it has.
        found: String,
    },
    /// A record or a secret is not what was written.
    Damaged {
        /// What.
        what: String,
    },
    /// A store that is to be filled has something in it.
    NotEmpty {
        /// Its file or its address.
        place: String,
    },
    /// The place where artifacts are.
    Artifacts {
        /// What is wrong.
        reason: String,
    },
    /// The system has no random numbers.
    NoRandomness,
}

/// A time of a device that is this far ahead of a newer one comes from a clock that was ahead: it is no later word.
const AHEAD_MILLISECONDS: u64 = 24 * 3600 * 1000;

/// What to do about damage.
const PUT_BACK: &str = "put a copy back";

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            StoreError::Database { place, reason } => write!(f, "the database {place}: {reason}"),
            StoreError::NoFolder => write!(f, "the name of the data folder is empty"),
            StoreError::Missing { path, beside } => write!(
                f,
                "the database {} is missing or empty, but {} is there and belongs to one; put the database back, or name \
                 another folder to begin with no devices",
                path.display(),
                beside.display()
            ),
            StoreError::Empty { place } => write!(f, "the database {place} is empty; {PUT_BACK}"),
            StoreError::InUse(path) => {
                write!(f, "{} is used by another server: stop it first", path.display())
            }
            StoreError::Served { place, sessions } => write!(
                f,
                "the database {place} is used by {} server(s): stop them first (sessions of PostgreSQL: {})",
                sessions.len(),
                listed(sessions)
            ),
            StoreError::Moving { place, sessions } => write!(
                f,
                "the fleet of the database {place} is being moved: wait until that has ended (sessions of PostgreSQL: {})",
                listed(sessions)
            ),
            StoreError::UnknownFormat { place, found } => {
                write!(f, "the database {place} has the unknown format {found:?}")
            }
            StoreError::Damaged { what } => write!(f, "{what} is damaged; {PUT_BACK}"),
            StoreError::NotEmpty { place } => write!(f, "the database {place} has something in it"),
            StoreError::Artifacts { reason } => write!(f, "artifacts: {reason}"),
            StoreError::NoRandomness => write!(f, "the system has no random numbers"),
        }
    }
}

impl std::error::Error for StoreError {}

fn listed(sessions: &[i32]) -> String {
    sessions.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// Takes the rights of everybody but the owner away.
fn tighten(path: &Path) -> Result<(), StoreError> {
    tighten_folder(path).map_err(|source| StoreError::Io {
        doing: "keeping others out of",
        path: path.to_owned(),
        source,
    })
}
