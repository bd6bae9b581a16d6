//! Finds what new bytes have in common with a window of old ones, as bsdiff does: a sorted list of the window's suffixes, the longest
//! match at each place, and matches that are grown over bytes that differ as long as that pays.

use libsais::SuffixArrayConstruction;

/// A match has to explain this many bytes more than the one before, shifted, does; less is not worth its step.
pub(crate) const WORTH_BYTES: usize = 8;

/// Takes `length` bytes of the window from `from` on, which the new bytes are the sum of with a difference, then inserts `insert` new
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Offset in the window.
    pub(crate) from: usize,
    /// Bytes that are taken.
    pub(crate) take: usize,
    /// Bytes that follow and are new.
    pub(crate) insert: usize,
}

/// The suffixes of a window in their order.
struct Sorted<'a> {
    window: &'a [u8],
    order: Vec<i32>,
    /// Where the suffixes begin whose first two bytes are these.
    starts: Vec<u32>,
}

impl Sorted<'_> {
    fn new(window: &[u8]) -> Sorted<'_> {
        let order = if window.is_empty() {
            Vec::new()
        } else {
            let sorted =
                SuffixArrayConstruction::for_text(window).in_owned_buffer32().single_threaded().run();
            // It fails for lengths that are no lengths of windows.
            sorted.map(|sorted| sorted.into_vec()).unwrap_or_default()
        };
        let mut starts = vec![0_u32; 65_537];
        for pair in window.windows(2) {
            if let [first, second] = pair {
                let index = usize::from(*first) << 8 | usize::from(*second);
                if let Some(count) = starts.get_mut(index + 1) {
                    *count += 1;
                }
            }
        }
        // The last byte alone stands in front of everything that begins with it.
        if let Some(last) = window.last() {
            if let Some(count) = starts.get_mut(usize::from(*last) << 8) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for count in &mut starts {
            sum += *count;
            *count = sum;
        }
        Sorted { window, order, starts }
    }

    fn suffix(&self, index: usize) -> &[u8] {
        let start = self.order.get(index).and_then(|start| usize::try_from(*start).ok());
        start.and_then(|start| self.window.get(start..)).unwrap_or_default()
    }

    /// The longest match of the beginning of `wanted`: offset in the window, and length.
    fn longest(&self, wanted: &[u8]) -> (usize, usize) {
        let [first, second, ..] = wanted else { return (0, 0) };
        let index = usize::from(*first) << 8 | usize::from(*second);
        let bound = |index: usize| self.starts.get(index).map_or(0, |start| *start as usize);
        let (mut low, mut high) = (bound(index), bound(index + 1));
        if low >= high {
            return (0, 0);
        }
        // What all of the range have in common with it need not be compared again.
        let (mut low_common, mut high_common) = (2, 2);
        let (mut best, mut best_at) = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let suffix = self.suffix(middle);
            let known = low_common.min(high_common);
            let more =
                common(suffix.get(known..).unwrap_or_default(), wanted.get(known..).unwrap_or_default());
            let length = (known + more).min(suffix.len());
            if length > best {
                (best, best_at) = (length, middle);
            }
            if suffix.get(length) < wanted.get(length) {
                low = middle + 1;
                low_common = length;
            } else {
                high = middle;
                high_common = length;
            }
        }
        let start = self.order.get(best_at).and_then(|start| usize::try_from(*start).ok()).unwrap_or(0);
        (start, best)
    }
}

/// How many bytes both begin with.
fn common(a: &[u8], b: &[u8]) -> usize {
    let mut length = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let (Ok(a), Ok(b)) = (a.try_into(), b.try_into()) else { break };
        let differ = u64::from_le_bytes(a) ^ u64::from_le_bytes(b);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let tail = a.iter().skip(length).zip(b.iter().skip(length));
    length + tail.take_while(|(a, b)| a == b).count()
}

/// The steps that make `new` out of `window`, each of which has to be worth `worth` bytes.
pub(crate) fn steps(window: &[u8], new: &[u8], worth: usize) -> Vec<Step> {
    let sorted = Sorted::new(window);
    let mut steps = Vec::new();
    let at = |bytes: &[u8], index: usize| bytes.get(index).copied();
    let (mut scan, mut length, mut position) = (0_usize, 0_usize, 0_usize);
    let (mut last_scan, mut last_position) = (0_usize, 0_usize);
    // The offset of the last match, which may point in front of the window.
    let mut last_offset = 0_isize;
    let old_at =
        |index: usize, offset: isize| index.checked_add_signed(offset).and_then(|index| at(window, index));
    while scan < new.len() {
        let mut old_score = 0_usize;
        scan += length;
        let mut scored = scan;
        while scan < new.len() {
            (position, length) = sorted.longest(new.get(scan..).unwrap_or_default());
            while scored < scan + length {
                if old_at(scored, last_offset).is_some_and(|byte| Some(byte) == at(new, scored)) {
                    old_score += 1;
                }
                scored += 1;
            }
            if (length == old_score && length != 0) || length > old_score + worth {
                break;
            }
            if old_at(scan, last_offset).is_some_and(|byte| Some(byte) == at(new, scan)) {
                old_score = old_score.saturating_sub(1);
            }
            scan += 1;
        }
        if length == old_score && scan != new.len() {
            continue;
        }
        // Forward from the last match.
        let (mut same, mut best, mut forward) = (0_isize, 0_isize, 0_usize);
        let mut index = 0;
        while last_scan + index < scan && last_position + index < window.len() {
            if at(window, last_position + index) == at(new, last_scan + index) {
                same += 1;
            }
            index += 1;
            if same * 2 - index as isize > best * 2 - forward as isize {
                best = same;
                forward = index;
            }
        }
        // Backward from this one.
        let mut backward = 0_usize;
        if scan < new.len() {
            let (mut same, mut best) = (0_isize, 0_isize);
            let mut index = 1;
            while scan >= last_scan + index && position >= index {
                if at(window, position - index) == at(new, scan - index) {
                    same += 1;
                }
                if same * 2 - index as isize > best * 2 - backward as isize {
                    best = same;
                    backward = index;
                }
                index += 1;
            }
        }
        // Where both want the same bytes, each gets what it explains better.
        if last_scan + forward > scan - backward {
            let overlap = (last_scan + forward) - (scan - backward);
            let (mut score, mut best, mut split) = (0_isize, 0_isize, 0_usize);
            for index in 0..overlap {
                let (left, right) = (last_scan + forward - overlap + index, scan - backward + index);
                if at(new, left) == at(window, last_position + forward - overlap + index) {
                    score += 1;
                }
                if at(new, right) == at(window, position - backward + index) {
                    score -= 1;
                }
                if score > best {
                    best = score;
                    split = index + 1;
                }
            }
            forward = forward + split - overlap;
            backward -= split;
        }
        let insert = (scan - backward) - (last_scan + forward);
        put(&mut steps, Step { from: last_position, take: forward, insert });
        last_scan = scan - backward;
        last_position = position - backward;
        last_offset = position as isize - scan as isize;
    }
    steps
}

/// Adds a step. One that takes nothing goes on with the insertion before it.
fn put(steps: &mut Vec<Step>, step: Step) {
    match steps.last_mut() {
        Some(last) if step.take == 0 => last.insert += step.insert,
        // The first step takes from the start of the window: one that begins elsewhere needs one in front of it that makes a byte.
        None if step.from != 0 && step.take > 0 => {
            steps.push(Step { from: 0, take: 0, insert: 1 });
            put(steps, Step { from: step.from + 1, take: step.take - 1, insert: step.insert });
        }
        None if step.take == 0 && step.insert == 0 => {}
        Some(_) | None => steps.push(Step { from: if step.take == 0 { 0 } else { step.from }, ..step }),
    }
}
