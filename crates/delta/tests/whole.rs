//! What the format gives back is what went in, from the start and from every group, and nothing else.

#![allow(clippy::unwrap_used)]

use std::io::{self, Read};

use delta::{Applier, Compression, DeltaError, Head, Prefix, Source, ZeroRuns};
use testkit::choice::{Generator, seed, so_many};
use testkit::deltas::{MadeDelta, Making, make};

struct Old<'a>(&'a [u8]);

impl Source for Old<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..).ok_or(io::ErrorKind::UnexpectedEof)?;
        (&from[..]).read_exact(buffer)
    }
}

fn rest(applier: &mut Applier, mut input: &[u8], old: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut new = Vec::new();
    while let Some(applied) = applier.next(&mut input, &mut Old(old))? {
        new.extend_from_slice(applied.bytes);
    }
    Ok(new)
}

fn apply(mut file: &[u8], old: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let head = Head::read(&mut file)?;
    rest(&mut Applier::new(head)?, file, old)
}

/// Two images of which the second has blocks of the first, moved and changed, zeros, and blocks of its own.
fn pair(generator: &mut Generator) -> (Vec<u8>, Vec<u8>) {
    let length = |generator: &mut Generator| {
        1 + generator.below(200) * 4096 + [0, 4095, generator.below(4096)][generator.below(3)]
    };
    let noise = |generator: &mut Generator, bytes: usize| -> Vec<u8> {
        (0..bytes.div_ceil(8)).flat_map(|_| generator.next_word().to_le_bytes()).take(bytes).collect()
    };
    let old_bytes = if generator.below(20) == 0 { 0 } else { length(generator) };
    let old = noise(generator, old_bytes);
    let bytes = length(generator);
    let mut new = Vec::new();
    while new.len() < bytes {
        let some = 1 + generator.below(12 * 4096);
        match generator.below(5) {
            0 => new.resize(new.len() + some.next_multiple_of(4096), 0),
            1 => new.extend(noise(generator, some)),
            2 if !old.is_empty() => {
                // Blocks from elsewhere, at the start of a block.
                new.resize(new.len().next_multiple_of(4096), 7);
                let at = generator.below(old.len()) / 4096 * 4096;
                new.extend_from_slice(&old[at..(at + some.next_multiple_of(4096)).min(old.len())]);
            }
            _ => {
                // The same place with some bytes changed.
                let at = new.len().min(old.len());
                let start = new.len();
                new.extend_from_slice(&old[at..(at + some).min(old.len())]);
                for byte in new[start..].iter_mut().step_by(1 + generator.below(500)) {
                    *byte = byte.wrapping_add(3);
                }
                new.push(1);
            }
        }
    }
    new.truncate(bytes);
    (old, new)
}

fn making(generator: &mut Generator) -> Making {
    let compression = [Compression::Zstd, Compression::Xz][generator.below(2)];
    let mut making = Making::small(compression);
    making.segment_blocks = [1, 16, 64, 256][generator.below(4)];
    making.group_segments = 1 + generator.below(4);
    making.seed = generator.next_word();
    making.coder.zero_runs =
        [ZeroRuns::Inside, ZeroRuns::Apart { shortest: 1 }, ZeroRuns::Apart { shortest: 8 }]
            [generator.below(3)];
    making.coder.block_of_its_own_bytes = [None, Some(0), Some(300)][generator.below(3)];
    making
}

#[test]
fn what_is_made_of_two_images_makes_the_second_from_the_first() {
    let mut generator = Generator::new(seed());
    for case in 0..so_many(60) {
        let (old, new) = pair(&mut generator);
        let made = make(&old, &new, &making(&mut generator));
        assert!(apply(&made.file(), &old).unwrap() == new, "case {case} of seed {}", seed());
        made.head.agrees_with(&made.signed, made.file().len() as u64).unwrap();
        from_every_group(&made, &old, &new);
    }
}

fn from_every_group(made: &MadeDelta, old: &[u8], new: &[u8]) {
    let mut file: &[u8] = &made.file();
    let head = Head::read(&mut file).unwrap();
    for group in 0..head.groups.len() {
        let (at, stored) = (head.target_offset(group) as usize, head.stored_offset(group) as usize);
        let mut prefix = Prefix::default();
        prefix.update(&new[..at]);
        let mut applier = Applier::at_group(head.clone(), group, prefix).unwrap();
        assert!(rest(&mut applier, &file[stored..], old).unwrap() == new[at..]);
        if group > 0 {
            let mut prefix = Prefix::default();
            prefix.update(&new[..at - 1]);
            let refused = Applier::at_group(head.clone(), group, prefix).map(|_| ());
            assert!(matches!(refused, Err(DeltaError::PrefixDiffers { .. })));
        }
    }
}
