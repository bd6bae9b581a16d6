//! Puts a device together from its configuration: which file, which lock, which bootloader.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Bootloader, Config, ConfigError, Source};
use client_core::artifact::{KeyError, Limits, Trust, VerifyKeys};
use client_core::boot::mender_vars::MenderVars;
use client_core::boot::{BootEnv, BootEnvError, Variables};
use client_core::clock::Clock;
use client_core::deploy::Policy;
use client_core::deploy::record::{Record, RecordError};
use client_core::server::DownloadSettings;
use client_core::slot::{Restart, Slot, SlotError, System};
use client_core::state_store::{StateError, TwoCopyRecord};
use linux::atomic_file;
use linux::block_device::FileDevice;
use linux::boot_env::{self, BootEnvPaths};
use linux::daemon_process::OtherwiseAsk;
use linux::explain;
use linux::handlers::{ModuleSettings, UpdateModules};
use linux::lock::{FileLock, LockError};
use linux::regular_file;
use linux::slot_paths::SlotPaths;
use linux::slots::LinuxSlots;
use linux::state_scripts::{LinuxScripts, ScriptTimes};
use linux::system::LinuxSystem;

use crate::identity::DeviceCredentials;
use crate::keystore::{self, KeyPlace, KeyStoreError};
use http::{HttpError, HttpTransport, ProxyRules, TlsOptions};

const CONFIG_DIRECTORY: &str = "/etc/mender";
const DATASTORE: &str = "/var/lib/mender";
const DATA_DIRECTORY: &str = "/usr/share/mender";
const CONFIG_FILE: &str = "mender.conf";
const LOCK_FILE: &str = "rust-ota.lock";
const PID_FILE: &str = "rust-ota.pid";
const STATUS_SOCKET: &str = "status.sock";
const RUN_DIRECTORY: &str = "/run/rust-ota";
const BOOTSTRAP_FILE: &str = "bootstrap.mender";
/// The configuration that the daemon last ran with and that was good: files with their names, the stronger one last.
const LAST_GOOD_FILE: &str = "rust-ota-last-good.conf";
/// What it is called until it is complete.
const NEW_LAST_GOOD_FILE: &str = "rust-ota-last-good.conf.new";
/// How long another process may have the datastore before that is an error.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How long somebody waits for the first byte of an artifact who has typed its address.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// The program that restarts a device.
const REBOOT_COMMAND: &str = "reboot";
/// What a daemon is told without one.
pub const NO_SERVER: &str = "no server is configured: set ServerURL or Servers";
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

/// What somebody says in place of what the configuration and the usual places say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The configuration file that is asked where the first one says nothing.
    pub fallback_config: Option<PathBuf>,
    /// Where state is kept.
    pub datastore: Option<PathBuf>,
    /// Certificates of servers, besides those of the system.
    pub trusted_certs: Option<String>,
    /// Whether certificates are not checked.
    pub skip_verify: bool,
    /// What opens the device key; `-` is standard input.
    pub passphrase_file: Option<PathBuf>,
}

/// Which configuration files must be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readable {
    /// All that are there.
    All,
    /// Those that this user may read, for somebody who only looks: the others, which may hold secrets, say nothing about
    /// what is installed.
    ByThisUser,
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
    files: ConfigFiles,
    /// Why this is not the configuration that lies there, but the last good one.
    pub config_error: Option<String>,
}

/// Where the configuration lies.
#[derive(Debug, Clone)]
pub struct ConfigFiles {
    /// What was named on the command line, and what is read otherwise.
    fallback: (Option<PathBuf>, PathBuf),
    main: (Option<PathBuf>, PathBuf),
}

/// The content of configuration files, each with its name.
type Contents = Vec<(String, Vec<u8>)>;

impl ConfigFiles {
    /// The files, the stronger one last.
    ///
    /// # Errors
    /// When one cannot be read. Those of the usual places may be missing; one that was named may not.
    fn read(&self, readable: Readable) -> Result<Contents, ComposeError> {
        let read = |(named, default): &(Option<PathBuf>, PathBuf)| match (
            read_config(named.as_deref(), default),
            readable,
        ) {
            (Err(ComposeError::Io { source, .. }), Readable::ByThisUser)
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(None)
            }
            (read, Readable::All | Readable::ByThisUser) => read,
        };
        Ok(read(&self.fallback)?.into_iter().chain(read(&self.main)?).collect())
    }

    /// What keeps a daemon from going on with the configuration that lies there now.
    pub fn problem(&self) -> Option<String> {
        match self.read(Readable::All).and_then(|files| parse(&files)) {
            Ok(config) if config.servers.is_empty() => Some(NO_SERVER.to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Who goes on with a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Somebody at a prompt, who can put a bad one right.
    Command,
    /// The daemon: without it nothing can send the device a better one, so that it goes on with the last good one.
    Daemon,
}

/// The configuration that was kept, if there is a good one.
fn last_good(datastore: &Path) -> Option<Config> {
    let kept = regular_file::read(&datastore.join(LAST_GOOD_FILE), CONFIG_BYTES).ok()?;
    let kept: Vec<[String; 2]> = serde_json::from_slice(&kept).ok()?;
    let files = kept.into_iter().map(|[name, content]| (name, content.into_bytes())).collect();
    parse(&files).ok()
}

fn parse(files: &Contents) -> Result<Config, ComposeError> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, content)| Source { name, content }).collect();
    Config::parse(&sources).map_err(ComposeError::Config)
}

impl Setup {
    /// Reads the configuration that `overrides` names. `environment` looks up a variable.
    ///
    /// # Errors
    /// When a file cannot be read or understood, and there is nothing else to go on with.
    pub fn load(
        overrides: &Overrides,
        for_whom: For,
        readable: Readable,
        environment: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Setup, ComposeError> {
        let configuration_directory = environment("MENDER_CONF_DIR").unwrap_or(CONFIG_DIRECTORY.into());
        let default_datastore = environment("MENDER_DATASTORE_DIR").unwrap_or(DATASTORE.into());
        let datastore = overrides.datastore.clone().unwrap_or(default_datastore);
        let files = ConfigFiles {
            fallback: (overrides.fallback_config.clone(), datastore.join(CONFIG_FILE)),
            main: (overrides.config.clone(), configuration_directory.join(CONFIG_FILE)),
        };
        let parsed = files.read(readable).and_then(|files| parse(&files));
        let (config, config_error) = match (parsed, for_whom) {
            (Ok(config), For::Daemon) if config.servers.is_empty() => match last_good(&datastore) {
                Some(good) => (good, Some(NO_SERVER.to_owned())),
                None => (config, None),
            },
            (Ok(config), _) => (config, None),
            (Err(error), For::Command) => return Err(error),
            (Err(error), For::Daemon) => match last_good(&datastore) {
                Some(config) => (config, Some(error.to_string())),
                None => return Err(error),
            },
        };
        Ok(Setup {
            skip_verify: overrides.skip_verify || config.skip_verify,
            trusted_certs: overrides.trusted_certs.clone(),
            passphrase_file: overrides.passphrase_file.clone(),
            data_directory: environment("MENDER_DATA_DIR").unwrap_or(DATA_DIRECTORY.into()),
            default_datastore: datastore == Path::new(DATASTORE),
            config,
            datastore,
            configuration_directory,
            files,
            config_error,
        })
    }

    /// Where the configuration lies.
    pub fn config_files(&self) -> ConfigFiles {
        self.files.clone()
    }

    /// Keeps the configuration for a daemon that finds a bad one; not that of an update that may still be undone. Call it
    /// with the lock held.
    ///
    /// # Errors
    /// When it cannot be written; what was kept before is still there.
    pub fn keep_config(&self) -> Result<(), ComposeError> {
        let record = Record::load(&mut self.open_state()?).map_err(ComposeError::Record)?;
        if record.deployment.is_some() {
            return Ok(());
        }
        let files = self.files.read(Readable::All)?;
        // It may have been changed since it was read.
        if parse(&files)?.servers.is_empty() {
            return Ok(());
        }
        let text = |content: &Vec<u8>| String::from_utf8_lossy(content).into_owned();
        let kept: Vec<[String; 2]> =
            files.iter().map(|(name, content)| [name.clone(), text(content)]).collect();
        let kept = serde_json::json!(kept).to_string().into_bytes();
        let (path, new) = (self.datastore.join(LAST_GOOD_FILE), self.datastore.join(NEW_LAST_GOOD_FILE));
        if read_bounded(&path).is_ok_and(|known| known == kept) {
            return Ok(());
        }
        // What a power cut left behind.
        let _ = fs::remove_file(&new);
        atomic_file::write_new(&new, &kept, 0o600)
            .and_then(|()| atomic_file::publish(&new, &path))
            .map_err(|error| io_error("keep the configuration as", &path, error))
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

    /// How patient the downloads of a person at a prompt are.
    pub fn download_settings_at_prompt(&self) -> DownloadSettings {
        DownloadSettings { begin_within: Some(BEGIN_WITHIN), ..self.download_settings() }
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

    /// Opens the record, making it where it is missing, and a new one in place of one that cannot be used. Call it with
    /// the lock held.
    ///
    /// # Errors
    /// When it cannot be read, or none can be made.
    pub fn open_state(&self) -> Result<TwoCopyRecord<FileDevice>, ComposeError> {
        linux::state_file::open(&self.datastore, &Documents).map_err(ComposeError::State)
    }

    /// The record as it is, without a lock: a save never touches the copy that is read. Writes nothing, and needs no
    /// right to. `None` where there is none.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn read_record(&self) -> Result<Option<Record>, ComposeError> {
        let document = linux::state_file::read(&self.datastore).map_err(ComposeError::State)?;
        document.map(|document| Record::from_json(&document).map_err(ComposeError::Record)).transpose()
    }

    /// Tells a device that has no datastore yet from one whose data partition is not mounted: there it is a link to nothing,
    /// and to say that nothing is installed would be wrong.
    ///
    /// # Errors
    /// When it is, or lies behind, a link to nothing.
    pub fn check_that_the_datastore_leads_somewhere(&self) -> Result<(), ComposeError> {
        let is_dangling = |place: &Path| place.is_symlink() && !place.exists();
        match fs::metadata(&self.datastore) {
            Err(error) if self.datastore.ancestors().any(is_dangling) => {
                let error = explain::create_directory_error(&self.datastore, error);
                Err(io_error("look into", &self.datastore, error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes the datastore where it is missing, and takes the lock that keeps other processes away from it until the
    /// returned value is dropped. Waits for a moment: a look at the record is short, and a program that a client was
    /// about to start when it was killed may hold the lock for a moment longer.
    ///
    /// # Errors
    /// [`ComposeError::Lock`] when another process keeps it.
    pub fn lock(&self) -> Result<FileLock, ComposeError> {
        let path = &self.datastore;
        let create_error = |error| io_error("create", path, explain::create_directory_error(path, error));
        let is_new = !path.exists();
        fs::create_dir_all(path).map_err(create_error)?;
        if is_new {
            // Whatever the umask is: what is private in it is so by itself, and everybody may ask what is installed.
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(create_error)?;
        }
        FileLock::acquire(&self.datastore.join(LOCK_FILE), LOCK_PATIENCE).map_err(ComposeError::Lock)
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
    pub fn system(&self) -> DeviceSystem {
        let device_type_file =
            self.config.device_type_file.clone().map_or(self.datastore.join("device_type"), PathBuf::from);
        let command = self.config.reboot_command.clone();
        let slots = [&self.config.rootfs_part_a, &self.config.rootfs_part_b];
        let is_file = |path: &String| fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let is_virtual = slots.into_iter().flatten().any(is_file);
        DeviceSystem {
            restarts: command.is_some() || !is_virtual,
            linux: LinuxSystem::new(
                self.slot_paths(),
                device_type_file,
                command.unwrap_or(REBOOT_COMMAND.to_owned()),
            ),
        }
    }

    /// The state scripts. A request to stop that `clock` has ends the one that runs.
    pub fn scripts(&self, clock: Arc<dyn Clock>) -> LinuxScripts {
        let times = ScriptTimes {
            timeout: Duration::from_secs(self.config.state_script_timeout_seconds),
            retry_timeout: Duration::from_secs(self.config.state_script_retry_timeout_seconds),
            retry_interval: Duration::from_secs(self.config.state_script_retry_interval_seconds),
        };
        LinuxScripts::new(&self.datastore, &self.configuration_directory, times, clock)
    }

    /// The update modules. A request to stop that `clock` has ends the call that runs.
    pub fn modules(&self, clock: Arc<dyn Clock>) -> UpdateModules {
        UpdateModules::new(ModuleSettings {
            data_directory: self.data_directory.clone(),
            datastore: self.datastore.clone(),
            timeout: Duration::from_secs(self.config.module_timeout_seconds),
            prefer_built_in: self.config.prefer_built_in.clone(),
            clock,
        })
    }

    /// What boots next. The boot environment is opened when it is first used: not every command needs one.
    pub fn boot(&self) -> MenderVars<LazyBootEnv, SlotPaths> {
        let choice = match self.config.bootloader {
            Bootloader::Auto => boot_env::Bootloader::Auto,
            Bootloader::UBoot => boot_env::Bootloader::UBoot,
            Bootloader::Grub => boot_env::Bootloader::Grub,
        };
        let mut paths = BootEnvPaths::default();
        paths.fw_env_config = PathBuf::from(&self.config.fw_env_config);
        paths.grub_env_dir = self.config.grub_env_dir.clone().map(PathBuf::from);
        MenderVars::new(LazyBootEnv { choice, paths, open: None }, self.slot_paths())
    }

    /// The bootstrap artifact, if there is one.
    pub fn bootstrap_path(&self) -> PathBuf {
        self.datastore.join(BOOTSTRAP_FILE)
    }
}

/// What the file of the record is to hold.
struct Documents;

impl linux::state_file::Documents for Documents {
    fn initial(&self) -> Vec<u8> {
        // No field of a record can keep it from being written as JSON.
        Record::new().to_json().unwrap_or_default()
    }

    fn after_loss(&self, reason: &str) -> Vec<u8> {
        Record::after_loss(reason).to_json().unwrap_or_default()
    }

    fn check(&self, document: &[u8]) -> Result<(), String> {
        Record::from_json(document).map(drop).map_err(|error| error.to_string())
    }
}

/// The running system, and whether it is one to restart.
pub struct DeviceSystem {
    linux: LinuxSystem,
    restarts: bool,
}

impl System for DeviceSystem {
    fn running_slot(&self) -> Result<Slot, SlotError> {
        self.linux.running_slot()
    }

    fn device_type(&self) -> Result<String, SlotError> {
        self.linux.device_type()
    }

    /// On a virtual device somebody else plays the restart: the machine that it is a folder of has other things to do.
    fn reboot(&self, restart: &Restart) -> Result<(), SlotError> {
        if self.restarts {
            return self.linux.reboot(restart);
        }
        log::warn!(
            "a restart is due and none is made: the slots are plain files; end this process, boot the other slot and \
             start it again, or set RustOta.RebootCommand"
        );
        Ok(())
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
        let env = match self.open.take() {
            Some(env) => env,
            None => {
                let env = linux::boot_env::open(self.choice, &self.paths)?;
                log::debug!("using the {}", env.describe());
                env
            }
        };
        Ok(&mut **self.open.insert(env))
    }
}

impl BootEnv for LazyBootEnv {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        self.get()?.read(names)
    }

    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        self.get()?.write(changes)
    }

    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        self.get()?.check_write(changes)
    }

    fn describe(&self) -> String {
        self.open.as_ref().map_or_else(|| "boot environment".to_owned(), |env| env.describe())
    }
}

fn read_config(named: Option<&Path>, default: &Path) -> Result<Option<(String, Vec<u8>)>, ComposeError> {
    let path = named.unwrap_or(default);
    // A person may name a pipe. What merely lies there must be a file.
    let read = match named {
        Some(path) => read_bounded(path),
        None => regular_file::read(default, CONFIG_BYTES),
    };
    match read {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_that_is_kept_is_whole_or_none_whatever_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (config, datastore) = (folder.path().join("mender.conf"), folder.path().join("data"));
        let overrides = Overrides {
            config: Some(config.clone()),
            datastore: Some(datastore.clone()),
            ..Overrides::default()
        };
        let load = |for_whom| Setup::load(&overrides, for_whom, Readable::All, |_| None);
        let write = |text: &str| fs::write(&config, text).unwrap();
        let keep = || {
            let setup = load(For::Daemon).unwrap();
            let _lock = setup.lock().unwrap();
            setup.keep_config().unwrap();
        };
        write("{\"RustOta\":{\"Typo\":1}}");
        assert!(load(For::Daemon).is_err());
        // One without a server is nothing to go on with.
        write("{}");
        keep();
        let kept = datastore.join(LAST_GOOD_FILE);
        assert!(!kept.exists());
        write("{\"ServerURL\":\"https://a\"}");
        fs::write(datastore.join(NEW_LAST_GOOD_FILE), "cut").unwrap();
        keep();
        let bytes = fs::read(&kept).unwrap();
        for text in ["{", "{}", "{\"RustOta\":{\"Typo\":1}}"] {
            write(text);
            for length in 0..=bytes.len() {
                fs::write(&kept, &bytes[..length]).unwrap();
                let servers = load(For::Daemon).map(|setup| setup.config.servers).unwrap_or_default();
                assert_eq!(servers.is_empty(), length < bytes.len(), "{text} {length}");
            }
            let setup = load(For::Daemon).unwrap();
            assert_eq!(setup.config_error, setup.config_files().problem());
            assert!(setup.config_error.is_some());
            assert!(text == "{}" || load(For::Command).is_err());
        }
    }
}
