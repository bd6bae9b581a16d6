//! The log's lines about requests without a token. Whoever can reach the server can send any number of them, and the log is
//! on a disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::limits;

const SECOND: Duration = Duration::from_secs(1);

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    window: Mutex<Option<Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    count: u32,
}

impl Strangers {
    /// Logs a line, unless there are too many.
    pub(crate) fn note(&self, line: impl FnOnce()) {
        let (is_logged, left_out) = self.count(Instant::now());
        if left_out > 0 {
            log::info!("{left_out} more requests without a token were refused");
        }
        if is_logged {
            line();
        }
    }

    /// Whether one more is logged, and how many before were not.
    fn count(&self, now: Instant) -> (bool, u32) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        match window.as_mut().filter(|window| now.duration_since(window.began) < SECOND) {
            Some(window) => {
                window.count = window.count.saturating_add(1);
                (window.count <= limits::STRANGERS_LOGGED, 0)
            }
            None => {
                let before = window.replace(Window { began: now, count: 1 });
                let left_out =
                    before.map_or(0, |before| before.count.saturating_sub(limits::STRANGERS_LOGGED));
                (true, left_out)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_some_lines_in_each_second_and_a_number() {
        let strangers = Strangers::default();
        let began = Instant::now();
        let logged = (0..1000).filter(|_| strangers.count(began).0).count();
        assert_eq!(logged, 10);
        assert_eq!(strangers.count(began + SECOND), (true, 990));
        assert_eq!(strangers.count(began + SECOND), (true, 0));
    }
}
