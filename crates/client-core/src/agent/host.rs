//! The seam to the device and its operating system, and what the agent tells it.

use std::time::Duration;

use crate::deploy::gates::Gate;
use crate::deploy::scripts::ScriptRunner;
use crate::deploy::{DeploymentId, Device, Policy, Reporter};
use crate::server::{Attribute, Transport};

/// The part of the daemon that is about this device and this operating system.
pub trait Host {
    /// Runs `work` on the device while no other process works on it.
    ///
    /// # Errors
    /// When another process does, or the device cannot be opened; `work` was not run then.
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), String>;

    /// Whose artifacts are trusted. Asked for each deployment, so that new keys need no restart.
    ///
    /// # Errors
    /// When the keys cannot be read.
    fn policy(&mut self) -> Result<Policy, String>;

    /// The scripts of the root file system.
    fn scripts(&mut self) -> &mut dyn ScriptRunner;

    /// What the inventory scripts say.
    ///
    /// # Errors
    /// When all of them failed.
    fn inventory(&mut self) -> Result<Vec<Attribute>, String>;

    /// A way to servers that hand out artifacts.
    ///
    /// # Errors
    /// When it cannot be set up.
    fn download_transport(&mut self) -> Result<Box<dyn Transport>, String>;

    /// From here on what is logged belongs to deployment `id`, until [`end_log`](Host::end_log). Again after a restart.
    fn begin_log(&mut self, id: &DeploymentId);

    /// The end of the log.
    fn end_log(&mut self);

    /// The log of deployment `id` for [`UpdateServer::upload_log`]; empty when there is none.
    fn log_messages(&mut self, id: &DeploymentId) -> Vec<u8>;

    /// Something that the status and the watchdog want to know.
    fn tell(&mut self, event: &Event<'_>);
}

/// What the agent tells its host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'e> {
    /// Nothing to do for so long.
    Idle {
        /// Until the server is asked for an update.
        next_check: Duration,
        /// Until the inventory is sent.
        next_inventory: Duration,
    },
    /// State scripts of the root file system may run now, each with the time and the retries that it is allowed.
    Scripts,
    /// The server is being talked to.
    Syncing,
    /// Who was talked to.
    Server {
        /// The server in use, if there is one.
        url: Option<&'e str>,
        /// Whether it accepts this device.
        authorized: bool,
    },
    /// The server was asked for an update and has answered.
    Checked,
    /// A deployment begins or goes on.
    Deploying {
        /// Its id.
        id: &'e str,
        /// The artifact's name, as far as it is known.
        artifact_name: &'e str,
    },
    /// A deployment waits before a gate.
    Held {
        /// Its id.
        id: &'e str,
        /// The gate.
        gate: Gate,
        /// Why it is closed.
        reason: &'e str,
    },
    /// A deployment ended.
    Ended {
        /// Whether it failed.
        failed: bool,
    },
    /// Something went wrong; the agent goes on.
    Failed {
        /// What.
        reason: &'e str,
    },
}
