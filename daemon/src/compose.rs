//! Puts a device together from its configuration: which file, which lock, which bootloader.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client_core::artifact::{KeyError, Limits, Trust, VerifyKeys};
use client_core::boot::{BootEnv, BootEnvError};
use client_core::clock::Clock;
use client_core::config::{Bootloader, Config, ConfigError, Source};
use client_core::deploy::Policy;
use client_core::deploy::record::{Record, RecordError};
use client_core::server::DownloadSettings;
use client_core::state_store::{StateError, TwoCopyRecord};
use linux::block_device::FileDevice;
use linux::boot_env::{self, BootEnvPaths};
use linux::daemon_process::OtherwiseAsk;
use linux::lock::{FileLock, LockError};
use linux::slots::{LinuxSlots, SlotPaths};
use linux::state_scripts::{LinuxScripts, ScriptTimes};
use linux::system::LinuxSystem;
use linux::update_module::{ModuleSettings, UpdateModules};

use crate::cli::Global;
use crate::http::{HttpError, HttpTransport, ProxyRules, TlsOptions};
use crate::identity::DeviceCredentials;
use crate::keystore::{self, KeyPlace, KeyStoreError};

const CONFIG_DIRECTORY: &str = "/etc/mender";
const DATASTORE: &str = "/var/lib/mender";
const DATA_DIRECTORY: &str = "/usr/share/mender";
const CONFIG_FILE: &str = "mender.conf";
const LOCK_FILE: &str = "rust-ota.lock";
const PID_FILE: &str = "rust-ota.pid";
const STATUS_SOCKET: &str = "status.sock";
const RUN_DIRECTORY: &str = "/run/rust-ota";
const BOOTSTRAP_FILE: &str = "bootstrap.mender";
/// How long another process may have the datastore before that is an error.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Longest configuration file that is read.
const CONFIG_BYTES: u64 = 1024 * 1024;

/// Why the device cannot be put together.
#[derive(Debug)]
pub enum ComposeError {
    /// The configuration cannot be understood.
    Config(ConfigError),
    /// A verification key cannot be used.
    Key {
        /// Its file.
        path: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The record cannot be opened.
    State(StateError),
    /// The record of a new device cannot be written.
    Record(RecordError),
    /// A file cannot be used.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The log level has no meaning.
    LogLevel(String),
    /// Another process works on this device, or the lock that would tell cannot be taken.
    Lock(LockError),
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComposeError::Config(error) => error.fmt(f),
            ComposeError::Key { path, error } => write!(f, "cannot use the verification key {path}: {error}"),
            ComposeError::State(error) => error.fmt(f),
            ComposeError::Record(error) => error.fmt(f),
            ComposeError::Io { doing, path, source } => write!(f, "cannot {doing} {path}: {source}"),
            ComposeError::LogLevel(name) => {
                write!(f, "log level {name:?} is none of trace, debug, info, warning, error, fatal")
            }
            ComposeError::Lock(LockError::Held { path }) => write!(
                f,
                "another rust-ota process is working on this device (lock {}); try again when it is done",
                path.display()
            ),
            ComposeError::Lock(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ComposeError {}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ComposeError {
    ComposeError::Io { doing, path: path.display().to_string(), source }
}

/// The configuration with the paths it is used with.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// Where state is kept.
    pub datastore: PathBuf,
    configuration_directory: PathBuf,
    data_directory: PathBuf,
    /// Whether the state is where it is on every device; if not, several devices may be on this machine.
    default_datastore: bool,
    trusted_certs: Option<String>,
    skip_verify: bool,
    passphrase_file: Option<PathBuf>,
}

impl Setup {
    /// Reads the configuration that `global` names. `environment` looks up a variable.
    ///
    /// # Errors
    /// When a file cannot be read or understood. The default files may be missing; one that was named may not.
    pub fn load(
        global: &Global,
        environment: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Setup, ComposeError> {
        let configuration_directory = environment("MENDER_CONF_DIR").unwrap_or(CONFIG_DIRECTORY.into());
        let default_datastore = environment("MENDER_DATASTORE_DIR").unwrap_or(DATASTORE.into());
        let datastore = global.datastore.clone().unwrap_or(default_datastore);
        let fallback = read_config(global.fallback_config.as_deref(), &datastore.join(CONFIG_FILE))?;
        let main = read_config(global.config.as_deref(), &configuration_directory.join(CONFIG_FILE))?;
        let files: Vec<(String, Vec<u8>)> = fallback.into_iter().chain(main).collect();
        let sources: Vec<Source<'_>> = files.iter().map(|(name, content)| Source { name, content }).collect();
        let config = Config::parse(&sources).map_err(ComposeError::Config)?;
        Ok(Setup {
            skip_verify: global.skip_verify || config.skip_verify,
            trusted_certs: global.trusted_certs.clone(),
            passphrase_file: global.passphrase_file.clone(),
            data_directory: environment("MENDER_DATA_DIR").unwrap_or(DATA_DIRECTORY.into()),
            default_datastore: datastore == Path::new(DATASTORE),
            config,
            datastore,
            configuration_directory,
        })
    }

    /// Whose artifacts are trusted. A key that cannot be used is left out with a warning as long as another one can
    /// be; none at all refuses every artifact.
    ///
    /// # Errors
    /// When keys are configured and none can be used.
    pub fn policy(&self) -> Result<Policy, ComposeError> {
        // As it is now: whoever asks for the policy is about to install something.
        let mut limits = Limits::default();
        limits.memory_bytes = linux::memory::available();
        let Some(paths) = &self.config.artifact_verify_keys else {
            let trust = if self.config.danger_accept_unsigned {
                log::warn!(
                    "RustOta.DangerAcceptUnsigned is set: artifacts are installed without a signature check"
                );
                Trust::DangerUnsigned
            } else {
                Trust::Keys(VerifyKeys::default())
            };
            return Ok(Policy { trust, limits });
        };
        let mut keys = VerifyKeys::default();
        let mut first_error = None;
        for path in paths {
            if let Err(error) = self.add_key(&mut keys, path) {
                log::warn!("{error}");
                first_error.get_or_insert(error);
            }
        }
        match first_error {
            Some(error) if keys.is_empty() => Err(error),
            Some(_) | None => Ok(Policy { trust: Trust::Keys(keys), limits }),
        }
    }

    fn add_key(&self, keys: &mut VerifyKeys, path: &str) -> Result<(), ComposeError> {
        let pem = read_bounded(Path::new(path))
            .map_err(|e| io_error("read the verification key", Path::new(path), e))?;
        keys.add_pem(path, &pem).map_err(|error| ComposeError::Key { path: path.to_owned(), error })
    }

    /// How to reach web servers.
    pub fn http_options(&self) -> TlsOptions {
        let authorities = [&self.config.server_certificate, &self.trusted_certs];
        TlsOptions {
            extra_authorities: authorities
                .into_iter()
                .flatten()
                .filter(|path| !path.is_empty())
                .cloned()
                .collect(),
            skip_verify: self.skip_verify,
            client: self
                .config
                .https_client
                .as_ref()
                .map(|client| (client.certificate.clone(), client.key.clone())),
        }
    }

    /// The way to the servers of the daemon.
    ///
    /// # Errors
    /// When the environment names a proxy that cannot be used.
    pub fn http_transport(&self, clock: Arc<dyn Clock>) -> Result<HttpTransport, HttpError> {
        let environment = |name: &str| std::env::var(name).ok();
        let proxies = ProxyRules::from_environment(environment).map_err(HttpError::Proxy)?;
        Ok(HttpTransport::new(self.http_options(), proxies, clock))
    }

    /// How patient downloads are.
    pub fn download_settings(&self) -> DownloadSettings {
        let usual = DownloadSettings::default();
        DownloadSettings {
            attempts_max: self.config.retry_download_count,
            longest_wait: Duration::from_secs(self.config.retry_poll_interval_seconds).max(usual.first_wait),
            ..usual
        }
    }

    /// Where the device key is.
    pub fn key_place(&self) -> KeyPlace {
        KeyPlace::new(&self.datastore, self.config.auth_private_key.as_deref())
    }

    /// Who this device is. Makes the device key where there is none; call it with the lock held, and once: standard
    /// input holds a passphrase for one reader only.
    ///
    /// # Errors
    /// When there is a key that cannot be used, or none can be made.
    pub fn credentials(&self, clock: Arc<dyn Clock>) -> Result<DeviceCredentials, KeyStoreError> {
        let passphrase = self.passphrase_file.as_deref().map(keystore::read_passphrase).transpose()?;
        let signer = keystore::load_or_create(&self.key_place(), passphrase.as_deref())?;
        Ok(DeviceCredentials::new(signer, self.identity_program(), clock))
    }

    /// The program that prints the identity.
    pub fn identity_program(&self) -> PathBuf {
        match &self.config.identity_script {
            Some(path) => path.into(),
            None => self.data_directory.join("identity/mender-device-identity"),
        }
    }

    /// Where the inventory programs are.
    pub fn inventory_directory(&self) -> PathBuf {
        self.data_directory.join("inventory")
    }

    /// Where the deployment logs are.
    pub fn deployment_log_directory(&self) -> PathBuf {
        self.config.update_log_path.as_ref().map_or_else(|| self.datastore.clone(), PathBuf::from)
    }

    /// The file that says which process is the daemon.
    pub fn pid_file(&self) -> PathBuf {
        self.datastore.join(PID_FILE)
    }

    /// Who is asked for the daemon when that file names none.
    pub fn who_else_knows_the_daemon(&self) -> OtherwiseAsk {
        if self.default_datastore { OtherwiseAsk::ServiceManager } else { OtherwiseAsk::Nobody }
    }

    /// Where the daemon tells what it does: in `/run` on a device, beside the state of a virtual one.
    pub fn status_socket(&self) -> PathBuf {
        match &self.config.status_socket {
            Some(path) => path.into(),
            None if self.default_datastore => Path::new(RUN_DIRECTORY).join(STATUS_SOCKET),
            None => self.datastore.join(STATUS_SOCKET),
        }
    }

    /// Opens the record, making the datastore and the record where they are missing.
    ///
    /// # Errors
    /// When they cannot be made, or the record cannot be trusted.
    pub fn open_state(&self) -> Result<TwoCopyRecord<FileDevice>, ComposeError> {
        let initial = Record::new().to_json().map_err(ComposeError::Record)?;
        linux::state_file::open(&self.datastore, &initial).map_err(ComposeError::State)
    }

    /// Makes the datastore where it is missing, and takes the lock that keeps other processes away from it until the
    /// returned value is dropped. Waits for a moment: a look at the record is short, and a program that a client was
    /// about to start when it was killed may hold the lock for a moment longer.
    ///
    /// # Errors
    /// [`ComposeError::Lock`] when another process keeps it.
    pub fn lock(&self) -> Result<FileLock, ComposeError> {
        fs::create_dir_all(&self.datastore).map_err(|error| io_error("create", &self.datastore, error))?;
        FileLock::acquire(&self.datastore.join(LOCK_FILE), LOCK_PATIENCE).map_err(ComposeError::Lock)
    }

    /// Whether a record is there already.
    pub fn has_state(&self) -> bool {
        self.datastore.join(linux::state_file::FILE_NAME).exists()
    }

    /// The paths of the slots.
    pub fn slot_paths(&self) -> SlotPaths {
        SlotPaths {
            a: self.config.rootfs_part_a.clone(),
            b: self.config.rootfs_part_b.clone(),
            running: self.config.running_root.clone(),
        }
    }

    /// The slots.
    pub fn slots(&self) -> LinuxSlots {
        LinuxSlots::new(self.slot_paths())
    }

    /// The running system.
    pub fn system(&self) -> LinuxSystem {
        let device_type_file =
            self.config.device_type_file.clone().map_or(self.datastore.join("device_type"), PathBuf::from);
        LinuxSystem::new(self.slot_paths(), device_type_file, self.config.reboot_command.clone())
    }

    /// The state scripts.
    pub fn scripts(&self) -> LinuxScripts {
        let times = ScriptTimes {
            timeout: Duration::from_secs(self.config.state_script_timeout_seconds),
            retry_timeout: Duration::from_secs(self.config.state_script_retry_timeout_seconds),
            retry_interval: Duration::from_secs(self.config.state_script_retry_interval_seconds),
        };
        LinuxScripts::new(&self.datastore, &self.configuration_directory, times)
    }

    /// The update modules. A request to stop that `clock` has ends the call that runs.
    pub fn modules(&self, clock: Option<Arc<dyn Clock>>) -> UpdateModules {
        UpdateModules::new(ModuleSettings {
            data_directory: self.data_directory.clone(),
            datastore: self.datastore.clone(),
            timeout: Duration::from_secs(self.config.module_timeout_seconds),
            prefer_built_in: self.config.prefer_built_in.clone(),
            clock,
        })
    }

    /// The boot environment, opened when it is first used: not every command needs one.
    pub fn boot_env(&self) -> LazyBootEnv {
        let choice = match self.config.bootloader {
            Bootloader::Auto => boot_env::Bootloader::Auto,
            Bootloader::UBoot => boot_env::Bootloader::UBoot,
            Bootloader::Grub => boot_env::Bootloader::Grub,
        };
        let mut paths = BootEnvPaths::default();
        paths.fw_env_config = PathBuf::from(&self.config.fw_env_config);
        paths.grub_env_dir = self.config.grub_env_dir.clone().map(PathBuf::from);
        LazyBootEnv { choice, paths, open: None }
    }

    /// The bootstrap artifact, if there is one.
    pub fn bootstrap_path(&self) -> PathBuf {
        self.datastore.join(BOOTSTRAP_FILE)
    }
}

/// A boot environment that is opened when it is first used.
pub struct LazyBootEnv {
    choice: boot_env::Bootloader,
    paths: BootEnvPaths,
    open: Option<Box<dyn BootEnv>>,
}

impl LazyBootEnv {
    fn get(&mut self) -> Result<&mut dyn BootEnv, BootEnvError> {
        if self.open.is_none() {
            let env = linux::boot_env::open(self.choice, &self.paths)?;
            log::debug!("using the {}", env.describe());
            self.open = Some(env);
        }
        match &mut self.open {
            Some(env) => Ok(&mut **env),
            None => Err(BootEnvError::NoValidCopy { copies: "none was opened".into() }),
        }
    }
}

impl BootEnv for LazyBootEnv {
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
        self.get()?.read(names)
    }

    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        self.get()?.write(changes)
    }

    fn describe(&self) -> String {
        self.open.as_ref().map_or_else(|| "boot environment".to_owned(), |env| env.describe())
    }
}

fn read_config(named: Option<&Path>, default: &Path) -> Result<Option<(String, Vec<u8>)>, ComposeError> {
    let path = named.unwrap_or(default);
    match read_bounded(path) {
        Ok(content) => Ok(Some((path.display().to_string(), content))),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read the configuration", path, error)),
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    fs::File::open(path)?.take(CONFIG_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > CONFIG_BYTES {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(content)
}
