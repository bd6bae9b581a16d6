//! A file system that loses power: names and contents are volatile until they are synced, and what is lost of them is
//! decided by the enumeration.
//!
//! # What a power cut does
//! It comes after any operation that changes something and in any sync, before the sync has done its work. Then:
//! - every change of names since the last sync of its directory (a creation, link, removal, rename or exchange) has
//!   happened or has not, as a whole, independently of the others; only changes of one and the same name keep their
//!   order;
//! - what was written to a file and not synced is there, or not, or its first half is; the same for attributes;
//! - where that makes more than [`Limits::images`](crate::storage::Limits::images) combinations: none, all, all up to
//!   one, all but one, only one.
//!
//! This is what POSIX allows and less than any journal gives: a renamed file may have no content, a name may be moved
//! while an older change in the same directory is lost. A new file may get the number of one that was removed.
//!
//! There are no permissions, mount points or limits of space here.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use client_core::artifact::tree::Attributes;
use client_core::install::files::{Files, FilesError, Found, Kind, Node};
use client_core::install::{Arriving, InstallError, Progress};

use crate::storage::file_system::{Body, FileSystem, Inode, Number};
use crate::storage::{CrashWorld, World};

pub use crate::storage::file_system::Suppressed;

const DATASTORE: &str = "/datastore";

impl CrashWorld {
    /// Everything at and below `path` as reads see it: path, kind, content and attributes. Not an operation.
    pub fn listing(&self, path: &str) -> BTreeMap<String, String> {
        let world = self.0.borrow();
        let mut listing = BTreeMap::new();
        if let Some(number) = world.files.find(Path::new(path)) {
            world.files.listing(path, number, &mut listing);
        }
        listing
    }

    /// The number of what has this name. Not an operation.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.0.borrow().files.find(Path::new(path))
    }

    /// Breaks syncs of the file system: a negative control.
    pub fn suppress_file_sync(&self, which: Suppressed) {
        self.0.borrow_mut().files.suppressed = which;
    }
}

/// The files of a [`CrashWorld`], with the file tree of a deployment at `/datastore/tree`.
#[derive(Clone)]
pub struct CrashFiles {
    world: CrashWorld,
    /// Whether there are hard links.
    pub links: bool,
    /// Whether names can be exchanged.
    pub exchange: bool,
}

impl CrashFiles {
    /// With everything a file system can do.
    pub fn new(world: &CrashWorld) -> CrashFiles {
        CrashFiles { world: world.clone(), links: true, exchange: true }
    }

    /// Makes a file with everything on the way to it: for the set-up of a scenario.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn set_up_file(&mut self, path: &str, content: &[u8], attributes: &Attributes) {
        self.set_up_directory(Path::new(path).parent().unwrap().to_str().unwrap());
        self.create(Path::new(path), Node::File(&mut &content[..]), Some(attributes)).unwrap();
    }

    /// Makes a directory with everything on the way to it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn set_up_directory(&mut self, path: &str) {
        let mut missing: Vec<&Path> = Path::new(path).ancestors().collect();
        while let Some(directory) = missing.pop() {
            if self.look(directory).unwrap().is_none() {
                self.create(directory, Node::Directory, None).unwrap();
            }
        }
    }

    /// Does something to the file system that power may fail after.
    fn act<T>(
        &mut self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&mut FileSystem) -> io::Result<T>,
    ) -> Result<T, FilesError> {
        let mut world = self.world.0.borrow_mut();
        let world: &mut World = &mut world;
        let line = || format!("{doing} {}", path.display());
        let done = world.begin_file_operation(line).and_then(|()| act(&mut world.files));
        let done = done.map_err(|source| FilesError { doing, path: path.to_owned(), source })?;
        world.maybe_cut(line);
        Ok(done)
    }

    /// Syncs, with a power cut before it is done.
    fn sync(
        &mut self,
        doing: &'static str,
        path: &Path,
        act: impl FnOnce(&mut FileSystem) -> io::Result<()>,
    ) -> Result<(), FilesError> {
        let mut world = self.world.0.borrow_mut();
        let world: &mut World = &mut world;
        let line = || format!("{doing} {}", path.display());
        let failed = |source| FilesError { doing, path: path.to_owned(), source };
        world.begin_file_operation(line).map_err(failed)?;
        world.maybe_cut(line);
        act(&mut world.files).map_err(failed)
    }

    fn read<T>(&self, act: impl FnOnce(&FileSystem) -> T) -> T {
        act(&self.world.0.borrow().files)
    }
}

fn unsupported() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

fn taken() -> io::Error {
    io::ErrorKind::AlreadyExists.into()
}

impl Files for CrashFiles {
    fn store(&mut self, arriving: &mut Arriving<'_>, _: &mut dyn Progress) -> Result<(), InstallError> {
        let tree = self.tree();
        self.remove_payload()?;
        self.set_up_directory(DATASTORE);
        self.create(&tree, Node::Directory, None)?;
        for name in ["files", "tmp"] {
            self.create(&tree.join(name), Node::Directory, None)?;
        }
        while let Some(mut file) = arriving.payload.next_file()? {
            let path = tree.join("files").join(file.name());
            self.create(&path, Node::File(&mut file), None)?;
        }
        self.sync_tree(&tree)?;
        Ok(self.sync_directory(Path::new(DATASTORE))?)
    }

    fn tree(&self) -> PathBuf {
        Path::new(DATASTORE).join("tree")
    }

    fn remove_payload(&mut self) -> Result<(), InstallError> {
        let tree = self.tree();
        if self.look(&tree)?.is_some() {
            self.remove(&tree)?;
            self.sync_directory(Path::new(DATASTORE))?;
        }
        Ok(())
    }

    fn look(&mut self, path: &Path) -> Result<Option<Found>, FilesError> {
        Ok(self.read(|files| {
            let number = files.find(path)?;
            Some(Found { kind: files.live[&number].kind(), identity: number })
        }))
    }

    fn is_directory(&mut self, path: &Path) -> Result<bool, FilesError> {
        Ok(self.look(path)?.is_some_and(|found| found.kind == Kind::Directory))
    }

    fn open(&mut self, path: &Path) -> Result<Box<dyn Read>, FilesError> {
        let content =
            self.read(|files| match files.live.get(&files.existing(path)?).map(|inode| &inode.body) {
                Some(Body::File(content)) => Ok(content.clone()),
                _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
            });
        let content =
            content.map_err(|source| FilesError { doing: "open", path: path.to_owned(), source })?;
        Ok(Box::new(io::Cursor::new(content)))
    }

    fn create(
        &mut self,
        path: &Path,
        node: Node<'_>,
        attributes: Option<&Attributes>,
    ) -> Result<(), FilesError> {
        let mut content = None;
        let body = match node {
            Node::File(source) => {
                let mut bytes = Vec::new();
                let read = source.read_to_end(&mut bytes);
                read.map_err(|source| FilesError { doing: "write", path: path.to_owned(), source })?;
                content = Some(bytes);
                Body::File(Vec::new())
            }
            Node::Directory => Body::Directory(BTreeMap::new()),
            Node::Symlink(target) => Body::Symlink(target.to_vec()),
            Node::Fifo | Node::CharacterDevice(..) | Node::BlockDevice(..) => Body::Special,
        };
        let attributes = attributes.cloned().unwrap_or_default();
        self.act("create", path, |files| {
            let (directory, name) = files.place(path)?;
            if files.find(path).is_some() {
                return Err(taken());
            }
            let number = files.new_inode(Inode { body, attributes });
            files.change(vec![(directory, name, Some(number))]);
            Ok(())
        })?;
        let Some(content) = content.filter(|content| !content.is_empty()) else { return Ok(()) };
        self.act("write", path, |files| {
            let number = files.existing(path)?;
            files.live.get_mut(&number).unwrap().body = Body::File(content);
            Ok(())
        })
    }

    fn set_mode(&mut self, path: &Path, mode: u32) -> Result<(), FilesError> {
        self.act("set the mode of", path, |files| {
            let number = files.existing(path)?;
            files.live.get_mut(&number).unwrap().attributes.mode = mode;
            Ok(())
        })
    }

    fn set_attributes(&mut self, path: &Path, attributes: &Attributes) -> Result<(), FilesError> {
        self.act("set the attributes of", path, |files| {
            let number = files.existing(path)?;
            files.live.get_mut(&number).unwrap().attributes = attributes.clone();
            Ok(())
        })
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        self.act("copy", from, |files| {
            let inode = files.live[&files.existing(from)?].clone();
            let (directory, name) = files.place(to)?;
            if files.find(to).is_some() {
                return Err(taken());
            }
            let number = files.new_inode(inode);
            files.change(vec![(directory, name, Some(number))]);
            Ok(())
        })
    }

    fn link(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        let links = self.links;
        self.act("link", from, |files| {
            let number = files.existing(from)?;
            let (directory, name) = files.place(to)?;
            match (links, files.find(to)) {
                (false, _) => Err(unsupported()),
                (true, Some(_)) => Err(taken()),
                (true, None) => {
                    files.change(vec![(directory, name, Some(number))]);
                    Ok(())
                }
            }
        })
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), FilesError> {
        self.act("rename", from, |files| {
            let number = files.existing(from)?;
            let (from, to, over) = (files.place(from)?, files.place(to)?, files.find(to));
            if over == Some(number) {
                return Ok(());
            }
            let entries = |number: Option<Number>| number.and_then(|number| files.live[&number].entries());
            match (entries(Some(number)), entries(over)) {
                (_, Some(over)) if !over.is_empty() => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (None, Some(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Some(_), None) if over.is_some() => return Err(io::ErrorKind::NotADirectory.into()),
                _ => {}
            }
            files.change(vec![(to.0, to.1, Some(number)), (from.0, from.1, None)]);
            Ok(())
        })
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> Result<(), FilesError> {
        let exchange = self.exchange;
        self.act("exchange", one, |files| {
            if !exchange {
                return Err(unsupported());
            }
            let numbers = (files.existing(one)?, files.existing(other)?);
            let (one, other) = (files.place(one)?, files.place(other)?);
            files.change(vec![(one.0, one.1, Some(numbers.1)), (other.0, other.1, Some(numbers.0))]);
            Ok(())
        })
    }

    fn remove(&mut self, path: &Path) -> Result<(), FilesError> {
        let names: Vec<String> = match self.read(|files| files.find(path)) {
            None => return Ok(()),
            Some(number) => {
                { self.read(|files| files.live[&number].entries().map(|e| e.keys().cloned().collect())) }
                    .unwrap_or_default()
            }
        };
        for name in names {
            self.remove(&path.join(name))?;
        }
        self.act("remove", path, |files| {
            let (directory, name) = files.place(path)?;
            files.change(vec![(directory, name, None)]);
            Ok(())
        })
    }

    fn remove_empty_directory(&mut self, path: &Path) -> Result<bool, FilesError> {
        let empty = self.read(|files| {
            files
                .find(path)
                .is_some_and(|number| files.live[&number].entries().is_some_and(BTreeMap::is_empty))
        });
        if empty {
            self.remove(path)?;
        }
        Ok(empty)
    }

    fn sync_directory(&mut self, path: &Path) -> Result<(), FilesError> {
        self.sync("sync the directory", path, |files| {
            let number = files.existing(path)?;
            if files.suppressed != Suppressed::Directories || path.starts_with(DATASTORE) {
                files.sync_directory(number);
            }
            Ok(())
        })
    }

    fn sync_tree(&mut self, path: &Path) -> Result<(), FilesError> {
        self.sync("sync the tree", path, |files| {
            let number = files.existing(path)?;
            if files.suppressed != Suppressed::Trees || path.starts_with(DATASTORE) {
                for number in files.below(number) {
                    match files.live[&number].entries() {
                        Some(_) => files.sync_directory(number),
                        None => files.sync_inode(number),
                    }
                }
            }
            Ok(())
        })
    }

    fn mounted_in(&mut self, _: &Path) -> Result<Option<PathBuf>, FilesError> {
        Ok(None)
    }

    fn holds_tree(&mut self, directory: &Path) -> Result<bool, FilesError> {
        Ok(self.tree().starts_with(directory))
    }

    fn free_bytes(&mut self, _: &Path) -> Result<Option<u64>, FilesError> {
        Ok(None)
    }
}
