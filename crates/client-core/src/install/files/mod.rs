//! The files of the device, for payloads that are files.

mod directory;
mod payload_files;
mod replacement;
mod single_file;

pub use directory::DirectoryTree;
pub use single_file::SingleFile;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Arriving, InstallError, Progress};
use crate::artifact::tree::Attributes;

/// Files and directories on the device, and the place where a payload lies during its deployment.
///
/// # Contract
/// What changes a name ([`create`](Files::create), [`link`](Files::link), [`rename`](Files::rename),
/// [`exchange`](Files::exchange), [`remove`](Files::remove)) is durable when
/// [`sync_directory`](Files::sync_directory) of the directory has returned, of one of the two for names in two
/// directories. Before that a power cut may undo any of it, in any order, but never a part of one rename or exchange.
/// Content and attributes are durable when [`sync_tree`](Files::sync_tree) has returned; before that they may be
/// anything. No operation follows a symbolic link in the last component of a path, all do in the others.
///
/// Whatever fails may have happened all the same, with the exception of [`exchange`](Files::exchange) and
/// [`link`](Files::link) where they are not supported.
pub trait Files {
    /// Makes the file tree of the deployment anew and stores the files of the payload in its `files` directory, each
    /// compared with its checksum. Everything is durable on return, and the payload was read to its verified end.
    ///
    /// # Errors
    /// Whatever was wrong with the payload, and whatever kept it from being stored.
    fn store(&mut self, arriving: &mut Arriving<'_>, progress: &mut dyn Progress)
    -> Result<(), InstallError>;

    /// Where that tree is. It need not be there.
    fn tree(&self) -> PathBuf;

    /// Removes that tree with everything in it. A missing one is fine.
    ///
    /// # Errors
    /// When something could not be removed.
    fn remove_payload(&mut self) -> Result<(), InstallError>;

    /// What has this name.
    ///
    /// # Errors
    /// When it cannot be looked at. A missing directory on the way is no error: then nothing has the name.
    fn look(&mut self, path: &Path) -> Result<Option<Found>, FilesError>;

    /// Whether a directory has this name, or a symbolic link that leads to one.
    ///
    /// # Errors
    /// When it cannot be looked at.
    fn is_directory(&mut self, path: &Path) -> Result<bool, FilesError>;

    /// Starts reading a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&mut self, path: &Path) -> Result<Box<dyn Read>, FilesError>;

    /// Makes something new with these attributes; without them it is its owner's alone, but for a directory, which
    /// others may read.
    ///
    /// # Errors
    /// When the name is taken, or it cannot be made; a part of it may be there then.
    fn create(
        &mut self,
        path: &Path,
        node: Node<'_>,
        attributes: Option<&Attributes>,
    ) -> Result<(), FilesError>;

    /// Sets the permissions of a file: twelve bits.
    ///
    /// # Errors
    /// When they cannot be set.
    fn set_mode(&mut self, path: &Path, mode: u32) -> Result<(), FilesError>;

    /// Gives a directory its attributes, when everything in it is made.
    ///
    /// # Errors
    /// When one of them cannot be set.
    fn set_attributes(&mut self, path: &Path, attributes: &Attributes) -> Result<(), FilesError>;

    /// Copies a file with content, permissions, owner, time and extended attributes to a new name.
    ///
    /// # Errors
    /// When the name is taken, or it cannot be copied; a part of it may be there then.
    fn copy(&mut self, from: &Path, to: &Path) -> Result<(), FilesError>;

    /// Gives what has the name `from` a second name.
    ///
    /// # Errors
    /// An error that says so when the file system has no such links; when `to` is taken.
    fn link(&mut self, from: &Path, to: &Path) -> Result<(), FilesError>;

    /// Renames, in place of what has the name `to`.
    ///
    /// # Errors
    /// When it cannot.
    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), FilesError>;

    /// Two names for two things become each other's, in one step.
    ///
    /// # Errors
    /// An error that says so when the file system cannot, or when it does not keep the numbers by which
    /// [`Found::identity`] tells two directories apart.
    fn exchange(&mut self, one: &Path, other: &Path) -> Result<(), FilesError>;

    /// Removes a name, and of a directory everything in it. A missing name is fine.
    ///
    /// # Errors
    /// When something could not be removed.
    fn remove(&mut self, path: &Path) -> Result<(), FilesError>;

    /// Removes a directory if it is empty, and tells whether it is gone.
    ///
    /// # Errors
    /// When it cannot be looked at or removed.
    fn remove_empty_directory(&mut self, path: &Path) -> Result<bool, FilesError>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// When they may not be.
    fn sync_directory(&mut self, path: &Path) -> Result<(), FilesError>;

    /// Makes a file durable, or a directory with everything below it: names, content and attributes. Not its own name.
    ///
    /// # Errors
    /// When something of it may not be.
    fn sync_tree(&mut self, path: &Path) -> Result<(), FilesError>;

    /// Where something is mounted: at this path, or somewhere below it.
    ///
    /// # Errors
    /// When that cannot be told.
    fn mounted_in(&mut self, path: &Path) -> Result<Option<PathBuf>, FilesError>;

    /// Whether the file tree of the deployment lies in this directory, whatever links lead there.
    ///
    /// # Errors
    /// When that cannot be told.
    fn holds_tree(&mut self, directory: &Path) -> Result<bool, FilesError>;

    /// How many bytes are free where `path` is, or `None` when the file system does not say.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn free_bytes(&mut self, path: &Path) -> Result<Option<u64>, FilesError>;
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// The same for all names of one thing and different for two things that are there at the same time; it lasts over
    /// restarts.
    pub identity: u64,
}

/// What something in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe or a socket.
    Special,
}

/// What is to be made.
pub enum Node<'a> {
    /// A file with everything that can be read.
    File(&'a mut dyn Read),
    /// An empty directory.
    Directory,
    /// A symbolic link to this.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A character device, major and minor number.
    CharacterDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
}

/// A file operation that failed.
#[derive(Debug)]
pub struct FilesError {
    /// What was being done.
    pub doing: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The system's error, or the one of the source of a file's content.
    pub source: io::Error,
}

impl FilesError {
    /// Whether the file system has no such operation.
    pub(crate) fn is_unsupported(&self) -> bool {
        self.source.kind() == io::ErrorKind::Unsupported
    }
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.doing, self.path.display(), self.source)
    }
}

impl std::error::Error for FilesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
