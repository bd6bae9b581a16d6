//! People decide about devices.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, deviceconfig, reply};
use crate::domain::admission::{self, Admission, AdmissionError};
use crate::domain::identity::Identity;
use crate::domain::pubkey::{self, PublicKey};
use crate::model::AuthStatus;
use crate::service::ChangeError;
use crate::work::Key;
use crate::work::query::{DeviceQuery, DeviceView};

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v2/devauth/devices", "List devices and their keys")
        .queries(&["id*", "status*"])
        .paged()
        .gives("[Device]"),
    Route::post("/api/management/v2/devauth/devices", "Let a device in before it is heard of")
        .takes(made::<Preauthorization>)
        .status(201)
        .fails(&[409]),
    Route::post("/api/management/v2/devauth/devices/search", "List devices by id and status")
        .takes(made::<Wanted>)
        .paged()
        .gives("[Device]"),
    Route::get("/api/management/v2/devauth/devices/count", "Count devices")
        .queries(&["status*"])
        .gives("Count"),
    Route::get("/api/management/v2/devauth/limits/max_devices", "How many devices may be accepted")
        .gives("Limit"),
    Route::get("/api/management/v2/devauth/devices/{device}", "One device").gives("Device").fails(&[404]),
    Route::delete("/api/management/v2/devauth/devices/{device}", "Decommission a device").fails(&[404]),
    Route::delete("/api/management/v2/devauth/devices/{device}/auth/{set}", "Dismiss a key").fails(&[404]),
    Route::get("/api/management/v2/devauth/devices/{device}/auth/{set}/status", "The status of a key")
        .gives("Status")
        .fails(&[404]),
    Route::put("/api/management/v2/devauth/devices/{device}/auth/{set}/status", "Accept or reject a key")
        .takes(made::<NewStatus>)
        .fails(&[404, 422]),
    Route::delete("/api/management/v2/devauth/tokens/{set}", "Revoke the tokens of a key").fails(&[404]),
];

pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["devices"], &Method::GET) => {
            let wanted =
                Wanted { id: Ids::from(call.queries("id")), status: Ids::from(call.queries("status")) };
            list(shared, call, wanted).await
        }
        (["devices"], &Method::POST) => preauthorize(shared, call).await,
        (["devices", "search"], &Method::POST) => list(shared, call, call.json()?).await,
        (["devices", "count"], &Method::GET) => {
            let wanted = Wanted { id: None, status: Ids::from(call.queries("status")) };
            let statuses = wanted.statuses()?;
            let counts = shared.service.store.device_counts().await?.into_iter();
            let counted = counts.filter(|(status, _)| statuses.is_empty() || statuses.contains(status));
            let count: u64 = counted.map(|(_, count)| count).sum();
            Ok(reply::json(StatusCode::OK, &json!({ "count": count })))
        }
        (["limits", "max_devices"], &Method::GET) => {
            let limit = match shared.options.max_devices {
                0 => json!(-1),
                most => json!(most),
            };
            Ok(reply::json(StatusCode::OK, &json!({ "limit": limit })))
        }
        (["devices", id], &Method::GET) => {
            Ok(reply::json(StatusCode::OK, &describe(&shared.view(id).await?)))
        }
        (["devices", id], &Method::DELETE) => {
            let id = (*id).to_owned();
            let keys = vec![Key::Device(id.clone())];
            let active = active(shared);
            let configured = deviceconfig::known(shared, &id).await?.deployment;
            shared.change(keys, move |work| admission::decommission(work, &id, &active)).await?;
            deviceconfig::forget_made(shared, configured).await;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["devices", id, "auth", set], &Method::DELETE) => {
            let (id, set) = ((*id).to_owned(), (*set).to_owned());
            let keys = vec![Key::Device(id.clone())];
            let active = active(shared);
            shared.change(keys, move |work| admission::dismiss(work, &id, &set, &active)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["devices", id, "auth", set, "status"], &Method::GET) => {
            let device = shared.service.store.device(id).await?.ok_or_else(ApiError::not_found)?;
            let set =
                device.auth_sets.iter().find(|known| known.id == *set).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &json!({ "status": set.status })))
        }
        (["devices", id, "auth", set, "status"], &Method::PUT) => admit(shared, call, id, set).await,
        (["tokens", id], &Method::DELETE) => {
            let id = (*id).to_owned();
            let keys = vec![Key::AuthSet(id.clone())];
            shared.change(keys, move |work| admission::revoke(work, &id)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// The active deployments that list a device. A rule asks when it runs: one that was made meanwhile is known by then.
fn active(shared: &Shared) -> impl Fn(u32) -> Vec<String> + Send + use<> {
    let catalogue = shared.service.catalogue.clone();
    move |number| catalogue.active_ids(number)
}

/// One or more.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "OneOrMore")]
#[serde(untagged)]
enum Ids {
    One(String),
    Many(Vec<String>),
}

impl Ids {
    fn from(mut ids: Vec<String>) -> Option<Ids> {
        ids.retain(|id| !id.is_empty());
        (!ids.is_empty()).then_some(Ids::Many(ids))
    }

    fn as_slice(&self) -> &[String] {
        match self {
            Ids::One(one) => std::slice::from_ref(one),
            Ids::Many(many) => many,
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeviceSearch")]
struct Wanted {
    #[serde(default)]
    id: Option<Ids>,
    #[serde(default)]
    status: Option<Ids>,
}

impl Wanted {
    fn statuses(&self) -> Result<Vec<AuthStatus>, ApiError> {
        let statuses = self.status.as_ref().map_or(&[][..], Ids::as_slice);
        let known: Option<Vec<_>> = statuses.iter().map(|name| AuthStatus::parse(name)).collect();
        known.ok_or_else(|| {
            ApiError::bad_request("status is one of accepted, pending, preauthorized, rejected and noauth")
        })
    }
}

async fn list(shared: &Shared, call: &Call, wanted: Wanted) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let statuses = wanted.statuses()?;
    let is_none = |ids: &Option<Ids>| ids.as_ref().is_some_and(|ids| ids.as_slice().is_empty());
    if is_none(&wanted.id) || is_none(&wanted.status) {
        return Ok(page.found::<Value>(call, &[], 0));
    }
    let ids = wanted.id.map_or_else(Vec::new, |ids| ids.as_slice().to_vec());
    // By status, and within one in the order of the ids.
    let query = DeviceQuery { statuses, ids, by_status: true, ..DeviceQuery::default() };
    let found = shared.devices(page.of_devices(query)).await?;
    Ok(page.found(call, &found.items.iter().map(describe).collect::<Vec<_>>(), found.total))
}

fn describe(view: &DeviceView) -> Value {
    let device = &view.device;
    let sets: Vec<Value> = device
        .auth_sets
        .iter()
        .map(|set| {
            json!({
                "id": set.id,
                "device_id": device.id,
                "identity_data": device.identity,
                "pubkey": set.pubkey,
                "status": set.status,
                "ts": set.ts,
                "rust_ota": { "sha256": pubkey::sha256_of(&set.pubkey) },
            })
        })
        .collect();
    let mut described = json!({
        "id": device.id,
        "identity_data": device.identity,
        "status": device.status(),
        "created_ts": device.created,
        "updated_ts": device.updated,
        "decommissioning": false,
        "auth_sets": sets,
    });
    if let Some(time) = view.check_in {
        described["check_in_time"] = json!(time);
    }
    described
}

#[derive(Deserialize, JsonSchema)]
struct Preauthorization {
    identity_data: BTreeMap<String, Value>,
    pubkey: String,
    #[serde(default)]
    force: bool,
}

async fn preauthorize(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let wanted: Preauthorization = call.json()?;
    let identity = Identity::new(wanted.identity_data)
        .map_err(|error| ApiError::bad_request(&format!("identity_data cannot be used: {error}")))?;
    let key = PublicKey::parse(&wanted.pubkey)
        .map_err(|_| ApiError::bad_request("invalid auth request: cannot decode public key"))?;
    let keys = vec![Key::Identity(identity.sha256.clone())];
    let force = wanted.force;
    let rule = move |work: &mut _| admission::preauthorize(work, &identity, &key.pem, force);
    match shared.make(keys, rule).await {
        Ok(id) => Ok(reply::created(&format!("/api/management/v2/devauth/devices/{id}"))),
        // What is in the way.
        Err(ChangeError::Refused(AdmissionError::Exists(id))) => {
            Ok(reply::json(StatusCode::CONFLICT, &describe(&shared.view(&id).await?)))
        }
        Err(error) => Err(ApiError::of_change(error)),
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewDeviceStatus")]
struct NewStatus {
    status: String,
}

async fn admit(shared: &Shared, call: &Call, device: &str, set: &str) -> Result<Reply, ApiError> {
    let admission = match call.json::<NewStatus>()?.status.as_str() {
        "accepted" => Admission::Accept,
        "rejected" => Admission::Reject,
        "pending" => Admission::Reset,
        _ => return Err(ApiError::bad_request("status is accepted, rejected or pending")),
    };
    let policy = shared.policy();
    let (device, set) = (device.to_owned(), set.to_owned());
    let keys = vec![Key::Device(device.clone())];
    shared.change(keys, move |work| admission::admit(work, &device, &set, admission, policy)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
