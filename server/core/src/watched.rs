//! The place for whoever watches the server: `/metrics`, `/health/live` and `/health/ready`, apart from the place for devices
//! and people. It has no token and no TLS, so it is for an address that only those reach who may know.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::api::{ApiError, Reply, Shared, bytes, internal};
use crate::domain::deltas::{DeltaJob, STATES};
use crate::metrics::Text;
use crate::model::STATUSES;
use crate::work::Kind;

/// Connections at a time.
const CONNECTIONS: usize = 16;
/// How long somebody may take for the head of a request, and how long a connection lasts that is not closed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection lasts.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long the store may take to answer.
const STORE: Duration = Duration::from_secs(3);
/// Deployments that have series of their own, the oldest first. Whoever makes more deployments makes no more series.
const DEPLOYMENTS: usize = 100;
/// After a connection that could not be accepted.
const AGAIN: Duration = Duration::from_millis(100);

/// Serves until the runtime ends.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!("a connection for the metrics could not be accepted: {error}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, &request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(LIFETIME, connection).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => log::debug!("a connection for the metrics ended: {error}"),
            }
            drop(place);
        });
    }
}

async fn answer(shared: &Shared, request: &Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(shared).await)
        }
        (&Method::GET, "/health/live") => internal::live(),
        (&Method::GET, "/health/ready") => internal::ready(shared).await,
        _ => ApiError::not_found().into_reply(),
    }
}

async fn metrics(shared: &Shared) -> String {
    let mut text = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("build_info", "gauge", "The version of the server.");
    text.number(&[("version", version)], 1);
    let troubles = shared.readiness.troubles(&shared.service, &*shared.blobs).await;
    text.family("ready", "gauge", "Whether the server can do what it is asked.");
    text.number(&[], u64::from(troubles.is_empty()));
    shared.metrics.write(&mut text);
    text.family("requests_under_way", "gauge", "Requests that have a place, by whose places they take.");
    for (share, count) in shared.throttle.under_way() {
        text.number(&[("share", share)], count);
    }
    text.family(
        "bodies_awaited",
        "gauge",
        "Bodies of senders who are not known, on their way and without a place.",
    );
    text.number(&[], shared.bodies.count() as u64);
    // A store that does not answer must not keep the rest from being read.
    if let Ok(Ok(counts)) = tokio::time::timeout(STORE, shared.service.store.device_counts()).await {
        text.family("devices", "gauge", "Devices, by status.");
        for (status, count) in counts {
            text.number(&[("status", status.name())], count);
        }
    }
    deployments(shared, &mut text);
    delta_jobs(shared, &mut text);
    shared.process.write(&mut text);
    text.finish()
}

fn delta_jobs(shared: &Shared, text: &mut Text) {
    let jobs: Vec<(String, DeltaJob)> = shared.service.catalogue.documents(Kind::DeltaJob);
    text.family("delta_jobs", "gauge", "Deltas to make and made, by status.");
    for state in STATES {
        let count = jobs.iter().filter(|(_, job)| job.state == state).count();
        text.number(&[("status", state.name())], count as u64);
    }
}

fn deployments(shared: &Shared, text: &mut Text) {
    let active = shared.service.catalogue.active();
    text.family("deployments_active", "gauge", "Deployments that have not ended.");
    text.number(&[], active.len() as u64);
    text.family("deployment_devices", "gauge", "Devices of deployments that have not ended, by status.");
    for active in active.iter().take(DEPLOYMENTS) {
        let deployment = &active.deployment;
        let labels =
            |status| [("deployment", &*deployment.id), ("name", &*deployment.name), ("status", status)];
        let records = deployment.records();
        for status in STATUSES {
            let mut count = deployment.counts.get(&status).copied().unwrap_or(0);
            if status == crate::model::Status::Pending {
                // Those that have not asked have no record.
                count += deployment.device_count.saturating_sub(records);
            }
            text.number(&labels(status.name()), count);
        }
    }
}
