//! Chooses what of the old image lies before the device while it makes a segment: the window. Where it lies decides the size of a
//! delta, much more than how large it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::BLOCK;
use crate::files::Files;
use crate::survey::Survey;

/// What a place that was found by content brings with it, in blocks on both sides.
const AROUND: u64 = 2;

/// A stretch of the segment that comes from one old file.
struct Demand {
    /// The old file.
    file: u32,
    /// In it.
    start: u64,
    end: u64,
    coded: u64,
}

/// Blocks of the old image for a segment whose coded blocks lie at `coded` in the new image and have this content; at most `most`.
pub(crate) fn window(
    survey: &Survey,
    files: Option<&Files>,
    old_blocks: u64,
    coded: &[u64],
    content: &[u8],
    most: usize,
) -> Vec<u64> {
    let mut chosen: BTreeSet<u64> = BTreeSet::new();
    let places = survey.places(content);
    let mut by_place: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for (place, block) in &places {
        by_place.entry(place / BLOCK).or_default().push(u64::from(*block));
    }
    let mut demands: Vec<Demand> = Vec::new();
    let mut homeless: Vec<(usize, u64)> = Vec::new();
    if let Some(files) = files {
        // Per new file: its coded blocks here, as offsets.
        let mut of_file: BTreeMap<u32, Vec<(usize, u64)>> = BTreeMap::new();
        for (index, block) in coded.iter().enumerate() {
            match files.owner(block * BLOCK as u64) {
                Some(owner) if files.origin(owner.file).is_some() => {
                    of_file.entry(owner.file).or_default().push((index, owner.logical));
                }
                Some(_) | None => homeless.push((index, *block)),
            }
        }
        for (file, blocks) in of_file {
            let Some(origin) = files.origin(file) else { continue };
            demands.push(demand(files, file, origin, &blocks, &by_place));
        }
    } else {
        homeless = coded.iter().copied().enumerate().collect();
    }
    // Tables of the file system mostly stay where they were.
    for (index, block) in &homeless {
        let hits = by_place.get(index).map_or(0, Vec::len);
        if hits == 0 && *block < old_blocks {
            chosen.insert(*block);
        }
    }
    let of_demands = most.saturating_sub(chosen.len().min(most / 4));
    fill(files, &mut demands, of_demands, old_blocks, &mut chosen);
    // What is left goes to the places that the content names most often.
    let mut votes: BTreeMap<u64, u32> = BTreeMap::new();
    for (_, block) in &places {
        *votes.entry(u64::from(*block)).or_default() += 1;
    }
    let mut ranked: Vec<(u64, u32)> =
        votes.into_iter().filter(|(block, _)| !chosen.contains(block)).collect();
    ranked.sort_by_key(|(block, votes)| (std::cmp::Reverse(*votes), *block));
    for (block, _) in ranked {
        for near in block.saturating_sub(AROUND)..=(block + AROUND) {
            if chosen.len() < most && near < old_blocks {
                chosen.insert(near);
            }
        }
    }
    while chosen.len() > most {
        chosen.pop_last();
    }
    chosen.into_iter().collect()
}

/// Which part of the old file `origin` some blocks of the new one come from.
fn demand(
    files: &Files,
    file: u32,
    origin: u32,
    blocks: &[(usize, u64)],
    by_place: &BTreeMap<usize, Vec<u64>>,
) -> Demand {
    let (old, new) = (files.old_bytes(origin), files.new_bytes(file).max(1));
    let first = blocks.iter().map(|(_, logical)| *logical).min().unwrap_or(0);
    let last = blocks.iter().map(|(_, logical)| *logical).max().unwrap_or(0) + BLOCK as u64;
    // How far the content that was found has moved inside of the file.
    let mut moved: Vec<i64> = Vec::new();
    for (index, logical) in blocks {
        for block in by_place.get(index).into_iter().flatten() {
            if let Some(owner) = files.old_owner(block * BLOCK as u64).filter(|owner| owner.file == origin) {
                moved.push(owner.logical as i64 - *logical as i64);
            }
        }
    }
    moved.sort_unstable();
    let middle = moved.get(moved.len() / 2).copied();
    let map = |logical: u64| match middle {
        Some(moved) if old > 0 => logical.saturating_add_signed(moved).min(old),
        Some(_) | None => (u128::from(logical) * u128::from(old) / u128::from(new)) as u64,
    };
    Demand { file: origin, start: map(first), end: map(last), coded: blocks.len() as u64 }
}

/// Gives each demand its part of `most` blocks, the small ones first: what they leave is for the others.
fn fill(
    files: Option<&Files>,
    demands: &mut [Demand],
    most: usize,
    old_blocks: u64,
    chosen: &mut BTreeSet<u64>,
) {
    let Some(files) = files else { return };
    demands.sort_by_key(|demand| {
        (files.old_bytes(demand.file) / demand.coded.max(1), demand.file, demand.start)
    });
    let mut left = most as u64;
    let mut coded_left: u64 = demands.iter().map(|demand| demand.coded).sum();
    for demand in demands {
        let share = (left * demand.coded / coded_left.max(1)).min(left) * BLOCK as u64;
        coded_left -= demand.coded;
        let size = files.old_bytes(demand.file);
        let wanted = demand.end.saturating_sub(demand.start);
        let (start, end) = if size <= share {
            (0, size)
        } else {
            // As much before as behind, and what the one end of the file does not have is for the other.
            let slack = share.saturating_sub(wanted) / 2;
            let start = demand.start.saturating_sub(slack).min(size - share);
            (start, start + share)
        };
        let mut taken = 0;
        files.each_block(demand.file, start, end, |block| {
            if block < old_blocks && taken < left && chosen.insert(block) {
                taken += 1;
            }
        });
        left -= taken;
    }
}
