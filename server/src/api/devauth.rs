//! People decide about devices.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::fleet::{Admission, Fleet};
use crate::domain::identity::Identity;
use crate::domain::model::Device;
use crate::domain::pubkey::PublicKey;

pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["devices"], &Method::GET) => {
            list(shared, call, &Wanted { id: Ids::from(call.queries("id")), status: call.query("status") })
        }
        (["devices"], &Method::POST) => preauthorize(shared, call).await,
        (["devices", "search"], &Method::POST) => list(shared, call, &call.json()?),
        (["devices", "count"], &Method::GET) => {
            let wanted = Wanted { id: None, status: call.query("status") };
            let fleet = shared.fleet();
            let count = fleet.devices().filter(|device| wanted.has(device)).count();
            Ok(reply::json(StatusCode::OK, &json!({ "count": count })))
        }
        (["limits", "max_devices"], &Method::GET) => {
            Ok(reply::json(StatusCode::OK, &json!({ "limit": shared.options.max_devices })))
        }
        (["devices", id], &Method::GET) => {
            let fleet = shared.fleet();
            let device = fleet.device(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &describe(&fleet, device)))
        }
        (["devices", id], &Method::DELETE) => {
            shared.change(|fleet, now| fleet.decommission(id, now)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["devices", id, "auth", set], &Method::DELETE) => {
            shared.change(|fleet, now| fleet.dismiss(id, set, now)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["devices", id, "auth", set, "status"], &Method::GET) => {
            let fleet = shared.fleet();
            let device = fleet.device(id).ok_or_else(ApiError::not_found)?;
            let set =
                device.auth_sets.iter().find(|known| known.id == *set).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &json!({ "status": set.status })))
        }
        (["devices", id, "auth", set, "status"], &Method::PUT) => admit(shared, call, id, set).await,
        (["tokens", id], &Method::DELETE) => {
            shared.change(|fleet, _| fleet.revoke(id)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// One or more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(String),
    Many(Vec<String>),
}

impl Ids {
    fn from(ids: Vec<String>) -> Option<Ids> {
        (!ids.is_empty()).then_some(Ids::Many(ids))
    }
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    id: Option<Ids>,
    #[serde(default)]
    status: Option<String>,
}

impl Wanted {
    fn has(&self, device: &Device) -> bool {
        let id = match &self.id {
            None => true,
            Some(Ids::One(id)) => *id == device.id,
            Some(Ids::Many(ids)) => ids.contains(&device.id),
        };
        id && self.status.as_ref().is_none_or(|status| status == device.status().name())
    }
}

fn list(shared: &Shared, call: &Call, wanted: &Wanted) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let fleet = shared.fleet();
    let devices: Vec<&Device> = fleet.devices().filter(|device| wanted.has(device)).collect();
    Ok(page.list(call, &devices, |device| describe(&fleet, device)))
}

fn describe(fleet: &Fleet, device: &Device) -> Value {
    let sets: Vec<Value> = device
        .auth_sets
        .iter()
        .map(|set| {
            json!({
                "id": set.id,
                "identity_data": device.identity,
                "pubkey": set.pubkey,
                "status": set.status,
                "ts": set.ts,
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
    if let Some(time) = fleet.last_check_in(&device.id) {
        described["check_in_time"] = json!(time);
    }
    described
}

#[derive(Deserialize)]
struct Preauthorization {
    identity_data: BTreeMap<String, Value>,
    pubkey: String,
    #[serde(default)]
    force: bool,
}

async fn preauthorize(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let wanted: Preauthorization = call.json()?;
    let identity = Identity::new(wanted.identity_data)
        .map_err(|error| ApiError::bad_request(&format!("identity_data: {error:?}")))?;
    let key = PublicKey::parse(&wanted.pubkey)
        .map_err(|error| ApiError::bad_request(&format!("pubkey: {error:?}")))?;
    let id = shared.change(|fleet, now| fleet.preauthorize(&identity, &key.pem, wanted.force, now)).await?;
    Ok(reply::created(&format!("/api/management/v2/devauth/devices/{id}")))
}

#[derive(Deserialize)]
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
    shared.change(|fleet, now| fleet.admit(device, set, admission, policy, now)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
