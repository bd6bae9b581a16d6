//! `ETag` and `If-Match`: whoever changes something and says what they have seen of it is compared with it in the transaction of the
//! change, so of two people who have seen the same, one is refused.

use hyper::StatusCode;
use hyper::header::{ETAG, HeaderValue, IF_MATCH};
use serde::Serialize;

use super::reply::{self, Reply};
use super::{ApiError, Call};
use crate::domain::etag;

/// What somebody has seen of what they change; nothing, when they do not say.
#[derive(Debug, Clone)]
pub(super) struct Seen(Option<String>);

impl Seen {
    /// What a request says.
    pub(super) fn of(call: &Call) -> Seen {
        Seen(tags(call))
    }

    /// # Errors
    /// It is not what is there now.
    pub(super) fn is<T: Serialize>(&self, now: &T) -> Result<(), ApiError> {
        let tag = reply::etag_of(now);
        let is_that = |seen: &String| etag::names(seen, |name| name == tag.trim_matches('"'));
        match self.0.as_ref().is_none_or(is_that) {
            true => Ok(()),
            false => Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "it has been changed meanwhile")),
        }
    }
}

/// The tags that a request names, in one header or in several. One that is no text names nothing, and is no reason to change what
/// somebody else may have changed.
pub(super) fn tags(call: &Call) -> Option<String> {
    let values = call.headers.get_all(IF_MATCH);
    let named: Vec<&str> = values.iter().map(|value| value.to_str().unwrap_or_default()).collect();
    (!named.is_empty()).then(|| named.join(","))
}

/// An answer that shows something, with the tag of what of it people change.
pub(super) fn tagged<T: Serialize>(mut reply: Reply, shown: &T) -> Reply {
    put_tag(&mut reply, &reply::etag_of(shown));
    reply
}

/// Puts a tag on an answer.
pub(super) fn put_tag(reply: &mut Reply, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        reply.headers_mut().insert(ETAG, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_seen_what_is_there_is_refused() {
        let one = reply::etag_of(&1);
        for (seen, expected) in [
            (None, true),
            (Some(one.clone()), true),
            (Some(format!("\"x\", {one}")), true),
            // A proxy compresses.
            (Some(format!("W/{one}")), true),
            (Some("*".to_owned()), true),
            (Some(reply::etag_of(&2)), false),
            (Some(String::new()), false),
        ] {
            let refused = Seen(seen.clone()).is(&1).map_err(|error| error.status);
            assert_eq!(
                refused,
                if expected { Ok(()) } else { Err(StatusCode::PRECONDITION_FAILED) },
                "{seen:?}"
            );
        }
        let reply = tagged(reply::empty(StatusCode::OK), &1);
        assert_eq!(reply.headers()[ETAG], one);
    }
}
