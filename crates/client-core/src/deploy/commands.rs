//! What is asked of a device, from the command line or by a server: one function for each. They look at the record, ask
//! [`plan`](super::plan) where to begin, and let [`Run`] act.
//!
//! ```text
//!  install:  open and verify ─ depends ─ Download ─ Install ─ (wait)
//!  commit:   Commit ─ AfterCommit ─ Cleanup
//!  rollback: Rollback ─ Failure ─ Cleanup
//!  back:     Install of what lies in the other slot ─ (wait)
//!  resume:   whatever the record and the boot environment together say
//! ```

use super::bootstrap::{check_depends, install_empty};
use super::device::Device;
use super::ending::Command;
use super::error::{DeployError, PolicyError};
use super::facts::{Conduct, Stage};
use super::id::DeploymentId;
use super::notice::{Notice, Observer};
use super::plan::{self, Because, CommitOrder, Entry, Order, Resumption};
use super::record::{Deployment, Record, RecordError, TRANSITIONS_MAX, Unreported, VERSION};
use super::run::{Incoming, Run};
use super::summary::{Status, Summary};
use crate::artifact::{self, Artifact, Limits, Supply, Trust};
use crate::boot::{self, BootError};
use crate::install::{Cost, InstallError};
use crate::slot::SlotError;

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
    pub(super) fn stops_before(&self, stage: Stage) -> bool {
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
    source: impl Into<Supply>,
    policy: &Policy,
    options: &Options,
) -> Result<Summary, DeployError> {
    let mut record = load(device)?;
    if let Err(error) = admit(&mut record) {
        device.observer.notice(Notice::SystemNotModified);
        return Err(error);
    }
    // Nothing is written before the header was verified: a refused artifact leaves no trace.
    let opened = artifact::open_supply(source.into(), &policy.trust, &policy.limits);
    let Artifact { header, mut payload, .. } = match opened {
        Ok(artifact) => artifact,
        Err(error) => return Ok(refused(device.observer, InstallError::from(error).into())),
    };
    device.observer.notice(Notice::Installing);
    log::info!("artifact {}: for {}", header.artifact_name, header.depends.device_type.join(", "));
    if let Err(error) = check_depends(device.system, &record, &header) {
        return Ok(refused(device.observer, error));
    }
    let Some(info) = &header.payload else {
        device.observer.notice(Notice::EmptyPayload);
        return install_empty(device, &mut record, &header, &mut payload)
            .or_else(|error| Ok(refused(device.observer, error)));
    };
    let mut deployment =
        Deployment::new(header.artifact_name.to_string(), Some(info.payload_type.to_string()));
    deployment.adopt_header(&header);
    let mut run = Run::new(device, record, deployment, options);
    if let Err(error) = run.open_handler() {
        return Ok(no_handler(run.world.observer, error));
    }
    run.to_tell.cost = Some(Cost { transfer_bytes: payload.stored_bytes(), ..Cost::default() });
    run.drive(plan::begin(Order::Install), Some(Incoming::Opened { header: &header, payload: &mut payload }));
    Ok(run.finish(Command::Install))
}

/// Nothing was begun, and the artifact is why.
fn refused(observer: &mut dyn Observer, error: DeployError) -> Summary {
    observer.notice(Notice::StreamingFailed);
    observer.notice(Notice::SystemNotModified);
    Summary::of(Status::NotModified, Some(error))
}

/// Nothing was begun, because nothing here handles the payload.
fn no_handler(observer: &mut dyn Observer, error: InstallError) -> Summary {
    let unknown =
        matches!(error, InstallError::UnknownPayloadType { .. } | InstallError::ModuleNotExecutable { .. });
    if !unknown {
        return refused(observer, error.into());
    }
    observer.notice(Notice::NoUpdateModule);
    Summary::of(Status::NotModified, Some(error.into()))
}

/// A deployment as a server orders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Its id.
    pub id: DeploymentId,
    /// The artifact's name as the server tells it, until the artifact itself does.
    pub artifact_name: String,
    /// The device types that the artifact is for as the server tells them; empty where it does not.
    pub device_types: Vec<String>,
}

/// Begins to read the artifact of an order.
pub type Open<'o> = dyn FnMut() -> std::io::Result<Supply> + 'o;

/// Deploys what a server ordered, up to the restart or to the end. Without a `policy` nothing can be trusted: the deployment
/// fails before a byte of the artifact is asked for, and the server hears why.
///
/// # Errors
/// When nothing was begun: the record cannot be read, or another deployment is in progress. Everything after that
/// is told by the summary.
pub fn deploy(
    device: &mut Device<'_>,
    order: &Ordered,
    open: &mut Open<'_>,
    policy: Result<Policy, PolicyError>,
) -> Result<Summary, DeployError> {
    let mut record = load(device)?;
    admit(&mut record)?;
    let mut deployment = Deployment::new(order.artifact_name.clone(), None);
    deployment.id = Some(order.id.to_string());
    let options = Options::default();
    let mut run = Run::new(device, record, deployment, &options);
    run.drive(plan::begin(Order::Install), Some(Incoming::Ordered { order, open, policy }));
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

/// Makes sure that no other deployment is in progress.
fn admit(record: &mut Record) -> Result<(), DeployError> {
    match &record.deployment {
        None => {}
        // Cut while downloading: nothing points at the half-written slot, and it will be written again.
        Some(left) if left.stage == Stage::Download => {
            log::warn!("{}: forgetting its interrupted download", left.label());
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
    let (mut run, deployment) = reopen(device, options, Taker::AsOrdered)?;
    let found = if deployment.stage.facts().may_commit { run.found()? } else { run.found_without_looking() };
    match plan::commit(found) {
        CommitOrder::WindUp => {
            // Nothing waits for a commit, and refusing it would leave the device where it is.
            go_on(&mut run)?;
            if run.history.has(Stage::Rollback) {
                run.fail(DeployError::CutShort { stage: deployment.stage });
            }
        }
        CommitOrder::Refused => {
            let lost = run.record.lost.is_some() && deployment.taken_over;
            return Err(if lost { DeployError::RecordLost } else { DeployError::CannotCommitHere });
        }
        CommitOrder::NotRestarted => return Err(DeployError::NotRestarted),
        CommitOrder::Contradiction => return Err(run.contradiction()?),
        CommitOrder::Enter(entry, because) => {
            match because {
                Because::CutShort(_) => run.fail(DeployError::Interrupted),
                Because::FellBack => run.fail(DeployError::FellBack),
                Because::ItIsNext
                | Because::WasGoingBack
                | Because::OfferedAgain
                | Because::Contradiction => {}
            }
            run.drive(entry, None);
        }
    }
    Ok(run.finish(Command::Commit))
}

/// Goes back to the old software.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::CannotRollBackHere`], or what keeps the record from being
/// read. Nothing has changed then.
pub fn roll_back(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, deployment) = reopen(device, options, Taker::AsOrdered)?;
    if !deployment.stage.may_roll_back(deployment.entered) {
        return Err(DeployError::CannotRollBackHere);
    }
    if !run.supports_rollback() {
        run.world.observer.notice(Notice::NoRollback);
        return Ok(run.summary(Status::Inconsistent, false));
    }
    run.deployment.failed = true;
    run.drive(plan::begin(Order::RollBack), None);
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
    admit(&mut record)?;
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
    run.drive(plan::begin(Order::TryOtherSlot), None);
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
    let (mut run, deployment) = reopen(device, &options, taker)?;
    if !deployment.taken_over {
        let waits = (deployment.stage, deployment.entered) == (Stage::Commit, false);
        let verdict = if waits { run.handler()?.verdict()? } else { None };
        if !plan::is_left_behind(deployment.stage, deployment.entered, verdict) {
            return Ok(None);
        }
    }
    log::warn!("{}: installed by hand and left behind: winding it up", deployment.label());
    run.deployment.taken_over = true;
    run.conduct = Conduct::Managed;
    go_on(&mut run)?;
    Ok(Some(run.finish(Command::Resume)))
}

/// Goes on with a deployment that was stopped or interrupted, wherever that was.
///
/// # Errors
/// [`DeployError::NothingInProgress`], [`DeployError::Contradiction`], or what keeps the record or the boot
/// environment from being read. Nothing has changed then.
pub fn resume(device: &mut Device<'_>, options: &Options) -> Result<Summary, DeployError> {
    let (mut run, _) = reopen(device, options, Taker::AsOrdered)?;
    go_on(&mut run)?;
    Ok(run.finish(Command::Resume))
}

/// Goes on with the deployment that was found in the record, wherever it was.
fn go_on(run: &mut Run<'_>) -> Result<(), DeployError> {
    let loops = run.deployment.transitions > TRANSITIONS_MAX;
    // A loop is broken whether what boots can be told or not.
    let found = if loops { Ok(run.found_without_looking()) } else { run.found() };
    match plan::resume(found.map_err(|error| run.persist_attempt(error))?) {
        Resumption::BreakTheLoop(entry) => run.break_the_loop(entry),
        Resumption::AwaitReboot => run.wait(),
        Resumption::Contradiction => return Err(run.contradiction()?),
        Resumption::GoBack { cut } => {
            run.fail(DeployError::CutShort { stage: cut });
            let entry = plan::way_back(run.supports_rollback());
            run.deployment.inconsistent |= entry.stage() != Stage::Rollback;
            run.drive(entry, None);
        }
        Resumption::Enter(entry, because) => enter_because(run, entry, because)?,
    }
    Ok(())
}

fn enter_because(run: &mut Run<'_>, entry: Entry, because: Because) -> Result<(), DeployError> {
    match because {
        Because::ItIsNext => {}
        Because::WasGoingBack => run.deployment.failed = true,
        Because::FellBack => {
            run.fail(DeployError::FellBack);
            run.world.observer.notice(Notice::CommittingFailed);
        }
        Because::OfferedAgain => {
            run.deployment.failed = true;
            run.deployment.offered_again = true;
        }
        Because::CutShort(stage) => {
            run.deployment.failed = true;
            if run.conduct == Conduct::Managed {
                run.fail(DeployError::CutShort { stage });
            }
        }
        // The server hears of it.
        Because::Contradiction => {
            let error = run.contradiction()?;
            run.remember_inconsistent(error);
        }
    }
    run.drive(entry, None);
    Ok(())
}

/// Who goes on with a deployment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// Whoever began it.
    AsOrdered,
    /// The daemon, whoever began it.
    Daemon,
}

/// Loads the deployment in progress.
fn reopen<'r>(
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
        run.conduct = Conduct::Managed;
    }
    // Killed before the header was read, or without a payload: there is none.
    if deployment.payload_type.is_some() {
        match run.reopen_handler() {
            Ok(()) => run.payload.begun = true,
            Err(error) => run.without_handler(error)?,
        }
    }
    Ok((run, deployment))
}
