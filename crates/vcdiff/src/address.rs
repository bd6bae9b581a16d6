//! The cache of addresses (RFC 3284, 5.3).

use crate::error::Fault;
use crate::window::Section;

const NEAR: usize = 4;
const SAME: usize = 3;

/// Addresses of copies before, by which later ones are said in fewer bytes. Each window begins with zeros.
pub(crate) struct Addresses {
    near: [u64; NEAR],
    slot: usize,
    same: [u64; SAME * 256],
}

impl Addresses {
    pub(crate) fn new() -> Addresses {
        Addresses { near: [0; NEAR], slot: 0, same: [0; SAME * 256] }
    }

    /// The next address, said in `mode` (0 to 8), for a copy to `here`.
    pub(crate) fn next(&mut self, mode: u8, here: u64, section: &mut Section<'_>) -> Result<u64, Fault> {
        let mode = usize::from(mode);
        let address = match mode {
            0 => section.number(Fault::Addresses)?,
            1 => here.checked_sub(section.number(Fault::Addresses)?).ok_or(Fault::Address)?,
            _ => match self.near.get(mode - 2) {
                Some(near) => near.checked_add(section.number(Fault::Addresses)?).ok_or(Fault::Address)?,
                None => {
                    let at = (mode - 2 - NEAR) * 256 + usize::from(section.byte(Fault::Addresses)?);
                    *self.same.get(at).ok_or(Fault::Address)?
                }
            },
        };
        if address >= here {
            return Err(Fault::Address);
        }
        if let Some(near) = self.near.get_mut(self.slot) {
            *near = address;
        }
        self.slot = (self.slot + 1) % NEAR;
        if let Some(same) = self.same.get_mut((address % (SAME as u64 * 256)) as usize) {
            *same = address;
        }
        Ok(address)
    }
}
