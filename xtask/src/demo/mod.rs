//! `cargo demo`: an update that is committed, and one that does not come up, on a device that is a folder.
//!
//! The client, the host tool and the artifacts are the real ones. Simulated are the machine and its bootloader, which
//! obeys the environment that the client writes. Any step that does not end as expected ends the demo with an error.

mod timeline;

use std::fs;
use std::path::{Path, PathBuf};

use client_core::slot::Slot;
use testkit::bootloader::{Boot, Startup};

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::options::Options;
use crate::virtual_device::VirtualDevice;
use crate::{Outcome, image, workspace};
use timeline::{Timeline, Who};

/// The last line of a demo in which everything went as it should.
pub const LAST_LINE: &str = "demo: every step ended as expected";

const SLOT_BYTES: u64 = 16 * 1024 * 1024;
/// Where an artifact is damaged for the attack: in the middle of its compressed image.
const DAMAGED_BYTE: usize = 1_000_000;

/// Builds the programs, then shows the story.
pub fn run(arguments: &[String]) -> Outcome {
    Options::new(arguments).finish()?;
    println!("building the client and the host tool ...");
    let client = workspace::build_for_development("rust-ota")?;
    let tool = ArtifactTool::build()?;
    let directory = workspace::target_directory()?.join("demo");
    workspace::fresh_directory(&directory)?;
    println!("everything happens in {}\n", directory.display());

    let mut demo = Demo::prepare(client, &tool, directory)?;
    demo.first_start()?;
    demo.refuse_a_damaged_artifact()?;
    demo.update_and_commit()?;
    demo.fall_back()?;
    println!("\n{LAST_LINE}");
    Ok(())
}

/// An update as it is made on the host.
struct Update {
    name: &'static str,
    artifact: PathBuf,
    image: Vec<u8>,
}

struct Demo {
    timeline: Timeline,
    client: PathBuf,
    directory: PathBuf,
    device: VirtualDevice,
    good: Update,
    broken: Update,
    /// The slot the machine runs from.
    running: Slot,
}

impl Demo {
    /// Host: keys, two artifacts, and a device as it leaves the factory.
    fn prepare(client: PathBuf, tool: &ArtifactTool, directory: PathBuf) -> Outcome<Demo> {
        let timeline = Timeline::start();
        timeline.heading("On the host");
        let keys = tool.make_keys(directory.join("signing-key"))?;
        timeline
            .say(Who::Host, "made a key pair: the private half signs, the public half goes to the device");
        let make = |name, version, comes_up| make_update(tool, &keys, &directory, name, version, comes_up);
        let good = make("release-2", 2, true)?;
        timeline.say(Who::Host, "wrote and signed the artifact release-2");
        let broken = make("release-3", 3, false)?;
        timeline.say(Who::Host, "wrote and signed the artifact release-3, whose image will not come up");

        let device = VirtualDevice::create(&directory.join("device"), SLOT_BYTES, &keys.public)?;
        let factory = directory.join("factory.img");
        let content = image::write_marked(&factory, 1, true)?;
        let slot = device.slot(Slot::A);
        workspace::write(&slot, padded(content))?;
        timeline.say(Who::Host, "made a device with version 1 in slot A, nothing in slot B, and U-Boot");
        Ok(Demo { timeline, client, directory, device, good, broken, running: Slot::A })
    }

    fn first_start(&mut self) -> Outcome {
        self.timeline.heading("The device starts for the first time");
        self.reboot()?;
        self.expect_running(Slot::A, 1)?;
        self.expect_variables("2", "0")
    }

    /// One changed byte, and nothing on the device changes.
    fn refuse_a_damaged_artifact(&mut self) -> Outcome {
        self.timeline.heading("Somebody changes one byte of release-2 on its way");
        let damaged = self.directory.join("damaged.mender");
        let mut bytes =
            fs::read(&self.good.artifact).map_err(|error| format!("cannot read the artifact: {error}"))?;
        match bytes.get_mut(DAMAGED_BYTE) {
            Some(byte) => *byte ^= 1,
            None => return Err("the artifact is shorter than expected".into()),
        }
        workspace::write(&damaged, bytes)?;
        let lines = ["Installing artifact...", "Streaming failed.", "System not modified."];
        self.client(&["install"], Some(&damaged), 1, &lines)?;
        self.expect_variables("2", "0")
    }

    fn update_and_commit(&mut self) -> Outcome {
        self.timeline.heading("The update to release-2");
        let (artifact, slot) = (self.good.artifact.clone(), !self.running);
        self.client(&["install"], Some(&artifact), 0, &INSTALLED)?;
        self.expect_variables("3", "1")?;
        self.expect_content(slot, &self.good.image)?;
        self.reboot()?;
        self.expect_running(slot, 2)?;
        self.expect_variables("3", "1")?;
        self.client(&["commit"], None, 0, &["Committed."])?;
        self.expect_variables("3", "0")?;
        self.client(&["show-artifact"], None, 0, &[self.good.name])?;
        self.reboot()?;
        self.expect_running(slot, 2)
    }

    fn fall_back(&mut self) -> Outcome {
        self.timeline.heading("The update to release-3, which does not come up");
        let artifact = self.broken.artifact.clone();
        self.client(&["install"], Some(&artifact), 0, &INSTALLED)?;
        self.expect_variables("2", "1")?;
        self.expect_content(!self.running, &self.broken.image)?;
        self.reboot()?;
        self.expect_running(Slot::B, 2)?;
        self.expect_variables("3", "0")?;
        self.client(&["commit"], None, 1, &["Committing failed.", "Rolled back."])?;
        self.client(&["show-artifact"], None, 0, &[self.good.name])?;
        self.client(&["commit"], None, 2, &["No update in progress."])?;
        self.expect_variables("3", "0")
    }

    /// Runs the client and expects this exit code and these lines on standard output.
    fn client(&self, arguments: &[&str], file: Option<&Path>, exit_code: i32, lines: &[&str]) -> Outcome {
        let mut command = self.device.client(&self.client);
        // The log would bury the story; it is kept beside it.
        command.arg("--log-file").arg(self.directory.join("client.log")).args(arguments).args(file);
        let shown: Vec<String> = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .chain(file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()))
            .collect();
        self.timeline.say(Who::Client, &format!("$ rust-ota {}", shown.join(" ")));
        let output = command.output().map_err(|error| format!("cannot run the client: {error}"))?;
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        for line in stdout.lines() {
            self.timeline.say(Who::Client, line);
        }
        for line in stderr.lines().filter(|line| line.starts_with("Could not")) {
            self.timeline.say(Who::Client, line);
        }
        let found: Vec<&str> = stdout.lines().collect();
        if output.status.code() == Some(exit_code) && found == lines {
            return Ok(());
        }
        Err(format!(
            "rust-ota {} ended with {}, expected exit code {exit_code} and the lines {lines:?}\n{stderr}",
            arguments.join(" "),
            output.status
        ))
    }

    /// The machine starts, as often as it takes until a slot comes up.
    fn reboot(&mut self) -> Outcome {
        self.timeline.say(Who::Machine, "restarts");
        let (device, timeline) = (&self.device, &self.timeline);
        let mut tried = None;
        let boot = device.boot(&mut |slot| {
            if tried.replace(slot).is_some_and(|before| before != slot) {
                timeline.say(Who::Bootloader, "boot limit exceeded: falls back to the other slot");
            }
            timeline.say(Who::Bootloader, &format!("boots slot {slot}"));
            match image::read_mark(&device.slot(slot)) {
                Some((version, true)) => {
                    timeline.say(Who::Machine, &format!("version {version} comes up"));
                    Startup::ComesUp
                }
                Some((version, false)) => {
                    timeline.say(
                        Who::Machine,
                        &format!("version {version} hangs; the watchdog resets the machine"),
                    );
                    Startup::Fails
                }
                None => {
                    timeline.say(Who::Machine, "nothing bootable there; the watchdog resets the machine");
                    Startup::Fails
                }
            }
        })?;
        match boot {
            Boot::Up { slot, .. } => {
                self.running = slot;
                self.device.set_running(slot)
            }
            Boot::Stuck { slot, .. } => Err(format!("the machine is stuck in slot {slot}")),
        }
    }

    fn expect_running(&self, slot: Slot, version: u64) -> Outcome {
        let mark = image::read_mark(&self.device.slot(self.running));
        if self.running == slot && mark == Some((version, true)) {
            return Ok(());
        }
        Err(format!("slot {} runs with {mark:?}, expected slot {slot} with version {version}", self.running))
    }

    /// Shows the boot variables and expects these.
    fn expect_variables(&self, part: &str, upgrade_available: &str) -> Outcome {
        let variables = self.device.boot_variables()?;
        let value = |name: &str| variables.get(name).map_or("not set", String::as_str);
        let shown: Vec<String> = ["mender_boot_part", "upgrade_available", "bootcount"]
            .iter()
            .map(|name| format!("{name}={}", value(name)))
            .collect();
        self.timeline.say(Who::Environment, &shown.join(" "));
        if value("mender_boot_part") == part && value("upgrade_available") == upgrade_available {
            return Ok(());
        }
        Err(format!("expected mender_boot_part={part} upgrade_available={upgrade_available}"))
    }

    fn expect_content(&self, slot: Slot, image: &[u8]) -> Outcome {
        let path = self.device.slot(slot);
        let content = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if content.starts_with(image) {
            self.timeline.say(Who::Host, &format!("slot {slot} holds the image, byte for byte"));
            return Ok(());
        }
        Err(format!("slot {slot} does not hold the image"))
    }
}

const INSTALLED: [&str; 4] = [
    "Installing artifact...",
    "Installed, but not committed.",
    "Use 'commit' to update, or 'rollback' to roll back the update.",
    "At least one payload requested a reboot of the device it updated.",
];

fn make_update(
    tool: &ArtifactTool,
    keys: &KeyPair,
    directory: &Path,
    name: &'static str,
    version: u64,
    comes_up: bool,
) -> Outcome<Update> {
    let path = directory.join(format!("{name}.img"));
    let image = image::write_marked(&path, version, comes_up)?;
    let artifact = directory.join(format!("{name}.mender"));
    tool.write_rootfs_image(name, &path, "gzip", keys, &artifact)?;
    Ok(Update { name, artifact, image })
}

/// An image filled up to the size of a slot.
fn padded(mut image: Vec<u8>) -> Vec<u8> {
    image.resize(SLOT_BYTES as usize, 0);
    image
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
