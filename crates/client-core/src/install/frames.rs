//! An image of which only the frames are fetched that the device cannot make of what it has.
//!
//! The signed header has the digest of a table of the payload's frames. Blocks are looked for in the slot that runs, wherever
//! they lie there, and in the slot that is written, at their place: what an earlier attempt wrote is found again in this way, so
//! nothing has to be remembered about it. A frame of which every block was found is put together and has to have the
//! digest of the table; where it has not, because the old slot changed meanwhile, it is fetched after all. The others are
//! fetched, in a bounded number of requests.
//!
//! Whatever does not allow this, before the first byte is written, leaves the plain way from the first byte to the last. The
//! proof is the same: the slot is read back and has to have the digest of the signed manifest.

use std::io::{self, Read};
use std::ops::Range;

use super::{Cost, InstallError, Progress, SlotWriter};
use crate::artifact::frames::{Found, Frame, FrameDecoder, FrameTable, FramesInfo, Place, frame_digest};
use crate::artifact::{ArtifactError, Header, Member};
use crate::storage::ReadAt;

/// Most that table and findings may take: eleven bytes for each block of the image and some for each frame. For more the
/// image comes the plain way.
const MEMORY_BYTES_MAX: usize = 8 << 20;

/// After so many bytes of the image from the network all is made durable, so that a power cut costs no more of them.
const DURABLE_EVERY_BYTES: usize = 4 << 20;

/// Zeros that are written at a time.
const ZEROS_BYTES: usize = 1 << 20;

/// A payload in frames, and its table.
pub(super) struct Framed<'s> {
    member: &'s Member,
    table: FrameTable,
}

impl<'s> Framed<'s> {
    /// Fetches the table that `header` names for an image of `image_bytes`. `None` where there is none, or none that can be
    /// used: the reason is in the log.
    pub(super) fn open(header: &Header, member: &'s Member, image_bytes: u64) -> Option<Framed<'s>> {
        let info = FramesInfo::of(header)?;
        // Something besides the image could not be seen: it is not read.
        if header.manifest.files.len() != 1 {
            return None;
        }
        let table =
            info.table(member, image_bytes).inspect_err(|error| log::warn!("everything is fetched: {error}"));
        let table = table.ok()?;
        let framed = Framed { member, table };
        let need = framed.memory_bytes();
        if need > MEMORY_BYTES_MAX {
            log::warn!("everything is fetched: the frame table needs {need} bytes of memory");
            return None;
        }
        Some(framed)
    }

    /// What table and findings take.
    fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + Found::memory_bytes(&self.table)
    }

    /// Writes the image.
    ///
    /// # Errors
    /// Of the network, the payload or the slot.
    pub(super) fn install(
        &self,
        running: &mut dyn ReadAt,
        writer: &mut SlotWriter<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        let found = self.find(running, writer);
        let runs = found.runs(&self.table);
        let bytes: u64 = runs.iter().map(|run| run.end - run.start).sum();
        log::info!(
            "{bytes} of {} bytes of the payload are fetched, in {} requests",
            self.member.len(),
            runs.len()
        );
        let memory = self.memory_bytes();
        progress.will_cost(&Cost {
            transfer_bytes: Some(bytes),
            memory_bytes: Some(memory as u64),
            changed_bytes: None, // where the blocks lie in the running slot says nothing about the other one
            image_bytes: Some(self.table.image_bytes()),
        });
        self.member.check_affordable(bytes).map_err(ArtifactError::from_io)?;
        let mut fetch = Fetch { member: self.member, runs: &runs, open: None };
        let mut decoder = FrameDecoder::new()?;
        let (mut content, mut compressed, mut fetched) = (Vec::new(), Vec::new(), 0);
        for frame in self.table.frames() {
            let (start, length) = self.table.place(frame);
            if frame.is_zeros() {
                append_zeros(length, writer, progress)?;
                continue;
            }
            content.resize(length, 0);
            let has = found.has(frame);
            if has && self.put_together(frame, &found, running, writer, &mut content) {
                progress.reused(length as u64);
            } else {
                if has {
                    log::warn!(
                        "what was found of byte {start} of the image is not there any more: it is fetched"
                    );
                }
                fetch.read(frame, &mut compressed)?;
                decoder.decode(&compressed, &mut content)?;
                if frame_digest(&content) != frame.digest {
                    return Err(ArtifactError::FrameMismatch { at: frame.at }.into());
                }
                fetched += length;
            }
            writer.append(&content, progress)?;
            if fetched >= DURABLE_EVERY_BYTES {
                writer.make_durable()?;
                fetched = 0;
            }
        }
        Ok(())
    }

    /// Looks for the blocks of the image: in the running slot, and at their places in the slot that is written.
    fn find(&self, running: &mut dyn ReadAt, writer: &mut SlotWriter<'_>) -> Found {
        let mut found = Found::nothing(&self.table);
        let length = running.len();
        found.look_anywhere(&self.table, length, &mut |offset, part| {
            let read = running.read_at(offset, part);
            let failed =
                |error: &io::Error| log::warn!("the running slot cannot be read at byte {offset}: {error}");
            read.inspect_err(failed).is_ok()
        });
        found.look_in_place(&self.table, &mut |offset, part| writer.read_ahead(offset, part));
        found
    }

    /// Makes the content of `frame` of what was found. `false` where that does not have its digest.
    fn put_together(
        &self,
        frame: &Frame,
        found: &Found,
        running: &mut dyn ReadAt,
        writer: &mut SlotWriter<'_>,
        content: &mut [u8],
    ) -> bool {
        let size = self.table.block_bytes();
        let (start, _) = self.table.place(frame);
        let places = found.of(frame);
        let mut first = 0;
        while let Some(place) = places.clone().nth(first) {
            // Blocks that lie in a row are read at once.
            let row = places.clone().skip(first).zip(0..);
            let count = row.take_while(|(next, n)| *next == place.after(*n)).count().max(1);
            let range = first * size..((first + count) * size).min(content.len());
            let Some(part) = content.get_mut(range) else { return false };
            let read = match place {
                Place::Nowhere => false,
                Place::Zeros => {
                    part.fill(0);
                    true
                }
                Place::InPlace => writer.read_ahead(start + (first * size) as u64, part),
                Place::Block(number) => running.read_at(u64::from(number) * size as u64, part).is_ok(),
            };
            if !read {
                return false;
            }
            first += count;
        }
        frame_digest(content) == frame.digest
    }
}

/// The frames that are fetched, in order.
struct Fetch<'f> {
    member: &'f Member,
    runs: &'f [Range<u64>],
    /// The answer that is read, where it stands, and where it ends.
    open: Option<(Box<dyn Read + Send>, Range<u64>)>,
}

impl Fetch<'_> {
    fn read(&mut self, frame: &Frame, compressed: &mut Vec<u8>) -> Result<(), InstallError> {
        compressed.resize(frame.compressed_bytes as usize, 0);
        let read = self.reader(frame).and_then(|reader| reader.read_exact(compressed));
        read.map_err(|error| {
            self.open = None;
            InstallError::Artifact(ArtifactError::from_io(error))
        })
    }

    /// A reader that stands at `frame`.
    fn reader(&mut self, frame: &Frame) -> io::Result<&mut dyn Read> {
        let stands = self.open.take();
        let (mut reader, mut range) = match stands {
            Some((reader, range)) if range.start <= frame.at && frame.end() <= range.end => (reader, range),
            Some(_) | None => {
                let run = self.runs.iter().find(|run| run.start <= frame.at && frame.end() <= run.end);
                // What is in no run is asked for by itself.
                let range = frame.at..run.map_or(frame.end(), |run| run.end);
                (self.member.open_at(range.start, range.end)?, range)
            }
        };
        // The gap in front of it was not worth a request.
        let gap = frame.at - range.start;
        if io::copy(&mut (&mut reader).take(gap), &mut io::sink())? != gap {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.start = frame.end();
        Ok(&mut *self.open.insert((reader, range)).0)
    }
}

fn append_zeros(
    mut length: usize,
    writer: &mut SlotWriter<'_>,
    progress: &mut dyn Progress,
) -> Result<(), InstallError> {
    let zeros = vec![0; length.min(ZEROS_BYTES)];
    while length > 0 {
        let part = zeros.get(..length).unwrap_or(&zeros);
        writer.append(part, progress)?;
        length -= part.len();
    }
    Ok(())
}
