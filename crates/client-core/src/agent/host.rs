//! The seam to the device and its operating system, and what the agent tells it.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::deploy::gates::Gate;
use crate::deploy::record::Record;
use crate::deploy::scripts::ScriptRunner;
use crate::deploy::{DeploymentId, Device, Policy, PolicyError, Reporter};
use crate::monitor::Watch;
use crate::server::{Attribute, Transport};
use crate::slot::SlotError;

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
    ) -> Result<(), HostError>;

    /// Looks at the device while no other process works on it. Writes nothing and flushes nothing: most questions to a
    /// server end with nothing to do. `None` where only a record that is opened for writing can tell.
    ///
    /// # Errors
    /// When another process works on the device.
    fn look(&mut self) -> Result<Option<Known>, HostError>;

    /// Whose artifacts are trusted. Asked for each deployment, so that new keys need no restart.
    ///
    /// # Errors
    /// When the keys cannot be read.
    fn policy(&mut self) -> Result<Policy, PolicyError>;

    /// The scripts of the root file system.
    fn scripts(&mut self) -> &mut dyn ScriptRunner;

    /// What the inventory scripts say.
    ///
    /// # Errors
    /// When all of them failed.
    fn inventory(&mut self) -> Result<Vec<Attribute>, HostError>;

    /// What is watched on the device, if something is.
    fn watch(&mut self) -> Option<&mut Watch> {
        None
    }

    /// A way to servers that hand out artifacts.
    fn download_transport(&mut self) -> Box<dyn Transport>;

    /// From here on what is logged belongs to deployment `id`, until [`end_log`](Host::end_log). Again after a restart.
    fn begin_log(&mut self, id: &DeploymentId);

    /// The end of the log.
    fn end_log(&mut self);

    /// The log of deployment `id` for [`UpdateServer::upload_log`](crate::server::UpdateServer::upload_log); empty when there is none.
    fn log_messages(&mut self, id: &DeploymentId) -> Vec<u8>;

    /// Something that the status and the watchdog want to know.
    fn tell(&mut self, event: &Event<'_>);
}

/// What a question to the server has to know of the device.
#[derive(Debug)]
pub struct Known {
    /// What is installed and what is in progress.
    pub record: Record,
    /// What kind of device this is, where it knows that.
    pub device_type: Result<String, SlotError>,
}

/// What the cause of a [`HostError`] is on the operating system of the host.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why the host could not do its part. Each says what its cause says.
#[non_exhaustive]
pub enum HostError {
    /// Another process works on the device.
    Busy(Cause),
    /// The device cannot be opened.
    Device(Cause),
    /// Every inventory script failed.
    Inventory(Cause),
}

artifact::debug_as_displayed!(HostError);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Busy(cause) | HostError::Device(cause) | HostError::Inventory(cause) => cause.fmt(f),
        }
    }
}

impl Error for HostError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            HostError::Busy(cause) | HostError::Device(cause) | HostError::Inventory(cause) => cause.source(),
        }
    }
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
    /// The device is being looked at: every check has a deadline of its own.
    Looking,
    /// It was looked at.
    Looked,
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
    /// The restart of the device was asked for: this process is about to be ended.
    Restarting,
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
