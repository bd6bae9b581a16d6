//! The external tree for Buildroot and the init scripts, as far as they can be checked without Buildroot: its options, its
//! scripts on a small root file system, the script for sysvinit with a real client.
//!
//! That Buildroot itself takes the tree is tried by hand, see `docs/buildroot.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, workspace};

/// The package of the Python registry that reads options.
const KCONFIG: &str = "kconfiglib==14.1.0";

/// Checks the tree with the `programs` that are built.
pub fn run(programs: &Path) -> Outcome {
    let root = workspace::root();
    let mut lint = Command::new("shellcheck");
    lint.arg("--shell=sh").args(scripts()?).current_dir(&root);
    workspace::run(lint.stdin(Stdio::null()))?;

    let folder = workspace::target_directory()?.join("buildroot");
    let python = python(&folder.join("venv"))?;
    let mut options = Command::new(python);
    options.arg(root.join("buildroot/support/test-kconfig")).arg(&folder);
    workspace::run(options.stdin(Stdio::null()))?;

    for test in ["buildroot/support/test-image", "daemon/init/test"] {
        workspace::run(Command::new(root.join(test)).arg(programs).stdin(Stdio::null()))?;
    }
    Ok(())
}

/// Every shell script of the tree and of the init systems, by its first line. OpenRC's reader of scripts sets variables of
/// its own, which no linter knows.
fn scripts() -> Outcome<Vec<PathBuf>> {
    let root = workspace::root();
    let mut found = Vec::new();
    for path in workspace::files()? {
        if path.starts_with("buildroot") || path.starts_with("daemon/init") {
            let bytes = fs::read(root.join(&path)).unwrap_or_default();
            let first = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
            if first == "#!/bin/sh" || path.extension().is_some_and(|end| end == "sh") {
                found.push(path);
            }
        }
    }
    if found.is_empty() { Err("there is no script for Buildroot".into()) } else { Ok(found) }
}

/// A Python that has the package, which is installed now if it is not there.
fn python(environment: &Path) -> Outcome<PathBuf> {
    let (note, python) = (environment.join("has"), environment.join("bin/python"));
    if fs::read_to_string(&note).is_ok_and(|there| there == KCONFIG) {
        return Ok(python);
    }
    workspace::fresh_directory(environment)?;
    workspace::run(Command::new("python3").args(["-m", "venv"]).arg(environment).stdin(Stdio::null()))?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", KCONFIG]);
    workspace::run(install.stdin(Stdio::null()))?;
    workspace::write(&note, KCONFIG)?;
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_scripts_and_those_of_buildroot_are_linted() {
        let found = scripts().unwrap();
        for wanted in [
            "buildroot/support/check-config",
            "buildroot/board/common/post-image.sh",
            "daemon/init/rust-ota.sysv",
            "daemon/init/supervise",
        ] {
            assert!(found.iter().any(|path| path == Path::new(wanted)), "{wanted}");
        }
    }

    #[test]
    fn the_tree_has_the_version_of_the_project() {
        let external = workspace::read(&workspace::root().join("buildroot/external.mk")).unwrap();
        let line = concat!("RUST_OTA_VERSION = ", env!("CARGO_PKG_VERSION"));
        assert!(external.lines().any(|found| found == line), "{line}");
    }
}
