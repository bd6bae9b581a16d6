//! The files of this device, for the payload types that are built in.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use client_core::artifact::tree::Attributes;
use client_core::install::files::{Files, FilesError, Found, Kind, Node};
use client_core::install::{Arriving, InstallError, Progress};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::geteuid;

use crate::payload_tree::Tree;
use crate::{atomic_file, file_system, mounts};

/// Bytes of `/etc/passwd` and of `/etc/group` that are read.
const DATABASE_BYTES: u64 = 1 << 20;

/// Real files.
pub struct LinuxFiles {
    tree: Tree,
    /// Numbers of the owners in an archive, by name; `None` where this device has no such name.
    users: BTreeMap<String, Option<u32>>,
    groups: BTreeMap<String, Option<u32>>,
}

impl LinuxFiles {
    /// With the payload in this file tree.
    pub fn new(tree: Tree) -> LinuxFiles {
        LinuxFiles { tree, users: BTreeMap::new(), groups: BTreeMap::new() }
    }

    fn owner(&mut self, attributes: &Attributes) -> (u32, u32) {
        let user = number_of(&mut self.users, "/etc/passwd", &attributes.user);
        let group = number_of(&mut self.groups, "/etc/group", &attributes.group);
        (user.unwrap_or(attributes.uid), group.unwrap_or(attributes.gid))
    }

    fn apply(&mut self, path: &Path, attributes: &Attributes, is_symlink: bool) -> io::Result<()> {
        // Only root may give files away; for anybody else they are their own.
        if geteuid().is_root() {
            let (uid, gid) = self.owner(attributes);
            lchown(path, Some(uid), Some(gid))?;
        }
        if !is_symlink {
            // Behind the owner: giving a file away takes its set-user-id bit.
            fs::set_permissions(path, fs::Permissions::from_mode(attributes.mode))?;
        }
        for (name, value) in &attributes.xattrs {
            match set_xattr(path, name, value) {
                Err(error) if name == b"security.selinux" => {
                    log::warn!("{}: no SELinux label: {error}", path.display());
                }
                done => done?,
            }
        }
        let (seconds, nanos) = attributes.mtime;
        let time = TimeSpec::new(seconds as _, i64::from(nanos) as _);
        utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn make(&mut self, path: &Path, node: Node<'_>, attributes: Option<&Attributes>) -> io::Result<()> {
        let special = |kind, major: u32, minor: u32| {
            let device = makedev(u64::from(major), u64::from(minor));
            mknod(path, kind, Mode::from_bits_truncate(0o600), device).map_err(io::Error::from)
        };
        let is_symlink = matches!(node, Node::Symlink(_));
        match node {
            Node::File(content) => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                copy(content, &mut file)?;
            }
            Node::Directory => {
                fs::DirBuilder::new().mode(0o700).create(path)?;
                if attributes.is_none() {
                    // Whatever the mask of this process is.
                    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
                }
            }
            Node::Symlink(target) => symlink(OsStr::from_bytes(target), path)?,
            Node::Fifo => special(SFlag::S_IFIFO, 0, 0)?,
            Node::CharacterDevice(major, minor) => special(SFlag::S_IFCHR, major, minor)?,
            Node::BlockDevice(major, minor) => special(SFlag::S_IFBLK, major, minor)?,
        }
        match attributes {
            Some(attributes) => self.apply(path, attributes, is_symlink),
            None => Ok(()),
        }
    }

    fn copy_all(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(from)?;
        let attributes = Attributes {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            user: String::new(),
            group: String::new(),
            mtime: (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0)),
            xattrs: xattrs(from)?,
        };
        if found.file_type().is_symlink() {
            let target = fs::read_link(from)?;
            return self.make(to, Node::Symlink(target.as_os_str().as_bytes()), Some(&attributes));
        }
        if !found.is_file() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.make(to, Node::File(&mut File::open(from)?), Some(&attributes))
    }
}

/// The number that `database` has for `name`, as `name:password:number:...`. Read here and not by the C library, which
/// would bring its directory services into the program.
fn number_of(known: &mut BTreeMap<String, Option<u32>>, database: &str, name: &str) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    if let Some(number) = known.get(name) {
        return *number;
    }
    // An archive with more owners than this has its names looked up again.
    if known.len() >= 1000 {
        known.clear();
    }
    let mut text = Vec::new();
    let number = match File::open(database).and_then(|file| file.take(DATABASE_BYTES).read_to_end(&mut text))
    {
        Ok(_) => number_in(&text, name),
        Err(error) => {
            log::warn!("{name} is not looked up in {database}: {error}");
            None
        }
    };
    known.insert(name.to_owned(), number);
    number
}

fn number_in(database: &[u8], name: &str) -> Option<u32> {
    database.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':');
        if fields.next()? != name {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

/// `io::copy` through a buffer that suits a disk.
fn copy(from: &mut dyn Read, to: &mut File) -> io::Result<()> {
    let mut from = io::BufReader::with_capacity(64 * 1024, from);
    io::copy(&mut from, to).map(drop)
}

impl Files for LinuxFiles {
    fn store(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        self.tree.create(arriving)?;
        self.tree.store_files(arriving.payload, progress)
    }

    fn tree(&self) -> PathBuf {
        self.tree.path("")
    }

    fn remove_payload(&mut self) -> Result<(), InstallError> {
        self.tree.remove()
    }

    fn look(&mut self, path: &Path) -> Result<Option<Found>, FilesError> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if is_nothing(&error) => return Ok(None),
            Err(error) => return Err(failed("look at", path)(error)),
        };
        let kind = match found.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Symlink,
            _ => Kind::Special,
        };
        Ok(Some(Found { kind, identity: found.ino() }))
    }

    fn is_directory(&mut self, path: &Path) -> Result<bool, FilesError> {
        match fs::metadata(path) {
            Ok(found) => Ok(found.is_dir()),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(failed("look at", path)(error)),
        }
    }

    fn open(&mut self, path: &Path) -> Result<Box<dyn Read>, FilesError> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        Ok(Box::new(file.map_err(failed("open", path))?))
    }

    fn create(
        &mut self,
        path: &Path,
        node: Node<'_>,
        attributes: Option<&Attributes>,
    ) -> Result<(), FilesError> {
        self.make(path, node, attributes).map_err(failed("create", path))
    }

    fn set_mode(&mut self, path: &Path, mode: u32) -> Result<(), FilesError> {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(path, permissions).map_err(failed("set the permissions of", path))
    }

    fn set_attributes(&mut self, path: &Path, attributes: &Attributes) -> Result<(), FilesError> {
        self.apply(path, attributes, false).map_err(failed("set the attributes of", path))
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        self.copy_all(from, to).map_err(failed("copy", from))
    }

    fn link(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        fs::hard_link(from, to)
            .map_err(unsupported_if(&[Errno::EPERM, Errno::EOPNOTSUPP, Errno::ENOSYS, Errno::EMLINK]))
            .map_err(failed("link", from))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        fs::rename(from, to).map_err(failed("rename", from))
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> Result<(), FilesError> {
        exchange(one, other)
            .map_err(unsupported_if(&[Errno::EINVAL, Errno::ENOSYS, Errno::EOPNOTSUPP]))
            .map_err(failed("exchange", other))
    }

    fn remove(&mut self, path: &Path) -> Result<(), FilesError> {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if is_nothing(&error) => Ok(()),
            done => done.map_err(failed("remove", path)),
        }
    }

    fn remove_empty_directory(&mut self, path: &Path) -> Result<bool, FilesError> {
        match fs::remove_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if is_nothing(&error) => Ok(true),
            Err(error)
                if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::ResourceBusy]
                    .contains(&error.kind()) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed("remove", path)(error)),
        }
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), FilesError> {
        atomic_file::sync_directory(path).map_err(failed("sync", path))
    }

    fn sync_tree(&mut self, path: &Path) -> Result<(), FilesError> {
        atomic_file::sync_tree(path).map_err(failed("sync", path))
    }

    fn mounted_in(&mut self, path: &Path) -> Result<Option<PathBuf>, FilesError> {
        let unreadable = |error| failed("list what is mounted in", path)(io::Error::other(error));
        let real = real_place(path).map_err(failed("find", path))?;
        let mounts = mounts::read(&mounts::Places::default()).map_err(unreadable)?;
        Ok(mounts.into_iter().map(|mount| PathBuf::from(mount.point)).find(|point| point.starts_with(&real)))
    }

    fn holds_tree(&mut self, directory: &Path) -> Result<bool, FilesError> {
        let tree = self.tree.path("");
        let real = |path: &Path| match fs::canonicalize(path) {
            Ok(real) => Ok(Some(real)),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(failed("find", path)(error)),
        };
        Ok(match (real(&tree)?, real(directory)?) {
            (Some(tree), Some(directory)) => tree.starts_with(directory),
            (None, _) | (_, None) => false,
        })
    }

    fn free_bytes(&mut self, path: &Path) -> Result<Option<u64>, FilesError> {
        file_system::free_bytes(path).map_err(failed("ask for the room at", path))
    }
}

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError { doing, path: path.clone(), source }
}

/// Nothing has the name, perhaps because something on the way is no directory.
fn is_nothing(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

fn unsupported_if(codes: &'static [Errno]) -> impl Fn(io::Error) -> io::Error {
    move |error| match error.raw_os_error().map(Errno::from_raw) {
        Some(code) if codes.contains(&code) => io::Error::new(io::ErrorKind::Unsupported, error),
        Some(_) | None => error,
    }
}

/// The path with all links resolved but the last.
fn real_place(path: &Path) -> io::Result<PathBuf> {
    let parent = fs::canonicalize(path.parent().unwrap_or(Path::new("/")))?;
    Ok(path.file_name().map_or(parent.clone(), |name| parent.join(name)))
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    if !file_system::keeps_inode_numbers(other.parent().unwrap_or(Path::new("/")))? {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let (one, other) = (c_string(one.as_os_str().as_bytes())?, c_string(other.as_os_str().as_bytes())?);
    // SAFETY: both paths end in NUL and live until the call has returned. Called by number, because not every C library
    // has the function.
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path.as_os_str().as_bytes())?, c_string(name)?);
    // SAFETY: path and name end in NUL, the length is that of `value`, and all three live until the call has returned.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The extended attributes of a file or a link; none where there are no such things.
fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = c_string(path.as_os_str().as_bytes())?;
    // The limits of Linux for the list and for one value.
    let mut names = vec![0_u8; 64 * 1024];
    // SAFETY: the path ends in NUL; pointer and length are those of `names`; both live until the call has returned.
    let count = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Unsupported { Ok(Vec::new()) } else { Err(error) };
    };
    let names = names.get(..count).unwrap_or_default();
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let c_name = c_string(name)?;
        let mut value = vec![0_u8; 64 * 1024];
        // SAFETY: as above, with the name, which ends in NUL as well.
        let count = unsafe {
            libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        value.truncate(count);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_the_database() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n\xff:x:1:1\nwww-data:x:33:33::/:\nbroken\nbad:x:y:\n";
        for (name, number) in [("root", Some(0)), ("www-data", Some(33)), ("broken", None), ("bad", None)] {
            assert_eq!(number_in(text, name), number, "{name}");
        }
        assert_eq!(number_of(&mut BTreeMap::new(), "/etc/passwd", "root"), Some(0));
        assert_eq!(number_of(&mut BTreeMap::new(), "/etc/passwd", ""), None);
    }
}
