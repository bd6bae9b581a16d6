//! Writes: one thread gathers what has come since its last commit into the next one.
//!
//! A commit waits for the disk. While it does, the jobs of other requests gather, so that the rate of requests does not hang
//! on the disk's. A commit that fails is as if its jobs had not been: they are told, and the thread tries until it can
//! write again.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::columns::Columns;
use super::read::{self, Fault, Names};
use super::schema::{self, Use};
use super::write::{self, Flush};
use crate::model::time::Timestamp;
use crate::store::{Job, Watch, WriterFailed, committed, run_job};
use crate::work::{Key, Loaded, Stream, Work};

/// Jobs of one commit.
const BATCH: usize = 4096;
/// After a failure, until it is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// What the thread is told.
pub(super) enum Order {
    /// A rule.
    Job(Job),
    /// When devices were heard of.
    CheckIns(Vec<(u32, Timestamp)>, oneshot::Sender<Result<u64, WriterFailed>>),
    /// Old events go.
    Forget(Stream, Timestamp, u64, oneshot::Sender<Result<u64, WriterFailed>>),
    /// An old deployment goes; what is answered is whether it is gone.
    ForgetDeployment(String, u64, oneshot::Sender<Result<u64, WriterFailed>>),
}

impl Order {
    fn answer(self, answer: Own) {
        // The request may have gone away.
        match self {
            Order::Job(job) => drop(job.done.send(answer.map(|_| ()))),
            Order::CheckIns(_, done) | Order::Forget(_, _, _, done) | Order::ForgetDeployment(_, _, done) => {
                drop(done.send(answer));
            }
        }
    }
}

/// The handle of the thread.
pub(super) struct Writer {
    orders: Mutex<Option<Sender<Order>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    failing: RwLock<Option<Arc<str>>>,
    watches: RwLock<Vec<Arc<dyn Watch>>>,
}

impl Writer {
    /// Starts the thread, with a connection that writes.
    pub(super) fn start(
        path: PathBuf,
        connection: Connection,
        names: Arc<Names>,
        columns: Arc<Columns>,
    ) -> std::io::Result<Writer> {
        let (orders, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let state = State { path, connection: Some(connection), names, columns, shared: shared.clone() };
        let thread =
            std::thread::Builder::new().name("writer".to_owned()).spawn(move || state.run(&receiver))?;
        Ok(Writer { orders: Mutex::new(Some(orders)), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands something over.
    pub(super) fn send(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = match orders {
            Some(orders) => orders.send(order).err().map(|error| error.0),
            None => Some(order),
        };
        if let Some(order) = refused {
            order.answer(Err(WriterFailed("the server stops".into())));
        }
    }

    pub(super) fn watch(&self, watch: Arc<dyn Watch>) {
        self.shared.watches.write().unwrap_or_else(PoisonError::into_inner).push(watch);
    }

    /// Why nothing can be stored. The thread tries again until something can.
    pub(super) fn check(&self) -> Result<(), WriterFailed> {
        match &*self.shared.failing.read().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(WriterFailed(reason.clone())),
            None => Ok(()),
        }
    }

    /// Writes what waits, and ends.
    pub(super) fn stop(&self) {
        drop(self.orders.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the writer has panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

struct State {
    path: PathBuf,
    /// `None` after an error, until it can be opened again.
    connection: Option<Connection>,
    names: Arc<Names>,
    columns: Arc<Columns>,
    shared: Arc<Shared>,
}

/// What comes of an order when the transaction is durable.
type Own = Result<u64, WriterFailed>;

impl State {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let is_failing = self.shared.failing.read().unwrap_or_else(PoisonError::into_inner).is_some();
            let first = match is_failing {
                false => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                true => orders.recv_timeout(PAUSE),
            };
            match first {
                Ok(first) => {
                    let mut waiting = vec![first];
                    waiting.extend(orders.try_iter().take(BATCH - 1));
                    self.transact(waiting);
                }
                // Nobody sends anything while it is known that nothing can be stored.
                Err(RecvTimeoutError::Timeout) => self.transact(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // So that the file alone is all there is.
        if let Some(connection) = &self.connection {
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    fn transact(&mut self, mut waiting: Vec<Order>) {
        let mut own = Vec::with_capacity(waiting.len());
        let began = Instant::now();
        let result = self.committed(&mut waiting, &mut own);
        let took = began.elapsed();
        let jobs = waiting.iter().filter(|order| matches!(order, Order::Job(_))).count();
        let failed = result.as_ref().err().cloned();
        self.set_failing(failed.as_ref());
        if let Ok(work) = result {
            let committed = committed(&work);
            for watch in &*self.shared.watches.read().unwrap_or_else(PoisonError::into_inner) {
                watch.committed(&committed);
                watch.written(jobs, took);
            }
        }
        let failed = failed.map(WriterFailed);
        own.resize(waiting.len(), Ok(0));
        for (order, own) in waiting.into_iter().zip(own) {
            order.answer(failed.clone().map_or(own, Err));
        }
    }

    fn set_failing(&self, reason: Option<&Arc<str>>) {
        let mut failing = self.shared.failing.write().unwrap_or_else(PoisonError::into_inner);
        match (&*failing, reason) {
            (None, Some(reason)) => log::error!("nothing can be stored: {reason}"),
            (Some(before), Some(reason)) if before != reason => {
                log::error!("still nothing can be stored: {reason}");
            }
            (Some(_), None) => log::warn!("changes are stored again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *failing = reason.cloned();
    }

    fn committed(&mut self, waiting: &mut [Order], own: &mut Vec<Own>) -> Result<Work, Arc<str>> {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => schema::connect(&self.path, Use::Write),
        };
        let result = connection.map_err(Fault::from).and_then(|connection| {
            let result = self.try_transact(&connection, waiting, own);
            // What cannot be rolled back is closed, which rolls it back.
            if result.is_ok() || connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
                self.connection = Some(connection);
            }
            result
        });
        result.map_err(|fault| fault.named(&self.path).to_string().into())
    }

    fn try_transact(
        &self,
        connection: &Connection,
        waiting: &mut [Order],
        own: &mut Vec<Own>,
    ) -> Result<Work, Fault> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut work = Work::numbered(Timestamp::now(), read::next(connection)?);
        let load = |work: &mut Work, keys: Vec<Key>| load(connection, &self.names, work, keys);
        let keys = waiting.iter().flat_map(|order| match order {
            Order::Job(job) => job.keys.clone(),
            Order::CheckIns(..) | Order::Forget(..) | Order::ForgetDeployment(..) => Vec::new(),
        });
        match load(&mut work, keys.collect()) {
            // Only the job that needs what is damaged fails.
            Ok(()) | Err(Fault::Damaged(_)) => {}
            Err(fault) => return Err(fault),
        }
        for order in waiting.iter_mut() {
            own.push(match order {
                Order::Job(job) => match run_job(&mut work, &mut *job.run, load) {
                    Ok(()) => Ok(0),
                    Err(fault @ Fault::Damaged(_)) => {
                        Err(WriterFailed(fault.named(&self.path).to_string().into()))
                    }
                    Err(fault) => return Err(fault),
                },
                Order::CheckIns(times, _) => {
                    write::check_ins(connection, times)?;
                    Ok(0)
                }
                Order::Forget(stream, before, most, _) => {
                    Ok(write::forget_events(connection, *stream, *before, *most)?)
                }
                Order::ForgetDeployment(id, most, _) => {
                    Ok(u64::from(write::forget_deployment(connection, id, *most)?))
                }
            });
        }
        if waiting.is_empty() {
            // It is tried whether something can be stored.
            connection
                .execute("INSERT OR REPLACE INTO meta VALUES('tried', ?1)", [work.now().to_string()])?;
        }
        let mut flush = Flush::new(connection, &self.names);
        flush.work(&work)?;
        let posts = flush.posts();
        self.columns.changing(&posts);
        let written = flush.end().and_then(|()| Ok(connection.execute_batch("COMMIT")?));
        self.columns.changed(&posts);
        written.map(|()| work)
    }
}

fn load(connection: &Connection, names: &Names, work: &mut Work, keys: Vec<Key>) -> Result<(), Fault> {
    for key in keys {
        if work.has(&key) {
            continue;
        }
        let loaded = match key {
            Key::Device(id) => {
                let device = read::device(connection, &id)?;
                Loaded::Device(id, device)
            }
            Key::Identity(sha) => {
                let device = read::device_of_identity(connection, &sha)?;
                Loaded::Identity(sha, device)
            }
            Key::AuthSet(set) => {
                let device = match read::device_of_auth_set(connection, &set)? {
                    Some(number) => read::id_ever(connection, number)?,
                    None => None,
                };
                Loaded::AuthSet(set, device)
            }
            Key::Inventory(id) => {
                let inventory = match read::number(connection, &id)? {
                    Some(number) => read::inventory(connection, names, number)?,
                    None => None,
                };
                Loaded::Inventory(id, inventory)
            }
            Key::Deployment(id) => {
                let deployment = read::deployment(connection, &id)?;
                Loaded::Deployment(id, deployment)
            }
            Key::Members(id) => {
                let members = read::members_of(connection, &id)?;
                Loaded::Members(id, members)
            }
            Key::Record(deployment, device) => {
                let record = read::record(connection, &deployment, &device)?;
                Loaded::Record(deployment, device, record)
            }
            Key::Document(kind, id) => {
                let document = read::document(connection, kind, &id)?;
                Loaded::Document(kind, id, document)
            }
            Key::Count(status) => Loaded::Count(status, read::count(connection, status)?),
        };
        work.load(loaded);
    }
    Ok(())
}
