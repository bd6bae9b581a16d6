//! What devices reported, groups, and searches over both.

use std::cmp::Ordering;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::{Direction, Page, sort};
use super::search::compare;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::fleet::Fleet;
use crate::domain::limits;
use crate::domain::model::Device;

/// What can be asked of a list of devices; every other query names an attribute.
const OWN_QUERIES: [&str; 5] = ["page", "per_page", "sort", "has_group", "group"];
/// Attributes that one query may name.
const ATTRIBUTE_QUERIES: usize = 20;

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match (version, rest, &call.method) {
        ("v1", ["devices", rest @ ..], _) => device(shared, call, rest).await,
        ("v1", ["groups"], &Method::GET) => Ok(groups(shared)),
        ("v1", ["groups", group, rest @ ..], _) => {
            of_group(shared, call, &super::call::decode(group), rest).await
        }
        ("v2", ["filters", "search"], &Method::POST) => super::search::search(shared, call),
        ("v2", ["filters", "attributes"], &Method::GET) => super::search::attributes(shared),
        _ => Err(ApiError::not_found()),
    }
}

/// All devices, or one and the group that it is in.
async fn device(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::GET) => list(shared, call),
        ([id], &Method::GET) => {
            let fleet = shared.fleet();
            let device = fleet.device(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json_with_etag(&describe(&fleet, device)))
        }
        ([id, "group"], &Method::GET) => {
            let fleet = shared.fleet();
            let device = fleet.device(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &json!({ "group": device.group })))
        }
        ([id, "group"], &Method::PUT) => {
            #[derive(Deserialize)]
            struct Wanted {
                group: String,
            }
            let group = call.json::<Wanted>()?.group;
            check_group(&group)?;
            set_group(shared, id, Some(group)).await
        }
        ([id, "group", group], &Method::DELETE) => {
            let group = super::call::decode(group);
            if shared.fleet().device(id).and_then(|device| device.group.clone()) != Some(group) {
                return Err(ApiError::not_found());
            }
            set_group(shared, id, None).await
        }
        _ => Err(ApiError::not_found()),
    }
}

/// The names of all groups. A group is there as long as a device is in it.
fn groups(shared: &Shared) -> Reply {
    let fleet = shared.fleet();
    let mut groups: Vec<&String> = fleet.devices().filter_map(|device| device.group.as_ref()).collect();
    groups.sort();
    groups.dedup();
    reply::json(StatusCode::OK, &groups)
}

/// One group and the devices in it.
async fn of_group(shared: &Shared, call: &Call, group: &str, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["devices"], &Method::GET) => {
            let page = Page::of(call)?;
            Ok(page.list(call, &members(&shared.fleet(), group)?, String::clone))
        }
        (["devices"], &Method::PATCH) => {
            check_group(group)?;
            set_groups(shared, some_ids(call)?, None, Some(group)).await
        }
        (["devices"], &Method::DELETE) => set_groups(shared, some_ids(call)?, Some(group), None).await,
        ([], &Method::DELETE) => {
            let ids = members(&shared.fleet(), group)?;
            set_groups(shared, ids, Some(group), None).await
        }
        _ => Err(ApiError::not_found()),
    }
}

/// The ids of the devices in a group that is there.
fn members(fleet: &Fleet, group: &str) -> Result<Vec<String>, ApiError> {
    let inside = fleet.devices().filter(|device| device.group.as_deref() == Some(group));
    let ids: Vec<String> = inside.map(|device| device.id.clone()).collect();
    if ids.is_empty() { Err(ApiError::not_found()) } else { Ok(ids) }
}

/// Moves devices that are in `from`, or with `None` anywhere, to `to`, or with `None` out of all groups.
async fn set_groups(
    shared: &Shared,
    ids: Vec<String>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Reply, ApiError> {
    let (matched, updated) = shared
        .change(|fleet, now| {
            let (mut matched, mut updated, mut changes) = (0, 0, Vec::new());
            for id in &ids {
                let is_there = |device: &Device| from.is_none() || device.group.as_deref() == from;
                if !fleet.device(id).is_some_and(is_there) {
                    continue;
                }
                let changed = fleet.set_group(id, to.map(str::to_owned), now).unwrap_or_default();
                matched += 1;
                updated += usize::from(!changed.is_empty());
                changes.extend(changed);
            }
            Ok::<_, ApiError>(((matched, updated), changes))
        })
        .await?;
    Ok(reply::json(StatusCode::OK, &json!({ "updated_count": updated, "matched_count": matched })))
}

fn some_ids(call: &Call) -> Result<Vec<String>, ApiError> {
    let ids: Vec<String> = call.json()?;
    if ids.is_empty() { Err(ApiError::bad_request("no device IDs present in payload")) } else { Ok(ids) }
}

fn check_group(group: &str) -> Result<(), ApiError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if group.is_empty() || group.len() > limits::NAME_CHARS || !group.chars().all(plain) {
        return Err(ApiError::bad_request("a group has 1 to 256 letters, digits, _ and -"));
    }
    Ok(())
}

async fn set_group(shared: &Shared, id: &str, group: Option<String>) -> Result<Reply, ApiError> {
    shared
        .change(|fleet, now| {
            let changes = fleet.set_group(id, group, now);
            changes.map(|changes| ((), changes)).ok_or_else(ApiError::not_found)
        })
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let group = call.query("group");
    let has_group = match call.query("has_group").as_deref() {
        None | Some("") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(ApiError::bad_request("has_group is true or false")),
    };
    let criteria = sort(call)?;
    let others = call.pairs().filter(|(name, _)| !OWN_QUERIES.contains(&name.as_str()));
    let others: Vec<(String, String)> = others.collect();
    if others.len() > ATTRIBUTE_QUERIES {
        return Err(ApiError::bad_request("too many attributes"));
    }
    let fleet = shared.fleet();
    let mut found: Vec<&Device> = fleet
        .devices()
        .filter(|device| group.is_none() || device.group == group)
        .filter(|device| has_group.is_none_or(|wanted| device.group.is_some() == wanted))
        .filter(|device| others.is_empty() || has_all(&attributes(&fleet, device), &others))
        .collect();
    if !criteria.is_empty() {
        let mut keyed: Vec<(&Device, Vec<Option<Value>>)> =
            found.into_iter().map(|device| (device, keys(&attributes(&fleet, device), &criteria))).collect();
        keyed.sort_by(|(_, a), (_, b)| {
            let each = criteria.iter().zip(a.iter().zip(b));
            each.fold(Ordering::Equal, |so_far, ((_, direction), (a, b))| {
                so_far.then_with(|| direction.apply(compare(a.as_ref(), b.as_ref())))
            })
        });
        found = keyed.into_iter().map(|(device, _)| device).collect();
    }
    Ok(page.list(call, &found, |device| describe(&fleet, device)))
}

/// Whether the attributes of a device have each of these values.
fn has_all(attributes: &[Value], wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(name, value)| named(attributes, name).any(|attribute| is(&attribute["value"], value)))
}

/// The attributes called `name`, of whatever scope. Names that the server gives are only its own: a device must not say
/// that it is accepted.
fn named<'a>(attributes: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    let is_own = matches!(name, "status" | "group");
    attributes
        .iter()
        .filter(move |attribute| attribute["name"] == name && !(is_own && attribute["scope"] == "inventory"))
}

fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.as_f64().is_some_and(|number| wanted.parse() == Ok(number)),
        Value::Bool(yes) => wanted.parse() == Ok(*yes),
        Value::Array(values) => values.iter().any(|value| is(value, wanted)),
        Value::Null | Value::Object(_) => false,
    }
}

/// What a device is sorted by.
fn keys(attributes: &[Value], criteria: &[(String, Direction)]) -> Vec<Option<Value>> {
    // What a device reports comes last.
    let value =
        |(name, _): &(String, Direction)| named(attributes, name).last().map(|one| one["value"].clone());
    criteria.iter().map(value).collect()
}

/// Every attribute of a device: scope, name, value.
pub(super) fn attributes(fleet: &Fleet, device: &Device) -> Vec<Value> {
    let attribute =
        |scope: &str, name: &str, value: Value| json!({ "scope": scope, "name": name, "value": value });
    let mut all = Vec::new();
    // The status is the server's word, whatever a device calls a part of its identity.
    for (name, value) in device.identity.iter().filter(|(name, _)| *name != "status") {
        all.push(attribute("identity", name, value.clone()));
    }
    all.push(attribute("identity", "status", json!(device.status())));
    all.push(attribute("system", "created_ts", json!(device.created)));
    all.push(attribute("system", "updated_ts", json!(device.updated)));
    if let Some(group) = &device.group {
        all.push(attribute("system", "group", json!(group)));
    }
    if let Some(time) = fleet.last_check_in(&device.id) {
        all.push(attribute("system", "check_in_time", json!(time)));
    }
    let reported = fleet.inventory(&device.id).map(|inventory| &inventory.attributes);
    for (name, value) in reported.into_iter().flatten() {
        let mut described = attribute("inventory", name, value.value.clone());
        described["timestamp"] = json!(value.timestamp);
        if let Some(text) = &value.description {
            described["description"] = json!(text);
        }
        all.push(described);
    }
    all
}

/// The values that name a device, as texts.
fn identities(device: &Device) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    device.identity.values().map(text).collect()
}

pub(super) fn describe(fleet: &Fleet, device: &Device) -> Value {
    let reported = fleet.inventory(&device.id).and_then(|inventory| inventory.updated);
    json!({
        "id": device.id,
        "updated_ts": reported.unwrap_or(device.updated),
        "identities": identities(device),
        "attributes": attributes(fleet, device),
    })
}
