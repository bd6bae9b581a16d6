//! A medium that is rewritten in sectors, with a cache that promises nothing about their order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use client_core::storage::Medium;

use super::faults::Fault;
use super::medium::{EIO, Model, garble};
use super::world::{Limits, Trace};
use crate::choice::{Choices, Mixer};

/// Bytes that are written or lost together.
pub const SECTOR_LEN: usize = 512;

/// What is left of a sector that was being written when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Bytes that are neither the old content nor the new.
    Garbage,
    /// Reading it is an error until it is written as a whole.
    Unreadable,
    /// So many bytes of the new content, then the old. No disk with a checksum per sector does this; a
    /// controller without one may.
    Prefix(usize),
}

#[derive(Clone)]
pub(super) struct Disk {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors whose read fails, as reads see it and on the medium.
    live_bad: BTreeSet<usize>,
    durable_bad: BTreeSet<usize>,
    pending: Vec<Request>,
    /// The cache shows something that neither is on the medium nor will be.
    cache_lies: bool,
}

/// Consecutive whole sectors on their way to the medium.
#[derive(Clone)]
struct Request {
    first: usize,
    data: Vec<u8>,
}

impl Request {
    fn sectors(&self) -> Range<usize> {
        self.first..self.first + self.data.len() / SECTOR_LEN
    }

    fn sector(&self, sector: usize) -> &[u8] {
        &self.data[bytes_of(sector - self.first)]
    }
}

fn bytes_of(sector: usize) -> Range<usize> {
    sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN
}

/// A range of `content`, unless it has a sector that cannot be read.
fn read_good<'c>(content: &'c [u8], bad: &BTreeSet<usize>, range: Range<usize>) -> io::Result<&'c [u8]> {
    if !bad.is_empty() && !range.is_empty() {
        let sectors = range.start / SECTOR_LEN..range.end.div_ceil(SECTOR_LEN);
        if bad.range(sectors).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
    }
    Ok(&content[range])
}

/// A pending sector and what it may become besides staying as it is.
pub(super) struct Undecided {
    pub(super) sector: usize,
    pub(super) versions: Vec<Vec<u8>>,
}

impl Disk {
    /// # Panics
    /// When the content is not whole sectors.
    pub(super) fn new(content: Vec<u8>) -> Disk {
        assert!(content.len() % SECTOR_LEN == 0, "a disk has whole sectors");
        Disk {
            durable: content.clone(),
            live: content,
            live_bad: BTreeSet::new(),
            durable_bad: BTreeSet::new(),
            pending: Vec::new(),
            cache_lies: false,
        }
    }

    /// The pending sectors that may hold more than one thing afterwards.
    pub(super) fn undecided(&self) -> Vec<Undecided> {
        let mut places: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for request in &self.pending {
            for sector in request.sectors() {
                let new = request.sector(sector);
                // What is unreadable is not the same as any content.
                let is_old = !self.durable_bad.contains(&sector) && self.durable[bytes_of(sector)] == *new;
                let versions = places.entry(sector).or_default();
                if !is_old && versions.iter().all(|version| version != new) {
                    versions.push(new.to_vec());
                }
            }
        }
        places.retain(|_, versions| !versions.is_empty());
        places.into_iter().map(|(sector, versions)| Undecided { sector, versions }).collect()
    }

    /// Where a tear is tried.
    pub(super) fn tear_places(&self, limit: usize) -> Vec<Range<usize>> {
        let pending: BTreeSet<usize> = self.pending.iter().flat_map(Request::sectors).collect();
        // One sector that keeps its content stands for all that do.
        let mut sectors: BTreeSet<usize> =
            [pending.first(), pending.last()].into_iter().flatten().copied().collect();
        let changing = self.undecided();
        if changing.len() <= limit {
            sectors.extend(changing.iter().map(|place| place.sector));
        }
        let mut places: Vec<Range<usize>> = sectors.into_iter().map(|sector| sector..sector + 1).collect();
        for request in &self.pending {
            let sectors = request.sectors();
            if sectors.len() > 1 && !places.contains(&sectors) {
                places.push(sectors);
            }
        }
        places
    }

    /// Puts one version of a pending sector on the medium.
    pub(super) fn put(&mut self, sector: usize, version: &[u8]) {
        self.durable[bytes_of(sector)].copy_from_slice(version);
        self.durable_bad.remove(&sector);
    }

    pub(super) fn tear(&mut self, sector: usize, tear: Tear) {
        let newest = self.pending.iter().rev().find(|request| request.sectors().contains(&sector));
        let content = &mut self.durable[bytes_of(sector)];
        self.durable_bad.remove(&sector);
        match tear {
            Tear::Garbage => garble(content, sector),
            Tear::Unreadable => {
                content.fill(0);
                self.durable_bad.insert(sector);
            }
            Tear::Prefix(len) => {
                if let Some(newest) = newest {
                    content[..len].copy_from_slice(&newest.sector(sector)[..len]);
                }
            }
        }
    }

    /// The cache keeps what the medium may not have.
    pub(super) fn lose_track(&mut self) {
        self.pending.clear();
        self.cache_lies = true;
    }

    /// Whether a sector that is written in part, and has to be read for that, cannot be.
    fn needs_unreadable(&self, start: usize, end: usize) -> bool {
        let sectors = start / SECTOR_LEN..end.div_ceil(SECTOR_LEN);
        let ends = [
            (sectors.start, start % SECTOR_LEN == 0 && end >= bytes_of(sectors.start).end),
            (sectors.end - 1, end % SECTOR_LEN == 0),
        ];
        ends.into_iter().any(|(sector, whole)| !whole && self.live_bad.contains(&sector))
    }

    fn forget_cache(&mut self) {
        self.live.copy_from_slice(&self.durable);
        self.live_bad.clone_from(&self.durable_bad);
        self.cache_lies = false;
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self, sector: usize) {
        self.live_bad.insert(sector);
    }
}

impl Model for Disk {
    fn medium(&self) -> Medium {
        Medium::Rewritable
    }

    fn len(&self) -> usize {
        self.live.len()
    }

    fn read(&self, range: Range<usize>) -> io::Result<&[u8]> {
        read_good(&self.live, &self.live_bad, range)
    }

    fn read_medium(&self, range: Range<usize>) -> Option<io::Result<&[u8]>> {
        Some(read_good(&self.durable, &self.durable_bad, range))
    }

    fn write(&mut self, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = start + data.len();
        if self.needs_unreadable(start, end) {
            return Err(io::Error::other("unreadable sector"));
        }
        let sectors = start / SECTOR_LEN..end.div_ceil(SECTOR_LEN);
        self.live[start..end].copy_from_slice(data);
        if !self.live_bad.is_empty() {
            for sector in sectors.clone() {
                self.live_bad.remove(&sector);
            }
        }
        let mut data = self.live[sectors.start * SECTOR_LEN..sectors.end * SECTOR_LEN].to_vec();
        match fate {
            Some(Fault::LostWrite) => {
                self.cache_lies = true;
                return Ok(());
            }
            Some(Fault::CorruptWrite) => {
                self.cache_lies = true;
                garble(&mut data[..SECTOR_LEN], sectors.start);
            }
            Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) | None => {}
        }
        self.pending.push(Request { first: sectors.start, data });
        Ok(())
    }

    fn flush(&mut self) {
        for request in self.pending.drain(..) {
            let start = request.first * SECTOR_LEN;
            self.durable[start..start + request.data.len()].copy_from_slice(&request.data);
            if !self.durable_bad.is_empty() {
                for sector in request.sectors() {
                    self.durable_bad.remove(&sector);
                }
            }
        }
    }

    fn drop_cache(&mut self) {
        if !self.cache_lies {
            return;
        }
        self.forget_cache();
        for request in &self.pending {
            let start = request.first * SECTOR_LEN;
            self.live[start..start + request.data.len()].copy_from_slice(&request.data);
            for sector in request.sectors() {
                self.live_bad.remove(&sector);
            }
        }
    }

    fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn decide(&mut self, _: &str, _: &mut Choices, _: &Limits, _: &mut Trace) {}

    fn lose_power(&mut self) {
        if !self.pending.is_empty() || self.cache_lies {
            self.pending.clear();
            self.forget_cache();
        }
    }

    fn settle(&mut self) {
        self.pending.clear();
        self.durable.copy_from_slice(&self.live);
        self.durable_bad.clone_from(&self.live_bad);
    }

    fn live(&self) -> Vec<u8> {
        self.live.clone()
    }

    fn durable(&self) -> Vec<u8> {
        self.durable.clone()
    }

    fn hash(&self, hash: &mut Mixer) {
        hash.bytes(&self.durable);
        for &sector in &self.durable_bad {
            hash.word(sector as u64);
        }
    }
}
