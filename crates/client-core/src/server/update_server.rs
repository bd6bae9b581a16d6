//! The seam to the server that orders deployments. What it calls things on the wire is its own business.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Headers, ServerError, url};
use crate::deploy::{DeploymentId, Report};
use crate::monitor::{Alert, Check};

/// A server that orders deployments, whatever its protocol.
///
/// # Contract
/// - Each call is one attempt: whoever calls decides whether and when there is another. A call may log in by itself.
/// - Every wait ends soon when the process is asked to stop, with [`ServerError::Stopped`].
/// - A report, a log and an inventory may be sent twice; the server takes them for one. An alert is sent twice only where
///   the answer was lost.
pub trait UpdateServer: Send {
    /// Asks what to install. `provides` is everything the device provides, `device_type` and `artifact_name` among it.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn next(&mut self, provides: &BTreeMap<String, String>) -> Result<Poll, ServerError>;

    /// Asks anew where the artifact of deployment `id` is: the address that was offered is refused. `None`: the server
    /// does not order this deployment any more.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn refresh(
        &mut self,
        id: &DeploymentId,
        provides: &BTreeMap<String, String>,
    ) -> Result<Option<Source>, ServerError>;

    /// Reports how deployment `id` goes. `remark` is for people; what is too long for the server is cut.
    ///
    /// # Errors
    /// When the report may not have arrived and may be repeated.
    fn report(
        &mut self,
        id: &DeploymentId,
        report: Report,
        remark: Option<&str>,
    ) -> Result<ReportAnswer, ServerError>;

    /// Uploads the log of deployment `id`: `messages` is the items of a JSON array, joined by commas. Without a message
    /// nothing is sent.
    ///
    /// # Errors
    /// When the server did not take it.
    fn upload_log(&mut self, id: &DeploymentId, messages: &[u8]) -> Result<ReportAnswer, ServerError>;

    /// Sends the inventory, unless the server has it already.
    ///
    /// # Errors
    /// When the server did not take it.
    fn send_inventory(&mut self, attributes: &[Attribute]) -> Result<(), ServerError>;

    /// The next inventory is sent also when nothing has changed: a person asked for it.
    fn forget_sent_inventory(&mut self);

    /// Tells what is watched on this device. A server that has no place for that refuses.
    ///
    /// # Errors
    /// When the server may take it another time.
    fn send_checks(&mut self, _: &[Check]) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Refused)
    }

    /// Sends alerts, the oldest first: all of them are taken, or none. A server that has no place for them refuses.
    ///
    /// # Errors
    /// When the server may take them another time.
    fn send_alerts(&mut self, _: &[Alert]) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Refused)
    }

    /// Drops what the server granted: the next call has to show that this device is let in.
    fn forget_token(&mut self);

    /// Whether the server let this device in, as far as is known.
    fn is_authorized(&self) -> bool;

    /// The server in use, for messages.
    fn server(&self) -> Option<&str>;
}

/// The answer to the question what to install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Poll {
    /// What to install, if there is something.
    pub offer: Option<Offer>,
    /// When the server wants to be asked again, where it says so.
    pub ask_again_in: Option<Duration>,
}

/// A deployment that the server orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub id: DeploymentId,
    /// Where the artifact is.
    pub source: Source,
    /// The artifact's name, where the server told it.
    pub artifact_name: Option<String>,
    /// The device types it is for; empty where the server did not tell.
    pub device_types: Vec<String>,
}

/// A place that an artifact can be had from.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The whole address.
    url: String,
    /// For the origin of `url` and for no other.
    headers: Headers,
    /// How long the artifact is, where the server told it.
    size_bytes: Option<u64>,
}

impl Source {
    /// An address that answers whoever knows it.
    pub fn public(url: impl Into<String>) -> Source {
        Source { url: url.into(), headers: Headers::new(), size_bytes: None }
    }

    /// Sends `headers` along: to the origin of this address, and to no other, wherever redirects and later addresses
    /// lead. Names are in lower case.
    #[must_use]
    pub fn with_headers(self, headers: Headers) -> Source {
        Source { headers, ..self }
    }

    /// The length that the server told.
    #[must_use]
    pub fn of_size(self, size_bytes: u64) -> Source {
        Source { size_bytes: Some(size_bytes), ..self }
    }

    /// The whole address. May hold a secret: [`url::shown`] is for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What may be said to `target`.
    pub(super) fn headers_for(&self, target: &str) -> &[(&'static str, String)] {
        if url::same_origin(&self.url, target) { &self.headers } else { &[] }
    }

    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }
}

/// Without the query of the address and the values of the headers: whoever has those has the artifact.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Source")
            .field("url", &url::shown(&self.url))
            .field("headers", &names)
            .field("size_bytes", &self.size_bytes)
            .finish()
    }
}

/// What the server says to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportAnswer {
    /// Noted.
    Accepted,
    /// The deployment was aborted.
    Aborted,
    /// The server will never take this report: repeating it is pointless.
    Refused,
}

/// One inventory attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// One string, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A key that occurred once.
    One(String),
    /// A key that occurred several times, in order.
    Many(Vec<String>),
}
