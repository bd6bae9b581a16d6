//! Packs a directory tree as the payload type `directory` carries it: `update.tar`, with names as `tar -C DIR .` writes
//! them, in order, and with owners by number.

use crate::failure::Failure;
use artifact::tree::{Attributes, Member, MemberKind, MemberWriter, TreeRules};
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The largest list of names and the largest value that Linux knows.
const XATTR_BYTES: usize = 64 * 1024;

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
        tar: MemberWriter::new(BufWriter::new(out)),
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
    let buffer = packer.tar.finish().map_err(writing)?;
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

struct Packer<W> {
    tar: MemberWriter<W>,
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
        let size = if let MemberKind::File(size) = what { Some(size) } else { None };
        let member = Member { path: name.to_vec(), kind: what, attributes };
        self.rules
            .place(&member)
            .map_err(|error| io::Error::other(format!("a device would refuse it: {error}")))?;
        self.tar.begin(&member)?;
        if let Some(size) = size {
            let copied = io::copy(&mut File::open(path)?.take(size), &mut self.tar)?;
            if copied != size {
                return Err(io::Error::other("the file became shorter"));
            }
        }
        Ok(())
    }
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
