//! Two images, the delta between them, and what applying it gives.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use delta::{Applier, Compression, Head, Source};
use delta_make::{Image, Made, Options};

/// The same numbers every time.
pub(crate) struct Numbers(Cell<u64>);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Numbers {
        Numbers(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut number = self.0.get();
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        self.0.set(number);
        number.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 56) as u8).collect()
    }

    /// Bytes as those of a program: words out of a list, with numbers between.
    pub(crate) fn program(&self, count: usize) -> Vec<u8> {
        let words: Vec<Vec<u8>> = (0..64).map(|_| self.bytes(4 + self.below(12))).collect();
        let mut bytes = Vec::with_capacity(count + 32);
        while bytes.len() < count {
            bytes.extend_from_slice(&words[self.below(words.len())]);
            bytes.extend_from_slice(&self.next().to_le_bytes()[..2]);
        }
        bytes.truncate(count);
        bytes
    }
}

/// What was made: the file, and what is said of it.
pub(crate) struct Delta {
    pub(crate) file: Vec<u8>,
    pub(crate) made: Made,
}

pub(crate) fn image(bytes: &[u8]) -> Image {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Image::new(file).unwrap()
}

pub(crate) fn open(path: &Path) -> Image {
    Image::new(File::open(path).unwrap()).unwrap()
}

/// Makes a delta and applies it; it has to give `new`.
pub(crate) fn make(old: &Image, new: &Image, compression: Compression, jobs: usize) -> Delta {
    let mut groups = Vec::new();
    let heard = AtomicU64::new(0);
    let progress = |bytes| {
        heard.fetch_add(bytes, Ordering::Relaxed);
    };
    let made = delta_make::make(old, new, &Options { compression, jobs }, &mut groups, &progress).unwrap();
    // What is done is all that there was to do.
    assert!(heard.load(Ordering::Relaxed) >= old.bytes() + new.bytes());
    let mut file = made.head.encode().unwrap();
    file.append(&mut groups);
    apply(old, new, &file);
    Delta { file, made }
}

fn apply(old: &Image, new: &Image, file: &[u8]) {
    struct Old<'a>(&'a Image);
    impl Source for Old<'_> {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buffer)
        }
    }
    let mut input = file;
    let head = Head::read(&mut input).unwrap();
    let mut applier = Applier::new(head).unwrap();
    let mut at = 0;
    while let Some(applied) = applier.next(&mut input, &mut Old(old)).unwrap() {
        let mut expected = vec![0; applied.bytes.len()];
        new.read_at(at, &mut expected).unwrap();
        assert!(applied.bytes == expected, "differs behind byte {at}");
        at += expected.len() as u64;
    }
    assert_eq!(at, new.bytes());
}
