//! What came of the steps: results, seconds, what was counted, what was left out.

use std::time::Instant;

use xtask::cpu;

use crate::Outcome;

/// What tests said about themselves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    /// Power cuts that the enumerations made: places where they began.
    pub cuts: u64,
    /// What they left behind, each tried once.
    pub states: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Tests that found something missing, with their reason.
    pub skipped: Vec<String>,
}

impl Counts {
    /// Adds those of another program.
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.cuts += other.cuts;
        self.states += other.states;
        self.kills += other.kills;
        self.skipped.extend(other.skipped);
    }
}

/// The report of a run.
pub struct Report {
    started: Instant,
    steps: Vec<(&'static str, Outcome, f64)>,
    left_out: Vec<String>,
    tests: Counts,
    /// Lines of those who count for themselves.
    pub counted: Vec<String>,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            started: Instant::now(),
            steps: Vec::new(),
            left_out: Vec::new(),
            tests: Counts::default(),
            counted: Vec::new(),
        }
    }
}

impl Report {
    /// Runs a step.
    pub fn step(&mut self, name: &'static str, act: impl FnOnce() -> Outcome) {
        self.result_of(name, act);
    }

    /// Runs a step that counts.
    pub fn step_with(&mut self, name: &'static str, act: impl FnOnce(&mut Counts) -> Outcome) {
        let mut counts = Counts::default();
        self.step(name, || act(&mut counts));
        self.left_out.append(&mut counts.skipped);
        self.tests.add(counts);
    }

    /// Runs a step whose result others need.
    pub fn result_of<T>(&mut self, name: &'static str, act: impl FnOnce() -> Outcome<T>) -> Option<T> {
        println!("\n== {name}");
        let start = Instant::now();
        let (result, outcome) = match act() {
            Ok(result) => (Some(result), Ok(())),
            Err(error) => (None, Err(error)),
        };
        self.add(name, outcome, start.elapsed().as_secs_f64());
        result
    }

    /// Adds a step that has ended.
    pub fn add(&mut self, name: &'static str, outcome: Outcome, seconds: f64) {
        match &outcome {
            Ok(()) => println!("== {name}: ok, {seconds:.1} s"),
            Err(error) => println!("== {name}: FAILED, {seconds:.1} s: {error}"),
        }
        self.steps.push((name, outcome, seconds));
    }

    /// Notes what does not run, and why.
    pub fn leave_out(&mut self, what: &str) {
        self.left_out.push(what.to_owned());
    }

    /// Whether the step ran and went well.
    pub fn is_ok(&self, step: &str) -> bool {
        self.steps.iter().any(|(name, outcome, _)| *name == step && outcome.is_ok())
    }

    /// The summary.
    pub fn print(&self) {
        println!("\n{:<18}{:<8}{:>8}", "step", "result", "seconds");
        for (name, outcome, seconds) in &self.steps {
            let result = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{name:<18}{result:<8}{seconds:>8.1}");
        }
        for line in &self.left_out {
            println!("left out: {line}");
        }
        let tests = &self.tests;
        println!(
            "\nenumerated: {} power cuts, {} states; {} processes killed",
            tests.cuts, tests.states, tests.kills
        );
        self.counted.iter().for_each(|line| println!("{line}"));
        println!(
            "total: {} passed, {} failed, {:.0} s, {:.0} s of the processors",
            tests.passed,
            tests.failed,
            self.started.elapsed().as_secs_f64(),
            cpu::children_seconds().unwrap_or_default(),
        );
    }

    /// An error that names the steps that failed, if any did.
    pub fn outcome(&self) -> Outcome {
        let failed: Vec<&str> =
            self.steps.iter().filter(|(_, outcome, _)| outcome.is_err()).map(|(name, _, _)| *name).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_and_the_others_run() {
        let mut report = Report::default();
        report.step("one", || Err("broken".into()));
        report.step("two", || Ok(()));
        assert_eq!(report.outcome(), Err("failed: one".into()));
        assert_eq!(report.steps.len(), 2);
        assert!(!report.is_ok("one") && report.is_ok("two") && !report.is_ok("three"));
    }

    #[test]
    fn what_tests_skip_is_left_out_and_what_they_count_is_added() {
        let mut report = Report::default();
        let reason = "reads: fw_printenv is not installed".to_owned();
        report.step_with("tests", |counts| {
            counts.add(Counts { passed: 2, states: 7, skipped: vec![reason.clone()], ..Counts::default() });
            Err("one failed".into())
        });
        assert_eq!(report.left_out, [reason]);
        assert_eq!((report.tests.passed, report.tests.states), (2, 7));
    }
}
