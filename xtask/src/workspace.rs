//! Where the workspace is, what is in it, and how its programs are run.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::Outcome;

/// The directory with the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// `cargo` in the root of the workspace: the one that started this task.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// What `cargo metadata` knows about the packages of the workspace.
pub fn metadata() -> Outcome<Value> {
    let output = capture(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// The directory that cargo builds into.
pub fn target_directory() -> Outcome<PathBuf> {
    match metadata()?["target_directory"].as_str() {
        Some(path) => Ok(PathBuf::from(path)),
        None => Err("cargo metadata names no target directory".into()),
    }
}

/// The programs of a desk. Built together they share what they are made of; another selection would be built anew.
const PROGRAMS: [&str; 4] = ["desk", "rust-ota", "rust-ota-server", "rust-ota-artifact"];

/// A folder with programs that are built.
pub const BUILT: &str = "ROTA_PROGRAMS";

/// The folder with the programs of a desk, which are built now if nobody has built them.
pub fn programs() -> Outcome<PathBuf> {
    if let Some(folder) = std::env::var_os(BUILT) {
        return Ok(PathBuf::from(folder));
    }
    let mut command = cargo();
    command.arg("build");
    for package in PROGRAMS {
        command.args(["--package", package]);
    }
    run(&mut command)?;
    Ok(target_directory()?.join("debug"))
}

/// Runs `command` with the terminal's output.
pub fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", shown(command))) }
}

/// Runs a tool. What it prints matters only when it fails.
pub fn run_quietly(command: &mut Command) -> Outcome {
    let shown = format!("{command:?}");
    // Tools for file systems and partitions are not in everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("cannot run {shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{shown} ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim()))
}

/// Runs `command` and keeps what it prints on standard output.
pub fn capture(command: &mut Command) -> Outcome<Output> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{} ended with {}", shown(command), output.status))
    }
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Reads a text file.
pub fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Writes a file whole.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Outcome {
    fs::write(path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Makes `path` an empty directory.
pub fn fresh_directory(path: &Path) -> Outcome {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {}: {error}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))
}

/// Every file of the project, relative to the root, sorted. Build output and hidden directories of tools are left
/// out, so that a tree without version control can be checked too.
pub fn files() -> Outcome<Vec<PathBuf>> {
    files_of(&root())
}

/// The same of the tree at `root`.
pub fn files_of(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
            let path = entry.path();
            let name = entry.file_name();
            let kind =
                entry.file_type().map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
            if kind.is_dir() {
                if name != "target" && name != ".git" {
                    directories.push(path);
                }
            } else if kind.is_file() && name != ".git" && path.extension().is_none_or(|end| end != "swp") {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}
