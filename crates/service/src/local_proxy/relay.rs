//! One request on its way to the server and its answer on the way back, or a WebSocket: whatever comes is
//! passed on as soon as there is room, with a bounded part of it in memory and a deadline on every wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use linux::local_socket::{self, Wanted};

use super::body::Body;
use super::head::{AnswerHead, NO_ANSWER, Refusal, RequestHead};
use http::RawConnection;

/// What is in memory of each direction, in bytes, besides a head.
const QUEUE_BYTES: usize = 16 * 1024;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the whole head of a request.
    pub head: Duration,
    /// For a connection to the server.
    pub connect: Duration,
    /// For any byte in any direction, and for one side to take what is there for it.
    pub silence: Duration,
    /// The same on a WebSocket, whose users say something at least once a minute.
    pub websocket_silence: Duration,
    /// For a request with its answer.
    pub request: Duration,
    /// For a client to take note of the end.
    pub farewell: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            head: Duration::from_secs(10),
            connect: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            websocket_silence: Duration::from_secs(300),
            request: Duration::from_secs(3600),
            farewell: Duration::from_secs(1),
        }
    }
}

/// Why it ended before its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// Before the client has heard anything: it gets this answer.
    Refused(Refusal),
    /// Later: the connection is closed.
    Broken(&'static str),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

/// Bytes on their way.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn has_room(&self) -> bool {
        self.bytes.len() - self.start < QUEUE_BYTES
    }

    fn sent(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }
}

/// A request, its answer, and the two connections.
pub(super) struct Relay<'r> {
    client: &'r TcpStream,
    server: RawConnection,
    request: &'r RequestHead,
    patience: Patience,
    request_body: Body,
    to_server: Queue,
    /// What the client said too early for a WebSocket.
    early: Vec<u8>,
    /// The head of the answer as far as it is here; `None` once it is passed on.
    head: Option<Vec<u8>>,
    answer_body: Body,
    to_client: Queue,
    client_ended: bool,
    server_ended: bool,
    /// The server takes no more. It may still answer.
    server_is_deaf: bool,
}

impl<'r> Relay<'r> {
    /// Nothing is sent yet. `head` is what the server gets first, `early` what the client sent behind its
    /// head; `client` does not block.
    ///
    /// # Errors
    /// When what it sent is no body.
    pub(super) fn new(
        client: &'r TcpStream,
        server: RawConnection,
        request: &'r RequestHead,
        head: &[u8],
        early: &[u8],
        patience: Patience,
    ) -> Result<Relay<'r>, Failure> {
        let mut relay = Relay {
            client,
            server,
            request,
            patience,
            request_body: request.body.clone(),
            to_server: Queue::default(),
            early: Vec::new(),
            head: Some(Vec::new()),
            answer_body: Body::UntilEnd,
            to_client: Queue::default(),
            client_ended: false,
            server_ended: false,
            server_is_deaf: false,
        };
        relay.to_server.push(head);
        if request.upgrade {
            relay.early = early.to_vec();
        } else {
            relay.pass_to_server(early)?;
        }
        if request.expects_continue && early.is_empty() && !relay.request_body.is_over() {
            relay.to_client.push(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        Ok(relay)
    }

    /// Passes on until all is said.
    ///
    /// # Errors
    /// When one side breaks off, says nonsense, or takes too long.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let result = self.pass_on();
        self.server.close();
        result
    }

    fn pass_on(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut last = Times { any: started, to_server: started, to_client: started };
        let mut buffer = vec![0; QUEUE_BYTES];
        loop {
            while self.step(&mut buffer, &mut last)? {}
            if self.is_done() {
                return Ok(());
            }
            let websocket = self.request.upgrade && self.head.is_none();
            let silence = if websocket { self.patience.websocket_silence } else { self.patience.silence };
            let mut deadline = last.any + silence;
            if !websocket {
                deadline = deadline.min(started + self.patience.request);
            }
            if !self.to_client.is_empty() {
                deadline = deadline.min(last.to_client + self.patience.silence);
            }
            if self.writes_server() {
                deadline = deadline.min(last.to_server + self.patience.silence);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failure("one side took too long"));
            }
            self.wait(left)?;
        }
    }

    fn wait(&self, time: Duration) -> Result<(), Failure> {
        let client = Wanted {
            socket: self.client.as_fd(),
            read: self.reads_client(),
            write: !self.to_client.is_empty(),
        };
        let server =
            Wanted { socket: self.server.as_fd(), read: self.reads_server(), write: self.writes_server() };
        // One that nothing is wanted of would end every wait once it is broken.
        let both = [client, server];
        let wanted = if server.read || server.write { &both[..] } else { &both[..1] };
        let ready = local_socket::wait(wanted, time).map_err(|_| self.failure("waiting failed"))?;
        // The last words of the client are read before this: it has none then.
        if ready.first().is_some_and(|client| client.broken && !client.read) {
            return Err(Failure::Broken("the client is gone"));
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let answered = self.head.is_none() && (self.answer_body.is_over() || self.server_ended);
        let left = self.client_ended && !self.writes_server();
        (answered && self.to_client.is_empty()) || left
    }

    fn reads_client(&self) -> bool {
        let may = !self.request.upgrade || self.head.is_none();
        may && !self.request_body.is_over() && !self.client_ended && self.to_server.has_room()
    }

    fn writes_server(&self) -> bool {
        !self.server_is_deaf && (!self.to_server.is_empty() || self.server.wants_write())
    }

    fn reads_server(&self) -> bool {
        !self.server_ended && !self.answer_body.is_over() && self.to_client.has_room()
    }

    /// What a failure is now: an answer as long as the client has heard none.
    fn failure(&self, reason: &'static str) -> Failure {
        if self.head.is_some() { Failure::Refused(NO_ANSWER) } else { Failure::Broken(reason) }
    }

    /// Whether something moved.
    fn step(&mut self, buffer: &mut [u8], last: &mut Times) -> Result<bool, Failure> {
        let now = Instant::now();
        let mut moved = false;
        if self.reads_client() {
            if let Some(count) = now_or_later(self.client.read(buffer)).map_err(|_| GONE)? {
                moved = true;
                if count > 0 {
                    self.pass_to_server(&buffer[..count])?;
                } else if self.request.upgrade {
                    self.client_ended = true;
                } else {
                    return Err(GONE);
                }
            }
        }
        if self.writes_server() {
            if self.write_to_server() {
                moved = true;
                last.to_server = now;
            }
        } else {
            last.to_server = now;
        }
        if self.reads_server() {
            if let Some(count) = now_or_later(self.server.read_now(buffer))
                .map_err(|_| self.failure("the connection to the server broke"))?
            {
                moved = true;
                self.pass_to_client(&buffer[..count])?;
            }
        }
        if self.to_client.is_empty() {
            last.to_client = now;
        } else if let Some(count) =
            now_or_later(self.client.write(self.to_client.waiting())).map_err(|_| GONE)?
        {
            moved = true;
            last.to_client = now;
            self.to_client.sent(count);
        }
        if moved {
            last.any = now;
        }
        Ok(moved)
    }

    /// Whether something was sent.
    fn write_to_server(&mut self) -> bool {
        let written = if self.to_server.is_empty() {
            let wanted = self.server.wants_write();
            self.server.flush_now().map(|()| usize::from(wanted))
        } else {
            self.server.write_now(self.to_server.waiting())
        };
        match now_or_later(written) {
            Ok(Some(count)) => {
                self.to_server.sent(count);
                count > 0
            }
            Ok(None) => false,
            Err(_) => {
                self.server_is_deaf = true;
                self.to_server = Queue::default();
                self.request_body = Body::NONE;
                false
            }
        }
    }

    fn pass_to_server(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let malformed = super::head::refusal(400, "the body is malformed");
        let count = self.request_body.take(bytes).map_err(|_| match self.head {
            Some(_) => Failure::Refused(malformed),
            None => Failure::Broken("the body is malformed"),
        })?;
        // What follows the body would be a second request, which nobody has checked.
        self.to_server.push(&bytes[..count]);
        Ok(())
    }

    fn pass_to_client(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            self.server_ended = true;
            let proper = self.head.is_none() && self.answer_body == Body::UntilEnd;
            return if proper { Ok(()) } else { Err(self.failure("the answer is not complete")) };
        }
        let Some(mut start) = self.head.take() else { return self.pass_answer(bytes) };
        start.extend_from_slice(bytes);
        loop {
            let Some((head, length)) = AnswerHead::parse(&start, self.request)? else {
                self.head = Some(start);
                return Ok(());
            };
            start.drain(..length);
            if (100..200).contains(&head.status) && head.status != 101 {
                continue;
            }
            self.to_client.push(&head.bytes);
            self.answer_body = head.body;
            // Other answers tell the client why there is no WebSocket, and nothing follows them.
            if head.status == 101 {
                self.request_body = Body::UntilEnd;
                let early = std::mem::take(&mut self.early);
                self.to_server.push(&early);
            }
            return self.pass_answer(&start);
        }
    }

    fn pass_answer(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let count = self.answer_body.take(bytes).map_err(|_| Failure::Broken("the answer is malformed"))?;
        self.to_client.push(&bytes[..count]);
        Ok(())
    }
}

const GONE: Failure = Failure::Broken("the client is gone");

/// When something last went on.
struct Times {
    any: Instant,
    to_server: Instant,
    to_client: Instant,
}

/// `None` when it would have to be waited for.
fn now_or_later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Lets a client read what it was told, although it may still be sending: a connection that is closed with
/// bytes unread is reset, and what was sent last is lost with it.
pub(super) fn say_goodbye(client: &TcpStream, time: Duration) {
    let deadline = Instant::now() + time;
    let mut bytes = [0; 4096];
    if client.shutdown(Shutdown::Write).is_err() || client.set_nonblocking(false).is_err() {
        return;
    }
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || client.set_read_timeout(Some(left)).is_err() {
            return;
        }
        let mut client = client;
        match client.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
