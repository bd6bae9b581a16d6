//! `cargo xtask qemu`: real bootloaders and kernels under QEMU. The scenarios are in `tests/qemu`; this builds what they need.

use xtask::shipped;

use crate::{Outcome, debian, workspace};

/// Builds the client as it ships and the board tests, and passes the arguments on. A build for developers is four times as large, and the
/// root file systems have no room for it.
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
            command.arg("--client").arg(shipped::client()?);
        }
    }
    // `shell` is typed into.
    command.stdin(std::process::Stdio::inherit());
    workspace::run(command.args(arguments))
}
