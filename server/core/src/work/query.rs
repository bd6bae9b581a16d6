//! What can be asked of a store. Each question has exact totals, and what it means is said here once, by what holds for one
//! device: a store may answer from an index, but never something else.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use super::Stream;
use crate::model::time::Timestamp;
use crate::model::{AuthStatus, Deployment, Device, DeviceDeployment, Inventory, Status};

/// Longest pattern.
const PATTERN_BYTES: usize = 1024;
/// Memory for a compiled pattern, and for what is worked out of it while it is used: the engine is linear in its input, and
/// this bounds the factor.
const PATTERN_MEMORY: usize = 1024 * 1024;

/// Where an attribute comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// What names the device, and `status`, which is the server's word.
    Identity,
    /// What the server knows: `created_ts`, `updated_ts`, `group`, `check_in_time`.
    System,
    /// What the device reports.
    Inventory,
    /// What its monitors say.
    Monitor,
    /// What people have said about it.
    Tags,
}

/// Every scope, in the order in which the attributes of a device are listed.
pub(crate) const SCOPES: [Scope; 5] =
    [Scope::Identity, Scope::System, Scope::Inventory, Scope::Monitor, Scope::Tags];

impl Scope {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Identity => "identity",
            Scope::System => "system",
            Scope::Inventory => "inventory",
            Scope::Monitor => "monitor",
            Scope::Tags => "tags",
        }
    }

    /// The scope with this name.
    pub(crate) fn parse(name: &str) -> Option<Scope> {
        SCOPES.into_iter().find(|scope| scope.name() == name)
    }
}

/// What a test or an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attr {
    /// `None`: in any scope; for an order the last that has it. What a device reports is left out for names that are the
    /// server's: `status` and `group`.
    pub(crate) scope: Option<Scope>,
    /// Its name.
    pub(crate) name: String,
}

/// What has to hold for the value of an attribute.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// It is that value, or a list with it.
    Equal(Value),
    /// It is not, also when there is none.
    NotEqual(Value),
    /// It is text or a number beyond that, of the same type.
    Order(Bound, Value),
    /// It is one of these.
    In(Vec<Value>),
    /// It is none of these.
    NotIn(Vec<Value>),
    /// There is one, or none.
    Exists(bool),
    /// It is text that begins as the pattern says.
    Matches(Regex),
    /// It is what the text says, whatever its type is: `100` is also the number.
    Reads(String),
    /// It is text that begins so.
    Begins(String),
}

/// On which side of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Greater.
    Above,
    /// Greater or equal.
    From,
    /// Less.
    Below,
    /// Less or equal.
    To,
}

impl Bound {
    pub(crate) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Bound::Above => ordering.is_gt(),
            Bound::From => ordering.is_ge(),
            Bound::Below => ordering.is_lt(),
            Bound::To => ordering.is_le(),
        }
    }
}

impl Test {
    /// A list has what one of its values has.
    pub(crate) fn holds(&self, value: Option<&Value>) -> bool {
        let values: &[Value] = match value {
            None => &[],
            Some(Value::Array(values)) => values,
            Some(one) => std::slice::from_ref(one),
        };
        match self {
            Test::Equal(wanted) => value == Some(wanted) || values.contains(wanted),
            Test::NotEqual(wanted) => value != Some(wanted) && !values.contains(wanted),
            Test::Order(bound, wanted) => {
                values.iter().any(|value| order(value, wanted).is_some_and(|ordering| bound.holds(ordering)))
            }
            Test::In(wanted) => values.iter().any(|value| wanted.contains(value)),
            Test::NotIn(wanted) => !values.iter().any(|value| wanted.contains(value)),
            Test::Exists(wanted) => value.is_some() == *wanted,
            Test::Matches(regex) => {
                values.iter().any(|value| value.as_str().is_some_and(|text| regex.is_match(text)))
            }
            Test::Reads(wanted) => values.iter().any(|value| reads(value, wanted)),
            Test::Begins(wanted) => values
                .iter()
                .any(|value| value.as_str().is_some_and(|text| text.starts_with(wanted.as_str()))),
        }
    }
}

fn reads(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.as_f64().is_some_and(|number| wanted.parse() == Ok(number)),
        Value::Bool(yes) => wanted.parse() == Ok(*yes),
        Value::Array(_) | Value::Null | Value::Object(_) => false,
    }
}

/// Why a pattern is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadPattern(pub(crate) String);

/// Anchored at its start, as in the reference server; `/pattern/i` is the other way to write one.
pub(crate) fn pattern(text: &str) -> Result<Regex, BadPattern> {
    let (text, flags) = match text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
        Some((text, flags)) => (text, flags),
        None => (text, ""),
    };
    if text.len() > PATTERN_BYTES {
        return Err(BadPattern("the pattern is too long".to_owned()));
    }
    RegexBuilder::new(&format!("^(?:{text})"))
        .case_insensitive(flags.contains('i'))
        .size_limit(PATTERN_MEMORY)
        .dfa_size_limit(PATTERN_MEMORY)
        .build()
        .map_err(|error| BadPattern(format!("the pattern: {error}")))
}

/// Numbers by value, text by its letters, and nothing else.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            _,
        ) => None,
    }
}

/// The place of a value in an order over all devices: nothing first, then numbers by value, then text by its bytes; a list
/// has the place of its first value, and truth values have those of the numbers 0 and 1. It is one total order, so that every
/// store pages through the same list.
pub(crate) fn place(value: Option<&Value>) -> Place {
    match value {
        None | Some(Value::Null | Value::Object(_)) => Place::Nothing,
        Some(Value::Bool(yes)) => Place::Number(f64::from(u8::from(*yes))),
        Some(Value::Number(number)) => Place::Number(number.as_f64().unwrap_or(0.0)),
        Some(Value::String(text)) => Place::Text(text.clone()),
        Some(Value::Array(values)) => place(values.first()),
    }
}

/// See [`place`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// There is no value.
    Nothing,
    /// By value.
    Number(f64),
    /// By its bytes.
    Text(String),
}

impl Place {
    /// Which one comes first.
    pub(crate) fn compare(&self, other: &Place) -> Ordering {
        match (self, other) {
            (Place::Number(a), Place::Number(b)) => a.total_cmp(b),
            (Place::Text(a), Place::Text(b)) => a.cmp(b),
            (Place::Nothing, Place::Nothing) => Ordering::Equal,
            (Place::Nothing, _) | (Place::Number(_), Place::Text(_)) => Ordering::Less,
            (_, Place::Nothing) | (Place::Text(_), Place::Number(_)) => Ordering::Greater,
        }
    }
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The least.
    Ascending,
    /// The greatest.
    Descending,
}

impl Direction {
    /// An ordering in this direction.
    pub(crate) fn apply(self, ordering: Ordering) -> Ordering {
        match self {
            Direction::Ascending => ordering,
            Direction::Descending => ordering.reverse(),
        }
    }
}

/// Some devices, in an order, and a part of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceQuery {
    /// All have to hold.
    pub(crate) tests: Vec<(Attr, Test)>,
    /// Only with one of these statuses; empty for any.
    pub(crate) statuses: Vec<AuthStatus>,
    /// Only in this group.
    pub(crate) group: Option<String>,
    /// Only with a group, or without.
    pub(crate) has_group: Option<bool>,
    /// Only these; empty for any. Ids that there are not are left out.
    pub(crate) ids: Vec<String>,
    /// A text in one of its attributes; empty for any.
    pub(crate) text: String,
    /// The most important first; then by id.
    pub(crate) sort: Vec<(Attr, Direction)>,
    /// By the name of the status before anything else, as the list of authentication has it: then by id.
    pub(crate) by_status: bool,
    /// How many to leave out.
    pub(crate) skip: u64,
    /// How many at most.
    pub(crate) take: u64,
}

/// One page of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found<T> {
    /// Of this page.
    pub(crate) items: Vec<T>,
    /// Of all pages, exactly.
    pub(crate) total: u64,
}

/// A device with everything that lists show of it.
#[derive(Debug, Clone)]
pub(crate) struct DeviceView {
    /// The device.
    pub(crate) device: Device,
    /// What it has reported.
    pub(crate) inventory: Inventory,
    /// When it was last heard of.
    pub(crate) check_in: Option<Timestamp>,
}

impl DeviceView {
    /// The value of an attribute.
    pub(crate) fn value(&self, attr: &Attr) -> Option<Value> {
        match attr.scope {
            Some(scope) => self.value_in(scope, &attr.name),
            None => {
                let is_own = matches!(attr.name.as_str(), "status" | "group");
                let scopes = SCOPES.iter().rev().filter(|scope| !(is_own && **scope == Scope::Inventory));
                scopes.copied().find_map(|scope| self.value_in(scope, &attr.name))
            }
        }
    }

    /// The value of an attribute in one scope.
    pub(crate) fn value_in(&self, scope: Scope, name: &str) -> Option<Value> {
        let device = &self.device;
        match (scope, name) {
            (Scope::Identity, "status") => Some(json!(device.status())),
            (Scope::Identity, name) => device.identity.get(name).cloned(),
            (Scope::System, "created_ts") => Some(json!(device.created)),
            (Scope::System, "updated_ts") => Some(json!(device.updated)),
            (Scope::System, "group") => device.group.as_ref().map(|group| json!(group)),
            (Scope::System, "check_in_time") => self.check_in.map(|time| json!(time)),
            (Scope::System, _) => None,
            (Scope::Inventory, name) => self.inventory.attributes.get(name).map(|one| one.value.clone()),
            (Scope::Monitor, name) => device.monitor.get(name).cloned(),
            (Scope::Tags, name) => device.tags.get(name).map(|tag| json!(tag.value)),
        }
    }

    /// Whether a query is about it.
    pub(crate) fn is_wanted(&self, query: &DeviceQuery) -> bool {
        let device = &self.device;
        (query.statuses.is_empty() || query.statuses.contains(&device.status()))
            && (query.group.is_none() || device.group == query.group)
            && query.has_group.is_none_or(|wanted| device.group.is_some() == wanted)
            && (query.ids.is_empty() || query.ids.contains(&device.id))
            && query.tests.iter().all(|(attr, test)| self.holds(attr, test))
            && (query.text.is_empty() || self.has_text(&query.text))
    }

    fn holds(&self, attr: &Attr, test: &Test) -> bool {
        if attr.scope.is_some() {
            return test.holds(self.value(attr).as_ref());
        }
        let is_own = matches!(attr.name.as_str(), "status" | "group");
        let scopes = SCOPES.iter().filter(|scope| !(is_own && **scope == Scope::Inventory));
        let mut values = scopes.filter_map(|scope| self.value_in(*scope, &attr.name));
        values.any(|value| test.holds(Some(&value)))
    }

    fn has_text(&self, text: &str) -> bool {
        let within = |value: &Value| value.as_str().is_some_and(|value| value.contains(text));
        let device = &self.device;
        device.identity.values().any(within)
            || self.inventory.attributes.values().any(|attribute| within(&attribute.value))
            || device.tags.values().any(|tag| tag.value.contains(text))
            || device.group.as_ref().is_some_and(|group| group.contains(text))
            || device.status().name().contains(text)
    }
}

/// Some deployments.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeploymentQuery {
    /// `scheduled`, `pending`, `inprogress`, `finished`: only with one of these states; empty for any.
    pub(crate) states: Vec<String>,
    /// Only of configurations, or only of software.
    pub(crate) is_configuration: Option<bool>,
    /// A text in its name or the name of its artifact.
    pub(crate) search: Option<String>,
    /// Only these; empty for any.
    pub(crate) ids: Vec<String>,
    /// Only with one of these names; empty for any.
    pub(crate) names: Vec<String>,
    /// Only of this artifact.
    pub(crate) artifact_name: Option<String>,
    /// Made then or before.
    pub(crate) before: Option<Timestamp>,
    /// Made then or later.
    pub(crate) after: Option<Timestamp>,
    /// The oldest first.
    pub(crate) oldest_first: bool,
    /// How many to leave out.
    pub(crate) skip: u64,
    /// How many at most.
    pub(crate) take: u64,
}

impl DeploymentQuery {
    /// Whether it is about a deployment: what stores are compared with.
    #[cfg(test)]
    pub(crate) fn is_wanted(&self, deployment: &Deployment) -> bool {
        (self.states.is_empty() || self.states.iter().any(|state| state == deployment.state()))
            && self.is_configuration.is_none_or(|wanted| deployment.configuration.is_some() == wanted)
            && self
                .search
                .as_ref()
                .is_none_or(|text| deployment.name.contains(text) || deployment.artifact_name.contains(text))
            && (self.ids.is_empty() || self.ids.contains(&deployment.id))
            && (self.names.is_empty() || self.names.contains(&deployment.name))
            && self.artifact_name.as_ref().is_none_or(|name| *name == deployment.artifact_name)
            && self.before.is_none_or(|time| deployment.created <= time)
            && self.after.is_none_or(|time| deployment.created >= time)
    }
}

/// The devices of one deployment, in the order of their numbers, which is that in which they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecordQuery {
    /// The deployment.
    pub(crate) deployment: String,
    /// Only with one of these statuses; empty for any. A device without a record is `pending`, or `aborted` when the
    /// deployment has ended.
    pub(crate) statuses: Vec<Status>,
    /// With statuses: only with a record.
    pub(crate) recorded: bool,
    /// How many to leave out.
    pub(crate) skip: u64,
    /// How many at most.
    pub(crate) take: u64,
}

/// One device of a deployment; `None` for the record of one that has not asked.
pub(crate) type Listed = (String, Option<DeviceDeployment>);

/// Events of a stream, the newest first.
#[derive(Debug, Clone)]
pub(crate) struct EventQuery {
    /// Which.
    pub(crate) stream: Stream,
    /// Only about one of these; empty for any.
    pub(crate) keys: Vec<String>,
    /// Then or later.
    pub(crate) after: Option<Timestamp>,
    /// Then or before.
    pub(crate) before: Option<Timestamp>,
    /// Values that members of the data have to have, by JSON pointer, such as `/actor/id`.
    pub(crate) members: Vec<(String, String)>,
    /// Only with a greater number.
    pub(crate) above: Option<u64>,
    /// The oldest first.
    pub(crate) oldest_first: bool,
    /// How many to leave out.
    pub(crate) skip: u64,
    /// How many at most.
    pub(crate) take: u64,
    /// Whether nobody asks how many there are in all: then they are not counted, and the total is 0.
    pub(crate) uncounted: bool,
}

impl EventQuery {
    /// All events of a stream, the newest first, and none of them on the page: what is wanted is put over this.
    pub(crate) fn of(stream: Stream) -> EventQuery {
        EventQuery {
            stream,
            keys: Vec::new(),
            after: None,
            before: None,
            members: Vec::new(),
            above: None,
            oldest_first: false,
            skip: 0,
            take: 0,
            uncounted: false,
        }
    }

    /// The events that come behind one. In a store with other numbers that is 0, and its time says where to go on.
    pub(crate) fn behind(stream: Stream, number: u64, time: Timestamp) -> EventQuery {
        let after = (number == 0).then_some(time);
        EventQuery { after, above: Some(number), ..EventQuery::of(stream) }
    }
}

/// An event with its number, which rises with each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbered {
    /// Unique in the store.
    pub(crate) number: u64,
    /// What happened.
    pub(crate) event: super::Event,
}

/// An active deployment, as every process has it in memory.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    /// The deployment. Its counters may be a moment old.
    pub(crate) deployment: Deployment,
    /// The devices that it lists.
    pub(crate) members: std::sync::Arc<RoaringBitmap>,
}
