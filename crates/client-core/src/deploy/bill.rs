//! What a download costs, for the log, the gates, the status and the server, besides whoever watches it.

use super::notice::Observer;
use crate::install::{Account, Cost, Progress, WriteStatistics};

/// Adds up while a payload is taken in.
pub(super) struct Bill<'b> {
    label: String,
    observer: &'b mut dyn Observer,
    cost: Option<Cost>,
    account: Account,
}

impl<'b> Bill<'b> {
    /// Nothing has been transferred yet. `label` is how lines of the log begin.
    pub(super) fn new(label: String, observer: &'b mut dyn Observer) -> Bill<'b> {
        Bill { label, observer, cost: None, account: Account::default() }
    }

    /// The end, with all that was transferred.
    pub(super) fn settle(self, bought_bytes: Option<u64>) -> (Option<Cost>, Option<Account>) {
        let account = Account { bought_bytes, ..self.account };
        log::info!("{}: cost in {account}", self.label);
        self.observer.did_cost(&account);
        (self.cost, Some(account))
    }
}

impl Progress for Bill<'_> {
    fn written(&mut self, done_bytes: u64, total_bytes: u64) {
        self.observer.written(done_bytes, total_bytes);
    }

    fn verified(&mut self, done_bytes: u64, total_bytes: u64) {
        self.observer.verified(done_bytes, total_bytes);
    }

    fn will_cost(&mut self, cost: &Cost) {
        log::info!("{}: cost ahead in {cost}", self.label);
        self.cost = Some(*cost);
        self.observer.will_cost(cost);
    }

    fn reused(&mut self, bytes: u64) {
        self.account.reused_bytes = self.account.reused_bytes.saturating_add(bytes);
        self.observer.reused(bytes);
    }

    fn finished(&mut self, statistics: &WriteStatistics) {
        self.account.written_bytes = Some(statistics.written_bytes);
        self.account.skipped_bytes = Some(statistics.skipped_bytes);
        self.observer.finished(statistics);
    }
}
