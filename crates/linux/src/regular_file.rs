//! Opens files in directories of this client that may hold anything after a crash of the file system, or by a mistake.
//!
//! Only regular files are opened, at the end of a symbolic link too, and no call waits: a FIFO without a partner would
//! stop this process for ever, a device without an end would fill its memory.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens `path` as `options` say.
///
/// # Errors
/// When it is not a regular file, or the operating system refuses.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::metadata(path) {
        // Looked at first: opening some devices has an effect already.
        Ok(metadata) => check(metadata.file_type())?,
        // Without permission to look there is none to open, and what is missing may be about to be created.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    // Once more: another file may have the name now.
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Opens `path` for reading.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub fn open_for_reading(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().read(true))
}

/// The content of `path`, of at most `limit` bytes.
///
/// # Errors
/// When it is not a regular file, longer, or cannot be read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open_for_reading(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {limit} bytes")));
    }
    Ok(content)
}

fn check(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {}, not a regular file", name(kind))))
}

/// What a file is, in words.
pub fn name(kind: FileType) -> &'static str {
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_block_device() {
        "a block device"
    } else {
        "a socket"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    fn check_refused(path: &Path, what: &str) {
        for options in
            [OpenOptions::new().read(true), OpenOptions::new().write(true), OpenOptions::new().append(true)]
        {
            let error = open(path, options).unwrap_err().to_string();
            assert_eq!(error, format!("it is {what}, not a regular file"));
        }
        assert!(read(path, 10).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        symlink("fifo", path("link")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        check_refused(&path("fifo"), "a FIFO");
        check_refused(&path("link"), "a FIFO");
        check_refused(&path("endless"), "a character device");
        check_refused(&path("socket"), "a socket");
        check_refused(folder.path(), "a directory");
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_not_beyond_also_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"0123456789").unwrap();
        symlink("file", folder.path().join("link")).unwrap();
        assert_eq!(read(&folder.path().join("link"), 10).unwrap(), b"0123456789");
        assert_eq!(read(&path, 9).unwrap_err().to_string(), "it is longer than 9 bytes");
        assert_eq!(read(&folder.path().join("none"), 9).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
