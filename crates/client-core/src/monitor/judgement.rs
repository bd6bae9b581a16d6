//! What facts mean, as functions of values.

use std::time::Duration;

use super::alert::Finding;
use super::{Excerpt, Level, Unseen};
use crate::clock::utc;

const DAY_SECONDS: u64 = 86_400;

fn level(is_wrong: bool) -> Level {
    if is_wrong { Level::Critical } else { Level::Ok }
}

/// Nobody should believe that something is watched which cannot be looked at.
pub(super) fn unseen(why: &Unseen) -> Finding {
    Finding::new(Level::Critical, "unknown", &format!("it cannot be looked at: {why}"))
}

pub(super) fn service(unit: &str, state: &str) -> Finding {
    let is_wrong = !matches!(state, "active" | "reloading");
    Finding::new(level(is_wrong), state, &format!("{unit} is {state}"))
}

pub(super) fn log(name: &str, excerpt: Excerpt) -> Finding {
    let description = format!("{name} has a line that is looked for: {}", excerpt.line.data);
    Finding { excerpt: Some(excerpt), ..Finding::new(Level::Critical, "found", &description) }
}

pub(super) fn quiet_log(name: &str, quiet_for: Duration) -> Finding {
    let seconds = quiet_for.as_secs();
    Finding::new(Level::Ok, "quiet", &format!("{name} has had no line that is looked for in {seconds} s"))
}

pub(super) fn disk(path: &str, used_percent: u32, limit: u32) -> Finding {
    let description =
        format!("the file system of {path} is used to {used_percent} %, the limit is {limit} %");
    Finding::new(level(used_percent >= limit), &format!("{used_percent} %"), &description)
}

pub(super) fn certificate(file: &str, end: u64, days_left: u32, wall: Duration) -> Finding {
    let left = end.saturating_sub(wall.as_secs());
    let (days, date) = (left / DAY_SECONDS, utc(end));
    let (status, description) = match left {
        0 => ("ended".to_owned(), format!("a certificate in {file} ended at {date}")),
        _ => (format!("{days} days"), format!("a certificate in {file} ends in {days} days, at {date}")),
    };
    Finding::new(level(left <= u64::from(days_left) * DAY_SECONDS), &status, &description)
}

pub(super) fn reboots(starts: usize, most: u32, within: Duration) -> Finding {
    let is_wrong = starts > most as usize;
    let description = format!("the kernel started {starts} times within {} s", within.as_secs());
    Finding::new(level(is_wrong), &format!("{starts} starts"), &description)
}

pub(super) fn updates(failed: u32, limit: u32) -> Finding {
    let description = match failed {
        0 => "the last deployment did not fail".to_owned(),
        1 => "the last deployment failed".to_owned(),
        _ => format!("the last {failed} deployments failed"),
    };
    Finding::new(level(failed >= limit), &format!("{failed} failed"), &description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(finding: Finding, level: Level, words: &str) {
        assert_eq!(finding.level, level, "{finding:?}");
        assert!(finding.description.contains(words), "{finding:?}");
    }

    #[test]
    fn a_service_is_well_while_it_is_active_or_reads_its_configuration() {
        for (state, expected) in [
            ("active", Level::Ok),
            ("reloading", Level::Ok),
            ("activating", Level::Critical),
            ("failed", Level::Critical),
            ("inactive", Level::Critical),
            ("", Level::Critical),
        ] {
            check(service("app.service", state), expected, state);
        }
    }

    #[test]
    fn limits_are_reached_exactly() {
        check(disk("/data", 89, 90), Level::Ok, "89 %");
        check(disk("/data", 90, 90), Level::Critical, "the limit is 90 %");
        check(reboots(5, 5, Duration::from_secs(60)), Level::Ok, "5 times within 60 s");
        check(reboots(6, 5, Duration::from_secs(60)), Level::Critical, "6 times");
        check(updates(1, 2), Level::Ok, "the last deployment failed");
        check(updates(2, 2), Level::Critical, "the last 2 deployments failed");
        check(updates(0, 1), Level::Ok, "did not fail");
    }

    #[test]
    fn a_certificate_is_wrong_from_its_days_before_the_end_on() {
        let end = 1_795_374_114;
        let at = |before: u64| certificate("c.pem", end, 14, Duration::from_secs(end - before));
        check(at(14 * DAY_SECONDS + 1), Level::Ok, "ends in 14 days, at 2026-11-22T19:01:54Z");
        check(at(14 * DAY_SECONDS), Level::Critical, "ends in 14 days");
        check(at(0), Level::Critical, "ended at 2026-11-22T19:01:54Z");
        check(certificate("c.pem", 5, 14, Duration::from_secs(end)), Level::Critical, "ended at 1970");
    }
}
