//! `rust-ota daemon` and `rust-ota bootstrap`: the loop of `client-core` on this device.
//!
//! Here it is wired to Linux, and what it tells goes to the log, the status socket and the service manager. It decides
//! nothing about updates.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_core::agent::{Agent, Event, Host, HostError, Known};
use client_core::clock::Clock;
use client_core::deploy::scripts::ScriptRunner;
use client_core::deploy::{DeploymentId, Device, Notice, Observer, Policy, PolicyError, Reporter, Stage};
use client_core::install::{Progress, WriteStatistics};
use client_core::schedule::Schedule;
use client_core::server::{Attribute, AttributeValue, Transport};
use client_core::slot::System;
use linux::clock::LinuxClock;
use linux::daemon_process::PidFile;
use linux::inventory;
use linux::key_values::RunLimits;
use linux::lock::LockError;
use linux::signals;
use linux::state_scripts::LinuxScripts;
use server_mender::{Api, Settings};

#[cfg(feature = "dbus")]
use crate::dbus::{AddOns, KeptControlMaps};
use crate::deployment_log::DeploymentLogs;
#[cfg(feature = "dbus")]
use crate::local_proxy::LocalProxy;
use crate::logger;
use crate::notify::{Notifier, Supervision, Watchdog, WatchedWaiter};
use crate::status::{self, StatusBoard, StatusServer};
use device::compose::{ComposeError, LOCK_PATIENCE, Setup};
use device::config_files::Unusable;
use device::gates::{ConfigurationGate, Gates, SharedQuestion};
use device::keystore::{self, KeyStoreError};
use http::{HttpError, HttpTransport, IdleConnections};

/// How long the service manager waits for a sign of life while nothing of a deployment is done: the inventory programs
/// and the server have deadlines of their own.
const SYNC_ALLOWANCE: Duration = Duration::from_secs(900);
/// A longer wait is not worth an open connection: the buffers of both sides, and a server that closes it meanwhile.
const KEEP_CONNECTION: Duration = Duration::from_secs(60);
/// Time between two log lines about the progress of a payload.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

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
            AgentError::NoServer => Unusable::NoServer.fmt(f),
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

/// Runs until it is asked to stop.
///
/// # Errors
/// When it cannot begin.
pub fn run(setup: &Setup) -> Result<(), AgentError> {
    let clock = LinuxClock::new();
    let _stops = signals::handle(&clock).map_err(AgentError::Signals)?;
    linux::process::hide_inherited_descriptors();
    let board = StatusBoard::default();
    #[cfg_attr(not(feature = "dbus"), allow(unused_mut))]
    let mut beginning = Beginning::make(setup, &clock)?;
    #[cfg(feature = "dbus")]
    let add_ons = add_ons(setup, &mut beginning, &clock, &board);
    // Where that fails, the server is told what is known.
    if let Err(error) = setup.give_a_name() {
        log::error!("{error}");
    }
    show_loss(setup, &board);
    let question = SharedQuestion::default();
    let _status = serve_status(setup, &clock, &board, &question);
    let environment = |name: &str| std::env::var_os(name).map(Into::into);
    let supervision = Supervision::from_environment(environment, Arc::new(clock.clone()));
    let gates = Gates::new(setup.config.gates.clone(), question.clone(), Arc::clone(&supervision.clock));
    let gates = gates.behind(Box::new(ConfigurationGate(setup.config_files())));
    #[cfg(feature = "dbus")]
    let gates = add_ons.iter().map(|add_ons| add_ons.control_gate()).fold(gates, Gates::behind);
    let mut host = LinuxHost {
        setup,
        scripts: setup.scripts(Arc::clone(&supervision.clock)),
        logs: DeploymentLogs::new(setup.deployment_log_directory()),
        watcher: Watcher::new(board, &supervision),
        transport: beginning.transport,
        api_connections: beginning.api_connections,
        download_connections: None,
        gates,
        question,
        clock: Arc::clone(&supervision.clock),
    };
    let (config, time) = (&setup.config, Arc::clone(&supervision.clock));
    let schedule = Schedule::new(&*time, config.update_poll_interval, config.inventory_poll_interval);
    let mut waiter = WatchedWaiter::new(clock.waiter(), supervision.watchdog);
    log::info!("rust-ota {} started", env!("CARGO_PKG_VERSION"));
    supervision.notifier.ready();
    let settings = setup.agent_settings();
    let server = Arc::new(Mutex::new(beginning.api));
    let mut agent = Agent::new(&mut host, server.clone(), time, &mut waiter, settings, schedule);
    #[cfg(feature = "dbus")]
    if let Some(Err(error)) = add_ons.map(|add_ons| add_ons.start(server)) {
        log::warn!("add-ons cannot be served: {error}");
    }
    agent.run();
    supervision.notifier.stopping();
    Ok(())
}

/// What has to be there before the daemon begins, made while no other process works on the device.
struct Beginning {
    _pid_file: PidFile,
    transport: HttpTransport,
    api: Api,
    api_connections: IdleConnections,
}

impl Beginning {
    fn make(setup: &Setup, clock: &LinuxClock) -> Result<Beginning, AgentError> {
        // A key is made by one process at a time.
        let _lock = setup.lock()?;
        let pid_file = PidFile::create(&setup.pid_file(), LOCK_PATIENCE).map_err(AgentError::PidFile)?;
        let transport = setup.http_transport(Arc::new(clock.clone()))?;
        // Certificates that cannot be read are worth a line at the start, not only at the first poll.
        if !setup.config.servers.iter().all(|server| server.starts_with("http://")) {
            if let Err(error) = transport.check() {
                log::warn!("{error}");
            }
        }
        let api_transport = transport.another();
        let api_connections = api_transport.idle_connections();
        let api = api(setup, api_transport, Arc::new(clock.clone()))?;
        if setup.config_error.is_none() {
            if let Err(error) = setup.keep_config() {
                log::warn!("a daemon that finds a bad configuration would have none: {error}");
            }
        }
        Ok(Beginning { _pid_file: pid_file, transport, api, api_connections })
    }
}

/// Answers `rust-ota status` until the returned value is dropped.
fn serve_status(
    setup: &Setup,
    clock: &LinuxClock,
    board: &StatusBoard,
    question: &SharedQuestion,
) -> Option<StatusServer> {
    let waking = clock.clone();
    let wake = move || waking.request_check_update();
    let (path, clock) = (setup.status_socket(), Arc::new(clock.clone()));
    status::serve(&path, board.clone(), clock, question.clone(), wake)
        .inspect_err(|error| log::warn!("`rust-ota status` will not be answered: {error}"))
        .ok()
}

/// Says on the board whether the record was lost.
fn show_loss(setup: &Setup, board: &StatusBoard) {
    let lost = match setup.read_record() {
        Ok(record) => record.and_then(|record| record.lost).map(|lost| lost.reason),
        Err(error) => Some(error.to_string()),
    };
    board.lock().set_record_lost(lost.as_deref());
}

/// What other programs of the device use. Without it the daemon goes on.
#[cfg(feature = "dbus")]
fn add_ons(
    setup: &Setup,
    beginning: &mut Beginning,
    clock: &LinuxClock,
    board: &StatusBoard,
) -> Option<Arc<AddOns>> {
    let config = &setup.config;
    if !config.dbus_enabled {
        return None;
    }
    let lifetime = config.control_map_expiration.unwrap_or(config.update_poll_interval.saturating_mul(2));
    let after_start = config.control_map_boot_expiration;
    let maps = KeptControlMaps::load(&setup.datastore, lifetime, after_start, Arc::new(clock.clone()));
    match LocalProxy::new(beginning.transport.dialer(), Arc::new(clock.clone())) {
        Ok(proxy) => {
            let (waking, board) = (clock.clone(), board.clone());
            // A map that is sent again and again must not make the device ask the server again and again.
            let wake = move || {
                if board.lock().is_waiting() {
                    waking.request_check_update();
                }
            };
            let add_ons = AddOns::new(proxy, maps, Arc::new(clock.clone()), wake);
            beginning.api.watch_token(add_ons.watcher());
            Some(add_ons)
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
    question: SharedQuestion,
    clock: Arc<dyn Clock>,
}

impl Host for LinuxHost<'_> {
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), HostError> {
        // Only while there is something to do: the command line works beside a daemon that waits.
        let mut device = self.setup.open_device(&self.clock).map_err(no_device)?;
        work(&mut device.seams(&mut self.watcher, &mut self.gates, reporter));
        Ok(())
    }

    fn look(&mut self) -> Result<Option<Known>, HostError> {
        let _lock = self.setup.lock().map_err(no_device)?;
        // A record that is not there, or cannot be read, is for who may make another one.
        let Ok(Some(record)) = self.setup.read_record() else { return Ok(None) };
        Ok(Some(Known { record, device_type: self.setup.system().device_type() }))
    }

    fn policy(&mut self) -> Result<Policy, PolicyError> {
        self.setup.policy().map_err(PolicyError::new)
    }

    fn scripts(&mut self) -> &mut dyn ScriptRunner {
        &mut self.scripts
    }

    fn inventory(&mut self) -> Result<Vec<Attribute>, HostError> {
        let directory = self.setup.inventory_directory();
        inventory::ask(&directory, RunLimits::default(), &*self.clock)
            .map(|attributes| with_own_attributes(attributes, self.known()))
            .map_err(|error| HostError::Inventory(error.into()))
    }

    fn download_transport(&mut self) -> Box<dyn Transport> {
        let transport = self.transport.another();
        self.download_connections = Some(transport.idle_connections());
        Box::new(transport)
    }

    fn begin_log(&mut self, id: &DeploymentId) {
        let log = self.logs.open(id).inspect_err(|error| {
            log::warn!("deployment {id}: going on without a log of its own: {error}");
        });
        logger::begin_deployment(id, log.ok());
    }

    fn end_log(&mut self) {
        logger::end_deployment();
        if let Some(connections) = self.download_connections.take() {
            connections.close();
        }
    }

    fn log_messages(&mut self, id: &DeploymentId) -> Vec<u8> {
        self.logs
            .read_for_upload(id)
            .unwrap_or_else(|error| {
                log::warn!("deployment {id}: its log cannot be sent: {error}");
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
            self.question.clear();
            show_loss(self.setup, &self.watcher.board);
        }
        let config = &self.setup.config;
        let script = config.state_script_timeout;
        let scripts = script.saturating_add(config.state_script_retry_timeout);
        // Of one stage: its scripts before and behind it, and the calls of an update module (clean-up, question, download).
        let calls = config.module_timeout.saturating_mul(3);
        self.watcher.tell(event, scripts, script.saturating_mul(2).max(scripts).saturating_add(calls));
    }
}

fn no_device(error: ComposeError) -> HostError {
    match error {
        ComposeError::Lock(LockError::Held { .. }) => HostError::Busy(error.into()),
        ComposeError::Lock(_)
        | ComposeError::Config(_)
        | ComposeError::Key { .. }
        | ComposeError::State(_)
        | ComposeError::Record(_)
        | ComposeError::Io { .. }
        | ComposeError::LogLevel(_) => HostError::Device(error.into()),
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
            known.push(("rust_ota_config_error", error.to_string()));
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
    board: StatusBoard,
    clock: Arc<dyn Clock>,
    watchdog: Watchdog,
    notifier: Notifier,
    /// When the progress was logged last.
    told: Duration,
}

impl Watcher {
    fn new(board: StatusBoard, supervision: &Supervision) -> Watcher {
        Watcher {
            board,
            clock: Arc::clone(&supervision.clock),
            watchdog: supervision.watchdog.clone(),
            notifier: supervision.notifier.clone(),
            told: Duration::ZERO,
        }
    }

    /// `scripts` is what a set of state scripts may take, `silence` the longest time without a sign of life that a
    /// deployment may take.
    fn tell(&mut self, event: &Event<'_>, scripts: Duration, silence: Duration) {
        let now = self.clock.now();
        let mut board = self.board.lock();
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
        self.board.lock().set_progress(done_bytes, Some(total_bytes));
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
        self.board.lock().set_stage(&stage.to_string());
        self.watchdog.alive();
    }

    fn stop_requested(&self) -> bool {
        self.clock.stop_requested()
    }
}
