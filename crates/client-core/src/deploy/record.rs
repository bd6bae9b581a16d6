//! The persisted record: what is installed, and the deployment in progress.
//!
//! One JSON document inside a [`StateStore`]. Both slots' clients read and write it, so a client that is older than
//! the writer must be able to: unknown fields are kept and written back, and a document that it does not understand
//! leads to a roll-back, never to a panic and never to an invented default.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::facts::Stage;
use super::plan::{self, Order, Position};
use crate::artifact::Header;
use crate::install::{HandlerState, ROOTFS_IMAGE, RecordedHandler, WriteStatistics, WrittenImage};
use crate::provides::{Provides, UNKNOWN_ARTIFACT};
use crate::slot::Slot;
use crate::state_store::{StateError, StateStore};

/// Version of the document that this client writes.
pub const VERSION: u32 = 1;

/// Stages one deployment may enter, and processes that may take it up, counted together. More is a loop: the longest
/// legal deployment makes eighteen.
pub(crate) const TRANSITIONS_MAX: u32 = 28;

/// Times that the download of one deployment may be cut short by a lost process or a lost power supply and begun again. One
/// more is a failure: whatever ends this client in the middle may be the artifact itself.
pub const CUT_DOWNLOADS_MAX: u32 = 10;

/// Characters kept of the reason why a record was lost.
const LOST_REASON_CHARS: usize = 400;

/// Restarts one deployment may ask for, in each direction.
pub const REBOOTS_MAX: u32 = 3;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`], or that of a newer client.
    pub version: u32,
    /// What is installed.
    #[serde(default)]
    pub installed: Provides,
    /// The deployment in progress.
    #[serde(default)]
    pub deployment: Option<Deployment>,
    /// The end of a deployment that the server does not know yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreported: Option<Unreported>,
    /// What the deployment in hand has cost before this process, where it is not in progress: a stop in the middle of a
    /// download leaves nothing else of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
    /// How often the download of the deployment in hand was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_downloads: Option<CutDownloads>,
    /// What was recorded before could not be read any more. Until the next artifact is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// How far a download came that did not end.
    #[serde(default, with = "odd_is_none", skip_serializing_if = "Option::is_none")]
    pub journal: Option<Journal>,
    /// What this client installed in a slot and committed there, for a way back to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<Slot, SlotContent>,
    /// What was done to the slots so far: how worn their medium is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub wear: BTreeMap<Slot, Wear>,
    /// Fields of other clients.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// What was done to a slot since its record began. A write that a power cut ended is not counted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wear {
    /// Images that were committed in it.
    #[serde(default)]
    pub installations: u64,
    /// Bytes that were written.
    #[serde(default)]
    pub written_bytes: u64,
    /// Bytes of images that were there already, and were not written.
    #[serde(default)]
    pub skipped_bytes: u64,
    /// Bytes behind images that the medium was told to forget.
    #[serde(default)]
    pub discarded_bytes: u64,
    /// Fields of other clients.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Wear {
    pub(super) fn add(&mut self, statistics: &WriteStatistics) {
        let WriteStatistics { written_bytes, skipped_bytes, discarded_bytes, total_bytes: _, syncs: _ } =
            statistics;
        self.written_bytes = self.written_bytes.saturating_add(*written_bytes);
        self.skipped_bytes = self.skipped_bytes.saturating_add(*skipped_bytes);
        self.discarded_bytes = self.discarded_bytes.saturating_add(*discarded_bytes);
    }
}

/// Bytes that a deployment has cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// The deployment's id.
    pub id: String,
    /// Bytes of the artifact that came over the network, those that came twice counted twice.
    pub bytes: u64,
}

/// How far a download came that did not end, as the payload's handler has said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Digest of the artifact's manifest.
    pub manifest: String,
    /// What the handler saved last.
    pub state: HandlerState,
}

/// How often the download of a deployment was cut short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutDownloads {
    /// The deployment's id.
    pub id: String,
    /// At most [`CUT_DOWNLOADS_MAX`].
    pub times: u32,
}

/// A record that could not be read, in the one that took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What was wrong with it.
    pub reason: String,
    /// The boot environment was asked whether a trial is open of which nothing is known any more.
    #[serde(default)]
    pub settled: bool,
}

/// An image that was committed in a slot, with what its artifact says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotContent {
    /// What was written. Whether the slot still holds it is for whoever wants to boot it to see.
    pub image: WrittenImage,
    /// The artifact's name.
    pub artifact_name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_group: Option<String>,
    /// What it provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<BTreeMap<String, String>>,
    /// Which provides it clears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clears_provides: Option<Vec<String>>,
}

/// The end of a deployment, for the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreported {
    /// The deployment's id.
    pub id: String,
    /// Whether it failed.
    pub failed: bool,
    /// A remark for people: which gate refused it, and why, or why a trial was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// A deployment in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id, given by the server; `None` for one of the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name of the artifact being installed.
    pub artifact_name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_group: Option<String>,
    /// Its payload type; `None` before the header was read, and for an artifact without a payload. On the medium an empty
    /// string, as every client writes it.
    #[serde(default, with = "empty_is_none")]
    pub payload_type: Option<String>,
    /// What it provides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<BTreeMap<String, String>>,
    /// Which provides it clears.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clears_provides: Option<Vec<String>>,
    /// Who handles its payload.
    #[serde(flatten)]
    pub handler: RecordedHandler,
    /// Where it is.
    pub stage: Stage,
    /// Whether the stage has begun, or the deployment waits before it.
    pub entered: bool,
    /// Something failed; the deployment is on its way back or to its end.
    #[serde(default)]
    pub failed: bool,
    /// Its download was cut short: it is cleaned up and forgotten, and the server offers it again. `failed` is set as well,
    /// so that a client that does not know this field reports no success.
    #[serde(default, skip_serializing_if = "is_false")]
    pub offered_again: bool,
    /// The way back failed too, or there is none.
    #[serde(default)]
    pub inconsistent: bool,
    /// The payload needs a restart.
    #[serde(default)]
    pub needs_reboot: bool,
    /// The payload's handler restarts the device itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reboots_itself: bool,
    /// Begun on the command line and wound up by the daemon, because nobody will come back for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub taken_over: bool,
    /// Restarts asked for, on the way there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reboots: u32,
    /// Restarts asked for, on the way back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reboots_back: u32,
    /// Which gate refused it, and why: for the report at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Stages entered, and processes that took it up, so far.
    #[serde(default)]
    pub transitions: u32,
    /// Fields of other clients.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

/// Why the record cannot be used.
#[non_exhaustive]
pub enum RecordError {
    /// The store failed.
    Store(StateError),
    /// The document is not one of ours.
    Malformed {
        /// What the parser says.
        reason: String,
    },
}

artifact::debug_as_displayed!(RecordError);

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Store(error) => error.fmt(f),
            RecordError::Malformed { reason } => write!(f, "the state record cannot be understood: {reason}"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Store(error) => Some(error),
            RecordError::Malformed { .. } => None,
        }
    }
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What can be done without is no reason to lose the rest of the document.
mod odd_is_none {
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    // The signature is serde's.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(serde_json::from_value(Value::deserialize(from)?).ok())
    }
}

/// A string of the document that is empty where there is nothing to say.
mod empty_is_none {
    use serde::{Deserialize, Deserializer, Serializer};

    // The signature is serde's.
    #[allow(clippy::ref_option)]
    pub(super) fn serialize<S: Serializer>(text: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text.as_deref().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(from)?).filter(|text| !text.is_empty()))
    }
}

impl From<StateError> for RecordError {
    fn from(error: StateError) -> RecordError {
        RecordError::Store(error)
    }
}

impl Deployment {
    /// How every line of the log about it begins.
    pub fn label(&self) -> String {
        match &self.id {
            Some(id) => format!("deployment {id}"),
            None => format!("artifact {}", self.artifact_name),
        }
    }

    /// A deployment that is about to download.
    pub fn new(artifact_name: String, payload_type: Option<String>) -> Deployment {
        let (stage, entered) = plan::begin(Order::Install).begun().as_recorded();
        Deployment {
            id: None,
            artifact_name,
            artifact_group: None,
            payload_type,
            provides: None,
            clears_provides: None,
            handler: RecordedHandler::default(),
            stage,
            entered,
            failed: false,
            offered_again: false,
            inconsistent: false,
            needs_reboot: false,
            reboots_itself: false,
            taken_over: false,
            reboots: 0,
            reboots_back: 0,
            remark: None,
            transitions: 0,
            unknown: Map::new(),
        }
    }

    /// Where it stands from here on.
    pub(super) fn stand_at(&mut self, position: Position) {
        (self.stage, self.entered) = position.as_recorded();
    }

    /// Whether it stands there.
    pub(super) fn stands_at(&self, position: Position) -> bool {
        (self.stage, self.entered) == position.as_recorded()
    }

    /// Takes over what the artifact says about itself.
    pub(super) fn adopt_header(&mut self, header: &Header) {
        self.artifact_name = header.artifact_name.to_string();
        self.artifact_group = header.artifact_group.clone();
        self.payload_type = header.payload.as_ref().map(|info| info.payload_type.to_string());
        self.provides = header.provides.clone();
        self.clears_provides = header.clears_provides.clone();
    }

    /// The deployment that a lost record may have told of: a trial of an image about which nothing is known. It waits to
    /// be rolled back, by the daemon or by a person.
    pub(super) fn of_a_lost_record() -> Deployment {
        let mut deployment = Deployment::new(UNKNOWN_ARTIFACT.to_owned(), Some(ROOTFS_IMAGE.to_owned()));
        deployment.stand_at(plan::begin(Order::RollBack).waiting());
        (deployment.failed, deployment.taken_over) = (true, true);
        deployment
    }

    /// What an earlier client put into a slot: the deployment that puts it back into use, with nothing to download.
    pub(super) fn of_slot_content(content: &SlotContent) -> Deployment {
        let mut deployment = Deployment::new(content.artifact_name.clone(), Some(ROOTFS_IMAGE.to_owned()));
        deployment.artifact_group = content.artifact_group.clone();
        deployment.provides = content.provides.clone();
        deployment.clears_provides = content.clears_provides.clone();
        deployment.stand_at(plan::begin(Order::TryOtherSlot).waiting());
        deployment
    }

    /// What its commit leaves in a slot, where its handler wrote `image` there.
    pub(super) fn slot_content(&self, image: WrittenImage) -> SlotContent {
        SlotContent {
            image,
            artifact_name: self.artifact_name.clone(),
            artifact_group: self.artifact_group.clone(),
            provides: self.provides.clone(),
            clears_provides: self.clears_provides.clone(),
        }
    }

    /// What can be saved of a deployment that another client wrote in a way this one does not understand: enough to
    /// go back.
    fn salvaged(value: &Value) -> Deployment {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let payload_type = Some(text("payload_type")).filter(|text| !text.is_empty());
        let payload_type = payload_type.unwrap_or_else(|| ROOTFS_IMAGE.to_owned());
        let mut deployment = Deployment::new(text("artifact_name"), Some(payload_type));
        deployment.id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        let flag = |key: &str| value.get(key).and_then(Value::as_bool).unwrap_or_default();
        deployment.taken_over = flag("taken_over");
        deployment.handler = RecordedHandler::salvaged(value);
        // The way back is counted and not begun anew: this is read again by each process until it is over.
        let stage = value.get("stage").and_then(|stage| serde_json::from_value(stage.clone()).ok());
        deployment.stand_at(plan::salvage(stage));
        let number = |key: &str| {
            value.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
        };
        (deployment.transitions, deployment.reboots_back) = (number("transitions"), number("reboots_back"));
        deployment.inconsistent = flag("inconsistent");
        deployment.failed = true;
        deployment
    }
}

impl Record {
    /// The record of a device on which nothing was recorded yet.
    pub fn new() -> Record {
        Record {
            version: VERSION,
            installed: Provides::default(),
            deployment: None,
            unreported: None,
            spent: None,
            cut_downloads: None,
            journal: None,
            lost: None,
            slots: BTreeMap::new(),
            wear: BTreeMap::new(),
            unknown: Map::new(),
        }
    }

    /// The record of a device whose record was lost: nothing is known of what is installed, and the boot environment
    /// has to be asked whether anything was in progress.
    pub fn after_loss(reason: &str) -> Record {
        let lost = Lost { reason: reason.chars().take(LOST_REASON_CHARS).collect(), settled: false };
        Record { lost: Some(lost), ..Record::new() }
    }

    /// What is installed is known from here on.
    pub(super) fn install(&mut self, installed: Provides) {
        self.installed = installed;
        self.lost = None;
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is not a JSON object with an `installed` that can be understood.
    pub fn from_json(bytes: &[u8]) -> Result<Record, RecordError> {
        let malformed = |error: serde_json::Error| RecordError::Malformed { reason: error.to_string() };
        let mut document: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        // The deployment is read on its own: when only it cannot be understood, what is installed still can.
        let deployment = document.as_object_mut().and_then(|object| object.remove("deployment"));
        let mut record: Record = serde_json::from_value(document).map_err(malformed)?;
        record.deployment = match deployment {
            None | Some(Value::Null) => None,
            Some(value) if record.version > VERSION => Some(Deployment::salvaged(&value)),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(deployment) => Some(deployment),
                Err(error) => {
                    let salvaged = Deployment::salvaged(&value);
                    log::error!(
                        "{}: its record cannot be understood ({error}): rolling back",
                        salvaged.label()
                    );
                    Some(salvaged)
                }
            },
        };
        Ok(record)
    }

    /// The document.
    ///
    /// # Errors
    /// Only if a field cannot be written as JSON, which no field of this type can cause.
    pub fn to_json(&self) -> Result<Vec<u8>, RecordError> {
        serde_json::to_vec(self).map_err(|error| RecordError::Malformed { reason: error.to_string() })
    }

    /// Loads the record.
    ///
    /// # Errors
    /// When the store fails or the document cannot be understood.
    pub fn load(store: &mut dyn StateStore) -> Result<Record, RecordError> {
        Record::from_json(&store.load()?)
    }

    /// Saves the record: all or nothing, durable on return.
    ///
    /// # Errors
    /// When the store fails.
    pub fn save(&self, store: &mut dyn StateStore) -> Result<(), RecordError> {
        Ok(store.save(&self.to_json()?)?)
    }
}

impl Default for Record {
    fn default() -> Record {
        Record::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as version 0.1 writes it. A stored format changes only together with a new fixture.
    const VERSION_1: &str = r#"{"version":1,"installed":{"artifact_name":"rel-1","artifact_group":"g","provides":{"rootfs-image.version":"rel-1"}},"deployment":{"artifact_name":"rel-2","payload_type":"rootfs-image","provides":{"rootfs-image.version":"rel-2"},"clears_provides":["rootfs-image.*"],"image":{"slot":"B","size_bytes":4096,"sha256":"ab"},"stage":"Commit","entered":false,"failed":false,"inconsistent":false,"needs_reboot":true,"transitions":3}}"#;

    fn value(record: &Record) -> Value {
        serde_json::from_slice(&record.to_json().unwrap()).unwrap()
    }

    #[test]
    fn version_1_reads_and_writes_back_unchanged() {
        let record = Record::from_json(VERSION_1.as_bytes()).unwrap();
        assert_eq!(record.deployment.as_ref().unwrap().stage, Stage::Commit);
        assert_eq!(value(&record), serde_json::from_str::<Value>(VERSION_1).unwrap());
    }

    #[test]
    fn a_payload_type_that_is_not_known_yet_is_an_empty_string_on_the_medium() {
        let known = r#""payload_type":"rootfs-image""#;
        for text in [VERSION_1.to_owned(), VERSION_1.replace(known, r#""payload_type":"""#)] {
            let record = Record::from_json(text.as_bytes()).unwrap();
            let deployment = record.deployment.as_ref().unwrap();
            assert_eq!(deployment.payload_type.is_some(), text.contains(known));
            assert_eq!(value(&record), serde_json::from_str::<Value>(&text).unwrap());
        }
        let absent = VERSION_1.replace(&format!("{known},"), "");
        let deployment = Record::from_json(absent.as_bytes()).unwrap().deployment.unwrap();
        assert_eq!(deployment.payload_type, None);
    }

    #[test]
    fn fields_of_another_client_survive() {
        let text = VERSION_1
            .replace(r#""version":1,"#, r#""version":1,"floor":7,"#)
            .replace(r#""stage":"Commit""#, r#""attempt":{"n":2},"stage":"Commit""#);
        let mut record = Record::from_json(text.as_bytes()).unwrap();
        record.installed.artifact_name = Some("rel-2".into());
        let written: Value = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
        assert_eq!((&written["floor"], &written["deployment"]["attempt"]["n"]), (&7.into(), &2.into()));
    }

    #[test]
    fn a_deployment_that_cannot_be_understood_is_rolled_back() {
        let check = |text: String| {
            let record = Record::from_json(text.as_bytes()).unwrap();
            let deployment = record.deployment.unwrap();
            assert_eq!((deployment.stage, deployment.entered), (Stage::Rollback, true));
            assert_eq!(serde_json::to_value(&deployment).unwrap()["image"]["size_bytes"], 4096);
            assert_eq!(record.installed.name(), "rel-1");
        };
        check(VERSION_1.replace(r#""stage":"Commit""#, r#""stage":"Levitate""#));
        check(VERSION_1.replace(r#""version":1"#, r#""version":2"#));
        check(VERSION_1.replace(r#""entered":false"#, r#""entered":"maybe""#));
    }

    #[test]
    fn the_way_back_of_such_a_deployment_is_counted_over_all_processes() {
        let text = VERSION_1
            .replace(r#""version":1"#, r#""version":2"#)
            .replace(r#""stage":"Commit""#, r#""stage":"RollbackReboot""#)
            .replace(r#""transitions":3"#, r#""reboots_back":2,"transitions":9"#);
        let deployment = Record::from_json(text.as_bytes()).unwrap().deployment.unwrap();
        assert_eq!(
            (deployment.stage, deployment.reboots_back, deployment.transitions),
            (Stage::RollbackReboot, 2, 9)
        );
    }

    #[test]
    fn what_lies_in_the_slots_and_a_loss_are_written_and_read_back() {
        let mut record = Record::after_loss(&"x".repeat(1000));
        assert_eq!((record.installed.name(), record.lost.as_ref().unwrap().reason.len()), ("unknown", 400));
        let deployment = Record::from_json(VERSION_1.as_bytes()).unwrap().deployment.unwrap();
        let image = format!(r#"{{"slot":"B","size_bytes":4096,"sha256":"{}"}}"#, "ab".repeat(32));
        let image = serde_json::from_str(&image).unwrap();
        let content = deployment.slot_content(image);
        record.slots.insert(content.image.slot, content);
        let text = String::from_utf8(record.to_json().unwrap()).unwrap();
        assert!(text.contains(r#""slots":{"B":{"image":{"slot":"B","size_bytes":4096"#), "{text}");
        assert_eq!(Record::from_json(text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn what_was_done_to_a_slot_is_counted_and_fields_of_another_client_survive_in_it() {
        let text = VERSION_1.replace(
            r#""version":1,"#,
            r#""version":1,"wear":{"B":{"installations":2,"written_bytes":5,"erases":9}},"#,
        );
        let mut record = Record::from_json(text.as_bytes()).unwrap();
        let wrote = WriteStatistics { written_bytes: 7, skipped_bytes: 3, ..WriteStatistics::default() };
        for slot in Slot::BOTH {
            record.wear.entry(slot).or_default().add(&wrote);
        }
        let written = value(&record);
        let zero = serde_json::json!({
            "installations": 0, "written_bytes": 7, "skipped_bytes": 3, "discarded_bytes": 0,
        });
        assert_eq!(written["wear"]["A"], zero);
        assert_eq!(written["wear"]["B"]["written_bytes"], 12);
        assert_eq!(
            (&written["wear"]["B"]["installations"], &written["wear"]["B"]["erases"]),
            (&2.into(), &9.into())
        );
    }

    #[test]
    fn a_document_that_is_not_ours_is_an_error() {
        for text in ["", "null", "[]", "{}", r#"{"version":"x"}"#, r#"{"version":1,"installed":3}"#] {
            assert!(Record::from_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
