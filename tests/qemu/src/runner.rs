//! The command line: which scenarios run on which boards, one for each processor at a time, and the table at the end.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::Outcome;
use crate::assets::{Arch, Assets};
use crate::boards::{self, Board};
use crate::device::{Device, Make, Tally};
use crate::fleet::Fleet;
use crate::kit::Kit;
use crate::machine::used_centiseconds;
use crate::scenarios::{self, Scenario};

const HELP: &str = "\
Board tests under QEMU

Usage: cargo xtask qemu [options] [SCENARIO...]
       cargo xtask qemu list
       cargo xtask qemu shell BOARD
       cargo xtask qemu client arm64|armhf

Without the name of a scenario, or a part of one, all of them run.

  --board BOARD   only on this board; may be given more than once
  --all           every scenario on every board, with 400 power cuts each; without, on those that every change is tested on,
                  with 20, and 8 on the board with UEFI
  --cuts N        so many power cuts on every board
  --minutes N     begin nothing new after so long; what was left out is said
  --jobs N        machines at the same time; one for each processor without
  --seed HEX      of the random choices; the commit without, so that each change is tested at points of its own
  --keep          keep the disks of all scenarios, not only those of failed ones
  --client FILE   this client on boards of x86-64; the one of this source without
  --no-install    leave the machine's packages alone

Downloads and builds are kept in ROTA_QEMU_CACHE, else in rust-ota below XDG_CACHE_HOME or ~/.cache.
";

/// What a run did and left out, a line each, for whoever started it.
const SUMMARY: &str = "target/qemu/summary";
const LEFT_OUT: &str = "target/qemu/left-out";

/// Power cuts on a board: on every change, there with UEFI, and with `--all`.
const CUTS: u64 = 20;
const CUTS_UEFI: u64 = 8;
const CUTS_ALL: u64 = 400;

struct Options {
    client: Option<PathBuf>,
    boards: Vec<&'static dyn Board>,
    cuts: Option<u64>,
    minutes: Option<u64>,
    jobs: usize,
    seed: Option<u64>,
    all: bool,
    keep: bool,
    words: Vec<String>,
}

/// Starts what the arguments ask for.
pub fn main(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    match options.words.first().map(String::as_str) {
        Some("list") => {
            list();
            Ok(())
        }
        Some("shell") => shell(&options),
        Some("client") => client(&options),
        Some("help") => {
            print!("{HELP}");
            Ok(())
        }
        Some(_) | None => test(&options),
    }
}

fn parse(arguments: &[String]) -> Outcome<Options> {
    let mut options = Options {
        client: None,
        boards: Vec::new(),
        cuts: None,
        minutes: None,
        jobs: std::thread::available_parallelism().map_or(2, usize::from),
        seed: None,
        all: false,
        keep: false,
        words: Vec::new(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        let number = |text: &String| {
            text.parse::<u64>().map_err(|_| format!("{argument} needs a whole number, not {text:?}"))
        };
        match argument.as_str() {
            "--client" => options.client = Some(value()?.into()),
            "--board" => options.boards.push(boards::find(value()?)?),
            "--cuts" => options.cuts = Some(number(value()?)?),
            "--minutes" => options.minutes = Some(number(value()?)?),
            "--jobs" => options.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--seed" => options.seed = Some(seed_of(value()?)?),
            "--all" => options.all = true,
            "--keep" => options.keep = true,
            "--help" | "-h" => options.words = vec!["help".into()],
            other if other.starts_with('-') => {
                return Err(format!("there is no option {other}\n\n{HELP}"));
            }
            word => options.words.push(word.to_owned()),
        }
    }
    Ok(options)
}

impl Options {
    /// Power cuts on a board.
    fn cuts_on(&self, board: &str) -> u64 {
        let usual = if board == scenarios::GRUB_UEFI { CUTS_UEFI } else { CUTS };
        self.cuts.unwrap_or(if self.all { CUTS_ALL } else { usual })
    }
}

/// The first 16 of hexadecimal digits.
fn seed_of(text: &str) -> Outcome<u64> {
    let text = text.trim();
    let digits: String = text.chars().take(16).collect();
    u64::from_str_radix(&digits, 16)
        .ok()
        .filter(|_| text.chars().all(|digit| digit.is_ascii_hexdigit()))
        .ok_or_else(|| format!("--seed needs hexadecimal digits, not {text:?}"))
}

/// That of the commit that is checked out; 1 where there is none.
fn seed_of_commit() -> u64 {
    let mut git = Command::new("git");
    let output =
        git.args(["rev-parse", "HEAD"]).current_dir(crate::workspace()).stderr(Stdio::null()).output();
    let output = output.ok().filter(|output| output.status.success());
    output.and_then(|output| seed_of(&String::from_utf8_lossy(&output.stdout)).ok()).unwrap_or(1)
}

fn list() {
    println!("boards:");
    for board in boards::ALL {
        println!("  {:<24}{}", board.name(), board.about());
    }
    println!("scenarios:");
    for scenario in scenarios::ALL {
        println!("  {}", scenario.name);
        println!("      on {}", scenario.boards.join(", "));
        if !scenario.more_boards.is_empty() {
            println!("      with --all also on {}", scenario.more_boards.join(", "));
        }
    }
}

/// What a scenario is given.
pub struct Scene<'a> {
    /// What all share.
    pub kit: &'a Kit,
    /// On this board.
    pub board: &'a dyn Board,
    /// Power cuts in all.
    pub cuts: u64,
    /// Of the random choices.
    pub seed: u64,
    /// Whether what takes long is done as well.
    pub all: bool,
    /// Which part of the scenario this is, of how many.
    pub part: (u64, u64),
    directory: PathBuf,
}

impl<'a> Scene<'a> {
    /// A new device with a new server, in a folder of its own.
    pub fn device(&self, make: &Make) -> Outcome<Device<'a>> {
        let server = self.directory.join("server");
        std::fs::create_dir_all(&server).map_err(|error| format!("{}: {error}", server.display()))?;
        let fleet = Fleet::start(self.kit, &server)?;
        Device::make(self.kit, self.board, &self.directory, fleet, make)
    }

    /// A seed that no other part has, of this board or another.
    pub fn seed_of_part(&self) -> u64 {
        let name = self.board.name().bytes().map(u64::from);
        name.chain([self.part.0]).fold(self.seed, |seed, number| {
            (seed ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        })
    }
}

struct Task {
    scenario: &'static Scenario,
    board: &'static dyn Board,
    part: (u64, u64),
}

impl Task {
    fn name(&self) -> String {
        match self.part {
            (_, 1) => self.scenario.name.to_owned(),
            (part, parts) => format!("{} ({} of {parts})", self.scenario.name, part + 1),
        }
    }
}

fn test(options: &Options) -> Outcome {
    let client = options.client.as_deref().ok_or("--client is needed: the program to test")?;
    let work = crate::workspace().join("target/qemu/run");
    let kit = Kit::new(&work, Assets::open(options.all)?, client)?;
    crate::write(&crate::workspace().join(SUMMARY), "")?;
    crate::write(&crate::workspace().join(LEFT_OUT), "")?;
    let (tasks, mut left_out) = plan(options)?;
    if tasks.is_empty() {
        return Err("no scenario has that name and runs on that board; `list` shows them".into());
    }
    let seed = options.seed.unwrap_or_else(seed_of_commit);
    println!("{} runs, {} at a time; logs in {}", tasks.len(), options.jobs, work.display());
    println!("seed {seed:016x}; downloads and builds in {}", kit.assets.place().display());
    let start = Instant::now();
    let queue = Mutex::new(tasks);
    let results = Mutex::new(Vec::new());
    let too_late = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _worker in 0..options.jobs {
            scope.spawn(|| {
                while let Some(task) = next(&queue) {
                    if options.minutes.is_some_and(|minutes| start.elapsed().as_secs() >= 60 * minutes) {
                        too_late.lock().unwrap_or_else(PoisonError::into_inner).push(task);
                        continue;
                    }
                    let result = run_one(&kit, options, seed, task);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    for task in too_late.into_inner().unwrap_or_else(PoisonError::into_inner) {
        left_out.push(format!("{} on {}: the time was over", task.name(), task.board.name()));
    }
    for line in &left_out {
        println!("left out: {line}");
    }
    let lines: String = left_out.iter().map(|line| format!("{line}\n")).collect();
    crate::write(&crate::workspace().join(LEFT_OUT), lines)?;
    report(&results, start.elapsed().as_secs_f64())
}

/// What is to be run, and what is not, a line for each board.
fn plan(options: &Options) -> Outcome<(VecDeque<Task>, Vec<String>)> {
    let mut tasks: VecDeque<Task> = VecDeque::new();
    let mut left_out = BTreeMap::<&str, u64>::new();
    for scenario in scenarios::ALL {
        let named = |word: &String| scenario.name.contains(word.as_str());
        if !options.words.is_empty() && !options.words.iter().any(named) {
            continue;
        }
        // Somebody who names boards means them.
        let more = options.all || !options.boards.is_empty();
        let on_change = scenario.boards.iter().map(|name| (name, true));
        let others = scenario.more_boards.iter().filter(|name| !scenario.boards.contains(name));
        for (name, wanted) in on_change.chain(others.map(|name| (name, more))) {
            let board = boards::find(name)?;
            if !options.boards.is_empty() && !options.boards.iter().any(|wanted| wanted.name() == *name) {
                continue;
            }
            if wanted {
                let parts = (scenario.parts)(options.cuts_on(name)).max(1);
                tasks.extend((0..parts).map(|part| Task { scenario, board, part: (part, parts) }));
            } else {
                *left_out.entry(board.name()).or_default() += 1;
            }
        }
    }
    let mut lines: Vec<String> = left_out
        .iter()
        .map(|(board, count)| {
            format!("{board}: {count} of {} scenarios, without --all", scenarios::count_on(board))
        })
        .collect();
    if options.cuts.is_none() && !options.all {
        lines.push(format!("power cuts: {CUTS} of {CUTS_ALL} a bootloader, without --all"));
    }
    Ok((tasks, lines))
}

fn next(queue: &Mutex<VecDeque<Task>>) -> Option<Task> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// What came of a task.
struct Done {
    task: Task,
    result: Outcome<Tally>,
    /// From its begin to its end.
    seconds: f64,
    /// Processor time of its machines.
    processor_seconds: f64,
}

fn run_one(kit: &Kit, options: &Options, seed: u64, task: Task) -> Done {
    let mut directory = kit.work.join(task.board.name()).join(task.scenario.name);
    if task.part.1 > 1 {
        directory = directory.join(format!("part-{}", task.part.0 + 1));
    }
    let start = Instant::now();
    let used = used_centiseconds();
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&directory);
    let made =
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()));
    let scene = Scene {
        kit,
        board: task.board,
        cuts: options.cuts_on(task.board.name()),
        seed,
        all: options.all,
        part: task.part,
        directory: directory.clone(),
    };
    let result = made.and_then(|()| (task.scenario.run)(&scene));
    let seconds = start.elapsed().as_secs_f64();
    let processor_seconds = (used_centiseconds() - used) as f64 / 100.0;
    match &result {
        Ok(tally) => {
            println!(
                "ok      {:<22} {} ({} boots, {seconds:.0} s, {processor_seconds:.0} s of processor)",
                task.board.name(),
                task.name(),
                tally.boots
            );
            if !options.keep {
                clean_up(&directory);
            }
        }
        Err(error) => {
            println!("FAILED  {:<22} {} ({seconds:.0} s): {error}", task.board.name(), task.name());
            show_last(&directory);
        }
    }
    Done { task, result, seconds, processor_seconds }
}

/// Prints the end of the two newest serial logs below `directory`: what a failure is understood from.
fn show_last(directory: &Path) {
    let mut logs = Vec::new();
    find_serial_logs(directory, &mut logs);
    logs.sort();
    for (_, path) in logs.iter().rev().take(2).rev() {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        println!("    the end of {}:", path.display());
        for line in lines.iter().skip(lines.len().saturating_sub(40)) {
            println!("    {line}");
        }
    }
}

fn find_serial_logs(directory: &Path, logs: &mut Vec<(SystemTime, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_log = entry.file_name().to_string_lossy().starts_with("serial-");
        match entry.metadata().and_then(|metadata| metadata.modified()) {
            Ok(_) if path.is_dir() => find_serial_logs(&path, logs),
            Ok(time) if is_log => logs.push((time, path)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Removes what is large; the logs stay.
fn clean_up(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_log = path.extension().is_some_and(|end| end == "log")
            && !entry.file_name().to_string_lossy().starts_with("writes-");
        // What stays costs space, nothing else.
        if path.is_dir() {
            clean_up(&path);
            let _ = std::fs::remove_dir(&path);
        } else if !is_log {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// What came of a board.
#[derive(Default)]
struct Line {
    tally: Tally,
    passed: u64,
    failed: u64,
    seconds: f64,
    processor_seconds: f64,
}

fn report(results: &[Done], seconds: f64) -> Outcome {
    let mut boards: BTreeMap<&str, Line> = BTreeMap::new();
    for done in results {
        let line = boards.entry(done.task.board.name()).or_default();
        line.seconds += done.seconds;
        line.processor_seconds += done.processor_seconds;
        match &done.result {
            Ok(more) => {
                line.tally += *more;
                line.passed += 1;
            }
            Err(_) => line.failed += 1,
        }
    }
    println!(
        "\n| board | passed | failed | boots | power cuts | states | writes lost in them | updates | seconds | of the \
         machines' processors |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut summary = String::new();
    for (board, line) in &boards {
        let Line { tally, passed, failed, seconds, processor_seconds } = line;
        let Tally { boots, cuts, updates, at_risk, lost, states } = tally;
        println!(
            "| {board} | {passed} | {failed} | {boots} | {cuts} | {states} | {lost} of {at_risk} | {updates} | {seconds:.0} | \
             {processor_seconds:.0} |"
        );
        summary += &format!("{board}: {boots} boots, {cuts} cuts, {states} states, {seconds:.0} seconds\n");
    }
    // For whoever started this.
    crate::write(&crate::workspace().join(SUMMARY), summary)?;
    let machines: f64 = boards.values().map(|line| line.processor_seconds).sum();
    println!("\n{seconds:.0} s in all, {machines:.0} s of processor time of the machines");
    if results.is_empty() {
        return Err("nothing was tested".into());
    }
    let failed: Vec<String> = results
        .iter()
        .filter(|done| done.result.is_err())
        .map(|done| format!("{} on {}", done.task.name(), done.task.board.name()))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join("; "))) }
}

/// Builds the client as it ships for another processor.
fn client(options: &Options) -> Outcome {
    let arch = match options.words.get(1).map(String::as_str) {
        Some("arm64") => Arch::Aarch64,
        Some("armhf") => Arch::Armv7,
        Some(_) | None => return Err("client needs a processor: arm64 or armhf".into()),
    };
    println!("{}", Assets::open(true)?.client(arch)?.display());
    Ok(())
}

fn shell(options: &Options) -> Outcome {
    let client = options.client.as_deref().ok_or("--client is needed: the program on the board")?;
    let name = options.words.get(1).ok_or("shell needs the name of a board; `list` shows them")?;
    let board = boards::find(name)?;
    let work = crate::workspace().join("target/qemu/shell");
    let kit = Kit::new(&work, Assets::open(options.all)?, client)?;
    let directory = work.join(board.name());
    let _ = std::fs::remove_dir_all(&directory);
    let server = directory.join("server");
    std::fs::create_dir_all(&server).map_err(|error| format!("{}: {error}", server.display()))?;
    let fleet = Fleet::start(&kit, &server)?;
    // A shell in place of the client; `rust-ota daemon &` starts it.
    let mut make = Make::new();
    make.data.push(("before-client".to_owned(), b"exec sh -i\n".to_vec()));
    let device = Device::make(&kit, board, &directory, fleet, &make)?;
    println!("{}: {}", board.name(), board.about());
    println!("the server is port {} of 10.0.2.2; Ctrl-A X turns the machine off", device.fleet.port());
    let mut qemu = device.interactive()?;
    let words: Vec<String> =
        qemu.get_args().map(|word| word.to_string_lossy().replace("stdio", "mon:stdio")).collect();
    let mut command = Command::new(qemu.get_program());
    command.args(words).stdin(Stdio::inherit());
    qemu.stdin(Stdio::null());
    let status = command.status().map_err(|error| format!("cannot start the machine: {error}"))?;
    println!("the machine is off ({status})");
    Ok(())
}
