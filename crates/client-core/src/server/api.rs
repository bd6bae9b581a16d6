//! The calls of the device API, with the token, the choice of the server, and the variant each server speaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Credentials, ServerError, Transport};
use crate::clock::Clock;

/// What does not change while the process runs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `ServerURL` or `Servers`, in order.
    pub servers: Vec<String>,
    /// `TenantToken`; empty when there is none.
    pub tenant_token: String,
    /// `DeviceTier`.
    pub device_tier: Option<String>,
}

/// The device API of whichever server accepts this device.
pub struct Api {
    transport: Box<dyn Transport>,
    credentials: Box<dyn Credentials>,
    clock: Arc<dyn Clock>,
    settings: Settings,
}

/// A deployment that the server orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub id: String,
    /// Where the artifact is.
    pub artifact_url: String,
    /// The artifact's name, where the server told it.
    pub artifact_name: Option<String>,
    /// The device types it is for; empty where the server did not tell.
    pub device_types: Vec<String>,
}

/// What is reported about a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeploymentStatus {
    /// The artifact is being taken in.
    Downloading,
    /// It is being installed, or is about to be committed.
    Installing,
    /// The device restarts into it.
    Rebooting,
    /// It is installed for good.
    Success,
    /// It is not.
    Failure,
}

impl DeploymentStatus {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            DeploymentStatus::Downloading => "downloading",
            DeploymentStatus::Installing => "installing",
            DeploymentStatus::Rebooting => "rebooting",
            DeploymentStatus::Success => "success",
            DeploymentStatus::Failure => "failure",
        }
    }
}

/// What the server says to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportAnswer {
    /// Noted.
    Accepted,
    /// The deployment was aborted (409).
    Aborted,
    /// The server will never take this report (404 unknown deployment, 400, 413): repeating it is pointless.
    Refused,
}

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

impl Api {
    /// Nothing is sent yet.
    pub fn new(
        transport: Box<dyn Transport>,
        credentials: Box<dyn Credentials>,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Api {
        Api { transport, credentials, clock, settings }
    }

    /// Gets a token if there is none, trying the servers in order. Every other call does this by itself.
    ///
    /// # Errors
    /// When no server accepts the device.
    pub fn authenticate(&mut self) -> Result<(), ServerError> {
        let _ = (&mut self.transport, &mut self.credentials, &self.clock, &self.settings);
        Err(ServerError::NoServer)
    }

    /// Drops the token: the next call authenticates anew.
    pub fn forget_token(&mut self) {}

    /// Whether there is a token.
    pub fn is_authorized(&self) -> bool {
        false
    }

    /// The server in use, for messages.
    pub fn server(&self) -> Option<&str> {
        None
    }

    /// Asks for a deployment. `provides` is everything the device provides, `device_type` and `artifact_name` among it.
    ///
    /// # Errors
    /// When there is no valid answer.
    pub fn next_deployment(
        &mut self,
        provides: &BTreeMap<String, String>,
    ) -> Result<Option<Offer>, ServerError> {
        let _ = provides;
        Err(ServerError::NoServer)
    }

    /// Reports a status of deployment `id`; one attempt.
    ///
    /// # Errors
    /// When the report may not have arrived and may be repeated.
    pub fn report(&mut self, id: &str, status: DeploymentStatus) -> Result<ReportAnswer, ServerError> {
        let _ = (id, status);
        Err(ServerError::NoServer)
    }

    /// Uploads the log of deployment `id`: `messages` is the JSON array's items, joined by commas, as
    /// `deployment_log` made them.
    ///
    /// # Errors
    /// When the server did not take it.
    pub fn upload_log(&mut self, id: &str, messages: &[u8]) -> Result<ReportAnswer, ServerError> {
        let _ = (id, messages);
        Err(ServerError::NoServer)
    }

    /// Sends the inventory, unless it equals the last one that this server accepted under this token.
    ///
    /// # Errors
    /// When the server did not take it.
    pub fn send_inventory(&mut self, attributes: &[Attribute]) -> Result<(), ServerError> {
        let _ = attributes;
        Err(ServerError::NoServer)
    }
}
