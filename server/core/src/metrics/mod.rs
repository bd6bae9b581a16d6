//! Numbers about the server for whoever watches it: counted while it works, and written in the text format of Prometheus
//! when they are asked for.
//!
//! Everything is counted in atomics whose number is known when the program is built, so counting allocates nothing, takes no
//! lock, and no client can make another series.

mod class;
mod process;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use class::{CLASSES, Class, Share};
pub(crate) use process::Process;
pub(crate) use text::Text;

use crate::store::{Committed, Watch};

/// Upper bounds of the classes of times, in microseconds. A poll takes less than the first, a commit about the middle ones.
const BOUNDS: [u64; 13] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000];
/// Upper bounds of how many jobs a transaction had.
const JOBS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096];
/// Codes of answers that are told apart, from 100 on.
const STATUSES: usize = 500;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// `count` more.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that are there now.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// One more, until what comes back is dropped: whoever waits may be given up in the middle.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }

    /// It is this now.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that is counted in a [`Gauge`] as long as it is there.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Gauge>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many values there were up to each bound.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    /// Values of each class alone; those above the last bound are in `above`.
    classes: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [u64; N]) -> Histogram<N> {
        Histogram {
            bounds,
            classes: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    /// One more value.
    pub(crate) fn add(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.classes.get(at).unwrap_or(&self.above).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Each bound with how many values there were up to it, how many in all, and their sum.
    fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut count = 0;
        let up_to = self.bounds.iter().zip(&self.classes).map(|(bound, class)| {
            count += class.load(Ordering::Relaxed);
            (*bound, count)
        });
        let up_to: Vec<_> = up_to.collect();
        (up_to, count + self.above.load(Ordering::Relaxed), self.sum.load(Ordering::Relaxed))
    }
}

/// Why a request was turned away before anything was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Too many of its class are being answered.
    Busy,
    /// The server is late with what it has begun.
    Late,
    /// The device asks too often.
    Device,
    /// The address asks too often.
    Address,
}

const REFUSALS: [Refusal; 4] = [Refusal::Busy, Refusal::Late, Refusal::Device, Refusal::Address];

impl Refusal {
    fn name(self) -> &'static str {
        match self {
            Refusal::Busy => "busy",
            Refusal::Late => "late",
            Refusal::Device => "device",
            Refusal::Address => "address",
        }
    }
}

/// What one class of requests has come to.
#[derive(Debug)]
struct OfClass {
    /// By code, from 100 on.
    answers: Box<[Counter]>,
    times: Histogram<{ BOUNDS.len() }>,
    refused: [Counter; REFUSALS.len()],
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    classes: Box<[OfClass]>,
    /// Polls that were answered with an update.
    pub(crate) polls_with_work: Counter,
    /// Polls that were answered with nothing to do.
    pub(crate) polls_without: Counter,
    /// Bytes of artifacts that were sent.
    pub(crate) downloaded: Counter,
    /// Alerts of devices that were kept.
    pub(crate) alerts: Counter,
    /// Alerts that were not kept: their device has sent too many that day.
    pub(crate) alerts_dropped: Counter,
    /// Events that arrived at a webhook.
    pub(crate) webhooks_told: Counter,
    /// Events that a webhook did not want.
    pub(crate) webhooks_refused: Counter,
    /// Tries that did not arrive, and are made again.
    pub(crate) webhooks_failed: Counter,
    /// Mails that a server has taken.
    pub(crate) mails_sent: Counter,
    /// Mails that it did not want.
    pub(crate) mails_refused: Counter,
    /// Mails that were not sent, and are tried again.
    pub(crate) mails_failed: Counter,
    /// Events that the webhook that is furthest behind has not been told.
    pub(crate) webhook_events_waiting: Gauge,
    /// Connections that are open.
    pub(crate) connections: Arc<Gauge>,
    /// Changes that wait until they are durable.
    pub(crate) changes: Arc<Gauge>,
    /// Changes that could not be stored.
    pub(crate) changes_failed: Counter,
    change_times: Histogram<{ BOUNDS.len() }>,
    commit_times: Histogram<{ BOUNDS.len() }>,
    commit_jobs: Histogram<{ JOBS.len() }>,
    /// How late the server was lately with what it wanted to do, in milliseconds.
    pub(crate) late: Gauge,
    /// Seconds since 1970 at which the certificate ends; 0 without one.
    pub(crate) certificate_ends: Gauge,
    /// Certificates that were read anew.
    pub(crate) certificates_read: Counter,
    /// Certificates that could not be used.
    pub(crate) certificates_refused: Counter,
    /// Events that were taken away because they were old.
    pub(crate) forgotten: Arc<Counter>,
    /// Deltas that were made and kept.
    pub(crate) deltas_made: Counter,
    /// Deltas that were begun and will not be there.
    pub(crate) deltas_failed: Counter,
    /// How long they took, all together.
    pub(crate) delta_milliseconds: Counter,
    /// Bytes of those that were kept.
    pub(crate) delta_bytes: Counter,
    /// Bytes of the full artifacts in whose place they are.
    pub(crate) delta_full_bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let of_class = || OfClass {
            answers: (0..STATUSES).map(|_| Counter::default()).collect(),
            times: Histogram::new(&BOUNDS),
            refused: Default::default(),
        };
        Metrics {
            classes: CLASSES.iter().map(|_| of_class()).collect(),
            polls_with_work: Counter::default(),
            polls_without: Counter::default(),
            downloaded: Counter::default(),
            alerts: Counter::default(),
            alerts_dropped: Counter::default(),
            webhooks_told: Counter::default(),
            webhooks_refused: Counter::default(),
            webhooks_failed: Counter::default(),
            mails_sent: Counter::default(),
            mails_refused: Counter::default(),
            mails_failed: Counter::default(),
            webhook_events_waiting: Gauge::default(),
            connections: Arc::default(),
            changes: Arc::default(),
            changes_failed: Counter::default(),
            change_times: Histogram::new(&BOUNDS),
            commit_times: Histogram::new(&BOUNDS),
            commit_jobs: Histogram::new(&JOBS),
            late: Gauge::default(),
            certificate_ends: Gauge::default(),
            certificates_read: Counter::default(),
            certificates_refused: Counter::default(),
            forgotten: Arc::default(),
            deltas_made: Counter::default(),
            deltas_failed: Counter::default(),
            delta_milliseconds: Counter::default(),
            delta_bytes: Counter::default(),
            delta_full_bytes: Counter::default(),
        }
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Metrics {
    fn of(&self, class: Class) -> Option<&OfClass> {
        self.classes.get(class as usize)
    }

    /// A request was answered.
    pub(crate) fn answered(&self, class: Class, status: u16, took: Duration) {
        let Some(of) = self.of(class) else { return };
        if let Some(counter) = usize::from(status).checked_sub(100).and_then(|at| of.answers.get(at)) {
            counter.add(1);
        }
        of.times.add(microseconds(took));
        if class == Class::Poll {
            match status {
                200 => self.polls_with_work.add(1),
                204 => self.polls_without.add(1),
                _ => {}
            }
        }
    }

    /// A request was turned away.
    pub(crate) fn refused(&self, class: Class, why: Refusal) {
        if let Some(counter) = self.of(class).and_then(|of| of.refused.get(why as usize)) {
            counter.add(1);
        }
    }

    /// A change was handed over, and has become durable or not.
    pub(crate) fn changed(&self, is_stored: bool, took: Duration) {
        self.change_times.add(microseconds(took));
        if !is_stored {
            self.changes_failed.add(1);
        }
    }

    /// Writes what was counted.
    pub(crate) fn write(&self, text: &mut Text) {
        let all = || CLASSES.iter().filter_map(|class| Some((class.name(), self.of(*class)?)));
        text.family("requests", "counter", "Requests that were answered, by class and status.");
        for (class, of) in all() {
            for (code, counter) in (100..).zip(&of.answers).filter(|(_, counter)| counter.value() > 0) {
                let code: u16 = code;
                text.number(&[("class", class), ("status", &code.to_string())], counter.value());
            }
        }
        text.family("request_seconds", "histogram", "From the head of a request until its answer begins.");
        for (class, of) in all().filter(|(_, of)| of.times.read().1 > 0) {
            histogram(text, &[("class", class)], &of.times, 1e-6);
        }
        text.family("requests_refused", "counter", "Requests answered with 429, by class and reason.");
        for (class, of) in all() {
            for (why, counter) in REFUSALS.iter().zip(&of.refused).filter(|(_, counter)| counter.value() > 0)
            {
                text.number(&[("class", class), ("reason", why.name())], counter.value());
            }
        }
        text.family(
            "polls",
            "counter",
            "Polls of devices that were answered with an update, and without one.",
        );
        text.number(&[("result", "update")], self.polls_with_work.value());
        text.number(&[("result", "nothing")], self.polls_without.value());
        text.family(
            "alerts",
            "counter",
            "Alerts of devices: kept, and not kept because there were too many.",
        );
        text.number(&[("result", "kept")], self.alerts.value());
        text.number(&[("result", "dropped")], self.alerts_dropped.value());
        text.family(
            "webhook_deliveries",
            "counter",
            "Events sent to webhooks: they arrived, were refused for good, or did not arrive and are sent again.",
        );
        text.number(&[("result", "delivered")], self.webhooks_told.value());
        text.number(&[("result", "refused")], self.webhooks_refused.value());
        text.number(&[("result", "failed")], self.webhooks_failed.value());
        text.family(
            "mails",
            "counter",
            "Mails about alerts: the mail server took them, refused them for good, or they are sent again.",
        );
        text.number(&[("result", "sent")], self.mails_sent.value());
        text.number(&[("result", "refused")], self.mails_refused.value());
        text.number(&[("result", "failed")], self.mails_failed.value());
        let mut one = |name, kind, help, value| {
            text.family(name, kind, help);
            text.number(&[], value);
        };
        one(
            "webhook_events_waiting",
            "gauge",
            "Events that the webhook that is furthest behind has not been told, by the process that tells.",
            self.webhook_events_waiting.value(),
        );
        one("downloaded_bytes", "counter", "Bytes of artifacts that were sent.", self.downloaded.value());
        one("connections", "gauge", "Connections that are open.", self.connections.value());
        one("changes_waiting", "gauge", "Changes that wait until they are durable.", self.changes.value());
        one("changes_failed", "counter", "Changes that could not be stored.", self.changes_failed.value());
        one("forgotten_events", "counter", "Events taken away because of their age.", self.forgotten.value());
        text.family("change_seconds", "histogram", "From when a change is wanted until it is durable.");
        histogram(text, &[], &self.change_times, 1e-6);
        text.family("commit_seconds", "histogram", "How long a transaction of this process takes.");
        histogram(text, &[], &self.commit_times, 1e-6);
        text.family("commit_jobs", "histogram", "Changes in a transaction of this process.");
        histogram(text, &[], &self.commit_jobs, 1.0);
        text.family("late_seconds", "gauge", "How late the server was lately with what it wanted to do.");
        text.fraction(&[], self.late.value() as f64 / 1e3);
        self.write_deltas(text);
        if self.certificate_ends.value() > 0 {
            text.family("certificate_end_time_seconds", "gauge", "When the TLS certificate ends.");
            text.number(&[], self.certificate_ends.value());
            text.family("certificate_reads", "counter", "Certificates read anew, and whether they are used.");
            text.number(&[("result", "used")], self.certificates_read.value());
            text.number(&[("result", "refused")], self.certificates_refused.value());
        }
    }

    /// Nothing where none was begun.
    fn write_deltas(&self, text: &mut Text) {
        if self.delta_milliseconds.value() == 0 {
            return;
        }
        text.family("deltas", "counter", "Deltas of this process, by what came of them.");
        text.number(&[("result", "made")], self.deltas_made.value());
        text.number(&[("result", "failed")], self.deltas_failed.value());
        text.family("delta_seconds", "counter", "How long making deltas took.");
        text.fraction(&[], self.delta_milliseconds.value() as f64 / 1e3);
        text.family(
            "delta_bytes",
            "counter",
            "Bytes of deltas, and of the artifacts in whose place they are.",
        );
        text.number(&[("of", "delta")], self.delta_bytes.value());
        text.number(&[("of", "full")], self.delta_full_bytes.value());
    }
}

impl Watch for Metrics {
    fn committed(&self, _: &Committed) {}

    fn written(&self, jobs: usize, took: Duration) {
        self.commit_jobs.add(jobs as u64);
        self.commit_times.add(microseconds(took));
    }
}

fn histogram<const N: usize>(text: &mut Text, labels: &[(&str, &str)], histogram: &Histogram<N>, unit: f64) {
    let (up_to, count, sum) = histogram.read();
    let up_to: Vec<(f64, u64)> =
        up_to.into_iter().map(|(bound, count)| (bound as f64 * unit, count)).collect();
    text.histogram(labels, &up_to, count, sum as f64 * unit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_and_reason_has_its_place() {
        for (at, class) in CLASSES.iter().enumerate() {
            assert_eq!(*class as usize, at);
        }
        for (at, why) in REFUSALS.iter().enumerate() {
            assert_eq!(*why as usize, at);
        }
    }

    #[test]
    fn what_was_counted_is_written() {
        let metrics = Metrics::default();
        metrics.answered(Class::Poll, 204, Duration::from_micros(250));
        metrics.answered(Class::Poll, 200, Duration::from_micros(251));
        metrics.answered(Class::Poll, 200, Duration::from_secs(100));
        metrics.answered(Class::Management, 999, Duration::ZERO);
        metrics.refused(Class::Download, Refusal::Busy);
        metrics.written(3, Duration::from_millis(2));
        let mut text = Text::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "# TYPE rust_ota_server_requests_total counter",
            "rust_ota_server_requests_total{class=\"poll\",status=\"200\"} 2",
            "rust_ota_server_requests_total{class=\"poll\",status=\"204\"} 1",
            "rust_ota_server_polls_total{result=\"update\"} 2",
            "rust_ota_server_request_seconds_bucket{class=\"poll\",le=\"0.00025\"} 1",
            "rust_ota_server_request_seconds_bucket{class=\"poll\",le=\"0.0005\"} 2",
            "rust_ota_server_request_seconds_bucket{class=\"poll\",le=\"10\"} 2",
            "rust_ota_server_request_seconds_bucket{class=\"poll\",le=\"+Inf\"} 3",
            "rust_ota_server_request_seconds_count{class=\"poll\"} 3",
            "rust_ota_server_requests_refused_total{class=\"download\",reason=\"busy\"} 1",
            "rust_ota_server_commit_jobs_bucket{le=\"2\"} 0",
            "rust_ota_server_commit_jobs_bucket{le=\"4\"} 1",
            "rust_ota_server_commit_jobs_sum 3",
            "rust_ota_server_commit_seconds_sum 0.002",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("status=\"999\"") && !text.contains("certificate"), "{text}");
    }
}
