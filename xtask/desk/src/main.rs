//! Tasks with a device of files: the demo, a device for the desk, and the measurements. `cargo xtask` builds and starts
//! this program.
//!
//! Nothing of this is shipped. Errors are sentences for a person: nobody matches on them.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]
// Telling a person what happened is what these tasks are for.
#![allow(clippy::print_stdout)]

mod artifact_tool;
mod bench;
mod demo;
mod device;
mod http;
mod image;
mod process;
mod relay;
mod update_server;
mod virtual_device;

use std::path::PathBuf;
use std::process::ExitCode;

use xtask::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((task, rest)) => match task.as_str() {
            "demo" => demo::run(rest),
            "device" => device::run(rest),
            "bench" => bench::run(rest),
            other => Err(format!("there is no task {other:?}; see cargo xtask --help")),
        },
        None => Err("no task given; see cargo xtask --help".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The folder of this program: those that were built together with it lie there too.
fn folder() -> Outcome<PathBuf> {
    let this = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    this.parent().map(PathBuf::from).ok_or_else(|| "this program is in no folder".to_owned())
}

/// One of the programs that were built together with this one.
fn beside(program: &str) -> Outcome<PathBuf> {
    let path = folder()?.join(program);
    if path.is_file() { Ok(path) } else { Err(format!("{} is not built", path.display())) }
}
