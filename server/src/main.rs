//! The program: serves, asks a server, or puts load on one.

#![forbid(unsafe_code)]

mod ask;
mod cli;
mod console;
mod database;
mod histogram;
mod load;
mod mail;
mod measure;
mod notice;
mod seed;
mod serve;
mod simulate;
mod transfer;
mod value;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Errors quote what devices and servers have said.
            eprintln!("rust-ota-server: {}", artifact::text::printable(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}
