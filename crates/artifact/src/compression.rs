//! The compressions of header and payload: which there are, what they are called, and streaming decoders and encoders
//! with bounded memory.
//!
//! The suffix of a member's name decides which decoder is used, never the content. The content must agree.

use crate::error::ArtifactError;
use crate::limits::Limits;
use crate::read::read_full;
use crate::restart::{FLUSH_MARK, Place, Places};
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// How a member is compressed. All are always known; the cargo features `gzip`, `xz` and `zstd` bring the decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Stored as it is.
    None,
    /// `.gz`
    Gzip,
    /// `.xz`, called `lzma` by the tool that writes artifacts.
    Xz,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Compression; 4] =
        [Compression::None, Compression::Gzip, Compression::Xz, Compression::Zstd];

    /// What is appended to `header.tar` and `data/0000.tar`.
    pub fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => ".gz",
            Compression::Xz => ".xz",
            Compression::Zstd => ".zst",
        }
    }

    /// The compression of `member` if it is `stem` with one of the suffixes.
    pub(crate) fn of_member(member: &str, stem: &str) -> Option<Compression> {
        let suffix = member.strip_prefix(stem)?;
        Compression::ALL.into_iter().find(|compression| compression.suffix() == suffix)
    }

    /// Whether this program was built with the decoder and encoder.
    fn is_supported(self) -> bool {
        match self {
            Compression::None => true,
            Compression::Gzip => cfg!(feature = "gzip"),
            Compression::Xz => cfg!(feature = "xz"),
            Compression::Zstd => cfg!(feature = "zstd"),
        }
    }

    fn magic(self) -> &'static [u8] {
        match self {
            Compression::None => b"",
            Compression::Gzip => b"\x1f\x8b",
            Compression::Xz => b"\xfd7zXZ\0",
            Compression::Zstd => b"\x28\xb5\x2f\xfd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        })
    }
}

/// Decompresses `source`. Its end is reported only when the compressed streams were complete and `source` has
/// been read to its own end, so that nothing but zeros can hide behind them.
///
/// What the first stream needs is looked at here, before anything is decompressed: a window that is too large is
/// refused while nothing has been written yet.
pub(crate) fn decode<R: BufRead + Send + 'static>(
    compression: Compression,
    entry: &str,
    source: R,
    limits: &Limits,
) -> Result<Decode, ArtifactError> {
    decode_from(compression, entry, source, limits, Start::default(), None)
}

/// Where decoding begins. What is stored as it is has no use for all of it.
#[derive(Default)]
#[cfg_attr(not(any(feature = "gzip", feature = "xz", feature = "zstd")), allow(dead_code))]
pub(crate) struct Start {
    /// Bytes that lie before it, decoded.
    pub(crate) decoded: u64,
    /// And as they are stored.
    pub(crate) stored: u64,
    /// Inside a member of gzip: the last of what lies before, which what follows refers to.
    pub(crate) dictionary: Option<Vec<u8>>,
}

/// As [`decode`], from a place on of which the source begins with the bytes, and with the places behind it written down.
/// Nothing is read here but at the very beginning.
pub(crate) fn decode_from<R: BufRead + Send + 'static>(
    compression: Compression,
    entry: &str,
    source: R,
    limits: &Limits,
    start: Start,
    places: Option<Places>,
) -> Result<Decode, ArtifactError> {
    if !compression.is_supported() {
        return Err(ArtifactError::CompressionNotSupported { entry: entry.to_owned(), compression });
    }
    let log = places.map(|places| Log::new(places, compression, start.stored));
    let mut input = Input {
        ahead: Vec::new(),
        position: 0,
        rest: Watched { source },
        taken: start.stored,
        given: 0,
        log,
    };
    if compression == Compression::None {
        return Ok(Decode { decoder: Box::new(input), entry: entry.to_owned(), compression });
    }
    let mut gap = Gap { compression, entry: entry.to_owned(), limits: limits.clone(), zeros: 0, streams: 0 };
    if start.stored == 0 {
        gap.find_stream(&mut input)?;
    } else {
        gap.streams = 1;
    }
    let decoder = decoder(gap, input, start).map_err(|source| ArtifactError::Decompress {
        entry: entry.to_owned(),
        compression,
        source,
    })?;
    Ok(Decode { decoder, entry: entry.to_owned(), compression })
}

/// A decompressing reader; see [`decode`].
pub(crate) struct Decode {
    decoder: Box<dyn Read + Send>,
    entry: String,
    compression: Compression,
}

impl Read for Decode {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.decoder.read(buffer) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.name_error(error)),
        }
    }
}

impl Decode {
    /// An error of ours has travelled through the decoder and stays what it is; any other is the decoder's own.
    fn name_error(&self, error: io::Error) -> io::Error {
        if error.get_ref().is_some_and(|inner| inner.is::<ArtifactError>()) {
            return error;
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return ArtifactError::Truncated { entry: self.entry.clone() }.into_io();
        }
        let (entry, compression) = (self.entry.clone(), self.compression);
        ArtifactError::Decompress { entry, compression, source: error }.into_io()
    }
}

/// Makes sure that an error of the source is known for one behind the decoder.
struct Watched<R> {
    source: R,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer).map_err(of_source)
    }
}

impl<R: BufRead> BufRead for Watched<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf().map_err(of_source)
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
    }
}

fn of_source(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    ArtifactError::from_io(error).into_io()
}

/// What every decoder reads from: some bytes that were looked at ahead of it, then the rest.
struct Input<R> {
    ahead: Vec<u8>,
    position: usize,
    rest: Watched<R>,
    /// Bytes of the stored file that were taken.
    taken: u64,
    /// Bytes that came out of the decoder before it reads next.
    given: u64,
    log: Option<Log>,
}

/// Writes down where decoding can begin again.
struct Log {
    places: Places,
    /// Of the last place that was written down.
    last: u64,
    /// Where a flush ended behind what is being taken.
    mark: Option<u64>,
    /// Flushes were looked for up to here.
    looked_to: u64,
    looks_for_flushes: bool,
    found_flushes: bool,
}

/// Without a flush in so many bytes there will be none: most programs that compress never flush.
const FLUSHES_WITHIN_BYTES: u64 = 8 * MIB;

impl Log {
    fn new(places: Places, compression: Compression, stored: u64) -> Log {
        let looks_for_flushes = compression == Compression::Gzip;
        Log { places, last: stored, mark: None, looked_to: stored, looks_for_flushes, found_flushes: false }
    }

    fn note(&mut self, stored: u64, decoded: u64, inside: bool) {
        if stored >= self.last.saturating_add(self.places.spacing()) {
            self.places.push(Place { decoded, stored, inside });
            self.last = stored;
        }
    }

    /// How many of `available` bytes at `taken` may be given at once, so that the decoder stops behind a flush.
    fn until_flush(&mut self, taken: u64, available: &[u8]) -> usize {
        if let Some(mark) = self.mark.filter(|mark| *mark > taken) {
            let within = usize::try_from(mark - taken).unwrap_or(usize::MAX);
            return within.min(available.len());
        }
        let from = self.last.saturating_add(self.places.spacing()).max(self.looked_to).saturating_sub(taken);
        let Some(end) = usize::try_from(from).ok().and_then(|from| flush_end(available, from)) else {
            self.looked_to = self.looked_to.max(taken + available.len() as u64);
            self.looks_for_flushes = self.found_flushes || taken < FLUSHES_WITHIN_BYTES;
            return available.len();
        };
        self.found_flushes = true;
        self.mark = Some(taken + end as u64);
        end
    }
}

/// The end of the first flush in `bytes` that ends behind `from`. What looks like one inside of other data is taken for one,
/// which costs somebody who begins there a beginning anew; before the mark there are three bits of zero and those that fill
/// the byte.
fn flush_end(bytes: &[u8], from: usize) -> Option<usize> {
    let is_end = |end: usize| {
        let start = end.checked_sub(FLUSH_MARK.len())?;
        let before = bytes.get(start.checked_sub(1)?)?;
        (bytes.get(start..end)? == FLUSH_MARK && before & 0xe0 == 0).then_some(end)
    };
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        // One of the last two bytes of the mark is at every second place.
        if *byte == 0xff {
            if let Some(end) = is_end(at + 1).or_else(|| is_end(at + 2)) {
                return Some(end);
            }
        }
        at += 2;
    }
    None
}

impl<R> Input<R> {
    /// A stream begins here.
    #[cfg_attr(not(any(feature = "gzip", feature = "xz", feature = "zstd")), allow(dead_code))]
    fn begins(&mut self) {
        if let Some(log) = &mut self.log {
            log.note(self.taken, self.given, false);
        }
    }
}

impl<R: BufRead> Input<R> {
    /// The next `count` bytes without taking them; fewer where the source ends.
    fn peek(&mut self, count: usize) -> Result<&[u8], ArtifactError> {
        self.ahead.drain(..self.position);
        self.position = 0;
        let have = self.ahead.len();
        if have < count {
            self.ahead.resize(count, 0);
            let missing = self.ahead.get_mut(have..).unwrap_or_default();
            let read = read_full(&mut self.rest, missing)?;
            self.ahead.truncate(have + read);
        }
        Ok(self.ahead.get(..count.min(self.ahead.len())).unwrap_or_default())
    }

    /// Takes `count` bytes; false when the source ends before.
    fn skip(&mut self, mut count: u64) -> Result<bool, ArtifactError> {
        while count > 0 {
            let available = self.fill_buf().map_err(ArtifactError::from_io)?.len();
            if available == 0 {
                return Ok(false);
            }
            let taken = usize::try_from(count).unwrap_or(usize::MAX).min(available);
            self.consume(taken);
            count -= taken as u64;
        }
        Ok(true)
    }
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position < self.ahead.len() {
            return Ok(self.ahead.get(self.position..).unwrap_or_default());
        }
        if let Some(log) = self.log.as_mut().filter(|log| log.mark == Some(self.taken)) {
            // Whoever has taken all of a flush has given out all that is before it.
            log.mark = None;
            log.note(self.taken, self.given, true);
        }
        let available = loop {
            match self.rest.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(available) => break available,
            }
        };
        let most = match self.log.as_mut().filter(|log| log.looks_for_flushes) {
            Some(log) => log.until_flush(self.taken, available),
            None => available.len(),
        };
        // Filled again, because the borrow of the first answer would last through the loop.
        self.rest.fill_buf().map(|available| available.get(..most).unwrap_or(available))
    }

    fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        let ahead = count.min(self.ahead.len() - self.position);
        self.position += ahead;
        self.rest.consume(count - ahead);
    }
}

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// What is between the streams of a file: nothing, zeros that something padded it with, or skippable frames. And what
/// may be known of a stream before it is decompressed.
struct Gap {
    compression: Compression,
    entry: String,
    limits: Limits,
    zeros: u64,
    streams: u64,
}

impl Gap {
    /// Goes to the start of the next stream; false at the end of the file.
    ///
    /// `gzip` and all other readers take zeros behind a stream, RFC 8878 lets skippable frames stand anywhere (`pzstd`
    /// begins with one), and xz pads with zeros itself.
    fn find_stream<R: BufRead>(&mut self, input: &mut Input<R>) -> Result<bool, ArtifactError> {
        loop {
            let magic = self.compression.magic();
            let next = input.peek(magic.len())?;
            if next == magic {
                self.check_needs(input)?;
                self.streams += 1;
                return Ok(true);
            }
            if next.is_empty() && self.streams > 0 {
                return Ok(false);
            }
            let first = next.first().copied();
            if next.len() < magic.len() && magic.starts_with(next) {
                return Err(ArtifactError::Truncated { entry: self.entry.clone() });
            }
            if self.compression == Compression::Zstd && is_skippable(next) {
                self.skip_frame(input)?;
            } else if first == Some(0) && self.streams > 0 {
                input.consume(1);
                self.zeros += 1;
                let limit = self.limits.trailing_zero_bytes;
                if self.zeros > limit {
                    return Err(ArtifactError::too_large(&self.entry, "zeros behind the stream", limit));
                }
            } else {
                let (entry, compression) = (self.entry.clone(), self.compression);
                return Err(match self.streams {
                    0 => ArtifactError::WrongMagic { entry, compression },
                    _ => ArtifactError::TrailingGarbage { entry },
                });
            }
        }
    }

    /// A skippable frame: its magic, its length in four bytes, and what nobody but its writer knows.
    fn skip_frame<R: BufRead>(&self, input: &mut Input<R>) -> Result<(), ArtifactError> {
        let truncated = || ArtifactError::Truncated { entry: self.entry.clone() };
        let head = input.peek(8)?;
        let length = head.get(4..).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        let length = u64::from(length.ok_or_else(truncated)?);
        match input.skip(8 + length)? {
            true => Ok(()),
            false => Err(truncated()),
        }
    }

    /// Refuses a stream whose decoder would need more memory than is allowed, or than there is. What cannot be
    /// understood here is left to the decoder to refuse.
    fn check_needs<R: BufRead>(&self, input: &mut Input<R>) -> Result<(), ArtifactError> {
        let (need_bytes, allowed_bytes, decoder_bytes) = match self.compression {
            Compression::None | Compression::Gzip => return Ok(()),
            Compression::Xz => {
                // The size of the block's header stands in its first byte.
                let size = input.peek(XZ_STREAM_HEADER + 1)?.get(XZ_STREAM_HEADER).copied().unwrap_or(0);
                let header = input.peek(XZ_STREAM_HEADER + 4 * (usize::from(size) + 1))?;
                let block = header.get(XZ_STREAM_HEADER..).unwrap_or_default();
                let Some(dictionary) = xz_dictionary_bytes(block) else { return Ok(()) };
                (dictionary, self.limits.xz_dictionary_bytes, XZ_DECODER_BYTES)
            }
            Compression::Zstd => {
                let Some(window) = zstd_window_bytes(input.peek(ZSTD_FRAME_HEADER)?) else { return Ok(()) };
                (window, self.limits.zstd_window_bytes, ZSTD_DECODER_BYTES)
            }
        };
        let (entry, compression) = (self.entry.clone(), self.compression);
        if need_bytes > allowed_bytes {
            return Err(ArtifactError::WindowTooLarge { entry, compression, need_bytes, allowed_bytes });
        }
        let need_bytes = need_bytes + decoder_bytes;
        match self.limits.memory_bytes.filter(|available| need_bytes > *available) {
            Some(available_bytes) => {
                Err(ArtifactError::NotEnoughMemory { entry, compression, need_bytes, available_bytes })
            }
            None => Ok(()),
        }
    }
}

/// What the decoders need beside window and dictionary, rounded up.
const ZSTD_DECODER_BYTES: u64 = MIB;
const XZ_DECODER_BYTES: u64 = 2 * MIB;
const MIB: u64 = 1 << 20;

fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// The largest header of a zstd frame.
const ZSTD_FRAME_HEADER: usize = 18;

/// The window that the frame beginning with `frame` needs (RFC 8878, 3.1.1.1): as it says, or the whole content where
/// the frame is one segment.
fn zstd_window_bytes(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.get(4)?;
    if descriptor & 0x20 == 0 {
        let window = *frame.get(5)?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let start = 5 + [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
    let number = |length: usize| {
        let bytes = frame.get(start..start + length)?;
        Some(bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => number(2).map(|size| size + 256),
        2 => number(4),
        _ => number(8),
    }
}

const XZ_STREAM_HEADER: usize = 12;
/// The filter that all files of xz but special ones end with.
const XZ_LZMA2: u64 = 0x21;

/// The dictionary that a block of xz needs, from its header.
fn xz_dictionary_bytes(block: &[u8]) -> Option<u64> {
    let (&size, mut rest) = block.split_first()?;
    if size == 0 {
        // No block: an empty file.
        return None;
    }
    let flags = take(&mut rest)?;
    for present in [0x40, 0x80] {
        if flags & present != 0 {
            xz_number(&mut rest)?;
        }
    }
    let mut dictionary = None;
    for _ in 0..=(flags & 3) {
        let filter = xz_number(&mut rest)?;
        let length = usize::try_from(xz_number(&mut rest)?).ok()?;
        let properties = rest.get(..length)?;
        rest = rest.get(length..)?;
        if let (XZ_LZMA2, [bits]) = (filter, properties) {
            dictionary = match bits {
                0..=39 => Some(u64::from(2 | (bits & 1)) << (bits / 2 + 11)),
                40 => Some(u64::from(u32::MAX)),
                _ => None,
            };
        }
    }
    dictionary
}

fn take(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

/// Seven bits a byte, the lowest first; the top bit says that another one follows.
fn xz_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..63).step_by(7) {
        let byte = take(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(any(feature = "gzip", feature = "xz", feature = "zstd"))]
mod streams {
    use super::*;

    /// The decoder of one stream: its end is the stream's, and then it gives back what it reads from.
    pub(super) trait OneStream<I>: Read {
        fn into_input(self) -> I;
        fn input(&mut self) -> &mut I;
    }

    /// All streams of a file, as one.
    pub(super) struct Streams<R, D, F> {
        pub(super) state: State<Input<R>, D>,
        pub(super) gap: Gap,
        /// Starts the decoder of a stream.
        pub(super) begin: F,
        /// Bytes given out.
        pub(super) given: u64,
    }

    pub(super) enum State<I, D> {
        Between(I),
        Before(I),
        Inside(D),
        Ended,
    }

    /// The state in which decoding begins: behind a look at the first stream, in one, or before one that is not looked at yet.
    pub(super) fn begins<I, D>(input: I, start: &Start) -> State<I, D> {
        if start.stored == 0 || start.dictionary.is_some() {
            State::Before(input)
        } else {
            State::Between(input)
        }
    }

    impl<R: BufRead, D: OneStream<Input<R>>, F: FnMut(Input<R>) -> io::Result<D>> Read for Streams<R, D, F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            loop {
                if let State::Inside(decoder) = &mut self.state {
                    decoder.input().given = self.given;
                    let count = decoder.read(buffer)?;
                    self.given += count as u64;
                    if count > 0 {
                        return Ok(count);
                    }
                }
                self.state = match std::mem::replace(&mut self.state, State::Ended) {
                    State::Before(input) => State::Inside((self.begin)(input)?),
                    State::Inside(decoder) => State::Between(decoder.into_input()),
                    State::Between(mut input) => match self.gap.find_stream(&mut input)? {
                        true => {
                            input.given = self.given;
                            input.begins();
                            State::Before(input)
                        }
                        false => State::Ended,
                    },
                    State::Ended => return Ok(0),
                }
            }
        }
    }
}
#[cfg(any(feature = "gzip", feature = "xz", feature = "zstd"))]
use streams::{OneStream, Streams, begins};

fn decoder<R: BufRead + Send + 'static>(
    gap: Gap,
    input: Input<R>,
    start: Start,
) -> io::Result<Box<dyn Read + Send>> {
    match gap.compression {
        Compression::None => Ok(Box::new(input)),
        Compression::Gzip => gzip_decoder(gap, input, start),
        Compression::Xz => xz_decoder(gap, input, start),
        Compression::Zstd => zstd_decoder(gap, input, start),
    }
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::*;
    use flate2::bufread::GzDecoder;
    use flate2::{Decompress, FlushDecompress, Status};

    /// One member, or what is left of one behind a flush.
    enum Member<I> {
        Whole(GzDecoder<I>),
        Rest(Rest<I>),
    }

    impl<I: BufRead> Read for Member<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self {
                Member::Whole(member) => member.read(buffer),
                Member::Rest(rest) => rest.read(buffer),
            }
        }
    }

    impl<I: BufRead> OneStream<I> for Member<I> {
        fn into_input(self) -> I {
            match self {
                Member::Whole(member) => member.into_inner(),
                Member::Rest(rest) => rest.input,
            }
        }

        fn input(&mut self) -> &mut I {
            match self {
                Member::Whole(member) => member.get_mut(),
                Member::Rest(rest) => &mut rest.input,
            }
        }
    }

    /// The rest of a member. Its checksum is of all of it and cannot be compared; whoever goes on here has another.
    struct Rest<I> {
        input: I,
        inflate: Decompress,
        ended: bool,
    }

    /// Checksum and length behind the data of a member.
    const TRAILER: usize = 8;

    impl<I: BufRead> Read for Rest<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while !self.ended {
                let available = self.input.fill_buf()?;
                let at_end = available.is_empty();
                let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
                let status = self.inflate.decompress(available, buffer, FlushDecompress::None)?;
                let count = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
                let taken = count(self.inflate.total_in(), taken);
                let given = count(self.inflate.total_out(), given);
                self.input.consume(taken);
                if status == Status::StreamEnd {
                    self.ended = true;
                    self.input.read_exact(&mut [0; TRAILER])?;
                }
                if given > 0 {
                    return Ok(given);
                }
                if at_end && !self.ended {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if taken == 0 && !self.ended {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Ok(0)
        }
    }

    pub(super) fn gzip_decoder<R: BufRead + Send + 'static>(
        gap: Gap,
        input: Input<R>,
        start: Start,
    ) -> io::Result<Box<dyn Read + Send>> {
        let (state, given, mut dictionary) = (begins(input, &start), start.decoded, start.dictionary);
        let begin = move |input| match dictionary.take() {
            None => Ok(Member::Whole(GzDecoder::new(input))),
            Some(dictionary) => {
                let mut inflate = Decompress::new(false);
                inflate.set_dictionary(&dictionary)?;
                Ok(Member::Rest(Rest { input, inflate, ended: false }))
            }
        };
        Ok(Box::new(Streams { state, gap, begin, given }))
    }
}
#[cfg(feature = "gzip")]
use gzip::gzip_decoder;

#[cfg(feature = "xz")]
mod xz {
    use super::*;
    use liblzma::bufread::XzDecoder;

    /// Errors of the library go on in our words; its own say "memory limit reached" without a number.
    pub(super) struct Xz<I>(XzDecoder<I>, u64);

    impl<I: BufRead> Read for Xz<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer).map_err(|error| {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
                match inner {
                    Some(liblzma::stream::Error::MemLimit) => io::Error::other(format!(
                        "a block needs a larger dictionary than the {} MiB that are allowed",
                        self.1 / MIB
                    )),
                    Some(_) | None => error,
                }
            })
        }
    }

    impl<I: BufRead> OneStream<I> for Xz<I> {
        fn into_input(self) -> I {
            self.0.into_inner()
        }

        fn input(&mut self) -> &mut I {
            self.0.get_mut()
        }
    }

    pub(super) fn xz_decoder<R: BufRead + Send + 'static>(
        gap: Gap,
        input: Input<R>,
        start: Start,
    ) -> io::Result<Box<dyn Read + Send>> {
        let dictionary = gap.limits.xz_dictionary_bytes;
        let begin = move |input| {
            let memory = dictionary.saturating_add(XZ_DECODER_BYTES);
            let stream = liblzma::stream::Stream::new_stream_decoder(memory, 0).map_err(io::Error::other)?;
            Ok(Xz(XzDecoder::new_stream(input, stream), dictionary))
        };
        Ok(Box::new(Streams { state: begins(input, &start), gap, begin, given: start.decoded }))
    }
}
#[cfg(feature = "xz")]
use xz::xz_decoder;

#[cfg(feature = "zstd")]
mod zstd_frames {
    use super::*;
    use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

    /// One frame. The library is called directly, because a build without its error texts (`thin`, 30 KiB) says
    /// nothing but that it has none; the codes say what is wrong.
    pub(super) struct Frame<I> {
        input: I,
        context: DCtx<'static>,
        /// Whether the last bytes of the frame were taken and its content given out.
        ended: bool,
    }

    impl<I: BufRead> Read for Frame<I> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while !self.ended {
                let available = self.input.fill_buf()?;
                let at_end = available.is_empty();
                let mut from = InBuffer::around(available);
                let mut to = OutBuffer::around(&mut *buffer);
                let hint = self.context.decompress_stream(&mut to, &mut from).map_err(named)?;
                let (taken, count) = (from.pos(), to.pos());
                self.input.consume(taken);
                self.ended = hint == 0;
                if count > 0 {
                    return Ok(count);
                }
                if at_end && !self.ended {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(0)
        }
    }

    impl<I: BufRead> OneStream<I> for Frame<I> {
        fn into_input(self) -> I {
            self.input
        }

        fn input(&mut self) -> &mut I {
            &mut self.input
        }
    }

    pub(super) fn zstd_decoder<R: BufRead + Send + 'static>(
        gap: Gap,
        input: Input<R>,
        start: Start,
    ) -> io::Result<Box<dyn Read + Send>> {
        // The library's limit is a power of two; ours was compared already.
        let log = u64::BITS - gap.limits.zstd_window_bytes.max(1).leading_zeros();
        let begin = move |input| {
            let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
            let mut context = DCtx::try_create().ok_or_else(no_memory)?;
            context.reset(ResetDirective::SessionAndParameters).map_err(named)?;
            context.set_parameter(DParameter::WindowLogMax(log.clamp(10, 31))).map_err(named)?;
            Ok(Frame { input, context, ended: false })
        };
        Ok(Box::new(Streams { state: begins(input, &start), gap, begin, given: start.decoded }))
    }

    /// The words for an error of the library. What it returns is the negated code.
    pub(crate) fn named(returned: usize) -> io::Error {
        let problem = match 0usize.wrapping_sub(returned) {
            14 => "it uses a part of the format that is not known",
            16 => "a frame needs a larger window than is allowed",
            22 => "the checksum of a frame is wrong",
            30 | 32 | 34 => "it needs a dictionary that was made before it",
            64 => return io::ErrorKind::OutOfMemory.into(),
            _ => "the data is damaged",
        };
        io::Error::new(io::ErrorKind::InvalidData, problem)
    }
}
#[cfg(feature = "zstd")]
pub(crate) use zstd_frames::named as zstd_error;
#[cfg(feature = "zstd")]
use zstd_frames::zstd_decoder;

#[cfg(not(feature = "gzip"))]
fn gzip_decoder<R: BufRead>(_: Gap, _: Input<R>, _: Start) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(not(feature = "xz"))]
fn xz_decoder<R: BufRead>(_: Gap, _: Input<R>, _: Start) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(not(feature = "zstd"))]
fn zstd_decoder<R: BufRead>(_: Gap, _: Input<R>, _: Start) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// A compression with its strength, as it is chosen for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionLevel {
    /// Which compression.
    pub compression: Compression,
    /// In the compression's own scale: gzip 1 to 9, xz 0 to 9, zstd 1 to 19. Ignored for `None`.
    pub level: u32,
}

impl CompressionLevel {
    /// The strength used when none is asked for: the best gzip, as devices download more often than hosts compress,
    /// xz with the 8 MiB dictionary, and zstd with a window every reader takes.
    pub fn default_of(compression: Compression) -> CompressionLevel {
        let level = match compression {
            Compression::None => 0,
            Compression::Gzip => 9,
            Compression::Xz => 6,
            Compression::Zstd => 9,
        };
        CompressionLevel { compression, level }
    }

    /// How many bytes `content` becomes with it. Nothing is kept.
    ///
    /// # Errors
    /// When `content` cannot be read, or the compression is not built in.
    pub fn measure(self, content: &mut dyn Read) -> io::Result<u64> {
        let mut encoder = Encoder::new(Counter(0), self)?;
        io::copy(content, &mut encoder)?;
        Ok(encoder.finish()?.0)
    }
}

/// Counts what it throws away.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0 += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The window that is written, as a power of two: 8 MiB, which RFC 8878 names as the one that every decoder should take.
#[cfg(feature = "zstd")]
const ZSTD_WRITTEN_WINDOW_LOG: u32 = 23;

/// A compressing writer that has to be finished. There is one at a time, so that its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Encoder<W: Write> {
    None(W),
    #[cfg(feature = "gzip")]
    Gzip(Flushing<W>),
    #[cfg(feature = "xz")]
    Xz(liblzma::write::XzEncoder<W>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

/// Bytes of content between two flushes of gzip, at which a device can go on with a download. Measured they cost
/// nothing, and every reader takes them: `mender-artifact` writes with a library that leaves them at the same distance.
#[cfg(feature = "gzip")]
const FLUSH_EVERY_BYTES: usize = 1 << 20;

/// One member with flushes in it.
#[cfg(feature = "gzip")]
pub(crate) struct Flushing<W: Write> {
    encoder: flate2::write::GzEncoder<W>,
    /// Bytes of content behind the last flush.
    since: usize,
}

#[cfg(feature = "gzip")]
impl<W: Write> Flushing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.since >= FLUSH_EVERY_BYTES {
            self.encoder.flush()?;
            self.since = 0;
        }
        let most = data.len().min(FLUSH_EVERY_BYTES - self.since);
        let count = self.encoder.write(data.get(..most).unwrap_or(data))?;
        self.since += count;
        Ok(count)
    }
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(out: W, how: CompressionLevel) -> io::Result<Encoder<W>> {
        match how.compression {
            Compression::None => Ok(Encoder::None(out)),
            #[cfg(feature = "gzip")]
            Compression::Gzip => {
                let level = flate2::Compression::new(how.level.clamp(1, 9));
                Ok(Encoder::Gzip(Flushing { encoder: flate2::write::GzEncoder::new(out, level), since: 0 }))
            }
            #[cfg(feature = "xz")]
            Compression::Xz => Ok(Encoder::Xz(liblzma::write::XzEncoder::new(out, how.level.min(9)))),
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let level = i32::try_from(how.level.clamp(1, 19)).unwrap_or(19);
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // What older clients take too.
                encoder.window_log(ZSTD_WRITTEN_WINDOW_LOG)?;
                Ok(Encoder::Zstd(encoder))
            }
            #[allow(unreachable_patterns)] // Reached in builds without one of the features.
            Compression::Gzip | Compression::Xz | Compression::Zstd => {
                Err(io::Error::from(io::ErrorKind::Unsupported))
            }
        }
    }

    /// Writes what the encoder still holds and gives back what it wrote to.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self {
            Encoder::None(out) => Ok(out),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(Flushing { encoder, since: _ }) => encoder.finish(),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.finish(),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.finish().map_err(in_words),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(out) => out.write(data),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => encoder.write(data),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.write(data),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.write(data).map_err(in_words),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::None(out) => out.flush(),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(Flushing { encoder, since: _ }) => encoder.flush(),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.flush(),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.flush().map_err(in_words),
        }
    }
}

/// The library is built without its error texts. While compressing it has one error to report.
#[cfg(feature = "zstd")]
fn in_words(error: io::Error) -> io::Error {
    match error.to_string() == "Error strings stripped" {
        true => io::ErrorKind::OutOfMemory.into(),
        false => error,
    }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    fn encode(compression: Compression, data: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), CompressionLevel::default_of(compression)).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn open(compression: Compression, bytes: Vec<u8>, limits: &Limits) -> Result<Vec<u8>, ArtifactError> {
        let mut reader = decode(compression, "x", Cursor::new(bytes), limits)?;
        let mut got = Vec::new();
        reader.read_to_end(&mut got).map_err(ArtifactError::from_io)?;
        Ok(got)
    }

    fn sample() -> Vec<u8> {
        (0..40_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes() {
        for compression in Compression::ALL {
            for data in [Vec::new(), vec![7], sample()] {
                let stored = encode(compression, &data);
                assert_eq!(open(compression, stored, &Limits::default()).unwrap(), data, "{compression}");
            }
        }
    }

    #[test]
    fn several_members_or_frames_are_one_stream() {
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let stored = [encode(compression, b"one "), encode(compression, b"two")].concat();
            assert_eq!(open(compression, stored, &Limits::default()).unwrap(), b"one two", "{compression}");
        }
    }

    #[test]
    fn bytes_behind_the_stream_are_refused() {
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            for garbage in [&b"x"[..], b"\0x", b"garbage behind the end", b"\x1f", b"\x28\xb5\x2f"] {
                let stored = [&encode(compression, &sample())[..], garbage].concat();
                let refused = open(compression, stored, &Limits::default());
                assert!(refused.is_err(), "{compression} with {garbage:?}");
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let stored = encode(compression, b"a short text that is short");
            for length in 0..stored.len() {
                let refused = open(compression, stored[..length].to_vec(), &Limits::default());
                assert!(refused.is_err(), "{compression} cut to {length}");
                assert!(!matches!(refused, Err(ArtifactError::Source { .. })));
            }
        }
    }

    #[test]
    fn content_of_another_compression_is_refused() {
        for named in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            for stored in Compression::ALL.into_iter().filter(|stored| *stored != named) {
                let refused = open(named, encode(stored, &sample()), &Limits::default());
                assert!(matches!(refused, Err(ArtifactError::WrongMagic { .. })), "{stored} named {named}");
            }
        }
    }

    fn zstd_with_window(log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![0; 40 << 20]).unwrap();
        encoder.finish().unwrap()
    }

    fn xz_with_dictionary(bytes: u32) -> Vec<u8> {
        let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        options.dict_size(bytes);
        let mut filters = liblzma::stream::Filters::new();
        filters.lzma2(&options);
        let check = liblzma::stream::Check::Crc64;
        let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(b"text").unwrap();
        encoder.finish().unwrap()
    }

    #[track_caller]
    fn window_refused(refused: Result<Vec<u8>, ArtifactError>, need: u64, allowed: u64) {
        match refused {
            Err(ArtifactError::WindowTooLarge { need_bytes, allowed_bytes, .. }) => {
                assert_eq!((need_bytes, allowed_bytes), (need, allowed));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_zstd_window_at_the_limit_is_decoded_and_one_past_it_refused() {
        let limits = Limits::default();
        let open = |stored| open(Compression::Zstd, stored, &limits);
        assert_eq!(open(zstd_with_window(25)).unwrap().len(), 40 << 20);
        window_refused(open(zstd_with_window(26)), 64 << 20, 32 << 20);
        // Also in a frame that is not the first.
        window_refused(
            open([encode(Compression::Zstd, b"x"), zstd_with_window(26)].concat()),
            64 << 20,
            32 << 20,
        );
    }

    #[test]
    fn an_xz_dictionary_over_the_limit_is_refused() {
        let limits = Limits::default();
        let open = |stored| open(Compression::Xz, stored, &limits);
        assert_eq!(open(xz_with_dictionary(64 << 20)).unwrap(), b"text");
        window_refused(open(xz_with_dictionary(96 << 20)), 96 << 20, 64 << 20);
        window_refused(
            open([encode(Compression::Xz, b"x"), xz_with_dictionary(96 << 20)].concat()),
            96 << 20,
            64 << 20,
        );
    }

    #[test]
    fn a_window_that_does_not_fit_into_the_free_memory_is_refused_before_anything_is_read() {
        for (compression, stored, window, decoder) in [
            (Compression::Zstd, zstd_with_window(25), 32 << 20, ZSTD_DECODER_BYTES),
            (Compression::Zstd, zstd_with_window(22), 4 << 20, ZSTD_DECODER_BYTES),
            (Compression::Xz, xz_with_dictionary(64 << 20), 64 << 20, XZ_DECODER_BYTES),
        ] {
            let with = |memory| Limits { memory_bytes: Some(memory), ..Limits::default() };
            let decode =
                |memory| decode(compression, "x", Cursor::new(stored.clone()), &with(memory)).map(|_| ());
            decode(window + decoder).unwrap();
            let refused = decode(window + decoder - 1).unwrap_err();
            assert!(
                matches!(&refused, ArtifactError::NotEnoughMemory { need_bytes, available_bytes, .. }
                    if *need_bytes == window + decoder && *available_bytes == window + decoder - 1),
                "{refused}"
            );
        }
    }

    #[test]
    fn the_window_of_every_form_of_frame_header_is_read() {
        let frame = |bytes: &[u8]| zstd_window_bytes(&[Compression::Zstd.magic(), bytes].concat());
        // As it says: 1 KiB, and with a mantissa.
        assert_eq!(frame(&[0, 0]), Some(1024));
        assert_eq!(frame(&[0, 0b0111_1011]), Some((1 << 25) + 3 * (1 << 22)));
        assert_eq!(frame(&[0, 0xff]), Some((1 << 41) / 8 * 15));
        // One segment, behind dictionary ids of each length, with sizes of each length.
        assert_eq!(frame(&[0x20, 7]), Some(7));
        assert_eq!(frame(&[0x23, 9, 9, 9, 9, 7]), Some(7));
        assert_eq!(frame(&[0x61, 9, 1, 1]), Some(513));
        assert_eq!(frame(&[0xa2, 9, 9, 0, 0, 0, 1]), Some(1 << 24));
        assert_eq!(frame(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        for short in [&[][..], &[0], &[0x20], &[0x61, 9, 1], &[0xe0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(frame(short), None);
        }
    }

    fn skippable(id: u8, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap();
        [&[0x50 + id, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), &vec![0xaa; length as usize]].concat()
    }

    #[test]
    fn skippable_frames_stand_anywhere_and_mean_nothing() {
        let limits = Limits::default();
        let open = |parts: &[Vec<u8>]| open(Compression::Zstd, parts.concat(), &limits);
        let frame = |text: &[u8]| encode(Compression::Zstd, text);
        for length in [0, 4, 200_000] {
            let skipped = || skippable(0, length);
            let parts = [skipped(), frame(b"one "), skippable(15, length), frame(b"two"), skipped()];
            assert_eq!(open(&parts).unwrap(), b"one two", "{length}");
        }
        // One that says more than there is, and one that is cut.
        let mut long = skippable(3, 10);
        long[4] = 11;
        for cut in [long, skippable(3, 10)[..6].to_vec()] {
            assert!(matches!(open(std::slice::from_ref(&cut)), Err(ArtifactError::Truncated { .. })));
            assert!(matches!(open(&[frame(b"x"), cut]), Err(ArtifactError::Truncated { .. })));
        }
        // For no other compression.
        let refused = super::tests::open(Compression::Gzip, skippable(0, 4), &limits);
        assert!(matches!(refused, Err(ArtifactError::WrongMagic { .. })));
    }

    #[test]
    fn zeros_behind_the_streams_are_taken_up_to_the_limit() {
        let limits = Limits { trailing_zero_bytes: 20_000, ..Limits::default() };
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let padded = |zeros: usize| [encode(compression, b"text"), vec![0; zeros]].concat();
            for zeros in [1, 3, 512, 20_000] {
                assert_eq!(
                    open(compression, padded(zeros), &limits).unwrap(),
                    b"text",
                    "{compression} {zeros}"
                );
            }
            let refused = open(compression, padded(20_001), &limits);
            assert!(matches!(refused, Err(ArtifactError::TooLarge { limit: 20_000, .. })), "{compression}");
            // A file of zeros is no stream.
            let refused = open(compression, vec![0; 512], &limits);
            assert!(matches!(refused, Err(ArtifactError::WrongMagic { .. })), "{compression}");
        }
    }

    #[test]
    fn no_error_of_a_decoder_says_that_it_has_no_words() {
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let stored = encode(compression, &sample());
            for at in (compression.magic().len()..stored.len()).step_by(7) {
                let mut changed = stored.clone();
                changed[at] ^= 0x55;
                if let Err(error) = open(compression, changed, &Limits::default()) {
                    let shown = error.to_string();
                    assert!(
                        !shown.contains("stripped") && shown.starts_with("x: "),
                        "{compression} {at}: {shown}"
                    );
                }
            }
        }
        let mut wrong = encode(Compression::Zstd, &sample());
        *wrong.last_mut().unwrap() ^= 1;
        let error = open(Compression::Zstd, wrong, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("the checksum of a frame is wrong"), "{error}");
    }

    #[test]
    fn an_error_of_the_source_is_still_one_behind_the_decoder() {
        struct Fails(Cursor<Vec<u8>>);
        impl Read for Fails {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    count => Ok(count),
                }
            }
        }
        for compression in Compression::ALL {
            let mut half = encode(compression, &sample());
            half.truncate(half.len() / 2);
            let reader =
                decode(compression, "x", BufReader::new(Fails(Cursor::new(half))), &Limits::default());
            let error = reader.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert!(matches!(ArtifactError::from_io(error), ArtifactError::Source { .. }), "{compression}");
        }
    }
}
