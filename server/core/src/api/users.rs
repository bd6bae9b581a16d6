//! People: who asks, users, settings, personal tokens and roles. How logins begin and end is in [`super::login`].

use std::time::Duration;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Caller;
use super::paging::Page;
use super::routes::{Route, made};
use super::seen::{Seen, tagged};
use super::{ApiError, Call, Reply, Shared, audit, cookie, login, objects, reply, second_factor};
use crate::domain::id;
use crate::domain::people::password::{self, Password};
use crate::domain::people::permissions::SETS;
use crate::domain::people::roles::{self, Grant, Role, RoleError};
use crate::domain::people::settings::{self, Settings};
use crate::domain::people::tokens::{self, PersonalToken, Tokens, TokensError};
use crate::domain::people::users::{self, Change, User, UserError};
use crate::domain::token::Subject;
use crate::model::time::Timestamp;
use crate::work::{Key, Kind, NotLoaded, Work};

/// Whoever has the management token, where a person is named.
const OPERATOR: &str = "management";
/// How long a login may wait for its turn: deriving a key of a password takes half a second of a core.
const TURN: Duration = Duration::from_secs(20);
/// Users of a server: every process has all of them in memory.
const USERS: usize = 10_000;
/// Roles of a server.
const ROLES: usize = 1000;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/useradm/users", "List users")
        .queries(&["id*", "email*", "created_after", "created_before", "updated_after", "updated_before"])
        .gives("[User]"),
    Route::post("/api/management/v1/useradm/users", "Make a user")
        .takes(made::<NewUser>)
        .status(201)
        .fails(&[422]),
    Route::get("/api/management/v1|v2/useradm/users/me", "Who asks").gives("User"),
    Route::put("/api/management/v1|v2/useradm/users/me", "Change who asks")
        .takes(made::<ChangedUser>)
        .fails(&[404, 409, 422]),
    Route::get("/api/management/v1/useradm/users/{user}", "One user").gives("User").fails(&[404]),
    Route::put("/api/management/v1/useradm/users/{user}", "Change a user")
        .takes(made::<ChangedUser>)
        .fails(&[404, 409, 422]),
    Route::delete("/api/management/v1/useradm/users/{user}", "Remove a user").fails(&[422]),
    Route::get("/api/management/v1/useradm/settings/tokens", "List one's personal tokens")
        .gives_made(made::<Vec<PersonalToken>>),
    Route::post("/api/management/v1/useradm/settings/tokens", "Make a personal token")
        .takes(made::<NewToken>)
        .gives_text("application/jwt")
        .fails(&[409, 422]),
    Route::delete("/api/management/v1/useradm/settings/tokens/{token}", "Remove a personal token"),
    Route::get("/api/management/v1/useradm/settings", "The settings of all").gives("map"),
    Route::post("/api/management/v1/useradm/settings", "Replace the settings of all")
        .takes(made::<Settings>)
        .status(201)
        .fails(&[412]),
    Route::get("/api/management/v1/useradm/settings/me", "One's own settings").gives("map"),
    Route::post("/api/management/v1/useradm/settings/me", "Replace one's own settings")
        .takes(made::<Settings>)
        .status(201)
        .fails(&[412]),
    Route::get("/api/management/v1/useradm/plans", "What there is").gives("[Plan]"),
    Route::get("/api/management/v1/useradm/plan_binding", "What there is, and how much").gives("PlanBinding"),
    Route::get("/api/management/v2/useradm/permission_sets", "List sets of permissions")
        .gives("[PermissionSetInfo]"),
    Route::get("/api/management/v2/useradm/roles", "List roles").paged().gives_made(made::<Vec<Role>>),
    Route::post("/api/management/v2/useradm/roles", "Make a role")
        .takes(made::<Role>)
        .status(201)
        .fails(&[409, 422]),
    Route::get("/api/management/v2/useradm/roles/{role}", "One role").gives_made(made::<Role>).fails(&[404]),
    Route::put("/api/management/v2/useradm/roles/{role}", "Change a role")
        .takes(made::<Role>)
        .fails(&[404, 412, 422]),
    Route::delete("/api/management/v2/useradm/roles/{role}", "Remove a role").fails(&[404, 409, 422]),
];

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// The id of the user; for whoever has the management token the word `management`.
    pub(crate) name: String,
    /// What the person logs in with.
    pub(crate) email: String,
    /// The login, by the `jti` of its token; `None` for whoever has the management token, or a personal one.
    pub(crate) login: Option<String>,
    /// The personal token that was used.
    pub(crate) token: Option<String>,
    /// What the person may do; `None` for everything.
    pub(crate) grants: Option<Vec<Grant>>,
}

impl Person {
    fn is_operator(&self) -> bool {
        self.name == OPERATOR
    }

    /// Under which id the server keeps what is the person's.
    fn id(&self) -> String {
        if self.is_operator() { id::uuid_of_name(OPERATOR) } else { self.name.clone() }
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> ApiError {
        match error {
            UserError::NotLoaded => NotLoaded.into(),
            UserError::NotFound => ApiError::not_found(),
            UserError::Duplicate => ApiError::unprocessable("user with a given email already exists"),
            UserError::NoSuchRole(role) => ApiError::unprocessable(&format!("there is no role {role:?}")),
            UserError::Changed => ApiError::conflict("the user has been changed meanwhile"),
            UserError::CodeNeeded => ApiError::second_factor("a second factor is needed"),
            UserError::CodeRefused => {
                ApiError::second_factor("the code of the second factor is not right, or was used")
            }
            UserError::WrongCode => ApiError::unprocessable("the code is not right"),
            UserError::FactorIsOn => ApiError::conflict("the second factor is on already"),
            UserError::NoFactor => ApiError::conflict("there is no second factor to be turned on"),
            UserError::NotInvited => {
                ApiError::forbidden("the link is not the newest one that the server has printed, or was used")
            }
        }
    }
}

impl From<TokensError> for ApiError {
    fn from(error: TokensError) -> ApiError {
        match error {
            TokensError::NotLoaded => NotLoaded.into(),
            TokensError::Duplicate => ApiError::conflict("a token with this name exists"),
            TokensError::TooMany => ApiError::unprocessable("a person has 10 personal tokens at most"),
        }
    }
}

impl From<RoleError> for ApiError {
    fn from(error: RoleError) -> ApiError {
        match error {
            RoleError::NotLoaded => NotLoaded.into(),
            RoleError::NotFound => ApiError::not_found(),
            RoleError::Exists => ApiError::conflict("a role with this name exists"),
            RoleError::Given => {
                ApiError::conflict("the role was given to somebody just now: change that first")
            }
            RoleError::BuiltIn => ApiError::unprocessable("the role is always there, as it is"),
            RoleError::Invalid(reason) => ApiError::unprocessable(reason),
        }
    }
}

/// A user by id: a stored one, or the one that was named when the server was started.
pub(super) enum Account {
    Configured { name: String, password: String },
    Stored(Box<User>),
}

impl Account {
    pub(super) fn find(shared: &Shared, id: &str) -> Option<Account> {
        if let Some((name, password)) = &shared.options.user {
            if id::uuid_of_name(name) == id {
                return Some(Account::Configured { name: name.clone(), password: password.clone() });
            }
        }
        shared.service.catalogue.document::<User>(Kind::User, id).map(|user| Account::Stored(Box::new(user)))
    }

    /// What its tokens and its documents are named by.
    pub(super) fn id(&self) -> String {
        match self {
            Account::Configured { name, .. } => id::uuid_of_name(name),
            Account::Stored(user) => user.id.clone(),
        }
    }

    fn email(&self) -> &str {
        match self {
            Account::Configured { name, .. } => name,
            Account::Stored(user) => &user.email,
        }
    }

    /// What its tokens are bound to.
    pub(super) fn mark(&self, shared: &Shared, purpose: &str) -> String {
        let secrets = &shared.secrets;
        match self {
            Account::Configured { name, password } => {
                secrets.tokens.mark(&format!("{purpose}{name}"), password, &secrets.management_token)
            }
            Account::Stored(user) => {
                let name = format!("{purpose}stored:{}", user.id);
                secrets.tokens.mark(&name, &user.mark(), &secrets.management_token)
            }
        }
    }

    fn grants(&self, shared: &Shared) -> Option<Vec<Grant>> {
        match self {
            Account::Configured { .. } => None,
            Account::Stored(user) => grants_of(shared, &user.roles),
        }
    }
}

/// What the marks of personal tokens begin with; those of logins begin with nothing.
const PERSONAL: &str = "personal\n";

/// The person whose token the request has. A login ends with its token, with a logout, and when it would not be possible
/// any more: with another address, another password, or another management token.
///
/// # Errors
/// The token is in a cookie, and the request may be another page's.
pub(super) fn caller(shared: &Shared, call: &Call) -> Result<Caller, ApiError> {
    Ok(token(shared, call)?.map_or(Caller::Stranger, |token| of_token(shared, token)))
}

/// The token of a person's request.
///
/// # Errors
/// It is in a cookie, and the request may be another page's.
pub(super) fn token<'a>(shared: &Shared, call: &'a Call) -> Result<Option<&'a str>, ApiError> {
    match call.bearer() {
        Some(token) => Ok(Some(token)),
        None => cookie::token(shared, call),
    }
}

fn of_token(shared: &Shared, token: &str) -> Caller {
    let secrets = &shared.secrets;
    if same(token, &secrets.management_token) {
        return Caller::Person(Person {
            name: OPERATOR.to_owned(),
            email: OPERATOR.to_owned(),
            login: None,
            token: None,
            grants: None,
        });
    }
    let Ok(claims) = secrets.tokens.verify(token, Timestamp::now()) else { return Caller::Stranger };
    let account = Account::find(shared, &claims.sub).filter(|_| claims.user);
    let Some(account) = account else { return Caller::Stranger };
    let person = |login, token| {
        Caller::Person(Person {
            name: claims.sub.clone(),
            email: account.email().to_owned(),
            login,
            token,
            grants: account.grants(shared),
        })
    };
    if account.mark(shared, "") == claims.login {
        return person(Some(claims.jti.clone()), None);
    }
    let of_person =
        || shared.service.catalogue.document::<Tokens>(Kind::Token, &claims.sub).unwrap_or_default();
    if account.mark(shared, PERSONAL) == claims.login && of_person().iter().any(|one| one.id == claims.jti) {
        return person(None, Some(claims.jti.clone()));
    }
    Caller::Stranger
}

/// The person whose token it is now.
///
/// # Errors
/// 401, or the store could not be read.
pub(super) async fn check(shared: &Shared, token: Option<&str>) -> Result<Person, ApiError> {
    let refused = || ApiError::unauthorized("unauthorized");
    let Some(Caller::Person(person)) = token.map(|token| of_token(shared, token)) else {
        return Err(refused());
    };
    match &person.login {
        Some(session) if !login::goes_on(shared, &person.name, session).await? => Err(refused()),
        Some(_) | None => Ok(person),
    }
}

/// Stores that a login or a personal token was used, now and then. What cannot be stored is stored with a later use, and keeps
/// nobody from looking at a server whose disk is full.
pub(super) async fn note_use(shared: &Shared, person: &Person) {
    let noted = match (&person.login, &person.token) {
        (Some(login), _) => login::used(shared, &person.name, login).await,
        (None, Some(token)) => token_used(shared, &person.name, token).await,
        (None, None) => Ok(()),
    };
    if let Err(error) = noted {
        log::debug!("the use of a login was not stored: {}", error.message);
    }
}

async fn token_used(shared: &Shared, user: &str, token: &str) -> Result<(), ApiError> {
    let now = shared.service.now();
    let stored = shared.service.catalogue.document::<Tokens>(Kind::Token, user).unwrap_or_default();
    let is_old =
        |one: &PersonalToken| one.last_used.is_none_or(|used| used.plus_seconds(tokens::USE_SECONDS) <= now);
    if !stored.iter().any(|one| one.id == token && is_old(one)) {
        return Ok(());
    }
    let (user, token) = (user.to_owned(), token.to_owned());
    let keys = vec![Key::Document(Kind::Token, user.clone())];
    shared.change_unnoted(keys, move |work: &mut Work| tokens::used(work, &user, &token)).await
}

/// Does what takes long with a password, not more often at once than there are places.
pub(super) async fn derive<T: Send + 'static>(
    shared: &Shared,
    derive: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let busy = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many people log in");
    let turn = tokio::time::timeout(TURN, shared.deriving.acquire()).await;
    let _place = turn.map_err(|_| busy())?.map_err(|_| busy())?;
    tokio::task::spawn_blocking(derive).await.map_err(|_| ApiError::internal("a password was not looked at"))
}

/// The stored user who has an address.
pub(super) fn by_email(shared: &Shared, email: &str) -> Option<User> {
    let email = users::email(email)?;
    let catalogue = &shared.service.catalogue;
    let id: String = catalogue.document(Kind::User, &users::owner_key(&email))?;
    catalogue.document(Kind::User, &id)
}

/// Everything below `useradm` but the login.
pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    person: &Person,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match (version, rest, &call.method) {
        ("v1", ["auth", "logout"], _) => login::logout(shared, person).await,
        ("v1", ["users"], &Method::GET) => list(shared, call),
        ("v1", ["users"], &Method::POST) => create(shared, call, person).await,
        ("v1" | "v2", ["users", "me"], &Method::GET) => me(shared, person),
        ("v1" | "v2", ["users", "me"], &Method::PUT) => {
            update(shared, call, person, &person.id(), true).await
        }
        ("v1", ["users", id], &Method::GET) => match Account::find(shared, id) {
            Some(account) => Ok(reply::json(StatusCode::OK, &describe(&account))),
            None => Err(ApiError::not_found()),
        },
        ("v1", ["users", id], &Method::PUT) => update(shared, call, person, id, false).await,
        ("v1", ["users", id], &Method::DELETE) => remove(shared, person, id).await,
        ("v1", ["users", id, "2fa"], &Method::DELETE) => second_factor::recover(shared, person, id).await,
        ("v1", ["settings", "me", "2fa"], method) => second_factor::of_me(shared, call, person, method).await,
        ("v1", ["settings", "tokens"], &Method::GET) => list_tokens(shared, person),
        ("v1", ["settings", "tokens"], &Method::POST) => create_token(shared, call, person).await,
        ("v1", ["settings", "tokens", id], &Method::DELETE) => remove_token(shared, person, id).await,
        ("v1", ["settings", "sessions"], &Method::GET) => login::list(shared, person),
        ("v1", ["settings", "sessions", id], &Method::DELETE) => login::remove(shared, person, id).await,
        ("v1", ["settings"], method) => of_settings(shared, call, settings::GLOBAL, method).await,
        ("v1", ["settings", "me"], method) => of_settings(shared, call, &person.id(), method).await,
        ("v1", ["plans"], &Method::GET) => Ok(reply::json(StatusCode::OK, &[plan()])),
        ("v1", ["plan_binding"], &Method::GET) => {
            let limits = json!({ "devices": shared.options.max_devices, "users": USERS });
            Ok(reply::json(StatusCode::OK, &json!({ "plan": plan(), "limits": limits })))
        }
        ("v2", ["permission_sets"], &Method::GET) => Ok(reply::json(StatusCode::OK, &SETS)),
        ("v2", ["roles", rest @ ..], method) => of_roles(shared, call, person, rest, method).await,
        _ => Err(ApiError::no_route()),
    }
}

fn plan() -> Value {
    json!({
        "name": "os",
        "display_name": "Open Source",
        "features": {
            "rbac": true, "audit_logs": true, "dynamic_groups": true, "terminal": true, "file_transfer": true,
            "configuration": true, "monitoring": true, "reporting": false,
        },
    })
}

fn describe(account: &Account) -> Value {
    match account {
        Account::Configured { name, .. } => {
            json!({ "id": id::uuid_of_name(name), "email": name, "roles": [] })
        }
        Account::Stored(user) => {
            let mut shown = json!({
                "id": user.id, "email": user.email, "created_ts": user.created, "updated_ts": user.updated,
                "roles": user.roles,
            });
            if let Some(login) = user.login {
                shown["login_ts"] = json!(login);
            }
            if user.needs_code() {
                shown["second_factor"] = json!(true);
            }
            shown
        }
    }
}

fn me(shared: &Shared, person: &Person) -> Result<Reply, ApiError> {
    let mut shown = match Account::find(shared, &person.name) {
        Some(account) => describe(&account),
        None => json!({ "id": person.id(), "email": person.email, "roles": [] }),
    };
    // Who may not see roles has to know what one's own allow.
    if let Some(grants) = &person.grants {
        shown["rust_ota"] = json!({ "permission_sets_with_scope": grants });
    }
    Ok(reply::json(StatusCode::OK, &shown))
}

fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let (ids, emails) = (call.queries("id"), call.queries("email"));
    let time = |name: &str| match call.query(name) {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(|seconds: u64| Some(Timestamp(seconds.saturating_mul(1000))))
            .map_err(|_| ApiError::bad_request(&format!("{name}: not a number of seconds"))),
    };
    let created = (time("created_after")?, time("created_before")?);
    let updated = (time("updated_after")?, time("updated_before")?);
    let within = |at: Timestamp, (after, before): (Option<Timestamp>, Option<Timestamp>)| {
        after.is_none_or(|after| at >= after) && before.is_none_or(|before| at <= before)
    };
    let is_wanted = |id: &str, email: &str| {
        (ids.is_empty() || ids.iter().any(|one| one == id))
            && (emails.is_empty() || emails.iter().any(|one| one.eq_ignore_ascii_case(email)))
    };
    let has_times = [created.0, created.1, updated.0, updated.1].iter().any(Option::is_some);
    let configured = shared
        .options
        .user
        .as_ref()
        .filter(|(name, _)| !has_times && is_wanted(&id::uuid_of_name(name), name));
    let mut shown: Vec<Value> = configured
        .map(|(name, password)| Account::Configured { name: name.clone(), password: password.clone() })
        .iter()
        .map(describe)
        .collect();
    let stored = shared.service.catalogue.documents::<User>(Kind::User).into_iter().map(|(_, user)| user);
    let stored = stored.filter(|user| {
        is_wanted(&user.id, &user.email) && within(user.created, created) && within(user.updated, updated)
    });
    shown.extend(stored.map(|user| describe(&Account::Stored(Box::new(user)))));
    Ok(reply::json(StatusCode::OK, &shown))
}

#[derive(Deserialize, JsonSchema)]
struct NewUser {
    email: String,
    password: String,
    #[serde(default)]
    roles: Vec<String>,
}

fn email(text: &str) -> Result<String, ApiError> {
    users::email(text).ok_or_else(|| ApiError::bad_request("email: must be a valid email address"))
}

/// Nobody gives what they do not have, and nobody manages people who may more.
pub(super) fn check_given(shared: &Shared, person: &Person, roles: &[String]) -> Result<(), ApiError> {
    check_grants(person, grants_of(shared, roles).as_deref())
}

/// What roles allow together.
fn grants_of(shared: &Shared, roles: &[String]) -> Option<Vec<Grant>> {
    roles::grants_of(roles, |name| shared.service.catalogue.document(Kind::Role, name))
}

/// The one rule for what somebody gives, changes and takes away. `None` is everything.
fn check_grants(person: &Person, grants: Option<&[Grant]>) -> Result<(), ApiError> {
    match roles::covers(person.grants.as_deref(), grants) {
        true => Ok(()),
        false => Err(ApiError::forbidden("this is about rights that you do not have yourself")),
    }
}

async fn create(shared: &Shared, call: &Call, person: &Person) -> Result<Reply, ApiError> {
    let sent: NewUser = call.json()?;
    check_given(shared, person, &sent.roles)?;
    let user = new_user(shared, &sent.email, sent.password, sent.roles).await?;
    let id = user.id.clone();
    audit::about(&id);
    let keys =
        vec![Key::Document(Kind::User, id.clone()), Key::Document(Kind::User, users::owner_key(&user.email))];
    shared.change(keys, move |work| users::create(work, &user)).await?;
    Ok(reply::created(&format!("/api/management/v1/useradm/users/{id}")))
}

/// A user who is not stored yet.
pub(super) async fn new_user(
    shared: &Shared,
    address: &str,
    password: String,
    roles: Vec<String>,
) -> Result<User, ApiError> {
    let email = email(address)?;
    password::check(&password, &email).map_err(ApiError::unprocessable)?;
    let configured = shared.options.user.as_ref();
    if configured.is_some_and(|(name, _)| name.eq_ignore_ascii_case(&email)) {
        return Err(UserError::Duplicate.into());
    }
    if shared.service.catalogue.documents::<User>(Kind::User).len() >= USERS {
        return Err(ApiError::unprocessable("there are too many users"));
    }
    let password = derive(shared, move || Password::new(&password)).await??;
    let (id, now) = (id::uuid()?, shared.service.now());
    Ok(User {
        id,
        email,
        password,
        created: now,
        updated: now,
        login: None,
        roles,
        serial: 0,
        second_factor: None,
    })
}

#[derive(Deserialize, JsonSchema)]
struct ChangedUser {
    email: Option<String>,
    password: Option<String>,
    current_password: Option<String>,
    roles: Option<Vec<String>>,
}

async fn update(
    shared: &Shared,
    call: &Call,
    person: &Person,
    id: &str,
    is_me: bool,
) -> Result<Reply, ApiError> {
    let sent: ChangedUser = call.json()?;
    let user = match Account::find(shared, id) {
        Some(Account::Stored(user)) => user,
        Some(Account::Configured { .. }) => {
            return Err(ApiError::unprocessable("this user is named where the server is started"));
        }
        None if is_me => return Err(ApiError::unprocessable("the management token is no user")),
        None => return Err(ApiError::not_found()),
    };
    let is_own = user.id == person.name;
    let email = sent.email.as_deref().map(email).transpose()?.filter(|email| *email != user.email);
    if let Some(password) = &sent.password {
        let address = email.as_ref().unwrap_or(&user.email);
        password::check(password, address).map_err(ApiError::unprocessable)?;
        if !is_own && !person.is_operator() {
            return Err(ApiError::unprocessable("the password of another user cannot be changed"));
        }
    }
    let configured = shared.options.user.as_ref();
    if let (Some((name, _)), Some(email)) = (configured, &email) {
        if name.eq_ignore_ascii_case(email) {
            return Err(UserError::Duplicate.into());
        }
    }
    if let Some(roles) = sent.roles.as_ref().filter(|roles| **roles != user.roles) {
        if is_own && !roles::covers(person.grants.as_deref(), None) {
            return Err(ApiError::forbidden("nobody can change their own roles"));
        }
        check_given(shared, person, roles)?;
    }
    // Whoever manages people could become somebody who may more.
    if !is_own && (email.is_some() || sent.roles.is_some()) {
        check_given(shared, person, &user.roles)?;
    }
    let mut seen = None;
    if is_own && (email.is_some() || sent.password.is_some()) {
        let current = sent.current_password;
        let current = current.ok_or_else(|| ApiError::unprocessable("current password mismatch"))?;
        login::confirm(shared, &user, current).await?;
        seen = Some(user.mark());
    }
    let password = match sent.password {
        Some(text) => Some(derive(shared, move || Password::new(&text)).await??),
        None => None,
    };
    let mut keys = vec![Key::Document(Kind::User, user.id.clone())];
    for email in email.iter().chain([&user.email]) {
        keys.push(Key::Document(Kind::User, users::owner_key(email)));
    }
    let change = Change { email, password, roles: sent.roles, seen };
    let id = user.id;
    shared.change(keys, move |work| users::update(work, &id, &change)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn remove(shared: &Shared, person: &Person, id: &str) -> Result<Reply, ApiError> {
    match Account::find(shared, id) {
        Some(Account::Configured { .. }) => {
            return Err(ApiError::unprocessable("this user is named where the server is started"));
        }
        // Nor is a right taken away by who does not have it.
        Some(Account::Stored(user)) => check_given(shared, person, &user.roles)?,
        None => {}
    }
    let (id, key) = (id.to_owned(), Key::Document(Kind::User, id.to_owned()));
    shared.change(vec![key], move |work| users::remove(work, &id)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn of_settings(shared: &Shared, call: &Call, whose: &str, method: &Method) -> Result<Reply, ApiError> {
    match *method {
        Method::GET => {
            let stored =
                shared.service.catalogue.document::<Settings>(Kind::Settings, whose).unwrap_or_default();
            Ok(tagged(reply::json(StatusCode::OK, &stored), &stored))
        }
        Method::POST => {
            if call.body.len() > settings::SETTINGS_BYTES {
                return Err(ApiError::bad_request("the settings are larger than 64 KiB"));
            }
            let sent: Settings = call.json()?;
            let seen = Seen::of(call);
            let (whose, keys) = (whose.to_owned(), vec![Key::Document(Kind::Settings, whose.to_owned())]);
            let rule = move |work: &mut Work| {
                let now = work.document::<Settings>(Kind::Settings, &whose)?.unwrap_or_default();
                seen.is(&now)?;
                Ok::<_, ApiError>(work.put_document(Kind::Settings, &whose, Some(&sent))?)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::CREATED))
        }
        _ => Err(ApiError::no_route()),
    }
}

fn list_tokens(shared: &Shared, person: &Person) -> Result<Reply, ApiError> {
    let stored = shared.service.catalogue.document::<Tokens>(Kind::Token, &person.id()).unwrap_or_default();
    let now = shared.service.now();
    let valid: Vec<&PersonalToken> = stored.iter().filter(|token| token.expires > now).collect();
    Ok(reply::json(StatusCode::OK, &valid))
}

#[derive(Deserialize, JsonSchema)]
struct NewToken {
    name: String,
    #[serde(default)]
    expires_in: u64,
}

async fn create_token(shared: &Shared, call: &Call, person: &Person) -> Result<Reply, ApiError> {
    let sent: NewToken = call.json()?;
    if sent.name.is_empty() || sent.name.chars().count() > 256 {
        return Err(ApiError::bad_request("the name is empty or too long"));
    }
    if sent.expires_in > tokens::MOST_SECONDS {
        return Err(ApiError::bad_request("a token is valid for a year at most"));
    }
    if person.token.is_some() {
        return Err(ApiError::forbidden("a personal token cannot make another one"));
    }
    let account = Account::find(shared, &person.name)
        .ok_or_else(|| ApiError::unprocessable("the management token is no user"))?;
    let seconds = if sent.expires_in == 0 { tokens::MOST_SECONDS } else { sent.expires_in };
    let (id, now) = (id::uuid()?, shared.service.now());
    let token = PersonalToken {
        id: id.clone(),
        name: sent.name,
        last_used: None,
        expires: now.plus_seconds(seconds),
        created: now,
    };
    audit::about(&id);
    let user = person.name.clone();
    let keys = vec![Key::Document(Kind::Token, user.clone())];
    shared.change(keys, move |work| tokens::create(work, &user, &token)).await?;
    let mark = account.mark(shared, PERSONAL);
    let subject = Subject::User { id: &id, name: &person.name, login: &mark };
    let token = shared.secrets.tokens.issue(subject, now, seconds);
    Ok(reply::bytes(StatusCode::OK, "application/jwt", token))
}

async fn remove_token(shared: &Shared, person: &Person, id: &str) -> Result<Reply, ApiError> {
    let (user, id) = (person.id(), id.to_owned());
    let keys = vec![Key::Document(Kind::Token, user.clone())];
    shared.change::<(), NotLoaded>(keys, move |work| tokens::remove(work, &user, &id)).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn of_roles(
    shared: &Shared,
    call: &Call,
    person: &Person,
    rest: &[&str],
    method: &Method,
) -> Result<Reply, ApiError> {
    let catalogue = &shared.service.catalogue;
    let name = rest.first().map(|name| super::call::decode(name));
    match (rest, method) {
        ([], &Method::GET) => {
            let mut all = roles::built_in();
            all.extend(catalogue.documents::<Role>(Kind::Role).into_iter().map(|(_, role)| role));
            Page::of(call).map(|page| page.list(call, &all, Clone::clone))
        }
        ([], &Method::POST) => {
            let role: Role = call.json()?;
            check_role(person, &role)?;
            if catalogue.documents::<Role>(Kind::Role).len() >= ROLES {
                return Err(ApiError::unprocessable("there are too many roles"));
            }
            audit::about(&role.name);
            let keys = vec![Key::Document(Kind::Role, role.name.clone())];
            let location = format!("/api/management/v2/useradm/roles/{}", role.name);
            shared.change(keys, move |work| roles::create(work, &role)).await?;
            Ok(reply::created(&location))
        }
        ([_], &Method::GET) => {
            let name = name.unwrap_or_default();
            let found = roles::built_in().into_iter().find(|role| role.name == name);
            let found = found.or_else(|| catalogue.document(Kind::Role, &name));
            let found = found.ok_or_else(ApiError::not_found)?;
            Ok(tagged(reply::json(StatusCode::OK, &found), &found))
        }
        ([_], &Method::PUT) => {
            let mut sent: Value = call.json()?;
            if let Some(sent) = sent.as_object_mut() {
                sent.insert("name".to_owned(), json!(name));
            }
            let role: Role = objects::from_value(sent)
                .map_err(|error| ApiError::bad_request(&format!("the body is not as expected: {error}")))?;
            check_role(person, &role)?;
            if let Some(known) = catalogue.document::<Role>(Kind::Role, &role.name) {
                check_role(person, &known)?;
            }
            let keys = vec![Key::Document(Kind::Role, role.name.clone())];
            let seen = Seen::of(call);
            let rule = move |work: &mut Work| {
                if let Some(known) = work.document::<Role>(Kind::Role, &role.name)? {
                    seen.is(&known)?;
                }
                Ok::<_, ApiError>(roles::replace(work, &role)?)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([_], &Method::DELETE) => {
            let name = name.unwrap_or_default();
            if let Some(known) = catalogue.document::<Role>(Kind::Role, &name) {
                check_role(person, &known)?;
            }
            // Another role of that name would be theirs at once.
            let users = catalogue.documents::<User>(Kind::User);
            let holders = users.iter().filter(|(_, user)| user.roles.contains(&name)).count();
            if holders > 0 {
                return Err(ApiError::conflict(&format!(
                    "the role is one of {holders} users: change those first"
                )));
            }
            let keys = vec![Key::Document(Kind::Role, name.clone())];
            shared.change(keys, move |work| roles::remove(work, &name)).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// Somebody who manages people could have the role already.
fn check_role(person: &Person, role: &Role) -> Result<(), ApiError> {
    check_grants(person, Some(&role.grants))
}

/// Compares secrets by their digests, so that the time it takes says nothing about them.
pub(super) fn same(sent: &str, secret: &str) -> bool {
    id::sha256_hex(sent.as_bytes()) == id::sha256_hex(secret.as_bytes())
}
