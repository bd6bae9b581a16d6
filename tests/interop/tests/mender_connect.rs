//! The real `mender-connect` on a real message bus, through our daemon, to our server: a user opens a shell on
//! the device, fetches a file and asks for an update.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use interop::backend::Backend;
use interop::bus::{Bus, Policies};
use interop::programs::client_program;
use interop::terminal::{Frames, Session};
use interop::virtual_device::VirtualDevice;
use interop::{peer, wait_for};
use serde_json::json;
use server_core::client::FrameStream;
use testserver::RecordedRequest;

/// Long enough for anything that happens at all. `mender-connect` looks for a token every ten seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a device asks for updates, sends its inventory and opens its WebSocket.
const NEXT: &str = "/deployments/next";
const INVENTORY: &str = "/inventory/device/attributes";
const CONNECT: &str = "/api/devices/v1/deviceconnect/connect";

/// A person's session through the server.
struct Relayed(FrameStream);

impl Frames for Relayed {
    fn send(&mut self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }

    fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        self.0.receive(deadline.saturating_duration_since(Instant::now())).unwrap()
    }
}

/// Opens a session as soon as the device is connected.
#[track_caller]
fn session_with(server: &Backend, device: &str) -> (Session<Relayed>, Vec<i64>) {
    let stream = wait_for(PATIENCE, || server.management.connect(device).ok());
    let Some(stream) = stream else { panic!("not connected: {:#?}", server.running.requests()) };
    Session::open(Relayed(stream))
}

/// The requests whose path has `word` in it.
fn requests(server: &Backend, word: &str) -> Vec<RecordedRequest> {
    server.running.requests().into_iter().filter(|request| request.path.contains(word)).collect()
}

/// Waits until there are more than `count` requests of the device with `word`.
#[track_caller]
fn expect_more(server: &Backend, word: &str, count: usize) {
    let more = wait_for(PATIENCE, || (requests(server, word).len() > count).then_some(()));
    assert!(more.is_some(), "no more {word} in {:#?}", server.running.requests());
}

/// A running `mender-connect`. Ended when it is dropped.
struct MenderConnect {
    process: Child,
    log: std::path::PathBuf,
}

impl MenderConnect {
    /// Starts it on the bus. Where it looks for the client it finds ours.
    fn start(device: &VirtualDevice, bus: &Bus) -> Option<MenderConnect> {
        let program = peer("usr/bin/mender-connect")?;
        if !Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
            println!("SKIPPED: mender-connect starts shells for root only");
            return None;
        }
        // It looks for the client in its path.
        let bin = device.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(client_program(), bin.join("mender")).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        // By itself it lets each person have one shell.
        let config = json!({
            "ShellCommand": "/bin/bash",
            "User": "root",
            "Terminal": { "Height": 24, "Width": 80 },
            "Sessions": { "MaxPerUser": 4 },
        });
        std::fs::write(device.path("mender-connect.conf"), config.to_string()).unwrap();
        let log = device.path("mender-connect.log");
        let output = File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.env("PATH", path).arg("--trace").arg("--config").arg(device.path("mender-connect.conf"));
        command.arg("--fallback-config").arg(device.path("none.conf")).arg("daemon");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        command.env("MENDER_CONF_DIR", device.path("conf")).env("MENDER_DATASTORE_DIR", device.path("data"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Some(MenderConnect { process: command.spawn().unwrap(), log })
    }
}

impl Drop for MenderConnect {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("mender-connect said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The real `mender-cli` copies a file from the device, and to it.
fn copy_with_mender_cli(server: &Backend, device: &VirtualDevice, id: &str, content: &[u8]) {
    let Some(program) = peer("usr/bin/mender-cli") else { return };
    let copy = |from: &str, to: &str| {
        let mut command = Command::new(&program);
        command.args(["--server", server.running.url(), "--token-value", server.running.management_token()]);
        command.args(["cp", from, to]).env("HOME", device.path("")).stdin(Stdio::null());
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = |name: &str| device.path(name).to_str().unwrap().to_owned();
    let on_device = |name: &str| format!("{id}:{}", path(name));
    let (copied, said) = copy(&on_device("file"), &path("fetched"));
    assert!(copied, "{said}");
    assert!(std::fs::read(path("fetched")).unwrap() == content);
    let (copied, said) = copy(&path("fetched"), &on_device("sent"));
    assert!(copied, "{said}");
    assert!(std::fs::read(path("sent")).unwrap() == content);
    std::fs::write(path("empty"), "").unwrap();
    let (copied, said) = copy(&path("empty"), &on_device("sent-empty"));
    assert!(copied && std::fs::read(path("sent-empty")).unwrap().is_empty(), "{said}");
    let (copied, said) = copy(&on_device("none"), &path("nothing"));
    assert!(!copied && said.contains("no such file or directory"), "{said}");
    let (copied, said) = copy(&path("fetched"), &on_device("no-folder/file"));
    assert!(!copied && said.contains("the device says"), "{said}");
}

#[test]
fn a_user_works_on_the_device_through_the_real_mender_connect() {
    let Some(bus) = Bus::start(Policies::None) else { return };
    let server = Backend::start(|options| options.auto_accept(true));
    let mut device = VirtualDevice::new();
    device.use_bus(&bus.address());
    device.configure(server.running.url(), |config| {
        // Nothing but what is asked for.
        config["UpdatePollIntervalSeconds"] = json!(3600);
        config["InventoryPollIntervalSeconds"] = json!(3600);
    });
    let Some(_mender_connect) = MenderConnect::start(&device, &bus) else { return };
    device.start();
    // By itself the daemon takes up to a minute before it talks to the server.
    let fetch = [
        "--dest=io.mender.AuthenticationManager",
        "/io/mender/AuthenticationManager",
        "io.mender.Authentication1.FetchJwtToken",
    ];
    let asked = wait_for(PATIENCE, || bus.call(&fetch).ok());
    assert!(asked.is_some(), "{}", device.log());
    let known = wait_for(PATIENCE, || server.management.devices().unwrap().into_iter().next());
    let id = known.unwrap_or_else(|| panic!("no device asked: {}", device.log())).id;

    let (mut session, mut offered) = session_with(&server, &id);
    assert_eq!(server.management.connection(&id).unwrap(), "connected");
    offered.sort_unstable();
    assert_eq!(offered, [1, 2, 3, 4]);
    session.start_shell();
    session.type_line("echo hi-$((1+1))", "hi-2");
    // Somebody else works on it at the same time.
    let (mut second, _) = session_with(&server, &id);
    second.start_shell();
    second.type_line("echo second-$((3+3))", "second-6");
    session.type_line("echo still-$((1+2))", "still-3");
    session.stop_shell();
    // More than one chunk, and more than may be on the way without being acknowledged.
    let content: Vec<u8> = (0..50_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(device.path("file"), &content).unwrap();
    assert!(session.fetch_file(device.path("file").to_str().unwrap()) == content);

    copy_with_mender_cli(&server, &device, &id, &content);

    // Through the session, and without one.
    let polls = requests(&server, NEXT).len();
    session.run_client("check-update").unwrap();
    expect_more(&server, NEXT, polls);
    session.close();
    let polls = requests(&server, NEXT).len();
    server.management.command(&id, "check-update").unwrap();
    expect_more(&server, NEXT, polls);
    let sent = requests(&server, INVENTORY).len();
    server.management.command(&id, "send-inventory").unwrap();
    expect_more(&server, INVENTORY, sent);

    // A person who just goes leaves no shell behind: the server ends it.
    let pid = device.path("shell-pid");
    second.type_line(&format!("echo $$ > {}; echo ok-$((4+4))", pid.display()), "ok-8");
    let shell = format!("/proc/{}", std::fs::read_to_string(&pid).unwrap().trim());
    assert!(Path::new(&shell).exists());
    drop(second);
    let ended = wait_for(PATIENCE, || (!Path::new(&shell).exists()).then_some(()));
    assert!(ended.is_some(), "{shell} is still there");

    // A new token: the device comes again with it.
    let connections = requests(&server, CONNECT).len();
    bus.call(&fetch).unwrap();
    expect_more(&server, CONNECT, connections);
    let (mut session, _) = session_with(&server, &id);
    session.start_shell();
    session.type_line("echo again-$((2+2))", "again-4");
    let sent = requests(&server, INVENTORY).len();
    session.run_client("send-inventory").unwrap();
    expect_more(&server, INVENTORY, sent);
    session.close();
}
