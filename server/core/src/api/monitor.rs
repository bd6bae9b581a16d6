//! What the monitors of devices say.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::call::Speaker;
use super::paging::Page;
use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::monitor::{self, Alert, Level, Monitor, MonitorError, Monitored, Raised};
use crate::work::query::EventQuery;
use crate::work::{Kind, NotLoaded, Stream};

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/devices/v1/devicemonitor/alert", "Tell of alerts").takes(made::<Vec<Alert>>),
    Route::put("/api/devices/v1/devicemonitor/config", "Tell which monitors there are")
        .takes(made::<Vec<Monitor>>),
    Route::get("/api/management/v1/devicemonitor/devices/{device}/alerts", "The alerts of a device")
        .queries(&["issued_after", "issued_before", "sort_ascending"])
        .paged()
        .gives_made(made::<Vec<Raised>>)
        .fails(&[404]),
    Route::get(
        "/api/management/v1/devicemonitor/devices/{device}/alerts/latest",
        "The last alert of each monitor of a device",
    )
    .queries(&["level_from"])
    .paged()
    .gives_made(made::<Vec<Raised>>)
    .fails(&[404]),
    Route::get("/api/management/v1/devicemonitor/devices/{device}/config", "The monitors of a device")
        .gives_made(made::<Vec<Monitor>>)
        .fails(&[404]),
];

impl From<MonitorError> for ApiError {
    fn from(error: MonitorError) -> ApiError {
        match error {
            MonitorError::NotLoaded => NotLoaded.into(),
            MonitorError::Unauthorized => ApiError::unauthorized("dev auth: unauthorized"),
        }
    }
}

fn is_short(text: &str) -> bool {
    text.chars().count() <= monitor::TEXT_CHARS
}

/// `alert` and `config` of a device.
pub(super) async fn device(
    shared: &Shared,
    call: &Call,
    speaker: &Speaker,
    what: &str,
) -> Result<Reply, ApiError> {
    let claims = speaker.claims.clone();
    let keys = monitor::keys(&claims.sub);
    match (what, &call.method) {
        ("alert", &Method::POST) => {
            let alerts: Vec<Alert> = call.json()?;
            check(&alerts)?;
            let sent = alerts.len();
            let kept = shared.change(keys, move |work| monitor::alert(work, &claims, &alerts)).await?;
            shared.metrics.alerts.add(kept as u64);
            shared.metrics.alerts_dropped.add((sent - kept) as u64);
        }
        ("config", &Method::PUT) => {
            let config: Vec<Monitor> = call.json()?;
            let fits =
                |one: &Monitor| [&one.name, &one.status, &one.kind].into_iter().all(|text| is_short(text));
            if config.len() > monitor::MONITORS || !config.iter().all(fits) {
                return Err(ApiError::bad_request(&format!(
                    "a device has at most {} monitors, whose texts have at most {} characters",
                    monitor::MONITORS,
                    monitor::TEXT_CHARS
                )));
            }
            shared.change(keys, move |work| monitor::configure(work, &claims, &config)).await?;
        }
        _ => return Err(ApiError::not_found()),
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn check(alerts: &[Alert]) -> Result<(), ApiError> {
    if alerts.len() > monitor::ALERTS {
        return Err(ApiError::bad_request(&format!("there are more than {} alerts", monitor::ALERTS)));
    }
    for alert in alerts {
        let subject = &alert.subject;
        let timestamp = alert.timestamp.as_deref().unwrap_or_default();
        let texts = [&*alert.name, &*subject.name, &*subject.kind, &*subject.status, timestamp];
        if !texts.into_iter().all(is_short) {
            return Err(ApiError::bad_request(&format!(
                "a text of an alert has more than {} characters",
                monitor::TEXT_CHARS
            )));
        }
        if json!(alert).to_string().len() > monitor::ALERT_BYTES {
            return Err(ApiError::bad_request(&format!(
                "an alert has more than {} bytes",
                monitor::ALERT_BYTES
            )));
        }
    }
    Ok(())
}

/// What people ask: `devices/{id}/alerts`, `/alerts/latest` and `/config`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let (["devices", device, rest @ ..], &Method::GET) = (rest, &call.method) else {
        return Err(ApiError::not_found());
    };
    shared.service.store.device(device).await?.ok_or_else(ApiError::not_found)?;
    match rest {
        ["alerts"] => {
            let page = Page::of(call)?;
            let query = EventQuery {
                keys: vec![(*device).to_owned()],
                after: call.time("issued_after")?,
                before: call.time("issued_before")?,
                oldest_first: is_ascending(call)?,
                skip: page.skip() as u64,
                take: page.per_page as u64,
                ..EventQuery::of(Stream::Alert)
            };
            let found = shared.service.store.events(&query).await?;
            let shown: Vec<Value> = found.items.into_iter().map(|one| one.event.data).collect();
            Ok(page.found(call, &shown, found.total))
        }
        ["alerts", "latest"] => {
            let from = level_from(call)?;
            let mut latest = known(shared, device).await?.latest;
            latest.retain(|raised| raised.alert.level >= from);
            // Those that have been there for longest come first, as in the reference server.
            latest.reverse();
            Ok(Page::of(call)?.list(call, &latest, |raised| json!(raised)))
        }
        ["config"] => Ok(reply::json(StatusCode::OK, &known(shared, device).await?.config)),
        _ => Err(ApiError::not_found()),
    }
}

fn is_ascending(call: &Call) -> Result<bool, ApiError> {
    match call.query("sort_ascending").as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::bad_request("sort_ascending is true or false")),
    }
}

/// The least level that is asked for.
fn level_from(call: &Call) -> Result<Level, ApiError> {
    match call.query("level_from").as_deref() {
        None | Some("" | "OK") => Ok(Level::Ok),
        Some("CRITICAL") => Ok(Level::Critical),
        Some(_) => Err(ApiError::bad_request("level_from is OK or CRITICAL")),
    }
}

async fn known(shared: &Shared, device: &str) -> Result<Monitored, ApiError> {
    let value = shared.service.store.document(Kind::Monitor, device).await?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
}
