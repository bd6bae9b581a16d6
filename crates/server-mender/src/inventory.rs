//! Inventory: what a device tells about itself.

use client_core::server::{Attribute, AttributeValue};
use serde_json::{Value, json};

/// Where it goes.
pub(crate) const PATH: &str = "/api/devices/v1/inventory/device/attributes";

/// The body that reports `attributes`, sorted by name, so that equal inventories are equal bytes.
pub(crate) fn body(attributes: &[Attribute]) -> Vec<u8> {
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
