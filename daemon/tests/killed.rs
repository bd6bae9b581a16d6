//! The real daemon, killed at 200 points of a real deployment from a real server, on devices made of files.
//!
//! A point is a line of its log and some time after it, in part drawn. Half of the kills are crashes: the same slot goes
//! on running. The other half are power cuts: the bootloader decides what runs next. Whatever happens, the server is told
//! one end, and it is the one that happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::common::{SLOT_BYTES, VirtualDevice, image};
use client_core::artifact::Compression;
use serde_json::json;
use server_core::client::Management;
use server_core::{Options, Server};
use testkit::choice::{Generator, seed, so_many};
use testkit::programs::place_script;

const POINTS: u64 = 200;
/// Log lines of an undisturbed deployment, both processes together: at least so many.
const LINES: usize = 24;
/// What the time after a line is divided into.
const SPAN_MICROS: usize = 700;
const WORKERS: usize = 6;
/// Processes of one device until its deployment is over. More would be a device that does not get there.
const STARTS_MAX: usize = 12;

/// Where the process dies.
#[derive(Clone, Copy, Debug)]
struct Point {
    line: usize,
    after: Duration,
    power_cut: bool,
}

impl Point {
    fn number(number: usize) -> Point {
        // Each line of the log has some of these spans, and the seed a moment in each of them.
        let span = (number / LINES % 9) as u64;
        let moment = Generator::new(seed() ^ number as u64).below(SPAN_MICROS) as u64;
        Point {
            line: 1 + number % LINES,
            after: Duration::from_micros(SPAN_MICROS as u64 * span + moment),
            power_cut: number % 2 == 1,
        }
    }
}

struct Fleet {
    url: String,
    management: Management,
    artifact: String,
}

fn device(number: usize, fleet: &Fleet) -> VirtualDevice {
    let device = VirtualDevice::new();
    let script = |name: &str, text: String| {
        let path = device.path(name);
        place_script(&path, &text);
        path
    };
    let identity = script("identity", format!("echo serial={number}"));
    let reboot = script("reboot", format!(": > {}", device.path("rebooted").display()));
    device.configure(|config| {
        config["ServerURL"] = fleet.url.clone().into();
        config["UpdatePollIntervalSeconds"] = 1.into();
        config["InventoryPollIntervalSeconds"] = 3600.into();
        config["RetryPollIntervalSeconds"] = 1.into();
        config["RustOta"]["IdentityScript"] = json!(identity);
        config["RustOta"]["RebootCommand"] = json!(reboot);
    });
    device
}

/// The daemon's process, ended with this value.
struct Daemon(Child);

impl Daemon {
    fn start(device: &VirtualDevice) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota"));
        command.arg("-c").arg(device.config()).arg("-d").arg(device.path("data")).arg("daemon");
        command.env("MENDER_CONF_DIR", device.path("conf")).env("MENDER_DATA_DIR", device.path("share"));
        // A virtual device is not the machine it runs on.
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
        for name in ["http_proxy", "HTTP_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Daemon(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        // It may have ended by itself.
        let _ = Command::new("kill").args(["-s", name, &id]).stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Runs the device until the server knows the end of its deployment. What the daemon logged.
fn run(device: &VirtualDevice, fleet: &Fleet, serial: usize, point: Point) -> (String, Vec<String>) {
    let mut log = Vec::new();
    let mut deployment: Option<(String, String)> = None;
    let mut killed = false;
    for _ in 0..STARTS_MAX {
        let mut daemon = Daemon::start(device);
        let (sender, lines) = mpsc::channel();
        let stderr = daemon.0.stderr.take().unwrap();
        // Ends with the process.
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut cut = false;
        let mut quiet = 0;
        loop {
            let line = match lines.recv_timeout(Duration::from_millis(500)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                // What the server notes at last brings no line of its own.
                Err(RecvTimeoutError::Timeout) => {
                    quiet += 1;
                    assert!(quiet < 60, "{point:?}: the daemon does nothing:\n{}", log.join("\n"));
                    deployment = deployment.or_else(|| order(fleet, serial));
                    daemon.signal("USR1");
                    String::new()
                }
            };
            if line.is_empty() {
                match deployment.as_ref().and_then(|(id, _)| end(fleet, id)) {
                    Some(status) => return (status, log),
                    None => continue,
                }
            }
            log.push(line.clone());
            if !killed && log.len() == point.line {
                killed = true;
                let until = Instant::now() + point.after;
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                daemon.signal("KILL");
                cut = point.power_cut;
                break;
            }
            if line.contains("started") || line.contains("accepted by") {
                if deployment.is_none() {
                    deployment = order(fleet, serial);
                }
                daemon.signal("USR1");
            }
            if line.contains("waiting for the restart") {
                daemon.signal("TERM");
                cut = true;
            }
            if line.contains("succeeded") || line.contains(": failed") {
                // The report follows; the next start finds whether it was taken.
                daemon.signal("USR1");
            }
            if let Some((id, _)) = &deployment {
                if let Some(status) = end(fleet, id) {
                    return (status, log);
                }
            }
        }
        drop(daemon);
        if deployment.is_none() {
            deployment = order(fleet, serial);
        }
        // A restart that was asked for happens, also when the one who asked was killed over it.
        if cut || device.path("rebooted").exists() {
            let _ = fs::remove_file(device.path("rebooted"));
            device.simulate_bootloader();
        }
        if let Some((id, _)) = &deployment {
            if let Some(status) = end(fleet, id) {
                return (status, log);
            }
        }
    }
    panic!("{point:?}: no end after {STARTS_MAX} starts:\n{}", log.join("\n"));
}

/// Orders the deployment, once the server knows the device.
fn order(fleet: &Fleet, serial: usize) -> Option<(String, String)> {
    let devices = fleet.management.devices().unwrap();
    let serial = serial.to_string();
    let found = devices.into_iter().find(|device| device.identity_data["serial"] == json!(serial))?;
    let name = format!("d{serial}");
    let id = fleet.management.deploy(&name, &fleet.artifact, std::slice::from_ref(&found.id)).unwrap();
    Some((id, found.id))
}

/// How the deployment ended, as the server knows it.
fn end(fleet: &Fleet, id: &str) -> Option<String> {
    let devices = fleet.management.device_deployments(id).unwrap();
    devices.into_iter().map(|device| device.status).find(|status| status == "success" || status == "failure")
}

#[test]
fn a_daemon_killed_at_200_points_tells_the_truth() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(Options::new(data.path()).auto_accept(true)).unwrap();
    let management = Management::new(server.url(), server.management_token());
    let fleet = Fleet { url: server.url().to_owned(), management, artifact: "release-2".into() };
    let maker = VirtualDevice::new();
    let new = image(9, SLOT_BYTES / 4);
    let artifact = maker.artifact(&testkit::artifacts::rootfs_spec("release-2", Compression::None), &new);
    fleet.management.upload_artifact(&artifact).unwrap();

    let points = usize::try_from(so_many(POINTS)).unwrap();
    let next = AtomicUsize::new(0);
    let successes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= points {
                        break;
                    }
                    let point = Point::number(number);
                    let device = device(number, &fleet);
                    let (status, log) = run(&device, &fleet, number, point);
                    let context = || format!("{point:?}:\n{}", log.join("\n"));
                    let (slot, trial) = device.pointer();
                    assert_eq!(trial, "0", "{}", context());
                    let content = fs::read(device.slot(slot.parse().unwrap())).unwrap();
                    let is_new = content[..new.len()] == new[..];
                    assert_eq!(is_new, slot == "3", "a slot that is neither old nor new: {}", context());
                    assert_eq!(status == "success", is_new, "the server was told {status}: {}", context());
                    let name = device.says("show-artifact").stdout;
                    assert_eq!(name.trim() == "release-2", is_new, "{name}: {}", context());
                    if is_new {
                        successes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let successes = successes.into_inner();
    println!("{points} kills: {successes} deployments succeeded, {} failed", points - successes);
    assert!(successes > 0 && successes < points);
}
