//! Why the server did not do what it was asked to do.

use std::fmt;
use std::time::Duration;

use super::TransportError;
use crate::deploy::SourceChanged;

/// Why a call of the device API failed.
#[non_exhaustive]
pub enum ServerError {
    /// No server is configured.
    NoServer,
    /// No answer.
    Transport {
        /// The address asked, without its query.
        url: String,
        /// What went wrong.
        source: TransportError,
    },
    /// The device is not accepted (yet).
    Unauthorized {
        /// What the server says.
        message: String,
    },
    /// An answer that the call does not know, or that cannot be understood.
    Status {
        /// The address asked, without its query.
        url: String,
        /// The status code.
        status: u16,
        /// What the server says, shortened.
        message: String,
        /// How long the server wants to be left alone, bounded (1 second to 24 hours).
        retry_after: Option<Duration>,
    },
    /// A good status with a body that is not what the call answers: perhaps a captive portal.
    Malformed {
        /// The address asked, without its query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The identity or the key of the device cannot be used.
    Credentials {
        /// Why not.
        reason: String,
    },
    /// What was given as an address is none.
    Address {
        /// What was given, without its query.
        url: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// What is at the address is no longer what was being transferred: the bytes here have no rest.
    ContentChanged(SourceChanged),
    /// The server aborted the deployment, or ordered another one.
    Aborted {
        /// The deployment that is no more.
        id: String,
    },
    /// The transfer costs more than is allowed.
    OverBudget {
        /// The address asked, without its query.
        url: String,
        /// Bytes that one deployment may still cost in this process.
        budget_bytes: u64,
        /// Bytes that came.
        received_bytes: u64,
        /// Bytes that would have to follow, as far as that is known.
        wanted_bytes: u64,
    },
    /// Attempts in a row brought nothing.
    GaveUp {
        /// The address asked, without its query.
        url: String,
        /// How many attempts.
        attempts: u32,
        /// What the last one ended with.
        reason: String,
    },
    /// The process was asked to stop.
    Stopped,
}

impl ServerError {
    /// How long the server wants to be left alone, where it says so: at least 1 second, at most 24 hours.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ServerError::Status { retry_after, .. } => *retry_after,
            ServerError::NoServer
            | ServerError::Transport { .. }
            | ServerError::Unauthorized { .. }
            | ServerError::Malformed { .. }
            | ServerError::Credentials { .. }
            | ServerError::Address { .. }
            | ServerError::ContentChanged(_)
            | ServerError::Aborted { .. }
            | ServerError::OverBudget { .. }
            | ServerError::GaveUp { .. }
            | ServerError::Stopped => None,
        }
    }

    /// Whether the server did not answer at all.
    pub fn is_silence(&self) -> bool {
        match self {
            ServerError::Transport { .. } => true,
            ServerError::NoServer
            | ServerError::Unauthorized { .. }
            | ServerError::Status { .. }
            | ServerError::Malformed { .. }
            | ServerError::Credentials { .. }
            | ServerError::Address { .. }
            | ServerError::ContentChanged(_)
            | ServerError::Aborted { .. }
            | ServerError::OverBudget { .. }
            | ServerError::GaveUp { .. }
            | ServerError::Stopped => false,
        }
    }

    /// The same error without what `hide` takes out of texts that a server or a connection had a hand in: a server can
    /// say secrets back.
    #[must_use]
    pub fn shown_without(self, hide: impl Fn(&str) -> String) -> ServerError {
        match self {
            ServerError::Transport { url, mut source } => {
                source.reason = hide(&source.reason);
                ServerError::Transport { url: hide(&url), source }
            }
            ServerError::Status { url, status, message, retry_after } => {
                ServerError::Status { url: hide(&url), status, message: hide(&message), retry_after }
            }
            ServerError::Malformed { url, reason } => {
                ServerError::Malformed { url: hide(&url), reason: hide(&reason) }
            }
            same @ (ServerError::NoServer
            | ServerError::Unauthorized { .. }
            | ServerError::Credentials { .. }
            | ServerError::Address { .. }
            | ServerError::ContentChanged(_)
            | ServerError::Aborted { .. }
            | ServerError::OverBudget { .. }
            | ServerError::GaveUp { .. }
            | ServerError::Stopped) => same,
        }
    }
}

artifact::debug_as_displayed!(ServerError);

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::NoServer => f.write_str("no server is configured: set ServerURL"),
            ServerError::Transport { url, source } => write!(f, "no answer from {url}: {source}"),
            ServerError::Unauthorized { message } => {
                write!(f, "the server does not accept this device (a person there decides): {message}")
            }
            ServerError::Status { url, status, message, .. } => {
                write!(f, "{url} answered {status}: {message}")
            }
            ServerError::Malformed { url, reason } => {
                write!(f, "{url} answered something that is not from a Mender server: {reason}")
            }
            ServerError::Credentials { reason } => f.write_str(reason),
            ServerError::Address { url, reason } => write!(f, "{url} cannot be asked for: {reason}"),
            ServerError::ContentChanged(changed) => changed.fmt(f),
            ServerError::OverBudget { url, budget_bytes, received_bytes, wanted_bytes } => write!(
                f,
                "{url}: {received_bytes} bytes came and at least {wanted_bytes} are missing, more than the budget of \
                 {budget_bytes} bytes that is left for this deployment"
            ),
            ServerError::Aborted { id } => write!(f, "the server aborted deployment {id}"),
            ServerError::GaveUp { url, attempts, reason } => {
                write!(f, "giving up on {url} after {attempts} attempts: {reason}")
            }
            ServerError::Stopped => f.write_str("asked to stop"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServerError::Transport { source, .. } => Some(source),
            ServerError::ContentChanged(changed) => Some(changed),
            ServerError::NoServer
            | ServerError::Unauthorized { .. }
            | ServerError::Status { .. }
            | ServerError::Malformed { .. }
            | ServerError::Credentials { .. }
            | ServerError::Address { .. }
            | ServerError::Aborted { .. }
            | ServerError::OverBudget { .. }
            | ServerError::GaveUp { .. }
            | ServerError::Stopped => None,
        }
    }
}
