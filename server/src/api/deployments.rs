//! Deployments: made, watched and stopped by people.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paging::Page;
use super::{ApiError, Call, Reply, Shared, artifacts, reply};
use crate::domain::fleet::{Fleet, NewDeployment, Target};
use crate::domain::limits;
use crate::domain::model::{Deployment, DeviceDeployment, Status};
use crate::domain::time::Timestamp;

/// Most entries of one page of a device's history, as in the reference server.
const HISTORY_PER_PAGE: usize = 20;

pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::POST) => create(shared, call, None).await,
        (["group", name], &Method::POST) => create(shared, call, Some(super::call::decode(name))).await,
        ([], &Method::GET) => list(shared, call),
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
            Ok(reply::json(StatusCode::OK, &describe(&fleet, deployment)))
        }
        ([id, "status"], &Method::PUT) => {
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
        ([id, "statistics"], &Method::GET) => {
            let (counts, _) = shared.fleet().progress(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &statistics(&counts)))
        }
        ([id, "devices"], &Method::GET) => devices(shared, call, id, false),
        ([id, "devices", "list"], &Method::GET) => devices(shared, call, id, true),
        ([id, "device_list"], &Method::GET) => {
            let page = Page::of(call)?;
            let fleet = shared.fleet();
            let deployment = fleet.deployment(id).ok_or_else(ApiError::not_found)?;
            Ok(page.list(call, &deployment.devices, String::clone))
        }
        ([id, "devices", device, "log"], &Method::GET) => {
            let logs = shared.store.logs.clone();
            let (id, device) = ((*id).to_owned(), (*device).to_owned());
            let read = tokio::task::spawn_blocking(move || logs.read(&id, &device)).await;
            let text = read.map_err(|_| ApiError::not_found())??.ok_or_else(ApiError::not_found)?;
            Ok(reply::bytes(StatusCode::OK, "text/plain", text))
        }
        _ => Err(ApiError::not_found()),
    }
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
    artifact_name: String,
    #[serde(default)]
    devices: Vec<String>,
    #[serde(default)]
    all_devices: bool,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    force_installation: bool,
}

async fn create(shared: &Shared, call: &Call, group: Option<String>) -> Result<Reply, ApiError> {
    let wanted: Wanted = call.json()?;
    let good = |text: &str| !text.is_empty() && text.chars().count() <= limits::NAME_CHARS;
    if !good(&wanted.name) || !good(&wanted.artifact_name) {
        return Err(ApiError::bad_request("name and artifact_name have 1 to 256 characters"));
    }
    let target = match (group.or(wanted.group), wanted.all_devices, wanted.devices) {
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
    };
    let id = shared.change(|fleet, now| fleet.create(new, now)).await?;
    Ok(reply::created(&format!("./management/v1/deployments/deployments/{id}")))
}

fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let (status, search) = (call.query("status"), call.query("search"));
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
        let own_status = || fleet.progress(&deployment.id).map_or("", |(_, status)| status);
        status.as_ref().is_none_or(|status| status == own_status())
            && search
                .as_ref()
                .is_none_or(|text| deployment.name.contains(text) || deployment.artifact_name.contains(text))
            && (ids.is_empty() || ids.contains(&deployment.id))
            && (names.is_empty() || names.contains(&deployment.name))
            && before.is_none_or(|time| deployment.created <= time)
            && after.is_none_or(|time| deployment.created >= time)
    };
    let mut found: Vec<&Deployment> = fleet.deployments().filter(has).collect();
    if call.query("sort").is_some_and(|sort| sort == "asc") {
        found.reverse();
    }
    Ok(page.list(call, &found, |deployment| describe(&fleet, deployment)))
}

fn describe(fleet: &Fleet, deployment: &Deployment) -> Value {
    let (counts, status) = fleet.progress(&deployment.id).unwrap_or_default();
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
        "type": "software",
        "force_installation": deployment.force_installation,
        "statistics": { "status": statistics(&counts) },
    });
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
        .filter_map(|id| Some(json!({ "id": id, "stats": statistics(&fleet.progress(id)?.0) })))
        .collect();
    Ok(reply::json(StatusCode::OK, &found))
}

fn devices(shared: &Shared, call: &Call, id: &str, paged: bool) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let status = call.query("status");
    let fleet = shared.fleet();
    let deployment = fleet.deployment(id).ok_or_else(ApiError::not_found)?;
    let mut found = fleet.devices_of(id).ok_or_else(ApiError::not_found)?;
    let own = |record: &Option<&DeviceDeployment>| record.map_or(Status::Pending, |record| record.status);
    if let Some(wanted) = status.filter(|status| status != "all") {
        found.retain(|(_, record)| match wanted.as_str() {
            "active" => !own(record).is_finished(),
            "finished" => own(record).is_finished(),
            "pause" => own(record).name().starts_with("pause"),
            name => own(record).name() == name,
        });
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
    set("image", artifact.map(artifacts::describe_briefly));
    described
}

fn history(shared: &Shared, call: &Call, device: &str) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    if page.per_page > HISTORY_PER_PAGE {
        return Err(ApiError::bad_request("per_page is at most 20 here"));
    }
    let fleet = shared.fleet();
    let status = call.query("status");
    let mut found = fleet.history(device);
    if let Some(wanted) = status {
        found.retain(|entry| entry.record.map_or(Status::Pending, |record| record.status).name() == wanted);
    }
    Ok(page.list(call, &found, |entry| {
        let mut record = describe_record(&fleet, entry.deployment, entry.record);
        record["id"] = json!(device);
        json!({
            "id": entry.record.map_or(entry.deployment.id.as_str(), |record| record.id.as_str()),
            "deployment": describe(&fleet, entry.deployment),
            "device": record,
        })
    }))
}
