//! What devices reported, groups, and what people say about devices.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::paging::{Page, sort};
use super::routes::{Route, made};
use super::seen;
use super::{ApiError, Call, Reply, Shared, reply, search};
use crate::domain::inventory::{self, Reported};
use crate::domain::{etag, id, limits};
use crate::model::{AuthStatus, Device, Tag};
use crate::work::query::{Attr, DeviceQuery, DeviceView, Scope, Test};
use crate::work::{Key, NotLoaded, Work};

/// What can be asked of a list of devices; every other query names an attribute.
const OWN_QUERIES: [&str; 5] = ["page", "per_page", "sort", "has_group", "group"];
/// Attributes that one query may name.
const ATTRIBUTE_QUERIES: usize = 20;
/// Devices that are moved in one transaction.
const MOVED_AT_ONCE: usize = 1000;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get(
        "/api/management/v1/inventory/devices",
        "List what devices have reported; other queries name attributes",
    )
    .queries(&["sort", "has_group", "group"])
    .paged()
    .gives("[DeviceInventory]"),
    Route::get("/api/management/v1/inventory/devices/{device}", "What a device has reported")
        .gives("DeviceInventory")
        .fails(&[404]),
    Route::delete("/api/management/v1/inventory/devices/{device}", "Forget what a device has reported")
        .fails(&[404]),
    Route::put("/api/management/v1/inventory/devices/{device}/tags", "Replace the tags of a device")
        .takes(made::<Vec<WantedTag>>)
        .status(200)
        .fails(&[404, 412]),
    Route::patch("/api/management/v1/inventory/devices/{device}/tags", "Change some tags of a device")
        .takes(made::<Vec<WantedTag>>)
        .status(200)
        .fails(&[404, 412]),
    Route::get("/api/management/v1/inventory/devices/{device}/group", "The group of a device")
        .gives("Group")
        .fails(&[404]),
    Route::put("/api/management/v1/inventory/devices/{device}/group", "Put a device into a group")
        .takes(made::<WantedGroup>)
        .fails(&[404]),
    Route::delete(
        "/api/management/v1/inventory/devices/{device}/group/{group}",
        "Take a device out of a group",
    )
    .fails(&[404]),
    Route::get("/api/management/v1/inventory/groups", "List groups").gives("[text]"),
    Route::get("/api/management/v1/inventory/groups/{group}/devices", "List the devices of a group")
        .paged()
        .gives("[text]")
        .fails(&[404]),
    Route::patch("/api/management/v1/inventory/groups/{group}/devices", "Put devices into a group")
        .takes(made::<Vec<String>>)
        .gives("Moved"),
    Route::delete("/api/management/v1/inventory/groups/{group}/devices", "Take devices out of a group")
        .takes(made::<Vec<String>>)
        .gives("Moved"),
    Route::delete("/api/management/v1/inventory/groups/{group}", "Take all devices out of a group")
        .gives("Moved")
        .fails(&[404]),
    Route::get("/api/management/v2/inventory/statistics", "How many devices have each status")
        .gives("DeviceStatistics"),
];

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match (version, rest, &call.method) {
        ("v1", ["devices", rest @ ..], _) => device(shared, call, rest).await,
        ("v1", ["groups"], &Method::GET) => groups(shared).await,
        ("v1", ["groups", group, rest @ ..], _) => {
            of_group(shared, call, &super::call::decode(group), rest).await
        }
        ("v2", ["filters", "search"], &Method::POST) => search::search(shared, call).await,
        ("v2", ["filters", "attributes"], &Method::GET) => search::attributes(shared).await,
        ("v2", ["filters", rest @ ..], _) => search::kept(shared, call, rest).await,
        ("v2", ["statistics"], &Method::GET) => statistics(shared).await,
        ("v2alpha1", ["identities", "search"], &Method::POST) => search::identities(shared, call).await,
        _ => Err(ApiError::no_route()),
    }
}

/// All devices, or one and the group that it is in.
async fn device(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::GET) => list(shared, call).await,
        ([id], &Method::GET) => {
            let view = shared.view(id).await?;
            let mut answer = reply::json(StatusCode::OK, &describe(&view));
            tag_with(&mut answer, &view);
            Ok(answer)
        }
        ([id], &Method::DELETE) => {
            let device = known(shared, id).await?;
            let keys = vec![Key::Device(device.id.clone()), Key::Inventory(device.id.clone())];
            shared.change(keys, move |work| inventory::forget(work, &device.id)).await?;
            shared.heard.note_report(device.number, None);
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id, "tags"], &Method::PUT) => set_tags(shared, call, id, Reported::All).await,
        ([id, "tags"], &Method::PATCH) => set_tags(shared, call, id, Reported::Some).await,
        ([id, "group"], &Method::GET) => {
            let device = known(shared, id).await?;
            Ok(reply::json(StatusCode::OK, &json!({ "group": device.group })))
        }
        ([id, "group"], &Method::PUT) => {
            let group = call.json::<WantedGroup>()?.group;
            check_group(&group)?;
            set_group(shared, id, None, Some(group)).await
        }
        ([id, "group", group], &Method::DELETE) => {
            set_group(shared, id, Some(super::call::decode(group)), None).await
        }
        _ => Err(ApiError::no_route()),
    }
}

async fn known(shared: &Shared, id: &str) -> Result<Device, ApiError> {
    shared.service.store.device(id).await?.ok_or_else(ApiError::not_found)
}

/// The names of all groups. A group is there as long as a device is in it.
async fn groups(shared: &Shared) -> Result<Reply, ApiError> {
    let groups = shared.service.store.groups().await?;
    let names: Vec<&String> = groups.iter().map(|(name, _)| name).collect();
    Ok(reply::json(StatusCode::OK, &names))
}

/// How many devices have each status. There is one kind of devices.
async fn statistics(shared: &Shared) -> Result<Reply, ApiError> {
    let counts = shared.service.store.device_counts().await?;
    let of = |wanted: AuthStatus| {
        counts.iter().find(|(status, _)| *status == wanted).map_or(0, |(_, count)| *count)
    };
    // A page of the reference server ends at a key that it does not know.
    let shown = [AuthStatus::Accepted, AuthStatus::Pending, AuthStatus::Rejected, AuthStatus::Preauthorized];
    let by_status: Map<String, Value> = shown
        .into_iter()
        .map(|status| {
            let counts = json!({ "standard": of(status), "micro": 0, "system": 0 });
            (status.name().to_owned(), counts)
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &json!({ "devices_by_status": by_status })))
}

/// One group and the devices in it.
async fn of_group(shared: &Shared, call: &Call, group: &str, rest: &[&str]) -> Result<Reply, ApiError> {
    let inside = || DeviceQuery { group: Some(group.to_owned()), ..DeviceQuery::default() };
    match (rest, &call.method) {
        (["devices"], &Method::GET) => {
            let page = Page::of(call)?;
            let found = shared.service.store.devices(&page.of_devices(inside())).await?;
            if found.total == 0 {
                return Err(ApiError::not_found());
            }
            let ids: Vec<&String> = found.items.iter().map(|view| &view.device.id).collect();
            Ok(page.found(call, &ids, found.total))
        }
        (["devices"], &Method::PATCH) => {
            check_group(group)?;
            set_groups(shared, some_ids(call)?, None, Some(group)).await
        }
        (["devices"], &Method::DELETE) => set_groups(shared, some_ids(call)?, Some(group), None).await,
        ([], &Method::DELETE) => {
            let store = &shared.service.store;
            let numbers: Vec<u32> = store.device_numbers(&inside()).await?.iter().collect();
            if numbers.is_empty() {
                return Err(ApiError::not_found());
            }
            let mut ids = Vec::with_capacity(numbers.len());
            for some in numbers.chunks(MOVED_AT_ONCE) {
                ids.extend(store.device_ids(some).await?.into_iter().map(|(_, id)| id));
            }
            set_groups(shared, ids, Some(group), None).await
        }
        _ => Err(ApiError::no_route()),
    }
}

/// Moves devices that are in `from`, or with `None` anywhere, to `to`, or with `None` out of all groups. Of very many each
/// thousand is a transaction of its own, so that devices need not wait for all of them.
async fn set_groups(
    shared: &Shared,
    ids: Vec<String>,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Reply, ApiError> {
    let (mut matched, mut updated) = (0, 0);
    for some in ids.chunks(MOVED_AT_ONCE) {
        let keys = some.iter().cloned().map(Key::Device).collect();
        let (some, from, to) = (some.to_vec(), from.map(str::to_owned), to.map(str::to_owned));
        let rule = move |work: &mut Work| {
            let (mut matched, mut updated) = (0, 0);
            for id in &some {
                if let Some(moved) = inventory::set_group(work, id, from.as_deref(), to.as_deref())? {
                    matched += 1;
                    updated += u64::from(moved);
                }
            }
            Ok::<_, NotLoaded>((matched, updated))
        };
        let moved: (u64, u64) = shared.change(keys, rule).await?;
        matched += moved.0;
        updated += moved.1;
    }
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

async fn set_group(
    shared: &Shared,
    id: &str,
    from: Option<String>,
    to: Option<String>,
) -> Result<Reply, ApiError> {
    let id = id.to_owned();
    let keys = vec![Key::Device(id.clone())];
    let rule = move |work: &mut Work| inventory::set_group(work, &id, from.as_deref(), to.as_deref());
    shared.change(keys, rule).await?.ok_or_else(ApiError::not_found)?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewGroup")]
struct WantedGroup {
    group: String,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "Tag")]
struct WantedTag {
    name: String,
    value: String,
    #[serde(default)]
    description: Option<String>,
}

/// Says something about a device. With `If-Match`, only when nobody else has meanwhile.
async fn set_tags(shared: &Shared, call: &Call, id: &str, how: Reported) -> Result<Reply, ApiError> {
    let wanted: Vec<WantedTag> = call.json()?;
    let mut tags = BTreeMap::new();
    for WantedTag { name, value, description } in wanted {
        let chars = name.chars().count();
        if chars == 0 || chars > limits::ATTRIBUTE_NAME_CHARS {
            return Err(ApiError::bad_request("a tag has no name or one that is too long"));
        }
        let description_chars = description.as_ref().map_or(0, |text| text.chars().count());
        if value.chars().count().max(description_chars) > limits::PROVIDES_CHARS {
            return Err(ApiError::bad_request("a tag has a value or a description that is too long"));
        }
        tags.insert(name, Tag { value, description });
    }
    let expected = seen::tags(call);
    let device = id.to_owned();
    let id = device.clone();
    let keys = vec![Key::Device(id.clone())];
    let rule = move |work: &mut Work| {
        let is_expected = |tags: &BTreeMap<String, Tag>| {
            let mark = digest(tags);
            let is_that = |wanted: &String| etag::names(wanted, |name| etag::has_mark(name, &mark));
            expected.as_ref().is_none_or(is_that)
        };
        inventory::set_tags(work, &id, tags.clone(), how, is_expected)
    };
    shared.change(keys, rule).await?;
    let mut answer = reply::empty(StatusCode::OK);
    tag_with(&mut answer, &shared.view(&device).await?);
    Ok(answer)
}

/// The entity tag of a device has two parts: the tags, which are what a change is compared with, and the rest. So what the
/// device reports in between is in nobody's way.
fn tag_with(answer: &mut Reply, view: &DeviceView) {
    let rest = digest(&(view.device.updated, &view.inventory.attributes));
    seen::put_tag(answer, &format!("\"{}-{rest}\"", digest(&view.device.tags)));
}

fn digest<T: Serialize>(value: &T) -> String {
    // Maps with text as keys always become JSON.
    let text = serde_json::to_vec(value).unwrap_or_default();
    id::sha256_hex(&text).chars().take(24).collect()
}

async fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let has_group = match call.query("has_group").as_deref() {
        None | Some("") => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => return Err(ApiError::bad_request("has_group is true or false")),
    };
    let anywhere = |name: String| Attr { scope: None, name };
    let sort = sort(call)?.into_iter().map(|(name, direction)| (anywhere(name), direction)).collect();
    let others = call.pairs().filter(|(name, _)| !OWN_QUERIES.contains(&name.as_str()));
    let tests: Vec<(Attr, Test)> = others.map(|(name, value)| (anywhere(name), Test::Reads(value))).collect();
    if tests.len() > ATTRIBUTE_QUERIES {
        return Err(ApiError::bad_request("too many attributes"));
    }
    let query = DeviceQuery { tests, sort, has_group, group: call.query("group"), ..DeviceQuery::default() };
    let found = shared.devices(page.of_devices(query)).await?;
    Ok(page.found(call, &found.items.iter().map(describe).collect::<Vec<_>>(), found.total))
}

/// Every attribute of a device: scope, name, value.
fn attributes(view: &DeviceView) -> Vec<Value> {
    let device = &view.device;
    let attribute = |scope: Scope, name: &str, value: Value| json!({ "scope": scope.name(), "name": name, "value": value });
    let mut all = Vec::new();
    // The status is the server's word, whatever a device calls a part of its identity.
    for (name, value) in device.identity.iter().filter(|(name, _)| *name != "status") {
        all.push(attribute(Scope::Identity, name, value.clone()));
    }
    all.push(attribute(Scope::Identity, "status", json!(device.status())));
    for name in ["created_ts", "updated_ts", "group", "check_in_time"] {
        if let Some(value) = view.value_in(Scope::System, name) {
            all.push(attribute(Scope::System, name, value));
        }
    }
    for (name, value) in &view.inventory.attributes {
        let mut described = attribute(Scope::Inventory, name, value.value.clone());
        described["timestamp"] = json!(value.timestamp);
        if let Some(text) = &value.description {
            described["description"] = json!(text);
        }
        all.push(described);
    }
    all.extend(device.monitor.iter().map(|(name, value)| attribute(Scope::Monitor, name, value.clone())));
    for (name, tag) in &device.tags {
        let mut described = attribute(Scope::Tags, name, json!(tag.value));
        if let Some(text) = &tag.description {
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

/// A device as lists show it.
pub(super) fn describe(view: &DeviceView) -> Value {
    json!({
        "id": view.device.id,
        "updated_ts": view.inventory.updated.unwrap_or(view.device.updated),
        "identities": identities(&view.device),
        "attributes": attributes(view),
    })
}
