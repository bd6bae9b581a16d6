//! A program that runs beside a task: its lines are events, and it ends with its handle, whatever happens.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use xtask::{Outcome, workspace};

/// Where a line was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// On standard output.
    Output(String),
    /// On standard error.
    Log(String),
}

/// The running program. It is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<Line>,
}

impl Process {
    /// Starts `command`. Everything that it says is also appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Process> {
        let name = workspace::shown(command);
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        let log = File::options().create(true).append(true).open(log).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            let log = log.try_clone().map_err(failed)?;
            pass_on(output, log, sender.clone(), Line::Output);
        }
        if let Some(output) = child.stderr.take() {
            pass_on(output, log, sender, Line::Log);
        }
        Ok(Process { name, child, lines })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it the signal `name`, as a person would.
    pub fn signal(&self, name: &str) -> Outcome {
        workspace::run(Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()]))
    }

    /// What it says next; `None` when it says nothing for so long.
    pub fn next_line(&self, patience: Duration) -> Outcome<Option<Line>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(format!("{} ended unexpectedly", self.name)),
        }
    }

    /// The end of a program that is no longer needed, as that of a machine whose power goes.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pass_on(
    output: impl Read + Send + 'static,
    mut log: File,
    lines: Sender<Line>,
    kind: impl Fn(String) -> Line + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            // The log is for whoever looks after a failure; the story does not depend on it.
            let _ = writeln!(log, "{line}");
            // Nobody listens any more: the pipe still has to be emptied.
            let _ = lines.send(kind(line));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_from_both_streams_and_the_end_is_told() {
        let log = std::env::temp_dir().join(format!("xtask-process-{}", std::process::id()));
        let process =
            Process::start(Command::new("sh").args(["-c", "echo out; echo log >&2"]), &log).unwrap();
        let mut said = Vec::new();
        while let Ok(Some(line)) = process.next_line(Duration::from_secs(10)) {
            said.push(line);
        }
        assert!(said.contains(&Line::Output("out".into())) && said.contains(&Line::Log("log".into())));
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
        std::fs::remove_file(log).unwrap();
    }
}
