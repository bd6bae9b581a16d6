//! Deployments are ordered.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::filter::{Filter, filter_query};
use crate::domain::limits;
use crate::domain::rollout::{self, CreateError, NewDeployment};
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Budget, Canaries, PhaseSize, StopRule, WantedCanaries, Windows};
use crate::work::Kind;
use crate::work::query::DeviceQuery;

/// How often a device may try again.
const RETRIES: u32 = 100;

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewDeployment")]
pub(super) struct Wanted {
    name: String,
    artifact_name: String,
    #[serde(default)]
    devices: Option<Vec<String>>,
    #[serde(default)]
    all_devices: bool,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    force_installation: bool,
    #[serde(default)]
    phases: Option<Vec<WantedPhase>>,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(default)]
    update_control_map: Option<Value>,
    #[serde(default)]
    filter_id: Option<String>,
    #[serde(default)]
    max_devices: Option<u64>,
    #[serde(default)]
    autogenerate_delta: bool,
    #[serde(default)]
    rust_ota: Option<Own>,
}

/// What only this server has.
#[derive(Default, Deserialize, JsonSchema)]
#[schemars(rename = "OwnFields")]
#[serde(deny_unknown_fields)]
struct Own {
    #[serde(default)]
    stop: Vec<StopRule>,
    #[serde(default)]
    windows: Option<Windows>,
    #[serde(default)]
    budget: Option<Budget>,
    #[serde(default)]
    canaries: Option<WantedCanaries>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewPhase")]
#[serde(deny_unknown_fields)]
struct WantedPhase {
    #[serde(default)]
    batch_size: Option<f64>,
    #[serde(default)]
    batch_size_devices: Option<u64>,
    #[serde(default)]
    start_ts: Option<String>,
}

/// What may be in a body.
const FIELDS: [&str; 13] = [
    "name",
    "artifact_name",
    "devices",
    "all_devices",
    "group",
    "force_installation",
    "phases",
    "retries",
    "update_control_map",
    "filter_id",
    "max_devices",
    "autogenerate_delta",
    "rust_ota",
];

/// Which devices a deployment is for.
enum Target {
    Devices(Vec<String>),
    All,
    Group(String),
    Filter(String),
}

/// A deployment that was ordered, before it is made.
pub(super) struct Prepared {
    /// What it would be.
    pub(super) new: NewDeployment,
    /// The devices that are named and that it cannot be for.
    pub(super) refused: Vec<CreateError>,
}

pub(super) async fn create(shared: &Shared, call: &Call, group: Option<String>) -> Result<Reply, ApiError> {
    let Prepared { new, refused } = prepare(shared, call, group).await?;
    if let Some(refused) = refused.into_iter().next() {
        return Err(refused.into());
    }
    if let Some(equal) = equal(shared, &new) {
        return Err(CreateError::Exists(equal).into());
    }
    let new = tokio::task::spawn_blocking(move || {
        let key = Some(rollout::order_key(&new));
        NewDeployment { key, ..new }
    });
    let new = new.await.map_err(|_| ApiError::internal("the devices could not be counted"))?;
    let made = shared.make(Vec::new(), move |work| rollout::create(work, new.clone())).await;
    let id = made.map_err(ApiError::of_change)?;
    Ok(reply::created(&format!("./management/v1/deployments/deployments/{id}")))
}

/// Reads what is ordered.
pub(super) async fn prepare(
    shared: &Shared,
    call: &Call,
    group: Option<String>,
) -> Result<Prepared, ApiError> {
    super::refuse_unknown(call, &FIELDS)?;
    let wanted: Wanted = call.json()?;
    let good = |text: &str| !text.is_empty() && text.chars().count() <= limits::NAME_CHARS;
    if !good(&wanted.name) || !good(&wanted.artifact_name) {
        let field = if good(&wanted.name) { "artifact_name" } else { "name" };
        return Err(ApiError::bad_request("name and artifact_name have 1 to 256 characters").about(field));
    }
    let target = target(&wanted, group)?;
    let retries = retries(wanted.retries)?;
    let update_control_map = wanted.update_control_map.filter(|map| !map.is_null());
    if update_control_map.as_ref().is_some_and(|map| !map.is_object()) {
        return Err(ApiError::bad_request("update_control_map is an object").about("update_control_map"));
    }
    let max_devices = wanted.max_devices.filter(|most| *most > 0);
    if max_devices.is_some() && wanted.filter_id.is_none() {
        return Err(ApiError::unprocessable("max_devices: only a deployment for a filter ends so")
            .about("max_devices"));
    }
    if shared.service.catalogue.artifacts_named(&wanted.artifact_name).is_empty() {
        return Err(CreateError::NoArtifact.into());
    }
    let recent = shared.service.store.document(Kind::Order, rollout::RECENT).await?;
    let (members, filter, refused) = members(shared, &target).await?;
    let group = match target {
        Target::Group(group) => Some(group),
        Target::Devices(_) | Target::All | Target::Filter(_) => None,
    };
    let own = wanted.rust_ota.unwrap_or_default();
    let canaries = canaries(shared, &members, own.canaries).await?;
    let artifacts = shared.service.catalogue.artifacts_named(&wanted.artifact_name);
    let new = NewDeployment {
        artifacts: artifacts.iter().map(|artifact| artifact.id.clone()).collect(),
        name: wanted.name,
        artifact_name: wanted.artifact_name,
        members,
        gone_before: rollout::gone_before(recent),
        group,
        force_installation: wanted.force_installation,
        configuration: None,
        phases: phases(wanted.phases.unwrap_or_default())?,
        retries,
        update_control_map,
        filter,
        max_devices,
        autogenerate_delta: wanted.autogenerate_delta,
        stop: own.stop,
        windows: own.windows,
        budget: own.budget,
        canaries,
        key: None,
    };
    Ok(Prepared { new, refused })
}

/// Chooses the devices that begin first.
async fn canaries(
    shared: &Shared,
    members: &RoaringBitmap,
    wanted: Option<WantedCanaries>,
) -> Result<Option<Canaries>, ApiError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let wrong = |what| Err(CreateError::Canaries(what).into());
    if !(1..=rollout::CANARIES).contains(&wanted.count) {
        return wrong("count is 1 to 200");
    }
    if !(1..=rollout::SPREAD_BY).contains(&wanted.spread_by.len()) {
        return wrong("spread_by names 1 to 4 attributes");
    }
    let devices = super::sets::canaries(shared, members, &wanted).await?;
    Ok(Some(Canaries { wanted, devices }))
}

/// How often a device that has failed may try again.
pub(in super::super) fn retries(wanted: Option<u32>) -> Result<u32, ApiError> {
    match wanted.unwrap_or(0) {
        many if many > RETRIES => Err(ApiError::bad_request("retries is at most 100").about("retries")),
        few => Ok(few),
    }
}

fn target(wanted: &Wanted, group: Option<String>) -> Result<Target, ApiError> {
    // A list of no devices is not all devices, and not those of a group that stands beside it.
    if wanted.devices.as_ref().is_some_and(Vec::is_empty) && group.is_none() {
        return Err(ApiError::bad_request("devices: cannot be empty").about("devices"));
    }
    let devices = wanted.devices.clone().unwrap_or_default();
    let filter = wanted.filter_id.clone().filter(|id| !id.is_empty());
    match (filter, group.or(wanted.group.clone()), wanted.all_devices, devices) {
        (Some(filter), None, false, devices) if devices.is_empty() => Ok(Target::Filter(filter)),
        (None, Some(group), false, devices) if devices.is_empty() => Ok(Target::Group(group)),
        (None, None, true, devices) if devices.is_empty() => Ok(Target::All),
        (None, None, false, devices) if devices.is_empty() => {
            Err(ApiError::bad_request("a deployment needs devices, all_devices, a group or a filter_id")
                .about("devices"))
        }
        (None, None, false, devices) => Ok(Target::Devices(devices)),
        _ => {
            Err(ApiError::bad_request("only one of devices, all_devices, group and filter_id")
                .about("devices"))
        }
    }
}

fn phases(wanted: Vec<WantedPhase>) -> Result<Vec<(Option<Timestamp>, PhaseSize)>, ApiError> {
    let wrong = |what| super::wrong("phases", what);
    let phase = |phase: WantedPhase| {
        let start = match phase.start_ts {
            None => None,
            Some(text) => Some(Timestamp::parse(&text).ok_or_else(|| wrong("start_ts is not a time"))?),
        };
        let size = match (phase.batch_size, phase.batch_size_devices) {
            (None, None) => PhaseSize::Rest,
            (Some(percent), None) => PhaseSize::Percent(percent),
            (None, Some(count)) => PhaseSize::Devices(count),
            (Some(_), Some(_)) => return Err(wrong("batch_size or batch_size_devices, not both")),
        };
        Ok((start, size))
    };
    wanted.into_iter().map(phase).collect()
}

/// Of a target: numbers of devices, a filter, and devices that it cannot be for.
type Members = (RoaringBitmap, Option<Value>, Vec<CreateError>);

/// The numbers of the devices that it lists, and the filter that it is for. Of a filter nobody is listed before it asks.
async fn members(shared: &Shared, target: &Target) -> Result<Members, ApiError> {
    let store = &shared.service.store;
    match target {
        Target::All => Ok((store.device_numbers(&accepted()).await?, None, Vec::new())),
        Target::Group(group) => {
            let query = DeviceQuery { group: Some(group.clone()), ..accepted() };
            Ok((store.device_numbers(&query).await?, None, Vec::new()))
        }
        Target::Devices(ids) => {
            let (numbers, refused) = listed(shared, ids).await?;
            Ok((numbers, None, refused))
        }
        Target::Filter(id) => {
            let filter: Option<Filter> = shared.service.catalogue.document(Kind::Filter, id);
            let filter = filter.ok_or_else(|| {
                ApiError::unprocessable("there is no filter with that id").about("filter_id")
            })?;
            filter_query(&filter)?;
            Ok((RoaringBitmap::new(), Some(json!(filter)), Vec::new()))
        }
    }
}

fn accepted() -> DeviceQuery {
    DeviceQuery { statuses: vec![AuthStatus::Accepted], ..DeviceQuery::default() }
}

/// The devices for which a filter holds now.
pub(super) async fn filtered(shared: &Shared, filter: &Value) -> Result<RoaringBitmap, ApiError> {
    let filter = Filter::deserialize(filter)
        .map_err(|_| ApiError::unprocessable("the filter is of a server that knows more"))?;
    let query = DeviceQuery { statuses: vec![AuthStatus::Accepted], ..filter_query(&filter)? };
    Ok(shared.service.store.device_numbers(&query).await?)
}

/// The numbers of devices that are named. Something can also be ordered for a device that is let in before it is heard of; but
/// one that nobody has decided about, or that is kept out, may be anybody, and may never come.
async fn listed(shared: &Shared, ids: &[String]) -> Result<(RoaringBitmap, Vec<CreateError>), ApiError> {
    let (mut numbers, mut refused) = (RoaringBitmap::new(), Vec::new());
    let ids: BTreeSet<&String> = ids.iter().collect();
    for id in ids {
        let Some(device) = shared.service.store.device(id).await? else {
            refused.push(CreateError::UnknownDevice(id.clone()));
            continue;
        };
        match device.status() {
            AuthStatus::Accepted | AuthStatus::Preauthorized => {
                numbers.insert(device.number);
            }
            AuthStatus::Noauth | AuthStatus::Rejected | AuthStatus::Pending => {
                refused.push(CreateError::NotAccepted(id.clone()));
            }
        }
    }
    Ok((numbers, refused))
}

/// What is active already, for the same devices. The rule refuses what another request or another process makes at the same
/// time; this finds also what an older server has made, which has no key.
pub(super) fn equal(shared: &Shared, new: &NewDeployment) -> Option<String> {
    let active = shared.service.catalogue.active();
    let equal = active.iter().find(|active| {
        let other = &active.deployment;
        other.name == new.name
            && other.artifact_name == new.artifact_name
            && other.filter == new.filter
            && (new.filter.is_some() || *active.members == new.members)
    });
    equal.map(|equal| equal.deployment.id.clone())
}
