//! What devices report about themselves, and static groups.

use super::Fleet;
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

impl Fleet {
    /// Takes a report. `None` when there is no such device; no change when it says nothing new.
    pub(crate) fn report(
        &mut self,
        device: &str,
        attributes: Vec<Attribute>,
        how: Reported,
        now: Timestamp,
    ) -> Option<Vec<Change>> {
        let (_, entry) = self.devices.get_mut(device)?;
        let mut inventory = match how {
            Reported::All => Inventory::default(),
            Reported::Some => entry.inventory.clone(),
        };
        inventory
            .attributes
            .extend(attributes.into_iter().map(|attribute| (attribute.name.clone(), attribute)));
        inventory.updated = Some(now);
        entry.inventory = inventory.clone();
        Some(vec![Change::Inventory(device.to_owned(), inventory)])
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
