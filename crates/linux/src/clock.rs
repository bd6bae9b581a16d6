//! The clocks of the kernel, and waits that signals end.
//!
//! A suspended device sleeps through its intervals, so the monotonic clock is `CLOCK_BOOTTIME`, which counts that time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_core::clock::{Clock, Paused, Waiter, Wake};
use nix::time::{ClockId, clock_gettime};

use crate::process;

/// Longest uninterrupted wait. Condition variables do not count time in suspend: after one, this is how late a wait
/// notices.
const SLICE: Duration = Duration::from_secs(60);

/// What the clock and the waiter of a process share.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    events: Mutex<Events>,
    changed: Condvar,
    /// Spreads numbers where the kernel gives none.
    fallback: AtomicU64,
}

#[derive(Debug, Default)]
struct Events {
    check_update: bool,
    send_inventory: bool,
}

impl Shared {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `deadline`, or until `take` has something.
    fn wait_until<T>(&self, deadline: Duration, mut take: impl FnMut(&mut Events) -> Option<T>) -> Option<T> {
        let mut events = self.events();
        loop {
            if let Some(found) = take(&mut events) {
                return Some(found);
            }
            let left = deadline.saturating_sub(boot_time());
            if left.is_zero() {
                return None;
            }
            events =
                self.changed.wait_timeout(events, left.min(SLICE)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Events)) {
        change(&mut self.events());
        self.changed.notify_all();
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Reads the clocks of the kernel. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct LinuxClock {
    shared: Arc<Shared>,
}

impl LinuxClock {
    /// A clock that nobody has asked to stop yet.
    pub fn new() -> LinuxClock {
        LinuxClock::default()
    }

    /// The waiter that belongs to this clock.
    pub fn waiter(&self) -> LinuxWaiter {
        LinuxWaiter { shared: Arc::clone(&self.shared) }
    }

    /// Asks the process to stop: ends every pause and every wait, now and later.
    pub fn request_stop(&self) {
        self.shared.change(|_| self.shared.stop.store(true, Ordering::Release));
    }

    /// Ends the wait, or the next one, with [`Wake::CheckUpdate`].
    pub fn request_check_update(&self) {
        self.shared.change(|events| events.check_update = true);
    }

    /// Ends the wait, or the next one, with [`Wake::SendInventory`].
    pub fn request_send_inventory(&self) {
        self.shared.change(|events| events.send_inventory = true);
    }
}

impl Clock for LinuxClock {
    fn now(&self) -> Duration {
        boot_time()
    }

    fn wall(&self) -> Duration {
        // Before 1970 is as good as 1970: both mean that the clock was never set.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn pause(&self, time: Duration) -> Paused {
        let stopped = |_: &mut Events| self.shared.stop().then_some(Paused::Stopped);
        self.shared.wait_until(boot_time().saturating_add(time), stopped).unwrap_or(Paused::Elapsed)
    }

    fn stop_requested(&self) -> bool {
        self.shared.stop()
    }

    fn random(&self) -> u64 {
        process::random().unwrap_or_else(|_| {
            // Early after the start the kernel may have no randomness yet. Jitter does not need good numbers.
            let count = self.shared.fallback.fetch_add(1, Ordering::Relaxed);
            mixed(self.wall().as_nanos() as u64 ^ boot_time().as_nanos() as u64 ^ (count << 32))
        })
    }
}

/// Waits for events from outside.
#[derive(Debug)]
pub struct LinuxWaiter {
    shared: Arc<Shared>,
}

impl Waiter for LinuxWaiter {
    fn wait(&mut self, time: Duration) -> Wake {
        let shared = &self.shared;
        let most_urgent = |events: &mut Events| {
            if shared.stop() {
                Some(Wake::Stop)
            } else if std::mem::take(&mut events.check_update) {
                Some(Wake::CheckUpdate)
            } else if std::mem::take(&mut events.send_inventory) {
                Some(Wake::SendInventory)
            } else {
                None
            }
        };
        shared.wait_until(boot_time().saturating_add(time), most_urgent).unwrap_or(Wake::Elapsed)
    }
}

/// Time since the start of the kernel, suspend included.
fn boot_time() -> Duration {
    // The clock exists since Linux 2.6.39; the other one is the best there is without it.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC))
        .map_or(Duration::ZERO, Duration::from)
}

/// The finaliser of SplitMix64: every bit of the input changes every bit of the output.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn events_are_not_lost_and_come_by_urgency() {
        let clock = LinuxClock::new();
        let mut waiter = clock.waiter();
        clock.request_send_inventory();
        clock.request_check_update();
        clock.request_check_update();
        assert_eq!(waiter.wait(LONG), Wake::CheckUpdate);
        assert_eq!(waiter.wait(LONG), Wake::SendInventory);
        assert_eq!(waiter.wait(Duration::ZERO), Wake::Elapsed);
        clock.request_check_update();
        clock.request_stop();
        assert_eq!(waiter.wait(LONG), Wake::Stop);
        assert_eq!(waiter.wait(LONG), Wake::Stop);
    }

    #[test]
    fn a_pause_ends_by_a_stop_and_by_nothing_else() {
        let clock = LinuxClock::new();
        clock.request_check_update();
        assert_eq!(clock.pause(Duration::from_millis(5)), Paused::Elapsed);
        let other = clock.clone();
        let started = Instant::now();
        let pausing = thread::spawn(move || other.pause(LONG));
        clock.request_stop();
        assert_eq!(pausing.join().unwrap(), Paused::Stopped);
        assert!(started.elapsed() < LONG);
        assert!(clock.stop_requested());
    }

    #[test]
    fn time_goes_on_and_numbers_differ() {
        let clock = LinuxClock::new();
        let before = clock.now();
        assert_eq!(clock.waiter().wait(Duration::from_millis(2)), Wake::Elapsed);
        assert!(clock.now() >= before + Duration::from_millis(2));
        assert_ne!(clock.random(), clock.random());
        assert!(clock.wall() > Duration::from_secs(1_000_000_000));
    }
}
