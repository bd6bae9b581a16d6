//! The second factor of a person: made, turned on with a code and the password, turned off with the password, or by whoever manages people.

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::routes::{Route, made};
use super::users::{Account, Person, check_given};
use super::{ApiError, Call, Reply, Shared, audit, login, reply};
use crate::domain::people::second_factor::SecondFactor;
use crate::domain::people::users::{self, User};
use crate::work::{Key, Kind};

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/useradm/settings/me/2fa", "Whether the second factor is on")
        .gives("SecondFactorState"),
    Route::post("/api/management/v1/useradm/settings/me/2fa", "A secret for a second factor, which is off")
        .gives("SecondFactor")
        .fails(&[409, 422]),
    Route::put("/api/management/v1/useradm/settings/me/2fa", "Turn the second factor on")
        .takes(made::<Code>)
        .fails(&[409, 422]),
    Route::delete("/api/management/v1/useradm/settings/me/2fa", "Turn the second factor off")
        .takes(made::<CurrentPassword>)
        .fails(&[409, 422]),
    Route::delete("/api/management/v1/useradm/users/{user}/2fa", "Turn the second factor of a user off")
        .fails(&[404, 422]),
];

#[derive(Deserialize, JsonSchema)]
struct Code {
    token2fa: String,
    /// Whoever finds a page that is open must not keep its owner out.
    current_password: String,
}

#[derive(Deserialize, JsonSchema)]
struct CurrentPassword {
    password: String,
}

/// What a person does with the own one.
pub(super) async fn of_me(
    shared: &Shared,
    call: &Call,
    person: &Person,
    method: &Method,
) -> Result<Reply, ApiError> {
    if *method == Method::GET {
        let user = Account::find(shared, &person.name);
        let is_on = matches!(user, Some(Account::Stored(user)) if user.needs_code());
        return Ok(reply::json(StatusCode::OK, &json!({ "enabled": is_on })));
    }
    if person.token.is_some() {
        // Whoever has stolen one must not keep its owner out.
        return Err(ApiError::forbidden("a personal token cannot change the second factor"));
    }
    let user = stored(shared, &person.name)?
        .ok_or_else(|| ApiError::unprocessable("the management token is no user"))?;
    audit::about(&user.id);
    match *method {
        Method::POST => offer(shared, user).await,
        Method::PUT => turn_on(shared, call, user).await,
        Method::DELETE => turn_off(shared, call, user).await,
        _ => Err(ApiError::no_route()),
    }
}

/// A stored user; `None` when nobody has the id.
fn stored(shared: &Shared, id: &str) -> Result<Option<User>, ApiError> {
    match Account::find(shared, id) {
        Some(Account::Stored(user)) => Ok(Some(*user)),
        Some(Account::Configured { .. }) => {
            Err(ApiError::unprocessable("this user is named where the server is started"))
        }
        None => Ok(None),
    }
}

async fn offer(shared: &Shared, user: User) -> Result<Reply, ApiError> {
    audit::says("a secret for a second factor");
    let factor = SecondFactor::new()?;
    let shown = json!({ "secret": factor.secret(), "uri": factor.uri(&user.email) });
    let keys = vec![Key::Document(Kind::User, user.id.clone())];
    shared.change(keys, move |work| users::offer_factor(work, &user.id, &factor)).await?;
    Ok(reply::json(StatusCode::OK, &shown))
}

async fn turn_on(shared: &Shared, call: &Call, user: User) -> Result<Reply, ApiError> {
    audit::says("the second factor is on");
    let Code { token2fa, current_password } = call.json()?;
    login::confirm(shared, &user, current_password).await?;
    let (keys, seen) = (vec![Key::Document(Kind::User, user.id.clone())], user.mark());
    shared.change(keys, move |work| users::turn_factor_on(work, &user.id, &token2fa, &seen)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn turn_off(shared: &Shared, call: &Call, user: User) -> Result<Reply, ApiError> {
    audit::says("the second factor is off");
    let sent: CurrentPassword = call.json()?;
    login::confirm(shared, &user, sent.password).await?;
    let (keys, seen) = (vec![Key::Document(Kind::User, user.id.clone())], user.mark());
    shared.change(keys, move |work| users::turn_factor_off(work, &user.id, Some(&seen))).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Turns the one of another person off, who has lost what makes the codes.
pub(super) async fn recover(shared: &Shared, person: &Person, id: &str) -> Result<Reply, ApiError> {
    let user = stored(shared, id)?.ok_or_else(ApiError::not_found)?;
    if user.id == person.name {
        return Err(ApiError::forbidden("the own second factor is turned off with the password"));
    }
    // Whoever may not do everything must not come nearer to somebody who may.
    check_given(shared, person, &user.roles)?;
    audit::says("the second factor is off");
    let keys = vec![Key::Document(Kind::User, user.id.clone())];
    shared.change(keys, move |work| users::turn_factor_off(work, &user.id, None)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
