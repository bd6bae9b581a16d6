//! Everything the server knows, in memory, and the operations on it.
//!
//! Each operation returns the [`Change`]s that make it last. An answer may be given only after they are stored.

mod admission;
mod artifacts;
mod configuration;
mod inventory;
mod logins;
mod rollout;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use admission::Undecided;
pub(crate) use admission::{Admission, AdmissionError, AuthDecision, Policy};
pub(crate) use artifacts::{ArtifactConflict, DeleteArtifactError};
pub(crate) use inventory::{InventoryError, Reported};
pub(crate) use rollout::{
    Configured, CreateError, NewDeployment, Next, Progress, ReportError, Request, Target,
};

use super::id::NoRandomness;
use super::model::{Artifact, Change, Configuration, Deployment, Device, DeviceDeployment, Inventory};
use super::time::Timestamp;

/// One device with what else is known about it.
#[derive(Debug, Default)]
struct DeviceEntry {
    inventory: Inventory,
    /// Milliseconds since 1970; 0 is never. Written without the lock for writing, and stored later.
    check_in: AtomicU64,
    /// The deployment that the device is at work on.
    active: Option<String>,
    /// The newest deployment that the device has finished.
    last_finished: u64,
}

/// One deployment with its devices.
#[derive(Debug)]
struct DeploymentEntry {
    deployment: Deployment,
    members: HashSet<String>,
    devices: HashMap<String, DeviceDeployment>,
    finished: usize,
}

/// Everything the server knows.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    devices: BTreeMap<String, (Device, DeviceEntry)>,
    by_identity: HashMap<String, String>,
    /// Devices with an accepted key, and those that nobody has decided about or that were rejected.
    accepted: HashSet<String>,
    undecided: Undecided,
    artifacts: BTreeMap<String, Artifact>,
    configurations: BTreeMap<String, Configuration>,
    deployments: BTreeMap<u64, DeploymentEntry>,
    by_id: HashMap<String, u64>,
    /// Deployments that are not finished.
    active: BTreeSet<u64>,
    /// Logins that a person has ended, until their tokens expire.
    logouts: HashMap<String, Timestamp>,
}

impl Fleet {
    /// Takes back what was stored. Records come in any order, but devices before inventories, and deployments before
    /// what belongs to one device.
    pub(crate) fn restore(&mut self, change: Change) {
        match change {
            Change::Device(device) => {
                self.by_identity.insert(device.identity_sha256.clone(), device.id.clone());
                let id = device.id.clone();
                self.devices.insert(id.clone(), (device, DeviceEntry::default()));
                self.note(&id);
            }
            Change::Inventory(id, inventory) => {
                if let Some((_, entry)) = self.devices.get_mut(&id) {
                    entry.inventory = inventory;
                }
            }
            Change::Configuration(id, configuration) => {
                self.configurations.insert(id, configuration);
            }
            Change::Artifact(artifact) => {
                self.artifacts.insert(artifact.id.clone(), artifact);
            }
            Change::Deployment(deployment) => self.insert_deployment(deployment),
            Change::DeviceDeployment(record) => self.restore_device_deployment(record),
            Change::CheckIns(times) => {
                for (id, time) in times {
                    if let Some((_, entry)) = self.devices.get(&id) {
                        entry.check_in.store(time.0, Ordering::Relaxed);
                    }
                }
            }
            Change::LoggedOut { login, until } => {
                self.logouts.insert(login, until);
            }
            // They are taken away when they are stored, and logs stay there.
            Change::DeviceGone(_)
            | Change::ArtifactGone(_)
            | Change::Log { .. }
            | Change::LogGone { .. }
            | Change::LoginOver(_) => {}
        }
    }

    fn insert_deployment(&mut self, deployment: Deployment) {
        let sequence = deployment.sequence;
        self.by_id.insert(deployment.id.clone(), sequence);
        if deployment.finished.is_none() {
            self.active.insert(sequence);
        }
        let members = deployment.devices.iter().cloned().collect();
        let entry = DeploymentEntry { deployment, members, devices: HashMap::new(), finished: 0 };
        self.deployments.insert(sequence, entry);
    }

    fn restore_device_deployment(&mut self, record: DeviceDeployment) {
        let Some(sequence) = self.by_id.get(&record.deployment).copied() else { return };
        let Some(entry) = self.deployments.get_mut(&sequence) else { return };
        if record.status.is_finished() {
            entry.finished += 1;
        }
        if let Some((_, device)) = self.devices.get_mut(&record.device) {
            if record.status.is_finished() {
                device.last_finished = device.last_finished.max(sequence);
            } else {
                device.active = Some(record.deployment.clone());
            }
        }
        entry.devices.insert(record.device.clone(), record);
    }

    /// Notes that a device was heard of.
    pub(crate) fn check_in(&self, device: &str, now: Timestamp) {
        if let Some((_, entry)) = self.devices.get(device) {
            entry.check_in.store(now.0, Ordering::Relaxed);
        }
    }

    /// When devices were last heard of, for those that were since `since`.
    pub(crate) fn check_ins(&self, since: Timestamp) -> Vec<(String, Timestamp)> {
        let heard = |(id, (_, entry)): (&String, &(Device, DeviceEntry))| {
            let time = entry.check_in.load(Ordering::Relaxed);
            (time > since.0).then(|| (id.clone(), Timestamp(time)))
        };
        self.devices.iter().filter_map(heard).collect()
    }

    /// When a device was last heard of.
    pub(crate) fn last_check_in(&self, device: &str) -> Option<Timestamp> {
        let time = self.devices.get(device)?.1.check_in.load(Ordering::Relaxed);
        (time > 0).then_some(Timestamp(time))
    }
}

/// What an operation gives, and what it has changed.
pub(crate) type Changed<T, E> = Result<(T, Vec<Change>), E>;

/// There were no random numbers for a new id.
impl From<NoRandomness> for AdmissionError {
    fn from(_: NoRandomness) -> AdmissionError {
        AdmissionError::NoRandomness
    }
}
