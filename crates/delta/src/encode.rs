//! Writing: the segments of one group to bytes. Who brings the segments has found the differences.

use std::fmt;
use std::io;

use artifact::Sha256;

use crate::error::SegmentProblem;
use crate::frame::Encoder;
use crate::head::{Compression, Group, Needs, Shape};
use crate::plan::{Coding, Control, DifferenceRun, Extent, Plan, Run, short};
use crate::{BLOCK_BYTES, GROUP_BYTES_MAX, PLAN_BYTES_MAX, SEGMENT_BYTES_MAX, WINDOW_BYTES_MAX};

/// Some blocks of the new image, and what they are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its blocks, in order.
    pub runs: Vec<Run>,
    /// What of the old image the steps take from, in the order in which it lies in the window.
    pub extents: Vec<Extent>,
    /// Of the window; not looked at where there are no extents.
    pub window_sha256: Sha256,
    /// Of the new image from its very start to the end of this segment.
    pub target_sha256: Sha256,
    /// The steps that make the bytes of all coded runs, one run after the other.
    pub control: Vec<Control>,
    /// What is added to the bytes of the window, as many as the steps take.
    pub difference: Vec<u8>,
    /// What the steps insert.
    pub new_bytes: Vec<u8>,
}

/// Whether runs of zeros in the difference are coded apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroRuns {
    /// The difference is one stream.
    Inside,
    /// Runs of at least this many zeros leave it.
    Apart {
        /// At least 1.
        shortest: u32,
    },
}

/// How a group is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coder {
    /// In which way.
    pub compression: Compression,
    /// How hard, in the compression's own scale: zstd 1 to 22, xz 0 to 9.
    pub level: u32,
    /// Window or dictionary, as a power of two.
    pub window_log: u8,
    /// What happens to zeros in the difference.
    pub zero_runs: ZeroRuns,
    /// A stream of at least this many bytes begins a block of its own where the compression has some; `None` for never.
    pub block_of_its_own_bytes: Option<usize>,
}

/// Why a group cannot be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum EncodeError {
    /// A segment breaks a rule.
    Segment(SegmentProblem),
    /// The group would be too long.
    GroupTooLong,
    /// The compression failed.
    Compress(io::Error),
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::Segment(problem) => write!(f, "a segment is wrong: {problem}"),
            EncodeError::GroupTooLong => f.write_str("a group has too many bytes, or none"),
            EncodeError::Compress(error) => write!(f, "cannot compress a group: {error}"),
        }
    }
}

impl std::error::Error for EncodeError {}

impl From<SegmentProblem> for EncodeError {
    fn from(problem: SegmentProblem) -> EncodeError {
        EncodeError::Segment(problem)
    }
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> EncodeError {
        EncodeError::Compress(error)
    }
}

/// Writes the segments of one group. Groups need nothing of each other, so they may be written at the same time.
pub struct GroupEncoder {
    out: Encoder,
    coder: Coder,
    shape: Shape,
    first_block: u64,
    blocks: u64,
    segments: u32,
    needs: Needs,
    sha256: Option<Sha256>,
}

impl GroupEncoder {
    /// A group that begins at block `first_block` of the new image.
    ///
    /// # Errors
    /// [`EncodeError::Compress`] when the compression does not take what the coder says.
    pub fn new(shape: Shape, first_block: u64, coder: Coder) -> Result<GroupEncoder, EncodeError> {
        let out = Encoder::new(coder.compression, coder.level, coder.window_log)?;
        let needs = Needs { decoder_window_log: coder.window_log, ..Needs::default() };
        Ok(GroupEncoder { out, coder, shape, first_block, blocks: 0, segments: 0, needs, sha256: None })
    }

    /// Adds the next segment.
    ///
    /// # Errors
    /// What a reader would refuse.
    pub fn push(&mut self, segment: &Segment) -> Result<(), EncodeError> {
        let first = self.first_block + self.blocks;
        let (coding, stored) = self.code(&segment.difference);
        let mut plan = Plan {
            runs: segment.runs.clone(),
            extents: segment.extents.clone(),
            window: short(&segment.window_sha256),
            target: short(&segment.target_sha256),
            control: segment.control.clone(),
            coding,
        };
        let most = Needs {
            segment_bytes: SEGMENT_BYTES_MAX,
            window_bytes: WINDOW_BYTES_MAX,
            plan_bytes: PLAN_BYTES_MAX,
            ..self.needs
        };
        let end = self.first_block + GROUP_BYTES_MAX / BLOCK_BYTES;
        let sums = plan.check(first, end, &self.shape, &most)?;
        for (need, have) in [(sums.difference, &segment.difference), (sums.new_bytes, &segment.new_bytes)] {
            if need as usize != have.len() {
                let (need, have) = (need.into(), have.len() as u64);
                return Err(SegmentProblem::StreamDisagrees { need, have }.into());
            }
        }
        let mut bytes = plan.encode(first);
        let mut difference: &[u8] = &stored;
        if bytes.len() > PLAN_BYTES_MAX as usize && plan.coding != Coding::Plain {
            plan.coding = Coding::Plain;
            bytes = plan.encode(first);
            difference = &segment.difference;
        } else if plan.coding == Coding::Plain {
            difference = &segment.difference;
        }
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= PLAN_BYTES_MAX);
        let length = length.ok_or(SegmentProblem::PlanTooLong { bytes: bytes.len() as u64 })?;
        self.out.write(&length.to_le_bytes())?;
        self.out.write(&bytes)?;
        for stream in [difference, &segment.new_bytes] {
            let own = self.coder.block_of_its_own_bytes.is_some_and(|least| stream.len() >= least);
            if own {
                self.out.end_block()?;
            }
            self.out.write(stream)?;
            if own {
                self.out.end_block()?;
            }
        }
        let needs = Needs {
            segment_bytes: sums.bytes,
            window_bytes: sums.window,
            plan_bytes: length,
            decoder_window_log: 0,
        };
        self.needs = self.needs.max(needs);
        self.blocks += sums.blocks;
        self.segments += 1;
        self.sha256 = Some(segment.target_sha256);
        Ok(())
    }

    /// Codes zeros in the difference this way from the next segment on: lists of many runs make a long plan.
    pub fn set_zero_runs(&mut self, zero_runs: ZeroRuns) {
        self.coder.zero_runs = zero_runs;
    }

    /// Bytes of the file so far. More may be on their way inside of the compression.
    pub fn stored_bytes(&self) -> u64 {
        self.out.stored_bytes()
    }

    /// Blocks of the new image so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The group's bytes, what the head says about it, and what applying it needs.
    ///
    /// # Errors
    /// [`EncodeError::GroupTooLong`] where nothing was added.
    pub fn finish(self) -> Result<(Vec<u8>, Group, Needs), EncodeError> {
        let sha256 = self.sha256.ok_or(EncodeError::GroupTooLong)?;
        let bytes = self.out.finish()?;
        let stored_bytes = bytes.len() as u64;
        Ok((bytes, Group { segments: self.segments, blocks: self.blocks, stored_bytes, sha256 }, self.needs))
    }

    /// How `difference` is coded, and the bytes that are left of it.
    fn code(&self, difference: &[u8]) -> (Coding, Vec<u8>) {
        let shortest = match self.coder.zero_runs {
            ZeroRuns::Inside => return (Coding::Plain, Vec::new()),
            ZeroRuns::Apart { shortest } => shortest.max(1) as usize,
        };
        let runs = runs_between_zeros(difference, shortest);
        let mut sorted = runs.clone();
        sorted.sort_unstable();
        let mut stored = Vec::new();
        for run in sorted {
            let at = run.at as usize;
            stored.extend_from_slice(difference.get(at..at + run.bytes as usize).unwrap_or_default());
        }
        (Coding::ZeroRunsApart(runs), stored)
    }
}

/// Everything but runs of at least `shortest` zeros, and of all zeros at the end.
fn runs_between_zeros(bytes: &[u8], shortest: usize) -> Vec<DifferenceRun> {
    let mut runs: Vec<DifferenceRun> = Vec::new();
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte != 0)) {
        let start = at + next;
        let length = bytes.get(start..).and_then(|rest| rest.iter().position(|byte| *byte == 0));
        let end = length.map_or(bytes.len(), |length| start + length);
        match runs.last_mut() {
            Some(last) if next < shortest => last.bytes = (end as u32) - last.at,
            Some(_) | None => runs.push(DifferenceRun { bytes: (end - start) as u32, at: start as u32 }),
        }
        at = end;
    }
    runs
}
