//! Commands on a device, from the outside: what the lines, the exit codes and the boot variables are.
//!
//! The lines are those of the Mender client 5.x (docs/spec/client-behaviour.md, "Lines and exit codes of the commands").

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use crate::common::{SLOT_BYTES, VirtualDevice, build, image, open_fifo};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{Compression, Signer, StateScript};
use serde_json::{Value, json};
use testkit::artifacts::{named, rootfs_spec};
use testkit::programs;

const INSTALLED: [&str; 4] = [
    "Installing artifact...",
    "Installed, but not committed.",
    "Use 'commit' to update, or 'rollback' to roll back the update.",
    "At least one payload requested a reboot of the device it updated.",
];
const REFUSED: [&str; 2] = ["Streaming failed.", "System not modified."];
const REFUSED_LATER: [&str; 3] = ["Installing artifact...", "Streaming failed.", "System not modified."];

fn spec() -> ArtifactSpec {
    rootfs_spec("rel-2", Compression::Gzip)
}

fn new_image() -> Vec<u8> {
    image(9, SLOT_BYTES / 2)
}

/// A good artifact on a good device.
fn device_with_artifact() -> (VirtualDevice, PathBuf) {
    let device = VirtualDevice::new();
    let artifact = device.artifact(&spec(), &new_image());
    (device, artifact)
}

#[track_caller]
fn assert_pointer(device: &VirtualDevice, part: &str, upgrade_available: &str) {
    assert_eq!(device.pointer(), (part.to_owned(), upgrade_available.to_owned()));
}

/// Nothing about the boot changed, and the old software runs.
#[track_caller]
fn assert_untouched(device: &VirtualDevice) {
    assert_pointer(device, "2", "0");
    assert_eq!(fs::read(device.slot(2)).unwrap(), image(2, SLOT_BYTES));
}

#[test]
fn an_update_is_installed_tried_and_committed() {
    let (device, artifact) = device_with_artifact();
    device.says("show-artifact").says(0, &["unknown"]);
    device.install(&artifact).says(0, &INSTALLED);
    assert_pointer(&device, "3", "1");
    assert_eq!(device.boot_variables()["mender_boot_part_hex"], "3");
    assert_eq!(fs::read(device.slot(3)).unwrap()[..SLOT_BYTES / 2], new_image());
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("commit").says(0, &["Committed."]);
    assert_pointer(&device, "3", "0");
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("show-artifact").says(0, &["rel-2"]);
    device.says("commit").says(2, &["No update in progress."]);
}

#[test]
fn the_next_update_goes_to_the_other_slot() {
    let (device, artifact) = device_with_artifact();
    for expected in [3, 2, 3] {
        device.install(&artifact).says(0, &INSTALLED);
        assert_eq!(device.simulate_bootloader(), expected);
        device.says("commit").says(0, &["Committed."]);
    }
    assert_eq!(fs::read(device.slot(2)).unwrap()[..SLOT_BYTES / 2], new_image());
}

#[test]
fn an_update_that_does_not_boot_falls_back_and_commit_says_so() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    assert_eq!(device.simulate_bootloader(), 3);
    assert_eq!(device.simulate_bootloader(), 2);
    let ran = device.says("commit");
    ran.says(1, &["Committing failed.", "Rolled back."]).because(&["the bootloader went back"]);
    assert_untouched(&device);
    device.says("show-artifact").says(0, &["unknown"]);
    device.says("commit").says(2, &["No update in progress."]);
}

#[test]
fn commit_before_the_reboot_is_refused_and_keeps_the_arming() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    for _ in 0..2 {
        device.says("commit").says(1, &[]).because(&["restart it", "`rollback` gives the update up"]);
        assert_pointer(&device, "3", "1");
    }
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("commit").says(0, &["Committed."]);
}

#[test]
fn what_was_committed_in_the_other_slot_can_be_gone_back_to() {
    let device = VirtualDevice::new();
    for (name, seed) in [("rel-2", 9), ("rel-3", 8)] {
        let artifact = device.artifact(&rootfs_spec(name, Compression::Gzip), &image(seed, SLOT_BYTES / 2));
        // Before both slots hold what this client put there, there is nothing to go back to.
        device.says("rollback --to-other-slot").says(1, &[]).because(&["not known what slot"]);
        device.install(&artifact).says(0, &INSTALLED);
        device.says("rollback --to-other-slot").says(1, &[]).because(&["already in progress"]);
        device.simulate_bootloader();
        device.says("commit").says(0, &["Committed."]);
    }
    device.says("rollback").says(2, &["No update in progress."]);
    device.says("rollback --to-other-slot").says(0, &INSTALLED[1..]);
    assert_pointer(&device, "3", "1");
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("show-artifact").says(0, &["rel-3"]);
    device.says("commit").says(0, &["Committed."]);
    let provides = ["artifact_name=rel-2", "rootfs-image.version=rel-2"];
    let ran = device.says("show-provides");
    for line in provides {
        assert!(ran.stdout.lines().any(|found| found == line), "{line} is not in {ran:#?}");
    }
    // And forth: without a commit the bootloader returns by itself.
    device.says("rollback --to-other-slot").says(0, &INSTALLED[1..]);
    assert_eq!((device.simulate_bootloader(), device.simulate_bootloader()), (2, 3));
    device.says("resume").because(&["the bootloader went back"]);
    device.says("show-artifact").says(0, &["rel-2"]);
}

#[test]
fn a_slot_that_was_written_since_is_not_gone_back_to() {
    let device = VirtualDevice::new();
    let bytes = SLOT_BYTES / 2;
    for name in ["rel-2", "rel-3"] {
        device.install(&device.artifact(&rootfs_spec(name, Compression::Gzip), &image(9, bytes)));
        device.simulate_bootloader();
        assert_eq!(device.says("commit").code, 0);
    }
    // Behind the image a slot may hold what it likes.
    let mut slot = fs::read(device.slot(3)).unwrap();
    slot[bytes] ^= 1;
    fs::write(device.slot(3), &slot).unwrap();
    device.says("rollback --to-other-slot").says(0, &INSTALLED[1..]);
    device.says("rollback").says(0, &["Rolled back."]);
    slot[bytes - 1] ^= 1;
    fs::write(device.slot(3), &slot).unwrap();
    device.says("rollback --to-other-slot").says(1, &[]).because(&["slot B was written since"]);
    assert_pointer(&device, "2", "0");
    device.says("resume").says(2, &["No update in progress."]);
}

#[test]
fn a_way_back_takes_no_room_from_an_update() {
    let device = VirtualDevice::new();
    for (name, bytes) in [("rel-2", 14_000), ("rel-3", 14_000), ("rel-4", 25_000), ("rel-5", 25_000)] {
        let mut spec = rootfs_spec(name, Compression::Gzip);
        spec.provides.insert("rootfs-image.notes".into(), "x".repeat(bytes));
        device.install(&device.artifact(&spec, &new_image())).says(0, &INSTALLED);
        device.simulate_bootloader();
        device.says("commit").says(0, &["Committed."]);
        device.says("show-artifact").says(0, &[name]);
    }
}

#[test]
fn an_installation_that_was_cut_is_wound_up_also_by_commit() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    device.cut_in_the_middle_of_the_installation();
    let ran = device.says("commit");
    ran.says(1, &["Committing failed.", "Rolled back."]).because(&["in the middle of Install"]);
    assert_untouched(&device);
    device.install(&artifact).says(0, &INSTALLED);
}

#[test]
fn a_record_that_is_damaged_in_any_way_ends_nothing() {
    let damages: [fn(&Path); 5] = [
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, [0; 128 << 10]).unwrap(),
        |path| fs::remove_file(path).and_then(|()| fs::create_dir(path)).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        },
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        },
    ];
    for damage in damages {
        let (device, artifact) = device_with_artifact();
        device.install(&artifact).says(0, &INSTALLED);
        device.simulate_bootloader();
        device.says("commit").says(0, &["Committed."]);
        damage(&device.path("data/rust-ota-state"));
        // Whoever only looks is told, and changes nothing.
        let before = device.datastore();
        for command in ["show-artifact", "show-provides"] {
            let ran = device.says(command);
            assert_eq!((ran.code, ran.stdout.contains("unknown")), (0, true), "{ran:#?}");
            assert!(ran.stderr.contains("the record is lost"), "{ran:#?}");
        }
        assert_eq!(device.datastore(), before);
        let ran = device.install(&artifact);
        ran.says(0, &INSTALLED);
        assert!(ran.stderr.contains("rust-ota-state is lost: "), "{ran:#?}");
        assert!(device.datastore().contains(&"rust-ota-state.damaged".to_owned()));
        assert_eq!(device.simulate_bootloader(), 2);
        device.says("commit").says(0, &["Committed."]);
        device.says("show-artifact").says(0, &["rel-2"]);
    }
}

#[test]
fn with_a_lost_record_an_open_trial_is_only_gone_back_from() {
    for restarts in [0, 1] {
        let (device, artifact) = device_with_artifact();
        device.install(&artifact).says(0, &INSTALLED);
        (0..restarts).for_each(|_| assert_eq!(device.simulate_bootloader(), 3));
        fs::write(device.path("data/rust-ota-state"), "").unwrap();
        device.says("commit").says(1, &[]).because(&["its record was lost", "`rollback`"]);
        assert_pointer(&device, "3", "1");
        device.says("rollback").says(0, &["Rolled back."]);
        assert_untouched(&device);
        device.says("rollback").says(2, &["No update in progress."]);
        assert_eq!(device.simulate_bootloader(), 2);
        device.install(&artifact).says(0, &INSTALLED);
    }
}

#[test]
fn what_could_not_be_printed_is_told_by_the_exit_code_of_every_command_that_only_prints() {
    let (device, artifact) = device_with_artifact();
    let run = |words: &str, to: &str| {
        let mut command = device.command(words.split(' '));
        let shell = command.get_args().map(std::ffi::OsStr::to_os_string).collect::<Vec<_>>();
        // The last words of the shell's line decide where the output goes.
        let line = format!("{} {to}", shell[1].to_str().unwrap());
        let mut redirected = Command::new("sh");
        redirected.arg("-c").arg(line).args(&shell[2..]);
        for (name, value) in command.stdin(std::process::Stdio::null()).get_envs() {
            if let Some(value) = value {
                redirected.env(name, value);
            }
        }
        redirected.output().unwrap()
    };
    for words in [
        "--version",
        "--help",
        "commit --help",
        "show-artifact",
        "show-provides",
        "--json show-artifact",
        "--json show-provides",
    ] {
        for to in [">/dev/full", ">&-"] {
            let ran = run(words, to);
            let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
            assert_eq!(ran.status.code(), Some(1), "{words} {to}: {stderr}");
            assert_eq!(
                stderr.matches("cannot write to standard output").count(),
                1,
                "{words} {to}: {stderr}"
            );
        }
        assert_eq!(run(words, ">/dev/null").status.code(), Some(0), "{words}");
    }
    // What was done is worth more than what was printed.
    let install = format!("install {}", artifact.display());
    assert_eq!(run(&install, ">/dev/full").status.code(), Some(0));
    assert_pointer(&device, "3", "1");
}

#[test]
fn showing_writes_nothing_and_needs_no_datastore_no_lock_and_no_right_to_the_configuration() {
    let device = VirtualDevice::new();
    fs::remove_dir_all(device.path("data")).unwrap();
    device.says("show-artifact").says(0, &["unknown"]);
    device.says("show-provides").says(0, &["artifact_name=unknown"]);
    assert!(!device.path("data").exists());
    // A lock that cannot be taken, by its kind.
    fs::create_dir_all(device.path("data/rust-ota.lock")).unwrap();
    device.says("show-artifact").says(0, &["unknown"]);
    device.says("commit").says(1, &[]).because(&["rust-ota.lock", "it is a directory"]);
}

#[test]
fn every_user_may_ask_what_is_installed() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    device.simulate_bootloader();
    device.says("commit").says(0, &["Committed."]);
    // The configuration may hold secrets.
    fs::set_permissions(device.config(), fs::Permissions::from_mode(0o600)).unwrap();
    for directory in ["", "conf", "data"] {
        fs::set_permissions(device.path(directory), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let record = fs::metadata(device.path("data/rust-ota-state")).unwrap();
    assert_eq!(record.permissions().mode() & 0o777, 0o644);
    // Only root can become somebody else; for others the mode has to do.
    if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
        let program = device.path("client");
        programs::copy(Path::new(env!("CARGO_BIN_EXE_rust-ota")), &program);
        let mut command = Command::new(&program);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        command.arg("-c").arg(device.config()).arg("-d").arg(device.path("data")).arg("show-artifact");
        let ran = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), "rel-2\n", "{ran:?}");
    }
}

#[test]
fn files_of_the_datastore_that_would_wait_or_never_end_are_refused_by_their_kind() {
    for (name, command, words) in [
        ("device_type", "install", ["device_type", "it is a FIFO, not a regular file"]),
        ("rust-ota.lock", "commit", ["rust-ota.lock", "it is a FIFO, not a regular file"]),
        ("mender.conf", "show-artifact", ["mender.conf", "it is a FIFO, not a regular file"]),
        ("device_type", "endless", ["device_type", "it is a character device, not a regular file"]),
        ("device_type", "long", ["device_type", "it is longer than 4096 bytes"]),
    ] {
        let (device, artifact) = device_with_artifact();
        let path = device.path("data").join(name);
        let _ = fs::remove_file(&path);
        match command {
            "endless" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            "long" => fs::write(&path, vec![b'x'; 5000]).unwrap(),
            _ => drop(device.fifo(&format!("data/{name}"))),
        }
        let ran = match command {
            "commit" | "show-artifact" => device.says(command),
            _ => device.install(&artifact),
        };
        assert_eq!(ran.code, 1, "{ran:#?}");
        ran.because(&words);
        assert_untouched(&device);
    }
    // What only might have said something is left alone.
    let device = VirtualDevice::new();
    device.fifo("data/bootstrap.mender");
    device.says("show-artifact").says(0, &["unknown"]);
}

#[test]
fn two_datastores_never_write_one_slot_at_the_same_time() {
    let device = VirtualDevice::new();
    // So large that some of it is written before all of it is there.
    let new = image(9, SLOT_BYTES);
    let artifact = device.artifact(&rootfs_spec("rel-2", Compression::None), &new);
    fs::create_dir(device.path("other")).unwrap();
    fs::copy(device.path("data/device_type"), device.path("other/device_type")).unwrap();
    let bytes = fs::read(&artifact).unwrap();
    let mut first = device.start(["install", "-"]);
    let mut stdin = first.stdin();
    let rest = bytes.len() - 4096;
    stdin.write_all(&bytes[..rest]).unwrap();
    // It writes: the slot is not what it was.
    let old = image(3, SLOT_BYTES);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fs::read(device.slot(3)).unwrap() == old {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        std::thread::yield_now();
    }
    let other = device.path("other");
    let second = device.run(["-d".as_ref(), other.as_os_str(), "install".as_ref(), artifact.as_os_str()]);
    second.says(1, &REFUSED_LATER).because(&["another process is writing slot B"]);
    assert_pointer(&device, "2", "0");
    stdin.write_all(&bytes[rest..]).unwrap();
    drop(stdin);
    first.end().says(0, &INSTALLED);
    assert_eq!(fs::read(device.slot(3)).unwrap(), new);
    // And an armed one is not overwritten either.
    let second = device.run(["-d".as_ref(), other.as_os_str(), "install".as_ref(), artifact.as_os_str()]);
    second.says(1, &REFUSED_LATER).because(&["is on trial"]);
}

#[test]
fn rollback_before_the_reboot_disarms_the_trial() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    device.says("rollback").says(0, &["Rolled back."]);
    assert_untouched(&device);
    device.says("rollback").says(2, &["No update in progress."]);
}

#[test]
fn rollback_on_trial_goes_back_at_the_next_boot() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    assert_eq!(device.simulate_bootloader(), 3);
    assert_eq!(device.says("rollback").code, 0);
    assert_eq!(device.simulate_bootloader(), 2);
    assert_untouched(&device);
    device.says("show-artifact").says(0, &["unknown"]);
}

#[test]
fn a_second_update_waits_until_the_first_is_decided() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    let ran = device.install(&artifact);
    ran.says(1, &["System not modified."])
        .because(&["Update already in progress. Please commit or roll back first"]);
    assert_pointer(&device, "3", "1");
}

#[test]
fn without_an_update_there_is_nothing_to_decide() {
    let device = VirtualDevice::new();
    for command in ["commit", "rollback", "resume"] {
        device.says(command).says(2, &["No update in progress."]);
    }
}

#[test]
fn the_reboot_exit_code_is_four_and_only_on_request() {
    let (device, artifact) = device_with_artifact();
    let ran = device.run(["install".as_ref(), "--reboot-exit-code".as_ref(), artifact.as_os_str()]);
    ran.says(4, &INSTALLED);
}

#[test]
fn an_update_stopped_before_the_installation_is_resumed() {
    let (device, artifact) = device_with_artifact();
    let stop = "--stop-before=ArtifactInstall_Enter";
    let ran = device.run(["install".as_ref(), stop.as_ref(), artifact.as_os_str()]);
    ran.says(0, &["Installing artifact...", "Streamed to storage, but not installed/enabled."]);
    assert_untouched(&device);
    device.run(["resume", stop]).says(0, &[]);
    assert_untouched(&device);
    let ran = device.says("resume");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert_eq!(ran.stdout.lines().last(), Some(INSTALLED[3]), "{ran:#?}");
    assert_pointer(&device, "3", "1");
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("commit").says(0, &["Committed."]);
}

#[test]
fn a_committed_update_that_was_stopped_before_the_cleanup_is_cleaned_up() {
    let (device, artifact) = device_with_artifact();
    device.install(&artifact).says(0, &INSTALLED);
    device.simulate_bootloader();
    assert_eq!(device.says("commit --stop-before Cleanup").code, 0);
    assert_pointer(&device, "3", "0");
    device.says("resume").says(0, &["Cleaned up."]);
    device.says("show-artifact").says(0, &["rel-2"]);
}

#[test]
fn the_binary_answers_to_the_names_scripts_know() {
    for name in ["mender-update", "mender"] {
        let (mut device, artifact) = device_with_artifact();
        device.call_it(name);
        device.install(&artifact).says(0, &INSTALLED);
        assert_eq!(device.simulate_bootloader(), 3);
        device.says("commit").says(0, &["Committed."]);
        device.says("show-artifact").says(0, &["rel-2"]);
    }
    let (mut device, _) = device_with_artifact();
    device.call_it("mender");
    device.says("--no-syslog show-artifact").says(0, &["unknown"]);
}

#[test]
fn json_is_one_object_on_standard_output() {
    let (device, artifact) = device_with_artifact();
    let object = |arguments: &[&str], code: i32| -> Value {
        let ran = device.run(arguments);
        assert_eq!((ran.code, ran.stdout.lines().count()), (code, 1), "{ran:#?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let installed = object(&["--json", "install", artifact.to_str().unwrap()], 0);
    let expected = json!(["install", "installed", true, true, 0]);
    let facts =
        ["command", "status", "success", "needs_reboot", "exit_code"].map(|key| installed[key].clone());
    assert_eq!(json!(facts), expected, "{installed}");
    assert_eq!(installed["image"]["total_bytes"], SLOT_BYTES / 2);
    let again = object(&["--json", "install", artifact.to_str().unwrap()], 1);
    assert_eq!((&again["status"], &again["success"]), (&json!("not-modified"), &json!(false)));
    assert!(again["error"].as_str().unwrap().contains("already in progress"), "{again}");
    assert_eq!(object(&["--json", "rollback"], 0)["status"], "rolled-back");
    assert_eq!(object(&["--json", "commit"], 2)["exit_code"], 2);
    assert_eq!(object(&["--json", "show-artifact"], 0), json!({ "artifact_name": "unknown" }));
    assert_eq!(object(&["--json", "show-provides"], 0), json!({ "artifact_name": "unknown" }));
}

#[test]
fn an_artifact_signed_with_another_key_is_refused() {
    let device = VirtualDevice::new();
    let other = Signer::generate_ed25519(&[8; 32]);
    let other = Signer::from_pem(other.private.as_bytes()).unwrap();
    let artifact = device.store(&build(&spec(), &new_image(), Some(&other)));
    device.install(&artifact).says(1, &REFUSED).because(&["wrong signature or wrong key", "key.pub"]);
    assert_untouched(&device);
}

#[test]
fn an_unsigned_artifact_is_refused_where_a_key_is_configured() {
    let device = VirtualDevice::new();
    let artifact = device.store(&build(&spec(), &new_image(), None));
    device.install(&artifact).says(1, &REFUSED).because(&["expecting signed artifact"]);
    // The other way of accepting it does not count beside a key.
    device.configure(|config| config["RustOta"]["DangerAcceptUnsigned"] = true.into());
    device.install(&artifact).says(1, &REFUSED).because(&["expecting signed artifact"]);
    assert_untouched(&device);
}

#[test]
fn without_a_key_nothing_is_installed_and_the_error_names_both_ways_out() {
    let (device, artifact) = device_with_artifact();
    device.configure(|config| config["ArtifactVerifyKey"] = Value::Null);
    let ran = device.install(&artifact);
    ran.says(1, &REFUSED).because(&["ArtifactVerifyKey", "DangerAcceptUnsigned"]);
    assert_untouched(&device);
    device.accept_unsigned();
    device.install(&artifact).says(0, &INSTALLED);
}

#[test]
fn a_key_that_cannot_be_used_is_an_error_and_not_no_key() {
    let (device, artifact) = device_with_artifact();
    fs::write(device.path("key.pub"), "no key\n").unwrap();
    device.install(&artifact).says(1, &[]).because(&["key.pub"]);
    fs::remove_file(device.path("key.pub")).unwrap();
    device.install(&artifact).says(1, &[]).because(&["key.pub"]);
    assert_untouched(&device);
}

#[test]
fn an_artifact_for_another_device_type_is_refused() {
    let (device, artifact) = device_with_artifact();
    fs::write(device.path("data/device_type"), "device_type=toaster\n").unwrap();
    device.install(&artifact).says(1, &REFUSED_LATER).because(&["toaster", "testbox"]);
    fs::remove_file(device.path("data/device_type")).unwrap();
    device.install(&artifact).says(1, &REFUSED_LATER).because(&["device_type"]);
    assert_untouched(&device);
}

#[test]
fn an_image_larger_than_the_slot_is_refused() {
    let device = VirtualDevice::new();
    let artifact = device.artifact(&spec(), &image(9, SLOT_BYTES + 4096));
    device.install(&artifact).says(1, &REFUSED_LATER).because(&["larger than slot B", "2101248", "2097152"]);
    assert_untouched(&device);
    assert_eq!(fs::read(device.slot(3)).unwrap(), image(3, SLOT_BYTES), "not a byte was written");
}

#[test]
fn an_image_of_exactly_the_slot_fits() {
    let device = VirtualDevice::new();
    let artifact = device.artifact(&spec(), &image(9, SLOT_BYTES));
    device.install(&artifact).says(0, &INSTALLED);
    assert_eq!(fs::read(device.slot(3)).unwrap(), image(9, SLOT_BYTES));
}

/// A device on which an installation cannot be begun.
#[track_caller]
fn check_cannot_begin(change: impl FnOnce(&VirtualDevice), words: &[&str]) {
    let (device, artifact) = device_with_artifact();
    let variables = device.boot_variables();
    change(&device);
    let ran = device.install(&artifact);
    ran.says(1, &REFUSED_LATER).because(words);
    assert_eq!(fs::read(device.slot(2)).unwrap(), image(2, SLOT_BYTES));
    if device.env_copy(0).exists() && fs::read(device.env_copy(0)).unwrap()[0] != 0xEE {
        assert_eq!(device.boot_variables(), variables);
    }
}

#[test]
fn a_slot_that_is_missing_is_named() {
    check_cannot_begin(
        |device| fs::remove_file(device.slot(3)).unwrap(),
        &["slot B", "slot3", "does not exist"],
    );
    check_cannot_begin(
        |device| device.configure(|config| config["RootfsPartB"] = Value::Null),
        &["RootfsPartB"],
    );
}

#[test]
fn one_file_cannot_be_both_slots() {
    check_cannot_begin(
        |device| {
            fs::remove_file(device.slot(3)).unwrap();
            std::os::unix::fs::symlink(device.slot(2), device.slot(3)).unwrap();
        },
        &["same device", "slot2", "slot3"],
    );
    check_cannot_begin(
        |device| {
            fs::remove_file(device.slot(3)).unwrap();
            fs::hard_link(device.slot(2), device.slot(3)).unwrap();
        },
        &["same device"],
    );
    check_cannot_begin(
        |device| device.configure(|config| config["RootfsPartB"] = config["RootfsPartA"].clone()),
        &["RootfsPartA", "RootfsPartB"],
    );
}

#[test]
fn the_running_slot_is_never_written() {
    // The environment says that slot 3 is the running one, the system that slot 2 is: nothing may be guessed.
    check_cannot_begin(|device| device.boot(3), &["slot"]);
    check_cannot_begin(
        |device| device.configure(|config| config["RustOta"]["RunningRoot"] = "/elsewhere".into()),
        &["cannot tell which slot is running", "/elsewhere"],
    );
}

#[test]
fn an_environment_with_no_valid_copy_is_an_error() {
    check_cannot_begin(
        |device| (0..2).for_each(|copy| fs::write(device.env_copy(copy), [0xEE; 0x1000]).unwrap()),
        &["no valid copy of the boot environment"],
    );
}

#[test]
fn an_environment_with_one_valid_copy_is_good_enough() {
    for copy in 0..2 {
        let (device, artifact) = device_with_artifact();
        fs::write(device.env_copy(copy), [0xEE; 0x1000]).unwrap();
        device.install(&artifact).says(0, &INSTALLED);
        assert_eq!(device.simulate_bootloader(), 3);
        device.says("commit").says(0, &["Committed."]);
        assert_pointer(&device, "3", "0");
    }
}

#[test]
fn an_environment_description_that_cannot_be_read_is_named() {
    let remove = |device: &VirtualDevice| fs::remove_file(device.path("fw_env.config")).unwrap();
    check_cannot_begin(remove, &["fw_env.config"]);
    let garble = |device: &VirtualDevice| fs::write(device.path("fw_env.config"), "what?\n").unwrap();
    check_cannot_begin(garble, &["fw_env.config"]);
    let directory = |device: &VirtualDevice| {
        fs::remove_file(device.path("fw_env.config")).unwrap();
        fs::create_dir(device.path("fw_env.config")).unwrap();
    };
    check_cannot_begin(directory, &["fw_env.config"]);
}

#[test]
fn a_configuration_that_cannot_be_understood_stops_every_command() {
    let (device, artifact) = device_with_artifact();
    let artifact = artifact.to_str().unwrap();
    let good = fs::read_to_string(device.config()).unwrap();
    let check = |content: &str, words: &[&str]| {
        fs::write(device.config(), content).unwrap();
        for arguments in
            [&["install", artifact][..], &["commit"], &["rollback"], &["resume"], &["show-artifact"]]
        {
            device.run(arguments).says(1, &[]).because(words);
        }
        assert_untouched(&device);
    };
    check(&good[..good.len() - 1], &["mender.conf", "EOF"]);
    check("[]", &["mender.conf", "not a JSON object"]);
    check("", &["mender.conf"]);
    check(r#"{"ArtifactVerifyKey":true}"#, &["mender.conf", "ArtifactVerifyKey must be a string"]);
    check(r#"{"RustOta":{"Bootloader":7}}"#, &["RustOta.Bootloader"]);
    check(r#"{"RootfsPartA":"a","ROOTFSPARTA":"b"}"#, &["is there twice"]);
    fs::remove_file(device.config()).unwrap();
    device.says("show-artifact").says(1, &[]).because(&["mender.conf"]);
}

#[test]
fn a_datastore_that_cannot_be_written_is_named() {
    let (device, artifact) = device_with_artifact();
    fs::rename(device.path("data"), device.path("kept")).unwrap();
    fs::write(device.path("data"), "not a directory").unwrap();
    device.install(&artifact).says(1, &[]).because(&["data"]);
    assert_untouched(&device);
    fs::remove_file(device.path("data")).unwrap();
    fs::rename(device.path("kept"), device.path("data")).unwrap();
    fs::set_permissions(device.path("data"), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(device.path("data/probe"), "").is_ok() {
        println!("SKIPPED: a directory cannot be made read-only for root");
        return;
    }
    device.install(&artifact).says(1, &[]).because(&["data"]);
    assert_untouched(&device);
    fs::set_permissions(device.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_second_process_is_told_that_the_device_is_busy() {
    let (device, artifact) = device_with_artifact();
    let fifo = device.fifo("slow.mender");
    let first = device.start(["install".as_ref(), fifo.as_os_str()]);
    let mut feed = open_fifo(&fifo);
    for command in ["commit", "rollback", "resume", "install update.mender"] {
        let ran = device.says(command);
        ran.says(1, &[]).because(&["another rust-ota process is working on this device", "rust-ota.lock"]);
    }
    // State scripts ask this while an update runs.
    device.says("show-artifact").says(0, &["unknown"]);
    feed.write_all(&fs::read(artifact).unwrap()).unwrap();
    drop(feed);
    first.end().says(0, &INSTALLED);
    device.says("rollback").says(0, &["Rolled back."]);
}

#[test]
fn an_artifact_comes_from_standard_input() {
    let (device, artifact) = device_with_artifact();
    let mut running = device.start(["install", "-"]);
    running.stdin().write_all(&fs::read(artifact).unwrap()).unwrap();
    running.end().says(0, &INSTALLED);
    assert_pointer(&device, "3", "1");
}

#[test]
fn an_artifact_that_ends_early_leaves_the_boot_as_it_was() {
    let (device, artifact) = device_with_artifact();
    let bytes = fs::read(artifact).unwrap();
    let mut running = device.start(["install", "-"]);
    running.stdin().write_all(&bytes[..bytes.len() / 2]).unwrap();
    running.end().says(1, &REFUSED_LATER).because(&["ends too early"]);
    assert_untouched(&device);
    device.says("commit").says(2, &["No update in progress."]);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let device = VirtualDevice::new();
    device.says("install /nowhere/at-all.mender").says(1, &REFUSED).because(&["/nowhere/at-all.mender"]);
    device.install(&device.path("data")).says(1, &REFUSED).because(&["data"]);
}

/// Serves `body` on the loopback interface. The first two connections are cut after a third each; the rest has to be
/// asked for with `Range`. Returns the address, and where each answer began.
fn serve_with_two_cuts(body: Vec<u8>) -> (String, JoinHandle<Vec<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/update.mender", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        (0..3)
            .map(|round| {
                let (mut connection, _) = listener.accept().unwrap();
                let from = range_asked_for(&connection);
                let head = if from == 0 { "200 OK" } else { "206 Partial Content" };
                let (length, all) = (body.len() - from, body.len());
                let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
                let range = if from == 0 { String::new() } else { range };
                let head =
                    format!("HTTP/1.1 {head}\r\nETag: \"1\"\r\n{range}Content-Length: {length}\r\n\r\n");
                let to = if round == 2 { all } else { from + all / 3 };
                connection.write_all(head.as_bytes()).unwrap();
                connection.write_all(&body[from..to]).unwrap();
                from
            })
            .collect()
    });
    (address, server)
}

/// Reads the head of a request; the first byte that it asks for.
fn range_asked_for(connection: &TcpStream) -> usize {
    let lines = BufReader::new(connection).lines().map(|line| line.unwrap().to_ascii_lowercase());
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = head.iter().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
    range.map_or(0, |from| from.parse().unwrap())
}

#[test]
fn a_download_goes_on_where_the_connection_broke() {
    let (device, artifact) = device_with_artifact();
    let body = fs::read(artifact).unwrap();
    let third = body.len() / 3;
    let (address, server) = serve_with_two_cuts(body);
    device.run(["install", &address]).says(0, &INSTALLED);
    assert_eq!(server.join().unwrap(), [0, third, 2 * third]);
    assert_eq!(fs::read(device.slot(3)).unwrap()[..SLOT_BYTES / 2], new_image());
}

/// A signal in the middle of a download, and the same update again.
fn check_killed_while_downloading(signal: &str, code: i32) {
    let device = VirtualDevice::new();
    // Not compressed and larger than all buffers on the way, so that part of it has arrived and part has not.
    let bytes = build(&rootfs_spec("rel-2", Compression::None), &image(9, SLOT_BYTES), Some(device.signer()));
    let fifo = device.fifo("slow.mender");
    let running = device.start(["install".as_ref(), fifo.as_os_str()]);
    let mut feed = open_fifo(&fifo);
    feed.write_all(&bytes[..bytes.len() * 3 / 4]).unwrap();
    running.signal(signal);
    let ran = running.end();
    assert_eq!(ran.code, code, "{ran:#?}");
    drop(feed);
    assert_untouched(&device);
    device.says("commit").says(2, &["No update in progress."]);
    device.install(&device.store(&bytes)).says(0, &INSTALLED);
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("commit").says(0, &["Committed."]);
    assert_eq!(fs::read(device.slot(3)).unwrap(), image(9, SLOT_BYTES));
}

#[test]
fn a_client_killed_while_downloading_can_install_again() {
    check_killed_while_downloading("KILL", 128 + 9);
}

#[test]
fn a_client_told_to_end_while_downloading_can_install_again() {
    check_killed_while_downloading("TERM", 128 + 15);
}

/// An artifact with these scripts, each of which writes its own name to `log`; those in `failing` fail.
fn scripted(device: &VirtualDevice, log: &Path, names: &[&str], failing: &[&str]) -> PathBuf {
    let mut spec = spec();
    for name in names {
        let end = if failing.contains(name) { "exit 1" } else { "exit 0" };
        let content = format!("#!/bin/sh\necho \"${{0##*/}}\" >>'{}'\n{end}\n", log.display());
        spec.scripts.push(StateScript { name: (*name).to_owned(), content: content.into_bytes() });
    }
    device.artifact(&spec, &new_image())
}

const SCRIPTS: [&str; 11] = [
    "ArtifactInstall_Enter_10_late",
    "ArtifactInstall_Enter_05",
    "ArtifactInstall_Leave_00",
    "ArtifactInstall_Error_00",
    "ArtifactReboot_Enter_00",
    "ArtifactCommit_Enter_00",
    "ArtifactCommit_Leave_00",
    "ArtifactCommit_Error_00",
    "ArtifactRollback_Enter_00",
    "ArtifactRollback_Leave_00",
    "ArtifactFailure_Enter_00",
];

fn log_of(log: &Path) -> Vec<String> {
    let mut text = String::new();
    fs::File::open(log).unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn state_scripts_run_in_their_order() {
    let device = VirtualDevice::new();
    let log = device.path("log");
    let artifact = scripted(&device, &log, &SCRIPTS, &[]);
    device.install(&artifact).says(0, &INSTALLED);
    let installed = ["ArtifactInstall_Enter_05", "ArtifactInstall_Enter_10_late", "ArtifactInstall_Leave_00"];
    assert_eq!(log_of(&log), installed);
    device.simulate_bootloader();
    device.says("commit").says(0, &["Committed."]);
    assert_eq!(log_of(&log)[3..], ["ArtifactCommit_Enter_00", "ArtifactCommit_Leave_00"]);
}

#[test]
fn scripts_have_the_umask_that_the_client_was_started_with() {
    let device = VirtualDevice::new();
    let log = device.path("umask");
    let mut spec = spec();
    let content = format!("#!/bin/sh\numask >'{}'\n", log.display());
    let script = StateScript { name: "ArtifactInstall_Enter_00".into(), content: content.into_bytes() };
    spec.scripts.push(script);
    let artifact = device.artifact(&spec, &new_image());
    let command = device.command(["install".as_ref(), artifact.as_os_str()]);
    // A shell in between sets it; the program itself keeps its own files private whatever it is.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 0027 && exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| shell.env(name, value));
    }
    assert!(shell.output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&log).unwrap().trim(), "0027");
    let mode = fs::metadata(device.path("data/rust-ota.lock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn software_that_is_not_well_is_not_committed_by_hand_either() {
    let device = VirtualDevice::new();
    device.configure(|config| {
        config["RustOta"]["HealthCheck"] = json!({ "Commands": ["exit 9"], "TimeoutSeconds": 0 });
    });
    let artifact = device.artifact(&spec(), &new_image());
    device.install(&artifact).says(0, &INSTALLED);
    assert_eq!(device.simulate_bootloader(), 3);
    let ran = device.says("commit");
    ran.says(1, &["Committing failed.", "Rolled back."]);
    ran.because(&["refused before commit: health check: exit 9: exit status: 9"]);
    assert_eq!(device.simulate_bootloader(), 2);
    device.says("commit").says(2, &["No update in progress."]);
}

#[test]
fn a_script_that_fails_before_the_installation_rolls_back() {
    let device = VirtualDevice::new();
    let log = device.path("log");
    let artifact = scripted(&device, &log, &SCRIPTS, &["ArtifactInstall_Enter_05"]);
    let ran = device.install(&artifact);
    ran.says(1, &["Installing artifact...", "Installation failed.", "Rolled back."]);
    ran.because(&["state script ArtifactInstall_Enter_05 failed"]);
    let expected = [
        "ArtifactInstall_Enter_05",
        "ArtifactInstall_Error_00",
        "ArtifactRollback_Enter_00",
        "ArtifactRollback_Leave_00",
        "ArtifactFailure_Enter_00",
    ];
    assert_eq!(log_of(&log), expected);
    assert_untouched(&device);
    device.says("commit").says(2, &["No update in progress."]);
}

#[test]
fn a_script_that_fails_before_the_commit_rolls_back() {
    let device = VirtualDevice::new();
    let log = device.path("log");
    let artifact = scripted(&device, &log, &SCRIPTS, &["ArtifactCommit_Enter_00"]);
    device.install(&artifact).says(0, &INSTALLED);
    device.simulate_bootloader();
    let ran = device.says("commit");
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert_eq!(ran.stdout.lines().take(2).collect::<Vec<_>>(), ["Committing failed.", "Rolled back."]);
    assert_eq!(device.simulate_bootloader(), 2);
    assert_untouched(&device);
}

#[test]
fn a_script_that_fails_behind_the_commit_is_told_and_changes_nothing() {
    let device = VirtualDevice::new();
    let log = device.path("log");
    let artifact = scripted(&device, &log, &SCRIPTS, &["ArtifactCommit_Leave_00"]);
    device.install(&artifact).says(0, &INSTALLED);
    device.simulate_bootloader();
    device.says("commit").says(1, &["Committed.", "One or more post-commit steps failed."]);
    assert_pointer(&device, "3", "0");
}

#[test]
fn a_bootstrap_artifact_gives_the_device_its_provides_once() {
    let device = VirtualDevice::new();
    let mut spec = ArtifactSpec::bootstrap(named("factory-1"), vec![named("testbox")]);
    spec.provides.insert("rootfs-image.version".into(), "factory-1".into());
    let bootstrap = testkit::artifacts::build(&spec, &[], None);
    let path = device.path("data/bootstrap.mender");
    fs::write(&path, &bootstrap).unwrap();
    let provides = ["artifact_name=factory-1", "rootfs-image.version=factory-1"];
    // Whoever only looks changes nothing.
    for _ in 0..2 {
        device.says("show-artifact").says(0, &["factory-1"]);
        device.says("show-provides").says(0, &provides);
        assert!(path.exists());
    }
    let missing = device.path("missing.mender");
    assert_eq!(device.install(&missing).code, 1);
    assert!(!path.exists());
    device.says("show-provides").says(0, &provides);
    let mut other = spec;
    other.artifact_name = named("factory-2");
    fs::write(&path, testkit::artifacts::build(&other, &[], None)).unwrap();
    device.says("show-provides").says(0, &provides);
    assert_eq!(device.install(&missing).code, 1);
    assert!(!path.exists());
    device.says("show-provides").says(0, &provides);
}

#[test]
fn a_failure_says_what_failed_also_with_a_stop_before_a_later_state() {
    let (device, artifact) = device_with_artifact();
    let bytes = fs::read(&artifact).unwrap();
    let short = device.path("short.mender");
    fs::write(&short, &bytes[..bytes.len() - 1024]).unwrap();
    let ran =
        device.run(["install".as_ref(), "--stop-before".as_ref(), "Cleanup".as_ref(), short.as_os_str()]);
    ran.says(1, &REFUSED_LATER);
    device.says("resume").says(0, &["Cleaned up."]);
    // A commit that fails is stopped before it goes back.
    let artifact = scripted(&device, &device.path("script-log"), &SCRIPTS, &["ArtifactCommit_Enter_00"]);
    device.install(&artifact).says(0, &INSTALLED);
    device.simulate_bootloader();
    device.says("commit --stop-before ArtifactRollback_Enter").says(1, &["Committing failed."]);
    device.says("resume").says(0, &["Rolled back."]);
}

#[test]
fn provides_that_could_not_be_recorded_are_refused_before_anything_is_armed() {
    let (device, _) = device_with_artifact();
    let mut spec = spec();
    spec.provides.insert("rootfs-image.notes".into(), "x".repeat(70_000));
    let artifact = device.artifact(&spec, &new_image());
    let ran = device.install(&artifact);
    ran.says(1, &REFUSED_LATER).because(&["does not fit into the state record"]);
    assert_untouched(&device);
}

#[test]
fn a_committed_update_replaces_what_the_device_provides() {
    let (device, _) = device_with_artifact();
    let mut spec = spec();
    spec.artifact_group = Some("group".into());
    spec.provides.insert("rootfs-image.flavour".into(), "plain".into());
    let artifact = device.artifact(&spec, &new_image());
    device.install(&artifact).says(0, &INSTALLED);
    device.says("show-provides").says(0, &["artifact_name=unknown"]);
    device.simulate_bootloader();
    device.says("commit").says(0, &["Committed."]);
    let ran = device.says("show-provides");
    for line in [
        "artifact_group=group",
        "artifact_name=rel-2",
        "rootfs-image.flavour=plain",
        "rootfs-image.version=rel-2",
    ] {
        assert!(ran.stdout.lines().any(|found| found == line), "{line} is not in {ran:#?}");
    }
}

#[test]
fn an_artifact_without_a_payload_is_committed_at_once() {
    let device = VirtualDevice::new();
    let spec = ArtifactSpec::bootstrap(named("paper-1"), vec![named("testbox")]);
    let artifact = device.store(&testkit::artifacts::build(&spec, &[], Some(device.signer())));
    device.install(&artifact).says(
        0,
        &[
            "Installing artifact...",
            "Artifact with empty payload. Committing immediately.",
            "Installed and committed.",
        ],
    );
    device.says("show-artifact").says(0, &["paper-1"]);
    assert_untouched(&device);
}

#[test]
fn a_payload_of_another_type_has_no_update_module() {
    let device = VirtualDevice::new();
    let mut spec = ArtifactSpec::module_image(named("rel-2"), vec![named("testbox")], named("container"));
    spec.compression = rootfs_spec("rel-2", Compression::None).compression;
    let artifact = device.artifact(&spec, b"content");
    let ran = device.install(&artifact);
    ran.says(1, &["Installing artifact...", "System not modified. Cleanup failed."]);
    ran.because(&["no update module", "container"]);
    assert_untouched(&device);
}

#[test]
fn whoever_mistypes_an_address_is_told_soon_and_what_is_wrong() {
    let device = VirtualDevice::new();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let begun = std::time::Instant::now();
    let ran = device.run(["install", &format!("http://{unused}/a.mender")]);
    ran.says(1, &REFUSED).because(&[&unused.to_string(), "refused", "giving up"]);
    assert!(ran.stderr.contains("next attempt in"), "{ran:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
    for (address, words) in [
        ("http://127.0.0.1/my file.mender", "it has a blank in it; write %20 for it"),
        ("HTTP:///a.mender", "there is no host in it"),
        (
            "ftp://127.0.0.1/a.mender",
            "ftp:// is not supported: install takes http://, https://, a file, or -",
        ),
        ("file://elsewhere/a.mender", "file:// takes a path"),
    ] {
        device.run(["install", address]).says(1, &REFUSED).because(&[words]);
    }
    device.says("install a.mender -d data").says(1, &[]).because(&["-d", "stands before the command"]);
}

#[test]
fn an_address_may_be_written_in_capitals_and_a_file_as_an_address() {
    let device = VirtualDevice::new();
    let body = build(&rootfs_spec("rel-2", Compression::None), &image(9, 100_000), Some(device.signer()));
    let path = device.path("my update.mender");
    fs::write(&path, &body).unwrap();
    let address = format!("file://{}", path.display()).replace(' ', "%20");
    assert_eq!(device.run(["install", &address]).code, 0);
    assert_eq!(device.says("rollback").code, 0);
    let (address, server) = serve_with_two_cuts(body);
    assert_eq!(device.run(["install", &address.replacen("http", "HTTP", 1)]).code, 0);
    assert_eq!(server.join().unwrap().len(), 3);
}

#[test]
fn what_becomes_another_thing_in_the_middle_is_begun_again() {
    let device = VirtualDevice::new();
    let build =
        |seed| build(&rootfs_spec("rel-2", Compression::None), &image(seed, 100_000), Some(device.signer()));
    let bodies = [build(8), build(9)];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/update.mender", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        // Cut; the rest of another one, from a server that ignores `If-Range`; and that as a whole.
        for round in 0..3 {
            let (mut connection, _) = listener.accept().unwrap();
            let (from, body) = (range_asked_for(&connection), &bodies[round.min(1)]);
            let all = body.len();
            let (status, to) = if from == 0 { ("200 OK", all) } else { ("206 Partial Content", all) };
            let to = if round == 0 { all / 2 } else { to };
            let head = format!(
                "HTTP/1.1 {status}\r\nETag: \"{round}\"\r\nContent-Range: bytes {from}-{}/{all}\r\n\
                 Content-Length: {}\r\n\r\n",
                all - 1,
                all - from
            );
            connection.write_all(head.as_bytes()).unwrap();
            // Nobody reads what is another thing.
            let _ = connection.write_all(&body[from..to]);
        }
    });
    let ran = device.run(["install", &address]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("beginning again (1 of 2 times)"), "{ran:?}");
    server.join().unwrap();
    assert_eq!(device.pointer(), ("3".to_owned(), "1".to_owned()));
}

#[test]
fn a_key_that_others_may_know_is_one_warning() {
    let device = VirtualDevice::new();
    device.configure(|config| config["ArtifactVerfyKey"] = "x".into());
    let ran = device.says("show-artifact");
    ran.says(0, &["unknown"]);
    assert_eq!(ran.stderr.matches("is ArtifactVerifyKey meant?").count(), 1, "{ran:?}");
}

#[test]
fn the_identity_that_ships_is_the_address_of_the_first_interface_that_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("support/mender-device-identity");
    let interface = |name: &str, index: u32, kind: u32, address: &str, assigned: u32| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        let texts =
            [("ifindex", index.to_string()), ("type", kind.to_string()), ("address", address.to_owned())];
        for (file, text) in texts.into_iter().chain([("addr_assign_type", assigned.to_string())]) {
            fs::write(path.join(file), text + "\n").unwrap();
        }
    };
    let says = || {
        let ran = std::process::Command::new("sh").arg(&program).arg(folder.path()).output().unwrap();
        (ran.status.code(), String::from_utf8(ran.stdout).unwrap())
    };
    interface("lo", 1, 772, "00:00:00:00:00:00", 0);
    assert_eq!(says(), (Some(1), String::new()));
    interface("dummy0", 2, 1, "aa:00:00:00:00:02", 1);
    assert_eq!(says(), (Some(0), "mac=aa:00:00:00:00:02\n".to_owned()));
    interface("wlan0", 10, 1, "aa:00:00:00:00:10", 0);
    interface("eth0", 9, 1, "aa:00:00:00:00:09", 3);
    interface("tun0", 3, 65_534, "aa:00:00:00:00:03", 0);
    assert_eq!(says(), (Some(0), "mac=aa:00:00:00:00:09\n".to_owned()));
}
