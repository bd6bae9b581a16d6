//! A delta, whatever is in it, and damage of every kind to the inside of a good one.

use std::io;

use client_core::delta::{Applier, BLOCK_BYTES, Compression, Head, Source};
use testkit::deltas::{MadeDelta, Making, make};

/// Old images are this long.
const OLD_BYTES: usize = 20 * BLOCK_BYTES as usize + 100;

/// The bytes as a file; as the first group behind a good head, where a fuzzer would have to guess a digest; and as damage to
/// a good file, three bytes for each: where, and what is turned over there. What is given out has the digest of the new
/// image's start, and the whole of it comes only from a file that says so.
pub(crate) fn delta(bytes: &[u8]) {
    let (old, new) = images();
    given(bytes, &old);
    for compression in [Compression::Zstd, Compression::Xz] {
        let making = Making { segment_blocks: 4, group_segments: 2, ..Making::small(compression) };
        let made = make(&old, &new, &making);
        let file = made.file();
        assert!(given(&file, &old) == (new.clone(), true), "a good delta is not applied");
        behind_a_head(&made, bytes, &old, &new);
        let mut damaged = file.clone();
        for damage in bytes.chunks_exact(3).take(64) {
            let at = usize::from(u16::from_le_bytes([damage[0], damage[1]])) % damaged.len();
            damaged[at] ^= damage[2];
        }
        let (made, whole) = given(&damaged, &old);
        // A head with another digest of its own is another delta.
        if Head::read(&mut &damaged[..]).is_ok_and(|head| head.target.sha256 == made_of(&new)) {
            assert!(new.starts_with(&made), "something else was given out");
            assert!(!whole || made == new, "a part was taken for the whole");
        }
    }
}

/// The first group is anything.
fn behind_a_head(made: &MadeDelta, bytes: &[u8], old: &[u8], new: &[u8]) {
    let mut other = made.clone();
    if let (Some(group), Some(entry)) = (other.groups.first_mut(), other.head.groups.first_mut()) {
        *group = bytes.to_vec();
        entry.stored_bytes = bytes.len() as u64;
    }
    let (given, _) = given(&other.file(), old);
    assert!(new.starts_with(&given), "something else was given out");
}

fn made_of(image: &[u8]) -> client_core::artifact::Sha256 {
    client_core::artifact::Sha256::of(image)
}

fn images() -> (Vec<u8>, Vec<u8>) {
    let old: Vec<u8> = (0..OLD_BYTES as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut new = old.clone();
    new.iter_mut().skip(5000).step_by(777).for_each(|byte| *byte ^= 0x41);
    new.copy_within(..3 * BLOCK_BYTES as usize, 9 * BLOCK_BYTES as usize);
    new.truncate(18 * BLOCK_BYTES as usize + 7);
    (old, new)
}

/// What is given out, and whether that was all.
fn given(file: &[u8], old: &[u8]) -> (Vec<u8>, bool) {
    let (mut input, mut given) = (file, Vec::new());
    let ended = (|| {
        let mut applier = Applier::new(Head::read(&mut input)?)?;
        while let Some(applied) = applier.next(&mut input, &mut Memory(old))? {
            given.extend_from_slice(applied.bytes);
        }
        Ok::<(), client_core::delta::DeltaError>(())
    })();
    if let Err(error) = &ended {
        assert!(!error.to_string().is_empty(), "an error without words");
    }
    (given, ended.is_ok())
}

struct Memory<'a>(&'a [u8]);

impl Source for Memory<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::InvalidInput)?;
        buffer.copy_from_slice(self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
