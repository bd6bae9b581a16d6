//! What survives: one embedded database for records and logs, one folder for artifacts, and the secrets.
//!
//! ```text
//! DATA/fleet.redb           every record, as JSON under its id
//! DATA/artifacts/ID.mender  renamed into place when it is complete and on the disk
//! DATA/incoming/            uploads that are not complete; those of before are removed at every start
//! DATA/secrets/             the key of the tokens, the key of the links
//! DATA/management-token     the token of the person who runs the server
//! ```
//!
//! The database comes first and goes last: whoever finds the others without it has lost it.

mod blobs;
mod database;
mod secrets;
mod writer;

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use blobs::Blobs;
use database::{DatabaseFile, Fault};
pub(crate) use secrets::Secrets;
pub(crate) use writer::{Writer, WriterFailed};

use crate::domain::fleet::Fleet;
use crate::domain::model::Change;
use crate::domain::time::Timestamp;

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const META: Table = TableDefinition::new("meta");
const DEVICES: Table = TableDefinition::new("devices");
const INVENTORY: Table = TableDefinition::new("inventory");
const CONFIGURATIONS: Table = TableDefinition::new("configurations");
const ARTIFACTS: Table = TableDefinition::new("artifacts");
const DEPLOYMENTS: Table = TableDefinition::new("deployments");
const DEVICE_DEPLOYMENTS: Table = TableDefinition::new("device_deployments");
const LOGS: Table = TableDefinition::new("logs");
const CHECK_INS: Table = TableDefinition::new("check_ins");
const LOGOUTS: Table = TableDefinition::new("logouts");
const TABLES: [Table; 10] = [
    META,
    DEVICES,
    INVENTORY,
    CONFIGURATIONS,
    ARTIFACTS,
    DEPLOYMENTS,
    DEVICE_DEPLOYMENTS,
    LOGS,
    CHECK_INS,
    LOGOUTS,
];

/// The form of the records. Another one is refused, not guessed at.
const FORMAT: &[u8] = b"1";

/// What went wrong with the data folder.
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
    /// The database.
    Database {
        /// Its file.
        path: PathBuf,
        /// The reason.
        source: Box<redb::Error>,
    },
    /// The database could not be opened again after an error.
    Closed {
        /// Its file.
        path: PathBuf,
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
        /// Its file.
        path: PathBuf,
    },
    /// Another server uses the folder.
    InUse(PathBuf),
    /// The folder was written by a server with another form of records.
    UnknownFormat {
        /// The file of the database.
        path: PathBuf,
        /// The form that it says it has.
        found: String,
    },
    /// A record or a secret is not what was written.
    Damaged {
        /// What.
        what: String,
    },
    /// The system has no random numbers.
    NoRandomness,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            StoreError::Database { path, source } if is_damage(source) => {
                write!(f, "the database {} is damaged: {source}; {PUT_BACK}", path.display())
            }
            StoreError::Database { path, source } => write!(f, "the database {}: {source}", path.display()),
            StoreError::Closed { path } => {
                write!(f, "the database {} could not be opened again", path.display())
            }
            StoreError::NoFolder => write!(f, "the name of the data folder is empty"),
            StoreError::Missing { path, beside } => write!(
                f,
                "the database {} is missing or empty, but {} is there and belongs to one; put the database back, or name \
                 another folder to begin with no devices",
                path.display(),
                beside.display()
            ),
            StoreError::Empty { path } => write!(f, "the database {} is empty; {PUT_BACK}", path.display()),
            StoreError::InUse(path) => write!(f, "{} is used by another server", path.display()),
            StoreError::UnknownFormat { path, found } => {
                write!(f, "the database {} has the unknown format {found:?}", path.display())
            }
            StoreError::Damaged { what } => write!(f, "{what} is damaged; {PUT_BACK}"),
            StoreError::NoRandomness => write!(f, "the system has no random numbers"),
        }
    }
}

/// Whether an error is about what is in the file, and not about the disk.
fn is_damage(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let in_io = |error: &std::io::Error| matches!(error.kind(), InvalidData | UnexpectedEof);
    matches!(error, redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. })
        || matches!(error, redb::Error::Io(error) if in_io(error))
}

/// What to do about damage.
const PUT_BACK: &str = "put a copy back";

impl std::error::Error for StoreError {}

/// An open data folder.
pub(crate) struct Store {
    /// Reads logs.
    pub(crate) logs: Logs,
    /// Writes records.
    pub(crate) writer: Writer,
    /// Artifacts.
    pub(crate) blobs: Blobs,
    /// Keys and tokens.
    pub(crate) secrets: Secrets,
}

/// Opens or makes a data folder, and reads everything in it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(folder: &Path) -> Result<(Store, Fleet), StoreError> {
    if folder.as_os_str().is_empty() {
        return Err(StoreError::NoFolder);
    }
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    // Keys of devices and what they report are for whoever runs the server.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io("making", folder))?;
    let path = folder.join("fleet.redb");
    let is_new = fs::metadata(&path).map_or(true, |file| file.len() == 0);
    let beside = Secrets::found(folder).or_else(|| Blobs::has_any(folder).then(|| folder.join("artifacts")));
    if let (true, Some(beside)) = (is_new, &beside) {
        return Err(StoreError::Missing { path, beside: beside.clone() });
    }
    // Its lock comes before anything else is touched.
    let file = Arc::new(DatabaseFile::open(path)?);
    file.with(|database| prepare(database, beside.is_none()))?;
    if is_new {
        // Secrets without it are an error, so it must not be the one that is lost.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("writing", folder))?;
    }
    let fleet = file.with(load)?;
    let blobs = Blobs::open(folder)?;
    let secrets = Secrets::open(folder)?;
    blobs.look_through(|id| fleet.artifact(id).is_some(), fleet.artifacts())?;
    let writer = Writer::start(file.clone()).map_err(io("starting the writer of", folder))?;
    Ok((Store { logs: Logs { file }, writer, blobs, secrets }, fleet))
}

/// Takes the rights of everybody but the owner away.
fn tighten(path: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::Io { doing: "keeping others out of", path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(error)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        log::warn!("{} was open to others (mode {mode:04o}); from now on it is its owner's", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o077)).map_err(error)?;
    }
    Ok(())
}

/// Makes the tables that are not there, and checks the form of the records. A database without one is new, unless it was
/// to be one that is not.
fn prepare(database: &Database, may_be_new: bool) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    let has_tables = transaction.list_tables()?.next().is_some();
    {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value().to_vec());
        match format.as_deref() {
            None if has_tables => return Err(Fault::UnknownFormat(String::new())),
            None if !may_be_new => return Err(Fault::Empty),
            None => {
                meta.insert("format", FORMAT)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Fault::UnknownFormat(String::from_utf8_lossy(other).into_owned()));
            }
        }
        drop(meta);
        for table in TABLES {
            transaction.open_table(table)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn load(database: &Database) -> Result<Fleet, Fault> {
    let mut fleet = Fleet::default();
    read_all(database, DEVICES, |_, device| fleet.restore(Change::Device(device)))?;
    read_all(database, INVENTORY, |id, found| fleet.restore(Change::Inventory(id.to_owned(), found)))?;
    read_all(database, CONFIGURATIONS, |id, found| {
        fleet.restore(Change::Configuration(id.to_owned(), found));
    })?;
    read_all(database, ARTIFACTS, |_, artifact| fleet.restore(Change::Artifact(artifact)))?;
    read_all(database, DEPLOYMENTS, |_, deployment| fleet.restore(Change::Deployment(deployment)))?;
    read_all(database, DEVICE_DEPLOYMENTS, |_, record| fleet.restore(Change::DeviceDeployment(record)))?;
    read_all(database, CHECK_INS, |id, time: u64| {
        fleet.restore(Change::CheckIns(vec![(id.to_owned(), Timestamp(time))]));
    })?;
    read_all(database, LOGOUTS, |login, until: u64| {
        fleet.restore(Change::LoggedOut { login: login.to_owned(), until: Timestamp(until) });
    })?;
    Ok(fleet)
}

fn read_all<T: DeserializeOwned>(
    database: &Database,
    definition: Table,
    mut each: impl FnMut(&str, T),
) -> Result<(), Fault> {
    let table = database.begin_read()?.open_table(definition)?;
    for entry in table.iter()? {
        let (key, value) = entry?;
        let record = serde_json::from_slice(value.value())
            .map_err(|_| Fault::Record { table: definition.to_string(), key: key.value().to_owned() })?;
        each(key.value(), record);
    }
    Ok(())
}

/// Reads logs of deployments: they are not kept in memory.
#[derive(Clone)]
pub(crate) struct Logs {
    file: Arc<DatabaseFile>,
}

impl Logs {
    /// The log of one deployment on one device.
    ///
    /// # Errors
    /// The database could not be read.
    pub(crate) fn read(&self, deployment: &str, device: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.file.with(|database| {
            let table = database.begin_read()?.open_table(LOGS)?;
            Ok(table.get(pair(deployment, device).as_str())?.map(|value| value.value().to_vec()))
        })
    }
}

fn pair(deployment: &str, device: &str) -> String {
    format!("{deployment}/{device}")
}

/// One line of a transaction: `None` takes the record away.
type Row = (Table, String, Option<Vec<u8>>);

/// The rows of a change.
fn rows(change: &Change) -> Vec<Row> {
    match change {
        Change::Device(device) => vec![(DEVICES, device.id.clone(), json(&device))],
        Change::DeviceGone(id) => {
            [DEVICES, INVENTORY, CONFIGURATIONS, CHECK_INS].map(|table| (table, id.clone(), None)).to_vec()
        }
        Change::Inventory(id, inventory) => vec![(INVENTORY, id.clone(), json(inventory))],
        Change::Configuration(id, configuration) => vec![(CONFIGURATIONS, id.clone(), json(configuration))],
        Change::Artifact(artifact) => vec![(ARTIFACTS, artifact.id.clone(), json(artifact))],
        Change::ArtifactGone(id) => vec![(ARTIFACTS, id.clone(), None)],
        Change::Deployment(deployment) => vec![(DEPLOYMENTS, deployment.id.clone(), json(deployment))],
        Change::DeviceDeployment(record) => {
            vec![(DEVICE_DEPLOYMENTS, pair(&record.deployment, &record.device), json(record))]
        }
        Change::Log { deployment, device, text } => {
            vec![(LOGS, pair(deployment, device), Some(text.clone().into_bytes()))]
        }
        Change::LogGone { deployment, device } => vec![(LOGS, pair(deployment, device), None)],
        Change::CheckIns(times) => {
            times.iter().map(|(id, time)| (CHECK_INS, id.clone(), json(&time.0))).collect()
        }
        Change::LoggedOut { login, until } => vec![(LOGOUTS, login.clone(), json(&until.0))],
        Change::LoginOver(login) => vec![(LOGOUTS, login.clone(), None)],
    }
}

/// Records are structs of strings, numbers and maps with text as keys: they always become JSON.
fn json<T: Serialize>(record: &T) -> Option<Vec<u8>> {
    Some(serde_json::to_vec(record).unwrap_or_default())
}
