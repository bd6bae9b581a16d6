//! The binary deltas of Mender's commercial plans: one VCDIFF file of xdelta3, from the running slot to the other one. What
//! comes before and after that, an image has in common with it: see `image`.
//!
//! Their signed header says which digest the new image has and which the old one, but of the two sizes only the old one, and
//! that only to explain. So the image ends where the delta ends, and the read-back against the signed digest decides, as ever.

use std::io::{self, BufReader};

use ::delta::Image;
use ::vcdiff::{Contents, Decoder, Error, Limits};
use serde_json::Value;

use super::delta::{DeltaProblem, OldImage};
use super::{InstallError, Progress, SlotWriter};
use crate::artifact::write::CHECKSUM_KEYS;
use crate::artifact::{ArtifactError, Header, PayloadFile};
use crate::slot::Slot;
use crate::storage::{BlockDevice, Medium, ReadAt};

/// What the header says about how the delta was made.
const ALGORITHM: &str = "xdelta3";

/// The running slot, as far as the delta tells what it was made from.
pub(super) struct Old {
    device: Box<dyn ReadAt>,
    slot: Slot,
    /// Where the header says digest and size of it.
    image: Option<Image>,
}

impl Old {
    /// `device` is the running slot.
    ///
    /// # Errors
    /// When the header names another algorithm, or says nothing that could be understood.
    pub(super) fn new(slot: Slot, device: Box<dyn ReadAt>, header: &Header) -> Result<Old, InstallError> {
        let payload = header.payload.as_ref();
        let meta_data = payload.and_then(|payload| payload.meta_data.as_deref()).unwrap_or("{}");
        let meta_data: Value = serde_json::from_str(meta_data).unwrap_or_default();
        match meta_data.get("delta_algorithm").and_then(Value::as_str) {
            Some(ALGORITHM) | None => {}
            Some(other) => return Err(DeltaProblem::Algorithm { found: other.to_owned() }.into()),
        }
        // `decoder_arguments` are sizes of buffers that this decoder does not have.
        let bytes = meta_data.get("rootfs_file_size").and_then(Value::as_u64);
        let depends = CHECKSUM_KEYS.iter().find_map(|key| header.depends.type_info.get(*key));
        let digest = match depends.map(Vec::as_slice) {
            Some([one]) => one.parse().ok(),
            Some(_) | None => None,
        };
        let image = digest.zip(bytes).map(|(sha256, bytes)| Image { sha256, bytes });
        Ok(Old { device, slot, image })
    }

    /// `error`, or that the slot holds something else than the delta was made from, which explains it: other content than what
    /// was meant came of it.
    pub(super) fn explain(self, error: InstallError) -> InstallError {
        let is_content = matches!(
            error,
            InstallError::ReadBack { .. } | InstallError::Delta(DeltaProblem::Vcdiff(Error::Checksum { .. }))
        );
        if !is_content {
            return error;
        }
        let Some(image) = self.image.filter(|image| image.bytes <= self.device.len()) else { return error };
        OldImage::of(self.slot, self.device, image).difference().map_or(error, InstallError::from)
    }
}

impl Contents for Old {
    fn old_bytes(&self) -> u64 {
        self.device.len()
    }

    fn old(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, into)
    }

    /// xdelta3 neither writes nor reads such deltas, and a slot that is being written is not read.
    fn made(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What a slot's writer is promised for an image of which nobody has said how large it is: the slot.
///
/// # Errors
/// When the medium has to know.
pub(super) fn most_bytes(device: &dyn BlockDevice, slot: Slot) -> Result<u64, InstallError> {
    match device.medium() {
        Medium::UbiVolume => Err(DeltaProblem::NoSize { slot }.into()),
        Medium::Rewritable | Medium::NorFlash | Medium::NandFlash => Ok(device.len()),
    }
}

/// Writes the new image.
///
/// # Errors
/// Whatever is wrong with the delta, the old image or the slot.
pub(super) fn apply(
    file: &mut PayloadFile<'_>,
    old: &mut Old,
    writer: &mut SlotWriter<'_>,
    progress: &mut dyn Progress,
) -> Result<(), InstallError> {
    let mut delta = BufReader::new(file);
    let mut decoder = Decoder::new(Limits::default());
    while let Some(window) = decoder.next(&mut delta, old).map_err(refused)? {
        writer.append(window, progress)?;
    }
    writer.end(progress)
}

fn refused(error: Error) -> InstallError {
    // The artifact's, or of the way that it comes.
    if let Error::Delta(error) = error {
        return InstallError::Artifact(ArtifactError::from_io(error));
    }
    DeltaProblem::Vcdiff(error).into()
}
