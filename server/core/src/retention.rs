//! What is only appended is taken away when it is old: a few rows at a time, so that no device waits for it. Of several
//! processes one does it. If two did, each piece is a transaction, and what one has taken away another does not find.
//!
//! A clock that is wrong must not take everything away: see [`Trust`].

use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::Counter;
use crate::model::time::{Timestamp, awake};
use crate::service::{ChangeError, Service};
use crate::store::{Store, StoreError};
use crate::work::{Key, Kind, NotLoaded, STREAMS, Stream, Work};

/// Events that are taken away in one transaction.
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
    /// Alerts of monitors.
    pub(crate) alerts: u64,
    /// What webhooks were told, and what they answered.
    pub(crate) webhooks: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { audit: 365, alerts: 90, webhooks: 14 }
    }
}

impl Keep {
    /// Before when events of a stream are old; `None` when they never are.
    fn before(self, stream: Stream, now: Timestamp) -> Option<Timestamp> {
        let days = match stream {
            Stream::Audit => self.audit,
            Stream::Alert => self.alerts,
            Stream::Webhook | Stream::Delivery => self.webhooks,
        };
        let milliseconds = days.saturating_mul(24 * 3600 * 1000);
        (days > 0).then(|| Timestamp(now.0.saturating_sub(milliseconds)))
    }
}

/// A clock that is further than this ahead of the last pass is not trusted before it has gone evenly for as long.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// What a clock may be off against one that nobody sets, and still goes evenly.
const OFF: Duration = Duration::from_secs(3600);
/// Under what name it is kept when the last pass was.
const NAME: &str = "retention";

/// Whether the time of day may decide what is old.
///
/// One that is a year ahead would make everything old. So it is believed when it is at most a day ahead of the last pass, which
/// the store knows, or when this process has seen it go evenly for a day: a server that was off for a week, or whose clock was a
/// week behind, takes nothing away for a day, and an operator whose clock is wrong has a day to read the log. A clock that is
/// behind takes away less.
#[derive(Debug, Default)]
struct Trust {
    /// Since when the time has gone evenly: what it was, and what the clock said that nobody sets.
    evenly: Option<(Timestamp, Duration)>,
}

impl Trust {
    fn believes(&mut self, last: Option<Timestamp>, now: Timestamp, awake: Duration) -> bool {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (began, clock) = *self.evenly.get_or_insert((now, awake));
        let passed = awake.saturating_sub(clock);
        let should_be = began.0.saturating_add(milliseconds(passed));
        if now.0.abs_diff(should_be) > milliseconds(OFF) {
            log::warn!("the time of day was set: it is {now}, and was to be {}", Timestamp(should_be));
            self.evenly = Some((now, awake));
        }
        let for_long = self.evenly.is_some_and(|(_, clock)| awake.saturating_sub(clock) >= AHEAD);
        for_long || last.is_some_and(|last| now.0 <= last.0.saturating_add(milliseconds(AHEAD)))
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
    let mut trust = Trust::default();
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => break,
        }
        wait = INTERVAL;
        let now = (Timestamp::now(), awake());
        tokio::select! {
            result = turn.alone(trusted_pass(&service, keep, &mut trust, now, &forgotten)) => {
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
    trust: &mut Trust,
    (now, awake): (Timestamp, Duration),
    forgotten: &Counter,
) -> Result<bool, StoreError> {
    let last = service.store.document(Kind::Progress, NAME).await?;
    let last = last.and_then(|last| serde_json::from_value(last).ok());
    if !trust.believes(last, now, awake) {
        match last {
            None => log::info!("what is old is taken away when the time has gone evenly for a day"),
            Some(last) => log::warn!(
                "nothing is taken away for its age: it is {now}, and it was {last} the last time; the time is believed when it \
                 has gone evenly for a day"
            ),
        }
        return Ok(false);
    }
    pass(&*service.store, keep, now, forgotten).await?;
    let done = move |work: &mut Work| {
        work.document::<Timestamp>(Kind::Progress, NAME)?;
        work.put_document(Kind::Progress, NAME, Some(&now))
    };
    let key = vec![Key::Document(Kind::Progress, NAME.to_owned())];
    match service.change(key, done).await {
        Ok(()) => Ok(true),
        Err(ChangeError::Refused(NotLoaded)) => Ok(true),
        Err(ChangeError::Failed(failed)) => {
            Err(StoreError::Database { place: NAME.to_owned(), reason: failed.0.to_string() })
        }
    }
}

async fn pass(store: &dyn Store, keep: Keep, now: Timestamp, forgotten: &Counter) -> Result<(), StoreError> {
    for stream in STREAMS {
        let Some(before) = keep.before(stream, now) else { continue };
        let mut count = 0;
        loop {
            let gone = store.forget_events(stream, before, PIECE).await?;
            forgotten.add(gone);
            count += gone;
            if gone < PIECE {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if count > 0 {
            log::info!("{count} events of the stream {} were taken away because of their age", stream.name());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;
    use crate::store::sqlite;
    use crate::work::query::EventQuery;
    use crate::work::{Event, NotLoaded, Write};

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
            pass(&*service.store, keep, now, &forgotten).await.unwrap();
            let mut left = Vec::new();
            for stream in STREAMS {
                left.push((stream, self::left(&service, stream).await));
            }
            assert_eq!(
                left,
                [(Stream::Audit, 3), (Stream::Webhook, 2), (Stream::Delivery, 2), (Stream::Alert, 2)]
            );
            assert_eq!(forgotten.value(), 2 * PIECE + 1 + 3);
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
        let query = EventQuery {
            stream,
            keys: Vec::new(),
            after: None,
            before: None,
            members: Vec::new(),
            above: None,
            oldest_first: true,
            skip: 0,
            take: 10,
        };
        service.store.events(&query).await.unwrap().total
    }

    #[tokio::test]
    async fn a_clock_that_jumps_takes_nothing_away_before_it_has_gone_evenly_for_a_day() {
        const HOUR: u64 = DAY / 24;
        let folder = tempfile::tempdir().unwrap();
        let right = Timestamp(20_000 * DAY);
        let service = with_events(folder.path(), right).await;
        let forgotten = Counter::default();
        let mut trust = Trust::default();
        // So many hours after this process has begun, with a time that is so much ahead.
        let at = async |trust: &mut Trust, hours: u64, ahead: i64| {
            let now = Timestamp((right.0 + hours * HOUR).saturating_add_signed(ahead));
            let awake = Duration::from_secs(hours * 3600);
            trusted_pass(&service, Keep::default(), trust, (now, awake), &forgotten).await.unwrap()
        };
        let year = 365 * i64::try_from(DAY).unwrap();
        let hour = i64::try_from(HOUR).unwrap();
        // Nobody knows when the last pass was.
        for hours in 0..24 {
            assert!(!at(&mut trust, hours, 0).await, "{hours}");
        }
        assert_eq!(left(&service, Stream::Audit).await, 2);
        assert!(at(&mut trust, 24, 0).await);
        assert_eq!(left(&service, Stream::Audit).await, 1);
        // It jumps a year ahead, and is put right before the day is over.
        for hours in 25..49 {
            assert!(!at(&mut trust, hours, year).await, "{hours}");
        }
        assert_eq!(left(&service, Stream::Audit).await, 1, "the event of yesterday would be a year old");
        assert!(!at(&mut trust, 49, 0).await, "the last pass was more than a day ago");
        // An hour back is no reason to do anything else, and another process, whose clock is right, goes on where this one was.
        let mut other = Trust::default();
        for hours in 50..74 {
            assert_eq!(at(&mut trust, hours, 0).await, hours == 73, "{hours}");
        }
        assert!(at(&mut other, 74, 0).await && at(&mut other, 75, -2 * hour).await);
        assert!(at(&mut other, 76, 0).await);
        // A start with a wrong clock.
        assert!(!at(&mut Trust::default(), 77, year).await);
        assert!(!at(&mut Trust::default(), 77, 2 * year).await);
        assert_eq!(left(&service, Stream::Audit).await, 1);
        service.store.stop().await;
    }
}
