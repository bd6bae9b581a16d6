//! The records: what is known about devices, artifacts and deployments, as it is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::time::Timestamp;

/// Whether a key may speak for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthStatus {
    /// There is no key.
    Noauth,
    /// Refused by a person.
    Rejected,
    /// Nobody has decided.
    Pending,
    /// Accepted before the device was heard of.
    Preauthorized,
    /// It may.
    Accepted,
}

impl AuthStatus {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            AuthStatus::Noauth => "noauth",
            AuthStatus::Rejected => "rejected",
            AuthStatus::Pending => "pending",
            AuthStatus::Preauthorized => "preauthorized",
            AuthStatus::Accepted => "accepted",
        }
    }

    /// The status with this name.
    pub(crate) fn parse(name: &str) -> Option<AuthStatus> {
        let all = [
            AuthStatus::Noauth,
            AuthStatus::Rejected,
            AuthStatus::Pending,
            AuthStatus::Preauthorized,
            AuthStatus::Accepted,
        ];
        all.into_iter().find(|status| status.name() == name)
    }
}

/// One key of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuthSet {
    /// UUID; the `jti` of its tokens.
    pub(crate) id: String,
    /// Normalised PEM.
    pub(crate) pubkey: String,
    /// Whether it may speak for the device.
    pub(crate) status: AuthStatus,
    /// When it was first seen.
    pub(crate) ts: Timestamp,
    /// Raised when its tokens are revoked.
    #[serde(default)]
    pub(crate) serial: u64,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    /// UUID.
    pub(crate) id: String,
    /// What names it.
    pub(crate) identity: BTreeMap<String, Value>,
    /// Of the identity's one form.
    pub(crate) identity_sha256: String,
    /// When it was first seen.
    pub(crate) created: Timestamp,
    /// When its keys or its group changed last.
    pub(crate) updated: Timestamp,
    /// Its keys.
    pub(crate) auth_sets: Vec<AuthSet>,
    /// Its static group.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Given by the store, in the order in which devices came, and never again to another one; 0 before it is stored.
    #[serde(default)]
    pub(crate) number: u32,
    /// The id of the deployment that it is at work on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) active: Option<String>,
    /// The sequence number of the newest deployment that it has finished.
    #[serde(default)]
    pub(crate) last_finished: u64,
    /// What people have said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) tags: BTreeMap<String, Tag>,
    /// What its monitors say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) monitor: BTreeMap<String, Value>,
}

/// What people have said about a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    /// The value.
    pub(crate) value: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
}

impl Device {
    /// The best of its sets: accepted, then preauthorized, pending, rejected, noauth.
    pub(crate) fn status(&self) -> AuthStatus {
        self.auth_sets.iter().map(|set| set.status).max().unwrap_or(AuthStatus::Noauth)
    }
}

/// One reported attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attribute {
    /// Its name.
    pub(crate) name: String,
    /// A string, a number, a boolean, or a list of one of them.
    pub(crate) value: Value,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// When this value was reported.
    pub(crate) timestamp: Timestamp,
}

/// What a device reported.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    /// The attributes by name.
    pub(crate) attributes: BTreeMap<String, Attribute>,
    /// When it reported last.
    pub(crate) updated: Option<Timestamp>,
}

/// One file of a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactFile {
    /// Its name.
    pub(crate) name: String,
    /// SHA-256 in hexadecimal digits.
    pub(crate) checksum: String,
    /// Its size.
    pub(crate) size: u64,
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Artifact {
    /// UUID.
    pub(crate) id: String,
    /// The name inside the artifact.
    pub(crate) name: String,
    /// For people.
    #[serde(default)]
    pub(crate) description: String,
    /// Which devices it is for.
    pub(crate) device_types: Vec<String>,
    /// Everything else it depends on: the device's value has to be one of those listed.
    pub(crate) depends: BTreeMap<String, Vec<String>>,
    /// What the device provides afterwards.
    pub(crate) provides: BTreeMap<String, String>,
    /// Patterns of what it no longer provides.
    pub(crate) clears_provides: Vec<String>,
    /// The handler; `None` for an artifact without a payload.
    pub(crate) payload_type: Option<String>,
    /// A JSON object for the handler.
    #[serde(default)]
    pub(crate) meta_data: Option<Value>,
    /// The payload.
    pub(crate) files: Vec<ArtifactFile>,
    /// Whether there is a signature; this server does not judge it.
    pub(crate) signed: bool,
    /// Of the file.
    pub(crate) size: u64,
    /// Of the file; also its entity tag.
    pub(crate) sha256: String,
    /// When it was uploaded or described anew.
    pub(crate) modified: Timestamp,
    /// The device whose configuration it carries. Such an artifact was made here, and people are not shown it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) configuration_of: Option<String>,
}

/// What a device is to be configured with, and what it says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Configuration {
    /// What people want.
    #[serde(default)]
    pub(crate) configured: BTreeMap<String, String>,
    /// What the device says.
    #[serde(default)]
    pub(crate) reported: BTreeMap<String, String>,
    /// The last deployment of it.
    #[serde(default)]
    pub(crate) deployment: Option<String>,
    /// When people changed it.
    #[serde(default)]
    pub(crate) updated_at: Option<Timestamp>,
    /// When the device reported.
    #[serde(default)]
    pub(crate) reported_at: Option<Timestamp>,
}

/// How far one device is with one deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Not begun.
    Pending,
    /// Loading.
    Downloading,
    /// Waiting.
    PauseBeforeInstalling,
    /// Installing.
    Installing,
    /// Waiting.
    PauseBeforeRebooting,
    /// Rebooting.
    Rebooting,
    /// Waiting.
    PauseBeforeCommitting,
    /// Done.
    Success,
    /// It did not work.
    Failure,
    /// No artifact fits the device.
    Noartifact,
    /// Nothing had to be done.
    #[serde(rename = "already-installed")]
    AlreadyInstalled,
    /// Stopped by a person.
    Aborted,
    /// The device was removed.
    Decommissioned,
}

/// Every status.
pub(crate) const STATUSES: [Status; 13] = [
    Status::Pending,
    Status::Downloading,
    Status::PauseBeforeInstalling,
    Status::Installing,
    Status::PauseBeforeRebooting,
    Status::Rebooting,
    Status::PauseBeforeCommitting,
    Status::Success,
    Status::Failure,
    Status::Noartifact,
    Status::AlreadyInstalled,
    Status::Aborted,
    Status::Decommissioned,
];

impl Status {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Downloading => "downloading",
            Status::PauseBeforeInstalling => "pause_before_installing",
            Status::Installing => "installing",
            Status::PauseBeforeRebooting => "pause_before_rebooting",
            Status::Rebooting => "rebooting",
            Status::PauseBeforeCommitting => "pause_before_committing",
            Status::Success => "success",
            Status::Failure => "failure",
            Status::Noartifact => "noartifact",
            Status::AlreadyInstalled => "already-installed",
            Status::Aborted => "aborted",
            Status::Decommissioned => "decommissioned",
        }
    }

    /// The status with this name.
    pub(crate) fn parse(name: &str) -> Option<Status> {
        STATUSES.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing follows.
    pub(crate) fn is_finished(self) -> bool {
        match self {
            Status::Success
            | Status::Failure
            | Status::Noartifact
            | Status::AlreadyInstalled
            | Status::Aborted
            | Status::Decommissioned => true,
            Status::Pending
            | Status::Downloading
            | Status::PauseBeforeInstalling
            | Status::Installing
            | Status::PauseBeforeRebooting
            | Status::Rebooting
            | Status::PauseBeforeCommitting => false,
        }
    }

    /// Whether a device may report it; the others are set by the server.
    pub(crate) fn is_for_devices(self) -> bool {
        !matches!(self, Status::Pending | Status::Noartifact | Status::Aborted | Status::Decommissioned)
    }
}

/// An order to install one artifact on some devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// UUID.
    pub(crate) id: String,
    /// Deployments are numbered in the order of their creation; 0 before it is stored.
    #[serde(default)]
    pub(crate) sequence: u64,
    /// For people.
    pub(crate) name: String,
    /// What to install.
    pub(crate) artifact_name: String,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// When the last device was done.
    #[serde(default)]
    pub(crate) finished: Option<Timestamp>,
    /// How many devices it lists.
    pub(crate) device_count: u64,
    /// How many of its devices that have a record have each status.
    #[serde(default)]
    pub(crate) counts: BTreeMap<Status, u64>,
    /// Bytes of the artifacts that its devices were given.
    #[serde(default)]
    pub(crate) total_size: u64,
    /// The group they were taken from.
    #[serde(default)]
    pub(crate) group: Option<String>,
    /// Also install what is installed already.
    #[serde(default)]
    pub(crate) force_installation: bool,
    /// What its device is to be configured with; `None` for software. Its artifact is made when the device asks, since
    /// only then its type is known for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<BTreeMap<String, String>>,
}

impl Deployment {
    /// How many of its devices have a record.
    pub(crate) fn records(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of its devices have a record that is finished.
    pub(crate) fn finished_records(&self) -> u64 {
        self.counts.iter().filter(|(status, _)| status.is_finished()).map(|(_, count)| count).sum()
    }

    /// `pending`, `inprogress` or `finished`.
    pub(crate) fn state(&self) -> &'static str {
        match self.finished {
            Some(_) => "finished",
            None if self.records() == self.counts.get(&Status::Pending).copied().unwrap_or(0) => "pending",
            None => "inprogress",
        }
    }
}

/// What a device said about itself when it was offered a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The installed artifact.
    pub(crate) artifact_name: String,
    /// The type of the device.
    pub(crate) device_type: String,
}

/// One deployment on one device. There is none until the device has asked or the deployment has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceDeployment {
    /// UUID.
    pub(crate) id: String,
    /// The deployment.
    pub(crate) deployment: String,
    /// The device.
    pub(crate) device: String,
    /// How far it is.
    pub(crate) status: Status,
    /// What the device adds to it.
    #[serde(default)]
    pub(crate) substate: Option<String>,
    /// When the device first asked.
    pub(crate) created: Timestamp,
    /// When it first reported.
    #[serde(default)]
    pub(crate) started: Option<Timestamp>,
    /// When it was done.
    #[serde(default)]
    pub(crate) finished: Option<Timestamp>,
    /// The artifact it was offered, or had already.
    #[serde(default)]
    pub(crate) artifact: Option<String>,
    /// Bytes of the artifact it was offered: the artifact may be deleted later.
    #[serde(default)]
    pub(crate) offered_bytes: u64,
    /// What it said when it asked.
    #[serde(default)]
    pub(crate) asked: Option<Asked>,
    /// Whether it has sent its log.
    #[serde(default)]
    pub(crate) log: bool,
}

#[cfg(test)]
mod tests {
    use super::{STATUSES, Status};

    #[test]
    fn a_status_is_stored_as_it_is_named() {
        for status in STATUSES {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        assert_eq!(Status::parse("done"), None);
    }
}
