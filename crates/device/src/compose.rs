//! Puts a device together from its configuration: which file, which lock, which bootloader.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Config, ConfigError};
use crate::config_files::{ConfigFile, ConfigFiles, For, Readable, Unusable};
use client_core::agent::AgentSettings;
use client_core::artifact::{HEAD_BYTES, KeyError, Limits, Supply, Trust, VerifyKeys};
use client_core::boot::mender_vars::MenderVars;
use client_core::boot::{BootControl, BootEnv, BootEnvError, BootError, BootState, Variables};
use client_core::clock::Clock;
use client_core::deploy::gates::Gatekeeper;
use client_core::deploy::record::{Record, RecordError};
use client_core::deploy::{Device, Observer, Policy, Reporter};
use client_core::server::{Download, DownloadSettings};
use client_core::slot::{Restart, Slot, SlotError, System, Traces};
use client_core::state_store::{StateError, TwoCopyRecord};
use linux::block_device::FileDevice;
use linux::boot_env::{BootEnvPaths, Bootloader};
use linux::clock::LinuxClock;
use linux::daemon_process::OtherwiseAsk;
use linux::explain;
use linux::flight_recorder::FlightRecorder;
use linux::handlers::{ModuleSettings, UpdateModules};
use linux::lock::{FileLock, LockError};
use linux::regular_file;
use linux::slot_paths::SlotPaths;
use linux::slots::LinuxSlots;
use linux::state_scripts::{LinuxScripts, ScriptTimes};
use linux::system::LinuxSystem;

use crate::identity::DeviceCredentials;
use crate::keystore::{self, KeyPlace, KeyStoreError, LookedAtKey};
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
/// Longest verification key that is read.
const VERIFY_KEY_BYTES: u64 = 1024 * 1024;
/// How long another process may have the datastore before that is an error.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// How long somebody waits for the first byte of an artifact who has typed its address.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// Longest time for a connection that somebody waits for.
const CONNECT_AT_PROMPT: Duration = Duration::from_secs(10);
/// How often, at most and at least, the server is asked during a download whether the deployment was aborted.
const ABORT_CHECK: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
/// The program that restarts a device.
const REBOOT_COMMAND: &str = "reboot";

/// Why the device cannot be put together.
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

client_core::artifact::debug_as_displayed!(ComposeError);

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

pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ComposeError {
    ComposeError::Io { doing, path: path.display().to_string(), source }
}

/// What somebody says in place of what the configuration and the usual places say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The configuration file that is asked where the first one says nothing.
    pub fallback_config: Option<PathBuf>,
    /// Keys over those of the files: one JSON object, as a configuration file has it.
    pub values: Option<String>,
    /// Where state is kept.
    pub datastore: Option<PathBuf>,
    /// Certificates of servers, besides those of the system.
    pub trusted_certs: Option<String>,
    /// Whether certificates are not checked.
    pub skip_verify: bool,
    /// What opens the device key; `-` is standard input.
    pub passphrase_file: Option<PathBuf>,
}

/// What stands in for a configuration that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// The one that the daemon last ran with, and runs with now.
    LastGood,
    /// One that says nothing.
    Defaults,
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
    pub config_error: Option<Unusable>,
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
        let (files, configuration_directory, datastore) = Setup::places(overrides, &environment);
        let (config, config_error) = files.load(for_whom, readable, &datastore)?;
        let setup = Setup::of_files(overrides, files, configuration_directory, datastore, environment);
        Ok(Setup { skip_verify: overrides.skip_verify || config.skip_verify, config, config_error, ..setup })
    }

    /// The setup with what lies there, for somebody who wants to know what is wrong with it: a file that merely lies there
    /// and one that is named are read alike, and only when they are files. Where the configuration cannot be used, what
    /// stands in for it, and why.
    pub fn look(
        overrides: &Overrides,
        environment: impl Fn(&str) -> Option<PathBuf>,
    ) -> (Setup, Option<(ComposeError, StandIn)>) {
        let (files, configuration_directory, datastore) = Setup::places(overrides, &environment);
        let (config, problem) = match files.look(&datastore) {
            Ok(config) => (config, None),
            Err((error, Some(last_good))) => (*last_good, Some((error, StandIn::LastGood))),
            Err((error, None)) => (Config::default(), Some((error, StandIn::Defaults))),
        };
        let setup = Setup::of_files(overrides, files, configuration_directory, datastore, environment);
        (Setup { skip_verify: overrides.skip_verify || config.skip_verify, config, ..setup }, problem)
    }

    /// Where the configuration and the state are.
    fn places(
        overrides: &Overrides,
        environment: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> (ConfigFiles, PathBuf, PathBuf) {
        let configuration_directory = environment("MENDER_CONF_DIR").unwrap_or(CONFIG_DIRECTORY.into());
        let default_datastore = environment("MENDER_DATASTORE_DIR").unwrap_or(DATASTORE.into());
        let datastore = overrides.datastore.clone().unwrap_or(default_datastore);
        let files = ConfigFiles {
            files: [
                ConfigFile::new(overrides.fallback_config.as_ref(), datastore.join(CONFIG_FILE)),
                ConfigFile::new(overrides.config.as_ref(), configuration_directory.join(CONFIG_FILE)),
            ],
            over: overrides.values.clone(),
        };
        (files, configuration_directory, datastore)
    }

    /// With nothing of the configuration yet.
    fn of_files(
        overrides: &Overrides,
        files: ConfigFiles,
        configuration_directory: PathBuf,
        datastore: PathBuf,
        environment: impl Fn(&str) -> Option<PathBuf>,
    ) -> Setup {
        Setup {
            skip_verify: overrides.skip_verify,
            trusted_certs: overrides.trusted_certs.clone(),
            passphrase_file: overrides.passphrase_file.clone(),
            data_directory: environment("MENDER_DATA_DIR").unwrap_or(DATA_DIRECTORY.into()),
            default_datastore: datastore == Path::new(DATASTORE),
            config: Config::default(),
            datastore,
            configuration_directory,
            files,
            config_error: None,
        }
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
        match record.deployment {
            Some(_) => Ok(()),
            None => self.files.keep(&self.datastore),
        }
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
        let pem = regular_file::read(Path::new(path), VERIFY_KEY_BYTES)
            .map_err(|e| io_error("read the verification key", Path::new(path), e))?;
        keys.add_pem(path, &pem).map_err(|error| ComposeError::Key { path: path.to_owned(), error })
    }

    /// How to reach web servers.
    fn http_options(&self) -> TlsOptions {
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

    /// An artifact from a web server, for somebody who has typed its address: asked for now, read as it comes.
    ///
    /// # Errors
    /// When nobody hands it out.
    pub fn open_url(&self, url: &str) -> io::Result<Supply> {
        let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
        let transport = self.http_transport(Arc::clone(&clock)).map_err(io::Error::other)?;
        let transport = transport.connecting_within(CONNECT_AT_PROMPT);
        if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
            transport.check().map_err(io::Error::other)?;
        }
        let settings = DownloadSettings { begin_within: Some(BEGIN_WITHIN), ..self.download_settings() };
        let download = Download::open(url, Box::new(transport), clock, settings).map_err(io::Error::other)?;
        Ok(Supply::Places(download.into_places()))
    }

    /// How patient the daemon is with its servers.
    pub fn agent_settings(&self) -> AgentSettings {
        let [soonest, latest] = ABORT_CHECK;
        AgentSettings {
            retry_interval: self.config.retry_poll_interval,
            retry_count: self.config.retry_poll_count,
            download: DownloadSettings {
                abort_check_every: Some(self.config.update_poll_interval.clamp(soonest, latest)),
                budget_bytes: self.config.max_download_bytes,
                ..self.download_settings()
            },
        }
    }

    /// How patient downloads are.
    fn download_settings(&self) -> DownloadSettings {
        let usual = DownloadSettings::default();
        DownloadSettings {
            attempts_max: self.config.retry_download_count,
            longest_wait: self.config.retry_poll_interval.max(usual.first_wait),
            begin_with: Some(HEAD_BYTES),
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

    /// The device key as it is: none is made, and its mode stays. A passphrase on standard input is not asked for.
    ///
    /// # Errors
    /// When there is one that cannot be used.
    pub fn look_at_key(&self) -> Result<Option<LookedAtKey>, KeyStoreError> {
        let file = self.passphrase_file.as_deref().filter(|path| *path != Path::new("-"));
        let passphrase = file.map(keystore::read_passphrase).transpose()?;
        keystore::look(&self.key_place(), passphrase.as_deref())
    }

    /// The program that prints the identity.
    pub fn identity_program(&self) -> PathBuf {
        match &self.config.identity_script {
            Some(path) => path.into(),
            None => self.data_directory.join("identity/mender-device-identity"),
        }
    }

    /// The directories with state scripts: those of the root file system, and those of the artifact in hand.
    pub fn script_directories(&self) -> [PathBuf; 2] {
        [self.configuration_directory.join("scripts"), self.datastore.join("scripts")]
    }

    /// The directory with update modules.
    pub fn module_directory(&self) -> PathBuf {
        self.data_directory.join(linux::handlers::MODULES)
    }

    /// Whether certificates of servers are not checked.
    pub fn skips_verification(&self) -> bool {
        self.skip_verify
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
    fn open_state(&self) -> Result<TwoCopyRecord<FileDevice>, ComposeError> {
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
    pub(crate) fn check_that_the_datastore_leads_somewhere(&self) -> Result<(), ComposeError> {
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

    /// What the configuration says of the slots.
    pub fn slot_paths(&self) -> SlotPaths {
        SlotPaths {
            a: self.config.rootfs_part_a.clone(),
            b: self.config.rootfs_part_b.clone(),
            running: self.config.running_root.clone(),
        }
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
                FlightRecorder::new(&self.datastore),
            ),
        }
    }

    /// Opens everything that work on the device needs, and keeps other processes away from it until the returned value is
    /// dropped. Opened anew each time: other tools write some of it too. A request to stop that `clock` has ends the
    /// programs that run.
    ///
    /// # Errors
    /// When another process works on the device, or the record cannot be opened.
    pub fn open_device(&self, clock: &Arc<dyn Clock>) -> Result<OpenDevice, ComposeError> {
        let lock = self.lock()?;
        let slots = LinuxSlots::new(self.slot_paths());
        Ok(OpenDevice {
            state: self.open_state()?,
            boot: self.boot(),
            slots: if self.config.discard_behind_image { slots.discarding() } else { slots },
            system: self.system(),
            scripts: self.scripts(Arc::clone(clock)),
            modules: self.modules(Arc::clone(clock)),
            _lock: lock,
        })
    }

    /// The state scripts. A request to stop that `clock` has ends the one that runs.
    pub fn scripts(&self, clock: Arc<dyn Clock>) -> LinuxScripts {
        let times = ScriptTimes {
            timeout: self.config.state_script_timeout,
            retry_timeout: self.config.state_script_retry_timeout,
            retry_interval: self.config.state_script_retry_interval,
        };
        LinuxScripts::new(&self.datastore, &self.configuration_directory, times, clock)
    }

    fn modules(&self, clock: Arc<dyn Clock>) -> UpdateModules {
        UpdateModules::new(ModuleSettings {
            data_directory: self.data_directory.clone(),
            datastore: self.datastore.clone(),
            timeout: self.config.module_timeout,
            prefer_built_in: self.config.prefer_built_in.clone(),
            clock,
        })
    }

    fn boot_env_paths(&self) -> BootEnvPaths {
        let mut paths = BootEnvPaths::default();
        paths.fw_env_config = PathBuf::from(&self.config.fw_env_config);
        paths.grub_env_dir = self.config.grub_env_dir.clone().map(PathBuf::from);
        paths
    }

    /// What boots next, for somebody who only looks: nothing is locked, opened for writing or repaired.
    ///
    /// # Errors
    /// When there is no boot environment, or it cannot be read.
    pub fn boot_state(&self) -> Result<BootState, BootError> {
        let env = linux::boot_env::open_to_look(self.config.bootloader, &self.boot_env_paths())?;
        MenderVars::new(env, self.slot_paths()).state()
    }

    /// What boots next. The boot environment is opened when it is first used: not every command needs one.
    fn boot(&self) -> MenderVars<LazyBootEnv, SlotPaths> {
        let env = LazyBootEnv { choice: self.config.bootloader, paths: self.boot_env_paths(), open: None };
        MenderVars::new(env, self.slot_paths())
    }

    /// Where a bootstrap artifact lies, if there is one.
    pub(crate) fn bootstrap_path(&self) -> PathBuf {
        self.datastore.join(BOOTSTRAP_FILE)
    }
}

/// A device for one piece of work.
pub struct OpenDevice {
    state: TwoCopyRecord<FileDevice>,
    boot: MenderVars<LazyBootEnv, SlotPaths>,
    slots: LinuxSlots,
    system: DeviceSystem,
    scripts: LinuxScripts,
    modules: UpdateModules,
    /// Given back when all the rest is closed.
    _lock: FileLock,
}

impl OpenDevice {
    /// The seams of a deployment: those of this device, and the given ones.
    pub fn seams<'a>(
        &'a mut self,
        observer: &'a mut dyn Observer,
        gates: &'a mut dyn Gatekeeper,
        reporter: &'a mut dyn Reporter,
    ) -> Device<'a> {
        Device {
            boot: &mut self.boot,
            slots: &mut self.slots,
            system: &self.system,
            modules: &mut self.modules,
            state: &mut self.state,
            scripts: &mut self.scripts,
            observer,
            gates,
            reporter,
        }
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

    fn begin_traces(&self) {
        self.linux.begin_traces();
    }

    fn traces(&self) -> Traces {
        self.linux.traces()
    }
}

/// A boot environment that is opened when it is first used.
struct LazyBootEnv {
    choice: Bootloader,
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
