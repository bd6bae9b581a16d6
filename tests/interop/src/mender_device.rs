//! A device that runs the real Mender client 3.4.
//!
//! Its package is unpacked, not installed, and the folders of the device lie where the client looks for them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, clippy::print_stdout)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use testkit::namespace::Namespace;

use crate::{namespace, peer, tool};

/// Where release 3.4 looks for the name of what the factory installed.
const FACTORY_FOLDER: &str = "/etc/mender";
/// Where it has its identity program, inventory programs and update modules.
const SHARE_FOLDER: &str = "/usr/share/mender";
/// What the device says it is.
pub const DEVICE_TYPE: &str = testkit::artifacts::DEVICE_TYPE;

/// The device. Its daemon is ended with it.
pub struct MenderDevice {
    client: PathBuf,
    namespace: Namespace,
    folder: tempfile::TempDir,
    daemon: Option<Child>,
}

impl MenderDevice {
    /// A device that ran `release-1` from the factory on; `None` when the client is missing: the reason is printed.
    pub fn new() -> Option<MenderDevice> {
        let client = peer("usr/bin/mender")?;
        let folder = tempfile::tempdir().unwrap();
        for name in ["data", "factory", "share/identity", "share/inventory", "share/modules/v3"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let (factory, share) = (folder.path().join("factory"), folder.path().join("share"));
        let over = [(&*factory, FACTORY_FOLDER), (&*share, SHARE_FOLDER)];
        let namespace = namespace(folder.path(), &over)?;
        let device = MenderDevice { client, namespace, folder, daemon: None };
        fs::write(device.path("data/device_type"), format!("device_type={DEVICE_TYPE}\n")).unwrap();
        fs::write(device.path("factory/artifact_info"), "artifact_name=release-1\n").unwrap();
        device.program("share/identity/mender-device-identity", "echo mac=02:12:61:13:6c:42");
        device.program("share/inventory/mender-inventory-test", "echo hostname=box1");
        Some(device)
    }

    /// A path on the device.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the device a key that was made once for all of them. Without it the daemon makes one of its own, which
    /// takes many seconds when many devices do it at once.
    pub fn bring_key(&self) {
        static KEY: OnceLock<Option<Vec<u8>>> = OnceLock::new();
        let made = KEY.get_or_init(|| {
            let made = Command::new(tool("openssl")?).args(["genrsa", "-traditional", "2048"]).output();
            made.ok().filter(|made| made.status.success()).map(|made| made.stdout)
        });
        if let Some(key) = made {
            fs::write(self.path("data/mender-agent.pem"), key).unwrap();
            fs::set_permissions(self.path("data/mender-agent.pem"), fs::Permissions::from_mode(0o600))
                .unwrap();
        }
    }

    /// A shell program.
    pub fn program(&self, name: &str, script: &str) {
        testkit::programs::place_script(&self.path(name), script);
    }

    /// Gives the device an update module that can go back and needs no restart, with `install` for the installation.
    /// It writes every state it is called with to `states`.
    pub fn module(&self, name: &str, install: &str) {
        let states = self.path("states");
        let script = format!(
            "echo \"$1\" >> '{}'\ncase \"$1\" in\nNeedsArtifactReboot) echo No ;;\nSupportsRollback) echo Yes ;;\n\
             ArtifactInstall)\n{install}\n;;\nesac\nexit 0",
            states.display()
        );
        self.program(&format!("share/modules/v3/{name}"), &script);
    }

    /// The states that update modules were called with.
    pub fn states(&self) -> Vec<String> {
        let states = fs::read_to_string(self.path("states")).unwrap_or_default();
        states.lines().map(str::to_owned).collect()
    }

    /// Makes an artifact for an update module with the real tool, or with ours where that is missing.
    pub fn artifact(&self, name: &str, module: &str, payload: &[u8]) -> PathBuf {
        let (artifact, file) = (self.path(&format!("{name}.mender")), self.path("payload"));
        fs::write(&file, payload).unwrap();
        let (artifact_text, file) = (artifact.to_str().unwrap(), file.to_str().unwrap());
        let arguments = [
            "write",
            "module-image",
            "-T",
            module,
            "-t",
            DEVICE_TYPE,
            "-n",
            name,
            "-o",
            artifact_text,
            "-f",
            file,
        ];
        match tool("mender-artifact") {
            Some(tool) => {
                let output = Command::new(tool).args(arguments).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            None => {
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let done = rust_ota_artifact::run(arguments.map(Into::into), &mut out, &mut err);
                assert!(done, "{}", String::from_utf8_lossy(&err));
            }
        }
        artifact
    }

    /// Runs a command of the client to its end, with these options and no others.
    pub fn command(&self, arguments: &[&str]) -> Output {
        fs::write(self.path("mender.conf"), "{}").unwrap();
        let mut command = self.namespace.command(&self.client);
        command.arg("--no-syslog").arg("--data").arg(self.path("data"));
        command.arg("--config").arg(self.path("mender.conf"));
        command.arg("--fallback-config").arg(self.path("none.conf"));
        command.args(arguments).output().unwrap()
    }

    /// Starts the daemon with short intervals and `change`.
    pub fn start(&mut self, server: &str, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "ServerURL": server,
            "UpdatePollIntervalSeconds": 1,
            "InventoryPollIntervalSeconds": 2,
            "RetryPollIntervalSeconds": 1,
            "DBus": { "Enabled": false },
        });
        change(&mut config);
        fs::write(self.path("mender.conf"), config.to_string()).unwrap();
        let log = File::create(self.path("daemon.log")).unwrap();
        let mut command = self.namespace.command(&self.client);
        command.args(["--no-syslog", "--log-level", "debug", "--data"]).arg(self.path("data"));
        command.arg("--config").arg(self.path("mender.conf"));
        command.arg("--fallback-config").arg(self.path("none.conf")).arg("daemon");
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // `unshare` and `sh` become the client: this is its process.
        self.daemon = Some(command.spawn().unwrap());
    }

    /// What the daemon said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("daemon.log")).unwrap_or_default()).into_owned()
    }

    /// Ends the daemon at once.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

impl Drop for MenderDevice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the daemon said:\n{}", self.log());
        }
        self.stop();
    }
}
