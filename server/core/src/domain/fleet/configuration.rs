//! What devices are to be configured with, and what they say they are.

use std::collections::BTreeMap;

use super::Fleet;
use crate::domain::model::{Change, Configuration};
use crate::domain::time::Timestamp;

impl Fleet {
    /// What is known; `None` before anything was said.
    pub(crate) fn configuration(&self, device: &str) -> Option<&Configuration> {
        self.configurations.get(device)
    }

    /// What the device is to be configured with. `None` when there is no such device.
    pub(crate) fn configure(
        &mut self,
        device: &str,
        configured: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Option<Vec<Change>> {
        self.change_configuration(device, |known| {
            known.configured = configured;
            known.updated_at = Some(now);
        })
    }

    /// What the device says. `None` when there is no such device.
    pub(crate) fn report_configuration(
        &mut self,
        device: &str,
        reported: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Option<Vec<Change>> {
        self.change_configuration(device, |known| {
            known.reported = reported;
            known.reported_at = Some(now);
        })
    }

    /// A deployment brings it there. `None` when there is no such device.
    pub(crate) fn configuration_deployed(&mut self, device: &str, deployment: &str) -> Option<Vec<Change>> {
        self.change_configuration(device, |known| known.deployment = Some(deployment.to_owned()))
    }

    fn change_configuration(
        &mut self,
        device: &str,
        change: impl FnOnce(&mut Configuration),
    ) -> Option<Vec<Change>> {
        if !self.devices.contains_key(device) {
            return None;
        }
        let known = self.configurations.entry(device.to_owned()).or_default();
        change(known);
        Some(vec![Change::Configuration(device.to_owned(), known.clone())])
    }
}
