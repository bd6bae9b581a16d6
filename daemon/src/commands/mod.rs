//! The commands, a file for each family of them; here what they share.

mod daemon;
#[cfg(feature = "doctor")]
mod doctor;
mod exit;
mod show;
mod update;

use std::fmt;
use std::path::Path;

use client_core::text::printable;
use device::compose::{ComposeError, Setup};
use device::config_files::{For, Readable};

use crate::cli::{self, Command, DaemonCommand, Invocation, UsageError};
use crate::logger::{self, Destination};
use crate::printer::{self, print_line};

/// Carries out a command line. The exit code.
pub fn run(invocation: Result<Invocation, UsageError>) -> u8 {
    let invocation = match invocation {
        Ok(invocation) => invocation,
        Err(error) => {
            if matches!(error, UsageError::NoCommand) {
                print_line(cli::HELP.trim_end());
            }
            return failed(&error);
        }
    };
    let code = dispatch(&invocation);
    // What a command did is worth more than what it printed; some do nothing else.
    match reads(&invocation.command) {
        (_, Readable::ByThisUser) => exit::of_printing(code, printer::all_was_printed()),
        (_, Readable::All) => code,
    }
}

fn dispatch(invocation: &Invocation) -> u8 {
    match &invocation.command {
        Command::Update(update) => update::run(invocation, update),
        Command::Show(what) => show::run(invocation, *what),
        Command::Daemon(command) => daemon::run(invocation, command),
        #[cfg(feature = "doctor")]
        Command::Doctor { offline } => doctor::run(invocation, *offline),
        Command::Version => {
            print_line(env!("CARGO_PKG_VERSION"));
            exit::SUCCESS
        }
        Command::Help(text) => {
            print_line(text.trim_end());
            exit::SUCCESS
        }
    }
}

/// Whose configuration a command goes on with, and what of it must be readable. A command that has no other purpose than to
/// print reads what it may, and writes nothing.
fn reads(command: &Command) -> (For, Readable) {
    match command {
        Command::Update(_) | Command::Daemon(DaemonCommand::Bootstrap { .. }) => {
            (For::Command, Readable::All)
        }
        Command::Show(_) | Command::Version | Command::Help(_) => (For::Command, Readable::ByThisUser),
        #[cfg(feature = "doctor")]
        Command::Doctor { .. } => (For::Command, Readable::ByThisUser),
        // Those that speak to the daemon have to find it where it is.
        Command::Daemon(DaemonCommand::Status) => (For::Daemon, Readable::ByThisUser),
        Command::Daemon(
            DaemonCommand::Run
            | DaemonCommand::CheckUpdate
            | DaemonCommand::SendInventory
            | DaemonCommand::Answer { .. },
        ) => (For::Daemon, Readable::All),
    }
}

/// Says what went wrong. The exit code.
fn failed(error: &dyn fmt::Display) -> u8 {
    could_not(error);
    exit::FAILURE
}

fn could_not(error: &dyn fmt::Display) {
    let error = error.to_string();
    let is_refused =
        ["Permission denied", "Operation not permitted"].iter().any(|words| error.contains(words));
    let hint = if is_refused && !linux::process::is_root() { " (this user is not root)" } else { "" };
    eprintln!("Could not fulfill request: {}{hint}", printable(&error));
}

/// Reads the configuration and starts logging.
fn prepare(invocation: &Invocation) -> Result<Setup, ComposeError> {
    let global = &invocation.global;
    let (for_whom, readable) = reads(&invocation.command);
    let setup =
        Setup::load(&global.overrides, for_whom, readable, |name| std::env::var_os(name).map(Into::into))?;
    // The command line beats the configuration.
    let name = global.log_level.as_deref().or(setup.config.log_level.as_deref()).unwrap_or("info");
    let level = logger::level(name).ok_or_else(|| ComposeError::LogLevel(name.to_owned()))?;
    let destination = match &global.log_file {
        Some(path) => Destination::File(path),
        None if global.syslog => Destination::Syslog,
        None => Destination::StandardError,
    };
    logger::start(level, destination).map_err(|source| ComposeError::Io {
        doing: "open the log file",
        path: global.log_file.as_deref().unwrap_or(Path::new("")).display().to_string(),
        source,
    })?;
    if let Some(error) = &setup.config_error {
        log::error!("{error}; going on with the last good configuration");
    }
    for warning in &setup.config.warnings {
        log::warn!("{warning}");
    }
    Ok(setup)
}
