//! `doctor`: what is right and what is wrong with this board.

use std::time::Duration;

use device::compose::ComposeError;
use doctor::{Options, World, examine};

use super::failed;
use crate::cli::Invocation;
use crate::logger::{self, Destination};
use crate::printer::{print_json, print_line};

/// How long a server may take to be connected with.
const CONNECTING: Duration = Duration::from_secs(5);

/// Looks, and prints what it saw. What is found is on standard output; the log has no file, because none is made here.
pub fn run(invocation: &Invocation, offline: bool) -> u8 {
    let name = invocation.global.log_level.as_deref().unwrap_or("error");
    let Some(level) = logger::level(name) else { return failed(&ComposeError::LogLevel(name.to_owned())) };
    if let Err(error) = logger::start(level, Destination::StandardError) {
        return failed(&error);
    }
    let options =
        Options { connecting: (!offline).then_some(CONNECTING), serves_add_ons: cfg!(feature = "dbus") };
    let environment = |name: &str| std::env::var_os(name).map(Into::into);
    let report = examine(&invocation.global.overrides, environment, &World::here(), &options);
    if invocation.global.json {
        print_json(&report.json());
    } else {
        print_line(&report.lines());
    }
    report.exit_code()
}
