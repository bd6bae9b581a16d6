//! Deployments: who is offered what, and what devices report.
//!
//! A device's part in a deployment begins with the record that its first question makes, and ends with a final status. What
//! the device is at work on, and the newest deployment that it has finished, are in the device: so a poll that has nothing to
//! do reads one device, and asks the active deployments in memory whether they list it.

mod change;
mod choice;
mod create;
mod finish;
mod gate;
mod history;
mod offer;
mod passing;
mod plan;
mod report;
mod stop;
#[cfg(test)]
mod tests;

pub(crate) use change::{hold, mark, set_control_map};
pub(crate) use choice::{Lacking, Request, choose, lacking};
pub(crate) use create::{
    CANARIES, CreateError, NewDeployment, SPREAD_BY, check, create, newest_of, order_key,
};
pub(crate) use finish::{EndError, abort, abort_on, end_for, forget_made};
pub(crate) use gate::{
    FLEET, Wait, budget as budget_wait, check_budget, fleet_budget, fleet_spent, has_lapsed, release,
    set_fleet_budget, window as window_wait,
};
pub(crate) use history::{Forgotten, forget_history};
pub(crate) use offer::{Candidate, Configured, Next, NextError, configuration_made, next};
pub(crate) use passing::{NAME as RECENT, gone, gone_before};
pub(crate) use plan::{DEVICE_TYPE, Reported, phase_counts, shares, spread};
pub(crate) use report::{ReportError, report_log, report_status};
pub(crate) use stop::alerted;
#[cfg(test)]
pub(crate) use tests::one_device as tests_fleet;

use self::stop::News;
use super::id::{self, NoRandomness};
use crate::model::time::Timestamp;
use crate::model::{Deployment, DeviceDeployment, Status};
use crate::work::{NotLoaded, Work};

/// Times of failures that are kept for rules with a window.
const FAILURES: usize = 1000;

/// A record that is new.
fn new_record(
    deployment: &Deployment,
    device: &str,
    status: Status,
    now: Timestamp,
) -> Result<DeviceDeployment, NoRandomness> {
    Ok(DeviceDeployment {
        id: id::uuid()?,
        deployment: deployment.id.clone(),
        device: device.to_owned(),
        status,
        substate: None,
        created: now,
        started: None,
        finished: None,
        artifact: None,
        offered_bytes: 0,
        given: None,
        lapsed: false,
        asked: None,
        log: false,
        phase: None,
        attempts: 0,
    })
}

/// Whether a device that has ended a deployment in this way is not to begin an older one any more: it has newer software, or has
/// tried it. A configuration takes the place of no software, and who was given nothing still waits for what is older.
fn passes_older(deployment: &Deployment, status: Status) -> bool {
    let has_tried = match status {
        Status::Success | Status::Failure | Status::AlreadyInstalled => true,
        Status::Noartifact
        | Status::Aborted
        | Status::Decommissioned
        | Status::Pending
        | Status::Downloading
        | Status::PauseBeforeInstalling
        | Status::Installing
        | Status::PauseBeforeRebooting
        | Status::Rebooting
        | Status::PauseBeforeCommitting => false,
    };
    has_tried && deployment.configuration.is_none()
}

/// Stores one device's record with what follows from it: the counters, what the device is at work on, the rules that stop a
/// deployment, and its end behind the last device.
fn put(work: &mut Work, mut record: DeviceDeployment) -> Result<(), NotLoaded> {
    let now = work.now();
    let is_finished = record.status.is_finished();
    record.finished = is_finished.then(|| record.finished.unwrap_or(now));
    record.lapsed &= record.status.needs_place();
    let before = work.record(&record.deployment, &record.device)?;
    let Some(mut deployment) = work.deployment(&record.deployment)? else { return Ok(()) };
    if let Some(mut device) = work.device(&record.device)? {
        let was = (device.active.clone(), device.last_finished);
        if is_finished {
            if passes_older(&deployment, record.status) {
                device.last_finished = device.last_finished.max(deployment.sequence);
            }
            device.active = device.active.filter(|active| *active != record.deployment);
        } else if !record.lapsed {
            // Who has lost a place may have begun something else.
            device.active = Some(record.deployment.clone());
        }
        if was != (device.active.clone(), device.last_finished) {
            work.put_device(device)?;
        }
    }
    let was = deployment.clone();
    if let Some(before) = &before {
        let count = deployment.counts.entry(before.status).or_default();
        *count = count.saturating_sub(1);
        deployment.total_size = deployment.total_size.saturating_sub(before.offered_bytes);
        deployment.lapsed = deployment.lapsed.saturating_sub(before.lapsed.into());
    }
    deployment.lapsed += u64::from(record.lapsed);
    *deployment.counts.entry(record.status).or_default() += 1;
    deployment.counts.retain(|_, count| *count > 0);
    deployment.total_size = deployment.total_size.saturating_add(record.offered_bytes);
    let has_failed = record.status == Status::Failure
        && before.as_ref().is_none_or(|before| before.status != Status::Failure);
    if has_failed && deployment.stop.iter().any(stop::remembers_failures) {
        deployment.failures.push(now);
        let surplus = deployment.failures.len().saturating_sub(FAILURES);
        deployment.failures.drain(..surplus);
    }
    let has_got = record.status == Status::Success
        && before.as_ref().is_none_or(|before| before.status != Status::Success);
    let device = record.device.clone();
    work.put_record(record)?;
    let is_over = match deployment.max_devices {
        Some(most) => deployment.finished_records() >= most,
        None => !deployment.is_dynamic() && deployment.finished_records() >= deployment.device_count,
    };
    if is_over && deployment.finished.is_none() {
        deployment.finished = Some(now);
        // What it has now says that a rule has stopped it.
        deployment.held = None;
        create::free(work, &deployment)?;
    }
    let has_ended = is_finished && before.as_ref().is_none_or(|before| !before.status.is_finished());
    let news = [(has_failed, News::Failed), (has_got, News::Got), (has_ended, News::Ended)];
    let news: Vec<News> = news.into_iter().filter(|(is_so, _)| *is_so).map(|(_, news)| news).collect();
    if has_got && deployment.finished.is_none() {
        stop::watch(work, &deployment, &device)?;
    }
    // What is over has nothing left to stop.
    if let Some(reason) = stop::stops(&deployment, &news, now) {
        return stop::stop(work, deployment, &reason);
    }
    if deployment != was { work.put_deployment(deployment) } else { Ok(()) }
}
