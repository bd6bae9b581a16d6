//! What concerns this process as a whole.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use nix::sys::stat::{Mode, umask};

/// Files made by this process are for its owner only, whatever it was started with.
pub fn set_private_umask() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Keeps every descriptor that this process was started with, apart from the three standard ones, from the programs
/// it starts. What this process opens itself is private already.
pub fn hide_inherited_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(descriptor) = number.filter(|descriptor| *descriptor > 2) {
            // SAFETY: setting a flag of a descriptor number touches no memory; a number that was closed since is
            // refused with EBADF.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Ends the process at once with success, running nothing on the way out.
pub(crate) fn exit_now() -> ! {
    // SAFETY: `_exit` never returns and takes no pointers.
    unsafe { libc::_exit(0) }
}

/// A number that nobody can predict, as the kernel gives it.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the pointer and the length are those of `bytes`, which lives until the call has returned.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    if count == 8 { Ok(u64::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}
