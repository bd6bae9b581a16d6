//! `cargo xtask bench fleet`: one server and a fleet of up to a million devices, in the three procedures of the white paper of
//! the established server: devices that ask, a person who looks at lists meanwhile, and a deployment to a tenth of them.
//!
//! What asks runs on the same machine, and its work is part of what the processors do. It signs the devices' tokens itself.

mod curves;
mod figures;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::figures::{SECTION, write_curves};
use self::server::{Place, Server};
use xtask::options::Options;
use xtask::{Outcome, workspace};

/// The paper's.
const SIZES: &str = "125000,250000,500000,1000000";
/// Each device asks twice in an hour.
const POLL_SECONDS: f64 = 1800.0;
/// The paper's inventories and polls in a second, for a million devices.
const INVENTORIES_TO_POLLS: f64 = 35.0 / 556.0;
/// All devices come back within that time.
const HERD_SECONDS: u64 = 60;
/// Connections of a herd that keeps them, and of one in which each device has its own: more than the server answers at one
/// time.
const HERD_CONNECTIONS: [&str; 2] = ["128", "1500"];
/// Connections of a deployment to all devices: reports that wait together become one transaction.
const WHOLE_CONNECTIONS: &str = "128";

struct Wanted {
    sizes: Vec<u64>,
    seconds: u64,
    within: u64,
    /// So many devices at most get the parts that take long.
    whole_up_to: u64,
    apart_up_to: u64,
    keep: bool,
    /// What earlier calls have kept is shown, and nothing is measured.
    report: bool,
    json: bool,
    write: bool,
    database: Option<String>,
    program: Option<PathBuf>,
}

/// Measures and prints tables.
pub fn run(arguments: &[String]) -> Outcome {
    let wanted = parse(arguments)?;
    let program = match &wanted.program {
        Some(program) => program.clone(),
        None if wanted.report => PathBuf::new(),
        None => {
            println!("building the server ...");
            workspace::run(workspace::cargo().args(["build", "--release", "--package", "rust-ota-server"]))?;
            workspace::target_directory()?.join("release/rust-ota-server")
        }
    };
    let folder = workspace::target_directory()?.join("bench-fleet");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut runs = Vec::new();
    for devices in &wanted.sizes {
        let kind = if wanted.database.is_some() { "postgres-" } else { "" };
        let kept = folder.join(format!("run-{kind}{devices}.json"));
        if wanted.report {
            let run = serde_json::from_str(&workspace::read(&kept)?);
            runs.push(run.map_err(|error| format!("{}: {error}", kept.display()))?);
            continue;
        }
        let seeded = seed(&program, &folder, *devices, &wanted)?;
        let run = match &wanted.database {
            None => one_process(&program, &folder, *devices, seeded, &wanted)?,
            Some(database) => two_processes(&program, &folder, *devices, database, &wanted)?,
        };
        match wanted.keep {
            true => workspace::write(&kept, run.to_string())?,
            false => workspace::fresh_directory(&folder)?,
        }
        runs.push(run);
    }
    let result = json!({ "machine": super::machine()?, "runs": runs });
    if wanted.json {
        println!("{result}");
    }
    let (section, table) = match wanted.database {
        None => (SECTION, figures::tables(&result)),
        Some(_) => (figures::POSTGRES_SECTION, figures::two_processes(&result)),
    };
    println!("\n{table}");
    if wanted.write {
        super::write_section(section, &table)?;
        if wanted.database.is_none() {
            write_curves(&result)?;
        }
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Outcome<Wanted> {
    let mut options = Options::new(arguments);
    let sizes = options.value("--sizes")?.unwrap_or(SIZES);
    let sizes: Option<Vec<u64>> =
        sizes.split(',').map(|size| size.parse().ok().filter(|size| *size >= 20)).collect();
    let wanted = Wanted {
        sizes: sizes.ok_or("--sizes is a list of numbers of devices, each at least 20")?,
        seconds: options.count("--seconds", 30)?,
        within: options.count("--within", 1800)?,
        whole_up_to: options.count("--whole-up-to", u64::MAX)?,
        apart_up_to: options.count("--apart-up-to", u64::MAX)?,
        keep: options.flag("--keep"),
        report: options.flag("--report"),
        json: options.flag("--json"),
        write: options.flag("--write"),
        database: options.value("--postgres")?.map(str::to_owned),
        program: options.value("--program")?.map(|path| workspace::root().join(path)),
    };
    options.finish()?;
    Ok(wanted)
}

/// Makes the fleet, or takes the one that an earlier run has kept. Seconds, processor seconds, bytes on the disk.
fn seed(program: &Path, folder: &Path, devices: u64, wanted: &Wanted) -> Outcome<Value> {
    let (data, facts) = (folder.join(format!("seed-{devices}")), folder.join(format!("seed-{devices}.json")));
    if wanted.keep && facts.is_file() {
        return serde_json::from_str(&workspace::read(&facts)?).map_err(|error| error.to_string());
    }
    println!("{devices} devices ...");
    workspace::fresh_directory(&data)?;
    fs::remove_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let place =
        Place { program, data: data.clone(), log: folder.join("server.log"), devices, options: Vec::new() };
    let before = xtask::cpu::children_seconds()?;
    let mut result = place.json(&["seed"])?;
    result["cpu_seconds"] = json!(xtask::cpu::children_seconds()? - before);
    result["bytes"] = json!(size(&data)?);
    workspace::write(&facts, result.to_string())?;
    Ok(result)
}

/// The bytes of all files.
fn size(folder: &Path) -> Outcome<u64> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.metadata().map_err(failed)?;
        bytes += if file.is_dir() { size(&entry.path())? } else { file.len() };
    }
    Ok(bytes)
}

/// A copy to work on: the next run begins with what was made.
fn copy(folder: &Path, devices: u64) -> Outcome<PathBuf> {
    let data = folder.join("data");
    workspace::fresh_directory(&data)?;
    fs::remove_dir(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let seeded = folder.join(format!("seed-{devices}"));
    workspace::run(Command::new("cp").args(["--archive", "--reflink=auto"]).arg(&seeded).arg(&data))?;
    Ok(data)
}

/// Words of a rate.
fn rate(per_second: f64) -> String {
    format!("{per_second:.3}")
}

fn one_process(
    program: &Path,
    folder: &Path,
    devices: u64,
    seeded: Value,
    wanted: &Wanted,
) -> Outcome<Value> {
    let data = copy(folder, devices)?;
    let place = Place { program, data, log: folder.join("server.log"), devices, options: Vec::new() };
    let polls = devices as f64 / POLL_SECONDS;
    let (seconds, polls, inventories) =
        (wanted.seconds.to_string(), rate(polls), rate(polls * INVENTORIES_TO_POLLS));
    let idle = ["--seconds", &seconds, "--polls", &polls, "--inventories", &inventories];
    let mut run = json!({ "devices": devices, "seed": seeded, "asked_seconds": wanted.seconds, "within": wanted.within });

    let server = Server::start(&place)?;
    run["first_start_ms"] = json!(server.answered_ms);
    run["start_mib"] = json!(server.allocated_mib()?);
    let measure = |name: &str, words: &[&str]| -> Outcome<Value> {
        println!("{devices} devices: {name} ...");
        let before = server.cpu()?;
        let mut result = place.simulate(&[&server], words)?;
        result["server_cpu_seconds"] = json!(server.cpu()? - before);
        result["allocated_mib"] = json!(server.allocated_mib()?);
        Ok(result)
    };
    run["idle"] = measure("idle", &idle)?;
    run["browsing"] = measure("browsing", &[&idle[..], &["--browse"]].concat())?;
    let within = wanted.within.to_string();
    let tenth = ["--browse", "--roll-out", "tenth", "--within", &within, "--check"];
    run["deployment"] = measure("a deployment to a tenth", &[&idle[..], &tenth].concat())?;
    run["full"] = measure("as fast as it answers", &["--seconds", &seconds, "--polls", "full"])?;
    let herd = HERD_SECONDS.min(devices / 20).to_string();
    run["herd"] = measure("all at once", &["--herd", &herd, "--connections", HERD_CONNECTIONS[0]])?;
    if devices <= wanted.apart_up_to {
        let each = ["--herd", &herd, "--connections", HERD_CONNECTIONS[1], "--keep-alive", "no"];
        run["herd_of_connections"] = measure("all at once, a connection each", &each)?;
    }
    if devices <= wanted.whole_up_to {
        let all = ["--roll-out", "all", "--check", "--connections", WHOLE_CONNECTIONS];
        run["whole"] = measure("a deployment to all", &all)?;
    }
    run["most_allocated_mib"] = json!(server.most_allocated_mib());
    run["stop_ms"] = json!(server.stop()?);
    let server = Server::start(&place)?;
    run["start_ms"] = json!(server.answered_ms);
    run["start_to_list_ms"] = json!(server.listed_ms);
    // In the middle of reports, each of which is a transaction.
    println!("{devices} devices: SIGKILL ...");
    let killed = place.simulate(&[&server], &["--seconds", "2", "--inventories", "full"])?;
    run["before_kill"] = killed["inventories"].clone();
    server.kill();
    let server = Server::start(&place)?;
    run["start_after_kill_ms"] = json!(server.answered_ms);
    run["start_to_list_after_kill_ms"] = json!(server.listed_ms);
    run["stop_after_start_ms"] = json!(server.stop()?);
    Ok(run)
}

/// Two processes on one database; one of them is killed while a deployment goes on.
fn two_processes(
    program: &Path,
    folder: &Path,
    devices: u64,
    database: &str,
    wanted: &Wanted,
) -> Outcome<Value> {
    let data = copy(folder, devices)?;
    println!("{devices} devices: into the database ...");
    let began = Instant::now();
    let mut moving = Command::new(program);
    moving.args(["move", "--json", "--to", database, "--from"]).arg(&data).stdin(Stdio::null());
    workspace::capture(&mut moving)?;
    let moved = began.elapsed().as_secs_f64();
    let place = Place {
        program,
        data,
        log: folder.join("server.log"),
        devices,
        options: vec!["--database".to_owned(), database.to_owned()],
    };
    let (first, second) = (Server::start(&place)?, Server::start(&place)?);
    let polls = rate(devices as f64 / POLL_SECONDS);
    let inventories = rate(devices as f64 / POLL_SECONDS * INVENTORIES_TO_POLLS);
    let seconds = wanted.seconds.to_string();
    let idle = ["--seconds", &seconds, "--polls", &polls, "--inventories", &inventories, "--browse"];
    println!("{devices} devices, two processes: idle ...");
    let idle = place.simulate(&[&first, &second], &idle)?;
    println!("{devices} devices, two processes: one is killed ...");
    let cpu = second.cpu()?;
    let (mib, answered) = (second.allocated_mib()?, second.answered_ms);
    let (one, two) = (first, second);
    let killed = {
        let urls = [&one, &two];
        let simulated = place.begin(&urls, &["--roll-out", "tenth", "--check"])?;
        let killing = one.kill_after(Duration::from_secs(wanted.seconds.min(5)));
        let result = simulated.end()?;
        killing.join().map_err(|_| "the server was not killed")?;
        result
    };
    let cpu = two.cpu()? - cpu;
    let stop = two.stop()?;
    Ok(json!({
        "devices": devices, "idle": idle, "killed": killed, "second_cpu_seconds": cpu, "moved_seconds": moved,
        "allocated_mib": mib, "start_ms": answered, "stop_ms": stop,
    }))
}
