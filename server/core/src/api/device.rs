//! What devices ask: tokens, updates, and where their reports go.

use std::collections::BTreeMap;

use artifact::text::printable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Caller;
use super::{ApiError, Call, Reply, Shared, connect, deviceconfig, download, reply};
use crate::domain::fleet::{AuthDecision, Next, Reported, Request};
use crate::domain::identity::Identity;
use crate::domain::limits;
use crate::domain::model::{Attribute, Status};
use crate::domain::pubkey::PublicKey;
use crate::domain::time::Timestamp;
use crate::domain::token::{Claims, Subject};

const UNAUTHORIZED: &str = "dev auth: unauthorized";

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match (version, rest, &call.method) {
        ("v1", ["authentication", "auth_requests"], &Method::POST) => authenticate(shared, call).await,
        ("v2", ["deployments", "device", "deployments", "next"], &Method::POST) if shared.options.v2 => {
            let device = device_of(shared, call)?;
            next(shared, call, &device, &v2_request(call)?).await
        }
        ("v1", ["deployments", "device", "deployments", "next"], &Method::POST) => {
            let device = device_of(shared, call)?;
            next(shared, call, &device, &request(call.json()?)?).await
        }
        ("v1", ["deployments", "device", "deployments", "next"], &Method::GET) => {
            let device = device_of(shared, call)?;
            next(shared, call, &device, &query_request(call)?).await
        }
        ("v1", ["deployments", "device", "deployments", id, "status"], &Method::PUT) => {
            let device = device_of(shared, call)?;
            status(shared, call, &device, id).await
        }
        ("v1", ["deployments", "device", "deployments", id, "log"], &Method::PUT) => {
            let device = device_of(shared, call)?;
            log(shared, call, &device, id).await
        }
        ("v1", ["inventory", "device", "attributes"], &Method::PUT) => {
            let device = device_of(shared, call)?;
            inventory(shared, call, &device, Reported::All).await
        }
        ("v1", ["inventory", "device", "attributes"], &Method::PATCH) => {
            let device = device_of(shared, call)?;
            inventory(shared, call, &device, Reported::Some).await
        }
        ("v1", ["deviceconfig", "configuration"], &Method::GET | &Method::PUT) => {
            let device = device_of(shared, call)?;
            deviceconfig::device(shared, call, &device).await
        }
        ("v1", ["deviceconnect", "connect"], &Method::GET) => connect::device(call, claims_of(shared, call)?),
        _ => Err(ApiError::not_found()),
    }
}

/// The device that the token is for. Expired, revoked, unknown, or of a device that is not accepted: all are 401.
fn device_of(shared: &Shared, call: &Call) -> Result<String, ApiError> {
    claims_of(shared, call).map(|claims| claims.sub)
}

/// Its token was checked before the body came. Meanwhile the device may have been rejected.
fn claims_of(shared: &Shared, call: &Call) -> Result<Claims, ApiError> {
    match &call.caller {
        Caller::Device(claims) if shared.fleet().is_valid(claims) => Ok(claims.clone()),
        Caller::Device(_) | Caller::Person(_) | Caller::Stranger => Err(ApiError::unauthorized(UNAUTHORIZED)),
    }
}

/// The device whose token the request has.
pub(super) fn caller(shared: &Shared, call: &Call) -> Caller {
    let now = Timestamp::now();
    let token = call.bearer().and_then(|token| shared.store.secrets.tokens.verify(token, now).ok());
    let Some(claims) = token else { return Caller::Stranger };
    let fleet = shared.fleet();
    if !fleet.is_valid(&claims) {
        return Caller::Stranger;
    }
    fleet.check_in(&claims.sub, now);
    Caller::Device(claims)
}

#[derive(Deserialize)]
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
        .map_err(|error| ApiError::bad_request(&format!("cannot decode id_data: {error:?}")))?;
    // Over the bytes as they came: their JSON could be written in more than one way.
    let verified = STANDARD.decode(signature.trim()).is_ok_and(|bytes| key.verifies(&call.body, &bytes));
    if !verified {
        return Err(ApiError::unauthorized("signature verification failed"));
    }
    let policy = shared.policy();
    let decision = shared.change(|fleet, now| fleet.authenticate(&identity, &key.pem, policy, now)).await?;
    match decision {
        AuthDecision::Unauthorized => Err(ApiError::unauthorized(UNAUTHORIZED)),
        AuthDecision::Accepted { device, auth_set, serial } => {
            let subject = Subject::Device { auth_set: &auth_set, device: &device, serial };
            let lifetime = shared.options.token_lifetime_seconds;
            let token = shared.store.secrets.tokens.issue(subject, Timestamp::now(), lifetime);
            Ok(reply::bytes(StatusCode::OK, "application/jwt", token))
        }
    }
}

#[derive(Deserialize)]
struct V2Request {
    device_provides: BTreeMap<String, Value>,
}

fn v2_request(call: &Call) -> Result<Request, ApiError> {
    request(call.json::<V2Request>()?.device_provides)
}

/// What a device provides, as a flat map. Other things than strings are for newer servers.
fn request(provides: BTreeMap<String, Value>) -> Result<Request, ApiError> {
    let texts = provides.into_iter().filter_map(|(key, value)| match value {
        Value::String(text) => Some((key, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    });
    checked(texts.collect(), true)
}

fn query_request(call: &Call) -> Result<Request, ApiError> {
    let value = |name: &str| Some((name.to_owned(), call.query(name)?));
    checked(["artifact_name", "device_type"].into_iter().filter_map(value).collect(), false)
}

fn checked(provides: BTreeMap<String, String>, complete: bool) -> Result<Request, ApiError> {
    let too_long = |text: &String| text.chars().count() > limits::PROVIDES_CHARS;
    if provides.len() > limits::PROVIDES
        || provides.iter().any(|(key, value)| too_long(key) || too_long(value))
    {
        return Err(ApiError::bad_request("the device provides too much"));
    }
    let needed = |name: &str| {
        let value = provides.get(name).filter(|value| !value.is_empty()).cloned();
        value.ok_or_else(|| ApiError::bad_request(&format!("{name}: cannot be blank")))
    };
    let (artifact_name, device_type) = (needed("artifact_name")?, needed("device_type")?);
    Ok(Request { artifact_name, device_type, provides, complete })
}

async fn next(shared: &Shared, call: &Call, device: &str, request: &Request) -> Result<Reply, ApiError> {
    // Nearly every poll ends here, without a lock for writing and without the disk.
    if !shared.fleet().has_work(device) {
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let mut answer = shared.change(|fleet, now| fleet.next(device, request, now)).await?;
    if let Next::Make(wanted) = answer {
        deviceconfig::make(shared, wanted).await?;
        answer = shared.change(|fleet, now| fleet.next(device, request, now)).await?;
    }
    match answer {
        // It has just been made, so this is a deployment that another change has put in its place: next time.
        Next::Make(_) | Next::Nothing => Ok(reply::empty(StatusCode::NO_CONTENT)),
        Next::Conflict => Err(ApiError::conflict("the device is not what it was when the deployment began")),
        Next::Offer { deployment, artifact } => {
            let link = download::link(shared, call, &artifact);
            let answer = json!({
                "id": deployment,
                "artifact": {
                    "id": artifact.id,
                    "artifact_name": artifact.name,
                    "source": { "uri": link.uri, "expire": link.expire },
                    "device_types_compatible": artifact.device_types,
                },
            });
            Ok(reply::json(StatusCode::OK, &answer))
        }
    }
}

#[derive(Deserialize)]
struct StatusReport {
    status: String,
    #[serde(default)]
    substate: Option<String>,
}

async fn status(shared: &Shared, call: &Call, device: &str, deployment: &str) -> Result<Reply, ApiError> {
    let report: StatusReport = call.json()?;
    let status = Status::parse(&report.status).filter(|status| status.is_for_devices());
    let status = status.ok_or_else(|| ApiError::bad_request("not a status that a device may report"))?;
    let substate = report.substate.filter(|text| !text.is_empty());
    if substate.as_ref().is_some_and(|text| text.chars().count() > limits::SUBSTATE_CHARS) {
        return Err(ApiError::bad_request("the substate is too long"));
    }
    shared.change(|fleet, now| fleet.report_status(device, deployment, status, substate, now)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
struct LogReport {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    timestamp: String,
    level: String,
    message: String,
}

async fn log(shared: &Shared, call: &Call, device: &str, deployment: &str) -> Result<Reply, ApiError> {
    let report: LogReport = call.json()?;
    let wrong = |message: &Message| {
        Timestamp::parse(&message.timestamp).is_none()
            || message.level.is_empty()
            || message.message.is_empty()
    };
    if report.messages.is_empty() || report.messages.iter().any(wrong) {
        return Err(ApiError::bad_request("each message needs a timestamp, a level and a text"));
    }
    // One line each, whatever a message has in it: it must not look like two, and must do nothing to a terminal.
    let line = |message: &Message| {
        let (level, text) = (printable(&message.level), printable(message.message.trim_end()));
        format!("{} {level}: {text}\n", message.timestamp)
    };
    let text: String = report.messages.iter().map(line).collect();
    shared.change(|fleet, _| fleet.report_log(device, deployment, text)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
struct ReportedAttribute {
    name: String,
    value: Value,
    #[serde(default)]
    description: Option<String>,
}

async fn inventory(shared: &Shared, call: &Call, device: &str, how: Reported) -> Result<Reply, ApiError> {
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
    shared.change(|fleet, now| fleet.report(device, attributes, how, now)).await?;
    Ok(reply::empty(StatusCode::OK))
}

fn is_value(value: &Value) -> bool {
    let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    match value {
        Value::Array(values) => {
            let kind = |value: &Value| std::mem::discriminant(value);
            values.iter().all(scalar) && values.windows(2).all(|pair| kind(&pair[0]) == kind(&pair[1]))
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Object(_) => false,
    }
}
