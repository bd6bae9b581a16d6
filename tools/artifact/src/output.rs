//! Files that appear whole or not at all: written under a temporary name beside their place, then renamed.

use crate::failure::Failure;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file being written. Dropped without its name, it leaves nothing behind.
pub(crate) struct Output {
    path: PathBuf,
    temporary: PathBuf,
    committed: bool,
}

impl Output {
    /// Starts the file; it is written through the [`File`] that comes with it.
    pub(crate) fn create(path: &Path, mode: u32) -> Result<(Output, File), Failure> {
        let (temporary, file) = create_temporary(path, mode)?;
        Ok((Output { path: path.to_owned(), temporary, committed: false }, file))
    }

    /// Makes the content durable. Many outputs can wait for their names without a file being open for each.
    pub(crate) fn sync(&self, file: File) -> Result<(), Failure> {
        file.sync_all().map_err(|error| self.cannot_write(error))
    }

    /// Gives it its name, after [`Output::sync`].
    pub(crate) fn rename(mut self) -> Result<(), Failure> {
        fs::rename(&self.temporary, &self.path).map_err(|error| self.cannot_write(error))?;
        self.committed = true;
        Ok(())
    }

    /// Both.
    pub(crate) fn commit(self, file: File) -> Result<(), Failure> {
        self.sync(file)?;
        self.rename()
    }

    fn cannot_write(&self, error: std::io::Error) -> Failure {
        Failure::io(format_args!("write {}", self.path.display()), error)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.committed {
            // The command is failing already, for a reason that matters more.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A file without a name, beside `path`, where the space for the artifact has to be anyway.
pub(crate) fn scratch_beside(path: &Path) -> Result<File, Failure> {
    let (temporary, file) = create_temporary(path, 0o600)?;
    fs::remove_file(&temporary)
        .map_err(|error| Failure::io(format_args!("remove {}", temporary.display()), error))?;
    Ok(file)
}

fn create_temporary(path: &Path, mode: u32) -> Result<(PathBuf, File), Failure> {
    let name = path.file_name().ok_or_else(|| Failure::usage(format!("{} is no file", path.display())))?;
    let mut number = 0u32;
    loop {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        match OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            Err(error) => return Err(Failure::io(format_args!("create {}", path.display()), error)),
        }
    }
}
