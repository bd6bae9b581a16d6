//! One request, read.

use std::net::IpAddr;
use std::time::Instant;

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, header};
use serde::de::DeserializeOwned;

use super::users::Person;
use super::{ApiError, objects};
use crate::domain::limits;
use crate::domain::token::Claims;
use crate::model::time::Timestamp;

/// One request, read.
pub struct Call {
    /// What is to be done.
    pub method: Method,
    /// As it was sent, without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// Everything in its head.
    pub headers: HeaderMap,
    /// Empty for an upload.
    pub body: Bytes,
    /// What the connection may become.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Who sends it, as far as its token says.
    pub(crate) caller: Caller,
    /// Where it comes from.
    pub(crate) from: Option<IpAddr>,
    /// Whether its body was left where it is: no other request can follow it then.
    pub(crate) is_unread: bool,
}

/// A device as it was read when its request began: a request of a device needs no other read of it.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    /// What its token says.
    pub(crate) claims: Claims,
    /// Its number.
    pub(crate) number: u32,
    /// The deployment that it is at work on.
    pub(crate) active: Option<String>,
    /// The sequence number of the newest deployment that it has finished.
    pub(crate) last_finished: u64,
    /// When that was.
    pub(crate) read: Instant,
    /// How many devices had changed then, as [`Heard::changes`](crate::heard::Heard::changes) counts them.
    pub(crate) changes: u64,
}

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody that is known.
    Stranger,
    /// A device whose token was valid.
    Device(Box<Speaker>),
    /// A person.
    Person(Person),
}

impl Call {
    pub(crate) fn new(mut parts: Parts) -> Call {
        Call {
            upgrade: parts.extensions.remove(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            method: parts.method,
            headers: parts.headers,
            body: Bytes::new(),
            caller: Caller::Stranger,
            from: None,
            is_unread: false,
        }
    }

    /// The path without its first slash, in pieces.
    pub fn segments(&self) -> Vec<&str> {
        segments(&self.path)
    }

    /// The path, with the query if there is one.
    pub fn path_and_query(&self) -> String {
        match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        }
    }

    /// Method and path, for the log: not long.
    pub fn shown(&self) -> String {
        format!("{} {}", short(self.method.as_str()), short(&self.path))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The token of `Authorization: Bearer`. What cookies say is for [`super::cookie`].
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether one of the words of a header is `wanted`.
    pub(crate) fn has_word(&self, name: &header::HeaderName, wanted: &str) -> bool {
        let values = self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    }

    /// The value of a cookie.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let values = self.headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let mut cookies = values.flat_map(|value| value.split(';'));
        cookies.find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
    }

    /// Every value of `name` in the query.
    pub(crate) fn queries(&self, name: &str) -> Vec<String> {
        self.pairs().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
    }

    /// Every name and value in the query.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
    }

    /// The first value of `name` in the query.
    pub(crate) fn query(&self, name: &str) -> Option<String> {
        self.queries(name).into_iter().next()
    }

    /// A time in the query, as seconds since 1970 or as RFC 3339.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.query(name) else { return Ok(None) };
        let seconds = text.parse::<u64>().ok().map(|seconds| Timestamp(seconds.saturating_mul(1000)));
        let time = seconds.or_else(|| Timestamp::parse(&text));
        time.map(Some).ok_or_else(|| ApiError::bad_request(&format!("{name} is not a time")))
    }

    /// The body as JSON, in which a struct is an object.
    ///
    /// # Errors
    /// The body is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        objects::from_slice(&self.body)
            .map_err(|error| ApiError::bad_request(&format!("the body is not as expected: {error}")))
    }
}

/// Text of somebody else's, for the log: not long.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(limits::LOGGED_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// Percent-decodes; what is no text then has replacement characters.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value =
            digits.filter(|d| !d.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, value) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands between the slashes of a path; one at its end does not count.
pub(super) fn segments(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap_or(path).trim_end_matches('/').split('/').collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn percent_encoding_is_undone() {
        for (text, decoded) in
            [("a%20b+c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(super::decode(text), decoded);
        }
    }
}
