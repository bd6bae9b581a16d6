//! `cargo xtask bench install`: installation of a large image against the plainest thing that does the same work, a pipe of
//! decoder, SHA-256 and `dd`, in one run, taking turns.
//!
//! Both read the same compressed bytes and write the same file, which holds other data before each turn. The pipe
//! checks no signature and reads nothing back. With `--peers` other clients take turns too, see [`super::peers`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use client_core::slot::Slot;
use serde_json::Value;

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::virtual_device::VirtualDevice;
use xtask::options::Options;
use xtask::{Outcome, cpu, shipped, workspace};

use crate::image;

use super::MIB;
use super::memory::{watch, watch_tree};
use super::peers::Peers;

const SECTION: &str = "bench";
const PEERS_SECTION: &str = "bench-peers";

/// A compression: its name to the host tool, the suffix of its payload, and its bare decoder.
pub(super) struct Compression {
    pub(super) name: &'static str,
    suffix: &'static str,
    decoder: &'static str,
}

impl Compression {
    /// For a person.
    pub(super) fn shown(&self) -> &'static str {
        if self.name == "lzma" { "xz" } else { self.name }
    }
}

pub(super) const COMPRESSIONS: [Compression; 4] = [
    Compression { name: "none", suffix: "", decoder: "cat" },
    Compression { name: "gzip", suffix: ".gz", decoder: "gzip -dc" },
    Compression { name: "lzma", suffix: ".xz", decoder: "xz -dc" },
    Compression { name: "zstd", suffix: ".zst", decoder: "zstd -dcq" },
];

/// Uses the processor's instructions for it, as the client does; `sha256sum` often does not.
pub(super) const HASH: &str = "openssl dgst -sha256";

/// Measures and prints a table.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let runs = options.count("--runs", 3)?;
    let image_mib = options.count("--mib", 256)?;
    let client = options.value("--client")?;
    let baseline = options.value("--baseline")?.map(|path| workspace::root().join(path));
    let with_peers = options.flag("--peers");
    let without_xz = options.flag("--without-xz");
    let write = options.flag("--write");
    options.finish()?;

    println!("building the programs, an image and its artifacts ...");
    let client = match client {
        Some(path) => workspace::root().join(path),
        None => shipped::client()?,
    };
    let bench = Bench::prepare(client, image_mib * MIB, without_xz)?;
    let mut peers = with_peers.then(|| Peers::prepare(&bench)).transpose()?;
    let mut results = [const { (Vec::new(), Vec::new(), Vec::new()) }; COMPRESSIONS.len()];
    for run in 1..=runs {
        let measured = COMPRESSIONS.iter().zip(&mut results).filter(|(of, _)| bench.measures(of));
        for (compression, (pipe, install, before)) in measured {
            println!("run {run} of {runs}: {}", compression.name);
            pipe.push(bench.pipe(compression)?);
            install.push(bench.install(&bench.client, compression)?);
            if let Some(baseline) = &baseline {
                before.push(bench.install(baseline, compression)?);
            }
            if let Some(peers) = &mut peers {
                peers.turn(&bench, compression);
            }
        }
    }
    let mut table = format!("{}\n{HEAD}", bench.conditions(runs)?);
    let measured = || COMPRESSIONS.iter().zip(&results).filter(|(of, _)| bench.measures(of));
    for (compression, (pipe, install, _)) in measured() {
        table += &row(compression, bench.payload_bytes(compression)?, pipe, install);
    }
    if baseline.is_some() {
        table += &format!("\nAgainst an earlier build, in the same turns:\n\n{BASELINE_HEAD}");
        for (compression, (_, install, before)) in measured() {
            table += &baseline_row(compression, install, before);
        }
    }
    println!("\n{table}");
    if write {
        super::write_section(SECTION, &table)?;
    }
    if let Some(peers) = &peers {
        let results = COMPRESSIONS.iter().zip(&results);
        let rows = peers.table(results.map(|(of, (pipe, install, _))| (of, &pipe[..], &install[..])));
        let table = format!("{}\n{rows}", bench.conditions(runs)?);
        println!("{table}");
        if write {
            super::write_section(PEERS_SECTION, &table)?;
        }
    }
    workspace::fresh_directory(&bench.directory)
}

const HEAD: &str = "\
| compression | payload | pipe | install | of it read-back | without read-back, to pipe | CPU pipe | CPU install | to pipe | peak memory | of it anonymous |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

const BASELINE_HEAD: &str = "\
| compression | CPU earlier | CPU now | ratio | wall, ratio | peak memory earlier | peak memory now |
| --- | --- | --- | --- | --- | --- | --- |
";

/// The median of the ratios of the turns: what loads the machine meanwhile meets both sides of each.
pub(super) fn ratio(samples: &[Sample], to: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let mut ratios: Vec<f64> = samples.iter().zip(to).map(|(this, that)| value(this) / value(that)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

fn baseline_row(compression: &Compression, install: &[Sample], before: &[Sample]) -> String {
    format!(
        "| {} | {:.2} s | {:.2} s | {:.2} | {:.2} | {:.1} MiB | {:.1} MiB |\n",
        compression.shown(),
        median(before, |sample| sample.cpu),
        median(install, |sample| sample.cpu),
        ratio(install, before, |sample| sample.cpu),
        ratio(install, before, |sample| sample.wall),
        median(before, |sample| sample.peak_kib) / 1024.0,
        median(install, |sample| sample.peak_kib) / 1024.0,
    )
}

fn row(compression: &Compression, payload_bytes: u64, pipe: &[Sample], install: &[Sample]) -> String {
    let pipe_wall = median(pipe, |sample| sample.wall);
    let pipe_cpu = median(pipe, |sample| sample.cpu);
    let cpu = median(install, |sample| sample.cpu);
    let mib = |kib: f64| kib / 1024.0;
    format!(
        "| {} | {:.1} MiB | {pipe_wall:.2} s | {:.2} s | {:.2} s | {:.2} | {pipe_cpu:.2} s | {cpu:.2} s | {:.2} | {:.1} MiB | {:.1} MiB |\n",
        compression.shown(),
        payload_bytes as f64 / MIB as f64,
        median(install, |sample| sample.wall),
        median(install, |sample| sample.verify),
        median(install, |sample| sample.wall - sample.verify) / pipe_wall,
        cpu / pipe_cpu,
        mib(median(install, |sample| sample.peak_kib)),
        mib(median(install, |sample| sample.peak_anonymous_kib)),
    )
}

pub(super) fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One turn.
#[derive(Debug, Default, Clone)]
pub(super) struct Sample {
    /// Seconds from start to end.
    pub(super) wall: f64,
    /// Seconds of processor time, of all processes.
    pub(super) cpu: f64,
    /// Seconds of `wall` that went into reading the slot back.
    verify: f64,
    /// Largest resident memory of the started process.
    pub(super) peak_kib: f64,
    /// Largest part of it that is not a mapped file.
    pub(super) peak_anonymous_kib: f64,
    /// Largest sum of the resident memory of all processes.
    pub(super) tree_kib: f64,
}

pub(super) struct Bench {
    pub(super) directory: PathBuf,
    client: PathBuf,
    pub(super) keys: KeyPair,
    image_bytes: u64,
    /// Bytes of the image that are files of this machine.
    file_bytes: usize,
    without_xz: bool,
}

impl Bench {
    fn prepare(client: PathBuf, image_bytes: u64, without_xz: bool) -> Outcome<Bench> {
        let tool = ArtifactTool::beside()?;
        let directory = workspace::target_directory()?.join("bench");
        workspace::fresh_directory(&directory)?;
        let keys = tool.make_keys(directory.join("signing-key"))?;
        let file_bytes = image::write_realistic(&directory.join("image"), image_bytes as usize)?;
        let bench = Bench { directory, client, keys, image_bytes, file_bytes, without_xz };
        let image = bench.image();
        for compression in COMPRESSIONS.iter().filter(|of| bench.measures(of)) {
            let artifact = bench.artifact(compression);
            tool.write_rootfs_image("bench-1", &image, compression.name, &bench.keys, &artifact)?;
            let payload = bench.payload(compression);
            let file = File::create(&payload)
                .map_err(|error| format!("cannot make {}: {error}", payload.display()))?;
            let member = format!("data/0000.tar{}", compression.suffix);
            workspace::run(Command::new("tar").arg("-xOf").arg(artifact).arg(member).stdout(file))?;
        }
        Ok(bench)
    }

    /// Whether this one is measured: packing xz takes longer than all the rest.
    pub(super) fn measures(&self, compression: &Compression) -> bool {
        !(self.without_xz && compression.name == "lzma")
    }

    /// What is installed.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("image")
    }

    pub(super) fn artifact(&self, compression: &Compression) -> PathBuf {
        self.directory.join(format!("{}.mender", compression.name))
    }

    /// The compressed bytes in the artifact, as a file for the pipe.
    fn payload(&self, compression: &Compression) -> PathBuf {
        self.directory.join(format!("payload.tar{}", compression.suffix))
    }

    fn payload_bytes(&self, compression: &Compression) -> Outcome<u64> {
        let path = self.payload(compression);
        let metadata =
            fs::metadata(&path).map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
        Ok(metadata.len())
    }

    /// A device whose other slot is full of other data, all of it on the disk.
    fn fresh_device(&self) -> Outcome<VirtualDevice> {
        let slot_bytes = self.image_bytes / 4 * 5;
        let device = VirtualDevice::create(&self.directory.join("device"), slot_bytes, &self.keys.public)?;
        self.fill_slot(&device.slot(Slot::B))?;
        Ok(device)
    }

    /// Fills a slot with other data, all of it on the disk.
    pub(super) fn fill_slot(&self, path: &Path) -> Outcome {
        let failed = |error: std::io::Error| format!("cannot fill {}: {error}", path.display());
        let mut file = File::options().write(true).create(true).truncate(true).open(path).map_err(failed)?;
        let content = std::io::Read::take(std::io::repeat(0xA5), self.image_bytes / 4 * 5);
        std::io::copy(&mut { content }, &mut file).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    /// Whether what lies in the slot is the image.
    pub(super) fn check_slot(&self, path: &Path) -> Outcome {
        let mut command = Command::new("cmp");
        command.arg("-n").arg(self.image_bytes.to_string()).arg(self.image()).arg(path);
        workspace::run_quietly(&mut command)
    }

    fn pipe(&self, compression: &Compression) -> Outcome<Sample> {
        let device = self.fresh_device()?;
        let script = format!(
            "{HASH} < sum > /dev/null & {} \"$1\" | tee sum | \
             dd of=\"$2\" bs=1M iflag=fullblock conv=notrunc,fsync status=none && wait",
            compression.decoder
        );
        let sum = self.directory.join("sum");
        if !sum.exists() {
            workspace::run(Command::new("mkfifo").arg(&sum))?;
        }
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg("sh").arg(self.payload(compression)).arg(device.slot(Slot::B));
        let (sample, _) = measure(command.current_dir(&self.directory))?;
        Ok(sample)
    }

    fn install(&self, client: &Path, compression: &Compression) -> Outcome<Sample> {
        let device = self.fresh_device()?;
        let mut command = device.client(client);
        command.args(["--log-level", "error", "--json", "install"]).arg(self.artifact(compression));
        let (sample, stdout) = measure(command.stderr(Stdio::null()))?;
        self.check_slot(&device.slot(Slot::B))?;
        let result: Value = serde_json::from_slice(&stdout).map_err(|error| format!("--json: {error}"))?;
        let verify = result["image"]["verify_seconds"].as_f64().ok_or("--json has no verify_seconds")?;
        Ok(Sample { verify, ..sample })
    }

    /// What was measured, on what.
    fn conditions(&self, runs: u64) -> Outcome<String> {
        Ok(format!(
            "An image of {} MiB ({} MiB files of `/usr` in the order of their names, the rest pseudo-random data and \
             zeros), medians of {runs} runs, {}.\n",
            self.image_bytes / MIB,
            self.file_bytes as u64 / MIB,
            super::machine()?,
        ))
    }
}

/// Runs `command` to its good end. Returns also what it printed.
pub(super) fn measure(command: &mut Command) -> Outcome<(Sample, Vec<u8>)> {
    let shown = workspace::shown(command);
    let failed = |error: std::io::Error| format!("cannot run {shown}: {error}");
    let cpu_before = cpu::children_seconds()?;
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let ended = AtomicBool::new(false);
    let (output, wall, peaks, tree_kib) = std::thread::scope(|scope| {
        let (id, ended) = (child.id(), &ended);
        let watcher = scope.spawn(move || watch(id, ended));
        let tree = scope.spawn(move || watch_tree(id, ended));
        let output = child.wait_with_output();
        let wall = start.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        (output, wall, watcher.join().unwrap_or_default(), tree.join().unwrap_or_default())
    });
    let output = output.map_err(failed)?;
    if !output.status.success() {
        return Err(format!("{shown} ended with {}", output.status));
    }
    let cpu = cpu::children_seconds()? - cpu_before;
    Ok((
        Sample { wall, cpu, peak_kib: peaks.0, peak_anonymous_kib: peaks.1, tree_kib, verify: 0.0 },
        output.stdout,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let samples = [3.0, 1.0, 2.0].map(|wall| Sample { wall, ..Sample::default() });
        assert_eq!(median(&samples, |sample| sample.wall), 2.0);
    }

    #[test]
    fn a_child_is_measured() {
        let (sample, stdout) = measure(Command::new("echo").arg("hello")).unwrap();
        assert_eq!(stdout, b"hello\n");
        assert!(sample.wall > 0.0);
    }
}
