//! Reads what comes to a log file, over its rotation. Decides nothing about lines.
//!
//! The file is held open between two reads: one that was renamed or removed meanwhile is read to its end before the new one of
//! its name. Where a file that is shorter now has the same inode, it was emptied and written anew. A line without an end
//! waits for it, unless it is as long as a line may be.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::regular_file;

/// What is read at once, in bytes. Of more that came the oldest is skipped: a log that grows so fast is not read to its end
/// at all, and who wants to know that something is wrong wants to know what is wrong now.
const READ_BYTES: u64 = 1024 * 1024;

/// Up to where a file was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadUpTo {
    /// Which file.
    pub inode: u64,
    /// Bytes of it.
    pub offset: u64,
    /// Lines since reading began.
    pub lines: u64,
}

/// A log file that is read on.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// The file in hand; it may have lost its name.
    open: Option<(File, ReadUpTo)>,
    /// There was none: what comes is new from its beginning on.
    was_missing: bool,
    /// Lines since reading began.
    lines: u64,
}

impl LogFile {
    /// Nothing is opened yet.
    pub fn new(path: &Path) -> LogFile {
        LogFile { path: path.to_owned(), open: None, was_missing: false, lines: 0 }
    }

    /// Gives `line` each new line with its number. For a file that was never read, `from` says up to where an earlier process
    /// did; without it reading begins at the end. `None` while there is no file.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn read_on(
        &mut self,
        from: Option<ReadUpTo>,
        line_bytes: usize,
        mut line: impl FnMut(u64, &[u8]),
    ) -> io::Result<Option<ReadUpTo>> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_other = |at: &ReadUpTo| found.as_ref().is_none_or(|found| found.ino() != at.inode);
        self.lines = self.lines.max(from.map_or(0, |from| from.lines));
        if let Some((file, at)) = self.open.take_if(|(_, at)| is_other(at)) {
            // Rotated away: what came before that is read, and nothing can come any more.
            self.lines = read(&file, at, line_bytes, &self.path, Rest::IsLine, &mut line)?.lines;
            self.was_missing = true;
        }
        if found.is_none() {
            self.was_missing = true;
            return Ok(None);
        }
        if self.open.is_none() {
            let file = regular_file::open_for_reading(&self.path)?;
            let metadata = file.metadata()?;
            let inode = metadata.ino();
            let offset = match from {
                _ if self.was_missing => 0,
                Some(from) if from.inode == inode => from.offset,
                Some(_) => 0,
                None => metadata.len(),
            };
            self.was_missing = false;
            self.open = Some((file, ReadUpTo { inode, offset, lines: self.lines }));
        }
        let Some((file, at)) = &mut self.open else { return Ok(None) };
        *at = read(file, *at, line_bytes, &self.path, Rest::Waits, &mut line)?;
        Ok(Some(*at))
    }
}

/// What the end of a file without an end of its line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The beginning of a line: somebody is about to write the rest.
    Waits,
    /// A line: nobody writes any more.
    IsLine,
}

/// Reads from `at` to the end.
fn read(
    mut file: &File,
    mut at: ReadUpTo,
    line_bytes: usize,
    path: &Path,
    rest: Rest,
    line: &mut dyn FnMut(u64, &[u8]),
) -> io::Result<ReadUpTo> {
    let length = file.metadata()?.len();
    if length < at.offset {
        at.offset = 0; // Emptied, and written anew.
    }
    if length - at.offset > READ_BYTES {
        log::warn!("{}: {} bytes of it are skipped", path.display(), length - at.offset - READ_BYTES);
        at.offset = length - READ_BYTES;
    }
    file.seek(SeekFrom::Start(at.offset))?;
    // Not beyond: a log that grows while it is read would have no end.
    let mut reader = BufReader::new(file.take(length - at.offset));
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let count = reader.by_ref().take(line_bytes as u64 + 1).read_until(b'\n', &mut bytes)?;
        let ends = bytes.last() == Some(&b'\n');
        if count == 0 || (!ends && count <= line_bytes && rest == Rest::Waits) {
            return Ok(at);
        }
        at.offset += count as u64;
        at.lines = at.lines.saturating_add(1);
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        line(at.lines, text.strip_suffix(b"\r").unwrap_or(text));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    struct Log {
        folder: tempfile::TempDir,
        file: LogFile,
    }

    impl Log {
        fn new() -> Log {
            let folder = tempfile::tempdir().unwrap();
            let file = LogFile::new(&folder.path().join("log"));
            Log { folder, file }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, text: &str) {
            let mut options = fs::OpenOptions::new();
            let mut file = options.append(true).create(true).open(self.path("log")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn read_from(&mut self, from: Option<ReadUpTo>) -> (String, Option<ReadUpTo>) {
            let mut lines = Vec::new();
            let note = |number, text: &[u8]| lines.push(format!("{number}{}", String::from_utf8_lossy(text)));
            let at = self.file.read_on(from, 16, note).unwrap();
            (lines.join(","), at)
        }

        #[track_caller]
        fn check(&mut self, expected: &str) {
            assert_eq!(self.read_from(None).0, expected);
        }

        /// The next process.
        fn restart(&mut self) {
            self.file = LogFile::new(&self.path("log"));
        }
    }

    #[test]
    fn only_what_is_new_is_read_and_a_line_when_it_is_whole() {
        let mut log = Log::new();
        log.write("old\n");
        log.check("");
        log.write("a\nb\r\nc");
        log.check("1a,2b");
        log.check("");
        log.write("d\n");
        log.check("3cd");
    }

    #[test]
    fn a_file_that_comes_later_is_read_from_its_beginning() {
        let mut log = Log::new();
        assert_eq!(log.read_from(None), (String::new(), None));
        log.write("a\n");
        log.check("1a");
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_and_then_the_new_one() {
        let mut log = Log::new();
        log.write("old\n");
        log.check("");
        log.write("a\nrest");
        fs::rename(log.path("log"), log.path("log.1")).unwrap();
        log.check("1a,2rest");
        log.write("b\n");
        log.check("3b");
        log.write("c\n");
        fs::rename(log.path("log"), log.path("log.1")).unwrap();
        log.write("d\n");
        log.check("4c,5d");
    }

    #[test]
    fn a_file_that_was_emptied_is_read_from_its_beginning() {
        let mut log = Log::new();
        log.write("a long line\n");
        log.check("");
        fs::write(log.path("log"), "b\n").unwrap();
        log.check("1b");
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_was() {
        let mut log = Log::new();
        log.write("old\n");
        let at = log.read_from(None).1;
        log.write("a\n");
        log.restart();
        assert_eq!(log.read_from(at).0, "1a");
        // Rotated meanwhile: the new file is read from its beginning.
        let at = log.read_from(at).1;
        fs::rename(log.path("log"), log.path("log.1")).unwrap();
        log.write("b\n");
        log.restart();
        assert_eq!(log.read_from(at).0, "2b");
        // A position behind its end.
        let at = log.read_from(at).1.map(|at| ReadUpTo { offset: 999, ..at });
        log.restart();
        assert_eq!(log.read_from(at).0, "3b");
    }

    #[test]
    fn a_line_without_an_end_is_read_in_pieces_and_a_flood_from_its_end() {
        let mut log = Log::new();
        log.check("");
        log.write(&"x".repeat(20));
        log.check(&format!("1{}", "x".repeat(17)));
        let line = "0123456\n";
        log.write(&line.repeat(READ_BYTES as usize / 8 + 1000));
        let (mut count, mut bytes) = (0_u64, 0);
        let note = |_, text: &[u8]| (count, bytes) = (count + 1, bytes + text.len() as u64 + 1);
        log.file.read_on(None, 16, note).unwrap();
        assert_eq!((count, bytes), (READ_BYTES / 8, READ_BYTES));
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let mut log = Log::new();
        fs::create_dir(log.path("log")).unwrap();
        assert!(log.file.read_on(None, 16, |_, _| {}).is_err());
    }
}
