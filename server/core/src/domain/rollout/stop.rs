//! Rules by which a deployment stops by itself: which make sense, when they stop it, and what they do.

use super::{FAILURES, finish};
use crate::model::time::Timestamp;
use crate::model::{Deployment, Status, StopAction, StopRule};
use crate::work::{NotLoaded, Work};

/// Rules of one deployment.
const STOP_RULES: usize = 20;

/// What is wrong with rules.
pub(super) fn check(rules: &[StopRule]) -> Result<(), &'static str> {
    if rules.len() > STOP_RULES {
        return Err("there are more than 20");
    }
    for rule in rules {
        match (rule.failed_devices, rule.failed_percent) {
            (None, None) => return Err("failed_devices or failed_percent has to be there"),
            (Some(_), Some(_)) => return Err("failed_devices or failed_percent, not both"),
            (None, Some(percent)) if !(0.0..100.0).contains(&percent) => {
                return Err("failed_percent is at least 0 and below 100");
            }
            (None, Some(_)) if rule.within_seconds.is_some() => {
                return Err("within_seconds is for failed_devices");
            }
            (Some(_), None) if rule.after_devices.is_some() => {
                return Err("after_devices is for failed_percent");
            }
            // As many failures are remembered.
            (Some(count), None) if rule.within_seconds.is_some() && count >= FAILURES as u64 => {
                return Err("failed_devices with within_seconds is below 1000");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
    Ok(())
}

/// Why a deployment is to stop by itself, and what is done.
pub(super) struct Reason {
    text: String,
    action: StopAction,
}

/// Whether one of its rules stops a deployment now.
pub(super) fn stops(deployment: &Deployment, now: Timestamp) -> Option<Reason> {
    if deployment.finished.is_some() {
        return None;
    }
    // What ends more comes first.
    let reasons = || deployment.stop.iter().filter_map(|rule| reason(deployment, rule, now));
    let is_new = |reason: &Reason| match reason.action {
        StopAction::Abort => true,
        StopAction::Hold => deployment.held.is_none(),
    };
    reasons().find(|reason| reason.action == StopAction::Abort).or_else(|| reasons().find(is_new))
}

fn reason(deployment: &Deployment, rule: &StopRule, now: Timestamp) -> Option<Reason> {
    let failed = match rule.within_seconds {
        None => deployment.counts.get(&Status::Failure).copied().unwrap_or(0),
        Some(seconds) => {
            let recent = |time: &&Timestamp| time.plus_seconds(seconds) >= now;
            deployment.failures.iter().filter(recent).count() as u64
        }
    };
    let text = match (rule.failed_devices, rule.failed_percent) {
        (Some(most), _) if failed > most => match rule.within_seconds {
            None => format!("{failed} devices have failed, more than {most}"),
            Some(seconds) => format!("{failed} devices have failed in {seconds} seconds, more than {most}"),
        },
        (None, Some(most)) => {
            let ended = deployment.finished_records();
            let percent = failed as f64 * 100.0 / ended.max(1) as f64;
            if ended < rule.after_devices.unwrap_or(1) || percent <= most {
                return None;
            }
            format!("{failed} of {ended} devices have failed, more than {most} percent")
        }
        (Some(_), _) | (None, None) => return None,
    };
    Some(Reason { text, action: rule.action })
}

/// Does what a rule says.
pub(super) fn stop(work: &mut Work, mut deployment: Deployment, reason: &Reason) -> Result<(), NotLoaded> {
    deployment.held = Some(reason.text.clone());
    match reason.action {
        StopAction::Hold => work.put_deployment(deployment),
        StopAction::Abort => finish::end(work, deployment),
    }
}
