//! The daemon of the real Mender client 3.4 against our server: it is enrolled, sends its inventory, and carries out
//! deployments that succeed, fail and are aborted.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use interop::backend::{Backend, PATIENCE};
use interop::mender_device::MenderDevice;
use interop::wait_for;
use testserver::RecordedRequest;

/// Bytes that do not compress: the client takes no artifact of less than 4 KiB.
fn payload() -> Vec<u8> {
    (0..16 * 1024u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect()
}

/// The daemon, accepted by a person, and its id.
fn enrolled(install: &str) -> Option<(Backend, MenderDevice, String)> {
    let mut device = MenderDevice::new()?;
    device.module("test-module", install);
    let backend = Backend::start(|options| options);
    device.start(backend.running.url(), |_| {});
    let id = backend.accept_the_device();
    backend.expect_attribute(&id, "artifact_name", "release-1");
    Some((backend, device, id))
}

#[track_caller]
fn expect_status(backend: &Backend, deployment: &str, status: &str) {
    let outcome = backend.outcome(deployment, PATIENCE);
    assert_eq!(outcome.as_deref(), Some(status), "{:?}", backend.reported(deployment));
}

/// The client asks for the next deployment when it is done with one.
#[track_caller]
fn expect_next_poll(backend: &Backend) {
    let next = |request: &RecordedRequest| request.path.contains("/deployments/next");
    let seen = backend.running.requests().len();
    assert!(backend.request(seen, PATIENCE, next).is_some(), "the client does not ask again");
}

#[test]
fn the_real_daemon_is_pending_until_a_person_accepts_it_and_then_sends_its_inventory() {
    let Some((backend, _device, id)) = enrolled("true") else { return };
    let requests = backend.running.requests();
    let auth = requests.iter().filter(|request| request.path.ends_with("/auth_requests"));
    let answers: Vec<u16> = auth.map(|request| request.status).collect();
    assert_eq!((answers.first(), answers.last()), (Some(&401), Some(&200)), "{answers:?}");
    let devices = backend.management.devices().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].status, "accepted");
    assert_eq!(devices[0].identity_data["mac"], "02:12:61:13:6c:42");
    assert_eq!(backend.attribute(&id, "hostname").as_deref(), Some("box1"));
    let version = backend.attribute(&id, "mender_client_version").unwrap();
    assert!(version.starts_with("3.4.0"), "{version}");
}

#[test]
fn the_real_daemon_carries_out_a_deployment_of_our_server() {
    let Some((backend, device, id)) = enrolled("cp files/payload ../../../../../../installed") else {
        return;
    };
    let deployment = backend.deploy(&device.artifact("release-2", "test-module", &payload()), "release-2");
    expect_status(&backend, &deployment, "success");
    backend.expect_attribute(&id, "artifact_name", "release-2");
    assert_eq!(std::fs::read(device.path("installed")).unwrap(), payload());
    let mut reported = backend.reported(&deployment);
    assert!(reported.iter().all(|(_, answer)| *answer == 204), "{reported:?}");
    reported.dedup();
    let reported: Vec<&str> = reported.iter().map(|(status, _)| &**status).collect();
    assert_eq!(reported, ["downloading", "installing", "success"]);
    expect_next_poll(&backend);
    assert_eq!(backend.management.deployment(&deployment).unwrap()["status"], "finished");
}

#[test]
fn the_real_daemon_reports_a_failed_installation_with_its_log() {
    let Some((backend, device, id)) = enrolled("echo no room for it >&2\nexit 1") else { return };
    let deployment = backend.deploy(&device.artifact("release-2", "test-module", &payload()), "release-2");
    expect_status(&backend, &deployment, "failure");
    let log = wait_for(PATIENCE, || backend.management.log(&deployment, &id).ok());
    assert!(log.as_ref().is_some_and(|log| log.contains("no room for it")), "{log:?}");
    let states = device.states();
    assert!(states.iter().any(|state| state == "ArtifactRollback"), "{states:?}");
    expect_next_poll(&backend);
    backend.expect_attribute(&id, "artifact_name", "release-1");
}

#[test]
fn the_real_daemon_stops_a_deployment_that_the_operator_aborts() {
    // Installs until the test has aborted the deployment; then the daemon hears of that.
    let install =
        "n=0\nwhile [ ! -e ../../../../../../aborted ] && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done";
    let Some((backend, device, id)) = enrolled(install) else { return };
    let deployment = backend.deploy(&device.artifact("release-2", "test-module", &payload()), "release-2");
    let installs = || device.states().iter().any(|state| state == "ArtifactInstall").then_some(());
    assert!(wait_for(PATIENCE, installs).is_some(), "{:?}", device.states());
    backend.management.abort(&deployment).unwrap();
    std::fs::write(device.path("aborted"), "").unwrap();
    let cleaned = || device.states().iter().any(|state| state == "Cleanup").then_some(());
    assert!(wait_for(PATIENCE, cleaned).is_some(), "{:?}", device.states());
    expect_next_poll(&backend);
    let states = device.states();
    assert!(states.iter().any(|state| state == "ArtifactRollback"), "{states:?}");
    assert!(!states.iter().any(|state| state == "ArtifactCommit"), "{states:?}");
    assert_eq!(backend.status(&deployment).as_deref(), Some("aborted"));
    let reported = backend.reported(&deployment);
    assert!(reported.iter().any(|(_, answer)| *answer == 409), "{reported:?}");
    backend.expect_attribute(&id, "artifact_name", "release-1");
}
