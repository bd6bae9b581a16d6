//! As much HTTP as it takes to ask this server: answers have a length, or no body.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::LoadError;

/// Longest answer.
const ANSWER_BYTES: usize = 1024 * 1024;

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// A connection that is made again when it has ended.
pub(super) struct Connection {
    address: SocketAddr,
    keep_alive: bool,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(address: SocketAddr, keep_alive: bool) -> Connection {
        Connection { address, keep_alive, stream: None, buffer: Vec::new() }
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Answer, LoadError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if let Some((answer, used)) = parse(&self.buffer)? {
                if self.keep_alive && used == self.buffer.len() {
                    self.stream = Some(stream);
                }
                return Ok(answer);
            }
            if self.buffer.len() > ANSWER_BYTES || stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LoadError::NotHttp);
            }
        }
    }
}

/// The answer and how long it is; `None` when it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, LoadError> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| LoadError::NotHttp)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let used = end + 4 + length.unwrap_or(0);
    let Some(body) = bytes.get(end + 4..used) else { return Ok(None) };
    let answer = Answer {
        status: status.ok_or(LoadError::NotHttp)?,
        body: String::from_utf8_lossy(body).into_owned(),
    };
    Ok(Some((answer, used)))
}
