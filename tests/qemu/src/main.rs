//! Real bootloaders and real kernels under QEMU: updates, fall-backs and power cuts, board by board.
//!
//! `cargo xtask qemu` builds the client as it ships and starts this program. Errors are sentences for a person.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]
// Telling a person what happened is what this program is for.
#![allow(clippy::print_stdout)]

mod assets;
mod boards;
mod device;
mod disk;
#[cfg(test)]
mod documents;
mod fleet;
mod kit;
mod machine;
mod power;
mod rootfs;
mod runner;
mod scenarios;
mod trace;
mod uboot;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use xtask::workspace::run_quietly as run;

/// What a step ends with: an error is a sentence.
pub type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match runner::main(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The directory with the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}

/// Reads a file.
pub fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Writes a file whole.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Outcome {
    std::fs::write(path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
