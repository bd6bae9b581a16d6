//! What devices report about themselves, and static groups.

use super::{Changed, Fleet};
use crate::domain::limits;
use crate::domain::model::{Attribute, Change, Inventory};
use crate::domain::time::Timestamp;

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
    /// There is no such device.
    NotFound,
    /// With what was reported before, the device would have that many attributes.
    TooMany(usize),
    /// With what was reported before, the attributes of the device would have that many bytes.
    TooLarge(usize),
}

impl Fleet {
    /// Takes a report.
    ///
    /// # Errors
    /// Why it is not taken; then nothing of it is.
    pub(crate) fn report(
        &mut self,
        device: &str,
        attributes: Vec<Attribute>,
        how: Reported,
        now: Timestamp,
    ) -> Changed<(), InventoryError> {
        let (_, entry) = self.devices.get_mut(device).ok_or(InventoryError::NotFound)?;
        let mut inventory = match how {
            Reported::All => Inventory::default(),
            Reported::Some => entry.inventory.clone(),
        };
        inventory
            .attributes
            .extend(attributes.into_iter().map(|attribute| (attribute.name.clone(), attribute)));
        let count = inventory.attributes.len();
        if count > limits::ATTRIBUTES_OF_A_DEVICE {
            return Err(InventoryError::TooMany(count));
        }
        let bytes = inventory.attributes.values().map(size_of).sum();
        if bytes > limits::INVENTORY_BYTES {
            return Err(InventoryError::TooLarge(bytes));
        }
        inventory.updated = Some(now);
        entry.inventory = inventory.clone();
        Ok(((), vec![Change::Inventory(device.to_owned(), inventory)]))
    }

    /// What a device reported.
    pub(crate) fn inventory(&self, device: &str) -> Option<&Inventory> {
        self.devices.get(device).map(|(_, entry)| &entry.inventory)
    }

    /// Puts a device into a group, or with `None` out of all. `None` when there is no such device.
    pub(crate) fn set_group(
        &mut self,
        device: &str,
        group: Option<String>,
        now: Timestamp,
    ) -> Option<Vec<Change>> {
        let (device, _) = self.devices.get_mut(device)?;
        if device.group == group {
            return Some(Vec::new());
        }
        device.group = group;
        device.updated = now;
        Some(vec![Change::Device(device.clone())])
    }
}

fn size_of(attribute: &Attribute) -> usize {
    let description = attribute.description.as_ref().map_or(0, String::len);
    attribute.name.len() + attribute.value.to_string().len() + description
}
