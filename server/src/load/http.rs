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
            if let Some(head) = head(&self.buffer)? {
                let end = head.bytes + head.length;
                if let Some(body) = self.buffer.get(head.bytes..end) {
                    let body = String::from_utf8_lossy(body).into_owned();
                    if self.keep_alive && end == self.buffer.len() {
                        self.stream = Some(stream);
                    }
                    return Ok(Answer { status: head.status, body });
                }
            }
            if self.buffer.len() > ANSWER_BYTES || stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LoadError::NotHttp);
            }
        }
    }
}

/// What the head of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// How long it is, with the empty line.
    pub(crate) bytes: usize,
    /// How long the body is.
    pub(crate) length: usize,
    /// The server closes the connection.
    pub(crate) is_last: bool,
    /// In how many seconds to ask again.
    pub(crate) retry_after: Option<u64>,
    /// `X-Total-Count`: how much there is on all pages.
    pub(crate) total: Option<u64>,
}

/// The head that `bytes` begin with; `None` when it is not complete.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>, LoadError> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| LoadError::NotHttp)?;
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or(LoadError::NotHttp)?;
    let mut head = Head { status, bytes: end + 4, length: 0, is_last: false, retry_after: None, total: None };
    for line in text.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().map_err(|_| LoadError::NotHttp)?;
        } else if name.eq_ignore_ascii_case("connection") {
            head.is_last = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("x-total-count") {
            head.total = value.parse().ok();
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nretry-after: 7\r\nX-Total-Count: 9\r\n\
                    Connection: close\r\n\r\n";
        let wanted = Head {
            status: 429,
            bytes: text.len(),
            length: 2,
            is_last: true,
            retry_after: Some(7),
            total: Some(9),
        };
        assert_eq!(head(format!("{text}{{}}").as_bytes()).unwrap(), Some(wanted));
        assert_eq!(head(&text.as_bytes()[..text.len() - 1]).unwrap(), None);
        assert!(head(b"HTTP/2 200\r\n\r\n").is_err());
    }
}
