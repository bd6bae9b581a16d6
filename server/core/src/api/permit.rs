//! Whether a person may ask what is asked: decided in one place, before anything is done, and again for what goes on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper::StatusCode;
use serde_json::Value;
use tokio::sync::watch;

use super::call::decode;
use super::users::{self, Person};
use super::{ApiError, Call, Shared};
use crate::connect::{Closing, Guarded};
use crate::domain::people::permissions::{Belongs, Need, Object, Pass, allows, need};
use crate::work::Kind;

/// Devices of one body that are looked up for it.
const DEVICES: usize = 1000;
/// How often it is looked again at what people have open.
const AGAIN: Duration = Duration::from_secs(1);
/// How many of them at a time.
const AT_ONCE: usize = 16;

/// Who asks, if their token is good and their roles allow it. It is asked when the body is there, which may have taken long,
/// and again when an upload is.
///
/// # Errors
/// 401, 403, or the store could not be read.
pub(super) async fn admit(shared: &Shared, call: &Call) -> Result<Person, ApiError> {
    let person = users::check(shared, users::token(shared, call)?).await?;
    check(shared, Some(call), &person, &needed(call)).await?;
    Ok(person)
}

/// What a request goes on with behind its answer.
///
/// # Errors
/// The request has no token.
pub(super) fn pass(shared: &Shared, call: &Call) -> Result<Pass, ApiError> {
    let token = users::token(shared, call)?.ok_or_else(|| ApiError::unauthorized("unauthorized"))?;
    Ok(Pass { token: token.to_owned(), need: needed(call) })
}

/// Closes what people have open to devices as soon as their token or their roles do not allow it any more: when anything has
/// changed that it may depend on, and now and then, since tokens expire.
pub(crate) async fn look_again(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = shared.switchboard.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
            _ = stop.changed() => return,
        }
        let all = stream::iter(shared.switchboard.guarded());
        // One whose rights are slow to be read holds up no other.
        all.for_each_concurrent(AT_ONCE, |guarded| holds(&shared, guarded)).await;
    }
}

async fn holds(shared: &Shared, guarded: Guarded) {
    let pass = guarded.pass();
    let held = async {
        let person = users::check(shared, Some(&pass.token)).await?;
        check(shared, None, &person, &pass.need).await
    };
    match held.await {
        Ok(()) => {}
        Err(error) if error.status == StatusCode::UNAUTHORIZED => guarded.close(Closing::Ended),
        Err(error) if error.status == StatusCode::FORBIDDEN => guarded.close(Closing::NotAllowed),
        // It says nothing about the person, and is asked again in a moment.
        Err(error) => log::debug!("whether a session may go on is not known: {}", error.message),
    }
}

fn needed(call: &Call) -> Need {
    let segments = call.segments();
    // Behind `api`, `management` and the version.
    need(call.method.as_str(), segments.get(3..).unwrap_or_default())
}

/// Refuses what the person's roles do not allow. Without a call, what is in its query or its body is everything.
async fn check(shared: &Shared, call: Option<&Call>, person: &Person, need: &Need) -> Result<(), ApiError> {
    let Some(grants) = &person.grants else { return Ok(()) };
    let refused = || ApiError::forbidden("your roles do not allow this");
    // Without a limit to look at nothing has to be looked up.
    if allows(grants, need.sets, &Belongs::All) {
        return Ok(());
    }
    if need.object != Object::Own && !grants.iter().any(|grant| need.sets.contains(&grant.name)) {
        return Err(refused());
    }
    let belongs = match (&need.object, call) {
        (Object::All, _) => Belongs::All,
        (Object::Own, _) => Belongs::Own,
        (Object::Device(id), _) => Belongs::Groups(vec![group_of(shared, id).await?]),
        (Object::Group(name), _) => Belongs::Groups(vec![Some(decode(name))]),
        (Object::OutOfGroup { device, group }, _) => {
            Belongs::Groups(vec![group_of(shared, device).await?, Some(decode(group))])
        }
        (Object::Release(name), _) => tags_of(shared, &decode(name)),
        (Object::Artifact(id), _) => match shared.service.catalogue.artifact(id) {
            Some(artifact) => tags_of(shared, &artifact.name),
            None => Belongs::All,
        },
        (Object::QueryGroup | Object::FilterGroup | Object::IntoGroup(_) | Object::BodyDevices, None) => {
            Belongs::All
        }
        (Object::IntoGroup(device), Some(call)) => {
            let body: Value = call.json()?;
            let into = body.get("group").and_then(Value::as_str).map(str::to_owned);
            Belongs::Groups(vec![group_of(shared, device).await?, into])
        }
        (Object::QueryGroup, Some(call)) => match call.queries("group").as_slice() {
            [group] => Belongs::Groups(vec![Some(group.clone())]),
            _ => Belongs::All,
        },
        (Object::FilterGroup, Some(call)) => filter_group(call),
        (Object::BodyDevices, Some(call)) => {
            let body: Value = call.json()?;
            let named = |field: &str| body.get(field).filter(|value| !value.is_null());
            let is_all = named("all_devices").and_then(Value::as_bool).unwrap_or_default();
            // Devices or one group, and nothing beside: of more than one the server makes no deployment.
            match (named("devices"), named("group")) {
                _ if is_all || named("filter_id").is_some() => Belongs::All,
                (Some(Value::Array(devices)), None) if devices.len() <= DEVICES => {
                    let mut groups = Vec::new();
                    for device in devices {
                        groups.push(group_of(shared, device.as_str().unwrap_or_default()).await?);
                    }
                    Belongs::Groups(groups)
                }
                (None, Some(Value::String(group))) => Belongs::Groups(vec![Some(group.clone())]),
                (Some(_) | None, Some(_) | None) => Belongs::All,
            }
        }
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
