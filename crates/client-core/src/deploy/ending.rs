//! How a command ended: from what happened to a status and to what a person is told. Pure.

use super::facts::Stage;
use super::notice::Notice;
use super::plan::Outcome;
use super::summary::Status;

/// Which command was carried out: they differ only in what they say at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Install,
    Commit,
    RollBack,
    Resume,
}

/// Why a process went no further. Of two reasons the one that comes later here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Halt {
    /// It was told to stop before a stage.
    StoppedBefore,
    /// A person has to restart the device and to order the commit.
    Waiting,
    /// A gate is closed.
    Held,
    /// The device is being restarted.
    Rebooting,
    /// The process was asked to stop, or its work was ended with it.
    Interrupted,
    /// The record is the last word: without it even a done deed is not finished.
    NotSaved,
}

/// The stages that a process went through.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    passed: Vec<(Stage, Outcome)>,
    /// It was ended because it changed its stage too often.
    pub(super) looped: bool,
}

impl History {
    /// The next stage ended.
    pub(super) fn push(&mut self, stage: Stage, outcome: Outcome) {
        self.passed.push((stage, outcome));
    }

    /// Whether this process went through `stage`.
    pub(super) fn has(&self, stage: Stage) -> bool {
        self.passed.iter().any(|(passed, _)| *passed == stage)
    }

    /// The last stage.
    pub(super) fn last(&self) -> Option<Stage> {
        self.passed.last().map(|(stage, _)| *stage)
    }

    /// Whether there is none yet.
    pub(super) fn is_empty(&self) -> bool {
        self.passed.is_empty()
    }

    fn failed_in(&self, stage: Stage) -> bool {
        self.passed.contains(&(stage, Outcome::Failed))
    }

    fn gave_up(&self) -> bool {
        self.looped || self.has(Stage::Rollback) || self.has(Stage::Failure)
    }
}

/// What happened, as far as the end depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened<'h> {
    pub(super) command: Command,
    pub(super) halt: Option<Halt>,
    pub(super) history: &'h History,
    /// Something went wrong, and it is known what.
    pub(super) has_error: bool,
    /// Neither the old nor the new software can be vouched for.
    pub(super) inconsistent: bool,
    /// The payload needs a restart.
    pub(super) needs_reboot: bool,
    /// The download was cut short and begins again.
    pub(super) offered_again: bool,
}

/// The end of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) success: bool,
    /// What a person is told, in this order.
    pub(super) notices: Vec<Notice>,
}

/// How it ended.
pub(super) fn ending(happened: &Happened<'_>) -> Ending {
    let history = happened.history;
    let silent = |status, success| Ending { status, success, notices: Vec::new() };
    match happened.halt {
        Some(Halt::NotSaved) => return silent(Status::Inconsistent, false),
        Some(Halt::Interrupted) => return silent(Status::Interrupted, false),
        _ if happened.offered_again && history.has(Stage::Cleanup) => {
            return silent(Status::Interrupted, false);
        }
        Some(Halt::Rebooting) => return silent(Status::Rebooting, true),
        Some(Halt::Held) => return silent(Status::Held, true),
        Some(Halt::Waiting) => return waiting(happened),
        Some(Halt::StoppedBefore) | None => {}
    }
    let stopped = happened.halt == Some(Halt::StoppedBefore);
    let refused = history.has(Stage::Download) && !history.has(Stage::Install) && happened.has_error;
    if history.gave_up() {
        went_back(happened)
    } else if refused {
        let notices = vec![Notice::StreamingFailed, Notice::SystemNotModified];
        Ending { status: Status::NotModified, success: false, notices }
    } else if stopped && happened.has_error && !history.has(Stage::AfterCommit) {
        // On the way back. Where nothing was passed, the caller has said what is known.
        Ending { status: Status::Stopped, success: false, notices: failed_in(happened) }
    } else if history.has(Stage::AfterCommit) || history.has(Stage::Commit) {
        committed(happened)
    } else if stopped && history.has(Stage::Download) {
        Ending { status: Status::Streamed, success: true, notices: vec![Notice::Streamed] }
    } else if stopped {
        silent(Status::Stopped, true)
    } else {
        cleaned_up(history)
    }
}

fn waiting(happened: &Happened<'_>) -> Ending {
    let mut notices = vec![Notice::InstalledNotCommitted];
    if happened.needs_reboot {
        notices.push(Notice::RebootRequested);
    }
    Ending { status: Status::Installed, success: true, notices }
}

/// In what it failed, where it was passed in this process.
fn failed_in(happened: &Happened<'_>) -> Vec<Notice> {
    if happened.history.has(Stage::Install) {
        vec![Notice::InstallationFailed]
    } else if happened.history.has(Stage::Commit) {
        vec![Notice::CommittingFailed]
    } else {
        Vec::new()
    }
}

fn went_back(happened: &Happened<'_>) -> Ending {
    let Happened { command, history, .. } = happened;
    let mut notices = match command {
        Command::Install => vec![Notice::InstallationFailed],
        Command::Commit if !history.has(Stage::Install) => vec![Notice::CommittingFailed],
        Command::Commit | Command::RollBack | Command::Resume => failed_in(happened),
    };
    let (notice, status) = match (happened.inconsistent, history.has(Stage::Rollback)) {
        (false, _) => (Notice::RolledBack, Status::RolledBack),
        (true, true) => (Notice::RollbackFailed, Status::Inconsistent),
        (true, false) => (Notice::NoRollback, Status::Inconsistent),
    };
    notices.push(notice);
    let left_behind = history.failed_in(Stage::Cleanup);
    if left_behind {
        notices.push(Notice::CleanupFailed);
    }
    // Going back is a success when it was asked for, or when an interrupted deployment is resumed.
    let asked_for = match command {
        Command::RollBack | Command::Resume => !happened.has_error,
        Command::Install | Command::Commit => false,
    };
    Ending { status, success: asked_for && status == Status::RolledBack && !left_behind, notices }
}

fn committed(happened: &Happened<'_>) -> Ending {
    let Happened { command, history, .. } = happened;
    let installed = history.has(Stage::Install);
    let (post_commit_failed, left_behind) =
        (history.failed_in(Stage::AfterCommit), history.failed_in(Stage::Cleanup));
    let is_news = history.has(Stage::Commit) || *command != Command::Resume || post_commit_failed;
    let mut notices = vec![match (is_news, installed) {
        (true, true) => Notice::InstalledAndCommitted,
        (true, false) => Notice::Committed,
        (false, _) => Notice::CleanedUp,
    }];
    let also = [
        (post_commit_failed, Notice::PostCommitFailed),
        (left_behind, Notice::CleanupFailed),
        (installed && happened.needs_reboot, Notice::RebootRequested),
    ];
    notices.extend(also.into_iter().filter(|(is_so, _)| *is_so).map(|(_, notice)| notice));
    Ending { status: Status::Committed, success: !post_commit_failed && !left_behind, notices }
}

fn cleaned_up(history: &History) -> Ending {
    let failed = history.failed_in(Stage::Cleanup);
    let notice = if failed { Notice::CleanupFailed } else { Notice::CleanedUp };
    Ending { status: Status::CleanedUp, success: !failed, notices: vec![notice] }
}
