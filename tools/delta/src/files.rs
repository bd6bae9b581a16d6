//! The files of both images, and which one of the old image a new one comes from.

use std::collections::HashMap;

use crate::BLOCK;
use crate::ext4::{File, Layout};

/// Files of one name that are looked at.
const MOST_ALIKE: usize = 16;

/// What a file is called, for one way of finding its old version.
type Name = fn(&[u8]) -> Vec<u8>;

/// Files by that.
type Alike = HashMap<Vec<u8>, Vec<u32>>;

/// From the surest way on.
const NAMES: [Name; 3] = [<[u8]>::to_vec, masked, |path| masked(name(path))];

/// A part of a file that lies in one piece, in bytes.
#[derive(Clone, Copy, Debug)]
struct Part {
    physical: u64,
    bytes: u64,
    file: u32,
    logical: u64,
}

/// Old files by what they are called, and new ones by where they lie.
#[derive(Debug)]
pub(crate) struct Files {
    old: Vec<Old>,
    origin: Vec<Option<u32>>,
    new_bytes: Vec<u64>,
    /// Of the new image, by place.
    parts: Vec<Part>,
    /// Of the old image, by place.
    old_parts: Vec<Part>,
}

/// An old file: its parts in its own order, in bytes.
#[derive(Debug)]
struct Old {
    bytes: u64,
    /// Logical, physical, length.
    parts: Vec<(u64, u64, u64)>,
}

/// Where a byte of the new image belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Number of the new file.
    pub(crate) file: u32,
    /// Offset in it.
    pub(crate) logical: u64,
}

/// How many files found what they come from, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By their path.
    pub by_path: u64,
    /// By their path with every number masked.
    pub by_masked_path: u64,
    /// By their name alone, numbers masked.
    pub by_name: u64,
    /// Not at all: their blocks are looked up by content.
    pub by_content: u64,
}

impl Files {
    pub(crate) fn new(old: &Layout, new: &Layout) -> (Files, Found) {
        let by_name: Vec<Alike> = NAMES.iter().map(|name| alike(old, *name)).collect();
        let old_files: Vec<Old> = old.files.iter().map(|file| Old::new(file, old.block_bytes)).collect();
        let mut found = Found::default();
        let mut origin = Vec::new();
        let mut new_bytes = Vec::new();
        for file in &new.files {
            let bytes = Old::new(file, new.block_bytes).bytes;
            new_bytes.push(bytes);
            let nearest = |alike: &Vec<u32>| {
                let size = |number: &u32| old_files.get(*number as usize).map_or(0, |old| old.bytes);
                alike.iter().copied().min_by_key(|number| size(number).abs_diff(bytes))
            };
            let hit = NAMES.iter().zip(&by_name).enumerate().find_map(|(way, (of, map))| {
                map.get(&of(&file.path)).and_then(nearest).map(|number| (way, number))
            });
            match hit.map(|(way, _)| way) {
                Some(0) => found.by_path += 1,
                Some(1) => found.by_masked_path += 1,
                Some(_) => found.by_name += 1,
                None => found.by_content += 1,
            }
            origin.push(hit.map(|(_, number)| number));
        }
        let (parts, old_parts) = (parts(new), parts(old));
        (Files { old: old_files, origin, new_bytes, parts, old_parts }, found)
    }

    /// To which file this byte of the new image belongs.
    pub(crate) fn owner(&self, at: u64) -> Option<Owner> {
        owner(&self.parts, at)
    }

    /// The same for the old image; the file is one of the old ones.
    pub(crate) fn old_owner(&self, at: u64) -> Option<Owner> {
        owner(&self.old_parts, at)
    }

    /// Which old file a new one comes from.
    pub(crate) fn origin(&self, file: u32) -> Option<u32> {
        self.origin.get(file as usize).copied().flatten()
    }

    pub(crate) fn new_bytes(&self, file: u32) -> u64 {
        self.new_bytes.get(file as usize).copied().unwrap_or(0)
    }

    pub(crate) fn old_bytes(&self, file: u32) -> u64 {
        self.old.get(file as usize).map_or(0, |old| old.bytes)
    }

    /// Calls `give` for the blocks of the old image that have the bytes from `start` to `end` of an old file.
    pub(crate) fn each_block(&self, file: u32, start: u64, end: u64, mut give: impl FnMut(u64)) {
        let Some(old) = self.old.get(file as usize) else { return };
        for (logical, physical, bytes) in &old.parts {
            let (from, to) = (start.max(*logical), end.min(logical + bytes));
            if from < to {
                let first = (physical + (from - logical)) / BLOCK as u64;
                let last = (physical + (to - logical) - 1) / BLOCK as u64;
                (first..=last).for_each(&mut give);
            }
        }
    }
}

fn alike(layout: &Layout, name: Name) -> Alike {
    let mut map = Alike::new();
    for (number, file) in (0..).zip(&layout.files) {
        let alike = map.entry(name(&file.path)).or_default();
        if alike.len() < MOST_ALIKE {
            alike.push(number);
        }
    }
    map
}

impl Old {
    fn new(file: &File, block_bytes: u64) -> Old {
        let part = |piece: &crate::ext4::Piece| {
            (piece.logical * block_bytes, piece.physical * block_bytes, piece.count * block_bytes)
        };
        let parts: Vec<(u64, u64, u64)> = file.pieces.iter().map(part).collect();
        let bytes = parts.last().map_or(0, |(logical, _, bytes)| logical + bytes);
        Old { bytes, parts }
    }
}

fn parts(layout: &Layout) -> Vec<Part> {
    let mut parts = Vec::new();
    for (number, file) in (0..).zip(&layout.files) {
        for (logical, physical, bytes) in Old::new(file, layout.block_bytes).parts {
            parts.push(Part { physical, bytes, file: number, logical });
        }
    }
    parts.sort_unstable_by_key(|part| part.physical);
    parts
}

fn owner(parts: &[Part], at: u64) -> Option<Owner> {
    let index = parts.partition_point(|part| part.physical <= at).checked_sub(1)?;
    let part = parts.get(index).filter(|part| at < part.physical + part.bytes)?;
    Some(Owner { file: part.file, logical: part.logical + (at - part.physical) })
}

/// The last part of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// With every number as one `#`.
fn masked(path: &[u8]) -> Vec<u8> {
    let mut masked: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path {
        if !byte.is_ascii_digit() {
            masked.push(*byte);
        } else if masked.last() != Some(&b'#') {
            masked.push(b'#');
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_paths_are_masked_and_nothing_else() {
        assert_eq!(masked(b"lib/modules/6.1.0-47/libx.so.10"), b"lib/modules/#.#.#-#/libx.so.#");
        assert_eq!(name(b"usr/bin/true"), b"true");
        assert_eq!(name(b"true"), b"true");
    }
}
