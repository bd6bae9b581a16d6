//! State scripts: where in a deployment they run, and the seam that runs them.

use std::fmt;

use crate::artifact::StateScript;

/// The state in a script's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptState {
    /// Around the daemon's wait between two pieces of work.
    Idle,
    /// Around each conversation with the server.
    Sync,
    /// Before and after the download; these scripts belong to the root file system.
    Download,
    /// Around arming the new software.
    ArtifactInstall,
    /// Around the restart into it.
    ArtifactReboot,
    /// Around making it permanent.
    ArtifactCommit,
    /// Around going back.
    ArtifactRollback,
    /// Around the restart into the old software.
    ArtifactRollbackReboot,
    /// At the end of a failed deployment.
    ArtifactFailure,
}

/// The action in a script's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptAction {
    /// Before the state acts.
    Enter,
    /// After it has acted.
    Leave,
    /// When it failed.
    Error,
}

/// A place in a deployment at which scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptPoint {
    /// The state.
    pub state: ScriptState,
    /// The action.
    pub action: ScriptAction,
}

impl ScriptState {
    /// The state as written in file names.
    pub fn name(self) -> &'static str {
        match self {
            ScriptState::Idle => "Idle",
            ScriptState::Sync => "Sync",
            ScriptState::Download => "Download",
            ScriptState::ArtifactInstall => "ArtifactInstall",
            ScriptState::ArtifactReboot => "ArtifactReboot",
            ScriptState::ArtifactCommit => "ArtifactCommit",
            ScriptState::ArtifactRollback => "ArtifactRollback",
            ScriptState::ArtifactRollbackReboot => "ArtifactRollbackReboot",
            ScriptState::ArtifactFailure => "ArtifactFailure",
        }
    }

    /// Whether the scripts come with the artifact; the others lie in the root file system.
    pub fn from_artifact(self) -> bool {
        match self {
            ScriptState::Idle | ScriptState::Sync | ScriptState::Download => false,
            ScriptState::ArtifactInstall
            | ScriptState::ArtifactReboot
            | ScriptState::ArtifactCommit
            | ScriptState::ArtifactRollback
            | ScriptState::ArtifactRollbackReboot
            | ScriptState::ArtifactFailure => true,
        }
    }
}

impl fmt::Display for ScriptPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            ScriptAction::Enter => "Enter",
            ScriptAction::Leave => "Leave",
            ScriptAction::Error => "Error",
        };
        write!(f, "{}_{action}", self.state.name())
    }
}

/// What to do when one script of a set fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnScriptFailure {
    /// The set ends there.
    Stop,
    /// The others are run all the same; the failure is returned at the end.
    RunTheRest,
}

/// Why a set of scripts failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ScriptError {
    /// A script ended with a failure.
    Failed {
        /// File name of the script.
        script: String,
        /// How it ended: `exit status 3`, `killed by signal 9`.
        how: String,
    },
    /// A script ran longer than it may and was killed.
    TimedOut {
        /// File name of the script.
        script: String,
        /// The limit.
        seconds: u64,
    },
    /// A script asked for a retry for longer than it may.
    RetriedTooLong {
        /// File name of the script.
        script: String,
        /// The limit.
        seconds: u64,
    },
    /// The scripts are of a version this client does not know.
    Version {
        /// The `version` file.
        path: String,
        /// Its content, shortened.
        found: String,
    },
    /// A script or its directory could not be used.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The path.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScriptError::Failed { script, how } => write!(f, "state script {script} failed: {how}"),
            ScriptError::TimedOut { script, seconds } => {
                write!(f, "state script {script} was killed after {seconds} s")
            }
            ScriptError::RetriedTooLong { script, seconds } => {
                write!(f, "state script {script} asked to be retried for more than {seconds} s")
            }
            ScriptError::Version { path, found } => {
                write!(f, "unexpected artifact script version {found:?} in {path}")
            }
            ScriptError::Io { doing, path, source } => write!(f, "cannot {doing} {path}: {source}"),
        }
    }
}

impl std::error::Error for ScriptError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ScriptError::Io { source, .. } => Some(source),
            ScriptError::Failed { .. }
            | ScriptError::TimedOut { .. }
            | ScriptError::RetriedTooLong { .. }
            | ScriptError::Version { .. } => None,
        }
    }
}

/// Stores and runs state scripts.
///
/// # Contract
/// Nothing staged is runnable before [`publish`](ScriptRunner::publish), and staging removes what an earlier
/// deployment left. What is published survives a power cut and is the same for the system on the other slot.
pub trait ScriptRunner {
    /// Stores the artifact's scripts, durably, where nothing runs them.
    ///
    /// # Errors
    /// When they cannot be stored.
    fn stage(&mut self, scripts: &[StateScript]) -> Result<(), ScriptError>;

    /// Makes the staged scripts the ones that run. May be called again after a power cut.
    ///
    /// # Errors
    /// When they cannot be put in place.
    fn publish(&mut self) -> Result<(), ScriptError>;

    /// Runs the scripts of one point, in the order of their names. A point without scripts succeeds.
    ///
    /// # Errors
    /// The first failure.
    fn run(&mut self, point: ScriptPoint, on_failure: OnScriptFailure) -> Result<(), ScriptError>;

    /// Whether the scripts of the root file system are of a version this client can run: asked before a commit, so that
    /// a system on which no further update could begin is not made permanent.
    ///
    /// # Errors
    /// [`ScriptError::Version`], or when that cannot be learned.
    fn check_root_scripts(&mut self) -> Result<(), ScriptError>;

    /// Removes staged and published scripts of the artifact. Succeeds when there are none.
    ///
    /// # Errors
    /// When something could not be removed.
    fn discard(&mut self) -> Result<(), ScriptError>;
}
