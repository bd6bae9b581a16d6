//! Installing a payload: the seam every payload type implements, the streaming writer of a slot, and the
//! built-in handlers for `rootfs-image`, `single-file` and `directory`.

mod directory;
mod error;
pub mod files;
mod payload_problem;
mod replacement;
mod rootfs_image;
mod single_file;
mod slot_writer;

pub use directory::DirectoryTree;
pub use error::InstallError;
pub use files::{Files, FilesError};
pub use payload_problem::PayloadProblem;
pub use rootfs_image::RootfsImage;
pub use single_file::{BUILT_IN, SingleFile};
pub use slot_writer::{SlotWriter, WriteStatistics, Written, WrittenImage};

use crate::artifact::{Header, PayloadReader};
use crate::boot::{Armable, BootControl, BootError, Verdict};
use crate::slot::Restart;

/// Payload types of the built-in handlers.
pub use crate::artifact::write::{DIRECTORY, ROOTFS_IMAGE, SINGLE_FILE};

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

/// Whether the payload becomes active only with a restart of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebootNeed {
    /// It is active already.
    None,
    /// The device must be restarted, and the handler does that itself.
    Custom,
    /// The device must be restarted by the client.
    Automatic,
}

/// A payload on its way in, with what its handler may know about it and about the device.
#[derive(Debug)]
pub struct Arriving<'a> {
    /// The artifact's header, verified.
    pub header: &'a Header,
    /// What is installed now, and where.
    pub current: Current<'a>,
    /// The files.
    pub payload: &'a mut PayloadReader,
}

/// What the device is before a deployment changes it.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// Name of the artifact that is installed; empty when none is known.
    pub artifact_name: &'a str,
    /// Its group.
    pub artifact_group: Option<&'a str>,
    /// The type of the device.
    pub device_type: &'a str,
}

/// What one payload type does at each stage of a deployment.
///
/// # Contract
/// Every verb but [`download`](PayloadHandler::download) may be called again after a power cut in the middle of
/// it, in a new process, with only [`restore`](PayloadHandler::restore) called before; it must then finish what
/// was begun or find nothing to do. `download` changes nothing that boots.
pub trait PayloadHandler {
    /// Takes the payload's files. Returns only after the payload and the archive around it ended properly and
    /// everything stored is durable and verified.
    ///
    /// # Errors
    /// Whatever was wrong; nothing that boots has changed then.
    fn download(
        &mut self,
        arriving: &mut Arriving<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), InstallError>;

    /// What a later process must know to go on: stored in the record when `download` is done.
    fn image(&self) -> Option<WrittenImage>;

    /// Takes back what [`image`](PayloadHandler::image) returned in an earlier process.
    fn restore(&mut self, image: Option<WrittenImage>);

    /// Makes the new software the one that is tried next.
    ///
    /// # Errors
    /// When it cannot; [`roll_back`](PayloadHandler::roll_back) follows where it is supported.
    fn install(&mut self) -> Result<(), InstallError>;

    /// Whether a restart is needed before the new software runs.
    ///
    /// # Errors
    /// When the handler cannot say.
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError>;

    /// Whether [`roll_back`](PayloadHandler::roll_back) can undo an installation.
    ///
    /// # Errors
    /// When the handler cannot say.
    fn supports_rollback(&mut self) -> Result<bool, InstallError>;

    /// Restarts the device or whatever else makes the new software run ([`RebootNeed::Custom`]), or the device itself
    /// ([`RebootNeed::Automatic`], for handlers of this crate). The process may be ended in the middle of it.
    ///
    /// # Errors
    /// When the restart could not be begun.
    fn reboot(&mut self) -> Result<(), InstallError>;

    /// How the device is to be restarted into the new software, where the client restarts it
    /// ([`RebootNeed::Automatic`]). May be asked by a later process than the one that installed.
    ///
    /// # Errors
    /// When the restart would not lead into the new software.
    fn restart(&mut self) -> Result<Restart, InstallError> {
        Ok(Restart::Plain)
    }

    /// Whether the new software runs. Called after the restart, perhaps in a new process.
    ///
    /// # Errors
    /// When it does not.
    fn verify_reboot(&mut self) -> Result<(), InstallError>;

    /// As [`reboot`](PayloadHandler::reboot), on the way back.
    ///
    /// # Errors
    /// When the restart could not be begun.
    fn reboot_back(&mut self) -> Result<(), InstallError>;

    /// Whether the old software runs again.
    ///
    /// # Errors
    /// When it does not.
    fn verify_reboot_back(&mut self) -> Result<(), InstallError>;

    /// Makes the new software permanent.
    ///
    /// # Errors
    /// When it is not running, or cannot be made permanent.
    fn commit(&mut self) -> Result<(), InstallError>;

    /// Goes back to the old software.
    ///
    /// # Errors
    /// When it cannot: the device may then be inconsistent.
    fn roll_back(&mut self) -> Result<(), InstallError>;

    /// Called once after a failed deployment, rolled back or not.
    ///
    /// # Errors
    /// When the handler's own failure step failed.
    fn fail(&mut self) -> Result<(), InstallError>;

    /// Removes what the deployment left behind. Always the last call.
    ///
    /// # Errors
    /// When something could not be removed.
    fn clean_up(&mut self) -> Result<(), InstallError>;

    /// What the bootloader did to this payload while we were off; `None` where no bootloader is concerned and
    /// only the record can tell.
    ///
    /// # Errors
    /// When the boot environment cannot be read.
    fn verdict(&mut self) -> Result<Option<Verdict>, InstallError>;
}

/// Handlers of payload types besides the root file system image of this crate.
pub trait Modules {
    /// Whether [`open`](Modules::open) has a handler of `payload_type` that goes before the one of this crate.
    fn replaces(&self, payload_type: &str) -> bool;

    /// The handler of `payload_type`.
    ///
    /// # Errors
    /// [`InstallError::UnknownPayloadType`] when there is none.
    fn open<'m>(&'m mut self, payload_type: &str) -> Result<Box<dyn PayloadHandler + 'm>, InstallError>;
}

/// Payload types of which the built-in handler goes before an update module of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PreferBuiltIn {
    /// None: an update module that is installed wins.
    #[default]
    None,
    /// These.
    These(Vec<String>),
    /// All that there are.
    All,
}

impl PreferBuiltIn {
    /// Whether the built-in handler of `payload_type` goes first.
    pub fn includes(&self, payload_type: &str) -> bool {
        match self {
            PreferBuiltIn::None => false,
            PreferBuiltIn::These(types) => types.iter().any(|listed| listed == payload_type),
            PreferBuiltIn::All => true,
        }
    }
}

/// In place of a handler that was there when the deployment began and is gone: an update of the root file system did
/// not bring it along. Nothing can be done with the payload, and the deployment must come to its end all the same.
#[derive(Debug)]
pub struct MissingHandler {
    /// The payload type nobody handles.
    pub payload_type: String,
}

impl MissingHandler {
    fn missing<T>(&self) -> Result<T, InstallError> {
        Err(InstallError::UnknownPayloadType { payload_type: self.payload_type.clone() })
    }
}

impl PayloadHandler for MissingHandler {
    fn download(&mut self, _: &mut Arriving<'_>, _: &mut dyn Progress) -> Result<(), InstallError> {
        self.missing()
    }
    fn image(&self) -> Option<WrittenImage> {
        None
    }
    fn restore(&mut self, _: Option<WrittenImage>) {}
    fn install(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        self.missing()
    }
    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        self.missing()
    }
    fn reboot(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn reboot_back(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn commit(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn fail(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.missing()
    }
    fn verdict(&mut self) -> Result<Option<Verdict>, InstallError> {
        Ok(None)
    }
}

/// No payload types but the built-in one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoModules;

impl Modules for NoModules {
    fn replaces(&self, _: &str) -> bool {
        false
    }

    fn open<'m>(&'m mut self, payload_type: &str) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        Err(InstallError::UnknownPayloadType { payload_type: payload_type.to_owned() })
    }
}

/// Told how far an installation is.
pub trait Progress {
    /// `done` of `total` bytes of the payload file have passed the digest and were handed to the slot. Called at
    /// least once per MiB and at the end.
    fn written(&mut self, done_bytes: u64, total_bytes: u64);

    /// `done` of `total` bytes were read back from the medium and passed the digest again.
    fn verified(&mut self, done_bytes: u64, total_bytes: u64);

    /// A slot was written and verified as a whole.
    fn finished(&mut self, _statistics: &WriteStatistics) {}
}

/// Whoever is told of more can be told of progress. (The oldest compiler we support does not turn a reference to a trait
/// into one to the trait it is based on.)
impl<T: Progress + ?Sized> Progress for &mut T {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        (**self).written(done_bytes, total_bytes);
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        (**self).verified(done_bytes, total_bytes);
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        (**self).finished(statistics);
    }
}
