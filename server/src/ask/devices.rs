//! Devices as people see them, and their keys: each is an authentication set of the API. A device that asks with a new key, or
//! somebody who says to be it, waits with that key until a person decides, also while the device has one that is accepted.

use std::cell::OnceCell;

use serde_json::{Value, json};
use server_core::client::{AuthSetInfo, ClientError, DeviceInfo, Management};

use super::table::{Table, counted};
use super::{Asked, identity, is_whole, short_time, unique};
use crate::console::CliError;

/// What a person decides about a device or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Accept,
    Reject,
}

/// A device, or one key of it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Device(String),
    Key { device: String, key: String },
}

/// Looks up ids by their beginning. The list is asked for once, when it is first needed.
pub(super) struct Ids<'a> {
    management: &'a Management,
    devices: OnceCell<Vec<DeviceInfo>>,
}

impl Ids<'_> {
    pub(super) fn new(management: &Management) -> Ids<'_> {
        Ids { management, devices: OnceCell::new() }
    }

    pub(super) fn device(&self, word: &str) -> Result<String, CliError> {
        if is_whole(word) {
            return Ok(word.to_owned());
        }
        unique("device", word, self.all()?.iter().map(|device| device.id.as_str()))
    }

    fn all(&self) -> Result<&[DeviceInfo], CliError> {
        if let Some(devices) = self.devices.get() {
            return Ok(devices);
        }
        let devices = self.management.devices()?;
        Ok(self.devices.get_or_init(|| devices))
    }

    /// A device, or else a key.
    fn device_or_key(&self, word: &str) -> Result<Named, CliError> {
        if is_whole(word) {
            match self.management.device(word) {
                Ok(device) => return Ok(Named::Device(device.id)),
                Err(ClientError::Status { status: 404, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let all = self.all()?;
        let beginning = word.to_ascii_lowercase();
        if all.iter().any(|device| device.id.starts_with(&beginning)) {
            return self.device(word).map(Named::Device);
        }
        let keys = || all.iter().flat_map(|device| device.auth_sets.iter().map(move |key| (device, key)));
        let key = unique("device or key", word, keys().map(|(_, key)| key.id.as_str()))?;
        let device = keys().find(|(_, known)| known.id == key).map(|(device, _)| device.id.clone());
        device.map(|device| Named::Key { device, key }).ok_or_else(|| {
            CliError::Failed(format!("there is no device or key whose id begins with {word:?}"))
        })
    }
}

/// Every device with this status and of this group.
pub(super) fn list(
    management: &Management,
    status: Option<&str>,
    group: Option<&str>,
) -> Result<Asked, CliError> {
    let inside = group.map(|group| management.group(group)).transpose()?;
    let wanted = |device: &DeviceInfo| {
        status.is_none_or(|status| device.status == status)
            && inside.as_ref().is_none_or(|ids| ids.contains(&device.id))
    };
    let all: Vec<DeviceInfo> = management.devices()?.into_iter().filter(wanted).collect();
    let json = all.iter().map(described).collect();
    if all.is_empty() {
        return Ok(Asked::new("no devices\n".to_owned(), json));
    }
    let mut table = Table::new(&["DEVICE", "STATUS", "KEYS", "LAST SEEN", "IDENTITY"]);
    for device in &all {
        let seen = device.check_in_time.as_deref().map_or_else(|| "never".to_owned(), short_time);
        table.row(&[&device.id, &device.status, &keys(device), &seen, &identity(&device.identity_data)]);
    }
    let text = table.render() + &counted("device", all.iter().map(|device| device.status.as_str()));
    Ok(Asked::new(text, json))
}

/// `1`, or `2, 1 pending` where a key waits beside others.
fn keys(device: &DeviceInfo) -> String {
    let waiting = device.auth_sets.iter().filter(|key| key.status == "pending").count();
    match (device.auth_sets.len(), waiting) {
        (all @ (0 | 1), _) | (all, 0) => all.to_string(),
        (all, waiting) => format!("{all}, {waiting} pending"),
    }
}

/// The keys of some devices.
pub(super) fn show(management: &Management, words: &[&str]) -> Result<Asked, CliError> {
    let known = Ids::new(management);
    let ids = words.iter().map(|word| known.device(word)).collect::<Result<Vec<_>, _>>()?;
    let of_device =
        |id: &String| management.device(id).map_err(|error| CliError::Failed(format!("{id}: {error}")));
    let devices = ids.iter().map(of_device).collect::<Result<Vec<_>, _>>()?;
    let mut table = Table::new(&["KEY", "STATUS", "SINCE", "DEVICE", "IDENTITY", "SHA-256 OF THE KEY"]);
    for device in &devices {
        let who = identity(&device.identity_data);
        for key in &device.auth_sets {
            let digest = key.rust_ota.sha256.clone().unwrap_or_default();
            table.row(&[&key.id, &key.status, &short_time(&key.ts), &device.id, &who, &digest]);
        }
    }
    let statuses = devices.iter().flat_map(|device| &device.auth_sets).map(|key| key.status.as_str());
    let text = match statuses.clone().next() {
        Some(_) => table.render() + &counted("key", statuses),
        None => "no keys\n".to_owned(),
    };
    Ok(Asked::new(text, devices.iter().map(described).collect()))
}

fn described(device: &DeviceInfo) -> Value {
    let key = |key: &AuthSetInfo| json!({ "id": key.id, "status": key.status, "since": key.ts, "sha256": key.rust_ota.sha256 });
    json!({
        "id": device.id,
        "status": device.status,
        "identity": device.identity_data,
        "last_seen": device.check_in_time,
        "keys": device.auth_sets.iter().map(key).collect::<Vec<_>>(),
    })
}

/// Accepts or rejects devices, or single keys of them. All names are looked up before anything is done.
pub(super) fn decide(management: &Management, words: &[&str], decision: Decision) -> Result<Asked, CliError> {
    let known = Ids::new(management);
    let named = words.iter().map(|word| known.device_or_key(word)).collect::<Result<Vec<_>, _>>()?;
    let now = match decision {
        Decision::Accept => "accepted",
        Decision::Reject => "rejected",
    };
    let (mut text, mut rows) = (String::new(), Vec::new());
    for named in named {
        let (told, row, done) = match (&named, decision) {
            (Named::Device(id), Decision::Accept) => (id.clone(), json!({ "id": id }), management.accept(id)),
            (Named::Device(id), Decision::Reject) => (id.clone(), json!({ "id": id }), management.reject(id)),
            (Named::Key { device, key }, _) => (
                format!("{device}: key {key}"),
                json!({ "id": device, "key": key }),
                management.set_key_status(device, key, now),
            ),
        };
        if let Err(error) = done {
            let error = Some(CliError::Failed(format!("{told}: {error}")));
            return Ok(Asked { text, json: Value::Array(rows), error });
        }
        text += &format!("{told} {now}\n");
        let mut row = row;
        row["result"] = json!(now);
        rows.push(row);
    }
    Ok(Asked::new(text, Value::Array(rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(statuses: &[&str]) -> DeviceInfo {
        let key =
            |(at, status): (usize, &&str)| json!({ "id": at.to_string(), "pubkey": "", "status": status });
        let keys: Vec<Value> = statuses.iter().enumerate().map(key).collect();
        let device = json!({ "id": "a", "identity_data": {}, "status": "accepted", "auth_sets": keys });
        serde_json::from_value(device).unwrap()
    }

    #[test]
    fn a_key_that_waits_beside_others_is_seen_in_the_list() {
        for (statuses, shown) in [
            (&[][..], "0"),
            (&["pending"], "1"),
            (&["accepted", "rejected"], "2"),
            (&["accepted", "pending"], "2, 1 pending"),
            (&["pending", "pending"], "2, 2 pending"),
        ] {
            assert_eq!(keys(&device(statuses)), shown);
        }
    }
}
