//! The whole of it: survey the old image, draft the new one, and code group after group in as many threads as are wanted. What
//! comes out does not depend on how many.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use delta::{
    Coder, Compression, Control, EncodeError, Extent, Group, GroupEncoder, Head, Needs, Segment, Shape,
    ZeroRuns,
};

use crate::BLOCK;
use crate::draft::{Bounds, Counts, Draft, Drafts, GroupDraft};
use crate::ext4::{self, ExtError, Layout};
use crate::files::{Files, Found};
use crate::image::Image;
use crate::matching;
use crate::place;
use crate::plans;
use crate::survey::Survey;

/// Threads beyond this would need more memory than is promised.
pub const MOST_JOBS: usize = 3;

/// Fewer copied blocks than this between coded ones are coded with them.
const SHORTEST_COPY: u32 = 4;

/// How a delta is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How its groups are compressed.
    pub compression: Compression,
    /// Threads.
    pub jobs: usize,
}

/// Why none was made.
#[derive(Debug)]
#[non_exhaustive]
pub enum MakeError {
    /// An image could not be read, or the result not written.
    Io(io::Error),
    /// The new image is empty.
    EmptyTarget,
    /// What was found breaks a rule of the format.
    Encode(EncodeError),
    /// The head does.
    Head(delta::DeltaError),
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MakeError::Io(error) => write!(f, "cannot read an image or write the delta: {error}"),
            MakeError::EmptyTarget => f.write_str("the new image is empty"),
            MakeError::Encode(error) => error.fmt(f),
            MakeError::Head(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MakeError {}

impl From<io::Error> for MakeError {
    fn from(error: io::Error) -> MakeError {
        MakeError::Io(error)
    }
}

impl From<EncodeError> for MakeError {
    fn from(error: EncodeError) -> MakeError {
        MakeError::Encode(error)
    }
}

/// What was made. The groups were written already.
#[derive(Debug)]
pub struct Made {
    /// To be written in front of the groups.
    pub head: Head,
    /// Bytes of the new image that the old one does not have in the same place.
    pub changed_bytes: u64,
    /// Bytes of it that are zero.
    pub zero_bytes: u64,
    /// Bytes of it that are whole blocks of the old one.
    pub copied_bytes: u64,
    /// Bytes of it that are coded.
    pub coded_bytes: u64,
    /// How the old version of files was found; `None` where at least one of the images is no ext file system.
    pub files: Option<Found>,
}

/// Makes the delta from `old` to `new`. Its groups go to `groups`, in order. `progress` hears of bytes, of both images together.
pub fn make(
    old: &Image,
    new: &Image,
    options: &Options,
    groups: &mut (dyn Write + Send),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Made, MakeError> {
    if new.bytes() == 0 {
        return Err(MakeError::EmptyTarget);
    }
    let (files, found) = match (layout(old)?, layout(new)?) {
        (Some(old), Some(new)) => {
            let (files, found) = Files::new(&old, &new);
            (Some(files), Some(found))
        }
        (Some(_) | None, _) => (None, None),
    };
    let survey = Survey::of(old, progress)?;
    let bounds = Bounds {
        segment_blocks: u64::from(delta::SEGMENT_BYTES_MAX) / BLOCK as u64,
        group_blocks: delta::GROUP_BYTES_MAX / BLOCK as u64,
        shortest_copy: SHORTEST_COPY,
    };
    let maker = Maker {
        old,
        new,
        survey: &survey,
        files: files.as_ref(),
        coder: coder(options.compression),
        shape: Shape { source_bytes: old.bytes(), target_bytes: new.bytes() },
        plan_bytes: plans::most_bytes(new.bytes()),
        progress,
    };
    let line = Line {
        state: Mutex::new(State {
            drafts: Drafts::new(old, new, &survey, bounds),
            written: Vec::new(),
            needs: Needs::default(),
            failed: None,
            out: groups,
        }),
        turn: Condvar::new(),
    };
    let jobs = options.jobs.clamp(1, MOST_JOBS);
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(|| line.work(&maker));
        }
        line.work(&maker);
    });
    let state = line.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.failed {
        return Err(error);
    }
    let image = |bytes, sha256: [u8; 32]| delta::Image { bytes, sha256: sha256.into() };
    let Counts { zero, copied, coded } = state.drafts.counts;
    let bytes = |blocks: u64| (blocks * BLOCK as u64).min(new.bytes());
    let head = Head {
        compression: options.compression,
        needs: state.needs,
        source: image(old.bytes(), survey.sha256),
        target: image(new.bytes(), state.drafts.sha256()),
        groups: state.written,
    };
    Ok(Made {
        head,
        changed_bytes: bytes(state.drafts.changed_blocks),
        zero_bytes: bytes(zero),
        copied_bytes: bytes(copied),
        coded_bytes: bytes(coded),
        files: found,
    })
}

/// The files of an image, if it is an ext file system that can be read.
fn layout(image: &Image) -> Result<Option<Layout>, MakeError> {
    match ext4::read(image) {
        Ok(layout) => Ok(Some(layout)),
        Err(ExtError::Read(error)) => Err(error.into()),
        Err(ExtError::NotExt | ExtError::Damaged(_)) => Ok(None),
    }
}

/// As small as it becomes: a delta is made once. Blocks of their own for long streams bring half a percent, the levels of zstd above
/// 19 nothing.
fn coder(compression: Compression) -> Coder {
    let level = match compression {
        Compression::Zstd => 19,
        Compression::Xz => 9,
    };
    Coder {
        compression,
        level,
        window_log: delta::DECODER_WINDOW_LOG_MAX,
        // Set for each segment.
        zero_runs: ZeroRuns::Inside,
        block_of_its_own_bytes: Some(2048),
    }
}

/// Groups on their way: drafted one after the other, coded at the same time, written in order.
struct Line<'a> {
    state: Mutex<State<'a>>,
    turn: Condvar,
}

struct State<'a> {
    drafts: Drafts<'a>,
    written: Vec<Group>,
    needs: Needs,
    /// The first failure; everybody stops.
    failed: Option<MakeError>,
    out: &'a mut (dyn Write + Send),
}

impl<'a> Line<'a> {
    /// Codes groups until there are no more.
    fn work(&self, maker: &Maker<'_>) {
        while let Some(draft) = self.next() {
            let index = draft.index;
            let coded = maker.group(&draft);
            let mut state = self.lock();
            while state.failed.is_none() && state.written.len() != index {
                state = self.turn.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.failed.is_none() {
                let result = coded.and_then(|(bytes, group, needs)| {
                    state.out.write_all(&bytes)?;
                    Ok((group, needs))
                });
                match result {
                    Ok((group, needs)) => {
                        state.written.push(group);
                        state.needs = state.needs.max(needs);
                    }
                    Err(error) => state.failed = Some(error),
                }
            }
            drop(state);
            self.turn.notify_all();
        }
    }

    fn next(&self) -> Option<GroupDraft> {
        let mut state = self.lock();
        if state.failed.is_some() {
            return None;
        }
        match state.drafts.next_group() {
            Ok(draft) => draft,
            Err(error) => {
                state.failed = Some(error.into());
                self.turn.notify_all();
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<'a>> {
        // Whoever panicked has ended the program.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all groups are coded with.
struct Maker<'a> {
    old: &'a Image,
    new: &'a Image,
    survey: &'a Survey,
    files: Option<&'a Files>,
    coder: Coder,
    shape: Shape,
    /// Room for a plan.
    plan_bytes: usize,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Maker<'_> {
    fn group(&self, group: &GroupDraft) -> Result<(Vec<u8>, Group, Needs), MakeError> {
        let first = group.segments.first().map_or(0, |segment| segment.first_block);
        let mut encoder = GroupEncoder::new(self.shape, first, self.coder)?;
        for draft in &group.segments {
            let segment = self.segment(draft)?;
            encoder.set_zero_runs(plans::zero_runs(&segment, self.plan_bytes));
            encoder.push(&segment)?;
            let blocks: u64 = draft.runs.iter().map(|run| u64::from(run.blocks())).sum();
            (self.progress)(blocks * BLOCK as u64);
        }
        Ok(encoder.finish()?)
    }

    fn segment(&self, draft: &Draft) -> Result<Segment, MakeError> {
        let coded = draft.coded();
        let mut content = Vec::with_capacity(coded.len() * BLOCK);
        for block in &coded {
            let at = block * BLOCK as u64;
            let length = usize::try_from(self.new.bytes() - at).unwrap_or(BLOCK).min(BLOCK);
            let start = content.len();
            content.resize(start + length, 0);
            self.new.read_at(at, content.get_mut(start..).unwrap_or_default())?;
        }
        let mut segment = Segment {
            runs: draft.runs.clone(),
            extents: Vec::new(),
            window_sha256: [0; 32].into(),
            target_sha256: draft.target_sha256.into(),
            control: Vec::new(),
            difference: Vec::new(),
            new_bytes: Vec::new(),
        };
        if coded.is_empty() {
            return Ok(segment);
        }
        // A block that is not whole is left out of windows.
        let old_blocks = self.old.bytes() / BLOCK as u64;
        let most = delta::WINDOW_BYTES_MAX as usize / BLOCK;
        let chosen = place::window(self.survey, self.files, old_blocks, &coded, &content, most);
        segment.extents = extents(&chosen);
        let window = self.read_window(&segment.extents)?;
        let steps = self.steps(&window, &content);
        if steps.iter().all(|step| step.take == 0) {
            // Nothing is taken from it, so it need not be read.
            segment.extents = Vec::new();
        } else {
            segment.window_sha256 = <[u8; 32]>::from(Sha256::digest(&window)).into();
        }
        code(&steps, &window, &content, &mut segment);
        Ok(segment)
    }

    /// As many steps as a plan has room for: of what repeats itself there can be a step every few bytes.
    fn steps(&self, window: &[u8], content: &[u8]) -> Vec<matching::Step> {
        for worth in [1, 4, 16, 64].map(|times| times * matching::WORTH_BYTES) {
            let steps = matching::steps(window, content, worth);
            if plans::of_steps(&steps) <= self.plan_bytes / 2 {
                return steps;
            }
        }
        vec![matching::Step { from: 0, take: 0, insert: content.len() }]
    }

    fn read_window(&self, extents: &[Extent]) -> io::Result<Vec<u8>> {
        let mut window = Vec::new();
        for extent in extents {
            let start = window.len();
            window.resize(start + extent.blocks as usize * BLOCK, 0);
            self.old
                .read_at(extent.first_block * BLOCK as u64, window.get_mut(start..).unwrap_or_default())?;
        }
        Ok(window)
    }
}

/// Blocks in order, as extents.
fn extents(blocks: &[u64]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for block in blocks {
        match extents.last_mut() {
            Some(last) if last.first_block + u64::from(last.blocks) == *block => last.blocks += 1,
            Some(_) | None => extents.push(Extent { first_block: *block, blocks: 1 }),
        }
    }
    extents
}

/// Control, difference and new bytes of the steps.
fn code(steps: &[matching::Step], window: &[u8], content: &[u8], segment: &mut Segment) {
    let mut at = 0;
    for (index, step) in steps.iter().enumerate() {
        let (old, new) = (window.get(step.from..step.from + step.take), content.get(at..at + step.take));
        let bytes = old.unwrap_or_default().iter().zip(new.unwrap_or_default());
        segment.difference.extend(bytes.map(|(old, new)| new.wrapping_sub(*old)));
        at += step.take;
        segment.new_bytes.extend_from_slice(content.get(at..at + step.insert).unwrap_or_default());
        at += step.insert;
        // Both are offsets in a window, which is small.
        let next = steps.get(index + 1).map_or(step.from + step.take, |next| next.from);
        let seek = next as i64 - (step.from + step.take) as i64;
        segment.control.push(Control {
            add: step.take as u32,
            insert: step.insert as u32,
            seek: i32::try_from(seek).unwrap_or(0),
        });
    }
}
