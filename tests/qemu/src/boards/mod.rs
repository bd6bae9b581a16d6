//! The boards: what is in each of them, and how its disks are laid out.

mod grub;
mod uboot_native;
mod uboot_stock_arm;
mod uboot_x86_64;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::assets::{Arch, Environment};
use crate::disk::Places;
use crate::kit::Kit;
use grub::{Firmware, Grub};
use uboot_stock_arm::Arm;

/// Which kernel a board runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// Debian's, with modules.
    Debian,
    /// A small one from Debian's sources, with everything built in.
    Small,
}

/// What the test system has to know about its board.
pub struct Guest {
    /// Modules that an initial RAM disk loads before there is a root file system, in this order, as paths in the kernel's
    /// module tree. Without any there is no such disk.
    pub early_modules: &'static [&'static str],
    /// Modules to load afterwards.
    pub modules: Vec<&'static str>,
    /// The partition that the bootloader was loaded from.
    pub boot_device: &'static str,
    /// Where it is mounted.
    pub boot_directory: &'static str,
    /// The partition that outlives updates.
    pub data_device: &'static str,
    /// `RootfsPartA`.
    pub root_a: &'static str,
    /// `RootfsPartB`.
    pub root_b: &'static str,
    /// `/etc/fw_env.config`, with U-Boot.
    pub fw_env_config: Option<String>,
}

/// A disk of a device.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its image.
    pub image: PathBuf,
    /// What it is to QEMU: the driver and its parameters.
    pub device: &'static str,
    /// Where its partitions are, if the slots are on it.
    pub places: Option<Places>,
}

/// A part of the boot environment.
#[derive(Debug, Clone)]
pub enum EnvFile {
    /// A file on FAT: the disk, where its file system begins, its path there.
    Fat {
        /// Index of the disk.
        disk: usize,
        /// First byte of the file system.
        at: u64,
        /// In it.
        path: &'static str,
    },
    /// A file of the device's folder: a flash.
    Own {
        /// Its name.
        name: &'static str,
    },
}

/// A board.
pub trait Board: Sync {
    /// As on the command line.
    fn name(&self) -> &'static str;
    /// For a person.
    fn about(&self) -> &'static str;
    /// Of its processor.
    fn arch(&self) -> Arch;
    /// What it runs.
    fn kernel(&self) -> KernelKind {
        KernelKind::Debian
    }
    /// Length of a root file system's image, MiB.
    fn root_mib(&self) -> u64;
    /// MiB of memory.
    fn memory_mib(&self) -> u64;
    /// For the test system.
    fn guest(&self) -> Guest;
    /// Makes the disks of a new device in `directory`, with `root` in slot A, nothing in slot B, and slots of
    /// `slot_mib` MiB.
    fn disks(
        &self,
        kit: &Kit,
        directory: &Path,
        root: &Path,
        slot_mib: u64,
        data: &Path,
    ) -> Outcome<Vec<Disk>>;
    /// Where the boot environment is.
    fn environment(&self) -> Vec<EnvFile>;
    /// The machine without disks and network. `directory` keeps what it remembers besides.
    fn machine(&self, kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command>;
    /// How it attaches its network card.
    fn network_device(&self) -> &'static str {
        "virtio-net-pci,netdev=n0,romfile="
    }
}

/// All of them.
pub const ALL: &[&dyn Board] = &[
    &Grub(Firmware::Bios),
    &Grub(Firmware::Uefi),
    &uboot_x86_64::UbootX86_64,
    &uboot_stock_arm::UbootStockArm(Arm::Aarch64),
    &uboot_stock_arm::UbootStockArm(Arm::Armv7),
    &uboot_native::UbootNative(Environment::Fat),
    &uboot_native::UbootNative(Environment::Nor),
];

/// The one with this name.
pub fn find(name: &str) -> Outcome<&'static dyn Board> {
    let found = ALL.iter().find(|board| board.name() == name);
    let names: Vec<&str> = ALL.iter().map(|board| board.name()).collect();
    found.copied().ok_or_else(|| format!("there is no board {name:?}; there are {}", names.join(", ")))
}

/// Modules that every Debian cloud kernel needs for these boards: network, FAT.
const MODULES_PCI: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/fat/fat",
    "fs/fat/vfat",
    "fs/nls/nls_cp437",
    "fs/nls/nls_ascii",
];

/// Network on a virtio slot of a board without PCI, and FAT.
const MODULES_SLOT: &[&str] = &[
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/fat/fat",
    "fs/fat/vfat",
    "fs/nls/nls_cp437",
    "fs/nls/nls_ascii",
];

/// Disk on a virtio slot, with ext4.
const EARLY_MODULES_SLOT: &[&str] = &[
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
    "crypto/crc32c_generic",
    "lib/crc16",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// With a disk on virtio as well.
const MODULES_PCI_DISK: &[&str] = &[
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "fs/fat/fat",
    "fs/fat/vfat",
    "fs/nls/nls_cp437",
    "fs/nls/nls_ascii",
];
