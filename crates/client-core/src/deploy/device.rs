//! The seams of one device as one struct: passed first to everything that acts.

use super::gates::Gatekeeper;
use super::notice::Observer;
use super::report::Reporter;
use super::scripts::ScriptRunner;
use crate::boot::BootControl;
use crate::install::Modules;
use crate::slot::{Slots, System};
use crate::state_store::StateStore;

/// Everything a deployment needs of the world.
pub struct Device<'a> {
    /// What boots next.
    pub boot: &'a mut dyn BootControl,
    /// The two root file system partitions.
    pub slots: &'a mut dyn Slots,
    /// What the operating system knows.
    pub system: &'a dyn System,
    /// Handlers of payload types that are not built in.
    pub modules: &'a mut dyn Modules,
    /// The record that survives a power cut.
    pub state: &'a mut dyn StateStore,
    /// State scripts.
    pub scripts: &'a mut dyn ScriptRunner,
    /// Who is told what happens.
    pub observer: &'a mut dyn Observer,
    /// Who may hold the deployment up.
    pub gates: &'a mut dyn Gatekeeper,
    /// The server that ordered the deployment, if one did.
    pub reporter: &'a mut dyn Reporter,
}
