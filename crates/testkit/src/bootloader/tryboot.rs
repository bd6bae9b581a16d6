//! A bootloader that tries a slot once when the restart itself asks for it, as the firmware of a Raspberry Pi does: one
//! sector of a file names the permanent slot and the one to try, and the order to try is an argument of the restart that
//! no power cut survives. It writes nothing.

use client_core::slot::{Restart, Slot};
use client_core::storage::BlockDevice;

use super::{Boot, Partitions, Startup, reset_until_up};
use crate::storage::{CrashWorld, SECTOR_LEN};

/// The bootloader and its file, one sector of `boot_partition=N`, `[tryboot]`, `boot_partition=M`.
#[derive(Debug, Clone)]
pub struct TrybootModel {
    device: String,
    partitions: Partitions,
}

impl TrybootModel {
    /// What the restart must say for a trial.
    pub const ARGUMENT: &str = "0 tryboot";

    /// Over the device with the file.
    pub fn new(device: &str) -> TrybootModel {
        TrybootModel { device: device.to_owned(), partitions: Partitions::default() }
    }

    /// Adds the file of a device that runs from `slot`.
    pub fn install(&self, world: &CrashWorld, slot: Slot) {
        let number = |slot| self.partitions.number(slot);
        let text = format!("boot_partition={}\n[tryboot]\nboot_partition={}\n", number(slot), number(!slot));
        let mut sector = text.into_bytes();
        sector.resize(SECTOR_LEN, b'\n');
        world.add_device(&self.device, sector);
    }

    /// The permanent slot; `None` where the file names none, and nothing boots.
    pub fn permanent(&self, world: &CrashWorld) -> Option<Slot> {
        self.named(world, "")
    }

    /// The slot that a section of the file names.
    fn named(&self, world: &CrashWorld, section: &str) -> Option<Slot> {
        let mut sector = vec![0; SECTOR_LEN];
        world.open(&self.device).read_at(0, &mut sector).ok()?;
        let text = String::from_utf8(sector).ok()?;
        let mut current = "";
        for line in text.lines() {
            if line.starts_with('[') {
                current = line;
            } else if let (true, Some(number)) = (current == section, line.strip_prefix("boot_partition=")) {
                return self.partitions.slot(number);
            }
        }
        None
    }

    /// One start of the machine, with as many resets as it takes. What `restart` asked for holds for the first.
    pub fn boot(
        &self,
        world: &CrashWorld,
        restart: &Restart,
        start: &mut dyn FnMut(Slot) -> Startup,
    ) -> Boot {
        let asked = matches!(restart, Restart::With { argument } if argument == TrybootModel::ARGUMENT);
        let tried = if asked { self.named(world, "[tryboot]") } else { None };
        if let Some(slot) = tried {
            world.note(|| format!("tryboot: boots slot {slot} once"));
            if start(slot) == Startup::ComesUp {
                return Boot::Up { slot, defaulted: false, failed_starts: 0, one_shot: true };
            }
        }
        let permanent = self.permanent(world);
        reset_until_up(|| (permanent.unwrap_or(Slot::A), permanent.is_none()), start)
    }
}
