//! Packages of the Python registry, each in an environment of its own in a folder of the project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, workspace};

/// Whether an environment has a package, by its name and version.
pub fn has(environment: &Path, package: &str) -> bool {
    fs::read_to_string(environment.join("has")).is_ok_and(|there| there == package)
}

/// The Python of an environment that has a package, which is installed now if it is not there.
pub fn environment(environment: &Path, package: &str) -> Outcome<PathBuf> {
    let python = environment.join("bin/python");
    if has(environment, package) {
        return Ok(python);
    }
    workspace::fresh_directory(environment)?;
    workspace::run(Command::new("python3").args(["-m", "venv"]).arg(environment).stdin(Stdio::null()))?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", package]);
    workspace::run(install.stdin(Stdio::null()))?;
    workspace::write(&environment.join("has"), package)?;
    Ok(python)
}
