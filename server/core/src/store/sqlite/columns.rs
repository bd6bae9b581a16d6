//! Rows of the index that people ask for again, kept in memory.
//!
//! A page in the middle of a million different values is a walk over half a million rows, each some 200 ns out of the
//! database and a tenth of that out of memory. What is kept of an attribute is used only while nothing has changed it: the
//! writer says which attributes it changes before it commits and again behind that, and a reader knows which of these commits
//! are in what it sees, at least. Between the two words of the writer nobody uses or keeps anything of that attribute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::read::Fault;

/// A walk over fewer rows is fast enough as it is.
const LONG: usize = if cfg!(test) { 2 } else { 20_000 };
/// Of one attribute.
const MOST_BYTES: usize = 48 << 20;
/// Of all.
const ALL_BYTES: usize = 96 << 20;
/// Of so many it is known when they were asked for last.
const ASKED: usize = 16;
/// Of so many it is known when they were changed last.
const CHANGED: usize = if cfg!(test) { 64 } else { 65_536 };

/// How many commits have changed the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Moment(u64);

/// All rows of one attribute, in their order.
#[derive(Debug, Default)]
pub(super) struct Column {
    keys: Vec<u8>,
    devices: Vec<u8>,
    rows: Vec<Row>,
}

/// Where its key and its devices end.
#[derive(Debug, Clone, Copy)]
struct Row {
    key: u32,
    devices: u32,
    chunk: u32,
}

impl Column {
    /// Reads one. `None` when it is too large to be kept.
    fn read(connection: &Connection, post: i64) -> Result<Option<Column>, Fault> {
        let sql = "SELECT key, chunk, devices FROM post WHERE attribute = ?1 ORDER BY key, chunk";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([post])?;
        let mut column = Column::default();
        while let Some(row) = rows.next()? {
            column.keys.extend_from_slice(row.get_ref(0)?.as_blob()?);
            column.devices.extend_from_slice(row.get_ref(2)?.as_blob()?);
            let (Ok(key), Ok(devices)) =
                (u32::try_from(column.keys.len()), u32::try_from(column.devices.len()))
            else {
                return Ok(None);
            };
            column.rows.push(Row { key, devices, chunk: row.get(1)? });
            // What is in it, and not what has been taken while it grew.
            if column.keys.len() + column.devices.len() + column.rows.len() * size_of::<Row>() > MOST_BYTES {
                return Ok(None);
            }
        }
        column.keys.shrink_to_fit();
        column.devices.shrink_to_fit();
        column.rows.shrink_to_fit();
        Ok(Some(column))
    }

    fn bytes(&self) -> usize {
        self.keys.capacity() + self.devices.capacity() + self.rows.capacity() * size_of::<Row>()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Key, chunk and devices of a row.
    pub(super) fn row(&self, at: usize) -> Option<(&[u8], u32, &[u8])> {
        let row = self.rows.get(at)?;
        let before = at.checked_sub(1).and_then(|before| self.rows.get(before));
        let (key, devices) = before.map_or((0, 0), |before| (before.key, before.devices));
        let key = self.keys.get(key as usize..row.key as usize)?;
        Some((key, row.chunk, self.devices.get(devices as usize..row.devices as usize)?))
    }

    /// The first row whose key is not below this one.
    pub(super) fn from(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.row(middle) {
                Some((found, _, _)) if found < key => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

/// What is kept.
pub(super) struct Columns {
    /// Nobody else writes: nothing changes that is not told.
    is_alone: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: u64,
    /// With which commit an attribute was changed last; `None` while it is being changed.
    changed: HashMap<i64, Option<u64>>,
    /// That of all that are not there.
    others: u64,
    /// The one that was used last is the last.
    kept: Vec<Kept>,
    /// What long walks were about, and what was there then.
    asked: Vec<(i64, u64)>,
    wanted: Option<i64>,
    /// What was wanted and is too large, and what was there then: it is not read again before it changes.
    too_large: Vec<(i64, u64)>,
}

struct Kept {
    post: i64,
    version: u64,
    column: Arc<Column>,
}

impl State {
    /// What of an attribute is seen by who sees at least what there was at a moment. `None` when that cannot be told.
    fn version(&self, post: i64, moment: Moment) -> Option<u64> {
        let version = self.changed.get(&post).copied().unwrap_or(Some(self.others))?;
        (version <= moment.0).then_some(version)
    }

    /// Drops what was used longest ago, until no more bytes are kept.
    fn drop_to(&mut self, bytes: usize) {
        while self.kept.iter().map(|kept| kept.column.bytes()).sum::<usize>() > bytes {
            self.kept.remove(0);
        }
    }
}

/// Remembers the newest of these.
fn note(some: &mut Vec<(i64, u64)>, post: i64, version: u64) {
    if some.len() >= ASKED {
        some.remove(0);
    }
    some.push((post, version));
}

impl Columns {
    /// Nothing is ever kept where somebody else may write.
    pub(super) fn new(is_alone: bool) -> Columns {
        Columns { is_alone, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a transaction that begins behind this.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.state().now)
    }

    /// The next commit changes these.
    pub(super) fn changing(&self, posts: &[i64]) {
        let mut state = self.state();
        state.kept.retain(|kept| !posts.contains(&kept.post));
        state.changed.extend(posts.iter().map(|post| (*post, None)));
    }

    /// That commit has been, or has failed.
    pub(super) fn changed(&self, posts: &[i64]) {
        let mut state = self.state();
        state.now += 1;
        let now = state.now;
        state.changed.extend(posts.iter().map(|post| (*post, Some(now))));
        // Attributes have the names that devices give them. There is one writer: nothing is being changed now.
        if state.changed.len() > CHANGED {
            state.changed.clear();
            state.others = now;
            state.kept.clear();
        }
    }

    /// Somebody else has written all of it.
    pub(super) fn replaced(&self) {
        let mut state = self.state();
        state.now += 1;
        *state = State { now: state.now, others: state.now, ..State::default() };
    }

    /// What is kept of an attribute, when it is what is seen.
    pub(super) fn get(&self, post: i64, moment: Moment) -> Option<Arc<Column>> {
        let mut state = self.state();
        let version = state.version(post, moment)?;
        let at = state.kept.iter().position(|kept| kept.post == post && kept.version == version)?;
        let kept = state.kept.remove(at);
        let column = kept.column.clone();
        state.kept.push(kept);
        Some(column)
    }

    /// A walk has gone over so many rows of an attribute. It is wanted when that is not the first one since it was changed.
    pub(super) fn walked(&self, post: i64, moment: Moment, rows: usize) {
        if rows < LONG || !self.is_alone {
            return;
        }
        let mut state = self.state();
        let Some(version) = state.version(post, moment) else { return };
        let before = state.asked.iter().position(|(asked, _)| *asked == post);
        let before = before.map(|at| state.asked.remove(at));
        if before == Some((post, version)) && !state.too_large.contains(&(post, version)) {
            state.wanted = Some(post);
        }
        note(&mut state.asked, post, version);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.state().wanted.is_some()
    }

    /// Reads what is wanted, in a transaction that began behind this moment.
    pub(super) fn keep(&self, connection: &Connection, moment: Moment) -> Result<(), Fault> {
        let (post, version) = {
            let mut state = self.state();
            let Some(post) = state.wanted.take() else { return Ok(()) };
            let Some(version) = state.version(post, moment) else { return Ok(()) };
            (post, version)
        };
        // Before the room for it is taken.
        self.state().drop_to(ALL_BYTES - MOST_BYTES);
        let read = Column::read(connection, post)?;
        let mut state = self.state();
        let Some(column) = read else {
            state.too_large.retain(|(known, _)| *known != post);
            note(&mut state.too_large, post, version);
            return Ok(());
        };
        if state.version(post, moment) != Some(version) {
            return Ok(());
        }
        state.kept.retain(|kept| kept.post != post);
        state.kept.push(Kept { post, version, column: Arc::new(column) });
        state.drop_to(ALL_BYTES);
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.state().kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(post: i64) -> Columns {
        let columns = Columns::new(true);
        let moment = columns.moment();
        let version = columns.state().version(post, moment).unwrap();
        columns.state().kept.push(Kept { post, version, column: Arc::default() });
        columns
    }

    #[test]
    fn nobody_sees_what_was_kept_before_a_change() {
        let columns = with(1);
        let before = columns.moment();
        assert!(columns.get(1, before).is_some());
        columns.changing(&[2]);
        assert!(columns.get(1, columns.moment()).is_some());
        columns.changed(&[2]);
        columns.changing(&[1]);
        assert!(columns.get(1, before).is_none());
        columns.changed(&[1]);
        assert!(columns.get(1, before).is_none() && columns.get(1, columns.moment()).is_none());
    }

    #[test]
    fn who_began_before_a_change_neither_uses_nor_keeps_what_is_newer() {
        let columns = with(1);
        let before = columns.moment();
        columns.changing(&[1]);
        columns.changed(&[1]);
        let after = columns.moment();
        let version = columns.state().version(1, after).unwrap();
        columns.state().kept.push(Kept { post: 1, version, column: Arc::default() });
        assert!(columns.get(1, columns.moment()).is_some());
        assert!(columns.get(1, before).is_none());
        columns.walked(1, before, LONG);
        columns.walked(1, before, LONG);
        assert!(!columns.is_wanted());
    }

    #[test]
    fn only_what_is_long_and_was_asked_for_before_is_wanted() {
        let columns = Columns::new(true);
        let walked = |post, rows| columns.walked(post, columns.moment(), rows);
        walked(1, LONG - 1);
        walked(1, LONG - 1);
        walked(1, LONG);
        assert!(!columns.is_wanted());
        columns.changing(&[1]);
        columns.changed(&[1]);
        walked(1, LONG);
        (2..2 + ASKED as i64).for_each(|post| walked(post, LONG));
        walked(1, LONG);
        assert!(!columns.is_wanted());
        walked(1, LONG);
        assert!(columns.is_wanted());
    }

    #[test]
    fn what_is_too_large_is_not_read_again_before_it_changes() {
        let columns = Columns::new(true);
        let walked = || (0..3).for_each(|_| columns.walked(1, columns.moment(), LONG));
        columns.state().too_large.push((1, 0));
        walked();
        assert!(!columns.is_wanted());
        columns.changing(&[1]);
        columns.changed(&[1]);
        walked();
        assert!(columns.is_wanted());
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let columns = Columns::new(true);
        for post in 0..3 {
            let column = Column { keys: Vec::with_capacity(100), ..Column::default() };
            columns.state().kept.push(Kept { post, version: 0, column: Arc::new(column) });
        }
        assert!(columns.get(0, columns.moment()).is_some());
        columns.state().drop_to(250);
        let kept = [0, 1, 2].map(|post| columns.get(post, columns.moment()).is_some());
        assert_eq!(kept, [true, false, true]);
    }

    #[test]
    fn however_many_attributes_change_little_is_remembered() {
        let columns = with(0);
        for post in 1..10 * CHANGED as i64 {
            columns.changing(&[post]);
            columns.changed(&[post]);
        }
        assert!(columns.state().changed.len() <= CHANGED);
        // One that is not remembered may have changed.
        assert!(columns.get(0, columns.moment()).is_none());
        columns.replaced();
        assert!(columns.state().version(7, Moment(5)).is_none());
    }
}
