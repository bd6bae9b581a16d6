//! Attributes that are searched and sorted by ("hot"), as rows.
//!
//! ```text
//! pos 0      every device has one, also without a value: kind, n, txt and rest are its place in an order
//! pos 1..    the values of a list
//! val        the JSON of a value, or a digest of a long one: whether two are equal
//! typ        what a test sees: 0 no single value, 1 truth value, 2 number, 3 text, 4 something else
//! ```
//!
//! An attribute becomes hot when it is first asked for. From the moment at which its name is in `hot`, every transaction
//! keeps its rows; then the devices that were there before are gone through, and then it is `ready`.

use serde_json::Value;

use super::connect::{Conn, Fault, Params};
use super::number::{Signed as _, Unsigned as _};
use super::read::parse;
use crate::domain::id::sha256;
use crate::work::query::{Attr, DeviceView, Place, Scope, place};

/// Bytes of a text that are in an index.
const INDEXED: usize = 256;
/// Longest name of a hot attribute.
const NAME: usize = 512;
/// Hot attributes at most: each is written with each device.
const HOT: i64 = 64;
/// Devices in one transaction while an attribute becomes hot.
const PIECE: i32 = 10_000;

/// A hot attribute.
#[derive(Debug, Clone)]
pub(super) struct Hot {
    pub(super) key: i32,
    pub(super) scope: Scope,
    pub(super) name: String,
    pub(super) ready: bool,
}

/// Rows of values, column by column.
#[derive(Default)]
pub(super) struct Rows {
    key: Vec<i32>,
    num: Vec<i32>,
    pos: Vec<i32>,
    kind: Vec<i16>,
    typ: Vec<i16>,
    val: Vec<Option<Vec<u8>>>,
    n: Vec<f64>,
    txt: Vec<Vec<u8>>,
    rest: Vec<Vec<u8>>,
    id: Vec<Vec<u8>>,
}

/// What equal values have in common.
pub(super) fn equal(value: &Value) -> Vec<u8> {
    // Values are strings, numbers, truth values and lists of them: they always become JSON.
    let json = serde_json::to_vec(value).unwrap_or_default();
    if json.len() <= INDEXED {
        return json;
    }
    // No JSON begins so.
    let mut short = vec![0xff];
    short.extend(sha256(&json));
    short
}

/// A text as its first bytes, which have an index, and what follows.
pub(super) fn split(text: &str) -> (Vec<u8>, Vec<u8>) {
    let (first, rest) = text.as_bytes().split_at(text.len().min(INDEXED));
    (first.to_vec(), rest.to_vec())
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_empty()
    }

    /// The rows of a device's value.
    pub(super) fn add(&mut self, key: i32, num: u32, id: &str, value: Option<&Value>) {
        let is_list = matches!(value, Some(Value::Array(_)));
        self.one(key, num, 0, id, value, if is_list { 0 } else { kind(value) });
        if let Some(Value::Array(values)) = value {
            for (at, value) in values.iter().enumerate() {
                let pos = i32::try_from(at).unwrap_or(i32::MAX - 1) + 1;
                self.one(key, num, pos, id, Some(value), kind(Some(value)));
            }
        }
    }

    fn one(&mut self, key: i32, num: u32, pos: i32, id: &str, value: Option<&Value>, typ: i16) {
        let (kind, n, (txt, rest)) = match place(value) {
            Place::Nothing => (0, 0.0, Default::default()),
            Place::Number(number) => (1, number, Default::default()),
            Place::Text(text) => (2, 0.0, split(&text)),
        };
        self.key.push(key);
        self.num.push(num.signed());
        self.pos.push(pos);
        self.kind.push(kind);
        self.typ.push(typ);
        self.val.push(value.map(equal));
        self.n.push(n);
        self.txt.push(txt);
        self.rest.push(rest);
        self.id.push(if pos == 0 { id.as_bytes().to_vec() } else { Vec::new() });
    }

    /// Writes them; those that are there stay.
    pub(super) async fn write(&self, conn: &Conn) -> Result<(), Fault> {
        const INSERT: &str = "INSERT INTO attr (key, num, pos, kind, typ, val, n, txt, rest, id)
            SELECT * FROM unnest($1::int4[], $2::int4[], $3::int4[], $4::int2[], $5::int2[], $6::bytea[], $7::float8[],
                $8::bytea[], $9::bytea[], $10::bytea[]) ON CONFLICT DO NOTHING";
        if self.is_empty() {
            return Ok(());
        }
        conn.run(
            INSERT,
            &[
                &self.key, &self.num, &self.pos, &self.kind, &self.typ, &self.val, &self.n, &self.txt,
                &self.rest, &self.id,
            ],
        )
        .await?;
        Ok(())
    }
}

fn kind(value: Option<&Value>) -> i16 {
    match value {
        None => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::Number(_)) => 2,
        Some(Value::String(_)) => 3,
        Some(Value::Null | Value::Array(_) | Value::Object(_)) => 4,
    }
}

/// The hot attributes. With `keep` nobody makes one until the transaction ends.
pub(super) async fn hot(conn: &Conn, keep: bool) -> Result<Vec<Hot>, Fault> {
    if keep {
        conn.batch("LOCK TABLE hot IN ROW SHARE MODE").await?;
    }
    let rows = conn.rows("SELECT key, scope, name, ready FROM hot", &[]).await?;
    let mut all = Vec::new();
    for row in rows {
        let name = String::from_utf8(row.try_get(2)?).map_err(|_| damaged())?;
        let scope = Scope::parse(row.try_get(1)?).ok_or_else(damaged)?;
        all.push(Hot { key: row.try_get(0)?, scope, name, ready: row.try_get(3)? });
    }
    Ok(all)
}

fn damaged() -> Fault {
    Fault::Damaged("the list of attributes".to_owned())
}

/// Whether an attribute can become hot.
pub(super) fn may_be_hot(attr: &Attr) -> bool {
    // The times of check-ins are in a table of their own, which is written by the thousand.
    !(attr.scope == Some(Scope::System) && attr.name == "check_in_time") && attr.name.len() <= NAME
}

/// Makes an attribute hot. Another process that does so already is left to it.
pub(super) async fn heat(conn: &Conn, scope: Scope, name: &str) -> Result<(), Fault> {
    let bytes = name.as_bytes();
    // Batches hold a lock that this one waits for: those that come later write the rows of this attribute.
    conn.batch("BEGIN; LOCK TABLE hot IN EXCLUSIVE MODE").await?;
    let known =
        conn.row("SELECT key FROM hot WHERE scope = $1 AND name = $2", &[&scope.name(), &bytes]).await?;
    let key: i32 = match known {
        Some(row) => row.try_get(0)?,
        None => {
            let full = conn.row("SELECT count(*) FROM hot", &[]).await?;
            if full.map_or(Ok(0), |row| row.try_get::<_, i64>(0))? >= HOT {
                // The one that nobody has asked for the longest makes room, if that is long.
                const OLDEST: &str = "DELETE FROM hot WHERE key = (SELECT key FROM hot
                    WHERE used < now() - interval '14 days' ORDER BY used LIMIT 1) RETURNING key";
                let Some(row) = conn.row(OLDEST, &[]).await? else { return conn.batch("ROLLBACK").await };
                let old: i32 = row.try_get(0)?;
                conn.run("DELETE FROM attr WHERE key = $1", &[&old]).await?;
            }
            const INSERT: &str = "INSERT INTO hot (scope, name) VALUES ($1, $2) RETURNING key";
            let row = conn.row(INSERT, &[&scope.name(), &bytes]).await?;
            row.ok_or_else(damaged)?.try_get(0)?
        }
    };
    conn.batch("COMMIT").await?;
    let lock = i64::from(key) + 7_214_420_200_000;
    let free = conn.row("SELECT pg_try_advisory_lock($1)", &[&lock]).await?;
    if !free.is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(());
    }
    let filled = fill(conn, Hot { key, scope, name: name.to_owned(), ready: false }).await;
    conn.run("SELECT pg_advisory_unlock($1)", &[&lock]).await?;
    filled
}

async fn fill(conn: &Conn, hot: Hot) -> Result<(), Fault> {
    // Locks each device: what changes it waits, and then writes its own rows.
    const NEXT: &str = "SELECT num, data FROM device WHERE num > $1 ORDER BY num LIMIT $2 FOR SHARE";
    let attr = Attr { scope: Some(hot.scope), name: hot.name.clone() };
    let mut last = 0_i32;
    loop {
        conn.batch("BEGIN").await?;
        let rows = conn.rows(NEXT, &[&last, &i64::from(PIECE)]).await?;
        // Read after the locks are there, so that none is older than its device.
        let nums: Vec<i32> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let Some(newest) = nums.last().copied() else {
            const READY: &str = "UPDATE hot SET ready = true WHERE key = $1";
            conn.run(READY, &[&hot.key]).await?;
            return conn.batch("COMMIT; ANALYZE attr").await;
        };
        let mut inventories = std::collections::HashMap::new();
        if hot.scope == Scope::Inventory {
            for row in conn.rows("SELECT num, data FROM inventory WHERE num = ANY($1)", &[&nums]).await? {
                let num: i32 = row.try_get(0)?;
                inventories.insert(num, parse(row.try_get(1)?, "an inventory")?);
            }
        }
        let mut values = Rows::default();
        for row in &rows {
            let num: i32 = row.try_get(0)?;
            let device: crate::model::Device = parse(row.try_get(1)?, "a device")?;
            let inventory = inventories.remove(&num).unwrap_or_default();
            let view = DeviceView { device, inventory, check_in: None };
            values.add(hot.key, num.unsigned(), &view.device.id, view.value(&attr).as_ref());
        }
        values.write(conn).await?;
        conn.batch("COMMIT").await?;
        last = newest;
    }
}

/// Notes that attributes were asked for.
pub(super) async fn used(conn: &Conn, keys: &[i32]) -> Result<(), Fault> {
    const USED: &str = "UPDATE hot SET used = now() WHERE key = ANY($1) AND used < now() - interval '1 day'";
    conn.run(USED, &[&keys]).await?;
    Ok(())
}

/// Which devices have a value of a text that a pattern matches.
pub(super) async fn matching(
    conn: &Conn,
    key: i32,
    matches: impl Fn(&str) -> bool,
) -> Result<roaring::RoaringBitmap, Fault> {
    let mut params = Params::default();
    let key = params.bind(key, tokio_postgres::types::Type::INT4);
    let mut found = roaring::RoaringBitmap::new();
    let sql = format!("SELECT num, txt, rest FROM attr WHERE key = {key} AND typ = 3");
    conn.each(&sql, &params, |row| {
        let (num, text, rest): (i32, &[u8], &[u8]) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let wanted = if rest.is_empty() {
            std::str::from_utf8(text).is_ok_and(&matches)
        } else {
            String::from_utf8([text, rest].concat()).is_ok_and(|text| matches(&text))
        };
        if wanted {
            found.insert(num.unsigned());
        }
        Ok(())
    })
    .await?;
    Ok(found)
}
