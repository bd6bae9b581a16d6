//! Why a conversation with the server, or work on the device for it, failed.

use std::fmt;
use std::time::Duration;

use super::host::HostError;
use crate::deploy::DeployError;
use crate::deploy::record::RecordError;
use crate::deploy::scripts::ScriptError;
use crate::server::ServerError;
use crate::slot::SlotError;

/// What the agent says about it once, and comes back from later.
#[derive(Debug)]
pub(super) enum Failure {
    /// The device is not there for this process, or has nothing to say.
    Host(HostError),
    /// A script around the conversation.
    Script(ScriptError),
    /// What kind of device this is cannot be learned.
    DeviceType(SlotError),
    /// The record cannot be read or saved.
    Record(RecordError),
    /// Nothing of a deployment could be begun or gone on with.
    Deploy(DeployError),
    /// The end of the last deployment has to be reported before the next one is asked for.
    NotReported,
    /// The server.
    Server(ServerError),
}

impl Failure {
    /// How long the server wants to be left alone, where it says so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Server(error) => error.retry_after(),
            Failure::Host(_)
            | Failure::Script(_)
            | Failure::DeviceType(_)
            | Failure::Record(_)
            | Failure::Deploy(_)
            | Failure::NotReported => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Host(error) => error.fmt(f),
            Failure::Script(error) => error.fmt(f),
            Failure::DeviceType(error) => error.fmt(f),
            Failure::Record(error) => error.fmt(f),
            Failure::Deploy(error) => error.fmt(f),
            Failure::NotReported => f.write_str("the last deployment is not reported yet"),
            Failure::Server(error) => error.fmt(f),
        }
    }
}

macro_rules! from {
    ($($error:ident => $variant:ident),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::$variant(error)
            }
        }
    )*};
}

from! {
    HostError => Host,
    ScriptError => Script,
    SlotError => DeviceType,
    RecordError => Record,
    DeployError => Deploy,
    ServerError => Server,
}
