//! `mender.conf`: the keys this client uses, from one or two JSON documents.
//!
//! Keys are matched in any letter case, and the main file wins over the fallback key by key, as in the Mender client. A
//! known key with a value of the wrong type is an error: a configuration that cannot be understood must not quietly
//! mean "no verification key". So is an unknown key inside `RustOta`: a misspelt health check must not be none. Other
//! unknown keys may be those of another client, and are a warning. Reads no files.

mod keys;
mod monitor;
mod parse;

pub use keys::{SetKey, set_keys};

use std::fmt;
use std::time::Duration;

use client_core::deploy::gates::GateRules;
use client_core::install::PreferBuiltIn;
use client_core::monitor::Rules;
use linux::boot_env::Bootloader;

/// A certificate to show to servers that ask for one, and its private key: paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `HttpsClient.Certificate`: the chain, the device's own certificate first.
    pub certificate: String,
    /// `HttpsClient.Key`.
    pub key: String,
}

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
    pub update_poll_interval: Duration,
    /// `InventoryPollIntervalSeconds`. Never 0, likewise.
    pub inventory_poll_interval: Duration,
    /// `RetryPollIntervalSeconds`: the longest wait between two attempts. Never 0, likewise.
    pub retry_poll_interval: Duration,
    /// `RetryPollCount`: attempts in all; 0 means three at the longest wait.
    pub retry_poll_count: u32,
    /// `RetryDownloadCount`: attempts to go on with a download.
    pub retry_download_count: u32,
    /// `ModuleTimeoutSeconds`: one call of an update module.
    pub module_timeout: Duration,
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
    pub state_script_timeout: Duration,
    /// `StateScriptRetryTimeoutSeconds`: how long one script may ask to be retried.
    pub state_script_retry_timeout: Duration,
    /// `StateScriptRetryIntervalSeconds`.
    pub state_script_retry_interval: Duration,
    /// `DBus.Enabled`: whether other programs of the device get the token over D-Bus, where this build can do
    /// that.
    pub dbus_enabled: bool,
    /// `UpdateControlMapExpirationTimeSeconds`; default is twice `UpdatePollIntervalSeconds`. Never 0.
    pub control_map_expiration: Option<Duration>,
    /// `UpdateControlMapBootExpirationTimeSeconds`: how long control maps are good after a restart. Never 0.
    pub control_map_boot_expiration: Duration,
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
    /// `RustOta.AskBefore`, `AskTimeoutSeconds`, `MaintenanceWindow` and `HealthCheck`: what may hold a deployment up.
    pub gates: GateRules,
    /// `RustOta.MaxDownloadBytes`: what one deployment may cost.
    pub max_download_bytes: Option<u64>,
    /// `RustOta.DiscardBehindImage`: let the medium forget what lies in a slot behind its image.
    pub discard_behind_image: bool,
    /// `RustOta.DangerAcceptUnsigned`: install without a signature check when no key is configured.
    pub danger_accept_unsigned: bool,
    /// `RustOta.Monitor`: what is watched.
    pub monitor: Option<Rules>,
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
            update_poll_interval: Duration::from_secs(1800),
            inventory_poll_interval: Duration::from_secs(28_800),
            retry_poll_interval: Duration::from_secs(300),
            retry_poll_count: 0,
            retry_download_count: 10,
            module_timeout: Duration::from_secs(14_400),
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
            state_script_timeout: Duration::from_secs(3600),
            state_script_retry_timeout: Duration::from_secs(1800),
            state_script_retry_interval: Duration::from_secs(60),
            dbus_enabled: true,
            control_map_expiration: None,
            control_map_boot_expiration: Duration::from_secs(600),
            bootloader: Bootloader::Auto,
            fw_env_config: "/etc/fw_env.config".into(),
            grub_env_dir: None,
            running_root: None,
            reboot_command: None,
            identity_script: None,
            status_socket: None,
            prefer_built_in: PreferBuiltIn::default(),
            gates: GateRules::default(),
            max_download_bytes: None,
            discard_behind_image: false,
            danger_accept_unsigned: false,
            monitor: None,
            warnings: Vec::new(),
        }
    }
}

/// What is wrong with a configuration file.
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

client_core::artifact::debug_as_displayed!(ConfigError);

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

#[cfg(test)]
mod tests {
    use client_core::deploy::gates::Gate;

    use super::keys::{
        CHECKS, DBUS, HEALTH_CHECK, HTTPS_CLIENT, IGNORED, MAINTENANCE_WINDOW, MONITOR, RUST_OTA, SECURITY,
        TIMES, TOP, WARNINGS_MAX,
    };
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
            [config.update_poll_interval, config.inventory_poll_interval, config.retry_poll_interval]
                .map(|interval| interval.as_secs())
        };
        assert_eq!(intervals(&config), [1800, 28_800, 300]);
        assert_eq!((config.retry_poll_count, config.retry_download_count), (0, 10));
        assert_eq!(config.module_timeout, Duration::from_secs(14_400));
        let zero = r#"{"UpdatePollIntervalSeconds":0,"InventoryPollIntervalSeconds":0,"RetryPollIntervalSeconds":0}"#;
        assert_eq!(intervals(&parse(&[zero]).unwrap()), [1800, 28_800, 300]);
        let five = zero.replace(":0", ":5");
        assert_eq!(intervals(&parse(&[&five]).unwrap()), [5, 5, 5]);
        assert_eq!(parse(&[r#"{"RetryDownloadCount":10000}"#]).unwrap().retry_download_count, 10_000);
    }

    #[test]
    fn the_bus_is_used_unless_it_is_switched_off() {
        let config = parse(&["{}"]).unwrap();
        let expirations = |config: &Config| {
            let after_start = config.control_map_boot_expiration.as_secs();
            (config.control_map_expiration.map(|lifetime| lifetime.as_secs()), after_start)
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
        assert!(own(r#"{"HEALTHCHECK":{"COMMANDS":["true"]}}"#).unwrap().gates.health.is_some());
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
        let page = include_str!("../../../../docs/configuration.md");
        let own = RUST_OTA.iter().map(|key| format!("RustOta.{key}"));
        let nested: [(&str, &[&str]); 8] = [
            ("HttpsClient.", HTTPS_CLIENT),
            ("Security.", SECURITY),
            ("DBus.", DBUS),
            ("RustOta.MaintenanceWindow.", MAINTENANCE_WINDOW),
            ("RustOta.MaintenanceWindow.Times.", TIMES),
            ("RustOta.HealthCheck.", HEALTH_CHECK),
            ("RustOta.Monitor.", MONITOR),
            ("RustOta.Monitor.Checks.", CHECKS),
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
        let GateRules { window, ask_before, ask_timeout, health } = config.gates;
        assert_eq!(ask_before, [Gate::Install, Gate::Commit]);
        assert_eq!(ask_timeout, Some(Duration::from_secs(60)));
        assert_eq!(config.max_download_bytes, Some(5));
        let window = window.unwrap();
        assert_eq!(window.before, [Gate::Install, Gate::Reboot]);
        assert_eq!((window.times.len(), window.utc), (1, false));
        let check = health.unwrap();
        assert_eq!(check.units, ["app.service"]);
        assert_eq!((check.timeout, check.interval), (Duration::from_secs(9), Duration::from_secs(5)));
        assert_eq!(own(r#"{"AskTimeoutSeconds":0}"#).unwrap().gates, GateRules::default());
        assert_eq!(own(r#"{"MaxDownloadBytes":0}"#).unwrap().max_download_bytes, None);
    }

    #[test]
    fn every_gate_that_there_is_can_be_configured_and_a_wrong_one_is_told_which_there_are() {
        for gate in Gate::ALL {
            let config = own(&format!(
                r#"{{"AskBefore":["{gate}"],"MaintenanceWindow":{{"Times":[{{"From":"01:00","To":"02:00"}}],
                    "Before":["{gate}"]}}}}"#
            ))
            .unwrap();
            assert_eq!(
                (config.gates.ask_before, config.gates.window.unwrap().before),
                (vec![gate], vec![gate])
            );
            let error = own(r#"{"AskBefore":["boot"]}"#).unwrap_err();
            assert!(error.contains(&format!("\"{gate}\"")), "{error}");
        }
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
