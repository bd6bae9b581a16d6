//! What devices are to be configured with, and what they say they are.

use std::collections::BTreeMap;

use super::admission::{self, SpeakError};
use super::rollout::{self, CreateError, EndError, NewDeployment};
use super::token::Claims;
use crate::model::{Configuration, Status};
use crate::work::{Key, Kind, NotLoaded, Work};

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConfigureError {
    /// Something has to be loaded first.
    NotLoaded,
    /// The device may not speak any more.
    Unauthorized,
    /// There is no such device.
    NotFound,
    /// It could not be ordered.
    Create(CreateError),
}

impl From<NotLoaded> for ConfigureError {
    fn from(_: NotLoaded) -> ConfigureError {
        ConfigureError::NotLoaded
    }
}

impl From<SpeakError> for ConfigureError {
    fn from(error: SpeakError) -> ConfigureError {
        match error {
            SpeakError::NotLoaded => ConfigureError::NotLoaded,
            SpeakError::Unauthorized => ConfigureError::Unauthorized,
        }
    }
}

impl From<EndError> for ConfigureError {
    fn from(error: EndError) -> ConfigureError {
        match error {
            EndError::NotLoaded => ConfigureError::NotLoaded,
            EndError::NoRandomness => ConfigureError::Create(CreateError::NoRandomness),
        }
    }
}

/// What the rules of a device's configuration read.
pub(crate) fn keys(device: &str) -> Vec<Key> {
    vec![Key::Device(device.to_owned()), Key::Document(Kind::Configuration, device.to_owned())]
}

/// What the device is to be configured with.
///
/// # Errors
/// There is no such device.
pub(crate) fn configure(
    work: &mut Work,
    device: &str,
    configured: &BTreeMap<String, String>,
) -> Result<(), ConfigureError> {
    let now = work.now();
    change(work, device, |known| {
        known.configured.clone_from(configured);
        known.updated_at = Some(now);
    })?;
    Ok(())
}

/// What the device says.
///
/// # Errors
/// It may not speak any more.
pub(crate) fn report(
    work: &mut Work,
    claims: &Claims,
    reported: &BTreeMap<String, String>,
) -> Result<(), ConfigureError> {
    let (device, now) = (admission::speaking(work, claims)?, work.now());
    change(work, &device.id, |known| {
        known.reported.clone_from(reported);
        known.reported_at = Some(now);
    })?;
    Ok(())
}

/// Orders what is configured. The id of the deployment, and that of the one before it: it ends, since what it brings is old.
///
/// # Errors
/// There is no such device, or it could not be ordered.
pub(crate) fn deploy(
    work: &mut Work,
    device: &str,
    name: &str,
    retries: u32,
) -> Result<(String, Option<String>), ConfigureError> {
    let number = work.device(device)?.ok_or(ConfigureError::NotFound)?.number;
    let known: Configuration = work.document(Kind::Configuration, device)?.unwrap_or_default();
    if let Some(before) = &known.deployment {
        rollout::end_for(work, device, std::slice::from_ref(before), Status::Aborted)?;
    }
    let new = NewDeployment {
        artifacts: Vec::new(),

        name: name.to_owned(),
        artifact_name: name.to_owned(),
        members: [number].into_iter().collect(),
        configuration: Some(known.configured.clone()),
        retries,
        ..NewDeployment::default()
    };
    let id = rollout::create(work, new).map_err(ConfigureError::Create)?;
    let deployment = id.clone();
    change(work, device, |known| known.deployment = Some(deployment))?;
    Ok((id, known.deployment))
}

fn change(
    work: &mut Work,
    device: &str,
    change: impl FnOnce(&mut Configuration),
) -> Result<(), ConfigureError> {
    work.device(device)?.ok_or(ConfigureError::NotFound)?;
    let mut known: Configuration = work.document(Kind::Configuration, device)?.unwrap_or_default();
    change(&mut known);
    Ok(work.put_document(Kind::Configuration, device, Some(&known))?)
}
