//! Where the decoding of a payload can begin again, so that a later process need not read what lies before.
//!
//! An uncompressed payload can be gone on with at any byte; gzip between its members and, inside of them, behind a flush,
//! which ends on a byte (RFC 1951, 3.2.4: an empty stored block) and needs the last 32 KiB of output; xz between its
//! streams; zstd between its frames. A payload that is one long frame, or one member without a flush, has no such place.

use crate::compression::Compression;
use crate::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most places that are remembered: what a reader of the file may lag behind in making things durable.
const PLACES_MAX: usize = 24;
/// What DEFLATE may refer back to.
pub(crate) const DEFLATE_WINDOW: usize = 32 * 1024;
/// What a flush ends with: the length of an empty stored block and its complement.
pub(crate) const FLUSH_MARK: [u8; 4] = [0, 0, 0xff, 0xff];

/// A place of a payload file at which a later process may go on, given the bytes before it. Written down as JSON of less
/// than 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPoint {
    /// Bytes of the file that lie before it.
    #[serde(rename = "at")]
    pub(crate) offset: u64,
    /// Where in the stored data member that is.
    pub(crate) stored: u64,
    /// Length of the stored data member.
    pub(crate) of: u64,
    /// How it is compressed: the suffix.
    pub(crate) kind: String,
    /// Inside a member of gzip.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) inside: bool,
    /// Digest of the bytes of the file that lie before it.
    pub(crate) sha256: String,
}

impl RestartPoint {
    /// Bytes of the file that lie before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the stored data member that lie before it: what going on there saves.
    pub fn stored_offset(&self) -> u64 {
        self.stored
    }

    /// Bytes of the stored data member in all.
    pub fn stored_bytes(&self) -> u64 {
        self.of
    }

    pub(crate) fn is_of(&self, compression: Compression, length: u64) -> bool {
        self.kind == compression.suffix() && self.of == length && self.stored <= length
    }

    pub(crate) fn sha256(&self) -> Option<Sha256> {
        self.sha256.parse().ok()
    }
}

/// A place as the decoder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes that it has given before.
    pub(crate) decoded: u64,
    /// Bytes that it has taken before.
    pub(crate) stored: u64,
    /// Behind a flush and not before a stream.
    pub(crate) inside: bool,
}

/// The places that a decoder has passed and its reader has not: from one thread to the other.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    every: u64,
    passed: Arc<Mutex<VecDeque<Place>>>,
}

impl Places {
    /// Nobody wants to note places that are less than `every` bytes apart.
    pub(crate) fn new(every: u64) -> Places {
        Places { every: every.max(1), passed: Arc::default() }
    }

    pub(crate) fn every(&self) -> u64 {
        self.every
    }

    /// Least bytes between two places that are remembered: what was made durable last may end before the last place.
    pub(crate) fn spacing(&self) -> u64 {
        self.every.div_ceil(2)
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, place: Place) {
        let mut places = self.places();
        // The reader is at most a ring of blocks behind; with streams of a few bytes each that can still be many.
        if places.len() < 4096 {
            places.push_back(place);
        }
    }

    /// The next place up to `decoded`.
    pub(crate) fn next_within(&self, decoded: u64) -> Option<Place> {
        let mut places = self.places();
        places.front().filter(|place| place.decoded <= decoded)?;
        places.pop_front()
    }
}

/// The last places that the reader of a file has passed.
#[derive(Debug, Default)]
pub(crate) struct Passed(VecDeque<RestartPoint>);

impl Passed {
    pub(crate) fn push(&mut self, point: RestartPoint) {
        if self.0.len() >= PLACES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    pub(crate) fn latest(&self, at_most: u64) -> Option<&RestartPoint> {
        self.0.iter().rev().find(|point| point.offset <= at_most)
    }
}
