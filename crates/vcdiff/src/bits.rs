//! Bits of a DJW section: from the lowest of each byte on; numbers begin with their highest.

use crate::error::Fault;

/// Bits that are left.
pub(crate) struct Bits<'b> {
    bytes: std::slice::Iter<'b, u8>,
    /// Of the byte that was begun, from the lowest bit on.
    rest: u8,
    count: u8,
}

impl<'b> Bits<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Bits<'b> {
        Bits { bytes: bytes.iter(), rest: 0, count: 0 }
    }

    pub(crate) fn bit(&mut self) -> Result<u32, Fault> {
        if self.count == 0 {
            self.rest = *self.bytes.next().ok_or(Fault::Compression)?;
            self.count = 8;
        }
        let bit = self.rest & 1;
        self.rest >>= 1;
        self.count -= 1;
        Ok(u32::from(bit))
    }

    /// A number of `count` bits, at most 31.
    pub(crate) fn number(&mut self, count: u32) -> Result<u32, Fault> {
        let mut number = 0;
        for _ in 0..count {
            number = number << 1 | self.bit()?;
        }
        Ok(number)
    }

    /// Nothing is left but bits that fill the last byte.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        if self.bytes.as_slice().is_empty() && self.rest == 0 { Ok(()) } else { Err(Fault::Compression) }
    }
}
