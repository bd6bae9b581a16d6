//! What devices report about themselves, static groups, and what people say about devices.

use std::collections::BTreeMap;

use super::admission::{SpeakError, speaking};
use super::json;
use super::limits;
use super::token::Claims;
use crate::model::time::Timestamp;
use crate::model::{Attribute, Inventory, Tag};
use crate::work::{NotLoaded, Work};

/// How a report is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// It is everything there is.
    All,
    /// It is what has changed.
    Some,
}

/// Why a report is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InventoryError {
    /// Something has to be loaded first.
    NotLoaded,
    /// There is no such device.
    NotFound,
    /// The token does not speak for the device any more.
    Unauthorized,
    /// With what was reported before, the device would have that many attributes.
    TooMany(usize),
    /// With what was reported before, the attributes of the device would have that many bytes.
    TooLarge(usize),
    /// The device would have that many tags.
    TooManyTags(usize),
    /// The tags are not those that they were said to be.
    Changed,
}

impl From<NotLoaded> for InventoryError {
    fn from(_: NotLoaded) -> InventoryError {
        InventoryError::NotLoaded
    }
}

impl From<SpeakError> for InventoryError {
    fn from(error: SpeakError) -> InventoryError {
        match error {
            SpeakError::NotLoaded => InventoryError::NotLoaded,
            SpeakError::Unauthorized => InventoryError::Unauthorized,
        }
    }
}

/// What a device has reported after a report; `None` when the report says what the one before it did. That is most of them,
/// and then only its time is new.
///
/// # Errors
/// Why it is not taken; then nothing of it is.
pub(crate) fn reported(
    before: &Inventory,
    attributes: &[Attribute],
    how: Reported,
    now: Timestamp,
) -> Result<Option<Inventory>, InventoryError> {
    let mut after = match how {
        Reported::All => Inventory::default(),
        Reported::Some => before.clone(),
    };
    for attribute in attributes {
        let value = json::in_one_way(attribute.value.clone());
        let taken = Attribute { value, timestamp: now, ..attribute.clone() };
        after.attributes.insert(attribute.name.clone(), taken);
    }
    let count = after.attributes.len();
    if count > limits::ATTRIBUTES_OF_A_DEVICE {
        return Err(InventoryError::TooMany(count));
    }
    let bytes = after.attributes.values().map(size_of).sum();
    if bytes > limits::INVENTORY_BYTES {
        return Err(InventoryError::TooLarge(bytes));
    }
    let is_same = |a: &Attribute, b: &Attribute| a.value == b.value && a.description == b.description;
    let says_the_same = before.updated.is_some()
        && count == before.attributes.len()
        && after
            .attributes
            .values()
            .zip(before.attributes.values())
            .all(|(a, b)| a.name == b.name && is_same(a, b));
    after.updated = Some(now);
    Ok((!says_the_same).then_some(after))
}

/// Takes a report of a device. Whether it says anything new.
///
/// # Errors
/// Why it is not taken; then nothing of it is.
pub(crate) fn report(
    work: &mut Work,
    claims: &Claims,
    attributes: &[Attribute],
    how: Reported,
) -> Result<bool, InventoryError> {
    speaking(work, claims)?;
    let before = work.inventory(&claims.sub)?;
    let after = reported(&before, attributes, how, work.now())?;
    let is_new = after.is_some();
    let after = after.unwrap_or(Inventory { updated: Some(work.now()), ..before });
    work.put_inventory(&claims.sub, after)?;
    Ok(is_new)
}

/// Takes away what a device has reported; it may report again.
///
/// # Errors
/// There is no such device.
pub(crate) fn forget(work: &mut Work, device: &str) -> Result<(), InventoryError> {
    work.device(device)?.ok_or(InventoryError::NotFound)?;
    work.inventory(device)?;
    Ok(work.put_inventory(device, Inventory::default())?)
}

/// Puts a device that is in `from`, or with `None` anywhere, into a group, or with `None` out of all. Whether it was in
/// another one; `None` when there is no such device.
///
/// # Errors
/// The device has to be loaded.
pub(crate) fn set_group(
    work: &mut Work,
    device: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<Option<bool>, NotLoaded> {
    let Some(mut device) = work.device(device)? else { return Ok(None) };
    if from.is_some() && device.group.as_deref() != from {
        return Ok(None);
    }
    if device.group.as_deref() == to {
        return Ok(Some(false));
    }
    device.group = to.map(str::to_owned);
    device.updated = work.now();
    work.put_device(device)?;
    Ok(Some(true))
}

/// Says something about a device, in place of or beside what was said. `is_expected` looks at what was.
///
/// # Errors
/// There is no such device, or it would have too many.
pub(crate) fn set_tags(
    work: &mut Work,
    device: &str,
    tags: BTreeMap<String, Tag>,
    how: Reported,
    is_expected: impl Fn(&BTreeMap<String, Tag>) -> bool,
) -> Result<(), InventoryError> {
    let mut device = work.device(device)?.ok_or(InventoryError::NotFound)?;
    if !is_expected(&device.tags) {
        return Err(InventoryError::Changed);
    }
    let mut after = match how {
        Reported::All => BTreeMap::new(),
        Reported::Some => device.tags.clone(),
    };
    after.extend(tags);
    if after.len() > limits::TAGS {
        return Err(InventoryError::TooManyTags(after.len()));
    }
    if device.tags != after {
        device.tags = after;
        work.put_device(device)?;
    }
    Ok(())
}

fn size_of(attribute: &Attribute) -> usize {
    let description = attribute.description.as_ref().map_or(0, String::len);
    attribute.name.len() + attribute.value.to_string().len() + description
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn attribute(name: &str, value: Value) -> Attribute {
        Attribute { name: name.to_owned(), value, description: None, timestamp: Timestamp(0) }
    }

    #[test]
    fn only_a_report_that_says_something_new_is_written() {
        let first = [attribute("a", json!(1)), attribute("b", json!("x"))];
        let before = reported(&Inventory::default(), &first, Reported::All, Timestamp(1)).unwrap().unwrap();
        assert_eq!(before.updated, Some(Timestamp(1)));
        let again = |attributes: &[Attribute], how| reported(&before, attributes, how, Timestamp(2)).unwrap();
        assert_eq!(again(&first, Reported::All), None);
        assert_eq!(again(&first[..1], Reported::Some), None);
        assert_eq!(again(&first[..1], Reported::All).unwrap().attributes.len(), 1);
        assert_eq!(again(&[attribute("c", json!(1))], Reported::Some).unwrap().attributes.len(), 3);
        let other = again(&[attribute("a", json!("1"))], Reported::Some).unwrap();
        assert_eq!(other.attributes["a"].timestamp, Timestamp(2));
        let empty = reported(&Inventory::default(), &[], Reported::All, Timestamp(1)).unwrap();
        assert!(empty.is_some(), "the first report is new, even an empty one");
    }

    #[test]
    fn a_device_has_no_more_than_the_limits_allow() {
        let many: Vec<_> = (0..501).map(|n| attribute(&n.to_string(), json!(n))).collect();
        let refused = |attributes: &[Attribute]| {
            reported(&Inventory::default(), attributes, Reported::Some, Timestamp(1)).unwrap_err()
        };
        assert_eq!(refused(&many), InventoryError::TooMany(501));
        let large = [attribute("a", json!("x".repeat(limits::INVENTORY_BYTES)))];
        assert!(matches!(refused(&large), InventoryError::TooLarge(_)));
    }
}
