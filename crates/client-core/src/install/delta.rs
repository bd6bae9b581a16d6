//! A payload that is the difference between what runs and what is to run: from the running slot and the file to the other
//! slot. What comes before and after that, an image has in common with it: see `image`.

use std::fmt;
use std::io;

use delta::{Applier, DeltaError, Head, Image, MEMORY_BYTES_MAX, Prefix, Signed, SignedError};
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::{Cost, HandlerState, InstallError, Progress, SlotWriter, StateKeeper, TargetDigest, journal};
use crate::artifact::{ArtifactError, Compression, Header, PayloadFile, Sha256};
use crate::slot::{Slot, Slots};
use crate::storage::{BlockDevice, Medium, ReadAt};

/// Bytes of the running slot that are read at a time where all of it has to be looked at.
const READ_BYTES: usize = 64 * 1024;

/// Why a delta cannot be installed. Nothing was armed.
#[non_exhaustive]
pub enum DeltaProblem {
    /// The signed header does not say what a device has to know.
    Signed(SignedError),
    /// It would take more memory than a delta may.
    Memory {
        /// Bytes that it needs.
        need_bytes: u64,
        /// Bytes that it may have.
        limit_bytes: u64,
    },
    /// The data member is compressed: its decoder would need memory that nobody has counted.
    Compressed,
    /// The running slot is smaller than what the delta was made from.
    SourceTooSmall {
        /// The running slot.
        slot: Slot,
        /// Bytes that are needed.
        need_bytes: u64,
        /// Bytes that it has.
        have_bytes: u64,
    },
    /// The running slot holds something else than what the delta was made from.
    SourceDiffers {
        /// The running slot.
        slot: Slot,
        /// What the delta was made from.
        expected: Sha256,
        /// What the slot holds.
        actual: Sha256,
    },
    /// The file itself is refused.
    File(DeltaError),
    /// A delta of Mender's that was made with something else than xdelta3.
    Algorithm {
        /// What the header names.
        found: String,
    },
    /// A delta of Mender's whose header says no digest of the new image.
    NoDigest,
    /// A delta of Mender's does not say how large the image is, which this medium has to know before the first byte.
    NoSize {
        /// The slot.
        slot: Slot,
    },
    /// The file of a delta of Mender's is refused.
    Vcdiff(::vcdiff::Error),
}

artifact::debug_as_displayed!(DeltaProblem);

impl fmt::Display for DeltaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeltaProblem::Signed(error) => error.fmt(f),
            DeltaProblem::Memory { need_bytes, limit_bytes } => {
                write!(f, "the delta needs {need_bytes} bytes of memory, and {limit_bytes} are allowed")
            }
            DeltaProblem::Compressed => {
                f.write_str("the data member of the artifact is compressed, which that of a delta may not be")
            }
            DeltaProblem::SourceTooSmall { slot, need_bytes, have_bytes } => write!(
                f,
                "the delta was made from an image of {need_bytes} bytes, and the running slot {slot} has \
                 {have_bytes}"
            ),
            DeltaProblem::SourceDiffers { slot, expected, actual } => write!(
                f,
                "the running slot {slot} is not what the delta was made from: sha256 {actual}, expected \
                 {expected}; it needs the full image"
            ),
            DeltaProblem::File(error) => error.fmt(f),
            DeltaProblem::Algorithm { found } => {
                write!(
                    f,
                    "the delta was made with {found:?}, which is not supported; it needs the full image"
                )
            }
            DeltaProblem::NoDigest => {
                f.write_str("the header of the delta does not say which digest the new image has")
            }
            DeltaProblem::NoSize { slot } => write!(
                f,
                "the delta does not say how large the image is, which slot {slot}, a UBI volume, has to know; it needs \
                 the full image"
            ),
            DeltaProblem::Vcdiff(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeltaProblem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeltaProblem::File(error) => error.source(),
            DeltaProblem::Vcdiff(error) => error.source(),
            DeltaProblem::Algorithm { .. }
            | DeltaProblem::NoDigest
            | DeltaProblem::NoSize { .. }
            | DeltaProblem::Signed(_)
            | DeltaProblem::Memory { .. }
            | DeltaProblem::Compressed
            | DeltaProblem::SourceTooSmall { .. }
            | DeltaProblem::SourceDiffers { .. } => None,
        }
    }
}

impl From<DeltaProblem> for InstallError {
    fn from(problem: DeltaProblem) -> InstallError {
        InstallError::Delta(problem)
    }
}

impl From<DeltaError> for InstallError {
    fn from(error: DeltaError) -> InstallError {
        // The artifact's, or of the way that it comes.
        if let DeltaError::Input(error) = error {
            return InstallError::Artifact(ArtifactError::from_io(error));
        }
        InstallError::Delta(DeltaProblem::File(error))
    }
}

/// The running slot, as far as the delta was made from it.
pub(super) struct OldImage {
    slot: Slot,
    device: Box<dyn ReadAt>,
    image: Image,
}

impl OldImage {
    /// What is in `device`, the running slot, which is large enough.
    pub(super) fn of(slot: Slot, device: Box<dyn ReadAt>, image: Image) -> OldImage {
        OldImage { slot, device, image }
    }

    /// Why something of the old image, or of what was made of it, was not what it had to be: the slot, where it holds
    /// another image than the signed one, and what the delta says about it, where it does not.
    fn explain(&mut self, error: DeltaError) -> InstallError {
        let is_content =
            matches!(error, DeltaError::SourceDiffers { .. } | DeltaError::SegmentDiffers { .. });
        if !is_content {
            return error.into();
        }
        self.difference().map_or_else(|| error.into(), InstallError::from)
    }

    /// That the slot holds another image than the signed one, or cannot be read.
    pub(super) fn difference(&mut self) -> Option<DeltaProblem> {
        let expected = self.image.sha256;
        match self.digest() {
            Ok(actual) if actual != expected => {
                Some(DeltaProblem::SourceDiffers { slot: self.slot, expected, actual })
            }
            Ok(_) => None,
            Err(unreadable) => Some(DeltaProblem::File(unreadable)),
        }
    }

    /// Of all of it.
    fn digest(&mut self) -> Result<Sha256, DeltaError> {
        let mut digest = sha2::Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = 0;
        while offset < self.image.bytes {
            let take = usize::try_from(self.image.bytes - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
            let part = buffer.get_mut(..take).unwrap_or_default();
            self.device.read_at(offset, part).map_err(|source| DeltaError::Source { offset, source })?;
            digest.update(&*part);
            offset += take as u64;
        }
        Ok(Sha256::from(<[u8; 32]>::from(digest.finalize())))
    }
}

impl delta::Source for OldImage {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buffer)
    }
}

/// What a process that comes after a cut has to know: so many groups of the delta are in the slot, durable. Where that is,
/// and what has to be there, the head of the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    groups: usize,
}

/// Whether a handler kept the journal of a download that did not come to its end, and no image.
pub(super) fn is_journal(state: &HandlerState) -> bool {
    matches!(state.clone().read::<Journal>(), Ok(Some(_)))
}

/// A checkpoint costs a flush and a save of the record: there is none for less than this part of the file.
const CHECKPOINT_SHARE: u64 = 64;

/// A delta of which the signed header has been read, and which may be installed.
pub(super) struct Delta {
    signed: Signed,
    digest: TargetDigest,
    old: OldImage,
}

impl Delta {
    /// Reads what was signed, and refuses what can be known to be impossible: before the other slot is opened.
    ///
    /// # Errors
    /// [`DeltaProblem`], or when the running slot cannot be opened.
    pub(super) fn new(header: &Header, running: Slot, slots: &mut dyn Slots) -> Result<Delta, InstallError> {
        let (signed, digest) = TargetDigest::of_delta(header).map_err(DeltaProblem::Signed)?;
        if signed.memory_bytes > MEMORY_BYTES_MAX {
            let (need_bytes, limit_bytes) = (signed.memory_bytes, MEMORY_BYTES_MAX);
            return Err(DeltaProblem::Memory { need_bytes, limit_bytes }.into());
        }
        match header.data_compression {
            Some(Compression::None) | None => {}
            Some(Compression::Gzip | Compression::Xz | Compression::Zstd) => {
                return Err(DeltaProblem::Compressed.into());
            }
        }
        let device = slots.open_source(running)?;
        let (need_bytes, have_bytes) = (signed.source.bytes, device.len());
        if have_bytes < need_bytes {
            return Err(DeltaProblem::SourceTooSmall { slot: running, need_bytes, have_bytes }.into());
        }
        let old = OldImage { slot: running, device, image: signed.source };
        Ok(Delta { signed, digest, old })
    }

    /// Bytes of the new image.
    pub(super) fn target_bytes(&self) -> u64 {
        self.signed.target.bytes
    }

    /// What the other slot has to hold in the end.
    pub(super) fn digest(&self) -> TargetDigest {
        self.digest
    }

    /// Reads the head of the file, which has to be about what was signed, and finds out where to go on: where an `earlier`
    /// download got to, or at the start.
    ///
    /// # Errors
    /// Whatever is wrong with the head; nothing was written.
    pub(super) fn begin(
        self,
        device: &mut dyn BlockDevice,
        file: &mut PayloadFile<'_>,
        earlier: HandlerState,
    ) -> Result<BegunDelta, InstallError> {
        let head = Head::read(&mut file.look())?;
        head.agrees_with(&self.signed, file.size())?;
        let applier = match go_on(&head, earlier, device, file)? {
            Some(applier) => applier,
            None => Applier::new(head)?,
        };
        let Signed { memory_bytes, transfer_bytes, changed_bytes, target, .. } = self.signed;
        let cost = Cost {
            transfer_bytes: transfer_bytes.checked_sub(applier.head().stored_offset(applier.group())),
            memory_bytes: Some(memory_bytes),
            changed_bytes: Some(changed_bytes),
            image_bytes: Some(target.bytes),
        };
        Ok(BegunDelta { applier, old: self.old, cost })
    }
}

/// A delta whose head has been read.
pub(super) struct BegunDelta {
    applier: Applier,
    old: OldImage,
    cost: Cost,
}

impl BegunDelta {
    /// What it will cost from here on.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// How much of the new image is there already.
    pub(super) fn position(&self) -> u64 {
        self.applier.head().target_offset(self.applier.group())
    }

    /// Writes the rest of the new image. What the writer was given then has the digest that was signed.
    ///
    /// # Errors
    /// Whatever is wrong with the delta, the old image or the slot; nothing of a segment was written before it was proved.
    pub(super) fn write(
        &mut self,
        file: &mut PayloadFile<'_>,
        writer: &mut SlotWriter<'_>,
        state: &mut dyn StateKeeper,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        let share = file.size() / CHECKPOINT_SHARE;
        let mut saved = self.applier.head().stored_offset(self.applier.group());
        let mut keeps = true;
        loop {
            match self.applier.next(file, &mut self.old) {
                Ok(Some(applied)) => {
                    writer.append_hashed(applied.bytes, progress)?;
                    progress.reused(applied.reused_bytes);
                    if !applied.ends_group {
                        continue;
                    }
                }
                Ok(None) => {
                    writer.vouch(self.applier.digest());
                    return Ok(());
                }
                Err(error) => return Err(self.old.explain(error)),
            }
            let (head, groups) = (self.applier.head(), self.applier.group());
            let stored = head.stored_offset(groups);
            // The last group is followed by the proof of everything.
            let is_worth_it = keeps && stored - saved >= share && groups < head.groups.len();
            // The content before the record of it.
            if is_worth_it && writer.make_durable()? == head.target_offset(groups) {
                keeps = journal::keep(HandlerState::of(&Journal { groups }), state);
                saved = stored;
            }
        }
    }
}

/// An applier behind what an earlier download left in the slot, with the file at the same place. `None` where nothing was
/// left, or not what the journal says: then everything begins at the start.
fn go_on(
    head: &Head,
    earlier: HandlerState,
    device: &mut dyn BlockDevice,
    file: &mut PayloadFile<'_>,
) -> Result<Option<Applier>, InstallError> {
    let groups = match earlier.read::<Journal>() {
        Ok(Some(Journal { groups })) if groups > 0 && groups < head.groups.len() => groups,
        Ok(_) | Err(_) => return Ok(None),
    };
    let bytes = head.target_offset(groups);
    if device.medium() == Medium::UbiVolume || !file.can_jump() || bytes > device.len() {
        return Ok(None);
    }
    let applier = match prefix(device, bytes) {
        Ok(prefix) => Applier::at_group(head.clone(), groups, prefix),
        Err(error) => {
            log::warn!("what an earlier download left in the slot cannot be read: {error}");
            return Ok(None);
        }
    };
    match applier {
        Ok(applier) => {
            let stored = head.stored_bytes()? + head.stored_offset(groups);
            if let Err(error) = file.jump_to(stored) {
                log::warn!("cannot go on at byte {stored} of the delta: {error}");
                return Ok(None);
            }
            log::info!("{bytes} bytes of the image are there: going on at byte {stored} of the delta");
            Ok(Some(applier))
        }
        Err(error) => {
            log::warn!("what an earlier download left in the slot is not there any more: {error}");
            Ok(None)
        }
    }
}

/// What the medium holds of the image.
fn prefix(device: &mut dyn BlockDevice, bytes: u64) -> io::Result<Prefix> {
    device.drop_cache()?;
    let mut prefix = Prefix::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < bytes {
        let take = usize::try_from(bytes - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
        let part = buffer.get_mut(..take).unwrap_or_default();
        device.read_at(offset, part)?;
        prefix.update(part);
        offset += take as u64;
    }
    Ok(prefix)
}
