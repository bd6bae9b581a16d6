//! A slot read past the page cache: what the medium says, not what was just written to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use client_core::storage::ReadAt;
use log::debug;
use nix::fcntl::{FcntlArg, OFlag, PosixFadviseAdvice, fcntl, posix_fadvise};

use super::check_range;

/// What direct input wants: offsets, lengths and buffers that are multiples of it. No medium in use has larger blocks;
/// where one has, the kernel refuses, and the page cache is emptied instead.
const ALIGNMENT: usize = 4096;
/// Most bytes that go through a buffer of this reader's own at a time.
const BOUNCE_BYTES: usize = 128 * 1024;

/// Reads a file or block device with `O_DIRECT`; where that is refused, through a cache that is emptied before.
pub(super) struct DirectReader {
    file: File,
    name: String,
    len: u64,
    direct: bool,
    /// For what is not aligned: the end of an image that is not whole blocks.
    bounce: Vec<u8>,
}

impl DirectReader {
    /// A second way to what `file` is open to.
    ///
    /// # Errors
    /// When `/proc` does not say what it is.
    pub(super) fn beside(file: &File, name: &str, len: u64) -> io::Result<DirectReader> {
        // Not by its path: that may lead elsewhere by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let open = |flags| OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | flags).open(&path);
        let (file, direct) = match open(libc::O_DIRECT) {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(0)?, false),
            Err(error) => return Err(error),
        };
        Ok(DirectReader { file, name: name.to_owned(), len, direct, bounce: Vec::new() })
    }

    fn read_some(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if !self.direct {
            self.forget(offset, buf.len());
        }
        match self.file.read_at(buf, offset) {
            Err(error) if self.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                debug!("{}: not read past the page cache: {error}", self.name);
                // The description is this reader's alone: nobody writes through it.
                let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
                fcntl(&self.file, FcntlArg::F_SETFL(flags.difference(OFlag::O_DIRECT)))?;
                self.direct = false;
                self.read_some(offset, buf)
            }
            read => read,
        }
    }

    /// Empties the cache of a range that is on the medium. The kernel takes it as advice.
    fn forget(&self, offset: u64, len: usize) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        if let Err(error) = posix_fadvise(&self.file, offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
            debug!("{}: the cache is not emptied: {error}", self.name);
        }
    }

    /// Through a buffer of whole blocks around what is wanted. Returns how much of it there was.
    fn read_bounced(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut bounce = std::mem::take(&mut self.bounce);
        let before = usize::try_from(offset % ALIGNMENT as u64).unwrap_or(0);
        let blocks = (before + buf.len()).next_multiple_of(ALIGNMENT).min(BOUNCE_BYTES);
        if bounce.len() < blocks + ALIGNMENT {
            bounce.resize(blocks + ALIGNMENT, 0);
        }
        let start = bounce.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let result = match bounce.get_mut(start..start + blocks) {
            Some(block) => self.read_some(offset - before as u64, block).map(|count| {
                let found = block.get(..count).unwrap_or(block);
                let wanted = found.get(before..).unwrap_or_default();
                let count = wanted.len().min(buf.len());
                if let (Some(to), Some(from)) = (buf.get_mut(..count), wanted.get(..count)) {
                    to.copy_from_slice(from);
                }
                count
            }),
            None => Ok(0),
        };
        self.bounce = bounce;
        result
    }
}

impl ReadAt for DirectReader {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let whole = rest.len() / ALIGNMENT * ALIGNMENT;
            let is_aligned = at % ALIGNMENT as u64 == 0 && rest.as_ptr().align_offset(ALIGNMENT) == 0;
            let read = match rest.get_mut(..whole) {
                Some(blocks) if is_aligned && whole > 0 => self.read_some(at, blocks),
                Some(_) | None => self.read_bounced(at, rest),
            };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of a file with these bytes.
    fn reader_of(bytes: &[u8]) -> (tempfile::NamedTempFile, DirectReader) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let reader = DirectReader::beside(file.as_file(), "file", bytes.len() as u64).unwrap();
        file.as_file().sync_all().unwrap();
        (file, reader)
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 % 251) as u8 ^ (at >> 12) as u8).collect()
    }

    #[test]
    fn every_range_is_read_however_it_lies() {
        let bytes = noise(BOUNCE_BYTES + 5 * ALIGNMENT + 700);
        let (_file, mut direct) = reader_of(&bytes);
        let (_other, mut cached) = reader_of(&bytes);
        cached.direct = false;
        for reader in [&mut direct, &mut cached] {
            for (offset, len) in [
                (0, 4096),
                (0, bytes.len()),
                (4096, 8192),
                (4096, 4097),
                (1, 3),
                (BOUNCE_BYTES + 20_480, 700),
            ] {
                let mut memory = vec![0; len + ALIGNMENT];
                let aligned = memory.as_ptr().align_offset(ALIGNMENT);
                for start in [aligned, (aligned + 1) % ALIGNMENT] {
                    let buf = &mut memory[start..start + len];
                    reader.read_at(offset as u64, buf).unwrap();
                    assert!(*buf == bytes[offset..offset + len], "{len} bytes from {offset}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let (file, mut reader) = reader_of(&noise(ALIGNMENT));
        assert!(reader.read_at(1, &mut [0; ALIGNMENT]).is_err());
        file.as_file().set_len(100).unwrap();
        let error = reader.read_at(0, &mut [0; ALIGNMENT]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
