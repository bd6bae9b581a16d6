//! What the inventory programs tell about this device. Whatever can be had is taken.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use client_core::clock::Clock;
use client_core::server::Attribute;

use crate::explain;
use crate::key_values::{self, KeyValueError, KeyValues, RunLimits};

/// Names of inventory programs begin with this.
const PREFIX: &str = "mender-inventory-";
/// Longest name of an attribute, in characters, that servers take.
const NAME_CHARS: usize = 1024;
/// Attributes of one device that servers take.
const ATTRIBUTES: usize = 100;
/// All names and values of an inventory together, in bytes: the body may have 1 MiB, with quotes and commas.
const INVENTORY_BYTES: usize = 768 * 1024;

/// Why there is no inventory.
#[non_exhaustive]
pub enum InventoryError {
    /// The directory of programs cannot be read.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The process was asked to stop.
    Stopped {
        /// The program that ran then.
        path: PathBuf,
    },
    /// There are programs, and all of them failed.
    AllFailed {
        /// How the last one did.
        last: KeyValueError,
    },
}

client_core::artifact::debug_as_displayed!(InventoryError);

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InventoryError::Directory { path, source } => {
                write!(f, "cannot read {}: {source}", path.display())
            }
            InventoryError::Stopped { path } => write!(f, "{} was stopped", path.display()),
            InventoryError::AllFailed { last } => {
                write!(f, "every inventory program failed, the last one: {last}")
            }
        }
    }
}

impl std::error::Error for InventoryError {}

/// What the inventory programs in `directory` say together, sorted by name. A program that fails is left out with a
/// warning.
///
/// # Errors
/// When there are programs and all of them failed, when the directory is there and cannot be read, and at once when
/// the process was asked to stop.
pub fn ask(directory: &Path, limits: RunLimits, clock: &dyn Clock) -> Result<Vec<Attribute>, InventoryError> {
    let mut told = ask_all(&programs(directory)?, limits, clock)?;
    told.values.retain(|name, _| {
        let fits = name.chars().count() <= NAME_CHARS;
        if !fits {
            log::warn!("inventory: a name longer than {NAME_CHARS} characters is left out");
        }
        fits
    });
    drop_beyond(&mut told, INVENTORY_BYTES);
    if told.values.len() > ATTRIBUTES {
        let count = told.values.len();
        log::warn!("inventory: {count} attributes, and servers usually take {ATTRIBUTES}");
    }
    Ok(told.attributes())
}

/// What those of the programs that succeed tell.
fn ask_all(programs: &[PathBuf], limits: RunLimits, clock: &dyn Clock) -> Result<KeyValues, InventoryError> {
    let mut told = KeyValues::default();
    let mut last_error = None;
    let mut succeeded = false;
    for program in programs {
        match key_values::run(program, limits, clock) {
            Ok(pairs) => {
                succeeded = true;
                told.add(pairs);
            }
            Err(KeyValueError::Stopped { path }) => return Err(InventoryError::Stopped { path }),
            Err(error) => {
                log::warn!("inventory: {error}; it is left out");
                last_error = Some(error);
            }
        }
    }
    match last_error {
        Some(last) if !succeeded => Err(InventoryError::AllFailed { last }),
        Some(_) | None => Ok(told),
    }
}

/// The regular executable files of the right name, by name.
fn programs(directory: &Path) -> Result<Vec<PathBuf>, InventoryError> {
    let wrong = |source| InventoryError::Directory { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrong(error)),
    };
    let mut programs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrong)?;
        let path = entry.path();
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
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

/// Leaves out the last names, until the rest is not larger than `limit`.
fn drop_beyond(told: &mut KeyValues, limit: usize) {
    let size = |(name, values): (&String, &Vec<String>)| {
        name.len() + values.iter().map(|value| value.len() + 3).sum::<usize>()
    };
    let mut total: usize = told.values.iter().map(size).sum();
    while total > limit {
        let Some((name, values)) = told.values.pop_last() else { return };
        log::warn!("inventory: larger than {limit} bytes, {name} is left out");
        total -= size((&name, &values));
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::LinuxClock;
    use crate::key_values::tests::{Programs, shown};

    use super::*;

    fn inventory_of(programs: &Programs) -> Result<String, String> {
        shown(ask(programs.directory(), RunLimits::default(), &LinuxClock::new()))
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
        assert_eq!(inventory_of(&programs).unwrap(), "host=x ip=[\"1\", \"2\"]");
    }

    #[test]
    fn only_an_inventory_of_failures_is_an_error() {
        assert_eq!(inventory_of(&Programs::new(&[])).unwrap(), "");
        assert_eq!(inventory_of(&Programs::new(&[("mender-inventory-a", "true")])).unwrap(), "");
        let error = inventory_of(&Programs::new(&[("mender-inventory-a", "exit 1")])).unwrap_err();
        assert!(error.contains("every inventory program failed"), "{error}");
        let missing = ask(Path::new("/nonexistent"), RunLimits::default(), &LinuxClock::new());
        assert_eq!(shown(missing).unwrap(), "");
    }

    #[test]
    fn an_inventory_stays_below_what_servers_take() {
        let long = format!("printf '{}=x\\nshort=1\\n'", "n".repeat(NAME_CHARS + 1));
        assert_eq!(inventory_of(&Programs::new(&[("mender-inventory-a", &long)])).unwrap(), "short=1");
        let mut merged = KeyValues::default();
        merged.add(vec![("a".into(), "1".repeat(20)), ("b".into(), "2".repeat(20))]);
        drop_beyond(&mut merged, 30);
        assert_eq!(merged.attributes().len(), 1);
    }
}
