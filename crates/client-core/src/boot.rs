//! The boot decision, once, for every bootloader: what the shared variables mean, how they are changed, and
//! what the bootloader did while we were off.
//!
//! A bootloader crate only reads and writes named variables ([`BootEnv`]); it decides nothing.
//!
//! ```text
//!              arm                    bootloader               commit
//!  settled ───────────▶ untouched ───────────────▶ trial ───────────────▶ committed (settled on target)
//!     ▲                     │ roll back              │ roll back, or the bootloader gives up
//!     └─────────────────────┴────────────────────────┘
//! ```

use std::fmt;

use crate::slot::Slot;

/// Decimal number of the partition the bootloader boots.
pub const BOOT_PART: &str = "mender_boot_part";
/// The same number in lower-case hexadecimal, which U-Boot's commands take.
pub const BOOT_PART_HEX: &str = "mender_boot_part_hex";
/// `1` while a trial is pending or running.
pub const UPGRADE_AVAILABLE: &str = "upgrade_available";
/// Boots of the trial so far, counted by the bootloader.
pub const BOOT_COUNT: &str = "bootcount";
/// `1` demands that the canary below is there.
pub const CHECK_CANARY: &str = "mender_check_saveenv_canary";
/// Written by the bootloader itself: proves that both sides share one environment.
pub const CANARY: &str = "mender_saveenv_canary";

/// Every variable this client reads.
pub const VARIABLES_READ: [&str; 6] =
    [BOOT_PART, BOOT_PART_HEX, UPGRADE_AVAILABLE, BOOT_COUNT, CHECK_CANARY, CANARY];

/// Named variables shared with the bootloader.
///
/// # Contract
/// - [`read`](BootEnv::read) first makes durable what a bootloader may have written without a flush and drops
///   caches, at least once per opened environment, so that its answer is what the bootloader will see.
/// - [`write`](BootEnv::write) is all or nothing and durable on return: after a power cut either all changes are
///   there or none. Variables not named survive.
/// - Both copies of a redundant environment unreadable is an error, never a set of defaults.
pub trait BootEnv {
    /// The values of `names`, in their order; `None` for a variable that is not set.
    ///
    /// # Errors
    /// When no copy of the environment can be trusted.
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError>;

    /// Sets the named variables.
    ///
    /// # Errors
    /// When the change did not become durable. The environment then holds the old values or the new ones.
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError>;

    /// What and where it is, for messages: `U-Boot environment in /dev/mmcblk0 (2 copies)`.
    fn describe(&self) -> String;
}

/// Why a boot environment cannot be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum BootEnvError {
    /// The description of the environment is missing or malformed.
    Config {
        /// The file, with a line number where there is one.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No copy holds a valid environment. Nothing is assumed in its place.
    NoValidCopy {
        /// Every copy with what is wrong with it.
        copies: String,
    },
    /// The variables do not fit.
    TooLarge {
        /// Bytes the variables need.
        need_bytes: usize,
        /// Bytes there are.
        have_bytes: usize,
    },
    /// A name or a value cannot be stored.
    InvalidVariable {
        /// The variable.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Another program holds the environment's lock.
    Locked {
        /// The lock file.
        path: String,
    },
    /// What was written did not read back.
    ReadBack {
        /// The copy it was written to.
        place: String,
    },
    /// The operating system or the device refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or device.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl fmt::Display for BootEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootEnvError::Config { place, reason } => write!(f, "{place}: {reason}"),
            BootEnvError::NoValidCopy { copies } => {
                write!(f, "no valid copy of the boot environment: {copies}")
            }
            BootEnvError::TooLarge { need_bytes, have_bytes } => {
                write!(f, "the boot environment needs {need_bytes} bytes and has {have_bytes}")
            }
            BootEnvError::InvalidVariable { name, reason } => {
                write!(f, "boot variable {name:?} cannot be stored: {reason}")
            }
            BootEnvError::Locked { path } => {
                write!(f, "the boot environment is in use by another program (lock {path})")
            }
            BootEnvError::ReadBack { place } => {
                write!(f, "the boot environment written to {place} did not read back")
            }
            BootEnvError::Io { doing, path, source } => write!(f, "cannot {doing} {path}: {source}"),
        }
    }
}

impl std::error::Error for BootEnvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootEnvError::Io { source, .. } => Some(source),
            BootEnvError::Config { .. }
            | BootEnvError::NoValidCopy { .. }
            | BootEnvError::TooLarge { .. }
            | BootEnvError::InvalidVariable { .. }
            | BootEnvError::Locked { .. }
            | BootEnvError::ReadBack { .. } => None,
        }
    }
}
