//! People: the token of whoever runs the server, and a login for one configured user.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;

use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::id;
use crate::domain::time::Timestamp;
use crate::domain::token::Subject;

/// Whoever has the management token, where a person is named.
const OPERATOR: &str = "management";
/// How long a login lasts.
const LOGIN_SECONDS: u64 = 7 * 24 * 3600;

/// The person whom the request comes from.
pub(super) fn check(shared: &Shared, call: &Call) -> Result<String, ApiError> {
    let refused = || ApiError::unauthorized("unauthorized");
    let token = call.bearer().ok_or_else(refused)?;
    let secrets = &shared.store.secrets;
    if same(token, &secrets.management_token) {
        call.is_from(OPERATOR);
        return Ok(OPERATOR.to_owned());
    }
    let claims = secrets.tokens.verify(token, Timestamp::now()).map_err(|_| refused())?;
    if !claims.user {
        return Err(refused());
    }
    call.is_from(&claims.sub);
    Ok(claims.sub)
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
    let subject = Subject::User { id: &id, name: &user };
    let token = shared.store.secrets.tokens.issue(subject, Timestamp::now(), LOGIN_SECONDS);
    Ok(reply::bytes(StatusCode::OK, "application/jwt", token))
}

/// Compares secrets by their digests, so that the time it takes says nothing about them.
fn same(sent: &str, secret: &str) -> bool {
    id::sha256_hex(sent.as_bytes()) == id::sha256_hex(secret.as_bytes())
}
