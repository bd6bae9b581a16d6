//! Deployments as people see them: what became of each device, and why; and waiting for the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server_core::client::{ClientError, DeviceDeploymentInfo, Management};

use super::table::{Table, counted};
use super::{Asked, identity, short_time};
use crate::console::CliError;

/// Between two looks at a deployment.
const INTERVAL: Duration = Duration::from_secs(1);
/// A server that is not there for so long while somebody waits does not come back by itself.
const UNREACHABLE: Duration = Duration::from_secs(60);

/// Every deployment.
pub(super) fn list(management: &Management, status: Option<&str>) -> Result<Asked, ClientError> {
    let mut all = management.deployments()?;
    let is_wanted =
        |deployment: &Value, status| deployment["status"] == status || state(deployment) == status;
    all.retain(|deployment| status.is_none_or(|status| is_wanted(deployment, status)));
    if all.is_empty() {
        return Ok(Asked::new("no deployments\n".to_owned(), json!([])));
    }
    let mut table = Table::new(&["DEPLOYMENT", "CREATED", "STATUS", "NAME", "ARTIFACT", "DEVICES"]);
    for deployment in &all {
        let word = |name: &str| deployment[name].as_str().unwrap_or_default();
        let artifact =
            if word("type") == "configuration" { "(configuration)" } else { word("artifact_name") };
        table.row(&[
            word("id"),
            &short_time(word("created")),
            state(deployment),
            word("name"),
            artifact,
            &results(deployment),
        ]);
    }
    let statuses = all.iter().map(state);
    let text = table.render() + &counted("deployment", statuses);
    Ok(Asked::new(text, Value::Array(all)))
}

/// Its status, as people want to know it: one that is held does not go on, unless it has ended.
fn state(deployment: &Value) -> &str {
    let status = deployment["status"].as_str().unwrap_or_default();
    match deployment["held"].as_str() {
        Some(_) if status != "finished" => "held",
        Some(_) | None => status,
    }
}

/// Why it does not go on, or why a rule has ended it.
fn held(deployment: &Value) -> Option<String> {
    let why = artifact::text::printable(deployment["held"].as_str()?);
    Some(match state(deployment) {
        "held" => format!("held: {why}; no further device begins until a person lets it go on\n"),
        _ => format!("stopped by a rule: {why}\n"),
    })
}

/// `3: 2 success, 1 failure`.
fn results(deployment: &Value) -> String {
    let counts = deployment["statistics"]["status"].as_object();
    let each = counts.into_iter().flatten().filter_map(|(status, count)| {
        let count = count.as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {status}"))
    });
    format!("{}: {}", deployment["device_count"], each.collect::<Vec<_>>().join(", "))
}

/// The devices of one deployment.
pub(super) fn show(management: &Management, id: &str, status: Option<&str>) -> Result<Asked, ClientError> {
    let deployment = management.deployment(id)?;
    let mut devices = management.device_deployments(id)?;
    devices.retain(|device| status.is_none_or(|status| device.status == status));
    let word = |name: &str| deployment[name].as_str().unwrap_or_default();
    let wanted = Wanted::of(management, word("artifact_name"), &devices)?;
    let identities = identities(management, &devices)?;
    let mut table = Table::new(&["DEVICE", "IDENTITY", "STATUS", "ENDED", "LOG", "REASON"]);
    let mut rows = Vec::new();
    for device in &devices {
        let reason = reason(device, &wanted);
        let who = identities.get(&device.id).map_or("", String::as_str);
        let ended = device.finished.as_deref().map(short_time).unwrap_or_default();
        let log = if device.log { "yes" } else { "" };
        table.row(&[&device.id, who, &device.status, &ended, log, &reason]);
        rows.push(json!({
            "id": device.id,
            "identity": who,
            "status": device.status,
            "substate": device.substate,
            "device_type": device.device_type,
            "finished": device.finished,
            "log": device.log,
            "reason": reason,
        }));
    }
    let name = artifact::text::printable(word("name")).into_owned();
    let artifact = artifact::text::printable(word("artifact_name")).into_owned();
    let mut text = format!("{name}: {artifact}, {}\n", state(&deployment));
    text += &held(&deployment).unwrap_or_default();
    if devices.is_empty() {
        text += "no devices\n";
    } else {
        text += &table.render();
        text += &counted("device", devices.iter().map(|device| device.status.as_str()));
    }
    if let Some(device) = devices.iter().find(|device| device.log && device.status == "failure") {
        text += &format!("its log: rust-ota-server log {id} {}\n", device.id);
    }
    Ok(Asked::new(text, json!({ "deployment": deployment, "devices": rows })))
}

/// What the artifacts of a deployment are for.
#[derive(Debug, Default)]
struct Wanted {
    name: String,
    device_types: Vec<String>,
    depends: Vec<String>,
}

impl Wanted {
    /// Asks only when a device has got none.
    fn of(
        management: &Management,
        name: &str,
        devices: &[DeviceDeploymentInfo],
    ) -> Result<Wanted, ClientError> {
        let mut wanted = Wanted { name: name.to_owned(), ..Wanted::default() };
        if devices.iter().all(|device| device.status != "noartifact") {
            return Ok(wanted);
        }
        for artifact in management.artifacts()?.iter().filter(|artifact| artifact["name"] == name) {
            let types = artifact["device_types_compatible"].as_array().into_iter().flatten();
            wanted.device_types.extend(types.filter_map(|kind| Some(kind.as_str()?.to_owned())));
            let depends = artifact["artifact_depends"].as_object().into_iter().flatten();
            let others = depends.filter(|(key, _)| *key != "device_type");
            wanted.depends.extend(others.map(|(key, value)| format!("{key}={}", plain(value))));
        }
        wanted.device_types.sort();
        wanted.device_types.dedup();
        Ok(wanted)
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join("|"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// Why a device is where it is, in words. The names are those of the API, which may get more of them.
fn reason(device: &DeviceDeploymentInfo, wanted: &Wanted) -> String {
    let said = device.substate.clone().unwrap_or_default();
    match device.status.as_str() {
        "noartifact" => {
            let Wanted { name, device_types, depends } = wanted;
            match &device.device_type {
                _ if device_types.is_empty() => format!("there is no artifact {name} any more"),
                Some(kind) if device_types.contains(kind) => {
                    format!("{name} needs {}, which the device does not provide", depends.join(", "))
                }
                Some(kind) => {
                    format!("the device is of type {kind}, {name} is for {}", device_types.join(", "))
                }
                None => format!("no artifact {name} fits the device"),
            }
        }
        "already-installed" => "it had this already".to_owned(),
        "aborted" => "stopped by a person".to_owned(),
        "decommissioned" => "the device was removed".to_owned(),
        "pending" if said.is_empty() => "it has not asked yet".to_owned(),
        "failure" if said.is_empty() && !device.log => "the device has not said why".to_owned(),
        // What it was doing before the end is not why it ended.
        "success" => String::new(),
        _ => said,
    }
}

/// Who the devices are.
fn identities(
    management: &Management,
    devices: &[DeviceDeploymentInfo],
) -> Result<BTreeMap<String, String>, ClientError> {
    // One question for the few that most deployments have, and not one for each of many.
    if devices.len() <= 20 {
        let one = |device: &DeviceDeploymentInfo| match management.device(&device.id) {
            Ok(known) => Some(Ok((known.id, identity(&known.identity_data)))),
            Err(ClientError::Status { status: 404, .. }) => None,
            Err(error) => Some(Err(error)),
        };
        return devices.iter().filter_map(one).collect();
    }
    let known = management.devices()?;
    Ok(known.into_iter().map(|known| (known.id, identity(&known.identity_data))).collect())
}

/// Waits until a deployment has ended, and shows it. An error when not every device has the update then.
pub(super) fn wait(management: &Management, id: &str, timeout: Option<Duration>) -> Result<Asked, CliError> {
    let begun = Instant::now();
    let mut unreachable: Option<Instant> = None;
    let mut said = String::new();
    loop {
        match management.deployment(id) {
            Ok(deployment) => {
                unreachable = None;
                let so_far = results(&deployment);
                if deployment["status"] == "finished" {
                    return ended(management, id, &deployment);
                }
                if so_far != said {
                    // For whoever looks on; the result is on the standard output.
                    eprintln!("waiting, {}", artifact::text::printable(&so_far));
                    said = so_far;
                }
            }
            // A server that is started anew is back in a moment.
            Err(error @ ClientError::Transport(_)) => {
                let since = *unreachable.get_or_insert_with(Instant::now);
                if since.elapsed() > UNREACHABLE {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            let error = CliError::NotFinished(format!("deployment {id} has not ended"));
            return Ok(Asked { error: Some(error), ..show(management, id, None)? });
        }
        let left = timeout.map_or(INTERVAL, |timeout| timeout.saturating_sub(begun.elapsed()));
        std::thread::sleep(left.min(INTERVAL));
    }
}

fn ended(management: &Management, id: &str, deployment: &Value) -> Result<Asked, CliError> {
    let counts = &deployment["statistics"]["status"];
    let count = |status: &str| counts[status].as_u64().unwrap_or(0);
    let (good, all) = (count("success") + count("already-installed"), &deployment["device_count"]);
    let error = (all.as_u64() != Some(good))
        .then(|| CliError::NotEverywhere(format!("{good} of {all} devices have the update")));
    Ok(Asked { error, ..show(management, id, None)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_held() {
        let of = |deployment: Value| (state(&deployment).to_owned(), held(&deployment).unwrap_or_default());
        let (state, text) = of(json!({ "status": "inprogress", "held": "2 have failed" }));
        assert_eq!(state, "held");
        assert!(text.starts_with("held: 2 have failed; no further device begins"), "{text}");
        let (state, text) = of(json!({ "status": "finished", "held": "2 have failed" }));
        assert_eq!((&*state, &*text), ("finished", "stopped by a rule: 2 have failed\n"));
        assert_eq!(of(json!({ "status": "pending" })), ("pending".to_owned(), String::new()));
    }

    fn check(device: Value, expected: &str) {
        let mut whole = json!({ "id": "a", "log": false });
        whole.as_object_mut().unwrap().extend(device.as_object().unwrap().clone());
        let device: DeviceDeploymentInfo = serde_json::from_value(whole).unwrap();
        let wanted = Wanted {
            name: "rel-2".to_owned(),
            device_types: vec!["x".to_owned(), "y".to_owned()],
            depends: vec!["version=1|2".to_owned()],
        };
        assert_eq!(reason(&device, &wanted), expected);
    }

    #[test]
    fn every_end_has_its_reason() {
        let none = |kind: &str| json!({ "status": "noartifact", "device_type": kind });
        check(none("z"), "the device is of type z, rel-2 is for x, y");
        check(none("x"), "rel-2 needs version=1|2, which the device does not provide");
        check(json!({ "status": "failure", "substate": "it broke" }), "it broke");
        check(json!({ "status": "failure" }), "the device has not said why");
        check(json!({ "status": "success", "substate": "half" }), "");
        check(json!({ "status": "aborted" }), "stopped by a person");
        check(json!({ "status": "pending" }), "it has not asked yet");
        check(json!({ "status": "downloading", "substate": "half" }), "half");
    }
}
