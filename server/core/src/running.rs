//! A server from its start to its end, on threads of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;

use crate::api::Shared;
use crate::api::surround::{Nothing, Surround};
use crate::blobs::{self, BlobError, Blobs, Folder, S3, Shelf};
use crate::connect::{Switchboard, Timing};
use crate::connection;
use crate::domain::limits;
use crate::domain::model::Artifact;
use crate::heard::Heard;
use crate::options::Options;
use crate::service::Service;
use crate::store::work::Kind;
use crate::store::{Secrets, Store, StoreError, sqlite};
use crate::strangers::Strangers;

/// How often the times at which devices were heard of are stored.
const CHECK_IN_INTERVAL: Duration = Duration::from_secs(60);
/// How long threads may go on after everything was told to stop.
const LAST: Duration = Duration::from_secs(2);

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder.
    Store(StoreError),
    /// The address.
    Listen {
        /// Where.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// Certificates or keys.
    Tls {
        /// What is wrong.
        reason: String,
    },
    /// A certificate of clients without TLS.
    ClientCaWithoutTls,
    /// The threads.
    Threads(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => error.fmt(f),
            StartError::Listen { address, source } => write!(f, "listening on {address}: {source}"),
            StartError::Tls { reason } => write!(f, "TLS: {reason}"),
            StartError::ClientCaWithoutTls => {
                write!(f, "certificates of clients need a certificate of the server")
            }
            StartError::Threads(error) => write!(f, "starting threads: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server. It has read its data and listens when this returns.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(options: Options) -> Result<Running, StartError> {
        Server::start_within(options, Arc::new(Nothing))
    }

    /// Starts a server with something around each of its connections.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start_within(options: Options, around: Arc<dyn Surround>) -> Result<Running, StartError> {
        let tls = tls(&options)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("server")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let address = options.listen;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let ping = Duration::from_secs(options.ping_seconds);
        let write = Duration::from_secs(options.write_seconds);
        // An answer to a ping has a ninth of the time between two.
        let timing = Timing { ping, silence: ping * 10 / 9, write };
        let (service, blobs, secrets) = runtime.block_on(open(&options)).map_err(StartError::Store)?;
        let (heard, switchboard) = (Arc::new(Heard::default()), Arc::new(Switchboard::new(timing)));
        service.store.watch(heard.clone());
        service.store.watch(switchboard.clone());
        let shared = Arc::new(Shared {
            options,
            service,
            secrets,
            blobs,
            heard,
            switchboard,
            strangers: Strangers::default(),
            discarding: Semaphore::new(limits::DISCARDED_AT_ONCE),
            uploading: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE)),
        });
        let listen = |source| StartError::Listen { address, source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopped) = watch::channel(false);
        let accepting = runtime.spawn(connection::accept(
            listener,
            tls.map(TlsAcceptor::from),
            shared.clone(),
            around,
            stopped.clone(),
        ));
        runtime.spawn(store_check_ins(shared.clone(), stopped));
        let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { host(address) };
        Ok(Running {
            url: format!("{scheme}://{host}:{}", address.port()),
            port: address.port(),
            shared,
            stop,
            threads: Some((runtime, accepting)),
        })
    }
}

fn host(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    }
}

/// A server that runs. It stops when this is dropped.
pub struct Running {
    url: String,
    port: u16,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Option<(Runtime, tokio::task::JoinHandle<()>)>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Running {
    /// Where it is, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What opens its management API.
    pub fn management_token(&self) -> &str {
        &self.shared.secrets.management_token
    }

    /// Stops it: requests that are being answered get a few seconds, and everything is stored.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((runtime, accepting)) = self.threads.take() else { return };
        self.stop.send_replace(true);
        if let Err(error) = runtime.block_on(accepting) {
            log::error!("the server did not end as it should: {error}");
        }
        let store = &self.shared.service.store;
        if let Err(error) = runtime.block_on(self.shared.heard.flush(&**store)) {
            log::error!("the last changes could not be stored: {error}");
        }
        runtime.block_on(store.stop());
        runtime.shutdown_timeout(LAST);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The times at which devices were heard of change with every request, so they are stored now and then.
async fn store_check_ins(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK_IN_INTERVAL) => {}
            _ = stop.changed() => return,
        }
        let store = &shared.service.store;
        if let Err(error) = shared.heard.flush(&**store).await {
            log::warn!("when devices were heard of could not be stored: {error}");
        }
    }
}

/// Opens what survives: the fleet first, since its lock comes before anything else is touched.
async fn open(options: &Options) -> Result<(Service, Arc<dyn Blobs>, Secrets), StoreError> {
    let service = Service::open(open_fleet(options).await?).await?;
    let blobs = open_blobs(options).map_err(of_blobs)?;
    let secrets = Secrets::open(&options.data_dir)?;
    // Devices report, and people see their fleet, also while artifacts cannot be read.
    match blobs.list(Shelf::Artifacts).await {
        Ok(listing) => {
            let artifacts = service.catalogue.artifacts();
            // Those of configurations are few: only of deployments that go on.
            let made = service.store.documents(Kind::MadeArtifact).await?;
            let made: Vec<Artifact> =
                made.into_iter().filter_map(|(_, value)| serde_json::from_value(value).ok()).collect();
            blobs::look_through(&listing, artifacts.iter().map(|artifact| &**artifact).chain(&made));
        }
        Err(error) => log::error!("artifacts cannot be looked through: {error}"),
    }
    Ok((service, blobs, secrets))
}

fn of_blobs(error: BlobError) -> StoreError {
    let reason = error.to_string();
    match error {
        BlobError::Io { doing, path, source } => StoreError::Io { doing, path, source },
        BlobError::Missing { .. }
        | BlobError::Damaged { .. }
        | BlobError::TooLarge { .. }
        | BlobError::Unreachable { .. }
        | BlobError::Refused { .. }
        | BlobError::Lies { .. }
        | BlobError::Settings { .. } => StoreError::Artifacts { reason },
    }
}

/// The artifacts, wherever they are kept.
fn open_blobs(options: &Options) -> Result<Arc<dyn Blobs>, BlobError> {
    match &options.s3 {
        Some(s3) => Ok(Arc::new(S3::open(s3)?)),
        None => Ok(Arc::new(Folder::open(&options.data_dir)?)),
    }
}

/// The fleet, wherever it is kept.
async fn open_fleet(options: &Options) -> Result<Arc<dyn Store>, StoreError> {
    sqlite::open(&options.data_dir)
}

fn tls(options: &Options) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let Some((certificate, key)) = &options.tls else {
        return match options.client_ca {
            None => Ok(None),
            Some(_) => Err(StartError::ClientCaWithoutTls),
        };
    };
    let wrong = |reason: String| StartError::Tls { reason };
    let certificates = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| wrong(format!("the key in {}: {error}", key.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong(format!("{}: {error}", path.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(certificates, key).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(Arc::new(config)))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let wrong = |error: String| StartError::Tls { reason: format!("{}: {error}", path.display()) };
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let all = all.map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("there is no certificate in it".to_owned())) } else { Ok(all) }
}
