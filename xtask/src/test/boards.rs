//! The board tests beside the other tests: they compute while those wait.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use super::lines_of;
use crate::{Outcome, workspace};

/// Where they say what they left out, a line each.
const LEFT_OUT: &str = "target/qemu/left-out";
/// Where they say what they counted, a line a board.
const SUMMARY: &str = "target/qemu/summary";

/// Boards that run.
pub struct Boards {
    log: PathBuf,
    end: JoinHandle<(Outcome, f64)>,
}

/// What came of them.
pub struct Ended {
    pub outcome: Outcome,
    pub seconds: f64,
    pub summary: Vec<String>,
    pub left_out: Vec<String>,
}

impl Boards {
    /// Starts `program` with the client that ships, as many machines as there are processors.
    pub fn start(program: &Path, client: &Path, extent: &[String], seed: &str) -> Outcome<Boards> {
        let root = workspace::root();
        for old in [LEFT_OUT, SUMMARY] {
            // Nothing of an earlier run may be taken for this one's.
            let _ = fs::remove_file(root.join(old));
        }
        let folder = workspace::target_directory()?.join("xtask");
        fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let log = folder.join("boards.log");
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", program.display());
        let output = File::create(&log).map_err(failed)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let mut command = Command::new(program);
        command.arg("--client").arg(client).args(extent).args(["--seed", seed, "--jobs", &cores]);
        command.current_dir(root).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(failed)?).stderr(output);
        let shown = workspace::shown(&command);
        println!("\n== boards run beside what follows: {shown}; their log is {}", log.display());
        let start = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let end = std::thread::spawn(move || {
            let outcome = match child.wait() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{shown} ended with {status}")),
                Err(error) => Err(format!("cannot wait for {shown}: {error}")),
            };
            (outcome, start.elapsed().as_secs_f64())
        });
        Ok(Boards { log, end })
    }

    /// Waits for their end and shows what they said.
    pub fn finish(self) -> Ended {
        println!("\n== boards");
        let (outcome, seconds) = self.end.join().unwrap_or_else(|_| (Err("waiting failed".into()), 0.0));
        print!("{}", String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()));
        let root = workspace::root();
        Ended {
            outcome,
            seconds,
            summary: lines_of(&root.join(SUMMARY)),
            left_out: lines_of(&root.join(LEFT_OUT)),
        }
    }
}
