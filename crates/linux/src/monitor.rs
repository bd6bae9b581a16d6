//! Facts for monitoring: units, journals, room, the start of the kernel. What they mean is decided elsewhere.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client_core::clock::Clock;
use nix::sys::statvfs::statvfs;

use crate::explain;
use crate::key_values::{Captured, RunLimits, capture};
use crate::regular_file;

/// How long one program may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the service manager may say of the state of a unit, in bytes: it is one word.
const STATE_BYTES: usize = 256;
/// Entries of a journal that are read at once: of what is behind a place the oldest.
const ENTRIES: usize = 500;
/// What a journal may print of them, in bytes.
const JOURNAL_BYTES: usize = 1024 * 1024;
/// Longest id of a start of the kernel, in bytes.
const BOOT_ID_BYTES: u64 = 64;
/// What stands before the place at the end of what a journal prints.
const CURSOR: &[u8] = b"-- cursor: ";

/// Why something cannot be looked at.
#[non_exhaustive]
pub enum MonitorError {
    /// A program or a file.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The program or the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A program took too long.
    TimedOut {
        /// The program.
        path: PathBuf,
    },
    /// The process was asked to stop.
    Stopped,
    /// A program failed.
    Failed {
        /// The program.
        path: PathBuf,
        /// Exit status or signal.
        how: String,
    },
    /// A program printed what it does not print usually.
    Strange {
        /// The program.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
}

client_core::artifact::debug_as_displayed!(MonitorError);

impl fmt::Display for MonitorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MonitorError::Io { doing, path, source } => {
                write!(f, "cannot {doing} {}: {source}", path.display())
            }
            MonitorError::TimedOut { path } => {
                write!(f, "{} took longer than {} s", path.display(), PATIENCE.as_secs())
            }
            MonitorError::Stopped => f.write_str("asked to stop"),
            MonitorError::Failed { path, how } => write!(f, "{} failed: {how}", path.display()),
            MonitorError::Strange { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for MonitorError {}

/// What a journal printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// The lines, the oldest first.
    pub lines: Vec<Vec<u8>>,
    /// The place behind them; `None` where the journal says none.
    pub cursor: Option<String>,
    /// What is behind them.
    pub rest: Rest,
}

/// What of a journal was not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    #[default]
    Nothing,
    /// There may be more behind the place.
    More,
    /// The journal printed too much at once: what was left, and the place behind it, is not known.
    TooMuch,
}

/// The programs that are asked.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Asks the service manager.
    pub systemctl: PathBuf,
    /// Prints journals.
    pub journalctl: PathBuf,
}

impl Default for Programs {
    fn default() -> Programs {
        Programs { systemctl: "systemctl".into(), journalctl: "journalctl".into() }
    }
}

impl Programs {
    /// The state of `unit` in the word of the service manager.
    ///
    /// # Errors
    /// When there is none to ask.
    pub fn unit_state(&self, unit: &str, clock: &dyn Clock) -> Result<String, MonitorError> {
        let mut command = Command::new(&self.systemctl);
        // An end of options: a unit is never one. How it exits says less than the word.
        command.args(["is-active", "--", unit]);
        let (_, output) = run(&mut command, &self.systemctl, STATE_BYTES, clock)?;
        let text = String::from_utf8_lossy(&output);
        match text.split_whitespace().next() {
            Some(word) => Ok(word.to_owned()),
            None => Err(MonitorError::Strange {
                path: self.systemctl.clone(),
                reason: "it says no state of the unit",
            }),
        }
    }

    /// What came to the journal of `unit` behind `cursor`; nothing, and the place at its end, without one.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn journal(
        &self,
        unit: &str,
        cursor: Option<&str>,
        clock: &dyn Clock,
    ) -> Result<Entries, MonitorError> {
        let mut command = Command::new(&self.journalctl);
        command.args(["--quiet", "--no-pager", "--output=short-iso", "--show-cursor"]);
        command.arg(format!("--unit={unit}"));
        match cursor {
            Some(cursor) => command.args([format!("--lines={ENTRIES}"), format!("--after-cursor={cursor}")]),
            None => command.arg("--lines=0"),
        };
        let (how, output) = run(&mut command, &self.journalctl, JOURNAL_BYTES, clock)?;
        match how {
            // The place stands at the end, which was cut off: a line that looks like one is somebody else's. That nobody read
            // on may be what ended the program.
            _ if output.len() > JOURNAL_BYTES => {
                Ok(Entries { cursor: None, rest: Rest::TooMuch, ..entries(&output) })
            }
            None => Ok(entries(&output)),
            Some(how) => Err(MonitorError::Failed { path: self.journalctl.clone(), how }),
        }
    }
}

/// How `command` failed, if it did, and what it printed.
fn run(
    command: &mut Command,
    path: &Path,
    output_bytes: usize,
    clock: &dyn Clock,
) -> Result<(Option<String>, Vec<u8>), MonitorError> {
    let limits = RunLimits { timeout: PATIENCE, output_bytes };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match capture(command, &name, limits, clock) {
        Ok(Captured::Exited(status, output)) => {
            Ok(((!status.success()).then(|| explain::ended(path, status)), output))
        }
        Ok(Captured::TimedOut) => Err(MonitorError::TimedOut { path: path.to_owned() }),
        Ok(Captured::Stopped) => Err(MonitorError::Stopped),
        Err(source) => Err(MonitorError::Io { doing: "run", path: path.to_owned(), source }),
    }
}

fn entries(output: &[u8]) -> Entries {
    let mut entries = Entries::default();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match line.strip_prefix(CURSOR) {
            Some(cursor) => entries.cursor = Some(String::from_utf8_lossy(cursor).into_owned()),
            None => entries.lines.push(line.to_owned()),
        }
    }
    // An entry has a line or several.
    entries.rest = if entries.lines.len() < ENTRIES { Rest::Nothing } else { Rest::More };
    entries
}

/// How full the file system at `path` is, in percent of what users may take, rounded up as `df` does.
///
/// # Errors
/// When it cannot be learned.
pub fn used_percent(path: &Path) -> Result<u32, MonitorError> {
    let io_error =
        |source| MonitorError::Io { doing: "look at the file system of", path: path.to_owned(), source };
    let found = statvfs(path).map_err(|error| io_error(error.into()))?;
    // The types of these differ between machines.
    #[allow(clippy::useless_conversion)]
    let (blocks, free, available) =
        (u64::from(found.blocks()), u64::from(found.blocks_free()), u64::from(found.blocks_available()));
    Ok(percent(blocks.saturating_sub(free), available))
}

/// `used` of `used + available`; a file system without room for anything, such as those in the kernel, is empty.
fn percent(used: u64, available: u64) -> u32 {
    let (used, all) = (u128::from(used), u128::from(used) + u128::from(available));
    match all {
        0 => 0,
        all => u32::try_from((used * 100).div_ceil(all)).unwrap_or(100),
    }
}

/// What the kernel calls this start of it, on the machine whose root is `root`.
///
/// # Errors
/// When it does not say.
pub fn boot_id(root: &Path) -> Result<String, MonitorError> {
    let path = root.join("proc/sys/kernel/random/boot_id");
    let read = regular_file::read(&path, BOOT_ID_BYTES);
    let bytes = read.map_err(|source| MonitorError::Io { doing: "read", path: path.clone(), source })?;
    let id = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
    if id.is_empty() {
        return Err(MonitorError::Strange { path, reason: "it is empty" });
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::clock::LinuxClock;

    use super::*;

    /// Programs that print and exit as these commands do.
    fn programs(systemctl: &str, journalctl: &str) -> (tempfile::TempDir, Programs) {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, command: &str| {
            let path = folder.path().join(name);
            testkit::programs::place_script(&path, command);
            path
        };
        let programs = Programs {
            systemctl: place("systemctl", systemctl),
            journalctl: place("journalctl", journalctl),
        };
        (folder, programs)
    }

    #[track_caller]
    fn check_state(command: &str, expected: Result<&str, &str>) {
        let (_folder, programs) = programs(command, "");
        let state = programs.unit_state("-x.service", &LinuxClock::new()).map_err(|error| error.to_string());
        match expected {
            Ok(word) => assert_eq!(state.as_deref(), Ok(word)),
            Err(words) => assert!(state.as_ref().is_err_and(|error| error.contains(words)), "{state:?}"),
        }
    }

    #[test]
    fn the_state_of_a_unit_is_the_word_of_the_service_manager_however_it_exits() {
        check_state("test \"$*\" = 'is-active -- -x.service' && echo active", Ok("active"));
        check_state("echo failed; exit 3", Ok("failed"));
        check_state("exit 1", Err("no state of the unit"));
        let missing = Programs { systemctl: "/nonexistent/systemctl".into(), ..Programs::default() };
        let error = missing.unit_state("x", &LinuxClock::new()).unwrap_err().to_string();
        assert!(error.contains("cannot run /nonexistent/systemctl"), "{error}");
    }

    #[test]
    fn a_stop_ends_a_program_that_hangs() {
        let (_folder, programs) = programs("sleep 1000", "");
        let clock = LinuxClock::new();
        clock.request_stop();
        assert!(matches!(programs.unit_state("x", &clock), Err(MonitorError::Stopped)));
    }

    #[test]
    fn a_journal_is_read_behind_its_cursor_and_its_end_is_known_without() {
        let (_folder, programs) = programs(
            "",
            "case \"$*\" in
             *--unit=a.service*--after-cursor=s=1*) printf 'one\\ntwo\\n-- cursor: s=3\\n' ;;
             *--unit=a.service*--lines=0) echo '-- cursor: s=1' ;;
             *) echo no; exit 1 ;;
             esac",
        );
        let journal = |unit, cursor| programs.journal(unit, cursor, &LinuxClock::new());
        let begin = journal("a.service", None).unwrap();
        assert_eq!(begin, Entries { lines: vec![], cursor: Some("s=1".to_owned()), rest: Rest::Nothing });
        let next = journal("a.service", begin.cursor.as_deref()).unwrap();
        assert_eq!(next.lines, [b"one", b"two"]);
        assert_eq!(next.cursor.as_deref(), Some("s=3"));
        let error = journal("b.service", None).unwrap_err().to_string();
        assert!(error.contains("journalctl failed: exit status: 1"), "{error}");
    }

    #[test]
    fn what_a_journal_has_besides_what_it_printed_is_known() {
        let (_folder, programs) = programs(
            "",
            "case \"$*\" in
             *--unit=full.service*) seq 500; echo '-- cursor: s=2' ;;
             *--unit=long.service*) head -c 2000000 /dev/zero ;;
             esac",
        );
        let rest = |unit| {
            let entries = programs.journal(unit, Some("s=1"), &LinuxClock::new()).unwrap();
            (entries.rest, entries.cursor)
        };
        assert_eq!(rest("empty.service"), (Rest::Nothing, None));
        assert_eq!(rest("full.service"), (Rest::More, Some("s=2".to_owned())));
        assert_eq!(rest("long.service"), (Rest::TooMuch, None));
    }

    #[test]
    fn room_is_counted_as_df_does() {
        assert_eq!(percent(0, 100), 0);
        assert_eq!(percent(1, 999), 1);
        assert_eq!(percent(90, 10), 90);
        assert_eq!(percent(100, 0), 100);
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(u64::MAX, u64::MAX), 50);
        assert!(used_percent(Path::new("/")).unwrap() <= 100);
        let error = used_percent(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("the file system of /nonexistent"), "{error}");
    }

    #[test]
    fn the_kernel_says_which_start_this_is() {
        assert_eq!(boot_id(Path::new("/")).unwrap().len(), 36);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proc/sys/kernel/random");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("boot_id"), "\n").unwrap();
        assert!(boot_id(folder.path()).unwrap_err().to_string().contains("it is empty"));
        fs::write(path.join("boot_id"), "an id\n").unwrap();
        assert_eq!(boot_id(folder.path()).unwrap(), "an id");
    }
}
