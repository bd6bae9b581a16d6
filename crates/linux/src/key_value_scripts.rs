//! Programs that print `key=value` lines: the one that tells the identity, and those that tell the inventory.
//!
//! What they print comes from anywhere, so time, size and text are bounded and checked. The identity has to be right
//! or not there at all; of the inventory whatever can be had is taken.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::server::{Attribute, AttributeValue};

use crate::explain;
use crate::process_group::{Ended, ProcessGroup, SMALL_STACK, log_lines};

/// Names of inventory programs begin with this.
const INVENTORY_PREFIX: &str = "mender-inventory-";
/// Longest name of an attribute, in characters, that servers take.
const NAME_CHARS: usize = 1024;
/// Attributes of one device that servers take.
const ATTRIBUTES: usize = 100;
/// All names and values of an inventory together, in bytes: the body may have 1 MiB, with quotes and commas.
const INVENTORY_BYTES: usize = 768 * 1024;
/// How long the pipe of a program that has ended may stay open: something it started holds it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Bounds on one program.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// How long it may run.
    pub timeout: Duration,
    /// How much it may print.
    pub output_bytes: usize,
}

impl Default for RunLimits {
    fn default() -> RunLimits {
        // Ten times what the slowest of the usual programs takes on a loaded small device; 64 KiB are 600 lines.
        RunLimits { timeout: Duration::from_secs(60), output_bytes: 64 * 1024 }
    }
}

/// Why a program told nothing that can be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyValueError {
    /// It cannot be run.
    Run {
        /// The program.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The directory of programs cannot be read.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It took too long.
    TimedOut {
        /// The program.
        path: PathBuf,
        /// The limit.
        seconds: u64,
    },
    /// The process was asked to stop.
    Stopped {
        /// The program that ran then.
        path: PathBuf,
    },
    /// It failed.
    Failed {
        /// The program.
        path: PathBuf,
        /// Exit status or signal.
        how: String,
    },
    /// It printed too much.
    TooMuch {
        /// The program.
        path: PathBuf,
        /// The limit, in bytes.
        limit: usize,
    },
    /// A line is not `key=value`.
    Line {
        /// The program.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It printed nothing.
    NoData {
        /// The program.
        path: PathBuf,
    },
    /// There are programs, and all of them failed; this is how the last one did.
    All(Box<KeyValueError>),
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValueError::Run { path, source } => write!(f, "cannot run {}: {source}", path.display()),
            KeyValueError::Directory { path, source } => {
                write!(f, "cannot read {}: {source}", path.display())
            }
            KeyValueError::TimedOut { path, seconds } => {
                write!(f, "{} took longer than {seconds} s", path.display())
            }
            KeyValueError::Stopped { path } => write!(f, "{} was stopped", path.display()),
            KeyValueError::Failed { path, how } => write!(f, "{} failed: {how}", path.display()),
            KeyValueError::TooMuch { path, limit } => {
                write!(f, "{} printed more than {limit} bytes", path.display())
            }
            KeyValueError::Line { path, line, reason } => {
                write!(f, "{} printed line {line}: {reason}", path.display())
            }
            KeyValueError::NoData { path } => write!(f, "{} printed nothing", path.display()),
            KeyValueError::All(last) => write!(f, "every inventory program failed, the last one: {last}"),
        }
    }
}

impl std::error::Error for KeyValueError {}

/// What `executable` says the device is, sorted by name.
///
/// # Errors
/// For anything that is not at least one attribute and nothing else, from a program that succeeded.
pub fn identity(
    executable: &Path,
    limits: RunLimits,
    clock: Option<&dyn Clock>,
) -> Result<Vec<Attribute>, KeyValueError> {
    let mut merged = Merged::default();
    merged.add(run(executable, limits, clock)?);
    if merged.values.is_empty() {
        return Err(KeyValueError::NoData { path: executable.to_owned() });
    }
    Ok(merged.attributes())
}

/// What the inventory programs in `directory` say together, sorted by name. A program that fails is left out with a
/// warning.
///
/// # Errors
/// When there are programs and all of them failed, when the directory is there and cannot be read, and at once when
/// the process was asked to stop.
pub fn inventory(
    directory: &Path,
    limits: RunLimits,
    clock: Option<&dyn Clock>,
) -> Result<Vec<Attribute>, KeyValueError> {
    let mut merged = Merged::default();
    let mut last_error = None;
    let mut succeeded = false;
    for program in inventory_programs(directory)? {
        match run(&program, limits, clock) {
            Ok(pairs) => {
                succeeded = true;
                merged.add(pairs);
            }
            Err(error @ KeyValueError::Stopped { .. }) => return Err(error),
            Err(error) => {
                log::warn!("inventory: {error}; it is left out");
                last_error = Some(error);
            }
        }
    }
    if let Some(error) = last_error.filter(|_| !succeeded) {
        return Err(KeyValueError::All(Box::new(error)));
    }
    merged.values.retain(|name, _| {
        let fits = name.chars().count() <= NAME_CHARS;
        if !fits {
            log::warn!("inventory: a name longer than {NAME_CHARS} characters is left out");
        }
        fits
    });
    merged.drop_beyond(INVENTORY_BYTES);
    if merged.values.len() > ATTRIBUTES {
        let count = merged.values.len();
        log::warn!("inventory: {count} attributes, and servers usually take {ATTRIBUTES}");
    }
    Ok(merged.attributes())
}

/// The regular executable files of the right name, by name.
fn inventory_programs(directory: &Path) -> Result<Vec<PathBuf>, KeyValueError> {
    let wrong = |source| KeyValueError::Directory { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut programs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(INVENTORY_PREFIX));
        match fs::metadata(&path) {
            Ok(found) if named && found.is_file() && found.permissions().mode() & 0o111 == 0 => {
                log::warn!("inventory: {} is left out: {}", path.display(), explain::NOT_EXECUTABLE);
            }
            Ok(found) if named && found.is_file() => programs.push(path),
            Ok(_) | Err(_) => {}
        }
    }
    programs.sort();
    Ok(programs)
}

/// Values by name; a name that occurs several times keeps its order.
#[derive(Default)]
struct Merged {
    values: BTreeMap<String, Vec<String>>,
}

impl Merged {
    fn add(&mut self, pairs: Vec<(String, String)>) {
        for (name, value) in pairs {
            self.values.entry(name).or_default().push(value);
        }
    }

    /// Leaves out the last names, until the rest is not larger than `limit`.
    fn drop_beyond(&mut self, limit: usize) {
        let size = |(name, values): (&String, &Vec<String>)| {
            name.len() + values.iter().map(|value| value.len() + 3).sum::<usize>()
        };
        let mut total: usize = self.values.iter().map(size).sum();
        while total > limit {
            let Some((name, values)) = self.values.pop_last() else { return };
            log::warn!("inventory: larger than {limit} bytes, {name} is left out");
            total -= size((&name, &values));
        }
    }

    fn attributes(self) -> Vec<Attribute> {
        let attribute = |(name, mut values): (String, Vec<String>)| {
            let value = match (values.pop(), values.is_empty()) {
                (Some(only), true) => AttributeValue::One(only),
                (last, _) => AttributeValue::Many(values.into_iter().chain(last).collect()),
            };
            Attribute { name, value }
        };
        self.values.into_iter().map(attribute).collect()
    }
}

fn run(
    program: &Path,
    limits: RunLimits,
    clock: Option<&dyn Clock>,
) -> Result<Vec<(String, String)>, KeyValueError> {
    let path = || program.to_owned();
    let cannot_run = |source| KeyValueError::Run { path: path(), source };
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::spawn(&mut command).map_err(cannot_run)?;
    let (stdout, stderr) = group.take_output();
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    log_lines(stderr, &name, "stderr");
    let (sender, output) = mpsc::channel();
    let read = move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(limits.output_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(limit).read_to_end(&mut bytes));
        let _ = sender.send(read.map(|_| bytes));
    };
    thread::Builder::new().stack_size(SMALL_STACK).spawn(read).map_err(cannot_run)?;
    let status = match group.wait(limits.timeout, clock).map_err(cannot_run)? {
        Ended::Exited(status) => status,
        Ended::TimedOut => {
            return Err(KeyValueError::TimedOut { path: path(), seconds: limits.timeout.as_secs() });
        }
        Ended::Stopped => return Err(KeyValueError::Stopped { path: path() }),
    };
    let received = output.recv_timeout(LAST_OUTPUT);
    // Nothing that the program started may stay, nor hold the pipe.
    drop(group);
    let received = received.or_else(|_| output.recv_timeout(LAST_OUTPUT));
    let bytes = received.map_err(io::Error::other).and_then(|read| read).map_err(cannot_run)?;
    if bytes.len() > limits.output_bytes {
        return Err(KeyValueError::TooMuch { path: path(), limit: limits.output_bytes });
    }
    if !status.success() {
        return Err(KeyValueError::Failed { path: path(), how: explain::ended(program, status) });
    }
    parse(&bytes).map_err(|(line, reason)| KeyValueError::Line { path: path(), line, reason })
}

/// The pairs of `text`: one in every line that is not blank. The value is everything behind the first `=`.
fn parse(text: &[u8]) -> Result<Vec<(String, String)>, (usize, &'static str)> {
    let mut pairs = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |reason| (index + 1, reason);
        let line = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        if line.contains('\0') {
            return Err(wrong("there is a NUL in it"));
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("there is no = in it"))?;
        if name.is_empty() {
            return Err(wrong("there is nothing before the ="));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use crate::waiter::LinuxClock;

    use super::*;

    struct Programs(tempfile::TempDir);

    impl Programs {
        fn new(programs: &[(&str, &str)]) -> Programs {
            let directory = tempfile::tempdir().unwrap();
            for (name, body) in programs {
                let path = directory.path().join(name);
                fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            }
            Programs(directory)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn inventory(&self) -> Result<String, String> {
            shown(inventory(self.0.path(), RunLimits::default(), None))
        }
    }

    fn identity_of(body: &str) -> Result<String, String> {
        let programs = Programs::new(&[("id", body)]);
        shown(identity(&programs.path("id"), RunLimits::default(), None))
    }

    fn shown(result: Result<Vec<Attribute>, KeyValueError>) -> Result<String, String> {
        let one = |attribute: &Attribute| match &attribute.value {
            AttributeValue::One(value) => format!("{}={value}", attribute.name),
            AttributeValue::Many(values) => format!("{}={values:?}", attribute.name),
        };
        let all = |attributes: Vec<Attribute>| attributes.iter().map(one).collect::<Vec<_>>().join(" ");
        result.map(all).map_err(|error| error.to_string())
    }

    #[test]
    fn an_identity_is_every_pair_sorted_and_repeated_names_are_lists() {
        assert_eq!(identity_of("echo mac=aa:bb").unwrap(), "mac=aa:bb");
        let body = "echo b=2; echo; echo a=x=y; echo '  '; echo b=1; echo empty=";
        assert_eq!(identity_of(body).unwrap(), "a=x=y b=[\"2\", \"1\"] empty=");
    }

    #[test]
    fn an_identity_that_is_not_certain_is_none() {
        let check = |body: &str, expected: &str| {
            let error = identity_of(body).unwrap_err();
            assert!(error.contains(expected), "{body}: {error}");
        };
        check("echo mac=x; echo nonsense", "printed line 2: there is no = in it");
        check("echo =x", "printed line 1: there is nothing before");
        check("true", "printed nothing");
        check("echo", "printed nothing");
        check("echo mac=x; exit 3", "failed: exit status: 3");
        check("echo mac=x; kill -9 $$", "failed: killed by signal 9");
        check(r"printf 'mac=\377\n'", "not UTF-8");
        check(r"printf 'mac=a\000b\n'", "NUL");
        check("yes mac=x", "printed more than 65536 bytes");
        let error = identity(Path::new("/nonexistent/id"), RunLimits::default(), None).unwrap_err();
        assert!(error.to_string().starts_with("cannot run /nonexistent/id: "), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_after_its_time_and_by_a_stop() {
        let programs = Programs::new(&[("id", "sleep 1000 & wait")]);
        let limits = RunLimits { timeout: Duration::from_millis(100), ..RunLimits::default() };
        let error = identity(&programs.path("id"), limits, None).unwrap_err();
        assert!(matches!(error, KeyValueError::TimedOut { .. }), "{error}");

        let clock = Arc::new(LinuxClock::new());
        clock.request_stop();
        let asked = Instant::now();
        let error = identity(&programs.path("id"), RunLimits::default(), Some(&*clock)).unwrap_err();
        assert!(matches!(error, KeyValueError::Stopped { .. }), "{error}");
        assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_it_up() {
        assert_eq!(identity_of("echo mac=x; sleep 1000 &").unwrap(), "mac=x");
    }

    #[test]
    fn an_inventory_is_merged_by_name_and_what_fails_is_left_out() {
        let programs = Programs::new(&[
            ("mender-inventory-b", "echo ip=2; echo host=x"),
            ("mender-inventory-a", "echo ip=1"),
            ("mender-inventory-c", "echo lost=1; exit 1"),
            ("mender-inventory-d", "echo lost=1; echo nonsense"),
            ("other", "echo other=1"),
            ("mender-inventory-e", "echo not=executable"),
        ]);
        fs::set_permissions(programs.path("mender-inventory-e"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(programs.path("mender-inventory-f")).unwrap();
        assert_eq!(programs.inventory().unwrap(), "host=x ip=[\"1\", \"2\"]");
    }

    #[test]
    fn only_an_inventory_of_failures_is_an_error() {
        assert_eq!(Programs::new(&[]).inventory().unwrap(), "");
        assert_eq!(Programs::new(&[("mender-inventory-a", "true")]).inventory().unwrap(), "");
        let error = Programs::new(&[("mender-inventory-a", "exit 1")]).inventory().unwrap_err();
        assert!(error.contains("every inventory program failed"), "{error}");
        let missing = inventory(Path::new("/nonexistent"), RunLimits::default(), None);
        assert_eq!(shown(missing).unwrap(), "");
    }

    #[test]
    fn an_inventory_stays_below_what_servers_take() {
        let long = format!("printf '{}=x\\nshort=1\\n'", "n".repeat(NAME_CHARS + 1));
        assert_eq!(Programs::new(&[("mender-inventory-a", &long)]).inventory().unwrap(), "short=1");
        let mut merged = Merged::default();
        merged.add(vec![("a".into(), "1".repeat(20)), ("b".into(), "2".repeat(20))]);
        merged.drop_beyond(30);
        assert_eq!(merged.attributes().len(), 1);
    }
}
