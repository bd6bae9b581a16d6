//! A server that says exactly what a test tells it to, and faults on the way.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use client_core::server::{Method, Purpose, Request, Response, Transport, TransportError};

use crate::clock::VirtualClock;

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sent {
    /// GET, POST, PUT or PATCH.
    pub method: &'static str,
    /// The whole address.
    pub url: String,
    /// The headers, in the order they were given.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// Whether it had the deadlines of a download.
    pub is_download: bool,
}

impl Sent {
    /// What `request` says.
    ///
    /// # Panics
    /// When it breaks the contract of a [`Request`].
    pub fn of(request: &Request<'_>) -> Sent {
        for (name, value) in &request.headers {
            let transports = ["host", "content-length", "user-agent", "connection"];
            assert!(!transports.contains(name), "{name} is the transport's header");
            assert_eq!(*name, name.to_ascii_lowercase(), "header names are in lower case");
            assert!(!value.contains(['\r', '\n', '\0']), "a header value breaks its line: {value:?}");
            let same = request.headers.iter().filter(|(other, _)| other == name);
            assert_eq!(same.count(), 1, "header {name} twice");
        }
        let method = match request.method {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
        };
        assert!(method != "GET" || request.body.is_none(), "a GET with a body");
        Sent {
            method,
            url: request.url.to_owned(),
            headers: request.headers.clone(),
            body: request.body.map(<[u8]>::to_vec),
            is_download: request.purpose == Purpose::Download,
        }
    }

    /// The header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// The address after the host, without the query.
    pub fn path(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let path = &rest[rest.find('/').unwrap_or(rest.len())..];
        path.split('?').next().unwrap_or_default()
    }

    /// The body as text; empty when there is none.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_deref().unwrap_or_default()).into_owned()
    }

    /// About how many bytes this is on a connection, without the transport's own headers.
    pub fn wire_bytes(&self) -> usize {
        let target = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let target = &target[target.find('/').unwrap_or(target.len())..];
        let line = self.method.len() + target.len() + " HTTP/1.1".len() + 3;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        line + headers + 2 + self.body.as_ref().map_or(0, Vec::len)
    }
}

/// What happens to one exchange.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<[u8]>,
    fault: Fault,
    pace: Option<Pace>,
}

/// How slowly a body comes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// From which byte on.
    from: usize,
    /// Virtual time before each chunk.
    wait: Duration,
    /// Most bytes of a chunk.
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    None,
    /// There is no answer.
    NoAnswer(TransportError),
    /// After so many bytes of the body the connection ends, as if that were all.
    EndAfter(usize),
    /// After so many bytes of the body there is an error.
    ErrorAfter(usize),
}

impl Reply {
    /// An answer.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.as_ref().into(), fault: Fault::None, pace: None }
    }

    /// An error of the connection, which may be gone the next time.
    pub fn no_answer(reason: &str) -> Reply {
        let error = TransportError { may_pass: true, reason: reason.to_owned() };
        Reply { fault: Fault::NoAnswer(error), ..Reply::new(0, "") }
    }

    /// An error that stays.
    pub fn no_trust(reason: &str) -> Reply {
        let error = TransportError { may_pass: false, reason: reason.to_owned() };
        Reply { fault: Fault::NoAnswer(error), ..Reply::new(0, "") }
    }

    /// With a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// With the length of the body as a header.
    pub fn sized(self) -> Reply {
        let length = self.body.len().to_string();
        self.header("content-length", length)
    }

    /// The connection ends after `count` bytes of the body.
    pub fn ending_after(mut self, count: usize) -> Reply {
        self.fault = Fault::EndAfter(count);
        self
    }

    /// The connection breaks after `count` bytes of the body.
    pub fn breaking_after(mut self, count: usize) -> Reply {
        self.fault = Fault::ErrorAfter(count);
        self
    }

    /// The body comes in chunks of at most `bytes`, each after `wait`.
    pub fn slowly(self, wait: Duration, bytes: usize) -> Reply {
        self.slowly_from(0, wait, bytes)
    }

    /// As [`slowly`](Reply::slowly), from byte `from` of the body on; what is before it takes no time.
    pub fn slowly_from(mut self, from: usize, wait: Duration, bytes: usize) -> Reply {
        self.pace = Some(Pace { from, wait, bytes: bytes.max(1) });
        self
    }

    pub(crate) fn perform(self, clock: Option<&VirtualClock>) -> Result<Response, TransportError> {
        let (length, breaks) = match self.fault {
            Fault::NoAnswer(error) => return Err(error),
            Fault::None => (self.body.len(), false),
            Fault::EndAfter(count) => (count.min(self.body.len()), false),
            Fault::ErrorAfter(count) => (count.min(self.body.len()), true),
        };
        let pace = self.pace.and_then(|pace| Some((clock?.clone(), pace)));
        let body = Body { bytes: self.body, position: 0, length, breaks, pace };
        Ok(Response { status: self.status, headers: self.headers, body: Box::new(body) })
    }
}

struct Body {
    bytes: Arc<[u8]>,
    position: usize,
    length: usize,
    breaks: bool,
    pace: Option<(VirtualClock, Pace)>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length - self.position;
        if left == 0 && self.breaks {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset"));
        }
        let mut count = left.min(buffer.len());
        if let Some((clock, pace)) = &self.pace {
            if self.position >= pace.from {
                count = count.min(pace.bytes);
                clock.advance(pace.wait);
            } else {
                count = count.min(pace.from - self.position);
            }
        }
        buffer[..count].copy_from_slice(&self.bytes[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

type Answering = dyn FnMut(&Sent) -> Reply + Send;

/// A [`Transport`] that answers from a list, or as a closure says, and records what was sent. Clones share both.
#[derive(Clone)]
pub struct ScriptedTransport {
    state: Arc<Mutex<State>>,
    clock: Option<VirtualClock>,
}

struct State {
    replies: VecDeque<Reply>,
    otherwise: Option<Box<Answering>>,
    sent: Vec<Sent>,
}

impl ScriptedTransport {
    /// Answers with one of `replies` after the other. More requests than replies end the test.
    pub fn list(replies: impl IntoIterator<Item = Reply>) -> ScriptedTransport {
        let state = State { replies: replies.into_iter().collect(), otherwise: None, sent: Vec::new() };
        ScriptedTransport { state: Arc::new(Mutex::new(state)), clock: None }
    }

    /// Answers each request with what `answer` makes of it.
    pub fn answering(answer: impl FnMut(&Sent) -> Reply + Send + 'static) -> ScriptedTransport {
        let transport = ScriptedTransport::list([]);
        transport.state().otherwise = Some(Box::new(answer));
        transport
    }

    /// With a clock that slow answers advance.
    pub fn with_clock(mut self, clock: &VirtualClock) -> ScriptedTransport {
        self.clock = Some(clock.clone());
        self
    }

    /// For production code.
    pub fn boxed(&self) -> Box<dyn Transport> {
        Box::new(self.clone())
    }

    /// Adds a reply at the end of the list.
    pub fn push(&self, reply: Reply) {
        self.state().replies.push_back(reply);
    }

    /// Everything that was sent, and forgets it.
    pub fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.state().sent)
    }

    /// Replies that nobody asked for yet.
    pub fn replies_left(&self) -> usize {
        self.state().replies.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked with the script in its hands")
    }
}

impl Transport for ScriptedTransport {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        let sent = Sent::of(request);
        let mut state = self.state();
        state.sent.push(sent.clone());
        let listed = state.replies.pop_front();
        let reply = match (listed, &mut state.otherwise) {
            (Some(reply), _) => reply,
            (None, Some(answer)) => answer(&sent),
            (None, None) => panic!("nobody expected {} {}", sent.method, sent.url),
        };
        drop(state);
        reply.perform(self.clock.as_ref())
    }
}
