//! Writes an image to a slot in constant memory and proves that it is there.
//!
//! The image passes through one buffer of 1 MiB. Blocks that the slot already holds are not written again; the
//! device is synced in bounded windows, so that a slow medium cannot pile up dirty memory, and once at the end. Each window
//! is [read back](super::read_back) from the medium and compared with a fast [sum](super::sum) of what this process
//! wrote there. What it wrote is the image: the reader of the payload has compared its digest, or it is taken here. It
//! arms nothing.

use std::io::Read;

use delta::{Signed, SignedError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::read_back::{self, BLOCK_BYTES, Fault, ReadBack};
use super::{InstallError, Progress};
use crate::artifact::write::CHECKSUM_KEYS;
use crate::artifact::{self, ArtifactError, Header, PayloadFile, Reading};
use crate::slot::Slot;
use crate::storage::{BlockDevice, Medium};

/// Bytes read, compared and written at a time. Large enough that flash and network file systems see whole erase
/// blocks, small enough for a device with 32 MiB of memory (there are two such buffers).
const CHUNK_BYTES: usize = 1024 * 1024;

/// Equal runs are looked for in steps of this many bytes: skipping less than this saves no flash wear.
const COMPARE_BYTES: usize = 64 * 1024;

/// After so many bytes without one that was there already the slot is taken for one in which nothing matches. Then only
/// one block in each chunk is looked at: an image that is wholly new does not have to be read twice.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;

/// What comes in small pieces is gathered to so much before it is written.
const GATHER_BYTES: usize = 64 * 1024;

/// Writing back is started every so many bytes...
const WRITE_BACK_BYTES: u64 = 4 * 1024 * 1024;

/// ...and waited for every so many: the most that can be dirty, and lost by an unnoticed device error.
const SYNC_WINDOW_BYTES: u64 = 32 * 1024 * 1024;

/// What was written to which slot: enough for a later process to find it again and check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenImage {
    /// The slot that holds the image.
    pub slot: Slot,
    /// Length of the image in bytes.
    pub size_bytes: u64,
    /// Of the image.
    #[serde(with = "digest_text")]
    pub sha256: artifact::Sha256,
}

/// A digest in the record: its text.
mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::artifact::Sha256;

    // The signature is serde's.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(digest: &Sha256, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Sha256, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a slot has to hold in the end, as the signed manifest or header says. There is no other way to come by one: a digest of
/// unknown origin cannot be compared with by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetDigest(artifact::Sha256);

impl TargetDigest {
    /// For a payload file that is the image itself.
    pub fn of(file: &PayloadFile<'_>) -> TargetDigest {
        TargetDigest(file.expected_sha256())
    }

    /// For a payload that is the difference to an image: what its signed header says about both.
    ///
    /// # Errors
    /// When it says nothing that could be understood.
    pub fn of_delta(header: &Header) -> Result<(Signed, TargetDigest), SignedError> {
        let payload = header.payload.as_ref();
        let meta_data = payload.and_then(|payload| payload.meta_data.as_deref());
        let signed = Signed::parse(meta_data.unwrap_or_default())?;
        Ok((signed, TargetDigest(signed.target.sha256)))
    }

    /// For a payload whose signed header says only what the device provides afterwards: the digest of the image.
    pub fn of_provides(header: &Header) -> Option<TargetDigest> {
        let provides = header.provides.as_ref()?;
        let digest = CHECKSUM_KEYS.iter().find_map(|key| provides.get(*key))?;
        digest.parse().ok().map(TargetDigest)
    }
}

/// Proof that a slot holds a whole image, durable and with the digest that the artifact's manifest names. Only
/// [`SlotWriter::finish`] and [`Written::verify`] make it, both by reading the slot back.
#[derive(Debug)]
pub struct Written {
    image: WrittenImage,
}

/// What a finished write did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteStatistics {
    /// Bytes of the image.
    pub total_bytes: u64,
    /// Bytes that differed and were written.
    pub written_bytes: u64,
    /// Bytes the slot already held.
    pub skipped_bytes: u64,
    /// Bytes behind the image that the medium was told to forget.
    pub discarded_bytes: u64,
    /// Times the device was synced.
    pub syncs: u32,
}

impl Written {
    /// The slot.
    pub fn slot(&self) -> Slot {
        self.image.slot
    }

    /// What to remember of it.
    pub fn image(&self) -> &WrittenImage {
        &self.image
    }

    /// Reads `image` back from `device` and compares its digest: for a process that finds an image which an
    /// earlier one wrote.
    ///
    /// # Errors
    /// [`InstallError::ReadBack`] when the slot holds something else.
    pub fn verify(
        device: &mut dyn BlockDevice,
        image: WrittenImage,
        progress: &mut dyn Progress,
    ) -> Result<Written, InstallError> {
        if image.size_bytes > device.len() {
            return Err(InstallError::SlotTooSmall {
                slot: image.slot,
                need_bytes: image.size_bytes,
                have_bytes: device.len(),
            });
        }
        let mut digest = Sha256::new();
        read_back::read_all(device, image.size_bytes, CHUNK_BYTES, |done, part| {
            digest.update(part);
            progress.verified(done, image.size_bytes);
        })
        .map_err(|fault| not_kept(image.slot, device.name(), fault))?;
        let actual = artifact::Sha256::from(<[u8; 32]>::from(digest.finalize()));
        if actual != image.sha256 {
            return Err(InstallError::ReadBack { slot: image.slot, expected: image.sha256, actual });
        }
        Ok(Written { image })
    }
}

/// The error for what the medium did to what was written.
fn not_kept(slot: Slot, device: &str, fault: Fault) -> InstallError {
    let device = device.to_owned();
    match fault {
        Fault::Differs { offset, len } => InstallError::NotKept { slot, device, offset, len },
        Fault::Unreadable { offset, source } => {
            InstallError::Storage { doing: "read back", slot, device, offset, source }
        }
    }
}

/// What is known of everything that was taken for the image.
enum Taken {
    /// Its digest so far.
    Hashed(Sha256),
    /// It is a whole file with this digest, which its reader has compared.
    Whole(artifact::Sha256),
    /// Nothing: an earlier process wrote a part of it, or its reader has not compared it to the end. Then the digest is
    /// taken of what is read back.
    Unknown,
}

/// Writes one image to one slot, front to back.
pub struct SlotWriter<'d> {
    device: &'d mut dyn BlockDevice,
    slot: Slot,
    size_bytes: u64,
    /// How far the slot was written, or found to hold the image: a multiple of a block, or the end.
    written: u64,
    /// What came behind that and is no whole block yet, or came in small pieces; less than a step of comparing.
    gathered: Vec<u8>,
    written_back: u64,
    synced: u64,
    compare: bool,
    old: Vec<u8>,
    /// Bytes since the last one that the slot held already.
    missed: u64,
    taken: Taken,
    /// `None` where the digest of what is read back is compared.
    read_back: Option<ReadBack>,
    statistics: WriteStatistics,
}

impl<'d> SlotWriter<'d> {
    /// A writer for an image of `size_bytes`. Nothing is written yet.
    ///
    /// # Errors
    /// [`InstallError::SlotTooSmall`], before the first byte; [`InstallError::EmptyImage`].
    pub fn new(
        device: &'d mut dyn BlockDevice,
        slot: Slot,
        size_bytes: u64,
    ) -> Result<SlotWriter<'d>, InstallError> {
        SlotWriter::resume(device, slot, size_bytes, 0, Reading::Ahead)
    }

    /// A writer that goes on at `position` of an image of which an earlier process wrote what lies before, and made it
    /// durable. The caller has found it there; it is read back with the rest in the end. What is written from the start on is
    /// read back beside the writing, by a thread or in turn, as `reading` says.
    ///
    /// # Errors
    /// As for [`new`](SlotWriter::new). When `position` is not a multiple of 4096 in the image, or the medium can only be
    /// replaced as a whole.
    pub fn resume(
        device: &'d mut dyn BlockDevice,
        slot: Slot,
        size_bytes: u64,
        position: u64,
        reading: Reading,
    ) -> Result<SlotWriter<'d>, InstallError> {
        if position == 0 {
            let mut writer = SlotWriter::at(device, slot, size_bytes, 0)?;
            writer.device.begin_replace(size_bytes).map_err(|e| writer.storage_error("prepare", e))?;
            writer.discard_behind();
            writer.taken = Taken::Hashed(Sha256::new());
            writer.read_back = Some(ReadBack::new(writer.device, size_bytes, reading));
            return Ok(writer);
        }
        let writer = SlotWriter::at(device, slot, size_bytes, position)?;
        if position % BLOCK_BYTES as u64 != 0 || position > size_bytes || !writer.compare {
            return Err(writer.storage_error("go on with", std::io::ErrorKind::InvalidInput.into()));
        }
        Ok(writer)
    }

    fn at(
        device: &'d mut dyn BlockDevice,
        slot: Slot,
        size_bytes: u64,
        position: u64,
    ) -> Result<SlotWriter<'d>, InstallError> {
        if size_bytes == 0 {
            return Err(InstallError::EmptyImage);
        }
        let have_bytes = device.len();
        if size_bytes > have_bytes {
            return Err(InstallError::SlotTooSmall { slot, need_bytes: size_bytes, have_bytes });
        }
        // A UBI volume is replaced as a whole and cannot be read meanwhile.
        let compare = device.medium() != Medium::UbiVolume;
        Ok(SlotWriter {
            device,
            slot,
            size_bytes,
            written: position,
            gathered: Vec::new(),
            written_back: position,
            synced: position,
            compare,
            old: Vec::new(),
            missed: 0,
            taken: Taken::Unknown,
            read_back: None,
            statistics: WriteStatistics {
                total_bytes: size_bytes,
                skipped_bytes: position,
                ..WriteStatistics::default()
            },
        })
    }

    /// First of all, so that everything that counts is read back after it.
    fn discard_behind(&mut self) {
        match self.device.discard_behind(self.size_bytes) {
            Ok(bytes) => self.statistics.discarded_bytes = bytes,
            // Nothing depends on it.
            Err(error) => {
                log::warn!("{}: what lies behind the image is not discarded: {error}", self.device.name())
            }
        }
    }

    /// What was done so far.
    pub fn statistics(&self) -> &WriteStatistics {
        &self.statistics
    }

    /// Place of the next byte in the image.
    pub fn position(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// What the slot holds from `offset` on, where nothing was written yet; `false` where that cannot be read.
    pub(super) fn read_ahead(&mut self, offset: u64, buffer: &mut [u8]) -> bool {
        self.compare && offset >= self.written && self.device.read_at(offset, buffer).is_ok()
    }

    /// Takes the next bytes of the image, as many as there are; pieces of up to 1 MiB, of whole blocks, cost the least. What
    /// the slot holds already is not written again. What is less than a block waits for the rest of it.
    ///
    /// # Errors
    /// The device's, or when there is more than was promised; the slot then holds nothing that may be booted.
    pub fn append(&mut self, bytes: &[u8], progress: &mut dyn Progress) -> Result<(), InstallError> {
        self.take(bytes, progress)?;
        match &mut self.taken {
            Taken::Hashed(digest) => digest.update(bytes),
            Taken::Whole(_) | Taken::Unknown => self.taken = Taken::Unknown,
        }
        Ok(())
    }

    /// As [`append`](SlotWriter::append), for somebody who takes the digest of all bytes from the image's first one on: it
    /// is not computed a second time. Without [`vouch`](SlotWriter::vouch) at the end it is taken of what is read back.
    pub(super) fn append_hashed(
        &mut self,
        bytes: &[u8],
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.taken = Taken::Unknown;
        self.take(bytes, progress)
    }

    /// All bytes of the image, from the first to the last, have this digest.
    pub(super) fn vouch(&mut self, digest: artifact::Sha256) {
        self.taken = Taken::Whole(digest);
    }

    /// The next bytes, whoever vouches for them.
    fn take(&mut self, bytes: &[u8], progress: &mut dyn Progress) -> Result<(), InstallError> {
        let end = self.position() + bytes.len() as u64;
        if end > self.size_bytes {
            // The size was promised and checked against the slot; never write past it.
            return Err(InstallError::SlotTooSmall {
                slot: self.slot,
                need_bytes: end,
                have_bytes: self.size_bytes,
            });
        }
        let mut left = bytes;
        while !left.is_empty() {
            // Straight from the caller's memory what is whole blocks and worth a write; the rest is gathered.
            let whole = left.len().min(CHUNK_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
            if self.gathered.is_empty() && (whole >= GATHER_BYTES || whole == left.len()) {
                let (piece, rest) = left.split_at(whole);
                self.write(piece)?;
                left = rest;
                progress.written(self.position(), self.size_bytes);
            } else {
                let take = left.len().min(GATHER_BYTES - self.gathered.len());
                let (piece, rest) = left.split_at(take);
                self.gathered.extend_from_slice(piece);
                left = rest;
                if self.gathered.len() == GATHER_BYTES {
                    self.write_gathered()?;
                    progress.written(self.position(), self.size_bytes);
                }
            }
        }
        if end == self.size_bytes && !self.gathered.is_empty() {
            self.write_gathered()?;
            progress.written(end, self.size_bytes);
        }
        Ok(())
    }

    /// The image ends here, for one whose length nobody has said. It is read back as any other.
    ///
    /// # Errors
    /// The device's; [`InstallError::EmptyImage`].
    pub fn end(&mut self, progress: &mut dyn Progress) -> Result<(), InstallError> {
        self.size_bytes = self.position();
        self.statistics.total_bytes = self.size_bytes;
        if self.size_bytes == 0 {
            return Err(InstallError::EmptyImage);
        }
        // It was told where the image ends, and goes by that.
        self.read_back = None;
        self.append(&[], progress)
    }

    fn write_gathered(&mut self) -> Result<(), InstallError> {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.write(&gathered)?;
        gathered.clear();
        self.gathered = gathered;
        Ok(())
    }

    /// Makes what was taken so far durable, as far as it is whole blocks. Everything before the returned place is on the
    /// medium: a later process may [`resume`](SlotWriter::resume) there. It is 0 where the medium is replaced as a whole.
    ///
    /// # Errors
    /// When it may not be durable: the installation is over.
    pub fn make_durable(&mut self) -> Result<u64, InstallError> {
        if !self.compare {
            return Ok(0);
        }
        let whole = self.gathered.len() / BLOCK_BYTES * BLOCK_BYTES;
        if whole > 0 {
            let mut gathered = std::mem::take(&mut self.gathered);
            self.write(&gathered[..whole])?;
            gathered.drain(..whole);
            self.gathered = gathered;
        }
        if self.synced != self.written {
            self.sync()?;
        }
        Ok(self.synced)
    }

    /// Copies what is left of a payload file, which fails at its end when its checksum is wrong. Where it is the whole image
    /// its digest is not computed a second time.
    ///
    /// # Errors
    /// The file's or the device's; the slot then holds nothing that may be booted.
    pub fn copy_file(
        &mut self,
        file: &mut PayloadFile<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        if self.position() != 0 || !matches!(self.taken, Taken::Hashed(_)) {
            return self.copy_from(file, progress);
        }
        self.taken = Taken::Unknown;
        self.copy(file, progress, SlotWriter::take)?;
        self.vouch_for(file);
        Ok(())
    }

    /// The bytes taken are those of `file`, which was read to its end, from the first one on: as many as it has, and its reader
    /// had nothing to say at its end.
    pub(super) fn vouch_for(&mut self, file: &PayloadFile<'_>) {
        if file.is_whole() && self.position() == file.size() {
            self.vouch(file.expected_sha256());
        }
    }

    /// Copies everything that `source` gives to the slot, behind what was copied before.
    ///
    /// # Errors
    /// The source's or the device's; the slot then holds nothing that may be booted.
    pub fn copy_from(
        &mut self,
        source: &mut dyn Read,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.copy(source, progress, SlotWriter::append)
    }

    fn copy(
        &mut self,
        source: &mut dyn Read,
        progress: &mut dyn Progress,
        take: fn(&mut Self, &[u8], &mut dyn Progress) -> Result<(), InstallError>,
    ) -> Result<(), InstallError> {
        let mut chunk = vec![0; chunk_bytes(self.size_bytes)];
        loop {
            let filled = fill(source, &mut chunk)?;
            if filled == 0 {
                return Ok(());
            }
            take(self, &chunk[..filled], progress)?;
        }
    }

    /// Writes the next bytes of the image, at most one chunk: whole blocks, or the end.
    fn write(&mut self, new: &[u8]) -> Result<(), InstallError> {
        if let Some(read_back) = &mut self.read_back {
            read_back.expect(new);
        }
        let readable = self.look(new);
        let skipped_before = self.statistics.skipped_bytes;
        let mut start = 0;
        while start < new.len() {
            let run = if readable { self.next_run(new, start) } else { start..new.len() };
            let offset = self.written + run.start as u64;
            if !run.is_empty() {
                self.device.write_at(offset, &new[run.clone()]).map_err(|source| InstallError::Storage {
                    doing: "write",
                    slot: self.slot,
                    device: self.device.name().to_owned(),
                    offset,
                    source,
                })?;
                self.statistics.written_bytes += run.len() as u64;
            }
            self.statistics.skipped_bytes += (run.start - start) as u64;
            start = run.end;
        }
        if self.statistics.skipped_bytes != skipped_before {
            self.missed = 0;
        } else if self.missed < LOOK_BYTES {
            self.missed += new.len() as u64;
            if self.missed >= LOOK_BYTES {
                self.old = Vec::new();
            }
        }
        self.written += new.len() as u64;
        self.bound_dirty_memory()
    }

    /// Reads what the slot holds where `new` belongs. Whether that is worth a comparison.
    fn look(&mut self, new: &[u8]) -> bool {
        if !self.compare {
            return false;
        }
        if self.missed >= LOOK_BYTES {
            let first = new.get(..BLOCK_BYTES).unwrap_or(new);
            if !self.read_old(first.len()) || self.old != first {
                return false;
            }
        }
        self.read_old(new.len())
    }

    /// A power cut in an earlier installation can leave sectors that cannot be read until they are written: what the slot
    /// holds is only worth a comparison, never an error.
    fn read_old(&mut self, len: usize) -> bool {
        self.old.resize(len, 0);
        match self.device.read_at(self.written, &mut self.old) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("slot {} cannot be read at byte {}: {error}; writing it", self.slot, self.written);
                false
            }
        }
    }

    /// The next run of blocks from `start` on that differ from what the slot holds; empty at the end when the
    /// rest is equal.
    fn next_run(&self, new: &[u8], start: usize) -> std::ops::Range<usize> {
        let block_end = |at: usize| (at + COMPARE_BYTES).min(new.len());
        let equal = |at: usize| new[at..block_end(at)] == self.old[at..block_end(at)];
        let mut first = start;
        while first < new.len() && equal(first) {
            first = block_end(first);
        }
        let mut end = first;
        while end < new.len() && !equal(end) {
            end = block_end(end);
        }
        first..end
    }

    fn bound_dirty_memory(&mut self) -> Result<(), InstallError> {
        if self.written - self.written_back >= WRITE_BACK_BYTES {
            self.device.start_write_back(self.written_back, self.written - self.written_back);
            self.written_back = self.written;
        }
        // A UBI volume update is one transaction; it cannot be synced half-way.
        if self.compare && self.written - self.synced >= SYNC_WINDOW_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), InstallError> {
        // After one failed sync nothing since the last good one is known to be there, and a later success would
        // not say otherwise: every failure ends the installation.
        self.device.sync().map_err(|e| self.storage_error("sync", e))?;
        self.synced = self.written;
        self.statistics.syncs += 1;
        match &mut self.read_back {
            Some(read_back) => {
                read_back.synced(self.synced).map_err(|fault| not_kept(self.slot, self.device.name(), fault))
            }
            None => Ok(()),
        }
    }

    /// Syncs, and reads back what was not read yet: all of it must be what was written, and that must be `target`.
    ///
    /// # Errors
    /// When the image is shorter than promised, the sync fails or the slot does not hold the image.
    pub fn finish(
        mut self,
        target: TargetDigest,
        progress: &mut dyn Progress,
    ) -> Result<(Written, WriteStatistics), InstallError> {
        if self.position() != self.size_bytes {
            return Err(InstallError::Storage {
                doing: "complete",
                slot: self.slot,
                device: self.device.name().to_owned(),
                offset: self.position(),
                source: std::io::ErrorKind::UnexpectedEof.into(),
            });
        }
        let came = match std::mem::replace(&mut self.taken, Taken::Unknown) {
            Taken::Hashed(digest) => Some(artifact::Sha256::from(<[u8; 32]>::from(digest.finalize()))),
            Taken::Whole(digest) => Some(digest),
            Taken::Unknown => None,
        };
        if let Some(actual) = came.filter(|came| *came != target.0) {
            return Err(InstallError::ReadBack { slot: self.slot, expected: target.0, actual });
        }
        self.sync()?; // data before the pointer to it
        self.old = Vec::new(); // two buffers at any time, never three
        let image = WrittenImage { slot: self.slot, size_bytes: self.size_bytes, sha256: target.0 };
        let written = match (came, self.read_back.take()) {
            (Some(_), Some(read_back)) => {
                read_back
                    .finish(self.device, |done| progress.verified(done, self.size_bytes))
                    .map_err(|fault| not_kept(self.slot, self.device.name(), fault))?;
                Written { image }
            }
            (None, _) | (_, None) => Written::verify(self.device, image, progress)?,
        };
        Ok((written, self.statistics))
    }

    fn storage_error(&self, doing: &'static str, source: std::io::Error) -> InstallError {
        InstallError::Storage {
            doing,
            slot: self.slot,
            device: self.device.name().to_owned(),
            offset: self.written,
            source,
        }
    }
}

/// Length of the next chunk when `left_bytes` are left.
fn chunk_bytes(left_bytes: u64) -> usize {
    usize::try_from(left_bytes).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES))
}

/// Fills `buffer` as far as `source` goes.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, InstallError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(InstallError::Artifact(ArtifactError::from_io(error))),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_holds_the_text_of_a_digest() {
        let sha256 = artifact::Sha256::from([10; 32]);
        let text = format!(r#"{{"slot":"B","size_bytes":7,"sha256":"{sha256}"}}"#);
        let image = WrittenImage { slot: Slot::B, size_bytes: 7, sha256 };
        assert_eq!(serde_json::to_string(&image).unwrap(), text);
        assert_eq!(serde_json::from_str::<WrittenImage>(&text).unwrap(), image);
        assert!(serde_json::from_str::<WrittenImage>(&text.replace("0a", "0g")).is_err());
    }
}
