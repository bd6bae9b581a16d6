//! A fleet that is made up, and its load: what measurements rest on has to be right itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;
use server_core::{Options, Server};

const DEVICES: &str = "60";

fn program(words: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rust-ota-server")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_fleet_that_is_made_up_asks_and_gets_what_it_expects() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    assert_eq!(program(&["seed", "--json", "--data", data, "--devices", DEVICES])["devices"], 60);
    let running = Server::start(Options::new(data)).unwrap();
    let simulate = |words: &[&str]| {
        let all = ["simulate", "--json", "--server", running.url(), "--data", data, "--devices", DEVICES];
        program(&[&all, words].concat())
    };
    let is_right = |part: &Value, count: u64| {
        assert_eq!(part["count"], count, "{part}");
        assert_eq!((&part["failed"], &part["broken"]), (&0.into(), &0.into()), "{part}");
        assert!(part["p50_ms"].as_f64().unwrap() > 0.0, "{part}");
    };

    let idle = simulate(&["--seconds", "1", "--polls", "20", "--inventories", "10", "--browse"]);
    is_right(&idle["polls"], 20);
    is_right(&idle["inventories"], 10);
    for (list, seen) in idle["browse"].as_object().unwrap() {
        assert_eq!(seen["wrong"], 0, "{list}: {seen}");
    }
    is_right(&simulate(&["--herd", "0.1"])["herd"], 60);

    // Six devices with five questions each.
    let tenth = simulate(&["--roll-out", "tenth", "--check"]);
    is_right(&tenth["roll_out"], 30);
    assert_eq!(tenth["deployment"]["statistics"]["success"], 6, "{tenth}");
    let check = &tenth["deployment"]["check"];
    assert_eq!(
        (&check["listed"], &check["acknowledged"], &check["lost"]),
        (&6.into(), &6.into(), &0.into()),
        "{tenth}"
    );
    // A third of sixty begin within the time; the others are aborted.
    let begun = simulate(&["--roll-out", "all", "--within", "3", "--seconds", "1", "--check"]);
    is_right(&begun["roll_out"], 100);
    assert_eq!(begun["deployment"]["check"]["acknowledged"], 20, "{begun}");
    assert!(begun["deployment"]["aborted_ms"].is_number(), "{begun}");
    running.stop();
}

#[test]
fn devices_without_a_server_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let words = ["simulate", "--server", "http://127.0.0.1:1", "--data", data, "--roll-out", "tenth"];
    let output = Command::new(env!("CARGO_BIN_EXE_rust-ota-server")).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("no answer from http://127.0.0.1:1"), "{error}");
}
