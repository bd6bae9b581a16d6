//! Our daemon on a real message bus, asked with the tools of D-Bus: the token, the way to the server, and
//! control maps.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use interop::backend::{Backend, PATIENCE};
use interop::bus::{Bus, Policies};
use interop::virtual_device::VirtualDevice;
use interop::wait_for;

const AUTHENTICATION: &str = "io.mender.AuthenticationManager";
const UPDATE: &str = "io.mender.UpdateManager";
const SIGNAL: &str = "type='signal',interface='io.mender.Authentication1'";

fn authentication(method: &str) -> [String; 3] {
    let interface = format!("io.mender.Authentication1.{method}");
    [format!("--dest={AUTHENTICATION}"), "/io/mender/AuthenticationManager".into(), interface]
}

fn control_map(map: &str) -> [String; 4] {
    [
        format!("--dest={UPDATE}"),
        "/io/mender/UpdateManager".into(),
        "io.mender.Update1.SetUpdateControlMap".into(),
        format!("string:{map}"),
    ]
}

fn words<const N: usize>(words: &[String; N]) -> [&str; N] {
    std::array::from_fn(|index| words[index].as_str())
}

/// What stands between quotes after `string` in the output of a tool.
fn strings(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("string \""));
    lines.map(|line| line.trim_end_matches('"').to_owned()).collect()
}

/// A server, and a device with our daemon on a bus.
struct World {
    backend: Backend,
    device: VirtualDevice,
    bus: Bus,
}

impl World {
    fn new(policies: Policies) -> Option<World> {
        let bus = Bus::start(policies)?;
        let backend = Backend::start(|options| options);
        let mut device = VirtualDevice::new();
        device.use_bus(&bus.address());
        device.configure(backend.running.url(), |_| {});
        Some(World { backend, device, bus })
    }

    /// Starts the daemon and waits until it is on the bus.
    #[track_caller]
    fn start(&mut self) {
        self.device.start();
        self.expect_names();
    }

    #[track_caller]
    fn expect_names(&self) {
        for name in [AUTHENTICATION, UPDATE] {
            let owned = wait_for(PATIENCE, || self.bus.has_owner(name).then_some(()));
            assert!(owned.is_some(), "nobody owns {name}");
        }
    }

    /// Token and address, both empty when there are none.
    fn access(&self) -> Vec<String> {
        strings(&self.bus.call(&words(&authentication("GetJwtToken"))).unwrap())
    }

    /// Token and address as soon as there are any.
    #[track_caller]
    fn wait_for_access(&self) -> Vec<String> {
        let found = wait_for(PATIENCE, || Some(self.access()).filter(|access| !access[0].is_empty()));
        found.unwrap_or_else(|| panic!("there is no token"))
    }
}

/// The answer to a request of the inventory through the proxy.
fn ask(access: &[String]) -> String {
    let mut stream = TcpStream::connect(access[1].strip_prefix("http://").unwrap()).unwrap();
    let body = r#"[{"name":"asked","value":"by an add-on"}]"#;
    let request = format!(
        "PATCH /api/devices/v1/inventory/device/attributes HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        access[0],
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[test]
fn the_token_comes_with_a_way_to_the_server_and_a_signal() {
    let Some(mut world) = World::new(Policies::None) else { return };
    let monitor = world.bus.monitor(SIGNAL);
    world.start();
    assert_eq!(world.access(), ["", ""]);
    let id = world.backend.accept_the_device();
    let access = world.wait_for_access();
    assert_eq!(access[0].split('.').count(), 3, "{access:?}");
    assert!(access[1].starts_with("http://127.0.0.1:") && !access[1].ends_with('/'), "{access:?}");
    let answer = ask(&access);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    world.backend.expect_attribute(&id, "asked", "by an add-on");
    let told = || Some(strings(&monitor.log())).filter(|told| told.ends_with(&access));
    let told = wait_for(PATIENCE, told).unwrap_or_else(|| panic!("{}", monitor.log()));
    assert!(told.windows(2).any(|pair| pair == ["", ""]), "{told:?}");
}

#[test]
fn a_token_that_is_asked_for_is_announced() {
    let Some(mut world) = World::new(Policies::None) else { return };
    world.start();
    world.backend.accept_the_device();
    let access = world.wait_for_access();
    let monitor = world.bus.monitor(SIGNAL);
    let seen = world.backend.running.requests().len();
    let reply = world.bus.call(&words(&authentication("FetchJwtToken"))).unwrap();
    assert!(reply.contains("boolean true"), "{reply}");
    let asked = world.backend.request(seen, PATIENCE, |request| request.path.ends_with("/auth_requests"));
    assert!(asked.is_some(), "{}", world.device.log());
    let told = wait_for(PATIENCE, || Some(strings(&monitor.log())).filter(|told| told.len() >= 2));
    let told = told.unwrap_or_else(|| panic!("{}", monitor.log()));
    let now = &told[told.len() - 2..];
    assert_eq!(now, world.access());
    // A new token has a port of its own.
    assert_eq!(now[0] == access[0], now[1] == access[1], "{access:?} {now:?}");
    assert!(ask(now).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_device_that_is_rejected_tells_so() {
    let Some(mut world) = World::new(Policies::None) else { return };
    world.start();
    let id = world.backend.accept_the_device();
    let access = world.wait_for_access();
    world.backend.management.reject(&id).unwrap();
    let gone = wait_for(PATIENCE, || (world.access() == ["", ""]).then_some(()));
    assert!(gone.is_some(), "{}", world.device.log());
    assert!(TcpStream::connect(access[1].strip_prefix("http://").unwrap()).is_err());
}

#[test]
fn the_daemon_outlives_the_bus_and_finds_it_again() {
    let Some(mut world) = World::new(Policies::None) else { return };
    world.bus.stop();
    world.device.start();
    let id = world.backend.accept_the_device();
    // Nothing of the daemon waits for a bus.
    world.backend.expect_attribute(&id, "hostname", "box1");
    world.bus.restart();
    world.expect_names();
    let access = world.wait_for_access();
    world.bus.restart();
    world.expect_names();
    assert_eq!(world.access(), access);
    assert!(ask(&access).starts_with("HTTP/1.1 200 "));
    world.device.stop();
    assert!(world.device.log().contains("asked to stop"), "{}", world.device.log());
}

#[test]
fn the_configuration_keeps_the_daemon_off_the_bus() {
    let Some(mut world) = World::new(Policies::None) else { return };
    let set = |config: &mut serde_json::Value| config["DBus"] = serde_json::json!({ "Enabled": false });
    world.device.configure(world.backend.running.url(), set);
    world.device.start();
    let id = world.backend.accept_the_device();
    world.backend.expect_attribute(&id, "hostname", "box1");
    assert!(!world.bus.has_owner(AUTHENTICATION));
    assert!(!world.device.log().contains("D-Bus"), "{}", world.device.log());
}

#[test]
fn control_maps_are_taken_and_kept_and_nonsense_is_not() {
    let Some(mut world) = World::new(Policies::None) else { return };
    world.start();
    let map = r#"{"id":"d0000000-0000-4000-8000-000000000001","priority":2,
        "states":{"ArtifactInstall_Enter":{"action":"pause"}}}"#;
    let reply = world.bus.call(&words(&control_map(map))).unwrap();
    // Twice the poll interval of a second, and half of that.
    assert!(reply.contains("int32 1"), "{reply}");
    let kept = std::fs::read_to_string(world.device.path("data/update-control-maps.json")).unwrap();
    assert!(kept.contains("ArtifactInstall_Enter"), "{kept}");
    let error = world.bus.call(&words(&control_map("{}"))).unwrap_err();
    assert!(error.contains("io.mender.Failed") && error.contains("log"), "{error}");
    assert!(world.device.log().contains("id is no UUID"), "{}", world.device.log());
}

#[test]
fn the_objects_describe_themselves() {
    let Some(mut world) = World::new(Policies::None) else { return };
    world.start();
    let check = |name: &str, path: &str, expected: &[&str]| {
        let destination = format!("--dest={name}");
        let method = "org.freedesktop.DBus.Introspectable.Introspect";
        let xml = world.bus.call(&[&destination, path, method]).unwrap();
        for word in expected {
            assert!(xml.contains(word), "{word} is not in {xml}");
        }
        let properties = "org.freedesktop.DBus.Properties.GetAll";
        let argument = format!("string:{}", expected[0]);
        assert!(world.bus.call(&[&destination, path, properties, &argument]).is_ok());
        assert!(world.bus.call(&[&destination, path, "org.freedesktop.DBus.Peer.Ping"]).is_ok());
    };
    let methods = ["io.mender.Authentication1", "GetJwtToken", "FetchJwtToken", "JwtTokenStateChange"];
    check(AUTHENTICATION, "/io/mender/AuthenticationManager", &methods);
    let methods = ["io.mender.Update1", "SetUpdateControlMap", "org.freedesktop.DBus.Peer"];
    check(UPDATE, "/io/mender/UpdateManager", &methods);
}

#[test]
fn with_our_policies_only_root_is_answered() {
    if !is_root() {
        println!("SKIPPED: only root can ask as somebody else");
        return;
    }
    let Some(mut world) = World::new(Policies::Shipped) else { return };
    world.start();
    world.backend.accept_the_device();
    world.wait_for_access();
    let map = r#"{"id":"d0000000-0000-4000-8000-000000000001","states":{}}"#;
    for refused in [
        world.bus.call_as_nobody(&words(&authentication("GetJwtToken"))),
        world.bus.call_as_nobody(&words(&authentication("FetchJwtToken"))),
        world.bus.call_as_nobody(&words(&control_map(map))),
    ] {
        let error = refused.unwrap_err();
        assert!(error.contains("org.freedesktop.DBus.Error.AccessDenied"), "{error}");
    }
    world.bus.call(&words(&control_map(map))).unwrap();
}
