//! A server on the loopback with a folder of its own, and what the tests ask it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::path::Path;
use std::time::Duration;

use server_core::Options;
use server_core::client::Management;
use testserver::{RecordedRequest, TestServer};

use crate::wait_for;

/// Long enough for anything that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// What a deployment ends with on the server.
pub const FINISHED: [&str; 4] = ["success", "failure", "aborted", "already-installed"];

/// The server.
pub struct Backend {
    /// It.
    pub running: TestServer,
    /// Who may do everything.
    pub management: Management,
    _folder: tempfile::TempDir,
}

impl Backend {
    /// Starts one that remembers requests.
    pub fn start(change: impl FnOnce(Options) -> Options) -> Backend {
        let folder = tempfile::tempdir().unwrap();
        let running = TestServer::start(change(Options::new(folder.path()))).unwrap();
        let management = Management::new(running.url(), running.management_token());
        Backend { running, management, _folder: folder }
    }

    /// Waits for a device that is `pending`, accepts it and gives its id.
    #[track_caller]
    pub fn accept_the_device(&self) -> String {
        let pending = wait_for(PATIENCE, || {
            let devices = self.management.devices().unwrap();
            devices.into_iter().find(|device| device.status == "pending")
        });
        let device = pending.unwrap_or_else(|| panic!("no device asked: {:#?}", self.running.requests()));
        self.management.accept(&device.id).unwrap();
        device.id
    }

    /// The id of the only device, as soon as it has sent its inventory.
    #[track_caller]
    pub fn the_device(&self) -> String {
        let found = wait_for(PATIENCE, || {
            let device = self.management.devices().unwrap().into_iter().next()?;
            (!self.management.inventory(&device.id).ok()?.is_empty()).then_some(device.id)
        });
        found.unwrap_or_else(|| panic!("no device sent its inventory: {:#?}", self.running.requests()))
    }

    /// One attribute of the inventory.
    pub fn attribute(&self, device: &str, name: &str) -> Option<String> {
        let attributes = self.management.inventory(device).ok()?;
        let found = attributes.iter().find(|attribute| attribute["name"] == name)?;
        found["value"].as_str().map(str::to_owned)
    }

    /// Waits until an attribute of the inventory has this value.
    #[track_caller]
    pub fn expect_attribute(&self, device: &str, name: &str, value: &str) {
        let arrived = wait_for(PATIENCE, || (self.attribute(device, name)? == value).then_some(()));
        assert!(arrived.is_some(), "{name} is {:?}, not {value}", self.attribute(device, name));
    }

    /// Uploads an artifact and orders it for every device; gives the id of the deployment.
    #[track_caller]
    pub fn deploy(&self, artifact: &Path, artifact_name: &str) -> String {
        self.management.upload_artifact(artifact).unwrap();
        self.management.deploy(artifact_name, artifact_name, &[]).unwrap()
    }

    /// How far the only device of a deployment is.
    pub fn status(&self, deployment: &str) -> Option<String> {
        let devices = self.management.device_deployments(deployment).ok()?;
        devices.into_iter().next().map(|device| device.status)
    }

    /// How a deployment ended, when it did within `patience`.
    pub fn outcome(&self, deployment: &str, patience: Duration) -> Option<String> {
        wait_for(patience, || self.status(deployment).filter(|status| FINISHED.contains(&&**status)))
    }

    /// Waits for the first request after the first `skip` that `wanted` is true for.
    pub fn request(
        &self,
        skip: usize,
        patience: Duration,
        wanted: impl Fn(&RecordedRequest) -> bool,
    ) -> Option<RecordedRequest> {
        wait_for(patience, || self.running.requests().into_iter().skip(skip).find(|request| wanted(request)))
    }

    /// The statuses that a device reported for a deployment, with what the server answered.
    pub fn reported(&self, deployment: &str) -> Vec<(String, u16)> {
        let path = format!("/{deployment}/status");
        let reports = self.running.requests().into_iter().filter(|request| request.path.ends_with(&path));
        let of_device = reports.filter(|request| request.path.starts_with("/api/devices/"));
        of_device
            .map(|request| {
                let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
                (body["status"].as_str().unwrap().to_owned(), request.status)
            })
            .collect()
    }
}
