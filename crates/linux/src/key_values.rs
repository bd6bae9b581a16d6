//! Programs that print `key=value` lines.
//!
//! What they print comes from anywhere, so time, size and text are bounded and checked. What an incomplete answer is good
//! for is for [`identity`](crate::identity) and [`inventory`](crate::inventory) to say.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::server::{Attribute, AttributeValue};

use crate::explain;
use crate::process_group::{Ended, ProcessGroup, SMALL_STACK, log_lines};

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
#[non_exhaustive]
pub enum KeyValueError {
    /// It cannot be run.
    Run {
        /// The program.
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
}

client_core::artifact::debug_as_displayed!(KeyValueError);

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyValueError::Run { path, source } => write!(f, "cannot run {}: {source}", path.display()),
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
        }
    }
}

impl std::error::Error for KeyValueError {}

/// What `program` prints.
///
/// # Errors
/// When it does not succeed, or prints anything but pairs.
pub(crate) fn run(
    program: &Path,
    limits: RunLimits,
    clock: &dyn Clock,
) -> Result<Vec<(String, String)>, KeyValueError> {
    let path = || program.to_owned();
    let cannot_run = |source| KeyValueError::Run { path: path(), source };
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let captured = capture(&mut Command::new(program), &name, limits, clock).map_err(cannot_run)?;
    let (status, bytes) = match captured {
        Captured::Exited(status, bytes) => (status, bytes),
        Captured::TimedOut => {
            return Err(KeyValueError::TimedOut { path: path(), seconds: limits.timeout.as_secs() });
        }
        Captured::Stopped => return Err(KeyValueError::Stopped { path: path() }),
    };
    if bytes.len() > limits.output_bytes {
        return Err(KeyValueError::TooMuch { path: path(), limit: limits.output_bytes });
    }
    if !status.success() {
        return Err(KeyValueError::Failed { path: path(), how: explain::ended(program, status) });
    }
    parse(&bytes).map_err(|(line, reason)| KeyValueError::Line { path: path(), line, reason })
}

/// How a program ended.
pub(crate) enum Captured {
    /// By itself, with what it printed: of more than was allowed one byte more.
    Exited(ExitStatus, Vec<u8>),
    /// It took too long.
    TimedOut,
    /// The process was asked to stop.
    Stopped,
}

/// Runs `command` and takes what it prints. What it says on its standard error is logged under `name`.
pub(crate) fn capture(
    command: &mut Command,
    name: &str,
    limits: RunLimits,
    clock: &dyn Clock,
) -> io::Result<Captured> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = ProcessGroup::spawn(command)?;
    let (stdout, stderr) = group.take_output();
    log_lines(stderr, name, "stderr");
    let output = collect(stdout, limits.output_bytes)?;
    let status = match group.wait(limits.timeout, clock)? {
        Ended::Exited(status) => status,
        Ended::TimedOut => return Ok(Captured::TimedOut),
        Ended::Stopped => return Ok(Captured::Stopped),
    };
    let received = output.recv_timeout(LAST_OUTPUT);
    // Nothing that the program started may stay, nor hold the pipe.
    drop(group);
    let received = received.or_else(|_| output.recv_timeout(LAST_OUTPUT));
    let bytes = received.map_err(io::Error::other)??;
    Ok(Captured::Exited(status, bytes))
}

/// Reads a pipe in a thread, up to one byte more than `limit`: a program that nobody reads from does not end.
fn collect(pipe: Option<ChildStdout>, limit: usize) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (sender, output) = mpsc::channel();
    let read = move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let read = pipe.map_or(Ok(0), |pipe| pipe.take(limit).read_to_end(&mut bytes));
        // Nobody listens any more where the program was given up.
        let _ = sender.send(read.map(|_| bytes));
    };
    thread::Builder::new().stack_size(SMALL_STACK).spawn(read)?;
    Ok(output)
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

/// What programs told: values by name; a name that occurs several times keeps its order.
#[derive(Default)]
pub(crate) struct KeyValues {
    pub(crate) values: BTreeMap<String, Vec<String>>,
}

impl KeyValues {
    pub(crate) fn add(&mut self, pairs: Vec<(String, String)>) {
        for (name, value) in pairs {
            self.values.entry(name).or_default().push(value);
        }
    }

    /// What a server is told.
    pub(crate) fn attributes(self) -> Vec<Attribute> {
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

#[cfg(test)]
pub(crate) mod tests {

    use super::*;

    /// Shell scripts in a directory of their own.
    pub(crate) struct Programs(tempfile::TempDir);

    impl Programs {
        pub(crate) fn new(programs: &[(&str, &str)]) -> Programs {
            let directory = tempfile::tempdir().unwrap();
            for (name, body) in programs {
                let path = directory.path().join(name);
                testkit::programs::place_script(&path, body);
            }
            Programs(directory)
        }

        pub(crate) fn directory(&self) -> &Path {
            self.0.path()
        }

        pub(crate) fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    /// One line of text.
    pub(crate) fn shown<E: fmt::Display>(result: Result<Vec<Attribute>, E>) -> Result<String, String> {
        let one = |attribute: &Attribute| match &attribute.value {
            AttributeValue::One(value) => format!("{}={value}", attribute.name),
            AttributeValue::Many(values) => format!("{}={values:?}", attribute.name),
        };
        let all = |attributes: Vec<Attribute>| attributes.iter().map(one).collect::<Vec<_>>().join(" ");
        result.map(all).map_err(|error| error.to_string())
    }
}
