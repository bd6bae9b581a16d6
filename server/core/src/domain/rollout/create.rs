//! Deployments are made.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;
use serde_json::Value;

use super::{gate, passing, stop};
use crate::domain::id::{self, NoRandomness};
use crate::model::time::Timestamp;
use crate::model::{Budget, Canaries, Deployment, Phase, PhaseSize, StopRule, Windows};
use crate::work::{Kind, NotLoaded, Work};

/// Phases of one deployment.
const PHASES: usize = 100;
/// Devices that begin first, and attributes by which they are chosen: each value of these is a question to the store.
pub(crate) const CANARIES: u64 = 200;
pub(crate) const SPREAD_BY: usize = 4;

/// A deployment to make.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct NewDeployment {
    /// For people.
    pub(crate) name: String,
    /// What to install.
    pub(crate) artifact_name: String,
    /// The artifacts of that name, as far as they are known: one of them has to be there still. None for a configuration,
    /// whose artifact is made later.
    pub(crate) artifacts: Vec<String>,
    /// Where.
    pub(crate) members: RoaringBitmap,
    /// How many devices had ever gone before that was found out: see [`gone_before`](super::gone_before).
    pub(crate) gone_before: u64,
    /// The group they were taken from.
    pub(crate) group: Option<String>,
    /// Also where it is installed.
    pub(crate) force_installation: bool,
    /// For a configuration: what its device is to be configured with.
    pub(crate) configuration: Option<BTreeMap<String, String>>,
    /// When which part of the devices begins: start and size.
    pub(crate) phases: Vec<(Option<Timestamp>, PhaseSize)>,
    /// How often a device that has failed may try again.
    pub(crate) retries: u32,
    /// What devices are told about when to go on.
    pub(crate) update_control_map: Option<Value>,
    /// The kept filter whose devices it is for.
    pub(crate) filter: Option<Value>,
    /// Where that ends.
    pub(crate) max_devices: Option<u64>,
    /// Whether deltas are to be made for it.
    pub(crate) autogenerate_delta: bool,
    /// When it stops by itself.
    pub(crate) stop: Vec<StopRule>,
    /// At which hours a device may begin.
    pub(crate) windows: Option<Windows>,
    /// How much its devices may load.
    pub(crate) budget: Option<Budget>,
    /// The devices that begin first.
    pub(crate) canaries: Option<Canaries>,
    /// Of deployments with the same one, one can be active: see [`order_key`].
    pub(crate) key: Option<String>,
}

/// Why no deployment was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum CreateError {
    /// Something has to be loaded first.
    NotLoaded,
    /// No artifact has that name.
    NoArtifact,
    /// It would be for no device.
    NoDevices,
    /// One of the devices is not known.
    UnknownDevice(String),
    /// One of the devices is neither accepted nor pre-authorised.
    NotAccepted(String),
    /// More devices have gone since they were listed than anybody remembers.
    TooManyGone,
    /// There is one for the same devices.
    Exists(String),
    /// Its phases make no sense; how.
    Phases(&'static str),
    /// A stop rule makes no sense; how.
    Stop(&'static str),
    /// Its windows make no sense; how.
    Windows(&'static str),
    /// Its budget makes no sense; how.
    Budget(&'static str),
    /// The choice of those that begin first makes no sense; how.
    Canaries(&'static str),
    /// There were no random numbers for a new id.
    NoRandomness,
}

impl From<NotLoaded> for CreateError {
    fn from(_: NotLoaded) -> CreateError {
        CreateError::NotLoaded
    }
}

impl From<NoRandomness> for CreateError {
    fn from(_: NoRandomness) -> CreateError {
        CreateError::NoRandomness
    }
}

/// What two deployments have in common that are for the same devices: of those that list devices, which these are; of those
/// with a filter, the filter as it was kept. It takes longer than a rule may for a million devices.
pub(crate) fn order_key(new: &NewDeployment) -> String {
    // Text and JSON always become JSON.
    let mut text = serde_json::to_vec(&(&new.name, &new.artifact_name, &new.filter)).unwrap_or_default();
    text.extend(new.members.iter().flat_map(u32::to_le_bytes));
    id::sha256_hex(&text)
}

/// The key of a deployment that ends is free again.
pub(super) fn free(work: &mut Work, deployment: &Deployment) -> Result<(), NotLoaded> {
    let Some(key) = &deployment.key else { return Ok(()) };
    let holder: Option<String> = work.document(Kind::Order, key)?;
    if holder.as_ref() == Some(&deployment.id) {
        work.put_document::<String>(Kind::Order, key, None)?;
    }
    Ok(())
}

/// What is wrong with a deployment to make, or its phases.
///
/// # Errors
/// Why it would not be made.
pub(crate) fn check(new: &NewDeployment) -> Result<Vec<Phase>, CreateError> {
    if new.members.is_empty() && new.filter.is_none() {
        return Err(CreateError::NoDevices);
    }
    stop::check(&new.stop).map_err(CreateError::Stop)?;
    if let Some(windows) = &new.windows {
        gate::check(windows).map_err(CreateError::Windows)?;
    }
    if let Some(budget) = &new.budget {
        gate::check_budget(budget).map_err(CreateError::Budget)?;
    }
    phases(new)
}

/// Makes a deployment. Whether its artifact and its devices are there, the caller has looked; those that have gone meanwhile are left
/// out.
///
/// # Errors
/// Why it was not made.
pub(crate) fn create(work: &mut Work, new: NewDeployment) -> Result<String, CreateError> {
    // The others have their devices loaded when they get them.
    let is_listed = new.configuration.is_none() && new.filter.is_none();
    let new = if is_listed { passing::without_gone(work, new)? } else { new };
    let phases = check(&new)?;
    if let Some(key) = &new.key {
        if let Some(holder) = work.document::<String>(Kind::Order, key)? {
            if work.deployment(&holder)?.is_some_and(|holder| holder.finished.is_none()) {
                return Err(CreateError::Exists(holder));
            }
        }
    }
    if !new.artifacts.is_empty() {
        has_artifact(work, &new.artifacts)?;
    }
    let deployment = Deployment {
        id: id::uuid()?,
        sequence: 0,
        name: new.name,
        artifact_name: new.artifact_name,
        created: work.now(),
        finished: None,
        device_count: new.members.len(),
        counts: BTreeMap::new(),
        lapsed: 0,
        total_size: 0,
        saved_size: 0,
        group: new.group,
        force_installation: new.force_installation,
        configuration: new.configuration,
        phases,
        retries: new.retries,
        update_control_map: new.update_control_map,
        filter: new.filter,
        max_devices: new.max_devices,
        autogenerate_delta: new.autogenerate_delta,
        held: None,
        stop: new.stop,
        windows: new.windows,
        budget: new.budget,
        canaries: new.canaries,
        spent: None,
        failures: Vec::new(),
        alerted: Vec::new(),
        ended: None,
        key: new.key,
    };
    let id = deployment.id.clone();
    if let Some(key) = &deployment.key {
        work.put_document(Kind::Order, key, Some(&id))?;
    }
    if !new.artifacts.is_empty() {
        // Who deletes the artifact in the same moment finds it.
        let newest = newest_of(&deployment.artifact_name);
        work.document::<String>(Kind::Order, &newest)?;
        work.put_document(Kind::Order, &newest, Some(&id))?;
    }
    work.new_deployment(deployment, Arc::new(new.members));
    if is_listed {
        passing::made(work, &id)?;
    }
    Ok(id)
}

/// Under what name the newest deployment of an artifact's name is kept.
pub(crate) fn newest_of(artifact_name: &str) -> String {
    format!("newest/{artifact_name}")
}

fn has_artifact(work: &mut Work, artifacts: &[String]) -> Result<(), CreateError> {
    for id in artifacts {
        if work.document::<serde_json::Value>(Kind::Artifact, id)?.is_some() {
            return Ok(());
        }
    }
    Err(CreateError::NoArtifact)
}

fn phases(new: &NewDeployment) -> Result<Vec<Phase>, CreateError> {
    let wrong = |what| Err(CreateError::Phases(what));
    if new.phases.len() > PHASES {
        return wrong("there are more than 100");
    }
    if new.filter.is_some()
        && !new.phases.iter().all(|(_, size)| matches!(size, PhaseSize::Devices(_) | PhaseSize::Rest))
    {
        return wrong("how many devices a filter will find is not known: say how many, not a part");
    }
    let (mut percent, mut devices, mut before) = (0.0, 0_u64, None);
    let (mut has_percent, mut has_devices) = (false, false);
    let last = new.phases.len().saturating_sub(1);
    if new.canaries.is_some() {
        if new.filter.is_some() {
            return Err(CreateError::Canaries("the devices of a filter are not known before they ask"));
        }
        if last == 0 || !matches!(new.phases.first(), Some((_, PhaseSize::Rest))) {
            return Err(CreateError::Canaries(
                "they are the first of several phases, which is for as many devices and has no size of its own",
            ));
        }
    }
    // Of those that begin first, how many there are is their phase.
    let own = new.canaries.as_ref().map(|canaries| canaries.devices.len() as u64);
    for (at, (start, size)) in new.phases.iter().enumerate() {
        match size {
            PhaseSize::Rest if at == 0 && own.is_some() => {
                devices = own.unwrap_or(0);
            }
            PhaseSize::Percent(part) if !(*part > 0.0 && *part <= 100.0) => {
                return wrong("batch_size is a part in percent, above 0 and at most 100");
            }
            PhaseSize::Percent(part) => {
                has_percent = true;
                percent += part;
            }
            PhaseSize::Devices(0) => return wrong("batch_size_devices is at least 1"),
            PhaseSize::Devices(count) => {
                has_devices = true;
                devices = devices.saturating_add(*count);
            }
            PhaseSize::Rest if at != last => return wrong("only the last one can be the rest"),
            PhaseSize::Rest => {}
        }
        match (start, at) {
            (None, 0) => {}
            (None, _) => return wrong("only the first one can be without start_ts"),
            (Some(start), _) => {
                if before.is_some_and(|before| *start < before) {
                    return wrong("each one begins when the one before has begun");
                }
                before = Some(*start);
            }
        }
    }
    if has_percent && has_devices {
        return wrong("all have batch_size, or all have batch_size_devices");
    }
    if percent > 100.0 {
        return wrong("together they are more than 100 percent");
    }
    if has_devices && new.filter.is_none() && devices > new.members.len() {
        return wrong("together they are for more devices than there are");
    }
    let made = new.phases.iter().enumerate().map(|(at, (start, size))| {
        // Whatever rounding has left belongs to the last one.
        let size = match own {
            _ if at == last => PhaseSize::Rest,
            Some(count) if at == 0 => PhaseSize::Devices(count),
            Some(_) | None => *size,
        };
        Ok(Phase { id: id::uuid()?, start: *start, size, begun: 0 })
    });
    made.collect::<Result<_, NoRandomness>>().map_err(CreateError::from)
}
