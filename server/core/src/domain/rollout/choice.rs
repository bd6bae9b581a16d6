//! Which artifact fits a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::Artifact;

/// What a device says when it asks for an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The installed artifact.
    pub(crate) artifact_name: String,
    /// The type of the device.
    pub(crate) device_type: String,
    /// Everything it provides, with the two above.
    pub(crate) provides: BTreeMap<String, String>,
    /// Whether that is everything: the oldest form of the question has no place for it.
    pub(crate) complete: bool,
}

/// Why an artifact does not fit a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// It is for these types.
    DeviceType(Vec<String>),
    /// It needs one of these values of something that the device provides otherwise, or not at all.
    Depends {
        /// What.
        key: String,
        /// One of these.
        wanted: Vec<String>,
        /// What the device provides.
        provided: Option<String>,
    },
}

/// Why an artifact does not fit a device; `None` when it does. How many of its depends are unknown is the number.
pub(crate) fn lacking(artifact: &Artifact, request: &Request) -> Result<usize, Lacking> {
    if !artifact.device_types.contains(&request.device_type) {
        return Err(Lacking::DeviceType(artifact.device_types.clone()));
    }
    let mut unknown = 0;
    for (key, wanted) in &artifact.depends {
        let provided = request.provides.get(key);
        match provided {
            Some(value) if wanted.contains(value) => {}
            None if !request.complete => unknown += 1,
            Some(_) | None => {
                return Err(Lacking::Depends {
                    key: key.clone(),
                    wanted: wanted.clone(),
                    provided: provided.cloned(),
                });
            }
        }
    }
    Ok(unknown)
}

/// The smallest artifact that fits a device. Where the device has not said all that it provides, one that asks for fewer
/// unknown things is better.
pub(crate) fn choose<'a>(artifacts: &'a [Arc<Artifact>], request: &Request) -> Option<&'a Arc<Artifact>> {
    artifacts
        .iter()
        .filter_map(|artifact| Some((lacking(artifact, request).ok()?, artifact.size, artifact)))
        .min_by_key(|(unknown, size, artifact)| (*unknown, *size, &artifact.id))
        .map(|(_, _, artifact)| artifact)
}

/// Bytes that a device need not load because it was given a smaller artifact than the smallest that needs nothing of what is
/// installed.
pub(super) fn saved(artifacts: &[Arc<Artifact>], chosen: &Artifact, request: &Request) -> u64 {
    let is_full = |artifact: &&Arc<Artifact>| {
        artifact.device_types.contains(&request.device_type) && artifact.depends.is_empty()
    };
    let full = artifacts.iter().filter(is_full).map(|artifact| artifact.size).min();
    full.map_or(0, |full| full.saturating_sub(chosen.size))
}
