//! `cargo xtask bench daemon`: what the daemon costs a device: memory, processor time and traffic while there is nothing
//! to do, and memory while it installs.
//!
//! A relay between device and server counts the bytes of the connections, those of TLS included, those of TCP and IP not.
//! Questions come from SIGUSR1 in place of the hour between two of them; the daemon closes its connections after each, as
//! it does before every wait of more than a minute. The first question, with key, identity and inventory, is not counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::namespace::Namespace;

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::process::{Line, Process};
use crate::relay::{Counts, Relay};
use crate::update_server::UpdateServer;
use crate::virtual_device::{DEVICE_TYPE, Enrolment, RESTART, VirtualDevice};
use xtask::options::Options;
use xtask::{Outcome, cpu, peers, shipped, workspace};

use crate::image;

use super::MIB;
use super::memory::{Memory, watch};

const SECTION: &str = "bench-daemon";
const PATIENCE: Duration = Duration::from_secs(120);
/// A client that keeps its connections has said everything when nothing comes for so long.
const QUIET: Duration = Duration::from_millis(500);
/// No question comes by itself.
const NEVER_SECONDS: u64 = 7 * 24 * 3600;

const IDLE_HEAD: &str = "\
| client | server | resident | allocated | of the file | CPU per poll | sent per poll | received per poll | connections per poll |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";
const INSTALL_HEAD: &str = "\
| compression | artifact | peak memory | of it allocated |
| --- | --- | --- | --- |
";

/// Measures and prints tables.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let polls = options.count("--polls", 100)?;
    let image_mib = options.count("--mib", 256)?;
    let client = options.value("--client")?;
    let write = options.flag("--write");
    options.finish()?;

    println!("building the programs ...");
    let client = match client {
        Some(path) => workspace::root().join(path),
        None => shipped::client()?,
    };
    let directory = workspace::target_directory()?.join("bench-daemon");
    workspace::fresh_directory(&directory)?;
    let tool = ArtifactTool::beside()?;
    let keys = tool.make_keys(directory.join("signing-key"))?;
    let bench = Bench { client, server: crate::beside("rust-ota-server")?, directory, keys };

    let mut table = format!("{polls} polls each, {}.\n\n{IDLE_HEAD}", super::machine()?);
    for (name, options) in [("HTTP", &[] as &[&str]), ("HTTP, first version only", &["--no-v2"])] {
        println!("idle: {name} ...");
        table += &bench.idle(name, options, polls)?;
    }
    println!("idle: HTTPS ...");
    table += &bench.idle_with_tls(polls)?;
    println!("idle: the Mender client ...");
    let mut left_out = String::new();
    match bench.mender(polls.min(20)) {
        Ok(row) => table += &row,
        Err(reason) => left_out = format!("\nThe Mender client was left out: {reason}\n"),
    }
    table += &left_out;
    table += &format!("\nInstallation of an image of {image_mib} MiB over the air:\n\n{INSTALL_HEAD}");
    let image = bench.directory.join("image");
    image::write_realistic(&image, (image_mib * MIB) as usize)?;
    for compression in ["none", "gzip", "lzma", "zstd"] {
        println!("installation: {compression} ...");
        table += &bench.installation(&tool, &image, image_mib * MIB, compression)?;
    }
    println!("\n{table}");
    if write {
        super::write_section(SECTION, &table)?;
    }
    workspace::fresh_directory(&bench.directory)
}

struct Bench {
    client: PathBuf,
    server: PathBuf,
    directory: PathBuf,
    keys: KeyPair,
}

/// A daemon with its network and its server.
struct Running {
    daemon: Process,
    network: Relay,
    server: UpdateServer,
}

impl Bench {
    fn start(
        &self,
        scheme: &str,
        options: &[&str],
        authority: Option<PathBuf>,
        slot_bytes: u64,
    ) -> Outcome<Running> {
        let options = [&["--auto-accept", "--quiet"], options].concat();
        let server = UpdateServer::start(&self.server, &self.directory.join("server"), &options)?;
        let network = Relay::start(server.address()?)?;
        let mut device =
            VirtualDevice::create(&self.directory.join("device"), slot_bytes, &self.keys.public)?;
        device.enrol(Enrolment {
            server_url: format!("{scheme}://{}", network.address()),
            poll_seconds: NEVER_SECONDS,
            authority,
            number: 1,
        })?;
        let mut command = device.client(&self.client);
        let daemon = Process::start(command.arg("daemon"), &self.directory.join("daemon.log"))?;
        // By itself it would begin at any time within a minute.
        until(&daemon, |line| matches!(line, Line::Log(text) if text.ends_with(" started")))?;
        ask(&daemon, &network, "USR1")?;
        ask(&daemon, &network, "USR2")?;
        Ok(Running { daemon, network, server })
    }

    fn idle(&self, name: &str, options: &[&str], polls: u64) -> Outcome<String> {
        let running = self.start("http", options, None, MIB)?;
        measure_polls("rust-ota", name, &running.daemon, &running.network, polls)
    }

    fn idle_with_tls(&self, polls: u64) -> Outcome<String> {
        let (key, certificate) = (self.directory.join("tls.key"), self.directory.join("tls.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "30", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"]);
        command.args(["-addext", "basicConstraints=critical,CA:false"]);
        command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        let output = command.output().map_err(|error| format!("cannot run openssl: {error}"))?;
        if !output.status.success() {
            return Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let (key, path) = (key.display().to_string(), certificate.display().to_string());
        let options = ["--tls-cert", &path, "--tls-key", &key];
        let running = self.start("https", &options, Some(certificate), MIB)?;
        measure_polls("rust-ota", "HTTPS", &running.daemon, &running.network, polls)
    }

    /// The real Mender client of the distribution, unpacked, with folders of the bench where it looks for its own.
    fn mender(&self, polls: u64) -> Outcome<String> {
        let peers = peers::folder()?;
        if !peers::complete(&peers) {
            peers::unpack(&peers)?;
        }
        let program = peers.join("usr/bin/mender");
        let version = workspace::capture(Command::new(&program).arg("--version"))?;
        let version = String::from_utf8_lossy(&version.stdout).split_whitespace().next().map(str::to_owned);
        let name = format!("mender {}", version.ok_or("mender does not say its version")?);
        let options = ["--auto-accept", "--quiet"];
        let server = UpdateServer::start(&self.server, &self.directory.join("server"), &options)?;
        let network = Relay::start(server.address()?)?;
        let directory = self.directory.join("mender");
        for folder in ["data", "factory", "share/identity", "share/inventory"] {
            workspace::fresh_directory(&directory.join(folder))?;
        }
        let write = |path: &str, content: String| workspace::write(&directory.join(path), content);
        write("data/device_type", format!("device_type={DEVICE_TYPE}\n"))?;
        write("factory/artifact_info", "artifact_name=release-0\n".into())?;
        write("share/identity/mender-device-identity", "#!/bin/sh\necho mac=02:00:00:00:00:02\n".into())?;
        let config = json!({
            "ServerURL": format!("http://{}", network.address()),
            "UpdatePollIntervalSeconds": NEVER_SECONDS,
            "InventoryPollIntervalSeconds": NEVER_SECONDS,
            "RetryPollIntervalSeconds": 1,
            "DBus": { "Enabled": false },
        });
        write("mender.conf", format!("{config:#}\n"))?;
        let identity = directory.join("share/identity/mender-device-identity");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&identity, executable)
            .map_err(|error| format!("{}: {error}", identity.display()))?;
        let (factory, share) = (directory.join("factory"), directory.join("share"));
        let over = [(&*factory, "/etc/mender"), (&*share, "/usr/share/mender")];
        let namespace = Namespace::new(&directory, &over)
            .map_err(|error| format!("nothing can be mounted where it looks: {error}"))?;
        let mut command = namespace.command(&program);
        command.args(["--no-syslog", "--data"]).arg(directory.join("data"));
        command.arg("--config").arg(directory.join("mender.conf"));
        command.arg("--fallback-config").arg(directory.join("none.conf")).arg("daemon");
        let daemon = Process::start(&mut command, &self.directory.join("mender.log"))?;
        // Key, authentication, inventory and the first question, with seconds between them.
        network.wait_for_answer(10 * QUIET, PATIENCE)?;
        measure_polls(&name, "HTTP", &daemon, &network, polls)
    }

    /// The peak of a whole installation, until the machine is told to restart.
    fn installation(
        &self,
        tool: &ArtifactTool,
        image: &Path,
        image_bytes: u64,
        compression: &str,
    ) -> Outcome<String> {
        let artifact = self.directory.join("artifact.mender");
        tool.write_rootfs_image("bench-1", image, compression, &self.keys, &artifact)?;
        let bytes = std::fs::metadata(&artifact).map_err(|error| format!("the artifact: {error}"))?.len();
        let running = self.start("http", &[], None, image_bytes / 4 * 5)?;
        running.server.ask("upload", &[&artifact.display().to_string()])?;
        running.server.ask("deploy", &["bench", "bench-1"])?;
        let ended = AtomicBool::new(false);
        let (installed, peaks) = std::thread::scope(|scope| {
            let watcher = scope.spawn({
                let (id, ended) = (running.daemon.id(), &ended);
                move || watch(id, ended)
            });
            let installed = running
                .daemon
                .signal("USR1")
                .and_then(|()| until(&running.daemon, |line| *line == Line::Output(RESTART.to_owned())));
            ended.store(true, Ordering::Relaxed);
            (installed, watcher.join().unwrap_or_default())
        });
        installed?;
        Ok(format!(
            "| {} | {:.1} MiB | {:.1} MiB | {:.1} MiB |\n",
            if compression == "lzma" { "xz" } else { compression },
            bytes as f64 / MIB as f64,
            peaks.0 / 1024.0,
            peaks.1 / 1024.0,
        ))
    }
}

fn until(daemon: &Process, wanted: impl Fn(&Line) -> bool) -> Outcome {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if daemon.next_line(PATIENCE)?.is_some_and(|line| wanted(&line)) {
            return Ok(());
        }
    }
    Err("the daemon does not say what is waited for".into())
}

fn measure_polls(
    client: &str,
    server: &str,
    daemon: &Process,
    network: &Relay,
    polls: u64,
) -> Outcome<String> {
    // Two questions that are not counted: the inventory is through, and a session of TLS is known.
    for _ in 0..2 {
        ask(daemon, network, "USR1")?;
    }
    let before = cpu::seconds(daemon.id())?;
    let mut sum = Counts::default();
    for _ in 0..polls {
        let counts = ask(daemon, network, "USR1")?;
        sum.connections += counts.connections;
        sum.from_device += counts.from_device;
        sum.to_device += counts.to_device;
    }
    let cpu = cpu::seconds(daemon.id())? - before;
    let memory = Memory::of(daemon.id())?;
    let each = |sum: u64| sum as f64 / polls as f64;
    Ok(format!(
        "| {client} | {server} | {:.2} MiB | {:.2} MiB | {:.2} MiB | {:.2} ms | {:.0} B | {:.0} B | {:.1} |\n",
        memory.resident / 1024.0,
        memory.anonymous / 1024.0,
        memory.file / 1024.0,
        cpu * 1000.0 / polls as f64,
        each(sum.from_device),
        each(sum.to_device),
        each(sum.connections),
    ))
}

/// One question and everything that belongs to it.
fn ask(daemon: &Process, network: &Relay, signal: &str) -> Outcome<Counts> {
    network.take_counts();
    daemon.signal(signal)?;
    network.wait_for_answer(QUIET, PATIENCE)?;
    Ok(network.take_counts())
}
