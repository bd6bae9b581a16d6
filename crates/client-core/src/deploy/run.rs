//! One deployment while a process works on it. Acts, and decides nothing: [`plan`](super::plan) says which stage comes,
//! [`ending`](super::ending) how it ended.
//!
//! Each stage: ask the gate, tell the server, save that it began (intent before effect), run its scripts, act, run its
//! scripts, ask the plan. What each stage does is in [`deeds`](super::deeds).

use super::cause::of_fall_back;
use super::commands::{Open, Options, Ordered, Policy};
use super::device::Device;
use super::ending::{self, Command, Ending, Halt, Happened, History};
use super::error::{DeployError, PolicyError};
use super::facts::{Conduct, Importance, Stage};
use super::gates::{Answer, Gate, Gatekeeper, Question};
use super::notice::{Notice, Observer};
use super::plan::{self, Doubt, Entry, Found, Known, Next, Outcome, Trouble};
use super::record::{Deployment, Record, TRANSITIONS_MAX, Unreported};
use super::report::{Report, Reported, Reporter};
use super::scripts::ScriptRunner;
use super::source::{SourceChanged, cause};
use super::summary::{Held, Status, Summary};
use crate::artifact::{Header, PayloadReader};
use crate::boot::Verdict;
use crate::install::{Account, Cost, InstallError, PayloadHandler, Registry, WrittenImage};
use crate::slot::{Restart, System};
use crate::state_store::StateStore;

/// Characters of a remark that are kept, and sent: servers take no more.
pub const REMARK_CHARS: usize = 200;

/// What only the process that downloads has.
pub(super) enum Incoming<'i> {
    /// An artifact whose header was accepted already.
    Opened { header: &'i Header, payload: &'i mut PayloadReader },
    /// An artifact that is still to be asked for.
    Ordered { order: &'i Ordered, open: &'i mut Open<'i>, policy: Result<Policy, PolicyError> },
}

/// What a run needs of the world, but for what its payload's handler takes.
pub(super) struct World<'r> {
    pub(super) system: &'r dyn System,
    pub(super) state: &'r mut dyn StateStore,
    pub(super) scripts: &'r mut dyn ScriptRunner,
    pub(super) observer: &'r mut dyn Observer,
    gates: &'r mut dyn Gatekeeper,
    reporter: &'r mut dyn Reporter,
}

/// The payload's handler.
pub(super) struct Payload<'r> {
    /// Where it comes from, until it is there.
    registry: Option<Registry<'r>>,
    pub(super) handler: Option<Box<dyn PayloadHandler + 'r>>,
    /// It was called, now or by an earlier process: it may have left something behind.
    pub(super) begun: bool,
}

/// What is to be said at the end, or with the next report.
#[derive(Default)]
pub(super) struct ToTell {
    /// The first thing that went wrong.
    error: Option<DeployError>,
    /// How it ended, for the server.
    pub(super) ended: Option<Unreported>,
    /// Which gate is closed.
    held: Option<Held>,
    /// What a gate said, for the server's next report.
    remark: Option<String>,
    /// What the download will cost, and what it did.
    pub(super) cost: Option<Cost>,
    pub(super) account: Option<Account>,
}

/// One deployment while a process works on it.
pub(super) struct Run<'r> {
    pub(super) world: World<'r>,
    pub(super) payload: Payload<'r>,
    options: &'r Options,
    pub(super) conduct: Conduct,
    pub(super) record: Record,
    pub(super) deployment: Deployment,
    /// Stages this process went through.
    pub(super) history: History,
    /// Why it goes no further.
    halt: Option<Halt>,
    pub(super) to_tell: ToTell,
}

impl<'r> Run<'r> {
    /// Nothing is done yet.
    pub(super) fn new(
        device: &'r mut Device<'_>,
        record: Record,
        deployment: Deployment,
        options: &'r Options,
    ) -> Run<'r> {
        let Device { boot, slots, system, modules, state, scripts, observer, gates, reporter } = device;
        let system = *system;
        let registry = Registry { boot: &mut **boot, slots: &mut **slots, system, modules: &mut **modules };
        Run {
            world: World {
                system,
                state: &mut **state,
                scripts: &mut **scripts,
                observer: &mut **observer,
                gates: &mut **gates,
                reporter: &mut **reporter,
            },
            payload: Payload { registry: Some(registry), handler: None, begun: false },
            options,
            conduct: if deployment.id.is_some() { Conduct::Managed } else { Conduct::Standalone },
            record,
            deployment,
            history: History::default(),
            halt: None,
            to_tell: ToTell::default(),
        }
    }

    /// How every line of the log about it begins.
    pub(super) fn label(&self) -> String {
        self.deployment.label()
    }

    /// Finds the handler of the payload's type.
    pub(super) fn open_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.payload.registry.take().ok_or(InstallError::NoHandler)?;
        let payload_type = self.deployment.payload_type.as_deref().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.begin(payload_type)?;
        (self.deployment.handler, self.payload.handler) = (recorded, Some(handler));
        Ok(())
    }

    /// The built-in handler for an image that an earlier deployment wrote, after it was read again.
    pub(super) fn open_written(&mut self, image: WrittenImage) -> Result<(), InstallError> {
        let registry = self.payload.registry.take().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.recognize(image, &mut self.world.observer)?;
        (self.deployment.handler, self.payload.handler) = (recorded, Some(handler));
        self.payload.begun = true;
        Ok(())
    }

    /// Finds the handler with which an earlier process began.
    pub(super) fn reopen_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.payload.registry.take().ok_or(InstallError::NoHandler)?;
        let Deployment { payload_type, handler, .. } = &self.deployment;
        let payload_type = payload_type.as_deref().ok_or(InstallError::NoHandler)?;
        self.payload.handler = Some(registry.reopen(payload_type, handler)?);
        Ok(())
    }

    /// Goes on without a handler where that is possible. Where it is not, the attempt counts: what cannot be opened for
    /// ever must not keep the device from other updates for ever.
    pub(super) fn without_handler(&mut self, error: InstallError) -> Result<(), DeployError> {
        let loops = self.deployment.transitions > TRANSITIONS_MAX;
        if loops || self.deployment.stage.facts().without_handler {
            log::error!("{}: going on without a handler: {error}", self.label());
            // Its own step of the failure cannot run: that is what went wrong with what is left to do.
            if !loops && self.deployment.stage == Stage::Failure {
                self.remember(error.into());
            }
            return Ok(());
        }
        Err(self.persist_attempt(error.into()))
    }

    /// Saves that this process went on with the deployment, and in vain. A person who tries sees why, and is not counted.
    pub(super) fn persist_attempt(&mut self, error: DeployError) -> DeployError {
        if self.conduct == Conduct::Managed {
            self.record.deployment = Some(self.deployment.clone());
            if let Err(error) = self.record.save(self.world.state) {
                log::error!("{}: cannot save that it was reopened in vain: {error}", self.label());
            }
        }
        error
    }

    pub(super) fn handler(&mut self) -> Result<&mut (dyn PayloadHandler + 'r), InstallError> {
        self.payload.handler.as_deref_mut().ok_or(InstallError::NoHandler)
    }

    /// Where this deployment was found, with what the bootloader did meanwhile.
    pub(super) fn found(&mut self) -> Result<Found, DeployError> {
        let mut found = self.found_without_looking();
        // Only where it decides: going back must work with an environment that cannot be read.
        if found.stage.facts().asks_what_boots {
            found.verdict = self.handler()?.verdict()?;
        }
        if let Some(verdict) = found.verdict {
            log::info!("{}: found in {}: {verdict}", self.label(), found.stage);
        }
        // Before the restart nothing was tried; a trial that this client gave up has said why, and so has an earlier process of
        // the old system, which knew more: traces of the trial go with the next start.
        let was_tried = matches!(
            (found.stage, found.entered),
            (Stage::Reboot, true) | (Stage::VerifyReboot | Stage::Commit, _)
        );
        if found.verdict == Some(Verdict::FellBack)
            && was_tried
            && !self.deployment.failed
            && self.deployment.remark.is_none()
        {
            self.tell_why_it_fell_back();
        }
        Ok(found)
    }

    /// Tells what is left of a trial that the bootloader gave up, and of that the cause.
    fn tell_why_it_fell_back(&mut self) {
        let (label, traces) = (self.label(), self.world.system.traces());
        for (whose, lines) in [("kernel", &traces.kernel), ("noted on trial", &traces.notes)] {
            for line in lines {
                log::error!("{label}: {whose}: {line}");
            }
        }
        let cause = of_fall_back(self.conduct, self.deployment.stage, &traces);
        log::error!("{label}: {cause}");
        self.deployment.remark = Some(cause.chars().take(REMARK_CHARS).collect());
    }

    /// Where this deployment was found, for decisions that do not depend on what boots.
    pub(super) fn found_without_looking(&self) -> Found {
        let Deployment { stage, entered, transitions, .. } = self.deployment;
        Found {
            stage,
            entered,
            verdict: None,
            conduct: self.conduct,
            transitions,
            may_download_again: self.is_offered_again(),
        }
    }

    /// In which way the boot environment contradicts the record.
    pub(super) fn contradiction(&mut self) -> Result<DeployError, DeployError> {
        let verdict = self.handler()?.verdict()?.unwrap_or(Verdict::Contradictory);
        Ok(DeployError::Contradiction { verdict })
    }

    /// Something in the stages it passes ends this process every time: no script and no module of it is called again.
    /// Only the bootloader is told to stay with the old software, or later deployments would find an open trial.
    pub(super) fn break_the_loop(&mut self, entry: Entry) {
        self.deployment.inconsistent = true;
        self.fail(DeployError::Loop);
        self.history.looped = true;
        let verdict = self.handler().and_then(|handler| handler.verdict()).unwrap_or_else(|error| {
            log::error!("{}: cannot tell what boots next: {error}", self.label());
            None
        });
        let after = plan::after_loop(verdict, self.conduct);
        if after.goes_back {
            if let Err(error) = self.handler().and_then(|handler| handler.roll_back()) {
                log::error!("{}: the trial stays open: {error}", self.label());
            }
        }
        self.payload.handler = None;
        self.drive(entry, None);
        if after.restarts && self.halt != Some(Halt::NotSaved) {
            // The record is settled; what runs is still what was given up.
            match self.world.system.reboot(&Restart::Plain) {
                Ok(()) => self.halt(Halt::Rebooting),
                Err(error) => log::error!("{}: cannot restart into the old software: {error}", self.label()),
            }
        }
    }

    /// Leaves everything to the person who has to restart the device.
    pub(super) fn wait(&mut self) {
        self.halt(Halt::Waiting);
    }

    /// Goes no further in this process. The stronger of two reasons stays.
    pub(super) fn halt(&mut self, halt: Halt) {
        self.halt = self.halt.max(Some(halt));
    }

    /// Why this process goes no further, if it does not.
    pub(super) fn halted(&self) -> Option<Halt> {
        self.halt
    }

    /// Runs stages from `entry` on until one waits, is stopped before, or the deployment ends.
    pub(super) fn drive(&mut self, entry: Entry, mut incoming: Option<Incoming<'_>>) {
        let mut next = Next::Enter(entry);
        while let Next::Enter(entry) = next {
            let stage = entry.stage();
            if !self.may_enter(entry) {
                return;
            }
            let passed = self.pass_gate(entry);
            if self.halt.is_some() {
                return;
            }
            self.world.observer.stage(stage);
            let outcome = match passed.and_then(|()| self.announce(entry)) {
                Ok(()) => self.perform(entry, incoming.take()),
                Err(outcome) => outcome,
            };
            self.history.push(stage, outcome);
            if self.halt.is_some() {
                return;
            }
            next = plan::next(stage, outcome, self.conduct);
            self.tell_transition(stage, outcome, next);
            if let Next::WaitForCommit(commit) = next {
                next = self.wait_for_commit(stage, commit);
            }
        }
    }

    fn tell_transition(&self, stage: Stage, outcome: Outcome, next: Next) {
        let following = match next {
            Next::Enter(entry) => entry.stage().to_string(),
            Next::WaitForCommit(_) => "waiting for the commit".to_owned(),
            Next::StayThere => "again by the next process".to_owned(),
            Next::End => "end".to_owned(),
        };
        log::info!("{}: {stage} -> {following} ({})", self.label(), outcome.name());
    }

    /// Whether nobody asked to stop before the stage. Where somebody did, that is the place where it goes on.
    fn may_enter(&mut self, entry: Entry) -> bool {
        let stage = entry.stage();
        if self.options.stops_before(stage) {
            self.halt(Halt::StoppedBefore);
        } else if self.world.observer.stop_requested() {
            self.halt(Halt::Interrupted);
            // Of a download that has not begun there is nothing to remember.
            if stage == Stage::Download {
                return false;
            }
        } else {
            return true;
        }
        self.leave_waiting_before(entry);
        false
    }

    /// The installation is complete. A later process must know that.
    fn wait_for_commit(&mut self, installed: Stage, commit: Entry) -> Next {
        match self.save_position(commit.waiting()) {
            Ok(()) => {
                self.halt(Halt::Waiting);
                Next::WaitForCommit(commit)
            }
            Err(error) => {
                self.fail(error);
                plan::next(installed, Outcome::Failed, self.conduct)
            }
        }
    }

    /// Tells the server what comes, where a server ordered it. An error is how the stage ended before it began.
    fn announce(&mut self, entry: Entry) -> Result<(), Outcome> {
        let stage = entry.stage();
        let (Some(id), Some((report, importance))) = (self.deployment.id.clone(), stage.facts().report)
        else {
            return Ok(());
        };
        if stage == Stage::Commit {
            // The answer may take long: a process that is ended meanwhile must find the installation complete.
            if let Err(error) = self.save_waiting(entry) {
                self.fail(error);
                return Err(self.judge(stage, Trouble::Failed));
            }
        }
        let account = self.to_tell.account.take_if(|_| stage != Stage::Download);
        let account = account.map(|account| account.to_string());
        let remark: Vec<String> = self.to_tell.remark.take().into_iter().chain(account).collect();
        let remark = Some(remark.join(", ")).filter(|remark| !remark.is_empty());
        match (self.world.reporter.report(&id, report, remark.as_deref(), importance), importance) {
            (Reported::Accepted, _) | (Reported::NoAnswer, Importance::BestEffort) => Ok(()),
            (Reported::Aborted, _) => {
                self.fail(DeployError::Aborted);
                Err(self.judge(stage, Trouble::CalledOff))
            }
            (Reported::NoAnswer, Importance::Mandatory) if self.world.observer.stop_requested() => {
                self.halt(Halt::Interrupted);
                Err(Outcome::Failed)
            }
            (Reported::NoAnswer, Importance::Mandatory) => {
                self.fail(DeployError::Unreachable);
                Err(self.judge(stage, Trouble::Failed))
            }
        }
    }

    /// Asks whoever may hold the deployment up before the stage. An error is how the stage ended before it began; with
    /// `held` set the deployment waits, and goes on where it is when it is taken up again.
    fn pass_gate(&mut self, entry: Entry) -> Result<(), Outcome> {
        let stage = entry.stage();
        let Some(gate) = stage.facts().gate.filter(|gate| self.world.gates.watches(*gate)) else {
            return Ok(());
        };
        // Nothing of a download is worth remembering. The other answers may take long.
        if stage != Stage::Download {
            if let Err(error) = self.save_waiting(entry) {
                self.fail(error);
                return Err(self.judge(stage, Trouble::Failed));
            }
        }
        let (id, artifact_name) = (self.deployment.id.clone(), self.deployment.artifact_name.clone());
        let answer = self.world.gates.ask(&Question {
            gate,
            deployment: id.as_deref(),
            artifact_name: &artifact_name,
            cost: self.to_tell.cost,
        });
        if self.world.observer.stop_requested() {
            self.halt(Halt::Interrupted);
            return Ok(());
        }
        match (answer, id) {
            (Answer::Open { note }, _) => {
                self.let_through(gate, note);
                Ok(())
            }
            (Answer::Closed { reason, ask_again }, Some(id)) => {
                self.hold(stage, &id, Held { gate, reason, ask_again })
            }
            (Answer::Closed { reason, .. } | Answer::Refused { reason }, _) => {
                Err(self.refuse(stage, DeployError::Refused { gate, reason }))
            }
        }
    }

    /// A gate is open; what it said goes along with the next report.
    fn let_through(&mut self, gate: Gate, note: Option<String>) {
        let said = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        log::info!("{}: {gate} may go on{said}", self.label());
        self.to_tell.remark = note;
    }

    /// A gate is closed: the server hears of it, and may call the deployment off.
    fn hold(&mut self, stage: Stage, id: &str, held: Held) -> Result<(), Outcome> {
        let remark = format!("waiting before {}: {}", held.gate, held.reason);
        log::info!("{}: {remark}", self.label());
        let report = Report::Waiting(held.gate);
        if self.world.reporter.report(id, report, Some(&remark), Importance::BestEffort) == Reported::Aborted
        {
            self.fail(DeployError::Aborted);
            return Err(self.judge(stage, Trouble::CalledOff));
        }
        self.to_tell.held = Some(held);
        self.halt(Halt::Held);
        Ok(())
    }

    /// A gate said no.
    fn refuse(&mut self, stage: Stage, error: DeployError) -> Outcome {
        log::error!("{}: {error}", self.label());
        self.deployment.remark = Some(error.to_string().chars().take(REMARK_CHARS).collect());
        self.remember(error);
        self.judge(stage, Trouble::CalledOff)
    }

    /// One stage: scripts, deed, scripts.
    fn perform(&mut self, entry: Entry, incoming: Option<Incoming<'_>>) -> Outcome {
        let stage = entry.stage();
        match self.act(entry, incoming) {
            Ok(Outcome::Done) if stage == Stage::Install => self.judge_installation(),
            Ok(outcome) => outcome,
            // What was asked to stop has not failed. The record says where to go on.
            Err(error) if self.world.observer.stop_requested() => {
                log::info!("{}: {stage} interrupted: {error}", self.label());
                self.halt(Halt::Interrupted);
                if stage == Stage::Download {
                    self.forget_download();
                }
                Outcome::Failed
            }
            Err(error) => {
                self.note_failure(stage, error);
                self.judge(stage, Trouble::Failed)
            }
        }
    }

    fn note_failure(&mut self, stage: Stage, error: DeployError) {
        log::error!("{}: {stage} failed: {error}", self.label());
        if stage == Stage::Download && is_changed_source(&error) && self.is_offered_again() {
            self.deployment.offered_again = true;
        }
        self.remember(error);
        // Those of the verification are for its scripts only, which have run them.
        if stage != Stage::VerifyRollback {
            self.run_error_scripts(stage);
        }
    }

    /// What trouble in a stage means for the deployment: asks what the plan wants to know, and no more.
    fn judge(&mut self, stage: Stage, trouble: Trouble) -> Outcome {
        let known = match plan::doubt(stage, trouble) {
            None => Known::Nothing,
            Some(Doubt::CanRollBack) => Known::CanRollBack(self.supports_rollback()),
            Some(Doubt::WhatBoots) => self.what_boots(),
        };
        let judged = plan::judge(stage, trouble, known);
        self.deployment.inconsistent |= judged.inconsistent;
        judged.outcome
    }

    /// What the handler says about its installation: a restart, and for a person on the command line a way back.
    fn judge_installation(&mut self) -> Outcome {
        if let Err(error) = self.learn_reboot_need() {
            self.fail(error);
            return self.judge(Stage::Install, Trouble::Failed);
        }
        let can_roll_back = self.conduct == Conduct::Managed || self.supports_rollback();
        let outcome = plan::installed(self.conduct, self.deployment.needs_reboot, can_roll_back);
        if outcome == Outcome::DoneForGood {
            self.world.observer.notice(Notice::NoRollbackCommitting);
        }
        outcome
    }

    pub(super) fn supports_rollback(&mut self) -> bool {
        self.handler().and_then(|handler| handler.supports_rollback()).unwrap_or_else(|error| {
            log::error!(
                "{}: cannot tell whether it can be rolled back, so it is not: {error}",
                self.deployment.label()
            );
            false
        })
    }

    fn what_boots(&mut self) -> Known {
        match self.handler().and_then(|handler| handler.verdict()) {
            Ok(verdict) => Known::WhatBoots(verdict),
            Err(error) => {
                log::error!("{}: cannot tell what boots next: {error}", self.label());
                Known::Nothing
            }
        }
    }

    /// The way back did not go as it should: neither the old nor the new software can be vouched for.
    pub(super) fn remember_inconsistent(&mut self, error: DeployError) {
        log::error!("{}: {error}", self.label());
        self.deployment.inconsistent = true;
        self.remember(error);
    }

    /// The deployment has failed. A person on the command line is told by the command itself.
    pub(super) fn fail(&mut self, error: DeployError) {
        if self.conduct == Conduct::Managed {
            log::error!("{}: {error}", self.label());
        }
        self.remember(error);
    }

    /// Remembers the first thing that went wrong, of which the log tells already.
    fn remember(&mut self, error: DeployError) {
        self.deployment.failed = true;
        self.to_tell.error.get_or_insert(error);
    }

    /// The end, as `status` says it.
    pub(super) fn summary(mut self, status: Status, success: bool) -> Summary {
        let needs_reboot = match status {
            Status::Installed | Status::Committed | Status::Streamed | Status::Stopped => {
                self.deployment.needs_reboot
            }
            // The new software may still be running.
            Status::RolledBack => {
                let verdict = self.handler().and_then(|handler| handler.verdict());
                matches!(verdict, Ok(Some(Verdict::Reverting)))
            }
            Status::NotModified
            | Status::Inconsistent
            | Status::CleanedUp
            | Status::Rebooting
            | Status::Held
            | Status::Interrupted => false,
        };
        let ToTell { error, ended, held, .. } = self.to_tell;
        Summary { status, success, needs_reboot, error, ended, held }
    }

    /// Says how it ended.
    pub(super) fn finish(self, command: Command) -> Summary {
        let Ending { status, success, notices } = ending::ending(&Happened {
            command,
            halt: self.halt,
            history: &self.history,
            has_error: self.to_tell.error.is_some(),
            inconsistent: self.deployment.inconsistent,
            needs_reboot: self.deployment.needs_reboot,
            offered_again: self.deployment.offered_again,
        });
        for notice in notices {
            self.world.observer.notice(notice);
        }
        self.summary(status, success)
    }
}

/// Whether what was being downloaded is another thing now: what came of it has no rest, and a new beginning may have.
fn is_changed_source(error: &DeployError) -> bool {
    error.is_not_as_before() || cause::<SourceChanged>(error).is_some()
}
