//! Times of answers: how many, and how long most of them took.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// Times of answers.
#[derive(Debug, Default)]
pub(super) struct Measured {
    times: Vec<Duration>,
    /// Questions without a proper answer.
    pub(super) failed: usize,
    /// How long all of it took.
    pub(super) seconds: f64,
}

impl Measured {
    pub(super) fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    pub(super) fn extend(&mut self, other: Measured) {
        self.times.extend(other.times);
        self.failed += other.failed;
    }

    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.times.len() as f64 / self.seconds } else { 0.0 }
    }

    /// Milliseconds in which that part of the answers came.
    fn percentiles<const N: usize>(&self, parts: [f64; N]) -> [f64; N] {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        parts.map(|part| {
            let index = (sorted.len() as f64 * part).ceil() as usize;
            sorted.get(index.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        })
    }

    pub(super) fn json(&self) -> Value {
        let [p50, p95, p99, max] = self.percentiles([0.5, 0.95, 0.99, 1.0]);
        json!({
            "count": self.times.len(),
            "failed": self.failed,
            "seconds": self.seconds,
            "per_second": self.per_second(),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "max_ms": max,
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99, max] = self.percentiles([0.5, 0.95, 0.99, 1.0]);
        write!(
            f,
            "{} in {:.1} s, {:.0} per second, {} failed; p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms, max {max:.2} ms",
            self.times.len(),
            self.seconds,
            self.per_second(),
            self.failed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Measured;
    use std::time::Duration;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut measured = Measured::default();
        assert_eq!(measured.percentiles([0.5]), [0.0]);
        for milliseconds in (1..=100).rev() {
            measured.add(Duration::from_millis(milliseconds));
        }
        assert_eq!(measured.percentiles([0.5, 0.95, 0.99, 1.0]), [50.0, 95.0, 99.0, 100.0]);
    }
}
