//! aarch64 with a U-Boot, built from Debian's sources, whose own C code keeps the environment in two copies: in files on FAT,
//! or in NOR flash, which Linux sees as `/dev/mtd0`. One NVMe disk, a small kernel.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EnvFile, Guest, KernelKind};
use crate::assets::{Arch, Environment};
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, uboot, write};

/// The board.
pub struct UbootNative(pub Environment);

const BOOT_MIB: u64 = 15;
/// Bytes of a copy of the environment.
const ENV_BYTES: usize = 0x4000;
/// Distance of the copies in flash: QEMU and Linux erase so much at once.
const ERASE_BYTES: usize = 0x4_0000;
/// QEMU wants a flash of just this length.
const FLASH_BYTES: usize = 64 * 1024 * 1024;
const FLASH: &str = "environment.flash";

impl Board for UbootNative {
    fn name(&self) -> &'static str {
        match self.0 {
            Environment::Fat => "uboot-aarch64-fat",
            Environment::Nor => "uboot-aarch64-nor",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Environment::Fat => "aarch64, own build of U-Boot, its redundant environment on FAT, NVMe",
            Environment::Nor => "aarch64, own build of U-Boot, its redundant environment in NOR flash, NVMe",
        }
    }

    fn arch(&self) -> Arch {
        Arch::Aarch64
    }

    fn kernel(&self) -> KernelKind {
        KernelKind::Small
    }

    fn root_mib(&self) -> u64 {
        20
    }

    fn memory_mib(&self) -> u64 {
        128
    }

    fn guest(&self) -> Guest {
        let copy = |place: &str, at: usize, erase: &str| format!("{place} {at:#x} {ENV_BYTES:#x}{erase}\n");
        let fw_env_config = match self.0 {
            Environment::Fat => {
                copy("/boot/uboot/uboot.env", 0, "") + &copy("/boot/uboot/uboot-redund.env", 0, "")
            }
            // Both banks of flash are one device to Linux.
            Environment::Nor => {
                let erase = format!(" {ERASE_BYTES:#x} 1");
                copy("/dev/mtd0", FLASH_BYTES, &erase) + &copy("/dev/mtd0", FLASH_BYTES + ERASE_BYTES, &erase)
            }
        };
        Guest {
            early_modules: &[],
            modules: Vec::new(),
            boot_device: "/dev/nvme0n1p1",
            boot_directory: "/boot/uboot",
            data_device: "/dev/nvme0n1p4",
            root_a: "/dev/nvme0n1p2",
            root_b: "/dev/nvme0n1p3",
            fw_env_config: Some(fw_env_config),
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
        let program = kit.assets.uboot_arm64(self.0)?;
        let own = read(&program.with_file_name("u-boot-initial-env"))?;
        let text = String::from_utf8_lossy(&own).into_owned() + &uboot::first_state(kit)?;
        let size = format!("{ENV_BYTES:#x}");
        let script = uboot::script(kit, directory, "arm", "qemu-arm64-native.cmd")?;
        let mut files = vec![("boot.scr".to_owned(), script)];
        match self.0 {
            Environment::Fat => {
                let mut first = uboot::make_environment(directory, &["-r", "-s", &size], &text)?;
                // Behind the checksum, and not under it: the copy with the larger number is the newer one.
                let mut second = first.clone();
                (first[4], second[4]) = (1, 0);
                files.push(("uboot.env".to_owned(), first));
                files.push(("uboot-redund.env".to_owned(), second));
                let rom = read(&program)?;
                write(&directory.join("u-boot.bin"), rom)?;
            }
            Environment::Nor => {
                let mut first =
                    uboot::make_environment(directory, &["-r", "-p", "0xff", "-s", &size], &text)?;
                let mut second = first.clone();
                (first[4], second[4]) = (1, 0);
                let mut flash = vec![0xff; FLASH_BYTES];
                flash[..ENV_BYTES].copy_from_slice(&first);
                flash[ERASE_BYTES..ERASE_BYTES + ENV_BYTES].copy_from_slice(&second);
                write(&directory.join(FLASH), flash)?;
                let mut rom = read(&program)?;
                rom.resize(FLASH_BYTES, 0);
                write(&directory.join("u-boot.flash"), rom)?;
            }
        }
        let fat = directory.join("boot.fat");
        disk::fat(&fat, BOOT_MIB, &files)?;
        let linux = |name, mib, content| Partition { name, mib, content, kind: Kind::Linux };
        let image = directory.join("disk.img");
        let partitions = [
            Partition { name: "boot", mib: BOOT_MIB, content: Some(fat.as_path()), kind: Kind::Boot },
            linux("rootfs-a", slot_mib, Some(root)),
            linux("rootfs-b", slot_mib, None),
            linux("data", 24, Some(data)),
        ];
        disk::build(&image, &partitions)?;
        Ok(vec![Disk { image, device: "nvme,serial=disk", places: Some(disk::places(&partitions)) }])
    }

    fn environment(&self) -> Vec<EnvFile> {
        match self.0 {
            Environment::Fat => ["uboot.env", "uboot-redund.env"]
                .map(|path| EnvFile::Fat { disk: 0, at: disk::MIB, path })
                .to_vec(),
            Environment::Nor => vec![EnvFile::Own { name: FLASH }],
        }
    }

    fn machine(&self, kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command> {
        let mut qemu = match self.0 {
            Environment::Fat => Command::new("qemu-system-aarch64"),
            Environment::Nor => kit.assets.qemu_with_nor()?.command(),
        };
        qemu.args(["-M", "virt", "-accel", "tcg", "-cpu", "cortex-a57", "-m", &memory_mib.to_string()]);
        match self.0 {
            Environment::Fat => {
                qemu.arg("-bios").arg(directory.join("u-boot.bin"));
            }
            Environment::Nor => {
                let rom = directory.join("u-boot.flash");
                qemu.args([
                    "-drive",
                    &format!("if=pflash,format=raw,unit=0,readonly=on,file={}", rom.display()),
                ]);
                let flash = directory.join(FLASH);
                qemu.args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", flash.display())]);
            }
        }
        Ok(qemu)
    }
}
