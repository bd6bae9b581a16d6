//! The D-Bus API of the Mender client, for its add-ons: the token of the device, a way to the server, and
//! control maps.
//!
//! Nothing of the daemon depends on a bus. Where there is none, or it goes away, it is looked for now and
//! then.

mod authentication;
mod control_maps;
mod update;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use client_core::clock::{Clock, Paused};
use client_core::deploy::gates::Gatekeeper;
use server_mender::{Api, Grant, TokenWatcher};
use zbus::blocking::{Connection, MessageIterator, connection};

use self::authentication::Authentication;
pub(crate) use self::control_maps::KeptControlMaps;
use self::control_maps::NotTaken;
use self::update::Update;
use crate::local_proxy::{Access, LocalProxy};

/// Time between two attempts to find a bus, at first and at most.
const LOOK_FOR_A_BUS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Least time between two tokens that programs ask for: one that asks in a loop must not make the device do
/// so.
const BETWEEN_TOKENS: Duration = Duration::from_secs(5);
/// Stack of the threads: encryption and signatures are computed on it.
const STACK: usize = 512 * 1024;

/// What other programs of the device are told and may ask for.
pub(crate) struct AddOns {
    proxy: LocalProxy,
    clock: Arc<dyn Clock>,
    maps: KeptControlMaps,
    /// Called when a new map may let a deployment go on.
    wake: Box<dyn Fn() + Send + Sync>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    access: Access,
    /// How many times there was something to tell; 0 before the first attempt to get a token.
    news: u64,
    /// A program asked for a token that nobody has tried to get yet.
    token_wanted: bool,
    /// A program waits for news, whether or not something changes.
    news_wanted: bool,
    /// Connections to a bus that have ended.
    lost: u64,
}

impl AddOns {
    /// Tells nobody yet.
    pub(crate) fn new(
        proxy: LocalProxy,
        maps: KeptControlMaps,
        clock: Arc<dyn Clock>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Arc<AddOns> {
        Arc::new(AddOns {
            proxy,
            clock,
            maps,
            wake: Box::new(wake),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// What has to hear of the token.
    pub(crate) fn watcher(self: &Arc<AddOns>) -> Box<dyn TokenWatcher> {
        Box::new(Watcher(Arc::clone(self)))
    }

    /// What the daemon asks before it installs, restarts and commits.
    pub(crate) fn control_gate(&self) -> Box<dyn Gatekeeper> {
        Box::new(self.maps.clone())
    }

    /// Starts to answer on the system bus, in threads that end with the process. Tokens are asked for with
    /// `api`.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn start(self: &Arc<AddOns>, api: Arc<Mutex<Api>>) -> io::Result<()> {
        let (this, thread) = (Arc::clone(self), || thread::Builder::new().stack_size(STACK));
        thread().name("tokens".into()).spawn(move || this.get_tokens(&api))?;
        let this = Arc::clone(self);
        thread().name("bus".into()).spawn(move || this.stay_on_the_bus())?;
        Ok(())
    }

    fn access(&self) -> Access {
        self.state().access.clone()
    }

    fn ask_for_a_token(&self) {
        let mut state = self.state();
        state.token_wanted = true;
        state.news_wanted = true;
        drop(state);
        self.changed.notify_all();
    }

    fn take_control_map(&self, text: &str) -> Result<Duration, NotTaken> {
        let refresh = self.maps.accept(text)?;
        log::info!("D-Bus: a control map was set");
        (self.wake)();
        Ok(refresh)
    }

    /// A thread that panicked leaves nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets a token whenever one was asked for.
    fn get_tokens(&self, api: &Mutex<Api>) {
        loop {
            let mut state = self.state();
            while !std::mem::take(&mut state.token_wanted) {
                state = self.wait(state);
            }
            drop(state);
            let renewed = api.lock().unwrap_or_else(PoisonError::into_inner).renew_token();
            if let Err(error) = renewed {
                log::warn!("a program asked for a token: {error}");
            }
            if self.clock.pause(BETWEEN_TOKENS) == Paused::Stopped {
                return;
            }
        }
    }

    fn stay_on_the_bus(self: &Arc<AddOns>) {
        let [first, most] = LOOK_FOR_A_BUS;
        let mut pause = first;
        loop {
            match self.join() {
                Ok(connection) => {
                    log::info!("D-Bus: answering as {} and {}", authentication::NAME, update::NAME);
                    pause = first;
                    let error = self.tell_the_bus(&connection);
                    log::warn!("D-Bus: {error}; looking for the bus again");
                    // The thread that watches has a share in it, and what still owns the names would be in
                    // the way.
                    if let Err(error) = connection.close() {
                        log::debug!("D-Bus: {error}");
                    }
                }
                // Once is enough: most devices without a bus never get one.
                Err(error) if pause == first => {
                    log::warn!("D-Bus: {error}; add-ons have to wait, nothing else does");
                }
                Err(error) => log::debug!("D-Bus: {error}"),
            }
            if self.clock.pause(pause) == Paused::Stopped {
                return;
            }
            pause = (pause * 2).min(most);
        }
    }

    fn join(self: &Arc<AddOns>) -> zbus::Result<Connection> {
        let add_ons = || Arc::clone(self);
        connection::Builder::system()?
            .serve_at(authentication::PATH, Authentication { add_ons: add_ons() })?
            .serve_at(update::PATH, Update { add_ons: add_ons() })?
            .name(authentication::NAME)?
            .name(update::NAME)?
            .build()
    }

    /// Tells all news until the connection is lost. Whoever comes late is told the last ones.
    fn tell_the_bus(self: &Arc<AddOns>, connection: &Connection) -> zbus::Error {
        let lost_before = self.state().lost;
        if let Err(error) = self.watch(connection) {
            return error.into();
        }
        let mut told = 0;
        loop {
            let mut state = self.state();
            while state.news == told && state.lost == lost_before {
                state = self.wait(state);
            }
            if state.lost != lost_before {
                return zbus::Error::InputOutput(Arc::new(io::ErrorKind::ConnectionReset.into()));
            }
            told = state.news;
            let Access { token, address } = state.access.clone();
            drop(state);
            let object = connection.object_server().interface::<_, Authentication>(authentication::PATH);
            let sent = object.and_then(|object| {
                let signal =
                    Authentication::jwt_token_state_change(object.signal_emitter(), &token, &address);
                zbus::block_on(signal)
            });
            if let Err(error) = sent {
                return error;
            }
        }
    }

    /// Notices the end of `connection`.
    fn watch(self: &Arc<AddOns>, connection: &Connection) -> io::Result<()> {
        let (this, messages) = (Arc::clone(self), MessageIterator::from(connection));
        let work = move || {
            // The last item of a connection that ended is an error.
            let _ = messages.take_while(Result::is_ok).count();
            this.state().lost += 1;
            this.changed.notify_all();
        };
        thread::Builder::new().name("bus watcher".into()).stack_size(STACK).spawn(work)?;
        Ok(())
    }
}

/// Opens and closes the way to the server as the token comes and goes.
struct Watcher(Arc<AddOns>);

impl TokenWatcher for Watcher {
    fn held(&mut self, grant: Option<Grant<'_>>) {
        let add_ons = &self.0;
        let access = match grant {
            Some(grant) => add_ons.proxy.serve(grant.server, grant.token).unwrap_or_else(|error| {
                log::warn!("no port for add-ons: {error}");
                Access::default()
            }),
            None => {
                add_ons.proxy.close();
                Access::default()
            }
        };
        let mut state = add_ons.state();
        let wanted = std::mem::take(&mut state.news_wanted);
        if state.news == 0 || state.access != access || wanted {
            state.access = access;
            state.news += 1;
            drop(state);
            add_ons.changed.notify_all();
        }
    }
}
