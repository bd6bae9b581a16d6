//! Carries out a deployment: the only place of this module with effects.
//!
//! ```text
//!  install:  open and verify ─ depends ─ Download ─ Install ─ (wait)
//!  commit:   Commit ─ AfterCommit ─ Cleanup
//!  rollback: Rollback ─ Failure ─ Cleanup
//!  back:     Install of what lies in the other slot ─ (wait)
//!  resume:   whatever the record and the boot environment together say
//! ```
//!
//! Each stage: save it (intent before effect), run its scripts, act, ask [`stage::next`]. The last save removes the
//! deployment from the record and settles what is installed in one step.

use std::io::Read;

use super::device::Device;
use super::gates::{Answer, Gate, Gatekeeper, Question};
use super::record::{
    CUT_DOWNLOADS_MAX, CutDownloads, Deployment, REBOOTS_MAX, Record, RecordError, SlotContent,
    TRANSITIONS_MAX, Unreported, VERSION,
};
use super::report::{DeployError, Held, Notice, Observer, Report, Reported, Reporter, Status, Summary};
use super::scripts::{OnScriptFailure, ScriptPoint, ScriptRunner};
use super::stage::{self, Conduct, Importance, Outcome, Resume, Stage};
use crate::artifact::{self, Artifact, Header, Limits, PayloadReader, Trust, VerifyKeys};
use crate::boot::{self, BootError, Verdict};
use crate::install::{
    Arriving, Current, HandlerState, InstallError, PayloadHandler, RebootNeed, Registry, StateKeeper,
    WrittenImage,
};
use crate::provides::{Provides, UNKNOWN_ARTIFACT};
use crate::server::{Download, ServerError};
use crate::slot::{Restart, SlotError, System};
use crate::state_store::StateStore;

/// What is trusted, and how much is taken from outside.
#[derive(Debug)]
pub struct Policy {
    /// Whose artifacts are installed.
    pub trust: Trust,
    /// Bounds on everything that comes from outside.
    pub limits: Limits,
}

impl Policy {
    /// Refuses every artifact.
    pub fn trusting_nobody() -> Policy {
        Policy { trust: Trust::Keys(VerifyKeys::default()), limits: Limits::default() }
    }
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
    let mut record = load(device)?;
    if let Err(error) = make_room(&mut record) {
        device.observer.notice(Notice::SystemNotModified);
        return Err(error);
    }
    let refused = |observer: &mut dyn Observer, error| {
        observer.notice(Notice::StreamingFailed);
        observer.notice(Notice::SystemNotModified);
        Ok(Summary::of(Status::NotModified, Some(error)))
    };
    // Nothing is written before the header was verified: a refused artifact leaves no trace.
    let Artifact { header, mut payload, .. } = match artifact::open(source, &policy.trust, &policy.limits) {
        Ok(artifact) => artifact,
        Err(error) => return refused(device.observer, InstallError::from(error).into()),
    };
    device.observer.notice(Notice::Installing);
    log::info!("artifact {} for {}", header.artifact_name, header.depends.device_type.join(", "));
    if let Err(error) = check_depends(device.system, &record, &header) {
        return refused(device.observer, error);
    }
    let Some(info) = &header.payload else {
        device.observer.notice(Notice::EmptyPayload);
        return match install_empty(device, &mut record, &header, &mut payload) {
            Ok(summary) => Ok(summary),
            Err(error) => refused(device.observer, error),
        };
    };
    let mut deployment = Deployment::new(header.artifact_name.to_string(), info.payload_type.to_string());
    deployment.learn(&header);
    let mut run = Run::new(device, record, deployment, options);
    if let Err(error) = run.open_handler() {
        let unknown = matches!(
            error,
            InstallError::UnknownPayloadType { .. } | InstallError::ModuleNotExecutable { .. }
        );
        if !unknown {
            return refused(run.observer, error.into());
        }
        run.observer.notice(Notice::NoUpdateModule);
        return Ok(Summary::of(Status::NotModified, Some(error.into())));
    }
    run.drive(Stage::Download, Some(Incoming::Opened { header: &header, payload: &mut payload }));
    Ok(run.finish(Command::Install))
}

/// A deployment as a server orders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// The artifact's name as the server tells it, until the artifact itself does.
    pub artifact_name: String,
}

/// Begins to read the artifact of an order.
pub type Open<'o> = dyn FnMut() -> std::io::Result<Box<dyn Read + Send>> + 'o;

/// Carries out what a server ordered, up to the restart or to the end.
///
/// # Errors
/// When nothing was begun: the record cannot be read, or another deployment is in progress. Everything after that
/// is told by the summary.
pub fn carry_out(
    device: &mut Device<'_>,
    order: &Order,
    open: &mut Open<'_>,
    policy: &Policy,
) -> Result<Summary, DeployError> {
    let mut record = load(device)?;
    make_room(&mut record)?;
    let mut deployment = Deployment::new(order.artifact_name.clone(), String::new());
    deployment.id = Some(order.id.clone());
    log::info!("deployment {}: artifact {}", order.id, order.artifact_name);
    let options = Options::default();
    let mut run = Run::new(device, record, deployment, &options);
    run.drive(Stage::Download, Some(Incoming::Ordered { open, policy }));
    Ok(run.finish(Command::Install))
}

/// The record. Where the one before it was lost, the boot environment tells whether it may have had a deployment in
/// progress: an open trial of which nobody knows anything would keep every later deployment out. It is asked once.
///
/// # Errors
/// When the store fails or the document cannot be understood.
pub fn load(device: &mut Device<'_>) -> Result<Record, RecordError> {
    let mut record = Record::load(device.state)?;
    let Some(lost) = record.lost.as_mut().filter(|lost| !lost.settled && record.deployment.is_none()) else {
        return Ok(record);
    };
    match is_settled(device) {
        Ok(true) => {
            lost.settled = true;
            if let Err(error) = record.save(device.state) {
                log::warn!("the boot environment will be asked once more: {error}");
            }
        }
        Ok(false) => {
            log::error!("the record was lost, and the boot environment is not settled: going back");
            lost.settled = true;
            record.deployment = Some(Deployment::of_a_lost_record());
        }
        // Where there is nothing to boot from two slots there is nothing to settle; elsewhere the next one asks again.
        Err(error) => log::warn!("the record was lost, and the boot environment cannot be asked: {error}"),
    }
    Ok(record)
}

/// Whether no trial is open and the slot that runs is the one that boots next.
fn is_settled(device: &mut Device<'_>) -> Result<bool, InstallError> {
    match device.boot.check_configured() {
        Ok(()) => {}
        // A device without slots has no trials.
        Err(BootError::Slot(SlotError::NotConfigured { .. })) => return Ok(true),
        Err(error) => return Err(error.into()),
    }
    let running = device.system.running_slot()?;
    match boot::check_settled(device.boot, running) {
        Ok(()) => Ok(true),
        Err(BootError::OpenTrial { .. } | BootError::Disagrees { .. }) => Ok(false),
        Err(
            error @ (BootError::Env(_)
            | BootError::Vars(_)
            | BootError::Slot(_)
            | BootError::CannotBeArmed { .. }
            | BootError::NotOnTrial { .. }),
        ) => Err(error.into()),
    }
}

/// Whether what was being downloaded is another thing now: what came of it has no rest, and a new beginning may have.
fn is_changed_source(error: &DeployError) -> bool {
    matches!(Download::cause(error), Some(ServerError::ContentChanged { .. }))
}

/// Makes sure that no other deployment is in progress.
fn make_room(record: &mut Record) -> Result<(), DeployError> {
    match &record.deployment {
        None => {}
        // Cut while downloading: nothing points at the half-written slot, and it will be written again.
        Some(left) if left.stage == Stage::Download => {
            log::warn!("forgetting the interrupted download of {}", left.artifact_name);
            if let Some(id) = &left.id {
                record.unreported = Some(Unreported { id: id.clone(), failed: true, remark: None });
            }
            record.deployment = None;
        }
        Some(_) => return Err(DeployError::AlreadyInProgress),
    }
    // Whoever wrote the record before: the deployment that begins is in this client's words.
    record.version = VERSION;
    Ok(())
}

/// Makes the running trial permanent.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::CannotCommitHere`], [`DeployError::NotRestarted`], or what keeps
/// the record or the boot environment from being read. Nothing has changed then.
pub fn commit(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = take_up(device, options, Taker::AsOrdered)?;
    if stage::commit_winds_up(deployment.stage, deployment.entered) {
        // Cut in the middle: nothing waits for a commit, and refusing it would leave the device where it is.
        go_on(&mut run, &deployment)?;
        if run.passed.contains(&Stage::Rollback) {
            run.fail(DeployError::CutShort { stage: deployment.stage });
        }
        return Ok(run.finish(Command::Commit));
    }
    if !stage::may_commit(deployment.stage) {
        let lost = run.record.lost.is_some() && deployment.taken_over;
        return Err(if lost { DeployError::RecordLost } else { DeployError::CannotCommitHere });
    }
    match run.position()? {
        // Not begun yet: the order to commit is an order to try, and a failure rolls back.
        Resume::Enter(Stage::Commit) => run.drive(Stage::Commit, None),
        // Too early, which is no reason to throw the update away.
        Resume::AwaitReboot => return Err(DeployError::NotRestarted),
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
    let (mut run, deployment) = take_up(device, options, Taker::AsOrdered)?;
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

/// Arms a trial of what this client installed and committed in the other slot, after that was read and found unchanged:
/// the way back behind a commit. It ends as an installation does: the device is restarted, and somebody commits.
///
/// # Errors
/// [`DeployError::AlreadyInProgress`], [`DeployError::OtherSlotUnknown`], or what keeps the slot from being what it was.
/// Nothing has changed then.
pub fn try_other_slot(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let mut record = load(device)?;
    make_room(&mut record)?;
    let slot = !device.system.running_slot()?;
    let content = record.slots.get(&slot).filter(|content| content.image.slot == slot);
    let content = content.cloned().ok_or(DeployError::OtherSlotUnknown { slot })?;
    let mut run = Run::new(device, record, Deployment::of_slot_content(&content), options);
    let opened = run.open_written(content.image);
    if let Err(InstallError::ReadBack { slot, .. }) = opened {
        return Err(DeployError::OtherSlotChanged { slot });
    }
    opened?;
    run.check_that_the_record_fits()?;
    run.drive(Stage::Install, None);
    Ok(run.finish(Command::Install))
}

/// Winds up a deployment of the command line that nobody will come back for, as a daemon does. `None` where there is
/// none, or where it waits for a person.
///
/// # Errors
/// What keeps the record or the boot environment from being read.
pub fn take_over(device: &mut Device<'_>) -> Result<Option<Summary>, DeployError> {
    let options = Options::default();
    let by_hand = |deployment: &Deployment| deployment.id.is_none() && deployment.stage != Stage::Download;
    let Some(found) = load(device)?.deployment.filter(by_hand) else { return Ok(None) };
    // Only what is the daemon's is counted.
    let taker = if found.entered || found.taken_over { Taker::Daemon } else { Taker::AsOrdered };
    let (mut run, deployment) = take_up(device, &options, taker)?;
    if !deployment.taken_over {
        let waits = (deployment.stage, deployment.entered) == (Stage::Commit, false);
        let verdict = if waits { run.handler()?.verdict()? } else { None };
        if !stage::is_left_behind(deployment.stage, deployment.entered, verdict) {
            return Ok(None);
        }
    }
    log::warn!("{}: installed by hand and left behind: winding it up", deployment.artifact_name);
    run.deployment.taken_over = true;
    run.conduct = Conduct::Unattended;
    go_on(&mut run, &deployment)?;
    Ok(Some(run.finish(Command::Resume)))
}

/// Goes on with a deployment that was stopped or interrupted, wherever that was.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::Contradiction`], or what keeps the record or the boot
/// environment from being read. Nothing has changed then.
pub fn resume(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = take_up(device, options, Taker::AsOrdered)?;
    go_on(&mut run, &deployment)?;
    Ok(run.finish(Command::Resume))
}

/// Goes on with `deployment`, which was found in the record, wherever it was.
fn go_on(run: &mut Run<'_>, deployment: &Deployment) -> Result<(), DeployError> {
    if deployment.transitions > TRANSITIONS_MAX {
        run.break_the_loop();
        return Ok(());
    }
    let position = run.position().map_err(|error| run.counted(error))?;
    match position {
        Resume::AwaitReboot => match run.conduct {
            Conduct::Attended => run.waiting = true,
            Conduct::Unattended => run.drive(Stage::Reboot, None),
        },
        Resume::Enter(mut stage) => {
            match (stage, deployment.stage) {
                (Stage::Rollback, Stage::Commit) if !deployment.entered => {
                    // It was waiting, and the bootloader went back: that is news.
                    run.fail(DeployError::FellBack);
                    run.observer.notice(Notice::CommittingFailed);
                }
                (Stage::Cleanup, Stage::Download) if run.is_offered_again() => {
                    run.deployment.failed = true;
                    run.deployment.offered_again = true;
                }
                (Stage::Rollback | Stage::Cleanup, found) if found != stage => {
                    run.deployment.failed = true;
                    if run.conduct == Conduct::Unattended {
                        run.fail(DeployError::CutShort { stage: found });
                        // The command line goes back without asking (specification 7.2).
                        if stage == Stage::Rollback && !run.supports_rollback() {
                            run.deployment.inconsistent = true;
                            stage = Stage::Failure;
                        }
                    }
                }
                (Stage::Rollback, _) => run.deployment.failed = true,
                (
                    Stage::Download
                    | Stage::Install
                    | Stage::Reboot
                    | Stage::VerifyReboot
                    | Stage::Commit
                    | Stage::AfterCommit
                    | Stage::RollbackReboot
                    | Stage::VerifyRollback
                    | Stage::Failure
                    | Stage::Cleanup,
                    _,
                ) => {}
            }
            run.drive(stage, None);
        }
        Resume::Contradiction => {
            let error = run.contradiction()?;
            if run.conduct == Conduct::Attended {
                return Err(error);
            }
            // No person is here to look. Nothing that boots is touched, and the server hears of it.
            run.remember_inconsistent(error);
            run.drive(Stage::Failure, None);
        }
    }
    Ok(())
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
    let mut record = load(device)?;
    if record.installed.artifact_name.is_some() {
        return Ok(());
    }
    let installed = match source {
        None => Ok(()),
        Some(source) => bootstrap_provides(device.system, &mut record, source, limits),
    };
    // Refused or not there: the next start must find a name all the same.
    record.installed.artifact_name.get_or_insert_with(|| UNKNOWN_ARTIFACT.to_owned());
    record.save(device.state)?;
    installed
}

/// What [`bootstrap`] would record, for somebody who only looks.
///
/// # Errors
/// When the artifact is refused; the record is as it was then.
pub fn bootstrap_provides(
    system: &dyn System,
    record: &mut Record,
    source: Box<dyn Read + Send>,
    limits: &Limits,
) -> Result<(), DeployError> {
    let Artifact { header, mut payload, .. } =
        artifact::open(source, &Trust::DangerUnsigned, limits).map_err(InstallError::from)?;
    let found = match (&header.payload, header.scripts.is_empty()) {
        (Some(_), _) => Some("a payload"),
        (None, false) => Some("state scripts"),
        (None, true) => None,
    };
    if let Some(found) = found {
        return Err(DeployError::NotABootstrapArtifact { found });
    }
    check_depends(system, record, &header)?;
    drain_empty(&mut payload)?;
    log::info!("bootstrap artifact {}", header.artifact_name);
    settle_provides(record, &header);
    Ok(())
}

fn check_depends(system: &dyn System, record: &Record, header: &Header) -> Result<(), DeployError> {
    let device_type = system.device_type()?;
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
    let installed = record.installed.after_commit(
        header.artifact_name.as_str(),
        header.artifact_group.as_deref(),
        header.provides.as_ref(),
        header.clears_provides.as_deref(),
    );
    record.install(installed);
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
    Ok(Summary::of(Status::Committed, None))
}

/// Who takes a deployment up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// Whoever began it.
    AsOrdered,
    /// The daemon, whoever began it.
    Daemon,
}

/// Loads the deployment in progress.
fn take_up<'r>(
    device: &'r mut Device<'_>,
    options: &'r Options,
    taker: Taker,
) -> Result<(Run<'r>, Deployment), DeployError> {
    let record = load(device)?;
    let deployment = match record.deployment.clone() {
        // An interrupted download left nothing to go on with, but a server may wait to hear of it.
        Some(mut deployment) if deployment.stage != Stage::Download || deployment.id.is_some() => {
            deployment.transitions = deployment.transitions.saturating_add(1);
            deployment
        }
        Some(_) | None => {
            device.observer.notice(Notice::NothingInProgress);
            return Err(DeployError::NothingInProgress);
        }
    };
    let mut run = Run::new(device, record, deployment.clone(), options);
    if taker == Taker::Daemon {
        run.conduct = Conduct::Unattended;
    }
    // Killed before the header was read, or without a payload: there is none.
    if !deployment.payload_type.is_empty() {
        match run.reopen_handler() {
            Ok(()) => run.begun = true,
            Err(error) => run.without_handler(error)?,
        }
    }
    Ok((run, deployment))
}

/// Characters of a remark that are kept; servers take no more either.
const REMARK_CHARS: usize = 200;
/// What a deployment adds to the record later: the image, names of stages, `_INCONSISTENT`.
const RECORD_SPARE_BYTES: usize = 1024;

/// What only the process that downloads has.
enum Incoming<'i> {
    /// An artifact whose header was accepted already.
    Opened { header: &'i Header, payload: &'i mut PayloadReader },
    /// An artifact that is still to be asked for.
    Ordered { open: &'i mut Open<'i>, policy: &'i Policy },
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
    /// Where the handler comes from, until it is there.
    registry: Option<Registry<'r>>,
    handler: Option<Box<dyn PayloadHandler + 'r>>,
    /// The handler was called, now or by an earlier process: it may have left something behind.
    begun: bool,
    system: &'r dyn System,
    state: &'r mut dyn StateStore,
    scripts: &'r mut dyn ScriptRunner,
    observer: &'r mut dyn Observer,
    gates: &'r mut dyn Gatekeeper,
    reporter: &'r mut dyn Reporter,
    options: &'r Options,
    conduct: Conduct,
    record: Record,
    deployment: Deployment,
    /// The first thing that went wrong.
    error: Option<DeployError>,
    /// Stages this process went through, the last one last.
    passed: Vec<Stage>,
    stopped: bool,
    waiting: bool,
    rebooting: bool,
    interrupted: bool,
    cleanup_failed: bool,
    post_commit_failed: bool,
    /// The record is the last word: without it even a done deed is not finished.
    save_failed: bool,
    ended: Option<Unreported>,
    /// Closed: this process goes no further.
    held: Option<Held>,
    /// What a gate said that the server is to be told: with the next report, or with the last one.
    remark: Option<String>,
}

/// Keeps what a handler wants to find again in the record of its deployment.
struct Keeper<'k> {
    record: &'k mut Record,
    deployment: &'k mut Deployment,
    store: &'k mut dyn StateStore,
}

impl StateKeeper for Keeper<'_> {
    fn set(&mut self, state: HandlerState) {
        self.deployment.handler.set(state);
    }

    fn save(&mut self) -> Result<(), InstallError> {
        self.record.deployment = Some(self.deployment.clone());
        self.record.save(self.store).map_err(|error| InstallError::StateNotKept { source: Box::new(error) })
    }
}

impl<'r> Run<'r> {
    fn new(
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
            conduct: if deployment.id.is_some() { Conduct::Unattended } else { Conduct::Attended },
            record,
            deployment,
            error: None,
            passed: Vec::new(),
            stopped: false,
            waiting: false,
            rebooting: false,
            interrupted: false,
            cleanup_failed: false,
            post_commit_failed: false,
            save_failed: false,
            ended: None,
            held: None,
            remark: None,
        }
    }

    /// Finds the handler of the payload's type.
    fn open_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.begin(&self.deployment.payload_type)?;
        (self.deployment.handler, self.handler) = (recorded, Some(handler));
        Ok(())
    }

    /// The built-in handler for an image that an earlier deployment wrote, after it was read again.
    fn open_written(&mut self, image: WrittenImage) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let (recorded, handler) = registry.recognize(image, &mut self.observer)?;
        (self.deployment.handler, self.handler) = (recorded, Some(handler));
        self.begun = true;
        Ok(())
    }

    /// Finds the handler with which an earlier process began.
    fn reopen_handler(&mut self) -> Result<(), InstallError> {
        let registry = self.registry.take().ok_or(InstallError::NoHandler)?;
        let Deployment { payload_type, handler, .. } = &self.deployment;
        self.handler = Some(registry.reopen(payload_type, handler)?);
        Ok(())
    }

    /// Goes on without a handler where that is possible. Where it is not, the attempt counts: what cannot be opened for
    /// ever must not keep the device from other updates for ever.
    fn without_handler(&mut self, error: InstallError) -> Result<(), DeployError> {
        let not_needed = match self.deployment.stage {
            Stage::Download | Stage::AfterCommit | Stage::Failure | Stage::Cleanup => true,
            Stage::Install
            | Stage::Reboot
            | Stage::VerifyReboot
            | Stage::Commit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback => self.deployment.transitions > TRANSITIONS_MAX,
        };
        if not_needed {
            log::error!("{}: going on without a handler: {error}", self.deployment.artifact_name);
            return Ok(());
        }
        Err(self.counted(error.into()))
    }

    /// Saves that this process took the deployment up, and in vain. A person who tries sees why, and is not counted.
    fn counted(&mut self, error: DeployError) -> DeployError {
        if self.conduct == Conduct::Unattended {
            self.record.deployment = Some(self.deployment.clone());
            if let Err(error) = self.record.save(self.state) {
                log::error!("cannot save that the deployment was taken up in vain: {error}");
            }
        }
        error
    }

    /// Something in the stages it passes ends this process every time: no script and no module of it is called again.
    /// Only the bootloader is told to stay with the old software, or later deployments would find an open trial.
    fn break_the_loop(&mut self) {
        self.deployment.inconsistent = true;
        self.fail(DeployError::Loop);
        self.passed.push(Stage::Failure);
        let verdict = self.handler().and_then(|handler| handler.verdict());
        let mut new_software_runs = false;
        match verdict {
            Ok(Some(verdict @ (Verdict::Untouched | Verdict::Trial | Verdict::Reverting))) => {
                new_software_runs = verdict != Verdict::Untouched;
                if let Err(error) = self.handler().and_then(|handler| handler.roll_back()) {
                    log::error!("{}: the trial stays open: {error}", self.deployment.artifact_name);
                }
            }
            Ok(None | Some(Verdict::Committed | Verdict::FellBack | Verdict::Foreign)) => {}
            Err(error) => log::error!("cannot tell what boots next: {error}"),
        }
        self.handler = None;
        self.drive(Stage::Cleanup, None);
        if new_software_runs && self.conduct == Conduct::Unattended && !self.save_failed {
            // The record is settled; what runs is still what was given up.
            match self.system.reboot(&Restart::Plain) {
                Ok(()) => self.rebooting = true,
                Err(error) => log::error!("cannot restart into the old software: {error}"),
            }
        }
    }

    fn handler(&mut self) -> Result<&mut (dyn PayloadHandler + 'r), InstallError> {
        self.handler.as_deref_mut().ok_or(InstallError::NoHandler)
    }

    /// Where this deployment goes on, decided by the record and the boot environment together.
    fn position(&mut self) -> Result<Resume, DeployError> {
        let Deployment { stage, entered, .. } = self.deployment;
        // Only where it decides: going back must work with an environment that cannot be read.
        let verdict = match stage {
            Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit => {
                self.handler()?.verdict()?
            }
            Stage::Download
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup => None,
        };
        if let Some(verdict) = verdict {
            log::info!("{} found in {stage:?}: {verdict}", self.deployment.artifact_name);
        }
        Ok(stage::resume(stage, entered, verdict))
    }

    fn contradiction(&mut self) -> Result<DeployError, DeployError> {
        let verdict = self.handler()?.verdict()?.unwrap_or(Verdict::Foreign);
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
            if self.observer.stop_requested() {
                self.interrupted = true;
                // Of a download that has not begun there is nothing to remember.
                if stage != Stage::Download {
                    self.leave_waiting_before(stage);
                }
                return;
            }
            let passed = self.pass_gate(stage);
            if self.held.is_some() || self.interrupted {
                return;
            }
            self.observer.stage(stage);
            let mut outcome = match passed.and_then(|()| self.announce(stage)) {
                Ok(()) => self.perform(stage, incoming.take()),
                Err(outcome) => outcome,
            };
            if (stage, outcome) == (Stage::Install, Outcome::Done) {
                outcome = self.learn_reboot_need().unwrap_or_else(|error| {
                    self.fail(error);
                    self.judge_failure(stage)
                });
            }
            self.passed.push(stage);
            if self.save_failed || self.interrupted || self.rebooting {
                return;
            }
            if (stage, outcome) == (Stage::Rollback, Outcome::Failed) && !self.is_back() {
                // The trial may still be open. The record keeps saying so, and `resume` tries again.
                return;
            }
            upcoming = stage::next(stage, outcome);
            if (stage, outcome) == (Stage::Download, Outcome::Done) && self.handler.is_none() {
                // No payload: accepting the artifact was all there is to it.
                let installed = self.provides_after_commit();
                self.record.install(installed);
                upcoming = Some(Stage::Cleanup);
            }
            let following = upcoming.map_or("end".to_owned(), |stage| format!("{stage:?}"));
            log::info!("{}: {stage:?} {outcome:?}, {following} follows", self.deployment.artifact_name);
            if (stage, outcome, self.conduct) == (Stage::Install, Outcome::Done, Conduct::Attended) {
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

    /// Tells the server what comes, where a server ordered it. An error is how the stage ended before it began.
    fn announce(&mut self, stage: Stage) -> Result<(), Outcome> {
        let (Some(id), Some((report, importance))) = (self.deployment.id.clone(), stage.announces()) else {
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
                self.interrupted = true;
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
        match stage {
            Stage::Download | Stage::Install => Outcome::Aborted,
            Stage::Reboot
            | Stage::VerifyReboot
            | Stage::Commit
            | Stage::AfterCommit
            | Stage::Rollback
            | Stage::RollbackReboot
            | Stage::VerifyRollback
            | Stage::Failure
            | Stage::Cleanup => match self.judge_failure(stage) {
                Outcome::Failed => Outcome::Aborted,
                other @ (Outcome::Done
                | Outcome::DoneNeedsReboot
                | Outcome::FailedForGood
                | Outcome::Aborted) => other,
            },
        }
    }

    /// Asks whoever may hold the deployment up before `stage`. An error is how the stage ended before it began; with
    /// `held` set the deployment waits, and goes on where it is when it is taken up again.
    fn pass_gate(&mut self, stage: Stage) -> Result<(), Outcome> {
        let Some(gate) = Gate::before(stage).filter(|gate| self.gates.watches(*gate)) else { return Ok(()) };
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
            self.interrupted = true;
            return Ok(());
        }
        match (answer, id) {
            (Answer::Open { note }, _) => {
                log::info!(
                    "{artifact_name}: {gate} may go on{}",
                    note.iter().fold(String::new(), |_, n| format!(": {n}"))
                );
                self.remark = note;
                Ok(())
            }
            (Answer::Closed { reason, ask_again }, Some(id)) => {
                log::info!("{artifact_name}: waiting before {gate}: {reason}");
                let remark = format!("waiting before {gate}: {reason}");
                let told =
                    self.reporter.report(&id, Report::Waiting(gate), Some(&remark), Importance::BestEffort);
                if told == Reported::Aborted {
                    self.fail(DeployError::Aborted);
                    return Err(self.called_off_before(stage));
                }
                self.held = Some(Held { gate, reason, ask_again });
                Ok(())
            }
            (Answer::Closed { reason, .. } | Answer::Refused { reason }, _) => {
                let error = DeployError::Refused { gate, reason };
                log::error!("{artifact_name}: {error}");
                self.deployment.remark = Some(error.to_string().chars().take(REMARK_CHARS).collect());
                self.fail(error);
                Err(self.called_off_before(stage))
            }
        }
    }

    /// Saves that the deployment waits before `stage`, unless that is what the record says already.
    fn save_waiting(&mut self, stage: Stage) -> Result<(), DeployError> {
        let waits = |deployment: &Deployment| (deployment.stage, deployment.entered) == (stage, false);
        if self.record.deployment.as_ref().is_some_and(waits) {
            return Ok(());
        }
        self.save_position(stage, false)
    }

    /// Asks the handler whether a restart is needed; the daemon takes care of it, the command line only says so.
    fn learn_reboot_need(&mut self) -> Result<Outcome, DeployError> {
        let need = self.handler()?.needs_reboot()?;
        self.deployment.needs_reboot = need != RebootNeed::None;
        self.deployment.reboots_itself = need == RebootNeed::Custom;
        Ok(match self.conduct {
            Conduct::Unattended if self.deployment.needs_reboot => Outcome::DoneNeedsReboot,
            Conduct::Unattended | Conduct::Attended => Outcome::Done,
        })
    }

    /// One stage: scripts, deed, scripts.
    fn perform(&mut self, stage: Stage, incoming: Option<Incoming<'_>>) -> Outcome {
        match self.try_to(stage, incoming) {
            Ok(outcome) => outcome,
            // What was asked to stop has not failed. The record says where to go on.
            Err(error) if self.observer.stop_requested() => {
                log::info!("{}: {stage:?} interrupted: {error}", self.deployment.artifact_name);
                self.interrupted = true;
                if stage == Stage::Download {
                    self.forget_download();
                }
                Outcome::Failed
            }
            Err(error) => {
                log::error!("{}: {stage:?} failed: {error}", self.deployment.artifact_name);
                if stage == Stage::Download && is_changed_source(&error) && self.is_offered_again() {
                    self.deployment.offered_again = true;
                }
                self.fail(error);
                if let (Some(point), true) =
                    (stage.error_scripts(self.conduct), stage != Stage::VerifyRollback)
                {
                    self.run_error_scripts(point);
                }
                self.judge_failure(stage)
            }
        }
    }

    /// The server orders it again, and nothing of it is on the device: it simply has not happened.
    fn forget_download(&mut self) {
        self.record.deployment = None;
        if let Err(error) = self.record.save(self.state) {
            log::error!("cannot save that the download was interrupted: {error}");
        }
    }

    fn run_error_scripts(&mut self, point: ScriptPoint) {
        // What a script says to a failure changes nothing (specification 4.4).
        self.scripts.run(point, OnScriptFailure::RunTheRest).unwrap_or_else(|error| {
            log::warn!("ignored: {error}");
        });
    }

    /// What a failed stage means for the deployment.
    fn judge_failure(&mut self, stage: Stage) -> Outcome {
        match stage {
            Stage::Install | Stage::Reboot | Stage::VerifyReboot | Stage::Commit => {
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
            Stage::Download | Stage::RollbackReboot | Stage::VerifyRollback => Outcome::Failed,
        }
    }

    fn try_to(&mut self, stage: Stage, incoming: Option<Incoming<'_>>) -> Result<Outcome, DeployError> {
        match stage {
            Stage::Download => self.take_in(incoming),
            Stage::Install => {
                self.enter(stage)?; // intent before effect: a cut from here on is undone
                self.handler()?.install()?;
                self.leave(stage)?;
                Ok(Outcome::Done)
            }
            Stage::Reboot => {
                if self.deployment.reboots >= REBOOTS_MAX {
                    return Err(DeployError::TooManyReboots { limit: REBOOTS_MAX });
                }
                self.deployment.reboots += 1;
                self.enter(stage)?; // whoever comes after the restart must know what it was for
                if self.deployment.reboots_itself {
                    self.handler()?.reboot()?;
                } else {
                    let restart = self.handler()?.restart()?;
                    self.system.reboot(&restart)?;
                    self.rebooting = true;
                }
                Ok(Outcome::Done)
            }
            Stage::VerifyReboot => {
                self.enter(stage)?;
                self.handler()?.verify_reboot()?;
                self.leave(stage)?;
                Ok(Outcome::Done)
            }
            Stage::Commit => {
                self.enter(stage)?; // a cut from here on is decided by the boot environment
                self.scripts.check_root_scripts()?; // software that could not be updated again must not stay
                self.handler()?.commit()?; // the single commit point
                Ok(Outcome::Done)
            }
            Stage::AfterCommit => self.settle_commit().map(|()| Outcome::Done),
            Stage::Rollback => {
                // Going back must not depend on being able to write that down.
                self.go_on_without_record(stage);
                self.run_and_remember(stage.enter_scripts());
                let done = self.roll_back_payload();
                self.run_and_remember(stage.leave_scripts());
                done?;
                Ok(self.learn_reboot_need().unwrap_or_else(|error| {
                    self.remember_inconsistent(error);
                    Outcome::Done
                }))
            }
            Stage::RollbackReboot => Ok(self.reboot_back()),
            Stage::VerifyRollback => {
                self.go_on_without_record(stage);
                self.handler()?.verify_reboot_back()?;
                if !self.run_and_remember(stage.leave_scripts()) {
                    if let Some(point) = stage.error_scripts(self.conduct) {
                        self.run_error_scripts(point);
                    }
                }
                Ok(Outcome::Done)
            }
            Stage::Failure => {
                self.go_on_without_record(stage);
                self.run_and_remember(stage.enter_scripts());
                let done = self.handler().and_then(|handler| handler.fail());
                self.run_and_remember(stage.leave_scripts());
                done?;
                Ok(Outcome::Done)
            }
            Stage::Cleanup => self.end().map(|()| Outcome::Done),
        }
    }

    /// The download: everything up to a payload that is stored, durable and verified.
    fn take_in(&mut self, incoming: Option<Incoming<'_>>) -> Result<Outcome, DeployError> {
        let stage = Stage::Download;
        match incoming {
            None => return Err(InstallError::NothingWritten.into()),
            Some(Incoming::Opened { header, payload }) => {
                self.check_that_the_record_fits()?; // a commit that cannot be recorded must not be begun
                self.scripts.stage(&header.scripts)?;
                self.forget_other_slot();
                self.enter(stage)?; // who finds a half-written slot must know why
                self.download(header, payload)?;
            }
            Some(Incoming::Ordered { open, policy }) => {
                self.enter(stage)?; // scripts may ask for a later time, before the first byte is bought
                let source = open().map_err(DeployError::Source)?;
                let Artifact { header, mut payload, .. } =
                    artifact::open(source, &policy.trust, &policy.limits).map_err(InstallError::from)?;
                log::info!("artifact {} for {}", header.artifact_name, header.depends.device_type.join(", "));
                let device_type = self.system.device_type()?;
                self.record.installed.satisfies(&device_type, &header)?;
                self.deployment.learn(&header);
                self.check_that_the_record_fits()?;
                if self.deployment.payload_type.is_empty() {
                    drain_empty(&mut payload)?;
                    self.leave(stage)?;
                    return Ok(Outcome::Done);
                }
                self.open_handler()?;
                self.scripts.stage(&header.scripts)?;
                self.forget_other_slot();
                self.save_position(stage, true)?; // now with what has to clean up after it
                self.download(&header, &mut payload)?;
            }
        }
        self.leave(stage)?;
        // Only now has every byte of the artifact been verified.
        self.scripts.publish()?;
        Ok(Outcome::Done)
    }

    fn download(&mut self, header: &Header, payload: &mut PayloadReader) -> Result<(), InstallError> {
        self.begun = true;
        let device_type = self.system.device_type()?;
        let handler = self.handler.as_deref_mut().ok_or(InstallError::NoHandler)?;
        let installed = self.record.installed.clone();
        let mut keeper =
            Keeper { record: &mut self.record, deployment: &mut self.deployment, store: &mut *self.state };
        let current = Current {
            artifact_name: installed.name(),
            artifact_group: installed.artifact_group.as_deref(),
            device_type: &device_type,
        };
        handler.download(&mut Arriving { header, current, payload, state: &mut keeper }, &mut self.observer)
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
    fn reboot_back(&mut self) -> Outcome {
        let stage = Stage::RollbackReboot;
        if self.deployment.reboots_back >= REBOOTS_MAX {
            self.remember_inconsistent(DeployError::TooManyReboots { limit: REBOOTS_MAX });
            return Outcome::FailedForGood;
        }
        self.deployment.reboots_back += 1;
        self.go_on_without_record(stage);
        // Not again for a restart that is repeated because the first one did not help.
        if self.passed.last() != Some(&Stage::VerifyRollback) {
            self.run_and_remember(stage.enter_scripts());
        }
        if self.interrupted {
            return Outcome::Failed;
        }
        let begun = if self.deployment.reboots_itself {
            self.handler().and_then(|handler| handler.reboot_back())
        } else {
            self.system.reboot(&Restart::Plain).map(|()| self.rebooting = true).map_err(InstallError::from)
        };
        // Whether the old software is back is for the next stage to see.
        begun.map_or_else(
            |error| {
                log::error!("{}: {error}", self.deployment.artifact_name);
                Outcome::Failed
            },
            |()| Outcome::Done,
        )
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
        let can_fail = stage.scripts_can_fail_it(self.conduct);
        let on_failure = if can_fail { OnScriptFailure::Stop } else { OnScriptFailure::RunTheRest };
        point.map_or(Ok(()), |point| Ok(self.scripts.run(point, on_failure)?))
    }

    /// Runs scripts of a stage that goes on whatever they say. Whether they all succeeded.
    fn run_and_remember(&mut self, point: Option<ScriptPoint>) -> bool {
        let Some(Err(error)) = point.map(|point| self.scripts.run(point, OnScriptFailure::RunTheRest)) else {
            return true;
        };
        if self.observer.stop_requested() {
            // Ended because we are: the stage is gone through again.
            self.interrupted = true;
        } else {
            self.remember_inconsistent(error.into());
        }
        false
    }

    /// The way back did not go as it should: neither the old nor the new software can be vouched for.
    fn remember_inconsistent(&mut self, error: DeployError) {
        log::error!("{}: {error}", self.deployment.artifact_name);
        self.deployment.inconsistent = true;
        self.fail(error);
    }

    /// Refuses a deployment whose record would not fit into the store, now or with the new provides beside the old.
    fn check_that_the_record_fits(&mut self) -> Result<(), DeployError> {
        let mut now = self.record.clone();
        now.deployment = Some(self.deployment.clone());
        let mut end = self.record.clone();
        end.installed = self.provides_after_commit();
        let need_bytes = now.to_json()?.len().max(end.to_json()?.len()) + RECORD_SPARE_BYTES;
        let have_bytes = self.state.capacity_bytes();
        if need_bytes <= have_bytes {
            return Ok(());
        }
        if self.record.slots.is_empty() {
            return Err(DeployError::RecordTooSmall { need_bytes, have_bytes });
        }
        log::warn!(
            "forgetting what the slots hold, to make room in the record: there will be no way back to it"
        );
        self.record.slots.clear();
        self.check_that_the_record_fits()
    }

    /// Remembers what a slot holds, as far as there is room for it: a way back is worth less than the commit.
    fn remember_slot(&mut self, content: Option<SlotContent>) {
        let Some(content) = content else { return };
        let slot = content.image.slot;
        self.record.slots.insert(slot, content);
        let mut next = self.record.clone();
        next.deployment = Some(self.deployment.clone());
        let room = self.state.capacity_bytes().saturating_sub(RECORD_SPARE_BYTES);
        if next.to_json().map_or(true, |document| document.len() > room) {
            log::warn!(
                "what slot {slot} holds does not fit into the record: there will be no way back to it"
            );
            self.record.slots.remove(&slot);
        }
    }

    /// What the other slot holds is about to be overwritten.
    fn forget_other_slot(&mut self) {
        let overwritten = self.handler.as_deref().is_some_and(|handler| handler.overwrites_slot());
        if let (true, Ok(running)) = (overwritten, self.system.running_slot()) {
            self.record.slots.remove(&!running);
        }
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
            let installed = self.provides_after_commit();
            self.record.install(installed);
            let image = self.handler.as_deref().and_then(|handler| handler.image());
            let content = image.map(|image| self.deployment.slot_content(image));
            // They are in what is installed now; twice they might not fit.
            self.deployment.provides = None;
            self.deployment.clears_provides = None;
            self.remember_slot(content);
        }
        if let Err(error) = self.save_position(stage, true) {
            self.save_failed = true;
            return Err(error);
        }
        self.leave(stage).inspect_err(|_| {
            if self.observer.stop_requested() {
                return;
            }
            // The software is the new one, but not all of what belongs to it was done.
            let Record { installed, .. } = &self.record;
            self.record.installed = installed.inconsistent(installed.name(), None);
        })
    }

    /// The last stage: one save removes the deployment, says what is installed, and what the server is to be told.
    fn end(&mut self) -> Result<(), DeployError> {
        self.go_on_without_record(Stage::Cleanup);
        let cleaned = match self.handler.as_deref_mut().filter(|_| self.begun) {
            Some(handler) => handler.clean_up().map_err(DeployError::from),
            None => Ok(()),
        };
        // Ended because we are: the next process cleans up, and has the last word.
        if cleaned.is_err() && self.observer.stop_requested() {
            return cleaned;
        }
        let discarded = self.scripts.discard().map_err(DeployError::from);
        if self.deployment.inconsistent {
            self.record.installed = self
                .record
                .installed
                .inconsistent(&self.deployment.artifact_name, self.deployment.artifact_group.as_deref());
        }
        self.record.deployment = None;
        self.record.version = VERSION;
        let ended = self.deployment.id.clone().map(|id| Unreported {
            id,
            failed: self.deployment.failed,
            remark: self.deployment.remark.clone(),
        });
        let ended = ended.filter(|_| !self.deployment.offered_again);
        if let (true, Some(id)) = (self.deployment.offered_again, self.deployment.id.clone()) {
            let times = self.times_cut().saturating_add(1);
            log::warn!("the download was cut short ({times} of {CUT_DOWNLOADS_MAX} times): it begins again");
            self.record.cut_downloads = Some(CutDownloads { id, times });
        }
        self.record.unreported = ended.clone().or(self.record.unreported.take());
        let saved = self.record.save(self.state);
        // A success that is not written down may turn out otherwise: the next process decides.
        self.save_failed = saved.is_err() && !self.deployment.failed;
        self.ended = ended.filter(|_| !self.save_failed);
        saved?;
        cleaned.and(discarded)
    }

    /// Whether a download that was cut short is begun again: the server orders it again as long as it hears of no end. Not
    /// without end.
    fn is_offered_again(&self) -> bool {
        self.conduct == Conduct::Unattended && self.times_cut() < CUT_DOWNLOADS_MAX
    }

    /// How often the download of this deployment was cut short before this time.
    fn times_cut(&self) -> u32 {
        let cut = self.record.cut_downloads.as_ref();
        let cut = cut.filter(|cut| self.deployment.id.as_ref() == Some(&cut.id));
        cut.map_or(0, |cut| cut.times)
    }

    /// Saves the position in a stage that must be gone through whether it can be saved or not.
    fn go_on_without_record(&mut self, stage: Stage) {
        if let Err(error) = self.save_position(stage, true) {
            log::error!("going on without having saved {stage:?}: {error}");
        }
    }

    fn save_position(&mut self, stage: Stage, entered: bool) -> Result<(), DeployError> {
        if entered {
            self.deployment.transitions = self.deployment.transitions.saturating_add(1);
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
        self.handler().and_then(|handler| handler.supports_rollback()).unwrap_or_else(|error| {
            log::error!("cannot tell whether the payload can be rolled back, so it is not: {error}");
            false
        })
    }

    /// Whether a roll-back that failed has left nothing open: only its scripts failed, or no bootloader is concerned.
    fn is_back(&mut self) -> bool {
        match self.handler().and_then(|handler| handler.verdict()) {
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
    fn finish(self, command: Command) -> Summary {
        let was = |stage| self.passed.contains(&stage);
        let mut say = Vec::new();
        let installing = was(Stage::Install);
        let (status, success) = if self.save_failed {
            (Status::Inconsistent, false)
        } else if self.interrupted || (self.deployment.offered_again && was(Stage::Cleanup)) {
            (Status::Interrupted, false)
        } else if self.rebooting {
            (Status::Rebooting, true)
        } else if self.held.is_some() {
            (Status::Held, true)
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
