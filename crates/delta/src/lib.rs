//! The difference between two images as a file: what one says, writing one, and applying one in constant memory.
//!
//! It opens nothing. The old image comes through [`Source`], the file through [`BufRead`](std::io::BufRead), and the new
//! image leaves as slices, each proved before anybody sees it. It finds no differences either: whoever makes a file brings
//! [`Segment`]s. `docs/delta.md` describes every byte.
//!
//! ```text
//! head                      group 0               group 1
//! images, needs, groups  │  one compressed frame │  one compressed frame │ ...
//!                           segment, segment ...
//!                           └ plan │ difference │ new bytes
//! ```
//!
//! - [`Signed`] is what the signed header of the artifact says; [`Head`] what the file says, which has to agree.
//! - [`Applier`] makes the new image, a [`Segment`] at a time, and can begin at any group.
//! - [`GroupEncoder`] writes the segments of one group, [`Head::encode`] the head in front of them.

#![forbid(unsafe_code)]

mod apply;
mod encode;
mod error;
mod frame;
mod head;
mod plan;
mod signed;
#[cfg(test)]
#[cfg(all(feature = "xz", feature = "zstd"))] // They go through both.
mod tests;
mod varint;

pub use apply::{Applied, Applier, Prefix, Source};
pub use encode::{Coder, EncodeError, GroupEncoder, Segment, ZeroRuns};
pub use error::{DeltaError, SegmentProblem};
pub use head::{Compression, Group, HEAD_BYTES_MAX, Head, Image, Needs, Shape};
pub use plan::{Control, Extent, PLAN_BYTES_MAX, Run};
pub use signed::{Signed, SignedError};

/// The type of a payload that is a delta.
pub const PAYLOAD_TYPE: &str = "rust-ota-delta";

/// Runs and extents are counted in blocks of this many bytes, as file systems place their files.
pub const BLOCK_BYTES: u64 = 4096;

/// Most bytes of the new image in a segment: one buffer on the device.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 20;

/// Most bytes of the old image in front of a segment: another one.
pub const WINDOW_BYTES_MAX: u32 = 2 << 20;

/// Most bytes of the new image in a group, where decoding can begin again.
pub const GROUP_BYTES_MAX: u64 = 16 << 20;

/// The largest window or dictionary of a group's compression, as a power of two.
pub const DECODER_WINDOW_LOG_MAX: u8 = 21;

/// What [`Head::memory_bytes`] may come to on a device that was told nothing else.
pub const MEMORY_BYTES_MAX: u64 = 6 << 20;
