//! Time that passes only when it is told to, or when somebody waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use client_core::clock::{Clock, Paused, Waiter, Wake};

/// A [`Clock`] and a [`Waiter`]: a wait lets virtual time pass at once. Clones share the time.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct State {
    now: Duration,
    wall: Duration,
    random: u64,
    stop: bool,
    stop_at: Option<Duration>,
    wakes: VecDeque<Wake>,
    pauses: Vec<Duration>,
}

impl VirtualClock {
    /// A clock in November 2026, with random numbers that follow from `seed`.
    pub fn new(seed: u64) -> VirtualClock {
        let state = State {
            now: Duration::from_secs(1000),
            wall: Duration::from_secs(1_795_374_276),
            random: seed,
            stop: false,
            stop_at: None,
            wakes: VecDeque::new(),
            pauses: Vec::new(),
        };
        VirtualClock { state: Arc::new(Mutex::new(state)) }
    }

    /// For production code that shares a clock.
    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// A clock of its own that goes on from here.
    pub fn snapshot(&self) -> VirtualClock {
        VirtualClock { state: Arc::new(Mutex::new(self.state().clone())) }
    }

    /// Lets `time` pass.
    pub fn advance(&self, time: Duration) {
        let mut state = self.state();
        state.now += time;
        state.wall += time;
        if state.stop_at.is_some_and(|at| at <= state.now) {
            state.stop = true;
        }
    }

    /// Sets the wall clock; monotonic time goes on.
    pub fn set_wall(&self, wall: Duration) {
        self.state().wall = wall;
    }

    /// Asks the process to stop.
    pub fn stop(&self) {
        self.state().stop = true;
    }

    /// Asks the process to stop once `time` has passed: a wait that reaches so far ends there.
    pub fn stop_in(&self, time: Duration) {
        let mut state = self.state();
        state.stop_at = Some(state.now + time);
    }

    /// Makes `wake` happen: the next wait ends with it at once.
    pub fn wake(&self, wake: Wake) {
        self.state().wakes.push_back(wake);
    }

    /// How long each pause and wait was meant to be, and forgets it.
    pub fn take_pauses(&self) -> Vec<Duration> {
        std::mem::take(&mut self.state().pauses)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked with the clock in its hands")
    }

    fn pass(&self, time: Duration) -> Paused {
        let mut state = self.state();
        state.pauses.push(time);
        if state.stop {
            return Paused::Stopped;
        }
        let left = state.stop_at.map(|at| at.saturating_sub(state.now));
        drop(state);
        match left {
            Some(left) if left <= time => {
                self.advance(left);
                Paused::Stopped
            }
            Some(_) | None => {
                self.advance(time);
                Paused::Elapsed
            }
        }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.state().now
    }

    fn wall(&self) -> Duration {
        self.state().wall
    }

    fn pause(&self, time: Duration) -> Paused {
        self.pass(time)
    }

    fn stop_requested(&self) -> bool {
        self.state().stop
    }

    /// SplitMix64.
    fn random(&self) -> u64 {
        let mut state = self.state();
        state.random = state.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

impl Waiter for VirtualClock {
    fn wait(&mut self, time: Duration) -> Wake {
        let mut state = self.state();
        if state.stop {
            return Wake::Stop;
        }
        let urgency = |wake: &Wake| match wake {
            Wake::Stop => 0,
            Wake::CheckUpdate => 1,
            Wake::SendInventory => 2,
            Wake::Elapsed => 3,
        };
        let most_urgent = (0..state.wakes.len()).min_by_key(|at| urgency(&state.wakes[*at]));
        if let Some(wake) = most_urgent.and_then(|at| state.wakes.remove(at)) {
            state.stop |= wake == Wake::Stop;
            return wake;
        }
        drop(state);
        match self.pass(time) {
            Paused::Elapsed => Wake::Elapsed,
            Paused::Stopped => Wake::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lets_exactly_its_time_pass_and_a_stop_ends_it() {
        let clock = VirtualClock::new(1);
        let begun = clock.now();
        assert_eq!(clock.pause(Duration::from_secs(7)), Paused::Elapsed);
        assert_eq!(clock.now() - begun, Duration::from_secs(7));
        clock.stop_in(Duration::from_secs(2));
        assert_eq!(clock.pause(Duration::from_secs(7)), Paused::Stopped);
        assert_eq!(clock.now() - begun, Duration::from_secs(9));
        assert!(clock.stop_requested());
        assert_eq!(clock.clone().wait(Duration::from_secs(1)), Wake::Stop);
    }

    #[test]
    fn the_most_urgent_event_comes_first_and_none_is_lost() {
        let mut clock = VirtualClock::new(1);
        clock.wake(Wake::SendInventory);
        clock.wake(Wake::CheckUpdate);
        let wakes: Vec<Wake> = (0..3).map(|_| clock.wait(Duration::from_secs(1))).collect();
        assert_eq!(wakes, [Wake::CheckUpdate, Wake::SendInventory, Wake::Elapsed]);
    }
}
