//! Deployments: who is offered what, and what devices report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Changed, DeploymentEntry, Fleet};
use crate::domain::id::{self, NoRandomness};
use crate::domain::model::{
    Artifact, Asked, AuthStatus, Change, Deployment, DeviceDeployment, STATUSES, Status,
};
use crate::domain::time::Timestamp;

/// What a device says when it asks for an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The installed artifact.
    pub(crate) artifact_name: String,
    /// The type of the device.
    pub(crate) device_type: String,
    /// Everything it provides, with the two above.
    pub(crate) provides: BTreeMap<String, String>,
    /// Whether that is everything: the oldest form of the question has no place for it.
    pub(crate) complete: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// Nothing to do.
    Nothing,
    /// Install this.
    Offer {
        /// The deployment.
        deployment: String,
        /// The artifact that fits.
        artifact: Box<Artifact>,
    },
    /// Make the artifact of a configuration, and ask again.
    Make(Configured),
    /// The device is at work on a deployment and is no longer what it was.
    Conflict,
}

/// An artifact of a configuration that has to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configured {
    /// What it is called.
    pub(crate) artifact_name: String,
    /// The device it is for.
    pub(crate) device: String,
    /// The type of the device.
    pub(crate) device_type: String,
    /// What it brings.
    pub(crate) settings: BTreeMap<String, String>,
}

/// Which devices a deployment is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// These.
    Devices(Vec<String>),
    /// All that are accepted now.
    All,
    /// Those that are in this group now.
    Group(String),
}

/// A deployment to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewDeployment {
    /// For people.
    pub(crate) name: String,
    /// What to install.
    pub(crate) artifact_name: String,
    /// Where.
    pub(crate) target: Target,
    /// Also where it is installed.
    pub(crate) force_installation: bool,
    /// For a configuration: what its device is to be configured with.
    pub(crate) configuration: Option<BTreeMap<String, String>>,
}

/// Why no deployment was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum CreateError {
    /// No artifact has that name.
    NoArtifact,
    /// It would be for no device.
    NoDevices,
    /// One of the devices is not known.
    UnknownDevice(String),
    /// One of the devices is neither accepted nor pre-authorised.
    NotAccepted(String),
    /// There is one for the same devices.
    Exists(String),
    /// There were no random numbers for a new id.
    NoRandomness,
}

/// Why a report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportError {
    /// The device has no such deployment.
    NotFound,
    /// A person has stopped it.
    Aborted,
    /// A person has stopped it long ago, or it never began.
    Finished,
}

/// What a device that changed in the middle of a deployment is said to have failed of.
const CHANGED: &str = "the device is not what it was when the deployment began";

/// How far a deployment is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// How many of its devices have each status.
    pub(crate) counts: BTreeMap<Status, usize>,
    /// The name of its own status.
    pub(crate) status: &'static str,
    /// Bytes of the artifacts that its devices were given.
    pub(crate) total_size: u64,
}

/// One deployment of a device's history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct History<'a> {
    /// The deployment.
    pub(crate) deployment: &'a Deployment,
    /// How far the device is; `None` when it has not asked.
    pub(crate) record: Option<&'a DeviceDeployment>,
}

impl From<NoRandomness> for CreateError {
    fn from(_: NoRandomness) -> CreateError {
        CreateError::NoRandomness
    }
}

impl Fleet {
    /// Whether [`Fleet::next`] could say anything but [`Next::Nothing`]. Changes nothing, so that most polls need no
    /// lock for writing.
    pub(crate) fn has_work(&self, device: &str) -> bool {
        let Some((_, entry)) = self.devices.get(device) else { return false };
        entry.active.is_some() || self.offer_after(device, entry.last_finished).is_some()
    }

    /// The oldest active deployment behind `sequence` that has something to do for the device.
    fn offer_after(&self, device: &str, sequence: u64) -> Option<u64> {
        self.active
            .range(sequence + 1..)
            .filter_map(|sequence| self.deployments.get(sequence))
            .find(|entry| {
                let done = entry.devices.get(device).is_some_and(|record| record.status.is_finished());
                entry.members.contains(device) && !done
            })
            .map(|entry| entry.deployment.sequence)
    }

    /// What a device is to do next.
    ///
    /// # Errors
    /// There were no random numbers for a new id.
    pub(crate) fn next(
        &mut self,
        device: &str,
        request: &Request,
        now: Timestamp,
    ) -> Changed<Next, NoRandomness> {
        let mut changes = Vec::new();
        let Some((_, entry)) = self.devices.get(device) else { return Ok((Next::Nothing, changes)) };
        let active = entry.active.as_ref().and_then(|id| self.by_id.get(id)).copied();
        let Some(sequence) = active.or_else(|| self.offer_after(device, entry.last_finished)) else {
            return Ok((Next::Nothing, changes));
        };
        let Some(entry) = self.deployments.get(&sequence) else { return Ok((Next::Nothing, changes)) };
        let asked =
            Asked { artifact_name: request.artifact_name.clone(), device_type: request.device_type.clone() };
        let known = entry.devices.get(device).cloned();
        let is_new = known.is_none();
        let mut record = match known {
            Some(record) => record,
            None => new_record(&entry.deployment, device, Status::Pending, now)?,
        };
        if record.asked.as_ref().is_some_and(|before| *before != asked) {
            record.status = Status::Failure;
            record.substate.get_or_insert_with(|| CHANGED.to_owned());
            changes = self.put(record, now);
            return Ok((Next::Conflict, changes));
        }
        let deployment = &entry.deployment;
        if let Some(to_make) = self.to_make(deployment, device, &request.device_type) {
            return Ok((Next::Make(to_make), changes));
        }
        let (artifact_name, force) = (&deployment.artifact_name, deployment.force_installation);
        let chosen = self.choose(artifact_name, &request.device_type, &request.provides, request.complete);
        let Some(artifact) = chosen.cloned() else {
            record.status = Status::Noartifact;
            // What type of artifact was wanted is what people ask then.
            record.asked = Some(asked);
            changes = self.put(record, now);
            return Ok((Next::Nothing, changes));
        };
        if *artifact_name == request.artifact_name && record.status == Status::Pending && !force {
            record.status = Status::AlreadyInstalled;
            record.artifact = Some(artifact.id.clone());
            changes = self.put(record, now);
            return Ok((Next::Nothing, changes));
        }
        let deployment = deployment.id.clone();
        let same = record.artifact.as_ref() == Some(&artifact.id) && record.asked.is_some();
        if is_new || !same {
            record.asked = Some(asked);
            record.artifact = Some(artifact.id.clone());
            record.offered_bytes = artifact.size;
            changes = self.put(record, now);
        }
        Ok((Next::Offer { deployment, artifact: Box::new(artifact) }, changes))
    }

    /// The artifact of a configuration for this device, if that is what is deployed and it is not made yet.
    fn to_make(&self, deployment: &Deployment, device: &str, device_type: &str) -> Option<Configured> {
        let settings = deployment.configuration.as_ref()?;
        let fits = |artifact: &Artifact| {
            artifact.name == deployment.artifact_name
                && artifact.device_types.iter().any(|one| one == device_type)
        };
        if self.artifacts.values().any(fits) {
            return None;
        }
        Some(Configured {
            artifact_name: deployment.artifact_name.clone(),
            device: device.to_owned(),
            device_type: device_type.to_owned(),
            settings: settings.clone(),
        })
    }

    /// Takes what a device reports about a deployment.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(crate) fn report_status(
        &mut self,
        device: &str,
        deployment: &str,
        status: Status,
        substate: Option<String>,
        now: Timestamp,
    ) -> Changed<(), ReportError> {
        let record = self.record(deployment, device).ok_or(ReportError::NotFound)?;
        match record.status {
            Status::Aborted | Status::Decommissioned => return Err(ReportError::Aborted),
            // A late repetition must not open again what has ended; another end replaces the first.
            done if done.is_finished() && !status.is_finished() => return Ok(((), Vec::new())),
            same if same == status && (substate.is_none() || substate == record.substate) => {
                return Ok(((), Vec::new()));
            }
            Status::Pending
            | Status::Downloading
            | Status::PauseBeforeInstalling
            | Status::Installing
            | Status::PauseBeforeRebooting
            | Status::Rebooting
            | Status::PauseBeforeCommitting
            | Status::Success
            | Status::Failure
            | Status::Noartifact
            | Status::AlreadyInstalled => {}
        }
        let mut record = record.clone();
        // A report that says nothing about it leaves what was said before.
        record.substate = substate.or(record.substate);
        record.status = status;
        record.started = record.started.or(Some(now));
        Ok(((), self.put(record, now)))
    }

    /// Notes that a device has sent its log.
    ///
    /// # Errors
    /// The device has no such deployment.
    pub(crate) fn report_log(
        &mut self,
        device: &str,
        deployment: &str,
        text: String,
    ) -> Changed<(), ReportError> {
        let record = self.record(deployment, device).ok_or(ReportError::NotFound)?;
        let record = DeviceDeployment { log: true, ..record.clone() };
        let log = Change::Log { deployment: deployment.to_owned(), device: device.to_owned(), text };
        if let Some(entry) = self.entry_mut(deployment) {
            entry.devices.insert(device.to_owned(), record.clone());
        }
        Ok(((), vec![log, Change::DeviceDeployment(record)]))
    }

    /// Forgets the logs of a device.
    pub(super) fn forget_logs(&mut self, device: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in self.deployments.values_mut() {
            let Some(record) = entry.devices.get_mut(device).filter(|record| record.log) else { continue };
            record.log = false;
            let (deployment, device) = (record.deployment.clone(), record.device.clone());
            changes.push(Change::LogGone { deployment, device });
            changes.push(Change::DeviceDeployment(record.clone()));
        }
        changes
    }

    /// Forgets the logs of devices that are not there any more: of before their logs went with them.
    pub(crate) fn forget_logs_of_nobody(&mut self) -> Vec<Change> {
        let records = self.deployments.values().flat_map(|entry| entry.devices.values());
        let gone: BTreeSet<String> = records
            .filter(|record| record.log && !self.devices.contains_key(&record.device))
            .map(|record| record.device.clone())
            .collect();
        gone.iter().flat_map(|device| self.forget_logs(device)).collect()
    }

    /// Makes a deployment.
    ///
    /// # Errors
    /// Why it was not made.
    pub(crate) fn create(&mut self, new: NewDeployment, now: Timestamp) -> Changed<String, CreateError> {
        if new.configuration.is_none() && self.artifacts().all(|artifact| artifact.name != new.artifact_name)
        {
            return Err(CreateError::NoArtifact);
        }
        let group = match &new.target {
            Target::Group(group) => Some(group.clone()),
            Target::Devices(_) | Target::All => None,
        };
        let devices: BTreeSet<String> = match new.target {
            Target::Devices(devices) => {
                if let Some(unknown) = devices.iter().find(|id| !self.devices.contains_key(*id)) {
                    return Err(CreateError::UnknownDevice(unknown.clone()));
                }
                if let Some(other) = devices.iter().find(|id| !self.may_be_ordered(id)) {
                    return Err(CreateError::NotAccepted(other.clone()));
                }
                devices.into_iter().collect()
            }
            Target::All => self.accepted.iter().cloned().collect(),
            Target::Group(group) => {
                let inside = self.devices().filter(|device| device.group.as_ref() == Some(&group));
                inside.filter(|d| d.status() == AuthStatus::Accepted).map(|d| d.id.clone()).collect()
            }
        };
        if devices.is_empty() {
            return Err(CreateError::NoDevices);
        }
        let equal = self.active.iter().filter_map(|sequence| self.deployments.get(sequence)).find(|entry| {
            let other = &entry.deployment;
            other.name == new.name
                && other.artifact_name == new.artifact_name
                && other.devices.iter().eq(devices.iter())
        });
        if let Some(equal) = equal {
            return Err(CreateError::Exists(equal.deployment.id.clone()));
        }
        let deployment = Deployment {
            id: id::uuid()?,
            sequence: self.deployments.keys().next_back().map_or(1, |last| last + 1),
            name: new.name,
            artifact_name: new.artifact_name,
            created: now,
            finished: None,
            devices: devices.into_iter().collect(),
            group,
            force_installation: new.force_installation,
            configuration: new.configuration,
        };
        let id = deployment.id.clone();
        let change = Change::Deployment(deployment.clone());
        self.insert_deployment(deployment);
        Ok((id, vec![change]))
    }

    /// Whether something can be ordered for a device. Also for one that is let in before it is heard of; but one that
    /// nobody has decided about, or that is kept out, may be anybody, and may never come.
    fn may_be_ordered(&self, id: &str) -> bool {
        self.device(id).is_some_and(|device| match device.status() {
            AuthStatus::Accepted | AuthStatus::Preauthorized => true,
            AuthStatus::Noauth | AuthStatus::Rejected | AuthStatus::Pending => false,
        })
    }

    /// Stops a deployment on every device that has not ended it.
    ///
    /// # Errors
    /// There is none, or it has ended.
    pub(crate) fn abort(&mut self, id: &str, now: Timestamp) -> Changed<(), ReportError> {
        let sequence = self.by_id.get(id).ok_or(ReportError::NotFound)?;
        let entry = self.deployments.get(sequence).ok_or(ReportError::NotFound)?;
        if entry.deployment.finished.is_some() {
            return Err(ReportError::Finished);
        }
        let mut ended = Vec::new();
        for device in &entry.deployment.devices {
            match entry.devices.get(device) {
                Some(record) if record.status.is_finished() => {}
                Some(record) => ended.push(DeviceDeployment { status: Status::Aborted, ..record.clone() }),
                None => {
                    let record = new_record(&entry.deployment, device, Status::Aborted, now);
                    ended.push(record.map_err(|NoRandomness| ReportError::NotFound)?);
                }
            }
        }
        Ok(((), ended.into_iter().flat_map(|record| self.put(record, now)).collect()))
    }

    /// Stops every deployment on one device.
    ///
    /// # Errors
    /// There were no random numbers for a new id.
    pub(crate) fn end_for(
        &mut self,
        device: &str,
        status: Status,
        now: Timestamp,
    ) -> Result<Vec<Change>, NoRandomness> {
        let mut ended = Vec::new();
        for entry in self.active.iter().filter_map(|sequence| self.deployments.get(sequence)) {
            match entry.devices.get(device) {
                Some(record) if record.status.is_finished() => {}
                Some(record) => ended.push(DeviceDeployment { status, ..record.clone() }),
                None if entry.members.contains(device) => {
                    ended.push(new_record(&entry.deployment, device, status, now)?);
                }
                None => {}
            }
        }
        Ok(ended.into_iter().flat_map(|record| self.put(record, now)).collect())
    }

    /// Deployments, the newest first.
    pub(crate) fn deployments(&self) -> impl Iterator<Item = &Deployment> {
        self.deployments.values().rev().map(|entry| &entry.deployment)
    }

    /// One deployment.
    pub(crate) fn deployment(&self, id: &str) -> Option<&Deployment> {
        self.entry(id).map(|entry| &entry.deployment)
    }

    /// The devices of a deployment, in the order of their ids; `None` for the record of one that has not asked.
    pub(crate) fn devices_of(&self, id: &str) -> Option<Vec<(&str, Option<&DeviceDeployment>)>> {
        let entry = self.entry(id)?;
        let with_record = |device: &'_ String| -> (&str, Option<&DeviceDeployment>) {
            let (name, record) = match entry.devices.get_key_value(device) {
                Some((name, record)) => (name.as_str(), Some(record)),
                None => (entry.members.get(device).map_or("", String::as_str), None),
            };
            (name, record)
        };
        Some(entry.deployment.devices.iter().map(with_record).collect())
    }

    /// How far one device is with one deployment.
    pub(crate) fn record(&self, deployment: &str, device: &str) -> Option<&DeviceDeployment> {
        self.entry(deployment)?.devices.get(device)
    }

    /// Every deployment that lists the device, the newest first.
    pub(crate) fn history(&self, device: &str) -> Vec<History<'_>> {
        self.deployments
            .values()
            .rev()
            .filter(|entry| entry.members.contains(device))
            .map(|entry| History { deployment: &entry.deployment, record: entry.devices.get(device) })
            .collect()
    }

    /// Stores one device's record, and closes the deployment behind the last one.
    fn put(&mut self, mut record: DeviceDeployment, now: Timestamp) -> Vec<Change> {
        let is_finished = record.status.is_finished();
        record.finished = is_finished.then(|| record.finished.unwrap_or(now));
        let Some(sequence) = self.by_id.get(&record.deployment).copied() else { return Vec::new() };
        if let Some((_, device)) = self.devices.get_mut(&record.device) {
            if is_finished {
                device.last_finished = device.last_finished.max(sequence);
                if device.active.as_ref() == Some(&record.deployment) {
                    device.active = None;
                }
            } else {
                device.active = Some(record.deployment.clone());
            }
        }
        let Some(entry) = self.deployments.get_mut(&sequence) else { return Vec::new() };
        let mut changes = vec![Change::DeviceDeployment(record.clone())];
        let before = entry.devices.insert(record.device.clone(), record);
        if is_finished && before.is_none_or(|before| !before.status.is_finished()) {
            entry.finished += 1;
        }
        if entry.finished >= entry.members.len() && entry.deployment.finished.is_none() {
            entry.deployment.finished = Some(now);
            self.active.remove(&sequence);
            changes.push(Change::Deployment(entry.deployment.clone()));
        }
        changes
    }

    fn entry(&self, id: &str) -> Option<&DeploymentEntry> {
        self.deployments.get(self.by_id.get(id)?)
    }

    fn entry_mut(&mut self, id: &str) -> Option<&mut DeploymentEntry> {
        self.deployments.get_mut(self.by_id.get(id)?)
    }

    /// How far a deployment is.
    pub(crate) fn progress(&self, id: &str) -> Option<Progress> {
        let entry = self.entry(id)?;
        let mut counts = status_counts(entry.devices.values());
        *counts.entry(Status::Pending).or_default() += entry.members.len() - entry.devices.len();
        let status = match entry.deployment.finished {
            Some(_) => "finished",
            None if counts.get(&Status::Pending) == Some(&entry.members.len()) => "pending",
            None => "inprogress",
        };
        let total_size = entry.devices.values().map(|record| record.offered_bytes).sum();
        Some(Progress { counts, status, total_size })
    }
}

/// How many records have each status.
pub(crate) fn status_counts<'a>(
    records: impl Iterator<Item = &'a DeviceDeployment>,
) -> BTreeMap<Status, usize> {
    let mut counts: HashMap<Status, usize> = HashMap::new();
    for record in records {
        *counts.entry(record.status).or_default() += 1;
    }
    STATUSES.into_iter().map(|status| (status, counts.get(&status).copied().unwrap_or(0))).collect()
}

fn new_record(
    deployment: &Deployment,
    device: &str,
    status: Status,
    now: Timestamp,
) -> Result<DeviceDeployment, NoRandomness> {
    Ok(DeviceDeployment {
        id: id::uuid()?,
        deployment: deployment.id.clone(),
        device: device.to_owned(),
        status,
        substate: None,
        created: now,
        started: None,
        finished: None,
        artifact: None,
        offered_bytes: 0,
        asked: None,
        log: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_devices_that_were_removed_before_are_found() {
        let mut fleet = Fleet::default();
        let deployment = Deployment {
            id: "d".to_owned(),
            sequence: 1,
            name: "n".to_owned(),
            artifact_name: "a".to_owned(),
            created: Timestamp(1),
            finished: None,
            devices: vec!["gone".to_owned(), "silent".to_owned()],
            group: None,
            force_installation: false,
            configuration: None,
        };
        let record = |device| new_record(&deployment, device, Status::Decommissioned, Timestamp(1)).unwrap();
        let with_log = DeviceDeployment { log: true, ..record("gone") };
        fleet.restore(Change::Deployment(deployment.clone()));
        fleet.restore(Change::DeviceDeployment(with_log.clone()));
        fleet.restore(Change::DeviceDeployment(record("silent")));
        let gone = Change::LogGone { deployment: "d".to_owned(), device: "gone".to_owned() };
        let without = Change::DeviceDeployment(DeviceDeployment { log: false, ..with_log });
        assert_eq!(fleet.forget_logs_of_nobody(), [gone, without]);
        assert_eq!(fleet.forget_logs_of_nobody(), []);
    }
}
