//! What people keep on the server: a JSON object for all, and one of each person.

use serde_json::{Map, Value};

/// Bytes of one of them: each process has all of them in memory.
pub(crate) const SETTINGS_BYTES: usize = 64 * 1024;
/// The id of those for all.
pub(crate) const GLOBAL: &str = "global";

/// Settings.
pub(crate) type Settings = Map<String, Value>;
