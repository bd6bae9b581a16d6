//! What the standard library does not tell about local sockets and file systems.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

/// Whether the process on the other side of `stream` belongs to the user of this process, or to root.
///
/// # Errors
/// When the kernel does not tell.
pub fn peer_is_trusted(stream: &UnixStream) -> io::Result<bool> {
    let peer = getsockopt(stream, PeerCredentials)?;
    Ok(peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

/// How many bytes this process may still write to the file system of `path`.
///
/// # Errors
/// When there is no such path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = statvfs(path)?;
    // The types have 32 bits on some systems.
    #[allow(clippy::useless_conversion)]
    Ok(u64::from(status.blocks_available()).saturating_mul(u64::from(status.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_trusts_itself() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(peer_is_trusted(&one).unwrap());
    }

    #[test]
    fn free_space_is_known_where_there_is_a_path() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert!(free_bytes(Path::new("/nonexistent")).is_err());
    }
}
