//! What is only appended, deployments that ended and their logs are taken away when they are old: a few rows at a time, so that
//! no device waits for it. Of several processes one does it. If two did, each piece is a transaction, and what one has taken away
//! another does not find.
//!
//! A clock that is wrong must not take everything away: see [`Even`].

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::metrics::Counter;
use crate::model::time::{Timestamp, awake};
use crate::service::{ChangeError, Service};
use crate::store::StoreError;
use crate::work::{Key, Kind, NotLoaded, STREAMS, Stream, Work, Write};

/// Rows that are taken away in one transaction.
const PIECE: u64 = 500;
/// Between two pieces: those who change something come first.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two passes.
const INTERVAL: Duration = Duration::from_secs(3600);
/// After the start: there is enough to do then.
const FIRST: Duration = Duration::from_secs(60);

/// For how many days what happened is kept; 0 is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// What people did.
    pub(crate) audit: u64,
    /// Alerts of monitors, and what mails tell.
    pub(crate) alerts: u64,
    /// Terminals that were recorded.
    pub(crate) recordings: u64,
    /// What webhooks were told, and what they answered.
    pub(crate) webhooks: u64,
    /// Logs of devices, from when they were done.
    pub(crate) logs: u64,
    /// Deployments, from their end.
    pub(crate) deployments: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { audit: 365, alerts: 90, recordings: 30, webhooks: 14, logs: 365, deployments: 0 }
    }
}

impl Keep {
    /// For how many days the events of a stream are kept.
    fn stream(self, stream: Stream) -> u64 {
        match stream {
            Stream::Audit => self.audit,
            Stream::Alert | Stream::Mail => self.alerts,
            Stream::Recording => self.recordings,
            Stream::Webhook | Stream::Delivery => self.webhooks,
        }
    }
}

/// Before when something is old that is kept for so many days; `None` when it never is.
fn before(days: u64, now: Timestamp) -> Option<Timestamp> {
    let milliseconds = days.saturating_mul(24 * 3600 * 1000);
    (days > 0).then(|| Timestamp(now.0.saturating_sub(milliseconds)))
}

/// A clock that is further than this ahead of the last pass is not trusted before it has gone evenly for as long.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// What a clock may be off against one that nobody sets, and still goes evenly.
const OFF: Duration = Duration::from_secs(3600);
/// Under what names it is kept when the last pass was, and how the clock goes.
const NAME: &str = "retention";
const CLOCK: &str = "retention-clock";
/// A name of the time since the machine was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What the clocks say when they are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    /// The time of day.
    now: Timestamp,
    /// The clock that nobody sets.
    awake: Duration,
    /// Since which start of the machine that counts.
    boot: String,
}

/// For how long the time of day has gone evenly, as far as it was seen. It is in the store: a server that is started anew every
/// few hours would otherwise never have seen a day of it.
///
/// A clock that is a year ahead would make everything old. So it is believed when it is at most a day ahead of the last pass, which
/// the store knows, or when it was seen to go evenly for a day: a server that was off for a week, or whose clock was a week behind,
/// takes nothing away for a day, and an operator whose clock is wrong has a day to read the log. A clock that is behind takes away
/// less.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Even {
    /// The start of the machine of the last look.
    boot: String,
    /// What the clock that nobody sets said then.
    awake_milliseconds: u64,
    /// How long it was even by then, without the time between two starts of a machine: nothing counted that.
    even_milliseconds: u64,
    /// What the time of day was when that began, as the last start of the machine has it.
    began: Timestamp,
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Even {
    /// It begins now.
    fn begun(look: &Look) -> Even {
        Even {
            boot: look.boot.clone(),
            awake_milliseconds: milliseconds(look.awake),
            even_milliseconds: 0,
            began: look.now,
        }
    }

    /// What a look says after what was known before.
    fn looked(before: Option<Even>, look: &Look) -> Even {
        let Some(before) = before else { return Even::begun(look) };
        let awake_milliseconds = milliseconds(look.awake);
        let last = before.began.0.saturating_add(before.even_milliseconds);
        let is_same = before.boot == look.boot && awake_milliseconds >= before.awake_milliseconds;
        let after = if is_same {
            let passed = awake_milliseconds - before.awake_milliseconds;
            Even {
                awake_milliseconds,
                even_milliseconds: before.even_milliseconds.saturating_add(passed),
                ..before
            }
        } else {
            // A machine that was off, or another one: how long that was is not known, and does not count.
            let began = Timestamp(look.now.0.saturating_sub(before.even_milliseconds));
            Even { boot: look.boot.clone(), awake_milliseconds, began, ..before }
        };
        let should_be = Timestamp(after.began.0.saturating_add(after.even_milliseconds));
        let is_even = match is_same {
            true => look.now.0.abs_diff(should_be.0) <= milliseconds(OFF),
            false => {
                let latest = last.saturating_add(milliseconds(AHEAD));
                (last.saturating_sub(milliseconds(OFF))..=latest).contains(&look.now.0)
            }
        };
        if is_even {
            return after;
        }
        let expected = if is_same { should_be } else { Timestamp(last) };
        log::warn!(
            "the time of day was set, or the machine was off for long: it is {}, and was to be about {expected}",
            look.now
        );
        Even::begun(look)
    }

    /// Whether the time of day may decide what is old.
    fn is_believed(&self, last: Option<Timestamp>, now: Timestamp) -> bool {
        let for_long = self.even_milliseconds >= milliseconds(AHEAD);
        for_long || last.is_some_and(|last| now.0 <= last.0.saturating_add(milliseconds(AHEAD)))
    }
}

/// The name of this start of the machine. Where the system has none, each process is one of its own.
fn boot(process: &str) -> String {
    match std::fs::read_to_string(BOOT) {
        Ok(boot) => boot.trim().to_owned(),
        Err(error) => {
            log::debug!("{BOOT}: {error}");
            process.to_owned()
        }
    }
}

/// Takes away what is old, until `stop` says so.
pub(crate) async fn run(
    service: Service,
    keep: Keep,
    forgotten: std::sync::Arc<Counter>,
    mut stop: watch::Receiver<bool>,
) {
    let mut turn = service.turn(NAME);
    let boot = boot(service.process());
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => break,
        }
        wait = INTERVAL;
        let look = Look { now: Timestamp::now(), awake: awake(), boot: boot.clone() };
        tokio::select! {
            result = turn.alone(trusted_pass(&service, keep, &look, &forgotten)) => {
                if let Some(Err(error)) = result {
                    log::warn!("what is old could not be taken away, and is tried again in an hour: {error}");
                }
            }
            _ = stop.changed() => break,
        }
    }
    turn.give_back().await;
}

/// A pass, if the time is believed. Whether it was.
async fn trusted_pass(
    service: &Service,
    keep: Keep,
    look: &Look,
    forgotten: &Counter,
) -> Result<bool, String> {
    let even = Even::looked(known(service, CLOCK).await?, look);
    note(service, CLOCK, even.clone()).await?;
    let (last, now) = (known(service, NAME).await?, look.now);
    if !even.is_believed(last, now) {
        match last {
            None => log::info!("what is old is taken away when the time has gone evenly for a day"),
            Some(last) => log::warn!(
                "nothing is taken away for its age: it is {now}, and it was {last} the last time; the time is believed when it \
                 has gone evenly for a day"
            ),
        }
        return Ok(false);
    }
    pass(service, keep, now, forgotten).await?;
    note(service, NAME, now).await?;
    Ok(true)
}

/// What is kept under a name; `None` also for what cannot be read.
async fn known<T: DeserializeOwned>(service: &Service, name: &str) -> Result<Option<T>, String> {
    let known = service.store.document(Kind::Progress, name).await.map_err(|error| error.to_string())?;
    Ok(known.and_then(|known| serde_json::from_value(known).ok()))
}

/// Keeps something under a name.
async fn note<T: Serialize + Send + 'static>(
    service: &Service,
    name: &'static str,
    value: T,
) -> Result<(), String> {
    let rule = move |work: &mut Work| {
        work.document::<Value>(Kind::Progress, name)?;
        work.put_document(Kind::Progress, name, Some(&value))
    };
    match service.change(vec![Key::Document(Kind::Progress, name.to_owned())], rule).await {
        Ok(()) | Err(ChangeError::Refused(NotLoaded)) => Ok(()),
        Err(ChangeError::Failed(failed)) => Err(failed.0.to_string()),
    }
}

async fn pass(service: &Service, keep: Keep, now: Timestamp, forgotten: &Counter) -> Result<(), String> {
    let failed = |error: StoreError| error.to_string();
    for stream in STREAMS {
        let Some(before) = before(keep.stream(stream), now) else { continue };
        let mut count = 0;
        loop {
            let gone = service.store.forget_events(stream, before, PIECE).await.map_err(failed)?;
            forgotten.add(gone);
            count += gone;
            if gone < PIECE {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        tell(count, &format!("events of the stream {}", stream.name()));
    }
    if let Some(before) = before(keep.logs, now) {
        tell(logs(service, before, forgotten).await?, "logs of devices");
    }
    if let Some(before) = before(keep.deployments, now) {
        tell(deployments(service, before, forgotten).await.map_err(failed)?, "deployments");
    }
    Ok(())
}

fn tell(count: u64, what: &str) {
    if count > 0 {
        log::info!("{count} {what} were taken away because of their age");
    }
}

async fn logs(service: &Service, before: Timestamp, forgotten: &Counter) -> Result<u64, String> {
    let mut count = 0;
    loop {
        let old = service.store.old_logs(before, PIECE).await.map_err(|error| error.to_string())?;
        let gone = old.len() as u64;
        if gone == 0 {
            return Ok(count);
        }
        let keys = old.iter().map(|(deployment, device)| Key::Record(deployment.clone(), device.clone()));
        let rule = |old: Vec<(String, String)>| move |work: &mut Work| without_logs(work, &old);
        match service.change(keys.collect(), rule(old)).await {
            Ok(()) | Err(ChangeError::Refused(NotLoaded)) => {}
            Err(ChangeError::Failed(failed)) => return Err(failed.0.to_string()),
        }
        forgotten.add(gone);
        count += gone;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The logs go, and the records say so.
fn without_logs(work: &mut Work, logs: &[(String, String)]) -> Result<(), NotLoaded> {
    for (deployment, device) in logs {
        if let Some(mut record) = work.record(deployment, device)? {
            record.log = false;
            work.put_record(record)?;
        }
        work.write(Write::Log { deployment: deployment.clone(), device: device.clone(), text: None });
    }
    Ok(())
}

async fn deployments(service: &Service, before: Timestamp, forgotten: &Counter) -> Result<u64, StoreError> {
    let mut count = 0;
    loop {
        let old = service.store.old_deployments(before, PIECE).await?;
        for deployment in &old {
            while !service.store.forget_deployment(deployment, PIECE).await? {
                tokio::time::sleep(PAUSE).await;
            }
            forgotten.add(1);
            count += 1;
        }
        if (old.len() as u64) < PIECE {
            return Ok(count);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;
    use crate::store::sqlite;
    use crate::work::Event;
    use crate::work::query::EventQuery;

    const DAY: u64 = 24 * 3600 * 1000;

    #[test]
    fn what_is_older_than_is_kept_goes_in_pieces_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let metrics = Arc::new(Metrics::default());
            let store = sqlite::open(folder.path()).unwrap();
            let service = Service::open(store, metrics).await.unwrap();
            let now = Timestamp(1000 * DAY);
            let event = |stream, days: u64, n: u64| Event {
                stream,
                key: n.to_string(),
                time: Timestamp(now.0 - days * DAY),
                data: json!({ "n": n }),
            };
            // More than two pieces of one stream.
            let mut events: Vec<Event> = (0..2 * PIECE + 1).map(|n| event(Stream::Webhook, 15, n)).collect();
            for stream in STREAMS {
                events.extend([event(stream, 0, 1), event(stream, 13, 2), event(stream, 91, 3)]);
            }
            let put = move |work: &mut crate::work::Work| {
                events.iter().for_each(|event| work.write(Write::Event(event.clone())));
                Ok::<_, NotLoaded>(())
            };
            service.change(Vec::new(), put).await.unwrap();
            let forgotten = Counter::default();
            let keep = Keep { audit: 0, ..Keep::default() };
            pass(&service, keep, now, &forgotten).await.unwrap();
            let mut left = Vec::new();
            for stream in STREAMS {
                left.push((stream, self::left(&service, stream).await));
            }
            assert_eq!(
                left,
                [
                    (Stream::Audit, 3),
                    (Stream::Webhook, 2),
                    (Stream::Delivery, 2),
                    (Stream::Alert, 2),
                    (Stream::Mail, 2),
                    (Stream::Recording, 2)
                ]
            );
            assert_eq!(forgotten.value(), 2 * PIECE + 1 + 5);
            service.store.stop().await;
        });
    }

    #[test]
    fn logs_go_before_their_deployment_and_both_when_they_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = sqlite::open(folder.path()).unwrap();
            let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
            let now = Timestamp::now();
            let ago = move |days: u64| Timestamp(now.0 - days * DAY).to_string();
            let fill = move |work: &mut Work| {
                let device = json!({
                    "id": "device", "identity": {}, "identity_sha256": "x", "created": ago(900), "updated": ago(900),
                    "auth_sets": [],
                });
                work.put_device(serde_json::from_value(device).unwrap())?;
                // The newest is as old as the oldest, and stays.
                for (id, days) in [("old", 800), ("young", 400), ("new", 3), ("newest", 800)] {
                    let deployment = json!({
                        "id": id, "name": id, "artifact_name": "a", "created": ago(801), "finished": ago(days),
                        "device_count": 1,
                    });
                    let members = Arc::new(roaring::RoaringBitmap::from_iter([1]));
                    work.new_deployment(serde_json::from_value(deployment).unwrap(), members);
                    let record = json!({
                        "id": id, "deployment": id, "device": "device", "status": "failure", "created": ago(801),
                        "finished": ago(days), "log": true,
                    });
                    work.record(id, "device")?;
                    work.put_record(serde_json::from_value(record).unwrap())?;
                    let text = Some("text".to_owned());
                    work.write(Write::Log { deployment: id.to_owned(), device: "device".to_owned(), text });
                }
                Ok::<_, NotLoaded>(())
            };
            service.change(Vec::new(), fill).await.unwrap();
            let forgotten = Counter::default();
            let keep = Keep { logs: 365, deployments: 730, ..Keep::default() };
            pass(&service, keep, now, &forgotten).await.unwrap();
            let mut left = Vec::new();
            for id in ["old", "young", "new", "newest"] {
                let record = service.store.record(id, "device").await.unwrap();
                let log = service.store.log(id, "device").await.unwrap();
                left.push((id, record.map(|record| record.log), log.is_some()));
            }
            let expected = [
                ("old", None, false),
                ("young", Some(false), false),
                ("new", Some(true), true),
                ("newest", Some(false), false),
            ];
            assert_eq!(left, expected);
            // Three logs and a deployment.
            assert_eq!(forgotten.value(), 4);
            service.store.stop().await;
        });
    }

    /// A fleet with one event of yesterday and one that is two years old, at this time.
    async fn with_events(folder: &std::path::Path, now: Timestamp) -> Service {
        let store = sqlite::open(folder).unwrap();
        let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
        let put = move |work: &mut Work| {
            for days in [1, 730] {
                let time = Timestamp(now.0 - days * DAY);
                let event = Event { stream: Stream::Audit, key: String::new(), time, data: json!({}) };
                work.write(Write::Event(event));
            }
            Ok::<_, NotLoaded>(())
        };
        service.change(Vec::new(), put).await.unwrap();
        service
    }

    /// How many events a stream has.
    async fn left(service: &Service, stream: Stream) -> u64 {
        let query = EventQuery { oldest_first: true, take: 10, ..EventQuery::of(stream) };
        service.store.events(&query).await.unwrap().total
    }

    #[tokio::test]
    async fn a_clock_that_jumps_takes_nothing_away_before_it_has_gone_evenly_for_a_day() {
        const HOUR: u64 = DAY / 24;
        let folder = tempfile::tempdir().unwrap();
        let right = Timestamp(20_000 * DAY);
        let service = with_events(folder.path(), right).await;
        let forgotten = Counter::default();
        // So many hours after the machine was started, with a time that is so much ahead.
        let at = async |boot: &str, hours: u64, ahead: i64| {
            let now = Timestamp((right.0 + hours * HOUR).saturating_add_signed(ahead));
            let look = Look { now, awake: Duration::from_secs(hours * 3600), boot: boot.to_owned() };
            trusted_pass(&service, Keep::default(), &look, &forgotten).await.unwrap()
        };
        let year = 365 * i64::try_from(DAY).unwrap();
        let hour = i64::try_from(HOUR).unwrap();
        // Nobody knows when the last pass was.
        for hours in 0..24 {
            assert!(!at("one", hours, 0).await, "{hours}");
        }
        assert_eq!(left(&service, Stream::Audit).await, 2);
        assert!(at("one", 24, 0).await);
        assert_eq!(left(&service, Stream::Audit).await, 1);
        // It jumps a year ahead, and is put right before the day is over.
        for hours in 25..49 {
            assert!(!at("one", hours, year).await, "{hours}");
        }
        assert_eq!(left(&service, Stream::Audit).await, 1, "the event of yesterday would be a year old");
        assert!(!at("one", 49, 0).await, "the last pass was more than a day ago");
        // An hour back is no reason to do anything else.
        for hours in 50..74 {
            assert_eq!(at("one", hours, 0).await, hours == 73, "{hours}");
        }
        assert!(at("one", 74, 0).await && at("one", 75, -2 * hour).await);
        assert!(at("one", 76, 0).await);
        // A start with a wrong clock.
        assert!(!at("two", 77, year).await);
        assert!(!at("three", 77, 2 * year).await);
        assert_eq!(left(&service, Stream::Audit).await, 1);
        service.store.stop().await;
    }

    #[tokio::test]
    async fn a_server_that_is_started_anew_every_12_hours_takes_away_what_is_old() {
        const HOUR: u64 = DAY / 24;
        for restarts in ["of the server", "of the machine"] {
            let folder = tempfile::tempdir().unwrap();
            let right = Timestamp(20_000 * DAY);
            let service = with_events(folder.path(), right).await;
            let forgotten = Counter::default();
            let mut passes = Vec::new();
            for hours in 0..36 {
                let (boot, awake) = match restarts {
                    "of the server" => (0, hours),
                    _ => (hours / 12, hours % 12),
                };
                let now = Timestamp(right.0 + hours * HOUR);
                let look = Look { now, awake: Duration::from_secs(awake * 3600), boot: boot.to_string() };
                passes.push(trusted_pass(&service, Keep::default(), &look, &forgotten).await.unwrap());
            }
            // The hour in which the machine was off is no hour that anybody has seen.
            let first = if restarts == "of the server" { 24 } else { 26 };
            assert_eq!(passes.iter().position(|passed| *passed), Some(first), "{restarts}");
            assert_eq!(left(&service, Stream::Audit).await, 1);
            service.store.stop().await;
        }
    }

    #[test]
    fn a_clock_that_is_wrong_after_a_start_begins_anew() {
        let look = |boot: &str, hours: u64, day: u64| Look {
            now: Timestamp(day * DAY),
            awake: Duration::from_secs(hours * 3600),
            boot: boot.to_owned(),
        };
        let known = Even::looked(Some(Even::begun(&look("a", 1, 100))), &look("a", 25, 101));
        assert_eq!(known.even_milliseconds, DAY);
        let after = |look: &Look| Even::looked(Some(known.clone()), look).even_milliseconds;
        assert_eq!([after(&look("b", 0, 101)), after(&look("b", 0, 102))], [DAY, DAY]);
        assert_eq!(
            [after(&look("b", 0, 103)), after(&look("b", 0, 100)), after(&look("b", 0, 466))],
            [0, 0, 0]
        );
        // The same start of the machine says exactly how late it is.
        assert_eq!([after(&look("a", 25 + 72, 104)), after(&look("a", 25 + 72, 105))], [4 * DAY, 0]);
        // A clock that went back belongs to another machine.
        assert_eq!(after(&look("a", 0, 101)), DAY);
    }
}
