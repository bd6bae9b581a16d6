//! Logins that people have ended before their time.

use super::Fleet;
use crate::domain::model::Change;
use crate::domain::time::Timestamp;

impl Fleet {
    /// Ends a login whose token would be valid until `until`. What has expired need not be remembered any more.
    pub(crate) fn log_out(&mut self, login: &str, until: Timestamp, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        self.logouts.retain(|login, until| {
            let is_over = *until <= now;
            if is_over {
                changes.push(Change::LoginOver(login.clone()));
            }
            !is_over
        });
        self.logouts.insert(login.to_owned(), until);
        changes.push(Change::LoggedOut { login: login.to_owned(), until });
        changes
    }

    /// Whether a login was ended.
    pub(crate) fn is_logged_out(&self, login: &str) -> bool {
        self.logouts.contains_key(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logout_is_remembered_until_its_token_has_expired() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.log_out("a", Timestamp(10), Timestamp(1)).len(), 1);
        let changes = fleet.log_out("b", Timestamp(20), Timestamp(10));
        assert_eq!(changes[0], Change::LoginOver("a".to_owned()));
        assert!(fleet.is_logged_out("b") && !fleet.is_logged_out("a"));
    }
}
