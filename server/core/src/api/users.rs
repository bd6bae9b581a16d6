//! People: the token of whoever runs the server, and a login for one configured user.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;

use super::call::Caller;
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::id;
use crate::domain::time::Timestamp;
use crate::domain::token::{Login, Subject};
use crate::store::work::{Key, Kind, NotLoaded, Work};

/// Whoever has the management token, where a person is named.
const OPERATOR: &str = "management";
/// How long a login lasts.
const LOGIN_SECONDS: u64 = 7 * 24 * 3600;

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// The name.
    pub(crate) name: String,
    /// The login; `None` for whoever has the management token.
    pub(crate) login: Option<Login>,
}

/// The person whose token the request has. A login ends with its token, with a logout, and when it would not be possible
/// any more: with another user, another password, or another management token.
pub(super) fn caller(shared: &Shared, call: &Call) -> Caller {
    let Some(token) = call.bearer() else { return Caller::Stranger };
    let secrets = &shared.secrets;
    if same(token, &secrets.management_token) {
        return Caller::Person(Person { name: OPERATOR.to_owned(), login: None });
    }
    let Ok(claims) = secrets.tokens.verify(token, Timestamp::now()) else { return Caller::Stranger };
    let mark = |(name, password): &(String, String)| {
        secrets.tokens.mark(name, password, &secrets.management_token) == claims.login
    };
    if !claims.user || !shared.options.user.as_ref().is_some_and(mark) {
        return Caller::Stranger;
    }
    let login = Login { id: claims.jti, until: Timestamp(claims.exp.saturating_mul(1000)) };
    Caller::Person(Person { name: claims.sub, login: Some(login) })
}

/// The person whom the request comes from. The token was checked before the body came.
pub(super) fn check<'a>(shared: &Shared, call: &'a Call) -> Result<&'a Person, ApiError> {
    let ended = |id: &str| shared.service.catalogue.document::<u64>(Kind::Logout, id).is_some();
    let goes_on = |login: &Login| !ended(&login.id);
    match &call.caller {
        Caller::Person(person) if person.login.as_ref().is_none_or(goes_on) => Ok(person),
        Caller::Person(_) | Caller::Device(_) | Caller::Stranger => {
            Err(ApiError::unauthorized("unauthorized"))
        }
    }
}

/// A token for a name and a password.
pub(super) fn login(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let refused = || ApiError::unauthorized("unauthorized");
    let sent = call
        .header("authorization")
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|text| STANDARD.decode(text.trim()).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(refused)?;
    let (name, password) = shared.options.user.as_ref().ok_or_else(refused)?;
    if !same(&sent, &format!("{name}:{password}")) {
        return Err(refused());
    }
    let id = id::uuid()?;
    // Clients take the subject for an id of their own form, and ask for the user with it.
    let user = id::uuid_of_name(name);
    let secrets = &shared.secrets;
    let mark = secrets.tokens.mark(name, password, &secrets.management_token);
    let subject = Subject::User { id: &id, name: &user, login: &mark };
    let token = secrets.tokens.issue(subject, Timestamp::now(), LOGIN_SECONDS);
    Ok(reply::bytes(StatusCode::OK, "application/jwt", token))
}

/// Ends the login, and the work on devices that began with it. The management token is no login.
pub(super) async fn logout(shared: &Shared, person: &Person) -> Result<Reply, ApiError> {
    if let Some(login) = &person.login {
        let now = shared.service.now();
        // What has expired need not be remembered any more.
        let logouts = shared.service.catalogue.documents::<u64>(Kind::Logout).into_iter();
        let over: Vec<String> = logouts.filter(|(_, until)| *until <= now.0).map(|(id, _)| id).collect();
        let (id, until) = (login.id.clone(), login.until);
        let keys = over.iter().chain([&id]).map(|id| Key::Document(Kind::Logout, id.clone())).collect();
        let rule = move |work: &mut Work| {
            for id in &over {
                work.put_document::<u64>(Kind::Logout, id, None)?;
            }
            work.put_document(Kind::Logout, &id, Some(&until.0))
        };
        shared.change::<(), NotLoaded>(keys, rule).await?;
        shared.switchboard.log_out(&login.id);
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Compares secrets by their digests, so that the time it takes says nothing about them.
fn same(sent: &str, secret: &str) -> bool {
    id::sha256_hex(sent.as_bytes()) == id::sha256_hex(secret.as_bytes())
}
