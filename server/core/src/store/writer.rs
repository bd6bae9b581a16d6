//! Writes records: one thread gathers what has come since its last commit into the next one.
//!
//! A commit waits for the disk. While it does, the changes of other requests gather, so that the rate of requests does
//! not hang on the disk's. After a commit that failed the thread tries again until it succeeds, with everything that is
//! missing; meanwhile nothing may be changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::database::{DatabaseFile, Fault};
use super::{StoreError, rows};
use crate::domain::model::Change;

/// Changes gathered into one commit.
const BATCH: usize = 4096;
/// Between a commit that failed and the next attempt: the first and the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Nothing can be stored now; why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WriterFailed(pub(crate) Arc<str>);

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), WriterFailed>>,
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
    /// Jobs that were answered.
    answered: AtomicU64,
    /// Why the last commit failed, until one succeeds.
    failing: RwLock<Option<Arc<str>>>,
}

impl Shared {
    fn failing(&self) -> Option<WriterFailed> {
        self.failing.read().unwrap_or_else(PoisonError::into_inner).clone().map(WriterFailed)
    }

    fn set_failing(&self, reason: Option<Arc<str>>) {
        *self.failing.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

impl Writer {
    pub(super) fn start(file: Arc<DatabaseFile>) -> std::io::Result<Writer> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || run(&file, &receiver, &own))?;
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
        let nothing_left = self.shared.answered.load(Ordering::Acquire) == self.sent.load(Ordering::Acquire);
        if changes.is_empty() && nothing_left && self.shared.failing().is_none() {
            return Pending { wait: None };
        }
        self.sent.fetch_add(1, Ordering::AcqRel);
        // When nobody listens, `done` is dropped, and waiting fails.
        if let Some(jobs) = &*jobs {
            let _ = jobs.send(Job { changes, done });
        }
        Pending { wait: Some(wait) }
    }

    /// Whether changes can be stored. To be asked before anything is changed: what could not be stored is kept until it
    /// can be, so there must not be more and more of it.
    ///
    /// # Errors
    /// Why they cannot.
    pub(crate) fn check(&self) -> Result<(), WriterFailed> {
        self.shared.failing().map_or(Ok(()), Err)
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
    wait: Option<oneshot::Receiver<Result<(), WriterFailed>>>,
}

impl Pending {
    /// Until they are there.
    ///
    /// # Errors
    /// They are not.
    pub(crate) async fn stored(self) -> Result<(), WriterFailed> {
        match self.wait {
            Some(wait) => wait.await.unwrap_or_else(|_| Err(WriterFailed("the server stops".into()))),
            None => Ok(()),
        }
    }
}

fn run(file: &DatabaseFile, jobs: &Receiver<Job>, shared: &Shared) {
    // What commits that failed should have stored. The fleet in memory has it.
    let mut missing: Vec<Change> = Vec::new();
    while let Ok(first) = jobs.recv() {
        let waiting = gather(first, jobs, &mut missing);
        let result = commit(file, &missing);
        answer(shared, waiting, &result);
        match result {
            Ok(()) => missing.clear(),
            Err(reason) => {
                log::error!("nothing can be stored until this is over: {reason}");
                until_stored(file, jobs, shared, &mut missing, reason);
            }
        }
    }
}

/// Takes what has come with `first`.
fn gather(first: Job, jobs: &Receiver<Job>, changes: &mut Vec<Change>) -> Vec<Job> {
    let mut waiting = vec![first];
    waiting.extend(jobs.try_iter().take(BATCH));
    for job in &mut waiting {
        changes.append(&mut job.changes);
    }
    waiting
}

/// The state changes before anybody is told, so that whoever was told sees it.
fn answer(shared: &Shared, waiting: Vec<Job>, result: &Result<(), Arc<str>>) {
    shared.set_failing(result.as_ref().err().cloned());
    shared.answered.fetch_add(waiting.len() as u64, Ordering::AcqRel);
    for job in waiting {
        // The request may have gone away.
        let _ = job.done.send(result.clone().map_err(WriterFailed));
    }
}

/// Tries again and again, until it succeeds or the server stops.
fn until_stored(
    file: &DatabaseFile,
    jobs: &Receiver<Job>,
    shared: &Shared,
    missing: &mut Vec<Change>,
    mut reason: Arc<str>,
) {
    let mut pause = PAUSES.0;
    let mut due = Instant::now() + pause;
    let mut stopping = false;
    while !stopping {
        match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
            // Its request began before the failure was known.
            Ok(job) => {
                answer(shared, gather(job, jobs, missing), &Err(reason.clone()));
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => stopping = true,
        }
        let result = file.open_again().map_err(|error| error.to_string().into());
        match result.and_then(|()| commit(file, missing)) {
            Ok(()) => {
                missing.clear();
                shared.set_failing(None);
                log::warn!("changes are stored again");
                return;
            }
            Err(again) => {
                if again != reason {
                    log::error!("still nothing can be stored: {again}");
                    reason = again;
                    shared.set_failing(Some(reason.clone()));
                }
            }
        }
        pause = (pause * 2).min(PAUSES.1);
        due = Instant::now() + pause;
    }
    log::error!("the server stops, and {} changes could not be stored", missing.len());
}

fn commit(file: &DatabaseFile, changes: &[Change]) -> Result<(), Arc<str>> {
    let stored: Result<(), StoreError> = file.with(|database| {
        let transaction = database.begin_write()?;
        for (definition, key, value) in changes.iter().flat_map(rows) {
            let mut table = transaction.open_table(definition)?;
            match value {
                Some(value) => table.insert(key.as_str(), value.as_slice())?,
                None => table.remove(key.as_str())?,
            };
        }
        transaction.commit()?;
        Ok::<(), Fault>(())
    });
    stored.map_err(|error| error.to_string().into())
}
