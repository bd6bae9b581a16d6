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
    root: PathBuf,
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
    pub fn start(
        root: &Path,
        program: &Path,
        client: &Path,
        extent: &[String],
        seed: &str,
    ) -> Outcome<Boards> {
        for old in [LEFT_OUT, SUMMARY] {
            // Nothing of an earlier run may be taken for this one's.
            let _ = fs::remove_file(root.join(old));
        }
        let folder = root.join("target/xtask");
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
        Ok(Boards { root: root.to_path_buf(), log, end })
    }

    /// Waits for their end and shows what they said.
    pub fn finish(self) -> Ended {
        println!("\n== boards");
        let (outcome, seconds) = self.end.join().unwrap_or_else(|_| (Err("waiting failed".into()), 0.0));
        print!("{}", String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()));
        Ended {
            outcome,
            seconds,
            summary: lines_of(&self.root.join(SUMMARY)),
            left_out: lines_of(&self.root.join(LEFT_OUT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a program that does this.
    fn ended(name: &str, script: &str) -> Ended {
        let root = std::env::temp_dir().join(format!("xtask-boards-{name}-{}", std::process::id()));
        fs::create_dir_all(root.join("target/qemu")).unwrap();
        for old in [SUMMARY, LEFT_OUT] {
            fs::write(root.join(old), "of an earlier run\n").unwrap();
        }
        let program = root.join("board-tests");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let extent = ["--minutes".to_owned(), "15".to_owned()];
        let boards = Boards::start(&root, &program, Path::new("client"), &extent, "ab").unwrap();
        let ended = boards.finish();
        fs::remove_dir_all(root).unwrap();
        ended
    }

    #[test]
    fn what_boards_count_and_leave_out_is_taken_over_and_nothing_of_an_earlier_run() {
        let ended_well = ended(
            "well",
            "echo board: 3 boots, 2 cuts > target/qemu/summary; printf 'x: the time was over\n\n' > target/qemu/left-out",
        );
        assert_eq!(ended_well.outcome, Ok(()));
        assert_eq!(ended_well.summary, ["board: 3 boots, 2 cuts"]);
        assert_eq!(ended_well.left_out, ["x: the time was over"]);
        let ended_badly = ended("badly", "exit 3");
        assert!(ended_badly.outcome.is_err_and(|error| error.contains("--minutes 15")));
        assert!(ended_badly.summary.is_empty() && ended_badly.left_out.is_empty());
    }
}
