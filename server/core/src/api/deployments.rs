//! Deployments: made, watched and stopped by people.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paging::{Direction, Page};
use super::{ApiError, Call, Reply, Shared, artifacts, reply};
use crate::domain::fleet::{Fleet, NewDeployment, Progress, Target};
use crate::domain::limits;
use crate::domain::model::{self, Deployment, DeviceDeployment, Status};
use crate::domain::time::Timestamp;

/// Most entries of one page of a device's history, as in the reference server.
const HISTORY_PER_PAGE: usize = 20;

/// What `status` of a list of deployments may be. None is ever `scheduled` here: that is for phases.
const STATUSES: [&str; 4] = ["scheduled", "pending", "inprogress", "finished"];

/// What the reference server's deployments have and those of this one do not: each of them says that not every device
/// is to have the update at once, or that it is to have something else, so none may be overlooked.
const NOT_BUILT: [&str; 6] =
    ["phases", "retries", "update_control_map", "filter_id", "max_devices", "autogenerate_delta"];

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    if let [one, ..] = rest {
        if !matches!(*one, "group" | "statistics" | "devices" | "releases") {
            reply::check_id(one)?;
        }
    }
    match (rest, &call.method) {
        ([], &Method::POST) => create(shared, call, None).await,
        (["group", name], &Method::POST) => create(shared, call, Some(super::call::decode(name))).await,
        ([], &Method::GET) => list(shared, call, Version::of(version)),
        (["statistics", "list"], &Method::POST) => statistics_of_many(shared, call),
        (["devices", device], &Method::GET) => history(shared, call, device),
        (["devices", device], &Method::DELETE) => {
            shared
                .change(|fleet, now| fleet.end_for(device, Status::Aborted, now).map(|changes| ((), changes)))
                .await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id], &Method::GET) => {
            let fleet = shared.fleet();
            let deployment = fleet.deployment(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &describe(&fleet, deployment, Version::of(version))))
        }
        ([id, "status"], &Method::PUT) => abort(shared, call, id).await,
        ([id, "statistics"], &Method::GET) => {
            let progress = shared.fleet().progress(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &statistics(&progress.counts)))
        }
        ([id, "devices"], &Method::GET) => devices(shared, call, id, false),
        ([id, "devices", "list"], &Method::GET) => devices(shared, call, id, true),
        ([id, "device_list"], &Method::GET) => {
            let page = Page::of(call)?;
            let fleet = shared.fleet();
            let deployment = fleet.deployment(id).ok_or_else(ApiError::not_found)?;
            Ok(page.list(call, &deployment.devices, String::clone))
        }
        ([id, "devices", device, "log"], &Method::GET) => log(shared, id, device).await,
        _ => Err(ApiError::not_found()),
    }
}

async fn abort(shared: &Shared, call: &Call, id: &str) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct NewStatus {
        status: String,
    }
    if call.json::<NewStatus>()?.status != "aborted" {
        return Err(ApiError::bad_request("the only status to set is aborted"));
    }
    shared.change(|fleet, now| fleet.abort(id, now)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// What a device told about its failure.
async fn log(shared: &Shared, id: &str, device: &str) -> Result<Reply, ApiError> {
    let logs = shared.store.logs.clone();
    let (id, device) = (id.to_owned(), device.to_owned());
    let read = tokio::task::spawn_blocking(move || logs.read(&id, &device)).await;
    let text = read.map_err(|_| ApiError::not_found())??.ok_or_else(ApiError::not_found)?;
    Ok(reply::bytes(StatusCode::OK, "text/plain", text))
}

/// The version of the API that is asked: the second says more about a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

impl Version {
    fn of(version: &str) -> Version {
        if version == "v2" { Version::Second } else { Version::First }
    }
}

/// Refuses a body that asks for more than `known`: whoever has written it expects that it is done, and a deployment
/// that is restricted by it must not become one that is not. What asks for nothing (`null`, `false`, 0, `""`, `[]`,
/// `{}`) may be there.
pub(super) fn refuse_unknown(call: &Call, known: &[&str]) -> Result<(), ApiError> {
    for (name, value) in call.json::<Map<String, Value>>()? {
        if known.contains(&name.as_str()) || asks_for_nothing(&value) {
            continue;
        }
        let name: String = name.chars().take(64).collect();
        return Err(ApiError::unprocessable(&if NOT_BUILT.contains(&name.as_str()) {
            format!(
                "{name}: this server does not have that, and without it the deployment would be another one"
            )
        } else {
            format!("{name}: a deployment has no such field")
        }));
    }
    Ok(())
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
    }
}

#[derive(Deserialize)]
struct Wanted {
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
}

async fn create(shared: &Shared, call: &Call, group: Option<String>) -> Result<Reply, ApiError> {
    let known = ["name", "artifact_name", "devices", "all_devices", "group", "force_installation"];
    refuse_unknown(call, &known)?;
    let wanted: Wanted = call.json()?;
    let good = |text: &str| !text.is_empty() && text.chars().count() <= limits::NAME_CHARS;
    if !good(&wanted.name) || !good(&wanted.artifact_name) {
        return Err(ApiError::bad_request("name and artifact_name have 1 to 256 characters"));
    }
    // A list of no devices is not all devices, and not those of a group that stands beside it.
    if wanted.devices.as_ref().is_some_and(Vec::is_empty) && group.is_none() {
        return Err(ApiError::bad_request("devices: cannot be empty"));
    }
    let devices = wanted.devices.unwrap_or_default();
    let target = match (group.or(wanted.group), wanted.all_devices, devices) {
        (Some(group), false, devices) if devices.is_empty() => Target::Group(group),
        (None, true, devices) if devices.is_empty() => Target::All,
        (None, false, devices) if devices.is_empty() => {
            return Err(ApiError::bad_request("a deployment needs devices, all_devices or a group"));
        }
        (None, false, devices) => Target::Devices(devices),
        _ => return Err(ApiError::bad_request("only one of devices, all_devices and group")),
    };
    let new = NewDeployment {
        name: wanted.name,
        artifact_name: wanted.artifact_name,
        target,
        force_installation: wanted.force_installation,
        configuration: None,
    };
    let id = shared.change(|fleet, now| fleet.create(new, now)).await?;
    Ok(reply::created(&format!("./management/v1/deployments/deployments/{id}")))
}

fn list(shared: &Shared, call: &Call, version: Version) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let (status, search) = (one_of(call, "status", &STATUSES)?, call.query("search"));
    let kind = one_of(call, "type", &["software", "configuration"])?;
    let direction = match call.query("sort") {
        None => Direction::Descending,
        Some(text) => Direction::parse(&text)?,
    };
    let (ids, names) = (call.queries("id"), call.queries("name"));
    let time = |name: &str| match call.query(name) {
        None => Ok(None),
        Some(text) => {
            let seconds = text.parse::<u64>().ok().map(|seconds| Timestamp(seconds.saturating_mul(1000)));
            let time = seconds.or_else(|| Timestamp::parse(&text));
            time.map(Some).ok_or_else(|| ApiError::bad_request(&format!("{name} is not a time")))
        }
    };
    let (before, after) = (time("created_before")?, time("created_after")?);
    let fleet = shared.fleet();
    let has = |deployment: &&Deployment| {
        let own_status = || fleet.progress(&deployment.id).map_or("", |progress| progress.status);
        status.as_ref().is_none_or(|status| status == own_status())
            && kind.as_ref().is_none_or(|kind| kind == type_of(deployment))
            && search
                .as_ref()
                .is_none_or(|text| deployment.name.contains(text) || deployment.artifact_name.contains(text))
            && (ids.is_empty() || ids.contains(&deployment.id))
            && (names.is_empty() || names.contains(&deployment.name))
            && before.is_none_or(|time| deployment.created <= time)
            && after.is_none_or(|time| deployment.created >= time)
    };
    let mut found: Vec<&Deployment> = fleet.deployments().filter(has).collect();
    match direction {
        Direction::Ascending => found.reverse(),
        Direction::Descending => {}
    }
    Ok(page.list(call, &found, |deployment| describe(&fleet, deployment, version)))
}

/// The value of a query that can be one of these only. Another one would be a list of nothing, or of everything.
fn one_of(call: &Call, name: &str, known: &[&str]) -> Result<Option<String>, ApiError> {
    match call.query(name).filter(|value| !value.is_empty()) {
        Some(value) if !known.contains(&value.as_str()) => {
            Err(ApiError::bad_request(&format!("{name} is one of {}", known.join(", "))))
        }
        value => Ok(value),
    }
}

fn type_of(deployment: &Deployment) -> &'static str {
    match deployment.configuration {
        Some(_) => "configuration",
        None => "software",
    }
}

fn describe(fleet: &Fleet, deployment: &Deployment, version: Version) -> Value {
    let Progress { counts, status, total_size } = fleet.progress(&deployment.id).unwrap_or_default();
    let artifacts: Vec<&str> = fleet
        .artifacts()
        .filter(|artifact| artifact.name == deployment.artifact_name)
        .map(|artifact| artifact.id.as_str())
        .collect();
    let count = deployment.devices.len();
    let mut described = json!({
        "id": deployment.id,
        "name": deployment.name,
        "artifact_name": deployment.artifact_name,
        "created": deployment.created,
        "status": status,
        "device_count": count,
        "max_devices": count,
        "initial_device_count": count,
        "artifacts": artifacts,
        "groups": deployment.group.iter().collect::<Vec<_>>(),
        "type": type_of(deployment),
        "force_installation": deployment.force_installation,
        "statistics": { "status": statistics(&counts), "total_size": total_size },
    });
    if let Some(settings) = &deployment.configuration {
        described["configuration"] = Value::String(json!(settings).to_string());
    }
    match version {
        Version::First => {}
        // What this server has not, as it is where nobody has asked for it.
        Version::Second => {
            described["retries"] = json!(0);
            described["dynamic"] = json!(false);
            described["autogenerate_delta"] = json!(false);
        }
    }
    if let Some(finished) = deployment.finished {
        described["finished"] = json!(finished);
    }
    described
}

/// Counts of the twelve statuses that people see, and of removed devices when there are any.
fn statistics(counts: &BTreeMap<Status, usize>) -> Value {
    let shown = |(status, count): &(&Status, &usize)| **status != Status::Decommissioned || **count > 0;
    let entries: Map<String, Value> =
        counts.iter().filter(shown).map(|(status, count)| (status.name().to_owned(), json!(count))).collect();
    Value::Object(entries)
}

fn statistics_of_many(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct Wanted {
        deployment_ids: Vec<String>,
    }
    let wanted: Wanted = call.json()?;
    let fleet = shared.fleet();
    let found: Vec<Value> = wanted
        .deployment_ids
        .iter()
        .filter_map(|id| Some(json!({ "id": id, "stats": statistics(&fleet.progress(id)?.counts) })))
        .collect();
    Ok(reply::json(StatusCode::OK, &found))
}

fn devices(shared: &Shared, call: &Call, id: &str, paged: bool) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let status = device_status(call)?;
    let fleet = shared.fleet();
    let deployment = fleet.deployment(id).ok_or_else(ApiError::not_found)?;
    let mut found = fleet.devices_of(id).ok_or_else(ApiError::not_found)?;
    let own = |record: &Option<&DeviceDeployment>| record.map_or(Status::Pending, |record| record.status);
    if let Some(wanted) = &status {
        found.retain(|(_, record)| is_wanted(wanted, own(record)));
    }
    let describe = |(device, record): &(&str, Option<&DeviceDeployment>)| {
        let mut described = describe_record(&fleet, deployment, *record);
        described["id"] = json!(device);
        described
    };
    match paged {
        true => Ok(page.list(call, &found, describe)),
        false => Ok(reply::json(StatusCode::OK, &found.iter().map(describe).collect::<Vec<_>>())),
    }
}

/// `status` of a list of deployments on devices.
fn device_status(call: &Call) -> Result<Option<String>, ApiError> {
    let mut known = vec!["all", "active", "finished", "pause"];
    known.extend(model::STATUSES.iter().map(|status| status.name()));
    one_of(call, "status", &known)
}

fn is_wanted(wanted: &str, status: Status) -> bool {
    match wanted {
        "all" => true,
        "active" => !status.is_finished(),
        "finished" => status.is_finished(),
        "pause" => status.name().starts_with("pause"),
        name => status.name() == name,
    }
}

fn describe_record(fleet: &Fleet, deployment: &Deployment, record: Option<&DeviceDeployment>) -> Value {
    let Some(record) = record else {
        return json!({ "status": Status::Pending, "created": deployment.created, "log": false });
    };
    let mut described = json!({ "status": record.status, "created": record.created, "log": record.log });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            described[name] = value;
        }
    };
    set("started", record.started.map(|time| json!(time)));
    set("finished", record.finished.map(|time| json!(time)));
    set("substate", record.substate.as_ref().map(|text| json!(text)));
    set("device_type", record.asked.as_ref().map(|asked| json!(asked.device_type)));
    let artifact = record.artifact.as_ref().and_then(|id| fleet.artifact(id));
    set("image", artifact.map(artifacts::describe_image));
    described
}

fn history(shared: &Shared, call: &Call, device: &str) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    if page.per_page > HISTORY_PER_PAGE {
        return Err(ApiError::bad_request("per_page is at most 20 here"));
    }
    let status = device_status(call)?;
    let fleet = shared.fleet();
    let mut found = fleet.history(device);
    if let Some(wanted) = &status {
        let own = |record: Option<&DeviceDeployment>| record.map_or(Status::Pending, |record| record.status);
        found.retain(|entry| is_wanted(wanted, own(entry.record)));
    }
    Ok(page.list(call, &found, |entry| {
        let mut record = describe_record(&fleet, entry.deployment, entry.record);
        record["id"] = json!(device);
        json!({
            "id": entry.record.map_or(entry.deployment.id.as_str(), |record| record.id.as_str()),
            "deployment": describe(&fleet, entry.deployment, Version::First),
            "device": record,
        })
    }))
}
