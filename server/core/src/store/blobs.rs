//! Artifacts as files. One appears under its id only when all of it is on the disk.
//!
//! Nothing is removed that was not made here: of what lies in the folder of uploads only files with the name of an upload,
//! and of the folder of artifacts nothing that a person has not deleted.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, tighten};
use crate::domain::id;
use crate::domain::model::Artifact;

/// Files of which the log says that they are strange, by name.
const NAMED: usize = 20;

/// The folder of artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    artifacts: PathBuf,
    incoming: PathBuf,
}

impl Blobs {
    pub(crate) fn open(folder: &Path) -> Result<Blobs, StoreError> {
        let blobs = Blobs { artifacts: folder.join("artifacts"), incoming: folder.join("incoming") };
        for path in [&blobs.artifacts, &blobs.incoming] {
            let error = |source| StoreError::Io { doing: "making", path: path.clone(), source };
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
            // They may be a disk of somebody else's; what makes them secret is the server's own folder.
            if let Err(error) = tighten(path) {
                log::warn!("{error}");
            }
        }
        for left in list(&blobs.incoming)? {
            match file_name(&left).is_some_and(id::is_uuid) && is_file(&left) {
                true => fs::remove_file(&left).map_err(|source| StoreError::Io {
                    doing: "removing",
                    path: left.clone(),
                    source,
                })?,
                false => log::warn!("{} is no upload and is left", left.display()),
            }
        }
        Ok(blobs)
    }

    /// Whether there is an artifact in `folder`, as far as one can see from its name.
    pub(super) fn has_any(folder: &Path) -> bool {
        let artifacts = list(&folder.join("artifacts")).unwrap_or_default();
        artifacts.iter().any(|path| id_in(path).is_some())
    }

    /// Says what is missing, cut, or belongs to nothing. A file without a record was left when the server was killed, or it
    /// is newer than the database, which somebody has put back: it is not removed.
    pub(crate) fn look_through<'a>(
        &self,
        known: impl Fn(&str) -> bool,
        all: impl Iterator<Item = &'a Artifact>,
    ) -> Result<(), StoreError> {
        let damaged = all.filter_map(|artifact| {
            let path = self.path(&artifact.id);
            let is_there = fs::metadata(&path).map(|file| file.len());
            let reason = match is_there {
                Ok(size) if size == artifact.size => return None,
                Ok(size) => format!("has {size} bytes of {}", artifact.size),
                Err(error) => format!("cannot be read ({error})"),
            };
            Some(format!("{} of artifact {} {reason}: it cannot be installed", path.display(), artifact.name))
        });
        say(damaged.collect());
        let strange = list(&self.artifacts)?.into_iter().filter(|path| !id_in(path).is_some_and(&known));
        say(strange.map(|path| format!("{} belongs to no artifact and is left", path.display())).collect());
        Ok(())
    }

    /// Where an artifact is. `id` is one of ours, never text from outside.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.artifacts.join(format!("{id}.mender"))
    }

    /// The file of a new upload.
    ///
    /// # Errors
    /// It was not made.
    pub(crate) fn create(&self, id: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.incoming(id))
    }

    /// Where an upload goes while it comes in.
    pub(crate) fn incoming(&self, id: &str) -> PathBuf {
        self.incoming.join(id)
    }

    /// Moves a complete upload to its place, durably.
    ///
    /// # Errors
    /// It was not moved.
    pub(crate) fn keep(&self, id: &str) -> io::Result<()> {
        let incoming = self.incoming(id);
        File::open(&incoming)?.sync_all()?;
        fs::rename(incoming, self.path(id))?;
        File::open(&self.artifacts)?.sync_all()
    }

    /// Removes an upload that is not wanted.
    pub(crate) fn discard(&self, id: &str) {
        match fs::remove_file(self.incoming(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("{} could not be removed: {error}", self.incoming(id).display());
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Removes an artifact whose record is gone. Whoever is reading it goes on reading.
    pub(crate) fn remove(&self, id: &str) {
        if let Err(error) = fs::remove_file(self.path(id)) {
            log::warn!("the file of artifact {id} could not be removed: {error}");
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|source| StoreError::Io {
        doing: "looking through",
        path: folder.to_owned(),
        source,
    })?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The id in the name of an artifact's file.
fn id_in(path: &Path) -> Option<&str> {
    file_name(path)?.strip_suffix(".mender").filter(|id| id::is_uuid(id))
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

fn say(lines: Vec<String>) {
    let more = lines.len().saturating_sub(NAMED);
    lines.iter().take(NAMED).for_each(|line| log::warn!("{line}"));
    if more > 0 {
        log::warn!("and {more} more files like that");
    }
}
