//! A deployment of one run: made, counted, and looked through for what the server has acknowledged.

use std::fs::OpenOptions;
use std::io::Cursor;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use artifact::write::{self, ArtifactSpec};
use serde_json::{Value, json};
use server_core::client::{ClientError, Management};
use server_core::simulated;

use super::request::{ROLL_OUT, Step};
use crate::console::CliError;

/// Who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Every tenth device, which are in a group.
    Tenth,
    /// Every device.
    All,
}

impl Target {
    /// How many of `devices`.
    pub(super) fn count(self, devices: u32) -> u32 {
        match self {
            Target::Tenth => devices.div_ceil(simulated::IN_TENTH),
            Target::All => devices,
        }
    }

    /// Which device has that place among them.
    pub(super) fn device(self, place: u32) -> u32 {
        match self {
            Target::Tenth => place * simulated::IN_TENTH,
            Target::All => place,
        }
    }

    /// The place of that device.
    pub(super) fn place(self, device: u32) -> usize {
        match self {
            Target::Tenth => (device / simulated::IN_TENTH) as usize,
            Target::All => device as usize,
        }
    }
}

/// The deployment.
pub(super) struct RollOut<'a> {
    management: &'a Management,
    pub(super) id: String,
    pub(super) target: Target,
    /// How long it took to say what it would do.
    dry_run_ms: f64,
    /// How long it took to make it.
    pub(super) made_ms: f64,
}

impl<'a> RollOut<'a> {
    /// Makes an artifact that none of the devices has, and a deployment of it.
    pub(super) fn begin(management: &'a Management, target: Target) -> Result<RollOut<'a>, CliError> {
        let name = format!("release-{}-{}", std::process::id(), unix_seconds());
        upload(management, &name)?;
        let mut wanted = json!({ "name": name, "artifact_name": name });
        match target {
            Target::Tenth => wanted["group"] = json!(simulated::TENTH),
            Target::All => wanted["all_devices"] = json!(true),
        }
        let began = Instant::now();
        management.dry_run(&wanted).map_err(failed)?;
        let dry_run_ms = milliseconds(began);
        let began = Instant::now();
        let id = management.create_deployment(&wanted).map_err(failed)?;
        Ok(RollOut { management, id, target, dry_run_ms, made_ms: milliseconds(began) })
    }

    /// How many devices have which status; aborts what has not ended.
    pub(super) fn end(&self, members: u32) -> Result<Value, CliError> {
        let began = Instant::now();
        let statistics = self.management.statistics(&self.id).map_err(failed)?;
        let statistics_ms = milliseconds(began);
        let is_over = statistics["success"].as_u64() == Some(u64::from(members));
        let began = Instant::now();
        if !is_over {
            self.management.abort(&self.id).map_err(failed)?;
        }
        let aborted_ms = if is_over { Value::Null } else { json!(milliseconds(began)) };
        Ok(json!({
            "deployment": self.id,
            "members": members,
            "dry_run_ms": self.dry_run_ms,
            "made_ms": self.made_ms,
            "statistics_ms": statistics_ms,
            "aborted_ms": aborted_ms,
            "statistics": statistics,
        }))
    }

    /// Looks through all devices of the deployment: how many are not as far as the server has acknowledged.
    pub(super) fn lost(&self, acknowledged: &[AtomicU8]) -> Result<Value, CliError> {
        const PER_PAGE: usize = 500;
        let (mut seen, mut known, mut lost) = (0, 0, 0);
        for page in 1.. {
            let path = format!(
                "/api/management/v1/deployments/deployments/{}/devices/list?page={page}&per_page={PER_PAGE}",
                self.id
            );
            let (status, text) = self.management.ask("GET", &path, None).map_err(failed)?;
            let listed: Value = serde_json::from_str(&text)
                .map_err(|error| CliError::Failed(format!("a page of devices, {status}: {error}")))?;
            let Some(listed) = listed.as_array().filter(|listed| !listed.is_empty()) else { break };
            for device in listed {
                let number =
                    device["id"].as_str().and_then(simulated::number_of).map(|n| self.target.place(n));
                let told = number
                    .and_then(|place| acknowledged.get(place))
                    .map_or(0, |told| told.load(Ordering::Relaxed));
                seen += 1;
                known += usize::from(told > 0);
                lost += usize::from(progress(device["status"].as_str().unwrap_or_default()) < told);
            }
        }
        let told = acknowledged.iter().filter(|told| told.load(Ordering::Relaxed) > 0).count();
        // A device that is not listed at all is lost as well.
        Ok(json!({ "listed": seen, "acknowledged": told, "lost": lost + told.saturating_sub(known) }))
    }
}

/// How many of the device's questions a status stands for.
fn progress(status: &str) -> u8 {
    let at = ROLL_OUT.iter().position(|step| *step == Step::Report(known(status)));
    at.map_or(1, |at| u8::try_from(at + 1).unwrap_or(u8::MAX))
}

/// The same text, as it is in the list of steps.
fn known(status: &str) -> &'static str {
    let all = ROLL_OUT.iter().filter_map(|step| match step {
        Step::Report(text) => Some(*text),
        Step::Poll | Step::Inventory | Step::Next => None,
    });
    all.into_iter().find(|text| *text == status).unwrap_or_default()
}

/// An artifact without a payload: what is measured is not the network.
fn upload(management: &Management, name: &str) -> Result<(), CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError::Failed(format!("the artifact {name}: {error}"));
    let types: Result<Vec<_>, _> = simulated::DEVICE_TYPES.iter().map(|kind| kind.parse()).collect();
    let spec = ArtifactSpec::bootstrap(
        name.parse().map_err(|error| wrong(&error))?,
        types.map_err(|error| wrong(&error))?,
    );
    let path = std::env::temp_dir().join(format!("rust-ota-server-{name}.mender"));
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| wrong(&error))?;
    let written = write::write(&spec, &[], None, &mut Cursor::new(Vec::new()), &mut file);
    let sent = written
        .map_err(|error| wrong(&error))
        .and_then(|()| management.upload_artifact(&path).map_err(failed));
    std::fs::remove_file(&path).map_err(|error| wrong(&error))?;
    sent.map(drop)
}

fn failed(error: ClientError) -> CliError {
    CliError::Failed(error.to_string())
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_stands_for_the_questions_before_it() {
        assert_eq!(progress("pending"), 1);
        assert_eq!(progress("downloading"), 2);
        assert_eq!(progress("success"), u8::try_from(ROLL_OUT.len()).unwrap());
    }

    #[test]
    fn places_and_devices_are_each_other() {
        for target in [Target::Tenth, Target::All] {
            let count = target.count(1005);
            assert!((0..count).all(|place| target.place(target.device(place)) == place as usize));
            assert!(target.device(count - 1) < 1005 && target.device(count) >= 1005);
        }
    }
}
