//! What people change about a deployment that is active. Whoever says what they have seen (`If-Match`) is compared with it here,
//! in the transaction of the change: of two people who have seen the same, one is refused.

use serde_json::Value;

use super::ReportError;
use crate::domain::{etag, id};
use crate::model::Deployment;
use crate::work::Work;

/// Letters of a mark.
const MARK: usize = 24;

/// Is another one when a person has changed the deployment, or a rule has held or ended it; what devices report in between
/// changes nothing of it.
pub(crate) fn mark(deployment: &Deployment) -> String {
    let changeable =
        (&deployment.id, &deployment.held, &deployment.update_control_map, deployment.finished.is_some());
    // Text and JSON always become JSON.
    let text = serde_json::to_vec(&changeable).unwrap_or_default();
    id::sha256_hex(&text).chars().take(MARK).collect()
}

/// An active deployment, if it is as whoever changes it has seen it. An entity tag begins with the mark.
pub(super) fn active(work: &mut Work, id: &str, seen: Option<&str>) -> Result<Deployment, ReportError> {
    let deployment = work.deployment(id)?.ok_or(ReportError::NotFound)?;
    if let Some(tags) = seen {
        let now = mark(&deployment);
        if !etag::names(tags, |name| etag::has_mark(name, &now)) {
            return Err(ReportError::Changed);
        }
    }
    if deployment.finished.is_some() {
        return Err(ReportError::Finished);
    }
    Ok(deployment)
}

/// Lets no further device begin, for a reason; or with `None` lets them.
///
/// # Errors
/// There is none, it has ended, or somebody else has changed it.
pub(crate) fn hold(
    work: &mut Work,
    id: &str,
    seen: Option<&str>,
    reason: Option<&str>,
) -> Result<(), ReportError> {
    let deployment = active(work, id, seen)?;
    Ok(work.put_deployment(Deployment { held: reason.map(str::to_owned), ..deployment })?)
}

/// Tells devices something else about when to go on.
///
/// # Errors
/// There is none, it has ended, or somebody else has changed it.
pub(crate) fn set_control_map(
    work: &mut Work,
    id: &str,
    seen: Option<&str>,
    map: Option<Value>,
) -> Result<(), ReportError> {
    let deployment = active(work, id, seen)?;
    Ok(work.put_deployment(Deployment { update_control_map: map, ..deployment })?)
}
