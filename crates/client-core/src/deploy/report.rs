//! What a deployment says: notices while it runs, a summary at its end, errors when it cannot go on.

use std::fmt;
use std::time::Duration;

use super::gates::Gate;
use super::record::{RecordError, Unreported};
use super::scripts::ScriptError;
use super::stage::{Importance, Stage};
use crate::boot::Verdict;
use crate::install::{InstallError, Progress};
use crate::provides::DependsError;
use crate::slot::{Slot, SlotError};

/// Something a person who watches a command wants to know, when it happens. The command line turns each into the
/// line that scripts expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The header was accepted; the payload follows.
    Installing,
    /// The artifact has no payload.
    EmptyPayload,
    /// Taken in, and stopped there.
    Streamed,
    /// Installed; waits for `commit` or `rollback`.
    InstalledNotCommitted,
    /// The payload cannot be rolled back, so waiting would be pointless.
    NoRollbackCommitting,
    /// Installed and permanent.
    InstalledAndCommitted,
    /// The payload needs a restart.
    RebootRequested,
    /// The artifact was refused or broke off.
    StreamingFailed,
    /// Nothing on the device changed.
    SystemNotModified,
    /// No handler for the payload type; nothing on the device changed.
    NoUpdateModule,
    /// The installation failed.
    InstallationFailed,
    /// The commit failed.
    CommittingFailed,
    /// The old software is back, or will be after the restart.
    RolledBack,
    /// There is no way back.
    NoRollback,
    /// The way back failed.
    RollbackFailed,
    /// Permanent now.
    Committed,
    /// Permanent, but a script behind the commit failed.
    PostCommitFailed,
    /// What the deployment left behind could not be removed.
    CleanupFailed,
    /// Only the clean-up was left to do, and is done.
    CleanedUp,
    /// No deployment is in progress.
    NothingInProgress,
}

/// Who is told.
pub trait Observer: Progress {
    /// Something happened.
    fn notice(&mut self, notice: Notice);

    /// A stage begins.
    fn stage(&mut self, _stage: Stage) {}

    /// Whether the process was asked to stop: no further stage is begun then, and a step that fails is taken as
    /// interrupted, not as failed. Once true it stays true.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// What a server is told about a deployment. Each protocol has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The payload is being taken in.
    Downloading,
    /// The new software is being made the one that is tried next.
    Installing,
    /// The device is being restarted into it.
    Rebooting,
    /// It runs, and is about to be made permanent: the last word before that.
    Committing,
    /// Something on the device holds the deployment up before this gate.
    Waiting(Gate),
    /// It is installed for good.
    Succeeded,
    /// It is not.
    Failed,
}

impl Report {
    /// As a word for people.
    pub fn name(self) -> &'static str {
        match self {
            Report::Downloading => "downloading",
            Report::Installing => "installing",
            Report::Rebooting => "rebooting",
            Report::Committing => "committing",
            Report::Waiting(_) => "waiting",
            Report::Succeeded => "succeeded",
            Report::Failed => "failed",
        }
    }
}

/// Tells the server how a deployment goes.
pub trait Reporter {
    /// Reports how deployment `id` goes. With [`Importance::Mandatory`] it tries until there is an answer or the
    /// attempts are used up.
    /// `substate` is a remark for people.
    fn report(
        &mut self,
        id: &str,
        report: Report,
        substate: Option<&str>,
        importance: Importance,
    ) -> Reported;
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The server noted it.
    Accepted,
    /// The server has aborted the deployment, or does not know it.
    Aborted,
    /// No answer, and no further attempt.
    NoAnswer,
}

/// No server to tell: the command line's reporter.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReporter;

impl Reporter for NoReporter {
    fn report(&mut self, _: &str, _: Report, _: Option<&str>, _: Importance) -> Reported {
        Reported::Accepted
    }
}

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

/// Why a command could not be carried out.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeployError {
    /// No deployment is in progress.
    NothingInProgress,
    /// Another one must be finished first.
    AlreadyInProgress,
    /// `commit` makes no sense here.
    CannotCommitHere,
    /// `rollback` makes no sense here.
    CannotRollBackHere,
    /// The other slot does not hold any more what was committed in it.
    OtherSlotChanged {
        /// The slot.
        slot: Slot,
    },
    /// `commit` before the device was restarted into the new software.
    NotRestarted,
    /// `commit` of a trial of which nothing is known, because the record was lost.
    RecordLost,
    /// Nothing is recorded of what the other slot holds.
    OtherSlotUnknown {
        /// The slot.
        slot: Slot,
    },
    /// The boot environment contradicts the record.
    Contradiction {
        /// What the environment says.
        verdict: Verdict,
    },
    /// The bootloader went back to the old software.
    FellBack,
    /// A bootstrap artifact may only set provides.
    NotABootstrapArtifact {
        /// What it has that it may not have.
        found: &'static str,
    },
    /// A commit was cut before it took effect, and is undone.
    Interrupted,
    /// What the deployment provides, together with what is installed, does not fit into the record.
    RecordTooSmall {
        /// Bytes needed.
        need_bytes: usize,
        /// Bytes there are.
        have_bytes: usize,
    },
    /// The deployment changed its stage too often.
    Loop,
    /// The server aborted the deployment.
    Aborted,
    /// The server could not be told that the new software is about to be committed.
    Unreachable,
    /// The process was asked to stop.
    Stopped,
    /// A gate said no.
    Refused {
        /// Before what.
        gate: Gate,
        /// Why.
        reason: String,
    },
    /// The device was restarted as often as one deployment may ask for it.
    TooManyReboots {
        /// How often that is.
        limit: u32,
    },
    /// The device or the client was restarted in the middle of a stage that cannot be taken up again.
    CutShort {
        /// The stage.
        stage: Stage,
    },
    /// The artifact could not be asked for.
    Source(std::io::Error),
    /// The artifact, the slot or the boot environment.
    Install(InstallError),
    /// The artifact is not for this device.
    Depends(DependsError),
    /// What the operating system knows could not be learned.
    Slot(SlotError),
    /// The record cannot be read or saved.
    Record(RecordError),
    /// A state script.
    Script(ScriptError),
}

impl fmt::Display for DeployError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeployError::NothingInProgress => f.write_str("no update in progress"),
            DeployError::AlreadyInProgress => {
                f.write_str("Update already in progress. Please commit or roll back first")
            }
            DeployError::CannotCommitHere => f.write_str(
                "Cannot commit from this state. Make sure that the `install` command has run successfully and \
                 the device is expecting a commit.",
            ),
            DeployError::CannotRollBackHere => f.write_str(
                "Cannot roll back from this state. Use `resume` to complete the current install in order to \
                 start a new one.",
            ),
            DeployError::NotRestarted => f.write_str(
                "the device still runs the old software: restart it, and `commit` when the new one runs; \
                 `rollback` gives the update up. Nothing was changed",
            ),
            DeployError::RecordLost => f.write_str(
                "nothing is known of the update that is on trial, because its record was lost: it can only be \
                 given up, with `rollback`. Nothing was changed",
            ),
            DeployError::OtherSlotUnknown { slot } => write!(
                f,
                "it is not known what slot {slot} must hold: only what this client installed there and \
                 committed can be gone back to. Nothing was changed"
            ),
            DeployError::OtherSlotChanged { slot } => write!(
                f,
                "slot {slot} was written since what it held was committed, which mounting it writable does too: \
                 it is not tried. Nothing was changed"
            ),
            DeployError::Contradiction { verdict } => write!(
                f,
                "the boot environment contradicts the deployment in progress ({verdict}); nothing was changed"
            ),
            DeployError::FellBack => {
                f.write_str("the bootloader went back to the old software: refusing to commit")
            }
            DeployError::NotABootstrapArtifact { found } => {
                write!(f, "a bootstrap artifact may not have {found}")
            }
            DeployError::Interrupted => {
                f.write_str("the commit was interrupted before it took effect: rolling back")
            }
            DeployError::RecordTooSmall { need_bytes, have_bytes } => write!(
                f,
                "what the artifact provides does not fit into the state record: {need_bytes} bytes needed, \
                 {have_bytes} there"
            ),
            DeployError::Loop => f.write_str("the deployment changed its stage too often and was ended"),
            DeployError::Aborted => f.write_str("the server aborted the deployment"),
            DeployError::Unreachable => f.write_str(
                "the server could not be reached before the commit: the new software is not made permanent",
            ),
            DeployError::Stopped => f.write_str("interrupted: asked to stop"),
            DeployError::Refused { gate, reason } => write!(f, "refused before {gate}: {reason}"),
            DeployError::TooManyReboots { limit } => {
                write!(f, "the device was restarted {limit} times and the software did not change")
            }
            DeployError::CutShort { stage } => {
                write!(f, "the device or the client was restarted in the middle of {stage:?}")
            }
            DeployError::Source(error) => error.fmt(f),
            DeployError::Install(error) => error.fmt(f),
            DeployError::Depends(error) => error.fmt(f),
            DeployError::Slot(error) => error.fmt(f),
            DeployError::Record(error) => error.fmt(f),
            DeployError::Script(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeployError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeployError::Install(error) => error.source(),
            DeployError::Depends(error) => error.source(),
            DeployError::Slot(error) => error.source(),
            DeployError::Record(error) => error.source(),
            DeployError::Script(error) => error.source(),
            DeployError::Source(error) => Some(error),
            DeployError::NothingInProgress
            | DeployError::AlreadyInProgress
            | DeployError::CannotCommitHere
            | DeployError::CannotRollBackHere
            | DeployError::NotRestarted
            | DeployError::RecordLost
            | DeployError::OtherSlotUnknown { .. }
            | DeployError::OtherSlotChanged { .. }
            | DeployError::Contradiction { .. }
            | DeployError::FellBack
            | DeployError::Interrupted
            | DeployError::RecordTooSmall { .. }
            | DeployError::NotABootstrapArtifact { .. }
            | DeployError::Aborted
            | DeployError::Unreachable
            | DeployError::Stopped
            | DeployError::TooManyReboots { .. }
            | DeployError::Refused { .. }
            | DeployError::CutShort { .. }
            | DeployError::Loop => None,
        }
    }
}

macro_rules! from {
    ($($error:ident => $variant:ident),* $(,)?) => {$(
        impl From<$error> for DeployError {
            fn from(error: $error) -> DeployError {
                DeployError::$variant(error)
            }
        }
    )*};
}

from! {
    InstallError => Install,
    DependsError => Depends,
    SlotError => Slot,
    RecordError => Record,
    ScriptError => Script,
}
