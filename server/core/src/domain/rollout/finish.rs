//! Deployments that end before their devices have: stopped by a person, by a rule, or with the device.

use super::{ReportError, change, create, new_record, put};
use crate::domain::id::NoRandomness;
use crate::model::time::Timestamp;
use crate::model::{Artifact, Deployment, DeviceDeployment, Status, StopAction, StopRule};
use crate::work::{Kind, NotLoaded, Work, Write};

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
        StopAction::Abort => end(work, deployment),
    }
}

/// Ends a deployment on every device that has not ended it. Devices without a record get none: there may be a million.
fn end(work: &mut Work, mut deployment: Deployment) -> Result<(), NotLoaded> {
    let now = work.now();
    let unfinished: Vec<Status> =
        deployment.counts.keys().copied().filter(|status| !status.is_finished()).collect();
    for status in unfinished {
        let count = deployment.counts.remove(&status).unwrap_or(0);
        *deployment.counts.entry(Status::Aborted).or_default() += count;
    }
    deployment.lapsed = 0;
    deployment.ended = Some(Status::Aborted);
    deployment.finished = Some(now);
    let id = deployment.id.clone();
    create::free(work, &deployment)?;
    work.put_deployment(deployment)?;
    work.write(Write::EndRecords { deployment: id, status: Status::Aborted, now });
    Ok(())
}

/// Stops a deployment on every device that has not ended it.
///
/// # Errors
/// There is none, it has ended, or somebody else has changed it.
pub(crate) fn abort(work: &mut Work, id: &str, seen: Option<&str>) -> Result<(), ReportError> {
    let deployment = change::active(work, id, seen)?;
    Ok(end(work, deployment)?)
}

/// Forgets the artifact that was made for a deployment of a configuration, if that is over. Whether there was one.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn forget_made(work: &mut Work, id: &str) -> Result<bool, NotLoaded> {
    let is_active = work.deployment(id)?.is_some_and(|deployment| deployment.finished.is_none());
    let made: Option<Artifact> = work.document(Kind::MadeArtifact, id)?;
    if is_active || made.is_none() {
        return Ok(false);
    }
    work.put_document::<Artifact>(Kind::MadeArtifact, id, None)?;
    Ok(true)
}

/// Ends a device's part in deployments. `deployments` are those that list it; those that have ended, and those that it has
/// finished, stay as they are.
///
/// # Errors
/// Something has to be loaded first, or there were no random numbers for a new id.
pub(crate) fn end_for(
    work: &mut Work,
    device: &str,
    deployments: &[String],
    status: Status,
) -> Result<(), EndError> {
    for id in deployments {
        end_one(work, id, device, status)?;
    }
    Ok(())
}

/// Stops one deployment on one device.
///
/// # Errors
/// There is none, it has ended, or the device has finished it.
pub(crate) fn abort_on(work: &mut Work, id: &str, device: &str) -> Result<(), ReportError> {
    let deployment = work.deployment(id)?.ok_or(ReportError::NotFound)?;
    let number = work.device(device)?.ok_or(ReportError::NotFound)?.number;
    if !work.members(id)?.contains(number) {
        return Err(ReportError::NotFound);
    }
    let record = work.record(id, device)?;
    if deployment.finished.is_some() || record.is_some_and(|record| record.status.is_finished()) {
        return Err(ReportError::Finished);
    }
    match end_one(work, id, device, Status::Aborted) {
        Ok(()) => Ok(()),
        Err(EndError::NotLoaded) => Err(ReportError::NotLoaded),
        Err(EndError::NoRandomness) => Err(ReportError::NotFound),
    }
}

fn end_one(work: &mut Work, id: &str, device: &str, status: Status) -> Result<(), EndError> {
    let Some(deployment) = work.deployment(id)? else { return Ok(()) };
    let record = work.record(id, device)?;
    if deployment.finished.is_some() || record.as_ref().is_some_and(|record| record.status.is_finished()) {
        return Ok(());
    }
    let record = match record {
        Some(record) => DeviceDeployment { status, ..record },
        None => new_record(&deployment, device, status, work.now())?,
    };
    Ok(put(work, record)?)
}

/// Why a device's part in deployments was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndError {
    /// Something has to be loaded first.
    NotLoaded,
    /// There were no random numbers for a new id.
    NoRandomness,
}

impl From<NotLoaded> for EndError {
    fn from(_: NotLoaded) -> EndError {
        EndError::NotLoaded
    }
}

impl From<NoRandomness> for EndError {
    fn from(_: NoRandomness) -> EndError {
        EndError::NoRandomness
    }
}
