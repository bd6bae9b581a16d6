//! Searches over what is known of devices.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use hyper::StatusCode;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::inventory::{attributes as attributes_of, describe};
use super::paging::{Direction, Page};
use super::{ApiError, Call, Reply, Shared, reply};
use crate::domain::limits;
use crate::domain::model::Device;

/// Filters and sort criteria of one search.
const CRITERIA: usize = 50;
/// Longest pattern.
const PATTERN_BYTES: usize = 1024;
/// Memory for a compiled pattern, and for what is worked out of it while it is used: the engine is linear in its input, and
/// this bounds the factor.
const PATTERN_MEMORY: usize = 1024 * 1024;

/// Where attributes come from.
const SCOPES: [&str; 5] = ["system", "identity", "inventory", "monitor", "tags"];

#[derive(Deserialize)]
struct Search {
    #[serde(default = "one")]
    page: usize,
    #[serde(default = "per_page")]
    per_page: usize,
    #[serde(default)]
    filters: Vec<Filter>,
    #[serde(default)]
    sort: Vec<Sort>,
    #[serde(default)]
    attributes: Vec<Selected>,
    #[serde(default)]
    device_ids: Vec<String>,
    #[serde(default)]
    text: String,
}

fn one() -> usize {
    1
}

fn per_page() -> usize {
    limits::PER_PAGE_DEFAULT
}

#[derive(Deserialize)]
struct Filter {
    #[serde(default = "inventory_scope")]
    scope: String,
    attribute: String,
    #[serde(rename = "type")]
    kind: String,
    value: Value,
}

fn inventory_scope() -> String {
    "inventory".to_owned()
}

#[derive(Deserialize)]
struct Sort {
    #[serde(default = "inventory_scope")]
    scope: String,
    attribute: String,
    #[serde(default)]
    order: String,
}

#[derive(Deserialize)]
struct Selected {
    #[serde(default = "inventory_scope")]
    scope: String,
    attribute: String,
}

/// A filter that was understood.
enum Test {
    Equal(Value),
    NotEqual(Value),
    Order(fn(Ordering) -> bool, Value),
    In(Vec<Value>),
    NotIn(Vec<Value>),
    Exists(bool),
    Matches(Regex),
}

impl Test {
    fn parse(kind: &str, value: Value) -> Result<Test, ApiError> {
        let list = |value: Value| match value {
            Value::Array(values) => Ok(values),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Err(ApiError::bad_request("the value has to be a list"))
            }
        };
        Ok(match kind {
            "$eq" => Test::Equal(value),
            "$ne" => Test::NotEqual(value),
            "$gt" => Test::Order(Ordering::is_gt, value),
            "$gte" => Test::Order(Ordering::is_ge, value),
            // In the reference server's list: less, and not equal.
            "$lt" | "$ltne" => Test::Order(Ordering::is_lt, value),
            "$lte" => Test::Order(Ordering::is_le, value),
            "$in" => Test::In(list(value)?),
            "$nin" => Test::NotIn(list(value)?),
            "$exists" => Test::Exists(
                value.as_bool().ok_or_else(|| ApiError::bad_request("the value has to be true or false"))?,
            ),
            "$regex" => Test::Matches(pattern(value.as_str().unwrap_or_default())?),
            other => return Err(ApiError::bad_request(&format!("there is no filter type {other}"))),
        })
    }

    /// A list has what one of its values has.
    fn holds(&self, value: Option<&Value>) -> bool {
        let values: &[Value] = match value {
            None => &[],
            Some(Value::Array(values)) => values,
            Some(one) => std::slice::from_ref(one),
        };
        match self {
            Test::Equal(wanted) => value == Some(wanted) || values.contains(wanted),
            Test::NotEqual(wanted) => value != Some(wanted) && !values.contains(wanted),
            Test::Order(holds, wanted) => values.iter().any(|value| order(value, wanted).is_some_and(holds)),
            Test::In(wanted) => values.iter().any(|value| wanted.contains(value)),
            Test::NotIn(wanted) => !values.iter().any(|value| wanted.contains(value)),
            Test::Exists(wanted) => value.is_some() == *wanted,
            Test::Matches(regex) => {
                values.iter().any(|value| value.as_str().is_some_and(|v| regex.is_match(v)))
            }
        }
    }
}

/// Anchored at its start, as in the reference server; `/pattern/i` is the other way to write one.
pub(crate) fn pattern(text: &str) -> Result<Regex, ApiError> {
    let (text, flags) = match text.strip_prefix('/').and_then(|rest| rest.rsplit_once('/')) {
        Some((text, flags)) => (text, flags),
        None => (text, ""),
    };
    if text.len() > PATTERN_BYTES {
        return Err(ApiError::bad_request("the pattern is too long"));
    }
    RegexBuilder::new(&format!("^(?:{text})"))
        .case_insensitive(flags.contains('i'))
        .size_limit(PATTERN_MEMORY)
        .dfa_size_limit(PATTERN_MEMORY)
        .build()
        .map_err(|error| ApiError::bad_request(&format!("the pattern: {error}")))
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

fn find<'a>(attributes: &'a [Value], scope: &str, name: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute["scope"] == scope && attribute["name"] == name);
    found.map(|attribute| &attribute["value"])
}

/// Values in the order of a list: what is not there comes first, and what cannot be compared is equal.
pub(super) fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => order(a, b).unwrap_or(Ordering::Equal),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// A misspelt scope would be one in which nothing is ever found.
fn check_scope(scope: &str) -> Result<(), ApiError> {
    match SCOPES.contains(&scope) {
        true => Ok(()),
        false => Err(ApiError::bad_request(&format!("scope is one of {}", SCOPES.join(", ")))),
    }
}

/// `POST filters/search`.
pub(super) fn search(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let search: Search = call.json()?;
    let page = Page::new(search.page, search.per_page)?;
    if search.filters.len() > CRITERIA
        || search.sort.len() > CRITERIA
        || search.attributes.len() > limits::PER_PAGE
    {
        return Err(ApiError::bad_request("too many criteria"));
    }
    let scopes = search.filters.iter().map(|filter| &filter.scope);
    let scopes = scopes.chain(search.sort.iter().map(|sort| &sort.scope));
    for scope in scopes.chain(search.attributes.iter().map(|selected| &selected.scope)) {
        check_scope(scope)?;
    }
    let mut tests = Vec::new();
    for Filter { scope, attribute, kind, value } in search.filters {
        tests.push((scope, attribute, Test::parse(&kind, value)?));
    }
    let fleet = shared.fleet();
    let has_text = |attributes: &[Value]| {
        let within = |value: &Value| value.as_str().is_some_and(|value| value.contains(&search.text));
        search.text.is_empty() || attributes.iter().any(|attribute| within(&attribute["value"]))
    };
    let mut found: Vec<(&Device, Vec<Value>)> = fleet
        .devices()
        .filter(|device| search.device_ids.is_empty() || search.device_ids.contains(&device.id))
        .map(|device| (device, attributes_of(&fleet, device)))
        .filter(|(_, own)| tests.iter().all(|(scope, name, test)| test.holds(find(own, scope, name))))
        .filter(|(_, own)| has_text(own))
        .collect();
    for Sort { scope, attribute, order } in search.sort.iter().rev() {
        let direction = Direction::parse(order)?;
        found.sort_by(|(_, a), (_, b)| {
            direction.apply(compare(find(a, scope, attribute), find(b, scope, attribute)))
        });
    }
    let selected = |attribute: &Value| {
        let is = |one: &Selected| attribute["scope"] == one.scope && attribute["name"] == one.attribute;
        search.attributes.is_empty() || search.attributes.iter().any(is)
    };
    Ok(page.list(call, &found, |(device, own)| {
        let mut described = describe(&fleet, device);
        let mut attributes: Vec<Value> =
            own.iter().filter(|attribute| selected(attribute)).cloned().collect();
        // As they were sent: when that was is in the list of devices.
        for attribute in attributes.iter_mut().filter_map(Value::as_object_mut) {
            attribute.remove("timestamp");
        }
        described["attributes"] = Value::Array(attributes);
        described
    }))
}

/// `GET filters/attributes`: what there is to search for.
pub(super) fn attributes(shared: &Shared) -> Result<Reply, ApiError> {
    let fleet = shared.fleet();
    let mut known = BTreeSet::new();
    for device in fleet.devices() {
        for attribute in attributes_of(&fleet, device) {
            let text = |name: &str| attribute[name].as_str().unwrap_or_default().to_owned();
            known.insert((text("scope"), text("name")));
        }
    }
    let known: Vec<Value> =
        known.iter().map(|(scope, name)| json!({ "scope": scope, "name": name, "count": 1 })).collect();
    Ok(reply::json(StatusCode::OK, &known))
}

#[cfg(test)]
mod tests {
    use super::Test;
    use serde_json::{Value, json};

    fn check(kind: &str, wanted: Value, value: Option<Value>, holds: bool) {
        let test = Test::parse(kind, wanted).unwrap();
        assert_eq!(test.holds(value.as_ref()), holds, "{kind}");
    }

    #[test]
    fn each_filter_type_holds_or_does_not() {
        let a = || Some(json!("a"));
        check("$eq", json!("a"), a(), true);
        check("$eq", json!("a"), Some(json!(["b", "a"])), true);
        check("$eq", json!("a"), None, false);
        check("$ne", json!("a"), a(), false);
        check("$ne", json!("a"), None, true);
        check("$gt", json!(1), Some(json!(1.5)), true);
        check("$gt", json!(1), Some(json!("2")), false);
        check("$lte", json!("b"), a(), true);
        check("$in", json!(["a", "b"]), a(), true);
        check("$nin", json!(["a", "b"]), a(), false);
        check("$exists", json!(false), None, true);
        check("$regex", json!("a.c"), Some(json!("abcd")), true);
        check("$regex", json!("b"), Some(json!("ab")), false);
        check("$regex", json!("/AB/i"), Some(json!("ab")), true);
    }

    #[test]
    fn bad_filters_are_refused() {
        for (kind, value) in [
            ("$where", json!(1)),
            ("$in", json!("a")),
            ("$exists", json!(1)),
            ("$regex", json!("(")),
            ("$regex", json!("(a{900}){900}")),
        ] {
            assert!(Test::parse(kind, value).is_err(), "{kind}");
        }
    }
}
