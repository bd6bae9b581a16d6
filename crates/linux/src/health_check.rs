//! Whether the system is well: commands that succeed and units of systemd that are active, all at once, within a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client_core::clock::{Clock, Paused};

use crate::explain;
use crate::process_group::{Ended, LAST_WORDS, Output, ProcessGroup};

/// What is looked at, and how long it may take.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// Commands for `/bin/sh`, which must exit with 0.
    pub commands: Vec<String>,
    /// Units of systemd, which must be active.
    pub units: Vec<String>,
    /// Until all are well at once.
    pub timeout: Duration,
    /// Between two rounds.
    pub interval: Duration,
}

/// Why the system is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwell {
    /// The time is over.
    TimedOut {
        /// What was not well in the last round.
        last: String,
    },
    /// The process was asked to stop, and nothing is known.
    Stopped,
}

impl HealthCheck {
    /// Looks until all are well in one round. How long that took.
    ///
    /// # Errors
    /// When the time is over, or the process was asked to stop.
    pub fn run(&self, clock: &dyn Clock) -> Result<Duration, Unwell> {
        let started = Instant::now();
        loop {
            let left = self.timeout.saturating_sub(started.elapsed());
            let Some(problem) = self.first_problem(left, clock) else { return Ok(started.elapsed()) };
            if clock.stop_requested() {
                return Err(Unwell::Stopped);
            }
            if started.elapsed().saturating_add(self.interval) >= self.timeout {
                return Err(Unwell::TimedOut { last: problem });
            }
            log::info!("not well yet: {problem}");
            if clock.pause(self.interval) == Paused::Stopped {
                return Err(Unwell::Stopped);
            }
        }
    }

    /// One round.
    fn first_problem(&self, left: Duration, clock: &dyn Clock) -> Option<String> {
        let began = Instant::now();
        let time = || left.saturating_sub(began.elapsed()).max(Duration::from_millis(100));
        for unit in &self.units {
            let mut command = Command::new("systemctl");
            // An end of options: a unit is never one.
            command.args(["is-active", "--quiet", "--", unit]);
            if let Some(how) = failure(command, unit, time(), clock) {
                return Some(format!("unit {unit}: {how}"));
            }
        }
        for text in &self.commands {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", text]);
            if let Some(how) = failure(command, text, time(), clock) {
                return Some(format!("{text}: {how}"));
            }
        }
        None
    }
}

/// Runs one program. How it failed, if it did.
fn failure(mut command: Command, name: &str, timeout: Duration, clock: &dyn Clock) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut group = match ProcessGroup::spawn(&mut command) {
        Ok(group) => group,
        Err(error) => return Some(format!("cannot be run: {error}")),
    };
    let (stdout, stderr) = group.take_output();
    let output = Output::log(name, stdout, stderr);
    let ended = group.wait(timeout, clock);
    output.await_end(LAST_WORDS);
    match ended {
        Ok(Ended::Exited(status)) if status.success() => None,
        Ok(Ended::Exited(status)) => {
            let program = name.split_whitespace().next().unwrap_or_default();
            Some(explain::ended(Path::new(program), status))
        }
        Ok(Ended::TimedOut) => Some("it takes too long".to_owned()),
        Ok(Ended::Stopped) => Some("stopped".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::waiter::LinuxClock;

    use super::*;

    fn check(commands: &[&str], timeout: Duration) -> HealthCheck {
        HealthCheck {
            commands: commands.iter().map(|text| text.to_string()).collect(),
            units: Vec::new(),
            timeout,
            interval: Duration::from_millis(1),
        }
    }

    #[test]
    fn it_waits_until_everything_is_well_in_one_round() {
        let directory = tempfile::tempdir().unwrap();
        let tries = directory.path().join("tries");
        let second = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", tries.display());
        check(&["true", &second], Duration::from_secs(60)).run(&LinuxClock::new()).unwrap();
        assert_eq!(std::fs::read_to_string(&tries).unwrap(), "x\nx\nx\n");
    }

    #[test]
    fn what_is_not_well_in_time_is_named() {
        let unwell = check(&["true", "exit 3"], Duration::from_millis(50)).run(&LinuxClock::new());
        let Err(Unwell::TimedOut { last }) = unwell else { panic!("{unwell:?}") };
        assert!(last.starts_with("exit 3: exit status: 3"), "{last}");
        let hangs = check(&["sleep 1000"], Duration::from_millis(200)).run(&LinuxClock::new());
        assert!(matches!(hangs, Err(Unwell::TimedOut { .. })), "{hangs:?}");
    }

    #[test]
    fn a_unit_that_nobody_knows_is_not_well() {
        let mut check = check(&[], Duration::from_millis(300));
        check.units = vec!["--version".to_owned()];
        assert!(matches!(check.run(&LinuxClock::new()), Err(Unwell::TimedOut { .. })));
    }

    #[test]
    fn a_stop_ends_the_check_and_decides_nothing() {
        let clock = LinuxClock::new();
        clock.request_stop();
        assert_eq!(check(&["exit 1"], Duration::from_secs(600)).run(&clock), Err(Unwell::Stopped));
    }
}
