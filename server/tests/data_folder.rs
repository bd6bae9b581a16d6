//! The data folder: what is taken, what is left, what is refused, and what a full disk does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::common::{
    Answer, Device, Process, accepted, artifact, error, manage, request, request_bytes, server, server_in,
    until,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};
use server_core::{Options, Running, Server, StartError, StoreError};

const ID: &str = "00000000-0000-4000-8000-00000000000a";

fn start(folder: &Path) -> Result<Running, StartError> {
    Server::start(Options::new(folder))
}

/// A folder with one artifact and one device, and the id of the artifact.
fn used() -> (tempfile::TempDir, String) {
    let (running, management, folder) = server(|options| options.auto_accept(true));
    Device::new("a").authenticate(&running);
    let id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    running.stop();
    (folder, id)
}

#[test]
fn what_the_server_has_not_made_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for directory in ["artifacts/lost+found", "incoming", &format!("incoming/{ID}")] {
        fs::create_dir_all(path(directory)).unwrap();
    }
    let mut left = vec![path("artifacts/lost+found"), path(&format!("incoming/{ID}"))];
    for name in [
        "notes.txt",
        "artifacts/release-2.mender",
        "artifacts/notes.txt",
        "incoming/letter.txt",
        "incoming/half",
        &format!("incoming/{}", ID.to_uppercase()),
        &format!("incoming/{ID}.bak"),
    ] {
        fs::write(path(name), "precious").unwrap();
        left.push(path(name));
    }
    let link = path("incoming/00000000-0000-4000-8000-00000000000b");
    symlink(path("notes.txt"), &link).unwrap();
    left.push(link);
    for _ in 0..2 {
        start(folder.path()).unwrap().stop();
        let gone: Vec<&PathBuf> = left.iter().filter(|path| fs::symlink_metadata(path).is_err()).collect();
        assert_eq!(gone, Vec::<&PathBuf>::new());
    }
}

#[test]
fn of_uploads_that_were_cut_nothing_is_left() {
    let (folder, id) = used();
    let path = |name: &str| folder.path().join(name);
    fs::write(path(&format!("incoming/{ID}")), b"x").unwrap();
    fs::write(path(&format!("artifacts/{ID}.mender")), b"newer than a database that was put back").unwrap();
    start(folder.path()).unwrap().stop();
    assert_eq!(fs::read_dir(path("incoming")).unwrap().count(), 0);
    assert!(path(&format!("artifacts/{id}.mender")).exists());
    assert!(path(&format!("artifacts/{ID}.mender")).exists());
}

#[test]
fn without_its_database_a_folder_is_not_begun_anew() {
    for empty in [false, true] {
        // Each of them alone is enough.
        for kept in ["secrets/token-key.pk8", "secrets/link-key", "management-token", "artifacts"] {
            let (folder, id) = used();
            let path = |name: &str| folder.path().join(name);
            let database = path("fleet.sqlite");
            if empty {
                fs::write(&database, b"").unwrap();
            } else {
                fs::remove_file(&database).unwrap();
            }
            for name in ["secrets/token-key.pk8", "secrets/link-key", "management-token"] {
                if name != kept {
                    fs::remove_file(path(name)).unwrap();
                }
            }
            let blob = path(&format!("artifacts/{id}.mender"));
            if kept != "artifacts" {
                fs::remove_file(&blob).unwrap();
            }
            let error = start(folder.path()).expect_err(kept);
            assert!(matches!(error, StartError::Store(StoreError::Missing { .. })), "{error:?}");
            let said = error.to_string();
            assert!(
                said.contains("fleet.sqlite")
                    && said.contains(kept)
                    && said.contains("put the database back"),
                "{said}"
            );
            assert_eq!(database.exists(), empty);
            assert_eq!(blob.exists(), kept == "artifacts");
        }
    }
}

#[test]
fn a_first_start_that_was_cut_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("fleet.sqlite"), b"").unwrap();
    start(folder.path()).unwrap().stop();
    // The database was there, and none of the secrets.
    for name in ["secrets/token-key.pk8", "secrets/link-key", "management-token"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    start(folder.path()).unwrap().stop();
}

#[test]
fn a_folder_without_a_name_is_refused() {
    assert!(matches!(start(Path::new("")), Err(StartError::Store(StoreError::NoFolder))));
}

#[test]
fn a_damaged_database_is_an_error_that_names_it() {
    let (folder, _) = used();
    let path = folder.path().join("fleet.sqlite");
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    let mut try_with = |what: &str, damaged: &[u8]| {
        fs::write(&path, damaged).unwrap();
        // Damage where nothing is stored does not matter.
        if let Err(error) = start(folder.path()) {
            let said = error.to_string();
            assert!(said.contains(path.to_str().unwrap()), "{what}: {said}");
            assert!(
                said.contains("damaged") || said.contains("format") || said.contains("empty"),
                "{what}: {said}"
            );
            refused += 1;
        }
    };
    try_with("no database", b"this is no database");
    for length in [1, 64, 4096, good.len() / 2, good.len() - 1] {
        try_with(&format!("{length} bytes"), &good[..length]);
    }
    // The head, and pages all over the file.
    let head = (0..512).step_by(13).map(|at| (at, 1));
    let pages = (4096..good.len()).step_by(4096).take(60).flat_map(|at| [(at, 32), (at + 200, 64)]);
    for (at, length) in head.chain(pages) {
        let mut damaged = good.clone();
        damaged[at..at + length].iter_mut().for_each(|byte| *byte ^= 0xff);
        try_with(&format!("{length} bytes at {at}"), &damaged);
    }
    assert!(refused > 5, "{refused}");
    fs::write(&path, &good).unwrap();
    start(folder.path()).unwrap();
}

#[test]
fn a_person_is_not_shown_a_panic() {
    let (folder, _) = used();
    let path = folder.path().join("fleet.sqlite");
    let good = fs::read(&path).unwrap();
    for damaged in [&good[..good.len() / 2], &[good[..64].to_vec(), vec![0x5a; good.len() - 64]].concat()] {
        fs::write(&path, damaged).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains("fleet.sqlite") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn everything_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (running, management) = server_in(folder.path(), |options| options);
    let id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    running.stop();
    let artifact = format!("artifacts/{id}.mender");
    let files = ["fleet.sqlite", "management-token", "secrets/token-key.pk8", "secrets/link-key", &artifact];
    let folders = ["secrets", "artifacts", "incoming"];
    let check = || {
        for name in files {
            assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
        }
        for name in folders {
            assert_eq!(mode(&folder.path().join(name)), 0o700, "{name}");
        }
    };
    check();
    for name in &files[..4] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    for name in folders {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    start(folder.path()).unwrap().stop();
    check();
    assert_eq!(mode(folder.path()), 0o755, "the folder itself is somebody else's");
}

#[test]
fn an_artifact_whose_file_is_not_whole_is_not_sent() {
    let (running, management, folder) = server(|options| options);
    let id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}/download");
    let link = manage(&running, "GET", &path, Value::Null).json();
    let link = link["uri"].as_str().unwrap().strip_prefix(running.url()).unwrap().to_owned();
    let file = folder.path().join(format!("artifacts/{id}.mender"));
    let good = fs::read(&file).unwrap();
    let get = |method: &str, headers: &[(&str, &str)]| request(&running, method, &link, headers, b"");
    let check = |what: &str, answer: &Answer| assert_eq!(error(answer), 500, "{what}");
    for (what, bytes) in [
        ("cut", good[..good.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("longer", [good.as_slice(), b"x"].concat()),
    ] {
        fs::write(&file, bytes).unwrap();
        check(what, &get("GET", &[]));
        check(what, &get("GET", &[("Range", "bytes=0-9")]));
        assert_eq!(get("HEAD", &[]).status, 500, "{what}");
    }
    fs::remove_file(&file).unwrap();
    check("gone", &get("GET", &[]));
    fs::write(&file, &good).unwrap();
    assert_eq!(get("GET", &[]).body, good);
}

/// The largest file that a process may write, from now on. It hears of a larger one as of a full disk.
fn limit_files(process: &Process, bytes: Option<u64>) {
    let pid = Pid::from_child(&process.child);
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_disk_that_was_full_is_forgotten_when_it_is_not() {
    let folder = tempfile::tempdir().unwrap();
    // Else the first write beyond the limit would end the process.
    let process = Process::start_after("trap '' XFSZ", folder.path());
    let mut known = Device::new("known");
    assert_eq!(process.authenticate(&mut known), 200);
    let device = |name: &str| Device::new(name);
    for round in 0..3 {
        limit_files(&process, Some(4096));
        assert_eq!(process.authenticate(&mut device("late")), 503, "it cannot be stored");
        let health = process.get("/health");
        assert_eq!(health.status, 503);
        assert!(health.json()["error"].as_str().unwrap().contains("fleet.sqlite"), "{}", health.text());
        assert_eq!(process.authenticate(&mut device("refused")), 503);
        assert_eq!(process.authenticate(&mut known), 503);
        // What changes nothing goes on.
        let next = "/api/devices/v1/deployments/device/deployments/next?artifact_name=a&device_type=b";
        assert_eq!(process.ask(&known, "GET", next, "").status, 204);
        limit_files(&process, None);
        until(|| process.get("/health").status == 204);
        assert_eq!(process.authenticate(&mut known), 200);
        assert_eq!(process.authenticate(&mut device(&format!("new {round}"))), 200);
    }
    // What was refused is not there, and everything else is.
    let names = |process: &Process| {
        let devices = process.management.devices().unwrap();
        let mut names: Vec<String> =
            devices.iter().map(|device| device.identity_data["mac"].to_string()).collect();
        names.sort();
        names
    };
    let before = names(&process);
    assert_eq!(before, ["\"known\"", "\"new 0\"", "\"new 1\"", "\"new 2\""]);
    process.kill();
    let again = Process::start(folder.path());
    assert_eq!(names(&again), before);
    again.kill();
}

#[test]
fn a_full_disk_keeps_no_personal_token_from_reading() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_after("trap '' XFSZ", folder.path());
    let ask = |method: &str, path: &str, authorization: &str, body: &str| {
        let headers = [("Authorization", authorization)];
        process.send(&request_bytes(method, &format!("/api/management{path}"), &headers, body.as_bytes()))
    };
    let management = fs::read_to_string(folder.path().join("management-token")).unwrap();
    let management = management.trim();
    let user = r#"{"email":"ada@example.org","password":"correct horse 1"}"#;
    assert_eq!(ask("POST", "/v1/useradm/users", &format!("Bearer {management}"), user).status, 201);
    let basic = format!("Basic {}", STANDARD.encode("ada@example.org:correct horse 1"));
    let login = ask("POST", "/v1/useradm/auth/login", &basic, "");
    let made =
        ask("POST", "/v1/useradm/settings/tokens", &format!("Bearer {}", login.text()), r#"{"name":"ci"}"#);
    assert_eq!(made.status, 200, "{}", made.text());
    limit_files(&process, Some(4096));
    // That it was used is to be stored, and cannot be.
    let read = ask("GET", "/v2/devauth/devices", &format!("Bearer {}", made.text()), "");
    assert_eq!(read.status, 200, "{}", read.text());
    process.kill();
}

#[test]
fn an_upload_that_does_not_fit_leaves_nothing_and_the_next_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_after("trap '' XFSZ", folder.path());
    let file = artifact("release-2", "testdev");
    limit_files(&process, Some(4096));
    let failed = process.management.upload_artifact(file.path()).unwrap_err().to_string();
    assert!(failed.contains("50"), "{failed}");
    limit_files(&process, None);
    process.management.upload_artifact(file.path()).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    assert_eq!(process.management.artifacts().unwrap().len(), 1);
    process.kill();
}

#[test]
fn logs_of_a_device_go_with_it() {
    let (running, management, folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let (other, other_id) = accepted(&running, "b");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", &[id.clone(), other_id.clone()]).unwrap();
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/log");
    let log = json!({ "messages": [{ "timestamp": "2026-11-22T19:04:36Z", "level": "e", "message": "m" }] });
    for device in [&device, &other] {
        assert_eq!(device.next(&running).status, 200);
        assert_eq!(device.ask(&running, "PUT", &path, &log.to_string()).status, 204);
    }
    management.decommission(&id).unwrap();
    let kept = |running: &Running, device: &str| {
        let path = format!("/api/management/v1/deployments/deployments/{deployment}/devices/{device}/log");
        manage(running, "GET", &path, Value::Null).status
    };
    assert_eq!((kept(&running, &id), kept(&running, &other_id)), (404, 200));
    running.stop();
    let (running, _) = server_in(folder.path(), |options| options);
    assert_eq!((kept(&running, &id), kept(&running, &other_id)), (404, 200));
}
