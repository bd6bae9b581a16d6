//! What is watched, as the configuration says. Every number in here is in its bounds already: whoever reads the
//! configuration sees to that, with the limits of this module.

use std::time::Duration;

use super::Pattern;

/// Checks of one device. Servers keep 50, and no more alerts are kept than there are checks.
pub const CHECKS_MAX: usize = 32;
/// Longest name of a check, in characters.
pub const NAME_CHARS: usize = 64;
/// Longest other text of a check, in characters: servers take 256 of the subject of an alert.
pub const TEXT_CHARS: usize = 200;
/// Lines that are sent on either side of the one that was looked for.
pub const LINES_MAX: u32 = 5;
/// Most restarts that may be allowed: so many are remembered.
pub const MOST_MAX: u32 = 100;

/// What is watched, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Between two looks.
    pub interval: Duration,
    /// At most [`CHECKS_MAX`], each with a name of its own.
    pub checks: Vec<Check>,
}

/// One thing that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What people call it.
    pub name: String,
    /// Looks in a row that have to find it wrong.
    pub looks: u32,
    /// What it is.
    pub watched: Watched,
}

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// A unit of the service manager, which has to be active.
    Service {
        /// Its name.
        unit: String,
    },
    /// New lines of a log, in which something must not be.
    Log {
        /// Where the lines are.
        source: LogSource,
        /// What must not be in them.
        pattern: Pattern,
        /// What is sent around such a line.
        around: Around,
        /// All is well again when no such line came for so long.
        ok_after: Duration,
    },
    /// The room of a file system.
    Disk {
        /// Any place in it.
        path: String,
        /// It is wrong from here on.
        used_percent: u32,
    },
    /// The end of certificates.
    Certificate {
        /// A file in PEM.
        file: String,
        /// It is wrong from so many days before the end on.
        days_left: u32,
    },
    /// Starts of the kernel.
    Reboots {
        /// So many are well.
        most: u32,
        /// Within this time.
        within: Duration,
    },
    /// Deployments of the server.
    Updates {
        /// It is wrong when so many failed, one behind the other.
        failed: u32,
    },
}

/// Where lines come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSource {
    /// A file.
    File(String),
    /// The journal of a unit.
    Unit(String),
}

/// How many lines around one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// Before it, at most [`LINES_MAX`].
    pub before: usize,
    /// Behind it, at most [`LINES_MAX`].
    pub after: usize,
}

impl Watched {
    /// What kind of thing this is, as the configuration and the server call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Watched::Service { .. } => "service",
            Watched::Log { .. } => "log",
            Watched::Disk { .. } => "disk",
            Watched::Certificate { .. } => "certificate",
            Watched::Reboots { .. } => "reboots",
            Watched::Updates { .. } => "updates",
        }
    }

    /// Which of its kind.
    pub fn subject(&self) -> &str {
        match self {
            Watched::Service { unit } => unit,
            Watched::Log { source: LogSource::File(name) | LogSource::Unit(name), .. } => name,
            Watched::Disk { path, .. } => path,
            Watched::Certificate { file, .. } => file,
            Watched::Reboots { .. } => "kernel",
            Watched::Updates { .. } => "deployments",
        }
    }
}
