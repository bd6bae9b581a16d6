//! Carries out a deployment: the only place of this module with effects.
//!
//! ```text
//!  install:  open and verify ─ depends ─ Download ─ Install ─ (wait)
//!  commit:   Commit ─ AfterCommit ─ Cleanup
//!  rollback: Rollback ─ Failure ─ Cleanup
//!  resume:   whatever the record and the boot environment together say
//! ```
//!
//! Each stage: save it (intent before effect), run its scripts, act, ask [`stage::next`]. The last save removes the
//! deployment from the record and settles what is installed in one step.

use std::io::Read;

use super::device::Device;
use super::record::{Deployment, Record, TRANSITIONS_MAX, VERSION};
use super::report::{DeployError, Notice, Observer, Status, Summary};
use super::scripts::{OnScriptFailure, ScriptPoint, ScriptRunner};
use super::stage::{self, Outcome, Resume, Stage};
use crate::artifact::{self, Artifact, Header, Limits, PayloadReader, Trust};
use crate::boot::Verdict;
use crate::install::{InstallError, PayloadHandler, ROOTFS_IMAGE, RebootNeed, RootfsImage};
use crate::provides::{Provides, UNKNOWN_ARTIFACT};
use crate::state_store::StateStore;

/// What is trusted, and how much is taken from outside.
#[derive(Debug)]
pub struct Policy {
    /// Whose artifacts are installed.
    pub trust: Trust,
    /// Bounds on everything that comes from outside.
    pub limits: Limits,
}

/// How far a command goes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Stages the command must not enter.
    pub stop_before: Vec<Stage>,
}

impl Options {
    fn stops_before(&self, stage: Stage) -> bool {
        self.stop_before.contains(&stage)
    }
}

/// Installs the artifact that `source` delivers, up to the point where it waits for the reboot.
///
/// # Errors
/// When nothing was begun: the record cannot be read, or another deployment is in progress. Everything after that
/// is told by the summary.
pub fn install(
    device: &mut Device<'_>,
    source: impl Read + Send + 'static,
    policy: &Policy,
    options: &Options,
) -> Result<Summary, DeployError> {
    let mut record = Record::load(device.state)?;
    match &record.deployment {
        None => {}
        // Cut while downloading: nothing points at the half-written slot, and it will be written again.
        Some(left) if left.stage == Stage::Download => {
            log::warn!("forgetting the interrupted download of {}", left.artifact_name);
            record.deployment = None;
        }
        Some(_) => {
            device.observer.notice(Notice::SystemNotModified);
            return Err(DeployError::AlreadyInProgress);
        }
    }
    // Whoever wrote the record before: the deployment that begins is in this client's words.
    record.version = VERSION;
    let refused = |observer: &mut dyn Observer, error| {
        observer.notice(Notice::StreamingFailed);
        observer.notice(Notice::SystemNotModified);
        Ok(Summary { status: Status::NotModified, success: false, needs_reboot: false, error: Some(error) })
    };
    // Nothing is written before the header was verified: a refused artifact leaves no trace.
    let Artifact { header, mut payload } = match artifact::open(source, &policy.trust, &policy.limits) {
        Ok(artifact) => artifact,
        Err(error) => return refused(device.observer, InstallError::from(error).into()),
    };
    device.observer.notice(Notice::Installing);
    log::info!("artifact {} for {}", header.artifact_name, header.depends.device_type.join(", "));
    if let Err(error) = check_depends(device, &record, &header) {
        return refused(device.observer, error);
    }
    let Some(info) = &header.payload else {
        device.observer.notice(Notice::EmptyPayload);
        return match install_empty(device, &mut record, &header, &mut payload) {
            Ok(summary) => Ok(summary),
            Err(error) => refused(device.observer, error),
        };
    };
    let mut deployment = Deployment::new(header.artifact_name.clone(), info.payload_type.clone());
    deployment.artifact_group = header.artifact_group.clone();
    deployment.provides = header.provides.clone();
    deployment.clears_provides = header.clears_provides.clone();

    if deployment.payload_type != ROOTFS_IMAGE {
        device.observer.notice(Notice::NoUpdateModule);
        let payload_type = deployment.payload_type;
        let error = Some(InstallError::UnknownPayloadType { payload_type }.into());
        return Ok(Summary { status: Status::NotModified, success: false, needs_reboot: false, error });
    }
    if let Err(error) = RootfsImage::new(device.boot_env, device.slots, device.system).map(drop) {
        return refused(device.observer, error.into());
    }
    let mut run = Run::new(device, record, deployment, options)?;
    run.drive(Stage::Download, Some(Incoming { header: &header, payload: &mut payload }));
    Ok(run.finish(Command::Install))
}

/// Makes the running trial permanent.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::CannotCommitHere`], or what keeps the record or the boot
/// environment from being read. Nothing has changed then.
pub fn commit(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = take_up(device, options)?;
    if !stage::may_commit(deployment.stage) {
        return Err(DeployError::CannotCommitHere);
    }
    match run.position()? {
        // Not begun yet: the order to commit is an order to try, and a failure rolls back.
        Resume::Enter(Stage::Commit) | Resume::AwaitReboot => run.drive(Stage::Commit, None),
        Resume::Enter(stage) => {
            if stage == Stage::Rollback {
                run.fail(if deployment.entered { DeployError::Interrupted } else { DeployError::FellBack });
            }
            run.drive(stage, None);
        }
        Resume::Contradiction => return Err(run.contradiction()?),
    }
    Ok(run.finish(Command::Commit))
}

/// Goes back to the old software.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::CannotRollBackHere`], or what keeps the record from being
/// read. Nothing has changed then.
pub fn roll_back(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = take_up(device, options)?;
    if !stage::may_roll_back(deployment.stage, deployment.entered) {
        return Err(DeployError::CannotRollBackHere);
    }
    if !run.supports_rollback() {
        run.observer.notice(Notice::NoRollback);
        return Ok(run.summary(Status::Inconsistent, false));
    }
    run.deployment.failed = true;
    run.drive(Stage::Rollback, None);
    Ok(run.finish(Command::RollBack))
}

/// Goes on with a deployment that was stopped or interrupted, wherever that was.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::Contradiction`], or what keeps the record or the boot
/// environment from being read. Nothing has changed then.
pub fn resume(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = take_up(device, options)?;
    match run.position()? {
        Resume::AwaitReboot => run.waiting = true,
        Resume::Enter(stage) => {
            if stage == Stage::Rollback {
                if deployment.stage == Stage::Commit && !deployment.entered {
                    // It was waiting, and the bootloader went back: that is news.
                    run.fail(DeployError::FellBack);
                    run.observer.notice(Notice::CommittingFailed);
                }
                run.deployment.failed = true;
            }
            run.drive(stage, None);
        }
        Resume::Contradiction => return Err(run.contradiction()?),
    }
    Ok(run.finish(Command::Resume))
}

/// Makes sure that the device has an artifact name: from the bootstrap artifact, if there is one, otherwise
/// `unknown`. Does nothing when a name is recorded already.
///
/// The bootstrap artifact lies on the device's own data partition and is not signed (specification 1.10). It may
/// only set provides.
///
/// # Errors
/// When the record cannot be read or saved, or the artifact was refused; the name is `unknown` then.
pub fn bootstrap(
    device: &mut Device<'_>,
    source: Option<Box<dyn Read + Send>>,
    limits: &Limits,
) -> Result<(), DeployError> {
    let mut record = Record::load(device.state)?;
    if record.installed.artifact_name.is_some() {
        return Ok(());
    }
    let installed = match source {
        None => Ok(()),
        Some(source) => bootstrap_provides(device, &mut record, source, limits),
    };
    // Refused or not there: the next start must find a name all the same.
    record.installed.artifact_name.get_or_insert_with(|| UNKNOWN_ARTIFACT.to_owned());
    record.save(device.state)?;
    installed
}

fn bootstrap_provides(
    device: &mut Device<'_>,
    record: &mut Record,
    source: Box<dyn Read + Send>,
    limits: &Limits,
) -> Result<(), DeployError> {
    let Artifact { header, mut payload } =
        artifact::open(source, &Trust::DangerUnsigned, limits).map_err(InstallError::from)?;
    let found = match (&header.payload, header.scripts.is_empty()) {
        (Some(_), _) => Some("a payload"),
        (None, false) => Some("state scripts"),
        (None, true) => None,
    };
    if let Some(found) = found {
        return Err(DeployError::NotABootstrapArtifact { found });
    }
    check_depends(device, record, &header)?;
    drain_empty(&mut payload)?;
    log::info!("bootstrap artifact {}", header.artifact_name);
    settle_provides(record, &header);
    Ok(())
}

fn check_depends(device: &mut Device<'_>, record: &Record, header: &Header) -> Result<(), DeployError> {
    let device_type = device.system.device_type()?;
    Ok(record.installed.satisfies(&device_type, header)?)
}

fn drain_empty(payload: &mut PayloadReader) -> Result<(), DeployError> {
    // The reader refuses a file in an empty payload by itself; this only walks to the verified end.
    match payload.next_file().map_err(InstallError::from)? {
        None => Ok(()),
        Some(_) => Err(InstallError::FileCount { found: "a file in an empty payload" }.into()),
    }
}

fn settle_provides(record: &mut Record, header: &Header) {
    record.installed = record.installed.after_commit(
        &header.artifact_name,
        header.artifact_group.as_deref(),
        header.provides.as_ref(),
        header.clears_provides.as_deref(),
    );
}

fn install_empty(
    device: &mut Device<'_>,
    record: &mut Record,
    header: &Header,
    payload: &mut PayloadReader,
) -> Result<Summary, DeployError> {
    drain_empty(payload)?;
    settle_provides(record, header);
    record.deployment = None;
    record.save(device.state)?;
    device.observer.notice(Notice::InstalledAndCommitted);
    Ok(Summary { status: Status::Committed, success: true, needs_reboot: false, error: None })
}

/// Loads the deployment in progress.
fn take_up<'r>(
    device: &'r mut Device<'_>,
    options: &'r Options,
) -> Result<(Run<'r>, Deployment), DeployError> {
    let record = Record::load(device.state)?;
    let deployment = match record.deployment.clone() {
        // An interrupted download left nothing to go on with.
        Some(deployment) if deployment.stage != Stage::Download => deployment,
        Some(_) | None => {
            device.observer.notice(Notice::NothingInProgress);
            return Err(DeployError::NothingInProgress);
        }
    };
    let run = Run::new(device, record, deployment.clone(), options)?;
    Ok((run, deployment))
}

/// What a deployment adds to the record later: the image, names of stages, `_INCONSISTENT`.
const RECORD_SPARE_BYTES: usize = 1024;

/// What only the process that downloads has.
struct Incoming<'i> {
    header: &'i Header,
    payload: &'i mut PayloadReader,
}

/// Which command is being carried out: they differ only in what they say at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Install,
    Commit,
    RollBack,
    Resume,
}

/// One deployment while a process works on it.
struct Run<'r> {
    handler: Box<dyn PayloadHandler + 'r>,
    state: &'r mut dyn StateStore,
    scripts: &'r mut dyn ScriptRunner,
    observer: &'r mut dyn Observer,
    options: &'r Options,
    record: Record,
    deployment: Deployment,
    /// The first thing that went wrong.
    error: Option<DeployError>,
    /// Stages this process went through, the last one first.
    passed: Vec<Stage>,
    stopped: bool,
    waiting: bool,
    cleanup_failed: bool,
    post_commit_failed: bool,
    /// The record is the last word: without it even a done deed is not finished.
    save_failed: bool,
}

impl<'r> Run<'r> {
    fn new(
        device: &'r mut Device<'_>,
        record: Record,
        deployment: Deployment,
        options: &'r Options,
    ) -> Result<Run<'r>, DeployError> {
        if deployment.payload_type != ROOTFS_IMAGE {
            let payload_type = deployment.payload_type;
            return Err(InstallError::UnknownPayloadType { payload_type }.into());
        }
        let mut handler: Box<dyn PayloadHandler + 'r> =
            Box::new(RootfsImage::new(device.boot_env, device.slots, device.system)?);
        handler.restore(deployment.image.clone());
        Ok(Run {
            handler,
            state: device.state,
            scripts: device.scripts,
            observer: device.observer,
            options,
            record,
            deployment,
            error: None,
            passed: Vec::new(),
            stopped: false,
            waiting: false,
            cleanup_failed: false,
            post_commit_failed: false,
            save_failed: false,
        })
    }

    /// Where this deployment goes on, decided by the record and the boot environment together.
    fn position(&mut self) -> Result<Resume, DeployError> {
        let Deployment { stage, entered, .. } = self.deployment;
        // Only where it decides: going back must work with an environment that cannot be read.
        let verdict = match stage {
            Stage::Install | Stage::Commit => self.handler.verdict()?,
            Stage::Download | Stage::AfterCommit | Stage::Rollback | Stage::Failure | Stage::Cleanup => None,
        };
        if let Some(verdict) = verdict {
            log::info!("{} found in {stage:?}: {verdict}", self.deployment.artifact_name);
        }
        Ok(stage::resume(stage, entered, verdict))
    }

    fn contradiction(&mut self) -> Result<DeployError, DeployError> {
        let verdict = self.handler.verdict()?.unwrap_or(Verdict::Foreign);
        Ok(DeployError::Contradiction { verdict })
    }

    /// Runs stages from `stage` on until one waits, is stopped before, or the deployment ends.
    fn drive(&mut self, stage: Stage, mut incoming: Option<Incoming<'_>>) {
        let mut upcoming = Some(stage);
        while let Some(stage) = upcoming {
            if self.options.stops_before(stage) {
                self.stopped = true;
                self.leave_waiting_before(stage);
                return;
            }
            let outcome = self.perform(stage, incoming.take());
            self.passed.push(stage);
            if self.save_failed {
                return;
            }
            if stage == Stage::Rollback && outcome != Outcome::Done && !self.is_back() {
                // The trial may still be open. The record keeps saying so, and `resume` tries again.
                return;
            }
            upcoming = stage::next(stage, outcome);
            let following = upcoming.map_or("end".to_owned(), |stage| format!("{stage:?}"));
            log::info!("{}: {stage:?} {outcome:?}, {following} follows", self.deployment.artifact_name);
            if (stage, outcome) == (Stage::Install, Outcome::Done) {
                if !self.supports_rollback() {
                    self.observer.notice(Notice::NoRollbackCommitting);
                    continue;
                }
                match self.save_position(Stage::Commit, false) {
                    Ok(()) => {
                        self.waiting = true;
                        return;
                    }
                    // Armed, but a later process could not know that it is complete.
                    Err(error) => {
                        self.fail(error);
                        upcoming = stage::next(stage, Outcome::Failed);
                    }
                }
            }
        }
    }

    /// One stage: scripts, deed, scripts.
    fn perform(&mut self, stage: Stage, incoming: Option<Incoming<'_>>) -> Outcome {
        match self.try_to(stage, incoming) {
            Ok(()) => Outcome::Done,
            Err(error) => {
                log::error!("{}: {stage:?} failed: {error}", self.deployment.artifact_name);
                self.fail(error);
                if let Some(point) = stage.error_scripts() {
                    // What a script says to a failure changes nothing (specification 4.4).
                    self.run_scripts(point, OnScriptFailure::RunTheRest).unwrap_or_else(|error| {
                        log::warn!("ignored: {error}");
                    });
                }
                self.judge_failure(stage)
            }
        }
    }

    /// What a failed stage means for the deployment.
    fn judge_failure(&mut self, stage: Stage) -> Outcome {
        match stage {
            Stage::Install | Stage::Commit => {
                if self.supports_rollback() {
                    return Outcome::Failed;
                }
                self.deployment.inconsistent = true;
                Outcome::FailedForGood
            }
            Stage::Rollback | Stage::Failure => {
                self.deployment.inconsistent = true;
                Outcome::Failed
            }
            Stage::AfterCommit => {
                self.post_commit_failed = true;
                Outcome::Failed
            }
            Stage::Cleanup => {
                self.cleanup_failed = true;
                Outcome::Failed
            }
            Stage::Download => Outcome::Failed,
        }
    }

    fn try_to(&mut self, stage: Stage, incoming: Option<Incoming<'_>>) -> Result<(), DeployError> {
        match stage {
            Stage::Download => {
                let Some(Incoming { header, payload }) = incoming else {
                    return Err(InstallError::NothingWritten.into());
                };
                self.check_that_the_record_fits()?; // a commit that cannot be recorded must not be begun
                self.scripts.stage(&header.scripts)?;
                self.enter(stage)?; // who finds a half-written slot must know why
                self.handler.download(payload, self.observer)?;
                self.deployment.image = self.handler.image();
                self.leave(stage)?;
                // Only now has every byte of the artifact been verified.
                Ok(self.scripts.publish()?)
            }
            Stage::Install => {
                self.enter(stage)?; // intent before effect: a cut from here on is undone
                self.handler.install()?;
                self.leave(stage)?;
                self.deployment.needs_reboot = self.handler.needs_reboot()? == RebootNeed::Automatic;
                Ok(())
            }
            Stage::Commit => {
                self.enter(stage)?; // a cut from here on is decided by the boot environment
                Ok(self.handler.commit()?) // the single commit point
            }
            Stage::AfterCommit => self.settle_commit(),
            Stage::Rollback => {
                // Going back must not depend on being able to write that down.
                self.go_on_without_record(stage);
                let entered = self.run_scripts_of(stage.enter_scripts(), stage);
                let done = self.handler.roll_back().map_err(DeployError::from).or_else(|error| {
                    // A write that was reported as failed may have taken effect all the same.
                    let back =
                        matches!(self.handler.verdict(), Ok(Some(Verdict::FellBack | Verdict::Reverting)));
                    if back { Ok(()) } else { Err(error) }
                });
                let left = self.run_scripts_of(stage.leave_scripts(), stage);
                done.and(entered).and(left)
            }
            Stage::Failure => {
                self.go_on_without_record(stage);
                let entered = self.run_scripts_of(stage.enter_scripts(), stage);
                let done = self.handler.fail().map_err(DeployError::from);
                let left = self.run_scripts_of(stage.leave_scripts(), stage);
                done.and(entered).and(left)
            }
            Stage::Cleanup => self.end(),
        }
    }

    /// Saves that `stage` has begun and runs its scripts.
    fn enter(&mut self, stage: Stage) -> Result<(), DeployError> {
        self.save_position(stage, true)?;
        self.run_scripts_of(stage.enter_scripts(), stage)
    }

    fn leave(&mut self, stage: Stage) -> Result<(), DeployError> {
        self.run_scripts_of(stage.leave_scripts(), stage)
    }

    fn run_scripts_of(&mut self, point: Option<ScriptPoint>, stage: Stage) -> Result<(), DeployError> {
        let on_failure =
            if stage.scripts_can_fail_it() { OnScriptFailure::Stop } else { OnScriptFailure::RunTheRest };
        point.map_or(Ok(()), |point| self.run_scripts(point, on_failure))
    }

    fn run_scripts(&mut self, point: ScriptPoint, on_failure: OnScriptFailure) -> Result<(), DeployError> {
        Ok(self.scripts.run(point, on_failure)?)
    }

    /// Refuses a deployment whose record would not fit into the store, now or with the new provides beside the old.
    fn check_that_the_record_fits(&mut self) -> Result<(), DeployError> {
        let mut now = self.record.clone();
        now.deployment = Some(self.deployment.clone());
        let mut end = self.record.clone();
        end.installed = self.provides_after_commit();
        let need_bytes = now.to_json()?.len().max(end.to_json()?.len()) + RECORD_SPARE_BYTES;
        let have_bytes = self.state.capacity_bytes();
        if need_bytes > have_bytes {
            return Err(DeployError::RecordTooSmall { need_bytes, have_bytes });
        }
        Ok(())
    }

    /// What the device provides once this deployment is committed.
    fn provides_after_commit(&self) -> Provides {
        self.record.installed.after_commit(
            &self.deployment.artifact_name,
            self.deployment.artifact_group.as_deref(),
            self.deployment.provides.as_ref(),
            self.deployment.clears_provides.as_deref(),
        )
    }

    /// Behind the commit point: what is installed and where the deployment stands change in one save.
    fn settle_commit(&mut self) -> Result<(), DeployError> {
        let stage = Stage::AfterCommit;
        // Behind a stop before this stage the old provides still stand, so that `rollback` finds them.
        if (self.deployment.stage, self.deployment.entered) != (stage, true) {
            self.record.installed = self.provides_after_commit();
            // They are in what is installed now; twice they might not fit.
            self.deployment.provides = None;
            self.deployment.clears_provides = None;
        }
        if let Err(error) = self.save_position(stage, true) {
            self.save_failed = true;
            return Err(error);
        }
        self.leave(stage).inspect_err(|_| {
            // The software is the new one, but not all of what belongs to it was done.
            let Record { installed, .. } = &self.record;
            self.record.installed = installed.inconsistent(installed.name(), None);
        })
    }

    /// The last stage: one save removes the deployment and says what is installed.
    fn end(&mut self) -> Result<(), DeployError> {
        self.go_on_without_record(Stage::Cleanup);
        let cleaned = self.handler.clean_up().map_err(DeployError::from);
        let discarded = self.scripts.discard().map_err(DeployError::from);
        if self.deployment.inconsistent {
            self.record.installed = self
                .record
                .installed
                .inconsistent(&self.deployment.artifact_name, self.deployment.artifact_group.as_deref());
        }
        self.record.deployment = None;
        self.record.version = VERSION;
        self.record.save(self.state)?;
        cleaned.and(discarded)
    }

    /// Saves the position in a stage that must be gone through whether it can be saved or not.
    fn go_on_without_record(&mut self, stage: Stage) {
        if let Err(error) = self.save_position(stage, true) {
            log::error!("going on without having saved {stage:?}: {error}");
        }
    }

    fn save_position(&mut self, stage: Stage, entered: bool) -> Result<(), DeployError> {
        if self.deployment.stage != stage {
            self.deployment.transitions = self.deployment.transitions.saturating_add(1);
        }
        if self.deployment.transitions > TRANSITIONS_MAX {
            self.deployment.inconsistent = true;
            return Err(DeployError::Loop);
        }
        self.deployment.stage = stage;
        self.deployment.entered = entered;
        self.record.deployment = Some(self.deployment.clone());
        Ok(self.record.save(self.state)?)
    }

    fn leave_waiting_before(&mut self, stage: Stage) {
        let saved =
            if (self.deployment.stage, self.deployment.entered) == (stage, false) && self.passed.is_empty() {
                Ok(())
            } else {
                self.save_position(stage, false)
            };
        if let Err(error) = saved {
            self.fail(error);
            self.save_failed = true;
        }
    }

    fn supports_rollback(&mut self) -> bool {
        self.handler.supports_rollback().unwrap_or_else(|error| {
            log::error!("cannot tell whether the payload can be rolled back, so it is not: {error}");
            false
        })
    }

    /// Whether a roll-back that failed has left nothing open: only its scripts failed, or no bootloader is concerned.
    fn is_back(&mut self) -> bool {
        match self.handler.verdict() {
            Ok(None | Some(Verdict::FellBack | Verdict::Reverting)) => true,
            Ok(Some(Verdict::Untouched | Verdict::Trial | Verdict::Committed | Verdict::Foreign)) => false,
            Err(error) => {
                log::error!("cannot tell what boots next: {error}");
                false
            }
        }
    }

    /// Remembers the first thing that went wrong.
    fn fail(&mut self, error: DeployError) {
        self.deployment.failed = true;
        self.error.get_or_insert(error);
    }

    fn summary(mut self, status: Status, success: bool) -> Summary {
        let needs_reboot = match status {
            Status::Installed | Status::Committed | Status::Streamed | Status::Stopped => {
                self.deployment.needs_reboot
            }
            // The new software may still be running.
            Status::RolledBack => matches!(self.handler.verdict(), Ok(Some(Verdict::Reverting))),
            Status::NotModified | Status::Inconsistent | Status::CleanedUp => false,
        };
        Summary { status, success, needs_reboot, error: self.error }
    }

    /// Says how it ended.
    fn finish(self, command: Command) -> Summary {
        let was = |stage| self.passed.contains(&stage);
        let mut say = Vec::new();
        let installing = was(Stage::Install);
        let (status, success) = if self.save_failed {
            (Status::Inconsistent, false)
        } else if self.waiting {
            say.push(Notice::InstalledNotCommitted);
            if self.deployment.needs_reboot {
                say.push(Notice::RebootRequested);
            }
            (Status::Installed, true)
        } else if was(Stage::Rollback) || was(Stage::Failure) {
            if command == Command::Install || installing {
                say.push(Notice::InstallationFailed);
            } else if was(Stage::Commit) || command == Command::Commit {
                say.push(Notice::CommittingFailed);
            }
            let (notice, status) = match (self.deployment.inconsistent, was(Stage::Rollback)) {
                (false, _) => (Notice::RolledBack, Status::RolledBack),
                (true, true) => (Notice::RollbackFailed, Status::Inconsistent),
                (true, false) => (Notice::NoRollback, Status::Inconsistent),
            };
            say.push(notice);
            if self.cleanup_failed {
                say.push(Notice::CleanupFailed);
            }
            // Going back is a success when it was asked for, or when an interrupted deployment is resumed.
            let asked_for = match command {
                Command::RollBack | Command::Resume => self.error.is_none(),
                Command::Install | Command::Commit => false,
            };
            (status, asked_for && status == Status::RolledBack && !self.cleanup_failed)
        } else if was(Stage::Download) && !was(Stage::Install) && self.error.is_some() {
            say.push(Notice::StreamingFailed);
            say.push(Notice::SystemNotModified);
            (Status::NotModified, false)
        } else if self.stopped && self.error.is_some() && !was(Stage::AfterCommit) {
            // Stopped on the way back. Where nothing was passed, the caller has said what is known.
            if installing {
                say.push(Notice::InstallationFailed);
            } else if was(Stage::Commit) {
                say.push(Notice::CommittingFailed);
            }
            (Status::Stopped, false)
        } else if was(Stage::AfterCommit) || was(Stage::Commit) {
            if was(Stage::Commit) || command != Command::Resume || self.post_commit_failed {
                say.push(if installing { Notice::InstalledAndCommitted } else { Notice::Committed });
            } else {
                say.push(Notice::CleanedUp);
            }
            if self.post_commit_failed {
                say.push(Notice::PostCommitFailed);
            }
            if self.cleanup_failed {
                say.push(Notice::CleanupFailed);
            }
            if installing && self.deployment.needs_reboot {
                say.push(Notice::RebootRequested);
            }
            (Status::Committed, !self.post_commit_failed && !self.cleanup_failed)
        } else if self.stopped {
            if was(Stage::Download) {
                say.push(Notice::Streamed);
                (Status::Streamed, true)
            } else {
                (Status::Stopped, true)
            }
        } else {
            say.push(if self.cleanup_failed { Notice::CleanupFailed } else { Notice::CleanedUp });
            (Status::CleanedUp, !self.cleanup_failed)
        };
        for notice in say {
            self.observer.notice(notice);
        }
        self.summary(status, success)
    }
}
