//! `rust-ota`: the command line of the update client. Also answers to the names `mender-update` and `mender`.
//!
//! It says what happened and decides nothing about updates: `device` puts the device together, `client-core` decides.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]

mod cli;
mod commands;
mod logger;
mod printer;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A file must never be group-writable because of the environment this was started in.
    linux::process::set_private_umask();
    ExitCode::from(commands::run(cli::parse(std::env::args_os())))
}
