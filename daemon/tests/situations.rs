//! Situations of new boards and of careless hands: what is refused is refused before the first byte, and the message says
//! the cause and not its symptom.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::{Ran, SLOT_BYTES, VirtualDevice, image};
use bootloader_uboot::image::{Format, Image, Variables};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{Compression, StateScript};
use client_core::text::{printable, printable_lines};
use serde_json::json;
use testkit::artifacts::{self, DEVICE_TYPE, MemoryFile, named, rootfs_spec};
use testkit::programs::place;

fn spec() -> ArtifactSpec {
    rootfs_spec("rel-2", Compression::Gzip)
}

fn new_image() -> Vec<u8> {
    image(9, SLOT_BYTES / 2)
}

fn device_with_artifact() -> (VirtualDevice, std::path::PathBuf) {
    let device = VirtualDevice::new();
    let artifact = device.artifact(&spec(), &new_image());
    (device, artifact)
}

fn module_artifact(device: &VirtualDevice, payload_type: &str) -> std::path::PathBuf {
    let mut spec = ArtifactSpec::module_image(named("rel-2"), vec![named(DEVICE_TYPE)], named(payload_type));
    spec.compression = spec_compression();
    let file = MemoryFile { name: "payload".into(), content: vec![7; 1000] };
    device.store(&testkit::artifacts::build(&spec, &[file], Some(device.signer())))
}

fn spec_compression() -> client_core::artifact::CompressionLevel {
    client_core::artifact::CompressionLevel::default_of(Compression::None)
}

#[track_caller]
fn assert_no_byte_was_written(device: &VirtualDevice) {
    assert_eq!(device.pointer(), ("2".to_owned(), "0".to_owned()));
    assert!(fs::read(device.slot(3)).unwrap() == image(3, SLOT_BYTES), "the slot was written to");
}

#[test]
fn links_keep_the_number_in_their_name() {
    let (device, artifact) = device_with_artifact();
    for (slot, node) in [(2, "dm-1"), (3, "dm-0")] {
        fs::rename(device.slot(slot), device.path(node)).unwrap();
        symlink(node, device.slot(slot)).unwrap();
    }
    assert_eq!(device.install(&artifact).code, 0);
    assert_eq!(device.pointer(), ("3".to_owned(), "1".to_owned()));
    assert_eq!(fs::read(device.path("dm-0")).unwrap()[..SLOT_BYTES / 2], new_image());
    assert_eq!(device.simulate_bootloader(), 3);
    device.says("commit").says(0, &["Committed."]);
}

#[test]
fn a_link_that_is_made_at_every_boot_says_which_slot_runs() {
    let (device, artifact) = device_with_artifact();
    let link = device.path("running");
    symlink("slot2", &link).unwrap();
    let fixed = |device: &VirtualDevice| {
        device.configure(|config| config["RustOta"]["RunningRoot"] = json!(device.path("running")));
    };
    fixed(&device);
    assert_eq!(device.install(&artifact).code, 0);
    assert_eq!(device.simulate_bootloader(), 3);
    fixed(&device);
    fs::remove_file(&link).unwrap();
    symlink(device.slot(3), &link).unwrap();
    device.says("commit").says(0, &["Committed."]);
    assert_eq!(device.pointer(), ("3".to_owned(), "0".to_owned()));
}

#[test]
fn an_environment_without_room_is_found_before_the_first_byte() {
    let (device, artifact) = device_with_artifact();
    let mut variables = Variables::default();
    for (name, value) in [("mender_boot_part", "2"), ("upgrade_available", "0")] {
        variables.set(name, value).unwrap();
    }
    let mut filled = |room: usize| {
        variables.set("big", &"x".repeat(0x1000 - 5 - 2 - 38 - room)).unwrap();
        for copy in 0..2 {
            let bytes = Image { flags: 1, variables: variables.clone() }.encode(Format::Redundant, 0x1000, 0);
            fs::write(device.env_copy(copy), bytes.unwrap()).unwrap();
        }
        device.install(&artifact)
    };
    filled(8).because(&["no update could be tried", "env0", "needs", "has 4096"]);
    assert_no_byte_was_written(&device);
    let ran = filled(60);
    assert_eq!(ran.code, 0, "{ran:#?}");
}

#[test]
fn an_environment_that_cannot_be_written_is_found_before_the_first_byte() {
    let (device, artifact) = device_with_artifact();
    let before = fs::read(device.env_copy(0)).unwrap();
    // One copy is enough: the next write may be its turn.
    for copy in 0..2 {
        let copy = device.env_copy(copy);
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && echo mounted && \"$@\"; echo $?";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(&copy).arg("env");
        let inner = device.command(["install".as_ref(), artifact.as_os_str()]);
        command.args(inner.get_envs().filter_map(|(name, value)| {
            let mut pair = name.to_owned();
            pair.push("=");
            pair.push(value?);
            Some(pair)
        }));
        command.arg(inner.get_program()).args(inner.get_args());
        let Ok(output) = command.output() else { return println!("SKIPPED: no unshare") };
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !stdout.contains("mounted") {
            return println!("SKIPPED: nothing can be mounted here: {stderr}");
        }
        assert!(stdout.ends_with("1\n"), "{stdout}{stderr}");
        assert!(stderr.contains("no update could be tried") && stderr.contains("Read-only"), "{stderr}");
        assert!(stderr.contains(&*copy.to_string_lossy()), "{stderr}");
        assert_no_byte_was_written(&device);
    }
    assert_eq!(fs::read(device.env_copy(0)).unwrap(), before);
    assert_eq!(device.install(&artifact).code, 0);
}

#[test]
fn a_program_that_cannot_run_is_not_called_missing() {
    let (device, artifact) = device_with_artifact();
    let script = device.path("conf/scripts/Download_Enter_00");
    for (first_line, words) in [
        ("#!/bin/sh\r\n", &["Download_Enter_00", "\"#!/bin/sh\\r\"", "Windows"][..]),
        ("#!/bin/nosuchbash\n", &["its interpreter /bin/nosuchbash is not installed"]),
        ("#!/usr/bin/env nosuchbash\n", &["its interpreter nosuchbash is in no directory of PATH"]),
        ("#!/usr/bin/env sh\r\n", &["Windows"]),
    ] {
        place(&script, format!("{first_line}exit 0\n").as_bytes(), 0o755);
        let ran = device.install(&artifact);
        assert_eq!(ran.code, 1, "{ran:#?}");
        ran.because(words);
        assert_no_byte_was_written(&device);
    }
    fs::remove_dir_all(device.path("conf/scripts")).unwrap();

    let artifact = module_artifact(&device, "mod");
    let module = device.path("share/modules/v3/mod");
    place(&module, b"#!/bin/sh\nexit 0\n", 0o644);
    device
        .install(&artifact)
        .says(1, &["Installing artifact...", "System not modified. Cleanup failed."])
        .because(&["not executable", "chmod +x", "share/modules/v3/mod"]);
    for (first_line, word) in
        [("#!/bin/sh\r\n", "Windows"), ("#!/bin/nosuchbash\n", "/bin/nosuchbash is not")]
    {
        place(&module, format!("{first_line}exit 0\n").as_bytes(), 0o755);
        device.install(&artifact).because(&["mod", word]);
    }
}

#[test]
fn a_device_type_with_quotes_or_white_space_is_quoted_in_the_refusal() {
    let (device, artifact) = device_with_artifact();
    for wrong in ["\"testbox\"", "testbox ", "testbox\r"] {
        fs::write(device.path("data/device_type"), format!("device_type={wrong}\n")).unwrap();
        device.install(&artifact).because(&[&printable(&format!("{wrong:?}")), "device_type=testbox"]);
        assert_no_byte_was_written(&device);
    }
}

#[test]
fn a_data_partition_that_is_not_mounted_is_called_that() {
    let (device, _) = device_with_artifact();
    fs::remove_dir_all(device.path("data")).unwrap();
    symlink("/data/no-such-partition/mender", device.path("data")).unwrap();
    for command in ["show-provides", "commit", "install x.mender"] {
        device.says(command).because(&["/data/no-such-partition/mender", "is the data partition mounted?"]);
    }
}

#[test]
fn what_is_no_artifact_is_called_what_it_is() {
    let device = VirtualDevice::new();
    let mut ext4 = vec![0; 4096];
    ext4[1080..1082].copy_from_slice(b"\x53\xef");
    for (bytes, words) in [
        (&b"<!DOCTYPE html>\n<html><body>404</body></html>\n"[..], "a web page"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03abc", "compressed with gzip"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (&ext4, "an ext4 file system"),
    ] {
        let file = device.store(bytes);
        device.install(&file).because(&["not a Mender artifact", words]);
        assert_no_byte_was_written(&device);
    }
}

#[test]
fn an_environment_that_is_described_wrongly_says_what_would_be_right() {
    let (device, artifact) = device_with_artifact();
    let config = device.path("fw_env.config");
    let good = fs::read_to_string(&config).unwrap();
    let first = good.lines().next().unwrap().to_owned();
    let check = |text: &str, words: &[&str]| {
        fs::write(&config, text).unwrap();
        device.install(&artifact).because(words);
    };
    check(&good.replace("0x1000", "0x800"), &["ENVSIZE is 0x800", "right for 0x1000"]);
    check(&good.replace("0x1000", "0x2000"), &["ENVSIZE 0x2000", "0x1000 bytes of the device"]);
    check(&first, &["two copies", "second line"]);
    check(
        "uboot:\n  size: 0x1000\n  devices:\n  - path: /dev/x\n    offset: 0x0\n",
        &["YAML", "/dev/x 0x0 0x1000"],
    );
    let single =
        Image { flags: 0, variables: Variables::default() }.encode(Format::Single, 0x1000, 0).unwrap();
    for (content, words) in
        [(vec![0; 0x1000], "all zeros"), (vec![0xFF; 0x1000], "all 0xFF"), (single, "U-Boot keeps one copy")]
    {
        fs::write(device.env_copy(0), &content).unwrap();
        fs::write(device.env_copy(1), &content).unwrap();
        check(&good, &[words]);
    }
}

/// What does something to a terminal, in each kind: C0, C1, a line end, a bell, the direction of the text.
const EVIL: &str =
    "x\u{1b}[2J\u{1b}]0;t\u{7}\r\n2026-01-01T00:00:00Z error: forged\u{9b}31m\u{202e}y\u{2028}";

/// What of a run could act on a terminal, or is missing there.
fn unprintable(ran: &Ran) -> Option<String> {
    let acts = ['\u{1b}', '\u{9b}', '\u{202e}', '\r', '\u{7}', '\u{2028}'];
    let is_bad = |text: &String| {
        *text != printable_lines(text)
            || text.contains(acts)
            || text.lines().any(|line| line.starts_with("2026-01-01"))
    };
    let is_shown = [&ran.stdout, &ran.stderr].iter().any(|text| text.contains("\\u{202e}"));
    ([&ran.stdout, &ran.stderr].into_iter().any(is_bad) || !is_shown).then(|| format!("{ran:#?}"))
}

#[test]
fn nothing_from_outside_acts_on_the_terminal() {
    let mut bad = Vec::new();
    let mut check = |what: &str, ran: &Ran| bad.extend(unprintable(ran).map(|ran| format!("{what}: {ran}")));
    let new = || VirtualDevice::new();
    let bidi = "rel\u{202e}2";

    // The name and what else an artifact says of itself.
    let device = new();
    let mut named = rootfs_spec(bidi, Compression::Gzip);
    named.provides.insert("note".into(), EVIL.into());
    check("the name of an artifact", &device.install(&device.artifact(&named, &new_image())));
    device.simulate_bootloader();
    device.says("commit").says(0, &["Committed."]);
    for command in ["show-artifact", "show-provides"] {
        check(command, &device.says(command));
        let ran = device.run(["--json", command]);
        assert_eq!(ran.stdout, printable_lines(&ran.stdout));
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["artifact_name"], bidi);
    }
    let mut wanting = spec();
    wanting.depends.insert("note".into(), "other".into());
    check("depends", &device.install(&device.artifact(&wanting, &new_image())));
    let mut foreign = spec();
    // What acts on a terminal without being a control character: those the writer refuses in a device type.
    foreign.device_types = vec![artifacts::named(bidi)];
    check("device types", &device.install(&device.artifact(&foreign, &new_image())));

    // What scripts and modules say.
    let device = new();
    fs::write(device.path("evil"), EVIL).unwrap();
    let content = format!("#!/bin/sh\ncat {0}\ncat {0} >&2\nexit 1\n", device.path("evil").display());
    let mut scripted = spec();
    let name = "ArtifactInstall_Enter_00".to_owned();
    scripted.scripts = vec![StateScript { name, content: content.clone().into_bytes() }];
    check("a state script", &device.install(&device.artifact(&scripted, &new_image())));
    place(&device.path("share/modules/v3/mod"), content.as_bytes(), 0o755);
    check("an update module", &device.install(&module_artifact(&device, "mod")));

    // Files of the device.
    let device = new();
    let artifact = device.artifact(&spec(), &new_image());
    fs::write(device.path("data/device_type"), format!("device_type={}\n", EVIL.replace('\n', ""))).unwrap();
    check("the device type", &device.install(&artifact));
    let device = new();
    device.configure(|config| config["RootfsPartB"] = json!(EVIL));
    check("the configuration", &device.install(&artifact));
    let device = new();
    let description = format!("/dev/{} 0x0 0x1000\n", EVIL.replace(char::is_whitespace, ""));
    fs::write(device.path("fw_env.config"), description).unwrap();
    check("fw_env.config", &device.install(&artifact));
    let device = new();
    let mut variables = Variables::default();
    variables.set("mender_boot_part", EVIL).unwrap();
    for copy in 0..2 {
        let bytes = Image { flags: 1, variables: variables.clone() }.encode(Format::Redundant, 0x1000, 0);
        fs::write(device.env_copy(copy), bytes.unwrap()).unwrap();
    }
    check("a boot variable", &device.install(&artifact));

    // What is typed or pasted, and what a server says.
    let device = new();
    check("a path", &device.run(["install", EVIL]));
    check("a command", &device.run([EVIL]));
    check("an option", &device.run(["--log-level", EVIL, "commit"]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/a.mender", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let _ = client.read(&mut request).unwrap();
        let head = format!("HTTP/1.1 404 No\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len());
        client.write_all(head.as_bytes()).unwrap();
    });
    let ran = device.run(["install", &address]);
    assert!(ran.stderr == printable_lines(&ran.stderr) && !ran.stderr.contains("forged"), "{ran:#?}");
    server.join().unwrap();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn the_files_of_a_module_are_flushed_together() {
    const FILES: usize = 60;
    let device = VirtualDevice::new();
    place(&device.path("share/modules/v3/mod"), b"#!/bin/sh\nexit 0\n", 0o755);
    let spec = ArtifactSpec::module_image(named("rel-2"), vec![named(DEVICE_TYPE)], named("mod"));
    let files: Vec<MemoryFile> = (0..FILES)
        .map(|number| MemoryFile { name: format!("file-{number}"), content: vec![1; 100] })
        .collect();
    let artifact = device.store(&testkit::artifacts::build(&spec, &files, Some(device.signer())));
    let trace = device.path("trace");
    let inner = device.command(["install".as_ref(), artifact.as_os_str()]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-e", "trace=fsync,fdatasync,syncfs,sync", "-o"]).arg(&trace);
    traced.arg(inner.get_program()).args(inner.get_args());
    traced.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    match traced.output() {
        Ok(output) if trace.exists() => assert!(output.status.success(), "{output:?}"),
        Ok(_) | Err(_) => return println!("SKIPPED: no strace, or it may not trace here"),
    }
    let calls = fs::read_to_string(&trace).unwrap();
    let flushes = calls.lines().filter(|line| line.contains("sync")).count();
    assert!(calls.contains("syncfs(") && flushes < 20, "{flushes} flushes for {FILES} files:\n{calls}");
}
