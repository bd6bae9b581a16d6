//! Tells the log, the status socket, the service manager and whoever runs the service how far things are.

use std::sync::Arc;
use std::time::Duration;

use client_core::agent::Event;
use client_core::clock::Clock;
use client_core::deploy::gates::Gate;
use client_core::deploy::{Notice, Observer, Stage};
use client_core::install::{Account, Cost, Progress, WriteStatistics};

use crate::notify::{Notifier, Supervision, Watchdog};
use crate::status::StatusBoard;
use device::compose::Setup;

/// How long the service manager waits for a sign of life while nothing of a deployment is done: the inventory programs,
/// the checks (32 of 25 s at most) and the server have deadlines of their own.
const SYNC_ALLOWANCE: Duration = Duration::from_secs(900);
/// Time between two log lines about the progress of a payload.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What came of one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// How long nothing is to be done.
    pub next: Duration,
    /// What went wrong last, in the words of the log.
    pub error: Option<String>,
    /// A deployment came to its end: whether it failed.
    pub ended: Option<bool>,
    /// A deployment waits before this gate, for that reason.
    pub waiting: Option<(Gate, String)>,
    /// The restart of the device was asked for.
    pub restarting: bool,
}

/// Tells them.
pub(crate) struct Watcher {
    board: StatusBoard,
    clock: Arc<dyn Clock>,
    watchdog: Watchdog,
    notifier: Notifier,
    /// When the progress was logged last.
    told: Duration,
    /// Who else is told.
    other: Option<Box<dyn Observer>>,
    /// What came of the round so far.
    round: Round,
}

impl Watcher {
    pub(crate) fn new(
        board: StatusBoard,
        supervision: &Supervision,
        other: Option<Box<dyn Observer>>,
    ) -> Watcher {
        Watcher {
            board,
            clock: Arc::clone(&supervision.clock),
            watchdog: supervision.watchdog.clone(),
            notifier: supervision.notifier.clone(),
            told: Duration::ZERO,
            other,
            round: Round::default(),
        }
    }

    pub(crate) fn board(&self) -> &StatusBoard {
        &self.board
    }

    /// What came of the round so far; how long the next wait is, the agent says.
    pub(crate) fn round(&self) -> &Round {
        &self.round
    }

    /// Another round begins.
    pub(crate) fn forget_round(&mut self) {
        self.round = Round::default();
    }

    /// `scripts` is what a set of state scripts may take, `silence` the longest time without a sign of life that a
    /// deployment may take.
    pub(crate) fn tell(&mut self, event: &Event<'_>, scripts: Duration, silence: Duration) {
        let now = self.clock.now();
        let mut board = self.board.lock();
        match event {
            Event::Idle { next_check, .. } => {
                if !board.is_waiting() {
                    board.set_stage("idle");
                    board.clear_deployment();
                }
                board.set_next_check(now.saturating_add(*next_check));
                self.notifier.status(&format!("idle, next check in {} s", next_check.as_secs()));
            }
            Event::Scripts => self.watchdog.extend(scripts.saturating_add(SYNC_ALLOWANCE)),
            Event::Looking => self.watchdog.extend(SYNC_ALLOWANCE),
            Event::Syncing => {
                board.set_stage("sync");
            }
            Event::Server { url, authorized } => board.set_server(*url, *authorized),
            Event::Checked => {
                board.set_checked(now);
                board.count_check();
                board.set_cost(None);
                board.set_error(None);
                self.round.error = None;
            }
            Event::Deploying { id, artifact_name } => {
                board.set_deployment(id, Some(artifact_name).filter(|name| !name.is_empty()).copied());
                board.set_waiting(None);
                self.watchdog.extend(silence);
                self.notifier.status(&format!("deployment {id}: {artifact_name}"));
            }
            Event::Held { id, gate, reason } => {
                board.set_stage("waiting");
                board.set_waiting(Some((*gate, reason)));
                self.round.waiting = Some((*gate, (*reason).to_owned()));
                self.notifier.status(&format!("deployment {id} waits before {gate}: {reason}"));
            }
            Event::Ended { failed } => {
                board.set_error(failed.then_some("the last deployment failed"));
                board.clear_deployment();
                self.round.ended = Some(*failed);
            }
            Event::Restarting => self.round.restarting = true,
            Event::Failed { reason } => {
                board.count_check();
                board.set_error(Some(reason));
                self.round.error = Some((*reason).to_owned());
            }
            Event::Looked | _ => {}
        }
        drop(board);
        self.watchdog.alive();
    }

    fn progress(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        self.watchdog.alive();
        self.board.lock().set_progress(done_bytes, Some(total_bytes));
        let now = self.clock.now();
        if now.saturating_sub(self.told) >= PROGRESS_EVERY {
            self.told = now;
            log::info!("{what} {} of {} KiB", done_bytes / 1024, total_bytes / 1024);
        }
    }
}

impl Progress for Watcher {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress("verified and written", done_bytes, total_bytes);
        if let Some(other) = &mut self.other {
            other.written(done_bytes, total_bytes);
        }
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        self.progress("read back", done_bytes, total_bytes);
        if let Some(other) = &mut self.other {
            other.verified(done_bytes, total_bytes);
        }
    }

    fn will_cost(&mut self, cost: &Cost) {
        self.board.lock().set_cost(Some(*cost));
        if let Some(other) = &mut self.other {
            other.will_cost(cost);
        }
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        log::info!(
            "image of {} bytes: {} written, {} equal already",
            statistics.total_bytes,
            statistics.written_bytes,
            statistics.skipped_bytes
        );
    }
}

impl Observer for Watcher {
    fn notice(&mut self, notice: Notice) {
        log::debug!("{notice:?}");
        if let Some(other) = &mut self.other {
            other.notice(notice);
        }
    }

    fn stage(&mut self, stage: Stage) {
        self.board.lock().set_stage(&stage.to_string());
        self.watchdog.alive();
        if let Some(other) = &mut self.other {
            other.stage(stage);
        }
    }

    fn did_cost(&mut self, account: &Account) {
        self.board.lock().set_account(*account);
        if let Some(other) = &mut self.other {
            other.did_cost(account);
        }
    }

    fn stop_requested(&self) -> bool {
        self.clock.stop_requested() || self.other.as_ref().is_some_and(|other| other.stop_requested())
    }
}

/// Says on the board what the record has for people: whether it was lost, and how much was written to the slots.
pub(crate) fn show_record(setup: &Setup, board: &StatusBoard) {
    let (lost, wear) = match setup.read_record() {
        Ok(Some(record)) => {
            let wear = serde_json::to_value(&record.wear).ok().filter(|_| !record.wear.is_empty());
            (record.lost.map(|lost| lost.reason), wear)
        }
        Ok(None) => (None, None),
        Err(error) => (Some(error.to_string()), None),
    };
    let mut board = board.lock();
    board.set_record_lost(lost.as_deref());
    board.set_wear(wear);
}
