//! An artifact in a file: from any place on where the file has places.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use client_core::artifact::{Places, Supply};

/// What `file` holds. A pipe, a terminal or a socket has one order only.
///
/// # Errors
/// For a directory, and where the file cannot be looked at.
pub fn supply(file: File) -> io::Result<Supply> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Ok(file.into());
    }
    Ok(Supply::Places(Box::new(FilePlaces { file: Arc::new(file), length: metadata.len() })))
}

struct FilePlaces {
    file: Arc<File>,
    length: u64,
}

impl Places for FilePlaces {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let end = end.unwrap_or(u64::MAX);
        Ok(Box::new(Part { file: Arc::clone(&self.file), offset, end }))
    }

    fn can_jump(&self) -> bool {
        true
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.length)
    }

    fn note_every(&self) -> Option<u64> {
        None
    }
}

struct Part {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let count = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_any_place_on_and_a_pipe_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        let Supply::Places(mut places) = supply(File::open(&path).unwrap()).unwrap() else {
            panic!("a file has places")
        };
        assert_eq!((places.can_jump(), places.total_bytes()), (true, Some(10)));
        let mut read = |offset, end| {
            let mut text = String::new();
            places.open_at(offset, end).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read(0, None), "0123456789");
        assert_eq!(
            (read(3, Some(5)), read(7, None), read(20, None)),
            ("34".into(), "789".into(), String::new())
        );
        assert!(supply(File::open(directory.path()).unwrap()).is_err());
        let null = supply(File::open("/dev/null").unwrap()).unwrap();
        assert!(matches!(null, Supply::Stream(_)));
    }
}
