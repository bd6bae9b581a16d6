//! Connections: accepted, decrypted, and served until they end, the server does, or others need the place.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::api::surround::{Around, Surround};
use crate::api::{self, Promise, Shared};
use crate::certificates::Certificates;
use crate::domain::limits;
use crate::presence::{Answering, Presence, Waiting};
use crate::unread::UnreadLimit;

/// Open at once, as far as file descriptors allow. For one more, one that is idle is closed, or it waits.
const CONNECTIONS: usize = 16_384;
/// File descriptors for everything else: the database, the log, threads.
const OTHER_DESCRIPTORS: u64 = 64;
/// A connection with an artifact in each direction needs a file as well.
const DESCRIPTORS_EACH: u64 = 2;
/// However few descriptors there are.
const LEAST: usize = 16;
/// How long to wait for a place, or a descriptor, before another connection is looked for that could be closed.
const SHED_AGAIN: Duration = Duration::from_millis(50);
/// How long requests may go on after the server was told to stop.
const LAST_SECONDS: u64 = 5;

/// How long a client may leave an answer unread. Long: a device that writes to slow flash reads nothing meanwhile, and
/// to cut it off would cost it one of its few attempts to resume.
const UNREAD: Duration = Duration::from_secs(300);

/// Serves until `stop` says so.
pub(crate) async fn accept(
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
    around: Arc<dyn Surround>,
    mut stop: watch::Receiver<bool>,
) {
    let count = places();
    let places = Arc::new(Semaphore::new(count));
    let waiting = Arc::new(Waiting::default());
    let mut failing = false;
    loop {
        if places.available_permits() == 0 && waiting.shed() {
            log::debug!("no place for another connection: the one that is idle longest is closed");
        }
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            // Some may have become idle since.
            () = tokio::time::sleep(SHED_AGAIN) => continue,
            _ = stop.changed() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly there are no file descriptors left; some will be when a connection ends.
                if !failing {
                    log::warn!("a connection could not be accepted: {error}");
                }
                failing = true;
                waiting.shed();
                tokio::time::sleep(SHED_AGAIN).await;
                continue;
            }
        };
        failing = false;
        // Each connection has the certificate of its time.
        let tls = certificates.as_ref().map(|certificates| TlsAcceptor::from(certificates.config()));
        let (shared, stop) = (shared.clone(), stop.clone());
        let around = Arc::from(around.connection());
        let presence = waiting.enter(from);
        tokio::spawn(async move {
            let open = shared.metrics.connections.enter();
            let served = serve(stream, tls, shared.clone(), around, &presence, stop);
            until_shed(served, &presence).await;
            drop(open);
            drop(place);
        });
    }
    drop(listener);
    shared.switchboard.stop();
    // Every connection holds a place.
    let all = places.acquire_many(u32::try_from(count).unwrap_or(u32::MAX));
    if tokio::time::timeout(Duration::from_secs(LAST_SECONDS), all).await.is_err() {
        log::info!("connections that did not end are closed");
    }
}

/// Waits for the end of a connection, or that it has to make room.
async fn until_shed(served: impl Future<Output = io::Result<()>>, presence: &Presence) {
    let result = tokio::select! {
        result = served => result,
        () = presence.ended() => Err(io::Error::other("others need its place")),
    };
    if let Err(error) = result {
        log::debug!("a connection from {} ended: {error}", presence.from());
    }
}

/// How many connections may be open at once.
fn places() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(OTHER_DESCRIPTORS));
    let count = usize::try_from(allowed / DESCRIPTORS_EACH).unwrap_or(usize::MAX).clamp(LEAST, CONNECTIONS);
    if count < CONNECTIONS {
        log::info!("the limit of file descriptors allows {count} connections at once");
    }
    count
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    around: Arc<dyn Around>,
    presence: &Arc<Presence>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve_http(stream, shared, around, presence, stop).await };
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(stream) => serve_http(stream?, shared, around, presence, stop).await,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn serve_http<S>(
    stream: S,
    shared: Arc<Shared>,
    around: Arc<dyn Around>,
    presence: &Arc<Presence>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    let stream = around.stream(Box::new(UnreadLimit::new(stream, UNREAD)));
    // What the connection becomes after its last answer.
    let promise: Arc<Mutex<Option<Promise>>> = Arc::default();
    let (promised, serving, present) = (promise.clone(), shared.clone(), presence.clone());
    let standing = around.clone();
    let service = service_fn(move |request| {
        let (shared, around, presence) = (serving.clone(), standing.clone(), present.clone());
        let promised = promised.clone();
        async move {
            let mut reply = api::answered(&shared, &around, &presence, request).await;
            if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                *promised.lock().unwrap_or_else(PoisonError::into_inner) = reply.extensions_mut().remove();
            }
            Ok::<_, Infallible>(reply.map(|body| Answering::new(body, presence)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(limits::HEAD_BYTES)
        // Names of headers in any case are the same, but clients that read them out of a map look for `Location`.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stop.changed() => if around.is_abandoned() { Ok(()) } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    result.map_err(io::Error::other)?;
    let promise = promise.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(promise) = promise {
        presence.busy();
        promise.keep(&shared).await;
    }
    Ok(())
}
