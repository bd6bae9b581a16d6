//! UBI volumes (`/dev/ubiX_Y`).
//!
//! A volume is replaced as a whole by an *update*, from the first byte to the last. **Until the update is
//! complete the volume is marked corrupt**; its old content is gone from the start of the update on.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use client_core::storage::{BlockDevice, Medium};

use super::{Access, check_range};

mod ioctls {
    // mtd/ubi-user.h: _IOW('O', 0, __s64).
    nix::ioctl_write_ptr!(
        /// UBI_IOCVOLUP.
        volume_update, b'O', 0, i64
    );
}

const SYSFS: &str = "/sys/class/ubi";

/// A UBI volume.
#[derive(Debug)]
pub struct UbiVolume {
    file: File,
    name: String,
    len: u64,
    update: Option<Update>,
}

/// How far an update is.
#[derive(Debug)]
struct Update {
    next: u64,
    end: u64,
}

impl UbiVolume {
    /// Opens the volume `path`.
    ///
    /// # Errors
    /// When it is not a UBI volume, or the operating system refuses.
    pub fn open(path: &Path, access: Access) -> io::Result<UbiVolume> {
        let file = OpenOptions::new()
            .read(true)
            .write(access != Access::Read)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)?;
        let attributes = Path::new(SYSFS).join(path.file_name().unwrap_or_default());
        let blocks = number(&attributes.join("reserved_ebs"))?;
        let block_bytes = number(&attributes.join("usable_eb_size"))?;
        let len = blocks.checked_mul(block_bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(UbiVolume { file, name: path.display().to_string(), len, update: None })
    }
}

impl BlockDevice for UbiVolume {
    fn len(&self) -> u64 {
        self.len
    }

    fn medium(&self) -> Medium {
        Medium::UbiVolume
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.file.read_exact_at(buf, offset)
    }

    /// Only the next bytes of an update that [`begin_replace`](BlockDevice::begin_replace) announced.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let Some(update) = &mut self.update else {
            return refuse("a UBI volume is written only by replacing it".to_string());
        };
        if offset != update.next {
            return refuse(format!("byte {} of the volume comes next, not {offset}", update.next));
        }
        check_range(offset, data.len(), update.end)?;
        self.file.write_all_at(data, offset)?;
        update.next += data.len() as u64;
        if update.next == update.end {
            self.update = None;
        }
        Ok(())
    }

    fn begin_replace(&mut self, len: u64) -> io::Result<()> {
        check_range(len, 0, self.len)?;
        let bytes = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the request reads one i64, which lives until it returns; `self.file` keeps the descriptor open.
        unsafe { ioctls::volume_update(self.file.as_raw_fd(), &bytes) }?;
        self.update = (len > 0).then_some(Update { next: 0, end: len });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match &self.update {
            Some(update) => Err(io::Error::other(format!(
                "the update of the volume is at {} of {} bytes",
                update.next, update.end
            ))),
            None => self.file.sync_data(),
        }
    }

    /// Nothing to do: UBI reads the flash each time.
    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a number", path.display()))
    })
}

/// Whether the character device `path` with number `rdev` is a UBI volume.
pub(super) fn is_volume(path: &Path, rdev: u64) -> bool {
    let name = path.file_name().unwrap_or_default();
    let looks_right = name.to_str().is_some_and(|name| name.starts_with("ubi") && name.contains('_'));
    let expected = format!("{}:{}", libc::major(rdev), libc::minor(rdev));
    looks_right
        && fs::read_to_string(Path::new(SYSFS).join(name).join("dev"))
            .is_ok_and(|found| found.trim() == expected)
}

/// The node of `/dev/ubi0:name`, `ubi0:name` or `/dev/mtd3:name`; `None` when `path` is not such a name.
pub(super) fn volume_by_name(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.to_str().and_then(|path| find_volume(path, Path::new(SYSFS))) {
        None => Ok(None),
        Some(name) => fs::canonicalize(Path::new("/dev").join(name)).map(Some),
    }
}

fn find_volume(path: &str, sysfs: &Path) -> Option<String> {
    let (device, volume) = path.strip_prefix("/dev/").unwrap_or(path).split_once(':')?;
    let device = match device.strip_prefix("mtd") {
        Some(mtd) => entries(sysfs).into_iter().find(|name| {
            fs::read_to_string(sysfs.join(name).join("mtd_num")).is_ok_and(|text| text.trim() == mtd)
        })?,
        None => device.to_string(),
    };
    let prefix = format!("{device}_");
    entries(sysfs).into_iter().find(|name| {
        name.starts_with(&prefix)
            && fs::read_to_string(sysfs.join(name).join("name")).is_ok_and(|text| text.trim() == volume)
    })
}

/// Names in a directory; none when it cannot be read, as on a machine without UBI.
fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let sysfs = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("ubi0/mtd_num", "3\n"),
            ("ubi0_0/name", "env1\n"),
            ("ubi0_1/name", "env2\n"),
            ("ubi1/mtd_num", "5\n"),
            ("ubi1_0/name", "env2\n"),
        ] {
            let file = sysfs.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        assert_eq!(find_volume(path, sysfs.path()).as_deref(), expected, "{path}");
    }

    #[test]
    fn a_volume_is_found_by_name_on_its_device() {
        check("/dev/ubi0:env2", Some("ubi0_1"));
        check("ubi1:env2", Some("ubi1_0"));
        check("/dev/mtd5:env2", Some("ubi1_0"));
    }

    #[test]
    fn an_unknown_volume_or_device_is_not_found() {
        check("/dev/ubi0:env3", None);
        check("/dev/ubi2:env1", None);
        check("/dev/mtd4:env1", None);
        check("/dev/ubi0_0", None);
    }
}
