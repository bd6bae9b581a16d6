//! What a device is to do next.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::choice::{self, Request};
use super::{gate, new_record, passes_older, put};
use crate::domain::admission::{self, SpeakError};
use crate::domain::id::NoRandomness;
use crate::domain::token::Claims;
use crate::model::{Artifact, Asked, Deployment, DeviceDeployment, Status};
use crate::work::{Kind, NotLoaded, Work};

/// What a device that changed in the middle of a deployment is said to have failed of.
const CHANGED: &str = "the device is not what it was when the deployment began";

/// What a device is said to have left a deployment for.
const NEWER: &str = "the device was offered a newer deployment";

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// Nothing to do.
    Nothing,
    /// Install this.
    Offer {
        /// The deployment.
        deployment: Box<Deployment>,
        /// The artifact that fits.
        artifact: Arc<Artifact>,
    },
    /// Make the artifact of a configuration, and ask again.
    Make(Configured),
    /// The device is at work on a deployment and is no longer what it was.
    Conflict,
}

/// An artifact of a configuration that has to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configured {
    /// The deployment that brings it: the artifact is there as long as that is.
    pub(crate) deployment: String,
    /// What it is called.
    pub(crate) artifact_name: String,
    /// The device it is for.
    pub(crate) device: String,
    /// The type of the device.
    pub(crate) device_type: String,
    /// What it brings.
    pub(crate) settings: BTreeMap<String, String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextError {
    /// Something has to be loaded first.
    NotLoaded,
    /// The device may not speak any more.
    Unauthorized,
    /// There were no random numbers for a new id.
    NoRandomness,
}

impl From<NotLoaded> for NextError {
    fn from(_: NotLoaded) -> NextError {
        NextError::NotLoaded
    }
}

impl From<NoRandomness> for NextError {
    fn from(_: NoRandomness) -> NextError {
        NextError::NoRandomness
    }
}

impl From<SpeakError> for NextError {
    fn from(error: SpeakError) -> NextError {
        match error {
            SpeakError::NotLoaded => NextError::NotLoaded,
            SpeakError::Unauthorized => NextError::Unauthorized,
        }
    }
}

/// A deployment that may be for a device, with the artifacts that have its name.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Its id.
    pub(crate) deployment: String,
    /// Artifacts with its name.
    pub(crate) artifacts: Vec<Arc<Artifact>>,
}

/// What a device is to do next. `candidates` are the deployment that it is at work on and those that list it, the oldest
/// first; those that are dynamic are there when their filter holds for the device. `fleet` are the deployments whose devices
/// count where all devices together may load so much; `None` where they may load what they like.
///
/// # Errors
/// Why there is no answer.
pub(crate) fn next(
    work: &mut Work,
    claims: &Claims,
    candidates: &[Candidate],
    request: &Request,
    fleet: Option<&[String]>,
) -> Result<Next, NextError> {
    let device = admission::speaking(work, claims)?;
    // With the numbers of their deployments.
    let mut waiting: Vec<(u64, DeviceDeployment)> = Vec::new();
    for candidate in candidates {
        let Some(deployment) = work.deployment(&candidate.deployment)? else { continue };
        let is_active = device.active.as_ref() == Some(&deployment.id);
        if deployment.finished.is_some() || (!is_active && deployment.sequence <= device.last_finished) {
            continue;
        }
        let known = work.record(&deployment.id, &device.id)?;
        if known.as_ref().is_some_and(|record| record.status.is_finished()) {
            continue;
        }
        // Who tries again after a failure, or has lost his place, waits with the others.
        if known.as_ref().is_none_or(|record| record.asked.is_none() || record.lapsed) {
            let is_new = known.is_none();
            let needs_place = known.as_ref().is_none_or(|record| record.lapsed);
            let is_software = deployment.configuration.is_none();
            let waits = gate::wait(work, &deployment, &device.id, candidate, request, needs_place)?.is_some();
            if deployment.held.is_some() || waits {
                waiting.extend(known.filter(|_| is_software).map(|record| (deployment.sequence, record)));
                continue;
            }
            let has_room = !is_new
                || deployment.phases.is_empty()
                || deployment.open_phase(work.now(), device.number).is_some();
            if let Some(active) = fleet.filter(|_| has_room) {
                if gate::waits_for_fleet(work, &deployment, candidate, request, needs_place, active)? {
                    waiting.extend(known.filter(|_| is_software).map(|record| (deployment.sequence, record)));
                    continue;
                }
            }
        }
        let (deployment, record) = match known {
            Some(record) => (deployment, record),
            None => match begin(work, deployment, &device.id, device.number)? {
                Some(begun) => begun,
                None => continue,
            },
        };
        if waiting.is_empty() {
            return go_on(work, deployment, record, candidate, request, fleet.is_some());
        }
        let newer = deployment.clone();
        let next = go_on(work, deployment, record, candidate, request, fleet.is_some())?;
        let ended = work.record(&newer.id, &device.id)?.map(|record| record.status);
        let is_offered = newer.configuration.is_none() && matches!(next, Next::Offer { .. });
        if is_offered || ended.is_some_and(|status| passes_older(&newer, status)) {
            give_up(work, waiting, newer.sequence)?;
        }
        return Ok(next);
    }
    Ok(Next::Nothing)
}

/// Who waits in a deployment, for a place or to try again, and is offered a newer one, comes to the older one no more: it ends
/// there, since a deployment is over with its last device.
fn give_up(work: &mut Work, waiting: Vec<(u64, DeviceDeployment)>, newer: u64) -> Result<(), NotLoaded> {
    for (_, mut record) in waiting.into_iter().filter(|(older, _)| *older < newer) {
        record.status = Status::Aborted;
        record.substate.get_or_insert_with(|| NEWER.to_owned());
        put(work, record)?;
    }
    Ok(())
}

/// Lets a device begin with a deployment, if it may now. Nothing is written but that it has.
fn begin(
    work: &mut Work,
    mut deployment: Deployment,
    device: &str,
    number: u32,
) -> Result<Option<(Deployment, DeviceDeployment)>, NextError> {
    let now = work.now();
    let mut record = new_record(&deployment, device, Status::Pending, now)?;
    let mut has_changed = false;
    if !deployment.phases.is_empty() {
        let Some(at) = deployment.open_phase(now, number) else { return Ok(None) };
        if let Some(phase) = deployment.phases.get_mut(at) {
            phase.begun += 1;
            record.phase = Some(phase.id.clone());
        }
        has_changed = true;
    }
    if deployment.is_dynamic() {
        let members = work.members(&deployment.id)?;
        if !members.contains(number) {
            if deployment.max_devices.is_some_and(|most| members.len() >= most) {
                return Ok(None);
            }
            let mut more = (*members).clone();
            more.insert(number);
            deployment.device_count = more.len();
            work.put_members(&deployment.id, Arc::new(more))?;
            has_changed = true;
        }
    }
    if has_changed {
        work.put_deployment(deployment.clone())?;
    }
    Ok(Some((deployment, record)))
}

/// One step of a device that has begun.
fn go_on(
    work: &mut Work,
    deployment: Deployment,
    mut record: DeviceDeployment,
    candidate: &Candidate,
    request: &Request,
    has_fleet_budget: bool,
) -> Result<Next, NextError> {
    let asked =
        Asked { artifact_name: request.artifact_name.clone(), device_type: request.device_type.clone() };
    if record.asked.as_ref().is_some_and(|before| *before != asked) {
        record.status = Status::Failure;
        record.substate.get_or_insert_with(|| CHANGED.to_owned());
        put(work, record)?;
        return Ok(Next::Conflict);
    }
    let made: Option<Artifact> = match &deployment.configuration {
        Some(_) => work.document(Kind::MadeArtifact, &deployment.id)?,
        None => None,
    };
    if let Some(settings) = &deployment.configuration {
        let fits = |artifact: &Artifact| artifact.device_types.contains(&request.device_type);
        if !made.as_ref().is_some_and(fits) {
            return Ok(Next::Make(Configured {
                deployment: deployment.id.clone(),
                artifact_name: deployment.artifact_name.clone(),
                device: record.device.clone(),
                device_type: request.device_type.clone(),
                settings: settings.clone(),
            }));
        }
    }
    let made: Vec<Arc<Artifact>> = made.into_iter().map(Arc::new).collect();
    let artifacts = if deployment.configuration.is_some() { &made } else { &candidate.artifacts };
    let Some(artifact) = choice::choose(artifacts, request).cloned() else {
        record.status = Status::Noartifact;
        // What type of artifact was wanted is what people ask then.
        record.asked = Some(asked);
        put(work, record)?;
        return Ok(Next::Nothing);
    };
    let is_installed = deployment.artifact_name == request.artifact_name;
    if is_installed && record.status == Status::Pending && !deployment.force_installation {
        record.status = Status::AlreadyInstalled;
        record.artifact = Some(artifact.id.clone());
        put(work, record)?;
        return Ok(Next::Nothing);
    }
    let same = record.artifact.as_ref() == Some(&artifact.id) && record.asked.is_some();
    if !same || record.lapsed {
        let saved = if same { 0 } else { choice::saved(artifacts, &artifact, request) };
        record.given = Some(work.now());
        record.lapsed = false;
        record.asked = Some(asked);
        record.artifact = Some(artifact.id.clone());
        record.offered_bytes = artifact.size;
        put(work, record)?;
        if has_fleet_budget && deployment.configuration.is_none() {
            gate::spend_of_fleet(work, artifact.size)?;
        }
        if saved > 0 || deployment.budget.is_some() {
            if let Some(mut deployment) = work.deployment(&candidate.deployment)? {
                deployment.saved_size = deployment.saved_size.saturating_add(saved);
                gate::spend(&mut deployment, artifact.size, work.now());
                work.put_deployment(deployment)?;
            }
        }
    }
    Ok(Next::Offer { deployment: Box::new(deployment), artifact })
}

/// The artifact of a configuration is made: it is there for as long as its deployment is active. False when that has ended.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn configuration_made(
    work: &mut Work,
    deployment: &str,
    artifact: &Artifact,
) -> Result<bool, NotLoaded> {
    let is_wanted = work.deployment(deployment)?.is_some_and(|deployment| deployment.finished.is_none());
    let _: Option<Artifact> = work.document(Kind::MadeArtifact, deployment)?;
    if is_wanted {
        work.put_document(Kind::MadeArtifact, deployment, Some(artifact))?;
    }
    Ok(is_wanted)
}
