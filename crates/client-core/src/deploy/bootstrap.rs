//! Artifacts without a payload: they only say what the device provides. The bootstrap artifact is one.

use std::io::Read;

use super::device::Device;
use super::error::DeployError;
use super::notice::Notice;
use super::record::Record;
use super::summary::{Status, Summary};
use crate::artifact::{self, Artifact, Header, Limits, PayloadReader, Trust};
use crate::install::InstallError;
use crate::provides::UNKNOWN_ARTIFACT;
use crate::slot::System;

/// Makes sure that the device has an artifact name: from the bootstrap artifact, if there is one, otherwise
/// `unknown`. Does nothing when a name is recorded already.
///
/// The bootstrap artifact lies on the device's own data partition and is not signed (docs/spec/client-behaviour.md,
/// "Empty payloads and bootstrap"). It may only set provides.
///
/// # Errors
/// When the record cannot be read or saved, or the artifact was refused; the name is `unknown` then.
pub fn bootstrap(
    device: &mut Device<'_>,
    source: Option<Box<dyn Read + Send>>,
    limits: &Limits,
) -> Result<(), DeployError> {
    let mut record = super::load(device)?;
    if record.installed.artifact_name.is_some() {
        return Ok(());
    }
    let installed = match source {
        None => Ok(()),
        Some(source) => bootstrap_provides(device.system, &mut record, source, limits),
    };
    // Refused or not there: the next start must find a name all the same.
    record.installed.artifact_name.get_or_insert_with(|| UNKNOWN_ARTIFACT.to_owned());
    record.save(device.state)?;
    installed
}

/// What [`bootstrap`] would record, for somebody who only looks.
///
/// # Errors
/// When the artifact is refused; the record is as it was then.
pub fn bootstrap_provides(
    system: &dyn System,
    record: &mut Record,
    source: Box<dyn Read + Send>,
    limits: &Limits,
) -> Result<(), DeployError> {
    let Artifact { header, mut payload, .. } =
        artifact::open(source, &Trust::DangerUnsigned, limits).map_err(InstallError::from)?;
    let found = match (&header.payload, header.scripts.is_empty()) {
        (Some(_), _) => Some("a payload"),
        (None, false) => Some("state scripts"),
        (None, true) => None,
    };
    if let Some(found) = found {
        return Err(DeployError::NotABootstrapArtifact { found });
    }
    check_depends(system, record, &header)?;
    drain_empty(&mut payload)?;
    log::info!("artifact {}: for a device without a name", header.artifact_name);
    settle_provides(record, &header);
    Ok(())
}

pub(super) fn check_depends(
    system: &dyn System,
    record: &Record,
    header: &Header,
) -> Result<(), DeployError> {
    let device_type = system.device_type()?;
    Ok(record.installed.satisfies(&device_type, header)?)
}

pub(super) fn drain_empty(payload: &mut PayloadReader) -> Result<(), DeployError> {
    // The reader refuses a file in an empty payload by itself; this only walks to the verified end.
    match payload.next_file().map_err(InstallError::from)? {
        None => Ok(()),
        Some(_) => Err(InstallError::FileCount { found: "a file in an empty payload" }.into()),
    }
}

fn settle_provides(record: &mut Record, header: &Header) {
    let installed = record.installed.after_commit(
        header.artifact_name.as_str(),
        header.artifact_group.as_deref(),
        header.provides.as_ref(),
        header.clears_provides.as_deref(),
    );
    record.install(installed);
}

pub(super) fn install_empty(
    device: &mut Device<'_>,
    record: &mut Record,
    header: &Header,
    payload: &mut PayloadReader,
) -> Result<Summary, DeployError> {
    drain_empty(payload)?;
    settle_provides(record, header);
    record.deployment = None;
    record.save(device.state)?;
    device.observer.notice(Notice::InstalledAndCommitted);
    Ok(Summary::of(Status::Committed, None))
}
