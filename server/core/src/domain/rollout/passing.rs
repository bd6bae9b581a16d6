//! A deployment that is made and a device that is decommissioned at the same moment. Who lists devices looks at the store before the
//! transaction in which the deployment is made, and who decommissions one knows the deployments that were active before his. So
//! each of the two leaves a word for the other, in one document that both read and write: one of them comes second, and sees it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NewDeployment;
use super::create::CreateError;
use crate::model::time::Timestamp;
use crate::work::{Kind, NotLoaded, Work};

/// Under what name the document is kept.
pub(crate) const NAME: &str = "recent";
/// For how long a word is left. Every process knows a deployment a second after it was made.
const SECONDS: u64 = 60;
/// Deployments and devices that are remembered at most: requests of people are bounded, and devices are decommissioned by programs.
const MADE: usize = 128;
const GONE: usize = 1000;

/// What was done lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recent {
    /// Deployments that list devices.
    #[serde(default)]
    made: Vec<(Timestamp, String)>,
    /// Numbers of devices.
    #[serde(default)]
    gone: Vec<(Timestamp, u32)>,
    /// How many devices have gone, ever.
    #[serde(default)]
    gone_in_all: u64,
}

impl Recent {
    fn of(work: &mut Work) -> Result<Recent, NotLoaded> {
        let now = work.now();
        let mut recent: Recent = work.document(Kind::Order, NAME)?.unwrap_or_default();
        recent.made.retain(|(time, _)| time.plus_seconds(SECONDS) >= now);
        recent.gone.retain(|(time, _)| time.plus_seconds(SECONDS) >= now);
        Ok(recent)
    }

    fn put(mut self, work: &mut Work) -> Result<(), NotLoaded> {
        self.made.drain(..self.made.len().saturating_sub(MADE));
        self.gone.drain(..self.gone.len().saturating_sub(GONE));
        work.put_document(Kind::Order, NAME, Some(&self))
    }
}

/// How many devices have gone by now, as the document says: who lists devices reads that before.
pub(crate) fn gone_before(document: Option<Value>) -> u64 {
    document.and_then(|value| Recent::deserialize(value).ok()).map_or(0, |recent| recent.gone_in_all)
}

/// The deployment without devices that have gone since they were listed.
///
/// # Errors
/// More have gone than are remembered.
pub(super) fn without_gone(work: &mut Work, mut new: NewDeployment) -> Result<NewDeployment, CreateError> {
    let recent = Recent::of(work)?;
    if recent.gone_in_all.saturating_sub(new.gone_before) > recent.gone.len() as u64 {
        return Err(CreateError::TooManyGone);
    }
    for (_, number) in &recent.gone {
        new.members.remove(*number);
        if let Some(canaries) = &mut new.canaries {
            canaries.devices.retain(|device| device != number);
        }
    }
    Ok(new)
}

/// A deployment was made.
pub(super) fn made(work: &mut Work, id: &str) -> Result<(), NotLoaded> {
    let mut recent = Recent::of(work)?;
    recent.made.push((work.now(), id.to_owned()));
    recent.put(work)
}

/// A device goes. Deployments that list it and that may be too young to be known otherwise.
pub(crate) fn gone(work: &mut Work, number: u32) -> Result<Vec<String>, NotLoaded> {
    let mut recent = Recent::of(work)?;
    let made: BTreeSet<String> = recent.made.iter().map(|(_, id)| id.clone()).collect();
    recent.gone.push((work.now(), number));
    recent.gone_in_all += 1;
    recent.put(work)?;
    let active = all(made, |id| {
        let deployment = work.deployment(&id)?;
        Ok(deployment.filter(|deployment| deployment.finished.is_none()).map(|_| id))
    })?;
    all(active, |id| Ok(work.members(&id)?.contains(number).then_some(id)))
}

/// Asks for all before it ends because one is not loaded: they are loaded at once.
fn all<T>(
    ids: impl IntoIterator<Item = String>,
    mut one: impl FnMut(String) -> Result<Option<T>, NotLoaded>,
) -> Result<Vec<T>, NotLoaded> {
    let asked: Vec<Result<Option<T>, NotLoaded>> = ids.into_iter().map(&mut one).collect();
    Ok(asked.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
