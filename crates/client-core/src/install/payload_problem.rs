//! Why a file or a directory tree cannot be installed as its payload says.

use crate::artifact::tree::TreeProblem;
use std::fmt;
use std::path::PathBuf;

/// What is wrong with the payload, or with the place it is for. Nothing was changed there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadProblem {
    /// The payload has no file of this name.
    MissingFile {
        /// The name.
        name: String,
    },
    /// A file that says something in one line holds something else.
    Malformed {
        /// The name of the file.
        name: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The destination is not an absolute path without `..`.
    Destination {
        /// What the payload says.
        path: String,
    },
    /// The destination is `/`.
    Root,
    /// The destination is a mount point, which cannot be replaced as a whole.
    MountPoint {
        /// The destination.
        path: PathBuf,
    },
    /// Something lies there that this payload type does not replace.
    Occupied {
        /// The destination.
        path: PathBuf,
        /// What lies there.
        found: &'static str,
    },
    /// The file system has too little room.
    NoRoom {
        /// Where.
        path: PathBuf,
        /// Bytes that are needed.
        need_bytes: u64,
        /// Bytes that are free.
        have_bytes: u64,
    },
    /// The archive has what no tree may have.
    Tree(TreeProblem),
    /// The payload was begun by an update module that is no longer there.
    NotOurs,
    /// What the tree is to replace was neither found at its place nor where it was kept.
    Lost {
        /// The destination.
        path: PathBuf,
    },
}

impl fmt::Display for PayloadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadProblem::MissingFile { name } => write!(f, "the payload has no file {name:?}"),
            PayloadProblem::Malformed { name, expected } => {
                write!(f, "payload file {name:?} does not hold {expected}")
            }
            PayloadProblem::Destination { path } => {
                write!(f, "the destination {path:?} is not an absolute path without \"..\"")
            }
            PayloadProblem::Root => f.write_str("the destination is \"/\", which cannot be replaced"),
            PayloadProblem::MountPoint { path } => {
                write!(f, "{} is a mount point and cannot be replaced as a whole", path.display())
            }
            PayloadProblem::Occupied { path, found } => {
                write!(f, "{} is {found}, which this payload does not replace", path.display())
            }
            PayloadProblem::NoRoom { path, need_bytes, have_bytes } => {
                write!(f, "{need_bytes} bytes are needed for {}, and {have_bytes} are free", path.display())
            }
            PayloadProblem::Tree(problem) => problem.fmt(f),
            PayloadProblem::NotOurs => {
                f.write_str("an update module that is gone has begun with this payload")
            }
            PayloadProblem::Lost { path } => {
                write!(f, "what was at {} is neither there nor where it was kept", path.display())
            }
        }
    }
}

impl std::error::Error for PayloadProblem {}
