//! A device that runs our daemon: two files are its slots, and it has a redundant U-Boot environment.
//!
//! Its bootloader is the model of `testkit`, which shares no code with the client's codec. Its restart command leaves a
//! mark; [`VirtualDevice::restart`] is the restart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, clippy::print_stdout)]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use client_core::artifact::Signer;
use client_core::slot::Slot;
use serde_json::{Value, json};
use testkit::artifacts::{self, DEVICE_TYPE, MemoryFile};
use testkit::bootloader::{Boot, Startup, UBootModel};
use testkit::choice::Choices;
use testkit::storage::{CrashWorld, Limits};

use crate::programs::client_program;

/// Bytes of each slot.
const SLOT_BYTES: u64 = 1 << 20;
/// Bytes of one copy of the environment.
const ENV_BYTES: usize = 0x4000;
/// The file with both copies.
const ENV_FILE: &str = "uboot.env";

/// The device. Its daemon is ended with it.
pub struct VirtualDevice {
    folder: tempfile::TempDir,
    signer: Signer,
    daemon: Option<Child>,
    /// The bus of its add-ons, if it has any.
    bus: Option<String>,
    /// The slot that runs.
    pub running: Slot,
}

impl VirtualDevice {
    /// A device with `release-1` from the factory in slot A.
    pub fn new() -> VirtualDevice {
        let folder = tempfile::tempdir().unwrap();
        let keys = Signer::generate_ed25519(&[7; 32]);
        let signer = Signer::from_pem(keys.private.as_bytes()).unwrap();
        let device = VirtualDevice { folder, signer, daemon: None, bus: None, running: Slot::A };
        for name in ["data", "conf", "share/identity", "share/inventory"] {
            fs::create_dir_all(device.path(name)).unwrap();
        }
        fs::write(device.path("key.pub"), keys.public).unwrap();
        fs::write(device.path("data/device_type"), format!("device_type={DEVICE_TYPE}\n")).unwrap();
        device.program("share/identity/mender-device-identity", "echo mac=02:12:61:13:6c:42");
        let inventory = "echo hostname=box1; echo ip=10.0.0.1; echo ip=10.0.0.2";
        device.program("share/inventory/mender-inventory-test", inventory);
        device.program("restart", &format!("touch '{}'", device.path("restarts").display()));
        for slot in Slot::BOTH {
            File::create(device.slot(slot)).unwrap().set_len(SLOT_BYTES).unwrap();
        }
        let env = device.path(ENV_FILE);
        let line = |offset: usize| format!("{} {offset:#x} {ENV_BYTES:#x}\n", env.display());
        fs::write(device.path("fw_env.config"), line(0) + &line(ENV_BYTES)).unwrap();
        fs::write(&env, vec![0; 2 * ENV_BYTES]).unwrap();
        device.with_bootloader(|bootloader, world| bootloader.install(world, Slot::A));
        let bootstrap = device.path("data/bootstrap.mender");
        let arguments = ["write", "bootstrap-artifact", "-t", DEVICE_TYPE, "-n", "release-1", "-o"];
        let mut arguments: Vec<std::ffi::OsString> = arguments.map(Into::into).to_vec();
        arguments.push(bootstrap.into());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = rust_ota_artifact::run(arguments, &mut out, &mut err);
        assert!(done, "{}", String::from_utf8_lossy(&err));
        device
    }

    /// Lets the client serve add-ons from now on, which are on the bus at `address`.
    pub fn use_bus(&mut self, address: &str) {
        self.bus = Some(address.to_owned());
    }

    /// A path on the device.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file that stands for the partition of `slot`. The partition's number ends its name.
    pub fn slot(&self, slot: Slot) -> PathBuf {
        self.path(match slot {
            Slot::A => "slot2",
            Slot::B => "slot3",
        })
    }

    /// A shell program.
    pub fn program(&self, name: &str, script: &str) {
        fs::write(self.path(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes a signed artifact with a root file system.
    pub fn artifact(&self, name: &str, image: &[u8]) -> PathBuf {
        let spec = artifacts::rootfs_spec(name, client_core::artifact::Compression::None);
        let file = MemoryFile { name: "rootfs.img".into(), content: image.to_vec() };
        let artifact = self.path(&format!("{name}.mender"));
        fs::write(&artifact, artifacts::build(&spec, &[file], Some(&self.signer))).unwrap();
        artifact
    }

    /// What is in the slot that runs.
    pub fn running_image(&self, bytes: usize) -> Vec<u8> {
        fs::read(self.slot(self.running)).unwrap()[..bytes].to_vec()
    }

    /// Configures short intervals and `change`.
    pub fn configure(&self, server: &str, change: impl FnOnce(&mut Value)) {
        let mut config = json!({
            "ServerURL": server,
            "UpdatePollIntervalSeconds": 1,
            "InventoryPollIntervalSeconds": 2,
            "RetryPollIntervalSeconds": 1,
            "RootfsPartA": self.slot(Slot::A),
            "RootfsPartB": self.slot(Slot::B),
            "ArtifactVerifyKey": self.path("key.pub"),
            "RustOta": {
                "Bootloader": "uboot",
                "FwEnvConfig": self.path("fw_env.config"),
                "RunningRoot": self.slot(self.running),
                "RebootCommand": self.path("restart"),
            },
        });
        change(&mut config);
        fs::write(self.path("conf/mender.conf"), config.to_string()).unwrap();
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = Command::new(client_program());
        // A virtual device is not the machine it runs on.
        let nowhere = "unix:path=/nonexistent";
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.as_deref().unwrap_or(nowhere));
        command.arg("--config").arg(self.path("conf/mender.conf"));
        command.arg("--datastore").arg(self.path("data")).args(["--log-level", "debug", "daemon"]);
        command.env("MENDER_CONF_DIR", self.path("conf")).env("MENDER_DATA_DIR", self.path("share"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Whether the daemon has asked for a restart that has not come yet.
    pub fn waits_for_restart(&self) -> bool {
        self.path("restarts").exists()
    }

    /// The restart: ends the daemon as the system does, lets the bootloader choose a slot, and starts the daemon there.
    pub fn restart(&mut self) {
        self.stop();
        let boot =
            self.with_bootloader(|bootloader, world| bootloader.boot(world, &mut |_| Startup::ComesUp));
        let Boot::Up { slot, .. } = boot else { panic!("the device does not boot: {boot:?}") };
        self.running = slot;
        let text = fs::read(self.path("conf/mender.conf")).unwrap();
        let mut config: Value = serde_json::from_slice(&text).unwrap();
        config["RustOta"]["RunningRoot"] = json!(self.slot(slot));
        fs::write(self.path("conf/mender.conf"), config.to_string()).unwrap();
        // A restart that nobody asked for is one as well.
        if self.waits_for_restart() {
            fs::remove_file(self.path("restarts")).unwrap();
        }
        self.start();
    }

    /// What the daemons said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("daemon.log")).unwrap_or_default()).into_owned()
    }

    /// Asks the daemon to stop, and waits for its end.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let id = daemon.id().to_string();
            assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
            daemon.wait().unwrap();
        }
    }

    /// Hands the environment file to the model, and keeps what the model made of it.
    fn with_bootloader<T>(&self, act: impl FnOnce(&UBootModel, &CrashWorld) -> T) -> T {
        let path = self.path(ENV_FILE);
        // The power stays on.
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        world.add_device(ENV_FILE, fs::read(&path).unwrap());
        let bootloader = UBootModel::redundant((ENV_FILE, 0), (ENV_FILE, ENV_BYTES as u64), ENV_BYTES);
        let result = act(&bootloader, &world);
        fs::write(&path, world.live(ENV_FILE)).unwrap();
        result
    }
}

impl Default for VirtualDevice {
    fn default() -> VirtualDevice {
        VirtualDevice::new()
    }
}

impl Drop for VirtualDevice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("our daemon said:\n{}", self.log());
        }
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
