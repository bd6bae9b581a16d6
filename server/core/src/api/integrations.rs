//! Webhooks, as people make them, and what they were told.

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::paging::Page;
use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, audit, reply};
use crate::domain::id;
use crate::domain::webhooks::{self, INTEGRATIONS, Integration, Scope, WebhookError, progress};
use crate::model::time::Timestamp;
use crate::work::query::{EventQuery, Numbered};
use crate::work::{Key, Kind, NotLoaded, Stream};

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/iot-manager/integrations", "List webhooks").paged().gives("[Integration]"),
    Route::post("/api/management/v1/iot-manager/integrations", "Make a webhook")
        .takes(made::<NewIntegration>)
        .status(201)
        .fails(&[409, 422]),
    Route::delete("/api/management/v1/iot-manager/integrations/{integration}", "Remove a webhook")
        .fails(&[404]),
    Route::put(
        "/api/management/v1/iot-manager/integrations/{integration}/credentials",
        "Change the address and the secret of a webhook",
    )
    .takes(made::<Credentials>)
    .fails(&[404, 422]),
    Route::get("/api/management/v1/iot-manager/events", "What webhooks were told, the newest first")
        .queries(&["integration_id"])
        .paged()
        .gives("[WebhookEvent]"),
];

#[derive(Deserialize, JsonSchema)]
struct NewIntegration {
    provider: String,
    credentials: Credentials,
    #[serde(default)]
    description: String,
    #[serde(default)]
    scopes: Option<Vec<Scope>>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "WebhookCredentials")]
struct Credentials {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    http: Option<Http>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "WebhookHttp")]
struct Http {
    url: String,
    #[serde(default)]
    secret: Option<String>,
}

impl Credentials {
    /// Where to and signed with what, if that can be.
    fn checked(self, shared: &Shared, description: &str) -> Result<(String, Option<String>), ApiError> {
        let http = match (self.kind.as_str(), self.http) {
            ("http", Some(http)) => http,
            ("http", None) => return Err(ApiError::bad_request("credentials: http is missing")),
            _ => return Err(ApiError::unprocessable("credentials: only the type http is there")),
        };
        let secret = http.secret.filter(|secret| !secret.is_empty());
        webhooks::check(&http.url, secret.as_deref(), description)
            .map_err(|reason| ApiError::bad_request(&reason))?;
        // What has a name is looked at each time it is asked: what the name stands for may change.
        if !shared.options.webhooks.private && webhooks::is_inside(&http.url) {
            return Err(ApiError::unprocessable(
                "url: its address is not one of the public network (--webhook-allow-private allows it)",
            ));
        }
        Ok((http.url, secret))
    }
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> ApiError {
        match error {
            WebhookError::NotLoaded => NotLoaded.into(),
            WebhookError::NotFound => ApiError::not_found(),
        }
    }
}

fn keys(id: &str) -> Vec<Key> {
    vec![Key::Document(Kind::Integration, id.to_owned()), Key::Document(Kind::Progress, progress(id))]
}

/// `integrations` and `events`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        (["integrations"], &Method::GET) => {
            let all: Vec<(String, Integration)> = shared.service.catalogue.documents(Kind::Integration);
            Ok(Page::of(call)?.list(call, &all, |(id, integration)| describe(id, integration)))
        }
        (["integrations"], &Method::POST) => create(shared, call).await,
        (["integrations", id], &Method::DELETE) => {
            reply::check_id(id)?;
            let own = (*id).to_owned();
            shared.change(keys(id), move |work| webhooks::remove(work, &own)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["integrations", id, "credentials"], &Method::PUT) => {
            reply::check_id(id)?;
            let (url, secret) = call.json::<Credentials>()?.checked(shared, "")?;
            let own = (*id).to_owned();
            let rule = move |work: &mut _| webhooks::change(work, &own, &url, secret.as_deref());
            shared.change(keys(id), rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        (["events"], &Method::GET) => events(shared, call).await,
        _ => Err(ApiError::no_route()),
    }
}

async fn create(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let wanted: NewIntegration = call.json()?;
    if wanted.provider != "webhook" {
        return Err(ApiError::unprocessable(
            "provider: only webhook is there; this server speaks to no cloud",
        ));
    }
    let scopes = wanted.scopes.filter(|scopes| !scopes.is_empty()).unwrap_or(vec![Scope::Deviceauth]);
    let (url, secret) = wanted.credentials.checked(shared, &wanted.description)?;
    let all: Vec<(String, Integration)> = shared.service.catalogue.documents(Kind::Integration);
    if all.len() >= INTEGRATIONS {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            &format!("there are {INTEGRATIONS} webhooks already, and there cannot be more"),
        ));
    }
    // It is told what comes from now on.
    let after = shared.newest(Stream::Webhook).await?;
    let integration =
        Integration { url, secret, description: wanted.description, scopes, created: Timestamp::default() };
    let id = id::uuid()?;
    audit::about(&id);
    let own = id.clone();
    shared.change(keys(&id), move |work| webhooks::create(work, &own, integration.clone(), after)).await?;
    Ok(reply::created(&format!("/api/management/v1/iot-manager/integrations/{id}")))
}

/// What stands for a secret, as in the reference server (mender-server, tag v4.1.3).
const OMITTED: &str = "<omitted>";

/// The secret is not told, only that there is one: who has it need not ask, and who has not is not to know it.
fn describe(id: &str, integration: &Integration) -> Value {
    let http = match integration.secret {
        Some(_) => json!({ "url": integration.url, "secret": OMITTED }),
        None => json!({ "url": integration.url }),
    };
    json!({
        "id": id,
        "provider": "webhook",
        "credentials": { "type": "http", "http": http },
        "description": integration.description,
        "scopes": integration.scopes,
    })
}

/// With an integration: what it was told. Otherwise: what there is to tell.
async fn events(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let store = &shared.service.store;
    let one = call.query("integration_id").filter(|id| !id.is_empty());
    let (skip, take) = (page.skip() as u64, page.per_page as u64);
    let (found, total) = match &one {
        None => {
            let found = store.events(&EventQuery { skip, take, ..EventQuery::of(Stream::Webhook) }).await?;
            (found.items, found.total)
        }
        Some(id) => {
            let members = vec![("/integration_id".to_owned(), id.clone())];
            let told =
                store.events(&EventQuery { skip, take, members, ..EventQuery::of(Stream::Delivery) }).await?;
            let keys: Vec<String> = told.items.iter().map(|one| one.event.key.clone()).collect();
            let take = keys.len() as u64;
            let mut events = match keys.is_empty() {
                true => Vec::new(),
                false => {
                    store.events(&EventQuery { keys, take, ..EventQuery::of(Stream::Webhook) }).await?.items
                }
            };
            // As they were told; one may have gone for its age.
            let at = |event: &Numbered| told.items.iter().position(|one| one.event.key == event.event.key);
            events.sort_by_key(at);
            let found = events;
            (found, told.total)
        }
    };
    let keys: Vec<String> = found.iter().map(|event| event.event.key.clone()).collect();
    let told = match keys.is_empty() {
        true => Vec::new(),
        false => {
            let take = (INTEGRATIONS * keys.len()) as u64;
            store.events(&EventQuery { keys, take, ..EventQuery::of(Stream::Delivery) }).await?.items
        }
    };
    let shown: Vec<Value> = found
        .iter()
        .map(|event| {
            let own = told.iter().filter(|told| {
                let of = told.event.data["integration_id"].as_str();
                told.event.key == event.event.key && one.as_deref().is_none_or(|one| of == Some(one))
            });
            let statuses: Vec<&Value> = own.map(|one| &one.event.data).collect();
            let mut shown = webhooks::body_of(event);
            shown["delivery_statuses"] = json!(statuses);
            shown
        })
        .collect();
    Ok(page.found(call, &shown, total))
}
