//! What boots next, and what the bootloader did while we were off. Pure: facts in, a [`Verdict`] out.

use std::fmt;

use crate::slot::Slot;

/// How long an arming lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arming {
    /// It is stored: it outlives a power cut, and whoever restarts the device starts the trial.
    Durable,
    /// It is given along with the restart, for one boot, and is stored nowhere: a power cut before the restart takes it
    /// away, and so does the trial itself.
    WithReboot,
}

/// What boots next, as the bootloader keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// The slot that is stored as the one to boot. While a durable arming is open that is the slot on trial; otherwise
    /// it is the permanent one.
    pub selected: Slot,
    /// Whether a trial is armed, or runs and was not committed.
    pub trial: bool,
    /// What an arming of this bootloader is.
    pub arming: Arming,
}

impl BootState {
    /// The slot that boots once no trial is left.
    pub fn fall_back(self) -> Slot {
        match (self.arming, self.trial) {
            (Arming::Durable, true) => !self.selected,
            (Arming::Durable, false) | (Arming::WithReboot, _) => self.selected,
        }
    }

    /// The slot that a deployment of which nothing else is known must have written.
    pub(crate) fn likely_target(self, running: Slot) -> Slot {
        match (self.trial, self.selected == running) {
            (true, _) => !self.fall_back(),
            (false, true) => !running,
            (false, false) => running,
        }
    }
}

/// What the record says is being done. A bootloader that stores an arming need not be told; of one that does not, the
/// same facts mean "not tried yet" to who wants the new software and "back" to who wants the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// The new software is to be tried, and committed.
    Try,
    /// The old software is to run again.
    GoBack,
}

/// What the bootloader did while we were off, for a deployment that armed `target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target is armed, or to be armed with the restart, and has not been booted: the original still runs.
    Untouched,
    /// The target runs on trial.
    Trial,
    /// The target runs and the trial is over: it is permanent.
    Committed,
    /// The original runs and nothing points at the target: the bootloader gave up, or the target was never
    /// armed. The stage in the record tells the two apart.
    FellBack,
    /// The target still runs, but the next boot goes back to the original.
    Reverting,
    /// A combination that neither this client nor a bootloader that keeps the contract produces.
    Contradictory,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Untouched => "armed, not booted yet",
            Verdict::Trial => "on trial",
            Verdict::Committed => "committed",
            Verdict::FellBack => "fell back",
            Verdict::Reverting => "going back at the next boot",
            Verdict::Contradictory => "contradictory",
        })
    }
}

/// What the bootloader did while we were off. Its state is the truth about what boots.
///
/// With an arming that rides on the restart, a trial that was never begun and one that ended in a reset leave the same
/// facts. They mean [`Verdict::Untouched`]: a good deployment must not fail because the power went off before its
/// restart, and a bad one is restarted into only as often as a deployment may restart.
pub fn verdict(state: BootState, running: Slot, target: Slot, intent: Intent) -> Verdict {
    let facts = (running == target, state.trial, state.selected == target);
    match state.arming {
        Arming::Durable => of_stored_arming(facts),
        Arming::WithReboot => of_arming_with_reboot(facts, intent),
    }
}

/// (the target runs, a trial is open, the target is selected)
type Facts = (bool, bool, bool);

fn of_stored_arming(facts: Facts) -> Verdict {
    match facts {
        (false, true, true) => Verdict::Untouched,
        (true, true, true) => Verdict::Trial,
        (true, false, true) => Verdict::Committed,
        (false, false, false) => Verdict::FellBack,
        (true, false, false) => Verdict::Reverting,
        // A permanent target that does not run, or a trial of the slot the deployment came from.
        (false, false, true) | (false, true, false) | (true, true, false) => Verdict::Contradictory,
    }
}

/// The selected slot is the permanent one here, until the commit.
fn of_arming_with_reboot(facts: Facts, intent: Intent) -> Verdict {
    match (facts, intent) {
        ((false, false, false), Intent::Try) => Verdict::Untouched,
        ((false, false, false), Intent::GoBack) => Verdict::FellBack,
        ((true, true, false), Intent::Try) => Verdict::Trial,
        // The flag was good for one boot: the next one needs no order to go back.
        ((true, true, false), Intent::GoBack) | ((true, false, false), _) => Verdict::Reverting,
        ((true, false, true), _) => Verdict::Committed,
        // The bootloader was given the flag and booted the original all the same.
        ((false, true, false), _) => Verdict::FellBack,
        // A permanent target that does not run, or one that is on trial as well.
        ((false, _, true) | (true, true, true), _) => Verdict::Contradictory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination, as `selected trial running: try, go back` for a deployment from A to B.
    fn check_table(arming: Arming, expected: [(Slot, bool, Slot, Verdict, Verdict); 8]) {
        for (row, (selected, trial, running, on_try, on_go_back)) in expected.into_iter().enumerate() {
            // Each combination is there once: the rows count in binary.
            assert_eq!(usize::from(selected == Slot::B) * 4 + usize::from(trial) * 2, row & 6, "row {row}");
            assert_eq!(usize::from(running == Slot::B), row & 1, "row {row}");
            let state = BootState { selected, trial, arming };
            assert_eq!(verdict(state, running, Slot::B, Intent::Try), on_try, "{state:?} {running} runs");
            assert_eq!(
                verdict(state, running, Slot::B, Intent::GoBack),
                on_go_back,
                "{state:?} {running} runs"
            );
            // The names of the slots mean nothing.
            let mirrored = BootState { selected: !selected, ..state };
            assert_eq!(verdict(mirrored, !running, Slot::A, Intent::Try), on_try, "{mirrored:?}");
        }
    }

    #[test]
    fn a_stored_arming_is_judged_by_the_bootloader_alone() {
        use Slot::{A, B};
        use Verdict::{Committed, Contradictory, FellBack, Reverting, Trial, Untouched};
        check_table(
            Arming::Durable,
            [
                (A, false, A, FellBack, FellBack),
                (A, false, B, Reverting, Reverting),
                (A, true, A, Contradictory, Contradictory),
                (A, true, B, Contradictory, Contradictory),
                (B, false, A, Contradictory, Contradictory),
                (B, false, B, Committed, Committed),
                (B, true, A, Untouched, Untouched),
                (B, true, B, Trial, Trial),
            ],
        );
    }

    #[test]
    fn an_arming_that_rides_on_the_restart_has_not_failed_where_nothing_was_tried() {
        use Slot::{A, B};
        use Verdict::{Committed, Contradictory, FellBack, Reverting, Trial, Untouched};
        check_table(
            Arming::WithReboot,
            [
                (A, false, A, Untouched, FellBack),
                (A, false, B, Reverting, Reverting),
                (A, true, A, FellBack, FellBack),
                (A, true, B, Trial, Reverting),
                (B, false, A, Contradictory, Contradictory),
                (B, false, B, Committed, Committed),
                (B, true, A, Contradictory, Contradictory),
                (B, true, B, Contradictory, Contradictory),
            ],
        );
    }

    #[test]
    fn without_a_record_the_state_tells_which_slot_was_written() {
        let check = |arming, selected, trial, running, fall_back, target| {
            let state = BootState { selected, trial, arming };
            assert_eq!((state.fall_back(), state.likely_target(running)), (fall_back, target), "{state:?}");
        };
        use Slot::{A, B};
        for running in Slot::BOTH {
            check(Arming::Durable, B, true, running, A, B);
            check(Arming::WithReboot, A, true, running, A, B);
        }
        for arming in [Arming::Durable, Arming::WithReboot] {
            check(arming, A, false, A, A, B);
            check(arming, A, false, B, A, B);
        }
    }
}
