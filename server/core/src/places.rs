//! Places of download budgets (`in_flight`): a device that was given one, or says that it loads, and then says nothing more loses it,
//! so that it keeps no other from its update. It is looked for such devices when a budget is full, and by one of several processes.

use std::time::Duration;

use tokio::sync::watch;

use crate::domain::rollout::{self, Wait};
use crate::model::time::Timestamp;
use crate::model::{Deployment, FleetBudget, Status};
use crate::service::{ChangeError, Service};
use crate::work::query::RecordQuery;
use crate::work::{Key, Kind, NotLoaded, Work};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// Devices that are looked at, and lose their places, at once.
const PIECE: u64 = 500;

/// Releases places until `stop` says so.
pub(crate) async fn run(service: Service, mut stop: watch::Receiver<bool>) {
    let mut turn = service.turn("places");
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stop.changed() => break,
        }
        let now = Timestamp::now();
        let full = full(&service, now);
        if full.is_empty() {
            continue;
        }
        tokio::select! {
            result = turn.alone(pass(&service, &full, now)) => {
                if let Some(Err(error)) = result {
                    log::warn!("places of devices that do not load are released in a minute: {error}");
                }
            }
            _ = stop.changed() => break,
        }
    }
    turn.give_back().await;
}

/// The deployments whose devices have the places of a budget that is full.
fn full(service: &Service, now: Timestamp) -> Vec<String> {
    let mut active = service.catalogue.active();
    active.retain(|active| active.deployment.configuration.is_none() && active.deployment.loading() > 0);
    let loading = active.iter().map(|active| active.deployment.loading()).sum();
    let fleet: Option<FleetBudget> = service.catalogue.document(Kind::Budget, rollout::FLEET);
    let is_full = |wait: Option<Wait>| wait == Some(Wait::InFlight);
    let fleet_is_full =
        fleet.is_some_and(|fleet| is_full(rollout::fleet_budget(&fleet, loading, true, 0, now)));
    let own_is_full = |deployment: &Deployment| is_full(rollout::budget_wait(deployment, true, 0, now));
    active.retain(|active| fleet_is_full || own_is_full(&active.deployment));
    active.iter().map(|active| active.deployment.id.clone()).collect()
}

async fn pass(service: &Service, deployments: &[String], now: Timestamp) -> Result<(), String> {
    for id in deployments {
        let mut skip = 0;
        loop {
            let query = RecordQuery {
                deployment: id.clone(),
                statuses: vec![Status::Pending, Status::Downloading],
                recorded: true,
                skip,
                take: PIECE,
            };
            let found = service.store.records(&query).await.map_err(|error| error.to_string())?.items;
            let count = found.len() as u64;
            let mut lapsed = Vec::new();
            for (device, record) in found {
                if record.is_some_and(|record| rollout::has_lapsed(&record, now)) {
                    lapsed.push(device);
                }
            }
            release(service, id, lapsed).await?;
            if count < PIECE {
                break;
            }
            skip += count;
        }
    }
    Ok(())
}

async fn release(service: &Service, deployment: &str, devices: Vec<String>) -> Result<(), String> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut keys = vec![Key::Deployment(deployment.to_owned())];
    for device in &devices {
        keys.push(Key::Device(device.clone()));
        keys.push(Key::Record(deployment.to_owned(), device.clone()));
    }
    let own = deployment.to_owned();
    let rule = move |work: &mut Work| {
        let mut count = 0_u64;
        for device in &devices {
            count += u64::from(rollout::release(work, &own, device)?);
        }
        Ok::<_, NotLoaded>(count)
    };
    match service.change(keys, rule).await {
        Ok(count) => {
            log::info!("deployment {deployment}: {count} devices say nothing and lose their places")
        }
        Err(ChangeError::Refused(NotLoaded)) => {}
        Err(ChangeError::Failed(failed)) => return Err(failed.0.to_string()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::metrics::Metrics;
    use crate::model::Device;
    use crate::store::sqlite;

    const NOW: Timestamp = Timestamp(100_000_000);

    /// A fleet with a deployment of which devices were given places so many minutes ago, and that lets so many load.
    async fn loading(folder: &std::path::Path, minutes: &'static [(u64, &str)], most: u64) -> Service {
        let store = sqlite::open(folder).unwrap();
        let service = Service::open(store, Arc::new(Metrics::default())).await.unwrap();
        let fill = move |work: &mut Work| {
            let deployment = json!({
                "id": "d", "name": "d", "artifact_name": "a", "created": NOW, "device_count": minutes.len(),
                "counts": { "pending": 2, "downloading": 2 }, "budget": { "in_flight": most },
            });
            let members = Arc::new((1..=4).collect());
            work.new_deployment(serde_json::from_value(deployment).unwrap(), members);
            for (ago, status) in minutes {
                let id = format!("{status} {ago}");
                let device = json!({
                    "id": id, "identity": {}, "identity_sha256": id, "created": NOW, "updated": NOW, "auth_sets": [],
                });
                work.put_device(serde_json::from_value::<Device>(device).unwrap())?;
                let record = json!({
                    "id": id, "deployment": "d", "device": id, "status": status, "created": Timestamp(0),
                    "given": Timestamp(NOW.0 - ago * 60_000),
                });
                work.record("d", &id)?;
                work.put_record(serde_json::from_value(record).unwrap())?;
            }
            Ok::<_, NotLoaded>(())
        };
        service.change(Vec::new(), fill).await.unwrap();
        service
    }

    #[tokio::test]
    async fn only_devices_that_say_nothing_for_long_lose_their_places_and_only_when_there_is_none_left() {
        let folder = tempfile::tempdir().unwrap();
        let devices = &[(29, "pending"), (30, "pending"), (29, "downloading"), (30, "downloading")];
        let service = loading(folder.path(), devices, 4).await;
        assert_eq!(full(&service, NOW), ["d"]);
        pass(&service, &full(&service, NOW), NOW).await.unwrap();
        // What the transaction goes by is the real time, which is later.
        let known = service.store.deployment("d").await.unwrap().unwrap();
        assert_eq!((known.lapsed, known.loading()), (2, 2));
        let mut lapsed = Vec::new();
        for (ago, status) in devices {
            let record = service.store.record("d", &format!("{status} {ago}")).await.unwrap().unwrap();
            lapsed.push(record.lapsed);
        }
        assert_eq!(lapsed, [false, true, false, true]);
        assert!(full(&service, NOW).is_empty(), "there is a place");
        service.store.stop().await;
        drop(service);
        let other = tempfile::tempdir().unwrap();
        let service = loading(other.path(), devices, 5).await;
        assert!(full(&service, NOW).is_empty());
        service.store.stop().await;
    }
}
