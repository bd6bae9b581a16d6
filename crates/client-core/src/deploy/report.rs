//! What the server that ordered a deployment is told.

use super::facts::Importance;
use super::gates::Gate;

/// What a server is told about a deployment. Each protocol has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The payload is being taken in.
    Downloading,
    /// The new software is being made the one that is tried next.
    Installing,
    /// The device is being restarted into it.
    Rebooting,
    /// It runs, and is about to be made permanent: the last word before that.
    Committing,
    /// Something on the device holds the deployment up before this gate.
    Waiting(Gate),
    /// It is installed for good.
    Succeeded,
    /// It is not.
    Failed,
}

impl Report {
    /// As a word for people.
    pub fn name(self) -> &'static str {
        match self {
            Report::Downloading => "downloading",
            Report::Installing => "installing",
            Report::Rebooting => "rebooting",
            Report::Committing => "committing",
            Report::Waiting(_) => "waiting",
            Report::Succeeded => "succeeded",
            Report::Failed => "failed",
        }
    }
}

/// Tells the server how a deployment goes.
pub trait Reporter {
    /// Reports how deployment `id` goes. With [`Importance::Mandatory`] it tries until there is an answer or the
    /// attempts are used up.
    /// `substate` is a remark for people.
    fn report(
        &mut self,
        id: &str,
        report: Report,
        substate: Option<&str>,
        importance: Importance,
    ) -> Reported;
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The server noted it.
    Accepted,
    /// The server has aborted the deployment, or does not know it.
    Aborted,
    /// No answer, and no further attempt.
    NoAnswer,
}

/// No server to tell: the command line's reporter.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReporter;

impl Reporter for NoReporter {
    fn report(&mut self, _: &str, _: Report, _: Option<&str>, _: Importance) -> Reported {
        Reported::Accepted
    }
}
