//! A strict, streaming reader and writer for the tar archives of an artifact.
//!
//! It is not a general tar: it knows regular files and nothing else, never seeks, and refuses every header that two
//! readers could understand differently. The outer archive, the header and the payload are all read by it, so that
//! there is one place that decides where one member ends and the next begins.
//!
//! Why not the `tar` crate: what is needed here is the refusals, and a general reader is built to accept. Its raw
//! mode would leave the resolving of PAX and GNU headers, all limits and most of the checks below to us, and keep an
//! unpacker with symbolic links and permissions in the program. The part we use of the format is one 512-byte header.
//!
//! What is read: POSIX ustar, PAX `x` headers (`path` and `size`; times, owners and attributes are ignored), GNU long
//! names (`L`) and base-256 sizes. Written: ustar, and PAX where ustar has no room.

use crate::error::{ArtifactError, TarProblem};
use crate::limits::Limits;
use crate::read::{read_full, read_retrying};
use std::io::{self, BufRead, Read, Write};

pub(crate) const BLOCK: usize = 512;
pub(crate) const NAME: std::ops::Range<usize> = 0..100;
pub(crate) const MODE: std::ops::Range<usize> = 100..108;
pub(crate) const SIZE: std::ops::Range<usize> = 124..136;
pub(crate) const MTIME: std::ops::Range<usize> = 136..148;
pub(crate) const CHECKSUM: std::ops::Range<usize> = 148..156;
pub(crate) const TYPE: usize = 156;
pub(crate) const LINK_NAME: std::ops::Range<usize> = 157..257;
pub(crate) const MAGIC: std::ops::Range<usize> = 257..265;
pub(crate) const PREFIX: std::ops::Range<usize> = 345..500;
const GNU_TIMES: std::ops::Range<usize> = 345..369;
pub(crate) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";
pub(crate) const GNU_MAGIC: &[u8; 8] = b"ustar  \0";
/// What the list of members begins with that `pixz` puts behind a tar archive.
const PIXZ_MAGIC: &[u8; 8] = b"\xa6L2.\xd6\x14\xae\xdb";
/// The largest size eleven octal digits can say.
const USTAR_MAX_SIZE: u64 = 0o777_7777_7777;

/// One regular file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
}

/// Reads an archive front to back. The data of each member has to be read completely before the next is asked for.
pub(crate) struct TarReader<R> {
    source: Counted<R>,
    archive: String,
    name_bytes: usize,
    pax_bytes: usize,
    trailing_zero_bytes: u64,
    current: String,
    remaining: u64,
    padding: usize,
    ended: bool,
}

/// Counts what is taken of a source.
struct Counted<R> {
    source: R,
    taken: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.source.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.taken += count as u64;
    }
}

/// A place in the data of a member.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    /// The member.
    pub(crate) name: String,
    /// Its length.
    pub(crate) size: u64,
    /// Where in the archive its data begins.
    pub(crate) starts_at: u64,
    /// Bytes of its data before the place.
    pub(crate) offset: u64,
}

impl<R: Read> TarReader<R> {
    /// An archive that is read from a place in the data of a member on.
    pub(crate) fn inside(source: R, archive: &str, limits: &Limits, place: &Inside) -> TarReader<R> {
        let mut reader = TarReader::new(source, archive, limits);
        reader.source.taken = place.starts_at + place.offset;
        reader.current.clone_from(&place.name);
        reader.remaining = place.size.saturating_sub(place.offset);
        reader.padding = padding_of(place.size);
        reader
    }

    /// How many bytes of the archive were taken.
    pub(crate) fn position(&self) -> u64 {
        self.source.taken
    }

    pub(crate) fn new(source: R, archive: &str, limits: &Limits) -> TarReader<R> {
        TarReader {
            source: Counted { source, taken: 0 },
            archive: archive.to_owned(),
            name_bytes: limits.name_bytes,
            pax_bytes: limits.pax_bytes,
            trailing_zero_bytes: limits.trailing_zero_bytes,
            current: String::new(),
            remaining: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next member, or `None` when the archive has ended properly: two zero blocks, then only zeros, then the
    /// end of the source.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ArtifactError> {
        if self.ended {
            return Ok(None);
        }
        if self.remaining > 0 {
            return Err(ArtifactError::AfterFailure);
        }
        self.read_padding()?;
        let mut pax: Option<Pax> = None;
        let mut gnu_name: Option<String> = None;
        loop {
            let block = self.read_block()?;
            if block.iter().all(|byte| *byte == 0) {
                if pax.is_some() || gnu_name.is_some() {
                    return Err(self.problem(TarProblem::DanglingExtension));
                }
                self.read_end()?;
                self.ended = true;
                return Ok(None);
            }
            let header = Header::parse(&block).map_err(|problem| self.problem(problem))?;
            match header.type_flag {
                b'0' | 0 => {
                    let entry = self.resolve(&block, &header, pax, gnu_name)?;
                    self.remaining = entry.size;
                    self.padding = padding_of(entry.size);
                    self.current.clone_from(&entry.name);
                    return Ok(Some(entry));
                }
                b'x' if pax.is_some() => return Err(self.problem(TarProblem::TwoExtensions)),
                b'x' => {
                    let records = self.read_extension(header.size, self.pax_bytes, "PAX header bytes")?;
                    pax = Some(Pax::parse(&records).map_err(|problem| self.problem(problem))?);
                }
                b'L' if gnu_name.is_some() => return Err(self.problem(TarProblem::TwoExtensions)),
                b'L' => {
                    // The name is followed by one NUL, which the size counts.
                    let bytes = self.read_extension(header.size, self.name_bytes + 1, "name bytes")?;
                    gnu_name = Some(until_nul(&bytes).map_err(|problem| self.problem(problem))?);
                }
                b'S' => return Err(self.problem(TarProblem::Sparse)),
                other => return Err(self.problem(TarProblem::Type(other))),
            }
        }
    }

    /// Reads from the data of the current member; 0 is its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, ArtifactError> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let count = read_retrying(&mut self.source, buffer)?;
        if count == 0 {
            return Err(ArtifactError::Truncated { entry: self.current.clone() });
        }
        self.remaining -= count as u64;
        Ok(count)
    }

    /// The whole data of the current member, which may have at most `limit` bytes. The size is known from the tar
    /// header, so nothing is allocated for a member that is too large.
    pub(crate) fn read_all(&mut self, what: &'static str, limit: usize) -> Result<Vec<u8>, ArtifactError> {
        let size = usize::try_from(self.remaining)
            .ok()
            .filter(|size| *size <= limit)
            .ok_or_else(|| ArtifactError::too_large(&self.current, what, limit as u64))?;
        // A size is only a claim: memory grows with the bytes that really come.
        let mut data = Vec::with_capacity(size.min(64 * 1024));
        let mut buffer = [0; 8192];
        loop {
            match self.read_data(&mut buffer)? {
                0 => return Ok(data),
                count => data.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// What remains of the current member's data.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    fn resolve(
        &self,
        block: &[u8; BLOCK],
        header: &Header,
        pax: Option<Pax>,
        gnu_name: Option<String>,
    ) -> Result<Entry, ArtifactError> {
        let pax = pax.unwrap_or_default();
        let name = match (pax.path, gnu_name) {
            (Some(_), Some(_)) => return Err(self.problem(TarProblem::TwoExtensions)),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => header.name(block).map_err(|problem| self.problem(problem))?,
        };
        if name.is_empty() || name.contains('\0') {
            return Err(self.problem(TarProblem::Name));
        }
        if name.len() > self.name_bytes {
            return Err(ArtifactError::too_large(&name, "name bytes", self.name_bytes as u64));
        }
        let at_entry = |problem| ArtifactError::tar(&name, problem);
        header.check_regular(block).map_err(at_entry)?;
        // Readers have disagreed about which of the two sizes counts, and one archive was two. Writers put 0 into the
        // tar header where the size does not fit; any other difference is an attack or a broken writer.
        let size = match pax.size {
            Some(size) if header.size == 0 || header.size == size => size,
            Some(_) => return Err(at_entry(TarProblem::SizeDisagrees)),
            None => header.size,
        };
        Ok(Entry { name, size, mode: header.mode, mtime: header.mtime })
    }

    fn read_extension(
        &mut self,
        size: u64,
        limit: usize,
        what: &'static str,
    ) -> Result<Vec<u8>, ArtifactError> {
        self.current.clone_from(&self.archive);
        self.remaining = size;
        self.padding = padding_of(size);
        let data = self.read_all(what, limit)?;
        self.read_padding()?;
        Ok(data)
    }

    fn read_padding(&mut self) -> Result<(), ArtifactError> {
        let mut block = [0; BLOCK];
        let Some(padding) = block.get_mut(..self.padding) else { return Ok(()) };
        if read_full(&mut self.source, padding)? < padding.len() {
            return Err(ArtifactError::Truncated { entry: self.current.clone() });
        }
        self.padding = 0;
        match block.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(ArtifactError::tar(&self.current, TarProblem::Padding)),
        }
    }

    fn read_block(&mut self) -> Result<[u8; BLOCK], ArtifactError> {
        let mut block = [0; BLOCK];
        match read_full(&mut self.source, &mut block)? {
            BLOCK => Ok(block),
            _ => Err(ArtifactError::Truncated { entry: self.archive.clone() }),
        }
    }

    /// Behind the first zero block: a second one, and then nothing but zeros.
    fn read_end(&mut self) -> Result<(), ArtifactError> {
        if self.read_block()?.iter().any(|byte| *byte != 0) {
            return Err(self.problem(TarProblem::LoneZeroBlock));
        }
        let mut zeros = 0u64;
        let mut buffer = [0; 8192];
        loop {
            let count = read_retrying(&mut self.source, &mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if let Some(at) = buffer.iter().take(count).position(|byte| *byte != 0) {
                let found = buffer.get(at..count).unwrap_or_default().to_vec();
                return Err(self.what_follows(found)?);
            }
            zeros += count as u64;
            if zeros > self.trailing_zero_bytes {
                let limit = self.trailing_zero_bytes;
                return Err(ArtifactError::too_large(&self.archive, "zeros behind the end", limit));
            }
        }
    }

    /// Names what stands behind the end, which begins with `found`.
    fn what_follows(&mut self, mut found: Vec<u8>) -> Result<ArtifactError, ArtifactError> {
        let have = found.len();
        if have < PIXZ_MAGIC.len() {
            found.resize(PIXZ_MAGIC.len(), 0);
            read_full(&mut self.source, found.get_mut(have..).unwrap_or_default())?;
        }
        Ok(self.problem(match found.starts_with(PIXZ_MAGIC) {
            true => TarProblem::PixzIndex,
            false => TarProblem::AfterEnd,
        }))
    }

    fn problem(&self, problem: TarProblem) -> ArtifactError {
        ArtifactError::tar(&self.archive, problem)
    }
}

impl<R: BufRead> TarReader<R> {
    /// The next bytes of the current member, without a copy; empty at its end.
    pub(crate) fn fill_data(&mut self) -> Result<&[u8], ArtifactError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let available = self.source.fill_buf().map_err(ArtifactError::from_io)?;
        if available.is_empty() {
            return Err(ArtifactError::Truncated { entry: self.current.clone() });
        }
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available.len());
        Ok(available.get(..most).unwrap_or_default())
    }

    /// Marks `count` bytes of the last [`TarReader::fill_data`] as read.
    pub(crate) fn consume_data(&mut self, count: usize) {
        let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(count);
        self.source.consume(count);
        self.remaining -= count as u64;
    }
}

/// The fields of one header block that mean something for every type.
struct Header {
    type_flag: u8,
    size: u64,
    mode: u32,
    mtime: u64,
    posix: bool,
}

impl Header {
    fn parse(block: &[u8; BLOCK]) -> Result<Header, TarProblem> {
        let stated = number(field(block, CHECKSUM)).map_err(|_| TarProblem::Checksum)?;
        if stated != u64::from(checksum(block)) {
            return Err(TarProblem::Checksum);
        }
        let posix = is_posix(block)?;
        Ok(Header {
            type_flag: block[TYPE],
            size: number(field(block, SIZE))?,
            mode: u32::try_from(number(field(block, MODE))? & 0o7777).map_err(|_| TarProblem::Number)?,
            // Of no consequence, and negative for files older than 1970.
            mtime: number(field(block, MTIME)).unwrap_or(0),
            posix,
        })
    }

    /// What stands behind the NUL of a field is nobody's: `node-tar` keeps times behind the prefix.
    fn name(&self, block: &[u8; BLOCK]) -> Result<String, TarProblem> {
        let name = text(before_nul(field(block, NAME)))?;
        let prefix = if self.posix { text(before_nul(field(block, PREFIX)))? } else { String::new() };
        match prefix.is_empty() {
            true => Ok(name),
            false => Ok(format!("{prefix}/{name}")),
        }
    }

    fn check_regular(&self, block: &[u8; BLOCK]) -> Result<(), TarProblem> {
        if !before_nul(field(block, LINK_NAME)).is_empty() {
            return Err(TarProblem::LinkName);
        }
        // Behind the prefix nothing is defined, and `star` puts its own magic there. GNU tar keeps two times in place of
        // the prefix, and behind them sparse maps and the real size, for types that are refused anyway.
        let must_be_zero = if self.posix { BLOCK..BLOCK } else { GNU_TIMES.end..BLOCK };
        match field(block, must_be_zero).iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(TarProblem::Padding),
        }
    }
}

/// What a PAX header says about the member behind it.
#[derive(Default)]
struct Pax {
    path: Option<String>,
    size: Option<u64>,
}

impl Pax {
    /// Records are `<length> <key>=<value>\n`, the length counting itself.
    fn parse(mut records: &[u8]) -> Result<Pax, TarProblem> {
        let mut pax = Pax::default();
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(TarProblem::PaxRecord)?;
            let (digits, _) = records.split_at(space);
            let length = usize::try_from(decimal(digits).ok_or(TarProblem::PaxRecord)?)
                .map_err(|_| TarProblem::PaxRecord)?;
            if length > records.len() {
                return Err(TarProblem::PaxRecord);
            }
            let (record, rest) = records.split_at(length);
            records = rest;
            let body = record
                .get(space + 1..)
                .and_then(|body| body.strip_suffix(b"\n"))
                .and_then(|body| std::str::from_utf8(body).ok())
                .ok_or(TarProblem::PaxRecord)?;
            let (key, value) = body.split_once('=').ok_or(TarProblem::PaxRecord)?;
            match key {
                "path" if pax.path.is_some() => return Err(TarProblem::PaxRecord),
                "path" => pax.path = Some(value.to_owned()),
                "size" if pax.size.is_some() => return Err(TarProblem::PaxRecord),
                "size" => pax.size = Some(decimal(value.as_bytes()).ok_or(TarProblem::PaxRecord)?),
                // These would make the member a link or a sparse file, or change how the other records are read.
                "linkpath" | "hdrcharset" | "charset" => return Err(TarProblem::PaxKey),
                sparse if sparse.starts_with("GNU.sparse") => return Err(TarProblem::Sparse),
                // Times, owners and attributes: not used by anyone behind us.
                _ => {}
            }
        }
        Ok(pax)
    }
}

/// Writes an archive front to back, with the headers Go's `archive/tar` writes.
pub(crate) struct TarWriter<W> {
    out: W,
    remaining: u64,
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> TarWriter<W> {
        TarWriter { out, remaining: 0, padding: 0 }
    }

    /// Starts a member; exactly `entry.size` bytes of data have to follow.
    pub(crate) fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.finish_member()?;
        let mut records = Vec::new();
        if entry.name.len() > NAME.len() || !entry.name.is_ascii() {
            push_record(&mut records, b"path", entry.name.as_bytes());
        }
        if entry.size > USTAR_MAX_SIZE {
            push_record(&mut records, b"size", entry.size.to_string().as_bytes());
        }
        if !records.is_empty() {
            let header = header_block("PaxHeaders.0/member", records.len() as u64, 0, 0, b'x');
            self.out.write_all(&header)?;
            self.out.write_all(&records)?;
            self.write_zeros(padding_of(records.len() as u64))?;
        }
        let size = if entry.size > USTAR_MAX_SIZE { 0 } else { entry.size };
        self.out.write_all(&header_block(&entry.name, size, entry.mode, entry.mtime, b'0'))?;
        self.remaining = entry.size;
        self.padding = padding_of(entry.size);
        Ok(())
    }

    /// What it writes to.
    #[cfg(feature = "zstd")]
    pub(crate) fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// A whole member from memory.
    pub(crate) fn append(&mut self, name: &str, data: &[u8], mode: u32, mtime: u64) -> io::Result<()> {
        self.begin(&Entry { name: name.to_owned(), size: data.len() as u64, mode, mtime })?;
        self.write_all(data)
    }

    /// Ends the archive with exactly two zero blocks.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.finish_member()?;
        self.write_zeros(2 * BLOCK)?;
        Ok(self.out)
    }

    fn finish_member(&mut self) -> io::Result<()> {
        if self.remaining > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "fewer bytes than announced"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.write_zeros(padding)
    }

    fn write_zeros(&mut self, count: usize) -> io::Result<()> {
        self.out.write_all([0; 2 * BLOCK].get(..count).unwrap_or(&[0; 2 * BLOCK]))
    }
}

/// Writes data of the current member.
impl<W: Write> Write for TarWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() as u64 > self.remaining {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more bytes than announced"));
        }
        let count = self.out.write(data)?;
        self.remaining -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub(crate) fn push_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    // The length counts its own digits: grow it until it agrees with itself.
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.extend_from_slice(&body);
}

fn header_block(name: &str, size: u64, mode: u32, mtime: u64, type_flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let ascii = name.bytes().filter(u8::is_ascii).take(NAME.len());
    block.iter_mut().zip(ascii).for_each(|(to, from)| *to = from);
    let mut put = |range: std::ops::Range<usize>, text: &[u8]| {
        block.iter_mut().skip(range.start).take(range.len()).zip(text).for_each(|(to, from)| *to = *from);
    };
    put(MODE, format!("{:07o}\0", mode & 0o7777).as_bytes());
    put(108..116, b"0000000\0"); // owner: root, as nobody reads it
    put(116..124, b"0000000\0");
    put(SIZE, format!("{size:011o}\0").as_bytes());
    put(MTIME, format!("{:011o}\0", mtime.min(USTAR_MAX_SIZE)).as_bytes());
    put(TYPE..TYPE + 1, &[type_flag]);
    put(MAGIC, USTAR_MAGIC);
    put(329..337, b"0000000\0");
    put(337..345, b"0000000\0");
    put(CHECKSUM, b"        ");
    let sum = format!("{:06o}\0 ", checksum(&block));
    block.iter_mut().skip(CHECKSUM.start).zip(sum.bytes()).for_each(|(to, from)| *to = from);
    block
}

/// The sum of all bytes, those of the checksum field counted as blanks.
pub(crate) fn checksum(block: &[u8; BLOCK]) -> u32 {
    let byte = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { 32 } else { u32::from(*byte) };
    block.iter().enumerate().map(byte).sum()
}

pub(crate) fn field(block: &[u8; BLOCK], range: std::ops::Range<usize>) -> &[u8] {
    block.get(range).unwrap_or_default()
}

/// Octal digits between blanks and NULs, or base-256 with the top bit of the first byte set.
pub(crate) fn number(field: &[u8]) -> Result<u64, TarProblem> {
    let value = match field.split_first() {
        // 0xff would be a negative number.
        Some((0x80, rest)) => rest
            .iter()
            .try_fold(0u64, |value, byte| value.checked_mul(256).map(|value| value | u64::from(*byte))),
        _ => {
            let blanks = field.iter().take_while(|byte| **byte == b' ').count();
            let digits = field.get(blanks..).unwrap_or_default();
            let end = digits.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(digits.len());
            let (digits, rest) = digits.split_at(end);
            if digits.is_empty() || rest.iter().any(|byte| *byte != 0 && *byte != b' ') {
                return Err(TarProblem::Number);
            }
            digits.iter().try_fold(0u64, |value, digit| {
                value.checked_mul(8).map(|value| value + u64::from(digit - b'0'))
            })
        }
    };
    value.filter(|value| *value <= i64::MAX as u64).ok_or(TarProblem::Number)
}

pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|value| *value <= i64::MAX as u64)
}

/// Whether the header is one of POSIX, and not one of GNU.
pub(crate) fn is_posix(block: &[u8; BLOCK]) -> Result<bool, TarProblem> {
    let magic = field(block, MAGIC);
    if magic == USTAR_MAGIC {
        Ok(true)
    } else if magic == GNU_MAGIC {
        Ok(false)
    } else if magic.iter().all(|byte| *byte == 0) {
        Err(TarProblem::V7)
    } else {
        Err(TarProblem::Magic)
    }
}

/// What stands before the first NUL.
pub(crate) fn before_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> Result<String, TarProblem> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| TarProblem::Name)
}

/// The text before the first NUL; only NULs may follow, as the length is stated.
fn until_nul(bytes: &[u8]) -> Result<String, TarProblem> {
    let before = before_nul(bytes);
    match bytes.iter().skip(before.len()).all(|byte| *byte == 0) {
        true => text(before),
        false => Err(TarProblem::Name),
    }
}

pub(crate) fn padding_of(size: u64) -> usize {
    // Less than a block, so it fits whatever a usize is.
    (size.wrapping_neg() % BLOCK as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn member(name: &str, size: u64) -> Entry {
        Entry { name: name.to_owned(), size, mode: 0o644, mtime: 7 }
    }

    /// One block of a member with a changed field and the checksum made right again.
    fn block(type_flag: u8, size: u64, change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
        let mut block = header_block("name", size, 0o644, 0, type_flag);
        change(&mut block);
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[CHECKSUM].copy_from_slice(sum.as_bytes());
        block.to_vec()
    }

    fn end() -> Vec<u8> {
        vec![0; 2 * BLOCK]
    }

    /// The names and contents of all members, or why the archive was refused.
    fn check(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>, ArtifactError> {
        let mut tar = TarReader::new(Cursor::new(bytes), "archive", &Limits::default());
        let mut members = Vec::new();
        while let Some(entry) = tar.next_entry()? {
            let data = tar.read_all("bytes", 1 << 20)?;
            assert_eq!(data.len() as u64, entry.size);
            members.push((entry.name, data));
        }
        assert!(tar.next_entry().unwrap().is_none());
        Ok(members)
    }

    fn refused(bytes: Vec<u8>) -> TarProblem {
        match check(bytes) {
            Err(ArtifactError::Tar { problem, .. }) => problem,
            other => panic!("{other:?}"),
        }
    }

    /// `x` or `L` with its data, padded.
    fn extension(type_flag: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = block(type_flag, data.len() as u64, |_| {});
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len() + padding_of(data.len() as u64), 0);
        bytes
    }

    fn record(key: &str, value: &str) -> Vec<u8> {
        let mut records = Vec::new();
        push_record(&mut records, key.as_bytes(), value.as_bytes());
        records
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        let mut tar = TarWriter::new(Vec::new());
        let names = ["a".to_owned(), "b".repeat(100), "c".repeat(101), "d".repeat(255), "größe".to_owned()];
        for (index, name) in names.iter().enumerate() {
            tar.append(name, &vec![1; 511 + index], 0o600, 0).unwrap();
        }
        let bytes = tar.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        assert!(
            bytes.ends_with(&end()) && bytes[bytes.len() - 3 * BLOCK..bytes.len() - 2 * BLOCK] != [0; BLOCK]
        );
        let members = check(bytes).unwrap();
        for (index, name) in names.iter().enumerate() {
            assert_eq!(members[index], (name.clone(), vec![1; 511 + index]));
        }
    }

    #[test]
    fn the_writer_holds_the_caller_to_the_announced_size() {
        let mut tar = TarWriter::new(Vec::new());
        tar.begin(&member("a", 3)).unwrap();
        assert!(tar.write(b"four").is_err());
        tar.write_all(b"tw").unwrap();
        assert!(tar.begin(&member("b", 0)).is_err());
        assert!(tar.finish().is_err());
    }

    #[test]
    fn sizes_are_right_around_what_ustar_can_say() {
        for size in [USTAR_MAX_SIZE, USTAR_MAX_SIZE + 1, 1 << 40] {
            let mut tar = TarWriter::new(Vec::new());
            tar.begin(&member("image", size)).unwrap();
            let bytes = tar.out;
            assert_eq!(bytes.len() > BLOCK, size > USTAR_MAX_SIZE, "PAX only where it is needed");
            let mut tar = TarReader::new(Cursor::new(bytes), "archive", &Limits::default());
            assert_eq!(tar.next_entry().unwrap().unwrap(), member("image", size));
            assert_eq!(tar.remaining(), size);
        }
    }

    #[test]
    fn only_regular_files_are_members() {
        for flag in 0..=255u8 {
            let bytes = [block(flag, 0, |_| {}), block(b'0', 0, |_| {}), end()].concat();
            match flag {
                b'0' | 0 => assert_eq!(check(bytes).unwrap().len(), 2),
                // An empty PAX header says nothing; an empty long name is not a name.
                b'x' => assert_eq!(check(bytes).unwrap().len(), 1),
                b'L' => assert_eq!(refused(bytes), TarProblem::Name),
                b'S' => assert_eq!(refused(bytes), TarProblem::Sparse),
                other => assert_eq!(refused(bytes), TarProblem::Type(other)),
            }
        }
    }

    #[test]
    fn every_changed_byte_of_a_header_makes_its_checksum_wrong() {
        let good = [block(b'0', 0, |_| {}), end()].concat();
        for at in (0..BLOCK).filter(|at| !CHECKSUM.contains(at)) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert_eq!(refused(changed), TarProblem::Checksum, "{at}");
        }
    }

    #[test]
    fn pax_gives_name_and_size_and_what_it_says_else_is_ignored() {
        let records = [record("mtime", "1.5"), record("path", "long"), record("size", "3")].concat();
        let data = |size| [block(b'0', size, |_| {}), b"abc".to_vec(), vec![0; 509], end()].concat();
        for size in [0, 3] {
            let bytes = [extension(b'x', &records), data(size)].concat();
            assert_eq!(check(bytes).unwrap(), [("long".to_owned(), b"abc".to_vec())]);
        }
        for size in [1, 2, 4, 512] {
            let bytes = [extension(b'x', &records), data(size)].concat();
            assert_eq!(refused(bytes), TarProblem::SizeDisagrees, "{size}");
        }
    }

    #[test]
    fn malformed_pax_records_are_refused() {
        let file = [block(b'0', 0, |_| {}), end()].concat();
        for records in [
            &b"x"[..],
            b"9 path=a",
            b"99 path=a\n",
            b"0 path=a\n",
            b"3 path=a\n",
            b" path=a\n",
            b"-9 path=a\n",
            b"+9 path=a\n",
            b"9 pathxa\n",
            b"9 path=\xff\n",
            b"9 size=x\n",
            b"10 size=-1\n",
            b"29 size=99999999999999999999\n",
            b"9 path=a\n9 path=a\n",
            b"9 size=0\n9 size=0\n",
        ] {
            let bytes = [extension(b'x', records), file.clone()].concat();
            assert_eq!(refused(bytes), TarProblem::PaxRecord, "{}", records.escape_ascii());
        }
        for (key, problem) in [
            ("linkpath", TarProblem::PaxKey),
            ("hdrcharset", TarProblem::PaxKey),
            ("charset", TarProblem::PaxKey),
            ("GNU.sparse.major", TarProblem::Sparse),
            ("GNU.sparse.realsize", TarProblem::Sparse),
        ] {
            let bytes = [extension(b'x', &record(key, "1")), file.clone()].concat();
            assert_eq!(refused(bytes), problem, "{key}");
        }
        for name in ["", "a\0b"] {
            let bytes = [extension(b'x', &record("path", name)), file.clone()].concat();
            assert_eq!(refused(bytes), TarProblem::Name, "{name:?}");
        }
    }

    #[test]
    fn gnu_long_names_and_binary_sizes_are_understood() {
        let gnu = |block: &mut [u8; BLOCK]| {
            block[MAGIC].copy_from_slice(GNU_MAGIC);
            block[SIZE].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        };
        let name = "n".repeat(200);
        let long = extension(b'L', format!("{name}\0").as_bytes());
        let bytes = [long, block(b'0', 0, gnu), b"abc".to_vec(), vec![0; 509], end()].concat();
        assert_eq!(check(bytes).unwrap(), [(name, b"abc".to_vec())]);
    }

    #[test]
    fn numbers_that_are_none_or_too_large_are_refused() {
        let size = |field: &[u8; 12]| {
            let field = *field;
            refused([block(b'0', 0, |block| block[SIZE].copy_from_slice(&field)), end()].concat())
        };
        for field in [
            b"\0\0\0\0\0\0\0\0\0\0\0\0",
            b"            ",
            b"00000000008\0",
            b"-0000000001\0",
            b"0000000000x\0",
            b"1\x00001\0\0\0\0\0\0\0",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\x80\x01\0\0\0\0\0\0\0\0\0\0",
            b"\x81\0\0\0\0\0\0\0\0\0\0\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(size(field), TarProblem::Number, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn bytes_where_nothing_belongs_are_refused() {
        let with = |change: fn(&mut [u8; BLOCK])| refused([block(b'0', 0, change), end()].concat());
        assert_eq!(with(|b| b[0] = 0xff), TarProblem::Name);
        assert_eq!(with(|b| b[0..4].fill(0)), TarProblem::Name);
        assert_eq!(with(|b| b[LINK_NAME.start] = b'x'), TarProblem::LinkName);
        assert_eq!(with(|b| b[MAGIC].fill(0)), TarProblem::V7);
        assert_eq!(with(|b| b[257] = b'x'), TarProblem::Magic);
        assert_eq!(with(|b| b[264] = b'1'), TarProblem::Magic);
        let gnu = |b: &mut [u8; BLOCK]| {
            b[MAGIC].copy_from_slice(GNU_MAGIC);
            b[369] = 1;
        };
        assert_eq!(refused([block(b'0', 0, gnu), end()].concat()), TarProblem::Padding);
        let mut padded = [block(b'0', 3, |_| {}), b"abc".to_vec(), vec![0; 509], end()].concat();
        padded[BLOCK + 3] = 1;
        assert_eq!(refused(padded.clone()), TarProblem::Padding);
        padded[BLOCK + 3] = 0;
        padded[BLOCK + 511] = 1;
        assert_eq!(refused(padded), TarProblem::Padding);
        let prefix = |b: &mut [u8; BLOCK]| b[345..348].copy_from_slice(b"dir");
        assert_eq!(check([block(b'0', 0, prefix), end()].concat()).unwrap()[0].0, "dir/name");
    }

    #[test]
    fn what_stands_behind_the_nul_of_a_field_is_not_part_of_it() {
        let with = |change: fn(&mut [u8; BLOCK])| {
            let members = check([block(b'0', 0, change), end()].concat()).unwrap();
            members.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(with(|b| b[0..7].copy_from_slice(b"na\0me\0\xff")), ["na"]);
        assert_eq!(with(|b| b[99] = b'x'), ["name"]);
        assert_eq!(with(|b| b[LINK_NAME.end - 1] = b'x'), ["name"]);
        // Owner's name.
        assert_eq!(
            with(|b| b[265..297].copy_from_slice(b"root\0\xff\xfe 012345678901234567890123")),
            ["name"]
        );
        // node-tar: times at 476 and 488, with and without a prefix before them.
        assert_eq!(with(|b| b[476..499].copy_from_slice(b"15034502361 15034502361")), ["name"]);
        assert_eq!(with(|b| (b[345], b[347]) = (b'p', b'q')), ["p/name"]);
        // star: its own magic behind the prefix.
        assert_eq!(with(|b| b[508..512].copy_from_slice(b"tar\0")), ["name"]);
        let times = |b: &mut [u8; BLOCK]| {
            b[MAGIC].copy_from_slice(GNU_MAGIC);
            b[345..368].copy_from_slice(b"15034502361\x0015034502361");
        };
        assert_eq!(check([block(b'0', 0, times), end()].concat()).unwrap()[0].0, "name");
    }

    #[test]
    fn the_index_of_pixz_is_named_wherever_the_zeros_before_it_end() {
        for zeros in (8180..8200).chain([0, 1]) {
            let bytes = [end(), vec![0; zeros], PIXZ_MAGIC.to_vec(), b"a.txt\0".to_vec()].concat();
            assert_eq!(refused(bytes), TarProblem::PixzIndex, "{zeros}");
        }
        assert_eq!(refused([end(), PIXZ_MAGIC[..7].to_vec()].concat()), TarProblem::AfterEnd);
    }

    #[test]
    fn extension_headers_belong_to_one_member() {
        let file = || block(b'0', 0, |_| {});
        let pax = || extension(b'x', &record("path", "p"));
        let long = || extension(b'L', b"l\0");
        assert_eq!(refused([pax(), end()].concat()), TarProblem::DanglingExtension);
        assert_eq!(refused([long(), end()].concat()), TarProblem::DanglingExtension);
        assert_eq!(refused([pax(), pax(), file(), end()].concat()), TarProblem::TwoExtensions);
        assert_eq!(refused([long(), long(), file(), end()].concat()), TarProblem::TwoExtensions);
        assert_eq!(refused([pax(), long(), file(), end()].concat()), TarProblem::TwoExtensions);
        assert_eq!(refused([long(), pax(), file(), end()].concat()), TarProblem::TwoExtensions);
        let names: Vec<_> = check([pax(), file(), file(), end()].concat()).unwrap();
        assert_eq!(names.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(), ["p", "name"]);
    }

    #[test]
    fn an_archive_ends_with_two_zero_blocks_and_then_only_zeros() {
        let file = || block(b'0', 0, |_| {});
        assert_eq!(check([file(), end(), vec![0; 9000]].concat()).unwrap().len(), 1);
        assert_eq!(check(end()).unwrap(), []);
        assert_eq!(refused([file(), vec![0; BLOCK], file(), end()].concat()), TarProblem::LoneZeroBlock);
        assert_eq!(refused([file(), end(), file(), end()].concat()), TarProblem::AfterEnd);
        assert_eq!(refused([file(), end(), vec![0; 9000], vec![1]].concat()), TarProblem::AfterEnd);
        let whole = [block(b'0', 3, |_| {}), b"abc".to_vec(), vec![0; 509], end()].concat();
        for length in 0..whole.len() {
            let error = check(whole[..length].to_vec()).unwrap_err();
            assert!(matches!(error, ArtifactError::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn a_size_that_is_only_claimed_allocates_nothing() {
        let bytes = block(b'0', 1 << 40, |_| {});
        let mut tar = TarReader::new(Cursor::new(bytes), "archive", &Limits::default());
        tar.next_entry().unwrap();
        assert!(matches!(tar.read_all("bytes", 100), Err(ArtifactError::TooLarge { limit: 100, .. })));
        let error = tar.read_all("bytes", usize::MAX).unwrap_err();
        assert!(matches!(error, ArtifactError::Truncated { .. }));
    }

    #[test]
    fn zeros_without_end_behind_the_archive_are_refused() {
        let endless = Cursor::new(end()).chain(io::repeat(0));
        let mut tar = TarReader::new(endless, "archive", &Limits::default());
        assert!(matches!(tar.next_entry(), Err(ArtifactError::TooLarge { .. })));
    }
}
