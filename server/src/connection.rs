//! Connections: accepted, decrypted, and served until they end or the server does.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
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

use crate::api::{self, Promise, Shared};
use crate::domain::limits;
use crate::faults::io::{Bender, BentStream};

/// Open at once. More wait to be accepted: each needs a file descriptor and some memory.
const CONNECTIONS: usize = 16_384;
/// How long requests may go on after the server was told to stop.
const LAST_SECONDS: u64 = 5;

/// How long a client may leave an answer unread. Long: a device that writes to slow flash reads nothing meanwhile, and
/// to cut it off would cost it one of its few attempts to resume.
const UNREAD: Duration = Duration::from_secs(300);

/// Serves until `stop` says so.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly there are no file descriptors left; some will be when a connection ends.
                log::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, shared, stop) = (tls.clone(), shared.clone(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve(stream, tls, shared, stop).await {
                log::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    shared.switchboard.stop();
    // Every connection holds a place.
    let all = places.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX));
    if tokio::time::timeout(Duration::from_secs(LAST_SECONDS), all).await.is_err() {
        log::info!("connections that did not end are closed");
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A connection that is gone already has no other end.
    let peer = stream.peer_addr().ok();
    let Some(tls) = tls else { return serve_http(stream, peer, shared, stop).await };
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(stream) => serve_http(stream?, peer, shared, stop).await,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn serve_http<S>(
    stream: S,
    peer: Option<SocketAddr>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    let bender = Bender::default();
    let stream = BentStream::new(stream, bender.clone(), UNREAD);
    let bent = bender.clone();
    // What the connection becomes after its last answer.
    let promise: Arc<Mutex<Option<Promise>>> = Arc::default();
    let (promised, serving) = (promise.clone(), shared.clone());
    let service = service_fn(move |request| {
        let (shared, bender) = (serving.clone(), bent.clone());
        let promised = promised.clone();
        async move {
            let mut reply = api::serve(&shared, &bender, peer, request).await;
            if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                *promised.lock().unwrap_or_else(PoisonError::into_inner) = reply.extensions_mut().remove();
            }
            Ok::<_, Infallible>(reply)
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
        // Nobody waits for a fault.
        _ = stop.changed() => if bender.is_bent() { Ok(()) } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    result.map_err(io::Error::other)?;
    let promise = promise.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(promise) = promise {
        promise.keep(&shared).await;
    }
    Ok(())
}
