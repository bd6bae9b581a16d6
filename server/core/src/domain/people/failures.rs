//! Logins that failed, by name and by address: the more of them, the longer the next one has to wait. Not stored: a restart
//! forgets them. Each process counts its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::address::network;
use crate::domain::id;

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
    /// Somebody by name, however it is written.
    pub(crate) fn name(name: &str) -> Who {
        Who::Name(id::sha256_hex(name.to_ascii_lowercase().as_bytes()))
    }

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

/// A try, which is a failure until it has succeeded.
#[derive(Debug)]
pub(crate) struct Attempt {
    who: Vec<Who>,
    at: Instant,
    /// When each of them had failed last before.
    before: Vec<Option<Instant>>,
}

/// Logins that failed.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    inside: Mutex<HashMap<Who, Failed>>,
}

impl Failures {
    /// Begins a try, unless these have to wait still: how long then. It counts before the password is looked at, so that many
    /// at once are no way around it.
    pub(crate) fn begin(&self, who: Vec<Who>, now: Instant) -> Result<Attempt, Duration> {
        if let Some(left) = self.wait(&who, now) {
            return Err(left);
        }
        let before = self.note(&who, now);
        Ok(Attempt { who, at: now, before })
    }

    /// How long these have to wait still; `None` when they need not.
    fn wait(&self, who: &[Who], now: Instant) -> Option<Duration> {
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

    /// One more failure. When each of these had failed last before.
    fn note(&self, who: &[Who], now: Instant) -> Vec<Option<Instant>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |who: &Who| {
            if inside.len() >= REMEMBERED && !inside.contains_key(who) {
                inside.retain(|_, failed| now.duration_since(failed.last) < MEMORY);
                // Still full: whoever has failed least goes, so that the many cannot hide the one.
                let least = inside.iter().min_by_key(|(_, failed)| (failed.times, failed.last));
                let least = least.map(|(who, _)| who.clone());
                if let Some(least) = least.filter(|_| inside.len() >= REMEMBERED) {
                    inside.remove(&least);
                }
            }
            let before = inside.get(who).map(|failed| failed.last);
            let failed = inside.entry(who.clone()).or_insert(Failed { times: 0, last: now });
            if now.duration_since(failed.last) >= MEMORY {
                failed.times = 0;
            }
            failed.times = failed.times.saturating_add(1);
            failed.last = now;
            before
        };
        who.iter().map(one).collect()
    }

    /// It was right: what the account has failed before is forgotten, and the address has failed that much less. What it has
    /// failed for others stays: whoever guesses for them has an account of their own, too.
    pub(crate) fn succeeded(&self, attempt: &Attempt) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let mut own = 0_u32;
        for who in &attempt.who {
            match who {
                Who::Name(_) | Who::Code(_) => {
                    let times = inside.remove(who).map_or(1, |failed| failed.times);
                    own = own.saturating_add(times);
                }
                Who::Network(_) => {}
            }
        }
        for (who, before) in attempt.who.iter().zip(&attempt.before) {
            let is_address = matches!(who, Who::Network(_));
            let Some(failed) = inside.get_mut(who).filter(|_| is_address) else { continue };
            failed.times = failed.times.saturating_sub(own);
            // Its wait goes on from where it was, if nothing came in between.
            failed.last = before.filter(|_| failed.last == attempt.at).unwrap_or(failed.last);
            if failed.times == 0 {
                inside.remove(who);
            }
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
        assert_eq!(failures.begin(both.to_vec(), start).unwrap_err(), ADDRESS_WAIT);
    }

    #[test]
    fn a_success_forgets_the_account_and_leaves_what_its_address_has_failed_for_others() {
        let (failures, start) = (Failures::default(), Instant::now());
        let address = Who::at([127, 0, 0, 1].into());
        let of = |name: &str| vec![Who::name(name), address.clone()];
        let times = |who: &Who| failures.inside.lock().unwrap().get(who).map(|failed| failed.times);
        let own = |at| failures.succeeded(&failures.begin(of("own"), at).unwrap());
        for _ in 0..FREE - 1 {
            failures.note(&of("other"), start);
            own(start);
        }
        assert_eq!(times(&address), Some(FREE - 1), "a success takes nothing of it away");
        assert_eq!((times(&Who::name("OTHER")), times(&Who::name("own"))), (Some(FREE - 1), None));
        failures.note(&of("other"), start);
        let later = start + Duration::from_secs(10);
        own(later);
        assert_eq!(failures.wait(&of("own"), later), None, "its wait was over, and does not begin again");
        // Who has mistyped does not leave that behind.
        for _ in 0..3 {
            failures.note(&of("own"), later);
        }
        assert_eq!(times(&address), Some(FREE + 3));
        own(later + Duration::from_secs(60));
        assert_eq!((times(&address), times(&Who::name("own"))), (Some(FREE), None));
        // One that nobody else has failed from is forgotten.
        let alone = vec![Who::name("own"), Who::at([127, 0, 0, 2].into())];
        failures.note(&alone, later);
        failures.succeeded(&failures.begin(alone.clone(), later).unwrap());
        assert_eq!(times(&alone[1]), None);
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
        (0..FREE).for_each(|_| drop(failures.note(&worst, start)));
        for number in 0..REMEMBERED as u32 + 50 {
            failures.note(&[Who::at(std::net::Ipv4Addr::from(number).into())], start);
        }
        assert_eq!(failures.inside.lock().unwrap().len(), REMEMBERED);
        assert!(failures.wait(&worst, start).is_some());
    }
}
