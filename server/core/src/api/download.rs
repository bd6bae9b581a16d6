//! Artifacts to load: links that open themselves, ranges, and bytes that come from the disk as they are read.

use std::io::SeekFrom;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use super::call::Caller;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::link::{Holder, LinkError};
use crate::domain::model::Artifact;
use crate::domain::time::Timestamp;

/// Read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are read before the client takes them.
const PIECES: usize = 4;

/// A link and when it ends.
pub(super) struct Link {
    pub(super) uri: String,
    pub(super) expire: Timestamp,
}

/// A link to an artifact for whoever has sent `call`.
pub(super) fn link(shared: &Shared, call: &Call, artifact: &Artifact) -> Link {
    let expire = Timestamp::now().plus_seconds(shared.options.link_lifetime_seconds);
    let path = format!("/download/{}.mender", artifact.id);
    let holder = match &call.caller {
        Caller::Device(claims) => {
            Holder::Device { device: claims.sub.clone(), auth_set: claims.jti.clone(), serial: claims.serial }
        }
        Caller::Person(_) | Caller::Stranger => Holder::Anybody,
    };
    let base = match &shared.options.public_url {
        Some(url) => url.clone(),
        None => {
            let scheme = if shared.options.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", host(call).unwrap_or("127.0.0.1"))
        }
    };
    Link { uri: base + &shared.store.secrets.links.sign(&path, &holder, expire), expire }
}

/// The host that the client used, if it is nothing but a host.
fn host(call: &Call) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    call.header(header::HOST.as_str()).filter(|host| !host.is_empty() && host.bytes().all(plain))
}

pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let ([name], &Method::GET | &Method::HEAD) = (rest, &call.method) else {
        return Err(ApiError::not_found());
    };
    check(shared, call)?;
    let id = name.strip_suffix(".mender").ok_or_else(ApiError::not_found)?;
    let artifact = shared.fleet().artifact(id).cloned().ok_or_else(ApiError::not_found)?;
    send(shared, call, &artifact).await
}

/// Whether the link in the request opens what it names. That of a device does so while the device may speak.
pub(super) fn check(shared: &Shared, call: &Call) -> Result<(), ApiError> {
    let forbidden = |reason| Err(ApiError::new(StatusCode::FORBIDDEN, reason));
    match shared.store.secrets.links.check(&call.path, &call.query, Timestamp::now()) {
        Ok(Holder::Device { device, auth_set, serial })
            if !shared.fleet().may_speak(&device, &auth_set, serial) =>
        {
            forbidden("the device that the link was for is not accepted any more")
        }
        Ok(Holder::Anybody | Holder::Device { .. }) => Ok(()),
        Err(LinkError::Forged) => forbidden("the link is not valid"),
        Err(LinkError::Expired) => forbidden("the link has expired"),
    }
}

async fn send(shared: &Shared, call: &Call, artifact: &Artifact) -> Result<Reply, ApiError> {
    let etag = format!("\"{}\"", artifact.sha256);
    // A range of something else is worth nothing: then all of it is sent.
    let same = call.header(header::IF_RANGE.as_str()).is_none_or(|tag| tag == etag);
    let wanted = match call.header(header::RANGE.as_str()).filter(|_| same) {
        Some(range) => Wanted::parse(range, artifact.size),
        None => Wanted::All,
    };
    let (status, start, length) = match wanted {
        Wanted::All => (StatusCode::OK, 0, artifact.size),
        Wanted::Range { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let mut answer = if wanted == Wanted::Nothing {
        reply::empty(status)
    } else if call.method == Method::HEAD {
        whole(shared, artifact).await?;
        Response::new(reply::empty(status).into_body())
    } else {
        Response::new(stream(shared, artifact, start, length).await?)
    };
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    match wanted {
        Wanted::All => {}
        Wanted::Range { start, length } => {
            set(header::CONTENT_RANGE, &format!("bytes {start}-{}/{}", start + length - 1, artifact.size));
        }
        Wanted::Nothing => {
            set(header::CONTENT_RANGE, &format!("bytes */{}", artifact.size));
            return Ok(answer);
        }
    }
    set(header::CONTENT_TYPE, "application/vnd.mender-artifact");
    set(header::CONTENT_LENGTH, &length.to_string());
    Ok(answer)
}

/// The file of an artifact, if all of it is there: what is sent is what was promised, or nothing.
async fn whole(shared: &Shared, artifact: &Artifact) -> Result<File, ApiError> {
    let path = shared.store.blobs.path(&artifact.id);
    let damaged = |reason: String| {
        log::error!("{} of artifact {}: {reason}", path.display(), artifact.name);
        ApiError::internal("the file of the artifact is damaged")
    };
    let file = File::open(&path).await.map_err(|error| damaged(error.to_string()))?;
    match file.metadata().await.map_err(|error| damaged(error.to_string()))?.len() {
        size if size == artifact.size => Ok(file),
        size => Err(damaged(format!("it has {size} bytes of {}", artifact.size))),
    }
}

/// The bytes from the disk, a few pieces ahead of the client.
async fn stream(
    shared: &Shared,
    artifact: &Artifact,
    start: u64,
    length: u64,
) -> Result<reply::Body, ApiError> {
    let mut file = whole(shared, artifact).await?;
    file.seek(SeekFrom::Start(start)).await?;
    let path = shared.store.blobs.path(&artifact.id);
    let (sender, receiver) = mpsc::channel::<std::io::Result<Frame<Bytes>>>(PIECES);
    tokio::spawn(async move {
        let mut left = length;
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let mut buffer = vec![0; piece];
            let result = match file.read(&mut buffer).await {
                Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer.truncate(count);
                    left -= count as u64;
                    Ok(Frame::data(Bytes::from(buffer)))
                }
                Err(error) => Err(error),
            };
            let failed = result.is_err();
            if let Err(error) = &result {
                log::error!("{} ends {left} bytes early: {error}", path.display());
            }
            // The client has gone.
            if sender.send(result).await.is_err() || failed {
                break;
            }
        }
    });
    Ok(Pieces { receiver }.boxed())
}

/// The pieces as a body.
struct Pieces {
    receiver: mpsc::Receiver<std::io::Result<Frame<Bytes>>>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.receiver.poll_recv(cx)
    }
}

/// What of an artifact is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Range { start: u64, length: u64 },
    Nothing,
}

impl Wanted {
    /// RFC 9110: a range that is not understood, or more than one, may be answered as if there was none.
    fn parse(text: &str, size: u64) -> Wanted {
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true if !text.is_empty() => text.parse::<u64>().ok(),
            _ => None,
        };
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
        else {
            return Wanted::All;
        };
        let (start, end) = match (first, last) {
            ("", suffix) => match number(suffix) {
                Some(0) => return Wanted::Nothing,
                Some(count) => (size.saturating_sub(count), size),
                None => return Wanted::All,
            },
            (first, "") => match number(first) {
                Some(start) => (start, size),
                None => return Wanted::All,
            },
            (first, last) => match (number(first), number(last)) {
                (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
                _ => return Wanted::All,
            },
        };
        if start >= size { Wanted::Nothing } else { Wanted::Range { start, length: end - start } }
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let range = |start, length| Wanted::Range { start, length };
        for (text, wanted) in [
            ("bytes=0-", range(0, 100)),
            ("bytes=10-19", range(10, 10)),
            ("bytes=99-", range(99, 1)),
            ("bytes=90-200", range(90, 10)),
            ("bytes=0-18446744073709551615", range(0, 100)),
            ("bytes=-10", range(90, 10)),
            ("bytes=-200", range(0, 100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=100-200", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=20-10", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::All),
            ("items=0-1", Wanted::All),
            ("", Wanted::All),
        ] {
            assert_eq!(Wanted::parse(text, 100), wanted, "{text}");
        }
    }
}
