//! x86-64 with U-Boot (`qemu-x86`, as Debian builds it): boot script and environment on a small virtio disk, the slots on
//! an NVMe disk. This U-Boot keeps no environment of its own; the boot script does, in one sector.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EnvFile, Guest, MODULES_PCI_DISK};
use crate::assets::Arch;
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, uboot};

/// The board.
pub struct UbootX86_64;

const BOOT_MIB: u64 = 15;
const ROM: &str = "/usr/lib/u-boot/qemu-x86/u-boot.rom";

impl Board for UbootX86_64 {
    fn name(&self) -> &'static str {
        "uboot-x86_64"
    }

    fn about(&self) -> &'static str {
        "x86-64, Debian's U-Boot, environment in one sector of a file on FAT, slots on NVMe"
    }

    fn arch(&self) -> Arch {
        Arch::X86_64
    }

    fn root_mib(&self) -> u64 {
        28
    }

    fn memory_mib(&self) -> u64 {
        512
    }

    fn guest(&self) -> Guest {
        Guest {
            early_modules: &[],
            modules: MODULES_PCI_DISK.to_vec(),
            boot_device: "/dev/vda1",
            boot_directory: "/boot/uboot",
            data_device: "/dev/nvme0n1p4",
            root_a: "/dev/nvme0n1p2",
            root_b: "/dev/nvme0n1p3",
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
        let script = uboot::script(kit, directory, "x86", "qemu-x86.cmd")?;
        let environment = uboot::one_sector_environment(kit, directory)?;
        disk::fat(&fat, BOOT_MIB, &[("boot.scr".to_owned(), script), ("uboot.env".to_owned(), environment)])?;
        let boot = directory.join("boot.img");
        disk::build(
            &boot,
            &[Partition { name: "boot", mib: BOOT_MIB, content: Some(fat.as_path()), kind: Kind::Boot }],
        )?;
        let linux = |name, mib, content| Partition { name, mib, content, kind: Kind::Linux };
        let image = directory.join("disk.img");
        // The slots have the numbers that they have where the boot partition is on the same disk.
        let partitions = [
            linux("spare", 1, None),
            linux("rootfs-a", slot_mib, Some(root)),
            linux("rootfs-b", slot_mib, None),
            linux("data", 24, Some(data)),
        ];
        disk::build(&image, &partitions)?;
        let rom = uboot::without_delay(&read(Path::new(ROM))?)?;
        crate::write(&directory.join("u-boot.rom"), rom)?;
        Ok(vec![
            Disk { image: boot, device: "virtio-blk-pci", places: None },
            Disk { image, device: "nvme,serial=disk", places: Some(disk::places(&partitions)) },
        ])
    }

    fn environment(&self) -> Vec<EnvFile> {
        vec![EnvFile::Fat { disk: 0, at: disk::MIB, path: "uboot.env" }]
    }

    fn machine(&self, _kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "pc", "-accel", "tcg", "-cpu", "max", "-m", &memory_mib.to_string()]);
        qemu.arg("-bios").arg(directory.join("u-boot.rom"));
        Ok(qemu)
    }
}
