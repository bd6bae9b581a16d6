//! Advisory locks on files (`flock`), the kind that `fw_setenv` and `grub-mender-grubenv-set` take.
//!
//! They keep programs that ask apart, nothing else. The kernel releases a lock when its holder dies.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client_core::clock::Clock;
use fs2::FileExt;
use log::debug;

use crate::clock::LinuxClock;
use crate::regular_file;

/// How often a lock that is held is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// A held lock. Dropping it releases it; the file stays, as others may be waiting on it.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

/// Why a lock was not taken.
#[non_exhaustive]
pub enum LockError {
    /// Another program kept it for longer than we wait.
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be opened or created.
    Open {
        /// The lock file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

client_core::artifact::debug_as_displayed!(LockError);

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockError::Held { path } => write!(f, "{} is locked by another program", path.display()),
            LockError::Open { path, source } => {
                write!(f, "cannot open the lock {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LockError::Open { source, .. } => Some(source),
            LockError::Held { .. } => None,
        }
    }
}

impl FileLock {
    /// Takes the lock `path`, creating the file, and waits up to `wait` for whoever has it.
    ///
    /// # Errors
    /// [`LockError::Held`] after `wait`, [`LockError::Open`] at once.
    pub fn acquire(path: &Path, wait: Duration) -> Result<FileLock, LockError> {
        let open_error = |source| LockError::Open { path: path.to_path_buf(), source };
        let file = open(path).map_err(open_error)?;
        match try_for(&file, wait).map_err(open_error)? {
            true => Ok(FileLock { path: path.to_path_buf(), _file: file }),
            false => Err(LockError::Held { path: path.to_path_buf() }),
        }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Locks `file`, waiting up to `wait` for whoever has it. Whether that worked.
pub(crate) fn try_for(file: &File, wait: Duration) -> io::Result<bool> {
    // A clock that nobody asks to stop: what the lock is for must not look as if it had failed. A stop that takes too long
    // ends the process, and the wait with it.
    let clock = LinuxClock::new();
    let deadline = clock.now().saturating_add(wait);
    loop {
        match FileExt::try_lock_exclusive(file) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if clock.now() >= deadline {
            return Ok(false);
        }
        debug!("waiting for a lock");
        clock.pause(RETRY.min(wait));
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let created = regular_file::open(path, options.write(true).create(true).truncate(false).mode(0o666));
    match created {
        // The file of another user: a descriptor for reading can carry a lock as well. Root needs this too, in
        // a directory with `fs.protected_regular`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            regular_file::open_for_reading(path).map_err(|_| error)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_WAIT: Duration = Duration::ZERO;

    #[test]
    fn a_held_lock_is_refused_with_its_path_and_free_after_the_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = FileLock::acquire(&path, NO_WAIT).unwrap();
        let refused = FileLock::acquire(&path, NO_WAIT).unwrap_err();
        assert_eq!(refused.to_string(), format!("{} is locked by another program", path.display()));
        drop(held);
        FileLock::acquire(&path, NO_WAIT).unwrap();
    }

    #[test]
    fn a_lock_that_is_released_in_time_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = FileLock::acquire(&path, NO_WAIT).unwrap();
        let wanted = path.clone();
        let waiting = std::thread::spawn(move || FileLock::acquire(&wanted, Duration::from_secs(60)));
        drop(held);
        let taken = waiting.join().unwrap().unwrap();
        // It is the lock, and it is held.
        assert_eq!(taken.path(), path);
        assert!(matches!(FileLock::acquire(&path, NO_WAIT), Err(LockError::Held { .. })));
    }

    #[test]
    fn a_lock_in_a_missing_directory_names_its_path() {
        let refused = FileLock::acquire(Path::new("/nonexistent/a.lock"), NO_WAIT).unwrap_err();
        assert!(refused.to_string().starts_with("cannot open the lock /nonexistent/a.lock: "));
    }
}
