//! Archives that hold a whole directory tree, as the payload type `directory` carries one: a streaming reader with
//! everything tar says about a member, and a writer that can write all of it, for tests of readers. The host tool writes
//! with the crate `tar`, to the byte the same.
//!
//! The reader knows the same formats as the strict reader of artifacts beside it, and more kinds of members:
//! directories, links, devices and pipes, with owners, times and extended attributes. It interprets nothing: whether a
//! name stays inside the tree is for whoever unpacks it ([`Member::path`] is as it was written).
//!
//! Not read: sparse files, archives of several volumes, and the ancient format without a magic.

use std::io::{self, Read, Write};

pub use super::rules::{Place, TreeProblem, TreeRules};
use super::strict::{
    BLOCK, CHECKSUM, GNU_MAGIC, LINK_NAME, MAGIC, MODE, MTIME, NAME, PREFIX, SIZE, TYPE, before_nul,
    checksum, decimal, field, is_posix, number, padding_of, push_record,
};
use crate::error::{ArtifactError, TarProblem};
use crate::read::{read_full, read_retrying};

const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const USER: std::ops::Range<usize> = 265..297;
const GROUP: std::ops::Range<usize> = 297..329;
const MAJOR: std::ops::Range<usize> = 329..337;
const MINOR: std::ops::Range<usize> = 337..345;

/// Longest name or link target: what Linux takes for a path.
const PATH_BYTES: usize = 4096;
/// Extension headers of one member together: one attribute of the largest size Linux takes, and some smaller ones.
const EXTENSION_BYTES: usize = 256 * 1024;
/// Zeros behind the end: GNU tar's largest usual record.
const TRAILING_ZERO_BYTES: u64 = 1 << 20;

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name as written: `./etc/app.conf`. Not checked for anything but length and NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// What belongs to it besides its content.
    pub attributes: Attributes,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file of so many bytes, which follow.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// Another name for an earlier member.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device, major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
}

/// Everything about a member but its name and content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with set-user-id, set-group-id and sticky: twelve bits.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Name of the owner, which goes before the number where the device knows it. Empty for none.
    pub user: String,
    /// Name of the group, in the same way.
    pub group: String,
    /// Time of the last change: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes, name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads the members front to back. Content that is not read is skipped.
pub struct MemberReader<R> {
    source: R,
    remaining: u64,
    padding: usize,
    ended: bool,
}

/// What extension headers say about the member behind them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<String>,
    group: Option<String>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl<R: Read> MemberReader<R> {
    /// Reads from `source`, which need not be buffered for the headers but for speed.
    pub fn new(source: R) -> MemberReader<R> {
        MemberReader { source, remaining: 0, padding: 0, ended: false }
    }

    /// The next member, or `None` at the end of the archive, behind which only zeros may be.
    ///
    /// # Errors
    /// [`ArtifactError::Tar`] for what is not such an archive, [`ArtifactError::Truncated`], and those of the source.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArtifactError> {
        if self.ended {
            return Ok(None);
        }
        self.skip()?;
        let mut extended = Extended::default();
        loop {
            let mut block = [0; BLOCK];
            if read_full(&mut self.source, &mut block)? != BLOCK {
                return Err(truncated());
            }
            if block.iter().all(|byte| *byte == 0) {
                if extended.bytes > 0 {
                    return Err(problem(TarProblem::DanglingExtension));
                }
                self.read_end()?;
                self.ended = true;
                return Ok(None);
            }
            check_block(&block)?;
            let size = number(field(&block, SIZE)).map_err(problem)?;
            match block[TYPE] {
                b'L' | b'K' => {
                    let is_name = block[TYPE] == b'L';
                    let bytes = self.read_extension(size, &mut extended)?;
                    let text = bytes.strip_suffix(b"\0").unwrap_or(&bytes).to_vec();
                    let slot = if is_name { &mut extended.path } else { &mut extended.link };
                    if slot.replace(text).is_some() {
                        return Err(problem(TarProblem::TwoExtensions));
                    }
                }
                b'x' => {
                    let records = self.read_extension(size, &mut extended)?;
                    extended.learn(&records).map_err(problem)?;
                }
                // For all members at once: git writes its commit there. What would change members is refused.
                b'g' => {
                    let records = self.read_extension(size, &mut extended)?;
                    let mut global = Extended::default();
                    global.learn(&records).map_err(problem)?;
                    if global.says_something() {
                        return Err(problem(TarProblem::PaxKey));
                    }
                    extended.bytes = 0;
                }
                flag => {
                    let member = resolve(&block, flag, size, extended).map_err(problem)?;
                    self.remaining = if let MemberKind::File(size) = member.kind { size } else { 0 };
                    self.padding = padding_of(self.remaining);
                    return Ok(Some(member));
                }
            }
        }
    }

    /// Reads over what is left of the current member.
    fn skip(&mut self) -> Result<(), ArtifactError> {
        let mut buffer = [0; 16 * 1024];
        while self.remaining > 0 {
            self.read(&mut buffer).map_err(ArtifactError::from_io)?;
        }
        let mut block = [0; BLOCK];
        let padding = block.get_mut(..std::mem::take(&mut self.padding)).unwrap_or_default();
        // Whatever it holds: padding is not the member's, and other writers leave old bytes in it.
        if read_full(&mut self.source, padding)? != padding.len() {
            return Err(truncated());
        }
        Ok(())
    }

    fn read_extension(&mut self, size: u64, extended: &mut Extended) -> Result<Vec<u8>, ArtifactError> {
        let room = EXTENSION_BYTES.saturating_sub(extended.bytes);
        let length =
            usize::try_from(size).ok().filter(|length| *length <= room && *length > 0).ok_or_else(|| {
                ArtifactError::too_large("update.tar", "extension header bytes", EXTENSION_BYTES as u64)
            })?;
        extended.bytes += length;
        let mut bytes = vec![0; length];
        if read_full(&mut self.source, &mut bytes)? != length {
            return Err(truncated());
        }
        self.padding = padding_of(size);
        self.skip()?;
        Ok(bytes)
    }

    fn read_end(&mut self) -> Result<(), ArtifactError> {
        let mut zeros = 0;
        let mut buffer = [0; 8192];
        loop {
            let count = read_retrying(&mut self.source, &mut buffer)?;
            if buffer.iter().take(count).any(|byte| *byte != 0) {
                return Err(problem(TarProblem::AfterEnd));
            }
            zeros += count as u64;
            if zeros > TRAILING_ZERO_BYTES {
                return Err(ArtifactError::too_large(
                    "update.tar",
                    "zeros behind the end",
                    TRAILING_ZERO_BYTES,
                ));
            }
            if count == 0 {
                return Ok(());
            }
        }
    }
}

/// Reads the content of the current member; its end is the end.
impl<R: Read> Read for MemberReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = read_retrying(&mut self.source, buffer).map_err(ArtifactError::into_io)?;
        if count == 0 {
            return Err(truncated().into_io());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn problem(problem: TarProblem) -> ArtifactError {
    ArtifactError::tar("update.tar", problem)
}

fn truncated() -> ArtifactError {
    ArtifactError::Truncated { entry: "update.tar".to_owned() }
}

fn check_block(block: &[u8; BLOCK]) -> Result<(), ArtifactError> {
    let stated = number(field(block, CHECKSUM)).map_err(|_| problem(TarProblem::Checksum))?;
    if stated != u64::from(checksum(block)) {
        return Err(problem(TarProblem::Checksum));
    }
    is_posix(block).map_err(problem).map(|_| ())
}

fn resolve(block: &[u8; BLOCK], flag: u8, size: u64, extended: Extended) -> Result<Member, TarProblem> {
    let path = match extended.path {
        Some(path) => path,
        None => {
            let name = before_nul(field(block, NAME));
            // In the GNU format other things lie there.
            let prefix = if is_posix(block)? { before_nul(field(block, PREFIX)) } else { &[] };
            if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
        }
    };
    let link = extended.link.unwrap_or_else(|| before_nul(field(block, LINK_NAME)).to_vec());
    for text in [&path, &link] {
        if text.len() >= PATH_BYTES || text.contains(&0) {
            return Err(TarProblem::Name);
        }
    }
    if path.is_empty() {
        return Err(TarProblem::Name);
    }
    let size = match extended.size {
        Some(stated) if size == 0 || size == stated => stated,
        Some(_) => return Err(TarProblem::SizeDisagrees),
        None => size,
    };
    let device = || -> Result<(u32, u32), TarProblem> {
        Ok((small(field(block, MAJOR))?, small(field(block, MINOR))?))
    };
    let kind = match flag {
        // Older writers mark a directory by the end of its name only.
        b'0' | 0 | b'7' if path.ends_with(b"/") && size == 0 => MemberKind::Directory,
        b'0' | 0 | b'7' => MemberKind::File(size),
        b'1' if !link.is_empty() => MemberKind::HardLink(link),
        b'2' if !link.is_empty() => MemberKind::Symlink(link),
        b'1' | b'2' => return Err(TarProblem::Member),
        b'3' => device().map(|(major, minor)| MemberKind::CharacterDevice(major, minor))?,
        b'4' => device().map(|(major, minor)| MemberKind::BlockDevice(major, minor))?,
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        b'S' => return Err(TarProblem::Sparse),
        other => return Err(TarProblem::Type(other)),
    };
    if size != 0 && !matches!(kind, MemberKind::File(_)) {
        return Err(TarProblem::Member);
    }
    let name = |given: Option<String>, range| {
        given.unwrap_or_else(|| String::from_utf8_lossy(before_nul(field(block, range))).into_owned())
    };
    let attributes = Attributes {
        mode: small(field(block, MODE))? & 0o7777,
        uid: extended.uid.map_or_else(|| small(field(block, UID)), Ok)?,
        gid: extended.gid.map_or_else(|| small(field(block, GID)), Ok)?,
        user: name(extended.user, USER),
        group: name(extended.group, GROUP),
        mtime: extended.mtime.map_or_else(|| time(field(block, MTIME)), Ok)?,
        xattrs: extended.xattrs,
    };
    Ok(Member { path, kind, attributes })
}

/// A number of at most 32 bits. An empty field, as some writers leave for devices, is 0.
fn small(field: &[u8]) -> Result<u32, TarProblem> {
    if field.iter().all(|byte| *byte == 0 || *byte == b' ') {
        return Ok(0);
    }
    u32::try_from(number(field)?).map_err(|_| TarProblem::Number)
}

/// Seconds, which GNU tar also writes negative, as a number of two's complement in base 256.
fn time(field: &[u8]) -> Result<(i64, u32), TarProblem> {
    let seconds = match field.split_first() {
        Some((0xff, rest)) => rest.iter().fold(-1_i64, |value, byte| (value << 8) | i64::from(*byte)),
        _ => i64::try_from(number(field)?).map_err(|_| TarProblem::Number)?,
    };
    Ok((seconds, 0))
}

impl Extended {
    fn says_something(&self) -> bool {
        let Extended { path, link, size, uid, gid, user, group, mtime, xattrs, bytes: _ } = self;
        path.is_some()
            || link.is_some()
            || size.is_some()
            || uid.is_some()
            || gid.is_some()
            || user.is_some()
            || group.is_some()
            || mtime.is_some()
            || !xattrs.is_empty()
    }

    /// Records are `<length> <key>=<value>\n`, the length counting itself; a value may hold any byte.
    fn learn(&mut self, mut records: &[u8]) -> Result<(), TarProblem> {
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(TarProblem::PaxRecord)?;
            let (digits, _) = records.split_at(space);
            let length = decimal(digits).and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| *length <= records.len()).ok_or(TarProblem::PaxRecord)?;
            let (record, rest) = records.split_at(length);
            records = rest;
            let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n"));
            let body = body.ok_or(TarProblem::PaxRecord)?;
            let equals = body.iter().position(|byte| *byte == b'=').ok_or(TarProblem::PaxRecord)?;
            let (key, value) = body.split_at(equals);
            self.learn_one(key, value.get(1..).unwrap_or_default())?;
        }
        Ok(())
    }

    fn learn_one(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        let number = || decimal(value).ok_or(TarProblem::PaxRecord);
        let id = || u32::try_from(number()?).map_err(|_| TarProblem::Number);
        let text = || String::from_utf8(value.to_vec()).map_err(|_| TarProblem::PaxRecord);
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if self.xattrs.len() >= 256 || name.is_empty() || name.contains(&0) {
                return Err(TarProblem::Attributes);
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let once = |taken: bool| if taken { Err(TarProblem::PaxRecord) } else { Ok(()) };
        match key {
            b"path" => once(self.path.replace(value.to_vec()).is_some())?,
            b"linkpath" => once(self.link.replace(value.to_vec()).is_some())?,
            b"size" => once(self.size.replace(number()?).is_some())?,
            b"uid" => once(self.uid.replace(id()?).is_some())?,
            b"gid" => once(self.gid.replace(id()?).is_some())?,
            b"uname" => once(self.user.replace(text()?).is_some())?,
            b"gname" => once(self.group.replace(text()?).is_some())?,
            b"mtime" => once(self.mtime.replace(fraction(&text()?).ok_or(TarProblem::PaxRecord)?).is_some())?,
            sparse if sparse.starts_with(b"GNU.sparse") => return Err(TarProblem::Sparse),
            // Other times, comments, character sets of names: nothing that is kept here.
            _ => {}
        }
        Ok(())
    }
}

/// `1600000000.25`, also negative.
fn fraction(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match whole.starts_with('-') && nanos > 0 {
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        false => Some((seconds, nanos)),
    }
}

/// Writes an archive in the format of GNU tar, which every unpacker on a device reads; extended attributes go into PAX
/// headers, which unpackers that do not know them skip.
pub struct MemberWriter<W> {
    out: W,
    remaining: u64,
    padding: usize,
}

impl<W: Write> MemberWriter<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> MemberWriter<W> {
        MemberWriter { out, remaining: 0, padding: 0 }
    }

    /// Starts a member. The content of a file has to follow. Fractions of seconds are dropped.
    ///
    /// # Errors
    /// Those of the output, and when the file before is not complete.
    pub fn begin(&mut self, member: &Member) -> io::Result<()> {
        self.finish_member()?;
        let attributes = &member.attributes;
        if !attributes.xattrs.is_empty() {
            let mut records = Vec::new();
            for (name, value) in &attributes.xattrs {
                push_record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
            }
            self.extension(b'x', b"./PaxHeaders/attributes", &records)?;
        }
        let (flag, size, link) = match &member.kind {
            MemberKind::File(size) => (b'0', *size, &[][..]),
            MemberKind::Directory => (b'5', 0, &[][..]),
            MemberKind::Symlink(target) => (b'2', 0, &target[..]),
            MemberKind::HardLink(target) => (b'1', 0, &target[..]),
            MemberKind::Fifo => (b'6', 0, &[][..]),
            MemberKind::CharacterDevice(..) => (b'3', 0, &[][..]),
            MemberKind::BlockDevice(..) => (b'4', 0, &[][..]),
        };
        for (text, flag) in [(link, b'K'), (&member.path[..], b'L')] {
            if text.len() > NAME.len() {
                self.extension(flag, b"././@LongLink", &[text, b"\0"].concat())?;
            }
        }
        let mut block = gnu_block(&member.path, flag, size, attributes);
        let mut put = |range: std::ops::Range<usize>, bytes: &[u8]| {
            block
                .iter_mut()
                .skip(range.start)
                .take(range.len())
                .zip(bytes)
                .for_each(|(to, from)| *to = *from);
        };
        put(LINK_NAME, link);
        if let MemberKind::CharacterDevice(major, minor) | MemberKind::BlockDevice(major, minor) = member.kind
        {
            put(MAJOR, &octal_or_binary(u64::from(major), MAJOR.len()));
            put(MINOR, &octal_or_binary(u64::from(minor), MINOR.len()));
        }
        self.out.write_all(&sealed(block))?;
        self.remaining = size;
        self.padding = padding_of(size);
        Ok(())
    }

    /// Ends the archive with two zero blocks.
    ///
    /// # Errors
    /// Those of the output, and when the last file is not complete.
    pub fn finish(mut self) -> io::Result<W> {
        self.finish_member()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn finish_member(&mut self) -> io::Result<()> {
        if self.remaining > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all([0; BLOCK].get(..padding).unwrap_or_default())
    }

    fn extension(&mut self, flag: u8, name: &[u8], data: &[u8]) -> io::Result<()> {
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        self.out.write_all(&sealed(gnu_block(name, flag, data.len() as u64, &attributes)))?;
        self.out.write_all(data)?;
        self.out.write_all([0; BLOCK].get(..padding_of(data.len() as u64)).unwrap_or_default())
    }
}

/// Writes content of the current file.
impl<W: Write> Write for MemberWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() as u64 > self.remaining {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file became longer"));
        }
        let count = self.out.write(data)?;
        self.remaining -= count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn gnu_block(name: &[u8], flag: u8, size: u64, attributes: &Attributes) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |range: std::ops::Range<usize>, bytes: &[u8]| {
        block.iter_mut().skip(range.start).take(range.len()).zip(bytes).for_each(|(to, from)| *to = *from);
    };
    put(NAME, name);
    put(MODE, &octal_or_binary(u64::from(attributes.mode), MODE.len()));
    put(UID, &octal_or_binary(u64::from(attributes.uid), UID.len()));
    put(GID, &octal_or_binary(u64::from(attributes.gid), GID.len()));
    put(SIZE, &octal_or_binary(size, SIZE.len()));
    let seconds = attributes.mtime.0;
    let mtime = match u64::try_from(seconds) {
        Ok(seconds) => octal_or_binary(seconds, MTIME.len()),
        Err(_) => [&[0xff; 4][..], &seconds.to_be_bytes()].concat(),
    };
    put(MTIME, &mtime);
    put(TYPE..TYPE + 1, &[flag]);
    put(MAGIC, GNU_MAGIC);
    // With a NUL at the end, so that a longer name is not written rather than cut.
    for (range, name) in [(USER, &attributes.user), (GROUP, &attributes.group)] {
        if name.len() < range.len() {
            put(range, name.as_bytes());
        }
    }
    block
}

fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block.iter_mut().skip(CHECKSUM.start).take(CHECKSUM.len()).for_each(|byte| *byte = b' ');
    let sum = format!("{:06o}\0 ", checksum(&block));
    block.iter_mut().skip(CHECKSUM.start).zip(sum.bytes()).for_each(|(to, from)| *to = from);
    block
}

/// Octal digits and a NUL, or base 256 where they do not fit.
fn octal_or_binary(value: u64, length: usize) -> Vec<u8> {
    let digits = format!("{value:0width$o}\0", width = length - 1);
    if digits.len() <= length {
        return digits.into_bytes();
    }
    let mut bytes = vec![0; length.saturating_sub(8)];
    bytes.extend(value.to_be_bytes().iter().skip(8_usize.saturating_sub(length)));
    if let Some(first) = bytes.first_mut() {
        *first = 0x80;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            mode: 0o6751,
            uid: 3_000_000,
            gid: 7,
            user: "alice".to_owned(),
            group: "users".to_owned(),
            mtime: (-86_400, 0),
            xattrs: vec![
                (b"user.one".to_vec(), vec![0, b'\n', b'=', 255]),
                (b"security.capability".to_vec(), vec![1; 600]),
            ],
        }
    }

    fn members() -> Vec<Member> {
        let long = |length: usize| vec![b'x'; length];
        [
            (b"./".to_vec(), MemberKind::Directory),
            (b"./file".to_vec(), MemberKind::File(1500)),
            (b"./empty".to_vec(), MemberKind::File(0)),
            (long(100), MemberKind::File(1)),
            (long(101), MemberKind::Symlink(long(100))),
            (long(4000), MemberKind::HardLink(long(4095))),
            (vec![b'a', 0xff, 0xfe], MemberKind::Symlink(vec![0xff])),
            (b"pipe".to_vec(), MemberKind::Fifo),
            (b"tty".to_vec(), MemberKind::CharacterDevice(4, 64)),
            (b"disk".to_vec(), MemberKind::BlockDevice(259, 3_000_000)),
        ]
        .into_iter()
        .map(|(path, kind)| Member { path, kind, attributes: attributes() })
        .collect()
    }

    fn pack(members: &[Member]) -> Vec<u8> {
        let mut tar = MemberWriter::new(Vec::new());
        for member in members {
            tar.begin(member).unwrap();
            if let MemberKind::File(size) = member.kind {
                tar.write_all(&vec![b'c'; usize::try_from(size).unwrap()]).unwrap();
            }
        }
        tar.finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> Result<Vec<Member>, ArtifactError> {
        let mut tar = MemberReader::new(bytes);
        let mut found = Vec::new();
        while let Some(member) = tar.next_member()? {
            if let MemberKind::File(size) = member.kind {
                let mut content = Vec::new();
                tar.read_to_end(&mut content).map_err(ArtifactError::from_io)?;
                assert_eq!(content, vec![b'c'; usize::try_from(size).unwrap()]);
            }
            found.push(member);
        }
        assert!(tar.next_member().unwrap().is_none());
        Ok(found)
    }

    #[track_caller]
    fn refused(bytes: &[u8], words: &str) {
        let error = unpack(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let bytes = pack(&members());
        assert_eq!(unpack(&bytes).unwrap(), members());
        let padded = [bytes, vec![0; 20_000]].concat();
        assert_eq!(unpack(&padded).unwrap(), members());
    }

    #[test]
    fn content_that_is_not_read_is_skipped() {
        let bytes = pack(&members());
        let mut tar = MemberReader::new(&bytes[..]);
        let mut count = 0;
        while tar.next_member().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, members().len());
    }

    #[test]
    fn an_archive_that_breaks_off_anywhere_is_refused() {
        let bytes = pack(&members());
        // The second of the two zero blocks may be missing, as other readers allow.
        for length in 0..bytes.len() - BLOCK {
            assert!(unpack(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let archive = |flag: u8, size: u64, change: &dyn Fn(&mut [u8; BLOCK])| {
            let mut block = gnu_block(b"name", flag, size, &Attributes::default());
            change(&mut block);
            [&sealed(block)[..], &[0; 2 * BLOCK]].concat()
        };
        let extension = |flag: u8, data: &[u8]| {
            let mut tar = MemberWriter::new(Vec::new());
            tar.extension(flag, b"extension", data).unwrap();
            tar.begin(&Member {
                path: b"name".to_vec(),
                kind: MemberKind::File(0),
                attributes: Attributes::default(),
            })
            .unwrap();
            tar.finish().unwrap()
        };
        refused(&archive(b'S', 0, &|_| {}), "--no-read-sparse");
        refused(&archive(b'V', 0, &|_| {}), "type 'V'");
        refused(&archive(b'2', 0, &|_| {}), "link without a target");
        refused(&archive(b'5', 512, &|_| {}), "content where none belongs");
        refused(&archive(b'0', 0, &|block| block[MAGIC].fill(0)), "V7");
        refused(&archive(b'0', 0, &|block| block[MAGIC].fill(b'x')), "neither a ustar nor a GNU");
        refused(&archive(b'0', 0, &|block| block[NAME].fill(0)), "malformed member name");
        refused(&archive(b'0', 0, &|block| block[UID].fill(b'9')), "malformed number");
        let mut wrong = archive(b'0', 0, &|_| {});
        wrong[0] ^= 1;
        refused(&wrong, "checksum");
        refused(&archive(b'x', 1 << 40, &|_| {}), "extension header bytes");
        refused(&extension(b'x', b"22 GNU.sparse.major=1\n"), "sparse file");
        refused(&extension(b'x', b"9 path=x\n9 path=y\n"), "malformed PAX record");
        refused(&extension(b'x', b"99 path=x\n"), "malformed PAX record");
        refused(&extension(b'x', b"9 size=3\n9 uid=-1\n"), "malformed PAX record");
        refused(&extension(b'g', b"9 path=x\n"), "unsupported kind");
        assert!(unpack(&extension(b'g', b"16 comment=abcd\n")).is_ok());
        let dangling = extension(b'x', b"9 path=x\n")[..2 * BLOCK].to_vec();
        refused(&[dangling, vec![0; 2 * BLOCK]].concat(), "no member behind it");
        refused(&[pack(&members()), vec![1; BLOCK]].concat(), "behind the end");
        let many: Vec<u8> = (0..300).flat_map(|_| *b"20 SCHILY.xattr.a=b\n").collect();
        refused(&extension(b'x', &many), "too many extended attributes");
    }

    #[test]
    fn times_have_fractions_on_either_side_of_1970() {
        for (text, expected) in [
            ("5", Some((5, 0))),
            ("5.25", Some((5, 250_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.1234567891", Some((1, 123_456_789))),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(fraction(text), expected, "{text}");
        }
    }
}
