//! Who gets mails about alerts, how they arrive, and one for trying.

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::routes::{Route, made};
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::mail::{self as rules, MailSettings, Posted, SETTINGS, progress};
use crate::mail;
use crate::work::{Kind, NotLoaded, Stream, Work};

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route::get(
        "/api/management/v1/devicemonitor/settings/global/channel/alerts/email",
        "Who gets mails about alerts, and what became of them",
    )
    .gives("AlertMails"),
    Route::put(
        "/api/management/v1/devicemonitor/settings/global/channel/alerts/email",
        "Say who gets mails about alerts",
    )
    .takes(made::<MailSettings>),
    Route::put(
        "/api/management/v1/devicemonitor/settings/global/channel/alerts/email/status",
        "Switch mails about alerts on or off",
    )
    .takes(made::<Switch>),
    Route::post(
        "/api/management/v1/devicemonitor/settings/global/channel/alerts/email/test",
        "Send a mail, to try whether it arrives",
    )
    .takes(made::<TestMail>)
    .gives("TestedMail")
    .fails(&[409]),
];

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AlertMailStatus")]
struct Switch {
    enabled: bool,
}

#[derive(Deserialize, JsonSchema)]
struct TestMail {
    address: String,
}

/// What comes behind `channel/alerts/email`.
pub(super) async fn route(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    match (rest, &call.method) {
        ([], &Method::GET) => show(shared).await,
        ([], &Method::PUT) => {
            let wanted: MailSettings = call.json()?;
            wanted.check().map_err(|reason| ApiError::bad_request(&reason))?;
            set(shared, move |_| wanted.clone()).await
        }
        (["status"], &Method::PUT) => {
            let Switch { enabled } = call.json()?;
            set(shared, move |known| MailSettings { enabled, ..known }).await
        }
        (["test"], &Method::POST) => test(shared, call).await,
        _ => Err(ApiError::no_route()),
    }
}

fn settings(shared: &Shared) -> MailSettings {
    shared.service.catalogue.document(Kind::Settings, SETTINGS).unwrap_or_default()
}

async fn set(
    shared: &Shared,
    change: impl Fn(MailSettings) -> MailSettings + Send + 'static,
) -> Result<Reply, ApiError> {
    let known = settings(shared);
    let keys = rules::keys(&known, &change(known.clone()));
    // They are told what comes from now on.
    let after = shared.newest(Stream::Mail).await?;
    let rule = move |work: &mut Work| {
        let known = work.document(Kind::Settings, SETTINGS)?.unwrap_or_default();
        rules::set(work, &change(known), after)
    };
    shared.change::<_, NotLoaded>(keys, rule).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn show(shared: &Shared) -> Result<Reply, ApiError> {
    let settings = settings(shared);
    let store = &shared.service.store;
    let mut states = Vec::new();
    for receiver in &settings.receivers {
        let known = store.document(Kind::Progress, &progress(receiver)).await?;
        let known: Posted = known.and_then(|known| serde_json::from_value(known).ok()).unwrap_or_default();
        let waiting = match settings.enabled {
            true => store.events(&rules::behind(&known)).await?.total,
            false => 0,
        };
        let mut state = json!({ "receiver": receiver, "waiting": waiting, "tries": known.tries });
        for (name, value) in
            [("sent", known.sent.map(|sent| json!(sent))), ("error", known.error.map(Value::from))]
        {
            if let Some(value) = value {
                state[name] = value;
            }
        }
        states.push(state);
    }
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "enabled": settings.enabled,
            "receivers": settings.receivers,
            "configured": shared.options.smtp.is_some(),
            "states": states,
        }),
    ))
}

async fn test(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let TestMail { address } = call.json()?;
    rules::address(&address).map_err(|reason| ApiError::bad_request(&format!("address: {reason}")))?;
    let post = shared
        .options
        .post()
        .ok_or_else(|| ApiError::conflict("the server was started without --smtp, and sends no mails"))?;
    let (sent, said) = mail::test(&post, &shared.service, &address)
        .await
        .map_err(|reason| ApiError::bad_request(&format!("address: {reason}")))?;
    Ok(reply::json(StatusCode::OK, &json!({ "sent": sent, "said": said })))
}
