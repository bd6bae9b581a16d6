//! A network between a device and its server, on the loopback: it counts what passes, and can be slow and cut.
//!
//! It hands on bytes as they are. Of HTTP it knows where the body of an answer begins, to count the bytes of artifacts
//! apart from everything else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use xtask::Outcome;

/// Bytes that are handed on at once.
const PIECE: usize = 16 * 1024;

/// What the network does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Bytes per second towards the device, on each connection; `None` for as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Bytes towards the device after which a connection is cut.
    pub cut_after: Option<u64>,
}

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections of the device.
    pub connections: u64,
    /// Those of them on which an artifact was asked for.
    pub downloads: u64,
    /// Connections that were cut.
    pub cuts: u64,
    /// Bytes from the device.
    pub from_device: u64,
    /// Bytes handed to the device.
    pub to_device: u64,
    /// Those of them that were bytes of artifacts.
    pub artifact: u64,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    counts: Counts,
    /// Connections that are open now.
    open: u64,
}

#[derive(Debug, Default)]
struct Wire {
    state: Mutex<State>,
    /// Something passed, or a connection ended.
    changed: Condvar,
}

type Shared = Arc<Wire>;

fn look(shared: &Shared) -> MutexGuard<'_, State> {
    shared.changed.notify_all();
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The relay. It ends with this task.
pub struct Relay {
    address: SocketAddr,
    shared: Shared,
}

impl Relay {
    /// Begins to hand on what comes to a port of its own to the server at `target`.
    pub fn start(target: SocketAddr) -> Outcome<Relay> {
        let failed = |error: std::io::Error| format!("cannot listen on the loopback: {error}");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Shared::default();
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for device in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || connection(&device, target, &shared));
                }
            }
        });
        Ok(Relay { address, shared })
    }

    /// Where the device finds it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the network does from now on.
    pub fn set_weather(&self, weather: Weather) {
        look(&self.shared).weather = weather;
    }

    /// Until the device has been answered since the last [`Relay::take_counts`], and then until all connections are
    /// closed, or nothing has passed for as long as `quiet`.
    pub fn wait_for_answer(&self, quiet: Duration, patience: Duration) -> Outcome {
        let start = Instant::now();
        let mut state = look(&self.shared);
        while start.elapsed() < patience {
            let before = state.counts;
            let answered = before.to_device > 0;
            if answered && state.open == 0 {
                return Ok(());
            }
            let (later, timeout) =
                self.shared.changed.wait_timeout(state, quiet).unwrap_or_else(PoisonError::into_inner);
            state = later;
            if answered && timeout.timed_out() && state.counts == before {
                return Ok(());
            }
        }
        Err("the device has not asked the server".into())
    }

    /// What passed since the last call.
    pub fn take_counts(&self) -> Counts {
        std::mem::take(&mut look(&self.shared).counts)
    }
}

/// One connection of the device, to its end. When one of the two ends it, or the relay cannot go on, it is over for
/// both: that is all there is to do about an error here.
fn connection(device: &TcpStream, target: SocketAddr, shared: &Shared) {
    let mut state = look(shared);
    state.counts.connections += 1;
    state.open += 1;
    drop(state);
    hand_on(device, target, shared);
    let _ = device.shutdown(Shutdown::Both);
    look(shared).open -= 1;
    shared.changed.notify_all();
}

fn hand_on(device: &TcpStream, target: SocketAddr, shared: &Shared) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let (Ok(device_again), Ok(server_again)) = (device.try_clone(), server.try_clone()) else { return };
    // Small answers are measured in milliseconds.
    let _ = (device.set_nodelay(true), server.set_nodelay(true));
    let asked = Arc::new(Mutex::new(Body::None));
    let up = thread::spawn({
        let (shared, asked) = (Arc::clone(shared), Arc::clone(&asked));
        move || from_device(device_again, server_again, &shared, &asked)
    });
    to_device(&server, device, shared, &asked);
    let _ = (device.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    let _ = up.join();
}

/// What the answers on a connection are.
#[derive(Debug)]
enum Body {
    /// Nothing that is counted apart.
    None,
    /// An artifact, whose head has not passed yet; what of it has.
    Head(Vec<u8>),
    /// An artifact, whose head has passed.
    Artifact,
}

impl Body {
    /// How many bytes of `piece` are bytes of an artifact.
    fn artifact_bytes(&mut self, piece: &[u8]) -> usize {
        match self {
            Body::None => 0,
            Body::Artifact => piece.len(),
            Body::Head(head) => {
                head.extend_from_slice(piece);
                match head.windows(4).position(|four| four == b"\r\n\r\n") {
                    None => 0,
                    Some(at) => {
                        let bytes = head.len() - at - 4;
                        *self = Body::Artifact;
                        bytes
                    }
                }
            }
        }
    }
}

fn from_device(mut device: TcpStream, mut server: TcpStream, shared: &Shared, asked: &Mutex<Body>) {
    let mut piece = [0; PIECE];
    // An artifact may be asked for in parts, one after the other on a connection.
    let mut counted = false;
    while let Ok(bytes @ 1..) = device.read(&mut piece) {
        let piece = &piece[..bytes];
        look(shared).counts.from_device += bytes as u64;
        // A request for a file is shorter than a piece, and comes as one.
        if piece.starts_with(b"GET /") {
            let line = piece.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let artifact = line.windows(10).any(|part| part == b"/download/");
            if artifact && !std::mem::replace(&mut counted, true) {
                look(shared).counts.downloads += 1;
            }
            *asked.lock().unwrap_or_else(PoisonError::into_inner) =
                if artifact { Body::Head(Vec::new()) } else { Body::None };
        }
        if server.write_all(piece).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

fn to_device(mut server: &TcpStream, mut device: &TcpStream, shared: &Shared, asked: &Mutex<Body>) {
    let mut piece = [0; PIECE];
    let mut passed = 0;
    while let Ok(bytes @ 1..) = server.read(&mut piece) {
        let weather = look(shared).weather;
        let left = weather.cut_after.map_or(u64::MAX, |limit| limit.saturating_sub(passed));
        let piece = &piece[..bytes.min(usize::try_from(left).unwrap_or(usize::MAX))];
        if let Some(rate) = weather.bytes_per_second {
            // This is what a slow network is.
            thread::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64));
        }
        if device.write_all(piece).is_err() {
            return;
        }
        passed += piece.len() as u64;
        let artifact = asked.lock().unwrap_or_else(PoisonError::into_inner).artifact_bytes(piece);
        let mut state = look(shared);
        state.counts.to_device += piece.len() as u64;
        state.counts.artifact += artifact as u64;
        if piece.len() < bytes {
            state.counts.cuts += 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_cut_after_its_bytes_and_artifacts_are_counted_without_their_head() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::start(server.local_addr().unwrap()).unwrap();
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        relay.set_weather(Weather { cut_after: Some(head.len() as u64 + 5), bytes_per_second: None });
        let mut device = TcpStream::connect(relay.address()).unwrap();
        device.write_all(b"GET /download/x HTTP/1.1\r\n\r\n").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut request = [0; 28];
        accepted.read_exact(&mut request).unwrap();
        accepted.write_all(&[head.as_slice(), b"0123456789"].concat()).unwrap();
        let mut answer = Vec::new();
        device.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(b"\r\n\r\n01234"));
        let counts = relay.take_counts();
        assert_eq!((counts.connections, counts.downloads, counts.cuts, counts.artifact), (1, 1, 1, 5));
        assert_eq!((counts.from_device, counts.to_device), (28, head.len() as u64 + 5));
        assert_eq!(relay.take_counts(), Counts::default());
    }
}
