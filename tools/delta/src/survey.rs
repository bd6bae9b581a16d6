//! What the old image has, read once: a sum of every block, so that equal ones are found, and sums of short stretches at places that
//! the content itself names, so that similar ones are.

use std::io;

use sha2::{Digest, Sha256};

use crate::BLOCK;
use crate::image::Image;

/// Blocks that are told apart: images of up to 32 GiB. What lies behind is found by the path of its file, or not.
const MOST_BLOCKS: u64 = 8 << 20;
/// Places that are remembered, eight bytes each.
const MOST_ANCHORS: u64 = 4 << 20;
/// Bytes of a stretch.
const STRETCH: usize = 32;
/// One place in this many is named, in images that are small enough.
const RAREST_NAMED: u64 = 64;
/// A stretch that is in more blocks than this says nothing about where something comes from.
const MOST_PLACES: usize = 4;
/// Read at a time.
const CHUNK: usize = 256 * BLOCK;

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// The old image, surveyed.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Of the whole image.
    pub(crate) sha256: [u8; 32],
    sums: Vec<u64>,
    /// Blocks in the order of their sums.
    by_sum: Vec<u32>,
    /// Sum of a stretch above, block below.
    anchors: Vec<u64>,
    named: u64,
}

impl Survey {
    /// Reads all of `image`; `progress` hears of bytes.
    pub(crate) fn of(image: &Image, progress: &dyn Fn(u64)) -> io::Result<Survey> {
        let mut named = RAREST_NAMED;
        while image.bytes() / named > MOST_ANCHORS {
            named *= 2;
        }
        let mut survey =
            Survey { sha256: [0; 32], sums: Vec::new(), by_sum: Vec::new(), anchors: Vec::new(), named };
        let mut digest = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < image.bytes() {
            let length = usize::try_from(image.bytes() - at).unwrap_or(CHUNK).min(CHUNK);
            let data = chunk.get_mut(..length).unwrap_or_default();
            image.read_at(at, data)?;
            digest.update(&*data);
            for (index, block) in data.chunks(BLOCK).enumerate() {
                let number = at / BLOCK as u64 + index as u64;
                if number >= MOST_BLOCKS {
                    break;
                }
                // The image may end inside of a block. No whole block equals such a one.
                survey.sums.push(if block.len() == BLOCK { sum(block) } else { 0 });
            }
            let first = at / BLOCK as u64;
            if !is_zero(data) {
                each_anchor(data, named, |place, sum| {
                    let block = first + (place / BLOCK) as u64;
                    if let Ok(block) = u32::try_from(block) {
                        survey.anchors.push(u64::from(sum) << 32 | u64::from(block));
                    }
                });
            }
            at += length as u64;
            progress(length as u64);
        }
        survey.sha256 = digest.finalize().into();
        survey.by_sum = (0..u32::try_from(survey.sums.len()).unwrap_or(u32::MAX)).collect();
        let sums = &survey.sums;
        survey.by_sum.sort_unstable_by_key(|block| (sums.get(*block as usize).copied(), *block));
        survey.anchors.sort_unstable();
        survey.anchors.dedup();
        survey.anchors.shrink_to_fit();
        Ok(survey)
    }

    /// Blocks with this sum, in order.
    pub(crate) fn blocks_with(&self, wanted: u64) -> impl Iterator<Item = u32> + '_ {
        let sum_of = |block: &u32| self.sums.get(*block as usize).copied().unwrap_or(0);
        let start = self.by_sum.partition_point(|block| sum_of(block) < wanted);
        let rest = self.by_sum.get(start..).unwrap_or_default();
        rest.iter().copied().take_while(move |block| sum_of(block) == wanted)
    }

    /// Whether this block has this sum.
    pub(crate) fn has(&self, block: u64, wanted: u64) -> bool {
        usize::try_from(block).is_ok_and(|block| self.sums.get(block) == Some(&wanted))
    }

    /// Where in the old image something of `bytes` is: place in `bytes`, block of the image.
    pub(crate) fn places(&self, bytes: &[u8]) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        each_anchor(bytes, self.named, |place, sum| {
            let (low, high) = (u64::from(sum) << 32, u64::from(sum) << 32 | u64::from(u32::MAX));
            let start = self.anchors.partition_point(|anchor| *anchor < low);
            let rest = self.anchors.get(start..).unwrap_or_default();
            let same: Vec<u64> =
                rest.iter().copied().take(MOST_PLACES + 1).take_while(|anchor| *anchor <= high).collect();
            if same.len() <= MOST_PLACES {
                found.extend(same.iter().map(|anchor| (place, (*anchor & u64::from(u32::MAX)) as u32)));
            }
        });
        found
    }
}

/// A sum that blocks are told apart by; what has the same is compared before anything relies on it.
pub(crate) fn sum(block: &[u8]) -> u64 {
    let mut lanes = [MULTIPLIER, !MULTIPLIER, MULTIPLIER.rotate_left(17), MULTIPLIER.rotate_left(41)];
    for words in block.chunks_exact(32) {
        for (lane, word) in lanes.iter_mut().zip(words.chunks_exact(8)) {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            let mixed = (*lane ^ word).wrapping_mul(MULTIPLIER);
            *lane = mixed ^ (mixed >> 29);
        }
    }
    lanes.into_iter().fold(0, |all, lane| (all ^ lane).wrapping_mul(MULTIPLIER).rotate_left(23))
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let mut words = bytes.chunks_exact(8);
    words.by_ref().all(|word| word == [0; 8]) && words.remainder().iter().all(|byte| *byte == 0)
}

/// Calls `give` with the start and the sum of every stretch that names itself.
fn each_anchor(bytes: &[u8], named: u64, mut give: impl FnMut(usize, u32)) {
    let mut leaving = 1_u64;
    for _ in 0..STRETCH {
        leaving = leaving.wrapping_mul(MULTIPLIER);
    }
    let mask = named - 1;
    let (mut rolling, mut last) = (0_u64, u64::MAX);
    let value = |byte: &u8| u64::from(*byte) + 1;
    for (index, byte) in bytes.iter().enumerate() {
        rolling = rolling.wrapping_mul(MULTIPLIER).wrapping_add(value(byte));
        if index >= STRETCH {
            let left = bytes.get(index - STRETCH).map_or(0, value);
            rolling = rolling.wrapping_sub(left.wrapping_mul(leaving));
        }
        if index + 1 >= STRETCH && (rolling >> 40) & mask == 0 && rolling != last {
            // Long runs of one byte would name every place.
            last = rolling;
            give(index + 1 - STRETCH, ((rolling ^ (rolling >> 33)).wrapping_mul(MULTIPLIER) >> 32) as u32);
        }
    }
}
