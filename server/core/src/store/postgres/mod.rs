//! The fleet in PostgreSQL, where several processes share it.
//!
//! The database is the only truth: a process keeps nothing of a device. What it has in memory of the fleet follows the feed
//! ([`follow`]). Changes go through one task ([`write`]), questions through a few connections ([`connect`]), and what each
//! request of a device begins with is gathered ([`poll`]). A database that is away is an error of each question, and is asked
//! for until it is back.
//!
//! It does not make the database, its user or its backups, and does not choose among several hosts but by what the address
//! says.

mod attr;
mod connect;
mod dump;
mod flush;
mod follow;
mod guard;
mod load;
mod number;
mod poll;
mod read;
mod schema;
mod search;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod write;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use roaring::RoaringBitmap;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub(crate) use connect::Target;
use connect::{Fault, Lease, Pool};
use follow::{Follower, ReadAt, Watchers};
pub(crate) use guard::Sharing;
use poll::Poll;
use search::{Answer, Cold};
use write::{Health, Link, Order, Writer};

use self::number::Signed as _;
use super::{AHEAD_MILLISECONDS, DumpRow, Job, Rows, Store, StoreError, Watch, WriterFailed};
use crate::domain::id;
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory};
use crate::work::query::{
    Active, DeploymentQuery, DeviceQuery, DeviceView, EventQuery, Found, Listed, Numbered, RecordQuery, Scope,
};
use crate::work::{Kind, Stream};

/// The store.
struct PgStore {
    pool: Arc<Pool>,
    poll: Poll,
    orders: mpsc::UnboundedSender<Order>,
    health: Health,
    watchers: Arc<Watchers>,
    read_at: ReadAt,
    stopping: watch::Sender<bool>,
    /// Attributes that become hot now.
    heating: Arc<Mutex<HashSet<(Scope, String)>>>,
    /// Devices of a fleet in which an attribute becomes hot while a search waits.
    at_once: u64,
    /// One search at a time goes through all devices.
    one_by_one: Semaphore,
}

/// Opens a database, and brings its schema up to date. It must be there; it may be empty.
///
/// # Errors
/// It cannot be reached, what is in it is not of this program, or somebody has it who does not share it so.
pub(crate) async fn open(target: Target, sharing: Sharing) -> Result<Arc<dyn Store>, StoreError> {
    let target = Arc::new(target);
    let place = target.place.clone();
    begin(target, sharing, search::AT_ONCE).await.map_err(|fault| fault.at(&place))
}

async fn begin(target: Arc<Target>, sharing: Sharing, at_once: u64) -> Result<Arc<dyn Store>, Fault> {
    let conn = target.connect().await?;
    // Before the schema is changed: those who have it may be older.
    guard::take(&conn, sharing).await?;
    match sharing {
        Sharing::Servers | Sharing::Nobody => schema::migrate(&conn).await?,
        // It may be served by programs that are older, or be another one than was meant.
        Sharing::Anybody => schema::check(&conn).await?,
    }
    let process = id::random::<16>().map_err(|_| Fault::Source(StoreError::NoRandomness))?.to_vec();
    let (stopping, stop) = watch::channel(false);
    let watchers = Arc::new(Watchers::default());
    let read_at = Follower::start(target.clone(), process.clone(), &conn, watchers.clone(), stop).await?;
    let health = Health::new();
    let link = Link { target: target.clone(), sharing };
    let orders = Writer::start(link, process, conn, watchers.clone(), health.clone()).await?;
    let pool = Arc::new(Pool::new(target));
    Ok(Arc::new(PgStore {
        poll: Poll::start(pool.target.clone()),
        pool,
        orders,
        health,
        watchers,
        read_at,
        stopping,
        heating: Arc::default(),
        at_once,
        one_by_one: Semaphore::new(1),
    }))
}

impl PgStore {
    fn at(&self) -> impl Fn(Fault) -> StoreError + '_ {
        |fault| fault.at(&self.pool.target.place)
    }

    async fn lease(&self) -> Result<Lease, StoreError> {
        self.pool.get().await.map_err(self.at())
    }

    /// Makes attributes hot: in a small fleet at once, else behind. Whether they are now.
    async fn heat(&self, lease: &Lease, cold: Cold) -> Result<bool, Fault> {
        let cold: Cold = cold
            .into_iter()
            .filter(|(scope, name)| {
                attr::may_be_hot(&crate::work::query::Attr { scope: Some(*scope), name: name.clone() })
            })
            .collect();
        if cold.is_empty() {
            return Ok(false);
        }
        if search::is_small(lease, self.at_once).await? {
            for (scope, name) in cold {
                attr::heat(lease, scope, &name).await?;
            }
            return Ok(true);
        }
        for one in cold {
            if !self.heating.lock().unwrap_or_else(PoisonError::into_inner).insert(one.clone()) {
                continue;
            }
            let (target, heating) = (self.pool.target.clone(), self.heating.clone());
            tokio::spawn(async move {
                let made = async { attr::heat(&target.connect().await?, one.0, &one.1).await };
                if let Err(fault) = made.await {
                    log::warn!("the attribute {:?} could not be made quick to search: {fault}", one.1);
                }
                heating.lock().unwrap_or_else(PoisonError::into_inner).remove(&one);
            });
        }
        Ok(false)
    }
}

/// Asks over a connection of the pool, which goes back when all went well.
macro_rules! ask {
    ($self:ident, $lease:ident => $asked:expr) => {{
        let $lease = $self.lease().await?;
        let found: Result<_, Fault> = async { Ok($asked) }.await;
        let found = found.map_err($self.at())?;
        $lease.done();
        Ok(found)
    }};
}

#[async_trait]
impl Store for PgStore {
    fn submit(&self, job: Job) {
        if let Err(refused) = self.orders.send(Order::Job(job)) {
            if let Order::Job(job) = refused.0 {
                // Whoever asked may be gone.
                let _ = job.done.send(Err(WriterFailed("the server stops".into())));
            }
        }
    }

    fn check(&self) -> Result<(), WriterFailed> {
        self.health.check()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn behind(&self) -> Duration {
        self.read_at.ago()
    }

    fn watch(&self, watch: Arc<dyn Watch>) {
        self.watchers.add(watch);
    }

    async fn active(&self) -> Result<Vec<Active>, StoreError> {
        ask!(self, lease => read::active(&lease).await?)
    }

    async fn documents(&self, kind: Kind) -> Result<Vec<(String, Value)>, StoreError> {
        ask!(self, lease => read::documents(&lease, kind).await?)
    }

    async fn document(&self, kind: Kind, id: &str) -> Result<Option<Value>, StoreError> {
        const READ: &str = "SELECT data FROM document WHERE kind = $1 AND id = $2";
        ask!(self, lease => match lease.row(READ, &[&kind.name(), &id.as_bytes()]).await? {
            Some(row) => Some(read::parse(row.try_get(0)?, "a document")?),
            None => None,
        })
    }

    async fn device(&self, id: &str) -> Result<Option<Device>, StoreError> {
        self.poll.device(id).await.map_err(|reason| StoreError::Database {
            place: self.pool.target.place.clone(),
            reason: reason.to_string(),
        })
    }

    async fn inventory(&self, device: &str) -> Result<Option<Inventory>, StoreError> {
        const READ: &str = "SELECT i.data FROM device d JOIN inventory i ON i.num = d.num WHERE d.id = $1";
        ask!(self, lease => match lease.row(READ, &[&device.as_bytes()]).await? {
            Some(row) => Some(read::parse(row.try_get(0)?, "an inventory")?),
            None => None,
        })
    }

    async fn view(&self, device: &str) -> Result<Option<DeviceView>, StoreError> {
        const NUMBER: &str = "SELECT num FROM device WHERE id = $1";
        ask!(self, lease => match lease.row(NUMBER, &[&device.as_bytes()]).await? {
            Some(row) => read::views(&lease, &[row.try_get(0)?]).await?.pop(),
            None => None,
        })
    }

    async fn devices(&self, query: &DeviceQuery) -> Result<Found<DeviceView>, StoreError> {
        ask!(self, lease => {
            let mut answer = search::devices(&lease, query).await?;
            if let Answer::Cold(cold) = answer {
                answer = match self.heat(&lease, cold).await? {
                    true => search::devices(&lease, query).await?,
                    false => Answer::Cold(Cold::new()),
                };
            }
            match answer {
                Answer::Found(found) => found,
                Answer::Cold(_) => {
                    let _turn = self.one_by_one.acquire().await;
                    search::devices_one_by_one(&lease, query).await?
                }
            }
        })
    }

    async fn device_numbers(&self, query: &DeviceQuery) -> Result<RoaringBitmap, StoreError> {
        ask!(self, lease => {
            let mut answer = search::numbers(&lease, query).await?;
            if let Answer::Cold(cold) = answer {
                answer = match self.heat(&lease, cold).await? {
                    true => search::numbers(&lease, query).await?,
                    false => Answer::Cold(Cold::new()),
                };
            }
            match answer {
                Answer::Found(found) => found,
                Answer::Cold(_) => {
                    let _turn = self.one_by_one.acquire().await;
                    search::numbers_one_by_one(&lease, query).await?
                }
            }
        })
    }

    async fn device_ids(&self, numbers: &[u32]) -> Result<Vec<(u32, String)>, StoreError> {
        ask!(self, lease => read::device_ids(&lease, numbers).await?)
    }

    async fn device_counts(&self) -> Result<Vec<(AuthStatus, u64)>, StoreError> {
        ask!(self, lease => search::counts(&lease).await?)
    }

    async fn groups(&self) -> Result<Vec<(String, u64)>, StoreError> {
        const READ: &str = "SELECT name, n FROM cnt WHERE kind = $1 AND n > 0 ORDER BY name";
        ask!(self, lease => {
            let rows = lease.rows(READ, &[&flush::GROUP]).await?;
            rows.iter().map(|row| Ok((read::text(row, 0)?, read::count(row.try_get(1)?)))).collect::<Result<_, Fault>>()?
        })
    }

    async fn attributes(&self) -> Result<Vec<(Scope, String, u64)>, StoreError> {
        ask!(self, lease => search::attributes(&lease).await?)
    }

    async fn deployment(&self, id: &str) -> Result<Option<Deployment>, StoreError> {
        const READ: &str = "SELECT seq, data FROM deployment WHERE id = $1";
        ask!(self, lease => lease.row(READ, &[&id.as_bytes()]).await?.as_ref().map(read::deployment).transpose()?)
    }

    async fn members(&self, deployment: &str) -> Result<Option<Arc<RoaringBitmap>>, StoreError> {
        let id = deployment.to_owned();
        ask!(self, lease => read::members(&lease, std::slice::from_ref(&id)).await?.remove(&id).map(Arc::new))
    }

    async fn deployments(&self, query: &DeploymentQuery) -> Result<Found<Deployment>, StoreError> {
        ask!(self, lease => read::deployments(&lease, query).await?)
    }

    async fn record(&self, deployment: &str, device: &str) -> Result<Option<DeviceDeployment>, StoreError> {
        const READ: &str = "SELECT status, finished, log, data FROM record WHERE dep = $1 AND dev = $2";
        ask!(self, lease => {
            let row = lease.row(READ, &[&deployment.as_bytes(), &device.as_bytes()]).await?;
            row.as_ref().map(read::record).transpose()?
        })
    }

    async fn records(&self, query: &RecordQuery) -> Result<Found<Listed>, StoreError> {
        ask!(self, lease => read::records(&lease, query).await?)
    }

    async fn history(
        &self,
        device: &str,
        skip: u64,
        take: u64,
    ) -> Result<Found<(Deployment, Option<DeviceDeployment>)>, StoreError> {
        ask!(self, lease => read::history(&lease, device, skip, take).await?)
    }

    async fn log(&self, deployment: &str, device: &str) -> Result<Option<String>, StoreError> {
        const READ: &str = "SELECT data FROM log WHERE dep = $1 AND dev = $2";
        ask!(self, lease => {
            let row = lease.row(READ, &[&deployment.as_bytes(), &device.as_bytes()]).await?;
            row.as_ref().map(|row| read::text(row, 0)).transpose()?
        })
    }

    async fn events(&self, query: &EventQuery) -> Result<Found<Numbered>, StoreError> {
        ask!(self, lease => read::events(&lease, query).await?)
    }

    async fn forget_events(&self, stream: Stream, before: Timestamp, most: u64) -> Result<u64, StoreError> {
        const FORGET: &str = "DELETE FROM event WHERE num IN
            (SELECT num FROM event WHERE stream = $1 AND ts < $2 ORDER BY ts LIMIT $3)";
        ask!(self, lease => lease.run(FORGET, &[&stream.name(), &read::big(before.0), &read::big(most)]).await?)
    }

    async fn old_deployments(&self, before: Timestamp, most: u64) -> Result<Vec<String>, StoreError> {
        ask!(self, lease => read::old_deployments(&lease, before, most).await?)
    }

    async fn forget_deployment(&self, id: &str, most: u64) -> Result<bool, StoreError> {
        ask!(self, lease => read::forget_deployment(&lease, id, most).await?)
    }

    async fn old_logs(&self, before: Timestamp, most: u64) -> Result<Vec<(String, String)>, StoreError> {
        const READ: &str = "SELECT l.dep, l.dev FROM log l JOIN record r ON r.dep = l.dep AND r.dev = l.dev
            WHERE r.finished < $1 LIMIT $2";
        ask!(self, lease => {
            let mut old = Vec::new();
            for row in lease.rows(READ, &[&read::big(before.0), &read::big(most)]).await? {
                old.push((read::text(&row, 0)?, read::text(&row, 1)?));
            }
            old
        })
    }

    async fn check_ins(&self, times: Vec<(u32, Timestamp)>) -> Result<(), StoreError> {
        // In the order of the numbers, so that two processes do not wait for each other in a circle; a number once.
        const WRITE: &str = "INSERT INTO seen AS s (num, ts)
            SELECT u.num, max(u.ts) FROM unnest($1::int4[], $2::int8[]) AS u(num, ts) GROUP BY u.num ORDER BY u.num
            ON CONFLICT (num) DO UPDATE SET ts = excluded.ts
            WHERE s.ts < excluded.ts OR s.ts > excluded.ts + $3";
        ask!(self, lease => {
            for piece in times.chunks(10_000) {
                let numbers: Vec<i32> = piece.iter().map(|(number, _)| number.signed()).collect();
                let times: Vec<i64> = piece.iter().map(|(_, time)| read::big(time.0)).collect();
                lease.run(WRITE, &[&numbers, &times, &read::big(AHEAD_MILLISECONDS)]).await?;
            }
        })
    }

    async fn dump(&self, rows: &mut Rows<'_>) -> Result<(), StoreError> {
        ask!(self, lease => dump::dump(&lease, rows).await?)
    }

    async fn fill(
        &self,
        rows: &mut (dyn Iterator<Item = Result<DumpRow, StoreError>> + Send),
    ) -> Result<(), StoreError> {
        ask!(self, lease => dump::fill(&lease, rows).await?)
    }

    async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).is_ok() {
            // An error says that it has ended already.
            let _ = stopped.await;
        }
        self.stopping.send_replace(true);
        self.pool.close();
    }
}

/// A database for a test; `None` where there is no PostgreSQL.
#[cfg(test)]
pub(crate) fn ground() -> Option<impl super::conformance::Ground> {
    testing::database().map(tests::Place)
}

/// The address of a database for a test; `None` where there is no PostgreSQL.
#[cfg(test)]
pub(crate) fn test_url() -> Option<String> {
    testing::database()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{Ground, conformance};

    /// By its address.
    pub(super) struct Place(pub(super) String);

    #[async_trait]
    impl Ground for Place {
        async fn open(&self) -> Arc<dyn Store> {
            super::open(testing::target(&self.0), Sharing::Servers).await.unwrap()
        }

        fn is_shared(&self) -> bool {
            true
        }

        fn name(&self) -> String {
            self.0.clone()
        }
    }

    conformance!(testing::database().map(Place), Place);

    /// A fleet in which every search goes through all devices, while what it asks for becomes hot.
    struct Large(String);

    #[async_trait]
    impl Ground for Large {
        async fn open(&self) -> Arc<dyn Store> {
            begin(Arc::new(testing::target(&self.0)), Sharing::Servers, 0).await.unwrap()
        }

        fn is_shared(&self) -> bool {
            true
        }

        fn name(&self) -> String {
            self.0.clone()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_search_is_right_while_its_attributes_become_hot() {
        if let Some(url) = testing::database() {
            crate::store::conformance::every_search_is_answered_as_it_is_defined(&Large(url)).await;
        }
    }

    /// Adds one to a counter.
    async fn count(store: &dyn Store) -> Result<(), WriterFailed> {
        let counted = crate::store::conformance::change(store, vec![], |work| {
            let count: u64 = work.document(Kind::Settings, "count")?.unwrap_or(0);
            work.put_document(Kind::Settings, "count", Some(&(count + 1)))?;
            Ok(Some(()))
        });
        counted.await.map(|done| assert!(done.is_some()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_that_dies_loses_nothing_and_is_found_when_it_is_back() {
        let Some(cluster) = testing::durable_cluster() else { return };
        let store = Place(cluster.database()).open().await;
        let (stop, stopped) = watch::channel(false);
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (store, stopped) = (store.clone(), stopped.clone());
                tokio::spawn(async move {
                    let (mut done, mut failed) = (0_u64, 0_u64);
                    while !*stopped.borrow() {
                        match count(&*store).await {
                            Ok(()) => done += 1,
                            Err(_) => {
                                failed += 1;
                                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                            }
                        }
                    }
                    (done, failed)
                })
            })
            .collect();
        for _ in 0..30 {
            // The others are between all steps of a transaction when it dies.
            store.document(Kind::Settings, "count").await.unwrap();
        }
        cluster.kill();
        let failed = loop {
            if let Err(failed) = count(&*store).await {
                break failed;
            }
        };
        assert!(failed.0.contains("the database"), "{failed:?}");
        assert!(store.check().is_err());
        assert!(store.device("nobody").await.is_err(), "a poll does not say that nothing is new");
        assert!(store.devices(&DeviceQuery::default()).await.is_err());
        tokio::task::spawn_blocking(move || cluster.run()).await.unwrap();
        while store.check().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        count(&*store).await.unwrap();
        assert_eq!(store.device("nobody").await.unwrap(), None);
        stop.send_replace(true);
        let (mut done, mut failed) = (1, 0);
        for task in tasks {
            let ended = task.await.unwrap();
            done += ended.0;
            failed += ended.1;
        }
        assert!(failed > 0, "somebody was told");
        let counted = store.document(Kind::Settings, "count").await.unwrap().unwrap().as_u64().unwrap();
        // What is not known to have happened is said to have failed, and may be there.
        assert!(
            (done..=done + failed).contains(&counted),
            "{done} acknowledged, {failed} failed, {counted} counted"
        );
        store.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fleet_that_is_served_is_not_moved_and_one_that_is_moved_is_not_served() {
        let Some(url) = testing::database() else { return };
        let open = |sharing| super::open(testing::target(&url), sharing);
        let (one, two) = (open(Sharing::Servers).await.unwrap(), open(Sharing::Servers).await.unwrap());
        let sessions = async || match open(Sharing::Nobody).await.map(drop) {
            Err(StoreError::Served { sessions, .. }) => sessions,
            other => panic!("{other:?}"),
        };
        let served = sessions().await;
        assert_eq!(served.len(), 2, "{served:?}");
        // A backup is nobody's business.
        open(Sharing::Anybody).await.unwrap().stop().await;
        let empty = testing::database().unwrap();
        for _ in 0..2 {
            let refused = super::open(testing::target(&empty), Sharing::Anybody).await.map(drop).unwrap_err();
            assert!(matches!(refused, StoreError::Empty { .. }), "{refused}: nothing is made of it");
        }
        two.stop().await;
        assert_eq!(sessions().await.len(), 1);
        // One whose connection broke says it again with the next one.
        let other = testing::target(&url).connect().await.unwrap();
        for session in &served {
            other.row("SELECT pg_terminate_backend($1)", &[session]).await.unwrap();
        }
        while count(&*one).await.is_err() {}
        let again = sessions().await;
        assert!(again.len() == 1 && !served.contains(&again[0]), "{again:?}");
        one.stop().await;
        let moving = open(Sharing::Nobody).await.unwrap();
        for sharing in [Sharing::Servers, Sharing::Nobody] {
            let refused = open(sharing).await.map(drop).unwrap_err();
            let is_moving = matches!(&refused, StoreError::Moving { sessions, .. } if sessions.len() == 1);
            assert_eq!(is_moving, sharing == Sharing::Servers, "{refused}");
        }
        moving.stop().await;
        open(Sharing::Servers).await.unwrap().stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn over_tls_only_the_certificate_that_was_named_is_spoken_to() {
        let fixture = |name: &str| format!("{}/../tests/fixtures/tls-{name}", env!("CARGO_MANIFEST_DIR"));
        let cluster = |name: &str| {
            testing::cluster_with_tls(
                fixture(&format!("{name}.pem")).as_ref(),
                fixture(&format!("{name}.key")).as_ref(),
            )
        };
        // One that an authority has signed, and one that was made as the database's own handbook says.
        let (Some(signed), Some(own)) = (cluster("server"), cluster("self")) else { return };
        let open = async |url: String| {
            let store = super::open(Target::parse(&url, None, None)?, Sharing::Servers).await?;
            store.stop().await;
            Ok::<(), StoreError>(())
        };
        let signed_at = |host: &str| signed.database_on_the_loopback(host);
        for mode in ["require", "verify-ca", "verify-full"] {
            open(format!("{}?sslmode={mode}&sslrootcert={}", signed_at("localhost"), fixture("ca.pem")))
                .await
                .unwrap();
        }
        let own_url = own.database_on_the_loopback("127.0.0.1");
        open(format!("{own_url}?sslmode=verify-full&sslrootcert={}", fixture("self.pem"))).await.unwrap();
        // Another authority, another name, no certificates, no TLS.
        let wrong_name =
            signed_at("127.0.0.1").replace("@127.0.0.1", "@db.example") + "?hostaddr=127.0.0.1&sslrootcert=";
        for (url, why) in [
            (format!("{own_url}?sslrootcert={}", fixture("ca.pem")), "invalid peer certificate"),
            (
                format!("{}?sslrootcert={}", signed_at("localhost"), fixture("self.pem")),
                "invalid peer certificate",
            ),
            (wrong_name + &fixture("ca.pem"), "not valid for name"),
            (format!("{own_url}?sslmode=verify-full"), "--database-ca"),
            (own_url.clone(), "28000"),
        ] {
            let error = open(url.clone()).await.unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
