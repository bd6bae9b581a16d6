//! The command line: which scenarios run on which boards, two at a time, and the table at the end.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use crate::Outcome;
use crate::assets::Assets;
use crate::boards::{self, Board};
use crate::device::{Device, Make, Tally};
use crate::fleet::Fleet;
use crate::kit::Kit;
use crate::scenarios::{self, Scenario};

const HELP: &str = "\
Board tests under QEMU

Usage: board-tests --client PROGRAM [options] [SCENARIO...]
       board-tests list
       board-tests --client PROGRAM shell BOARD

Without the name of a scenario, or a part of one, all of them run.

  --board BOARD   only on this board; may be given more than once
  --cuts N        power cuts per board (default 40)
  --minutes N     begin nothing new after so long; what was left out is said
  --jobs N        machines at the same time (default 2)
  --seed N        of the random choices (default 1)
  --all           every scenario on every board; without, on those that every change is tested on
  --keep          keep the disks of all scenarios, not only those of failed ones
";

/// What a run left out, a line each.
const LEFT_OUT: &str = "target/qemu/left-out";

struct Options {
    client: Option<PathBuf>,
    boards: Vec<&'static dyn Board>,
    cuts: u64,
    minutes: Option<u64>,
    jobs: usize,
    seed: u64,
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
        cuts: 40,
        minutes: None,
        jobs: 2,
        seed: 1,
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
            "--cuts" => options.cuts = number(value()?)?,
            "--minutes" => options.minutes = Some(number(value()?)?),
            "--jobs" => options.jobs = usize::try_from(number(value()?)?).unwrap_or(1).max(1),
            "--seed" => options.seed = number(value()?)?,
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
    /// Which part of the scenario this is, of how many.
    pub part: (u64, u64),
    directory: PathBuf,
}

impl<'a> Scene<'a> {
    /// A new device with a new server, in a folder of its own.
    pub fn device(&self, make: &Make) -> Outcome<Device<'a>> {
        self.device_in("", make)
    }

    /// One of several of this scenario.
    pub fn device_in(&self, name: &str, make: &Make) -> Outcome<Device<'a>> {
        let directory = self.directory.join(name);
        let server = directory.join("server");
        std::fs::create_dir_all(&server).map_err(|error| format!("{}: {error}", server.display()))?;
        let fleet = Fleet::start(self.kit, &server, |options| options)?;
        Device::make(self.kit, self.board, &directory, fleet, make)
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
    let kit = Kit::new(&work, Assets::open()?, client)?;
    crate::write(&crate::workspace().join(LEFT_OUT), "")?;
    let mut tasks: VecDeque<Task> = VecDeque::new();
    for scenario in scenarios::ALL {
        let named = |word: &String| scenario.name.contains(word.as_str());
        if !options.words.is_empty() && !options.words.iter().any(named) {
            continue;
        }
        // Somebody who names boards means them.
        let more = options.all || !options.boards.is_empty();
        let more = if more { scenario.more_boards } else { &[] };
        for name in scenario.boards.iter().chain(more) {
            let board = boards::find(name)?;
            if options.boards.is_empty() || options.boards.iter().any(|wanted| wanted.name() == *name) {
                let parts = scenario.parts.max(1);
                tasks.extend((0..parts).map(|part| Task { scenario, board, part: (part, parts) }));
            }
        }
    }
    if tasks.is_empty() {
        return Err("no scenario has that name and runs on that board; `list` shows them".into());
    }
    println!("{} runs, {} at a time; logs in {}", tasks.len(), options.jobs, work.display());
    let start = Instant::now();
    let queue = Mutex::new(tasks);
    let results = Mutex::new(Vec::new());
    let left_out = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _worker in 0..options.jobs {
            scope.spawn(|| {
                while let Some(task) = next(&queue) {
                    if options.minutes.is_some_and(|minutes| start.elapsed().as_secs() >= 60 * minutes) {
                        left_out.lock().unwrap_or_else(PoisonError::into_inner).push(task);
                        continue;
                    }
                    let result = run_one(&kit, options, &task);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((task, result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut lines = String::new();
    for task in left_out.into_inner().unwrap_or_else(PoisonError::into_inner) {
        lines += &format!("{} on {}: the time was over\n", task.name(), task.board.name());
    }
    print!("{}", lines.lines().map(|line| format!("left out: {line}\n")).collect::<String>());
    // For whoever started this.
    crate::write(&crate::workspace().join(LEFT_OUT), lines)?;
    report(&results, start.elapsed().as_secs_f64())
}

fn next(queue: &Mutex<VecDeque<Task>>) -> Option<Task> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn run_one(kit: &Kit, options: &Options, task: &Task) -> Outcome<Tally> {
    let name = task.scenario.name;
    let mut directory = kit.work.join(task.board.name()).join(name);
    if task.part.1 > 1 {
        directory = directory.join(format!("part-{}", task.part.0 + 1));
    }
    // What an earlier run left.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let scene = Scene {
        kit,
        board: task.board,
        cuts: options.cuts,
        seed: options.seed,
        part: task.part,
        directory: directory.clone(),
    };
    let start = Instant::now();
    let result = (task.scenario.run)(&scene);
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(tally) => {
            println!(
                "ok      {:<22} {} ({} boots, {seconds:.0} s)",
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
    result
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

fn report(results: &[(Task, Outcome<Tally>)], seconds: f64) -> Outcome {
    let mut boards: BTreeMap<&str, (Tally, u64, u64)> = BTreeMap::new();
    for (task, result) in results {
        let (tally, passed, failed) = boards.entry(task.board.name()).or_default();
        match result {
            Ok(more) => {
                *tally += *more;
                *passed += 1;
            }
            Err(_) => *failed += 1,
        }
    }
    println!("\n| board | passed | failed | boots | power cuts | writes lost in them | updates |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (board, (tally, passed, failed)) in &boards {
        let Tally { boots, cuts, updates, at_risk, lost } = tally;
        println!("| {board} | {passed} | {failed} | {boots} | {cuts} | {lost} of {at_risk} | {updates} |");
    }
    println!("\n{seconds:.0} s in all");
    if results.is_empty() {
        return Err("nothing was tested".into());
    }
    let failed: Vec<String> = results
        .iter()
        .filter(|(_, result)| result.is_err())
        .map(|(task, _)| format!("{} on {}", task.name(), task.board.name()))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join("; "))) }
}

fn shell(options: &Options) -> Outcome {
    let client = options.client.as_deref().ok_or("--client is needed: the program on the board")?;
    let name = options.words.get(1).ok_or("shell needs the name of a board; `list` shows them")?;
    let board = boards::find(name)?;
    let work = crate::workspace().join("target/qemu/shell");
    let kit = Kit::new(&work, Assets::open()?, client)?;
    let directory = work.join(board.name());
    let _ = std::fs::remove_dir_all(&directory);
    let server = directory.join("server");
    std::fs::create_dir_all(&server).map_err(|error| format!("{}: {error}", server.display()))?;
    let fleet = Fleet::start(&kit, &server, |options| options)?;
    // A shell in place of the client; `rust-ota daemon &` starts it.
    let mut make = Make::new();
    make.data.push(("before-client".to_owned(), b"exec sh -i\n".to_vec()));
    let device = Device::make(&kit, board, &directory, fleet, &make)?;
    println!("{}: {}", board.name(), board.about());
    println!("the server is port {} of 10.0.2.2; Ctrl-A X turns the machine off", device.fleet.port());
    let mut qemu = device.interactive()?;
    let words: Vec<String> =
        qemu.get_args().map(|word| word.to_string_lossy().replace("stdio", "mon:stdio")).collect();
    let mut command = std::process::Command::new(qemu.get_program());
    command.args(words).stdin(Stdio::inherit());
    qemu.stdin(Stdio::null());
    let status = command.status().map_err(|error| format!("cannot start the machine: {error}"))?;
    println!("the machine is off ({status})");
    Ok(())
}
