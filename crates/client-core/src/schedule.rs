//! When to ask for an update, when to send the inventory, and when to send alerts. Decides only; it waits for nothing and sends nothing.
//!
//! Everything is measured on the monotonic clock. The first round comes soon after the start, at a random moment, and
//! every interval is a little longer or shorter: devices that start together do not stay together.

use std::time::Duration;

use crate::clock::{Clock, between};

/// The first round comes within this time of the start.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// Shortest interval: less is no interval.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest interval. Whoever configures more wants "never", and ten years are as good.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Share of an interval by which it may be longer or shorter.
const JITTER: u32 = 10;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Send the inventory. Comes first where both are due: the server may choose what to order by it.
    Inventory,
    /// Ask for an update.
    Update,
    /// Send alerts.
    Alerts,
}

/// What is due at no time, so far.
const NEVER: Duration = Duration::MAX;

/// The timers.
#[derive(Debug, Clone)]
pub struct Schedule {
    inventory: Timer,
    update: Timer,
    /// Only while there are some.
    alerts: Timer,
    /// Before this the server is left alone.
    first: Duration,
}

#[derive(Debug, Clone)]
struct Timer {
    interval: Duration,
    /// On the monotonic clock.
    next: Duration,
    last: Last,
}

/// How it went when it was tried last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Done,
    Failed,
    /// The server said when it is to be tried again.
    PutOff,
}

impl Schedule {
    /// Intervals as configured; the first round within a minute, or within the shorter interval.
    pub fn new(clock: &dyn Clock, update_interval: Duration, inventory_interval: Duration) -> Schedule {
        let update = update_interval.clamp(SHORTEST, LONGEST);
        let inventory = inventory_interval.clamp(SHORTEST, LONGEST);
        let spread = FIRST_WITHIN.min(update).min(inventory);
        let first = clock.now().saturating_add(between(clock, Duration::ZERO, spread));
        let timer = |interval| Timer { interval, next: first, last: Last::Done };
        let alerts = Timer { next: NEVER, ..timer(update) };
        Schedule { inventory: timer(inventory), update: timer(update), alerts, first }
    }

    /// What is due at `now`, the most important first.
    pub fn due(&self, now: Duration) -> Option<Due> {
        [Due::Inventory, Due::Update, Due::Alerts].into_iter().find(|due| self.timer(*due).next <= now)
    }

    /// How long nothing is due.
    pub fn next_in(&self, now: Duration) -> Duration {
        self.inventory.next.min(self.update.next).min(self.alerts.next).saturating_sub(now)
    }

    /// How long until the server is asked for an update.
    pub(crate) fn next_update_in(&self, now: Duration) -> Duration {
        self.update.next.saturating_sub(now)
    }

    /// How long until the inventory is sent.
    pub(crate) fn next_inventory_in(&self, now: Duration) -> Duration {
        self.inventory.next.saturating_sub(now)
    }

    /// Makes an update check due at once.
    pub fn poll_now(&mut self) {
        self.update.next = Duration::ZERO;
    }

    /// Makes the inventory due at once.
    pub fn inventory_now(&mut self) {
        self.inventory.next = Duration::ZERO;
    }

    /// There are alerts: due at once, unless they are to be tried again at another time.
    pub fn has_alerts(&mut self) {
        if self.alerts.next == NEVER {
            self.alerts.next = self.first;
        }
    }

    /// The server answers, perhaps since this very moment: what failed is due at once, unless the server said when.
    pub fn retry_what_failed(&mut self) {
        for timer in [&mut self.inventory, &mut self.alerts] {
            if timer.last == Last::Failed {
                timer.next = Duration::ZERO;
            }
        }
    }

    /// It was tried and has not been done since.
    pub fn is_owed(&self, due: Due) -> bool {
        self.timer(due).last != Last::Done
    }

    /// There are no alerts any more.
    pub fn has_no_alerts(&mut self) {
        (self.alerts.next, self.alerts.last) = (NEVER, Last::Done);
    }

    /// It was done: due again after its interval.
    pub fn after_success(&mut self, due: Due, clock: &dyn Clock) {
        self.after_interval(due, clock, Last::Done);
    }

    /// It failed too often: due again after its interval.
    pub fn after_too_many_failures(&mut self, due: Due, clock: &dyn Clock) {
        self.after_interval(due, clock, Last::Failed);
    }

    /// It failed: due again after `wait`, or a little later.
    pub fn after_failure(&mut self, due: Due, clock: &dyn Clock, wait: Duration) {
        self.after_at_least(due, clock, wait, Last::Failed);
    }

    /// The server asked for `wait`: due again then, or a little later; never earlier.
    pub fn put_off(&mut self, due: Due, clock: &dyn Clock, wait: Duration) {
        self.after_at_least(due, clock, wait, Last::PutOff);
    }

    fn after_interval(&mut self, due: Due, clock: &dyn Clock, last: Last) {
        let timer = self.timer_mut(due);
        let jitter = timer.interval / JITTER;
        let wait = between(clock, timer.interval - jitter, timer.interval + jitter);
        (timer.next, timer.last) = (clock.now().saturating_add(wait), last);
    }

    fn after_at_least(&mut self, due: Due, clock: &dyn Clock, wait: Duration, last: Last) {
        let wait = wait.clamp(SHORTEST, LONGEST);
        let wait = between(clock, wait, wait + wait / JITTER);
        let timer = self.timer_mut(due);
        (timer.next, timer.last) = (clock.now().saturating_add(wait), last);
    }

    fn timer(&self, due: Due) -> &Timer {
        match due {
            Due::Inventory => &self.inventory,
            Due::Update => &self.update,
            Due::Alerts => &self.alerts,
        }
    }

    fn timer_mut(&mut self, due: Due) -> &mut Timer {
        match due {
            Due::Inventory => &mut self.inventory,
            Due::Update => &mut self.update,
            Due::Alerts => &mut self.alerts,
        }
    }
}
