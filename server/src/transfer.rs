//! `move` and `backup`: a fleet goes from one place to another.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use artifact::text::printable_lines;
use lexopt::prelude::*;
use serde_json::json;
use server_core::transfer::{Artifacts, Moved, Place, Ways, backup, move_fleet};
use server_core::{S3Options, StoreError};

use crate::console::{CliError, help_of, print};
use crate::database;
use crate::value::OptionValue;

/// How often it is said how far it is.
const SAID: Duration = Duration::from_secs(1);

/// What was typed about artifacts.
#[derive(Default)]
struct Typed {
    from: Option<String>,
    to: Option<String>,
    s3: Vec<Box<dyn Fn(S3Options) -> S3Options>>,
}

impl Typed {
    /// Takes an option if it is one of these.
    fn takes(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, CliError> {
        match name {
            "from-artifacts" => self.from = Some(OptionValue::of(name, parser)?.text()?),
            "to-artifacts" => self.to = Some(OptionValue::of(name, parser)?.text()?),
            "s3-endpoint" => self.s3(OptionValue::of(name, parser)?.url()?, S3Options::endpoint),
            "s3-region" => self.s3(OptionValue::of(name, parser)?.text()?, S3Options::region),
            "s3-allow-http" => self.s3.push(Box::new(|options| options.allow_http(true))),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn s3(&mut self, value: String, change: fn(S3Options, &str) -> S3Options) {
        self.s3.push(Box::new(move |options| change(options, &value)));
    }

    /// `s3://BUCKET/PREFIX`, or a data folder.
    fn place(&self, text: &str) -> Artifacts {
        let Some(rest) = text.strip_prefix("s3://") else { return Artifacts::Folder(PathBuf::from(text)) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let options = S3Options::default().bucket(bucket).prefix(prefix);
        Artifacts::S3(Box::new(self.s3.iter().fold(options, |options, change| change(options))))
    }

    fn ways(&self) -> Ways {
        let place = |text: &Option<String>| text.as_deref().map(|text| self.place(text));
        Ways { from: place(&self.from), to: place(&self.to) }
    }
}

/// Moves a fleet.
pub(crate) fn run_move(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut from, mut to, mut beside, mut is_json) = (None, None, None, false);
    let mut database = database::Typed::default();
    let mut artifacts = Typed::default();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return help_of("move"),
            Long(name) => name.to_owned(),
            other @ (Short(_) | Value(_)) => return Err(other.unexpected().into()),
        };
        match name.as_str() {
            "from" => from = Some(OptionValue::of(&name, &mut parser)?.secret()?),
            "to" => to = Some(OptionValue::of(&name, &mut parser)?.secret()?),
            "artifacts" => beside = Some(OptionValue::of(&name, &mut parser)?.text()?),
            "json" => is_json = true,
            name if artifacts.takes(name, &mut parser)? => {}
            name if name != "database" && database.takes(name, &mut parser)? => {}
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    let place = |name: &str, text: Option<String>| {
        let text = text.ok_or_else(|| CliError::missing(name))?;
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return database.at(name, &text).map(Place::Database);
        }
        Ok(Place::Folder(PathBuf::from(text)))
    };
    let from = place("from", from)?;
    let to = place("to", to)?;
    // Those of the database, on whichever side it is.
    if matches!(from, Place::Database(_)) {
        artifacts.from = artifacts.from.or(beside.clone());
    }
    if matches!(to, Place::Database(_)) {
        artifacts.to = artifacts.to.or(beside);
    }
    report(is_json, "moved", move_fleet(&from, &to, &artifacts.ways(), &mut progress(is_json)))
}

/// Copies a fleet.
pub(crate) fn run_backup(mut parser: lexopt::Parser) -> Result<(), CliError> {
    let (mut data, mut to, mut is_json) = (None, None, false);
    let mut database = database::Typed::default();
    let mut artifacts = Typed::default();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return help_of("backup"),
            Long(name) => name.to_owned(),
            other @ (Short(_) | Value(_)) => return Err(other.unexpected().into()),
        };
        match name.as_str() {
            "data" => data = Some(OptionValue::of(&name, &mut parser)?.text()?),
            "to" => to = Some(OptionValue::of(&name, &mut parser)?.path()?),
            "json" => is_json = true,
            name if artifacts.takes(name, &mut parser)? => {}
            name if database.takes(name, &mut parser)? => {}
            name => return Err(lexopt::Error::UnexpectedOption(format!("--{name}")).into()),
        }
    }
    let from = match (database.wanted()?, data) {
        (Some(database), data) => {
            artifacts.from = artifacts.from.or(data);
            Place::Database(database)
        }
        (None, Some(data)) => Place::Folder(PathBuf::from(data)),
        (None, None) => return Err(CliError::missing("data")),
    };
    let to = to.ok_or_else(|| CliError::missing("to"))?;
    report(is_json, "copied", backup(&from, &to, &artifacts.ways(), &mut progress(is_json)))
}

/// Says how far it is, for people: not more often than they read.
fn progress(is_json: bool) -> impl FnMut(&Moved) + Send {
    let mut last: Option<Instant> = None;
    move |moved| {
        if is_json || last.is_some_and(|last| last.elapsed() < SAID) {
            return;
        }
        last = Some(Instant::now());
        let Moved { artifacts, artifacts_before: before, artifact_bytes: bytes, .. } = moved;
        eprintln!("so far {} rows, {artifacts} artifacts ({bytes} bytes), {before} were there", moved.rows());
    }
}

fn report(is_json: bool, did: &str, ended: Result<Moved, StoreError>) -> Result<(), CliError> {
    let moved = ended.map_err(|error| CliError::Failed(error.to_string()))?;
    let Moved { devices, deployments, records, logs, documents, events, artifacts, .. } = &moved;
    let before = moved.artifacts_before;
    if is_json {
        let said = json!({
            "devices": devices, "deployments": deployments, "records": records, "logs": logs, "documents": documents,
            "events": events, "artifacts": artifacts, "artifact_bytes": moved.artifact_bytes, "artifacts_before": before,
            "artifacts_left": moved.artifacts_left, "missing_artifacts": moved.missing_artifacts,
            "damaged": moved.damaged,
        });
        print(&format!("{said}\n"))?;
    } else {
        if moved.artifacts_left > 0 {
            let left = moved.artifacts_left;
            eprintln!(
                "{left} artifacts of the fleet stay where they are: --to-artifacts copies them (try --help)"
            );
        }
        for id in &moved.missing_artifacts {
            eprintln!("not there: artifact {id}");
        }
        for what in &moved.damaged {
            eprintln!("cannot be read: {}", printable_lines(what));
        }
        let there = if before > 0 { format!("; {before} more were there") } else { String::new() };
        print(&format!(
            "{did} {devices} devices, {deployments} deployments on {records} devices, {logs} logs, {documents} documents, \
             {events} events and {artifacts} artifacts{there}\n"
        ))?;
    }
    let missing = [
        ("artifacts of the fleet are missing or damaged", moved.missing_artifacts.len()),
        ("records cannot be read", moved.damaged.len()),
    ];
    let missing = missing.iter().filter(|(_, count)| *count > 0);
    let missing: Vec<String> = missing.map(|(what, count)| format!("{what}: {count}")).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(CliError::NotAll(format!("everything else was {did}, but {}", missing.join(", and ")))),
    }
}
