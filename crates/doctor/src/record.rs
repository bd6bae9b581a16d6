//! What is recorded: what is installed, and a deployment that was left in the middle.

use client_core::deploy::record::Record;
use device::compose::Setup;

use crate::finding::{self as check, Finding, add};

/// The record; `None` inside where nothing was recorded yet.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) record: Result<Option<Record>, String>,
}

impl Facts {
    /// Whether a deployment is in progress.
    pub(crate) fn in_progress(&self) -> bool {
        matches!(&self.record, Ok(Some(record)) if record.deployment.is_some())
    }
}

pub(crate) fn gather(setup: &Setup) -> Facts {
    Facts { record: setup.read_record().map_err(|error| error.to_string()) }
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let record =
        match &facts.record {
            Ok(Some(record)) => record,
            Ok(None) => {
                return vec![check::RECORD.found(format_args!(
                    "nothing was recorded yet: no artifact was installed by this client"
                ))];
            }
            Err(error) if error.contains("Permission denied") => return Vec::new(),
            Err(error) => return vec![check::RECORD_UNREADABLE.found(format_args!("{error}"))],
        };
    let mut said = Vec::new();
    if let Some(lost) = &record.lost {
        add(
            &mut said,
            &check::RECORD_LOST,
            format_args!("the record was lost, and what is installed is unknown: {}", lost.reason),
        );
    }
    if let Some(end) = &record.unreported {
        add(
            &mut said,
            &check::DEPLOYMENT_UNREPORTED,
            format_args!("the server does not know yet how deployment {} ended", end.id),
        );
    }
    match &record.deployment {
        Some(deployment) => {
            let name = match deployment.id {
                Some(_) => format!(" ({})", deployment.artifact_name),
                None => String::new(),
            };
            let text = format!("{}{name} is in progress, at {}", deployment.label(), deployment.stage);
            said.push(match (deployment.inconsistent, deployment.failed) {
                (true, _) => check::DEPLOYMENT_INCONSISTENT.found(format_args!("{text}")),
                (false, true) => check::DEPLOYMENT_FAILED.found(format_args!("{text}, and has failed")),
                (false, false) => check::DEPLOYMENT_WAITS.found(format_args!("{text}")),
            });
        }
        None if said.is_empty() => {
            add(
                &mut said,
                &check::RECORD,
                format_args!("{} is installed, nothing is in progress", record.installed.name()),
            );
        }
        None => {}
    }
    said
}
