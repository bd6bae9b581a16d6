//! A message bus of its own for a test, by the real `dbus-daemon`, and the real tools that talk to it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::{tool, wait_for};

/// Long enough for a bus to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who may do what on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    /// Everybody, everything.
    None,
    /// As on a device: names are owned and used as the policies that we ship say.
    Shipped,
}

/// The bus. Ended when it is dropped.
pub struct Bus {
    program: PathBuf,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Bus {
    /// Starts one; `None` when the tools are missing: the reason is printed.
    pub fn start(policies: Policies) -> Option<Bus> {
        let program = tool("dbus-daemon")?;
        tool("dbus-send")?;
        tool("dbus-monitor")?;
        let folder = tempfile::tempdir().unwrap();
        let mut bus = Bus { program, folder, daemon: None };
        // Other users have to get at the socket.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(bus.folder.path(), mode).unwrap();
        fs::write(bus.folder.path().join("bus.conf"), bus.config(policies)).unwrap();
        bus.restart();
        Some(bus)
    }

    fn config(&self, policies: Policies) -> String {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../daemon/dbus");
        let include = |name: &str| format!("<include>{}</include>", shipped.join(name).display());
        let (own, call, includes) = match policies {
            Policies::None => ("allow", "allow", String::new()),
            Policies::Shipped => (
                "deny",
                "deny",
                include("io.mender.AuthenticationManager.conf") + &include("io.mender.UpdateManager.conf"),
            ),
        };
        // What a system bus allows by itself.
        format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\"><busconfig><type>system</type>\
             <listen>{}</listen><auth>EXTERNAL</auth><policy context=\"default\"><allow user=\"*\"/>\
             <{own} own=\"*\"/><{call} send_type=\"method_call\"/><allow send_type=\"signal\"/>\
             <allow send_requested_reply=\"true\" send_type=\"method_return\"/>\
             <allow send_requested_reply=\"true\" send_type=\"error\"/><allow receive_type=\"method_call\"/>\
             <allow receive_type=\"method_return\"/><allow receive_type=\"error\"/>\
             <allow receive_type=\"signal\"/><allow send_destination=\"org.freedesktop.DBus\"/></policy>\
             {includes}</busconfig>",
            self.address()
        )
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Where it is, for `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Ends it, if it runs.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        // The socket of a bus that was killed stays.
        let _ = fs::remove_file(self.socket());
    }

    /// Starts it at the same place, and ends it before that if it runs.
    pub fn restart(&mut self) {
        self.stop();
        let mut command = Command::new(&self.program);
        command
            .arg("--config-file")
            .arg(self.folder.path().join("bus.conf"))
            .args(["--nofork", "--nopidfile"]);
        self.daemon = Some(command.stdin(Stdio::null()).spawn().unwrap());
        let connected = || std::os::unix::net::UnixStream::connect(self.socket()).ok();
        assert!(wait_for(PATIENCE, connected).is_some(), "the bus does not start");
    }

    /// Calls a method with `dbus-send`, which is the first of `arguments` after `before`.
    fn send(&self, before: &[&str], arguments: &[&str]) -> Output {
        let mut words = before.to_vec();
        let (bus, reply) = (format!("--bus={}", self.address()), "--print-reply");
        words.extend_from_slice(&["dbus-send", &bus, reply, "--reply-timeout=10000"]);
        words.extend_from_slice(arguments);
        Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
    }

    /// What a method returns, as `dbus-send` prints it, or the error.
    pub fn call(&self, arguments: &[&str]) -> Result<String, String> {
        result(self.send(&[], arguments))
    }

    /// The same as a user who is not root. Only root can do that.
    pub fn call_as_nobody(&self, arguments: &[&str]) -> Result<String, String> {
        result(self.send(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], arguments))
    }

    /// Whether somebody owns `name`.
    pub fn has_owner(&self, name: &str) -> bool {
        let asked = [
            "--dest=org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus.NameHasOwner",
            &format!("string:{name}"),
        ];
        self.call(&asked).is_ok_and(|reply| reply.contains("boolean true"))
    }

    /// Writes down what is said on the bus from now on, as `dbus-monitor` prints it.
    pub fn monitor(&self, rule: &str) -> Monitor {
        let path = self.folder.path().join("monitor.log");
        let mut command = Command::new("dbus-monitor");
        command.args(["--address", &self.address(), rule]).stdin(Stdio::null());
        let process = command.stdout(File::create(&path).unwrap()).spawn().unwrap();
        let monitor = Monitor { process, path };
        // It says that it lost its own name when it has become a monitor.
        let begun = || monitor.log().contains("NameLost").then_some(());
        assert!(wait_for(PATIENCE, begun).is_some(), "dbus-monitor does not start: {}", monitor.log());
        monitor
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.stop();
    }
}

fn result(output: Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A running `dbus-monitor`. Ended when it is dropped.
pub struct Monitor {
    process: Child,
    path: PathBuf,
}

impl Monitor {
    /// What it has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.path).unwrap_or_default()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
