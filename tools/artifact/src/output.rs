//! Where results go. What an output path names is followed and not replaced: a link leads to its target, a device or a
//! pipe is written to, and `-` is the standard output.
//!
//! A regular file appears whole or not at all: written under a temporary name beside its place, then renamed. One that
//! is there already keeps its owner and mode.

use crate::failure::Failure;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The name of the standard output and input.
pub(crate) const STANDARD: &str = "-";
/// Links that lead to links end here.
const LINKS: usize = 40;
/// Runs of zeros are looked for in blocks of this size.
const HOLE_BYTES: usize = 64 * 1024;

/// What a path leads to.
enum Place {
    Standard,
    /// A device or a pipe.
    Stream(PathBuf),
    /// A regular file, whether it is there or not.
    Regular(PathBuf, Option<Metadata>),
}

/// The mode of a file that is written.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// For a new one; one that is there keeps its own.
    New(u32),
    /// In any case: secrets, and files whose mode is part of what is copied.
    Always(u32),
}

/// An output being written. Dropped before [`Output::finish`], a regular file leaves nothing behind.
pub(crate) struct Output {
    shown: String,
    target: Target,
}

enum Target {
    Standard,
    Stream(File),
    File(Replacement),
}

struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    /// Closed by [`Output::sync`], so that many can wait for their names without a file being open for each.
    file: Option<File>,
    /// The content goes into the file that is there: it has other names, or its owner cannot be given away.
    into_existing: bool,
    named: bool,
}

impl Output {
    /// Starts the output.
    pub(crate) fn create(path: &Path, mode: Mode) -> Result<Output, Failure> {
        let shown = path.display().to_string();
        let failed = |error| Failure::io(format_args!("write {shown}"), error);
        let target = match place(path).map_err(failed)? {
            Place::Standard => Target::Standard,
            Place::Stream(path) => Target::Stream(OpenOptions::new().write(true).open(path).map_err(failed)?),
            Place::Regular(path, old) => Target::File(Replacement::create(path, old, mode).map_err(failed)?),
        };
        Ok(Output { shown, target })
    }

    /// Whether this leads to a regular file, which can be there before and can be taken back.
    pub(crate) fn is_file(path: &Path) -> bool {
        matches!(place(path), Ok(Place::Regular(..)) | Err(_))
    }

    /// The folder of the file that `path` leads to, for what has to be beside it.
    fn folder(path: &Path) -> Option<PathBuf> {
        match place(path) {
            Ok(Place::Regular(path, _)) => Some(folder_of(&path)),
            Ok(Place::Standard | Place::Stream(_)) | Err(_) => None,
        }
    }

    /// Begins with a copy of what is there, for programs that change a file by its name, and says where the copy is.
    /// There is none of a device, which is too large to be changed in any other way than in its place.
    pub(crate) fn begin_with_copy(&mut self) -> Result<Option<PathBuf>, Failure> {
        let Target::File(replacement) = &mut self.target else { return Ok(None) };
        let copied = replacement.copy_existing();
        copied.map(Some).map_err(|error| self.failed(error))
    }

    /// What to write to; `out` is the standard output.
    pub(crate) fn writer<'a>(&'a mut self, out: &'a mut dyn Write) -> Box<dyn Write + 'a> {
        match &mut self.target {
            Target::Standard => Box::new(out),
            Target::Stream(file) => Box::new(file),
            Target::File(replacement) => match &mut replacement.file {
                Some(file) => Box::new(file),
                None => Box::new(io::sink()),
            },
        }
    }

    /// Makes the content durable and closes the file.
    pub(crate) fn sync(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let result = match &mut self.target {
            Target::Standard => out.flush(),
            // Neither devices nor pipes can be synced in general; errors of writing were seen.
            Target::Stream(file) => file.flush(),
            Target::File(replacement) => match replacement.file.take() {
                Some(file) => file.sync_all(),
                None => Ok(()),
            },
        };
        result.map_err(|error| self.failed(error))
    }

    /// Gives a regular file its name, after [`Output::sync`].
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        match &mut self.target {
            Target::Standard | Target::Stream(_) => Ok(()),
            Target::File(replacement) => replacement.take_place().map_err(|error| self.failed(error)),
        }
    }

    /// Both.
    pub(crate) fn commit(mut self, out: &mut dyn Write) -> Result<(), Failure> {
        self.sync(out)?;
        self.finish()
    }

    /// Writes `bytes` and nothing else.
    pub(crate) fn put(path: &Path, mode: Mode, bytes: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
        let mut output = Output::create(path, mode)?;
        let written = output.writer(out).write_all(bytes);
        written.map_err(|error| output.failed(error))?;
        output.commit(out)
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::io(format_args!("write {}", self.shown), error)
    }
}

impl Replacement {
    fn create(path: PathBuf, old: Option<Metadata>, mode: Mode) -> io::Result<Replacement> {
        let (Mode::New(fresh) | Mode::Always(fresh)) = mode;
        let (temporary, file) = create_temporary(&path, fresh)?;
        let mut replacement = Replacement { path, temporary, file: None, into_existing: false, named: false };
        if let Some(old) = old {
            let new = file.metadata()?;
            let same_owner = (new.uid(), new.gid()) == (old.uid(), old.gid());
            let given = same_owner || fchown(&file, Some(old.uid()), Some(old.gid())).is_ok();
            replacement.into_existing = !given || old.nlink() > 1;
            let bits = match mode {
                Mode::New(_) => old.mode() & 0o7777,
                Mode::Always(bits) => bits,
            };
            file.set_permissions(fs::Permissions::from_mode(bits))?;
        } else if let Mode::Always(bits) = mode {
            file.set_permissions(fs::Permissions::from_mode(bits))?;
        }
        replacement.file = Some(file);
        Ok(replacement)
    }

    fn copy_existing(&mut self) -> io::Result<PathBuf> {
        if let Some(copy) = &mut self.file {
            copy_with_holes(&mut File::open(&self.path)?, copy)?;
        }
        Ok(self.temporary.clone())
    }

    fn take_place(&mut self) -> io::Result<()> {
        if self.into_existing {
            let mut complete = File::open(&self.temporary)?;
            let mut existing = OpenOptions::new().write(true).truncate(true).open(&self.path)?;
            io::copy(&mut complete, &mut existing)?;
            return existing.sync_all();
        }
        fs::rename(&self.temporary, &self.path)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.named {
            // What matters more has been reported, or the content was copied.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Copies a file without writing what is zero: images are mostly that, and there need not be room for it.
fn copy_with_holes(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut block = vec![0; HOLE_BYTES];
    let mut length = 0;
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return to.set_len(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let data = block.get(..count).unwrap_or_default();
        if data.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(length))?;
            to.write_all(data)?;
        }
        length += count as u64;
    }
}

/// Follows links by hand, because one that leads nowhere yet names the file to be made, and because `/dev/stdout` is
/// a link to what the standard output is.
fn place(path: &Path) -> io::Result<Place> {
    if path == Path::new(STANDARD) {
        return Ok(Place::Standard);
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if is_standard_output(&path) {
            return Ok(Place::Standard);
        }
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Regular(path, None)),
            Err(error) => return Err(error),
        };
        if meta.is_symlink() {
            // Descriptors are links whose text is no path.
            if in_descriptors(&path) {
                return Ok(Place::Stream(path));
            }
            path = folder_of(&path).join(fs::read_link(&path)?);
            continue;
        }
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let kind = meta.file_type();
        let stream = kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket();
        return Ok(if stream { Place::Stream(path) } else { Place::Regular(path, Some(meta)) });
    }
    Err(io::Error::other("too many links"))
}

fn in_descriptors(path: &Path) -> bool {
    let folder = fs::canonicalize(folder_of(path)).unwrap_or_default();
    folder.starts_with("/proc") && folder.ends_with("fd")
}

fn is_standard_output(path: &Path) -> bool {
    let own = fs::canonicalize("/proc/self/fd");
    path.file_name().is_some_and(|name| name == "1")
        && own.is_ok_and(|own| fs::canonicalize(folder_of(path)).is_ok_and(|folder| folder == own))
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// A file without a name: in `folder`, or beside `path`, where the space for the artifact has to be anyway.
pub(crate) fn scratch(folder: Option<&Path>, path: &Path) -> Result<File, Failure> {
    let folder = folder.map(Path::to_owned).or_else(|| Output::folder(path));
    let folder = folder.unwrap_or_else(std::env::temp_dir);
    let failed = |error| Failure::io(format_args!("make a temporary file in {}", folder.display()), error);
    let (temporary, file) = create_temporary(&folder.join("artifact"), 0o600).map_err(failed)?;
    fs::remove_file(&temporary).map_err(failed)?;
    Ok(file)
}

/// A folder that goes with its owner.
pub(crate) struct Workspace(PathBuf);

impl Workspace {
    pub(crate) fn create(folder: &Path) -> Result<Workspace, Failure> {
        let mut number = 0u32;
        loop {
            let path = folder.join(format!(".rust-ota-artifact.{}-{number}.tmp", std::process::id()));
            let made =
                std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&path);
            match made {
                Ok(()) => return Ok(Workspace(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => {
                    let doing = format!("make a temporary folder in {}", folder.display());
                    return Err(Failure::io(doing, error));
                }
            }
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Nothing in it is of use to anybody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn create_temporary(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut number = 0u32;
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(error),
        }
    }
}
