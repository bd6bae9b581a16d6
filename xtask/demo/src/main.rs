//! `cargo demo`: says at once what will happen, builds everything in one go with its progress shown, and starts the demo.
//!
//! It has no dependencies, so that cargo has built it before anybody wonders.
#![forbid(unsafe_code)]
// Telling a person what happens is what this program is for.
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What the demo runs. Built together they share what they are made of; the same as in `xtask/src/workspace.rs`, whose
/// crate this one does not import.
const PROGRAMS: [&str; 4] = ["desk", "rust-ota", "rust-ota-server", "rust-ota-artifact"];

/// A folder with programs that are built.
const BUILT: &str = "ROTA_PROGRAMS";

const HELP: &str = "\
Updates over the air of a device that is a folder

Usage: cargo demo [--ui]

  --ui   a small fleet behind the server's page instead, until it is ended with Ctrl-C

Needs Rust, a C compiler, and no root. Everything happens in target/demo.
";

const INTRODUCTION: &str = "\
This shows four updates over the air of a device made of files: one that is committed, one that does not come up and falls
back, one that comes as the difference to what runs, and one over a network that is cut again and again. The daemon, the
server, the host tool and the signed artifacts are the real ones; simulated are the machine with its bootloader, and the
network, on the loopback.
";

const FLEET: &str = "\
This starts a server with its page, and a fleet of six devices made of files that live: they update, one after the other, and
every third release does not come up, so that they fall back. The daemons, the server, the host tool and the signed artifacts are
the real ones; simulated are the machines with their bootloaders.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["--ui"] => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        ["--help" | "-h" | "help"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [extra, ..] => {
            eprintln!("error: unexpected argument {extra:?}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &[String]) -> Result<(), String> {
    let is_fleet = !options.is_empty();
    print!("{}", if is_fleet { FLEET } else { INTRODUCTION });
    let folder = match std::env::var_os(BUILT) {
        Some(folder) => PathBuf::from(folder),
        None => {
            println!(
                "\nFirst {} are built: some minutes the first time, nothing later.{}\n",
                PROGRAMS[1..].join(", "),
                if is_fleet { "" } else { " Then the demo takes about 20 seconds." }
            );
            build()?
        }
    };
    finish(Command::new(folder.join("desk")).arg("demo").args(options))
}

/// Builds them all at once, and says where they are: beside this program.
fn build() -> Result<PathBuf, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("build").current_dir(env!("CARGO_MANIFEST_DIR"));
    for program in PROGRAMS {
        command.args(["--package", program]);
    }
    finish(&mut command)?;
    let this = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    this.parent().map(PathBuf::from).ok_or_else(|| "this program is in no folder".to_owned())
}

fn finish(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}")) }
}
