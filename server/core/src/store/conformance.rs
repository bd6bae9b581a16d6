//! What every store does, as one suite that runs over each of them: `conformance!` makes a test of each property.
//!
//! What a query means is said by the functions of [`crate::work::query`] over one device; here they are asked over all devices of a
//! random fleet, and the store has to say the same. Random sequences begin with a seed that is printed;
//! `RUST_OTA_SEED=N` runs one again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use roaring::RoaringBitmap;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Committed, DumpRow, Job, Store, Watch, WriterFailed};
use crate::domain::rollout::{self, CreateError, NewDeployment, ReportError};
use crate::domain::token::Claims;
use crate::model::time::Timestamp;
use crate::model::{
    Attribute, AuthSet, AuthStatus, Deployment, Device, DeviceDeployment, Inventory, Phase, PhaseSize,
    STATUSES, Status, StopAction, StopRule, Tag,
};
use crate::work::query::{
    Attr, Bound, DeploymentQuery, DeviceQuery, DeviceView, Direction, EventQuery, RecordQuery, SCOPES, Scope,
    Test, pattern, place,
};
use crate::work::{Event, KINDS, Key, Kind, NotLoaded, STREAMS, Stream, Work, Write};

/// A place where a store is.
#[async_trait]
pub(crate) trait Ground: Send + Sync {
    /// Opens what is there, also while another handle is open if [`Ground::is_shared`].
    async fn open(&self) -> Arc<dyn Store>;

    /// Whether several processes may have it open.
    fn is_shared(&self) -> bool;

    /// How a child process is told where it is.
    fn name(&self) -> String;
}

/// One test of each property. `$ground` is an expression: an `Option` of a [`Ground`] with nothing in it, `None` where there
/// cannot be one; `$at` makes one of [`Ground::name`].
macro_rules! conformance {
    ($ground:expr, $at:expr) => {
        $crate::store::conformance::conformance!(@each $ground,
            what_a_job_wrote_is_there_after_reopening
            what_lies_as_deep_as_it_may_is_read_again
            a_refused_job_changes_nothing
            what_a_rule_asks_for_is_loaded
            counters_are_what_they_count
            numbers_are_never_given_twice
            every_search_is_answered_as_it_is_defined
            deployments_are_listed_as_they_are_defined
            devices_of_a_deployment_have_records_or_a_status_without_one
            a_device_has_its_history
            an_ended_deployment_is_ended_on_every_device
            events_are_numbered_and_listed
            documents_and_logs_are_kept_and_go_with_their_device
            what_is_old_goes_and_the_rest_stays
            check_ins_never_go_back
            writers_at_once_lose_nothing
            another_process_is_told_and_both_count_right
            of_two_people_at_once_one_wins
            alerts_that_come_at_once_are_all_counted
            watchers_are_told_before_the_answer
            a_dump_fills_another_store_with_the_same
        );

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_was_acknowledged_survives_kill_9() {
            let at = $at;
            if let Some(name) = $crate::store::conformance::name_for_child() {
                $crate::store::conformance::write_until_killed(&at(name)).await;
                return;
            }
            if let Some(ground) = $ground {
                let test = concat!(module_path!(), "::what_was_acknowledged_survives_kill_9");
                $crate::store::conformance::what_was_acknowledged_survives_kill_9(&ground, test).await;
            }
        }
    };
    (@each $ground:expr, $($property:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $property() {
            if let Some(ground) = $ground {
                $crate::store::conformance::$property(&ground).await;
            }
        }
    )*};
}
pub(crate) use conformance;

// ---- random things ----

/// SplitMix64.
struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let given = std::env::var("RUST_OTA_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| Timestamp::now().0);
        println!("RUST_OTA_SEED={seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn id(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a & 0xffff,
            b >> 52,
            b & 0xfff,
            b >> 16 & 0xffff_ffff_ffff
        )
    }

    /// A value of an attribute, of all types and with letters that a database may see otherwise.
    fn value(&mut self) -> Value {
        let long = |end: &str| json!("x".repeat(300) + end);
        match self.below(20) {
            0 => json!(true),
            1 => json!(false),
            2 => json!(1),
            3 => json!(1.0),
            4 => json!(-2.5),
            5 => json!(1e17),
            6 => json!(u64::MAX),
            7 => json!(self.below(50)),
            8 => json!("nul\u{0}inside"),
            9 => json!("Ä \u{1f980} \"quoted\" \\ %_"),
            10 => long("a"),
            11 => long("b"),
            12 => json!(""),
            13 => json!([]),
            14 => json!(["linux", "b"]),
            15 => json!([3, 1.0]),
            16 => json!("100"),
            17 => json!(format!("host-{}", self.below(40))),
            _ => self.of(&[json!("linux"), json!("Linux"), json!("zephyr")]),
        }
    }

    fn inventory(&mut self, now: Timestamp) -> Inventory {
        let mut attributes = BTreeMap::new();
        for name in ["os", "ip", "mem", "status", "group", "odd"] {
            if !self.one_in(4) {
                let value = self.value();
                let attribute = Attribute { name: name.to_owned(), value, description: None, timestamp: now };
                attributes.insert(name.to_owned(), attribute);
            }
        }
        Inventory { attributes, updated: Some(now) }
    }

    fn device(&mut self) -> Device {
        let mut device = device(&self.id());
        device.created = Timestamp(1_700_000_000_000 + self.below(100_000) as u64 * 997);
        device.updated = device.created;
        let mac = json!(format!("00:11:22:33:44:{:02x}", self.below(256)));
        device.identity = BTreeMap::from([("mac".to_owned(), mac)]);
        if self.one_in(3) {
            device.identity.insert("sn".to_owned(), json!(format!("{}", self.below(1000))));
        }
        if self.one_in(10) {
            device.identity.insert("status".to_owned(), json!("broken"));
        }
        device.group = self.of(&[None, Some("a".to_owned()), Some("b".to_owned()), Some("ä 2".to_owned())]);
        if self.one_in(3) {
            let tag = Tag { value: self.of(&["linux", "attic", "Keller"]).to_owned(), description: None };
            device.tags.insert("place".to_owned(), tag);
        }
        if self.one_in(5) {
            device.tags.insert("os".to_owned(), Tag { value: "zephyr".to_owned(), description: None });
        }
        if self.one_in(4) {
            device.monitor.insert("alerts".to_owned(), json!(self.one_in(2)));
        }
        for _ in 0..self.below(3) {
            device.auth_sets.push(self.auth_set());
        }
        device
    }

    fn auth_set(&mut self) -> AuthSet {
        let status = self.of(&[
            AuthStatus::Accepted,
            AuthStatus::Pending,
            AuthStatus::Rejected,
            AuthStatus::Preauthorized,
        ]);
        AuthSet { id: self.id(), pubkey: "PEM".to_owned(), status, ts: Timestamp(5), serial: 0 }
    }
}

fn device(id: &str) -> Device {
    Device {
        id: id.to_owned(),
        identity: BTreeMap::from([("mac".to_owned(), json!(id))]),
        identity_sha256: format!("sha-{id}"),
        created: Timestamp(1000),
        updated: Timestamp(1000),
        auth_sets: Vec::new(),
        group: None,
        number: 0,
        active: None,
        last_finished: 0,
        tags: BTreeMap::new(),
        monitor: BTreeMap::new(),
    }
}

fn deployment(id: &str) -> Deployment {
    // By its stored form, so that members that it gets later have their defaults.
    let form = json!({
        "id": id, "name": format!("name of {id}"), "artifact_name": "release-1", "created": "2026-01-01T00:00:00Z",
        "device_count": 0,
    });
    serde_json::from_value(form).unwrap()
}

fn record(id: &str, deployment: &str, device: &str, status: Status) -> DeviceDeployment {
    let form = json!({
        "id": id, "deployment": deployment, "device": device, "status": status, "created": "2026-01-01T00:00:01Z",
    });
    serde_json::from_value(form).unwrap()
}

// ---- asking ----

/// Runs a rule; `None` when it refuses.
pub(crate) async fn change<T: Send + 'static>(
    store: &dyn Store,
    keys: Vec<Key>,
    mut rule: impl FnMut(&mut Work) -> Result<Option<T>, NotLoaded> + Send + 'static,
) -> Result<Option<T>, WriterFailed> {
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    let run = move |work: &mut Work| {
        let answer = rule(work).ok().flatten();
        let keep = answer.is_some();
        *slot.lock().unwrap() = answer;
        keep
    };
    let (done, stored) = oneshot::channel();
    store.submit(Job { keys, run: Box::new(run), done });
    // A store that has stopped may drop it.
    stored.await.unwrap_or_else(|_| Err(WriterFailed("it has stopped".into())))?;
    Ok(result.lock().unwrap().take())
}

async fn put(store: &dyn Store, device: Device, inventory: Option<Inventory>) {
    let written = change(store, vec![], move |work| {
        let id = device.id.clone();
        if device.number != 0 {
            work.device(&id)?;
        }
        work.put_device(device.clone())?;
        if let Some(inventory) = &inventory {
            work.inventory(&id)?;
            work.put_inventory(&id, inventory.clone())?;
        }
        Ok(Some(()))
    });
    written.await.unwrap().unwrap();
}

async fn put_document(store: &dyn Store, kind: Kind, id: &str, value: Option<Value>) {
    let id = id.to_owned();
    let written = change(store, vec![], move |work| {
        work.document::<Value>(kind, &id)?;
        work.put_document(kind, &id, value.as_ref())?;
        Ok(Some(()))
    });
    written.await.unwrap().unwrap();
}

async fn start(store: &dyn Store, one: Deployment, members: RoaringBitmap) {
    let members = Arc::new(members);
    let written = change(store, vec![], move |work| {
        work.new_deployment(one.clone(), members.clone());
        Ok(Some(()))
    });
    written.await.unwrap().unwrap();
}

async fn put_record(store: &dyn Store, one: DeviceDeployment) {
    let written = change(store, vec![], move |work| {
        work.record(&one.deployment, &one.device)?;
        work.put_record(one.clone())?;
        Ok(Some(()))
    });
    written.await.unwrap().unwrap();
}

/// All devices, page by page.
async fn all(store: &dyn Store) -> Vec<DeviceView> {
    store.devices(&DeviceQuery { take: 1_000_000, ..DeviceQuery::default() }).await.unwrap().items
}

/// A random fleet, as it has to be found.
struct Fleet {
    views: BTreeMap<String, DeviceView>,
}

impl Fleet {
    async fn random(random: &mut Random, store: &dyn Store, how_many: usize) -> Fleet {
        let mut fleet = Fleet { views: BTreeMap::new() };
        for _ in 0..how_many {
            fleet.add(random, store).await;
        }
        let mut times = Vec::new();
        for view in fleet.views.values_mut() {
            if !random.one_in(4) {
                let time = Timestamp(1_700_000_000_000 + random.below(50) as u64 * 1000);
                view.check_in = Some(time);
                times.push((view.device.number, time));
            }
        }
        store.check_ins(times).await.unwrap();
        fleet
    }

    async fn add(&mut self, random: &mut Random, store: &dyn Store) {
        let device = random.device();
        let inventory = (!random.one_in(5)).then(|| random.inventory(device.created));
        put(store, device.clone(), inventory.clone()).await;
        let number = store.device(&device.id).await.unwrap().unwrap().number;
        assert_ne!(number, 0);
        let view = DeviceView {
            device: Device { number, ..device.clone() },
            inventory: inventory.unwrap_or_default(),
            check_in: None,
        };
        self.views.insert(device.id, view);
    }

    async fn change(&mut self, random: &mut Random, store: &dyn Store) {
        let ids: Vec<String> = self.views.keys().cloned().collect();
        if ids.is_empty() || random.one_in(4) {
            return self.add(random, store).await;
        }
        let id = random.of(&ids);
        if random.one_in(5) {
            self.views.remove(&id);
            let written = change(store, vec![Key::Device(id.clone())], move |work| {
                work.remove_device(&id)?;
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
            return;
        }
        let view = self.views.get_mut(&id).unwrap();
        if random.one_in(2) {
            let other = random.device();
            let before = std::mem::replace(&mut view.device, other);
            let Device { number, created, identity_sha256, .. } = before;
            view.device = Device { id, number, created, identity_sha256, ..view.device.clone() };
            put(store, view.device.clone(), None).await;
        } else {
            view.inventory = random.inventory(Timestamp(1_800_000_000_000));
            put(store, view.device.clone(), Some(view.inventory.clone())).await;
        }
    }

    /// What the definition of a query finds.
    fn wanted(&self, query: &DeviceQuery) -> Vec<&DeviceView> {
        let mut found: Vec<&DeviceView> = self.views.values().filter(|view| view.is_wanted(query)).collect();
        found.sort_by(|a, b| {
            let status = |view: &DeviceView| view.device.status().name();
            let mut ordering = std::cmp::Ordering::Equal;
            if query.by_status {
                ordering = status(a).cmp(status(b));
            }
            for (attr, direction) in &query.sort {
                let places = (place(a.value(attr).as_ref()), place(b.value(attr).as_ref()));
                ordering = ordering.then(direction.apply(places.0.compare(&places.1)));
            }
            ordering.then_with(|| a.device.id.cmp(&b.device.id))
        });
        found
    }

    fn counts(&self) -> BTreeMap<AuthStatus, u64> {
        let mut counts = BTreeMap::new();
        for view in self.views.values() {
            *counts.entry(view.device.status()).or_default() += 1;
        }
        counts
    }

    fn groups(&self) -> Vec<(String, u64)> {
        let mut groups: BTreeMap<String, u64> = BTreeMap::new();
        for group in self.views.values().filter_map(|view| view.device.group.clone()) {
            *groups.entry(group).or_default() += 1;
        }
        groups.into_iter().collect()
    }

    /// Every attribute that a device has.
    fn attributes(&self) -> Vec<(Scope, String, u64)> {
        let mut counts: BTreeMap<(Scope, String), u64> = BTreeMap::new();
        for view in self.views.values() {
            let own = ["created_ts", "updated_ts", "group", "check_in_time"]
                .map(|name| (Scope::System, name.to_owned()));
            let identity = view.device.identity.keys().map(|name| (Scope::Identity, name.clone()));
            let reported = view.inventory.attributes.keys().map(|name| (Scope::Inventory, name.clone()));
            let monitor = view.device.monitor.keys().map(|name| (Scope::Monitor, name.clone()));
            let tags = view.device.tags.keys().map(|name| (Scope::Tags, name.clone()));
            let mut names: BTreeSet<(Scope, String)> = own.into_iter().collect();
            names.insert((Scope::Identity, "status".to_owned()));
            names.extend(identity.chain(reported).chain(monitor).chain(tags));
            for (scope, name) in names {
                if view.value_in(scope, &name).is_some() {
                    *counts.entry((scope, name)).or_default() += 1;
                }
            }
        }
        counts.into_iter().map(|((scope, name), count)| (scope, name, count)).collect()
    }

    async fn check_counters(&self, store: &dyn Store) {
        let counts: BTreeMap<AuthStatus, u64> =
            store.device_counts().await.unwrap().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, self.counts());
        assert_eq!(store.groups().await.unwrap(), self.groups());
        assert_eq!(store.attributes().await.unwrap(), self.attributes());
        assert_eq!(all(store).await.len(), self.views.len());
    }
}

fn same(found: &DeviceView, wanted: &DeviceView) {
    assert_eq!(found.device, wanted.device);
    assert_eq!(found.inventory, wanted.inventory);
    assert_eq!(found.check_in, wanted.check_in);
}

// ---- the properties ----

pub(crate) async fn what_a_job_wrote_is_there_after_reopening(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let fleet = Fleet::random(&mut random, &*store, 20).await;
    let some = fleet.views.values().next().unwrap().clone();
    start(&*store, deployment("d1"), RoaringBitmap::from_iter([some.device.number, 70_000])).await;
    put_document(&*store, Kind::Role, "admin", Some(json!({"may": ["everything"]}))).await;
    let before = dump(&*store).await;
    store.stop().await;
    drop(store);

    let store = ground.open().await;
    assert_eq!(dump(&*store).await, before);
    for view in fleet.views.values() {
        same(&store.view(&view.device.id).await.unwrap().unwrap(), view);
        assert_eq!(store.device(&view.device.id).await.unwrap().unwrap(), view.device);
    }
    assert_eq!(store.deployment("d1").await.unwrap().unwrap().sequence, 1);
    assert!(store.members("d1").await.unwrap().unwrap().contains(70_000));
    assert_eq!(store.members("other").await.unwrap(), None);
    assert_eq!(store.document(Kind::Role, "admin").await.unwrap(), Some(json!({"may": ["everything"]})));
    assert_eq!(store.documents(Kind::Role).await.unwrap().len(), 1);
    let active = store.active().await.unwrap();
    assert_eq!(active.len(), 1);
    assert_eq!((active[0].deployment.id.as_str(), active[0].members.len()), ("d1", 2));
    store.stop().await;
    let refused = change(&*store, vec![], |_| Ok(Some(()))).await;
    assert!(refused.is_err(), "a store that has stopped takes nothing");
}

/// Every record that keeps JSON of a body, with as many lists in each other as a body may have.
pub(crate) async fn what_lies_as_deep_as_it_may_is_read_again(ground: &dyn Ground) {
    let deepest = (0..crate::domain::json::DEPTH).fold(json!(1), |inner, _| json!([inner]));
    assert!(!crate::domain::json::is_deep(deepest.to_string().as_bytes()));
    let store = ground.open().await;
    let time = Timestamp(1000);
    let mut one = device("d");
    one.identity = crate::domain::identity::Identity::parse(r#"{"mac":["a","b"]}"#).unwrap().attributes;
    let attribute =
        Attribute { name: "a".to_owned(), value: deepest.clone(), description: None, timestamp: time };
    let attributes = BTreeMap::from([("a".to_owned(), attribute)]);
    put(&*store, one, Some(Inventory { attributes, updated: Some(time) })).await;
    for kind in KINDS {
        put_document(&*store, kind, "deep", Some(json!({ "value": { "inner": deepest } }))).await;
    }
    let map = json!({ "states": { "ArtifactInstall_Enter": deepest } });
    let ordered =
        Deployment { update_control_map: Some(map.clone()), filter: Some(map), ..deployment("deployment") };
    start(&*store, ordered, RoaringBitmap::from_iter([1])).await;
    let streams = STREAMS;
    let data = json!({ "id": "x", "type": "t", "data": { "device": { "identity": deepest } } });
    let told = change(&*store, vec![], move |work| {
        for stream in streams {
            work.write(Write::Event(Event { stream, key: "k".to_owned(), time, data: data.clone() }));
        }
        Ok(Some(()))
    });
    told.await.unwrap().unwrap();
    assert_eq!(all(&*store).await.len(), 1);
    for kind in KINDS {
        assert_eq!(store.documents(kind).await.unwrap().len(), 1, "{kind:?}");
    }
    assert_eq!(
        store.deployments(&DeploymentQuery { take: 9, ..DeploymentQuery::default() }).await.unwrap().total,
        1
    );
    for stream in STREAMS {
        let query = EventQuery { take: 9, ..EventQuery::of(stream) };
        assert_eq!(store.events(&query).await.unwrap().items.len(), 1, "{stream:?}");
    }
    assert_eq!(rows(&*store).await.len(), 2 + KINDS.len() + STREAMS.len());
    store.stop().await;
}

pub(crate) async fn a_refused_job_changes_nothing(ground: &dyn Ground) {
    let store = ground.open().await;
    put(&*store, device("one"), None).await;
    let before = dump(&*store).await;
    let refused = change(&*store, vec![], |work| {
        let mut one = work.device("one")?.unwrap();
        one.group = Some("other".to_owned());
        work.put_device(one)?;
        work.put_device(device("two"))?;
        work.inventory("one")?;
        work.put_inventory("one", Inventory::default())?;
        work.new_deployment(deployment("d"), Arc::default());
        work.document::<Value>(Kind::Role, "r")?;
        work.put_document(Kind::Role, "r", Some(&1))?;
        let event = Event { stream: Stream::Audit, key: String::new(), time: work.now(), data: json!(1) };
        work.write(Write::Event(event));
        Ok(None::<()>)
    });
    assert_eq!(refused.await.unwrap(), None);
    assert_eq!(dump(&*store).await, before);
    assert_eq!(store.groups().await.unwrap(), []);
    assert_eq!(store.device("two").await.unwrap(), None);
    // In the same transaction as one that is kept, too.
    let jobs = (0..20).map(|at| {
        let store = store.clone();
        tokio::spawn(async move {
            change(&*store, vec![], move |work| {
                work.put_device(device(&format!("n{at}")))?;
                Ok((at % 2 == 0).then_some(()))
            })
            .await
        })
    });
    for (at, job) in jobs.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(job.await.unwrap().unwrap().is_some(), at % 2 == 0);
    }
    let ids: BTreeSet<String> = all(&*store).await.into_iter().map(|view| view.device.id).collect();
    let kept = (0..20).filter(|at| at % 2 == 0).map(|at| format!("n{at}"));
    assert_eq!(ids, kept.chain(["one".to_owned()]).collect());
    store.stop().await;
}

pub(crate) async fn what_a_rule_asks_for_is_loaded(ground: &dyn Ground) {
    let store = ground.open().await;
    let mut one = device("one");
    one.auth_sets.push(AuthSet {
        id: "set".to_owned(),
        pubkey: String::new(),
        status: AuthStatus::Accepted,
        ts: Timestamp(1),
        serial: 0,
    });
    let mut random = Random::seeded();
    let inventory = random.inventory(Timestamp(7));
    put(&*store, one, Some(inventory.clone())).await;
    start(&*store, deployment("d"), RoaringBitmap::from_iter([1, 2])).await;
    put_record(&*store, record("r", "d", "one", Status::Installing)).await;
    put_document(&*store, Kind::Token, "t", Some(json!("x"))).await;
    let keys = [
        Key::Device("one".to_owned()),
        Key::Identity("sha-one".to_owned()),
        Key::AuthSet("set".to_owned()),
        Key::Inventory("one".to_owned()),
        Key::Deployment("d".to_owned()),
        Key::Members("d".to_owned()),
        Key::Record("d".to_owned(), "one".to_owned()),
        Key::Document(Kind::Token, "t".to_owned()),
        Key::Count(AuthStatus::Accepted),
    ];
    for named in 0..=keys.len() {
        let inventory = inventory.clone();
        let seen = change(&*store, keys[..named].to_vec(), move |work| {
            assert_eq!(work.count(AuthStatus::Accepted)?, 1);
            assert_eq!(work.count(AuthStatus::Rejected)?, 0);
            assert_eq!(work.device_of_identity("sha-one")?.as_deref(), Some("one"));
            assert_eq!(work.device_of_identity("sha-two")?, None);
            assert_eq!(work.device_of_auth_set("set")?.as_deref(), Some("one"));
            assert_eq!(work.device_of_auth_set("tes")?, None);
            assert_eq!(work.device("one")?.unwrap().auth_sets.len(), 1);
            assert_eq!(work.device("two")?, None);
            assert_eq!(work.inventory("one")?, inventory);
            assert_eq!(work.inventory("two")?, Inventory::default());
            assert_eq!(work.deployment("d")?.unwrap().sequence, 1);
            assert_eq!(work.deployment("e")?, None);
            assert_eq!(work.members("d")?.len(), 2);
            assert_eq!(work.record("d", "one")?.unwrap().status, Status::Installing);
            assert_eq!(work.record("d", "two")?, None);
            assert_eq!(work.document::<String>(Kind::Token, "t")?.as_deref(), Some("x"));
            assert_eq!(work.document::<String>(Kind::User, "t")?, None);
            Ok(Some(true))
        });
        assert_eq!(seen.await.unwrap(), Some(true));
    }
    store.stop().await;
}

pub(crate) async fn counters_are_what_they_count(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let mut fleet = Fleet { views: BTreeMap::new() };
    for round in 0..120 {
        fleet.change(&mut random, &*store).await;
        if round % 20 == 19 {
            fleet.check_counters(&*store).await;
        }
    }
    store.stop().await;
    drop(store);
    let store = ground.open().await;
    fleet.check_counters(&*store).await;
    store.stop().await;
}

pub(crate) async fn numbers_are_never_given_twice(ground: &dyn Ground) {
    let mut given: HashMap<u32, String> = HashMap::new();
    for round in 0..3 {
        let store = ground.open().await;
        for at in 0..10 {
            let id = format!("{round}-{at}");
            put(&*store, device(&id), None).await;
            let number = store.device(&id).await.unwrap().unwrap().number;
            assert_eq!(given.insert(number, id.clone()), None, "{number} was given before");
            // The newest one is the one whose number would be next again.
            let gone = id.clone();
            let removed = change(&*store, vec![], move |work| {
                work.remove_device(&gone)?;
                Ok(Some(()))
            });
            removed.await.unwrap().unwrap();
            assert_eq!(store.device(&id).await.unwrap(), None);
        }
        store.stop().await;
    }
    let store = ground.open().await;
    let numbers: Vec<u32> = given.keys().copied().collect();
    let known: HashMap<u32, String> = store.device_ids(&numbers).await.unwrap().into_iter().collect();
    assert_eq!(known, given);
    assert_eq!(store.device_ids(&[4_000_000]).await.unwrap(), []);
    store.stop().await;
}

impl Random {
    fn attr(&mut self) -> Attr {
        let scope = if self.one_in(3) { None } else { Some(self.of(&SCOPES)) };
        let names = match scope {
            Some(Scope::System) => vec!["created_ts", "updated_ts", "group", "check_in_time", "none"],
            Some(Scope::Identity) => vec!["mac", "sn", "status", "none"],
            Some(Scope::Tags) => vec!["place", "os", "none"],
            Some(Scope::Monitor) => vec!["alerts", "none"],
            Some(Scope::Inventory) => vec!["os", "ip", "mem", "status", "group", "odd", "none"],
            None => vec!["os", "ip", "mem", "status", "group", "mac", "check_in_time", "created_ts", "none"],
        };
        Attr { scope, name: self.of(&names).to_owned() }
    }

    /// A value that some device has, or any.
    fn value_of(&mut self, fleet: &Fleet, attr: &Attr) -> Value {
        let views: Vec<&DeviceView> = fleet.views.values().collect();
        let of_one = (!self.one_in(3) && !views.is_empty()).then(|| self.of(&views).value(attr)).flatten();
        match of_one {
            Some(Value::Array(values)) if !values.is_empty() && self.one_in(2) => self.of(&values),
            Some(value) => value,
            None => self.value(),
        }
    }

    fn test(&mut self, fleet: &Fleet, attr: &Attr) -> Test {
        let value = self.value_of(fleet, attr);
        let text = value.as_str().unwrap_or("1").to_owned();
        match self.below(11) {
            0 | 1 => Test::Equal(value),
            2 => Test::NotEqual(value),
            3 | 4 => Test::Order(self.of(&[Bound::Above, Bound::From, Bound::Below, Bound::To]), value),
            5 => Test::In(vec![value, self.value_of(fleet, attr), self.value()]),
            6 => Test::NotIn(vec![value, self.value_of(fleet, attr)]),
            7 => Test::Exists(self.one_in(2)),
            8 => {
                let patterns =
                    ["host-.*[13]", "/LIN.*/i", "[a-z]+$", ".*ä.*|nul", "", "x+b", "\\d+", "(?s)nul.inside"];
                Test::Matches(pattern(self.of(&patterns)).unwrap())
            }
            9 => Test::Reads(self.of(&[text, "1".to_owned(), "true".to_owned(), "-2.5".to_owned()])),
            _ => Test::Begins(text.chars().take(self.below(5)).collect()),
        }
    }

    fn query(&mut self, fleet: &Fleet) -> DeviceQuery {
        let mut query = DeviceQuery { take: 7, ..DeviceQuery::default() };
        for _ in 0..self.below(3) {
            let attr = self.attr();
            let test = self.test(fleet, &attr);
            query.tests.push((attr, test));
        }
        if self.one_in(4) {
            query.statuses = vec![AuthStatus::Accepted, self.of(&[AuthStatus::Noauth, AuthStatus::Pending])];
        }
        if self.one_in(5) {
            query.group = self.of(&[Some("a".to_owned()), Some("ä 2".to_owned()), Some("none".to_owned())]);
        }
        if self.one_in(6) {
            query.has_group = Some(self.one_in(2));
        }
        if self.one_in(8) {
            let ids: Vec<String> = fleet.views.keys().cloned().collect();
            query.ids =
                (0..4).map(|_| self.of(&ids)).chain(["nobody".to_owned(), "nul\u{0}".to_owned()]).collect();
        }
        if self.one_in(6) {
            query.text =
                self.of(&["linux", "ä", "attic", "host-1", "\"", "accept", "\u{0}", "mac", "\\"]).to_owned();
        }
        if self.one_in(6) {
            query.by_status = true;
        }
        for _ in 0..self.below(3) {
            query.sort.push((self.attr(), self.of(&[Direction::Ascending, Direction::Descending])));
        }
        query
    }
}

pub(crate) async fn every_search_is_answered_as_it_is_defined(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let mut fleet = Fleet::random(&mut random, &*store, 45).await;
    for round in 0..220 {
        if round % 5 == 4 {
            // Attributes that are in an index by now follow what changes.
            fleet.change(&mut random, &*store).await;
        }
        let query = random.query(&fleet);
        check_search(&*store, &fleet, &query).await;
    }
    // A list of everything, from its first page to behind its last.
    check_search(&*store, &fleet, &DeviceQuery { take: 4, ..DeviceQuery::default() }).await;
    store.stop().await;
}

async fn check_search(store: &dyn Store, fleet: &Fleet, query: &DeviceQuery) {
    let wanted = fleet.wanted(query);
    let numbers: RoaringBitmap = wanted.iter().map(|view| view.device.number).collect();
    assert_eq!(store.device_numbers(query).await.unwrap(), numbers, "{query:?}");
    let mut skip = 0;
    loop {
        let found = store.devices(&DeviceQuery { skip, ..query.clone() }).await.unwrap();
        let page: Vec<&DeviceView> =
            wanted.iter().copied().skip(skip as usize).take(query.take as usize).collect();
        let ids = |views: &[&DeviceView]| -> Vec<String> {
            views.iter().map(|view| view.device.id.clone()).collect()
        };
        assert_eq!(found.total, wanted.len() as u64, "{query:?}");
        assert_eq!(ids(&found.items.iter().collect::<Vec<_>>()), ids(&page), "from {skip} of {query:?}");
        for (found, wanted) in found.items.iter().zip(page) {
            same(found, wanted);
        }
        if skip > wanted.len() as u64 {
            return;
        }
        skip += query.take;
    }
}

pub(crate) async fn deployments_are_listed_as_they_are_defined(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let mut made: Vec<Deployment> = Vec::new();
    for at in 0..25_u64 {
        let mut one = deployment(&random.id());
        one.name = random.of(&["alpha", "beta", "be\u{0}ta", "Ä"]).to_owned();
        one.artifact_name = random.of(&["release-1", "release-2"]).to_owned();
        one.created = Timestamp(1_700_000_000_000 + random.below(10) as u64 * 1000);
        one.configuration = random.one_in(4).then(BTreeMap::new);
        start(&*store, one.clone(), RoaringBitmap::from_iter([1, 2, 3])).await;
        one.sequence = store.deployment(&one.id).await.unwrap().unwrap().sequence;
        assert_eq!(one.sequence, at + 1, "they are numbered in the order of their creation");
        if random.one_in(3) {
            let start = Timestamp::now().plus_seconds(random.of(&[0, 100_000]));
            let size = PhaseSize::Rest;
            one.phases.push(Phase { id: random.id(), start: Some(start), size, begun: 0 });
        }
        match random.below(3) {
            0 => one.finished = Some(Timestamp(1_800_000_000_000)),
            1 => {
                one.counts.insert(Status::Installing, 1);
            }
            _ => {}
        }
        let changed = one.clone();
        let written = change(&*store, vec![], move |work| {
            work.deployment(&changed.id)?;
            work.put_deployment(changed.clone())?;
            Ok(Some(()))
        });
        written.await.unwrap().unwrap();
        made.push(one);
    }
    let active: Vec<String> =
        store.active().await.unwrap().into_iter().map(|one| one.deployment.id).collect();
    let wanted: Vec<String> =
        made.iter().filter(|one| one.finished.is_none()).map(|one| one.id.clone()).collect();
    assert_eq!(active, wanted);
    for _ in 0..60 {
        let mut query = DeploymentQuery { take: 4, ..DeploymentQuery::default() };
        if random.one_in(3) {
            query.states = vec![
                random.of(&["scheduled", "pending", "inprogress", "finished"]).to_owned(),
                "inprogress".to_owned(),
            ];
        }
        if random.one_in(4) {
            query.is_configuration = Some(random.one_in(2));
        }
        if random.one_in(4) {
            query.search = Some(random.of(&["eta", "lease-2", "\u{0}", "", "%"]).to_owned());
        }
        if random.one_in(5) {
            query.ids = vec![random.of(&made).id, "other".to_owned()];
        }
        if random.one_in(5) {
            query.names = vec!["alpha".to_owned(), "be\u{0}ta".to_owned()];
        }
        if random.one_in(5) {
            query.artifact_name = Some("release-2".to_owned());
        }
        if random.one_in(4) {
            query.before = Some(Timestamp(1_700_000_005_000));
        }
        if random.one_in(4) {
            query.after = Some(Timestamp(1_700_000_005_000));
        }
        query.oldest_first = random.one_in(2);
        let mut wanted: Vec<&Deployment> = made.iter().filter(|one| query.is_wanted(one)).collect();
        if !query.oldest_first {
            wanted.reverse();
        }
        for skip in (0..=wanted.len() as u64 + 4).step_by(4) {
            let found = store.deployments(&DeploymentQuery { skip, ..query.clone() }).await.unwrap();
            let page: Vec<Deployment> =
                wanted.iter().skip(skip as usize).take(4).map(|one| (*one).clone()).collect();
            assert_eq!((found.items, found.total), (page, wanted.len() as u64), "from {skip} of {query:?}");
        }
    }
    store.stop().await;
}

pub(crate) async fn devices_of_a_deployment_have_records_or_a_status_without_one(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let fleet = Fleet::random(&mut random, &*store, 30).await;
    let ids: BTreeMap<u32, String> =
        fleet.views.values().map(|view| (view.device.number, view.device.id.clone())).collect();
    for has_ended in [false, true] {
        let id = format!("d-{has_ended}");
        let members: RoaringBitmap = ids.keys().copied().filter(|_| !random.one_in(4)).collect();
        start(&*store, deployment(&id), members.clone()).await;
        let mut records = BTreeMap::new();
        for number in &members {
            if random.one_in(2) {
                let one = record(&random.id(), &id, &ids[&number], random.of(&STATUSES));
                put_record(&*store, one.clone()).await;
                records.insert(number, one);
            }
        }
        if has_ended {
            let ended = id.clone();
            let written = change(&*store, vec![], move |work| {
                let mut one = work.deployment(&ended)?.unwrap();
                one.finished = Some(Timestamp(9));
                work.put_deployment(one)?;
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
        }
        let without = if has_ended { Status::Aborted } else { Status::Pending };
        for round in 0..30 {
            let mut statuses: Vec<Status> = (0..random.below(4)).map(|_| random.of(&STATUSES)).collect();
            if round % 3 == 0 {
                statuses.push(without);
            }
            let recorded = round % 2 == 0;
            let wanted: Vec<(String, Option<DeviceDeployment>)> = members
                .iter()
                .map(|number| (ids[&number].clone(), records.get(&number).cloned()))
                .filter(|(_, record)| {
                    let status = record.as_ref().map_or(without, |record| record.status);
                    statuses.is_empty() || statuses.contains(&status) && (record.is_some() || !recorded)
                })
                .collect();
            for skip in [0, 3, 6, wanted.len() as u64, 1000] {
                let (deployment, statuses) = (id.clone(), statuses.clone());
                let query = RecordQuery { deployment, statuses, recorded, skip, take: 3 };
                let found = store.records(&query).await.unwrap();
                let page: Vec<_> = wanted.iter().skip(skip as usize).take(3).cloned().collect();
                assert_eq!((found.items, found.total), (page, wanted.len() as u64), "{query:?}");
            }
        }
        for (number, one) in &records {
            assert_eq!(store.record(&id, &ids[number]).await.unwrap().as_ref(), Some(one));
        }
    }
    let nobody = RecordQuery { deployment: "other".to_owned(), take: 5, ..RecordQuery::default() };
    assert_eq!(store.records(&nobody).await.unwrap().total, 0);
    store.stop().await;
}

pub(crate) async fn a_device_has_its_history(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    put(&*store, device("one"), None).await;
    put(&*store, device("two"), None).await;
    let number = store.device("one").await.unwrap().unwrap().number;
    let mut wanted = Vec::new();
    for at in 0..12_u32 {
        let id = format!("d{at}");
        let mut members = RoaringBitmap::from_iter([number + 1 + at, 200_000 + at]);
        let lists = random.one_in(2);
        if lists {
            members.insert(number);
        }
        start(&*store, deployment(&id), members).await;
        if lists {
            let one = random.one_in(2).then(|| record(&random.id(), &id, "one", Status::Success));
            if let Some(one) = one.clone() {
                put_record(&*store, one).await;
            }
            wanted.insert(0, (store.deployment(&id).await.unwrap().unwrap(), one));
        }
    }
    for skip in 0..=wanted.len() as u64 {
        let found = store.history("one", skip, 3).await.unwrap();
        let page: Vec<_> = wanted.iter().skip(skip as usize).take(3).cloned().collect();
        assert_eq!((found.items, found.total), (page, wanted.len() as u64));
    }
    assert_eq!(store.history("nobody", 0, 3).await.unwrap().total, 0);
    store.stop().await;
}

pub(crate) async fn an_ended_deployment_is_ended_on_every_device(ground: &dyn Ground) {
    let store = ground.open().await;
    start(&*store, deployment("d"), RoaringBitmap::from_iter(1..20)).await;
    start(&*store, deployment("e"), RoaringBitmap::from_iter(1..20)).await;
    for (at, status) in STATUSES.into_iter().enumerate() {
        let id = format!("n{at}");
        let mut one = device(&id);
        one.active = Some(if at % 2 == 0 { "d" } else { "e" }.to_owned());
        put(&*store, one, None).await;
        put_record(&*store, record(&format!("r{at}"), "d", &id, status)).await;
        put_record(&*store, record(&format!("s{at}"), "e", &id, status)).await;
    }
    let ended = change(&*store, vec![], |work| {
        work.write(Write::EndRecords {
            deployment: "d".to_owned(),
            status: Status::Aborted,
            now: Timestamp(77),
        });
        Ok(Some(()))
    });
    ended.await.unwrap().unwrap();
    for (at, status) in STATUSES.into_iter().enumerate() {
        let id = format!("n{at}");
        let one = store.record("d", &id).await.unwrap().unwrap();
        let wanted =
            if status.is_finished() { (status, None) } else { (Status::Aborted, Some(Timestamp(77))) };
        assert_eq!((one.status, one.finished), wanted, "{status:?}");
        let other = store.record("e", &id).await.unwrap().unwrap();
        assert_eq!((other.status, other.finished), (status, None));
        let active = store.device(&id).await.unwrap().unwrap().active;
        let wanted = match (at % 2 == 0, status.is_finished()) {
            (true, false) => None,
            (true, true) => Some("d"),
            (false, _) => Some("e"),
        };
        // A device at work on a deployment that it has ended is not one that a server makes.
        if !(at % 2 == 0 && status.is_finished()) {
            assert_eq!(active.as_deref(), wanted);
        }
    }
    store.stop().await;
}

pub(crate) async fn events_are_numbered_and_listed(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let mut made = Vec::new();
    for at in 0..60_u64 {
        let event = Event {
            stream: random.of(&[Stream::Audit, Stream::Alert]),
            key: random.of(&["a", "b", "c\u{0}"]).to_owned(),
            time: Timestamp(1000 + at * 10),
            data: json!({"actor": {"id": random.of(&["ada", "bob"])}, "text": "nul\u{0}", "at": at}),
        };
        made.push(event.clone());
        let written = change(&*store, vec![], move |work| {
            work.write(Write::Event(event.clone()));
            Ok(Some(()))
        });
        written.await.unwrap().unwrap();
    }
    let empty = |stream| EventQuery { take: 1000, ..EventQuery::of(stream) };
    let mut everything = Vec::new();
    for stream in [Stream::Audit, Stream::Alert] {
        everything.extend(store.events(&empty(stream)).await.unwrap().items);
    }
    everything.sort_by_key(|one| one.number);
    assert_eq!(everything.iter().map(|one| one.event.clone()).collect::<Vec<_>>(), made);
    assert!(everything.windows(2).all(|two| two[0].number < two[1].number));
    for _ in 0..60 {
        let mut query = empty(random.of(&[Stream::Audit, Stream::Alert]));
        query.take = 4;
        if random.one_in(3) {
            query.keys = vec!["a".to_owned(), "c\u{0}".to_owned()];
        }
        if random.one_in(3) {
            query.after = Some(Timestamp(1200));
        }
        if random.one_in(3) {
            query.before = Some(Timestamp(1400));
        }
        if random.one_in(3) {
            query.members = vec![("/actor/id".to_owned(), "ada".to_owned())];
        }
        if random.one_in(3) {
            query.above = Some(everything[20].number);
        }
        query.oldest_first = random.one_in(2);
        let mut wanted: Vec<_> = everything
            .iter()
            .filter(|one| {
                one.event.stream == query.stream
                    && (query.keys.is_empty() || query.keys.contains(&one.event.key))
                    && query.after.is_none_or(|time| one.event.time >= time)
                    && query.before.is_none_or(|time| one.event.time <= time)
                    && query.above.is_none_or(|number| one.number > number)
                    && (query.members.is_empty() || one.event.data["actor"]["id"] == "ada")
            })
            .cloned()
            .collect();
        if !query.oldest_first {
            wanted.reverse();
        }
        for skip in [0, 4, wanted.len() as u64] {
            let found = store.events(&EventQuery { skip, ..query.clone() }).await.unwrap();
            let page: Vec<_> = wanted.iter().skip(skip as usize).take(4).cloned().collect();
            assert_eq!((found.items, found.total), (page, wanted.len() as u64), "{query:?}");
        }
    }
    let old =
        made.iter().filter(|one| one.stream == Stream::Alert && one.time < Timestamp(1300)).count() as u64;
    assert_eq!(store.forget_events(Stream::Alert, Timestamp(1300), 3).await.unwrap(), 3.min(old));
    assert_eq!(store.forget_events(Stream::Alert, Timestamp(1300), 1000).await.unwrap(), old - 3.min(old));
    assert_eq!(store.forget_events(Stream::Alert, Timestamp(1300), 1000).await.unwrap(), 0);
    let left = store.events(&empty(Stream::Alert)).await.unwrap();
    assert!(left.items.iter().all(|one| one.event.time >= Timestamp(1300)));
    store.stop().await;
}

pub(crate) async fn what_is_old_goes_and_the_rest_stays(ground: &dyn Ground) {
    let store = ground.open().await;
    for id in ["one", "two", "three"] {
        put(&*store, device(id), None).await;
    }
    let day = |day: u64| Timestamp(1_800_000_000_000 + day * 86_400_000);
    // Made in this order; the ends are not. The last one is old too, but its number must not be given again.
    let ends = [("late", Some(9)), ("gone", Some(2)), ("kept", Some(3)), ("runs", None), ("newest", Some(1))];
    for (id, end) in ends {
        let mut one = deployment(id);
        one.finished = end.map(day);
        // Also devices of another piece of whatever keeps them in pieces.
        let members = RoaringBitmap::from_iter([1, 2, 3, 9_000, 140_000]);
        start(&*store, one, members).await;
        for (device, day_done) in [("one", 1), ("two", 2), ("three", 8)] {
            let mut record = record(&format!("{id}-{device}"), id, device, Status::Failure);
            record.finished = Some(day(day_done));
            record.log = true;
            put_record(&*store, record).await;
            let (id, device) = (id.to_owned(), device.to_owned());
            let written = change(&*store, vec![], move |work| {
                let text = Some(format!("{id} {device}"));
                work.write(Write::Log { deployment: id.clone(), device: device.clone(), text });
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
        }
    }
    assert_eq!(store.old_deployments(day(3), 10).await.unwrap(), ["gone"]);
    assert_eq!(store.old_deployments(day(4), 10).await.unwrap(), ["gone", "kept"]);
    assert_eq!(store.old_deployments(day(4), 1).await.unwrap(), ["gone"]);
    assert_eq!(store.old_deployments(day(10), 10).await.unwrap(), ["late", "gone", "kept"]);
    let mut logs = store.old_logs(day(2), 100).await.unwrap();
    logs.sort();
    let of_one: Vec<(String, String)> =
        ["gone", "kept", "late", "newest", "runs"].map(|id| (id.to_owned(), "one".to_owned())).into();
    assert_eq!(logs, of_one);
    assert_eq!(store.old_logs(day(3), 7).await.unwrap().len(), 7);

    assert!(!store.forget_deployment("runs", 10).await.unwrap());
    assert!(!store.forget_deployment("gone", 2).await.unwrap());
    assert_eq!(store.deployment("gone").await.unwrap().unwrap().id, "gone");
    assert!(store.forget_deployment("gone", 2).await.unwrap());
    assert!(store.forget_deployment("gone", 2).await.unwrap(), "one that is not there is gone");
    assert_eq!(store.deployment("gone").await.unwrap(), None);
    assert_eq!(store.members("gone").await.unwrap(), None);
    assert_eq!(store.record("gone", "one").await.unwrap(), None);
    assert_eq!(store.log("gone", "one").await.unwrap(), None);
    let listed = store.deployments(&DeploymentQuery::default()).await.unwrap();
    assert_eq!(listed.total, 4);
    let history = store.history("one", 0, 10).await.unwrap();
    let ids: Vec<&str> = history.items.iter().map(|(one, _)| one.id.as_str()).collect();
    assert_eq!((ids, history.total), (vec!["newest", "runs", "kept", "late"], 4));
    assert_eq!(store.log("kept", "three").await.unwrap().as_deref(), Some("kept three"));
    assert_eq!(store.old_logs(day(2), 100).await.unwrap().len(), 4);
    // What comes next has a number that no deployment had.
    let before = store.deployment("newest").await.unwrap().unwrap().sequence;
    start(&*store, deployment("next"), RoaringBitmap::new()).await;
    assert!(store.deployment("next").await.unwrap().unwrap().sequence > before);
    store.stop().await;
}

pub(crate) async fn documents_and_logs_are_kept_and_go_with_their_device(ground: &dyn Ground) {
    let store = ground.open().await;
    put(&*store, device("one"), None).await;
    for (kind, id, value) in [
        (Kind::Release, "v1.0 \u{0} ä", json!({"notes": "nul\u{0}"})),
        (Kind::Release, "a", json!(1e17)),
        (Kind::Artifact, "a", json!(["x", null, u64::MAX])),
        (Kind::Configuration, "one", json!({"configured": {"a": "b"}})),
        (Kind::Monitor, "one", json!([])),
        (Kind::Watched, "one", json!([])),
    ] {
        put_document(&*store, kind, id, Some(value.clone())).await;
        assert_eq!(store.document(kind, id).await.unwrap(), Some(value));
    }
    let ids: Vec<String> =
        store.documents(Kind::Release).await.unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["a", "v1.0 \u{0} ä"]);
    put_document(&*store, Kind::Release, "a", Some(json!(2))).await;
    assert_eq!(store.document(Kind::Release, "a").await.unwrap(), Some(json!(2)));
    put_document(&*store, Kind::Release, "a", None).await;
    assert_eq!(store.document(Kind::Release, "a").await.unwrap(), None);
    assert_eq!(store.documents(Kind::User).await.unwrap(), []);

    for deployment in ["d", "e", "f"] {
        start(&*store, self::deployment(deployment), RoaringBitmap::from_iter([1])).await;
    }
    let log = |deployment: &'static str, text: Option<&'static str>| {
        let store = store.clone();
        async move {
            let written = change(&*store, vec![], move |work| {
                let mut one = record(&format!("r-{deployment}"), deployment, "one", Status::Failure);
                one.log = text.is_some();
                work.record(deployment, "one")?;
                work.put_record(one)?;
                work.write(Write::Log {
                    deployment: deployment.to_owned(),
                    device: "one".to_owned(),
                    text: text.map(str::to_owned),
                });
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
        }
    };
    log("d", Some("first")).await;
    log("d", Some("line 1\nnul \u{0} ä")).await;
    log("e", Some("of another")).await;
    log("f", Some("goes")).await;
    log("f", None).await;
    assert_eq!(store.log("d", "one").await.unwrap().as_deref(), Some("line 1\nnul \u{0} ä"));
    assert_eq!(store.log("e", "one").await.unwrap().as_deref(), Some("of another"));
    assert_eq!(store.log("f", "one").await.unwrap(), None);
    assert!(store.record("d", "one").await.unwrap().unwrap().log);
    let removed = change(&*store, vec![], |work| {
        work.remove_device("one")?;
        Ok(Some(()))
    });
    removed.await.unwrap().unwrap();
    for deployment in ["d", "e"] {
        assert_eq!(store.log(deployment, "one").await.unwrap(), None);
        assert!(!store.record(deployment, "one").await.unwrap().unwrap().log);
    }
    assert_eq!(store.document(Kind::Configuration, "one").await.unwrap(), None);
    assert_eq!(store.document(Kind::Monitor, "one").await.unwrap(), None);
    assert_eq!(store.document(Kind::Watched, "one").await.unwrap(), None);
    assert_eq!(store.document(Kind::Artifact, "a").await.unwrap(), Some(json!(["x", null, u64::MAX])));
    store.stop().await;
}

pub(crate) async fn check_ins_never_go_back(ground: &dyn Ground) {
    let store = ground.open().await;
    put(&*store, device("one"), None).await;
    let number = store.device("one").await.unwrap().unwrap().number;
    store
        .check_ins(vec![(number, Timestamp(5000)), (number, Timestamp(9000)), (number, Timestamp(1000))])
        .await
        .unwrap();
    store.check_ins(vec![(number, Timestamp(2000))]).await.unwrap();
    store.check_ins(Vec::new()).await.unwrap();
    assert_eq!(store.view("one").await.unwrap().unwrap().check_in, Some(Timestamp(9000)));
    store.stop().await;
    drop(store);
    let store = ground.open().await;
    assert_eq!(store.view("one").await.unwrap().unwrap().check_in, Some(Timestamp(9000)));
    // But a clock that was a day ahead does not keep all that comes from being known.
    let day = super::AHEAD_MILLISECONDS;
    for (time, known) in [(day + 9001, day + 9001), (9001, day + 9001), (9000, 9000), (8000, 9000)] {
        store.check_ins(vec![(number, Timestamp(time))]).await.unwrap();
        assert_eq!(store.view("one").await.unwrap().unwrap().check_in, Some(Timestamp(known)), "{time}");
    }
    store.stop().await;
}

/// Adds one to a counter and to a deployment, and a device now and then.
async fn writer(store: Arc<dyn Store>, name: String, times: usize) {
    for at in 0..times {
        let id = format!("{name}-{at}");
        let written = change(&*store, vec![], move |work| {
            let count: u64 = work.document(Kind::Settings, "count")?.unwrap_or(0);
            work.put_document(Kind::Settings, "count", Some(&(count + 1)))?;
            let mut one = work.deployment("d")?.unwrap();
            *one.counts.entry(Status::Success).or_default() += 1;
            work.put_deployment(one)?;
            let mut new = device(&id);
            new.group = Some("g".to_owned());
            work.put_device(new)?;
            let event =
                Event { stream: Stream::Audit, key: id.clone(), time: work.now(), data: json!(count) };
            work.write(Write::Event(event));
            Ok(Some(()))
        });
        written.await.unwrap().unwrap();
    }
}

/// Statuses that some device has.
async fn counted(store: &dyn Store) -> Vec<(AuthStatus, u64)> {
    store.device_counts().await.unwrap().into_iter().filter(|(_, count)| *count > 0).collect()
}

async fn check_writers(store: &dyn Store, wanted: u64) {
    assert_eq!(store.document(Kind::Settings, "count").await.unwrap(), Some(json!(wanted)));
    let one = store.deployment("d").await.unwrap().unwrap();
    assert_eq!(one.counts.get(&Status::Success), Some(&wanted));
    assert_eq!(store.groups().await.unwrap(), [("g".to_owned(), wanted)]);
    assert_eq!(counted(store).await, [(AuthStatus::Noauth, wanted)]);
    let views = all(store).await;
    let numbers: BTreeSet<u32> = views.iter().map(|view| view.device.number).collect();
    assert_eq!((views.len() as u64, numbers.len() as u64), (wanted, wanted));
    let query = EventQuery { oldest_first: true, take: 100_000, ..EventQuery::of(Stream::Audit) };
    // Each saw what the one before it had written.
    let seen: Vec<Value> =
        store.events(&query).await.unwrap().items.into_iter().map(|one| one.event.data).collect();
    assert_eq!(seen, (0..wanted).map(|count| json!(count)).collect::<Vec<_>>());
}

pub(crate) async fn writers_at_once_lose_nothing(ground: &dyn Ground) {
    let store = ground.open().await;
    start(&*store, deployment("d"), RoaringBitmap::new()).await;
    let tasks: Vec<_> = (0..24).map(|at| tokio::spawn(writer(store.clone(), format!("w{at}"), 12))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    check_writers(&*store, 24 * 12).await;
    store.stop().await;
}

async fn order(store: &dyn Store, new: NewDeployment) -> Option<String> {
    let made = change(store, vec![], move |work| match rollout::create(work, new.clone()) {
        Ok(id) => Ok(Some(id)),
        Err(CreateError::NotLoaded) => Err(NotLoaded),
        Err(CreateError::Exists(_)) => Ok(None),
        Err(error) => panic!("{error:?}"),
    });
    made.await.unwrap()
}

/// Runs a change of a deployment; `None` when it comes too late.
async fn changed(
    store: &dyn Store,
    mut rule: impl FnMut(&mut Work) -> Result<(), ReportError> + Send + 'static,
) -> Option<()> {
    let changed = change(store, vec![], move |work| match rule(work) {
        Ok(()) => Ok(Some(())),
        Err(ReportError::NotLoaded) => Err(NotLoaded),
        Err(ReportError::Changed) => Ok(None),
        Err(error) => panic!("{error:?}"),
    });
    changed.await.unwrap()
}

pub(crate) async fn of_two_people_at_once_one_wins(ground: &dyn Ground) {
    let one = ground.open().await;
    let two = if ground.is_shared() { ground.open().await } else { one.clone() };
    for round in 0..10 {
        let mut new = NewDeployment {
            artifacts: Vec::new(),

            name: format!("round {round}"),
            artifact_name: "release-2".to_owned(),
            members: (1..4).collect(),
            ..NewDeployment::default()
        };
        new.key = Some(rollout::order_key(&new));
        let made = tokio::join!(order(&*one, new.clone()), order(&*two, new.clone()));
        let ((Some(id), None) | (None, Some(id))) = made else { panic!("{made:?}") };
        let seen = rollout::mark(&one.deployment(&id).await.unwrap().unwrap());
        let (a, b) = ((id.clone(), seen.clone()), (id.clone(), seen));
        let held = changed(&*one, move |work| rollout::hold(work, &a.0, Some(&a.1), Some("a person")));
        let told =
            changed(&*two, move |work| rollout::set_control_map(work, &b.0, Some(&b.1), Some(json!({}))));
        let both = tokio::join!(held, told);
        assert!(matches!(both, (Some(()), None) | (None, Some(()))), "{both:?}");
        // When it is over, the same can be ordered again.
        changed(&*one, move |work| rollout::abort(work, &id, None)).await.unwrap();
        assert!(order(&*two, new).await.is_some());
    }
    // One for each of the ten, and what was made lately.
    assert_eq!(one.documents(Kind::Order).await.unwrap().len(), 11);
    one.stop().await;
    two.stop().await;
}

/// Devices raise alerts at once, each of them at several processes: each is counted, and none twice.
pub(crate) async fn alerts_that_come_at_once_are_all_counted(ground: &dyn Ground) {
    let one = ground.open().await;
    let two = if ground.is_shared() { ground.open().await } else { one.clone() };
    let names = ["a", "b", "c"];
    for name in names {
        let set = AuthSet {
            id: format!("set-{name}"),
            pubkey: String::new(),
            status: AuthStatus::Accepted,
            ts: Timestamp(1),
            serial: 0,
        };
        put(&*one, Device { auth_sets: vec![set], ..device(name) }, None).await;
    }
    let claims = |name: &str| Claims {
        sub: name.to_owned(),
        jti: format!("set-{name}"),
        iss: String::new(),
        iat: 0,
        exp: u64::MAX,
        device: true,
        user: false,
        serial: 0,
        login: String::new(),
    };
    let rule = StopRule {
        failed_devices: None,
        failed_percent: None,
        alerted_devices: Some(2),
        alerted_percent: None,
        within_seconds: Some(3600),
        after_devices: None,
        action: StopAction::Abort,
    };
    let new = NewDeployment {
        name: "n".to_owned(),
        artifact_name: "release-2".to_owned(),
        members: (1..10).collect(),
        stop: vec![rule],
        ..NewDeployment::default()
    };
    let id = order(&*one, new).await.unwrap();
    for name in names {
        put_record(&*one, record(&format!("r-{name}"), &id, name, Status::Installing)).await;
        let (got, claims) = (id.clone(), claims(name));
        let reported = change(&*one, vec![], move |work| {
            match rollout::report_status(work, &claims, &got, Status::Success, None) {
                Ok(()) => Ok(Some(())),
                Err(ReportError::NotLoaded) => Err(NotLoaded),
                Err(error) => panic!("{error:?}"),
            }
        });
        reported.await.unwrap().unwrap();
    }
    let alert = |store: Arc<dyn Store>, name: &'static str| async move {
        let raised = change(&*store, vec![], move |work| rollout::alerted(work, name).map(Some));
        raised.await.unwrap().unwrap();
    };
    let all = names.into_iter().flat_map(|name| [alert(one.clone(), name), alert(two.clone(), name)]);
    futures_util::future::join_all(all).await;
    let stopped = two.deployment(&id).await.unwrap().unwrap();
    assert_eq!((stopped.alerted, stopped.ended), (vec![3], Some(Status::Aborted)));
    let known = json!([{ "deployment": id, "alerted": true }]);
    assert_eq!(one.document(Kind::Watched, "a").await.unwrap(), Some(known));
    one.stop().await;
    two.stop().await;
}

/// What was told, for a test to wait for.
#[derive(Default)]
struct Told {
    documents: Mutex<BTreeMap<(Kind, String), Option<Value>>>,
    deployments: Mutex<BTreeMap<String, (Deployment, bool)>>,
    devices: Mutex<BTreeMap<String, Option<Device>>>,
}

impl Watch for Told {
    fn committed(&self, committed: &Committed) {
        for (kind, id, value) in &committed.documents {
            self.documents.lock().unwrap().insert((*kind, id.clone()), value.clone());
        }
        for one in &committed.deployments {
            let has_members = committed.members.iter().any(|(id, _)| *id == one.id);
            self.deployments.lock().unwrap().insert(one.id.clone(), (one.clone(), has_members));
        }
        for (id, device) in &committed.devices {
            self.devices.lock().unwrap().insert(id.clone(), device.clone());
        }
    }
}

pub(crate) async fn soon(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not told: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) async fn another_process_is_told_and_both_count_right(ground: &dyn Ground) {
    if !ground.is_shared() {
        return;
    }
    let (one, two) = (ground.open().await, ground.open().await);
    let told = Arc::new(Told::default());
    two.watch(told.clone());
    start(&*one, deployment("d"), RoaringBitmap::from_iter([4])).await;
    soon("a deployment with its devices", || {
        told.deployments
            .lock()
            .unwrap()
            .get("d")
            .is_some_and(|(one, has_members)| one.sequence == 1 && *has_members)
    })
    .await;
    put_document(&*one, Kind::Role, "r", Some(json!(1))).await;
    put_document(&*one, Kind::Role, "r", Some(json!(2))).await;
    let document = |value: Option<Value>| {
        told.documents.lock().unwrap().get(&(Kind::Role, "r".to_owned())) == Some(&value)
    };
    soon("a document", || document(Some(json!(2)))).await;
    put_document(&*one, Kind::Role, "r", None).await;
    soon("a document that is gone", || document(None)).await;
    put(&*one, device("a"), None).await;
    soon("a device", || told.devices.lock().unwrap().get("a").is_some_and(Option::is_some)).await;
    let ended = change(&*one, vec![], |work| {
        let mut one = work.deployment("d")?.unwrap();
        one.finished = Some(Timestamp(3));
        work.put_deployment(one)?;
        work.remove_device("a")?;
        Ok(Some(()))
    });
    ended.await.unwrap().unwrap();
    soon("a deployment that has ended", || {
        told.deployments.lock().unwrap().get("d").is_some_and(|(one, _)| one.finished.is_some())
    })
    .await;
    soon("a device that is gone", || told.devices.lock().unwrap().get("a").is_some_and(Option::is_none))
        .await;

    let tasks: Vec<_> = (0..16)
        .map(|at| {
            let store = if at % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(writer(store, format!("w{at}"), 10))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    check_writers(&*one, 160).await;
    check_writers(&*two, 160).await;
    let document =
        |value| told.documents.lock().unwrap().get(&(Kind::Settings, "count".to_owned())) == Some(&value);
    soon("the last of many changes", || document(Some(json!(160)))).await;

    // One identity, one device, whoever is asked.
    let tasks: Vec<_> = (0..12)
        .map(|at| {
            let store = if at % 2 == 0 { one.clone() } else { two.clone() };
            tokio::spawn(async move {
                change(&*store, vec![], move |work| {
                    if let Some(id) = work.device_of_identity("the one")? {
                        return Ok(Some(id));
                    }
                    let mut new = device(&format!("same-{at}"));
                    new.identity_sha256 = "the one".to_owned();
                    work.put_device(new.clone())?;
                    Ok(Some(new.id))
                })
                .await
                .unwrap()
                .unwrap()
            })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap());
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    one.stop().await;
    put(&*two, device("after the other has ended"), None).await;
    two.stop().await;
}

pub(crate) async fn watchers_are_told_before_the_answer(ground: &dyn Ground) {
    struct Order(AtomicBool, Told);
    impl Watch for Order {
        fn committed(&self, committed: &Committed) {
            self.1.committed(committed);
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let store = ground.open().await;
    let order = Arc::new(Order(AtomicBool::new(false), Told::default()));
    store.watch(order.clone());
    for at in 0..20 {
        order.0.store(false, Ordering::SeqCst);
        put_document(&*store, Kind::Filter, "f", Some(json!(at))).await;
        assert!(order.0.load(Ordering::SeqCst));
        let told = order.1.documents.lock().unwrap().get(&(Kind::Filter, "f".to_owned())).cloned();
        assert_eq!(told, Some(Some(json!(at))));
    }
    start(&*store, deployment("d"), RoaringBitmap::from_iter([9])).await;
    let told = order.1.deployments.lock().unwrap().get("d").cloned();
    assert!(told.is_some_and(|(one, has_members)| one.sequence == 1 && has_members), "with its number");
    put(&*store, device("one"), None).await;
    let told = order.1.devices.lock().unwrap().get("one").cloned().flatten();
    let number = store.device("one").await.unwrap().unwrap().number;
    assert_eq!(told.map(|one| one.number), Some(number));
    // What is about one device is not kept in memory, so nobody is told.
    put_document(&*store, Kind::Configuration, "one", Some(json!(1))).await;
    assert!(!order.1.documents.lock().unwrap().contains_key(&(Kind::Configuration, "one".to_owned())));
    store.stop().await;
}

/// Everything, as lines that can be compared.
pub(crate) async fn dump(store: &dyn Store) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows(store).await {
        lines.push(match row {
            DumpRow::Device(view) => format!("0 {view:?}"),
            DumpRow::Gone { number, id } => format!("1 {number} {id:?}"),
            DumpRow::Deployment(one, members) => {
                format!("2 {one:?} {:?}", members.iter().collect::<Vec<_>>())
            }
            DumpRow::Record(one) => format!("3 {one:?}"),
            DumpRow::Log { deployment, device, text } => format!("4 {deployment:?} {device:?} {text:?}"),
            DumpRow::Document(kind, id, value) => format!("5 {kind:?} {id:?} {value:?}"),
            DumpRow::Damaged(what) => format!("5 damaged: {what}"),
            // Their order is what they mean.
            DumpRow::Event(event) => format!("6 {:06} {event:?}", lines.len()),
        });
    }
    let is_in_order = lines.windows(2).all(|two| two[0].as_bytes()[0] <= two[1].as_bytes()[0]);
    assert!(is_in_order, "rows come in the order of what they are");
    lines.sort();
    lines
}

async fn rows(store: &dyn Store) -> Vec<DumpRow> {
    let mut all = Vec::new();
    let mut take = |row| {
        all.push(row);
        Ok(())
    };
    store.dump(&mut take).await.unwrap();
    all
}

/// A store with something of everything.
async fn furnish(random: &mut Random, store: &dyn Store) -> Fleet {
    let mut fleet = Fleet::random(random, store, 25).await;
    for _ in 0..30 {
        fleet.change(random, store).await;
    }
    let numbers: Vec<(u32, String)> =
        fleet.views.values().map(|view| (view.device.number, view.device.id.clone())).collect();
    for at in 0..5 {
        let id = format!("d{at}");
        let members = numbers.iter().filter(|_| random.one_in(2)).map(|(number, _)| *number);
        let members: RoaringBitmap = members.chain([65_535, 65_536, 300_000]).collect();
        start(store, deployment(&id), members).await;
        let (_, of) = random.of(&numbers);
        put_record(store, record(&random.id(), &id, &of, random.of(&STATUSES))).await;
        let written = change(store, vec![], move |work| {
            work.write(Write::Log {
                deployment: id.clone(),
                device: of.clone(),
                text: Some("nul \u{0}".to_owned()),
            });
            let event =
                Event { stream: Stream::Webhook, key: of.clone(), time: Timestamp(at), data: json!([at]) };
            work.write(Write::Event(event));
            Ok(Some(()))
        });
        written.await.unwrap().unwrap();
    }
    put_document(store, Kind::User, "u", Some(json!({"email": "ada@example.com"}))).await;
    put_document(store, Kind::Configuration, &numbers[0].1, Some(json!({}))).await;
    fleet
}

pub(crate) async fn a_dump_fills_another_store_with_the_same(ground: &dyn Ground) {
    let mut random = Random::seeded();
    let store = ground.open().await;
    let fleet = furnish(&mut random, &*store).await;
    let before = dump(&*store).await;
    let given = rows(&*store).await;
    let folder = tempfile::tempdir().unwrap();
    for (name, other) in elsewhere(folder.path()).await {
        println!("into {name}");
        if name == "PostgreSQL" {
            // What cannot be read to its end leaves nothing behind. (A file of SQLite says that it is not full, and is
            // removed.)
            let broken = given.iter().take(20).cloned().map(Ok).chain([Err(super::StoreError::NoRandomness)]);
            assert!(other.fill(&mut broken.collect::<Vec<_>>().into_iter()).await.is_err());
            assert_eq!(dump(&*other).await, Vec::<String>::new());
        }
        other.fill(&mut given.iter().cloned().map(Ok)).await.unwrap();
        assert_eq!(dump(&*other).await, before);
        fleet.check_counters(&*other).await;
        let again = other.fill(&mut given.iter().cloned().map(Ok)).await;
        assert!(matches!(again, Err(super::StoreError::NotEmpty { .. })), "{again:?}");
        assert_eq!(dump(&*other).await, before);
        // It goes on where the other one was.
        put(&*other, device("new"), None).await;
        start(&*other, deployment("new"), RoaringBitmap::new()).await;
        let number = other.device("new").await.unwrap().unwrap().number;
        let highest = given.iter().filter_map(|row| match row {
            DumpRow::Device(view) => Some(view.device.number),
            DumpRow::Gone { number, .. } => Some(*number),
            DumpRow::Deployment(..)
            | DumpRow::Record(_)
            | DumpRow::Log { .. }
            | DumpRow::Document(..)
            | DumpRow::Damaged(_)
            | DumpRow::Event(_) => None,
        });
        assert!(number > highest.max().unwrap());
        assert_eq!(other.deployment("new").await.unwrap().unwrap().sequence, 6);
        other.stop().await;
    }
    store.stop().await;
}

/// An empty store of each implementation that can be had here.
async fn elsewhere(folder: &std::path::Path) -> Vec<(&'static str, Arc<dyn Store>)> {
    let mut all: Vec<(&'static str, Arc<dyn Store>)> = Vec::new();
    if let Some(ground) = super::postgres::ground() {
        all.push(("PostgreSQL", ground.open().await));
    }
    all.push(("SQLite", super::sqlite::open(folder).unwrap()));
    all
}

mod sqlite {
    use super::*;

    struct InFolder {
        path: std::path::PathBuf,
        _folder: Option<tempfile::TempDir>,
    }

    #[async_trait]
    impl Ground for InFolder {
        async fn open(&self) -> Arc<dyn Store> {
            // The handle before this one lets go of the folder a moment after its last user has.
            let begun = Instant::now();
            loop {
                match crate::store::sqlite::open(&self.path) {
                    Err(crate::store::StoreError::InUse(_)) if begun.elapsed() < Duration::from_secs(10) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    opened => return opened.unwrap(),
                }
            }
        }

        fn is_shared(&self) -> bool {
            false
        }

        fn name(&self) -> String {
            self.path.display().to_string()
        }
    }

    fn ground() -> Option<InFolder> {
        let folder = tempfile::tempdir().unwrap();
        Some(InFolder { path: folder.path().to_owned(), _folder: Some(folder) })
    }

    conformance!(ground(), |name: String| InFolder { path: name.into(), _folder: None });
}

const CHILD: &str = "RUST_OTA_CONFORMANCE_CHILD";

/// Where a child process of [`what_was_acknowledged_survives_kill_9`] is to write.
pub(crate) fn name_for_child() -> Option<String> {
    std::env::var(CHILD).ok()
}

/// Writes from several tasks, and says on its output what was acknowledged.
pub(crate) async fn write_until_killed(ground: &dyn Ground) {
    let store = ground.open().await;
    let round = all(&*store).await.len();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0.. {
                    let id = format!("{round}-{task}-{at}");
                    put(&*store, device(&id), None).await;
                    put_document(&*store, Kind::Token, &id, Some(json!(at))).await;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {id}").unwrap();
                    out.flush().unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub(crate) async fn what_was_acknowledged_survives_kill_9(ground: &dyn Ground, test: &str) {
    // The harness names tests without the crate.
    let test = test.split_once("::").unwrap().1;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env(CHILD, ground.name())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            // The harness writes what it likes, perhaps into the same line.
            if let Some((_, id)) = line.unwrap().split_once("acknowledged ") {
                acknowledged.insert(id.to_owned());
                seen += 1;
            }
            if seen == 60 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= 60, "the child has ended by itself");
    }
    let store = ground.open().await;
    let found: BTreeSet<String> = all(&*store).await.into_iter().map(|view| view.device.id).collect();
    let lost: Vec<&String> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let documents = store.documents(Kind::Token).await.unwrap();
    let documents: BTreeSet<String> = documents.into_iter().map(|(id, _)| id).collect();
    assert!(acknowledged.is_subset(&documents));
    assert_eq!(counted(&*store).await, [(AuthStatus::Noauth, found.len() as u64)]);
    store.stop().await;
}
