//! Installing a payload: the seam every payload type implements, the streaming writer of a slot, and the
//! built-in handlers for `rootfs-image`, `rust-ota-delta`, `mender-binary-delta`, `single-file` and `directory`.

mod cost;
mod delta;
mod error;
pub mod files;
mod frames;
mod handler;
mod image;
mod journal;
mod read_back;
mod recorded;
mod registry;
mod slot_writer;
mod sum;
mod vcdiff;

pub use cost::{Account, Cost};
pub use delta::DeltaProblem;
pub use error::{InstallError, PayloadProblem};
pub use files::{DirectoryTree, Files, FilesError, SingleFile};
pub use handler::{Arriving, Current, PayloadHandler, Progress, RebootNeed, StateKeeper, Step};
pub use image::RootfsImage;
pub use recorded::{HandledBy, HandlerState, RecordedHandler};
pub use registry::{Candidates, Modules, NoModules, PreferBuiltIn, Registry, UpdateModuleFile};
pub use slot_writer::{SlotWriter, TargetDigest, WriteStatistics, Written, WrittenImage};

use crate::boot::{Armable, BootControl, BootError};
use crate::slot::Restart;

/// Payload types of the built-in handlers.
pub use crate::artifact::write::{DIRECTORY, ROOTFS_IMAGE, SINGLE_FILE};

/// Payload type of the difference between two root file system images.
pub use ::delta::PAYLOAD_TYPE as ROOTFS_DELTA;

/// Payload type of the binary deltas of Mender's commercial plans.
pub const MENDER_BINARY_DELTA: &str = "mender-binary-delta";

/// Whether a payload of this type is an image in the slot that does not run, on whatever way it gets there.
pub fn is_image(payload_type: &str) -> bool {
    [ROOTFS_IMAGE, ROOTFS_DELTA, MENDER_BINARY_DELTA].contains(&payload_type)
}

/// Points the bootloader at a slot that was written and verified, on trial. There is no other way to do it:
/// [`Written`] comes only from a slot whose content was read back and had the expected digest.
///
/// # Errors
/// When the bootloader cannot be told.
pub fn arm(boot: &mut dyn BootControl, written: &Written) -> Result<(), BootError> {
    boot.arm(Armable::proved(written.slot()))
}

/// How to restart the device into a slot that was written, verified and armed, where the arming rides on the restart.
///
/// # Errors
/// When the bootloader cannot be told.
pub fn restart_with(boot: &mut dyn BootControl, written: &Written) -> Result<Restart, BootError> {
    boot.restart_with(Armable::proved(written.slot()))
}
