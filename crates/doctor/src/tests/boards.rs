//! The boards.

use std::fs;

use bootloader_uboot::image::Format;
use client_core::deploy::record::Record;
use linux::state_file::{self, Documents};

use super::board::{Board, ENV_AT, MOUNTS, check, check_facts, env_copy, says};

#[test]
fn a_good_board_is_good_and_is_told_what_was_seen() {
    let board = Board::good();
    check(&board, 0, &[]);
    for (id, words) in [
        ("config-read", ["mender.conf"].as_slice()),
        ("device-type", &["device type board"]),
        ("identity", &["mender-device-identity"]),
        ("verify-keys", &["1 verification key: Ed25519"]),
        ("device-key", &["Ed25519, SHA-256 "]),
        ("slots", &["slot A", "slot B", "1.0 MiB"]),
        ("running-slot", &["slot A runs: it is mounted as /"]),
        ("boot-env", &["U-Boot environment: 2 valid copies of 16.0 KiB", "copy 1", "0x100000", "counts"]),
        ("boot-env-cache", &["no write-back cache"]),
        ("bootloader-selected", &["slot A is selected, no trial is open"]),
        ("bootloader-evidence", &["rota.slot="]),
        ("panic-restarts", &["after 5 s"]),
        ("watchdog", &["watchdog0 runs"]),
        ("data-partition", &["/data (ext4, device 179:4)"]),
        ("server-not-asked", &["https://updates.example.com"]),
        ("service", &["rust-ota.service is enabled"]),
        ("daemon-running", &["1234"]),
        ("memory", &["488.2 MiB"]),
        ("record", &["nothing was recorded yet"]),
    ] {
        says(&board, id, words);
    }
}

// ---- Configuration ----

#[test]
fn a_board_without_a_configuration() {
    let board = Board::with(|board| board.remove("etc/mender/mender.conf"));
    let none = ["config-missing", "verify-keys-none", "slots-none", "server-none"];
    check(&board, 2, &none);
    says(&board, "config-missing", &["etc/mender/mender.conf", "var/lib/mender/mender.conf"]);
}

#[test]
fn a_configuration_that_is_no_json_is_told_with_its_place() {
    let board = Board::with(|board| {
        board.edit("etc/mender/mender.conf", "\"ArtifactVerifyKey\"", "ArtifactVerifyKey")
    });
    says(&board, "config-unusable", &["mender.conf", "line 3 column 3"]);
    // And nothing is said of keys, slots and servers that nobody could read.
    check(&board, 2, &["config-unusable"]);
}

#[test]
fn a_misspelt_health_check_is_wrong_and_the_nearest_key_is_named() {
    let board = Board::with(|board| board.set(r#""RustOta": {"HealthChek": {"Commands": ["true"]}}"#));
    says(&board, "config-unusable", &["RustOta.HealthChek", "is RustOta.HealthCheck meant?"]);
}

#[test]
fn an_unknown_key_of_another_client_is_a_warning_with_the_nearest_one() {
    let board = Board::with(|board| board.set(r#""UpdatePolIntervalSeconds": 5, "Xyzzy": 1"#));
    check(&board, 1, &["config-key-unknown", "config-key-unknown"]);
    says(
        &board,
        "config-key-unknown",
        &["is UpdatePollIntervalSeconds meant?", "the key Xyzzy is not known"],
    );
}

#[test]
fn keys_of_the_mender_client_that_mean_nothing_here_are_no_mistake() {
    let board = Board::with(|board| board.set(r#""Connectivity": {}, "clientprotocol": "https""#));
    check(&board, 0, &[]);
    says(&board, "config-key-ignored", &["Connectivity, ClientProtocol: the Mender client's"]);
}

#[test]
fn the_file_in_the_datastore_lies_under_the_other_one() {
    let board = Board::with(|board| {
        let fallback =
            r#"{"RootfsPartA": "/dev/x", "DaemonLogLevel": "debug", "RustOta": {"AskBefore": ["install"]}}"#;
        board.write("data/mender/mender.conf", fallback);
        board.set(r#""RustOta": {"AskTimeoutSeconds": 9}"#);
    });
    check(&board, 0, &[]);
    says(&board, "config-read", &["and under it"]);
    says(&board, "config-key-overridden", &["RootfsPartA: in both files", "etc/mender/mender.conf counts"]);
}

#[test]
fn keys_without_effect_are_told_with_what_keeps_them_from_it() {
    let check_one = |lines: &str, words: &[&str]| {
        let board = Board::with(|board| board.set(lines));
        check(&board, 1, &["config-key-without-effect"]);
        says(&board, "config-key-without-effect", words);
    };
    check_one(r#""RustOta": {"AskTimeoutSeconds": 60}"#, &["RustOta.AskTimeoutSeconds", "AskBefore"]);
    check_one(r#""RustOta": {"DangerAcceptUnsigned": true}"#, &["a verification key is configured"]);
    check_one(r#""RustOta": {"Bootloader": "uboot", "GrubEnvDir": "/x"}"#, &["GrubEnvDir", "\"uboot\""]);
    check_one(r#""RustOta": {"PreferBuiltIn": ["docker"]}"#, &["no built-in handler for docker"]);
    check_one(r#""DBus": {"Enabled": true}"#, &["feature dbus"]);
    let plain = Board::with(|board| {
        board.edit("etc/mender/mender.conf", "https:", "http:");
        board.set(r#""SkipVerify": true"#);
    });
    check(&plain, 1, &["config-key-without-effect", "server-unencrypted"]);
}

#[test]
fn a_daemon_that_runs_with_the_last_good_configuration() {
    let board = Board::with(|board| {
        let kept = [["mender.conf", &board.read("etc/mender/mender.conf")]];
        board.write("data/mender/rust-ota-last-good.conf", format!("{kept:?}"));
        board.write("etc/mender/mender.conf", "{");
    });
    check(&board, 2, &["config-unusable", "config-last-good"]);
}

// ---- Device and keys ----

#[test]
fn a_device_without_a_type() {
    let missing = Board::with(|board| board.remove("data/mender/device_type"));
    check(&missing, 2, &["device-type-wrong"]);
    let folder = Board::with(|board| {
        board.remove("data/mender/device_type");
        board.folder("data/mender/device_type");
    });
    check(&folder, 2, &["device-type-wrong"]);
    says(&folder, "device-type-wrong", &["a directory"]);
    let odd = Board::with(|board| board.write("data/mender/device_type", "device_type=\"board\"\n"));
    check(&odd, 1, &["device-type-odd"]);
}

#[test]
fn a_device_that_cannot_say_who_it_is() {
    let program = "usr/share/mender/identity/mender-device-identity";
    check(&Board::with(|board| board.remove(program)), 2, &["identity-missing"]);
    check(&Board::with(|board| board.mode(program, 0o644)), 2, &["identity-not-executable"]);
}

#[test]
fn verification_keys_that_are_not_there_or_are_none() {
    let no_key = |board: &Board| {
        board.edit("etc/mender/mender.conf", "\"ArtifactVerifyKey\": \"/etc/mender/key.pem\",", "")
    };
    check(&Board::with(no_key), 2, &["verify-keys-none"]);
    let unsigned = Board::with(|board| {
        no_key(board);
        board.set(r#""RustOta": {"DangerAcceptUnsigned": true}"#);
    });
    check(&unsigned, 1, &["verify-danger-unsigned"]);
    let private =
        Board::with(|board| board.write("etc/mender/key.pem", board.read("data/mender/mender-agent.pem")));
    check(&private, 2, &["verify-keys-none-usable"]);
    says(&private, "verify-keys-none-usable", &["etc/mender/key.pem", "PUBLIC KEY"]);
    let one_of_two = Board::with(|board| {
        let two = r#""ArtifactVerifyKeys": ["/etc/mender/key.pem", "/etc/mender/other.pem"]"#;
        board.edit("etc/mender/mender.conf", r#""ArtifactVerifyKey": "/etc/mender/key.pem""#, two);
    });
    check(&one_of_two, 1, &["verify-key-unusable"]);
    says(&one_of_two, "verify-keys", &["1 verification key"]);
    let empty = Board::with(|board| {
        board.edit(
            "etc/mender/mender.conf",
            r#""ArtifactVerifyKey": "/etc/mender/key.pem""#,
            r#""ArtifactVerifyKeys": []"#,
        );
    });
    check(&empty, 2, &["verify-keys-none-usable"]);
}

#[test]
fn a_device_key_that_is_damaged_open_locked_or_still_to_come() {
    let key = "data/mender/mender-agent.pem";
    check(&Board::with(|board| board.write(key, "garbage")), 2, &["device-key-unusable"]);
    check(&Board::with(|board| board.mode(key, 0o640)), 1, &["device-key-open"]);
    let none = Board::with(|board| board.remove(key));
    check(&none, 0, &[]);
    says(&none, "device-key-to-come", &["the first start"]);
    let dangling = Board::with(|board| {
        board.remove(key);
        board.link("nowhere", key);
    });
    check(&dangling, 2, &["device-key-unusable"]);
    check_facts(
        |facts| facts.keys.device = Ok(Some(device::keystore::LookedAtKey { opened: None, mode: 0o600 })),
        1,
        &["device-key-encrypted"],
    );
}

#[test]
fn what_this_user_may_not_look_at_is_left_out() {
    check_facts(
        |facts| {
            facts.is_root = false;
            facts.keys.device = Err(crate::keys::KeyProblem::Forbidden);
            facts.identity.device_type = Err("device_type: Permission denied (os error 13)".into());
            facts.config.forbidden = vec!["/var/lib/mender/mender.conf".into()];
        },
        1,
        &["not-root", "config-forbidden"],
    );
}

// ---- Slots ----

fn slot_b(path: &str) -> Board {
    Board::with(|board| board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", path))
}

#[test]
fn slots_that_are_not_both_there() {
    let none = Board::with(|board| {
        board.edit("etc/mender/mender.conf", "RootfsPartA", "BootUtilitiesSetActivePart");
        board.edit("etc/mender/mender.conf", "RootfsPartB", "BootUtilitiesGetNextActivePart");
    });
    check(&none, 1, &["slots-none"]);
    let one = Board::with(|board| board.edit("etc/mender/mender.conf", "RootfsPartB", "ClientProtocol"));
    check(&one, 2, &["slots-one-only"]);
    check(&slot_b("/dev/mmcblk0p9"), 2, &["slot-missing"]);
    let folder = Board::with(|board| {
        board.folder("srv/slot3");
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/srv/slot3");
    });
    check(&folder, 2, &["slot-of-wrong-kind"]);
}

#[test]
fn slots_that_are_one_device() {
    check(&slot_b("/dev/mmcblk0p2"), 2, &["slots-same"]);
    let link = Board::with(|board| {
        board.link("mmcblk0p2", "dev/other3");
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/dev/other3");
    });
    check(&link, 2, &["slots-same"]);
}

#[test]
fn slots_that_the_bootloader_cannot_tell_apart() {
    let same = Board::with(|board| {
        board.disk("sda", "sda", 8);
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/dev/sda2");
    });
    check(&same, 2, &["slots-same-number"]);
    let none = Board::with(|board| {
        board.link("mmcblk0p3", "dev/mapper/root-b");
        board.edit("sys/devices/mmcblk0/mmcblk0p3/partition", "3", "");
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/dev/mapper/root-b");
        board.remove("dev/mmcblk0p3");
        board.write("dev/mmcblk0rootb", "");
        board.remove("dev/mapper/root-b");
        board.link("../mmcblk0rootb", "dev/mapper/root-b");
        board.link("../../devices/mmcblk0/mmcblk0p3", "sys/class/block/mmcblk0rootb");
    });
    check(&none, 2, &["slot-without-number"]);
}

#[test]
fn slots_of_two_sizes_or_kinds() {
    let size = Board::with(|board| board.edit("sys/devices/mmcblk0/mmcblk0p3/size", "2048", "2000"));
    check(&size, 1, &["slots-differ-in-size"]);
    says(&size, "slots-differ-in-size", &["1.0 MiB", "1000.0 KiB"]);
    let file = Board::with(|board| {
        board.write("srv/slot3", vec![0; 1 << 20]);
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/srv/slot3");
    });
    check(&file, 1, &["virtual-device", "slots-of-two-kinds"]);
}

#[test]
fn a_slot_that_must_not_be_written() {
    let mounted = Board::with(|board| {
        board.write(
            "proc/self/mountinfo",
            format!("{MOUNTS}27 24 179:3 / /mnt/b rw - ext4 /dev/mmcblk0p3 rw\n"),
        );
    });
    check(&mounted, 2, &["slot-mounted"]);
    says(&mounted, "slot-mounted", &["slot B", "/mnt/b"]);
    let data = Board::with(|board| board.edit("proc/self/mountinfo", "179:4", "179:3"));
    check(&data, 2, &["slot-is-data", "slot-mounted"]);
    let read_only = Board::with(|board| board.write("sys/devices/mmcblk0/mmcblk0p3/ro", "1\n"));
    check(&read_only, 2, &["slot-read-only"]);
    let disk = Board::with(|board| {
        board.disk("sda", "sda", 8);
        board.link("sda", "dev/disk3");
        board.edit("etc/mender/mender.conf", "/dev/mmcblk0p3", "/dev/disk3");
    });
    check(&disk, 2, &["slot-is-whole-disk", "slots-differ-in-size"]);
}

#[test]
fn the_running_slot_is_found_or_what_was_looked_at_is_told() {
    let overlay =
        |board: &Board| board.edit("proc/self/mountinfo", "179:2 / / ro - ext4", "0:30 / / ro - overlay");
    let argued = Board::with(overlay);
    check(&argued, 0, &[]);
    says(&argued, "running-slot", &["root= on the kernel's command line"]);
    let unknown = Board::with(|board| {
        overlay(board);
        board.edit("proc/cmdline", "root=/dev/mmcblk0p2 ", "");
    });
    check(&unknown, 2, &["running-slot-unknown"]);
    says(&unknown, "running-slot-unknown", &["slot A is", "RunningRoot is not set"]);
    let fixed = Board::with(|board| {
        overlay(board);
        board.edit("proc/cmdline", "root=/dev/mmcblk0p2 ", "");
        board.set(r#""RustOta": {"RunningRoot": "/dev/mmcblk0p2"}"#);
    });
    check(&fixed, 1, &["running-root-fixed"]);
    let link = Board::with(|board| {
        overlay(board);
        board.edit("proc/cmdline", "root=/dev/mmcblk0p2 ", "");
        board.link("../../dev/mmcblk0p2", "run/rust-ota/root");
        board.set(r#""RustOta": {"RunningRoot": "/run/rust-ota/root"}"#);
    });
    check(&link, 0, &[]);
    says(&link, "running-slot", &["RustOta.RunningRoot says so"]);
    let wrong = Board::with(|board| board.set(r#""RustOta": {"RunningRoot": "/dev/mmcblk0p3"}"#));
    check(&wrong, 1, &["running-root-wrong"]);
}

// ---- Boot environment ----

fn fw_env(text: &str) -> Board {
    Board::with(|board| board.write("etc/fw_env.config", text))
}

#[test]
fn an_environment_that_is_not_described() {
    check(&Board::with(|board| board.remove("etc/fw_env.config")), 2, &["boot-env-none"]);
    let yaml = fw_env("uboot:\n  size: 0x4000\n  devices:\n  - path: /dev/mmcblk0\n");
    check(&yaml, 2, &["boot-env-config"]);
    says(&yaml, "boot-env-config", &["YAML"]);
    let short = fw_env("/dev/mmcblk0 0x100000\n");
    says(&short, "boot-env-config", &["line 1", "ENVSIZE is missing"]);
    let elsewhere = Board::with(|board| board.set(r#""RustOta": {"Bootloader": "grub"}"#));
    check(&elsewhere, 2, &["boot-env-none"]);
}

#[test]
fn two_environments_of_which_nothing_says_which_counts() {
    let both = Board::with(|board| board.set_grub(&[]));
    check(&both, 1, &["boot-env-both"]);
    says(&both, "boot-env", &["GRUB environment: 2 valid copies"]);
    let said = Board::with(|board| {
        board.set_grub(&[]);
        board.set(r#""RustOta": {"Bootloader": "uboot"}"#);
    });
    check(&said, 0, &[]);
}

#[test]
fn an_environment_of_which_one_copy_is_bad() {
    let torn = Board::with(|board| board.write_at("dev/mmcblk0", ENV_AT[0] + 9, b"?"));
    check(&torn, 1, &["boot-env-copy-bad"]);
    says(&torn, "boot-env-copy-bad", &["copy 2", "counts", "copy 1", "0x100000", "checksum"]);
    let gone = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk7 0x100000 0x4000\n");
    check(&gone, 1, &["boot-env-copy-bad"]);
    let grub = Board::with(|board| {
        board.remove("etc/fw_env.config");
        board.set_grub(&[]);
        board.remove("boot/efi/grub-mender-grubenv/mender_grubenv2/env");
    });
    check(&grub, 1, &["boot-env-copy-bad"]);
}

#[test]
fn an_environment_of_which_no_copy_is_valid_says_what_it_looks_like() {
    let blank = Board::with(|board| {
        for offset in ENV_AT {
            board.write_at("dev/mmcblk0", offset, &[0; 0x4000]);
        }
    });
    check(&blank, 2, &["boot-env-unreadable"]);
    says(&blank, "boot-env-unreadable", &["it is blank", "saveenv"]);
    let size = fw_env("/dev/mmcblk0 0x100000 0x2000\n/dev/mmcblk0 0x110000 0x2000\n");
    says(&size, "boot-env-unreadable", &["right for 0x4000", "CONFIG_ENV_SIZE"]);
    let lines = fw_env("/dev/mmcblk0 0x100000 0x4000\n");
    check(&lines, 2, &["boot-env-unreadable", "boot-env-single-copy"]);
    says(&lines, "boot-env-unreadable", &["needs a second line"]);
    let grub = Board::with(|board| {
        board.remove("etc/fw_env.config");
        board.set_grub(&[]);
        for copy in [1, 2] {
            board.write(&format!("boot/efi/grub-mender-grubenv/mender_grubenv{copy}/env"), "");
        }
    });
    check(&grub, 2, &["boot-env-unreadable"]);
    says(&grub, "boot-env-unreadable", &["0 bytes long instead of 1024"]);
}

#[test]
fn an_environment_that_this_user_may_not_read() {
    check_facts(
        |facts| {
            let env = facts.env.found.as_mut().unwrap().inspected.as_mut().unwrap();
            env.active = None;
            env.copies
                .iter_mut()
                .for_each(|copy| copy.fault = Some("cannot be read: Permission denied".into()));
        },
        1,
        &["boot-env-forbidden"],
    );
}

#[test]
fn an_environment_in_one_copy() {
    let one = Board::with(|board| {
        board.write("etc/fw_env.config", "/dev/mmcblk0 0x100000 0x4000\n");
        board.write_at("dev/mmcblk0", ENV_AT[0], &env_copy(Format::Single, 0, &[]));
    });
    check(&one, 1, &["boot-env-single-copy"]);
    let cached = Board::with(|board| {
        board.write("etc/fw_env.config", "/dev/mmcblk0 0x100000 0x4000\n");
        board.write_at("dev/mmcblk0", ENV_AT[0], &env_copy(Format::Single, 0, &[]));
        board.write("sys/devices/mmcblk0/queue/write_cache", "write back\n");
    });
    check(&cached, 1, &["boot-env-write-cache", "boot-env-single-copy"]);
}

#[test]
fn an_environment_where_something_else_is() {
    let overlap = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x102000 0x4000\n");
    check(&overlap, 2, &["boot-env-copies-overlap"]);
    // The slots begin at 4 and 6 MiB, the boot partition at 2, the data partition at 8.
    let slot = fw_env("/dev/mmcblk0 0x400000 0x4000\n/dev/mmcblk0 0x600000 0x4000\n");
    check(&slot, 2, &["boot-env-in-slot", "boot-env-in-slot", "boot-env-unreadable"]);
    says(&slot, "boot-env-in-slot", &["mmcblk0p2, which is slot A", "mmcblk0p3, which is slot B"]);
    let partition = fw_env("/dev/mmcblk0p3 0x0 0x4000\n/dev/mmcblk0p3 0x4000 0x4000\n");
    check(&partition, 2, &["boot-env-in-slot", "boot-env-unreadable"]);
    let mounted = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x800000 0x4000\n");
    check(&mounted, 2, &["boot-env-in-mounted-partition", "boot-env-copy-bad"]);
    let unmounted = Board::with(|board| {
        board.write("etc/fw_env.config", "/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x200000 0x4000\n");
        board.edit("proc/self/mountinfo", "179:1", "0:99");
        board.edit("proc/self/mountinfo", "/dev/mmcblk0p1", "none");
    });
    check(&unmounted, 1, &["boot-env-in-partition", "boot-env-copy-bad"]);
    let table = fw_env("/dev/mmcblk0 0x2000 0x4000\n/dev/mmcblk0 0x110000 0x4000\n");
    check(&table, 2, &["boot-env-on-partition-table", "boot-env-copy-bad"]);
    let end = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 -0x4000 0x4000\n");
    check(&end, 2, &["boot-env-on-partition-table", "boot-env-copy-bad"]);
    let odd = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x110010 0x4000\n");
    check(&odd, 1, &["boot-env-unaligned", "boot-env-copy-bad"]);
    let beyond = fw_env("/dev/mmcblk0 0x100000 0x4000\n/dev/mmcblk0 0x9000000 0x4000\n");
    says(&beyond, "boot-env-copy-bad", &["does not lie in"]);
}

/// A board with its environment in flash of this kind.
fn flash(kind: &str, lines: &str) -> Board {
    Board::with(|board| {
        let mut image = vec![0xFF; 0x10_0000];
        for (copy, offset) in [0, 0x2_0000].into_iter().enumerate() {
            let bytes = env_copy(Format::Redundant, 1 - copy as u8, &[]);
            image[offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        board.write("dev/mtd1", image);
        board.write("sys/class/mtd/mtd1/erasesize", "131072\n");
        board.write("sys/class/mtd/mtd1/type", kind);
        board.write("etc/fw_env.config", lines);
    })
}

#[test]
fn an_environment_in_flash() {
    let good = flash("nor", "/dev/mtd1 0 0x4000 0x20000 1\n/dev/mtd1 0x20000 0x4000 0x20000 1\n");
    check(&good, 0, &[]);
    let sector = flash("nor", "/dev/mtd1 0 0x4000 0x10000\n/dev/mtd1 0x20000 0x4000 0x10000\n");
    check(&sector, 1, &["boot-env-sector-size"]);
    let shared = flash("nor", "/dev/mtd1 0 0x4000 0x20000\n/dev/mtd1 0x4000 0x4000 0x20000\n");
    check(&shared, 2, &["boot-env-erase-block-shared", "boot-env-copy-bad"]);
    let nand = flash("nand", "/dev/mtd1 0 0x4000 0x20000 1\n/dev/mtd1 0x20000 0x4000 0x20000 1\n");
    check(&nand, 1, &["boot-env-no-spare-blocks"]);
}

/// A board with its environment in an eMMC boot partition.
fn boot_partition() -> Board {
    Board::with(|board| {
        board.disk("mmcblk0boot0", "mmcblk0boot0x", 180);
        for number in 1..=4 {
            board.remove(&format!("sys/devices/mmcblk0boot0/mmcblk0boot0x{number}"));
        }
        board.write("sys/devices/mmcblk0boot0/force_ro", "1\n");
        board.write("sys/devices/mmcblk0boot0/ro", "1\n");
        board.write("etc/fw_env.config", "/dev/mmcblk0boot0 0 0x4000\n/dev/mmcblk0boot0 0x4000 0x4000\n");
        for (flags, offset) in [(1, 0), (0, 0x4000)] {
            board.write_at("dev/mmcblk0boot0", offset, &env_copy(Format::Redundant, flags, &[]));
        }
    })
}

#[test]
fn an_environment_that_is_protected() {
    let board = boot_partition();
    check(&board, 0, &[]);
    says(&board, "boot-env-boot-partition", &["force_ro"]);
    board.write("sys/devices/mmcblk0boot0/ro_lock_until_next_power_on", "1\n");
    check(&board, 2, &["boot-env-boot-partition-locked"]);
    let disk = Board::with(|board| board.write("sys/devices/mmcblk0/ro", "1\n"));
    check(&disk, 2, &["boot-env-read-only"]);
}

/// A board with GRUB and nothing of U-Boot.
fn grub(change: impl FnOnce(&Board)) -> Board {
    Board::with(|board| {
        board.remove("etc/fw_env.config");
        board.set_grub(&[]);
        change(board);
    })
}

#[test]
fn an_environment_in_files_of_a_partition() {
    check(&grub(|_| {}), 0, &[]);
    let read_only = grub(|board| board.edit("proc/self/mountinfo", "/boot/efi rw", "/boot/efi ro"));
    check(&read_only, 2, &["boot-env-read-only"]);
    let volatile = grub(|board| {
        board.edit("proc/self/mountinfo", "179:1 / /boot/efi rw - vfat", "0:40 / /boot/efi rw - tmpfs")
    });
    check(&volatile, 2, &["boot-env-lost-at-restart"]);
    let slot = grub(|board| {
        board.edit("proc/self/mountinfo", "25 24 179:1 / /boot/efi", "25 24 179:1 / /boot/other")
    });
    check(&slot, 2, &["boot-env-in-slot", "boot-env-read-only"]);
}

#[test]
fn a_disk_whose_cache_no_bootloader_flushes() {
    let nvme = Board::with(|board| {
        board.disk("nvme0n1", "nvme0n1p", 259);
        board.write("sys/devices/nvme0n1/queue/write_cache", "write back\n");
        board.write("etc/fw_env.config", "/dev/nvme0n1 0x100000 0x4000\n/dev/nvme0n1 0x110000 0x4000\n");
        for (flags, offset) in [1, 0].into_iter().zip(ENV_AT) {
            board.write_at("dev/nvme0n1", offset, &env_copy(Format::Redundant, flags, &[]));
        }
    });
    check(&nvme, 1, &["boot-env-write-cache"]);
    let emmc = Board::with(|board| board.write("sys/devices/mmcblk0/queue/write_cache", "write back\n"));
    check(&emmc, 0, &[]);
}

fn env(changes: &[(&str, &str)]) -> Board {
    Board::with(|board| board.set_env(changes))
}

#[test]
fn variables_that_mean_nothing() {
    check(&env(&[("mender_boot_part", ""), ("mender_boot_part_hex", "")]), 2, &["boot-env-variable-wrong"]);
    let other = env(&[("mender_boot_part", "7"), ("mender_boot_part_hex", "7")]);
    check(&other, 2, &["boot-env-variable-wrong"]);
    says(&other, "boot-env-variable-wrong", &["\"7\"", "2 and 3"]);
    check(&env(&[("upgrade_available", "yes")]), 2, &["boot-env-variable-wrong"]);
    let hexadecimal = env(&[("mender_boot_part_hex", "3")]);
    check(&hexadecimal, 2, &["boot-env-variable-wrong"]);
    let canary = env(&[("mender_check_saveenv_canary", "1")]);
    check(&canary, 2, &["boot-env-canary-missing"]);
}

// ---- Bootloader ----

#[test]
fn a_bootloader_that_uses_another_environment() {
    let other = env(&[("mender_boot_part", "3"), ("mender_boot_part_hex", "3")]);
    check(&other, 2, &["bootloader-boots-another"]);
    says(&other, "bootloader-boots-another", &["says slot B, slot A runs"]);
    let root = Board::with(|board| board.edit("proc/cmdline", "rota.slot=a", "rota.slot=b"));
    check(&root, 2, &["bootloader-slot-differs"]);
}

#[test]
fn a_trial_shows_whether_it_is_counted() {
    let uncounted = env(&[("upgrade_available", "1")]);
    check(&uncounted, 2, &["bootloader-does-not-count"]);
    let counted = env(&[("upgrade_available", "1"), ("bootcount", "1")]);
    check(&counted, 0, &[]);
    says(&counted, "bootloader-counts", &["slot A runs on trial, bootcount=1"]);
    let armed = env(&[("upgrade_available", "1"), ("mender_boot_part", "3"), ("mender_boot_part_hex", "3")]);
    check(&armed, 0, &[]);
    says(&armed, "bootloader-selected", &["its trial begins with the next restart"]);
}

fn without_our_logic(board: &Board) {
    board.edit("proc/cmdline", " rota.slot=a", "");
}

#[test]
fn a_bootloader_of_which_nothing_is_known_is_not_praised() {
    let bare = Board::with(|board| {
        without_our_logic(board);
        board.set_env(&[("bootlimit", ""), ("bootcount", "")]);
    });
    check(&bare, 1, &["bootloader-no-evidence", "bootloader-no-limit", "bootloader-no-altbootcmd"]);
    says(&bare, "bootloader-no-evidence", &["the environment has nothing, and not bootlimit, altbootcmd"]);
    let set_up = Board::with(|board| {
        without_our_logic(board);
        board.set_env(&[("altbootcmd", "run mender_altbootcmd; run bootcmd")]);
    });
    check(&set_up, 1, &["bootloader-no-evidence"]);
    let mender = Board::with(|board| {
        without_our_logic(board);
        board.set_env(&[
            ("altbootcmd", "run bootcmd"),
            ("mender_setup", "x"),
            ("mender_check_saveenv_canary", "1"),
            ("mender_saveenv_canary", "1"),
        ]);
    });
    check(&mender, 0, &[]);
    says(&mender, "bootloader-evidence", &["has written to this environment"]);
    says(&mender, "boot-env-canary", &["canary"]);
    let grub = grub(without_our_logic);
    check(&grub, 1, &["bootloader-no-evidence"]);
}

#[test]
fn a_machine_that_stays_down() {
    check(&Board::with(|board| board.write("proc/sys/kernel/panic", "0\n")), 1, &["panic-does-not-restart"]);
    check(&Board::with(|board| board.remove("sys/class/watchdog")), 1, &["watchdog-none"]);
    let idle = Board::with(|board| board.write("sys/class/watchdog/watchdog0/state", "inactive\n"));
    check(&idle, 1, &["watchdog-idle"]);
}

// ---- Data partition ----

#[test]
fn a_data_partition_that_is_not_there_or_does_not_last() {
    let unmounted = Board::with(|board| board.remove("data/mender"));
    let lost = ["device-type-wrong", "data-missing", "daemon-not-running"];
    check(&unmounted, 2, &lost);
    says(&unmounted, "data-missing", &["a link to nothing"]);
    let in_slot = Board::with(|board| board.write("proc/self/mountinfo", MOUNTS.lines().next().unwrap()));
    check(&in_slot, 2, &["data-read-only", "data-in-slot"]);
    let memory = Board::with(|board| {
        board.edit("proc/self/mountinfo", "179:4 / /data rw - ext4", "0:41 / /data rw - tmpfs")
    });
    check(&memory, 2, &["data-lost-at-restart"]);
    let read_only = Board::with(|board| board.edit("proc/self/mountinfo", "/data rw", "/data ro,noatime"));
    check(&read_only, 2, &["data-read-only"]);
    let root = Board::with(|board| {
        board.write("proc/self/mountinfo", "24 1 8:1 / / rw - ext4 /dev/root rw\n");
        board.disk("sda", "sda", 8);
    });
    check(&root, 1, &["data-on-root"]);
    let overlay =
        Board::with(|board| board.write("proc/self/mountinfo", "24 1 0:30 / / rw - overlay overlay rw\n"));
    check(&overlay, 2, &["data-lost-at-restart"]);
}

#[test]
fn a_data_partition_that_is_full() {
    check_facts(|facts| facts.data.free_bytes = Some(1000), 2, &["data-full"]);
    check_facts(|facts| facts.data.free_bytes = Some(9 << 20), 1, &["data-little-room"]);
    check_facts(|facts| facts.data.free_bytes = Some(40 << 20), 0, &[]);
}

// ---- Service ----

fn unit(change: impl FnOnce(&str) -> String) -> Board {
    Board::with(|board| {
        let unit = "usr/lib/systemd/system/rust-ota.service";
        board.write(unit, change(&board.read(unit)));
    })
}

#[test]
fn a_daemon_that_nothing_starts() {
    let missing = Board::with(|board| {
        board.remove("usr/lib/systemd/system/rust-ota.service");
    });
    check(&missing, 1, &["service-missing"]);
    let disabled = Board::with(|board| board.remove("etc/systemd/system/multi-user.target.wants"));
    check(&disabled, 1, &["service-not-enabled"]);
    let masked = Board::with(|board| board.link("/dev/null", "etc/systemd/system/rust-ota.service"));
    check(&masked, 1, &["service-masked"]);
    let stopped = Board::with(|board| board.remove("proc/1234"));
    check(&stopped, 1, &["daemon-not-running"]);
    let another = Board::with(|board| board.write("proc/1234/comm", "sshd\n"));
    check(&another, 1, &["daemon-not-running"]);
}

#[test]
fn another_client_beside_this_one() {
    let board = Board::with(|board| {
        board.write(
            "usr/lib/systemd/system/mender-updated.service",
            "[Service]\nExecStart=/usr/bin/mender-update daemon\n",
        );
        board.link("x", "etc/systemd/system/multi-user.target.wants/mender-updated.service");
    });
    check(&board, 2, &["service-another-client"]);
    let alias = Board::with(|board| {
        board.link("/usr/lib/systemd/system/rust-ota.service", "etc/systemd/system/mender-updated.service")
    });
    check(&alias, 0, &[]);
}

#[test]
fn a_unit_that_does_not_look_after_the_client() {
    check(&unit(|text| text.replace("WatchdogSec=300", "")), 1, &["service-no-watchdog"]);
    check(&unit(|text| text.replace("OnFailure=rust-ota-failed.service", "")), 1, &["service-no-give-up"]);
    let failed = Board::with(|board| board.remove("usr/lib/systemd/system/rust-ota-failed.service"));
    check(&failed, 2, &["service-give-up-missing"]);
    let drop_in = Board::with(|board| {
        board
            .write("etc/systemd/system/rust-ota.service.d/x.conf", "[Unit]\nStartLimitAction=reboot-force\n");
    });
    check(&drop_in, 1, &["service-start-limit-action"]);
}

#[test]
fn other_ways_to_start_a_daemon() {
    let other = |change: &dyn Fn(&Board)| {
        Board::with(|board| {
            board.remove("run/systemd");
            change(board);
        })
    };
    check(&other(&|_| {}), 1, &["service-missing"]);
    check(&other(&|board| board.program("etc/init.d/rust-ota")), 1, &["service-not-enabled"]);
    for ok in ["etc/init.d/S90rust-ota", "etc/service/rust-ota/run"] {
        check(&other(&|board| board.program(ok)), 0, &[]);
    }
    let linked = other(&|board| {
        board.program("etc/init.d/rust-ota");
        board.link("../init.d/rust-ota", "etc/rc5.d/S99rust-ota");
    });
    check(&linked, 0, &[]);
    let inittab = other(&|board| board.write("etc/inittab", "ota:5:respawn:/usr/bin/rust-ota daemon\n"));
    check(&inittab, 0, &[]);
    says(&inittab, "service", &["/etc/inittab"]);
}

// ---- Memory, programs, deployment ----

#[test]
fn memory_that_is_too_little_for_some_artifacts_or_for_all() {
    let free =
        |kib: u32| Board::with(|board| board.write("proc/meminfo", format!("MemAvailable: {kib} kB\n")));
    check(&free(60 << 10), 1, &["memory-not-for-all"]);
    says(&free(60 << 10), "memory-not-for-all", &["xz", "72.0 MiB"]);
    check(&free(8 << 10), 2, &["memory-too-little"]);
    let group = Board::with(|board| {
        board.write("proc/self/cgroup", "0::/system.slice/x\n");
        board.write("sys/fs/cgroup/system.slice/x/memory.max", "30000000\n");
        board.write("sys/fs/cgroup/system.slice/x/memory.current", "1000000\n");
    });
    check(&group, 1, &["memory-not-for-all"]);
}

#[test]
fn programs_that_would_not_be_run() {
    let module = "usr/share/mender/modules/v3/docker";
    let board = Board::with(|board| board.program(module));
    check(&board, 0, &[]);
    says(&board, "update-modules", &["docker"]);
    board.mode(module, 0o644);
    check(&board, 1, &["update-module-not-executable"]);
    let script = Board::with(|board| board.write("etc/mender/scripts/Idle_Enter_00", "#!/bin/sh\n"));
    check(&script, 1, &["state-script-not-executable"]);
    let name = Board::with(|board| board.program("etc/mender/scripts/ArtifactCommit_Enter_10"));
    check(&name, 1, &["state-script-name"]);
    let version = Board::with(|board| board.write("etc/mender/scripts/version", "9"));
    check(&version, 2, &["state-script-version"]);
}

/// A record file with this document.
fn record(document: serde_json::Value) -> Board {
    struct Given(Vec<u8>);
    impl Documents for Given {
        fn initial(&self) -> Vec<u8> {
            self.0.clone()
        }
        fn after_loss(&self, _: &str) -> Vec<u8> {
            panic!("nothing is lost")
        }
        fn check(&self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
    Record::from_json(document.to_string().as_bytes()).unwrap();
    let given = Given(document.to_string().into_bytes());
    Board::with(|board| drop(state_file::open(&board.path("data/mender"), &given).unwrap()))
}

#[test]
fn what_an_update_left_behind() {
    let deployment = |more: serde_json::Value| {
        let mut deployment = serde_json::json!({
            "artifact_name": "release-2", "payload_type": "rootfs-image", "stage": "Commit", "entered": false,
        });
        for (key, value) in more.as_object().unwrap() {
            deployment[key] = value.clone();
        }
        record(serde_json::json!({ "version": 1, "deployment": deployment }))
    };
    let waits = deployment(serde_json::json!({}));
    check(&waits, 1, &["deployment-waits"]);
    says(&waits, "deployment-waits", &["release-2", "Commit"]);
    check(&deployment(serde_json::json!({ "failed": true })), 1, &["deployment-failed"]);
    check(&deployment(serde_json::json!({ "inconsistent": true })), 2, &["deployment-inconsistent"]);
    let unreported = record(serde_json::json!({ "version": 1, "unreported": { "id": "7", "failed": true } }));
    check(&unreported, 1, &["deployment-unreported"]);
    let lost = record(serde_json::json!({ "version": 1, "lost": { "reason": "torn" } }));
    check(&lost, 1, &["record-lost"]);
    let garbage =
        Board::with(|board| fs::write(board.path("data/mender/rust-ota-state"), [7; 131_072]).unwrap());
    check(&garbage, 2, &["record-unreadable"]);
}
