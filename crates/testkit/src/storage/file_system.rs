//! What a file system holds: names and contents, which are volatile until they are synced. What becomes of them is told in
//! [`files`](crate::files).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use client_core::artifact::tree::Attributes;
use client_core::install::files::Kind;

use super::world::Trace;
use crate::choice::{Choices, Mixer};

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

pub(crate) type Number = u64;
const ROOT: Number = 1;

/// The files of a machine.
#[derive(Clone)]
pub(crate) struct FileSystem {
    pub(crate) live: BTreeMap<Number, Inode>,
    durable: BTreeMap<Number, Inode>,
    pending: Vec<Change>,
    pub(crate) suppressed: Suppressed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) body: Body,
    pub(crate) attributes: Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
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
    pub(crate) fn entries(&self) -> Option<&BTreeMap<String, Number>> {
        match &self.body {
            Body::Directory(entries) => Some(entries),
            Body::File(_) | Body::Symlink(_) | Body::Special => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
            Body::Special => Kind::Special,
        }
    }
}

/// Some of `count` things: every combination, or where these are too many, none, all, all up to one, all but one, only one.
fn choose_some(choices: &mut Choices, count: usize, limit: usize) -> Vec<bool> {
    let combinations = 2_usize.checked_pow(u32::try_from(count).unwrap_or(u32::MAX));
    if combinations.is_some_and(|combinations| combinations <= limit.min(64)) {
        return (0..count).map(|_| choices.choose(2) == 1).collect();
    }
    let class = choices.choose(3 * count + 1);
    let one = class % count;
    let is_in = |at: usize| match class / count {
        0 => at < one,
        1 => at != one,
        2 => at == one,
        _ => true,
    };
    (0..count).map(is_in).collect()
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
    pub(crate) fn cut(&mut self, choices: &mut Choices, limit: usize, trace: &mut Trace) {
        let happened = self.choose_changes(choices, limit);
        for number in self.mentioned() {
            self.give_it_a_place(number);
        }
        for (change, happened) in self.pending.iter().zip(happened) {
            trace.note(|| format!("  {change:?} {}", if happened { "happened" } else { "is lost" }));
            if happened {
                apply(&mut self.durable, change);
            }
        }
        for number in reachable(&self.durable) {
            self.choose_content(number, choices, trace);
        }
        self.pending.clear();
        let known = reachable(&self.durable);
        self.durable.retain(|number, _| known.contains(number));
        self.live = self.durable.clone();
    }

    /// Which of the pending changes happened: any of them, but never the newer one of two of the same name alone.
    fn choose_changes(&self, choices: &mut Choices, limit: usize) -> Vec<bool> {
        let wanted = choose_some(choices, self.pending.len(), limit);
        let mut happened: Vec<bool> = Vec::new();
        for (at, wanted) in wanted.into_iter().enumerate() {
            let change = &self.pending[at];
            let in_order =
                (0..at).all(|before| happened[before] || !self.pending[before].shares_a_name(change));
            happened.push(wanted && in_order);
        }
        happened
    }

    /// What a file holds: what it held, half of the new content, or all of it with the new attributes.
    fn choose_content(&mut self, number: Number, choices: &mut Choices, trace: &mut Trace) {
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
        trace.note(|| format!("  file {number} has version {pick} of {}", versions.len()));
        self.durable.insert(number, versions.swap_remove(pick));
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

    pub(crate) fn find(&self, path: &Path) -> Option<Number> {
        let mut number = ROOT;
        for part in names(path) {
            number = *self.live[&number].entries()?.get(&part)?;
        }
        Some(number)
    }

    /// The directory and the name in it.
    pub(crate) fn place(&self, path: &Path) -> io::Result<(Number, String)> {
        let parent = path.parent().and_then(|parent| self.find(parent));
        let name = names(path).pop();
        match (parent, name) {
            (Some(parent), Some(name)) if self.live[&parent].entries().is_some() => Ok((parent, name)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn existing(&self, path: &Path) -> io::Result<Number> {
        self.find(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn change(&mut self, names: Vec<(Number, String, Option<Number>)>) {
        let change = Change { names };
        apply(&mut self.live, &change);
        self.pending.push(change);
    }

    /// The lowest number that nothing has, live, durable or on its way: numbers come again as soon as they may.
    pub(crate) fn new_inode(&mut self, inode: Inode) -> Number {
        let mut taken = self.mentioned();
        taken.extend(reachable(&self.durable));
        let number = (ROOT..).find(|number| !taken.contains(number)).unwrap();
        self.durable.remove(&number);
        self.live.insert(number, inode);
        number
    }

    pub(crate) fn sync_directory(&mut self, directory: Number) {
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
    pub(crate) fn sync_inode(&mut self, number: Number) {
        let mut inode = self.live[&number].clone();
        if let Body::Directory(entries) = &mut inode.body {
            *entries = self.durable.get(&number).and_then(Inode::entries).cloned().unwrap_or_default();
        }
        self.durable.insert(number, inode);
    }

    pub(crate) fn below(&self, number: Number) -> Vec<Number> {
        let mut found = vec![number];
        let mut at = 0;
        while at < found.len() {
            found.extend(self.live[&found[at]].entries().into_iter().flat_map(|entries| entries.values()));
            at += 1;
        }
        found
    }

    pub(crate) fn listing(&self, path: &str, number: Number, into: &mut BTreeMap<String, String>) {
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
