//! The writer: one task a process, which makes one transaction of all jobs that wait.
//!
//! ```text
//! gather -> BEGIN -> load and lock -> run the rules -> (load what was missing, run again) -> flush -> COMMIT -> tell -> answer
//! ```
//!
//! Another process may be in the way; then the database ends one of the two transactions, and its jobs are run again. When
//! the connection is lost, the transaction has not happened, unless it was lost between COMMIT and its answer: each batch
//! writes its number into this process's row of the table `process`, and the number that is there afterwards says which. The
//! row is locked by the transaction, so whoever reads it under the lock waits until the old session has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::connect::{Conn, Fault, Target};
use super::flush::{Flushed, flush};
use super::follow::Watchers;
use super::guard::{self, Sharing};
use super::load::load;
use crate::model::time::Timestamp;
use crate::store::{Committed, Job, WriterFailed};
use crate::work::{Attempt, Key, Work};

/// Jobs in one transaction.
const BATCH: usize = 512;
/// How often a batch is run again when others are in its way.
const AGAIN: u32 = 12;
/// Rounds of loading for one batch: a rule that still asks for more will not end.
const ROUNDS: usize = 64;
/// How long a batch of which it is not known whether it has happened waits for the database.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How often a database that is away is asked for.
const PROBE: Duration = Duration::from_millis(500);

/// What the writer is told.
pub(super) enum Order {
    /// Run this.
    Job(Job),
    /// Write what waits, and say when that is done.
    Stop(oneshot::Sender<()>),
}

/// Whether changes can be stored.
#[derive(Clone)]
pub(super) struct Health(Arc<Mutex<Result<(), WriterFailed>>>);

impl Health {
    pub(super) fn new() -> Health {
        Health(Arc::new(Mutex::new(Ok(()))))
    }

    pub(super) fn check(&self) -> Result<(), WriterFailed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, now: Result<(), WriterFailed>) {
        let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*health, &now) {
            (Ok(()), Err(WriterFailed(reason))) => log::error!("nothing can be stored: {reason}"),
            (Err(_), Ok(())) => log::info!("the database is back"),
            (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        }
        *health = now;
    }
}

/// How a transaction ended that has not been committed.
enum Ended {
    /// It has not happened.
    Not(Fault),
    /// The connection was lost while it was committed: what is to be told if it was.
    Unknown(Fault, Box<Committed>),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Ended {
        Ended::Not(fault)
    }
}

/// How the writer's connection is made.
pub(super) struct Link {
    pub(super) target: Arc<Target>,
    /// Who else may have the database: each new session says it again.
    pub(super) sharing: Sharing,
}

impl Link {
    async fn connect(&self) -> Result<Conn, Fault> {
        let conn = self.target.connect().await?;
        guard::take(&conn, self.sharing).await?;
        Ok(conn)
    }
}

pub(super) struct Writer {
    link: Link,
    /// Names this process, so that its own news are not read back.
    process: Vec<u8>,
    batch: i64,
    conn: Option<Conn>,
    watchers: Arc<Watchers>,
    health: Health,
}

impl Writer {
    /// Begins. The first connection is there, and has the lock.
    pub(super) async fn start(
        link: Link,
        process: Vec<u8>,
        conn: Conn,
        watchers: Arc<Watchers>,
        health: Health,
    ) -> Result<mpsc::UnboundedSender<Order>, Fault> {
        // Rows of processes that have ended; one that lives writes more often, or makes its row again.
        conn.run("DELETE FROM process WHERE at < now() - interval '7 days'", &[]).await?;
        let mut writer = Writer { link, process, batch: 0, conn: Some(conn), watchers, health };
        writer.enter().await?;
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(writer.run(received));
        Ok(orders)
    }

    async fn enter(&mut self) -> Result<(), Fault> {
        const ENTER: &str = "INSERT INTO process (id, batch) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let conn = self.connection().await?;
        let (process, batch) = (self.process.clone(), self.batch);
        let conn = self.conn.insert(conn);
        conn.run(ENTER, &[&process, &batch]).await?;
        Ok(())
    }

    /// The connection, made anew if it is lost. It is taken: whoever has it puts it back when nothing is open on it.
    async fn connection(&mut self) -> Result<Conn, Fault> {
        match self.conn.take() {
            Some(conn) if !conn.client.is_closed() => Ok(conn),
            Some(_) | None => self.link.connect().await,
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut probe = interval(PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let order = tokio::select! {
                order = orders.recv() => order,
                _ = probe.tick(), if self.health.check().is_err() => {
                    self.probe().await;
                    continue;
                }
            };
            let mut stopped = None;
            let mut jobs = Vec::new();
            match order {
                None => return,
                Some(Order::Job(job)) => jobs.push(job),
                Some(Order::Stop(done)) => stopped = Some(done),
            }
            while jobs.len() < BATCH && stopped.is_none() {
                match orders.try_recv() {
                    Ok(Order::Job(job)) => jobs.push(job),
                    Ok(Order::Stop(done)) => stopped = Some(done),
                    Err(_) => break,
                }
            }
            if !jobs.is_empty() {
                self.batch(jobs).await;
            }
            if let Some(done) = stopped {
                // Jobs that come after this are refused: their channel is gone.
                orders.close();
                if let Ok(conn) = self.connection().await {
                    let gone = conn.run("DELETE FROM process WHERE id = $1", &[&self.process]).await;
                    if let Err(fault) = gone {
                        log::debug!("the row of this process stays for some days: {fault}");
                    }
                    if let Err(fault) = guard::give_back(&conn).await {
                        log::debug!("the lock of the database goes with the session: {fault}");
                    }
                }
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
                return;
            }
        }
    }

    /// Asks for a database that is away.
    async fn probe(&mut self) {
        let asked = async {
            let conn = self.connection().await?;
            conn.batch("SELECT 1").await?;
            self.conn = Some(conn);
            self.enter().await
        };
        let asked: Result<(), Fault> = asked.await;
        self.health.set(asked.map_err(|fault| self.failed(&fault)));
    }

    fn failed(&self, fault: &Fault) -> WriterFailed {
        WriterFailed(format!("the database {}: {fault}", self.link.target.place).into())
    }

    async fn batch(&mut self, mut jobs: Vec<Job>) {
        match self.with_retries(&mut jobs).await {
            Ok(()) => {
                self.health.set(Ok(()));
                answer(jobs, &Ok(()));
            }
            // The job that cannot be stored must not take the others with it.
            Err(fault) if !fault.is_lost() && jobs.len() > 1 => {
                for job in jobs {
                    let mut alone = vec![job];
                    let ended = self.with_retries(&mut alone).await;
                    answer(alone, &ended.map_err(|fault| self.failed(&fault)));
                }
            }
            Err(fault) => {
                let failed = Err(self.failed(&fault));
                if fault.is_lost() {
                    self.health.set(failed.clone());
                } else {
                    log::error!("a change could not be stored: {fault}");
                }
                answer(jobs, &failed);
            }
        }
    }

    async fn with_retries(&mut self, jobs: &mut [Job]) -> Result<(), Fault> {
        let mut was_lost = false;
        let mut attempt = 0;
        loop {
            self.batch += 1;
            let fault = match self.transaction(jobs).await {
                Ok(()) => return Ok(()),
                Err(Ended::Not(fault)) => fault,
                Err(Ended::Unknown(fault, committed)) => {
                    if self.has_happened(&fault).await? {
                        let _turn = self.watchers.turn().await;
                        self.watchers.tell(&committed);
                        return Ok(());
                    }
                    fault
                }
            };
            attempt += 1;
            if attempt < AGAIN && fault.is_conflict() {
                // Two processes that are in each other's way are not to be so again.
                let spread = u64::from(self.process.first().copied().unwrap_or(0)) % 8;
                tokio::time::sleep(Duration::from_millis(spread * u64::from(attempt))).await;
            } else if fault.is_lost() && !was_lost {
                // Perhaps the database was only started anew.
                was_lost = true;
            } else {
                return Err(fault);
            }
        }
    }

    /// Whether the batch with the present number was committed.
    async fn has_happened(&mut self, fault: &Fault) -> Result<bool, Fault> {
        log::warn!(
            "the connection was lost at the end of a transaction ({fault}): asking whether it has happened"
        );
        // A row that is missing or locked for long leaves it unknown.
        const ASK: &str = "SELECT batch FROM process WHERE id = $1 FOR UPDATE";
        let begun = Instant::now();
        loop {
            let asked = async {
                let conn = self.connection().await?;
                let row = conn.row(ASK, &[&self.process]).await?;
                self.conn = Some(conn);
                row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(Fault::from)
            };
            match asked.await {
                Ok(Some(batch)) => return Ok(batch == self.batch),
                Ok(None) => {
                    return Err(Fault::Away(
                        "the connection was lost, and it is not known whether this was stored".to_owned(),
                    ));
                }
                Err(fault) if begun.elapsed() < UNKNOWN => {
                    // Nobody else is to wait for that.
                    self.health.set(Err(self.failed(&fault)));
                    tokio::time::sleep(PROBE).await;
                }
                Err(fault) => {
                    return Err(Fault::Away(format!(
                        "{fault}; it is not known whether this was stored before that"
                    )));
                }
            }
        }
    }

    async fn transaction(&mut self, jobs: &mut [Job]) -> Result<(), Ended> {
        let conn = self.connection().await?;
        match self.on(&conn, jobs).await {
            Ok(()) => {
                self.conn = Some(conn);
                Ok(())
            }
            Err(ended) => {
                if let Ended::Not(fault) = &ended {
                    if !fault.is_lost() && conn.batch("ROLLBACK").await.is_ok() {
                        self.conn = Some(conn);
                    }
                }
                Err(ended)
            }
        }
    }

    async fn on(&self, conn: &Conn, jobs: &mut [Job]) -> Result<(), Ended> {
        let (count, began) = (jobs.len(), Instant::now());
        conn.batch("BEGIN").await?;
        let mut work = Work::new(Timestamp::now());
        let keys: Vec<Key> = jobs.iter().flat_map(|job| job.keys.iter().cloned()).collect();
        load(conn, &mut work, keys).await?;
        let mut waiting: Vec<&mut Job> = jobs.iter_mut().collect();
        for round in 0.. {
            let mut missing = Vec::new();
            waiting.retain_mut(|job| match work.attempt(&mut *job.run) {
                Attempt::Done => false,
                Attempt::Missing(keys) => {
                    missing.extend(keys);
                    true
                }
            });
            if waiting.is_empty() {
                break;
            }
            if round == ROUNDS {
                return Err(Fault::Damaged("a rule asks for more again and again: it".to_owned()).into());
            }
            load(conn, &mut work, missing).await?;
        }
        let Flushed { committed, is_changed, has_news } =
            flush(conn, &work, &self.process, self.batch).await?;
        // Nobody who follows other processes tells something older in between.
        let tells = has_news || !committed.deployments.is_empty();
        let turn = if tells { Some(self.watchers.turn().await) } else { None };
        match conn.batch("COMMIT").await {
            Ok(()) => {}
            // An answer that is an error is one: nothing has happened.
            Err(fault) if is_changed && fault.is_lost() => {
                return Err(Ended::Unknown(fault, Box::new(committed)));
            }
            Err(fault) => return Err(Ended::Not(fault)),
        }
        self.watchers.written(count, began.elapsed());
        if tells {
            self.watchers.tell(&committed);
        }
        drop(turn);
        Ok(())
    }
}

fn answer(jobs: Vec<Job>, with: &Result<(), WriterFailed>) {
    for job in jobs {
        // Whoever asked may be gone.
        let _ = job.done.send(with.clone());
    }
}
