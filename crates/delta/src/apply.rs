//! Applying: the new image, a segment at a time, each proved before it is given out.

use std::io::{self, BufRead};

use artifact::Sha256;
use sha2::Digest;

use crate::error::{DeltaError, SegmentProblem};
use crate::frame::{self, Frame};
use crate::head::{Group, Head, Shape};
use crate::plan::{Coding, Control, DifferenceRun, Plan, Run, Sums, bytes_of, short};
use crate::{BLOCK_BYTES, MEMORY_BYTES_MAX};

/// The old image.
pub trait Source {
    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// The next part of the new image.
#[derive(Debug)]
pub struct Applied<'a> {
    /// Its bytes, which have their digest.
    pub bytes: &'a [u8],
    /// How many of them come from the old image, as they are or with a difference: what was not transferred.
    pub reused_bytes: u64,
    /// Whether a group ends with it: then [`Applier::at_group`] can begin behind it.
    pub ends_group: bool,
}

/// The digest of the part of the new image that is already there.
#[derive(Debug, Clone, Default)]
pub struct Prefix(sha2::Sha256);

impl Prefix {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn digest(&self) -> Sha256 {
        Sha256::from(<[u8; 32]>::from(self.0.clone().finalize()))
    }
}

/// Makes the new image of the old one and of the file.
pub struct Applier {
    head: Head,
    /// Of all that was given out.
    prefix: Prefix,
    group: usize,
    inside: Option<Inside>,
    /// Blocks of the new image that are done.
    block: u64,
    target: Vec<u8>,
    window: Vec<u8>,
    plan: Vec<u8>,
}

/// A group that was begun.
struct Inside {
    frame: Frame,
    segments_left: u32,
    end: u64,
}

impl Applier {
    /// An applier that begins at the start of the new image. The input is at the first group then.
    ///
    /// # Errors
    /// [`DeltaError::TooLarge`] where it needs more than [`MEMORY_BYTES_MAX`].
    pub fn new(head: Head) -> Result<Applier, DeltaError> {
        Applier::at_group(head, 0, Prefix::default())
    }

    /// An applier that begins at `group`, whose input is at that group then. `prefix` has taken in all of the new image
    /// that lies before.
    ///
    /// # Errors
    /// [`DeltaError::PrefixDiffers`] when that is not what has to be there; as for [`Applier::new`].
    pub fn at_group(head: Head, group: usize, prefix: Prefix) -> Result<Applier, DeltaError> {
        let need = head.memory_bytes();
        if need > MEMORY_BYTES_MAX {
            return Err(DeltaError::TooLarge { what: "bytes of memory", need, limit: MEMORY_BYTES_MAX });
        }
        let bytes = head.target_offset(group);
        let before = group.checked_sub(1).and_then(|before| head.groups.get(before));
        if group > 0 && before.map(|before| before.sha256) != Some(prefix.digest()) {
            return Err(DeltaError::PrefixDiffers { bytes });
        }
        Ok(Applier {
            block: bytes.div_ceil(BLOCK_BYTES),
            head,
            prefix,
            group,
            inside: None,
            target: Vec::new(),
            window: Vec::new(),
            plan: Vec::new(),
        })
    }

    /// What the file says about itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The group that comes next, or is being applied.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Of everything from the start of the new image that was given out, here or before this applier began.
    pub fn digest(&self) -> Sha256 {
        self.prefix.digest()
    }

    /// The next segment; `None` once the whole image was given out and the file has ended.
    ///
    /// # Errors
    /// Whatever is wrong with the file or with the old image. There is nothing more to be had then.
    pub fn next(
        &mut self,
        input: &mut dyn BufRead,
        source: &mut dyn Source,
    ) -> Result<Option<Applied<'_>>, DeltaError> {
        let Some(mut inside) = self.begin_group()? else {
            return match frame::fill(input)?.is_empty() {
                true => Ok(None),
                false => Err(DeltaError::TrailingBytes),
            };
        };
        let at = self.block * BLOCK_BYTES;
        let (mut plan, sums) = self.read_plan(&mut inside, input, at)?;
        self.decode(&mut plan.coding, &sums, &mut inside.frame, input)?;
        self.add_window(&plan, &sums, at, source)?;
        insert(&plan.control, &sums, &mut self.target, &mut inside.frame, input)?;
        let reused_bytes = self.place_runs(&plan, &sums, source)? + u64::from(sums.difference);
        self.prefix.update(self.target.get(..sums.bytes as usize).unwrap_or_default());
        let digest = self.prefix.digest();
        if short(&digest) != plan.target {
            return Err(DeltaError::SegmentDiffers { at });
        }
        self.block += sums.blocks;
        inside.segments_left -= 1;
        let ends_group = inside.segments_left == 0;
        if ends_group {
            self.end_group(&mut inside, input, &digest, at)?;
        } else {
            self.inside = Some(inside);
        }
        let bytes = self.target.get(..sums.bytes as usize).unwrap_or_default();
        Ok(Some(Applied { bytes, reused_bytes, ends_group }))
    }

    /// The group that is being applied, or the next one; `None` behind the last. It is taken out, so that after an error
    /// nothing goes on.
    fn begin_group(&mut self) -> Result<Option<Inside>, DeltaError> {
        if let Some(inside) = self.inside.take() {
            return Ok(Some(inside));
        }
        let Some(&Group { segments, blocks, stored_bytes, .. }) = self.head.groups.get(self.group) else {
            return Ok(None);
        };
        let log = self.head.needs.decoder_window_log;
        let frame = Frame::new(self.head.compression, log, self.group, stored_bytes)?;
        Ok(Some(Inside { frame, segments_left: segments, end: self.block + blocks }))
    }

    fn end_group(
        &mut self,
        inside: &mut Inside,
        input: &mut dyn BufRead,
        digest: &Sha256,
        at: u64,
    ) -> Result<(), DeltaError> {
        if self.block != inside.end {
            let (said, found) = (inside.end, self.block);
            return Err(DeltaError::Sum { what: "blocks up to the end of a group", said, found });
        }
        if self.head.groups.get(self.group).map(|group| group.sha256) != Some(*digest) {
            return Err(DeltaError::SegmentDiffers { at });
        }
        inside.frame.finish(input)?;
        self.group += 1;
        Ok(())
    }

    fn read_plan(
        &mut self,
        inside: &mut Inside,
        input: &mut dyn BufRead,
        at: u64,
    ) -> Result<(Plan, Sums), DeltaError> {
        let wrong = |problem| DeltaError::Segment { at, problem };
        let mut length = [0; 4];
        inside.frame.read_exact(input, &mut length)?;
        let length = u32::from_le_bytes(length);
        if length > self.head.needs.plan_bytes {
            return Err(wrong(SegmentProblem::PlanTooLong { bytes: length.into() }));
        }
        let needs = &self.head.needs;
        resize(&mut self.plan, needs.plan_bytes, length);
        inside.frame.read_exact(input, &mut self.plan)?;
        let shape = Shape { source_bytes: self.head.source.bytes, target_bytes: self.head.target.bytes };
        Plan::parse(&self.plan, self.block, inside.end, &shape, needs).map_err(wrong)
    }

    /// Puts the difference at the front of the buffer, without the new bytes that go between.
    fn decode(
        &mut self,
        coding: &mut Coding,
        sums: &Sums,
        frame: &mut Frame,
        input: &mut dyn BufRead,
    ) -> Result<(), DeltaError> {
        resize(&mut self.target, self.head.needs.segment_bytes, sums.bytes);
        let difference = self.target.get_mut(..sums.difference as usize).unwrap_or_default();
        match coding {
            Coding::Plain => frame.read_exact(input, difference),
            Coding::ZeroRunsApart(runs) => {
                difference.fill(0);
                // As they lie in the stream. Their places are not needed in order any more.
                runs.sort_unstable();
                for &mut DifferenceRun { bytes, at } in runs {
                    let (at, bytes) = (at as usize, bytes as usize);
                    frame.read_exact(input, difference.get_mut(at..at + bytes).unwrap_or_default())?;
                }
                Ok(())
            }
        }
    }

    /// Reads the window, compares its digest, and adds it to the difference.
    fn add_window(
        &mut self,
        plan: &Plan,
        sums: &Sums,
        at: u64,
        source: &mut dyn Source,
    ) -> Result<(), DeltaError> {
        resize(&mut self.window, self.head.needs.window_bytes, sums.window);
        let mut filled = 0;
        for extent in &plan.extents {
            let bytes = bytes_of(extent.first_block, extent.blocks.into(), self.head.source.bytes);
            // Not more than the window, as the plan was checked.
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
            let part = self.window.get_mut(filled..filled + bytes).unwrap_or_default();
            let offset = extent.first_block * BLOCK_BYTES;
            read_source(source, offset, part)?;
            filled += bytes;
        }
        if !plan.extents.is_empty() && short(&Sha256::of(&self.window)) != plan.window {
            return Err(DeltaError::SourceDiffers { at });
        }
        let (mut done, mut place) = (0usize, 0usize);
        for step in &plan.control {
            let add = step.add as usize;
            let to = self.target.get_mut(done..done + add).unwrap_or_default();
            let from = self.window.get(place..place + add).unwrap_or_default();
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.wrapping_add(*from);
            }
            done += add;
            // Inside of the window, as the plan was checked.
            place = (place + add).saturating_add_signed(step.seek as isize);
        }
        Ok(())
    }

    /// Moves what is coded to where it belongs, from the back, and puts zeros and copies between. Gives the bytes that were
    /// copied.
    fn place_runs(&mut self, plan: &Plan, sums: &Sums, source: &mut dyn Source) -> Result<u64, DeltaError> {
        let (mut end, mut coded, mut copied) = (sums.bytes as usize, sums.coded as usize, 0);
        let mut first = self.block + sums.blocks;
        for run in plan.runs.iter().rev() {
            first -= u64::from(run.blocks());
            let bytes = bytes_of(first, run.blocks().into(), self.head.target.bytes).unwrap_or(0);
            let start = end - usize::try_from(bytes).unwrap_or(0).min(end);
            match *run {
                Run::Coded { .. } => {
                    let from = coded - (end - start).min(coded);
                    if from != start {
                        self.target.copy_within(from..coded, start);
                    }
                    coded = from;
                }
                Run::Zero { .. } => self.target.get_mut(start..end).unwrap_or_default().fill(0),
                Run::Copy { first_block, .. } => {
                    let part = self.target.get_mut(start..end).unwrap_or_default();
                    read_source(source, first_block * BLOCK_BYTES, part)?;
                    copied += bytes;
                }
            }
            end = start;
        }
        Ok(copied)
    }
}

/// Moves what the steps take to its place among the new bytes, from the back, and reads those into the gaps.
fn insert(
    control: &[Control],
    sums: &Sums,
    target: &mut [u8],
    frame: &mut Frame,
    input: &mut dyn BufRead,
) -> Result<(), DeltaError> {
    let (mut from, mut to) = (sums.difference as usize, sums.coded as usize);
    for step in control.iter().rev() {
        let add = step.add as usize;
        // Neither goes below zero, as the plan was checked.
        to = to.saturating_sub(step.insert as usize + add);
        let start = from.saturating_sub(add);
        if start != to {
            target.copy_within(start..from, to);
        }
        from = start;
    }
    let mut at = 0;
    for step in control {
        at += step.add as usize;
        let end = at + step.insert as usize;
        frame.read_exact(input, target.get_mut(at..end).unwrap_or_default())?;
        at = end;
    }
    Ok(())
}

/// Sets the length, in a buffer that is never larger than was promised.
fn resize(buffer: &mut Vec<u8>, most: u32, bytes: u32) {
    if buffer.capacity() == 0 {
        buffer.reserve_exact(most as usize);
    }
    buffer.resize(bytes as usize, 0);
}

fn read_source(source: &mut dyn Source, offset: u64, buffer: &mut [u8]) -> Result<(), DeltaError> {
    source.read_at(offset, buffer).map_err(|source| DeltaError::Source { offset, source })
}
