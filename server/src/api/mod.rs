//! HTTP: who is asked, with what, and in which words it answers. The rules are in [`crate::domain`].

mod artifacts;
mod call;
mod connect;
mod deployments;
mod devauth;
mod device;
mod deviceconfig;
mod download;
mod gzip;
mod internal;
mod inventory;
mod paging;
mod reply;
mod search;
mod users;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Method, Request, StatusCode};

pub(crate) use call::Call;
pub(crate) use connect::Promise;
pub(crate) use reply::{ApiError, Body, Reply, empty as empty_reply, text as text_reply};

use crate::connect::Switchboard;
use crate::domain::fleet::{Fleet, Policy};
use crate::domain::limits;
use crate::domain::model::Change;
use crate::domain::time::Timestamp;
use crate::faults::io::{Bend, Bender};
use crate::faults::{Action, FaultsHandle, answer};
use crate::options::Options;
use crate::recorder::Recorder;
use crate::store::Store;

/// Characters of a path in the log: more than any path of the API has.
const LOGGED_PATH_CHARS: usize = 256;

/// What every request may use.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) fleet: RwLock<Fleet>,
    pub(crate) store: Store,
    pub(crate) faults: FaultsHandle,
    pub(crate) recorder: Recorder,
    pub(crate) switchboard: Arc<Switchboard>,
}

impl Shared {
    pub(crate) fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy { auto_accept: self.options.auto_accept, max_devices: self.options.max_devices }
    }

    /// Does `operation` and waits until what it has changed is stored. Also when it has changed nothing: what it saw
    /// may be on its way to the disk still.
    pub(crate) async fn change<T, E>(
        &self,
        operation: impl FnOnce(&mut Fleet, Timestamp) -> Result<(T, Vec<Change>), E>,
    ) -> Result<T, ApiError>
    where
        ApiError: From<E>,
    {
        let (result, stored) = {
            let mut fleet = self.fleet.write().unwrap_or_else(PoisonError::into_inner);
            let (result, changes) = operation(&mut fleet, Timestamp::now())?;
            (result, self.store.writer.write(changes))
        };
        stored.stored().await?;
        Ok(result)
    }
}

/// Answers one request, with its faults.
pub(crate) async fn serve(
    shared: &Shared,
    bender: &Bender,
    peer: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Reply {
    bender.reset();
    let (parts, incoming) = request.into_parts();
    let mut call = Call::new(parts);
    call.peer = peer;
    let mut upload = None;
    if artifacts::is_upload(&call) {
        upload = Some(incoming);
    } else {
        match read_body(incoming, shared.options.read_timeout_seconds).await {
            Ok(body) => call.body = body,
            Err(error) => return finish(shared, &call, error.into_reply()),
        }
    }
    let fault = match shared.faults.is_empty() {
        true => None,
        false => shared.faults.take(call.method.as_str(), &call.path_and_query(), &call.body),
    };
    if let Some(action) = &fault {
        log::info!("fault for {} {}: {action:?}", call.method, call.path);
    }
    let reply = match &fault {
        Some(Action::Status { code, headers, body }) => answer::status(*code, headers, body),
        Some(Action::Redirect { to }) => answer::redirect(to.as_deref().unwrap_or(&call.path_and_query())),
        Some(action) => {
            answer::before(action, &mut call);
            let reply = dispatch(shared, &call, upload).await;
            answer::after(action, &call, reply)
        }
        None => dispatch(shared, &call, upload).await,
    };
    if let Some(action) = &fault {
        let bend = answer::bend(action);
        if let Bend::Replace { .. } | Bend::Close = bend {
            log::info!("{} {} is not answered", call.method, call.path);
        }
        bender.bend(bend);
    }
    finish(shared, &call, reply)
}

fn finish(shared: &Shared, call: &Call, reply: Reply) -> Reply {
    let reply = gzip::compress(call, reply);
    let peer = call.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
    let (who, path) = (call.who().unwrap_or("-"), start_of(&call.path));
    log::info!("{peer} {who} {} {path} {}", call.method, reply.status().as_u16());
    shared.recorder.record(call, reply)
}

/// As much of a path as the log is worth: anybody can send long ones.
fn start_of(path: &str) -> &str {
    let end = path.char_indices().nth(LOGGED_PATH_CHARS).map_or(path.len(), |(end, _)| end);
    &path[..end]
}

async fn read_body(incoming: Incoming, timeout_seconds: u64) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
    // Who says that it is too large need not send it.
    if incoming.size_hint().lower() > limits::BODY_BYTES as u64 {
        return Err(too_large());
    }
    let limited = Limited::new(incoming, limits::BODY_BYTES).collect();
    match tokio::time::timeout(Duration::from_secs(timeout_seconds), limited).await {
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body is broken")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

async fn dispatch(shared: &Shared, call: &Call, upload: Option<Incoming>) -> Reply {
    let result = match call.segments().as_slice() {
        ["api", "devices", version, rest @ ..] => device::route(shared, call, version, rest).await,
        ["download", rest @ ..] => download::route(shared, call, rest).await,
        ["api", "management", version, rest @ ..] => management(shared, call, version, rest, upload).await,
        ["api", "internal", "v1", "faults"] if shared.options.enable_faults => internal::faults(shared, call),
        ["api", "internal", "v1", "health"] | ["health"] => Ok(reply::empty(StatusCode::NO_CONTENT)),
        _ => Err(ApiError::not_found()),
    };
    result.unwrap_or_else(ApiError::into_reply)
}

/// What people may ask.
async fn management(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    if let ("v1", ["useradm", "auth", "login"], &Method::POST) = (version, rest, &call.method) {
        return users::login(shared, call);
    }
    let user = users::check(shared, call)?;
    match (version, rest) {
        ("v2", ["devauth", rest @ ..]) => {
            let reply = devauth::route(shared, call, rest).await;
            if call.method != Method::GET {
                let fleet = shared.fleet();
                shared.switchboard.recheck(|claims| fleet.is_valid(claims));
            }
            reply
        }
        ("v1" | "v2", ["deployments", "artifacts", rest @ ..]) => {
            artifacts::route(shared, call, rest, upload).await
        }
        ("v1" | "v2", ["deployments", "deployments", rest @ ..]) => {
            deployments::route(shared, call, version, rest).await
        }
        ("v1", ["deployments", "limits", "storage"]) => artifacts::storage(shared),
        ("v1" | "v2", ["inventory", rest @ ..]) => inventory::route(shared, call, version, rest).await,
        ("v1", ["deviceconfig", rest @ ..]) => deviceconfig::route(shared, call, rest).await,
        ("v1", ["deviceconnect", rest @ ..]) => connect::route(shared, call, &user, rest).await,
        ("v1", ["useradm", "auth", "logout"]) => Ok(reply::empty(StatusCode::ACCEPTED)),
        _ => Err(ApiError::not_found()),
    }
}
