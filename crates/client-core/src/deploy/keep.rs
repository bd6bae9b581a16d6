//! What a deployment leaves in the record, and the scripts around each stage: position before effect.

use super::ending::Halt;
use super::error::DeployError;
use super::facts::{Conduct, Stage};
use super::plan::{Entry, Position};
use super::record::{CUT_DOWNLOADS_MAX, Deployment, Journal, Record, SlotContent};
use super::run::Run;
use super::scripts::{OnScriptFailure, ScriptPoint};
use crate::install::{HandlerState, InstallError, StateKeeper, WriteStatistics};
use crate::provides::Provides;
use crate::slot::Slot;
use crate::state_store::StateStore;

/// What a deployment adds to the record later: the image, names of stages, `_INCONSISTENT`.
const RECORD_SPARE_BYTES: usize = 1024;

/// Keeps what a handler wants to find again in the record of its deployment.
pub(super) struct Keeper<'k> {
    pub(super) record: &'k mut Record,
    pub(super) deployment: &'k mut Deployment,
    pub(super) store: &'k mut dyn StateStore,
    /// Of the manifest of what is being downloaded.
    pub(super) manifest: &'k str,
    /// Something of an earlier download of it was there, and is gone on with.
    pub(super) goes_on: bool,
    /// What was set last and is not in the deployment yet.
    pub(super) pending: Option<HandlerState>,
}

impl Keeper<'_> {
    /// The download has ended well: what was set last is what the next stage finds.
    pub(super) fn keep_pending(&mut self) {
        if let Some(state) = self.pending.take() {
            self.deployment.handler.set(state);
        }
    }
}

impl StateKeeper for Keeper<'_> {
    fn set(&mut self, state: HandlerState) {
        // In the place of a finished image other clients expect one.
        if !self.deployment.handler.keeps_an_image() {
            self.deployment.handler.set(state.clone());
        }
        self.pending = Some(state);
    }

    fn save(&mut self) -> Result<(), InstallError> {
        let state = self.pending.clone().unwrap_or_default();
        self.record.journal = Some(Journal { manifest: self.manifest.to_owned(), state });
        if self.goes_on {
            // It came further than the time before, and whatever cut that short has not cut this.
            self.record.cut_downloads = None;
        }
        self.record.deployment = Some(self.deployment.clone());
        self.record.save(self.store).map_err(|error| InstallError::StateNotKept { source: Box::new(error) })
    }

    fn goes_on(&mut self) {
        self.goes_on = true;
    }

    fn wrote(&mut self, slot: Slot, statistics: &WriteStatistics) {
        self.record.wear.entry(slot).or_default().add(statistics);
    }
}

impl Run<'_> {
    /// Saves that a stage has begun and runs its scripts.
    pub(super) fn enter(&mut self, entry: Entry) -> Result<(), DeployError> {
        self.save_position(entry.begun())?;
        self.run_scripts_of(entry.stage().enter_scripts(), entry.stage())
    }

    /// Runs the scripts behind a stage.
    pub(super) fn leave(&mut self, entry: Entry) -> Result<(), DeployError> {
        self.run_scripts_of(entry.stage().leave_scripts(), entry.stage())
    }

    fn run_scripts_of(&mut self, point: Option<ScriptPoint>, stage: Stage) -> Result<(), DeployError> {
        let can_fail = stage.facts().scripts_can_fail_it.holds(self.conduct);
        let on_failure = if can_fail { OnScriptFailure::Stop } else { OnScriptFailure::RunTheRest };
        point.map_or(Ok(()), |point| Ok(self.world.scripts.run(point, on_failure)?))
    }

    /// Runs scripts of a stage that goes on whatever they say. Whether they all succeeded.
    pub(super) fn run_and_remember(&mut self, point: Option<ScriptPoint>) -> bool {
        let Some(Err(error)) = point.map(|point| self.world.scripts.run(point, OnScriptFailure::RunTheRest))
        else {
            return true;
        };
        if self.world.observer.stop_requested() {
            // Ended because we are: the stage is gone through again.
            self.halt(Halt::Interrupted);
        } else {
            self.remember_inconsistent(error.into());
        }
        false
    }

    /// Runs the scripts of a failed stage. What they say to a failure changes nothing (docs/spec/client-behaviour.md, "State
    /// scripts").
    pub(super) fn run_error_scripts(&mut self, stage: Stage) {
        let Some(point) = stage.error_scripts(self.conduct) else { return };
        self.world.scripts.run(point, OnScriptFailure::RunTheRest).unwrap_or_else(|error| {
            log::warn!("{}: ignored: {error}", self.deployment.label());
        });
    }

    /// Refuses a deployment whose record would not fit into the store, now or with the new provides beside the old.
    pub(super) fn check_that_the_record_fits(&mut self) -> Result<(), DeployError> {
        let mut now = self.record.clone();
        now.deployment = Some(self.deployment.clone());
        let mut end = self.record.clone();
        end.installed = self.provides_after_commit();
        let need_bytes = now.to_json()?.len().max(end.to_json()?.len()) + RECORD_SPARE_BYTES;
        let have_bytes = self.world.state.capacity_bytes();
        if need_bytes <= have_bytes {
            return Ok(());
        }
        if self.record.slots.is_empty() {
            return Err(DeployError::RecordTooSmall { need_bytes, have_bytes });
        }
        log::warn!(
            "{}: forgetting what the slots hold, to make room in the record: there will be no way back to it",
            self.label()
        );
        self.record.slots.clear();
        self.check_that_the_record_fits()
    }

    /// Remembers what a slot holds, as far as there is room for it: a way back is worth less than the commit.
    pub(super) fn remember_slot(&mut self, content: Option<SlotContent>) {
        let Some(content) = content else { return };
        let slot = content.image.slot;
        let wear = self.record.wear.entry(slot).or_default();
        wear.installations = wear.installations.saturating_add(1);
        self.record.slots.insert(slot, content);
        let mut next = self.record.clone();
        next.deployment = Some(self.deployment.clone());
        let room = self.world.state.capacity_bytes().saturating_sub(RECORD_SPARE_BYTES);
        if next.to_json().map_or(true, |document| document.len() > room) {
            log::warn!(
                "{}: what slot {slot} holds does not fit into the record: there will be no way back to it",
                self.label()
            );
            self.record.slots.remove(&slot);
        }
    }

    /// What an earlier download of the artifact with this manifest saved. That of another one is about to be overwritten.
    pub(super) fn earlier_download(&mut self, manifest: &str) -> HandlerState {
        if self.record.journal.as_ref().is_some_and(|journal| journal.manifest != manifest) {
            self.record.journal = None;
        }
        self.record.journal.as_ref().map(|journal| journal.state.clone()).unwrap_or_default()
    }

    /// What the other slot holds is about to be overwritten.
    pub(super) fn forget_other_slot(&mut self) {
        let overwritten = self.payload.handler.as_deref().is_some_and(|handler| handler.overwrites_slot());
        if let (true, Ok(running)) = (overwritten, self.world.system.running_slot()) {
            self.record.slots.remove(&!running);
        }
    }

    /// What the device provides once this deployment is committed.
    pub(super) fn provides_after_commit(&self) -> Provides {
        self.record.installed.after_commit(
            &self.deployment.artifact_name,
            self.deployment.artifact_group.as_deref(),
            self.deployment.provides.as_ref(),
            self.deployment.clears_provides.as_deref(),
        )
    }

    /// Whether a download that was cut short is begun again: the server orders it again as long as it hears of no end. Not
    /// without end.
    pub(super) fn is_offered_again(&self) -> bool {
        self.conduct == Conduct::Managed && self.times_cut() < CUT_DOWNLOADS_MAX
    }

    /// How often the download of this deployment was cut short before this time.
    pub(super) fn times_cut(&self) -> u32 {
        let cut = self.record.cut_downloads.as_ref();
        let cut = cut.filter(|cut| self.deployment.id.as_ref() == Some(&cut.id));
        cut.map_or(0, |cut| cut.times)
    }

    /// Saves that the deployment waits before a stage, unless that is what the record says already.
    pub(super) fn save_waiting(&mut self, entry: Entry) -> Result<(), DeployError> {
        if self.record.deployment.as_ref().is_some_and(|recorded| recorded.stands_at(entry.waiting())) {
            return Ok(());
        }
        self.save_position(entry.waiting())
    }

    /// Saves the position in a stage that must be gone through whether it can be saved or not.
    pub(super) fn go_on_without_record(&mut self, entry: Entry) {
        if let Err(error) = self.save_position(entry.begun()) {
            log::error!("{}: going on without having saved {}: {error}", self.label(), entry.stage());
        }
    }

    /// Saves where the deployment stands.
    pub(super) fn save_position(&mut self, position: Position) -> Result<(), DeployError> {
        let (_, entered) = position.as_recorded();
        if entered {
            self.deployment.transitions = self.deployment.transitions.saturating_add(1);
        }
        self.deployment.stand_at(position);
        self.record.deployment = Some(self.deployment.clone());
        Ok(self.record.save(self.world.state)?)
    }

    /// Leaves the deployment where a process is told to stop.
    pub(super) fn leave_waiting_before(&mut self, entry: Entry) {
        if self.deployment.stands_at(entry.waiting()) && self.history.is_empty() {
            return;
        }
        if let Err(error) = self.save_position(entry.waiting()) {
            self.fail(error);
            self.halt(Halt::NotSaved);
        }
    }
}
