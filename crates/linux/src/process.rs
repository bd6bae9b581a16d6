//! What concerns this process as a whole.

use nix::sys::stat::{Mode, umask};

/// Files made by this process are for its owner only, whatever it was started with.
pub fn set_private_umask() {
    umask(Mode::from_bits_truncate(0o077));
}
