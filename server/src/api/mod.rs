//! HTTP: who is asked, with what, and in which words it answers. The rules are in [`crate::domain`].

mod artifacts;
mod call;
mod caller;
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

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use tokio::sync::Semaphore;

pub(crate) use call::Call;
use call::Caller;
use caller::Intake;
pub(crate) use connect::Promise;
pub(crate) use reply::{ApiError, Body, Reply, empty as empty_reply, text as text_reply};
pub(crate) use search::pattern;

use crate::connect::Switchboard;
use crate::domain::fleet::{Fleet, Policy};
use crate::domain::limits;
use crate::domain::model::{Change, Device};
use crate::domain::time::Timestamp;
use crate::faults::io::{Bend, Bender};
use crate::faults::{Action, FaultsHandle, answer};
use crate::options::Options;
use crate::presence::Presence;
use crate::recorder::Recorder;
use crate::store::Store;
use crate::strangers::Strangers;

/// What every request may use.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) fleet: RwLock<Fleet>,
    pub(crate) store: Store,
    pub(crate) faults: FaultsHandle,
    pub(crate) recorder: Recorder,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) strangers: Strangers,
    /// Places for bodies that are not wanted and are read all the same.
    pub(crate) discarding: Semaphore,
}

impl Shared {
    pub(crate) fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy { auto_accept: self.options.auto_accept, max_devices: self.options.max_devices }
    }

    /// Does `operation` and waits until what it has changed is stored. Also when it has changed nothing: what it saw
    /// may be on its way to the disk still. Connections whose right ends with it are closed.
    pub(crate) async fn change<T, E>(
        &self,
        operation: impl FnOnce(&mut Fleet, Timestamp) -> Result<(T, Vec<Change>), E>,
    ) -> Result<T, ApiError>
    where
        ApiError: From<E>,
    {
        let (result, stored) = {
            let mut fleet = self.fleet.write().unwrap_or_else(PoisonError::into_inner);
            self.store.writer.check()?;
            let (result, changes) = operation(&mut fleet, Timestamp::now())?;
            for change in &changes {
                if let Change::Device(Device { id, .. }) | Change::DeviceGone(id) = change {
                    let is_there = fleet.device(id).is_some();
                    self.switchboard.recheck(id, is_there, |claims| fleet.is_valid(claims));
                }
            }
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
    presence: &Presence,
    request: Request<Incoming>,
) -> Reply {
    bender.reset();
    let (parts, incoming) = request.into_parts();
    let mut call = Call::new(parts);
    let intake = caller::recognise(shared, &mut call);
    if let Intake::Read { .. } | Intake::Stream | Intake::Download = intake {
        presence.busy();
    }
    let mut upload = None;
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    let body = match intake {
        Intake::Stream => {
            upload = Some(incoming);
            Ok(Bytes::new())
        }
        Intake::Read { most } | Intake::ReadOfStranger { most } => {
            caller::read_body(incoming, most, patience).await
        }
        Intake::Discard | Intake::Download => caller::discard_body(shared, &call, incoming, patience).await,
    };
    match body {
        Ok(body) => call.body = body,
        Err(error) => return finish(shared, presence, &call, error.into_reply()),
    }
    let fault = match shared.faults.is_empty() {
        true => None,
        false => shared.faults.take(call.method.as_str(), &call.path_and_query(), &call.body),
    };
    if let Some(action) = &fault {
        log::info!("fault for {} {}: {action:?}", call.method, short(&call.path));
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
            log::info!("{} {} is not answered", call.method, short(&call.path));
        }
        bender.bend(bend);
    }
    finish(shared, presence, &call, reply)
}

fn finish(shared: &Shared, presence: &Presence, call: &Call, reply: Reply) -> Reply {
    let reply = gzip::compress(call, reply);
    let status = reply.status();
    let line = || {
        let who = match &call.caller {
            Caller::Stranger => String::new(),
            Caller::Device(claims) => format!(" device {}", claims.sub),
            Caller::Person(person) => format!(" by {}", short(&person.name)),
        };
        let method = short(call.method.as_str());
        format!("{method} {} {} from {}{who}", short(&call.path), status.as_u16(), presence.from().ip())
    };
    match &call.caller {
        // Anybody can send as many of these as the network carries.
        Caller::Stranger if status.is_client_error() => shared.strangers.note(line),
        Caller::Stranger | Caller::Device(_) | Caller::Person(_) => log::info!("{}", line()),
    }
    shared.recorder.record(call, reply)
}

/// Text of somebody else's, for the log: not long.
fn short(text: &str) -> String {
    match text.char_indices().nth(limits::LOGGED_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

async fn dispatch(shared: &Shared, call: &Call, upload: Option<Incoming>) -> Reply {
    let result = match call.segments().as_slice() {
        ["api", "devices", version, rest @ ..] => device::route(shared, call, version, rest).await,
        ["download", rest @ ..] => download::route(shared, call, rest).await,
        ["api", "management", version, rest @ ..] => management(shared, call, version, rest, upload).await,
        ["api", "internal", "v1", "faults"] if shared.options.enable_faults => internal::faults(shared, call),
        ["api", "internal", "v1", "health"] | ["health"] => internal::health(shared),
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
    let person = users::check(shared, call)?;
    match (version, rest) {
        ("v2", ["devauth", rest @ ..]) => devauth::route(shared, call, rest).await,
        ("v1" | "v2", ["deployments", "artifacts", rest @ ..]) => {
            artifacts::route(shared, call, rest, upload).await
        }
        ("v1" | "v2", ["deployments", "deployments", rest @ ..]) => {
            deployments::route(shared, call, version, rest).await
        }
        ("v1", ["deployments", "limits", "storage"]) => artifacts::storage(shared),
        ("v1" | "v2", ["inventory", rest @ ..]) => inventory::route(shared, call, version, rest).await,
        ("v1", ["deviceconfig", rest @ ..]) => deviceconfig::route(shared, call, rest).await,
        ("v1", ["deviceconnect", rest @ ..]) => connect::route(shared, call, person, rest).await,
        ("v1", ["useradm", "auth", "logout"]) => users::logout(shared, person).await,
        _ => Err(ApiError::not_found()),
    }
}
