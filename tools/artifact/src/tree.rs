//! Packs a directory tree as the payload type `directory` carries it: `update.tar`, with names as `tar -C DIR .` writes
//! them, in order, and with owners by number.
//!
//! The crate `tar` writes fields, checksums, padding and the end. What it has for whole members is not used: it drops the
//! `./` of names, cuts a file that became shorter without a word, writes sparse files in a form that devices refuse, and
//! gives headers with extended attributes no name, which busybox takes for the end of the archive.

use crate::failure::Failure;
use artifact::tree::{Attributes, Member, MemberKind, TreeRules};
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// The largest list of names and the largest value that Linux knows.
const XATTR_BYTES: usize = 64 * 1024;
/// The longest name that a header has room for.
const NAME_BYTES: usize = 100;
/// The largest number of a device that a header has room for; Linux has smaller ones.
const DEVICE_NUMBER: u32 = 0o7_777_777;

/// Writes the tree at `root` to `out`, and returns that. With `reproducible` all times are 0; `owner` goes before the
/// owners on disk.
pub(crate) fn pack(
    root: &Path,
    out: File,
    owner: Option<(u32, u32)>,
    reproducible: bool,
) -> Result<File, Failure> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| Failure::io(format_args!("pack {path}"), error)
    };
    if !fs::metadata(root).map_err(failed(root))?.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", root.display())));
    }
    let mut packer = Packer {
        tar: Builder::new(BufWriter::new(out)),
        names: HashMap::new(),
        owner,
        reproducible,
        rules: TreeRules::default(),
    };
    let mut waiting = vec![(root.to_owned(), b"./".to_vec())];
    while let Some((path, name)) = waiting.pop() {
        // The root may be a link to the directory that is meant.
        let meta = if path == root { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let meta = meta.map_err(failed(&path))?;
        packer.pack(&path, &name, &meta).map_err(failed(&path))?;
        if meta.is_dir() {
            let mut below = entries(&path, &name).map_err(failed(&path))?;
            // The last one is taken first.
            below.sort_by(|one, other| other.1.cmp(&one.1));
            waiting.append(&mut below);
        }
    }
    let writing = |error| Failure::io("write update.tar", error);
    let buffer = packer.tar.into_inner().map_err(writing)?;
    buffer.into_inner().map_err(|error| writing(error.into_error()))
}

fn entries(path: &Path, name: &[u8]) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let mut name = [name, entry.file_name().as_bytes()].concat();
        if entry.file_type()?.is_dir() {
            name.push(b'/');
        }
        found.push((entry.path(), name));
    }
    Ok(found)
}

struct Packer<W: Write> {
    tar: Builder<W>,
    /// First names of files with several.
    names: HashMap<(u64, u64), Vec<u8>>,
    owner: Option<(u32, u32)>,
    reproducible: bool,
    /// What a device takes: an archive that it would refuse is not written.
    rules: TreeRules,
}

impl<W: Write> Packer<W> {
    fn pack(&mut self, path: &Path, name: &[u8], meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        let device = || (major(meta.rdev()), minor(meta.rdev()));
        let identity = (meta.dev(), meta.ino());
        let first = self.names.get(&identity).filter(|_| !kind.is_dir());
        let what = if let Some(first) = first {
            MemberKind::HardLink(first.clone())
        } else if kind.is_dir() {
            MemberKind::Directory
        } else if kind.is_file() {
            MemberKind::File(meta.len())
        } else if kind.is_symlink() {
            MemberKind::Symlink(fs::read_link(path)?.as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            MemberKind::Fifo
        } else if kind.is_char_device() {
            MemberKind::CharacterDevice(device().0, device().1)
        } else if kind.is_block_device() {
            MemberKind::BlockDevice(device().0, device().1)
        } else {
            // A socket belongs to a program that runs.
            return Ok(());
        };
        if !kind.is_dir() && meta.nlink() > 1 {
            self.names.entry(identity).or_insert_with(|| name.to_vec());
        }
        let (uid, gid) = self.owner.unwrap_or((meta.uid(), meta.gid()));
        let attributes = Attributes {
            mode: meta.mode() & 0o7777,
            uid,
            gid,
            mtime: if self.reproducible { (0, 0) } else { (meta.mtime(), 0) },
            // A second name has those of the first.
            xattrs: if matches!(what, MemberKind::HardLink(_)) { Vec::new() } else { xattrs(path)? },
            ..Attributes::default()
        };
        let member = Member { path: name.to_vec(), kind: what, attributes };
        self.rules
            .place(&member)
            .map_err(|error| io::Error::other(format!("a device would refuse it: {error}")))?;
        match member.kind {
            MemberKind::File(size) => {
                append(&mut self.tar, &member, Whole { file: File::open(path)?, left: size })
            }
            MemberKind::Directory
            | MemberKind::Symlink(_)
            | MemberKind::HardLink(_)
            | MemberKind::Fifo
            | MemberKind::CharacterDevice(..)
            | MemberKind::BlockDevice(..) => append(&mut self.tar, &member, io::empty()),
        }
    }
}

/// A file, of which as much is read as its header says, and no less.
struct Whole {
    file: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        match self.file.read(buffer)? {
            0 => Err(io::Error::other("the file became shorter")),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Writes a member in the format of GNU tar, which every unpacker on a device reads: long names and links in members in
/// front of it, extended attributes in a PAX header, which unpackers that do not know them skip.
fn append(tar: &mut Builder<impl Write>, member: &Member, content: impl Read) -> io::Result<()> {
    let plain = Attributes { mode: 0o644, ..Attributes::default() };
    let mut extension = |kind: EntryType, name: &[u8], data: &[u8]| {
        tar.append(&header(kind, name, data.len() as u64, &plain, &[], (0, 0))?, data)
    };
    if !member.attributes.xattrs.is_empty() {
        extension(EntryType::XHeader, b"./PaxHeaders/attributes", &records(&member.attributes.xattrs))?;
    }
    let (kind, size, link, device) = match &member.kind {
        MemberKind::File(size) => (EntryType::Regular, *size, &[][..], (0, 0)),
        MemberKind::Directory => (EntryType::Directory, 0, &[][..], (0, 0)),
        MemberKind::Symlink(target) => (EntryType::Symlink, 0, &target[..], (0, 0)),
        MemberKind::HardLink(target) => (EntryType::Link, 0, &target[..], (0, 0)),
        MemberKind::Fifo => (EntryType::Fifo, 0, &[][..], (0, 0)),
        MemberKind::CharacterDevice(major, minor) => (EntryType::Char, 0, &[][..], (*major, *minor)),
        MemberKind::BlockDevice(major, minor) => (EntryType::Block, 0, &[][..], (*major, *minor)),
    };
    for (text, kind) in [(link, EntryType::GNULongLink), (&member.path[..], EntryType::GNULongName)] {
        if text.len() > NAME_BYTES {
            extension(kind, b"././@LongLink", &[text, b"\0"].concat())?;
        }
    }
    tar.append(&header(kind, &member.path, size, &member.attributes, link, device)?, content)
}

fn header(
    kind: EntryType,
    name: &[u8],
    size: u64,
    attributes: &Attributes,
    link: &[u8],
    device: (u32, u32),
) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(attributes.mode);
    header.set_uid(u64::from(attributes.uid));
    header.set_gid(u64::from(attributes.gid));
    header.set_size(size);
    if kind == EntryType::Char || kind == EntryType::Block {
        if device.0.max(device.1) > DEVICE_NUMBER {
            return Err(io::Error::other(format!("no archive holds the device {}:{}", device.0, device.1)));
        }
        header.set_device_major(device.0)?;
        header.set_device_minor(device.1)?;
    }
    let fields = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidData)?;
    // As they are: as paths they would lose the `./` at their start.
    copy(&mut fields.name, name);
    copy(&mut fields.linkname, link);
    let seconds = attributes.mtime.0;
    match u64::try_from(seconds) {
        Ok(seconds) => header.set_mtime(seconds),
        // Before 1970, which the crate has no word for: two's complement in base 256, as GNU tar writes it.
        Err(_) => copy(&mut fields.mtime, &[&[0xff; 4][..], &seconds.to_be_bytes()].concat()),
    }
    header.set_cksum();
    // Six digits, NUL and a blank, as every other writer; the crate writes seven digits.
    let sum = format!("{:06o}\0 ", header.cksum()?);
    copy(&mut header.as_old_mut().cksum, sum.as_bytes());
    Ok(header)
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

/// `<length> SCHILY.xattr.<name>=<value>\n` for each, the length counting itself. The crate writes these only with names that
/// are UTF-8.
fn records(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut records = Vec::new();
    for (name, value) in xattrs {
        let body = [b" SCHILY.xattr.", &name[..], b"=", value, b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        records.extend([length.to_string().as_bytes(), &body].concat());
    }
    records
}

/// Sorted by name.
fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR_BYTES];
    let count = match llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        count => count?,
    };
    names.truncate(count);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_BYTES];
        let count = lgetxattr(path, name, &mut value[..])?;
        value.truncate(count);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use artifact::tree::MemberWriter;

    use super::*;

    /// What there may be in a tree, and what goes beyond it: every field at its limits.
    fn members() -> Vec<Member> {
        let long = |length: usize| vec![b'x'; length];
        let kinds = [
            (b"./".to_vec(), MemberKind::Directory),
            (b"./file".to_vec(), MemberKind::File(1500)),
            (b"./empty".to_vec(), MemberKind::File(0)),
            (b"./block".to_vec(), MemberKind::File(512)),
            (long(100), MemberKind::File(1)),
            (long(101), MemberKind::Symlink(long(100))),
            (long(4000), MemberKind::HardLink(long(4095))),
            (vec![b'a', 0xff, 0xfe], MemberKind::Symlink(vec![0xff])),
            (b"pipe".to_vec(), MemberKind::Fifo),
            (b"tty".to_vec(), MemberKind::CharacterDevice(4, 64)),
            (b"disk".to_vec(), MemberKind::BlockDevice(4095, 1_048_575)),
        ];
        let attributes = [
            Attributes { mode: 0o6751, uid: 3_000_000, gid: 7, mtime: (-86_400, 0), ..Attributes::default() },
            Attributes {
                mode: 0o644,
                mtime: (1 << 34, 0),
                gid: u32::MAX,
                xattrs: vec![
                    (b"security.capability".to_vec(), vec![1; 600]),
                    (b"user.\xff".to_vec(), vec![0, b'\n', b'=', 255]),
                    (b"user.short".to_vec(), vec![b'v'; 74]),
                ],
                ..Attributes::default()
            },
        ];
        let with = |(path, kind): &(Vec<u8>, MemberKind)| {
            attributes.clone().map(|attributes| Member { path: path.clone(), kind: kind.clone(), attributes })
        };
        kinds.iter().flat_map(with).collect()
    }

    #[test]
    fn the_archive_is_to_the_byte_the_one_that_readers_are_tested_with() {
        let mut ours = MemberWriter::new(Vec::new());
        let mut tar = Builder::new(Vec::new());
        for member in members() {
            let size = if let MemberKind::File(size) = member.kind { size } else { 0 };
            let content = vec![b'c'; usize::try_from(size).unwrap()];
            ours.begin(&member).unwrap();
            ours.write_all(&content).unwrap();
            append(&mut tar, &member, &content[..]).unwrap();
        }
        assert!(tar.into_inner().unwrap() == ours.finish().unwrap());
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_and_of_one_that_became_longer_the_rest_is_left() {
        let path = std::env::temp_dir().join(format!("tree-whole-{}", std::process::id()));
        std::fs::write(&path, b"12345").unwrap();
        let read = |left| {
            let mut text = String::new();
            Whole { file: File::open(&path).unwrap(), left }.read_to_string(&mut text).map(|_| text)
        };
        let (shorter, same, longer) = (read(6), read(5), read(4));
        std::fs::remove_file(&path).unwrap();
        assert!(shorter.unwrap_err().to_string().contains("became shorter"));
        assert_eq!((same.unwrap(), longer.unwrap()), ("12345".to_owned(), "1234".to_owned()));
    }

    #[test]
    fn a_device_whose_number_has_no_room_is_refused() {
        let device =
            |minor| header(EntryType::Block, b"d", 0, &Attributes::default(), &[], (0, minor)).is_ok();
        assert!(device(DEVICE_NUMBER) && !device(DEVICE_NUMBER + 1));
    }
}
