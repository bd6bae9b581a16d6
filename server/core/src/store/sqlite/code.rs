//! How records are written in a row: compact, and exactly what was put in comes out again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, ToSqlOutput, ValueRef};
use serde_json::{Map, Number, Value};

use crate::model::time::Timestamp;
use crate::model::{Attribute, AuthSet, AuthStatus, Device, Inventory, Status, Tag};

/// An id or a digest as a value of SQL: digits that stand for 16 or 32 bytes are those bytes, everything else is text.
pub(super) struct Id<'a>(pub(super) &'a str);

impl ToSql for Id<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match packed(self.0) {
            Some(bytes) => ToSqlOutput::from(bytes),
            None => ToSqlOutput::from(self.0),
        })
    }
}

/// The id that a row has.
pub(super) fn id_of(value: ValueRef<'_>) -> Result<String, FromSqlError> {
    match value {
        ValueRef::Blob(bytes) => Ok(unpacked(bytes)),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => {
            Ok(value.as_str()?.to_owned())
        }
    }
}

/// The same as a value of its own.
pub(super) fn id_value(id: &str) -> rusqlite::types::Value {
    match packed(id) {
        Some(bytes) => bytes.into(),
        None => id.to_owned().into(),
    }
}

fn packed(text: &str) -> Option<Vec<u8>> {
    let is_uuid = text.len() == 36;
    if !(is_uuid || text.len() == 64) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for (at, byte) in text.bytes().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'-' if is_uuid && matches!(at, 8 | 13 | 18 | 23) => continue,
            _ => return None,
        };
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    // A dash that is missing is a digit too many.
    (bytes.len() == if is_uuid { 16 } else { 32 } && high.is_none()).then_some(bytes)
}

pub(super) fn unpacked(bytes: &[u8]) -> String {
    let hex = crate::domain::id::hex(bytes);
    if bytes.len() != 16 {
        return hex;
    }
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

// ---- bytes ----

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_optional(out: &mut Vec<u8>, text: Option<&String>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_text(out, text);
        }
    }
}

/// Reads from bytes; each answer is `None` when they are not what was written.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Bytes behind their number.
    pub(super) fn part(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.part()?.to_vec()).ok()
    }

    fn optional(&mut self) -> Option<Option<String>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(self.text()?)),
            _ => None,
        }
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp)
    }
}

// ---- values ----

/// Values as bytes, and not as JSON: a number that goes through text may come back another one.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0),
        Value::Bool(false) => out.push(1),
        Value::Bool(true) => out.push(2),
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                out.push(3);
                put_number(out, number);
            } else if let Some(number) = number.as_i64() {
                out.push(4);
                put_number(out, number.unsigned_abs());
            } else {
                out.push(5);
                out.extend_from_slice(&number.as_f64().unwrap_or(0.0).to_bits().to_le_bytes());
            }
        }
        Value::String(text) => {
            out.push(6);
            put_text(out, text);
        }
        Value::Array(values) => {
            out.push(7);
            put_number(out, values.len() as u64);
            values.iter().for_each(|value| put_value(out, value));
        }
        Value::Object(members) => {
            out.push(8);
            put_number(out, members.len() as u64);
            for (name, value) in members {
                put_text(out, name);
                put_value(out, value);
            }
        }
    }
}

fn value(bytes: &mut Bytes<'_>) -> Option<Value> {
    Some(match bytes.byte()? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::from(bytes.number()?),
        4 => Value::from(0i64.checked_sub_unsigned(bytes.number()?)?),
        5 => {
            let bits = u64::from_le_bytes(bytes.take(8)?.try_into().ok()?);
            Value::Number(Number::from_f64(f64::from_bits(bits))?)
        }
        6 => Value::String(bytes.text()?),
        7 => {
            let count = bytes.number()?;
            Value::Array((0..count).map(|_| value(bytes)).collect::<Option<_>>()?)
        }
        8 => {
            let count = bytes.number()?;
            let members = (0..count).map(|_| Some((bytes.text()?, value(bytes)?)));
            Value::Object(members.collect::<Option<Map<_, _>>>()?)
        }
        _ => return None,
    })
}

/// A value as bytes whose order is that of [`crate::work::query::place`]: values with the same place begin with the same
/// [`place_of`], and what follows tells them apart.
///
/// ```text
/// 0 value                     nothing, an object, an empty list
/// 1 8 bytes  i | f | b ...    a number or a truth value
/// 2 text 0                    text; a byte 0 in it is 0 255
/// .. [ value                  a list, behind the place of its first value
/// ```
pub(super) fn key(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_place(&mut out, value);
    match value {
        Value::Null | Value::Object(_) => put_value(&mut out, value),
        Value::Array(_) => {
            out.push(b'[');
            put_value(&mut out, value);
        }
        Value::Bool(_) => out.push(b'b'),
        Value::Number(number) if number.is_f64() => out.push(b'f'),
        Value::Number(_) => {
            out.push(b'i');
            put_value(&mut out, value);
        }
        Value::String(_) => {}
    }
    out
}

fn put_place(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null | Value::Object(_) => out.push(0),
        Value::Bool(yes) => put_place_of_number(out, f64::from(u8::from(*yes))),
        Value::Number(number) => put_place_of_number(out, number.as_f64().unwrap_or(0.0)),
        Value::String(text) => put_place_of_text(out, text, true),
        Value::Array(values) => match values.first() {
            Some(first) => put_place(out, first),
            None => out.push(0),
        },
    }
}

/// In the order of `f64::total_cmp`.
pub(super) fn put_place_of_number(out: &mut Vec<u8>, number: f64) {
    let bits = number.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(1);
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// `is_all`: of this text, and not of all that begin so.
pub(super) fn put_place_of_text(out: &mut Vec<u8>, text: &str, is_all: bool) {
    out.push(2);
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(255);
        }
    }
    if is_all {
        out.push(0);
    }
}

/// The part of a key that says its place.
pub(super) fn place_of(key: &[u8]) -> &[u8] {
    let length = match key.first() {
        Some(1) => 9,
        Some(2) => {
            let mut at = 1;
            loop {
                match (key.get(at), key.get(at + 1)) {
                    (Some(0), Some(255)) => at += 2,
                    (Some(0) | None, _) => break at + 1,
                    (Some(_), _) => at += 1,
                }
            }
        }
        _ => 1,
    };
    key.get(..length).unwrap_or(key)
}

/// The value of a key.
pub(super) fn value_of(key: &[u8]) -> Option<Value> {
    let place = place_of(key);
    let rest = key.get(place.len()..)?;
    match (place.first()?, rest.split_first()) {
        (_, Some((b'[' | b'i', rest))) => value(&mut Bytes(rest)),
        (0, Some(_)) => value(&mut Bytes(rest)),
        (1, Some((kind, _))) => {
            let ordered = u64::from_be_bytes(place.get(1..)?.try_into().ok()?);
            let bits = if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered };
            let number = f64::from_bits(bits);
            match kind {
                b'b' => Some(Value::Bool(number != 0.0)),
                _ => Some(Value::Number(Number::from_f64(number)?)),
            }
        }
        (2, None) => Some(Value::String(text_of(place)?.into_owned())),
        _ => None,
    }
}

/// The text that a key is of, if it is one.
pub(super) fn text_of(key: &[u8]) -> Option<Cow<'_, str>> {
    let place = place_of(key);
    let (2, rest) = place.split_first().map(|(kind, rest)| (*kind, rest))? else { return None };
    let text = rest.get(..rest.len().checked_sub(1)?)?;
    if !text.contains(&0) {
        return std::str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(*byte);
        if *byte == 0 {
            rest.next();
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Whether the value of a key is a list.
pub(super) fn is_list(key: &[u8]) -> bool {
    key.get(place_of(key).len()) == Some(&b'[')
}

// ---- records ----

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----\n";
const END: &str = "-----END PUBLIC KEY-----\n";

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from(BEGIN);
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(END);
    pem
}

/// A key is written without its base64, which is a third of it, where it can be had back exactly.
fn put_key(out: &mut Vec<u8>, key: &str) {
    let inner = key.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let der = inner.and_then(|inner| STANDARD.decode(inner.replace('\n', "")).ok());
    match der.filter(|der| pem(der) == key) {
        Some(der) => {
            out.push(1);
            put_number(out, der.len() as u64);
            out.extend_from_slice(&der);
        }
        None => {
            out.push(0);
            put_text(out, key);
        }
    }
}

fn public_key(bytes: &mut Bytes<'_>) -> Option<String> {
    match bytes.byte()? {
        0 => bytes.text(),
        1 => Some(pem(bytes.part()?)),
        _ => None,
    }
}

/// An id within a record.
fn put_id(out: &mut Vec<u8>, id: &str) {
    match packed(id).filter(|bytes| bytes.len() == 16) {
        Some(bytes) => {
            out.push(1);
            out.extend_from_slice(&bytes);
        }
        None => {
            out.push(0);
            put_text(out, id);
        }
    }
}

fn id(bytes: &mut Bytes<'_>) -> Option<String> {
    match bytes.byte()? {
        0 => bytes.text(),
        1 => Some(unpacked(bytes.take(16)?)),
        _ => None,
    }
}

/// Every status of authentication, by its number.
pub(super) const AUTH_STATUSES: [AuthStatus; 5] = [
    AuthStatus::Noauth,
    AuthStatus::Rejected,
    AuthStatus::Pending,
    AuthStatus::Preauthorized,
    AuthStatus::Accepted,
];

pub(super) fn auth_status_number(status: AuthStatus) -> u8 {
    match status {
        AuthStatus::Noauth => 0,
        AuthStatus::Rejected => 1,
        AuthStatus::Pending => 2,
        AuthStatus::Preauthorized => 3,
        AuthStatus::Accepted => 4,
    }
}

/// The number of a status in the store; the final ones come last.
pub(super) fn status_number(status: Status) -> u8 {
    match status {
        Status::Pending => 0,
        Status::Downloading => 1,
        Status::PauseBeforeInstalling => 2,
        Status::Installing => 3,
        Status::PauseBeforeRebooting => 4,
        Status::Rebooting => 5,
        Status::PauseBeforeCommitting => 6,
        Status::Success => FINAL,
        Status::Failure => 101,
        Status::Noartifact => 102,
        Status::AlreadyInstalled => 103,
        Status::Aborted => 104,
        Status::Decommissioned => 105,
    }
}

/// The first number of a final status.
pub(super) const FINAL: u8 = 100;

/// The status with this number.
pub(super) fn status_of(number: u8) -> Option<Status> {
    crate::model::STATUSES.into_iter().find(|status| status_number(*status) == number)
}

/// What the row of a device does not have in columns of its own.
pub(super) fn device_data(device: &Device) -> Vec<u8> {
    // Every field is named: one that is new has to be written somewhere.
    let Device {
        id: _,
        identity,
        identity_sha256: _,
        created,
        updated,
        auth_sets,
        group,
        number: _,
        active: _,
        last_finished: _,
        tags,
        monitor,
    } = device;
    let mut out = Vec::with_capacity(256);
    put_number(&mut out, created.0);
    put_number(&mut out, updated.0);
    put_optional(&mut out, group.as_ref());
    put_number(&mut out, auth_sets.len() as u64);
    for set in auth_sets {
        put_id(&mut out, &set.id);
        out.push(auth_status_number(set.status));
        put_number(&mut out, set.ts.0);
        put_number(&mut out, set.serial);
        put_key(&mut out, &set.pubkey);
    }
    put_values(&mut out, identity);
    put_values(&mut out, monitor);
    put_number(&mut out, tags.len() as u64);
    for (name, tag) in tags {
        put_text(&mut out, name);
        put_text(&mut out, &tag.value);
        put_optional(&mut out, tag.description.as_ref());
    }
    out
}

fn put_values(out: &mut Vec<u8>, values: &BTreeMap<String, Value>) {
    put_number(out, values.len() as u64);
    for (name, value) in values {
        put_text(out, name);
        put_value(out, value);
    }
}

fn values(bytes: &mut Bytes<'_>) -> Option<BTreeMap<String, Value>> {
    let count = bytes.number()?;
    (0..count).map(|_| Some((bytes.text()?, value(bytes)?))).collect()
}

/// Puts what [`device_data`] has written into a device.
pub(super) fn read_device(device: &mut Device, data: &[u8]) -> Option<()> {
    let mut bytes = Bytes(data);
    device.created = bytes.time()?;
    device.updated = bytes.time()?;
    device.group = bytes.optional()?;
    for _ in 0..bytes.number()? {
        device.auth_sets.push(AuthSet {
            id: id(&mut bytes)?,
            status: *AUTH_STATUSES.get(usize::from(bytes.byte()?))?,
            ts: bytes.time()?,
            serial: bytes.number()?,
            pubkey: public_key(&mut bytes)?,
        });
    }
    device.identity = values(&mut bytes)?;
    device.monitor = values(&mut bytes)?;
    for _ in 0..bytes.number()? {
        let name = bytes.text()?;
        let tag = Tag { value: bytes.text()?, description: bytes.optional()? };
        device.tags.insert(name, tag);
    }
    Some(())
}

const HAS_DESCRIPTION: u8 = 1;
const HAS_TIME: u8 = 2;

/// An inventory, with numbers for the names of its attributes.
pub(super) fn inventory_data<E>(
    inventory: &Inventory,
    mut number: impl FnMut(&str) -> Result<u64, E>,
) -> Result<Vec<u8>, E> {
    let mut out = Vec::with_capacity(512);
    put_number(&mut out, inventory.updated.map_or(0, |time| time.0.saturating_add(1)));
    put_number(&mut out, inventory.attributes.len() as u64);
    for (name, attribute) in &inventory.attributes {
        put_number(&mut out, number(name)?);
        // Most attributes were reported when all were.
        let has_time = inventory.updated != Some(attribute.timestamp);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(flag(attribute.description.is_some(), HAS_DESCRIPTION) | flag(has_time, HAS_TIME));
        put_value(&mut out, &attribute.value);
        if let Some(description) = &attribute.description {
            put_text(&mut out, description);
        }
        if has_time {
            put_number(&mut out, attribute.timestamp.0);
        }
    }
    Ok(out)
}

/// Reads what [`inventory_data`] has written.
pub(super) fn read_inventory<E>(
    data: &[u8],
    mut name: impl FnMut(u64) -> Result<String, E>,
) -> Result<Option<Inventory>, E> {
    let mut bytes = Bytes(data);
    let mut inventory = Inventory::default();
    let (Some(updated), Some(count)) = (bytes.number(), bytes.number()) else { return Ok(None) };
    inventory.updated = updated.checked_sub(1).map(Timestamp);
    for _ in 0..count {
        let Some(number) = bytes.number() else { return Ok(None) };
        let name = name(number)?;
        let Some(attribute) = attribute(&mut bytes, &name, inventory.updated) else { return Ok(None) };
        inventory.attributes.insert(name, attribute);
    }
    Ok(Some(inventory))
}

fn attribute(bytes: &mut Bytes<'_>, name: &str, updated: Option<Timestamp>) -> Option<Attribute> {
    let flags = bytes.byte()?;
    let value = value(bytes)?;
    let description = if flags & HAS_DESCRIPTION != 0 { Some(bytes.text()?) } else { None };
    let timestamp = if flags & HAS_TIME != 0 { bytes.time()? } else { updated? };
    Some(Attribute { name: name.to_owned(), value, description, timestamp })
}

// ---- sets of devices ----

/// Devices of one row of an index or a list.
pub(super) const CHUNK: u32 = 4096;
const WORDS: usize = CHUNK as usize / 64;

/// Some of [`CHUNK`] devices: as 2 bytes each, or as a bit each, whichever is shorter.
pub(super) struct Chunk(pub(super) [u64; WORDS]);

impl Chunk {
    pub(super) fn empty() -> Chunk {
        Chunk([0; WORDS])
    }

    /// Reads one.
    pub(super) fn read(bytes: &[u8]) -> Chunk {
        let mut chunk = Chunk::empty();
        if bytes.len() == WORDS * 8 {
            for (word, bytes) in chunk.0.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
            }
        } else {
            for pair in bytes.chunks_exact(2) {
                chunk.set(u16::from_le_bytes(pair.try_into().unwrap_or_default()), true);
            }
        }
        chunk
    }

    /// Whether a device is in one as a row has it.
    pub(super) fn contains(bytes: &[u8], low: u16) -> bool {
        if bytes.len() == WORDS * 8 {
            return bytes.get(usize::from(low / 8)).is_some_and(|byte| byte >> (low % 8) & 1 == 1);
        }
        bytes.chunks_exact(2).any(|pair| pair == low.to_le_bytes())
    }

    /// Each device in one as a row has it.
    pub(super) fn each(bytes: &[u8], mut each: impl FnMut(u16)) {
        if bytes.len() == WORDS * 8 {
            Chunk::read(bytes).iter().for_each(each);
        } else {
            for pair in bytes.chunks_exact(2) {
                each(u16::from_le_bytes(pair.try_into().unwrap_or_default()));
            }
        }
    }

    /// Puts a device in or takes it out.
    pub(super) fn set(&mut self, low: u16, is_in: bool) {
        let bit = 1u64 << (low % 64);
        if let Some(word) = self.0.get_mut(usize::from(low / 64)) {
            if is_in {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// How many.
    pub(super) fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Their places in the chunk, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().zip(0u16..).flat_map(|(word, at)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
                rest &= rest - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// As a row has it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        if self.len() as usize * 2 < WORDS * 8 {
            self.iter().flat_map(u16::to_le_bytes).collect()
        } else {
            self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use serde_json::{Value, json};

    use super::*;
    use crate::work::query::place;

    #[test]
    fn ids_come_back_as_they_were() {
        for text in [
            "",
            "device",
            "0123abcd-0123-4567-89ab-0123456789ab",
            "0123ABCD-0123-4567-89ab-0123456789ab",
            "0123abcd0123-4567-89ab-0123456789ab0",
            "0123abcd-0123-4567-89ab-0123456789a",
            &"ab".repeat(32),
            &"aB".repeat(32),
        ] {
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            let read = connection.query_row("SELECT ?1", [Id(text)], |row| Ok(id_of(row.get_ref(0)?)?));
            assert_eq!(read.unwrap(), text);
        }
    }

    #[test]
    fn the_order_of_keys_is_that_of_places_and_a_key_has_its_value() {
        let values = [
            json!(null),
            json!({}),
            json!({"a": [1.5, {"b": null}]}),
            json!([]),
            json!([[]]),
            json!(false),
            json!(true),
            json!(0),
            json!(-0.0),
            json!(0.1 + 0.2),
            json!(1),
            json!(1.0),
            json!(-7),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(u64::MAX - 1),
            json!(1e300),
            json!([1, "a"]),
            json!([true]),
            json!(""),
            json!("\0"),
            json!("\0\0"),
            json!("a"),
            json!("a\0"),
            json!("a\0b"),
            json!("a\u{1}"),
            json!("ab"),
            json!("b"),
            json!("é"),
            json!(["a"]),
            json!(["a", "b"]),
            json!([["a"], 1]),
        ];
        for one in &values {
            let key = key(one);
            assert_eq!(value_of(&key).as_ref(), Some(one), "{key:?}");
            assert_eq!(is_list(&key), one.is_array(), "{one}");
            for other in &values {
                let by_place = place(Some(one)).compare(&place(Some(other)));
                let other_key = super::key(other);
                assert_eq!(place_of(&key).cmp(place_of(&other_key)), by_place, "{one} {other}");
                if by_place != Ordering::Equal {
                    assert_eq!(key.cmp(&other_key), by_place, "{one} {other}");
                } else {
                    assert_eq!(key == other_key, one == other, "{one} {other}");
                }
            }
        }
    }

    #[test]
    fn records_come_back_as_they_were_and_what_is_cut_off_is_seen() {
        let set = |pubkey: &str| AuthSet {
            id: "0123abcd-0123-4567-89ab-0123456789ab".to_owned(),
            pubkey: pubkey.to_owned(),
            status: AuthStatus::Accepted,
            ts: Timestamp(7),
            serial: 300,
        };
        let mut device = Device {
            id: String::new(),
            identity: BTreeMap::from([("mac".to_owned(), json!("a")), ("n".to_owned(), json!(0.1))]),
            identity_sha256: String::new(),
            created: Timestamp(1),
            updated: Timestamp(u64::MAX),
            auth_sets: vec![set("no key"), set(&pem(&[7; 91])), set(&pem(&[7; 91]).replace('\n', ""))],
            group: Some("g".to_owned()),
            number: 0,
            active: None,
            last_finished: 0,
            tags: BTreeMap::from([("t".to_owned(), Tag { value: "v".to_owned(), description: None })]),
            monitor: BTreeMap::from([("m".to_owned(), json!([true, null]))]),
        };
        let data = device_data(&device);
        let empty = Device {
            auth_sets: Vec::new(),
            identity: BTreeMap::new(),
            tags: BTreeMap::new(),
            monitor: BTreeMap::new(),
            group: None,
            ..device.clone()
        };
        let mut read = empty.clone();
        read_device(&mut read, &data).unwrap();
        assert_eq!(read, device);
        for cut in 0..data.len() {
            assert!(read_device(&mut empty.clone(), &data[..cut]).is_none(), "{cut}");
        }
        device.group = None;
        let mut read = empty;
        read_device(&mut read, &device_data(&device)).unwrap();
        assert_eq!(read, device);

        let attribute = |name: &str, value: Value, time| Attribute {
            name: name.to_owned(),
            value,
            description: (time == 2).then(|| "d".to_owned()),
            timestamp: Timestamp(time),
        };
        let mut inventory = Inventory { attributes: BTreeMap::new(), updated: Some(Timestamp(3)) };
        for (name, value, time) in [("a", json!("x"), 3), ("b", json!(1), 2), ("c", json!(["y"]), 1)] {
            inventory.attributes.insert(name.to_owned(), attribute(name, value, time));
        }
        let number = |name: &str| Ok::<u64, ()>(u64::from(name.as_bytes()[0]));
        let name = |number: u64| Ok::<String, ()>(char::from(number as u8).to_string());
        let data = inventory_data(&inventory, number).unwrap();
        assert_eq!(read_inventory(&data, name), Ok(Some(inventory)));
        for cut in 0..data.len() {
            assert_eq!(read_inventory(&data[..cut], name), Ok(None), "{cut}");
        }
    }

    #[test]
    fn a_chunk_is_as_short_as_can_be_and_comes_back() {
        for (step, length) in [(4095, 4), (100, 82), (17, 482), (16, 512), (1, 512)] {
            let mut chunk = Chunk::empty();
            let lows: Vec<u16> = (0..4096).step_by(step).collect();
            lows.iter().for_each(|low| chunk.set(*low, true));
            let bytes = chunk.bytes();
            assert_eq!(bytes.len(), length, "{step}");
            assert_eq!(Chunk::read(&bytes).iter().collect::<Vec<_>>(), lows);
            let found: Vec<u16> = (0..4096).filter(|low| Chunk::contains(&bytes, *low)).collect();
            assert_eq!(found, lows);
        }
    }
}
