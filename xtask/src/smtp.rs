//! The SMTP server that tests use: a package of other people's of the Python registry, in a folder of the project.

use std::path::PathBuf;

use crate::{Outcome, python, workspace};

/// Says to the tests which Python has it.
pub const PROGRAM: &str = "ROTA_SMTP";

/// The version that the tests were written against.
const PACKAGE: &str = "aiosmtpd==1.4.6";

/// Returns the Python that has the package, which is installed first if it is not there and `may_install`; else why not.
pub fn prepare(may_install: bool) -> Outcome<PathBuf> {
    let environment = workspace::target_directory()?.join("smtp/venv");
    if !may_install && !python::has(&environment, PACKAGE) {
        return Err(format!("{PACKAGE} is not in {} and --no-install was given", environment.display()));
    }
    python::environment(&environment, PACKAGE)
}
