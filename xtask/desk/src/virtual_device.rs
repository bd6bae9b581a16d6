//! A device that is a folder: two slot files, a redundant U-Boot environment, a configuration. Nothing in it needs
//! root.
//!
//! Its bootloader is the model of `testkit`, which shares no code with the client's codec.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use client_core::slot::Slot;
use serde_json::json;
use testkit::bootloader::{Boot, Startup, UBootModel};
use testkit::choice::Choices;
use testkit::storage::{CrashWorld, Limits};

use xtask::{Outcome, workspace};

/// What the device says it is.
pub const DEVICE_TYPE: &str = "virtual";

/// Bytes of one copy of the environment.
const ENV_BYTES: usize = 0x4000;
/// The file with both copies.
const ENV_FILE: &str = "uboot.env";

/// What the machine says on the standard output of the client when it is told to restart.
pub const RESTART: &str = "the machine was told to restart";

/// How a device finds its server, and how often it asks it.
pub struct Enrolment {
    /// `ServerURL`.
    pub server_url: String,
    /// Seconds between two questions for an update.
    pub poll_seconds: u64,
    /// The certificate authority of the server; `None` for those of the system.
    pub authority: Option<PathBuf>,
    /// The end of its hardware address, which no other device of that server has.
    pub number: u32,
}

/// The folder.
pub struct VirtualDevice {
    directory: PathBuf,
    public_key: PathBuf,
    enrolment: Option<Enrolment>,
}

impl VirtualDevice {
    /// Makes a device in the empty `directory`, with slot A selected and running, and both slots empty.
    pub fn create(directory: &Path, slot_bytes: u64, public_key: &Path) -> Outcome<VirtualDevice> {
        let device = VirtualDevice {
            directory: directory.to_path_buf(),
            public_key: public_key.to_path_buf(),
            enrolment: None,
        };
        workspace::fresh_directory(&device.datastore())?;
        for slot in Slot::BOTH {
            let path = device.slot(slot);
            File::create(&path)
                .and_then(|file| file.set_len(slot_bytes))
                .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        }
        workspace::write(&device.datastore().join("device_type"), format!("device_type={DEVICE_TYPE}\n"))?;
        let env = directory.join(ENV_FILE);
        let line = |offset: usize| format!("{} {offset:#x} {ENV_BYTES:#x}\n", env.display());
        workspace::write(&directory.join("fw_env.config"), line(0) + &line(ENV_BYTES))?;
        workspace::write(&env, vec![0; 2 * ENV_BYTES])?;
        device.with_bootloader(|bootloader, world| bootloader.install(world, Slot::A))?;
        device.set_running(Slot::A)?;
        Ok(device)
    }

    /// The device that `create` made in `directory`.
    pub fn open(directory: &Path) -> Outcome<VirtualDevice> {
        let env = directory.join(ENV_FILE);
        if !env.is_file() {
            return Err(format!("{} is no device of files: it has no {ENV_FILE}", directory.display()));
        }
        Ok(VirtualDevice {
            directory: directory.to_path_buf(),
            public_key: directory.join("key.pub"),
            enrolment: None,
        })
    }

    /// Tells the device its server, and gives it an identity.
    pub fn enrol(&mut self, enrolment: Enrolment) -> Outcome {
        let program = self.identity_program();
        let [a, b, c, d] = enrolment.number.to_be_bytes();
        workspace::write(&program, format!("#!/bin/sh\necho mac=02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}\n"))?;
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&program, executable)
            .map_err(|error| format!("cannot make {} a program: {error}", program.display()))?;
        self.enrolment = Some(enrolment);
        self.set_running(Slot::A)
    }

    /// The file that stands for the partition of `slot`. The partition's number ends its name.
    pub fn slot(&self, slot: Slot) -> PathBuf {
        self.directory.join(match slot {
            Slot::A => "slot2",
            Slot::B => "slot3",
        })
    }

    /// Writes the configuration of a client that runs from `running`: without mounts nothing else can tell it.
    pub fn set_running(&self, running: Slot) -> Outcome {
        let mut config = json!({
            "RootfsPartA": self.slot(Slot::A),
            "RootfsPartB": self.slot(Slot::B),
            "ArtifactVerifyKey": self.public_key,
            "RustOta": {
                "Bootloader": "uboot",
                "FwEnvConfig": self.directory.join("fw_env.config"),
                "RunningRoot": self.slot(running),
                "RebootCommand": format!("echo {RESTART}"),
                "IdentityScript": self.identity_program(),
            },
        });
        if let Some(enrolment) = &self.enrolment {
            config["ServerURL"] = json!(enrolment.server_url);
            config["UpdatePollIntervalSeconds"] = json!(enrolment.poll_seconds);
            config["InventoryPollIntervalSeconds"] = json!(enrolment.poll_seconds.max(600));
            config["RetryPollIntervalSeconds"] = json!(enrolment.poll_seconds.min(60));
            if let Some(authority) = &enrolment.authority {
                config["ServerCertificate"] = json!(authority);
            }
        }
        workspace::write(&self.config(), format!("{config:#}\n"))
    }

    /// A call of the client `program` on this device, still without a command.
    pub fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(self.config())
            .arg("--datastore")
            .arg(self.datastore())
            // Nothing of this machine belongs to the device.
            .env("MENDER_CONF_DIR", &self.directory)
            .env("MENDER_DATA_DIR", &self.directory)
            .stdin(Stdio::null());
        command
    }

    /// What the bootloader reads in the environment.
    pub fn boot_variables(&self) -> Outcome<BTreeMap<String, String>> {
        self.with_bootloader(|bootloader, world| bootloader.variables(world))?
            .ok_or_else(|| "no copy of the boot environment is valid".to_owned())
    }

    /// Starts the machine. `start` boots a slot and says whether it came up.
    pub fn boot(&self, start: &mut dyn FnMut(Slot) -> Startup) -> Outcome<Boot> {
        self.with_bootloader(|bootloader, world| bootloader.boot(world, start))
    }

    fn identity_program(&self) -> PathBuf {
        self.directory.join("identity-program")
    }

    fn config(&self) -> PathBuf {
        self.directory.join("mender.conf")
    }

    fn datastore(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Hands the environment file to the model, and keeps what the model made of it.
    fn with_bootloader<T>(&self, act: impl FnOnce(&UBootModel, &CrashWorld) -> T) -> Outcome<T> {
        let path = self.directory.join(ENV_FILE);
        let before = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        // The power stays on.
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        world.add_device(ENV_FILE, before);
        let bootloader = UBootModel::redundant((ENV_FILE, 0), (ENV_FILE, ENV_BYTES as u64), ENV_BYTES);
        let result = act(&bootloader, &world);
        workspace::write(&path, world.live(ENV_FILE))?;
        Ok(result)
    }
}
