//! A way to the server for other programs of this device, which have no TLS settings: plain HTTP on the
//! loopback.
//!
//! Only who has the token of the device may use it, and only for the device API without authentication. Each
//! token has a port of its own; after a change the old port stays for a while. The server sees the token that
//! is good now.

mod body;
mod head;
mod relay;
#[cfg(test)]
#[path = "../../../http/src/test_support.rs"]
mod test_support;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
use linux::local_socket::{self, Wanted};
use ureq::http::Uri;

use self::head::{NO_ANSWER, REQUEST_BYTES, Refusal, RequestHead, TOO_MANY, WRONG_TOKEN, refusal};
use self::relay::{Failure, Patience, Relay};
use http::Dialer;

/// How long the port of a token is served once another token was announced.
const GRACE: Duration = Duration::from_secs(60);
/// Ports at the same time. Tokens that change faster than this lose the oldest.
const DOORS: usize = 4;
/// Local connections at the same time: each is a thread, a stack and three buffers.
const CONNECTIONS: usize = 24;
/// WebSockets among them: one for each program that needs one, and one to spare for its successor.
const WEBSOCKETS: usize = 4;
/// Stack of the thread of a connection; the handshake with the server is the deepest.
const STACK: usize = 512 * 1024;
/// For a wait without a deadline of its own.
const LONG: Duration = Duration::from_secs(3600);
/// After an attempt to take a connection failed, for example for want of descriptors.
const REST: Duration = Duration::from_millis(50);

/// What other programs use instead of the server.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Access {
    /// The token; empty when there is none.
    pub token: String,
    /// The address of the port that goes with it, without a slash at its end; empty when there is none.
    pub address: String,
}

/// Without the token, which is a secret.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The proxy. Closed with everything that goes through it when it is dropped.
pub(crate) struct LocalProxy {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Arc<Dialer>,
    clock: Arc<dyn Clock>,
    patience: Patience,
    grace: Duration,
    state: Mutex<State>,
    /// A byte here makes the thread that waits for clients look at the state.
    wake: UnixStream,
}

#[derive(Default)]
struct State {
    /// The newest last.
    doors: Vec<Door>,
    target: Option<Target>,
    connections: Vec<Connection>,
    next_number: u64,
    closed: bool,
}

/// One port.
struct Door {
    listener: Arc<TcpListener>,
    token: Arc<str>,
    /// When it closes, if another token was announced since.
    until: Option<Instant>,
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq)]
struct Target {
    server: String,
    token: String,
}

/// A client that is served.
struct Connection {
    number: u64,
    stream: Arc<TcpStream>,
    websocket: bool,
}

impl LocalProxy {
    /// A proxy without a port.
    ///
    /// # Errors
    /// When there is no thread or no descriptor for it.
    pub(crate) fn new(dialer: Arc<Dialer>, clock: Arc<dyn Clock>) -> io::Result<LocalProxy> {
        LocalProxy::with(dialer, clock, Patience::default(), GRACE)
    }

    fn with(
        dialer: Arc<Dialer>,
        clock: Arc<dyn Clock>,
        patience: Patience,
        grace: Duration,
    ) -> io::Result<LocalProxy> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let shared = Arc::new(Shared { dialer, clock, patience, grace, state: Mutex::default(), wake });
        let doorman = Arc::clone(&shared);
        let work = move || doorman.let_clients_in(&woken);
        thread::Builder::new().name("local proxy".into()).stack_size(STACK).spawn(work)?;
        Ok(LocalProxy { shared })
    }

    /// From now on requests go to `server` with `token`. Opens a port for a new token, and closes that of the
    /// old one after a while. Waits for nobody.
    ///
    /// # Errors
    /// When there is no port to be had; requests of the old one are then sent to the new place.
    pub(crate) fn serve(&self, server: &str, token: &str) -> io::Result<Access> {
        let target = Target { server: server.to_owned(), token: token.to_owned() };
        let mut state = self.shared.state();
        let unchanged = state.target.as_ref() == Some(&target);
        state.target = Some(target);
        let newest = state.doors.last().filter(|door| unchanged && *door.token == *token);
        let port = match newest {
            Some(door) => door.listener.local_addr()?.port(),
            None => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                listener.set_nonblocking(true)?;
                let port = listener.local_addr()?.port();
                let until = Instant::now() + self.shared.grace;
                for door in &mut state.doors {
                    door.until.get_or_insert(until);
                }
                state.doors.push(Door { listener: Arc::new(listener), token: token.into(), until: None });
                let surplus = state.doors.len().saturating_sub(DOORS);
                state.doors.drain(..surplus);
                port
            }
        };
        drop(state);
        self.shared.wake_up();
        Ok(Access { token: token.to_owned(), address: format!("http://127.0.0.1:{port}") })
    }

    /// Closes every port and every connection: nobody speaks for this device any more.
    pub(crate) fn close(&self) {
        let mut state = self.shared.state();
        state.doors.clear();
        state.target = None;
        for connection in &state.connections {
            // One that is closed already needs nothing.
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.wake_up();
    }
}

impl Drop for LocalProxy {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.close();
    }
}

impl Shared {
    /// A thread that panicked leaves a list that is still one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before another attempt at what would only fail again at once.
    fn rest(&self) {
        self.clock.pause(REST);
    }

    fn wake_up(&self) {
        // A full pipe wakes as well.
        let _ = (&self.wake).write(&[0]);
    }

    /// Lets clients in until the proxy is closed.
    fn let_clients_in(self: &Arc<Shared>, mut woken: &UnixStream) {
        loop {
            let (listeners, next_end) = {
                let mut state = self.state();
                if state.closed {
                    return;
                }
                let now = Instant::now();
                state.doors.retain(|door| door.until.is_none_or(|until| until > now));
                let full = state.connections.len() >= CONNECTIONS;
                let open = if full { &[][..] } else { &state.doors[..] };
                let listeners: Vec<_> =
                    open.iter().map(|door| (Arc::clone(&door.listener), Arc::clone(&door.token))).collect();
                let ends = state.doors.iter().filter_map(|door| door.until);
                (listeners, ends.min().map_or(LONG, |end| end.saturating_duration_since(now)))
            };
            let read = |socket| Wanted { socket, read: true, write: false };
            let sockets = listeners.iter().map(|(listener, _)| read(listener.as_fd()));
            let wanted: Vec<Wanted<'_>> = sockets.chain([read(woken.as_fd())]).collect();
            let Ok(ready) = local_socket::wait(&wanted, next_end) else {
                self.rest();
                continue;
            };
            while woken.read(&mut [0; 64]).is_ok_and(|count| count == 64) {}
            for ((listener, token), ready) in listeners.into_iter().zip(ready) {
                if ready.read || ready.broken {
                    self.let_in(&listener, token);
                }
            }
        }
    }

    fn let_in(self: &Arc<Shared>, listener: &TcpListener, token: Arc<str>) {
        let stream = match listener.accept() {
            Ok((stream, _)) => Arc::new(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                log::debug!("local proxy: {error}");
                return self.rest();
            }
        };
        let number = {
            let mut state = self.state();
            state.next_number += 1;
            let number = state.next_number;
            state.connections.push(Connection { number, stream: Arc::clone(&stream), websocket: false });
            number
        };
        let shared = Arc::clone(self);
        let work = move || {
            let _served = Served { shared: &shared, number };
            shared.serve_client(&stream, &token, number);
        };
        let spawned = thread::Builder::new().name("local client".into()).stack_size(STACK).spawn(work);
        if let Err(error) = spawned {
            log::warn!("local proxy: cannot start a thread: {error}");
            drop(Served { shared: self, number });
            self.rest();
        }
    }

    /// One request of one client.
    fn serve_client(&self, client: &TcpStream, token: &str, number: u64) {
        let refused = match self.try_to_serve(client, token, number) {
            Ok(()) => None,
            Err(Failure::Refused(refused)) => Some(refused),
            Err(Failure::Broken(reason)) => return log::debug!("local proxy: {reason}"),
        };
        if let Some(refused) = refused {
            log::debug!("local proxy: {} {}", refused.status, refused.reason);
            let prepared = client
                .set_nonblocking(false)
                .and_then(|()| client.set_write_timeout(Some(self.patience.head)));
            let mut client = client;
            // It fits into the buffer of the socket.
            if prepared.and_then(|()| client.write_all(&refused.bytes())).is_err() {
                return;
            }
        }
        relay::say_goodbye(client, self.patience.farewell);
    }

    fn try_to_serve(&self, client: &TcpStream, token: &str, number: u64) -> Result<(), Failure> {
        let gone = |_| Failure::Broken("the client is gone");
        client.set_nodelay(true).map_err(gone)?;
        let (request, early) = read_head(client, self.patience.head)?;
        if !request.shows(token) {
            return Err(WRONG_TOKEN.into());
        }
        let target = self.admit(&request, number)?;
        let (uri, prefix) = target.place().ok_or(NO_ANSWER)?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let deadline = Instant::now() + self.patience.connect;
        let server = self.dialer.dial_raw(&uri, deadline).map_err(|error| {
            log::warn!("local proxy: {error}");
            NO_ANSWER
        })?;
        let head = request.forwarded(authority, &prefix, &target.token);
        let head = server.request_head(head).map_err(|_| NO_ANSWER)?;
        client.set_nonblocking(true).map_err(gone)?;
        Relay::new(client, server, &request, &head, &early, self.patience)?.run()
    }

    /// Where the request goes. A WebSocket needs one of few places.
    fn admit(&self, request: &RequestHead, number: u64) -> Result<Target, Refusal> {
        let mut state = self.state();
        // The token may have been taken back while the client was sending.
        let target = state.target.clone().ok_or(WRONG_TOKEN)?;
        if request.upgrade {
            if state.connections.iter().filter(|connection| connection.websocket).count() >= WEBSOCKETS {
                return Err(TOO_MANY);
            }
            let own = state.connections.iter_mut().find(|connection| connection.number == number);
            if let Some(connection) = own {
                connection.websocket = true;
            }
        }
        Ok(target)
    }
}

/// Takes a client off the list when it is served, however that ended.
struct Served<'s> {
    shared: &'s Shared,
    number: u64,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let full = state.connections.len() >= CONNECTIONS;
        state.connections.retain(|connection| connection.number != self.number);
        drop(state);
        if full {
            self.shared.wake_up();
        }
    }
}

impl Target {
    /// The address of the server, and what its paths begin with.
    fn place(&self) -> Option<(Uri, String)> {
        let uri: Uri = self.server.parse().ok()?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Some((uri, prefix))
    }
}

/// The head of a request, and what came behind it.
fn read_head(client: &TcpStream, patience: Duration) -> Result<(RequestHead, Vec<u8>), Failure> {
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut stream = client;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(refusal(408, "the request did not come in time").into());
        }
        let read = client.set_read_timeout(Some(left)).and_then(|()| stream.read(&mut buffer));
        match read {
            Ok(0) => return Err(Failure::Broken("the client left without a request")),
            Ok(count) => bytes.extend_from_slice(&buffer[..count.min(REQUEST_BYTES)]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(_) => return Err(Failure::Broken("the client is gone")),
        }
        if let Some((head, length)) = RequestHead::parse(&bytes)? {
            return Ok((head, bytes.split_off(length)));
        }
    }
}
