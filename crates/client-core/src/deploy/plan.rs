//! The whole decision, as pure functions: what follows a stage, where to go on after an interruption, what an order may do.
//!
//! ```text
//!  Download ─ Install ─ Reboot ═ VerifyReboot ─ Commit ─ AfterCommit ─┐
//!                 └────────┴───────────┴──────────┤                   │
//!                      Rollback ─ RollbackReboot ═ VerifyRollback     │
//!                          └──────────────────────────┴─ Failure ─── Cleanup
//! ```
//! The command line leaves the restarts (`═`) to the person who uses it: its deployments never enter the four stages
//! around them, and wait before `Commit`.
//!
//! A stage is entered with an [`Entry`], and the record says a [`Position`]; only this module makes them: no transition can
//! be made elsewhere.
//! `docs/state-machine.md` is printed from these functions.

use super::facts::{Blame, Conduct, Stage};
use super::record::TRANSITIONS_MAX;
use crate::boot::Verdict;

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As planned.
    Done,
    /// As planned, and the daemon has to restart the device.
    DoneNeedsReboot,
    /// As planned, and the payload cannot be rolled back: there is nothing that a person could decide any more.
    DoneForGood,
    /// The artifact has no payload: accepting it was all there is to it.
    NoPayload,
    /// It failed, and the payload can be rolled back.
    Failed,
    /// It failed, and the payload cannot be rolled back.
    FailedForGood,
    /// Going back failed, and a trial may still be open.
    StillOpen,
    /// The deployment was called off before the stage began.
    Aborted,
}

impl Outcome {
    /// As a word for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::DoneNeedsReboot => "done, restart needed",
            Outcome::DoneForGood => "done, no way back",
            Outcome::NoPayload => "no payload",
            Outcome::Failed => "failed",
            Outcome::FailedForGood => "failed, no way back",
            Outcome::StillOpen => "failed, and the trial may be open",
            Outcome::Aborted => "called off",
        }
    }
}

/// A stage that may be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(Stage);

impl Entry {
    /// The stage.
    pub(super) fn stage(self) -> Stage {
        self.0
    }

    /// Waiting before it.
    pub(super) fn waiting(self) -> Position {
        Position { stage: self.0, entered: false }
    }

    /// In it.
    pub(super) fn begun(self) -> Position {
        Position { stage: self.0, entered: true }
    }
}

/// Where a deployment stands, as the record says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    stage: Stage,
    entered: bool,
}

impl Position {
    /// The stage, and whether it has begun.
    pub(super) fn as_recorded(self) -> (Stage, bool) {
        (self.stage, self.entered)
    }
}

/// What comes after a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// This stage.
    Enter(Entry),
    /// Nothing until a person has restarted the device and orders the commit, which is this stage, or the way back.
    WaitForCommit(Entry),
    /// Nothing: the record keeps saying where it is, and the next process tries again.
    StayThere,
    /// Nothing more.
    End,
}

/// What comes after `stage`.
pub(super) fn next(stage: Stage, outcome: Outcome, conduct: Conduct) -> Next {
    match stage {
        Stage::Download => after_download(outcome),
        Stage::Install => after_install(outcome, conduct),
        Stage::Reboot => on_the_way_there(outcome, Stage::VerifyReboot),
        Stage::VerifyReboot => on_the_way_there(outcome, Stage::Commit),
        Stage::Commit => on_the_way_there(outcome, Stage::AfterCommit),
        // Behind the commit point there is no way back.
        Stage::AfterCommit => enter(Stage::Cleanup),
        Stage::Rollback => after_rollback(outcome),
        // Whether it worked is for the next stage to see.
        Stage::RollbackReboot if outcome == Outcome::FailedForGood => enter(Stage::Failure),
        Stage::RollbackReboot => enter(Stage::VerifyRollback),
        // The old software is not back: restart again, as often as is allowed.
        Stage::VerifyRollback if is_failed(outcome) => enter(Stage::RollbackReboot),
        Stage::VerifyRollback => enter(Stage::Failure),
        Stage::Failure => enter(Stage::Cleanup),
        Stage::Cleanup => Next::End,
    }
}

fn enter(stage: Stage) -> Next {
    Next::Enter(Entry(stage))
}

fn is_failed(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed | Outcome::StillOpen | Outcome::Aborted => true,
        Outcome::Done
        | Outcome::DoneNeedsReboot
        | Outcome::DoneForGood
        | Outcome::NoPayload
        | Outcome::FailedForGood => false,
    }
}

/// Nothing that boots has changed: there is nothing to go back from.
fn after_download(outcome: Outcome) -> Next {
    match outcome {
        Outcome::Done | Outcome::DoneNeedsReboot | Outcome::DoneForGood => enter(Stage::Install),
        Outcome::NoPayload
        | Outcome::Failed
        | Outcome::FailedForGood
        | Outcome::StillOpen
        | Outcome::Aborted => enter(Stage::Cleanup),
    }
}

fn after_install(outcome: Outcome, conduct: Conduct) -> Next {
    match (outcome, conduct) {
        (Outcome::Done, Conduct::Standalone) => Next::WaitForCommit(Entry(Stage::Commit)),
        (Outcome::Done, Conduct::Managed) | (Outcome::DoneForGood | Outcome::NoPayload, _) => {
            enter(Stage::Commit)
        }
        (Outcome::DoneNeedsReboot, _) => enter(Stage::Reboot),
        (Outcome::Failed | Outcome::StillOpen, _) => enter(Stage::Rollback),
        (Outcome::FailedForGood, _) => enter(Stage::Failure),
        // Not begun: as after the download.
        (Outcome::Aborted, _) => enter(Stage::Cleanup),
    }
}

/// The new software is where it may boot: what fails is gone back from.
fn on_the_way_there(outcome: Outcome, following: Stage) -> Next {
    match outcome {
        Outcome::Done | Outcome::DoneNeedsReboot | Outcome::DoneForGood | Outcome::NoPayload => {
            enter(following)
        }
        Outcome::Failed | Outcome::StillOpen | Outcome::Aborted => enter(Stage::Rollback),
        Outcome::FailedForGood => enter(Stage::Failure),
    }
}

fn after_rollback(outcome: Outcome) -> Next {
    match outcome {
        Outcome::DoneNeedsReboot => enter(Stage::RollbackReboot),
        Outcome::StillOpen => Next::StayThere,
        Outcome::Done
        | Outcome::DoneForGood
        | Outcome::NoPayload
        | Outcome::Failed
        | Outcome::FailedForGood
        | Outcome::Aborted => enter(Stage::Failure),
    }
}

/// How an installation ended that did not fail. Whether it can be rolled back matters to a person, who would have to decide.
pub(super) fn installed(conduct: Conduct, needs_reboot: bool, can_roll_back: bool) -> Outcome {
    match (conduct, needs_reboot, can_roll_back) {
        (Conduct::Managed, true, _) => Outcome::DoneNeedsReboot,
        (Conduct::Managed, false, _) | (Conduct::Standalone, _, true) => Outcome::Done,
        (Conduct::Standalone, _, false) => Outcome::DoneForGood,
    }
}

/// How a roll-back ended that did not fail.
pub(super) fn rolled_back(conduct: Conduct, needs_reboot: bool) -> Outcome {
    match (conduct, needs_reboot) {
        (Conduct::Managed, true) => Outcome::DoneNeedsReboot,
        (Conduct::Managed, false) | (Conduct::Standalone, _) => Outcome::Done,
    }
}

/// Why a stage did not end as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It failed.
    Failed,
    /// The deployment was called off before it began.
    CalledOff,
}

/// What has to be asked before it is known what a trouble means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Whether the payload can be rolled back.
    CanRollBack,
    /// What boots next.
    WhatBoots,
}

/// The answer to a [`Doubt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// There was no doubt, or no answer.
    Nothing,
    /// Whether the payload can be rolled back.
    CanRollBack(bool),
    /// What boots next.
    WhatBoots(Option<Verdict>),
}

/// What a trouble means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) outcome: Outcome,
    /// Neither the old nor the new software can be vouched for any more.
    pub(super) inconsistent: bool,
}

/// What has to be asked. Each question is a call of the payload's handler, and none is made in vain.
pub(super) fn doubt(stage: Stage, trouble: Trouble) -> Option<Doubt> {
    match stage.facts().blame {
        Blame::New if changed_nothing_yet(stage, trouble) => None,
        Blame::New => Some(Doubt::CanRollBack),
        Blame::Both if stage == Stage::Rollback => Some(Doubt::WhatBoots),
        Blame::None | Blame::Both => None,
    }
}

/// What a trouble in `stage` means.
pub(super) fn judge(stage: Stage, trouble: Trouble, known: Known) -> Judgement {
    let judged = |outcome, inconsistent| Judgement { outcome, inconsistent };
    let outcome = match trouble {
        Trouble::Failed => Outcome::Failed,
        Trouble::CalledOff => Outcome::Aborted,
    };
    match stage.facts().blame {
        Blame::None => judged(outcome, false),
        Blame::New if changed_nothing_yet(stage, trouble) => judged(outcome, false),
        Blame::New if known == Known::CanRollBack(true) => judged(outcome, false),
        Blame::New => judged(Outcome::FailedForGood, true),
        Blame::Both if stage == Stage::Rollback && !is_back(known) => judged(Outcome::StillOpen, true),
        Blame::Both => judged(outcome, true),
    }
}

/// Whether nothing that boots has changed.
fn changed_nothing_yet(stage: Stage, trouble: Trouble) -> bool {
    (stage, trouble) == (Stage::Install, Trouble::CalledOff)
}

/// Whether a roll-back that failed has left nothing open: only its scripts failed, or no bootloader is concerned.
fn is_back(known: Known) -> bool {
    match known {
        Known::WhatBoots(None | Some(Verdict::FellBack | Verdict::Reverting)) => true,
        Known::WhatBoots(Some(
            Verdict::Untouched | Verdict::Trial | Verdict::Committed | Verdict::Contradictory,
        ))
        | Known::CanRollBack(_)
        | Known::Nothing => false,
    }
}

/// What a person or a server asks for, where nothing is in progress or something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// An artifact is to be installed.
    Install,
    /// What lies in the other slot is to be tried.
    TryOtherSlot,
    /// The old software is to come back.
    RollBack,
}

/// The first stage of what was ordered.
pub(super) fn begin(order: Order) -> Entry {
    Entry(match order {
        Order::Install => Stage::Download,
        Order::TryOtherSlot => Stage::Install,
        Order::RollBack => Stage::Rollback,
    })
}

/// Where a deployment stands of which another client recorded only so much that can be understood. The way back is gone on
/// with; everything else goes back.
pub(super) fn salvage(recorded: Option<Stage>) -> Position {
    let stage = match recorded {
        Some(back @ (Stage::RollbackReboot | Stage::VerifyRollback | Stage::Failure | Stage::Cleanup)) => {
            back
        }
        Some(
            Stage::Download
            | Stage::Install
            | Stage::Reboot
            | Stage::VerifyReboot
            | Stage::Commit
            | Stage::AfterCommit
            | Stage::Rollback,
        )
        | None => Stage::Rollback,
    };
    Entry(stage).begun()
}

/// A deployment as a later process finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) stage: Stage,
    /// The stage had begun; otherwise it was waiting to begin.
    pub(super) entered: bool,
    /// What the bootloader did meanwhile; `None` for payloads no bootloader is concerned with, and for stages in which that
    /// decides nothing.
    pub(super) verdict: Option<Verdict>,
    pub(super) conduct: Conduct,
    /// Stages entered, and processes that went on with it, so far.
    pub(super) transitions: u32,
    /// Its download may begin once more.
    pub(super) may_download_again: bool,
}

/// Where to go on with a deployment that another process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumption {
    /// Here.
    Enter(Entry, Because),
    /// Back, or to the end as failed where the payload cannot be rolled back ([`way_back`] tells).
    GoBack {
        /// The stage that was cut short.
        cut: Stage,
    },
    /// The device has not been restarted since the installation: there is nothing to do but that.
    AwaitReboot,
    /// The boot environment contradicts everything this deployment can have done: a person must look.
    Contradiction,
    /// Something in the stages it passes ends every process. The bootloader is told to stay with the old software, and
    /// nothing else is called any more.
    BreakTheLoop(Entry),
}

/// Why a stage is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Because {
    /// It is next.
    ItIsNext,
    /// The way back was under way.
    WasGoingBack,
    /// The bootloader went back while the deployment waited, which is news.
    FellBack,
    /// What was cut short cannot be gone on with.
    CutShort(Stage),
    /// The download was cut short, and the server offers it again.
    OfferedAgain,
    /// The boot environment contradicts the record, and no person is here to look: nothing that boots is touched.
    Contradiction,
}

/// Where to go on.
///
/// The boot environment is the truth for what boots; the record only tells what was being done.
pub(super) fn resume(found: Found) -> Resumption {
    let Found { stage, entered, conduct, .. } = found;
    if found.transitions > TRANSITIONS_MAX {
        return Resumption::BreakTheLoop(Entry(Stage::Cleanup));
    }
    match (standing(stage, entered, found.verdict), conduct) {
        (Standing::AwaitReboot, Conduct::Standalone) => Resumption::AwaitReboot,
        (Standing::AwaitReboot, Conduct::Managed) => {
            Resumption::Enter(Entry(Stage::Reboot), Because::ItIsNext)
        }
        (Standing::Contradiction, Conduct::Standalone) => Resumption::Contradiction,
        (Standing::Contradiction, Conduct::Managed) => {
            Resumption::Enter(Entry(Stage::Failure), Because::Contradiction)
        }
        (Standing::In(Stage::Rollback), _) if (stage, entered) == (Stage::Commit, false) => {
            Resumption::Enter(Entry(Stage::Rollback), Because::FellBack)
        }
        (Standing::In(Stage::Rollback), _) if stage == Stage::Rollback => {
            Resumption::Enter(Entry(Stage::Rollback), Because::WasGoingBack)
        }
        // The command line goes back without asking (docs/spec/client-behaviour.md, "Going on after an interruption").
        (Standing::In(Stage::Rollback), Conduct::Standalone) => {
            Resumption::Enter(Entry(Stage::Rollback), Because::CutShort(stage))
        }
        (Standing::In(Stage::Rollback), Conduct::Managed) => Resumption::GoBack { cut: stage },
        (Standing::In(Stage::Cleanup), _) if stage == Stage::Download => {
            let because = match found.may_download_again {
                true => Because::OfferedAgain,
                false => Because::CutShort(stage),
            };
            Resumption::Enter(Entry(Stage::Cleanup), because)
        }
        (Standing::In(stage), _) => Resumption::Enter(Entry(stage), Because::ItIsNext),
    }
}

/// Where a deployment goes that has to go back.
pub(super) fn way_back(can_roll_back: bool) -> Entry {
    Entry(if can_roll_back { Stage::Rollback } else { Stage::Failure })
}

/// What an order to commit does with a deployment that another process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommitOrder {
    /// It is carried out, from this stage on.
    Enter(Entry, Because),
    /// Cut in the middle of something that cannot be committed: it is wound up, as by [`resume`].
    WindUp,
    /// It makes no sense here.
    Refused,
    /// Too early, which is no reason to throw the update away.
    NotRestarted,
    /// As in [`Resumption`].
    Contradiction,
}

/// What an order to commit does.
pub(super) fn commit(found: Found) -> CommitOrder {
    let Found { stage, entered, .. } = found;
    let facts = stage.facts();
    if facts.commit_winds_up && entered {
        return CommitOrder::WindUp;
    }
    if !facts.may_commit {
        return CommitOrder::Refused;
    }
    match standing(stage, entered, found.verdict) {
        Standing::AwaitReboot => CommitOrder::NotRestarted,
        Standing::Contradiction => CommitOrder::Contradiction,
        Standing::In(Stage::Rollback) if entered => {
            CommitOrder::Enter(Entry(Stage::Rollback), Because::CutShort(stage))
        }
        Standing::In(Stage::Rollback) => CommitOrder::Enter(Entry(Stage::Rollback), Because::FellBack),
        // Not begun yet: the order to commit is an order to try, and a failure rolls back.
        Standing::In(stage) => CommitOrder::Enter(Entry(stage), Because::ItIsNext),
    }
}

/// Where a deployment is, whoever drives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    In(Stage),
    AwaitReboot,
    Contradiction,
}

fn standing(stage: Stage, entered: bool, verdict: Option<Verdict>) -> Standing {
    match stage {
        // A download leaves nothing to go on with: nothing points at the half-written slot.
        Stage::Download => Standing::In(Stage::Cleanup),
        Stage::Install if !entered => Standing::In(Stage::Install),
        // Cut while installing: not everything that belongs to it was done, so it is undone. Cut while committing:
        // committed if and only if the environment says so.
        Stage::Install => cut_in_the_middle(verdict),
        Stage::Commit if entered => cut_in_the_middle(verdict),
        Stage::Commit => before_commit(verdict),
        Stage::Reboot | Stage::VerifyReboot => match verdict {
            None => Standing::In(after_restart_unseen(stage, entered)),
            Some(verdict) => after_restart(verdict),
        },
        // Whether the restart happened is for the verification to see; it restarts again where it did not.
        Stage::RollbackReboot | Stage::VerifyRollback => Standing::In(Stage::VerifyRollback),
        Stage::AfterCommit | Stage::Rollback | Stage::Failure | Stage::Cleanup => Standing::In(stage),
    }
}

fn cut_in_the_middle(verdict: Option<Verdict>) -> Standing {
    match verdict {
        None | Some(Verdict::Untouched | Verdict::Trial | Verdict::FellBack | Verdict::Reverting) => {
            Standing::In(Stage::Rollback)
        }
        Some(Verdict::Committed) => Standing::In(Stage::AfterCommit),
        Some(Verdict::Contradictory) => Standing::Contradiction,
    }
}

fn before_commit(verdict: Option<Verdict>) -> Standing {
    match verdict {
        None | Some(Verdict::Trial) => Standing::In(Stage::Commit),
        Some(Verdict::Untouched) => Standing::AwaitReboot,
        Some(Verdict::FellBack | Verdict::Reverting) => Standing::In(Stage::Rollback),
        Some(Verdict::Committed) => Standing::In(Stage::AfterCommit),
        Some(Verdict::Contradictory) => Standing::Contradiction,
    }
}

fn after_restart(verdict: Verdict) -> Standing {
    match verdict {
        // Armed, and still the old software: the restart did not happen.
        Verdict::Untouched => Standing::AwaitReboot,
        // That the bootloader gave up the verification finds out, and its error scripts hear of it.
        Verdict::Trial | Verdict::FellBack => Standing::In(Stage::VerifyReboot),
        Verdict::Reverting => Standing::In(Stage::Rollback),
        Verdict::Committed => Standing::In(Stage::AfterCommit),
        Verdict::Contradictory => Standing::Contradiction,
    }
}

/// Where no bootloader tells: the restart was the last thing begun, and this is after it; a verification that was cut is not
/// trusted a second time.
fn after_restart_unseen(stage: Stage, entered: bool) -> Stage {
    match (stage == Stage::Reboot, entered) {
        (true, false) => Stage::Reboot,
        (true, true) | (false, false) => Stage::VerifyReboot,
        (false, true) => Stage::Rollback,
    }
}

/// Whether the daemon winds up a deployment of the command line in this position: nobody will come back for what was cut,
/// or decided by the bootloader. What waits for a person does so still: after an installation, and wherever a command was
/// told to stop.
pub(super) fn is_left_behind(stage: Stage, entered: bool, verdict: Option<Verdict>) -> bool {
    match (stage, entered) {
        // The next deployment forgets it.
        (Stage::Download, _) => false,
        (Stage::Commit, false) => match verdict {
            None | Some(Verdict::Untouched | Verdict::Trial) => false,
            Some(Verdict::Committed | Verdict::FellBack | Verdict::Reverting | Verdict::Contradictory) => {
                true
            }
        },
        (_, entered) => entered,
    }
}

/// What is done about a trial that a loop left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AfterLoop {
    /// The bootloader is told to stay with the old software.
    pub(super) goes_back: bool,
    /// The new software runs, and the device has to be restarted out of it.
    pub(super) restarts: bool,
}

/// What is done about it, by what the bootloader says.
pub(super) fn after_loop(verdict: Option<Verdict>, conduct: Conduct) -> AfterLoop {
    let (goes_back, new_software_runs) = match verdict {
        Some(Verdict::Untouched) => (true, false),
        Some(Verdict::Trial | Verdict::Reverting) => (true, true),
        None | Some(Verdict::Committed | Verdict::FellBack | Verdict::Contradictory) => (false, false),
    };
    AfterLoop { goes_back, restarts: new_software_runs && conduct == Conduct::Managed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERDICTS: [Option<Verdict>; 7] = [
        None,
        Some(Verdict::Untouched),
        Some(Verdict::Trial),
        Some(Verdict::Committed),
        Some(Verdict::FellBack),
        Some(Verdict::Reverting),
        Some(Verdict::Contradictory),
    ];
    const OUTCOMES: [Outcome; 8] = [
        Outcome::Done,
        Outcome::DoneNeedsReboot,
        Outcome::DoneForGood,
        Outcome::NoPayload,
        Outcome::Failed,
        Outcome::FailedForGood,
        Outcome::StillOpen,
        Outcome::Aborted,
    ];
    const CONDUCTS: [Conduct; 2] = [Conduct::Standalone, Conduct::Managed];

    /// A deployment found like this, which has not looped and may not download again.
    fn found(stage: Stage, entered: bool, verdict: Option<Verdict>, conduct: Conduct) -> Found {
        Found { stage, entered, verdict, conduct, transitions: 0, may_download_again: false }
    }

    /// Every way through the table from `stage`; the only loop is the restart on the way back, which is counted.
    fn every_way_ends(stage: Stage, conduct: Conduct, left: u32) {
        assert!(left > 0, "too long a way at {stage}");
        for outcome in OUTCOMES {
            match next(stage, outcome, conduct) {
                Next::End => assert_eq!(stage, Stage::Cleanup),
                Next::StayThere => assert_eq!((stage, outcome), (Stage::Rollback, Outcome::StillOpen)),
                Next::WaitForCommit(entry) => {
                    let expected = (Stage::Install, Conduct::Standalone, Stage::Commit);
                    assert_eq!((stage, conduct, entry.stage()), expected);
                }
                Next::Enter(Entry(Stage::RollbackReboot)) if stage == Stage::VerifyRollback => {}
                Next::Enter(entry) => every_way_ends(entry.stage(), conduct, left - 1),
            }
        }
    }

    #[test]
    fn every_deployment_ends_within_eleven_stages() {
        for (first, conduct) in Stage::ALL.into_iter().flat_map(|stage| CONDUCTS.map(|who| (stage, who))) {
            every_way_ends(first, conduct, 11);
        }
    }

    #[test]
    fn nothing_behind_the_commit_point_leads_back() {
        for (outcome, conduct) in OUTCOMES.into_iter().flat_map(|outcome| CONDUCTS.map(|who| (outcome, who)))
        {
            assert_eq!(next(Stage::AfterCommit, outcome, conduct), enter(Stage::Cleanup));
        }
        for stage in [Stage::Install, Stage::Reboot, Stage::VerifyReboot, Stage::Commit] {
            for (entered, conduct) in [false, true].into_iter().flat_map(|is| CONDUCTS.map(|who| (is, who))) {
                // Not armed by this deployment yet: installing checks the environment itself.
                let expected =
                    if (stage, entered) == (Stage::Install, false) { stage } else { Stage::AfterCommit };
                assert_eq!(
                    resume(found(stage, entered, Some(Verdict::Committed), conduct)),
                    Resumption::Enter(Entry(expected), Because::ItIsNext)
                );
            }
        }
    }

    #[test]
    fn a_deployment_that_loops_goes_nowhere_but_to_its_end() {
        for stage in Stage::ALL {
            let found =
                Found { transitions: TRANSITIONS_MAX + 1, ..found(stage, true, None, Conduct::Managed) };
            assert_eq!(resume(found), Resumption::BreakTheLoop(Entry(Stage::Cleanup)));
        }
        let last =
            Found { transitions: TRANSITIONS_MAX, ..found(Stage::Failure, true, None, Conduct::Managed) };
        assert_eq!(resume(last), Resumption::Enter(Entry(Stage::Failure), Because::ItIsNext));
    }

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

    /// Whoever sets where a deployment stands has to ask this module, or it does not compile; but for the record's own fields.
    #[test]
    #[allow(clippy::disallowed_methods)] // A test of sources reads them.
    fn no_other_module_says_where_a_deployment_stands() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/deploy");
        let mut found = Vec::new();
        for file in std::fs::read_dir(source).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !path.is_file() || name == "plan.rs" {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
            let sets = |line: &&str| {
                [".stage =", ".stage,", ".entered ="].iter().any(|set| line.contains(set))
                    && line.contains(" = ")
                    && !line.contains("let ")
                    && !line.contains(" == ")
            };
            found.extend(shipped.lines().filter(sets).map(|line| format!("{name}: {}", line.trim())));
        }
        let only = "record.rs: (self.stage, self.entered) = position.as_recorded();";
        assert_eq!(found, [only], "the record takes a position from the plan, and nobody else sets one");
    }

    #[test]
    fn what_is_asked_is_what_the_judgement_depends_on() {
        let answers = [
            Known::Nothing,
            Known::CanRollBack(true),
            Known::CanRollBack(false),
            Known::WhatBoots(None),
            Known::WhatBoots(Some(Verdict::FellBack)),
            Known::WhatBoots(Some(Verdict::Trial)),
        ];
        for stage in Stage::ALL {
            for trouble in [Trouble::Failed, Trouble::CalledOff] {
                let first = judge(stage, trouble, Known::Nothing);
                let depends = answers.into_iter().any(|known| judge(stage, trouble, known) != first);
                assert_eq!(depends, doubt(stage, trouble).is_some(), "{stage} {trouble:?}");
            }
        }
        assert_eq!(judge(Stage::Download, Trouble::CalledOff, Known::Nothing).outcome, Outcome::Aborted);
        assert_eq!(
            judge(Stage::Commit, Trouble::CalledOff, Known::CanRollBack(true)).outcome,
            Outcome::Aborted
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // A test of a document reads the document.
    fn the_document_shows_these_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-machine.md");
        let expected = document::page();
        if std::env::var_os("ROTA_GOLDEN").is_some() {
            std::fs::write(path, &expected).unwrap();
        }
        let actual = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(actual, expected, "run it with ROTA_GOLDEN=1 and read the difference");
    }

    /// The tables as a document: `docs/state-machine.md` is this text.
    mod document {
        use super::*;
        use crate::deploy::facts::Importance;
        use crate::deploy::record::CUT_DOWNLOADS_MAX;
        use crate::deploy::scripts::ScriptPoint;

        const HEAD: &str = "# State machine\n\nPrinted from `client-core::deploy::plan`, whose functions make every transition, by `ROTA_GOLDEN=1 cargo test -p rust-ota-client-core`; a test compares them. Where the command line and the daemon differ, the daemon's cell is in parentheses.\n";
        const LOST_RECORD: &str = "\n## When the record is lost\n\nNothing is known of what was being done then, so the boot environment alone decides, once, before anything else is begun: where no trial is open and the selected slot runs, there is nothing to do. Everything else is a deployment before `Rollback`, wound up by the daemon: an open trial is closed in favour of the other slot, and the device restarted where the slot on trial, or a slot that is not selected, runs. `commit` is refused meanwhile (nobody knows what it would make permanent), `rollback` and `resume` go back by hand.\n";

        pub(super) fn page() -> String {
            [
                HEAD.to_owned(),
                after_a_stage(),
                after_trouble(),
                after_an_interruption(),
                on_commit(),
                winding_up(),
                loops(),
                LOST_RECORD.to_owned(),
                facts(),
                crate::deploy::ending::tests::table(),
            ]
            .concat()
        }

        fn table(head: &str, rows: impl IntoIterator<Item = (String, Vec<String>)>) -> String {
            let columns = head.matches('|').count() - 1;
            let rows: String = rows
                .into_iter()
                .map(|(name, cells)| format!("| {name} | {} |\n", cells.join(" | ")))
                .collect();
            format!("{head}\n|{}\n{rows}", " --- |".repeat(columns))
        }

        /// The cell for both conducts.
        fn both(cell: impl Fn(Conduct) -> String) -> String {
            let (standalone, managed) = (cell(Conduct::Standalone), cell(Conduct::Managed));
            if standalone == managed { standalone } else { format!("{standalone} ({managed})") }
        }

        fn after_a_stage() -> String {
            let cell = |stage, outcome| {
                both(|conduct| match next(stage, outcome, conduct) {
                    Next::Enter(entry) => entry.stage().to_string(),
                    Next::WaitForCommit(_) => "wait for `commit`".to_owned(),
                    Next::StayThere => "stay there".to_owned(),
                    Next::End => "end".to_owned(),
                })
            };
            let head = format!("| stage | {} |", OUTCOMES.map(Outcome::name).join(" | "));
            let rows = Stage::ALL
                .map(|stage| (stage.to_string(), OUTCOMES.map(|outcome| cell(stage, outcome)).to_vec()));
            format!(
                "\n## What follows a stage\n\n\"Done, no way back\" is asked for on the command line only, where a person would otherwise decide. A deployment that stays there is tried again by the next process.\n\n{}",
                table(&head, rows)
            )
        }

        fn after_trouble() -> String {
            let cell = |stage, trouble, known| {
                let Judgement { outcome, inconsistent } = judge(stage, trouble, known);
                format!("{}{}", outcome.name(), if inconsistent { ", inconsistent" } else { "" })
            };
            let cells = |stage, trouble| match doubt(stage, trouble) {
                None => cell(stage, trouble, Known::Nothing),
                Some(Doubt::CanRollBack) => format!(
                    "{}; without a way back {}",
                    cell(stage, trouble, Known::CanRollBack(true)),
                    cell(stage, trouble, Known::CanRollBack(false))
                ),
                Some(Doubt::WhatBoots) => format!(
                    "{}; with a trial that may be open {}",
                    cell(stage, trouble, Known::WhatBoots(None)),
                    cell(stage, trouble, Known::Nothing)
                ),
            };
            let row = |stage: Stage| {
                let called_off = match (stage.facts().report, stage.facts().gate) {
                    (None, None) => "-".to_owned(),
                    _ => cells(stage, Trouble::CalledOff),
                };
                (stage.to_string(), vec![cells(stage, Trouble::Failed), called_off])
            };
            format!(
                "\n## What a failure means\n\nThe handler is asked only where the answer decides. A deployment is called off by the server or by a gate, before a stage begins. \"Inconsistent\": neither the old nor the new software can be vouched for, which the name of what is installed says from then on.\n\n{}",
                table("| stage | it failed | called off before it |", Stage::ALL.map(row))
            )
        }

        fn verdicts() -> String {
            let name = |verdict: Option<Verdict>| {
                verdict.map_or("no bootloader".to_owned(), |verdict| verdict.to_string())
            };
            format!("| found | {} |", VERDICTS.map(name).join(" | "))
        }

        /// A row for each position, a cell for each verdict.
        fn positions(cell: impl Fn(Stage, bool, Option<Verdict>) -> String) -> Vec<(String, Vec<String>)> {
            let row = |(stage, entered)| {
                let position = if entered { "in" } else { "before" };
                (
                    format!("{position} {stage}"),
                    VERDICTS.map(|verdict| cell(stage, entered, verdict)).to_vec(),
                )
            };
            Stage::ALL.into_iter().flat_map(|stage| [(stage, false), (stage, true)]).map(row).collect()
        }

        fn entered(entry: Entry, because: Because) -> String {
            let because = match because {
                Because::ItIsNext | Because::WasGoingBack => "",
                Because::FellBack => ", fell back",
                Because::CutShort(_) => ", cut short",
                Because::OfferedAgain => ", offered again",
                Because::Contradiction => ", contradiction",
            };
            format!("{}{because}", entry.stage())
        }

        fn after_an_interruption() -> String {
            let cell = |stage, is_in, verdict| {
                both(|conduct| match resume(found(stage, is_in, verdict, conduct)) {
                    Resumption::Enter(entry, because) => entered(entry, because),
                    Resumption::GoBack { .. } => {
                        format!("{} or {}, cut short", way_back(true).stage(), way_back(false).stage())
                    }
                    Resumption::AwaitReboot => "restart by hand".to_owned(),
                    Resumption::Contradiction => "stop".to_owned(),
                    Resumption::BreakTheLoop(_) => "loop".to_owned(),
                })
            };
            format!(
                "\n## Where a deployment goes on after an interruption\n\nColumns: what the boot environment says. `no bootloader` is for payloads that it does not concern. \"Rollback or Failure\": the second where the payload cannot be rolled back. A download of the daemon that was cut short begins again, because the server offers it again, up to {CUT_DOWNLOADS_MAX} times in a row without progress; after that it has failed. One of the command line is forgotten.\n\n{}",
                table(&verdicts(), positions(cell))
            )
        }

        fn on_commit() -> String {
            let cell = |stage, is_in, verdict| match commit(found(stage, is_in, verdict, Conduct::Standalone))
            {
                CommitOrder::Enter(entry, because) => entered(entry, because),
                CommitOrder::WindUp => "wound up".to_owned(),
                CommitOrder::Refused => "refused".to_owned(),
                CommitOrder::NotRestarted => "refused: not restarted".to_owned(),
                CommitOrder::Contradiction => "stop".to_owned(),
            };
            format!(
                "\n## What `commit` does\n\nWhat is wound up goes on as after an interruption. A trial of which nothing is known, because the record was lost, is refused.\n\n{}",
                table(&verdicts(), positions(cell))
            )
        }

        fn winding_up() -> String {
            let cell = |stage, is_in, verdict| {
                if is_left_behind(stage, is_in, verdict) { "yes" } else { "-" }.to_owned()
            };
            format!(
                "\n## What the daemon winds up of a deployment of the command line\n\nIt goes on with it as above. The rest waits for a person, and so does what was stopped with `--stop-before`; what the daemon has begun to wind up it also finishes.\n\n{}",
                table(&verdicts(), positions(cell))
            )
        }

        fn loops() -> String {
            let rows = VERDICTS.map(|verdict| {
                let name = verdict.map_or("no bootloader".to_owned(), |verdict| verdict.to_string());
                let cell = |is: bool| if is { "yes" } else { "no" }.to_owned();
                let back = cell(after_loop(verdict, Conduct::Managed).goes_back);
                (name, vec![back, both(|conduct| cell(after_loop(verdict, conduct).restarts))])
            });
            format!(
                "\n## When a deployment loops\n\nAfter more than {TRANSITIONS_MAX} stages and restarts of its process it is ended: nothing of it is called any more, it is cleaned up and reported as failed. The bootloader is told:\n\n{}",
                table("| the boot environment says | stay with the old software | restart |", rows)
            )
        }

        fn facts() -> String {
            let point = |point: Option<ScriptPoint>| point.map_or("-".to_owned(), |point| point.to_string());
            let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
            let row = |stage: Stage| {
                let facts = stage.facts();
                let reported = match facts.report {
                    None => "-".to_owned(),
                    Some((report, Importance::BestEffort)) => report.name().to_owned(),
                    Some((report, Importance::Mandatory)) => format!("{}, mandatory", report.name()),
                };
                let back = match (stage.may_roll_back(false), stage.may_roll_back(true)) {
                    (true, true) => "yes",
                    (true, false) => "before it began",
                    (false, true) => "once it began",
                    (false, false) => "no",
                };
                let cells = vec![
                    reported,
                    facts.gate.map_or("-".to_owned(), |gate| gate.to_string()),
                    point(stage.enter_scripts()),
                    point(stage.leave_scripts()),
                    both(|conduct| point(stage.error_scripts(conduct))),
                    both(|conduct| yes(facts.scripts_can_fail_it.holds(conduct))),
                    yes(facts.without_handler),
                    yes(facts.may_commit),
                    back.to_owned(),
                ];
                (stage.to_string(), cells)
            };
            format!(
                "\n## Facts per stage\n\nA deployment whose handler cannot be opened goes on where the table says so, and leaves out what only the handler can do; a failure it ends with the reason. Elsewhere the process ends, and the next one tries again: those of the daemon are counted as in a loop.\n\n{}",
                table(
                    "| stage | reported before | gate before | scripts before | scripts after | scripts on error | a failing script fails it | goes on without a handler | `commit` allowed | `rollback` allowed |",
                    Stage::ALL.map(row)
                )
            )
        }
    }
}
