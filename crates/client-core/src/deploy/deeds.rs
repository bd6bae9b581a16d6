//! What each stage does: its scripts, its deed, its scripts, in the order that protects the device.

use super::bill::Bill;
use super::bootstrap::drain_empty;
use super::ending::Halt;
use super::error::DeployError;
use super::facts::Stage;
use super::keep::Keeper;
use super::plan::{self, Entry, Outcome};
use super::record::{CUT_DOWNLOADS_MAX, CutDownloads, REBOOTS_MAX, Record, Unreported, VERSION};
use super::run::{Incoming, Run};
use crate::artifact::{self, Artifact, Header, PayloadReader};
use crate::boot::Verdict;
use crate::install::{Arriving, Cost, Current, DeltaProblem, InstallError, Progress, RebootNeed};
use crate::provides::check_device_type;
use crate::slot::Restart;

impl Run<'_> {
    /// Does what the stage is for.
    pub(super) fn act(
        &mut self,
        entry: Entry,
        incoming: Option<Incoming<'_>>,
    ) -> Result<Outcome, DeployError> {
        match entry.stage() {
            Stage::Download => self.download_artifact(entry, incoming),
            Stage::Install => {
                self.enter(entry)?; // intent before effect: a cut from here on is undone
                self.handler()?.install()?;
                self.leave(entry)?;
                Ok(Outcome::Done)
            }
            Stage::Reboot => self.reboot(entry),
            Stage::VerifyReboot => {
                self.enter(entry)?;
                self.handler()?.verify_reboot()?;
                self.leave(entry)?;
                Ok(Outcome::Done)
            }
            Stage::Commit => {
                self.enter(entry)?; // a cut from here on is decided by the boot environment
                self.world.scripts.check_root_scripts()?; // software that could not be updated again must not stay
                self.handler()?.commit()?; // the single commit point
                Ok(Outcome::Done)
            }
            Stage::AfterCommit => self.settle_commit(entry).map(|()| Outcome::Done),
            Stage::Rollback => self.go_back(entry),
            Stage::RollbackReboot => Ok(self.reboot_back(entry)),
            Stage::VerifyRollback => self.verify_rollback(entry),
            Stage::Failure => self.wind_up(entry),
            Stage::Cleanup => self.end(entry).map(|()| Outcome::Done),
        }
    }

    /// The download: everything up to a payload that is stored, durable and verified.
    fn download_artifact(
        &mut self,
        entry: Entry,
        incoming: Option<Incoming<'_>>,
    ) -> Result<Outcome, DeployError> {
        let outcome = match incoming {
            None => return Err(DeployError::NothingArrives),
            Some(Incoming::Opened { header, payload }) => {
                self.check_that_the_record_fits()?; // a commit that cannot be recorded must not be begun
                self.world.scripts.stage(&header.scripts)?;
                self.forget_other_slot();
                self.earlier_download(&header.manifest_sha256.to_string());
                self.enter(entry)?; // who finds a half-written slot must know why
                self.download_payload(header, payload)?;
                Outcome::Done
            }
            Some(Incoming::Ordered { order, open, policy }) => {
                self.enter(entry)?; // scripts may ask for a later time, before the first byte is bought
                let policy = policy?;
                self.check_ordered_for_this_device(&order.device_types)?;
                let supply = open().map_err(DeployError::Source)?;
                let Artifact { header, mut payload, .. } =
                    artifact::open_supply(supply, &policy.trust, &policy.limits)
                        .map_err(InstallError::from)?;
                self.accept(entry, &header, &mut payload)?
            }
        };
        self.leave(entry)?;
        if outcome == Outcome::NoPayload {
            let installed = self.provides_after_commit();
            self.record.install(installed);
            return Ok(outcome);
        }
        // Only now has every byte of the artifact been verified.
        self.world.scripts.publish()?;
        Ok(outcome)
    }

    /// Refuses what the server itself says is for other devices, before a byte of it is bought. It need not say.
    fn check_ordered_for_this_device(&self, device_types: &[String]) -> Result<(), DeployError> {
        if device_types.is_empty() {
            return Ok(());
        }
        Ok(check_device_type(&self.world.system.device_type()?, device_types)?)
    }

    /// What was ordered has arrived, as far as its header.
    fn accept(
        &mut self,
        entry: Entry,
        header: &Header,
        payload: &mut PayloadReader,
    ) -> Result<Outcome, DeployError> {
        let fits = header.depends.device_type.join(", ");
        log::info!("{}: artifact {} for {fits}", self.label(), header.artifact_name);
        let device_type = self.world.system.device_type()?;
        self.record.installed.satisfies(&device_type, header)?;
        self.deployment.adopt_header(header);
        self.check_that_the_record_fits()?;
        if self.deployment.payload_type.is_none() {
            drain_empty(payload)?;
            return Ok(Outcome::NoPayload);
        }
        self.open_handler()?;
        self.world.scripts.stage(&header.scripts)?;
        self.forget_other_slot();
        self.earlier_download(&header.manifest_sha256.to_string());
        self.save_position(entry.begun())?; // now with what has to clean up after it
        self.download_payload(header, payload)?;
        Ok(Outcome::Done)
    }

    fn download_payload(&mut self, header: &Header, payload: &mut PayloadReader) -> Result<(), InstallError> {
        self.payload.begun = true;
        let device_type = self.world.system.device_type()?;
        let label = self.label();
        let manifest = header.manifest_sha256.to_string();
        let earlier = self.earlier_download(&manifest);
        let handler = self.payload.handler.as_deref_mut().ok_or(InstallError::NoHandler)?;
        let installed = self.record.installed.clone();
        let mut keeper = Keeper {
            record: &mut self.record,
            deployment: &mut self.deployment,
            store: &mut *self.world.state,
            manifest: &manifest,
            goes_on: false,
            pending: None,
        };
        let current = Current {
            artifact_name: installed.name(),
            artifact_group: installed.artifact_group.as_deref(),
            device_type: &device_type,
        };
        let mut bill = Bill::new(label, &mut *self.world.observer);
        if !handler.overwrites_slot() {
            bill.will_cost(&Cost { transfer_bytes: payload.stored_bytes(), ..Cost::default() });
        }
        let done = handler
            .download(&mut Arriving { header, current, payload, state: &mut keeper, earlier }, &mut bill);
        (self.to_tell.cost, self.to_tell.account) = bill.settle(payload.received_bytes());
        if done.is_ok() {
            keeper.keep_pending();
        }
        // Only where the rest could not be had is there something to go on with.
        if !done.as_ref().is_err_and(InstallError::is_of_source) {
            self.record.journal = None;
        }
        if let Err(InstallError::Delta(DeltaProblem::SourceDiffers { expected, .. })) = &done {
            // The save that ends the deployment takes it along.
            self.record.installed.forget_digest(expected);
        }
        done
    }

    /// The server orders it again, and nothing of it is on the device: it simply has not happened.
    pub(super) fn forget_download(&mut self) {
        self.record.deployment = None;
        if let Err(error) = self.record.save(self.world.state) {
            log::error!("{}: cannot save that the download was interrupted: {error}", self.label());
        }
    }

    /// Asks the handler whether a restart is needed; the daemon takes care of it, the command line only says so.
    pub(super) fn learn_reboot_need(&mut self) -> Result<(), DeployError> {
        let need = self.handler()?.needs_reboot()?;
        self.deployment.needs_reboot = need != RebootNeed::None;
        self.deployment.reboots_itself = need == RebootNeed::Custom;
        Ok(())
    }

    /// The restart into the new software, as often as one deployment may ask for it.
    fn reboot(&mut self, entry: Entry) -> Result<Outcome, DeployError> {
        if self.deployment.reboots >= REBOOTS_MAX {
            return Err(DeployError::TooManyReboots { limit: REBOOTS_MAX });
        }
        self.deployment.reboots += 1;
        self.enter(entry)?; // whoever comes after the restart must know what it was for
        if self.deployment.reboots_itself {
            self.handler()?.reboot()?;
        } else {
            let restart = self.handler()?.restart()?;
            self.world.system.reboot(&restart)?;
            self.halt(Halt::Rebooting);
        }
        Ok(Outcome::Done)
    }

    /// Behind the commit point: what is installed and where the deployment stands change in one save.
    fn settle_commit(&mut self, entry: Entry) -> Result<(), DeployError> {
        // Behind a stop before this stage the old provides still stand, so that `rollback` finds them.
        if !self.deployment.stands_at(entry.begun()) {
            let installed = self.provides_after_commit();
            self.record.install(installed);
            let image = self.payload.handler.as_deref().and_then(|handler| handler.image());
            let content = image.map(|image| self.deployment.slot_content(image));
            // They are in what is installed now; twice they might not fit.
            self.deployment.provides = None;
            self.deployment.clears_provides = None;
            self.remember_slot(content);
        }
        if let Err(error) = self.save_position(entry.begun()) {
            self.halt(Halt::NotSaved);
            return Err(error);
        }
        self.leave(entry).inspect_err(|_| {
            if self.world.observer.stop_requested() {
                return;
            }
            // The software is the new one, but not all of what belongs to it was done.
            let Record { installed, .. } = &self.record;
            self.record.installed = installed.inconsistent(installed.name(), None);
        })
    }

    /// The way back. It must not depend on being able to write that down.
    fn go_back(&mut self, entry: Entry) -> Result<Outcome, DeployError> {
        self.go_on_without_record(entry);
        self.run_and_remember(entry.stage().enter_scripts());
        let done = self.roll_back_payload();
        self.run_and_remember(entry.stage().leave_scripts());
        done?;
        match self.learn_reboot_need() {
            Ok(()) => Ok(plan::rolled_back(self.conduct, self.deployment.needs_reboot)),
            Err(error) => {
                self.remember_inconsistent(error);
                Ok(Outcome::Done)
            }
        }
    }

    fn roll_back_payload(&mut self) -> Result<(), DeployError> {
        self.handler()?.roll_back().map_err(DeployError::from).or_else(|error| {
            // A write that was reported as failed may have taken effect all the same.
            let back = self.handler().and_then(|handler| handler.verdict());
            let back = matches!(back, Ok(Some(Verdict::FellBack | Verdict::Reverting)));
            if back { Ok(()) } else { Err(error) }
        })
    }

    /// The restart into the old software, as often as one deployment may ask for it.
    fn reboot_back(&mut self, entry: Entry) -> Outcome {
        if self.deployment.reboots_back >= REBOOTS_MAX {
            self.remember_inconsistent(DeployError::TooManyReboots { limit: REBOOTS_MAX });
            return Outcome::FailedForGood;
        }
        self.deployment.reboots_back += 1;
        self.go_on_without_record(entry);
        // Not again for a restart that is repeated because the first one did not help.
        if self.history.last() != Some(Stage::VerifyRollback) {
            self.run_and_remember(entry.stage().enter_scripts());
        }
        if self.halted().is_some() {
            return Outcome::Failed;
        }
        let begun = if self.deployment.reboots_itself {
            self.handler().and_then(|handler| handler.reboot_back())
        } else {
            self.world
                .system
                .reboot(&Restart::Plain)
                .map(|()| self.halt(Halt::Rebooting))
                .map_err(InstallError::from)
        };
        // Whether the old software is back is for the next stage to see.
        begun.map_or_else(
            |error| {
                log::error!("{}: {error}", self.label());
                Outcome::Failed
            },
            |()| Outcome::Done,
        )
    }

    fn verify_rollback(&mut self, entry: Entry) -> Result<Outcome, DeployError> {
        self.go_on_without_record(entry);
        self.handler()?.verify_reboot_back()?;
        if !self.run_and_remember(entry.stage().leave_scripts()) {
            self.run_error_scripts(entry.stage());
        }
        Ok(Outcome::Done)
    }

    /// The handler's own step after a failure.
    fn wind_up(&mut self, entry: Entry) -> Result<Outcome, DeployError> {
        self.go_on_without_record(entry);
        self.run_and_remember(entry.stage().enter_scripts());
        // Without a handler its step cannot run: why has been said when it could not be opened, and is no second failure.
        let done = self.payload.handler.as_deref_mut().map_or(Ok(()), |handler| handler.fail());
        self.run_and_remember(entry.stage().leave_scripts());
        done?;
        Ok(Outcome::Done)
    }

    /// The last stage: one save removes the deployment, says what is installed, and what the server is to be told.
    fn end(&mut self, entry: Entry) -> Result<(), DeployError> {
        self.go_on_without_record(entry);
        let cleaned = match self.payload.handler.as_deref_mut().filter(|_| self.payload.begun) {
            Some(handler) => handler.clean_up().map_err(DeployError::from),
            None => Ok(()),
        };
        // Ended because we are: the next process cleans up, and has the last word.
        if cleaned.is_err() && self.world.observer.stop_requested() {
            return cleaned;
        }
        let discarded = self.world.scripts.discard().map_err(DeployError::from);
        if self.deployment.inconsistent {
            let Record { installed, .. } = &self.record;
            let group = self.deployment.artifact_group.as_deref();
            self.record.installed = installed.inconsistent(&self.deployment.artifact_name, group);
        }
        self.record.deployment = None;
        self.record.version = VERSION;
        let ended = self.end_for_the_server();
        self.record.unreported = ended.clone().or(self.record.unreported.take());
        let saved = self.record.save(self.world.state);
        // A success that is not written down may turn out otherwise: the next process decides.
        if saved.is_err() && !self.deployment.failed {
            self.halt(Halt::NotSaved);
        } else {
            self.to_tell.ended = ended;
        }
        saved?;
        cleaned.and(discarded)
    }

    /// How it ended, for the server that ordered it. None of a download that begins again, which is counted.
    fn end_for_the_server(&mut self) -> Option<Unreported> {
        let id = self.deployment.id.clone()?;
        if self.deployment.offered_again {
            let times = self.times_cut().saturating_add(1);
            log::warn!(
                "{}: the download was cut short ({times} of {CUT_DOWNLOADS_MAX} times): it is asked for again",
                self.label()
            );
            self.record.cut_downloads = Some(CutDownloads { id, times });
            return None;
        }
        // Where nothing was reported behind the download, this is the place for what it has cost.
        let account = || self.to_tell.account.map(|account| account.to_string());
        let why = self.deployment.remark.clone().filter(|_| self.deployment.failed);
        let remark = why.or_else(account);
        Some(Unreported { id, failed: self.deployment.failed, remark })
    }
}
