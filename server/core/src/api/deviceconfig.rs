//! Device configuration: what a device is to be configured with, what it says it is, and deployments that bring it there.

use std::collections::BTreeMap;
use std::io::Cursor;

use artifact::write::{self, ArtifactSpec, MetaData, SoftwareName};
use artifact::{Compression, CompressionLevel, InvalidName, Signer};
use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Speaker;
use super::routes::{Route, made};
use super::seen::{Seen, tagged};
use super::{ApiError, Call, Reply, Shared, artifacts, deployments, reply};
use crate::domain::configuration;
use crate::domain::id;
use crate::domain::rollout::{self, Configured};
use crate::model::Configuration;
use crate::work::{Key, Kind, Work};

/// The update module that takes configurations.
const PAYLOAD_TYPE: &str = "mender-configure";
/// Settings of one device, and the characters of a name and of a value.
const SETTINGS: usize = 256;
const NAME_CHARS: usize = 256;
const VALUE_CHARS: usize = 4096;

type Settings = BTreeMap<String, String>;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get(
        "/api/management/v1/deviceconfig/configurations/device/{device}",
        "The configuration of a device",
    )
    .gives("DeviceConfiguration")
    .fails(&[404]),
    Route::put(
        "/api/management/v1/deviceconfig/configurations/device/{device}",
        "Set the configuration of a device",
    )
    .takes(made::<Settings>)
    .fails(&[404, 412]),
    Route::post(
        "/api/management/v1/deviceconfig/configurations/device/{device}/deploy",
        "Deploy the configuration",
    )
    .may_take(made::<Deploy>)
    .gives("DeploymentId")
    .fails(&[404, 409, 422]),
];

/// What a device asks and tells.
pub(super) async fn device(shared: &Shared, call: &Call, speaker: &Speaker) -> Result<Reply, ApiError> {
    let claims = speaker.claims.clone();
    match call.method {
        Method::GET => {
            let configured = known(shared, &claims.sub).await?.configured;
            Ok(reply::json(StatusCode::OK, &json!(configured)))
        }
        Method::PUT => {
            let reported = settings(call)?;
            let keys = configuration::keys(&claims.sub);
            shared.change(keys, move |work| configuration::report(work, &claims, &reported)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// What is known; nothing before anything was said.
pub(super) async fn known(shared: &Shared, device: &str) -> Result<Configuration, ApiError> {
    let value = shared.service.store.document(Kind::Configuration, device).await?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
}

/// What people ask: `configurations/device/{id}` and `.../deploy`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["configurations", "device", id], &Method::GET) => show(shared, id).await,
        (["configurations", "device", id], &Method::PUT) => {
            let configured = settings(call)?;
            let keys = configuration::keys(id);
            let id = (*id).to_owned();
            let seen = Seen::of(call);
            let rule = move |work: &mut Work| {
                let known = work.document::<Configuration>(Kind::Configuration, &id)?.unwrap_or_default();
                // Who is not there is not found, whatever somebody has seen.
                configuration::configure(work, &id, &configured)?;
                seen.is(&known.configured)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["configurations", "device", id, "deploy"], &Method::POST) => {
            let mut retries = 0;
            if !call.body.is_empty() {
                deployments::refuse_unknown(call, &["retries"])?;
                retries = deployments::retries(call.json::<Deploy>()?.retries)?;
            }
            deploy(shared, id, retries).await
        }
        _ => Err(ApiError::no_route()),
    }
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeployConfiguration")]
struct Deploy {
    #[serde(default)]
    retries: Option<u32>,
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

async fn show(shared: &Shared, id: &str) -> Result<Reply, ApiError> {
    let device = shared.service.store.device(id).await?.ok_or_else(ApiError::not_found)?;
    let known = known(shared, id).await?;
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
    Ok(tagged(reply::json(StatusCode::OK, &shown), &known.configured))
}

/// Orders what is configured for the device. Its artifact is made when the device asks.
async fn deploy(shared: &Shared, id: &str, retries: u32) -> Result<Reply, ApiError> {
    let name = format!("configuration-{}", id::uuid()?);
    if shared.options.configuration_key.is_none() {
        log::warn!("{name} is not signed (no --configuration-key): devices that have a key refuse it");
    }
    let keys = configuration::keys(id);
    let id = id.to_owned();
    let rule = move |work: &mut _| configuration::deploy(work, &id, &name, retries);
    let (deployment, before) = shared.change(keys, rule).await?;
    forget_made(shared, before).await;
    Ok(reply::json(StatusCode::OK, &json!({ "deployment_id": deployment })))
}

/// Forgets the artifact that was made for a deployment, if that is over: the device has another one now, or is gone. Until
/// then it stays, as a device may still load it.
pub(super) async fn forget_made(shared: &Shared, deployment: Option<String>) {
    let Some(deployment) = deployment else { return };
    let own = deployment.clone();
    match shared.change_unnoted(Vec::new(), move |work| rollout::forget_made(work, &own)).await {
        Ok(true) => artifacts::remove(&*shared.blobs, &deployment).await,
        Ok(false) => {}
        Err(error) => log::warn!("the artifact of deployment {deployment} stays: {}", error.message),
    }
}

/// Makes the artifact that a device is about to be offered. It has the id of its deployment.
pub(super) async fn make(shared: &Shared, wanted: Configured) -> Result<(), ApiError> {
    let key = shared.options.configuration_key.clone();
    let (deployment, device) = (wanted.deployment.clone(), wanted.device.clone());
    let made = tokio::task::spawn_blocking(move || {
        artifact(&wanted.artifact_name, &wanted.device_type, &wanted.settings, key.as_deref())
    });
    let bytes = made.await.map_err(|_| ApiError::internal("the artifact could not be made"))??;
    let artifact = artifacts::put_made(shared, &deployment, bytes, &device).await?;
    let (keys, own) = (vec![Key::Deployment(deployment.clone())], deployment.clone());
    let rule = move |work: &mut _| rollout::configuration_made(work, &own, &artifact);
    if !shared.change(keys, rule).await? {
        artifacts::remove(&*shared.blobs, &deployment).await;
    }
    Ok(())
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
