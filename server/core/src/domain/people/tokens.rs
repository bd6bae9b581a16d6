//! Personal tokens: for programs that act for a person. All of one person are one document.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;
use crate::work::{Kind, NotLoaded, Work};

/// Tokens of one person.
pub(crate) const TOKENS: usize = 10;
/// The longest life of one, and that of one for which nothing is said: a year.
pub(crate) const MOST_SECONDS: u64 = 365 * 24 * 3600;
/// The time of a use is stored when the one that is stored is that old.
pub(crate) const USE_SECONDS: u64 = 60;

/// A token, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PersonalToken {
    /// Its `jti`.
    pub(crate) id: String,
    /// Its name, for people.
    pub(crate) name: String,
    /// When it was used last.
    pub(crate) last_used: Option<Timestamp>,
    /// When it ends.
    #[serde(rename = "expiration_date")]
    pub(crate) expires: Timestamp,
    /// When it was made.
    #[serde(rename = "created_ts")]
    pub(crate) created: Timestamp,
}

/// Those of one person.
pub(crate) type Tokens = Vec<PersonalToken>;

/// Why nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokensError {
    /// To be run again.
    NotLoaded,
    /// The person has one with this name.
    Duplicate,
    /// The person has [`TOKENS`].
    TooMany,
}

impl From<NotLoaded> for TokensError {
    fn from(_: NotLoaded) -> TokensError {
        TokensError::NotLoaded
    }
}

/// One more token of a person. Those that have expired make room.
pub(crate) fn create(work: &mut Work, user: &str, token: &PersonalToken) -> Result<(), TokensError> {
    let now = work.now();
    let mut tokens = work.document::<Tokens>(Kind::Token, user)?.unwrap_or_default();
    tokens.retain(|token| token.expires > now);
    if tokens.iter().any(|other| other.name == token.name) {
        return Err(TokensError::Duplicate);
    }
    if tokens.len() >= TOKENS {
        return Err(TokensError::TooMany);
    }
    tokens.push(token.clone());
    work.put_document(Kind::Token, user, Some(&tokens))?;
    Ok(())
}

/// Ends a token. It is no error when there is none.
pub(crate) fn remove(work: &mut Work, user: &str, token: &str) -> Result<(), NotLoaded> {
    let mut tokens = work.document::<Tokens>(Kind::Token, user)?.unwrap_or_default();
    tokens.retain(|other| other.id != token);
    work.put_document(Kind::Token, user, Some(&tokens))
}

/// Says that a token was used.
pub(crate) fn used(work: &mut Work, user: &str, token: &str) -> Result<(), NotLoaded> {
    let now = work.now();
    let Some(mut tokens) = work.document::<Tokens>(Kind::Token, user)? else { return Ok(()) };
    for one in tokens.iter_mut().filter(|one| one.id == token) {
        one.last_used = Some(now);
    }
    work.put_document(Kind::Token, user, Some(&tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Loaded;

    #[test]
    fn a_person_has_ten_tokens_with_ten_names() {
        let mut work = Work::new(Timestamp(1000));
        work.load(Loaded::Document(Kind::Token, "u".to_owned(), None));
        let token = |number: usize, expires: u64| PersonalToken {
            id: number.to_string(),
            name: format!("t{number}"),
            last_used: None,
            expires: Timestamp(expires),
            created: Timestamp(1),
        };
        for number in 0..TOKENS {
            assert_eq!(create(&mut work, "u", &token(number, 5000)), Ok(()));
        }
        assert_eq!(create(&mut work, "u", &token(3, 5000)), Err(TokensError::Duplicate));
        assert_eq!(create(&mut work, "u", &token(10, 5000)), Err(TokensError::TooMany));
        remove(&mut work, "u", "4").unwrap();
        assert_eq!(create(&mut work, "u", &token(10, 900)), Ok(()));
        // The last one had expired before it was made: its place and its name are free.
        assert_eq!(create(&mut work, "u", &token(10, 5000)), Ok(()));
        used(&mut work, "u", "10").unwrap();
        let tokens = work.document::<Tokens>(Kind::Token, "u").unwrap().unwrap();
        assert_eq!(tokens.last().unwrap().last_used, Some(Timestamp(1000)));
    }
}
