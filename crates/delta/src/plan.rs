//! The plan of a segment: which blocks it makes of what, and the rules that hold for it. Both directions.

use artifact::Sha256;

use crate::error::SegmentProblem;
use crate::head::{Needs, Shape};
use crate::varint::{self, Bytes};
use crate::{BLOCK_BYTES, SEGMENT_BYTES_MAX, WINDOW_BYTES_MAX};

/// Most bytes of a plan.
pub const PLAN_BYTES_MAX: u32 = 128 * 1024;

/// Bytes of a digest in a plan: the first half of SHA-256. Who has signed the file could only cheat himself with two
/// contents of one digest; nobody else has a second content for one that is given.
pub(crate) const SHORT_DIGEST_BYTES: usize = 16;

/// The first half of a digest.
pub(crate) type ShortDigest = [u8; SHORT_DIGEST_BYTES];

/// The first half of `digest`.
pub(crate) fn short(digest: &Sha256) -> ShortDigest {
    let mut short = [0; SHORT_DIGEST_BYTES];
    for (to, from) in short.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    short
}

/// Blocks of the new image that follow each other and are made in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Zeros.
    Zero {
        /// How many.
        blocks: u32,
    },
    /// The same as blocks of the old image.
    Copy {
        /// The first of those.
        first_block: u64,
        /// How many.
        blocks: u32,
    },
    /// The next bytes that the segment's steps make.
    Coded {
        /// How many.
        blocks: u32,
    },
}

impl Run {
    /// How many blocks.
    pub fn blocks(&self) -> u32 {
        match *self {
            Run::Zero { blocks } | Run::Copy { blocks, .. } | Run::Coded { blocks } => blocks,
        }
    }
}

/// Blocks of the old image that are part of a segment's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub first_block: u64,
    /// How many.
    pub blocks: u32,
}

/// A step of `bsdiff`: `add` bytes are those of the window with the difference added to them, then `insert` new bytes
/// follow, and the place in the window moves by `seek`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Bytes of the window and of the difference.
    pub add: u32,
    /// New bytes.
    pub insert: u32,
    /// How far the window is moved on.
    pub seek: i32,
}

/// How the difference is coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Byte by byte.
    Plain,
    /// Runs of bytes that are not zero, each with the zeros in front of it; their bytes by length, short ones first.
    ZeroRunsApart(Vec<DifferenceRun>),
}

/// Bytes of the difference, by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DifferenceRun {
    // First, so that sorting is by length.
    pub(crate) bytes: u32,
    pub(crate) at: u32,
}

/// Everything of a segment but its two streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) runs: Vec<Run>,
    pub(crate) extents: Vec<Extent>,
    /// Of the window.
    pub(crate) window: ShortDigest,
    /// Of the new image from its start to the end of this segment.
    pub(crate) target: ShortDigest,
    pub(crate) control: Vec<Control>,
    pub(crate) coding: Coding,
}

/// What a plan comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Blocks of the new image.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u32,
    /// Of those, bytes that the steps make.
    pub(crate) coded: u32,
    /// Bytes of the window.
    pub(crate) window: u32,
    /// Bytes of the difference, decoded.
    pub(crate) difference: u32,
    /// Bytes of it in the stream.
    pub(crate) difference_stored: u32,
    /// New bytes.
    pub(crate) new_bytes: u32,
}

/// Bytes of `blocks` blocks from `first` on, in an image of `image_bytes` bytes. `None` where they reach past its end.
pub(crate) fn bytes_of(first: u64, blocks: u64, image_bytes: u64) -> Option<u64> {
    let end = first.checked_add(blocks).filter(|end| *end <= image_bytes.div_ceil(BLOCK_BYTES))?;
    let end = end.checked_mul(BLOCK_BYTES)?.min(image_bytes);
    end.checked_sub(first.checked_mul(BLOCK_BYTES)?)
}

const RUNS_MAX: usize = (SEGMENT_BYTES_MAX as u64 / BLOCK_BYTES) as usize;
const EXTENTS_MAX: usize = (WINDOW_BYTES_MAX as u64 / BLOCK_BYTES) as usize;

const RUN_ZERO: u64 = 0;
const RUN_COPY: u64 = 1;
const RUN_CODED: u64 = 2;
const CODING_PLAIN: u8 = 0;
const CODING_ZERO_RUNS: u8 = 1;

impl Plan {
    /// Takes a plan apart, and refuses what breaks a rule. The segment begins at block `first` of the new image and may
    /// reach to block `end`.
    pub(crate) fn parse(
        bytes: &[u8],
        first: u64,
        end: u64,
        shape: &Shape,
        needs: &Needs,
    ) -> Result<(Plan, Sums), SegmentProblem> {
        let mut fields = Bytes(bytes);
        let plan = Plan::fields(&mut fields, first).ok_or(SegmentProblem::Malformed)?;
        let (mut plan, coding) = plan;
        plan.coding = match coding {
            CODING_PLAIN => Coding::Plain,
            CODING_ZERO_RUNS => Coding::ZeroRunsApart(difference_runs(&mut fields)?),
            found => return Err(SegmentProblem::UnknownCoding { found }),
        };
        if !fields.0.is_empty() {
            return Err(SegmentProblem::Malformed);
        }
        let sums = plan.check(first, end, shape, needs)?;
        Ok((plan, sums))
    }

    /// Everything up to the number of the coding.
    fn fields(fields: &mut Bytes<'_>, first: u64) -> Option<(Plan, u8)> {
        // None is empty, so there are no more than blocks; only these may be larger here than in the file.
        let count = fields.count(1).filter(|count| *count <= RUNS_MAX)?;
        let mut runs = Vec::with_capacity(count);
        // Copies mostly lie as far from where they came from as the one before.
        let (mut block, mut shift) = (first, 0i64);
        for _ in 0..count {
            let number = fields.number()?;
            let blocks = u32::try_from(number >> 2).ok()?;
            runs.push(match number & 3 {
                RUN_ZERO => Run::Zero { blocks },
                RUN_COPY => {
                    shift = shift.checked_add(fields.signed()?)?;
                    Run::Copy { first_block: block.checked_add_signed(shift)?, blocks }
                }
                RUN_CODED => Run::Coded { blocks },
                _ => return None,
            });
            block = block.checked_add(blocks.into())?;
        }
        let count = fields.count(2).filter(|count| *count <= EXTENTS_MAX)?;
        let mut extents = Vec::with_capacity(count);
        let mut place = first;
        for _ in 0..count {
            let first_block = place.checked_add_signed(fields.signed()?)?;
            let blocks = fields.number32()?;
            extents.push(Extent { first_block, blocks });
            place = first_block.checked_add(blocks.into())?;
        }
        let window = match extents.is_empty() {
            true => ShortDigest::default(),
            false => fields.array()?,
        };
        let target = fields.array()?;
        let count = fields.count(3)?;
        let mut control = vec![Control { add: 0, insert: 0, seek: 0 }; count];
        for step in &mut control {
            step.add = fields.number32()?;
        }
        for step in &mut control {
            step.insert = fields.number32()?;
        }
        for step in &mut control {
            step.seek = fields.signed()?.try_into().ok()?;
        }
        let [coding] = fields.array()?;
        Some((Plan { runs, extents, window, target, control, coding: Coding::Plain }, coding))
    }

    /// The plan in the file. It was checked.
    pub(crate) fn encode(&self, first: u64) -> Vec<u8> {
        let mut out = Vec::new();
        varint::put(&mut out, self.runs.len() as u64);
        let (mut block, mut shift) = (first, 0i64);
        for run in &self.runs {
            let blocks = u64::from(run.blocks());
            match run {
                Run::Zero { .. } => varint::put(&mut out, blocks << 2 | RUN_ZERO),
                Run::Coded { .. } => varint::put(&mut out, blocks << 2 | RUN_CODED),
                Run::Copy { first_block, .. } => {
                    varint::put(&mut out, blocks << 2 | RUN_COPY);
                    let here = first_block.wrapping_sub(block) as i64;
                    varint::put_signed(&mut out, here.wrapping_sub(shift));
                    shift = here;
                }
            }
            block += blocks;
        }
        varint::put(&mut out, self.extents.len() as u64);
        let mut place = first;
        for extent in &self.extents {
            varint::put_signed(&mut out, extent.first_block.wrapping_sub(place) as i64);
            varint::put(&mut out, extent.blocks.into());
            place = extent.first_block + u64::from(extent.blocks);
        }
        if !self.extents.is_empty() {
            out.extend(self.window);
        }
        out.extend(self.target);
        varint::put(&mut out, self.control.len() as u64);
        for step in &self.control {
            varint::put(&mut out, step.add.into());
        }
        for step in &self.control {
            varint::put(&mut out, step.insert.into());
        }
        for step in &self.control {
            varint::put_signed(&mut out, step.seek.into());
        }
        match &self.coding {
            Coding::Plain => out.push(CODING_PLAIN),
            Coding::ZeroRunsApart(runs) => {
                out.push(CODING_ZERO_RUNS);
                varint::put(&mut out, runs.len() as u64);
                let mut end = 0;
                for run in runs {
                    varint::put(&mut out, (run.at - end).into());
                    end = run.at + run.bytes;
                }
                for run in runs {
                    varint::put(&mut out, run.bytes.into());
                }
            }
        }
        out
    }

    /// Every rule that a segment keeps, whoever made it.
    pub(crate) fn check(
        &self,
        first: u64,
        end: u64,
        shape: &Shape,
        needs: &Needs,
    ) -> Result<Sums, SegmentProblem> {
        let (blocks, coded) = self.check_runs(first, end, shape)?;
        let bytes = bytes_of(first, blocks, shape.target_bytes).ok_or(SegmentProblem::BeyondTarget)?;
        let limit = needs.segment_bytes.min(SEGMENT_BYTES_MAX);
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= limit);
        let bytes = bytes.ok_or(SegmentProblem::TooManyBlocks { blocks })?;
        let window = self.check_extents(shape, needs)?;
        if coded == 0 && !(self.extents.is_empty() && self.control.is_empty()) {
            return Err(SegmentProblem::NothingCoded);
        }
        let (difference, new_bytes) = self.check_control(coded, window)?;
        let difference_stored = self.check_coding(difference)?;
        Ok(Sums { blocks, bytes, coded, window, difference, difference_stored, new_bytes })
    }

    /// Blocks of all runs, and bytes of those that are coded.
    fn check_runs(&self, first: u64, end: u64, shape: &Shape) -> Result<(u64, u32), SegmentProblem> {
        let (mut blocks, mut coded) = (0u64, 0u64);
        for run in &self.runs {
            let here = u64::from(run.blocks());
            if here == 0 {
                return Err(SegmentProblem::EmptyRun);
            }
            let most = u64::from(SEGMENT_BYTES_MAX) / BLOCK_BYTES;
            if blocks + here > most {
                return Err(SegmentProblem::TooManyBlocks { blocks: blocks + here });
            }
            let at = first + blocks;
            if at + here > end {
                return Err(SegmentProblem::BeyondTarget);
            }
            let bytes = bytes_of(at, here, shape.target_bytes).ok_or(SegmentProblem::BeyondTarget)?;
            match *run {
                Run::Zero { .. } => {}
                Run::Coded { .. } => coded += bytes,
                Run::Copy { first_block, .. } => {
                    let from = first_block.checked_mul(BLOCK_BYTES).and_then(|from| from.checked_add(bytes));
                    if from.is_none_or(|end| end > shape.source_bytes) {
                        return Err(SegmentProblem::CopyOutside { first_block, blocks: here });
                    }
                }
            }
            blocks += here;
        }
        // At most a segment's bytes.
        let coded = u32::try_from(coded).map_err(|_| SegmentProblem::TooManyBlocks { blocks })?;
        match blocks {
            0 => Err(SegmentProblem::EmptyRun),
            _ => Ok((blocks, coded)),
        }
    }

    /// Bytes of the window.
    fn check_extents(&self, shape: &Shape, needs: &Needs) -> Result<u32, SegmentProblem> {
        let mut window = 0u64;
        for &Extent { first_block, blocks } in &self.extents {
            let blocks = u64::from(blocks);
            if blocks == 0 {
                return Err(SegmentProblem::EmptyExtent);
            }
            let bytes = bytes_of(first_block, blocks, shape.source_bytes);
            window += bytes.ok_or(SegmentProblem::ExtentOutside { first_block, blocks })?;
            if window > needs.window_bytes.into() {
                return Err(SegmentProblem::WindowTooLarge { bytes: window });
            }
        }
        // No more extents than blocks in the largest window.
        let mut sorted: Vec<(u64, u32)> =
            self.extents.iter().map(|extent| (extent.first_block, extent.blocks)).collect();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            if let [(first, blocks), (next, _)] = *pair {
                if first + u64::from(blocks) > next {
                    return Err(SegmentProblem::ExtentsOverlap { block: next });
                }
            }
        }
        u32::try_from(window).map_err(|_| SegmentProblem::WindowTooLarge { bytes: window })
    }

    /// Bytes of the difference and new bytes.
    fn check_control(&self, coded: u32, window: u32) -> Result<(u32, u32), SegmentProblem> {
        let (mut difference, mut new_bytes, mut place) = (0u64, 0u64, 0i64);
        for (step, &Control { add, insert, seek }) in self.control.iter().enumerate() {
            if add == 0 && insert == 0 {
                return Err(SegmentProblem::EmptyStep);
            }
            difference += u64::from(add);
            new_bytes += u64::from(insert);
            let end = place + i64::from(add);
            let next = end + i64::from(seek);
            let inside = 0..=i64::from(window);
            if !inside.contains(&end) || !inside.contains(&next) {
                return Err(SegmentProblem::StepOutside { step });
            }
            place = next;
        }
        let made = difference + new_bytes;
        match (u32::try_from(difference), u32::try_from(new_bytes)) {
            (Ok(difference), Ok(new_bytes)) if made == u64::from(coded) => Ok((difference, new_bytes)),
            _ => Err(SegmentProblem::StepsDisagree { need: coded.into(), made }),
        }
    }

    /// Bytes of the difference in its stream.
    fn check_coding(&self, difference: u32) -> Result<u32, SegmentProblem> {
        let runs = match &self.coding {
            Coding::Plain => return Ok(difference),
            Coding::ZeroRunsApart(runs) => runs,
        };
        let (mut end, mut stored) = (0u64, 0u64);
        for (number, run) in runs.iter().enumerate() {
            let at = u64::from(run.at);
            if run.bytes == 0 || at < end || (at == end && number > 0) {
                return Err(SegmentProblem::DifferenceRuns);
            }
            end = at + u64::from(run.bytes);
            stored += u64::from(run.bytes);
        }
        match u32::try_from(stored) {
            Ok(stored) if end <= u64::from(difference) => Ok(stored),
            _ => Err(SegmentProblem::DifferenceRuns),
        }
    }
}

/// The zeros in front of every run, then the lengths of the runs.
fn difference_runs(fields: &mut Bytes<'_>) -> Result<Vec<DifferenceRun>, SegmentProblem> {
    let malformed = SegmentProblem::Malformed;
    let count = fields.count(2).ok_or(malformed)?;
    let mut runs = vec![DifferenceRun { bytes: 0, at: 0 }; count];
    for run in &mut runs {
        run.at = fields.number32().ok_or(malformed)?;
    }
    let mut end = 0u32;
    for run in &mut runs {
        run.bytes = fields.number32().ok_or(malformed)?;
        run.at = end.checked_add(run.at).ok_or(SegmentProblem::DifferenceRuns)?;
        end = run.at.checked_add(run.bytes).ok_or(SegmentProblem::DifferenceRuns)?;
    }
    Ok(runs)
}
