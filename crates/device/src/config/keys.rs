//! The keys that there are, and one object of a configuration file as a set of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use client_core::deploy::gates::Gate;
use client_core::server;
use serde_json::{Map, Value};

use super::ConfigError;
use super::parse::text;

/// The keys of the file itself. `docs/configuration.md` lists them and all that follow, and a test holds it to that.
pub(super) const TOP: &[&str] = &[
    "ServerURL",
    "Servers",
    "TenantToken",
    "DeviceTier",
    "UpdatePollIntervalSeconds",
    "InventoryPollIntervalSeconds",
    "RetryPollIntervalSeconds",
    "RetryPollCount",
    "RetryDownloadCount",
    "ModuleTimeoutSeconds",
    "UpdateLogPath",
    "HttpsClient",
    "Security",
    "ArtifactVerifyKey",
    "ArtifactVerifyKeys",
    "RootfsPartA",
    "RootfsPartB",
    "DeviceTypeFile",
    "ServerCertificate",
    "SkipVerify",
    "DaemonLogLevel",
    "StateScriptTimeoutSeconds",
    "StateScriptRetryTimeoutSeconds",
    "StateScriptRetryIntervalSeconds",
    "DBus",
    "UpdateControlMapExpirationTimeSeconds",
    "UpdateControlMapBootExpirationTimeSeconds",
    "RustOta",
];

/// Keys of the Mender client that mean nothing here, and are no mistake.
pub(super) const IGNORED: &[&str] =
    &["BootUtilitiesGetNextActivePart", "BootUtilitiesSetActivePart", "ClientProtocol", "Connectivity"];

pub(super) const SERVERS: &[&str] = &["ServerURL"];
pub(super) const HTTPS_CLIENT: &[&str] = &["Certificate", "Key", "SSLEngine"];
pub(super) const SECURITY: &[&str] = &["AuthPrivateKey", "SSLEngine"];
pub(super) const DBUS: &[&str] = &["Enabled"];

pub(super) const RUST_OTA: &[&str] = &[
    "Bootloader",
    "FwEnvConfig",
    "GrubEnvDir",
    "RunningRoot",
    "RebootCommand",
    "IdentityScript",
    "StatusSocket",
    "PreferBuiltIn",
    "AskBefore",
    "AskTimeoutSeconds",
    "MaintenanceWindow",
    "HealthCheck",
    "MaxDownloadBytes",
    "DiscardBehindImage",
    "DangerAcceptUnsigned",
    "Monitor",
];

pub(super) const MAINTENANCE_WINDOW: &[&str] = &["Times", "Before", "Utc"];
pub(super) const TIMES: &[&str] = &["Days", "From", "To"];
pub(super) const HEALTH_CHECK: &[&str] = &["Commands", "Units", "TimeoutSeconds", "IntervalSeconds"];

pub(super) const MONITOR: &[&str] = &["IntervalSeconds", "Checks"];
/// The keys of a check: those of every type, and those of each.
pub(super) const CHECKS: &[&str] = &[
    "Name",
    "Type",
    "Looks",
    "Unit",
    "File",
    "Pattern",
    "LinesBefore",
    "LinesAfter",
    "OkAfterSeconds",
    "Path",
    "UsedPercent",
    "DaysLeft",
    "Most",
    "WithinSeconds",
    "Failed",
];

/// Unknown keys that are told of.
pub(super) const WARNINGS_MAX: usize = 20;
/// Longest key for which another one is looked for that may have been meant.
const MISSPELT_BYTES: usize = 64;

/// The one of `known` that `key` was meant to be, as far as that can be told.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > MISSPELT_BYTES {
        return None;
    }
    let distances = known.iter().map(|candidate| (distance(key, candidate), *candidate));
    let (distance, candidate) = distances.min()?;
    (distance <= 1 + candidate.len() / 4).then_some(candidate)
}

/// How many letters have to be changed, added or left out to make `one` of `other`. Letter case does not count.
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, candidate) in other.iter().enumerate() {
            let changed = diagonal + usize::from(!letter.eq_ignore_ascii_case(candidate));
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The keys of one object, looked up in any letter case. A key that is not there, or `null`, is `None`.
pub(super) struct Keys<'a> {
    pub(super) file: &'a str,
    prefix: &'static str,
    object: &'a Map<String, Value>,
    known: &'static [&'static str],
}

impl<'a> Keys<'a> {
    pub(super) fn new(
        file: &'a str,
        prefix: &'static str,
        object: &'a Map<String, Value>,
        known: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let mut seen = BTreeSet::new();
        for key in object.keys() {
            if !seen.insert(key.to_ascii_lowercase()) {
                return Err(ConfigError::Duplicate { file: file.into(), key: format!("{prefix}{key}") });
            }
        }
        Ok(Keys { file, prefix, object, known })
    }

    /// The keys of an object that no other client has: an unknown one is a mistake.
    pub(super) fn of_our_own(
        file: &'a str,
        prefix: &'static str,
        object: &'a Map<String, Value>,
        known: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let keys = Keys::new(file, prefix, object, known)?;
        let Some(key) = keys.unknown().next() else { return Ok(keys) };
        let belongs_to_the_top = TOP.iter().find(|top| top.eq_ignore_ascii_case(key));
        let hint = match (belongs_to_the_top, nearest(key, known)) {
            (Some(top), _) => Some(format!("{top} stands beside RustOta, not in it")),
            (None, Some(near)) => Some(format!("is {prefix}{near} meant?")),
            (None, None) => None,
        };
        Err(ConfigError::Unknown { file: file.into(), key: format!("{prefix}{}", key.escape_debug()), hint })
    }

    /// The keys of an object in this one, where other clients may have more: those are warned of.
    pub(super) fn shared_object(
        &self,
        key: &str,
        prefix: &'static str,
        known: &'static [&'static str],
        warnings: &mut Vec<String>,
    ) -> Result<Option<Keys<'a>>, ConfigError> {
        let Some(object) = self.object(key)? else { return Ok(None) };
        let keys = Keys::new(self.file, prefix, object, known)?;
        keys.warn_of_unknown(warnings)?;
        Ok(Some(keys))
    }

    /// The keys of an object in this one, all of which are our own.
    pub(super) fn own_object(
        &self,
        key: &str,
        prefix: &'static str,
        known: &'static [&'static str],
    ) -> Result<Option<Keys<'a>>, ConfigError> {
        let Some(object) = self.object(key)? else { return Ok(None) };
        Keys::of_our_own(self.file, prefix, object, known).map(Some)
    }

    /// Refuses keys that are known, but not for this object.
    pub(super) fn refuse_others(&self, allowed: &[&str]) -> Result<(), ConfigError> {
        let is_allowed = |key: &&String| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(key));
        let mut set = self.object.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key);
        match set.find(|key| !is_allowed(key)) {
            None => Ok(()),
            Some(key) => Err(ConfigError::Unknown {
                file: self.file.into(),
                key: format!("{}{key}", self.prefix),
                hint: Some(format!("here there may be {}", allowed.join(", "))),
            }),
        }
    }

    /// Keys of this object that are in no list.
    fn unknown(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        let known = self.known;
        let is_known = move |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
        self.object.keys().filter(move |key| !is_known(key))
    }

    /// Says what is not known here. One of our own keys in the wrong place is an error: it would mean nothing.
    pub(super) fn warn_of_unknown(&self, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
        let (file, prefix) = (self.file, self.prefix);
        for key in self.unknown().filter(|key| !IGNORED.iter().any(|known| known.eq_ignore_ascii_case(key))) {
            if let Some(own) = RUST_OTA.iter().find(|own| own.eq_ignore_ascii_case(key)) {
                let hint = Some(format!("{own} belongs into the object RustOta"));
                return Err(ConfigError::Unknown { file: file.into(), key: format!("{prefix}{key}"), hint });
            }
            let meant = nearest(key, self.known).map(|near| format!("; is {prefix}{near} meant?"));
            let (key, meant) = (key.escape_debug(), meant.unwrap_or_default());
            warnings.push(format!("{file}: the key {prefix}{key} is not known and ignored{meant}"));
            if warnings.len() >= WARNINGS_MAX {
                break;
            }
        }
        warnings.truncate(WARNINGS_MAX);
        Ok(())
    }

    pub(super) fn find(&self, key: &str) -> Option<&'a Value> {
        debug_assert!(self.known.contains(&key), "{}{key} is in no list", self.prefix);
        // `null` is how generators write "not set".
        let found = self.object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::WrongType { file: self.file.into(), key: format!("{}{key}", self.prefix), expected }
    }

    /// The value of `key` as `convert` reads it; an error where that is `None`.
    pub(super) fn read<T>(
        &self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.find(key).map(|value| convert(value).ok_or_else(|| self.wrong(key, expected))).transpose()
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.read(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A string that may be empty, which is none: so the setup program of the Mender client writes what is not set.
    pub(super) fn string_or_none(&self, key: &str) -> Result<Option<Option<String>>, ConfigError> {
        Ok(self.string(key)?.map(|value| Some(value).filter(|value| !value.is_empty())))
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        self.read(key, "a list of strings", strings)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(super) fn seconds(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        Ok(self.read(key, "a whole number of seconds", Value::as_u64)?.map(Duration::from_secs))
    }

    /// A time between two things that repeat. 0 leaves the default.
    pub(super) fn interval(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        Ok(self.seconds(key)?.filter(|interval| !interval.is_zero()))
    }

    pub(super) fn count(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
        expected: &'static str,
    ) -> Result<Option<u32>, ConfigError> {
        let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
        self.read(key, expected, |value| number(value).filter(|number| range.contains(number)))
    }

    /// One of some words; `meant` tells what a word stands for.
    pub(super) fn word<T>(
        &self,
        key: &str,
        expected: &'static str,
        meant: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(word) = self.string(key)? else { return Ok(None) };
        meant(&word).map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    /// A list of gates in words.
    pub(super) fn gates(&self, key: &str) -> Result<Option<Vec<Gate>>, ConfigError> {
        let Some(names) = self.strings(key)? else { return Ok(None) };
        let gates = names.iter().map(|name| Gate::named(name)).collect::<Option<Vec<_>>>();
        let expected = "a list of \"download\", \"install\", \"reboot\" and \"commit\"";
        gates.map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    /// `ServerURL`: an address that can be asked for; empty is none. One that cannot is a mistake as much as none: a
    /// daemon that goes on with it never gets a better one.
    pub(super) fn server(&self) -> Result<Option<Option<String>>, ConfigError> {
        const KEY: &str = "ServerURL";
        let found = self.string_or_none(KEY)?;
        match found.iter().flatten().find_map(|url| server::address_problem(url)) {
            Some(reason) => {
                let key = format!("{}{KEY}", self.prefix);
                Err(ConfigError::Address { file: self.file.into(), key, reason })
            }
            None => Ok(found),
        }
    }

    fn object(&self, key: &str) -> Result<Option<&'a Map<String, Value>>, ConfigError> {
        self.read(key, "an object", Value::as_object)
    }
}

/// A key that a file sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKey {
    /// Its name in the usual letter case, with the object that it is in.
    pub name: String,
    /// The Mender client knows it, and it means nothing here.
    pub is_ignored: bool,
}

/// The known keys that the file with this content sets, each once; none where it is no JSON object.
pub fn set_keys(content: &[u8]) -> Vec<SetKey> {
    const NESTED: [(&str, &[&str]); 4] =
        [("HttpsClient", HTTPS_CLIENT), ("Security", SECURITY), ("DBus", DBUS), ("RustOta", RUST_OTA)];
    let mut found = Vec::new();
    let Ok(document) = serde_json::from_slice::<Value>(text(content).unwrap_or_default()) else {
        return found;
    };
    let mut add = |object: &Value, prefix: &str, known: &[&str]| {
        for (key, _) in object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            if let Some(known) = known.iter().find(|known| known.eq_ignore_ascii_case(key)) {
                let is_ignored = IGNORED.contains(known) || *known == "SSLEngine";
                found.push(SetKey { name: format!("{prefix}{known}"), is_ignored });
            }
        }
    };
    add(&document, "", TOP);
    add(&document, "", IGNORED);
    for (name, known) in NESTED {
        let objects = document.as_object().into_iter().flatten();
        for (_, object) in objects.filter(|(key, _)| key.eq_ignore_ascii_case(name)) {
            add(object, &format!("{name}."), known);
        }
    }
    found
}

/// A list with nothing but strings in it.
pub(super) fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}
