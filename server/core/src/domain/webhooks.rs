//! Webhooks: whom to tell what happens to devices. What is told is an event in the transaction of the change that it is
//! about; it is delivered afterwards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{address, id, mail};
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Device, Inventory};
use crate::work::query::Numbered;
use crate::work::{Event, Kind, NotLoaded, Stream, Work, Write};

/// Most webhooks of a fleet: each event goes to all of them.
pub(crate) const INTEGRATIONS: usize = 20;
/// Most characters of an address.
const URL_CHARS: usize = 2048;
/// Most characters of a description.
const DESCRIPTION_CHARS: usize = 1024;
/// Most hex digits of a secret.
const SECRET_DIGITS: usize = 64;

/// What an integration is told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Devices that are accepted, change their status, or go.
    Deviceauth,
    /// What devices report.
    Inventory,
}

/// An integration that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Integration {
    /// Where to.
    pub(crate) url: String,
    /// What signs what is sent.
    pub(crate) secret: Option<String>,
    /// For people.
    pub(crate) description: String,
    /// About what.
    pub(crate) scopes: Vec<Scope>,
    /// When it was made.
    pub(crate) created: Timestamp,
}

impl Integration {
    /// How it is reached: whoever changes that need not wait after what has failed before.
    pub(crate) fn place(&self) -> String {
        format!("{} {}", self.secret.as_deref().unwrap_or_default(), self.url)
    }
}

/// How far deliveries to an integration are: a document of its own, so that what every process has in memory does not change
/// with each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivered {
    /// The number of the last event that is done with. A fleet that was moved has other numbers: then it is 0, and the time says
    /// where to go on.
    pub(crate) number: u64,
    /// The time of that event; what came at the same time may be told again after a move.
    #[serde(default)]
    pub(crate) time: Timestamp,
    /// How often the next one was tried.
    #[serde(default)]
    pub(crate) tries: u32,
}

/// Why an integration is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WebhookError {
    /// Something has to be loaded first.
    NotLoaded,
    /// There is none with that id.
    NotFound,
}

impl From<NotLoaded> for WebhookError {
    fn from(_: NotLoaded) -> WebhookError {
        WebhookError::NotLoaded
    }
}

/// Whether an address leads, without a question to any name server, to a network that is not the public one.
pub(crate) fn is_inside(url: &str) -> bool {
    host(url).is_some_and(|(host, _)| address::is_inside(host))
}

/// The host of an address and its port, as they are written.
fn host(url: &str) -> Option<(&str, Option<&str>)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    // What is in brackets has colons of its own.
    let end = authority.find(']').map_or(0, |at| at + 1);
    let (_, behind) = authority.split_at_checked(end)?;
    let colon = behind.rfind(':').map(|at| end + at);
    let host = authority.get(..colon.unwrap_or(authority.len()))?;
    Some((host, colon.and_then(|at| authority.get(at + 1..))))
}

/// Checks what a person wants.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(url: &str, secret: Option<&str>, description: &str) -> Result<(), String> {
    let (host, port) = host(url).unwrap_or_default();
    let has_user = host.contains('@') || port.is_some_and(|port| port.contains('@'));
    if host.is_empty() || has_user || !url.chars().all(|char| char.is_ascii_graphic()) {
        return Err("url: http:// or https:// with the name of a host, and no user".to_owned());
    }
    let port = port.map(str::parse);
    if !matches!(port, None | Some(Ok(1_u16..))) {
        return Err("url: the port is a number from 1 to 65535".to_owned());
    }
    if url.len() > URL_CHARS {
        return Err(format!("url: it has more than {URL_CHARS} characters"));
    }
    if description.chars().count() > DESCRIPTION_CHARS {
        return Err(format!("description: it has more than {DESCRIPTION_CHARS} characters"));
    }
    let secret = secret.unwrap_or_default();
    if secret.len() > SECRET_DIGITS || key(secret).is_none() {
        return Err(format!("secret: at most {SECRET_DIGITS} hex digits, two for each byte"));
    }
    Ok(())
}

/// The bytes of a secret.
pub(crate) fn key(secret: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = secret.chars().map(|char| char.to_digit(16)).collect();
    digits?
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(high * 16 + low).ok(),
            _ => None,
        })
        .collect()
}

/// Begins to tell somebody what comes after the event with a number.
///
/// # Errors
/// It has to be loaded first.
pub(crate) fn create(
    work: &mut Work,
    id: &str,
    mut integration: Integration,
    after: u64,
) -> Result<(), NotLoaded> {
    integration.created = work.now();
    work.document::<Value>(Kind::Integration, id)?;
    let done = Delivered { number: after, ..Delivered::default() };
    work.document::<Value>(Kind::Progress, &progress(id))?;
    work.put_document(Kind::Progress, &progress(id), Some(&done))?;
    work.put_document(Kind::Integration, id, Some(&integration))
}

/// Changes where it goes and what signs it.
///
/// # Errors
/// There is none with that id.
pub(crate) fn change(work: &mut Work, id: &str, url: &str, secret: Option<&str>) -> Result<(), WebhookError> {
    let known: Option<Integration> = work.document(Kind::Integration, id)?;
    let known = known.ok_or(WebhookError::NotFound)?;
    let changed = Integration { url: url.to_owned(), secret: secret.map(str::to_owned), ..known };
    Ok(work.put_document(Kind::Integration, id, Some(&changed))?)
}

/// Tells it no more.
///
/// # Errors
/// There is none with that id.
pub(crate) fn remove(work: &mut Work, id: &str) -> Result<(), WebhookError> {
    work.document::<Integration>(Kind::Integration, id)?.ok_or(WebhookError::NotFound)?;
    work.document::<Value>(Kind::Progress, &progress(id))?;
    work.put_document::<Delivered>(Kind::Progress, &progress(id), None)?;
    Ok(work.put_document::<Integration>(Kind::Integration, id, None)?)
}

/// Under what name it is kept how far deliveries are.
pub(crate) fn progress(id: &str) -> String {
    format!("webhook/{id}")
}

/// What is moved into a store whose events have other numbers: how far webhooks and mails are.
pub(crate) fn moved(document: &str, value: &mut Value) {
    if [progress(""), mail::progress("")].iter().any(|prefix| document.starts_with(prefix)) {
        if let Some(number) = value.get_mut("number") {
            *number = json!(0);
        }
    }
}

/// Writes what has become of an event: done with, or tried once more. False when the integration is gone.
///
/// # Errors
/// It has to be loaded first.
pub(crate) fn told(
    work: &mut Work,
    id: &str,
    event: &Numbered,
    outcome: &Outcome,
) -> Result<bool, NotLoaded> {
    let key = progress(id);
    let Some(mut known) = work.document::<Delivered>(Kind::Progress, &key)? else { return Ok(false) };
    if known.number >= event.number {
        return Ok(true);
    }
    if outcome.is_final {
        let mut data = json!({
            "integration_id": id, "success": outcome.error.is_none(), "tries": known.tries.saturating_add(1),
        });
        if let Some(status) = outcome.status {
            data["status_code"] = json!(status);
        }
        if let Some(error) = &outcome.error {
            data["error"] = json!(error);
        }
        let told = Event { stream: Stream::Delivery, key: event.event.key.clone(), time: work.now(), data };
        work.write(Write::Event(told));
        known = Delivered { number: event.number, time: event.event.time, tries: 0 };
    } else {
        known.tries = known.tries.saturating_add(1);
    }
    work.put_document(Kind::Progress, &key, Some(&known))?;
    Ok(true)
}

/// Goes on behind an event that is nothing to an integration.
///
/// # Errors
/// It has to be loaded first.
pub(crate) fn pass_over(
    work: &mut Work,
    id: &str,
    (number, time): (u64, Timestamp),
) -> Result<(), NotLoaded> {
    let key = progress(id);
    match work.document::<Delivered>(Kind::Progress, &key)? {
        Some(known) if known.number < number => {
            work.put_document(Kind::Progress, &key, Some(&Delivered { number, time, tries: 0 }))
        }
        Some(_) | None => Ok(()),
    }
}

/// What is sent.
pub(crate) fn body_of(event: &Numbered) -> Value {
    json!({
        "id": event.event.key, "type": event.event.data["type"], "time": event.event.time,
        "data": event.event.data["data"],
    })
}

/// What has become of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The status of the answer.
    pub(crate) status: Option<u16>,
    /// Why it did not arrive.
    pub(crate) error: Option<String>,
    /// Whether it is done with: it arrived, or the receiver will not have it.
    pub(crate) is_final: bool,
}

/// Writes events about what the job that runs has changed.
pub(crate) fn tell(work: &mut Work, scopes: &[Scope]) {
    let mut events = Vec::new();
    if scopes.contains(&Scope::Deviceauth) {
        for (id, before, now) in work.own_devices() {
            events.extend(of_device(before, now).into_iter().map(|(kind, data)| (id.clone(), kind, data)));
        }
    }
    if scopes.contains(&Scope::Inventory) {
        for (id, before, now) in work.own_inventories() {
            if let Some(data) = of_inventory(id, before, now) {
                events.push((id.clone(), "device-inventory-changed", data));
            }
        }
    }
    let time = work.now();
    for (device, kind, data) in events {
        // Without chance, it is named by what it says.
        let key = id::uuid().unwrap_or_else(|_| id::uuid_of_name(&format!("{device} {kind} {time} {data}")));
        let data = json!({ "type": kind, "data": data });
        work.write(Write::Event(Event { stream: Stream::Webhook, key, time, data }));
    }
}

/// What is told of a device. One that is new is no event before it is accepted: anybody can make those.
fn of_device(before: Option<&Device>, now: Option<&Device>) -> Vec<(&'static str, Value)> {
    let status = |device: Option<&Device>| device.map(Device::status);
    match (before, now) {
        (Some(before), None) => vec![("device-decommissioned", json!({ "id": before.id }))],
        (_, Some(device)) if status(before) != Some(device.status()) => {
            let status = device.status();
            let mut told = Vec::new();
            if status == AuthStatus::Accepted {
                let sets = device.auth_sets.iter().map(|set| {
                    json!({
                        "id": set.id, "device_id": device.id, "identity_data": device.identity, "pubkey": set.pubkey,
                        "ts": set.ts, "status": set.status.name(),
                    })
                });
                let sets: Vec<Value> = sets.collect();
                told.push((
                    "device-provisioned",
                    json!({
                        "id": device.id, "status": status.name(), "auth_sets": sets, "created_ts": device.created,
                    }),
                ));
            } else if before.is_some() {
                let data = json!({ "id": device.id, "status": status.name() });
                told.push(("device-status-changed", data));
            }
            told
        }
        (_, Some(_)) | (None, None) => Vec::new(),
    }
}

fn of_inventory(id: &str, before: Option<&Inventory>, now: Option<&Inventory>) -> Option<Value> {
    let now = now.filter(|now| now.updated.is_some())?;
    let is_same = before.is_some_and(|before| {
        before.attributes.len() == now.attributes.len()
            && before
                .attributes
                .values()
                .zip(now.attributes.values())
                .all(|(a, b)| (&a.name, &a.value, &a.description) == (&b.name, &b.value, &b.description))
    });
    let attribute = |(name, attribute): (&String, &crate::model::Attribute)| {
        json!({
            "name": name, "value": attribute.value, "scope": "inventory", "timestamp": attribute.timestamp,
        })
    };
    let inventory: Vec<Value> = now.attributes.iter().map(attribute).collect();
    (!is_same).then(|| json!({ "device_id": id, "tenant_id": "", "inventory": inventory }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_address_or_a_secret_is_refused() {
        for url in ["https://a.example/x?y", "http://[::1]:80", "http://127.0.0.1:1"] {
            assert_eq!(check(url, Some("00fF"), ""), Ok(()), "{url}");
        }
        for url in [
            "",
            "ftp://a",
            "https://",
            "https://u:p@a/",
            "https://u@a",
            "https://a b/",
            "https://ä/",
            "https:///x",
            "https://:80",
            "https://a:0",
            "https://[::1]:x",
        ] {
            assert!(check(url, None, "").is_err(), "{url}");
        }
        assert!(check("https://a", Some("0"), "").is_err());
        assert!(check("https://a", Some("xy"), "").is_err());
        assert!(check("https://a", Some(&"0".repeat(66)), "").is_err());
        assert!(check("https://a", Some(&"0".repeat(64)), "").is_ok());
        assert!(check("https://a", None, &"x".repeat(2000)).is_err());
        assert_eq!(key("00fF10"), Some(vec![0, 255, 16]));
    }

    #[test]
    fn an_address_inside_is_known_with_and_without_a_port() {
        for url in [
            "http://127.0.0.1:9000/x",
            "https://[::1]/",
            "http://[::1]:80",
            "http://localhost?x",
            "http://10.0.0.1",
        ] {
            assert!(is_inside(url), "{url}");
        }
        for url in ["https://crm.example.com:8443/x", "https://[2a00:1450:4001::1]:443/", "https://8.8.8.8"] {
            assert!(!is_inside(url), "{url}");
        }
    }
}
