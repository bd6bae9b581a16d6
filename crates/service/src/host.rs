//! The seams of the agent on this device.

use std::sync::Arc;
use std::time::Duration;

use client_core::agent::{Event, Host, HostError, Known};
use client_core::clock::Clock;
use client_core::deploy::scripts::ScriptRunner;
use client_core::deploy::{DeploymentId, Device, Policy, PolicyError, Reporter};
#[cfg(feature = "monitor")]
use client_core::monitor::Watch;
use client_core::server::{Attribute, AttributeValue, Transport};
use client_core::slot::System;
use linux::inventory;
use linux::key_values::RunLimits;
use linux::lock::LockError;
use linux::state_scripts::LinuxScripts;

use crate::deployment_log::{DeploymentLogs, Logs};
use crate::watcher::{Watcher, show_record};
use device::compose::{ComposeError, Setup};
use device::gates::{Gates, SharedQuestion};
use http::{HttpTransport, IdleConnections};

/// A longer wait is not worth an open connection: the buffers of both sides, and a server that closes it meanwhile.
const KEEP_CONNECTION: Duration = Duration::from_secs(60);

/// The seams of the agent on this device.
pub(crate) struct LinuxHost {
    pub(crate) setup: Arc<Setup>,
    scripts: LinuxScripts,
    kept_logs: DeploymentLogs,
    logs: Box<dyn Logs>,
    pub(crate) watcher: Watcher,
    /// The certificates and sessions that all connections share.
    transport: HttpTransport,
    /// Connections to the server, closed before a wait that they would not outlive.
    api_connections: IdleConnections,
    /// Connections of the last download, closed behind it.
    download_connections: Option<IdleConnections>,
    gates: Gates,
    /// The question that the gates may have put.
    question: SharedQuestion,
    clock: Arc<dyn Clock>,
    /// What is watched, where something is.
    #[cfg(feature = "monitor")]
    watch: Option<Watch>,
}

impl LinuxHost {
    pub(crate) fn new(
        setup: Arc<Setup>,
        watcher: Watcher,
        logs: Box<dyn Logs>,
        (transport, api_connections): (HttpTransport, IdleConnections),
        (gates, question): (Gates, SharedQuestion),
        clock: Arc<dyn Clock>,
    ) -> LinuxHost {
        LinuxHost {
            scripts: setup.scripts(Arc::clone(&clock)),
            kept_logs: DeploymentLogs::new(setup.deployment_log_directory()),
            setup,
            logs,
            watcher,
            transport,
            api_connections,
            download_connections: None,
            gates,
            question,
            clock,
            #[cfg(feature = "monitor")]
            watch: None,
        }
    }

    /// Has something to watch.
    #[cfg(feature = "monitor")]
    pub(crate) fn watching(self, watch: Option<Watch>) -> LinuxHost {
        let host = LinuxHost { watch, ..self };
        host.show_checks();
        host
    }

    /// Says on the board how the checks are.
    #[cfg(feature = "monitor")]
    fn show_checks(&self) {
        if let Some(watch) = &self.watch {
            self.watcher.board().lock().set_monitor(watch.states());
        }
    }
}

impl Host for LinuxHost {
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), HostError> {
        // Only while there is something to do: the command line works beside a daemon that waits.
        let mut device = self.setup.open_device(&self.clock).map_err(no_device)?;
        work(&mut device.seams(&mut self.watcher, &mut self.gates, reporter));
        Ok(())
    }

    fn look(&mut self) -> Result<Option<Known>, HostError> {
        let _lock = self.setup.lock().map_err(no_device)?;
        // A record that is not there, or cannot be read, is for who may make another one.
        let Ok(Some(record)) = self.setup.read_record() else { return Ok(None) };
        Ok(Some(Known { record, device_type: self.setup.system().device_type() }))
    }

    fn policy(&mut self) -> Result<Policy, PolicyError> {
        self.setup.policy().map_err(PolicyError::new)
    }

    fn scripts(&mut self) -> &mut dyn ScriptRunner {
        &mut self.scripts
    }

    fn inventory(&mut self) -> Result<Vec<Attribute>, HostError> {
        let directory = self.setup.inventory_directory();
        inventory::ask(&directory, RunLimits::default(), &*self.clock)
            .map(|attributes| with_own_attributes(attributes, self.known()))
            .map_err(|error| HostError::Inventory(error.into()))
    }

    #[cfg(feature = "monitor")]
    fn watch(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut()
    }

    fn download_transport(&mut self) -> Box<dyn Transport> {
        let transport = self.transport.another();
        self.download_connections = Some(transport.idle_connections());
        Box::new(transport)
    }

    fn begin_log(&mut self, id: &DeploymentId) {
        let log = self.kept_logs.open(id).inspect_err(|error| {
            log::warn!("deployment {id}: going on without a log of its own: {error}");
        });
        self.logs.begin_deployment(id, log.ok());
    }

    fn end_log(&mut self) {
        self.logs.end_deployment();
        if let Some(connections) = self.download_connections.take() {
            connections.close();
        }
    }

    fn log_messages(&mut self, id: &DeploymentId) -> Vec<u8> {
        self.kept_logs
            .read_for_upload(id)
            .unwrap_or_else(|error| {
                log::warn!("deployment {id}: its log cannot be sent: {error}");
                None
            })
            .unwrap_or_default()
    }

    fn tell(&mut self, event: &Event<'_>) {
        if let Event::Idle { next_check, next_inventory } = event {
            if (*next_check).min(*next_inventory) > KEEP_CONNECTION {
                self.api_connections.close();
            }
        }
        // Behind a look, and before each wait: what was sent meanwhile does not wait any more.
        #[cfg(feature = "monitor")]
        if matches!(event, Event::Looked | Event::Idle { .. }) {
            self.show_checks();
        }
        if matches!(event, Event::Ended { .. }) {
            self.question.clear();
            show_record(&self.setup, self.watcher.board());
        }
        let config = &self.setup.config;
        let script = config.state_script_timeout;
        let scripts = script.saturating_add(config.state_script_retry_timeout);
        // Of one stage: its scripts before and behind it, and the calls of an update module (clean-up, question, download).
        let calls = config.module_timeout.saturating_mul(3);
        self.watcher.tell(event, scripts, script.saturating_mul(2).max(scripts).saturating_add(calls));
    }
}

fn no_device(error: ComposeError) -> HostError {
    match error {
        ComposeError::Lock(LockError::Held { .. }) => HostError::Busy(error.into()),
        ComposeError::Lock(_)
        | ComposeError::Config(_)
        | ComposeError::Key { .. }
        | ComposeError::State(_)
        | ComposeError::Record(_)
        | ComposeError::Io { .. }
        | ComposeError::LogLevel(_) => HostError::Device(error.into()),
    }
}

impl LinuxHost {
    /// What the server wants to know of every device, whatever programs it has.
    fn known(&self) -> Vec<(&'static str, String)> {
        let record = self.setup.read_record().map_err(|error| error.to_string());
        let name = record.map(|record| record.unwrap_or_default().installed.name().to_owned());
        let device_type = self.setup.system().device_type().map_err(|error| error.to_string());
        let mut known = Vec::new();
        if let Some(error) = &self.setup.config_error {
            known.push(("rust_ota_config_error", error.to_string()));
        }
        for (key, value) in [("artifact_name", name), ("device_type", device_type)] {
            match value {
                Ok(value) => known.push((key, value)),
                Err(error) => log::warn!("the inventory goes without {key}: {error}"),
            }
        }
        known
    }
}

/// Adds what the client itself knows; a program that says it too is believed.
fn with_own_attributes(mut attributes: Vec<Attribute>, known: Vec<(&'static str, String)>) -> Vec<Attribute> {
    let external = attributes.iter().any(|attribute| attribute.name == "mender_client_version");
    let said = |name: &str| attributes.iter().any(|attribute| attribute.name == name);
    let known: Vec<_> = known.into_iter().filter(|(name, _)| !said(name)).collect();
    let mut add = |name: &str, value: &str| {
        attributes.push(Attribute { name: name.to_owned(), value: AttributeValue::One(value.to_owned()) });
    };
    if !external {
        add("mender_client_version", env!("CARGO_PKG_VERSION"));
    }
    for (name, value) in &known {
        add(name, value);
    }
    add("mender_client_version_provider", if external { "external" } else { "internal" });
    attributes
}
