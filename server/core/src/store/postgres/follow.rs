//! What other processes have changed: a row of the table `feed` for each batch that others have to know of.
//!
//! Rows are numbered under a lock that is held until their transaction has ended, so a number is never seen before a smaller
//! one. A notification says that there is something; without one the feed is read every second. A record that is damaged is said
//! in the log and left out: nothing behind it waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as Turn, MutexGuard, mpsc, watch};
use tokio::time::timeout;

use super::connect::{Conn, Fault, Target};
use super::flush::News;
use super::read::{self, parse};
use crate::store::{Committed, Watch};
use crate::work::Kind;

const EVERY: Duration = Duration::from_secs(1);
/// Rows at a time.
const ROWS: i64 = 1000;
/// How often old rows are taken away.
const TRIM: u32 = 3600;

/// Those who are told.
#[derive(Default)]
pub(super) struct Watchers {
    all: Mutex<Vec<Arc<dyn Watch>>>,
    turn: Turn<()>,
}

impl Watchers {
    pub(super) fn add(&self, watch: Arc<dyn Watch>) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
    }

    /// Whoever reads or commits something and then tells it does so with nobody in between.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    pub(super) fn written(&self, jobs: usize, took: Duration) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.iter().for_each(|watch| watch.written(jobs, took));
    }

    pub(super) fn tell(&self, committed: &Committed) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for watch in all {
            watch.committed(committed);
        }
    }
}

/// When the feed was read to its end last. What others have changed since is not known here.
#[derive(Clone)]
pub(super) struct ReadAt(Arc<Mutex<Instant>>);

impl ReadAt {
    fn now() -> ReadAt {
        ReadAt(Arc::new(Mutex::new(Instant::now())))
    }

    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long that is ago.
    pub(super) fn ago(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Follows the others.
pub(super) struct Follower {
    target: Arc<Target>,
    process: Vec<u8>,
    /// The last row that was read.
    last: i64,
    read_at: ReadAt,
    /// Whether it was said that it cannot be read.
    has_warned: bool,
    watchers: Arc<Watchers>,
    stopping: watch::Receiver<bool>,
}

impl Follower {
    /// Begins with what comes after now. What is read of the store later is not older.
    pub(super) async fn start(
        target: Arc<Target>,
        process: Vec<u8>,
        conn: &Conn,
        watchers: Arc<Watchers>,
        stopping: watch::Receiver<bool>,
    ) -> Result<ReadAt, Fault> {
        let last = conn.row("SELECT n FROM number WHERE name = 'feed'", &[]).await?;
        let last = last.map_or(Ok(0), |row| row.try_get(0))?;
        let read_at = ReadAt::now();
        let told = read_at.clone();
        let follower = Follower { target, process, last, read_at, has_warned: false, watchers, stopping };
        tokio::spawn(follower.run());
        Ok(told)
    }

    async fn run(mut self) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = self.always() => {}
            // The other half is gone, or has said so.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    async fn always(&mut self) {
        loop {
            let ended = match self.target.connect_listening().await {
                Ok((conn, notices)) => self.listen(&conn, notices).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = ended {
                let level = if self.has_warned { log::Level::Debug } else { log::Level::Warn };
                log::log!(
                    level,
                    "what other processes change cannot be read, and is asked for again: {fault}"
                );
                self.has_warned = true;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn listen(&mut self, conn: &Conn, mut notices: mpsc::UnboundedReceiver<()>) -> Result<(), Fault> {
        conn.batch("LISTEN rust_ota_feed").await?;
        let mut rounds = 0_u32;
        loop {
            self.read(conn).await?;
            self.read_at.set();
            if std::mem::take(&mut self.has_warned) {
                log::info!("what other processes change is read again");
            }
            rounds += 1;
            if rounds % TRIM == 0 {
                // Whoever was away for longer has to be started anew; see `read`.
                conn.run("DELETE FROM feed WHERE at < now() - interval '30 days'", &[]).await?;
            }
            if let Ok(None) = timeout(EVERY, notices.recv()).await {
                return Err(Fault::Away("the connection has ended".to_owned()));
            }
            while notices.try_recv().is_ok() {}
        }
    }

    async fn read(&mut self, conn: &Conn) -> Result<(), Fault> {
        const NEXT: &str = "SELECT num, process, data FROM feed WHERE num > $1 ORDER BY num LIMIT $2";
        loop {
            let rows = conn.rows(NEXT, &[&self.last, &ROWS]).await?;
            let mut all = News::default();
            let mut last = self.last;
            for row in &rows {
                last = row.try_get(0)?;
                if row.try_get::<_, &[u8]>(1)? != self.process {
                    match parse::<News>(row.try_get(2)?, "it") {
                        Ok(news) => all.add(news),
                        Err(fault) => log::error!("the row {last} of the table feed is left out: {fault}"),
                    }
                }
            }
            if all != News::default() {
                let _turn = self.watchers.turn().await;
                for committed in whole(conn, all).await? {
                    self.watchers.tell(&committed);
                }
            }
            self.last = last;
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
}

/// What has changed, as it is now, without what is damaged.
async fn whole(conn: &Conn, news: News) -> Result<Vec<Committed>, Fault> {
    match now(conn, news.clone()).await {
        Err(Fault::Damaged(_)) => {}
        ended => return ended.map(|committed| vec![committed]),
    }
    let mut whole = Vec::new();
    for one in news.each() {
        let name = one.to_string();
        match now(conn, one).await {
            Ok(committed) => whole.push(committed),
            Err(Fault::Damaged(what)) => {
                log::error!("{what} is damaged, and not followed here: {name}");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(whole)
}

/// What has changed, as it is now.
async fn now(conn: &Conn, mut news: News) -> Result<Committed, Fault> {
    for ids in [&mut news.devices, &mut news.deployments, &mut news.members] {
        ids.sort();
        ids.dedup();
    }
    news.documents.sort();
    news.documents.dedup();
    let mut committed = Committed::default();
    if !news.devices.is_empty() {
        let mut found: std::collections::BTreeMap<_, _> =
            read::devices(conn, &news.devices).await?.into_iter().map(|one| (one.id.clone(), one)).collect();
        committed.devices = news
            .devices
            .into_iter()
            .map(|id| {
                let device = found.remove(&id);
                (id, device)
            })
            .collect();
    }
    let mut deployments = news.deployments;
    // A deployment with other members is told as a whole.
    deployments.extend(news.members.iter().cloned());
    deployments.sort();
    deployments.dedup();
    if !deployments.is_empty() {
        const READ: &str = "SELECT seq, data FROM deployment WHERE id = ANY($1) ORDER BY seq";
        let ids: Vec<&[u8]> = deployments.iter().map(String::as_bytes).collect();
        for row in conn.rows(READ, &[&ids]).await? {
            committed.deployments.push(read::deployment(&row)?);
        }
        // One that ended before anybody read this is not to be active again.
        let is_active =
            |id: &String| committed.deployments.iter().any(|one| one.id == *id && one.finished.is_none());
        news.members.retain(is_active);
        let members = read::members(conn, &news.members).await?;
        committed.members = members.into_iter().map(|(id, members)| (id, Arc::new(members))).collect();
    }
    if !news.documents.is_empty() {
        const READ: &str = "SELECT kind, id, data FROM document
            WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::bytea[]))";
        let kinds: Vec<&str> = news.documents.iter().map(|(kind, _)| kind.as_str()).collect();
        let ids: Vec<&[u8]> = news.documents.iter().map(|(_, id)| id.as_bytes()).collect();
        let mut found = std::collections::BTreeMap::new();
        for row in conn.rows(READ, &[&kinds, &ids]).await? {
            let key: (String, String) = (row.try_get(0)?, read::text(&row, 1)?);
            found.insert(key, parse(row.try_get(2)?, "a document")?);
        }
        for key in news.documents {
            let value = found.remove(&key);
            if let Some(kind) = Kind::parse(&key.0) {
                committed.documents.push((kind, key.1, value));
            }
        }
    }
    Ok(committed)
}
