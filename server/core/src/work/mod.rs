//! What one transaction reads and writes: aggregates that were loaded before a rule looks at them.
//!
//! A rule is a function over [`Work`]. It is synchronous, knows no database, and may run more than once: when it asks for an
//! aggregate that is not loaded, it ends with [`NotLoaded`], what it did is undone, the aggregate is loaded, and it begins
//! again. So the same rules run on every store, and a store can gather many rules into one transaction:
//!
//! ```text
//! gather jobs -> load what their keys name -> run each -> (load what was missing, run again) -> flush what changed -> commit -> answer
//! ```

pub(crate) mod query;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory};

/// An aggregate that a rule asked for is not loaded: it ends with this, and is run again when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotLoaded;

/// What can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A device, by its id.
    Device(String),
    /// Which device has an identity, by the digest of the identity.
    Identity(String),
    /// Which device has an authentication set, by the set's id.
    AuthSet(String),
    /// What a device has reported, by its id.
    Inventory(String),
    /// A deployment with its counters, by its id.
    Deployment(String),
    /// The devices that a deployment lists, by its id.
    Members(String),
    /// One deployment on one device: the ids of both.
    Record(String, String),
    /// A document.
    Document(Kind, String),
    /// How many devices have a status.
    Count(AuthStatus),
}

/// Kinds of documents: everything that is neither a device nor a deployment. What is [`Kind::is_cached`] is about the fleet,
/// there is not much of it, and every process has all of it in memory. The others are about one device each, or, as leases, are
/// not for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An artifact that people have uploaded or had generated.
    Artifact,
    /// The artifact of one device's configuration, by its id.
    MadeArtifact,
    /// Notes and tags of a release, by its name.
    Release,
    /// The configuration of a device, by the device's id.
    Configuration,
    /// A person, by id.
    User,
    /// Settings: `global`, or a person's id.
    Settings,
    /// A personal access token, by id.
    Token,
    /// The logins of a person that go on, by the person's id.
    Session,
    /// Of older servers, which have kept the logins that were ended, by the `jti` of their tokens.
    Logout,
    /// A role, by name.
    Role,
    /// A kept filter, which is a dynamic group, by id.
    Filter,
    /// A webhook, by id.
    Integration,
    /// A job that makes a delta, by id.
    DeltaJob,
    /// An upload that goes to the store of artifacts directly, by id.
    Upload,
    /// What a device's monitors say, by the device's id.
    Monitor,
    /// For which deployments the alerts of a device count, by the device's id.
    Watched,
    /// Which active deployment is for these devices, by a digest of them and of what it is for.
    Order,
    /// What all devices together may load, and what they were given: one, `fleet`.
    Budget,
    /// When the history of a device was taken away, by the device's id.
    History,
    /// Keys of the server, by name.
    Secret,
    /// Which process does something that one does at a time, by its name.
    Lease,
    /// How far something is that the server does by itself, by its name.
    Progress,
}

/// Every kind.
pub(crate) const KINDS: [Kind; 22] = [
    Kind::Artifact,
    Kind::MadeArtifact,
    Kind::Release,
    Kind::Configuration,
    Kind::User,
    Kind::Settings,
    Kind::Token,
    Kind::Session,
    Kind::Logout,
    Kind::Role,
    Kind::Filter,
    Kind::Integration,
    Kind::DeltaJob,
    Kind::Upload,
    Kind::Monitor,
    Kind::Watched,
    Kind::Order,
    Kind::Budget,
    Kind::History,
    Kind::Secret,
    Kind::Lease,
    Kind::Progress,
];

impl Kind {
    /// Its name in a store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Artifact => "artifact",
            Kind::MadeArtifact => "made_artifact",
            Kind::Release => "release",
            Kind::Configuration => "configuration",
            Kind::User => "user",
            Kind::Settings => "settings",
            Kind::Token => "token",
            Kind::Session => "session",
            Kind::Logout => "logout",
            Kind::Role => "role",
            Kind::Filter => "filter",
            Kind::Integration => "integration",
            Kind::DeltaJob => "delta_job",
            Kind::Upload => "upload",
            Kind::Monitor => "monitor",
            Kind::Watched => "watched",
            Kind::Order => "order",
            Kind::Budget => "budget",
            Kind::History => "history",
            Kind::Secret => "secret",
            Kind::Lease => "lease",
            Kind::Progress => "progress",
        }
    }

    /// The kind with this name.
    pub(crate) fn parse(name: &str) -> Option<Kind> {
        KINDS.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether each process has all of them in memory.
    pub(crate) fn is_cached(self) -> bool {
        match self {
            Kind::Configuration
            | Kind::MadeArtifact
            | Kind::Logout
            | Kind::Monitor
            | Kind::Watched
            | Kind::History
            | Kind::Order
            | Kind::Lease
            | Kind::Progress => false,
            Kind::Artifact
            | Kind::Release
            | Kind::User
            | Kind::Settings
            | Kind::Token
            | Kind::Session
            | Kind::Role
            | Kind::Filter
            | Kind::Integration
            | Kind::DeltaJob
            | Kind::Upload
            | Kind::Budget
            | Kind::Secret => true,
        }
    }
}

/// Things that happened, each in the order of time, that nothing changes afterwards and that go when they are old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stream {
    /// What people did. The key is the id of what they did it to.
    Audit,
    /// What a webhook is told. The key is an id of its own.
    Webhook,
    /// What a webhook answered. The key is the id of the event that it was told.
    Delivery,
    /// Alerts of monitors. The key is the id of the device.
    Alert,
    /// What mails tell. The key is what kind it is of.
    Mail,
    /// What terminals printed. The key is the id of the session.
    Recording,
}

/// Every stream.
pub(crate) const STREAMS: [Stream; 6] =
    [Stream::Audit, Stream::Webhook, Stream::Delivery, Stream::Alert, Stream::Mail, Stream::Recording];

impl Stream {
    /// Its name in a store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Audit => "audit",
            Stream::Webhook => "webhook",
            Stream::Delivery => "delivery",
            Stream::Alert => "alert",
            Stream::Mail => "mail",
            Stream::Recording => "recording",
        }
    }

    /// The stream with this name.
    pub(crate) fn parse(name: &str) -> Option<Stream> {
        STREAMS.into_iter().find(|stream| stream.name() == name)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Where it belongs.
    pub(crate) stream: Stream,
    /// What it is about.
    pub(crate) key: String,
    /// When.
    pub(crate) time: Timestamp,
    /// What.
    pub(crate) data: Value,
}

/// One row as it was loaded, and as it is to be.
#[derive(Debug)]
pub(crate) struct Row<V> {
    /// As it is in the store.
    pub(crate) before: Option<V>,
    /// As it is to be.
    pub(crate) now: Option<V>,
    is_changed: bool,
}

/// Aggregates of one type.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    rows: HashMap<K, Row<V>>,
    /// What the job that runs has replaced, the newest last.
    undo: Vec<(K, Option<V>, bool)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { rows: HashMap::new(), undo: Vec::new() }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Table<K, V> {
    /// What a store has found under `key`.
    fn load(&mut self, key: K, value: Option<V>) {
        self.rows.entry(key).or_insert(Row { before: value.clone(), now: value, is_changed: false });
    }

    fn get(&self, key: &K) -> Option<&Option<V>> {
        self.rows.get(key).map(|row| &row.now)
    }

    /// Puts a value in place of what is there. False when it is not loaded.
    fn put(&mut self, key: K, value: Option<V>) -> bool {
        let Some(row) = self.rows.get_mut(&key) else { return false };
        let before = std::mem::replace(&mut row.now, value);
        let was_changed = std::mem::replace(&mut row.is_changed, true);
        self.undo.push((key, before, was_changed));
        true
    }

    /// What the job that runs has changed: as it was before the job, and as it is now.
    fn own(&self) -> impl Iterator<Item = (&K, Option<&V>, Option<&V>)> {
        let mut seen = HashSet::new();
        // What was first replaced is what was there before the job.
        let first = self.undo.iter().filter(move |(key, ..)| seen.insert(key));
        first.map(|(key, before, _)| {
            let now = self.rows.get(key).and_then(|row| row.now.as_ref());
            (key, before.as_ref(), now)
        })
    }

    fn settle(&mut self, keep: bool) {
        let undo = std::mem::take(&mut self.undo);
        if keep {
            return;
        }
        for (key, value, was_changed) in undo.into_iter().rev() {
            if let Some(row) = self.rows.get_mut(&key) {
                row.now = value;
                row.is_changed = was_changed;
            }
        }
    }

    /// The rows that are to be written.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&K, &Row<V>)> {
        self.rows.iter().filter(|(_, row)| row.is_changed)
    }
}

/// What is written without being read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    /// The log of a deployment on one device; `None` takes it away.
    Log {
        /// The deployment.
        deployment: String,
        /// The device.
        device: String,
        /// One line per message.
        text: Option<String>,
    },
    /// All logs of a device go, and its records say so.
    LogsGone(String),
    /// Every record of a deployment that is not finished gets this status, and the devices are not at work on it any more.
    EndRecords {
        /// The deployment.
        deployment: String,
        /// The final status.
        status: crate::model::Status,
        /// When.
        now: Timestamp,
    },
    /// Something happened.
    Event(Event),
}

/// One transaction: what its jobs have read, and what they change.
#[derive(Debug, Default)]
pub(crate) struct Work {
    now: Timestamp,
    devices: Table<String, Device>,
    identities: Table<String, String>,
    auth_sets: Table<String, String>,
    inventories: Table<String, Inventory>,
    deployments: Table<String, Deployment>,
    members: Table<String, Arc<RoaringBitmap>>,
    records: Table<(String, String), DeviceDeployment>,
    documents: Table<(Kind, String), Value>,
    counts: HashMap<AuthStatus, u64>,
    next: Next,
    writes: Vec<Write>,
    /// Where the writes of the job that runs begin.
    own_writes: usize,
    missing: Vec<Key>,
}

/// The numbers that the next new device and the next new deployment get, so that a rule that comes later in the transaction
/// finds them. 0: the store gives them when it writes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// The number of a device.
    pub(crate) device: u32,
    /// The sequence number of a deployment.
    pub(crate) sequence: u64,
}

/// How a job ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It is done, and what it changed is kept unless it was refused.
    Done,
    /// These have to be loaded; nothing is changed.
    Missing(Vec<Key>),
}

/// What a store loaded.
#[derive(Debug, Clone)]
// It is handed over once and taken apart.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Loaded {
    /// Under [`Key::Device`].
    Device(String, Option<Device>),
    /// Under [`Key::Identity`]: the id of the device.
    Identity(String, Option<String>),
    /// Under [`Key::AuthSet`]: the id of the device.
    AuthSet(String, Option<String>),
    /// Under [`Key::Inventory`].
    Inventory(String, Option<Inventory>),
    /// Under [`Key::Deployment`].
    Deployment(String, Option<Deployment>),
    /// Under [`Key::Members`].
    Members(String, Option<Arc<RoaringBitmap>>),
    /// Under [`Key::Record`].
    Record(String, String, Option<DeviceDeployment>),
    /// Under [`Key::Document`].
    Document(Kind, String, Option<Value>),
    /// Under [`Key::Count`].
    Count(AuthStatus, u64),
}

impl Work {
    /// A transaction that begins.
    pub(crate) fn new(now: Timestamp) -> Work {
        Work { now, ..Work::default() }
    }

    /// A transaction that begins, of a store that knows the next numbers.
    pub(crate) fn numbered(now: Timestamp, next: Next) -> Work {
        Work { now, next, ..Work::default() }
    }

    /// When it began: every job in it has this time.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    // ---- for stores ----

    /// Takes what was found. What is loaded already stays as it is.
    pub(crate) fn load(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::Device(id, value) => self.devices.load(id, value),
            Loaded::Identity(sha, value) => self.identities.load(sha, value),
            Loaded::AuthSet(id, value) => self.auth_sets.load(id, value),
            Loaded::Inventory(id, value) => self.inventories.load(id, value),
            Loaded::Deployment(id, value) => self.deployments.load(id, value),
            Loaded::Members(id, value) => self.members.load(id, value),
            Loaded::Record(deployment, device, value) => self.records.load((deployment, device), value),
            Loaded::Document(kind, id, value) => self.documents.load((kind, id), value),
            Loaded::Count(status, count) => {
                self.counts.entry(status).or_insert(count);
            }
        }
    }

    /// Whether something is loaded.
    pub(crate) fn has(&self, key: &Key) -> bool {
        match key {
            Key::Device(id) => self.devices.get(id).is_some(),
            Key::Identity(sha) => self.identities.get(sha).is_some(),
            Key::AuthSet(id) => self.auth_sets.get(id).is_some(),
            Key::Inventory(id) => self.inventories.get(id).is_some(),
            Key::Deployment(id) => self.deployments.get(id).is_some(),
            Key::Members(id) => self.members.get(id).is_some(),
            Key::Record(deployment, device) => {
                self.records.get(&(deployment.clone(), device.clone())).is_some()
            }
            Key::Document(kind, id) => self.documents.get(&(*kind, id.clone())).is_some(),
            Key::Count(status) => self.counts.contains_key(status),
        }
    }

    /// Runs a job, which says whether what it did is to be kept.
    pub(crate) fn attempt(&mut self, job: &mut dyn FnMut(&mut Work) -> bool) -> Attempt {
        self.own_writes = self.writes.len();
        let counts = self.counts.clone();
        let next = self.next;
        let keep = job(self);
        let missing = std::mem::take(&mut self.missing);
        let keep = keep && missing.is_empty();
        self.settle(keep);
        if !keep {
            self.counts = counts;
            self.next = next;
        }
        if missing.is_empty() { Attempt::Done } else { Attempt::Missing(missing) }
    }

    fn settle(&mut self, keep: bool) {
        self.devices.settle(keep);
        self.identities.settle(keep);
        self.auth_sets.settle(keep);
        self.inventories.settle(keep);
        self.deployments.settle(keep);
        self.members.settle(keep);
        self.records.settle(keep);
        self.documents.settle(keep);
        if !keep {
            self.writes.truncate(self.own_writes);
        }
    }

    /// Devices to write, with what they were: a store keeps its indices (identity, sets, status, group, counts) by both.
    pub(crate) fn changed_devices(&self) -> impl Iterator<Item = (&String, &Row<Device>)> {
        self.devices.changed()
    }

    /// Devices that the job that runs has changed: before it, and now.
    pub(crate) fn own_devices(&self) -> impl Iterator<Item = (&String, Option<&Device>, Option<&Device>)> {
        self.devices.own()
    }

    /// Inventories that the job that runs has changed: before it, and now.
    pub(crate) fn own_inventories(
        &self,
    ) -> impl Iterator<Item = (&String, Option<&Inventory>, Option<&Inventory>)> {
        self.inventories.own()
    }

    /// Inventories to write, with what they were.
    pub(crate) fn changed_inventories(&self) -> impl Iterator<Item = (&String, &Row<Inventory>)> {
        self.inventories.changed()
    }

    /// Deployments to write.
    pub(crate) fn changed_deployments(&self) -> impl Iterator<Item = (&String, &Row<Deployment>)> {
        self.deployments.changed()
    }

    /// Members to write.
    pub(crate) fn changed_members(&self) -> impl Iterator<Item = (&String, &Row<Arc<RoaringBitmap>>)> {
        self.members.changed()
    }

    /// Records to write.
    pub(crate) fn changed_records(
        &self,
    ) -> impl Iterator<Item = (&(String, String), &Row<DeviceDeployment>)> {
        self.records.changed()
    }

    /// Documents to write.
    pub(crate) fn changed_documents(&self) -> impl Iterator<Item = (&(Kind, String), &Row<Value>)> {
        self.documents.changed()
    }

    /// What is to be written behind all that, in this order.
    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    // ---- for rules ----

    fn missing<T>(&mut self, key: Key) -> Result<T, NotLoaded> {
        self.missing.push(key);
        Err(NotLoaded)
    }

    /// A device; `None` when there is none with this id.
    pub(crate) fn device(&mut self, id: &str) -> Result<Option<Device>, NotLoaded> {
        match self.devices.get(&id.to_owned()).cloned() {
            Some(device) => Ok(device),
            None => self.missing(Key::Device(id.to_owned())),
        }
    }

    /// Writes a device, new or not. A new one has the number 0, and gets its own here or when it is stored.
    pub(crate) fn put_device(&mut self, mut device: Device) -> Result<(), NotLoaded> {
        let id = device.id.clone();
        // A new id is nobody else's: it need not be looked for.
        if device.number == 0 {
            self.devices.load(id.clone(), None);
        }
        let before = self.device(&id)?;
        if device.number == 0 {
            device.number = match &before {
                Some(before) => before.number,
                None => {
                    let number = self.next.device;
                    self.next.device = number.saturating_add(u32::from(number > 0));
                    number
                }
            };
        }
        self.recount(before.as_ref(), Some(&device));
        self.identities.load(device.identity_sha256.clone(), None);
        self.identities.put(device.identity_sha256.clone(), Some(id.clone()));
        for set in before.iter().flat_map(|device| &device.auth_sets) {
            self.auth_sets.load(set.id.clone(), None);
            self.auth_sets.put(set.id.clone(), None);
        }
        for set in &device.auth_sets {
            self.auth_sets.load(set.id.clone(), None);
            self.auth_sets.put(set.id.clone(), Some(id.clone()));
        }
        self.devices.put(id, Some(device));
        Ok(())
    }

    /// Takes a device away, with its inventory, its documents and its logs.
    pub(crate) fn remove_device(&mut self, id: &str) -> Result<(), NotLoaded> {
        let Some(device) = self.device(id)? else { return Ok(()) };
        self.recount(Some(&device), None);
        self.identities.load(device.identity_sha256.clone(), None);
        self.identities.put(device.identity_sha256.clone(), None);
        for set in &device.auth_sets {
            self.auth_sets.load(set.id.clone(), None);
            self.auth_sets.put(set.id.clone(), None);
        }
        self.devices.put(id.to_owned(), None);
        self.inventories.load(id.to_owned(), None);
        self.inventories.put(id.to_owned(), None);
        for kind in [Kind::Configuration, Kind::Monitor, Kind::Watched] {
            self.documents.load((kind, id.to_owned()), None);
            self.documents.put((kind, id.to_owned()), None);
        }
        self.write(Write::LogsGone(id.to_owned()));
        Ok(())
    }

    fn recount(&mut self, before: Option<&Device>, now: Option<&Device>) {
        if let Some(count) = before.and_then(|device| self.counts.get_mut(&device.status())) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = now.and_then(|device| self.counts.get_mut(&device.status())) {
            *count += 1;
        }
    }

    /// The id of the device that has an identity.
    pub(crate) fn device_of_identity(&mut self, sha256: &str) -> Result<Option<String>, NotLoaded> {
        match self.identities.get(&sha256.to_owned()).cloned() {
            Some(id) => Ok(id),
            None => self.missing(Key::Identity(sha256.to_owned())),
        }
    }

    /// The id of the device that has an authentication set.
    pub(crate) fn device_of_auth_set(&mut self, set: &str) -> Result<Option<String>, NotLoaded> {
        match self.auth_sets.get(&set.to_owned()).cloned() {
            Some(id) => Ok(id),
            None => self.missing(Key::AuthSet(set.to_owned())),
        }
    }

    /// How many devices have a status.
    pub(crate) fn count(&mut self, status: AuthStatus) -> Result<u64, NotLoaded> {
        match self.counts.get(&status) {
            Some(count) => Ok(*count),
            None => self.missing(Key::Count(status)),
        }
    }

    /// What a device has reported; empty before it has.
    pub(crate) fn inventory(&mut self, device: &str) -> Result<Inventory, NotLoaded> {
        match self.inventories.get(&device.to_owned()).cloned() {
            Some(inventory) => Ok(inventory.unwrap_or_default()),
            None => self.missing(Key::Inventory(device.to_owned())),
        }
    }

    /// Writes what a device has reported.
    pub(crate) fn put_inventory(&mut self, device: &str, inventory: Inventory) -> Result<(), NotLoaded> {
        match self.inventories.put(device.to_owned(), Some(inventory)) {
            true => Ok(()),
            false => self.missing(Key::Inventory(device.to_owned())),
        }
    }

    /// A deployment; `None` when there is none with this id.
    pub(crate) fn deployment(&mut self, id: &str) -> Result<Option<Deployment>, NotLoaded> {
        match self.deployments.get(&id.to_owned()).cloned() {
            Some(deployment) => Ok(deployment),
            None => self.missing(Key::Deployment(id.to_owned())),
        }
    }

    /// Writes a deployment that was loaded.
    pub(crate) fn put_deployment(&mut self, deployment: Deployment) -> Result<(), NotLoaded> {
        let id = deployment.id.clone();
        match self.deployments.put(id.clone(), Some(deployment)) {
            true => Ok(()),
            false => self.missing(Key::Deployment(id)),
        }
    }

    /// Makes a deployment for these devices. Its sequence number is 0, and it gets its own here or when it is stored.
    pub(crate) fn new_deployment(&mut self, mut deployment: Deployment, members: Arc<RoaringBitmap>) {
        if deployment.sequence == 0 {
            deployment.sequence = self.next.sequence;
            self.next.sequence += u64::from(deployment.sequence > 0);
        }
        let id = deployment.id.clone();
        self.deployments.load(id.clone(), None);
        self.deployments.put(id.clone(), Some(deployment));
        self.members.load(id.clone(), None);
        self.members.put(id, Some(members));
    }

    /// The numbers of the devices that a deployment lists.
    pub(crate) fn members(&mut self, deployment: &str) -> Result<Arc<RoaringBitmap>, NotLoaded> {
        match self.members.get(&deployment.to_owned()).cloned() {
            Some(members) => Ok(members.unwrap_or_default()),
            None => self.missing(Key::Members(deployment.to_owned())),
        }
    }

    /// Writes the devices that a deployment lists.
    pub(crate) fn put_members(
        &mut self,
        deployment: &str,
        members: Arc<RoaringBitmap>,
    ) -> Result<(), NotLoaded> {
        match self.members.put(deployment.to_owned(), Some(members)) {
            true => Ok(()),
            false => self.missing(Key::Members(deployment.to_owned())),
        }
    }

    /// One deployment on one device; `None` when the device has not asked and nobody has ended it there.
    pub(crate) fn record(
        &mut self,
        deployment: &str,
        device: &str,
    ) -> Result<Option<DeviceDeployment>, NotLoaded> {
        match self.records.get(&(deployment.to_owned(), device.to_owned())).cloned() {
            Some(record) => Ok(record),
            None => self.missing(Key::Record(deployment.to_owned(), device.to_owned())),
        }
    }

    /// Writes one deployment on one device.
    pub(crate) fn put_record(&mut self, record: DeviceDeployment) -> Result<(), NotLoaded> {
        let key = (record.deployment.clone(), record.device.clone());
        match self.records.put(key.clone(), Some(record)) {
            true => Ok(()),
            false => self.missing(Key::Record(key.0, key.1)),
        }
    }

    /// A document; `None` when there is none, or one that cannot be read as this type.
    pub(crate) fn document<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        id: &str,
    ) -> Result<Option<T>, NotLoaded> {
        match self.documents.get(&(kind, id.to_owned())).cloned() {
            Some(value) => Ok(value.and_then(|value| serde_json::from_value(value).ok())),
            None => self.missing(Key::Document(kind, id.to_owned())),
        }
    }

    /// Writes a document, new or not; with `None` it goes.
    pub(crate) fn put_document<T: Serialize>(
        &mut self,
        kind: Kind,
        id: &str,
        document: Option<&T>,
    ) -> Result<(), NotLoaded> {
        // Documents are structs of strings, numbers and maps with text as keys: they always become JSON.
        let value = document.map(|document| serde_json::to_value(document).unwrap_or_default());
        match self.documents.put((kind, id.to_owned()), value) {
            true => Ok(()),
            false => self.missing(Key::Document(kind, id.to_owned())),
        }
    }

    /// Writes what needs no reading.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_misses_something_or_is_refused_has_changed_nothing() {
        let mut work = Work::new(Timestamp(1));
        let put = |work: &mut Work| work.put_document(Kind::Role, "a", Some(&1)).is_ok();
        assert_eq!(
            work.attempt(&mut |work| put(work)),
            Attempt::Missing(vec![Key::Document(Kind::Role, "a".to_owned())])
        );
        work.load(Loaded::Document(Kind::Role, "a".to_owned(), None));
        let refused = &mut |work: &mut Work| {
            put(work);
            work.write(Write::LogsGone("x".to_owned()));
            false
        };
        assert_eq!(work.attempt(refused), Attempt::Done);
        assert_eq!((work.changed_documents().count(), work.writes().len()), (0, 0));
        assert_eq!(work.attempt(&mut |work| put(work)), Attempt::Done);
        assert_eq!(work.attempt(refused), Attempt::Done);
        let now: Vec<_> = work.changed_documents().map(|(_, row)| row.now.clone()).collect();
        assert_eq!(now, [Some(Value::from(1))]);
    }

    #[test]
    fn each_kind_and_stream_has_a_name_of_its_own() {
        for kind in KINDS {
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        for stream in STREAMS {
            assert_eq!(Stream::parse(stream.name()), Some(stream));
        }
    }
}
