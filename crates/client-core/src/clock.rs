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
