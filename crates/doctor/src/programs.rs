//! State scripts and update modules: whether they would be run.

use std::path::{Path, PathBuf};

use client_core::artifact::{is_root_script_name, is_script_name};
use device::compose::Setup;
use linux::state_scripts;

use crate::finding::{self as check, Finding, add};
use crate::world::World;

/// Files of a directory that are looked at.
const FILES: usize = 256;
/// Findings of one kind.
const FINDINGS: usize = 8;
/// Says which version of the protocol the scripts of a directory are for.
const VERSION: &str = "version";

/// Whether a script may have a name.
type IsName = fn(&str) -> bool;

/// The files.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Each script, whether it has the name of one, and whether it can be run.
    pub(crate) scripts: Vec<(PathBuf, bool, bool)>,
    /// What is wrong with the versions of the directories.
    pub(crate) versions: Vec<String>,
    pub(crate) modules: Vec<(PathBuf, bool)>,
}

pub(crate) fn gather(setup: &Setup, world: &World) -> Facts {
    let files = |directory: &Path| {
        let names = world.names_in(directory).into_iter().take(FILES);
        let files: Vec<PathBuf> =
            names.map(|name| directory.join(name)).filter(|path| path.is_file()).collect();
        files
    };
    let (mut scripts, mut versions) = (Vec::new(), Vec::new());
    let [of_root, of_artifact] = setup.script_directories();
    for (directory, is_name) in [(of_root, is_root_script_name as IsName), (of_artifact, is_script_name)] {
        let version = directory.join(VERSION);
        versions.extend(state_scripts::check_version(&version).err().map(|error| error.to_string()));
        for path in files(&directory).into_iter().filter(|path| *path != version) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let (is_script, is_executable) = (is_name(&name), state_scripts::is_executable(&path));
            scripts.push((path, is_script, is_executable));
        }
    }
    let modules = files(&setup.module_directory());
    let modules = modules.into_iter().map(|path| {
        let is_executable = state_scripts::is_executable(&path);
        (path, is_executable)
    });
    Facts { scripts, versions, modules: modules.collect() }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut said: Vec<Finding> =
        facts.versions.iter().map(|error| check::SCRIPT_VERSION.found(format_args!("{error}"))).collect();
    let names = facts.scripts.iter().filter(|(_, is_script, _)| !is_script).take(FINDINGS);
    said.extend(names.map(|(path, ..)| {
        check::SCRIPT_NAME.found(format_args!("{} is not the name of a state script", path.display()))
    }));
    let scripts = facts.scripts.iter().filter(|(_, is_script, is_executable)| *is_script && !is_executable);
    said.extend(scripts.take(FINDINGS).map(|(path, ..)| {
        check::SCRIPT_NOT_EXECUTABLE.found(format_args!("{} is not executable", path.display()))
    }));
    let modules = facts.modules.iter().filter(|(_, is_executable)| !is_executable).take(FINDINGS);
    said.extend(modules.map(|(path, _)| {
        check::MODULE_NOT_EXECUTABLE.found(format_args!("{} is not executable", path.display()))
    }));
    let usable = facts.modules.iter().filter(|(_, is_executable)| *is_executable);
    let usable: Vec<String> = usable
        .map(|(path, _)| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .take(12)
        .collect();
    if !usable.is_empty() {
        add(&mut said, &check::MODULES, format_args!("update modules: {}", usable.join(", ")));
    }
    said
}
