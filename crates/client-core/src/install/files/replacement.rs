//! Puts something new in the place of something old, so that a power cut leaves one of the two and both can be gone
//! back to until the end.
//!
//! ```text
//!  begin    journal: what is there now, under which hidden names we work        durable
//!           parents of the destination, where they are missing                  durable
//!  (caller) the new thing beside the destination, as .NAME.rust-ota-new         durable
//!  put      file:       a link .NAME.rust-ota-old to the old one                durable
//!                       the new one renamed over the destination                durable
//!           directory:  journal: which of the two is the new one                durable
//!                       the two exchanged                                       durable
//!  go back  file:       the link renamed over the destination                   durable
//!           directory:  exchanged again                                         durable
//!  clean up both hidden names removed
//! ```
//!
//! The old thing is never copied where the file system allows that, so going back restores it with everything it had.
//! Where it does not: without links the old file is copied before it is replaced; without exchange the old directory is
//! renamed to `.NAME.rust-ota-old` before the new one takes its place, and for a moment nothing has the name.
//!
//! The journal lies in the file tree of the deployment and holds every name that is needed, so that another version of
//! this program finds them.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Files, FilesError, Found, Kind, Node};
use crate::install::{InstallError, PayloadProblem};

/// Bytes of the journal: three paths and some words.
const JOURNAL_BYTES: u64 = 64 * 1024;
/// Version of the journal this program writes and reads.
const VERSION: u32 = 1;
/// Longest name a file system takes.
const NAME_BYTES: usize = 255;

/// What was there, and where we work. Stored as JSON; a released field is never given another meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    version: u32,
    /// What is replaced.
    destination: String,
    /// The hidden name of the new thing before it is put into place.
    fresh: String,
    /// The hidden name under which the old thing is kept where it has one of its own.
    kept: String,
    /// Identity of what was at the destination before. `None` for nothing.
    before: Option<u64>,
    /// The directory highest up that we had to make for the destination.
    #[serde(default)]
    made: Option<String>,
    /// Identity of the new directory, once it is complete.
    #[serde(default)]
    fresh_identity: Option<u64>,
}

/// The replacement of one destination.
pub(super) struct Replacement<'f> {
    files: &'f mut dyn Files,
    journal: Journal,
}

/// The new thing at its hidden name.
pub(super) enum Fresh {
    /// It is to be made at this path, which is free.
    ToMake(PathBuf),
    /// An earlier attempt made it.
    Made,
}

impl<'f> Replacement<'f> {
    /// Begins to replace `destination`, an absolute path with a parent, or goes on with what an earlier process began.
    pub(super) fn begin(
        files: &'f mut dyn Files,
        destination: &str,
    ) -> Result<(Replacement<'f>, Fresh), InstallError> {
        if let Some(journal) = read_journal(files)? {
            let mut begun = Replacement { files, journal };
            let next = begun.what_is_prepared()?;
            return Ok((begun, next));
        }
        let path = Path::new(destination);
        let before = files.look(path)?;
        let journal = Journal {
            version: VERSION,
            destination: destination.to_owned(),
            fresh: hidden(path, "new")?,
            kept: hidden(path, "old")?,
            before: before.map(|found| found.identity),
            made: missing_parent(files, path)?,
            fresh_identity: None,
        };
        let mut begun = Replacement { files, journal };
        // Of a deployment that nobody remembers. They must be gone before the journal says what the names mean.
        begun.remove_hidden()?;
        begun.save()?;
        begun.make_parents()?;
        let fresh = PathBuf::from(&begun.journal.fresh);
        Ok((begun, Fresh::ToMake(fresh)))
    }

    /// What an earlier step began, or `None` when nothing was: then nothing has changed.
    pub(super) fn reopen(files: &'f mut dyn Files) -> Result<Option<Replacement<'f>>, InstallError> {
        let journal = read_journal(files)?;
        Ok(journal.map(|journal| Replacement { files, journal }))
    }

    /// What is replaced.
    pub(super) fn destination(&self) -> &str {
        &self.journal.destination
    }

    pub(super) fn files(&mut self) -> &mut dyn Files {
        self.files
    }

    fn what_is_prepared(&mut self) -> Result<Fresh, InstallError> {
        let Journal { destination, fresh, before, fresh_identity, .. } = self.journal.clone();
        // Only a directory whose identity was written down is known to be complete.
        if fresh_identity.is_some() {
            let at = |found: Option<Found>| found.map(|found| found.identity);
            let (waiting, put) = (at(self.look(&fresh)?), at(self.look(&destination)?));
            if waiting == fresh_identity || put == fresh_identity || (waiting.is_some() && waiting == before)
            {
                return Ok(Fresh::Made);
            }
            self.journal.fresh_identity = None;
        }
        self.make_parents()?;
        let fresh = PathBuf::from(fresh);
        self.files.remove(&fresh)?;
        Ok(Fresh::ToMake(fresh))
    }

    /// Puts the file at the hidden name into place. It must be durable with its name.
    pub(super) fn put_file(&mut self) -> Result<(), InstallError> {
        let Journal { destination, fresh, kept, before, .. } = self.journal.clone();
        if before.is_some() && self.look(&kept)?.is_none() {
            match self.files.link(Path::new(&destination), Path::new(&kept)) {
                Ok(()) => self.sync_place()?, // the way back before the step
                Err(error) if error.is_unsupported() => self.copy_to(&destination, &kept)?,
                Err(error) => return Err(error.into()),
            }
        }
        self.files.rename(Path::new(&fresh), Path::new(&destination))?;
        self.sync_place()
    }

    /// A copy has its name only when it is complete, because the name is what says that it is the old file.
    fn copy_to(&mut self, from: &str, to: &str) -> Result<(), InstallError> {
        let partial = format!("{to}.part");
        self.files.remove(Path::new(&partial))?;
        self.files.copy(Path::new(from), Path::new(&partial))?;
        self.files.sync_tree(Path::new(&partial))?;
        self.files.rename(Path::new(&partial), Path::new(to))?;
        self.sync_place()
    }

    /// Puts the directory at the hidden name into place. It must be durable with its name.
    pub(super) fn put_directory(&mut self) -> Result<(), InstallError> {
        let Journal { destination, fresh, kept, before, .. } = self.journal.clone();
        let (to, from, aside) = (Path::new(&destination), Path::new(&fresh), Path::new(&kept));
        let Some(found) = self.look(&fresh)? else {
            // An earlier attempt came further.
            return self.sync_place();
        };
        if self.journal.fresh_identity.is_none() {
            self.journal.fresh_identity = Some(found.identity);
            self.save()?; // who finds two directories must know which is which
        } else if self.journal.fresh_identity != Some(found.identity) {
            // Exchanged already: this is the old one.
            return self.sync_place();
        }
        if before.is_none() || self.look(&destination)?.is_none() {
            self.files.rename(from, to)?;
            return self.sync_place();
        }
        match self.files.exchange(from, to) {
            Ok(()) => self.sync_place(),
            Err(error) if error.is_unsupported() => {
                self.files.rename(to, aside)?;
                self.sync_place()?; // the two renames in this order
                self.files.rename(from, to)?;
                self.sync_place()
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Puts what was there before back, whichever step was the last.
    pub(super) fn go_back(&mut self) -> Result<(), InstallError> {
        let Journal { destination, fresh, kept, fresh_identity, before, .. } = self.journal.clone();
        let Some(before) = before else { return self.go_back_to_nothing() };
        let (to, new, aside) = (Path::new(&destination), Path::new(&fresh), Path::new(&kept));
        let now = self.look(&destination)?;
        if self.look(&kept)?.is_some() {
            if now.is_some_and(|now| now.kind == Kind::Directory) {
                // Nothing can be renamed over a directory that holds something.
                self.files.remove(new)?;
                self.files.rename(to, new)?;
                self.sync_place()?; // the two renames in this order
            }
            // Where the new file was not put yet, these are two names for one thing, and this does nothing.
            self.files.rename(aside, to)?;
            return self.sync_place();
        }
        if now.is_some_and(|now| now.identity == before) {
            return Ok(());
        }
        match (self.look(&fresh)?.is_some_and(|found| found.identity == before), now) {
            (true, Some(_)) => self.files.exchange(new, to)?,
            (true, None) => self.files.rename(new, to)?,
            // Nothing of ours was put there yet, or it was taken away again: somebody else has replaced it since.
            (false, Some(_)) if fresh_identity.is_none() => return Ok(()),
            (false, _) => return Err(self.lost()),
        }
        self.sync_place()
    }

    fn go_back_to_nothing(&mut self) -> Result<(), InstallError> {
        let Journal { destination, fresh, fresh_identity, .. } = self.journal.clone();
        if let Some(found) = self.look(&destination)? {
            if found.kind != Kind::Directory {
                self.files.remove(Path::new(&destination))?;
                self.sync_place()?;
            } else if fresh_identity == Some(found.identity) {
                // In one step out of sight, then piece by piece.
                self.files.rename(Path::new(&destination), Path::new(&fresh))?;
                self.sync_place()?;
            }
        }
        if self.journal.made.is_some() {
            self.remove_hidden()?;
            self.remove_parents()?;
        }
        Ok(())
    }

    /// Removes what was kept and what was not put into place.
    pub(super) fn clean_up(&mut self) -> Result<(), InstallError> {
        let destination = self.journal.destination.clone();
        if self.journal.before.is_some() && self.look(&destination)?.is_none() {
            // What is kept is the only one there is.
            return Err(self.lost());
        }
        self.remove_hidden()
    }

    fn remove_hidden(&mut self) -> Result<(), InstallError> {
        let Journal { fresh, kept, .. } = self.journal.clone();
        let partial = format!("{kept}.part");
        let mut removed = false;
        for path in [fresh, kept, partial] {
            if self.look(&path)?.is_some() {
                self.files.remove(Path::new(&path))?;
                removed = true;
            }
        }
        if removed { self.sync_place() } else { Ok(()) }
    }

    fn look(&mut self, path: &str) -> Result<Option<Found>, FilesError> {
        self.files.look(Path::new(path))
    }

    fn lost(&self) -> InstallError {
        PayloadProblem::Lost { path: PathBuf::from(&self.journal.destination) }.into()
    }

    /// Makes every rename at the destination durable; all hidden names lie in the same directory.
    fn sync_place(&mut self) -> Result<(), InstallError> {
        Ok(self.files.sync_directory(parent(Path::new(&self.journal.destination)))?)
    }

    /// Makes the hidden name durable, when what it leads to is.
    pub(super) fn sync_fresh(&mut self) -> Result<(), InstallError> {
        let fresh = PathBuf::from(&self.journal.fresh);
        self.files.sync_tree(&fresh)?;
        self.sync_place()
    }

    fn make_parents(&mut self) -> Result<(), InstallError> {
        let Some(made) = self.journal.made.clone() else { return Ok(()) };
        let destination = PathBuf::from(&self.journal.destination);
        let mut missing: Vec<&Path> =
            destination.ancestors().skip(1).take_while(|path| path.starts_with(&made)).collect();
        while let Some(directory) = missing.pop() {
            if self.files.look(directory)?.is_none() {
                self.files.create(directory, Node::Directory, None)?;
            }
            self.files.sync_directory(parent(directory))?;
        }
        Ok(())
    }

    /// Removes the directories that were made for the destination, as far as nobody else has put something there.
    fn remove_parents(&mut self) -> Result<(), InstallError> {
        let Some(made) = self.journal.made.clone() else { return Ok(()) };
        let destination = PathBuf::from(&self.journal.destination);
        for directory in destination.ancestors().skip(1).take_while(|path| path.starts_with(&made)) {
            if self.files.look(directory)?.is_none() {
                continue;
            }
            if !self.files.remove_empty_directory(directory)? {
                return Ok(());
            }
            self.files.sync_directory(parent(directory))?;
        }
        Ok(())
    }

    /// Writes the journal, durably and as a whole.
    fn save(&mut self) -> Result<(), InstallError> {
        let path = journal_path(self.files);
        let text = serde_json::to_vec(&self.journal).unwrap_or_default();
        let fresh = path.with_extension("new");
        self.files.remove(&fresh)?;
        self.files.create(&fresh, Node::File(&mut &text[..]), None)?;
        self.files.sync_tree(&fresh)?;
        self.files.rename(&fresh, &path)?;
        Ok(self.files.sync_directory(parent(&path))?)
    }
}

const JOURNAL: &str = "replacement.json";

fn read_journal(files: &mut dyn Files) -> Result<Option<Journal>, InstallError> {
    let path = journal_path(files);
    if files.look(&path)?.is_none() {
        return Ok(None);
    }
    let mut text = Vec::new();
    let read = files.open(&path)?.take(JOURNAL_BYTES).read_to_end(&mut text);
    read.map_err(|source| FilesError { doing: "read", path, source })?;
    let journal = serde_json::from_slice(&text).ok();
    let journal = journal.filter(|journal: &Journal| journal.version == VERSION);
    let unknown = PayloadProblem::Malformed { name: JOURNAL, expected: "a journal of this version" };
    Ok(Some(journal.ok_or(unknown)?))
}

/// In the directory of the tree that belongs to whoever handles the payload.
fn journal_path(files: &dyn Files) -> PathBuf {
    files.tree().join("tmp").join(JOURNAL)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// `.NAME.rust-ota-new` beside `path`: on the same file system, and found by a later process.
fn hidden(path: &Path, suffix: &str) -> Result<String, InstallError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let text =
        path.to_str().zip(name).filter(|(_, name)| name.len() + ".rust-ota-old.part".len() < NAME_BYTES);
    let Some((_, name)) = text else {
        return Err(PayloadProblem::Destination { path: path.display().to_string() }.into());
    };
    Ok(parent(path).join(format!(".{name}.rust-ota-{suffix}")).display().to_string())
}

/// The missing directory highest up on the way to `path`.
pub(super) fn missing_parent(files: &mut dyn Files, path: &Path) -> Result<Option<String>, InstallError> {
    let mut missing = None;
    for directory in path.ancestors().skip(1) {
        if files.is_directory(directory)? {
            break;
        }
        if files.look(directory)?.is_some() {
            let found = "not a directory";
            return Err(PayloadProblem::Occupied { path: directory.to_owned(), found }.into());
        }
        missing = Some(directory.display().to_string());
    }
    Ok(missing)
}
