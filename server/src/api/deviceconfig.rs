//! Device configuration: what a device is to be configured with, what it says it is, and deployments that bring it there.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use client_core::artifact::write::{self, ArtifactSpec, MetaData, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel, Signer};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ApiError, Call, Reply, Shared, artifacts, reply};
use crate::domain::fleet::{CreateError, NewDeployment, Target};
use crate::domain::id;
use crate::domain::model::AuthStatus;

/// The update module that takes configurations.
const PAYLOAD_TYPE: &str = "mender-configure";
/// Settings of one device, and the characters of a name and of a value.
const SETTINGS: usize = 256;
const NAME_CHARS: usize = 256;
const VALUE_CHARS: usize = 4096;

type Settings = BTreeMap<String, String>;

/// What a device asks and tells.
pub(super) async fn device(shared: &Shared, call: &Call, device: &str) -> Result<Reply, ApiError> {
    match call.method {
        Method::GET => {
            let fleet = shared.fleet();
            let configured = fleet.configuration(device).map(|known| &known.configured);
            Ok(reply::json(StatusCode::OK, &json!(configured.unwrap_or(&Settings::new()))))
        }
        Method::PUT => {
            let reported = settings(call)?;
            shared.change(|fleet, now| found(fleet.report_configuration(device, reported, now))).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// What people ask: `configurations/device/{id}` and `.../deploy`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["configurations", "device", id], &Method::GET) => show(shared, id),
        (["configurations", "device", id], &Method::PUT) => {
            let configured = settings(call)?;
            shared.change(|fleet, now| found(fleet.configure(id, configured, now))).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["configurations", "device", id, "deploy"], &Method::POST) => deploy(shared, id).await,
        _ => Err(ApiError::not_found()),
    }
}

fn found<T>(changes: Option<Vec<T>>) -> Result<((), Vec<T>), ApiError> {
    changes.map(|changes| ((), changes)).ok_or_else(ApiError::not_found)
}

/// A flat map of text, within its limits.
fn settings(call: &Call) -> Result<Settings, ApiError> {
    let settings: Settings = call.json()?;
    let fits = |(name, value): (&String, &String)| {
        (1..=NAME_CHARS).contains(&name.chars().count()) && value.chars().count() <= VALUE_CHARS
    };
    if settings.len() > SETTINGS || !settings.iter().all(fits) {
        return Err(ApiError::bad_request("too many settings, or one that is too long"));
    }
    Ok(settings)
}

fn show(shared: &Shared, id: &str) -> Result<Reply, ApiError> {
    let fleet = shared.fleet();
    fleet.device(id).ok_or_else(ApiError::not_found)?;
    let known = fleet.configuration(id).cloned().unwrap_or_default();
    let mut shown = json!({ "id": id, "configured": known.configured, "reported": known.reported });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown[name] = value;
        }
    };
    set("deployment_id", known.deployment.map(Value::from));
    set("reported_ts", known.reported_at.map(|time| json!(time)));
    set("updated_ts", known.updated_at.map(|time| json!(time)));
    Ok(reply::json(StatusCode::OK, &shown))
}

/// Makes an artifact of what is configured, and orders it for the device.
async fn deploy(shared: &Shared, device: &str) -> Result<Reply, ApiError> {
    let (configured, device_type) = {
        let fleet = shared.fleet();
        // Before an artifact is made that nothing would need.
        if fleet.device(device).ok_or_else(ApiError::not_found)?.status() != AuthStatus::Accepted {
            return Err(CreateError::NotAccepted(device.to_owned()).into());
        }
        let configured = fleet.configuration(device).map(|known| known.configured.clone());
        let attribute = fleet.inventory(device).and_then(|known| known.attributes.get("device_type"));
        let device_type = attribute.and_then(|attribute| attribute.value.as_str()).map(str::to_owned);
        (configured.unwrap_or_default(), device_type)
    };
    let device_type =
        device_type.ok_or_else(|| ApiError::conflict("the device has not said what type it is of"))?;
    let artifact_id = id::uuid()?;
    let name = format!("configuration-{artifact_id}");
    let key = shared.options.configuration_key.clone();
    if key.is_none() {
        log::warn!("{name} is not signed (no --configuration-key): devices that have a key refuse it");
    }
    let (spec_name, blobs, id) = (name.clone(), shared.store.blobs.clone(), artifact_id.clone());
    let made = tokio::task::spawn_blocking(move || {
        let bytes = artifact(&spec_name, &device_type, &configured, key.as_deref())?;
        if let Err(error) = blobs.create(&id).and_then(|mut file| file.write_all(&bytes)) {
            blobs.discard(&id);
            return Err(error.into());
        }
        Ok::<_, ApiError>(bytes)
    });
    let bytes = made.await.map_err(|_| ApiError::bad_request("the artifact could not be made"))??;
    let description = format!("configuration of device {device}");
    artifacts::keep_made(shared, &artifact_id, &bytes, description).await?;
    let new = NewDeployment {
        name: name.clone(),
        artifact_name: name,
        target: Target::Devices(vec![device.to_owned()]),
        force_installation: false,
    };
    let deployment = shared.change(|fleet, now| fleet.create(new, now)).await?;
    shared.change(|fleet, _| found(fleet.configuration_deployed(device, &deployment))).await?;
    Ok(reply::json(StatusCode::OK, &json!({ "deployment_id": deployment })))
}

/// An artifact without files, whose `meta-data` is the configuration.
fn artifact(
    name: &str,
    device_type: &str,
    configured: &Settings,
    key: Option<&[u8]>,
) -> Result<Vec<u8>, ApiError> {
    let mut spec = ArtifactSpec::module_image(name, &[device_type.to_owned()], PAYLOAD_TYPE);
    spec.meta_data = MetaData::Json(json!(configured).to_string());
    spec.compression = CompressionLevel::default_of(Compression::Gzip);
    let software =
        SoftwareName { filesystem: "data-partition".to_owned(), name: Some(PAYLOAD_TYPE.to_owned()) };
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        log::error!("{name}: {what}: {error}");
        ApiError::bad_request("the artifact could not be made")
    };
    let signer = key.map(Signer::from_pem).transpose().map_err(|error| failed("the key", &error))?;
    let mut bytes = Vec::new();
    write::write(&spec, &[], signer.as_ref(), &mut Cursor::new(Vec::new()), &mut bytes)
        .map_err(|error| failed("writing", &error))?;
    Ok(bytes)
}
