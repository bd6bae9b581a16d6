//! Connections under the HTTP protocol: opened through a proxy where there is one, encrypted where the address says
//! so, and never waiting longer than allowed, nor longer than a moment when the process is asked to stop.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use client_core::clock::Clock;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::certificate::Dates;
use super::proxy::{Proxy, ProxyRules};
use super::tls::{self, Tls};

/// Longest wait without a look at whether the process was asked to stop.
const SLICE: Duration = Duration::from_millis(250);
/// For a wait without a deadline of its own, which should not exist.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// Stack of the thread that looks up a name; resolvers keep packets on it.
const RESOLVER_STACK: usize = 256 * 1024;
/// Longest answer of a proxy to CONNECT, in bytes.
const PROXY_HEAD_BYTES: usize = 16 * 1024;
/// The output buffer: has to hold the first line of a request.
const OUTPUT_BYTES: usize = 16 * 1024;
/// The input buffer at first.
const INPUT_BYTES: usize = 4 * 1024;
/// The input buffer at most: has to hold the head of an answer. Also what one read of a long body takes.
const LARGEST_INPUT_BYTES: usize = super::HEAD_BYTES + 1024;

/// Why there is no connection. The server has not seen the request.
pub struct ConnectError {
    /// What went wrong, for a person.
    pub reason: String,
    /// Whether another attempt may succeed.
    pub may_pass: bool,
    /// Whether the certificate of the server is not accepted. Where that may pass, it is a matter of time.
    pub is_refusal: bool,
}

client_core::artifact::debug_as_displayed!(ConnectError);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ConnectError {}

/// What a connection showed that was made to see whether it can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// When the certificate of the server is good; `None` where the connection is not encrypted.
    pub certificate: Option<Dates>,
}

/// What happened to an open connection beside the errors of the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The process was asked to stop.
    Stopped,
    /// A kept connection turned out to be closed before it brought a byte: the request is safe to repeat.
    Stale,
    /// A fresh connection was closed before it brought a byte.
    Unanswered,
    /// The connection broke in the middle of an answer.
    Broken,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Interruption::Stopped => "asked to stop",
            Interruption::Stale => "the server closed the connection",
            Interruption::Unanswered => "the server closed the connection without an answer",
            Interruption::Broken => "the connection broke",
        })
    }
}

impl std::error::Error for Interruption {}

impl Interruption {
    /// What `error` is, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<Interruption> {
        error.get_ref()?.downcast_ref().copied()
    }

    fn error(self) -> io::Error {
        io::Error::other(self)
    }
}

/// Opens connections.
pub struct Dialer {
    tls: Tls,
    proxies: ProxyRules,
    clock: Arc<dyn Clock>,
}

impl Dialer {
    /// Opens nothing yet.
    pub fn new(tls: Tls, proxies: ProxyRules, clock: Arc<dyn Clock>) -> Dialer {
        Dialer { tls, proxies, clock }
    }

    /// The settings of encrypted connections.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Opens a connection to the place of `uri` that is used without the HTTP client. Its waits are the
    /// caller's.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn dial_raw(&self, uri: &Uri, deadline: Instant) -> Result<RawConnection, ConnectError> {
        let Connection { mut stream, through, .. } = self.dial(uri, deadline)?;
        stream.socket().stream.set_nonblocking(true).map_err(|error| ConnectError {
            reason: format!("cannot use the connection: {error}"),
            may_pass: true,
            is_refusal: false,
        })?;
        Ok(RawConnection { stream, through })
    }

    /// Makes a connection to the server of `url` and closes it again, within `time`: nothing is asked.
    ///
    /// # Errors
    /// When there is no connection.
    pub fn reach(&self, url: &str, time: Duration) -> Result<Reached, ConnectError> {
        let uri: Uri = url.parse().map_err(|_| ConnectError {
            reason: "the address is not valid".to_owned(),
            may_pass: false,
            is_refusal: false,
        })?;
        let Connection { stream, .. } = self.dial(&uri, Instant::now() + time)?;
        let certificate = match &stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.conn.peer_certificates().and_then(<[_]>::first),
        };
        Ok(Reached { certificate: certificate.and_then(|certificate| Dates::of(certificate)) })
    }

    /// The proxy through which the server of `url` is reached: host and port.
    pub fn proxy_for(&self, url: &str) -> Option<String> {
        let uri: Uri = url.parse().ok()?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let proxy = self.proxies.proxy_for(https, uri.host()?, port)?;
        Some(format!("{}:{}", proxy.host, proxy.port))
    }

    fn dial(&self, uri: &Uri, deadline: Instant) -> Result<Connection, ConnectError> {
        let wrong =
            |reason: &str| ConnectError { reason: reason.to_owned(), may_pass: false, is_refusal: false };
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err(wrong("the address is neither http nor https")),
        };
        let host = uri.host().ok_or_else(|| wrong("there is no host in the address"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let proxy = self.proxies.proxy_for(https, host, port);
        let (to_host, to_port) = proxy.map_or((host, port), |proxy| (&*proxy.host, proxy.port));
        let failed = |doing: &str, error: io::Error| ConnectError {
            reason: format!("cannot {doing}: {error}"),
            may_pass: true,
            is_refusal: false,
        };
        let stream = open(to_host, to_port, deadline, &self.clock)
            .map_err(|error| failed(&format!("connect to {to_host}:{to_port}"), error))?;
        let mut socket = Socket { stream, clock: Arc::clone(&self.clock), deadline, timeout: None };
        if !https {
            let through = proxy.map(|proxy| Through {
                prefix: format!("http://{}", bare_authority(uri)),
                authorization: proxy.authorization.clone(),
            });
            return Ok(Connection::new(Stream::Plain(socket), through));
        }
        if let Some(proxy) = proxy {
            let tunnel = tunnel(&mut socket, proxy, host, port);
            tunnel.map_err(|error| failed(&format!("get through the proxy {to_host}:{to_port}"), error))?;
        }
        let config = self.tls.config().map_err(|error| ConnectError {
            reason: error.to_string(),
            // A file may be put right while the daemon runs, and is read again.
            may_pass: true,
            is_refusal: false,
        })?;
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| wrong("the host is not a valid name"))?;
        let tls_error = |error: io::Error| match tls::refusal(&error) {
            Some((reason, may_pass)) => {
                ConnectError { reason, may_pass, is_refusal: tls::is_about_the_certificate(&error) }
            }
            None => failed(&format!("encrypt the connection to {host}"), error),
        };
        let mut connection =
            ClientConnection::new(config, name).map_err(|error| tls_error(io::Error::other(error)))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(tls_error)?;
        }
        Ok(Connection::new(Stream::Tls(Box::new(StreamOwned::new(connection, socket))), None))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// A [`Dialer`] as ureq wants it.
#[derive(Debug, Clone)]
pub(crate) struct SharedDialer(pub Arc<Dialer>);

impl Connector for SharedDialer {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, ureq::Error> {
        let dialed = self.0.dial(details.uri, deadline_of(details.timeout));
        dialed.map(Some).map_err(|error| ureq::Error::Io(io::Error::other(error)))
    }
}

/// Looks nothing up: the [`Dialer`] does, when it knows whether there is a proxy.
#[derive(Debug)]
pub(crate) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// Host and port as the address has them, without a user.
fn bare_authority(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, place)| place)
}

fn deadline_of(timeout: NextTimeout) -> Instant {
    Instant::now() + timeout.not_zero().map_or(LONGEST_WAIT, |after| (*after).min(LONGEST_WAIT))
}

/// Opens a TCP connection. Looking up a name and connecting cannot be interrupted, so a thread does it; when nobody
/// waits for it any more it ends by itself, at the deadline at the latest for all but the name.
fn open(host: &str, port: u16, deadline: Instant, clock: &Arc<dyn Clock>) -> io::Result<TcpStream> {
    let host = host.to_owned();
    let (sender, opened) = mpsc::channel();
    let work = move || {
        let _ = sender.send(look_up_and_connect(&host, port, deadline));
    };
    thread::Builder::new().name("connect".into()).stack_size(RESOLVER_STACK).spawn(work)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match opened.recv_timeout(left.min(SLICE)) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::Other.into()),
            Err(mpsc::RecvTimeoutError::Timeout) if clock.stop_requested() => {
                return Err(Interruption::Stopped.error());
            }
            Err(mpsc::RecvTimeoutError::Timeout) if left.is_zero() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}

fn look_up_and_connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.take(ADDRESSES).collect();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // Those that are still to be tried get their share of the time.
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Asks the proxy on the other side of `socket` for a way to `host`.
fn tunnel(socket: &mut Socket, proxy: &Proxy, host: &str, port: u16) -> io::Result<()> {
    let place = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    // One byte at a time: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_HEAD_BYTES {
            return Err(io::Error::other("its answer is too long"));
        }
        if socket.read(&mut byte)? == 0 {
            return Err(io::Error::other("it closed the connection"));
        }
        head.push(byte[0]);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status: Option<u16> = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status {
        Some(200..=299) if line.starts_with("HTTP/1.") => Ok(()),
        Some(status) => Err(io::Error::other(format!("it answered {status}"))),
        None => Err(io::Error::other("its answer is not HTTP")),
    }
}

/// A TCP connection whose waits end.
struct Socket {
    stream: TcpStream,
    clock: Arc<dyn Clock>,
    deadline: Instant,
    /// What the operating system was told last, for reading and for writing.
    timeout: Option<Duration>,
}

impl Socket {
    /// Does `io` again and again in slices until it does something, or the time is over.
    fn in_slices(&mut self, mut io: impl FnMut(&mut TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            if self.clock.stop_requested() {
                return Err(Interruption::Stopped.error());
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let slice = left.min(SLICE).max(Duration::from_millis(1));
            if self.timeout != Some(slice) {
                self.stream.set_read_timeout(Some(slice))?;
                self.stream.set_write_timeout(Some(slice))?;
                self.timeout = Some(slice);
            }
            match io(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.in_slices(|stream| stream.read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.in_slices(|stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Whether a connection that nobody uses is still open, and has nothing to say.
    fn is_open(&mut self) -> bool {
        if self.socket().stream.set_nonblocking(true).is_err() {
            return false;
        }
        let open = match self {
            Stream::Plain(socket) => would_block(&socket.stream.peek(&mut [0])),
            // What came may be a ticket for the next session, which is no reason to close this one.
            Stream::Tls(stream) => loop {
                let StreamOwned { conn, sock } = &mut **stream;
                let read = conn.read_tls(&mut sock.stream);
                if !matches!(read, Ok(count) if count > 0) {
                    break would_block(&read);
                }
                match conn.process_new_packets() {
                    Ok(state) if !state.peer_has_closed() && state.plaintext_bytes_to_read() == 0 => {}
                    Ok(_) | Err(_) => break false,
                }
            },
        };
        self.socket().stream.set_nonblocking(false).is_ok() && open
    }
}

fn would_block(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// A connection of which each call returns at once: `WouldBlock` says that there is something to wait for.
pub struct RawConnection {
    stream: Stream,
    through: Option<Through>,
}

impl RawConnection {
    /// The head of a request as it has to be sent on this connection.
    ///
    /// # Errors
    /// When it is not the head of a request.
    pub fn request_head(&self, head: Vec<u8>) -> io::Result<Vec<u8>> {
        match &self.through {
            Some(through) => through.rewrite(&head),
            None => Ok(head),
        }
    }

    /// Whether bytes that were taken are still to be sent.
    pub fn wants_write(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.conn.wants_write(),
        }
    }

    /// Sends of those bytes what can be sent now.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn flush_now(&mut self) -> io::Result<()> {
        if let Stream::Tls(stream) = &mut self.stream {
            let StreamOwned { conn, sock } = &mut **stream;
            while conn.wants_write() {
                conn.write_tls(&mut sock.stream)?;
            }
        }
        Ok(())
    }

    /// Takes some of `bytes`, which are sent as soon as they can be.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = match &mut self.stream {
            Stream::Plain(socket) => return socket.stream.write(bytes),
            Stream::Tls(stream) => stream.conn.writer().write(bytes)?,
        };
        match self.flush_now() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // Its own buffer is bounded, and full.
            Ok(()) | Err(_) if taken == 0 => Err(io::ErrorKind::WouldBlock.into()),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    /// Reads what is here. 0 is an end that the server wanted; one that it did not want is an error where that
    /// can be told.
    ///
    /// # Errors
    /// Those of the socket and of encryption.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = match &mut self.stream {
            Stream::Plain(socket) => return socket.stream.read(buffer),
            Stream::Tls(stream) => stream,
        };
        let StreamOwned { conn, sock } = &mut **stream;
        loop {
            match conn.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            // At the end of the connection the reader says how it ended.
            conn.read_tls(&mut sock.stream)?;
            conn.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Says goodbye where that is usual. It may not arrive.
    pub fn close(mut self) {
        if let Stream::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            let _ = self.flush_now();
        }
    }
}

impl AsFd for RawConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Plain(socket) => socket.stream.as_fd(),
            Stream::Tls(stream) => stream.sock.stream.as_fd(),
        }
    }
}

impl fmt::Debug for RawConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawConnection").finish_non_exhaustive()
    }
}

/// What a request to a server of plain HTTP needs on its way through a proxy.
struct Through {
    /// What the path is preceded by, for the proxy to know where the request goes.
    prefix: String,
    authorization: Option<String>,
}

/// One connection, for one request after another.
pub(crate) struct Connection {
    stream: Stream,
    buffers: GrowingBuffers,
    through: Option<Through>,
    /// Requests that began on it.
    requests: u64,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was sent since the last answer.
    Idle,
    /// A request is on its way, and no byte of the answer is here.
    Sent,
    /// The answer is coming.
    Answered,
}

impl Connection {
    fn new(stream: Stream, through: Option<Through>) -> Connection {
        let buffers = GrowingBuffers::default();
        Connection { stream, buffers, through, requests: 0, phase: Phase::Idle }
    }

    /// Sends `amount` bytes of the output buffer.
    fn send(&mut self, amount: usize) -> io::Result<()> {
        let output = &self.buffers.output[..amount];
        let first = self.phase != Phase::Sent;
        if first {
            self.requests += 1;
            self.phase = Phase::Sent;
        }
        match &self.through {
            Some(through) if first => self.stream.write_all(&through.rewrite(output)?),
            Some(_) | None => self.stream.write_all(output),
        }
    }

    fn receive(&mut self) -> io::Result<bool> {
        let count = self.stream.read(self.buffers.input_append_buf())?;
        if count == 0 && self.phase == Phase::Sent {
            return Err(self.closed_early().error());
        }
        if count > 0 {
            self.phase = Phase::Answered;
        }
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    /// What `error` means for the request.
    fn judge(&self, error: io::Error, timeout: NextTimeout) -> ureq::Error {
        if error.kind() == io::ErrorKind::TimedOut {
            return ureq::Error::Timeout(timeout.reason);
        }
        let closed = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        );
        ureq::Error::Io(match (closed, self.phase) {
            (true, Phase::Sent) => self.closed_early().error(),
            // ureq would take it for the end of a body without a length.
            (true, Phase::Answered) => Interruption::Broken.error(),
            (true, Phase::Idle) | (false, Phase::Idle | Phase::Sent | Phase::Answered) => error,
        })
    }

    /// What it means that the connection ended before a byte of the answer.
    fn closed_early(&self) -> Interruption {
        if self.requests > 1 { Interruption::Stale } else { Interruption::Unanswered }
    }
}

impl Through {
    /// The start of a request as the proxy wants it: the whole address (RFC 9112, section 3.2.2), and who asks.
    fn rewrite(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let too_long = || io::Error::other("the address is too long");
        let path = request.iter().position(|byte| *byte == b' ').ok_or_else(too_long)? + 1;
        let end = request.windows(2).position(|pair| pair == b"\r\n").ok_or_else(too_long)? + 2;
        let mut rewritten = Vec::with_capacity(request.len() + self.prefix.len() + 128);
        rewritten.extend_from_slice(&request[..path]);
        rewritten.extend_from_slice(self.prefix.as_bytes());
        rewritten.extend_from_slice(&request[path..end]);
        if let Some(authorization) = &self.authorization {
            rewritten.extend_from_slice(format!("proxy-authorization: {authorization}\r\n").as_bytes());
        }
        rewritten.extend_from_slice(&request[end..]);
        Ok(rewritten)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.stream.socket().deadline = deadline_of(timeout);
        self.send(amount).map_err(|error| self.judge(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.stream.socket().deadline = deadline_of(timeout);
        self.receive().map_err(|error| self.judge(error, timeout))
    }

    fn is_open(&mut self) -> bool {
        self.buffers.release();
        self.stream.is_open()
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

/// Buffers that begin small, grow with what comes, and are gone while the connection is idle.
#[derive(Default)]
struct GrowingBuffers {
    input: Vec<u8>,
    /// What of the input is filled and not consumed.
    start: usize,
    end: usize,
    /// Whether the last read filled everything there was.
    filled: bool,
    progress: bool,
    output: Vec<u8>,
}

impl GrowingBuffers {
    fn release(&mut self) {
        if self.start == self.end {
            *self = GrowingBuffers::default();
        }
    }

    fn make_room(&mut self) {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.input.is_empty() {
            self.input.resize(INPUT_BYTES, 0);
        } else if (self.filled || self.end == self.input.len()) && self.input.len() < LARGEST_INPUT_BYTES {
            self.input.resize((self.input.len() * 2).min(LARGEST_INPUT_BYTES), 0);
        }
        self.filled = false;
    }
}

impl Buffers for GrowingBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.output.resize(OUTPUT_BYTES, 0);
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end = (self.end + amount).min(self.input.len());
        self.filled = self.end == self.input.len();
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start = (self.start + amount).min(self.end);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        self.output.resize(OUTPUT_BYTES, 0);
        (&mut self.input[self.end..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
