//! The rule of everything that is kept twice so that one of it is always whole: copies of a boot environment and of
//! the record.
//!
//! ```text
//!  read    flush and drop caches, once ([`FlushFirst`]) ─ read both ─ the newer valid one counts ([`newest`])
//!  write   the copy that does *not* count ─ flush ─ drop caches ─ read back and compare ([`replace`])
//! ```
//!
//! What makes a copy valid and which of two is newer are for the format to say.

use std::io;

use super::BlockDevice;

/// One of two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replica {
    /// The one that is named first.
    First,
    /// The other one.
    Second,
}

impl Replica {
    /// The one that is written while this one counts.
    pub fn other(self) -> Replica {
        match self {
            Replica::First => Replica::Second,
            Replica::Second => Replica::First,
        }
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        match self {
            Replica::First => 0,
            Replica::Second => 1,
        }
    }
}

/// What a device refused.
#[derive(Debug)]
pub struct Refused {
    /// What was being done.
    pub doing: &'static str,
    /// The device.
    pub device: String,
    /// The error of the operating system.
    pub source: io::Error,
}

impl Refused {
    /// For an operation on `device`.
    pub fn by(device: &(impl BlockDevice + ?Sized), doing: &'static str, source: io::Error) -> Refused {
        Refused { doing, device: device.name().to_owned(), source }
    }
}

/// Why a copy is not known to be on the medium.
#[derive(Debug)]
pub enum WriteFault {
    /// The device refused.
    Refused(Refused),
    /// The medium gives back something else than was written.
    Differs,
}

impl From<Refused> for WriteFault {
    fn from(refused: Refused) -> WriteFault {
        WriteFault::Refused(refused)
    }
}

/// Makes durable what others may have written without a flush, before the first read. A bootloader, or a process that
/// died, leaves content in a cache: read and acted on, it could still vanish in a power cut.
#[derive(Debug, Default)]
pub struct FlushFirst {
    done: bool,
}

impl FlushFirst {
    /// Flushes `devices` unless that was done.
    ///
    /// # Errors
    /// When one of them refuses; the next call tries all of them again.
    pub fn before_reading<'d, D: BlockDevice + 'd>(
        &mut self,
        devices: impl IntoIterator<Item = &'d mut D>,
    ) -> Result<(), Refused> {
        if self.done {
            return Ok(());
        }
        devices.into_iter().try_for_each(make_durable)?;
        self.done = true;
        Ok(())
    }

    /// A write failed: after a failed flush the cache may show what the medium does not have.
    pub fn again(&mut self) {
        self.done = false;
    }
}

/// Comes back when the medium has everything, and the next read asks the medium.
///
/// # Errors
/// When the device refuses.
pub fn make_durable<D: BlockDevice + ?Sized>(device: &mut D) -> Result<(), Refused> {
    device.sync().map_err(|source| Refused::by(device, "flush", source))?;
    device.drop_cache().map_err(|source| Refused::by(device, "drop the cache of", source))
}

/// Writes a copy as a whole at `offset`, and comes back when the medium has it: durable, read back and compared.
///
/// # Errors
/// When the device refuses, or gives back something else.
pub fn replace<D: BlockDevice + ?Sized>(device: &mut D, offset: u64, bytes: &[u8]) -> Result<(), WriteFault> {
    device.write_at(offset, bytes).map_err(|source| Refused::by(device, "write", source))?;
    make_durable(device)?;
    let mut found = vec![0; bytes.len()];
    device.read_at(offset, &mut found).map_err(|source| Refused::by(device, "read back", source))?;
    if found == bytes { Ok(()) } else { Err(WriteFault::Differs) }
}

/// The copy that counts.
#[derive(Debug)]
pub struct Newest<T, F> {
    /// Which one it is.
    pub replica: Replica,
    /// What it holds.
    pub content: T,
    /// What is wrong with the other one, if anything is.
    pub other_is_bad: Option<F>,
}

/// The newer of two copies, or the only valid one.
///
/// # Errors
/// What is wrong with each, where neither is valid.
pub fn newest<T, F>(
    first: Result<T, F>,
    second: Result<T, F>,
    newer: impl FnOnce(&T, &T) -> Replica,
) -> Result<Newest<T, F>, [F; 2]> {
    let (replica, content, other_is_bad) = match (first, second) {
        (Ok(first), Ok(second)) => match newer(&first, &second) {
            Replica::First => (Replica::First, first, None),
            Replica::Second => (Replica::Second, second, None),
        },
        (Ok(first), Err(fault)) => (Replica::First, first, Some(fault)),
        (Err(fault), Ok(second)) => (Replica::Second, second, Some(fault)),
        (Err(first), Err(second)) => return Err([first, second]),
    };
    Ok(Newest { replica, content, other_is_bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_of_two_valid_copies_counts_and_a_bad_one_never() {
        let check = |first: Result<u8, &'static str>, second, expected| {
            let newer = |first: &u8, second: &u8| {
                if second > first { Replica::Second } else { Replica::First }
            };
            let found = newest(first, second, newer).map(|n| (n.replica, n.content, n.other_is_bad));
            assert_eq!(found, expected);
        };
        check(Ok(1), Ok(1), Ok((Replica::First, 1, None)));
        check(Ok(1), Ok(2), Ok((Replica::Second, 2, None)));
        check(Ok(1), Err("torn"), Ok((Replica::First, 1, Some("torn"))));
        check(Err("torn"), Ok(2), Ok((Replica::Second, 2, Some("torn"))));
        check(Err("torn"), Err("erased"), Err(["torn", "erased"]));
    }
}
