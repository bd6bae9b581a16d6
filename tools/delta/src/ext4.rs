//! Where the content of files lies in an ext2, ext3 or ext4 image: paths, and the blocks behind each.
//!
//! It reads what it needs for that and nothing else: no journal is replayed, no checksum is compared, because a wrong answer
//! costs bytes in the delta and nothing more. What is read is strict about bounds all the same: the image comes from outside, and
//! one that was made to mislead ends in an error or in fewer files, never in endless work or in memory without a limit.

use std::collections::HashSet;
use std::fmt;
use std::io;

use crate::image::Image;

/// Files of one image that are told apart. More are not looked at; what belongs to the others is found by its content.
const MOST_FILES: usize = 2_000_000;
/// Pieces of all files together.
const MOST_PIECES: usize = 8_000_000;
/// Bytes of all paths together.
const MOST_PATH_BYTES: usize = 256 << 20;
/// A directory deeper than this is a loop, or nobody's.
const MOST_DEPTH: usize = 64;
/// Levels of an extent tree; the format has five.
const MOST_LEVELS: u16 = 5;

const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xEF53;
const ROOT: u32 = 2;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_EXTENTS: u32 = 0x40;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_ENCRYPT: u32 = 0x10000;
const FLAG_EXTENTS: u32 = 0x8_0000;
const FLAG_INLINE: u32 = 0x1000_0000;
const FLAG_ENCRYPTED: u32 = 0x800;
const FILE_KIND: u16 = 0x8000;
const FOLDER_KIND: u16 = 0x4000;
const KIND_MASK: u16 = 0xF000;

/// Why an image cannot be read as an ext file system. `NotExt` is the usual one: another file system.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExtError {
    /// It has no superblock of one.
    NotExt,
    /// A number of its superblock or group descriptors cannot be right.
    Damaged(&'static str),
    /// It could not be read.
    Read(io::Error),
}

impl fmt::Display for ExtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtError::NotExt => f.write_str("no ext file system"),
            ExtError::Damaged(what) => write!(f, "ext file system with a wrong {what}"),
            ExtError::Read(error) => write!(f, "cannot read the image: {error}"),
        }
    }
}

impl std::error::Error for ExtError {}

impl From<io::Error> for ExtError {
    fn from(error: io::Error) -> ExtError {
        ExtError::Read(error)
    }
}

/// `count` blocks of a file from its block `logical` on lie at `physical`; blocks are those of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Block of the file.
    pub logical: u64,
    /// Block of the image.
    pub physical: u64,
    /// How many.
    pub count: u64,
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Without the leading slash.
    pub path: Vec<u8>,
    /// Where it lies, in its own order.
    pub pieces: Vec<Piece>,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes in a block of this file system.
    pub block_bytes: u64,
    /// Regular files with blocks, in the order of their folders; a file with several names has the first.
    pub files: Vec<File>,
    /// What was left out because it could not be right; the rest is of use all the same.
    pub left_out: u64,
}

struct Volume<'a> {
    image: &'a Image,
    block_bytes: u64,
    blocks: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_bytes: u64,
    descriptor_bytes: u64,
    descriptors_at: u64,
    large: bool,
    has_types: bool,
}

struct Inode {
    kind: u16,
    bytes: u64,
    flags: u32,
    map: [u8; 60],
}

struct Budget {
    files: usize,
    pieces: usize,
    path_bytes: usize,
    /// Blocks of folders and maps that are read; one for each block of the image is more than a sound image has.
    blocks: u64,
}

/// Reads where the files of `image` lie.
pub fn read(image: &Image) -> Result<Layout, ExtError> {
    let volume = Volume::open(image)?;
    let mut layout = Layout { block_bytes: volume.block_bytes, ..Layout::default() };
    let mut budget = Budget {
        files: MOST_FILES,
        pieces: MOST_PIECES,
        path_bytes: MOST_PATH_BYTES,
        blocks: volume.blocks.saturating_mul(2),
    };
    let mut seen: HashSet<u32> = HashSet::from([ROOT]);
    let mut waiting: Vec<(u32, Vec<u8>, usize)> = vec![(ROOT, Vec::new(), 0)];
    while let Some((number, path, depth)) = waiting.pop() {
        let mut folders = Vec::new();
        let entries = match volume.entries(number, &mut budget) {
            Ok(entries) => entries,
            Err(ExtError::Read(error)) => return Err(ExtError::Read(error)),
            Err(ExtError::NotExt | ExtError::Damaged(_)) => {
                layout.left_out += 1;
                continue;
            }
        };
        for (inode_number, name) in entries {
            let length = path.len() + 1 + name.len();
            if !seen.insert(inode_number) {
                continue;
            }
            if budget.files == 0 || budget.path_bytes < length {
                layout.left_out += 1;
                continue;
            }
            budget.files -= 1;
            budget.path_bytes -= length;
            let mut full = path.clone();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(&name);
            match volume.look(inode_number, &mut budget) {
                Ok(Some(Found::Folder)) if depth < MOST_DEPTH => {
                    folders.push((inode_number, full, depth + 1));
                }
                Ok(Some(Found::Folder)) => layout.left_out += 1,
                Ok(Some(Found::File(pieces))) => {
                    if !pieces.is_empty() {
                        layout.files.push(File { path: full, pieces });
                    }
                }
                Ok(None) => {}
                Err(ExtError::Read(error)) => return Err(ExtError::Read(error)),
                Err(ExtError::NotExt | ExtError::Damaged(_)) => layout.left_out += 1,
            }
        }
        waiting.extend(folders.into_iter().rev());
    }
    Ok(layout)
}

enum Found {
    Folder,
    File(Vec<Piece>),
}

impl<'a> Volume<'a> {
    fn open(image: &'a Image) -> Result<Volume<'a>, ExtError> {
        let mut raw = [0; 1024];
        if image.bytes() < SUPERBLOCK + 1024 {
            return Err(ExtError::NotExt);
        }
        image.read_at(SUPERBLOCK, &mut raw)?;
        if number16(&raw, 56) != MAGIC {
            return Err(ExtError::NotExt);
        }
        let shift = number32(&raw, 24);
        if shift > 6 {
            return Err(ExtError::Damaged("block size"));
        }
        let block_bytes = 1024_u64 << shift;
        let dynamic = number32(&raw, 76) > 0;
        let incompat = if dynamic { number32(&raw, 96) } else { 0 };
        if incompat & INCOMPAT_META_BG != 0 {
            return Err(ExtError::Damaged(
                "place of its group descriptors: they are spread, which is not read here",
            ));
        }
        let large = incompat & INCOMPAT_64BIT != 0;
        let high = if large { u64::from(number32(&raw, 336)) << 32 } else { 0 };
        // One that was cut, or is in a larger partition, has fewer or more blocks than the image.
        let blocks = (u64::from(number32(&raw, 4)) | high).min(image.bytes() / block_bytes);
        let first = u64::from(number32(&raw, 20));
        let descriptor_bytes = if large { u64::from(number16(&raw, 254)) } else { 32 };
        if !(32..=1024).contains(&descriptor_bytes) || (large && descriptor_bytes < 64) {
            return Err(ExtError::Damaged("size of a group descriptor"));
        }
        let inode_bytes = if dynamic { u64::from(number16(&raw, 88)) } else { 128 };
        if inode_bytes < 128 || inode_bytes > block_bytes || !inode_bytes.is_power_of_two() {
            return Err(ExtError::Damaged("size of an inode"));
        }
        let inodes_per_group = number32(&raw, 40);
        if inodes_per_group == 0 || u64::from(inodes_per_group) > block_bytes * 8 {
            return Err(ExtError::Damaged("number of inodes in a group"));
        }
        Ok(Volume {
            image,
            block_bytes,
            blocks,
            inodes: number32(&raw, 0),
            inodes_per_group,
            inode_bytes,
            descriptor_bytes,
            descriptors_at: (first + 1) * block_bytes,
            large,
            has_types: incompat & (INCOMPAT_FILETYPE | INCOMPAT_EXTENTS | INCOMPAT_ENCRYPT) != 0,
        })
    }

    fn inode(&self, number: u32) -> Result<Inode, ExtError> {
        if number == 0 || number > self.inodes {
            return Err(ExtError::Damaged("inode number"));
        }
        let index = u64::from(number - 1);
        let (group, index) =
            (index / u64::from(self.inodes_per_group), index % u64::from(self.inodes_per_group));
        let mut descriptor = [0; 64];
        let length = if self.large { 64 } else { 32 };
        let target = descriptor.get_mut(..length).unwrap_or_default();
        self.read(self.descriptors_at + group * self.descriptor_bytes, target)?;
        let high = if self.large { u64::from(number32(&descriptor, 40)) << 32 } else { 0 };
        let table = u64::from(number32(&descriptor, 8)) | high;
        let table =
            table.checked_mul(self.block_bytes).ok_or(ExtError::Damaged("place of an inode table"))?;
        let mut raw = [0; 128];
        let at = table
            .checked_add(index * self.inode_bytes)
            .ok_or(ExtError::Damaged("place of an inode table"))?;
        self.read(at, &mut raw)?;
        let mut map = [0; 60];
        map.copy_from_slice(raw.get(40..100).unwrap_or(&[0; 60]));
        Ok(Inode {
            kind: number16(&raw, 0) & KIND_MASK,
            bytes: u64::from(number32(&raw, 4)) | u64::from(number32(&raw, 108)) << 32,
            flags: number32(&raw, 32),
            map,
        })
    }

    /// What an inode is, when it is of interest.
    fn look(&self, number: u32, budget: &mut Budget) -> Result<Option<Found>, ExtError> {
        let inode = self.inode(number)?;
        match inode.kind {
            FOLDER_KIND => Ok(Some(Found::Folder)),
            FILE_KIND => Ok(Some(Found::File(self.pieces(&inode, budget)?))),
            _ => Ok(None),
        }
    }

    /// Names in a folder. A folder with an index is a folder whose other blocks look like entries without an inode.
    fn entries(&self, number: u32, budget: &mut Budget) -> Result<Vec<(u32, Vec<u8>)>, ExtError> {
        let inode = self.inode(number)?;
        if inode.kind != FOLDER_KIND {
            return Err(ExtError::Damaged("folder"));
        }
        let mut found = Vec::new();
        if inode.flags & FLAG_ENCRYPTED != 0 {
            return Ok(found);
        }
        if inode.flags & FLAG_INLINE != 0 {
            // The first four bytes are the folder above. What did not fit here lies in an attribute, which is not read.
            let bytes = usize::try_from(inode.bytes).unwrap_or(usize::MAX).min(60);
            self.names(inode.map.get(4..bytes).unwrap_or_default(), &mut found);
            return Ok(found);
        }
        let mut block = vec![0; usize::try_from(self.block_bytes).unwrap_or(0)];
        for piece in self.pieces(&inode, budget)? {
            for block_number in piece.physical..piece.physical + piece.count {
                budget.take_block()?;
                self.read(block_number * self.block_bytes, &mut block)?;
                self.names(&block, &mut found);
                if found.len() > MOST_FILES {
                    return Err(ExtError::Damaged("folder"));
                }
            }
        }
        Ok(found)
    }

    /// Entries of one block, until one cannot be right.
    fn names(&self, block: &[u8], found: &mut Vec<(u32, Vec<u8>)>) {
        let mut at = 0;
        while let Some(head) = block.get(at..at + 8) {
            let length = usize::from(number16(head, 4));
            let name_bytes = if self.has_types {
                usize::from(head.get(6).copied().unwrap_or(0))
            } else {
                usize::from(number16(head, 6))
            };
            if length < 8 || length % 4 != 0 {
                return;
            }
            let number = number32(head, 0);
            if let Some(name) = block.get(at + 8..at + 8 + name_bytes) {
                if number != 0
                    && name_bytes + 8 <= length
                    && name != b"."
                    && name != b".."
                    && !name.is_empty()
                {
                    found.push((number, name.to_vec()));
                }
            }
            at += length;
        }
    }

    /// Where a file lies.
    fn pieces(&self, inode: &Inode, budget: &mut Budget) -> Result<Vec<Piece>, ExtError> {
        let mut pieces = Vec::new();
        if inode.flags & (FLAG_INLINE | FLAG_ENCRYPTED) != 0 {
            return Ok(pieces);
        }
        let blocks = inode.bytes.div_ceil(self.block_bytes);
        if inode.flags & FLAG_EXTENTS != 0 {
            self.extents(&inode.map, MOST_LEVELS, budget, &mut pieces)?;
        } else {
            self.block_map(&inode.map, blocks, budget, &mut pieces)?;
        }
        // Space that was reserved behind the end of the file has no content of it.
        for piece in &mut pieces {
            piece.count = piece.count.min(blocks.saturating_sub(piece.logical));
        }
        pieces.retain(|piece| piece.count > 0);
        Ok(pieces)
    }

    fn extents(
        &self,
        node: &[u8],
        levels: u16,
        budget: &mut Budget,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), ExtError> {
        const NODE: u16 = 0xF30A;
        let wrong = ExtError::Damaged("extent tree");
        let (entries, depth) = (usize::from(number16(node, 2)), number16(node, 6));
        if number16(node, 0) != NODE || depth > levels {
            return Err(wrong);
        }
        for index in 0..entries {
            let Some(entry) = node.get(12 + index * 12..24 + index * 12) else {
                return Err(ExtError::Damaged("extent tree"));
            };
            if depth == 0 {
                let count = u64::from(number16(entry, 4));
                let physical = u64::from(number32(entry, 8)) | u64::from(number16(entry, 6)) << 32;
                // More than 2^15 says: reserved, and never written.
                if count <= 32_768 {
                    self.add(
                        Piece { logical: u64::from(number32(entry, 0)), physical, count },
                        budget,
                        pieces,
                    )?;
                }
            } else {
                let child = u64::from(number32(entry, 4)) | u64::from(number16(entry, 8)) << 32;
                let block = self.block(child, budget)?;
                if number16(&block, 6) >= depth {
                    return Err(ExtError::Damaged("extent tree"));
                }
                self.extents(&block, depth - 1, budget, pieces)?;
            }
        }
        Ok(())
    }

    /// Twelve blocks, then blocks of blocks, once, twice and three times.
    fn block_map(
        &self,
        map: &[u8],
        blocks: u64,
        budget: &mut Budget,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), ExtError> {
        let mut logical = 0;
        for index in 0..15 {
            if logical >= blocks {
                break;
            }
            let levels = u32::try_from(index).unwrap_or(0).saturating_sub(11);
            let block = u64::from(number32(map, index * 4));
            self.mapped(block, levels, &mut logical, blocks, budget, pieces)?;
        }
        Ok(())
    }

    fn mapped(
        &self,
        block: u64,
        levels: u32,
        logical: &mut u64,
        blocks: u64,
        budget: &mut Budget,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), ExtError> {
        let covered = (self.block_bytes / 4).saturating_pow(levels);
        if block == 0 {
            *logical = logical.saturating_add(covered);
            return Ok(());
        }
        if levels == 0 {
            self.add(Piece { logical: *logical, physical: block, count: 1 }, budget, pieces)?;
            *logical += 1;
            return Ok(());
        }
        let numbers = self.block(block, budget)?;
        for number in numbers.chunks_exact(4) {
            if *logical >= blocks {
                break;
            }
            self.mapped(u64::from(number32(number, 0)), levels - 1, logical, blocks, budget, pieces)?;
        }
        Ok(())
    }

    /// One more piece, joined with the last where it goes on there.
    fn add(&self, piece: Piece, budget: &mut Budget, pieces: &mut Vec<Piece>) -> Result<(), ExtError> {
        if piece.count == 0 {
            return Ok(());
        }
        if piece.physical == 0 || piece.physical.checked_add(piece.count).is_none_or(|end| end > self.blocks)
        {
            return Err(ExtError::Damaged("place of a file"));
        }
        if let Some(last) = pieces.last_mut() {
            if last.logical + last.count > piece.logical {
                return Err(ExtError::Damaged("order of a file's blocks"));
            }
            if last.logical + last.count == piece.logical && last.physical + last.count == piece.physical {
                last.count += piece.count;
                return Ok(());
            }
        }
        budget.pieces = budget.pieces.checked_sub(1).ok_or(ExtError::Damaged("number of pieces"))?;
        pieces.push(piece);
        Ok(())
    }

    fn block(&self, number: u64, budget: &mut Budget) -> Result<Vec<u8>, ExtError> {
        budget.take_block()?;
        let at = number.checked_mul(self.block_bytes).ok_or(ExtError::Damaged("block number"))?;
        let mut block = vec![0; usize::try_from(self.block_bytes).unwrap_or(0)];
        self.read(at, &mut block)?;
        Ok(block)
    }

    /// Reads inside of the image.
    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), ExtError> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.image.bytes()) {
            return Err(ExtError::Damaged("place behind the end of the image"));
        }
        Ok(self.image.read_at(at, buffer)?)
    }
}

impl Budget {
    fn take_block(&mut self) -> Result<(), ExtError> {
        self.blocks = self.blocks.checked_sub(1).ok_or(ExtError::Damaged("number of blocks"))?;
        Ok(())
    }
}

/// Little-endian at an offset; what lies behind the end is zero.
fn number16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|found| found.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|found| found.try_into().ok()).map_or(0, u32::from_le_bytes)
}
