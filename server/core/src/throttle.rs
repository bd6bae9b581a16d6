//! Whom the server turns away before it drowns: requests under way are bounded for devices, downloads and people apart, and
//! devices and addresses that ask too often are told to come later.
//!
//! A request that is turned away costs no look at the store and is answered with 429 and `Retry-After`. When each may come
//! again is spread, so that those who were turned away together do not come back together.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::address::network;
use crate::metrics::{Class, Entered, Gauge, Refusal, Share};

/// Devices that are turned away come again after this many seconds at the earliest.
const SOONEST_SECONDS: u64 = 10;
/// Over how many seconds they are spread, at least and at most.
const SPREAD_SECONDS: (u64, u64) = (60, 900);
/// How many come again in one second, when there are many.
const AGAIN_IN_A_SECOND: u64 = 2000;
/// While the server is late, devices have this part of their places.
const PART_WHEN_LATE: u64 = 8;
/// Sets of buckets, and buckets in a set: about 1 MiB, however many devices there are.
const SETS: usize = 8192;
const WAYS: usize = 8;
/// What a device or an address may ask at once: so many times what it may ask in a second.
const BURST_SECONDS: u64 = 10;

/// What is allowed. A number that is 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Requests of devices that are answered at one time.
    pub(crate) devices: u64,
    /// Artifacts that are sent at one time.
    pub(crate) downloads: u64,
    /// Requests of people that are answered at one time.
    pub(crate) people: u64,
    /// How late the server may be before devices get fewer places.
    pub(crate) late_milliseconds: u64,
    /// Requests of one device in a second.
    pub(crate) device_rate: u64,
    /// Requests of one address in a second.
    pub(crate) address_rate: u64,
}

impl Default for Allowed {
    fn default() -> Allowed {
        Allowed {
            devices: 1024,
            downloads: 1024,
            people: 128,
            late_milliseconds: 1000,
            device_rate: 20,
            address_rate: 0,
        }
    }
}

/// A request that is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Why.
    pub(crate) why: Refusal,
    /// When it may come again.
    pub(crate) after_seconds: u64,
}

/// Decides who is turned away.
#[derive(Debug)]
pub(crate) struct Throttle {
    allowed: Allowed,
    /// Requests under way: of devices, downloads, of people.
    under_way: [Arc<Gauge>; 3],
    devices: Option<Buckets>,
    addresses: Option<Buckets>,
    turned_away: TurnedAway,
    began: Instant,
    hasher: RandomState,
}

/// A place that a request has until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code, reason = "it is dropped")] Option<Entered>);

impl Throttle {
    /// With these limits.
    pub(crate) fn new(allowed: Allowed) -> Throttle {
        let buckets = |rate| (rate > 0).then(|| Buckets::new(rate));
        Throttle {
            allowed,
            under_way: Default::default(),
            devices: buckets(allowed.device_rate),
            addresses: buckets(allowed.address_rate),
            turned_away: TurnedAway::default(),
            began: Instant::now(),
            hasher: RandomState::new(),
        }
    }

    /// A place for a request of `class`, of whoever `key` names. `late_milliseconds` is how late the server is.
    pub(crate) fn enter(
        &self,
        class: Class,
        late_milliseconds: u64,
        key: impl Hash,
    ) -> Result<Place, Refused> {
        let (at, most) = match class.share() {
            Share::Free => return Ok(Place(None)),
            Share::Devices => (0, self.allowed.devices),
            Share::Downloads => (1, self.allowed.downloads),
            Share::People => (2, self.allowed.people),
        };
        let limit = self.allowed.late_milliseconds;
        let is_late = class.share() == Share::Devices && limit > 0 && late_milliseconds > limit;
        let most = if is_late { (most / PART_WHEN_LATE).max(1) } else { most };
        let Some(gauge) = self.under_way.get(at) else { return Ok(Place(None)) };
        let place = Place(Some(gauge.enter()));
        // Others may have come meanwhile: there are never more than `most`, and at times fewer.
        if most == 0 || gauge.value() <= most {
            return Ok(place);
        }
        let why = if is_late { Refusal::Late } else { Refusal::Busy };
        let after_seconds = match class.share() {
            // They wait for an answer.
            Share::People | Share::Free => 1,
            Share::Devices | Share::Downloads => {
                self.turned_away.again_after(self.began.elapsed(), self.hasher.hash_one(key))
            }
        };
        Err(Refused { why, after_seconds })
    }

    /// One more request of a device.
    pub(crate) fn device(&self, id: &str) -> Result<(), Refused> {
        let Some(buckets) = &self.devices else { return Ok(()) };
        let hash = self.hasher.hash_one(id);
        buckets.take(hash, self.began.elapsed()).map_err(|wait| refused(Refusal::Device, wait, hash))
    }

    /// One more request of an address.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), Refused> {
        let Some(buckets) = &self.addresses else { return Ok(()) };
        let hash = self.hasher.hash_one(network(address));
        buckets.take(hash, self.began.elapsed()).map_err(|wait| refused(Refusal::Address, wait, hash))
    }

    /// Requests under way: of devices, downloads, of people.
    pub(crate) fn under_way(&self) -> [(&'static str, u64); 3] {
        let [devices, downloads, people] = &self.under_way;
        [("devices", devices.value()), ("downloads", downloads.value()), ("people", people.value())]
    }
}

fn refused(why: Refusal, wait: Duration, hash: u64) -> Refused {
    // Whoever asks too often is no herd: a few seconds are enough to spread several of them.
    Refused { why, after_seconds: wait.as_secs() + 1 + hash % 4 }
}

/// How many were turned away lately: the more, the longer they are spread.
#[derive(Debug, Default)]
struct TurnedAway {
    minute: AtomicU64,
    now: AtomicU64,
    before: AtomicU64,
}

impl TurnedAway {
    /// One more, whose hash this is: after how many seconds it may come again.
    fn again_after(&self, time: Duration, hash: u64) -> u64 {
        let minute = time.as_secs() / 60;
        let counted = self.minute.swap(minute, Ordering::Relaxed);
        if counted != minute {
            // Two threads at once lose some of the count: it is an estimate.
            let last = self.now.swap(0, Ordering::Relaxed);
            self.before.store(if counted + 1 == minute { last } else { 0 }, Ordering::Relaxed);
        }
        let count = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let count = count.max(self.before.load(Ordering::Relaxed));
        let (least, most) = SPREAD_SECONDS;
        let spread = (count / AGAIN_IN_A_SECOND).clamp(least, most);
        // Another place each minute: those who met once do not meet each time.
        SOONEST_SECONDS + hash.wrapping_add(minute.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % spread
    }
}

/// When a bucket will be full again says how full it is now; so it is two numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    hash: u64,
    /// In microseconds since the server began.
    full_at: u64,
}

/// A bucket for each who asks. They have a fixed place in memory: when there are more who ask, the bucket that is nearest to
/// being full makes room, so that who asks most often keeps his.
#[derive(Debug)]
struct Buckets {
    sets: Box<[Mutex<[Bucket; WAYS]>]>,
    /// How long a bucket takes for one more, in microseconds.
    one: u64,
}

impl Buckets {
    fn new(rate: u64) -> Buckets {
        let sets = (0..SETS).map(|_| Mutex::new([Bucket::default(); WAYS])).collect();
        Buckets { sets, one: (1_000_000 / rate.max(1)).max(1) }
    }

    /// Takes one out; how long to wait when there is none.
    fn take(&self, hash: u64, now: Duration) -> Result<(), Duration> {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let at = usize::try_from(hash % SETS as u64).unwrap_or(0);
        let Some(set) = self.sets.get(at) else { return Ok(()) };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fullest = None::<&mut Bucket>;
        let mut own = None::<&mut Bucket>;
        for bucket in set.iter_mut() {
            if bucket.hash == hash {
                own = Some(bucket);
                break;
            }
            if fullest.as_ref().is_none_or(|fullest| bucket.full_at < fullest.full_at) {
                fullest = Some(bucket);
            }
        }
        let bucket = match (own, fullest) {
            (Some(own), _) => own,
            (None, Some(other)) => {
                *other = Bucket { hash, full_at: now };
                other
            }
            (None, None) => return Ok(()),
        };
        let full_at = bucket.full_at.max(now) + self.one;
        let most = now.saturating_add(self.one.saturating_mul(self.burst()));
        if full_at > most {
            return Err(Duration::from_micros(full_at - most));
        }
        bucket.full_at = full_at;
        Ok(())
    }

    /// How many are in a full bucket.
    fn burst(&self) -> u64 {
        (BURST_SECONDS * 1_000_000 / self.one).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn allowed(devices: u64) -> Allowed {
        Allowed { devices, people: 1, ..Allowed::default() }
    }

    #[test]
    fn devices_that_find_no_place_are_turned_away_and_people_are_not() {
        let throttle = Throttle::new(allowed(2));
        let first = throttle.enter(Class::Poll, 0, "a").unwrap();
        let _second = throttle.enter(Class::Inventory, 0, "b").unwrap();
        let refused = throttle.enter(Class::Poll, 0, "c").unwrap_err();
        assert_eq!(refused.why, Refusal::Busy);
        assert!((10..70).contains(&refused.after_seconds), "{refused:?}");
        let person = throttle.enter(Class::Management, 0, "d").unwrap();
        assert_eq!(throttle.enter(Class::Management, 0, "e").unwrap_err().after_seconds, 1);
        assert!(throttle.enter(Class::Health, 0, "f").is_ok());
        assert!(throttle.enter(Class::Download, 0, "g").is_ok());
        drop((first, person));
        assert!(throttle.enter(Class::Poll, 0, "c").is_ok());
        assert_eq!(throttle.under_way(), [("devices", 1), ("downloads", 0), ("people", 0)]);
    }

    #[test]
    fn a_server_that_is_late_takes_an_eighth_of_the_devices_and_all_people() {
        let throttle = Throttle::new(allowed(16));
        let places: Vec<_> = (0..3).map(|n| throttle.enter(Class::Poll, 1001, n)).collect();
        assert_eq!(places.iter().filter(|place| place.is_ok()).count(), 2);
        assert_eq!(throttle.enter(Class::Poll, 1001, 4).unwrap_err().why, Refusal::Late);
        assert!(throttle.enter(Class::Poll, 1000, 4).is_ok(), "it is not late");
        assert!(throttle.enter(Class::Management, 1001, 4).is_ok());
    }

    #[test]
    fn those_who_were_turned_away_come_again_spread_and_the_more_they_are_the_longer() {
        let turned_away = TurnedAway::default();
        let hasher = RandomState::new();
        let mut seconds = vec![0; 60];
        for n in 0..6000 {
            let after = turned_away.again_after(SECOND, hasher.hash_one(n)) - SOONEST_SECONDS;
            seconds[usize::try_from(after).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|count| (40..=180).contains(count)), "{seconds:?}");
        turned_away.now.store(1_000_000, Ordering::Relaxed);
        let longest = (0..6000).map(|n| turned_away.again_after(SECOND, hasher.hash_one(n))).max();
        assert!((490..=520).contains(&longest.unwrap()), "{longest:?}");
        // The next minute remembers, the one behind it does not.
        let longest = |time| (0..600).map(|n| turned_away.again_after(time, hasher.hash_one(n))).max();
        assert!(longest(SECOND * 61).unwrap() > 400);
        assert!(longest(SECOND * 200).unwrap() < 70);
    }

    #[test]
    fn who_asks_too_often_waits_and_then_may_ask_again() {
        let buckets = Buckets::new(2);
        for _ in 0..20 {
            assert_eq!(buckets.take(7, SECOND), Ok(()));
        }
        assert_eq!(buckets.take(7, SECOND), Err(SECOND / 2));
        assert_eq!(buckets.take(8, SECOND), Ok(()), "another one");
        assert_eq!(buckets.take(7, SECOND + SECOND / 2), Ok(()));
        assert!(buckets.take(7, SECOND + SECOND / 2).is_err());
        // After a long time it is full, and not more than full.
        let taken = (0..100).filter(|_| buckets.take(7, SECOND * 1000).is_ok()).count();
        assert_eq!(taken, 20);
    }

    #[test]
    fn a_crowd_takes_no_memory_and_does_not_make_room_for_who_asks_most() {
        let buckets = Buckets::new(1);
        let set = |n: u64| n * SETS as u64;
        while buckets.take(set(1), SECOND).is_ok() {}
        for n in 2..10_000 {
            assert!(buckets.take(set(n), SECOND).is_ok(), "each is new");
        }
        assert!(buckets.take(set(1), SECOND).is_err(), "it was not forgotten");
    }

    #[test]
    fn limits_of_devices_and_addresses_are_apart_and_off_when_they_are_0() {
        let throttle = Throttle::new(Allowed { device_rate: 1, address_rate: 0, ..Allowed::default() });
        let taken = (0..100).filter(|_| throttle.device("a").is_ok()).count();
        assert!((10..20).contains(&taken), "{taken}");
        assert!(throttle.device("a").is_err_and(|refused| (1..7).contains(&refused.after_seconds)));
        assert!(throttle.device("b").is_ok());
        assert!((0..100).all(|_| throttle.address(IpAddr::from([192, 0, 2, 1])).is_ok()));
    }
}
