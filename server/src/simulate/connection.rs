//! A connection of one thread: it waits for each answer, so that the kernel wakes the thread that wants it, and none other.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::load::{Head, LoadError, head};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer: a page of 500 devices with everything that they have reported.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// An answer.
pub(super) struct Answer<'a> {
    pub(super) head: Head,
    pub(super) body: &'a [u8],
}

/// A connection that is made again when it has ended, then to the next server.
pub(super) struct Connection<'a> {
    servers: &'a [SocketAddr],
    turn: usize,
    /// Whether it is used for more than one question.
    is_kept: bool,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl<'a> Connection<'a> {
    /// A connection that begins with the server of its `turn`.
    pub(super) fn new(servers: &'a [SocketAddr], turn: usize) -> Connection<'a> {
        Connection { servers, turn, is_kept: true, stream: None, buffer: Vec::with_capacity(4096) }
    }

    /// The same, but each question has a connection of its own.
    pub(super) fn for_each(servers: &'a [SocketAddr], turn: usize) -> Connection<'a> {
        Connection { is_kept: false, ..Connection::new(servers, turn) }
    }

    /// Sends a request and reads its answer. After an error the next one goes to the next server.
    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>, LoadError> {
        let fresh = self.stream.is_none();
        let mut result = self.ask_once(request);
        // A server may close a connection that nobody uses. Nothing has come back, and a new one says why, if it is more.
        if result.is_err() && !fresh && self.buffer.is_empty() {
            result = self.ask_once(request);
        }
        match result {
            Ok((head, from, to)) => Ok(Answer { head, body: self.buffer.get(from..to).unwrap_or_default() }),
            Err(error) => {
                self.turn += 1;
                Err(error)
            }
        }
    }

    fn ask_once(&mut self, request: &[u8]) -> Result<(Head, usize, usize), LoadError> {
        self.buffer.clear();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request)?;
        let mut block = [0; 16 * 1024];
        loop {
            let count = match stream.read(&mut block) {
                Ok(0) => return Err(LoadError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.buffer.extend_from_slice(block.get(..count).unwrap_or_default());
            if let Some(head) = head(&self.buffer)? {
                let end = head.bytes + head.length;
                if self.buffer.len() >= end {
                    if self.is_kept && !head.is_last && self.buffer.len() == end {
                        self.stream = Some(stream);
                    }
                    let from = head.bytes;
                    return Ok((head, from, end));
                }
            }
            if self.buffer.len() > ANSWER_BYTES {
                return Err(LoadError::NotHttp);
            }
        }
    }

    fn connect(&self) -> Result<TcpStream, LoadError> {
        let address = self.servers.get(self.turn % self.servers.len().max(1));
        let address = address.ok_or_else(|| LoadError::Io(ErrorKind::AddrNotAvailable.into()))?;
        let stream = TcpStream::connect_timeout(address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}
