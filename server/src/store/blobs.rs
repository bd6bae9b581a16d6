//! Artifacts as files. One appears under its id only when all of it is on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The folder of artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    artifacts: PathBuf,
    incoming: PathBuf,
}

impl Blobs {
    pub(super) fn open(folder: &Path) -> Result<Blobs, StoreError> {
        let blobs = Blobs { artifacts: folder.join("artifacts"), incoming: folder.join("incoming") };
        for path in [&blobs.artifacts, &blobs.incoming] {
            let error = |source| StoreError::Io { doing: "making", path: path.clone(), source };
            fs::create_dir_all(path).map_err(error)?;
        }
        let error = |source| StoreError::Io { doing: "emptying", path: blobs.incoming.clone(), source };
        for left in fs::read_dir(&blobs.incoming).map_err(error)? {
            let left = left.map_err(error)?.path();
            fs::remove_file(&left).map_err(error)?;
        }
        Ok(blobs)
    }

    /// Removes files without a record: the server was stopped between the two.
    pub(super) fn remove_unknown(&self, is_known: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        let error =
            |source| StoreError::Io { doing: "looking through", path: self.artifacts.clone(), source };
        for file in fs::read_dir(&self.artifacts).map_err(error)? {
            let path = file.map_err(error)?.path();
            let id = path.file_stem().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
            if !is_known(&id) {
                log::warn!("{} belongs to no artifact and is removed", path.display());
                fs::remove_file(&path).map_err(error)?;
            }
        }
        Ok(())
    }

    /// Where an artifact is. `id` is one of ours, never text from outside.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.artifacts.join(format!("{id}.mender"))
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
        if let Err(error) = fs::remove_file(self.incoming(id)) {
            log::warn!("an upload could not be removed: {error}");
        }
    }

    /// Removes an artifact whose record is gone. Whoever is reading it goes on reading.
    pub(crate) fn remove(&self, id: &str) {
        if let Err(error) = fs::remove_file(self.path(id)) {
            log::warn!("the file of artifact {id} could not be removed: {error}");
        }
    }
}
