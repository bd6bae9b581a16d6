//! A configuration from the server to a device: the artifact that the server makes is one for the real tool, and our
//! daemon hands it to a module with the name and the ways of the one for configurations.
//!
//! That module is not packaged by Debian. The one here does what it is known to do: it stores the
//! configuration, has it applied, wants a restart when the program that applies it exits with 20, and goes back.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use client_core::artifact::Signer;
use interop::backend::{Backend, FINISHED, PATIENCE};
use interop::virtual_device::VirtualDevice;
use interop::{tool, wait_for};

fn module(device: &VirtualDevice) {
    fs::create_dir_all(device.path("share/modules/v3")).unwrap();
    let here = device.path("");
    let script = format!(
        r#"HERE='{}'
set -e
store() {{ cp "$1" "$HERE/config.new"; sync "$HERE/config.new"; mv "$HERE/config.new" "$HERE/config"; }}
apply() {{ "$HERE/apply" "$HERE/config" && return 0; test $? = 20; touch tmp/restart; }}
case "$1" in
NeedsArtifactReboot) if test -e tmp/restart; then echo Automatic; else echo No; fi ;;
SupportsRollback) echo Yes ;;
ArtifactInstall)
    if test -e "$HERE/config"; then cp "$HERE/config" tmp/before; fi
    store header/meta-data
    apply ;;
ArtifactRollback) if test -e tmp/before; then store tmp/before; apply; fi ;;
esac"#,
        here.display()
    );
    device.program("share/modules/v3/mender-configure", &script);
}

fn settings(timezone: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("timezone".to_owned(), timezone.to_owned())])
}

#[test]
fn a_configuration_arrives_is_applied_and_goes_back() {
    let keys = Signer::generate_ed25519(&[7; 32]);
    let backend = Backend::start(|options| options.configuration_key(keys.private.as_bytes()));
    let mut device = VirtualDevice::new();
    module(&device);
    device.program("apply", "exit 0");
    device.configure(backend.running.url(), |_| {});
    device.start();
    let id = backend.accept_the_device();
    backend.expect_attribute(&id, "device_type", testkit::artifacts::DEVICE_TYPE);
    let status = |deployment: &str| {
        let known = backend.management.device_deployments(deployment).unwrap();
        known.into_iter().next().map(|known| known.status)
    };
    let ended = |deployment: &str| {
        wait_for(PATIENCE, || status(deployment).filter(|status| FINISHED.contains(&status.as_str())))
    };
    let deploy = |timezone: &str| {
        backend.management.configure(&id, &settings(timezone)).unwrap();
        backend.management.deploy_configuration(&id).unwrap()
    };
    let configured = |device: &VirtualDevice| fs::read_to_string(device.path("config")).unwrap();

    assert_eq!(ended(&deploy("UTC")).as_deref(), Some("success"));
    assert_eq!(configured(&device), r#"{"timezone":"UTC"}"#);

    // It cannot be applied: the one before is back.
    device.program("apply", "grep -q UTC \"$1\"");
    assert_eq!(ended(&deploy("Nowhere")).as_deref(), Some("failure"));
    assert_eq!(configured(&device), r#"{"timezone":"UTC"}"#);

    // It is applied by a restart.
    device.program("apply", "exit 20");
    let deployment = deploy("Europe/Oslo");
    assert!(wait_for(PATIENCE, || device.waits_for_restart().then_some(())).is_some());
    device.restart();
    assert_eq!(ended(&deployment).as_deref(), Some("success"));
    assert_eq!(configured(&device), r#"{"timezone":"Europe/Oslo"}"#);
}

/// What is behind a link.
fn load(uri: &str) -> Vec<u8> {
    let (host, path) = uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    answer.split_off(body)
}

#[test]
fn the_real_tool_reads_and_verifies_what_the_server_makes() {
    let Some(writer) = tool("mender-artifact") else { return };
    // The real tool knows no Ed25519.
    let keys = Signer::generate_ecdsa_p256().unwrap();
    let backend = Backend::start(|options| options.configuration_key(keys.private.as_bytes()));
    let mut device = VirtualDevice::new();
    device.configure(backend.running.url(), |_| {});
    device.start();
    let id = backend.accept_the_device();
    backend.expect_attribute(&id, "device_type", testkit::artifacts::DEVICE_TYPE);
    backend.management.configure(&id, &settings("UTC")).unwrap();
    backend.management.deploy_configuration(&id).unwrap();
    // The server makes it when the device asks, and shows it to nobody else: it is in the request for the download.
    let download = wait_for(PATIENCE, || {
        let asked = backend.running.requests();
        asked.into_iter().map(|request| request.path).find(|path| path.starts_with("/download/"))
    });
    let (key, file) = (device.path("verify.pub"), device.path("configuration.mender"));
    fs::write(&key, keys.public).unwrap();
    let link = format!("{}{}", backend.running.url(), download.expect("the device loads it"));
    fs::write(&file, load(&link)).unwrap();
    for command in ["validate", "read"] {
        let output = Command::new(&writer).arg(command).arg("-k").arg(&key).arg(&file).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        if command == "read" {
            assert!(said.contains("mender-configure") && said.contains("signed and verified"), "{said}");
        }
    }
}
