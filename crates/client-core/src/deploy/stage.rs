//! The stages of a deployment as pure tables: what follows a stage, where to go on after an interruption, and the
//! facts of each stage. Nothing here has an effect.
//!
//! ```text
//!  Download ─ Install ─ Reboot ═ VerifyReboot ─ Commit ─ AfterCommit ─┐
//!                 └────────┴───────────┴──────────┤                   │
//!                      Rollback ─ RollbackReboot ═ VerifyRollback     │
//!                          └──────────────────────────┴─ Failure ─── Cleanup
//! ```
//! The command line leaves the restarts (`═`) to the person who uses it: its deployments never enter the four stages
//! around them, and wait before `Commit`.

use serde::{Deserialize, Serialize};

use super::report::Report;
use super::scripts::{ScriptAction, ScriptPoint, ScriptState};
use crate::boot::Verdict;

/// Position in a deployment. Stored by name; a name once released is never given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The payload is being taken in. Nothing that boots has changed.
    Download,
    /// The new software is being made the one that is tried next.
    Install,
    /// The device is being restarted into the new software.
    Reboot,
    /// The new software is being looked at after the restart.
    VerifyReboot,
    /// The trial is being made permanent. Before it is entered, a deployment of the command line waits here for the
    /// reboot and for the order to commit; the daemon waits for the server to answer.
    Commit,
    /// Permanent; the scripts behind the commit are being run.
    AfterCommit,
    /// Going back to the old software.
    Rollback,
    /// The device is being restarted into the old software.
    RollbackReboot,
    /// The old software is being looked at after the restart.
    VerifyRollback,
    /// The failed deployment is being wound up.
    Failure,
    /// What the deployment left behind is being removed.
    Cleanup,
}

/// Who carries a deployment out. Not stored: a deployment with an id is the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// A person on the command line, who restarts the device and orders the commit.
    Attended,
    /// The daemon, on the order of a server.
    Unattended,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As planned.
    Done,
    /// As planned, and a restart has to follow.
    DoneNeedsReboot,
    /// It failed, and the payload can be rolled back.
    Failed,
    /// It failed, and the payload cannot be rolled back.
    FailedForGood,
    /// The server aborted the deployment before the stage began.
    Aborted,
}

/// Where to go on with a deployment that another process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Enter this stage.
    Enter(Stage),
    /// The device has not been restarted since the installation: there is nothing to do but that.
    AwaitReboot,
    /// The boot environment contradicts everything this deployment can have done: a person must look.
    Contradiction,
}

/// How much depends on the server's answer to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// One attempt; only an abort changes anything.
    BestEffort,
    /// Tried again for as long as the configuration allows; without an answer the deployment fails. This is where new
    /// software proves that it can reach the server.
    Mandatory,
}

impl Stage {
    /// Every stage, in the order of a deployment in which everything happens.
    pub const ALL: [Stage; 11] = [
        Stage::Download,
        Stage::Install,
        Stage::Reboot,
        Stage::VerifyReboot,
        Stage::Commit,
        Stage::AfterCommit,
        Stage::Rollback,
        Stage::RollbackReboot,
        Stage::VerifyRollback,
        Stage::Failure,
        Stage::Cleanup,
    ];

    /// The name of this stage's state scripts; `None` for stages without scripts. The scripts of `AfterCommit`, and of
    /// the two stages that verify, are the `Leave` scripts of the stage before.
    pub fn script_state(self) -> Option<ScriptState> {
        match self {
            Stage::Download => Some(ScriptState::Download),
            Stage::Install => Some(ScriptState::ArtifactInstall),
            Stage::Reboot | Stage::VerifyReboot => Some(ScriptState::ArtifactReboot),
            Stage::Commit | Stage::AfterCommit => Some(ScriptState::ArtifactCommit),
            Stage::Rollback => Some(ScriptState::ArtifactRollback),
            Stage::RollbackReboot | Stage::VerifyRollback => Some(ScriptState::ArtifactRollbackReboot),
            Stage::Failure => Some(ScriptState::ArtifactFailure),
            Stage::Cleanup => None,
        }
    }

    /// Scripts before the stage acts.
    pub fn enter_scripts(self) -> Option<ScriptPoint> {
        match self {
            Stage::VerifyReboot | Stage::AfterCommit | Stage::VerifyRollback => None,
            Stage::Download
            | Stage::Install
            | Stage::Reboot
            | Stage::Commit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::Failure
            | Stage::Cleanup => self.scripts(ScriptAction::Enter),
        }
    }

    /// Scripts after the stage has acted.
    pub fn leave_scripts(self) -> Option<ScriptPoint> {
        match self {
            Stage::Reboot | Stage::Commit | Stage::RollbackReboot => None,
            Stage::Download
            | Stage::Install
            | Stage::VerifyReboot
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup => self.scripts(ScriptAction::Leave),
        }
    }

    /// Scripts when the stage failed, in any of its three parts. Never after a power cut.
    pub fn error_scripts(self, conduct: Conduct) -> Option<ScriptPoint> {
        match self {
            Stage::Download | Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit => {
                self.scripts(ScriptAction::Error)
            }
            Stage::AfterCommit => match conduct {
                // On the command line a failed script behind the commit has no error scripts (specification 4.4).
                Conduct::Attended => None,
                Conduct::Unattended => self.scripts(ScriptAction::Error),
            },
            // Only when its own `Leave` scripts failed; an old system that is not back yet is restarted again.
            Stage::VerifyRollback => self.scripts(ScriptAction::Error),
            Stage::Rollback | Stage::RollbackReboot | Stage::Failure | Stage::Cleanup => None,
        }
    }

    /// Whether a failing script ends the stage. Where it does not, all scripts run and the failure is remembered.
    pub fn scripts_can_fail_it(self, conduct: Conduct) -> bool {
        match self {
            Stage::Download | Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit => true,
            Stage::AfterCommit => conduct == Conduct::Unattended,
            Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup => false,
        }
    }

    /// What the server is told before the stage begins.
    pub fn announces(self) -> Option<(Report, Importance)> {
        match self {
            Stage::Download => Some((Report::Downloading, Importance::BestEffort)),
            Stage::Install => Some((Report::Installing, Importance::BestEffort)),
            Stage::Reboot => Some((Report::Rebooting, Importance::BestEffort)),
            Stage::Commit => Some((Report::Committing, Importance::Mandatory)),
            Stage::VerifyReboot
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup => None,
        }
    }

    fn scripts(self, action: ScriptAction) -> Option<ScriptPoint> {
        self.script_state().map(|state| ScriptPoint { state, action })
    }
}

/// The stage that follows, or `None` at the end.
pub fn next(stage: Stage, outcome: Outcome) -> Option<Stage> {
    use Outcome::{Aborted, Done, DoneNeedsReboot, Failed, FailedForGood};
    match (stage, outcome) {
        (Stage::Download, Done | DoneNeedsReboot) => Some(Stage::Install),
        // Nothing that boots has changed: there is nothing to go back from.
        (Stage::Download, Failed | FailedForGood | Aborted) | (Stage::Install, Aborted) => {
            Some(Stage::Cleanup)
        }
        (Stage::Install, Done) | (Stage::VerifyReboot, Done | DoneNeedsReboot) => Some(Stage::Commit),
        (Stage::Install, DoneNeedsReboot) => Some(Stage::Reboot),
        (Stage::Reboot, Done | DoneNeedsReboot) => Some(Stage::VerifyReboot),
        (Stage::Commit, Done | DoneNeedsReboot) => Some(Stage::AfterCommit),
        (Stage::Install, Failed) => Some(Stage::Rollback),
        (Stage::Reboot | Stage::VerifyReboot | Stage::Commit, Failed | Aborted) => Some(Stage::Rollback),
        (Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit, FailedForGood) => {
            Some(Stage::Failure)
        }
        // Behind the commit point there is no way back.
        (Stage::AfterCommit, Done | DoneNeedsReboot | Failed | FailedForGood | Aborted) => {
            Some(Stage::Cleanup)
        }
        (Stage::Rollback, DoneNeedsReboot) => Some(Stage::RollbackReboot),
        (Stage::Rollback, Done | Failed | FailedForGood | Aborted) => Some(Stage::Failure),
        (Stage::RollbackReboot, FailedForGood) => Some(Stage::Failure),
        // Whether it worked is for the next stage to see.
        (Stage::RollbackReboot, Done | DoneNeedsReboot | Failed | Aborted) => Some(Stage::VerifyRollback),
        // The old software is not back: restart again, as often as is allowed.
        (Stage::VerifyRollback, Failed | Aborted) => Some(Stage::RollbackReboot),
        (Stage::VerifyRollback, Done | DoneNeedsReboot | FailedForGood) => Some(Stage::Failure),
        (Stage::Failure, Done | DoneNeedsReboot | Failed | FailedForGood | Aborted) => Some(Stage::Cleanup),
        (Stage::Cleanup, Done | DoneNeedsReboot | Failed | FailedForGood | Aborted) => None,
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
        (Stage::Reboot | Stage::VerifyReboot, _) => match verdict {
            // Where no bootloader tells: the restart was the last thing begun, and this is after it; a verification
            // that was cut is not trusted a second time.
            None => match (stage == Stage::Reboot, entered) {
                (true, false) => Enter(Stage::Reboot),
                (true, true) | (false, false) => Enter(Stage::VerifyReboot),
                (false, true) => Enter(Stage::Rollback),
            },
            // Armed, and still the old software: the restart did not happen.
            Some(Verdict::Untouched) => AwaitReboot,
            Some(Verdict::Trial) => Enter(Stage::VerifyReboot),
            // The verification finds that out, and its error scripts hear of it.
            Some(Verdict::FellBack) => Enter(Stage::VerifyReboot),
            Some(Verdict::Reverting) => Enter(Stage::Rollback),
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
        // Whether the restart happened is for the verification to see; it restarts again where it did not.
        (Stage::RollbackReboot | Stage::VerifyRollback, _) => Enter(Stage::VerifyRollback),
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
        | Stage::Reboot
        | Stage::VerifyReboot
        | Stage::AfterCommit
        | Stage::Rollback
        | Stage::RollbackReboot
        | Stage::VerifyRollback
        | Stage::Failure
        | Stage::Cleanup => false,
    }
}

/// Whether `commit` winds up a deployment that was cut in this position, where it cannot commit it.
pub fn commit_winds_up(stage: Stage, entered: bool) -> bool {
    match stage {
        Stage::Install | Stage::AfterCommit | Stage::Rollback => entered,
        Stage::Download
        | Stage::Reboot
        | Stage::VerifyReboot
        | Stage::Commit
        | Stage::RollbackReboot
        | Stage::VerifyRollback
        | Stage::Failure
        | Stage::Cleanup => false,
    }
}

/// Whether the daemon winds up a deployment of the command line in this position: nobody will come back for what was cut,
/// or decided by the bootloader. What waits for a person does so still: after an installation, and wherever a command was
/// told to stop.
pub fn is_left_behind(stage: Stage, entered: bool, verdict: Option<Verdict>) -> bool {
    match (stage, entered) {
        // The next deployment forgets it.
        (Stage::Download, _) => false,
        (Stage::Commit, false) => match verdict {
            None | Some(Verdict::Untouched | Verdict::Trial) => false,
            Some(Verdict::Committed | Verdict::FellBack | Verdict::Reverting | Verdict::Foreign) => true,
        },
        (
            Stage::Install
            | Stage::Reboot
            | Stage::VerifyReboot
            | Stage::Commit
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup,
            entered,
        ) => entered,
    }
}

/// Whether `rollback` is a legal order for a deployment in this position.
pub fn may_roll_back(stage: Stage, entered: bool) -> bool {
    match stage {
        Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit | Stage::Rollback => true,
        Stage::AfterCommit => !entered,
        Stage::Download | Stage::RollbackReboot | Stage::VerifyRollback | Stage::Failure | Stage::Cleanup => {
            false
        }
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
    const OUTCOMES: [Outcome; 5] =
        [Outcome::Done, Outcome::DoneNeedsReboot, Outcome::Failed, Outcome::FailedForGood, Outcome::Aborted];

    /// Every way through the table from `stage`; the only loop is the restart on the way back, which is counted.
    fn every_way_ends(stage: Stage, left: u32) {
        assert!(left > 0, "too long a way at {stage:?}");
        for outcome in OUTCOMES {
            match next(stage, outcome) {
                None => assert_eq!(stage, Stage::Cleanup),
                Some(Stage::RollbackReboot) if stage == Stage::VerifyRollback => {}
                Some(following) => every_way_ends(following, left - 1),
            }
        }
    }

    #[test]
    fn every_deployment_ends_within_eleven_stages() {
        for first in Stage::ALL {
            every_way_ends(first, 11);
        }
    }

    #[test]
    fn nothing_behind_the_commit_point_leads_back() {
        for outcome in OUTCOMES {
            assert_eq!(next(Stage::AfterCommit, outcome), Some(Stage::Cleanup));
        }
        for stage in [Stage::Install, Stage::Reboot, Stage::VerifyReboot, Stage::Commit] {
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

    const LOST_RECORD: &str = "\n## When the record is lost\n\nNothing is known of what was being done then, so the boot environment alone decides, once, before anything else is begun: where no trial is open and the selected slot runs, there is nothing to do. Everything else is a deployment before `Rollback`, wound up by the daemon: an open trial is closed in favour of the other slot, and the device restarted where the slot on trial, or a slot that is not selected, runs. `commit` is refused meanwhile (nobody knows what it would make permanent), `rollback` and `resume` go back by hand.\n";

    #[test]
    fn what_waits_for_a_person_is_not_wound_up_and_what_nobody_waits_for_is() {
        for verdict in [None, Some(Verdict::Trial), Some(Verdict::Untouched)] {
            assert!(!is_left_behind(Stage::Commit, false, verdict), "{verdict:?}");
        }
        assert!(is_left_behind(Stage::Commit, false, Some(Verdict::FellBack)));
        for stage in Stage::ALL {
            assert_eq!(is_left_behind(stage, true, Some(Verdict::FellBack)), stage != Stage::Download);
        }
    }

    /// The tables as a document: `docs/state-machine.md` is this text.
    fn document() -> String {
        let mut out = String::from(
            "# State machine\n\nGenerated from `client-core::deploy::stage` by `ROTA_GOLDEN=1 cargo test -p rust-ota-client-core`; a test compares them.\n",
        );
        let name = |stage: Option<Stage>| stage.map_or("end".to_owned(), |stage| format!("{stage:?}"));
        out.push_str("\n## What follows a stage\n\n| stage | done | done, restart needed | failed | failed, no way back | aborted by the server |\n| --- | --- | --- | --- | --- | --- |\n");
        for stage in Stage::ALL {
            let cells = OUTCOMES.map(|outcome| name(next(stage, outcome)));
            let _ = writeln!(out, "| {stage:?} | {} |", cells.join(" | "));
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
                    Resume::AwaitReboot => "restart, or wait for it".to_owned(),
                    Resume::Contradiction => "stop".to_owned(),
                });
                let position = if entered { "in" } else { "before" };
                let _ = writeln!(out, "| {position} {stage:?} | {} |", cells.join(" | "));
            }
        }
        out.push_str(
            "\n## What the daemon winds up of a deployment of the command line\n\nIt goes on with it as above. The rest waits for a person, and so does what was stopped with `--stop-before`; what the daemon has begun to wind up it also finishes.\n\n",
        );
        let _ = writeln!(out, "| found in | {} |", VERDICTS.map(verdict_name).join(" | "));
        let _ = writeln!(out, "| --- |{}", " --- |".repeat(VERDICTS.len()));
        for stage in Stage::ALL {
            for entered in [false, true] {
                let cells = VERDICTS.map(|verdict| match is_left_behind(stage, entered, verdict) {
                    true => "yes",
                    false => "-",
                });
                let position = if entered { "in" } else { "before" };
                let _ = writeln!(out, "| {position} {stage:?} | {} |", cells.join(" | "));
            }
        }
        out.push_str(LOST_RECORD);
        out.push_str(
            "\n## Facts per stage\n\nWhere the command line and the daemon differ, the daemon's fact is in parentheses.\n\n| stage | reported before | scripts before | scripts after | scripts on error | a failing script fails it | `commit` allowed | `rollback` allowed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
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
            let both = |attended: String, unattended: String| {
                if attended == unattended { attended } else { format!("{attended} ({unattended})") }
            };
            let reported = match stage.announces() {
                None => "-".to_owned(),
                Some((report, Importance::BestEffort)) => report.name().to_owned(),
                Some((report, Importance::Mandatory)) => format!("{}, mandatory", report.name()),
            };
            let _ = writeln!(
                out,
                "| {stage:?} | {reported} | {} | {} | {} | {} | {} | {roll_back} |",
                point(stage.enter_scripts()),
                point(stage.leave_scripts()),
                both(
                    point(stage.error_scripts(Conduct::Attended)),
                    point(stage.error_scripts(Conduct::Unattended))
                ),
                both(
                    yes(stage.scripts_can_fail_it(Conduct::Attended)).to_owned(),
                    yes(stage.scripts_can_fail_it(Conduct::Unattended)).to_owned()
                ),
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
