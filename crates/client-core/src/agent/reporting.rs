//! Reports of a deployment: which are repeated until there is an answer, and which were said a moment ago.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::clock::{Clock, Paused};
use crate::deploy::gates::Gate;
use crate::deploy::{DeploymentId, Importance, Report, Reported, Reporter};
use crate::server::{Backoff, ReportAnswer, UpdateServer};

/// How long a mandatory report is tried at least, unless `RetryPollCount` says otherwise.
const REPORT_PATIENCE: Duration = Duration::from_secs(180);
/// How often, at most, a server is told that a deployment still waits for the same reason.
const REMARK_EVERY: Duration = Duration::from_secs(60);

/// A remark that a server took.
pub(super) struct Said {
    remark: Remark,
    /// When, on the monotonic clock.
    at: Duration,
}

/// What is not worth saying twice in a moment.
#[derive(Clone, PartialEq, Eq)]
struct Remark {
    id: String,
    report: Report,
    words: String,
}

impl Remark {
    /// With the report as who watches a server reads it: what waits before its download is one that downloads, and what is
    /// about to be committed is still being installed.
    fn new(id: &str, report: Report, words: &str) -> Remark {
        let report = match report {
            Report::Waiting(Gate::Download) => Report::Downloading,
            Report::Committing => Report::Installing,
            Report::Downloading
            | Report::Installing
            | Report::Rebooting
            | Report::Waiting(Gate::Install | Gate::Reboot | Gate::Commit)
            | Report::Succeeded
            | Report::Failed => report,
        };
        Remark { id: id.to_owned(), report, words: words.to_owned() }
    }
}

/// Reports to the server the agent talks to.
pub(super) struct ServerReporter {
    pub(super) server: Arc<Mutex<dyn UpdateServer>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retry_interval: Duration,
    pub(super) retry_count: u32,
    pub(super) said: Arc<Mutex<Option<Said>>>,
}

impl ServerReporter {
    /// Whether the server took these very words a moment ago. A gate may be asked every few seconds.
    fn just_said(&self, remark: &Remark) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().is_some_and(|last| {
            let moment = self.retry_interval.max(REMARK_EVERY);
            last.remark == *remark && self.clock.now().saturating_sub(last.at) < moment
        })
    }
}

impl Reporter for ServerReporter {
    fn report(
        &mut self,
        id: &str,
        report: Report,
        substate: Option<&str>,
        importance: Importance,
    ) -> Reported {
        let named = DeploymentId::remembered(id);
        let remark = substate.map(|words| Remark::new(id, report, words));
        if importance == Importance::BestEffort && remark.as_ref().is_some_and(|it| self.just_said(it)) {
            return Reported::Accepted;
        }
        let mut backoff = Backoff::new(self.retry_interval, self.retry_count);
        let patient_until = self.clock.now().saturating_add(REPORT_PATIENCE);
        if report == Report::Committing {
            // The new software has to show that it can introduce itself to the server.
            lock(&self.server).forget_token();
        }
        loop {
            let answer = lock(&self.server).report(&named, report, substate);
            let error = match (answer, importance) {
                (Ok(ReportAnswer::Accepted), _) => {
                    let at = self.clock.now();
                    *self.said.lock().unwrap_or_else(PoisonError::into_inner) =
                        remark.map(|remark| Said { remark, at });
                    return Reported::Accepted;
                }
                (Ok(ReportAnswer::Aborted), _) | (Ok(ReportAnswer::Refused), Importance::Mandatory) => {
                    return Reported::Aborted;
                }
                (Ok(ReportAnswer::Refused), Importance::BestEffort) => return Reported::NoAnswer,
                (Err(error), Importance::BestEffort) => {
                    log::warn!("deployment {id}: {} could not be reported: {error}", report.name());
                    return Reported::NoAnswer;
                }
                (Err(error), Importance::Mandatory) => error,
            };
            log::warn!("deployment {id}: {} could not be reported: {error}", report.name());
            let wait = match backoff.next(&*self.clock) {
                Some(wait) => wait,
                // Three tries of a short interval are over before a network is up that was just restarted.
                None if self.retry_count == 0 && self.clock.now() < patient_until => self.retry_interval,
                None => return Reported::NoAnswer,
            };
            let wait = error.retry_after().unwrap_or(wait);
            match self.clock.pause(wait) {
                Paused::Elapsed => {}
                Paused::Stopped => return Reported::NoAnswer,
            }
        }
    }
}
