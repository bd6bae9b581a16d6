//! Logins that failed, by name and by address: the more of them, the longer the next one has to wait. Not stored: a restart
//! forgets them. Each process counts its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::address::network;

/// What is remembered at most; each costs about 100 bytes.
const REMEMBERED: usize = 10_000;
/// How long a failure counts.
const MEMORY: Duration = Duration::from_secs(900);
/// Failures that cost nothing.
const FREE: u32 = 5;
/// The longest wait of a name: nobody can keep a person out by failing for them.
const NAME_WAIT: Duration = Duration::from_secs(10);
/// The longest wait of an address, and of codes.
const ADDRESS_WAIT: Duration = Duration::from_secs(300);

/// Who failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// The digest of a name.
    Name(String),
    /// The id of a user whose password was right, and who needs a code besides.
    Code(String),
    /// A network: see [`Who::at`].
    Network(IpAddr),
}

impl Who {
    /// Whoever has an address.
    pub(crate) fn at(address: IpAddr) -> Who {
        Who::Network(network(address))
    }
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    times: u32,
    last: Instant,
}

/// Logins that failed.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    inside: Mutex<HashMap<Who, Failed>>,
}

impl Failures {
    /// How long these have to wait still; `None` when they need not.
    pub(crate) fn wait(&self, who: &[Who], now: Instant) -> Option<Duration> {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = |who: &Who| {
            let failed = inside.get(who).filter(|failed| now.duration_since(failed.last) < MEMORY)?;
            let more = failed.times.checked_sub(FREE)?;
            let most = match who {
                Who::Name(_) => NAME_WAIT,
                // Nobody fails here without the password, and there are only a million codes.
                Who::Network(_) | Who::Code(_) => ADDRESS_WAIT,
            };
            let wait = Duration::from_secs(1 << more.min(16)).min(most);
            wait.checked_sub(now.duration_since(failed.last)).filter(|left| !left.is_zero())
        };
        who.iter().filter_map(wait).max()
    }

    /// One more failure. It is counted before the password is looked at, so that many at once are no way around it.
    pub(crate) fn note(&self, who: &[Who], now: Instant) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        for who in who {
            if inside.len() >= REMEMBERED && !inside.contains_key(who) {
                inside.retain(|_, failed| now.duration_since(failed.last) < MEMORY);
                // Still full: whoever has failed least goes, so that the many cannot hide the one.
                let least = inside.iter().min_by_key(|(_, failed)| (failed.times, failed.last));
                let least = least.map(|(who, _)| who.clone());
                if let Some(least) = least.filter(|_| inside.len() >= REMEMBERED) {
                    inside.remove(&least);
                }
            }
            let failed = inside.entry(who.clone()).or_insert(Failed { times: 0, last: now });
            if now.duration_since(failed.last) >= MEMORY {
                failed.times = 0;
            }
            failed.times = failed.times.saturating_add(1);
            failed.last = now;
        }
    }

    /// They have logged in.
    pub(crate) fn forget(&self, who: &[Who]) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        for who in who {
            inside.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_and_again_waits_longer_and_longer_up_to_a_limit() {
        let (failures, start) = (Failures::default(), Instant::now());
        let name = [Who::Name("a".to_owned())];
        let both = [name[0].clone(), Who::at([127, 0, 0, 1].into())];
        for _ in 0..FREE - 1 {
            failures.note(&both, start);
        }
        assert_eq!(failures.wait(&both, start), None);
        failures.note(&both, start);
        assert_eq!(failures.wait(&both, start), Some(Duration::from_secs(1)));
        assert_eq!(failures.wait(&both, start + Duration::from_secs(1)), None);
        for _ in 0..20 {
            failures.note(&both, start);
        }
        assert_eq!(failures.wait(&name, start), Some(NAME_WAIT));
        assert_eq!(failures.wait(&both, start), Some(ADDRESS_WAIT));
        assert_eq!(failures.wait(&both, start + MEMORY), None);
        failures.forget(&both);
        assert_eq!(failures.wait(&both, start), None);
    }

    #[test]
    fn another_address_of_the_same_network_is_no_way_around_the_wait() {
        let (failures, start) = (Failures::default(), Instant::now());
        let at = |text: &str| [Who::at(text.parse().unwrap())];
        for number in 0..FREE {
            failures.note(&at(&format!("2001:db8::{number:x}")), start);
        }
        assert!(failures.wait(&at("2001:db8::ffff"), start).is_some());
        assert_eq!(failures.wait(&at("2001:db8:0:1::1"), start), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_keeps_the_worst() {
        let (failures, start) = (Failures::default(), Instant::now());
        let worst = [Who::Name("worst".to_owned())];
        (0..FREE).for_each(|_| failures.note(&worst, start));
        for number in 0..REMEMBERED as u32 + 50 {
            failures.note(&[Who::at(std::net::Ipv4Addr::from(number).into())], start);
        }
        assert_eq!(failures.inside.lock().unwrap().len(), REMEMBERED);
        assert!(failures.wait(&worst, start).is_some());
    }
}
