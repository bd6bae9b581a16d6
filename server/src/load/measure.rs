//! Times of answers: how many, and how long most of them took.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::histogram::Histogram;

/// Times of answers.
#[derive(Debug, Default)]
pub(super) struct Measured {
    times: Histogram,
    /// Questions without a proper answer.
    pub(super) failed: usize,
    /// How long all of it took.
    pub(super) seconds: f64,
}

impl Measured {
    pub(super) fn add(&mut self, time: Duration) {
        self.times.add(time);
    }

    pub(super) fn extend(&mut self, other: &Measured) {
        self.times.extend(&other.times);
        self.failed += other.failed;
    }

    pub(super) fn json(&self) -> Value {
        let mut json = self.times.json(self.seconds);
        json["failed"] = self.failed.into();
        json
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|part| self.times.percentile(part));
        let per_second = if self.seconds > 0.0 { self.times.count() as f64 / self.seconds } else { 0.0 };
        write!(
            f,
            "{} in {:.1} s, {per_second:.0} per second, {} failed; p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms, max {max:.2} ms",
            self.times.count(),
            self.seconds,
            self.failed,
        )
    }
}
