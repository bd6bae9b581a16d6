//! Where the bytes of artifacts are: in a folder, or in a bucket of an S3 store.
//!
//! What is here under a name was written completely and is durable; it is never changed, only removed. Which of it is an
//! artifact is said by the records. Both places do the same ([`conformance`]); only S3 gives links of its own.

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod folder;
pub(crate) mod intake;
#[cfg(test)]
mod lying;
pub(crate) mod s3;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use hyper::body::Bytes;

pub(crate) use folder::Folder;
pub(crate) use s3::{S3, S3Options};

use crate::domain::id;
use crate::model::Artifact;
use crate::model::time::Timestamp;

/// Blobs of which the log says that they are strange, by name.
const NAMED: usize = 20;

/// Which blobs belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Shelf {
    /// Artifacts that were read and are what they say.
    Artifacts,
    /// What somebody has put here by a link, and nobody has read yet.
    Direct,
}

/// The name of a blob. Names begin with an id that was made here, never with text from outside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    shelf: Shelf,
    id: String,
}

impl Name {
    /// The name of an artifact; `None` when `id` is not one of ours.
    pub(crate) fn artifact(id: &str) -> Option<Name> {
        Name::of(Shelf::Artifacts, id)
    }

    /// The name of a direct upload; `None` when `id` is not one of ours.
    pub(crate) fn direct(id: &str) -> Option<Name> {
        Name::of(Shelf::Direct, id)
    }

    fn of(shelf: Shelf, id: &str) -> Option<Name> {
        id::is_uuid(id).then(|| Name { shelf, id: id.to_owned() })
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its file in the folder of its shelf, or the end of its key.
    fn file(&self) -> String {
        match self.shelf {
            Shelf::Artifacts => format!("{}.mender", self.id),
            Shelf::Direct => self.id.clone(),
        }
    }

    /// The name that a file on a shelf has, if it is one of ours.
    fn parse(shelf: Shelf, file: &str) -> Option<Name> {
        let id = match shelf {
            Shelf::Artifacts => file.strip_suffix(".mender")?,
            Shelf::Direct => file,
        };
        Name::of(shelf, id)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shelf {
            Shelf::Artifacts => write!(f, "artifact {}", self.id),
            Shelf::Direct => write!(f, "upload {}", self.id),
        }
    }
}

/// Which bytes of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// How large the whole blob is, as its record says.
    pub(crate) total: u64,
    /// The first byte.
    pub(crate) start: u64,
    /// How many. They end where the blob ends, or before.
    pub(crate) length: u64,
}

impl Span {
    /// All of a blob.
    pub(crate) fn all(total: u64) -> Span {
        Span { total, start: 0, length: total }
    }
}

/// What a place has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) name: Name,
    /// Its bytes.
    pub(crate) size: u64,
    /// When it was kept, as the place says.
    pub(crate) modified: Timestamp,
}

/// What is on a shelf.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// What has a name of ours.
    pub(crate) blobs: Vec<Found>,
    /// What has another name: it was not made here.
    pub(crate) strange: Vec<String>,
}

/// Something that a person may send to the place itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reads a blob, or a range of it.
    Get,
    /// Puts a blob there.
    Put,
}

/// The bytes of a blob as they come.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, BlobError>>;

/// A place for blobs.
#[async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Begins a blob. Nothing is to be seen of it until it is kept. Two that have one name do not mix: the one that is kept
    /// last is there, whole.
    async fn create(&self, name: &Name) -> Result<Box<dyn Upload>, BlobError>;

    /// The bytes of a blob. Exactly the span comes, or an error: never others, never fewer. A place whose answer does not
    /// fit the record has an error for it, before the first byte where that can be known.
    async fn read(&self, name: &Name, span: Span) -> Result<Pieces, BlobError>;

    /// How large a blob is; `None` when there is none.
    async fn size(&self, name: &Name) -> Result<Option<u64>, BlobError>;

    /// Removes a blob. None is there afterwards, and none need have been there before.
    async fn remove(&self, name: &Name) -> Result<(), BlobError>;

    /// Everything on a shelf.
    async fn list(&self, shelf: Shelf) -> Result<Listing, BlobError>;

    /// A link to the place itself that works for a while without anything else; `None` when the place has none.
    async fn link(&self, verb: Verb, name: &Name, valid: Duration) -> Result<Option<String>, BlobError>;

    /// Whether the place answers.
    async fn probe(&self) -> Result<(), BlobError>;
}

/// A blob that is being written. Dropped without being kept, it is discarded.
#[async_trait]
pub(crate) trait Upload: Send {
    /// The next bytes. Waits when the place is slower than whoever sends.
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError>;

    /// Makes it durable, and only then visible. How many bytes it has.
    async fn keep(self: Box<Self>) -> Result<u64, BlobError>;

    /// Removes what was written.
    async fn discard(self: Box<Self>);
}

/// Why bytes could not be kept or read.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum BlobError {
    /// A file.
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// There is no such blob.
    Missing {
        /// Which.
        name: Name,
    },
    /// A blob has not as many bytes as its record says.
    Damaged {
        /// Which.
        name: Name,
        /// As many as there are.
        size_bytes: u64,
        /// As many as there should be.
        expected_bytes: u64,
    },
    /// What has the name of a blob is a pipe, a folder or something else that is no file.
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// A blob is larger than its place can have.
    TooLarge {
        /// The most.
        most_bytes: u64,
    },
    /// S3 did not answer, or not in time.
    Unreachable {
        /// What was tried.
        doing: &'static str,
        /// What happened.
        reason: String,
    },
    /// S3 answered that it will not.
    Refused {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// S3 sent something else than what it was asked for.
    Lies {
        /// About what.
        name: Name,
        /// How.
        lie: Lie,
    },
    /// What was said about S3 cannot be used.
    Settings {
        /// What is wrong.
        reason: String,
    },
}

/// How an answer of S3 does not fit the question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Lie {
    /// It is no answer to a question for a range.
    NotTheRange {
        /// What it is.
        reason: String,
    },
    /// It ends before the range does.
    Short {
        /// Bytes that came.
        came_bytes: u64,
        /// Bytes that were asked for.
        asked_bytes: u64,
    },
    /// It goes on behind the range.
    Long {
        /// Bytes that were asked for.
        asked_bytes: u64,
    },
    /// The object has another size now than when it was written.
    Total {
        /// As S3 says.
        told_bytes: u64,
        /// As was written.
        expected_bytes: u64,
    },
    /// The object became another one while it was read.
    Changed {
        /// The tag of the first answer.
        before: String,
        /// That of the later one.
        after: String,
    },
}

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lie::NotTheRange { reason } => {
                write!(f, "the answer is not the range that was asked for: {reason}")
            }
            Lie::Short { came_bytes, asked_bytes } => {
                write!(f, "{came_bytes} bytes came of {asked_bytes} that were asked for")
            }
            Lie::Long { asked_bytes } => {
                write!(f, "more than {asked_bytes} bytes came, which were asked for")
            }
            Lie::Total { told_bytes, expected_bytes } => {
                write!(f, "it has {told_bytes} bytes, and {expected_bytes} were written")
            }
            Lie::Changed { before, after } => {
                write!(f, "the object was changed while it was read, its tag from {before} to {after}")
            }
        }
    }
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            BlobError::Missing { name } => write!(f, "the file of {name} is missing"),
            BlobError::Damaged { name, size_bytes, expected_bytes } => {
                write!(f, "the file of {name} has {size_bytes} bytes of {expected_bytes}")
            }
            BlobError::NotAFile { path } => write!(f, "{} is no regular file", path.display()),
            BlobError::TooLarge { most_bytes } => {
                write!(f, "the artifact has more than {most_bytes} bytes, and S3 takes no more")
            }
            BlobError::Unreachable { doing, reason } => write!(f, "S3 does not answer: {doing}: {reason}"),
            BlobError::Refused { doing, reason } => write!(f, "S3 refuses: {doing}: {reason}"),
            BlobError::Lies { name, lie } => write!(f, "S3 lies about ranges: {name}: {lie}"),
            BlobError::Settings { reason } => write!(f, "S3: {reason}"),
        }
    }
}

impl std::error::Error for BlobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BlobError::Io { source, .. } => Some(source),
            BlobError::Missing { .. }
            | BlobError::Damaged { .. }
            | BlobError::NotAFile { .. }
            | BlobError::TooLarge { .. }
            | BlobError::Unreachable { .. }
            | BlobError::Refused { .. }
            | BlobError::Lies { .. }
            | BlobError::Settings { .. } => None,
        }
    }
}

/// Says what is missing, cut, or belongs to nothing. A blob without a record was left when a server was killed, or it is
/// newer than the database, which somebody has put back: it is not removed.
pub(crate) fn look_through<'a>(listing: &Listing, artifacts: impl Iterator<Item = &'a Artifact>) {
    let mut without_record: std::collections::BTreeMap<&str, u64> =
        listing.blobs.iter().map(|found| (found.name.id(), found.size)).collect();
    let damaged = artifacts.filter_map(|artifact| {
        let reason = match without_record.remove(artifact.id.as_str()) {
            Some(size) if size == artifact.size => return None,
            Some(size) => format!("has {size} bytes of {}", artifact.size),
            None => "is missing".to_owned(),
        };
        Some(format!(
            "the file {}.mender of artifact {} {reason}: it cannot be installed",
            artifact.id, artifact.name
        ))
    });
    say(damaged.collect());
    let lost = without_record.keys().map(|id| format!("{id}.mender belongs to no artifact and is left"));
    let strange = listing.strange.iter().map(|name| format!("{name} is no artifact and is left"));
    say(lost.chain(strange).collect());
}

fn say(lines: Vec<String>) {
    let more = lines.len().saturating_sub(NAMED);
    lines.iter().take(NAMED).for_each(|line| log::warn!("{line}"));
    if more > 0 {
        log::warn!("and {more} more files like that");
    }
}
