//! What only this store has: its folder, its file, and what happens to them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use regex::Regex;
use serde_json::json;
use tokio::sync::oneshot;

use super::schema::{self, Use};
use super::{Sqlite, hold, open};
use crate::model::time::Timestamp;
use crate::model::{Attribute, AuthSet, AuthStatus, Deployment, Device, DeviceDeployment, Inventory, Status};
use crate::store::conformance::{Ground, conformance, soon};
use crate::store::{Committed, Job, Store, Watch, WriterFailed};
use crate::work::query::{Attr, DeviceQuery, DeviceView, Direction, RecordQuery, Scope, Test};
use crate::work::{Key, Kind, NotLoaded, Work, Write};

pub(super) fn device(id: &str, status: AuthStatus) -> Device {
    let set =
        AuthSet { id: format!("set-{id}"), pubkey: "key".to_owned(), status, ts: Timestamp(1), serial: 0 };
    Device {
        id: id.to_owned(),
        identity: BTreeMap::from([("mac".to_owned(), json!(id))]),
        identity_sha256: format!("sha-{id}"),
        created: Timestamp(1000),
        updated: Timestamp(1000),
        auth_sets: vec![set],
        group: None,
        number: 0,
        active: None,
        last_finished: 0,
        tags: BTreeMap::new(),
        monitor: BTreeMap::new(),
    }
}

pub(super) fn inventory(values: &[(&str, serde_json::Value)], time: u64) -> Inventory {
    let attribute = |(name, value): &(&str, serde_json::Value)| Attribute {
        name: (*name).to_owned(),
        value: value.clone(),
        description: None,
        timestamp: Timestamp(time),
    };
    let attributes = values.iter().map(|value| (value.0.to_owned(), attribute(value))).collect();
    Inventory { attributes, updated: Some(Timestamp(time)) }
}

/// Runs a rule, and says how its transaction ended.
pub(super) async fn change(
    store: &dyn Store,
    mut rule: impl FnMut(&mut Work) -> Result<(), NotLoaded> + Send + 'static,
) -> Result<(), WriterFailed> {
    let (done, told) = oneshot::channel();
    store.submit(Job { keys: Vec::new(), run: Box::new(move |work| rule(work).is_ok()), done });
    told.await.unwrap()
}

fn deployment(id: &str) -> Deployment {
    serde_json::from_value(json!({
        "id": id, "name": id, "artifact_name": "a", "created": "2026-01-01T00:00:00Z", "device_count": 2,
    }))
    .unwrap()
}

fn record(deployment: &str, device: &str, status: Status) -> DeviceDeployment {
    serde_json::from_value(json!({
        "id": format!("{deployment}-{device}"), "deployment": deployment, "device": device, "status": status,
        "created": "2026-01-01T00:00:00Z", "asked": {"artifact_name": "x", "device_type": "y"},
    }))
    .unwrap()
}

/// A folder.
struct Place(std::path::PathBuf, #[expect(dead_code, reason = "lives as long")] Option<tempfile::TempDir>);

#[async_trait::async_trait]
impl Ground for Place {
    async fn open(&self) -> Arc<dyn Store> {
        open(&self.0).unwrap()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

conformance!(
    {
        let folder = tempfile::tempdir().unwrap();
        Some(Place(folder.path().to_owned(), Some(folder)))
    },
    |name: String| Place(name.into(), None)
);

#[derive(Default)]
struct Told(Mutex<Vec<Committed>>);

impl Watch for Told {
    fn committed(&self, committed: &Committed) {
        self.0.lock().unwrap().push(committed.clone());
    }
}

fn ids(found: &[crate::work::query::DeviceView]) -> Vec<&str> {
    found.iter().map(|view| view.device.id.as_str()).collect()
}

#[tokio::test]
async fn what_is_written_is_there_again_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path()).unwrap();
        let told = Arc::new(Told::default());
        store.watch(told.clone());
        change(&*store, |work| {
            work.put_device(device("a", AuthStatus::Accepted))?;
            work.put_device(Device { group: Some("g".to_owned()), ..device("b", AuthStatus::Pending) })?;
            work.inventory("a")?;
            work.put_inventory("a", inventory(&[("os", json!("linux")), ("cpus", json!(4))], 7))
        })
        .await
        .unwrap();
        change(&*store, |work| {
            let numbers =
                [work.device("a")?, work.device("b")?].into_iter().flatten().map(|device| device.number);
            let numbers: roaring::RoaringBitmap = numbers.collect();
            work.new_deployment(deployment("d"), Arc::new(numbers));
            work.record("d", "a")?;
            work.put_record(record("d", "a", Status::Installing))?;
            let mut one = work.device("a")?.unwrap();
            one.active = Some("d".to_owned());
            work.put_device(one)?;
            work.write(Write::Log {
                deployment: "d".to_owned(),
                device: "a".to_owned(),
                text: Some("line".to_owned()),
            });
            work.document::<String>(Kind::Role, "r")?;
            work.put_document(Kind::Role, "r", Some(&"text"))
        })
        .await
        .unwrap();
        store.check_ins(vec![(1, Timestamp(9)), (2, Timestamp(3))]).await.unwrap();
        store.check_ins(vec![(1, Timestamp(8))]).await.unwrap();
        let told = std::mem::take(&mut *told.0.lock().unwrap());
        assert_eq!(told[0].devices.len(), 2);
        assert_eq!(told[1].deployments[0].sequence, 1);
        assert_eq!(told[1].members[0].1.iter().collect::<Vec<_>>(), [1, 2]);
        store.stop().await;
    }
    let store = open(folder.path()).unwrap();
    let view = store.view("a").await.unwrap().unwrap();
    assert_eq!((view.device.number, view.check_in), (1, Some(Timestamp(9))));
    assert_eq!(view.inventory, inventory(&[("os", json!("linux")), ("cpus", json!(4))], 7));
    assert_eq!(store.groups().await.unwrap(), [("g".to_owned(), 1)]);
    let counts = store.device_counts().await.unwrap();
    assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [1, 1]);
    let all = store.devices(&DeviceQuery { take: 10, ..DeviceQuery::default() }).await.unwrap();
    assert_eq!((ids(&all.items), all.total), (vec!["a", "b"], 2));
    assert_eq!(store.active().await.unwrap()[0].members.len(), 2);
    assert_eq!(store.log("d", "a").await.unwrap().as_deref(), Some("line"));
    assert_eq!(store.documents(Kind::Role).await.unwrap(), [("r".to_owned(), json!("text"))]);
    let pending = RecordQuery {
        deployment: "d".to_owned(),
        statuses: vec![Status::Pending],
        take: 9,
        ..RecordQuery::default()
    };
    let found = store.records(&pending).await.unwrap();
    assert_eq!((found.items, found.total), (vec![("b".to_owned(), None)], 1));
    assert_eq!(store.history("b", 0, 9).await.unwrap().total, 1);

    change(&*store, |work| {
        work.write(Write::EndRecords {
            deployment: "d".to_owned(),
            status: Status::Aborted,
            now: Timestamp(5),
        });
        Ok(())
    })
    .await
    .unwrap();
    let ended = store.record("d", "a").await.unwrap().unwrap();
    assert_eq!((ended.status, ended.finished), (Status::Aborted, Some(Timestamp(5))));
    assert_eq!(ended.asked.unwrap().device_type, "y");
    assert_eq!(store.device("a").await.unwrap().unwrap().active, None);

    change(&*store, |work| work.remove_device("a")).await.unwrap();
    assert!(store.device("a").await.unwrap().is_none());
    assert!(store.log("d", "a").await.unwrap().is_none());
    assert_eq!(store.device_ids(&[2, 1, 3]).await.unwrap(), [(2, "b".to_owned()), (1, "a".to_owned())]);
    assert_eq!(store.history("a", 0, 9).await.unwrap().total, 1, "what it had is still told");
    change(&*store, |work| work.put_device(device("c", AuthStatus::Accepted))).await.unwrap();
    assert_eq!(store.device("c").await.unwrap().unwrap().number, 3);
    let names: Vec<_> =
        store.attributes().await.unwrap().into_iter().map(|(_, name, count)| (name, count)).collect();
    let expected =
        [("mac", 2), ("status", 2), ("check_in_time", 1), ("created_ts", 2), ("group", 1), ("updated_ts", 2)];
    assert_eq!(names, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[tokio::test]
async fn a_store_is_copied_row_by_row() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(from.path()).unwrap();
    change(&*store, |work| {
        for id in ["a", "b", "c"] {
            work.put_device(device(id, AuthStatus::Accepted))?;
            work.inventory(id)?;
            work.put_inventory(id, inventory(&[("os", json!(["x", "y"]))], 7))?;
        }
        work.new_deployment(deployment("d"), Arc::new([2, 3].into_iter().collect()));
        work.record("d", "b")?;
        work.put_record(record("d", "b", Status::Success))?;
        work.write(Write::Event(crate::work::Event {
            stream: crate::work::Stream::Audit,
            key: "k".to_owned(),
            time: Timestamp(4),
            data: json!({"a": 1}),
        }));
        Ok(())
    })
    .await
    .unwrap();
    change(&*store, |work| work.remove_device("a")).await.unwrap();
    let dump = |rows: &mut Vec<String>, all: &mut Vec<crate::store::DumpRow>, row: crate::store::DumpRow| {
        rows.push(format!("{row:?}"));
        all.push(row);
        Ok(())
    };
    let (mut before, mut all) = (Vec::new(), Vec::new());
    store.dump(&mut |row| dump(&mut before, &mut all, row)).await.unwrap();
    let copy = open(to.path()).unwrap();
    copy.fill(&mut all.clone().into_iter().map(Ok)).await.unwrap();
    let (mut after, mut again) = (Vec::new(), Vec::new());
    copy.dump(&mut |row| dump(&mut after, &mut again, row)).await.unwrap();
    assert_eq!(before, after);
    assert_eq!(before.len(), 6);
    let refused = copy.fill(&mut all.into_iter().map(Ok)).await.unwrap_err();
    assert!(refused.to_string().ends_with("has something in it"), "{refused}");
    change(&*copy, |work| work.put_device(device("e", AuthStatus::Accepted))).await.unwrap();
    assert_eq!(copy.device("e").await.unwrap().unwrap().number, 4);
}

#[tokio::test]
async fn a_folder_is_one_servers() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let second = |path: &Path| open(path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        second(folder.path()).ends_with("is used by another server: stop it first"),
        "{}",
        second(folder.path())
    );
    first.stop().await;
    drop(first);
    assert_eq!(second(folder.path()), "");
}

/// A store of devices with serial numbers, whose order is not that of the ids.
async fn numbered(folder: &Path, count: usize) {
    let store = open(folder).unwrap();
    for at in 0..count {
        let id = format!("00000000-0000-4000-8000-{at:012x}");
        change(&*store, move |work| {
            let serial = json!(format!("S{:03}", at * 7 % 100));
            work.put_device(device(&id, AuthStatus::Accepted))?;
            work.inventory(&id)?;
            work.put_inventory(&id, inventory(&[("serial", serial)], 1))
        })
        .await
        .unwrap();
    }
    store.stop().await;
}

fn by_serial() -> DeviceQuery {
    let serial = Attr { scope: Some(Scope::Inventory), name: "serial".to_owned() };
    DeviceQuery { sort: vec![(serial, Direction::Ascending)], skip: 4, take: 3, ..DeviceQuery::default() }
}

async fn serials(store: &Sqlite, query: &DeviceQuery) -> Vec<String> {
    let found = store.devices(query).await.unwrap();
    let serial =
        |view: &DeviceView| Some(view.inventory.attributes.get("serial")?.value.as_str()?.to_owned());
    found.items.iter().map(|view| serial(view).unwrap_or_default()).collect()
}

#[tokio::test]
async fn what_is_asked_for_again_comes_from_memory_until_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    numbered(folder.path(), 12).await;
    let path = folder.path().join("fleet.sqlite");
    let connect = || schema::connect(&path, Use::Write).unwrap();
    let lock = hold(folder.path()).unwrap();
    let store = Sqlite::start(&path, connect(), Some(lock)).unwrap();
    let expected = ["S028", "S035", "S042"];
    assert_eq!(serials(&store, &by_serial()).await, expected);
    assert_eq!(store.readers.columns.kept(), 0);
    assert_eq!(serials(&store, &by_serial()).await, expected);
    soon("an attribute is kept", || store.readers.columns.kept() == 1).await;
    // What has not gone through the writer shows where answers come from.
    connect().execute("DELETE FROM post WHERE key >= x'02' AND key < x'03' AND length(key) = 6", []).unwrap();
    assert_eq!(serials(&store, &by_serial()).await, expected);
    let serial = by_serial().sort.remove(0).0;
    let ends = (serial, Test::Matches(Regex::new("5$").unwrap()));
    let ending = DeviceQuery { tests: vec![ends], skip: 0, take: 9, ..by_serial() };
    assert_eq!(serials(&store, &ending).await, ["S035"]);
    change(&store, |work| {
        let id = format!("00000000-0000-4000-8000-{:012x}", 3);
        work.device(&id)?;
        work.inventory(&id)?;
        work.put_inventory(&id, inventory(&[("serial", json!("S995"))], 2))
    })
    .await
    .unwrap();
    assert_eq!(store.readers.columns.kept(), 0);
    assert_eq!(serials(&store, &ending).await, ["S995"]);
    store.stop().await;
}

#[tokio::test]
async fn beside_a_server_nothing_is_kept_that_it_may_change() {
    let folder = tempfile::tempdir().unwrap();
    numbered(folder.path(), 12).await;
    let path = folder.path().join("fleet.sqlite");
    let connection = schema::connect(&path, Use::Write).unwrap();
    let store = Sqlite::start(&path, connection, None).unwrap();
    for _ in 0..3 {
        assert_eq!(serials(&store, &by_serial()).await, ["S028", "S035", "S042"]);
    }
    assert!(!store.readers.columns.is_wanted() && store.readers.columns.kept() == 0);
}

#[tokio::test]
async fn pages_near_an_end_are_right_before_the_order_of_ids_is_known() {
    let folder = tempfile::tempdir().unwrap();
    numbered(folder.path(), 20).await;
    let path = folder.path().join("fleet.sqlite");
    for (skip, take) in [(0, 3), (5, 4), (17, 3), (18, 9), (11, 4), (30, 2)] {
        let lock = hold(folder.path()).unwrap();
        let connection = schema::connect(&path, Use::Write).unwrap();
        let store = Sqlite::start(&path, connection, Some(lock)).unwrap();
        let query = DeviceQuery { skip, take, ..DeviceQuery::default() };
        let first = store.devices(&query).await.unwrap();
        let wanted = (skip..(skip + take).min(20)).map(|at| format!("00000000-0000-4000-8000-{at:012x}"));
        assert_eq!(ids(&first.items), wanted.collect::<Vec<_>>());
        soon("the order is known", || skip >= 20 || store.readers.index.is_known()).await;
        assert_eq!(ids(&store.devices(&query).await.unwrap().items), ids(&first.items));
        store.stop().await;
    }
    // One that is no UUID is where its text is.
    let store = open(folder.path()).unwrap();
    change(&*store, |work| work.put_device(device("00000000-z", AuthStatus::Accepted))).await.unwrap();
    store.stop().await;
    drop(store);
    let store = open(folder.path()).unwrap();
    let last = DeviceQuery { skip: 20, take: 1, ..DeviceQuery::default() };
    assert_eq!(ids(&store.devices(&last).await.unwrap().items), ["00000000-z"]);
}

#[tokio::test]
async fn a_key_that_is_known_before_is_loaded_with_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    change(&*store, |work| work.put_device(device("a", AuthStatus::Accepted))).await.unwrap();
    let (done, told) = oneshot::channel();
    let runs = Arc::new(Mutex::new(0));
    let count = runs.clone();
    let run = move |work: &mut Work| {
        *count.lock().unwrap() += 1;
        work.device("a").is_ok()
    };
    store.submit(Job { keys: vec![Key::Device("a".to_owned())], run: Box::new(run), done });
    told.await.unwrap().unwrap();
    assert_eq!(*runs.lock().unwrap(), 1);
}

fn old_rows() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let json = |value: serde_json::Value| value.to_string().into_bytes();
    let device = |id: &str, created: &str| {
        json(json!({
            "id": id, "identity": {"mac": id}, "identity_sha256": format!("sha-{id}"), "created": created,
            "updated": created, "auth_sets": [{"id": format!("set-{id}"), "pubkey": "key", "status": "accepted", "ts": created}],
            "group": "g",
        }))
    };
    let record = |device: &str, status: &str| {
        json(json!({
            "id": "r", "deployment": "d", "device": device, "status": status, "created": "2026-01-01T00:00:00Z",
            "offered_bytes": 5, "log": true,
        }))
    };
    vec![
        ("meta", "format", b"1".to_vec()),
        ("devices", "a", device("a", "2026-01-02T00:00:00Z")),
        ("devices", "b", device("b", "2026-01-01T00:00:00Z")),
        (
            "inventory",
            "a",
            json(json!({
                "attributes": {"os": {"name": "os", "value": ["x"], "timestamp": "2026-01-01T00:00:00Z"}},
                "updated": "2026-01-01T00:00:01Z",
            })),
        ),
        ("check_ins", "a", b"77".to_vec()),
        (
            "deployments",
            "d",
            json(json!({
                "id": "d", "sequence": 7, "name": "n", "artifact_name": "x", "created": "2026-01-01T00:00:00Z",
                "devices": ["a", "b", "gone"],
            })),
        ),
        ("device_deployments", "d/a", record("a", "downloading")),
        ("device_deployments", "d/gone", record("gone", "decommissioned")),
        ("logs", "d/a", b"line".to_vec()),
        ("artifacts", "x", json(json!({"id": "x"}))),
        ("artifacts", "y", json(json!({"id": "y", "configuration_of": "a"}))),
        ("configurations", "a", json(json!({"configured": {"k": "v"}}))),
        ("logouts", "l", b"99".to_vec()),
    ]
}

#[tokio::test]
async fn a_folder_of_an_older_server_is_imported_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    crate::store::redb::testing::write(&path("fleet.redb"), &old_rows());
    std::fs::write(path("management-token"), "a secret beside it").unwrap();
    // What a power cut has left of an attempt.
    std::fs::write(path("fleet.sqlite.new"), "half").unwrap();
    for _ in 0..2 {
        let store = open(folder.path()).unwrap();
        let a = store.view("a").await.unwrap().unwrap();
        assert_eq!(
            (a.device.number, a.device.active.as_deref(), a.check_in),
            (2, Some("d"), Some(Timestamp(77)))
        );
        assert_eq!(a.inventory.attributes["os"].value, json!(["x"]));
        assert_eq!(store.device("b").await.unwrap().unwrap().number, 1);
        let deployment = store.deployment("d").await.unwrap().unwrap();
        assert_eq!((deployment.sequence, deployment.device_count, deployment.total_size), (7, 3, 10));
        let counts = BTreeMap::from([(Status::Downloading, 1), (Status::Decommissioned, 1)]);
        assert_eq!(deployment.counts, counts);
        let all = RecordQuery { deployment: "d".to_owned(), take: 9, ..RecordQuery::default() };
        let listed: Vec<_> = store
            .records(&all)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|(id, record)| (id, record.map(|record| record.status)))
            .collect();
        let expected =
            [("b", None), ("a", Some(Status::Downloading)), ("gone", Some(Status::Decommissioned))];
        assert_eq!(listed, expected.map(|(id, status)| (id.to_owned(), status)));
        assert_eq!(store.log("d", "a").await.unwrap().as_deref(), Some("line"));
        for (kind, id) in [(Kind::Artifact, "x"), (Kind::MadeArtifact, "y"), (Kind::Configuration, "a")] {
            assert!(store.document(kind, id).await.unwrap().is_some(), "{id}");
        }
        assert_eq!(store.document(Kind::Logout, "l").await.unwrap(), Some(json!(99)));
        assert!(!path("fleet.redb").exists() && path("fleet.redb.imported").exists());
        store.stop().await;
        // The power went when the new file had its name and the old one still its own.
        std::fs::rename(path("fleet.redb.imported"), path("fleet.redb")).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_folder_of_an_older_server_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.redb");
    let mut rows = old_rows();
    rows.push(("devices", "c", b"{".to_vec()));
    crate::store::redb::testing::write(&path, &rows);
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("the record c of devices") && error.contains("fleet.redb is damaged"), "{error}");
    assert!(path.exists() && !folder.path().join("fleet.sqlite").exists());
    std::fs::write(&path, vec![7; 5000]).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("fleet.redb"), "{error}");
    let mut rows = old_rows();
    rows[0].2 = b"2".to_vec();
    std::fs::remove_file(&path).unwrap();
    crate::store::redb::testing::write(&path, &rows);
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("unknown format \"2\""), "{error}");
}

#[tokio::test]
async fn a_database_that_is_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.sqlite");
    for damage in [&b"this is no database, but it is long enough for one, more than a hundred bytes in all, which is what the head of one has."[..], &[0; 9000]] {
        std::fs::write(&path, damage).unwrap();
        let error = open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("fleet.sqlite") && error.contains("damaged"), "{error}");
    }
    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE t(x)").unwrap();
    drop(other);
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("unknown format"), "{error}");
}
