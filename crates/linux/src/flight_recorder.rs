//! What is left of a trial that did not end with this client: a file for notes, crash dumps of the kernel, the watchdog.
//!
//! Whatever runs on trial may add lines to the file; docs/flight-recorder.md says how. Its first lines, which begin with `#`, name
//! the crash dumps that were there before the trial: they are no traces of it. Nothing here is ever in the way of an update.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use client_core::slot::Traces;
use client_core::text::printable;

use crate::atomic_file;
use crate::regular_file;

/// Its name in the datastore.
pub const FILE_NAME: &str = "flight-recorder";
/// Where the kernel shows what its last start left, and where systemd puts that.
const DUMPS: [&str; 2] = ["sys/fs/pstore", "var/lib/systemd/pstore"];
/// The first two watchdogs; `bootstatus` is what they say of the start.
const WATCHDOG: &str = "sys/class/watchdog/watchdog";
/// Of `bootstatus`: the watchdog has restarted the machine (`WDIOF_CARDRESET`).
const BY_WATCHDOG: u32 = 0x20;
/// Directories below each other, and dumps, that are looked at.
const DEPTH: u32 = 3;
const DUMPS_MAX: usize = 256;
/// Of those the newest that are read.
const DUMPS_READ: usize = 16;
/// What is read of the file, and of each dump.
const FILE_BYTES: u64 = 64 * 1024;
/// Lines that are kept: notes, and what stands before and behind the last words of a kernel.
const NOTES: usize = 20;
const BEFORE_PANIC: usize = 10;
const BEHIND_PANIC: usize = 20;
/// Longest line that is kept, in characters.
const LINE_CHARS: usize = 200;

/// The file, and the machine whose traces are told.
pub struct FlightRecorder {
    path: PathBuf,
    root: PathBuf,
}

/// A crash dump.
struct Dump {
    seconds: i64,
    path: String,
    /// Machines use names again: with the time they are told apart.
    name: String,
}

impl FlightRecorder {
    /// The file lies in `datastore`. Reads nothing yet.
    pub fn new(datastore: &Path) -> FlightRecorder {
        FlightRecorder { path: datastore.join(FILE_NAME), root: PathBuf::from("/") }
    }

    /// A trial begins: what is there by now is not of it.
    pub fn begin(&self) {
        let mut known = "#\n".to_owned();
        for dump in self.dumps() {
            known += &dump.name;
            known.push('\n');
        }
        if let Err(error) = atomic_file::replace(&self.path, known.as_bytes(), 0o600) {
            log::warn!("{}: {error}", self.path.display());
            // Notes of another trial would be taken for those of this one.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// What the trial has left behind.
    pub fn traces(&self) -> Traces {
        let file = start_of(&self.path).unwrap_or_default();
        // Without the file nobody knows which dumps are of the trial.
        let mut dumps = if file.is_empty() { Vec::new() } else { self.dumps() };
        dumps.retain(|dump| file.lines().all(|known| known != dump.name));
        let mut said = String::new();
        for dump in dumps.iter().take(DUMPS_READ).rev() {
            said += &start_of(Path::new(&dump.path)).unwrap_or_default();
        }
        // A file that lost its power may end in zeros.
        let says_something = |line: &&str| {
            !line.starts_with('#') && line.bytes().any(|byte| byte.is_ascii_graphic() || !byte.is_ascii())
        };
        let notes: Vec<&str> = file.lines().filter(says_something).collect();
        Traces {
            kernel: last_words(&said),
            notes: kept(&notes[notes.len().saturating_sub(NOTES)..]),
            watchdog: self.restarted_by_watchdog(),
        }
    }

    /// The newest first.
    fn dumps(&self) -> Vec<Dump> {
        let mut dumps = Vec::new();
        for directory in DUMPS {
            collect(&self.root.join(directory), DEPTH, &mut dumps);
        }
        dumps
    }

    fn restarted_by_watchdog(&self) -> bool {
        (0..2).any(|number| {
            let state = self.root.join(format!("{WATCHDOG}{number}/bootstatus"));
            let state = start_of(&state).unwrap_or_default();
            state.trim().parse().is_ok_and(|state: u32| state & BY_WATCHDOG != 0)
        })
    }
}

fn collect(directory: &Path, depth: u32, dumps: &mut Vec<Dump>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
        if metadata.is_dir() && depth > 0 {
            collect(&path, depth - 1, dumps);
        } else if metadata.is_file() && entry.file_name().as_encoded_bytes().starts_with(b"dmesg-") {
            let (seconds, path) = (metadata.mtime(), path.display().to_string());
            let name = format!("# {path} {seconds}.{}", metadata.mtime_nsec());
            // A long one is in parts, of which the first is the newest, and their numbers are in their names.
            let is_earlier = |other: &Dump| (other.seconds, &path) < (seconds, &other.path);
            let at = dumps.iter().position(is_earlier).unwrap_or(dumps.len());
            dumps.insert(at, Dump { seconds, path, name });
            // Of those that were there before the trial, every one that is left now was among the newest then.
            dumps.truncate(DUMPS_MAX);
        }
    }
}

/// What the kernel said around its panic, or at the end.
fn last_words(said: &str) -> Vec<String> {
    let lines: Vec<&str> = said.lines().collect();
    let panic = lines.iter().rposition(|line| line.contains("Kernel panic"));
    let end = panic.map_or(lines.len(), |at| lines.len().min(at + BEHIND_PANIC));
    let start = panic.unwrap_or(end.saturating_sub(BEHIND_PANIC)).saturating_sub(BEFORE_PANIC);
    kept(&lines[start..end])
}

fn kept(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .map(|line| printable(&line.chars().take(LINE_CHARS).collect::<String>()).into_owned())
        .collect()
}

/// The beginning of a file, whatever its bytes are. Of a line that is cut there, nothing.
fn start_of(path: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    regular_file::open_for_reading(path)?.take(FILE_BYTES).read_to_end(&mut content)?;
    if content.len() as u64 == FILE_BYTES {
        content.truncate(content.iter().rposition(|byte| *byte == b'\n').unwrap_or(content.len()));
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Machine {
            let folder = tempfile::tempdir().unwrap();
            for directory in DUMPS {
                fs::create_dir_all(folder.path().join(directory)).unwrap();
            }
            Machine(folder)
        }

        fn recorder(&self) -> FlightRecorder {
            FlightRecorder { path: self.0.path().join(FILE_NAME), root: self.0.path().to_owned() }
        }

        fn dump(&self, path: &str, seconds: u64, content: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }

        fn note(&self, text: &str) {
            let path = self.0.path().join(FILE_NAME);
            let before = fs::read(&path).unwrap_or_default();
            fs::write(path, [before, text.into()].concat()).unwrap();
        }
    }

    #[test]
    fn only_dumps_of_the_trial_are_told_in_the_order_in_which_the_kernel_spoke() {
        let machine = Machine::new();
        let recorder = machine.recorder();
        machine.dump("sys/fs/pstore/dmesg-ramoops-0", 10, "Panic#1 Part1\n<0>[1.0] Kernel panic: old\n");
        machine.dump("var/lib/systemd/pstore/9/dmesg-efi-9", 9, "Oops#1 Part1\n<4>[1.0] older\n");
        recorder.begin();
        assert_eq!(recorder.traces(), Traces::default());
        // The same name, written anew, and two parts of a dump that systemd has put away.
        machine.dump("sys/fs/pstore/dmesg-ramoops-0", 30, "<4>[9.9] third \u{1b}[1m\n");
        machine.dump("var/lib/systemd/pstore/2/001/dmesg-efi-2", 20, "<6>[2.1] first\n");
        machine.dump(
            "var/lib/systemd/pstore/2/001/dmesg-efi-1",
            20,
            "<0>[2.2] Kernel panic - not syncing: second\n",
        );
        machine.dump("sys/fs/pstore/console-x", 40, "no dump\n");
        let said =
            ["<6>[2.1] first", "<0>[2.2] Kernel panic - not syncing: second", "<4>[9.9] third \\u{1b}[1m"];
        assert_eq!(recorder.traces().kernel, said);
        // The next trial knows of them.
        recorder.begin();
        assert_eq!(recorder.traces(), Traces::default());
    }

    #[test]
    fn however_many_old_dumps_there_are_none_is_taken_for_one_of_the_trial() {
        let machine = Machine::new();
        let recorder = machine.recorder();
        for at in 0..300 {
            machine.dump(&format!("sys/fs/pstore/dmesg-efi-{at}"), at, "<0>[1.0] Kernel panic: old\n");
        }
        recorder.begin();
        for at in 300..303 {
            machine.dump(&format!("sys/fs/pstore/dmesg-efi-{at}"), at, &format!("said {at}\n"));
        }
        assert_eq!(recorder.traces().kernel, ["said 300", "said 301", "said 302"]);
    }

    #[test]
    fn of_a_long_dump_the_panic_and_what_is_around_it_is_told() {
        let machine = Machine::new();
        let recorder = machine.recorder();
        recorder.begin();
        let lines =
            |from: u32, to: u32| (from..to).map(|at| format!("<4>[0.1] line {at}\n")).collect::<String>();
        let said = lines(0, 500) + "<0>[0.2] Kernel panic - not syncing: x\n" + &lines(500, 1000);
        machine.dump("sys/fs/pstore/dmesg-efi-1", 1, &said);
        let kernel = recorder.traces().kernel;
        assert_eq!(kernel.len(), BEFORE_PANIC + BEHIND_PANIC);
        assert_eq!(kernel[0], "<4>[0.1] line 490");
        assert!(kernel[BEFORE_PANIC].ends_with("Kernel panic - not syncing: x"), "{kernel:?}");
        machine.dump("sys/fs/pstore/dmesg-efi-1", 2, &lines(0, 500));
        assert_eq!(recorder.traces().kernel.last().unwrap(), "<4>[0.1] line 499");
    }

    #[test]
    fn notes_are_bounded_and_begin_anew_with_each_trial() {
        let machine = Machine::new();
        let recorder = machine.recorder();
        machine.note("of nobody knows when\n");
        recorder.begin();
        assert_eq!(recorder.traces(), Traces::default());
        for at in 0..100 {
            machine.note(&format!("note {at} {}\n", "x".repeat(300)));
        }
        let notes = recorder.traces().notes;
        assert_eq!(notes.len(), NOTES);
        assert!(notes.last().unwrap().starts_with("note 99 x"), "{notes:?}");
        assert!(notes.iter().all(|note| note.len() == LINE_CHARS));
        machine.note("\u{1b}c\n");
        assert_eq!(recorder.traces().notes.last().unwrap(), "\\u{1b}c");
        // Nothing that says nothing is the last word.
        machine.note("\r\n \n\0\0\0");
        assert_eq!(recorder.traces().notes.last().unwrap(), "\\u{1b}c");
        fs::write(&recorder.path, "short\n".to_owned() + &"long ".repeat(20_000)).unwrap();
        assert_eq!(recorder.traces().notes, ["short"]);
        fs::write(&recorder.path, vec![0; 1024 * 1024]).unwrap();
        assert_eq!(recorder.traces().notes.len(), 0);
    }

    #[test]
    fn without_its_file_no_dump_is_of_the_trial() {
        let machine = Machine::new();
        machine.dump("sys/fs/pstore/dmesg-efi-1", 1, "Panic#1 Part1\n<0>[1.0] Kernel panic: x\n");
        assert_eq!(machine.recorder().traces(), Traces::default());
        // Nor is it in the way where the file cannot be: what is there is no trace of this trial.
        fs::create_dir(machine.0.path().join(FILE_NAME)).unwrap();
        machine.recorder().begin();
        assert_eq!(machine.recorder().traces(), Traces::default());
    }

    #[test]
    fn the_watchdog_is_believed_by_its_bit() {
        let machine = Machine::new();
        let says = |state: &str| {
            machine.dump("sys/class/watchdog/watchdog0/bootstatus", 1, state);
            machine.recorder().traces().watchdog
        };
        assert!(!says("0\n"));
        assert!(says("32\n"));
        assert!(says("33\n"));
        assert!(!says("1\n"));
        assert!(!says("?\n"));
    }
}
