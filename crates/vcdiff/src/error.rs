//! Why a delta is refused.

use std::fmt;
use std::io;

/// Why a delta is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The delta could not be read on.
    Delta(io::Error),
    /// The old content could not be read.
    Old {
        /// Where.
        offset: u64,
        /// How much.
        bytes: usize,
        /// Why.
        error: io::Error,
    },
    /// The new content could not be read back.
    New {
        /// Where.
        offset: u64,
        /// How much.
        bytes: usize,
        /// Why.
        error: io::Error,
    },
    /// It does not begin as a delta of this kind does.
    NotVcdiff,
    /// It needs what this decoder does not have.
    Unsupported(Unsupported),
    /// Something in it is larger than is allowed.
    TooLarge {
        /// What it is.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A window contradicts itself.
    Damaged {
        /// Which window, from 0.
        window: u64,
        /// What is wrong.
        fault: Fault,
    },
    /// The content of a window has another checksum than the delta says: the old content is not the one that the delta was made
    /// from, or the delta is damaged.
    Checksum {
        /// Which window, from 0.
        window: u64,
    },
}

/// What a delta may ask for that this decoder does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsupported {
    /// Another version of the format.
    Version(u8),
    /// Bits of the header that nobody has defined.
    HeaderBits(u8),
    /// A code table of its own.
    CodeTable,
    /// Sections compressed with FGK.
    Fgk,
    /// Sections compressed with LZMA, which this build was made without.
    Lzma,
    /// Sections compressed with something that nobody knows.
    Compression(u8),
    /// Bits of a window that nobody has defined.
    WindowBits(u8),
    /// Bits of a window's delta that nobody has defined.
    DeltaBits(u8),
}

/// What may be wrong with a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The delta ends in it.
    Cut,
    /// A number is longer than any that can be meant.
    Number,
    /// Its lengths contradict each other.
    Lengths,
    /// It copies from old and new content at once.
    TwoSources,
    /// It copies from outside of the old content.
    OutsideOfOld,
    /// It copies from new content that is not there yet.
    OutsideOfNew,
    /// It has no compressed section that is announced, or one that is not.
    NotCompressed,
    /// A section is not compressed as it says, or to another length.
    Compression,
    /// Its instructions end too early.
    Instructions,
    /// Its data ends too early.
    Data,
    /// Its addresses end too early.
    Addresses,
    /// An address is not before the place it is copied to.
    Address,
    /// Its instructions make more than it has room for.
    TooMuch,
    /// Its instructions make less than it says.
    TooLittle,
    /// Data, instructions or addresses are left over.
    LeftOver,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Delta(error) => write!(out, "cannot read the delta: {error}"),
            Error::Old { offset, bytes, error } => {
                write!(out, "cannot read {bytes} bytes of the old content at {offset}: {error}")
            }
            Error::New { offset, bytes, error } => {
                write!(out, "cannot read {bytes} bytes of the new content at {offset} back: {error}")
            }
            Error::NotVcdiff => out.write_str("it is no VCDIFF delta"),
            Error::Unsupported(what) => write!(out, "the delta needs {what}, which is not supported"),
            Error::TooLarge { what, limit } => {
                write!(out, "{what} of the delta is larger than the {limit} bytes that are allowed")
            }
            Error::Damaged { window, fault } => write!(out, "window {window} of the delta: {fault}"),
            Error::Checksum { window } => write!(
                out,
                "window {window} has another checksum than the delta says: the old content is not what it was made from"
            ),
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unsupported::Version(version) => write!(out, "version {version} of the format"),
            Unsupported::HeaderBits(bits) => write!(out, "header bits {bits:#x}"),
            Unsupported::CodeTable => out.write_str("a code table of its own"),
            Unsupported::Fgk => out.write_str("the compression FGK"),
            Unsupported::Lzma => out.write_str("the compression LZMA"),
            Unsupported::Compression(id) => write!(out, "a compression of number {id}"),
            Unsupported::WindowBits(bits) => write!(out, "window bits {bits:#x}"),
            Unsupported::DeltaBits(bits) => write!(out, "delta bits {bits:#x}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Fault::Cut => "the delta ends in it",
            Fault::Number => "a number is too large",
            Fault::Lengths => "its lengths contradict each other",
            Fault::TwoSources => "it copies from old and new content at once",
            Fault::OutsideOfOld => "it copies from outside of the old content",
            Fault::OutsideOfNew => "it copies from new content that is not there yet",
            Fault::NotCompressed => "a section is called compressed where nothing is",
            Fault::Compression => "a section is not compressed as it says",
            Fault::Instructions => "its instructions end too early",
            Fault::Data => "its data ends too early",
            Fault::Addresses => "its addresses end too early",
            Fault::Address => "a copy is from a place that is not there yet",
            Fault::TooMuch => "it makes more than it has room for",
            Fault::TooLittle => "it makes less than it says",
            Fault::LeftOver => "something of it is left over",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Delta(error) | Error::Old { error, .. } | Error::New { error, .. } => Some(error),
            Error::NotVcdiff
            | Error::Unsupported(_)
            | Error::TooLarge { .. }
            | Error::Damaged { .. }
            | Error::Checksum { .. } => None,
        }
    }
}
