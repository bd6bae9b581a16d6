//! x86-64 with UEFI (OVMF) and GRUB: one NVMe disk.

use std::path::Path;
use std::process::Command;

use super::{Board, Disk, EnvFile, Guest, MODULES_PCI};
use crate::assets::Arch;
use crate::disk::{self, Kind, Partition};
use crate::kit::Kit;
use crate::{Outcome, read, run};

/// The board.
pub struct GrubX86_64;

const ESP_MIB: u64 = 36;
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

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

impl Board for GrubX86_64 {
    fn name(&self) -> &'static str {
        "grub-x86_64"
    }

    fn about(&self) -> &'static str {
        "x86-64, UEFI, GRUB, environment in two copies on the ESP, NVMe"
    }

    fn arch(&self) -> Arch {
        Arch::X86_64
    }

    fn root_mib(&self) -> u64 {
        28
    }

    fn memory_mib(&self) -> u64 {
        256
    }

    fn guest(&self) -> Guest {
        Guest {
            early_modules: &[],
            modules: MODULES_PCI,
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
        let grub = directory.join("BOOTX64.EFI");
        run(Command::new("grub-mkimage")
            .args(["-O", "x86_64-efi", "-p", "/EFI/BOOT", "-o"])
            .arg(&grub)
            .args(GRUB_MODULES))?;
        let environment = directory.join("grub-mender-grubenv");
        run(Command::new("sh").arg(kit.product("grub/make-environment")).arg(&environment).arg("2"))?;
        let mut files = vec![
            ("EFI/BOOT/BOOTX64.EFI".to_owned(), read(&grub)?),
            ("EFI/BOOT/grub.cfg".to_owned(), read(&kit.product("grub/grub.cfg"))?),
            ("EFI/BOOT/board.cfg".to_owned(), BOARD.as_bytes().to_vec()),
        ];
        for copy in ["mender_grubenv1", "mender_grubenv2"] {
            for file in ["env", "lock", "lock.sha256sum"] {
                let content = read(&environment.join(copy).join(file))?;
                files.push((format!("grub-mender-grubenv/{copy}/{file}"), content));
            }
        }
        let esp = directory.join("esp.fat");
        disk::fat(&esp, ESP_MIB, &files)?;
        let linux = |name, mib, content| Partition { name, mib, content, kind: Kind::Linux };
        let image = directory.join("disk.img");
        let partitions = [
            Partition { name: "esp", mib: ESP_MIB, content: Some(esp.as_path()), kind: Kind::Boot },
            linux("rootfs-a", slot_mib, Some(root)),
            linux("rootfs-b", slot_mib, None),
            linux("data", 24, Some(data)),
        ];
        disk::build(&image, &partitions)?;
        let variables = read(Path::new(FIRMWARE_VARIABLES))?;
        crate::write(&directory.join("firmware-variables.fd"), variables)?;
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
        qemu.args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}")]);
        let variables = directory.join("firmware-variables.fd");
        qemu.args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", variables.display())]);
        Ok(qemu)
    }
}
