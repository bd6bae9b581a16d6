//! A machine with two slots, a boot environment and a record on crash devices, and a model of its bootloader.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod board;
pub mod log_lines;
pub mod tryboot;

use bootloader_grub::{GrubCopy, GrubEnv};
use bootloader_uboot::UBootEnv;
use client_core::boot::mender_vars::{MenderVars, Partitions};
use client_core::boot::{BootControl, BootEnv};
use client_core::slot::{Restart, Slot};
use testkit::bootloader::{Boot, GrubModel, Startup, TrybootModel, UBootModel};
use testkit::conformance::boot::Booted;
use testkit::device::slot_device;
use testkit::enumerator::Options;
use testkit::storage::{CrashWorld, Tear};

/// Sixteen sectors: enough for "all but the first", "all but the last" and "one torn" to differ.
pub const IMAGE_BYTES: usize = 16 * 512;
pub const ENV_BYTES: usize = 512;
pub const RECORD_BYTES: usize = 2 * 8 * 512;

/// Whose bootloader the machine has, and whether what the bootloader writes is on the medium when it goes on
/// (`...Cached`: it stays in a cache until somebody flushes, and any part of it may be lost).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    UBoot,
    UBootCached,
    /// With the boot logic of the Mender client's integration; the other two have ours.
    UBootStockCached,
    Grub,
    GrubCached,
    /// With the scripts of grub-mender-grubenv; the other two have ours.
    GrubStockCached,
    /// Whose trials ride on the restart.
    OneShot,
}

pub const MACHINES: [Machine; 4] = [Machine::UBoot, Machine::UBootCached, Machine::Grub, Machine::GrubCached];

pub fn old_image() -> Vec<u8> {
    vec![0x11; IMAGE_BYTES]
}

pub fn new_image() -> Vec<u8> {
    (0..IMAGE_BYTES).map(|at| 0x80 | (at / 512) as u8).collect()
}

/// How a system came up that nobody asked for once.
pub fn plainly(slot: Slot) -> Booted {
    Booted { slot, one_shot: false }
}

pub fn version(world: &CrashWorld, slot: Slot) -> Option<&'static str> {
    let content = world.live(slot_device(slot));
    [("old", old_image()), ("new", new_image())]
        .into_iter()
        .find(|(_, image)| *image == content)
        .map(|(name, _)| name)
}

impl Machine {
    pub fn install(self, world: &CrashWorld, running: Slot) {
        match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
                world.add_device("env", vec![0; 2 * ENV_BYTES]);
                self.uboot().install(world, running);
            }
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => {
                self.grub().install(world, running);
            }
            Machine::OneShot => self.one_shot().install(world, running),
        }
    }

    /// The boot control of the system that came up like this.
    pub fn control(self, world: &CrashWorld, booted: Booted) -> Box<dyn BootControl> {
        self.control_through(world, booted, &|env| env)
    }

    /// As [`control`](Self::control), with something around its shared variables, where it has any.
    pub fn control_through(
        self,
        world: &CrashWorld,
        booted: Booted,
        around: &dyn Fn(Box<dyn BootEnv>) -> Box<dyn BootEnv>,
    ) -> Box<dyn BootControl> {
        let env: Box<dyn BootEnv> = match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => Box::new(
                UBootEnv::redundant_on_one(world.open("env"), [0, ENV_BYTES as u64], ENV_BYTES as u64)
                    .unwrap(),
            ),
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => {
                let copy = |env: &str, lock: &str| GrubCopy {
                    env: world.open(env),
                    lock: world.open(lock),
                    lock_sum: None,
                };
                Box::new(GrubEnv::new([copy("env1", "lock1"), copy("env2", "lock2")]))
            }
            Machine::OneShot => return Box::new(tryboot::Tryboot::open(world.open("autoboot"), booted)),
        };
        Box::new(MenderVars::new(around(env), Partitions::new(2, 3).unwrap()))
    }

    pub fn boot(self, world: &CrashWorld, restart: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
                self.uboot().boot(world, start)
            }
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => self.grub().boot(world, start),
            Machine::OneShot => self.one_shot().boot(world, restart, start),
        }
    }

    pub fn one_shot(self) -> TrybootModel {
        TrybootModel::new("autoboot")
    }

    pub fn is_cached(self) -> bool {
        match self {
            Machine::UBoot | Machine::Grub | Machine::OneShot => false,
            Machine::UBootCached
            | Machine::UBootStockCached
            | Machine::GrubCached
            | Machine::GrubStockCached => true,
        }
    }

    pub fn uboot(self) -> UBootModel {
        let model = UBootModel::redundant(("env", 0), ("env", ENV_BYTES as u64), ENV_BYTES);
        let model = if self == Machine::UBootStockCached { model.stock() } else { model };
        if self.is_cached() { model } else { model.flushing() }
    }

    pub fn grub(self) -> GrubModel {
        let model = GrubModel::new(("env1", "lock1"), ("env2", "lock2"));
        let model = if self == Machine::GrubStockCached { model.stock() } else { model };
        if self.is_cached() { model } else { model.flushing() }
    }

    /// What a power cut may leave behind. GRUB itself cannot repair a block whose first sector is torn before a client
    /// could (see `boot_environment.rs`), and a bootloader that writes both copies before anything is flushed is only
    /// promised that what it writes is there or not.
    pub fn limits(self, cuts: u32) -> Options {
        let mut options = Options::cuts(cuts);
        match self {
            // Our script saves once: a torn save leaves the other copy.
            Machine::UBoot | Machine::UBootCached => {}
            // Behind the variables: the padding of an environment block, and any other sector as well.
            Machine::Grub => options.limits.tears = vec![Tear::Prefix(300)],
            // The one sector of the last is there as a whole or not at all.
            Machine::UBootStockCached | Machine::GrubCached | Machine::GrubStockCached | Machine::OneShot => {
                options.limits.tears.clear();
            }
        }
        options
    }
}

/// What the bootloader would boot next, and whether on trial. Read by the model: no operation of ours.
pub fn selected(world: &CrashWorld, machine: Machine) -> Result<(Slot, bool), String> {
    let variables = match machine {
        Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
            machine.uboot().variables(world).ok_or("U-Boot has no environment")?
        }
        Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => machine.grub().variables(world, 0),
        Machine::OneShot => {
            return Ok((machine.one_shot().permanent(world).ok_or("no slot is named")?, false));
        }
    };
    let value = |name: &str| variables.get(name).map(String::as_str);
    let slot = match value("mender_boot_part") {
        Some("2") => Slot::A,
        Some("3") => Slot::B,
        other => return Err(format!("mender_boot_part is {other:?}")),
    };
    Ok((slot, value("upgrade_available") == Some("1")))
}
