//! The payload of a root file system as independent zstd frames, with the table of what they hold behind them.
//!
//! Where one frame ends is seen in the content alone, so that the same file is cut in the same way in two images, wherever
//! it lies: a block that ends with zeros is the end of a file in the file systems that give each file blocks of its own. Small
//! files share a frame, a large one begins a frame of its own, and longer runs of zeros are frames that nobody fetches.

use crate::compression::zstd_error;
use crate::frames::{
    BLOCK_DIGEST_BYTES, BLOCK_LOGS, BLOCKS_MAX, BlockDigest, FRAME_BYTES_MAX, FRAME_DIGEST_BYTES, FRAMES,
    FRAMES_MAX, FramesInfo, MAGIC, META_DATA_KEY, ROOT, SKIPPABLE, TABLE_BYTES, ZEROS, frame_digest,
};
use crate::sha256::Sha256;
use crate::write::spec::MetaData;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use zstd::zstd_safe::{CCtx, CParameter};

/// A frame of small files is long enough at this length...
const ENOUGH_BYTES: usize = 32 << 10;
/// ...and a file of this length begins one.
const LARGE_FILE_BYTES: usize = 32 << 10;
/// No frame is longer.
const MOST_BYTES: usize = FRAME_BYTES_MAX as usize;
/// Fewer zeros stay in the frame that they are in.
const ZEROS_BYTES: usize = 64 << 10;
/// As many zeros are one frame.
const ZEROS_MOST_BYTES: usize = 8 << 20;
/// A block that ends with so many zeros ends a file.
const TAIL_BYTES: usize = 8;
/// The window that every reader takes, of RFC 8878. Frames are shorter.
const WINDOW_LOG: u32 = 23;
/// What has to be there before the size of a block is known: the superblock of ext4.
const LOOK_BYTES: usize = 2048;

/// Takes the inner archive and writes it as frames.
pub(super) struct Framed<W> {
    out: W,
    context: CCtx<'static>,
    image_bytes: u64,
    phase: Phase,
    /// What is not cut yet: of the archive around the image, or of the image less than a block.
    rest: Vec<u8>,
    block_bytes: usize,
    /// The frame that grows.
    frame: Vec<u8>,
    /// What is known to be of one file, and not in a frame yet.
    file: Vec<u8>,
    /// Zeros that follow.
    zeros: usize,
    prefix: u32,
    entries: Vec<u8>,
    count: u32,
    digests: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Around,
    Image,
}

impl<W: Write> Framed<W> {
    pub(super) fn new(out: W, level: u32, image_bytes: u64) -> io::Result<Framed<W>> {
        let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        let level = i32::try_from(level.clamp(1, 19)).unwrap_or(19);
        for parameter in [CParameter::CompressionLevel(level), CParameter::WindowLog(WINDOW_LOG)] {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        Ok(Framed {
            out,
            context,
            image_bytes,
            phase: Phase::Around,
            rest: Vec::new(),
            block_bytes: 0,
            frame: Vec::new(),
            file: Vec::new(),
            zeros: 0,
            prefix: 0,
            entries: Vec::new(),
            count: 0,
            digests: Vec::new(),
        })
    }

    /// What follows is the image.
    pub(super) fn begin_image(&mut self) -> io::Result<()> {
        let header = std::mem::take(&mut self.rest);
        self.prefix = self.put(&header)?;
        self.phase = Phase::Image;
        Ok(())
    }

    /// The image was given.
    pub(super) fn end_image(&mut self) -> io::Result<()> {
        self.cut_blocks()?;
        // The last block may be shorter.
        let last = std::mem::take(&mut self.rest);
        if !last.is_empty() {
            self.take_block(&last)?;
        }
        self.end_file()?;
        self.end_zeros()?;
        self.end_frame()?;
        self.phase = Phase::Around;
        Ok(())
    }

    /// Writes the end of the archive and the table.
    pub(super) fn finish(mut self) -> io::Result<(W, FramesInfo)> {
        let trailer = std::mem::take(&mut self.rest);
        let suffix = self.put(&trailer)?;
        if self.count > FRAMES_MAX {
            return Err(io::Error::other("the image needs more frames than a frame table has room for"));
        }
        let block_log = u8::try_from(self.block_bytes.max(1).ilog2()).unwrap_or(u8::MAX);
        let mut table = MAGIC.to_vec();
        table.extend([block_log, BLOCK_DIGEST_BYTES as u8, 0, 0]);
        for number in [self.count, self.prefix, suffix] {
            table.extend(number.to_le_bytes());
        }
        table.append(&mut self.entries);
        table.append(&mut self.digests);
        let length = u32::try_from(table.len()).map_err(io::Error::other)?;
        self.out.write_all(&SKIPPABLE)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&table)?;
        Ok((self.out, FramesInfo { root: Sha256::of(&table), table_bytes: table.len() as u64 }))
    }

    /// Whole blocks of what has come.
    fn cut_blocks(&mut self) -> io::Result<()> {
        if self.block_bytes == 0 {
            self.block_bytes = block_bytes(&self.rest, self.image_bytes)?;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut blocks = rest.chunks_exact(self.block_bytes);
        for block in &mut blocks {
            self.take_block(block)?;
        }
        self.rest = blocks.remainder().to_vec();
        Ok(())
    }

    fn take_block(&mut self, block: &[u8]) -> io::Result<()> {
        if is_zeros(block) {
            self.end_file()?;
            self.zeros += block.len();
            return if self.zeros >= ZEROS_MOST_BYTES { self.zeros_frame() } else { Ok(()) };
        }
        self.end_zeros()?;
        self.file.extend_from_slice(block);
        if self.file.len() >= MOST_BYTES {
            // The rest of a file that is longer than a frame begins another one.
            self.end_frame()?;
            self.frame = std::mem::take(&mut self.file);
            return self.end_frame();
        }
        match block.last_chunk::<TAIL_BYTES>() {
            Some(end) if is_zeros(end) => self.end_file(),
            Some(_) | None => Ok(()),
        }
    }

    /// What is known to be one file goes into the frame, or begins another.
    fn end_file(&mut self) -> io::Result<()> {
        if self.file.is_empty() {
            return Ok(());
        }
        let together = self.frame.len() + self.file.len();
        if self.frame.len() >= ENOUGH_BYTES || self.file.len() >= LARGE_FILE_BYTES || together > MOST_BYTES {
            self.end_frame()?;
        }
        self.frame.append(&mut self.file);
        Ok(())
    }

    /// Few zeros belong to what is around them; many are a frame.
    fn end_zeros(&mut self) -> io::Result<()> {
        if self.zeros >= ZEROS_BYTES {
            return self.zeros_frame();
        }
        if self.zeros > 0 {
            self.file = vec![0; std::mem::take(&mut self.zeros)];
            self.end_file()?;
        }
        Ok(())
    }

    fn zeros_frame(&mut self) -> io::Result<()> {
        self.end_frame()?;
        self.frame = vec![0; std::mem::take(&mut self.zeros)];
        self.end_frame()
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        let zeros = is_zeros(&frame);
        let compressed = self.put(&frame)?;
        let blocks = frame.len().div_ceil(self.block_bytes);
        let blocks = u16::try_from(blocks - 1).map_err(io::Error::other)?;
        self.entries.extend((compressed | if zeros { ZEROS } else { 0 }).to_le_bytes());
        self.entries.extend(blocks.to_le_bytes());
        let digest: [u8; FRAME_DIGEST_BYTES] = frame_digest(&frame);
        self.entries.extend(digest);
        if !zeros {
            frame.chunks(self.block_bytes).for_each(|block| self.digests.extend(BlockDigest::of(block).0));
        }
        self.count += 1;
        // Its room serves the next one.
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }

    /// One frame; its compressed length.
    fn put(&mut self, content: &[u8]) -> io::Result<u32> {
        let mut compressed = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
        self.context.compress2(&mut compressed, content).map_err(zstd_error)?;
        self.out.write_all(&compressed)?;
        u32::try_from(compressed.len()).map_err(io::Error::other)
    }
}

impl<W: Write> Write for Framed<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(data);
        match self.phase {
            Phase::Image if self.rest.len() >= LOOK_BYTES => self.cut_blocks()?,
            Phase::Image | Phase::Around => {}
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The block of the file system, where that is known to be ext4, or 4 KiB: files begin with one. More where the image would
/// have too many.
fn block_bytes(start: &[u8], image_bytes: u64) -> io::Result<usize> {
    const EXT4: usize = 1024;
    let field = |at: usize| start.get(EXT4 + at..EXT4 + at + 2);
    let mut log = 12;
    if let (Some([0x53, 0xef]), Some(&[size, 0])) = (field(0x38), field(0x18)) {
        log = size.saturating_add(*BLOCK_LOGS.start());
    }
    if !BLOCK_LOGS.contains(&log) {
        log = 12;
    }
    while image_bytes.div_ceil(1 << log) > BLOCKS_MAX {
        log += 1;
    }
    match BLOCK_LOGS.contains(&log) {
        true => Ok(1 << log),
        false => Err(io::Error::other("the image is too large for a frame table")),
    }
}

/// `meta_data` with what has to be signed of the table.
pub(super) fn in_meta_data(meta_data: &MetaData, info: &FramesInfo) -> MetaData {
    let object = match meta_data {
        MetaData::Json(text) => serde_json::from_str::<Map<String, Value>>(text),
        MetaData::Absent | MetaData::Empty => Ok(Map::new()),
    };
    // What is not an object is refused when it is written.
    let Ok(mut object) = object else { return meta_data.clone() };
    let ours = object.entry(META_DATA_KEY).or_insert_with(|| json!({}));
    if !ours.is_object() {
        *ours = json!({});
    }
    if let Value::Object(ours) = ours {
        ours.insert(FRAMES.to_owned(), json!(1));
        ours.insert(ROOT.to_owned(), json!(info.root.to_string()));
        ours.insert(TABLE_BYTES.to_owned(), json!(info.table_bytes));
    }
    MetaData::Json(Value::Object(object).to_string())
}
