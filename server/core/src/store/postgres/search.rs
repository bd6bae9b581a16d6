//! Searches of devices.
//!
//! Each test becomes a condition over the rows of a hot attribute, or a set of numbers that is worked out here where the
//! database would see it otherwise (patterns) or has no index for it (text anywhere, times of check-ins). What asks for an
//! attribute that is not hot goes through all devices once, while the attribute becomes hot.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::attr::{self, Hot, equal, split};
use super::connect::{Conn, Fault, Params};
use super::flush::{ATTRIBUTE, GROUP, STATUS};
use super::load::status_number;
use super::number::{Signed as _, Unsigned as _};
use super::read::{self, big, count};
use crate::model::AuthStatus;
use crate::model::time::Timestamp;
use crate::work::query::{
    Attr, Bound, DeviceQuery, DeviceView, Direction, Found, Place, SCOPES, Scope, Test, place,
};

/// In a fleet of that size an attribute becomes hot while its first search waits.
pub(super) const AT_ONCE: u64 = 20_000;

/// What a search needs that is not there.
pub(super) type Cold = Vec<(Scope, String)>;

/// A query in the words of the database.
struct Search {
    params: Params,
    wanted: Vec<String>,
    joins: Vec<String>,
    order: Vec<(String, Direction)>,
    used: Vec<i32>,
}

/// What is known of attributes.
struct Known {
    hot: Vec<Hot>,
    /// How many devices have each that is asked for.
    counts: BTreeMap<(Scope, String), u64>,
}

/// Where an attribute is.
enum Source {
    /// No device has it.
    Nowhere,
    /// In these rows.
    Rows(i32),
    /// In the table of check-ins.
    CheckIns,
    /// In no rows that could be used.
    Cold,
}

/// Attributes that each device has, or that are the server's.
fn is_own(scope: Scope, name: &str) -> bool {
    match scope {
        Scope::Identity => name == "status",
        Scope::System => matches!(name, "created_ts" | "updated_ts" | "group"),
        Scope::Inventory | Scope::Monitor | Scope::Tags => false,
    }
}

impl Known {
    async fn read(conn: &Conn, query: &DeviceQuery) -> Result<Known, Fault> {
        let mut counts = BTreeMap::new();
        let attrs = query.tests.iter().map(|(attr, _)| attr).chain(query.sort.iter().map(|(attr, _)| attr));
        for attr in attrs {
            for scope in scopes(attr) {
                counts.insert((scope, attr.name.clone()), 0);
            }
        }
        if counts.is_empty() {
            return Ok(Known { hot: Vec::new(), counts });
        }
        const READ: &str = "SELECT name, n FROM cnt WHERE kind = $1 AND name = ANY($2)";
        let names: Vec<Vec<u8>> =
            counts.keys().map(|(scope, name)| format!("{}/{name}", scope.name()).into_bytes()).collect();
        for row in conn.rows(READ, &[&ATTRIBUTE, &names]).await? {
            let full = read::text(&row, 0)?;
            if let Some((scope, name)) = full.split_once('/') {
                if let Some(scope) = Scope::parse(scope) {
                    counts.insert((scope, name.to_owned()), count(row.try_get(1)?));
                }
            }
        }
        Ok(Known { hot: attr::hot(conn, false).await?, counts })
    }

    fn source(&self, scope: Scope, name: &str) -> Source {
        if scope == Scope::System && name == "check_in_time" {
            return Source::CheckIns;
        }
        let has = self.counts.get(&(scope, name.to_owned())).is_some_and(|count| *count > 0);
        if !has && !is_own(scope, name) {
            return Source::Nowhere;
        }
        let hot = self.hot.iter().find(|hot| hot.scope == scope && hot.name == name && hot.ready);
        hot.map_or(Source::Cold, |hot| Source::Rows(hot.key))
    }
}

/// The scopes in which an attribute is looked for.
fn scopes(attr: &Attr) -> Vec<Scope> {
    let is_own = matches!(attr.name.as_str(), "status" | "group");
    match attr.scope {
        Some(scope) => vec![scope],
        None => SCOPES.into_iter().filter(|scope| !(is_own && *scope == Scope::Inventory)).collect(),
    }
}

/// Makes the query; what is cold instead when something is.
async fn prepare(conn: &Conn, query: &DeviceQuery) -> Result<Result<Search, Cold>, Fault> {
    let known = Known::read(conn, query).await?;
    let mut search = Search {
        params: Params::default(),
        wanted: Vec::new(),
        joins: Vec::new(),
        order: Vec::new(),
        used: Vec::new(),
    };
    let mut cold = Vec::new();
    search.plain(query);
    for (attr, test) in &query.tests {
        let mut any = Vec::new();
        for scope in scopes(attr) {
            match known.source(scope, &attr.name) {
                Source::Nowhere => any.push(search.nowhere(test, attr.scope.is_some())),
                Source::Cold => cold.push((scope, attr.name.clone())),
                Source::CheckIns => any.push(search.check_ins(conn, test, attr.scope.is_some()).await?),
                Source::Rows(key) => {
                    search.used.push(key);
                    any.push(search.rows(conn, key, test, attr.scope.is_some()).await?);
                }
            }
        }
        search.wanted.push(format!("({})", any.join(" OR ")));
    }
    if !query.text.is_empty() {
        let numbers = with_text(conn, &query.text).await?;
        let numbers = search.numbers(&numbers);
        search.wanted.push(numbers);
    }
    if query.by_status {
        search.order.push(("d.status".to_owned(), Direction::Ascending));
    }
    for (at, (attr, direction)) in query.sort.iter().enumerate() {
        let mut sources = Vec::new();
        for scope in scopes(attr) {
            match known.source(scope, &attr.name) {
                Source::Nowhere => {}
                Source::Cold => cold.push((scope, attr.name.clone())),
                other @ (Source::Rows(_) | Source::CheckIns) => sources.push(other),
            }
        }
        match (sources.pop(), sources.is_empty()) {
            (None, _) => {}
            (Some(Source::CheckIns), true) => {
                search.joins.push(format!("LEFT JOIN seen s{at} ON s{at}.num = d.num"));
                search.order.push((format!("coalesce(s{at}.ts, -1)"), *direction));
            }
            (Some(Source::Rows(key)), true) => {
                search.used.push(key);
                search.sort(conn, at, key, *direction).await?;
            }
            // The last scope that has it counts, device by device: that is not a column.
            (Some(_), _) => return Ok(Err(cold)),
        }
    }
    Ok(if cold.is_empty() { Ok(search) } else { Err(cold) })
}

impl Search {
    /// What is a column.
    fn plain(&mut self, query: &DeviceQuery) {
        let DeviceQuery {
            tests: _,
            statuses,
            group,
            has_group,
            ids,
            text: _,
            sort: _,
            by_status: _,
            skip: _,
            take: _,
        } = query;
        if !statuses.is_empty() {
            let statuses: Vec<i16> = statuses.iter().map(|status| status_number(*status)).collect();
            let bound = self.params.bind(statuses, Type::INT2_ARRAY);
            self.wanted.push(format!("d.status = ANY({bound})"));
        }
        if let Some(group) = group {
            let bound = self.params.bind(group.clone().into_bytes(), Type::BYTEA);
            self.wanted.push(format!("d.grp = {bound}"));
        }
        match has_group {
            Some(true) => self.wanted.push("d.grp IS NOT NULL".to_owned()),
            Some(false) => self.wanted.push("d.grp IS NULL".to_owned()),
            None => {}
        }
        if !ids.is_empty() {
            let ids: Vec<Vec<u8>> = ids.iter().map(|id| id.clone().into_bytes()).collect();
            let bound = self.params.bind(ids, Type::BYTEA_ARRAY);
            self.wanted.push(format!("d.id = ANY({bound})"));
        }
    }

    fn numbers(&mut self, numbers: &RoaringBitmap) -> String {
        let numbers: Vec<i32> = numbers.iter().map(|number| number.signed()).collect();
        let bound = self.params.bind(numbers, Type::INT4_ARRAY);
        format!("d.num = ANY({bound})")
    }

    /// An attribute that nobody has. A test of all scopes asks for one that has it.
    fn nowhere(&mut self, test: &Test, alone: bool) -> String {
        (alone && test.holds(None)).to_string()
    }

    /// Times of check-ins are text on the wire; they are looked at one by one.
    async fn check_ins(&mut self, conn: &Conn, test: &Test, alone: bool) -> Result<String, Fault> {
        let (mut holding, mut all) = (RoaringBitmap::new(), RoaringBitmap::new());
        conn.each("SELECT num, ts FROM seen", &Params::default(), |row| {
            let number = row.try_get::<_, i32>(0)?.unsigned();
            all.insert(number);
            if test.holds(Some(&json!(Timestamp(count(row.try_get(1)?))))) {
                holding.insert(number);
            }
            Ok(())
        })
        .await?;
        Ok(if alone && test.holds(None) {
            // Whoever was never heard of, too.
            let failing = all - holding;
            format!("NOT {}", self.numbers(&failing))
        } else {
            self.numbers(&holding)
        })
    }

    /// A test of a hot attribute. `alone` says that it is about this scope only, and holds for its absence where the test
    /// says so.
    async fn rows(&mut self, conn: &Conn, key: i32, test: &Test, alone: bool) -> Result<String, Fault> {
        let k = self.params.bind(key, Type::INT4);
        let has = |what: &str| format!("d.num IN (SELECT num FROM attr WHERE key = {k} AND {what})");
        let exists = has("pos = 0 AND val IS NOT NULL");
        let without = |what: &str| {
            let none =
                format!("NOT EXISTS (SELECT 1 FROM attr a WHERE a.key = {k} AND a.num = d.num AND {what})");
            if alone { none } else { format!("({exists} AND {none})") }
        };
        Ok(match test {
            Test::Equal(value) => {
                let values = self.values(std::slice::from_ref(value));
                has(&format!("val = ANY({values})"))
            }
            Test::NotEqual(value) => {
                let values = self.values(std::slice::from_ref(value));
                without(&format!("val = ANY({values})"))
            }
            Test::In(wanted) => {
                let values = self.values(wanted);
                has(&format!("typ > 0 AND val = ANY({values})"))
            }
            Test::NotIn(wanted) => {
                let values = self.values(wanted);
                without(&format!("typ > 0 AND val = ANY({values})"))
            }
            Test::Order(bound, value) => match self.beyond(*bound, value) {
                Some(beyond) => has(&beyond),
                None => "false".to_owned(),
            },
            Test::Exists(true) => exists,
            Test::Exists(false) if alone => {
                format!(
                    "NOT EXISTS (SELECT 1 FROM attr a WHERE a.key = {k} AND a.num = d.num AND pos = 0 AND val IS NOT NULL)"
                )
            }
            Test::Exists(false) => "false".to_owned(),
            Test::Matches(regex) => {
                let numbers = attr::matching(conn, key, |text| regex.is_match(text)).await?;
                self.numbers(&numbers)
            }
            Test::Reads(wanted) => {
                let text = self.values(&[Value::String(wanted.clone())]);
                let mut any = vec![format!("(val = ANY({text}) AND typ = 3)")];
                if let Ok(number) = wanted.parse::<f64>() {
                    any.push(format!("(typ = 2 AND n = {})", self.params.bind(number, Type::FLOAT8)));
                }
                if let Ok(yes) = wanted.parse::<bool>() {
                    let number = f64::from(u8::from(yes));
                    any.push(format!("(typ = 1 AND n = {})", self.params.bind(number, Type::FLOAT8)));
                }
                has(&format!("({})", any.join(" OR ")))
            }
            Test::Begins(wanted) => {
                let length = self.params.bind(i32::try_from(wanted.len()).unwrap_or(i32::MAX), Type::INT4);
                let wanted = self.params.bind(wanted.clone().into_bytes(), Type::BYTEA);
                has(&format!("typ = 3 AND substring(txt || rest FROM 1 FOR {length}) = {wanted}"))
            }
        })
    }

    fn values(&mut self, values: &[Value]) -> String {
        let mut all: Vec<Vec<u8>> = values.iter().map(equal).collect();
        // The two zeros are one number.
        let is_zero = |value: &Value| value.is_f64() && value.as_f64() == Some(0.0);
        if values.iter().any(is_zero) {
            all.extend([b"0.0".to_vec(), b"-0.0".to_vec()]);
        }
        self.params.bind(all, Type::BYTEA_ARRAY)
    }

    fn beyond(&mut self, bound: Bound, value: &Value) -> Option<String> {
        let sign = match bound {
            Bound::Above => ">",
            Bound::From => ">=",
            Bound::Below => "<",
            Bound::To => "<=",
        };
        match value {
            Value::Number(number) => {
                let bound = self.params.bind(number.as_f64()?, Type::FLOAT8);
                Some(format!("typ = 2 AND n {sign} {bound}"))
            }
            Value::String(text) => {
                let (first, rest) = split(text);
                let (first, rest) =
                    (self.params.bind(first, Type::BYTEA), self.params.bind(rest, Type::BYTEA));
                Some(format!("typ = 3 AND (txt, rest) {sign} ({first}, {rest})"))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    async fn sort(&mut self, conn: &Conn, at: usize, key: i32, direction: Direction) -> Result<(), Fault> {
        const LONG: &str = "SELECT 1 FROM attr WHERE key = $1 AND rest <> ''::bytea LIMIT 1";
        let has_long = conn.row(LONG, &[&key]).await?.is_some();
        let bound = self.params.bind(key, Type::INT4);
        self.joins
            .push(format!("JOIN attr s{at} ON s{at}.key = {bound} AND s{at}.num = d.num AND s{at}.pos = 0"));
        for column in ["kind", "n", "txt"] {
            self.order.push((format!("s{at}.{column}"), direction));
        }
        // Not in the index, since it may be longer than an index takes.
        if has_long {
            self.order.push((format!("s{at}.rest"), direction));
        }
        Ok(())
    }

    fn condition(&self) -> String {
        if self.wanted.is_empty() { "true".to_owned() } else { self.wanted.join(" AND ") }
    }

    /// The numbers of one page. It is read from the nearer end.
    async fn page(&mut self, conn: &Conn, skip: u64, take: u64, total: u64) -> Result<Vec<i32>, Fault> {
        let take = take.min(total.saturating_sub(skip));
        if take == 0 {
            return Ok(Vec::new());
        }
        let behind = total - skip - take;
        let reversed = behind < skip;
        let mut columns: Vec<String> = Vec::new();
        // With one order that is a hot attribute, its rows have the id too: then the index has the whole order.
        let id = match (self.order.first(), self.joins.as_slice()) {
            (Some((first, Direction::Ascending)), [one]) if first == "s0.kind" && one.starts_with("JOIN") => {
                "s0.id"
            }
            _ => "d.id",
        };
        for (column, direction) in &self.order {
            let ascending = (*direction == Direction::Ascending) != reversed;
            columns.push(format!("{column} {}", if ascending { "ASC" } else { "DESC" }));
        }
        columns.push(format!("{id} {}", if reversed { "DESC" } else { "ASC" }));
        let (wanted, joins, order) = (self.condition(), self.joins.join(" "), columns.join(", "));
        let skip = self.params.bind(big(if reversed { behind } else { skip }), Type::INT8);
        let take = self.params.bind(big(take), Type::INT8);
        let sql = format!(
            "SELECT d.num FROM device d {joins} WHERE {wanted} ORDER BY {order} OFFSET {skip} LIMIT {take}"
        );
        let rows = conn.ask(&sql, &self.params).await?;
        let mut numbers = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<i32>, Fault>>()?;
        if reversed {
            numbers.reverse();
        }
        Ok(numbers)
    }
}

/// Devices with a text in one of their values. The database finds those whose record has it in JSON, which may also be in a
/// name; then each is looked at.
async fn with_text(conn: &Conn, text: &str) -> Result<RoaringBitmap, Fault> {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let part = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
    let mut params = Params::default();
    let part = params.bind(part.as_bytes().to_vec(), Type::BYTEA);
    let statuses: Vec<i16> = super::load::BY_NUMBER
        .into_iter()
        .filter(|status| status.name().contains(text))
        .map(status_number)
        .collect();
    let statuses = params.bind(statuses, Type::INT2_ARRAY);
    let sql = format!(
        "{} WHERE position({part} IN d.data) > 0 OR position({part} IN i.data) > 0 OR d.status = ANY({statuses})",
        read::VIEW
    );
    let query = DeviceQuery { text: text.to_owned(), ..DeviceQuery::default() };
    let mut found = RoaringBitmap::new();
    conn.each(&sql, &params, |row| {
        let view = read::view(row)?;
        if view.is_wanted(&query) {
            found.insert(view.device.number);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// How many there are, where a counter says it.
async fn counted(conn: &Conn, query: &DeviceQuery) -> Result<Option<u64>, Fault> {
    let is_plain = query.tests.is_empty()
        && query.group.is_none()
        && query.has_group.is_none()
        && query.ids.is_empty()
        && query.text.is_empty();
    if !is_plain {
        return Ok(None);
    }
    let counts = counts(conn).await?;
    let wanted = |status: &AuthStatus| query.statuses.is_empty() || query.statuses.contains(status);
    Ok(Some(counts.iter().filter(|(status, _)| wanted(status)).map(|(_, count)| count).sum()))
}

/// How many devices have each status.
pub(super) async fn counts(conn: &Conn) -> Result<Vec<(AuthStatus, u64)>, Fault> {
    let mut counts = Vec::new();
    for row in conn.rows("SELECT key, n FROM cnt WHERE kind = $1 AND n > 0 ORDER BY key", &[&STATUS]).await? {
        if let Some(status) = AuthStatus::parse(&read::text(&row, 0)?) {
            counts.push((status, count(row.try_get(1)?)));
        }
    }
    Ok(counts)
}

/// Every attribute, with how many devices have it.
pub(super) async fn attributes(conn: &Conn) -> Result<Vec<(Scope, String, u64)>, Fault> {
    const READ: &str = "SELECT name, n FROM cnt WHERE kind = $1 AND n > 0";
    const SEEN: &str = "SELECT count(*), (SELECT sum(n)::int8 FROM cnt WHERE kind = $1) FROM seen";
    conn.begin_reading().await?;
    let mut all = BTreeMap::new();
    for row in conn.rows(READ, &[&ATTRIBUTE]).await? {
        let full = read::text(&row, 0)?;
        if let Some((scope, name)) = full.split_once('/') {
            if let Some(scope) = Scope::parse(scope) {
                all.insert((scope, name.to_owned()), count(row.try_get(1)?));
            }
        }
    }
    let devices: u64 = counts(conn).await?.iter().map(|(_, count)| count).sum();
    let (mut seen, mut grouped) = (0, 0);
    if let Some(row) = conn.row(SEEN, &[&GROUP]).await? {
        seen = count(row.try_get(0)?);
        grouped = count(row.try_get::<_, Option<i64>>(1)?.unwrap_or(0));
    }
    conn.batch("COMMIT").await?;
    // What the server knows of each device.
    for (scope, name, count) in [
        (Scope::Identity, "status", devices),
        (Scope::System, "created_ts", devices),
        (Scope::System, "updated_ts", devices),
        (Scope::System, "group", grouped),
        (Scope::System, "check_in_time", seen),
    ] {
        all.insert((scope, name.to_owned()), count);
    }
    Ok(all
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|((scope, name), count)| (scope, name, count))
        .collect())
}

/// What became of a search.
pub(super) enum Answer<T> {
    /// This.
    Found(T),
    /// It needs attributes that are not hot.
    Cold(Cold),
}

/// A page of devices.
pub(super) async fn devices(conn: &Conn, query: &DeviceQuery) -> Result<Answer<Found<DeviceView>>, Fault> {
    conn.begin_reading().await?;
    let mut search = match prepare(conn, query).await? {
        Ok(search) => search,
        Err(cold) => {
            conn.batch("COMMIT").await?;
            return Ok(Answer::Cold(cold));
        }
    };
    let total = match counted(conn, query).await? {
        Some(total) => total,
        None => {
            let sql = format!("SELECT count(*) FROM device d WHERE {}", search.condition());
            let rows = conn.ask(&sql, &search.params).await?;
            count(rows.first().map_or(Ok(0), |row| row.try_get(0))?)
        }
    };
    let numbers = search.page(conn, query.skip, query.take, total).await?;
    let items = read::views(conn, &numbers).await?;
    conn.batch("COMMIT").await?;
    attr::used(conn, &search.used).await?;
    Ok(Answer::Found(Found { items, total }))
}

/// The numbers of all devices that a query is about.
pub(super) async fn numbers(conn: &Conn, query: &DeviceQuery) -> Result<Answer<RoaringBitmap>, Fault> {
    let plain = DeviceQuery { sort: Vec::new(), ..query.clone() };
    conn.begin_reading().await?;
    let found = match prepare(conn, &plain).await? {
        Ok(search) => {
            let mut numbers = RoaringBitmap::new();
            let sql = format!("SELECT d.num FROM device d WHERE {}", search.condition());
            conn.each(&sql, &search.params, |row| {
                numbers.insert(row.try_get::<_, i32>(0)?.unsigned());
                Ok(())
            })
            .await?;
            Answer::Found(numbers)
        }
        Err(cold) => Answer::Cold(cold),
    };
    conn.batch("COMMIT").await?;
    Ok(found)
}

/// Whether attributes are made hot while the first search waits.
pub(super) async fn is_small(conn: &Conn, at_once: u64) -> Result<bool, Fault> {
    Ok(counts(conn).await?.iter().map(|(_, count)| count).sum::<u64>() <= at_once)
}

/// One device that is wanted, by what its place in the list depends on.
struct Placed {
    places: Vec<Place>,
    status: &'static str,
    id: String,
    number: u32,
}

/// Goes through all devices, and asks each.
async fn through(conn: &Conn, query: &DeviceQuery, mut found: impl FnMut(&DeviceView)) -> Result<(), Fault> {
    let mut search = Search {
        params: Params::default(),
        wanted: Vec::new(),
        joins: Vec::new(),
        order: Vec::new(),
        used: Vec::new(),
    };
    search.plain(query);
    let sql = format!("{} WHERE {}", read::VIEW, search.condition());
    conn.each(&sql, &search.params, |row| {
        let view = read::view(row)?;
        if view.is_wanted(query) {
            found(&view);
        }
        Ok(())
    })
    .await
}

/// A page of devices by going through all of them.
pub(super) async fn devices_one_by_one(conn: &Conn, query: &DeviceQuery) -> Result<Found<DeviceView>, Fault> {
    conn.begin_reading().await?;
    let mut all = Vec::new();
    through(conn, query, |view| {
        let places = query.sort.iter().map(|(attr, _)| place(view.value(attr).as_ref())).collect();
        let status = view.device.status().name();
        all.push(Placed { places, status, id: view.device.id.clone(), number: view.device.number });
    })
    .await?;
    all.sort_by(|a, b| {
        let by_status = if query.by_status { a.status.cmp(b.status) } else { std::cmp::Ordering::Equal };
        let places = a.places.iter().zip(&b.places).zip(&query.sort);
        let by_places = places.map(|((a, b), (_, direction))| direction.apply(a.compare(b)));
        by_places.fold(by_status, std::cmp::Ordering::then).then_with(|| a.id.cmp(&b.id))
    });
    let skip = usize::try_from(query.skip).unwrap_or(usize::MAX);
    let take = usize::try_from(query.take).unwrap_or(usize::MAX);
    let page: Vec<i32> = all.iter().skip(skip).take(take).map(|one| one.number.signed()).collect();
    let items = read::views(conn, &page).await?;
    conn.batch("COMMIT").await?;
    Ok(Found { items, total: all.len() as u64 })
}

/// The numbers of all devices that a query is about, by going through all of them.
pub(super) async fn numbers_one_by_one(conn: &Conn, query: &DeviceQuery) -> Result<RoaringBitmap, Fault> {
    let mut numbers = RoaringBitmap::new();
    through(conn, query, |view| {
        numbers.insert(view.device.number);
    })
    .await?;
    Ok(numbers)
}
