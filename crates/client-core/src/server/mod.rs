//! What every protocol of an update server needs: the seam [`UpdateServer`], one exchange over HTTP, the download that
//! survives a bad network, when to try again. What a server calls things is in a crate of its own for each protocol, and
//! how bytes travel is the business of a [`Transport`].

mod backoff;
mod download;
mod error;
pub mod exchange;
mod range;
mod retry_after;
mod update_server;
pub mod url;

pub use backoff::Backoff;
pub use download::{CancelToken, Download, DownloadSettings, DownloadStatistics};
pub use error::ServerError;
pub use update_server::{Attribute, AttributeValue, Offer, Poll, ReportAnswer, Source, UpdateServer};
pub use url::address_problem;

use std::fmt;
use std::io::Read;

/// Headers of a request: names in lower case.
pub type Headers = Vec<(&'static str, String)>;

/// A request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// What a request is for: the two kinds have different deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A small question with a small answer.
    Api,
    /// An artifact: as long as it takes, but never silent for long.
    Download,
}

/// A request. Header names are in lower case; `host`, `content-length`, `user-agent` and `connection` are the
/// transport's.
#[derive(Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: &'a str,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body, if there is one. Always sent with its length, never chunked.
    pub body: Option<&'a [u8]>,
    /// What it is for.
    pub purpose: Purpose,
}

/// Without what may be secret: the query, the values of the headers, the body.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &url::shown(self.url))
            .field("headers", &names)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// An answer, as it came: a redirect is an answer.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body. Ends early only with an error: an end of the connection before the announced length is one.
    pub body: Box<dyn Read + Send>,
}

impl Response {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

/// Sends requests.
///
/// # Contract
/// - Does not follow redirects, does not repeat a request, adds no credentials, undoes no `content-encoding`.
/// - Every wait on the network has a deadline, and ends within a second when the process is asked to stop.
/// - The head of an answer is bounded (64 KiB); the body is the caller's to bound.
pub trait Transport: Send {
    /// Sends `request`; returns when the head of the answer is here.
    ///
    /// # Errors
    /// When there is no answer.
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// Whether the same attempt may succeed later; a certificate that is not accepted stays so.
    pub may_pass: bool,
    /// What went wrong, for a person.
    pub reason: String,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for TransportError {}
