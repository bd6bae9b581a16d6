//! Which device is to ask what, and when: on a schedule that no answer moves, or as soon as there is somebody to ask.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One question that is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// When: its time begins then, whether anybody is free to ask or not.
    pub(super) due: Instant,
    /// When it was due first, before the server has said "later".
    pub(super) first: Instant,
    /// The number of the device.
    pub(super) device: u32,
    /// Which of the device's questions.
    pub(super) step: u8,
}

/// Which devices begin, and when.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// When the first one does.
    pub(super) begin: Instant,
    /// From one to the next; `None` for as soon as possible.
    pub(super) interval: Option<Duration>,
    /// How many begin.
    pub(super) count: u64,
    /// Nothing is due after that.
    pub(super) end: Option<Instant>,
}

/// All questions of one kind of load.
pub(super) struct Queue {
    schedule: Schedule,
    devices: Box<dyn Fn(u64) -> u32 + Send + Sync>,
    inside: Mutex<Inside>,
}

struct Inside {
    begun: u64,
    later: BinaryHeap<Reverse<Turn>>,
}

impl Queue {
    /// `devices` says which device is the first, the second, and so on.
    pub(super) fn new(schedule: Schedule, devices: impl Fn(u64) -> u32 + Send + Sync + 'static) -> Queue {
        let inside = Mutex::new(Inside { begun: 0, later: BinaryHeap::new() });
        Queue { schedule, devices: Box::new(devices), inside }
    }

    /// What is due next, whenever that is; `None` when everything was handed out.
    pub(super) fn take(&self, now: Instant) -> Option<Turn> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let later = inside.later.peek().map(|Reverse(turn)| turn.due);
        let fresh = (inside.begun < self.schedule.count).then(|| self.due(inside.begun, now));
        let turn = match (fresh, later) {
            (None, None) => None,
            (Some(fresh), later) if later.is_none_or(|later| fresh < later) => {
                let device = (self.devices)(inside.begun);
                inside.begun += 1;
                Some(Turn { due: fresh, first: fresh, device, step: 0 })
            }
            (Some(_) | None, _) => inside.later.pop().map(|Reverse(turn)| turn),
        };
        turn.filter(|turn| self.schedule.end.is_none_or(|end| turn.due < end))
    }

    /// When the question with that number is due.
    fn due(&self, number: u64, now: Instant) -> Instant {
        match self.schedule.interval {
            Some(interval) => self.schedule.begin + interval.mul_f64(number as f64),
            None => now.max(self.schedule.begin),
        }
    }

    /// Something that comes after what was taken.
    pub(super) fn put(&self, turn: Turn) {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).later.push(Reverse(turn));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue(interval: Option<Duration>, count: u64, end: Option<u32>) -> (Queue, Instant) {
        let begin = Instant::now();
        let end = end.map(|seconds| begin + SECOND * seconds);
        let devices = |number| u32::try_from(number).unwrap() + 100;
        (Queue::new(Schedule { begin, interval, count, end }, devices), begin)
    }

    #[test]
    fn no_answer_moves_the_schedule() {
        let (queue, begin) = queue(Some(SECOND), 3, None);
        let late = begin + SECOND * 60;
        let due: Vec<_> = std::iter::from_fn(|| queue.take(late)).collect();
        let wanted = [0, 1, 2].map(|n: u32| Turn {
            due: begin + SECOND * n,
            first: begin + SECOND * n,
            device: 100 + n,
            step: 0,
        });
        assert_eq!(due, wanted);
    }

    #[test]
    fn what_was_put_back_comes_when_it_is_due() {
        let (queue, begin) = queue(Some(SECOND * 10), 2, None);
        let mut first = queue.take(begin).unwrap();
        (first.due, first.step) = (begin + SECOND * 5, 1);
        queue.put(first);
        assert_eq!(queue.take(begin), Some(first));
        assert_eq!(queue.take(begin).unwrap().device, 101);
        assert_eq!(queue.take(begin), None);
    }

    #[test]
    fn a_device_that_has_begun_goes_on_before_another_begins() {
        let (queue, begin) = queue(None, 2, None);
        let mut first = queue.take(begin).unwrap();
        first.step = 1;
        queue.put(first);
        assert_eq!(queue.take(begin + SECOND), Some(first));
        assert_eq!(queue.take(begin + SECOND).unwrap().device, 101);
    }

    #[test]
    fn nothing_is_due_after_the_end() {
        let (queue, begin) = queue(Some(SECOND * 2), 10, Some(3));
        assert!(queue.take(begin).is_some() && queue.take(begin).is_some());
        assert_eq!(queue.take(begin), None);
    }
}
