//! Faults that are whole answers: other statuses, other ranges, other bytes.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LOCATION, RANGE};

use server_core::surround::{Call, Reply, empty, text};

use crate::rules::{Action, FaultsHandle};
use crate::wire::WireFault;

/// Most bytes of garbage.
const GARBAGE_BYTES: usize = 1024 * 1024;

/// The answer of [`Action::Status`].
pub(crate) fn status(code: u16, headers: &[(String, String)], body: &str) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = if body.is_empty() { empty(status) } else { text(status, body) };
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
            reply.headers_mut().insert(name, value);
        }
    }
    reply
}

/// The answer of [`Action::Redirect`].
pub(crate) fn redirect(to: &str) -> Reply {
    status(302, &[(LOCATION.to_string(), to.to_owned())], "")
}

/// Changes the request before it is done.
pub(crate) fn before(action: &Action, call: &mut Call) {
    match action {
        Action::IgnoreRange => {
            call.headers.remove(RANGE);
        }
        Action::WrongRange { shift, header_only: false } => {
            let range = call.header(RANGE.as_str()).and_then(|range| range.strip_prefix("bytes="));
            let shifted = range.and_then(|range| {
                let (start, end) = range.split_once('-')?;
                Some(format!("bytes={}-{end}", start.parse::<u64>().ok()?.saturating_add_signed(*shift)))
            });
            if let Some(value) = shifted.and_then(|range| HeaderValue::from_str(&range).ok()) {
                call.headers.insert(RANGE, value);
            }
        }
        Action::WrongRange { header_only: true, .. }
        | Action::Cut { .. }
        | Action::Stall { .. }
        | Action::Hold { .. }
        | Action::Status { .. }
        | Action::ChangeContent { .. }
        | Action::Redirect { .. }
        | Action::Throttle { .. }
        | Action::Garbage { .. }
        | Action::SlowHead { .. }
        | Action::LoseAnswer => {}
    }
}

/// Changes the answer after it was made.
pub(crate) fn after(action: &Action, mut reply: Reply) -> Reply {
    match action {
        Action::WrongRange { shift, header_only: true } => {
            let shifted = reply.headers().get(CONTENT_RANGE).and_then(|value| {
                let (range, size) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
                let (start, end) = range.split_once('-')?;
                let moved = |text: &str| Some(text.parse::<u64>().ok()?.saturating_add_signed(*shift));
                HeaderValue::from_str(&format!("bytes {}-{}/{size}", moved(start)?, moved(end)?)).ok()
            });
            if let Some(value) = shifted {
                reply.headers_mut().insert(CONTENT_RANGE, value);
            }
            reply
        }
        Action::ChangeContent { same_etag } => {
            let (mut parts, body) = reply.into_parts();
            if let (Some(etag), false) = (parts.headers.get(ETAG), same_etag) {
                let other = etag.to_str().ok().and_then(|etag| HeaderValue::from_str(&other_etag(etag)).ok());
                if let Some(other) = other {
                    parts.headers.insert(ETAG, other);
                }
            }
            let size = hyper::body::Body::size_hint(&body).exact();
            let changed = body.map_frame(|frame| {
                frame.map_data(|data| Bytes::from(data.iter().map(|byte| byte ^ 0x55).collect::<Vec<u8>>()))
            });
            if let Some(size) = size {
                parts.headers.entry("content-length").or_insert(size.into());
            }
            Reply::from_parts(parts, changed.boxed())
        }
        Action::WrongRange { .. }
        | Action::IgnoreRange
        | Action::Cut { .. }
        | Action::Stall { .. }
        | Action::Hold { .. }
        | Action::Status { .. }
        | Action::Redirect { .. }
        | Action::Throttle { .. }
        | Action::Garbage { .. }
        | Action::SlowHead { .. }
        | Action::LoseAnswer => reply,
    }
}

fn other_etag(etag: &str) -> String {
    format!("\"changed-{}", etag.trim_start_matches('"'))
}

/// What has to happen to the bytes of the answer.
pub(crate) fn on_the_wire(action: &Action, rules: &FaultsHandle) -> WireFault {
    match action {
        Action::Cut { after: 0 } | Action::LoseAnswer => WireFault::Close,
        Action::Cut { after } => WireFault::CutBody { left: *after },
        Action::Stall { after, seconds } => {
            WireFault::StallBody { left: *after, pause: seconds.map(seconds_to_wait) }
        }
        Action::Hold { after } => WireFault::HoldBody { left: *after, is_held: Box::new(rules.unchanged()) },
        Action::Throttle { bytes_per_second } => WireFault::Throttle { bytes_per_second: *bytes_per_second },
        Action::Garbage { bytes } => WireFault::Replace { bytes: garbage((*bytes).clamp(1, GARBAGE_BYTES)) },
        Action::SlowHead { seconds } => WireFault::SlowHead { pause: seconds_to_wait(*seconds) },
        Action::Status { .. }
        | Action::WrongRange { .. }
        | Action::IgnoreRange
        | Action::ChangeContent { .. }
        | Action::Redirect { .. } => WireFault::Nothing,
    }
}

/// Nonsense and infinity are a day.
fn seconds_to_wait(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.clamp(0.0, 86_400.0)).unwrap_or(Duration::from_secs(86_400))
}

/// The same bytes every time, without any that could begin an answer.
fn garbage(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 | 0x80
    };
    (0..count).map(|_| next()).collect()
}
