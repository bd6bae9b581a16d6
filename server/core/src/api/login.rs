//! How a login begins and ends: with a token for programs, or with one in the cookie of the page.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, SET_COOKIE, USER_AGENT};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::call::Caller;
use super::routes::{Route, made};
use super::users::{Account, Person, by_email, derive, new_user, same};
use super::{ApiError, Call, Reply, Shared, cookie, reply};
use crate::domain::audit::{self, Actor, Entry, Object};
use crate::domain::id;
use crate::domain::people::failures::{Attempt, Who};
use crate::domain::people::password::Password;
use crate::domain::people::sessions::{self, Session, Sessions};
use crate::domain::people::tokens;
use crate::domain::people::users::{self, User, UserError};
use crate::domain::token::Subject;
use crate::model::time::Timestamp;
use crate::work::{Key, Kind, NotLoaded, Work};

/// How long a login lasts.
const LOGIN_SECONDS: u64 = 7 * 24 * 3600;
/// How long one lasts that is not to end by itself.
const LONG_SECONDS: u64 = tokens::MOST_SECONDS;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/management/v1/useradm/auth/login", "Log in")
        .may_take(made::<LoginOptions>)
        .gives_text("application/jwt"),
    Route::post("/api/management/v1/useradm/auth/logout", "End the login").status(202),
    Route::post("/api/management/v1/useradm/auth/session", "Log in, with the token in a cookie")
        .takes(made::<NewSession>)
        .fails(&[401, 403]),
    Route::delete("/api/management/v1/useradm/auth/session", "End the login of the cookie").fails(&[403]),
    Route::get("/api/management/v1/useradm/auth/state", "Whether the first user is still to be made")
        .gives("LoginState"),
    Route::post(
        "/api/management/v1/useradm/auth/first-user",
        "Make the first user, with the link of the start",
    )
    .takes(made::<FirstUser>)
    .status(201)
    .fails(&[403, 409, 422]),
    Route::get("/api/management/v1/useradm/settings/sessions", "List one's logins").gives("[Session]"),
    Route::delete("/api/management/v1/useradm/settings/sessions/{session}", "End one of one's logins"),
];

/// What may be said about a login.
#[derive(Debug, Default, Deserialize, JsonSchema)]
struct LoginOptions {
    /// A code of the second factor.
    token2fa: Option<String>,
    /// Whether it lasts for a year.
    #[serde(default)]
    no_expiry: bool,
}

impl LoginOptions {
    /// The code, if one was typed.
    fn code(&self) -> Option<&str> {
        self.token2fa.as_deref().filter(|code| !code.is_empty())
    }
}

/// What the page logs in with.
#[derive(Deserialize, JsonSchema)]
struct NewSession {
    email: String,
    password: String,
    token2fa: Option<String>,
    #[serde(default)]
    no_expiry: bool,
}

/// What the first user is made of.
#[derive(Deserialize, JsonSchema)]
struct FirstUser {
    token: String,
    email: String,
    password: String,
}

/// A login that has begun.
pub(super) struct Begun {
    token: String,
    seconds: u64,
}

impl Begun {
    /// The answer with the token in the cookie.
    pub(super) fn in_cookie(&self, shared: &Shared, mut reply: Reply) -> Reply {
        reply.headers_mut().insert(SET_COOKIE, cookie::set(shared, &self.token, self.seconds));
        reply
    }
}

/// A token for a name and a password.
pub(super) async fn login(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let refused = || ApiError::unauthorized("unauthorized");
    let sent = call
        .header(AUTHORIZATION.as_str())
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|text| STANDARD.decode(text.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(refused)?;
    let (name, password) = sent.split_once(':').ok_or_else(refused)?;
    let options = if call.body.is_empty() { LoginOptions::default() } else { call.json()? };
    let begun = attempt(shared, call, name, password, &options).await?;
    Ok(reply::bytes(StatusCode::OK, "application/jwt", begun.token))
}

/// The same for the page.
pub(super) async fn session(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    cookie::check_origin(shared, call)?;
    let sent: NewSession = call.json()?;
    let options = LoginOptions { token2fa: sent.token2fa, no_expiry: sent.no_expiry };
    let begun = attempt(shared, call, &sent.email, &sent.password, &options).await?;
    Ok(begun.in_cookie(shared, reply::empty(StatusCode::NO_CONTENT)))
}

/// Whether there is somebody who could log in.
pub(crate) fn has_user(shared: &Shared) -> bool {
    shared.options.user.is_some() || shared.service.catalogue.has_any(Kind::User)
}

/// What a page has to know before anybody has logged in.
pub(super) fn state(shared: &Shared) -> Reply {
    reply::json(StatusCode::OK, &json!({ "first_user": !has_user(shared) }))
}

/// Makes the first user of a server that has none, for whoever has the link that it has printed, and logs that one in.
pub(super) async fn first_user(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    cookie::check_origin(shared, call)?;
    let sent: FirstUser = call.json()?;
    if has_user(shared) {
        return Err(ApiError::conflict("there is a user already"));
    }
    // Before anything that takes long.
    let invited = shared.service.catalogue.document::<String>(Kind::Secret, users::FIRST);
    if !invited.is_some_and(|invited| users::is_invited(&invited, &sent.token)) {
        return Err(UserError::NotInvited.into());
    }
    let user = new_user(shared, &sent.email, sent.password, Vec::new()).await?;
    let keys = vec![
        Key::Document(Kind::User, user.id.clone()),
        Key::Document(Kind::User, users::owner_key(&user.email)),
        Key::Document(Kind::Secret, users::FIRST.to_owned()),
    ];
    let entry = Entry {
        actor: Actor { id: user.id.clone(), email: user.email.clone() },
        action: "create",
        object: Object { kind: "user", id: user.id.clone() },
        change: None,
        session: None,
    };
    let (token, made) = (sent.token, user.clone());
    let rule = move |work: &mut Work| {
        users::create_first(work, &made, &token)?;
        audit::audit(work, &entry);
        Ok::<(), UserError>(())
    };
    shared.change_unnoted(keys, rule).await?;
    let location = format!("/api/management/v1/useradm/users/{}", user.id);
    let begun = begin(shared, call, &Account::Stored(Box::new(user)), &LoginOptions::default()).await?;
    Ok(begun.in_cookie(shared, reply::created(&location)))
}

/// Looks at what somebody logs in with.
async fn attempt(
    shared: &Shared,
    call: &Call,
    name: &str,
    password: &str,
    options: &LoginOptions,
) -> Result<Begun, ApiError> {
    let mut who = vec![Who::name(name)];
    who.extend(call.from.map(Who::at));
    let tried = count(shared, who)?;
    let account = match &shared.options.user {
        Some((known, secret)) if same(name, known) & same(password, secret) => {
            Account::Configured { name: known.clone(), password: secret.clone() }
        }
        Some(_) | None => {
            let user = by_email(shared, name);
            let known = user.as_ref().map_or_else(Password::of_nobody, |user| user.password.clone());
            let password = password.to_owned();
            let is_right = derive(shared, move || known.is(&password)).await?;
            let user = user.filter(|_| is_right).ok_or_else(|| ApiError::unauthorized("unauthorized"))?;
            Account::Stored(Box::new(user))
        }
    };
    shared.failures.succeeded(&tried);
    let of_code = match &account {
        Account::Stored(user) if user.needs_code() && options.code().is_some() => {
            vec![Who::Code(user.id.clone())]
        }
        Account::Stored(_) | Account::Configured { .. } => Vec::new(),
    };
    let tried = count(shared, of_code)?;
    let begun = begin(shared, call, &account, options).await?;
    shared.failures.succeeded(&tried);
    Ok(begun)
}

/// Looks at the password that somebody who is logged in says again. A wrong one is a failed login of the account; the address,
/// which others may have as well, has no part in it. One account has few places in the queue of [`derive`] at a time for that.
///
/// # Errors
/// 422: it is wrong. 429: there were too many.
pub(super) async fn confirm(shared: &Shared, user: &User, password: String) -> Result<(), ApiError> {
    let tried = count(shared, vec![Who::name(&user.email)])?;
    let known = user.password.clone();
    if !derive(shared, move || known.is(&password)).await? {
        return Err(ApiError::unprocessable("current password mismatch"));
    }
    shared.failures.succeeded(&tried);
    Ok(())
}

/// Counts a failure, before it is one.
///
/// # Errors
/// 429: there were too many.
fn count(shared: &Shared, who: Vec<Who>) -> Result<Attempt, ApiError> {
    shared.failures.begin(who, Instant::now()).map_err(|left| {
        let text = "too many logins failed; try again later";
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, text);
        ApiError { retry_after_seconds: Some(left.as_secs() + 1), ..error }
    })
}

/// Begins a login of somebody who may.
async fn begin(
    shared: &Shared,
    call: &Call,
    account: &Account,
    options: &LoginOptions,
) -> Result<Begun, ApiError> {
    let (id, now) = (id::uuid()?, shared.service.now());
    let seconds = if options.no_expiry { LONG_SECONDS } else { LOGIN_SECONDS };
    // Clients take the subject for an id of their own form, and ask for the user with it.
    let user = account.id();
    let session = new_session(call, &id, now, seconds);
    let is_stored = matches!(account, Account::Stored(_));
    let keys = [Kind::User, Kind::Session].map(|kind| Key::Document(kind, user.clone()));
    let whose = user.clone();
    let code = options.code().map(str::to_owned);
    let rule = move |work: &mut Work| {
        if is_stored {
            users::logged_in(work, &whose, code.as_deref())?;
        }
        Ok::<(), UserError>(sessions::begin(work, &whose, &session)?)
    };
    shared.change_unnoted(keys.to_vec(), rule).await?;
    let mark = account.mark(shared, "");
    let subject = Subject::User { id: &id, name: &user, login: &mark };
    Ok(Begun { token: shared.secrets.tokens.issue(subject, now, seconds), seconds })
}

fn new_session(call: &Call, id: &str, now: Timestamp, seconds: u64) -> Session {
    let from = call.from.map(|address| address.to_string()).unwrap_or_default();
    let agent = call.header(USER_AGENT.as_str()).unwrap_or_default();
    Session::new(id, now, now.plus_seconds(seconds), from, agent)
}

/// Ends the login, and the work on devices that began with it. The management token and personal ones are no logins.
pub(super) async fn logout(shared: &Shared, person: &Person) -> Result<Reply, ApiError> {
    if let Some(login) = &person.login {
        end(shared, &person.name, login).await?;
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

async fn end(shared: &Shared, user: &str, session: &str) -> Result<(), ApiError> {
    let keys = vec![Key::Document(Kind::Session, user.to_owned())];
    let (user, session) = (user.to_owned(), session.to_owned());
    let rule = move |work: &mut Work| sessions::end(work, &user, &session);
    shared.change_unnoted::<(), NotLoaded>(keys, rule).await
}

/// Ends the login of the page, and has the browser forget it; also one that had ended already.
pub(super) async fn end_session(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    if let Caller::Person(Person { name, login: Some(login), .. }) = &call.caller {
        end(shared, name, login).await?;
    }
    let mut reply = reply::empty(StatusCode::NO_CONTENT);
    reply.headers_mut().insert(SET_COOKIE, cookie::set(shared, "", 0));
    Ok(reply)
}

/// Whoever has stolen a personal token must not see its owner's logins, nor end them.
///
/// # Errors
/// 403: it is one.
fn check_no_token(person: &Person) -> Result<(), ApiError> {
    match person.token.is_some() {
        true => Err(ApiError::forbidden("a personal token has nothing to do with logins")),
        false => Ok(()),
    }
}

/// A person's logins.
pub(super) fn list(shared: &Shared, person: &Person) -> Result<Reply, ApiError> {
    check_no_token(person)?;
    let now = shared.service.now();
    let stored: Sessions = shared.service.catalogue.document(Kind::Session, &person.name).unwrap_or_default();
    let shown = stored.iter().filter(|one| one.until > now).map(|one| {
        json!({
            "id": one.id, "created_ts": one.created, "last_used_ts": one.used, "from": one.from,
            "agent": one.agent, "current": person.login.as_ref() == Some(&one.id),
        })
    });
    Ok(reply::json(StatusCode::OK, &shown.collect::<Vec<_>>()))
}

/// Ends one of a person's logins.
pub(super) async fn remove(shared: &Shared, person: &Person, session: &str) -> Result<Reply, ApiError> {
    check_no_token(person)?;
    end(shared, &person.name, session).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Whether a login goes on. One that this process has not heard of may have begun at another one a moment ago.
pub(super) async fn goes_on(shared: &Shared, user: &str, session: &str) -> Result<bool, ApiError> {
    let has = |all: Sessions| all.iter().any(|one| one.id == session);
    if shared.service.catalogue.document(Kind::Session, user).is_some_and(has) {
        return Ok(true);
    }
    let stored = shared.service.store.document(Kind::Session, user).await?;
    Ok(stored.and_then(|stored| serde_json::from_value(stored).ok()).is_some_and(has))
}

/// Stores that a login was used, if that was not stored lately.
pub(super) async fn used(shared: &Shared, user: &str, session: &str) -> Result<(), ApiError> {
    let now = shared.service.now();
    let stored: Sessions = shared.service.catalogue.document(Kind::Session, user).unwrap_or_default();
    if !stored.iter().any(|one| one.id == session && one.is_long_unused(now)) {
        return Ok(());
    }
    let (user, session) = (user.to_owned(), session.to_owned());
    let keys = vec![Key::Document(Kind::Session, user.clone())];
    let rule = move |work: &mut Work| sessions::used(work, &user, &session);
    shared.change_unnoted::<(), NotLoaded>(keys, rule).await
}
