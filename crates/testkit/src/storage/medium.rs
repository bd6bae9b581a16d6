//! What every medium of a [`CrashWorld`](super::CrashWorld) can be asked, whatever is under it.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use client_core::storage::Medium;

use super::disk::Disk;
use super::faults::Fault;
use super::flash::Flash;
use super::volume::Volume;
use super::world::{Limits, Trace};
use crate::choice::{Choices, Generator, Mixer};

/// A device of the machine: a medium with a name.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) name: Rc<str>,
    /// Since the end of the set-up.
    pub(super) syncs: u64,
    pub(super) kind: Kind,
}

/// The media there are.
#[derive(Clone)]
pub(super) enum Kind {
    Disk(Disk),
    Flash(Flash),
    Volume(Volume),
}

impl Device {
    pub(super) fn model(&self) -> &dyn Model {
        match &self.kind {
            Kind::Disk(disk) => disk,
            Kind::Flash(flash) => flash,
            Kind::Volume(volume) => volume,
        }
    }

    pub(super) fn model_mut(&mut self) -> &mut dyn Model {
        match &mut self.kind {
            Kind::Disk(disk) => disk,
            Kind::Flash(flash) => flash,
            Kind::Volume(volume) => volume,
        }
    }

    pub(super) fn disk(&self) -> Option<&Disk> {
        match &self.kind {
            Kind::Disk(disk) => Some(disk),
            Kind::Flash(_) | Kind::Volume(_) => None,
        }
    }

    pub(super) fn disk_mut(&mut self) -> Option<&mut Disk> {
        match &mut self.kind {
            Kind::Disk(disk) => Some(disk),
            Kind::Flash(_) | Kind::Volume(_) => None,
        }
    }

    /// The bytes of a range that does not leave the device.
    pub(super) fn range(&self, offset: u64, len: usize) -> io::Result<Range<usize>> {
        let past_the_end = || io::Error::new(io::ErrorKind::InvalidInput, "past the end of the device");
        let start = usize::try_from(offset).map_err(|_| past_the_end())?;
        let end = start.checked_add(len).filter(|&end| end <= self.model().len()).ok_or_else(past_the_end)?;
        Ok(start..end)
    }
}

/// A medium: what is on it, and what is on its way there.
pub(super) trait Model {
    fn medium(&self) -> Medium;

    fn len(&self) -> usize;

    /// What reads return of a range, unless some of it cannot be read.
    fn read(&self, range: Range<usize>) -> io::Result<&[u8]>;

    /// What is on the medium of a range, past every cache. `None` where there is no way past one.
    fn read_medium(&self, _range: Range<usize>) -> Option<io::Result<&[u8]>> {
        None
    }

    /// Begins the replacement of the first `len` bytes. Only a UBI volume has to know.
    fn begin_replace(&mut self, _len: usize) {}

    /// Puts a write on its way, changed by its fate.
    fn write(&mut self, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()>;

    /// Clears bits of one byte. Only NOR flash can do that without a write.
    fn clear_bits(&mut self, start: usize, value: u8, fate: Option<Fault>) -> io::Result<()> {
        self.write(start, &[value], fate)
    }

    /// Why nothing can be synced now.
    fn sync_refused(&self) -> Option<String> {
        None
    }

    /// Everything pending arrives.
    fn flush(&mut self);

    /// Forgets what is cached and not pending.
    fn drop_cache(&mut self) {}

    fn is_pending(&self) -> bool;

    /// Decides how much of what is pending happened, where that is a matter of this medium alone. Sectors of disks are
    /// decided for the whole machine at once ([`World::choose_image`](super::World)).
    fn decide(&mut self, name: &str, choices: &mut Choices, limits: &Limits, trace: &mut Trace);

    /// The power is gone, and everything is decided: nothing is cached or pending any more.
    fn lose_power(&mut self) {}

    /// The machine starts, with or without the power having been gone.
    fn start(&mut self) {
        self.drop_cache();
    }

    /// Everything that reads return is on the medium: the end of a set-up.
    fn settle(&mut self) {
        self.flush();
    }

    /// All that reads return; empty where nothing can be read.
    fn live(&self) -> Vec<u8>;

    /// All that is on the medium; empty where nothing can be read.
    fn durable(&self) -> Vec<u8>;

    /// The number of everything that is on the medium.
    fn hash(&self, hash: &mut Mixer);
}

/// Which of the pending steps of a medium that keeps their order was the last one to happen, and what became of the
/// next: the steps that happened as a whole, and the number of a way in which the next one stopped half-way.
///
/// `ways` is in how many ways each step can stop.
pub(super) fn choose_progress(choices: &mut Choices, ways: &[usize]) -> (usize, Option<usize>) {
    let all: usize = ways.iter().map(|ways| 1 + ways).sum();
    // The first answer is that nothing happened, the last one that everything did.
    let mut answer = choices.choose(all + 1);
    for (step, ways) in ways.iter().enumerate() {
        if answer <= *ways {
            return (step, answer.checked_sub(1));
        }
        answer -= 1 + ways;
    }
    (ways.len(), None)
}

/// Bytes that are neither this nor that.
pub(super) fn garble(content: &mut [u8], seed: usize) {
    let mut noise = Generator::new(seed as u64);
    for byte in content {
        *byte = noise.next_word().to_le_bytes()[0];
    }
}

/// The numbers Linux has for these errors.
pub(super) const EIO: i32 = 5;
pub(super) const EBADF: i32 = 9;
pub(super) const ENOSPC: i32 = 28;
