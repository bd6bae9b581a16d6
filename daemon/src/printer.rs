//! What the command line prints: the lines that scripts expect on standard output, progress on standard error, or one
//! JSON object.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client_core::deploy::{DeployError, Notice, Observer, Status, Summary};
use client_core::install::{Account, Cost, Progress, WriteStatistics};
use client_core::text::{printable_json, printable_lines};
use serde_json::{Value, json};

/// Time between two updates of the bar on a terminal.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two plain lines elsewhere.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Prints what happens as it happens.
pub struct Printer {
    json: bool,
    terminal: bool,
    phase: Phase,
    started: Instant,
    shown: Option<Instant>,
    /// Whether a bar without a line end is on the screen.
    bar: bool,
    write_seconds: Option<f64>,
    verify_seconds: Option<f64>,
    statistics: Option<WriteStatistics>,
    cost: Option<Cost>,
    account: Option<Account>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Writing,
    Verifying,
}

impl Printer {
    /// With `json`, nothing but the final object goes to standard output.
    pub fn new(json: bool) -> Printer {
        Printer {
            json,
            terminal: io::stderr().is_terminal(),
            phase: Phase::Idle,
            started: Instant::now(),
            shown: None,
            bar: false,
            write_seconds: None,
            verify_seconds: None,
            statistics: None,
            cost: None,
            account: None,
        }
    }

    /// The final object of `--json`.
    pub fn print_summary(&self, command: &str, exit_code: u8, summary: &Summary) {
        let mut object = json!({
            "command": command,
            "status": summary.status.name(),
            "success": summary.success,
            "needs_reboot": summary.needs_reboot,
            "exit_code": exit_code,
        });
        if let Some(error) = &summary.error {
            object["error"] = sentence(error).into();
        }
        if let Some(account) = self.account {
            object["cost"] = json!(self.cost);
            object["download"] = json!(account);
        }
        if let Some(statistics) = self.statistics {
            object["image"] = json!({
                "total_bytes": statistics.total_bytes,
                "written_bytes": statistics.written_bytes,
                "skipped_bytes": statistics.skipped_bytes,
                "syncs": statistics.syncs,
                "write_seconds": self.write_seconds,
                "verify_seconds": self.verify_seconds,
            });
        }
        self.print_json(&object);
    }

    /// The final object of `--json` for a command that could not be carried out.
    pub fn print_error(&self, command: &str, exit_code: u8, error: &str) {
        self.print_json(&json!({
            "command": command,
            "status": Status::NotModified.name(),
            "success": false,
            "needs_reboot": false,
            "exit_code": exit_code,
            "error": error,
        }));
    }

    /// Prints `object` on one line if JSON was asked for.
    pub fn print_json(&self, object: &Value) {
        if self.json {
            print_json(object);
        }
    }

    fn progress(&mut self, phase: Phase, done: u64, total: u64) {
        let now = Instant::now();
        if self.phase != phase {
            if phase == Phase::Verifying {
                // Writing ends with the sync, not with the last write.
                self.write_seconds = Some((now - self.started).as_secs_f64());
                self.started = now;
            }
            self.phase = phase;
            self.shown = None;
        }
        let interval = if self.terminal { BAR_INTERVAL } else { LINE_INTERVAL };
        let due = match self.shown {
            None => self.terminal,
            Some(shown) => now - shown >= interval,
        };
        if self.shown.is_none() {
            self.shown = Some(now);
        }
        if !(due || done == total) {
            return;
        }
        self.shown = Some(now);
        let elapsed = (now - self.started).as_secs_f64();
        let verb = if phase == Phase::Writing { "writing" } else { "verifying" };
        let text = progress_text(verb, done, total, elapsed);
        if self.terminal {
            let end = if done == total { "\n" } else { "" };
            eprint_text(&format!("\r{} {text}\x1b[K{end}", bar(done, total)));
            self.bar = done != total;
        } else {
            eprint_text(&format!("{text}\n"));
        }
        if (phase, done) == (Phase::Verifying, total) {
            self.verify_seconds = Some(elapsed);
        }
    }
}

impl Progress for Printer {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress(Phase::Writing, done_bytes, total_bytes);
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress(Phase::Verifying, done_bytes, total_bytes);
    }

    fn will_cost(&mut self, cost: &Cost) {
        self.cost = Some(*cost);
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        log::info!(
            "{} bytes installed and verified: {} written, {} already there, {} syncs",
            statistics.total_bytes,
            statistics.written_bytes,
            statistics.skipped_bytes,
            statistics.syncs
        );
        self.statistics = Some(*statistics);
    }
}

impl Observer for Printer {
    fn did_cost(&mut self, account: &Account) {
        self.account = Some(*account);
    }

    fn notice(&mut self, notice: Notice) {
        if self.bar {
            eprint_text("\n");
            self.bar = false;
        }
        if notice == Notice::Installing {
            self.started = Instant::now();
        }
        if self.json {
            return;
        }
        for line in lines(notice) {
            print_line(line);
        }
    }
}

/// The lines of the Mender client 5.x (docs/spec/client-behaviour.md, "Lines and exit codes of the commands").
fn lines(notice: Notice) -> &'static [&'static str] {
    match notice {
        Notice::Installing => &["Installing artifact..."],
        Notice::EmptyPayload => &["Artifact with empty payload. Committing immediately."],
        Notice::Streamed => &["Streamed to storage, but not installed/enabled."],
        Notice::InstalledNotCommitted => &[
            "Installed, but not committed.",
            "Use 'commit' to update, or 'rollback' to roll back the update.",
        ],
        Notice::NoRollbackCommitting => &["Update Module doesn't support rollback. Committing immediately."],
        Notice::InstalledAndCommitted => &["Installed and committed."],
        Notice::RebootRequested => &["At least one payload requested a reboot of the device it updated."],
        Notice::StreamingFailed => &["Streaming failed."],
        Notice::SystemNotModified => &["System not modified."],
        Notice::NoUpdateModule => &["System not modified. Cleanup failed."],
        Notice::InstallationFailed => &["Installation failed."],
        Notice::CommittingFailed => &["Committing failed."],
        Notice::RolledBack => &["Rolled back."],
        Notice::NoRollback => {
            &["Update Module does not support rollback. System may be in an inconsistent state."]
        }
        Notice::RollbackFailed => &["Rollback failed. System may be in an inconsistent state."],
        Notice::Committed => &["Committed."],
        Notice::PostCommitFailed => &["One or more post-commit steps failed."],
        Notice::CleanupFailed => &["Cleanup failed."],
        Notice::CleanedUp => &["Cleaned up."],
        Notice::NothingInProgress => &["No update in progress."],
        // A notice this program does not know yet has no line that a script could expect.
        _ => &[],
    }
}

const ALREADY_IN_PROGRESS: &str = "Update already in progress. Please commit or roll back first";
const CANNOT_COMMIT: &str = "Cannot commit from this state. Make sure that the `install` command has run \
                             successfully and the device is expecting a commit.";
const CANNOT_ROLL_BACK: &str = "Cannot roll back from this state. Use `resume` to complete the current install in \
                                order to start a new one.";

/// Why a command could not be carried out: in the words that scripts expect, where they expect some.
pub fn sentence(error: &DeployError) -> String {
    let expected = [
        (matches!(error, DeployError::AlreadyInProgress), ALREADY_IN_PROGRESS),
        (matches!(error, DeployError::CannotCommitHere), CANNOT_COMMIT),
        (matches!(error, DeployError::CannotRollBackHere), CANNOT_ROLL_BACK),
    ];
    let words = expected.into_iter().find_map(|(is_it, words)| is_it.then_some(words));
    words.map_or_else(|| error.to_string(), str::to_owned)
}

/// Whether a line could not be printed.
static UNPRINTED: AtomicBool = AtomicBool::new(false);

/// Whether everything that was to be printed on standard output was.
pub fn all_was_printed() -> bool {
    !UNPRINTED.load(Ordering::Relaxed)
}

/// Prints lines on standard output. Whoever puts text from outside in one makes it printable first: here its line ends
/// cannot be told from ours any more.
pub fn print_line(line: &str) {
    print_all(&printable_lines(line));
}

/// Prints `object` as one line on standard output.
pub fn print_json(object: &Value) {
    print_all(&printable_json(&object.to_string()));
}

/// What comes of a line that cannot be printed is for the end of the program: work that was begun goes on.
fn print_all(line: &str) {
    let printed = if linux::process::standard_output_was_closed() {
        Err(io::Error::other("it is closed"))
    } else {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())
    };
    if let Err(error) = printed {
        let is_first = !UNPRINTED.swap(true, Ordering::Relaxed);
        // A reader that has seen enough, such as `head`, needs no message.
        if is_first && error.kind() != io::ErrorKind::BrokenPipe {
            eprint_text(&format!("cannot write to standard output: {error}\n"));
        }
    }
}

fn eprint_text(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 30;
    let filled = (done * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH as usize - filled))
}

fn progress_text(verb: &str, done: u64, total: u64, elapsed: f64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let percent = (done * 100).checked_div(total).unwrap_or(100);
    let mut text = format!("{verb} {percent:3}% ({:.1} of {:.1} MiB", done as f64 / MIB, total as f64 / MIB);
    if elapsed > 0.1 && done > 0 {
        let rate = done as f64 / elapsed;
        text.push_str(&format!(", {:.1} MiB/s", rate / MIB));
        if done < total {
            text.push_str(&format!(", {:.0} s left", (total - done) as f64 / rate));
        }
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_amount_speed_and_time_left() {
        let text = progress_text("writing", 64 << 20, 256 << 20, 2.0);
        assert_eq!(text, "writing  25% (64.0 of 256.0 MiB, 32.0 MiB/s, 6 s left)");
        assert_eq!(progress_text("verifying", 1 << 20, 1 << 20, 0.0), "verifying 100% (1.0 of 1.0 MiB)");
    }

    #[test]
    fn what_is_refused_is_said_in_the_words_that_scripts_expect() {
        let begins = |error: DeployError, words: &str| {
            assert!(sentence(&error).starts_with(words), "{}", sentence(&error));
        };
        begins(
            DeployError::AlreadyInProgress,
            "Update already in progress. Please commit or roll back first",
        );
        begins(
            DeployError::CannotCommitHere,
            "Cannot commit from this state. Make sure that the `install` command",
        );
        begins(DeployError::CannotRollBackHere, "Cannot roll back from this state. Use `resume` to complete");
        begins(DeployError::Aborted, "the server aborted the deployment");
    }

    #[test]
    fn the_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, 10), format!("[{}]", ".".repeat(30)));
        assert_eq!(bar(5, 10), format!("[{}{}]", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(0, 0), format!("[{}]", "#".repeat(30)));
    }
}
