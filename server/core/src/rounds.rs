//! Those who are told something in the background, each by itself: one that is slow, or does not answer, keeps no other waiting.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinSet};

/// How often it is looked whether there is something to tell.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
pub(crate) const LONGEST: Duration = Duration::from_secs(300);

/// Who is being told, and who is let alone until when.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// What they are, for the log.
    what: &'static str,
    told: JoinSet<Option<Duration>>,
    busy: HashMap<Id, (String, String)>,
    /// Until when, and where they were then: whoever mends an address does not wait.
    later: HashMap<String, (String, Instant)>,
}

impl Rounds {
    /// Nobody is told yet. `what` is what they are, for the log: `a webhook`.
    pub(crate) fn new(what: &'static str) -> Rounds {
        Rounds { what, told: JoinSet::new(), busy: HashMap::new(), later: HashMap::new() }
    }

    /// Begins a round among those who are `known` at a place.
    pub(crate) fn begin(&mut self, known: impl Fn(&str, &str) -> bool) {
        while let Some(done) = self.told.try_join_next_with_id() {
            match done {
                Ok((task, wait)) => {
                    let told = self.busy.remove(&task).zip(wait);
                    let later = told.map(|((id, place), wait)| (id, (place, Instant::now() + wait)));
                    self.later.extend(later);
                }
                Err(error) => {
                    self.busy.remove(&error.id());
                    if !error.is_cancelled() {
                        log::error!("{} was not told: {error}", self.what);
                    }
                }
            }
        }
        self.later.retain(|id, (place, until)| Instant::now() < *until && known(id, place));
    }

    /// Whether somebody can be told now.
    pub(crate) fn is_free(&self, id: &str) -> bool {
        !self.later.contains_key(id) && !self.busy.values().any(|(one, _)| one == id)
    }

    /// Tells somebody at a place. What that ends with is for how long he is let alone then.
    pub(crate) fn tell(
        &mut self,
        id: String,
        place: String,
        telling: impl Future<Output = Option<Duration>> + Send + 'static,
    ) {
        let task = self.told.spawn(telling);
        self.busy.insert(task.id(), (id, place));
    }

    /// Another process does it now.
    pub(crate) fn leave(&mut self) {
        self.told.abort_all();
    }

    /// Ends, without waiting for anybody who is told.
    pub(crate) async fn end(mut self) {
        self.told.shutdown().await;
    }
}

/// One second, and twice as long each time.
pub(crate) fn wait_after(tries: u32) -> Duration {
    Duration::from_secs(1_u64.checked_shl(tries).unwrap_or(u64::MAX)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_an_end() {
        let waits = [0, 1, 2, 8, 9, 31, 64, u32::MAX].map(|tries| wait_after(tries).as_secs());
        assert_eq!(waits, [1, 2, 4, 256, 300, 300, 300, 300]);
    }
}
