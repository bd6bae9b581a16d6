//! What is only appended, deployments that ended and their logs are taken away when they are old: a few rows at a time, so that
//! no device waits for it. Several processes may do it at once: each piece is a transaction, and what one has taken away another
//! does not find.

use std::time::Duration;

use tokio::sync::watch;

use crate::metrics::Counter;
use crate::model::time::Timestamp;
use crate::service::{ChangeError, Service};
use crate::store::StoreError;
use crate::work::{Key, NotLoaded, STREAMS, Stream, Work, Write};

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
    /// Alerts of monitors.
    pub(crate) alerts: u64,
    /// What webhooks were told, and what they answered.
    pub(crate) webhooks: u64,
    /// Logs of devices, from when they were done.
    pub(crate) logs: u64,
    /// Deployments, from their end.
    pub(crate) deployments: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { audit: 365, alerts: 90, webhooks: 14, logs: 365, deployments: 0 }
    }
}

impl Keep {
    /// For how many days the events of a stream are kept.
    fn stream(self, stream: Stream) -> u64 {
        match stream {
            Stream::Audit => self.audit,
            Stream::Alert => self.alerts,
            Stream::Webhook | Stream::Delivery => self.webhooks,
        }
    }
}

/// Before when something is old that is kept for so many days; `None` when it never is.
fn before(days: u64, now: Timestamp) -> Option<Timestamp> {
    let milliseconds = days.saturating_mul(24 * 3600 * 1000);
    (days > 0).then(|| Timestamp(now.0.saturating_sub(milliseconds)))
}

/// Takes away what is old, until `stop` says so.
pub(crate) async fn run(
    service: std::sync::Arc<Service>,
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
            result = pass(&service, keep, Timestamp::now(), &forgotten) => if let Err(reason) = result {
                log::warn!("what is old could not be taken away, and is tried again in an hour: {reason}");
            },
            _ = stop.changed() => return,
        }
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
    use crate::work::query::EventQuery;
    use crate::work::Event;

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
                [(Stream::Audit, 3), (Stream::Webhook, 2), (Stream::Delivery, 2), (Stream::Alert, 2)]
            );
            assert_eq!(forgotten.value(), 2 * PIECE + 1 + 3);
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
}
