//! What a person who watches a command is told while it runs.

use super::facts::Stage;
use crate::install::{Account, Progress};

/// Something a person who watches a command wants to know, when it happens. The command line turns each into the
/// line that scripts expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The header was accepted; the payload follows.
    Installing,
    /// The artifact has no payload.
    EmptyPayload,
    /// Taken in, and stopped there.
    Streamed,
    /// Installed; waits for `commit` or `rollback`.
    InstalledNotCommitted,
    /// The payload cannot be rolled back, so waiting would be pointless.
    NoRollbackCommitting,
    /// Installed and permanent.
    InstalledAndCommitted,
    /// The payload needs a restart.
    RebootRequested,
    /// The artifact was refused or broke off.
    StreamingFailed,
    /// Nothing on the device changed.
    SystemNotModified,
    /// No handler for the payload type; nothing on the device changed.
    NoUpdateModule,
    /// The installation failed.
    InstallationFailed,
    /// The commit failed.
    CommittingFailed,
    /// The old software is back, or will be after the restart.
    RolledBack,
    /// There is no way back.
    NoRollback,
    /// The way back failed.
    RollbackFailed,
    /// Permanent now.
    Committed,
    /// Permanent, but a script behind the commit failed.
    PostCommitFailed,
    /// What the deployment left behind could not be removed.
    CleanupFailed,
    /// Only the clean-up was left to do, and is done.
    CleanedUp,
    /// No deployment is in progress.
    NothingInProgress,
}

/// Who is told.
pub trait Observer: Progress {
    /// Something happened.
    fn notice(&mut self, notice: Notice);

    /// A stage begins.
    fn stage(&mut self, _stage: Stage) {}

    /// What the download of a deployment did cost, whether it went well or not.
    fn did_cost(&mut self, _account: &Account) {}

    /// Whether the process was asked to stop: no further stage is begun then, and a step that fails is taken as
    /// interrupted, not as failed. Once true it stays true.
    fn stop_requested(&self) -> bool {
        false
    }
}
