//! The compressions of header and payload: which there are, what they are called, and streaming decoders and encoders
//! with bounded memory.
//!
//! The suffix of a member's name decides which decoder is used, never the content. The content must agree.

use super::error::ArtifactError;
use super::limits::Limits;
use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    pub fn is_supported(self) -> bool {
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

/// What every decoder reads from: the magic that was looked at, then the rest through a buffer.
type Input<R> = io::Chain<Cursor<Vec<u8>>, BufReader<Watched<R>>>;

/// Bytes asked of a compressed source at once.
const INPUT_BYTES: usize = 64 * 1024;

/// Decompresses `source`. Its end is reported only when the compressed stream was complete and `source` has
/// been read to its own end, so that nothing can hide behind the stream.
pub(crate) fn decode<R: Read + Send + 'static>(
    compression: Compression,
    entry: &str,
    mut source: R,
    limits: &Limits,
) -> Result<Decode, ArtifactError> {
    let mut magic = vec![0; compression.magic().len()];
    let count = super::tar::read_full(&mut source, &mut magic)?;
    if count < magic.len() && compression.magic().starts_with(magic.get(..count).unwrap_or_default()) {
        return Err(ArtifactError::Truncated { entry: entry.to_owned() });
    }
    if magic != compression.magic() {
        return Err(ArtifactError::WrongMagic { entry: entry.to_owned(), compression });
    }
    let ended = Arc::new(AtomicBool::new(false));
    let rest = Watched { source, ended: Arc::clone(&ended) };
    let input = Cursor::new(magic).chain(BufReader::with_capacity(INPUT_BYTES, rest));
    let decoder = decoder(compression, input, limits).map_err(|source| {
        if source.kind() == io::ErrorKind::Unsupported {
            return ArtifactError::CompressionNotSupported { entry: entry.to_owned(), compression };
        }
        ArtifactError::Decompress { entry: entry.to_owned(), compression, source }
    })?;
    Ok(Decode { decoder, ended, entry: entry.to_owned(), compression })
}

/// A decompressing reader; see [`decode`].
pub(crate) struct Decode {
    decoder: Box<dyn Read + Send>,
    ended: Arc<AtomicBool>,
    entry: String,
    compression: Compression,
}

impl Read for Decode {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.decoder.read(buffer) {
            // Every decoder asks for more input when a stream has ended, as another one may follow. Had one not
            // done so, the rest of the source would be unread and unchecked.
            Ok(0) if !self.ended.load(Ordering::Relaxed) => {
                Err(ArtifactError::TrailingGarbage { entry: self.entry.clone() }.into_io())
            }
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

/// Notes that the end of the source was seen, and makes sure that an error of the source is known for one behind
/// the decoder.
struct Watched<R> {
    source: R,
    ended: Arc<AtomicBool>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.source.read(buffer) {
            Ok(0) if !buffer.is_empty() => {
                self.ended.store(true, Ordering::Relaxed);
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(ArtifactError::from_io(error).into_io()),
        }
    }
}

fn decoder<R: Read + Send + 'static>(
    compression: Compression,
    input: Input<R>,
    limits: &Limits,
) -> io::Result<Box<dyn Read + Send>> {
    match compression {
        Compression::None => Ok(Box::new(input)),
        Compression::Gzip => gzip_decoder(input),
        Compression::Xz => xz_decoder(input, limits),
        Compression::Zstd => zstd_decoder(input, limits),
    }
}

/// Several gzip members behind each other are one file, as RFC 1952 has it.
#[cfg(feature = "gzip")]
fn gzip_decoder(input: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input)))
}

#[cfg(feature = "xz")]
fn xz_decoder(input: impl BufRead + Send + 'static, limits: &Limits) -> io::Result<Box<dyn Read + Send>> {
    let stream =
        liblzma::stream::Stream::new_stream_decoder(limits.xz_memory_bytes, liblzma::stream::CONCATENATED)
            .map_err(io::Error::other)?;
    Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream)))
}

#[cfg(feature = "zstd")]
fn zstd_decoder(input: impl BufRead + Send + 'static, limits: &Limits) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(limits.zstd_window_log)?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "gzip"))]
fn gzip_decoder(_: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(not(feature = "xz"))]
fn xz_decoder(_: impl BufRead + Send + 'static, _: &Limits) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(not(feature = "zstd"))]
fn zstd_decoder(_: impl BufRead + Send + 'static, _: &Limits) -> io::Result<Box<dyn Read + Send>> {
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
}

/// A compressing writer that has to be finished. There is one at a time, so that its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Encoder<W: Write> {
    None(W),
    #[cfg(feature = "gzip")]
    Gzip(flate2::write::GzEncoder<W>),
    #[cfg(feature = "xz")]
    Xz(liblzma::write::XzEncoder<W>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(out: W, how: CompressionLevel) -> io::Result<Encoder<W>> {
        match how.compression {
            Compression::None => Ok(Encoder::None(out)),
            #[cfg(feature = "gzip")]
            Compression::Gzip => {
                let level = flate2::Compression::new(how.level.clamp(1, 9));
                Ok(Encoder::Gzip(flate2::write::GzEncoder::new(out, level)))
            }
            #[cfg(feature = "xz")]
            Compression::Xz => Ok(Encoder::Xz(liblzma::write::XzEncoder::new(out, how.level.min(9)))),
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let level = i32::try_from(how.level.clamp(1, 19)).unwrap_or(19);
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // The window of `Limits`: level 19 stays within it, long-distance modes would not.
                encoder.window_log(Limits::default().zstd_window_log)?;
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
            Encoder::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.finish(),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.finish(),
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
            Encoder::Zstd(encoder) => encoder.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::None(out) => out.flush(),
            #[cfg(feature = "gzip")]
            Encoder::Gzip(encoder) => encoder.flush(),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.flush(),
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

// They go through all compressions.
#[cfg(test)]
#[cfg(all(feature = "gzip", feature = "xz", feature = "zstd"))]
mod tests {
    use super::*;

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
            for garbage in [&b"x"[..], b"\0", b"garbage behind the end", b"\x1f", b"\x28\xb5\x2f"] {
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
                assert!(!refused.unwrap_err().is_retryable());
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

    #[test]
    fn a_zstd_window_at_the_limit_is_decoded_and_one_past_it_refused() {
        let with_window = |log| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(log).unwrap();
            encoder.include_contentsize(false).unwrap();
            encoder.write_all(&vec![0; 40 << 20]).unwrap();
            encoder.finish().unwrap()
        };
        let limits = Limits::default();
        assert_eq!(open(Compression::Zstd, with_window(23), &limits).unwrap().len(), 40 << 20);
        let refused = open(Compression::Zstd, with_window(24), &limits);
        assert!(matches!(refused, Err(ArtifactError::Decompress { .. })));
    }

    #[test]
    fn an_xz_dictionary_over_the_memory_limit_is_refused() {
        let with_dictionary = |bytes| {
            let mut options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
            options.dict_size(bytes);
            let mut filters = liblzma::stream::Filters::new();
            filters.lzma2(&options);
            let check = liblzma::stream::Check::Crc64;
            let stream = liblzma::stream::Stream::new_stream_encoder(&filters, check).unwrap();
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(b"text").unwrap();
            encoder.finish().unwrap()
        };
        let limits = Limits::default();
        assert_eq!(open(Compression::Xz, with_dictionary(64 << 20), &limits).unwrap(), b"text");
        let refused = open(Compression::Xz, with_dictionary(96 << 20), &limits);
        assert!(matches!(refused, Err(ArtifactError::Decompress { .. })));
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
            let reader = decode(compression, "x", Fails(Cursor::new(half)), &Limits::default());
            let error = reader.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
            assert!(ArtifactError::from_io(error).is_retryable(), "{compression}");
        }
    }
}
