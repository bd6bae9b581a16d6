//! Deployments that end before their devices have: stopped by a person, by a rule, or with the device.

use super::{ReportError, change, create, new_record, put};
use crate::domain::id::NoRandomness;
use crate::model::{Artifact, Deployment, DeviceDeployment, Status};
use crate::work::{Kind, NotLoaded, Work, Write};

/// Ends a deployment on every device that has not ended it. Devices without a record get none: there may be a million.
pub(super) fn end(work: &mut Work, mut deployment: Deployment) -> Result<(), NotLoaded> {
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
    // Who held it has nothing to do with its end.
    let deployment = Deployment { held: None, ..change::active(work, id, seen)? };
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
