//! Device configuration: what a device is to be configured with, what it says it is, and deployments that bring it there.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use artifact::write::{self, ArtifactSpec, MetaData, SoftwareName};
use artifact::{Compression, CompressionLevel, InvalidName, Signer};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ApiError, Call, Reply, Shared, artifacts, deployments, reply};
use crate::domain::fleet::{Configured, NewDeployment, Target};
use crate::domain::id;

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
        (["configurations", "device", id, "deploy"], &Method::POST) => {
            if !call.body.is_empty() {
                deployments::refuse_unknown(call, &[])?;
            }
            deploy(shared, id).await
        }
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
    let device = fleet.device(id).ok_or_else(ApiError::not_found)?;
    let known = fleet.configuration(id).cloned().unwrap_or_default();
    let mut shown = json!({
        "id": id,
        "configured": known.configured,
        "reported": known.reported,
        "updated_ts": known.updated_at.unwrap_or(device.created),
    });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shown[name] = value;
        }
    };
    set("deployment_id", known.deployment.map(Value::from));
    set("reported_ts", known.reported_at.map(|time| json!(time)));
    Ok(reply::json(StatusCode::OK, &shown))
}

/// Orders what is configured for the device. Its artifact is made when the device asks.
async fn deploy(shared: &Shared, device: &str) -> Result<Reply, ApiError> {
    let name = format!("configuration-{}", id::uuid()?);
    if shared.options.configuration_key.is_none() {
        log::warn!("{name} is not signed (no --configuration-key): devices that have a key refuse it");
    }
    let (deployment, spent) = shared
        .change(|fleet, now| {
            fleet.device(device).ok_or_else(ApiError::not_found)?;
            let configured = fleet.configuration(device).map(|known| known.configured.clone());
            let new = NewDeployment {
                name: name.clone(),
                artifact_name: name,
                target: Target::Devices(vec![device.to_owned()]),
                force_installation: false,
                configuration: Some(configured.unwrap_or_default()),
            };
            let (deployment, mut changes) = fleet.create(new, now)?;
            changes.extend(fleet.configuration_deployed(device, &deployment).unwrap_or_default());
            let (spent, gone) = fleet.drop_spent_configurations();
            changes.extend(gone);
            Ok::<_, ApiError>(((deployment, spent), changes))
        })
        .await?;
    for id in spent {
        shared.store.blobs.remove(&id);
    }
    Ok(reply::json(StatusCode::OK, &json!({ "deployment_id": deployment })))
}

/// Makes the artifact that a device is about to be offered.
pub(super) async fn make(shared: &Shared, wanted: Configured) -> Result<(), ApiError> {
    let artifact_id = id::uuid()?;
    let key = shared.options.configuration_key.clone();
    let (blobs, id) = (shared.store.blobs.clone(), artifact_id.clone());
    let device = wanted.device.clone();
    let made = tokio::task::spawn_blocking(move || {
        let bytes = artifact(&wanted.artifact_name, &wanted.device_type, &wanted.settings, key.as_deref())?;
        if let Err(error) = blobs.create(&id).and_then(|mut file| file.write_all(&bytes)) {
            blobs.discard(&id);
            return Err(error.into());
        }
        Ok::<_, ApiError>(bytes)
    });
    let bytes = made.await.map_err(|_| ApiError::internal("the artifact could not be made"))??;
    match artifacts::keep_configuration(shared, &artifact_id, &bytes, &device).await {
        // The device has asked twice at once, and the other question was faster.
        Err(error) if error.status == StatusCode::CONFLICT => Ok(()),
        made => made,
    }
}

/// An artifact without files, whose `meta-data` is the configuration.
fn artifact(
    name: &str,
    device_type: &str,
    configured: &Settings,
    key: Option<&[u8]>,
) -> Result<Vec<u8>, ApiError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        log::error!("{name}: {what}: {error}");
        ApiError::internal("the artifact could not be made")
    };
    let misnamed = |error: InvalidName| failed("writing", &error);
    let mut spec = ArtifactSpec::module_image(
        name.parse().map_err(misnamed)?,
        vec![device_type.parse().map_err(misnamed)?],
        PAYLOAD_TYPE.parse().map_err(misnamed)?,
    );
    spec.meta_data = MetaData::Json(json!(configured).to_string());
    spec.compression = CompressionLevel::default_of(Compression::Gzip);
    let software =
        SoftwareName { filesystem: "data-partition".to_owned(), name: Some(PAYLOAD_TYPE.to_owned()) };
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    let signer = key.map(Signer::from_pem).transpose().map_err(|error| failed("the key", &error))?;
    let mut bytes = Vec::new();
    write::write(&spec, &[], signer.as_ref(), &mut Cursor::new(Vec::new()), &mut bytes)
        .map_err(|error| failed("writing", &error))?;
    Ok(bytes)
}
