//! What is only appended is taken away when it is old: a few rows at a time, so that no device waits for it. Several processes
//! may do it at once: each piece is a transaction, and what one has taken away another does not find.

use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::Counter;
use crate::model::time::Timestamp;
use crate::store::{Store, StoreError};
use crate::work::{STREAMS, Stream};

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
    /// Terminals that were recorded.
    pub(crate) recordings: u64,
    /// What webhooks were told, and what they answered.
    pub(crate) webhooks: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { audit: 365, alerts: 90, recordings: 30, webhooks: 14 }
    }
}

impl Keep {
    /// Before when events of a stream are old; `None` when they never are.
    fn before(self, stream: Stream, now: Timestamp) -> Option<Timestamp> {
        let days = match stream {
            Stream::Audit => self.audit,
            Stream::Alert => self.alerts,
            Stream::Recording => self.recordings,
            Stream::Webhook | Stream::Delivery => self.webhooks,
        };
        let milliseconds = days.saturating_mul(24 * 3600 * 1000);
        (days > 0).then(|| Timestamp(now.0.saturating_sub(milliseconds)))
    }
}

/// Takes away what is old, until `stop` says so.
pub(crate) async fn run(
    store: std::sync::Arc<dyn Store>,
    keep: Keep,
    forgotten: std::sync::Arc<Counter>,
    mut stop: watch::Receiver<bool>,
) {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => return,
        }
        wait = INTERVAL;
        tokio::select! {
            result = pass(&*store, keep, Timestamp::now(), &forgotten) => if let Err(error) = result {
                log::warn!("what is old could not be taken away, and is tried again in an hour: {error}");
            },
            _ = stop.changed() => return,
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
    use crate::service::Service;
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
                left.push((stream, service.store.events(&query).await.unwrap().total));
            }
            assert_eq!(
                left,
                [
                    (Stream::Audit, 3),
                    (Stream::Webhook, 2),
                    (Stream::Delivery, 2),
                    (Stream::Alert, 2),
                    (Stream::Recording, 2)
                ]
            );
            assert_eq!(forgotten.value(), 2 * PIECE + 1 + 4);
            service.store.stop().await;
        });
    }
}
