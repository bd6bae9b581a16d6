//! Our programs, for tests that start them: tests of another package find none in their environment.
//!
//! `cargo xtask test` has built them before it starts the tests, and says where (`ROTA_PROGRAMS`). Without that they are
//! built here, once, when the first test asks.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The client, with what add-ons need.
pub fn client_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| folder(&["rust-ota"]).join("rust-ota"))
}

/// The folder with the client, the host tool, the server, and the tasks with a device of files.
pub fn desk_programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| folder(&["rust-ota", "rust-ota-artifact", "rust-ota-server", "desk"]))
}

/// The folder with the shared and the static C library.
pub fn c_library() -> PathBuf {
    match std::env::var_os("ROTA_PROGRAMS") {
        Some(folder) => folder.into(),
        None => {
            // The program says where the folder is: a library is no executable.
            static FOLDER: OnceLock<PathBuf> = OnceLock::new();
            FOLDER.get_or_init(|| folder(&["rust-ota-ffi", "rust-ota"])).clone()
        }
    }
}

/// Where the programs of `packages` are, which are built unless somebody did.
fn folder(packages: &[&str]) -> PathBuf {
    if let Some(folder) = std::env::var_os("ROTA_PROGRAMS") {
        return PathBuf::from(folder);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--features", "rust-ota/dbus"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command.arg("--message-format=json-render-diagnostics").current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells this test of its package would make build scripts believe that something has changed.
    let of_the_test = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.starts_with(of));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_str().is_some_and(of_the_test)) {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{packages:?} cannot be built");
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().unwrap().parent().unwrap().to_path_buf()
}
