//! How long answers took: counted in buckets, so that a million of them need no more memory than one.

use std::time::Duration;

use serde_json::{Value, json};

/// Buckets for each power of two: a time is told to three hundredths.
const PARTS: usize = 32;
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Up to 2^40 microseconds, twelve days; longer ones are counted there.
const POWERS: usize = 40;

/// Counts of times.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; PARTS * POWERS], count: 0, longest: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, time: Duration) {
        let last = self.buckets.len() - 1;
        if let Some(bucket) = self.buckets.get_mut(bucket(time).min(last)) {
            *bucket += 1;
        }
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    pub(crate) fn extend(&mut self, other: &Histogram) {
        for (own, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += count;
        }
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Milliseconds in which that part of the answers came.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(bucket).min(self.longest).as_secs_f64() * 1000.0;
            }
        }
        self.longest.as_secs_f64() * 1000.0
    }

    /// How many, how many in a second, and how long most of them took.
    pub(crate) fn json(&self, seconds: f64) -> Value {
        json!({
            "count": self.count,
            "seconds": seconds,
            "per_second": if seconds > 0.0 { self.count as f64 / seconds } else { 0.0 },
            "p50_ms": self.percentile(0.5),
            "p95_ms": self.percentile(0.95),
            "p99_ms": self.percentile(0.99),
            "max_ms": self.percentile(1.0),
        })
    }
}

/// Below 32 microseconds each has its own bucket; above, each power of two has 32.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let power = (u64::BITS - micros.leading_zeros()).saturating_sub(PART_BITS + 1);
    power as usize * PARTS + (micros >> power) as usize
}

/// The longest time that a bucket counts.
fn upper(bucket: usize) -> Duration {
    let power = (bucket / PARTS).saturating_sub(1);
    let part = bucket - power * PARTS;
    Duration::from_micros((((part as u64) + 1) << power) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_a_little_later() {
        let mut last = 0;
        for micros in (0..5000).chain((5000..10_000_000).step_by(997)) {
            let time = Duration::from_micros(micros);
            let (bucket, upper) = (bucket(time), upper(bucket(time)));
            assert!(bucket >= last && upper >= time, "{micros}: {bucket}, {upper:?}");
            assert!(
                upper.as_micros() <= u128::from(micros) + u128::from(micros) / 32 + 1,
                "{micros}: {upper:?}"
            );
            last = bucket;
        }
    }

    #[test]
    fn percentiles_are_near_the_times_that_were_measured() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0.0);
        for milliseconds in (1..=100).rev() {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let mut twice = Histogram::default();
        twice.extend(&histogram);
        twice.extend(&histogram);
        assert_eq!((histogram.count(), twice.count()), (100, 200));
        for (part, wanted) in [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)] {
            for found in [histogram.percentile(part), twice.percentile(part)] {
                assert!((found - wanted).abs() <= wanted / 32.0, "{part}: {found}");
            }
        }
        assert_eq!(histogram.percentile(1.0), 100.0, "the longest is told exactly");
    }

    #[test]
    fn a_time_beyond_the_last_bucket_counts() {
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_secs(1 << 40));
        assert_eq!(histogram.count(), 1);
        assert!(histogram.percentile(0.5) > 0.0);
    }
}
