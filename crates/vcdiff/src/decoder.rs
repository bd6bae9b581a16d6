//! The delta as a whole: its header, and window after window.

use std::io::{self, Read};

use crate::djw;
use crate::error::{Error, Fault, Unsupported};
#[cfg(feature = "lzma")]
use crate::lzma::Lzma;
use crate::window::{Copying, Frame, Section, Sections, number};

/// What a delta may copy from.
pub trait Contents {
    /// Bytes of the old content.
    fn old_bytes(&self) -> u64;

    /// Fills `into` with the old content from `offset` on; all of it is inside of [`old_bytes`](Contents::old_bytes).
    ///
    /// # Errors
    /// When it cannot be read.
    fn old(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Fills `into` with what was given out before, from `offset` on; all of it was. xdelta3 makes no delta that asks for it.
    ///
    /// # Errors
    /// When it cannot be read back, or nobody kept it ([`io::ErrorKind::Unsupported`]).
    fn made(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What a delta may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a window. xdelta3 makes windows of 8 MiB if it is not told otherwise, and none of more than 16 MiB up to version
    /// 3.0; its sections may be twice as much together.
    pub window_bytes: usize,
    /// Bytes of all windows together.
    pub new_bytes: u64,
    /// Bytes of the application header, which is skipped.
    pub header_bytes: u64,
    /// Bytes of a dictionary of LZMA; there are three of them. The program `xdelta3` asks for 256 KiB at every level; its library,
    /// told level 6, for 8 MiB.
    pub dictionary_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window_bytes: 16 << 20,
            new_bytes: u64::MAX,
            header_bytes: 64 << 10,
            dictionary_bytes: 8 << 20,
        }
    }
}

/// What a window may need in addition, whatever its size.
const SPARE_BYTES: usize = 4096;

/// How sections are compressed.
enum Compression {
    None,
    Djw,
    #[cfg(feature = "lzma")]
    Lzma(Box<[Lzma; 3]>),
}

/// Decodes a delta, window by window.
pub struct Decoder {
    limits: Limits,
    /// `None` before the header was read.
    compression: Option<Compression>,
    windows: u64,
    new_bytes: u64,
    made: Vec<u8>,
    /// Data, instructions, addresses.
    sections: [Vec<u8>; 3],
    old: Old,
}

const ADLER32: u8 = 4;

impl Decoder {
    /// One that has read nothing yet.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            compression: None,
            windows: 0,
            new_bytes: 0,
            made: Vec::new(),
            sections: [const { Vec::new() }; 3],
            old: Old { blocks: Vec::new() },
        }
    }

    /// The next window of the new content; `None` behind the last one. `delta` is read in small pieces.
    ///
    /// # Errors
    /// When the delta, or what it copies from, cannot be read or is refused. Nothing can follow then.
    pub fn next(
        &mut self,
        delta: &mut dyn Read,
        contents: &mut dyn Contents,
    ) -> Result<Option<&[u8]>, Error> {
        let mut delta = Delta { from: delta, window: self.windows, taken: 0 };
        let compression = match self.compression.take() {
            Some(compression) => compression,
            None => header(&mut delta, &self.limits)?,
        };
        let compression = self.compression.insert(compression);
        let Some(bits) = delta.first()? else { return Ok(None) };
        let (frame, checksum, compressed, lengths) =
            frame(bits, &mut delta, &self.limits, contents.old_bytes(), self.new_bytes)?;

        let mut left = frame.bytes.saturating_mul(2).saturating_add(SPARE_BYTES);
        for (at, (section, length)) in self.sections.iter_mut().zip(lengths).enumerate() {
            section.clear();
            if compressed >> at & 1 == 0 {
                delta.read(length, left, section)?;
            } else {
                open(compression, at, &mut delta, length, left, section)?;
            }
            left -= section.len();
        }
        let [data, instructions, addresses] = &self.sections;
        let sections = Sections {
            data: Section::new(data),
            instructions: Section::new(instructions),
            addresses: Section::new(addresses),
        };
        self.made.clear();
        reserve(&mut self.made, frame.bytes)?;
        frame.make(sections, &mut self.old, contents, &mut self.made)?;
        if checksum.is_some_and(|checksum| checksum != adler32(&self.made)) {
            return Err(Error::Checksum { window: frame.window });
        }
        self.windows += 1;
        self.new_bytes += self.made.len() as u64;
        Ok(Some(&self.made))
    }

    /// Windows that were given out.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Bytes that were given out.
    pub fn new_bytes(&self) -> u64 {
        self.new_bytes
    }
}

fn reserve(into: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    into.try_reserve_exact(bytes).map_err(|_| Error::Delta(io::ErrorKind::OutOfMemory.into()))
}

/// The delta, of which it is known in which window it is.
pub(crate) struct Delta<'d> {
    from: &'d mut dyn Read,
    window: u64,
    /// Bytes since this was last set to 0.
    taken: u64,
}

impl Delta<'_> {
    fn damaged(&self, fault: Fault) -> Error {
        Error::Damaged { window: self.window, fault }
    }

    /// A byte, or `None` at the end.
    fn first(&mut self) -> Result<Option<u8>, Error> {
        let mut byte = [0];
        loop {
            match self.from.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Delta(error)),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.taken += 1;
        self.first()?.ok_or_else(|| self.damaged(Fault::Cut))
    }

    fn number(&mut self) -> Result<u64, Error> {
        let window = self.window;
        number(|| self.byte().map_err(Stop::Error)).map_err(|stop| match stop {
            Stop::Fault(fault) => Error::Damaged { window, fault },
            Stop::Error(error) => error,
        })
    }

    /// `length` bytes of a section, of which at most `left` are allowed, to the end of `into`. Memory is taken as they come.
    fn read(&mut self, length: u64, left: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        if length > left as u64 {
            return Err(self.damaged(Fault::Lengths));
        }
        let mut reader = (&mut *self.from).take(length);
        reader.read_to_end(into).map_err(Error::Delta)?;
        if reader.limit() == 0 { Ok(()) } else { Err(self.damaged(Fault::Cut)) }
    }
}

/// Why a number could not be read.
enum Stop {
    Fault(Fault),
    Error(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Reads the header.
fn header(delta: &mut Delta<'_>, limits: &Limits) -> Result<Compression, Error> {
    for (at, expected) in [0xd6, 0xc3, 0xc4, 0].into_iter().enumerate() {
        match delta.first()? {
            Some(found) if found == expected => {}
            Some(found) if at == 3 => return Err(Error::Unsupported(Unsupported::Version(found))),
            Some(_) | None => return Err(Error::NotVcdiff),
        }
    }
    let bits = delta.byte()?;
    if bits & !7 != 0 {
        return Err(Error::Unsupported(Unsupported::HeaderBits(bits)));
    }
    let compression = match bits & 1 {
        0 => Compression::None,
        _ => match delta.byte()? {
            1 => Compression::Djw,
            #[cfg(feature = "lzma")]
            2 => Compression::Lzma(Box::new([(); 3].map(|()| Lzma::new(limits.dictionary_bytes)))),
            #[cfg(not(feature = "lzma"))]
            2 => return Err(Error::Unsupported(Unsupported::Lzma)),
            16 => return Err(Error::Unsupported(Unsupported::Fgk)),
            other => return Err(Error::Unsupported(Unsupported::Compression(other))),
        },
    };
    if bits & 2 != 0 {
        return Err(Error::Unsupported(Unsupported::CodeTable));
    }
    if bits & 4 != 0 {
        let length = delta.number()?;
        if length > limits.header_bytes {
            return Err(Error::TooLarge { what: "the application header", limit: limits.header_bytes });
        }
        for _ in 0..length {
            delta.byte()?;
        }
    }
    Ok(compression)
}

/// What a window says: itself, its checksum, which sections are compressed, and how long they are.
type Said = (Frame, Option<u32>, u8, [u64; 3]);

fn frame(
    bits: u8,
    delta: &mut Delta<'_>,
    limits: &Limits,
    old_bytes: u64,
    new_bytes: u64,
) -> Result<Said, Error> {
    if bits & !7 != 0 {
        return Err(Error::Unsupported(Unsupported::WindowBits(bits)));
    }
    let from = match bits & 3 {
        0 => Copying::Nowhere,
        1 => Copying::Old,
        2 => Copying::New,
        _ => return Err(delta.damaged(Fault::TwoSources)),
    };
    let (mut copy_bytes, mut copy_offset) = (0, 0);
    if from != Copying::Nowhere {
        (copy_bytes, copy_offset) = (delta.number()?, delta.number()?);
        let (there, fault) = match from {
            Copying::Nowhere | Copying::Old => (old_bytes, Fault::OutsideOfOld),
            Copying::New => (new_bytes, Fault::OutsideOfNew),
        };
        if copy_offset.checked_add(copy_bytes).is_none_or(|end| end > there) {
            return Err(delta.damaged(fault));
        }
    }
    let whole = delta.number()?;
    delta.taken = 0;
    let bytes = delta.number()?;
    if bytes > limits.window_bytes as u64 {
        return Err(Error::TooLarge { what: "a window", limit: limits.window_bytes as u64 });
    }
    if new_bytes.checked_add(bytes).is_none_or(|end| end > limits.new_bytes) {
        return Err(Error::TooLarge { what: "the new content", limit: limits.new_bytes });
    }
    let compressed = delta.byte()?;
    if compressed & !7 != 0 {
        return Err(Error::Unsupported(Unsupported::DeltaBits(compressed)));
    }
    let lengths = [delta.number()?, delta.number()?, delta.number()?];
    let mut checksum = None;
    if bits & ADLER32 != 0 {
        checksum = Some(u32::from_be_bytes([delta.byte()?, delta.byte()?, delta.byte()?, delta.byte()?]));
    }
    let expected = lengths.iter().try_fold(delta.taken, |sum, length| sum.checked_add(*length));
    if expected != Some(whole) {
        return Err(delta.damaged(Fault::Lengths));
    }
    let frame = Frame { window: delta.window, from, copy_bytes, copy_offset, bytes: bytes as usize };
    Ok((frame, checksum, compressed, lengths))
}

/// Opens a section that is compressed.
fn open(
    compression: &mut Compression,
    #[cfg_attr(not(feature = "lzma"), allow(unused_variables))] at: usize,
    delta: &mut Delta<'_>,
    length: u64,
    left: usize,
    into: &mut Vec<u8>,
) -> Result<(), Error> {
    delta.taken = 0;
    let bytes = delta.number()?;
    let length = length.checked_sub(delta.taken).ok_or_else(|| delta.damaged(Fault::Compression))?;
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= left);
    let bytes = bytes.ok_or_else(|| delta.damaged(Fault::Lengths))?;
    // What cannot be made smaller grows, but little: by the frames of LZMA.
    let most = bytes.saturating_add(bytes / 16).saturating_add(SPARE_BYTES);
    let mut section = Vec::new();
    delta.read(length, most, &mut section)?;
    let opened = match compression {
        Compression::None => Err(Fault::NotCompressed),
        Compression::Djw => djw::open(&section, bytes, into),
        #[cfg(feature = "lzma")]
        Compression::Lzma(streams) => match streams.get_mut(at) {
            Some(stream) => return stream.open(&section, bytes, into, |fault| delta.damaged(fault)),
            None => Err(Fault::Compression),
        },
    };
    opened.map_err(|fault| delta.damaged(fault))
}

/// Bytes of the old content that were read together. Copies are often short and near each other.
struct Block {
    /// Which one; of all that share this place.
    number: u64,
    bytes: Vec<u8>,
}

/// The old content, of which some blocks are kept.
pub(crate) struct Old {
    blocks: Vec<Option<Block>>,
}

const BLOCK_BYTES: usize = 16 << 10;
const BLOCKS: usize = 64;

impl Old {
    /// Fills `into`; all of it is there.
    pub(crate) fn read(
        &mut self,
        contents: &mut dyn Contents,
        mut offset: u64,
        mut into: &mut [u8],
    ) -> Result<(), Error> {
        while !into.is_empty() {
            let within = (offset % BLOCK_BYTES as u64) as usize;
            let count = into.len().min(BLOCK_BYTES - within);
            // Whole blocks go past those that are kept.
            let whole = into.len() / BLOCK_BYTES * BLOCK_BYTES;
            let count = if within == 0 && whole > 0 { whole } else { count };
            let (part, rest) = std::mem::take(&mut into).split_at_mut_checked(count).unwrap_or_default();
            if within == 0 && whole > 0 {
                read(contents, offset, part)?;
            } else {
                let block = self.block(contents, offset / BLOCK_BYTES as u64)?;
                let found = block.get(within..within + count).ok_or_else(|| short(offset, count))?;
                part.copy_from_slice(found);
            }
            offset += count as u64;
            into = rest;
        }
        Ok(())
    }

    fn block(&mut self, contents: &mut dyn Contents, number: u64) -> Result<&[u8], Error> {
        self.blocks.resize_with(BLOCKS, || None);
        let offset = number * BLOCK_BYTES as u64;
        let slot = self.blocks.get_mut((number % BLOCKS as u64) as usize);
        let slot = slot.ok_or_else(|| short(offset, BLOCK_BYTES))?;
        let mut block = match slot.take() {
            Some(block) if block.number == number => return Ok(&slot.insert(block).bytes),
            Some(block) => block.bytes,
            None => Vec::new(),
        };
        let there = contents.old_bytes().saturating_sub(offset).min(BLOCK_BYTES as u64);
        block.resize(there as usize, 0);
        read(contents, offset, &mut block)?;
        Ok(&slot.insert(Block { number, bytes: block }).bytes)
    }
}

fn read(contents: &mut dyn Contents, offset: u64, into: &mut [u8]) -> Result<(), Error> {
    let bytes = into.len();
    contents.old(offset, into).map_err(|error| Error::Old { offset, bytes, error })
}

fn short(offset: u64, bytes: usize) -> Error {
    Error::Old { offset, bytes, error: io::ErrorKind::UnexpectedEof.into() }
}

/// The checksum of zlib (RFC 1950).
fn adler32(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    let (mut low, mut high) = (1u32, 0u32);
    // As many as can be added before a sum may overflow.
    for piece in bytes.chunks(5552) {
        for byte in piece {
            low += u32::from(*byte);
            high += low;
        }
        low %= BASE;
        high %= BASE;
    }
    high << 16 | low
}
