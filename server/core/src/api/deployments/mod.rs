//! Deployments: made, watched and stopped by people.

mod create;
mod dry_run;
mod sets;
mod show;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::routes::{Route, made};
use super::seen::{self, Seen, tagged};
use super::{ApiError, Call, Reply, Shared, reply, updates};
use crate::domain::configuration::ConfigureError;
use crate::domain::rollout::{self, CreateError, EndError, ReportError};
use crate::model::{Budget, Deployment, FleetBudget, Status};
use crate::work::{Key, Kind, NotLoaded, Work};

pub(super) use create::retries;

/// The reference server's field that asks for something that this one does not have.
const NOT_BUILT: [&str; 1] = ["filter_version"];

/// What lists can be asked.
const QUERIES: &[&str] =
    &["status", "type", "search", "id*", "name*", "created_before", "created_after", "sort"];

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/management/v1|v2/deployments/deployments", "Deploy")
        .takes(made::<create::Wanted>)
        .status(201)
        .fails(&[409, 422]),
    Route::post("/api/management/v1|v2/deployments/deployments/group/{group}", "Deploy to a group")
        .takes(made::<create::Wanted>)
        .status(201)
        .fails(&[409, 422]),
    Route::post(
        "/api/management/v1|v2/deployments/deployments/dry_run",
        "Say what a deployment would do, and make none",
    )
    .takes(made::<create::Wanted>)
    .gives("DryRun")
    .fails(&[409, 422]),
    Route::get("/api/management/v1/deployments/limits/downloads", "The budget of all deployments together")
        .gives("FleetBudget"),
    Route::put(
        "/api/management/v1/deployments/limits/downloads",
        "Set the budget of all deployments together",
    )
    .takes(made::<Budget>)
    .fails(&[412]),
    Route::get("/api/management/v1/deployments/deployments", "List deployments")
        .queries(QUERIES)
        .paged()
        .gives("[Deployment]"),
    Route::get("/api/management/v2/deployments/deployments", "List deployments, with more of each")
        .queries(QUERIES)
        .paged()
        .gives("[Deployment]"),
    Route::post(
        "/api/management/v1|v2/deployments/deployments/statistics/list",
        "Count the statuses of some deployments",
    )
    .takes(made::<show::Many>)
    .gives("[StatisticsOfOne]"),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/devices/{device}",
        "The deployments of a device",
    )
    .queries(&["status"])
    .paged()
    .gives("[HistoryEntry]"),
    Route::delete(
        "/api/management/v1|v2/deployments/deployments/devices/{device}",
        "End all deployments on a device",
    ),
    Route::delete(
        "/api/management/v1|v2/deployments/deployments/devices/{device}/history",
        "Tell no more of what has ended on a device",
    )
    .fails(&[404]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/devices/{device}/why",
        "Why a device has not got what is deployed",
    )
    .gives("Why")
    .fails(&[404]),
    Route::get("/api/management/v1/deployments/deployments/{deployment}", "One deployment")
        .gives("Deployment")
        .fails(&[404]),
    Route::get("/api/management/v2/deployments/deployments/{deployment}", "One deployment, with more of it")
        .gives("Deployment")
        .fails(&[404]),
    Route::patch(
        "/api/management/v1|v2/deployments/deployments/{deployment}",
        "Change the update control map of a deployment",
    )
    .takes(made::<Patch>)
    .fails(&[404, 412, 422]),
    Route::put(
        "/api/management/v1|v2/deployments/deployments/{deployment}/status",
        "Abort, hold or resume a deployment",
    )
    .takes(made::<NewStatus>)
    .fails(&[404, 409, 412, 422]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/{deployment}/statistics",
        "Count the statuses of a deployment",
    )
    .gives("{count}")
    .fails(&[404]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/{deployment}/devices",
        "List the devices of a deployment",
    )
    .queries(&["status"])
    .gives("[DeviceDeployment]")
    .fails(&[404]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/{deployment}/devices/list",
        "The same, in pages",
    )
    .queries(&["status"])
    .paged()
    .gives("[DeviceDeployment]")
    .fails(&[404]),
    Route::delete(
        "/api/management/v1|v2/deployments/deployments/{deployment}/devices/{device}",
        "End a deployment on one device",
    )
    .fails(&[404, 409, 422]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/{deployment}/device_list",
        "The ids of the devices of a deployment",
    )
    .paged()
    .gives("[text]")
    .fails(&[404]),
    Route::get(
        "/api/management/v1|v2/deployments/deployments/{deployment}/devices/{device}/log",
        "What a device has logged",
    )
    .gives_text("text/plain")
    .fails(&[404]),
];

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    if let [one, ..] = rest {
        if !matches!(*one, "group" | "statistics" | "devices" | "releases" | "dry_run") {
            reply::check_id(one)?;
        }
    }
    match (rest, &call.method) {
        ([], &Method::POST) => create::create(shared, call, None).await,
        (["group", name], &Method::POST) => {
            create::create(shared, call, Some(super::call::decode(name))).await
        }
        (["dry_run"], &Method::POST) => dry_run::dry_run(shared, call).await,
        ([], &Method::GET) => show::list(shared, call, Version::of(version)).await,
        (["statistics", "list"], &Method::POST) => show::statistics_of_many(shared, call).await,
        (["devices", device], &Method::GET) => show::history(shared, call, device).await,
        (["devices", device], &Method::DELETE) => end_for(shared, device).await,
        (["devices", device, "history"], &Method::DELETE) => forget_history(shared, device).await,
        (["devices", device, "why"], &Method::GET) => show::why(shared, device).await,
        ([id], &Method::GET) => {
            let deployment = found(shared, id).await?;
            let mut described = show::describe(shared, &deployment, Version::of(version));
            if let Some(canaries) = &deployment.canaries {
                described["rust_ota"]["canaries"]["devices"] =
                    json!(sets::ids(shared, &canaries.devices).await?);
            }
            Ok(with_mark(&deployment, &described))
        }
        ([id], &Method::PATCH) => patch(shared, call, id).await,
        ([id, "status"], &Method::PUT) => set_status(shared, call, id).await,
        ([id, "statistics"], &Method::GET) => {
            let deployment = found(shared, id).await?;
            Ok(reply::json(StatusCode::OK, &show::statistics(&deployment)))
        }
        ([id, "devices"], &Method::GET) => show::devices(shared, call, id, false).await,
        ([id, "devices", "list"], &Method::GET) => show::devices(shared, call, id, true).await,
        ([id, "devices", device], &Method::DELETE) => abort_on(shared, id, device).await,
        ([id, "device_list"], &Method::GET) => show::device_list(shared, call, id).await,
        ([id, "devices", device, "log"], &Method::GET) => {
            let text = shared.service.store.log(id, device).await?.ok_or_else(ApiError::not_found)?;
            Ok(reply::bytes(StatusCode::OK, "text/plain", text))
        }
        _ => Err(ApiError::no_route()),
    }
}

async fn found(shared: &Shared, id: &str) -> Result<Deployment, ApiError> {
    shared.service.store.deployment(id).await?.ok_or_else(ApiError::not_found)
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewDeploymentStatus")]
struct NewStatus {
    status: String,
}

/// `aborted` ends it, `held` lets no further device begin, `inprogress` lets it go on.
async fn set_status(shared: &Shared, call: &Call, id: &str) -> Result<Reply, ApiError> {
    let wanted = call.json::<NewStatus>()?.status;
    let keys = vec![Key::Deployment(id.to_owned())];
    let (id, seen) = (id.to_owned(), seen::tags(call));
    match wanted.as_str() {
        "aborted" => {
            shared.change(keys, move |work| rollout::abort(work, &id, seen.as_deref())).await?;
        }
        "held" | "inprogress" => {
            let held = (wanted == "held").then(|| "held by a person".to_owned());
            let rule = move |work: &mut Work| rollout::hold(work, &id, seen.as_deref(), held.as_deref());
            shared.change(keys, rule).await?;
        }
        _ => return Err(ApiError::bad_request("the status to set is aborted, held or inprogress")),
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// What can be changed of a deployment.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeploymentPatch")]
struct Patch {
    #[serde(default)]
    update_control_map: Option<Value>,
}

/// A change of what is deployed already: the update control map.
async fn patch(shared: &Shared, call: &Call, id: &str) -> Result<Reply, ApiError> {
    refuse_unknown(call, &["update_control_map"])?;
    let map = call.json::<Patch>()?.update_control_map.filter(|map| !map.is_null());
    if map.as_ref().is_some_and(|map| !map.is_object()) {
        return Err(ApiError::bad_request("update_control_map is an object"));
    }
    let (own, seen) = (id.to_owned(), seen::tags(call));
    let keys = vec![Key::Deployment(own.clone())];
    let rule = move |work: &mut Work| rollout::set_control_map(work, &own, seen.as_deref(), map.clone());
    shared.change(keys, rule).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// The entity tag of a deployment has two parts: what people change, which is what a change is compared with, and all of it. So
/// what devices report in between is in nobody's way.
fn with_mark(deployment: &Deployment, described: &Value) -> Reply {
    let mut reply = reply::json(StatusCode::OK, described);
    let all = reply::etag_of(described);
    let tag = format!("\"{}-{}\"", rollout::mark(deployment), all.trim_matches('"'));
    seen::put_tag(&mut reply, &tag);
    reply
}

async fn abort_on(shared: &Shared, id: &str, device: &str) -> Result<Reply, ApiError> {
    let keys = vec![
        Key::Deployment(id.to_owned()),
        Key::Device(device.to_owned()),
        Key::Members(id.to_owned()),
        Key::Record(id.to_owned(), device.to_owned()),
    ];
    let (own, device) = (id.to_owned(), device.to_owned());
    shared.change(keys, move |work| rollout::abort_on(work, &own, &device)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Ends a device's part in every active deployment.
async fn end_for(shared: &Shared, id: &str) -> Result<Reply, ApiError> {
    let (catalogue, id) = (shared.service.catalogue.clone(), id.to_owned());
    let rule = move |work: &mut Work| {
        let number = work.device(&id)?.map_or(0, |device| device.number);
        rollout::end_for(work, &id, &catalogue.active_ids(number), Status::Aborted)
    };
    shared.change(Vec::new(), rule).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// What all devices together may load.
pub(super) async fn downloads(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    match call.method {
        Method::GET => {
            let fleet = updates::fleet(shared).await?;
            let budget = fleet.as_ref().map(updates::Fleet::budget);
            let described = fleet.map_or_else(|| json!({}), |fleet| fleet.describe());
            Ok(tagged(reply::json(StatusCode::OK, &described), &budget))
        }
        Method::PUT => {
            let wanted: Budget = call.json()?;
            let is_empty = wanted.bytes_per_hour.or(wanted.in_flight).is_none();
            let budget = (!is_empty).then_some(wanted);
            if let Some(budget) = &budget {
                rollout::check_budget(budget).map_err(ApiError::bad_request)?;
            }
            let keys = vec![Key::Document(Kind::Budget, rollout::FLEET.to_owned())];
            let seen = Seen::of(call);
            let rule = move |work: &mut Work| {
                let now = work.document::<FleetBudget>(Kind::Budget, rollout::FLEET)?;
                seen.is(&now.map(|now| now.budget))?;
                Ok::<_, ApiError>(rollout::set_fleet_budget(work, budget)?)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// Takes away what has ended for a device. Of a device that never was there is nothing, and nothing is remembered.
async fn forget_history(shared: &Shared, device: &str) -> Result<Reply, ApiError> {
    if shared.service.store.history(device, 0, 1).await?.total > 0 {
        let keys = vec![Key::Document(Kind::History, device.to_owned())];
        let device = device.to_owned();
        shared.change(keys, move |work| rollout::forget_history(work, &device)).await?;
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
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

/// What is wrong with a member of a deployment that is ordered.
fn wrong(field: &'static str, what: &str) -> ApiError {
    ApiError::bad_request(&format!("{field}: {what}")).about(field)
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> ApiError {
        match error {
            CreateError::NotLoaded => NotLoaded.into(),
            CreateError::NoArtifact => {
                ApiError::unprocessable("no artifact has that name").about("artifact_name")
            }
            CreateError::NoDevices => {
                ApiError::unprocessable("the deployment would be for no device").about("devices")
            }
            CreateError::UnknownDevice(id) => {
                ApiError::unprocessable(&format!("there is no device {id}")).about("devices")
            }
            CreateError::NotAccepted(id) => {
                ApiError::unprocessable(&format!("device {id} is not accepted")).about("devices")
            }
            CreateError::TooManyGone => ApiError::unavailable(
                "very many devices are being decommissioned: which are left is not known",
            ),
            CreateError::Exists(id) => {
                let error = ApiError::conflict(&format!("deployment {id} is active and the same"));
                ApiError { deployment: Some(id), ..error }
            }
            CreateError::Phases(what) => wrong("phases", what),
            CreateError::Stop(what) => wrong("stop", what),
            CreateError::Windows(what) => wrong("windows", what),
            CreateError::Budget(what) => wrong("budget", what),
            CreateError::Canaries(what) => wrong("canaries", what),
            CreateError::NoRandomness => ApiError::internal("no random numbers"),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> ApiError {
        match error {
            ReportError::NotLoaded => NotLoaded.into(),
            ReportError::Unauthorized => ApiError::unauthorized("dev auth: unauthorized"),
            ReportError::NotFound => ApiError::not_found(),
            ReportError::Aborted => ApiError::conflict("the deployment was aborted"),
            ReportError::Changed => {
                ApiError::new(StatusCode::PRECONDITION_FAILED, "somebody else has changed it")
            }
            ReportError::Finished => ApiError::unprocessable("the deployment is finished"),
        }
    }
}

impl From<ConfigureError> for ApiError {
    fn from(error: ConfigureError) -> ApiError {
        match error {
            ConfigureError::NotLoaded => NotLoaded.into(),
            ConfigureError::Unauthorized => ApiError::unauthorized("dev auth: unauthorized"),
            ConfigureError::NotFound => ApiError::not_found(),
            ConfigureError::Create(error) => error.into(),
        }
    }
}

impl From<EndError> for ApiError {
    fn from(error: EndError) -> ApiError {
        match error {
            EndError::NotLoaded => NotLoaded.into(),
            EndError::NoRandomness => ApiError::internal("no random numbers"),
        }
    }
}
