//! `daemon` and `bootstrap`, and what speaks to a daemon that runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::gates::Gate;
use client_core::text::printable;
use device::compose::Setup;
use linux::clock::LinuxClock;
use linux::daemon_process::{self, Demand};
use linux::signals;
use serde_json::{Value, json};
use service::{Service, ServiceError, Supervision, Surroundings, status};

use super::{exit, failed, prepare};
use crate::cli::{DaemonCommand, Invocation};
use crate::logger::ProcessLog;
use crate::printer::{print_json, print_line};

/// How long `check-update --json` waits for what comes of it.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const CHECK_AGAIN: Duration = Duration::from_millis(100);
/// What it tells of the status.
const CHECK_KEYS: [&str; 7] =
    ["stage", "deployment_id", "artifact_name", "cost", "waiting_before", "waiting_because", "last_error"];

/// Carries out a command about the daemon.
pub fn run(invocation: &Invocation, command: &DaemonCommand) -> u8 {
    let setup = match prepare(invocation) {
        Ok(setup) => setup,
        Err(error) => return failed(&error),
    };
    match command {
        DaemonCommand::Run => ended(invocation, run_service(setup)),
        DaemonCommand::Bootstrap { force } => {
            ended(invocation, service::bootstrap(&setup, *force).map_err(Into::into))
        }
        DaemonCommand::CheckUpdate if invocation.global.json => check_update(&setup),
        DaemonCommand::CheckUpdate => demand(&setup, Demand::CheckUpdate),
        DaemonCommand::SendInventory => demand(&setup, Demand::SendInventory),
        DaemonCommand::Status => print_status(invocation, &setup),
        DaemonCommand::Answer { gate, refused } => answer(invocation, &setup, *gate, refused.as_deref()),
    }
}

/// Why the daemon cannot run.
enum Failed {
    /// Signals cannot be handled.
    Signals(std::io::Error),
    /// The service cannot begin.
    Service(ServiceError),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Signals(error) => write!(f, "cannot handle signals: {error}"),
            Failed::Service(error) => error.fmt(f),
        }
    }
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Failed {
        Failed::Service(error)
    }
}

/// Runs the service in this process, which is there for nothing else.
fn run_service(setup: Setup) -> Result<(), Failed> {
    let clock = LinuxClock::new();
    let _stops = signals::handle(&clock).map_err(Failed::Signals)?;
    linux::process::hide_inherited_descriptors();
    let environment = |name: &str| std::env::var_os(name).map(Into::into);
    let supervision = Supervision::from_environment(environment, Arc::new(clock.clone()));
    let surroundings =
        Surroundings { clock, supervision, logs: Box::new(ProcessLog), gate: None, observer: None };
    Service::begin(Arc::new(setup), surroundings)?.run();
    Ok(())
}

fn ended(invocation: &Invocation, result: Result<(), Failed>) -> u8 {
    let Err(error) = result else { return exit::SUCCESS };
    // On standard error the message below says it.
    if invocation.global.log_file.is_some() || invocation.global.syslog {
        log::error!("{error}");
    }
    failed(&error)
}

/// Asks the running daemon for something. Needs no lock: the daemon has it.
fn demand(setup: &Setup, demand: Demand) -> u8 {
    match daemon_process::demand(&setup.pid_file(), setup.who_else_knows_the_daemon(), demand) {
        Ok(()) => exit::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Has the daemon ask the server, waits for what comes of it, and prints that: what is offered, and what it will cost. The
/// daemon knows that when it has read the artifact's header.
fn check_update(setup: &Setup) -> u8 {
    let ask = || status::ask(&setup.status_socket()).unwrap_or_default();
    let clock = LinuxClock::new();
    let before = ask();
    let code = demand(setup, Demand::CheckUpdate);
    if code != exit::SUCCESS {
        return code;
    }
    let (mut now, mut answered) = (Value::Null, false);
    let until = clock.now() + CHECK_PATIENCE;
    while !answered && !before.is_null() && clock.now() < until {
        clock.pause(CHECK_AGAIN);
        now = ask();
        let has_begun = !now["deployment_id"].is_null() && !now["cost"].is_null();
        let is_over =
            now["checks"] != before["checks"] && (now["stage"] == "idle" || now["stage"] == "waiting");
        answered = has_begun || is_over;
    }
    let mut object = json!({ "command": "check-update", "exit_code": code, "answered": answered });
    for key in CHECK_KEYS {
        object[key] = now[key].take();
    }
    print_json(&object);
    code
}

/// Prints what the running daemon is doing.
fn print_status(invocation: &Invocation, setup: &Setup) -> u8 {
    match status::ask(&setup.status_socket()) {
        Ok(status) => print(invocation, &status, &status::shown(&status)),
        Err(error) => failed(&error),
    }
}

/// Decides about a deployment that waits.
fn answer(invocation: &Invocation, setup: &Setup, gate: Option<Gate>, refused: Option<&str>) -> u8 {
    match status::decide(&setup.status_socket(), gate, refused) {
        Ok(answer) => {
            let word = if refused.is_some() { "Refused" } else { "Allowed" };
            let text = |key: &str| answer[key].as_str().unwrap_or_default();
            let line = format!("{word} before {}: deployment {}.", text("gate"), text("deployment_id"));
            print(invocation, &answer, &printable(&line))
        }
        Err(error) => failed(&error),
    }
}

/// Prints `object` where JSON was asked for, and `lines` otherwise.
fn print(invocation: &Invocation, object: &Value, lines: &str) -> u8 {
    if invocation.global.json {
        print_json(object);
    } else {
        print_line(lines);
    }
    exit::SUCCESS
}
