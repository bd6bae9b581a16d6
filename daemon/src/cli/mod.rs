//! The command line as typed, turned into the command as meant. Knows no files and no defaults of the device.

mod command;
mod source;

/// What `--help` prints, made by the build script from the description in `manual`.
mod help {
    include!(concat!(env!("OUT_DIR"), "/help.rs"));
}

pub use help::PROGRAM as HELP;
pub use source::Source;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use client_core::deploy::Stage;
use client_core::deploy::gates::Gate;
use device::compose::Overrides;
use lexopt::{Arg, Parser, ValueExt};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Options that hold for every command.
    pub global: Global,
    /// The command.
    pub command: Command,
}

/// Options before the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Global {
    /// `--config`, `--fallback-config`, `--datastore`, `--trusted-certs`, `--skipverify` and `--passphrase-file`.
    pub overrides: Overrides,
    /// `--log-file`.
    pub log_file: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--json`.
    pub json: bool,
    /// `--syslog`, undone by `--no-syslog`.
    pub syslog: bool,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Works on the device.
    Update(Update),
    /// Prints what is installed.
    Show(Show),
    /// Is about the daemon.
    Daemon(DaemonCommand),
    /// Looks at the board.
    #[cfg(feature = "doctor")]
    Doctor {
        /// `--offline`.
        offline: bool,
    },
    /// `--version`.
    Version,
    /// `--help`, of one command or of all.
    Help(&'static str),
}

/// A command that works on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What is to be done.
    pub verb: Verb,
    /// `--stop-before`.
    pub stop_before: Vec<Stage>,
    /// `--reboot-exit-code`.
    pub reboot_exit_code: bool,
}

/// What is to be done to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `install`, with a file, an address or `-`.
    Install(OsString),
    /// `resume`.
    Resume,
    /// `commit`.
    Commit,
    /// `rollback`.
    RollBack,
    /// `rollback --to-other-slot`.
    TryOtherSlot,
}

/// What is to be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// `show-artifact`.
    Artifact,
    /// `show-provides`.
    Provides,
}

/// A command about the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonCommand {
    /// `daemon`.
    Run,
    /// `bootstrap`.
    Bootstrap {
        /// `--forcebootstrap`.
        force: bool,
    },
    /// `check-update`.
    CheckUpdate,
    /// `send-inventory`.
    SendInventory,
    /// `status`.
    Status,
    /// `allow` and `refuse`.
    Answer {
        /// The question's gate, where it is named.
        gate: Option<Gate>,
        /// `refuse`, with the reason.
        refused: Option<String>,
    },
}

/// What cannot be understood about a command line.
#[derive(Debug)]
pub enum UsageError {
    /// No command at all.
    NoCommand,
    /// Anything else, as a sentence.
    Wrong(String),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NoCommand => f.write_str("no command given"),
            UsageError::Wrong(text) => f.write_str(text),
        }
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError::Wrong(error.to_string())
    }
}

/// Reads a command line. `arguments` begin with the program's own name.
///
/// # Errors
/// When it cannot be understood.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_os_string();
    let mut parser = Parser::from_args(arguments);
    let mut global = Global::default();
    let command = match before_the_command(&mut parser, &mut global)? {
        First::Help => Command::Help(help::PROGRAM),
        First::Version => Command::Version,
        First::Command(name) => {
            check_is_of(&program, &name)?;
            match name.to_str() {
                Some("help") => Command::Help(help::PROGRAM),
                known => {
                    command::find(known).ok_or_else(|| unknown(&name))?.read(&mut parser, &mut global)?
                }
            }
        }
    };
    Ok(Invocation { global, command })
}

/// What comes first that is no option for all commands.
enum First {
    Command(OsString),
    Help,
    Version,
}

/// Takes the options that stand before the command.
fn before_the_command(parser: &mut Parser, global: &mut Global) -> Result<First, UsageError> {
    let mut version = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('c') | Arg::Long("config") => global.overrides.config = Some(parser.value()?.into()),
            Arg::Short('b') | Arg::Long("fallback-config") => {
                global.overrides.fallback_config = Some(parser.value()?.into());
            }
            Arg::Short('d') | Arg::Long("datastore" | "data") => {
                global.overrides.datastore = Some(parser.value()?.into());
            }
            Arg::Short('L') | Arg::Long("log-file") => global.log_file = Some(parser.value()?.into()),
            Arg::Short('l') | Arg::Long("log-level") => global.log_level = Some(parser.value()?.string()?),
            Arg::Short('E') | Arg::Long("trusted-certs") => {
                global.overrides.trusted_certs = Some(parser.value()?.string()?);
            }
            Arg::Long("skipverify") => global.overrides.skip_verify = true,
            Arg::Long("json") => global.json = true,
            Arg::Long("passphrase-file") => global.overrides.passphrase_file = Some(parser.value()?.into()),
            Arg::Long("syslog") => global.syslog = true,
            Arg::Long("no-syslog") => global.syslog = false,
            Arg::Short('v') | Arg::Long("version") => version = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(First::Help),
            Arg::Value(_) if version => return Err(UsageError::Wrong("--version must be alone".into())),
            Arg::Value(name) => return Ok(First::Command(name)),
            other @ (Arg::Short(_) | Arg::Long(_)) => return Err(other.unexpected().into()),
        }
    }
    if version { Ok(First::Version) } else { Err(UsageError::NoCommand) }
}

/// Of the two programs of the Mender client 5.x `mender-auth` has the key and the token, and no updates.
fn check_is_of(program: &OsStr, name: &OsStr) -> Result<(), UsageError> {
    if program != "mender-auth" || ["daemon", "bootstrap", "help"].iter().any(|known| name == *known) {
        return Ok(());
    }
    let name = name.to_string_lossy();
    Err(UsageError::Wrong(format!("mender-auth has no command {name}; mender-update may have")))
}

fn unknown(name: &OsStr) -> UsageError {
    UsageError::Wrong(format!("unknown command {}", name.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use manual::check;

    use super::*;

    fn words(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn global_options_come_before_the_command_in_both_spellings() {
        let invocation = words("mender-update -c a --datastore=b --log-level debug install x").unwrap();
        assert_eq!(invocation.global.overrides.config.as_deref(), Some(Path::new("a")));
        assert_eq!(invocation.global.overrides.datastore.as_deref(), Some(Path::new("b")));
        let Command::Update(update) = invocation.command else { panic!("{:?}", invocation.command) };
        assert_eq!(update.verb, Verb::Install("x".into()));
        for behind in
            ["-c a x", "x -d b", "--datastore=b x", "x --log-level debug", "-E f x", "--skipverify x"]
        {
            let error = words(&format!("rust-ota install {behind}")).unwrap_err();
            assert!(error.contains("stands before the command: rust-ota -"), "{behind}: {error}");
        }
        assert!(words("rust-ota install -x a").unwrap_err().contains("invalid option '-x'"));
    }

    #[test]
    fn the_old_names_take_the_old_options() {
        assert!(words("/usr/bin/mender --no-syslog --data d commit").is_ok());
        let bootstrap = words("mender bootstrap --forcebootstrap --passphrase-file -").unwrap();
        assert_eq!(bootstrap.command, Command::Daemon(DaemonCommand::Bootstrap { force: true }));
        assert_eq!(bootstrap.global.overrides.passphrase_file.as_deref(), Some(Path::new("-")));
        assert_eq!(
            words("/usr/bin/mender-auth daemon").unwrap().command,
            Command::Daemon(DaemonCommand::Run)
        );
        assert!(words("mender-auth install x").unwrap_err().contains("mender-update"));
    }

    #[test]
    fn the_daemon_and_who_speaks_to_it_have_commands() {
        let check = |line: &str, expected: DaemonCommand| {
            assert_eq!(words(line).unwrap().command, Command::Daemon(expected));
        };
        check("rust-ota daemon", DaemonCommand::Run);
        check("rust-ota bootstrap", DaemonCommand::Bootstrap { force: false });
        check("rust-ota bootstrap -F", DaemonCommand::Bootstrap { force: true });
        check("mender-update check-update", DaemonCommand::CheckUpdate);
        check("mender-update send-inventory", DaemonCommand::SendInventory);
        check("rust-ota status --json", DaemonCommand::Status);
        check("rust-ota allow", DaemonCommand::Answer { gate: None, refused: None });
        check(
            "rust-ota refuse --reason no commit",
            DaemonCommand::Answer { gate: Some(Gate::Commit), refused: Some("no".into()) },
        );
        assert!(words("rust-ota --json status").unwrap().global.json);
        assert!(words("rust-ota --syslog daemon").unwrap().global.syslog);
        assert!(!words("rust-ota --syslog --no-syslog daemon").unwrap().global.syslog);
    }

    #[test]
    fn a_roll_back_may_be_to_the_other_slot() {
        let check = |line: &str, verb| {
            let expected = Update { verb, stop_before: Vec::new(), reboot_exit_code: false };
            assert_eq!(words(line).unwrap().command, Command::Update(expected));
        };
        check("rust-ota rollback", Verb::RollBack);
        check("mender-update rollback --to-other-slot", Verb::TryOtherSlot);
    }

    #[test]
    fn stop_points_have_their_names_and_no_others() {
        let line =
            "rust-ota install --stop-before ArtifactInstall_Enter --stop-before=Cleanup --reboot-exit-code -";
        let expected = Update {
            verb: Verb::Install("-".into()),
            stop_before: vec![Stage::Install, Stage::Cleanup],
            reboot_exit_code: true,
        };
        assert_eq!(words(line).unwrap().command, Command::Update(expected));
        let error = words("rust-ota commit --stop-before Foo").unwrap_err();
        assert_eq!(error, "Value error: Cannot stop before unsupported state Foo");
    }

    #[test]
    fn every_option_that_is_described_is_taken_and_no_other() {
        let program = &manual::rust_ota::PROGRAM;
        let typed = |words: &[String]| {
            let words = ["rust-ota".to_owned()].into_iter().chain(words.iter().cloned());
            parse(words.map(OsString::from)).map_err(|error| error.to_string())
        };
        let takes = |path: &[&str], options: &[String]| {
            let mut words: Vec<String> = path.iter().map(|word| (*word).to_owned()).collect();
            match path.first().and_then(|name| program.command(name)) {
                Some(command) => words.extend(options.iter().cloned().chain(check::operands(command))),
                // What prints the version stands alone.
                None if options.iter().any(|option| option == "-v" || option == "--version") => {
                    words.extend_from_slice(options);
                }
                None => words.extend(options.iter().cloned().chain(["commit".to_owned()])),
            }
            typed(&words).is_ok()
        };
        let says = |words: &[String]| typed(words).err().unwrap_or_default();
        let knows = |word: &str| !says(&[word.to_owned()]).starts_with("unknown command");
        let parser =
            check::Parser { takes: &takes, says: &says, knows: &knows, value: &|_| None, leaves_out: &[] };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
        assert_eq!(check::differences(program, &source, &parser).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_command_prints_the_help_that_is_described() {
        let program = &manual::rust_ota::PROGRAM;
        let printed = |line: &str| {
            let Command::Help(text) = words(line).unwrap().command else { panic!("{line}") };
            text
        };
        for line in ["rust-ota -h", "rust-ota --help", "rust-ota help"] {
            assert_eq!(printed(line), manual::help::of_program(program));
        }
        for command in program.commands() {
            let help = manual::help::of_command(program, command);
            assert_eq!(printed(&format!("rust-ota {} --help", command.name)), help);
            assert_eq!(printed(&format!("rust-ota {} -h", command.name)), help);
        }
        assert_eq!(words("rust-ota -v").unwrap().command, Command::Version);
    }

    #[test]
    fn every_level_and_every_gate_that_is_described_is_one() {
        let level = manual::rust_ota::PROGRAM.options.iter().find(|flag| flag.long == "log-level").unwrap();
        let Some(manual::Value { kind: manual::Kind::Choice(levels), .. }) = level.value else {
            panic!("{level:?}")
        };
        assert!(levels.contains(&level.default.unwrap()));
        for name in levels {
            assert!(crate::logger::level(name).is_some(), "{name}");
        }
        let answer = manual::rust_ota::PROGRAM.command("refuse").unwrap();
        let manual::Kind::Choice(gates) = answer.arguments[0].kind else { panic!("{answer:?}") };
        for gate in gates {
            assert!(words(&format!("rust-ota refuse {gate}")).is_ok(), "{gate}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "rust-ota",
            "rust-ota fly",
            "rust-ota install",
            "rust-ota install a b",
            "rust-ota commit x",
            "rust-ota commit --reboot-exit-code",
            "rust-ota show-artifact --stop-before Cleanup",
            "rust-ota --version commit",
            "rust-ota daemon x",
            "rust-ota daemon -F",
            "rust-ota install -F x",
            "rust-ota commit -F",
            "rust-ota commit --to-other-slot",
            "rust-ota rollback --reboot-exit-code",
            "rust-ota bootstrap --stop-before Cleanup",
            "rust-ota status --reboot-exit-code",
            "rust-ota allow --reason x",
            "rust-ota allow fly",
            "rust-ota commit --reason x",
            "rust-ota --config",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
