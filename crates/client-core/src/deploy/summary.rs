//! The end of a command that could be carried out, well or badly.

use std::time::Duration;

use super::error::DeployError;
use super::gates::Gate;
use super::record::Unreported;

/// How a command left the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// As before.
    NotModified,
    /// The payload is taken in, nothing more.
    Streamed,
    /// Installed, waiting for the reboot or for the order to commit.
    Installed,
    /// Permanent.
    Committed,
    /// The old software is back, or will be after the restart.
    RolledBack,
    /// Neither the old nor the new software can be vouched for.
    Inconsistent,
    /// Stopped where it was asked to stop.
    Stopped,
    /// Only the clean-up was left.
    CleanedUp,
    /// The device is being restarted; the deployment goes on after that.
    Rebooting,
    /// The process was asked to stop; the deployment goes on in the next one.
    Interrupted,
    /// A gate is closed; the deployment waits before it.
    Held,
}

impl Status {
    /// The status as a word for machines.
    pub fn name(self) -> &'static str {
        match self {
            Status::NotModified => "not-modified",
            Status::Streamed => "streamed",
            Status::Installed => "installed",
            Status::Committed => "committed",
            Status::RolledBack => "rolled-back",
            Status::Inconsistent => "inconsistent",
            Status::Stopped => "stopped",
            Status::CleanedUp => "cleaned-up",
            Status::Rebooting => "rebooting",
            Status::Interrupted => "interrupted",
            Status::Held => "held",
        }
    }
}

/// The end of a command that could be carried out, well or badly.
#[derive(Debug)]
pub struct Summary {
    /// How it left the device.
    pub status: Status,
    /// Whether the command did what it was asked to do.
    pub success: bool,
    /// Whether the device must be restarted for the change to take effect.
    pub needs_reboot: bool,
    /// Why it did not, where it did not.
    pub error: Option<DeployError>,
    /// How the deployment ended, for the server that ordered it; `None` while it goes on, or without a server.
    pub ended: Option<Unreported>,
    /// Where a gate is closed: which, why, and when to ask again.
    pub held: Option<Held>,
}

/// A deployment that waits before a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The gate.
    pub gate: Gate,
    /// Why it is closed.
    pub reason: String,
    /// When it is worth asking again.
    pub ask_again: Duration,
}

impl Summary {
    /// A summary with nothing more to say; a success where there is no error.
    pub(super) fn of(status: Status, error: Option<DeployError>) -> Summary {
        Summary { status, success: error.is_none(), needs_reboot: false, error, ended: None, held: None }
    }
}
