//! Writes what a batch has changed: a statement a table, whatever the batch is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use artifact::text::printable;
use serde::{Deserialize, Serialize};

use super::attr::{self, Rows};
use super::connect::{Conn, Fault};
use super::load::status_number;
use super::number::{Signed as _, Unsigned as _};
use super::read::{big, count, json, parse, pieces, record_status};
use crate::domain::id::sha256;
use crate::model::{Deployment, Device, DeviceDeployment, Inventory};
use crate::store::{Committed, committed};
use crate::work::query::{Attr, DeviceView, Scope};
use crate::work::{Row, Work, Write};

/// What other processes have to read again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct News {
    /// Ids of devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) devices: Vec<String>,
    /// Ids of deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deployments: Vec<String>,
    /// Ids of deployments that list others now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<String>,
    /// Kinds and ids of documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) documents: Vec<(String, String)>,
}

impl News {
    pub(super) fn add(&mut self, more: News) {
        self.devices.extend(more.devices);
        self.deployments.extend(more.deployments);
        self.members.extend(more.members);
        self.documents.extend(more.documents);
    }

    /// Each thing alone.
    pub(super) fn each(self) -> impl Iterator<Item = News> {
        let News { devices, deployments, members, documents } = self;
        let devices = devices.into_iter().map(|id| News { devices: vec![id], ..News::default() });
        let deployments = deployments.into_iter().map(|id| News { deployments: vec![id], ..News::default() });
        let members = members.into_iter().map(|id| News { members: vec![id], ..News::default() });
        let documents = documents.into_iter().map(|key| News { documents: vec![key], ..News::default() });
        devices.chain(deployments).chain(members).chain(documents)
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.devices.iter().chain(&self.deployments).chain(&self.members);
        let documents = self.documents.iter().map(|(kind, id)| format!("{kind} {id}"));
        let all: Vec<String> = ids.cloned().chain(documents).collect();
        // An id is text from a row that may be anything.
        write!(f, "{}", printable(&all.join(", ")))
    }
}

/// What was written, for those who are told.
pub(super) struct Flushed {
    pub(super) committed: Committed,
    /// Whether there is anything to commit.
    pub(super) is_changed: bool,
    /// Whether other processes are told.
    pub(super) has_news: bool,
}

/// Devices with an attribute, devices with a status, devices in a group: counters are changed by differences, and each once.
#[derive(Default)]
pub(super) struct Deltas(BTreeMap<(i16, Vec<u8>), Delta>);

/// The difference, and what the counter is called.
type Delta = (i64, Option<Vec<u8>>);

pub(super) const STATUS: i16 = 0;
pub(super) const GROUP: i16 = 1;
pub(super) const ATTRIBUTE: i16 = 2;

impl Deltas {
    fn add(&mut self, kind: i16, key: Vec<u8>, name: Option<Vec<u8>>, n: i64) {
        let entry = self.0.entry((kind, key)).or_insert((0, name));
        entry.0 += n;
    }

    /// A device that is there, or is not any more.
    pub(super) fn device(&mut self, device: &Device, n: i64) {
        self.add(STATUS, device.status().name().into(), None, n);
        if let Some(group) = &device.group {
            let (key, name) = short(group.as_bytes().to_vec());
            self.add(GROUP, key, Some(name), n);
        }
        for (scope, name) in attributes_of(device) {
            self.attribute(scope, name, n);
        }
    }

    pub(super) fn inventory(&mut self, inventory: &Inventory, n: i64) {
        for name in inventory.attributes.keys() {
            self.attribute(Scope::Inventory, name, n);
        }
    }

    fn attribute(&mut self, scope: Scope, name: &str, n: i64) {
        let (key, name) = short([scope.name().as_bytes(), b"/", name.as_bytes()].concat());
        self.add(ATTRIBUTE, key, Some(name), n);
    }

    /// Adds them, in one order in every process.
    pub(super) async fn write(self, conn: &Conn) -> Result<(), Fault> {
        const ADD: &str = "INSERT INTO cnt AS c (kind, key, n, name)
            SELECT u.kind, u.key, u.n, u.name FROM unnest($1::int2[], $2::bytea[], $3::int8[], $4::bytea[])
                WITH ORDINALITY AS u(kind, key, n, name, at) ORDER BY u.at
            ON CONFLICT (kind, key) DO UPDATE SET n = c.n + excluded.n";
        let changed: Vec<_> = self.0.into_iter().filter(|(_, (n, _))| *n != 0).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let (mut kinds, mut keys, mut ns, mut names) = (vec![], vec![], vec![], vec![]);
        for ((kind, key), (n, name)) in changed {
            kinds.push(kind);
            keys.push(key);
            ns.push(n);
            names.push(name);
        }
        conn.run(ADD, &[&kinds, &keys, &ns, &names]).await?;
        Ok(())
    }
}

/// An index takes no long key.
fn short(name: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let key = if name.len() <= 512 { name.clone() } else { [b"\xff".as_slice(), &sha256(&name)].concat() };
    (key, name)
}

/// The attributes of a device that are in its own record.
pub(super) fn attributes_of(device: &Device) -> impl Iterator<Item = (Scope, &String)> {
    let identity = device.identity.keys().map(|name| (Scope::Identity, name));
    let monitor = device.monitor.keys().map(|name| (Scope::Monitor, name));
    let tags = device.tags.keys().map(|name| (Scope::Tags, name));
    identity.chain(monitor).chain(tags)
}

fn ids<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<&'a [u8]> {
    texts.into_iter().map(str::as_bytes).collect()
}

/// New numbers. They are taken under the lock of the counter's row, which is held until the transaction has ended: whoever
/// sees a number has seen all before it.
async fn numbers(conn: &Conn, name: &'static str, how_many: usize) -> Result<u64, Fault> {
    const TAKE: &str = "UPDATE number SET n = n + $2 WHERE name = $1 RETURNING n";
    let how_many = i64::try_from(how_many).unwrap_or(i64::MAX);
    let row = conn.row(TAKE, &[&name, &how_many]).await?;
    let last: i64 = row.ok_or_else(|| Fault::Damaged("the table of numbers".to_owned()))?.try_get(0)?;
    Ok(count(last - how_many + 1))
}

/// Writes everything, and says what others have to know.
pub(super) async fn flush(conn: &Conn, work: &Work, process: &[u8], batch: i64) -> Result<Flushed, Fault> {
    let mut committed = committed(work);
    let is_changed = work.changed_devices().next().is_some()
        || work.changed_inventories().next().is_some()
        || work.changed_deployments().next().is_some()
        || work.changed_members().next().is_some()
        || work.changed_records().next().is_some()
        || work.changed_documents().next().is_some()
        || !work.writes().is_empty();
    if !is_changed {
        return Ok(Flushed { committed, is_changed, has_news: false });
    }
    conn.run("UPDATE process SET batch = $2, at = now() WHERE id = $1", &[&process, &batch]).await?;
    let new_numbers = devices(conn, work).await?;
    for (id, device) in &mut committed.devices {
        if let (Some(device), Some(number)) = (device, new_numbers.get(id)) {
            device.number = *number;
        }
    }
    documents(conn, work).await?;
    let sequences = deployments(conn, work).await?;
    for deployment in &mut committed.deployments {
        if let Some(sequence) = sequences.get(&deployment.id) {
            deployment.sequence = *sequence;
        }
    }
    let lists: Vec<_> = work.changed_members().map(|(id, row)| (id.as_str(), row.now.as_deref())).collect();
    members(conn, lists).await?;
    records(conn, work).await?;
    for write in work.writes() {
        one(conn, write).await?;
    }
    events(conn, work.writes()).await?;
    let news = news(work, &committed);
    let has_news = news != News::default();
    if has_news {
        const FEED: &str = "INSERT INTO feed (num, process, data) VALUES ($1, $2, $3)";
        let number = big(numbers(conn, "feed", 1).await?);
        conn.run(FEED, &[&number, &process, &json(&news)]).await?;
        conn.run("SELECT pg_notify('rust_ota_feed', '')", &[]).await?;
    }
    Ok(Flushed { committed, is_changed, has_news })
}

/// Counters of deployments change with each report, and nobody else has to know at once.
fn news(work: &Work, committed: &Committed) -> News {
    let still = |deployment: &Deployment| {
        let state = deployment.state();
        let mut still = deployment.clone();
        still.counts.clear();
        still.failures.clear();
        (still.total_size, still.saved_size, still.sequence) = (0, 0, 0);
        for phase in &mut still.phases {
            phase.begun = 0;
        }
        (still, state)
    };
    let deployments = work
        .changed_deployments()
        .filter(|(_, row)| row.before.as_ref().map(still) != row.now.as_ref().map(still));
    News {
        devices: committed.devices.iter().map(|(id, _)| id.clone()).collect(),
        deployments: deployments.map(|(id, _)| id.clone()).collect(),
        members: committed.members.iter().map(|(id, _)| id.clone()).collect(),
        documents: committed
            .documents
            .iter()
            .map(|(kind, id, _)| (kind.name().to_owned(), id.clone()))
            .collect(),
    }
}

/// A device and its inventory, where they have changed.
type ChangedDevice<'a> = (Option<&'a Row<Device>>, Option<&'a Row<Inventory>>);

/// Devices, inventories, and everything that is worked out of them. The numbers of those that are new.
async fn devices(conn: &Conn, work: &Work) -> Result<HashMap<String, u32>, Fault> {
    let mut changed: BTreeMap<&String, ChangedDevice<'_>> = BTreeMap::new();
    for (id, row) in work.changed_devices() {
        changed.entry(id).or_default().0 = Some(row);
    }
    for (id, row) in work.changed_inventories() {
        changed.entry(id).or_default().1 = Some(row);
    }
    if changed.is_empty() {
        return Ok(HashMap::new());
    }
    let is_new =
        |row: &Row<Device>| row.before.is_none() && row.now.as_ref().is_some_and(|now| now.number == 0);
    let new: Vec<&String> =
        changed.iter().filter(|(_, (device, _))| device.is_some_and(is_new)).map(|(id, _)| *id).collect();
    let mut new_numbers = HashMap::new();
    if !new.is_empty() {
        const TAKE: &str = "SELECT nextval('device_number')::int4 FROM generate_series(1, $1)";
        let how_many = i32::try_from(new.len()).unwrap_or(i32::MAX);
        for (id, row) in new.iter().zip(conn.rows(TAKE, &[&how_many]).await?) {
            new_numbers.insert((*id).clone(), row.try_get::<_, i32>(0)?.unsigned());
        }
    }
    // What a device had reported goes with it without being loaded; its own record may not be loaded either when only its
    // inventory is written.
    let hot = attr::hot(conn, true).await?;
    let mut numbers: HashMap<String, u32> = new_numbers.clone();
    let mut unknown = Vec::new();
    let mut gone = BTreeSet::new();
    for (id, (device, _)) in &changed {
        match device.and_then(|row| row.before.as_ref()) {
            Some(before) => {
                numbers.insert((*id).clone(), before.number);
                if device.is_some_and(|row| row.now.is_none()) {
                    gone.insert(before.number.signed());
                }
            }
            None if !numbers.contains_key(*id) => unknown.push(id.as_bytes()),
            None => {}
        }
    }
    let mut stored = HashMap::new();
    if !unknown.is_empty() {
        for row in conn.rows("SELECT num, active, data FROM device WHERE id = ANY($1)", &[&unknown]).await? {
            let device = super::read::device(&row)?;
            numbers.insert(device.id.clone(), device.number);
            stored.insert(device.id.clone(), device);
        }
    }
    let gone: Vec<i32> = gone.into_iter().collect();
    let mut deltas = Deltas::default();
    if !gone.is_empty() {
        for row in conn.rows("SELECT data FROM inventory WHERE num = ANY($1)", &[&gone]).await? {
            deltas.inventory(&parse(row.try_get(0)?, "an inventory")?, -1);
        }
        remove(conn, &gone).await?;
    }

    let mut write = DeviceRows::default();
    let mut inventory = (Vec::new(), Vec::new());
    let mut values = Rows::default();
    let (mut stale_keys, mut stale_numbers) = (Vec::new(), Vec::new());
    for (id, (device, reported)) in changed {
        let before = device.and_then(|row| row.before.as_ref());
        let now = device.and_then(|row| row.now.as_ref());
        if let Some(before) = before {
            deltas.device(before, -1);
        }
        if let Some(now) = now {
            deltas.device(now, 1);
        }
        if device.is_some() && now.is_none() {
            continue;
        }
        // An inventory of nobody is kept nowhere.
        let Some(number) = numbers.get(id).copied() else { continue };
        if let Some(now) = now {
            write.add(before, now, number);
        }
        if let Some(row) = reported {
            if let Some(before) = &row.before {
                deltas.inventory(before, -1);
            }
            let now = row.now.clone().unwrap_or_default();
            deltas.inventory(&now, 1);
            inventory.0.push(number.signed());
            inventory.1.push(json(&now));
        }
        let nobody = || Device {
            id: id.clone(),
            identity: BTreeMap::new(),
            identity_sha256: String::new(),
            created: crate::model::time::Timestamp(0),
            updated: crate::model::time::Timestamp(0),
            auth_sets: Vec::new(),
            group: None,
            number,
            active: None,
            last_finished: 0,
            tags: BTreeMap::new(),
            monitor: BTreeMap::new(),
        };
        let view = |device: Option<&Device>, inventory: Option<&Inventory>| DeviceView {
            device: device.or(stored.get(id)).cloned().unwrap_or_else(nobody),
            inventory: inventory.cloned().unwrap_or_default(),
            check_in: None,
        };
        let is_first = device.is_some() && before.is_none();
        let old = view(before, reported.and_then(|row| row.before.as_ref()));
        let new = view(now, reported.and_then(|row| row.now.as_ref()));
        for hot in &hot {
            let is_touched = match hot.scope {
                Scope::Inventory => reported.is_some() || is_first,
                Scope::Identity | Scope::System | Scope::Monitor | Scope::Tags => device.is_some(),
            };
            if !is_touched {
                continue;
            }
            let attr = Attr { scope: Some(hot.scope), name: hot.name.clone() };
            let value = new.value(&attr);
            if is_first || old.value(&attr) != value {
                stale_keys.push(hot.key);
                stale_numbers.push(number.signed());
                values.add(hot.key, number, id, value.as_ref());
            }
        }
    }
    write.write(conn).await?;
    if !inventory.0.is_empty() {
        const INVENTORY: &str =
            "INSERT INTO inventory (num, data) SELECT * FROM unnest($1::int4[], $2::bytea[])
            ON CONFLICT (num) DO UPDATE SET data = excluded.data";
        conn.run(INVENTORY, &[&inventory.0, &inventory.1]).await?;
    }
    if !stale_keys.is_empty() {
        const STALE: &str = "DELETE FROM attr a USING unnest($1::int4[], $2::int4[]) AS u(key, num)
            WHERE a.key = u.key AND a.num = u.num";
        conn.run(STALE, &[&stale_keys, &stale_numbers]).await?;
        values.write(conn).await?;
    }
    deltas.write(conn).await?;
    Ok(new_numbers)
}

async fn remove(conn: &Conn, gone: &[i32]) -> Result<(), Fault> {
    const GONE: &str = "INSERT INTO gone (num, id) SELECT num, id FROM device WHERE num = ANY($1)";
    for sql in [
        GONE,
        "DELETE FROM authset WHERE num = ANY($1)",
        "DELETE FROM inventory WHERE num = ANY($1)",
        "DELETE FROM seen WHERE num = ANY($1)",
        "DELETE FROM attr WHERE num = ANY($1) AND key = ANY(SELECT key FROM hot)",
        "DELETE FROM device WHERE num = ANY($1)",
    ] {
        conn.run(sql, &[&gone]).await?;
    }
    Ok(())
}

/// Rows of devices, column by column.
#[derive(Default)]
pub(super) struct DeviceRows {
    is_new: Vec<bool>,
    num: Vec<i32>,
    id: Vec<Vec<u8>>,
    sha: Vec<Vec<u8>>,
    status: Vec<i16>,
    grp: Vec<Option<Vec<u8>>>,
    active: Vec<Option<Vec<u8>>>,
    data: Vec<Vec<u8>>,
    set_ids: Vec<Vec<u8>>,
    set_devices: Vec<i32>,
    stale_sets: Vec<Vec<u8>>,
}

impl DeviceRows {
    pub(super) fn add(&mut self, before: Option<&Device>, now: &Device, number: u32) {
        self.is_new.push(before.is_none());
        self.num.push(number.signed());
        self.id.push(now.id.clone().into());
        self.sha.push(now.identity_sha256.clone().into());
        self.status.push(status_number(now.status()));
        self.grp.push(now.group.clone().map(Into::into));
        self.active.push(now.active.clone().map(Into::into));
        self.data.push(json(&Device { number, ..now.clone() }));
        let sets = |device: &Device| -> BTreeSet<String> {
            device.auth_sets.iter().map(|set| set.id.clone()).collect()
        };
        let (old, new) = (before.map(sets).unwrap_or_default(), sets(now));
        self.stale_sets.extend(old.difference(&new).map(|set| set.clone().into_bytes()));
        for set in new.difference(&old) {
            self.set_ids.push(set.clone().into());
            self.set_devices.push(number.signed());
        }
    }

    pub(super) async fn write(&self, conn: &Conn) -> Result<(), Fault> {
        const INSERT: &str = "INSERT INTO device (num, id, sha, status, grp, active, data)
            SELECT num, id, sha, status, grp, active, data FROM unnest($1::bool[], $2::int4[], $3::bytea[], $4::bytea[],
                $5::int2[], $6::bytea[], $7::bytea[], $8::bytea[]) AS u(new, num, id, sha, status, grp, active, data)
            WHERE new";
        const UPDATE: &str = "UPDATE device d SET sha = u.sha, status = u.status, grp = u.grp, active = u.active,
            data = u.data FROM unnest($1::bool[], $2::int4[], $3::bytea[], $4::bytea[], $5::int2[], $6::bytea[],
                $7::bytea[], $8::bytea[]) AS u(new, num, id, sha, status, grp, active, data)
            WHERE d.num = u.num AND NOT u.new";
        for (sql, wanted) in [(UPDATE, false), (INSERT, true)] {
            if self.is_new.contains(&wanted) {
                conn.run(
                    sql,
                    &[
                        &self.is_new,
                        &self.num,
                        &self.id,
                        &self.sha,
                        &self.status,
                        &self.grp,
                        &self.active,
                        &self.data,
                    ],
                )
                .await?;
            }
        }
        if !self.stale_sets.is_empty() {
            conn.run("DELETE FROM authset WHERE id = ANY($1)", &[&self.stale_sets]).await?;
        }
        if !self.set_ids.is_empty() {
            const SETS: &str = "INSERT INTO authset (id, num) SELECT * FROM unnest($1::bytea[], $2::int4[])";
            conn.run(SETS, &[&self.set_ids, &self.set_devices]).await?;
        }
        Ok(())
    }
}

async fn documents(conn: &Conn, work: &Work) -> Result<(), Fault> {
    let mut new = (Vec::new(), Vec::new(), Vec::new());
    let mut other = (Vec::new(), Vec::new(), Vec::new());
    let mut gone = (Vec::new(), Vec::new());
    for ((kind, id), row) in work.changed_documents() {
        let (kind, id) = (kind.name(), id.as_bytes());
        match (&row.before, &row.now) {
            (before, Some(now)) => {
                let into = if before.is_some() { &mut other } else { &mut new };
                into.0.push(kind);
                into.1.push(id);
                into.2.push(json(now));
            }
            // Also what was not loaded: the configuration of a device that is gone.
            (_, None) => {
                gone.0.push(kind);
                gone.1.push(id);
            }
        }
    }
    // Two processes that both make it: the second one finds it when it is run again.
    const NEW: &str = "INSERT INTO document SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])";
    const OTHER: &str =
        "UPDATE document d SET data = u.data FROM unnest($1::text[], $2::bytea[], $3::bytea[])
        AS u(kind, id, data) WHERE d.kind = u.kind AND d.id = u.id";
    const GONE: &str =
        "DELETE FROM document WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::bytea[]))";
    if !new.0.is_empty() {
        conn.run(NEW, &[&new.0, &new.1, &new.2]).await?;
    }
    if !other.0.is_empty() {
        conn.run(OTHER, &[&other.0, &other.1, &other.2]).await?;
    }
    if !gone.0.is_empty() {
        conn.run(GONE, &[&gone.0, &gone.1]).await?;
    }
    Ok(())
}

/// Rows of deployments, column by column.
#[derive(Default)]
pub(super) struct DeploymentRows {
    is_new: Vec<bool>,
    id: Vec<Vec<u8>>,
    seq: Vec<i64>,
    state: Vec<&'static str>,
    start: Vec<Option<i64>>,
    created: Vec<i64>,
    finished: Vec<bool>,
    configuration: Vec<bool>,
    name: Vec<Vec<u8>>,
    artifact: Vec<Vec<u8>>,
    data: Vec<Vec<u8>>,
}

impl DeploymentRows {
    pub(super) fn add(&mut self, is_new: bool, deployment: &Deployment, sequence: u64) {
        self.is_new.push(is_new);
        self.id.push(deployment.id.clone().into());
        self.seq.push(big(sequence));
        // One that is scheduled is pending later, without being written again.
        let state = deployment.state();
        self.state.push(if state == "scheduled" { "pending" } else { state });
        let start = deployment.phases.first().and_then(|phase| phase.start);
        self.start.push(start.filter(|_| deployment.records() == 0).map(|start| big(start.0)));
        self.created.push(big(deployment.created.0));
        self.finished.push(deployment.finished.is_some());
        self.configuration.push(deployment.configuration.is_some());
        self.name.push(deployment.name.clone().into());
        self.artifact.push(deployment.artifact_name.clone().into());
        self.data.push(json(&Deployment { sequence, ..deployment.clone() }));
    }

    pub(super) async fn write(&self, conn: &Conn) -> Result<(), Fault> {
        const INSERT: &str = "INSERT INTO deployment (id, seq, state, start, created, finished, configuration, name, artifact, data)
            SELECT id, seq, state, start, created, finished, configuration, name, artifact, data FROM unnest($1::bool[],
                $2::bytea[], $3::int8[], $4::text[], $5::int8[], $6::int8[], $7::bool[], $8::bool[], $9::bytea[],
                $10::bytea[], $11::bytea[]) AS u(new, id, seq, state, start, created, finished, configuration, name, artifact, data)
            WHERE new";
        const UPDATE: &str = "UPDATE deployment d SET state = u.state, start = u.start, created = u.created, finished = u.finished,
            configuration = u.configuration, name = u.name, artifact = u.artifact, data = u.data FROM unnest($1::bool[],
                $2::bytea[], $3::int8[], $4::text[], $5::int8[], $6::int8[], $7::bool[], $8::bool[], $9::bytea[],
                $10::bytea[], $11::bytea[]) AS u(new, id, seq, state, start, created, finished, configuration, name, artifact, data)
            WHERE d.id = u.id AND NOT u.new";
        for (sql, wanted) in [(UPDATE, false), (INSERT, true)] {
            if self.is_new.contains(&wanted) {
                conn.run(
                    sql,
                    &[
                        &self.is_new,
                        &self.id,
                        &self.seq,
                        &self.state,
                        &self.start,
                        &self.created,
                        &self.finished,
                        &self.configuration,
                        &self.name,
                        &self.artifact,
                        &self.data,
                    ],
                )
                .await?;
            }
        }
        Ok(())
    }
}

/// The sequence numbers of those that are new.
async fn deployments(conn: &Conn, work: &Work) -> Result<HashMap<String, u64>, Fault> {
    let mut changed: Vec<(&String, &Row<Deployment>)> = work.changed_deployments().collect();
    if changed.is_empty() {
        return Ok(HashMap::new());
    }
    changed.sort_by(|a, b| a.0.cmp(b.0));
    let is_new = |row: &Row<Deployment>| row.before.is_none() && row.now.is_some();
    let new = changed.iter().filter(|(_, row)| is_new(row)).count();
    let mut next = if new == 0 { 0 } else { numbers(conn, "deployment", new).await? };
    let mut sequences = HashMap::new();
    let mut rows = DeploymentRows::default();
    for (id, row) in changed {
        let Some(now) = &row.now else { continue };
        let mut sequence = now.sequence;
        if row.before.is_none() {
            sequence = next;
            next += 1;
            sequences.insert(id.clone(), sequence);
        }
        rows.add(row.before.is_none(), now, sequence);
    }
    rows.write(conn).await?;
    Ok(sequences)
}

/// Writes the members of deployments in place of those that they had.
pub(super) async fn members<'a>(
    conn: &Conn,
    lists: impl IntoIterator<Item = (&'a str, Option<&'a roaring::RoaringBitmap>)>,
) -> Result<(), Fault> {
    const INSERT: &str = "INSERT INTO members SELECT * FROM unnest($1::bytea[], $2::int4[], $3::int4[], $4::int4[], $5::bytea[])";
    let mut deployments = Vec::new();
    let (mut deps, mut chunks, mut lows, mut highs, mut datas) = (vec![], vec![], vec![], vec![], vec![]);
    for (deployment, members) in lists {
        deployments.push(deployment.as_bytes());
        for (chunk, low, high, data) in members.map(pieces).unwrap_or_default() {
            deps.push(deployment.as_bytes());
            chunks.push(chunk);
            lows.push(low);
            highs.push(high);
            datas.push(data);
        }
    }
    if deployments.is_empty() {
        return Ok(());
    }
    conn.run("DELETE FROM members WHERE dep = ANY($1)", &[&deployments]).await?;
    conn.run(INSERT, &[&deps, &chunks, &lows, &highs, &datas]).await?;
    Ok(())
}

/// Rows of records, column by column.
#[derive(Default)]
pub(super) struct RecordRows {
    is_new: Vec<bool>,
    dep: Vec<Vec<u8>>,
    dev: Vec<Vec<u8>>,
    status: Vec<i16>,
    ended: Vec<bool>,
    finished: Vec<Option<i64>>,
    log: Vec<bool>,
    data: Vec<Vec<u8>>,
}

impl RecordRows {
    pub(super) fn add(&mut self, is_new: bool, record: &DeviceDeployment) {
        self.is_new.push(is_new);
        self.dep.push(record.deployment.clone().into());
        self.dev.push(record.device.clone().into());
        self.status.push(record_status(record.status));
        self.ended.push(record.status.is_finished());
        self.finished.push(record.finished.map(|time| big(time.0)));
        self.log.push(record.log);
        self.data.push(json(record));
    }

    pub(super) async fn write(&self, conn: &Conn) -> Result<(), Fault> {
        const INSERT: &str = "INSERT INTO record (dep, dev, num, status, ended, finished, log, data)
            SELECT dep, dev, coalesce((SELECT num FROM device WHERE id = u.dev),
                (SELECT max(num) FROM gone WHERE id = u.dev), 0), status, ended, finished, log, data
            FROM unnest($1::bool[], $2::bytea[], $3::bytea[], $4::int2[], $5::bool[], $6::int8[], $7::bool[],
                $8::bytea[]) AS u(new, dep, dev, status, ended, finished, log, data) WHERE new";
        const UPDATE: &str = "UPDATE record r SET status = u.status, ended = u.ended, finished = u.finished,
            log = u.log, data = u.data FROM unnest($1::bool[], $2::bytea[], $3::bytea[], $4::int2[], $5::bool[],
                $6::int8[], $7::bool[], $8::bytea[]) AS u(new, dep, dev, status, ended, finished, log, data)
            WHERE r.dep = u.dep AND r.dev = u.dev AND NOT u.new";
        for (sql, wanted) in [(UPDATE, false), (INSERT, true)] {
            if self.is_new.contains(&wanted) {
                conn.run(
                    sql,
                    &[
                        &self.is_new,
                        &self.dep,
                        &self.dev,
                        &self.status,
                        &self.ended,
                        &self.finished,
                        &self.log,
                        &self.data,
                    ],
                )
                .await?;
            }
        }
        Ok(())
    }
}

async fn records(conn: &Conn, work: &Work) -> Result<(), Fault> {
    let mut rows = RecordRows::default();
    let mut gone = (Vec::new(), Vec::new());
    let mut changed: Vec<_> = work.changed_records().collect();
    changed.sort_by(|a, b| a.0.cmp(b.0));
    for ((deployment, device), row) in changed {
        match &row.now {
            Some(now) => rows.add(row.before.is_none(), now),
            None => {
                gone.0.push(deployment.as_bytes());
                gone.1.push(device.as_bytes());
            }
        }
    }
    rows.write(conn).await?;
    if !gone.0.is_empty() {
        const GONE: &str =
            "DELETE FROM record WHERE (dep, dev) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[]))";
        conn.run(GONE, &[&gone.0, &gone.1]).await?;
    }
    Ok(())
}

async fn one(conn: &Conn, write: &Write) -> Result<(), Fault> {
    match write {
        Write::Log { deployment, device, text } => {
            let (deployment, device) = (deployment.as_bytes(), device.as_bytes());
            match text {
                Some(text) => {
                    const LOG: &str = "INSERT INTO log (dep, dev, data) VALUES ($1, $2, $3)
                        ON CONFLICT (dep, dev) DO UPDATE SET data = excluded.data";
                    conn.run(LOG, &[&deployment, &device, &text.as_bytes()]).await?;
                }
                None => {
                    conn.run("DELETE FROM log WHERE dep = $1 AND dev = $2", &[&deployment, &device]).await?;
                }
            }
        }
        Write::LogsGone(device) => {
            let device = ids([device.as_str()]);
            conn.run("DELETE FROM log WHERE dev = ANY($1)", &[&device]).await?;
            conn.run("UPDATE record SET log = false WHERE dev = ANY($1) AND log", &[&device]).await?;
        }
        Write::EndRecords { deployment, status, now } => {
            // Their devices first: whoever reports has the lock of the device, too.
            const DEVICES: &str = "UPDATE device d SET active = NULL FROM record r
                WHERE r.dep = $1 AND NOT r.ended AND d.num = r.num AND d.active = $1";
            const RECORDS: &str = "UPDATE record SET status = $2, ended = $3, finished = $4
                WHERE dep = $1 AND NOT ended";
            let deployment = deployment.as_bytes();
            let finished = status.is_finished().then_some(big(now.0));
            conn.run(DEVICES, &[&deployment]).await?;
            conn.run(RECORDS, &[&deployment, &record_status(*status), &status.is_finished(), &finished])
                .await?;
        }
        // All of them at once, see below.
        Write::Event(_) => {}
    }
    Ok(())
}

async fn events(conn: &Conn, writes: &[Write]) -> Result<(), Fault> {
    let (mut streams, mut keys, mut times, mut datas) = (vec![], vec![], vec![], vec![]);
    for write in writes {
        match write {
            Write::Event(event) => {
                streams.push(event.stream.name());
                keys.push(event.key.as_bytes());
                times.push(big(event.time.0));
                datas.push(json(&event.data));
            }
            Write::Log { .. } | Write::LogsGone(_) | Write::EndRecords { .. } => {}
        }
    }
    if streams.is_empty() {
        return Ok(());
    }
    let first = numbers(conn, "event", streams.len()).await?;
    let numbers: Vec<i64> = (0..streams.len()).map(|at| big(first + at as u64)).collect();
    const INSERT: &str = "INSERT INTO event (num, stream, key, ts, data)
        SELECT * FROM unnest($1::int8[], $2::text[], $3::bytea[], $4::int8[], $5::bytea[])";
    conn.run(INSERT, &[&numbers, &streams, &keys, &times, &datas]).await?;
    Ok(())
}
