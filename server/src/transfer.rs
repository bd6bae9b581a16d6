//! `move` and `backup`: a fleet goes from one place to another.

use std::path::PathBuf;

use lexopt::prelude::*;
use serde_json::json;
use server_core::StoreError;
use server_core::transfer::{Moved, Place, backup, move_fleet};

use crate::console::{CliError, help_of, print};
use crate::database;

/// Moves a fleet.
pub(crate) fn run_move(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut from, mut to, mut artifacts, mut is_json) = (None, None, None, false);
    let mut database = database::Typed::default();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return help_of("move"),
            Long(name) => name.to_owned(),
            other @ (Short(_) | Value(_)) => return Err(other.unexpected().into()),
        };
        match name.as_str() {
            "from" => from = Some(parser.value()?.string()?),
            "to" => to = Some(parser.value()?.string()?),
            "artifacts" => artifacts = Some(PathBuf::from(parser.value()?)),
            "json" => is_json = true,
            name if name != "database" && database.takes(name, &mut parser)? => {}
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    let missing = |name: &str| CliError::Failed(format!("--{name} is missing (try --help)"));
    let place = |text: String| {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Place::Database(database.at(&text), artifacts.clone())
        } else {
            Place::Folder(PathBuf::from(text))
        }
    };
    let from = place(from.ok_or_else(|| missing("from"))?);
    let to = place(to.ok_or_else(|| missing("to"))?);
    report(is_json, "moved", move_fleet(&from, &to, &mut progress(is_json)))
}

/// Copies a fleet.
pub(crate) fn run_backup(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut data, mut to, mut is_json) = (None, None, false);
    let mut database = database::Typed::default();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return help_of("backup"),
            Long(name) => name.to_owned(),
            other @ (Short(_) | Value(_)) => return Err(other.unexpected().into()),
        };
        match name.as_str() {
            "data" => data = Some(PathBuf::from(parser.value()?)),
            "to" => to = Some(PathBuf::from(parser.value()?)),
            "json" => is_json = true,
            name if database.takes(name, &mut parser)? => {}
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    let missing = |name: &str| CliError::Failed(format!("--{name} is missing (try --help)"));
    let from = match (database.wanted()?, data) {
        (Some(database), data) => Place::Database(database, data),
        (None, Some(data)) => Place::Folder(data),
        (None, None) => return Err(missing("data")),
    };
    let to = to.ok_or_else(|| missing("to"))?;
    report(is_json, "copied", backup(&from, &to, &mut progress(is_json)))
}

/// Says how far it is, for people.
fn progress(is_json: bool) -> impl FnMut(&Moved) + Send {
    move |moved| {
        if !is_json {
            eprintln!("{} rows", moved.rows());
        }
    }
}

fn report(is_json: bool, did: &str, ended: Result<Moved, StoreError>) -> Result<(), CliError> {
    let moved = ended.map_err(|error| CliError::Failed(error.to_string()))?;
    let Moved { devices, deployments, records, logs, documents, events, artifacts, .. } = &moved;
    if is_json {
        let said = json!({
            "devices": devices, "deployments": deployments, "records": records, "logs": logs, "documents": documents,
            "events": events, "artifacts": artifacts, "missing_artifacts": moved.missing_artifacts,
        });
        return print(&format!("{said}\n"));
    }
    for id in &moved.missing_artifacts {
        eprintln!("not there: artifact {id}");
    }
    print(&format!(
        "{did} {devices} devices, {deployments} deployments on {records} devices, {logs} logs, {documents} documents, {events} \
         events and {artifacts} artifacts\n"
    ))
}
