//! Time as a seam: reading it, and the only two ways to let it pass.
//!
//! Wall time may step, so nothing here waits for a wall time: intervals are measured on the monotonic clock.

use std::time::Duration;

/// Reads the clocks, and waits inside a step of work.
///
/// # Contract
/// Shared by the threads of one process. [`pause`](Clock::pause) ends early when the process is asked to stop, and at
/// no other time.
pub trait Clock: Send + Sync {
    /// Monotonic time since some moment of this boot. Never goes back.
    fn now(&self) -> Duration;

    /// Wall time since 1970-01-01 UTC. May step, and may be 1970 on a device without a battery.
    fn wall(&self) -> Duration;

    /// Lets `time` pass.
    fn pause(&self, time: Duration) -> Paused;

    /// Whether the process was asked to stop. Once true it stays true.
    fn stop_requested(&self) -> bool;

    /// A number that nobody can predict, for jitter. Not for keys.
    fn random(&self) -> u64;
}

/// Before this time a clock was never set (2024-01-01 UTC, in seconds since 1970).
const WAS_SET: u64 = 1_704_067_200;

/// Whether a clock that says `wall` was ever set.
pub fn was_set(wall: Duration) -> bool {
    wall.as_secs() >= WAS_SET
}

/// A time between `least` and `most`, any with the same chance.
pub fn between(clock: &dyn Clock, least: Duration, most: Duration) -> Duration {
    // 584 years are enough for a span, and keep the product below within 128 bits.
    let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
    let share = (u128::from(span) * u128::from(clock.random())) >> 64;
    least.saturating_add(Duration::from_nanos(share as u64))
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// The time has passed.
    Elapsed,
    /// The process was asked to stop.
    Stopped,
}

/// The wait between two pieces of work, which events from outside may end.
pub trait Waiter {
    /// Waits until `time` has passed or something happens. An event that came before is not lost; of several the most
    /// urgent is returned, and the others by the next calls.
    fn wait(&mut self, time: Duration) -> Wake;
}

/// Why a wait ended, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The process was asked to stop (SIGTERM, SIGINT, SIGQUIT).
    Stop,
    /// Ask the server for an update now (SIGUSR1).
    CheckUpdate,
    /// Send the inventory now (SIGUSR2).
    SendInventory,
    /// The time has passed.
    Elapsed,
}

/// Time since 1970 as `2026-11-22T19:01:54.123Z`.
pub fn utc_millis(time: Duration) -> String {
    let mut text = utc(time.as_secs());
    text.pop();
    text.push_str(&format!(".{:03}Z", time.subsec_millis()));
    text
}

/// Seconds since 1970 as `2026-11-22T19:01:54Z`. Days to date after Howard Hinnant's `civil_from_days`.
pub fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days since 1 March of year 0
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_utc_dates() {
        let check = |seconds, expected| assert_eq!(utc(seconds), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_374_114, "2026-11-22T19:01:54Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        assert_eq!(utc_millis(Duration::from_millis(1_795_374_114_007)), "2026-11-22T19:01:54.007Z");
    }
}
