//! Regular files and block devices.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use client_core::storage::{BlockDevice, PastCache};
use log::{debug, warn};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::direct::DirectReader;
use super::{Access, check_range};

mod ioctls {
    // linux/fs.h: _IO(0x12, 97).
    nix::ioctl_none!(
        /// Writes back and forgets the cached blocks of a block device.
        block_flush_buffers, 0x12, 97
    );

    // linux/fs.h: _IO(0x12, 94), with a pointer to an int all the same.
    nix::ioctl_read_bad!(
        /// Whether a block device refuses writes.
        block_read_only, nix::request_code_none!(0x12, 94), libc::c_int
    );

    // linux/fs.h: _IO(0x12, 119), with a pointer to two 64-bit numbers all the same.
    nix::ioctl_write_ptr_bad!(
        /// Tells a block device that nothing in a range, given as its start and length, is needed any more.
        block_discard, nix::request_code_none!(0x12, 119), [u64; 2]
    );
}

/// A regular file or a block device, of the length it had when it was opened.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    name: String,
    len: u64,
    is_block_device: bool,
    discards: bool,
    /// Dropped after the file is no longer written: fields drop in order.
    _protection: Option<BootPartition>,
}

impl FileDevice {
    /// Opens `path`, which must exist.
    ///
    /// `/dev/mmcblk0boot0` and its like are write-protected by the kernel (`force_ro`); opened for writing, the
    /// protection is lifted until the device is dropped.
    ///
    /// # Errors
    /// When it is neither a file nor a block device, or the operating system refuses; with
    /// [`Access::WriteExclusive`] also when the block device is in use (`EBUSY`).
    pub fn open(path: &Path, access: Access) -> io::Result<FileDevice> {
        let kind = fs::metadata(path)?.file_type();
        // Asked before it is opened: a FIFO would wait for its other end.
        check_kind(kind)?;
        let is_block_device = kind.is_block_device();
        let protection = match access {
            Access::Read => None,
            Access::Write | Access::WriteExclusive => {
                BootPartition::unprotect(path, Path::new("/sys/class/block"))?
            }
        };
        // O_EXCL without O_CREAT has a meaning for block devices only.
        let exclusive = match access {
            Access::Read | Access::Write => 0,
            Access::WriteExclusive if is_block_device => libc::O_EXCL,
            Access::WriteExclusive => 0,
        };
        // For a block device this flag would mean that it may be opened without its medium.
        let waiting = if is_block_device { 0 } else { libc::O_NONBLOCK };
        let mut file = OpenOptions::new()
            .read(true)
            .write(access != Access::Read)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY | exclusive | waiting)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        check_kind(kind)?;
        if kind.is_block_device() && access != Access::Read && is_read_only(&file)? {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        // Works for both, where the length in the metadata is 0 for a block device.
        let len = file.seek(SeekFrom::End(0))?;
        let name = path.display().to_string();
        Ok(FileDevice {
            file,
            name,
            len,
            is_block_device: kind.is_block_device(),
            discards: false,
            _protection: protection,
        })
    }

    /// Lets [`discard_behind`](BlockDevice::discard_behind) reach the medium of a block device.
    #[must_use]
    pub fn discarding(mut self) -> FileDevice {
        self.discards = self.is_block_device;
        self
    }
}

fn check_kind(kind: FileType) -> io::Result<()> {
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a block device"))
}

impl BlockDevice for FileDevice {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.file.read_exact_at(buf, offset) // Goes on after EINTR and short reads.
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        check_range(offset, data.len(), self.len)?; // A regular file would grow.
        self.file.write_all_at(data, offset) // Goes on after EINTR and short writes.
    }

    fn start_write_back(&mut self, offset: u64, len: u64) {
        let (Ok(start), Ok(bytes)) = (i64::try_from(offset), i64::try_from(len)) else {
            return;
        };
        // SAFETY: the call takes a descriptor that `self.file` keeps open and plain numbers.
        let result = unsafe {
            libc::sync_file_range(self.file.as_raw_fd(), start, bytes, libc::SYNC_FILE_RANGE_WRITE)
        };
        if result != 0 {
            // A hint: `sync` comes in any case and reports what matters.
            debug!("{}: no early write-back: {}", self.name, io::Error::last_os_error());
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        // For a block device, and for ext4 and FAT, this flushes the disk's own cache even when this process
        // wrote nothing.
        self.file.sync_data()
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        if self.is_block_device {
            // SAFETY: the request takes no argument, and `self.file` keeps the descriptor open.
            match unsafe { ioctls::block_flush_buffers(self.file.as_raw_fd()) } {
                Ok(_) => return Ok(()),
                // Needs CAP_SYS_ADMIN, and a driver that knows it; the advice below needs neither.
                Err(error) => debug!("{}: BLKFLSBUF: {error}", self.name),
            }
        }
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
    }

    fn past_cache(&mut self) -> PastCache {
        match DirectReader::beside(&self.file, &self.name, self.len) {
            Ok(reader) => PastCache::Anywhere(Box::new(reader)),
            Err(error) => {
                debug!("{}: cannot be opened a second time: {error}", self.name);
                PastCache::No
            }
        }
    }

    fn discard_behind(&mut self, offset: u64) -> io::Result<u64> {
        let start = offset.checked_next_multiple_of(DISCARD_ALIGNMENT).unwrap_or(u64::MAX);
        let bytes = self.len.saturating_sub(start);
        if !self.discards || bytes == 0 {
            return Ok(0);
        }
        // SAFETY: the request reads two numbers, which live until it returns; `self.file` keeps the descriptor open. The
        // range lies in the device, which is open for writing.
        unsafe { ioctls::block_discard(self.file.as_raw_fd(), &[start, bytes]) }?;
        Ok(bytes)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Where a range to discard may begin. Erase blocks of eMMC are not larger than this, as a rule; of one that is begun the
/// medium keeps what is needed.
const DISCARD_ALIGNMENT: u64 = 1024 * 1024;

/// Whether the device itself refuses writes; opening it for them may succeed all the same.
fn is_read_only(file: &File) -> io::Result<bool> {
    let mut read_only: libc::c_int = 0;
    // SAFETY: the request writes one int, which lives until it returns; `file` keeps the descriptor open.
    unsafe { ioctls::block_read_only(file.as_raw_fd(), &mut read_only) }?;
    Ok(read_only != 0)
}

/// An eMMC boot partition whose write protection was lifted; dropping it protects the partition again.
#[derive(Debug)]
struct BootPartition {
    force_ro: PathBuf,
}

impl BootPartition {
    /// Lifts the protection of `path` if it is a boot partition and is protected.
    fn unprotect(path: &Path, sysfs: &Path) -> io::Result<Option<BootPartition>> {
        let Some(name) =
            path.file_name().and_then(|name| name.to_str()).filter(|name| is_boot_partition(name))
        else {
            return Ok(None);
        };
        let force_ro = sysfs.join(name).join("force_ro");
        match fs::read_to_string(&force_ro) {
            Ok(text) if text.trim() == "1" => {
                fs::write(&force_ro, "0")?;
                Ok(Some(BootPartition { force_ro }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for BootPartition {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.force_ro, "1") {
            // The data is durable; the partition merely stays writable until the next boot.
            warn!("{}: cannot protect the boot partition again: {error}", self.force_ro.display());
        }
    }
}

/// `mmcblk` number `boot` number.
fn is_boot_partition(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("mmcblk")
        .and_then(|rest| rest.split_once("boot"))
        .is_some_and(|(disk, partition)| is_number(disk) && is_number(partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read_and_reaches_the_file() {
        let (_dir, path) = file_of(&[0; 8]);
        let mut device = FileDevice::open(&path, Access::WriteExclusive).unwrap();
        device.write_at(3, b"abc").unwrap();
        device.start_write_back(0, 8);
        device.sync().unwrap();
        device.drop_cache().unwrap();
        let mut found = [0; 4];
        device.read_at(2, &mut found).unwrap();
        assert_eq!(&found, b"\0abc");
        assert_eq!(fs::read(&path).unwrap(), b"\0\0\0abc\0\0");
    }

    #[test]
    fn nothing_reaches_past_the_end_and_the_file_does_not_grow() {
        let (_dir, path) = file_of(&[0; 8]);
        let mut device = FileDevice::open(&path, Access::Write).unwrap();
        for (offset, len) in [(8, 1), (0, 9), (u64::MAX, 1)] {
            assert!(device.write_at(offset, &vec![1; len]).is_err());
            assert!(device.read_at(offset, &mut vec![1; len]).is_err());
        }
        assert_eq!(fs::read(&path).unwrap(), [0; 8]);
    }

    #[test]
    fn a_device_opened_for_reading_can_be_flushed_and_not_written() {
        let (_dir, path) = file_of(&[0; 8]);
        let mut device = FileDevice::open(&path, Access::Read).unwrap();
        device.sync().unwrap();
        device.drop_cache().unwrap();
        assert!(device.write_at(0, &[1]).is_err());
    }

    #[test]
    fn boot_partitions_are_known_by_name() {
        for name in ["mmcblk0boot0", "mmcblk12boot1"] {
            assert!(is_boot_partition(name), "{name}");
        }
        for name in
            ["mmcblk0", "mmcblk0p1", "mmcblkboot0", "mmcblk0boot", "mmcblk0bootx", "sda", "xmmcblk0boot0"]
        {
            assert!(!is_boot_partition(name), "{name}");
        }
    }

    #[test]
    fn a_boot_partition_is_writable_only_while_it_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let force_ro = dir.path().join("mmcblk0boot1/force_ro");
        fs::create_dir(force_ro.parent().unwrap()).unwrap();
        fs::write(&force_ro, "1\n").unwrap();
        let open = BootPartition::unprotect(Path::new("/dev/mmcblk0boot1"), dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&force_ro).unwrap(), "0");
        drop(open);
        assert_eq!(fs::read_to_string(&force_ro).unwrap(), "1");
    }

    #[test]
    fn a_boot_partition_that_was_writable_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let force_ro = dir.path().join("mmcblk0boot1/force_ro");
        fs::create_dir(force_ro.parent().unwrap()).unwrap();
        fs::write(&force_ro, "0\n").unwrap();
        drop(BootPartition::unprotect(Path::new("/dev/mmcblk0boot1"), dir.path()).unwrap());
        assert_eq!(fs::read_to_string(&force_ro).unwrap(), "0\n");
    }
}
