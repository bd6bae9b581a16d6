//! Deployments from a real server to the real daemon, on virtual devices whose bootloader is a few lines.
//!
//! Every wait is a loop with a deadline around a question about what can be seen from the outside.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cell::OnceCell;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{Compression, Signer};
use common::{VirtualDevice, build, image};
use rust_ota_server::client::Management;
use rust_ota_server::{Action, Options, Rule, Running, Server};
use serde_json::json;
use testkit::artifacts::rootfs_spec;

/// Nothing here takes so long, not even on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(60);
const IMAGE_BYTES: usize = 64 << 10;
/// Points of a deployment at which the process is killed.
const KILL_POINTS: usize = 200;
/// Devices that are killed at the same time.
const AT_ONCE: usize = 8;

/// Asks until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        // Between two looks at another process; what is waited for ends the loop, not the time.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server with devices.
struct World {
    server: Running,
    management: Management,
    folder: tempfile::TempDir,
}

impl World {
    fn new(change: impl FnOnce(Options) -> Options) -> World {
        let folder = tempfile::tempdir().unwrap();
        let options = change(Options::new(folder.path().join("data")).record_requests(true));
        let server = Server::start(options).unwrap();
        let management = Management::new(server.url(), server.management_token());
        World { server, management, folder }
    }

    /// Uploads an artifact.
    fn offer(&self, name: &str, spec: &ArtifactSpec, signer: &Signer) {
        let path = self.folder.path().join(format!("{name}.mender"));
        fs::write(&path, build(spec, &image(9, IMAGE_BYTES), Some(signer))).unwrap();
        self.management.upload_artifact(&path).unwrap();
    }

    fn offer_release(&self, name: &str) {
        self.offer(name, &rootfs_spec(name, Compression::Gzip), VirtualDevice::new().signer());
    }

    /// Requests of this kind so far.
    fn count(&self, method: &str, path: &str) -> usize {
        let all = self.server.requests();
        all.iter().filter(|request| request.method == method && request.path.contains(path)).count()
    }

    /// The server is asked for a deployment once more.
    fn polled_again(&self) {
        let before = self.count("POST", "deployments/next");
        wait_for("another poll", || (self.count("POST", "deployments/next") > before).then_some(()));
    }
}

/// A device of a world.
struct Remote<'w> {
    world: &'w World,
    device: VirtualDevice,
    mac: String,
    id: OnceCell<String>,
    process: Option<Child>,
}

impl<'w> Remote<'w> {
    fn new(world: &'w World, number: usize) -> Remote<'w> {
        let device = VirtualDevice::new();
        let mac = format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 0xff);
        program(&device.path("identity"), &format!("echo mac={mac}"));
        program(&device.path("reboot"), &format!("touch {}", device.path("restart").display()));
        fs::create_dir_all(device.path("share/inventory")).unwrap();
        program(&device.path("share/inventory/mender-inventory-test"), "echo colour=green");
        device.configure(|config| {
            config["ServerURL"] = world.server.url().into();
            for name in
                ["UpdatePollIntervalSeconds", "InventoryPollIntervalSeconds", "RetryPollIntervalSeconds"]
            {
                config[name] = 1.into();
            }
            config["RustOta"]["IdentityScript"] = json!(device.path("identity"));
            config["RustOta"]["RebootCommand"] = json!(device.path("reboot"));
        });
        Remote { world, device, mac, id: OnceCell::new(), process: None }
    }

    /// Its id on the server.
    fn id(&self) -> String {
        let known = || {
            let devices = self.world.management.devices().unwrap();
            devices.into_iter().find(|device| device.identity_data["mac"] == *self.mac)
        };
        self.id.get_or_init(|| wait_for("the device to introduce itself", known).id).clone()
    }

    fn start(&mut self) {
        assert!(self.process.is_none());
        let log = File::options().append(true).create(true).open(self.device.path("log")).unwrap();
        self.process = Some(self.device.command(["daemon"]).stderr(log).spawn().unwrap());
    }

    /// Ends the process as a power cut would.
    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Asks the process to end.
    fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let id = process.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
        wait_for("the daemon to end", || process.try_wait().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.device.path("log")).unwrap_or_default()
    }

    fn asked_for_restart(&self) -> bool {
        self.device.path("restart").exists()
    }

    /// Power off and on; the bootloader decides.
    fn restart(&mut self) -> u32 {
        if self.process.is_some() {
            self.kill();
        }
        let _ = fs::remove_file(self.device.path("restart"));
        let slot = self.device.simulate_bootloader();
        self.start();
        slot
    }

    fn await_restart_wish(&self) {
        wait_for("the wish to restart", || self.asked_for_restart().then_some(()));
    }

    /// Orders an artifact for this device.
    fn order(&self, artifact: &str) -> String {
        self.world.management.deploy(artifact, artifact, &[self.id()]).unwrap()
    }

    /// What the server knows of a deployment.
    fn status(&self, deployment: &str) -> String {
        let (id, known) = (self.id(), self.world.management.device_deployments(deployment).unwrap());
        known.into_iter().find(|known| known.id == id).map_or(String::new(), |known| known.status)
    }

    fn await_status(&self, deployment: &str, status: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.status(deployment) != status {
            let log = || self.log();
            assert!(Instant::now() < deadline, "{} is not {status}: {}", self.status(deployment), log());
            // Between two questions to the server; its answer ends the loop, not the time.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The kinds of final reports that this deployment got.
    fn final_reports(&self, deployment: &str) -> Vec<&'static str> {
        let requests = self.world.server.requests();
        let place = format!("deployments/{deployment}/status");
        let sent = |status: &str| {
            let of_this = |path: &str| path.contains(&place);
            requests.iter().any(|request| {
                of_this(&request.path)
                    && String::from_utf8_lossy(&request.body).contains(&format!("\"{status}\""))
            })
        };
        ["success", "failure", "already-installed"].into_iter().filter(|status| sent(status)).collect()
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn program(path: &Path, command: &str) {
    fs::write(path, format!("#!/bin/sh\n{command}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_new_device_is_accepted_updated_restarted_and_committed() {
    let world = World::new(|options| options);
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let id = remote.id();
    assert_eq!(world.management.devices().unwrap()[0].status, "pending");
    world.management.accept(&id).unwrap();
    let deployment = remote.order("rel-2");
    remote.await_restart_wish();
    assert_eq!(remote.device.pointer(), ("3".to_owned(), "1".to_owned()));
    assert_eq!(remote.restart(), 3);
    remote.await_status(&deployment, "success");
    assert_eq!(remote.device.pointer(), ("3".to_owned(), "0".to_owned()));
    assert_eq!(remote.final_reports(&deployment), ["success"]);
    wait_for("the inventory of the new software", || {
        let inventory = world.management.inventory(&id).unwrap();
        let has = |name: &str, value: &str| {
            inventory.iter().any(|attribute| attribute["name"] == *name && attribute["value"] == *value)
        };
        (has("colour", "green") && has("mender_client_version_provider", "internal")).then_some(())
    });
    assert!(remote.terminate().success());
    remote.device.says("show-artifact").says(0, &["rel-2"]);
}

#[test]
fn new_software_that_never_comes_up_is_reported_as_a_failure_with_its_log() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_restart_wish();
    remote.kill();
    // The new software hangs, and a watchdog restarts the device.
    assert_eq!(remote.device.simulate_bootloader(), 3);
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "failure");
    assert_eq!(remote.final_reports(&deployment), ["failure"]);
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("not on trial: fell back"), "{log}");
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
    world.polled_again();
}

#[test]
fn an_artifact_signed_by_a_stranger_is_refused_and_the_log_says_why() {
    let world = World::new(|options| options.auto_accept(true));
    let stranger = Signer::from_pem(Signer::generate_ed25519(&[8; 32]).private.as_bytes()).unwrap();
    world.offer("rel-2", &rootfs_spec("rel-2", Compression::Gzip), &stranger);
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_status(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("signature"), "{log}");
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
    assert!(!remote.asked_for_restart());
    world.polled_again();
}

#[test]
fn a_daemon_asked_to_stop_in_mid_download_ends_well_and_the_next_one_deploys() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let stall = Rule::new(Action::Stall { after: 4096, seconds: None });
    world.server.faults().set(vec![stall.method("GET").path("download")]);
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let deployment = remote.order("rel-2");
    wait_for("the stalled download", || (world.server.faults().hits() == [1]).then_some(()));
    assert!(remote.terminate().success(), "{}", remote.log());
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
    world.server.faults().clear();
    remote.start();
    let ended = wait_for("what follows", || {
        let status = remote.status(&deployment);
        (remote.asked_for_restart() || status == "failure").then_some(status)
    });
    if ended != "failure" {
        assert_eq!(remote.restart(), 3);
        remote.await_status(&deployment, "success");
    }
    assert_eq!(remote.final_reports(&deployment).len(), 1);
    world.polled_again();
}

/// Kills the process `delay` into its `life` (0: before the restart, 1: after it), and sees the deployment to its end.
fn killed_at(world: &World, number: usize, life: usize, delay: Duration, power_cut: bool) -> &'static str {
    let mut remote = Remote::new(world, number);
    remote.device.says("bootstrap").says(0, &[]);
    let deployment = remote.order("rel-2");
    remote.start();
    if life == 1 {
        remote.await_restart_wish();
        remote.restart();
    }
    // The point of the kill: a fraction of what an undisturbed life takes.
    // Only the place of the kill depends on it, never what has to come of it.
    std::thread::sleep(delay);
    remote.kill();
    if power_cut || remote.asked_for_restart() {
        remote.restart();
    } else {
        remote.start();
    }
    let deadline = Instant::now() + DEADLINE;
    let status = wait_for("the end of the deployment", || {
        let log = || format!("life {life}, {delay:?}, power cut {power_cut}: {}", remote.log());
        assert!(Instant::now() < deadline, "no end: {}", log());
        if remote.asked_for_restart() {
            remote.restart();
        }
        let status = remote.status(&deployment);
        ["success", "failure"].into_iter().find(|wanted| status == *wanted)
    });
    // The server remembers a request when it has stored what came of it.
    wait_for("the report", || (!remote.final_reports(&deployment).is_empty()).then_some(()));
    assert!(remote.terminate().success());
    let place = || format!("life {life}, {delay:?}, power cut {power_cut}: {}", remote.log());
    assert_eq!(remote.final_reports(&deployment), [status], "{}", place());
    let pointer = if status == "success" { "3" } else { "2" };
    assert_eq!(remote.device.pointer(), (pointer.to_owned(), "0".to_owned()), "{}", place());
    let name = if status == "success" { "rel-2" } else { "unknown" };
    remote.device.says("show-artifact").says(0, &[name]);
    status
}

#[test]
fn killed_at_two_hundred_points_a_deployment_ends_with_one_true_report() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    // How long both lives take undisturbed.
    let mut first = Remote::new(&world, 0xffff);
    first.device.says("bootstrap").says(0, &[]);
    let deployment = first.order("rel-2");
    let begun = Instant::now();
    first.start();
    first.await_restart_wish();
    let lives = [begun.elapsed(), {
        let begun = Instant::now();
        first.restart();
        first.await_status(&deployment, "success");
        begun.elapsed()
    }];
    drop(first);
    let (next, succeeded) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let point = next.fetch_add(1, Ordering::Relaxed);
                    if point >= KILL_POINTS {
                        return;
                    }
                    let (life, step) = (point % 2, point / 4);
                    // Several at once are slower than one: the ladder goes further than the measured life.
                    let delay = lives[life] * 2 * step as u32 / (KILL_POINTS as u32 / 4);
                    if killed_at(&world, point, life, delay, point % 4 < 2) == "success" {
                        succeeded.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{KILL_POINTS} kills, {} deployments succeeded", succeeded.into_inner());
}
