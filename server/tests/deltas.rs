//! Deltas that the server has made by the real program, or by one that fails: 10 seconds for all of them on two busy cores.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use artifact::write::{self, ArtifactSpec};
use artifact::{Compression, CompressionLevel};
use serde_json::{Value, json};
use server_core::client::Management;
use server_core::{Options, Running};
use tempfile::{NamedTempFile, TempDir};

use crate::common::{Device, OneFile, Process, accepted, error, manage, server_in, soon, until};

/// Bytes of an image.
const IMAGE: usize = 4 * 1024 * 1024;
const JOBS: &str = "/api/management/v2/deployments/deployments/releases/delta/jobs";
const CONFIG: &str = "/api/management/v1/deployments/config";

/// The host tool. Built once.
fn tool() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "rust-ota-artifact"]).current_dir(&root);
        assert!(build.status().unwrap().success());
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        std::path::absolute(target.join("debug/rust-ota-artifact")).unwrap()
    })
}

/// An image that does not compress, with `changed` in one place.
fn image(changed: u8) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut image: Vec<u8> = (0..IMAGE).map(|_| next()).collect();
    image[IMAGE / 2..IMAGE / 2 + 5000].fill(changed);
    image
}

fn artifact(name: &str, image: Vec<u8>, signer: Option<&artifact::Signer>) -> NamedTempFile {
    let mut spec = ArtifactSpec::rootfs_image(name.parse().unwrap(), vec!["testdev".parse().unwrap()]);
    // Noise takes its time to be compressed, and none of it is gained.
    spec.compression = CompressionLevel::default_of(Compression::None);
    spec.checksum_provides = write::CHECKSUM_KEYS.map(str::to_owned).to_vec();
    let mut scratch = tempfile::tempfile().unwrap();
    let mut file = NamedTempFile::new().unwrap();
    write::write(&spec, &[&OneFile("rootfs.img".to_owned(), image)], signer, &mut scratch, &mut file)
        .unwrap();
    file
}

/// One delta at a time is made by a program that does not give way: on a busy machine it would wait for all other tests.
fn making(options: Options, program: &Path) -> Options {
    options.deltas(1).delta_nice(0).delta_command(program)
}

/// A fleet of one device that runs `release-1`, and `release-2` to give it.
struct Fleet {
    folder: TempDir,
    running: Option<Running>,
    device: Device,
    id: String,
    /// The digest of its image.
    runs: String,
}

impl Fleet {
    fn new(
        new_image: Vec<u8>,
        signer: Option<&artifact::Signer>,
        change: impl Fn(Options) -> Options,
    ) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let (running, management) = server_in(folder.path(), change);
        let (device, id) = accepted(&running, "a");
        management.upload_artifact(artifact("release-1", image(1), signer).path()).unwrap();
        management.upload_artifact(artifact("release-2", new_image, signer).path()).unwrap();
        let artifacts = management.artifacts().unwrap();
        let old = artifacts.iter().find(|one| one["name"] == "release-1").unwrap();
        let runs = old["artifact_provides"]["rootfs-image.checksum"].as_str().unwrap().to_owned();
        let attributes = json!([
            { "name": "artifact_name", "value": "release-1" },
            { "name": "device_type", "value": "testdev" },
            { "name": "rootfs-image.checksum", "value": runs },
        ]);
        let path = "/api/devices/v1/inventory/device/attributes";
        assert_eq!(device.ask(&running, "PATCH", path, &attributes.to_string()).status, 200);
        Fleet { folder, running: Some(running), device, id, runs }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn start_again(&mut self, change: impl Fn(Options) -> Options) {
        drop(self.running.take());
        self.running = Some(server_in(self.folder.path(), change).0);
    }

    fn deploy(&self) -> String {
        let body = json!({ "name": "d", "artifact_name": "release-2", "devices": [self.id], "autogenerate_delta": true });
        management(self.running()).create_deployment(&body).unwrap()
    }

    /// What the device is given: the name, and whether it is the full artifact.
    fn given(&self) -> Value {
        let provides = json!({ "artifact_name": "release-1", "device_type": "testdev", "rootfs-image.checksum": self.runs });
        let body = json!({ "device_provides": provides }).to_string();
        let path = "/api/devices/v2/deployments/device/deployments/next";
        let answer = self.device.ask(self.running(), "POST", path, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer.json()["artifact"]["id"].as_str().unwrap().to_owned();
        manage(self.running(), "GET", &format!("/api/management/v1/deployments/artifacts/{id}"), Value::Null)
            .json()
    }

    /// The one job, when it has ended.
    fn ended(&self) -> Value {
        self.job(|job| job["finished"].is_string())
    }

    fn job(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        soon(|| {
            let jobs = manage(self.running(), "GET", JOBS, Value::Null).json();
            let jobs = jobs.as_array().unwrap();
            assert!(jobs.len() <= 1, "{jobs:?}");
            jobs.first().filter(|job| is_wanted(job)).cloned()
        })
    }

    /// The job failed for a reason, and the device gets the full artifact.
    fn has_failed(&self, reason: &str) {
        let job = self.ended();
        assert_eq!(job["status"], "failed");
        let found = job["rust_ota"]["reason"].as_str().unwrap();
        assert!(found.contains(reason), "{found}");
        assert_eq!(self.given()["updates"][0]["type_info"]["type"], "rootfs-image");
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(self.folder.path().join("deltas")).unwrap().count() == 1
    }
}

fn management(running: &Running) -> Management {
    Management::new(running.url(), running.management_token())
}

/// A program that is a script of the shell.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    testkit::programs::place_script(&path, text);
    path
}

#[test]
fn a_deployment_that_wants_deltas_gets_the_one_that_its_device_can_use() {
    let fleet = Fleet::new(image(2), None, |options| making(options, tool()));
    let deployment = fleet.deploy();
    let job = fleet.ended();
    assert_eq!(job["status"], "success", "{job}");
    assert_eq!((&job["deployment_id"], &job["from_version"]), (&json!(deployment), &json!("release-1")));
    assert_eq!(
        (&job["to_version"], &job["devices_types_compatible"]),
        (&json!("release-2"), &json!(["testdev"]))
    );
    assert_eq!(job["rust_ota"]["devices"], 1);
    let given = fleet.given();
    assert_eq!(given["updates"][0]["type_info"]["type"], "rust-ota-delta");
    assert_eq!(given["id"], job["rust_ota"]["artifact_id"]);
    assert_eq!(given["artifact_depends"]["rootfs-image.checksum"], fleet.runs);
    let size = given["size"].as_u64().unwrap();
    assert!(size < 100_000, "{size}");
    let statistics = management(fleet.running()).deployment(&deployment).unwrap()["statistics"].clone();
    let saved = statistics["saved_size"].as_u64().unwrap();
    assert_eq!(saved, job["rust_ota"]["full_bytes"].as_u64().unwrap() - size, "{statistics}");
    let one = format!("{JOBS}/{}", job["id"].as_str().unwrap());
    assert_eq!(manage(fleet.running(), "GET", &one, Value::Null).json(), job);
    for (query, count) in [
        ("status=success", 1),
        ("status=failed", 0),
        ("deployment_id=x", 0),
        ("to_version=release-2", 1),
        ("to_version=release-1", 0),
    ] {
        let found = manage(fleet.running(), "GET", &format!("{JOBS}?{query}"), Value::Null);
        assert_eq!(found.header("x-total-count"), Some(&*count.to_string()), "{query}");
    }
    assert_eq!(error(&manage(fleet.running(), "GET", &format!("{JOBS}?status=x"), Value::Null)), 400);
    until(|| fleet.is_empty());
}

#[test]
fn without_the_option_nothing_is_made() {
    let fleet = Fleet::new(image(2), None, |options| options);
    fleet.deploy();
    assert_eq!(fleet.given()["updates"][0]["type_info"]["type"], "rootfs-image");
    assert_eq!(manage(fleet.running(), "GET", JOBS, Value::Null).json(), json!([]));
    assert_eq!(manage(fleet.running(), "GET", CONFIG, Value::Null).json()["delta"]["enabled"], false);
    assert!(!fleet.folder.path().join("deltas").exists());
}

#[test]
fn a_program_that_fails_hangs_or_lies_leaves_the_full_artifact_and_its_reason() {
    let scripts = tempfile::tempdir().unwrap();
    // Its arguments end with: --output-path MADE OLD NEW.
    for (name, text, reason) in [
        ("fails", "echo no room left >&2; exit 1", "exit status: 1: no room left"),
        ("hangs", "sleep 1000", "the program took longer than 1 seconds"),
        ("makes-nothing", "exit 0", "reading what the program made: No such file"),
        ("makes-a-pipe", "mkfifo delta.mender", "reading what the program made: it is no regular file"),
        ("makes-rubbish", "echo rubbish > delta.mender", "not a valid artifact"),
        ("makes-all-of-it", "cp new.mender delta.mender", "more than 80 percent are not worth it"),
    ] {
        let program = script(scripts.path(), name, text);
        let fleet = Fleet::new(image(2), None, |options| {
            making(options, &program).delta_seconds(if name == "hangs" { 1 } else { 60 })
        });
        fleet.deploy();
        fleet.has_failed(reason);
        until(|| fleet.is_empty());
        assert_eq!(management(fleet.running()).artifacts().unwrap().len(), 2, "{name}");
    }
}

#[test]
fn another_artifact_than_the_delta_that_was_ordered_is_not_taken() {
    let scripts = tempfile::tempdir().unwrap();
    let other = artifact("release-2", vec![0; 1000], None);
    let text = format!("cp {} delta.mender", other.path().display());
    let program = script(scripts.path(), "other", &text);
    let fleet = Fleet::new(image(2), None, |options| making(options, &program));
    fleet.deploy();
    fleet.has_failed("what was made is not what was ordered: it is no delta");
    assert_eq!(fs::read_dir(fleet.folder.path().join("artifacts")).unwrap().count(), 2);
}

#[test]
fn images_that_have_nothing_in_common_have_no_delta() {
    let new = image(2).into_iter().rev().map(|byte| byte ^ 0x5a).collect();
    let fleet = Fleet::new(new, None, |options| making(options, tool()));
    fleet.deploy();
    fleet.has_failed("more than 80 percent are not worth it");
}

#[test]
fn of_a_signed_artifact_a_delta_is_made_with_a_key_only() {
    let keys = artifact::Signer::generate_ecdsa_p256().unwrap();
    let signer = artifact::Signer::from_pem(keys.private.as_bytes()).unwrap();
    let mut fleet = Fleet::new(image(2), Some(&signer), |options| making(options, tool()));
    let first = fleet.deploy();
    fleet.has_failed("the artifact release-2 is signed, and the server has no key (--delta-key)");
    management(fleet.running()).abort(&first).unwrap();
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), &keys.private).unwrap();
    fleet.start_again(|options| making(options, tool()).delta_key(file.path()));
    let second = fleet.deploy();
    let job = fleet.job(|job| job["finished"].is_string() && job["deployment_id"] == second);
    assert_eq!(job["status"], "success", "{job}");
    let given = fleet.given();
    assert_eq!((&given["id"], &given["signed"]), (&job["rust_ota"]["artifact_id"], &json!(true)));
}

#[test]
fn a_delta_that_a_stop_or_a_kill_interrupts_is_made_after_the_next_start() {
    let scripts = tempfile::tempdir().unwrap();
    let at = |name: &str| scripts.path().join(name);
    let text = format!(
        "test -e {} && exec {} \"$@\"\necho $$ > {}.new && mv {}.new {}\nexec sleep 1000",
        at("go").display(),
        tool().display(),
        at("pid").display(),
        at("pid").display(),
        at("pid").display(),
    );
    let program = script(scripts.path(), "program", &text);
    let begun = || {
        let pid = soon(|| fs::read_to_string(at("pid")).ok());
        fs::remove_file(at("pid")).unwrap();
        PathBuf::from("/proc").join(pid.trim())
    };
    let making = |options: Options| making(options, &program);
    let mut fleet = Fleet::new(image(2), None, making);
    fleet.deploy();
    let child = begun();
    assert_eq!(fleet.job(|_| true)["status"], "queued");
    let began = Instant::now();
    drop(fleet.running.take());
    // The program would have slept for a thousand.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    until(|| is_gone(&child));
    // A process of its own, which ends as if the power had gone; what it has started would end with that.
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--quiet", "--deltas", "1", "--delta-nice", "0"]);
    command.arg("--delta-command").arg(&program).arg("--data").arg(fleet.folder.path());
    let process = Process::spawn(command, fleet.folder.path());
    let child = begun();
    process.kill();
    let pid = child.file_name().unwrap();
    assert!(Command::new("kill").arg("-9").arg(pid).status().unwrap().success());
    fs::write(at("go"), "").unwrap();
    fleet.start_again(making);
    let job = fleet.ended();
    assert_eq!(job["status"], "success", "{job}");
    assert_eq!(fleet.given()["id"], job["rust_ota"]["artifact_id"]);
}

/// Whether a process has ended; somebody may still have to ask how.
fn is_gone(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z"))
}

#[test]
fn what_people_want_of_deltas_is_kept_and_what_there_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _) = server_in(folder.path(), |options| options.deltas(2));
    let path = format!("{CONFIG}/binary_delta");
    let put = |body: Value| manage(&running, "PUT", &path, body);
    assert_eq!(
        put(json!({ "rust_ota": { "compression": "lzma" }, "xdelta_args": { "compression_level": null } }))
            .status,
        204
    );
    let config = manage(&running, "GET", CONFIG, Value::Null).json();
    assert_eq!(config["delta"]["binary_delta"]["rust_ota"]["compression"], "lzma");
    assert_eq!(
        (&config["delta"]["enabled"], &config["delta"]["rust_ota"]["at_once"]),
        (&json!(true), &json!(2))
    );
    let refused = put(json!({ "xdelta_args": { "compression_level": 9 } }));
    assert_eq!((refused.status, refused.text().contains("no arguments of xdelta3")), (422, true));
    assert_eq!(error(&put(json!({ "rust_ota": { "compression": "gzip" } }))), 400);
    assert_eq!(error(&put(json!({ "timeout": 3 }))), 400);
    let logged = manage(&running, "GET", "/api/management/v1/auditlogs/logs", Value::Null).json();
    assert_eq!((logged.as_array().unwrap().len(), &logged[0]["object"]["id"]), (1, &json!("binary_delta")));
}
