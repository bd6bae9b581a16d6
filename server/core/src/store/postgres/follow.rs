//! What other processes have changed: a row of the table `feed` for each batch that others have to know of.
//!
//! Rows are numbered under a lock that is held until their transaction has ended, so a number is never seen before a smaller
//! one. A notification says that there is something; without one the feed is read every second.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// Follows the others.
pub(super) struct Follower {
    target: Arc<Target>,
    process: Vec<u8>,
    /// The last row that was read.
    last: i64,
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
    ) -> Result<(), Fault> {
        let last = conn.row("SELECT n FROM number WHERE name = 'feed'", &[]).await?;
        let last = last.map_or(Ok(0), |row| row.try_get(0))?;
        let follower = Follower { target, process, last, watchers, stopping };
        tokio::spawn(follower.run());
        Ok(())
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
                log::debug!("following other processes: {fault}");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn listen(&mut self, conn: &Conn, mut notices: mpsc::UnboundedReceiver<()>) -> Result<(), Fault> {
        conn.batch("LISTEN rust_ota_feed").await?;
        let mut rounds = 0_u32;
        loop {
            self.read(conn).await?;
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
                    let news: News = parse(row.try_get(2)?, "a row of the feed")?;
                    all.devices.extend(news.devices);
                    all.deployments.extend(news.deployments);
                    all.members.extend(news.members);
                    all.documents.extend(news.documents);
                }
            }
            if all != News::default() {
                let _turn = self.watchers.turn().await;
                let committed = now(conn, all).await?;
                self.watchers.tell(&committed);
            }
            self.last = last;
            if rows.is_empty() {
                return Ok(());
            }
        }
    }
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
