//! The commands that speak to a running daemon, against the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Stdio};

use crate::common::VirtualDevice;
use linux::daemon_process::PidFile;
use serde_json::json;

#[test]
fn without_a_daemon_nobody_is_asked() {
    let device = VirtualDevice::new();
    for command in ["check-update", "send-inventory"] {
        device.says(command).says(1, &[]).because(&["no daemon is running", "rust-ota.pid"]);
    }
    device.says("status").says(1, &[]).because(&["no daemon is running", "data/status.sock"]);
    device.configure(|config| config["RustOta"]["StatusSocket"] = json!("/nonexistent/socket"));
    device.says("status --json").says(1, &[]).because(&["/nonexistent/socket"]);
}

#[test]
fn the_process_that_holds_the_file_gets_the_signal() {
    for (command, signal) in [("check-update", "USR1"), ("send-inventory", "USR2")] {
        let device = VirtualDevice::new();
        // It ends by the signal it is asked to wait for, and by no other.
        let script = format!("trap 'exit 7' {signal}; echo ready; while :; do read -r line || exit 8; done");
        let mut daemon = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(daemon.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let file = device.path("data/rust-ota.pid");
        let _running = PidFile::create(&file, std::time::Duration::ZERO).unwrap();
        fs::write(&file, daemon.id().to_string()).unwrap();
        device.says(command).says(0, &[]);
        // Held open: the end of what it reads would end it too.
        let _input = daemon.stdin.take();
        assert_eq!(daemon.wait().unwrap().code(), Some(7), "{command}");
    }
}

#[test]
fn a_daemon_that_is_gone_is_not_signalled() {
    let device = VirtualDevice::new();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(device.path("data/rust-ota.pid"), other.id().to_string()).unwrap();
    device.says("check-update").says(1, &[]).because(&["no daemon is running"]);
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}
