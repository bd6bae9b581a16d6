//! The one raw storage seam: slots, copies of the boot environment and the state record all lie on it.
//!
//! The codecs of the boot environments and of the state record are production code running over
//! [`BlockDevice`], so the crash device of `testkit` can lose, reorder and tear their writes.
//! [`two_copies`] is the rule that all of them keep. This module does not open anything.

pub mod two_copies;

use std::io;

/// What lies under a device, where the difference matters to a format stored on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Medium {
    /// A block device or a regular file: any range can be rewritten in place.
    Rewritable,
    /// NOR flash: a range is erased before it is written; single bits can be cleared without an erase.
    NorFlash,
    /// NAND flash: a range is erased before it is written; no bit can be cleared afterwards.
    NandFlash,
    /// A UBI volume: replaced as a whole, atomically.
    UbiVolume,
}

/// How a device can be read past everything that the operating system remembers of it, beside the device itself.
pub enum PastCache {
    /// Not at all: [`drop_cache`](BlockDevice::drop_cache), then [`read_at`](BlockDevice::read_at).
    No,
    /// In the thread of the device.
    Here(Box<dyn ReadAt>),
    /// In any thread.
    Anywhere(Box<dyn ReadAt + Send>),
}

/// A range of bytes of fixed length that survives a power cut, once synced.
///
/// # Contract
/// - [`write_at`](BlockDevice::write_at) is volatile: until [`sync`](BlockDevice::sync) returns `Ok`, any
///   512-byte sector of it may hold the old content, the new one or, after a power cut, neither.
/// - After a `sync` that failed, everything written since the last good one is unknown, and a later `Ok` does
///   not bring it back.
/// - Neither reads nor writes reach past [`len`](BlockDevice::len): such a call is an error and has no effect.
/// - On flash ([`Medium::NorFlash`], [`Medium::NandFlash`]) `write_at` erases what it must: the caller sees an
///   ordinary overwrite. A write to part of an erase block keeps the rest of the block.
pub trait BlockDevice {
    /// Length in bytes. It does not change while the device is open.
    fn len(&self) -> u64;

    /// Whether the device has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What lies underneath.
    fn medium(&self) -> Medium {
        Medium::Rewritable
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// When the range is not readable or reaches past the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. Volatile until [`sync`](BlockDevice::sync).
    ///
    /// # Errors
    /// When the range reaches past the end, or the write failed or was short; how much of it happened is then
    /// unknown.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Clears the bits of one byte on NOR flash without an erase, as U-Boot does to mark the older copy of its
    /// environment obsolete. On every other medium the same as a one-byte [`write_at`](BlockDevice::write_at).
    ///
    /// # Errors
    /// As for [`write_at`](BlockDevice::write_at).
    fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
        self.write_at(offset, &[value])
    }

    /// Announces that the next writes replace bytes `0..len` from front to back, each starting where the last
    /// one ended. A UBI volume starts its atomic update here; every other medium does nothing.
    ///
    /// # Errors
    /// When the medium refuses, for example because `len` does not fit.
    fn begin_replace(&mut self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// A hint that the range will be synced soon, so that writing back can start now. Promises nothing.
    fn start_write_back(&mut self, _offset: u64, _len: u64) {}

    /// Makes everything written so far durable, also what others (a bootloader) wrote before us and did not
    /// flush.
    ///
    /// # Errors
    /// See the contract: after an error everything since the last good `sync` is unknown.
    fn sync(&mut self) -> io::Result<()>;

    /// Forgets cached content, so that the next read comes from the medium. Best effort where the operating
    /// system only takes advice.
    ///
    /// # Errors
    /// When the operating system refused outright.
    fn drop_cache(&mut self) -> io::Result<()>;

    /// A reader of the medium itself. It is asked only for what was synced, while other ranges may be written. It reads the
    /// fastest into buffers that begin at, and from offsets and with lengths that are, multiples of 4096; others are right
    /// too.
    fn past_cache(&mut self) -> PastCache {
        PastCache::No
    }

    /// Tells the medium that nothing from `offset` on is needed any more, where the device is set up to do that and the
    /// medium takes it. What is read there afterwards may be anything. Returns how many bytes it was.
    ///
    /// # Errors
    /// When the medium refused. Nothing before `offset` has changed.
    fn discard_behind(&mut self, _offset: u64) -> io::Result<u64> {
        Ok(0)
    }

    /// Name for messages, usually the path.
    fn name(&self) -> &str;
}

/// A range of bytes of fixed length that is only read.
pub trait ReadAt {
    /// Length in bytes. It does not change while the source is open.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// When the range is not readable or reaches past the end.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Name for messages, usually the path.
    fn name(&self) -> &str;
}

/// A device of which only the reading half can be reached.
pub struct ReadOnly<D>(D);

impl<D: BlockDevice> ReadOnly<D> {
    /// Takes the writing half of `device` away.
    pub fn new(device: D) -> ReadOnly<D> {
        ReadOnly(device)
    }
}

impl<D: BlockDevice> ReadAt for ReadOnly<D> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

impl<T: BlockDevice + ?Sized> BlockDevice for Box<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn medium(&self) -> Medium {
        (**self).medium()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, data)
    }
    fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
        (**self).clear_bits_at(offset, value)
    }
    fn begin_replace(&mut self, len: u64) -> io::Result<()> {
        (**self).begin_replace(len)
    }
    fn start_write_back(&mut self, offset: u64, len: u64) {
        (**self).start_write_back(offset, len);
    }
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        (**self).drop_cache()
    }
    fn past_cache(&mut self) -> PastCache {
        (**self).past_cache()
    }
    fn discard_behind(&mut self, offset: u64) -> io::Result<u64> {
        (**self).discard_behind(offset)
    }
    fn name(&self) -> &str {
        (**self).name()
    }
}
