//! People decide about devices.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::fleet::{Admission, Fleet};
use crate::domain::identity::Identity;
use crate::domain::model::{AuthStatus, Device};
use crate::domain::pubkey::PublicKey;

pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["devices"], &Method::GET) => {
            let wanted =
                Wanted { id: Ids::from(call.queries("id")), status: Ids::from(call.queries("status")) };
            list(shared, call, &wanted)
        }
        (["devices"], &Method::POST) => preauthorize(shared, call).await,
        (["devices", "search"], &Method::POST) => list(shared, call, &call.json()?),
        (["devices", "count"], &Method::GET) => {
            let wanted = Wanted { id: None, status: Ids::from(call.queries("status")) };
            wanted.check()?;
            let fleet = shared.fleet();
            let count = fleet.devices().filter(|device| wanted.has(device)).count();
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

    fn has(&self, text: &str) -> bool {
        self.as_slice().iter().any(|id| id == text)
    }
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    id: Option<Ids>,
    #[serde(default)]
    status: Option<Ids>,
}

impl Wanted {
    fn check(&self) -> Result<(), ApiError> {
        let statuses = self.status.as_ref().map_or(&[][..], Ids::as_slice);
        match statuses.iter().all(|name| AuthStatus::parse(name).is_some()) {
            true => Ok(()),
            false => Err(ApiError::bad_request(
                "status is one of accepted, pending, preauthorized, rejected and noauth",
            )),
        }
    }

    fn has(&self, device: &Device) -> bool {
        self.id.as_ref().is_none_or(|ids| ids.has(&device.id))
            && self.status.as_ref().is_none_or(|statuses| statuses.has(device.status().name()))
    }
}

fn list(shared: &Shared, call: &Call, wanted: &Wanted) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    wanted.check()?;
    let fleet = shared.fleet();
    let mut devices: Vec<&Device> = fleet.devices().filter(|device| wanted.has(device)).collect();
    // By status, and within one in the order of the ids.
    devices.sort_by_cached_key(|device| device.status().name());
    Ok(page.list(call, &devices, |device| describe(&fleet, device)))
}

fn describe(fleet: &Fleet, device: &Device) -> Value {
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
        .map_err(|_| ApiError::bad_request("invalid auth request: cannot decode public key"))?;
    let preauthorized =
        shared.change(|fleet, now| fleet.preauthorize(&identity, &key.pem, wanted.force, now)).await;
    let id = match preauthorized {
        Ok(id) => id,
        Err(error) if error.status == StatusCode::CONFLICT => {
            // What is in the way.
            let fleet = shared.fleet();
            let known = fleet.devices().find(|device| device.identity_sha256 == identity.sha256);
            let known = known.ok_or(error)?;
            return Ok(reply::json(StatusCode::CONFLICT, &describe(&fleet, known)));
        }
        Err(error) => return Err(error),
    };
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
