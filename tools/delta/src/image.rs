//! An image that is read at any place, by several threads at once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// A file or a device.
#[derive(Debug)]
pub struct Image {
    file: File,
    bytes: u64,
}

impl Image {
    /// A whole file.
    pub fn new(file: File) -> io::Result<Image> {
        let mut end = &file;
        // The metadata of a device says nothing about its size.
        let bytes = end.seek(SeekFrom::End(0))?;
        Ok(Image { file, bytes })
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads all of `buffer`; the end of the image is an error.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, at)
    }

    /// All of it, in order.
    pub fn reader(&self) -> impl Read + '_ {
        Reader { image: self, at: 0 }
    }

    /// The same where what lies behind the end reads as zeros.
    pub fn read_padded(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        let (data, padding) = buffer.split_at_mut(there);
        padding.fill(0);
        match data.is_empty() {
            true => Ok(()),
            false => self.read_at(at, data),
        }
    }
}

struct Reader<'a> {
    image: &'a Image,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::try_from(self.image.bytes - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..count) else { return Ok(0) };
        self.image.read_at(self.at, part)?;
        self.at += count as u64;
        Ok(count)
    }
}
