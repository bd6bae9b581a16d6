//! The built-in handler of the payload type `directory`: a whole directory tree, put into place in one step.
//!
//! The payload is the one of the update module of that name: `dest_dir`, and the tree in `update.tar`.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use super::payload_files::{check_room, clean_up, destination, payload, roll_back};
use super::replacement::{self, Fresh, Replacement};
use super::{Files, Kind, Node};
use crate::artifact::tree::{Attributes, MemberKind, MemberReader, TreeRules};
use crate::install::{Arriving, HandlerState, InstallError, PayloadHandler, PayloadProblem, Progress};

const ARCHIVE: &str = "update.tar";
/// What a file takes on disk besides its content, and the unit of that: a block.
const BLOCK_BYTES: u64 = 4096;

/// Installs a directory tree.
pub struct DirectoryTree<F> {
    files: F,
    /// Not a module that is gone.
    began: bool,
}

impl<F: Files> DirectoryTree<F> {
    /// With the files of the device.
    pub fn new(files: F) -> DirectoryTree<F> {
        DirectoryTree { files, began: false }
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
        self.began = true;
        self.files.store(arriving, progress)?;
        let destination = self.plan()?;
        let mut members = archive(&mut self.files)?;
        let mut names = TreeRules::default();
        let mut bytes = 0_u64;
        while let Some(member) = members.next_member()? {
            names.place(&member).map_err(PayloadProblem::Tree)?;
            let content = if let MemberKind::File(size) = member.kind { size } else { 0 };
            let blocks = content.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
            bytes = bytes.saturating_add(blocks);
        }
        check_room(&mut self.files, Path::new(&destination), bytes)
    }

    fn restore(&mut self, _: HandlerState) {
        self.began = true;
    }

    fn install(&mut self) -> Result<(), InstallError> {
        let destination = match Replacement::reopen(&mut self.files)? {
            // What lies there may be the new tree already.
            Some(begun) => begun.destination().to_owned(),
            None => self.plan()?,
        };
        let (mut replacement, begun) = Replacement::begin(&mut self.files, &destination)?;
        if let Fresh::ToMake(fresh) = begun {
            unpack(replacement.files(), &fresh)?;
            replacement.sync_fresh()?; // the tree before the name that leads to it
        }
        replacement.put_directory()
    }

    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        Ok(true)
    }

    fn roll_back(&mut self) -> Result<(), InstallError> {
        roll_back(&mut self.files, self.began)
    }

    fn clean_up(&mut self) -> Result<(), InstallError> {
        clean_up(&mut self.files)
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
    let mut names = TreeRules::default();
    // Attributes of directories come last: what is made in one changes its time, and may need its permissions.
    let mut directories: Vec<(PathBuf, Attributes)> = Vec::new();
    let mut known_parent = PathBuf::new();
    let private = Attributes { mode: 0o700, ..Attributes::default() };
    files.create(root, Node::Directory, Some(&private))?;
    let mut root_attributes = Attributes { mode: 0o755, ..Attributes::default() };
    while let Some(member) = members.next_member()? {
        let place = names.place(&member).map_err(PayloadProblem::Tree)?;
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
