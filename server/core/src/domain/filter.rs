//! Filters over devices, and those that are kept: a kept filter is a group whose devices are whoever it holds for.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json;
use crate::work::query::{Attr, BadPattern, Bound, DeviceQuery, SCOPES, Scope, Test, pattern};

/// A filter that people have kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Filter {
    /// UUID.
    #[serde(default)]
    pub(crate) id: String,
    /// For people.
    pub(crate) name: String,
    /// All have to hold.
    pub(crate) terms: Vec<Term>,
}

/// What has to hold for one attribute, as it is on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Term {
    /// Where the attribute comes from.
    #[serde(default = "inventory_scope")]
    pub(crate) scope: String,
    /// Its name.
    pub(crate) attribute: String,
    /// How it is compared.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// With what.
    pub(crate) value: Value,
}

/// Who names no scope means what devices report.
pub(crate) fn inventory_scope() -> String {
    Scope::Inventory.name().to_owned()
}

/// Why a term has no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TermError {
    /// A misspelt scope would be one in which nothing is ever found.
    Scope,
    /// There is no such way to compare.
    Kind(String),
    /// The value has to be a list.
    NoList,
    /// The value has to be true or false.
    NoBoolean,
    /// The pattern is none.
    Pattern(String),
}

impl fmt::Display for TermError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TermError::Scope => write!(f, "scope is one of {}", SCOPES.map(Scope::name).join(", ")),
            TermError::Kind(kind) => write!(f, "there is no filter type {kind}"),
            TermError::NoList => write!(f, "the value has to be a list"),
            TermError::NoBoolean => write!(f, "the value has to be true or false"),
            TermError::Pattern(reason) => f.write_str(reason),
        }
    }
}

impl From<BadPattern> for TermError {
    fn from(BadPattern(reason): BadPattern) -> TermError {
        TermError::Pattern(reason)
    }
}

/// An attribute by the names of the wire.
///
/// # Errors
/// There is no such scope.
pub(crate) fn attr(scope: &str, name: &str) -> Result<Attr, TermError> {
    let scope = Scope::parse(scope).ok_or(TermError::Scope)?;
    Ok(Attr { scope: Some(scope), name: name.to_owned() })
}

impl Term {
    /// What it means.
    ///
    /// # Errors
    /// Why it has no meaning.
    pub(crate) fn parse(self) -> Result<(Attr, Test), TermError> {
        Ok((attr(&self.scope, &self.attribute)?, test(&self.kind, self.value)?))
    }
}

/// The devices that a kept filter is about, whatever the page.
///
/// # Errors
/// It was kept by a server that knows more ways to compare.
pub(crate) fn filter_query(filter: &Filter) -> Result<DeviceQuery, TermError> {
    let tests: Result<Vec<_>, TermError> = filter.terms.iter().cloned().map(Term::parse).collect();
    Ok(DeviceQuery { tests: tests?, ..DeviceQuery::default() })
}

fn test(kind: &str, value: Value) -> Result<Test, TermError> {
    let value = json::in_one_way(value);
    let list = |value: Value| match value {
        Value::Array(values) => Ok(values),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Err(TermError::NoList)
        }
    };
    Ok(match kind {
        "$eq" => Test::Equal(value),
        "$ne" => Test::NotEqual(value),
        "$gt" => Test::Order(Bound::Above, value),
        "$gte" => Test::Order(Bound::From, value),
        // In the reference server's list: less, and not equal.
        "$lt" | "$ltne" => Test::Order(Bound::Below, value),
        "$lte" => Test::Order(Bound::To, value),
        "$in" => Test::In(list(value)?),
        "$nin" => Test::NotIn(list(value)?),
        "$exists" => Test::Exists(value.as_bool().ok_or(TermError::NoBoolean)?),
        "$regex" => Test::Matches(pattern(value.as_str().unwrap_or_default())?),
        other => return Err(TermError::Kind(other.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::test;
    use serde_json::{Value, json};

    fn check(kind: &str, wanted: Value, value: Option<Value>, holds: bool) {
        let test = test(kind, wanted).unwrap();
        assert_eq!(test.holds(value.as_ref()), holds, "{kind}");
    }

    #[test]
    fn each_filter_type_holds_or_does_not() {
        let a = || Some(json!("a"));
        check("$eq", json!("a"), a(), true);
        check("$eq", json!("a"), Some(json!(["b", "a"])), true);
        check("$eq", json!("a"), None, false);
        check("$eq", json!(10.0), Some(json!(10)), true);
        check("$ne", json!(-0.0), Some(json!(0)), false);
        check("$in", json!([1e1]), Some(json!([9, 10])), true);
        check("$eq", json!(10.5), Some(json!(10)), false);
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
            assert!(test(kind, value).is_err(), "{kind}");
        }
    }
}
