//! `cargo demo`: updates over the air of a device that is a folder. One is committed, one does not come up, one comes as the
//! difference to what runs, and one over a network that is cut again and again.
//!
//! The daemon, the server, the host tool and the artifacts are the real ones. Simulated are the machine with its
//! bootloader, which obeys the environment that the client writes, and the network. Whatever is shown was said by one of
//! the programs or read from the device. Any step that does not end as expected ends the demo with an error.

mod fleet;
mod machine;
mod timeline;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client_core::slot::Slot;
use serde_json::Value;

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::process::Line;
use crate::relay::{Relay, Weather};
use crate::update_server::UpdateServer;
use crate::virtual_device::{Enrolment, RESTART, VirtualDevice};
use xtask::options::Options;
use xtask::{Outcome, workspace};

use crate::image;
use machine::Machine;
use timeline::{Timeline, Who};

/// Said when everything went as it should.
const END: &str = "demo: every step ended as expected";

const MIB: usize = 1024 * 1024;
const SLOT_BYTES: usize = 32 * MIB;
/// How long the device may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the status is asked for while an update runs.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// The last lines of a log that are shown.
const LOG_LINES: usize = 6;

/// The bad network: a connection is cut every two or three seconds.
const BAD_WEATHER: Weather =
    Weather { bytes_per_second: Some(5 * MIB as u64 / 2), cut_after: Some(5_555_555) };

/// Shows the story.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let ui = options.flag("--ui");
    options.finish()?;
    let (client, server) = (crate::beside("rust-ota")?, crate::beside("rust-ota-server")?);
    let tool = ArtifactTool::beside()?;
    let directory = workspace::target_directory()?.join("demo");
    workspace::fresh_directory(&directory)?;
    println!("everything happens in {}", directory.display());
    if ui {
        return fleet::run(&client, &server, &tool, &directory);
    }

    let mut demo = Demo::prepare(client, &server, &tool, directory)?;
    demo.first_start()?;
    demo.accept()?;
    demo.update_and_commit()?;
    demo.fall_back()?;
    demo.difference()?;
    demo.bad_network()?;
    println!("\n{END}");
    demo.say_what_next()
}

/// An update as it is made on the host.
struct Update {
    name: &'static str,
    version: u64,
    artifact: PathBuf,
    image: Vec<u8>,
}

impl Update {
    fn artifact_bytes(&self) -> Outcome<u64> {
        bytes_of(&self.artifact)
    }
}

fn bytes_of(path: &Path) -> Outcome<u64> {
    let metadata =
        fs::metadata(path).map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
    Ok(metadata.len())
}

struct Demo {
    timeline: Timeline,
    machine: Machine,
    network: Relay,
    server: UpdateServer,
    /// What the server calls the device.
    device_id: String,
    good: Update,
    broken: Update,
    later: Update,
    /// What makes `later` of `good`.
    delta: PathBuf,
    large: Update,
    /// What the daemon said last.
    last_said: RefCell<String>,
}

impl Demo {
    /// Host: a server, keys, artifacts, and a device as it leaves the factory.
    fn prepare(client: PathBuf, server: &Path, tool: &ArtifactTool, directory: PathBuf) -> Outcome<Demo> {
        let mut timeline = Timeline::start();
        timeline.heading("A server, signed artifacts, and a device");
        let server = UpdateServer::start(server, &directory.join("server"), &["--quiet"])?;
        timeline.say(Who::Server, &format!("listening on {}", server.url()));
        let network = Relay::start(server.address()?)?;
        let keys = tool.make_keys(directory.join("signing-key"))?;
        timeline
            .say(Who::Host, "made a key pair: the private half signs, the public half goes to the device");
        let make = |name, bytes, version, comes_up, compression| {
            let update = make_update(tool, &keys, &directory, (name, bytes, version, comes_up), compression)?;
            let hangs = if comes_up { "" } else { "; its image will not come up" };
            timeline.say(
                Who::Host,
                &format!("wrote and signed {name}, {} KiB{hangs}", update.artifact_bytes()? / 1024),
            );
            Ok::<Update, String>(update)
        };
        let good = make("release-2", 8 * MIB, 2, true, "gzip")?;
        let broken = make("release-3", 8 * MIB, 3, false, "zstd")?;
        let later = make("release-4", 8 * MIB, 4, true, "zstd")?;
        let large = make("release-5", 20 * MIB, 5, true, "none")?;
        let delta = directory.join("release-4.delta.mender");
        let mut command = tool.delta(later.name, &good.artifact, &later.artifact, &keys, &delta);
        let told = said_of_delta(&workspace::capture(&mut command)?.stdout)?;
        timeline.say(Who::Host, &format!("made of release-2 and release-4 the delta between them, {told}"));

        let mut device = VirtualDevice::create(&directory.join("device"), SLOT_BYTES as u64, &keys.public)?;
        device.enrol(Enrolment {
            server_url: format!("http://{}", network.address()),
            poll_seconds: 1,
            authority: None,
            number: 1,
        })?;
        let mut content = image::write_marked(&directory.join("factory.img"), 8 * MIB, 1, true)?;
        content.resize(SLOT_BYTES, 0);
        workspace::write(&device.slot(Slot::A), content)?;
        timeline.say(Who::Host, "made a device with version 1 in slot A, nothing in slot B, and U-Boot");
        Ok(Demo {
            timeline,
            machine: Machine::new(device, client, directory.join("daemon.log")),
            network,
            server,
            device_id: String::new(),
            good,
            broken,
            later,
            delta,
            large,
            last_said: RefCell::default(),
        })
    }

    /// The server does not know the device yet.
    fn first_start(&mut self) -> Outcome {
        self.timeline.heading("The device starts for the first time, and nobody has let it in yet");
        self.restart()?;
        self.expect_running(Slot::A, 1)?;
        self.until_log("the server refuses the device", |line| line.contains("does not accept this device"))?;
        self.timeline.say(Who::Server, "refuses it, as it should, and remembers that it asked");
        let devices = self.server.devices()?;
        let [device] = devices.as_slice() else {
            return Err(format!("the server lists {} devices, expected one", devices.len()));
        };
        self.device_id = device.id.clone();
        self.expect_device("pending")
    }

    fn accept(&mut self) -> Outcome {
        self.timeline.heading("Somebody lets it in");
        self.server_command("accept", &[&self.device_id])?;
        self.expect_device("accepted")?;
        let start = Instant::now();
        while self.status()?["authorized"] != true {
            if start.elapsed() > PATIENCE {
                return Err("the device does not notice that it is accepted".into());
            }
            self.show_lines(STATUS_EVERY)?;
        }
        self.timeline.say(Who::Status, "authorized");
        Ok(())
    }

    fn update_and_commit(&mut self) -> Outcome {
        self.timeline.heading("An update to release-2");
        let deployment = self.deploy(|demo| &demo.good)?;
        self.trial_and_commit(&deployment, |demo| &demo.good)
    }

    fn fall_back(&mut self) -> Outcome {
        self.timeline.heading("An update to release-3, which does not come up");
        let before = self.machine.running;
        let deployment = self.deploy(|demo| &demo.broken)?;
        self.until_restart()?;
        self.expect_content(!before, &self.broken.image)?;
        self.restart()?;
        self.expect_running(before, self.good.version)?;
        self.until_over(&deployment, "failure")?;
        self.expect_variables(before, "0")?;
        self.expect_artifact(self.good.name)?;
        let log = self.server_answer("log", &[&deployment, &self.device_id])?;
        let lines: Vec<&str> = log.lines().collect();
        if lines.is_empty() {
            return Err("the server has no log of the failed deployment".into());
        }
        self.timeline.say(
            Who::Server,
            &format!("has its log, {} lines; the last {}:", lines.len(), lines.len().min(LOG_LINES)),
        );
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            println!("{:24}{line}", "");
        }
        Ok(())
    }

    /// The server has the full artifact too. It gives the device the smallest of those that fit.
    fn difference(&mut self) -> Outcome {
        self.timeline.heading("An update to release-4, as the difference to what runs");
        self.upload(&self.later.artifact)?;
        self.upload(&self.delta)?;
        self.network.take_counts();
        let deployment = self.order(&self.later)?;
        self.until_restart()?;
        let bought = self.network.take_counts().artifact;
        let (full, delta) = (self.later.artifact_bytes()?, bytes_of(&self.delta)?);
        self.timeline.say(
            Who::Network,
            &format!(
                "handed {bought} bytes to the device; the full artifact has {full}: {} saved, {} %",
                full.saturating_sub(bought),
                full.saturating_sub(bought) * 100 / full.max(1)
            ),
        );
        if bought == 0 || bought > delta || delta * 10 > full {
            return Err(format!("expected at most the {delta} bytes of the delta, a tenth of all"));
        }
        self.finish_trial(&deployment, |demo| &demo.later)
    }

    /// What the relay handed to the device is what the device received: a cut closes the connection behind it.
    fn bad_network(&mut self) -> Outcome {
        self.timeline.heading("An update to release-5, over a network that is cut every few seconds");
        self.network.set_weather(BAD_WEATHER);
        self.network.take_counts();
        let deployment = self.deploy(|demo| &demo.large)?;
        self.until_restart()?;
        let counts = self.network.take_counts();
        self.network.set_weather(Weather::default());
        let artifact = self.large.artifact_bytes()?;
        self.timeline.say(
            Who::Network,
            &format!(
                "{} connections for the artifact, {} of them cut; handed {} of its bytes to the device, it has {artifact}",
                counts.downloads, counts.cuts, counts.artifact,
            ),
        );
        let twice =
            counts.artifact.checked_sub(artifact).ok_or("the device has not got the whole artifact")?;
        self.timeline.say(Who::Network, &format!("bytes that the device got twice: {twice}"));
        if twice != 0 || counts.cuts < 3 || counts.downloads != counts.cuts + 1 {
            return Err(format!("expected no byte twice, in at least four connections: {counts:?}"));
        }
        self.finish_trial(&deployment, |demo| &demo.large)
    }

    /// What is left behind, and where to go from here.
    fn say_what_next(&self) -> Outcome {
        // Not `status`: the daemon has ended with the demo.
        let mut command = self.machine.device.client(self.machine.client());
        println!(
            "Version {} runs, and the device is still there to look at:\n    {}\n    less {}\n\
             Next: a device of your own with the commands to use it, and the README for a real board:\n    \
             cargo xtask device /tmp/device",
            self.large.version,
            typed(command.arg("show-provides")),
            shortened(&self.machine.log.display().to_string()),
        );
        Ok(())
    }

    /// Uploads `update` and orders it. Returns what the server calls the deployment.
    fn deploy(&self, update: impl Fn(&Demo) -> &Update) -> Outcome<String> {
        let update = update(self);
        self.upload(&update.artifact)?;
        self.order(update)
    }

    fn upload(&self, artifact: &Path) -> Outcome {
        let path = artifact.display().to_string();
        self.server_answer("upload", &[&path])?;
        self.timeline.say(Who::Server, &format!("took {}", path_name(&path)));
        Ok(())
    }

    /// Orders `update` of the server, which has it. Returns what the server calls the deployment.
    fn order(&self, update: &Update) -> Outcome<String> {
        let deployment = self.server_answer("deploy", &[update.name, update.name, &self.device_id])?;
        self.timeline.say(Who::Server, &format!("made deployment {deployment}"));
        Ok(deployment)
    }

    fn trial_and_commit(&mut self, deployment: &str, update: impl Fn(&Demo) -> &Update) -> Outcome {
        self.until_restart()?;
        self.finish_trial(deployment, update)
    }

    /// From the order to restart to the success.
    fn finish_trial(&mut self, deployment: &str, update: impl Fn(&Demo) -> &Update) -> Outcome {
        let slot = !self.machine.running;
        self.expect_variables(slot, "1")?;
        self.expect_content(slot, &update(self).image)?;
        self.restart()?;
        self.expect_running(slot, update(self).version)?;
        self.until_over(deployment, "success")?;
        self.expect_variables(slot, "0")?;
        self.expect_artifact(update(self).name)
    }

    fn status(&self) -> Outcome<Value> {
        let mut command = self.machine.device.client(self.machine.client());
        let output = workspace::capture(command.args(["status", "--json"]))?;
        serde_json::from_slice(&output.stdout).map_err(|error| format!("status --json: {error}"))
    }

    fn expect_artifact(&self, name: &str) -> Outcome {
        let mut command = self.machine.device.client(self.machine.client());
        command.arg("show-artifact");
        let output = workspace::capture(&mut command)?;
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        self.timeline.say(Who::Client, &format!("$ {}: {found}", typed(&command)));
        if found == name { Ok(()) } else { Err(format!("expected {name}")) }
    }

    fn server_command(&self, command: &str, words: &[&str]) -> Outcome {
        self.timeline.say(Who::Server, &format!("$ {}", typed(&self.server.command(command, words))));
        self.server_answer(command, words).map(drop)
    }

    fn server_answer(&self, command: &str, words: &[&str]) -> Outcome<String> {
        self.server.ask(command, words)
    }

    fn expect_device(&self, status: &str) -> Outcome {
        let devices = self.server.devices()?;
        let found = devices.iter().find(|device| device.id == self.device_id);
        let found = found.ok_or("the server does not know the device")?;
        self.timeline.say(Who::Server, &format!("device {} is {}", found.id, found.status));
        if found.status == status { Ok(()) } else { Err(format!("expected {status}")) }
    }

    /// What the daemon says within `patience`, if anything; shown if it belongs to the story.
    fn show_lines(&self, patience: Duration) -> Outcome<Option<Line>> {
        let line = self.machine.daemon()?.next_line(patience)?;
        if let Some(Line::Log(text)) = &line {
            let text = said(text);
            // To be refused until somebody lets it in is no error of this story.
            let refused = text.contains("does not accept this device");
            let text = if refused { text.trim_start_matches("error: ") } else { text };
            // A device that is refused asks again and again; once is enough for the story.
            if self.last_said.replace(text.to_owned()) != text {
                self.timeline.say(Who::Client, text);
            }
        }
        Ok(line)
    }

    /// Until the daemon has said what is waited for. Meanwhile its status is shown whenever it changes.
    fn until(&self, what: &str, wanted: impl Fn(&Line) -> bool) -> Outcome {
        let start = Instant::now();
        let mut asked = start;
        let mut shown = String::new();
        while start.elapsed() < PATIENCE {
            let line = self.show_lines(STATUS_EVERY.saturating_sub(asked.elapsed()))?;
            if line.as_ref().is_some_and(&wanted) {
                return Ok(());
            }
            if asked.elapsed() >= STATUS_EVERY {
                asked = Instant::now();
                let progress = progress(&self.status()?);
                if let Some(text) = progress.filter(|text| *text != shown) {
                    self.timeline.say(Who::Status, &text);
                    shown = text;
                }
            }
        }
        Err(format!(
            "waited in vain until {what}; the log of the daemon is in {}",
            self.machine.log.display()
        ))
    }

    fn until_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Outcome {
        self.until(what, |line| matches!(line, Line::Log(text) if wanted(text)))
    }

    /// Until the client has installed, and told the machine to restart.
    fn until_restart(&self) -> Outcome {
        self.until("the machine is told to restart", |line| *line == Line::Output(RESTART.to_owned()))?;
        self.timeline.say(Who::Machine, RESTART);
        Ok(())
    }

    /// Until the deployment has come to its end, which the server must know as `status`.
    fn until_over(&self, deployment: &str, status: &str) -> Outcome {
        self.until_log("the deployment is over", |line| {
            line.contains(&format!("{deployment}: succeeded"))
                || line.contains(&format!("{deployment}: failed"))
        })?;
        let start = Instant::now();
        loop {
            let answer = self.server_answer("status", &[deployment])?;
            // The report follows what the daemon says, and the log of a failure follows the report.
            let complete = answer.contains("success") || answer.contains("its log:");
            if complete || start.elapsed() > PATIENCE {
                for line in answer.lines() {
                    self.timeline.say(Who::Server, line);
                }
                return if answer.contains(status) { Ok(()) } else { Err(format!("expected {status}")) };
            }
            self.show_lines(Duration::from_millis(50))?;
        }
    }

    fn restart(&mut self) -> Outcome {
        let timeline = &self.timeline;
        self.machine.restart(&mut |who, text| timeline.say(who, text))
    }

    fn expect_running(&self, slot: Slot, version: u64) -> Outcome {
        let mark = image::read_mark(&self.machine.device.slot(self.machine.running));
        if self.machine.running == slot && mark == Some((version, true)) {
            return Ok(());
        }
        Err(format!(
            "slot {} runs with {mark:?}, expected slot {slot} with version {version}",
            self.machine.running
        ))
    }

    /// Shows the boot variables and expects that they select `slot`, for a trial or for good.
    fn expect_variables(&self, slot: Slot, upgrade_available: &str) -> Outcome {
        let part = match slot {
            Slot::A => "2",
            Slot::B => "3",
        };
        let variables = self.machine.device.boot_variables()?;
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
        let path = self.machine.device.slot(slot);
        let content = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if content.starts_with(image) {
            self.timeline.say(Who::Host, &format!("slot {slot} holds the image, byte for byte"));
            return Ok(());
        }
        Err(format!("slot {slot} does not hold the image"))
    }
}

/// A command that can be typed in this folder.
fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| shortened(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A path below this folder as one from here.
fn shortened(path: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    Path::new(path).strip_prefix(here).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

/// What a line of the daemon's log says, without its time.
fn said(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, text)| text)
}

/// What the host tool tells of a delta.
fn said_of_delta(json: &[u8]) -> Outcome<String> {
    let told: Value = serde_json::from_slice(json).map_err(|error| format!("delta --json: {error}"))?;
    let number = |name: &str| told["delta"][name].as_u64().ok_or_else(|| format!("the delta has no {name}"));
    Ok(format!(
        "{} bytes instead of {}; it takes {} KiB of memory to apply",
        number("bytes")?,
        number("full_bytes")?,
        number("memory_bytes")? / 1024
    ))
}

/// How far an update is, if one runs.
fn progress(status: &Value) -> Option<String> {
    let stage = status["stage"].as_str()?;
    let (done, total) = (status["verified_bytes"].as_u64()?, status["total_bytes"].as_u64()?);
    Some(format!("{stage} {} of {} KiB", done / 1024, total / 1024))
}

fn path_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn make_update(
    tool: &ArtifactTool,
    keys: &KeyPair,
    directory: &Path,
    (name, bytes, version, comes_up): (&'static str, usize, u64, bool),
    compression: &str,
) -> Outcome<Update> {
    let path = directory.join(format!("{name}.img"));
    let image = image::write_marked(&path, bytes, version, comes_up)?;
    let artifact = directory.join(format!("{name}.mender"));
    tool.write_rootfs_image(name, &path, compression, keys, &artifact)?;
    Ok(Update { name, version, artifact, image })
}
