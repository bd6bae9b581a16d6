//! Deployments from a real server to the real daemon, on virtual devices whose bootloader is a few lines.
//!
//! Every wait is a loop with a deadline around a question about what can be seen from the outside.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::OnceCell;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::common::{VirtualDevice, build, image};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{Compression, Signer};
use client_core::deploy::Stage;
use serde_json::json;
use server_core::Options;
use server_core::client::Management;
use testkit::artifacts::{MemoryFile, named, rootfs_spec};
use testkit::deltas::{self, Making};
use testkit::programs::place_script;
use testserver::{Action, Rule, TestServer};

/// Nothing here takes so long, not even on a machine with much else to do.
const DEADLINE: Duration = Duration::from_secs(300);
const IMAGE_BYTES: usize = 64 << 10;
/// More than the MiB after which progress is told.
const LARGE_BYTES: usize = 3 << 19;

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
    server: TestServer,
    management: Management,
    folder: tempfile::TempDir,
}

impl World {
    fn new(change: impl FnOnce(Options) -> Options) -> World {
        let folder = tempfile::tempdir().unwrap();
        let options = change(Options::new(folder.path().join("data")));
        let server = TestServer::start(options).unwrap();
        let management = Management::new(server.url(), server.management_token());
        World { server, management, folder }
    }

    /// Uploads an artifact.
    fn offer(&self, name: &str, spec: &ArtifactSpec, signer: &Signer) {
        self.offer_image(name, spec, signer, IMAGE_BYTES);
    }

    fn offer_image(&self, name: &str, spec: &ArtifactSpec, signer: &Signer, bytes: usize) {
        let path = self.folder.path().join(format!("{name}.mender"));
        fs::write(&path, build(spec, &image(9, bytes), Some(signer))).unwrap();
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
        place_script(&device.path("identity"), &format!("echo mac={mac}"));
        place_script(&device.path("reboot"), &format!("touch {}", device.path("restart").display()));
        fs::create_dir_all(device.path("share/inventory")).unwrap();
        place_script(&device.path("share/inventory/mender-inventory-test"), "echo colour=green");
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

    /// The only kind of final report that this deployment got. The server notes a request shortly after it acts on it.
    fn told(&self, deployment: &str, status: &str) {
        wait_for("the final report", || (!self.final_reports(deployment).is_empty()).then_some(()));
        assert_eq!(self.final_reports(deployment), [status]);
    }

    /// Installs what was ordered, restarts into it, and is done.
    fn succeeds(&mut self, deployment: &str) {
        self.await_restart_wish();
        assert_eq!(self.restart(), 3);
        self.await_status(deployment, "success");
        self.told(deployment, "success");
    }

    /// A line of its log.
    fn await_log(&self, words: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} in: {}", self.log());
            // Between two looks at the log of another process; the line ends the loop, not the time.
            std::thread::sleep(Duration::from_millis(10));
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

/// Puts a program in place of what is there, which may be running.
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
    remote.told(&deployment, "success");
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
    // The new software hangs, notes that it does, and a watchdog restarts the device.
    assert_eq!(remote.device.simulate_bootloader(), 3);
    let recorder = remote.device.path("data/flight-recorder");
    let before = std::fs::read_to_string(&recorder).unwrap();
    std::fs::write(recorder, before + "camera: no picture\ndisplay: dark\n").unwrap();
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "failure");
    remote.told(&deployment, "failure");
    let cause = "the bootloader gave the new system up: display: dark";
    let known = world.management.device_deployments(&deployment).unwrap();
    assert_eq!(known[0].substate.as_deref(), Some(cause));
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    for line in ["not on trial: fell back", "noted on trial: camera: no picture", cause] {
        assert!(log.contains(line), "{log}");
    }
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
    world.polled_again();
}

#[test]
fn why_a_trial_was_given_up_is_what_the_first_process_behind_it_has_found() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_restart_wish();
    remote.kill();
    assert_eq!(remote.device.simulate_bootloader(), 3);
    // It was saved, and then the power failed: what is left of the trial may have gone with the start after that.
    let found = "the bootloader gave the new system up: its kernel crashed: Kernel panic";
    remote.device.rewrite_record(|record| {
        let left = record.deployment.as_mut().unwrap();
        (left.stage, left.entered, left.remark) = (Stage::VerifyReboot, false, Some(found.to_owned()));
    });
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "failure");
    remote.told(&deployment, "failure");
    let known = world.management.device_deployments(&deployment).unwrap();
    assert_eq!(known[0].substate.as_deref(), Some(found));
}

#[test]
fn what_was_installed_by_hand_and_left_behind_keeps_the_daemon_from_nothing() {
    for cut in [false, true] {
        let world = World::new(|options| options.auto_accept(true));
        world.offer_release("rel-2");
        let mut remote = Remote::new(&world, 1);
        let by_hand =
            remote.device.artifact(&rootfs_spec("by-hand", Compression::Gzip), &image(8, IMAGE_BYTES));
        assert_eq!(remote.device.install(&by_hand).code, 0);
        if cut {
            remote.device.cut_in_the_middle_of_the_installation();
        } else {
            // Nobody commits it.
            remote.device.simulate_bootloader();
            assert_eq!(remote.device.simulate_bootloader(), 2);
        }
        remote.start();
        world.polled_again();
        assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
        let deployment = remote.order("rel-2");
        remote.succeeds(&deployment);
    }
}

#[test]
fn a_trial_by_hand_that_runs_after_a_cut_is_gone_back_from_with_a_restart() {
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    let by_hand = remote.device.artifact(&rootfs_spec("by-hand", Compression::Gzip), &image(8, IMAGE_BYTES));
    assert_eq!(remote.device.install(&by_hand).code, 0);
    remote.device.cut_in_the_middle_of_the_installation();
    assert_eq!(remote.device.simulate_bootloader(), 3);
    remote.start();
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 2);
    world.polled_again();
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
    remote.device.says("resume").says(2, &["No update in progress."]);
}

#[test]
fn a_lost_record_is_told_everywhere_and_the_next_update_ends_that() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    fs::write(remote.device.path("data/rust-ota-state"), [0; 4096]).unwrap();
    remote.start();
    world.polled_again();
    assert!(remote.log().contains("rust-ota-state is lost: "), "{}", remote.log());
    let status = || serde_json::from_str::<serde_json::Value>(&remote.device.says("status --json").stdout);
    assert!(status().unwrap()["record_lost"].as_str().unwrap().contains("8192 bytes"));
    let inventory = || {
        let inventory = world.management.inventory(&remote.id()).ok()?;
        inventory.iter().find(|attribute| attribute["name"] == "artifact_name")?["value"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(wait_for("the inventory", inventory), "unknown");
    let deployment = remote.order("rel-2");
    remote.succeeds(&deployment);
    let status =
        || serde_json::from_str::<serde_json::Value>(&remote.device.says("status --json").stdout).ok();
    wait_for("a status without loss", || status()?["record_lost"].is_null().then_some(()));
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
    // It has not happened: the server offers it again.
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 3);
    remote.await_status(&deployment, "success");
    remote.told(&deployment, "success");
    world.polled_again();
}

/// What a server, or somebody in between, may answer, and where. Each is had twice; then all is well.
fn bad_answers() -> Vec<(&'static str, &'static str, Action)> {
    let status = |code, body: &str| Action::Status { code, headers: Vec::new(), body: body.to_owned() };
    let page = || Action::Status {
        code: 200,
        headers: vec![("content-type".into(), "text/html".into())],
        body: "<html>Please log in</html>".into(),
    };
    vec![
        ("auth garbage", "auth_requests", Action::Garbage { bytes: 3000 }),
        ("auth page", "auth_requests", page()),
        ("auth elsewhere", "auth_requests", Action::Redirect { to: Some("http://127.0.0.2:9/login".into()) }),
        ("next garbage", "deployments/next", Action::Garbage { bytes: 3000 }),
        ("next page", "deployments/next", page()),
        ("next huge", "deployments/next", status(200, &"x".repeat(2 << 20))),
        ("next deep", "deployments/next", status(200, &"[".repeat(100_000))),
        (
            "next lies",
            "deployments/next",
            status(200, r#"{"id":"../../etc","artifact":{"source":{"uri":"file:///etc"}}}"#),
        ),
        ("next 500", "deployments/next", status(500, "{}")),
        ("inventory 500", "device/attributes", status(500, "{}")),
        ("status page", "/status", page()),
        ("status lost", "/status", Action::LoseAnswer),
        ("download page", "download", page()),
        ("download 503", "download", status(503, "")),
    ]
}

#[test]
fn whatever_is_answered_the_device_polls_again_and_tells_the_truth() {
    std::thread::scope(|scope| {
        for (name, path, action) in bad_answers() {
            scope.spawn(move || {
                let world = World::new(|options| options.auto_accept(true));
                world.offer_release("rel-2");
                world.server.faults().set(vec![Rule::new(action).path(path).times(2)]);
                let mut remote = Remote::new(&world, 1);
                remote.start();
                let deployment = remote.order("rel-2");
                if name == "download page" {
                    // A web page is no artifact, and trying again would not make it one.
                    remote.await_status(&deployment, "failure");
                    remote.told(&deployment, "failure");
                } else {
                    remote.succeeds(&deployment);
                }
                let expected = if name == "download page" { 1 } else { 2 };
                wait_for(name, || (world.server.faults().hits() == [expected]).then_some(()));
                world.polled_again();
            });
        }
    });
}

#[test]
fn an_identity_program_that_does_not_do_its_work_delays_and_does_not_end_anything() {
    let world = World::new(|options| options.auto_accept(true));
    for (number, command, words) in [
        (1, "exit 3", "exit status: 3"),
        (2, "echo no equals sign", "line 1"),
        (3, "true", "printed nothing"),
        (4, "printf 'mac=\\377\\n'", "line 1"),
        (5, "yes mac=1", "more than"),
    ] {
        let mut remote = Remote::new(&world, number);
        place_script(&remote.device.path("identity"), command);
        remote.start();
        remote.await_log(words);
        place_script(&remote.device.path("identity"), &format!("echo mac={}", remote.mac));
        remote.id();
        assert!(remote.terminate().success());
    }
}

#[test]
fn a_device_key_that_cannot_be_used_is_an_error_and_is_never_replaced() {
    let world = World::new(|options| options);
    for content in ["", "garbage", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let remote = Remote::new(&world, 1);
        let key = remote.device.path("data/mender-agent.pem");
        fs::write(&key, content).unwrap();
        let ran = remote.device.says("daemon");
        assert_eq!(ran.code, 1, "{ran:?}");
        ran.because(&["mender-agent.pem"]);
        assert_eq!(fs::read_to_string(&key).unwrap(), content);
    }
}

#[test]
fn a_stop_ends_the_daemon_wherever_it_is() {
    let world = World::new(|options| options.auto_accept(true));
    let hang = "sleep 1000";
    let check = |number, prepare: &dyn Fn(&Remote<'_>), reached: &str| {
        let mut remote = Remote::new(&world, number);
        prepare(&remote);
        remote.start();
        remote.await_log(reached);
        let asked = Instant::now();
        assert!(remote.terminate().success(), "{}", remote.log());
        // Two seconds are promised; a busy machine may look later.
        assert!(asked.elapsed() < Duration::from_secs(10), "{}", remote.log());
        assert_eq!(remote.log().matches("asked to stop by SIGTERM").count(), 1, "{}", remote.log());
    };
    check(1, &|_| {}, "accepted by");
    check(
        2,
        &|remote| place_script(&remote.device.path("identity"), &format!("echo here >&2; {hang}")),
        "here",
    );
    check(
        3,
        &|remote| {
            let path = remote.device.path("share/inventory/mender-inventory-test");
            place_script(&path, &format!("echo here >&2; {hang}"));
        },
        "here",
    );
    check(
        4,
        &|remote| {
            fs::create_dir_all(remote.device.path("conf/scripts")).unwrap();
            let path = remote.device.path("conf/scripts/Sync_Enter_00");
            place_script(&path, &format!("echo here; {hang}"));
        },
        "here",
    );
    world
        .server
        .faults()
        .set(vec![Rule::new(Action::SlowHead { seconds: 60.0 }).path("auth_requests").times(0)]);
    check(5, &|_| {}, "started");
}

#[test]
fn the_daemon_does_what_it_is_asked_for_and_says_what_it_does() {
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    let spec = rootfs_spec("rel-2", Compression::None);
    world.offer_image("rel-2", &spec, remote.device.signer(), LARGE_BYTES);
    remote.device.configure(|config| {
        for name in ["UpdatePollIntervalSeconds", "InventoryPollIntervalSeconds"] {
            config[name] = 36_000.into();
        }
    });
    remote.start();
    remote.await_log("started");
    // Each is asked for until it has an effect: the first may come before the daemon listens.
    let ask = |what: &str, method: &str, path: &str| {
        let before = world.count(method, path);
        assert_eq!(remote.device.says(what).code, 0);
        wait_for(what, || (world.count(method, path) > before).then_some(()));
    };
    ask("check-update", "POST", "deployments/next");
    // Also what has not changed since.
    for _time in 0..3 {
        ask("send-inventory", "PUT", "device/attributes");
    }
    let second = remote.device.says("daemon");
    assert_eq!(second.code, 1);
    second.because(&["a daemon is running already"]);
    // The command line works beside a daemon that waits.
    assert_eq!(remote.device.says("show-artifact").code, 0);

    // What is asked meanwhile is asked in the middle of the download, however slow this machine is. A request to ask
    // the server ends the connection of a download, and the next one goes on with it.
    let hold = Rule::new(Action::Hold { after: LARGE_BYTES as u64 / 4 }).times(0);
    world.server.faults().set(vec![hold.method("GET").path("download")]);
    let check_update = || -> serde_json::Value {
        let ran = remote.device.run(["--json", "check-update"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    };
    let nothing = check_update();
    assert_eq!((&nothing["answered"], &nothing["deployment_id"]), (&json!(true), &json!(null)));
    let deployment = remote.order("rel-2");
    assert_eq!(remote.device.says("check-update").code, 0);
    let status = || -> serde_json::Value {
        let ran = remote.device.run(["--json", "status"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    };
    let seen = wait_for("progress", || Some(status()).filter(|now| now["verified_bytes"].as_u64() > Some(0)));
    assert_eq!(
        (&seen["stage"], &seen["deployment_id"]),
        (&json!("Download"), &json!(deployment)),
        "{}",
        remote.log()
    );
    assert_eq!(seen["artifact_name"], "rel-2");
    assert_eq!(seen["total_bytes"], LARGE_BYTES);
    assert_eq!(seen["authorized"], true);
    let offered = check_update();
    assert_eq!((&offered["answered"], &offered["deployment_id"]), (&json!(true), &json!(deployment)));
    assert_eq!((&offered["artifact_name"], &offered["exit_code"]), (&json!("rel-2"), &json!(0)));
    let ahead = offered["cost"]["transfer_bytes"].as_u64().unwrap();
    assert!((LARGE_BYTES as u64..LARGE_BYTES as u64 + 8192).contains(&ahead), "{offered}");
    assert_eq!(seen["cost"], offered["cost"]);
    world.server.faults().clear();
    remote.await_restart_wish();
    let slot = format!("{LARGE_BYTES} written, 0 skipped");
    let known = world.management.device_deployments(&deployment).unwrap();
    let said = known[0].substate.clone().unwrap_or_default();
    assert!(said.starts_with("bytes: ") && said.ends_with(&slot), "{said}");
    assert!(remote.log().contains(&format!("cost ahead in bytes: {ahead} to transfer")), "{}", remote.log());
}

#[test]
fn a_dead_server_is_passed_over() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.device.configure(|config| {
        config["ServerURL"] = serde_json::Value::Null;
        // Nobody listens at the first.
        config["Servers"] =
            json!([{ "ServerURL": "http://127.0.0.1:9" }, { "ServerURL": world.server.url() }]);
    });
    remote.start();
    let deployment = remote.order("rel-2");
    remote.succeeds(&deployment);
}

#[test]
fn an_abort_is_noticed_in_mid_download() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let slow = Rule::new(Action::Throttle { bytes_per_second: 4_000 });
    world.server.faults().set(vec![slow.method("GET").path("download")]);
    let mut remote = Remote::new(&world, 1);
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_status(&deployment, "downloading");
    world.management.abort(&deployment).unwrap();
    remote.await_log("aborted");
    world.polled_again();
    assert_eq!(remote.status(&deployment), "aborted");
    assert!(!remote.asked_for_restart());
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
}

#[test]
fn state_scripts_run_around_every_stage_in_order() {
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    let seen = remote.device.path("seen");
    let note = |name: &str| format!("echo {name} >> {}", seen.display());
    for name in ["Download_Enter_00", "Download_Leave_00"] {
        place_script(&remote.device.path("conf/scripts").join(name), &note(name));
    }
    let mut spec = rootfs_spec("rel-2", Compression::Gzip);
    for name in [
        "ArtifactInstall_Enter_00",
        "ArtifactInstall_Leave_00",
        "ArtifactReboot_Enter_00",
        "ArtifactReboot_Leave_00",
        "ArtifactCommit_Enter_00",
        "ArtifactCommit_Leave_00",
    ] {
        let content = format!("#!/bin/sh\n{}\n", note(name)).into_bytes();
        spec.scripts.push(client_core::artifact::StateScript { name: name.to_owned(), content });
    }
    world.offer("rel-2", &spec, remote.device.signer());
    remote.start();
    let deployment = remote.order("rel-2");
    remote.succeeds(&deployment);
    let expected = "Download_Enter_00 Download_Leave_00 ArtifactInstall_Enter_00 ArtifactInstall_Leave_00 \
         ArtifactReboot_Enter_00 ArtifactReboot_Leave_00 ArtifactCommit_Enter_00 ArtifactCommit_Leave_00";
    let seen = fs::read_to_string(seen).unwrap();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn whoever_is_asked_on_the_device_lets_it_go_on_or_ends_it() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.device.configure(|config| config["RustOta"]["AskBefore"] = json!(["install", "commit"]));
    remote.start();
    let deployment = remote.order("rel-2");
    let substate = |remote: &Remote<'_>| {
        let known = world.management.device_deployments(&deployment).unwrap();
        known.into_iter().find(|known| known.id == remote.id()).and_then(|known| known.substate)
    };
    remote.await_status(&deployment, "pause_before_installing");
    assert_eq!(substate(&remote).as_deref(), Some("waiting before install: asked on the device"));
    let status = remote.device.says("status");
    assert!(status.stdout.contains("Waiting     before install: asked on the device"), "{status:?}");
    remote.device.says("allow commit").because(&["not what is asked"]);
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()), "nothing is armed while it waits");
    let bought = world.count("GET", "download");
    // A restart of the daemon forgets nothing: it waits in the same place, and the artifact is not bought again.
    assert!(remote.terminate().success());
    remote.start();
    let allowed = wait_for("the question", || {
        let ran = remote.device.says("allow install");
        (ran.code == 0).then_some(ran)
    });
    allowed.says(0, &[&format!("Allowed before install: deployment {deployment}.")]);
    remote.await_restart_wish();
    assert_eq!(world.count("GET", "download"), bought);
    assert_eq!(remote.restart(), 3);
    remote.await_status(&deployment, "pause_before_committing");
    wait_for("the question", || {
        (remote.device.run(["refuse", "--reason", "the screen is dark"]).code == 0).then_some(())
    });
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "failure");
    remote.told(&deployment, "failure");
    assert_eq!(
        substate(&remote).as_deref(),
        Some("refused before commit: on the device: the screen is dark")
    );
    remote.device.says("allow").because(&["nothing is asked"]);
}

#[test]
fn software_that_is_not_well_in_time_is_not_committed() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    let well = remote.device.path("well");
    remote.device.configure(|config| {
        let command = format!("test -e {}", well.display());
        config["RustOta"]["HealthCheck"] =
            json!({ "Commands": [command], "TimeoutSeconds": 2, "IntervalSeconds": 1 });
    });
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 3);
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "failure");
    remote.told(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("refused before commit: health check: test -e"), "{log}");
    // The same software, and now it is well.
    fs::write(&well, "").unwrap();
    let deployment = remote.order("rel-2");
    remote.succeeds(&deployment);
}

#[test]
fn a_deployment_stays_within_its_byte_budget() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_image(
        "rel-2",
        &rootfs_spec("rel-2", Compression::None),
        VirtualDevice::new().signer(),
        LARGE_BYTES,
    );
    let mut remote = Remote::new(&world, 1);
    remote.device.configure(|config| config["RustOta"]["MaxDownloadBytes"] = 1_000_000.into());
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_status(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("more than the budget of 1000000 bytes"), "{log}");
    assert_eq!(remote.device.pointer(), ("2".to_owned(), "0".to_owned()));
}

#[test]
fn a_budget_that_is_too_small_for_an_image_is_enough_where_its_frames_are_here_already() {
    let world = World::new(|options| options.auto_accept(true));
    let mut spec = rootfs_spec("rel-2", Compression::Zstd);
    spec.frames = true;
    let new = noise(LARGE_BYTES);
    let artifact = build(&spec, &new, Some(VirtualDevice::new().signer()));
    let path = world.folder.path().join("rel-2.mender");
    fs::write(&path, &artifact).unwrap();
    world.management.upload_artifact(&path).unwrap();
    let mut remote = Remote::new(&world, 1);
    let budget = artifact.len() / 2;
    remote.device.configure(|config| config["RustOta"]["MaxDownloadBytes"] = budget.into());
    // Nothing of it is on the device.
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_status(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains(&format!("more than the budget of {budget} bytes")), "{log}");
    let known = world.management.device_deployments(&deployment).unwrap();
    let said = known[0].substate.clone().unwrap_or_default();
    assert!(said.starts_with("bytes: ") && said.contains(" bought"), "{said}");
    assert!(remote.terminate().success());
    // All of it is, elsewhere.
    let mut old = new.clone();
    old.rotate_left(8192);
    fs::write(remote.device.slot(2), old).unwrap();
    remote.start();
    let deployment = remote.order("rel-2");
    remote.succeeds(&deployment);
    assert!(fs::read(remote.device.slot(3)).unwrap().starts_with(&new));
    let known = world.management.device_deployments(&deployment).unwrap();
    let said = known[0].substate.clone().unwrap_or_default();
    let bought: usize = said.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(bought < budget && said.contains(&format!(" {LARGE_BYTES} reused, ")), "{said}");
}

/// Does not compress, and has no block twice.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

#[test]
fn a_server_with_a_certificate_that_it_signed_itself_is_trusted_when_that_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/http/tests/tls").join(name);
    let options = Options::new(folder.path().join("data")).auto_accept(true);
    let server = TestServer::start(options.tls(file("own.pem"), file("odd.key"))).unwrap();
    let device = VirtualDevice::new();
    place_script(&device.path("identity"), "echo mac=02:00:00:00:00:01");
    device.configure(|config| {
        config["ServerURL"] = server.url().into();
        config["RustOta"]["IdentityScript"] = json!(device.path("identity"));
    });
    let refused = device.says("bootstrap");
    refused.says(1, &[]).because(&["CA:TRUE", "set ServerCertificate to a file with this very certificate"]);
    device.configure(|config| config["ServerCertificate"] = json!(file("own.pem")));
    device.says("bootstrap").says(0, &[]);
}

#[test]
fn the_same_complaint_is_not_logged_again_and_again() {
    let world = World::new(|options| options);
    let mut remote = Remote::new(&world, 1);
    remote.start();
    wait_for("many questions", || (world.count("POST", "auth_requests") >= 6).then_some(()));
    world.management.accept(&remote.id()).unwrap();
    world.polled_again();
    assert!(remote.terminate().success());
    let log = remote.log();
    let complaints = log.lines().filter(|line| line.contains("does not accept this device"));
    assert_eq!(complaints.count(), 1, "{log}");
}

#[test]
fn the_machine_under_a_virtual_device_is_not_restarted() {
    let world = World::new(|options| options.auto_accept(true));
    world.offer_release("rel-2");
    let mut remote = Remote::new(&world, 1);
    remote.device.configure(|config| config["RustOta"]["RebootCommand"] = json!(null));
    remote.start();
    let deployment = remote.order("rel-2");
    remote.await_log("a restart is due and none is made: the slots are plain files");
    remote.await_log("waiting for the restart");
    assert!(!remote.device.path("restarted-by-name").exists());
    assert_eq!(remote.device.pointer(), ("3".to_owned(), "1".to_owned()));
    // Whoever plays the restart finds everything as after any other.
    assert_eq!(remote.restart(), 3);
    remote.await_status(&deployment, "success");
    // What was configured is done, whatever the slots are.
    remote.device.configure(|config| config["RustOta"]["RebootCommand"] = json!("reboot"));
    assert!(remote.terminate().success());
    world.offer_release("rel-3");
    remote.start();
    remote.order("rel-3");
    wait_for("the restart", || remote.device.path("restarted-by-name").exists().then_some(()));
}

#[test]
fn a_daemon_with_a_bad_configuration_goes_on_with_the_last_good_one() {
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    let spoil = |remote: &Remote<'_>| {
        remote.device.configure(|config| config["RustOta"]["HealthChek"] = json!({ "Commands": ["true"] }));
    };
    // Without one it refuses, and so does whoever stands at a prompt.
    spoil(&remote);
    let words = ["mender.conf", "RustOta.HealthChek", "is RustOta.HealthCheck meant?"];
    remote.device.says("daemon").says(1, &[]).because(&words);
    remote.device.says("show-artifact").says(1, &[]).because(&words);
    remote.device.configure(|config| drop(config["RustOta"].as_object_mut().unwrap().remove("HealthChek")));
    remote.start();
    world.polled_again();
    assert!(remote.terminate().success());
    spoil(&remote);
    remote.start();
    remote.await_log("is RustOta.HealthCheck meant?; going on with the last good configuration");
    world.polled_again();
    wait_for("the inventory with the error", || {
        let inventory = world.management.inventory(&remote.id()).unwrap();
        let error = inventory.iter().find(|attribute| attribute["name"] == "rust_ota_config_error")?;
        error["value"].as_str().unwrap().contains("HealthChek").then_some(())
    });
    remote.device.says("show-artifact").says(1, &[]).because(&words);
    assert_eq!(remote.device.says("status").code, 0);
}

#[test]
fn an_update_that_spoils_the_configuration_is_rolled_back_and_one_that_mends_it_is_not() {
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    let (config, kept) = (remote.device.config(), remote.device.path("kept"));
    let (config, kept) = (config.display(), kept.display());
    // It brings a file that begins with what is there, with a comma and a brace too much or without.
    let module = format!(
        "case $1 in ArtifactInstall) cp {config} {kept}; cat files/conf >> {config};; \
         ArtifactRollback) cp {kept} {config};; SupportsRollback) echo Yes;; esac"
    );
    fs::create_dir_all(remote.device.path("share/modules/v3")).unwrap();
    place_script(&remote.device.path("share/modules/v3/conf"), &module);
    for (name, content) in [("bad", "}"), ("good", "\n")] {
        let spec = ArtifactSpec::module_image(
            named(name),
            vec![named(testkit::artifacts::DEVICE_TYPE)],
            named("conf"),
        );
        let file = testkit::artifacts::MemoryFile { name: "conf".into(), content: content.into() };
        let path = world.folder.path().join(name);
        fs::write(&path, testkit::artifacts::build(&spec, &[file], Some(remote.device.signer()))).unwrap();
        world.management.upload_artifact(&path).unwrap();
    }
    remote.start();
    let deployment = remote.order("bad");
    remote.await_status(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("refused before commit: configuration:"), "{log}");
    remote.device.says("show-artifact").says(0, &["unknown"]);
    let deployment = remote.order("good");
    remote.await_status(&deployment, "success");
}

/// A device that runs `rel-1` from slot 3 and provides its digest, and two ways to `rel-2`: the difference, and with
/// `full` the whole image.
fn one_delta_away<'w>(world: &'w World, full: bool) -> (Remote<'w>, Vec<u8>) {
    let signer = VirtualDevice::new();
    let with_digest = |name: &str| {
        let mut spec = rootfs_spec(name, Compression::Gzip);
        spec.checksum_provides = vec!["rootfs-image.checksum".into()];
        spec
    };
    world.offer("rel-1", &with_digest("rel-1"), signer.signer());
    let mut remote = Remote::new(world, 1);
    remote.start();
    let first = remote.order("rel-1");
    remote.succeeds(&first);
    let old = image(9, IMAGE_BYTES);
    let mut new = old.clone();
    new.iter_mut().skip(20_000).step_by(511).for_each(|byte| *byte ^= 0x33);
    new.copy_within(..8192, 40_960);
    let upload = |file: &str, artifact: Vec<u8>| {
        let path = world.folder.path().join(file);
        fs::write(&path, artifact).unwrap();
        world.management.upload_artifact(&path).unwrap();
    };
    let made = deltas::make(&old, &new, &Making::small(client_core::delta::Compression::Zstd));
    let file = MemoryFile { name: "delta".into(), content: made.file() };
    let delta =
        testkit::artifacts::build(&deltas::spec("rel-2", &made.signed), &[file], Some(signer.signer()));
    upload("delta.mender", delta);
    if full {
        upload("full.mender", build(&with_digest("rel-2"), &new, Some(signer.signer())));
    }
    (remote, new)
}

#[test]
fn a_device_that_provides_what_a_delta_depends_on_is_updated_with_it() {
    let world = World::new(|options| options.auto_accept(true));
    let (mut remote, new) = one_delta_away(&world, false);
    let deployment = remote.order("rel-2");
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 2);
    remote.await_status(&deployment, "success");
    remote.told(&deployment, "success");
    assert!(fs::read(remote.device.slot(2)).unwrap().starts_with(&new));
    let digest = client_core::artifact::Sha256::of(&new);
    assert!(remote.terminate().success());
    assert!(remote.device.says("show-provides").stdout.contains(&format!("rootfs-image.checksum={digest}")));
}

#[test]
fn a_delta_for_another_source_fails_with_words_and_the_next_order_gets_the_full_image() {
    let world = World::new(|options| options.auto_accept(true));
    let (mut remote, new) = one_delta_away(&world, true);
    // Something has mounted what runs for writing.
    let mut running = fs::read(remote.device.slot(3)).unwrap();
    running[100] ^= 1;
    fs::write(remote.device.slot(3), running).unwrap();
    let deployment = remote.order("rel-2");
    remote.await_status(&deployment, "failure");
    remote.told(&deployment, "failure");
    let log = wait_for("the log", || world.management.log(&deployment, &remote.id()).ok());
    assert!(log.contains("the running slot B is not what the delta was made from"), "{log}");
    assert_eq!(remote.device.pointer(), ("3".to_owned(), "0".to_owned()));
    // Nothing on the server was changed: the device no longer provides what the delta depends on.
    let again = world.management.deploy("again", "rel-2", &[remote.id()]).unwrap();
    remote.await_restart_wish();
    assert_eq!(remote.restart(), 2);
    remote.await_status(&again, "success");
    assert!(fs::read(remote.device.slot(2)).unwrap().starts_with(&new));
}

/// The word of the service manager that there is on a watched device.
fn service_is(remote: &Remote<'_>, word: &str) {
    // One step: the daemon may be reading it.
    fs::write(remote.device.path("word.new"), word).unwrap();
    fs::rename(remote.device.path("word.new"), remote.device.path("word")).unwrap();
}

impl Remote<'_> {
    /// Has the daemon watch a unit and a log, every second.
    fn watch(&self) {
        fs::create_dir_all(self.device.path("bin")).unwrap();
        place_script(
            &self.device.path("bin/systemctl"),
            &format!("cat {}", self.device.path("word").display()),
        );
        service_is(self, "active");
        self.device.configure(|config| {
            config["RustOta"]["Monitor"] = json!({ "IntervalSeconds": 1, "Checks": [
                { "Name": "app", "Type": "service", "Unit": "app.service", "Looks": 1 },
                { "Name": "panics", "Type": "log", "File": self.device.path("app.log"), "Pattern": "pan*ic" },
            ]});
        });
    }

    fn monitored(&self, what: &str) -> serde_json::Value {
        let path = format!("/api/management/v1/devicemonitor/devices/{}/{what}", self.id());
        let (status, body) = self.world.management.ask("GET", &path, None).unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What the server took of a check, the oldest first, as `LEVEL STATUS`.
    fn alerts(&self, check: &str) -> Vec<String> {
        let alerts = self.monitored("alerts?per_page=100");
        let of_check = alerts.as_array().unwrap().iter().filter(|alert| alert["name"] == check);
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let shown = |alert: &serde_json::Value| {
            format!("{} {}", word(&alert["level"]), word(&alert["subject"]["status"]))
        };
        of_check.rev().map(shown).collect()
    }

    fn await_alerts(&self, check: &str, expected: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        while self.alerts(check) != expected {
            assert!(Instant::now() < deadline, "{:?}: {}", self.alerts(check), self.log());
            // Between two questions to the server; its answer ends the loop, not the time.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether this build watches anything; said where it does not.
fn watches() -> bool {
    if !cfg!(feature = "monitor") {
        eprintln!("left out: this build has not the feature monitor");
    }
    cfg!(feature = "monitor")
}

#[test]
fn the_server_hears_when_something_watched_goes_wrong_and_when_it_is_well_again() {
    if !watches() {
        return;
    }
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    remote.watch();
    remote.start();
    wait_for("the list of checks", || {
        let one = |name: &str, kind: &str| json!({ "name": name, "status": "enabled", "type": kind });
        (remote.monitored("config") == json!([one("app", "service"), one("panics", "log")])).then_some(())
    });
    service_is(&remote, "failed");
    remote.await_alerts("app", &["CRITICAL failed"]);
    service_is(&remote, "active");
    remote.await_alerts("app", &["CRITICAL failed", "OK active"]);
    fs::write(remote.device.path("app.log"), "well\na pan of ic\nbehind\n").unwrap();
    remote.await_alerts("panics", &["CRITICAL found"]);
    let details = remote.monitored("alerts")[0]["subject"]["details"].clone();
    assert_eq!(details["line_matching"], json!({ "line_number": 2, "data": "a pan of ic" }));
    assert_eq!(details["lines_before"][0]["data"], "well");
    assert_eq!(details["lines_after"][0]["data"], "behind");
    assert!(remote.terminate().success());
}

#[test]
fn alerts_wait_for_a_server_that_is_away_over_a_power_cut_and_arrive_once_and_in_order() {
    if !watches() {
        return;
    }
    let world = World::new(|options| options.auto_accept(true));
    let away = Action::Status { code: 503, headers: Vec::new(), body: String::new() };
    let away = Rule::new(away).path("devicemonitor/alert").times(0);
    world.server.faults().set(vec![away]);
    let mut remote = Remote::new(&world, 1);
    remote.watch();
    remote.start();
    let lines = |remote: &Remote<'_>, words: &str, count: usize| {
        wait_for(words, || (remote.log().matches(words).count() >= count).then_some(()));
    };
    service_is(&remote, "failed");
    lines(&remote, "check app: CRITICAL: app.service is failed", 1);
    service_is(&remote, "active");
    lines(&remote, "check app: OK: app.service is active", 1);
    wait_for("an attempt to send", || (world.count("POST", "devicemonitor/alert") > 0).then_some(()));
    remote.kill();
    remote.start();
    service_is(&remote, "inactive");
    lines(&remote, "check app: CRITICAL: app.service is inactive", 1);
    assert!(remote.alerts("app").is_empty());
    world.server.faults().clear();
    let all = ["CRITICAL failed", "OK active", "CRITICAL inactive"];
    remote.await_alerts("app", &all);
    world.polled_again();
    assert_eq!(remote.alerts("app"), all);
}

#[test]
fn the_status_says_how_each_check_is_since_when_and_what_waits_for_the_server() {
    if !watches() {
        return;
    }
    let world = World::new(|options| options.auto_accept(true));
    let away = Action::Status { code: 503, headers: Vec::new(), body: String::new() };
    world.server.faults().set(vec![Rule::new(away).path("devicemonitor/alert").times(0)]);
    let mut remote = Remote::new(&world, 1);
    remote.watch();
    remote.start();
    // State and alerts of each check, and whether it is known since when.
    let checks = |remote: &Remote<'_>| {
        let ran = remote.device.run(["--json", "status"]);
        let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let one = |check: &serde_json::Value| {
            let [name, state, waiting] =
                ["name", "state", "alerts_waiting"].map(|key| check[key].to_string());
            format!("{name} {state} {waiting} {}", check["since"].is_string())
        };
        status["monitor"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>()
    };
    let are = |remote: &Remote<'_>, expected: [&str; 2]| {
        wait_for(expected[0], || (checks(remote) == expected).then_some(()));
    };
    are(&remote, ["\"app\" \"OK\" 0 true", "\"panics\" \"OK\" 0 true"]);
    service_is(&remote, "failed");
    are(&remote, ["\"app\" \"CRITICAL\" 1 true", "\"panics\" \"OK\" 0 true"]);
    let text = remote.device.says("status").stdout;
    assert!(text.contains("\nMonitor     app: CRITICAL since 20"), "{text}");
    assert!(text.contains("Z, 1 alert waits to be sent\nMonitor     panics: OK since 20"), "{text}");
    // What is known outlives the process.
    remote.kill();
    remote.start();
    are(&remote, ["\"app\" \"CRITICAL\" 1 true", "\"panics\" \"OK\" 0 true"]);
    world.server.faults().clear();
    are(&remote, ["\"app\" \"CRITICAL\" 0 true", "\"panics\" \"OK\" 0 true"]);
}

#[test]
fn an_alert_that_the_server_refuses_is_dropped_and_the_next_one_arrives() {
    if !watches() {
        return;
    }
    let world = World::new(|options| options.auto_accept(true));
    let refusal = Action::Status { code: 400, headers: Vec::new(), body: "{\"error\":\"no\"}".to_owned() };
    world.server.faults().set(vec![Rule::new(refusal).path("devicemonitor/alert")]);
    let mut remote = Remote::new(&world, 1);
    remote.watch();
    remote.start();
    service_is(&remote, "failed");
    remote.await_log("check app: the server refuses the alert of ");
    service_is(&remote, "active");
    remote.await_alerts("app", &["OK active"]);
}

#[test]
fn alerts_that_were_damaged_are_told_of_in_the_log_and_the_daemon_goes_on() {
    if !watches() {
        return;
    }
    let world = World::new(|options| options.auto_accept(true));
    let mut remote = Remote::new(&world, 1);
    remote.watch();
    fs::write(remote.device.path("data/rust-ota-monitor"), [0xff; 5000]).unwrap();
    service_is(&remote, "failed");
    remote.start();
    remote.await_log("rust-ota-monitor is lost: ");
    remote.await_alerts("app", &["CRITICAL failed"]);
    world.polled_again();
    assert!(remote.device.path("data/rust-ota-monitor.damaged").exists());
}
