//! The stages of a deployment as pure tables: what follows a stage, where to go on after an interruption, and the
//! facts of each stage. Nothing here has an effect.

use serde::{Deserialize, Serialize};

use super::scripts::{ScriptAction, ScriptPoint, ScriptState};
use crate::boot::Verdict;

/// Position in a deployment. Stored by name; a name once released is never given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The payload is being taken in. Nothing that boots has changed.
    Download,
    /// The new software is being made the one that is tried next.
    Install,
    /// The trial is being made permanent. Before it is entered, the deployment waits here for the reboot and for
    /// the order to commit.
    Commit,
    /// Permanent; the scripts behind the commit are being run.
    AfterCommit,
    /// Going back to the old software.
    Rollback,
    /// The failed deployment is being wound up.
    Failure,
    /// What the deployment left behind is being removed.
    Cleanup,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As planned.
    Done,
    /// It failed, and the payload can be rolled back.
    Failed,
    /// It failed, and the payload cannot be rolled back.
    FailedForGood,
}

/// Where to go on with a deployment that another process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Enter this stage.
    Enter(Stage),
    /// The device has not been restarted since the installation: there is nothing to do yet.
    AwaitReboot,
    /// The boot environment contradicts everything this deployment can have done: a person must look.
    Contradiction,
}

impl Stage {
    /// Every stage, in the order of a deployment in which everything happens.
    pub const ALL: [Stage; 7] = [
        Stage::Download,
        Stage::Install,
        Stage::Commit,
        Stage::AfterCommit,
        Stage::Rollback,
        Stage::Failure,
        Stage::Cleanup,
    ];

    /// The name of this stage's state scripts; `None` for stages without scripts. The scripts of `AfterCommit` are
    /// the `Leave` scripts of `ArtifactCommit`.
    pub fn script_state(self) -> Option<ScriptState> {
        match self {
            Stage::Download => Some(ScriptState::Download),
            Stage::Install => Some(ScriptState::ArtifactInstall),
            Stage::Commit | Stage::AfterCommit => Some(ScriptState::ArtifactCommit),
            Stage::Rollback => Some(ScriptState::ArtifactRollback),
            Stage::Failure => Some(ScriptState::ArtifactFailure),
            Stage::Cleanup => None,
        }
    }

    /// Scripts before the stage acts.
    pub fn enter_scripts(self) -> Option<ScriptPoint> {
        match self {
            Stage::AfterCommit => None,
            Stage::Download
            | Stage::Install
            | Stage::Commit
            | Stage::Rollback
            | Stage::Failure
            | Stage::Cleanup => self.scripts(ScriptAction::Enter),
        }
    }

    /// Scripts after the stage has acted.
    pub fn leave_scripts(self) -> Option<ScriptPoint> {
        match self {
            Stage::Commit => None,
            Stage::Download
            | Stage::Install
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::Failure
            | Stage::Cleanup => self.scripts(ScriptAction::Leave),
        }
    }

    /// Scripts when the stage failed, in any of its three parts. Never after a power cut.
    pub fn error_scripts(self) -> Option<ScriptPoint> {
        match self {
            Stage::Download | Stage::Install | Stage::Commit => self.scripts(ScriptAction::Error),
            // On the command line a failed script behind the commit has no error scripts (specification 4.4).
            Stage::AfterCommit | Stage::Rollback | Stage::Failure | Stage::Cleanup => None,
        }
    }

    /// Whether a failing script ends the stage. Where it does not, all scripts run and the failure is remembered.
    pub fn scripts_can_fail_it(self) -> bool {
        match self {
            Stage::Download | Stage::Install | Stage::Commit => true,
            Stage::AfterCommit | Stage::Rollback | Stage::Failure | Stage::Cleanup => false,
        }
    }

    fn scripts(self, action: ScriptAction) -> Option<ScriptPoint> {
        self.script_state().map(|state| ScriptPoint { state, action })
    }
}

/// The stage that follows, or `None` at the end.
pub fn next(stage: Stage, outcome: Outcome) -> Option<Stage> {
    match (stage, outcome) {
        (Stage::Download, Outcome::Done) => Some(Stage::Install),
        // Nothing that boots has changed: there is nothing to go back from.
        (Stage::Download, Outcome::Failed | Outcome::FailedForGood) => Some(Stage::Cleanup),
        (Stage::Install, Outcome::Done) => Some(Stage::Commit),
        (Stage::Commit, Outcome::Done) => Some(Stage::AfterCommit),
        (Stage::Install | Stage::Commit, Outcome::Failed) => Some(Stage::Rollback),
        (Stage::Install | Stage::Commit, Outcome::FailedForGood) => Some(Stage::Failure),
        // Behind the commit point there is no way back.
        (Stage::AfterCommit, Outcome::Done | Outcome::Failed | Outcome::FailedForGood) => {
            Some(Stage::Cleanup)
        }
        (Stage::Rollback, Outcome::Done | Outcome::Failed | Outcome::FailedForGood) => Some(Stage::Failure),
        (Stage::Failure, Outcome::Done | Outcome::Failed | Outcome::FailedForGood) => Some(Stage::Cleanup),
        (Stage::Cleanup, Outcome::Done | Outcome::Failed | Outcome::FailedForGood) => None,
    }
}

/// Where to go on. `entered` tells whether the stage had begun, or was only waiting to begin; `verdict` is what the
/// bootloader did meanwhile, `None` for payloads no bootloader is concerned with.
///
/// The boot environment is the truth for what boots; the record only tells what was being done.
pub fn resume(stage: Stage, entered: bool, verdict: Option<Verdict>) -> Resume {
    use Resume::{AwaitReboot, Contradiction, Enter};
    match (stage, entered) {
        // A download leaves nothing to go on with: nothing points at the half-written slot.
        (Stage::Download, _) => Enter(Stage::Cleanup),
        (Stage::Install, false) => Enter(Stage::Install),
        // Cut while installing: not everything that belongs to it was done, so it is undone.
        (Stage::Install, true) => match verdict {
            None | Some(Verdict::Untouched | Verdict::Trial | Verdict::FellBack | Verdict::Reverting) => {
                Enter(Stage::Rollback)
            }
            Some(Verdict::Committed) => Enter(Stage::AfterCommit),
            Some(Verdict::Foreign) => Contradiction,
        },
        (Stage::Commit, false) => match verdict {
            None | Some(Verdict::Trial) => Enter(Stage::Commit),
            Some(Verdict::Untouched) => AwaitReboot,
            Some(Verdict::FellBack | Verdict::Reverting) => Enter(Stage::Rollback),
            Some(Verdict::Committed) => Enter(Stage::AfterCommit),
            Some(Verdict::Foreign) => Contradiction,
        },
        // Cut while committing: committed if and only if the environment says so.
        (Stage::Commit, true) => match verdict {
            None | Some(Verdict::Untouched | Verdict::Trial | Verdict::FellBack | Verdict::Reverting) => {
                Enter(Stage::Rollback)
            }
            Some(Verdict::Committed) => Enter(Stage::AfterCommit),
            Some(Verdict::Foreign) => Contradiction,
        },
        (Stage::AfterCommit, _) => Enter(Stage::AfterCommit),
        (Stage::Rollback, _) => Enter(Stage::Rollback),
        (Stage::Failure, _) => Enter(Stage::Failure),
        (Stage::Cleanup, _) => Enter(Stage::Cleanup),
    }
}

/// Whether `commit` is a legal order for a deployment in this position.
pub fn may_commit(stage: Stage) -> bool {
    match stage {
        Stage::Commit => true,
        Stage::Download
        | Stage::Install
        | Stage::AfterCommit
        | Stage::Rollback
        | Stage::Failure
        | Stage::Cleanup => false,
    }
}

/// Whether `rollback` is a legal order for a deployment in this position.
pub fn may_roll_back(stage: Stage, entered: bool) -> bool {
    match stage {
        Stage::Install | Stage::Commit | Stage::Rollback => true,
        Stage::AfterCommit => !entered,
        Stage::Download | Stage::Failure | Stage::Cleanup => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    const VERDICTS: [Option<Verdict>; 7] = [
        None,
        Some(Verdict::Untouched),
        Some(Verdict::Trial),
        Some(Verdict::Committed),
        Some(Verdict::FellBack),
        Some(Verdict::Reverting),
        Some(Verdict::Foreign),
    ];
    const OUTCOMES: [Outcome; 3] = [Outcome::Done, Outcome::Failed, Outcome::FailedForGood];

    #[test]
    fn every_deployment_ends_within_seven_stages() {
        for first in Stage::ALL {
            for outcomes in 0..3_u32.pow(7) {
                let mut stage = Some(first);
                for step in 0..7 {
                    let outcome = OUTCOMES[(outcomes / 3_u32.pow(step) % 3) as usize];
                    stage = stage.and_then(|stage| next(stage, outcome));
                }
                assert_eq!(stage, None, "from {first:?}");
            }
        }
    }

    #[test]
    fn nothing_behind_the_commit_point_leads_back() {
        for outcome in OUTCOMES {
            assert_eq!(next(Stage::AfterCommit, outcome), Some(Stage::Cleanup));
        }
        for stage in [Stage::Install, Stage::Commit] {
            for entered in [false, true] {
                let resumed = resume(stage, entered, Some(Verdict::Committed));
                assert!(
                    matches!(resumed, Resume::Enter(Stage::AfterCommit))
                        // Not armed by this deployment yet: installing checks the environment itself.
                        || (stage, entered) == (Stage::Install, false)
                );
            }
        }
    }

    /// The tables as a document: `docs/state-machine.md` is this text.
    fn document() -> String {
        let mut out = String::from(
            "# State machine\n\nGenerated from `client-core::deploy::stage` by `ROTA_GOLDEN=1 cargo test -p client-core`; a test compares them.\n",
        );
        let name = |stage: Option<Stage>| stage.map_or("end".to_owned(), |stage| format!("{stage:?}"));
        out.push_str("\n## What follows a stage\n\n| stage | done | failed | failed, no way back |\n| --- | --- | --- | --- |\n");
        for stage in Stage::ALL {
            let [done, failed, for_good] = OUTCOMES.map(|outcome| name(next(stage, outcome)));
            let _ = writeln!(out, "| {stage:?} | {done} | {failed} | {for_good} |");
        }
        out.push_str(
            "\n## Where a deployment goes on after an interruption\n\nColumns: what the boot environment says. `no bootloader` is for payloads that it does not concern.\n\n",
        );
        let verdict_name = |verdict: Option<Verdict>| match verdict {
            None => "no bootloader".to_owned(),
            Some(verdict) => verdict.to_string(),
        };
        let _ = writeln!(out, "| found in | {} |", VERDICTS.map(verdict_name).join(" | "));
        let _ = writeln!(out, "| --- |{}", " --- |".repeat(VERDICTS.len()));
        for stage in Stage::ALL {
            for entered in [false, true] {
                let cells = VERDICTS.map(|verdict| match resume(stage, entered, verdict) {
                    Resume::Enter(stage) => format!("{stage:?}"),
                    Resume::AwaitReboot => "wait for the reboot".to_owned(),
                    Resume::Contradiction => "stop".to_owned(),
                });
                let position = if entered { "in" } else { "before" };
                let _ = writeln!(out, "| {position} {stage:?} | {} |", cells.join(" | "));
            }
        }
        out.push_str(
            "\n## Facts per stage\n\n| stage | scripts before | scripts after | scripts on error | a failing script fails it | `commit` allowed | `rollback` allowed |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for stage in Stage::ALL {
            let point = |point: Option<ScriptPoint>| point.map_or("-".to_owned(), |point| point.to_string());
            let yes = |yes: bool| if yes { "yes" } else { "no" };
            let roll_back = match (may_roll_back(stage, false), may_roll_back(stage, true)) {
                (true, true) => "yes",
                (true, false) => "before it began",
                (false, true) => "once it began",
                (false, false) => "no",
            };
            let _ = writeln!(
                out,
                "| {stage:?} | {} | {} | {} | {} | {} | {roll_back} |",
                point(stage.enter_scripts()),
                point(stage.leave_scripts()),
                point(stage.error_scripts()),
                yes(stage.scripts_can_fail_it()),
                yes(may_commit(stage)),
            );
        }
        out
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // A test of a document reads the document.
    fn the_document_shows_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
        let expected = document();
        if std::env::var_os("ROTA_GOLDEN").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        let actual = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(actual, expected, "run it with ROTA_GOLDEN=1 and read the difference");
    }
}
