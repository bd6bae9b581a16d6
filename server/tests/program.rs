//! The program as a person uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

use crate::common::{Device, artifact, server};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rust-ota-server")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_command_says_what_it_can_do() {
    assert!(said(&program(&["--help"])).contains("serve"));
    for command in ["serve", "load", "devices", "accept", "upload", "deploy", "status", "log"] {
        assert!(said(&program(&[command, "--help"])).contains(command), "{command}");
    }
    assert!(said(&program(&["--version"])).starts_with("rust-ota-server "));
}

#[test]
fn what_is_not_understood_is_an_error() {
    let faults = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(faults.path(), "[{\"action\":\"explode\"}]").unwrap();
    let faults = faults.path().to_str().unwrap();
    for arguments in [
        &["dance"][..],
        &["serve"],
        &["serve", "--data"],
        &["serve", "--data", ""],
        &["serve", "--data", "x", "--listen", "nowhere"],
        &["serve", "--data", "x", "--tls-cert", "a"],
        &["serve", "--data", "x", "--user", "ada"],
        &["serve", "--data", "x", "--faults", faults],
        &["load"],
        &["load", "--server", "https://127.0.0.1"],
        &["load", "--server", "http://192.0.2.1:80"],
        &["devices"],
    ] {
        let output = program(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("rust-ota-server: "), "{arguments:?}");
    }
}

#[test]
fn a_person_lets_a_device_in_and_updates_it() {
    let (running, _, folder) = server(|options| options);
    let token = folder.path().join("management-token");
    let ask = |command: &str, words: &[&str]| {
        let options = [command, "--server", running.url(), "--token-file", token.to_str().unwrap()];
        said(&program(&[&options, words].concat()))
    };
    let mut device = Device::new("a");
    device.authenticate(&running);
    let devices = ask("devices", &[]);
    let id = devices.split(' ').next().unwrap().to_owned();
    assert!(devices.contains("pending") && devices.contains("{\"mac\":\"a\"}"), "{devices}");
    ask("accept", &[&id]);
    assert_eq!(device.authenticate(&running).status, 200);
    let file = artifact("release-2", "testdev");
    let artifact = ask("upload", &[file.path().to_str().unwrap()]);
    assert!(ask("artifacts", &[]).starts_with(artifact.trim()));
    let deployment = ask("deploy", &["first", "release-2"]);
    device.next(&running);
    device.report(&running, deployment.trim(), "installing");
    assert_eq!(ask("status", &[deployment.trim()]).trim(), format!("{id} installing"));
    ask("abort", &[deployment.trim()]);
    assert!(ask("status", &[]).contains("finished"));
    ask("reject", &[&id]);
    assert_eq!(device.next(&running).status, 401);
}

#[test]
fn single_steps_are_measured_without_a_server() {
    let text = said(&program(&["measure", "--tokens", "10", "--names", "1000"]));
    assert_eq!(text.matches("µs").count(), 4, "{text}");
    assert!(text.contains("100 found"), "{text}");
}

#[test]
fn the_load_generator_measures_a_server() {
    let (running, _, folder) = server(|options| options.auto_accept(true));
    let token = folder.path().join("management-token");
    let count = |more: &[&str]| {
        let base = [
            "load",
            "--server",
            running.url(),
            "--devices",
            "20",
            "--seconds",
            "1",
            "--rate",
            "50",
            "--json",
        ];
        let text = said(&program(&[&base, more].concat()));
        let measured: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(measured["authentication"]["count"], 20);
        assert_eq!(measured["polls"]["failed"], 0);
        measured["polls"]["count"].as_u64().unwrap()
    };
    assert!(count(&[]) > 0);
    assert!(count(&["--keep-alive", "no", "--token-file", token.to_str().unwrap()]) > 0);
}
