//! `mender.conf`: the keys this client uses, from one or two JSON documents.
//!
//! Keys are matched in any letter case, and the main file wins over the fallback key by key, as in the Mender client. A
//! known key with a value of the wrong type is an error: a configuration that cannot be understood must not quietly
//! mean "no verification key". So is an unknown key inside `RustOta`: a misspelt health check must not be none. Other
//! unknown keys may be those of another client, and are a warning. Reads no files.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use client_core::install::PreferBuiltIn;
use client_core::server;
use client_core::window::Window;

/// Which bootloader integration to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Bootloader {
    /// The one whose environment is there.
    #[default]
    Auto,
    /// U-Boot, described by `fw_env.config`.
    UBoot,
    /// GRUB in the grub-mender-grubenv layout.
    Grub,
}

/// The keys of the file itself. `docs/configuration.md` lists them and all that follow, and a test holds it to that.
const TOP: &[&str] = &[
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
const IGNORED: &[&str] =
    &["BootUtilitiesGetNextActivePart", "BootUtilitiesSetActivePart", "ClientProtocol", "Connectivity"];

const SERVERS: &[&str] = &["ServerURL"];
const HTTPS_CLIENT: &[&str] = &["Certificate", "Key", "SSLEngine"];
const SECURITY: &[&str] = &["AuthPrivateKey", "SSLEngine"];
const DBUS: &[&str] = &["Enabled"];

const RUST_OTA: &[&str] = &[
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
    "DangerAcceptUnsigned",
];

const MAINTENANCE_WINDOW: &[&str] = &["Times", "Before", "Utc"];
const TIMES: &[&str] = &["Days", "From", "To"];
const HEALTH_CHECK: &[&str] = &["Commands", "Units", "TimeoutSeconds", "IntervalSeconds"];

/// What a deployment can be held up before (`deploy::gates::Gate` in words).
const GATES: [&str; 4] = ["download", "install", "reboot", "commit"];

/// `RustOta.MaintenanceWindow`: when updates may disturb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceWindow {
    /// The times. Any one that is open will do.
    pub times: Vec<Window>,
    /// What waits for them: words of the gates.
    pub before: Vec<String>,
    /// The times are in UTC, not in the time zone of the device.
    pub utc: bool,
}

/// `RustOta.HealthCheck`: what must be well before an update is made permanent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Shell commands that must exit with 0.
    pub commands: Vec<String>,
    /// Units of systemd that must be active.
    pub units: Vec<String>,
    /// How long they may take until all of them are well at once.
    pub timeout_seconds: u64,
    /// Time between two rounds.
    pub interval_seconds: u64,
}

/// A certificate to show to servers that ask for one, and its private key: paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `HttpsClient.Certificate`: the chain, the device's own certificate first.
    pub certificate: String,
    /// `HttpsClient.Key`.
    pub key: String,
}

/// What a `DeviceTier` may be.
const DEVICE_TIERS: [&str; 3] = ["standard", "micro", "system"];

/// What a `DaemonLogLevel` may be.
const LOG_LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "warn", "error", "fatal"];

/// The configuration. Paths are as written; nothing is checked for existence here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// `ServerURL` or `Servers`, in order; empty when there is none.
    pub servers: Vec<String>,
    /// `TenantToken`; empty when there is none.
    pub tenant_token: String,
    /// `DeviceTier`: one of `standard`, `micro` and `system`.
    pub device_tier: Option<String>,
    /// `UpdatePollIntervalSeconds`. Never 0: that means the default, as it did when 0 was how "not set" was written.
    pub update_poll_interval_seconds: u64,
    /// `InventoryPollIntervalSeconds`. Never 0, likewise.
    pub inventory_poll_interval_seconds: u64,
    /// `RetryPollIntervalSeconds`: the longest wait between two attempts. Never 0, likewise.
    pub retry_poll_interval_seconds: u64,
    /// `RetryPollCount`: attempts in all; 0 means three at the longest wait.
    pub retry_poll_count: u32,
    /// `RetryDownloadCount`: attempts to go on with a download.
    pub retry_download_count: u32,
    /// `ModuleTimeoutSeconds`: one call of an update module.
    pub module_timeout_seconds: u64,
    /// `UpdateLogPath`: the directory of the deployment logs; default is the datastore.
    pub update_log_path: Option<String>,
    /// `HttpsClient`.
    pub https_client: Option<ClientCertificate>,
    /// `Security.AuthPrivateKey`: a device key that is never made and never replaced.
    pub auth_private_key: Option<String>,
    /// `ArtifactVerifyKey` or `ArtifactVerifyKeys`: paths of the public keys. `None` when neither key is set; an
    /// empty list or an empty path still demands a signature.
    pub artifact_verify_keys: Option<Vec<String>>,
    /// `RootfsPartA`.
    pub rootfs_part_a: Option<String>,
    /// `RootfsPartB`.
    pub rootfs_part_b: Option<String>,
    /// `DeviceTypeFile`; default `<datastore>/device_type`.
    pub device_type_file: Option<String>,
    /// `ServerCertificate`: an extra CA bundle for TLS.
    pub server_certificate: Option<String>,
    /// `SkipVerify`: no verification of TLS certificates.
    pub skip_verify: bool,
    /// `DaemonLogLevel`.
    pub log_level: Option<String>,
    /// `StateScriptTimeoutSeconds`.
    pub state_script_timeout_seconds: u64,
    /// `StateScriptRetryTimeoutSeconds`: how long one script may ask to be retried.
    pub state_script_retry_timeout_seconds: u64,
    /// `StateScriptRetryIntervalSeconds`.
    pub state_script_retry_interval_seconds: u64,
    /// `DBus.Enabled`: whether other programs of the device get the token over D-Bus, where this build can do
    /// that.
    pub dbus_enabled: bool,
    /// `UpdateControlMapExpirationTimeSeconds`; default is twice `UpdatePollIntervalSeconds`. Never 0.
    pub control_map_expiration_seconds: Option<u64>,
    /// `UpdateControlMapBootExpirationTimeSeconds`: how long control maps are good after a restart. Never 0.
    pub control_map_boot_expiration_seconds: u64,
    /// `RustOta.Bootloader`.
    pub bootloader: Bootloader,
    /// `RustOta.FwEnvConfig`.
    pub fw_env_config: String,
    /// `RustOta.GrubEnvDir`; found when absent.
    pub grub_env_dir: Option<String>,
    /// `RustOta.RunningRoot`: a name of the slot that runs, where detection cannot work, best a link that is made at every
    /// boot; `None` for `auto`.
    pub running_root: Option<String>,
    /// `RustOta.RebootCommand`; `None` for the usual one.
    pub reboot_command: Option<String>,
    /// `RustOta.IdentityScript`: the program that prints the identity; default is the one of the Mender client.
    pub identity_script: Option<String>,
    /// `RustOta.StatusSocket`: where the daemon tells what it does; default is in `/run`.
    pub status_socket: Option<String>,
    /// `RustOta.PreferBuiltIn`: payload types of which the built-in handler goes before an update module.
    pub prefer_built_in: PreferBuiltIn,
    /// `RustOta.AskBefore`: the gates at which somebody on the device is asked.
    pub ask_before: Vec<String>,
    /// `RustOta.AskTimeoutSeconds`: when silence becomes a refusal; 0 for never.
    pub ask_timeout_seconds: u64,
    /// `RustOta.MaintenanceWindow`.
    pub maintenance_window: Option<MaintenanceWindow>,
    /// `RustOta.HealthCheck`.
    pub health_check: Option<HealthCheck>,
    /// `RustOta.MaxDownloadBytes`: what one deployment may cost.
    pub max_download_bytes: Option<u64>,
    /// `RustOta.DangerAcceptUnsigned`: install without a signature check when no key is configured.
    pub danger_accept_unsigned: bool,
    /// What is odd about the files, and no error: a line each, for whoever reads the log.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            // Defaults of the Mender client 5.x.
            servers: Vec::new(),
            tenant_token: String::new(),
            device_tier: None,
            update_poll_interval_seconds: 1800,
            inventory_poll_interval_seconds: 28_800,
            retry_poll_interval_seconds: 300,
            retry_poll_count: 0,
            retry_download_count: 10,
            module_timeout_seconds: 14_400,
            update_log_path: None,
            https_client: None,
            auth_private_key: None,
            artifact_verify_keys: None,
            rootfs_part_a: None,
            rootfs_part_b: None,
            device_type_file: None,
            server_certificate: None,
            skip_verify: false,
            log_level: None,
            state_script_timeout_seconds: 3600,
            state_script_retry_timeout_seconds: 1800,
            state_script_retry_interval_seconds: 60,
            dbus_enabled: true,
            control_map_expiration_seconds: None,
            control_map_boot_expiration_seconds: 600,
            bootloader: Bootloader::Auto,
            fw_env_config: "/etc/fw_env.config".into(),
            grub_env_dir: None,
            running_root: None,
            reboot_command: None,
            identity_script: None,
            status_socket: None,
            prefer_built_in: PreferBuiltIn::default(),
            ask_before: Vec::new(),
            ask_timeout_seconds: 0,
            maintenance_window: None,
            health_check: None,
            max_download_bytes: None,
            danger_accept_unsigned: false,
            warnings: Vec::new(),
        }
    }
}

/// What is wrong with a configuration file.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a JSON object.
    Malformed {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// A key that this client uses has a value of the wrong kind.
    WrongType {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
    /// What should be the address of a server cannot be asked for.
    Address {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// Why it cannot.
        reason: String,
    },
    /// One key twice, in different letter case.
    Duplicate {
        /// The file.
        file: String,
        /// The key as written the second time.
        key: String,
    },
    /// A key that there is not, where every key is this client's own.
    Unknown {
        /// The file.
        file: String,
        /// The key, with the objects it is in.
        key: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// Two keys that exclude each other.
    Conflict {
        /// One key.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A key that means nothing without another.
    Incomplete {
        /// The key that is there.
        key: &'static str,
        /// The one that is missing.
        missing: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Malformed { file, reason } => write!(f, "{file}: {reason}"),
            ConfigError::WrongType { file, key, expected } => write!(f, "{file}: {key} must be {expected}"),
            ConfigError::Address { file, key, reason } => {
                write!(f, "{file}: {key} is not the address of a server: {reason}")
            }
            ConfigError::Duplicate { file, key } => write!(f, "{file}: {key} is there twice"),
            ConfigError::Unknown { file, key, hint } => {
                write!(f, "{file}: there is no key {key}")?;
                hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
            }
            ConfigError::Conflict { one, other } => write!(f, "{one} and {other} exclude each other"),
            ConfigError::Incomplete { key, missing } => write!(f, "{key} is there and {missing} is not"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// One configuration file: its name for messages, and its content.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Name for messages.
    pub name: &'a str,
    /// The content.
    pub content: &'a [u8],
}

impl Config {
    /// Reads the configuration from `sources`; a later one wins over an earlier one, key by key.
    ///
    /// # Errors
    /// The first thing that cannot be understood.
    pub fn parse(sources: &[Source<'_>]) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut single_key: Option<String> = None;
        let mut key_list: Option<Vec<String>> = None;
        let mut server_url: Option<String> = None;
        let mut server_list: Option<Vec<String>> = None;
        let (mut certificate, mut key) = (None, None);
        for source in sources {
            let file = source.name;
            let malformed = |reason: String| ConfigError::Malformed { file: file.into(), reason };
            let document: Value = match text(source.content).map(serde_json::from_slice) {
                Ok(Ok(document)) => document,
                Ok(Err(error)) => return Err(malformed(error.to_string())),
                Err(reason) => return Err(malformed(reason.to_owned())),
            };
            let Value::Object(object) = document else { return Err(malformed("not a JSON object".into())) };
            let mut keys = Keys::new(file, "", &object, TOP)?;
            keys.warn_of_unknown(&mut config.warnings)?;
            keys.server(&mut server_url)?;
            if let Some(servers) = keys.servers()? {
                server_list = Some(servers);
            }
            keys.string("TenantToken", |v| config.tenant_token = v)?;
            let mut tier = None;
            keys.string("DeviceTier", |v| tier = Some(v))?;
            if let Some(tier) = tier {
                if !DEVICE_TIERS.contains(&tier.as_str()) {
                    return Err(keys.wrong("DeviceTier", "\"standard\", \"micro\" or \"system\""));
                }
                config.device_tier = Some(tier);
            }
            keys.interval("UpdatePollIntervalSeconds", &mut config.update_poll_interval_seconds)?;
            keys.interval("InventoryPollIntervalSeconds", &mut config.inventory_poll_interval_seconds)?;
            keys.interval("RetryPollIntervalSeconds", &mut config.retry_poll_interval_seconds)?;
            keys.count("RetryPollCount", 0..=u32::MAX, "a whole number", |v| config.retry_poll_count = v)?;
            keys.count("RetryDownloadCount", 1..=10_000, "a whole number from 1 to 10000", |v| {
                config.retry_download_count = v;
            })?;
            keys.seconds("ModuleTimeoutSeconds", |v| config.module_timeout_seconds = v)?;
            keys.string("UpdateLogPath", |v| config.update_log_path = not_empty(v))?;
            if let Some(object) = keys.object("HttpsClient")? {
                let mut keys = Keys::new(file, "HttpsClient.", object, HTTPS_CLIENT)?;
                keys.warn_of_unknown(&mut config.warnings)?;
                keys.string("Certificate", |v| certificate = not_empty(v))?;
                keys.string("Key", |v| key = not_empty(v))?;
            }
            if let Some(object) = keys.object("Security")? {
                let mut keys = Keys::new(file, "Security.", object, SECURITY)?;
                keys.warn_of_unknown(&mut config.warnings)?;
                keys.string("AuthPrivateKey", |v| config.auth_private_key = not_empty(v))?;
            }
            keys.string("ArtifactVerifyKey", |v| single_key = Some(v))?;
            keys.strings("ArtifactVerifyKeys", |v| key_list = Some(v))?;
            keys.string("RootfsPartA", |v| config.rootfs_part_a = Some(v))?;
            keys.string("RootfsPartB", |v| config.rootfs_part_b = Some(v))?;
            keys.string("DeviceTypeFile", |v| config.device_type_file = Some(v))?;
            keys.string("ServerCertificate", |v| config.server_certificate = Some(v))?;
            keys.boolean("SkipVerify", |v| config.skip_verify = v)?;
            let mut level = None;
            keys.string("DaemonLogLevel", |v| level = not_empty(v))?;
            if let Some(level) = level {
                if !LOG_LEVELS.iter().any(|known| known.eq_ignore_ascii_case(&level)) {
                    return Err(
                        keys.wrong("DaemonLogLevel", "one of trace, debug, info, warning, error and fatal")
                    );
                }
                config.log_level = Some(level);
            }
            keys.seconds("StateScriptTimeoutSeconds", |v| config.state_script_timeout_seconds = v)?;
            keys.seconds("StateScriptRetryTimeoutSeconds", |v| {
                config.state_script_retry_timeout_seconds = v;
            })?;
            keys.seconds("StateScriptRetryIntervalSeconds", |v| {
                config.state_script_retry_interval_seconds = v;
            })?;
            if let Some(object) = keys.object("DBus")? {
                let mut keys = Keys::new(file, "DBus.", object, DBUS)?;
                keys.warn_of_unknown(&mut config.warnings)?;
                keys.boolean("Enabled", |v| config.dbus_enabled = v)?;
            }
            let mut expiration = config.control_map_expiration_seconds.unwrap_or(0);
            keys.interval("UpdateControlMapExpirationTimeSeconds", &mut expiration)?;
            config.control_map_expiration_seconds = Some(expiration).filter(|seconds| *seconds > 0);
            keys.interval(
                "UpdateControlMapBootExpirationTimeSeconds",
                &mut config.control_map_boot_expiration_seconds,
            )?;
            if let Some(own) = keys.object("RustOta")? {
                let mut keys = Keys::of_our_own(file, "RustOta.", own, RUST_OTA)?;
                let mut bootloader = None;
                keys.string("Bootloader", |v| bootloader = Some(v))?;
                if let Some(name) = bootloader {
                    config.bootloader = match name.as_str() {
                        "auto" => Bootloader::Auto,
                        "uboot" => Bootloader::UBoot,
                        "grub" => Bootloader::Grub,
                        _ => return Err(keys.wrong("Bootloader", "\"uboot\", \"grub\" or \"auto\"")),
                    };
                }
                keys.string("FwEnvConfig", |v| config.fw_env_config = v)?;
                keys.string("GrubEnvDir", |v| config.grub_env_dir = Some(v))?;
                keys.string("RunningRoot", |v| config.running_root = Some(v).filter(|v| v != "auto"))?;
                keys.string("RebootCommand", |v| config.reboot_command = not_empty(v))?;
                keys.string("IdentityScript", |v| config.identity_script = not_empty(v))?;
                keys.string("StatusSocket", |v| config.status_socket = not_empty(v))?;
                if let Some(preferred) = keys.prefer_built_in()? {
                    config.prefer_built_in = preferred;
                }
                if let Some(gates) = keys.gates("AskBefore")? {
                    config.ask_before = gates;
                }
                keys.seconds("AskTimeoutSeconds", |v| config.ask_timeout_seconds = v)?;
                if let Some(window) = keys.maintenance_window()? {
                    config.maintenance_window = Some(window);
                }
                if let Some(check) = keys.health_check()? {
                    config.health_check = Some(check);
                }
                keys.take("MaxDownloadBytes", "a number of bytes", Value::as_u64, |v| {
                    config.max_download_bytes = Some(v).filter(|bytes| *bytes > 0);
                })?;
                keys.boolean("DangerAcceptUnsigned", |v| config.danger_accept_unsigned = v)?;
            }
        }
        config.artifact_verify_keys = match (single_key, key_list) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::Conflict { one: "ArtifactVerifyKey", other: "ArtifactVerifyKeys" });
            }
            (Some(key), None) => Some(vec![key]),
            (None, list) => list,
        };
        config.servers = match (server_url, server_list) {
            (Some(_), Some(_)) => return Err(ConfigError::Conflict { one: "ServerURL", other: "Servers" }),
            (Some(server), None) => vec![server],
            (None, list) => list.unwrap_or_default(),
        };
        config.https_client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (Some(_), None) => return Err(incomplete("HttpsClient.Certificate", "HttpsClient.Key")),
            (None, Some(_)) => return Err(incomplete("HttpsClient.Key", "HttpsClient.Certificate")),
            (None, None) => None,
        };
        Ok(config)
    }
}

fn incomplete(key: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::Incomplete { key, missing }
}

/// The setup program of the Mender client writes empty text for what is not set.
fn not_empty(value: String) -> Option<String> {
    Some(value).filter(|value| !value.is_empty())
}

/// The text of a file without the mark that some editors put before it.
fn text(content: &[u8]) -> Result<&[u8], &'static str> {
    match content {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("it is in UTF-16; it has to be in UTF-8"),
        content if content.trim_ascii().is_empty() => Err("it is empty; an empty configuration is {}"),
        content => Ok(content),
    }
}

/// Unknown keys that are told of.
const WARNINGS_MAX: usize = 20;
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

/// The keys of one object, looked up in any letter case.
struct Keys<'a> {
    file: &'a str,
    prefix: &'static str,
    object: &'a Map<String, Value>,
    known: &'static [&'static str],
}

impl<'a> Keys<'a> {
    fn new(
        file: &'a str,
        prefix: &'static str,
        object: &'a Map<String, Value>,
        known: &'static [&'static str],
    ) -> Result<Self, ConfigError> {
        let mut seen = std::collections::BTreeSet::new();
        for key in object.keys() {
            if !seen.insert(key.to_ascii_lowercase()) {
                return Err(ConfigError::Duplicate { file: file.into(), key: format!("{prefix}{key}") });
            }
        }
        Ok(Keys { file, prefix, object, known })
    }

    /// The keys of an object that no other client has: an unknown one is a mistake.
    fn of_our_own(
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

    /// Keys of this object that are in no list.
    fn unknown(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        let known = self.known;
        let is_known = move |key: &str| known.iter().any(|known| known.eq_ignore_ascii_case(key));
        self.object.keys().filter(move |key| !is_known(key))
    }

    /// Says what is not known here. One of our own keys in the wrong place is an error: it would mean nothing.
    fn warn_of_unknown(&self, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
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

    fn find(&self, key: &str) -> Option<&'a Value> {
        debug_assert!(self.known.contains(&key), "{}{key} is in no list", self.prefix);
        // `null` is how generators write "not set".
        let found = self.object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::WrongType { file: self.file.into(), key: format!("{}{key}", self.prefix), expected }
    }

    fn take<T>(
        &mut self,
        key: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
        set: impl FnOnce(T),
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.find(key) {
            set(convert(value).ok_or_else(|| self.wrong(key, expected))?);
        }
        Ok(())
    }

    fn string(&mut self, key: &str, set: impl FnOnce(String)) -> Result<(), ConfigError> {
        self.take(key, "a string", |value| value.as_str().map(str::to_owned), set)
    }

    fn boolean(&mut self, key: &str, set: impl FnOnce(bool)) -> Result<(), ConfigError> {
        self.take(key, "true or false", Value::as_bool, set)
    }

    fn seconds(&mut self, key: &str, set: impl FnOnce(u64)) -> Result<(), ConfigError> {
        self.take(key, "a whole number of seconds", Value::as_u64, set)
    }

    /// A time between two things that repeat. 0 leaves the default.
    fn interval(&mut self, key: &str, interval: &mut u64) -> Result<(), ConfigError> {
        self.seconds(key, |seconds| {
            if seconds > 0 {
                *interval = seconds;
            }
        })
    }

    fn count(
        &mut self,
        key: &str,
        range: RangeInclusive<u32>,
        expected: &'static str,
        set: impl FnOnce(u32),
    ) -> Result<(), ConfigError> {
        let convert = |value: &Value| {
            value
                .as_u64()
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| range.contains(number))
        };
        self.take(key, expected, convert, set)
    }

    /// An address that can be asked for. One that cannot is a mistake as much as none: a daemon that goes on with it
    /// never gets a better one.
    fn server(&mut self, url: &mut Option<String>) -> Result<(), ConfigError> {
        const KEY: &str = "ServerURL";
        self.string(KEY, |value| *url = not_empty(value))?;
        match url.as_deref().and_then(server::address_problem) {
            Some(reason) => {
                let key = format!("{}{KEY}", self.prefix);
                Err(ConfigError::Address { file: self.file.into(), key, reason })
            }
            None => Ok(()),
        }
    }

    /// The addresses of `Servers`: a list of objects with one key each. An empty list is none.
    fn servers(&mut self) -> Result<Option<Vec<String>>, ConfigError> {
        const EXPECTED: &str = "a list of objects with a ServerURL each";
        let Some(list) = self.find("Servers") else { return Ok(None) };
        let list = list.as_array().ok_or_else(|| self.wrong("Servers", EXPECTED))?;
        let mut servers = Vec::new();
        for item in list {
            let object = item.as_object().ok_or_else(|| self.wrong("Servers", EXPECTED))?;
            let mut url = None;
            Keys::new(self.file, "Servers.", object, SERVERS)?.server(&mut url)?;
            servers.push(url.ok_or_else(|| self.wrong("Servers", EXPECTED))?);
        }
        Ok(Some(servers).filter(|servers| !servers.is_empty()))
    }

    fn strings(&mut self, key: &str, set: impl FnOnce(Vec<String>)) -> Result<(), ConfigError> {
        let convert = |value: &Value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        self.take(key, "a list of strings", convert, set)
    }

    /// `true`, `false`, or a list of payload types.
    fn prefer_built_in(&mut self) -> Result<Option<PreferBuiltIn>, ConfigError> {
        let convert = |value: &Value| match (value.as_bool(), value.as_array()) {
            (Some(true), _) => Some(PreferBuiltIn::All),
            (Some(false), _) => Some(PreferBuiltIn::None),
            (None, Some(types)) => {
                let names = types.iter().map(|item| item.as_str().map(str::to_owned));
                names.collect::<Option<Vec<_>>>().map(PreferBuiltIn::These)
            }
            (None, None) => None,
        };
        let mut found = None;
        let expected = "true, false or a list of payload types";
        self.take("PreferBuiltIn", expected, convert, |preferred| found = Some(preferred))?;
        Ok(found)
    }

    /// A list of words that name gates.
    fn gates(&mut self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let mut found = None;
        self.strings(key, |v| found = Some(v))?;
        let Some(names) = found else { return Ok(None) };
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        match names.iter().all(|name| GATES.contains(&name.as_str())) {
            true => Ok(Some(names)),
            false => Err(self.wrong(key, "a list of \"download\", \"install\", \"reboot\" and \"commit\"")),
        }
    }

    fn maintenance_window(&mut self) -> Result<Option<MaintenanceWindow>, ConfigError> {
        const EXPECTED: &str = "a list of objects with From and To (HH:MM) and Days (mon to sun)";
        let Some(object) = self.object("MaintenanceWindow")? else { return Ok(None) };
        let mut keys = Keys::of_our_own(self.file, "RustOta.MaintenanceWindow.", object, MAINTENANCE_WINDOW)?;
        let list = keys.find("Times").and_then(Value::as_array).filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| keys.wrong("Times", EXPECTED))?;
        let mut times = Vec::new();
        for item in list {
            let object = item.as_object().ok_or_else(|| keys.wrong("Times", EXPECTED))?;
            let mut time = Keys::of_our_own(self.file, "RustOta.MaintenanceWindow.Times.", object, TIMES)?;
            let (mut days, mut from, mut to) = (Vec::new(), String::new(), String::new());
            time.strings("Days", |v| days = v)?;
            time.string("From", |v| from = v)?;
            time.string("To", |v| to = v)?;
            let days: Vec<&str> = days.iter().map(String::as_str).collect();
            times.push(Window::parse(&days, &from, &to).ok_or_else(|| keys.wrong("Times", EXPECTED))?);
        }
        // What disturbs the people who use the device; the download does not.
        let before = keys.gates("Before")?.unwrap_or_else(|| vec!["install".into(), "reboot".into()]);
        let mut utc = false;
        keys.boolean("Utc", |v| utc = v)?;
        Ok(Some(MaintenanceWindow { times, before, utc }))
    }

    fn health_check(&mut self) -> Result<Option<HealthCheck>, ConfigError> {
        let Some(object) = self.object("HealthCheck")? else { return Ok(None) };
        let mut keys = Keys::of_our_own(self.file, "RustOta.HealthCheck.", object, HEALTH_CHECK)?;
        let mut check = HealthCheck {
            commands: Vec::new(),
            units: Vec::new(),
            timeout_seconds: 300,
            interval_seconds: 5,
        };
        keys.strings("Commands", |v| check.commands = v)?;
        keys.strings("Units", |v| check.units = v)?;
        keys.seconds("TimeoutSeconds", |v| check.timeout_seconds = v)?;
        keys.interval("IntervalSeconds", &mut check.interval_seconds)?;
        // An empty check would look like one that passes.
        match check.commands.is_empty() && check.units.is_empty() {
            true => Err(self.wrong("HealthCheck", "an object with Commands or Units")),
            false => Ok(Some(check)),
        }
    }

    fn object(&mut self, key: &str) -> Result<Option<&'a Map<String, Value>>, ConfigError> {
        let mut found = None;
        self.take(key, "an object", Value::as_object, |object| found = Some(object))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(documents: &[&str]) -> Result<Config, String> {
        let sources: Vec<Source> =
            documents.iter().map(|text| Source { name: "test.conf", content: text.as_bytes() }).collect();
        Config::parse(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn the_main_file_wins_key_by_key_in_any_letter_case() {
        let config = parse(&[
            r#"{"RootfsPartA":"/dev/a1","rootfspartb":"/dev/a2","Unknown":[1]}"#,
            r#"{"ROOTFSPARTA":"/dev/b1","rustota":{"bootloader":"grub","RunningRoot":"auto"}}"#,
        ])
        .unwrap();
        assert_eq!(config.rootfs_part_a.as_deref(), Some("/dev/b1"));
        assert_eq!(config.rootfs_part_b.as_deref(), Some("/dev/a2"));
        assert_eq!((config.bootloader, config.running_root), (Bootloader::Grub, None));
    }

    #[test]
    fn a_known_key_of_the_wrong_type_is_refused_by_name() {
        let check = |document: &str, expected: &str| {
            let error = parse(&[document]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(r#"{"ArtifactVerifyKey":["k"]}"#, "ArtifactVerifyKey must be a string");
        check(r#"{"ArtifactVerifyKeys":"k"}"#, "ArtifactVerifyKeys must be a list of strings");
        check(r#"{"ArtifactVerifyKeys":["k",1]}"#, "ArtifactVerifyKeys must be a list of strings");
        check(r#"{"RustOta":{"Bootloader":"lilo"}}"#, "RustOta.Bootloader must be");
        check(r#"{"RustOta":{"DangerAcceptUnsigned":"yes"}}"#, "RustOta.DangerAcceptUnsigned must be true");
        check(r#"{"StateScriptTimeoutSeconds":-1}"#, "a whole number of seconds");
        check(r#"{"RootfsPartA":"x","rootfsparta":"y"}"#, "is there twice");
        check(r#"{"RootfsPartA":"x""#, "test.conf: EOF");
        check("[]", "not a JSON object");
        check(r#"{"DeviceTier":"large"}"#, "DeviceTier must be \"standard\"");
        check(r#"{"RetryDownloadCount":0}"#, "from 1 to 10000");
        check(r#"{"RetryDownloadCount":10001}"#, "from 1 to 10000");
        check(r#"{"RetryPollCount":-1}"#, "a whole number");
        check(r#"{"UpdatePollIntervalSeconds":"1800"}"#, "a whole number of seconds");
        check(r#"{"Security":"key"}"#, "Security must be an object");
        check(r#"{"DaemonLogLevel":"loud"}"#, "DaemonLogLevel must be one of trace");
        check(r#"{"TenantToken":7}"#, "TenantToken must be a string");
    }

    #[test]
    fn the_daemon_has_the_defaults_of_the_mender_client() {
        let config = parse(&["{}"]).unwrap();
        let intervals = |config: &Config| {
            let Config { update_poll_interval_seconds: update, .. } = config;
            (*update, config.inventory_poll_interval_seconds, config.retry_poll_interval_seconds)
        };
        assert_eq!(intervals(&config), (1800, 28_800, 300));
        assert_eq!((config.retry_poll_count, config.retry_download_count), (0, 10));
        assert_eq!(config.module_timeout_seconds, 14_400);
        let zero = r#"{"UpdatePollIntervalSeconds":0,"InventoryPollIntervalSeconds":0,"RetryPollIntervalSeconds":0}"#;
        assert_eq!(intervals(&parse(&[zero]).unwrap()), (1800, 28_800, 300));
        let five = zero.replace(":0", ":5");
        assert_eq!(intervals(&parse(&[&five]).unwrap()), (5, 5, 5));
        assert_eq!(parse(&[r#"{"RetryDownloadCount":10000}"#]).unwrap().retry_download_count, 10_000);
    }

    #[test]
    fn the_bus_is_used_unless_it_is_switched_off() {
        let config = parse(&["{}"]).unwrap();
        let expirations = |config: &Config| {
            (config.control_map_expiration_seconds, config.control_map_boot_expiration_seconds)
        };
        assert!(config.dbus_enabled && parse(&[r#"{"DBus":{}}"#]).unwrap().dbus_enabled);
        assert_eq!(expirations(&config), (None, 600));
        let config = parse(&[
            r#"{"dbus":{"enabled":false},"UpdateControlMapExpirationTimeSeconds":90}"#,
            r#"{"UpdateControlMapBootExpirationTimeSeconds":45}"#,
        ]);
        let config = config.unwrap();
        assert!(!config.dbus_enabled);
        assert_eq!(expirations(&config), (Some(90), 45));
        assert!(parse(&[r#"{"DBus":{"Enabled":"no"}}"#]).unwrap_err().contains("DBus.Enabled"));
    }

    #[test]
    fn servers_are_one_or_a_list() {
        let check = |document: &str, expected: &[&str]| {
            assert_eq!(parse(&[document]).unwrap().servers, expected, "{document}");
        };
        check(r#"{"ServerURL":"https://a"}"#, &["https://a"]);
        check(
            r#"{"servers":[{"serverurl":"https://a"},{"ServerURL":"https://b"}]}"#,
            &["https://a", "https://b"],
        );
        check(r#"{"ServerURL":"","Servers":[{"ServerURL":"https://a"}]}"#, &["https://a"]);
        check(r#"{"ServerURL":"https://a","Servers":[]}"#, &["https://a"]);
        check("{}", &[]);
        let both = parse(&[r#"{"ServerURL":"https://a"}"#, r#"{"Servers":[{"ServerURL":"https://b"}]}"#]);
        assert!(both.unwrap_err().contains("ServerURL and Servers exclude each other"));
        for wrong in [r#"["https://a"]"#, r#"[{}]"#, r#"{"ServerURL":"https://a"}"#, r#"[{"ServerURL":1}]"#] {
            let error = parse(&[&format!(r#"{{"Servers":{wrong}}}"#)]).unwrap_err();
            assert!(error.contains("Servers"), "{error}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_asked_for_is_no_server() {
        for (wrong, why) in [
            ("ht tp://host", "ht tp:// is neither http:// nor https://"),
            ("ftp://host", "ftp:// is neither"),
            ("http://", "there is no host in it"),
            ("http://host:999999", "its port is no number"),
            ("host:port", "its port is no number"),
            ("https://host/a b", "a blank in it"),
            ("https://h\\u001b[31m", "it has the character"),
        ] {
            for (key, document) in [
                ("ServerURL", format!(r#"{{"ServerURL":"{wrong}"}}"#)),
                (
                    "Servers.ServerURL",
                    format!(r#"{{"Servers":[{{"ServerURL":"https://a"}},{{"ServerURL":"{wrong}"}}]}}"#),
                ),
            ] {
                let error = parse(&[&document]).unwrap_err();
                assert!(error.contains(&format!("{key} is not the address of a server: ")), "{error}");
                assert!(error.contains(why) && !error.contains('\u{1b}'), "{error}");
            }
        }
        for right in ["host", " https://host:8443/base/ ", "HTTP://[::1]:80", "https://user:word@host"] {
            assert!(parse(&[&format!(r#"{{"ServerURL":"{right}"}}"#)]).is_ok(), "{right}");
        }
    }

    #[test]
    fn keys_and_certificates_come_together() {
        let config = parse(&[
            r#"{"HttpsClient":{"Certificate":"c","Key":"old"},"Security":{"AuthPrivateKey":"a"}}"#,
            r#"{"httpsclient":{"key":"k","SSLEngine":"pkcs11"},"RustOta":{"IdentityScript":"i","StatusSocket":"s"}}"#,
        ])
        .unwrap();
        let expected = ClientCertificate { certificate: "c".into(), key: "k".into() };
        assert_eq!(config.https_client, Some(expected));
        assert_eq!(config.auth_private_key.as_deref(), Some("a"));
        assert_eq!(
            (config.identity_script.as_deref(), config.status_socket.as_deref()),
            (Some("i"), Some("s"))
        );
        let error = parse(&[r#"{"HttpsClient":{"Key":"k","Certificate":""}}"#]).unwrap_err();
        assert_eq!(error, "HttpsClient.Key is there and HttpsClient.Certificate is not");
        assert!(parse(&[r#"{"HttpsClient":{"Certificate":"c"}}"#]).is_err());
        assert_eq!(parse(&[r#"{"HttpsClient":{},"Security":{}}"#]).unwrap().https_client, None);
    }

    #[test]
    fn verification_cannot_be_turned_off_by_a_muddle_of_keys() {
        let both = parse(&[r#"{"ArtifactVerifyKey":"a"}"#, r#"{"ArtifactVerifyKeys":["b"]}"#]);
        assert!(both.unwrap_err().contains("exclude each other"));
        assert_eq!(parse(&[r#"{"ArtifactVerifyKeys":[]}"#]).unwrap().artifact_verify_keys, Some(vec![]));
        assert_eq!(parse(&["{}"]).unwrap().artifact_verify_keys, None);
    }

    #[test]
    fn an_unknown_key_of_our_own_is_an_error_that_names_the_nearest() {
        let check = |text: &str, expected: &str| {
            let error = own(text).unwrap_err();
            assert!(
                error.starts_with("test.conf: there is no key RustOta.") && error.contains(expected),
                "{error}"
            );
        };
        check(
            r#"{"HealthChek":{"Commands":["true"]}}"#,
            "key RustOta.HealthChek; is RustOta.HealthCheck meant?",
        );
        check(r#"{"healthcheck ":{}}"#, "is RustOta.HealthCheck meant?");
        check(r#"{"DangerAcceptUnsinged":true}"#, "is RustOta.DangerAcceptUnsigned meant?");
        check(
            r#"{"HealthCheck":{"Command":["true"],"Units":["a"]}}"#,
            "is RustOta.HealthCheck.Commands meant?",
        );
        check(r#"{"HealthCheck":{"Commands":["true"],"Timeout":9}}"#, "key RustOta.HealthCheck.Timeout");
        let window = r#"{"MaintenanceWindow":{"Times":[{"From":"01:00","To":"02:00"}],"UTC ":true}}"#;
        check(window, "is RustOta.MaintenanceWindow.Utc meant?");
        let times = r#"{"MaintenanceWindow":{"Times":[{"From":"01:00","To":"02:00","Day":["mon"]}]}}"#;
        check(times, "is RustOta.MaintenanceWindow.Times.Days meant?");
        check(r#"{"DeviceTypeFile":"x"}"#, "DeviceTypeFile stands beside RustOta, not in it");
        check(r#"{"Unheard\nof":null}"#, "RustOta.Unheard\\nof");
        assert!(!own(r#"{"Xyzzy":1}"#).unwrap_err().contains("meant"));
        // Any letter case is the same key.
        assert!(own(r#"{"HEALTHCHECK":{"COMMANDS":["true"]}}"#).unwrap().health_check.is_some());
        // Beside its object it would mean nothing.
        let error = parse(&[r#"{"healthCheck":{"Commands":["true"]}}"#]).unwrap_err();
        assert!(error.contains("HealthCheck belongs into the object RustOta"), "{error}");
    }

    #[test]
    fn an_unknown_key_of_others_is_a_warning() {
        let check = |text: &str, expected: &[&str]| {
            let warnings = parse(&[text]).unwrap().warnings;
            assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
            assert!(warnings.iter().zip(expected).all(|(found, part)| found.contains(part)), "{warnings:?}");
        };
        check(
            r#"{"RootfsPartA":"x","Connectivity":{},"bootutilitiessetactivepart":"x","ClientProtocol":"https"}"#,
            &[],
        );
        check(r#"{"ServerUrl":"https://a","Security":{"SSLEngine":"x"}}"#, &[]);
        check(
            r#"{"ArtifactVerfyKey":"x"}"#,
            &["ArtifactVerfyKey is not known and ignored; is ArtifactVerifyKey meant?"],
        );
        check(
            r#"{"Xyzzy":1,"DBus":{"Enable":false}}"#,
            &["the key Xyzzy is not known", "is DBus.Enabled meant?"],
        );
        let many: Vec<String> = (0..100).map(|at| format!("\"{}\":1", "x".repeat(70 + at))).collect();
        assert_eq!(parse(&[&format!("{{{}}}", many.join(","))]).unwrap().warnings.len(), WARNINGS_MAX);
    }

    #[test]
    fn a_mark_of_the_byte_order_is_no_mistake() {
        let config = parse(&["\u{feff}{\"RootfsPartA\":\"x\"}"]).unwrap();
        assert_eq!(config.rootfs_part_a.as_deref(), Some("x"));
        let source = Source { name: "test.conf", content: b"\xff\xfe{\0}\0" };
        assert!(Config::parse(&[source]).unwrap_err().to_string().contains("UTF-16"));
        assert!(parse(&[" \n"]).unwrap_err().contains("it is empty"));
    }

    #[test]
    fn every_key_is_in_the_document() {
        let page = include_str!("../../../docs/configuration.md");
        let own = RUST_OTA.iter().map(|key| format!("RustOta.{key}"));
        let nested: [(&str, &[&str]); 6] = [
            ("HttpsClient.", HTTPS_CLIENT),
            ("Security.", SECURITY),
            ("DBus.", DBUS),
            ("RustOta.MaintenanceWindow.", MAINTENANCE_WINDOW),
            ("RustOta.MaintenanceWindow.Times.", TIMES),
            ("RustOta.HealthCheck.", HEALTH_CHECK),
        ];
        let nested =
            nested.iter().flat_map(|(prefix, keys)| keys.iter().map(move |key| format!("{prefix}{key}")));
        let top = TOP.iter().chain(IGNORED).map(|key| (*key).to_owned());
        for key in top.filter(|key| key != "RustOta").chain(own).chain(nested) {
            let row = page.lines().any(|line| line.starts_with(&format!("| `{key}` |")));
            assert!(row, "docs/configuration.md has no row for {key}");
        }
    }

    fn own(text: &str) -> Result<Config, String> {
        parse(&[&format!(r#"{{"RustOta":{text}}}"#)])
    }

    #[test]
    fn gates_are_configured_in_words() {
        let config = own(r#"{"AskBefore":["Install","commit"],"AskTimeoutSeconds":60,"MaxDownloadBytes":5,
                "MaintenanceWindow":{"Times":[{"From":"01:00","To":"02:00"}]},
                "HealthCheck":{"Units":["app.service"],"TimeoutSeconds":9}}"#)
        .unwrap();
        assert_eq!(
            (config.ask_before.as_slice(), config.ask_timeout_seconds),
            (&["install".to_owned(), "commit".into()][..], 60)
        );
        assert_eq!(config.max_download_bytes, Some(5));
        let window = config.maintenance_window.unwrap();
        assert_eq!(
            (window.times.len(), window.before, window.utc),
            (1, vec!["install".to_owned(), "reboot".into()], false)
        );
        let check = config.health_check.unwrap();
        assert_eq!((check.units.len(), check.timeout_seconds, check.interval_seconds), (1, 9, 5));
        assert_eq!(own(r#"{"MaxDownloadBytes":0}"#).unwrap().max_download_bytes, None);
    }

    #[test]
    fn a_gate_that_cannot_be_understood_is_an_error_and_not_no_gate() {
        for (text, key) in [
            (r#"{"AskBefore":["instal"]}"#, "AskBefore"),
            (r#"{"AskBefore":"install"}"#, "AskBefore"),
            (r#"{"MaintenanceWindow":{}}"#, "Times"),
            (r#"{"MaintenanceWindow":{"Times":[]}}"#, "Times"),
            (r#"{"MaintenanceWindow":{"Times":[{"From":"01:00"}]}}"#, "Times"),
            (
                r#"{"MaintenanceWindow":{"Times":[{"From":"01:00","To":"02:00"}],"Before":["boot"]}}"#,
                "Before",
            ),
            (r#"{"HealthCheck":{}}"#, "HealthCheck"),
            (r#"{"HealthCheck":{"Commands":"true"}}"#, "Commands"),
            (r#"{"MaxDownloadBytes":-1}"#, "MaxDownloadBytes"),
        ] {
            let error = own(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn built_in_handlers_are_preferred_by_name_or_as_a_whole() {
        let preferred = |text: &str| own(text).unwrap().prefer_built_in;
        assert!(!preferred("{}").includes("directory"));
        assert!(preferred(r#"{"PreferBuiltIn":true}"#).includes("directory"));
        assert!(!preferred(r#"{"PreferBuiltIn":false}"#).includes("directory"));
        let one = preferred(r#"{"PreferBuiltIn":["directory"]}"#);
        assert!(one.includes("directory") && !one.includes("script"));
        assert!(own(r#"{"PreferBuiltIn":"directory"}"#).unwrap_err().contains("PreferBuiltIn"));
    }
}
