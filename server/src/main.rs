//! The program: serves, asks a server, or puts load on one.

#![forbid(unsafe_code)]

mod ask;
mod cli;
mod load;
mod logger;
mod measure;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust-ota-server: {error}");
            ExitCode::FAILURE
        }
    }
}
