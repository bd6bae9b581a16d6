//! `cargo xtask bench delta`: how large deltas become, and what making and applying them costs, against the programs that others
//! make them with. The pairs of images are made of packages of Debian in two versions; see [`pair`].

mod pair;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use client_core::slot::Slot;
use serde_json::Value;

use crate::artifact_tool::{ArtifactTool, KeyPair};
use crate::virtual_device::VirtualDevice;
use xtask::options::Options;
use xtask::shipped::{self, FOR_HOSTS, Tree, Way};
use xtask::{Outcome, workspace};

use self::pair::{Pair, Recipe};
use super::MIB;
use super::install::{HASH, Sample, measure};

/// The wrapper of hdiffpatch, and the version that was measured.
const HDIFFPATCH: &str = "hdiffpatch==2.6.0";
/// Seconds of processor time after which `bsdiff` is stopped: it sorts the whole image at once.
const BSDIFF_SECONDS: u32 = 200;
/// Larger images are not given to it: it needs 17 times as much memory.
const BSDIFF_BYTES: u64 = 256 * MIB;

/// Measures and prints the tables.
pub fn run(arguments: &[String]) -> Outcome {
    let mut options = Options::new(arguments);
    let only = options.value("--pair")?;
    let client = options.value("--client")?;
    let tool = options.value("--tool")?;
    let write = options.flag("--write");
    options.finish()?;
    let recipes: Vec<&Recipe> =
        pair::RECIPES.iter().filter(|recipe| only.is_none_or(|only| only == recipe.name)).collect();
    if recipes.is_empty() {
        return Err("--pair is security or release".into());
    }
    let client = match client {
        Some(path) => workspace::root().join(path),
        None => shipped::client()?,
    };
    let tool = ArtifactTool::at(match tool {
        Some(path) => workspace::root().join(path),
        None => shipped::build(FOR_HOSTS[0], &Way::best()?.0, &[], &Tree::own()?)?,
    });
    let folder = workspace::target_directory()?.join("bench-delta");
    workspace::fresh_directory(&folder)?;
    let python = python()?;
    let keys = tool.make_keys(folder.join("signing-key"))?;
    for recipe in recipes {
        println!("making the pair {} ...", recipe.name);
        let pair = pair::make(recipe)?;
        let bench = Bench {
            folder: &folder,
            tool: &tool,
            keys: &keys,
            client: &client,
            python: &python,
            pair: &pair,
        };
        let table = bench.table()?;
        println!("\n{table}");
        if write {
            super::write_section(&format!("delta-{}", recipe.name), &table)?;
        }
    }
    workspace::fresh_directory(&folder)
}

/// An environment with the wrapper of hdiffpatch, kept until the build output is removed.
fn python() -> Outcome<PathBuf> {
    let environment = workspace::target_directory()?.join("delta-peers");
    let python = environment.join("bin/python");
    let has = |python: &Path| {
        let mut import = Command::new(python);
        import.args(["-c", "import hdiffpatch"]).stderr(Stdio::null()).stdin(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    };
    if !has(&python) {
        workspace::run(Command::new("python3").args(["-m", "venv"]).arg(&environment).stdin(Stdio::null()))?;
        let mut install = Command::new(environment.join("bin/pip"));
        install.args(["install", "--quiet", "--disable-pip-version-check", HDIFFPATCH]);
        workspace::run(install.stdin(Stdio::null()))?;
    }
    Ok(python)
}

/// One way to get from one image to the other.
struct Row {
    what: String,
    bytes: u64,
    create: Option<Sample>,
    apply: Option<Sample>,
}

struct Bench<'a> {
    folder: &'a Path,
    tool: &'a ArtifactTool,
    keys: &'a KeyPair,
    client: &'a Path,
    python: &'a Path,
    pair: &'a Pair,
}

const DIFF: &str = "import sys, hdiffpatch\n\
    old, new = (open(path, 'rb').read() for path in sys.argv[1:3])\n\
    open(sys.argv[3], 'wb').write(hdiffpatch.diff(old, new, compression=sys.argv[4]))\n";
const PATCH: &str = "import sys, hdiffpatch\n\
    old, diff = (open(path, 'rb').read() for path in sys.argv[1:3])\n\
    open(sys.argv[3], 'wb').write(hdiffpatch.apply(old, diff))\n";

impl Bench<'_> {
    fn table(&self) -> Outcome<String> {
        let ours = [self.ours("zstd_best")?, self.ours("lzma")?];
        let hdiffpatch = [self.hdiffpatch("lzma2")?, self.hdiffpatch("zstd")?];
        let xdelta3 = self.xdelta3()?;
        let patch_from = self.patch_from()?;
        let bsdiff = self.bsdiff()?;
        let full = [self.full("zstd", &["-q", "-19", "-T1"])?, self.full("xz", &["-9", "-T1"])?];
        let plain = self.plain()?;
        let mut text = format!(
            "{}, {}. CPU is user and system time of one run each, memory the most that was resident. Ours is made with \
             `--jobs 1` and without applying it; it is applied by `rust-ota install`, which proves the signature, writes a slot \
             and reads it back, while the others write a file. `dd` with SHA-256 of the new image in one pass: {:.2} s.\n\n",
            self.pair.described,
            super::machine()?,
            plain.cpu,
        );
        text += "| | bytes | to hdiffpatch | to xdelta3 | of full zstd | create CPU | memory | apply CPU | memory |\n\
                 | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        let rows = ours.iter().chain(&hdiffpatch).chain([&xdelta3, &patch_from]).chain(&bsdiff).chain(&full);
        for row in rows {
            text += &self.row(row, hdiffpatch[0].bytes, xdelta3.bytes, full[0].bytes);
        }
        if bsdiff.is_none() {
            text += &format!(
                "| bsdiff 4 | not in {BSDIFF_SECONDS} s of CPU, and not tried above {} | | | | | | | |\n",
                mib(BSDIFF_BYTES)
            );
        }
        text += &self.aims(&ours, &hdiffpatch[0], &xdelta3, &full[0], &plain);
        Ok(text)
    }

    fn row(&self, row: &Row, hdiffpatch: u64, xdelta3: u64, full: u64) -> String {
        let cost = |sample: &Option<Sample>| match sample {
            Some(sample) => format!("{:.2} s | {:.0} MiB", sample.cpu, sample.peak_kib / 1024.0),
            None => " | ".to_owned(),
        };
        let ratio = |of: u64| row.bytes as f64 / of as f64;
        format!(
            "| {} | {} | {:.3} | {:.3} | {:.1} % | {} | {} |\n",
            row.what,
            row.bytes,
            ratio(hdiffpatch),
            ratio(xdelta3),
            100.0 * ratio(full),
            cost(&row.create),
            cost(&row.apply),
        )
    }

    /// What was aimed at, and what came out.
    fn aims(&self, ours: &[Row; 2], hdiffpatch: &Row, xdelta3: &Row, full: &Row, plain: &Sample) -> String {
        let cpu = |sample: &Option<Sample>| sample.as_ref().map_or(f64::NAN, |sample| sample.cpu);
        let [zstd, xz] = ours;
        let to = |a: &Row, b: &Row| a.bytes as f64 / b.bytes as f64;
        let lines = [
            ("zstd, bytes to hdiffpatch (lzma2)", 1.05, to(zstd, hdiffpatch)),
            ("zstd, bytes to xdelta3 -9", 0.70, to(zstd, xdelta3)),
            ("xz, bytes to hdiffpatch (lzma2)", 1.00, to(xz, hdiffpatch)),
            ("xz, bytes to xdelta3 -9", 0.63, to(xz, xdelta3)),
            ("zstd, share of the full zstd image", self.pair.recipe.share, to(zstd, full)),
            ("CPU of making it (zstd) to hdiffpatch", 1.00, cpu(&zstd.create) / cpu(&hdiffpatch.create)),
            ("CPU of making it (xz) to hdiffpatch", 1.00, cpu(&xz.create) / cpu(&hdiffpatch.create)),
            ("CPU of installing it (zstd) to `dd` and SHA-256", 1.00, cpu(&zstd.apply) / plain.cpu),
        ];
        let mut text = "\n| aim | at most | measured |\n| --- | --- | --- |\n".to_owned();
        for (what, most, measured) in lines {
            text += &format!("| {what} | {most:.2} | {measured:.3} |\n");
        }
        text
    }

    fn ours(&self, compression: &str) -> Outcome<Row> {
        println!("ours, {compression} ...");
        let artifact = self.folder.join("ours.mender");
        let mut create = self.tool.delta("delta-1", &self.pair.old, &self.pair.new, self.keys, &artifact);
        create.args(["--compression", compression, "--jobs", "1", "--no-verify"]);
        let (create, said) = measure(&mut create)?;
        let said: Value = serde_json::from_slice(&said).map_err(|error| format!("--json: {error}"))?;
        let bytes = said["delta"]["bytes"].as_u64().ok_or("--json has no bytes")?;
        let apply = self.install(&artifact)?;
        let what = if compression == "lzma" { "xz" } else { "zstd" };
        Ok(Row { what: format!("**ours, {what}**"), bytes, create: Some(create), apply: Some(apply) })
    }

    /// On a device that runs the old image.
    fn install(&self, artifact: &Path) -> Outcome<Sample> {
        let bytes = length(&self.pair.new)?.max(length(&self.pair.old)?);
        let device = VirtualDevice::create(&self.folder.join("device"), bytes, &self.keys.public)?;
        copy(&self.pair.old, &device.slot(Slot::A))?;
        let checksum = workspace::capture(Command::new("sha256sum").arg(&self.pair.old))?;
        let checksum = String::from_utf8_lossy(&checksum.stdout).split_whitespace().next().map(str::to_owned);
        let mut bootstrap = self.tool.bootstrap("delta-0", &checksum.unwrap_or_default(), self.keys);
        let first = self.folder.join("bootstrap.mender");
        workspace::run(bootstrap.arg("-o").arg(&first))?;
        workspace::run_quietly(
            device.client(self.client).args(["--log-level", "error", "install"]).arg(&first),
        )?;
        let mut command = device.client(self.client);
        command.args(["--log-level", "error", "install"]).arg(artifact).stderr(Stdio::inherit());
        let (sample, _) = measure(&mut command)?;
        same(&device.slot(Slot::B), &self.pair.new)?;
        Ok(sample)
    }

    fn hdiffpatch(&self, compression: &str) -> Outcome<Row> {
        println!("hdiffpatch, {compression} ...");
        let (diff, result) = (self.folder.join("hdiffpatch"), self.folder.join("result"));
        let mut create = Command::new(self.python);
        create.args(["-c", DIFF]).args([&self.pair.old, &self.pair.new, &diff]).arg(compression);
        let (create, _) = measure(&mut create)?;
        let (apply, _) =
            measure(Command::new(self.python).args(["-c", PATCH]).args([&self.pair.old, &diff, &result]))?;
        same(&result, &self.pair.new)?;
        self.measured(format!("hdiffpatch 2.6, {compression}"), &diff, create, apply)
    }

    fn xdelta3(&self) -> Outcome<Row> {
        println!("xdelta3 ...");
        let (diff, result) = (self.folder.join("xdelta3"), self.folder.join("result"));
        // A window as large as the image: else it does not find what moved far.
        let window = length(&self.pair.old)?.next_power_of_two().to_string();
        let mut create = Command::new("xdelta3");
        create.args(["-9", "-S", "lzma", "-B", &window, "-f", "-e", "-s"]);
        let (create, _) = measure(create.args([&self.pair.old, &self.pair.new, &diff]))?;
        let mut apply = Command::new("xdelta3");
        apply.args(["-B", &window, "-f", "-d", "-s"]);
        let (apply, _) = measure(apply.args([&self.pair.old, &diff, &result]))?;
        same(&result, &self.pair.new)?;
        self.measured("xdelta3 -9 -S lzma".into(), &diff, create, apply)
    }

    fn patch_from(&self) -> Outcome<Row> {
        println!("zstd --patch-from ...");
        let (diff, result) = (self.folder.join("patch"), self.folder.join("result"));
        let from = format!("--patch-from={}", self.pair.old.display());
        let mut create = Command::new("zstd");
        create.args(["-q", "-f", "-19", "--long=31", "-T1", &from]).arg(&self.pair.new).arg("-o").arg(&diff);
        let (create, _) = measure(&mut create)?;
        let mut apply = Command::new("zstd");
        apply.args(["-q", "-f", "-d", "--long=31", &from]).arg(&diff).arg("-o").arg(&result);
        let (apply, _) = measure(&mut apply)?;
        same(&result, &self.pair.new)?;
        self.measured("zstd -19 --long=31 --patch-from".into(), &diff, create, apply)
    }

    /// `None` where it did not end.
    fn bsdiff(&self) -> Outcome<Option<Row>> {
        if length(&self.pair.old)? > BSDIFF_BYTES {
            return Ok(None);
        }
        println!("bsdiff, for {BSDIFF_SECONDS} s at most ...");
        let (diff, result) = (self.folder.join("bsdiff"), self.folder.join("result"));
        let limited = format!("ulimit -t {BSDIFF_SECONDS}; exec bsdiff \"$0\" \"$1\" \"$2\"");
        let mut create = Command::new("sh");
        create.arg("-c").arg(limited).args([&self.pair.old, &self.pair.new, &diff]).stderr(Stdio::null());
        let Ok((create, _)) = measure(&mut create) else { return Ok(None) };
        let (apply, _) = measure(Command::new("bspatch").args([&self.pair.old, &result, &diff]))?;
        same(&result, &self.pair.new)?;
        self.measured("bsdiff 4".into(), &diff, create, apply).map(Some)
    }

    /// The whole image compressed.
    fn full(&self, program: &str, options: &[&str]) -> Outcome<Row> {
        println!("{program} of the whole image ...");
        let file = self.folder.join("full");
        let out =
            fs::File::create(&file).map_err(|error| format!("cannot make {}: {error}", file.display()))?;
        let mut create = Command::new("sh");
        // `measure` takes the standard output.
        let script = format!("exec {program} {} -c \"$0\" > \"$1\"", options.join(" "));
        drop(out);
        let (create, _) = measure(create.arg("-c").arg(script).args([&self.pair.new, &file]))?;
        let mut apply = Command::new("sh");
        let script = format!("exec {program} -dc \"$0\" > \"$1\"");
        let (apply, _) = measure(apply.arg("-c").arg(script).args([&file, &self.folder.join("result")]))?;
        let what = options.iter().find(|option| option.ends_with(|last: char| last.is_ascii_digit()));
        self.measured(format!("full image, {program} {}", what.unwrap_or(&"")), &file, create, apply)
    }

    fn plain(&self) -> Outcome<Sample> {
        let mut command = Command::new("sh");
        let script = format!("dd if=\"$0\" of=\"$1\" bs=1M conv=fsync status=none && {HASH} \"$1\"");
        let (sample, _) =
            measure(command.arg("-c").arg(script).args([&self.pair.new, &self.folder.join("result")]))?;
        Ok(sample)
    }

    fn measured(&self, what: String, file: &Path, create: Sample, apply: Sample) -> Outcome<Row> {
        Ok(Row { what, bytes: length(file)?, create: Some(create), apply: Some(apply) })
    }
}

fn length(path: &Path) -> Outcome<u64> {
    let metadata =
        fs::metadata(path).map_err(|error| format!("cannot look at {}: {error}", path.display()))?;
    Ok(metadata.len())
}

/// The content of `from` into `to`, which keeps its length.
fn copy(from: &Path, to: &Path) -> Outcome {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", from.display())).arg(format!("of={}", to.display()));
    workspace::run(command.args(["bs=1M", "conv=notrunc", "status=none"]))
}

/// What was made has to be the new image.
fn same(made: &Path, new: &Path) -> Outcome {
    workspace::run(Command::new("cmp").arg("-n").arg(length(new)?.to_string()).arg(made).arg(new))
        .map_err(|_| format!("{} is not the new image", made.display()))
}

/// Bytes as people read them.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}
