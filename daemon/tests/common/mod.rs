//! A virtual device in a temporary directory, and the real binary run against it.
//!
//! Two plain files are the slots, a redundant U-Boot environment says which of them boots, and the configuration's
//! `RunningRoot` says which one runs. The bootloader is a few lines here that know nothing of the client's code.
//!
//! Memory: every run has its data segment (heap, thread stacks and all other private writable memory) limited with
//! `ulimit -d` to [`MEMORY_KIB`]; the kernel refuses what goes beyond, so that a run that ends well or with a verdict
//! has kept the bound.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bootloader_uboot::image::{Format, Image, Variables};
use client_core::artifact::Signer;
use client_core::artifact::write::ArtifactSpec;
use client_core::deploy::Stage;
use client_core::deploy::record::Record;
use serde_json::{Value, json};
use testkit::artifacts::MemoryFile;
use testkit::programs::place_script;

/// Bytes of each slot.
pub const SLOT_BYTES: usize = 2 << 20;
/// Data segment of a run, in KiB.
pub const MEMORY_KIB: u64 = 32 * 1024;
const ENV_BYTES: usize = 0x1000;
const BOOT_VARIABLES: [&str; 5] =
    ["mender_boot_part", "mender_boot_part_hex", "upgrade_available", "bootcount", "bootlimit"];

/// What a run of the binary did.
#[derive(Debug)]
pub struct Ran {
    /// The exit code, or 128 and the signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Exactly these lines on standard output, and this exit code.
    #[track_caller]
    pub fn says(&self, code: i32, lines: &[&str]) -> &Ran {
        let stdout: Vec<&str> = self.stdout.lines().collect();
        assert_eq!((self.code, &stdout[..]), (code, lines), "{self:#?}");
        self
    }

    /// Every one of `words` is in the message on standard error that begins with `Could not fulfill request`.
    #[track_caller]
    pub fn because(&self, words: &[&str]) -> &Ran {
        let message: Vec<&str> =
            self.stderr.lines().filter(|line| line.starts_with("Could not fulfill request: ")).collect();
        assert!(!message.is_empty(), "no reason is given: {self:#?}");
        for word in words {
            assert!(message.iter().any(|line| line.contains(word)), "{word:?} is not in {message:?}");
        }
        self
    }
}

/// A run that has not ended.
pub struct Running {
    child: Child,
}

impl Running {
    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Its standard input, to be written and dropped.
    pub fn stdin(&mut self) -> impl Write + use<> {
        self.child.stdin.take().unwrap()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        let collect = |mut pipe: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.read_to_end(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let stdout = collect(Box::new(self.child.stdout.take().unwrap()));
        let stderr = collect(Box::new(self.child.stderr.take().unwrap()));
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
        Ran { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }
}

/// The device.
pub struct VirtualDevice {
    folder: tempfile::TempDir,
    signer: Signer,
    name: OsString,
}

impl VirtualDevice {
    /// Boots slot 2, which holds old software; trusts [`VirtualDevice::signer`].
    pub fn new() -> VirtualDevice {
        let folder = tempfile::tempdir().unwrap();
        let keys = Signer::generate_ed25519(&[7; 32]);
        let signer = Signer::from_pem(keys.private.as_bytes()).unwrap();
        let device = VirtualDevice { folder, signer, name: env!("CARGO_BIN_EXE_rust-ota").into() };
        for directory in ["data", "conf"] {
            fs::create_dir(device.path(directory)).unwrap();
        }
        fs::write(device.slot(2), image(2, SLOT_BYTES)).unwrap();
        fs::write(device.slot(3), image(3, SLOT_BYTES)).unwrap();
        fs::write(device.path("data/device_type"), "device_type=testbox\n").unwrap();
        fs::write(device.path("key.pub"), &keys.public).unwrap();
        let line = |copy: usize| format!("{} 0x0 {ENV_BYTES:#x}\n", device.env_copy(copy).display());
        fs::write(device.path("fw_env.config"), line(0) + &line(1)).unwrap();
        let mut variables = Variables::default();
        for (name, value) in BOOT_VARIABLES.iter().zip(["2", "2", "0", "0", "1"]) {
            variables.set(name, value).unwrap();
        }
        variables.set("bootcmd", "run mender_setup; run distro_bootcmd").unwrap();
        for (copy, flags) in [(0, 1), (1, 0)] {
            device.write_env_copy(copy, &Image { flags, variables: variables.clone() });
        }
        let config = json!({
            "RootfsPartA": device.slot(2),
            "RootfsPartB": device.slot(3),
            "ArtifactVerifyKey": device.path("key.pub"),
            "RustOta": {
                "Bootloader": "uboot",
                "FwEnvConfig": device.path("fw_env.config"),
                "RunningRoot": device.slot(2),
            },
        });
        fs::write(device.config(), config.to_string()).unwrap();
        // Nothing that a test does may restart the machine that it runs on.
        let reboot = format!("touch {}", device.path("restarted-by-name").display());
        place_script(&device.path("bin/reboot"), &reboot);
        device
    }

    /// A path on the device.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn slot(&self, number: u32) -> PathBuf {
        self.path(&format!("slot{number}"))
    }

    pub fn config(&self) -> PathBuf {
        self.path("conf/mender.conf")
    }

    /// One of the two copies of the boot environment.
    pub fn env_copy(&self, copy: usize) -> PathBuf {
        self.path(&format!("env{copy}"))
    }

    /// The key that the device trusts.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Changes the configuration.
    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = serde_json::from_slice(&fs::read(self.config()).unwrap()).unwrap();
        change(&mut config);
        fs::write(self.config(), config.to_string()).unwrap();
    }

    /// Takes the key away and accepts unsigned artifacts.
    pub fn accept_unsigned(&self) {
        self.configure(|config| {
            config["ArtifactVerifyKey"] = Value::Null;
            config["RustOta"]["DangerAcceptUnsigned"] = true.into();
        });
    }

    /// Calls the binary by another name from now on.
    pub fn call_it(&mut self, name: &str) {
        let link = self.path(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rust-ota"), &link).unwrap();
        self.name = link.into();
    }

    /// Runs the binary on this device.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        self.start(arguments).end()
    }

    /// Runs it with words separated by blanks.
    pub fn says(&self, words: &str) -> Ran {
        self.run(words.split(' '))
    }

    /// Runs `install` of a file that the test made.
    pub fn install(&self, artifact: &Path) -> Ran {
        self.run([OsStr::new("install"), artifact.as_os_str()])
    }

    /// Starts the binary on this device.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap() }
    }

    /// The binary on this device. The shell in front of it becomes it.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let limited = format!("ulimit -d {MEMORY_KIB} && exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited]).arg(&self.name).arg("-c").arg(self.config());
        command.arg("-d").arg(self.path("data")).args(arguments);
        // Whatever the machine of the test has configured is none of this device's business.
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("MENDER_CONF_DIR", self.path("conf")).env("MENDER_DATA_DIR", self.path("share"));
        // A virtual device is not the machine it runs on.
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
        command
    }

    /// Stores an artifact that is signed with the key of the device.
    pub fn artifact(&self, spec: &ArtifactSpec, image: &[u8]) -> PathBuf {
        self.store(&build(spec, image, Some(&self.signer)))
    }

    /// Stores the bytes of an artifact beside the device.
    pub fn store(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("update.mender");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A FIFO with this name.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// `mender_boot_part`, `upgrade_available` and the others, as the bootloader would find them.
    pub fn boot_variables(&self) -> BTreeMap<String, String> {
        let (_, image) = self.env();
        let value = |name: &&str| {
            let value = image.variables.value(name)?;
            Some(((*name).to_owned(), String::from_utf8(value.to_vec()).unwrap()))
        };
        BOOT_VARIABLES.iter().filter_map(value).collect()
    }

    /// `mender_boot_part` and `upgrade_available`.
    pub fn pointer(&self) -> (String, String) {
        let variables = self.boot_variables();
        (variables["mender_boot_part"].clone(), variables["upgrade_available"].clone())
    }

    /// The copy of the environment that counts, and its content.
    fn env(&self) -> (usize, Image) {
        let read = |copy| {
            let bytes = fs::read(self.env_copy(copy)).unwrap();
            Some((copy, Image::decode(Format::Redundant, &bytes).ok()?))
        };
        match (read(0), read(1)) {
            (Some(first), Some(second)) => {
                // U-Boot: the greater flags count, and 0 is greater than 255.
                let second_counts = match (first.1.flags, second.1.flags) {
                    (255, 0) => true,
                    (0, 255) => false,
                    (one, other) => other > one,
                };
                if second_counts { second } else { first }
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => panic!("the device does not boot: no valid copy of the environment"),
        }
    }

    fn write_env_copy(&self, copy: usize, image: &Image) {
        fs::write(self.env_copy(copy), image.encode(Format::Redundant, ENV_BYTES, 0).unwrap()).unwrap();
    }

    /// The slot that the configuration calls the running one.
    pub fn boot(&self, slot: u32) {
        self.configure(|config| config["RustOta"]["RunningRoot"] = json!(self.slot(slot)));
    }

    /// Restarts the device: a trial is booted once, and the second time the bootloader goes back. Returns the slot.
    pub fn simulate_bootloader(&self) -> u32 {
        let variables = self.boot_variables();
        let mut part: u32 = variables["mender_boot_part"].parse().unwrap();
        if variables["upgrade_available"] == "1" {
            let (copy, mut image) = self.env();
            let mut set = |name: &str, value: &str| image.variables.set(name, value).unwrap();
            if variables["bootcount"].parse::<u32>().unwrap() >= 1 {
                part = 5 - part;
                set("mender_boot_part", &part.to_string());
                set("mender_boot_part_hex", &format!("{part:x}"));
                set("upgrade_available", "0");
                set("bootcount", "0");
            } else {
                set("bootcount", "1");
            }
            image.flags = image.flags.wrapping_add(1);
            self.write_env_copy(1 - copy, &image);
        }
        self.boot(part);
        part
    }

    /// Changes the record, as no client does.
    pub fn rewrite_record(&self, change: impl FnOnce(&mut Record)) {
        let mut state = linux::state_file::open(&self.path("data"), &AnyDocument).unwrap();
        let mut record = Record::load(&mut state).unwrap();
        change(&mut record);
        record.save(&mut state).unwrap();
    }

    /// The update in progress was cut between the arming and the record of that.
    pub fn cut_in_the_middle_of_the_installation(&self) {
        self.rewrite_record(|record| {
            let left = record.deployment.as_mut().unwrap();
            (left.stage, left.entered) = (Stage::Install, true);
        });
    }

    /// Every file and directory in the datastore.
    pub fn datastore(&self) -> Vec<String> {
        let root = self.path("data");
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(&root).unwrap().display().to_string());
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// Takes every document, and makes none.
struct AnyDocument;

impl linux::state_file::Documents for AnyDocument {
    fn initial(&self) -> Vec<u8> {
        Vec::new()
    }
    fn after_loss(&self, _: &str) -> Vec<u8> {
        Vec::new()
    }
    fn check(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Content that differs from block to block and from seed to seed, and does not compress to nothing.
pub fn image(seed: u32, bytes: usize) -> Vec<u8> {
    let words = (0..bytes as u32 / 4).map(|n| (n ^ seed << 24).wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_le_bytes).collect()
}

/// An artifact with a root file system.
pub fn build(spec: &ArtifactSpec, image: &[u8], signer: Option<&Signer>) -> Vec<u8> {
    let file = MemoryFile { name: "rootfs.img".into(), content: image.to_vec() };
    testkit::artifacts::build(spec, &[file], signer)
}

/// Opens a FIFO for writing: returns when the client has opened it for reading.
pub fn open_fifo(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}
