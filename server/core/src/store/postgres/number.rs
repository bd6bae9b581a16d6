//! Numbers of devices: unsigned here, and integers of the database, which have a sign. The bits stay as they are.

/// As the database has it.
pub(super) trait Signed {
    /// The same bits.
    fn signed(self) -> i32;
}

impl Signed for u32 {
    fn signed(self) -> i32 {
        i32::from_ne_bytes(self.to_ne_bytes())
    }
}

/// As it is here.
pub(super) trait Unsigned {
    /// The same bits.
    fn unsigned(self) -> u32;
}

impl Unsigned for i32 {
    fn unsigned(self) -> u32 {
        u32::from_ne_bytes(self.to_ne_bytes())
    }
}
