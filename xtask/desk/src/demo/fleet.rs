//! `cargo demo --ui`: a small fleet that lives behind the server's page until it is ended.
//!
//! Each device is a folder with a real daemon. Every round has a new release, rolled out in two phases with a rule that stops
//! it; the image of every third does not come up, so that devices fall back, and the rule holds the second phase.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use client_core::slot::Slot;
use serde_json::{Value, json};

use super::machine::Machine;
use super::timeline::{Timeline, Who};
use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::http;
use crate::image;
use crate::process::Line;
use crate::update_server::UpdateServer;
use crate::virtual_device::{Enrolment, RESTART, VirtualDevice};
use xtask::{Outcome, workspace};

/// Devices of the fleet. The last one waits for a person to let it in.
const DEVICES: u8 = 6;
const IMAGE_BYTES: usize = 2 << 20;
const SLOT_BYTES: u64 = 8 << 20;
const POLL_SECONDS: u64 = 3;
/// From one roll-out to the next.
const ROUND: Duration = Duration::from_secs(60);
/// From the first phase to the rest.
const SECOND_PHASE: Duration = Duration::from_secs(20);
/// One image in so many does not come up.
const BROKEN_EVERY: u64 = 3;
/// Releases that are kept; older ones are removed with their artifacts.
const RELEASES: u64 = 6;
/// How long a machine takes to come up again: long enough to be seen.
const BOOT: Duration = Duration::from_secs(2);
/// How long the devices may take to ask for the first time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may log in.
const EMAIL: &str = "demo@example.com";

/// Runs it until something ends it, which is an error unless it is the person.
pub fn run(client: &Path, server: &Path, tool: &ArtifactTool, directory: &Path) -> Outcome {
    let timeline = Timeline::start();
    let password = password()?;
    let user = format!("{EMAIL}:{password}");
    let server = UpdateServer::start_for(server, &directory.join("server"), &["--quiet"], Some(&user))?;
    let keys = tool.make_keys(directory.join("signing-key"))?;
    let (ended, ends) = mpsc::channel();
    for number in 1..=DEVICES {
        let folder = directory.join(format!("device-{number}"));
        let machine = machine(client, &server, &keys, &folder, number)?;
        let ended = ended.clone();
        std::thread::spawn(move || {
            // The receiver is gone only when the demo is.
            let _ = ended.send(live(machine).map_err(|error| format!("device {number}: {error}")));
        });
    }
    let accepted = let_in(&server)?;
    let (one, others) = accepted.split_at(accepted.len().min(2));
    server.ask("group", &words("first", one))?;
    server.ask("group", &words("others", others))?;
    println!(
        "\nThe page:  {}\nE-mail:    {EMAIL}\nPassword:  {password}\n\nCtrl-C ends it. {} devices are accepted; one waits for you.\n",
        server.url(),
        accepted.len()
    );
    let mut version = 2;
    loop {
        roll_out(&server, tool, &keys, directory, version, &accepted, &timeline)?;
        version += 1;
        match ends.recv_timeout(ROUND) {
            Ok(outcome) => return outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("no device is left".into()),
        }
    }
}

/// Nobody else on this machine is to guess it.
fn password() -> Outcome<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| format!("no random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn machine(
    client: &Path,
    server: &UpdateServer,
    keys: &KeyPair,
    folder: &Path,
    number: u8,
) -> Outcome<Machine> {
    workspace::fresh_directory(folder)?;
    let mut device = VirtualDevice::create(folder, SLOT_BYTES, &keys.public)?;
    let mut content = image::write_marked(&folder.join("factory.img"), IMAGE_BYTES, 1, true)?;
    content.resize(usize::try_from(SLOT_BYTES).map_err(|error| error.to_string())?, 0);
    workspace::write(&device.slot(Slot::A), content)?;
    device.enrol(Enrolment {
        server_url: server.url().to_owned(),
        poll_seconds: POLL_SECONDS,
        authority: None,
        number: number.into(),
    })?;
    Ok(Machine::new(device, client.to_path_buf(), folder.join("daemon.log")))
}

/// Starts it, and starts it again whenever its client asks for that.
fn live(mut machine: Machine) -> Outcome {
    loop {
        machine.restart(&mut |_, _| {})?;
        while machine.daemon()?.next_line(Duration::from_secs(3600))?
            != Some(Line::Output(RESTART.to_owned()))
        {}
        std::thread::sleep(BOOT);
    }
}

/// Waits until all devices have asked, and lets all in but one.
fn let_in(server: &UpdateServer) -> Outcome<Vec<String>> {
    let start = Instant::now();
    loop {
        let mut devices: Vec<String> = server.devices()?.into_iter().map(|device| device.id).collect();
        if devices.len() == usize::from(DEVICES) {
            devices.pop();
            server.ask("accept", &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
            return Ok(devices);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("only {} of {DEVICES} devices have asked the server", devices.len()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn words<'a>(first: &'a str, rest: &'a [String]) -> Vec<&'a str> {
    std::iter::once(first).chain(rest.iter().map(String::as_str)).collect()
}

/// Makes the release of `version`, uploads it, and orders it in two phases.
fn roll_out(
    server: &UpdateServer,
    tool: &ArtifactTool,
    keys: &KeyPair,
    directory: &Path,
    version: u64,
    devices: &[String],
    timeline: &Timeline,
) -> Outcome {
    let name = format!("release-{version}");
    let comes_up = version % BROKEN_EVERY != 0;
    let (image, artifact) = (directory.join(format!("{name}.img")), directory.join(format!("{name}.mender")));
    image::write_marked(&image, IMAGE_BYTES, version, comes_up)?;
    tool.write_rootfs_image(&name, &image, "zstd", keys, &artifact)?;
    server.ask("upload", &[&artifact.display().to_string()])?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second_phase = client_core::clock::utc((now + SECOND_PHASE).as_secs());
    let deployment = json!({
        "name": format!("{name} for everybody"),
        "artifact_name": name,
        "devices": devices,
        "phases": [{ "batch_size": 40 }, { "start_ts": second_phase }],
        "rust_ota": { "stop": [{ "failed_devices": 1, "within_seconds": 3600, "action": "hold" }] },
    });
    post(server, "/api/management/v1/deployments/deployments", &deployment)?;
    let hangs = if comes_up { "" } else { "; its image will not come up" };
    timeline.say(Who::Server, &format!("rolls {name} out{hangs}"));
    for file in [image, artifact] {
        std::fs::remove_file(&file).map_err(|error| format!("cannot remove {}: {error}", file.display()))?;
    }
    if let Some(old) = version.checked_sub(RELEASES).filter(|old| *old >= 2) {
        // One that a person has deployed again stays.
        let _ = server.ask("delete", &[&format!("release-{old}")]);
    }
    Ok(())
}

/// One request of the management API, which is on the loopback.
fn post(server: &UpdateServer, path: &str, body: &Value) -> Outcome {
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let token = std::fs::read_to_string(server.token_file()).map_err(failed)?;
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", token.trim());
    let answer = http::ask(server.address()?, "POST", path, &headers, &body.to_string()).map_err(failed)?;
    if answer.starts_with("HTTP/1.1 201") { Ok(()) } else { Err(format!("{path}: {answer}")) }
}
