//! Reads the new image from its start to its end and says of every block whether it is zero, in the old image, or new. The groups
//! that this comes to are drafts: what is new in them is coded later, by whoever has time.

use std::io;

use sha2::{Digest, Sha256};

use crate::BLOCK;
use crate::image::Image;
use crate::survey::{Survey, is_zero, sum};
use delta::Run;

/// A segment whose coded runs are to be made.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Its first block of the new image.
    pub(crate) first_block: u64,
    pub(crate) runs: Vec<Run>,
    /// Of the new image from its start to the end of this segment.
    pub(crate) target_sha256: [u8; 32],
}

impl Draft {
    /// Its coded blocks.
    pub(crate) fn coded(&self) -> Vec<u64> {
        let mut block = self.first_block;
        let mut coded = Vec::new();
        for run in &self.runs {
            let end = block + u64::from(run.blocks());
            if matches!(run, Run::Coded { .. }) {
                coded.extend(block..end);
            }
            block = end;
        }
        coded
    }
}

/// Segments that are compressed together.
#[derive(Debug)]
pub(crate) struct GroupDraft {
    pub(crate) index: usize,
    pub(crate) segments: Vec<Draft>,
}

/// Where groups and segments end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Blocks of the new image in a segment.
    pub(crate) segment_blocks: u64,
    /// Blocks of the new image in a group.
    pub(crate) group_blocks: u64,
    /// Fewer blocks than this between coded ones are coded with them, if they are no zeros: a step costs more.
    pub(crate) shortest_copy: u32,
}

/// The new image on its way through.
pub(crate) struct Drafts<'a> {
    new: &'a Image,
    old: &'a Image,
    survey: &'a Survey,
    bounds: Bounds,
    next_block: u64,
    next_group: usize,
    digest: Sha256,
    /// Where the last copy would go on.
    copy_on: Option<u64>,
    /// Blocks that the old image does not have in their place.
    pub(crate) changed_blocks: u64,
    pub(crate) counts: Counts,
}

/// What the new image is made of, in blocks.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) zero: u64,
    pub(crate) copied: u64,
    pub(crate) coded: u64,
}

impl<'a> Drafts<'a> {
    pub(crate) fn new(old: &'a Image, new: &'a Image, survey: &'a Survey, bounds: Bounds) -> Drafts<'a> {
        Drafts {
            new,
            old,
            survey,
            bounds,
            next_block: 0,
            next_group: 0,
            digest: Sha256::new(),
            copy_on: None,
            changed_blocks: 0,
            counts: Counts::default(),
        }
    }

    /// The digest of the new image, when all of it was read.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// The next group, `None` at the end.
    pub(crate) fn next_group(&mut self) -> io::Result<Option<GroupDraft>> {
        let blocks = self.new.bytes().div_ceil(BLOCK as u64);
        let end = (self.next_block + self.bounds.group_blocks).min(blocks);
        let mut segments = Vec::new();
        while self.next_block < end {
            let draft = self.segment((self.next_block + self.bounds.segment_blocks).min(end))?;
            for run in &draft.runs {
                let blocks = u64::from(run.blocks());
                match run {
                    Run::Zero { .. } => self.counts.zero += blocks,
                    Run::Copy { .. } => self.counts.copied += blocks,
                    Run::Coded { .. } => self.counts.coded += blocks,
                }
            }
            segments.push(draft);
        }
        if segments.is_empty() {
            return Ok(None);
        }
        let index = self.next_group;
        self.next_group += 1;
        Ok(Some(GroupDraft { index, segments }))
    }

    fn segment(&mut self, end: u64) -> io::Result<Draft> {
        let first_block = self.next_block;
        let start = first_block * BLOCK as u64;
        let bytes = (end * BLOCK as u64).min(self.new.bytes()) - start;
        let mut data = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.new.read_at(start, &mut data)?;
        let mut runs: Vec<Run> = Vec::new();
        let mut old_block = vec![0; BLOCK];
        for (number, block) in (first_block..).zip(data.chunks(BLOCK)) {
            let run = if is_zero(block) {
                Run::Zero { blocks: 1 }
            } else {
                match self.copy_of(number, block, &mut old_block)? {
                    Some(first_block) => Run::Copy { first_block, blocks: 1 },
                    None => Run::Coded { blocks: 1 },
                }
            };
            let in_place = match run {
                Run::Copy { first_block, .. } => first_block == number,
                Run::Zero { .. } => {
                    let old = old_block.get_mut(..block.len()).unwrap_or_default();
                    self.old.read_padded(number * BLOCK as u64, old)?;
                    is_zero(old) && (number + 1) * BLOCK as u64 <= self.old.bytes()
                }
                Run::Coded { .. } => false,
            };
            self.changed_blocks += u64::from(!in_place);
            join(&mut runs, run);
        }
        self.digest.update(&data);
        self.next_block = end;
        absorb(&mut runs, self.bounds.shortest_copy);
        let target_sha256 = self.digest.clone().finalize().into();
        Ok(Draft { first_block, runs, target_sha256 })
    }

    /// Where the old image has this block. A copy that goes on is preferred: it costs nothing.
    fn copy_of(&mut self, number: u64, block: &[u8], old_block: &mut [u8]) -> io::Result<Option<u64>> {
        if block.len() != BLOCK {
            return Ok(None);
        }
        let sum = sum(block);
        let near = [self.copy_on, Some(number)].into_iter().flatten().filter(|at| self.survey.has(*at, sum));
        let far = self.survey.blocks_with(sum).map(u64::from);
        for candidate in near.chain(far).take(4) {
            let at = candidate * BLOCK as u64;
            if at + BLOCK as u64 > self.old.bytes() {
                continue;
            }
            self.old.read_at(at, old_block)?;
            if old_block == block {
                self.copy_on = Some(candidate + 1);
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}

/// Adds a block to the runs.
fn join(runs: &mut Vec<Run>, run: Run) {
    match (runs.last_mut(), run) {
        (Some(Run::Zero { blocks }), Run::Zero { blocks: more })
        | (Some(Run::Coded { blocks }), Run::Coded { blocks: more }) => *blocks += more,
        (Some(Run::Copy { first_block, blocks }), Run::Copy { first_block: next, blocks: more })
            if *first_block + u64::from(*blocks) == next =>
        {
            *blocks += more;
        }
        (Some(Run::Zero { .. } | Run::Copy { .. } | Run::Coded { .. }) | None, run) => runs.push(run),
    }
}

/// Codes short copies between coded runs.
fn absorb(runs: &mut Vec<Run>, shortest_copy: u32) {
    let all = std::mem::take(runs);
    for (index, run) in all.iter().enumerate() {
        let coded = |other: Option<&Run>| matches!(other, Some(Run::Coded { .. }));
        let between =
            coded(index.checked_sub(1).and_then(|before| all.get(before))) && coded(all.get(index + 1));
        let run = match *run {
            Run::Copy { blocks, .. } if between && blocks < shortest_copy => Run::Coded { blocks },
            run @ (Run::Zero { .. } | Run::Copy { .. } | Run::Coded { .. }) => run,
        };
        join(runs, run);
    }
}
