//! What stands around the connections of a server: nothing, unless a test wants something else there.
//!
//! This is the one place where something from outside touches requests and answers. A server by itself knows nothing of
//! faults, and has none.

use tokio::io::{AsyncRead, AsyncWrite};

pub use super::call::Call;
pub use super::reply::{ApiError, Body, Reply, empty, json, text};

/// What stands around a server. Chosen when it starts.
pub trait Surround: Send + Sync {
    /// What stands around a new connection.
    fn connection(&self) -> Box<dyn Around>;
}

/// What stands around one connection, whose requests come one after the other. What a method leaves out does nothing.
pub trait Around: Send + Sync {
    /// The bytes of the connection go through what this gives back.
    fn stream(&self, stream: Box<dyn Stream>) -> Box<dyn Stream> {
        stream
    }

    /// The head of a request has come.
    fn begins(&self) {}

    /// Whether this request is for what stands around, and not for the server. Its body is read then, whoever sends it.
    fn is_asked(&self, _call: &Call) -> bool {
        false
    }

    /// A request has been read. It may be changed, or answered in place of the server.
    fn before(&self, _call: &mut Call) -> Option<Reply> {
        None
    }

    /// That request has this answer, before it is compressed.
    fn after(&self, _call: &Call, reply: Reply) -> Reply {
        reply
    }

    /// This goes out: for every request, also one that could not be read.
    fn answered(&self, _call: &Call, reply: Reply) -> Reply {
        reply
    }

    /// Whether the connection may be closed at once when the server stops: nobody waits for its answer.
    fn is_abandoned(&self) -> bool {
        false
    }
}

/// The bytes of a connection, in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Nothing stands there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nothing;

impl Surround for Nothing {
    fn connection(&self) -> Box<dyn Around> {
        Box::new(Nothing)
    }
}

impl Around for Nothing {}
