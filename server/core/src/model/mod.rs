//! The records: what is known about devices, artifacts and deployments, as it is stored.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) mod time;

use time::Timestamp;

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

#[cfg(test)]
impl Artifact {
    /// One of nothing but a name, for these types: a test puts over it what it is about.
    pub(crate) fn plain(id: &str, name: &str, types: &[&str]) -> Artifact {
        Artifact {
            id: id.to_owned(),
            name: name.to_owned(),
            description: String::new(),
            device_types: types.iter().map(|kind| (*kind).to_owned()).collect(),
            depends: BTreeMap::new(),
            provides: BTreeMap::new(),
            clears_provides: Vec::new(),
            payload_type: None,
            meta_data: None,
            files: Vec::new(),
            signed: false,
            size: 1,
            sha256: String::new(),
            modified: Timestamp(1),
            configuration_of: None,
        }
    }
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

    /// Whether it has a place among those that load.
    pub(crate) fn needs_place(self) -> bool {
        matches!(self, Status::Pending | Status::Downloading)
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
    /// How many devices with a record have lost their place among those that load: see [`DeviceDeployment::lapsed`].
    #[serde(default)]
    pub(crate) lapsed: u64,
    /// Bytes of the artifacts that its devices were given.
    #[serde(default)]
    pub(crate) total_size: u64,
    /// Bytes that its devices need not load because a smaller artifact than the full one fits them.
    #[serde(default)]
    pub(crate) saved_size: u64,
    /// Its phases, in their order; without any, every device may begin at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) phases: Vec<Phase>,
    /// How often a device that has failed may try again.
    #[serde(default)]
    pub(crate) retries: u32,
    /// What devices that ask for it are told about when to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) update_control_map: Option<Value>,
    /// The kept filter whose devices it is for, whenever they come: its id, its name, and its terms as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<Value>,
    /// Where that ends: with so many devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_devices: Option<u64>,
    /// Whether deltas are to be made for the devices that it will meet.
    #[serde(default)]
    pub(crate) autogenerate_delta: bool,
    /// Why no further device may begin, until a person lets it go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
    /// When it stops by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stop: Vec<StopRule>,
    /// At which hours of its own clock a device may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) windows: Option<Windows>,
    /// How much its devices may load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<Budget>,
    /// The devices that begin first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canaries: Option<Canaries>,
    /// What they were given in the newest hour in which they were given something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spent: Option<Spent>,
    /// The first failures of late, for rules with a window: the times of the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) failures: Vec<Timestamp>,
    /// For each stop rule, in their order, how many devices have raised a critical alert in its time; 0 where it counts failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) alerted: Vec<u64>,
    /// What has become of devices without a record, when it ended before they asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Status>,
    /// What no other active deployment has, so that the same one is not made twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
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

/// A part of the devices of a deployment, which may begin at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// UUID.
    pub(crate) id: String,
    /// When it begins; `None` is at once.
    #[serde(default)]
    pub(crate) start: Option<Timestamp>,
    /// How many devices it is for.
    pub(crate) size: PhaseSize,
    /// How many devices have begun in it.
    #[serde(default)]
    pub(crate) begun: u64,
}

/// How many devices a phase is for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PhaseSize {
    /// A part of all devices, in percent.
    Percent(f64),
    /// So many.
    Devices(u64),
    /// All that are left.
    Rest,
}

impl PhaseSize {
    /// So many of so many devices.
    pub(crate) fn devices(self, device_count: u64) -> u64 {
        match self {
            PhaseSize::Devices(count) => count,
            // A part of few devices is at least one.
            PhaseSize::Percent(percent) => ((device_count as f64 * percent / 100.0).round() as u64).max(1),
            PhaseSize::Rest => device_count,
        }
    }
}

/// How the devices are chosen that begin first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedCanaries {
    /// How many.
    pub(crate) count: u64,
    /// They have different values of these attributes: `device_type`, or with a scope `tags/region`.
    #[serde(default = "device_type")]
    pub(crate) spread_by: Vec<String>,
}

fn device_type() -> Vec<String> {
    vec!["device_type".to_owned()]
}

/// The devices that begin first: the first phase is for them and for nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Canaries {
    /// How they were chosen.
    pub(crate) wanted: WantedCanaries,
    /// Their numbers, in the order in which they were chosen.
    pub(crate) devices: Vec<u32>,
}

/// Hours at which devices may begin, by their own clocks. Who has begun goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Windows {
    /// What devices report their difference from UTC as: text such as `+02:00`, or a number of minutes.
    #[serde(default = "utc_offset")]
    pub(crate) attribute: String,
    /// That of a device that does not report it; without one, such a device waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_offset: Option<String>,
    /// When they may.
    pub(crate) open: Vec<Window>,
}

fn utc_offset() -> String {
    "utc_offset".to_owned()
}

/// A part of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Window {
    /// On these days; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) days: Vec<Day>,
    /// From then, as `HH:MM`.
    pub(crate) from: String,
    /// Until then; when that is not later, on the next day.
    pub(crate) to: String,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub(crate) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// How much the devices of a deployment may load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Bytes of artifacts that are offered in an hour of the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_hour: Option<u64>,
    /// Devices that were offered it and have not loaded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<u64>,
}

/// How much all devices together may load, and what they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FleetBudget {
    /// What people have set.
    pub(crate) budget: Budget,
    /// What was given in the newest hour in which something was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spent: Option<Spent>,
}

/// What was given to devices in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Hours since 1970.
    pub(crate) hour: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

/// When a deployment stops by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StopRule {
    /// More failures than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed_devices: Option<u64>,
    /// More failures than that, in percent of the devices that have ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed_percent: Option<f64>,
    /// More devices than that have raised a critical alert after they got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alerted_devices: Option<u64>,
    /// More devices than that have, in percent of those that have got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alerted_percent: Option<f64>,
    /// Only failures of so many last seconds count; of alerts, those of so many seconds after the device got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within_seconds: Option<u64>,
    /// A percentage counts when so many devices have ended it; one of alerts, when so many have got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after_devices: Option<u64>,
    /// What is done.
    pub(crate) action: StopAction,
}

/// What a stop rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StopAction {
    /// No further device begins until a person lets it go on.
    Hold,
    /// It ends on every device that has not ended it.
    Abort,
}

impl Deployment {
    /// The phase in which the device with this number, which has not begun, may begin now, by its place.
    pub(crate) fn open_phase(&self, now: Timestamp, number: u32) -> Option<usize> {
        let mut left = self.most_devices();
        for (at, phase) in self.phases.iter().enumerate() {
            if phase.start.is_some_and(|start| now < start) {
                return None;
            }
            let most = self.phase_devices(at).min(left);
            let is_for_it = at > 0 || self.canaries.is_none() || self.is_canary(number);
            if is_for_it && phase.begun < most {
                return Some(at);
            }
            left = left.saturating_sub(most);
        }
        None
    }

    /// How many devices a phase is for.
    pub(crate) fn phase_devices(&self, at: usize) -> u64 {
        self.phases.get(at).map_or(0, |phase| phase.size.devices(self.most_devices()))
    }

    /// How many devices its phases are for together. Of a filter those that have come by now are only some of them.
    fn most_devices(&self) -> u64 {
        match self.is_dynamic() {
            true => self.max_devices.unwrap_or(u64::MAX),
            false => self.device_count,
        }
    }

    /// Whether the device with this number is one of those that begin first.
    pub(crate) fn is_canary(&self, number: u32) -> bool {
        self.canaries.as_ref().is_some_and(|canaries| canaries.devices.contains(&number))
    }

    /// Whether the devices that it is for are not known before they ask.
    pub(crate) fn is_dynamic(&self) -> bool {
        self.filter.is_some()
    }

    /// How many of its devices have each status, also of those that have not asked.
    pub(crate) fn all_counts(&self) -> BTreeMap<Status, u64> {
        let mut counts: BTreeMap<Status, u64> =
            STATUSES.iter().map(|status| (*status, self.counts.get(status).copied().unwrap_or(0))).collect();
        let silent = self.device_count.saturating_sub(self.records());
        *counts.entry(self.ended.unwrap_or(Status::Pending)).or_default() += silent;
        counts
    }

    /// How many of its devices were offered it and have not loaded it, and may still begin.
    pub(crate) fn loading(&self) -> u64 {
        let counts = self.counts.iter().filter(|(status, _)| status.needs_place());
        counts.map(|(_, count)| count).sum::<u64>().saturating_sub(self.lapsed)
    }

    /// How many of its devices have a record.
    pub(crate) fn records(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of its devices have a record that is finished.
    pub(crate) fn finished_records(&self) -> u64 {
        self.counts.iter().filter(|(status, _)| status.is_finished()).map(|(_, count)| count).sum()
    }

    /// `scheduled`, `pending`, `inprogress` or `finished`.
    pub(crate) fn state(&self) -> &'static str {
        let first = self.phases.first().and_then(|phase| phase.start);
        match self.finished {
            Some(_) => "finished",
            None if self.records() == 0 && first.is_some_and(|start| Timestamp::now() < start) => "scheduled",
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
    /// When it was given a place among those that load, or has said last that it loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) given: Option<Timestamp>,
    /// Whether it has lost that place, because it said nothing for too long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lapsed: bool,
    /// What it said when it asked.
    #[serde(default)]
    pub(crate) asked: Option<Asked>,
    /// Whether it has sent its log.
    #[serde(default)]
    pub(crate) log: bool,
    /// The phase in which it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
    /// How often it has begun anew after a failure.
    #[serde(default)]
    pub(crate) attempts: u32,
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
