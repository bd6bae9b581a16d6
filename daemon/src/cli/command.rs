//! The commands with the options that each of them takes, as a table.

use std::ffi::OsString;

use client_core::deploy::Stage;
use client_core::deploy::gates::Gate;
use lexopt::{Arg, Parser, ValueExt};

use super::{Command, DaemonCommand, Global, Show, Update, UsageError, Verb, help};

/// One command.
pub struct CommandRow {
    word: &'static str,
    help: &'static str,
    operand: Operand,
    takes: &'static [Opt],
    meant: fn(Given) -> Result<Command, UsageError>,
}

/// What a command takes besides options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    None,
    One,
}

/// An option of some commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opt {
    StopBefore,
    RebootExitCode,
    Reason,
    Force,
    ToOtherSlot,
    Offline,
}

const COMMANDS: &[CommandRow] = &[
    CommandRow {
        word: "install",
        help: help::INSTALL,
        operand: Operand::One,
        takes: &[Opt::StopBefore, Opt::RebootExitCode],
        meant: |mut given| {
            let missing = || wrong("install needs a file, an address or - for standard input");
            let source = given.operand.take().ok_or_else(missing)?;
            Ok(given.update(Verb::Install(source)))
        },
    },
    CommandRow {
        word: "resume",
        help: help::RESUME,
        operand: Operand::None,
        takes: &[Opt::StopBefore, Opt::RebootExitCode],
        meant: |given| Ok(given.update(Verb::Resume)),
    },
    CommandRow {
        word: "commit",
        help: help::COMMIT,
        operand: Operand::None,
        takes: &[Opt::StopBefore],
        meant: |given| Ok(given.update(Verb::Commit)),
    },
    CommandRow {
        word: "rollback",
        help: help::ROLLBACK,
        operand: Operand::None,
        takes: &[Opt::StopBefore, Opt::ToOtherSlot],
        meant: |given| {
            let verb = if given.to_other_slot { Verb::TryOtherSlot } else { Verb::RollBack };
            Ok(given.update(verb))
        },
    },
    CommandRow::plain("show-artifact", help::SHOW_ARTIFACT, |_| Ok(Command::Show(Show::Artifact))),
    CommandRow::plain("show-provides", help::SHOW_PROVIDES, |_| Ok(Command::Show(Show::Provides))),
    CommandRow::plain("daemon", help::DAEMON, |_| Ok(Command::Daemon(DaemonCommand::Run))),
    CommandRow::plain("status", help::STATUS, |_| Ok(Command::Daemon(DaemonCommand::Status))),
    CommandRow::plain("check-update", help::CHECK_UPDATE, |_| {
        Ok(Command::Daemon(DaemonCommand::CheckUpdate))
    }),
    CommandRow::plain("send-inventory", help::SEND_INVENTORY, |_| {
        Ok(Command::Daemon(DaemonCommand::SendInventory))
    }),
    CommandRow {
        word: "allow",
        help: help::ALLOW,
        operand: Operand::One,
        takes: &[],
        meant: |given| Ok(Command::Daemon(DaemonCommand::Answer { gate: given.gate()?, refused: None })),
    },
    CommandRow {
        word: "refuse",
        help: help::REFUSE,
        operand: Operand::One,
        takes: &[Opt::Reason],
        meant: |given| {
            let gate = given.gate()?;
            let refused = Some(given.reason.unwrap_or_else(|| "refused".into()));
            Ok(Command::Daemon(DaemonCommand::Answer { gate, refused }))
        },
    },
    CommandRow {
        word: "doctor",
        help: help::DOCTOR,
        operand: Operand::None,
        takes: &[Opt::Offline],
        meant: doctor,
    },
    CommandRow {
        word: "bootstrap",
        help: help::BOOTSTRAP,
        operand: Operand::None,
        takes: &[Opt::Force],
        meant: |given| Ok(Command::Daemon(DaemonCommand::Bootstrap { force: given.force })),
    },
];

// The signature is that of all commands.
#[cfg(feature = "doctor")]
#[allow(clippy::unnecessary_wraps)]
fn doctor(given: Given) -> Result<Command, UsageError> {
    Ok(Command::Doctor { offline: given.offline })
}

#[cfg(not(feature = "doctor"))]
fn doctor(_: Given) -> Result<Command, UsageError> {
    Err(wrong("this build has no doctor (feature doctor)"))
}

/// Options that stand before the command, and that somebody may write behind it.
const GLOBAL_OPTIONS: [&str; 10] = [
    "config",
    "fallback-config",
    "datastore",
    "data",
    "log-file",
    "log-level",
    "trusted-certs",
    "syslog",
    "no-syslog",
    "skipverify",
];

/// The command with this name.
pub fn find(word: Option<&str>) -> Option<&'static CommandRow> {
    COMMANDS.iter().find(|row| Some(row.word) == word)
}

impl CommandRow {
    /// A command that takes nothing.
    const fn plain(
        word: &'static str,
        help: &'static str,
        meant: fn(Given) -> Result<Command, UsageError>,
    ) -> CommandRow {
        CommandRow { word, help, operand: Operand::None, takes: &[], meant }
    }

    /// Reads what follows the name of the command.
    pub fn read(&self, parser: &mut Parser, global: &mut Global) -> Result<Command, UsageError> {
        let given = Given::read(parser, self.operand, global)?;
        let stray = Opt::ALL.into_iter().find(|option| given.has(*option) && !self.takes.contains(option));
        match stray {
            Some(option) => Err(wrong(option.where_it_goes())),
            None if given.help => Ok(Command::Help(self.help)),
            None => (self.meant)(given),
        }
    }
}

impl Opt {
    /// All of them, in the order in which one is complained of.
    const ALL: [Opt; 6] =
        [Opt::StopBefore, Opt::RebootExitCode, Opt::Reason, Opt::Force, Opt::ToOtherSlot, Opt::Offline];

    /// What somebody is told who gave it to another command.
    fn where_it_goes(self) -> &'static str {
        match self {
            Opt::StopBefore => "--stop-before does not go with this command",
            Opt::RebootExitCode => "--reboot-exit-code goes with install and resume",
            Opt::Reason => "--reason goes with refuse",
            Opt::Force => "--forcebootstrap goes with bootstrap",
            Opt::ToOtherSlot => "--to-other-slot goes with rollback",
            Opt::Offline => "--offline goes with doctor",
        }
    }
}

/// Everything that any command takes.
#[derive(Default)]
struct Given {
    operand: Option<OsString>,
    stop_before: Vec<Stage>,
    reboot_exit_code: bool,
    reason: Option<String>,
    force: bool,
    to_other_slot: bool,
    offline: bool,
    help: bool,
}

impl Given {
    fn read(parser: &mut Parser, operand: Operand, global: &mut Global) -> Result<Given, UsageError> {
        let mut given = Given::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("reboot-exit-code") => given.reboot_exit_code = true,
                Arg::Long("to-other-slot") => given.to_other_slot = true,
                Arg::Long("offline") => given.offline = true,
                Arg::Long("stop-before") => given.stop_before.push(stop_point(&parser.value()?.string()?)?),
                Arg::Short('F') | Arg::Long("forcebootstrap") => given.force = true,
                Arg::Long("reason") => given.reason = Some(parser.value()?.string()?),
                // The 3.x client takes it here.
                Arg::Long("passphrase-file") => {
                    global.overrides.passphrase_file = Some(parser.value()?.into())
                }
                Arg::Long("json") => global.json = true,
                Arg::Short('h') | Arg::Long("help") => given.help = true,
                Arg::Value(value) if operand == Operand::One && given.operand.is_none() => {
                    given.operand = Some(value);
                }
                other @ (Arg::Value(_) | Arg::Short(_) | Arg::Long(_)) => return Err(unexpected(other)),
            }
        }
        Ok(given)
    }

    fn has(&self, option: Opt) -> bool {
        match option {
            Opt::StopBefore => !self.stop_before.is_empty(),
            Opt::RebootExitCode => self.reboot_exit_code,
            Opt::Reason => self.reason.is_some(),
            Opt::Force => self.force,
            Opt::ToOtherSlot => self.to_other_slot,
            Opt::Offline => self.offline,
        }
    }

    fn update(self, verb: Verb) -> Command {
        let Given { stop_before, reboot_exit_code, .. } = self;
        Command::Update(Update { verb, stop_before, reboot_exit_code })
    }

    /// The gate that was named.
    fn gate(&self) -> Result<Option<Gate>, UsageError> {
        let Some(name) = &self.operand else { return Ok(None) };
        let gate = name.to_str().and_then(Gate::named);
        let unknown =
            || format!("{} is none of download, install, reboot and commit", name.to_string_lossy());
        gate.map(Some).ok_or_else(|| UsageError::Wrong(unknown()))
    }
}

fn unexpected(argument: Arg<'_>) -> UsageError {
    let (spelling, is_global) = match &argument {
        Arg::Value(value) => {
            return UsageError::Wrong(format!("unexpected argument {}", value.to_string_lossy()));
        }
        Arg::Short(letter) => (format!("-{letter}"), "cbdLlE".contains(*letter)),
        Arg::Long(name) => (format!("--{name}"), GLOBAL_OPTIONS.contains(name)),
    };
    match is_global {
        true => UsageError::Wrong(format!(
            "option {spelling} is for all commands and stands before the command: \
             rust-ota {spelling} ... COMMAND"
        )),
        false => argument.unexpected().into(),
    }
}

fn wrong(text: &str) -> UsageError {
    UsageError::Wrong(text.to_owned())
}

/// The stage before which `--stop-before` stops.
fn stop_point(name: &str) -> Result<Stage, UsageError> {
    match name {
        "ArtifactInstall_Enter" => Ok(Stage::Install),
        "ArtifactCommit_Enter" => Ok(Stage::Commit),
        "ArtifactCommit_Leave" => Ok(Stage::AfterCommit),
        "ArtifactRollback_Enter" => Ok(Stage::Rollback),
        "ArtifactFailure_Enter" => Ok(Stage::Failure),
        "Cleanup" => Ok(Stage::Cleanup),
        _ => Err(UsageError::Wrong(format!("Value error: Cannot stop before unsupported state {name}"))),
    }
}
