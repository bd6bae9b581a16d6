//! `daemon` and `bootstrap`, and what speaks to a daemon that runs.

use client_core::deploy::gates::Gate;
use client_core::text::printable;
use device::compose::Setup;
use linux::daemon_process::{self, Demand};
use serde_json::Value;

use super::{exit, failed, prepare};
use crate::agent::{self, AgentError};
use crate::cli::{DaemonCommand, Invocation};
use crate::printer::{print_json, print_line};
use crate::status;

/// Carries out a command about the daemon.
pub fn run(invocation: &Invocation, command: &DaemonCommand) -> u8 {
    let setup = match prepare(invocation) {
        Ok(setup) => setup,
        Err(error) => return failed(&error),
    };
    match command {
        DaemonCommand::Run => ended(invocation, agent::run(&setup)),
        DaemonCommand::Bootstrap { force } => ended(invocation, agent::bootstrap(&setup, *force)),
        DaemonCommand::CheckUpdate => demand(&setup, Demand::CheckUpdate),
        DaemonCommand::SendInventory => demand(&setup, Demand::SendInventory),
        DaemonCommand::Status => print_status(invocation, &setup),
        DaemonCommand::Answer { gate, refused } => answer(invocation, &setup, *gate, refused.as_deref()),
    }
}

fn ended(invocation: &Invocation, result: Result<(), AgentError>) -> u8 {
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
