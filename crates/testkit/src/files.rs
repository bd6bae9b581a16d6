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

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use client_core::artifact::tree::Attributes;
use client_core::install::files::{Files, FilesError, Found, Kind, Node};
use client_core::install::{Arriving, InstallError, Progress};

use crate::choice::{Choices, Mixer};
use crate::storage::{CrashWorld, World};

type Number = u64;
const ROOT: Number = 1;
const DATASTORE: &str = "/datastore";

/// Which syncs outside of the datastore do nothing and say `Ok`. This breaks the code under test on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Suppressed {
    /// None.
    #[default]
    None,
    /// Those of the names in a directory.
    Directories,
    /// Those of files and trees.
    Trees,
}

/// The files of a machine.
#[derive(Clone)]
pub(crate) struct FileSystem {
    live: BTreeMap<Number, Inode>,
    durable: BTreeMap<Number, Inode>,
    pending: Vec<Change>,
    suppressed: Suppressed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inode {
    body: Body,
    attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    File(Vec<u8>),
    Directory(BTreeMap<String, Number>),
    Symlink(Vec<u8>),
    Special,
}

/// Names that get another meaning in one step.
#[derive(Clone, Debug)]
struct Change {
    names: Vec<(Number, String, Option<Number>)>,
}

impl Change {
    fn touches(&self, directory: Number) -> bool {
        self.names.iter().any(|(of, ..)| *of == directory)
    }

    fn shares_a_name(&self, other: &Change) -> bool {
        self.names.iter().any(|(of, name, _)| other.names.iter().any(|(o, n, _)| (o, n) == (of, name)))
    }
}

impl Default for FileSystem {
    fn default() -> FileSystem {
        let root = Inode { body: Body::Directory(BTreeMap::new()), attributes: Attributes::default() };
        let inodes = BTreeMap::from([(ROOT, root)]);
        FileSystem {
            live: inodes.clone(),
            durable: inodes,
            pending: Vec::new(),
            suppressed: Suppressed::None,
        }
    }
}

impl Inode {
    fn entries(&self) -> Option<&BTreeMap<String, Number>> {
        match &self.body {
            Body::Directory(entries) => Some(entries),
            Body::File(_) | Body::Symlink(_) | Body::Special => None,
        }
    }

    fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
            Body::Special => Kind::Special,
        }
    }
}

fn apply(inodes: &mut BTreeMap<Number, Inode>, change: &Change) {
    for (directory, name, number) in &change.names {
        if let Some(Inode { body: Body::Directory(entries), .. }) = inodes.get_mut(directory) {
            match number {
                Some(number) => entries.insert(name.clone(), *number),
                None => entries.remove(name),
            };
        }
    }
}

fn reachable(inodes: &BTreeMap<Number, Inode>) -> BTreeSet<Number> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![ROOT];
    while let Some(number) = waiting.pop() {
        if found.insert(number) {
            waiting.extend(inodes.get(&number).and_then(Inode::entries).into_iter().flat_map(|e| e.values()));
        }
    }
    found
}

impl FileSystem {
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty() || !self.dirty().is_empty()
    }

    /// Files that are not on the medium as they are.
    fn dirty(&self) -> Vec<Number> {
        let mut numbers: Vec<Number> = reachable(&self.live).into_iter().collect();
        numbers.retain(|number| {
            let (live, durable) = (&self.live[number], self.durable.get(number));
            let same_body = |durable: &Inode| live.entries().is_some() || live.body == durable.body;
            durable.is_none_or(|durable| !same_body(durable) || durable.attributes != live.attributes)
        });
        numbers
    }

    /// Makes everything durable.
    pub(crate) fn settle(&mut self) {
        let known = reachable(&self.live);
        self.live.retain(|number, _| known.contains(number));
        self.durable = self.live.clone();
        self.pending.clear();
    }

    pub(crate) fn hash(&self, hash: &mut Mixer) {
        let known = reachable(&self.durable);
        for (number, inode) in self.durable.iter().filter(|(number, _)| known.contains(number)) {
            hash.word(*number);
            hash.bytes(format!("{inode:?}").as_bytes());
        }
    }

    /// The power is gone: decides what is left.
    pub(crate) fn cut(&mut self, choices: &mut Choices, limit: usize, trace: &mut Option<Vec<String>>) {
        let count = self.pending.len();
        let combinations = 2_usize.checked_pow(u32::try_from(count).unwrap_or(u32::MAX));
        let wanted: Vec<bool> = if combinations.is_some_and(|combinations| combinations <= limit.min(64)) {
            (0..count).map(|_| choices.choose(2) == 1).collect()
        } else {
            let class = choices.choose(3 * count + 1);
            let one = class % count;
            (0..count)
                .map(|at| match class / count {
                    0 => at < one,
                    1 => at != one,
                    2 => at == one,
                    _ => true,
                })
                .collect()
        };
        let mut happened: Vec<bool> = Vec::new();
        for (at, wanted) in wanted.into_iter().enumerate() {
            let change = &self.pending[at];
            let in_order =
                (0..at).all(|before| happened[before] || !self.pending[before].shares_a_name(change));
            happened.push(wanted && in_order);
        }
        for number in self.mentioned() {
            self.give_it_a_place(number);
        }
        for (change, happened) in self.pending.iter().zip(happened) {
            if let Some(trace) = trace {
                trace.push(format!("  {change:?} {}", if happened { "happened" } else { "is lost" }));
            }
            if happened {
                apply(&mut self.durable, change);
            }
        }
        for number in reachable(&self.durable) {
            let (old, live) = (self.durable[&number].clone(), &self.live[&number]);
            let mut versions = vec![old.clone()];
            if let (Body::File(new), false) = (&live.body, live.body == old.body) {
                let half = Body::File(new[..new.len() / 2].to_vec());
                versions.push(Inode { body: half, attributes: old.attributes.clone() });
            }
            let body = if live.entries().is_some() { old.body } else { live.body.clone() };
            versions.push(Inode { body, attributes: live.attributes.clone() });
            versions.dedup();
            let pick = choices.choose(versions.len());
            if let Some(trace) = trace {
                trace.push(format!("  file {number} has version {pick} of {}", versions.len()));
            }
            self.durable.insert(number, versions.swap_remove(pick));
        }
        self.pending.clear();
        let known = reachable(&self.durable);
        self.durable.retain(|number, _| known.contains(number));
        self.live = self.durable.clone();
    }

    /// Every file that something leads to, or did since the last sync.
    fn mentioned(&self) -> BTreeSet<Number> {
        let mut numbers = reachable(&self.live);
        numbers.extend(self.pending.iter().flat_map(|change| change.names.iter().filter_map(|name| name.2)));
        numbers
    }

    /// What was never synced is on the medium without content, once its name is.
    fn give_it_a_place(&mut self, number: Number) {
        let body = match &self.live[&number].body {
            Body::File(_) => Body::File(Vec::new()),
            Body::Directory(_) => Body::Directory(BTreeMap::new()),
            // A link is made with its target.
            Body::Symlink(target) => Body::Symlink(target.clone()),
            Body::Special => Body::Special,
        };
        self.durable.entry(number).or_insert(Inode { body, attributes: Attributes::default() });
    }

    fn find(&self, path: &Path) -> Option<Number> {
        let mut number = ROOT;
        for part in names(path) {
            number = *self.live[&number].entries()?.get(&part)?;
        }
        Some(number)
    }

    /// The directory and the name in it.
    fn place(&self, path: &Path) -> io::Result<(Number, String)> {
        let parent = path.parent().and_then(|parent| self.find(parent));
        let name = names(path).pop();
        match (parent, name) {
            (Some(parent), Some(name)) if self.live[&parent].entries().is_some() => Ok((parent, name)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn existing(&self, path: &Path) -> io::Result<Number> {
        self.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, names: Vec<(Number, String, Option<Number>)>) {
        let change = Change { names };
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    /// The lowest number that nothing has, live, durable or on its way: numbers come again as soon as they may.
    fn new_inode(&mut self, inode: Inode) -> Number {
        let mut taken = self.mentioned();
        taken.extend(reachable(&self.durable));
        let number = (ROOT..).find(|number| !taken.contains(number)).unwrap();
        self.durable.remove(&number);
        self.live.insert(number, inode);
        number
    }

    fn sync_directory(&mut self, directory: Number) {
        // Whatever is older and about the same name goes with it.
        let mut due: Vec<bool> = self.pending.iter().map(|change| change.touches(directory)).collect();
        for at in (0..due.len()).rev() {
            if due[at] {
                for (before, due) in due.iter_mut().enumerate().take(at) {
                    *due |= self.pending[before].shares_a_name(&self.pending[at]);
                }
            }
        }
        self.sync_inode(directory);
        for number in self.mentioned() {
            self.give_it_a_place(number);
        }
        let mut due = due.into_iter();
        let (durable, pending) = (&mut self.durable, &mut self.pending);
        pending.retain(|change| {
            let due = due.next().unwrap();
            if due {
                apply(durable, change);
            }
            !due
        });
    }

    /// Content and attributes, but no names.
    fn sync_inode(&mut self, number: Number) {
        let mut inode = self.live[&number].clone();
        if let Body::Directory(entries) = &mut inode.body {
            *entries = self.durable.get(&number).and_then(Inode::entries).cloned().unwrap_or_default();
        }
        self.durable.insert(number, inode);
    }

    fn below(&self, number: Number) -> Vec<Number> {
        let mut found = vec![number];
        let mut at = 0;
        while at < found.len() {
            found.extend(self.live[&found[at]].entries().into_iter().flat_map(|entries| entries.values()));
            at += 1;
        }
        found
    }

    fn listing(&self, path: &str, number: Number, into: &mut BTreeMap<String, String>) {
        let inode = &self.live[&number];
        let what = match &inode.body {
            Body::Directory(_) => "directory".to_owned(),
            Body::File(content) => format!("file {:?}", String::from_utf8_lossy(content)),
            Body::Symlink(target) => format!("link to {:?}", String::from_utf8_lossy(target)),
            Body::Special => "special".to_owned(),
        };
        into.insert(path.to_owned(), format!("{what} {:?}", inode.attributes));
        for (name, number) in inode.entries().into_iter().flatten() {
            self.listing(&format!("{path}/{name}"), *number, into);
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let text = path.to_str().unwrap().to_owned();
    text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

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
