//! A machine with two slots, a boot environment and a record on crash devices, and a model of its bootloader.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod board;
pub mod flash;
pub mod log_lines;
pub mod tryboot;

use bootloader_grub::{GrubCopy, GrubEnv};
use bootloader_uboot::UBootEnv;
use client_core::boot::mender_vars::{MenderVars, Partitions};
use client_core::boot::{BootControl, BootEnv};
use client_core::deploy::record::Record;
use client_core::slot::{Restart, Slot};
use client_core::state_store::TwoCopyRecord;
use testkit::bootloader::{Boot, GrubModel, Startup, TrybootModel, UBootModel};
use testkit::conformance::boot::{Backend, Booted};
use testkit::device::{CrashSlots, slot_device};
use testkit::enumerator::Options;
use testkit::storage::{CrashWorld, Tear};

use flash::FlashBoard;

/// Sixteen sectors: enough for "all but the first", "all but the last" and "one torn" to differ.
pub const IMAGE_BYTES: usize = 16 * 512;
/// Of a slot behind its image, on the machine that discards that.
const BEHIND_BYTES: usize = 2 * 512;
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
    /// U-Boot with its environment on flash, and slots that are UBI volumes.
    Flash(FlashBoard),
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
        .find(|(_, image)| content.starts_with(image))
        .map(|(name, _)| name)
}

impl Machine {
    /// The whole device: the old image in the slot that runs, something else in the other one, and a record that knows it.
    pub fn set_up(self, world: &CrashWorld, running: Slot) {
        self.add_slot(world, running, old_image());
        self.add_slot(world, !running, vec![0x55; IMAGE_BYTES]);
        self.install(world, running);
        add_record(world);
    }

    /// Whether its slots are larger than the images, and what lies behind an image is discarded.
    pub fn discards(self) -> bool {
        self == Machine::UBootCached
    }

    /// Its slots, where `running` runs.
    pub fn slots(self, world: &CrashWorld, running: Slot) -> CrashSlots {
        let slots = CrashSlots::new(world, running);
        if self.discards() { slots.discarding() } else { slots }
    }

    /// Its flash, where it has that in place of disks.
    fn flash(self) -> Option<FlashBoard> {
        match self {
            Machine::Flash(board) => Some(board),
            Machine::UBoot
            | Machine::UBootCached
            | Machine::UBootStockCached
            | Machine::Grub
            | Machine::GrubCached
            | Machine::GrubStockCached
            | Machine::OneShot => None,
        }
    }

    fn add_slot(self, world: &CrashWorld, slot: Slot, mut content: Vec<u8>) {
        if self.discards() {
            content.resize(content.len() + BEHIND_BYTES, 0x66);
        }
        match self.flash() {
            Some(_) => world.add_volume(slot_device(slot), content),
            None => world.add_device(slot_device(slot), content),
        }
    }

    /// The boot environment of a device that runs from `running`.
    pub fn install(self, world: &CrashWorld, running: Slot) {
        match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
                world.add_device("env", vec![0; 2 * ENV_BYTES]);
                self.uboot().install(world, running);
            }
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => {
                self.grub().install(world, running);
            }
            Machine::Flash(board) => board.install(world, running),
            Machine::OneShot => self.one_shot().install(world, running),
        }
    }

    /// The boot control of the system that came up like this, with the production codec where it has shared variables.
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
            Machine::Flash(board) => board.env(world),
            Machine::OneShot => return Box::new(tryboot::Tryboot::open(world.open("autoboot"), booted)),
        };
        Box::new(MenderVars::new(around(env), Partitions::new(2, 3).unwrap()))
    }

    /// One start of the device, to which `restart` led.
    pub fn boot(self, world: &CrashWorld, restart: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
                self.uboot().boot(world, start)
            }
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => self.grub().boot(world, start),
            Machine::Flash(board) => board.uboot().boot(world, start),
            Machine::OneShot => self.one_shot().boot(world, restart, start),
        }
    }

    pub fn one_shot(self) -> TrybootModel {
        TrybootModel::new("autoboot")
    }

    fn is_cached(self) -> bool {
        match self {
            Machine::UBoot | Machine::Grub | Machine::OneShot => false,
            Machine::UBootCached
            | Machine::UBootStockCached
            | Machine::GrubCached
            | Machine::GrubStockCached => true,
            Machine::Flash(board) => board.cached,
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

    /// Which operation on a slot that changes it is the first to carry data: an update of a volume is announced.
    pub fn first_slot_write(self) -> u64 {
        match self.flash() {
            Some(_) => 2,
            None => 1,
        }
    }

    /// What a power cut may leave behind. GRUB itself cannot repair a block whose first sector is torn before a client
    /// could (see `boot_environment.rs`), and a bootloader that writes both copies before anything is flushed is only
    /// promised that what it writes is there or not.
    pub fn limits(self, cuts: u32) -> Options {
        let mut options = Options::cuts(cuts);
        match self {
            // Our script saves once: a torn save leaves the other copy.
            Machine::UBoot | Machine::Flash(_) => {}
            // A disk that the script does not flush may lose one copy to each of two cuts, with no client between them
            // that could make the other one durable again: no script helps against that.
            Machine::UBootCached if cuts > 1 => options.limits.tears.clear(),
            Machine::UBootCached => {}
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

impl Backend for Machine {
    fn install(&self, world: &CrashWorld, slot: Slot) {
        Machine::install(*self, world, slot);
    }

    fn boot(&self, world: &CrashWorld, restart: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        Machine::boot(*self, world, restart, start)
    }

    fn open(&self, world: &CrashWorld, booted: Booted) -> Box<dyn BootControl> {
        self.control(world, booted)
    }

    fn is_lost(&self, world: &CrashWorld) -> bool {
        match self {
            Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
                self.uboot().variables(world).is_none()
            }
            // GRUB has no defaults: it says so when it boots.
            Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => false,
            Machine::Flash(board) => board.uboot().variables(world).is_none(),
            Machine::OneShot => self.one_shot().permanent(world).is_none(),
        }
    }
}

/// The record of a device on which the old image is installed.
pub fn add_record(world: &CrashWorld) {
    world.add_device("record", vec![0; RECORD_BYTES]);
    let mut record = Record::new();
    record.installed.artifact_name = Some("old".into());
    TwoCopyRecord::format_new(world.open("record"), &record.to_json().unwrap()).unwrap();
}

/// What the bootloader would boot next, and whether on trial. Read by the model: no operation of ours.
pub fn selected(world: &CrashWorld, machine: Machine) -> Result<(Slot, bool), String> {
    let variables = match machine {
        Machine::UBoot | Machine::UBootCached | Machine::UBootStockCached => {
            machine.uboot().variables(world).ok_or("U-Boot has no environment")?
        }
        Machine::Grub | Machine::GrubCached | Machine::GrubStockCached => machine.grub().variables(world, 0),
        Machine::Flash(board) => board.uboot().variables(world).ok_or("U-Boot has no environment")?,
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
