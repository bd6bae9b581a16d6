//! How far the download of an image came, so that a later process buys none of it again.
//!
//! At a checkpoint the slot is synced first, and then the record says up to which place of the image that is so, and where
//! the artifact is to be gone on with. What the record says is a claim: the slot is read, and its digest compared, before a
//! byte is believed. Whatever is odd leads to the beginning.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::{HandlerState, InstallError, Progress, SlotWriter, StateKeeper};
use crate::artifact::{ArtifactError, PayloadFile, RestartPoint};
use crate::slot::Slot;
use crate::storage::{BlockDevice, Medium};

/// Most bytes that are read and written between two looks at whether it is time for a checkpoint.
const CHUNK_BYTES: usize = 256 * 1024;
/// Most bytes of the artifact between two checkpoints, in units of the least. Between the two it is a hundredth of all.
const STEPS_MAX: u64 = 16;
/// A place of the image that a writer can begin at.
const BLOCK_BYTES: u64 = 4096;

/// What is saved at a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    slot: Slot,
    point: RestartPoint,
}

/// Where in an image a download begins.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// A whole number of blocks that are in the slot already.
    position: u64,
    /// What is in the slot behind them, and part of the image too.
    tail: Vec<u8>,
    /// Bytes of the stored payload that need not be transferred.
    stored: u64,
}

impl Start {
    /// Where in the slot it begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the stored payload that are here already.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether something of an earlier download is used.
    pub(super) fn goes_on(&self) -> bool {
        self.stored > 0
    }
}

/// Goes on with what `earlier` says of `slot`, where that is still there.
pub(super) fn go_on(
    device: &mut dyn BlockDevice,
    slot: Slot,
    file: &mut PayloadFile<'_>,
    earlier: &HandlerState,
    progress: &mut dyn Progress,
) -> Start {
    let journal = match earlier.clone().read::<Journal>() {
        Ok(Some(journal)) if journal.slot == slot && device.medium() != Medium::UbiVolume => journal,
        Ok(_) => return Start::default(),
        Err(error) => {
            log::warn!("the download begins anew: {error}");
            return Start::default();
        }
    };
    match found_again(device, file, &journal.point) {
        Ok(start) => {
            log::info!(
                "the download goes on at byte {} of {} of the image: {} of {} bytes of the payload are here",
                journal.point.offset(),
                file.size(),
                journal.point.stored_offset(),
                journal.point.stored_bytes()
            );
            progress.reused(start.stored);
            start
        }
        Err(error) => {
            log::warn!("the download begins anew: {error}");
            Start::default()
        }
    }
}

fn found_again(
    device: &mut dyn BlockDevice,
    file: &mut PayloadFile<'_>,
    point: &RestartPoint,
) -> Result<Start, ArtifactError> {
    let of_slot = |source| ArtifactError::Source { source };
    if point.offset() > device.len() {
        return Err(of_slot(io::ErrorKind::UnexpectedEof.into()));
    }
    // What a cut has left on the medium, and nothing that is only in memory.
    device.drop_cache().map_err(of_slot)?;
    let position = point.offset() / BLOCK_BYTES * BLOCK_BYTES;
    let mut tail = vec![0; usize::try_from(point.offset() - position).unwrap_or(0)];
    device.read_at(position, &mut tail).map_err(of_slot)?;
    file.resume(point, &mut Prefix { device, position: 0, end: point.offset() })?;
    Ok(Start { position, tail, stored: point.stored_offset() })
}

/// The beginning of a slot.
struct Prefix<'d> {
    device: &'d mut dyn BlockDevice,
    position: u64,
    end: u64,
}

impl Read for Prefix<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let part = buffer.get_mut(..most).unwrap_or_default();
        self.device.read_at(self.position, part)?;
        self.position += part.len() as u64;
        Ok(part.len())
    }
}

/// Copies `file` to `slot` with a `writer` that stands at `start`, with checkpoints where its bytes have to be bought. It fails at its end when its
/// checksum is wrong.
pub(super) fn copy(
    writer: &mut SlotWriter<'_>,
    slot: Slot,
    file: &mut PayloadFile<'_>,
    start: &Start,
    state: &mut dyn StateKeeper,
    progress: &mut dyn Progress,
) -> Result<(), InstallError> {
    writer.append(&start.tail, progress)?;
    let Some(every) = file.note_every() else { return writer.copy_file(file, progress) };
    let mut checkpoints = Checkpoints { slot, every, last: start.stored, keeps: true };
    let mut chunk = vec![0; usize::try_from(every).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)];
    loop {
        let mut filled = 0;
        while let Some(rest) = chunk.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArtifactError::from_io(error).into()),
            }
        }
        if filled == 0 {
            // What an earlier process wrote, this one read back and did not write.
            if !start.goes_on() {
                writer.vouch_for(file);
            }
            return Ok(());
        }
        // The file's reader takes the digest.
        writer.append_hashed(chunk.get(..filled).unwrap_or_default(), progress)?;
        checkpoints.pass(writer, file, state)?;
    }
}

struct Checkpoints {
    slot: Slot,
    every: u64,
    /// Bytes of the stored payload before the last one.
    last: u64,
    keeps: bool,
}

impl Checkpoints {
    /// Saves how far it is, if it is time.
    fn pass(
        &mut self,
        writer: &mut SlotWriter<'_>,
        file: &PayloadFile<'_>,
        state: &mut dyn StateKeeper,
    ) -> Result<(), InstallError> {
        let Some(next) = file.restart_point(writer.position()).filter(|_| self.keeps) else { return Ok(()) };
        let most = self.every.saturating_mul(STEPS_MAX);
        let step = (next.stored_bytes() / 100).clamp(self.every, most);
        if next.stored_offset() < self.last.saturating_add(step) {
            return Ok(());
        }
        let durable = writer.make_durable()?; // what the record says is there must be there
        let point = file.restart_point(durable).filter(|point| point.stored_offset() > self.last);
        let Some(point) = point else { return Ok(()) };
        self.last = point.stored_offset();
        self.keeps = keep(HandlerState::of(&Journal { slot: self.slot, point }), state);
        Ok(())
    }
}

/// Saves how far a download is; `false` where that cannot be. Without it the download is as good as before there were such
/// notes: a restart would buy it again.
pub(super) fn keep(journal: Result<HandlerState, InstallError>, state: &mut dyn StateKeeper) -> bool {
    let kept = journal.and_then(|journal| {
        state.set(journal);
        state.save()
    });
    kept.inspect_err(|error| log::warn!("how far the download is will not be noted: {error}")).is_ok()
}
