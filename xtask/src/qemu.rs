//! `cargo xtask qemu`: real bootloaders and kernels under QEMU. The scenarios are in `tests/qemu`; this builds what they need.

use crate::{Outcome, debian, size, workspace};

/// Builds the client as it ships and the board tests, and passes the arguments on.
pub fn run(arguments: &[String]) -> Outcome {
    let may_install = arguments.iter().all(|argument| argument != "--no-install");
    let arguments: Vec<&String> = arguments.iter().filter(|argument| *argument != "--no-install").collect();
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--package", "board-tests", "--"]);
    let needs_nothing = ["list", "help", "--help", "-h"];
    if !arguments.iter().any(|argument| needs_nothing.contains(&argument.as_str())) {
        let tools = debian::prepare_for_boards(may_install);
        if !tools.missing.is_empty() {
            return Err(format!(
                "{} are missing: {}\nthey are in the Debian packages {}",
                tools.missing.join(", "),
                tools.reason,
                debian::packages_for_boards().join(" ")
            ));
        }
        command.arg("--client").arg(size::build(None)?);
    }
    // `shell` is typed into.
    command.stdin(std::process::Stdio::inherit());
    workspace::run(command.args(arguments))
}
