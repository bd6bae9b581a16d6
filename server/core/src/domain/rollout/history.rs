//! The history of a device can be taken away: what had ended for it by then is not told any more. The deployments themselves
//! keep their records and their counters.

use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;
use crate::model::{Deployment, DeviceDeployment};
use crate::work::{Kind, NotLoaded, Work};

/// When it was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    at: Timestamp,
}

impl Forgotten {
    /// Whether a deployment of the device still belongs to its history.
    pub(crate) fn leaves(self, deployment: &Deployment, record: Option<&DeviceDeployment>) -> bool {
        let ended = record.and_then(|record| record.finished).or(deployment.finished);
        ended.is_none_or(|ended| ended > self.at)
    }
}

/// Takes the history of a device away.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn forget_history(work: &mut Work, device: &str) -> Result<(), NotLoaded> {
    let forgotten = Forgotten { at: work.now() };
    work.put_document(Kind::History, device, Some(&forgotten))
}
