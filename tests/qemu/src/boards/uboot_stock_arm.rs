//! ARM with U-Boot as Debian builds it: one disk, environment in one sector of a file on FAT. The disk is NVMe on aarch64
//! (`qemu_arm64`), virtio on armv7 (`qemu_arm`), whose kernel from Debian comes with an initial RAM disk.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EARLY_MODULES_SLOT, EnvFile, Guest, MODULES_PCI, MODULES_SLOT};
use crate::assets::Arch;
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, uboot};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// 64 bits.
    Aarch64,
    /// 32 bits.
    Armv7,
}

/// The board.
pub struct UbootStockArm(pub Arm);

const BOOT_MIB: u64 = 15;

impl Board for UbootStockArm {
    fn name(&self) -> &'static str {
        match self.0 {
            Arm::Aarch64 => "uboot-aarch64",
            Arm::Armv7 => "uboot-armv7",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Arm::Aarch64 => "aarch64, Debian's U-Boot, environment in one sector of a file on FAT, NVMe",
            Arm::Armv7 => {
                "armv7, Debian's U-Boot, environment in one sector of a file on FAT, initial RAM disk"
            }
        }
    }

    fn arch(&self) -> Arch {
        match self.0 {
            Arm::Aarch64 => Arch::Aarch64,
            Arm::Armv7 => Arch::Armv7,
        }
    }

    fn root_mib(&self) -> u64 {
        match self.0 {
            Arm::Aarch64 => 48,
            Arm::Armv7 => 24,
        }
    }

    fn memory_mib(&self) -> u64 {
        match self.0 {
            Arm::Aarch64 => 512,
            Arm::Armv7 => 256,
        }
    }

    fn guest(&self) -> Guest {
        let (early_modules, modules): (&[&str], &[&str]) = match self.0 {
            Arm::Aarch64 => (&[], MODULES_PCI),
            Arm::Armv7 => (EARLY_MODULES_SLOT, MODULES_SLOT),
        };
        let [boot_device, root_a, root_b, data_device] = match self.0 {
            Arm::Aarch64 => ["/dev/nvme0n1p1", "/dev/nvme0n1p2", "/dev/nvme0n1p3", "/dev/nvme0n1p4"],
            Arm::Armv7 => ["/dev/vda1", "/dev/vda2", "/dev/vda3", "/dev/vda4"],
        };
        Guest {
            early_modules,
            modules: modules.to_vec(),
            boot_device,
            boot_directory: "/boot/uboot",
            data_device,
            root_a,
            root_b,
            fw_env_config: Some("/boot/uboot/uboot.env 0x0 0x200\n".to_owned()),
        }
    }

    fn disks(
        &self,
        kit: &Kit,
        directory: &Path,
        root: &Path,
        slot_mib: u64,
        data: &Path,
    ) -> Outcome<Vec<Disk>> {
        let fat = directory.join("boot.fat");
        let (settings, rom, device) = match self.0 {
            Arm::Aarch64 => ("qemu-arm64.cmd", "qemu_arm64", "nvme,serial=disk"),
            Arm::Armv7 => ("qemu-armv7.cmd", "qemu_arm", "virtio-blk-device"),
        };
        let script = uboot::script(kit, directory, "arm", settings)?;
        let environment = uboot::one_sector_environment(kit, directory)?;
        disk::fat(&fat, BOOT_MIB, &[("boot.scr".to_owned(), script), ("uboot.env".to_owned(), environment)])?;
        let linux = |name, mib, content| Partition { name, mib, content, kind: Kind::Linux };
        let image = directory.join("disk.img");
        let partitions = [
            Partition { name: "boot", mib: BOOT_MIB, content: Some(fat.as_path()), kind: Kind::Boot },
            linux("rootfs-a", slot_mib, Some(root)),
            linux("rootfs-b", slot_mib, None),
            linux("data", 24, Some(data)),
        ];
        disk::build(&image, &partitions)?;
        let rom = Path::new("/usr/lib/u-boot").join(rom).join("u-boot.bin");
        let rom = uboot::without_delay(&read(&rom)?)?;
        crate::write(&directory.join("u-boot.bin"), rom)?;
        Ok(vec![Disk { image, device, places: Some(disk::places(&partitions)) }])
    }

    fn environment(&self) -> Vec<EnvFile> {
        vec![EnvFile::Fat { disk: 0, at: disk::MIB, path: "uboot.env" }]
    }

    fn machine(&self, _kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command> {
        let (program, machine, processor) = match self.0 {
            Arm::Aarch64 => ("qemu-system-aarch64", "virt", "cortex-a57"),
            Arm::Armv7 => ("qemu-system-arm", "virt,highmem=off", "cortex-a15"),
        };
        let mut qemu = Command::new(program);
        qemu.args(["-M", machine, "-accel", "tcg", "-cpu", processor, "-m", &memory_mib.to_string()]);
        qemu.arg("-bios").arg(directory.join("u-boot.bin"));
        Ok(qemu)
    }

    fn network_device(&self) -> &'static str {
        match self.0 {
            Arm::Aarch64 => "virtio-net-pci,netdev=n0,romfile=",
            Arm::Armv7 => "virtio-net-device,netdev=n0",
        }
    }
}
