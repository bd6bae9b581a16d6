//! Whether a person may ask what is asked: decided in one place, before anything is done.

use serde_json::Value;

use super::call::decode;
use super::users::Person;
use super::{ApiError, Call, Shared};
use crate::domain::people::permissions::{Belongs, Object, allows, need};
use crate::work::Kind;

/// Devices of one body that are looked up for it.
const DEVICES: usize = 1000;

/// Refuses what the person's roles do not allow.
///
/// # Errors
/// 403, or the store could not be read.
pub(super) async fn check(
    shared: &Shared,
    call: &Call,
    person: &Person,
    rest: &[&str],
) -> Result<(), ApiError> {
    let Some(grants) = &person.grants else { return Ok(()) };
    let need = need(call.method.as_str(), rest);
    let refused = || ApiError::forbidden("your roles do not allow this");
    // Without a limit to look at nothing has to be looked up.
    if allows(grants, need.sets, &Belongs::All) {
        return Ok(());
    }
    if need.object != Object::Own && !grants.iter().any(|grant| need.sets.contains(&grant.name)) {
        return Err(refused());
    }
    let belongs = match need.object {
        Object::All => Belongs::All,
        Object::Own => Belongs::Own,
        Object::Device(id) => Belongs::Groups(vec![group_of(shared, &id).await?]),
        Object::Group(name) => Belongs::Groups(vec![Some(decode(&name))]),
        Object::QueryGroup => match call.queries("group").as_slice() {
            [group] => Belongs::Groups(vec![Some(group.clone())]),
            _ => Belongs::All,
        },
        Object::FilterGroup => filter_group(call),
        Object::BodyDevices => {
            let body: Value = call.json()?;
            let is_all = body.get("all_devices").and_then(Value::as_bool).unwrap_or_default();
            match body.get("devices").and_then(Value::as_array) {
                Some(devices)
                    if !is_all
                        && devices.len() <= DEVICES
                        && body.get("filter_id").is_none()
                        && body.get("group").is_none_or(Value::is_null) =>
                {
                    let mut groups = Vec::new();
                    for device in devices {
                        groups.push(group_of(shared, device.as_str().unwrap_or_default()).await?);
                    }
                    Belongs::Groups(groups)
                }
                Some(_) | None => Belongs::All,
            }
        }
        Object::Release(name) => tags_of(shared, &decode(&name)),
        Object::Artifact(id) => match shared.service.catalogue.artifact(&id) {
            Some(artifact) => tags_of(shared, &artifact.name),
            None => Belongs::All,
        },
    };
    if allows(grants, need.sets, &belongs) { Ok(()) } else { Err(refused()) }
}

async fn group_of(shared: &Shared, device: &str) -> Result<Option<String>, ApiError> {
    Ok(shared.service.store.device(device).await?.and_then(|device| device.group))
}

fn tags_of(shared: &Shared, release: &str) -> Belongs {
    let notes: Option<Value> = shared.service.catalogue.document(Kind::Release, release);
    let tags = notes.as_ref().and_then(|notes| notes.get("tags")).and_then(Value::as_array);
    let text = |tag: &Value| tag.as_str().map(str::to_owned);
    Belongs::Tags(tags.into_iter().flatten().filter_map(text).collect())
}

/// A search for the devices of one group, as one of its filters says: all of them have to hold.
fn filter_group(call: &Call) -> Belongs {
    let Ok(body) = call.json::<Value>() else { return Belongs::All };
    let text = |filter: &Value, name: &str| filter.get(name).and_then(Value::as_str).map(str::to_owned);
    let filters = body.get("filters").and_then(Value::as_array).into_iter().flatten();
    let mut groups = filters.filter_map(|filter| {
        let is_group = text(filter, "scope").as_deref() == Some("system")
            && text(filter, "attribute").as_deref() == Some("group")
            && text(filter, "type").as_deref() == Some("$eq");
        text(filter, "value").filter(|_| is_group)
    });
    match groups.next() {
        Some(group) => Belongs::Groups(vec![Some(group)]),
        None => Belongs::All,
    }
}
