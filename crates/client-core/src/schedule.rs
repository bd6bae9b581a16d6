//! When the server is asked for an update, and when the inventory is sent. Pure: time comes in as a value.

use std::time::Duration;

use crate::clock::Clock;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Send the inventory.
    Inventory,
    /// Ask for an update.
    Check,
}

/// The two timers of the daemon.
#[derive(Debug, Clone)]
pub struct Schedule {
    check_every: Duration,
    inventory_every: Duration,
    check_at: Duration,
    inventory_at: Duration,
}

impl Schedule {
    /// Both are due at once.
    pub fn new(clock: &dyn Clock, check_every: Duration, inventory_every: Duration) -> Schedule {
        let now = clock.now();
        Schedule { check_every, inventory_every, check_at: now, inventory_at: now }
    }
    /// .
    pub fn next_check_in(&self, now: Duration) -> Duration {
        self.check_at.saturating_sub(now)
    }
    /// .
    pub fn next_inventory_in(&self, now: Duration) -> Duration {
        self.inventory_at.saturating_sub(now)
    }
    /// .
    pub fn next_in(&self, now: Duration) -> Duration {
        self.next_check_in(now).min(self.next_inventory_in(now))
    }
    /// .
    pub fn check_now(&mut self) {
        self.check_at = Duration::ZERO;
    }
    /// .
    pub fn inventory_now(&mut self) {
        self.inventory_at = Duration::ZERO;
    }
    /// .
    pub fn due(&self, now: Duration) -> Option<Task> {
        if self.inventory_at <= now {
            Some(Task::Inventory)
        } else if self.check_at <= now {
            Some(Task::Check)
        } else {
            None
        }
    }
    /// .
    pub fn checked(&mut self, now: Duration) {
        self.check_at = now.saturating_add(self.check_every);
    }
    /// .
    pub fn inventory_sent(&mut self, now: Duration) {
        self.inventory_at = now.saturating_add(self.inventory_every);
    }
    /// .
    pub fn check_failed(&mut self, now: Duration, wait: Duration) {
        self.check_at = now.saturating_add(wait.min(self.check_every));
    }
    /// .
    pub fn inventory_failed(&mut self, now: Duration, wait: Duration) {
        self.inventory_at = now.saturating_add(wait.min(self.inventory_every));
    }
}
