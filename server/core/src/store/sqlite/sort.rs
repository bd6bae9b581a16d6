//! Rows of the index of a store that is filled: they come device by device, and are written in their own order. What is in
//! order already goes to a file, and is merged from there. In any other order each part of the index would be written again
//! for every few devices.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::code::{Bytes, Chunk, put_number};

/// What is read of one run at a time.
const BUFFER: usize = 64 * 1024;

/// Attribute and what of it, value, chunk.
pub(super) type Place = (i64, Vec<u8>, u32);

/// Runs of rows, each in order, in a file that nobody else sees.
pub(super) struct Sorter {
    file: File,
    at: u64,
    runs: Vec<(u64, u64)>,
}

impl Sorter {
    /// With a file in this folder.
    pub(super) fn new(folder: &Path) -> io::Result<Sorter> {
        let path = folder.join("fleet.sort");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        // It is gone when this is, whatever happens.
        fs::remove_file(&path)?;
        Ok(Sorter { file, at: 0, runs: Vec::new() })
    }

    /// Takes rows of devices that are new.
    pub(super) fn run(&mut self, rows: BTreeMap<Place, Vec<(u16, bool)>>) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, &self.file);
        let mut length = 0;
        let mut bytes = Vec::new();
        for ((post, key, chunk), changes) in rows {
            let mut devices = Chunk::empty();
            changes.iter().for_each(|(low, is_in)| devices.set(*low, *is_in));
            let devices = devices.bytes();
            bytes.clear();
            put_number(&mut bytes, post as u64);
            put_number(&mut bytes, key.len() as u64);
            bytes.extend_from_slice(&key);
            put_number(&mut bytes, u64::from(chunk));
            put_number(&mut bytes, devices.len() as u64);
            bytes.extend_from_slice(&devices);
            let mut all = Vec::with_capacity(bytes.len() + 4);
            put_number(&mut all, bytes.len() as u64);
            all.extend_from_slice(&bytes);
            out.write_all(&all)?;
            length += all.len() as u64;
        }
        out.flush()?;
        drop(out);
        self.runs.push((self.at, self.at + length));
        self.at += length;
        Ok(())
    }

    /// Gives all rows in order; what is of one place in several runs is one row.
    pub(super) fn merge<E: From<io::Error>>(
        &self,
        mut each: impl FnMut(&Place, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut runs: Vec<Run<'_>> = self
            .runs
            .iter()
            .map(|(at, end)| Run { file: &self.file, at: *at, end: *end, buffer: Vec::new(), read: 0 })
            .collect();
        let mut next: BinaryHeap<Reverse<(Place, usize, Vec<u8>)>> = BinaryHeap::new();
        for (at, run) in runs.iter_mut().enumerate() {
            next.extend(run.next()?.map(|(place, devices)| Reverse((place, at, devices))));
        }
        let mut last: Option<(Place, Vec<u8>)> = None;
        while let Some(Reverse((place, at, devices))) = next.pop() {
            if let Some(run) = runs.get_mut(at) {
                next.extend(run.next()?.map(|(place, devices)| Reverse((place, at, devices))));
            }
            last = match last {
                Some((before, some)) if before == place => {
                    let mut all = Chunk::read(&some);
                    Chunk::each(&devices, |low| all.set(low, true));
                    Some((place, all.bytes()))
                }
                Some((before, some)) => {
                    each(&before, some)?;
                    Some((place, devices))
                }
                None => Some((place, devices)),
            };
        }
        match last {
            Some((place, devices)) => each(&place, devices),
            None => Ok(()),
        }
    }
}

/// Reads one run.
struct Run<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    read: usize,
}

impl Run<'_> {
    fn next(&mut self) -> io::Result<Option<(Place, Vec<u8>)>> {
        loop {
            let mut bytes = Bytes(self.buffer.get(self.read..).unwrap_or_default());
            if let Some((place, devices)) = bytes.part().and_then(row) {
                self.read = self.buffer.len() - bytes.0.len();
                return Ok(Some((place, devices)));
            }
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            if left == 0 {
                return match bytes.0 {
                    [] => Ok(None),
                    _ => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            // A row may be longer than what is read at a time.
            self.buffer.drain(..self.read);
            self.read = 0;
            let old = self.buffer.len();
            let more = left.min(BUFFER);
            self.buffer.resize(old + more, 0);
            self.file.read_exact_at(self.buffer.get_mut(old..).unwrap_or_default(), self.at)?;
            self.at += more as u64;
        }
    }
}

fn row(bytes: &[u8]) -> Option<(Place, Vec<u8>)> {
    let mut bytes = Bytes(bytes);
    let post = bytes.number()?;
    let key = bytes.part()?.to_vec();
    let chunk = u32::try_from(bytes.number()?).ok()?;
    Some(((post as i64, key, chunk), bytes.part()?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_runs_come_in_one_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path()).unwrap();
        let mut expected: BTreeMap<Place, Vec<u16>> = BTreeMap::new();
        for run in 0..7u32 {
            let mut rows = BTreeMap::new();
            for at in 0..200u32 {
                // Some are of several runs, some are long.
                let key = vec![(at * 37 % 101) as u8; if at % 50 == 0 { 100_000 } else { at as usize % 5 }];
                let place = (i64::from(at % 3), key, run / 2);
                let low = (run * 200 + at) as u16;
                rows.entry(place.clone()).or_insert_with(Vec::new).push((low, true));
                expected.entry(place).or_default().push(low);
            }
            sorter.run(rows).unwrap();
        }
        let mut found = BTreeMap::new();
        let mut order = Vec::new();
        let each = |place: &Place, devices: Vec<u8>| {
            order.push(place.clone());
            found.insert(place.clone(), Chunk::read(&devices).iter().collect::<Vec<_>>());
            Ok::<(), io::Error>(())
        };
        sorter.merge(each).unwrap();
        assert!(order.is_sorted() && order.len() == found.len());
        expected.values_mut().for_each(|lows| lows.sort_unstable());
        assert_eq!(found, expected);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
    }
}
