//! The command line as typed, turned into the command as meant. Knows no files and no defaults of the device.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
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
    /// `install`.
    Install {
        /// File, address or `-`.
        source: OsString,
        /// `--reboot-exit-code`.
        reboot_exit_code: bool,
        /// `--stop-before`.
        stop_before: Vec<Stage>,
    },
    /// `resume`.
    Resume {
        /// `--reboot-exit-code`.
        reboot_exit_code: bool,
        /// `--stop-before`.
        stop_before: Vec<Stage>,
    },
    /// `commit`.
    Commit {
        /// `--stop-before`.
        stop_before: Vec<Stage>,
    },
    /// `rollback`.
    Rollback {
        /// `--stop-before`.
        stop_before: Vec<Stage>,
        /// `--to-other-slot`.
        to_other_slot: bool,
    },
    /// `show-artifact`.
    ShowArtifact,
    /// `show-provides`.
    ShowProvides,
    /// `daemon`.
    Daemon,
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
    /// `--version`.
    Version,
    /// `--help`, of one command or of all.
    Help(&'static str),
}

/// Where an artifact comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A web server.
    Web(String),
    /// A file.
    Local(PathBuf),
}

impl Source {
    /// What the argument of `install` means. A name with a scheme that nobody can serve is no file: it says so.
    ///
    /// # Errors
    /// When it means nothing; the text says what to write.
    pub fn of(argument: &OsStr) -> Result<Source, String> {
        let local = || Source::Local(argument.into());
        let Some((scheme, rest)) = argument.to_str().and_then(|text| text.split_once("://")) else {
            return Ok(local());
        };
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return Ok(local());
        }
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Ok(Source::Web(format!("{scheme}://{rest}"))),
            "file" => {
                let path = rest.strip_prefix("localhost").unwrap_or(rest);
                let path = Some(path).filter(|path| path.starts_with('/')).and_then(decoded);
                let wrong = || "file:// takes a path that begins with /, or give the path alone".to_owned();
                path.map(|path| Source::Local(OsString::from_vec(path).into())).ok_or_else(wrong)
            }
            _ => Err(format!("{scheme}:// is not supported: install takes http://, https://, a file, or -")),
        }
    }
}

/// The bytes that `text` means, with what `%XX` stands for; `None` when it stands for nothing.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    Some(bytes)
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

/// Help for the whole program.
pub const HELP: &str = "\
rust-ota: installs signed artifacts on devices with two root partitions

Usage: rust-ota [global options] COMMAND [options]

Commands:
  install FILE|URL|-   Install an artifact on the other slot and try it at the next boot
  commit               Make the running trial permanent
  rollback             Go back to the old software, until it was committed; after that see its --help
  resume               Go on with an update that was stopped or interrupted
  show-artifact        Print the name of the installed artifact
  show-provides        Print everything the installed artifacts provide
  daemon               Ask the server for updates, and install them
  status               Print what the daemon is doing
  check-update         Tell the daemon to ask for an update now
  send-inventory       Tell the daemon to send the inventory now
  allow [GATE]         Let the deployment go on that waits for an answer
  refuse [GATE]        End it
  bootstrap            Make the device key, and ask the server to accept this device

Global options (before the command):
  -c, --config FILE            Configuration [/etc/mender/mender.conf]
  -b, --fallback-config FILE   Configuration under it [/var/lib/mender/mender.conf]
  -d, --datastore DIR          Where state is kept [/var/lib/mender]
  -L, --log-file FILE          Log there instead of to standard error
  -l, --log-level LEVEL        trace, debug, info, warning, error or fatal [info]
  -E, --trusted-certs FILE     Trust these certificate authorities too
      --passphrase-file FILE   Open the device key with the first line of FILE, or of standard input for -
      --syslog                 Log to syslog instead of to standard error
      --no-syslog              Do not (the default)
      --skipverify             Do not verify the certificate of the server
      --json                   Print one JSON object instead of lines
  -v, --version                Print the version
  -h, --help                   Print this help; after a command, help for it

Exit codes: 0 success; 1 failure; 2 no update in progress; 4 reboot needed
(only with --reboot-exit-code).
";

const INSTALL_HELP: &str = "\
Usage: rust-ota install [options] FILE|URL|-

Verifies the artifact, writes it to the slot that does not run, reads it back, and points the bootloader at it for one
trial boot. Restart the device, then run `commit`; without a commit the bootloader goes back at the next boot.

  -                      Read the artifact from standard input
  --reboot-exit-code     Exit with 4 instead of 0 when the device must be restarted
  --stop-before STATE    Stop before STATE, one of ArtifactInstall_Enter, ArtifactCommit_Enter,
                         ArtifactCommit_Leave, ArtifactRollback_Enter, ArtifactFailure_Enter, Cleanup;
                         may be given several times
";

const RESUME_HELP: &str = "\
Usage: rust-ota resume [--reboot-exit-code] [--stop-before STATE]...

Goes on with an update that was stopped with --stop-before or interrupted by a power cut. What happens is decided by
the boot environment: an interrupted installation is rolled back, an update that waits for its restart goes on waiting, a
running trial is committed, a commit that had taken effect is completed.
";

const COMMIT_HELP: &str = "\
Usage: rust-ota commit [--stop-before STATE]...

Makes the running trial permanent. Before the restart it is refused and changes nothing; when the bootloader has gone
back to the old system, the update is wound up as failed.
";

const ROLLBACK_HELP: &str = "\
Usage: rust-ota rollback [--to-other-slot] [--stop-before STATE]...

Goes back to the old software, until `commit`. If the new one runs already, the old one runs after the next restart.

  --to-other-slot        After `commit`: try what the other slot holds. Only for an image that this client installed there
                         and committed, and that is still there to the byte: it is read in full first, and refused
                         when the slot was written since (also by mounting it writable). Then restart and `commit`, as
                         after `install`; without a commit the bootloader returns to the slot that runs now
";

const DAEMON_HELP: &str = "\
Usage: rust-ota daemon

Runs until it is told to stop: authenticates, sends the inventory, asks for updates, installs them and reports. SIGUSR1
makes it ask for an update at once, SIGUSR2 send the inventory, SIGTERM stop within two seconds.
";

const STATUS_HELP: &str = "\
Usage: rust-ota status [--json]

Prints what the daemon is doing. Exits with 1 when none is running.
";

const DEMAND_HELP: &str = "\
Usage: rust-ota check-update
       rust-ota send-inventory

Tell the running daemon to ask for an update, or to send the inventory, now. Exit with 1 when none is running.
";

const ANSWER_HELP: &str = "\
Usage: rust-ota allow [GATE]
       rust-ota refuse [--reason TEXT] [GATE]

Answer the question of a deployment that waits (`AskBefore` in the configuration, `rust-ota status` shows it). GATE is
download, install, reboot or commit; with it, only that question is answered. A deployment that is refused fails, and
what it did is undone. Exit with 1 when nothing is asked.

  --reason TEXT   Why not; the server is told
";

const BOOTSTRAP_HELP: &str = "\
Usage: rust-ota bootstrap [-F|--forcebootstrap]

Makes the device key if there is none, and asks the server to accept this device.

  -F, --forcebootstrap   Make a new key even if there is one: the server then knows the device no more, until
                         somebody accepts it again
";

const SHOW_HELP: &str = "\
Usage: rust-ota show-artifact
       rust-ota show-provides

Print the name of the installed artifact, or every key=value pair it provides.
";

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
    let mut version = false;
    let name = loop {
        match parser.next()? {
            Some(Arg::Short('c') | Arg::Long("config")) => {
                global.overrides.config = Some(parser.value()?.into())
            }
            Some(Arg::Short('b') | Arg::Long("fallback-config")) => {
                global.overrides.fallback_config = Some(parser.value()?.into());
            }
            Some(Arg::Short('d') | Arg::Long("datastore" | "data")) => {
                global.overrides.datastore = Some(parser.value()?.into());
            }
            Some(Arg::Short('L') | Arg::Long("log-file")) => global.log_file = Some(parser.value()?.into()),
            Some(Arg::Short('l') | Arg::Long("log-level")) => {
                global.log_level = Some(parser.value()?.string()?)
            }
            Some(Arg::Short('E') | Arg::Long("trusted-certs")) => {
                global.overrides.trusted_certs = Some(parser.value()?.string()?);
            }
            Some(Arg::Long("skipverify")) => global.overrides.skip_verify = true,
            Some(Arg::Long("json")) => global.json = true,
            Some(Arg::Long("passphrase-file")) => {
                global.overrides.passphrase_file = Some(parser.value()?.into())
            }
            Some(Arg::Long("syslog")) => global.syslog = true,
            Some(Arg::Long("no-syslog")) => global.syslog = false,
            Some(Arg::Short('v') | Arg::Long("version")) => version = true,
            Some(Arg::Short('h') | Arg::Long("help")) => {
                return Ok(Invocation { global, command: Command::Help(HELP) });
            }
            Some(Arg::Value(name)) => break name,
            Some(other) => return Err(other.unexpected().into()),
            None if version => return Ok(Invocation { global, command: Command::Version }),
            None => return Err(UsageError::NoCommand),
        }
    };
    if version {
        return Err(UsageError::Wrong("--version must be alone".into()));
    }
    // Of the two programs of the Mender client 5.x this one has the key and the token, and no updates.
    if program == "mender-auth" && !["daemon", "bootstrap", "help"].iter().any(|known| name == *known) {
        let name = name.to_string_lossy();
        return Err(UsageError::Wrong(format!("mender-auth has no command {name}; mender-update may have")));
    }
    let command = match name.to_str() {
        Some("daemon") => {
            let options =
                CommandOptions::parse(&mut parser, DAEMON_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::Daemon)
        }
        Some("bootstrap") => {
            let options = CommandOptions::parse(&mut parser, BOOTSTRAP_HELP, false, &mut global)?;
            let force = options.force;
            let options = CommandOptions { force: false, ..options }.without_any()?;
            options.help.unwrap_or(Command::Bootstrap { force })
        }
        Some("check-update") => {
            let options =
                CommandOptions::parse(&mut parser, DEMAND_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::CheckUpdate)
        }
        Some("send-inventory") => {
            let options =
                CommandOptions::parse(&mut parser, DEMAND_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::SendInventory)
        }
        Some("status") => {
            let options =
                CommandOptions::parse(&mut parser, STATUS_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::Status)
        }
        Some(word @ ("allow" | "refuse")) => {
            let mut options = CommandOptions::parse(&mut parser, ANSWER_HELP, true, &mut global)?;
            let (source, reason) = (options.source.take(), options.reason.take());
            if word == "allow" && reason.is_some() {
                return Err(UsageError::Wrong("--reason goes with refuse".into()));
            }
            let refused = (word == "refuse").then(|| reason.unwrap_or_else(|| "refused".into()));
            let unknown = |name: &OsString| {
                UsageError::Wrong(format!(
                    "{} is none of download, install, reboot and commit",
                    name.to_string_lossy()
                ))
            };
            let gate = match &source {
                None => None,
                Some(name) => Some(name.to_str().and_then(Gate::named).ok_or_else(|| unknown(name))?),
            };
            options.without_any()?.help.unwrap_or(Command::Answer { gate, refused })
        }
        Some("install") => {
            let options =
                CommandOptions::parse(&mut parser, INSTALL_HELP, true, &mut global)?.without_force()?;
            match (options.help, options.source) {
                (Some(help), _) => help,
                (None, Some(source)) => Command::Install {
                    source,
                    reboot_exit_code: options.reboot_exit_code,
                    stop_before: options.stop_before,
                },
                (None, None) => {
                    return Err(UsageError::Wrong(
                        "install needs a file, an address or - for standard input".into(),
                    ));
                }
            }
        }
        Some("resume") => {
            let options =
                CommandOptions::parse(&mut parser, RESUME_HELP, false, &mut global)?.without_force()?;
            let CommandOptions { reboot_exit_code, stop_before, .. } = options;
            options.help.unwrap_or(Command::Resume { reboot_exit_code, stop_before })
        }
        Some("commit") => {
            let options =
                CommandOptions::parse(&mut parser, COMMIT_HELP, false, &mut global)?.without_reboot()?;
            options.help.unwrap_or(Command::Commit { stop_before: options.stop_before })
        }
        Some("rollback") => {
            let options = CommandOptions::parse(&mut parser, ROLLBACK_HELP, false, &mut global)?;
            let to_other_slot = options.to_other_slot;
            let options = CommandOptions { to_other_slot: false, ..options }.without_reboot()?;
            let CommandOptions { stop_before, .. } = options;
            options.help.unwrap_or(Command::Rollback { stop_before, to_other_slot })
        }
        Some("show-artifact") => {
            let options = CommandOptions::parse(&mut parser, SHOW_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::ShowArtifact)
        }
        Some("show-provides") => {
            let options = CommandOptions::parse(&mut parser, SHOW_HELP, false, &mut global)?.without_any()?;
            options.help.unwrap_or(Command::ShowProvides)
        }
        Some("help") => Command::Help(HELP),
        Some(_) | None => {
            return Err(UsageError::Wrong(format!("unknown command {}", name.to_string_lossy())));
        }
    };
    Ok(Invocation { global, command })
}

/// Everything any command takes.
#[derive(Default)]
struct CommandOptions {
    source: Option<OsString>,
    reboot_exit_code: bool,
    to_other_slot: bool,
    stop_before: Vec<Stage>,
    force: bool,
    reason: Option<String>,
    help: Option<Command>,
}

impl CommandOptions {
    fn parse(
        parser: &mut Parser,
        help: &'static str,
        takes_source: bool,
        global: &mut Global,
    ) -> Result<CommandOptions, UsageError> {
        let mut options = CommandOptions::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("reboot-exit-code") => options.reboot_exit_code = true,
                Arg::Long("to-other-slot") => options.to_other_slot = true,
                Arg::Long("stop-before") => options.stop_before.push(stop_point(&parser.value()?.string()?)?),
                Arg::Short('F') | Arg::Long("forcebootstrap") => options.force = true,
                Arg::Long("reason") => options.reason = Some(parser.value()?.string()?),
                // The 3.x client takes it here.
                Arg::Long("passphrase-file") => {
                    global.overrides.passphrase_file = Some(parser.value()?.into())
                }
                Arg::Long("json") => global.json = true,
                Arg::Short('h') | Arg::Long("help") => options.help = Some(Command::Help(help)),
                Arg::Value(value) if takes_source && options.source.is_none() => options.source = Some(value),
                Arg::Value(value) => {
                    return Err(UsageError::Wrong(format!(
                        "unexpected argument {}",
                        value.to_string_lossy()
                    )));
                }
                other @ (Arg::Short(_) | Arg::Long(_)) => {
                    let (spelling, is_global) = match &other {
                        Arg::Short(letter) => (format!("-{letter}"), "cbdLlE".contains(*letter)),
                        Arg::Long(name) => (format!("--{name}"), GLOBAL_OPTIONS.contains(name)),
                        Arg::Value(_) => (String::new(), false),
                    };
                    return Err(match is_global {
                        true => UsageError::Wrong(format!(
                            "option {spelling} is for all commands and stands before the command: \
                             rust-ota {spelling} ... COMMAND"
                        )),
                        false => other.unexpected().into(),
                    });
                }
            }
        }
        Ok(options)
    }

    fn without_force(self) -> Result<CommandOptions, UsageError> {
        if self.reason.is_some() {
            return Err(UsageError::Wrong("--reason goes with refuse".into()));
        }
        if self.force {
            return Err(UsageError::Wrong("--forcebootstrap goes with bootstrap".into()));
        }
        if self.to_other_slot {
            return Err(UsageError::Wrong("--to-other-slot goes with rollback".into()));
        }
        Ok(self)
    }

    fn without_reboot(self) -> Result<CommandOptions, UsageError> {
        if self.reboot_exit_code {
            return Err(UsageError::Wrong("--reboot-exit-code goes with install and resume".into()));
        }
        self.without_force()
    }

    fn without_any(self) -> Result<CommandOptions, UsageError> {
        if !self.stop_before.is_empty() {
            return Err(UsageError::Wrong("--stop-before does not go with this command".into()));
        }
        self.without_reboot()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Invocation, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn global_options_come_before_the_command_in_both_spellings() {
        let invocation = words("mender-update -c a --datastore=b --log-level debug install x").unwrap();
        assert_eq!(invocation.global.overrides.config.as_deref(), Some(Path::new("a")));
        assert_eq!(invocation.global.overrides.datastore.as_deref(), Some(Path::new("b")));
        assert!(matches!(invocation.command, Command::Install { source, .. } if source == "x"));
        for behind in
            ["-c a x", "x -d b", "--datastore=b x", "x --log-level debug", "-E f x", "--skipverify x"]
        {
            let error = words(&format!("rust-ota install {behind}")).unwrap_err();
            assert!(error.contains("stands before the command: rust-ota -"), "{behind}: {error}");
        }
        assert!(words("rust-ota install -x a").unwrap_err().contains("invalid option '-x'"));
    }

    #[test]
    fn an_artifact_comes_from_the_web_or_from_a_file() {
        let of = |text: &str| Source::of(OsStr::new(text));
        let web = |text: &str| assert_eq!(of(text), Ok(Source::Web(text.into())));
        let local = |text: &str, path: &str| assert_eq!(of(text), Ok(Source::Local(path.into())), "{text}");
        web("http://h/a");
        web("HTTPS://h/a b");
        local("a.mender", "a.mender");
        local("./ftp://a", "./ftp://a");
        local("file:///tmp/my%20file%25.mender", "/tmp/my file%.mender");
        local("File://localhost/a", "/a");
        for text in ["file://a/b", "file://", "file:///a%2", "file:///a%+1", "ftp://h/a", "htp://h/a"] {
            assert!(of(text).is_err(), "{text}");
        }
        assert!(of("ftp://h/a").unwrap_err().contains("ftp:// is not supported"));
    }

    #[test]
    fn the_old_names_take_the_old_options() {
        assert!(words("/usr/bin/mender --no-syslog --data d commit").is_ok());
        let bootstrap = words("mender bootstrap --forcebootstrap --passphrase-file -").unwrap();
        assert_eq!(bootstrap.command, Command::Bootstrap { force: true });
        assert_eq!(bootstrap.global.overrides.passphrase_file.as_deref(), Some(Path::new("-")));
        assert_eq!(words("/usr/bin/mender-auth daemon").unwrap().command, Command::Daemon);
        assert!(words("mender-auth install x").unwrap_err().contains("mender-update"));
    }

    #[test]
    fn the_daemon_and_who_speaks_to_it_have_commands() {
        let check = |line: &str, expected: Command| assert_eq!(words(line).unwrap().command, expected);
        check("rust-ota daemon", Command::Daemon);
        check("rust-ota bootstrap", Command::Bootstrap { force: false });
        check("rust-ota bootstrap -F", Command::Bootstrap { force: true });
        check("mender-update check-update", Command::CheckUpdate);
        check("mender-update send-inventory", Command::SendInventory);
        check("rust-ota status --json", Command::Status);
        check("rust-ota allow", Command::Answer { gate: None, refused: None });
        check(
            "rust-ota refuse --reason no commit",
            Command::Answer { gate: Some(Gate::Commit), refused: Some("no".into()) },
        );
        assert!(words("rust-ota --json status").unwrap().global.json);
        assert!(words("rust-ota --syslog daemon").unwrap().global.syslog);
        assert!(!words("rust-ota --syslog --no-syslog daemon").unwrap().global.syslog);
    }

    #[test]
    fn a_roll_back_may_be_to_the_other_slot() {
        let check = |line: &str, to_other_slot| {
            let expected = Command::Rollback { stop_before: Vec::new(), to_other_slot };
            assert_eq!(words(line).unwrap().command, expected);
        };
        check("rust-ota rollback", false);
        check("mender-update rollback --to-other-slot", true);
    }

    #[test]
    fn stop_points_have_their_names_and_no_others() {
        let line =
            "rust-ota install --stop-before ArtifactInstall_Enter --stop-before=Cleanup --reboot-exit-code -";
        let expected = Command::Install {
            source: "-".into(),
            reboot_exit_code: true,
            stop_before: vec![Stage::Install, Stage::Cleanup],
        };
        assert_eq!(words(line).unwrap().command, expected);
        let error = words("rust-ota commit --stop-before Foo").unwrap_err();
        assert_eq!(error, "Value error: Cannot stop before unsupported state Foo");
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

    #[test]
    fn help_is_there_for_everything() {
        for line in [
            "rust-ota -h",
            "rust-ota install --help",
            "rust-ota commit -h",
            "rust-ota help",
            "rust-ota daemon -h",
            "rust-ota bootstrap -h",
            "rust-ota check-update -h",
            "rust-ota send-inventory -h",
            "rust-ota status -h",
            "rust-ota refuse -h",
        ] {
            assert!(matches!(words(line).unwrap().command, Command::Help(_)), "{line}");
        }
        assert_eq!(words("rust-ota -v").unwrap().command, Command::Version);
    }
}
