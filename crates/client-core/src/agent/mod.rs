//! The daemon's loop: wait, talk to the server, carry out what it orders, tell it how that went.
//!
//! It decides when what is done and performs nothing itself: the device, the server and time come in through seams, so
//! that the power-cut tests run this very loop. Whatever happens, it asks the server again.
//!
//! ```text
//!  start ─ settle ─► wait ─► inventory ─► wait ─► poll ─► (deployment ─► report) ─► wait ...
//! ```
//! Where something is watched, the waits are in pieces: between two of them it is looked at ([`crate::monitor`]).

mod failure;
mod host;
mod reporting;

pub use host::{Cause, Event, Host, HostError, Known};

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::failure::Failure;
use self::reporting::{Said, ServerReporter};
use crate::artifact::Supply;
use crate::clock::{Clock, Paused, Waiter, Wake};
use crate::deploy::record::{Record, Spent, Unreported};
use crate::deploy::scripts::{OnScriptFailure, ScriptAction, ScriptPoint, ScriptState};
use crate::deploy::{
    self, DeploymentId, Device, Held, Importance, Ordered, Report, Reported, Reporter, Status, Summary,
};
use crate::monitor::Watch;
use crate::schedule::{Due, Schedule};
use crate::server::{Backoff, Download, DownloadSettings, Offer, ReportAnswer, UpdateServer};

/// How long the restart may take that was asked for, before it is asked for again.
const REBOOT_PATIENCE: Duration = Duration::from_secs(600);
/// Checks that are put off for a report that the server does not take. After that it is asked all the same: a report
/// must not keep a device from its updates.
const UNDELIVERED_MAX: u32 = 10;
/// How soon the same error is logged again.
const REPORT_ERROR_EVERY: Duration = Duration::from_secs(600);
/// Errors that are remembered: what goes wrong at once is few things.
const REPORTED_ERRORS: usize = 4;
/// Questions, inventories and alerts of one round: the first of each, and those that follow from what a deployment changed.
const WORK_PER_ROUND: u32 = 6;
/// Attempts to upload the log of a failed deployment.
const LOG_ATTEMPTS: u32 = 3;

/// What does not change while the process runs.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// `RetryPollIntervalSeconds`.
    pub retry_interval: Duration,
    /// `RetryPollCount`.
    pub retry_count: u32,
    /// How patient downloads are.
    pub download: DownloadSettings,
}

/// What the agent knows from one round to the next.
pub struct Memory {
    schedule: Schedule,
    /// Of questions for an update, and of what follows from them.
    backoff: Backoff,
    /// Of the inventory: the two fail and succeed each for itself.
    inventory_backoff: Backoff,
    /// Of alerts, likewise.
    alerts_backoff: Backoff,
    /// The errors of late, and when each was logged.
    reported_errors: VecDeque<(String, Duration)>,
    /// A deployment is in progress that could not be gone on with.
    unsettled: bool,
    /// A deployment waits before a gate.
    held: bool,
    /// Checks put off because the end of the last deployment could not be reported.
    undelivered: u32,
    /// The last remark of a deployment that waits, and when it was taken.
    said: Arc<Mutex<Option<Said>>>,
    /// The device is being restarted: until then it is given the time for that.
    restart_until: Option<Duration>,
    /// A first round was made. The first inventory is due with it: whoever does the waiting has waited.
    has_begun: bool,
}

impl Memory {
    /// Nothing has been done yet.
    pub fn new(schedule: Schedule, settings: &AgentSettings) -> Memory {
        let backoff = Backoff::new(settings.retry_interval, settings.retry_count);
        let (inventory_backoff, alerts_backoff) = (backoff.clone(), backoff.clone());
        Memory {
            schedule,
            backoff,
            inventory_backoff,
            alerts_backoff,
            reported_errors: VecDeque::new(),
            unsettled: true,
            held: false,
            undelivered: 0,
            said: Arc::default(),
            restart_until: None,
            has_begun: false,
        }
    }
}

/// What is watched. Without the feature nothing is, and the linker leaves out how.
fn watched(host: &mut dyn Host) -> Option<&mut Watch> {
    if cfg!(feature = "monitor") { host.watch() } else { None }
}

/// The daemon.
pub struct Agent<'a> {
    host: &'a mut dyn Host,
    server: Arc<Mutex<dyn UpdateServer>>,
    clock: Arc<dyn Clock>,
    waiter: &'a mut dyn Waiter,
    settings: &'a AgentSettings,
    memory: &'a mut Memory,
}

impl<'a> Agent<'a> {
    /// Nothing is done yet. Another thread that has `server` locked holds up the agent.
    pub fn new(
        host: &'a mut dyn Host,
        server: Arc<Mutex<dyn UpdateServer>>,
        clock: Arc<dyn Clock>,
        waiter: &'a mut dyn Waiter,
        settings: &'a AgentSettings,
        memory: &'a mut Memory,
    ) -> Agent<'a> {
        Agent { host, server, clock, waiter, settings, memory }
    }

    /// Works until the process is asked to stop.
    pub fn run(&mut self) {
        loop {
            if self.memory.unsettled {
                self.settle();
            }
            if self.clock.stop_requested() {
                return;
            }
            let now = self.clock.now();
            self.host.tell(&Event::Idle {
                next_check: self.memory.schedule.next_update_in(now),
                next_inventory: self.memory.schedule.next_inventory_in(now),
            });
            // What an idle script says changes nothing (docs/spec/client-behaviour.md, "State scripts").
            self.run_ignored(ScriptState::Idle, ScriptAction::Enter);
            let wake = self.wait_and_look();
            if wake == Wake::Stop || self.clock.stop_requested() {
                return;
            }
            self.run_ignored(ScriptState::Idle, ScriptAction::Leave);
            match wake {
                Wake::CheckUpdate => self.memory.schedule.poll_now(),
                Wake::SendInventory => {
                    self.server().forget_sent_inventory();
                    self.memory.schedule.inventory_now();
                }
                Wake::Elapsed | Wake::Stop => {}
            }
            self.work_on(self.memory.schedule.due(self.clock.now()));
        }
    }

    /// Waits for something to do, and looks meanwhile at what is watched: that is no end of being idle.
    fn wait_and_look(&mut self) -> Wake {
        loop {
            self.look_if_due();
            let now = self.clock.now();
            let next = self.memory.schedule.next_in(now);
            let next_look = self.next_look_in(now).filter(|look| *look < next);
            let wake = self.waiter.wait(next_look.unwrap_or(next));
            if next_look.is_none() || wake != Wake::Elapsed || self.clock.stop_requested() {
                return wake;
            }
        }
    }

    fn next_look_in(&mut self, now: Duration) -> Option<Duration> {
        watched(self.host).map(|watch| watch.next_in(now))
    }

    fn look_if_due(&mut self) {
        if self.next_look_in(self.clock.now()) == Some(Duration::ZERO) {
            self.host.tell(&Event::Looking);
            if let Some(watch) = watched(self.host) {
                watch.look();
            }
            self.host.tell(&Event::Looked);
        }
        if watched(self.host).is_some_and(|watch| watch.has_news()) {
            self.memory.schedule.has_alerts();
        }
    }

    /// One round for whoever does the waiting: goes on with a deployment that an earlier round or process began, sends the
    /// inventory when that is due, asks the server for an update now, and carries out what it orders. Returns how long
    /// nothing is to be done.
    ///
    /// Give the agent a waiter that never waits. Where the device is being restarted it returns at once, and so do the rounds
    /// that come before the restart: the next one of use is that of the next process.
    pub fn round(&mut self) -> Duration {
        let now = self.clock.now();
        if let Some(until) = self.memory.restart_until.filter(|until| now < *until) {
            self.host.tell(&Event::Restarting);
            return until.saturating_sub(now);
        }
        self.memory.restart_until = None;
        self.run_ignored(ScriptState::Idle, ScriptAction::Leave);
        if !std::mem::replace(&mut self.memory.has_begun, true) {
            self.memory.schedule.inventory_now();
        }
        if self.memory.unsettled || self.memory.held {
            self.settle();
        }
        // A deployment that waits, or is tried again, has said when: a question in between would be about nothing else, and
        // what it leaves is the usual interval.
        if !self.memory.unsettled && !self.memory.held {
            self.memory.schedule.poll_now();
        }
        self.look_if_due();
        for _ in 0..WORK_PER_ROUND {
            let due = self.memory.schedule.due(self.clock.now());
            let is_put_off = self.memory.unsettled && due == Some(Due::Update);
            let restarts = self.memory.restart_until.is_some();
            if due.is_none() || is_put_off || restarts || self.clock.stop_requested() {
                break;
            }
            self.work_on(due);
        }
        if !self.clock.stop_requested() {
            self.run_ignored(ScriptState::Idle, ScriptAction::Enter);
        }
        let now = self.clock.now();
        let restart = self.memory.restart_until.map(|until| until.saturating_sub(now));
        restart.unwrap_or_else(|| self.memory.schedule.next_in(now))
    }

    fn work_on(&mut self, due: Option<Due>) {
        match due {
            Some(Due::Inventory) => self.send_inventory(),
            Some(Due::Update) => self.check(),
            Some(Due::Alerts) => self.send_alerts(),
            None => {}
        }
    }

    /// Goes on with a deployment that an earlier process began, and delivers a report it could not deliver.
    fn settle(&mut self) {
        (self.memory.unsettled, self.memory.held) = (false, false);
        let record = match self.record() {
            Ok(record) => record,
            Err(failure) => return self.try_again_later(&failure),
        };
        if let Some(deployment) = record.deployment.filter(|deployment| deployment.id.is_some()) {
            let id = deployment.id.unwrap_or_default();
            self.host.begin_log(&DeploymentId::remembered(id.as_str()));
            log::info!("deployment {id}: going on at {}", deployment.stage);
            self.host.tell(&Event::Deploying { id: &id, artifact_name: &deployment.artifact_name });
            let result = self.on_device(|device| deploy::resume(device, &deploy::Options::default()));
            self.take_result(&id, result);
        } else {
            if let Some(unreported) = record.unreported {
                self.host.begin_log(&DeploymentId::remembered(unreported.id.as_str()));
                // One attempt: every check makes another.
                self.deliver(&unreported, Importance::BestEffort);
                self.host.end_log();
            }
            self.take_over();
        }
    }

    /// Winds up what a person began and will not come back for: what the bootloader gave up, what was cut.
    fn take_over(&mut self) {
        match self.on_device(deploy::take_over) {
            Ok(None) => {}
            Ok(Some(summary)) => match (summary.status, &summary.error) {
                (Status::Interrupted, _) => {}
                (Status::Rebooting, _) => self.await_reboot(),
                (status, error) => {
                    log::warn!("an update by hand was wound up: {}", status.name());
                    if let Some(error) = error {
                        self.host.tell(&Event::Failed { reason: &error.to_string() });
                    }
                }
            },
            Err(failure) => self.try_again_later(&failure),
        }
    }

    fn send_inventory(&mut self) {
        let sent = self.sync(|agent| {
            let attributes = agent.host.inventory()?;
            Ok(agent.server().send_inventory(&attributes)?)
        });
        match sent {
            Ok(()) => {
                self.memory.inventory_backoff.reset();
                self.memory.reported_errors.clear();
                self.memory.schedule.after_success(Due::Inventory, &*self.clock);
            }
            Err(failure) => {
                self.try_again_after(Due::Inventory, &failure);
            }
        }
    }

    fn send_alerts(&mut self) {
        match self.sync(|agent| agent.tell_alerts()) {
            Ok(()) => {
                self.memory.alerts_backoff.reset();
                self.memory.schedule.has_no_alerts();
            }
            Err(failure) => {
                self.try_again_after(Due::Alerts, &failure);
            }
        }
    }

    /// Everything that waits, in its order. Ends: each answer makes it less, or makes what is sent at once less.
    fn tell_alerts(&mut self) -> Result<(), Failure> {
        let Some(watch) = watched(self.host) else { return Ok(()) };
        let mut server = lock(&self.server);
        if let Some(checks) = watch.untold_checks() {
            if server.send_checks(checks)? == ReportAnswer::Refused {
                log::warn!("the server does not want to know what is watched");
            }
            watch.checks_told();
        }
        loop {
            let alerts = watch.next_alerts();
            if alerts.is_empty() {
                return Ok(());
            }
            match server.send_alerts(&alerts)? {
                ReportAnswer::Accepted => watch.taken(alerts.len()),
                ReportAnswer::Aborted | ReportAnswer::Refused => watch.refused(&alerts),
            }
        }
    }

    fn check(&mut self) {
        let offered = self.sync(|agent| {
            let mut known = agent.known()?;
            if let Some(unreported) = known.record.unreported.take() {
                agent.host.begin_log(&DeploymentId::remembered(unreported.id.as_str()));
                agent.deliver(&unreported, Importance::BestEffort);
                agent.host.end_log();
                known = agent.known()?;
                if known.record.unreported.is_some() && agent.memory.undelivered < UNDELIVERED_MAX {
                    // A server that is asked by a device which provides something else now, in the middle of what it
                    // takes for a running deployment, calls that deployment failed (docs/spec/server-protocol.md, "Asking for an update").
                    agent.memory.undelivered += 1;
                    return Err(Failure::NotReported);
                }
                agent.memory.undelivered = 0;
            }
            if let Some(deployment) = &known.record.deployment {
                if deployment.id.is_some() || deployment.stage != deploy::Stage::Download {
                    // Also one that was begun by hand: a power cut or the bootloader may have decided about it.
                    agent.memory.unsettled = true;
                    if deployment.id.is_none() {
                        let name = &deployment.artifact_name;
                        log::warn!(
                            "artifact {name} was installed by hand and waits for `commit` or `rollback`"
                        );
                    }
                    return Ok(Polled::default());
                }
            }
            let Known { record, device_type } = known;
            let provides = provides(&record, &device_type?);
            let poll = agent.server().next(&provides)?;
            agent.host.tell(&Event::Checked);
            let ordered = poll.offer.map(|offer| (offer, provides, record));
            Ok(Polled { ordered, ask_again_in: poll.ask_again_in })
        });
        match offered {
            Ok(Polled { ordered, ask_again_in }) => {
                self.memory.backoff.reset();
                self.memory.schedule.after_success(Due::Update, &*self.clock);
                if let Some(wait) = ask_again_in {
                    self.memory.schedule.put_off(Due::Update, &*self.clock, wait);
                }
                // It may have accepted the device.
                self.memory.schedule.retry_what_failed();
                if !self.memory.schedule.is_owed(Due::Inventory) {
                    self.memory.reported_errors.clear();
                }
                if let Some((offer, provides, record)) = ordered {
                    self.deploy(&offer, &provides, record);
                }
            }
            Err(failure) => {
                self.try_again_after(Due::Update, &failure);
            }
        }
    }

    /// Carries out what the server offers.
    fn deploy(&mut self, offer: &Offer, provides: &BTreeMap<String, String>, record: Record) {
        if let Some(known) = record.unreported.filter(|unreported| unreported.id == offer.id.as_str()) {
            // Done already; only the server has not heard of it.
            log::info!("deployment {}: it is over: reporting that again", known.id);
            self.deliver(&known, Importance::Mandatory);
            return;
        }
        self.host.begin_log(&offer.id);
        let artifact_name = offer.artifact_name.clone().unwrap_or_default();
        self.host.tell(&Event::Deploying { id: offer.id.as_str(), artifact_name: &artifact_name });
        let order = Ordered { id: offer.id.clone(), artifact_name, device_types: offer.device_types.clone() };
        let spent_bytes =
            record.spent.filter(|spent| spent.id == offer.id.as_str()).map_or(0, |spent| spent.bytes);
        let result = self.download_and_deploy(&order, offer, provides, spent_bytes);
        if matches!(&result, Ok(Summary { status: Status::Interrupted, .. })) && !self.clock.stop_requested()
        {
            // What is offered became another thing in the middle: it is begun again, and not at the next usual time.
            self.try_again(Due::Update);
        }
        self.take_result(offer.id.as_str(), result);
    }

    fn download_and_deploy(
        &mut self,
        order: &Ordered,
        offer: &Offer,
        provides: &BTreeMap<String, String>,
        spent_bytes: u64,
    ) -> Result<Summary, Failure> {
        let policy = self.host.policy();
        let mut transport = Some(self.host.download_transport());
        let (server, clock, mut settings) =
            (Arc::clone(&self.server), Arc::clone(&self.clock), self.settings.download.clone());
        settings.budget_bytes = settings.budget_bytes.map(|budget| budget.saturating_sub(spent_bytes));
        let mut transfer = None;
        let mut open = || {
            let transport = transport.take().ok_or_else(|| std::io::Error::other("opened twice"))?;
            let download = Download::of_offer(
                offer,
                provides,
                Arc::clone(&server),
                transport,
                Arc::clone(&clock),
                settings.clone(),
            )
            .map_err(std::io::Error::other)?;
            transfer = Some((download.statistics(), download.cancel_token()));
            Ok(Supply::Places(download.into_places()))
        };
        let result = self.on_device(|device| deploy::deploy(device, order, &mut open, policy));
        let received_bytes = transfer.map_or(0, |(statistics, cancel_token)| {
            // The thread that reads ahead may still be at it. It would ask the server about a deployment that is over.
            cancel_token.cancel();
            statistics.received()
        });
        if matches!(&result, Ok(Summary { status: Status::Interrupted, .. })) && received_bytes > 0 {
            self.remember_spent(order.id.as_str(), spent_bytes.saturating_add(received_bytes));
        }
        result
    }

    /// The next process begins the download anew, but not its budget.
    fn remember_spent(&mut self, id: &str, bytes: u64) {
        if self.settings.download.budget_bytes.is_none() {
            return;
        }
        let saved = self.on_device(|device| {
            let mut record = Record::load(device.state)?;
            record.spent = Some(Spent { id: id.to_owned(), bytes });
            record.save(device.state)
        });
        if let Err(failure) = saved {
            self.report_error(&failure.to_string());
        }
    }

    /// What follows from how a deployment went.
    fn take_result(&mut self, id: &str, result: Result<Summary, Failure>) {
        match result {
            Ok(summary) => {
                match (summary.status, summary.ended) {
                    (Status::Interrupted, _) => {}
                    (Status::Held, _) => self.wait_before_gate(id, summary.held),
                    (Status::Rebooting, _) => {
                        log::info!("deployment {id}: waiting for the restart");
                        self.host.end_log();
                        return self.await_reboot();
                    }
                    (_, Some(ended)) => {
                        log::info!("deployment {id}: {}", if ended.failed { "failed" } else { "succeeded" });
                        self.host.tell(&Event::Ended { failed: ended.failed });
                        if let Some(watch) = watched(self.host) {
                            watch.deployment_ended(ended.failed);
                        }
                        self.deliver(&ended, Importance::Mandatory);
                        // What is installed may have changed.
                        self.memory.schedule.inventory_now();
                    }
                    // It could not come to its end: it is gone on with after the next wait.
                    (_, None) => self.try_again_later(&format_args!("deployment {id}: it is not over yet")),
                }
            }
            Err(failure) => self.try_again_later(&format_args!("deployment {id}: {failure}")),
        }
        self.host.end_log();
    }

    /// Comes back to a deployment that waits before a gate.
    fn wait_before_gate(&mut self, id: &str, held: Option<Held>) {
        let Some(Held { gate, reason, ask_again }) = held else { return };
        self.host.tell(&Event::Held { id, gate, reason: &reason });
        self.memory.held = true;
        self.memory.backoff.reset();
        self.memory.schedule.after_failure(Due::Update, &*self.clock, ask_again);
    }

    fn try_again_later(&mut self, reason: &dyn fmt::Display) {
        self.report_error(&reason.to_string());
        self.memory.unsettled = true;
        self.try_again(Due::Update);
    }

    /// When the server says, if it does.
    fn try_again_after(&mut self, due: Due, failure: &Failure) {
        if !self.clock.stop_requested() {
            self.report_error(&failure.to_string());
        }
        match failure.retry_after() {
            Some(wait) => self.memory.schedule.put_off(due, &*self.clock, wait),
            None => self.try_again(due),
        }
    }

    /// Later every time; when the attempts are used up, the usual interval is the wait (docs/spec/server-protocol.md,
    /// "Waiting").
    fn try_again(&mut self, due: Due) {
        let clock = Arc::clone(&self.clock);
        match self.backoff_of(due).next(&*clock) {
            Some(wait) => self.memory.schedule.after_failure(due, &*clock, wait),
            None => {
                self.backoff_of(due).reset();
                self.memory.schedule.after_too_many_failures(due, &*clock);
            }
        }
    }

    /// The restart was asked for: this process is about to be ended. If it is not, the deployment is gone on with.
    fn await_reboot(&mut self) {
        self.host.tell(&Event::Restarting);
        self.memory.unsettled = true;
        self.memory.restart_until = Some(self.clock.now().saturating_add(REBOOT_PATIENCE));
        loop {
            match self.waiter.wait(REBOOT_PATIENCE) {
                Wake::Stop => return,
                Wake::CheckUpdate | Wake::SendInventory => {}
                Wake::Elapsed => break,
            }
        }
        self.report_error("the restart did not happen");
    }

    /// Tells the server how a deployment ended, with its log if it failed.
    fn deliver(&mut self, unreported: &Unreported, importance: Importance) {
        let Unreported { id, failed, remark } = unreported;
        let report = if *failed { Report::Failed } else { Report::Succeeded };
        let answer = self.reporter().report(id, report, remark.as_deref(), importance);
        match answer {
            Reported::NoAnswer => {
                log::warn!("deployment {id}: the server does not know yet that it has {}", report.name());
                return;
            }
            Reported::Accepted if *failed => self.upload_log(&DeploymentId::remembered(id.as_str())),
            Reported::Accepted => {}
            // Nothing that it would listen to.
            Reported::Aborted => log::info!("deployment {id}: the server has given it up"),
        }
        let forgotten = self.on_device(|device| {
            let mut record = Record::load(device.state)?;
            if record.unreported.as_ref().is_some_and(|unreported| &unreported.id == id) {
                record.unreported = None;
                record.spent = None;
                record.cut_downloads = None;
                record.save(device.state)?;
            }
            Ok::<(), deploy::record::RecordError>(())
        });
        if let Err(failure) = forgotten {
            // It is reported once more, with the same words.
            self.report_error(&failure.to_string());
        }
    }

    fn upload_log(&mut self, id: &DeploymentId) {
        let messages = self.host.log_messages(id);
        if messages.is_empty() {
            return;
        }
        let mut backoff = Backoff::new(self.settings.retry_interval, LOG_ATTEMPTS);
        loop {
            let error = match self.server().upload_log(id, &messages) {
                Ok(ReportAnswer::Accepted) => return,
                Ok(ReportAnswer::Aborted | ReportAnswer::Refused) => {
                    return log::warn!("deployment {id}: the server does not take its log");
                }
                Err(error) => error,
            };
            log::warn!("deployment {id}: the log could not be uploaded: {error}");
            match backoff.next(&*self.clock) {
                Some(wait) if self.clock.pause(wait) == Paused::Elapsed => {}
                Some(_) | None => return,
            }
        }
    }

    /// Work with the server between its scripts.
    fn sync<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        self.host.tell(&Event::Syncing);
        let done = self
            .run_scripts(ScriptState::Sync, ScriptAction::Enter)
            .and_then(|()| work(self))
            .and_then(|value| self.run_scripts(ScriptState::Sync, ScriptAction::Leave).map(|()| value));
        {
            let server = lock(&self.server);
            self.host.tell(&Event::Server { url: server.server(), authorized: server.is_authorized() });
        }
        if done.is_err() && !self.clock.stop_requested() {
            self.run_ignored(ScriptState::Sync, ScriptAction::Error);
        }
        done
    }

    fn run_scripts(&mut self, state: ScriptState, action: ScriptAction) -> Result<(), Failure> {
        self.host.tell(&Event::Scripts);
        Ok(self.host.scripts().run(ScriptPoint { state, action }, OnScriptFailure::Stop)?)
    }

    fn run_ignored(&mut self, state: ScriptState, action: ScriptAction) {
        self.host.tell(&Event::Scripts);
        let ran = self.host.scripts().run(ScriptPoint { state, action }, OnScriptFailure::RunTheRest);
        if let Err(error) = ran {
            log::warn!("ignored: {error}");
        }
    }

    fn backoff_of(&mut self, due: Due) -> &mut Backoff {
        match due {
            Due::Inventory => &mut self.memory.inventory_backoff,
            Due::Update => &mut self.memory.backoff,
            Due::Alerts => &mut self.memory.alerts_backoff,
        }
    }

    /// Says what went wrong. The same again and again is one line in ten minutes: a log is small.
    fn report_error(&mut self, reason: &str) {
        let now = self.clock.now();
        self.memory.reported_errors.retain(|(_, at)| now.saturating_sub(*at) < REPORT_ERROR_EVERY);
        if self.memory.reported_errors.iter().any(|(said, _)| said == reason) {
            log::debug!("{reason}");
        } else {
            log::error!("{reason}");
            self.memory.reported_errors.truncate(REPORTED_ERRORS - 1);
            self.memory.reported_errors.push_front((reason.to_owned(), now));
        }
        self.host.tell(&Event::Failed { reason });
    }

    fn server(&self) -> MutexGuard<'_, dyn UpdateServer + 'static> {
        lock(&self.server)
    }

    fn reporter(&self) -> ServerReporter {
        ServerReporter {
            server: Arc::clone(&self.server),
            clock: Arc::clone(&self.clock),
            retry_interval: self.settings.retry_interval,
            retry_count: self.settings.retry_count,
            said: Arc::clone(&self.memory.said),
        }
    }

    fn record(&mut self) -> Result<Record, Failure> {
        self.on_device(deploy::load)
    }

    /// What a question to the server has to know. Where nothing is in progress the device is only looked at.
    fn known(&mut self) -> Result<Known, Failure> {
        match self.host.look()?.filter(|known| nothing_is_in_progress(&known.record)) {
            Some(known) => Ok(known),
            None => self.on_device(|device| {
                let device_type = device.system.device_type();
                deploy::load(device).map(|record| Known { record, device_type })
            }),
        }
    }

    fn on_device<T, E: Into<Failure>>(
        &mut self,
        work: impl FnOnce(&mut Device<'_>) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let (mut work, mut result) = (Some(work), None);
        self.host.with_device(&mut self.reporter(), &mut |device| {
            if let Some(work) = work.take() {
                result = Some(work(device).map_err(E::into));
            }
        })?;
        result.unwrap_or_else(|| Err(HostError::Device("the device was not opened".into()).into()))
    }
}

/// Whether nothing has to be gone on with, told or settled: what would have to be durable before it is acted on.
fn nothing_is_in_progress(record: &Record) -> bool {
    let is_settled = record.lost.as_ref().is_none_or(|lost| lost.settled);
    record.deployment.is_none() && record.unreported.is_none() && is_settled
}

/// Everything the device provides, as the server wants to know it.
fn provides(record: &Record, device_type: &str) -> BTreeMap<String, String> {
    let installed = record.installed.all().into_iter();
    installed
        .chain([("device_type", device_type)])
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What a question for an update came to.
#[derive(Default)]
struct Polled {
    /// What is to be installed, with what the server was told that the device provides, and the record.
    ordered: Option<(Offer, BTreeMap<String, String>, Record)>,
    /// When the server wants to be asked again.
    ask_again_in: Option<Duration>,
}

/// A panic of another thread leaves nothing half done in here: calls begin with the token and end with an answer.
fn lock<'a>(server: &'a Mutex<dyn UpdateServer + 'static>) -> MutexGuard<'a, dyn UpdateServer + 'static> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}
