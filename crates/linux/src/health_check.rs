//! Runs a health check: commands that succeed and units of systemd that are active, all at once, within a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use client_core::clock::{Clock, Paused};
use client_core::deploy::gates::{Answer, HealthCheck, Judgement, Round};

use crate::explain;
use crate::process_group::{Ended, LAST_WORDS, Output, ProcessGroup};

/// Looks, until the check is settled.
pub fn run(check: &HealthCheck, clock: &dyn Clock) -> Answer {
    let started = Instant::now();
    let mut round = one_round(check, started, clock);
    loop {
        match check.judge(round, started.elapsed()) {
            Judgement::Settled(answer) => return answer,
            Judgement::Again { problem } => log::info!("not well yet: {problem}"),
        }
        round = match clock.pause(check.interval) {
            Paused::Stopped => Round::Stopped,
            Paused::Elapsed => one_round(check, started, clock),
        };
    }
}

/// One round.
fn one_round(check: &HealthCheck, started: Instant, clock: &dyn Clock) -> Round {
    let left = check.timeout.saturating_sub(started.elapsed());
    match first_problem(check, left, clock) {
        None => Round::Well,
        Some(_) if clock.stop_requested() => Round::Stopped,
        Some(problem) => Round::Problem(problem),
    }
}

fn first_problem(check: &HealthCheck, left: Duration, clock: &dyn Clock) -> Option<String> {
    let began = Instant::now();
    let time = || left.saturating_sub(began.elapsed()).max(Duration::from_millis(100));
    for unit in &check.units {
        let mut command = Command::new("systemctl");
        // An end of options: a unit is never one.
        command.args(["is-active", "--quiet", "--", unit]);
        if let Some(how) = failure(command, unit, time(), clock) {
            return Some(format!("unit {unit}: {how}"));
        }
    }
    for text in &check.commands {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        if let Some(how) = failure(command, text, time(), clock) {
            return Some(format!("{text}: {how}"));
        }
    }
    None
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
    use crate::clock::LinuxClock;

    use super::*;

    fn check(commands: &[&str], timeout: Duration) -> HealthCheck {
        HealthCheck {
            commands: commands.iter().map(|text| text.to_string()).collect(),
            units: Vec::new(),
            timeout,
            interval: Duration::from_millis(1),
        }
    }

    fn run(check: &HealthCheck) -> Answer {
        super::run(check, &LinuxClock::new())
    }

    #[test]
    fn it_waits_until_everything_is_well_in_one_round() {
        let directory = tempfile::tempdir().unwrap();
        let tries = directory.path().join("tries");
        let second = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", tries.display());
        let answer = run(&check(&["true", &second], Duration::from_secs(60)));
        assert!(matches!(answer, Answer::Open { note: Some(_) }), "{answer:?}");
        assert_eq!(std::fs::read_to_string(&tries).unwrap(), "x\nx\nx\n");
    }

    #[test]
    fn what_is_not_well_in_time_is_named() {
        let answer = run(&check(&["true", "exit 3"], Duration::from_millis(50)));
        let Answer::Refused { reason } = answer else { panic!("{answer:?}") };
        assert!(reason.starts_with("health check: exit 3: exit status: 3"), "{reason}");
        let hangs = run(&check(&["sleep 1000"], Duration::from_millis(200)));
        assert!(matches!(hangs, Answer::Refused { .. }), "{hangs:?}");
    }

    #[test]
    fn a_unit_that_nobody_knows_is_not_well() {
        let mut check = check(&[], Duration::from_millis(300));
        check.units = vec!["--version".to_owned()];
        assert!(matches!(run(&check), Answer::Refused { .. }));
    }

    #[test]
    fn a_stop_ends_the_check_and_decides_nothing() {
        let clock = LinuxClock::new();
        clock.request_stop();
        let answer = super::run(&check(&["exit 1"], Duration::from_secs(600)), &clock);
        assert!(matches!(answer, Answer::Closed { .. }), "{answer:?}");
    }
}
