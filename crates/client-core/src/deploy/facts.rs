//! The stages of a deployment, and what is always so about each: one table.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::gates::Gate;
use super::report::Report;
use super::scripts::{ScriptAction, ScriptPoint, ScriptState};

/// Position in a deployment. Stored by name; a name once released is never given another meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The payload is being downloaded. Nothing that boots has changed.
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

/// Who drives a deployment. Not stored: a deployment with an id is the daemon's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// A person on the command line, who restarts the device and orders the commit.
    Standalone,
    /// The daemon, on the order of a server.
    Managed,
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

/// For whom something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// Where the daemon drives.
    Managed,
    /// Never.
    Never,
}

impl When {
    /// Whether it is so for deployments that are driven like this.
    pub(super) fn holds(self, conduct: Conduct) -> bool {
        match self {
            When::Always => true,
            When::Managed => conduct == Conduct::Managed,
            When::Never => false,
        }
    }
}

/// Positions in which `rollback` is a legal order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayRollBack {
    /// In the stage and before it.
    Yes,
    /// Until it begins.
    BeforeItBegan,
    /// Never.
    No,
}

/// What a failure of a stage means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nothing beyond that it failed.
    None,
    /// The new software is where it may boot: it has to be gone back from, if that is possible.
    New,
    /// Neither the old nor the new software can be vouched for.
    Both,
}

/// What is always so about a stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) name: &'static str,
    /// The name of its state scripts. Those of `AfterCommit`, and of the two stages that verify, are the `Leave` scripts of
    /// the stage before.
    pub(super) scripts: Option<ScriptState>,
    /// Scripts before it acts.
    pub(super) enter: bool,
    /// Scripts after it has acted.
    pub(super) leave: bool,
    /// Scripts when it failed, in any of its three parts. Never after a power cut.
    pub(super) error: When,
    /// A failing script ends it. Where it does not, all scripts run and the failure is remembered.
    pub(super) scripts_can_fail_it: When,
    /// What the server is told before it begins.
    pub(super) report: Option<(Report, Importance)>,
    /// Who may hold it up before it begins.
    pub(super) gate: Option<Gate>,
    pub(super) blame: Blame,
    /// Found here after an interruption, what boots decides where to go on.
    pub(super) asks_what_boots: bool,
    /// It can be gone through without the payload's handler.
    pub(super) without_handler: bool,
    /// `commit` is a legal order before it begins, and an order to try where it was cut.
    pub(super) may_commit: bool,
    /// `commit` winds up what was cut in it, where it cannot commit it.
    pub(super) commit_winds_up: bool,
    pub(super) may_roll_back: MayRollBack,
}

/// A stage in the middle of which nothing is special.
const PLAIN: Facts = Facts {
    name: "",
    scripts: None,
    enter: false,
    leave: false,
    error: When::Never,
    scripts_can_fail_it: When::Never,
    report: None,
    gate: None,
    blame: Blame::None,
    asks_what_boots: false,
    without_handler: false,
    may_commit: false,
    commit_winds_up: false,
    may_roll_back: MayRollBack::No,
};

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

    /// The table, a listing of all stages.
    pub(super) const fn facts(self) -> Facts {
        match self {
            Stage::Download => Facts {
                name: "Download",
                scripts: Some(ScriptState::Download),
                enter: true,
                leave: true,
                error: When::Always,
                scripts_can_fail_it: When::Always,
                report: Some((Report::Downloading, Importance::BestEffort)),
                gate: Some(Gate::Download),
                without_handler: true,
                ..PLAIN
            },
            Stage::Install => Facts {
                name: "Install",
                scripts: Some(ScriptState::ArtifactInstall),
                enter: true,
                leave: true,
                error: When::Always,
                scripts_can_fail_it: When::Always,
                report: Some((Report::Installing, Importance::BestEffort)),
                gate: Some(Gate::Install),
                blame: Blame::New,
                asks_what_boots: true,
                commit_winds_up: true,
                may_roll_back: MayRollBack::Yes,
                ..PLAIN
            },
            Stage::Reboot => Facts {
                name: "Reboot",
                scripts: Some(ScriptState::ArtifactReboot),
                enter: true,
                error: When::Always,
                scripts_can_fail_it: When::Always,
                report: Some((Report::Rebooting, Importance::BestEffort)),
                gate: Some(Gate::Reboot),
                blame: Blame::New,
                asks_what_boots: true,
                may_roll_back: MayRollBack::Yes,
                ..PLAIN
            },
            Stage::VerifyReboot => Facts {
                name: "VerifyReboot",
                scripts: Some(ScriptState::ArtifactReboot),
                leave: true,
                error: When::Always,
                scripts_can_fail_it: When::Always,
                blame: Blame::New,
                asks_what_boots: true,
                may_roll_back: MayRollBack::Yes,
                ..PLAIN
            },
            Stage::Commit => Facts {
                name: "Commit",
                scripts: Some(ScriptState::ArtifactCommit),
                enter: true,
                error: When::Always,
                scripts_can_fail_it: When::Always,
                report: Some((Report::Committing, Importance::Mandatory)),
                gate: Some(Gate::Commit),
                blame: Blame::New,
                asks_what_boots: true,
                may_commit: true,
                may_roll_back: MayRollBack::Yes,
                ..PLAIN
            },
            Stage::AfterCommit => Facts {
                name: "AfterCommit",
                scripts: Some(ScriptState::ArtifactCommit),
                leave: true,
                // On the command line a failed script behind the commit has no error scripts, and ends nothing
                // (docs/spec/client-behaviour.md, "State scripts").
                error: When::Managed,
                scripts_can_fail_it: When::Managed,
                without_handler: true,
                commit_winds_up: true,
                may_roll_back: MayRollBack::BeforeItBegan,
                ..PLAIN
            },
            Stage::Rollback => Facts {
                name: "Rollback",
                scripts: Some(ScriptState::ArtifactRollback),
                enter: true,
                leave: true,
                blame: Blame::Both,
                commit_winds_up: true,
                may_roll_back: MayRollBack::Yes,
                ..PLAIN
            },
            Stage::RollbackReboot => Facts {
                name: "RollbackReboot",
                scripts: Some(ScriptState::ArtifactRollbackReboot),
                enter: true,
                ..PLAIN
            },
            Stage::VerifyRollback => Facts {
                name: "VerifyRollback",
                scripts: Some(ScriptState::ArtifactRollbackReboot),
                leave: true,
                // Only when its own `Leave` scripts failed; an old system that is not back yet is restarted again.
                error: When::Always,
                ..PLAIN
            },
            Stage::Failure => Facts {
                name: "Failure",
                scripts: Some(ScriptState::ArtifactFailure),
                enter: true,
                leave: true,
                blame: Blame::Both,
                without_handler: true,
                ..PLAIN
            },
            Stage::Cleanup => Facts { name: "Cleanup", without_handler: true, ..PLAIN },
        }
    }

    /// Scripts before the stage acts.
    pub(super) fn enter_scripts(self) -> Option<ScriptPoint> {
        self.scripts(ScriptAction::Enter).filter(|_| self.facts().enter)
    }

    /// Scripts after the stage has acted.
    pub(super) fn leave_scripts(self) -> Option<ScriptPoint> {
        self.scripts(ScriptAction::Leave).filter(|_| self.facts().leave)
    }

    /// Scripts when the stage failed.
    pub(super) fn error_scripts(self, conduct: Conduct) -> Option<ScriptPoint> {
        self.scripts(ScriptAction::Error).filter(|_| self.facts().error.holds(conduct))
    }

    fn scripts(self, action: ScriptAction) -> Option<ScriptPoint> {
        self.facts().scripts.map(|state| ScriptPoint { state, action })
    }

    /// Whether `rollback` is a legal order in this position.
    pub(super) fn may_roll_back(self, entered: bool) -> bool {
        match self.facts().may_roll_back {
            MayRollBack::Yes => true,
            MayRollBack::BeforeItBegan => !entered,
            MayRollBack::No => false,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}
