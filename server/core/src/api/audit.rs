//! The log of what people did. What a request will be called there is known before it is answered; the entry is written in
//! the transaction of the first change that succeeds. What has no id before its answer, and what changes nothing in the
//! store, is written behind the answer.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::sync::Arc;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::call::decode;
use super::paging::Page;
use super::routes::Route;
use super::users::Person;
use super::{ApiError, Call, Reply, Shared};
use crate::domain::audit::{self, Actor, Entry, Object};
use crate::model::time::Timestamp;
use crate::store::Store;
use crate::work::query::{EventQuery, Numbered};
use crate::work::{NotLoaded, Stream, Work};

/// What lists can be asked.
const QUERIES: &[&str] = &[
    "created_after",
    "created_before",
    "actor_id",
    "actor_type",
    "actor_email",
    "object_id",
    "object_type",
    "object_deployment_name",
    "sort",
];

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/auditlogs/logs", "What people have done")
        .queries(QUERIES)
        .paged()
        .gives("[AuditEntry]"),
    Route::get("/api/management/v1/auditlogs/logs/export", "The same as a table")
        .queries(QUERIES)
        .gives_text("text/csv; charset=utf-8"),
];

tokio::task_local! {
    /// What the request that is answered will be called.
    static ENTRY: RefCell<Option<Entry>>;
}

/// Entries of an export.
const EXPORTED: u64 = 100_000;
/// Entries that are in memory for it at a time.
const AT_ONCE: u64 = 500;

/// Says what the request is about, when that is not known from its path.
pub(crate) fn about(id: &str) {
    let _ = ENTRY.try_with(|entry| {
        if let Some(entry) = entry.borrow_mut().as_mut() {
            id.clone_into(&mut entry.object.id);
        }
    });
}

/// Says in a few words what is done, when that is not in the body; never a secret.
pub(crate) fn says(change: &str) {
    let _ = ENTRY.try_with(|entry| {
        if let Some(entry) = entry.borrow_mut().as_mut() {
            entry.change = Some(change.to_owned());
        }
    });
}

/// The entry that belongs into the transaction of a change.
pub(super) fn pending() -> Option<Entry> {
    pending_or_unnamed().filter(|entry| !entry.object.id.is_empty())
}

/// The same, for a change that says what it is about.
pub(super) fn pending_or_unnamed() -> Option<Entry> {
    ENTRY.try_with(|entry| entry.borrow().clone()).ok().flatten()
}

/// Writes it with the change. `made` is what it is about, where only the rule of the change knows that.
pub(super) fn note(work: &mut Work, entry: &Entry, made: Option<String>) {
    let mut entry = entry.clone();
    if let Some(made) = made.filter(|_| entry.object.id.is_empty()) {
        entry.object.id = made;
    }
    audit::audit(work, &entry);
}

/// Says which session it is about.
pub(crate) fn session(id: &str) {
    let _ = ENTRY.try_with(|entry| {
        if let Some(entry) = entry.borrow_mut().as_mut() {
            entry.change = Some(format!("session {id}"));
            entry.session = Some(id.to_owned());
        }
    });
}

/// It was written.
pub(super) fn written() {
    let _ = ENTRY.try_with(|entry| entry.borrow_mut().take());
}

/// Answers a request of a person, and writes what it was.
pub(super) async fn around(
    shared: &Shared,
    call: &Call,
    person: &Person,
    rest: &[&str],
    answer: impl Future<Output = Result<Reply, ApiError>>,
) -> Result<Reply, ApiError> {
    let entry = audit::action(call.method.as_str(), rest, &call.body).map(|(action, kind, id)| Entry {
        actor: Actor { id: person.name.clone(), email: person.email.clone() },
        action,
        object: Object { kind, id: decode(&id) },
        change: change(call, kind),
        session: None,
    });
    ENTRY
        .scope(RefCell::new(entry), async {
            let reply = answer.await?;
            let status = reply.status();
            let left = ENTRY.with(|entry| entry.borrow_mut().take());
            let Some(mut entry) = left.filter(|_| status.is_success() || status.is_informational()) else {
                return Ok(reply);
            };
            if entry.object.id.is_empty() {
                let location = reply.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let last = location.and_then(|location| location.rsplit('/').next());
                entry.object.id = last.map_or_else(|| call.query.clone(), str::to_owned);
            }
            let rule = move |work: &mut Work| {
                audit::audit(work, &entry);
                Ok::<(), NotLoaded>(())
            };
            if let Err(error) = shared.change_unnoted(Vec::new(), rule).await {
                log::error!("what a person did could not be written: {}", error.message);
            }
            Ok(reply)
        })
        .await
}

/// What a change says, for what has no secrets in it.
fn change(call: &Call, kind: &str) -> Option<String> {
    let is_shown = matches!(kind, "deployment" | "role" | "group" | "release" | "filter")
        || call.path.ends_with("/tags")
        || call.path.ends_with("/status")
        || call.path.ends_with("/group");
    let text = std::str::from_utf8(&call.body).ok().filter(|text| !text.is_empty())?;
    is_shown.then(|| text.chars().take(4096).collect())
}

/// `logs` and `logs/export`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["logs"], &Method::GET) => {
            let page = Page::of(call)?;
            let query = EventQuery { skip: page.skip() as u64, take: page.per_page as u64, ..query(call)? };
            let found = shared.service.store.events(&query).await?;
            let shown: Vec<Value> = found.items.into_iter().map(|one| one.event.data).collect();
            Ok(page.found(call, &shown, found.total))
        }
        (["logs", "export"], &Method::GET) => export(shared, query(call)?),
        _ => Err(ApiError::no_route()),
    }
}

fn query(call: &Call) -> Result<EventQuery, ApiError> {
    let time = |name: &str| match call.query(name) {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(|seconds: u64| Some(seconds))
            .map_err(|_| ApiError::bad_request(&format!("{name}: not a number of seconds"))),
    };
    let members = [
        ("actor_id", "/actor/id"),
        ("actor_type", "/actor/type"),
        ("actor_email", "/actor/email"),
        ("object_id", "/object/id"),
        ("object_type", "/object/type"),
        ("object_deployment_name", "/object/deployment/name"),
    ];
    let members =
        members.into_iter().filter_map(|(name, pointer)| Some((pointer.to_owned(), call.query(name)?)));
    let oldest_first = match call.query("sort").as_deref() {
        None | Some("" | "desc") => false,
        Some("asc") => true,
        Some(_) => return Err(ApiError::bad_request("sort: the order is asc or desc")),
    };
    Ok(EventQuery {
        after: time("created_after")?.map(|seconds| Timestamp(seconds.saturating_mul(1000))),
        // The whole second belongs to it.
        before: time("created_before")?
            .map(|seconds| Timestamp(seconds.saturating_mul(1000).saturating_add(999))),
        members: members.collect(),
        oldest_first,
        ..EventQuery::of(Stream::Audit)
    })
}

/// One page after the other, as the client takes them.
fn export(shared: &Shared, mut query: EventQuery) -> Result<Reply, ApiError> {
    // What comes meanwhile must not move the pages.
    query.before = Some(query.before.unwrap_or(Timestamp(u64::MAX)).min(shared.service.now()));
    query.take = AT_ONCE;
    let store: Arc<dyn Store> = shared.service.store.clone();
    let (pages, mut read) = mpsc::channel::<io::Result<Frame<Bytes>>>(1);
    tokio::spawn(async move {
        let mut next = Ok(Some(Bytes::from_static(audit::CSV_HEAD.as_bytes())));
        loop {
            let page = match next {
                Ok(None) => return,
                Ok(Some(page)) => Ok(Frame::data(page)),
                Err(error) => Err(io::Error::other(error)),
            };
            let is_last = page.is_err();
            // Whoever asked may be gone.
            if pages.send(page).await.is_err() || is_last || query.skip >= EXPORTED {
                return;
            }
            let found = store.events(&query).await;
            query.skip += AT_ONCE;
            let line = |one: &Numbered| audit::csv_line(&one.event.data);
            next = found.map(|found| {
                let is_some = !found.items.is_empty();
                is_some.then(|| Bytes::from(found.items.iter().map(line).collect::<String>()))
            });
        }
    });
    let body = StreamBody::new(stream::poll_fn(move |context| read.poll_recv(context)));
    let mut reply = Response::new(BodyExt::boxed(body));
    *reply.status_mut() = StatusCode::OK;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let name = HeaderValue::from_static("attachment; filename=\"audit-log.csv\"");
    reply.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(reply)
}
