//! Writes records: one thread gathers what has come since its last commit into the next one.
//!
//! A commit waits for the disk. While it does, the changes of other requests gather, so that the rate of requests does
//! not hang on the disk's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::Database;
use tokio::sync::oneshot;

use super::{StoreError, rows};
use crate::domain::model::Change;

/// Changes gathered into one commit.
const BATCH: usize = 4096;

/// A commit has failed. What the server knows is not what is stored, so it writes nothing until it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriterFailed;

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<()>,
}

/// The handle of the thread.
pub(crate) struct Writer {
    jobs: Mutex<Option<Sender<Job>>>,
    sent: AtomicU64,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    committed: AtomicU64,
    failed: AtomicBool,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>) -> std::io::Result<Writer> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || run(&database, &receiver, &own))?;
        Ok(Writer {
            jobs: Mutex::new(Some(sender)),
            sent: AtomicU64::new(0),
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands `changes` over; the result is there when they are on the disk, with everything that was handed over
    /// before. To be called while the fleet is still locked, so that changes are written in the order they happened.
    pub(crate) fn write(&self, changes: Vec<Change>) -> Pending {
        let (done, wait) = oneshot::channel();
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing_left = self.shared.committed.load(Ordering::Acquire) == self.sent.load(Ordering::Acquire);
        if changes.is_empty() && nothing_left && !self.shared.failed.load(Ordering::Acquire) {
            return Pending { wait: None };
        }
        self.sent.fetch_add(1, Ordering::AcqRel);
        // When nobody listens, `done` is dropped, and waiting fails.
        if let Some(jobs) = &*jobs {
            let _ = jobs.send(Job { changes, done });
        }
        Pending { wait: Some(wait) }
    }

    /// Writes what is left, and ends.
    pub(crate) fn stop(&self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            if thread.join().is_err() {
                log::error!("the writer of the database has panicked");
            }
        }
    }
}

/// Changes on their way to the disk.
#[must_use]
pub(crate) struct Pending {
    wait: Option<oneshot::Receiver<()>>,
}

impl Pending {
    /// Until they are there.
    ///
    /// # Errors
    /// They are not.
    pub(crate) async fn stored(self) -> Result<(), WriterFailed> {
        match self.wait {
            Some(wait) => wait.await.map_err(|_| WriterFailed),
            None => Ok(()),
        }
    }
}

fn run(database: &Database, jobs: &Receiver<Job>, shared: &Shared) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(BATCH));
        if shared.failed.load(Ordering::Acquire) {
            continue;
        }
        let (changes, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.changes, job.done)).unzip();
        let count = waiting.len() as u64;
        match commit(database, changes) {
            Ok(()) => {
                shared.committed.fetch_add(count, Ordering::AcqRel);
                for done in waiting {
                    // The request may have gone away.
                    let _ = done.send(());
                }
            }
            Err(error) => {
                shared.failed.store(true, Ordering::Release);
                log::error!("nothing is written any more until the server is started again: {error}");
            }
        }
    }
}

fn commit(database: &Database, changes: Vec<Vec<Change>>) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    for (definition, key, value) in changes.into_iter().flatten().flat_map(rows) {
        let mut table = transaction.open_table(definition)?;
        match value {
            Some(value) => table.insert(key.as_str(), value.as_slice())?,
            None => table.remove(key.as_str())?,
        };
    }
    transaction.commit()?;
    Ok(())
}
