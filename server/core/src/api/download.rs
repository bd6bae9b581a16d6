//! Artifacts to load: links that open themselves, ranges, and bytes that come from their place as they are read.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::call::Caller;
use super::routes::Route;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::blobs::{BlobError, Name, Pieces, Span, Verb};
use crate::domain::admission::may_speak;
use crate::domain::link::{Holder, LinkError};
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::work::Kind;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/download/{file}", "Load an artifact, or a range of it, by a link")
        .queries(&["expire", "signature"])
        .gives_text("application/vnd.mender-artifact")
        .also(&[206, 304])
        .fails(&[416, 502]),
    Route::head("/download/{file}", "What a load would be").queries(&["expire", "signature"]).status(200),
];

/// A link and when it ends.
pub(super) struct Link {
    pub(super) uri: String,
    pub(super) expire: Timestamp,
}

/// A link to an artifact for whoever has sent `call`: to the place where it is, where that gives links, and else to this
/// server.
pub(super) async fn link(shared: &Shared, call: &Call, artifact: &Artifact) -> Link {
    let seconds = shared.options.link_lifetime_seconds;
    let expire = Timestamp::now().plus_seconds(seconds);
    if let Some(name) = Name::artifact(&artifact.id) {
        match shared.blobs.link(Verb::Get, &name, Duration::from_secs(seconds)).await {
            Ok(Some(uri)) => return Link { uri, expire },
            Ok(None) => {}
            // This server can read it, perhaps: no reason to keep a device from its update.
            Err(error) => log::warn!("{error}; the link goes through this server"),
        }
    }
    let holder = match &call.caller {
        Caller::Device(device) => Holder::Device {
            device: device.claims.sub.clone(),
            auth_set: device.claims.jti.clone(),
            serial: device.claims.serial,
        },
        Caller::Person(_) | Caller::Stranger => Holder::Anybody,
    };
    let path = format!("/download/{}.mender", artifact.id);
    Link { uri: own(shared, call, &path, &holder, expire), expire }
}

/// A link to this server.
pub(super) fn own(shared: &Shared, call: &Call, path: &str, holder: &Holder, expire: Timestamp) -> String {
    let base = match &shared.options.public_url {
        Some(url) => url.clone(),
        None => {
            let scheme = if shared.options.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{}", host(call).unwrap_or("127.0.0.1"))
        }
    };
    base + &shared.secrets.links.sign(path, holder, expire)
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
    check(shared, call).await?;
    let id = name.strip_suffix(".mender").ok_or_else(ApiError::not_found)?;
    let artifact = match shared.service.catalogue.artifact(id) {
        Some(artifact) => Artifact::clone(&artifact),
        None => made(shared, id).await?.ok_or_else(ApiError::not_found)?,
    };
    send(shared, call, &artifact).await
}

/// The artifact of a device's configuration.
async fn made(shared: &Shared, id: &str) -> Result<Option<Artifact>, ApiError> {
    let document = shared.service.store.document(Kind::MadeArtifact, id).await?;
    Ok(document.and_then(|value| serde_json::from_value(value).ok()))
}

/// Whether the link in the request opens what it names. That of a device does so while the device may speak.
pub(super) async fn check(shared: &Shared, call: &Call) -> Result<(), ApiError> {
    let forbidden = |reason| Err(ApiError::new(StatusCode::FORBIDDEN, reason));
    match shared.secrets.links.check(&call.path, &call.query, Timestamp::now()) {
        Ok(Holder::Anybody) => Ok(()),
        Ok(Holder::Device { device, auth_set, serial }) => {
            let device = shared.service.store.device(&device).await?;
            match device.is_some_and(|device| may_speak(&device, &auth_set, serial)) {
                true => Ok(()),
                false => forbidden("the device that the link was for is not accepted any more"),
            }
        }
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
        let span = Span { total: artifact.size, start, length };
        let pieces =
            shared.blobs.read(&blob(artifact)?, span).await.map_err(|error| unread(artifact, error))?;
        Response::new(Sent { pieces: Mutex::new(pieces), name: artifact.name.clone() }.boxed())
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

fn blob(artifact: &Artifact) -> Result<Name, ApiError> {
    Name::artifact(&artifact.id).ok_or_else(|| ApiError::internal("the artifact has no file"))
}

/// Whether all of an artifact is there: what is sent is what was promised, or nothing.
async fn whole(shared: &Shared, artifact: &Artifact) -> Result<(), ApiError> {
    let name = blob(artifact)?;
    match shared.blobs.size(&name).await.map_err(|error| unread(artifact, error))? {
        Some(size) if size == artifact.size => Ok(()),
        Some(size_bytes) => {
            let expected_bytes = artifact.size;
            Err(unread(artifact, BlobError::Damaged { name, size_bytes, expected_bytes }))
        }
        None => Err(unread(artifact, BlobError::Missing { name })),
    }
}

fn unread(artifact: &Artifact, error: BlobError) -> ApiError {
    log::error!("artifact {}: {error}", artifact.name);
    error.into()
}

/// The bytes as a body.
struct Sent {
    /// A body is shared between threads, a stream is not. Nobody ever waits for this.
    pieces: Mutex<Pieces>,
    name: String,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let pieces = self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
        let piece = std::task::ready!(pieces.poll_next_unpin(cx));
        Poll::Ready(piece.map(|piece| match piece {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(error) => {
                log::error!("artifact {} ends early: {error}", self.name);
                Err(std::io::Error::other(error))
            }
        }))
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
