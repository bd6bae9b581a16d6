//! The file that holds the two copies of the state record.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use client_core::state_store::{StateError, TwoCopyRecord};

use crate::atomic_file;
use crate::block_device::{Access, FileDevice};

/// Name of the file in the datastore.
pub const FILE_NAME: &str = "rust-ota-state";

/// Length of the file: two copies of 64 KiB. Provides and the deployment in progress need about 1 KiB.
const FILE_BYTES: usize = 128 * 1024;

/// Opens the record in `datastore`, making it with `initial` as its content when there is none.
///
/// # Errors
/// When the datastore cannot be written, or the file there cannot be used.
pub fn open(datastore: &Path, initial: &[u8]) -> Result<TwoCopyRecord<FileDevice>, StateError> {
    let path = datastore.join(FILE_NAME);
    let io_error = |doing, source| StateError::Io { doing, device: path.display().to_string(), source };
    match fs::symlink_metadata(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&path, initial)?;
        }
        Err(error) => return Err(io_error("look at", error)),
    }
    let device = FileDevice::open(&path, Access::Write).map_err(|error| io_error("open", error))?;
    TwoCopyRecord::open(device)
}

/// Both copies are there and valid before the file gets its name, so that a file with no valid copy always means
/// damage.
fn create(path: &Path, initial: &[u8]) -> Result<(), StateError> {
    let io_error = |doing, source| StateError::Io { doing, device: path.display().to_string(), source };
    let temporary = PathBuf::from(format!("{}.new", path.display()));
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|error| io_error("create", error))?;
    file.set_len(FILE_BYTES as u64).map_err(|error| io_error("create", error))?;
    drop(file);
    let device = FileDevice::open(&temporary, Access::Write).map_err(|error| io_error("open", error))?;
    TwoCopyRecord::format_new(device, initial)?;
    atomic_file::publish(&temporary, path).map_err(|error| io_error("create", error))
}
