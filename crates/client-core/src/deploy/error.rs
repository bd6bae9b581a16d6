//! Why a command could not be carried out.

use std::error::Error;
use std::fmt;

use super::facts::Stage;
use super::gates::Gate;
use super::record::RecordError;
use super::scripts::ScriptError;
use crate::boot::Verdict;
use crate::install::InstallError;
use crate::provides::DependsError;
use crate::slot::{Slot, SlotError};

/// Why nobody can say whose artifacts are trusted: what the keys could not be read for.
#[derive(Debug)]
pub struct PolicyError(Box<dyn Error + Send + Sync>);

impl PolicyError {
    /// Of `cause`, which says which key cannot be used.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> PolicyError {
        PolicyError(cause.into())
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for PolicyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a command could not be carried out.
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
    /// A download was begun by a process to which nothing was given to download.
    NothingArrives,
    /// Whose artifacts are trusted is not known, so none is.
    Policy(PolicyError),
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

const NOT_RESTARTED: &str = "the device still runs the old software: restart it, and `commit` when the new one \
                             runs; `rollback` gives the update up. Nothing was changed";
const RECORD_LOST: &str = "nothing is known of the update that is on trial, because its record was lost: it can only \
                           be given up, with `rollback`. Nothing was changed";
const UNREACHABLE: &str =
    "the server could not be reached before the commit: the new software is not made permanent";

artifact::debug_as_displayed!(DeployError);

impl fmt::Display for DeployError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeployError::NothingInProgress => f.write_str("no update in progress"),
            DeployError::AlreadyInProgress => f.write_str("another update is in progress"),
            DeployError::CannotCommitHere => f.write_str("what is in progress cannot be committed here"),
            DeployError::CannotRollBackHere => f.write_str("what is in progress cannot be rolled back here"),
            DeployError::NotRestarted => f.write_str(NOT_RESTARTED),
            DeployError::RecordLost => f.write_str(RECORD_LOST),
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
            DeployError::Unreachable => f.write_str(UNREACHABLE),
            DeployError::Refused { gate, reason } => write!(f, "refused before {gate}: {reason}"),
            DeployError::TooManyReboots { limit } => {
                write!(f, "the device was restarted {limit} times and the software did not change")
            }
            DeployError::CutShort { stage } => {
                write!(f, "the device or the client was restarted in the middle of {stage}")
            }
            DeployError::NothingArrives => f.write_str("there is nothing that could be downloaded"),
            DeployError::Policy(error) => error.fmt(f),
            DeployError::Source(error) => error.fmt(f),
            DeployError::Install(error) => error.fmt(f),
            DeployError::Depends(error) => error.fmt(f),
            DeployError::Slot(error) => error.fmt(f),
            DeployError::Record(error) => error.fmt(f),
            DeployError::Script(error) => error.fmt(f),
        }
    }
}

impl DeployError {
    /// Whether an earlier download of the same artifact is to blame, so that a new beginning may go better.
    pub fn is_not_as_before(&self) -> bool {
        matches!(self, DeployError::Install(InstallError::NotAsBefore { .. }))
    }
}

impl std::error::Error for DeployError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeployError::Policy(error) => error.source(),
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
            | DeployError::TooManyReboots { .. }
            | DeployError::Refused { .. }
            | DeployError::CutShort { .. }
            | DeployError::NothingArrives
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
    PolicyError => Policy,
    InstallError => Install,
    DependsError => Depends,
    SlotError => Slot,
    RecordError => Record,
    ScriptError => Script,
}
