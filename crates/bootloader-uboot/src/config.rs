//! `fw_env.config`: where the copies of the environment are.
//!
//! One line per copy, one or two of them:
//!
//! ```text
//! # device      offset   envsize  sectorsize  nsectors  disable_lock
//! /dev/mmcblk0  0x800000 0x20000
//! /dev/mmcblk0  0x1000000 0x20000
//! ```
//!
//! The numbers are read as the real tools read them (`sscanf` with `%lli` and `%lx`): OFFSET is C-style, so decimal,
//! `0x` hexadecimal or, after a leading `0`, octal; the sizes and NSECTORS are **hexadecimal with or without `0x`**;
//! DISABLE_LOCK is decimal. The YAML form of newer libubootenv is recognised and not read.

use client_core::boot::BootEnvError;

/// Longest `fw_env.config` that is looked at. Real ones are a few comments and two lines.
pub const MAX_CONFIG_BYTES: usize = 64 * 1024;
/// Largest environment accepted. Boards use 8 KiB to 1 MiB; the bound keeps a typing error from taking all memory.
pub const MAX_ENV_BYTES: u64 = 16 * 1024 * 1024;
/// Smallest environment accepted: the header of a redundant one and an empty list of variables.
pub const MIN_ENV_BYTES: u64 = 16;
/// Largest erase block accepted.
const MAX_SECTOR_BYTES: u64 = 256 * 1024 * 1024;
/// Most erase blocks one copy may be spread over.
const MAX_SECTORS: u64 = 65_536;

/// Where one copy lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyConfig {
    /// The device, file or UBI volume, as written.
    pub device: String,
    /// Where the copy starts; negative counts from the end of the device.
    pub offset: i64,
    /// Bytes of the copy, its header included.
    pub size_bytes: u64,
    /// Bytes of an erase block, 0 when not given.
    pub sector_bytes: u64,
    /// Erase blocks the copy may be spread over when some are bad, 0 when not given.
    pub sectors: u64,
    /// Whether the blocks are left unlocked after a write.
    pub disable_lock: bool,
    /// The line of the file, from 1, for messages.
    pub line: usize,
}

impl CopyConfig {
    /// The offset from the start of a device of `device_bytes`.
    ///
    /// # Errors
    /// When the copy does not lie inside the device.
    pub fn offset_on(&self, device_bytes: u64) -> Result<u64, BootEnvError> {
        let outside = || BootEnvError::Config {
            place: format!("{} (fw_env.config line {})", self.device, self.line),
            reason: format!(
                "ENVSIZE {:#x} at OFFSET {:#x} does not lie in the {device_bytes:#x} bytes of the device",
                self.size_bytes, self.offset
            ),
        };
        let offset = if self.offset < 0 {
            device_bytes.checked_sub(self.offset.unsigned_abs()).ok_or_else(outside)?
        } else {
            self.offset.unsigned_abs()
        };
        let end = offset.checked_add(self.size_bytes).ok_or_else(outside)?;
        if end > device_bytes { Err(outside()) } else { Ok(offset) }
    }
}

/// One copy, or two of the same size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FwEnvConfig {
    /// One line: the environment is rewritten in place.
    Single(CopyConfig),
    /// Two lines: the copies take turns.
    Redundant([CopyConfig; 2]),
}

impl FwEnvConfig {
    /// Reads the text of a configuration file; `place` names it in errors.
    ///
    /// # Errors
    /// [`BootEnvError::Config`] with the line and the field.
    pub fn parse(text: &str, place: &str) -> Result<FwEnvConfig, BootEnvError> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(BootEnvError::Config {
                place: place.to_string(),
                reason: format!("longer than {MAX_CONFIG_BYTES} bytes"),
            });
        }
        let mut copies = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            if line.trim().is_empty() {
                continue;
            }
            if copies.is_empty() && is_yaml(line) {
                return Err(BootEnvError::Config { place: place.to_string(), reason: yaml(text) });
            }
            let number = index + 1;
            let at = || format!("{place} line {number}");
            if copies.len() == 2 {
                return Err(BootEnvError::Config {
                    place: at(),
                    reason: "a third copy; an environment has one or two".to_string(),
                });
            }
            let copy =
                parse_line(line, number).map_err(|reason| BootEnvError::Config { place: at(), reason })?;
            copies.push(copy);
        }
        let mut copies = copies.into_iter();
        match (copies.next(), copies.next()) {
            (None, _) => Err(BootEnvError::Config {
                place: place.to_string(),
                reason: "names no copy of the environment".to_string(),
            }),
            (Some(copy), None) => Ok(FwEnvConfig::Single(copy)),
            (Some(first), Some(second)) => {
                if first.size_bytes != second.size_bytes {
                    return Err(BootEnvError::Config {
                        place: format!("{place} line {}", second.line),
                        reason: format!(
                            "ENVSIZE {:#x} differs from the {:#x} of the other copy",
                            second.size_bytes, first.size_bytes
                        ),
                    });
                }
                Ok(FwEnvConfig::Redundant([first, second]))
            }
        }
    }

    /// The copies, in the order of the file.
    pub fn copies(&self) -> &[CopyConfig] {
        match self {
            FwEnvConfig::Single(copy) => std::slice::from_ref(copy),
            FwEnvConfig::Redundant(copies) => copies,
        }
    }
}

/// Whether the first line with content is one of YAML: a key of a mapping, or the start of a document.
fn is_yaml(line: &str) -> bool {
    let line = line.trim();
    line == "---" || line.ends_with(':') && !line.contains(char::is_whitespace) && !line.starts_with('/')
}

/// What to write in place of the YAML form, with its own values where they are found.
fn yaml(text: &str) -> String {
    let values = |key: &str| {
        let value = |line: &str| {
            let line = line.trim().trim_start_matches("- ").trim();
            Some(
                line.strip_prefix(key)?
                    .trim_start()
                    .strip_prefix(':')?
                    .trim()
                    .trim_matches(['"', '\''])
                    .to_owned(),
            )
        };
        text.lines().filter_map(value).take(2).collect::<Vec<_>>()
    };
    let (paths, offsets, sizes) = (values("path"), values("offset"), values("size"));
    let lines: Vec<String> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| {
            let offset = offsets.get(at).map_or("0x0", String::as_str);
            format!("{path} {offset} {}", sizes.first().map_or("ENVSIZE", String::as_str))
        })
        .collect();
    let lines = if lines.is_empty() { "DEVICE OFFSET ENVSIZE".to_owned() } else { lines.join("\" and \"") };
    format!(
        "this is the YAML form of newer libubootenv, which is not read here: write one line for each copy, \"{lines}\""
    )
}

fn parse_line(line: &str, number: usize) -> Result<CopyConfig, String> {
    let mut fields = line.split_whitespace();
    let device = fields.next().ok_or("DEVICE is missing")?.to_string();
    let offset = fields.next().ok_or("OFFSET is missing")?;
    let offset = c_number(offset).ok_or_else(|| format!("OFFSET {offset:?} is not a number"))?;
    let size = fields.next().ok_or("ENVSIZE is missing")?;
    let size_bytes = hex_within("ENVSIZE", size, MIN_ENV_BYTES, MAX_ENV_BYTES)?;
    let sector_bytes = match fields.next() {
        Some(field) => hex_within("SECTORSIZE", field, 0, MAX_SECTOR_BYTES)?,
        None => 0,
    };
    let sectors = match fields.next() {
        Some(field) => hex_within("NSECTORS", field, 0, MAX_SECTORS)?,
        None => 0,
    };
    let disable_lock = match fields.next() {
        Some(field) => {
            field.parse::<u32>().map_err(|_| format!("DISABLE_LOCK {field:?} is not a number"))? != 0
        }
        None => false,
    };
    if let Some(extra) = fields.next() {
        return Err(format!("{extra:?} after the last field"));
    }
    Ok(CopyConfig { device, offset, size_bytes, sector_bytes, sectors, disable_lock, line: number })
}

/// A number as C's `strtoll` with base 0 reads it, all of it.
fn c_number(field: &str) -> Option<i64> {
    let (negative, digits) = match field.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, field.strip_prefix('+').unwrap_or(field)),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        unsigned(hex, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        unsigned(digits, 8)?
    } else {
        unsigned(digits, 10)?
    };
    let magnitude = i64::try_from(magnitude).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Digits only: `from_str_radix` would take another sign.
fn unsigned(digits: &str, radix: u32) -> Option<u64> {
    if digits.chars().all(|digit| digit.is_digit(radix)) {
        u64::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

fn hex_within(name: &str, field: &str, least: u64, most: u64) -> Result<u64, String> {
    let digits = field.strip_prefix("0x").or_else(|| field.strip_prefix("0X")).unwrap_or(field);
    let value =
        unsigned(digits, 16).ok_or_else(|| format!("{name} {field:?} is not a hexadecimal number"))?;
    if value < least || value > most {
        return Err(format!("{name} {value:#x} is not between {least:#x} and {most:#x}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, i64, u64)]) {
        let config = FwEnvConfig::parse(text, "fw_env.config").unwrap();
        let got: Vec<_> =
            config.copies().iter().map(|copy| (copy.device.as_str(), copy.offset, copy.size_bytes)).collect();
        assert_eq!(got, expected);
    }

    fn check_error(text: &str, expected: &str) {
        assert_eq!(FwEnvConfig::parse(text, "f").unwrap_err().to_string(), expected);
    }

    #[test]
    fn one_line_is_a_single_copy() {
        check("/dev/mmcblk0 0x800000 0x20000\n", &[("/dev/mmcblk0", 0x80_0000, 0x2_0000)]);
    }

    #[test]
    fn two_lines_are_redundant_copies() {
        check("/dev/a 0 0x4000\n/dev/b 0 0x4000\n", &[("/dev/a", 0, 0x4000), ("/dev/b", 0, 0x4000)]);
    }

    #[test]
    fn comments_blank_lines_and_tabs_are_skipped() {
        check("# c\n\n\t /dev/a\t0x10\t0x4000 # end\n#/dev/x 0 1\n", &[("/dev/a", 16, 0x4000)]);
    }

    #[test]
    fn windows_line_ends_are_read() {
        check("/dev/a 0x10 0x4000\r\n", &[("/dev/a", 16, 0x4000)]);
    }

    #[test]
    fn offsets_are_c_numbers() {
        check("/dev/a 4096 0x4000", &[("/dev/a", 4096, 0x4000)]);
        check("/dev/a 010000 0x4000", &[("/dev/a", 4096, 0x4000)]);
        check("/dev/a 0X1000 0x4000", &[("/dev/a", 4096, 0x4000)]);
        check("/dev/a -0x1000 0x4000", &[("/dev/a", -4096, 0x4000)]);
        check("/dev/a 0 0x4000", &[("/dev/a", 0, 0x4000)]);
    }

    #[test]
    fn sizes_are_hexadecimal_without_a_prefix_too() {
        check("/dev/a 0 4000", &[("/dev/a", 0, 0x4000)]);
    }

    #[test]
    fn all_six_fields_are_read() {
        let config = FwEnvConfig::parse("/dev/mtd1 0x0 0x4000 0x20000 4 1", "f").unwrap();
        let copy = &config.copies()[0];
        assert_eq!((copy.sector_bytes, copy.sectors, copy.disable_lock), (0x2_0000, 4, true));
    }

    #[test]
    fn errors_name_line_and_field() {
        check_error("\n/dev/a\n", "f line 2: OFFSET is missing");
        check_error("/dev/a zero 0x4000", "f line 1: OFFSET \"zero\" is not a number");
        check_error("/dev/a 08 0x4000", "f line 1: OFFSET \"08\" is not a number");
        check_error("/dev/a 0", "f line 1: ENVSIZE is missing");
        check_error("/dev/a 0 x", "f line 1: ENVSIZE \"x\" is not a hexadecimal number");
        check_error("/dev/a 0 0x4000 ?", "f line 1: SECTORSIZE \"?\" is not a hexadecimal number");
        check_error("/dev/a 0 0x4000 1 1 no", "f line 1: DISABLE_LOCK \"no\" is not a number");
        check_error("/dev/a 0 0x4000 1 1 0 9", "f line 1: \"9\" after the last field");
        check_error("# nothing\n", "f: names no copy of the environment");
        check_error(
            "/dev/a 0 4000\n/dev/a 4000 4000\n/dev/a 0 4000",
            "f line 3: a third copy; an environment has one or two",
        );
        check_error(
            "/dev/a 0 4000\n/dev/b 0 2000",
            "f line 2: ENVSIZE 0x2000 differs from the 0x4000 of the other copy",
        );
    }

    #[test]
    fn the_yaml_form_is_named_with_the_lines_to_write() {
        let yaml = "# new\nuboot:\n  size: 0x4000\n  devices:\n  - path: /dev/a\n    offset: 0x10\n  - path: \"/dev/b\"\n    offset: 0x20\n";
        for text in [yaml.to_owned(), format!("---\n{yaml}"), yaml.replace("\n", "\r\n")] {
            let error = FwEnvConfig::parse(&text, "f").unwrap_err().to_string();
            assert!(error.contains("YAML"), "{error}");
            assert!(error.contains("\"/dev/a 0x10 0x4000\" and \"/dev/b 0x20 0x4000\""), "{error}");
        }
        check_error("ubi0:env 0", "f line 1: ENVSIZE is missing");
        assert!(FwEnvConfig::parse("/dev/ubi0:", "f").unwrap_err().to_string().contains("OFFSET"));
    }

    #[test]
    fn the_largest_size_is_accepted_and_one_more_is_refused() {
        check("/dev/a 0 1000000", &[("/dev/a", 0, MAX_ENV_BYTES)]);
        check_error("/dev/a 0 1000001", "f line 1: ENVSIZE 0x1000001 is not between 0x10 and 0x1000000");
        check_error(
            "/dev/a 0 fffffffffffffffff",
            "f line 1: ENVSIZE \"fffffffffffffffff\" is not a hexadecimal number",
        );
    }

    fn check_offset(text: &str, device_bytes: u64, expected: Option<u64>) {
        let config = FwEnvConfig::parse(text, "f").unwrap();
        assert_eq!(config.copies()[0].offset_on(device_bytes).ok(), expected);
    }

    #[test]
    fn a_negative_offset_counts_from_the_end() {
        check_offset("/dev/a -0x4000 0x4000", 0x1_0000, Some(0xC000));
    }

    #[test]
    fn a_copy_past_the_end_of_the_device_is_refused() {
        check_offset("/dev/a -0x2000 0x4000", 0x1_0000, None);
        check_offset("/dev/a -0x20000 0x4000", 0x1_0000, None);
        check_offset("/dev/a 0xC000 0x4000", 0x1_0000, Some(0xC000));
        check_offset("/dev/a 0xC001 0x4000", 0x1_0000, None);
        check_offset("/dev/a 0x7fffffffffffffff 0x4000", u64::MAX, Some(0x7fff_ffff_ffff_ffff));
    }

    /// What is understood lies within the limits, and what is not is told with the name of the file.
    fn check_damaged(text: &str) {
        match FwEnvConfig::parse(text, "f") {
            Ok(config) => {
                let sizes: Vec<u64> = config.copies().iter().map(|copy| copy.size_bytes).collect();
                assert!(matches!(sizes.len(), 1 | 2), "{text:?}: {config:?}");
                let is_allowed =
                    |size: &u64| (MIN_ENV_BYTES..=MAX_ENV_BYTES).contains(size) && *size == sizes[0];
                assert!(sizes.iter().all(is_allowed), "{text:?}: {config:?}");
                assert!(config.copies().iter().all(|copy| !copy.device.is_empty()), "{text:?}: {config:?}");
            }
            Err(error) => {
                assert!(error.to_string().contains("f line ") || error.to_string().contains("f: "), "{error}")
            }
        }
    }

    #[test]
    fn no_damage_to_a_configuration_file_is_taken_for_something_else() {
        let good = "/dev/mtd0 -0x20000 0x4000 0x20000 2 1\n/dev/mtd1 0777 4000\n";
        for end in 0..good.len() {
            check_damaged(&good[..end]);
            for byte in [0x00, b'-', b'x', b'9', b'#', b'\n', b' ', 0x7f] {
                let mut damaged = good.as_bytes().to_vec();
                damaged[end] = byte;
                check_damaged(&String::from_utf8_lossy(&damaged));
            }
        }
    }
}
