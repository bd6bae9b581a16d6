//! Boards with flash in place of disks: the environment in erase blocks or UBI volumes, the slots in UBI volumes.

use std::fmt;
use std::io;

use bootloader_uboot::UBootEnv;
use client_core::boot::BootEnv;
use client_core::slot::Slot;
use client_core::storage::{BlockDevice, Medium};
use testkit::bootloader::{Partitions, UBootModel};
use testkit::storage::{CrashDevice, CrashWorld, FlashGeometry};

use super::ENV_BYTES;

/// A board. Its name stands for it in what is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlashBoard {
    pub name: &'static str,
    pub place: Place,
    /// Which copy counts at first.
    pub active: Copy,
    /// What the bootloader writes may be lost until the client syncs.
    pub cached: bool,
    /// The boot logic of the Mender client's integration in place of ours.
    pub stock: bool,
    pub order: Order,
}

/// In which order the client replaces a copy on NOR flash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the production code does: the old copy is marked as obsolete when the new one is there.
    NewCopyFirst,
    /// The other way round, to show that it would be found.
    MarkFirst,
}

/// Where the two copies of the environment are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On one raw flash, at these offsets.
    Raw { flash: FlashGeometry, offsets: [u64; 2] },
    /// A UBI volume each.
    Volumes,
}

/// One of the two copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    First,
    Second,
}

impl fmt::Debug for FlashBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FlashBoard {
    /// Copies in raw flash, each at the beginning of an erase block of its own.
    pub const fn raw(name: &'static str, flash: FlashGeometry) -> FlashBoard {
        let blocks = ENV_BYTES.div_ceil(flash.erase_bytes) * flash.erase_bytes;
        let place = Place::Raw { flash, offsets: [0, blocks as u64] };
        FlashBoard {
            name,
            place,
            active: Copy::First,
            cached: false,
            stock: false,
            order: Order::NewCopyFirst,
        }
    }

    pub const fn volumes(name: &'static str) -> FlashBoard {
        FlashBoard {
            name,
            place: Place::Volumes,
            active: Copy::First,
            cached: false,
            stock: false,
            order: Order::NewCopyFirst,
        }
    }

    pub const fn second_copy_active(self) -> FlashBoard {
        FlashBoard { active: Copy::Second, ..self }
    }

    pub const fn cached(self) -> FlashBoard {
        FlashBoard { cached: true, ..self }
    }

    pub const fn stock(self) -> FlashBoard {
        FlashBoard { stock: true, ..self }
    }

    pub const fn marking_first(self) -> FlashBoard {
        FlashBoard { order: Order::MarkFirst, ..self }
    }

    /// Both copies in one erase block, which no board should have.
    pub const fn in_one_block(self) -> FlashBoard {
        let Place::Raw { flash, .. } = self.place else { return self };
        FlashBoard { place: Place::Raw { flash, offsets: [0, ENV_BYTES as u64] }, ..self }
    }

    pub fn install(self, world: &CrashWorld, running: Slot) {
        match self.place {
            Place::Raw { flash, offsets } => {
                let blocks = (offsets[1] as usize + ENV_BYTES).div_ceil(flash.erase_bytes);
                world.add_flash("env", flash, vec![0xff; blocks * flash.erase_bytes]);
            }
            Place::Volumes => {
                world.add_volume("env", vec![0xff; ENV_BYTES]);
                world.add_volume("env2", vec![0xff; ENV_BYTES]);
            }
        }
        // The copy that does not count selects the other slot: whoever takes it for the other copy is found.
        self.uboot().install(world, !running);
        let saves = match self.active {
            Copy::First => 2,
            Copy::Second => 1,
        };
        for saved in (1..=saves).rev() {
            let slot = if saved == 1 { running } else { !running };
            let (part, hex) = (Partitions::default().number(slot), "mender_boot_part_hex");
            let (decimal, hexadecimal) = (part.to_string(), format!("{part:x}"));
            assert!(self.uboot().set(world, &[("mender_boot_part", &decimal), (hex, &hexadecimal)]));
        }
    }

    pub fn env(self, world: &CrashWorld) -> Box<dyn BootEnv> {
        let size_bytes = ENV_BYTES as u64;
        Box::new(match self.place {
            Place::Raw { offsets, .. } => {
                let flash = world.open("env");
                let flash: Box<dyn BlockDevice> = match self.order {
                    Order::NewCopyFirst => Box::new(flash),
                    Order::MarkFirst => Box::new(MarksFirst { flash, offsets }),
                };
                UBootEnv::redundant_on_one(flash, offsets, size_bytes).unwrap()
            }
            Place::Volumes => {
                let volumes =
                    ["env", "env2"].map(|name| -> Box<dyn BlockDevice> { Box::new(world.open(name)) });
                UBootEnv::redundant_on_two(volumes, [0, 0], size_bytes).unwrap()
            }
        })
    }

    pub fn uboot(self) -> UBootModel {
        let model = match self.place {
            Place::Raw { offsets: [first, second], .. } => {
                UBootModel::redundant(("env", first), ("env", second), ENV_BYTES)
            }
            Place::Volumes => UBootModel::redundant(("env", 0), ("env2", 0), ENV_BYTES),
        };
        let model = if self.stock { model.stock() } else { model };
        if self.cached { model } else { model.flushing() }
    }
}

/// Marks the copy that counts as obsolete before it writes the other one.
struct MarksFirst {
    flash: CrashDevice,
    offsets: [u64; 2],
}

impl BlockDevice for MarksFirst {
    fn len(&self) -> u64 {
        self.flash.len()
    }
    fn medium(&self) -> Medium {
        self.flash.medium()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.flash.read_at(offset, buf)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let [first, second] = self.offsets;
        let other = if offset == first { second } else { first };
        self.flash.clear_bits_at(other + 4, 0)?;
        self.flash.write_at(offset, data)
    }
    fn clear_bits_at(&mut self, offset: u64, value: u8) -> io::Result<()> {
        self.flash.clear_bits_at(offset, value)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.flash.sync()
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        self.flash.drop_cache()
    }
    fn name(&self) -> &str {
        self.flash.name()
    }
}
