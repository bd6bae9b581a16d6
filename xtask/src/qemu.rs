//! `cargo xtask qemu`: real bootloaders and kernels under QEMU. The scenarios are in `tests/qemu`; this builds what they need.

use std::path::PathBuf;

use xtask::shipped;

use crate::{Outcome, debian, workspace};

/// Builds a client and the board tests, and passes the arguments on.
pub fn run(arguments: &[String]) -> Outcome {
    let may_install = arguments.iter().all(|argument| argument != "--no-install");
    let arguments: Vec<&String> = arguments.iter().filter(|argument| *argument != "--no-install").collect();
    let has = |words: &[&str]| arguments.iter().any(|argument| words.contains(&argument.as_str()));
    let mut command = workspace::cargo();
    // Not quiet: the first time it builds for minutes.
    command.args(["run", "--package", "board-tests", "--"]);
    if !has(&["list", "help", "--help", "-h"]) {
        let tools = debian::prepare_for_boards(may_install);
        if !tools.missing.is_empty() {
            return Err(format!(
                "{} are missing: {}\nthey are in the Debian packages {}",
                tools.missing.join(", "),
                tools.reason,
                debian::packages_for_boards().join(" ")
            ));
        }
        if !has(&["client", "--client"]) {
            command.arg("--client").arg(client(has(&["--all", "shell"]))?);
        }
    }
    // `shell` is typed into.
    command.stdin(std::process::Stdio::inherit());
    workspace::run(command.args(arguments))
}

/// The client as it ships, or, for every change, as the other tests have it: nothing is compiled twice for them, and the boards
/// are given the libraries that it is linked with.
fn client(as_it_ships: bool) -> Outcome<PathBuf> {
    if as_it_ships {
        return shipped::client();
    }
    workspace::run(workspace::cargo().args(["build", "--package", "rust-ota"]))?;
    Ok(workspace::target_directory()?.join("debug").join("rust-ota"))
}
