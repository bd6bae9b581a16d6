//! Bodies that come from senders who are not known. Anybody can say that one comes and send nothing of it, from many
//! connections: such a request has no place among those that are answered until its body is there, and so many are waited for
//! at one time. When one more comes, the one that is waited for longest makes room: a whole body is there in a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All that are waited for.
#[derive(Debug)]
pub(crate) struct Bodies {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they came.
    awaited: BTreeMap<u64, Arc<Notify>>,
}

/// One that is waited for, until this is dropped.
#[derive(Debug)]
pub(crate) struct Awaited<'a> {
    bodies: &'a Bodies,
    number: u64,
    is_to_go: Arc<Notify>,
}

impl Bodies {
    /// So many at one time.
    pub(crate) fn new(most: usize) -> Bodies {
        Bodies { most, state: Mutex::default() }
    }

    /// One more.
    pub(crate) fn expect(&self) -> Awaited<'_> {
        let mut state = self.lock();
        if state.awaited.len() >= self.most {
            if let Some((_, oldest)) = state.awaited.pop_first() {
                oldest.notify_one();
            }
        }
        let (number, is_to_go) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.awaited.insert(number, is_to_go.clone());
        Awaited { bodies: self, number, is_to_go }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().awaited.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited<'_> {
    /// Comes back when another one needs the room.
    pub(crate) async fn has_to_go(&self) {
        self.is_to_go.notified().await;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.bodies.lock().awaited.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_is_waited_for_longest_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bodies = Bodies::new(2);
            let (first, second) = (bodies.expect(), bodies.expect());
            drop(first);
            let third = bodies.expect();
            assert_eq!(bodies.count(), 2);
            let fourth = bodies.expect();
            second.has_to_go().await;
            for one in [&third, &fourth] {
                tokio::select! {
                    biased;
                    () = one.has_to_go() => panic!("there is room for it"),
                    () = std::future::ready(()) => {}
                }
            }
            drop((second, third, fourth));
            assert_eq!(bodies.count(), 0);
        });
    }
}
