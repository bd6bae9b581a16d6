//! Reads a slot back from the medium while the rest of the image is still being written.
//!
//! The writer hands over each window that it has synced, with the [`Sum`] of what belongs there. Where the device can be
//! read past every cache from another thread, one does that; what has to be waited for in the end is the last window. Where it
//! cannot (a UBI volume, raw flash), everything is read in the end, after the cache was dropped.
//!
//! A window that was read once could be changed by a later write that goes astray, as on a medium that is smaller than it
//! says. So the first block of every 4 MiB is read a second time when all is written.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::sum::Sum;
use crate::artifact::Reading;
use crate::storage::{BlockDevice, PastCache, ReadAt};

/// Bytes that are read at a time beside the writer.
const READ_BYTES: usize = 256 * 1024;

/// What is read a second time in the end: the first block of every so many bytes.
const SAMPLE_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// What devices are read in past the cache: buffers and offsets are multiples of this.
pub(super) const BLOCK_BYTES: usize = 4096;

/// Windows that may wait to be read before the writer waits for the reader.
const WINDOWS_WAITING: usize = 64;

/// Bytes of the slot that are durable, and their sum.
struct Window {
    offset: u64,
    len: u64,
    sum: u128,
}

/// Why the slot does not hold what was written.
#[derive(Debug)]
pub(super) enum Fault {
    /// What was read back is something else.
    Differs {
        /// Where it begins.
        offset: u64,
        /// Bytes of it: one of them differs.
        len: u64,
    },
    /// It cannot be read.
    Unreadable {
        /// Where.
        offset: u64,
        /// The error of the device.
        source: std::io::Error,
    },
}

/// A buffer that begins where direct input and output wants it to.
pub(super) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        // "Not possible" would be a number beyond all memory: any place is right then, only slower.
        Aligned { bytes, start: if start < BLOCK_BYTES { start } else { 0 } }
    }

    /// The first `len` bytes, at most as many as there are.
    pub(super) fn first(&mut self, len: usize) -> &mut [u8] {
        let end = (self.start + len).min(self.bytes.len());
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

/// Compares what a reader finds with what belongs there.
struct Checker {
    sum: Sum,
    samples: Sum,
    buffer: Aligned,
    /// How far the slot was read.
    end: u64,
}

impl Checker {
    fn new(sum: &Sum) -> Checker {
        Checker { sum: sum.another(), samples: sum.another(), buffer: Aligned::new(READ_BYTES), end: 0 }
    }

    /// Reads a window, and tells how far it is; `told` says whether anybody still wants to know.
    fn check(
        &mut self,
        reader: &mut dyn ReadAt,
        window: &Window,
        mut told: impl FnMut(u64) -> bool,
    ) -> Result<(), Fault> {
        let end = window.offset + window.len;
        let mut offset = window.offset;
        while offset < end {
            let part = self.buffer.first(usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ_BYTES));
            reader.read_at(offset, part).map_err(|source| Fault::Unreadable { offset, source })?;
            self.sum.update(part);
            // Windows begin at blocks, and so does every part: a sample is in one part.
            let next_sample = offset.next_multiple_of(SAMPLE_STEP_BYTES);
            if let Some(sample) = usize::try_from(next_sample - offset).ok().and_then(|at| part.get(at..)) {
                self.samples.update(sample.get(..BLOCK_BYTES).unwrap_or(sample));
            }
            offset += part.len() as u64;
            if !told(offset) {
                let source = std::io::Error::other("the installation was given up");
                return Err(Fault::Unreadable { offset, source });
            }
        }
        self.end = end;
        match self.sum.finish() == window.sum {
            true => Ok(()),
            false => Err(Fault::Differs { offset: window.offset, len: window.len }),
        }
    }

    /// Once more the blocks that stand for all others, now that nothing is written any more.
    fn check_samples(&mut self, reader: &mut dyn ReadAt) -> Result<(), Fault> {
        let expected = self.samples.finish();
        let mut offset = 0;
        while offset < self.end {
            let len = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let sample = self.buffer.first(len);
            reader.read_at(offset, sample).map_err(|source| Fault::Unreadable { offset, source })?;
            self.samples.update(sample);
            offset += SAMPLE_STEP_BYTES;
        }
        match self.samples.finish() == expected {
            true => Ok(()),
            false => Err(Fault::Differs { offset: 0, len: self.end }),
        }
    }
}

/// What the reading thread says.
enum Told {
    /// The slot was read up to there.
    Read(u64),
    /// It does not hold what was written. The last word.
    Wrong(Fault),
    /// All of it is right. The last word.
    Right,
}

/// A thread that reads behind the writer.
struct Follower {
    /// What is to be read; dropped when nothing more will come.
    windows: Option<SyncSender<Window>>,
    told: Option<Receiver<Told>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(mut reader: Box<dyn ReadAt + Send>, sum: &Sum, size_bytes: u64) -> std::io::Result<Follower> {
        let (windows, coming) = sync_channel::<Window>(WINDOWS_WAITING);
        let (tell, told): (Sender<Told>, _) = channel();
        let mut checker = Checker::new(sum);
        let thread = std::thread::Builder::new().name("read-back".to_owned()).spawn(move || {
            let check = || -> Result<(), Fault> {
                for window in coming {
                    checker.check(&mut *reader, &window, |end| tell.send(Told::Read(end)).is_ok())?;
                }
                // An installation that was given up wants nothing more of the medium.
                if checker.end == size_bytes {
                    checker.check_samples(&mut *reader)?;
                }
                Ok(())
            };
            let last = check().map_or_else(Told::Wrong, |()| Told::Right);
            // Nobody listens where the installation was given up.
            drop(tell.send(last));
        })?;
        Ok(Follower { windows: Some(windows), told: Some(told), thread: Some(thread) })
    }

    /// What it has said so far; the first error ends the installation.
    fn listen(&self) -> Result<(), Fault> {
        for told in self.told.iter().flat_map(Receiver::try_iter) {
            if let Told::Wrong(fault) = told {
                return Err(fault);
            }
        }
        Ok(())
    }

    fn take(&mut self, window: Window) -> Result<(), Fault> {
        self.listen()?;
        let (offset, len) = (window.offset, window.len);
        if self.windows.as_ref().is_some_and(|windows| windows.send(window).is_ok()) {
            return Ok(());
        }
        // It has ended, and has said why.
        self.listen()?;
        Err(Fault::Differs { offset, len })
    }

    fn finish(&mut self, mut verified: impl FnMut(u64)) -> Result<(), Fault> {
        self.windows = None;
        let mut read = 0;
        for told in self.told.iter().flatten() {
            match told {
                Told::Read(end) => {
                    read = end;
                    verified(end);
                }
                Told::Wrong(fault) => return Err(fault),
                Told::Right => return Ok(()),
            }
        }
        // It ended without a word: what it did not see is not known to be right.
        let source = std::io::Error::other("the reading thread ended without a result");
        Err(Fault::Unreadable { offset: read, source })
    }
}

impl Drop for Follower {
    /// Nothing reads the slot any more when the writer is gone. At most one read is waited for.
    fn drop(&mut self) {
        (self.windows, self.told) = (None, None);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            log::error!("the thread that reads a slot back has panicked");
        }
    }
}

/// How the slot is read.
enum Way {
    /// Behind the writer, by a thread.
    Beside(Follower),
    /// Behind the writer, in its own thread.
    Between(Box<dyn ReadAt>, Checker),
    /// All of it in the end.
    AtTheEnd,
}

/// The reading half of an installation.
pub(super) struct ReadBack {
    sum: Sum,
    way: Way,
    /// What was handed over so far ends here.
    window_start: u64,
    size_bytes: u64,
}

impl ReadBack {
    /// For an image of `size_bytes` in `device`.
    pub(super) fn new(device: &mut dyn BlockDevice, size_bytes: u64, reading: Reading) -> ReadBack {
        let sum = Sum::new();
        let way = match (device.past_cache(), reading) {
            (PastCache::Anywhere(reader), Reading::InTurn) => Way::Between(reader, Checker::new(&sum)),
            (PastCache::Anywhere(reader), Reading::Ahead) => {
                match Follower::start(reader, &sum, size_bytes) {
                    Ok(follower) => Way::Beside(follower),
                    Err(error) => {
                        log::warn!("{}: no thread to read it back with: {error}", device.name());
                        Way::AtTheEnd
                    }
                }
            }
            (PastCache::Here(reader), Reading::Ahead | Reading::InTurn) => {
                Way::Between(reader, Checker::new(&sum))
            }
            (PastCache::No, Reading::Ahead | Reading::InTurn) => Way::AtTheEnd,
        };
        ReadBack { sum, way, window_start: 0, size_bytes }
    }

    /// What belongs behind what came before: whole blocks, or the end of the image.
    pub(super) fn expect(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
    }

    /// Everything before `position` is durable.
    pub(super) fn synced(&mut self, position: u64) -> Result<(), Fault> {
        if matches!(self.way, Way::AtTheEnd) || position == self.window_start {
            return Ok(());
        }
        let offset = std::mem::replace(&mut self.window_start, position);
        let window = Window { offset, len: position - offset, sum: self.sum.finish() };
        match &mut self.way {
            Way::Beside(follower) => follower.take(window),
            Way::Between(reader, checker) => checker.check(&mut **reader, &window, |_| true),
            Way::AtTheEnd => Ok(()),
        }
    }

    /// Reads what is left to be read, now that everything is durable.
    pub(super) fn finish(
        mut self,
        device: &mut dyn BlockDevice,
        mut verified: impl FnMut(u64),
    ) -> Result<(), Fault> {
        match &mut self.way {
            Way::Beside(follower) => follower.finish(verified),
            Way::Between(reader, checker) => {
                verified(self.size_bytes);
                checker.check_samples(&mut **reader)
            }
            Way::AtTheEnd => {
                device.drop_cache().map_err(|source| Fault::Unreadable { offset: 0, source })?;
                let mut checker = Checker::new(&self.sum);
                let window = Window { offset: 0, len: self.size_bytes, sum: self.sum.finish() };
                checker.check(&mut Cached(device), &window, |end| {
                    verified(end);
                    true
                })
            }
        }
    }
}

/// The reading half of a device that is open for writing.
struct Cached<'d>(&'d mut dyn BlockDevice);

impl ReadAt for Cached<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

/// Reads the first `len` bytes of `device` from the medium, in order, into `take`: for digests.
pub(super) fn read_all(
    device: &mut dyn BlockDevice,
    len: u64,
    part_bytes: usize,
    mut take: impl FnMut(u64, &[u8]),
) -> Result<(), Fault> {
    let mut reader: Box<dyn ReadAt + '_> = match device.past_cache() {
        PastCache::Anywhere(reader) => reader,
        PastCache::Here(reader) => reader,
        PastCache::No => {
            device.drop_cache().map_err(|source| Fault::Unreadable { offset: 0, source })?;
            Box::new(Cached(device))
        }
    };
    let mut buffer = Aligned::new(part_bytes);
    let mut offset = 0;
    while offset < len {
        let part = buffer.first(usize::try_from(len - offset).unwrap_or(usize::MAX).min(part_bytes));
        reader.read_at(offset, part).map_err(|source| Fault::Unreadable { offset, source })?;
        offset += part.len() as u64;
        take(offset, part);
    }
    Ok(())
}
