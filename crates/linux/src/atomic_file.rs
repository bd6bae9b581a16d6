//! Files and directories that are there as a whole or not at all, also after a power cut.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Gives `from`, whose content is durable already, the name `to`, durably. Both lie in one directory.
///
/// # Errors
/// When renaming or syncing the directory failed; the name may then be either.
pub fn publish(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in `directory` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory)?.sync_all()
}

/// Makes a directory that only its owner may enter. It must not exist yet.
///
/// # Errors
/// When it exists or cannot be made.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Writes a new file, durably, that only its owner may use. `mode` is its permissions.
///
/// # Errors
/// When it exists, or cannot be written or synced.
pub fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives `path` this content, durably: the one before it or this one is there, whole.
///
/// # Errors
/// When it cannot be written; either may be there then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The content before the name.
    write_new(&new, content, mode)?;
    publish(&new, path)
}

/// Removes a directory and all in it. A missing one is fine.
///
/// # Errors
/// When something could not be removed.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a file, or a directory with all that is in it, durable with the names that lead there. One flush of the disk,
/// however many files there are.
///
/// # Errors
/// When something could not be looked at, or did not reach the disk.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        return if found.is_file() { open_plain(path)?.sync_all() } else { Ok(()) };
    }
    let root = File::open(path)?;
    nix::unistd::syncfs(&root)?;
    // Before Linux 5.8 `syncfs` says nothing about data that did not get there; each file still knows, and asking it
    // flushes nothing.
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                await_write_back(&open_plain(&entry.path())?)?;
            }
        }
    }
    Ok(())
}

/// Waits for what is being written of `file`, and tells whether all of it got to the disk.
fn await_write_back(file: &File) -> io::Result<()> {
    // SAFETY: the call takes a descriptor that `file` keeps open, and numbers.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WAIT_BEFORE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file and never what a link leads to.
fn open_plain(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}
