//! The fleet in one file of SQLite, beside the process that serves it.

mod code;
mod columns;
mod find;
mod folder;
mod list;
mod read;
mod schema;
mod sort;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use rusqlite::Connection;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use self::columns::{Columns, Moment};
use self::read::{Fault, Names};
use self::schema::Use;
use self::writer::{Order, Writer};
use super::{DumpRow, Job, Rows, Store, StoreError, Watch, WriterFailed};
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory};
use crate::work::query::{
    Active, DeploymentQuery, DeviceQuery, DeviceView, EventQuery, Found, Listed, Numbered, RecordQuery, Scope,
};
use crate::work::{Kind, Stream};

pub(crate) use folder::{Lock, hold, open, open_beside, open_known};

/// Connections for questions about one record: they are answered at once, by whoever asks.
const READERS: usize = 4;
/// Questions about many records that are answered at a time. There are as many processors.
const LONG_READS: usize = 2;

/// The store.
pub(crate) struct Sqlite {
    writer: Writer,
    readers: Arc<Readers>,
    long: Arc<Semaphore>,
}

/// Connections that read.
struct Readers {
    path: PathBuf,
    names: Arc<Names>,
    short: Vec<Mutex<Connection>>,
    long: Vec<Mutex<Connection>>,
    index: find::Index,
    columns: Arc<Columns>,
    /// The folder is nobody else's until this is dropped.
    lock: Mutex<Option<folder::Lock>>,
}

/// What a question about many records has besides its transaction.
#[derive(Clone, Copy)]
struct Reading<'a> {
    readers: &'a Readers,
    /// The transaction began behind it.
    moment: Moment,
}

/// One of these that nobody uses, or the first.
fn free(connections: &[Mutex<Connection>]) -> Option<MutexGuard<'_, Connection>> {
    for connection in connections {
        match connection.try_lock() {
            Ok(connection) => return Some(connection),
            Err(TryLockError::Poisoned(connection)) => return Some(connection.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    Some(connections.first()?.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Readers {
    fn with<T>(
        &self,
        connections: &[Mutex<Connection>],
        read: impl FnOnce(&Connection, &Readers) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let connection = free(connections).ok_or_else(|| StoreError::Database {
            place: self.path.display().to_string(),
            reason: "there is no connection".to_owned(),
        })?;
        read(&connection, self).map_err(|fault| fault.named(&self.path))
    }
}

/// Does `read` in one transaction: everything that it sees is of one moment.
fn at_one_moment<T>(
    connection: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let transaction = connection.unchecked_transaction()?;
    // The moment is that of the first reading.
    transaction.prepare_cached("SELECT 1 FROM meta LIMIT 1")?.exists([])?;
    let result = read(&transaction);
    // It has changed nothing: however it ends.
    drop(transaction);
    result
}

impl Sqlite {
    /// Starts with a file that is as it is to be.
    fn start(path: &Path, writer: Connection, lock: Option<folder::Lock>) -> Result<Sqlite, StoreError> {
        let fault = |error: rusqlite::Error| Fault::from(error).named(path);
        let names = Arc::new(Names::default());
        let connect = || schema::connect(path, Use::Read).map(Mutex::new);
        let readers = Arc::new(Readers {
            path: path.to_owned(),
            names: names.clone(),
            short: (0..READERS).map(|_| connect()).collect::<Result<_, _>>().map_err(fault)?,
            long: (0..LONG_READS).map(|_| connect()).collect::<Result<_, _>>().map_err(fault)?,
            index: find::Index::default(),
            columns: Arc::new(Columns::new(lock.is_some())),
            lock: Mutex::new(lock),
        });
        let columns = readers.columns.clone();
        let writer = Writer::start(path.to_owned(), writer, names, columns).map_err(|source| {
            StoreError::Io { doing: "starting the writer of", path: path.to_owned(), source }
        })?;
        Ok(Sqlite { writer, readers, long: Arc::new(Semaphore::new(LONG_READS)) })
    }

    /// A question about one record.
    fn short<T>(
        &self,
        read: impl FnOnce(&Connection, &Readers) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.readers.with(&self.readers.short, read)
    }

    /// A question about many records: on a thread that may take its time, and not many at once.
    async fn long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, Reading<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let failed =
            |reason: String| StoreError::Database { place: self.readers.path.display().to_string(), reason };
        let permit = self.long.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
        let readers = self.readers.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            readers.with(&readers.long, |connection, readers| {
                let reading = Reading { readers, moment: readers.columns.moment() };
                at_one_moment(connection, |connection| read(connection, reading))
            })
        });
        thread.await.map_err(|error| failed(error.to_string()))?
    }

    /// Reads into memory what questions like the last one go over, when nobody waits for a long question.
    fn prepare(&self) {
        if !self.readers.index.is_wanted() && !self.readers.columns.is_wanted() {
            return;
        }
        let Ok(permit) = self.long.clone().try_acquire_owned() else { return };
        let readers = self.readers.clone();
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let prepared = readers.with(&readers.long, |connection, readers| {
                let moment = readers.columns.moment();
                at_one_moment(connection, |connection| {
                    readers.index.prepare(connection)?;
                    readers.columns.keep(connection, moment)
                })
            });
            // Whoever asks next reads it from the file, and is told what is wrong with that.
            if let Err(error) = prepared {
                log::debug!("nothing is kept in memory: {error}");
            }
        });
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<u64, WriterFailed>>) -> Order,
    ) -> Result<u64, StoreError> {
        let (done, told) = oneshot::channel();
        self.writer.send(order(done));
        let answer = told.await.unwrap_or_else(|_| Err(WriterFailed("the server stops".into())));
        answer.map_err(|WriterFailed(reason)| StoreError::Database {
            place: self.readers.path.display().to_string(),
            reason: reason.to_string(),
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    fn submit(&self, job: Job) {
        self.writer.send(Order::Job(job));
    }

    fn check(&self) -> Result<(), WriterFailed> {
        self.writer.check()
    }

    fn is_shared(&self) -> bool {
        // Its folder is locked.
        false
    }

    fn behind(&self) -> Duration {
        Duration::ZERO
    }

    fn watch(&self, watch: Arc<dyn Watch>) {
        self.writer.watch(watch);
    }

    async fn active(&self) -> Result<Vec<Active>, StoreError> {
        self.long(|connection, _| list::active(connection)).await
    }

    async fn documents(&self, kind: Kind) -> Result<Vec<(String, Value)>, StoreError> {
        self.long(move |connection, _| {
            let mut all = Vec::new();
            read::documents(connection, kind, |id, value| {
                all.push((id, value?));
                Ok(())
            })?;
            Ok(all)
        })
        .await
    }

    async fn document(&self, kind: Kind, id: &str) -> Result<Option<Value>, StoreError> {
        self.short(|connection, _| read::document(connection, kind, id))
    }

    async fn device(&self, id: &str) -> Result<Option<Device>, StoreError> {
        self.short(|connection, _| read::device(connection, id))
    }

    async fn inventory(&self, device: &str) -> Result<Option<Inventory>, StoreError> {
        self.short(|connection, readers| match read::number(connection, device)? {
            Some(number) => read::inventory(connection, &readers.names, number),
            None => Ok(None),
        })
    }

    async fn view(&self, device: &str) -> Result<Option<DeviceView>, StoreError> {
        self.short(|connection, readers| {
            at_one_moment(connection, |connection| {
                let device = read::device(connection, device)?;
                device.map(|device| read::view(connection, &readers.names, device)).transpose()
            })
        })
    }

    async fn devices(&self, query: &DeviceQuery) -> Result<Found<DeviceView>, StoreError> {
        let query = query.clone();
        let found = self.long(move |connection, reading| find::devices(connection, reading, &query)).await;
        self.prepare();
        found
    }

    async fn device_numbers(&self, query: &DeviceQuery) -> Result<RoaringBitmap, StoreError> {
        let query = query.clone();
        self.long(move |connection, reading| find::numbers(connection, reading, &query)).await
    }

    async fn device_ids(&self, numbers: &[u32]) -> Result<Vec<(u32, String)>, StoreError> {
        let numbers = numbers.to_vec();
        self.long(move |connection, _| {
            let id = |number| Ok(read::id_ever(connection, number)?.map(|id| (number, id)));
            numbers.into_iter().filter_map(|number| id(number).transpose()).collect()
        })
        .await
    }

    async fn device_counts(&self) -> Result<Vec<(AuthStatus, u64)>, StoreError> {
        self.short(|connection, _| {
            let mut counts = Vec::new();
            for status in code::AUTH_STATUSES {
                let count = read::count(connection, status)?;
                counts.extend((count > 0).then_some((status, count)));
            }
            Ok(counts)
        })
    }

    async fn groups(&self) -> Result<Vec<(String, u64)>, StoreError> {
        self.long(|connection, _| list::groups(connection)).await
    }

    async fn attributes(&self) -> Result<Vec<(Scope, String, u64)>, StoreError> {
        self.long(list::attributes).await
    }

    async fn deployment(&self, id: &str) -> Result<Option<Deployment>, StoreError> {
        self.short(|connection, _| read::deployment(connection, id))
    }

    async fn members(&self, deployment: &str) -> Result<Option<Arc<RoaringBitmap>>, StoreError> {
        self.short(|connection, _| read::members_of(connection, deployment))
    }

    async fn deployments(&self, query: &DeploymentQuery) -> Result<Found<Deployment>, StoreError> {
        let query = query.clone();
        self.long(move |connection, _| list::deployments(connection, &query)).await
    }

    async fn record(&self, deployment: &str, device: &str) -> Result<Option<DeviceDeployment>, StoreError> {
        self.short(|connection, _| read::record(connection, deployment, device))
    }

    async fn records(&self, query: &RecordQuery) -> Result<Found<Listed>, StoreError> {
        let query = query.clone();
        self.long(move |connection, _| list::records(connection, &query)).await
    }

    async fn history(
        &self,
        device: &str,
        skip: u64,
        take: u64,
    ) -> Result<Found<(Deployment, Option<DeviceDeployment>)>, StoreError> {
        let device = device.to_owned();
        self.long(move |connection, _| list::history(connection, &device, skip, take)).await
    }

    async fn log(&self, deployment: &str, device: &str) -> Result<Option<String>, StoreError> {
        self.short(|connection, _| read::log(connection, deployment, device))
    }

    async fn events(&self, query: &EventQuery) -> Result<Found<Numbered>, StoreError> {
        let query = query.clone();
        self.long(move |connection, _| list::events(connection, &query)).await
    }

    async fn forget_events(&self, stream: Stream, before: Timestamp, most: u64) -> Result<u64, StoreError> {
        self.order(|done| Order::Forget(stream, before, most, done)).await
    }

    async fn old_deployments(&self, before: Timestamp, most: u64) -> Result<Vec<String>, StoreError> {
        self.long(move |connection, _| list::old_deployments(connection, before, most)).await
    }

    async fn forget_deployment(&self, id: &str, most: u64) -> Result<bool, StoreError> {
        let id = id.to_owned();
        Ok(self.order(|done| Order::ForgetDeployment(id, most, done)).await? > 0)
    }

    async fn old_logs(&self, before: Timestamp, most: u64) -> Result<Vec<(String, String)>, StoreError> {
        self.long(move |connection, _| list::old_logs(connection, before, most)).await
    }

    async fn check_ins(&self, times: Vec<(u32, Timestamp)>) -> Result<(), StoreError> {
        self.order(|done| Order::CheckIns(times, done)).await.map(|_| ())
    }

    async fn dump(&self, rows: &mut Rows<'_>) -> Result<(), StoreError> {
        let connection = schema::connect(&self.readers.path, Use::Read).map_err(Fault::from);
        let dumped = connection.and_then(|connection| {
            at_one_moment(&connection, |connection| list::dump(connection, &self.readers.names, rows))
        });
        dumped.map_err(|fault| fault.named(&self.readers.path))
    }

    async fn fill(
        &self,
        rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
    ) -> Result<(), StoreError> {
        let filled = folder::fill(&self.readers.path, &self.readers.names, rows);
        // Who fills a store asks it nothing meanwhile.
        self.readers.columns.replaced();
        filled
    }

    async fn stop(&self) {
        self.writer.stop();
        drop(self.readers.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
