//! Users. One document has the user, a second one says whose an e-mail address is, so that no two have the same.

use serde::{Deserialize, Serialize};

use super::password::Password;
use super::second_factor::SecondFactor;
use super::sessions;
use crate::domain::id;
use crate::model::time::Timestamp;
use crate::work::{Kind, NotLoaded, Work};

/// Bytes of the longest address (RFC 5321).
const EMAIL_BYTES: usize = 254;
/// Roles of one person.
const ROLES: usize = 50;
/// The name of the secret that says, as a digest, what makes the first user. It is there only while there is no user.
pub(crate) const FIRST: &str = "first-user";

/// A person who may log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// UUID.
    pub(crate) id: String,
    /// In small letters.
    pub(crate) email: String,
    /// What opens it.
    pub(crate) password: Password,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// When it was changed last.
    pub(crate) updated: Timestamp,
    /// When the person logged in last.
    #[serde(default)]
    pub(crate) login: Option<Timestamp>,
    /// What the person may do; everything without any.
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Raised when everything that was given out before is to end.
    #[serde(default)]
    pub(crate) serial: u64,
    /// What a login needs besides, when it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) second_factor: Option<SecondFactor>,
}

impl User {
    /// What tokens are bound to: another address or password is another one.
    pub(crate) fn mark(&self) -> String {
        format!("{}/{}", self.serial, self.password.mark())
    }

    /// Whether a login needs a code.
    pub(crate) fn needs_code(&self) -> bool {
        self.second_factor.as_ref().is_some_and(|factor| factor.is_on)
    }
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserError {
    /// To be run again.
    NotLoaded,
    /// Nobody has this id.
    NotFound,
    /// Somebody has the address.
    Duplicate,
    /// A role that there is not.
    NoSuchRole(String),
    /// It was changed since it was read.
    Changed,
    /// That token makes no first user, or not any more.
    NotInvited,
    /// The login needs a code.
    CodeNeeded,
    /// The code of the login is none, or was used.
    CodeRefused,
    /// The second factor is not turned on with this code.
    WrongCode,
    /// The second factor is on already.
    FactorIsOn,
    /// There is no second factor to be turned on.
    NoFactor,
}

impl From<NotLoaded> for UserError {
    fn from(_: NotLoaded) -> UserError {
        UserError::NotLoaded
    }
}

/// The one way to write an address; `None` for what is none.
pub(crate) fn email(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let is_fine = !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && text.len() <= EMAIL_BYTES
        // A colon would end the name at a login.
        && text.chars().all(|letter| letter.is_ascii_graphic() && !"\"<>(),;:\\".contains(letter));
    is_fine.then(|| text.to_ascii_lowercase())
}

/// Where it says whose an address is.
pub(crate) fn owner_key(email: &str) -> String {
    format!("email-{}", id::sha256_hex(email.as_bytes()))
}

/// Makes a user. The address is written as [`email`] gives it.
pub(crate) fn create(work: &mut Work, user: &User) -> Result<(), UserError> {
    take_roles(work, &user.id, &user.roles)?;
    let owner = owner_key(&user.email);
    if work.document::<String>(Kind::User, &owner)?.is_some() {
        return Err(UserError::Duplicate);
    }
    work.document::<User>(Kind::User, &user.id)?;
    if work.document::<String>(Kind::Secret, FIRST)?.is_some() {
        // Nobody after this one is the first.
        work.put_document::<String>(Kind::Secret, FIRST, None)?;
    }
    work.put_document(Kind::User, &owner, Some(&user.id))?;
    work.put_document(Kind::User, &user.id, Some(user))?;
    Ok(())
}

/// Lets whoever has this token make the first user, and nobody who has another one.
pub(crate) fn invite(work: &mut Work, token: &str) -> Result<(), NotLoaded> {
    work.document::<String>(Kind::Secret, FIRST)?;
    work.put_document(Kind::Secret, FIRST, Some(&id::sha256_hex(token.as_bytes())))
}

/// Makes the first user, with the token of an invitation, which is used up.
pub(crate) fn create_first(work: &mut Work, user: &User, token: &str) -> Result<(), UserError> {
    let invited = work.document::<String>(Kind::Secret, FIRST)?;
    match invited.is_some_and(|invited| is_invited(&invited, token)) {
        true => create(work, user),
        false => Err(UserError::NotInvited),
    }
}

/// Whether a token is the one of which `invited` is the digest.
pub(crate) fn is_invited(invited: &str, token: &str) -> bool {
    id::sha256_hex(token.as_bytes()) == invited
}

/// What is to be another one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// The address, as [`email`] gives it.
    pub(crate) email: Option<String>,
    /// The password.
    pub(crate) password: Option<Password>,
    /// The roles.
    pub(crate) roles: Option<Vec<String>>,
    /// The mark of the user whose password was checked before: checking takes too long for a transaction.
    pub(crate) seen: Option<String>,
}

/// Changes a user. Another address or another password ends every token of the user.
pub(crate) fn update(work: &mut Work, user: &str, change: &Change) -> Result<(), UserError> {
    let mut stored = work.document::<User>(Kind::User, user)?.ok_or(UserError::NotFound)?;
    if change.seen.as_ref().is_some_and(|seen| *seen != stored.mark()) {
        return Err(UserError::Changed);
    }
    let serial = stored.serial;
    if let Some(roles) = &change.roles {
        take_roles(work, user, roles)?;
        stored.roles.clone_from(roles);
    }
    if let Some(email) = change.email.as_ref().filter(|email| **email != stored.email) {
        let (before, owner) = (owner_key(&stored.email), owner_key(email));
        work.document::<String>(Kind::User, &before)?;
        if work.document::<String>(Kind::User, &owner)?.is_some() {
            return Err(UserError::Duplicate);
        }
        work.put_document::<String>(Kind::User, &before, None)?;
        work.put_document(Kind::User, &owner, Some(&stored.id))?;
        stored.email.clone_from(email);
        stored.serial += 1;
    }
    if let Some(password) = &change.password {
        stored.password = password.clone();
        stored.serial += 1;
    }
    if stored.serial != serial {
        // What they have opens nothing any more. Of a personal token the name and the place would be taken still.
        sessions::end_all(work, user)?;
        work.document::<serde_json::Value>(Kind::Token, user)?;
        work.put_document::<()>(Kind::Token, user, None)?;
    }
    stored.updated = work.now();
    work.put_document(Kind::User, user, Some(&stored))?;
    Ok(())
}

/// Takes a user away, with settings, tokens and logins. It is no error when there is none.
pub(crate) fn remove(work: &mut Work, user: &str) -> Result<(), UserError> {
    let Some(stored) = work.document::<User>(Kind::User, user)? else { return Ok(()) };
    let owner = owner_key(&stored.email);
    work.document::<String>(Kind::User, &owner)?;
    work.put_document::<String>(Kind::User, &owner, None)?;
    work.put_document::<User>(Kind::User, user, None)?;
    for kind in [Kind::Settings, Kind::Token, Kind::Session] {
        work.document::<serde_json::Value>(kind, user)?;
        work.put_document::<()>(kind, user, None)?;
    }
    Ok(())
}

/// Says that somebody logs in, whose password was right. A code is looked at here, so that no two logins have the same one.
pub(crate) fn logged_in(work: &mut Work, user: &str, code: Option<&str>) -> Result<(), UserError> {
    let now = work.now();
    let mut stored = work.document::<User>(Kind::User, user)?.ok_or(UserError::Changed)?;
    if let Some(factor) = stored.second_factor.as_mut().filter(|factor| factor.is_on) {
        let code = code.ok_or(UserError::CodeNeeded)?;
        if !factor.take(code, now) {
            return Err(UserError::CodeRefused);
        }
    }
    stored.login = Some(now);
    work.put_document(Kind::User, user, Some(&stored))?;
    Ok(())
}

/// Gives a user a second factor, which is off. One that is on stays.
pub(crate) fn offer_factor(work: &mut Work, user: &str, factor: &SecondFactor) -> Result<(), UserError> {
    let mut stored = work.document::<User>(Kind::User, user)?.ok_or(UserError::NotFound)?;
    if stored.needs_code() {
        return Err(UserError::FactorIsOn);
    }
    stored.second_factor = Some(factor.clone());
    work.put_document(Kind::User, user, Some(&stored))?;
    Ok(())
}

/// Turns the second factor on, for whoever has shown to have it. `seen` is the mark of the user whose password was checked
/// before.
pub(crate) fn turn_factor_on(work: &mut Work, user: &str, code: &str, seen: &str) -> Result<(), UserError> {
    let now = work.now();
    let mut stored = work.document::<User>(Kind::User, user)?.ok_or(UserError::NotFound)?;
    if seen != stored.mark() {
        return Err(UserError::Changed);
    }
    let factor = stored.second_factor.as_mut().ok_or(UserError::NoFactor)?;
    if factor.is_on {
        return Err(UserError::FactorIsOn);
    }
    if !factor.take(code, now) {
        return Err(UserError::WrongCode);
    }
    factor.is_on = true;
    work.put_document(Kind::User, user, Some(&stored))?;
    Ok(())
}

/// Takes the second factor away. `seen` is the mark of the user whose password was checked before.
pub(crate) fn turn_factor_off(work: &mut Work, user: &str, seen: Option<&str>) -> Result<(), UserError> {
    let mut stored = work.document::<User>(Kind::User, user)?.ok_or(UserError::NotFound)?;
    if seen.is_some_and(|seen| seen != stored.mark()) {
        return Err(UserError::Changed);
    }
    stored.second_factor = None;
    work.put_document(Kind::User, user, Some(&stored))?;
    Ok(())
}

/// Gives a user roles, if there are such.
fn take_roles(work: &mut Work, user: &str, roles: &[String]) -> Result<(), UserError> {
    for role in roles.iter().take(ROLES + 1) {
        if super::roles::is_built_in(role) {
            continue;
        }
        if work.document::<super::roles::Role>(Kind::Role, role)?.is_none() {
            return Err(UserError::NoSuchRole(role.clone()));
        }
        super::roles::give(work, role, user)?;
    }
    match roles.get(ROLES) {
        None => Ok(()),
        Some(role) => Err(UserError::NoSuchRole(role.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokens;
    use super::*;
    use crate::work::{Key, testing};

    fn user(id: &str, email: &str) -> User {
        User {
            id: id.to_owned(),
            email: email.to_owned(),
            password: Password::of_nobody(),
            created: Timestamp(1),
            updated: Timestamp(1),
            login: None,
            roles: Vec::new(),
            serial: 0,
            second_factor: None,
        }
    }

    /// Runs a rule as a store does, with nothing in it but what the rules before have written.
    fn run<T>(work: &mut Work, rule: impl FnMut(&mut Work) -> Result<T, UserError>) -> Result<T, UserError> {
        testing::run(work, |key| matches!(key, Key::Document(..)), rule)
    }

    #[test]
    fn two_users_never_have_one_address() {
        let mut work = Work::new(Timestamp(5));
        assert_eq!(run(&mut work, |work| create(work, &user("1", "a@x"))), Ok(()));
        assert_eq!(run(&mut work, |work| create(work, &user("2", "a@x"))), Err(UserError::Duplicate));
        assert_eq!(run(&mut work, |work| create(work, &user("2", "b@x"))), Ok(()));
        let to = |email: &str| Change { email: Some(email.to_owned()), ..Change::default() };
        assert_eq!(run(&mut work, |work| update(work, "2", &to("a@x"))), Err(UserError::Duplicate));
        assert_eq!(run(&mut work, |work| update(work, "2", &to("c@x"))), Ok(()));
        // What was given up is free.
        assert_eq!(run(&mut work, |work| create(work, &user("3", "b@x"))), Ok(()));
        assert_eq!(run(&mut work, |work| remove(work, "1")), Ok(()));
        assert_eq!(run(&mut work, |work| create(work, &user("4", "a@x"))), Ok(()));
        assert_eq!(run(&mut work, |work| update(work, "1", &to("d@x"))), Err(UserError::NotFound));
    }

    #[test]
    fn a_role_that_somebody_has_just_got_is_not_taken_away() {
        use super::super::roles::{self, Role, RoleError};
        let mut work = Work::new(Timestamp(5));
        let is_known = |key: &Key| matches!(key, Key::Document(..));
        let role = Role { name: "r".to_owned(), description: String::new(), grants: Vec::new() };
        testing::run(&mut work, is_known, |work| roles::create(work, &role)).unwrap();
        let holder = User { roles: vec!["r".to_owned()], ..user("1", "a@x") };
        run(&mut work, |work| create(work, &holder)).unwrap();
        let taken_away = |work: &mut Work| testing::run(work, is_known, |work| roles::remove(work, "r"));
        assert_eq!(taken_away(&mut work), Err(RoleError::Given));
        let to = |roles: &[&str]| Change {
            roles: Some(roles.iter().map(|role| (*role).to_owned()).collect()),
            ..Change::default()
        };
        run(&mut work, |work| update(work, "1", &to(&[]))).unwrap();
        run(&mut work, |work| update(work, "1", &to(&["r"]))).unwrap();
        assert_eq!(taken_away(&mut work), Err(RoleError::Given));
        run(&mut work, |work| remove(work, "1")).unwrap();
        assert_eq!(taken_away(&mut work), Ok(()));
        assert_eq!(run(&mut work, |work| create(work, &holder)), Err(UserError::NoSuchRole("r".to_owned())));
    }

    #[test]
    fn another_address_or_password_is_another_mark_and_other_roles_are_not() {
        let mut work = Work::new(Timestamp(5));
        run(&mut work, |work| create(work, &user("1", "a@x"))).unwrap();
        let mark = |work: &mut Work| {
            run(work, |work| Ok(work.document::<User>(Kind::User, "1")?.unwrap())).unwrap().mark()
        };
        let first = mark(&mut work);
        let roles = Change { roles: Some(vec!["RBAC_ROLE_CI".to_owned()]), ..Change::default() };
        run(&mut work, |work| update(work, "1", &roles)).unwrap();
        assert_eq!(mark(&mut work), first);
        let email = Change { email: Some("b@x".to_owned()), ..Change::default() };
        run(&mut work, |work| update(work, "1", &email)).unwrap();
        assert_ne!(mark(&mut work), first);
        // What was had before opens nothing any more, and its name is free.
        let token = || tokens::PersonalToken {
            id: "t".to_owned(),
            name: "ci".to_owned(),
            last_used: None,
            expires: Timestamp(1_000_000),
            created: Timestamp(1),
        };
        let make = |work: &mut Work| {
            let asks = |key: &Key| matches!(key, Key::Document(..));
            testing::run(work, asks, |work| tokens::create(work, "1", &token())).is_ok()
        };
        let changed = Change { password: Some(Password::of_nobody()), ..Change::default() };
        assert!(make(&mut work) && !make(&mut work));
        run(&mut work, |work| update(work, "1", &roles)).unwrap();
        assert!(!make(&mut work), "the token is still one");
        run(&mut work, |work| update(work, "1", &changed)).unwrap();
        let left: Option<tokens::Tokens> = work.document(Kind::Token, "1").unwrap();
        assert_eq!(left, None);
        assert!(make(&mut work));
        let stale = Change { password: Some(Password::of_nobody()), seen: Some(first), ..Change::default() };
        assert_eq!(run(&mut work, |work| update(work, "1", &stale)), Err(UserError::Changed));
        let unknown = Change { roles: Some(vec!["x".to_owned()]), ..Change::default() };
        let refused = run(&mut work, |work| update(work, "1", &unknown));
        assert_eq!(refused, Err(UserError::NoSuchRole("x".to_owned())));
    }

    #[test]
    fn one_user_is_the_first_and_the_newest_invitation_is_the_one_that_counts() {
        let mut work = Work::new(Timestamp(5));
        let first =
            |work: &mut Work, token: &str| run(work, |work| create_first(work, &user("1", "a@x"), token));
        let invite = |work: &mut Work, token: &str| {
            run(work, |work| Ok(invite(work, token)?)).unwrap();
        };
        assert_eq!(first(&mut work, ""), Err(UserError::NotInvited), "nobody was invited");
        invite(&mut work, "old");
        invite(&mut work, "new");
        for token in ["", "old", "newer"] {
            assert_eq!(first(&mut work, token), Err(UserError::NotInvited), "{token}");
        }
        assert_eq!(first(&mut work, "new"), Ok(()));
        assert_eq!(first(&mut work, "new"), Err(UserError::NotInvited), "it is used up");
        // A user who was made otherwise is one too.
        let mut work = Work::new(Timestamp(5));
        invite(&mut work, "new");
        run(&mut work, |work| create(work, &user("2", "b@x"))).unwrap();
        assert_eq!(first(&mut work, "new"), Err(UserError::NotInvited));
    }

    #[test]
    fn a_second_factor_is_needed_when_it_was_shown_and_each_code_is_taken_once() {
        let mut work = Work::new(Timestamp(1_200_000_000_000));
        run(&mut work, |work| create(work, &user("1", "a@x"))).unwrap();
        let login = |work: &mut Work, code: Option<&str>| run(work, |work| logged_in(work, "1", code));
        let mark = user("1", "a@x").mark();
        let on = |work: &mut Work, code: &str| run(work, |work| turn_factor_on(work, "1", code, &mark));
        assert_eq!(on(&mut work, "1"), Err(UserError::NoFactor));
        let factor = SecondFactor::new().unwrap();
        let [before, now, _] = factor.codes_near(Timestamp(1_200_000_000_000));
        run(&mut work, |work| offer_factor(work, "1", &factor)).unwrap();
        assert_eq!(login(&mut work, None), Ok(()), "it is off");
        assert_eq!(on(&mut work, "x"), Err(UserError::WrongCode));
        assert_eq!(login(&mut work, None), Ok(()), "it is off");
        let changed = run(&mut work, |work| turn_factor_on(work, "1", &before, "another mark"));
        assert_eq!(changed, Err(UserError::Changed));
        assert_eq!(on(&mut work, &before), Ok(()));
        assert_eq!(on(&mut work, &now), Err(UserError::FactorIsOn));
        let other = SecondFactor::new().unwrap();
        let again = run(&mut work, |work| offer_factor(work, "1", &other));
        assert_eq!(again, Err(UserError::FactorIsOn), "another would take its place");
        assert_eq!(login(&mut work, None), Err(UserError::CodeNeeded));
        assert_eq!(login(&mut work, Some(&before)), Err(UserError::CodeRefused), "it was taken");
        assert_eq!(login(&mut work, Some(&now)), Ok(()));
        assert_eq!(login(&mut work, Some(&now)), Err(UserError::CodeRefused), "it was taken");
        let off = |work: &mut Work, seen: Option<&str>| run(work, |work| turn_factor_off(work, "1", seen));
        assert_eq!(off(&mut work, Some("another mark")), Err(UserError::Changed));
        assert_eq!(off(&mut work, None), Ok(()));
        assert_eq!(login(&mut work, None), Ok(()));
    }

    #[test]
    fn addresses_are_written_in_one_way() {
        assert_eq!(email("Ada@Example.org").as_deref(), Some("ada@example.org"));
        for text in ["", "ada", "@x", "ada@", "a@b@c", "a b@c", "a:b@c", "a@\n", "=a@b,c"] {
            assert_eq!(email(text), None, "{text:?}");
        }
    }
}
