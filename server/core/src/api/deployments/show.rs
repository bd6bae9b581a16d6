//! Deployments as people see them.

use std::collections::BTreeMap;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::paging::Page;
use super::super::updates::{self, Fleet};
use super::super::{ApiError, Call, Reply, Shared, artifacts, reply};
use super::{Version, found};
use crate::domain::rollout::{self, Forgotten, Lacking, Request, Wait};
use crate::model::time::Timestamp;
use crate::model::{self, AuthStatus, Deployment, DeviceDeployment, PhaseSize, Status};
use crate::work::Kind;
use crate::work::query::{DeploymentQuery, RecordQuery};

/// Most entries of one page of a device's history, as in the reference server.
const HISTORY_PER_PAGE: usize = 20;

/// What `status` of a list of deployments may be.
const STATUSES: [&str; 4] = ["scheduled", "pending", "inprogress", "finished"];

/// Devices that a list without pages has at most.
const UNPAGED: u64 = 10_000;

pub(super) async fn list(shared: &Shared, call: &Call, version: Version) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let kind = one_of(call, "type", &["software", "configuration"])?;
    let oldest_first = match call.query("sort").as_deref() {
        None | Some("" | "desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::bad_request("sort: the order is asc or desc")),
    };
    let query = DeploymentQuery {
        states: one_of(call, "status", &STATUSES)?.into_iter().collect(),
        is_configuration: kind.map(|kind| kind == "configuration"),
        search: call.query("search"),
        ids: call.queries("id"),
        names: call.queries("name"),
        artifact_name: None,
        before: call.time("created_before")?,
        after: call.time("created_after")?,
        oldest_first,
        skip: page.skip() as u64,
        take: page.per_page as u64,
    };
    let found = shared.service.store.deployments(&query).await?;
    let shown: Vec<Value> =
        found.items.iter().map(|deployment| describe(shared, deployment, version)).collect();
    Ok(page.found(call, &shown, found.total))
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

pub(super) fn describe(shared: &Shared, deployment: &Deployment, version: Version) -> Value {
    let artifacts = shared.service.catalogue.artifacts_named(&deployment.artifact_name);
    let artifacts: Vec<&str> = artifacts.iter().map(|artifact| artifact.id.as_str()).collect();
    let count = deployment.device_count;
    let mut described = json!({
        "id": deployment.id,
        "name": deployment.name,
        "artifact_name": deployment.artifact_name,
        "created": deployment.created,
        "status": deployment.state(),
        "device_count": count,
        "max_devices": deployment.max_devices.unwrap_or(if deployment.is_dynamic() { 0 } else { count }),
        "initial_device_count": count,
        "artifacts": artifacts,
        "groups": deployment.group.iter().collect::<Vec<_>>(),
        "type": type_of(deployment),
        "force_installation": deployment.force_installation,
        "statistics": {
            "status": statistics(deployment),
            "total_size": deployment.total_size,
            "saved_size": deployment.saved_size,
        },
    });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            described[name] = value;
        }
    };
    set("configuration", deployment.configuration.as_ref().map(|all| json!(json!(all).to_string())));
    set("finished", deployment.finished.map(|time| json!(time)));
    set("filter", deployment.filter.clone());
    set("held", deployment.held.as_ref().map(|reason| json!(reason)));
    set("update_control_map", deployment.update_control_map.clone());
    if !deployment.phases.is_empty() {
        set("phases", Some(phases(deployment)));
    }
    let own = [
        ("stop", (!deployment.stop.is_empty()).then(|| json!(deployment.stop))),
        ("windows", deployment.windows.as_ref().map(|windows| json!(windows))),
        ("budget", deployment.budget.as_ref().map(|budget| json!(budget))),
        ("canaries", deployment.canaries.as_ref().map(|canaries| json!(canaries.wanted))),
    ];
    let own: Map<String, Value> =
        own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    set("rust_ota", (!own.is_empty()).then_some(Value::Object(own)));
    match version {
        Version::First => {
            if deployment.retries > 0 {
                set("retries", Some(json!(deployment.retries)));
            }
        }
        Version::Second => {
            set("retries", Some(json!(deployment.retries)));
            set("dynamic", Some(json!(deployment.is_dynamic())));
            set("autogenerate_delta", Some(json!(deployment.autogenerate_delta)));
        }
    }
    described
}

fn phases(deployment: &Deployment) -> Value {
    let phase = |phase: &model::Phase| {
        let mut described = json!({ "id": phase.id, "device_count": phase.begun });
        match phase.size {
            PhaseSize::Percent(percent) => described["batch_size"] = json!(percent),
            PhaseSize::Devices(count) => described["batch_size_devices"] = json!(count),
            PhaseSize::Rest => {}
        }
        if let Some(start) = phase.start {
            described["start_ts"] = json!(start);
        }
        described
    };
    deployment.phases.iter().map(phase).collect()
}

/// Counts of the twelve statuses that people see, and of removed devices when there are any.
pub(super) fn statistics(deployment: &Deployment) -> Value {
    let shown = |(status, count): &(Status, u64)| *status != Status::Decommissioned || *count > 0;
    let counts = deployment.all_counts().into_iter().filter(shown);
    let entries: Map<String, Value> =
        counts.map(|(status, count)| (status.name().to_owned(), json!(count))).collect();
    Value::Object(entries)
}

/// Some deployments.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeploymentIds")]
pub(super) struct Many {
    deployment_ids: Vec<String>,
}

/// Deployments whose statistics are asked for at once.
const AT_ONCE: usize = 1000;

pub(super) async fn statistics_of_many(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let wanted: Many = call.json()?;
    let ids: std::collections::BTreeSet<&String> = wanted.deployment_ids.iter().collect();
    if ids.len() > AT_ONCE {
        return Err(ApiError::bad_request(&format!("deployment_ids: at most {AT_ONCE} at once")));
    }
    let mut all = Vec::new();
    for id in ids {
        if let Some(deployment) = shared.service.store.deployment(id).await? {
            all.push(json!({ "id": id, "stats": statistics(&deployment) }));
        }
    }
    Ok(reply::json(StatusCode::OK, &all))
}

pub(super) async fn devices(shared: &Shared, call: &Call, id: &str, paged: bool) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let statuses = statuses(call)?;
    let deployment = found(shared, id).await?;
    let (skip, take) = if paged { (page.skip() as u64, page.per_page as u64) } else { (0, UNPAGED) };
    let query = RecordQuery { deployment: id.to_owned(), statuses, recorded: false, skip, take };
    let found = shared.service.store.records(&query).await?;
    let mut shown = Vec::with_capacity(found.items.len());
    for (device, record) in &found.items {
        let mut described = describe_record(shared, &deployment, record.as_ref()).await?;
        described["id"] = json!(device);
        shown.push(described);
    }
    match paged {
        true => Ok(page.found(call, &shown, found.total)),
        false if found.total > UNPAGED => {
            Err(ApiError::bad_request("too many devices: ask for .../devices/list"))
        }
        false => Ok(reply::json(StatusCode::OK, &shown)),
    }
}

/// The ids of its devices.
pub(super) async fn device_list(shared: &Shared, call: &Call, id: &str) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let members = shared.service.store.members(id).await?.ok_or_else(ApiError::not_found)?;
    let numbers: Vec<u32> = members.iter().skip(page.skip()).take(page.per_page).collect();
    let ids = shared.service.store.device_ids(&numbers).await?;
    let shown: Vec<String> = ids.into_iter().map(|(_, id)| id).collect();
    Ok(page.found(call, &shown, members.len()))
}

/// `status` of a list of deployments on devices.
fn statuses(call: &Call) -> Result<Vec<Status>, ApiError> {
    let mut known = vec!["all", "active", "finished", "pause"];
    known.extend(model::STATUSES.iter().map(|status| status.name()));
    let wanted = one_of(call, "status", &known)?;
    Ok(match wanted {
        None => Vec::new(),
        Some(wanted) => model::STATUSES.into_iter().filter(|status| is_wanted(&wanted, *status)).collect(),
    })
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

/// What a device without a record is.
fn silent(deployment: &Deployment) -> Status {
    deployment.ended.unwrap_or(Status::Pending)
}

async fn describe_record(
    shared: &Shared,
    deployment: &Deployment,
    record: Option<&DeviceDeployment>,
) -> Result<Value, ApiError> {
    let Some(record) = record else {
        let mut described =
            json!({ "status": silent(deployment), "created": deployment.created, "log": false });
        if let Some(finished) = deployment.finished.filter(|_| deployment.ended.is_some()) {
            described["finished"] = json!(finished);
        }
        return Ok(described);
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
    set("phase_id", record.phase.as_ref().map(|id| json!(id)));
    if deployment.retries > 0 {
        set("attempts", Some(json!(record.attempts)));
        set("retries", Some(json!(deployment.retries)));
    }
    let artifact = record.artifact.as_ref().and_then(|id| shared.service.catalogue.artifact(id));
    set("image", artifact.as_deref().map(artifacts::describe_image));
    Ok(described)
}

pub(super) async fn history(shared: &Shared, call: &Call, device: &str) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    if page.per_page > HISTORY_PER_PAGE {
        return Err(ApiError::bad_request("per_page is at most 20 here"));
    }
    let statuses = statuses(call)?;
    let forgotten: Option<Forgotten> = shared
        .service
        .store
        .document(Kind::History, device)
        .await?
        .and_then(|value| serde_json::from_value(value).ok());
    // With a status every entry has to be looked at, and so it has where the history was taken away; a device has few.
    let is_all = statuses.is_empty() && forgotten.is_none();
    let (skip, take) = if is_all { (page.skip() as u64, page.per_page as u64) } else { (0, UNPAGED) };
    let mut found = shared.service.store.history(device, skip, take).await?;
    if !is_all {
        found.items.retain(|(deployment, record)| {
            let own = record.as_ref().map_or(silent(deployment), |record| record.status);
            (statuses.is_empty() || statuses.contains(&own))
                && forgotten.is_none_or(|forgotten| forgotten.leaves(deployment, record.as_ref()))
        });
        found.total = found.items.len() as u64;
        found.items = found.items.into_iter().skip(page.skip()).take(page.per_page).collect();
    }
    let mut shown = Vec::new();
    for (deployment, record) in &found.items {
        let mut described = describe_record(shared, deployment, record.as_ref()).await?;
        described["id"] = json!(device);
        shown.push(json!({
            "id": record.as_ref().map_or(deployment.id.as_str(), |record| record.id.as_str()),
            "deployment": describe(shared, deployment, Version::First),
            "device": described,
        }));
    }
    Ok(page.found(call, &shown, found.total))
}

/// Why a device has not got what is deployed: each active deployment with the reason, in a word for programs and in a
/// sentence for people.
pub(super) async fn why(shared: &Shared, id: &str) -> Result<Reply, ApiError> {
    let view = shared.view(id).await?;
    let device = &view.device;
    let fleet = updates::fleet(shared).await?;
    let mut reasons = Vec::new();
    for active in shared.service.catalogue.active() {
        let record = shared.service.store.record(&active.deployment.id, id).await?;
        // What is in memory may be a moment old; this is what decides.
        let Some(deployment) = shared.service.store.deployment(&active.deployment.id).await? else {
            continue;
        };
        let is_listed = active.members.contains(device.number);
        let (code, text) = reason(shared, &view, &deployment, record.as_ref(), is_listed, fleet.as_ref());
        reasons.push(json!({
            "deployment_id": deployment.id,
            "name": deployment.name,
            "artifact_name": deployment.artifact_name,
            "code": code,
            "reason": text,
            "canary": deployment.is_canary(device.number),
        }));
    }
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "id": id,
            "status": device.status(),
            "last_heard": view.check_in,
            "deployments": reasons,
        }),
    ))
}

fn reason(
    shared: &Shared,
    view: &crate::work::query::DeviceView,
    deployment: &Deployment,
    record: Option<&DeviceDeployment>,
    is_listed: bool,
    fleet: Option<&Fleet>,
) -> (&'static str, String) {
    let (device, now) = (&view.device, Timestamp::now());
    let said = |code, text: &str| (code, text.to_owned());
    let newer_done = || said("newer-done", "the device has finished a newer deployment");
    let is_passed = deployment.sequence <= device.last_finished;
    if let Some(finished) = deployment.finished {
        return ("finished", format!("the deployment has ended at {finished}"));
    }
    if let Some(record) = record {
        let substate = record.substate.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
        return match record.status {
            Status::Noartifact => {
                let asked = record.asked.as_ref().map_or("", |asked| asked.device_type.as_str());
                ("noartifact", format!("no artifact fits what the device provides; its type is {asked:?}"))
            }
            Status::AlreadyInstalled => said("already-installed", "the device has it already"),
            Status::Failure if deployment.retries > 0 => {
                ("failure", format!("it has failed {} times{substate}", record.attempts + 1))
            }
            Status::Failure => ("failure", format!("it has failed{substate}")),
            // It waits for nothing any more.
            Status::Pending if is_passed && device.active.as_ref() != Some(&deployment.id) => newer_done(),
            Status::Pending | Status::Downloading if record.lapsed => said(
                "lapsed",
                "it was offered the deployment, says nothing, and waits for a place when it asks again",
            ),
            Status::Pending if record.attempts > 0 => {
                ("retry", format!("it has failed {} times and tries again{substate}", record.attempts))
            }
            Status::Pending
            | Status::Downloading
            | Status::PauseBeforeInstalling
            | Status::Installing
            | Status::PauseBeforeRebooting
            | Status::Rebooting
            | Status::PauseBeforeCommitting
            | Status::Success
            | Status::Aborted
            | Status::Decommissioned => (record.status.name(), format!("the device is at it{substate}")),
        };
    }
    if device.status() != AuthStatus::Accepted {
        return ("not-accepted", format!("the device is {}", device.status().name()));
    }
    if is_passed {
        return newer_done();
    }
    if !is_listed && !deployment.is_dynamic() {
        return said("not-listed", "the deployment is not for this device");
    }
    if !is_listed && !deployment.filter.as_ref().is_some_and(|filter| updates::is_in(filter, view)) {
        return said("not-in-filter", "the filter of the deployment does not hold for this device");
    }
    if let Some(active) = device.active.as_ref().filter(|active| **active != deployment.id) {
        return ("busy", format!("the device is at work on deployment {active}"));
    }
    if let Some(held) = &deployment.held {
        return ("held", format!("the deployment is held: {held}"));
    }
    if !deployment.phases.is_empty() && deployment.open_phase(now, device.number).is_none() {
        if let Some(first) = others_first(deployment, device.number, now) {
            return ("canaries", first);
        }
        let next = deployment.phases.iter().filter_map(|phase| phase.start).find(|start| *start > now);
        return match next {
            Some(start) => ("phase", format!("no phase has room; the next one begins at {start}")),
            None => said("phase-full", "no phase has room"),
        };
    }
    if let Some(windows) = &deployment.windows {
        match rollout::window_wait(windows, &view.inventory.attributes, now) {
            None => {}
            Some(Wait::NoLocalTime) => {
                return ("no-local-time", format!("the device has not reported {}", windows.attribute));
            }
            Some(Wait::Closed | Wait::InFlight | Wait::Bytes) => {
                return said("window", "it is none of the hours at which the device may begin");
            }
        }
    }
    if let Some(reason) = of_artifacts(shared, view, deployment, fleet, now) {
        return reason;
    }
    match view.check_in {
        Some(heard) if heard >= deployment.created => said("not-asked", "it may begin when it asks next"),
        Some(heard) => ("silent", format!("the device was last heard of at {heard}, before the deployment")),
        None => said("silent", "the device was never heard of"),
    }
}

/// Of a device that waits for those that begin first: how they were chosen, and when its own turn comes.
fn others_first(deployment: &Deployment, number: u32, now: Timestamp) -> Option<String> {
    let canaries = deployment.canaries.as_ref().filter(|_| !deployment.is_canary(number))?;
    let start = deployment.phases.get(1)?.start.filter(|start| *start > now)?;
    Some(format!(
        "{} other devices, chosen for their {}, begin first; the next phase begins at {start}",
        canaries.devices.len(),
        canaries.wanted.spread_by.join(", ")
    ))
}

/// What the device has reported stands for what it will say when it asks.
fn of_artifacts(
    shared: &Shared,
    view: &crate::work::query::DeviceView,
    deployment: &Deployment,
    fleet: Option<&Fleet>,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    if deployment.configuration.is_some() {
        return None;
    }
    let artifacts = shared.service.catalogue.artifacts_named(&deployment.artifact_name);
    if artifacts.is_empty() {
        return Some(("artifact-deleted", "the artifact of the deployment is not there any more".to_owned()));
    }
    let reported = view.inventory.attributes.iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let provides: BTreeMap<String, String> =
        reported.filter_map(|(name, attribute)| Some((name.clone(), text(&attribute.value)?))).collect();
    // Before it has reported its type, nothing is known of it.
    let device_type = provides.get("device_type").cloned()?;
    let artifact_name = provides.get("artifact_name").cloned().unwrap_or_default();
    if artifact_name == deployment.artifact_name && !deployment.force_installation {
        return Some((
            "already-installed",
            format!("the device has reported that {artifact_name} is installed"),
        ));
    }
    let request = Request { artifact_name, device_type, provides, complete: false };
    if let Some(chosen) = rollout::choose(&artifacts, &request) {
        let of_fleet = || fleet.and_then(|fleet| fleet.wait(chosen.size));
        return match rollout::budget_wait(deployment, true, chosen.size, now) {
            None => match of_fleet()? {
                Wait::InFlight => Some((
                    "fleet-in-flight",
                    "as many devices as the budget of the fleet has are loading".to_owned(),
                )),
                Wait::Bytes | Wait::Closed | Wait::NoLocalTime => Some((
                    "fleet-bytes",
                    "the bytes of the budget of the fleet for this hour are spent".to_owned(),
                )),
            },
            Some(Wait::InFlight) => {
                Some(("in-flight", "as many devices as the budget has are loading".to_owned()))
            }
            Some(Wait::Bytes | Wait::Closed | Wait::NoLocalTime) => {
                Some(("bytes", "the bytes of the budget for this hour are spent".to_owned()))
            }
        };
    }
    let lacks = artifacts.iter().filter_map(|artifact| match rollout::lacking(artifact, &request).err()? {
        Lacking::DeviceType(wanted) => Some(format!(
            "artifact {} is for device_type {}, the device has {}",
            artifact.id,
            wanted.join(", "),
            request.device_type
        )),
        Lacking::Depends { key, wanted, provided } => Some(format!(
            "artifact {} needs {key} to be {}, the device has {}",
            artifact.id,
            wanted.join(" or "),
            provided.unwrap_or_else(|| "none".to_owned())
        )),
    });
    Some(("no-artifact-fits", lacks.collect::<Vec<_>>().join("; ")))
}
