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

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Write;

    use super::*;
    use Outcome::{Aborted, Done, DoneForGood, DoneNeedsReboot, Failed, FailedForGood};

    /// What happened, in words, with the stages that were passed and what else is so.
    type Case = (&'static str, Command, Option<Halt>, &'static [(Stage, Outcome)], Flags);

    /// Error known, inconsistent, restart needed, offered again, looped.
    type Flags = [bool; 5];

    const FINE: Flags = [false; 5];
    const ERROR: Flags = [true, false, false, false, false];
    const BROKEN: Flags = [true, true, false, false, false];
    const RESTART: Flags = [false, false, true, false, false];
    const AGAIN: Flags = [true, false, false, true, false];
    const LOOPED: Flags = [true, true, false, false, true];

    const COMMANDS: [Command; 4] = [Command::Install, Command::Commit, Command::RollBack, Command::Resume];
    const HALTS: [Option<Halt>; 7] = [
        None,
        Some(Halt::StoppedBefore),
        Some(Halt::Waiting),
        Some(Halt::Held),
        Some(Halt::Rebooting),
        Some(Halt::Interrupted),
        Some(Halt::NotSaved),
    ];

    const CASES: &[Case] = &[
        (
            "installed",
            Command::Install,
            Some(Halt::Waiting),
            &[(Stage::Download, Done), (Stage::Install, Done)],
            FINE,
        ),
        (
            "installed, restart needed",
            Command::Install,
            Some(Halt::Waiting),
            &[(Stage::Download, Done), (Stage::Install, Done)],
            RESTART,
        ),
        (
            "no way back, so committed",
            Command::Install,
            None,
            &[
                (Stage::Download, Done),
                (Stage::Install, DoneForGood),
                (Stage::Commit, Done),
                (Stage::AfterCommit, Done),
                (Stage::Cleanup, Done),
            ],
            RESTART,
        ),
        (
            "the same, and clean-up failed",
            Command::Install,
            None,
            &[
                (Stage::Download, Done),
                (Stage::Install, DoneForGood),
                (Stage::Commit, Done),
                (Stage::AfterCommit, Done),
                (Stage::Cleanup, Failed),
            ],
            ERROR,
        ),
        (
            "restarting",
            Command::Install,
            Some(Halt::Rebooting),
            &[(Stage::Download, Done), (Stage::Install, DoneNeedsReboot), (Stage::Reboot, Done)],
            RESTART,
        ),
        (
            "refused in the download",
            Command::Install,
            None,
            &[(Stage::Download, Failed), (Stage::Cleanup, Done)],
            ERROR,
        ),
        (
            "called off before the installation",
            Command::Install,
            None,
            &[(Stage::Download, Done), (Stage::Install, Aborted), (Stage::Cleanup, Done)],
            ERROR,
        ),
        ("download cut short", Command::Resume, None, &[(Stage::Cleanup, Done)], AGAIN),
        (
            "failed and rolled back",
            Command::Install,
            None,
            &[
                (Stage::Download, Done),
                (Stage::Install, Failed),
                (Stage::Rollback, Done),
                (Stage::Failure, Done),
                (Stage::Cleanup, Done),
            ],
            ERROR,
        ),
        (
            "failed, cannot be rolled back",
            Command::Install,
            None,
            &[
                (Stage::Download, Done),
                (Stage::Install, FailedForGood),
                (Stage::Failure, Done),
                (Stage::Cleanup, Done),
            ],
            BROKEN,
        ),
        (
            "failed, and so did the way back",
            Command::Install,
            None,
            &[
                (Stage::Download, Done),
                (Stage::Install, Failed),
                (Stage::Rollback, Failed),
                (Stage::Failure, Done),
                (Stage::Cleanup, Done),
            ],
            BROKEN,
        ),
        ("a gate is closed", Command::Install, Some(Halt::Held), &[(Stage::Download, Done)], FINE),
        (
            "stopped before the installation",
            Command::Install,
            Some(Halt::StoppedBefore),
            &[(Stage::Download, Done)],
            FINE,
        ),
        (
            "stopped on the way back",
            Command::Install,
            Some(Halt::StoppedBefore),
            &[(Stage::Download, Done), (Stage::Install, Failed)],
            ERROR,
        ),
        ("stopped where it was", Command::Resume, Some(Halt::StoppedBefore), &[], FINE),
        (
            "the process was asked to stop",
            Command::Install,
            Some(Halt::Interrupted),
            &[(Stage::Download, Failed)],
            FINE,
        ),
        (
            "the record could not be saved",
            Command::Commit,
            Some(Halt::NotSaved),
            &[(Stage::Commit, Done), (Stage::AfterCommit, Failed)],
            ERROR,
        ),
        (
            "committed",
            Command::Commit,
            None,
            &[(Stage::Commit, Done), (Stage::AfterCommit, Done), (Stage::Cleanup, Done)],
            FINE,
        ),
        (
            "committed, a script behind it failed",
            Command::Commit,
            None,
            &[(Stage::Commit, Done), (Stage::AfterCommit, Failed), (Stage::Cleanup, Done)],
            ERROR,
        ),
        (
            "commit failed and rolled back",
            Command::Commit,
            None,
            &[
                (Stage::Commit, Failed),
                (Stage::Rollback, Done),
                (Stage::Failure, Done),
                (Stage::Cleanup, Done),
            ],
            ERROR,
        ),
        (
            "only scripts behind the commit were left",
            Command::Resume,
            None,
            &[(Stage::AfterCommit, Done), (Stage::Cleanup, Done)],
            FINE,
        ),
        ("only the clean-up was left", Command::Resume, None, &[(Stage::Cleanup, Done)], FINE),
        (
            "only the clean-up was left, and it failed",
            Command::Resume,
            None,
            &[(Stage::Cleanup, Failed)],
            ERROR,
        ),
        (
            "rolled back as ordered",
            Command::RollBack,
            None,
            &[(Stage::Rollback, Done), (Stage::Failure, Done), (Stage::Cleanup, Done)],
            FINE,
        ),
        (
            "the way back was wound up",
            Command::Resume,
            None,
            &[(Stage::Rollback, Done), (Stage::Failure, Done), (Stage::Cleanup, Done)],
            FINE,
        ),
        (
            "rolled back as ordered, clean-up failed",
            Command::RollBack,
            None,
            &[(Stage::Rollback, Done), (Stage::Failure, Done), (Stage::Cleanup, Failed)],
            ERROR,
        ),
        (
            "the way back failed",
            Command::RollBack,
            None,
            &[(Stage::Rollback, Failed), (Stage::Failure, Done), (Stage::Cleanup, Done)],
            BROKEN,
        ),
        (
            "a commit on its own could not be saved",
            Command::Install,
            Some(Halt::NotSaved),
            &[
                (Stage::Download, Done),
                (Stage::Install, DoneForGood),
                (Stage::Commit, Done),
                (Stage::AfterCommit, Failed),
            ],
            ERROR,
        ),
        ("stopped before the commit", Command::Commit, Some(Halt::StoppedBefore), &[], FINE),
        (
            "stopped behind the commit",
            Command::Commit,
            Some(Halt::StoppedBefore),
            &[(Stage::Commit, Done), (Stage::AfterCommit, Done)],
            FINE,
        ),
        ("a gate is closed", Command::Commit, Some(Halt::Held), &[], FINE),
        (
            "of the daemon's, failed: restarting into the old software",
            Command::Commit,
            Some(Halt::Rebooting),
            &[(Stage::Commit, Failed), (Stage::Rollback, DoneNeedsReboot), (Stage::RollbackReboot, Done)],
            ERROR,
        ),
        (
            "the process was asked to stop",
            Command::Commit,
            Some(Halt::Interrupted),
            &[(Stage::Commit, Failed)],
            FINE,
        ),
        ("stopped before the way back", Command::RollBack, Some(Halt::StoppedBefore), &[], FINE),
        (
            "stopped on the way back",
            Command::RollBack,
            Some(Halt::StoppedBefore),
            &[(Stage::Rollback, Done)],
            FINE,
        ),
        (
            "of the daemon's: restarting into the old software",
            Command::RollBack,
            Some(Halt::Rebooting),
            &[(Stage::Rollback, DoneNeedsReboot), (Stage::RollbackReboot, Done)],
            RESTART,
        ),
        (
            "the process was asked to stop",
            Command::RollBack,
            Some(Halt::Interrupted),
            &[(Stage::Rollback, Done)],
            FINE,
        ),
        (
            "where it was stopped could not be saved",
            Command::RollBack,
            Some(Halt::NotSaved),
            &[(Stage::Rollback, Done)],
            ERROR,
        ),
        ("the device has to be restarted by hand", Command::Resume, Some(Halt::Waiting), &[], RESTART),
        ("a gate is closed", Command::Resume, Some(Halt::Held), &[], FINE),
        (
            "restarting",
            Command::Resume,
            Some(Halt::Rebooting),
            &[(Stage::Install, DoneNeedsReboot), (Stage::Reboot, Done)],
            RESTART,
        ),
        (
            "the process was asked to stop",
            Command::Resume,
            Some(Halt::Interrupted),
            &[(Stage::Install, Failed)],
            FINE,
        ),
        (
            "the record could not be saved",
            Command::Resume,
            Some(Halt::NotSaved),
            &[(Stage::AfterCommit, Failed)],
            ERROR,
        ),
        ("it looped", Command::Resume, None, &[(Stage::Cleanup, Done)], LOOPED),
    ];

    fn end(case: &Case) -> Ending {
        let (_, command, halt, passed, [has_error, inconsistent, needs_reboot, offered_again, looped]) =
            *case;
        let history = History { passed: passed.to_vec(), looped };
        let history = &history;
        ending(&Happened { command, halt, history, has_error, inconsistent, needs_reboot, offered_again })
    }

    /// `docs/state-machine.md` is compared with it.
    pub(in crate::deploy) fn table() -> String {
        let mut page = "\n## How a command ends\n\nEvery command is here with every reason to go no further that it can have. A status is a word of `--json`, and what a person is told is named as in the code; the lines are in `spec/client-behaviour.md`.\n\n| command | what happened | status | success | a person is told |\n| --- | --- | --- | --- | --- |\n".to_owned();
        for case in CASES {
            let Ending { status, success, notices } = end(case);
            let command = match case.1 {
                Command::Install => "install",
                Command::Commit => "commit",
                Command::RollBack => "rollback",
                Command::Resume => "resume",
            };
            let told: Vec<String> = notices.iter().map(|notice| format!("{notice:?}")).collect();
            let success = if success { "yes" } else { "no" };
            let _ = writeln!(
                page,
                "| {command} | {} | {} | {success} | {} |",
                case.0,
                status.name(),
                told.join(", ")
            );
        }
        page
    }

    /// A commit or a roll-back on the command line never waits for a restart: the first refuses before it, the second
    /// needs none. No gate is before the way back.
    fn can_occur(command: Command, halt: Option<Halt>) -> bool {
        match (command, halt) {
            (Command::Commit | Command::RollBack, Some(Halt::Waiting))
            | (Command::RollBack, Some(Halt::Held)) => false,
            (
                Command::Install | Command::Commit | Command::RollBack | Command::Resume,
                None
                | Some(
                    Halt::StoppedBefore
                    | Halt::Waiting
                    | Halt::Held
                    | Halt::Rebooting
                    | Halt::Interrupted
                    | Halt::NotSaved,
                ),
            ) => true,
        }
    }

    #[test]
    fn the_table_has_every_command_with_every_reason_to_go_no_further_that_can_occur() {
        for (command, halt) in COMMANDS.into_iter().flat_map(|command| HALTS.map(|halt| (command, halt))) {
            let is_there = CASES.iter().any(|case| (case.1, case.2) == (command, halt));
            assert_eq!(is_there, can_occur(command, halt), "{command:?}, {halt:?}");
        }
    }

    #[test]
    fn a_loop_is_no_way_back() {
        let history = History { looped: true, ..History::default() };
        let case = |command| {
            ending(&Happened {
                command,
                halt: None,
                history: &history,
                has_error: true,
                inconsistent: true,
                needs_reboot: false,
                offered_again: false,
            })
        };
        assert_eq!(case(Command::Resume).notices, [Notice::NoRollback]);
        assert_eq!(
            (case(Command::Commit).status, case(Command::Commit).success),
            (Status::Inconsistent, false)
        );
    }

    #[test]
    fn of_two_reasons_to_go_no_further_the_worse_counts() {
        assert!(Halt::NotSaved > Halt::Interrupted && Halt::Interrupted > Halt::Rebooting);
        assert!(Halt::Rebooting > Halt::Held && Halt::Waiting > Halt::StoppedBefore);
    }
}
