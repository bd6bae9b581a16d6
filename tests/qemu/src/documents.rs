//! The commands of the documents in `boot/`, run as they are written, in a copy of their folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::workspace;

/// What is between ```sh and ``` in a document.
fn commands(document: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in document.lines() {
        match line {
            "```sh" => {
                is_inside = true;
                blocks.push("set -eu\n".into());
            }
            "```" => is_inside = false,
            line if is_inside => {
                if let Some(block) = blocks.last_mut() {
                    *block += line;
                    block.push('\n');
                }
            }
            _ => {}
        }
    }
    blocks
}

/// A copy of a folder of `boot/`, with the modes of its files.
fn copy_of(folder: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let from = workspace().join("boot").join(folder).join(".");
    assert!(Command::new("cp").arg("-a").arg(from).arg(copy.path()).status().unwrap().success());
    copy
}

fn shell(directory: &Path, script: &str) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", script]).env("PATH", path).current_dir(directory).output().unwrap()
}

/// Runs every command of the README of a folder; `None` where the machine lacks a tool for them.
fn run_readme(folder: &str, needed: &[&str]) -> Option<tempfile::TempDir> {
    for tool in needed {
        let is_there =
            ["/usr/bin", "/usr/sbin", "/sbin", "/"].iter().any(|at| Path::new(at).join(tool).exists());
        if !is_there {
            println!("SKIPPED: {tool} is not installed");
            return None;
        }
    }
    let copy = copy_of(folder);
    let readme = std::fs::read_to_string(copy.path().join("README.md")).unwrap();
    let blocks = commands(&readme);
    assert!(blocks.len() >= 3, "{folder} has {} blocks of commands", blocks.len());
    for block in blocks {
        let output = shell(copy.path(), &block);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{folder}: {block}{said}");
    }
    Some(copy)
}

fn has(path: PathBuf, bytes: Option<usize>, text: &str) {
    let content = std::fs::read(&path).unwrap();
    assert!(
        bytes.is_none_or(|bytes| content.len() == bytes),
        "{} has {} bytes",
        path.display(),
        content.len()
    );
    let there = content.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(there, "{} does not have {text:?}", path.display());
}

#[test]
fn the_commands_for_u_boot_make_its_script_and_both_environments() {
    let Some(made) = run_readme("u-boot", &["mkimage", "mkenvimage", "mkfs.vfat", "mcopy"]) else { return };
    let path = |name: &str| made.path().join(name);
    // Settings first, then the logic.
    has(path("boot.scr"), None, "# Settings of boot.cmd for one board");
    has(path("boot.scr"), None, "rota_order=\"${rota_selected} ${rota_other}\"");
    has(path("env.bin"), Some(0x4000), "upgrade_available=0");
    has(path("env.bin"), Some(0x4000), "bootcmd=");
    has(path("uboot.env"), Some(0x200), "mender_boot_part=2");
    has(path("boot.fat"), None, "mender_boot_part=2");
}

#[test]
fn the_commands_for_grub_make_its_programs_and_its_environment() {
    let modules = ["usr/lib/grub/x86_64-efi/linux.mod", "usr/lib/grub/i386-pc/linux.mod"];
    let Some(made) = run_readme("grub", &["grub-mkimage", modules[0], modules[1]]) else { return };
    let path = |name: &str| made.path().join(name);
    has(path("BOOTX64.EFI"), None, "MZ");
    // All but its loader is compressed.
    has(path("core.img"), None, "loading");
    let core = std::fs::metadata(path("core.img")).unwrap().len();
    assert!((60_000..500_000).contains(&core), "core.img has {core} bytes");
    has(path("boot.img"), Some(512), "GRUB");
    for copy in ["mender_grubenv1", "mender_grubenv2"] {
        has(path("grub-mender-grubenv").join(copy).join("env"), Some(1024), "\nmender_boot_part=2\n");
        has(path("grub-mender-grubenv").join(copy).join("lock"), Some(1024), "\nediting=0\n");
    }
}

#[test]
fn an_environment_that_is_there_is_replaced_only_by_force() {
    let copy = copy_of("grub");
    let make = |words: &str| shell(copy.path(), &format!("./make-environment {words}"));
    assert!(make("env 2").status.success());
    let file = copy.path().join("env/mender_grubenv2/env");
    // A trial of the device is on.
    let trial = std::fs::read_to_string(&file).unwrap().replace("upgrade_available=0", "upgrade_available=1");
    std::fs::write(&file, &trial).unwrap();

    let again = make("env 3");
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already; --force replaces it"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), trial);
    // One copy that is left is enough of an environment.
    std::fs::remove_dir_all(copy.path().join("env/mender_grubenv1")).unwrap();
    assert_eq!(make("env 3").status.code(), Some(1));
    assert!(!copy.path().join("env/mender_grubenv1").exists());

    assert!(make("--force env 3").status.success());
    has(file, Some(1024), "\nmender_boot_part=3\n");
    for wrong in ["env", "env x", "env 0", "env ''", "--force env", "env 2 3"] {
        assert_eq!(make(wrong).status.code(), Some(2), "{wrong}");
    }
}

#[test]
fn the_porting_guide_and_the_documents_of_the_bootloaders_do_not_say_the_same_twice() {
    let read = |path: &str| std::fs::read_to_string(workspace().join(path)).unwrap();
    let guide = read("docs/porting-a-board.md");
    // The lines of fw_env.config are with the bootloader, those of the board that has NOR flash excepted.
    assert!(!guide.contains("uboot.env 0x0"));
    assert!(read("boot/u-boot/README.md").contains("\n/boot/uboot/uboot.env 0x0 0x200\n"));
    for unit in ["rust-ota.service", "rust-ota-failed.service"] {
        assert!(
            guide.contains(&format!("(../daemon/{unit})")) && !read(&format!("daemon/{unit}")).is_empty()
        );
    }
    assert!(read("daemon/rust-ota.service").contains("\nOnFailure=rust-ota-failed.service\n"));
}

/// Runs what `rust-ota-failed.service` starts, with this command line of the kernel, and gives what was called and noted.
fn failed(command_line: &str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("recorder"), "#\n").unwrap();
    std::fs::write(path("cmdline"), command_line).unwrap();
    let unit = std::fs::read_to_string(workspace().join("daemon/rust-ota-failed.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '")).unwrap();
    let start = start.strip_suffix('\'').unwrap();
    let start = start.replace("/proc/cmdline", &path("cmdline").display().to_string());
    let start = start.replace("/var/lib/mender/flight-recorder", &path("recorder").display().to_string());
    let functions = "systemctl() { case $1 in --failed) echo \"a.service loaded failed\"; echo \"b.mount x\";; \
                     *) echo \"systemctl $*\";; esac; }; sleep() { wait; echo \"sleep $*\"; }; \
                     MONITOR_SERVICE_RESULT=exit-code MONITOR_EXIT_STATUS=3;";
    let output = shell(folder.path(), &format!("{functions} {start}"));
    assert!(output.status.success());
    let called = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (called, std::fs::read_to_string(path("recorder")).unwrap())
}

#[test]
fn only_a_trial_is_restarted_when_its_client_does_not_stay_up() {
    let (called, noted) = failed("root=PARTLABEL=rootfs-b rota.slot=b rota.trial=1 ro\n");
    assert_eq!(called, ["sleep 1", "systemctl --force reboot"]);
    let why = "rust-ota.service does not stay up: exit-code 3; failed units: a.service b.mount";
    assert_eq!(noted, format!("#\n{why}\n"));
    for committed in ["root=/dev/sda2 rota.slot=a ro\n", "rota.trial=0 ro\n", "xrota.trial=10\n", "\n"] {
        let (called, noted) = failed(committed);
        assert_eq!(noted, "#\n");
        assert_eq!(
            called,
            [
                "sleep 60",
                "systemctl reset-failed rust-ota.service",
                "systemctl --no-block start rust-ota.service"
            ],
            "{committed}"
        );
    }
}
