//! Log lines: one per event, with time and level, to standard error, a file or syslog; and beside that to the log of
//! the deployment that is carried out.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_core::clock::utc;
use client_core::deploy::DeploymentId;
use client_core::text::printable;
use log::{Level, LevelFilter, Log, Metadata, Record};

use service::{DeploymentInHand, DeploymentLog, Logs};

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";
/// Longest syslog message, in bytes: the kernel limits a datagram, and some daemons cut at 8 KiB.
const SYSLOG_BYTES: usize = 8 * 1024;
/// How long a syslog daemon that is busy is waited for.
const SYSLOG_WAIT: Duration = Duration::from_millis(500);

static DEPLOYMENT: Mutex<Option<DeploymentInHand>> = Mutex::new(None);

fn deployment() -> MutexGuard<'static, Option<DeploymentInHand>> {
    DEPLOYMENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log of this process, for the service in it.
pub struct ProcessLog;

impl Logs for ProcessLog {
    fn begin_deployment(&mut self, id: &DeploymentId, log: Option<DeploymentLog>) {
        *deployment() = Some(DeploymentInHand::new(id, log));
    }

    fn end_deployment(&mut self) {
        *deployment() = None;
    }
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination<'a> {
    /// Standard error.
    StandardError,
    /// The end of this file.
    File(&'a Path),
    /// The syslog daemon.
    Syslog,
}

enum Logger {
    StandardError,
    File(Mutex<File>),
    Syslog(Mutex<Syslog>),
}

/// Starts logging.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(level: LevelFilter, destination: Destination<'_>) -> io::Result<()> {
    let logger = match destination {
        Destination::StandardError => Logger::StandardError,
        Destination::File(path) => {
            Logger::File(Mutex::new(OpenOptions::new().append(true).create(true).open(path)?))
        }
        Destination::Syslog => Logger::Syslog(Mutex::new(Syslog::new(SYSLOG.as_ref()))),
    };
    // A second start keeps the first logger.
    let _ = log::set_boxed_logger(Box::new(logger));
    log::set_max_level(level);
    Ok(())
}

/// The way to the syslog daemon, which may come and go.
struct Syslog {
    path: Box<Path>,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn new(path: &Path) -> Syslog {
        Syslog { path: path.into(), socket: None }
    }

    fn send(&mut self, level: Level, message: &str) -> io::Result<()> {
        let line = syslog_line(level, std::process::id(), message);
        if let Some(socket) = &self.socket {
            match socket.send(line.as_bytes()) {
                // The daemon was restarted: its new socket is another one.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => self.socket = None,
                sent => return sent.map(|_| ()),
            }
        }
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_write_timeout(Some(SYSLOG_WAIT))?;
        socket.send(line.as_bytes())?;
        self.socket = Some(socket);
        Ok(())
    }
}

/// A message as RFC 3164 has it, for the facility "daemon". Without a time: it would be in the local time zone, and the
/// syslog daemon puts in its own.
fn syslog_line(level: Level, pid: u32, message: &str) -> String {
    const DAEMON: u8 = 3 << 3;
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let mut line = format!("<{}>rust-ota[{pid}]: ", DAEMON | severity);
    for character in printable(message).chars() {
        if line.len() >= SYSLOG_BYTES {
            break;
        }
        line.push(character);
    }
    line
}

/// The level of this name, as the Mender client names them.
pub fn level(name: &str) -> Option<LevelFilter> {
    match name.to_ascii_lowercase().as_str() {
        "trace" => Some(LevelFilter::Trace),
        "debug" => Some(LevelFilter::Debug),
        "info" => Some(LevelFilter::Info),
        "warning" | "warn" => Some(LevelFilter::Warn),
        "error" | "fatal" => Some(LevelFilter::Error),
        _ => None,
    }
}

/// Crates whose lines are those of this program.
const OURS: &[&str] = &[
    "rust_ota",
    "artifact",
    "bootloader_grub",
    "bootloader_uboot",
    "client_core",
    "delta",
    "device",
    "doctor",
    "http",
    "linux",
    "server_mender",
    "service",
    "vcdiff",
];

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries may say what worries them; their chatter is not an event of this program.
        metadata.level() <= Level::Warn || OURS.iter().any(|name| metadata.target().starts_with(name))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let message = record.args().to_string();
        let mut deployment = deployment();
        let message = deployment.as_ref().map_or(Cow::Borrowed(message.as_str()), |it| it.labelled(&message));
        let line = || format!("{} {level}: {}\n", utc(now.as_secs()), printable(&message));
        // A log that cannot be written must not stop an update.
        let _ = match self {
            Logger::StandardError => io::stderr().lock().write_all(line().as_bytes()),
            Logger::File(file) => file.lock().map_or(Ok(()), |mut file| file.write_all(line().as_bytes())),
            Logger::Syslog(syslog) => {
                syslog.lock().map_or(Ok(()), |mut syslog| syslog.send(record.level(), &message))
            }
        };
        if let Some(deployment) = deployment.as_mut() {
            deployment.append(level, &message, now);
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crate_of_this_program_is_silent() {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        for entry in std::fs::read_dir(crates).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().replace('-', "_");
            // Not in this program: doubles for tests, the interface for C, what its build makes the help of.
            let is_elsewhere = ["testkit", "ffi", "manual"].contains(&name.as_str());
            assert!(is_elsewhere || OURS.contains(&name.as_str()), "{name} is not heard");
        }
    }

    #[test]
    fn syslog_lines_are_single_and_bounded() {
        assert_eq!(syslog_line(Level::Info, 7, "a\nb"), "<30>rust-ota[7]: a\\nb");
        assert_eq!(syslog_line(Level::Error, 7, "x"), "<27>rust-ota[7]: x");
        assert!(syslog_line(Level::Debug, 7, &"\u{e9}".repeat(SYSLOG_BYTES)).len() <= SYSLOG_BYTES + 1);
    }

    #[test]
    fn a_syslog_daemon_may_be_restarted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = Syslog::new(&path);
        assert!(syslog.send(Level::Info, "nobody").is_err());
        let mut buffer = [0; 64];
        for message in ["first", "second"] {
            let daemon = UnixDatagram::bind(&path).unwrap();
            syslog.send(Level::Warn, message).unwrap();
            let count = daemon.recv(&mut buffer).unwrap();
            let expected = format!("<28>rust-ota[{}]: {message}", std::process::id());
            assert_eq!(buffer[..count], *expected.as_bytes());
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn levels_have_the_names_that_configurations_use() {
        assert_eq!(level("Warning"), Some(LevelFilter::Warn));
        assert_eq!(level("fatal"), Some(LevelFilter::Error));
        assert_eq!(level("loud"), None);
    }
}
