//! The head of the file: which images it is about, what applying it needs, and where its groups lie.

use std::io::{self, Read};

use artifact::Sha256;

use crate::error::DeltaError;
use crate::signed::Signed;
use crate::varint::{self, Bytes};
use crate::{
    BLOCK_BYTES, DECODER_WINDOW_LOG_MAX, GROUP_BYTES_MAX, PLAN_BYTES_MAX, SEGMENT_BYTES_MAX, WINDOW_BYTES_MAX,
};

const MAGIC: &[u8; 7] = b"\x8eRODELT";
const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 32;

/// Most bytes of the head: six thousand groups, for images of up to 90 GiB.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// Magic, version and length, in front of the fields.
const START_BYTES: usize = MAGIC.len() + 1 + 4;

/// What the decoder of a group's compression needs beside its window, rounded up.
const DECODER_BYTES: u64 = 512 * 1024;

/// How often the bytes of a plan are there at most: as they came, and as numbers of fixed length.
const PLAN_COPIES: u64 = 5;

/// What a group of the head takes, as it came and as numbers of fixed length.
const GROUP_COPIES: u64 = 112;

/// An image: one of the two that a delta is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256,
}

impl Image {
    /// Blocks, the last one perhaps not full.
    pub(crate) fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES)
    }
}

/// How the groups are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A zstd frame each.
    Zstd,
    /// An xz stream each.
    Xz,
}

impl Compression {
    fn number(self) -> u64 {
        match self {
            Compression::Zstd => 1,
            Compression::Xz => 2,
        }
    }

    fn of_number(found: u64) -> Result<Compression, DeltaError> {
        [Compression::Zstd, Compression::Xz]
            .into_iter()
            .find(|compression| compression.number() == found && compression.is_built_in())
            .ok_or(DeltaError::Compression { found })
    }

    fn is_built_in(self) -> bool {
        match self {
            Compression::Zstd => cfg!(feature = "zstd"),
            Compression::Xz => cfg!(feature = "xz"),
        }
    }
}

/// What the largest segment and the decoder need: the buffers that a device sets aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of the new image in the largest segment.
    pub segment_bytes: u32,
    /// Bytes of the old image in the largest window.
    pub window_bytes: u32,
    /// Bytes of the longest plan.
    pub plan_bytes: u32,
    /// Window or dictionary of the compression, as a power of two.
    pub decoder_window_log: u8,
}

impl Needs {
    /// What serves both.
    #[must_use]
    pub fn max(self, other: Needs) -> Needs {
        Needs {
            segment_bytes: self.segment_bytes.max(other.segment_bytes),
            window_bytes: self.window_bytes.max(other.window_bytes),
            plan_bytes: self.plan_bytes.max(other.plan_bytes),
            decoder_window_log: self.decoder_window_log.max(other.decoder_window_log),
        }
    }

    fn check(&self) -> Result<(), DeltaError> {
        let log_max = u32::from(DECODER_WINDOW_LOG_MAX);
        let all = [
            ("bytes in a segment", self.segment_bytes, SEGMENT_BYTES_MAX),
            ("bytes in a window", self.window_bytes, WINDOW_BYTES_MAX),
            ("bytes in a plan", self.plan_bytes, PLAN_BYTES_MAX),
            ("bits of a decoder's window", u32::from(self.decoder_window_log), log_max),
        ];
        match all.into_iter().find(|(_, need, limit)| need > limit) {
            Some((what, need, limit)) => {
                Err(DeltaError::TooLarge { what, need: need.into(), limit: limit.into() })
            }
            None => Ok(()),
        }
    }
}

/// What the fields of a segment are relative to, and bounded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Length of the old image.
    pub source_bytes: u64,
    /// Length of the new image.
    pub target_bytes: u64,
}

/// A group: segments that are compressed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// How many segments.
    pub segments: u32,
    /// How many blocks of the new image they make, the last one perhaps not full.
    pub blocks: u64,
    /// Bytes in the file.
    pub stored_bytes: u64,
    /// Of the new image from its start to the end of this group.
    pub sha256: Sha256,
}

/// The head of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How all groups are compressed.
    pub compression: Compression,
    /// What applying needs.
    pub needs: Needs,
    /// The old image.
    pub source: Image,
    /// The new image.
    pub target: Image,
    /// All groups, in the order of the new image and of the file.
    pub groups: Vec<Group>,
}

impl Head {
    /// Reads the head, and no byte behind it. What it gives has been checked against itself.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn read(input: &mut dyn Read) -> Result<Head, DeltaError> {
        let mut start = [0; START_BYTES];
        read_exact(input, &mut start)?;
        let mut fields = Bytes(&start);
        if fields.array() != Some(*MAGIC) {
            return Err(DeltaError::NotADelta);
        }
        match fields.array() {
            Some([VERSION]) => {}
            Some([found]) => return Err(DeltaError::Version { found }),
            None => return Err(DeltaError::Truncated),
        }
        let length = fields.array().map_or(0, u32::from_le_bytes);
        if length as usize > HEAD_BYTES_MAX - START_BYTES - DIGEST_BYTES {
            let (need, limit) = (length.into(), HEAD_BYTES_MAX as u64);
            return Err(DeltaError::TooLarge { what: "bytes in its head", need, limit });
        }
        let mut head = start.to_vec();
        head.resize(START_BYTES + length as usize + DIGEST_BYTES, 0);
        read_exact(input, head.get_mut(START_BYTES..).unwrap_or_default())?;
        let (said, digest) = head.split_at(START_BYTES + length as usize);
        if Sha256::of(said).as_bytes() != digest {
            return Err(DeltaError::HeadDigest);
        }
        let head = Head::parse(said.get(START_BYTES..).unwrap_or_default())?;
        head.check()?;
        Ok(head)
    }

    fn parse(fields: &[u8]) -> Result<Head, DeltaError> {
        let mut fields = Bytes(fields);
        let field = |what| DeltaError::Head { what };
        let number = |fields: &mut Bytes<'_>, what| fields.number32().ok_or(field(what));
        let compression = Compression::of_number(fields.number().ok_or(field("its compression"))?)?;
        let segment_bytes = number(&mut fields, "its segments")?;
        let window_bytes = number(&mut fields, "its windows")?;
        let plan_bytes = number(&mut fields, "its plans")?;
        let log = fields.number().and_then(|log| log.try_into().ok());
        let decoder_window_log = log.ok_or(field("the window of its decoder"))?;
        let needs = Needs { segment_bytes, window_bytes, plan_bytes, decoder_window_log };
        let source = image(&mut fields).ok_or(field("its old image"))?;
        let target = image(&mut fields).ok_or(field("its new image"))?;
        let count = fields.count(DIGEST_BYTES + 3).ok_or(field("the number of its groups"))?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(group(&mut fields).ok_or(field("one of its groups"))?);
        }
        match fields.0.is_empty() {
            true => Ok(Head { compression, needs, source, target, groups }),
            false => Err(field("there are bytes behind its groups")),
        }
    }

    /// The head as it stands in front of the groups.
    ///
    /// # Errors
    /// As for [`Head::read`]: what would be refused is not written.
    pub fn encode(&self) -> Result<Vec<u8>, DeltaError> {
        self.check()?;
        let head = self.encode_unchecked();
        match head.len() <= HEAD_BYTES_MAX {
            true => Ok(head),
            false => {
                let (need, limit) = (head.len() as u64, HEAD_BYTES_MAX as u64);
                Err(DeltaError::TooLarge { what: "bytes in its head", need, limit })
            }
        }
    }

    /// Whatever it says.
    pub(crate) fn encode_unchecked(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        varint::put(&mut fields, self.compression.number());
        for number in [self.needs.segment_bytes, self.needs.window_bytes, self.needs.plan_bytes] {
            varint::put(&mut fields, number.into());
        }
        varint::put(&mut fields, self.needs.decoder_window_log.into());
        for image in [&self.source, &self.target] {
            varint::put(&mut fields, image.bytes);
            fields.extend(image.sha256.as_bytes());
        }
        varint::put(&mut fields, self.groups.len() as u64);
        for group in &self.groups {
            varint::put(&mut fields, group.segments.into());
            varint::put(&mut fields, group.blocks);
            varint::put(&mut fields, group.stored_bytes);
            fields.extend(group.sha256.as_bytes());
        }
        let length = u32::try_from(fields.len()).unwrap_or(u32::MAX);
        let mut head = [&MAGIC[..], &[VERSION], &length.to_le_bytes(), &fields].concat();
        head.extend(Sha256::of(&head).as_bytes());
        head
    }

    /// Bytes of the head in the file: where the first group begins.
    ///
    /// # Errors
    /// As for [`Head::encode`].
    pub fn stored_bytes(&self) -> Result<u64, DeltaError> {
        Ok(self.encode()?.len() as u64)
    }

    /// What an [`Applier`](crate::Applier) allocates at most, its decoder and this head included.
    pub fn memory_bytes(&self) -> u64 {
        let needs = &self.needs;
        u64::from(needs.segment_bytes)
            + u64::from(needs.window_bytes)
            + PLAN_COPIES * u64::from(needs.plan_bytes)
            + (1 << needs.decoder_window_log.min(63))
            + DECODER_BYTES
            + GROUP_COPIES * self.groups.len() as u64
    }

    /// Where in the new image `group` begins: the sum of those before it.
    pub fn target_offset(&self, group: usize) -> u64 {
        let blocks: u64 = self.groups.iter().take(group).map(|group| group.blocks).sum();
        (blocks * BLOCK_BYTES).min(self.target.bytes)
    }

    /// Where `group` begins, counted from the first group's first byte.
    pub fn stored_offset(&self, group: usize) -> u64 {
        self.groups.iter().take(group).map(|group| group.stored_bytes).sum()
    }

    /// Whether the file is about what was signed. `file_bytes` is the length of the file.
    ///
    /// # Errors
    /// [`DeltaError::NotAsSigned`], with what differs.
    pub fn agrees_with(&self, signed: &Signed, file_bytes: u64) -> Result<(), DeltaError> {
        let stored = self.stored_bytes()? + self.stored_offset(self.groups.len());
        let differs = [
            ("the old image", self.source != signed.source),
            ("the new image", self.target != signed.target),
            ("the memory that is needed", self.memory_bytes() != signed.memory_bytes),
            ("the length of the file", file_bytes != signed.transfer_bytes || stored != file_bytes),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(DeltaError::NotAsSigned { what }),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), DeltaError> {
        self.needs.check()?;
        if self.target.bytes == 0 {
            return Err(DeltaError::Head { what: "its new image is empty" });
        }
        let (mut blocks, mut stored) = (0u64, 0u64);
        for group in &self.groups {
            let most = GROUP_BYTES_MAX / BLOCK_BYTES;
            if group.blocks > most {
                return Err(DeltaError::TooLarge {
                    what: "blocks in a group",
                    need: group.blocks,
                    limit: most,
                });
            }
            if group.blocks == 0 || u64::from(group.segments) > group.blocks || group.segments == 0 {
                return Err(DeltaError::Head { what: "a group without segments, or with empty ones" });
            }
            // At most 4,096 blocks a group, and as many groups as the head has room for: no sum comes near 2^64.
            blocks += group.blocks;
            let sum = stored.checked_add(group.stored_bytes).filter(|sum| *sum <= u64::MAX / 2);
            stored = sum.ok_or(DeltaError::Head { what: "its groups are longer than any file" })?;
        }
        if blocks != self.target.blocks() {
            let (said, found) = (self.target.blocks(), blocks);
            return Err(DeltaError::Sum { what: "blocks in its new image", said, found });
        }
        match self.groups.last() {
            Some(last) if last.sha256 != self.target.sha256 => {
                Err(DeltaError::Head { what: "its last group ends with another digest than its new image" })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn image(fields: &mut Bytes<'_>) -> Option<Image> {
    Some(Image { bytes: fields.number()?, sha256: Sha256::from(fields.array::<DIGEST_BYTES>()?) })
}

fn group(fields: &mut Bytes<'_>) -> Option<Group> {
    Some(Group {
        segments: fields.number32()?,
        blocks: fields.number()?,
        stored_bytes: fields.number()?,
        sha256: Sha256::from(fields.array::<DIGEST_BYTES>()?),
    })
}

/// Fills `buffer`, or says what kept it from that.
fn read_exact(input: &mut dyn Read, buffer: &mut [u8]) -> Result<(), DeltaError> {
    input.read_exact(buffer).map_err(|error| {
        // What broke off on its way is not cured by another file, and says so inside.
        let is_end = error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none_or(is_of_std);
        match is_end {
            true => DeltaError::Truncated,
            false => DeltaError::Input(error),
        }
    })
}

fn is_of_std(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    !inner.is::<artifact::ArtifactError>()
}
