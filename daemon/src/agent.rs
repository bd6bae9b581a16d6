//! `rust-ota daemon` and `rust-ota bootstrap`: the loop of `client-core` on this device.
//!
//! Here it is wired to Linux, and what it tells goes to the log, the status socket and the service manager. It decides
//! nothing about updates.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client_core::agent::{Agent, AgentSettings, Event, Host};
use client_core::clock::Clock;
use client_core::deploy::scripts::ScriptRunner;
use client_core::deploy::{Device, Notice, Observer, Policy, Reporter, Stage};
use client_core::install::{Progress, WriteStatistics};
use client_core::schedule::Schedule;
use client_core::server::{Api, Attribute, AttributeValue, DownloadSettings, Settings, Transport};
use client_core::slot::System;
use linux::daemon_process::PidFile;
use linux::inventory;
use linux::key_values::RunLimits;
use linux::lock::LockError;
use linux::signals;
use linux::state_scripts::LinuxScripts;
use linux::waiter::LinuxClock;

#[cfg(feature = "dbus")]
use crate::dbus::{AddOns, ControlMaps};
use crate::deployment_log::DeploymentLogs;
#[cfg(feature = "dbus")]
use crate::local_proxy::LocalProxy;
use crate::logger;
use crate::notify::{Notifier, Watchdog, WatchedClock, WatchedWaiter};
use crate::status::{self, SharedBoard, look};
use device::compose::{ComposeError, LOCK_PATIENCE, NO_SERVER, Setup};
use device::gates::{ConfigurationGate, Desk, Gates};
use device::keystore::{self, KeyStoreError};
use http::{HttpError, HttpTransport, IdleConnections};

/// How long the service manager waits for a sign of life while nothing of a deployment is done: the inventory programs
/// and the server have deadlines of their own.
const SYNC_ALLOWANCE: Duration = Duration::from_secs(900);
/// A longer wait is not worth an open connection: the buffers of both sides, and a server that closes it meanwhile.
const KEEP_CONNECTION: Duration = Duration::from_secs(60);
/// Time between two log lines about the progress of a payload.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// How often, at most and at least, the server is asked during a download whether the deployment was aborted.
const ABORT_CHECK: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];

/// Why the daemon cannot run.
#[derive(Debug)]
pub enum AgentError {
    /// The configuration, the lock or the record.
    Compose(ComposeError),
    /// No server to talk to.
    NoServer,
    /// Another daemon runs, or its file cannot be written.
    PidFile(LockError),
    /// The device key.
    Key(KeyStoreError),
    /// The way to the server.
    Http(HttpError),
    /// Signals cannot be handled.
    Signals(std::io::Error),
    /// No server accepts the device.
    Refused(String),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentError::Compose(error) => error.fmt(f),
            AgentError::NoServer => f.write_str(NO_SERVER),
            AgentError::PidFile(LockError::Held { path }) => {
                write!(f, "a daemon is running already: it holds {}", path.display())
            }
            AgentError::PidFile(error) => error.fmt(f),
            AgentError::Key(error) => error.fmt(f),
            AgentError::Http(error) => error.fmt(f),
            AgentError::Signals(error) => write!(f, "cannot handle signals: {error}"),
            AgentError::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for AgentError {}

impl From<ComposeError> for AgentError {
    fn from(error: ComposeError) -> AgentError {
        AgentError::Compose(error)
    }
}

impl From<KeyStoreError> for AgentError {
    fn from(error: KeyStoreError) -> AgentError {
        AgentError::Key(error)
    }
}

impl From<HttpError> for AgentError {
    fn from(error: HttpError) -> AgentError {
        AgentError::Http(error)
    }
}

/// Runs until it is asked to stop. `bootstrap` gives a device without an artifact name one.
///
/// # Errors
/// When it cannot begin.
pub fn run(setup: &Setup, bootstrap: impl FnOnce(&Setup)) -> Result<(), AgentError> {
    let environment = |name: &str| std::env::var_os(name).map(Into::into);
    let clock = LinuxClock::new();
    let _stops = signals::handle(&clock).map_err(AgentError::Signals)?;
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    linux::process::hide_inherited_descriptors();
    // A key is made by one process at a time.
    let lock = setup.lock()?;
    let _pid_file = PidFile::create(&setup.pid_file(), LOCK_PATIENCE).map_err(AgentError::PidFile)?;
    let transport = setup.http_transport(Arc::clone(&shared))?;
    // Certificates that cannot be read are worth a line at the start, not only at the first poll.
    if !setup.config.servers.iter().all(|server| server.starts_with("http://")) {
        if let Err(error) = transport.check() {
            log::warn!("{error}");
        }
    }
    let api_transport = transport.another();
    let api_connections = api_transport.idle_connections();
    let board = SharedBoard::default();
    #[cfg_attr(not(feature = "dbus"), allow(unused_mut))]
    let mut api = api(setup, api_transport, Arc::clone(&shared))?;
    #[cfg(feature = "dbus")]
    let add_ons = add_ons(setup, &transport, &clock, &board);
    #[cfg(feature = "dbus")]
    if let Some(add_ons) = &add_ons {
        api.watch_token(add_ons.watcher());
    }
    if setup.config_error.is_none() {
        if let Err(error) = setup.keep_config() {
            log::warn!("a daemon that finds a bad configuration would have none: {error}");
        }
    }
    drop(lock);
    bootstrap(setup);
    show_loss(setup, &board);
    let desk = Desk::default();
    let waking = clock.clone();
    let wake = move || waking.request_check_update();
    let _status =
        status::serve(&setup.status_socket(), Arc::clone(&board), Arc::clone(&shared), desk.clone(), wake)
            .inspect_err(|error| log::warn!("`rust-ota status` will not be answered: {error}"));
    let notifier = Notifier::from_environment(environment);
    let watchdog = Watchdog::from_environment(environment, notifier.clone(), Arc::clone(&shared));
    let watched: Arc<dyn Clock> = Arc::new(WatchedClock::new(Arc::clone(&shared), watchdog.clone()));
    let config = &setup.config;
    let seconds = Duration::from_secs;
    let schedule = Schedule::new(
        &*watched,
        seconds(config.update_poll_interval_seconds),
        seconds(config.inventory_poll_interval_seconds),
    );
    let retry_interval = seconds(config.retry_poll_interval_seconds);
    let [soonest, latest] = ABORT_CHECK;
    let settings = AgentSettings {
        retry_interval,
        retry_count: config.retry_poll_count,
        download: DownloadSettings {
            abort_check_every: Some(seconds(config.update_poll_interval_seconds).clamp(soonest, latest)),
            budget_bytes: config.max_download_bytes,
            ..setup.download_settings()
        },
    };
    let gates = Gates::of_daemon(config, desk.clone(), Arc::clone(&watched));
    let gates = gates.behind(Box::new(ConfigurationGate(setup.config_files())));
    #[cfg(feature = "dbus")]
    let gates = match &add_ons {
        Some(add_ons) => gates.behind(add_ons.control_gate()),
        None => gates,
    };
    let mut host = LinuxHost {
        setup,
        scripts: setup.scripts(Arc::clone(&watched)),
        logs: DeploymentLogs::new(setup.deployment_log_directory()),
        watcher: Watcher {
            board,
            clock: Arc::clone(&watched),
            watchdog: watchdog.clone(),
            notifier: notifier.clone(),
            told: Duration::ZERO,
        },
        transport,
        api_connections,
        download_connections: None,
        gates,
        desk,
        clock: Arc::clone(&watched),
    };
    let mut waiter = WatchedWaiter::new(clock.waiter(), watchdog);
    log::info!("rust-ota {} started", env!("CARGO_PKG_VERSION"));
    notifier.ready();
    let mut agent = Agent::new(&mut host, api, watched, &mut waiter, settings, schedule);
    #[cfg(feature = "dbus")]
    if let Some(Err(error)) = add_ons.map(|add_ons| add_ons.start(agent.shared_api())) {
        log::warn!("add-ons cannot be served: {error}");
    }
    let ended = agent.run();
    notifier.stopping();
    log::info!("{ended:?}: asked to stop");
    Ok(())
}

/// Says on the board whether the record was lost.
fn show_loss(setup: &Setup, board: &SharedBoard) {
    let lost = match setup.read_record() {
        Ok(record) => record.and_then(|record| record.lost).map(|lost| lost.reason),
        Err(error) => Some(error.to_string()),
    };
    look(board).set_record_lost(lost.as_deref());
}

/// What other programs of the device use. Without it the daemon goes on.
#[cfg(feature = "dbus")]
fn add_ons(
    setup: &Setup,
    transport: &HttpTransport,
    clock: &LinuxClock,
    board: &SharedBoard,
) -> Option<Arc<AddOns>> {
    let config = &setup.config;
    if !config.dbus_enabled {
        return None;
    }
    let lifetime = config.control_map_expiration_seconds;
    let lifetime = lifetime.unwrap_or(config.update_poll_interval_seconds.saturating_mul(2));
    let after_start = Duration::from_secs(config.control_map_boot_expiration_seconds);
    let maps = ControlMaps::load(&setup.datastore, Duration::from_secs(lifetime), after_start, clock.now());
    match LocalProxy::new(transport.dialer(), Arc::new(clock.clone())) {
        Ok(proxy) => {
            let (waking, board) = (clock.clone(), Arc::clone(board));
            // A map that is sent again and again must not make the device ask the server again and again.
            let wake = move || {
                if look(&board).is_waiting() {
                    waking.request_check_update();
                }
            };
            Some(AddOns::new(proxy, maps, Arc::new(clock.clone()), wake))
        }
        Err(error) => {
            log::warn!("add-ons cannot be served: {error}");
            None
        }
    }
}

/// Makes a device key if there is none (or a new one, when forced to), and shows it to the server once.
///
/// # Errors
/// When there is no key, or no server accepts it.
pub fn bootstrap(setup: &Setup, force: bool) -> Result<(), AgentError> {
    let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
    let _lock = setup.lock()?;
    if force {
        keystore::force_new(&setup.key_place())?;
    }
    let transport = setup.http_transport(Arc::clone(&clock))?;
    let mut api = api(setup, transport, clock)?;
    api.authenticate().map_err(|error| AgentError::Refused(error.to_string()))
}

fn api(setup: &Setup, transport: HttpTransport, clock: Arc<dyn Clock>) -> Result<Api, AgentError> {
    if setup.config.servers.is_empty() {
        return Err(AgentError::NoServer);
    }
    let credentials = setup.credentials(Arc::clone(&clock))?;
    let settings = Settings {
        servers: setup.config.servers.clone(),
        tenant_token: setup.config.tenant_token.clone(),
        device_tier: setup.config.device_tier.clone(),
    };
    Ok(Api::new(Box::new(transport), Box::new(credentials), clock, settings))
}

/// The seams of the agent on this device.
struct LinuxHost<'s> {
    setup: &'s Setup,
    scripts: LinuxScripts,
    logs: DeploymentLogs,
    watcher: Watcher,
    /// The certificates and sessions that all connections share.
    transport: HttpTransport,
    /// Connections to the server, closed before a wait that they would not outlive.
    api_connections: IdleConnections,
    /// Connections of the last download, closed behind it.
    download_connections: Option<IdleConnections>,
    gates: Gates,
    /// The question that the gates may have put.
    desk: Desk,
    clock: Arc<dyn Clock>,
}

impl Host for LinuxHost<'_> {
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), String> {
        let setup = self.setup;
        // Only while there is something to do: the command line works beside a daemon that waits.
        let _lock = setup.lock().map_err(|error| error.to_string())?;
        let mut state = setup.open_state().map_err(|error| error.to_string())?;
        // Opened anew each time: other tools write it as well.
        let mut boot = setup.boot();
        let mut slots = setup.slots();
        let system = setup.system();
        work(&mut Device {
            boot: &mut boot,
            slots: &mut slots,
            system: &system,
            modules: &mut setup.modules(Arc::clone(&self.clock)),
            state: &mut state,
            scripts: &mut self.scripts,
            observer: &mut self.watcher,
            gates: &mut self.gates,
            reporter,
        });
        Ok(())
    }

    fn policy(&mut self) -> Result<Policy, String> {
        self.setup.policy().map_err(|error| error.to_string())
    }

    fn scripts(&mut self) -> &mut dyn ScriptRunner {
        &mut self.scripts
    }

    fn inventory(&mut self) -> Result<Vec<Attribute>, String> {
        let directory = self.setup.inventory_directory();
        inventory::ask(&directory, RunLimits::default(), &*self.clock)
            .map(|attributes| with_own_attributes(attributes, self.known()))
            .map_err(|error| error.to_string())
    }

    fn download_transport(&mut self) -> Result<Box<dyn Transport>, String> {
        let transport = self.transport.another();
        self.download_connections = Some(transport.idle_connections());
        Ok(Box::new(transport))
    }

    fn begin_log(&mut self, id: &str) {
        match self.logs.open(id) {
            Ok(log) => drop(logger::tee(Some(log))),
            Err(error) => log::warn!("deployment {id} goes on without a log of its own: {error}"),
        }
    }

    fn end_log(&mut self) {
        drop(logger::tee(None));
        if let Some(connections) = self.download_connections.take() {
            connections.close();
        }
    }

    fn log_messages(&mut self, id: &str) -> Vec<u8> {
        self.logs
            .read_for_upload(id)
            .unwrap_or_else(|error| {
                log::warn!("the log of deployment {id} cannot be sent: {error}");
                None
            })
            .unwrap_or_default()
    }

    fn tell(&mut self, event: &Event<'_>) {
        if let Event::Idle { next_check, next_inventory } = event {
            if (*next_check).min(*next_inventory) > KEEP_CONNECTION {
                self.api_connections.close();
            }
        }
        if matches!(event, Event::Ended { .. }) {
            self.desk.clear();
            show_loss(self.setup, &self.watcher.board);
        }
        let config = &self.setup.config;
        let seconds = Duration::from_secs;
        let script = seconds(config.state_script_timeout_seconds);
        let scripts = script.saturating_add(seconds(config.state_script_retry_timeout_seconds));
        // Of one stage: its scripts before and behind it, and the calls of an update module (clean-up, question, download).
        let calls = seconds(config.module_timeout_seconds).saturating_mul(3);
        self.watcher.tell(event, scripts, script.saturating_mul(2).max(scripts).saturating_add(calls));
    }
}

impl LinuxHost<'_> {
    /// What the server wants to know of every device, whatever programs it has.
    fn known(&self) -> Vec<(&'static str, String)> {
        let record = self.setup.read_record().map_err(|error| error.to_string());
        let name = record.map(|record| record.unwrap_or_default().installed.name().to_owned());
        let device_type = self.setup.system().device_type().map_err(|error| error.to_string());
        let mut known = Vec::new();
        if let Some(error) = &self.setup.config_error {
            known.push(("rust_ota_config_error", error.clone()));
        }
        for (key, value) in [("artifact_name", name), ("device_type", device_type)] {
            match value {
                Ok(value) => known.push((key, value)),
                Err(error) => log::warn!("the inventory goes without {key}: {error}"),
            }
        }
        known
    }
}

/// Adds what the client itself knows; a program that says it too is believed.
fn with_own_attributes(mut attributes: Vec<Attribute>, known: Vec<(&'static str, String)>) -> Vec<Attribute> {
    let external = attributes.iter().any(|attribute| attribute.name == "mender_client_version");
    let said = |name: &str| attributes.iter().any(|attribute| attribute.name == name);
    let known: Vec<_> = known.into_iter().filter(|(name, _)| !said(name)).collect();
    let mut add = |name: &str, value: &str| {
        attributes.push(Attribute { name: name.to_owned(), value: AttributeValue::One(value.to_owned()) });
    };
    if !external {
        add("mender_client_version", env!("CARGO_PKG_VERSION"));
    }
    for (name, value) in &known {
        add(name, value);
    }
    add("mender_client_version_provider", if external { "external" } else { "internal" });
    attributes
}

/// Tells the log, the status socket and the service manager how far things are.
struct Watcher {
    board: SharedBoard,
    clock: Arc<dyn Clock>,
    watchdog: Watchdog,
    notifier: Notifier,
    /// When the progress was logged last.
    told: Duration,
}

impl Watcher {
    /// `scripts` is what a set of state scripts may take, `silence` the longest time without a sign of life that a
    /// deployment may take.
    fn tell(&mut self, event: &Event<'_>, scripts: Duration, silence: Duration) {
        let now = self.clock.now();
        let mut board = look(&self.board);
        match event {
            Event::Idle { next_check, .. } => {
                if !board.is_waiting() {
                    board.set_stage("idle");
                    board.clear_deployment();
                }
                board.set_next_check(now.saturating_add(*next_check));
                self.notifier.status(&format!("idle, next check in {} s", next_check.as_secs()));
            }
            Event::Scripts => self.watchdog.extend(scripts.saturating_add(SYNC_ALLOWANCE)),
            Event::Syncing => {
                board.set_stage("sync");
            }
            Event::Server { url, authorized } => board.set_server(*url, *authorized),
            Event::Checked => {
                board.set_checked(now);
                board.set_error(None);
            }
            Event::Deploying { id, artifact_name } => {
                board.set_deployment(id, Some(artifact_name).filter(|name| !name.is_empty()).copied());
                board.set_waiting(None);
                self.watchdog.extend(silence);
                self.notifier.status(&format!("deployment {id}: {artifact_name}"));
            }
            Event::Held { id, gate, reason } => {
                board.set_stage("waiting");
                board.set_waiting(Some((*gate, reason)));
                self.notifier.status(&format!("deployment {id} waits before {gate}: {reason}"));
            }
            Event::Ended { failed } => {
                board.set_error(failed.then_some("the last deployment failed"));
                board.clear_deployment();
            }
            Event::Failed { reason } => board.set_error(Some(reason)),
            _ => {}
        }
        drop(board);
        self.watchdog.alive();
    }

    fn progress(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        self.watchdog.alive();
        look(&self.board).set_progress(done_bytes, Some(total_bytes));
        let now = self.clock.now();
        if now.saturating_sub(self.told) >= PROGRESS_EVERY {
            self.told = now;
            log::info!("{what} {} of {} KiB", done_bytes / 1024, total_bytes / 1024);
        }
    }
}

impl Progress for Watcher {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress("verified and written", done_bytes, total_bytes);
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress("read back", done_bytes, total_bytes);
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        log::info!(
            "image of {} bytes: {} written, {} equal already",
            statistics.total_bytes,
            statistics.written_bytes,
            statistics.skipped_bytes
        );
    }
}

impl Observer for Watcher {
    fn notice(&mut self, notice: Notice) {
        log::debug!("{notice:?}");
    }

    fn stage(&mut self, stage: Stage) {
        look(&self.board).set_stage(&format!("{stage:?}"));
        self.watchdog.alive();
    }

    fn stop_requested(&self) -> bool {
        self.clock.stop_requested()
    }
}
