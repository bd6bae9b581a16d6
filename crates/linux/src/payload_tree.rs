//! The file tree of an update module: what it is told, what it gets, and where it may leave things between its calls.
//!
//! It lies in the datastore, belongs to this process alone (directories 0700, files 0600), and everything in it is
//! durable before a deployment goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use client_core::artifact::{ArtifactError, PayloadFile, PayloadReader};
use client_core::install::{Arriving, InstallError, Progress};

use crate::atomic_file;

/// Bytes between two reports of progress.
pub(crate) const PROGRESS_BYTES: u64 = 1 << 20;

/// The tree of the one payload there can be.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree under `datastore`; it need not be there.
    pub fn at(datastore: &Path) -> Tree {
        Tree { root: datastore.join("modules/v3/payloads/0000/tree") }
    }

    /// Where it is, as an absolute path.
    ///
    /// # Errors
    /// When the datastore is relative and the current directory is not known.
    pub fn absolute(&self) -> io::Result<PathBuf> {
        std::path::absolute(&self.root)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// Makes it anew: what an earlier deployment left is removed, and the header is written. Durable on return.
    ///
    /// # Errors
    /// When something cannot be removed or written.
    pub fn create(&self, arriving: &Arriving<'_>) -> Result<(), InstallError> {
        self.remove()?;
        self.write(arriving).map_err(|error| self.error("write", error))
    }

    fn write(&self, arriving: &Arriving<'_>) -> io::Result<()> {
        let header = arriving.header;
        let current = &arriving.current;
        let payload = header.payload.as_ref();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        for directory in ["header", "tmp", "files"] {
            atomic_file::create_private_directory(&self.path(directory))?;
        }
        let group = current.artifact_group.map_or(String::new(), |group| format!("{group}\n"));
        let name = match current.artifact_name {
            "" => String::new(),
            name => format!("{name}\n"),
        };
        for (path, content) in [
            ("version", "3\n"),
            ("current_artifact_name", &name),
            ("current_artifact_group", &group),
            ("current_device_type", &format!("{}\n", current.device_type)),
            ("header/artifact_name", header.artifact_name.as_str()),
            ("header/artifact_group", header.artifact_group.as_deref().unwrap_or_default()),
            ("header/payload_type", payload.map_or("", |payload| payload.payload_type.as_str())),
            ("header/header-info", &header.header_info),
            ("header/type-info", &header.type_info),
            ("header/meta-data", payload.and_then(|payload| payload.meta_data.as_deref()).unwrap_or("null")),
        ] {
            let mut file = create(&self.path(path))?;
            file.write_all(content.as_bytes())?;
        }
        // With the names that lead to it.
        atomic_file::sync_tree(&self.root)
    }

    /// Stores all payload files in `files/`. Returns only when all of them have the checksum of the manifest, the
    /// artifact has ended properly, and everything is durable.
    ///
    /// # Errors
    /// When the artifact is bad, or a file cannot be written.
    pub fn store_files(
        &self,
        payload: &mut PayloadReader,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError> {
        while let Some(mut file) = payload.next_file()? {
            let path = self.path("files").join(file.name());
            store(&path, &mut file, progress).map_err(|error| match error {
                Stored::Artifact(error) => InstallError::Artifact(error),
                Stored::Disk(error) => self.error("store a file in", error),
            })?;
        }
        // Not one by one: a module with 500 files would cost 500 flushes of the disk.
        atomic_file::sync_tree(&self.path("files")).map_err(|error| self.error("sync", error))
    }

    /// Removes it with all that is in it. A missing one is fine.
    ///
    /// # Errors
    /// When something could not be removed.
    pub fn remove(&self) -> Result<(), InstallError> {
        atomic_file::remove_directory(&self.root).map_err(|error| self.error("remove", error))
    }

    pub(crate) fn error(&self, doing: &str, error: io::Error) -> InstallError {
        let reason = format!("cannot {doing} {}: {error}", self.root.display());
        InstallError::Handler { step: "the file tree of the payload", reason }
    }
}

/// A new file, to be made durable with the others.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What went wrong: on the way in, or on the way to the disk.
enum Stored {
    Artifact(ArtifactError),
    Disk(io::Error),
}

fn store(path: &Path, file: &mut PayloadFile<'_>, progress: &mut dyn Progress) -> Result<(), Stored> {
    let total_bytes = file.size();
    let mut target = create(path).map_err(Stored::Disk)?;
    let mut done_bytes = 0;
    loop {
        let bytes = file.fill_buf().map_err(|error| Stored::Artifact(ArtifactError::from_io(error)))?;
        let count = bytes.len();
        if count == 0 {
            break;
        }
        target.write_all(bytes).map_err(Stored::Disk)?;
        file.consume(count);
        let before = done_bytes / PROGRESS_BYTES;
        done_bytes += count as u64;
        if done_bytes / PROGRESS_BYTES > before {
            progress.written(done_bytes, total_bytes);
        }
    }
    progress.written(done_bytes, total_bytes);
    Ok(())
}
