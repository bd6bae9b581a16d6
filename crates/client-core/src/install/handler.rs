//! The seam of payload types: what a handler does in each stage of a deployment.

use super::{Cost, HandlerState, InstallError, WriteStatistics, WrittenImage};
use crate::artifact::{Header, PayloadReader};
use crate::boot::Verdict;
use crate::slot::{Restart, Slot};

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
pub struct Arriving<'a> {
    /// The artifact's header, verified.
    pub header: &'a Header,
    /// What is installed now, and where.
    pub current: Current<'a>,
    /// The files.
    pub payload: &'a mut PayloadReader,
    /// Takes what a later process has to know.
    pub state: &'a mut dyn StateKeeper,
    /// What was [saved](StateKeeper::save) during an earlier download of the same artifact that did not come to its end;
    /// empty otherwise. It is a claim about the medium, to be checked there before it is believed.
    pub earlier: HandlerState,
}

/// Where a handler keeps what a later process has to know.
pub trait StateKeeper {
    /// Takes `state` in place of what was there before. It is durable when the next stage has begun.
    fn set(&mut self, state: HandlerState);

    /// Makes what was set last durable at once: all or nothing, done on return. May be called at any time of a download,
    /// and as often as the handler likes to pay for a write of the record.
    ///
    /// # Errors
    /// When it may not be durable.
    fn save(&mut self) -> Result<(), InstallError>;

    /// What was saved of an earlier download of the same artifact was found again: this one does not begin at the start.
    fn goes_on(&mut self) {}

    /// Counts what was done to a slot, whatever came of it. It is saved with whatever is saved next.
    fn wrote(&mut self, _slot: Slot, _statistics: &WriteStatistics) {}
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

/// A step of a deployment behind the download that a handler may leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// [`PayloadHandler::needs_reboot`].
    NeedsReboot,
    /// [`PayloadHandler::supports_rollback`].
    SupportsRollback,
    /// [`PayloadHandler::reboot`].
    Reboot,
    /// [`PayloadHandler::verify_reboot`].
    VerifyReboot,
    /// [`PayloadHandler::reboot_back`].
    RebootBack,
    /// [`PayloadHandler::verify_reboot_back`].
    VerifyRebootBack,
    /// [`PayloadHandler::commit`].
    Commit,
    /// [`PayloadHandler::roll_back`].
    RollBack,
    /// [`PayloadHandler::fail`].
    Fail,
    /// [`PayloadHandler::clean_up`].
    CleanUp,
}

/// What one payload type does at each stage of a deployment.
///
/// A handler has to download and to install. What it says nothing about is what suits a payload that is active at once
/// and cannot be taken back: no restart, no roll-back, nothing to commit or to clean up.
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

    /// Takes back what was [set](StateKeeper::set) last in an earlier process; an empty state where nothing was. Not
    /// called where another handler began that is gone.
    fn restore(&mut self, _: HandlerState) {}

    /// Whether `download` overwrites the slot that does not run.
    fn overwrites_slot(&self) -> bool {
        false
    }

    /// The image that a payload left in a slot: what a later deployment may go back to.
    fn image(&self) -> Option<WrittenImage> {
        None
    }

    /// Makes the new software the one that is tried next.
    ///
    /// # Errors
    /// When it cannot; [`roll_back`](PayloadHandler::roll_back) follows where it is supported.
    fn install(&mut self) -> Result<(), InstallError>;

    /// What the handler does in a step for which it has no method of its own: nothing. A handler that does the same in all
    /// of them has only this.
    ///
    /// # Errors
    /// Those of the step.
    fn otherwise(&mut self, _: Step) -> Result<(), InstallError> {
        Ok(())
    }

    /// Whether a restart is needed before the new software runs.
    ///
    /// # Errors
    /// When the handler cannot say.
    fn needs_reboot(&mut self) -> Result<RebootNeed, InstallError> {
        self.otherwise(Step::NeedsReboot).map(|()| RebootNeed::None)
    }

    /// Whether [`roll_back`](PayloadHandler::roll_back) can undo an installation.
    ///
    /// # Errors
    /// When the handler cannot say.
    fn supports_rollback(&mut self) -> Result<bool, InstallError> {
        self.otherwise(Step::SupportsRollback).map(|()| false)
    }

    /// Restarts the device or whatever else makes the new software run ([`RebootNeed::Custom`]), or the device itself
    /// ([`RebootNeed::Automatic`], for handlers of this crate). The process may be ended in the middle of it.
    ///
    /// # Errors
    /// When the restart could not be begun.
    fn reboot(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::Reboot)
    }

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
    fn verify_reboot(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::VerifyReboot)
    }

    /// As [`reboot`](PayloadHandler::reboot), on the way back.
    ///
    /// # Errors
    /// When the restart could not be begun.
    fn reboot_back(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::RebootBack)
    }

    /// Whether the old software runs again.
    ///
    /// # Errors
    /// When it does not.
    fn verify_reboot_back(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::VerifyRebootBack)
    }

    /// Makes the new software permanent.
    ///
    /// # Errors
    /// When it is not running, or cannot be made permanent.
    fn commit(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::Commit)
    }

    /// Goes back to the old software.
    ///
    /// # Errors
    /// When it cannot: the device may then be inconsistent.
    fn roll_back(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::RollBack)
    }

    /// Called once after a failed deployment, rolled back or not.
    ///
    /// # Errors
    /// When the handler's own failure step failed.
    fn fail(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::Fail)
    }

    /// Removes what the deployment left behind. Always the last call.
    ///
    /// # Errors
    /// When something could not be removed.
    fn clean_up(&mut self) -> Result<(), InstallError> {
        self.otherwise(Step::CleanUp)
    }

    /// What the bootloader did to this payload while we were off; `None` where no bootloader is concerned and
    /// only the record can tell.
    ///
    /// # Errors
    /// When the boot environment cannot be read.
    fn verdict(&mut self) -> Result<Option<Verdict>, InstallError> {
        Ok(None)
    }
}

/// Told how far an installation is.
pub trait Progress {
    /// `done` of `total` bytes of the payload file have passed the digest and were handed to the slot. Called at
    /// least once per MiB and at the end.
    fn written(&mut self, done_bytes: u64, total_bytes: u64);

    /// `done` of `total` bytes were read back from the medium and passed the digest again.
    fn verified(&mut self, done_bytes: u64, total_bytes: u64);

    /// What the update will cost, said before its payload is transferred.
    fn will_cost(&mut self, _cost: &Cost) {}

    /// So many bytes of what is being installed were taken from the device itself, where they would have had to be
    /// transferred otherwise.
    fn reused(&mut self, _bytes: u64) {}

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

    fn will_cost(&mut self, cost: &Cost) {
        (**self).will_cost(cost);
    }

    fn reused(&mut self, bytes: u64) {
        (**self).reused(bytes);
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        (**self).finished(statistics);
    }
}
