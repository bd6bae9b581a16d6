//! What the program says to whoever typed a command, and what it ends with.

use std::fmt;

use artifact::text::printable_lines;
use manual::help;
use manual::rust_ota_server::PROGRAM;

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
    /// A fleet was moved or copied, but for what could not be.
    NotAll(String),
}

impl CliError {
    /// The command line is wrong, in words of ours.
    pub(crate) fn usage(why: String) -> CliError {
        CliError::Usage(lexopt::Error::Custom(why.into()))
    }

    /// An option that has to be there is not.
    pub(crate) fn missing(option: &str) -> CliError {
        CliError::usage(format!("--{option} is missing"))
    }

    /// What the program ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::NotEverywhere(_) => 3,
            CliError::NotFinished(_) => 4,
            CliError::NotAll(_) => 5,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(error) => write!(f, "{error} (try --help)"),
            CliError::Failed(error)
            | CliError::NotEverywhere(error)
            | CliError::NotFinished(error)
            | CliError::NotAll(error) => f.write_str(error),
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

/// All about the command called `name`.
pub(crate) fn help_of(name: &str) -> Result<(), CliError> {
    let command = PROGRAM.command(name);
    let command = command.ok_or_else(|| CliError::Failed(format!("nothing is known of {name}")))?;
    print(&help::of_command(&PROGRAM, command))
}
