//! CRC-32 (IEEE 802.3), the checksum of an environment. An environment is small: four bits at a time will do, with a table of
//! 64 bytes.

const TABLE: [u32; 16] = {
    let mut table = [0; 16];
    let mut at = 0u32;
    while at < 16 {
        let mut value = at;
        let mut bit = 0;
        while bit < 4 {
            value = if value & 1 == 0 { value >> 1 } else { value >> 1 ^ 0xEDB8_8320 };
            bit += 1;
        }
        table[at as usize] = value;
        at += 1;
    }
    table
};

/// A checksum that grows with what is added to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// That of nothing.
    pub(crate) fn new() -> Checksum {
        Checksum(u32::MAX)
    }

    /// With `bytes` behind what it was of.
    pub(crate) fn add(self, bytes: &[u8]) -> Checksum {
        let four = |sum: u32| sum >> 4 ^ TABLE[(sum & 15) as usize];
        Checksum(bytes.iter().fold(self.0, |sum, byte| four(four(sum ^ u32::from(*byte)))))
    }

    /// The number.
    pub(crate) fn value(self) -> u32 {
        !self.0
    }

    /// That of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> u32 {
        Checksum::new().add(bytes).value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_checksum_that_others_compute_in_one_piece_or_in_two() {
        let bytes: Vec<u8> = (0..1000u32).map(|at| ((at * at) >> 3) as u8).collect();
        assert_eq!(Checksum::of(b"123456789"), 0xCBF4_3926);
        for length in [0, 1, 15, 16, 999, 1000] {
            let (first, second) = bytes[..length].split_at(length / 3);
            let right = crc32fast::hash(&bytes[..length]);
            assert_eq!(Checksum::new().add(first).add(second).value(), right, "{length}");
        }
    }
}
