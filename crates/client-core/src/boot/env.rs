//! The seam under [`mender_vars`](super::mender_vars): named variables shared with a bootloader. An implementation
//! stores and encodes; it decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use crate::storage::two_copies::{Refused, WriteFault};

/// Named variables shared with the bootloader.
///
/// # Contract
/// - [`read`](BootEnv::read) first makes durable what a bootloader may have written without a flush and drops
///   caches, at least once per opened environment, so that its answer is what the bootloader will see.
/// - [`write`](BootEnv::write) is all or nothing and durable on return: after a power cut either all changes are
///   there or none. Variables not named survive.
/// - Both copies of a redundant environment unreadable is an error, never a set of defaults.
pub trait BootEnv {
    /// Those of `names` that are set.
    ///
    /// # Errors
    /// When no copy of the environment can be trusted.
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError>;

    /// Sets the named variables.
    ///
    /// # Errors
    /// When the change did not become durable. The environment then holds the old values or the new ones.
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError>;

    /// Checks that [`write`](BootEnv::write) of `changes` would be let through and find room. Changes nothing that
    /// is read; what repairs a lost copy may happen here already.
    ///
    /// # Errors
    /// What that write would fail with, as far as it can be known before.
    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError>;

    /// What and where it is, for messages: `U-Boot environment in /dev/mmcblk0 (2 copies)`.
    fn describe(&self) -> String;
}

impl<E: BootEnv + ?Sized> BootEnv for Box<E> {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        (**self).read(names)
    }
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        (**self).write(changes)
    }
    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        (**self).check_write(changes)
    }
    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// The variables that were asked for and are set, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The answer of an environment whose stored values are bytes: `value` looks one of `names` up.
    ///
    /// # Errors
    /// When a value that was asked for is not UTF-8. Others may be what they like.
    pub fn from_bytes(
        names: &[&str],
        value: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Variables, BootEnvError> {
        let mut variables = Variables::default();
        for &name in names {
            let Some(bytes) = value(name) else { continue };
            let text = String::from_utf8(bytes).map_err(|_| BootEnvError::InvalidVariable {
                name: name.to_owned(),
                reason: "the stored value is not UTF-8",
            })?;
            variables.0.insert(name.to_owned(), text);
        }
        Ok(variables)
    }

    /// The value of `name`; `None` where it is not set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A copy of an environment that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCopy {
    /// Where it lies.
    pub place: String,
    /// What is wrong with it, for a person.
    pub fault: String,
}

impl fmt::Display for BadCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault)
    }
}

/// Why a boot environment cannot be read or written.
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
        copies: Vec<BadCopy>,
        /// What it looks like all the same, where that can be said.
        hint: Option<String>,
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

artifact::debug_as_displayed!(BootEnvError);

impl fmt::Display for BootEnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootEnvError::Config { place, reason } => write!(f, "{place}: {reason}"),
            BootEnvError::NoValidCopy { copies, hint } => {
                f.write_str("no valid copy of the boot environment")?;
                for (at, copy) in copies.iter().enumerate() {
                    write!(f, "{} {copy}", if at == 0 { ":" } else { ";" })?;
                }
                hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
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

impl From<Refused> for BootEnvError {
    fn from(Refused { doing, device, source }: Refused) -> BootEnvError {
        BootEnvError::Io { doing, path: device, source }
    }
}

impl BootEnvError {
    /// A copy could not be written to `place`.
    pub fn writing(place: &dyn fmt::Display, fault: WriteFault) -> BootEnvError {
        match fault {
            WriteFault::Refused(refused) => refused.into(),
            WriteFault::Differs => BootEnvError::ReadBack { place: place.to_string() },
        }
    }
}
