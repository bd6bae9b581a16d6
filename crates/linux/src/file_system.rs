//! What a file system tells about itself: its free room, and whether its inode numbers last.

use std::io;
use std::path::Path;

use nix::sys::statfs::statfs;
use nix::sys::statvfs::statvfs;

/// File systems whose inode numbers change when they are mounted again, so that two directories cannot be told apart
/// afterwards: FAT, exFAT and those of other programs (FUSE).
const WITHOUT_LASTING_NUMBERS: [u64; 3] = [0x4d44, 0x2011_bab0, 0x6573_5546];

/// How many bytes this process may still write to the file system of `path`; `None` where it does not count its blocks.
///
/// # Errors
/// When there is no such path.
pub fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    let status = statvfs(path)?;
    #[allow(clippy::useless_conversion)] // the types have 32 bits on some systems
    let (all, free) = (u64::from(status.blocks()), u64::from(status.blocks_available()));
    #[allow(clippy::useless_conversion)]
    let size = u64::from(status.fragment_size());
    Ok((all > 0).then(|| free.saturating_mul(size)))
}

/// Whether a directory on the file system of `path` has the same inode number after the next mount.
///
/// # Errors
/// When there is no such path.
pub(crate) fn keeps_inode_numbers(path: &Path) -> io::Result<bool> {
    let kind = statfs(path)?.filesystem_type();
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // the type differs between platforms
    let number = kind.0 as u64 & 0xffff_ffff;
    Ok(!WITHOUT_LASTING_NUMBERS.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_known_where_there_is_a_path_and_blocks_are_counted() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap().unwrap() > 0);
        assert_eq!(free_bytes(Path::new("/proc")).unwrap(), None);
        assert!(free_bytes(Path::new("/nonexistent")).is_err());
    }
}
