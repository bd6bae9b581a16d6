//! Files, block devices, flash and UBI volumes behind [`BlockDevice`].
//!
//! [`open`] looks at what a path is and picks. Nothing is ever created, and nothing grows.

mod direct;
pub mod file;
pub mod mtd;
pub mod ubi;

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use client_core::storage::BlockDevice;

pub use file::FileDevice;
pub use mtd::MtdDevice;
pub use ubi::UbiVolume;

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, and the flush and cache calls.
    Read,
    /// Reading and writing, also beside others: a boot environment lies on a disk whose partitions are mounted.
    Write,
    /// Reading and writing, and nobody else may have the block device open exclusively or mounted (`O_EXCL`).
    /// For slots.
    WriteExclusive,
}

/// What a path is, as far as storage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    RegularFile,
    /// A block device.
    BlockDevice,
    /// An MTD character device.
    Mtd,
    /// A UBI volume.
    UbiVolume,
    /// Nothing that can hold an image; the text says what it is.
    Other(&'static str),
}

/// The major number of MTD character devices, fixed by the kernel.
const MTD_MAJOR: u32 = 90;

impl Kind {
    /// What `metadata` of the resolved path `path` describes.
    pub fn of(path: &Path, metadata: &Metadata) -> Kind {
        let kind = metadata.file_type();
        if kind.is_file() {
            Kind::RegularFile
        } else if kind.is_block_device() {
            Kind::BlockDevice
        } else if kind.is_char_device() {
            if libc::major(metadata.rdev()) == MTD_MAJOR {
                Kind::Mtd
            } else if ubi::is_volume(path, metadata.rdev()) {
                Kind::UbiVolume
            } else {
                Kind::Other("a character device")
            }
        } else if kind.is_dir() {
            Kind::Other("a directory")
        } else {
            Kind::Other("neither a file nor a device")
        }
    }
}

/// Opens whatever storage `path` names. `ubi0:name` and `/dev/ubi0:name` are UBI volumes by name,
/// `/dev/mtd3:name` is one on the UBI device attached to that MTD device.
///
/// # Errors
/// When there is no such storage or it cannot be opened. The error does not repeat the path.
pub fn open(path: &Path, access: Access) -> io::Result<Box<dyn BlockDevice>> {
    let path = resolve(path)?;
    match Kind::of(&path, &fs::metadata(&path)?) {
        Kind::RegularFile | Kind::BlockDevice => Ok(Box::new(FileDevice::open(&path, access)?)),
        Kind::Mtd => Ok(Box::new(MtdDevice::open(&path, access)?)),
        Kind::UbiVolume => Ok(Box::new(UbiVolume::open(&path, access)?)),
        Kind::Other(found) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {found}, not storage")))
        }
    }
}

/// The device node itself: symbolic links followed, UBI volume names looked up.
///
/// # Errors
/// When there is no such file or volume.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match ubi::volume_by_name(path)? {
            Some(path) => Ok(path),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// The range `offset..offset + len` as the caller's error, when it leaves the `have` bytes of a device.
fn check_range(offset: u64, len: usize, have: u64) -> io::Result<()> {
    if offset.checked_add(len as u64).is_none_or(|end| end > have) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at {offset} reach past the end at {have}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(path: &Path, expected: &str) {
        let error = open(path, Access::Read).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_cannot_hold_an_image_is_refused() {
        check_error(Path::new("/dev/null"), "it is a character device, not storage");
        check_error(Path::new("/"), "it is a directory, not storage");
    }

    #[test]
    fn a_missing_path_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing");
        assert_eq!(open(&path, Access::Write).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(!path.exists());
    }

    #[test]
    fn symbolic_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), [7; 10]).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let device = open(&dir.path().join("link"), Access::Write).unwrap();
        assert_eq!(device.len(), 10);
        assert!(device.name().ends_with("/file"));
    }
}
