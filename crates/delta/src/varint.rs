//! Numbers in as few bytes as they need, and a reader over bytes that gives out nothing twice and nothing that is not there.

/// Seven bits a byte, the lowest first; the top bit says that another one follows.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Small numbers of either sign: 0, -1, 1, -2, ...
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// The bytes that are left. Every method takes what it gives; `None` where there is too little, or a number is not in its
/// shortest form.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.0.get(..count)?;
        self.0 = self.0.get(count..)?;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    pub(crate) fn number32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let value = self.number()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// How many items follow, each of at least `item_bytes` bytes: more than there can be are no count.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len() / item_bytes).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_one_form() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            let mut read = Bytes(&bytes);
            assert_eq!((read.number(), read.0.len()), (Some(value), 0));
            for cut in 0..bytes.len() {
                assert_eq!(Bytes(&bytes[..cut]).number(), None);
            }
        }
        for value in [0, -1, 1, -64, 64, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            assert_eq!(Bytes(&bytes).signed(), Some(value));
        }
        let too_long = [&[0x80, 0][..], &[0xff, 0x80, 0], &[0xff; 10], &[0x80; 11]];
        for bytes in too_long {
            assert_eq!(Bytes(bytes).number(), None, "{bytes:x?}");
        }
        assert_eq!(Bytes(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number(), None);
    }

    #[test]
    fn a_count_of_more_than_can_follow_is_none() {
        assert_eq!(Bytes(&[3, 0, 0, 0]).count(1), Some(3));
        assert_eq!(Bytes(&[4, 0, 0, 0]).count(1), None);
        assert_eq!(Bytes(&[2, 0, 0, 0]).count(2), None);
    }
}
