//! Real bootloaders and real kernels under QEMU: updates, fall-backs and power cuts, board by board.
//!
//! `cargo xtask qemu` builds the client as it ships and starts this program. Errors are sentences for a person.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]
// Telling a person what happened is what this program is for.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

/// What a step ends with: an error is a sentence.
pub type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    ExitCode::SUCCESS
}
