//! Why a command failed, as one line for people.

use client_core::artifact::{ArtifactError, KeyError};
use std::fmt;
use std::io;
use std::path::Path;

/// One line, with the path it is about.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn usage(problem: impl Into<String>) -> Failure {
        Failure(problem.into())
    }

    pub(crate) fn io(doing: impl fmt::Display, error: io::Error) -> Failure {
        Failure(format!("cannot {doing}: {error}"))
    }

    pub(crate) fn artifact(path: &Path, error: ArtifactError) -> Failure {
        Failure(format!("{}: {error}", path.display()))
    }

    pub(crate) fn key(path: &Path, error: KeyError) -> Failure {
        Failure(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure(error.to_string())
    }
}
