//! What devices ask: tokens, updates, and where their reports go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::call::{Caller, Speaker};
use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, connect, cookie, deviceconfig, monitor, reply, updates};
use crate::domain::admission::{self, AuthDecision, SpeakError, is_valid};
use crate::domain::identity::Identity;
use crate::domain::inventory::{self, InventoryError, Reported};
use crate::domain::json::is_value;
use crate::domain::limits;
use crate::domain::pubkey::PublicKey;
use crate::domain::token::Subject;
use crate::model::time::Timestamp;
use crate::model::{Attribute, Inventory};
use crate::work::{Key, NotLoaded};

const UNAUTHORIZED: &str = "dev auth: unauthorized";
/// What was read of a device when its request began is not read again for that long, unless a device has changed here: other
/// processes may serve the same fleet.
const FRESH: Duration = Duration::from_secs(1);
/// The time of a report that says nothing new is stored when the one that is stored is that old.
const REPORT_SECONDS: u64 = 24 * 3600;

impl From<SpeakError> for ApiError {
    fn from(error: SpeakError) -> ApiError {
        match error {
            SpeakError::NotLoaded => NotLoaded.into(),
            SpeakError::Unauthorized => ApiError::unauthorized(UNAUTHORIZED),
        }
    }
}

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post(
        "/api/devices/v1/authentication/auth_requests",
        "Ask for a token; the header X-MEN-Signature signs the body",
    )
    .takes(made::<AuthRequest>)
    .gives_text("application/jwt")
    .fails(&[401]),
    Route::put("/api/devices/v1/inventory/device/attributes", "Report all attributes")
        .takes(made::<Vec<ReportedAttribute>>)
        .status(200),
    Route::patch("/api/devices/v1/inventory/device/attributes", "Report some attributes")
        .takes(made::<Vec<ReportedAttribute>>)
        .status(200),
    Route::post(
        "/api/devices/v2/deployments/device/deployments/next",
        "Ask for an update, with all that is provided",
    )
    .takes(made::<updates::V2Request>)
    .gives("Next")
    .also(&[204])
    .fails(&[404, 409]),
    Route::post("/api/devices/v1/deployments/device/deployments/next", "Ask for an update")
        .takes(made::<BTreeMap<String, Value>>)
        .gives("Next")
        .also(&[204])
        .fails(&[409]),
    Route::get(
        "/api/devices/v1/deployments/device/deployments/next",
        "Ask for an update, with little that is provided",
    )
    .queries(&["artifact_name", "device_type"])
    .gives("Next")
    .also(&[204])
    .fails(&[409]),
    Route::put(
        "/api/devices/v1/deployments/device/deployments/{deployment}/status",
        "Report how far the update is",
    )
    .takes(made::<updates::StatusReport>)
    .fails(&[404, 409, 422]),
    Route::put(
        "/api/devices/v1/deployments/device/deployments/{deployment}/log",
        "Report the log of the update",
    )
    .takes(made::<updates::LogReport>)
    .fails(&[404, 409, 422]),
    Route::get(
        "/api/devices/v1/deployments/device/deployments/{deployment}/update_control_map",
        "Where the update is to pause",
    )
    .gives("ControlMap")
    .also(&[204])
    .fails(&[404]),
    Route::get("/api/devices/v1/deviceconfig/configuration", "What the device is to be configured with")
        .gives("{text}"),
    Route::put("/api/devices/v1/deviceconfig/configuration", "Report what the device is configured with")
        .takes(made::<BTreeMap<String, String>>)
        .fails(&[404]),
    Route::get("/api/devices/v1/deviceconnect/connect", "Open the WebSocket of a device")
        .status(101)
        .fails(&[403]),
];

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    if let ("v1", ["authentication", "auth_requests"], &Method::POST) = (version, rest, &call.method) {
        return authenticate(shared, call).await;
    }
    match (version, rest, &call.method) {
        ("v1", ["inventory", "device", "attributes"], &Method::PUT) => {
            report(shared, call, speaker(shared, call).await?, Reported::All).await
        }
        ("v1", ["inventory", "device", "attributes"], &Method::PATCH) => {
            report(shared, call, speaker(shared, call).await?, Reported::Some).await
        }
        ("v2", ["deployments", "device", "deployments", "next"], &Method::POST) if shared.options.v2 => {
            let speaker = speaker(shared, call).await?;
            updates::next(shared, call, speaker, &updates::v2_request(call)?).await
        }
        ("v1", ["deployments", "device", "deployments", "next"], &Method::POST) => {
            let speaker = speaker(shared, call).await?;
            updates::next(shared, call, speaker, &updates::request(call)?).await
        }
        ("v1", ["deployments", "device", "deployments", "next"], &Method::GET) => {
            let speaker = speaker(shared, call).await?;
            updates::next(shared, call, speaker, &updates::query_request(call)?).await
        }
        ("v1", ["deployments", "device", "deployments", id, "status"], &Method::PUT) => {
            updates::status(shared, call, speaker(shared, call).await?, id).await
        }
        ("v1", ["deployments", "device", "deployments", id, "log"], &Method::PUT) => {
            updates::log(shared, call, speaker(shared, call).await?, id).await
        }
        ("v1", ["deployments", "device", "deployments", id, "update_control_map"], &Method::GET) => {
            updates::control_map(shared, speaker(shared, call).await?, id).await
        }
        ("v1", ["deviceconfig", "configuration"], &Method::GET | &Method::PUT) => {
            deviceconfig::device(shared, call, speaker(shared, call).await?).await
        }
        ("v1", ["devicemonitor", what @ ("alert" | "config")], _) => {
            monitor::device(shared, call, speaker(shared, call).await?, what).await
        }
        ("v1", ["deviceconnect", "connect"], &Method::GET) => {
            connect::device(call, speaker(shared, call).await?.claims.clone())
        }
        _ => Err(ApiError::no_route()),
    }
}

/// The device that the token is for. Expired, revoked, unknown, or of a device that is not accepted: all are 401. It was read
/// before the body came, and meanwhile the device may have been rejected. A rule for it begins with
/// [`speaking`](admission::speaking) all the same.
pub(super) async fn speaker<'a>(shared: &Shared, call: &'a Call) -> Result<&'a Speaker, ApiError> {
    let Caller::Device(speaker) = &call.caller else { return Err(ApiError::unauthorized(UNAUTHORIZED)) };
    if speaker.changes == shared.heard.changes() && speaker.read.elapsed() < FRESH {
        return Ok(speaker);
    }
    let device = shared.service.store.device(&speaker.claims.sub).await?;
    match device.is_some_and(|device| is_valid(&device, &speaker.claims)) {
        true => Ok(speaker),
        false => Err(ApiError::unauthorized(UNAUTHORIZED)),
    }
}

/// The device whose token the request has.
///
/// # Errors
/// The store could not be read, which says nothing about the token; or another page sends it.
pub(super) async fn caller(shared: &Shared, call: &Call) -> Result<Caller, ApiError> {
    let now = Timestamp::now();
    let token = match call.bearer() {
        Some(token) => Some(token),
        None => cookie::of_websocket(shared, call)?,
    };
    let token = token.and_then(|token| shared.secrets.tokens.verify(token, now).ok());
    let Some(claims) = token.filter(|claims| claims.device) else { return Ok(Caller::Stranger) };
    let (changes, read) = (shared.heard.changes(), Instant::now());
    let Some(device) = shared.service.store.device(&claims.sub).await? else { return Ok(Caller::Stranger) };
    if !is_valid(&device, &claims) {
        return Ok(Caller::Stranger);
    }
    shared.heard.note(device.number, now);
    let (number, active, last_finished) = (device.number, device.active, device.last_finished);
    Ok(Caller::Device(Box::new(Speaker { claims, number, active, last_finished, read, changes })))
}

#[derive(Deserialize, JsonSchema)]
struct AuthRequest {
    #[serde(default)]
    id_data: String,
    #[serde(default)]
    pubkey: String,
}

async fn authenticate(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let signature = call.header("X-MEN-Signature").filter(|text| !text.is_empty());
    let signature = signature.ok_or_else(|| ApiError::bad_request("missing request signature header"))?;
    let request: AuthRequest = call.json()?;
    if request.id_data.is_empty() || request.pubkey.is_empty() {
        return Err(ApiError::bad_request("id_data and pubkey must be provided"));
    }
    let key = PublicKey::parse(&request.pubkey).map_err(|error| {
        log::info!("a device sent a public key that is none: {error:?}");
        ApiError::bad_request("invalid auth request: cannot decode public key")
    })?;
    let identity = Identity::parse(&request.id_data)
        .map_err(|error| ApiError::bad_request(&format!("id_data cannot be used: {error}")))?;
    // Over the bytes as they came: their JSON could be written in more than one way.
    let verified = STANDARD.decode(signature.trim()).is_ok_and(|bytes| key.verifies(&call.body, &bytes));
    if !verified {
        return Err(ApiError::unauthorized("signature verification failed"));
    }
    let policy = shared.policy();
    let keys = admission::keys_of_authenticate(&identity, policy);
    let rule = move |work: &mut _| admission::authenticate(work, &identity, &key.pem, policy);
    match shared.change(keys, rule).await? {
        AuthDecision::Unauthorized => Err(ApiError::unauthorized(UNAUTHORIZED)),
        AuthDecision::Accepted { device, number, auth_set, serial } => {
            let number = match number {
                0 => shared.service.store.device(&device).await?.map_or(0, |device| device.number),
                known => known,
            };
            let now = Timestamp::now();
            shared.heard.note(number, now);
            let subject = Subject::Device { auth_set: &auth_set, device: &device, serial };
            let token = shared.secrets.tokens.issue(subject, now, shared.options.token_lifetime_seconds);
            Ok(reply::bytes(StatusCode::OK, "application/jwt", token))
        }
    }
}

#[derive(Deserialize, JsonSchema)]
struct ReportedAttribute {
    name: String,
    value: Value,
    #[serde(default)]
    description: Option<String>,
}

async fn report(shared: &Shared, call: &Call, speaker: &Speaker, how: Reported) -> Result<Reply, ApiError> {
    let reported: Vec<ReportedAttribute> = call.json()?;
    if reported.len() > limits::ATTRIBUTES {
        return Err(ApiError::bad_request("too many attributes"));
    }
    let now = Timestamp::now();
    let mut attributes = Vec::new();
    for ReportedAttribute { name, value, description } in reported {
        let chars = name.chars().count();
        if chars == 0 || chars > limits::ATTRIBUTE_NAME_CHARS {
            return Err(ApiError::bad_request("an attribute has no name or one that is too long"));
        }
        if !is_value(&value) {
            return Err(ApiError::bad_request(
                "an attribute is neither a value nor a list of one kind of values",
            ));
        }
        attributes.push(Attribute { name, value, description, timestamp: now });
    }
    let (id, number) = (&speaker.claims.sub, speaker.number);
    let before = shared.service.store.inventory(id).await?.unwrap_or_default();
    if is_old_news(&before, &attributes, how, now)? {
        shared.heard.note_report(number, Some(now));
        return Ok(reply::empty(StatusCode::OK));
    }
    let keys = vec![Key::Device(id.clone()), Key::Inventory(id.clone())];
    let claims = speaker.claims.clone();
    let rule = move |work: &mut _| inventory::report(work, &claims, &attributes, how);
    shared.change(keys, rule).await?;
    shared.heard.note_report(number, None);
    Ok(reply::empty(StatusCode::OK))
}

/// Whether a report says nothing new, and its time need not be stored either.
fn is_old_news(
    before: &Inventory,
    attributes: &[Attribute],
    how: Reported,
    now: Timestamp,
) -> Result<bool, InventoryError> {
    let is_recent = before.updated.is_some_and(|updated| now < updated.plus_seconds(REPORT_SECONDS));
    Ok(is_recent && inventory::reported(before, attributes, how, now)?.is_none())
}
