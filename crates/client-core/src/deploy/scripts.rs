//! State scripts: where in a deployment they run, and the seam that runs them.

use std::fmt;

use crate::artifact::StateScript;
pub use crate::artifact::{ScriptAction, ScriptPoint, ScriptState};

/// What to do when one script of a set fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnScriptFailure {
    /// The set ends there.
    Stop,
    /// The others are run all the same; the failure is returned at the end.
    RunTheRest,
}

/// Why a set of scripts failed.
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

artifact::debug_as_displayed!(ScriptError);

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
