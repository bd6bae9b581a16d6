//! Why a delta is refused: a name for each reason, and where in the new image it was found.

use std::fmt;
use std::io;

/// Why a delta cannot be applied. Nothing that was given out before is worth anything then.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeltaError {
    /// The file could not be read.
    Input(io::Error),
    /// The old image could not be read.
    Source {
        /// Byte offset in it.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The file ends too early.
    Truncated,
    /// The file is something else.
    NotADelta,
    /// A version that this program does not know.
    Version {
        /// The version.
        found: u8,
    },
    /// A compression that does not exist, or was not built in.
    Compression {
        /// Its number in the file.
        found: u64,
    },
    /// The head is not what its own digest says.
    HeadDigest,
    /// The head has something that no head can have.
    Head {
        /// What.
        what: &'static str,
    },
    /// Something is larger than it may be.
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it is.
        need: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Numbers of the head that have to agree do not.
    Sum {
        /// Of what.
        what: &'static str,
        /// What the head says.
        said: u64,
        /// What it comes to.
        found: u64,
    },
    /// The file says something else than the signed header.
    NotAsSigned {
        /// About what.
        what: &'static str,
    },
    /// There is more in the file than the last group.
    TrailingBytes,
    /// There is more in a group than its segments.
    GroupTooLong {
        /// Which group.
        group: usize,
    },
    /// A group holds less than its segments need.
    GroupTooShort {
        /// Which group.
        group: usize,
    },
    /// The compressed data of a group is damaged, or asks for more memory than was promised.
    Decompress {
        /// Which group.
        group: usize,
        /// What the decoder says.
        source: io::Error,
    },
    /// A segment says something impossible.
    Segment {
        /// Where in the new image it begins.
        at: u64,
        /// What it says.
        problem: SegmentProblem,
    },
    /// The old blocks that a segment builds on are not those that the delta was made from.
    SourceDiffers {
        /// Where in the new image the segment begins.
        at: u64,
    },
    /// What a segment came to is not what it has to be.
    SegmentDiffers {
        /// Where in the new image it begins.
        at: u64,
    },
    /// The part of the new image that is said to be there is not.
    PrefixDiffers {
        /// Its length.
        bytes: u64,
    },
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeltaError::Input(error) => error.fmt(f),
            DeltaError::Source { offset, source } => {
                write!(f, "cannot read the old image at byte {offset}: {source}")
            }
            DeltaError::Truncated => f.write_str("the delta ends too early"),
            DeltaError::NotADelta => f.write_str("the file is no delta"),
            DeltaError::Version { found } => write!(f, "the delta is of version {found}, which is not known"),
            DeltaError::Compression { found } => {
                write!(f, "the delta is compressed in a way (number {found}) that is not built in")
            }
            DeltaError::HeadDigest => f.write_str("the head of the delta does not have its digest"),
            DeltaError::Head { what } => write!(f, "the head of the delta is wrong: {what}"),
            DeltaError::TooLarge { what, need, limit } => {
                write!(f, "the delta asks for {need} {what}, and {limit} are allowed")
            }
            DeltaError::Sum { what, said, found } => {
                write!(f, "the delta says that it has {said} {what}, and they come to {found}")
            }
            DeltaError::NotAsSigned { what } => {
                write!(f, "the delta and its signed header do not agree about {what}")
            }
            DeltaError::TrailingBytes => f.write_str("there are bytes behind the delta"),
            DeltaError::GroupTooLong { group } => {
                write!(f, "group {group} of the delta holds more than its segments")
            }
            DeltaError::GroupTooShort { group } => {
                write!(f, "group {group} of the delta ends before its segments do")
            }
            DeltaError::Decompress { group, source } => {
                write!(f, "group {group} of the delta cannot be decompressed: {source}")
            }
            DeltaError::Segment { at, problem } => {
                write!(f, "the delta's segment at byte {at} of the image is wrong: {problem}")
            }
            DeltaError::SourceDiffers { at } => write!(
                f,
                "the old blocks for byte {at} of the image are not those that the delta was made from"
            ),
            DeltaError::SegmentDiffers { at } => {
                write!(f, "what the delta makes at byte {at} of the image does not have its digest")
            }
            DeltaError::PrefixDiffers { bytes } => {
                write!(f, "the first {bytes} bytes of the image are not those that were written before")
            }
        }
    }
}

impl std::error::Error for DeltaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DeltaError::Input(error) => error.source(),
            DeltaError::Source { source, .. } | DeltaError::Decompress { source, .. } => Some(source),
            DeltaError::Truncated
            | DeltaError::NotADelta
            | DeltaError::Version { .. }
            | DeltaError::Compression { .. }
            | DeltaError::HeadDigest
            | DeltaError::Head { .. }
            | DeltaError::TooLarge { .. }
            | DeltaError::Sum { .. }
            | DeltaError::NotAsSigned { .. }
            | DeltaError::TrailingBytes
            | DeltaError::GroupTooLong { .. }
            | DeltaError::GroupTooShort { .. }
            | DeltaError::Segment { .. }
            | DeltaError::SourceDiffers { .. }
            | DeltaError::SegmentDiffers { .. }
            | DeltaError::PrefixDiffers { .. } => None,
        }
    }
}

/// What is wrong with one segment. The same rules hold for who writes one and for who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentProblem {
    /// The plan is no sequence of fields, or has bytes left.
    Malformed,
    /// The plan is longer than may be.
    PlanTooLong {
        /// Bytes.
        bytes: u64,
    },
    /// There are no runs, or one of them is empty.
    EmptyRun,
    /// The runs make more than a segment may have.
    TooManyBlocks {
        /// Blocks.
        blocks: u64,
    },
    /// The runs reach past the end of the new image, or of the group.
    BeyondTarget,
    /// A run copies from behind the end of the old image.
    CopyOutside {
        /// First block of the old image.
        first_block: u64,
        /// Number of blocks.
        blocks: u64,
    },
    /// An extent is empty.
    EmptyExtent,
    /// An extent reaches past the end of the old image.
    ExtentOutside {
        /// First block of the old image.
        first_block: u64,
        /// Number of blocks.
        blocks: u64,
    },
    /// Two extents have a block in common.
    ExtentsOverlap {
        /// That block of the old image.
        block: u64,
    },
    /// The extents are together more than a window may have.
    WindowTooLarge {
        /// Bytes.
        bytes: u64,
    },
    /// There is a window or there are streams, and nothing that is made of them.
    NothingCoded,
    /// A step takes and inserts nothing.
    EmptyStep,
    /// A step takes bytes from outside of the window.
    StepOutside {
        /// Which step.
        step: usize,
    },
    /// The steps do not make as many bytes as the runs need.
    StepsDisagree {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are made.
        made: u64,
    },
    /// The lengths of a stream do not agree with what is there.
    StreamDisagrees {
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// A way of coding the difference that does not exist.
    UnknownCoding {
        /// Its number.
        found: u8,
    },
    /// The runs of the difference are not in order, or longer than it.
    DifferenceRuns,
}

impl fmt::Display for SegmentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SegmentProblem::Malformed => f.write_str("its plan cannot be understood"),
            SegmentProblem::PlanTooLong { bytes } => write!(f, "its plan of {bytes} bytes is too long"),
            SegmentProblem::EmptyRun => f.write_str("it has an empty run, or none"),
            SegmentProblem::TooManyBlocks { blocks } => {
                write!(f, "it has {blocks} blocks, more than was promised")
            }
            SegmentProblem::BeyondTarget => {
                f.write_str("it reaches past the end of the image or of its group")
            }
            SegmentProblem::CopyOutside { first_block, blocks } => {
                write!(f, "it copies {blocks} blocks from block {first_block}, past the end of the old image")
            }
            SegmentProblem::EmptyExtent => f.write_str("it has an empty extent"),
            SegmentProblem::ExtentOutside { first_block, blocks } => {
                write!(f, "its extent of {blocks} blocks from block {first_block} ends behind the old image")
            }
            SegmentProblem::ExtentsOverlap { block } => {
                write!(f, "two of its extents have block {block} in common")
            }
            SegmentProblem::WindowTooLarge { bytes } => {
                write!(f, "its extents have {bytes} bytes, more than was promised")
            }
            SegmentProblem::NothingCoded => f.write_str("it has a window or steps, and no coded blocks"),
            SegmentProblem::EmptyStep => f.write_str("it has a step that makes nothing"),
            SegmentProblem::StepOutside { step } => {
                write!(f, "its step {step} takes bytes from outside of its extents")
            }
            SegmentProblem::StepsDisagree { need, made } => {
                write!(f, "its steps make {made} bytes, and its coded blocks have {need}")
            }
            SegmentProblem::StreamDisagrees { need, have } => {
                write!(f, "a stream has {have} bytes, and its steps need {need}")
            }
            SegmentProblem::UnknownCoding { found } => {
                write!(f, "its difference is coded in a way (number {found}) that is not known")
            }
            SegmentProblem::DifferenceRuns => f.write_str("the runs of its difference are wrong"),
        }
    }
}

impl std::error::Error for SegmentProblem {}
