//! When devices were heard of. It changes with every request, so it is stored now and then: what is not stored yet is here,
//! and is put over what is read from the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::time::Timestamp;
use crate::store::{Committed, Store, StoreError, Watch};
use crate::work::query::DeviceView;

/// Times of so many devices are stored as soon as it is looked for them: that is a small transaction.
const FEW: usize = 1000;
/// How long the times of more may wait.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// When devices were heard of, by their numbers.
#[derive(Default)]
pub(crate) struct Heard {
    times: Mutex<Times>,
    /// One after the other: what is under way is of one of them.
    flushing: tokio::sync::Mutex<()>,
    changes: AtomicU64,
}

#[derive(Default)]
struct Times {
    /// Not stored yet.
    new: HashMap<u32, Timestamp>,
    /// On their way to the store.
    under_way: HashMap<u32, Timestamp>,
    /// Reports that said what the reports before them did: only their times are new, and are not stored.
    reports: HashMap<u32, Timestamp>,
}

impl Heard {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device was heard of.
    pub(crate) fn note(&self, number: u32, now: Timestamp) {
        self.times().new.insert(number, now);
    }

    /// A device has reported; with `None`, the time is stored with its report.
    pub(crate) fn note_report(&self, number: u32, same: Option<Timestamp>) {
        let mut times = self.times();
        match same {
            Some(now) => times.reports.insert(number, now),
            None => times.reports.remove(&number),
        };
    }

    /// Puts what is not stored over what was read.
    pub(crate) fn put_over(&self, view: &mut DeviceView) {
        let number = view.device.number;
        let times = self.times();
        let newer = [times.new.get(&number), times.under_way.get(&number)];
        view.check_in = newer.into_iter().flatten().copied().chain(view.check_in).max();
        if let Some(report) = times.reports.get(&number) {
            view.inventory.updated = view.inventory.updated.max(Some(*report));
        }
    }

    /// Whether it is time to store what is not stored yet: of a few devices soon, so that people see them as they come; of many after a
    /// minute, when most are in it with one of several times.
    pub(crate) fn is_due(&self, since: Duration) -> bool {
        self.times().new.len() <= FEW || since >= INTERVAL
    }

    /// Stores what is not stored yet.
    ///
    /// # Errors
    /// It could not be; it is kept then.
    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one = self.flushing.lock().await;
        let taken: Vec<(u32, Timestamp)> = {
            let mut times = self.times();
            times.under_way = std::mem::take(&mut times.new);
            times.under_way.iter().map(|(number, time)| (*number, *time)).collect()
        };
        if taken.is_empty() {
            return Ok(());
        }
        let stored = store.check_ins(taken).await;
        let mut times = self.times();
        let under_way = std::mem::take(&mut times.under_way);
        if stored.is_err() {
            for (number, time) in under_way {
                times.new.entry(number).or_insert(time);
            }
        }
        stored
    }

    /// How often devices have changed, as far as this process knows: as long as it is the same, what was read of a device
    /// holds.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

impl Watch for Heard {
    fn committed(&self, committed: &Committed) {
        if !committed.devices.is_empty() {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_few_devices_are_stored_soon_and_those_of_many_after_a_minute() {
        let heard = Heard::default();
        for number in 0..1000 {
            heard.note(number, Timestamp(1));
            heard.note(number, Timestamp(2));
        }
        assert!(heard.is_due(Duration::ZERO));
        heard.note(1000, Timestamp(2));
        assert!(!heard.is_due(Duration::from_secs(59)));
        assert!(heard.is_due(Duration::from_secs(60)));
    }
}
