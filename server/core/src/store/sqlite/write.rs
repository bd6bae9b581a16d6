//! Writes what a transaction has changed, with the indices and the counts that follow from it.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};

use super::code::{self, CHUNK, Chunk, Id};
use super::read::{self, Counted, Fault, Names, SEEN};
use super::sort::{Place, Sorter};
use crate::model::time::Timestamp;
use crate::model::{Deployment, Device, DeviceDeployment, Inventory};
use crate::store::AHEAD_MILLISECONDS;
use crate::work::query::Scope;
use crate::work::{Event, Kind, Stream, Work, Write};

/// An attribute named `status` in an identity: nobody sees it but the search for a text, since the name is the server's.
pub(super) const SHADOWED: u8 = 5;

pub(super) fn scope_number(scope: Scope) -> u8 {
    match scope {
        Scope::Identity => 0,
        Scope::System => 1,
        Scope::Inventory => 2,
        Scope::Monitor => 3,
        Scope::Tags => 4,
    }
}

/// The state of a deployment whose first phase has not begun, and what it is then.
pub(super) const SCHEDULED: &str = "scheduled";
const PENDING: &str = "pending";

/// What a row of `post` says of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    /// They have this value.
    Value = 0,
    /// They have a list with this value in it.
    Item = 1,
    /// They have the attribute.
    Any = 2,
}

/// The number of rows of `post` for an attribute. That of the attribute 0 are all devices.
pub(super) fn post_of(attribute: i64, what: Post) -> i64 {
    attribute * 4 + what as i64
}

/// All devices.
pub(super) const ALL: i64 = Post::Any as i64;

/// Rows of the index of one transaction when the store is filled.
const SORTED: u32 = 500_000;

type Facts = BTreeMap<(u8, String), Vec<u8>>;

fn facts_of_device(device: &Device) -> Facts {
    let mut facts = Facts::new();
    let mut put = |scope: u8, name: &str, value: &Value| {
        facts.insert((scope, name.to_owned()), code::key(value));
    };
    for (name, value) in &device.identity {
        put(if name == "status" { SHADOWED } else { scope_number(Scope::Identity) }, name, value);
    }
    put(scope_number(Scope::Identity), "status", &json!(device.status()));
    put(scope_number(Scope::System), "created_ts", &json!(device.created));
    put(scope_number(Scope::System), "updated_ts", &json!(device.updated));
    if let Some(group) = &device.group {
        put(scope_number(Scope::System), "group", &json!(group));
    }
    for (name, value) in &device.monitor {
        put(scope_number(Scope::Monitor), name, value);
    }
    for (name, tag) in &device.tags {
        put(scope_number(Scope::Tags), name, &json!(tag.value));
    }
    facts
}

fn facts_of_inventory(inventory: &Inventory) -> Facts {
    let scope = scope_number(Scope::Inventory);
    let fact = |(name, attribute): (&String, &crate::model::Attribute)| {
        ((scope, name.clone()), code::key(&attribute.value))
    };
    inventory.attributes.iter().map(fact).collect()
}

/// What has gathered for indices and counts: each row is read and written once.
pub(super) struct Flush<'a> {
    connection: &'a Connection,
    names: &'a Names,
    attributes: HashMap<(u8, String), i64>,
    posts: BTreeMap<Place, Vec<(u16, bool)>>,
    /// Where they go when the store is filled.
    sorter: Option<Sorter>,
    attribute_counts: BTreeMap<i64, i64>,
    counts: BTreeMap<(Counted, Name), i64>,
}

/// What a count is named by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Number(u8),
    Text(String),
}

impl<'a> Flush<'a> {
    pub(super) fn new(connection: &'a Connection, names: &'a Names) -> Flush<'a> {
        Flush {
            connection,
            names,
            attributes: HashMap::new(),
            posts: BTreeMap::new(),
            sorter: None,
            attribute_counts: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// For a store that is filled: what is in the index is written by [`Flush::sorted`].
    pub(super) fn sorting(connection: &'a Connection, names: &'a Names, sorter: Sorter) -> Flush<'a> {
        Flush { sorter: Some(sorter), ..Flush::new(connection, names) }
    }

    fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, Fault> {
        Ok(self.connection.prepare_cached(sql)?.execute(values)?)
    }

    /// Everything that a transaction has changed.
    pub(super) fn work(&mut self, work: &Work) -> Result<(), Fault> {
        // Those that go first: another one may have their identity.
        for (_, row) in work.changed_devices().filter(|(_, row)| row.now.is_none()) {
            if let Some(before) = &row.before {
                self.device_gone(before)?;
            }
        }
        let mut numbers = HashMap::new();
        for (id, row) in work.changed_devices() {
            if let Some(now) = &row.now {
                self.device(row.before.as_ref(), now)?;
                numbers.insert(id, now.number);
            }
        }
        for (id, row) in work.changed_inventories() {
            // One that goes has gone with its device.
            let Some(now) = &row.now else { continue };
            let number = match numbers.get(id) {
                Some(number) => Some(*number),
                None => read::number(self.connection, id)?,
            };
            if let (Some(number), true) = (number, row.before.as_ref() != Some(now)) {
                self.inventory(number, row.before.as_ref(), Some(now))?;
            }
        }
        for (_, row) in work.changed_deployments() {
            if let Some(now) = &row.now {
                self.deployment(now)?;
            }
        }
        for (id, row) in work.changed_members() {
            if let (Some(now), Some(sequence)) = (&row.now, read::sequence(self.connection, id)?) {
                self.members(sequence, now)?;
            }
        }
        for (_, row) in work.changed_records() {
            if let Some(now) = &row.now {
                self.record(now)?;
            }
        }
        for ((kind, id), row) in work.changed_documents() {
            self.document(*kind, id, row.now.as_ref())?;
        }
        work.writes().iter().try_for_each(|write| self.write(write))
    }

    fn attribute(&mut self, scope: u8, name: &str) -> Result<i64, Fault> {
        let key = (scope, name.to_owned());
        if let Some(id) = self.attributes.get(&key) {
            return Ok(*id);
        }
        let mut find =
            self.connection.prepare_cached("SELECT id FROM attribute WHERE scope = ?1 AND name = ?2")?;
        let id = match find.query_row((scope, name), |row| row.get(0)).optional()? {
            Some(id) => id,
            None => {
                self.run("INSERT INTO attribute(scope, name, count) VALUES(?1, ?2, 0)", (scope, name))?;
                self.connection.last_insert_rowid()
            }
        };
        self.attributes.insert(key, id);
        Ok(id)
    }

    fn post(&mut self, post: i64, key: &[u8], number: u32, is_in: bool) {
        let low = (number % CHUNK) as u16;
        self.posts.entry((post, key.to_vec(), number / CHUNK)).or_default().push((low, is_in));
    }

    fn post_value(&mut self, attribute: i64, key: &[u8], number: u32, is_in: bool) {
        self.post(post_of(attribute, Post::Value), key, number, is_in);
        if code::is_list(key) {
            if let Some(Value::Array(items)) = code::value_of(key) {
                for item in &items {
                    self.post(post_of(attribute, Post::Item), &code::key(item), number, is_in);
                }
            }
        }
    }

    fn facts(&mut self, number: u32, before: &Facts, now: &Facts) -> Result<(), Fault> {
        for ((scope, name), key) in before {
            let new = now.get(&(*scope, name.clone()));
            if new == Some(key) {
                continue;
            }
            let attribute = self.attribute(*scope, name)?;
            self.post_value(attribute, key, number, false);
            if new.is_none() {
                self.post(post_of(attribute, Post::Any), &[], number, false);
                *self.attribute_counts.entry(attribute).or_default() -= 1;
            }
        }
        for ((scope, name), key) in now {
            let old = before.get(&(*scope, name.clone()));
            if old == Some(key) {
                continue;
            }
            let attribute = self.attribute(*scope, name)?;
            self.post_value(attribute, key, number, true);
            if old.is_none() {
                self.post(post_of(attribute, Post::Any), &[], number, true);
                *self.attribute_counts.entry(attribute).or_default() += 1;
            }
        }
        Ok(())
    }

    fn count_device(&mut self, device: &Device, by: i64) {
        let status = Name::Number(code::auth_status_number(device.status()));
        *self.counts.entry((Counted::Status, status)).or_default() += by;
        if let Some(group) = &device.group {
            *self.counts.entry((Counted::Group, Name::Text(group.clone()))).or_default() += by;
        }
    }

    /// A device, new or not.
    pub(super) fn device(&mut self, before: Option<&Device>, now: &Device) -> Result<(), Fault> {
        let data = code::device_data(now);
        let active = now.active.as_deref().map(Id);
        match before {
            None => {
                self.run(
                    "INSERT INTO device(number, id, sha, active, last_finished, data) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                    (now.number, Id(&now.id), Id(&now.identity_sha256), active, now.last_finished as i64, data),
                )?;
                self.post(ALL, &[], now.number, true);
            }
            Some(_) => {
                self.run(
                    "UPDATE device SET sha = ?2, active = ?3, last_finished = ?4, data = ?5 WHERE number = ?1",
                    (now.number, Id(&now.identity_sha256), active, now.last_finished as i64, data),
                )?;
            }
        }
        for set in before.iter().flat_map(|before| &before.auth_sets) {
            if !now.auth_sets.iter().any(|other| other.id == set.id) {
                self.run("DELETE FROM auth_set WHERE id = ?1 AND device = ?2", (Id(&set.id), now.number))?;
            }
        }
        for set in &now.auth_sets {
            if !before.is_some_and(|before| before.auth_sets.iter().any(|other| other.id == set.id)) {
                self.run(
                    "INSERT OR REPLACE INTO auth_set(id, device) VALUES(?1, ?2)",
                    (Id(&set.id), now.number),
                )?;
            }
        }
        let facts = before.map(facts_of_device).unwrap_or_default();
        self.facts(now.number, &facts, &facts_of_device(now))?;
        if let Some(before) = before {
            self.count_device(before, -1);
        }
        self.count_device(now, 1);
        Ok(())
    }

    fn device_gone(&mut self, device: &Device) -> Result<(), Fault> {
        let number = device.number;
        self.run("DELETE FROM device WHERE number = ?1", [number])?;
        self.gone(number, &device.id)?;
        for set in &device.auth_sets {
            self.run("DELETE FROM auth_set WHERE id = ?1 AND device = ?2", (Id(&set.id), number))?;
        }
        self.post(ALL, &[], number, false);
        self.facts(number, &facts_of_device(device), &Facts::new())?;
        self.count_device(device, -1);
        let inventory = read::inventory(self.connection, self.names, number)?;
        self.inventory(number, inventory.as_ref(), None)
    }

    /// The number of a device that is gone stays its own.
    pub(super) fn gone(&self, number: u32, id: &str) -> Result<(), Fault> {
        self.run("INSERT INTO gone(number, id) VALUES(?1, ?2)", (number, Id(id))).map(|_| ())
    }

    /// What a device has reported; `None` takes it away.
    pub(super) fn inventory(
        &mut self,
        number: u32,
        before: Option<&Inventory>,
        now: Option<&Inventory>,
    ) -> Result<(), Fault> {
        let facts = |inventory: Option<&Inventory>| inventory.map(facts_of_inventory).unwrap_or_default();
        self.facts(number, &facts(before), &facts(now))?;
        match now {
            None => self.run("DELETE FROM inventory WHERE device = ?1", [number]),
            Some(now) => {
                let scope = scope_number(Scope::Inventory);
                let data =
                    code::inventory_data(now, |name| Ok::<_, Fault>(self.attribute(scope, name)? as u64))?;
                self.run("INSERT OR REPLACE INTO inventory(device, data) VALUES(?1, ?2)", (number, data))
            }
        }
        .map(|_| ())
    }

    /// A deployment, new or not.
    pub(super) fn deployment(&self, deployment: &Deployment) -> Result<(), Fault> {
        // A struct of strings, numbers and maps with text as keys: it always becomes JSON.
        let data = serde_json::to_vec(deployment).unwrap_or_default();
        let may_wait = deployment.finished.is_none() && deployment.records() == 0;
        let starts = deployment.phases.first().and_then(|phase| phase.start).filter(|_| may_wait);
        self.run(
            "INSERT INTO deployment(sequence, id, state, is_configuration, name, artifact, created, starts,
             is_active, data)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT(sequence) DO UPDATE SET state = excluded.state,
             is_configuration = excluded.is_configuration, name = excluded.name, artifact = excluded.artifact,
             created = excluded.created, starts = excluded.starts, is_active = excluded.is_active, data = excluded.data",
            (
                deployment.sequence as i64,
                Id(&deployment.id),
                // Only the time makes one that is scheduled another one.
                if deployment.state() == SCHEDULED { PENDING } else { deployment.state() },
                deployment.configuration.is_some(),
                &deployment.name,
                &deployment.artifact_name,
                deployment.created.0 as i64,
                starts.map(|time| time.0 as i64),
                deployment.finished.is_none(),
                data,
            ),
        )
        .map(|_| ())
    }

    /// The devices that a deployment lists: once in all, and once by device.
    pub(super) fn members(&self, sequence: u64, members: &RoaringBitmap) -> Result<(), Fault> {
        let deployment = sequence as i64;
        let mut bytes = Vec::with_capacity(members.serialized_size());
        // Into memory: it cannot fail.
        let _ = members.serialize_into(&mut bytes);
        let before = read::members(self.connection, sequence)?;
        self.run("INSERT OR REPLACE INTO members(deployment, devices) VALUES(?1, ?2)", (deployment, bytes))?;
        let mut chunks: BTreeMap<u32, Chunk> = BTreeMap::new();
        // What it listed and does not any more becomes empty.
        for number in before.iter().flatten() {
            chunks.entry(number / CHUNK).or_insert_with(Chunk::empty);
        }
        for number in members {
            chunks.entry(number / CHUNK).or_insert_with(Chunk::empty).set((number % CHUNK) as u16, true);
        }
        for (chunk, devices) in chunks {
            let values = (chunk, deployment, devices.bytes());
            match devices.len() {
                0 => {
                    self.run("DELETE FROM listed WHERE chunk = ?1 AND deployment = ?2", (chunk, deployment))?
                }
                _ => self.run(
                    "INSERT OR REPLACE INTO listed(chunk, deployment, devices) VALUES(?1, ?2, ?3)",
                    values,
                )?,
            };
        }
        Ok(())
    }

    /// The numbers of both, where there are both.
    fn pair(&self, deployment: &str, device: &str) -> Result<Option<(i64, u32)>, Fault> {
        let sequence = read::sequence(self.connection, deployment)?;
        let number = read::number_ever(self.connection, device)?;
        Ok(sequence.zip(number).map(|(sequence, number)| (sequence as i64, number)))
    }

    /// One deployment on one device.
    pub(super) fn record(&self, record: &DeviceDeployment) -> Result<(), Fault> {
        let Some((deployment, device)) = self.pair(&record.deployment, &record.device)? else {
            return Ok(());
        };
        self.run(
            "INSERT INTO record(deployment, device, status, finished, log, data) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(deployment, device) DO UPDATE SET status = excluded.status, finished = excluded.finished,
             log = excluded.log, data = excluded.data",
            (
                deployment,
                device,
                code::status_number(record.status),
                record.finished.map(|time| time.0 as i64),
                record.log,
                read::record_data(record),
            ),
        )
        .map(|_| ())
    }

    /// A document; `None` takes it away.
    pub(super) fn document(&self, kind: Kind, id: &str, value: Option<&Value>) -> Result<(), Fault> {
        match value {
            None => self.run("DELETE FROM document WHERE kind = ?1 AND id = ?2", (kind.name(), id)),
            Some(value) => self.run(
                "INSERT INTO document(kind, id, data) VALUES(?1, ?2, ?3)
                 ON CONFLICT(kind, id) DO UPDATE SET data = excluded.data",
                (kind.name(), id, value.to_string()),
            ),
        }
        .map(|_| ())
    }

    /// The log of a deployment on a device; `None` takes it away.
    pub(super) fn log(&self, deployment: &str, device: &str, text: Option<&str>) -> Result<(), Fault> {
        let Some((deployment, device)) = self.pair(deployment, device)? else { return Ok(()) };
        match text {
            None => self.run("DELETE FROM log WHERE device = ?1 AND deployment = ?2", (device, deployment)),
            Some(text) => self.run(
                "INSERT OR REPLACE INTO log(device, deployment, text) VALUES(?1, ?2, ?3)",
                (device, deployment, text),
            ),
        }
        .map(|_| ())
    }

    /// Something happened.
    pub(super) fn event(&self, event: &Event) -> Result<(), Fault> {
        self.run(
            "INSERT INTO event(stream, key, time, data) VALUES(?1, ?2, ?3, ?4)",
            (event.stream.name(), &event.key, event.time.0 as i64, event.data.to_string()),
        )
        .map(|_| ())
    }

    fn write(&mut self, write: &Write) -> Result<(), Fault> {
        match write {
            Write::Log { deployment, device, text } => self.log(deployment, device, text.as_deref()),
            Write::LogsGone(device) => {
                let Some(number) = read::number_ever(self.connection, device)? else { return Ok(()) };
                self.run("DELETE FROM log WHERE device = ?1", [number])?;
                self.run("UPDATE record SET log = 0 WHERE device = ?1 AND log", [number]).map(|_| ())
            }
            Write::EndRecords { deployment, status, now } => {
                let Some(sequence) = read::sequence(self.connection, deployment)? else { return Ok(()) };
                self.run(
                    "UPDATE device SET active = NULL WHERE active = ?1 AND number IN
                     (SELECT device FROM record WHERE deployment = ?2 AND status < ?3)",
                    (Id(deployment), sequence as i64, code::FINAL),
                )?;
                self.run(
                    "UPDATE record SET status = ?1, finished = ?2 WHERE deployment = ?3 AND status < ?4",
                    (code::status_number(*status), now.0 as i64, sequence as i64, code::FINAL),
                )
                .map(|_| ())
            }
            Write::Event(event) => self.event(event),
        }
    }

    /// Which parts of the index change.
    pub(super) fn posts(&self) -> Vec<i64> {
        let mut posts: Vec<i64> = self.posts.keys().map(|(post, _, _)| *post).collect();
        posts.dedup();
        posts
    }

    /// Writes what has gathered.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        let posts = std::mem::take(&mut self.posts);
        match &mut self.sorter {
            Some(sorter) => sorter.run(posts)?,
            None => {
                for ((post, key, chunk), changes) in posts {
                    self.write_post(post, &key, chunk, &changes)?;
                }
            }
        }
        for ((kind, name), by) in std::mem::take(&mut self.counts) {
            let name = match name {
                Name::Number(number) => Sql::from(number),
                Name::Text(text) => Sql::from(text),
            };
            if by != 0 {
                self.run(
                    "INSERT INTO count(kind, name, count) VALUES(?1, ?2, ?3)
                     ON CONFLICT(kind, name) DO UPDATE SET count = count + excluded.count",
                    (kind as u8, &name, by),
                )?;
                self.run(
                    "DELETE FROM count WHERE kind = ?1 AND name = ?2 AND count = 0",
                    (kind as u8, &name),
                )?;
            }
        }
        for (attribute, by) in std::mem::take(&mut self.attribute_counts) {
            if by != 0 {
                self.run("UPDATE attribute SET count = count + ?2 WHERE id = ?1", (attribute, by))?;
                self.run("DELETE FROM attribute WHERE id = ?1 AND count = 0", [attribute])?;
            }
        }
        // Some are gone.
        self.attributes.clear();
        Ok(())
    }

    /// Writes the index of a store that was filled, in its order. `each` is told after some rows.
    pub(super) fn sorted(&mut self, mut each: impl FnMut() -> Result<(), Fault>) -> Result<(), Fault> {
        let Some(sorter) = self.sorter.take() else { return Ok(()) };
        let sql = "INSERT INTO post(attribute, key, chunk, devices) VALUES(?1, ?2, ?3, ?4)";
        let mut put = self.connection.prepare_cached(sql)?;
        let mut count = 0u32;
        sorter.merge(|(post, key, chunk), devices| {
            put.execute((post, key, chunk, devices))?;
            count += 1;
            if count % SORTED == 0 { each() } else { Ok(()) }
        })
    }

    fn write_post(&self, post: i64, key: &[u8], chunk: u32, changes: &[(u16, bool)]) -> Result<(), Fault> {
        let mut find = self
            .connection
            .prepare_cached("SELECT devices FROM post WHERE attribute = ?1 AND key = ?2 AND chunk = ?3")?;
        let mut rows = find.query((post, key, chunk))?;
        let found = rows.next()?.map(|row| Ok::<_, Fault>(Chunk::read(row.get_ref(0)?.as_blob()?)));
        let mut devices = found.transpose()?.unwrap_or_else(Chunk::empty);
        drop(rows);
        for (low, is_in) in changes {
            devices.set(*low, *is_in);
        }
        match devices.len() {
            0 => self
                .run("DELETE FROM post WHERE attribute = ?1 AND key = ?2 AND chunk = ?3", (post, key, chunk)),
            _ => self.run(
                "INSERT OR REPLACE INTO post(attribute, key, chunk, devices) VALUES(?1, ?2, ?3, ?4)",
                (post, key, chunk, devices.bytes()),
            ),
        }
        .map(|_| ())
    }
}

/// When devices were heard of. An older time never replaces a newer one, but for one of a clock that was ahead.
pub(super) fn check_ins(connection: &Connection, times: &[(u32, Timestamp)]) -> Result<(), Fault> {
    let mut chunks: BTreeMap<u32, Vec<(u32, Timestamp)>> = BTreeMap::new();
    for (number, time) in times {
        chunks.entry(number / SEEN).or_default().push((number % SEEN, *time));
    }
    let mut find = connection.prepare_cached("SELECT times FROM seen WHERE chunk = ?1")?;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO seen(chunk, times) VALUES(?1, ?2)")?;
    for (chunk, times) in chunks {
        let mut bytes: Vec<u8> = find.query_row([chunk], |row| row.get(0)).optional()?.unwrap_or_default();
        bytes.resize(SEEN as usize * 8, 0);
        for (place, time) in times {
            let place = place as usize * 8;
            if let Some(bytes) = bytes.get_mut(place..place + 8) {
                let before = bytes.try_into().map_or(0, u64::from_le_bytes);
                let is_ahead = before > time.0.saturating_add(AHEAD_MILLISECONDS);
                let now = if is_ahead { time.0 } else { before.max(time.0) };
                bytes.copy_from_slice(&now.to_le_bytes());
            }
        }
        put.execute((chunk, bytes))?;
    }
    Ok(())
}

/// Takes old events away.
pub(super) fn forget_events(
    connection: &Connection,
    stream: Stream,
    before: Timestamp,
    most: u64,
) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM event WHERE number IN
         (SELECT number FROM event WHERE stream = ?1 AND time < ?2 ORDER BY time LIMIT ?3)",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(statement.execute((stream.name(), before.0 as i64, most))? as u64)
}

/// Takes records of a deployment that has ended away, and the deployment with the last of them. Whether it is gone.
pub(super) fn forget_deployment(connection: &Connection, id: &str, most: u64) -> Result<bool, Fault> {
    let Some(deployment) = read::deployment(connection, id)? else { return Ok(true) };
    if deployment.finished.is_none() {
        return Ok(false);
    }
    let sequence = deployment.sequence as i64;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<usize, Fault> {
        Ok(connection.prepare_cached(sql)?.execute(values)?)
    };
    let some = "SELECT device FROM record WHERE deployment = ?1 ORDER BY device LIMIT ?2";
    let logs = format!("DELETE FROM log WHERE deployment = ?1 AND device IN ({some})");
    run(&logs, &[&sequence, &most])?;
    let records = format!("DELETE FROM record WHERE deployment = ?1 AND device IN ({some})");
    run(&records, &[&sequence, &most])?;
    let is_left = "SELECT EXISTS (SELECT 1 FROM record WHERE deployment = ?1)";
    if connection.prepare_cached(is_left)?.query_row([sequence], |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    let members = read::members(connection, deployment.sequence)?.unwrap_or_default();
    let mut next = members.min();
    while let Some(number) = next {
        let chunk = number / CHUNK;
        run("DELETE FROM listed WHERE chunk = ?1 AND deployment = ?2", &[&chunk, &sequence])?;
        next = chunk
            .checked_add(1)
            .and_then(|chunk| chunk.checked_mul(CHUNK))
            .and_then(|from| members.range(from..).next());
    }
    run("DELETE FROM members WHERE deployment = ?1", &[&sequence])?;
    run("DELETE FROM deployment WHERE sequence = ?1", &[&sequence])?;
    Ok(true)
}
