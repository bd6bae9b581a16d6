//! A board that is a folder: a good one, for each test to break.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bootloader_uboot::image::{Format, Image, Variables};
use client_core::artifact::Signer;
use device::compose::Overrides;

use crate::{Facts, Level, Options, Report, World};

/// Bytes of a copy of the environment, and where the copies are on the disk.
pub(super) const ENV_BYTES: usize = 0x4000;
pub(super) const ENV_AT: [u64; 2] = [0x10_0000, 0x11_0000];
/// Bytes of the disk: a boot partition, two slots, a data partition, each of this size behind a gap of the same.
const PART_BYTES: u64 = 1 << 20;
/// The clock of the board: a month after the release.
pub(super) const NOW: u64 = http::BUILT + 30 * 24 * 3600;

pub(super) const GOOD_CONFIG: &str = r#"{
  "ServerURL": "https://updates.example.com",
  "ArtifactVerifyKey": "/etc/mender/key.pem",
  "RootfsPartA": "/dev/mmcblk0p2",
  "RootfsPartB": "/dev/mmcblk0p3"
}"#;
pub(super) const MOUNTS: &str = "24 1 179:2 / / ro - ext4 /dev/root ro\n\
    25 24 179:1 / /boot/efi rw - vfat /dev/mmcblk0p1 rw\n\
    26 24 179:4 / /data rw - ext4 /dev/mmcblk0p4 rw\n";

/// The folder.
pub(super) struct Board(tempfile::TempDir);

impl Board {
    /// Nothing is wrong with it.
    pub(super) fn good() -> Board {
        let board = Board(tempfile::tempdir().unwrap());
        board.disk("mmcblk0", "mmcblk0p", 179);
        let keys = Signer::generate_ed25519(&[7; 32]);
        board.write("etc/mender/mender.conf", GOOD_CONFIG);
        board.write("etc/mender/key.pem", &keys.public);
        board.write("etc/fw_env.config", "/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x110000 0x4000\n");
        board.set_env(&[]);
        board.write("data/mender/device_type", "device_type=board\n");
        board.write("data/mender/mender-agent.pem", &keys.private);
        board.mode("data/mender/mender-agent.pem", 0o600);
        board.write("data/mender/rust-ota.pid", "1234      \n");
        board.link("../../data/mender", "var/lib/mender");
        board.program("usr/share/mender/identity/mender-device-identity");
        board.write("proc/1234/comm", "rust-ota\n");
        board.write("proc/cmdline", "console=ttyS0 root=/dev/mmcblk0p2 rota.slot=a\n");
        board.write("proc/sys/kernel/panic", "5\n");
        board.write("proc/self/mountinfo", MOUNTS);
        board.write("proc/meminfo", "MemTotal: 900000 kB\nMemAvailable: 500000 kB\n");
        board.write("sys/class/watchdog/watchdog0/state", "active\n");
        board.folder("run/systemd/system");
        let units = "usr/lib/systemd/system";
        board
            .write(&format!("{units}/rust-ota.service"), include_str!("../../../../daemon/rust-ota.service"));
        let failed = include_str!("../../../../daemon/rust-ota-failed.service");
        board.write(&format!("{units}/rust-ota-failed.service"), failed);
        let wanted = "etc/systemd/system/multi-user.target.wants/rust-ota.service";
        board.link("/usr/lib/systemd/system/rust-ota.service", wanted);
        board
    }

    /// A good one, changed.
    pub(super) fn with(change: impl FnOnce(&Board)) -> Board {
        let board = Board::good();
        change(&board);
        board
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    pub(super) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Changes what a file says.
    pub(super) fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, text.replace(from, to));
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        let is_folder = fs::symlink_metadata(&path).unwrap().is_dir();
        if is_folder { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    pub(super) fn link(&self, target: impl AsRef<Path>, name: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        symlink(target, self.path(name)).unwrap();
    }

    pub(super) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(super) fn program(&self, name: &str) {
        self.write(name, "#!/bin/sh\n");
        self.mode(name, 0o755);
    }

    /// A key of the configuration, in place of what it says: `"Key": value` lines.
    pub(super) fn set(&self, lines: &str) {
        self.edit("etc/mender/mender.conf", "\n}", &format!(",\n{lines}\n}}"));
    }

    /// Makes a disk with four partitions, and what the kernel tells of it.
    pub(super) fn disk(&self, disk: &str, prefix: &str, major: u32) {
        for folder in ["dev", "sys/class/block", "sys/dev/block"] {
            self.folder(folder);
        }
        let sectors = PART_BYTES / 512;
        let device = |folder: &str, name: &str, minor: u64, size: u64| {
            fs::File::create(self.path(&format!("dev/{name}"))).unwrap().set_len(size * 512).unwrap();
            for (file, value) in
                [("dev", format!("{major}:{minor}")), ("size", size.to_string()), ("ro", "0".into())]
            {
                self.write(&format!("sys/devices/{folder}/{file}"), format!("{value}\n"));
            }
            self.link(format!("../../devices/{folder}"), &format!("sys/class/block/{name}"));
            self.link(format!("../../devices/{folder}"), &format!("sys/dev/block/{major}:{minor}"));
        };
        device(disk, disk, 0, 10 * sectors);
        self.write(&format!("sys/devices/{disk}/queue/write_cache"), "write through\n");
        for number in 1..=4 {
            let name = format!("{prefix}{number}");
            let folder = format!("{disk}/{name}");
            device(&folder, &name, number, sectors);
            self.write(&format!("sys/devices/{folder}/partition"), format!("{number}\n"));
            self.write(&format!("sys/devices/{folder}/start"), format!("{}\n", number * 2 * sectors));
        }
    }

    /// The two copies on the disk, with these variables besides the usual ones; an empty value takes one away.
    pub(super) fn set_env(&self, changes: &[(&str, &str)]) {
        for (flags, offset) in [1, 0].into_iter().zip(ENV_AT) {
            self.write_at("dev/mmcblk0", offset, &env_copy(Format::Redundant, flags, changes));
        }
    }

    pub(super) fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    /// The GRUB environment in the first of its usual places.
    pub(super) fn set_grub(&self, changes: &[(&str, &str)]) {
        for copy in ["mender_grubenv1", "mender_grubenv2"] {
            let folder = format!("boot/efi/grub-mender-grubenv/{copy}");
            let block = |variables: &[(&str, &str)]| {
                let mut block = bootloader_grub::block::Block::default();
                for (name, value) in variables {
                    block.set(name, value).unwrap();
                }
                block.encode().unwrap()
            };
            let usual = [("bootcount", "0"), ("mender_boot_part", "2"), ("upgrade_available", "0")];
            self.write(&format!("{folder}/env"), block(&[&usual, changes].concat()));
            self.write(&format!("{folder}/lock"), block(&[("editing", "0")]));
        }
    }

    pub(super) fn world(&self) -> World {
        World { root: self.0.path().to_owned(), now: NOW, is_root: true, patience: Duration::ZERO }
    }

    pub(super) fn facts(&self, connecting: Option<Duration>) -> Facts {
        let options = Options { connecting, serves_add_ons: false };
        Facts::gather(&Overrides::default(), |_| None, &self.world(), &options)
    }

    pub(super) fn look(&self) -> Report {
        self.facts(None).judge()
    }
}

/// A copy with the usual variables and these.
pub(super) fn env_copy(format: Format, flags: u8, changes: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        ("bootcount", "0"),
        ("bootlimit", "1"),
        ("mender_boot_part", "2"),
        ("mender_boot_part_hex", "2"),
        ("upgrade_available", "0"),
    ];
    let mut variables = Variables::default();
    for (name, value) in [&usual, changes].concat() {
        variables.set(name, value).unwrap();
    }
    Image { flags, variables }.encode(format, ENV_BYTES, 0).unwrap()
}

/// What is not as it should be on `board`, and the exit code.
#[track_caller]
pub(super) fn check(board: &Board, exit_code: u8, expected: &[&str]) {
    check_report(&board.look(), exit_code, expected);
}

/// The same where some of the facts cannot be made of files.
#[track_caller]
pub(super) fn check_facts(change: impl FnOnce(&mut Facts), exit_code: u8, expected: &[&str]) {
    let board = Board::good();
    let mut facts = board.facts(None);
    change(&mut facts);
    check_report(&facts.judge(), exit_code, expected);
}

#[track_caller]
pub(super) fn check_report(report: &Report, exit_code: u8, expected: &[&str]) {
    let bad = report.findings.iter().filter(|finding| finding.check.level != Level::Ok);
    let found: Vec<&str> = bad.map(|finding| finding.check.id).collect();
    assert_eq!(found, expected, "\n{}", report.lines());
    assert_eq!(report.exit_code(), exit_code, "\n{}", report.lines());
}

/// That `board` has a finding of this kind, as it should be or not, with these words.
#[track_caller]
pub(super) fn says(board: &Board, id: &str, words: &[&str]) {
    let report = board.look();
    let found: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| finding.check.id == id)
        .map(|finding| finding.text.as_str())
        .collect();
    let all = found.join("\n");
    assert!(
        !found.is_empty() && words.iter().all(|word| all.contains(word)),
        "{id}: {words:?}\n{}",
        report.lines()
    );
}
