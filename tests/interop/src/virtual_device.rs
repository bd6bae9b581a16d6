//! A device that runs our daemon: two files are its slots, and it has a redundant U-Boot environment.
//!
//! Its bootloader is the model of `testkit`, which shares no code with the client's codec. Its restart command leaves a
//! mark; [`VirtualDevice::restart`] is the restart.

#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, clippy::print_stdout)]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use client_core::artifact::Signer;
use client_core::slot::Slot;
use serde_json::{Value, json};
use testkit::artifacts::{self, DEVICE_TYPE, MemoryFile};
use testkit::bootloader::{Boot, GrubModel, Startup, UBootModel};
use testkit::choice::Choices;
use testkit::storage::{CrashWorld, Limits};

use crate::programs::client_program;

/// Bytes of each slot.
const SLOT_BYTES: u64 = 1 << 20;
/// Bytes of one copy of the environment.
const ENV_BYTES: usize = 0x4000;
/// The file with both copies.
const ENV_FILE: &str = "uboot.env";
/// The files of a GRUB environment that decide something: both blocks, both locks.
const GRUB_FILES: [&str; 4] = [
    "grub/mender_grubenv1/env",
    "grub/mender_grubenv1/lock",
    "grub/mender_grubenv2/env",
    "grub/mender_grubenv2/lock",
];

/// What chooses the slot of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootloader {
    /// With a redundant environment in one file.
    UBoot,
    /// With two copies of its environment in a directory each.
    Grub,
}

/// The device. Its daemon is ended with it.
pub struct VirtualDevice {
    folder: tempfile::TempDir,
    signer: Signer,
    daemon: Option<Child>,
    /// The bus of its add-ons, if it has any.
    bus: Option<String>,
    bootloader: Bootloader,
    /// The slot that runs.
    pub running: Slot,
}

impl VirtualDevice {
    /// A device with `release-1` from the factory in slot A, and U-Boot.
    pub fn new() -> VirtualDevice {
        VirtualDevice::with(Bootloader::UBoot)
    }

    /// The same with another bootloader.
    pub fn with(bootloader: Bootloader) -> VirtualDevice {
        let folder = tempfile::tempdir().unwrap();
        let keys = Signer::generate_ed25519(&[7; 32]);
        let signer = Signer::from_pem(keys.private.as_bytes()).unwrap();
        let device = VirtualDevice { folder, signer, daemon: None, bus: None, bootloader, running: Slot::A };
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
        device.make_environment();
        let bootstrap = device.path("data/bootstrap.mender");
        let arguments = ["write", "bootstrap-artifact", "-t", DEVICE_TYPE, "-n", "release-1", "-o"];
        let mut arguments: Vec<std::ffi::OsString> = arguments.map(Into::into).to_vec();
        arguments.push(bootstrap.into());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = rust_ota_artifact::run(arguments, &mut out, &mut err);
        assert!(done, "{}", String::from_utf8_lossy(&err));
        device
    }

    fn make_environment(&self) {
        match self.bootloader {
            Bootloader::UBoot => {
                let env = self.path(ENV_FILE);
                let line = |offset: usize| format!("{} {offset:#x} {ENV_BYTES:#x}\n", env.display());
                fs::write(self.path("fw_env.config"), line(0) + &line(ENV_BYTES)).unwrap();
                fs::write(&env, vec![0; 2 * ENV_BYTES]).unwrap();
                self.with_uboot(|bootloader, world| bootloader.install(world, Slot::A));
            }
            Bootloader::Grub => {
                let [env_1, lock_1, env_2, lock_2] = GRUB_FILES;
                let env = GrubModel::new((env_1, lock_1), (env_2, lock_2)).initial_env(Slot::A);
                for (name, content) in [
                    (env_1, &env),
                    (env_2, &env),
                    (lock_1, &GrubModel::open_lock()),
                    (lock_2, &GrubModel::open_lock()),
                ] {
                    fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
                    fs::write(self.path(name), content).unwrap();
                }
            }
        }
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
        testkit::programs::place_script(&self.path(name), script);
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
                "Bootloader": if self.bootloader == Bootloader::Grub { "grub" } else { "uboot" },
                "FwEnvConfig": self.path("fw_env.config"),
                "GrubEnvDir": self.path("grub"),
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
        self.boot();
        self.start();
    }

    /// Lets the bootloader choose a slot, and nothing run in it yet.
    pub fn boot(&mut self) {
        let mut comes_up = |_| Startup::ComesUp;
        let boot = match self.bootloader {
            Bootloader::UBoot => self.with_uboot(|bootloader, world| bootloader.boot(world, &mut comes_up)),
            Bootloader::Grub => self.with_grub(|bootloader, world| bootloader.boot(world, &mut comes_up)),
        };
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

    fn with_uboot<T>(&self, act: impl FnOnce(&UBootModel, &CrashWorld) -> T) -> T {
        let bootloader = UBootModel::redundant((ENV_FILE, 0), (ENV_FILE, ENV_BYTES as u64), ENV_BYTES);
        self.with_files(&[ENV_FILE], |world| act(&bootloader, world))
    }

    fn with_grub<T>(&self, act: impl FnOnce(&GrubModel, &CrashWorld) -> T) -> T {
        let [env_1, lock_1, env_2, lock_2] = GRUB_FILES;
        let bootloader = GrubModel::new((env_1, lock_1), (env_2, lock_2));
        self.with_files(&GRUB_FILES, |world| act(&bootloader, world))
    }

    /// Hands the files of the environment to a model, and keeps what the model made of them.
    fn with_files<T>(&self, names: &[&str], act: impl FnOnce(&CrashWorld) -> T) -> T {
        // The power stays on.
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        for name in names {
            world.add_device(name, fs::read(self.path(name)).unwrap());
        }
        let result = act(&world);
        for name in names {
            fs::write(self.path(name), world.live(name)).unwrap();
        }
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
