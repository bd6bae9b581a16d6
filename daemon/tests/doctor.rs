//! `doctor` on a device of files. What it says of boards is tried in its own package.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::common::{Ran, VirtualDevice};
use linux::lock::FileLock;
use serde_json::Value;

/// The level of each finding of a call with `--json`.
fn levels(ran: &Ran) -> BTreeMap<String, String> {
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(object["exit_code"], ran.code, "{object}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    object["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (text(&found["id"]), text(&found["level"])))
        .collect()
}

/// Names, lengths and times of everything in a folder.
fn listing(folder: &Path) -> Vec<(String, u64, SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            let name = entry.path().to_string_lossy().into_owned();
            found.push((name, metadata.len(), metadata.modified().unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_device_of_files_is_said_to_be_one_and_nothing_is_wrong_with_it() {
    let device = VirtualDevice::new();
    let before = listing(&device.path(""));
    let ran = device.says("doctor --offline --json");
    let levels = levels(&ran);
    assert_eq!(ran.code, 1, "{levels:?}");
    assert!(levels.values().all(|level| level != "wrong"), "{levels:?}");
    for (id, level) in
        [("virtual-device", "warning"), ("server-none", "warning"), ("slots", "ok"), ("boot-env", "ok")]
    {
        assert_eq!(levels.get(id).map(String::as_str), Some(level), "{id} of {levels:?}");
    }
    assert_eq!(listing(&device.path("")), before);
}

#[test]
fn what_is_wrong_is_the_last_line_and_the_exit_code() {
    let device = VirtualDevice::new();
    fs::remove_file(device.slot(3)).unwrap();
    let ran = device.says("doctor --offline");
    assert_eq!(ran.code, 2, "{}", ran.stdout);
    let wrong: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("wrong")).collect();
    assert!(wrong[0].contains("slot B") && wrong[0].ends_with("does not exist"), "{}", ran.stdout);
    assert!(ran.stdout.lines().last().unwrap().ends_with("1 wrong"), "{}", ran.stdout);
}

#[test]
fn a_device_is_looked_at_while_another_process_works_on_it() {
    let device = VirtualDevice::new();
    let lock = FileLock::acquire(&device.path("data/rust-ota.lock"), Duration::ZERO).unwrap();
    assert_eq!(device.says("doctor --offline").code, 1);
    drop(lock);
}

#[test]
fn a_server_that_is_not_there_is_wrong_and_only_asked_where_it_may_be() {
    let device = VirtualDevice::new();
    device.configure(|config| config["ServerURL"] = "http://127.0.0.1:1".into());
    let tried = levels(&device.says("doctor --json"));
    assert_eq!(tried["server-unreachable"], "wrong");
    let offline = levels(&device.says("doctor --offline --json"));
    assert_eq!((offline.get("server-unreachable"), offline["server-not-asked"].as_str()), (None, "ok"));
    assert!(device.says("status --offline").stderr.contains("--offline goes with doctor"));
}

#[test]
fn nothing_is_opened_for_writing_locked_or_flushed() {
    let device = VirtualDevice::new();
    device.configure(|config| config["ServerURL"] = "http://127.0.0.1:1".into());
    let trace = device.path("trace");
    let inner = device.command(["doctor"]);
    let mut traced = Command::new("strace");
    let calls = "trace=open,openat,openat2,creat,flock,fcntl,fsync,fdatasync,syncfs,sync,sync_file_range,unlink,unlinkat,\
                 rename,renameat,renameat2,mkdir,mkdirat,chmod,fchmod,fchmodat,truncate,ftruncate,utimensat,mount";
    traced.args(["-f", "-e", calls, "-o"]).arg(&trace);
    traced.arg(inner.get_program()).args(inner.get_args());
    traced.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    match traced.output() {
        Ok(output) if trace.exists() => assert_eq!(output.status.code(), Some(2), "{output:?}"),
        Ok(_) | Err(_) => return println!("SKIPPED: no strace, or it may not trace here"),
    }
    let calls = fs::read_to_string(&trace).unwrap();
    let env = device.env_copy(0).display().to_string();
    assert!(calls.contains(&env), "it was traced:\n{calls}");
    let changes = [
        "O_WRONLY",
        "O_RDWR",
        "O_CREAT",
        "O_TRUNC",
        "flock(",
        "F_SETLK",
        "sync",
        "unlink",
        "rename",
        "mkdir",
        "chmod(",
        "chmodat(",
        "truncate",
        "utimensat",
        "mount(",
    ];
    let of_the_terminal = |line: &&str| line.contains("/dev/tty") || line.contains("/dev/null");
    let found: Vec<&str> = calls
        .lines()
        .filter(|line| changes.iter().any(|change| line.contains(change)))
        .filter(|line| !of_the_terminal(line))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}
