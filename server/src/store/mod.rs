//! What survives: one embedded database for records and logs, one folder for artifacts, and the secrets.
//!
//! ```text
//! DATA/fleet.redb           every record, as JSON under its id
//! DATA/artifacts/ID.mender  renamed into place when it is complete and on the disk
//! DATA/incoming/            uploads that are not complete; emptied at every start
//! DATA/secrets/             the key of the tokens, the key of the links
//! DATA/management-token     the token of the person who runs the server
//! ```

mod blobs;
mod secrets;
mod writer;

use std::fmt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use blobs::Blobs;
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
const TABLES: [Table; 9] =
    [META, DEVICES, INVENTORY, CONFIGURATIONS, ARTIFACTS, DEPLOYMENTS, DEVICE_DEPLOYMENTS, LOGS, CHECK_INS];

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
    Database(Box<redb::Error>),
    /// Another server uses the folder.
    InUse(PathBuf),
    /// The folder was written by a server with another form of records.
    UnknownFormat(String),
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
            StoreError::Database(source) => write!(f, "the database: {source}"),
            StoreError::InUse(path) => write!(f, "{} is used by another server", path.display()),
            StoreError::UnknownFormat(found) => write!(f, "the database has the unknown format {found}"),
            StoreError::Damaged { what } => write!(f, "{what} is damaged"),
            StoreError::NoRandomness => write!(f, "the system has no random numbers"),
        }
    }
}

impl std::error::Error for StoreError {}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Database(Box::new(error.into()))
    }
}

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
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    // Keys of devices and what they report are for whoever runs the server.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io("making", folder))?;
    // Its lock comes before anything else is touched.
    let database = match Database::create(folder.join("fleet.redb")) {
        Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse(folder.to_owned())),
        database => database?,
    };
    let blobs = Blobs::open(folder)?;
    let secrets = Secrets::open(folder)?;
    let fleet = load(&database)?;
    blobs.remove_unknown(|id| fleet.artifact(id).is_some())?;
    let database = std::sync::Arc::new(database);
    let writer = Writer::start(database.clone()).map_err(|source| StoreError::Io {
        doing: "starting the writer of",
        path: folder.to_owned(),
        source,
    })?;
    Ok((Store { logs: Logs { database }, writer, blobs, secrets }, fleet))
}

fn load(database: &Database) -> Result<Fleet, StoreError> {
    let transaction = database.begin_write()?;
    {
        for table in TABLES {
            transaction.open_table(table)?;
        }
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value().to_vec());
        match format.as_deref() {
            None => {
                meta.insert("format", FORMAT)?;
            }
            Some(FORMAT) => {}
            Some(other) => {
                return Err(StoreError::UnknownFormat(String::from_utf8_lossy(other).into_owned()));
            }
        }
    }
    transaction.commit()?;

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
    Ok(fleet)
}

fn read_all<T: DeserializeOwned>(
    database: &Database,
    definition: Table,
    mut each: impl FnMut(&str, T),
) -> Result<(), StoreError> {
    let table = database.begin_read()?.open_table(definition)?;
    for entry in table.iter()? {
        let (key, value) = entry?;
        let record = serde_json::from_slice(value.value()).map_err(|_| StoreError::Damaged {
            what: format!("the record {} of {definition}", key.value()),
        })?;
        each(key.value(), record);
    }
    Ok(())
}

/// Reads logs of deployments: they are not kept in memory.
#[derive(Clone)]
pub(crate) struct Logs {
    database: std::sync::Arc<Database>,
}

impl Logs {
    /// The log of one deployment on one device.
    ///
    /// # Errors
    /// The database could not be read.
    pub(crate) fn read(&self, deployment: &str, device: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self.database.begin_read()?.open_table(LOGS)?;
        Ok(table.get(pair(deployment, device).as_str())?.map(|value| value.value().to_vec()))
    }
}

fn pair(deployment: &str, device: &str) -> String {
    format!("{deployment}/{device}")
}

/// One line of a transaction: `None` takes the record away.
type Row = (Table, String, Option<Vec<u8>>);

/// The rows of a change.
fn rows(change: Change) -> Vec<Row> {
    match change {
        Change::Device(device) => vec![(DEVICES, device.id.clone(), json(&device))],
        Change::DeviceGone(id) => {
            [DEVICES, INVENTORY, CONFIGURATIONS, CHECK_INS].map(|table| (table, id.clone(), None)).to_vec()
        }
        Change::Inventory(id, inventory) => vec![(INVENTORY, id, json(&inventory))],
        Change::Configuration(id, configuration) => vec![(CONFIGURATIONS, id, json(&configuration))],
        Change::Artifact(artifact) => vec![(ARTIFACTS, artifact.id.clone(), json(&artifact))],
        Change::ArtifactGone(id) => vec![(ARTIFACTS, id, None)],
        Change::Deployment(deployment) => vec![(DEPLOYMENTS, deployment.id.clone(), json(&deployment))],
        Change::DeviceDeployment(record) => {
            vec![(DEVICE_DEPLOYMENTS, pair(&record.deployment, &record.device), json(&record))]
        }
        Change::Log { deployment, device, text } => {
            vec![(LOGS, pair(&deployment, &device), Some(text.into_bytes()))]
        }
        Change::CheckIns(times) => {
            times.into_iter().map(|(id, time)| (CHECK_INS, id, json(&time.0))).collect()
        }
    }
}

/// Records are structs of strings, numbers and maps with text as keys: they always become JSON.
fn json<T: Serialize>(record: &T) -> Option<Vec<u8>> {
    Some(serde_json::to_vec(record).unwrap_or_default())
}
