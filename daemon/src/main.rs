//! `rust-ota`: the command line of the update client. Also answers to the names `mender-update` and `mender`.
//!
//! It wires `client-core` to Linux and says what happened; it decides nothing about updates.
#![forbid(unsafe_code)]
// A program has no public items: `pub` marks what other modules use.
#![allow(unreachable_pub)]

mod agent;
mod cli;
#[cfg(feature = "dbus")]
mod dbus;
mod deployment_log;
mod exit;
#[cfg(feature = "dbus")]
mod local_proxy;
mod logger;
mod notify;
mod standalone;
mod status;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::gates::{AlwaysOpen, Gate};
use client_core::deploy::record::Record;
use client_core::deploy::stage::Stage;
use client_core::deploy::{self, DeployError, Device, NoReporter, Options, Policy, Summary};
use client_core::server::{Download, ServerError};
use client_core::state_store::StateError;
use client_core::text::printable;

use linux::daemon_process::{self, Demand};
use linux::regular_file;
use linux::waiter::LinuxClock;

use crate::agent::AgentError;
use crate::cli::{Command, Invocation, UsageError};
use crate::logger::Destination;
use crate::standalone::{Printer, print_json, print_line};
use device::compose::{ComposeError, For, Readable, Setup};
use device::gates::{Desk, Gates};

/// Longest time for a connection that somebody waits for.
const CONNECT_AT_PROMPT: Duration = Duration::from_secs(10);
/// How often `install` begins again with what became another thing while it was transferred.
const BEGINNINGS: u32 = 3;

fn main() -> ExitCode {
    // A file must never be group-writable because of the environment this was started in.
    linux::process::set_private_umask();
    let code = match cli::parse(std::env::args_os()) {
        Ok(invocation) => {
            let code = run(&invocation);
            // What a command did is worth more than what it printed; some do nothing else.
            if prints_only(&invocation.command) {
                exit::of_printing(code, standalone::all_was_printed())
            } else {
                code
            }
        }
        Err(error) => {
            if matches!(error, UsageError::NoCommand) {
                print_line(cli::HELP.trim_end());
            }
            could_not(&error);
            exit::FAILURE
        }
    };
    ExitCode::from(code)
}

/// Whether a command has no other purpose than to print: then it reads, and writes nothing.
fn prints_only(command: &Command) -> bool {
    match command {
        Command::Help(_)
        | Command::Version
        | Command::Status
        | Command::ShowArtifact
        | Command::ShowProvides => true,
        Command::Daemon
        | Command::Bootstrap { .. }
        | Command::CheckUpdate
        | Command::SendInventory
        | Command::Answer { .. }
        | Command::Install { .. }
        | Command::Resume { .. }
        | Command::Commit { .. }
        | Command::Rollback { .. } => false,
    }
}

fn could_not(error: &dyn std::fmt::Display) {
    let error = error.to_string();
    let is_refused =
        ["Permission denied", "Operation not permitted"].iter().any(|words| error.contains(words));
    let hint = if is_refused && !linux::process::is_root() { " (this user is not root)" } else { "" };
    eprintln!("Could not fulfill request: {}{hint}", printable(&error));
}

fn run(invocation: &Invocation) -> u8 {
    match &invocation.command {
        Command::Help(text) => {
            print_line(text.trim_end());
            return exit::SUCCESS;
        }
        Command::Version => {
            print_line(env!("CARGO_PKG_VERSION"));
            return exit::SUCCESS;
        }
        Command::Daemon => {
            return with_setup(invocation, |setup| agent::run(setup, give_a_name));
        }
        Command::Bootstrap { force } => {
            return with_setup(invocation, |setup| agent::bootstrap(setup, *force));
        }
        Command::CheckUpdate => return demand(invocation, Demand::CheckUpdate),
        Command::SendInventory => return demand(invocation, Demand::SendInventory),
        Command::Status => return status_command(invocation),
        Command::Answer { gate, refused } => return answer_command(invocation, *gate, refused.as_deref()),
        Command::ShowArtifact => return show(invocation, show_artifact),
        Command::ShowProvides => return show(invocation, show_provides),
        Command::Install { .. }
        | Command::Resume { .. }
        | Command::Commit { .. }
        | Command::Rollback { .. } => {}
    }
    let done = prepare(invocation).and_then(|setup| {
        let _lock = setup.lock()?;
        with_device(invocation, &setup)
    });
    done.unwrap_or_else(|error| {
        could_not(&error);
        exit::FAILURE
    })
}

/// A command that is about the daemon.
fn with_setup(invocation: &Invocation, work: impl FnOnce(&Setup) -> Result<(), AgentError>) -> u8 {
    let setup = match prepare(invocation) {
        Ok(setup) => setup,
        Err(error) => {
            could_not(&error);
            return exit::FAILURE;
        }
    };
    match work(&setup) {
        Ok(()) => exit::SUCCESS,
        Err(error) => {
            // On standard error the message below says it.
            if invocation.global.log_file.is_some() || invocation.global.syslog {
                log::error!("{error}");
            }
            could_not(&error);
            exit::FAILURE
        }
    }
}

/// Gives a device that has no artifact name one. Where that fails, the server is told what is known.
fn give_a_name(setup: &Setup) {
    let named = setup.lock().map_err(|error| error.to_string()).and_then(|_lock| {
        let mut state = setup.open_state().map_err(|error| error.to_string())?;
        let (mut boot, mut slots) = (setup.boot(), setup.slots());
        let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
        let mut device = Device {
            boot: &mut boot,
            slots: &mut slots,
            system: &setup.system(),
            modules: &mut setup.modules(Arc::clone(&clock)),
            state: &mut state,
            scripts: &mut setup.scripts(clock),
            observer: &mut Printer::new(true),
            gates: &mut AlwaysOpen,
            reporter: &mut NoReporter,
        };
        bootstrap(&mut device, setup).map_err(|error| error.to_string())
    });
    if let Err(reason) = named {
        log::error!("{reason}");
    }
}

/// Prints what the running daemon is doing.
fn status_command(invocation: &Invocation) -> u8 {
    let asked = prepare(invocation)
        .map_err(|error| error.to_string())
        .and_then(|setup| status::ask(&setup.status_socket()).map_err(|error| error.to_string()));
    match asked {
        Ok(status) if invocation.global.json => print_json(&status),
        Ok(status) => print_line(&status::shown(&status)),
        Err(error) => {
            could_not(&error);
            return exit::FAILURE;
        }
    }
    exit::SUCCESS
}

/// Decides about a deployment that waits.
fn answer_command(invocation: &Invocation, gate: Option<Gate>, refused: Option<&str>) -> u8 {
    let decided = prepare(invocation).map_err(|error| error.to_string()).and_then(|setup| {
        status::decide(&setup.status_socket(), gate, refused).map_err(|error| error.to_string())
    });
    match decided {
        Ok(answer) if invocation.global.json => print_json(&answer),
        Ok(answer) => {
            let word = if refused.is_some() { "Refused" } else { "Allowed" };
            let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
            let line = format!("{word} before {}: deployment {}.", text("gate"), text("deployment_id"));
            print_line(&printable(&line));
        }
        Err(error) => {
            could_not(&error);
            return exit::FAILURE;
        }
    }
    exit::SUCCESS
}

/// Asks the running daemon for something. Needs no lock: the daemon has it.
fn demand(invocation: &Invocation, demand: Demand) -> u8 {
    let asked = prepare(invocation).map_err(|error| error.to_string()).and_then(|setup| {
        let otherwise = setup.who_else_knows_the_daemon();
        daemon_process::demand(&setup.pid_file(), otherwise, demand).map_err(|error| error.to_string())
    });
    match asked {
        Ok(()) => exit::SUCCESS,
        Err(error) => {
            could_not(&error);
            exit::FAILURE
        }
    }
}

/// Reads the configuration and starts logging.
fn prepare(invocation: &Invocation) -> Result<Setup, ComposeError> {
    let global = &invocation.global;
    let for_whom = match &invocation.command {
        // Those that speak to the daemon have to find it where it is.
        Command::Daemon
        | Command::CheckUpdate
        | Command::SendInventory
        | Command::Status
        | Command::Answer { .. } => For::Daemon,
        Command::Install { .. }
        | Command::Resume { .. }
        | Command::Commit { .. }
        | Command::Rollback { .. }
        | Command::ShowArtifact
        | Command::ShowProvides
        | Command::Bootstrap { .. }
        | Command::Version
        | Command::Help(_) => For::Command,
    };
    let readable = if prints_only(&invocation.command) { Readable::ByThisUser } else { Readable::All };
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
        path: global.log_file.as_deref().unwrap_or(std::path::Path::new("")).display().to_string(),
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

/// Why a command ended before the deployment could say anything.
#[derive(Debug)]
enum CommandError {
    Compose(ComposeError),
    Deploy(DeployError),
}

impl std::fmt::Display for CommandError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CommandError::Compose(error) => error.fmt(f),
            CommandError::Deploy(error) => error.fmt(f),
        }
    }
}

impl From<ComposeError> for CommandError {
    fn from(error: ComposeError) -> CommandError {
        CommandError::Compose(error)
    }
}

fn with_device(invocation: &Invocation, setup: &Setup) -> Result<u8, ComposeError> {
    let json = invocation.global.json;
    let mut state = setup.open_state()?;
    let mut boot = setup.boot();
    let mut slots = setup.slots();
    let system = setup.system();
    let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
    let mut scripts = setup.scripts(Arc::clone(&clock));
    let mut modules = setup.modules(Arc::clone(&clock));
    let mut gates = Gates::of_commands(&setup.config, Desk::default(), clock);
    let mut printer = Printer::new(json);
    let mut device = Device {
        boot: &mut boot,
        slots: &mut slots,
        system: &system,
        modules: &mut modules,
        state: &mut state,
        scripts: &mut scripts,
        observer: &mut printer,
        gates: &mut gates,
        reporter: &mut NoReporter,
    };
    let options = |stop_before: &[Stage]| Options { stop_before: stop_before.to_vec() };
    let (name, reboot_exit_code, result) = match &invocation.command {
        Command::Install { source, reboot_exit_code, stop_before } => {
            let result = bootstrap(&mut device, setup)
                .map_err(CommandError::Deploy)
                .and_then(|()| Ok(setup.policy()?))
                .and_then(|policy| install(&mut device, setup, source, &policy, &options(stop_before)));
            ("install", *reboot_exit_code, result)
        }
        Command::Resume { reboot_exit_code, stop_before } => {
            let result = deploy::resume(&mut device, &options(stop_before)).map_err(CommandError::Deploy);
            ("resume", *reboot_exit_code, result)
        }
        Command::Commit { stop_before } => (
            "commit",
            false,
            deploy::commit(&mut device, &options(stop_before)).map_err(CommandError::Deploy),
        ),
        Command::Rollback { stop_before, to_other_slot } => {
            let go_back = if *to_other_slot { deploy::try_other_slot } else { deploy::roll_back };
            let result = go_back(&mut device, &options(stop_before));
            ("rollback", false, result.map_err(CommandError::Deploy))
        }
        Command::ShowArtifact
        | Command::ShowProvides
        | Command::Daemon
        | Command::Bootstrap { .. }
        | Command::CheckUpdate
        | Command::SendInventory
        | Command::Status
        | Command::Answer { .. }
        | Command::Help(_)
        | Command::Version => return Ok(exit::SUCCESS),
    };
    Ok(match result {
        Ok(summary) => {
            if let Some(error) = &summary.error {
                could_not(error);
            }
            let code = exit::of_summary(&summary, reboot_exit_code);
            printer.print_summary(name, code, &summary);
            code
        }
        Err(error) => {
            let code = match &error {
                CommandError::Compose(_) => exit::FAILURE,
                CommandError::Deploy(error) => exit::of_error(error),
            };
            if code != exit::NOTHING_IN_PROGRESS {
                could_not(&error);
            }
            printer.print_error(name, code, &error.to_string());
            code
        }
    })
}

fn install(
    device: &mut Device<'_>,
    setup: &Setup,
    source: &OsStr,
    policy: &Policy,
    options: &Options,
) -> Result<Summary, CommandError> {
    let mut beginning = 1;
    loop {
        let opened = open_source(source, setup);
        let reader: Box<dyn Read + Send> = match opened {
            Ok(reader) => reader,
            // The deployment says what follows from it: nothing was modified.
            Err(error) => Box::new(Broken(Some(error))),
        };
        let summary = deploy::install(device, reader, policy, options).map_err(CommandError::Deploy)?;
        match &summary.error {
            Some(error) if has_become_another(error) && beginning < BEGINNINGS => {
                log::warn!("{error}; beginning again ({beginning} of {} times)", BEGINNINGS - 1);
                beginning += 1;
            }
            Some(_) | None => return Ok(summary),
        }
    }
}

/// Whether what was transferred became another thing in the middle, so that a new beginning may go better.
fn has_become_another(error: &DeployError) -> bool {
    matches!(Download::cause(error), Some(ServerError::ContentChanged { .. }))
}

fn open_source(source: &OsStr, setup: &Setup) -> io::Result<Box<dyn Read + Send>> {
    if source == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let path = match cli::Source::of(source).map_err(io::Error::other)? {
        cli::Source::Web(url) => return open_url(&url, setup).map_err(io::Error::other),
        cli::Source::Local(path) => path,
    };
    let file = File::open(&path).and_then(|file| {
        if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    match file {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))),
    }
}

/// An artifact from a web server: asked for now, read as it comes.
fn open_url(
    url: &str,
    setup: &Setup,
) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
    let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
    let transport = setup.http_transport(Arc::clone(&clock))?.connecting_within(CONNECT_AT_PROMPT);
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        transport.check()?;
    }
    let settings = setup.download_settings_at_prompt();
    let download = Download::open(url, Box::new(transport), clock, settings)?;
    Ok(Box::new(download))
}

/// A source that could not be opened.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }
}

/// Gives a device that has no artifact name one, and removes the bootstrap artifact in any case.
fn bootstrap(device: &mut Device<'_>, setup: &Setup) -> Result<(), DeployError> {
    let path = setup.bootstrap_path();
    let source = match regular_file::open_for_reading(&path) {
        Ok(file) => Some(Box::new(file) as Box<dyn Read + Send>),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                log::warn!("cannot open {}: {error}", path.display());
            }
            None
        }
    };
    let found = source.is_some();
    let result = deploy::bootstrap(device, source, &client_core::artifact::Limits::default());
    if found {
        if let Err(error) = std::fs::remove_file(&path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
    result
}

/// `show-artifact` and `show-provides`: they read and write nothing, so that every user may ask, in the middle of an update
/// and on a data partition that cannot be written any more.
fn show(invocation: &Invocation, print: fn(&Record, bool)) -> u8 {
    let shown = prepare(invocation).and_then(|setup| {
        setup.check_that_the_datastore_leads_somewhere()?;
        let mut record = match setup.read_record() {
            Ok(record) => record.unwrap_or_default(),
            Err(ComposeError::State(StateError::Io { source, doing, device }))
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                return Err(ComposeError::State(StateError::Io { source, doing, device }));
            }
            Err(error) => {
                log::error!("the record is lost: {error}");
                Record::after_loss(&error.to_string())
            }
        };
        if record.installed.artifact_name.is_none() {
            foresee_bootstrap(&setup, &mut record);
        }
        print(&record, invocation.global.json);
        Ok(exit::SUCCESS)
    });
    shown.unwrap_or_else(|error| {
        could_not(&error);
        exit::FAILURE
    })
}

/// What the next process that works on the device will make of the bootstrap artifact.
fn foresee_bootstrap(setup: &Setup, record: &mut Record) {
    let path = setup.bootstrap_path();
    let Ok(file) = regular_file::open_for_reading(&path) else { return };
    let limits = client_core::artifact::Limits::default();
    if let Err(error) = deploy::bootstrap_provides(&setup.system(), record, Box::new(file), &limits) {
        log::warn!("{} says nothing: {error}", path.display());
    }
}

fn show_artifact(record: &Record, json: bool) {
    let name = record.installed.name();
    if json {
        print_json(&serde_json::json!({ "artifact_name": name }));
    } else {
        print_line(&printable(name));
    }
}

fn show_provides(record: &Record, json: bool) {
    let all = record.installed.all();
    if json {
        print_json(&serde_json::json!(all));
        return;
    }
    for (key, value) in all {
        print_line(&printable(&format!("{key}={value}")));
    }
}
