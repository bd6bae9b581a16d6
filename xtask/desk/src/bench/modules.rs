//! `cargo xtask bench modules`: a large file streamed into an update module, against the plainest thing that does the same
//! work: `cat` into a FIFO with a SHA-256 beside it, in one run, taking turns.
//!
//! Both read the same bytes from the page cache, hash them once, and write them to a FIFO that a shell's `cat` empties.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::virtual_device::VirtualDevice;
use xtask::options::Options;
use xtask::{Outcome, shipped, workspace};

use crate::image;

use super::MIB;
use super::install::{HASH, Sample, measure, median};

const SECTION: &str = "bench-modules";
/// Enough for the environment of the virtual device; no image is written.
const SLOT_BYTES: u64 = MIB;
/// The type of the payload, and the name of the module.
const MODULE: &str = "sink";
/// A module as the protocol describes it, which keeps nothing.
const SCRIPT: &str = "#!/bin/sh
case \"$1\" in
Download) while f=$(cat stream-next) && test -n \"$f\"; do cat \"$f\" > /dev/null; done ;;
esac
";
/// The same work with the tools of a shell.
const PIPE: &str = "cat fifo > /dev/null & tee fifo < \"$1\" | HASH > /dev/null && wait";

/// Measures and prints a table.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let runs = options.count("--runs", 5)?;
    let file_mib = options.count("--mib", 256)?;
    let client = options.value("--client")?;
    let write = options.flag("--write");
    options.finish()?;

    println!("building the programs, a file and its artifact ...");
    let client = match client {
        Some(path) => workspace::root().join(path),
        None => shipped::client()?,
    };
    let bench = Bench::prepare(client, file_mib * MIB)?;
    let (mut pipe, mut module) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        println!("run {run} of {runs}");
        pipe.push(bench.pipe()?);
        module.push(bench.module()?);
    }
    let table = bench.table(runs, &pipe, &module)?;
    println!("\n{table}");
    if write {
        super::write_section(SECTION, &table)?;
    }
    workspace::fresh_directory(&bench.directory)
}

struct Bench {
    directory: PathBuf,
    client: PathBuf,
    keys: KeyPair,
    file_bytes: u64,
}

impl Bench {
    fn prepare(client: PathBuf, file_bytes: u64) -> Outcome<Bench> {
        let tool = ArtifactTool::beside()?;
        let directory = workspace::target_directory()?.join("bench");
        workspace::fresh_directory(&directory)?;
        let keys = tool.make_keys(directory.join("signing-key"))?;
        let bench = Bench { directory, client, keys, file_bytes };
        image::write_realistic(&bench.file(), file_bytes as usize)?;
        tool.write_module_image(MODULE, "bench-1", &bench.file(), &bench.keys, &bench.artifact())?;
        workspace::run(Command::new("mkfifo").arg(bench.directory.join("fifo")))?;
        Ok(bench)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("file")
    }

    fn artifact(&self) -> PathBuf {
        self.directory.join("file.mender")
    }

    fn pipe(&self) -> Outcome<Sample> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(PIPE.replace("HASH", HASH)).arg("sh").arg(self.file());
        Ok(measure(command.current_dir(&self.directory))?.0)
    }

    fn module(&self) -> Outcome<Sample> {
        let device = VirtualDevice::create(&self.directory.join("device"), SLOT_BYTES, &self.keys.public)?;
        let modules = self.directory.join("device/modules/v3");
        workspace::fresh_directory(&modules)?;
        let module = modules.join(MODULE);
        workspace::write(&module, SCRIPT)?;
        fs::set_permissions(&module, fs::Permissions::from_mode(0o755))
            .map_err(|error| format!("cannot make {} a program: {error}", module.display()))?;
        let mut command = device.client(&self.client);
        command.args(["--log-level", "error", "install"]).arg(self.artifact());
        Ok(measure(command.stderr(Stdio::null()))?.0)
    }

    fn table(&self, runs: u64, pipe: &[Sample], module: &[Sample]) -> Outcome<String> {
        let (pipe_wall, wall) = (median(pipe, |sample| sample.wall), median(module, |sample| sample.wall));
        let (pipe_cpu, cpu) = (median(pipe, |sample| sample.cpu), median(module, |sample| sample.cpu));
        let peak = median(module, |sample| sample.peak_anonymous_kib) / 1024.0;
        Ok(format!(
            "One file of {} MiB, not compressed, medians of {runs} runs, {}. The client's time is that of the whole \
             `install`, with the signature and all calls of the module.\n\n\
             | pipe | install | to pipe | CPU pipe | CPU install | anonymous memory |\n\
             | --- | --- | --- | --- | --- | --- |\n\
             | {pipe_wall:.2} s | {wall:.2} s | {:.2} | {pipe_cpu:.2} s | {cpu:.2} s | {peak:.1} MiB |\n",
            self.file_bytes / MIB,
            super::machine()?,
            wall / pipe_wall,
        ))
    }
}
