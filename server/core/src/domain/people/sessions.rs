//! Logins of people that go on. All of one person are one document: a login that is not in it has ended.

use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;
use crate::work::{Kind, NotLoaded, Work};

/// Logins of one person that go on at a time. One more ends the one that was not used for longest.
const SESSIONS: usize = 50;
/// The time of a use is stored when the one that is stored is that old.
const USE_SECONDS: u64 = 300;
/// Characters of what a program says of itself.
const AGENT_CHARS: usize = 200;

/// A login that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The `jti` of its token.
    pub(crate) id: String,
    /// When it began.
    pub(crate) created: Timestamp,
    /// When it was used last, as far as that is stored.
    pub(crate) used: Timestamp,
    /// When its token expires.
    pub(crate) until: Timestamp,
    /// The address that it began from.
    pub(crate) from: String,
    /// What the program there said that it is.
    pub(crate) agent: String,
}

impl Session {
    /// One that begins.
    pub(crate) fn new(id: &str, now: Timestamp, until: Timestamp, from: String, agent: &str) -> Session {
        let agent = agent.chars().take(AGENT_CHARS).collect();
        Session { id: id.to_owned(), created: now, used: now, until, from, agent }
    }

    /// Whether its use now is worth to be stored.
    pub(crate) fn is_long_unused(&self, now: Timestamp) -> bool {
        self.used.plus_seconds(USE_SECONDS) <= now
    }
}

/// Those of one person.
pub(crate) type Sessions = Vec<Session>;

/// One more login of a person.
pub(crate) fn begin(work: &mut Work, user: &str, session: &Session) -> Result<(), NotLoaded> {
    let now = work.now();
    let mut all = work.document::<Sessions>(Kind::Session, user)?.unwrap_or_default();
    all.retain(|one| one.until > now);
    while all.len() >= SESSIONS {
        let oldest = all.iter().enumerate().min_by_key(|(_, one)| one.used).map(|(at, _)| at);
        all.remove(oldest.unwrap_or_default());
    }
    all.push(session.clone());
    work.put_document(Kind::Session, user, Some(&all))
}

/// Ends a login. It is no error when there is none.
pub(crate) fn end(work: &mut Work, user: &str, session: &str) -> Result<(), NotLoaded> {
    let mut all = work.document::<Sessions>(Kind::Session, user)?.unwrap_or_default();
    all.retain(|one| one.id != session);
    work.put_document(Kind::Session, user, Some(&all).filter(|all| !all.is_empty()))
}

/// Ends every login of a person.
pub(crate) fn end_all(work: &mut Work, user: &str) -> Result<(), NotLoaded> {
    work.document::<serde_json::Value>(Kind::Session, user)?;
    work.put_document::<Sessions>(Kind::Session, user, None)
}

/// Says that a login was used.
pub(crate) fn used(work: &mut Work, user: &str, session: &str) -> Result<(), NotLoaded> {
    let now = work.now();
    let Some(mut all) = work.document::<Sessions>(Kind::Session, user)? else { return Ok(()) };
    for one in all.iter_mut().filter(|one| one.id == session) {
        one.used = now;
    }
    work.put_document(Kind::Session, user, Some(&all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Loaded;

    fn work(now: u64) -> Work {
        let mut work = Work::new(Timestamp(now));
        work.load(Loaded::Document(Kind::Session, "u".to_owned(), None));
        work
    }

    fn session(id: &str, created: u64, until: u64) -> Session {
        Session::new(id, Timestamp(created), Timestamp(until), "::1".to_owned(), "test")
    }

    fn ids(work: &mut Work) -> Vec<String> {
        let all = work.document::<Sessions>(Kind::Session, "u").unwrap().unwrap_or_default();
        all.into_iter().map(|one| one.id).collect()
    }

    #[test]
    fn of_many_logins_the_one_that_is_used_least_ends() {
        let mut work = work(1000);
        begin(&mut work, "u", &session("expired", 1, 1000)).unwrap();
        begin(&mut work, "u", &session("old", 1, 5000)).unwrap();
        begin(&mut work, "u", &session("unused", 2, 5000)).unwrap();
        assert_eq!(ids(&mut work), ["old", "unused"], "what has expired makes room");
        used(&mut work, "u", "old").unwrap();
        for number in 0..SESSIONS - 1 {
            begin(&mut work, "u", &session(&number.to_string(), 3 + number as u64, 5000)).unwrap();
        }
        let left = ids(&mut work);
        assert_eq!(left.len(), SESSIONS);
        assert!(left.contains(&"old".to_owned()) && !left.contains(&"unused".to_owned()), "{left:?}");
    }

    #[test]
    fn a_login_that_ends_leaves_the_others_and_the_last_one_nothing() {
        let mut work = work(1000);
        for id in ["a", "b"] {
            begin(&mut work, "u", &session(id, 1, 5000)).unwrap();
        }
        for (id, left) in [("none", &["a", "b"][..]), ("a", &["b"]), ("a", &["b"]), ("b", &[])] {
            end(&mut work, "u", id).unwrap();
            assert_eq!(ids(&mut work), left);
        }
        assert_eq!(work.document::<Sessions>(Kind::Session, "u").unwrap(), None);
        begin(&mut work, "u", &session("c", 1, 5000)).unwrap();
        end_all(&mut work, "u").unwrap();
        assert_eq!(work.document::<Sessions>(Kind::Session, "u").unwrap(), None);
    }

    #[test]
    fn a_use_is_stored_after_a_while_and_what_a_program_says_is_cut() {
        let one = Session::new("a", Timestamp(1000), Timestamp(9_000_000), String::new(), &"ä".repeat(1000));
        assert_eq!(one.agent.chars().count(), AGENT_CHARS);
        assert!(!one.is_long_unused(Timestamp(1000 + USE_SECONDS * 1000 - 1)));
        assert!(one.is_long_unused(Timestamp(1000 + USE_SECONDS * 1000)));
    }
}
