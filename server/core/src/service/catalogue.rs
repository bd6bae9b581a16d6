//! What is about the fleet and not about one device, in memory: cached documents, and the active deployments with their
//! members. It follows what is committed, here and by other processes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Artifact, Deployment};
use crate::store::{Committed, Store, StoreError, Watch};
use crate::work::query::Active;
use crate::work::{KINDS, Kind};

/// What this process has in memory.
#[derive(Default)]
pub(crate) struct Catalogue {
    inside: RwLock<Inside>,
}

#[derive(Default)]
struct Inside {
    documents: HashMap<Kind, BTreeMap<String, Arc<Value>>>,
    /// Read once, since each offer looks through them.
    artifacts: BTreeMap<String, Arc<Artifact>>,
    /// By sequence number: the oldest first.
    active: BTreeMap<u64, Arc<Active>>,
    /// What was told while everything is being read, and is newer than what is read.
    told: Option<Told>,
}

#[derive(Default)]
struct Told {
    documents: HashSet<(Kind, String)>,
    deployments: HashMap<String, Deployment>,
}

impl Catalogue {
    /// Reads everything that it has from the store.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) async fn read(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.write().told = Some(Told::default());
        for kind in KINDS.into_iter().filter(|kind| kind.is_cached()) {
            let documents = store.documents(kind).await?;
            self.write().documents_read(kind, documents);
        }
        let active = store.active().await?;
        let mut inside = self.write();
        inside.active_read(active);
        inside.told = None;
        Ok(())
    }

    fn inside(&self) -> RwLockReadGuard<'_, Inside> {
        self.inside.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inside> {
        self.inside.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Active deployments, the oldest first.
    pub(crate) fn active(&self) -> Vec<Arc<Active>> {
        self.inside().active.values().cloned().collect()
    }

    /// The ids of active deployments that list the device with this number, the oldest first.
    pub(crate) fn active_ids(&self, number: u32) -> Vec<String> {
        let inside = self.inside();
        let listing = inside.active.values().filter(|active| active.members.contains(number));
        listing.map(|active| active.deployment.id.clone()).collect()
    }

    /// The ids of active deployments of an artifact's name.
    pub(crate) fn users(&self, name: &str) -> Vec<String> {
        let inside = self.inside();
        let users = inside.active.values().filter(|active| active.deployment.artifact_name == name);
        users.map(|active| active.deployment.id.clone()).collect()
    }

    /// Every artifact, in the order of their ids.
    pub(crate) fn artifacts(&self) -> Vec<Arc<Artifact>> {
        self.inside().artifacts.values().cloned().collect()
    }

    /// Every artifact with a name, in the order of their ids.
    pub(crate) fn artifacts_named(&self, name: &str) -> Vec<Arc<Artifact>> {
        self.inside().artifacts.values().filter(|artifact| artifact.name == name).cloned().collect()
    }

    /// One artifact.
    pub(crate) fn artifact(&self, id: &str) -> Option<Arc<Artifact>> {
        self.inside().artifacts.get(id).cloned()
    }

    /// One cached document; `None` when there is none, or one that cannot be read as this type.
    pub(crate) fn document<T: DeserializeOwned>(&self, kind: Kind, id: &str) -> Option<T> {
        let value = self.inside().documents.get(&kind)?.get(id).cloned()?;
        T::deserialize(&*value).ok()
    }

    /// Whether there is a cached document of a kind.
    pub(crate) fn has_any(&self, kind: Kind) -> bool {
        self.inside().documents.get(&kind).is_some_and(|documents| !documents.is_empty())
    }

    /// All cached documents of a kind that can be read as this type, in the order of their ids.
    pub(crate) fn documents<T: DeserializeOwned>(&self, kind: Kind) -> Vec<(String, T)> {
        let all: Vec<(String, Arc<Value>)> = match self.inside().documents.get(&kind) {
            None => Vec::new(),
            Some(documents) => documents.iter().map(|(id, value)| (id.clone(), value.clone())).collect(),
        };
        all.into_iter().filter_map(|(id, value)| Some((id, T::deserialize(&*value).ok()?))).collect()
    }
}

impl Inside {
    fn documents_read(&mut self, kind: Kind, documents: Vec<(String, Value)>) {
        for (id, value) in documents {
            let is_old = self.told.as_ref().is_some_and(|told| told.documents.contains(&(kind, id.clone())));
            if !is_old {
                self.document(kind, id, Some(value));
            }
        }
    }

    fn active_read(&mut self, active: Vec<Active>) {
        for mut one in active {
            let sequence = one.deployment.sequence;
            if let Some(newer) = self.told.as_ref().and_then(|told| told.deployments.get(&one.deployment.id))
            {
                one.deployment = newer.clone();
            }
            // With its devices it was told as a whole.
            if one.deployment.finished.is_none() && !self.active.contains_key(&sequence) {
                self.active.insert(sequence, Arc::new(one));
            }
        }
    }

    fn note_told(&mut self, committed: &Committed) {
        let Some(told) = &mut self.told else { return };
        told.documents.extend(committed.documents.iter().map(|(kind, id, _)| (*kind, id.clone())));
        told.deployments.extend(committed.deployments.iter().map(|one| (one.id.clone(), one.clone())));
    }

    fn document(&mut self, kind: Kind, id: String, value: Option<Value>) {
        if kind == Kind::Artifact {
            match value.as_ref().and_then(|value| Artifact::deserialize(value).ok()) {
                Some(artifact) => self.artifacts.insert(id.clone(), Arc::new(artifact)),
                None => self.artifacts.remove(&id),
            };
            return;
        }
        let documents = self.documents.entry(kind).or_default();
        match value {
            Some(value) => documents.insert(id, Arc::new(value)),
            None => documents.remove(&id),
        };
    }

    fn deployment(&mut self, deployment: &Deployment) {
        if deployment.finished.is_some() {
            self.active.remove(&deployment.sequence);
        } else if let Some(active) = self.active.get(&deployment.sequence) {
            let members = active.members.clone();
            let active = Active { deployment: deployment.clone(), members };
            self.active.insert(deployment.sequence, Arc::new(active));
        }
    }
}

impl Watch for Catalogue {
    fn committed(&self, committed: &Committed) {
        if committed.documents.is_empty() && committed.deployments.is_empty() && committed.members.is_empty()
        {
            return;
        }
        let mut inside = self.write();
        inside.note_told(committed);
        for (kind, id, value) in &committed.documents {
            inside.document(*kind, id.clone(), value.clone());
        }
        for deployment in &committed.deployments {
            if let Some((_, members)) = committed.members.iter().find(|(id, _)| *id == deployment.id) {
                let active = Active { deployment: deployment.clone(), members: members.clone() };
                inside.active.insert(deployment.sequence, Arc::new(active));
            }
            inside.deployment(deployment);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::Status;

    fn deployment(id: &str, sequence: u64) -> Deployment {
        let form = json!({
            "id": id, "name": id, "artifact_name": "r", "created": "2026-01-01T00:00:00Z", "device_count": 1,
        });
        Deployment { sequence, ..serde_json::from_value(form).unwrap() }
    }

    #[test]
    fn what_is_told_while_everything_is_read_is_newer_than_what_was_read() {
        let catalogue = Catalogue::default();
        catalogue.write().told = Some(Told::default());
        let old: Vec<Deployment> = [("counted", 1), ("ended", 2), ("still", 3)]
            .map(|(id, sequence)| deployment(id, sequence))
            .into();
        let counts = BTreeMap::from([(Status::Success, 1)]);
        let counted = Deployment { counts, ..old[0].clone() };
        let ended = Deployment { finished: Some(crate::model::time::Timestamp(1)), ..old[1].clone() };
        catalogue.committed(&Committed {
            deployments: vec![counted.clone(), ended],
            documents: vec![
                (Kind::Role, "changed".to_owned(), Some(json!(2))),
                (Kind::Role, "gone".to_owned(), None),
            ],
            ..Committed::default()
        });
        let documents = ["changed", "gone", "same"].map(|id| (id.to_owned(), json!(1)));
        catalogue.write().documents_read(Kind::Role, documents.into());
        let active = old.into_iter().map(|deployment| Active { deployment, members: Arc::default() });
        catalogue.write().active_read(active.collect());
        let roles = [("changed".to_owned(), 2), ("same".to_owned(), 1)];
        assert_eq!(catalogue.documents::<u32>(Kind::Role), roles);
        let active: Vec<Deployment> =
            catalogue.active().iter().map(|active| active.deployment.clone()).collect();
        assert_eq!(active, [counted, deployment("still", 3)]);
    }
}
