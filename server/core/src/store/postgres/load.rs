//! Loads what a batch asks for, and locks it until the transaction ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::connect::{Conn, Fault};
use super::number::Signed as _;
use super::read::{self, parse, text};
use crate::model::AuthStatus;
use crate::work::{Key, Kind, Loaded, Work};

/// The number of a status in the database: they are in the order of their names.
pub(super) fn status_number(status: AuthStatus) -> i16 {
    match status {
        AuthStatus::Accepted => 0,
        AuthStatus::Noauth => 1,
        AuthStatus::Pending => 2,
        AuthStatus::Preauthorized => 3,
        AuthStatus::Rejected => 4,
    }
}

/// Every status, by its number.
pub(super) const BY_NUMBER: [AuthStatus; 5] = [
    AuthStatus::Accepted,
    AuthStatus::Noauth,
    AuthStatus::Pending,
    AuthStatus::Preauthorized,
    AuthStatus::Rejected,
];

/// What was asked for, by what it is.
#[derive(Default)]
struct Wanted {
    devices: BTreeSet<String>,
    identities: BTreeSet<String>,
    auth_sets: BTreeSet<String>,
    inventories: BTreeSet<String>,
    deployments: BTreeSet<String>,
    members: BTreeSet<String>,
    records: BTreeSet<(String, String)>,
    documents: BTreeSet<(Kind, String)>,
    counts: BTreeSet<AuthStatus>,
}

fn bytes<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<&'a [u8]> {
    texts.into_iter().map(String::as_bytes).collect()
}

/// Loads what is not loaded. Rows are locked in one order, so that batches of several processes seldom wait for each other in
/// a circle; when they do, the database ends one of them, and it is run again.
pub(super) async fn load(
    conn: &Conn,
    work: &mut Work,
    keys: impl IntoIterator<Item = Key>,
) -> Result<(), Fault> {
    let mut wanted = Wanted::default();
    for key in keys {
        if work.has(&key) {
            continue;
        }
        match key {
            Key::Device(id) => wanted.devices.insert(id),
            Key::Identity(sha) => wanted.identities.insert(sha),
            Key::AuthSet(id) => wanted.auth_sets.insert(id),
            Key::Inventory(id) => wanted.inventories.insert(id),
            Key::Deployment(id) => wanted.deployments.insert(id),
            Key::Members(id) => wanted.members.insert(id),
            Key::Record(deployment, device) => wanted.records.insert((deployment, device)),
            Key::Document(kind, id) => wanted.documents.insert((kind, id)),
            Key::Count(status) => wanted.counts.insert(status),
        };
    }
    counts(conn, work, &wanted.counts).await?;
    documents(conn, work, wanted.documents).await?;
    deployments(conn, work, wanted.deployments).await?;
    members(conn, work, wanted.members).await?;
    devices(conn, work, wanted.devices, wanted.inventories).await?;
    names(conn, work, wanted.identities, wanted.auth_sets).await?;
    records(conn, work, wanted.records).await
}

async fn counts(conn: &Conn, work: &mut Work, wanted: &BTreeSet<AuthStatus>) -> Result<(), Fault> {
    if wanted.is_empty() {
        return Ok(());
    }
    // A limit has to hold over all processes: who counts is alone until the transaction ends. The row is made if it is not
    // there, so that there is one to lock.
    const MAKE: &str =
        "INSERT INTO cnt (kind, key, n) SELECT 0, key, 0 FROM unnest($1::bytea[]) AS u(key) ORDER BY key
        ON CONFLICT DO NOTHING";
    const READ: &str = "SELECT key, n FROM cnt WHERE kind = 0 AND key = ANY($1) ORDER BY key FOR UPDATE";
    let keys: Vec<&[u8]> = wanted.iter().map(|status| status.name().as_bytes()).collect();
    conn.run(MAKE, &[&keys]).await?;
    for row in conn.rows(READ, &[&keys]).await? {
        if let Some(status) = AuthStatus::parse(&text(&row, 0)?) {
            let count = u64::try_from(row.try_get::<_, i64>(1)?).unwrap_or(0);
            work.load(Loaded::Count(status, count));
        }
    }
    Ok(())
}

async fn documents(conn: &Conn, work: &mut Work, wanted: BTreeSet<(Kind, String)>) -> Result<(), Fault> {
    if wanted.is_empty() {
        return Ok(());
    }
    const READ: &str = "SELECT kind, id, data FROM document
        WHERE (kind, id) IN (SELECT * FROM unnest($1::text[], $2::bytea[])) ORDER BY kind, id FOR UPDATE";
    let kinds: Vec<&str> = wanted.iter().map(|(kind, _)| kind.name()).collect();
    let ids = bytes(wanted.iter().map(|(_, id)| id));
    for row in conn.rows(READ, &[&kinds, &ids]).await? {
        if let Some(kind) = Kind::parse(row.try_get(0)?) {
            work.load(Loaded::Document(kind, text(&row, 1)?, Some(parse(row.try_get(2)?, "a document")?)));
        }
    }
    for (kind, id) in wanted {
        work.load(Loaded::Document(kind, id, None));
    }
    Ok(())
}

async fn deployments(conn: &Conn, work: &mut Work, wanted: BTreeSet<String>) -> Result<(), Fault> {
    if wanted.is_empty() {
        return Ok(());
    }
    const READ: &str = "SELECT seq, data FROM deployment WHERE id = ANY($1) ORDER BY seq FOR UPDATE";
    for row in conn.rows(READ, &[&bytes(&wanted)]).await? {
        let deployment = read::deployment(&row)?;
        work.load(Loaded::Deployment(deployment.id.clone(), Some(deployment)));
    }
    for id in wanted {
        work.load(Loaded::Deployment(id, None));
    }
    Ok(())
}

async fn members(conn: &Conn, work: &mut Work, wanted: BTreeSet<String>) -> Result<(), Fault> {
    if wanted.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = wanted.iter().cloned().collect();
    for (id, members) in read::members(conn, &ids).await? {
        work.load(Loaded::Members(id, Some(Arc::new(members))));
    }
    for id in wanted {
        work.load(Loaded::Members(id, None));
    }
    Ok(())
}

async fn devices(
    conn: &Conn,
    work: &mut Work,
    wanted: BTreeSet<String>,
    inventories: BTreeSet<String>,
) -> Result<(), Fault> {
    if wanted.is_empty() && inventories.is_empty() {
        return Ok(());
    }
    // Who changes an inventory has the lock of its device.
    const LOCK: &str = "SELECT num, active, data FROM device WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    const INVENTORY: &str = "SELECT num, data FROM inventory WHERE num = ANY($1)";
    let mut numbers = BTreeMap::new();
    for row in conn.rows(LOCK, &[&bytes(wanted.union(&inventories))]).await? {
        let device = read::device(&row)?;
        if inventories.contains(&device.id) {
            numbers.insert(device.number.signed(), device.id.clone());
        }
        work.load(Loaded::Device(device.id.clone(), Some(device)));
    }
    for id in wanted {
        work.load(Loaded::Device(id, None));
    }
    if !numbers.is_empty() {
        let asked: Vec<i32> = numbers.keys().copied().collect();
        for row in conn.rows(INVENTORY, &[&asked]).await? {
            if let Some(id) = numbers.get(&row.try_get(0)?) {
                work.load(Loaded::Inventory(id.clone(), Some(parse(row.try_get(1)?, "an inventory")?)));
            }
        }
    }
    for id in inventories {
        work.load(Loaded::Inventory(id, None));
    }
    Ok(())
}

/// Not locked: whoever goes on with the device that is found has its lock then, and two that both find nobody cannot both
/// make one.
async fn names(
    conn: &Conn,
    work: &mut Work,
    identities: BTreeSet<String>,
    sets: BTreeSet<String>,
) -> Result<(), Fault> {
    const IDENTITY: &str = "SELECT sha, id FROM device WHERE sha = ANY($1)";
    const SET: &str = "SELECT a.id, d.id FROM authset a JOIN device d ON d.num = a.num WHERE a.id = ANY($1)";
    if !identities.is_empty() {
        for row in conn.rows(IDENTITY, &[&bytes(&identities)]).await? {
            work.load(Loaded::Identity(text(&row, 0)?, Some(text(&row, 1)?)));
        }
    }
    if !sets.is_empty() {
        for row in conn.rows(SET, &[&bytes(&sets)]).await? {
            work.load(Loaded::AuthSet(text(&row, 0)?, Some(text(&row, 1)?)));
        }
    }
    for sha in identities {
        work.load(Loaded::Identity(sha, None));
    }
    for set in sets {
        work.load(Loaded::AuthSet(set, None));
    }
    Ok(())
}

async fn records(conn: &Conn, work: &mut Work, wanted: BTreeSet<(String, String)>) -> Result<(), Fault> {
    if wanted.is_empty() {
        return Ok(());
    }
    const READ: &str = "SELECT status, finished, log, data FROM record
        WHERE (dep, dev) IN (SELECT * FROM unnest($1::bytea[], $2::bytea[])) ORDER BY dep, dev FOR UPDATE";
    let deployments = bytes(wanted.iter().map(|(deployment, _)| deployment));
    let devices = bytes(wanted.iter().map(|(_, device)| device));
    for row in conn.rows(READ, &[&deployments, &devices]).await? {
        let record = read::record(&row)?;
        work.load(Loaded::Record(record.deployment.clone(), record.device.clone(), Some(record)));
    }
    for (deployment, device) in wanted {
        work.load(Loaded::Record(deployment, device, None));
    }
    Ok(())
}
