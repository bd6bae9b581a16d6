//! What of an image a device has, and what it fetches: the same reckoning for the device and for whoever wants to know before.

use super::{BlockDigest, Frame, FrameTable};
use std::ops::Range;

/// A request costs about as much as so many bytes: smaller gaps are transferred.
const REQUEST_BYTES: u64 = 16 << 10;

/// Most requests that are planned; with more, larger gaps are transferred.
const REQUESTS_MAX: usize = 256;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Where a block of the image is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It has to be fetched.
    Nowhere,
    /// It is zeros.
    Zeros,
    /// At its own place in the slot that is written.
    InPlace,
    /// This block of the old image.
    Block(u32),
}

impl Place {
    /// Where the block `n` blocks further is, when both are read at once.
    pub fn after(self, n: u32) -> Place {
        match self {
            Place::Nowhere | Place::InPlace | Place::Zeros => self,
            Place::Block(number) => Place::Block(number.saturating_add(n)),
        }
    }
}

/// The same in four bytes: there is one for each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u32);

impl Packed {
    const NOWHERE: Packed = Packed(u32::MAX);
    const IN_PLACE: Packed = Packed(u32::MAX - 1);
    const ZEROS: Packed = Packed(u32::MAX - 2);

    fn open(self) -> Place {
        match self {
            Packed::NOWHERE => Place::Nowhere,
            Packed::IN_PLACE => Place::InPlace,
            Packed::ZEROS => Place::Zeros,
            Packed(number) => Place::Block(number),
        }
    }
}

/// Where the blocks of the image are, one for each digest of the table.
#[derive(Debug)]
pub struct Found {
    places: Vec<Packed>,
}

impl Found {
    /// Nothing but zeros.
    pub fn nothing(table: &FrameTable) -> Found {
        let zeros = BlockDigest::of(&vec![0; table.block_bytes()]);
        let place =
            |number| if table.digest(number) == Some(zeros) { Packed::ZEROS } else { Packed::NOWHERE };
        Found { places: (0..table.digests()).map(place).collect() }
    }

    /// What is in memory at most while it is looked for the blocks of `table`: their places, and their order.
    pub fn memory_bytes(table: &FrameTable) -> usize {
        (size_of::<Packed>() + size_of::<u32>()) * table.digests() as usize
    }

    /// Where the blocks of `frame` are, in order.
    pub fn of(&self, frame: &Frame) -> impl Iterator<Item = Place> + Clone + '_ {
        self.packed(frame).iter().map(|packed| packed.open())
    }

    fn packed(&self, frame: &Frame) -> &[Packed] {
        let numbers = frame.digests().unwrap_or_default();
        self.places.get(numbers.start as usize..numbers.end as usize).unwrap_or_default()
    }

    /// Whether all of `frame` was found.
    pub fn has(&self, frame: &Frame) -> bool {
        !self.packed(frame).contains(&Packed::NOWHERE)
    }

    /// One pass over an old image of `length` bytes, wherever the blocks lie in it. What `read` cannot read is not found.
    pub fn look_anywhere(
        &mut self,
        table: &FrameTable,
        length: u64,
        read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    ) {
        let mut sorted: Vec<u32> = (0..table.digests()).collect();
        sorted.sort_unstable_by_key(|number| table.digest(*number));
        let size = table.block_bytes();
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while at < length {
            let take = usize::try_from(length - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            let part = buffer.get_mut(..take).unwrap_or_default();
            if read(at, part) {
                for (block, n) in part.chunks_exact(size).zip(0..) {
                    let Ok(number) = u32::try_from(at / size as u64 + n) else { return };
                    self.note(table, &sorted, BlockDigest::of(block), Packed(number));
                }
            }
            at += take as u64;
        }
    }

    /// Every block of the image with this digest is at `place`.
    fn note(&mut self, table: &FrameTable, sorted: &[u32], digest: BlockDigest, place: Packed) {
        let first = sorted.partition_point(|number| table.digest(*number) < Some(digest));
        for number in sorted.get(first..).unwrap_or_default() {
            match self.places.get_mut(*number as usize) {
                Some(found) if *found == Packed::NOWHERE && table.digest(*number) == Some(digest) => {
                    *found = place
                }
                // Those behind it are of another digest, or were noted with this one.
                Some(_) | None => return,
            }
        }
    }

    /// What was not found is looked for at its place in the slot that is written.
    pub fn look_in_place(&mut self, table: &FrameTable, ahead: &mut dyn FnMut(u64, &mut [u8]) -> bool) {
        let size = table.block_bytes();
        let mut buffer = Vec::new();
        for frame in table.frames() {
            if self.has(frame) {
                continue;
            }
            let (start, length) = table.place(frame);
            buffer.resize(length, 0);
            if !ahead(start, &mut buffer) {
                continue;
            }
            for (block, number) in buffer.chunks(size).zip(frame.digests().unwrap_or_default()) {
                if let Some(place) = self.places.get_mut(number as usize) {
                    if *place == Packed::NOWHERE && table.digest(number) == Some(BlockDigest::of(block)) {
                        *place = Packed::IN_PLACE;
                    }
                }
            }
        }
    }

    /// The parts of the payload to ask for, in order: all that is wanted, and the gaps that are not worth another request.
    pub fn runs(&self, table: &FrameTable) -> Vec<Range<u64>> {
        let wanted: Vec<Range<u64>> = table
            .frames()
            .iter()
            .filter(|frame| !self.has(frame))
            .map(|frame| frame.at..frame.end())
            .collect();
        together(&wanted, REQUESTS_MAX)
    }
}

/// At most `most` ranges that have all of `wanted` in them.
fn together(wanted: &[Range<u64>], most: usize) -> Vec<Range<u64>> {
    let mut gap = REQUEST_BYTES;
    loop {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for next in wanted {
            match runs.last_mut() {
                Some(run) if next.start - run.end <= gap => run.end = next.end,
                Some(_) | None => runs.push(next.clone()),
            }
        }
        if runs.len() <= most.max(1) {
            return runs;
        }
        gap = gap.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_are_smaller_than_a_request_costs_are_transferred() {
        let near = [0..10, 10..20, 20 + REQUEST_BYTES..50 + REQUEST_BYTES];
        assert_eq!(together(&near, 9), vec![0..50 + REQUEST_BYTES; 1]);
        let far = [0..10, 11 + REQUEST_BYTES..50 + REQUEST_BYTES];
        assert_eq!(together(&far, 9), far);
        assert_eq!(together(&[], 9), []);
    }

    #[test]
    fn there_are_never_more_requests_than_allowed_and_all_that_is_wanted_is_in_them() {
        let wanted: Vec<Range<u64>> = (0..1000u64).map(|n| n * n * 1000..n * n * 1000 + 500).collect();
        for most in [1, 2, 7, 256, 2000] {
            let runs = together(&wanted, most);
            assert!(!runs.is_empty() && runs.len() <= most);
            let covered =
                |range: &Range<u64>| runs.iter().any(|run| run.start <= range.start && range.end <= run.end);
            assert!(wanted.iter().all(covered));
        }
    }
}
