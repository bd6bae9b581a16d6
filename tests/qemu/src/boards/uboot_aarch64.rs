//! aarch64 with U-Boot as Debian builds it (`qemu_arm64`): one NVMe disk, environment in one sector of a file on FAT.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EnvFile, Guest, MODULES_PCI};
use crate::assets::Arch;
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, uboot};

/// The board.
pub struct UbootAarch64;

const BOOT_MIB: u64 = 15;
const ROM: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

impl Board for UbootAarch64 {
    fn name(&self) -> &'static str {
        "uboot-aarch64"
    }

    fn about(&self) -> &'static str {
        "aarch64, Debian's U-Boot, environment in one sector of a file on FAT, NVMe"
    }

    fn arch(&self) -> Arch {
        Arch::Aarch64
    }

    fn root_mib(&self) -> u64 {
        48
    }

    fn memory_mib(&self) -> u64 {
        512
    }

    fn guest(&self) -> Guest {
        Guest {
            modules: MODULES_PCI,
            boot_device: "/dev/nvme0n1p1",
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
        let script = uboot::script(kit, directory, "arm", "qemu-arm64.cmd")?;
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
        let rom = uboot::without_delay(&read(Path::new(ROM))?)?;
        crate::write(&directory.join("u-boot.bin"), rom)?;
        Ok(vec![Disk { image, device: "nvme,serial=disk", data_at: Some(disk::offset(&partitions, 3)) }])
    }

    fn environment(&self) -> Vec<EnvFile> {
        vec![EnvFile::Fat { disk: 0, at: disk::MIB, path: "uboot.env" }]
    }

    fn machine(&self, _kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command> {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-M", "virt", "-accel", "tcg", "-cpu", "cortex-a57", "-m", &memory_mib.to_string()]);
        qemu.arg("-bios").arg(directory.join("u-boot.bin"));
        Ok(qemu)
    }
}
