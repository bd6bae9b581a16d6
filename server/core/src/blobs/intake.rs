//! An artifact that comes in: it is read while it is written to its place, and kept only when it is what it says.
//!
//! ```text
//! bytes -> SHA-256 of all
//!       -> a bounded pipe -> a thread that reads the artifact
//!       -> the place for blobs, in parts
//! ```
//!
//! Nothing waits on a disk for that. Whether its signature is good is for the devices to judge: they have the keys.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use artifact::{ArtifactError, Header, Limits, Trust};
use hyper::body::Bytes;
use ring::digest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{BlobError, Blobs, Name, Upload};
use crate::domain::id;
use crate::model::ArtifactFile;

/// Pieces between whoever sends and the reader.
const PIECES: usize = 16;
/// Largest piece: a larger one is cut.
const PIECE_BYTES: usize = 256 * 1024;

/// What an artifact was when all of it had come.
#[derive(Debug)]
pub(crate) struct Taken {
    /// What it says about itself.
    pub(crate) header: Header,
    /// Its payload.
    pub(crate) files: Vec<ArtifactFile>,
    /// Of the whole file.
    pub(crate) size_bytes: u64,
    /// Of the whole file, in hexadecimal digits.
    pub(crate) sha256: String,
}

/// Why an artifact was not kept.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum IntakeError {
    /// It is none, or not a good one.
    NotAnArtifact {
        /// What is wrong with it.
        reason: String,
    },
    /// It has more bytes than are taken.
    TooLarge {
        /// As many are.
        most_bytes: u64,
    },
    /// Its place does not take it.
    Blob(BlobError),
    /// The server stops.
    Stopped,
}

impl fmt::Display for IntakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntakeError::NotAnArtifact { reason } => write!(f, "not a valid artifact: {reason}"),
            IntakeError::TooLarge { most_bytes } => {
                write!(f, "the artifact has more than {most_bytes} bytes")
            }
            IntakeError::Blob(error) => error.fmt(f),
            IntakeError::Stopped => write!(f, "the server stops"),
        }
    }
}

impl std::error::Error for IntakeError {}

impl From<BlobError> for IntakeError {
    fn from(error: BlobError) -> IntakeError {
        IntakeError::Blob(error)
    }
}

type Reading = Result<(Header, Vec<ArtifactFile>), String>;

/// An artifact on its way in. Dropped before it is kept, nothing of it is left.
pub(crate) struct Intake {
    upload: Box<dyn Upload>,
    digest: digest::Context,
    size_bytes: u64,
    most_bytes: u64,
    pipe: Option<mpsc::Sender<Bytes>>,
    reader: JoinHandle<Reading>,
}

impl Intake {
    /// Begins to take an artifact of at most `most_bytes`.
    ///
    /// # Errors
    /// Its place does not take it.
    pub(crate) async fn begin(
        blobs: &dyn Blobs,
        name: &Name,
        most_bytes: u64,
    ) -> Result<Intake, IntakeError> {
        let upload = blobs.create(name).await?;
        let (pipe, receiver) = mpsc::channel(PIECES);
        let reader = tokio::task::spawn_blocking(move || {
            let receiver = Arc::new(Mutex::new(receiver));
            let read = read(Pipe { receiver: receiver.clone(), piece: Bytes::new() });
            // What comes behind an artifact is part of the file, and whoever sends must not take the end of this for an
            // error of the artifact.
            while read.is_ok() && next(&receiver).is_some() {}
            read
        });
        let digest = digest::Context::new(&digest::SHA256);
        Ok(Intake { upload, digest, size_bytes: 0, most_bytes, pipe: Some(pipe), reader })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// It is no artifact, too large, or its place does not take it. Then no more is taken.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), IntakeError> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > self.most_bytes {
            return Err(IntakeError::TooLarge { most_bytes: self.most_bytes });
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            self.digest.update(&piece);
            // Before its end the reader ends only with an error.
            let sent = match &self.pipe {
                Some(pipe) if !self.reader.is_finished() => pipe.send(piece.clone()).await.is_ok(),
                Some(_) | None => false,
            };
            if !sent {
                self.pipe = None;
                return Err(match self.verdict().await {
                    Err(error) => error,
                    Ok(_) => IntakeError::Stopped,
                });
            }
            self.upload.write(piece).await?;
        }
        Ok(())
    }

    /// Keeps the artifact, if it is one.
    ///
    /// # Errors
    /// It is not, or its place does not take it. Then nothing of it is left.
    pub(crate) async fn keep(mut self) -> Result<Taken, IntakeError> {
        self.pipe = None;
        let (header, files) = match self.verdict().await {
            Ok(read) => read,
            Err(error) => {
                self.upload.discard().await;
                return Err(error);
            }
        };
        let size_bytes = self.upload.keep().await?;
        Ok(Taken { header, files, size_bytes, sha256: id::hex(self.digest.finish().as_ref()) })
    }

    /// Removes what has come.
    pub(crate) async fn discard(self) {
        self.upload.discard().await;
    }

    async fn verdict(&mut self) -> Result<(Header, Vec<ArtifactFile>), IntakeError> {
        match (&mut self.reader).await {
            Ok(read) => read.map_err(|reason| IntakeError::NotAnArtifact { reason }),
            Err(_) => Err(IntakeError::Stopped),
        }
    }
}

/// The pieces as a file. It ends when nobody sends any more.
struct Pipe {
    receiver: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    piece: Bytes,
}

fn next(receiver: &Mutex<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match next(&self.receiver) {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let piece = self.piece.split_to(self.piece.len().min(buffer.len()));
        let (filled, _) = buffer.split_at_mut(piece.len());
        filled.copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// Reads all of an artifact: what it says, and that its checksums are right.
fn read(source: Pipe) -> Reading {
    let wrong = |error: ArtifactError| error.to_string();
    let artifact::Artifact { header, mut payload, .. } =
        artifact::open(source, &Trust::DangerUnsigned, &Limits::default()).map_err(wrong)?;
    let mut files = Vec::new();
    let mut buffer = vec![0; PIECE_BYTES];
    while let Some(mut file) = payload.next_file().map_err(wrong)? {
        files.push(ArtifactFile {
            name: file.name().to_owned(),
            checksum: file.expected_sha256().to_string(),
            size: file.size(),
        });
        while file.read(&mut buffer).map_err(|error| error.to_string())? > 0 {}
    }
    Ok((header, files))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use artifact::write::{self, ArtifactSpec, PayloadSource};
    use artifact::{Compression, CompressionLevel};

    use super::super::{Folder, Listing, Shelf, Span};
    use super::*;

    struct Source(Vec<u8>);

    impl PayloadSource for Source {
        fn name(&self) -> &str {
            "payload"
        }

        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn open(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.0.as_slice()))
        }
    }

    fn artifact(payload: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..payload).map(|at| u8::try_from(at * at % 251).unwrap()).collect();
        let mut spec = ArtifactSpec::module_image(
            "release-1".parse().unwrap(),
            vec!["board".parse().unwrap()],
            "some".parse().unwrap(),
        );
        spec.compression = CompressionLevel::default_of(Compression::None);
        let mut out = Vec::new();
        write::write(&spec, &[&Source(bytes)], None, &mut Cursor::new(Vec::new()), &mut out).unwrap();
        out
    }

    async fn take(bytes: &[u8], most: u64) -> (Result<Taken, IntakeError>, Listing, usize) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Folder::open(folder.path()).unwrap();
        let name = Name::artifact(&id::uuid().unwrap()).unwrap();
        let mut intake = Intake::begin(&blobs, &name, most).await.unwrap();
        let mut written = 0;
        for piece in bytes.chunks(10_000) {
            if let Err(error) = intake.write(Bytes::copy_from_slice(piece)).await {
                intake.discard().await;
                return (Err(error), blobs.list(Shelf::Artifacts).await.unwrap(), written);
            }
            written += piece.len();
        }
        let taken = intake.keep().await;
        if let Ok(taken) = &taken {
            let kept = blobs.read(&name, Span::all(taken.size_bytes)).await.unwrap();
            let kept: Vec<Bytes> = futures_util::TryStreamExt::try_collect(kept).await.unwrap();
            assert_eq!(kept.concat(), bytes);
        }
        (taken, blobs.list(Shelf::Artifacts).await.unwrap(), written)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_good_artifact_is_kept_with_what_it_says() {
        let bytes = artifact(3_000_000);
        let (taken, listing, _) = take(&bytes, u64::MAX).await;
        let taken = taken.unwrap();
        assert_eq!(taken.header.artifact_name.to_string(), "release-1");
        assert_eq!((taken.files.len(), taken.files[0].size), (1, 3_000_000));
        assert_eq!(taken.sha256, id::sha256_hex(&bytes));
        assert_eq!((taken.size_bytes, listing.blobs.len()), (bytes.len() as u64, 1));
        // Padding of an archive is part of the file.
        let mut padded = artifact(10);
        padded.extend([0; 300_000]);
        let (taken, listing, _) = take(&padded, u64::MAX).await;
        assert_eq!((taken.unwrap().size_bytes, listing.blobs.len()), (padded.len() as u64, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_a_bad_artifact_nothing_is_left() {
        let good = artifact(3_000_000);
        let mut changed = good.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for (what, bytes) in [("cut", &good[..good.len() / 2]), ("changed", &changed), ("empty", &[][..])] {
            let (taken, listing, _) = take(bytes, u64::MAX).await;
            let error = taken.unwrap_err();
            assert!(matches!(error, IntakeError::NotAnArtifact { .. }), "{what}: {error}");
            assert_eq!(listing, Listing::default(), "{what}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_no_artifact_is_not_taken_to_its_end() {
        let (taken, listing, written) = take(&vec![b'x'; 20_000_000], u64::MAX).await;
        assert!(matches!(taken, Err(IntakeError::NotAnArtifact { .. })));
        assert!(written < 5_000_000, "{written} bytes were taken");
        assert_eq!(listing, Listing::default());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn more_bytes_than_are_allowed_are_not_taken() {
        let bytes = artifact(100_000);
        let most_bytes = bytes.len() as u64 - 1;
        let (taken, listing, _) = take(&bytes, most_bytes).await;
        assert!(matches!(taken, Err(IntakeError::TooLarge { most_bytes: most }) if most == most_bytes));
        assert_eq!(listing, Listing::default());
    }
}
