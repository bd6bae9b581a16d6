//! The Yocto layer, as far as it can be checked without the sources of a distribution: its rules, every recipe and every
//! mistake under the BitBake of the registry, the linter for each release, the kas files.
//!
//! That the real classes build it is tried by hand, see `docs/yocto.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, workspace};

/// Packages of the Python registry, by version: another version finds other things.
const TOOLS: &[&str] = &["bitbake-setup==2.19.0", "oelint-adv==9.11.2", "kas==5.5"];
/// The releases that the layer names.
const RELEASES: &[&str] = &["scarthgap", "wrynose", "blacksail"];
/// Rules of the linter that cannot hold here.
const SUPPRESSED: &[&str] = &[
    // The project has no address yet that a package could name, and CI asks nobody whether one answers.
    "oelint.var.mandatoryvar.HOMEPAGE",
    "oelint.var.suggestedvar.BUGTRACKER",
    "oelint.vars.homepageping",
    // The core's own generator of crates writes this form.
    "oelint.vars.inconspaces",
    // Variables of this layer, which the rules of the layer know.
    "oelint.vars.mispell.unknown",
    // A mistake in variables has to be told before anything is built.
    "oelint.task.noanonpython",
    // Only the host tool is wanted on a host.
    "oelint.var.bbclassextend",
    // Names of classes, as those of meta-mender.
    "oelint.bbclass.underscores",
];

/// What makes the partitions of an image, in packages that other tests have installed.
pub const IMAGE_TOOLS: &[&str] = &["mkfs.ext4", "debugfs", "mkfs.vfat", "mcopy"];

/// Whether there is a Python that can make a folder of tools; why not, if not.
pub fn python() -> Outcome {
    let mut command = Command::new("python3");
    command.args(["-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 9))"]);
    match command.stdin(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("python3 is older than 3.9, or has no venv (Debian's python3-venv)".into()),
        Err(error) => Err(format!("cannot run python3: {error}")),
    }
}

/// Checks the layer; with the folder of the `programs` that are built also what images are made into.
pub fn run(programs: Option<&Path>) -> Outcome {
    let root = workspace::root();
    let folder = workspace::target_directory()?.join("yocto");
    let layer = root.join("yocto/meta-rust-ota");
    // What Python compiles would lie in the layer, and be a change of what this step looks at.
    let quiet = ("PYTHONDONTWRITEBYTECODE", "1");
    let mut rules = Command::new("python3");
    rules
        .env(quiet.0, quiet.1)
        .args(["-m", "unittest", "discover", "--quiet", "--start-directory", "tests"])
        .current_dir(&layer);
    workspace::run(rules.stdin(Stdio::null()))?;

    let tools = tools(&folder)?;
    let check = root.join("yocto/check");
    let python = |script: &str| {
        let mut command = Command::new(tools.join("python"));
        command.env(quiet.0, quiet.1).arg(check.join(script)).stdin(Stdio::null());
        command
    };
    workspace::run(python("parse.py").arg(folder.join("work")).args(programs))?;
    workspace::run(python("kas_files.py").args(files_of(&layer, &["yml"])?))?;
    let recipes = files_of(&layer, &["bb", "bbappend"])?;
    for release in RELEASES {
        let mut lint = Command::new(tools.join("oelint-adv"));
        lint.args(["--quiet", "--relpaths", "--release", release]).current_dir(&root);
        lint.args(SUPPRESSED.iter().flat_map(|rule| ["--suppress", rule]));
        workspace::run(lint.args(&recipes).stdin(Stdio::null()))?;
    }
    Ok(())
}

/// The files below `layer` whose names end so.
fn files_of(layer: &Path, ends: &[&str]) -> Outcome<Vec<PathBuf>> {
    let found = workspace::files_of(layer)?.into_iter();
    let found =
        found.filter(|path| path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted)));
    let found: Vec<PathBuf> = found.map(|path| layer.join(path)).collect();
    if found.is_empty() { Err(format!("{} has no {}", layer.display(), ends.join(", "))) } else { Ok(found) }
}

/// The folder with the programs of the tools, which are installed now if others are wanted than there are.
fn tools(folder: &Path) -> Outcome<PathBuf> {
    let environment = folder.join("venv");
    let note = environment.join("tools");
    let wanted = TOOLS.join("\n");
    if fs::read_to_string(&note).is_ok_and(|there| there == wanted) {
        return Ok(environment.join("bin"));
    }
    workspace::fresh_directory(&environment)?;
    workspace::run(Command::new("python3").args(["-m", "venv"]).arg(&environment).stdin(Stdio::null()))?;
    let mut install = Command::new(environment.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check"]).args(TOOLS);
    workspace::run(install.stdin(Stdio::null()))?;
    workspace::write(&note, wanted)?;
    Ok(environment.join("bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_releases_that_are_linted_are_those_that_the_layer_names() {
        let conf = workspace::read(&workspace::root().join("yocto/meta-rust-ota/conf/layer.conf")).unwrap();
        let line = format!("LAYERSERIES_COMPAT_rust-ota = \"{}\"", RELEASES.join(" "));
        assert!(conf.lines().any(|found| found == line), "{line}");
    }
}
