//! Deltas of xdelta3 against one old content.

use std::io;

use vcdiff::{Contents, Decoder, Limits};

const OLD_BYTES: u32 = 40_000;
const WINDOW_BYTES: usize = 256 * 1024;
const NEW_BYTES: u64 = 1024 * 1024;

/// Any bytes as a delta: what comes of it stays within the limits, what it copies lies inside of what there is, and the same
/// comes of it again.
pub(crate) fn vcdiff(bytes: &[u8]) {
    assert_eq!(decode(bytes), decode(bytes), "the same delta made something else");
}

/// What was made, and whether it ended well.
fn decode(mut delta: &[u8]) -> (Vec<u8>, bool) {
    let mut limits = Limits::default();
    limits.window_bytes = WINDOW_BYTES;
    limits.new_bytes = NEW_BYTES;
    limits.dictionary_bytes = 1024 * 1024;
    let mut memory = Memory { old: old(), made: Vec::new() };
    let mut decoder = Decoder::new(limits);
    loop {
        match decoder.next(&mut delta, &mut memory) {
            Ok(Some(window)) => {
                assert!(window.len() <= WINDOW_BYTES, "a window over its limit");
                let window = window.to_vec();
                memory.made.extend(window);
                assert!(memory.made.len() as u64 <= NEW_BYTES, "more than the limit");
            }
            Ok(None) => return (memory.made, true),
            Err(error) => {
                assert!(!error.to_string().is_empty(), "an error without words");
                return (memory.made, false);
            }
        }
    }
}

fn old() -> Vec<u8> {
    (0..OLD_BYTES).map(|at| (at.wrapping_mul(at) >> 5) as u8).collect()
}

/// Fails for what is outside.
struct Memory {
    old: Vec<u8>,
    made: Vec<u8>,
}

impl Contents for Memory {
    fn old_bytes(&self) -> u64 {
        self.old.len() as u64
    }

    fn old(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        fill(&self.old, offset, into);
        Ok(())
    }

    fn made(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        fill(&self.made, offset, into);
        Ok(())
    }
}

fn fill(from: &[u8], offset: u64, into: &mut [u8]) {
    let start = usize::try_from(offset).expect("an offset in memory");
    let range = start..start.checked_add(into.len()).expect("an end in memory");
    into.copy_from_slice(from.get(range).expect("asked for what is not there"));
}
