//! `cargo xtask test`: everything CI runs. A failed step does not keep the others from running.
//!
//! Everything is built once, with all features: tests and demo use the programs of that build, boards the client that ships.
//! Boards, which compute, run beside tests that wait. What did not run is said at the end, with the reason.

mod boards;
mod buildroot;
mod green;
pub mod manual;
mod packages;
mod programs;
mod report;
mod shipping;
mod yocto;

use std::path::Path;
use std::process::{Command, Stdio};

use xtask::shipped;

use crate::options::Options;
use crate::{Outcome, debian, size, tidy, workspace};
use boards::Boards;
use green::{Green, Inputs};
use programs::Built;
use report::Report;

/// The oldest compiler that is supported: `rust-version` of the workspace.
const OLDEST_RUST: &str = "1.85";

/// How long new board tests are begun on a change.
const BOARD_MINUTES: u32 = 10;
/// How a line ends that says what was left out for want of time.
const OUT_OF_TIME: &str = "the time was over";

/// Where random choices of tests start, in hexadecimal digits.
const SEED: &str = "ROTA_SEED";
/// Larger bounds for tests that draw cases.
const LONG: &str = "ROTA_LONG";

/// What a demo says in which everything went as it should.
const DEMO_END: &str = "demo: every step ended as expected";

/// What `--help` says.
pub const HELP: &str = "\
Usage: cargo xtask test [--quick | --all] [--seed HEX] [--no-install]

Format, clippy, house rules, all tests, each feature alone, documentation, the demo, the page in a browser, the size of what
ships, boards under QEMU, the oldest compiler. Steps whose inputs are those of their last good run on this machine are left out, and said.

  --quick       stop after the tests
  --all         the long run, for a release: nothing is left out that could run, more kills, more power cuts
  --seed HEX    where random choices start; by itself the commit says it (also as ROTA_SEED)
  --no-install  leave the machine's packages alone

Debian packages of tools are installed where that is allowed. The daemons of others are never installed: they are unpacked
into target/peers and target/postgres. The S3 server of the tests is built into target/s3.
";

/// How much runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// To the end of the tests.
    Quick,
    /// What a change needs.
    Change,
    /// What a release needs.
    All,
}

/// Runs the steps and prints what came of them.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let (quick, all) = (options.flag("--quick"), options.flag("--all"));
    let may_install = !options.flag("--no-install");
    let asked_seed = options.value("--seed")?.map(str::to_owned).or_else(|| std::env::var(SEED).ok());
    options.finish()?;
    let extent = match (quick, all) {
        (false, false) => Extent::Change,
        (true, false) => Extent::Quick,
        (false, true) => Extent::All,
        (true, true) => return Err("--quick and --all exclude each other".into()),
    };
    let seed = seed(asked_seed, head_commit())?;
    println!("seed {seed}: cargo xtask test --seed {seed} draws the same cases");

    let mut report = Report::default();
    let green = Green::open(extent == Extent::All)?;
    let environment = prepare(may_install, &seed, extent, &mut report);
    let has_clippy = lint_steps(&mut report);
    report.step("tidy", || tidy::run(&[]));
    let built = report.result_of("build", programs::build);
    match &built {
        None => report.leave_out("tests, demo, buildroot, boards: the build failed"),
        Some(built) if extent == Extent::Quick => {
            report.step_with("tests", |counts| programs::run_tests(built, &environment, counts));
        }
        Some(built) => {
            let boards = start_boards(&green, &mut report, built, extent, &seed, may_install);
            report.step_with("tests", |counts| programs::run_tests(built, &environment, counts));
            report.step("demo", || demo(built));
            check_buildroot(&green, &mut report, built, may_install);
            if let Some(boards) = boards {
                finish_boards(boards, &green, &mut report);
            }
            // Behind the boards: a browser waits 30 seconds for what it is to see.
            match crate::page::prepare(may_install) {
                Ok(modules) => report.step("page", || crate::page::test(&modules, built.folder(), None, &[])),
                Err(reason) => report.leave_out(&format!("the page in a browser: {reason}")),
            }
        }
    }
    if extent == Extent::Quick {
        report.leave_out(
            "features, manual, documentation, Yocto layer, demo, page, buildroot, size, boards, oldest compiler: --quick was given",
        );
    } else {
        if has_clippy {
            unless_green(&green, &mut report, "features", Inputs::Conditions, features);
        } else {
            report.leave_out("features: there is no clippy");
        }
        manual::step(&green, &mut report, may_install);
        unless_green(&green, &mut report, "documentation", Inputs::Documentation, documentation);
        yocto_layer(&green, &mut report, built.as_ref());
        unless_green(&green, &mut report, "packages", Inputs::Conditions, packages::pack);
        if has_toolchain(OLDEST_RUST) {
            unless_green(&green, &mut report, "oldest compiler", Inputs::Conditions, check_with_oldest);
        } else {
            report.leave_out(&format!("oldest compiler: no toolchain {OLDEST_RUST} is installed"));
        }
        shipping::steps(extent, &mut report);
    }
    report.print();
    report.outcome()
}

/// Looks for tools and peers. Returns what tests are told in their environment.
fn prepare(
    may_install: bool,
    seed: &str,
    extent: Extent,
    report: &mut Report,
) -> Vec<(&'static str, String)> {
    let mut environment = vec![(SEED, seed.to_owned())];
    if extent == Extent::All {
        environment.push((LONG, "1".to_owned()));
    }
    let tools = debian::prepare(may_install);
    if !tools.missing.is_empty() {
        report.leave_out(&format!("tests with {}: {}", tools.missing.join(", "), tools.reason));
    }
    match debian::prepare_peers(may_install) {
        Ok(folder) => {
            environment.push((xtask::peers::FOLDER, folder.display().to_string()));
            if tools.missing.is_empty() {
                environment.push(("ROTA_REQUIRE_TOOLS", "1".to_owned()));
            }
        }
        Err(reason) => report.leave_out(&format!("tests with the Mender client: {reason}")),
    }
    match xtask::s3::prepare(may_install) {
        Ok(program) => environment.push((xtask::s3::PROGRAM, program.display().to_string())),
        Err(reason) => report.leave_out(&format!("tests with an S3 server: {reason}")),
    }
    match xtask::smtp::prepare(may_install) {
        Ok(python) => environment.push((xtask::smtp::PROGRAM, python.display().to_string())),
        Err(reason) => report.leave_out(&format!("tests with an SMTP server: {reason}")),
    }
    match debian::prepare_postgres(may_install) {
        Ok(programs) => environment.push((xtask::peers::POSTGRES_FOLDER, programs.display().to_string())),
        Err(reason) => report.leave_out(&format!("tests with PostgreSQL: {reason}")),
    }
    environment
}

/// Format and clippy, where the toolchain has them. Returns whether there is a clippy.
fn lint_steps(report: &mut Report) -> bool {
    let format = without_component("rustfmt", component_answers("fmt"));
    match format {
        None => {
            report.step("format", || workspace::run(workspace::cargo().args(["fmt", "--all", "--check"])))
        }
        Some(reason) => report.leave_out(&format!("format: {reason}")),
    }
    let lint = without_component("clippy", component_answers("clippy"));
    let has_clippy = lint.is_none();
    match lint {
        None => report.step("clippy", || clippy(&["--workspace", "--all-targets", "--all-features"])),
        Some(reason) => report.leave_out(&format!("clippy: {reason}")),
    }
    has_clippy
}

/// Whether `cargo COMMAND --version` succeeds; why not, if not.
fn component_answers(command: &str) -> Outcome {
    let output = workspace::cargo().args([command, "--version"]).output();
    let output = output.map_err(|error| format!("cannot run cargo {command}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("it fails without a word").trim_start_matches("error: ").to_owned())
}

/// Why a step that needs `component` is left out, if it is.
fn without_component(component: &str, answer: Outcome) -> Option<String> {
    let said = answer.err()?;
    Some(format!("this toolchain has no {component} ({said}); rustup component add {component}"))
}

/// The digits that random choices start with: those that were asked for, else the first of the commit.
fn seed(asked: Option<String>, commit: Option<String>) -> Outcome<String> {
    let Some(asked) = asked else {
        let commit = commit.unwrap_or_else(|| "1".to_owned());
        return Ok(commit.chars().take(16).collect());
    };
    match u64::from_str_radix(&asked, 16) {
        Ok(_) => Ok(asked),
        Err(_) => Err(format!("a seed is 1 to 16 hexadecimal digits, not {asked:?}")),
    }
}

fn head_commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["rev-parse", "HEAD"]).current_dir(workspace::root()).stdin(Stdio::null());
    let output = git.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a step unless its inputs are those of its last good run, and notes it if it goes well.
fn unless_green(
    green: &Green,
    report: &mut Report,
    step: &'static str,
    inputs: Inputs,
    act: impl FnOnce() -> Outcome,
) {
    if green.knows(step, inputs) {
        report.leave_out(&format!("{step}: nothing that it looks at changed since its last good run here"));
        return;
    }
    report.step(step, || {
        act()?;
        green.remember(step, inputs)
    });
}

/// Holds the promises of sizes: that of this machine's processor for every change, the others in the long run.
fn size_step(green: &Green, report: &mut Report) {
    const STEP: &str = "size";
    if green.knows(STEP, Inputs::Client) {
        report.leave_out(&format!("{STEP}: nothing that it looks at changed since its last good run here"));
        return;
    }
    match report.result_of(STEP, size::check_here) {
        Some(None) => {
            if let Err(error) = green.remember(STEP, Inputs::Client) {
                println!("{STEP}: {error}");
            }
        }
        // Not remembered: the next run may get the compilers.
        Some(Some(reason)) => report.leave_out(&format!("size of the build with musl: {reason}")),
        None => {}
    }
}

/// The checks of the Yocto layer, with what there is for them.
fn yocto_layer(green: &Green, report: &mut Report, built: Option<&Built>) {
    if let Err(reason) = yocto::python() {
        report.leave_out(&format!("Yocto layer: {reason}"));
        return;
    }
    let missing: Vec<&str> = yocto::IMAGE_TOOLS.iter().copied().filter(|tool| !debian::has(tool)).collect();
    let programs = if missing.is_empty() { built.map(Built::folder) } else { None };
    if programs.is_none() {
        let why =
            if missing.is_empty() { "the build failed".into() } else { missing.join(", ") + " are missing" };
        report.leave_out(&format!("what the Yocto layer makes of an image: {why}"));
    }
    unless_green(green, report, "Yocto layer", Inputs::Yocto, || yocto::run(programs));
}

/// Builds what ships, judges its size, and starts the boards with it; both only when something they look at changed.
fn start_boards(
    green: &Green,
    report: &mut Report,
    built: &Built,
    extent: Extent,
    seed: &str,
    may_install: bool,
) -> Option<Boards> {
    size_step(green, report);
    if green.knows("boards", Inputs::Boards) {
        let what = "only documents, server, host tool, tasks or tests of others changed since their last good run here";
        report.leave_out(&format!("boards: {what}"));
        return None;
    }
    let tools = debian::prepare_for_boards(may_install);
    if !tools.missing.is_empty() {
        report.leave_out(&format!("boards: {} are missing: {}", tools.missing.join(", "), tools.reason));
        return None;
    }
    let extent = match extent {
        Extent::All => vec!["--all".to_owned()],
        Extent::Quick | Extent::Change => vec!["--minutes".to_owned(), BOARD_MINUTES.to_string()],
    };
    let started = shipped::client().and_then(|client| {
        let program = built.program("board-tests");
        Boards::start(&workspace::root(), &program, &client, &extent, seed)
    });
    match started {
        Ok(boards) => Some(boards),
        Err(error) => {
            report.step("boards", || Err(error));
            None
        }
    }
}

/// The external tree for Buildroot, where its tools are there.
fn check_buildroot(green: &Green, report: &mut Report, built: &Built, may_install: bool) {
    let tools = debian::prepare_for_buildroot(may_install);
    if tools.missing.is_empty() {
        unless_green(green, report, "buildroot", Inputs::Buildroot, || buildroot::run(built.folder()));
    } else {
        report.leave_out(&format!("buildroot: {} are missing: {}", tools.missing.join(", "), tools.reason));
    }
}

/// Waits for the boards, shows what they said, and takes over what they counted and left out.
fn finish_boards(boards: Boards, green: &Green, report: &mut Report) {
    let ended = boards.finish();
    report.add("boards", ended.outcome, ended.seconds);
    report.counted.extend(ended.summary);
    // A run that ran out of time has not tried everything: the next one goes on.
    if report.is_ok("boards") && !ended.left_out.iter().any(|line| line.contains(OUT_OF_TIME)) {
        if let Err(error) = green.remember("boards", Inputs::Boards) {
            println!("boards: {error}");
        }
    }
    for line in ended.left_out {
        report.leave_out(&format!("board test {line}"));
    }
}

fn clippy(arguments: &[&str]) -> Outcome {
    workspace::run(workspace::cargo().arg("clippy").args(arguments).args(["--", "-D", "warnings"]))
}

/// The package whose features the others only pass on.
const FORMAT: &str = "rust-ota-artifact-format";

/// Every feature alone, and none: each must build without a warning.
fn features() -> Outcome {
    clippy(&["--package", "rust-ota", "--no-default-features"])?;
    clippy(&["--package", FORMAT, "--no-default-features"])?;
    for feature in features_of(FORMAT)? {
        clippy(&["--package", FORMAT, "--no-default-features", "--features", &feature])?;
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

/// With the features of clippy, whose dependencies are there.
fn documentation() -> Outcome {
    let mut pages = workspace::cargo();
    pages.args(["doc", "--workspace", "--no-deps", "--all-features"]).env("RUSTDOCFLAGS", "-D warnings");
    workspace::run(&mut pages)
}

/// As a newcomer starts it, with the programs that are built.
fn demo(built: &Built) -> Outcome {
    let mut command = Command::new(built.program("demo"));
    command.env(workspace::BUILT, built.folder()).stdin(Stdio::null());
    let mut told = false;
    programs::each_line(&mut command, |line| {
        println!("{line}");
        told |= line == DEMO_END;
    })?;
    if told { Ok(()) } else { Err(format!("the demo does not say {DEMO_END:?}")) }
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

/// Reads a file of lines that may not be there.
fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_without_a_component_leaves_its_step_out_and_says_how_to_get_it() {
        assert_eq!(without_component("clippy", Ok(())), None);
        let reason = without_component("clippy", Err("no such command: `clippy`".into())).unwrap();
        assert!(reason.contains("no such command") && reason.ends_with("rustup component add clippy"));
    }

    #[test]
    fn a_command_that_cargo_does_not_know_gives_the_reason() {
        let reason = component_answers("surely-not-a-command").unwrap_err();
        assert!(reason.starts_with("no such command"), "{reason}");
    }

    #[test]
    fn the_seed_is_the_one_asked_for_or_that_of_the_commit() {
        let commit = Some("9f8e7d6c5b4a39281706f5e4d3c2b1a0ffffffff".to_owned());
        assert_eq!(seed(None, commit.clone()), Ok("9f8e7d6c5b4a3928".into()));
        assert_eq!(seed(Some("ab".into()), commit), Ok("ab".into()));
        assert_eq!(seed(None, None), Ok("1".into()));
        assert!(seed(Some("x".into()), None).is_err());
        assert!(seed(Some("11112222333344445".into()), None).is_err());
    }

    #[test]
    fn quick_and_all_exclude_each_other() {
        assert!(run(&["--quick".into(), "--all".into()]).is_err());
    }
}
