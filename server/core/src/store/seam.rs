//! The seam: what every store does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use serde_json::Value;
use tokio::sync::oneshot;

use super::StoreError;
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory};
use crate::work::query::{
    Active, DeploymentQuery, DeviceQuery, DeviceView, EventQuery, Found, Listed, Numbered, RecordQuery,
};
use crate::work::{Event, Key, Kind, Stream, Work};

/// Nothing can be stored now; why. What was asked for is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriterFailed(pub(crate) Arc<str>);

/// A rule on its way into a transaction.
pub(crate) struct Job {
    /// What it will ask for, as far as that is known: it is loaded with what other jobs ask for.
    pub(crate) keys: Vec<Key>,
    /// The rule; it says whether what it did is to be kept. It may run more than once.
    pub(crate) run: Box<dyn FnMut(&mut Work) -> bool + Send>,
    /// Told when the transaction is durable, or that it is not.
    pub(crate) done: oneshot::Sender<Result<(), WriterFailed>>,
}

/// What a transaction has changed, for what is kept in memory. Of this process before its jobs are answered; of other
/// processes on the same store soon after.
#[derive(Debug, Clone, Default)]
pub(crate) struct Committed {
    /// Devices whose keys, status or group changed; `None` for one that is gone.
    pub(crate) devices: Vec<(String, Option<Device>)>,
    /// Deployments as they are now.
    pub(crate) deployments: Vec<Deployment>,
    /// The devices of deployments that are new or list others now.
    pub(crate) members: Vec<(String, Arc<RoaringBitmap>)>,
    /// Cached documents as they are now; `None` for one that is gone.
    pub(crate) documents: Vec<(Kind, String, Option<Value>)>,
}

/// Is told what was committed. Called by the writer: it must be quick.
pub(crate) trait Watch: Send + Sync {
    /// This has changed.
    fn committed(&self, committed: &Committed);

    /// A transaction of this process is durable: how many jobs it had, and how long it took.
    fn written(&self, _jobs: usize, _took: Duration) {}
}

/// One row of everything, for a store that is moved, copied or imported. Rows come in the order of these variants, so that
/// each finds what it belongs to.
#[derive(Debug, Clone)]
pub(crate) enum DumpRow {
    /// A device with its number, its inventory, and when it was last heard of.
    Device(Box<DeviceView>),
    /// A device that is gone: its number stays its own.
    Gone {
        /// Its number.
        number: u32,
        /// Its id.
        id: String,
    },
    /// A deployment with its sequence number, and the devices that it lists.
    Deployment(Box<Deployment>, Arc<RoaringBitmap>),
    /// One deployment on one device.
    Record(Box<DeviceDeployment>),
    /// A log.
    Log {
        /// The deployment.
        deployment: String,
        /// The device.
        device: String,
        /// One line per message.
        text: String,
    },
    /// A document.
    Document(Kind, String, Value),
    /// What cannot be read in the place of a document: it is named, and the others are not lost with it. Nothing is filled with
    /// it.
    Damaged(String),
    /// An event.
    Event(Event),
}

/// What a store is asked to take from, and give to, another one: rows in the order of [`DumpRow`].
pub(crate) type Rows<'a> = dyn FnMut(DumpRow) -> Result<(), StoreError> + Send + 'a;

/// Where a fleet is kept. Everything that was acknowledged survives the process and the power.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Hands a job over. Jobs that wait become one transaction.
    fn submit(&self, job: Job);

    /// Whether changes can be stored, as far as the last attempt says.
    ///
    /// # Errors
    /// Why they cannot.
    fn check(&self) -> Result<(), WriterFailed>;

    /// Whether other processes may have the same store.
    fn is_shared(&self) -> bool;

    /// For how long what other processes have changed was not read. Of a store that is not shared that is nothing.
    fn behind(&self) -> Duration;

    /// Everybody who is told of commits from now on.
    fn watch(&self, watch: Arc<dyn Watch>);

    /// What `watch` needs to begin with: all active deployments.
    async fn active(&self) -> Result<Vec<Active>, StoreError>;

    /// All documents of a kind, in the order of their ids.
    async fn documents(&self, kind: Kind) -> Result<Vec<(String, Value)>, StoreError>;

    /// One document.
    async fn document(&self, kind: Kind, id: &str) -> Result<Option<Value>, StoreError>;

    /// One device: what each request of a device begins with, so it is quick.
    async fn device(&self, id: &str) -> Result<Option<Device>, StoreError>;

    /// What a device has reported; `None` before it has.
    async fn inventory(&self, device: &str) -> Result<Option<Inventory>, StoreError>;

    /// A device with everything that lists show of it.
    async fn view(&self, device: &str) -> Result<Option<DeviceView>, StoreError>;

    /// A page of devices, and how many there are in all.
    async fn devices(&self, query: &DeviceQuery) -> Result<Found<DeviceView>, StoreError>;

    /// The numbers of all devices that a query is about, whatever its page.
    async fn device_numbers(&self, query: &DeviceQuery) -> Result<RoaringBitmap, StoreError>;

    /// The ids of devices by their numbers, also of those that are gone.
    async fn device_ids(&self, numbers: &[u32]) -> Result<Vec<(u32, String)>, StoreError>;

    /// How many devices have each status.
    async fn device_counts(&self) -> Result<Vec<(AuthStatus, u64)>, StoreError>;

    /// Every group with how many devices are in it, by name.
    async fn groups(&self) -> Result<Vec<(String, u64)>, StoreError>;

    /// Every attribute that a device has, with how many devices have it: scope, name, count.
    async fn attributes(&self) -> Result<Vec<(crate::work::query::Scope, String, u64)>, StoreError>;

    /// One deployment.
    async fn deployment(&self, id: &str) -> Result<Option<Deployment>, StoreError>;

    /// The devices that a deployment lists.
    async fn members(&self, deployment: &str) -> Result<Option<Arc<RoaringBitmap>>, StoreError>;

    /// A page of deployments, the newest first unless it says otherwise.
    async fn deployments(&self, query: &DeploymentQuery) -> Result<Found<Deployment>, StoreError>;

    /// One deployment on one device.
    async fn record(&self, deployment: &str, device: &str) -> Result<Option<DeviceDeployment>, StoreError>;

    /// A page of the devices of a deployment.
    async fn records(&self, query: &RecordQuery) -> Result<Found<Listed>, StoreError>;

    /// Deployments that list a device, the newest first, with its records.
    async fn history(
        &self,
        device: &str,
        skip: u64,
        take: u64,
    ) -> Result<Found<(Deployment, Option<DeviceDeployment>)>, StoreError>;

    /// The log of a deployment on a device.
    async fn log(&self, deployment: &str, device: &str) -> Result<Option<String>, StoreError>;

    /// A page of events.
    async fn events(&self, query: &EventQuery) -> Result<Found<Numbered>, StoreError>;

    /// Takes events of before a time away, at most `most` at once. How many.
    async fn forget_events(&self, stream: Stream, before: Timestamp, most: u64) -> Result<u64, StoreError>;

    /// Deployments that ended before a time, the oldest first, at most `most`. Never the newest of all: its number must not be
    /// given again.
    async fn old_deployments(&self, before: Timestamp, most: u64) -> Result<Vec<String>, StoreError>;

    /// Takes a deployment that has ended away, with its records and their logs: at most `most` records at once, and the
    /// deployment with the last of them. Whether it is gone.
    async fn forget_deployment(&self, id: &str, most: u64) -> Result<bool, StoreError>;

    /// Logs of devices that were done with their deployment before a time, at most `most`: deployment and device.
    async fn old_logs(&self, before: Timestamp, most: u64) -> Result<Vec<(String, String)>, StoreError>;

    /// When devices were heard of, by number. These may be lost with the power, and older times never replace newer ones.
    async fn check_ins(&self, times: Vec<(u32, Timestamp)>) -> Result<(), StoreError>;

    /// Gives everything, as it is at one moment, while others go on.
    async fn dump(&self, rows: &mut Rows<'_>) -> Result<(), StoreError>;

    /// Takes everything into an empty store. The iterator's rows are in the order of [`DumpRow`].
    async fn fill(
        &self,
        rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
    ) -> Result<(), StoreError>;

    /// Writes what waits, and ends.
    async fn stop(&self);
}

/// Runs a job until nothing is missing: for a store that can load at once.
///
/// # Errors
/// What loading says.
pub(crate) fn run_job<E>(
    work: &mut Work,
    run: &mut (dyn FnMut(&mut Work) -> bool + Send),
    mut load: impl FnMut(&mut Work, Vec<Key>) -> Result<(), E>,
) -> Result<(), E> {
    use crate::work::Attempt;
    loop {
        match work.attempt(run) {
            Attempt::Done => return Ok(()),
            Attempt::Missing(keys) => load(work, keys)?,
        }
    }
}

/// What a flushed transaction tells those who watch.
pub(crate) fn committed(work: &Work) -> Committed {
    let devices = work.changed_devices().filter(|(_, row)| {
        let key = |device: &Option<Device>| {
            device.as_ref().map(|device| (device.auth_sets.clone(), device.group.clone()))
        };
        key(&row.before) != key(&row.now)
    });
    let documents = work.changed_documents().filter(|((kind, _), _)| kind.is_cached());
    Committed {
        devices: devices.map(|(id, row)| (id.clone(), row.now.clone())).collect(),
        deployments: work.changed_deployments().filter_map(|(_, row)| row.now.clone()).collect(),
        members: work
            .changed_members()
            .filter_map(|(id, row)| Some((id.clone(), row.now.clone()?)))
            .collect(),
        documents: documents.map(|((kind, id), row)| (*kind, id.clone(), row.now.clone())).collect(),
    }
}
