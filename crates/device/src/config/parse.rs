//! From the files to the [`Config`]: a function for each object in them.

use std::time::Duration;

use client_core::deploy::gates::{Gate, HealthCheck, MaintenanceWindow, Window};
use client_core::install::PreferBuiltIn;
use linux::boot_env::Bootloader;
use serde_json::Value;

use super::keys::{
    DBUS, HEALTH_CHECK, HTTPS_CLIENT, Keys, MAINTENANCE_WINDOW, RUST_OTA, SECURITY, SERVERS, TIMES, TOP,
    strings,
};
use super::{ClientCertificate, Config, ConfigError, Source, monitor};

/// What a `DeviceTier` may be.
const DEVICE_TIERS: [&str; 3] = ["standard", "micro", "system"];
/// What a `DaemonLogLevel` may be.
const LOG_LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "warn", "error", "fatal"];

impl Config {
    /// Reads the configuration from `sources`; a later one wins over an earlier one, key by key.
    ///
    /// # Errors
    /// The first thing that cannot be understood.
    pub fn parse(sources: &[Source<'_>]) -> Result<Config, ConfigError> {
        let mut draft = Draft::default();
        for source in sources {
            draft.read(source)?;
        }
        draft.finish()
    }
}

/// What was read so far: the configuration, and what becomes a part of it only together with something else.
#[derive(Default)]
struct Draft {
    config: Config,
    server: Option<String>,
    servers: Option<Vec<String>>,
    verify_key: Option<String>,
    verify_keys: Option<Vec<String>>,
    certificate: Option<String>,
    certificate_key: Option<String>,
}

/// Puts what was found in its place.
fn set<T>(place: &mut T, found: Option<T>) {
    if let Some(found) = found {
        *place = found;
    }
}

impl Draft {
    fn read(&mut self, source: &Source<'_>) -> Result<(), ConfigError> {
        let malformed = |reason: String| ConfigError::Malformed { file: source.name.into(), reason };
        let content = text(source.content).map_err(|reason| malformed(reason.to_owned()))?;
        let document = serde_json::from_slice(content).map_err(|error| malformed(error.to_string()))?;
        let Value::Object(object) = document else { return Err(malformed("not a JSON object".into())) };
        let keys = Keys::new(source.name, "", &object, TOP)?;
        keys.warn_of_unknown(&mut self.config.warnings)?;
        self.servers(&keys)?;
        self.patience(&keys)?;
        self.credentials(&keys)?;
        self.device(&keys)?;
        self.scripts(&keys)?;
        self.bus(&keys)?;
        match keys.own_object("RustOta", "RustOta.", RUST_OTA)? {
            Some(keys) => self.rust_ota(&keys),
            None => Ok(()),
        }
    }

    /// Who is talked to, and as whom.
    fn servers(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        set(&mut self.server, keys.server()?);
        set(&mut self.servers, servers(keys)?.map(Some));
        let config = &mut self.config;
        set(&mut config.tenant_token, keys.string("TenantToken")?);
        let tier = keys.word("DeviceTier", "\"standard\", \"micro\" or \"system\"", |word| {
            DEVICE_TIERS.contains(&word).then(|| word.to_owned())
        });
        set(&mut config.device_tier, tier?.map(Some));
        Ok(())
    }

    /// How often, and how long.
    fn patience(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let config = &mut self.config;
        set(&mut config.update_poll_interval, keys.interval("UpdatePollIntervalSeconds")?);
        set(&mut config.inventory_poll_interval, keys.interval("InventoryPollIntervalSeconds")?);
        set(&mut config.retry_poll_interval, keys.interval("RetryPollIntervalSeconds")?);
        let count = keys.count("RetryPollCount", 0..=u32::MAX, "a whole number");
        set(&mut config.retry_poll_count, count?);
        let count = keys.count("RetryDownloadCount", 1..=10_000, "a whole number from 1 to 10000");
        set(&mut config.retry_download_count, count?);
        set(&mut config.module_timeout, keys.seconds("ModuleTimeoutSeconds")?);
        set(&mut config.update_log_path, keys.string_or_none("UpdateLogPath")?);
        Ok(())
    }

    /// What this device shows, and what it believes.
    fn credentials(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let warnings = &mut self.config.warnings;
        if let Some(client) = keys.shared_object("HttpsClient", "HttpsClient.", HTTPS_CLIENT, warnings)? {
            set(&mut self.certificate, client.string_or_none("Certificate")?);
            set(&mut self.certificate_key, client.string_or_none("Key")?);
        }
        if let Some(security) = keys.shared_object("Security", "Security.", SECURITY, warnings)? {
            set(&mut self.config.auth_private_key, security.string_or_none("AuthPrivateKey")?);
        }
        set(&mut self.verify_key, keys.string("ArtifactVerifyKey")?.map(Some));
        set(&mut self.verify_keys, keys.strings("ArtifactVerifyKeys")?.map(Some));
        Ok(())
    }

    /// What this device has.
    fn device(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let config = &mut self.config;
        set(&mut config.rootfs_part_a, keys.string("RootfsPartA")?.map(Some));
        set(&mut config.rootfs_part_b, keys.string("RootfsPartB")?.map(Some));
        set(&mut config.device_type_file, keys.string("DeviceTypeFile")?.map(Some));
        set(&mut config.server_certificate, keys.string("ServerCertificate")?.map(Some));
        set(&mut config.skip_verify, keys.boolean("SkipVerify")?);
        let known = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        let level =
            keys.word("DaemonLogLevel", "one of trace, debug, info, warning, error and fatal", |word| {
                match word {
                    "" => Some(None),
                    word => known(word).then(|| Some(word.to_owned())),
                }
            })?;
        set(&mut config.log_level, level.flatten().map(Some));
        Ok(())
    }

    fn scripts(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let config = &mut self.config;
        set(&mut config.state_script_timeout, keys.seconds("StateScriptTimeoutSeconds")?);
        set(&mut config.state_script_retry_timeout, keys.seconds("StateScriptRetryTimeoutSeconds")?);
        set(&mut config.state_script_retry_interval, keys.seconds("StateScriptRetryIntervalSeconds")?);
        Ok(())
    }

    /// What other programs of the device may do.
    fn bus(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let config = &mut self.config;
        if let Some(bus) = keys.shared_object("DBus", "DBus.", DBUS, &mut config.warnings)? {
            set(&mut config.dbus_enabled, bus.boolean("Enabled")?);
        }
        let lifetime = keys.interval("UpdateControlMapExpirationTimeSeconds")?;
        set(&mut config.control_map_expiration, lifetime.map(Some));
        let after_start = keys.interval("UpdateControlMapBootExpirationTimeSeconds")?;
        set(&mut config.control_map_boot_expiration, after_start);
        Ok(())
    }

    /// The keys that only this client has.
    fn rust_ota(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let config = &mut self.config;
        let bootloader = keys.word("Bootloader", "\"uboot\", \"grub\" or \"auto\"", |word| match word {
            "auto" => Some(Bootloader::Auto),
            "uboot" => Some(Bootloader::UBoot),
            "grub" => Some(Bootloader::Grub),
            _ => None,
        });
        set(&mut config.bootloader, bootloader?);
        set(&mut config.fw_env_config, keys.string("FwEnvConfig")?);
        set(&mut config.grub_env_dir, keys.string("GrubEnvDir")?.map(Some));
        let running = keys.string("RunningRoot")?;
        set(&mut config.running_root, running.map(|name| Some(name).filter(|name| name != "auto")));
        set(&mut config.reboot_command, keys.string_or_none("RebootCommand")?);
        set(&mut config.identity_script, keys.string_or_none("IdentityScript")?);
        set(&mut config.status_socket, keys.string_or_none("StatusSocket")?);
        set(&mut config.prefer_built_in, prefer_built_in(keys)?);
        self.gates(keys)?;
        let rules = monitor::rules(keys, &mut self.config.warnings)?;
        set(&mut self.config.monitor, rules.map(Some));
        let budget = keys.read("MaxDownloadBytes", "a number of bytes", Value::as_u64)?;
        set(&mut self.config.max_download_bytes, budget.map(|bytes| Some(bytes).filter(|bytes| *bytes > 0)));
        set(&mut self.config.discard_behind_image, keys.boolean("DiscardBehindImage")?);
        set(&mut self.config.danger_accept_unsigned, keys.boolean("DangerAcceptUnsigned")?);
        Ok(())
    }

    fn gates(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let gates = &mut self.config.gates;
        set(&mut gates.ask_before, keys.gates("AskBefore")?);
        let patience = keys.seconds("AskTimeoutSeconds")?;
        set(&mut gates.ask_timeout, patience.map(|patience| Some(patience).filter(|time| !time.is_zero())));
        set(&mut gates.window, maintenance_window(keys)?.map(Some));
        set(&mut gates.health, health_check(keys)?.map(Some));
        Ok(())
    }

    /// Puts together what belongs together.
    fn finish(self) -> Result<Config, ConfigError> {
        let artifact_verify_keys = match (self.verify_key, self.verify_keys) {
            (Some(_), Some(_)) => return Err(conflict("ArtifactVerifyKey", "ArtifactVerifyKeys")),
            (Some(key), None) => Some(vec![key]),
            (None, list) => list,
        };
        let servers = match (self.server, self.servers) {
            (Some(_), Some(_)) => return Err(conflict("ServerURL", "Servers")),
            (Some(server), None) => vec![server],
            (None, list) => list.unwrap_or_default(),
        };
        let https_client = match (self.certificate, self.certificate_key) {
            (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
            (Some(_), None) => return Err(incomplete("HttpsClient.Certificate", "HttpsClient.Key")),
            (None, Some(_)) => return Err(incomplete("HttpsClient.Key", "HttpsClient.Certificate")),
            (None, None) => None,
        };
        Ok(Config { artifact_verify_keys, servers, https_client, ..self.config })
    }
}

/// The addresses of `Servers`: a list of objects with one key each. An empty list is none.
fn servers(keys: &Keys<'_>) -> Result<Option<Vec<String>>, ConfigError> {
    let wrong = || keys.wrong("Servers", "a list of objects with a ServerURL each");
    let Some(list) = keys.find("Servers") else { return Ok(None) };
    let mut servers = Vec::new();
    for item in list.as_array().ok_or_else(wrong)? {
        let object = item.as_object().ok_or_else(wrong)?;
        let url = Keys::new(keys.file, "Servers.", object, SERVERS)?.server()?;
        servers.push(url.flatten().ok_or_else(wrong)?);
    }
    Ok(Some(servers).filter(|servers| !servers.is_empty()))
}

/// `true`, `false`, or a list of payload types.
fn prefer_built_in(keys: &Keys<'_>) -> Result<Option<PreferBuiltIn>, ConfigError> {
    keys.read("PreferBuiltIn", "true, false or a list of payload types", |value| match value.as_bool() {
        Some(true) => Some(PreferBuiltIn::All),
        Some(false) => Some(PreferBuiltIn::None),
        None => strings(value).map(PreferBuiltIn::These),
    })
}

fn maintenance_window(keys: &Keys<'_>) -> Result<Option<MaintenanceWindow>, ConfigError> {
    const PREFIX: &str = "RustOta.MaintenanceWindow.";
    let Some(keys) = keys.own_object("MaintenanceWindow", PREFIX, MAINTENANCE_WINDOW)? else {
        return Ok(None);
    };
    let wrong = || keys.wrong("Times", "a list of objects with From and To (HH:MM) and Days (mon to sun)");
    let list = keys.find("Times").and_then(Value::as_array).filter(|list| !list.is_empty());
    let mut times = Vec::new();
    for item in list.ok_or_else(wrong)? {
        let object = item.as_object().ok_or_else(wrong)?;
        let time = Keys::of_our_own(keys.file, "RustOta.MaintenanceWindow.Times.", object, TIMES)?;
        times.push(window(&time)?.ok_or_else(wrong)?);
    }
    // What disturbs the people who use the device; the download does not.
    let before = keys.gates("Before")?.unwrap_or_else(|| vec![Gate::Install, Gate::Reboot]);
    let utc = keys.boolean("Utc")?.unwrap_or(false);
    Ok(Some(MaintenanceWindow { times, before, utc }))
}

/// One of the times; `None` where it is none.
fn window(keys: &Keys<'_>) -> Result<Option<Window>, ConfigError> {
    let days = keys.strings("Days")?.unwrap_or_default();
    let (from, to) = (keys.string("From")?.unwrap_or_default(), keys.string("To")?.unwrap_or_default());
    let days: Vec<&str> = days.iter().map(String::as_str).collect();
    Ok(Window::parse(&days, &from, &to))
}

fn health_check(keys: &Keys<'_>) -> Result<Option<HealthCheck>, ConfigError> {
    let Some(own) = keys.own_object("HealthCheck", "RustOta.HealthCheck.", HEALTH_CHECK)? else {
        return Ok(None);
    };
    let check = HealthCheck {
        commands: own.strings("Commands")?.unwrap_or_default(),
        units: own.strings("Units")?.unwrap_or_default(),
        timeout: own.seconds("TimeoutSeconds")?.unwrap_or(Duration::from_secs(300)),
        interval: own.interval("IntervalSeconds")?.unwrap_or(Duration::from_secs(5)),
    };
    // An empty check would look like one that passes.
    match check.commands.is_empty() && check.units.is_empty() {
        true => Err(keys.wrong("HealthCheck", "an object with Commands or Units")),
        false => Ok(Some(check)),
    }
}

fn conflict(one: &'static str, other: &'static str) -> ConfigError {
    ConfigError::Conflict { one, other }
}

fn incomplete(key: &'static str, missing: &'static str) -> ConfigError {
    ConfigError::Incomplete { key, missing }
}

/// The text of a file without the mark that some editors put before it.
pub(super) fn text(content: &[u8]) -> Result<&[u8], &'static str> {
    match content {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(rest),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("it is in UTF-16; it has to be in UTF-8"),
        content if content.trim_ascii().is_empty() => Err("it is empty; an empty configuration is {}"),
        content => Ok(content),
    }
}
