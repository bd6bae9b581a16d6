//! The stored form of a U-Boot environment, both directions.
//!
//! ```text
//! single    : crc32[4] data[ENVSIZE-4]
//! redundant : crc32[4] flags[1] data[ENVSIZE-5]
//! data      : "name=value\0" ... "\0" and then filling
//! ```
//!
//! The checksum is the IEEE CRC-32 of the data alone, little-endian: that of every little-endian board, and of
//! the real tools run on one. It does not decide which of two copies counts; that is [`crate::env`].

use crate::checksum::Checksum;
use client_core::boot::BootEnvError;

/// Whether the image has the flags byte of a redundant environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One copy: checksum and data.
    Single,
    /// One of two copies: checksum, flags and data.
    Redundant,
}

impl Format {
    /// Bytes before the data.
    pub const fn header_bytes(self) -> usize {
        match self {
            Format::Single => 4,
            Format::Redundant => 5,
        }
    }
}

/// Where the flags byte of a redundant copy lies.
pub const FLAGS_OFFSET: u64 = 4;

/// A copy whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Age mark of a redundant copy, 0 for a single one.
    pub flags: u8,
    /// What it holds.
    pub variables: Variables,
}

impl Image {
    /// Reads a whole copy.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn decode(format: Format, bytes: &[u8]) -> Result<Image, String> {
        let Some((stored, rest)) = bytes.split_first_chunk::<4>() else {
            return Err("too short for a checksum".to_string());
        };
        let (flags, data) = match (format, rest.split_first()) {
            (Format::Single, _) => (0, rest),
            (Format::Redundant, Some((flags, data))) => (*flags, data),
            (Format::Redundant, None) => return Err("too short for a flags byte".to_string()),
        };
        let stored = u32::from_le_bytes(*stored);
        let actual = Checksum::of(data);
        if stored != actual {
            let erased = bytes.iter().all(|byte| *byte == 0xFF);
            return Err(if erased {
                "erased".to_string()
            } else {
                format!("checksum {stored:08x} is stored and {actual:08x} is right")
            });
        }
        Ok(Image { flags, variables: Variables::decode(data) })
    }

    /// Builds a whole copy of `size_bytes`, filled up with `padding`.
    ///
    /// # Errors
    /// [`BootEnvError::TooLarge`] when the variables do not fit.
    pub fn encode(&self, format: Format, size_bytes: usize, padding: u8) -> Result<Vec<u8>, BootEnvError> {
        let header_bytes = format.header_bytes();
        let need_bytes = header_bytes + self.variables.encoded_bytes();
        if need_bytes > size_bytes {
            return Err(BootEnvError::TooLarge { need_bytes, have_bytes: size_bytes });
        }
        let mut bytes = Vec::with_capacity(size_bytes);
        bytes.resize(header_bytes, self.flags);
        self.variables.encode_into(&mut bytes);
        bytes.resize(size_bytes, padding);
        let checksum = Checksum::of(&bytes[header_bytes..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        Ok(bytes)
    }
}

/// The variables of an environment in their order, as the bytes they were stored as.
///
/// An entry without `=` and one that is not UTF-8 survive untouched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables {
    /// `name=value`, never empty, never with a NUL.
    entries: Vec<Vec<u8>>,
}

impl Variables {
    /// Reads entries up to the empty one, or the end of the data, where U-Boot stops too.
    fn decode(data: &[u8]) -> Variables {
        let entries = data.split(|byte| *byte == 0).take_while(|entry| !entry.is_empty());
        Variables { entries: entries.map(<[u8]>::to_vec).collect() }
    }

    fn encoded_bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.len() + 1).sum::<usize>() + 1
    }

    fn encode_into(&self, bytes: &mut Vec<u8>) {
        for entry in &self.entries {
            bytes.extend_from_slice(entry);
            bytes.push(0);
        }
        bytes.push(0);
    }

    /// The value of `name`. Of two entries with one name the later counts, as in U-Boot.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.entries.iter().rev().find_map(|entry| match split(entry) {
            (found, Some(value)) if found == name.as_bytes() => Some(value),
            (_, _) => None,
        })
    }

    /// Sets `name`; an empty value removes it, as `fw_setenv` and U-Boot's `setenv` do.
    ///
    /// A new variable goes where U-Boot and `fw_setenv` sort it; nothing else moves.
    ///
    /// # Errors
    /// [`BootEnvError::InvalidVariable`] for what the format cannot hold.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BootEnvError> {
        let refuse = |reason| Err(BootEnvError::InvalidVariable { name: name.to_string(), reason });
        if name.is_empty() {
            return refuse("the name is empty");
        }
        if name.contains('=') {
            return refuse("the name contains '='");
        }
        if name.contains('\0') || value.contains('\0') {
            return refuse("it contains a NUL");
        }
        let entry = format!("{name}={value}").into_bytes();
        let is_named = |entry: &Vec<u8>| split(entry).0 == name.as_bytes();
        let place = self.entries.iter().position(is_named).unwrap_or_else(|| {
            let after = |entry: &Vec<u8>| split(entry).0 > name.as_bytes();
            self.entries.iter().position(after).unwrap_or(self.entries.len())
        });
        self.entries.retain(|entry| !is_named(entry));
        if !value.is_empty() {
            self.entries.insert(place, entry);
        }
        Ok(())
    }
}

/// Name, and value if there is a `=`.
fn split(entry: &[u8]) -> (&[u8], Option<&[u8]>) {
    match entry.iter().position(|byte| *byte == b'=') {
        Some(equals) => (&entry[..equals], Some(&entry[equals + 1..])),
        None => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(data: &[u8]) -> Image {
        Image { flags: 0, variables: Variables::decode(data) }
    }

    fn check_round_trip(data: &[u8]) {
        for format in [Format::Single, Format::Redundant] {
            for padding in [0x00, 0xFF] {
                let flags = if format == Format::Redundant { 7 } else { 0 };
                let built = Image { flags, ..image(data) };
                let bytes = built.encode(format, 256, padding).unwrap();
                assert_eq!(bytes.len(), 256);
                assert_eq!(&bytes[format.header_bytes()..][..data.len()], data);
                assert_eq!(Image::decode(format, &bytes).unwrap(), built);
            }
        }
    }

    fn check_set(before: &[u8], name: &str, value: &str, after: &[u8]) {
        let mut variables = Variables::decode(before);
        variables.set(name, value).unwrap();
        let mut bytes = Vec::new();
        variables.encode_into(&mut bytes);
        assert_eq!(bytes.escape_ascii().to_string(), after.escape_ascii().to_string());
    }

    #[test]
    fn images_round_trip() {
        check_round_trip(b"\0");
        check_round_trip(b"a=1\0b=two words=and more\0\0");
        check_round_trip(b"broken\0\xff\xfe=\x80\0=x\0\0");
    }

    #[test]
    fn the_layout_is_that_of_the_format() {
        let bytes = Image { flags: 3, ..image(b"a=1\0\0") }.encode(Format::Redundant, 16, 0xFF).unwrap();
        // crc32("a=1\0\0" + 6 times 0xFF), computed by zlib.
        assert_eq!(bytes[4..], *b"\x03a=1\0\0\xff\xff\xff\xff\xff\xff");
        assert_eq!(bytes[..4], crc32fast::hash(&bytes[5..]).to_le_bytes());
    }

    #[test]
    fn the_checksum_does_not_cover_the_flags() {
        let mut bytes = Image { flags: 3, ..image(b"a=1\0\0") }.encode(Format::Redundant, 16, 0).unwrap();
        bytes[4] = 9;
        assert_eq!(Image::decode(Format::Redundant, &bytes).unwrap().flags, 9);
    }

    #[test]
    fn setting_keeps_the_place_of_a_variable() {
        check_set(b"c=1\0a=2\0b=3\0\0", "a", "two", b"c=1\0a=two\0b=3\0\0");
    }

    #[test]
    fn a_new_variable_goes_where_it_sorts() {
        check_set(b"a=1\0c=3\0\0", "b", "2", b"a=1\0b=2\0c=3\0\0");
        check_set(b"a=1\0\0", "b", "2", b"a=1\0b=2\0\0");
        check_set(b"\0", "b", "2", b"b=2\0\0");
    }

    #[test]
    fn an_empty_value_removes_the_variable() {
        check_set(b"a=1\0b=2\0c=3\0\0", "b", "", b"a=1\0c=3\0\0");
        check_set(b"a=1\0\0", "b", "", b"a=1\0\0");
    }

    #[test]
    fn a_doubled_variable_is_read_from_its_last_place_and_written_once() {
        assert_eq!(Variables::decode(b"a=1\0b=\0a=2\0\0").value("a"), Some(&b"2"[..]));
        check_set(b"a=1\0b=2\0a=3\0\0", "a", "4", b"a=4\0b=2\0\0");
    }

    #[test]
    fn malformed_neighbours_survive_byte_for_byte() {
        check_set(b"no equals\0\xff\xfe=\x80\0=x\0\0", "b", "1", b"b=1\0no equals\0\xff\xfe=\x80\0=x\0\0");
    }

    #[test]
    fn names_and_values_that_the_format_cannot_hold_are_refused() {
        for (name, value) in [("", "1"), ("a=b", "1"), ("a\0", "1"), ("a", "1\0")] {
            let refused = Variables::default().set(name, value);
            assert!(matches!(refused, Err(BootEnvError::InvalidVariable { .. })), "{name:?} {value:?}");
        }
    }

    #[test]
    fn what_just_fits_is_stored_and_one_byte_more_is_not() {
        assert!(image(b"abc=defgh\0\0").encode(Format::Redundant, 16, 0).is_ok());
        let refused = image(b"abc=defghi\0\0").encode(Format::Redundant, 16, 0);
        assert!(matches!(refused, Err(BootEnvError::TooLarge { need_bytes: 17, have_bytes: 16 })));
    }

    #[test]
    fn an_unterminated_list_ends_with_the_data() {
        assert_eq!(Variables::decode(b"a=1\0b=2").value("b"), Some(&b"2"[..]));
        assert_eq!(Variables::decode(b"a=1\0b=2\0").value("b"), Some(&b"2"[..]));
    }

    #[test]
    fn an_erased_copy_is_called_erased() {
        assert_eq!(Image::decode(Format::Redundant, &[0xFF; 64]).unwrap_err(), "erased");
    }

    #[test]
    fn every_flipped_bit_of_checksum_or_data_is_found() {
        let good = image(b"a=1\0b=2\0\0").encode(Format::Redundant, 64, 0).unwrap();
        for bit in (0..good.len() * 8).filter(|bit| bit / 8 != 4) {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Image::decode(Format::Redundant, &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn no_truncation_or_random_data_makes_the_decoder_panic() {
        let good = image(b"a=1\0b=2\0\0").encode(Format::Redundant, 64, 0).unwrap();
        for end in 0..good.len() {
            for format in [Format::Single, Format::Redundant] {
                assert!(Image::decode(format, &good[..end]).is_err(), "cut to {end}");
            }
        }
        let mut random = 1_u32;
        for _round in 0..5_000 {
            let mut data = Vec::new();
            for _byte in 0..40 {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly the bytes that mean something.
                data.push([0, b'=', b'a', b'b', 0xFF, (random >> 8) as u8][(random >> 24) as usize % 6]);
            }
            let mut bytes = crc32fast::hash(&data).to_le_bytes().to_vec();
            bytes.append(&mut data);
            let mut decoded = Image::decode(Format::Single, &bytes).unwrap();
            decoded.variables.set("a", "value").unwrap();
            assert_eq!(decoded.variables.value("a"), Some(&b"value"[..]));
            decoded.encode(Format::Single, 64, 0).unwrap();
        }
    }
}
