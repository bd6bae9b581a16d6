//! What is wrong with an environment that is not valid, as far as that can be seen: the commonest mistakes of a new board
//! leave an environment that is right at another size, or with another number of copies.
//!
//! It decides nothing: a guess is for a person.

use crate::checksum::Checksum;
use crate::image::Format;

/// How much of a device is looked at, from where the environment should be. Most environments are smaller.
pub(crate) const LOOK_BYTES: u64 = 1 << 20;
/// Sizes of environments are multiples of this.
const STEP_BYTES: usize = 256;

/// What `bytes` look like, which begin where an environment of `format` and `size_bytes` should, and go on behind it.
pub(crate) fn hint(format: Format, size_bytes: usize, bytes: &[u8]) -> Option<String> {
    let own = bytes.get(..size_bytes).unwrap_or(bytes);
    for (filling, name) in [(0x00, "zeros"), (0xFF, "0xFF")] {
        if !own.is_empty() && own.iter().all(|byte| *byte == filling) {
            return Some(format!(
                "it is blank (all {name}): U-Boot has never saved its environment (`saveenv` at its prompt does), or \
                 OFFSET is wrong"
            ));
        }
    }
    let (found, right_bytes) = right(bytes)?;
    let size = (right_bytes != size_bytes).then(|| {
        format!(
            "ENVSIZE is {size_bytes:#x} and the checksum is right for {right_bytes:#x}, which is CONFIG_ENV_SIZE of \
             U-Boot then"
        )
    });
    let copies = match (format, found) {
        (Format::Single, Format::Redundant) => Some(
            "U-Boot keeps two copies (the checksum is right behind a flags byte): \
             fw_env.config needs a second line",
        ),
        (Format::Redundant, Format::Single) => Some(
            "U-Boot keeps one copy (the checksum is right without a flags byte): \
             fw_env.config must have one line",
        ),
        (Format::Single, Format::Single) | (Format::Redundant, Format::Redundant) => None,
    };
    let hints: Vec<String> = size.into_iter().chain(copies.map(str::to_owned)).collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

/// The format and the size for which the checksum is right.
fn right(bytes: &[u8]) -> Option<(Format, usize)> {
    let stored = u32::from_le_bytes(*bytes.first_chunk()?);
    for format in [Format::Redundant, Format::Single] {
        let mut at = format.header_bytes();
        let mut checksum = Checksum::new();
        while at < bytes.len() {
            let end = (at / STEP_BYTES * STEP_BYTES + STEP_BYTES).min(bytes.len());
            checksum = checksum.add(&bytes[at..end]);
            at = end;
            if checksum.value() == stored {
                return Some((format, end));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, Variables};

    /// What a board sees that has an environment of `real` bytes in `written` and is told another one.
    fn check(written: Format, real: usize, told: Format, size_bytes: usize, expected: &[&str]) {
        let mut variables = Variables::default();
        variables.set("bootcmd", "run distro_bootcmd").unwrap();
        for padding in [0x00, 0xFF] {
            let image = Image { flags: 1, variables: variables.clone() };
            let mut bytes = image.encode(written, real, padding).unwrap();
            bytes.resize(0x1_0000, 0xA5);
            let hint = hint(told, size_bytes, &bytes).unwrap_or_default();
            for word in expected {
                assert!(hint.contains(word), "{word:?} is not in {hint:?}");
            }
            assert_eq!(hint.is_empty(), expected.is_empty(), "{hint}");
        }
    }

    #[test]
    fn the_size_and_the_number_of_copies_that_would_be_right_are_named() {
        use Format::{Redundant, Single};
        for wrong in [0x2000, 0x8000, 0x3000, 0x400] {
            check(Redundant, 0x4000, Redundant, wrong, &["ENVSIZE", "right for 0x4000"]);
            check(Single, 0x4000, Single, wrong, &["ENVSIZE", "right for 0x4000"]);
        }
        check(Redundant, 0x4000, Single, 0x4000, &["two copies", "second line"]);
        check(Single, 0x4000, Redundant, 0x4000, &["one copy", "one line"]);
        check(Redundant, 0x2100, Single, 0x4000, &["right for 0x2100", "two copies"]);
        check(Single, 0x1_0000, Redundant, 0x4000, &["right for 0x10000", "one copy"]);
    }

    #[test]
    fn a_blank_environment_is_called_blank_and_a_torn_one_nothing() {
        for (filling, name) in [(0, "all zeros"), (0xFF, "all 0xFF")] {
            for format in [Format::Single, Format::Redundant] {
                assert!(hint(format, 0x4000, &[filling; 0x4000]).unwrap().contains(name));
            }
        }
        assert_eq!(hint(Format::Redundant, 0x4000, &[0x5A; 0x8000]), None);
        assert_eq!(hint(Format::Redundant, 0x4000, &[1, 2]), None);
        assert_eq!(hint(Format::Redundant, 16, &[]), None);
    }
}
