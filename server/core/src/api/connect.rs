//! WebSockets of devices, and of people who work on them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode, header};
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::routes::Route;
use super::users::Person;
use super::{ApiError, Call, Reply, Shared, audit, files, permit, reply};
use crate::connect::recording::{self, Playback, Recorder};
use crate::connect::socket::{self, End};
use crate::connect::{ConnectError, LineEnd};
use crate::domain::admission::is_valid;
use crate::domain::token::Claims;

/// The longest pause behind each text of a recording that is seen again.
const PAUSE_MILLISECONDS: u64 = 1000;

impl From<ConnectError> for ApiError {
    fn from(error: ConnectError) -> ApiError {
        match error {
            ConnectError::NotConnected => ApiError::conflict("device disconnected"),
            ConnectError::TooManySessions => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "the device has too many sessions")
            }
            ConnectError::TooManyFiles => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many files come and go at once")
            }
            ConnectError::NoRandomness => crate::domain::id::NoRandomness.into(),
        }
    }
}

/// What a connection becomes when its answer, 101, has gone out. It travels with the answer.
#[derive(Clone)]
pub(crate) struct Promise(Arc<Mutex<Option<Promised>>>);

struct Promised {
    upgrade: OnUpgrade,
    who: Who,
}

enum Who {
    /// It is connected when its WebSocket is there.
    Device(Box<Claims>),
    /// It has its place already: one more would have been refused.
    Session(Box<End>, LineEnd),
}

impl Promise {
    /// Is the WebSocket, until it ends.
    pub(crate) async fn keep(self, shared: &Shared) {
        let promised = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Promised { upgrade, who }) = promised else { return };
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                log::debug!("a connection did not become a WebSocket: {error}");
                return;
            }
        };
        let (end, line) = match who {
            Who::Device(claims) => {
                log::info!("device {} is connected", claims.sub);
                let (end, line) = shared.switchboard.connect((*claims).clone());
                // It may have been refused since it asked; from here on a refusal finds the connection.
                let device = shared.service.store.device(&claims.sub).await;
                if !device.is_ok_and(|device| device.is_some_and(|device| is_valid(&device, &claims))) {
                    return;
                }
                (End::Device(end), line)
            }
            Who::Session(end, line) => (*end, line),
        };
        socket::run(upgraded, end, line, shared.switchboard.timing).await;
    }
}

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/deviceconnect/devices/{device}", "Whether a device is connected")
        .gives("Connection")
        .fails(&[404]),
    Route::get("/api/management/v1/deviceconnect/devices/{device}/connect", "Open a WebSocket to a device")
        .status(101)
        .fails(&[404]),
    Route::post(
        "/api/management/v1/deviceconnect/devices/{device}/check-update",
        "Let a device ask for updates",
    )
    .status(202)
    .fails(&[404, 409]),
    Route::post(
        "/api/management/v1/deviceconnect/devices/{device}/send-inventory",
        "Let a device report its inventory",
    )
    .status(202)
    .fails(&[404, 409]),
    Route::get("/api/management/v1/deviceconnect/devices/{device}/download", "A file of a device")
        .queries(&["path"])
        .gives_text("application/octet-stream")
        .fails(&[404, 409, 502, 504]),
    Route::put("/api/management/v1/deviceconnect/devices/{device}/upload", "A file for a device")
        .takes_form(&["path", "uid?", "gid?", "mode?", "file"])
        .status(201)
        .fails(&[404, 409, 502, 504]),
    Route::get(
        "/api/management/v1/deviceconnect/sessions/{session}/playback",
        "See a recorded terminal again",
    )
    .queries(&["sleep_ms#"])
    .status(101)
    .fails(&[404]),
];

/// The WebSocket of a device.
pub(super) fn device(call: &Call, claims: Claims) -> Result<Reply, ApiError> {
    upgrade(call, || Ok(Who::Device(Box::new(claims))))
}

/// What people ask about a device.
pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    person: &Person,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    if let (["sessions", session, "playback"], &Method::GET) = (rest, &call.method) {
        return playback(shared, call, session).await;
    }
    let ["devices", device, rest @ ..] = rest else { return Err(ApiError::not_found()) };
    let created = shared.service.store.device(device).await?.ok_or_else(ApiError::not_found)?.created;
    let board = &shared.switchboard;
    match (rest, &call.method) {
        ([], &Method::GET) => {
            let (status, updated) = match board.status(device) {
                None => ("unknown", created),
                Some((true, since)) => ("connected", since),
                Some((false, since)) => ("disconnected", since),
            };
            let answer = json!({
                "device_id": device, "status": status, "created_ts": created, "updated_ts": updated,
            });
            Ok(reply::json(StatusCode::OK, &answer))
        }
        (["connect"], &Method::GET) => upgrade(call, || {
            let (end, mut line) = board.open(device, &person.name, permit::pass(shared, call)?).map_err(
                |error| match error {
                    // There is nothing to open; a command that could not be told is in conflict with that.
                    ConnectError::NotConnected => ApiError::new(StatusCode::NOT_FOUND, "device disconnected"),
                    ConnectError::TooManySessions
                    | ConnectError::TooManyFiles
                    | ConnectError::NoRandomness => error.into(),
                },
            )?;
            audit::session(end.id());
            line.recorder = shared
                .options
                .record_terminals
                .then(|| Recorder::begin(shared.service.clone(), end.id().to_owned(), (*device).to_owned()));
            Ok(Who::Session(Box::new(End::Session(end)), line))
        }),
        (["download"], &Method::GET) => files::download(shared, call, person, device).await,
        (["upload"], &Method::PUT) => match upload {
            Some(body) => files::upload(shared, call, person, device, body).await,
            None => Err(ApiError::bad_request("there is no body")),
        },
        ([kind @ ("check-update" | "send-inventory")], &Method::POST) => {
            board.command(device, kind, &person.name).await?;
            Ok(reply::empty(StatusCode::ACCEPTED))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// The WebSocket on which a recorded terminal is seen again.
async fn playback(shared: &Shared, call: &Call, session: &str) -> Result<Reply, ApiError> {
    let pause = match call.query("sleep_ms") {
        None => 0,
        Some(text) => match text.parse() {
            Ok(pause @ 0..=PAUSE_MILLISECONDS) => pause,
            Ok(_) | Err(_) => {
                let reason = format!("sleep_ms is a number up to {PAUSE_MILLISECONDS}");
                return Err(ApiError::bad_request(&reason));
            }
        },
    };
    let store = &shared.service.store;
    let device = recording::device_of(&**store, session).await?.ok_or_else(ApiError::not_found)?;
    audit::about(&device);
    audit::session(session);
    upgrade(call, || {
        let (pass, pause) = (permit::pass(shared, call)?, Duration::from_millis(pause));
        let (end, line) = Playback::begin(&shared.switchboard, store.clone(), session, pass, pause);
        Ok(Who::Session(Box::new(End::Playback(end)), line))
    })
}

/// Answers a handshake (RFC 6455, section 4.2) for whoever `who` lets in.
fn upgrade(call: &Call, who: impl FnOnce() -> Result<Who, ApiError>) -> Result<Reply, ApiError> {
    let is_handshake = call.has_word(&header::CONNECTION, "upgrade")
        && call.has_word(&header::UPGRADE, "websocket")
        && call.has_word(&header::SEC_WEBSOCKET_VERSION, "13");
    let key = call.header(header::SEC_WEBSOCKET_KEY.as_str()).filter(|_| is_handshake);
    let (Some(key), Some(upgrade)) = (key, call.upgrade.clone()) else {
        return Err(ApiError::bad_request("the client is not using the websocket protocol"));
    };
    let accept = derive_accept_key(key.as_bytes());
    let promised = Promised { upgrade, who: who()? };
    let mut reply = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    let accept = header::HeaderValue::from_str(&accept)
        .map_err(|_| ApiError::bad_request("the key of the handshake is of no use"))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply.extensions_mut().insert(Promise(Arc::new(Mutex::new(Some(promised)))));
    Ok(reply)
}
