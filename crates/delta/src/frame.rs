//! The compressed frame of one group, in both directions. Decoding gives out as many bytes as are asked for and no more,
//! in memory that was declared.

// A build without both can apply nothing, and has to compile.
#![cfg_attr(not(any(feature = "xz", feature = "zstd")), allow(unused))]

use std::io::{self, BufRead, Write};

use crate::error::DeltaError;
use crate::head::Compression;

/// What the library of xz needs beside its dictionary.
#[cfg(feature = "xz")]
const XZ_DECODER_BYTES: u64 = 512 * 1024;

/// One step of a decoder.
struct Step {
    taken: usize,
    given: usize,
    ended: bool,
}

enum Decoder {
    #[cfg(feature = "zstd")]
    Zstd(zstd::zstd_safe::DCtx<'static>),
    #[cfg(feature = "xz")]
    Xz(liblzma::stream::Stream),
}

impl Decoder {
    fn new(compression: Compression, window_log: u8) -> io::Result<Decoder> {
        match compression {
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                use zstd::zstd_safe::{DCtx, DParameter};
                let mut context =
                    DCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
                let log = u32::from(window_log).clamp(10, 31);
                context.set_parameter(DParameter::WindowLogMax(log)).map_err(|_| damaged())?;
                Ok(Decoder::Zstd(context))
            }
            #[cfg(feature = "xz")]
            Compression::Xz => {
                let memory = (1u64 << window_log.min(62)) + XZ_DECODER_BYTES;
                liblzma::stream::Stream::new_stream_decoder(memory, 0)
                    .map(Decoder::Xz)
                    .map_err(io::Error::other)
            }
            #[allow(unreachable_patterns)] // Reached in builds without one of the features.
            Compression::Zstd | Compression::Xz => {
                let _ = window_log;
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> io::Result<Step> {
        match self {
            #[cfg(feature = "zstd")]
            Decoder::Zstd(context) => {
                use zstd::zstd_safe::{InBuffer, OutBuffer};
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
                // The library returns the negated code of an error.
                let hint = context.decompress_stream(&mut to, &mut from).map_err(|returned| match 0usize
                    .wrapping_sub(returned)
                {
                    16 => too_much_memory(),
                    64 => io::ErrorKind::OutOfMemory.into(),
                    _ => damaged(),
                })?;
                Ok(Step { taken: from.pos(), given: to.pos(), ended: hint == 0 })
            }
            #[cfg(feature = "xz")]
            Decoder::Xz(stream) => {
                use liblzma::stream::{Action, Error, Status};
                let before = (stream.total_in(), stream.total_out());
                let words = |error| match error {
                    Error::MemLimit => too_much_memory(),
                    Error::Mem => io::ErrorKind::OutOfMemory.into(),
                    Error::Data
                    | Error::Options
                    | Error::Format
                    | Error::Program
                    | Error::NoCheck
                    | Error::UnsupportedCheck => damaged(),
                };
                let status = stream.process(input, output, Action::Run).map_err(words)?;
                let taken = usize::try_from(stream.total_in() - before.0).unwrap_or(0);
                let given = usize::try_from(stream.total_out() - before.1).unwrap_or(0);
                Ok(Step { taken, given, ended: matches!(status, Status::StreamEnd) })
            }
            #[allow(unreachable_patterns)] // Reached in builds without both features.
            _ => Err(damaged()),
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the data is damaged")
}

fn too_much_memory() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it needs a larger window than was promised")
}

/// Decodes the frame of one group from the next bytes of a file.
pub(crate) struct Frame {
    decoder: Decoder,
    group: usize,
    /// Bytes of the frame that were not taken yet.
    stored_left: u64,
    ended: bool,
}

impl Frame {
    pub(crate) fn new(
        compression: Compression,
        window_log: u8,
        group: usize,
        stored_bytes: u64,
    ) -> Result<Frame, DeltaError> {
        let decoder = Decoder::new(compression, window_log)
            .map_err(|source| DeltaError::Decompress { group, source })?;
        Ok(Frame { decoder, group, stored_left: stored_bytes, ended: false })
    }

    /// Fills `output`.
    pub(crate) fn read_exact(
        &mut self,
        input: &mut dyn BufRead,
        output: &mut [u8],
    ) -> Result<(), DeltaError> {
        let mut filled = 0;
        while filled < output.len() {
            filled += self.read(input, output.get_mut(filled..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// At least one byte.
    fn read(&mut self, input: &mut dyn BufRead, output: &mut [u8]) -> Result<usize, DeltaError> {
        loop {
            if self.ended {
                return Err(DeltaError::GroupTooShort { group: self.group });
            }
            let given = self.step(input, output)?;
            if given > 0 {
                return Ok(given);
            }
        }
    }

    /// The frame has to end here, and with it what the file has of it.
    pub(crate) fn finish(&mut self, input: &mut dyn BufRead) -> Result<(), DeltaError> {
        while !self.ended {
            if self.step(input, &mut [0])? > 0 {
                return Err(DeltaError::GroupTooLong { group: self.group });
            }
        }
        match self.stored_left {
            0 => Ok(()),
            _ => Err(DeltaError::GroupTooLong { group: self.group }),
        }
    }

    /// Takes some of the frame and gives what it comes to. Every call takes or gives something, or fails.
    fn step(&mut self, input: &mut dyn BufRead, output: &mut [u8]) -> Result<usize, DeltaError> {
        let available = match self.stored_left {
            // What the decoder still holds.
            0 => &[],
            left => {
                let available = fill(input)?;
                if available.is_empty() {
                    return Err(DeltaError::Truncated);
                }
                available.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(available)
            }
        };
        let group = self.group;
        let Step { taken, given, ended } = self
            .decoder
            .step(available, output)
            .map_err(|source| DeltaError::Decompress { group, source })?;
        input.consume(taken);
        self.stored_left -= taken as u64;
        self.ended = ended;
        match taken == 0 && given == 0 && !ended {
            true if self.stored_left == 0 => Err(DeltaError::GroupTooShort { group }),
            true => Err(DeltaError::Decompress { group, source: damaged() }),
            false => Ok(given),
        }
    }
}

/// What the file has next; nothing at its end.
pub(crate) fn fill(input: &mut dyn BufRead) -> Result<&[u8], DeltaError> {
    // Asked twice, because the borrow of the first answer would last through the loop.
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(DeltaError::Input(error)),
        }
    }
    input.fill_buf().map_err(DeltaError::Input)
}

/// Encodes the frame of one group.
pub(crate) enum Encoder {
    #[cfg(feature = "zstd")]
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    #[cfg(feature = "xz")]
    Xz(liblzma::write::XzEncoder<Vec<u8>>),
}

impl Encoder {
    /// `level` in the compression's own scale.
    pub(crate) fn new(compression: Compression, level: u32, window_log: u8) -> io::Result<Encoder> {
        match compression {
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level.clamp(1, 22) as i32)?;
                // Every segment has a digest.
                encoder.include_checksum(false)?;
                encoder.window_log(window_log.into())?;
                Ok(Encoder::Zstd(encoder))
            }
            #[cfg(feature = "xz")]
            Compression::Xz => {
                use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
                let mut options = LzmaOptions::new_preset(level).map_err(io::Error::other)?;
                options.dict_size(1 << window_log.min(31));
                let mut filters = Filters::new();
                filters.lzma2(&options);
                let stream = Stream::new_stream_encoder(&filters, Check::None).map_err(io::Error::other)?;
                Ok(Encoder::Xz(liblzma::write::XzEncoder::new_stream(Vec::new(), stream)))
            }
            #[allow(unreachable_patterns)] // Reached in builds without one of the features.
            Compression::Zstd | Compression::Xz => {
                let _ = (level, window_log);
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.write_all(bytes),
            #[allow(unreachable_patterns)] // Reached in builds without both features.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Ends a block, so that what follows has statistics of its own.
    pub(crate) fn end_block(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.flush(),
            // What follows adapts by itself, and a block would cost its state.
            #[cfg(feature = "xz")]
            Encoder::Xz(_) => Ok(()),
            #[allow(unreachable_patterns)] // Reached in builds without both features.
            _ => Ok(()),
        }
    }

    /// Bytes that have come out so far.
    pub(crate) fn stored_bytes(&self) -> u64 {
        match self {
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.get_ref().len() as u64,
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.get_ref().len() as u64,
            #[allow(unreachable_patterns)] // Reached in builds without both features.
            _ => 0,
        }
    }

    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            #[cfg(feature = "zstd")]
            Encoder::Zstd(encoder) => encoder.finish(),
            #[cfg(feature = "xz")]
            Encoder::Xz(encoder) => encoder.finish(),
            #[allow(unreachable_patterns)] // Reached in builds without both features.
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}
