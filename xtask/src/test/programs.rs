//! One build for all, and the test programs of it: those that wait run beside those that compute.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use super::report::Counts;
use crate::{Outcome, workspace};

/// Packages whose tests mostly wait for other processes: more of them than processors run at once.
const WAITING: &[&str] = &["interop", "rust-ota", "rust-ota-server"];

/// What was built.
#[derive(Debug)]
pub struct Built {
    folder: PathBuf,
    tests: Vec<TestProgram>,
}

/// One program with tests.
#[derive(Debug, PartialEq, Eq)]
struct TestProgram {
    package: String,
    /// The file that it is built from, inside of its package.
    source: String,
    /// The folder of the package, where its tests expect to run.
    directory: PathBuf,
    program: PathBuf,
}

impl Built {
    /// Where the programs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of one of them.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds every program and every test with all features: nothing is built again for the demo or the boards.
pub fn build() -> Outcome<Built> {
    let mut command = workspace::cargo();
    command.args(["build", "--workspace", "--all-targets", "--all-features"]);
    let output = workspace::capture(command.arg("--message-format=json-render-diagnostics"))?;
    read_messages(&String::from_utf8_lossy(&output.stdout))
}

/// What cargo says that it built, a line of JSON each.
fn read_messages(text: &str) -> Outcome<Built> {
    let (mut folder, mut tests) = (None, Vec::new());
    for line in text.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let word = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_default();
        let Some(program) = message["executable"].as_str().map(PathBuf::from) else { continue };
        let directory = PathBuf::from(word(&message["manifest_path"])).parent().map(PathBuf::from);
        let directory = directory.ok_or("cargo builds something without a manifest")?;
        if message["profile"]["test"] == true {
            let source = PathBuf::from(word(&message["target"]["src_path"]));
            let source = source.strip_prefix(&directory).unwrap_or(&source).display().to_string();
            let package = package_of(&word(&message["package_id"])).to_owned();
            tests.push(TestProgram { package, source, directory, program });
        } else if message["target"]["kind"][0] == "bin" {
            folder = program.parent().map(PathBuf::from);
        }
    }
    let folder = folder.ok_or("cargo built no program")?;
    // A run that tests nothing must not look like a good one.
    if tests.is_empty() { Err("cargo built no test".into()) } else { Ok(Built { folder, tests }) }
}

/// The name in `path+file:///x/daemon#rust-ota@0.1.0` or in `path+file:///x/xtask#0.1.0`.
fn package_of(id: &str) -> &str {
    let (place, rest) = id.rsplit_once('#').unwrap_or((id, ""));
    match rest.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next().unwrap_or(place),
    }
}

/// Runs all test programs. Those that wait and those that compute are two queues beside each other.
pub fn run_tests(built: &Built, environment: &[(&str, String)], counts: &mut Counts) -> Outcome {
    let logs = workspace::target_directory()?.join("xtask/tests");
    workspace::fresh_directory(&logs)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let waits = |test: &&TestProgram| WAITING.contains(&&*test.package);
    let (waiting, computing): (Vec<&TestProgram>, Vec<&TestProgram>) = built.tests.iter().partition(waits);
    let gathered = Mutex::new((counts, Vec::new()));
    let queue = |tests: Vec<&TestProgram>, threads: usize| {
        for test in tests {
            let log = logs.join(format!("{}-{}.log", test.package, test.source.replace('/', "-")));
            let (counted, outcome) = run_test(built, test, threads, environment, &log);
            let Ok(mut gathered) = gathered.lock() else { return };
            let result = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!(
                "{:<8}{} {}: {} passed, {} failed",
                result, test.package, test.source, counted.passed, counted.failed
            );
            gathered.0.add(counted);
            if let Err(error) = outcome {
                print!("{}", String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()));
                gathered.1.push(error);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| queue(waiting, 2 * cores));
        queue(computing, cores);
    });
    let (examples, examples_outcome) = run_examples();
    println!("what the tests printed is in {}", logs.display());
    let Ok((counts, mut failed)) = gathered.into_inner() else {
        return Err("a queue of tests broke".into());
    };
    counts.add(examples);
    failed.extend(examples_outcome.err());
    if counts.passed == 0 {
        return Err("no test ran".into());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Runs the examples in the documentation.
fn run_examples() -> (Counts, Outcome) {
    let mut command = workspace::cargo();
    command.args(["test", "--doc", "--workspace", "--all-features", "--quiet"]);
    let (counts, text, outcome) = read_run(&mut command);
    let result = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("{result:<8}examples in the documentation: {} passed", counts.passed);
    if outcome.is_err() {
        print!("{text}");
    }
    (counts, outcome)
}

/// Runs one test program in the folder of its package, with its output in `log`.
fn run_test(
    built: &Built,
    test: &TestProgram,
    threads: usize,
    environment: &[(&str, String)],
    log: &Path,
) -> (Counts, Outcome) {
    let mut command = Command::new(&test.program);
    command.arg("--show-output").current_dir(&test.directory).stdin(Stdio::null());
    command.env("CARGO_MANIFEST_DIR", &test.directory).env("RUST_TEST_THREADS", threads.to_string());
    command.env(workspace::BUILT, &built.folder);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let (counts, text, outcome) = read_run(&mut command);
    let written = workspace::write(log, text);
    let name = format!("{} {}", test.package, test.source);
    (counts, outcome.and(written).map_err(|error| format!("{name}: {error}")))
}

/// Runs a program with tests. Returns what it counted and what it said.
fn read_run(command: &mut Command) -> (Counts, String, Outcome) {
    let mut reader = Reader::default();
    let mut text = String::new();
    let outcome = each_line(command, |line| {
        text += line;
        text.push('\n');
        reader.read(line);
    });
    (reader.counts, text, outcome)
}

/// Reads what a test program says.
#[derive(Default)]
struct Reader {
    counts: Counts,
    /// The test whose output is being read.
    current: String,
}

impl Reader {
    fn read(&mut self, line: &str) {
        let counts = &mut self.counts;
        if let Some(result) = line.strip_prefix("test result: ") {
            counts.passed += number_before(result, "passed");
            counts.failed += number_before(result, "failed");
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            name.clone_into(&mut self.current);
        } else if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            counts.skipped.push(format!("{}: {reason}", self.current));
        } else if line.contains(" crash points, ") && line.contains(" states (") {
            counts.cuts += number_before(line, "crash");
            counts.states += number_before(line, "states");
        } else if line.contains(" kills: ") {
            counts.kills += number_before(line, "kills");
        }
    }
}

/// The number before `word` in `ok. 24 passed; 0 failed; ...`.
fn number_before(text: &str, word: &str) -> u64 {
    let words: Vec<&str> = text.split([' ', ';', ',', ':']).collect();
    let found = words.windows(2).find(|pair| pair[1] == word);
    found.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// Runs `command` and shows each line of its standard output to `read`.
pub fn each_line(command: &mut Command, mut read: impl FnMut(&str)) -> Outcome {
    let shown = workspace::shown(command);
    let failed = |error: std::io::Error| format!("cannot run {shown}: {error}");
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(failed)?;
            read(&String::from_utf8_lossy(&line));
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{shown} ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_added_up_and_skips_get_the_name_of_their_test() {
        let mut reader = Reader::default();
        for line in [
            "running 3 tests",
            "---- reads::what_it_wrote stdout ----",
            "SKIPPED: fw_printenv is not installed",
            "test result: ok. 24 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            reader.read(line);
        }
        assert_eq!((reader.counts.passed, reader.counts.failed), (25, 2));
        assert_eq!(reader.counts.skipped, ["reads::what_it_wrote: fw_printenv is not installed"]);
    }

    #[test]
    fn power_cuts_states_and_kills_are_counted() {
        let mut reader = Reader::default();
        for line in [
            "UBoot from A, Commits: 35 crash points, 412 states (17 folded), 900 cases, 0 violations",
            "5 crash points, 8 states (0 folded), 9 cases, 0 violations; not exhaustive, 3 cases drawn from seed 1",
            "power-cut states with one cut: 420",
            "200 kills: 150 deployments succeeded, 50 failed",
        ] {
            reader.read(line);
        }
        assert_eq!((reader.counts.cuts, reader.counts.states, reader.counts.kills), (40, 420, 200));
    }

    #[test]
    fn test_programs_and_the_folder_of_programs_are_read_from_what_cargo_says() {
        let message = |package: &str, source: &str, test: bool, kind: &str, program: Option<&str>| {
            let message = json!({
                "reason": "compiler-artifact",
                "package_id": package,
                "manifest_path": "/x/daemon/Cargo.toml",
                "target": { "kind": [kind], "src_path": source },
                "profile": { "test": test },
                "executable": program,
            });
            format!("{message}\n")
        };
        let id = "path+file:///x/daemon#rust-ota@0.1.0";
        let text = message(id, "/x/daemon/src/lib.rs", false, "lib", None)
            + &message(id, "/x/daemon/src/main.rs", false, "bin", Some("/t/debug/rust-ota"))
            + &message(id, "/x/daemon/tests/main.rs", true, "test", Some("/t/debug/deps/all-1"));
        let built = read_messages(&text).unwrap();
        assert_eq!(built.program("desk"), Path::new("/t/debug/desk"));
        let expected = TestProgram {
            package: "rust-ota".into(),
            source: "tests/main.rs".into(),
            directory: "/x/daemon".into(),
            program: "/t/debug/deps/all-1".into(),
        };
        assert_eq!(built.tests, [expected]);
        assert!(read_messages(&message(id, "x", false, "bin", Some("/t/debug/x"))).is_err());
        assert!(read_messages("").is_err());
        assert_eq!(package_of("path+file:///x/xtask#0.1.0"), "xtask");
    }
}
