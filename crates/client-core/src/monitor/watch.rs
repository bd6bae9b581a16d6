//! Looks when it is time, and has the alerts until the server took them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::alert::Finding;
use super::{
    Alert, Book, Check, CheckState, Level, LogSource, Looker, Rules, Scan, Unseen, Watched, judgement,
};
use crate::clock::{Clock, between, utc, was_set};
use crate::state_store::{StateError, StateStore};

/// The first look comes within this time of the start.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// Share of an interval by which it may be longer or shorter.
const JITTER: u32 = 10;

/// What is watched, and what is known of it.
pub struct Watch {
    rules: Rules,
    looker: Box<dyn Looker>,
    store: Box<dyn StateStore>,
    clock: Arc<dyn Clock>,
    book: Book,
    /// The book is in the store as it is here, but for logs that were read on.
    is_kept: bool,
    /// That it cannot be kept was said.
    is_loss_told: bool,
    /// When the next look is due, on the monotonic clock.
    next_look: Duration,
    /// Looks in a row that found a check wrong, by its name.
    wrong: BTreeMap<String, u32>,
    /// When a line that is looked for came last, by the name of the check.
    heard: BTreeMap<String, Duration>,
    /// The server knows what is watched.
    checks_told: bool,
    /// The server refused several alerts at once: which of them, it says of one.
    one_by_one: bool,
}

impl Watch {
    /// Goes on with what is in `store`. Nothing is looked at yet.
    ///
    /// # Errors
    /// When the store cannot be read, or what is in it.
    pub fn open(
        rules: Rules,
        looker: Box<dyn Looker>,
        mut store: Box<dyn StateStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Watch, String> {
        let document = store.load().map_err(|error: StateError| error.to_string())?;
        let mut book = Book::from_json(&document)?;
        let now = clock.now();
        let is_kept = !book.keep_only(&rules.checks, &utc(clock.wall().as_secs()));
        // The time without such a line begins anew: how long this process was not there, nobody knows.
        let not_well = rules.checks.iter().filter(|check| book.level(&check.name) == Level::Critical);
        let heard = not_well.map(|check| (check.name.clone(), now)).collect();
        let first = between(&*clock, Duration::ZERO, FIRST_WITHIN.min(rules.interval));
        Ok(Watch {
            rules,
            looker,
            store,
            book,
            is_kept,
            is_loss_told: false,
            next_look: now.saturating_add(first),
            wrong: BTreeMap::new(),
            heard,
            checks_told: false,
            one_by_one: false,
            clock,
        })
    }

    /// How long nothing is looked at.
    pub fn next_in(&self, now: Duration) -> Duration {
        self.next_look.saturating_sub(now)
    }

    /// Looks at everything. What is different from before is kept, and then waits for the server.
    pub fn look(&mut self) {
        let jitter = self.rules.interval / JITTER;
        let wait = between(&*self.clock, self.rules.interval - jitter, self.rules.interval + jitter);
        self.next_look = self.clock.now().saturating_add(wait);
        let checks = std::mem::take(&mut self.rules.checks);
        for check in &checks {
            let found = self.find(check);
            // What is said by a program that was ended with this one is not so.
            if self.clock.stop_requested() {
                break;
            }
            let (finding, position) = found;
            let finding = finding.filter(|finding| self.counts(check, finding.level));
            self.is_kept &= !self.book.note(check, finding, self.clock.wall());
            if let Some(position) = position {
                self.book.read_up_to(&check.name, Some(position));
            }
        }
        self.rules.checks = checks;
        self.keep();
    }

    /// A deployment of the server came to its end.
    pub fn deployment_ended(&mut self, failed: bool) {
        self.is_kept &= !self.book.note_update(failed);
        self.keep();
    }

    /// How every check is, in the order of the configuration.
    pub fn states(&self) -> impl Iterator<Item = CheckState> {
        self.rules.checks.iter().map(|check| self.book.state(&check.name))
    }

    /// Whether there is something that the server has not heard.
    pub fn has_news(&self) -> bool {
        !self.checks_told || !self.book.alerts().is_empty()
    }

    /// What is watched, where the server has not heard it from this process.
    pub fn untold_checks(&self) -> Option<&[Check]> {
        (!self.checks_told).then_some(&self.rules.checks)
    }

    /// The server knows what is watched, or does not want to.
    pub fn checks_told(&mut self) {
        self.checks_told = true;
    }

    /// What to send next, the oldest first.
    pub fn next_alerts(&self) -> Vec<Alert> {
        let count = if self.one_by_one { 1 } else { usize::MAX };
        self.book.alerts().iter().take(count).cloned().collect()
    }

    /// The server took `count` alerts.
    pub fn taken(&mut self, count: usize) {
        self.remove(count);
    }

    /// The server will never take these alerts. Of several the one that is meant is found by sending them one by one.
    pub fn refused(&mut self, alerts: &[Alert]) {
        match alerts {
            [alert] => {
                log::warn!(
                    "check {}: the server refuses the alert of {}: it is dropped",
                    alert.name,
                    alert.at
                );
                self.remove(1);
            }
            [] | [_, ..] => self.one_by_one = true,
        }
    }

    fn remove(&mut self, count: usize) {
        self.book.remove_alerts(count);
        self.one_by_one &= !self.book.alerts().is_empty();
        self.is_kept = false;
        self.keep();
    }

    /// Whether a check that is found so has been so for long enough.
    fn counts(&mut self, check: &Check, level: Level) -> bool {
        match level {
            Level::Ok => {
                self.wrong.remove(&check.name);
                true
            }
            Level::Critical => {
                let looks = self.wrong.entry(check.name.clone()).or_default();
                *looks = looks.saturating_add(1);
                *looks >= check.looks
            }
        }
    }

    /// How `check` is, where that can be said, and up to where its log was read.
    fn find(&mut self, check: &Check) -> (Option<Finding>, Option<super::Position>) {
        let wall = self.clock.wall();
        let found = match &check.watched {
            Watched::Service { unit } => {
                self.looker.service(unit).map(|state| Some(judgement::service(unit, &state)))
            }
            Watched::Log { source, pattern, around, ok_after } => {
                let scan = Scan::new(pattern, *around);
                return match self.read_log(check, source, scan, *ok_after) {
                    Ok(found) => found,
                    Err(unseen) => (Some(judgement::unseen(&unseen)), None),
                };
            }
            Watched::Disk { path, used_percent } => {
                self.looker.used_percent(path).map(|used| Some(judgement::disk(path, used, *used_percent)))
            }
            Watched::Certificate { file, days_left } => self
                .looker
                .certificate_end(file)
                .map(|end| was_set(wall).then(|| judgement::certificate(file, end, *days_left, wall))),
            Watched::Reboots { most, within } => self.looker.boot_id().map(|id| {
                self.is_kept &= !self.book.note_start(&id, wall, self.clock.now());
                let starts = self.book.starts_within(*within, wall);
                was_set(wall).then(|| judgement::reboots(starts, *most, *within))
            }),
            Watched::Updates { failed } => Ok(Some(judgement::updates(self.book.failed_updates(), *failed))),
        };
        (found.unwrap_or_else(|unseen| Some(judgement::unseen(&unseen))), None)
    }

    fn read_log(
        &mut self,
        check: &Check,
        source: &LogSource,
        mut scan: Scan<'_>,
        ok_after: Duration,
    ) -> Result<(Option<Finding>, Option<super::Position>), Unseen> {
        let (name, now) = (&check.name, self.clock.now());
        let position = self.looker.log(name, source, self.book.position(name), &mut scan)?;
        let finding = match scan.finish() {
            Some(excerpt) => {
                self.heard.insert(name.clone(), now);
                Some(judgement::log(check.watched.subject(), excerpt))
            }
            None => {
                let quiet_for = self.heard.get(name).map(|heard| now.saturating_sub(*heard));
                let is_well = quiet_for.is_none_or(|quiet_for| quiet_for >= ok_after);
                is_well.then(|| judgement::quiet_log(check.watched.subject(), quiet_for.unwrap_or_default()))
            }
        };
        Ok((finding, position))
    }

    /// What is not kept may come twice, or never where the power goes. It is sent all the same: a full disk is worth an
    /// alert.
    fn keep(&mut self) {
        if self.is_kept {
            return;
        }
        match self.store.save(&self.book.to_json()) {
            Ok(()) => (self.is_kept, self.is_loss_told) = (true, false),
            Err(error) if !self.is_loss_told => {
                log::error!("the alerts cannot be kept: {error}");
                self.is_loss_told = true;
            }
            Err(_) => {}
        }
    }
}
