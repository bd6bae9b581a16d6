//! What the commands and options of the three programs are, said once: `--help`, man pages and completions are made from
//! it. It is plain data. It parses no command line: the parsers stay with the programs, and their tests hold the two
//! against each other.
//!
//! The descriptions are modules of this crate and not files beside the programs, because two that cannot import a program
//! need them: the build script of `rust-ota`, and the task that writes the pages.
#![forbid(unsafe_code)]

#[cfg(feature = "check")]
pub mod check;
mod describe;
pub mod help;
#[cfg(feature = "pages")]
pub mod pages;
pub mod rust_ota;
pub mod rust_ota_artifact;
pub mod rust_ota_server;
#[cfg(test)]
mod tests;

pub use describe::{Argument, Block, Command, Flag, Group, Kind, Page, Place, Program, Shown, Value};

/// The programs, each with its commands.
pub const PROGRAMS: [&Program; 3] =
    [&rust_ota::PROGRAM, &rust_ota_artifact::PROGRAM, &rust_ota_server::PROGRAM];
