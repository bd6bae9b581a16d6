//! Why a command failed, as one line for people and a code for scripts.

use artifact::{ArtifactError, KeyError};
use std::fmt;
use std::io;
use std::path::Path;

/// The exit code of everything that has no other.
const ANY: u8 = 1;
/// `validate` and `read` cannot open the artifact, as with `mender-artifact`.
const CANNOT_OPEN: u8 = 3;
/// `validate` found the artifact wrong.
const INVALID: u8 = 4;

/// One line, with the path it is about.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    pub(crate) fn usage(problem: impl Into<String>) -> Failure {
        Failure { text: problem.into(), code: ANY }
    }

    pub(crate) fn io(doing: impl fmt::Display, error: io::Error) -> Failure {
        Failure::usage(format!("cannot {doing}: {error}"))
    }

    pub(crate) fn artifact(path: &Path, error: ArtifactError) -> Failure {
        Failure::usage(format!("{}: {error}", path.display()))
    }

    pub(crate) fn key(path: &Path, error: KeyError) -> Failure {
        Failure::usage(format!("{}: {error}", path.display()))
    }

    /// The same for an artifact that cannot be opened.
    pub(crate) fn cannot_open(self) -> Failure {
        Failure { code: CANNOT_OPEN, ..self }
    }

    /// The same for an artifact that is wrong.
    pub(crate) fn invalid(self) -> Failure {
        Failure { code: INVALID, ..self }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::usage(error.to_string())
    }
}
