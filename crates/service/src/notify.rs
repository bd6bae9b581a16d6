//! What the service manager wants to hear, in the protocol of `sd_notify`, without its library.
//!
//! The watchdog is fed from the places that show that the main loop lives: before each part of a wait, and from
//! progress. Work that shows no progress, such as a script, gets an allowance that ends by itself. No thread feeds it on
//! the side: a thread would go on while the main loop hangs.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client_core::clock::{Clock, Paused, Waiter, Wake};

/// Longest time that sending may take: the service manager reads at once or is in trouble itself.
const SEND: Duration = Duration::from_secs(1);

/// The service manager as the daemon has to do with it.
pub struct Supervision {
    /// Whom to tell what is done.
    pub notifier: Notifier,
    /// What shows that the main loop lives.
    pub watchdog: Watchdog,
    /// The clock of the main loop.
    pub clock: Arc<dyn Clock>,
}

impl Supervision {
    /// Reads what the service manager says with `environment`; time is that of `clock`.
    pub fn from_environment(
        environment: impl Fn(&str) -> Option<PathBuf> + Copy,
        clock: Arc<dyn Clock>,
    ) -> Supervision {
        let notifier = Notifier::from_environment(environment);
        let watchdog = Watchdog::from_environment(environment, notifier.clone(), Arc::clone(&clock));
        let clock = Arc::new(WatchedClock::new(clock, watchdog.clone()));
        Supervision { notifier, watchdog, clock }
    }
}

/// Tells the service manager what this process is doing. Without a service manager it tells nobody.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET` with `environment`.
    pub fn from_environment(environment: impl Fn(&str) -> Option<PathBuf>) -> Notifier {
        let Some(path) = environment("NOTIFY_SOCKET").filter(|path| !path.as_os_str().is_empty()) else {
            return Notifier::default();
        };
        let connect = || {
            let address = match path.as_os_str().as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&path)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND))?;
            Ok::<_, std::io::Error>((socket, address))
        };
        match connect() {
            Ok(to) => Notifier { to: Some(Arc::new(to)) },
            Err(error) => {
                log::warn!("cannot speak to the service manager: {error}");
                Notifier::default()
            }
        }
    }

    /// The daemon has started.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// One line for people.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace(['\n', '\r'], " ")));
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        let Some(to) = &self.to else { return };
        if let Err(error) = to.0.send_to_addr(message.as_bytes(), &to.1) {
            log::debug!("the service manager does not listen: {error}");
        }
    }
}

/// Shows the service manager that the main loop lives. Clones are the same watchdog.
#[derive(Clone)]
pub struct Watchdog {
    notifier: Notifier,
    clock: Arc<dyn Clock>,
    /// Silence after which the service manager restarts this process; `None` when it does not.
    limit: Option<Duration>,
    /// When it was fed last.
    fed: Arc<Mutex<Option<Duration>>>,
    /// What is allowed beyond the limit at the moment.
    allowance: Arc<Mutex<Duration>>,
}

impl Watchdog {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID` with `environment`.
    pub fn from_environment(
        environment: impl Fn(&str) -> Option<PathBuf>,
        notifier: Notifier,
        clock: Arc<dyn Clock>,
    ) -> Watchdog {
        let number = |name| environment(name)?.to_str()?.parse::<u64>().ok();
        // The variables may be meant for the process that started this one.
        let ours = environment("WATCHDOG_PID").is_none()
            || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|limit| ours && *limit > 0).map(Duration::from_micros);
        Watchdog { notifier, clock, limit, fed: Arc::default(), allowance: Arc::default() }
    }

    /// How often it wants to be fed: twice as often as it must.
    pub fn interval(&self) -> Option<Duration> {
        self.limit.map(|limit| limit / 2)
    }

    /// The main loop lives. May be called as often as there is progress: most calls send nothing.
    pub fn alive(&self) {
        let Some(interval) = self.interval() else { return };
        let mut fed = self.fed.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        if fed.is_none_or(|fed| now.saturating_sub(fed) >= interval / 2) {
            *fed = Some(now);
            self.notifier.send("WATCHDOG=1");
        }
    }

    /// Lets `time` pass without a sign of life, for work that has a deadline of its own, until
    /// [`restore`](Watchdog::restore).
    pub fn extend(&self, time: Duration) {
        self.allow(time);
    }

    /// Back to the configured silence.
    pub fn restore(&self) {
        self.allow(Duration::ZERO);
    }

    fn allow(&self, time: Duration) {
        let Some(limit) = self.limit else { return };
        let mut allowance = self.allowance.lock().unwrap_or_else(PoisonError::into_inner);
        if *allowance != time {
            *allowance = time;
            let limit = limit.saturating_add(time);
            self.notifier.send(&format!("WATCHDOG_USEC={}\nWATCHDOG=1", limit.as_micros()));
        }
    }
}

/// The clock of the main loop: its pauses feed the watchdog. A server that is out of reach may be waited for longer than
/// any allowance. Not for threads that go on for ever whatever the main
/// loop does.
pub(crate) struct WatchedClock {
    clock: Arc<dyn Clock>,
    watchdog: Watchdog,
}

impl WatchedClock {
    /// Pauses with `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>, watchdog: Watchdog) -> WatchedClock {
        WatchedClock { clock, watchdog }
    }
}

impl Clock for WatchedClock {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall(&self) -> Duration {
        self.clock.wall()
    }

    fn pause(&self, time: Duration) -> Paused {
        let Some(interval) = self.watchdog.interval() else { return self.clock.pause(time) };
        let end = self.clock.now().saturating_add(time);
        loop {
            self.watchdog.alive();
            let left = end.saturating_sub(self.clock.now());
            match self.clock.pause(left.min(interval)) {
                Paused::Elapsed if left > interval => {}
                ended @ (Paused::Elapsed | Paused::Stopped) => return ended,
            }
        }
    }

    fn stop_requested(&self) -> bool {
        self.clock.stop_requested()
    }

    fn random(&self) -> u64 {
        self.clock.random()
    }
}

/// A waiter that feeds the watchdog while it waits.
pub(crate) struct WatchedWaiter<W> {
    waiter: W,
    watchdog: Watchdog,
}

impl<W: Waiter> WatchedWaiter<W> {
    /// Waits with `waiter`.
    pub(crate) fn new(waiter: W, watchdog: Watchdog) -> WatchedWaiter<W> {
        WatchedWaiter { waiter, watchdog }
    }
}

impl<W: Waiter> Waiter for WatchedWaiter<W> {
    fn wait(&mut self, time: Duration) -> Wake {
        let Some(interval) = self.watchdog.interval() else { return self.waiter.wait(time) };
        // Whatever the work before was allowed: waiting is watched closely.
        self.watchdog.restore();
        let end = self.watchdog.clock.now().saturating_add(time);
        loop {
            self.watchdog.alive();
            let left = end.saturating_sub(self.watchdog.clock.now());
            match self.waiter.wait(left.min(interval)) {
                Wake::Elapsed if left > interval => {}
                wake @ (Wake::Stop | Wake::CheckUpdate | Wake::SendInventory | Wake::Elapsed) => return wake,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that waiting moves.
    #[derive(Default)]
    struct TestClock(Mutex<Duration>);

    impl Clock for TestClock {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn wall(&self) -> Duration {
            self.now()
        }
        fn pause(&self, time: Duration) -> Paused {
            *self.0.lock().unwrap() += time;
            Paused::Elapsed
        }
        fn stop_requested(&self) -> bool {
            false
        }
        fn random(&self) -> u64 {
            0
        }
    }

    struct TestWaiter(Arc<TestClock>);

    impl Waiter for TestWaiter {
        fn wait(&mut self, time: Duration) -> Wake {
            self.0.pause(time);
            Wake::Elapsed
        }
    }

    struct Manager {
        socket: UnixDatagram,
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    impl Manager {
        fn new() -> Manager {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            Manager { socket, _directory: directory, path }
        }

        fn notifier(&self) -> Notifier {
            Notifier::from_environment(|_| Some(self.path.clone()))
        }

        /// What came since the last call.
        fn heard(&self) -> Vec<String> {
            let mut messages = Vec::new();
            let mut buffer = [0; 256];
            while let Ok(count) = self.socket.recv(&mut buffer) {
                messages.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
            }
            messages
        }

        fn watchdog(&self, clock: &Arc<TestClock>, variables: &[(&str, String)]) -> Watchdog {
            let environment = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| PathBuf::from(value))
            };
            Watchdog::from_environment(environment, self.notifier(), Arc::clone(clock) as Arc<dyn Clock>)
        }
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_service_manager_hears_start_status_and_end() {
        let manager = Manager::new();
        let notifier = manager.notifier();
        notifier.ready();
        notifier.status("two\nlines");
        notifier.stopping();
        assert_eq!(manager.heard(), ["READY=1", "STATUS=two lines", "STOPPING=1"]);
        Notifier::from_environment(|_| None).ready();
        Notifier::from_environment(|_| Some("/nonexistent/socket".into())).ready();
    }

    #[test]
    fn an_abstract_socket_begins_with_an_at() {
        let name = format!("rust-ota-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::from_environment(|_| Some(format!("@{name}").into())).ready();
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 7);
    }

    #[test]
    fn the_watchdog_is_fed_while_waiting_and_not_more_often_than_needed() {
        let manager = Manager::new();
        let clock = Arc::new(TestClock::default());
        let watchdog = manager.watchdog(&clock, &[("WATCHDOG_USEC", "60000000".into())]);
        assert_eq!(watchdog.interval(), Some(seconds(30)));
        for _ in 0..100 {
            watchdog.alive();
        }
        assert_eq!(manager.heard(), ["WATCHDOG=1"]);
        let mut waiter = WatchedWaiter::new(TestWaiter(Arc::clone(&clock)), watchdog);
        assert_eq!(waiter.wait(seconds(95)), Wake::Elapsed);
        assert_eq!(clock.now(), seconds(95));
        assert_eq!(manager.heard(), ["WATCHDOG=1"; 3]);
    }

    #[test]
    fn a_long_pause_of_the_main_loop_feeds_the_watchdog() {
        let manager = Manager::new();
        let clock = Arc::new(TestClock::default());
        let watchdog = manager.watchdog(&clock, &[("WATCHDOG_USEC", "60000000".into())]);
        let watched = WatchedClock::new(Arc::clone(&clock) as Arc<dyn Clock>, watchdog);
        assert_eq!(watched.pause(seconds(100)), Paused::Elapsed);
        assert_eq!(clock.now(), seconds(100));
        assert_eq!(manager.heard(), ["WATCHDOG=1"; 4]);
    }

    #[test]
    fn waiting_ends_what_was_allowed_for_work() {
        let manager = Manager::new();
        let clock = Arc::new(TestClock::default());
        let watchdog = manager.watchdog(&clock, &[("WATCHDOG_USEC", "60000000".into())]);
        watchdog.extend(seconds(40));
        watchdog.extend(seconds(40));
        assert_eq!(manager.heard(), ["WATCHDOG_USEC=100000000\nWATCHDOG=1"]);
        WatchedWaiter::new(TestWaiter(Arc::clone(&clock)), watchdog).wait(seconds(1));
        assert_eq!(manager.heard(), ["WATCHDOG_USEC=60000000\nWATCHDOG=1", "WATCHDOG=1"]);
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_fed() {
        let manager = Manager::new();
        let clock = Arc::new(TestClock::default());
        let limit = || ("WATCHDOG_USEC", "60000000".to_owned());
        let ours = ("WATCHDOG_PID", std::process::id().to_string());
        assert!(manager.watchdog(&clock, &[limit(), ours]).interval().is_some());
        assert!(manager.watchdog(&clock, &[limit(), ("WATCHDOG_PID", "1".into())]).interval().is_none());
        assert!(manager.watchdog(&clock, &[("WATCHDOG_USEC", "x".into())]).interval().is_none());
        let none = manager.watchdog(&clock, &[]);
        none.alive();
        none.extend(seconds(5));
        none.restore();
        assert!(manager.heard().is_empty());
    }

    #[test]
    fn an_allowance_ends() {
        let manager = Manager::new();
        let clock = Arc::new(TestClock::default());
        let watchdog = manager.watchdog(&clock, &[("WATCHDOG_USEC", "60000000".into())]);
        watchdog.extend(seconds(3600));
        watchdog.restore();
        let expected = ["WATCHDOG_USEC=3660000000\nWATCHDOG=1", "WATCHDOG_USEC=60000000\nWATCHDOG=1"];
        assert_eq!(manager.heard(), expected);
    }
}
