//! What is right and what is wrong with a board, told without changing anything: `rust-ota doctor`.
//!
//! Each area of a board is a module with its facts, gathered by reading only, and a pure function that
//! makes findings of them. It opens nothing for writing, makes no file, takes no lock and flushes nothing, so that it works
//! beside a running daemon and on a read-only root. It does not say that a board works: only what it saw.

#![forbid(unsafe_code)]

mod bootloader;
mod config;
mod data;
mod env;
mod finding;
mod identity;
mod keys;
mod memory;
mod programs;
mod record;
mod report;
mod server;
mod service;
mod slots;
#[cfg(test)]
mod tests;
mod world;

pub use finding::{CHECKS, Check, Finding, Level};
pub use report::Report;
pub use world::World;

use std::path::PathBuf;
use std::time::Duration;

use device::compose::{Overrides, Setup, StandIn};
use linux::mounts;

use finding::{NOT_ROOT, SERVER_NONE, SLOTS_NONE, VERIFY_KEYS_NONE, VIRTUAL};

/// How the system says that this user may not.
const FORBIDDEN: &str = "Permission denied";

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How long to wait for a connection to each server; `None` for no connections.
    pub connecting: Option<Duration>,
    /// Whether this build serves the add-ons of the Mender client.
    pub serves_add_ons: bool,
}

/// Looks at the board of `world`. `environment` looks up a variable.
pub fn examine(
    overrides: &Overrides,
    environment: impl Fn(&str) -> Option<PathBuf>,
    world: &World,
    options: &Options,
) -> Report {
    Facts::gather(overrides, environment, world, options).judge()
}

/// Everything that was read.
struct Facts {
    is_root: bool,
    config: config::Facts,
    identity: identity::Facts,
    keys: keys::Facts,
    slots: slots::Facts,
    env: env::Facts,
    boot: bootloader::Facts,
    data: data::Facts,
    server: server::Facts,
    service: service::Facts,
    memory: memory::Facts,
    programs: programs::Facts,
    record: record::Facts,
}

impl Facts {
    fn gather(
        overrides: &Overrides,
        environment: impl Fn(&str) -> Option<PathBuf>,
        world: &World,
        options: &Options,
    ) -> Facts {
        // The usual places are where this world has them.
        let places = [
            ("MENDER_CONF_DIR", "/etc/mender"),
            ("MENDER_DATASTORE_DIR", "/var/lib/mender"),
            ("MENDER_DATA_DIR", "/usr/share/mender"),
        ];
        let usual =
            |name: &str| places.iter().find(|(known, _)| *known == name).map(|(_, path)| world.at(path));
        let (mut setup, problem) = Setup::look(overrides, |name| environment(name).or_else(|| usual(name)));
        world.settle(&mut setup.config);
        // Without them nothing is known to be mounted.
        let mounts = mounts::read(&world.places()).unwrap_or_default();
        let slots = slots::gather(&setup, world, &mounts);
        Facts {
            is_root: world.is_root,
            identity: identity::gather(&setup),
            keys: keys::gather(&setup),
            env: env::gather(&setup, world, &mounts, &slots),
            boot: bootloader::gather(world),
            data: data::gather(&setup, world, &mounts, &slots),
            server: server::gather(&setup, world, options.connecting),
            service: service::gather(&setup, world, slots.is_virtual()),
            memory: memory::gather(world),
            programs: programs::gather(&setup, world),
            record: record::gather(&setup),
            slots,
            config: config::gather(setup, problem, options.serves_add_ons),
        }
    }

    fn judge(&self) -> Report {
        let mut findings = Vec::new();
        if !self.is_root {
            findings
                .push(NOT_ROOT.found(format_args!("this user is not root, and may not look at everything")));
        }
        if self.slots.is_virtual() {
            findings.push(VIRTUAL.found(format_args!("a slot is a plain file: this is a device of files, and what starts and watches it is not looked at")));
        }
        findings.extend(identity::judge(&self.identity));
        findings.extend(config::judge(&self.config));
        findings.extend(keys::judge(&self.keys));
        findings.extend(slots::judge(&self.slots));
        findings.extend(env::judge(&self.env));
        findings.extend(bootloader::judge(&bootloader::Known {
            boot: &self.boot,
            env: &self.env,
            slots: &self.slots,
            in_progress: self.record.in_progress(),
        }));
        findings.extend(data::judge(&self.data));
        findings.extend(server::judge(&self.server));
        findings.extend(service::judge(&self.service));
        findings.extend(memory::judge(&self.memory));
        findings.extend(programs::judge(&self.programs));
        findings.extend(record::judge(&self.record));
        if matches!(self.config.problem, Some((_, StandIn::Defaults))) {
            // Nothing is known of what it would say.
            let of_nothing = [&VERIFY_KEYS_NONE, &SLOTS_NONE, &SERVER_NONE];
            findings.retain(|finding| !of_nothing.iter().any(|check| check.id == finding.check.id));
        }
        if !self.is_root {
            // What another user may read is not wrong because this one may not.
            findings.retain(|finding| !finding.text.contains(FORBIDDEN));
        }
        Report { findings }
    }
}
