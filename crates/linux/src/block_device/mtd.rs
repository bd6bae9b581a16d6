//! Raw flash behind an MTD character device (`/dev/mtdN`).
//!
//! A write reads each erase block it touches, erases it and writes it whole, so that the rest of the block
//! survives; not a power cut, however: **during the write of a block everything in it can be lost**. Copies of
//! an environment must therefore lie in different erase blocks.
//!
//! On NAND flash an erase block can be bad. [`MtdDevice::open_region`] maps a range of good blocks as
//! libubootenv and U-Boot do: bad ones are skipped within NSECTORS. [`MtdDevice::open`] maps the device as it
//! is, and a bad block there is an error. A block that goes bad while it is written is an error too; it is not
//! marked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use client_core::storage::{BlockDevice, Medium};
use log::debug;

use super::{Access, check_range};

/// `struct mtd_info_user` of `mtd/mtd-abi.h`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MtdInfo {
    kind: u8,
    flags: u32,
    size: u32,
    erase_size: u32,
    write_size: u32,
    oob_size: u32,
    padding: u64,
}

/// `struct erase_info_user` of `mtd/mtd-abi.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EraseInfo {
    start: u32,
    length: u32,
}

const MTD_NORFLASH: u8 = 3;
const MTD_NANDFLASH: u8 = 4;
const MTD_MLCNANDFLASH: u8 = 8;

mod ioctls {
    use super::{EraseInfo, MtdInfo};
    nix::ioctl_read!(
        /// MEMGETINFO.
        mem_get_info, b'M', 1, MtdInfo
    );
    nix::ioctl_write_ptr!(
        /// MEMERASE.
        mem_erase, b'M', 2, EraseInfo
    );
    nix::ioctl_write_ptr!(
        /// MEMLOCK.
        mem_lock, b'M', 5, EraseInfo
    );
    nix::ioctl_write_ptr!(
        /// MEMUNLOCK.
        mem_unlock, b'M', 6, EraseInfo
    );
    nix::ioctl_write_ptr!(
        /// MEMGETBADBLOCK.
        mem_get_bad_block, b'M', 11, i64
    );
}

/// Whether erase blocks are locked again after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relock {
    /// As the tools do by default.
    Yes,
    /// DISABLE_LOCK of `fw_env.config`.
    No,
}

/// Raw flash, or a range of its good blocks.
#[derive(Debug)]
pub struct MtdDevice {
    file: File,
    name: String,
    medium: Medium,
    erase_bytes: u32,
    relock: Relock,
    blocks: Blocks,
}

/// Which erase blocks of the flash the device's bytes lie in.
#[derive(Debug, PartialEq, Eq)]
enum Blocks {
    /// All of them in order: their number.
    All(u32),
    /// These, by the offset of each.
    Good(Vec<u32>),
}

impl Blocks {
    fn count(&self) -> usize {
        match self {
            Blocks::All(count) => *count as usize,
            Blocks::Good(starts) => starts.len(),
        }
    }

    fn start(&self, index: u64, erase_bytes: u32) -> io::Result<u32> {
        let start = match self {
            Blocks::All(count) => u32::try_from(index)
                .ok()
                .filter(|index| index < count)
                .and_then(|index| index.checked_mul(erase_bytes)),
            Blocks::Good(starts) => usize::try_from(index).ok().and_then(|index| starts.get(index).copied()),
        };
        start.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "past the last erase block"))
    }
}

impl MtdDevice {
    /// Opens the whole flash of `path`.
    ///
    /// # Errors
    /// When it is not NOR or NAND flash, or the operating system refuses.
    pub fn open(path: &Path, access: Access) -> io::Result<MtdDevice> {
        let (file, info, medium) = open_flash(path, access)?;
        Ok(MtdDevice {
            file,
            name: path.display().to_string(),
            medium,
            erase_bytes: info.erase_size,
            relock: Relock::Yes,
            blocks: Blocks::All(info.size / info.erase_size),
        })
    }

    /// Opens the first good erase blocks from `offset` on that hold `size_bytes`, looking at `sectors` blocks at
    /// the most (0: at as many as are needed when none is bad).
    ///
    /// # Errors
    /// As for [`open`](MtdDevice::open), when `offset` is not at the start of an erase block, or when too many
    /// blocks are bad.
    pub fn open_region(
        path: &Path,
        access: Access,
        offset: u64,
        size_bytes: u64,
        sectors: u64,
        relock: Relock,
    ) -> io::Result<MtdDevice> {
        let (file, info, medium) = open_flash(path, access)?;
        let is_bad = |start: u32| -> io::Result<bool> {
            if medium != Medium::NandFlash {
                return Ok(false);
            }
            let start = i64::from(start);
            // SAFETY: the request reads one i64, which lives until it returns; `file` keeps the descriptor open.
            Ok(unsafe { ioctls::mem_get_bad_block(file.as_raw_fd(), &start) }? != 0)
        };
        let starts = good_blocks(offset, size_bytes, sectors, info.erase_size, info.size, is_bad)?;
        let name = format!("{}+{offset:#x}", path.display());
        Ok(MtdDevice {
            file,
            name,
            medium,
            erase_bytes: info.erase_size,
            relock,
            blocks: Blocks::Good(starts),
        })
    }

    /// Bytes of an erase block.
    pub fn erase_bytes(&self) -> u64 {
        u64::from(self.erase_bytes)
    }

    /// Offsets in the flash of the blocks that are mapped, when not all of them are.
    pub fn block_starts(&self) -> &[u32] {
        match &self.blocks {
            Blocks::All(_) => &[],
            Blocks::Good(starts) => starts,
        }
    }

    /// The parts of a range that lie in one erase block each: offset in the flash of the block, offset in the
    /// block, length.
    fn parts(&self, offset: u64, len: usize) -> io::Result<Vec<(u32, usize, usize)>> {
        check_range(offset, len, self.len())?;
        let erase_bytes = u64::from(self.erase_bytes);
        let mut parts = Vec::new();
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let within = (at % erase_bytes) as usize;
            let length = left.min(self.erase_bytes as usize - within);
            parts.push((self.blocks.start(at / erase_bytes, self.erase_bytes)?, within, length));
            at += length as u64;
            left -= length;
        }
        Ok(parts)
    }

    fn unlock(&self, block: EraseInfo) {
        // SAFETY: the request reads one EraseInfo, which lives until it returns; the descriptor is open.
        if let Err(error) = unsafe { ioctls::mem_unlock(self.file.as_raw_fd(), &block) } {
            // Most flash has no locks; if it has, the erase fails and says so.
            debug!("{}: unlock {:#x}: {error}", self.name, block.start);
        }
    }

    fn lock(&self, block: EraseInfo) {
        match self.relock {
            Relock::No => {}
            Relock::Yes => {
                // SAFETY: as in `unlock`.
                if let Err(error) = unsafe { ioctls::mem_lock(self.file.as_raw_fd(), &block) } {
                    debug!("{}: lock {:#x}: {error}", self.name, block.start);
                }
            }
        }
    }

    fn rewrite(&self, start: u32, bytes: &[u8]) -> io::Result<()> {
        let block = EraseInfo { start, length: self.erase_bytes };
        self.unlock(block);
        // SAFETY: the request reads one EraseInfo, which lives until it returns; the descriptor is open.
        unsafe { ioctls::mem_erase(self.file.as_raw_fd(), &block) }?;
        self.file.write_all_at(bytes, u64::from(start))?;
        self.lock(block);
        Ok(())
    }
}

fn open_flash(path: &Path, access: Access) -> io::Result<(File, MtdInfo, Medium)> {
    let file = OpenOptions::new()
        .read(true)
        .write(access != Access::Read)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)?;
    let mut info = MtdInfo::default();
    // SAFETY: the request fills one MtdInfo, laid out as the kernel's struct; `file` keeps the descriptor open.
    unsafe { ioctls::mem_get_info(file.as_raw_fd(), &mut info) }?;
    let medium = match info.kind {
        MTD_NORFLASH => Medium::NorFlash,
        MTD_NANDFLASH | MTD_MLCNANDFLASH => Medium::NandFlash,
        other => {
            let what = format!("MTD type {other} is neither NOR nor NAND flash");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
    };
    if info.erase_size == 0 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the flash reports no erase blocks"));
    }
    Ok((file, info, medium))
}

/// The erase blocks that hold `size_bytes` from `offset` on.
fn good_blocks(
    offset: u64,
    size_bytes: u64,
    sectors: u64,
    erase_bytes: u32,
    flash_bytes: u32,
    is_bad: impl Fn(u32) -> io::Result<bool>,
) -> io::Result<Vec<u32>> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if offset % u64::from(erase_bytes) != 0 {
        return refuse(format!(
            "offset {offset:#x} is not at the start of an erase block of {erase_bytes:#x}"
        ));
    }
    let needed = size_bytes.div_ceil(u64::from(erase_bytes));
    let end = offset.saturating_add(needed.max(sectors).saturating_mul(u64::from(erase_bytes)));
    let mut good = Vec::new();
    let mut start = offset;
    while (good.len() as u64) < needed {
        let inside = start.saturating_add(u64::from(erase_bytes)) <= end.min(u64::from(flash_bytes));
        let Some(block) = u32::try_from(start).ok().filter(|_| inside) else {
            return refuse(format!(
                "{needed} good erase blocks are needed at {offset:#x} and {} are there",
                good.len()
            ));
        };
        if !is_bad(block)? {
            good.push(block);
        }
        start += u64::from(erase_bytes);
    }
    Ok(good)
}

impl BlockDevice for MtdDevice {
    fn len(&self) -> u64 {
        self.blocks.count() as u64 * u64::from(self.erase_bytes)
    }

    fn medium(&self) -> Medium {
        self.medium
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut rest = buf;
        for (start, within, length) in self.parts(offset, rest.len())? {
            let (part, after) = rest.split_at_mut(length);
            self.file.read_exact_at(part, u64::from(start) + within as u64)?;
            rest = after;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        for (start, within, length) in self.parts(offset, data.len())? {
            let (part, after) = rest.split_at(length);
            if length == self.erase_bytes as usize {
                self.rewrite(start, part)?;
            } else {
                let mut block = vec![0; self.erase_bytes as usize];
                self.file.read_exact_at(&mut block, u64::from(start))?;
                block[within..within + length].copy_from_slice(part);
                self.rewrite(start, &block)?;
            }
            rest = after;
        }
        Ok(())
    }

    fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
        if self.medium != Medium::NorFlash {
            return self.write_at(offset, &[value]);
        }
        for (start, within, _) in self.parts(offset, 1)? {
            let block = EraseInfo { start, length: self.erase_bytes };
            self.unlock(block);
            self.file.write_all_at(&[value], u64::from(start) + within as u64)?;
            self.lock(block);
        }
        Ok(())
    }

    /// Nothing to do: the driver has written when `write` returns, and the character device has no cache.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sectors: u64, bad: &[u32], expected: Option<&[u32]>) {
        let found = good_blocks(0x100, 0x180, sectors, 0x100, 0x800, |start| Ok(bad.contains(&start)));
        assert_eq!(found.ok().as_deref(), expected, "{sectors} {bad:?}");
    }

    #[test]
    fn bad_blocks_are_skipped_within_the_given_sectors() {
        check(0, &[], Some(&[0x100, 0x200]));
        check(4, &[0x100, 0x300], Some(&[0x200, 0x400]));
    }

    #[test]
    fn too_many_bad_blocks_are_an_error() {
        check(0, &[0x200], None);
        check(3, &[0x100, 0x200], None);
        check(100, &[0x100, 0x200, 0x300, 0x400, 0x500, 0x600], None);
    }

    #[test]
    fn a_region_starts_at_an_erase_block() {
        assert!(good_blocks(0x180, 0x80, 0, 0x100, 0x800, |_| Ok(false)).is_err());
    }

    #[test]
    fn hostile_regions_are_refused() {
        assert!(good_blocks(u64::MAX - 0xFF, u64::MAX, u64::MAX, 0x100, 0x800, |_| Ok(false)).is_err());
    }

    #[test]
    fn the_structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<MtdInfo>(), 32);
        assert_eq!(size_of::<EraseInfo>(), 8);
    }
}
