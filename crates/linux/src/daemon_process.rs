//! The one daemon of a device: the file that says which process it is, and asking that process for something.

use fs2::FileExt;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::LinuxClock;
use crate::lock::{self, LockError};
use crate::process_group::{Ended, ProcessGroup};
use crate::regular_file;

/// The units under which a daemon may run: ours, and those of the Mender client 5.x and 3.x.
const UNITS: [&str; 3] = ["rust-ota", "mender-updated", "mender-client"];
/// Characters of the longest process id.
const PID_CHARACTERS: usize = 10;
/// How long the service manager may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Says that this process is the daemon, until it is dropped or the process ends: the file is locked as long.
#[derive(Debug)]
pub struct PidFile {
    _file: File,
}

impl PidFile {
    /// Writes the id of this process to `path`, and waits up to `wait` for a daemon that has just ended: a program that it
    /// was about to start may hold its lock for a moment. The file stays when the process ends; its lock does not.
    ///
    /// # Errors
    /// [`LockError::Held`] when another daemon runs, [`LockError::Open`] when the file cannot be opened. That its content
    /// cannot be written, on a full disk, is only logged.
    pub fn create(path: &Path, wait: Duration) -> Result<PidFile, LockError> {
        let open_error = |source| LockError::Open { path: path.to_path_buf(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = regular_file::open(path, &mut options).map_err(open_error)?;
        if !lock::try_for(&file, wait).map_err(open_error)? {
            return Err(LockError::Held { path: path.to_path_buf() });
        }
        // The lock is what counts. In place and always as long: that needs no free block on a full disk.
        let text = format!("{:<PID_CHARACTERS$}\n", std::process::id());
        let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
        if let Err(error) = written {
            log::warn!("cannot write {}: {error}; other commands will not find this daemon", path.display());
        }
        Ok(PidFile { _file: file })
    }
}

/// What a daemon can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Ask the server for an update now.
    CheckUpdate,
    /// Send the inventory now.
    SendInventory,
}

/// Why the daemon was not asked.
#[non_exhaustive]
pub enum DemandError {
    /// There is none.
    NoDaemon {
        /// The file that would say which process it is.
        path: PathBuf,
    },
    /// It may not be asked by this user, or is gone in this moment.
    Signal {
        /// Its process id.
        pid: i32,
        /// The error of the operating system.
        source: io::Error,
    },
}

client_core::artifact::debug_as_displayed!(DemandError);

impl fmt::Display for DemandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemandError::NoDaemon { path } => {
                write!(f, "no daemon is running: {} names none", path.display())
            }
            DemandError::Signal { pid, source } => {
                write!(f, "cannot signal the daemon, process {pid}: {source}")
            }
        }
    }
}

impl std::error::Error for DemandError {}

/// Who knows the daemon when its file does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherwiseAsk {
    /// The service manager, about the daemon of this machine.
    ServiceManager,
    /// Nobody: a virtual device is not the machine it runs on.
    Nobody,
}

/// Asks the daemon of the file `path` for something.
///
/// # Errors
/// When there is none, or it may not be asked.
pub fn demand(path: &Path, otherwise: OtherwiseAsk, demand: Demand) -> Result<(), DemandError> {
    let pid = find(path).or_else(|| match otherwise {
        OtherwiseAsk::ServiceManager => ask_service_manager(),
        OtherwiseAsk::Nobody => None,
    });
    let pid = pid.ok_or_else(|| DemandError::NoDaemon { path: path.to_path_buf() })?;
    let signal = match demand {
        Demand::CheckUpdate => Signal::SIGUSR1,
        Demand::SendInventory => Signal::SIGUSR2,
    };
    kill(Pid::from_raw(pid), signal).map_err(|error| DemandError::Signal { pid, source: error.into() })
}

/// The process that holds `path` and wrote its id there.
pub fn find(path: &Path) -> Option<i32> {
    let mut file = regular_file::open_for_reading(path).ok()?;
    // Whoever could take the lock sees the rest of a daemon that is gone: its id may be another's now.
    match FileExt::try_lock_shared(&file) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(()) | Err(_) => return None,
    }
    let mut text = String::new();
    Read::by_ref(&mut file).take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 1)
}

fn ask_service_manager() -> Option<i32> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--property=MainPID"]).args(UNITS);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = ProcessGroup::spawn(&mut command).ok()?;
    let (stdout, _) = group.take_output();
    // Three short lines fit into the pipe: the program does not wait for its reader.
    if !matches!(group.wait(ANSWER, &LinuxClock::new()), Ok(Ended::Exited(status)) if status.success()) {
        return None;
    }
    drop(group);
    let mut text = String::new();
    stdout?.take(4096).read_to_string(&mut text).ok()?;
    main_pid(&text)
}

/// The first process of `MainPID=` lines; a unit without one has 0.
fn main_pid(text: &str) -> Option<i32> {
    let pids = text.lines().filter_map(|line| line.strip_prefix("MainPID=")?.trim().parse().ok());
    pids.into_iter().find(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_found_as_long_as_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rust-ota.pid");
        assert_eq!(find(&path), None);
        std::fs::write(&path, "123456789 the rest of a longer one").unwrap();
        assert_eq!(find(&path), None);
        let running = PidFile::create(&path, Duration::ZERO).unwrap();
        assert_eq!(find(&path), Some(std::process::id().try_into().unwrap()));
        assert!(matches!(PidFile::create(&path, Duration::ZERO), Err(LockError::Held { .. })));
        drop(running);
        assert_eq!(find(&path), None);
    }

    #[test]
    fn a_file_without_a_process_names_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rust-ota.pid");
        let running = PidFile::create(&path, Duration::ZERO).unwrap();
        for content in ["", "x", "-1", "0", "1"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(find(&path), None, "{content}");
        }
        drop(running);
    }

    #[test]
    fn the_service_manager_knows_it_by_several_names() {
        assert_eq!(main_pid("MainPID=0\n\nMainPID=42\n\nMainPID=0\n"), Some(42));
        assert_eq!(main_pid("MainPID=0\n"), None);
        assert_eq!(main_pid("garbage\nMainPID=x"), None);
    }

    #[test]
    fn a_start_waits_for_the_lock_of_a_daemon_that_has_just_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let before = PidFile::create(&path, Duration::ZERO).unwrap();
        assert!(matches!(PidFile::create(&path, Duration::from_millis(1)), Err(LockError::Held { .. })));
        let waiting = {
            let path = path.clone();
            std::thread::spawn(move || PidFile::create(&path, Duration::from_secs(60)).map(drop))
        };
        drop(before);
        waiting.join().unwrap().unwrap();
    }
}
