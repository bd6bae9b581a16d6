//! `cargo xtask test`: everything CI runs, in its order. A failed step does not keep the others from running.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::options::Options;
use crate::{Outcome, debian, demo, qemu, size, tidy, workspace};

/// The oldest compiler that is supported: `rust-version` of the workspace.
const OLDEST_RUST: &str = "1.85";

/// How long new board tests are begun: with what was begun last, and a first build of what they need, the whole stays
/// within the time that CI has.
const BOARD_MINUTES: u32 = 40;

/// Where the board tests say what they left out, a line each.
const BOARDS_LEFT_OUT: &str = "target/qemu/left-out";

/// Runs the steps and prints what came of them.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let quick = options.flag("--quick");
    let may_install = !options.flag("--no-install");
    options.finish()?;

    let mut report = Report::default();
    let tools = debian::prepare(may_install);
    if !tools.missing.is_empty() {
        report.left_out.push(format!("tests with {}: {}", tools.missing.join(", "), tools.reason));
    }
    report.step("format", || workspace::run(workspace::cargo().args(["fmt", "--all", "--check"])));
    report.step("clippy", || clippy(&["--workspace", "--all-targets", "--all-features"]));
    report.step("tidy", || tidy::run(&[]));
    let mut tests = Tests::default();
    report.step("tests", || tests.run(tools.missing.is_empty()));
    if quick {
        report
            .left_out
            .push("features, documentation, demo, size, boards, oldest compiler: --quick was given".into());
    } else {
        report.step("features", features);
        report.step("documentation", documentation);
        report.step("demo", run_demo);
        report.step("size", || size::run(&[]));
        let tools = debian::prepare_for_boards(may_install);
        if tools.missing.is_empty() {
            report.step("boards", || qemu::run(&["--minutes".to_owned(), BOARD_MINUTES.to_string()]));
            let left_out = std::fs::read_to_string(workspace::root().join(BOARDS_LEFT_OUT));
            report
                .left_out
                .extend(left_out.unwrap_or_default().lines().map(|line| format!("board test {line}")));
        } else {
            report.left_out.push(format!(
                "boards: {} are missing: {}",
                tools.missing.join(", "),
                tools.reason
            ));
        }
        if has_toolchain(OLDEST_RUST) {
            report.step("oldest compiler", check_with_oldest);
        } else {
            report.left_out.push(format!("oldest compiler: no toolchain {OLDEST_RUST} is installed"));
        }
    }
    report.left_out.extend(tests.skipped);
    report.print();
    println!("\ntotal: {} passed, {} failed", tests.passed, tests.failed);
    report.outcome()
}

/// What came of the steps.
#[derive(Default)]
struct Report {
    steps: Vec<(&'static str, Outcome, f64)>,
    /// What did not run, and why.
    left_out: Vec<String>,
}

impl Report {
    fn step(&mut self, name: &'static str, act: impl FnOnce() -> Outcome) {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = act();
        let seconds = start.elapsed().as_secs_f64();
        match &outcome {
            Ok(()) => println!("== {name}: ok, {seconds:.1} s"),
            Err(error) => println!("== {name}: FAILED, {seconds:.1} s: {error}"),
        }
        self.steps.push((name, outcome, seconds));
    }

    fn print(&self) {
        println!("\n{:<18}{:<8}{:>8}", "step", "result", "seconds");
        for (name, outcome, seconds) in &self.steps {
            let result = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<18}{result:<8}{seconds:>8.1}");
        }
        for line in &self.left_out {
            println!("left out: {line}");
        }
    }

    fn outcome(&self) -> Outcome {
        let failed: Vec<&str> =
            self.steps.iter().filter(|(_, outcome, _)| outcome.is_err()).map(|(name, _, _)| *name).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }
}

fn clippy(arguments: &[&str]) -> Outcome {
    workspace::run(workspace::cargo().arg("clippy").args(arguments).args(["--", "-D", "warnings"]))
}

/// What `cargo test` said.
#[derive(Default)]
struct Tests {
    passed: u64,
    failed: u64,
    /// Tests that found something missing, with their reason.
    skipped: Vec<String>,
    /// The test whose output is being read.
    current: String,
}

impl Tests {
    fn run(&mut self, require_tools: bool) -> Outcome {
        let mut command = workspace::cargo();
        command.args(["test", "--workspace", "--all-features", "--no-fail-fast", "--", "--show-output"]);
        if require_tools {
            command.env("ROTA_REQUIRE_TOOLS", "1");
        }
        each_line(&mut command, |line| self.read(line))?;
        // A run that tested nothing must not look like a good one.
        if self.passed == 0 { Err("no test ran".into()) } else { Ok(()) }
    }

    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.current);
        } else if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            self.skipped.push(format!("{}: {reason}", self.current));
        }
    }
}

/// The number before `word` in `ok. 24 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> u64 {
    let words: Vec<&str> = counts.split([' ', ';']).collect();
    let found = words.windows(2).find(|pair| pair[1] == word);
    found.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// Runs `command`, passes its standard output on line by line, and shows each line to `read`.
fn each_line(command: &mut Command, mut read: impl FnMut(&str)) -> Outcome {
    let shown = workspace::shown(command);
    let failed = |error: std::io::Error| format!("cannot run {shown}: {error}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            read(&line);
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{shown} ended with {status}")) }
}

/// Every feature alone, and none: each must build without a warning.
fn features() -> Outcome {
    clippy(&["--package", "rust-ota", "--no-default-features"])?;
    clippy(&["--package", "client-core", "--no-default-features"])?;
    for feature in features_of("client-core")? {
        clippy(&["--package", "client-core", "--no-default-features", "--features", &feature])?;
    }
    Ok(())
}

fn features_of(package: &str) -> Outcome<Vec<String>> {
    let metadata = workspace::metadata()?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let found = packages.iter().find(|found| found["name"] == package);
    let features = found.and_then(|found| found["features"].as_object());
    let features = features.ok_or_else(|| format!("cargo metadata has no features of {package}"))?;
    Ok(features.keys().filter(|feature| *feature != "default").cloned().collect())
}

fn documentation() -> Outcome {
    let mut command = workspace::cargo();
    workspace::run(command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// As a newcomer starts it.
fn run_demo() -> Outcome {
    let this = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut last = String::new();
    each_line(Command::new(this).arg("demo").stdin(Stdio::null()), |line| line.clone_into(&mut last))?;
    if last == demo::LAST_LINE { Ok(()) } else { Err(format!("the demo ended with {last:?}")) }
}

fn has_toolchain(version: &str) -> bool {
    let list = Command::new("rustup").args(["toolchain", "list"]).stdin(Stdio::null()).output();
    list.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with(version))
    })
}

fn check_with_oldest() -> Outcome {
    let mut command = Command::new("rustup");
    // Not the compiler that runs this task.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command.current_dir(workspace::root()).stdin(Stdio::null());
    // With all features: they bring the dependencies that move on first.
    command.args(["run", OLDEST_RUST, "cargo", "check", "--workspace", "--all-targets", "--all-features"]);
    workspace::run(command.arg("--target-dir").arg(workspace::target_directory()?.join("oldest")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_and_skips_get_the_name_of_their_test() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "---- reads::what_it_wrote stdout ----",
            "SKIPPED: fw_printenv is not installed",
            "test result: ok. 24 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tests.read(line);
        }
        assert_eq!((tests.passed, tests.failed), (25, 2));
        assert_eq!(tests.skipped, ["reads::what_it_wrote: fw_printenv is not installed"]);
    }

    #[test]
    fn one_failed_step_fails_the_whole_and_the_others_run() {
        let mut report = Report::default();
        report.step("one", || Err("broken".into()));
        report.step("two", || Ok(()));
        assert_eq!(report.outcome(), Err("failed: one".into()));
        assert_eq!(report.steps.len(), 2);
    }
}
