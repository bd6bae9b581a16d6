//! The command line, as it is typed.

use std::ffi::OsString;
use std::fmt;

use artifact::text::printable_lines;
use lexopt::prelude::*;

use crate::{ask, load, measure, serve};

const HELP: &str = "\
rust-ota-server: a compatible update server in one process

  rust-ota-server serve --data DIR [OPTION]...   run a server
  rust-ota-server load --server URL [OPTION]...  put load on a server, and measure it
  rust-ota-server measure                        measure single steps of the server on this machine
  rust-ota-server COMMAND [OPTION]...            ask a running server
  rust-ota-server COMMAND --help                 all about one command

";

/// What is said to the person.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command line is not understood.
    Usage(lexopt::Error),
    /// It was, and it did not work.
    Failed(String),
    /// A deployment has ended, and not every device has the update.
    NotEverywhere(String),
    /// A deployment has not ended in time.
    NotFinished(String),
}

impl CliError {
    /// What the program ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::NotEverywhere(_) => 3,
            CliError::NotFinished(_) => 4,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(error) => write!(f, "{error} (try --help)"),
            CliError::Failed(error) | CliError::NotEverywhere(error) | CliError::NotFinished(error) => {
                f.write_str(error)
            }
        }
    }
}

impl From<lexopt::Error> for CliError {
    fn from(error: lexopt::Error) -> CliError {
        CliError::Usage(error)
    }
}

/// Prints lines of ours to the standard output stream, and nothing that acts on a terminal. What could not be printed
/// is an error, whatever was done before.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    let mut out = std::io::stdout();
    let written = out.write_all(printable_lines(text).as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| CliError::Failed(format!("writing to the standard output: {error}")))
}

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
