//! The default code table (RFC 3284, 5.6), as a rule in place of 256 entries.

/// One half of an instruction. A size of 0 is one that follows in the section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// As many bytes of the data section.
    Add(u8),
    /// One byte of the data section, again and again.
    Run,
    /// As many bytes from an address that is said in this mode.
    Copy(u8, u8),
}

/// What a code means.
pub(crate) fn instruction(code: u8) -> (Half, Option<Half>) {
    match code {
        0 => (Half::Run, None),
        1..=18 => (Half::Add(code - 1), None),
        19..=162 => {
            let (mode, size) = ((code - 19) / 16, (code - 19) % 16);
            (Half::Copy(mode, if size == 0 { 0 } else { size + 3 }), None)
        }
        163..=234 => {
            let at = code - 163;
            (Half::Add(at / 3 % 4 + 1), Some(Half::Copy(at / 12, at % 3 + 4)))
        }
        235..=246 => (Half::Add((code - 235) % 4 + 1), Some(Half::Copy((code - 235) / 4 + 6, 4))),
        247..=255 => (Half::Copy(code - 247, 4), Some(Half::Add(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down as the table of the RFC is.
    #[test]
    fn the_rule_is_the_table_of_the_rfc() {
        let mut table = vec![(Half::Run, None)];
        table.extend((0..=17).map(|size| (Half::Add(size), None)));
        for mode in 0..9 {
            table.push((Half::Copy(mode, 0), None));
            table.extend((4..=18).map(|size| (Half::Copy(mode, size), None)));
        }
        for mode in 0..6 {
            for add in 1..=4 {
                table.extend((4..=6).map(|copy| (Half::Add(add), Some(Half::Copy(mode, copy)))));
            }
        }
        for mode in 6..9 {
            table.extend((1..=4).map(|add| (Half::Add(add), Some(Half::Copy(mode, 4)))));
        }
        table.extend((0..9).map(|mode| (Half::Copy(mode, 4), Some(Half::Add(1)))));
        assert_eq!((0..=255).map(instruction).collect::<Vec<_>>(), table);
    }
}
