//! Option values that several commands have.

use crate::failure::Failure;
use artifact::InvalidName;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The value of an option as text.
pub(crate) fn text(parser: &mut lexopt::Parser) -> Result<String, Failure> {
    let value = parser.value()?;
    value.into_string().map_err(|value| Failure::usage(format!("{value:?} is not UTF-8")))
}

/// The value of an option as a name in an artifact.
pub(crate) fn name<N: FromStr<Err = InvalidName>>(parser: &mut lexopt::Parser) -> Result<N, Failure> {
    let text = text(parser)?;
    text.parse().map_err(|invalid| Failure::usage(format!("{text:?}: {invalid}")))
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

/// A number of bytes as `mender-artifact` takes it: `5MB`, `1.5GB`, `100`; the units are powers of 1000.
pub(crate) fn size(parser: &mut lexopt::Parser) -> Result<u64, Failure> {
    let text = text(parser)?;
    parse_size(&text)
        .ok_or_else(|| Failure::usage(format!("{text:?} is not a size such as 5MB, 1.5GB or 100")))
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit: u64 = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let digits = fraction.get(..fraction.len().min(6))?;
    let part = format!("{digits:0<6}").parse::<u64>().ok()?.checked_mul(unit)? / 1_000_000;
    bytes.checked_add(part)
}

/// Permissions in octal digits.
pub(crate) fn mode(parser: &mut lexopt::Parser) -> Result<u32, Failure> {
    let text = text(parser)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777 && *mode > 0);
    mode.ok_or_else(|| Failure::usage(format!("{text:?} is not a mode in octal digits, such as 0644")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_thousands() {
        for (text, expected) in [
            ("100", Some(100)),
            ("5MB", Some(5_000_000)),
            ("1.5gb", Some(1_500_000_000)),
            ("0.25kB", Some(250)),
            ("7B", Some(7)),
            ("2TB", Some(2_000_000_000_000)),
            ("", None),
            ("MB", None),
            ("5MiB", None),
            ("-5MB", None),
            ("1.x", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
