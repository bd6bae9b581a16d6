//! The GRUB environment block, both directions.
//!
//! Exactly 1024 bytes: the line `# GRUB Environment Block`, then `name=value` lines in which a backslash or a
//! line end of the value is preceded by a backslash, comment lines, and `#` up to the end. GRUB changes a value
//! where it stands and appends a new one; so does [`Block::set`].

use client_core::boot::BootEnvError;
use client_core::boot::mender_vars::{
    BOOT_COUNT, BOOT_PART, BOOT_PART_HEX, CANARY, CHECK_CANARY, UPGRADE_AVAILABLE,
};

/// Every variable that the client and GRUB share.
pub(crate) const SHARED: [&str; 6] =
    [BOOT_PART, BOOT_PART_HEX, UPGRADE_AVAILABLE, BOOT_COUNT, CHECK_CANARY, CANARY];

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 1024;
/// What a power cut tears at: the smallest unit a medium writes.
pub const SECTOR_BYTES: usize = 512;
/// The line every block starts with.
pub const HEADER: &[u8] = b"# GRUB Environment Block\n";

/// The lines of a block after the header, as the bytes they were stored as, each with its line end.
///
/// Comments and names of others survive untouched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    lines: Vec<Vec<u8>>,
}

impl Block {
    /// Reads a whole block.
    ///
    /// # Errors
    /// What is wrong with it, for a person. Refused is all that makes GRUB's own reader or `save_env` fail.
    pub fn decode(bytes: &[u8]) -> Result<Block, String> {
        if bytes.len() != BLOCK_BYTES {
            return Err(format!("{} bytes long instead of {BLOCK_BYTES}", bytes.len()));
        }
        let Some(mut rest) = bytes.strip_prefix(HEADER) else {
            return Err("does not start with the header line".to_string());
        };
        let mut lines = Vec::new();
        while !rest.iter().all(|byte| *byte == b'#') {
            let end = line_bytes(rest).ok_or("ends inside a line")?;
            let (line, after) = rest.split_at(end);
            check_line(line)?;
            lines.push(line.to_vec());
            rest = after;
        }
        Ok(Block { lines })
    }

    /// Builds a whole block.
    ///
    /// # Errors
    /// [`BootEnvError::TooLarge`] when the lines do not fit.
    pub fn encode(&self) -> Result<[u8; BLOCK_BYTES], BootEnvError> {
        let need_bytes = self.used_bytes();
        if need_bytes > BLOCK_BYTES {
            return Err(BootEnvError::TooLarge { need_bytes, have_bytes: BLOCK_BYTES });
        }
        let mut bytes = [b'#'; BLOCK_BYTES];
        let content = HEADER.iter().chain(self.lines.iter().flatten());
        for (place, byte) in bytes.iter_mut().zip(content) {
            *place = *byte;
        }
        Ok(bytes)
    }

    fn used_bytes(&self) -> usize {
        HEADER.len() + self.lines.iter().map(Vec::len).sum::<usize>()
    }

    /// The value of `name`, with its backslashes resolved. Of two lines with one name the later counts, as when
    /// GRUB loads them in order.
    pub fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.lines.iter().rev().find_map(|line| match split(line) {
            Some((found, value)) if found == name.as_bytes() => Some(unescape(value)),
            Some(_) | None => None,
        })
    }

    /// Sets `name` where it stands, or appends it, as GRUB and `grub-editenv` do. An empty value is a value.
    ///
    /// # Errors
    /// [`BootEnvError::InvalidVariable`] for a name the format cannot hold.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BootEnvError> {
        let refuse = |reason| Err(BootEnvError::InvalidVariable { name: name.to_string(), reason });
        if name.is_empty() {
            return refuse("the name is empty");
        }
        if name.starts_with('#') {
            return refuse("the name starts a comment");
        }
        if name.contains(['=', '\n', '\\', '\0']) {
            return refuse("the name contains '=', '\\', a line end or a NUL");
        }
        if value.contains('\0') {
            return refuse("the value contains a NUL");
        }
        let mut line = format!("{name}=").into_bytes();
        for byte in value.bytes() {
            if matches!(byte, b'\\' | b'\n') {
                line.push(b'\\');
            }
            line.push(byte);
        }
        line.push(b'\n');
        let is_named = |line: &Vec<u8>| split(line).is_some_and(|(found, _)| found == name.as_bytes());
        let place = self.lines.iter().position(is_named).unwrap_or(self.lines.len());
        self.lines.retain(|line| !is_named(line));
        self.lines.insert(place, line);
        Ok(())
    }

    /// Whether every variable of this client ends inside the first sector, so that no power cut can mix old
    /// ones with new ones.
    pub fn ours_lie_in_one_sector(&self) -> bool {
        let mut end = HEADER.len();
        self.lines.iter().all(|line| {
            end += line.len();
            !is_ours(line) || end <= SECTOR_BYTES
        })
    }

    /// Moves the variables of this client to the front when one of them leaves the first sector; else changes
    /// nothing, so that a block stays the one `grub-editenv` would have written.
    ///
    /// # Errors
    /// [`BootEnvError::TooLarge`] when they do not fit there at all.
    pub fn keep_ours_in_one_sector(&mut self) -> Result<(), BootEnvError> {
        if self.ours_lie_in_one_sector() {
            return Ok(());
        }
        self.lines.sort_by_key(|line| !is_ours(line)); // Stable.
        if self.ours_lie_in_one_sector() {
            return Ok(());
        }
        let ours = self.lines.iter().filter(|line| is_ours(line)).map(Vec::len).sum::<usize>();
        Err(BootEnvError::TooLarge { need_bytes: HEADER.len() + ours, have_bytes: SECTOR_BYTES })
    }
}

fn is_ours(line: &[u8]) -> bool {
    split(line).is_some_and(|(name, _)| SHARED.iter().any(|ours| ours.as_bytes() == name))
}

/// Length of the first line with its line end; a backslash takes the next byte along.
fn line_bytes(bytes: &[u8]) -> Option<usize> {
    let mut place = 0;
    loop {
        match bytes.get(place)? {
            b'\n' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

/// GRUB takes everything up to the first `=` as the name, across line ends: a line without one would swallow
/// the next.
fn check_line(line: &[u8]) -> Result<(), String> {
    if line.contains(&0) {
        return Err("contains a NUL".to_string());
    }
    if line.starts_with(b"#") {
        return Ok(());
    }
    match split(line) {
        Some((name, _)) if !name.is_empty() && !name.contains(&b'\\') => Ok(()),
        Some(_) | None => Err(format!("line \"{}\" is not name=value", line.escape_ascii())),
    }
}

/// Name and escaped value of a variable's line; `None` for a comment.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.starts_with(b"#") {
        return None;
    }
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let value = &line[equals + 1..];
    Some((&line[..equals], value.strip_suffix(b"\n").unwrap_or(value)))
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(lines: &str) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(lines.as_bytes());
        bytes.resize(BLOCK_BYTES, b'#');
        bytes
    }

    fn check_round_trip(lines: &str) {
        let bytes = padded(lines);
        assert_eq!(Block::decode(&bytes).unwrap().encode().unwrap(), bytes[..]);
    }

    fn check_set(before: &str, name: &str, value: &str, after: &str) {
        let mut block = Block::decode(&padded(before)).unwrap();
        block.set(name, value).unwrap();
        assert_eq!(
            block.encode().unwrap().escape_ascii().to_string(),
            padded(after).escape_ascii().to_string()
        );
        assert_eq!(block.value(name).unwrap(), value.as_bytes());
    }

    fn check_refused(bytes: &[u8], expected: &str) {
        assert_eq!(Block::decode(bytes).unwrap_err(), expected);
    }

    #[test]
    fn blocks_round_trip() {
        check_round_trip("");
        check_round_trip("a=1\n");
        check_round_trip("# WARNING: Do not edit!!!\na=x\\\\y\nb=\nc=1\\\n2\n");
    }

    #[test]
    fn a_block_without_filling_is_whole() {
        let line = format!("a={}\n", "x".repeat(BLOCK_BYTES - HEADER.len() - 3));
        check_round_trip(&line);
    }

    #[test]
    fn setting_keeps_the_place_of_a_variable_and_appends_a_new_one() {
        check_set("a=1\nb=2\n", "a", "three", "a=three\nb=2\n");
        check_set("a=1\nb=2\n", "c", "3", "a=1\nb=2\nc=3\n");
        check_set("a=1\n", "a", "", "a=\n");
    }

    #[test]
    fn backslashes_and_line_ends_are_escaped() {
        check_set("", "a", "x\\y\nz=#", "a=x\\\\y\\\nz=#\n");
    }

    #[test]
    fn comments_and_bytes_that_are_not_utf_8_survive() {
        let mut bytes = padded("# c\nb=??\n");
        bytes[HEADER.len() + 6..][..2].copy_from_slice(&[0xFF, 0x80]);
        let mut block = Block::decode(&bytes).unwrap();
        block.set("a", "1").unwrap();
        assert_eq!(block.encode().unwrap()[..HEADER.len() + 9], bytes[..HEADER.len() + 9]);
    }

    #[test]
    fn a_doubled_variable_is_read_from_its_last_line_and_written_once() {
        assert_eq!(Block::decode(&padded("a=1\na=2\n")).unwrap().value("a").unwrap(), b"2");
        check_set("a=1\nb=\na=2\n", "a", "3", "a=3\nb=\n");
    }

    #[test]
    fn names_the_format_cannot_hold_are_refused() {
        for (name, value) in [("", ""), ("#a", ""), ("a=b", ""), ("a\nb", ""), ("a\\", ""), ("a", "\0")] {
            let refused = Block::default().set(name, value);
            assert!(matches!(refused, Err(BootEnvError::InvalidVariable { .. })), "{name:?}");
        }
    }

    #[test]
    fn what_just_fits_is_stored_and_one_byte_more_is_not() {
        let room = BLOCK_BYTES - HEADER.len() - 3;
        let mut block = Block::default();
        block.set("a", &"x".repeat(room)).unwrap();
        assert!(block.encode().is_ok());
        block.set("a", &"x".repeat(room + 1)).unwrap();
        assert!(matches!(block.encode(), Err(BootEnvError::TooLarge { need_bytes: 1025, have_bytes: 1024 })));
    }

    #[test]
    fn a_damaged_block_is_refused() {
        check_refused(&[], "0 bytes long instead of 1024");
        check_refused(&[b'#'; 1025], "1025 bytes long instead of 1024");
        check_refused(&[0; 1024], "does not start with the header line");
        check_refused(&padded("a"), "ends inside a line");
        check_refused(&padded("a=1\\"), "ends inside a line");
        check_refused(&padded("a=1\nb\nc=2\n"), "line \"b\\n\" is not name=value");
        check_refused(&padded("\n"), "line \"\\n\" is not name=value");
        check_refused(&padded("=1\n"), "line \"=1\\n\" is not name=value");
        check_refused(&padded("a=\0\n"), "contains a NUL");
    }

    #[test]
    fn our_variables_move_to_the_front_when_they_would_leave_the_first_sector() {
        let long = format!("x={}\n", "y".repeat(480));
        let mut block =
            Block::decode(&padded(&format!("{long}# c\nbootcount=0\nupgrade_available=1\n"))).unwrap();
        assert!(!block.ours_lie_in_one_sector());
        block.keep_ours_in_one_sector().unwrap();
        assert_eq!(
            block.encode().unwrap(),
            padded(&format!("bootcount=0\nupgrade_available=1\n{long}# c\n"))[..]
        );
    }

    #[test]
    fn a_block_in_order_is_not_reordered() {
        let lines = "x=1\nbootcount=0\ny=2\nupgrade_available=1\n";
        let mut block = Block::decode(&padded(lines)).unwrap();
        block.keep_ours_in_one_sector().unwrap();
        assert_eq!(block.encode().unwrap(), padded(lines)[..]);
    }

    #[test]
    fn our_variables_must_fit_the_first_sector() {
        let mut block = Block::default();
        block.set("mender_boot_part", &"1".repeat(600)).unwrap();
        assert!(matches!(
            block.keep_ours_in_one_sector(),
            Err(BootEnvError::TooLarge { have_bytes: 512, .. })
        ));
    }

    #[test]
    fn no_damage_makes_the_decoder_panic_and_what_it_accepts_round_trips() {
        let good = padded("# WARNING\na=x\\\\y\nbootcount=0\nc=1\\\n2\n");
        for place in 0..good.len() {
            assert!(Block::decode(&good[..place]).is_err());
            for byte in [0, b'\\', b'\n', b'=', b'#', b'a', 0xFF] {
                let mut damaged = good.clone();
                damaged[place] = byte;
                if let Ok(mut block) = Block::decode(&damaged) {
                    assert_eq!(block.encode().unwrap(), damaged[..]);
                    block.set("bootcount", "1").unwrap();
                    assert_eq!(block.value("bootcount").unwrap(), b"1");
                }
            }
        }
    }
}
