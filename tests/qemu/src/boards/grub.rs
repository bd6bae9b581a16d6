//! x86-64 with GRUB, on UEFI (OVMF) or on a BIOS (SeaBIOS): one NVMe disk. The BIOS starts in a tenth of the time, and its board
//! has a small kernel; that with UEFI has Debian's.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EnvFile, Guest, KernelKind, MODULES_PCI};
use crate::assets::Arch;
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, run};

/// What starts GRUB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// From the EFI system partition.
    Uefi,
    /// From the master boot record.
    Bios,
}

/// Keeps what a kernel said last in the variables of the firmware.
const LAST_WORDS: &str = "drivers/firmware/efi/efi-pstore";

/// The board.
pub struct Grub(pub Firmware);

const BOOT_MIB: u64 = 36;
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// What `grub-install` would write to the master boot record.
const BOOT_IMAGE: &str = "/usr/lib/grub/i386-pc/boot.img";

/// Settings of the boot logic for this board.
const BOARD: &str = "\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set rota_args=\"ro console=ttyS0 panic=1 quiet no_timer_check\"
";

/// What GRUB is made of: what `boot/grub/README.md` asks for, and the serial console of [`BOARD`].
const GRUB_MODULES: &[&str] = &[
    "part_gpt",
    "fat",
    "ext2",
    "normal",
    "linux",
    "loadenv",
    "test",
    "regexp",
    "probe",
    "echo",
    "sleep",
    "reboot",
    "configfile",
    "true",
    "serial",
    "terminal",
];

impl Board for Grub {
    fn name(&self) -> &'static str {
        match self.0 {
            Firmware::Uefi => "grub-x86_64",
            Firmware::Bios => "grub-bios-x86_64",
        }
    }

    fn about(&self) -> &'static str {
        match self.0 {
            Firmware::Uefi => "x86-64, UEFI, GRUB, environment in two copies on the ESP, NVMe",
            Firmware::Bios => "x86-64, BIOS, GRUB, environment in two copies on FAT, NVMe, a small kernel",
        }
    }

    fn arch(&self) -> Arch {
        Arch::X86_64
    }

    fn kernel(&self) -> KernelKind {
        match self.0 {
            Firmware::Uefi => KernelKind::Debian,
            Firmware::Bios => KernelKind::Small,
        }
    }

    fn root_mib(&self) -> u64 {
        match self.0 {
            Firmware::Uefi => 28,
            Firmware::Bios => 24,
        }
    }

    fn memory_mib(&self) -> u64 {
        match self.0 {
            Firmware::Uefi => 256,
            Firmware::Bios => 128,
        }
    }

    fn guest(&self) -> Guest {
        Guest {
            early_modules: &[],
            modules: match self.0 {
                Firmware::Uefi => [MODULES_PCI, &[LAST_WORDS]].concat(),
                Firmware::Bios => Vec::new(),
            },
            boot_device: "/dev/nvme0n1p1",
            boot_directory: "/boot/efi",
            data_device: "/dev/nvme0n1p4",
            root_a: "/dev/nvme0n1p2",
            root_b: "/dev/nvme0n1p3",
            fw_env_config: None,
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
        let environment = directory.join("grub-mender-grubenv");
        run(Command::new(kit.product("grub/make-environment")).arg(&environment).arg("2"))?;
        let prefix = match self.0 {
            Firmware::Uefi => "EFI/BOOT",
            Firmware::Bios => "boot/grub",
        };
        let mut files = vec![
            (format!("{prefix}/grub.cfg"), read(&kit.product("grub/grub.cfg"))?),
            (format!("{prefix}/board.cfg"), BOARD.as_bytes().to_vec()),
        ];
        let grub = match self.0 {
            Firmware::Uefi => {
                let grub = make_grub(directory, &["-O", "x86_64-efi", "-p", "/EFI/BOOT"])?;
                files.push(("EFI/BOOT/BOOTX64.EFI".to_owned(), grub.clone()));
                grub
            }
            Firmware::Bios => {
                make_grub(directory, &["-O", "i386-pc", "-p", "(,gpt1)/boot/grub", "biosdisk"])?
            }
        };
        for copy in ["mender_grubenv1", "mender_grubenv2"] {
            for file in ["env", "lock", "lock.sha256sum"] {
                let content = read(&environment.join(copy).join(file))?;
                files.push((format!("grub-mender-grubenv/{copy}/{file}"), content));
            }
        }
        let esp = directory.join("esp.fat");
        disk::fat(&esp, BOOT_MIB, &files)?;
        let linux = |name, mib, content| Partition { name, mib, content, kind: Kind::Linux };
        let image = directory.join("disk.img");
        let partitions = [
            Partition { name: "esp", mib: BOOT_MIB, content: Some(esp.as_path()), kind: Kind::Boot },
            linux("rootfs-a", slot_mib, Some(root)),
            linux("rootfs-b", slot_mib, None),
            linux("data", 24, Some(data)),
        ];
        disk::build(&image, &partitions)?;
        match self.0 {
            Firmware::Uefi => {
                let variables = read(Path::new(FIRMWARE_VARIABLES))?;
                crate::write(&directory.join("firmware-variables.fd"), variables)?;
            }
            Firmware::Bios => disk::put_grub(&image, &read(Path::new(BOOT_IMAGE))?, grub)?,
        }
        Ok(vec![Disk {
            image,
            device: "nvme,serial=disk,bootindex=1",
            places: Some(disk::places(&partitions)),
        }])
    }

    fn environment(&self) -> Vec<EnvFile> {
        let file = |path| EnvFile::Fat { disk: 0, at: disk::MIB, path };
        [
            "grub-mender-grubenv/mender_grubenv1/env",
            "grub-mender-grubenv/mender_grubenv1/lock",
            "grub-mender-grubenv/mender_grubenv2/env",
            "grub-mender-grubenv/mender_grubenv2/lock",
        ]
        .map(file)
        .to_vec()
    }

    fn machine(&self, _kit: &Kit, directory: &Path, memory_mib: u64) -> Outcome<Command> {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", &memory_mib.to_string()]);
        if self.0 == Firmware::Uefi {
            qemu.args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}")]);
            let variables = directory.join("firmware-variables.fd");
            qemu.args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", variables.display())]);
        }
        Ok(qemu)
    }
}

/// GRUB with everything that it needs, as `boot/grub/README.md` makes it.
fn make_grub(directory: &Path, words: &[&str]) -> Outcome<Vec<u8>> {
    let grub = directory.join("grub.img");
    run(Command::new("grub-mkimage").arg("-o").arg(&grub).args(words).args(GRUB_MODULES))?;
    read(&grub)
}
