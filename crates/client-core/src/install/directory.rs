//! The built-in handler of the payload type `directory`: a whole directory tree, put into place in one step.
//!
//! The payload is the one of the update module of that name: `dest_dir`, and the tree in `update.tar`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::files::{Files, Kind, Node};
use super::replacement::{self, Begun, Replacement};
use super::single_file::{check_room, clean_up, destination, payload, roll_back, take_in};
use super::{Arriving, InstallError, PayloadHandler, PayloadProblem, Progress, RebootNeed, WrittenImage};
use crate::artifact::members::{Attributes, Member, MemberKind, MemberReader};
use crate::boot::Verdict;

/// The payload type.
pub const DIRECTORY: &str = "directory";

const ARCHIVE: &str = "update.tar";
/// Bytes of names and attributes that are kept while an archive is unpacked: those of directories and of symbolic
/// links. Enough for some ten thousands of them.
const KEPT_BYTES: usize = 4 << 20;
/// What a file takes on disk besides its content, and the unit of that: a block.
const BLOCK_BYTES: u64 = 4096;

/// Installs a directory tree.
pub struct DirectoryTree<F> {
    files: F,
}

impl<F: Files> DirectoryTree<F> {
    /// With the files of the device.
    pub fn new(files: F) -> DirectoryTree<F> {
        DirectoryTree { files }
    }

    /// Where the tree goes, if it can go there. Changes nothing.
    fn plan(&mut self) -> Result<String, InstallError> {
        let files = &mut self.files;
        let destination = destination(files)?;
        if destination == "/" {
            return Err(PayloadProblem::Root.into());
        }
        if files.look(&payload(files, ARCHIVE))?.is_none() {
            return Err(PayloadProblem::MissingFile { name: ARCHIVE.to_owned() }.into());
        }
        let path = PathBuf::from(&destination);
        let occupied = |found| Err(PayloadProblem::Occupied { path: path.clone(), found }.into());
        match files.look(&path)?.map(|found| found.kind) {
            None => {}
            // What is mounted in it would go with it, and be emptied with it in the end.
            Some(Kind::Directory) => {
                if let Some(path) = files.mounted_in(&path)? {
                    return Err(PayloadProblem::MountPoint { path }.into());
                }
            }
            Some(Kind::Symlink) if files.is_directory(&path)? => {}
            Some(Kind::Symlink) => return occupied("a symbolic link that leads to no directory"),
            Some(Kind::File) => return occupied("a file"),
            Some(Kind::Special) => return occupied("a special file"),
        }
        if files.holds_tree(&path)? {
            return occupied("where this client keeps its data");
        }
        replacement::missing_parent(files, &path)?;
        Ok(destination)
    }
}

impl<F: Files> PayloadHandler for DirectoryTree<F> {
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        take_in(&mut self.files, arriving, progress)?;
        let destination = self.plan()?;
        let mut members = archive(&mut self.files)?;
        let mut names = Names::default();
        let mut bytes = 0_u64;
        while let Some(member) = members.next_member()? {
            names.place(&member)?;
            let content = if let MemberKind::File(size) = member.kind { size } else { 0 };
            let blocks = content.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
            bytes = bytes.saturating_add(blocks);
        }
        check_room(&mut self.files, Path::new(&destination), bytes)
    }

    fn image(&self) -> Option<WrittenImage> {
        None
    }

    fn restore(&mut self, _: Option<WrittenImage>) {}

    fn install(&mut self) -> Result<(), InstallError> {
        let destination = match Replacement::take_up(&mut self.files)? {
            // What lies there may be the new tree already.
            Some(begun) => begun.destination().to_owned(),
            None => self.plan()?,
        };
        let (mut replacement, begun) = Replacement::begin(&mut self.files, &destination)?;
        if let Begun::Prepare(fresh) = begun {
            unpack(replacement.files(), &fresh)?;
            replacement.sync_fresh()?; // the tree before the name that leads to it
        }
        replacement.put_directory()
    }

    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        Ok(RebootNeed::None)
    }

    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        Ok(true)
    }

    fn reboot(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    fn reboot_back(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), InstallError> {
        // As for a single file: the old tree goes with the cleaning up.
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), InstallError> {
        roll_back(&mut self.files)
    }

    fn fail(&mut self) -> Result<(), InstallError> {
        Ok(())
    }

    fn clean_up(&mut self) -> Result<(), InstallError> {
        clean_up(&mut self.files)
    }

    fn verdict(&mut self) -> Result<Option<Verdict>, InstallError> {
        Ok(None)
    }
}

type Archive = MemberReader<BufReader<Box<dyn std::io::Read>>>;

fn archive(files: &mut dyn Files) -> Result<Archive, InstallError> {
    let path = payload(files, ARCHIVE);
    Ok(MemberReader::new(BufReader::with_capacity(64 * 1024, files.open(&path)?)))
}

/// Makes the tree at `root`, which is free, until it is complete private.
fn unpack(files: &mut dyn Files, root: &Path) -> Result<(), InstallError> {
    let mut members = archive(files)?;
    let mut names = Names::default();
    // Attributes of directories come last: what is made in one changes its time, and may need its permissions.
    let mut directories: Vec<(PathBuf, Attributes)> = Vec::new();
    let mut known_parent = PathBuf::new();
    let private = Attributes { mode: 0o700, ..Attributes::default() };
    files.create(root, Node::Directory, Some(&private))?;
    let mut root_attributes = Attributes { mode: 0o755, ..Attributes::default() };
    while let Some(member) = members.next_member()? {
        let place = names.place(&member)?;
        let Some(path) = place.path.map(|path| root.join(path)) else {
            root_attributes = member.attributes;
            continue;
        };
        if let Some(parent) = path.parent().filter(|parent| *parent != known_parent) {
            make_missing(files, root, parent)?;
            known_parent = parent.to_owned();
        }
        let attributes = &member.attributes;
        let node = match member.kind {
            MemberKind::Directory => {
                if files.look(&path)?.is_none_or(|found| found.kind != Kind::Directory) {
                    files.create(&path, Node::Directory, Some(&private))?;
                }
                directories.push((path, member.attributes));
                continue;
            }
            MemberKind::HardLink(_) => {
                let target = place.link.map(|target| root.join(target)).unwrap_or_default();
                files.link(&target, &path)?;
                continue;
            }
            MemberKind::File(_) => Node::File(&mut members),
            MemberKind::Symlink(ref target) => Node::Symlink(target),
            MemberKind::Fifo => Node::Fifo,
            MemberKind::CharacterDevice(major, minor) => Node::CharacterDevice(major, minor),
            MemberKind::BlockDevice(major, minor) => Node::BlockDevice(major, minor),
        };
        files.create(&path, node, Some(attributes))?;
    }
    for (path, attributes) in directories.iter().rev() {
        files.set_attributes(path, attributes)?;
    }
    Ok(files.set_attributes(root, &root_attributes)?)
}

/// Directories that the archive uses without having them as members.
fn make_missing(files: &mut dyn Files, root: &Path, directory: &Path) -> Result<(), InstallError> {
    let mut missing: Vec<&Path> = Vec::new();
    for path in directory.ancestors().take_while(|path| *path != root) {
        if files.look(path)?.is_some() {
            break;
        }
        missing.push(path);
    }
    for path in missing.iter().rev() {
        files.create(path, Node::Directory, None)?;
    }
    Ok(())
}

/// What may be in an archive of this payload, member by member, as the device holds it. Whoever writes an archive asks
/// the same rules.
#[derive(Default)]
pub struct TreeRules {
    names: Names,
}

impl TreeRules {
    /// Takes the next member, or says why a device would refuse the archive here.
    ///
    /// # Errors
    /// [`InstallError::Payload`].
    pub fn admit(&mut self, member: &Member) -> Result<(), InstallError> {
        self.names.place(member).map(|_| ())
    }
}

/// Where members go, inside of the tree only.
#[derive(Default)]
struct Names {
    /// Symbolic links so far: nothing may be put behind one.
    links: BTreeSet<PathBuf>,
    kept_bytes: usize,
}

/// Where one member goes, relative to the root.
struct Place {
    /// `None` for the root itself.
    path: Option<PathBuf>,
    /// What a hard link leads to.
    link: Option<PathBuf>,
}

impl Names {
    fn place(&mut self, member: &Member) -> Result<Place, InstallError> {
        let escapes = |reason| {
            let member = String::from_utf8_lossy(&member.path).into_owned();
            PayloadProblem::Escapes { member, reason }
        };
        let path = inside(&member.path).map_err(escapes)?;
        self.check_way(&path).map_err(escapes)?;
        let mut link = None;
        match &member.kind {
            MemberKind::HardLink(target) => {
                let target = inside(target).map_err(escapes)?;
                self.check_way(&target).map_err(escapes)?;
                link = Some(target);
            }
            MemberKind::Symlink(_) => {
                self.keep(&path, &member.attributes)?;
                self.links.insert(path.clone());
            }
            MemberKind::Directory => self.keep(&path, &member.attributes)?,
            MemberKind::File(_)
            | MemberKind::Fifo
            | MemberKind::CharacterDevice(..)
            | MemberKind::BlockDevice(..) => {}
        }
        let is_root = |path: &PathBuf| path.as_os_str().is_empty();
        if is_root(&path) && member.kind != MemberKind::Directory || link.as_ref().is_some_and(is_root) {
            return Err(escapes("takes the place of the tree itself").into());
        }
        Ok(Place { path: Some(path).filter(|path| !is_root(path)), link })
    }

    /// Refuses a way through a symbolic link of the archive.
    fn check_way(&self, path: &Path) -> Result<(), &'static str> {
        match path.ancestors().skip(1).any(|way| self.links.contains(way)) {
            true => Err("lies behind a symbolic link"),
            false => Ok(()),
        }
    }

    fn keep(&mut self, path: &Path, attributes: &Attributes) -> Result<(), InstallError> {
        let xattrs = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.kept_bytes += path.as_os_str().len() + attributes.user.len() + attributes.group.len() + 64;
        self.kept_bytes += xattrs.sum::<usize>();
        match self.kept_bytes > KEPT_BYTES {
            true => Err(PayloadProblem::TooManyDirectories { limit_bytes: KEPT_BYTES }.into()),
            false => Ok(()),
        }
    }
}

/// A name without `.` and doubled slashes; empty for the root.
fn inside(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.starts_with(b"/") {
        return Err("is absolute");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads upwards"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(names: &mut Names, path: &str, kind: MemberKind) -> Result<Option<PathBuf>, String> {
        let member = Member { path: path.into(), kind, attributes: Attributes::default() };
        names.place(&member).map(|place| place.path).map_err(|error| error.to_string())
    }

    #[test]
    fn names_stay_inside_of_the_tree() {
        let check = |path: &str, expected: Result<&str, &str>| {
            let found = place(&mut Names::default(), path, MemberKind::File(0));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, Some(PathBuf::from(expected)), "{path}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{path}: {found}"),
                (found, _) => panic!("{path}: {found:?}"),
            }
        };
        check("./a/b", Ok("a/b"));
        check("a//./b", Ok("a/b"));
        check("/etc/passwd", Err("is absolute"));
        check("a/../../b", Err("leads upwards"));
        check("..", Err("leads upwards"));
        check("./", Err("the place of the tree itself"));
        assert_eq!(place(&mut Names::default(), "./", MemberKind::Directory), Ok(None));
    }

    #[test]
    fn nothing_goes_behind_a_symbolic_link() {
        let mut names = Names::default();
        place(&mut names, "./out", MemberKind::Symlink(b"/etc".to_vec())).unwrap();
        place(&mut names, "./outer/x", MemberKind::File(0)).unwrap();
        for (path, kind) in [
            ("out/passwd", MemberKind::File(0)),
            ("out/a/b", MemberKind::Directory),
            ("in", MemberKind::HardLink(b"out/passwd".to_vec())),
        ] {
            let error = place(&mut names, path, kind).unwrap_err();
            assert!(error.contains("behind a symbolic link"), "{error}");
        }
        place(&mut names, "in", MemberKind::HardLink(b"out".to_vec())).unwrap();
        let error = place(&mut names, "in", MemberKind::HardLink(b"../x".to_vec())).unwrap_err();
        assert!(error.contains("leads upwards"), "{error}");
    }

    #[test]
    fn memory_does_not_grow_with_the_number_of_directories() {
        let mut names = Names::default();
        let error = (0..1_000_000)
            .find_map(|at| place(&mut names, &format!("d{at}"), MemberKind::Directory).err())
            .unwrap();
        assert!(error.contains("too many") && error.contains("4194304"), "{error}");
    }
}
