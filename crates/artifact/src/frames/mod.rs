//! The frame table: what the independent frames of a payload hold, so that a device fetches only those that it needs.
//!
//! The data member is a row of zstd frames that can be decompressed one by one: one with the tar header, then those of the
//! image, each with whole blocks of it, then one with the end of the archive. Behind them is a skippable frame (RFC 8878,
//! 3.1.2), which every reader passes over. In it lies the table. The signed header holds the table's SHA-256, its length
//! and the length of a block, so that nothing of a table is believed that was not signed.
//!
//! A block has a digest of five bytes: enough to find it in another image, where a block that only seems to be the same
//! costs a frame that is fetched after all. A frame has one of sixteen bytes, which decides whether what was put together
//! is used. What the slot holds in the end is proved by the SHA-256 of the whole image in the signed manifest, as ever.
//! `docs/frames.md` has the format in bytes.
//!
//! [`Found`] says what of an image there is already, and what has to be fetched. It fetches nothing.

mod plan;

pub use plan::{Found, Place};

use crate::error::ArtifactError;
use crate::sha256::Sha256;
use crate::write::ROOTFS_IMAGE;
use crate::{Compression, Header, Member};
use sha2::Digest;
use std::io;

/// What the signed header says about the table: the key in `meta-data`, and in the object there.
pub(crate) const META_DATA_KEY: &str = "rust_ota";
pub(crate) const FRAMES: &str = "frames";
pub(crate) const ROOT: &str = "root";
pub(crate) const TABLE_BYTES: &str = "table_bytes";
/// The magic number of the skippable frame. Readers pass over all sixteen; the seekable format of zstd's own tools ends in
/// another one.
#[cfg(feature = "zstd")]
pub(crate) const SKIPPABLE: [u8; 4] = [0x5d, 0x2a, 0x4d, 0x18];
/// In front of the table: the magic number and the length.
pub(crate) const SKIPPABLE_HEADER: usize = 8;
pub(crate) const MAGIC: &[u8; 8] = b"rotafrm1";
pub(crate) const HEAD_BYTES: usize = 24;
pub(crate) const FRAME_ENTRY_BYTES: usize = 22;
/// In the compressed length: the frame holds zeros only, and its blocks have no digests.
pub(crate) const ZEROS: u32 = 1 << 31;

/// Bytes of the digest of a block.
pub const BLOCK_DIGEST_BYTES: usize = 5;
/// Bytes of the digest of a frame.
pub const FRAME_DIGEST_BYTES: usize = 16;
/// Most bytes of the image in a frame that is not all zeros: it is in memory as a whole, twice where it is compressed.
pub const FRAME_BYTES_MAX: u64 = 2 << 20;
/// Most blocks of an image: larger images have larger blocks.
pub const BLOCKS_MAX: u64 = 1 << 19;
/// Most frames of an image.
pub const FRAMES_MAX: u32 = 1 << 16;
/// Longest table that these allow.
pub const TABLE_BYTES_MAX: u64 =
    HEAD_BYTES as u64 + FRAMES_MAX as u64 * FRAME_ENTRY_BYTES as u64 + BLOCKS_MAX * BLOCK_DIGEST_BYTES as u64;
/// Block sizes, as powers of two: from the smallest of ext4 to the largest page.
pub(crate) const BLOCK_LOGS: std::ops::RangeInclusive<u8> = 10..=16;

/// What the signed header says about the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramesInfo {
    /// Of the table.
    pub root: Sha256,
    /// Bytes of the table. It ends where the data member does.
    pub table_bytes: u64,
}

impl FramesInfo {
    /// What `header` says; `None` where the payload has no frames, or where what is said is of another version or makes
    /// no sense: such an artifact is an ordinary one.
    pub fn of(header: &Header) -> Option<FramesInfo> {
        let payload = header.payload.as_ref()?;
        if payload.payload_type != ROOTFS_IMAGE || header.data_compression != Some(Compression::Zstd) {
            return None;
        }
        let value: serde_json::Value = serde_json::from_str(payload.meta_data.as_deref()?).ok()?;
        let said = value.get(META_DATA_KEY)?;
        if said.get(FRAMES)?.as_u64()? != 1 {
            return None;
        }
        let table_bytes = said.get(TABLE_BYTES)?.as_u64()?;
        let root = said.get(ROOT)?.as_str()?.parse().ok()?;
        (table_bytes <= TABLE_BYTES_MAX).then_some(FramesInfo { root, table_bytes })
    }
}

impl FramesInfo {
    /// The table, out of the `member` that has it at its end, for an image of `image_bytes`.
    ///
    /// # Errors
    /// When it cannot be read; with a [`TableProblem`] inside, where it is no table of this member and image.
    pub fn table(&self, member: &Member, image_bytes: u64) -> io::Result<FrameTable> {
        let length = member.len();
        let start =
            length.checked_sub(self.table_bytes).ok_or_else(|| io::Error::other(TableProblem::Member))?;
        // Its length is bounded by what a header may say.
        let mut bytes = vec![0; usize::try_from(self.table_bytes).map_err(io::Error::other)?];
        member.read_at(start, &mut bytes)?;
        FrameTable::parse(bytes, self.root, image_bytes, length).map_err(io::Error::other)
    }
}

/// Why a table is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableProblem {
    /// It is not what was signed.
    Root,
    /// It does not begin as a table, or is of another version.
    Magic,
    /// It is not as long as what it says it holds.
    Length,
    /// A number that no table may have.
    Number(&'static str),
    /// The frames do not hold exactly the image.
    Image,
    /// The frames are not exactly what lies in front of the table.
    Member,
}

impl std::fmt::Display for TableProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TableProblem::Root => f.write_str("the frame table is not the one that was signed"),
            TableProblem::Magic => f.write_str("no frame table, or one of another version"),
            TableProblem::Length => f.write_str("the frame table has another length than its content"),
            TableProblem::Number(what) => write!(f, "the frame table has {what} that no table may have"),
            TableProblem::Image => f.write_str("the frames of the table are not exactly the image"),
            TableProblem::Member => f.write_str("the frames of the table are not exactly the payload"),
        }
    }
}

impl std::error::Error for TableProblem {}

/// A frame of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the data member.
    pub at: u64,
    /// Its length there.
    pub compressed_bytes: u32,
    /// The first block of the image that it holds.
    pub first_block: u32,
    /// How many.
    pub blocks: u32,
    /// Where the digests of its blocks begin; `None` where they are all zeros.
    digests_at: Option<u32>,
    /// Of what it holds.
    pub digest: [u8; FRAME_DIGEST_BYTES],
}

impl Frame {
    /// Whether it holds nothing but zeros, and need not be fetched.
    pub fn is_zeros(&self) -> bool {
        self.digests_at.is_none()
    }

    /// Which digests of the table are those of its blocks; `None` where they are all zeros.
    pub fn digests(&self) -> Option<std::ops::Range<u32>> {
        self.digests_at.map(|first| first..first + self.blocks)
    }

    /// Where it ends in the data member.
    pub fn end(&self) -> u64 {
        self.at + u64::from(self.compressed_bytes)
    }
}

/// A table that was checked: its frames are exactly the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameTable {
    block_log: u8,
    image_bytes: u64,
    frames: Vec<Frame>,
    /// The table as it came.
    bytes: Vec<u8>,
    digests_from: usize,
}

impl FrameTable {
    /// Parses a table of the length that was signed, with the digest that was signed, for an image of `image_bytes` in a
    /// data member of `member_bytes`.
    ///
    /// # Errors
    /// A [`TableProblem`].
    pub fn parse(
        bytes: Vec<u8>,
        root: Sha256,
        image_bytes: u64,
        member_bytes: u64,
    ) -> Result<FrameTable, TableProblem> {
        if Sha256::of(&bytes) != root {
            return Err(TableProblem::Root);
        }
        FrameTable::parse_signed(bytes, image_bytes, member_bytes)
    }

    /// What is signed may still be wrong.
    fn parse_signed(bytes: Vec<u8>, image_bytes: u64, member_bytes: u64) -> Result<FrameTable, TableProblem> {
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest)? != *MAGIC {
            return Err(TableProblem::Magic);
        }
        let [block_log, digest_bytes, zero, other] = take::<4>(&mut rest)?;
        if !BLOCK_LOGS.contains(&block_log) {
            return Err(TableProblem::Number("a block size"));
        }
        if usize::from(digest_bytes) != BLOCK_DIGEST_BYTES || (zero, other) != (0, 0) {
            return Err(TableProblem::Magic);
        }
        let count = u32::from_le_bytes(take(&mut rest)?);
        let prefix = u32::from_le_bytes(take(&mut rest)?);
        let suffix = u32::from_le_bytes(take(&mut rest)?);
        let blocks_of_image = image_bytes.div_ceil(1 << block_log);
        if blocks_of_image > BLOCKS_MAX {
            return Err(TableProblem::Number("a number of blocks"));
        }
        // Each frame holds a block, so this bounds what is allocated too.
        if count > FRAMES_MAX || u64::from(count) > blocks_of_image {
            return Err(TableProblem::Number("a number of frames"));
        }
        let digests_from = HEAD_BYTES + FRAME_ENTRY_BYTES * count as usize;
        let mut frames = Vec::with_capacity(count as usize);
        let (mut at, mut block, mut digests_at) = (u64::from(prefix), 0u32, 0u32);
        for _ in 0..count {
            let length = u32::from_le_bytes(take(&mut rest)?);
            let blocks = u32::from(u16::from_le_bytes(take(&mut rest)?)) + 1;
            let digest = take(&mut rest)?;
            let compressed_bytes = length & !ZEROS;
            let is_zeros = length & ZEROS != 0;
            // Compression never makes it much longer: zstd adds three bytes to each block of 128 KiB.
            let most = (u64::from(blocks) << block_log) + 1024;
            if !is_zeros && u64::from(blocks) << block_log > FRAME_BYTES_MAX {
                return Err(TableProblem::Number("a frame size"));
            }
            if compressed_bytes == 0 || u64::from(compressed_bytes) > most {
                return Err(TableProblem::Number("a compressed length"));
            }
            let digests = (!is_zeros).then_some(digests_at);
            frames.push(Frame {
                at,
                compressed_bytes,
                first_block: block,
                blocks,
                digests_at: digests,
                digest,
            });
            at += u64::from(compressed_bytes);
            // Neither overflows: there are at most 2^16 times 2^16 blocks, and the first is refused below.
            block = block.checked_add(blocks).ok_or(TableProblem::Image)?;
            digests_at += if is_zeros { 0 } else { blocks };
        }
        if u64::from(block) != blocks_of_image {
            return Err(TableProblem::Image);
        }
        if rest.len() != digests_at as usize * BLOCK_DIGEST_BYTES {
            return Err(TableProblem::Length);
        }
        let end = at + u64::from(suffix) + SKIPPABLE_HEADER as u64 + bytes.len() as u64;
        if end != member_bytes {
            return Err(TableProblem::Member);
        }
        Ok(FrameTable { block_log, image_bytes, frames, bytes, digests_from })
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        1 << self.block_log
    }

    /// Bytes of the image.
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// How many blocks the image has.
    pub fn blocks(&self) -> u32 {
        self.frames.last().map_or(0, |last| last.first_block + last.blocks)
    }

    /// The frames of the image, in order.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Where `frame` begins in the image, and how long it is there: the last block of an image may be shorter.
    pub fn place(&self, frame: &Frame) -> (u64, usize) {
        let start = u64::from(frame.first_block) << self.block_log;
        let end = (u64::from(frame.first_block + frame.blocks) << self.block_log).min(self.image_bytes);
        (start, usize::try_from(end.saturating_sub(start)).unwrap_or(0))
    }

    /// How many digests of blocks there are: one for each block of a frame that is not all zeros, in order.
    pub fn digests(&self) -> u32 {
        let last = self.frames.iter().rev().find_map(|frame| frame.digests());
        last.map_or(0, |numbers| numbers.end)
    }

    /// One of them.
    pub fn digest(&self, number: u32) -> Option<BlockDigest> {
        let start = self.digests_from + number as usize * BLOCK_DIGEST_BYTES;
        self.bytes.get(start..)?.first_chunk().copied().map(BlockDigest)
    }

    /// What the table takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.frames.len() * size_of::<Frame>()
    }
}

/// The next bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TableProblem> {
    let (first, others) = rest.split_first_chunk::<N>().ok_or(TableProblem::Length)?;
    *rest = others;
    Ok(*first)
}

/// The first bytes of the SHA-256 of a block: enough to look for it, not to believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockDigest(pub(crate) [u8; BLOCK_DIGEST_BYTES]);

impl BlockDigest {
    /// Of a block.
    pub fn of(block: &[u8]) -> BlockDigest {
        BlockDigest(first(block))
    }
}

/// The digest of what a frame holds.
pub fn frame_digest(content: &[u8]) -> [u8; FRAME_DIGEST_BYTES] {
    first(content)
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut digest = [0; N];
    digest.iter_mut().zip(sha2::Sha256::digest(bytes)).for_each(|(to, from)| *to = from);
    digest
}

/// Decompresses single frames.
#[cfg(feature = "zstd")]
pub struct FrameDecoder(zstd::zstd_safe::DCtx<'static>);

#[cfg(feature = "zstd")]
impl FrameDecoder {
    /// # Errors
    /// [`ArtifactError::Decompress`] where there is no memory for it.
    pub fn new() -> Result<FrameDecoder, ArtifactError> {
        let context = zstd::zstd_safe::DCtx::try_create();
        context.map(FrameDecoder).ok_or_else(|| refused(io::ErrorKind::OutOfMemory.into()))
    }

    /// Decompresses `frame`, which has to fill `content` exactly.
    ///
    /// # Errors
    /// [`ArtifactError::Decompress`]; [`ArtifactError::Truncated`] where it holds less.
    pub fn decode(&mut self, frame: &[u8], content: &mut [u8]) -> Result<(), ArtifactError> {
        let length = content.len();
        let decoded = self.0.decompress(content, frame);
        match decoded.map_err(|code| refused(crate::compression::zstd_error(code)))? {
            count if count == length => Ok(()),
            _ => Err(ArtifactError::Truncated { entry: crate::members::DATA.to_owned() }),
        }
    }
}

/// A build that decompresses no zstd has nothing to decompress a frame with.
#[cfg(not(feature = "zstd"))]
pub struct FrameDecoder(std::convert::Infallible);

#[cfg(not(feature = "zstd"))]
impl FrameDecoder {
    /// # Errors
    /// Always [`ArtifactError::CompressionNotSupported`].
    pub fn new() -> Result<FrameDecoder, ArtifactError> {
        let entry = crate::members::DATA.to_owned();
        Err(ArtifactError::CompressionNotSupported { entry, compression: Compression::Zstd })
    }

    /// # Errors
    /// There is no decoder.
    pub fn decode(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), ArtifactError> {
        match self.0 {}
    }
}

#[cfg(feature = "zstd")]
fn refused(source: io::Error) -> ArtifactError {
    let entry = crate::members::DATA.to_owned();
    ArtifactError::Decompress { entry, compression: Compression::Zstd, source }
}

// They write what they read.
#[cfg(test)]
#[cfg(feature = "zstd")]
mod tests {
    use super::*;
    use crate::write::{self, ArtifactSpec, MetaData, PayloadSource};
    use crate::{CompressionLevel, Limits, Trust};
    use std::io::{Cursor, Read};

    struct Image(Vec<u8>);

    impl PayloadSource for Image {
        fn name(&self) -> &str {
            "image"
        }
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn open(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.0.as_slice()))
        }
    }

    /// Bytes that do not compress, and none of them a zero.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 | 1
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    /// A file with blocks of its own, as a file system lays it out.
    fn laid_out(seed: u64, length: usize) -> Vec<u8> {
        let mut file = noise(seed, length);
        file.resize(length.next_multiple_of(4096), 0);
        file
    }

    /// Small files, a large one, zeros, and an end that is no whole block.
    fn image() -> Vec<u8> {
        let mut image: Vec<u8> = (0..40).flat_map(|seed| laid_out(seed, 9000)).collect();
        image.extend(laid_out(100, 5 << 20));
        image.extend(vec![0; 9 << 20]);
        image.extend(laid_out(101, 70_000));
        image.extend(vec![0; 8192]);
        image.extend(noise(102, 1000));
        image
    }

    fn spec() -> ArtifactSpec {
        let name = |text: &str| text.parse().unwrap();
        let mut spec = ArtifactSpec::rootfs_image(name("rel"), vec!["dev".parse().unwrap()]);
        spec.compression = CompressionLevel { compression: Compression::Zstd, level: 1 };
        spec.frames = true;
        spec
    }

    fn written(spec: &ArtifactSpec, image: Vec<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        write::write(spec, &[&Image(image)], None, &mut Cursor::new(Vec::new()), &mut out).unwrap();
        out
    }

    /// The data member: the last one of the archive.
    fn member(artifact: &[u8]) -> &[u8] {
        let name = b"data/0000.tar.zst";
        let header = artifact.chunks(512).position(|block| block.starts_with(name)).unwrap() * 512;
        let digits = std::str::from_utf8(&artifact[header + 124..header + 135]).unwrap();
        let length = usize::from_str_radix(digits, 8).unwrap();
        &artifact[header + 512..header + 512 + length]
    }

    fn opened(artifact: &[u8]) -> crate::Artifact {
        crate::open(Cursor::new(artifact.to_vec()), &Trust::DangerUnsigned, &Limits::default()).unwrap()
    }

    fn table(artifact: &[u8], image_bytes: u64) -> (FrameTable, Vec<u8>) {
        let info = FramesInfo::of(&opened(artifact).header).unwrap();
        let member = member(artifact).to_vec();
        let bytes = member[member.len() - usize::try_from(info.table_bytes).unwrap()..].to_vec();
        (FrameTable::parse(bytes, info.root, image_bytes, member.len() as u64).unwrap(), member)
    }

    #[test]
    fn each_frame_by_itself_is_its_part_of_the_image_and_all_in_a_row_are_the_artifact() {
        let image = image();
        let artifact = written(&spec(), image.clone());
        let (table, member) = table(&artifact, image.len() as u64);
        assert_eq!(table.block_bytes(), 4096);
        let (mut decoder, mut covered) = (FrameDecoder::new().unwrap(), 0);
        for frame in table.frames() {
            let (start, length) = table.place(frame);
            assert_eq!(start, covered);
            covered += length as u64;
            let expected = &image[usize::try_from(start).unwrap()..][..length];
            let compressed =
                &member[usize::try_from(frame.at).unwrap()..usize::try_from(frame.end()).unwrap()];
            let mut content = vec![1; length];
            decoder.decode(compressed, &mut content).unwrap();
            assert!(content == expected);
            assert_eq!(frame_digest(expected), frame.digest);
            assert_eq!(frame.is_zeros(), expected.iter().all(|byte| *byte == 0));
            let numbers = frame.digests().unwrap_or_default();
            let digests: Vec<_> = numbers.map(|number| table.digest(number).unwrap()).collect();
            let of_blocks: Vec<_> = expected.chunks(4096).map(BlockDigest::of).collect();
            assert!(digests == if frame.is_zeros() { Vec::new() } else { of_blocks });
        }
        assert_eq!(covered, image.len() as u64);
        let mut reader = opened(&artifact);
        let mut content = Vec::new();
        reader.payload.next_file().unwrap().unwrap().read_to_end(&mut content).unwrap();
        assert!(content == image && reader.payload.next_file().unwrap().is_none());
    }

    #[test]
    fn a_large_file_is_cut_in_the_same_way_wherever_it_lies() {
        let file = laid_out(7, 5 << 20);
        let digests = |before: usize| {
            let image = [laid_out(1, before), file.clone(), laid_out(2, 100)].concat();
            let (table, _) = table(&written(&spec(), image.clone()), image.len() as u64);
            table.frames().iter().map(|frame| frame.digest).collect::<Vec<_>>()
        };
        let (one, other) = (digests(3 * 4096 - 100), digests(300 * 4096 - 100));
        let shared = one.iter().filter(|digest| other.contains(digest)).count();
        // What is behind the last cut shares a frame with what follows.
        assert!(shared >= 2, "{shared} of {}", one.len());
    }

    #[test]
    fn blocks_are_those_of_the_file_system() {
        let mut small_blocks = vec![1; 64 << 10];
        small_blocks[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
        small_blocks[1024 + 0x18..1024 + 0x1c].copy_from_slice(&[0; 4]);
        let (table, _) = table(&written(&spec(), small_blocks), 64 << 10);
        assert_eq!(table.block_bytes(), 1024);
    }

    #[test]
    fn what_is_written_again_gets_a_table_of_its_own_and_keeps_other_meta_data() {
        let mut first = spec();
        first.meta_data = MetaData::Json(r#"{"a":1,"rust_ota":{"b":2}}"#.to_owned());
        let artifact = written(&first, image());
        let mut again = ArtifactSpec::of(&opened(&artifact).header);
        assert!(again.frames);
        let other = vec![7; 1 << 20];
        let (table, _) = table(&written(&again, other.clone()), other.len() as u64);
        assert_eq!(table.image_bytes(), other.len() as u64);
        let meta_data =
            |spec: &ArtifactSpec| opened(&written(spec, other.clone())).header.payload.unwrap().meta_data;
        assert!(meta_data(&again).unwrap().starts_with(r#"{"a":1,"rust_ota":{"b":2,"frames":1,"#));
        again.frames = false;
        assert_eq!(meta_data(&again).as_deref(), Some(r#"{"a":1,"rust_ota":{"b":2}}"#));
        let mut plain = ArtifactSpec::of(&opened(&written(&spec(), image())).header);
        plain.frames = false;
        assert_eq!(meta_data(&plain), None);
    }

    #[test]
    fn frames_are_refused_where_they_cannot_be() {
        let refused = |change: &dyn Fn(&mut ArtifactSpec)| {
            let mut spec = spec();
            change(&mut spec);
            let (mut scratch, mut out) = (Cursor::new(Vec::new()), Vec::new());
            let error = write::write(&spec, &[&Image(vec![1; 4096])], None, &mut scratch, &mut out);
            assert!(error.unwrap_err().to_string().contains("frames are for"));
        };
        refused(&|spec| spec.compression = CompressionLevel::default_of(Compression::Gzip));
        refused(&|spec| spec.payload_type = "other".parse().ok());
    }

    #[test]
    fn a_table_that_is_wrong_is_refused_by_name() {
        let image = image();
        let (good, member) = table(&written(&spec(), image.clone()), image.len() as u64);
        let (bytes, image_bytes, member_bytes) =
            (good.bytes.clone(), image.len() as u64, member.len() as u64);
        let check = |problem: TableProblem, change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = bytes.clone();
            change(&mut changed);
            let root = Sha256::of(&changed);
            assert_eq!(FrameTable::parse(changed, root, image_bytes, member_bytes), Err(problem));
        };
        let put = |at: usize, number: u32| {
            move |bytes: &mut Vec<u8>| bytes[at..at + 4].copy_from_slice(&number.to_le_bytes())
        };
        check(TableProblem::Magic, &|bytes| bytes[0] ^= 1);
        check(TableProblem::Number("a block size"), &|bytes| bytes[8] = 17);
        check(TableProblem::Magic, &|bytes| bytes[9] = 6);
        check(TableProblem::Magic, &|bytes| bytes[10] = 1);
        check(TableProblem::Number("a number of frames"), &put(12, u32::MAX));
        check(TableProblem::Image, &put(12, 1));
        check(TableProblem::Member, &put(16, 1 << 31));
        check(TableProblem::Member, &put(20, 0));
        check(TableProblem::Number("a compressed length"), &put(HEAD_BYTES, 0));
        check(TableProblem::Number("a compressed length"), &put(HEAD_BYTES, 1 << 30));
        check(TableProblem::Number("a frame size"), &|bytes| bytes[HEAD_BYTES + 4..][..2].fill(255));
        check(TableProblem::Length, &|bytes| bytes.push(0));
        check(TableProblem::Image, &|bytes| bytes[HEAD_BYTES + 4] ^= 1);
        for length in 0..bytes.len().min(2000) {
            let cut = bytes[..length].to_vec();
            let root = Sha256::of(&cut);
            assert!(FrameTable::parse(cut, root, image_bytes, member_bytes).is_err(), "{length}");
        }
        assert_eq!(
            FrameTable::parse(bytes.clone(), Sha256::of(b""), image_bytes, member_bytes),
            Err(TableProblem::Root)
        );
        let more = FrameTable::parse(bytes.clone(), Sha256::of(&bytes), image_bytes + 4096, member_bytes);
        assert_eq!(more, Err(TableProblem::Image));
        let beyond = FrameTable::parse(bytes.clone(), Sha256::of(&bytes), u64::MAX, member_bytes);
        assert_eq!(beyond, Err(TableProblem::Number("a number of blocks")));
    }

    #[test]
    fn what_the_header_says_of_a_table_is_only_believed_where_it_makes_sense() {
        let check = |json: &str, frames: bool| {
            let mut header = opened(&written(&spec(), vec![1; 4096])).header;
            header.payload.as_mut().unwrap().meta_data = Some(json.to_owned());
            assert_eq!(FramesInfo::of(&header).is_some(), frames, "{json}");
        };
        let root = Sha256::of(b"");
        check(&format!(r#"{{"rust_ota":{{"frames":1,"root":"{root}","table_bytes":24}}}}"#), true);
        check(&format!(r#"{{"rust_ota":{{"frames":2,"root":"{root}","table_bytes":24}}}}"#), false);
        check(&format!(r#"{{"rust_ota":{{"frames":1,"root":"{root}","table_bytes":99999999}}}}"#), false);
        check(r#"{"rust_ota":{"frames":1,"root":"00","table_bytes":24}}"#, false);
        check(r#"{"rust_ota":7}"#, false);
        check("{}", false);
    }

    #[test]
    fn a_frame_that_holds_more_or_less_or_nothing_is_an_error() {
        let compressed = zstd::bulk::compress(&[7; 5000], 1).unwrap();
        let mut decoder = FrameDecoder::new().unwrap();
        let mut content = vec![0; 5000];
        decoder.decode(&compressed, &mut content).unwrap();
        for length in [0, 4999, 5001] {
            assert!(decoder.decode(&compressed, &mut vec![0; length]).is_err());
        }
        assert!(decoder.decode(&compressed[..compressed.len() - 1], &mut content).is_err());
        assert!(decoder.decode(b"garbage", &mut content).is_err());
    }
}
