//! How a device stands, for somebody who only looks. Pure: what is recorded and what boots in, a word out.

use super::facts::Stage;
use super::record::Record;
use crate::boot::{BootState, Intent, Verdict, verdict};
use crate::install::is_image;
use crate::slot::Slot;

/// How a device stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// No update is in progress.
    Idle,
    /// An update is being taken in, or wound up; or a process was interrupted at it.
    Busy,
    /// The new software is installed and armed; the restart into it is to come.
    AwaitsRestart,
    /// The new software runs on trial: commit it, or the next restart goes back.
    OnTrial,
    /// Installed without a restart: waits for commit or roll-back.
    AwaitsCommit,
    /// The bootloader went back to the old software; the update is to be wound up.
    FellBack,
    /// The update failed or was given up; the old software runs, or will after the restart.
    GoingBack,
    /// What boots and what is recorded contradict each other.
    Contradictory,
    /// An update is in progress, and what boots cannot be learned.
    Unknown,
}

/// How the device stands by what is recorded, where `boot` and `running` say what boots and what runs, as far as that can
/// be learned.
pub fn standing(record: &Record, boot: Option<BootState>, running: Option<Slot>) -> Standing {
    let facts = boot.zip(running);
    let Some(deployment) = &record.deployment else {
        return match facts {
            Some((boot, running)) if boot.trial => of_trial(boot, running),
            Some(_) | None => Standing::Idle,
        };
    };
    let is_image = deployment.payload_type.as_deref().is_some_and(is_image);
    match deployment.stage {
        Stage::Download | Stage::Install | Stage::AfterCommit => Standing::Busy,
        Stage::Reboot | Stage::VerifyReboot | Stage::Commit => match facts {
            Some((boot, running)) if is_image => of_trial(boot, running),
            None if is_image => Standing::Unknown,
            Some(_) | None if deployment.stage == Stage::Commit => Standing::AwaitsCommit,
            Some(_) | None => Standing::AwaitsRestart,
        },
        Stage::Cleanup if !deployment.failed => Standing::Busy,
        Stage::Rollback | Stage::RollbackReboot | Stage::VerifyRollback | Stage::Failure | Stage::Cleanup => {
            Standing::GoingBack
        }
    }
}

fn of_trial(boot: BootState, running: Slot) -> Standing {
    match verdict(boot, running, boot.likely_target(running), Intent::Try) {
        Verdict::Untouched => Standing::AwaitsRestart,
        Verdict::Trial => Standing::OnTrial,
        Verdict::Committed => Standing::Busy,
        Verdict::FellBack => Standing::FellBack,
        Verdict::Reverting => Standing::GoingBack,
        Verdict::Contradictory => Standing::Contradictory,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Deployment;
    use super::*;
    use crate::boot::Arming;
    use crate::install::ROOTFS_IMAGE;

    fn at(stage: Stage, payload_type: &str) -> Record {
        let mut deployment = Deployment::new("release-2".into(), Some(payload_type.into()));
        deployment.stage = stage;
        let mut record = Record::new();
        record.deployment = Some(deployment);
        record
    }

    fn boots(selected: Slot, trial: bool) -> Option<BootState> {
        Some(BootState { selected, trial, arming: Arming::Durable })
    }

    #[test]
    fn without_an_update_only_an_open_trial_is_worth_a_word() {
        let check = |boot, running, expected| assert_eq!(standing(&Record::new(), boot, running), expected);
        check(boots(Slot::A, false), Some(Slot::A), Standing::Idle);
        check(None, None, Standing::Idle);
        check(boots(Slot::B, true), Some(Slot::B), Standing::OnTrial);
        check(boots(Slot::B, true), Some(Slot::A), Standing::AwaitsRestart);
    }

    #[test]
    fn an_installed_image_stands_as_the_bootloader_says() {
        let check = |boot, running, expected| {
            assert_eq!(standing(&at(Stage::Commit, ROOTFS_IMAGE), boot, running), expected);
        };
        check(boots(Slot::B, true), Some(Slot::A), Standing::AwaitsRestart);
        check(boots(Slot::B, true), Some(Slot::B), Standing::OnTrial);
        check(boots(Slot::A, false), Some(Slot::A), Standing::FellBack);
        check(boots(Slot::A, false), Some(Slot::B), Standing::GoingBack);
        check(boots(Slot::B, true), None, Standing::Unknown);
        check(None, Some(Slot::A), Standing::Unknown);
    }

    #[test]
    fn what_needs_no_restart_waits_for_the_commit() {
        assert_eq!(standing(&at(Stage::Commit, "single-file"), None, None), Standing::AwaitsCommit);
        assert_eq!(standing(&at(Stage::Reboot, "module"), None, None), Standing::AwaitsRestart);
        assert_eq!(standing(&at(Stage::Download, "single-file"), None, None), Standing::Busy);
        assert_eq!(standing(&at(Stage::Rollback, "single-file"), None, None), Standing::GoingBack);
    }
}
