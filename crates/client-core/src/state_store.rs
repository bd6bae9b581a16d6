//! Keeps one document across power cuts: the seam [`StateStore`], and [`TwoCopyRecord`], the format it is
//! stored in.
//!
//! ```text
//!  device   ├──────── copy 0 ────────┤├──────── copy 1 ────────┤      each half of the device, preallocated
//!  copy     magic 8 │ format u32 │ sequence u64 │ length u32 │ sha256 32 │ document │ zeros to 4 KiB
//! ```
//!
//! Numbers are little endian. The digest covers everything else up to the end of the document. A save writes
//! the copy that is *not* current, so the current one is never touched: no size changes, no name changes, and
//! nothing depends on how a file system orders its own writes.
//!
//! This module does not create files, does not know what the document says, and never invents an empty one.

use std::fmt;
use std::io;

use sha2::{Digest, Sha256};

use crate::storage::BlockDevice;
use crate::storage::two_copies::{self, Refused, Replica, WriteFault};

/// Keeps one document.
///
/// # Contract
/// - [`save`](StateStore::save) is all or nothing and durable on return: after a power cut at any moment
///   [`load`](StateStore::load) gives the document before or the one after, whole.
/// - A record that cannot be read is an error, never an empty document.
pub trait StateStore {
    /// The document saved last.
    ///
    /// # Errors
    /// When no copy can be trusted, or the device could not be flushed first.
    fn load(&mut self) -> Result<Vec<u8>, StateError>;

    /// Replaces the document.
    ///
    /// # Errors
    /// When it did not become durable. The record then holds the old document or this one.
    fn save(&mut self, document: &[u8]) -> Result<(), StateError>;

    /// The longest document that can be saved, in bytes.
    fn capacity_bytes(&self) -> usize;
}

/// A reader refuses every other number, so that a later format is never taken for damage.
const FORMAT: u32 = 1;
/// Eight bytes that no text file and no erased flash starts with.
const MAGIC: [u8; 8] = *b"\x89otaREC\n";
const FORMAT_AT: usize = 8;
const SEQUENCE_AT: usize = 12;
const LENGTH_AT: usize = 20;
const DIGEST_AT: usize = 24;
const HEADER_LEN: usize = 56;

/// Copies begin at, and are written in, multiples of this. It is the page of the operating system and the
/// sector of current disks. With less, a write would first have to *read* the rest of the block: it would
/// put the other copy at risk, and fail for ever once that rest is unreadable after a power cut.
const BLOCK_LEN: usize = 4096;

/// The longest document, whatever the device holds: a bound for memory.
pub(crate) const DOCUMENT_LIMIT_BYTES: usize = 1024 * 1024;

/// A record in two copies on one device, each half of it. The length of the device is part of the format.
///
/// ```
/// # use client_core::storage::BlockDevice;
/// use client_core::state_store::{StateStore, TwoCopyRecord};
/// # struct Memory(Vec<u8>);
/// # impl BlockDevice for Memory {
/// #     fn len(&self) -> u64 { self.0.len() as u64 }
/// #     fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
/// #         let at = offset as usize;
/// #         buf.copy_from_slice(&self.0[at..at + buf.len()]);
/// #         Ok(())
/// #     }
/// #     fn write_at(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
/// #         let at = offset as usize;
/// #         self.0[at..at + data.len()].copy_from_slice(data);
/// #         Ok(())
/// #     }
/// #     fn sync(&mut self) -> std::io::Result<()> { Ok(()) }
/// #     fn drop_cache(&mut self) -> std::io::Result<()> { Ok(()) }
/// #     fn name(&self) -> &str { "memory" }
/// # }
/// # let device = Memory(vec![0; 128 * 1024]);
/// let mut record = TwoCopyRecord::format_new(device, b"{}")?;
/// record.save(br#"{"version":1}"#)?;
/// assert_eq!(record.load()?, br#"{"version":1}"#);
/// # Ok::<(), client_core::state_store::StateError>(())
/// ```
#[derive(Debug)]
pub struct TwoCopyRecord<D> {
    device: D,
    copy_len: usize,
    /// The copy known to be durable, once the device was flushed and read. A failed save does not move it, so
    /// the next one writes the same doubtful copy again and never the last good one.
    current: Option<Position>,
}

/// Which copy, and how new it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    copy: Replica,
    sequence: u64,
}

impl<D: BlockDevice> TwoCopyRecord<D> {
    /// Takes a device that was formatted before. Reads nothing yet.
    ///
    /// # Errors
    /// [`StateError::DeviceTooSmall`] when two copies do not fit.
    pub fn open(device: D) -> Result<Self, StateError> {
        let have_bytes = device.len();
        let half = usize::try_from(have_bytes / 2).unwrap_or(usize::MAX);
        let copy_len = (half / BLOCK_LEN * BLOCK_LEN).min(longest_copy());
        if copy_len == 0 {
            return Err(StateError::DeviceTooSmall {
                device: device.name().to_owned(),
                need_bytes: 2 * BLOCK_LEN as u64,
                have_bytes,
            });
        }
        Ok(TwoCopyRecord { device, copy_len, current: None })
    }

    /// Writes `initial` into both copies of a device whose content does not matter.
    ///
    /// This is the one operation a power cut may spoil: the caller does it on a file that has no name yet, and
    /// gives it the name afterwards.
    ///
    /// # Errors
    /// When the device is too small, or the copies did not become durable.
    pub fn format_new(device: D, initial: &[u8]) -> Result<Self, StateError> {
        let mut record = TwoCopyRecord::open(device)?;
        for position in
            [Position { copy: Replica::First, sequence: 0 }, Position { copy: Replica::Second, sequence: 1 }]
        {
            record.put(position, initial)?;
            record.current = Some(position);
        }
        Ok(record)
    }

    /// Writes one copy in one request, makes it durable and compares what the medium gives back.
    fn put(&mut self, position: Position, document: &[u8]) -> Result<(), StateError> {
        let image = encode(position.sequence, document, self.capacity_bytes())?;
        let offset = self.offset(position.copy);
        two_copies::replace(&mut self.device, offset, &image).map_err(|fault| match fault {
            WriteFault::Refused(refused) => refused.into(),
            WriteFault::Differs => {
                StateError::ReadBack { device: self.device.name().to_owned(), copy: position.copy.index() }
            }
        })
    }

    /// Flushes, reads both copies from the medium and picks the newer valid one. Another process may have written
    /// without a flush and died: what it wrote must not be trusted first and lost in a power cut afterwards.
    fn settle(&mut self) -> Result<(Position, Vec<u8>), StateError> {
        two_copies::make_durable(&mut self.device)?;
        let (position, document) = self.read_newest()?;
        self.current = Some(position);
        Ok((position, document))
    }

    /// The document as a reader finds it now. Nothing is flushed for it, so a power cut may still take it back: for who
    /// tells what is there, and not for who acts on it.
    ///
    /// # Errors
    /// When no copy can be trusted.
    pub fn peek(&mut self) -> Result<Vec<u8>, StateError> {
        self.read_newest().map(|(_, document)| document)
    }

    fn read_newest(&mut self) -> Result<(Position, Vec<u8>), StateError> {
        let (first, second) = (self.fetch(Replica::First), self.fetch(Replica::Second));
        let newest = two_copies::newest(first, second, |first, second| {
            if follows(second.0.sequence, first.0.sequence) { Replica::Second } else { Replica::First }
        })
        .map_err(|[first, second]| StateError::BothCopiesBad {
            device: self.device.name().to_owned(),
            first,
            second,
        })?;
        let (position, document) = newest.content;
        if let Some(fault) = newest.other_is_bad {
            log::warn!(
                "state record in {}: copy {} is bad ({fault}), using copy {} with sequence {}",
                self.device.name(),
                position.copy.other().index(),
                position.copy.index(),
                position.sequence
            );
        }
        Ok((position, document))
    }

    fn fetch(&mut self, copy: Replica) -> Result<(Position, Vec<u8>), CopyFault> {
        let offset = self.offset(copy);
        let mut header = [0; HEADER_LEN];
        self.device.read_at(offset, &mut header).map_err(CopyFault::Unreadable)?;
        let header = Header::decode(&header, self.capacity_bytes())?;
        let mut document = vec![0; header.length];
        self.device.read_at(offset + HEADER_LEN as u64, &mut document).map_err(CopyFault::Unreadable)?;
        if digest(&header.sealed, &document) != header.digest {
            return Err(CopyFault::Checksum);
        }
        Ok((Position { copy, sequence: header.sequence }, document))
    }

    fn offset(&self, copy: Replica) -> u64 {
        match copy {
            Replica::First => 0,
            Replica::Second => self.copy_len as u64,
        }
    }
}

impl<D: BlockDevice> StateStore for TwoCopyRecord<D> {
    fn capacity_bytes(&self) -> usize {
        self.copy_len - HEADER_LEN
    }

    fn load(&mut self) -> Result<Vec<u8>, StateError> {
        self.current = None;
        self.settle().map(|(_, document)| document)
    }

    fn save(&mut self, document: &[u8]) -> Result<(), StateError> {
        let current = match self.current {
            Some(current) => current,
            None => self.settle()?.0,
        };
        // The copy that is current stays untouched: it is what a power cut from here on falls back to.
        let next = Position { copy: current.copy.other(), sequence: current.sequence.wrapping_add(1) };
        self.put(next, document)?;
        self.current = Some(next);
        Ok(())
    }
}

/// Whether `a` is newer than `b`. The higher one is, except that 0 follows the highest number there is. The
/// two copies are always neighbours, so no other pair needs a rule.
fn follows(a: u64, b: u64) -> bool {
    match (a, b) {
        (0, u64::MAX) => true,
        (u64::MAX, 0) => false,
        _ => a > b,
    }
}

fn longest_copy() -> usize {
    (HEADER_LEN + DOCUMENT_LIMIT_BYTES).next_multiple_of(BLOCK_LEN)
}

/// The fixed part of a copy, checked as far as it can be without the document.
struct Header {
    sequence: u64,
    length: usize,
    digest: [u8; 32],
    /// The bytes before the digest, which it covers.
    sealed: [u8; DIGEST_AT],
}

impl Header {
    fn decode(bytes: &[u8; HEADER_LEN], capacity: usize) -> Result<Header, CopyFault> {
        if bytes[..FORMAT_AT] != MAGIC {
            return Err(CopyFault::NoRecord);
        }
        let format = u32::from_le_bytes(take(bytes, FORMAT_AT));
        if format != FORMAT {
            return Err(CopyFault::UnknownFormat { found: format });
        }
        let stated = u32::from_le_bytes(take(bytes, LENGTH_AT));
        let length = usize::try_from(stated).ok().filter(|&length| length <= capacity).ok_or(
            CopyFault::LengthOutOfRange { stated_bytes: u64::from(stated), have_bytes: capacity as u64 },
        )?;
        Ok(Header {
            sequence: u64::from_le_bytes(take(bytes, SEQUENCE_AT)),
            length,
            digest: take(bytes, DIGEST_AT),
            sealed: take(bytes, 0),
        })
    }
}

/// `N` bytes of the header from `at` on. Every caller passes constants that lie inside it.
fn take<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn encode(sequence: u64, document: &[u8], capacity: usize) -> Result<Vec<u8>, StateError> {
    let length = u32::try_from(document.len())
        .ok()
        .filter(|_| document.len() <= capacity)
        .ok_or(StateError::TooLarge { need_bytes: document.len(), have_bytes: capacity })?;
    let mut sealed = [0; DIGEST_AT];
    sealed[..FORMAT_AT].copy_from_slice(&MAGIC);
    sealed[FORMAT_AT..SEQUENCE_AT].copy_from_slice(&FORMAT.to_le_bytes());
    sealed[SEQUENCE_AT..LENGTH_AT].copy_from_slice(&sequence.to_le_bytes());
    sealed[LENGTH_AT..].copy_from_slice(&length.to_le_bytes());

    let mut image = Vec::with_capacity((HEADER_LEN + document.len()).next_multiple_of(BLOCK_LEN));
    image.extend_from_slice(&sealed);
    image.extend_from_slice(&digest(&sealed, document));
    image.extend_from_slice(document);
    image.resize(image.len().next_multiple_of(BLOCK_LEN), 0);
    Ok(image)
}

fn digest(sealed: &[u8; DIGEST_AT], document: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(sealed).chain_update(document).finalize().into()
}

/// Why the record cannot be read or written.
#[non_exhaustive]
pub enum StateError {
    /// Neither copy can be trusted. Nothing is assumed in their place.
    BothCopiesBad {
        /// The device.
        device: String,
        /// What is wrong with copy 0.
        first: CopyFault,
        /// What is wrong with copy 1.
        second: CopyFault,
    },
    /// Two copies do not fit on the device.
    DeviceTooSmall {
        /// The device.
        device: String,
        /// Bytes two of the smallest copies need.
        need_bytes: u64,
        /// Bytes there are.
        have_bytes: u64,
    },
    /// The document does not fit into a copy. The record is unchanged.
    TooLarge {
        /// Bytes of the document.
        need_bytes: usize,
        /// Bytes a copy holds.
        have_bytes: usize,
    },
    /// What was written did not read back.
    ReadBack {
        /// The device.
        device: String,
        /// The copy, 0 or 1.
        copy: usize,
    },
    /// The device refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The device.
        device: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<Refused> for StateError {
    fn from(Refused { doing, device, source }: Refused) -> StateError {
        StateError::Io { doing, device, source }
    }
}

artifact::debug_as_displayed!(StateError);

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::BothCopiesBad { device, first, second } => {
                write!(f, "state record in {device} has no valid copy: copy 0 {first}; copy 1 {second}")
            }
            StateError::DeviceTooSmall { device, need_bytes, have_bytes } => {
                write!(f, "state record needs {need_bytes} bytes, {device} has {have_bytes}")
            }
            StateError::TooLarge { need_bytes, have_bytes } => {
                write!(f, "state document has {need_bytes} bytes, its record holds {have_bytes}")
            }
            StateError::ReadBack { device, copy } => {
                write!(f, "copy {copy} of the state record in {device} did not read back")
            }
            StateError::Io { doing, device, source } => {
                write!(f, "cannot {doing} the state record in {device}: {source}")
            }
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Io { source, .. } => Some(source),
            StateError::BothCopiesBad { .. }
            | StateError::DeviceTooSmall { .. }
            | StateError::TooLarge { .. }
            | StateError::ReadBack { .. } => None,
        }
    }
}

/// What is wrong with one copy.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyFault {
    /// The device does not give it back.
    Unreadable(io::Error),
    /// It does not start with the magic bytes.
    NoRecord,
    /// It has a format this program does not know.
    UnknownFormat {
        /// The number it has.
        found: u32,
    },
    /// It claims to be longer than a copy can be.
    LengthOutOfRange {
        /// Bytes it claims.
        stated_bytes: u64,
        /// Bytes there are.
        have_bytes: u64,
    },
    /// Its digest is that of something else.
    Checksum,
}

impl fmt::Display for CopyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyFault::Unreadable(source) => write!(f, "is unreadable ({source})"),
            CopyFault::NoRecord => f.write_str("holds no record"),
            CopyFault::UnknownFormat { found } => write!(f, "has the unknown format {found}"),
            CopyFault::LengthOutOfRange { stated_bytes, have_bytes } => {
                write!(f, "claims {stated_bytes} bytes of {have_bytes}")
            }
            CopyFault::Checksum => f.write_str("has a wrong checksum"),
        }
    }
}

impl std::error::Error for CopyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CopyFault::Unreadable(source) => Some(source),
            CopyFault::NoRecord
            | CopyFault::UnknownFormat { .. }
            | CopyFault::LengthOutOfRange { .. }
            | CopyFault::Checksum => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    const DEVICE_LEN: usize = 2 * BLOCK_LEN;

    /// Plain memory that can be looked into. Power cuts are the business of the crash device in `testkit`.
    #[derive(Debug, Clone, Default)]
    struct Memory {
        bytes: Rc<RefCell<Vec<u8>>>,
        calls: Rc<RefCell<Vec<&'static str>>>,
        failing: Rc<RefCell<Option<&'static str>>>,
        lose_writes: Rc<RefCell<bool>>,
    }

    impl Memory {
        fn of(bytes: Vec<u8>) -> Memory {
            Memory { bytes: Rc::new(RefCell::new(bytes)), ..Memory::default() }
        }

        fn call(&self, name: &'static str) -> io::Result<()> {
            self.calls.borrow_mut().push(name);
            match *self.failing.borrow() {
                Some(failing) if failing == name => Err(io::Error::other("injected")),
                Some(_) | None => Ok(()),
            }
        }

        fn range(&self, offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            if start + len > self.bytes.borrow().len() {
                return Err(io::Error::other("past the end"));
            }
            Ok(start..start + len)
        }
    }

    impl BlockDevice for Memory {
        fn len(&self) -> u64 {
            self.bytes.borrow().len() as u64
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.call("read")?;
            let range = self.range(offset, buf.len())?;
            buf.copy_from_slice(&self.bytes.borrow()[range]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.call("write")?;
            let range = self.range(offset, data.len())?;
            if !*self.lose_writes.borrow() {
                self.bytes.borrow_mut()[range].copy_from_slice(data);
            }
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            self.call("sync")
        }
        fn drop_cache(&mut self) -> io::Result<()> {
            self.call("drop")
        }
        fn name(&self) -> &str {
            "memory"
        }
    }

    fn formatted(initial: &[u8]) -> Memory {
        let memory = Memory::of(vec![0xa5; DEVICE_LEN]);
        TwoCopyRecord::format_new(memory.clone(), initial).unwrap();
        memory.calls.borrow_mut().clear();
        memory
    }

    fn open(memory: &Memory) -> TwoCopyRecord<Memory> {
        TwoCopyRecord::open(memory.clone()).unwrap()
    }

    /// A record whose current copy has this sequence and whose other copy is bad.
    fn with_sequence(sequence: u64, document: &[u8]) -> Memory {
        let memory = Memory::of(vec![0; DEVICE_LEN]);
        let image = encode(sequence, document, BLOCK_LEN - HEADER_LEN).unwrap();
        memory.bytes.borrow_mut()[..image.len()].copy_from_slice(&image);
        memory
    }

    #[test]
    fn a_new_record_holds_the_initial_document_in_both_copies() {
        let memory = formatted(b"initial");
        for spoiled in [0, BLOCK_LEN] {
            let one_bad = Memory::of(memory.bytes.borrow().clone());
            one_bad.bytes.borrow_mut()[spoiled] ^= 1;
            assert_eq!(open(&one_bad).load().unwrap(), b"initial");
        }
    }

    #[test]
    fn every_saved_document_is_loaded_by_the_next_process() {
        let memory = formatted(b"0");
        for n in 0..10 {
            let document = vec![b'x'; n * 100];
            open(&memory).save(&document).unwrap();
            assert_eq!(open(&memory).load().unwrap(), document);
        }
    }

    #[test]
    fn a_save_writes_once_then_flushes_then_reads_back_from_the_medium() {
        let memory = formatted(b"old");
        let mut record = open(&memory);
        record.load().unwrap();
        memory.calls.borrow_mut().clear();
        record.save(b"new").unwrap();
        assert_eq!(*memory.calls.borrow(), ["write", "sync", "drop", "read"]);
    }

    #[test]
    fn a_load_flushes_and_drops_the_cache_before_it_reads() {
        let memory = formatted(b"old");
        open(&memory).load().unwrap();
        assert_eq!(memory.calls.borrow()[..3], ["sync", "drop", "read"]);
    }

    #[test]
    fn a_save_without_a_load_settles_first() {
        let memory = formatted(b"old");
        open(&memory).save(b"new").unwrap();
        assert_eq!(memory.calls.borrow()[..3], ["sync", "drop", "read"]);
    }

    #[test]
    fn a_save_never_touches_the_current_copy() {
        let memory = formatted(b"0");
        for n in 0..4 {
            let before = memory.bytes.borrow().clone();
            let mut record = open(&memory);
            record.settle().unwrap();
            let current = record.current.unwrap();
            record.save(format!("document {n}").as_bytes()).unwrap();
            let start = usize::try_from(record.offset(current.copy)).unwrap();
            assert_eq!(memory.bytes.borrow()[start..start + BLOCK_LEN], before[start..start + BLOCK_LEN]);
        }
    }

    #[test]
    fn a_failed_flush_fails_the_save_and_the_next_save_spares_the_last_good_copy() {
        let memory = formatted(b"good");
        let mut record = open(&memory);
        record.load().unwrap();
        let good = record.current.unwrap();
        *memory.failing.borrow_mut() = Some("sync");
        assert!(matches!(record.save(b"doubtful"), Err(StateError::Io { doing: "flush", .. })));
        *memory.failing.borrow_mut() = None;
        record.save(b"second try").unwrap();
        assert_eq!(record.current.unwrap().copy, good.copy.other());
        assert_eq!(open(&memory).load().unwrap(), b"second try");
    }

    #[test]
    fn a_load_whose_flush_fails_is_an_error() {
        let memory = formatted(b"good");
        for doing in ["sync", "drop"] {
            *memory.failing.borrow_mut() = Some(doing);
            assert!(matches!(open(&memory).load(), Err(StateError::Io { .. })), "{doing}");
        }
    }

    #[test]
    fn a_device_that_loses_writes_is_found_by_the_read_back() {
        let memory = formatted(b"old");
        *memory.lose_writes.borrow_mut() = true;
        assert!(matches!(open(&memory).save(b"new"), Err(StateError::ReadBack { .. })));
        assert_eq!(open(&memory).load().unwrap(), b"old");
    }

    #[test]
    fn both_copies_bad_names_each_fault_and_invents_nothing() {
        let memory = formatted(b"old");
        memory.bytes.borrow_mut()[0] = 0;
        memory.bytes.borrow_mut()[BLOCK_LEN + HEADER_LEN] ^= 1;
        for result in [open(&memory).load().map(drop), open(&memory).save(b"new")] {
            let error = result.unwrap_err();
            assert!(matches!(
                error,
                StateError::BothCopiesBad { first: CopyFault::NoRecord, second: CopyFault::Checksum, .. }
            ));
            assert_eq!(
                error.to_string(),
                "state record in memory has no valid copy: copy 0 holds no record; copy 1 has a wrong checksum"
            );
        }
    }

    #[test]
    fn an_unreadable_device_is_an_error() {
        let memory = formatted(b"old");
        *memory.failing.borrow_mut() = Some("read");
        assert!(matches!(
            open(&memory).load(),
            Err(StateError::BothCopiesBad { first: CopyFault::Unreadable(_), .. })
        ));
    }

    #[test]
    fn the_longest_document_fits_and_one_byte_more_leaves_the_record_alone() {
        let memory = formatted(b"old");
        let mut record = open(&memory);
        let limit = record.capacity_bytes();
        record.save(&vec![b'x'; limit]).unwrap();
        assert!(matches!(
            record.save(&vec![b'y'; limit + 1]),
            Err(StateError::TooLarge { need_bytes, have_bytes }) if (need_bytes, have_bytes) == (limit + 1, limit)
        ));
        assert_eq!(record.load().unwrap(), vec![b'x'; limit]);
        record.save(b"").unwrap();
        assert_eq!(open(&memory).load().unwrap(), b"");
    }

    #[test]
    fn a_device_for_less_than_two_blocks_is_refused() {
        for len in [0, 1, BLOCK_LEN, DEVICE_LEN - 1] {
            let error = TwoCopyRecord::open(Memory::of(vec![0; len])).unwrap_err();
            assert!(
                matches!(error, StateError::DeviceTooSmall { have_bytes, .. } if have_bytes == len as u64)
            );
        }
    }

    #[test]
    fn copies_never_share_a_block_whatever_the_length_of_the_device() {
        for len in DEVICE_LEN..DEVICE_LEN + 3 * BLOCK_LEN {
            let record = TwoCopyRecord::open(Memory::of(vec![0; len])).unwrap();
            assert_eq!(record.copy_len % BLOCK_LEN, 0);
            assert!(2 * record.copy_len <= len);
        }
    }

    #[test]
    fn a_huge_device_does_not_mean_a_huge_document() {
        let record = TwoCopyRecord::open(Memory::of(vec![0; 4 * 1024 * 1024])).unwrap();
        assert!(record.capacity_bytes() >= DOCUMENT_LIMIT_BYTES);
        assert!(record.capacity_bytes() < DOCUMENT_LIMIT_BYTES + BLOCK_LEN);
    }

    #[test]
    fn the_sequence_starts_again_after_the_highest_number() {
        let memory = with_sequence(u64::MAX - 1, b"before");
        for document in [&b"at the end"[..], b"at zero", b"at one"] {
            open(&memory).save(document).unwrap();
            assert_eq!(open(&memory).load().unwrap(), document);
        }
    }

    #[test]
    fn the_newer_of_two_neighbours_wins_in_either_copy() {
        for (a, b) in [(1, 0), (u64::MAX, u64::MAX - 1), (0, u64::MAX)] {
            assert!(follows(a, b), "{a} follows {b}");
            assert!(!follows(b, a), "{b} does not follow {a}");
        }
        assert!(!follows(7, 7));
    }

    #[test]
    fn an_unknown_format_is_refused_by_number() {
        let memory = with_sequence(1, b"x");
        memory.bytes.borrow_mut()[FORMAT_AT] = 2;
        assert!(matches!(
            open(&memory).load(),
            Err(StateError::BothCopiesBad { first: CopyFault::UnknownFormat { found: 2 }, .. })
        ));
    }

    #[test]
    fn the_stored_bytes_of_format_1_do_not_change() {
        let image = encode(0x0102_0304_0506_0708, b"{}", 100).unwrap();
        assert_eq!(image.len(), BLOCK_LEN);
        assert_eq!(image[..24], *b"\x89otaREC\n\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x02\0\0\0");
        assert_eq!(image[24..56], Sha256::digest([&image[..24], b"{}"].concat())[..]);
        assert_eq!(image[56..58], *b"{}");
        assert!(image[58..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn every_bit_flipped_in_either_copy_gives_a_saved_document_or_an_error() {
        let memory = formatted(b"first document");
        open(&memory).save(b"second document").unwrap();
        let clean = memory.bytes.borrow().clone();
        let used = HEADER_LEN + b"second document".len();
        for start in [0, BLOCK_LEN] {
            for bit in 0..used * 8 {
                memory.bytes.borrow_mut()[start + bit / 8] ^= 1 << (bit % 8);
                let document = open(&memory).load().unwrap();
                assert!(document == b"first document" || document == b"second document");
                memory.bytes.borrow_mut().copy_from_slice(&clean);
            }
        }
    }

    #[test]
    fn every_byte_flipped_in_the_only_copy_is_an_error() {
        let memory = with_sequence(5, b"only");
        let clean = memory.bytes.borrow().clone();
        for at in 0..HEADER_LEN + 4 {
            memory.bytes.borrow_mut()[at] ^= 0xff;
            assert!(matches!(open(&memory).load(), Err(StateError::BothCopiesBad { .. })), "byte {at}");
            memory.bytes.borrow_mut().copy_from_slice(&clean);
        }
    }

    #[test]
    fn a_record_truncated_anywhere_gives_a_saved_document_or_an_error() {
        let memory = formatted(b"first document");
        open(&memory).save(b"second document").unwrap();
        let clean = memory.bytes.borrow().clone();
        for len in 0..clean.len() {
            let cut = Memory::of(clean[..len].to_vec());
            if let Ok(mut record) = TwoCopyRecord::open(cut) {
                let document = record.load().unwrap();
                assert!(document == b"first document" || document == b"second document");
            }
            // The same bytes lost, on a device that kept its length.
            let zeroed = Memory::of(vec![0; clean.len()]);
            zeroed.bytes.borrow_mut()[..len].copy_from_slice(&clean[..len]);
            if let Ok(document) = open(&zeroed).load() {
                assert!(document == b"first document" || document == b"second document");
            }
        }
    }
}
