//! A payload that is the difference between what runs and what is to run: from the running slot and the file to the other
//! slot. What comes before and after that, an image has in common with it: see `image`.

use std::fmt;
use std::io;

use delta::{Applier, DeltaError, Head, Image, MEMORY_BYTES_MAX, Signed, SignedError};
use sha2::Digest;

use super::{InstallError, Progress, SlotWriter};
use crate::artifact::{ArtifactError, Compression, Header, PayloadFile, Sha256};
use crate::slot::Slot;
use crate::storage::ReadAt;

/// Bytes of the running slot that are read at a time where all of it has to be looked at.
const READ_BYTES: usize = 64 * 1024;

/// Why a delta cannot be installed. Nothing was armed.
#[derive(Debug)]
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
    /// `device` is the running slot.
    ///
    /// # Errors
    /// [`DeltaProblem::SourceTooSmall`].
    pub(super) fn new(
        slot: Slot,
        device: Box<dyn ReadAt>,
        signed: &Signed,
    ) -> Result<OldImage, InstallError> {
        let (need_bytes, have_bytes) = (signed.source.bytes, device.len());
        if have_bytes < need_bytes {
            return Err(DeltaProblem::SourceTooSmall { slot, need_bytes, have_bytes }.into());
        }
        Ok(OldImage { slot, device, image: signed.source })
    }

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

/// Whether what the signed header says can be done at all, before the slot is touched.
///
/// # Errors
/// What cannot.
pub(super) fn check_signed(header: &Header, signed: &Signed) -> Result<(), InstallError> {
    if signed.memory_bytes > MEMORY_BYTES_MAX {
        let (need_bytes, limit_bytes) = (signed.memory_bytes, MEMORY_BYTES_MAX);
        return Err(DeltaProblem::Memory { need_bytes, limit_bytes }.into());
    }
    match header.data_compression {
        Some(Compression::None) | None => Ok(()),
        Some(Compression::Gzip | Compression::Xz | Compression::Zstd) => Err(DeltaProblem::Compressed.into()),
    }
}

/// Reads the head of the delta, which has to be about what was signed.
///
/// # Errors
/// Whatever is wrong with it; nothing was written.
pub(super) fn read_head(file: &mut PayloadFile<'_>, signed: &Signed) -> Result<Head, InstallError> {
    let head = Head::read(file)?;
    head.agrees_with(signed, file.size())?;
    Ok(head)
}

/// Writes the new image. When this returns, what `writer` was given has the digest that was signed.
///
/// # Errors
/// Whatever is wrong with the delta, the old image or the slot; nothing of a segment was written before it was proved.
pub(super) fn apply(
    applier: &mut Applier,
    file: &mut PayloadFile<'_>,
    old: &mut OldImage,
    writer: &mut SlotWriter<'_>,
    progress: &mut dyn Progress,
) -> Result<(), InstallError> {
    loop {
        match applier.next(file, old) {
            Ok(Some(applied)) => writer.append(applied.bytes, progress)?,
            Ok(None) => return Ok(()),
            Err(error) => return Err(old.explain(error)),
        }
    }
}
