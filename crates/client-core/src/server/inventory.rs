//! Inventory: what a device tells about itself.

use serde_json::{Value, json};

/// Where it goes.
pub(super) const PATH: &str = "/api/devices/v1/inventory/device/attributes";

/// One inventory attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// One string, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A key that occurred once.
    One(String),
    /// A key that occurred several times, in order.
    Many(Vec<String>),
}

/// The body that reports `attributes`, sorted by name, so that equal inventories are equal bytes.
pub(super) fn body(attributes: &[Attribute]) -> Vec<u8> {
    let mut sorted: Vec<&Attribute> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let list: Vec<Value> = sorted
        .into_iter()
        .map(|Attribute { name, value }| match value {
            AttributeValue::One(value) => json!({ "name": name, "value": value }),
            AttributeValue::Many(values) => json!({ "name": name, "value": values }),
        })
        .collect();
    Value::Array(list).to_string().into_bytes()
}
