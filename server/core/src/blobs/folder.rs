//! Blobs as files. One appears under its name only when all of it is on the disk.
//!
//! Nothing is removed that was not made here: of what lies in the folder of uploads only files with the name of an upload,
//! and of the other folders nothing that nobody has asked to remove.

use std::fs;
use std::io::{self, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use hyper::body::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{BlobError, Blobs, Found, Listing, Name, Pieces, Shelf, Span, Upload, Verb};
use crate::domain::id;
use crate::model::time::Timestamp;

/// Read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that are read before they are taken.
const PIECES: usize = 4;

/// The folders of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    artifacts: PathBuf,
    direct: PathBuf,
    incoming: PathBuf,
}

impl Folder {
    /// Opens the folders in `folder`, which are made when they are not there. Only one server may do so: uploads that are
    /// not complete are those of before, and go.
    ///
    /// # Errors
    /// One cannot be made, or looked through.
    pub(crate) fn open(folder: &Path) -> Result<Folder, BlobError> {
        let [artifacts, direct, incoming] = ["artifacts", "direct", "incoming"].map(|name| folder.join(name));
        for path in [&artifacts, &direct, &incoming] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(io_error("making", path))?;
            // They may be a disk of somebody else's; what makes them secret is the server's own folder.
            if let Err(error) = tighten(path) {
                log::warn!("keeping others out of {}: {error}", path.display());
            }
        }
        for left in list(&incoming).map_err(io_error("looking through", &incoming))? {
            match file_name(&left).is_some_and(id::is_uuid) && is_file(&left) {
                true => fs::remove_file(&left).map_err(io_error("removing", &left))?,
                false => log::warn!("{} is no upload and is left", left.display()),
            }
        }
        Ok(Folder { artifacts, direct, incoming })
    }

    /// The folders in `folder` as they are, for reading beside the server that uses them. Nothing is made or removed.
    pub(crate) fn to_read(folder: &Path) -> Folder {
        let [artifacts, direct, incoming] = ["artifacts", "direct", "incoming"].map(|name| folder.join(name));
        Folder { artifacts, direct, incoming }
    }

    /// Whether there is an artifact in `folder`, as far as one can see from its name.
    pub(crate) fn has_any(folder: &Path) -> bool {
        let artifacts = list(&folder.join("artifacts")).unwrap_or_default();
        let mut names = artifacts.iter().filter_map(|path| file_name(path));
        names.any(|name| Name::parse(Shelf::Artifacts, name).is_some())
    }

    fn shelf(&self, shelf: Shelf) -> &Path {
        match shelf {
            Shelf::Artifacts => &self.artifacts,
            Shelf::Direct => &self.direct,
        }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.shelf(name.shelf).join(name.file())
    }
}

#[async_trait]
impl Blobs for Folder {
    async fn create(&self, name: &Name) -> Result<Box<dyn Upload>, BlobError> {
        // A name of its own, so that two uploads of one name do not mix.
        let own = id::uuid().map_err(|_| BlobError::Io {
            doing: "naming an upload in",
            path: self.incoming.clone(),
            source: io::Error::other("the system has no random numbers"),
        })?;
        let incoming = self.incoming.join(own);
        let path = self.path(name);
        let failed = io_error("making", &incoming);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&incoming).await.map_err(failed)?;
        Ok(Box::new(Writing { file, incoming: Incoming(Some(incoming)), path, size_bytes: 0 }))
    }

    async fn read(&self, name: &Name, span: Span) -> Result<Pieces, BlobError> {
        let path = self.path(name);
        // A pipe that nobody writes into is not waited for.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { name: name.clone() });
            }
            // A socket, or a device that is not there.
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                return Err(BlobError::NotAFile { path });
            }
            file => file.map_err(io_error("opening", &path))?,
        };
        let found = file.metadata().await.map_err(io_error("reading", &path))?;
        if !found.is_file() {
            return Err(BlobError::NotAFile { path });
        }
        // What is sent is what was promised, or nothing.
        let size_bytes = found.len();
        if size_bytes != span.total {
            return Err(BlobError::Damaged { name: name.clone(), size_bytes, expected_bytes: span.total });
        }
        file.seek(SeekFrom::Start(span.start)).await.map_err(io_error("reading", &path))?;
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(read_ahead(file, path, span.length, sender));
        Ok(stream::unfold(receiver, |mut receiver| async move {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        })
        .boxed())
    }

    async fn size(&self, name: &Name) -> Result<Option<u64>, BlobError> {
        let path = self.path(name);
        match tokio::fs::metadata(&path).await {
            Ok(file) => Ok(Some(file.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("reading", &path)(error)),
        }
    }

    /// Whoever is reading it goes on reading.
    async fn remove(&self, name: &Name) -> Result<(), BlobError> {
        let path = self.path(name);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn list(&self, shelf: Shelf) -> Result<Listing, BlobError> {
        let folder = self.shelf(shelf).to_owned();
        let error = io_error("looking through", &folder);
        let read = tokio::task::spawn_blocking(move || look(shelf, &folder)).await;
        read.unwrap_or_else(|stopped| Err(io::Error::other(stopped))).map_err(error)
    }

    async fn link(&self, _: Verb, _: &Name, _: Duration) -> Result<Option<String>, BlobError> {
        Ok(None)
    }

    async fn probe(&self) -> Result<(), BlobError> {
        let found = tokio::fs::metadata(&self.artifacts).await;
        found.map(|_| ()).map_err(io_error("reading", &self.artifacts))
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError + use<> {
    let path = path.to_owned();
    move |source| BlobError::Io { doing, path, source }
}

/// The file of an upload, which goes with this unless it is taken out.
#[derive(Debug)]
struct Incoming(Option<PathBuf>);

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("{} could not be removed: {error}", path.display());
        }
    }
}

/// An upload into a file.
struct Writing {
    file: File,
    incoming: Incoming,
    path: PathBuf,
    size_bytes: u64,
}

impl Writing {
    fn shown(&self) -> PathBuf {
        self.incoming.0.clone().unwrap_or_default()
    }
}

#[async_trait]
impl Upload for Writing {
    async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let path = self.shown();
        self.file.write_all(&bytes).await.map_err(io_error("writing", &path))?;
        self.size_bytes += bytes.len() as u64;
        Ok(())
    }

    async fn keep(mut self: Box<Self>) -> Result<u64, BlobError> {
        let path = self.shown();
        self.file.flush().await.map_err(io_error("writing", &path))?;
        // Its bytes before its name, and its name before anybody is told.
        self.file.sync_all().await.map_err(io_error("storing", &path))?;
        tokio::fs::rename(&path, &self.path).await.map_err(io_error("moving", &path))?;
        self.incoming.0 = None;
        let folder = self.path.parent().unwrap_or(&self.path).to_owned();
        let synced = match File::open(&folder).await {
            Ok(folder) => folder.sync_all().await,
            Err(error) => Err(error),
        };
        if let Err(error) = synced {
            // It may be there after a power cut, or not: nobody must see it.
            self.incoming.0 = Some(self.path.clone());
            return Err(io_error("storing", &folder)(error));
        }
        Ok(self.size_bytes)
    }

    async fn discard(self: Box<Self>) {}
}

/// Reads a few pieces ahead of whoever takes them.
async fn read_ahead(mut file: File, path: PathBuf, length: u64, to: mpsc::Sender<Result<Bytes, BlobError>>) {
    let mut left = length;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let mut buffer = vec![0; piece];
        let result = match file.read(&mut buffer).await {
            Ok(0) => Err(io_error("reading", &path)(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                buffer.truncate(count);
                left -= count as u64;
                Ok(Bytes::from(buffer))
            }
            Err(error) => Err(io_error("reading", &path)(error)),
        };
        let failed = result.is_err();
        // Whoever reads has gone.
        if to.send(result).await.is_err() || failed {
            return;
        }
    }
}

fn look(shelf: Shelf, folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let name = file_name.to_str().and_then(|file| Name::parse(shelf, file));
        let found = match entry.metadata() {
            // It went while the folder was looked through.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        match name.filter(|_| found.is_file()) {
            None => listing.strange.push(entry.path().display().to_string()),
            Some(name) => {
                let since = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let modified = Timestamp(u64::try_from(since.as_millis()).unwrap_or_default());
                listing.blobs.push(Found { name, size: found.len(), modified });
            }
        }
    }
    Ok(listing)
}

/// Takes the rights of everybody but the owner away.
pub(crate) fn tighten(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        log::warn!("{} was open to others (mode {mode:04o}); from now on it is its owner's", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o077))?;
    }
    Ok(())
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}
