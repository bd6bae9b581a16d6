//! Deltas that the server makes: its jobs, and what people want of them.

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paging::Page;
use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::deltas::{self as rules, DeltaJob, DeltaSettings, State};
use crate::work::{Key, Kind};

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get(
        "/api/management/v2/deployments/deployments/releases/delta/jobs",
        "List the jobs that make deltas",
    )
    .queries(&["status", "deployment_id", "to_version"])
    .paged()
    .gives("[DeltaJob]"),
    Route::get(
        "/api/management/v2/deployments/deployments/releases/delta/jobs/{job}",
        "One job that makes a delta",
    )
    .gives("DeltaJob")
    .fails(&[404]),
    Route::get("/api/management/v1/deployments/config", "How deltas are made").gives("DeltaConfig"),
    Route::put("/api/management/v1/deployments/config/binary_delta", "Change how deltas are made")
        .takes(made::<Wanted>)
        .fails(&[422]),
];

/// `releases/delta/jobs`: the newest first.
pub(super) fn jobs(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let catalogue = &shared.service.catalogue;
    match (rest, &call.method) {
        ([], &Method::GET) => {
            let page = Page::of(call)?;
            let status = match call.query("status").filter(|name| !name.is_empty()) {
                None => None,
                Some(name) => Some(State::parse(&name).ok_or_else(|| {
                    ApiError::bad_request("status: a job is pending, queued, success or failed")
                })?),
            };
            let deployment = call.query("deployment_id").filter(|id| !id.is_empty());
            let release = call.query("to_version").filter(|name| !name.is_empty());
            let mut found: Vec<(String, DeltaJob)> = catalogue.documents(Kind::DeltaJob);
            found.retain(|(_, job)| {
                status.is_none_or(|status| job.state == status)
                    && deployment.as_ref().is_none_or(|id| *id == job.deployment)
                    && release.as_ref().is_none_or(|name| *name == job.to_version)
            });
            found.sort_by(|(a, one), (b, other)| (other.created, a).cmp(&(one.created, b)));
            Ok(page.list(call, &found, |(_, job)| describe(job)))
        }
        ([id], &Method::GET) => {
            reply::check_id(id)?;
            let job: Option<DeltaJob> = catalogue.document(Kind::DeltaJob, id);
            Ok(reply::json(StatusCode::OK, &describe(&job.ok_or_else(ApiError::not_found)?)))
        }
        _ => Err(ApiError::no_route()),
    }
}

fn describe(job: &DeltaJob) -> Value {
    // The id of an artifact that is still to be made is nobody's business.
    let artifact = job.artifact.as_ref().filter(|_| job.state == State::Success);
    let mut described = json!({
        "id": job.id,
        "deployment_id": job.deployment,
        "from_version": job.from_version,
        "to_version": job.to_version,
        "devices_types_compatible": job.device_types,
        "status": job.state,
        "rust_ota": {
            "created": job.created,
            "devices": job.devices,
            "reason": job.reason,
            "source_artifact_id": job.source,
            "target_artifact_id": job.target,
            "artifact_id": artifact,
            "bytes": job.bytes,
            "full_bytes": job.full_bytes,
        },
    });
    for (name, time) in [("started", job.started), ("finished", job.finished)] {
        if let Some(time) = time {
            described[name] = json!(time);
        }
    }
    described
}

/// `deployments/config`.
pub(super) async fn config(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::GET) => {
            let settings: Option<DeltaSettings> =
                shared.service.catalogue.document(Kind::Settings, rules::SETTINGS);
            let at_once = shared.options.deltas;
            Ok(reply::json(
                StatusCode::OK,
                &json!({ "delta": {
                    "enabled": at_once > 0,
                    "binary_delta": { "rust_ota": settings.unwrap_or_default() },
                    "rust_ota": { "format": "rust-ota-delta", "at_once": at_once },
                } }),
            ))
        }
        (["binary_delta"], &Method::PUT) => {
            let settings = wanted(call)?;
            let keys = vec![Key::Document(Kind::Settings, rules::SETTINGS.to_owned())];
            shared.change(keys, move |work| rules::set(work, settings)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::no_route()),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewDeltaConfig")]
struct Wanted {
    #[serde(default)]
    xdelta_args: Option<Map<String, Value>>,
    #[serde(default)]
    rust_ota: Option<DeltaSettings>,
}

/// What a body wants. What this server's format does not have is refused: who sets it would take it to be in force.
fn wanted(call: &Call) -> Result<DeltaSettings, ApiError> {
    let wanted: Wanted = call.json()?;
    if wanted.xdelta_args.is_some_and(|args| args.values().any(|value| !value.is_null())) {
        return Err(ApiError::unprocessable(
            "xdelta_args: deltas are made in the format rust-ota-delta, which has no arguments of xdelta3",
        ));
    }
    Ok(wanted.rust_ota.unwrap_or_default())
}
