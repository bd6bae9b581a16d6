//! What servers before 0.2 have written: `DATA/fleet.redb`, with every record as JSON under its id. It is read once, to be
//! written into a store of today.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableTable, TableDefinition, TableHandle};
use roaring::RoaringBitmap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::file::{DatabaseFile, Fault};
use super::{DumpRow, StoreError};
use crate::model::time::Timestamp;
use crate::model::{Deployment, Device, DeviceDeployment, Inventory, Status};
use crate::work::Kind;
use crate::work::query::DeviceView;

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

/// The form of the records.
const FORMAT: &[u8] = b"1";

/// A folder's file.
pub(super) struct Old {
    file: DatabaseFile,
}

/// Takes one row after the other.
type Give<'a> = dyn FnMut(DumpRow) -> Result<(), StoreError> + 'a;

impl Old {
    /// Opens it, and takes its lock.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn open(path: &Path) -> Result<Old, StoreError> {
        let file = DatabaseFile::open(path)?;
        file.with(check)?;
        Ok(Old { file })
    }

    /// Gives everything, in the order of [`DumpRow`].
    ///
    /// # Errors
    /// What is wrong with it, or what `give` says.
    pub(super) fn read(&self, give: &mut Give<'_>) -> Result<(), StoreError> {
        self.file.with(|database| read(database, give))
    }
}

fn check(database: &Database) -> Result<(), Fault> {
    let transaction = database.begin_read()?;
    let has_meta = transaction.list_tables()?.any(|table| table.name() == META.name());
    if !has_meta {
        return match transaction.list_tables()?.next() {
            Some(_) => Err(Fault::UnknownFormat(String::new())),
            None => Err(Fault::Empty),
        };
    }
    match transaction.open_table(META)?.get("format")?.map(|value| value.value().to_vec()).as_deref() {
        Some(FORMAT) => Ok(()),
        None => Err(Fault::UnknownFormat(String::new())),
        Some(other) => Err(Fault::UnknownFormat(String::from_utf8_lossy(other).into_owned())),
    }
}

/// A table, which an older server may not have had.
struct Records {
    name: String,
    table: Option<ReadOnlyTable<&'static str, &'static [u8]>>,
}

impl Records {
    fn open(database: &Database, definition: Table) -> Result<Records, Fault> {
        let name = definition.name().to_owned();
        match database.begin_read()?.open_table(definition) {
            Ok(table) => Ok(Records { name, table: Some(table) }),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(Records { name, table: None }),
            Err(error) => Err(error.into()),
        }
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, bytes: &[u8]) -> Result<T, Fault> {
        let damaged = |_| Fault::Record { table: self.name.clone(), key: key.to_owned() };
        serde_json::from_slice(bytes).map_err(damaged)
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Fault> {
        let Some(table) = &self.table else { return Ok(None) };
        table.get(key)?.map(|value| self.parse(key, value.value())).transpose()
    }

    fn each<T: DeserializeOwned>(
        &self,
        mut each: impl FnMut(&str, T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.each_bytes(|key, bytes| each(key, self.parse(key, bytes)?))
    }

    fn each_bytes(&self, mut each: impl FnMut(&str, &[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let Some(table) = &self.table else { return Ok(()) };
        for entry in table.iter()? {
            let (key, value) = entry?;
            each(key.value(), value.value())?;
        }
        Ok(())
    }
}

/// What the records of deployments say of a device.
#[derive(Default)]
struct AtWork {
    active: Option<String>,
    last_finished: u64,
}

/// What they say of a deployment.
#[derive(Default)]
struct Tally {
    counts: BTreeMap<Status, u64>,
    total_size: u64,
}

/// The head of a deployment.
#[derive(Deserialize)]
struct OldDeployment {
    sequence: u64,
    devices: Vec<String>,
}

fn read(database: &Database, give: &mut Give<'_>) -> Result<(), Fault> {
    let mut give = |row: DumpRow| give(row).map_err(Fault::Other);
    let devices = Records::open(database, DEVICES)?;
    let deployments = Records::open(database, DEPLOYMENTS)?;
    let records = Records::open(database, DEVICE_DEPLOYMENTS)?;

    // Numbers are given in the order in which devices came.
    let mut order: Vec<(Timestamp, String)> = Vec::new();
    devices.each(|id, device: Device| {
        order.push((device.created, id.to_owned()));
        Ok(())
    })?;
    order.sort();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut next = 1;
    let mut number = |numbers: &mut HashMap<String, u32>, id: &str| {
        *numbers.entry(id.to_owned()).or_insert_with(|| {
            next += 1;
            next - 1
        })
    };
    for (_, id) in &order {
        number(&mut numbers, id);
    }
    let there = numbers.len();
    // Devices that are gone are named by their deployments.
    let mut sequences: BTreeMap<u64, String> = BTreeMap::new();
    let mut by_id: HashMap<String, u64> = HashMap::new();
    deployments.each(|id, deployment: OldDeployment| {
        sequences.insert(deployment.sequence, id.to_owned());
        by_id.insert(id.to_owned(), deployment.sequence);
        deployment.devices.iter().for_each(|device| {
            number(&mut numbers, device);
        });
        Ok(())
    })?;
    let mut at_work: HashMap<String, AtWork> = HashMap::new();
    let mut tallies: HashMap<String, Tally> = HashMap::new();
    records.each(|_, record: DeviceDeployment| {
        // One without its deployment was never shown.
        let Some(sequence) = by_id.get(&record.deployment) else { return Ok(()) };
        number(&mut numbers, &record.device);
        let tally = tallies.entry(record.deployment.clone()).or_default();
        *tally.counts.entry(record.status).or_default() += 1;
        tally.total_size += record.offered_bytes;
        let device = at_work.entry(record.device).or_default();
        if record.status.is_finished() {
            device.last_finished = device.last_finished.max(*sequence);
        } else {
            device.active = Some(record.deployment);
        }
        Ok(())
    })?;

    let inventories = Records::open(database, INVENTORY)?;
    let check_ins = Records::open(database, CHECK_INS)?;
    for (_, id) in &order {
        let Some(mut device) = devices.get::<Device>(id)? else { continue };
        device.number = numbers.get(id).copied().unwrap_or(0);
        let work = at_work.remove(id).unwrap_or_default();
        device.active = work.active;
        device.last_finished = work.last_finished;
        let inventory = inventories.get::<Inventory>(id)?.unwrap_or_default();
        let check_in = check_ins.get::<u64>(id)?.filter(|time| *time > 0).map(Timestamp);
        give(DumpRow::Device(Box::new(DeviceView { device, inventory, check_in })))?;
    }
    let mut gone: Vec<(u32, &String)> = numbers.iter().map(|(id, number)| (*number, id)).collect();
    gone.sort();
    for (number, id) in gone.into_iter().skip(there) {
        give(DumpRow::Gone { number, id: id.clone() })?;
    }
    for id in sequences.values() {
        let Some(mut value) = deployments.get::<Value>(id)? else { continue };
        let damaged = || Fault::Record { table: deployments.name.clone(), key: id.clone() };
        let listed: Vec<String> = serde_json::from_value(value["devices"].take()).map_err(|_| damaged())?;
        let members: RoaringBitmap = listed.iter().filter_map(|id| numbers.get(id)).copied().collect();
        value["device_count"] = json!(members.len());
        let mut deployment: Deployment = serde_json::from_value(value).map_err(|_| damaged())?;
        let tally = tallies.remove(id).unwrap_or_default();
        deployment.counts = tally.counts;
        deployment.total_size = tally.total_size;
        deployment.ended = deployment.finished.map(|_| Status::Aborted);
        give(DumpRow::Deployment(Box::new(deployment), Arc::new(members)))?;
    }
    records.each(|_, record: DeviceDeployment| match by_id.contains_key(&record.deployment) {
        true => give(DumpRow::Record(Box::new(record))),
        false => Ok(()),
    })?;
    Records::open(database, LOGS)?.each_bytes(|key, text| {
        let Some((deployment, device)) = key.split_once('/') else { return Ok(()) };
        let text = String::from_utf8_lossy(text).into_owned();
        give(DumpRow::Log { deployment: deployment.to_owned(), device: device.to_owned(), text })
    })?;
    Records::open(database, ARTIFACTS)?.each(|id, artifact: Value| {
        let is_made = artifact.get("configuration_of").is_some_and(|device| !device.is_null());
        let kind = if is_made { Kind::MadeArtifact } else { Kind::Artifact };
        give(DumpRow::Document(kind, id.to_owned(), artifact))
    })?;
    Records::open(database, CONFIGURATIONS)?
        .each(|id, value: Value| give(DumpRow::Document(Kind::Configuration, id.to_owned(), value)))?;
    Records::open(database, LOGOUTS)?
        .each(|id, until: u64| give(DumpRow::Document(Kind::Logout, id.to_owned(), json!(until))))
}

/// Whether a folder has such a file with something in it.
pub(super) fn is_there(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// A file with these records: table, key, bytes.
    pub(crate) fn write(path: &Path, rows: &[(&str, &str, Vec<u8>)]) {
        let database = Database::create(path).unwrap();
        let transaction = database.begin_write().unwrap();
        for (table, key, value) in rows {
            let table: TableDefinition<'_, &str, &[u8]> = TableDefinition::new(table);
            transaction.open_table(table).unwrap().insert(*key, value.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
}
