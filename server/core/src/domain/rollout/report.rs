//! What devices report about deployments.

use super::put;
use crate::domain::admission::{self, SpeakError};
use crate::domain::token::Claims;
use crate::model::{DeviceDeployment, Status};
use crate::work::{NotLoaded, Work, Write};

/// Why a report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportError {
    /// Something has to be loaded first.
    NotLoaded,
    /// The device may not speak any more.
    Unauthorized,
    /// The device has no such deployment.
    NotFound,
    /// A person has stopped it.
    Aborted,
    /// A person has stopped it long ago, or it never began.
    Finished,
    /// It is not what whoever changes it has seen.
    Changed,
}

impl From<NotLoaded> for ReportError {
    fn from(_: NotLoaded) -> ReportError {
        ReportError::NotLoaded
    }
}

impl From<SpeakError> for ReportError {
    fn from(error: SpeakError) -> ReportError {
        match error {
            SpeakError::NotLoaded => ReportError::NotLoaded,
            SpeakError::Unauthorized => ReportError::Unauthorized,
        }
    }
}

/// Takes what a device reports about a deployment.
///
/// # Errors
/// Why it was not taken.
pub(crate) fn report_status(
    work: &mut Work,
    claims: &Claims,
    deployment: &str,
    status: Status,
    substate: Option<&str>,
) -> Result<(), ReportError> {
    let device = admission::speaking(work, claims)?;
    let mut record = work.record(deployment, &device.id)?.ok_or(ReportError::NotFound)?;
    let known = work.deployment(deployment)?.ok_or(ReportError::NotFound)?;
    let was_ended = known.ended.is_some() && !record.status.is_finished();
    if was_ended || matches!(record.status, Status::Aborted | Status::Decommissioned) {
        return Err(ReportError::Aborted);
    }
    // A late repetition must not open again what has ended; another end replaces the first.
    let is_late = record.status.is_finished() && !status.is_finished();
    let says_nothing =
        record.status == status && (substate.is_none() || substate == record.substate.as_deref());
    // Who says that it loads has its place again.
    if is_late || (says_nothing && !record.lapsed) {
        return Ok(());
    }
    record.lapsed = false;
    if status.needs_place() {
        record.given = Some(work.now());
    }
    // A report that says nothing about it leaves what was said before.
    record.substate = substate.map(str::to_owned).or(record.substate);
    record.started = record.started.or(Some(work.now()));
    let again = status == Status::Failure && !record.status.is_finished() && record.attempts < known.retries;
    if again {
        // What it was offered is chosen anew: it may be another artifact, and the device may be another by then.
        let (artifact, asked, offered_bytes) = (None, None, 0);
        let attempts = record.attempts + 1;
        let (status, given) = (Status::Pending, Some(work.now()));
        record = DeviceDeployment { status, artifact, asked, offered_bytes, given, attempts, ..record };
    } else {
        record.status = status;
    }
    Ok(put(work, record)?)
}

/// Notes that a device has sent its log.
///
/// # Errors
/// The device has no such deployment.
pub(crate) fn report_log(
    work: &mut Work,
    claims: &Claims,
    deployment: &str,
    text: &str,
) -> Result<(), ReportError> {
    let device = admission::speaking(work, claims)?;
    let record = work.record(deployment, &device.id)?.ok_or(ReportError::NotFound)?;
    if !record.log {
        work.put_record(DeviceDeployment { log: true, ..record })?;
    }
    let (deployment, device) = (deployment.to_owned(), device.id);
    work.write(Write::Log { deployment, device, text: Some(text.to_owned()) });
    Ok(())
}
