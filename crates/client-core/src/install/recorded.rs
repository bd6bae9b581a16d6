//! What the record keeps of a payload's handler: who began with the payload, and what that handler wants to find again.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{InstallError, ROOTFS_IMAGE};

/// Who handles a payload. Chosen when a deployment begins; whoever began also ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandledBy {
    /// A handler of this program.
    BuiltIn,
    /// A program that is installed on the device.
    UpdateModule,
}

/// What a handler wants to find again in a later process: a JSON object that only the handler understands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HandlerState(Map<String, Value>);

impl HandlerState {
    /// Longest state as JSON. The record keeps twice as much free for all that a deployment adds to it, so a state of this
    /// length can always be saved.
    pub const BYTES_MAX: usize = 512;

    /// The state that holds `value`, whose JSON is an object.
    ///
    /// # Errors
    /// [`InstallError::StateTooLarge`]; [`InstallError::BadState`] for what is no object.
    pub fn of(value: &impl Serialize) -> Result<HandlerState, InstallError> {
        let bad = |error: serde_json::Error| InstallError::BadState { reason: error.to_string() };
        let state: HandlerState =
            serde_json::to_value(value).and_then(serde_json::from_value).map_err(bad)?;
        let need_bytes = serde_json::to_vec(&state).map_err(bad)?.len();
        if need_bytes > HandlerState::BYTES_MAX {
            return Err(InstallError::StateTooLarge { need_bytes, limit_bytes: HandlerState::BYTES_MAX });
        }
        Ok(state)
    }

    /// What is in it; `None` where nothing was kept.
    ///
    /// # Errors
    /// [`InstallError::BadState`] when another handler, or another version of this one, wrote it in its own way.
    pub fn read<T: DeserializeOwned>(self) -> Result<Option<T>, InstallError> {
        if self.is_empty() {
            return Ok(None);
        }
        let read = serde_json::from_value(Value::Object(self.0));
        read.map(Some).map_err(|error| InstallError::BadState { reason: error.to_string() })
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The handler of a deployment as the record has it, in fields of the deployment.
///
/// Clients before `handled_by` know two other fields, and after a roll-back one of them may read what this one wrote:
/// `external`, which told handlers of images on the device from the one of the client, and `image`, where that one kept its
/// state. Both are still written, and the state of the image handler has no second place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedHandler {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handled_by: Option<HandledBy>,
    #[serde(default, skip_serializing_if = "HandlerState::is_empty")]
    handler_state: HandlerState,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    external: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<HandlerState>,
}

impl RecordedHandler {
    /// A handler that has kept nothing yet.
    pub(super) fn new(payload_type: &str, by: HandledBy) -> RecordedHandler {
        let external = match by {
            HandledBy::BuiltIn => payload_type != ROOTFS_IMAGE,
            HandledBy::UpdateModule => true,
        };
        RecordedHandler { handled_by: Some(by), external, ..RecordedHandler::default() }
    }

    /// Takes `state` in place of what was kept before.
    pub(crate) fn set(&mut self, state: HandlerState) {
        if self.external {
            self.handler_state = state;
        } else {
            self.image = Some(state);
        }
    }

    /// Whether its place is one where clients before `handled_by` look for a finished image.
    pub(crate) fn keeps_an_image(&self) -> bool {
        !self.external
    }

    /// What was kept last.
    pub(super) fn state(&self) -> HandlerState {
        self.image.clone().unwrap_or_else(|| self.handler_state.clone())
    }

    /// Who began; `None` where an older client wrote a record that does not say so.
    pub(super) fn began_by(&self, payload_type: &str) -> Option<HandledBy> {
        self.handled_by.or(match (payload_type == ROOTFS_IMAGE, self.external) {
            (true, true) => Some(HandledBy::UpdateModule),
            (true, false) => Some(HandledBy::BuiltIn),
            (false, _) => None,
        })
    }

    /// What can be understood of a deployment that as a whole cannot be.
    pub(crate) fn salvaged(deployment: &Value) -> RecordedHandler {
        fn field<T: DeserializeOwned>(deployment: &Value, key: &str) -> Option<T> {
            deployment.get(key).and_then(|value| serde_json::from_value(value.clone()).ok())
        }
        RecordedHandler {
            handled_by: field(deployment, "handled_by"),
            handler_state: field(deployment, "handler_state").unwrap_or_default(),
            external: field(deployment, "external").unwrap_or_default(),
            image: field(deployment, "image"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a client before `handled_by` reads the same fields of a deployment.
    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct OlderClient {
        #[serde(default)]
        external: bool,
        #[serde(default)]
        image: Option<OlderImage>,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct OlderImage {
        slot: String,
        size_bytes: u64,
        sha256: String,
    }

    const IMAGE: &str = r#"{"sha256":"ab","size_bytes":4096,"slot":"B"}"#;

    fn image() -> HandlerState {
        serde_json::from_str(IMAGE).unwrap()
    }

    fn journal() -> HandlerState {
        HandlerState::of(&serde_json::json!({ "frames": 7 })).unwrap()
    }

    #[test]
    fn what_is_written_stays_what_it_is() {
        let check = |payload_type, by, state: Option<HandlerState>, expected: &str| {
            let mut written = RecordedHandler::new(payload_type, by);
            if let Some(state) = state.clone() {
                written.set(state);
            }
            assert_eq!(serde_json::to_string(&written).unwrap(), expected);
            let read: RecordedHandler = serde_json::from_str(expected).unwrap();
            assert_eq!(read, written);
            assert_eq!((read.began_by(payload_type), read.state()), (Some(by), state.unwrap_or_default()));
        };
        let (built_in, module) = (HandledBy::BuiltIn, HandledBy::UpdateModule);
        check("rootfs-image", built_in, None, r#"{"handled_by":"built-in"}"#);
        let with_image = format!(r#"{{"handled_by":"built-in","image":{IMAGE}}}"#);
        check("rootfs-image", built_in, Some(image()), &with_image);
        check("rootfs-image", module, None, r#"{"handled_by":"update-module","external":true}"#);
        check("directory", built_in, None, r#"{"handled_by":"built-in","external":true}"#);
        check(
            "delta",
            built_in,
            Some(journal()),
            r#"{"handled_by":"built-in","handler_state":{"frames":7},"external":true}"#,
        );
    }

    #[test]
    fn what_older_clients_wrote_is_understood() {
        let check = |text: &str, payload_type, by, state| {
            let read: RecordedHandler = serde_json::from_str(text).unwrap();
            assert_eq!((read.began_by(payload_type), read.state()), (by, state), "{text}");
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        };
        let (built_in, module) = (Some(HandledBy::BuiltIn), Some(HandledBy::UpdateModule));
        check("{}", "rootfs-image", built_in, HandlerState::default());
        check(&format!(r#"{{"image":{IMAGE}}}"#), "rootfs-image", built_in, image());
        check(r#"{"external":true}"#, "rootfs-image", module, HandlerState::default());
        // A module or a handler of the client: only the tree of the payload tells.
        check(r#"{"external":true}"#, "single-file", None, HandlerState::default());
        check("{}", "single-file", None, HandlerState::default());
    }

    #[test]
    fn older_clients_understand_what_is_written() {
        let check = |payload_type, by, state, external, image| {
            let mut written = RecordedHandler::new(payload_type, by);
            written.set(state);
            let read: OlderClient = serde_json::from_value(serde_json::to_value(&written).unwrap()).unwrap();
            assert_eq!(read, OlderClient { external, image });
        };
        let found = || OlderImage { slot: "B".into(), size_bytes: 4096, sha256: "ab".into() };
        check("rootfs-image", HandledBy::BuiltIn, image(), false, Some(found()));
        check("rootfs-image", HandledBy::UpdateModule, journal(), true, None);
        check("single-file", HandledBy::BuiltIn, journal(), true, None);
    }

    #[test]
    fn what_is_left_of_a_deployment_that_cannot_be_understood_is_kept() {
        let value = serde_json::json!({ "handled_by": "magic", "external": 3, "handler_state": { "a": 1 } });
        let salvaged = RecordedHandler::salvaged(&value);
        assert_eq!(salvaged.began_by("single-file"), None);
        assert_eq!(salvaged.state(), HandlerState::of(&serde_json::json!({ "a": 1 })).unwrap());
    }

    #[test]
    fn a_state_has_a_limit_and_is_an_object() {
        let of = |length: usize| HandlerState::of(&serde_json::json!({ "a": "x".repeat(length) }));
        let most = HandlerState::BYTES_MAX - r#"{"a":""}"#.len();
        assert!(of(most).is_ok());
        let error = of(most + 1).unwrap_err().to_string();
        assert!(error.contains("513 bytes"), "{error}");
        for value in [serde_json::json!(7), serde_json::json!([1]), Value::Null] {
            assert!(matches!(HandlerState::of(&value), Err(InstallError::BadState { .. })), "{value}");
        }
    }
}
