//! The machine around a device of files: it starts, tries slots as its bootloader is told, and runs the daemon.

use std::path::{Path, PathBuf};

use client_core::slot::Slot;
use testkit::bootloader::{Boot, Startup};

use super::timeline::Who;
use crate::image;
use crate::process::Process;
use crate::virtual_device::VirtualDevice;
use xtask::Outcome;

/// A device, and what runs on it.
pub struct Machine {
    pub device: VirtualDevice,
    client: PathBuf,
    /// The log of its daemon.
    pub log: PathBuf,
    /// The slot it runs from.
    pub running: Slot,
    /// While it runs.
    daemon: Option<Process>,
}

impl Machine {
    /// Not started yet.
    pub fn new(device: VirtualDevice, client: PathBuf, log: PathBuf) -> Machine {
        Machine { device, client, log, running: Slot::A, daemon: None }
    }

    /// What runs on it.
    pub fn daemon(&self) -> Outcome<&Process> {
        self.daemon.as_ref().ok_or_else(|| "the machine does not run".to_owned())
    }

    /// The client.
    pub fn client(&self) -> &Path {
        &self.client
    }

    /// It goes down with everything that runs on it, and starts as often as it takes until a slot comes up. `tell` hears of it.
    pub fn restart(&mut self, tell: &mut dyn FnMut(Who, &str)) -> Outcome {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        tell(Who::Machine, "starts");
        let device = &self.device;
        let mut tried = None;
        let boot = device.boot(&mut |slot| {
            if tried.replace(slot).is_some_and(|before| before != slot) {
                tell(Who::Bootloader, "boot limit exceeded: falls back to the other slot");
            }
            tell(Who::Bootloader, &format!("boots slot {slot}"));
            match image::read_mark(&device.slot(slot)) {
                Some((version, true)) => {
                    tell(Who::Machine, &format!("version {version} comes up"));
                    Startup::ComesUp
                }
                Some((version, false)) => {
                    tell(Who::Machine, &format!("version {version} hangs; the watchdog resets the machine"));
                    Startup::Fails
                }
                None => {
                    tell(Who::Machine, "nothing bootable there; the watchdog resets the machine");
                    Startup::Fails
                }
            }
        })?;
        match boot {
            Boot::Up { slot, .. } => {
                self.running = slot;
                self.device.set_running(slot)?;
            }
            Boot::Stuck { slot, .. } => return Err(format!("the machine is stuck in slot {slot}")),
        }
        let mut command = self.device.client(&self.client);
        self.daemon = Some(Process::start(command.arg("daemon"), &self.log)?);
        Ok(())
    }
}
