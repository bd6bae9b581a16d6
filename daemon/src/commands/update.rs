//! `install`, `resume`, `commit` and `rollback`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;

use client_core::artifact::Supply;
use client_core::deploy::{Options, Summary};
use device::artifact_file;
use device::client::{Client, ClientError};
use device::compose::Setup;

use super::{could_not, exit, failed, prepare};
use crate::cli::{Invocation, Source, Update, Verb};
use crate::printer::{self, Printer};

/// Works on the device, and says how that went.
pub fn run(invocation: &Invocation, update: &Update) -> u8 {
    let setup = match prepare(invocation) {
        Ok(setup) => setup,
        Err(error) => return failed(&error),
    };
    let mut printer = Printer::new(invocation.global.json);
    let result = match Client::open(&setup, &mut printer) {
        Ok(mut client) => work(&mut client, &setup, update),
        Err(error) => return failed(&error),
    };
    match result {
        Ok(summary) => ended(&printer, update, &summary),
        Err(error) => not_begun(&printer, update, &error),
    }
}

fn work(client: &mut Client<'_>, setup: &Setup, update: &Update) -> Result<Summary, ClientError> {
    let options = Options { stop_before: update.stop_before.clone() };
    match &update.verb {
        Verb::Install(source) => client.install(&mut || open_source(source, setup), &options),
        Verb::Resume => client.resume(&options),
        Verb::Commit => client.commit(&options),
        Verb::RollBack => client.roll_back(&options),
        Verb::TryOtherSlot => client.try_other_slot(&options),
    }
}

/// What the JSON object calls the command.
fn name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Install(_) => "install",
        Verb::Resume => "resume",
        Verb::Commit => "commit",
        Verb::RollBack | Verb::TryOtherSlot => "rollback",
    }
}

fn ended(printer: &Printer, update: &Update, summary: &Summary) -> u8 {
    if let Some(error) = &summary.error {
        could_not(&printer::sentence(error));
    }
    let code = exit::of_summary(summary, update.reboot_exit_code);
    printer.print_summary(name(&update.verb), code, summary);
    code
}

fn not_begun(printer: &Printer, update: &Update, error: &ClientError) -> u8 {
    let code = exit::of_error(error);
    let message = match error {
        ClientError::Deploy(error) => printer::sentence(error),
        ClientError::Compose(error) => error.to_string(),
    };
    if code != exit::NOTHING_IN_PROGRESS {
        could_not(&message);
    }
    printer.print_error(name(&update.verb), code, &message);
    code
}

fn open_source(source: &OsStr, setup: &Setup) -> io::Result<Supply> {
    if source == "-" {
        return Ok(io::stdin().into());
    }
    let path = match Source::of(source).map_err(io::Error::other)? {
        Source::Web(url) => return setup.open_url(&url),
        Source::Local(path) => path,
    };
    File::open(&path)
        .and_then(artifact_file::supply)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())))
}
