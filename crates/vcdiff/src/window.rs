//! One window: its sections, and what its instructions make of them.

use crate::address::Addresses;
use crate::decoder::{Contents, Old};
use crate::error::{Error, Fault};
use crate::instruction::{Half, instruction};

/// Bytes of a section that are left.
pub(crate) struct Section<'s> {
    bytes: &'s [u8],
}

impl<'s> Section<'s> {
    pub(crate) fn new(bytes: &'s [u8]) -> Section<'s> {
        Section { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte; without one it ends `early`.
    pub(crate) fn byte(&mut self, early: Fault) -> Result<u8, Fault> {
        let (byte, rest) = self.bytes.split_first().ok_or(early)?;
        self.bytes = rest;
        Ok(*byte)
    }

    /// The next bytes; without as many it ends `early`.
    fn take(&mut self, count: usize, early: Fault) -> Result<&'s [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(early)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The next number.
    pub(crate) fn number(&mut self, early: Fault) -> Result<u64, Fault> {
        number(|| self.byte(early))
    }
}

/// A number in digits of seven bits, the highest first.
pub(crate) fn number<E: From<Fault>>(mut next: impl FnMut() -> Result<u8, E>) -> Result<u64, E> {
    let mut number = 0u64;
    // Ten digits hold any number of 64 bits. More are only zeros in front of it, without an end.
    for _ in 0..10 {
        let byte = next()?;
        if number > u64::MAX >> 7 {
            return Err(Fault::Number.into());
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Fault::Number.into())
}

/// Where a window copies from besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copying {
    Nowhere,
    Old,
    New,
}

/// What a window says of itself.
pub(crate) struct Frame {
    /// Which window, from 0.
    pub(crate) window: u64,
    pub(crate) from: Copying,
    /// Bytes that it may copy besides its own.
    pub(crate) copy_bytes: u64,
    /// Where they begin.
    pub(crate) copy_offset: u64,
    /// Bytes that it makes.
    pub(crate) bytes: usize,
}

/// Sections of a window, opened.
pub(crate) struct Sections<'s> {
    pub(crate) data: Section<'s>,
    pub(crate) instructions: Section<'s>,
    pub(crate) addresses: Section<'s>,
}

impl Frame {
    /// Carries the instructions out.
    pub(crate) fn make(
        &self,
        mut sections: Sections<'_>,
        old: &mut Old,
        contents: &mut dyn Contents,
        made: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut addresses = Addresses::new();
        while !sections.instructions.is_empty() {
            let code =
                sections.instructions.byte(Fault::Instructions).map_err(|fault| self.damaged(fault))?;
            let (first, second) = instruction(code);
            self.half(first, &mut sections, &mut addresses, old, contents, made)?;
            if let Some(second) = second {
                self.half(second, &mut sections, &mut addresses, old, contents, made)?;
            }
        }
        if made.len() != self.bytes {
            return Err(self.damaged(Fault::TooLittle));
        }
        if !(sections.data.is_empty() && sections.addresses.is_empty()) {
            return Err(self.damaged(Fault::LeftOver));
        }
        Ok(())
    }

    fn half(
        &self,
        half: Half,
        sections: &mut Sections<'_>,
        addresses: &mut Addresses,
        old: &mut Old,
        contents: &mut dyn Contents,
        made: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let damaged = |fault| self.damaged(fault);
        let said = match half {
            Half::Add(size) | Half::Copy(_, size) => size,
            Half::Run => 0,
        };
        let size = match said {
            0 => sections.instructions.number(Fault::Instructions).map_err(damaged)?,
            said => u64::from(said),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= self.bytes.saturating_sub(made.len()));
        let size = size.ok_or_else(|| damaged(Fault::TooMuch))?;
        match half {
            Half::Add(_) => made.extend_from_slice(sections.data.take(size, Fault::Data).map_err(damaged)?),
            Half::Run => {
                let byte = sections.data.byte(Fault::Data).map_err(damaged)?;
                made.resize(made.len() + size, byte);
            }
            Half::Copy(mode, _) => {
                let here = self.copy_bytes.saturating_add(made.len() as u64);
                let address = addresses.next(mode, here, &mut sections.addresses).map_err(damaged)?;
                let outside = self.copy_bytes.saturating_sub(address).min(size as u64);
                self.copy(address, outside as usize, old, contents, made)?;
                let from = address.saturating_sub(self.copy_bytes) as usize;
                repeat(made, from, size - outside as usize).map_err(damaged)?;
            }
        }
        Ok(())
    }

    /// Copies from outside of the window. That all of it is there was checked when the window began.
    fn copy(
        &self,
        address: u64,
        size: usize,
        old: &mut Old,
        contents: &mut dyn Contents,
        made: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let offset = self.copy_offset.saturating_add(address);
        let length = made.len();
        if size == 0 {
            return Ok(());
        }
        made.resize(length + size, 0);
        let into = made.get_mut(length..).unwrap_or_default();
        match self.from {
            Copying::Nowhere => Err(self.damaged(Fault::Address)),
            Copying::Old => old.read(contents, offset, into),
            Copying::New => {
                contents.made(offset, into).map_err(|error| Error::New { offset, bytes: size, error })
            }
        }
    }

    pub(crate) fn damaged(&self, fault: Fault) -> Error {
        Error::Damaged { window: self.window, fault }
    }
}

/// Copies `size` bytes from `from` on to the end, where what is copied may itself be copied.
fn repeat(made: &mut Vec<u8>, mut from: usize, mut size: usize) -> Result<(), Fault> {
    while size > 0 {
        let there = made.len().checked_sub(from).filter(|there| *there > 0).ok_or(Fault::Address)?;
        let count = size.min(there);
        made.extend_from_within(from..from + count);
        from += count;
        size -= count;
    }
    Ok(())
}
