//! The boot decision: what boots next, how a trial is armed and made permanent, and what the bootloader did while we
//! were off.
//!
//! [`BootControl`] is the seam: the verbs that an update needs of whatever chooses the slot. Everything that installs
//! or decides goes through it and knows no variable, no file and no partition number. [`mender_vars`] is the
//! implementation for bootloaders that share variables with us (U-Boot, GRUB), over the narrower seam [`BootEnv`].
//! [`verdict`] is the decision itself, as a pure function.
//!
//! ```text
//!              arm                    bootloader               commit
//!  settled ───────────▶ untouched ───────────────▶ trial ───────────────▶ committed (settled on target)
//!     ▲                     │ roll back              │ roll back, or the bootloader gives up
//!     └─────────────────────┴────────────────────────┘
//! ```
//!
//! A backend of another bootloader implements [`BootControl`], and passes the conformance suite of `testkit`
//! (`testkit::conformance::boot`): a whole life of updates under every power cut.

mod env;
pub mod mender_vars;
mod state;

use std::fmt;

pub use env::{BadCopy, BootEnv, BootEnvError, Variables};
pub use state::{Arming, BootState, Intent, Verdict, verdict};

use crate::slot::{Restart, Slot, SlotError};
use mender_vars::VarsError;

/// Changes and tells what boots next.
///
/// # Contract
/// - [`state`](BootControl::state) tells what the bootloader will see: what a bootloader may have written without a
///   flush is made durable before it is believed.
/// - Every change is all or nothing and durable on return: after a power cut at any moment the state before or the
///   state after is there, and in both some slot boots. The one exception is an arming that says so
///   ([`Arming::WithReboot`]): it is never durable, and lost with the power.
/// - What cannot be read is an error, never a default.
pub trait BootControl {
    /// Checks that the device is set up to boot from two slots, as far as its configuration tells. Reads no medium.
    ///
    /// # Errors
    /// [`BootError::Slot`] with [`SlotError::NotConfigured`] on a device without slots.
    fn check_configured(&mut self) -> Result<(), BootError>;

    /// What boots next, and whether a trial is open.
    ///
    /// # Errors
    /// When it cannot be read, or what is stored means nothing.
    fn state(&mut self) -> Result<BootState, BootError>;

    /// Checks that [`arm`](BootControl::arm) of `target` would work, before anything is spent on an update. Changes
    /// nothing that is read; what repairs a lost copy may happen here already.
    ///
    /// # Errors
    /// [`BootError::CannotBeArmed`] with what is in the way, as far as it can be known before.
    fn check_arm(&mut self, target: Slot) -> Result<(), BootError>;

    /// Points the bootloader at `target` on trial. Where the arming rides on the restart, this checks what it can and
    /// [`restart_with`](BootControl::restart_with) does it.
    ///
    /// # Errors
    /// When it did not become durable; the state is the old one or the new one then.
    fn arm(&mut self, target: Armable) -> Result<(), BootError>;

    /// How to restart the device so that an arming of `target` takes effect. Asked only where the arming rides on the
    /// restart, perhaps by a later process than the one that armed, and again after a power cut.
    ///
    /// # Errors
    /// When the bootloader cannot be told.
    fn restart_with(&mut self, _target: Armable) -> Result<Restart, BootError> {
        Ok(Restart::Plain)
    }

    /// Makes the running trial of `target` permanent: the single commit point of an update. [`commit_trial`] is what
    /// calls it, once it has seen that trial.
    ///
    /// # Errors
    /// When it did not become durable; the state is the old one or the new one then.
    fn commit(&mut self, target: Slot) -> Result<(), BootError>;

    /// Makes `slot` what boots next, for good, and ends every trial. Writes nothing where that is so already.
    ///
    /// # Errors
    /// When the state cannot be read, or the change did not become durable.
    fn settle_on(&mut self, slot: Slot) -> Result<(), BootError>;

    /// What and where it is, for messages: `U-Boot environment in /dev/mmcblk0 (2 copies)`.
    fn describe(&self) -> String;
}

/// The slot of an image that was written, made durable and read back. Only [`install::arm`](crate::install::arm) and
/// [`install::restart_with`](crate::install::restart_with) make one, of the proof itself: a slot that was not written
/// cannot be armed.
#[derive(Debug)]
pub struct Armable(Slot);

impl Armable {
    /// For whoever holds the proof.
    pub(crate) fn proved(slot: Slot) -> Armable {
        Armable(slot)
    }

    /// The slot.
    pub fn slot(&self) -> Slot {
        self.0
    }
}

/// Checks that no trial is open and that the running slot is what boots next, so that writing to the other slot can
/// never leave the device without a system to boot. Writes nothing.
///
/// # Errors
/// [`BootError::OpenTrial`] and [`BootError::Disagrees`], and what [`BootControl::state`] returns.
pub fn check_settled(boot: &mut dyn BootControl, running: Slot) -> Result<(), BootError> {
    let state = boot.state()?;
    if state.trial {
        return Err(BootError::OpenTrial { slot: !state.fall_back() });
    }
    if state.selected != running {
        let environment = boot.describe();
        return Err(BootError::Disagrees { running, selected: state.selected, environment });
    }
    Ok(())
}

/// Makes the running trial of `target` permanent, if there is one. A commit that was cut after its write has nothing
/// left to do.
///
/// # Errors
/// [`BootError::NotOnTrial`] unless `target` runs on trial or is committed.
pub fn commit_trial(boot: &mut dyn BootControl, running: Slot, target: Slot) -> Result<(), BootError> {
    match verdict(boot.state()?, running, target, Intent::Try) {
        Verdict::Trial => boot.commit(target),
        Verdict::Committed => Ok(()),
        verdict @ (Verdict::Untouched | Verdict::FellBack | Verdict::Reverting | Verdict::Contradictory) => {
            Err(BootError::NotOnTrial { target, verdict })
        }
    }
}

/// Why the bootloader does not allow the next step.
#[non_exhaustive]
pub enum BootError {
    /// Where the bootloader keeps its state cannot be read or written.
    Env(BootEnvError),
    /// The shared variables mean nothing.
    Vars(VarsError),
    /// The slots are not configured, or cannot be named to the bootloader.
    Slot(SlotError),
    /// A trial is open: the other slot is the only fall-back and must not be touched.
    OpenTrial {
        /// The slot on trial.
        slot: Slot,
    },
    /// The state can be read and could not be written: an update could never be tried.
    CannotBeArmed {
        /// The environment.
        environment: String,
        /// What is in the way.
        error: BootEnvError,
    },
    /// The running slot is not the one that boots next.
    Disagrees {
        /// The slot that runs.
        running: Slot,
        /// The slot that boots next.
        selected: Slot,
        /// The environment.
        environment: String,
    },
    /// A commit was asked for, and the target is not running on trial.
    NotOnTrial {
        /// The slot that would have been committed.
        target: Slot,
        /// What the bootloader did instead.
        verdict: Verdict,
    },
}

artifact::debug_as_displayed!(BootError);

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Env(error) => error.fmt(f),
            BootError::Vars(error) => error.fmt(f),
            BootError::Slot(error) => error.fmt(f),
            BootError::OpenTrial { slot } => {
                write!(f, "slot {slot} is on trial: commit it or roll it back first")
            }
            BootError::CannotBeArmed { environment, error } => {
                write!(f, "no update could be tried, because the {environment} cannot be written: {error}")
            }
            BootError::Disagrees { running, selected, environment } => {
                write!(f, "slot {running} is running but the {environment} selects slot {selected}")
            }
            BootError::NotOnTrial { target, verdict } => {
                write!(f, "slot {target} is not running on trial (it is {verdict}): refusing to commit")
            }
        }
    }
}

impl std::error::Error for BootError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BootError::Env(error) | BootError::CannotBeArmed { error, .. } => error.source(),
            BootError::Slot(error) => error.source(),
            BootError::Vars(_)
            | BootError::OpenTrial { .. }
            | BootError::Disagrees { .. }
            | BootError::NotOnTrial { .. } => None,
        }
    }
}

impl From<BootEnvError> for BootError {
    fn from(error: BootEnvError) -> BootError {
        BootError::Env(error)
    }
}

impl From<VarsError> for BootError {
    fn from(error: VarsError) -> BootError {
        BootError::Vars(error)
    }
}

impl From<SlotError> for BootError {
    fn from(error: SlotError) -> BootError {
        BootError::Slot(error)
    }
}
