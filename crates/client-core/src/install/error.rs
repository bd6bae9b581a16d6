//! Why an installation stopped, and why a file or a tree cannot be installed as its payload says.

use std::fmt;
use std::path::PathBuf;

use super::DeltaProblem;
use super::files::FilesError;
use crate::artifact::tree::TreeProblem;
use crate::artifact::{ArtifactError, Sha256};
use crate::boot::{BootError, Verdict};
use crate::slot::{Slot, SlotError};

/// Why an installation stopped. Errors of the artifact are never cured by trying again; errors of the device may
/// be.
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
    /// What came for the slot, or what another process left in it, is not the image.
    ReadBack {
        /// The slot.
        slot: Slot,
        /// Digest of the image.
        expected: Sha256,
        /// Digest of what came, or of what the slot holds.
        actual: Sha256,
    },
    /// What was read back from the slot is not what was written to it.
    NotKept {
        /// The slot.
        slot: Slot,
        /// Its device.
        device: String,
        /// Where the part begins that differs somewhere.
        offset: u64,
        /// Bytes of that part.
        len: u64,
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
    /// The handler of the payload could not be opened when the deployment was taken up again.
    NoHandler,
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
    /// What an earlier process left of the same download turned out not to fit the rest. Begun anew it may go well.
    NotAsBefore {
        /// What showed it.
        source: Box<InstallError>,
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
    /// A delta cannot be installed.
    Delta(DeltaProblem),
}

artifact::debug_as_displayed!(InstallError);

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
                write!(f, "slot {slot} does not hold the image: sha256 {actual}, expected {expected}")
            }
            InstallError::NotKept { slot, device, offset, len } => write!(
                f,
                "slot {slot} ({device}) does not hold what was written: of {len} bytes from byte {offset} on, some read \
                 back differently"
            ),
            InstallError::Storage { doing, slot, device, offset, source } => {
                write!(f, "cannot {doing} slot {slot} ({device}) at byte {offset}: {source}")
            }
            InstallError::NothingWritten => f.write_str("no image was written that could be installed"),
            InstallError::NoHandler => f.write_str("nothing is there that could handle the payload"),
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
            InstallError::NotAsBefore { source } => {
                write!(f, "what was downloaded before does not fit what came now: {source}")
            }
            InstallError::StateNotKept { source } => {
                write!(f, "cannot save what the handler of the payload keeps: {source}")
            }
            InstallError::Handler { step, reason } => write!(f, "{step} failed: {reason}"),
            InstallError::UnknownPayloadType { payload_type } => {
                write!(
                    f,
                    "payload type {payload_type:?} is not built in, and there is no update module for it"
                )
            }
            InstallError::ModuleNotExecutable { payload_type, path } => write!(
                f,
                "the update module for payload type {payload_type:?} is not executable: chmod +x {}",
                path.display()
            ),
            InstallError::Files(error) => error.fmt(f),
            InstallError::Payload(problem) => problem.fmt(f),
            InstallError::Delta(problem) => problem.fmt(f),
        }
    }
}

impl InstallError {
    /// Whether it says nothing about the artifact: its bytes could not be had.
    pub(crate) fn is_of_source(&self) -> bool {
        matches!(self, InstallError::Artifact(ArtifactError::Source { .. }))
    }
}

impl std::error::Error for InstallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InstallError::Artifact(error) => error.source(),
            InstallError::Boot(error) => error.source(),
            InstallError::Slot(error) => error.source(),
            InstallError::Storage { source, .. } => Some(source),
            InstallError::NotAsBefore { source } => Some(&**source),
            InstallError::StateNotKept { source } => Some(&**source),
            InstallError::Files(error) => error.source(),
            InstallError::Delta(problem) => problem.source(),
            InstallError::SlotTooSmall { .. }
            | InstallError::FileCount { .. }
            | InstallError::EmptyImage
            | InstallError::ReadBack { .. }
            | InstallError::NotKept { .. }
            | InstallError::NothingWritten
            | InstallError::NoHandler
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

/// What is wrong with the payload, or with the place it is for. Nothing was changed there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadProblem {
    /// The payload has no file of this name.
    MissingFile {
        /// The name.
        name: String,
    },
    /// A file that says something in one line holds something else.
    Malformed {
        /// The name of the file.
        name: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The destination is not an absolute path without `..`.
    Destination {
        /// What the payload says.
        path: String,
    },
    /// The destination is `/`.
    Root,
    /// The destination is a mount point, which cannot be replaced as a whole.
    MountPoint {
        /// The destination.
        path: PathBuf,
    },
    /// Something lies there that this payload type does not replace.
    Occupied {
        /// The destination.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The file system has too little room.
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes that are needed.
        need_bytes: u64,
        /// Bytes that are free.
        have_bytes: u64,
    },
    /// The archive has what no tree may have.
    Tree(TreeProblem),
    /// The payload was begun by an update module that is no longer there.
    NotOurs,
    /// What the tree is to replace was neither found at its place nor where it was kept.
    Lost {
        /// The destination.
        path: PathBuf,
    },
}

impl fmt::Display for PayloadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadProblem::MissingFile { name } => write!(f, "the payload has no file {name:?}"),
            PayloadProblem::Malformed { name, expected } => {
                write!(f, "payload file {name:?} does not hold {expected}")
            }
            PayloadProblem::Destination { path } => {
                write!(f, "the destination {path:?} is not an absolute path without \"..\"")
            }
            PayloadProblem::Root => f.write_str("the destination is \"/\", which cannot be replaced"),
            PayloadProblem::MountPoint { path } => {
                write!(f, "{} is a mount point and cannot be replaced as a whole", path.display())
            }
            PayloadProblem::Occupied { path, found } => {
                write!(f, "{} is {found}, which this payload does not replace", path.display())
            }
            PayloadProblem::NoRoom { path, need_bytes, have_bytes } => {
                write!(f, "{need_bytes} bytes are needed for {}, and {have_bytes} are free", path.display())
            }
            PayloadProblem::Tree(problem) => problem.fmt(f),
            PayloadProblem::NotOurs => {
                f.write_str("an update module that is gone has begun with this payload")
            }
            PayloadProblem::Lost { path } => {
                write!(f, "what was at {} is neither there nor where it was kept", path.display())
            }
        }
    }
}

impl std::error::Error for PayloadProblem {}
