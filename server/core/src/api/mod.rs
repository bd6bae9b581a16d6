//! HTTP: who is asked, with what, and in which words it answers. The rules are in [`crate::domain`].

mod artifacts;
mod call;
mod caller;
mod connect;
mod deployments;
mod devauth;
mod device;
mod deviceconfig;
mod direct;
mod download;
mod generate;
mod gzip;
mod internal;
mod inventory;
mod paging;
mod releases;
mod reply;
mod search;
pub mod surround;
mod updates;
mod users;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use call::Call;
use call::{Caller, short};
use caller::Intake;
pub(crate) use connect::Promise;
pub(crate) use reply::{ApiError, Reply};
use surround::Around;

use crate::blobs::Blobs;
use crate::connect::Switchboard;
use crate::domain::admission::Policy;
use crate::heard::Heard;
use crate::options::Options;
use crate::presence::Presence;
use crate::service::{ChangeError, Service};
use crate::store::Secrets;
use crate::store::query::{DeviceQuery, DeviceView, Found};
use crate::store::work::{Key, Work};
use crate::strangers::Strangers;

/// What every request may use.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) service: Service,
    pub(crate) secrets: Secrets,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) strangers: Strangers,
    /// Places for bodies that are not wanted and are read all the same.
    pub(crate) discarding: Semaphore,
    /// Places for artifacts that come in.
    pub(crate) uploading: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn policy(&self) -> Policy {
        Policy { auto_accept: self.options.auto_accept, max_devices: self.options.max_devices }
    }

    /// A place for an artifact that comes in: each costs a thread and the memory of its parts.
    pub(crate) async fn place_for_upload(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let patience = Duration::from_secs(self.options.read_timeout_seconds);
        match tokio::time::timeout(patience, self.uploading.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => {
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many artifacts come in at once"))
            }
        }
    }

    /// A device with everything that lists show of it.
    pub(crate) async fn view(&self, device: &str) -> Result<DeviceView, ApiError> {
        let view = self.service.store.view(device).await?;
        let mut view = view.ok_or_else(ApiError::not_found)?;
        self.heard.put_over(&mut view);
        Ok(view)
    }

    /// A page of devices. Tests and orders by when devices were heard of go by what is stored, which may be a minute old.
    pub(crate) async fn devices(&self, query: DeviceQuery) -> Result<Found<DeviceView>, ApiError> {
        let mut found = self.service.store.devices(&query).await?;
        found.items.iter_mut().for_each(|view| self.heard.put_over(view));
        Ok(found)
    }

    /// Runs a rule and waits until what it has changed is stored. Also when it has changed nothing: what it saw may be on
    /// its way to the disk still. `keys` are what the rule will ask for, as far as that is known.
    pub(crate) async fn change<T, E>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Send + 'static,
        ApiError: From<E>,
    {
        self.service.change(keys, rule).await.map_err(|error| match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Failed(error) => error.into(),
        })
    }
}

/// Answers one request, with what stands around its connection.
pub(crate) async fn serve(
    shared: &Shared,
    around: &dyn Around,
    presence: &Presence,
    request: Request<Incoming>,
) -> Reply {
    around.begins();
    let (parts, incoming) = request.into_parts();
    let mut call = Call::new(parts);
    let reply = match read(shared, around, presence, &mut call, incoming).await {
        Ok(upload) => answer(shared, around, &mut call, upload).await,
        Err(error) => error.into_reply(),
    };
    let reply = gzip::compress(&call, reply);
    log_answer(shared, presence, &call, reply.status());
    around.answered(&call, reply)
}

/// Reads the body, unless it is an upload: that is given back.
async fn read(
    shared: &Shared,
    around: &dyn Around,
    presence: &Presence,
    call: &mut Call,
    incoming: Incoming,
) -> Result<Option<Incoming>, ApiError> {
    let intake = caller::recognise(shared, around, call).await?;
    if let Intake::Read { .. } | Intake::Stream | Intake::Download = intake {
        presence.busy();
    }
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    call.body = match intake {
        Intake::Stream => return Ok(Some(incoming)),
        Intake::Read { most } | Intake::ReadOfStranger { most } => {
            caller::read_body(incoming, most, patience).await?
        }
        Intake::Discard | Intake::Download => caller::discard_body(shared, call, incoming, patience).await?,
    };
    Ok(None)
}

async fn answer(shared: &Shared, around: &dyn Around, call: &mut Call, upload: Option<Incoming>) -> Reply {
    let reply = match around.before(call) {
        Some(reply) => reply,
        None => dispatch(shared, call, upload).await,
    };
    around.after(call, reply)
}

fn log_answer(shared: &Shared, presence: &Presence, call: &Call, status: StatusCode) {
    let line = || {
        let who = match &call.caller {
            Caller::Stranger => String::new(),
            Caller::Device(device) => format!(" device {}", device.claims.sub),
            Caller::Person(person) => format!(" by {}", short(&person.name)),
        };
        format!("{} {} from {}{who}", call.shown(), status.as_u16(), presence.from().ip())
    };
    match &call.caller {
        // Anybody can send as many of these as the network carries.
        Caller::Stranger if status.is_client_error() => shared.strangers.note(line),
        // Of a million devices that is 48 million lines a day that say nothing.
        Caller::Device(_) if status == StatusCode::NO_CONTENT && call.path.ends_with("/deployments/next") => {
            log::debug!("{}", line());
        }
        Caller::Stranger | Caller::Device(_) | Caller::Person(_) => log::info!("{}", line()),
    }
}

async fn dispatch(shared: &Shared, call: &Call, upload: Option<Incoming>) -> Reply {
    let result = match call.segments().as_slice() {
        ["api", "devices", version, rest @ ..] => device::route(shared, call, version, rest).await,
        ["download", rest @ ..] => download::route(shared, call, rest).await,
        ["upload", rest @ ..] => direct::put(shared, call, rest, upload).await,
        ["api", "management", version, rest @ ..] => management(shared, call, version, rest, upload).await,
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
        ("v1" | "v2", ["deployments", "artifacts", rest @ ..]) => {
            artifacts::route(shared, call, rest, upload).await
        }
        ("v1", ["deployments", "limits", "storage"]) => artifacts::storage(shared),
        ("v1" | "v2", ["deployments", "deployments", "releases", rest @ ..]) => {
            releases::route(shared, call, version, rest).await
        }
        ("v2", ["deployments", "releases", "all", what]) => releases::all(shared, call, what),
        ("v1alpha1", ["deployments", "software", rest @ ..]) => releases::software(shared, call, rest),
        ("v1" | "v2", ["deployments", "deployments", rest @ ..]) => {
            deployments::route(shared, call, version, rest).await
        }
        ("v1", ["deviceconfig", rest @ ..]) => deviceconfig::route(shared, call, rest).await,
        ("v2", ["devauth", rest @ ..]) => devauth::route(shared, call, rest).await,
        ("v1" | "v2" | "v2alpha1", ["inventory", rest @ ..]) => {
            inventory::route(shared, call, version, rest).await
        }
        ("v1", ["deviceconnect", rest @ ..]) => connect::route(shared, call, person, rest).await,
        ("v1", ["useradm", "auth", "logout"]) => users::logout(shared, person).await,
        _ => Err(ApiError::not_found()),
    }
}
