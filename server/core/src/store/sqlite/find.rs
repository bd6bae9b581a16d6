//! Searches and sorts devices. A test of an attribute is a walk over its values, each with the set of devices that have it;
//! a search is what is common to its sets, and an order is a walk over the values again, until the page is full. What a
//! question means is said by [`DeviceView::is_wanted`]; a few devices are asked by that itself.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, PoisonError, RwLock};

use roaring::RoaringBitmap;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};

use super::code::{self, AUTH_STATUSES, CHUNK, Chunk};
use super::columns::Moment;
use super::read::{self, Fault, SEEN};
use super::write::{ALL, Post, SHADOWED, post_of, scope_number};
use super::{Readers, Reading};
use crate::model::time::Timestamp;
use crate::work::query::{
    Attr, Bound, DeviceQuery, DeviceView, Direction, Found, Place, SCOPES, Scope, Test, place,
};

/// So few devices are read and asked themselves.
const FEW: u64 = if cfg!(test) { 1 } else { 300 };
/// So few are sorted by id themselves, and more by a walk over all ids.
const SORTED: usize = if cfg!(test) { 8 } else { 20_000 };
/// So near to an end of a list a page is read without the order of all ids, when that is not known.
const NEAR: usize = 10_000;

// ---- sets ----

/// A set of numbers, a bit each: 125 kB for a million.
#[derive(Debug, Clone, Default)]
struct Bits(Vec<u64>);

const WORDS: usize = CHUNK as usize / 64;

impl Bits {
    fn word(&mut self, at: usize) -> Option<&mut u64> {
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0.get_mut(at)
    }

    fn insert(&mut self, number: u32) {
        if let Some(word) = self.word(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// The devices of a row.
    fn insert_row(&mut self, chunk: u32, devices: &[u8]) {
        if devices.len() < WORDS * 8 {
            for pair in devices.chunks_exact(2) {
                let low = u16::from_le_bytes(pair.try_into().unwrap_or_default());
                self.insert(chunk * CHUNK + u32::from(low));
            }
            return;
        }
        for (at, word) in Chunk::read(devices).0.into_iter().enumerate() {
            if let Some(place) = self.word(chunk as usize * WORDS + at) {
                *place |= word;
            }
        }
    }

    fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn and(&mut self, other: &Bits) {
        self.0.truncate(other.0.len());
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
    }

    fn minus(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    fn or(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().zip((0u32..).step_by(64)).flat_map(|(word, first)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(first + bit)
            })
        })
    }
}

impl FromIterator<u32> for Bits {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Bits {
        let mut bits = Bits::default();
        numbers.into_iter().for_each(|number| bits.insert(number));
        bits
    }
}

// ---- the order of ids ----

/// The ids of all devices, also of some that are gone, by their numbers and in their order: 20 bytes a device. An id is
/// never another one's, so what is here stays right.
#[derive(Default)]
pub(super) struct Index {
    ids: RwLock<Arc<Ids>>,
    /// A page was read without it.
    is_wanted: AtomicBool,
}

#[derive(Default, Clone)]
struct Ids {
    /// By number; 0 for one that is not a UUID or not there.
    uuids: Vec<u128>,
    /// Those that are no UUIDs.
    others: HashMap<u32, String>,
    /// Numbers in the order of ids.
    order: Vec<u32>,
}

impl Ids {
    fn compare(&self, a: u32, b: u32) -> Ordering {
        let uuid = |number: u32| self.uuids.get(number as usize).copied().unwrap_or(0);
        if self.others.is_empty() {
            return uuid(a).cmp(&uuid(b));
        }
        let text = |number: u32| match self.others.get(&number) {
            Some(text) => Cow::Borrowed(text.as_str()),
            None => Cow::Owned(code::unpacked(&uuid(number).to_be_bytes())),
        };
        text(a).cmp(&text(b))
    }

    fn take(&mut self, number: u32, id: ValueRef<'_>) -> Result<(), Fault> {
        let at = number as usize;
        if self.uuids.len() <= at {
            self.uuids.resize(at + 1, 0);
        }
        let uuid = match id {
            ValueRef::Blob(bytes) => bytes.try_into().ok().map(u128::from_be_bytes),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => None,
        };
        match uuid {
            Some(uuid) => {
                if let Some(place) = self.uuids.get_mut(at) {
                    *place = uuid;
                }
            }
            None => {
                self.others.insert(number, code::id_of(id)?);
            }
        }
        self.order.push(number);
        Ok(())
    }
}

impl Index {
    pub(super) fn is_known(&self) -> bool {
        !self.ids.read().unwrap_or_else(PoisonError::into_inner).order.is_empty()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Atomic::Relaxed)
    }

    /// Reads the order of all ids, where that is wanted.
    pub(super) fn prepare(&self, connection: &Connection) -> Result<(), Fault> {
        match self.is_wanted.swap(false, Atomic::Relaxed) {
            true => self.ids(connection).map(|_| ()),
            false => Ok(()),
        }
    }

    /// The ids of all devices that this connection sees.
    fn ids(&self, connection: &Connection) -> Result<Arc<Ids>, Fault> {
        let known = self.ids.read().unwrap_or_else(PoisonError::into_inner).clone();
        let most: Option<u32> =
            connection.prepare_cached("SELECT max(number) FROM device")?.query_row([], |row| row.get(0))?;
        let after = (known.uuids.len() as u32).saturating_sub(1);
        if most.unwrap_or(0) <= after {
            return Ok(known);
        }
        let mut ids = (*known).clone();
        drop(known);
        let old = ids.order.len();
        // The first time in the order of the index, which is nearly that of ids and holds nothing else.
        let sql = match after {
            0 => "SELECT number, id FROM device ORDER BY id",
            _ => "SELECT number, id FROM device WHERE number > ?1 ORDER BY number",
        };
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = if after == 0 { statement.query([])? } else { statement.query([after])? };
        while let Some(row) = rows.next()? {
            ids.take(row.get(0)?, row.get_ref(1)?)?;
        }
        let mut new = ids.order.split_off(old);
        new.sort_by(|a, b| ids.compare(*a, *b));
        let old = std::mem::take(&mut ids.order);
        let mut order = Vec::with_capacity(old.len() + new.len());
        let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
        loop {
            order.extend(match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if ids.compare(*a, *b).is_gt() => new.next(),
                (Some(_), _) => old.next(),
                (None, Some(_)) => new.next(),
            });
        }
        ids.order = order;
        let ids = Arc::new(ids);
        *self.ids.write().unwrap_or_else(PoisonError::into_inner) = ids.clone();
        Ok(ids)
    }
}

// ---- questions ----

/// What devices are sorted by.
#[derive(Debug, Clone)]
enum Key {
    /// The name of the status.
    Status,
    /// An attribute.
    Attr(Attr, Direction),
}

struct Finder<'a> {
    connection: &'a Connection,
    readers: &'a Readers,
    moment: Moment,
}

fn is_server_time(scope: Scope, name: &str) -> bool {
    scope == Scope::System && name == "check_in_time"
}

impl<'a> Finder<'a> {
    fn new(connection: &'a Connection, Reading { readers, moment }: Reading<'a>) -> Finder<'a> {
        Finder { connection, readers, moment }
    }

    /// The scopes in which an attribute is looked for, the last first.
    fn scopes(attr: &Attr) -> Vec<Scope> {
        match attr.scope {
            Some(scope) => vec![scope],
            None => {
                let is_own = matches!(attr.name.as_str(), "status" | "group");
                SCOPES.into_iter().rev().filter(|scope| !(is_own && *scope == Scope::Inventory)).collect()
            }
        }
    }

    fn attribute(&self, scope: Scope, name: &str) -> Result<Option<i64>, Fault> {
        let sql = "SELECT id FROM attribute WHERE scope = ?1 AND name = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row((scope_number(scope), name), |row| row.get(0)).optional()?)
    }

    fn all(&self) -> Result<Bits, Fault> {
        self.rows(ALL)
    }

    /// The devices of all rows.
    fn rows(&self, post: i64) -> Result<Bits, Fault> {
        let mut bits = Bits::default();
        self.walk(post, &[], &[255], &mut bits, |_| true)?;
        Ok(bits)
    }

    /// The devices that have an attribute.
    fn having(&self, scope: Scope, name: &str) -> Result<Bits, Fault> {
        if is_server_time(scope, name) {
            return Ok(self.seen()?.into_iter().map(|(number, _)| number).collect());
        }
        match self.attribute(scope, name)? {
            Some(attribute) => self.rows(post_of(attribute, Post::Any)),
            None => Ok(Bits::default()),
        }
    }

    /// The devices of the rows from a key on and before another one whose value is `wanted`.
    fn walk(
        &self,
        post: i64,
        from: &[u8],
        before: &[u8],
        bits: &mut Bits,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), Fault> {
        let mut last: Option<(Vec<u8>, bool)> = None;
        let mut take = |key: &[u8], chunk: u32, devices: &[u8]| {
            let is_wanted = match &mut last {
                Some((last, is_wanted)) if last == key => *is_wanted,
                Some((last, is_wanted)) => {
                    last.clear();
                    last.extend_from_slice(key);
                    *is_wanted = wanted(key);
                    *is_wanted
                }
                None => {
                    let is_wanted = wanted(key);
                    last = Some((key.to_vec(), is_wanted));
                    is_wanted
                }
            };
            if is_wanted {
                bits.insert_row(chunk, devices);
            }
        };
        if let Some(column) = self.readers.columns.get(post, self.moment) {
            let rows = (column.from(from)..column.len()).map_while(|at| column.row(at));
            rows.take_while(|(key, _, _)| *key < before)
                .for_each(|(key, chunk, devices)| take(key, chunk, devices));
            return Ok(());
        }
        let sql = "SELECT key, chunk, devices FROM post WHERE attribute = ?1 AND key >= ?2 AND key < ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((post, from, before))?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            take(row.get_ref(0)?.as_blob()?, row.get(1)?, row.get_ref(2)?.as_blob()?);
            count += 1;
        }
        self.readers.columns.walked(post, self.moment, count);
        Ok(())
    }

    /// When devices were heard of, of those that there are.
    fn seen(&self) -> Result<Vec<(u32, Timestamp)>, Fault> {
        let all = self.all()?;
        let mut seen = Vec::new();
        let mut statement = self.connection.prepare_cached("SELECT chunk, times FROM seen ORDER BY chunk")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let first = row.get::<_, u32>(0)? * SEEN;
            let times = row.get_ref(1)?.as_blob()?.chunks_exact(8);
            let times = times.map(|bytes| bytes.try_into().map_or(0, u64::from_le_bytes));
            let some = (first..).zip(times).filter(|(number, time)| *time > 0 && all.contains(*number));
            seen.extend(some.map(|(number, time)| (number, Timestamp(time))));
        }
        Ok(seen)
    }

    /// The devices that have a value in this scope for which the test holds.
    fn holding(&self, scope: Scope, name: &str, test: &Test) -> Result<Bits, Fault> {
        if is_server_time(scope, name) {
            let seen = self.seen()?.into_iter();
            return Ok(seen.filter(|(_, time)| time_holds(test, *time)).map(|(number, _)| number).collect());
        }
        let without = |test: Test| {
            let mut bits = self.having(scope, name)?;
            bits.minus(&self.holding(scope, name, &test)?);
            Ok(bits)
        };
        match test {
            Test::NotEqual(value) => return without(Test::Equal(value.clone())),
            Test::NotIn(values) => return without(Test::In(values.clone())),
            Test::Exists(true) => return self.having(scope, name),
            Test::Exists(false) => return Ok(Bits::default()),
            Test::Equal(_)
            | Test::Order(..)
            | Test::In(_)
            | Test::Matches(_)
            | Test::Reads(_)
            | Test::Begins(_) => {}
        }
        let mut bits = Bits::default();
        let Some(attribute) = self.attribute(scope, name)? else { return Ok(bits) };
        for (from, before) in ranges(test) {
            for what in [Post::Value, Post::Item] {
                self.walk(post_of(attribute, what), &from, &before, &mut bits, |key| {
                    key_holds(test, key, what)
                })?;
            }
        }
        Ok(bits)
    }

    /// The devices for which a test of an attribute holds.
    fn test(&self, attr: &Attr, test: &Test) -> Result<Bits, Fault> {
        let mut bits = Bits::default();
        for scope in Self::scopes(attr) {
            bits.or(&self.holding(scope, &attr.name, test)?);
            if attr.scope.is_some() && test.holds(None) {
                let mut others = self.all()?;
                others.minus(&self.having(scope, &attr.name)?);
                bits.or(&others);
            }
        }
        Ok(bits)
    }

    /// The devices with a text in one of their attributes.
    fn text(&self, text: &str) -> Result<Bits, Fault> {
        let sql = "SELECT id FROM attribute WHERE scope IN (?1, ?2, ?3, ?4) OR scope = ?5 AND name = 'group'";
        let number = scope_number;
        let mut statement = self.connection.prepare_cached(sql)?;
        let scopes = (
            number(Scope::Identity),
            number(Scope::Inventory),
            number(Scope::Tags),
            SHADOWED,
            number(Scope::System),
        );
        let attributes: Vec<i64> =
            statement.query_map(scopes, |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut bits = Bits::default();
        for attribute in attributes {
            self.walk(post_of(attribute, Post::Value), &[2], &[3], &mut bits, |key| {
                !code::is_list(key) && code::text_of(key).is_some_and(|value| value.contains(text))
            })?;
        }
        Ok(bits)
    }

    /// The devices that a query is about.
    fn find(&self, query: &DeviceQuery) -> Result<Bits, Fault> {
        let mut bits = if query.ids.is_empty() {
            self.all()?
        } else {
            let numbers = query.ids.iter().map(|id| read::number(self.connection, id));
            numbers.filter_map(Result::transpose).collect::<Result<Bits, Fault>>()?
        };
        let own = |name: &str| Attr {
            scope: Some(if name == "status" { Scope::Identity } else { Scope::System }),
            name: name.to_owned(),
        };
        let mut tests: Vec<(Attr, Test)> = Vec::new();
        if !query.statuses.is_empty() {
            let names = query.statuses.iter().map(|status| json!(status)).collect();
            tests.push((own("status"), Test::In(names)));
        }
        if let Some(group) = &query.group {
            tests.push((own("group"), Test::Equal(json!(group))));
        }
        if let Some(wanted) = query.has_group {
            tests.push((own("group"), Test::Exists(wanted)));
        }
        tests.extend(query.tests.iter().cloned());
        tests.sort_by_key(|(_, test)| is_wide(test));
        for (attr, test) in &tests {
            // Each device is cheaper to ask than all values.
            if is_wide(test) && bits.len() <= FEW {
                return self.asked(bits, query);
            }
            bits.and(&self.test(attr, test)?);
        }
        if !query.text.is_empty() {
            if bits.len() <= FEW {
                return self.asked(bits, query);
            }
            bits.and(&self.text(&query.text)?);
        }
        Ok(bits)
    }

    fn asked(&self, bits: Bits, query: &DeviceQuery) -> Result<Bits, Fault> {
        let views = self.views(bits.iter())?;
        Ok(views.iter().filter(|view| view.is_wanted(query)).map(|view| view.device.number).collect())
    }

    fn views(&self, numbers: impl Iterator<Item = u32>) -> Result<Vec<DeviceView>, Fault> {
        let view = |number| {
            let device = read::device_by_number(self.connection, number)?;
            device.map(|device| read::view(self.connection, &self.readers.names, device)).transpose()
        };
        numbers.filter_map(|number| view(number).transpose()).collect()
    }

    /// A part of a set in an order.
    fn window(&self, bits: &Bits, keys: &[Key], skip: u64, take: u64) -> Result<Vec<u32>, Fault> {
        let all = bits.len();
        let skip = skip.min(all);
        let take = take.min(all - skip);
        if take == 0 {
            return Ok(Vec::new());
        }
        let Some((first, rest)) = keys.split_first() else { return self.by_id(bits, skip, take) };
        if all <= FEW {
            let mut views = self.views(bits.iter())?;
            views.sort_by(|a, b| compare(keys, a, b));
            let page = views.into_iter().skip(skip as usize).take(take as usize);
            return Ok(page.map(|view| view.device.number).collect());
        }
        let mut window = Window {
            finder: self,
            rest,
            skip,
            end: skip + take,
            // From the nearer end.
            is_backwards: skip + take / 2 > all / 2,
            at: 0,
            pieces: Vec::new(),
        };
        window.at = if window.is_backwards { all } else { 0 };
        match first {
            Key::Status => {
                let mut statuses = AUTH_STATUSES.to_vec();
                statuses.sort_by_key(|status| status.name());
                if window.is_backwards {
                    statuses.reverse();
                }
                for status in statuses {
                    let mut some = self.holding(Scope::Identity, "status", &Test::Equal(json!(status)))?;
                    some.and(bits);
                    if window.group(&mut some.iter().collect())? {
                        break;
                    }
                }
            }
            Key::Attr(attr, direction) => {
                let is_rising = (*direction == Direction::Ascending) != window.is_backwards;
                if Self::scopes(attr).iter().any(|scope| is_server_time(*scope, &attr.name)) {
                    self.walk_times(bits, attr, is_rising, &mut window)?;
                } else {
                    self.walk_values(bits, attr, is_rising, &mut window)?;
                }
            }
        }
        if window.is_backwards {
            window.pieces.reverse();
        }
        Ok(window.pieces.concat())
    }

    fn by_id(&self, bits: &Bits, skip: u64, take: u64) -> Result<Vec<u32>, Fault> {
        let (skip, take) = (skip as usize, take as usize);
        let all = bits.len() as usize;
        if let Some(page) = self.near_an_end(bits, skip, take)? {
            return Ok(page);
        }
        let ids = self.readers.index.ids(self.connection)?;
        if all <= SORTED {
            let mut numbers: Vec<u32> = bits.iter().collect();
            numbers.sort_by(|a, b| ids.compare(*a, *b));
            return Ok(numbers.into_iter().skip(skip).take(take).collect());
        }
        let is_in = |number: &u32| bits.contains(*number);
        if skip > all / 2 {
            let last = ids.order.iter().rev().copied().filter(is_in).skip(all - skip - take).take(take);
            let mut last: Vec<u32> = last.collect();
            last.reverse();
            return Ok(last);
        }
        Ok(ids.order.iter().copied().filter(is_in).skip(skip).take(take).collect())
    }

    /// A page near an end of a list in the order of ids, when that order is not in memory yet: after a start a person does
    /// not wait for it.
    fn near_an_end(&self, bits: &Bits, skip: usize, take: usize) -> Result<Option<Vec<u32>>, Fault> {
        let all = bits.len() as usize;
        let behind = all.saturating_sub(skip + take);
        if all <= SORTED || skip.min(behind) > NEAR || self.readers.index.is_known() {
            return Ok(None);
        }
        // A text comes before all others here, and not where it is to be.
        let sql = "SELECT typeof(id) = 'blob' FROM device ORDER BY id LIMIT 1";
        if !self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))? {
            return Ok(None);
        }
        let is_backwards = behind < skip;
        let (skip, order) = if is_backwards { (behind, "DESC") } else { (skip, "") };
        let sql = format!("SELECT number FROM device ORDER BY id {order}");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let numbers = statement.query_map([], |row| row.get::<_, u32>(0))?;
        let is_in =
            |number: &rusqlite::Result<u32>| number.as_ref().map_or(true, |number| bits.contains(*number));
        let mut page: Vec<u32> = numbers.filter(is_in).skip(skip).take(take).collect::<Result<_, _>>()?;
        if is_backwards {
            page.reverse();
        }
        self.readers.index.is_wanted.store(true, Atomic::Relaxed);
        Ok(Some(page))
    }

    /// Devices by the values of an attribute. One that has it in several scopes has the place of the last.
    fn walk_values(
        &self,
        bits: &Bits,
        attr: &Attr,
        is_rising: bool,
        window: &mut Window<'_, '_>,
    ) -> Result<(), Fault> {
        let mut sources: Vec<(i64, Option<Bits>)> = Vec::new();
        let mut with = Bits::default();
        for scope in Self::scopes(attr) {
            let Some(attribute) = self.attribute(scope, &attr.name)? else { continue };
            let own = (!sources.is_empty()).then(|| {
                let mut left = bits.clone();
                left.minus(&with);
                left
            });
            sources.push((post_of(attribute, Post::Value), own));
            with.or(&self.rows(post_of(attribute, Post::Any))?);
        }
        let mut without = bits.clone();
        without.minus(&with);
        let mut members: Vec<u32> = Vec::new();
        let mut last: Vec<u8> = vec![0];
        if is_rising {
            members.extend(without.iter());
        }
        // Takes a row; whether the page is full.
        let mut take = |key: &[u8], chunk: u32, devices: &[u8], bits: &Bits| {
            let place = code::place_of(key);
            if place != last {
                if window.group(&mut members)? {
                    return Ok::<bool, Fault>(true);
                }
                last.clear();
                last.extend_from_slice(place);
            }
            let first = chunk * CHUNK;
            Chunk::each(devices, |low| {
                let number = first + u32::from(low);
                if bits.contains(number) {
                    members.push(number);
                }
            });
            Ok(false)
        };
        let only = if let [(post, _)] = sources.as_slice() { Some(*post) } else { None };
        if let Some(column) = only.and_then(|post| self.readers.columns.get(post, self.moment)) {
            for at in 0..column.len() {
                let at = if is_rising { at } else { column.len() - 1 - at };
                let Some((key, chunk, devices)) = column.row(at) else { break };
                if take(key, chunk, devices, bits)? {
                    return Ok(());
                }
            }
        } else if !sources.is_empty() {
            let order = if is_rising { "" } else { "DESC" };
            let parts: Vec<String> = sources
                .iter()
                .enumerate()
                .map(|(at, (post, _))| {
                    format!("SELECT key, chunk, devices, {at} FROM post WHERE attribute = {post}")
                })
                .collect();
            let sql = format!("{} ORDER BY key {order}", parts.join(" UNION ALL "));
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let (mut count, mut is_full) = (0, false);
            while let Some(row) = rows.next()?.filter(|_| !is_full) {
                let own = sources.get(row.get::<_, u32>(3)? as usize).and_then(|(_, own)| own.as_ref());
                let (key, devices) = (row.get_ref(0)?.as_blob()?, row.get_ref(2)?.as_blob()?);
                is_full = take(key, row.get(1)?, devices, own.unwrap_or(bits))?;
                count += 1;
            }
            if let Some(post) = only {
                self.readers.columns.walked(post, self.moment, count);
            }
            if is_full {
                return Ok(());
            }
        }
        if !is_rising {
            if last != [0] && window.group(&mut members)? {
                return Ok(());
            }
            members.extend(without.iter());
        }
        window.group(&mut members).map(|_| ())
    }

    /// Devices by when they were heard of.
    fn walk_times(
        &self,
        bits: &Bits,
        attr: &Attr,
        is_rising: bool,
        window: &mut Window<'_, '_>,
    ) -> Result<(), Fault> {
        let mut sorted: Vec<(Place, u32)> = Vec::new();
        let others = Self::scopes(attr).into_iter().filter(|scope| !is_server_time(*scope, &attr.name));
        let mut is_elsewhere = false;
        for scope in others {
            is_elsewhere |= self.attribute(scope, &attr.name)?.is_some();
        }
        if is_elsewhere {
            // Somebody reports what has the name of the server's: each is asked.
            for view in self.views(bits.iter())? {
                sorted.push((place(view.value(attr).as_ref()), view.device.number));
            }
        } else {
            let mut without = bits.clone();
            let mut times = self.seen()?;
            times.retain(|(number, _)| bits.contains(*number));
            without.minus(&times.iter().map(|(number, _)| *number).collect());
            sorted.extend(without.iter().map(|number| (Place::Nothing, number)));
            // Exact: they have fewer bits than a float.
            sorted.extend(times.into_iter().map(|(number, time)| (Place::Number(time.0 as f64), number)));
        }
        sorted.sort_by(|a, b| a.0.compare(&b.0));
        if !is_rising {
            sorted.reverse();
        }
        for group in sorted.chunk_by(|a, b| a.0 == b.0) {
            if window.group(&mut group.iter().map(|(_, number)| *number).collect())? {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// A page that is being filled, by one group of equal devices after the other.
struct Window<'a, 'b> {
    finder: &'a Finder<'b>,
    /// What equal devices are sorted by.
    rest: &'a [Key],
    skip: u64,
    end: u64,
    is_backwards: bool,
    /// How many come before the groups that are to come; when it goes backwards, with them.
    at: u64,
    pieces: Vec<Vec<u32>>,
}

impl Window<'_, '_> {
    /// Takes the next group, and empties it. Whether the page is full.
    fn group(&mut self, members: &mut Vec<u32>) -> Result<bool, Fault> {
        let count = members.len() as u64;
        let (low, high) = match self.is_backwards {
            true => (self.at.saturating_sub(count), self.at),
            false => (self.at, self.at + count),
        };
        let (from, to) = (self.skip.max(low), self.end.min(high));
        if from < to {
            let piece = match members.as_slice() {
                [only] => vec![*only],
                many => {
                    let many: Bits = many.iter().copied().collect();
                    self.finder.window(&many, self.rest, from - low, to - from)?
                }
            };
            self.pieces.push(piece);
        }
        members.clear();
        self.at = if self.is_backwards { low } else { high };
        Ok(if self.is_backwards { low <= self.skip } else { high >= self.end })
    }
}

fn compare(keys: &[Key], a: &DeviceView, b: &DeviceView) -> Ordering {
    let by = |key: &Key| match key {
        Key::Status => a.device.status().name().cmp(b.device.status().name()),
        Key::Attr(attr, direction) => {
            direction.apply(place(a.value(attr).as_ref()).compare(&place(b.value(attr).as_ref())))
        }
    };
    let first = keys.iter().map(by).find(|ordering| ordering.is_ne());
    first.unwrap_or_else(|| a.device.id.cmp(&b.device.id))
}

/// Whether a test may have to look at all values.
fn is_wide(test: &Test) -> bool {
    match test {
        Test::Order(..) | Test::Matches(_) | Test::Begins(_) => true,
        Test::Equal(_)
        | Test::NotEqual(_)
        | Test::In(_)
        | Test::NotIn(_)
        | Test::Exists(_)
        | Test::Reads(_) => false,
    }
}

type Range = (Vec<u8>, Vec<u8>);

/// Behind all keys with this beginning, since no key has a byte 255 there.
fn behind(mut key: Vec<u8>) -> Vec<u8> {
    key.push(255);
    key
}

/// The keys of a number, whatever its type. There are two zeros, which are equal.
fn keys_of_number(number: f64) -> Range {
    let place = |number| {
        let mut out = Vec::new();
        code::put_place_of_number(&mut out, number);
        out
    };
    match number == 0.0 {
        true => (place(-0.0), behind(place(0.0))),
        false => (place(number), behind(place(number))),
    }
}

fn keys_of_text(text: &str) -> Range {
    let mut place = Vec::new();
    code::put_place_of_text(&mut place, text, true);
    (place.clone(), behind(place))
}

fn keys_of_value(value: &Value) -> Range {
    match value {
        Value::Number(number) => keys_of_number(number.as_f64().unwrap_or(0.0)),
        Value::Bool(yes) => keys_of_number(f64::from(u8::from(*yes))),
        Value::String(text) => keys_of_text(text),
        Value::Null | Value::Object(_) => (vec![0], vec![1]),
        Value::Array(values) => values.first().map_or_else(|| (vec![0], vec![1]), keys_of_value),
    }
}

/// Where the keys of values, or of what lists have in them, are for which a test may hold.
fn ranges(test: &Test) -> Vec<Range> {
    match test {
        Test::Equal(value) => vec![keys_of_value(value)],
        Test::In(values) => values.iter().map(keys_of_value).collect(),
        Test::Order(bound, value) => {
            let kind = match value {
                Value::Number(_) => 1,
                Value::String(_) => 2,
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Vec::new(),
            };
            let (from, behind) = keys_of_value(value);
            match bound {
                Bound::Above | Bound::From => vec![(from, vec![kind + 1])],
                Bound::Below | Bound::To => vec![(vec![kind], behind)],
            }
        }
        Test::Matches(_) => vec![(vec![2], vec![3])],
        Test::Begins(text) => {
            let mut from = Vec::new();
            code::put_place_of_text(&mut from, text, false);
            vec![(from.clone(), behind(from))]
        }
        Test::Reads(text) => {
            let mut ranges = vec![keys_of_text(text)];
            ranges.extend(text.parse().ok().map(keys_of_number));
            ranges.extend(text.parse().ok().map(|yes: bool| keys_of_value(&Value::Bool(yes))));
            ranges
        }
        // Answered by what they are not.
        Test::NotEqual(_) | Test::NotIn(_) | Test::Exists(_) => Vec::new(),
    }
}

/// Whether a test holds for a value itself. What a list has in it has rows of its own.
fn key_holds(test: &Test, key: &[u8], what: Post) -> bool {
    if code::is_list(key) {
        let value = code::value_of(key);
        return match test {
            Test::Equal(wanted) => value.as_ref() == Some(wanted),
            // A list is never one of them, but what it has in it may be a list.
            Test::In(wanted) => what == Post::Item && value.is_some_and(|value| wanted.contains(&value)),
            Test::NotEqual(_)
            | Test::NotIn(_)
            | Test::Exists(_)
            | Test::Order(..)
            | Test::Matches(_)
            | Test::Reads(_)
            | Test::Begins(_) => false,
        };
    }
    // There may be a million of them.
    match (test, code::text_of(key)) {
        (Test::Matches(regex), Some(text)) => return regex.is_match(&text),
        (Test::Begins(beginning), Some(text)) => return text.starts_with(beginning.as_str()),
        (Test::Order(bound, Value::String(other)), Some(text)) => {
            return bound.holds((*text).cmp(other.as_str()));
        }
        _ => {}
    }
    code::value_of(key).is_some_and(|value| test.holds(Some(&value)))
}

fn time_holds(test: &Test, time: Timestamp) -> bool {
    if let Test::Order(bound, Value::String(text)) = test {
        // In the one form the order of texts is that of times.
        if let Some(other) = Timestamp::parse(text).filter(|other| other.to_string() == *text) {
            return bound.holds(time.cmp(&other));
        }
    }
    test.holds(Some(&json!(time)))
}

fn keys(query: &DeviceQuery) -> Vec<Key> {
    let by_status = query.by_status.then_some(Key::Status);
    let sort = query.sort.iter().map(|(attr, direction)| Key::Attr(attr.clone(), *direction));
    by_status.into_iter().chain(sort).collect()
}

/// A page of devices.
pub(super) fn devices(
    connection: &Connection,
    reading: Reading<'_>,
    query: &DeviceQuery,
) -> Result<Found<DeviceView>, Fault> {
    let finder = Finder::new(connection, reading);
    let bits = finder.find(query)?;
    let page = finder.window(&bits, &keys(query), query.skip, query.take)?;
    Ok(Found { items: finder.views(page.into_iter())?, total: bits.len() })
}

/// The numbers of all devices that a query is about.
pub(super) fn numbers(
    connection: &Connection,
    reading: Reading<'_>,
    query: &DeviceQuery,
) -> Result<RoaringBitmap, Fault> {
    Ok(Finder::new(connection, reading).find(query)?.iter().collect())
}

/// How many devices were heard of.
pub(super) fn seen_devices(connection: &Connection, reading: Reading<'_>) -> Result<u64, Fault> {
    Ok(Finder::new(connection, reading).seen()?.len() as u64)
}
