//! Why a trial was given up, of what is left of it. Pure.

use super::facts::{Conduct, Stage};
use crate::slot::Traces;

/// What a kernel says that crashes, the surest first.
const CRASHES: [&str; 6] =
    ["Kernel panic", "Unable to handle kernel", "Internal error", "BUG:", "Oops", "lockup"];

/// In words, for the server and whoever reads the log. `stage` is that in which the deployment was found: behind the restart that
/// a daemon asked for, only a client of the new system can have brought it.
pub(super) fn of_fall_back(conduct: Conduct, stage: Stage, traces: &Traces) -> String {
    // From that word on: in front of it is when it was said.
    let words = |word: &&str| traces.kernel.iter().find_map(|line| line.find(*word).map(|at| &line[at..]));
    let why = if let Some(words) = CRASHES.iter().find_map(words) {
        format!("its kernel crashed: {words}")
    } else if let Some(note) = traces.notes.last() {
        note.clone()
    } else if traces.watchdog {
        "the watchdog restarted it".to_owned()
    } else {
        match (conduct, stage) {
            (Conduct::Standalone, _) => "the device was restarted before the commit",
            (Conduct::Managed, Stage::Reboot) => "its client did not come up, and nothing was noted",
            (Conduct::Managed, _) => "its client came up, and the device was restarted before the commit",
        }
        .to_owned()
    };
    format!("the bootloader gave the new system up: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_surest_trace_is_the_cause() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let check = |stage, kernel: &[&str], notes: &[&str], watchdog, expected: &str| {
            let traces = Traces { kernel: lines(kernel), notes: lines(notes), watchdog };
            let cause = of_fall_back(Conduct::Managed, stage, &traces);
            assert!(cause.ends_with(&format!("gave the new system up: {expected}")), "{cause}");
        };
        let panic = "Kernel panic - not syncing: VFS: Unable to mount root fs";
        let crashed = format!("its kernel crashed: {panic}");
        check(
            Stage::Reboot,
            &["BUG: scheduling", &format!("[1.5] {panic}"), "Call Trace:"],
            &["a", "b"],
            true,
            &crashed,
        );
        check(Stage::Reboot, &["eth0: link up"], &["a", "b"], true, "b");
        check(Stage::Reboot, &[], &[], true, "the watchdog restarted it");
        check(Stage::Reboot, &[], &[], false, "its client did not come up, and nothing was noted");
        let came_up = "its client came up, and the device was restarted before the commit";
        check(Stage::VerifyReboot, &[], &[], false, came_up);
        check(Stage::Commit, &[], &[], false, came_up);
        let by_hand = of_fall_back(Conduct::Standalone, Stage::Commit, &Traces::default());
        assert!(by_hand.ends_with(": the device was restarted before the commit"), "{by_hand}");
    }
}
