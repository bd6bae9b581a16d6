//! One deployment while a process works on it. Acts, and decides nothing: [`plan`](super::plan) says which stage comes,
//! [`ending`](super::ending) how it ended.
//!
//! Each stage: ask the gate, tell the server, save that it began (intent before effect), run its scripts, act, run its
//! scripts, ask the plan. What each stage does is in [`deeds`](super::deeds).

use super::commands::{Open, Options, Ordered, Policy};
use super::device::Device;
use super::ending::{self, Command, Ending, Halt, Happened, History};
use super::error::{DeployError, PolicyError};
use super::facts::{Blame, Conduct, Importance, Stage};
use super::gates::{Answer, Gatekeeper, Question};
use super::notice::{Notice, Observer};
use super::plan::{self, Entry, Found, Next, Outcome};
use super::record::{Deployment, Record, TRANSITIONS_MAX, Unreported};
use super::report::{Report, Reported, Reporter};
use super::scripts::ScriptRunner;
use super::source::{SourceChanged, cause};
use super::summary::{Held, Status, Summary};
use crate::artifact::{Header, PayloadReader};
use crate::boot::Verdict;
use crate::install::{InstallError, PayloadHandler, Registry, WrittenImage};
use crate::slot::{Restart, System};
use crate::state_store::StateStore;

/// Characters of a remark that are kept; servers take no more either.
const REMARK_CHARS: usize = 200;

/// What only the process that downloads has.
pub(super) enum Incoming<'i> {
    /// An artifact whose header was accepted already.
    Opened { header: &'i Header, payload: &'i mut PayloadReader },
    /// An artifact that is still to be asked for.
    Ordered { order: &'i Ordered, open: &'i mut Open<'i>, policy: Result<Policy, PolicyError> },
}

/// One deployment while a process works on it.
pub(super) struct Run<'r> {
    /// Where the handler comes from, until it is there.
    registry: Option<Registry<'r>>,
    pub(super) handler: Option<Box<dyn PayloadHandler + 'r>>,
    /// The handler was called, now or by an earlier process: it may have left something behind.
    pub(super) begun: bool,
    pub(super) system: &'r dyn System,
    pub(super) state: &'r mut dyn StateStore,
    pub(super) scripts: &'r mut dyn ScriptRunner,
    pub(super) observer: &'r mut dyn Observer,
    gates: &'r mut dyn Gatekeeper,
    reporter: &'r mut dyn Reporter,
    options: &'r Options,
    pub(super) conduct: Conduct,
    pub(super) record: Record,
    pub(super) deployment: Deployment,
    /// The first thing that went wrong.
    error: Option<DeployError>,
    /// Stages this process went through.
    pub(super) history: History,
    /// Why it goes no further.
    halt: Option<Halt>,
    /// What the server is to be told of the end.
    pub(super) ended: Option<Unreported>,
    /// Which gate is closed.
    held: Option<Held>,
    /// What a gate said that the server is to be told: with the next report, or with the last one.
    remark: Option<String>,
}

impl<'r> Run<'r> {
    /// Nothing is done yet.
    pub(super) fn new(
        device: &'r mut Device<'_>,
        record: Record,
        deployment: Deployment,
        options: &'r Options,
    ) -> Run<'r> {
        Run {
            registry: Some(Registry {
                boot: device.boot,
                slots: device.slots,
                system: device.system,
                modules: device.modules,
            }),
            handler: None,
            begun: false,
            system: device.system,
            state: device.state,
            scripts: device.scripts,
            observer: device.observer,
            gates: device.gates,
            reporter: device.reporter,
            options,
            conduct: if deployment.id.is_some() { Conduct::Managed } else { Conduct::Standalone },
            record,
            deployment,
            error: None,
            history: History::default(),
            halt: None,
            ended: None,
            held: None,
            remark: None,
        }
    }

    /// How every line of the log about it begins.
    pub(super) fn label(&self) -> String {
        self.deployment.label()
    }

    /// Finds the handler of the payload's type.
    pub(super) fn open_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.begin(&self.deployment.payload_type)?;
        (self.deployment.handler, self.handler) = (recorded, Some(handler));
        Ok(())
    }

    /// The built-in handler for an image that an earlier deployment wrote, after it was read again.
    pub(super) fn open_written(&mut self, image: WrittenImage) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.recognize(image, &mut self.observer)?;
        (self.deployment.handler, self.handler) = (recorded, Some(handler));
        self.begun = true;
        Ok(())
    }

    /// Finds the handler with which an earlier process began.
    pub(super) fn reopen_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let Deployment { payload_type, handler, .. } = &self.deployment;
        self.handler = Some(registry.reopen(payload_type, handler)?);
        Ok(())
    }

    /// Goes on without a handler where that is possible. Where it is not, the attempt counts: what cannot be opened for
    /// ever must not keep the device from other updates for ever.
    pub(super) fn without_handler(&mut self, error: InstallError) -> Result<(), DeployError> {
        let loops = self.deployment.transitions > TRANSITIONS_MAX;
        if loops || self.deployment.stage.facts().without_handler {
            log::error!("{}: going on without a handler: {error}", self.label());
            return Ok(());
        }
        Err(self.persist_attempt(error.into()))
    }

    /// Saves that this process went on with the deployment, and in vain. A person who tries sees why, and is not counted.
    pub(super) fn persist_attempt(&mut self, error: DeployError) -> DeployError {
        if self.conduct == Conduct::Managed {
            self.record.deployment = Some(self.deployment.clone());
            if let Err(error) = self.record.save(self.state) {
                log::error!("{}: cannot save that it was reopened in vain: {error}", self.label());
            }
        }
        error
    }

    pub(super) fn handler(&mut self) -> Result<&mut (dyn PayloadHandler + 'r), InstallError> {
        self.handler.as_deref_mut().ok_or(InstallError::NoHandler)
    }

    /// Where this deployment was found, with what the bootloader did meanwhile.
    pub(super) fn found(&mut self) -> Result<Found, DeployError> {
        let mut found = self.found_without_looking();
        // Only where it decides: going back must work with an environment that cannot be read.
        if found.stage.facts().asks_what_boots && found.transitions <= TRANSITIONS_MAX {
            found.verdict = self.handler()?.verdict()?;
        }
        if let Some(verdict) = found.verdict {
            log::info!("{}: found in {}: {verdict}", self.label(), found.stage);
        }
        Ok(found)
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
        let verdict = self.handler()?.verdict()?.unwrap_or(Verdict::Foreign);
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
        self.handler = None;
        self.drive(entry, None);
        if after.restarts && self.halt != Some(Halt::NotSaved) {
            // The record is settled; what runs is still what was given up.
            match self.system.reboot(&Restart::Plain) {
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
            if !self.may_enter(stage) {
                return;
            }
            let passed = self.pass_gate(stage);
            if self.halt.is_some() {
                return;
            }
            self.observer.stage(stage);
            let outcome = match passed.and_then(|()| self.announce(stage)) {
                Ok(()) => self.perform(stage, incoming.take()),
                Err(outcome) => outcome,
            };
            self.history.push(stage, outcome);
            if self.halt.is_some() {
                return;
            }
            next = plan::next(stage, outcome, self.conduct);
            self.tell_transition(stage, outcome, next);
            if next == Next::WaitForCommit {
                next = self.wait_for_commit(stage);
            }
        }
    }

    fn tell_transition(&self, stage: Stage, outcome: Outcome, next: Next) {
        let following = match next {
            Next::Enter(entry) => entry.stage().to_string(),
            Next::WaitForCommit => "waiting for the commit".to_owned(),
            Next::StayThere => "again by the next process".to_owned(),
            Next::End => "end".to_owned(),
        };
        log::info!("{}: {stage} -> {following} ({})", self.label(), outcome.name());
    }

    /// Whether nobody asked to stop before `stage`. Where somebody did, that is the place where it goes on.
    fn may_enter(&mut self, stage: Stage) -> bool {
        if self.options.stops_before(stage) {
            self.halt(Halt::StoppedBefore);
        } else if self.observer.stop_requested() {
            self.halt(Halt::Interrupted);
            // Of a download that has not begun there is nothing to remember.
            if stage == Stage::Download {
                return false;
            }
        } else {
            return true;
        }
        self.leave_waiting_before(stage);
        false
    }

    /// The installation is complete. A later process must know that.
    fn wait_for_commit(&mut self, stage: Stage) -> Next {
        match self.save_position(Stage::Commit, false) {
            Ok(()) => {
                self.halt(Halt::Waiting);
                Next::WaitForCommit
            }
            Err(error) => {
                self.fail(error);
                plan::next(stage, Outcome::Failed, self.conduct)
            }
        }
    }

    /// Tells the server what comes, where a server ordered it. An error is how the stage ended before it began.
    fn announce(&mut self, stage: Stage) -> Result<(), Outcome> {
        let (Some(id), Some((report, importance))) = (self.deployment.id.clone(), stage.facts().report)
        else {
            return Ok(());
        };
        if stage == Stage::Commit {
            // The answer may take long: a process that is ended meanwhile must find the installation complete.
            if let Err(error) = self.save_waiting(stage) {
                self.fail(error);
                return Err(self.judge_failure(stage));
            }
        }
        let remark = self.remark.take();
        match (self.reporter.report(&id, report, remark.as_deref(), importance), importance) {
            (Reported::Accepted, _) | (Reported::NoAnswer, Importance::BestEffort) => Ok(()),
            (Reported::Aborted, _) => {
                self.fail(DeployError::Aborted);
                Err(self.called_off_before(stage))
            }
            (Reported::NoAnswer, Importance::Mandatory) if self.observer.stop_requested() => {
                self.halt(Halt::Interrupted);
                Err(Outcome::Failed)
            }
            (Reported::NoAnswer, Importance::Mandatory) => {
                self.fail(DeployError::Unreachable);
                Err(self.judge_failure(stage))
            }
        }
    }

    /// How a deployment ends that was called off before `stage` began.
    fn called_off_before(&mut self, stage: Stage) -> Outcome {
        // Nothing that boots has changed yet.
        if [Stage::Download, Stage::Install].contains(&stage) {
            return Outcome::Aborted;
        }
        let judged = self.judge_failure(stage);
        if judged == Outcome::Failed { Outcome::Aborted } else { judged }
    }

    /// Asks whoever may hold the deployment up before `stage`. An error is how the stage ended before it began; with
    /// `held` set the deployment waits, and goes on where it is when it is taken up again.
    fn pass_gate(&mut self, stage: Stage) -> Result<(), Outcome> {
        let Some(gate) = stage.facts().gate.filter(|gate| self.gates.watches(*gate)) else { return Ok(()) };
        // Nothing of a download is worth remembering. The other answers may take long.
        if stage != Stage::Download {
            if let Err(error) = self.save_waiting(stage) {
                self.fail(error);
                return Err(self.judge_failure(stage));
            }
        }
        let (id, artifact_name) = (self.deployment.id.clone(), self.deployment.artifact_name.clone());
        let question = Question { gate, deployment: id.as_deref(), artifact_name: &artifact_name };
        let answer = self.gates.ask(&question);
        if self.observer.stop_requested() {
            self.halt(Halt::Interrupted);
            return Ok(());
        }
        match (answer, id) {
            (Answer::Open { note }, _) => {
                log::info!(
                    "{}: {gate} may go on{}",
                    self.label(),
                    note.iter().fold(String::new(), |_, n| format!(": {n}"))
                );
                self.remark = note;
                Ok(())
            }
            (Answer::Closed { reason, ask_again }, Some(id)) => {
                log::info!("{}: waiting before {gate}: {reason}", self.label());
                let remark = format!("waiting before {gate}: {reason}");
                let told =
                    self.reporter.report(&id, Report::Waiting(gate), Some(&remark), Importance::BestEffort);
                if told == Reported::Aborted {
                    self.fail(DeployError::Aborted);
                    return Err(self.called_off_before(stage));
                }
                self.held = Some(Held { gate, reason, ask_again });
                self.halt(Halt::Held);
                Ok(())
            }
            (Answer::Closed { reason, .. } | Answer::Refused { reason }, _) => {
                let error = DeployError::Refused { gate, reason };
                log::error!("{}: {error}", self.label());
                self.deployment.remark = Some(error.to_string().chars().take(REMARK_CHARS).collect());
                self.remember(error);
                Err(self.called_off_before(stage))
            }
        }
    }

    /// One stage: scripts, deed, scripts.
    fn perform(&mut self, stage: Stage, incoming: Option<Incoming<'_>>) -> Outcome {
        match self.act(stage, incoming) {
            Ok(Outcome::Done) if stage == Stage::Install => self.judge_installation(),
            Ok(outcome) => outcome,
            // What was asked to stop has not failed. The record says where to go on.
            Err(error) if self.observer.stop_requested() => {
                log::info!("{}: {stage} interrupted: {error}", self.label());
                self.halt(Halt::Interrupted);
                if stage == Stage::Download {
                    self.forget_download();
                }
                Outcome::Failed
            }
            Err(error) => {
                self.note_failure(stage, error);
                self.judge_failure(stage)
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

    /// What a failed stage means for the deployment.
    fn judge_failure(&mut self, stage: Stage) -> Outcome {
        match stage.facts().blame {
            Blame::None => Outcome::Failed,
            Blame::New if self.supports_rollback() => Outcome::Failed,
            Blame::New => {
                self.deployment.inconsistent = true;
                Outcome::FailedForGood
            }
            Blame::Both => {
                self.deployment.inconsistent = true;
                if stage == Stage::Rollback && !self.is_back() { Outcome::StillOpen } else { Outcome::Failed }
            }
        }
    }

    /// What the handler says about its installation: a restart, and for a person on the command line a way back.
    fn judge_installation(&mut self) -> Outcome {
        if let Err(error) = self.learn_reboot_need() {
            self.fail(error);
            return self.judge_failure(Stage::Install);
        }
        if self.conduct == Conduct::Managed {
            return if self.deployment.needs_reboot { Outcome::DoneNeedsReboot } else { Outcome::Done };
        }
        if self.supports_rollback() {
            return Outcome::Done;
        }
        self.observer.notice(Notice::NoRollbackCommitting);
        Outcome::DoneForGood
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

    /// Whether a roll-back that failed has left nothing open: only its scripts failed, or no bootloader is concerned.
    fn is_back(&mut self) -> bool {
        match self.handler().and_then(|handler| handler.verdict()) {
            Ok(None | Some(Verdict::FellBack | Verdict::Reverting)) => true,
            Ok(Some(Verdict::Untouched | Verdict::Trial | Verdict::Committed | Verdict::Foreign)) => false,
            Err(error) => {
                log::error!("{}: cannot tell what boots next: {error}", self.label());
                false
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
        self.error.get_or_insert(error);
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
        Summary { status, success, needs_reboot, error: self.error, ended: self.ended, held: self.held }
    }

    /// Says how it ended.
    pub(super) fn finish(self, command: Command) -> Summary {
        let Ending { status, success, notices } = ending::ending(&Happened {
            command,
            halt: self.halt,
            history: &self.history,
            has_error: self.error.is_some(),
            inconsistent: self.deployment.inconsistent,
            needs_reboot: self.deployment.needs_reboot,
            offered_again: self.deployment.offered_again,
        });
        for notice in notices {
            self.observer.notice(notice);
        }
        self.summary(status, success)
    }
}

/// Whether what was being downloaded is another thing now: what came of it has no rest, and a new beginning may have.
fn is_changed_source(error: &DeployError) -> bool {
    cause::<SourceChanged>(error).is_some()
}
