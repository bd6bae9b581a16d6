//! The command line, as it is typed.

use std::ffi::OsString;
use std::fmt;

use lexopt::prelude::*;

use crate::{ask, load, measure, serve};

const HELP: &str = "\
rust-ota-server: a compatible update server in one process

  rust-ota-server serve --data DIR [OPTION]...   run a server
  rust-ota-server load --server URL [OPTION]...  put load on a server, and measure it
  rust-ota-server measure                        measure single steps of the server on this machine
  rust-ota-server devices | accept | reject | artifacts | upload | deploy | abort | status | log |
                  configure | show-configuration | connection | check-update | send-inventory
                                                 ask a running server
  rust-ota-server COMMAND --help                 say what a command can do
";

/// What is said to the person.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command line is not understood.
    Usage(lexopt::Error),
    /// It was, and it did not work.
    Failed(String),
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(error) => write!(f, "{error} (try --help)"),
            CliError::Failed(error) => f.write_str(error),
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> CliError {
        CliError::Usage(error)
    }
}

/// Prints to the standard output stream; a closed one ends the program quietly.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    let mut out = std::io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| CliError::Failed(format!("writing to the standard output: {error}")))
}

/// Does what was typed.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<(), CliError> {
    match parser.next()? {
        None | Some(Short('h') | Long("help")) => print(HELP),
        Some(Long("version")) => print(concat!("rust-ota-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Some(Value(command)) => command_named(&command, parser),
        Some(other) => Err(other.unexpected().into()),
    }
}

fn command_named(command: &OsString, parser: lexopt::Parser) -> Result<(), CliError> {
    match command.to_str() {
        Some("serve") => serve::run(parser),
        Some("load") => load::run(parser),
        Some("measure") => measure::run(parser),
        Some(
            command @ ("devices" | "accept" | "reject" | "artifacts" | "upload" | "deploy" | "abort"
            | "status" | "log" | "configure" | "show-configuration" | "connection"
            | "check-update" | "send-inventory"),
        ) => ask::run(command, parser),
        _ => Err(CliError::Failed(format!("there is no command {} (try --help)", command.to_string_lossy()))),
    }
}
