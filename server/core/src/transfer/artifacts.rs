//! Artifacts on their way from one place to another: a folder, or S3.
//!
//! What arrives is what its record says, by size and digest; what is at the other place already and is that, is not sent again.
//! So a move that was cut short goes on where it was.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use ring::digest::{Context, SHA256};

use crate::blobs::{BlobError, Blobs, Folder, Name, Pieces, S3, S3Options, Shelf, Span};
use crate::domain::id;
use crate::model::Artifact;
use crate::store::StoreError;

/// Where artifacts are.
#[derive(Debug, Clone)]
pub enum Artifacts {
    /// In a data folder.
    Folder(PathBuf),
    /// In a bucket.
    S3(Box<S3Options>),
}

/// Where the artifacts of a move come from and go to; by itself, from and to the data folders of the fleet, if it has such.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// Where they are.
    pub from: Option<Artifacts>,
    /// Where they are to be.
    pub to: Option<Artifacts>,
}

/// An artifact as its record says.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) size: u64,
    sha256: String,
}

impl From<&Artifact> for Wanted {
    fn from(artifact: &Artifact) -> Wanted {
        Wanted { id: artifact.id.clone(), size: artifact.size, sha256: artifact.sha256.clone() }
    }
}

/// How one arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// It was copied or linked.
    Now,
    /// It was there.
    Before,
    /// It is not to be had, or is not what its record says: why.
    Not(String),
}

/// A way between two places.
pub(super) struct Way {
    from: Arc<dyn Blobs>,
    to: Arc<dyn Blobs>,
    /// Both are folders: what is on one file system is linked.
    folders: Option<(PathBuf, PathBuf)>,
}

impl Way {
    /// # Errors
    /// What is said about S3 cannot be used, or a folder cannot be made.
    pub(super) fn open(from: &Artifacts, to: &Artifacts) -> Result<Way, StoreError> {
        let folders = match (from, to) {
            (Artifacts::Folder(from), Artifacts::Folder(to)) => Some((from.clone(), to.clone())),
            (Artifacts::Folder(_), Artifacts::S3(_))
            | (Artifacts::S3(_), Artifacts::Folder(_) | Artifacts::S3(_)) => None,
        };
        let from: Arc<dyn Blobs> = match from {
            // A server may be at work there.
            Artifacts::Folder(folder) => Arc::new(Folder::to_read(folder)),
            Artifacts::S3(options) => Arc::new(S3::open(options).map_err(failed)?),
        };
        let to: Arc<dyn Blobs> = match to {
            Artifacts::Folder(folder) => Arc::new(Folder::open(folder).map_err(failed)?),
            Artifacts::S3(options) => Arc::new(S3::open(options).map_err(failed)?),
        };
        Ok(Way { from, to, folders })
    }

    /// Brings an artifact over.
    ///
    /// # Errors
    /// One of the places does not answer, or has no room. It is another matter when it is the artifact that is wrong.
    pub(super) async fn bring(&self, wanted: &Wanted) -> Result<Arrived, StoreError> {
        let Some(name) = Name::artifact(&wanted.id) else {
            return Ok(Arrived::Not("its id is none of ours".to_owned()));
        };
        if self.to.size(&name).await.map_err(failed)? == Some(wanted.size) {
            match digest(self.to.read(&name, Span::all(wanted.size)).await).await {
                Ok(found) if found == wanted.sha256 => return Ok(Arrived::Before),
                // What is there instead is replaced.
                Ok(_) => {}
                Err(error) => return Err(failed(error)),
            }
        } else if self.link(wanted) {
            return Ok(Arrived::Now);
        }
        match self.copy(&name, wanted).await {
            Ok(()) => Ok(Arrived::Now),
            Err(BlobError::Missing { .. }) => Ok(Arrived::Not("it is not there".to_owned())),
            Err(
                error @ (BlobError::Damaged { .. } | BlobError::NotAFile { .. } | BlobError::Lies { .. }),
            ) => Ok(Arrived::Not(error.to_string())),
            Err(
                error @ (BlobError::Io { .. }
                | BlobError::TooLarge { .. }
                | BlobError::Unreachable { .. }
                | BlobError::Refused { .. }
                | BlobError::Settings { .. }),
            ) => Err(failed(error)),
        }
    }

    /// Links a file that has the right size, if that can be. What has one name never changes.
    fn link(&self, wanted: &Wanted) -> bool {
        let Some((from, to)) = &self.folders else { return false };
        let file = |folder: &Path| folder.join("artifacts").join(format!("{}.mender", wanted.id));
        let (from, to) = (file(from), file(to));
        let fits = |found: fs::Metadata| found.is_file() && found.len() == wanted.size;
        fs::metadata(&from).is_ok_and(fits) && fs::hard_link(&from, &to).is_ok()
    }

    async fn copy(&self, name: &Name, wanted: &Wanted) -> Result<(), BlobError> {
        let mut pieces = self.from.read(name, Span::all(wanted.size)).await?;
        let mut upload = self.to.create(name).await?;
        let mut found = Context::new(&SHA256);
        loop {
            match pieces.try_next().await {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    found.update(&piece);
                    upload.write(piece).await?;
                }
                Err(error) => {
                    upload.discard().await;
                    return Err(error);
                }
            }
        }
        if id::hex(found.finish().as_ref()) != wanted.sha256 {
            upload.discard().await;
            return Err(BlobError::Damaged {
                name: name.clone(),
                size_bytes: wanted.size,
                expected_bytes: wanted.size,
            });
        }
        upload.keep().await.map(|_| ())
    }

    /// Which of these are not there, after all: by one look at everything that is.
    ///
    /// # Errors
    /// The place does not answer.
    pub(super) async fn lacking(&self, wanted: &[Wanted]) -> Result<Vec<String>, StoreError> {
        let there = self.to.list(Shelf::Artifacts).await.map_err(failed)?;
        let there: HashMap<&str, u64> =
            there.blobs.iter().map(|found| (found.name.id(), found.size)).collect();
        let lacks = wanted.iter().filter(|one| there.get(one.id.as_str()) != Some(&one.size));
        Ok(lacks.map(|one| one.id.clone()).collect())
    }
}

async fn digest(pieces: Result<Pieces, BlobError>) -> Result<String, BlobError> {
    let mut pieces = pieces?;
    let mut digest = Context::new(&SHA256);
    while let Some(piece) = pieces.try_next().await? {
        digest.update(&piece);
    }
    Ok(id::hex(digest.finish().as_ref()))
}

fn failed(error: BlobError) -> StoreError {
    StoreError::Artifacts { reason: error.to_string() }
}
