//! Artifacts: what is there, and which one fits a device.

use std::collections::BTreeMap;

use super::{Changed, Fleet};
use crate::domain::model::{Artifact, Change};
use crate::domain::time::Timestamp;

/// The same name, a common device type and the same depends: a device could not know which one to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArtifactConflict {
    /// The one that is there.
    pub(crate) existing: String,
}

/// Why an artifact was not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteArtifactError {
    /// There is none.
    NotFound,
    /// A deployment needs it.
    InUse,
}

impl Fleet {
    /// Takes a new artifact.
    ///
    /// # Errors
    /// It would be ambiguous.
    pub(crate) fn add_artifact(&mut self, artifact: Artifact) -> Changed<(), ArtifactConflict> {
        let conflict = self.artifacts.values().find(|existing| {
            existing.name == artifact.name
                && existing.depends == artifact.depends
                && existing.device_types.iter().any(|kind| artifact.device_types.contains(kind))
        });
        if let Some(existing) = conflict {
            return Err(ArtifactConflict { existing: existing.id.clone() });
        }
        let change = Change::Artifact(artifact.clone());
        self.artifacts.insert(artifact.id.clone(), artifact);
        Ok(((), vec![change]))
    }

    /// Changes the description; `None` when there is no such artifact.
    pub(crate) fn describe_artifact(
        &mut self,
        id: &str,
        text: String,
        now: Timestamp,
    ) -> Option<Vec<Change>> {
        let artifact = self.artifacts.get_mut(id).filter(|artifact| artifact.configuration_of.is_none())?;
        artifact.description = text;
        artifact.modified = now;
        Some(vec![Change::Artifact(artifact.clone())])
    }

    /// Forgets an artifact.
    ///
    /// # Errors
    /// Why it was not done.
    pub(crate) fn delete_artifact(&mut self, id: &str) -> Changed<Artifact, DeleteArtifactError> {
        let artifact = self.shown_artifact(id).ok_or(DeleteArtifactError::NotFound)?;
        let used = self
            .active
            .iter()
            .filter_map(|sequence| self.deployments.get(sequence))
            .any(|entry| entry.deployment.artifact_name == artifact.name);
        if used {
            return Err(DeleteArtifactError::InUse);
        }
        let artifact = self.artifacts.remove(id).ok_or(DeleteArtifactError::NotFound)?;
        Ok((artifact, vec![Change::ArtifactGone(id.to_owned())]))
    }

    /// Artifacts that people have uploaded, in the order of their ids.
    pub(crate) fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.artifacts.values().filter(|artifact| artifact.configuration_of.is_none())
    }

    /// One of them.
    pub(crate) fn shown_artifact(&self, id: &str) -> Option<&Artifact> {
        self.artifact(id).filter(|artifact| artifact.configuration_of.is_none())
    }

    /// Bytes of all artifacts.
    pub(crate) fn artifact_bytes(&self) -> u64 {
        self.artifacts.values().map(|artifact| artifact.size).sum()
    }

    /// Forgets artifacts of configurations that no deployment needs any more. Their ids.
    pub(crate) fn drop_spent_configurations(&mut self) -> (Vec<String>, Vec<Change>) {
        let is_used = |artifact: &Artifact| {
            let active = self.active.iter().filter_map(|sequence| self.deployments.get(sequence));
            active.into_iter().any(|entry| entry.deployment.artifact_name == artifact.name)
        };
        let made = self.artifacts.values().filter(|artifact| artifact.configuration_of.is_some());
        let spent: Vec<String> =
            made.filter(|artifact| !is_used(artifact)).map(|artifact| artifact.id.clone()).collect();
        for id in &spent {
            self.artifacts.remove(id);
        }
        let changes = spent.iter().map(|id| Change::ArtifactGone(id.clone())).collect();
        (spent, changes)
    }

    /// One artifact, whoever has made it.
    pub(crate) fn artifact(&self, id: &str) -> Option<&Artifact> {
        self.artifacts.get(id)
    }

    /// The smallest artifact called `name` that fits a device with `provides`. With `complete`, a key that is not in
    /// `provides` is one the device does not have; else it is not known, and an artifact that asks for fewer unknown
    /// ones is better.
    pub(super) fn choose(
        &self,
        name: &str,
        device_type: &str,
        provides: &BTreeMap<String, String>,
        complete: bool,
    ) -> Option<&Artifact> {
        let unknown = |artifact: &Artifact| {
            let mut unknown = 0_usize;
            for (key, accepted) in &artifact.depends {
                match provides.get(key) {
                    Some(value) if accepted.contains(value) => {}
                    None if !complete => unknown += 1,
                    Some(_) | None => return None,
                }
            }
            Some(unknown)
        };
        self.artifacts
            .values()
            .filter(|artifact| artifact.name == name)
            .filter(|artifact| artifact.device_types.iter().any(|kind| kind == device_type))
            .filter_map(|artifact| Some((unknown(artifact)?, artifact.size, artifact)))
            .min_by_key(|(unknown, size, artifact)| (*unknown, *size, &artifact.id))
            .map(|(_, _, artifact)| artifact)
    }
}
