//! The program as a person uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use server_core::Running;
use server_core::client::Management;
use tempfile::TempDir;

use crate::common::{Device, accepted, artifact, server};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rust-ota-server")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_command_prints_the_help_that_is_described() {
    use manual::{help, rust_ota_server::PROGRAM};
    for words in [&[][..], &["--help"], &["-h"]] {
        assert_eq!(said(&program(words)), help::of_program(&PROGRAM));
    }
    for command in PROGRAM.commands() {
        for option in ["--help", "-h"] {
            assert_eq!(said(&program(&[command.name, option])), help::of_command(&PROGRAM, command));
        }
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

/// What is wrong as the value of an option.
fn wrong_values(flag: &manual::Flag) -> Vec<&'static str> {
    let Some(value) = flag.value else { return Vec::new() };
    match value.name {
        // The prefix of the names of objects, and what a person says of an artifact, may be nothing.
        "TEXT" => Vec::new(),
        "N" | "DAYS" | "SECONDS" | "RATE" => vec!["", "x", "-1", "1e400", "99999999999999999999", "NaN"],
        "URL" if flag.long == "database" => vec!["", "x", "http://x"],
        // These may come from the environment or a file as well: asking reads them, and names them then.
        "FILE" if ["token-file", "ca", "config"].contains(&flag.long) => vec![""],
        "FILE" => vec!["", "/no/such/file", "/"],
        "URL" => vec!["", "x", "ftp://x", "http://", "http://x:y"],
        "ADDRESS:PORT" => vec!["", "x", "127.0.0.1", "127.0.0.1:65536", "localhost:80"],
        "STATUS" | "text|json" | "yes|no" | "tenth|all" => vec!["", "x"],
        "NAME:PASSWORD" => vec!["", "x", ":", "x:", ":x"],
        "PROGRAM" => vec!["", "/", "/dev/null", "no-program-is-called-this"],
        _ => vec![""],
    }
}

#[test]
fn a_wrong_value_is_refused_at_once_with_the_option_the_value_and_what_would_be_right() {
    use manual::rust_ota_server::PROGRAM;
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    let mut tried = 0;
    let mut check = |command: &str, long: &str, wrong: &str| {
        let option = format!("--{long}={wrong}");
        // What a server needs is there: nothing else is wrong.
        let needed: &[&str] = match command {
            "serve" => &["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"],
            _ => &[],
        };
        let output = program(&[&[command][..], needed, &[&option]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command} {option}: {said}");
        let named = said.strip_prefix(&format!("rust-ota-server: --{long}"));
        assert!(named.is_some_and(|rest| rest.starts_with([' ', ':'])), "{command} {option}: {said}");
        // An address of a database and a password are not repeated.
        let is_secret = ["user", "database"].contains(&long) || (command == "move" && long != "artifacts");
        assert!(
            said.contains(&format!("not {wrong:?}")) || is_secret || wrong.is_empty(),
            "{option}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        tried += 1;
    };
    for command in PROGRAM.commands() {
        for flag in PROGRAM.taken_by(command) {
            for wrong in wrong_values(&flag) {
                check(command.name, flag.long, wrong);
            }
        }
    }
    for zero in ["threads", "link-lifetime", "token-lifetime", "delta-time", "max-artifact"] {
        check("serve", zero, "0");
    }
    check("status", "status", "accepted");
    check("devices", "status", "success");
    assert!(tried > 150, "{tried}");
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn options_that_do_not_go_together_and_a_value_that_is_missing_are_named() {
    let nowhere = tempfile::tempdir().unwrap();
    let data = nowhere.path().join("data");
    let data = data.to_str().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    for (words, part) in [
        (&["serve"][..], "--data is missing"),
        (&["serve", "--data", "--listen", "127.0.0.1:0"], "missing argument for option '--data'"),
        (&["serve", "--data", data, "--tls-key", file], "--tls-cert and --tls-key belong together"),
        (&["serve", "--data", data, "--client-ca", file], "--client-ca needs --tls-cert and --tls-key"),
        (&["serve", "--data", data, "--database-ca", file], "--database is missing"),
        (&["serve", "--data", data, "--s3-endpoint", "http://a"], "--s3-endpoint needs --s3-bucket"),
        (&["serve", "--data", data, "--database", "a"], "--database: the database address: "),
        (&["move", "--from", "postgres://a:x/b", "--to", data], "--from: the database address: "),
        (&["serve", "--data", data, "--delta-key", file], "--delta-key is a file with a private key"),
        (&["serve", "--data", data, "--configuration-key", file], "--configuration-key is a file with a"),
        (&["serve", "--data", data, "--faults", file], "--faults is a file with a list of faults"),
        (&["move", "--from", "a"], "--to is missing"),
        (&["backup", "--to", "a"], "--data is missing"),
        (&["seed"], "--data is missing"),
        (&["load"], "--server is missing"),
        (&["simulate", "--server", "http://127.0.0.1:1"], "--data is missing"),
    ] {
        let output = program(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(part), "{words:?}: {said}");
    }
    // Without the program that makes them there would never be one.
    let deltas = ["serve", "--data", data, "--listen", "127.0.0.1:0", "--deltas", "1"];
    let alone = nowhere.path().join("rust-ota-server");
    testkit::programs::copy(std::path::Path::new(env!("CARGO_BIN_EXE_rust-ota-server")), &alone);
    let output = Command::new(&alone).args(deltas).env("PATH", nowhere.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--deltas 1 needs"), "{said}");
}

#[test]
fn a_server_that_does_not_answer_and_what_is_no_server_are_named() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "token").unwrap();
    let complaint = |url: &str| {
        let output = program(&["devices", "--server", url, "--token-file", token.path().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"\x15\x03\x03\x00\x02\x02\x32 no answer of the web\r\n\r\n").unwrap();
    });
    let error = complaint(&url);
    assert!(error.contains(&format!("what {url} answers is no HTTP; is it https?")), "{error}");
    other.join().unwrap();
    // Nobody listens there any more.
    let error = complaint(&url);
    assert!(error.starts_with(&format!("rust-ota-server: no answer from {url}: ")), "{error}");
}

/// A server, and its commands with everything said by the environment.
struct Desk {
    running: Running,
    management: Management,
    folder: TempDir,
}

impl Desk {
    fn new() -> Desk {
        let (running, management, folder) = server(|options| options);
        Desk { running, management, folder }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command
            .args(words)
            .env("RUST_OTA_SERVER", self.running.url())
            .env("RUST_OTA_TOKEN_FILE", self.folder.path().join("management-token"))
            // Not the settings of whoever runs this.
            .env("XDG_CONFIG_HOME", self.folder.path().join("none"));
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn ask(&self, words: &[&str]) -> String {
        said(&self.run(words))
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ask(&[words, &["--json"]].concat())).unwrap()
    }

    /// Exit code and what is said of the error.
    fn refused(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn upload(&self, name: &str, kind: &str) -> String {
        let file = artifact(name, kind);
        self.ask(&["upload", file.path().to_str().unwrap()]).trim().to_owned()
    }
}

/// The rows of a table, without its head and what follows.
fn rows(text: &str) -> Vec<&str> {
    let rows = text.lines().skip_while(|line| !line.starts_with(|c: char| c.is_ascii_uppercase())).skip(1);
    rows.take_while(|line| !line.starts_with(|c: char| c.is_ascii_digit()) || line.contains("  ")).collect()
}

#[test]
fn a_person_lets_a_device_in_and_updates_it() {
    let desk = Desk::new();
    let mut device = Device::new("a");
    device.authenticate(&desk.running);
    let devices = desk.ask(&["devices"]);
    let id = rows(&devices)[0].split(' ').next().unwrap().to_owned();
    assert!(devices.starts_with("DEVICE ") && devices.contains("mac=a"), "{devices}");
    assert!(devices.ends_with("1 device: 1 pending\n"), "{devices}");
    assert_eq!(desk.ask(&["accept", &id[..8]]), format!("{id} accepted\n"));
    assert_eq!(device.authenticate(&desk.running).status, 200);
    let artifact = desk.upload("release-2", "testdev");
    assert!(rows(&desk.ask(&["artifacts"]))[0].starts_with(&artifact));
    let deployment = desk.ask(&["deploy", "first", "release-2"]).trim().to_owned();
    device.next(&desk.running);
    device.report(&desk.running, &deployment, "installing");
    let shown = desk.ask(&["status", &deployment[..8]]);
    assert!(shown.starts_with("first: release-2, inprogress\n"), "{shown}");
    let row: Vec<&str> = rows(&shown)[0].split_whitespace().collect();
    assert_eq!(row[..3], [&*id, "mac=a", "installing"], "{shown}");
    assert_eq!(desk.ask(&["abort", &deployment]), format!("{deployment} aborted\n"));
    assert!(desk.ask(&["status"]).contains("1: 1 aborted"));
    desk.ask(&["reject", &id]);
    assert_eq!(device.next(&desk.running).status, 401);
    assert_eq!(desk.ask(&["decommission", &id]), format!("{id} decommissioned\n"));
    assert_eq!(desk.ask(&["delete", "release-2"]), format!("{artifact} deleted\n"));
    assert_eq!(desk.ask(&["devices"]), "no devices\n");
}

#[test]
fn a_second_key_of_a_device_is_seen_and_a_person_decides_about_it() {
    let desk = Desk::new();
    let (old, id) = accepted(&desk.running, "a");
    let mut new = Device::new("a");
    assert_eq!(new.authenticate(&desk.running).status, 401);
    let listed = desk.ask(&["devices"]);
    assert!(rows(&listed)[0].starts_with(&format!("{id}  accepted  2, 1 pending  ")), "{listed}");
    let shown = desk.json(&["devices", &id[..8]]);
    let keys = shown[0]["keys"].as_array().unwrap();
    let key = |status: &str| {
        let found = keys.iter().find(|key| key["status"] == status).unwrap();
        found["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (key("accepted"), key("pending"));
    let table = desk.ask(&["devices", &id]);
    let line = rows(&table).into_iter().find(|row| row.starts_with(&second)).unwrap();
    // What openssl says of the key that the device has.
    let der = new.pem().lines().filter(|line| !line.starts_with("--")).collect::<String>();
    let der = base64::engine::general_purpose::STANDARD.decode(der).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(line.contains(" pending ") && line.contains(" mac=a ") && line.ends_with(&digest), "{table}");
    assert!(table.ends_with("2 keys: 1 accepted, 1 pending\n"), "{table}");
    // The beginning of an id is enough when it tells the key from the devices and the other keys.
    let beginning = (1..36).map(|length| &second[..length]);
    let beginning = beginning.rev().find(|word| first.starts_with(*word) || id.starts_with(*word));
    let short = &second[..beginning.map_or(1, |word| word.len() + 1)];
    assert_eq!(desk.ask(&["reject", short]), format!("{id}: key {second} rejected\n"));
    assert_eq!(old.next(&desk.running).status, 204, "the other key still speaks for the device");
    // A device that is in keeps its key, whatever was rejected.
    assert_eq!(desk.ask(&["accept", &id]), format!("{id} accepted\n"));
    assert_eq!(old.next(&desk.running).status, 204);
    assert_eq!(new.authenticate(&desk.running).status, 401);
    assert_eq!(desk.json(&["accept", &second]), json!([{ "id": id, "key": second, "result": "accepted" }]));
    assert_eq!(new.authenticate(&desk.running).status, 200);
    assert_eq!(old.next(&desk.running).status, 401);
    // Of a device that is out, the newest comes in.
    desk.ask(&["reject", &id]);
    assert_eq!(new.next(&desk.running).status, 401);
    desk.ask(&["accept", &id]);
    assert_eq!(new.authenticate(&desk.running).status, 200);
    let (code, error) = desk.refused(&["reject", &first, "zz"]);
    assert!(code == 1 && error.contains("no device or key"), "{error}");
}

#[test]
fn a_status_that_the_command_line_knows_is_one_that_the_server_knows() {
    use manual::rust_ota_server::{DEPLOYMENT_STATUSES, DEVICE_STATUSES, STATUSES_IN_A_DEPLOYMENT};
    let desk = Desk::new();
    let (_device, _) = accepted(&desk.running, "a");
    desk.upload("release-2", "testdev");
    let id = desk.ask(&["deploy", "first", "release-2"]).trim().to_owned();
    let asked = |path: String| desk.management.ask("GET", &path, None).map(|(status, _)| status);
    let api = "/api/management/v1/deployments/deployments";
    for status in DEVICE_STATUSES {
        assert_eq!(asked(format!("/api/management/v2/devauth/devices?status={status}")).unwrap(), 200);
        desk.ask(&["devices", "--status", status]);
    }
    for status in DEPLOYMENT_STATUSES {
        // To the server one that is held is in progress.
        assert!(*status == "held" || asked(format!("{api}?status={status}")).unwrap() == 200, "{status}");
        desk.ask(&["status", "--status", status]);
    }
    for status in STATUSES_IN_A_DEPLOYMENT {
        assert_eq!(asked(format!("{api}/{id}/devices/list?status={status}")).unwrap(), 200, "{status}");
        desk.ask(&["status", &id, "--status", status]);
    }
    assert!(
        asked(format!("{api}/{id}/devices/list?status=accepted")).is_err(),
        "the server tells them apart"
    );
    // All of them are in the help.
    let help = |command: &str| said(&program(&[command, "--help"]));
    let has = |text: &str, known: &[&str]| known.iter().all(|status| text.contains(status));
    assert!(has(&help("devices"), DEVICE_STATUSES));
    assert!(has(&help("status"), DEPLOYMENT_STATUSES) && has(&help("status"), STATUSES_IN_A_DEPLOYMENT));
}

#[test]
fn a_fleet_that_is_served_is_not_moved_away() {
    let desk = Desk::new();
    let from = desk.folder.path().to_str().unwrap().to_owned();
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("new");
    let (code, error) = desk.refused(&["move", "--from", &from, "--to", to.to_str().unwrap()]);
    assert!(
        code == 1 && error.contains(&format!("{from} is used by another server: stop it first")),
        "{error}"
    );
    assert!(!to.exists());
    let Desk { running, folder, .. } = desk;
    running.stop();
    assert!(said(&program(&["move", "--from", &from, "--to", to.to_str().unwrap()])).starts_with("moved "));
    // Nor is anything moved into one that is served.
    let (running, _, busy) = server(|options| options);
    let output = program(&["move", "--from", &from, "--to", busy.path().to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("stop it first"), "{error}");
    drop((running, folder));
}

#[test]
fn empty_lists_say_so() {
    let desk = Desk::new();
    for (command, words) in [
        ("devices", "no devices\n"),
        ("groups", "no groups\n"),
        ("artifacts", "no artifacts\n"),
        ("status", "no deployments\n"),
    ] {
        assert_eq!(desk.ask(&[command]), words);
        assert_eq!(desk.json(&[command]), json!([]), "{command}");
    }
}

#[test]
fn the_end_of_each_device_is_told_with_its_reason_and_in_the_exit_code() {
    let desk = Desk::new();
    let mut devices = Vec::new();
    for mac in ["good", "bad", "other", "has-it"] {
        let (mut device, id) = accepted(&desk.running, mac);
        match mac {
            "other" => device.device_type = "otherdev".to_owned(),
            "has-it" => device.artifact_name = "release-2".to_owned(),
            _ => {}
        }
        devices.push((mac, device, id));
    }
    desk.upload("release-2", "testdev");
    let mut waiting =
        desk.command(&["deploy", "first", "release-2", "--wait"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(waiting.stdout.take().unwrap());
    let mut id = String::new();
    out.read_line(&mut id).unwrap();
    let id = id.trim();
    for (mac, device, _) in &devices {
        device.next(&desk.running);
        let path = format!("/api/devices/v1/deployments/device/deployments/{id}/status");
        let put = |status: &str, substate: &str| {
            let body = json!({ "status": status, "substate": substate });
            assert_eq!(device.ask(&desk.running, "PUT", &path, &body.to_string()).status, 204);
        };
        match *mac {
            "good" => put("success", ""),
            "bad" => put("failure", "no space left"),
            _ => {}
        }
    }
    let mut shown = String::new();
    out.read_to_string(&mut shown).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(3), "{shown}");
    assert_eq!(shown, desk.ask(&["status", id]), "the same as when it is asked for");
    let line =
        |mac: &str| rows(&shown).into_iter().find(|line| line.contains(&format!("mac={mac} "))).unwrap();
    for (mac, status, reason) in [
        ("good", "success", ""),
        ("bad", "failure", "no space left"),
        ("other", "noartifact", "the device is of type otherdev, release-2 is for testdev"),
        ("has-it", "already-installed", "it had this already"),
    ] {
        assert!(line(mac).contains(&format!(" {status} ")) && line(mac).ends_with(reason), "{shown}");
    }
    assert!(shown.contains("4 devices: ") && shown.contains("1 noartifact"), "{shown}");
    let all = desk.ask(&["status"]);
    assert!(all.contains("4: 1 already-installed, 1 failure, 1 noartifact, 1 success"), "{all}");
    // Programs get the same.
    let told = desk.json(&["status", id]);
    let failed = told["devices"].as_array().unwrap().iter().find(|one| one["status"] == "failure").unwrap();
    assert_eq!((&failed["reason"], &failed["identity"]), (&json!("no space left"), &json!("mac=bad")));
    assert_eq!(desk.refused(&["status", id, "--wait"]).0, 3);
    assert_eq!(rows(&desk.ask(&["status", id, "--status", "failure"])).len(), 1);
    // One that is good everywhere, and one that does not end.
    let (_, good, good_id) = &devices[0];
    let again = desk.ask(&["deploy", "again", "release-2", good_id, "--force"]);
    good.next(&desk.running);
    assert_eq!(desk.refused(&["status", again.trim(), "--wait", "--timeout", "0"]).0, 4);
    good.report(&desk.running, again.trim(), "success");
    assert_eq!(desk.json(&["status", again.trim(), "--wait"])["deployment"]["status"], "finished");
}

#[test]
fn groups_are_filled_shown_deployed_to_and_emptied() {
    let desk = Desk::new();
    let (a, b) = (accepted(&desk.running, "a").1, accepted(&desk.running, "b").1);
    assert_eq!(desk.ask(&["group", "east", &a, &b]), format!("{a} east\n{b} east\n"));
    assert_eq!(desk.ask(&["groups"]), "GROUP  DEVICES\neast   2\n");
    desk.ask(&["ungroup", &b]);
    assert_eq!(rows(&desk.ask(&["devices", "--group", "east"])).len(), 1);
    desk.upload("release-2", "testdev");
    let deployment = desk.ask(&["deploy", "first", "release-2", "--group", "east"]);
    assert_eq!(desk.management.deployment(deployment.trim()).unwrap()["device_count"], 1);
    assert_eq!(desk.refused(&["deploy", "second", "release-2", &a, "--group", "east"]).0, 1);
    assert_eq!(desk.refused(&["devices", "--group", "west"]).0, 1);
}

#[test]
fn errors_name_what_is_wrong() {
    let desk = Desk::new();
    let says = |words: &[&str], code: i32, part: &str| {
        let (found, error) = desk.refused(words);
        assert!(found == code && error.contains(part), "{words:?}: {found} {error}");
        assert!(error.starts_with("rust-ota-server: ") && error.lines().count() == 1, "{error}");
    };
    says(&["upload", "no/such/file.mender"], 1, "no/such/file.mender: No such file");
    says(&["upload", "/dev/null"], 1, "/dev/null: not a file");
    says(&["devices", "--token-file", "no-token"], 1, "no-token: No such file");
    says(&["devices", "--ca", "no-ca"], 1, "no-ca: No such file");
    says(&["devices", "--server", "updates"], 2, "--server is http://HOST");
    says(&["devices", "--wait"], 2, "--wait");
    says(&["devices", "zz"], 1, "no device whose id begins with \"zz\"");
    says(&["devices", "zz", "--status", "pending"], 1, "either devices, or --status");
    says(&["groups", "more"], 1, "groups takes nothing more");
    says(&["accept"], 1, "DEVICE");
    says(&["accept", "zz"], 1, "no device or key whose id begins with \"zz\"");
    says(&["accept", "f5b7c3a0-1111-4111-8111-000000000000"], 1, "f5b7c3a0-1111-4111-8111-000000000000");
    says(
        &["decommission", "f5b7c3a0-1111-4111-8111-000000000000"],
        1,
        "f5b7c3a0-1111-4111-8111-000000000000: ",
    );
    says(&["status", "zz"], 1, "no deployment");
    says(&["delete", "zz"], 1, "no artifact");
    says(&["deploy", "first", "release-2"], 1, "no artifact has that name");
    says(&["configure", "zz", "novalue"], 1, "NAME=VALUE");
    says(&["dance\u{1b}[2J"], 1, "dance\\u{1b}[2J");
    let without = desk.command(&["devices"]).env_remove("RUST_OTA_TOKEN_FILE").output().unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("RUST_OTA_TOKEN_FILE"));
}

#[test]
fn nothing_that_a_device_says_acts_on_a_terminal_or_makes_a_line() {
    let desk = Desk::new();
    let mut device = Device::new("a");
    device.identity = json!({ "mac": "\u{1b}[2J\nfake accepted", "c1": "\u{9b}2J", "bidi": "\u{202e}" });
    device.authenticate(&desk.running);
    let id = desk.management.devices().unwrap().remove(0).id;
    desk.ask(&["accept", &id]);
    device.authenticate(&desk.running);
    desk.upload("release-2", "testdev");
    let deployment = desk.ask(&["deploy", "x\u{1b}[2J\nforged", "release-2"]).trim().to_owned();
    device.next(&desk.running);
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}");
    let report = json!({ "status": "failure", "substate": "\u{1b}]0;x\u{7}\nfake-device success" });
    assert_eq!(device.ask(&desk.running, "PUT", &format!("{path}/status"), &report.to_string()).status, 204);
    let log = json!({ "messages": [
        { "timestamp": "2026-11-22T19:04:36Z", "level": "i", "message": "m\u{1b}[2J\nforged" },
    ] });
    assert_eq!(device.ask(&desk.running, "PUT", &format!("{path}/log"), &log.to_string()).status, 204);
    for words in [
        &["devices"][..],
        &["status"],
        &["status", &deployment],
        &["log", &deployment, &id],
        &["devices", "--json"],
        &["status", "--json"],
        &["status", &deployment, "--json"],
    ] {
        let text = desk.ask(words);
        assert!(
            !text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
            "{words:?}: {text:?}"
        );
        let forged = |line: &str| line.starts_with("forged") || line.starts_with("fake");
        assert!(!text.lines().any(forged), "{words:?}: {text:?}");
    }
    // JSON still means what was said.
    let identity = &desk.json(&["devices"])[0]["identity"];
    assert_eq!(*identity, device.identity);
}

#[test]
fn what_could_not_be_printed_is_in_the_exit_code() {
    let desk = Desk::new();
    for words in [&["devices"][..], &["--help"], &["devices", "--help"], &["--version"], &["serve", "--help"]]
    {
        let full = std::fs::File::create("/dev/full").unwrap();
        assert_eq!(desk.command(words).stdout(full).status().unwrap().code(), Some(1), "{words:?}");
        // A pipe that nobody reads from.
        let mut reader =
            desk.command(&["--version"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let unread = Stdio::from(reader.stdin.take().unwrap());
        reader.wait().unwrap();
        assert_eq!(desk.command(words).stdout(unread).status().unwrap().code(), Some(1), "{words:?}");
    }
}

#[test]
fn the_log_of_a_server_says_when_who_and_from_where() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"))
        .args(["serve", "--listen", "127.0.0.1:0", "--auto-accept", "--data"])
        .arg(folder.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    let ask = |head: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer, stream.local_addr().unwrap())
    };
    let device = Device::new("a");
    let (body, signature) = device.auth_request();
    let (answer, _) = ask(&format!(
        "POST /api/devices/v1/authentication/auth_requests HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         X-MEN-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let token = answer.rsplit("\r\n\r\n").next().unwrap();
    // A question that finds nothing to do is below what is logged, as there are a million of them.
    let next = "/api/devices/v1/deviceconfig/configuration?";
    ask(&format!(
        "GET {next} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    let long = "x".repeat(20_000);
    ask(&format!("GET /{long}\u{9b}2J HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    server.kill().unwrap();
    let mut log = String::new();
    server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    server.wait().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let (path, _) = next.split_once('?').unwrap();
    let asked = format!(" INFO  GET {path} 200 from 127.0.0.1 device {}", claims["sub"].as_str().unwrap());
    let line =
        log.lines().find(|line| line.contains(&asked)).unwrap_or_else(|| panic!("{asked} is not in {log}"));
    let time = line.split(&asked).next().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    assert!(!log.contains('\u{9b}') && log.lines().all(|line| line.len() < 3000), "{log}");
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
