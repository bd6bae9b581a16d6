//! The service: what has to be there before it begins, and the two ways to run it, for good or a round at a time.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_core::agent::{Agent, AgentSettings, Memory};
use client_core::clock::{Clock, Waiter, Wake};
use client_core::deploy::Observer;
use client_core::deploy::gates::Gatekeeper;
#[cfg(feature = "monitor")]
use client_core::monitor::Watch;
use client_core::schedule::Schedule;
use linux::clock::LinuxClock;
use linux::daemon_process::PidFile;
use linux::lock::LockError;
use server_mender::{Api, Settings};

#[cfg(feature = "dbus")]
use crate::dbus::{AddOns, KeptControlMaps};
use crate::deployment_log::Logs;
use crate::host::LinuxHost;
#[cfg(feature = "dbus")]
use crate::local_proxy::LocalProxy;
#[cfg(feature = "monitor")]
use crate::monitor;
use crate::notify::{Supervision, WatchedWaiter};
use crate::status::{self, StatusBoard, StatusServer};
use crate::watcher::{Round, Watcher, show_record};
use device::compose::{ComposeError, LOCK_PATIENCE, Setup};
use device::config_files::Unusable;
use device::gates::{ConfigurationGate, Gates, SharedQuestion};
use device::keystore::{self, KeyStoreError};
use http::{HttpError, HttpTransport, IdleConnections};

/// Why the service cannot run.
pub enum ServiceError {
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
    /// No server accepts the device.
    Refused(String),
}

client_core::artifact::debug_as_displayed!(ServiceError);

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServiceError::Compose(error) => error.fmt(f),
            ServiceError::NoServer => Unusable::NoServer.fmt(f),
            ServiceError::PidFile(LockError::Held { path }) => {
                write!(f, "a daemon is running already: it holds {}", path.display())
            }
            ServiceError::PidFile(error) => error.fmt(f),
            ServiceError::Key(error) => error.fmt(f),
            ServiceError::Http(error) => error.fmt(f),
            ServiceError::Refused(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ServiceError {}

impl From<ComposeError> for ServiceError {
    fn from(error: ComposeError) -> ServiceError {
        ServiceError::Compose(error)
    }
}

impl From<KeyStoreError> for ServiceError {
    fn from(error: KeyStoreError) -> ServiceError {
        ServiceError::Key(error)
    }
}

impl From<HttpError> for ServiceError {
    fn from(error: HttpError) -> ServiceError {
        ServiceError::Http(error)
    }
}

/// What the service has from whoever runs it.
pub struct Surroundings {
    /// Its clock: a request to stop that this has ends the service.
    pub clock: LinuxClock,
    /// The service manager, where the process belongs to the service.
    pub supervision: Supervision,
    /// Where log lines go.
    pub logs: Box<dyn Logs>,
    /// Who is asked besides what the configuration names, about every deployment of the server.
    pub gate: Option<Box<dyn Gatekeeper>>,
    /// Who is told besides the status and the log.
    pub observer: Option<Box<dyn Observer>>,
}

/// The daemon on this device. Only one of them is on a device, whichever process it is in.
pub struct Service {
    _pid_file: PidFile,
    host: LinuxHost,
    server: Arc<Mutex<Api>>,
    clock: LinuxClock,
    supervision: Supervision,
    board: StatusBoard,
    question: SharedQuestion,
    settings: AgentSettings,
    memory: Memory,
    #[cfg(feature = "dbus")]
    add_ons: Option<Arc<AddOns>>,
}

impl Service {
    /// Makes what has to be there, the device key among it, while no other process works on the device.
    ///
    /// # Errors
    /// When it cannot begin: another daemon runs, the key cannot be used, there is no server to talk to.
    pub fn begin(setup: Arc<Setup>, surroundings: Surroundings) -> Result<Service, ServiceError> {
        let Surroundings { clock, supervision, logs, gate, observer } = surroundings;
        let board = StatusBoard::default();
        #[cfg_attr(not(feature = "dbus"), allow(unused_mut))]
        let mut beginning = Beginning::make(&setup, &clock)?;
        #[cfg(feature = "dbus")]
        let add_ons = add_ons(&setup, &mut beginning, &clock, &board);
        // Where that fails, the server is told what is known.
        if let Err(error) = setup.give_a_name() {
            log::error!("{error}");
        }
        show_record(&setup, &board);
        let question = SharedQuestion::default();
        let gates = Gates::new(setup.config.gates.clone(), question.clone(), Arc::clone(&supervision.clock));
        let gates = gates.behind(Box::new(ConfigurationGate(setup.config_files())));
        #[cfg(feature = "dbus")]
        let gates = add_ons.iter().map(|add_ons| add_ons.control_gate()).fold(gates, Gates::behind);
        let gates = gate.into_iter().fold(gates, Gates::behind);
        let settings = setup.agent_settings();
        let (config, time) = (&setup.config, &*supervision.clock);
        let schedule = Schedule::new(time, config.update_poll_interval, config.inventory_poll_interval);
        let memory = Memory::new(schedule, &settings);
        let host = LinuxHost::new(
            setup,
            Watcher::new(board.clone(), &supervision, observer),
            logs,
            (beginning.transport, beginning.api_connections),
            (gates, question.clone()),
            Arc::clone(&supervision.clock),
        );
        #[cfg(feature = "monitor")]
        let host = host.watching(beginning.watch);
        Ok(Service {
            _pid_file: beginning.pid_file,
            host,
            server: Arc::new(Mutex::new(beginning.api)),
            clock,
            supervision,
            board,
            question,
            settings,
            memory,
            #[cfg(feature = "dbus")]
            add_ons,
        })
    }

    /// Runs until it is asked to stop. The status is served meanwhile, and what add-ons need.
    pub fn run(&mut self) {
        let _status = self.serve_status();
        #[cfg(feature = "dbus")]
        if let Some(Err(error)) = self.add_ons.take().map(|add_ons| add_ons.start(self.server.clone())) {
            log::warn!("add-ons cannot be served: {error}");
        }
        log::info!("rust-ota {} started", env!("CARGO_PKG_VERSION"));
        self.supervision.notifier.ready();
        let mut waiter = WatchedWaiter::new(self.clock.waiter(), self.supervision.watchdog.clone());
        self.agent(&mut waiter, |agent| agent.run());
        self.supervision.notifier.stopping();
    }

    /// Does what is to be done now, asks the server, and returns: for a process that has a loop of its own.
    pub fn round(&mut self) -> Round {
        self.host.watcher.forget_round();
        let next = self.agent(&mut NoWait, |agent| agent.round());
        Round { next, ..self.host.watcher.round().clone() }
    }

    fn agent<T>(&mut self, waiter: &mut dyn Waiter, work: impl FnOnce(&mut Agent<'_>) -> T) -> T {
        let clock = Arc::clone(&self.supervision.clock);
        let (host, memory) = (&mut self.host, &mut self.memory);
        work(&mut Agent::new(host, self.server.clone(), clock, waiter, &self.settings, memory))
    }

    /// Answers `rust-ota status` until the returned value is dropped.
    fn serve_status(&self) -> Option<StatusServer> {
        let waking = self.clock.clone();
        let wake = move || waking.request_check_update();
        let (path, clock) = (self.host.setup.status_socket(), Arc::new(self.clock.clone()));
        status::serve(&path, self.board.clone(), clock, self.question.clone(), wake)
            .inspect_err(|error| log::warn!("`rust-ota status` will not be answered: {error}"))
            .ok()
    }
}

/// Whoever does the waiting has the loop.
struct NoWait;

impl Waiter for NoWait {
    fn wait(&mut self, _: Duration) -> Wake {
        Wake::Stop
    }
}

/// What has to be there before the service begins, made while no other process works on the device.
struct Beginning {
    pid_file: PidFile,
    transport: HttpTransport,
    api: Api,
    api_connections: IdleConnections,
    #[cfg(feature = "monitor")]
    watch: Option<Watch>,
}

impl Beginning {
    fn make(setup: &Setup, clock: &LinuxClock) -> Result<Beginning, ServiceError> {
        // A key is made by one process at a time.
        let _lock = setup.lock()?;
        let pid_file = PidFile::create(&setup.pid_file(), LOCK_PATIENCE).map_err(ServiceError::PidFile)?;
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
        Ok(Beginning {
            pid_file,
            transport,
            api,
            api_connections,
            #[cfg(feature = "monitor")]
            watch: monitor::watch(setup, Arc::new(clock.clone())),
        })
    }
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
pub fn bootstrap(setup: &Setup, force: bool) -> Result<(), ServiceError> {
    let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
    let _lock = setup.lock()?;
    if force {
        keystore::force_new(&setup.key_place())?;
    }
    let transport = setup.http_transport(Arc::clone(&clock))?;
    let mut api = api(setup, transport, clock)?;
    api.authenticate().map_err(|error| ServiceError::Refused(error.to_string()))
}

fn api(setup: &Setup, transport: HttpTransport, clock: Arc<dyn Clock>) -> Result<Api, ServiceError> {
    if setup.config.servers.is_empty() {
        return Err(ServiceError::NoServer);
    }
    let credentials = setup.credentials(Arc::clone(&clock))?;
    let settings = Settings {
        servers: setup.config.servers.clone(),
        tenant_token: setup.config.tenant_token.clone(),
        device_tier: setup.config.device_tier.clone(),
    };
    Ok(Api::new(Box::new(transport), Box::new(credentials), clock, settings))
}
