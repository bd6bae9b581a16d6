//! The command line, as it is typed.

use std::ffi::OsString;

use lexopt::prelude::*;

use crate::console::{CliError, print};
use crate::{ask, load, measure, serve};

const HELP: &str = "\
rust-ota-server: a compatible update server in one process

  rust-ota-server serve --data DIR [OPTION]...   run a server
  rust-ota-server load --server URL [OPTION]...  put load on a server, and measure it
  rust-ota-server measure                        measure single steps of the server on this machine
  rust-ota-server COMMAND [OPTION]...            ask a running server
  rust-ota-server COMMAND --help                 all about one command

";

/// Does what was typed.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<(), CliError> {
    match parser.next()? {
        None | Some(Short('h') | Long("help")) => print(&(HELP.to_owned() + &ask::overview())),
        Some(Long("version")) => print(concat!("rust-ota-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(Value(command)) => command_named(&command, parser),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn command_named(command: &OsString, parser: lexopt::Parser) -> Result<(), CliError> {
    let name = command.to_string_lossy();
    match &*name {
        "serve" => serve::run(parser),
        "load" => load::run(parser),
        "measure" => measure::run(parser),
        name => ask::run(name, parser)
            .unwrap_or_else(|| Err(CliError::Failed(format!("there is no command {name} (try --help)")))),
    }
}
