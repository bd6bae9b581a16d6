//! The project's own tasks: what CI runs, the house rules as checks, the demo, and the measurements.
//!
//! Nothing of this is shipped. Errors are sentences for a person: nobody matches on them.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]
// Telling a person what happened is what these tasks are for.
#![allow(clippy::print_stdout)]

mod artifact_tool;
mod bench;
mod debian;
mod demo;
mod image;
mod markdown;
mod options;
mod process;
mod qemu;
mod relay;
mod size;
mod source;
mod test;
mod tidy;
mod update_server;
mod virtual_device;
mod workspace;

use std::process::ExitCode;

/// What a task ends with: an error is a sentence.
pub type Outcome<T = ()> = Result<T, String>;

const HELP: &str = "\
The project's own tasks

Usage: cargo xtask TASK [options]

Tasks:
  test [--quick] [--no-install]   Everything CI runs, with a summary. --quick stops after the tests;
                                  --no-install leaves the machine's packages alone
  tidy [--write]                  Check the import rules and the house rules. --write puts the import table
                                  into ARCHITECTURE.md
  demo                            Updates over the air of a virtual device; also `cargo demo`
  qemu [options] [SCENARIO...]    Updates, fall-backs and power cuts of real bootloaders and kernels under QEMU.
                                  `qemu list` shows boards and scenarios, `qemu shell BOARD` opens a console,
                                  `qemu --help` the options
  size [--target TRIPLE]          Build the program as it ships and check its size
  bench [install] [--runs N] [--mib N] [--client PROGRAM] [--write]
                                  Measure installation against a plain pipe. --client measures another build
                                  than the one that ships; --write puts the table into docs/performance.md
  bench modules [--runs N] [--mib N] [--client PROGRAM] [--write]
                                  Measure streaming a file into an update module against `cat` into a FIFO
  bench daemon [--polls N] [--mib N] [--client PROGRAM] [--write]
                                  Measure the memory, processor time and traffic of the daemon
  bench server [--devices N] [--seconds N] [--write]
                                  Measure how many devices one server answers
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        None => Err(format!("no task given\n\n{HELP}")),
        Some((task, rest)) => match task.as_str() {
            "test" => test::run(rest),
            "tidy" => tidy::run(rest),
            "demo" => demo::run(rest),
            "size" => size::run(rest),
            "qemu" => qemu::run(rest),
            "bench" => bench::run(rest),
            "help" | "--help" | "-h" => {
                print!("{HELP}");
                Ok(())
            }
            other => Err(format!("there is no task {other:?}\n\n{HELP}")),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}
