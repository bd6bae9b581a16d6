//! Option values that several commands have.

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// The value of an option as text.
pub(crate) fn text(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let value = parser.value()?;
    value.into_string().map_err(|value| Failure::usage(format!("{value:?} is not UTF-8")))
}

/// The value of an option as a path.
pub(crate) fn path(parser: &mut lexopt::Parser) -> Result<PathBuf, Failure> {
    Ok(PathBuf::from(parser.value()?))
}

/// `KEY:VALUE`.
pub(crate) fn key_value(parser: &mut lexopt::Parser) -> Result<(String, String), Failure> {
    let text = text(parser)?;
    match text.split_once(':') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{text:?} is not KEY:VALUE"))),
    }
}

/// `UID:GID`.
pub(crate) fn owner(parser: &mut lexopt::Parser) -> Result<(u32, u32), Failure> {
    let text = text(parser)?;
    let numbers =
        text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    numbers.ok_or_else(|| Failure::usage(format!("{text:?} is not UID:GID in numbers")))
}

/// Takes `value` as the only one.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T, option: &str) -> Result<(), Failure> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Failure::usage(format!("{option} is given twice"))),
    }
}

/// The last part of a path, as the name inside an artifact.
pub(crate) fn base_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Failure::usage(format!("{} has no usable name", path.display())))
}
