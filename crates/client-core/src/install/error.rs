//! Why an installation stopped.

use std::fmt;
use std::path::PathBuf;

use super::files::FilesError;
use super::payload_problem::PayloadProblem;
use crate::artifact::ArtifactError;
use crate::boot::{BootError, Verdict};
use crate::slot::{Slot, SlotError};

/// Why an installation stopped. Errors of the artifact are never cured by trying again; errors of the device may
/// be.
#[derive(Debug)]
#[non_exhaustive]
pub enum InstallError {
    /// The artifact is bad, or its source broke off.
    Artifact(ArtifactError),
    /// The boot environment does not allow it.
    Boot(BootError),
    /// The slot cannot be used.
    Slot(SlotError),
    /// The image does not fit. Nothing was written.
    SlotTooSmall {
        /// The slot.
        slot: Slot,
        /// Bytes of the image.
        need_bytes: u64,
        /// Bytes of the slot.
        have_bytes: u64,
    },
    /// A root file system payload must hold exactly one file.
    FileCount {
        /// What was found.
        found: &'static str,
    },
    /// The image has no bytes.
    EmptyImage,
    /// What was read back from the slot is not what was written.
    ReadBack {
        /// The slot.
        slot: Slot,
        /// Digest of the image.
        expected: String,
        /// Digest of what the slot holds.
        actual: String,
    },
    /// The slot could not be written, synced or read.
    Storage {
        /// What was being done.
        doing: &'static str,
        /// The slot.
        slot: Slot,
        /// Its device.
        device: String,
        /// Byte offset in the slot.
        offset: u64,
        /// The error of the device.
        source: std::io::Error,
    },
    /// Nothing was downloaded that could be installed.
    NothingWritten,
    /// After the restart the new software does not run on trial.
    NotOnTrial {
        /// What was found.
        found: Verdict,
    },
    /// After the restart the old software does not run, or the new one is still selected.
    NotBack {
        /// What was found.
        found: Verdict,
    },
    /// A handler wants to keep more than there is room for.
    StateTooLarge {
        /// Bytes of what it wants to keep.
        need_bytes: usize,
        /// The most it may.
        limit_bytes: usize,
    },
    /// What a handler kept is not what it can have kept.
    BadState {
        /// What is wrong with it.
        reason: String,
    },
    /// What a handler has to find again could not be saved.
    StateNotKept {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A handler's own step failed.
    Handler {
        /// The step.
        step: &'static str,
        /// What it says.
        reason: String,
    },
    /// No handler for this payload type is installed.
    UnknownPayloadType {
        /// The payload type.
        payload_type: String,
    },
    /// There is an update module for this payload type that may not be run.
    ModuleNotExecutable {
        /// The payload type.
        payload_type: String,
        /// The module.
        path: PathBuf,
    },
    /// A file or directory cannot be used.
    Files(FilesError),
    /// A file or a directory tree cannot be installed as the payload says. Its destination has not changed.
    Payload(PayloadProblem),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Artifact(error) => error.fmt(f),
            InstallError::Boot(error) => error.fmt(f),
            InstallError::Slot(error) => error.fmt(f),
            InstallError::SlotTooSmall { slot, need_bytes, have_bytes } => write!(
                f,
                "the image of {need_bytes} bytes is larger than slot {slot} with {have_bytes} bytes"
            ),
            InstallError::FileCount { found } => {
                write!(f, "a rootfs-image payload must hold exactly one file, this one holds {found}")
            }
            InstallError::EmptyImage => f.write_str("the root file system image is empty"),
            InstallError::ReadBack { slot, expected, actual } => {
                write!(f, "slot {slot} does not hold what was written: sha256 {actual}, expected {expected}")
            }
            InstallError::Storage { doing, slot, device, offset, source } => {
                write!(f, "cannot {doing} slot {slot} ({device}) at byte {offset}: {source}")
            }
            InstallError::NothingWritten => f.write_str("no image was written that could be installed"),
            InstallError::NotOnTrial { found } => {
                write!(f, "after the restart the new software is not on trial: {found}")
            }
            InstallError::NotBack { found } => {
                write!(f, "after the restart the old software is not back: {found}")
            }
            InstallError::StateTooLarge { need_bytes, limit_bytes } => {
                write!(f, "the handler of the payload keeps {need_bytes} bytes, more than {limit_bytes}")
            }
            InstallError::BadState { reason } => {
                write!(f, "what the handler of the payload kept cannot be understood: {reason}")
            }
            InstallError::StateNotKept { source } => {
                write!(f, "cannot save what the handler of the payload keeps: {source}")
            }
            InstallError::Handler { step, reason } => write!(f, "{step} failed: {reason}"),
            InstallError::UnknownPayloadType { payload_type } => {
                write!(f, "no update module for payload type {payload_type:?}")
            }
            InstallError::ModuleNotExecutable { payload_type, path } => write!(
                f,
                "the update module for payload type {payload_type:?} is not executable: chmod +x {}",
                path.display()
            ),
            InstallError::Files(error) => error.fmt(f),
            InstallError::Payload(problem) => problem.fmt(f),
        }
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InstallError::Artifact(error) => error.source(),
            InstallError::Boot(error) => error.source(),
            InstallError::Slot(error) => error.source(),
            InstallError::Storage { source, .. } => Some(source),
            InstallError::StateNotKept { source } => Some(&**source),
            InstallError::Files(error) => error.source(),
            InstallError::SlotTooSmall { .. }
            | InstallError::FileCount { .. }
            | InstallError::EmptyImage
            | InstallError::ReadBack { .. }
            | InstallError::NothingWritten
            | InstallError::NotOnTrial { .. }
            | InstallError::NotBack { .. }
            | InstallError::StateTooLarge { .. }
            | InstallError::BadState { .. }
            | InstallError::Handler { .. }
            | InstallError::UnknownPayloadType { .. }
            | InstallError::ModuleNotExecutable { .. }
            | InstallError::Payload(_) => None,
        }
    }
}

impl From<ArtifactError> for InstallError {
    fn from(error: ArtifactError) -> InstallError {
        InstallError::Artifact(error)
    }
}

impl From<BootError> for InstallError {
    fn from(error: BootError) -> InstallError {
        InstallError::Boot(error)
    }
}

impl From<SlotError> for InstallError {
    fn from(error: SlotError) -> InstallError {
        InstallError::Slot(error)
    }
}

impl From<FilesError> for InstallError {
    fn from(error: FilesError) -> InstallError {
        InstallError::Files(error)
    }
}

impl From<PayloadProblem> for InstallError {
    fn from(problem: PayloadProblem) -> InstallError {
        InstallError::Payload(problem)
    }
}
