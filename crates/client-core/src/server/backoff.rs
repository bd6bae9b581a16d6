//! How long to wait before the next attempt.

use std::time::Duration;

use crate::clock::{self, Clock};

/// The first wait, and what an unset interval counts as.
const FIRST: Duration = Duration::from_secs(60);
/// How often each wait is used.
const TIMES_EACH: u32 = 3;

/// Waits of the Mender client (docs/spec/server-protocol.md, "Waiting"): start at 60 s, each value three times, doubled, capped at
/// `RetryPollIntervalSeconds`; with jitter.
///
/// A cap below 60 s is the wait itself, from the first attempt on. The jitter only shortens: a wait lies between three
/// quarters of its value and the value, so that devices which failed together do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    cap: Duration,
    tries_max: u32,
    tries: u32,
}

impl Backoff {
    /// `cap` is `RetryPollIntervalSeconds`; `count` is `RetryPollCount`, 0 for "three tries at the cap".
    pub fn new(cap: Duration, count: u32) -> Backoff {
        let cap = if cap.is_zero() { FIRST } else { cap };
        let tries_max = if count > 0 { count } else { tries_to_cap(cap) };
        Backoff { cap, tries_max, tries: 0 }
    }

    /// The next wait, or `None` when the attempts are used up.
    pub fn next(&mut self, clock: &dyn Clock) -> Option<Duration> {
        if self.tries >= self.tries_max {
            return None;
        }
        let wait = value(self.cap, self.tries);
        self.tries += 1;
        Some(clock::between(clock, wait - wait / 4, wait))
    }

    /// Progress was made: begin anew.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The wait after `tries` failed attempts and one more, without jitter.
fn value(cap: Duration, tries: u32) -> Duration {
    let doubled = 1_u32.checked_shl(tries / TIMES_EACH).unwrap_or(u32::MAX);
    FIRST.saturating_mul(doubled).min(cap)
}

fn tries_to_cap(cap: Duration) -> u32 {
    let mut tries = 0;
    // Ends after 32 doublings: then the value is as long as it gets.
    while tries < 32 * TIMES_EACH && value(cap, tries) < cap {
        tries += TIMES_EACH;
    }
    tries + TIMES_EACH
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Paused;

    /// Random numbers are always the largest, or always 0.
    struct Fixed(u64);

    impl Clock for Fixed {
        fn now(&self) -> Duration {
            Duration::ZERO
        }
        fn wall(&self) -> Duration {
            Duration::ZERO
        }
        fn pause(&self, _time: Duration) -> Paused {
            Paused::Elapsed
        }
        fn stop_requested(&self) -> bool {
            false
        }
        fn random(&self) -> u64 {
            self.0
        }
    }

    fn waits(cap: u64, count: u32, random: u64) -> Vec<u64> {
        let mut backoff = Backoff::new(Duration::from_secs(cap), count);
        let clock = Fixed(random);
        let rounded = |wait: Duration| wait.as_secs() + u64::from(wait.subsec_nanos() > 500_000_000);
        let waits: Vec<u64> = std::iter::from_fn(|| backoff.next(&clock)).take(200).map(rounded).collect();
        assert!(waits.len() == 200 || backoff.next(&clock).is_none());
        backoff.reset();
        assert_eq!(backoff.next(&clock).map(rounded), waits.first().copied());
        waits
    }

    #[test]
    fn the_example_of_the_specification_is_met() {
        let expected = [60, 60, 60, 120, 120, 120, 240, 240, 240, 300, 300, 300];
        assert_eq!(waits(300, 0, u64::MAX), expected);
        assert_eq!(waits(300, 0, 0), expected.map(|wait| wait * 3 / 4));
    }

    #[test]
    fn a_count_is_a_count_and_stays_at_the_cap() {
        assert_eq!(waits(100, 7, u64::MAX), [60, 60, 60, 100, 100, 100, 100]);
        assert_eq!(waits(300, 1, u64::MAX), [60]);
    }

    #[test]
    fn a_short_interval_is_used_as_it_is_and_none_is_a_minute() {
        assert_eq!(waits(5, 0, u64::MAX), [5, 5, 5]);
        assert_eq!(waits(60, 0, u64::MAX), [60, 60, 60]);
        assert_eq!(waits(0, 0, u64::MAX), [60, 60, 60]);
    }

    #[test]
    fn absurd_values_end() {
        assert_eq!(waits(u64::MAX, 0, 0).len(), 33 * 3);
        assert_eq!(waits(300, u32::MAX, 0).len(), 200);
        assert_eq!(value(Duration::MAX, u32::MAX), FIRST * u32::MAX);
    }
}
