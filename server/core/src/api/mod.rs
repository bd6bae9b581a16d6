//! HTTP: who is asked, with what, and in which words it answers. The rules are in [`crate::domain`].

mod artifacts;
mod audit;
mod call;
mod caller;
mod connect;
mod cookie;
mod deltas;
mod deployments;
mod devauth;
mod device;
mod deviceconfig;
mod direct;
mod download;
mod files;
mod generate;
mod gzip;
mod integrations;
pub(crate) mod internal;
mod inventory;
mod login;
mod mail;
mod monitor;
mod objects;
mod page;
mod paging;
pub(crate) mod permit;
mod releases;
mod reply;
mod routes;
mod search;
mod second_factor;
mod seen;
mod sending;
pub mod surround;
mod updates;
mod users;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use log::Level;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use artifacts::Keeper;
pub(crate) use call::Call;
use call::{Caller, short};
use caller::Intake;
pub(crate) use connect::Promise;
pub(crate) use login::has_user;
pub(crate) use reply::{ApiError, Body, Reply, bytes};
pub(crate) use routes::description;
use sending::Sending;
use surround::Around;
pub(crate) use updates::Loading;
use users::Person;

use crate::blobs::Blobs;
use crate::bodies::Bodies;
use crate::connect::Switchboard;
use crate::domain::admission::Policy;
use crate::domain::audit::Entry;
use crate::domain::people::failures::Failures;
use crate::heard::Heard;
use crate::metrics::{Class, Metrics, Process, Share};
use crate::options::Options;
use crate::page::Page;
use crate::presence::Presence;
use crate::readiness::Readiness;
use crate::request_id;
use crate::service::{ChangeError, Service};
use crate::store::Secrets;
use crate::strangers::Strangers;
use crate::throttle::{Place, Refused, Throttle};
use crate::work::query::{DeviceQuery, DeviceView, EventQuery, Found};
use crate::work::{Key, Stream, Work};

/// Where people ask.
const MANAGEMENT: &str = "/api/management/";

/// What every request may use.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) service: Service,
    pub(crate) secrets: Secrets,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) switchboard: Arc<Switchboard>,
    pub(crate) strangers: Strangers,
    pub(crate) bodies: Bodies,
    /// Places for passwords that are looked at: each takes a core for half a second.
    pub(crate) deriving: Semaphore,
    /// Logins that failed.
    pub(crate) failures: Failures,
    pub(crate) throttle: Throttle,
    pub(crate) page: Page,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) process: Process,
    pub(crate) readiness: Readiness,
    /// How many devices load.
    pub(crate) loading: Loading,
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
    ///
    /// When a person has asked for it, the same transaction says so in the log of what people did.
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
        self.try_change(keys, rule).await.map_err(ApiError::of_change)
    }

    /// [`Shared::change`], for what gets its id in the rule: that is the answer of it.
    pub(crate) async fn make<E>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<String, E> + Send + 'static,
    ) -> Result<String, ChangeError<E>>
    where
        E: Send + 'static,
    {
        self.noting(audit::pending_or_unnamed(), keys, rule, |id| Some(id.clone())).await
    }

    /// [`Shared::change`], for whoever says by himself why it was refused.
    pub(crate) async fn try_change<T, E>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.noting(audit::pending(), keys, rule, |_| None).await
    }

    async fn noting<T, E>(
        &self,
        entry: Option<Entry>,
        keys: Vec<Key>,
        mut rule: impl FnMut(&mut Work) -> Result<T, E> + Send + 'static,
        made: impl Fn(&T) -> Option<String> + Send + 'static,
    ) -> Result<T, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let Some(entry) = entry else { return self.service.change(keys, rule).await };
        let noted = move |work: &mut Work| {
            let done = rule(work)?;
            audit::note(work, &entry, made(&done));
            Ok(done)
        };
        let done = self.service.change(keys, noted).await?;
        audit::written();
        Ok(done)
    }

    /// The number of the newest event of a stream.
    pub(crate) async fn newest(&self, stream: Stream) -> Result<u64, ApiError> {
        let query = EventQuery { take: 1, uncounted: true, ..EventQuery::of(stream) };
        let newest = self.service.store.events(&query).await?.items;
        Ok(newest.first().map_or(0, |event| event.number))
    }

    /// [`Shared::change`], for what nobody has asked for.
    pub(crate) async fn change_unnoted<T, E>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<T, E> + Send + 'static,
    ) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Send + 'static,
        ApiError: From<E>,
    {
        self.service.change(keys, rule).await.map_err(ApiError::of_change)
    }
}

impl ApiError {
    /// Of a rule that has not changed anything.
    pub(crate) fn of_change<E>(error: ChangeError<E>) -> ApiError
    where
        ApiError: From<E>,
    {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Failed(error) => error.into(),
        }
    }
}

/// Answers one request. What a person changes is done to its end, also when the person goes away meanwhile: what follows from the
/// change is not left undone, such as the file of an artifact that is gone, or what the log says of it.
pub(crate) async fn answered(
    shared: &Arc<Shared>,
    around: &Arc<dyn Around>,
    presence: &Arc<Presence>,
    request: Request<Incoming>,
) -> Reply {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // What goes through to a device ends with whoever sends it: nothing of it is stored here.
    let path = request.uri().path();
    if is_read || !path.starts_with(MANAGEMENT) || files::is_upload(request.method(), path) {
        return serve(shared, &**around, presence, request).await;
    }
    let (shared, around, presence) = (shared.clone(), around.clone(), presence.clone());
    let answer = tokio::spawn(async move { serve(&shared, &*around, &presence, request).await });
    answer.await.unwrap_or_else(|error| {
        log::error!("a request was not answered: {error}");
        ApiError::internal("it could not be answered").into_reply()
    })
}

/// Answers one request, with what stands around its connection.
async fn serve(
    shared: &Shared,
    around: &dyn Around,
    presence: &Presence,
    request: Request<Incoming>,
) -> Reply {
    let id = request_id::of(request.headers());
    let header = HeaderValue::from_str(&id);
    let mut reply = request_id::within(id, serve_known(shared, around, presence, request)).await;
    if let Ok(id) = header {
        reply.headers_mut().insert(request_id::HEADER, id);
    }
    reply
}

async fn serve_known(
    shared: &Shared,
    around: &dyn Around,
    presence: &Presence,
    request: Request<Incoming>,
) -> Reply {
    let began = Instant::now();
    around.begins();
    let (parts, incoming) = request.into_parts();
    let mut call = Call::new(parts);
    call.from = Some(presence.from().ip());
    let class = Class::of(&call.method, &call.path);
    let mut place = None;
    let reply = match read(shared, around, presence, class, &mut call, incoming, &mut place).await {
        Ok(upload) => {
            let is_upload = upload.is_some();
            let reply = answer(shared, around, &mut call, upload).await;
            // Nobody reads to its end what is refused.
            call.is_unread |= is_upload && !reply.status().is_success();
            reply
        }
        Err(error) => error.into_reply(),
    };
    let mut reply = gzip::compress(&call, reply);
    if call.is_unread || is_of_unread(reply.status()) {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let took = began.elapsed();
    shared.metrics.answered(class, reply.status().as_u16(), took);
    log_answer(shared, presence, class, &call, reply.status(), took);
    // It has its place until the last byte has gone out.
    let reply = if class == Class::Download {
        reply.map(|body| Sending::new(body, place, shared.metrics.clone()).boxed())
    } else {
        reply
    };
    around.answered(&call, reply)
}

/// Whether an answer says that the body of its request did not come, or was left. The connection ends behind it, and whoever
/// would send something else over it has to know.
fn is_of_unread(status: StatusCode) -> bool {
    matches!(status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT)
}

/// Reads the body, unless it is an upload: that is given back.
async fn read(
    shared: &Shared,
    around: &dyn Around,
    presence: &Presence,
    class: Class,
    call: &mut Call,
    incoming: Incoming,
    place: &mut Option<Place>,
) -> Result<Option<Incoming>, ApiError> {
    let refused = |refused: Refused| {
        shared.metrics.refused(class, refused.why);
        ApiError::from(refused)
    };
    // Before anything is looked at: to turn somebody away has to cost less than to answer.
    if class.share() != Share::Free {
        shared.throttle.address(presence.from().ip()).map_err(refused)?;
    }
    let enter = |call: &Call| {
        let key = (call.header(header::AUTHORIZATION.as_str()), presence.from());
        let key = if key.0.is_some() { (key.0, None) } else { (None, Some(key.1)) };
        shared.throttle.enter(class, shared.metrics.late.value(), key).map_err(refused)
    };
    *place = Some(enter(call)?);
    let intake = caller::recognise(shared, around, call).await?;
    if let Caller::Device(device) = &call.caller {
        shared.throttle.device(&device.claims.sub).map_err(refused)?;
    }
    if let Intake::Read { .. } | Intake::Stream | Intake::Download = intake {
        presence.busy();
    }
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    match intake {
        Intake::Stream => return Ok(Some(incoming)),
        Intake::Read { most } => call.body = caller::read_body(incoming, most, patience).await?,
        Intake::Download => caller::discard_body(shared, call, incoming, patience).await?,
        Intake::ReadOfStranger { .. } | Intake::Discard if hyper::body::Body::is_end_stream(&incoming) => {}
        Intake::ReadOfStranger { most } => {
            *place = None;
            call.body = caller::read_of_stranger(shared, incoming, most, patience).await?;
        }
        Intake::Discard => {
            *place = None;
            caller::discard_body(shared, call, incoming, patience).await?;
        }
    }
    // Who may be anybody has waited for the body without a place.
    if place.is_none() {
        *place = Some(enter(call)?);
    }
    Ok(None)
}

async fn answer(shared: &Shared, around: &dyn Around, call: &mut Call, upload: Option<Incoming>) -> Reply {
    let reply = match around.before(call) {
        Some(reply) => reply,
        None => dispatch(shared, call, upload).await,
    };
    around.after(call, reply)
}

fn log_answer(
    shared: &Shared,
    presence: &Presence,
    class: Class,
    call: &Call,
    status: StatusCode,
    took: Duration,
) {
    let level = match &call.caller {
        // Of a million devices that is 48 million lines a day that say nothing.
        Caller::Device(_) if class == Class::Poll && status == StatusCode::NO_CONTENT => Level::Debug,
        // Asked every few seconds by whoever watches the server.
        Caller::Stranger if class == Class::Health && status.is_success() => Level::Debug,
        // Many files for one person, and they say nothing of what the person does.
        Caller::Stranger if class == Class::Page && !status.is_client_error() => Level::Debug,
        // There are as many as there are devices, and their number is in the metrics.
        _ if status == StatusCode::TOO_MANY_REQUESTS => Level::Debug,
        Caller::Stranger | Caller::Device(_) | Caller::Person(_) => Level::Info,
    };
    let line = || {
        let (device, person) = match &call.caller {
            Caller::Stranger => (None, None),
            Caller::Device(device) => (Some(&*device.claims.sub), None),
            Caller::Person(person) => (None, Some(short(&person.name))),
        };
        let who = match (device, &person) {
            (Some(device), _) => format!(" device {device}"),
            (None, Some(person)) => format!(" by {person}"),
            (None, None) => String::new(),
        };
        let address = presence.from().ip();
        let (shown, status) = (call.shown(), status.as_u16());
        log::log!(
            level,
            method = call.method.as_str(),
            path = short(&call.path),
            status,
            address:%,
            device,
            person,
            seconds = took.as_secs_f64();
            "{shown} {status} from {address}{who}"
        );
    };
    match &call.caller {
        _ if !log::log_enabled!(level) => {}
        // Anybody can send as many of these as the network carries.
        Caller::Stranger if status.is_client_error() => shared.strangers.note(line),
        Caller::Stranger | Caller::Device(_) | Caller::Person(_) => line(),
    }
}

async fn dispatch(shared: &Shared, call: &Call, upload: Option<Incoming>) -> Reply {
    if let Some(name) = page::name(&call.path) {
        return page::route(shared, call, name).await.unwrap_or_else(ApiError::into_reply);
    }
    let segments = call.segments();
    // What people ask is looked at when it is known who they are: to others it says nothing.
    if !matches!(segments.as_slice(), ["api", "management", ..]) {
        if let Some(reply) = routes::refuse(call) {
            return reply;
        }
    }
    let result = match segments.as_slice() {
        ["api", "devices", version, rest @ ..] => device::route(shared, call, version, rest).await,
        ["download", rest @ ..] => download::route(shared, call, rest).await,
        ["upload", rest @ ..] => direct::put(shared, call, rest, upload).await,
        ["api", "management", version, rest @ ..] => management(shared, call, version, rest, upload).await,
        ["api", "internal", "v1", "health"] | ["health"] => internal::health(shared),
        ["api", "openapi.json"] => Ok(internal::openapi()),
        ["health", "live"] => Ok(internal::live()),
        ["health", "ready"] => Ok(internal::ready(shared).await),
        _ => Err(ApiError::no_route()),
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
    match (version, rest, &call.method) {
        ("v1", ["useradm", "auth", "login"], &Method::POST) => return login::login(shared, call).await,
        ("v1", ["useradm", "auth", "session"], &Method::POST) => return login::session(shared, call).await,
        ("v1", ["useradm", "auth", "session"], &Method::DELETE) => {
            return login::end_session(shared, call).await;
        }
        ("v1", ["useradm", "auth", "state"], &Method::GET) => return Ok(login::state(shared)),
        ("v1", ["useradm", "auth", "first-user"], &Method::POST) => {
            return login::first_user(shared, call).await;
        }
        _ => {}
    }
    // Its token was looked at before its body came, and that may have taken long.
    let person = &permit::admit(shared, call).await?;
    if let Some(reply) = routes::refuse(call) {
        return Ok(reply);
    }
    users::note_use(shared, person).await;
    let answer = managed(shared, call, person, version, rest, upload);
    let reply = audit::around(shared, call, person, rest, answer).await?;
    Ok(cookie::guarded(call, reply))
}

/// What a person asks who may.
async fn managed(
    shared: &Shared,
    call: &Call,
    person: &Person,
    version: &str,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    match (version, rest) {
        ("v1" | "v2", ["deployments", "artifacts", rest @ ..]) => {
            artifacts::route(shared, call, rest, upload).await
        }
        ("v1", ["deployments", "limits", "storage"]) => artifacts::storage(shared),
        ("v1", ["deployments", "config", rest @ ..]) => deltas::config(shared, call, rest).await,
        ("v2", ["deployments", "deployments", "releases", "delta", "jobs", rest @ ..]) => {
            deltas::jobs(shared, call, rest)
        }
        ("v1", ["deployments", "limits", "downloads"]) => deployments::downloads(shared, call).await,
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
        ("v1", ["deviceconnect", rest @ ..]) => connect::route(shared, call, person, rest, upload).await,
        ("v1", ["devicemonitor", "settings", "global", "channel", "alerts", "email", rest @ ..]) => {
            mail::route(shared, call, rest).await
        }
        ("v1", ["devicemonitor", rest @ ..]) => monitor::route(shared, call, rest).await,
        ("v1" | "v2", ["useradm", rest @ ..]) => users::route(shared, call, person, version, rest).await,
        ("v1", ["iot-manager", rest @ ..]) => integrations::route(shared, call, rest).await,
        ("v1", ["auditlogs", rest @ ..]) => audit::route(shared, call, rest).await,
        _ => Err(ApiError::no_route()),
    }
}
