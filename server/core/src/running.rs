//! A server from its start to its end, on threads of its own.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

use crate::api::surround::{Nothing, Surround};
use crate::api::{Loading, Shared, has_user, permit};
use crate::blobs::{self, BlobError, Blobs, Folder, S3, Shelf};
use crate::bodies::Bodies;
use crate::certificates::Certificates;
use crate::connect::{Switchboard, Timing};
use crate::connection;
use crate::deltas;
use crate::domain::id;
use crate::domain::limits;
use crate::domain::people::failures::Failures;
use crate::domain::people::users;
use crate::heard::{self, Heard};
use crate::mail;
use crate::metrics::{Metrics, Process};
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::options::Options;
use crate::page::Page;
use crate::places;
use crate::readiness::Readiness;
use crate::retention;
use crate::service::{ChangeError, Service};
use crate::start::StartError;
use crate::store::{Secrets, Store, StoreError, postgres, sqlite};
use crate::strangers::Strangers;
use crate::throttle::Throttle;
use crate::watched;
use crate::webhooks;
use crate::work::{Key, Kind, NotLoaded};

/// How often it is looked whether the times at which devices were heard of are to be stored.
const CHECK_IN_INTERVAL: Duration = Duration::from_secs(5);
/// Passwords that are looked at, at a time.
const DERIVED_AT_ONCE: usize = 2;
/// How long threads may go on after everything was told to stop.
const LAST: Duration = Duration::from_secs(2);
/// How often the files of the certificate are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is found out how late the server is.
const LATE_INTERVAL: Duration = Duration::from_millis(100);

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
        let metrics = Arc::new(Metrics::default());
        let certificates = Certificates::open(&options, metrics.clone())?.map(Arc::new);
        let page = open_page(&options)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("server")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let address = options.listen;
        let scheme = if certificates.is_some() { "https" } else { "http" };
        let ping = Duration::from_secs(options.ping_seconds);
        let write = Duration::from_secs(options.write_seconds);
        // An answer to a ping has a ninth of the time between two.
        let timing = Timing { ping, silence: ping * 10 / 9, write };
        // One with the fleet in it is locked with the fleet.
        let held = match options.database {
            Some(_) => Some(sqlite::hold(&options.data_dir).map_err(StartError::Store)?),
            None => None,
        };
        let (service, blobs, secrets) =
            runtime.block_on(open(&options, metrics.clone())).map_err(StartError::Store)?;
        let (heard, switchboard) = (Arc::new(Heard::default()), Arc::new(Switchboard::new(timing)));
        let (stop, stopped) = watch::channel(false);
        let (allowed, watched) = (options.allowed, options.watched);
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
            deriving: Semaphore::new(DERIVED_AT_ONCE),
            failures: Failures::default(),
            bodies: Bodies::new(limits::BODIES_AWAITED),
            throttle: Throttle::new(allowed),
            page,
            metrics,
            process: Process::new(Timestamp::now().seconds()),
            readiness: Readiness::new(stopped.clone()),
            loading: Loading::default(),
            uploading: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE)),
        });
        let (listener, address) = runtime.block_on(listen(address))?;
        let watched = match watched {
            None => None,
            Some(address) => Some(runtime.block_on(listen(address))?),
        };
        let watched_address = watched.as_ref().map(|(_, address)| *address);
        if let Some((listener, _)) = watched {
            // To the very end: it says that the server stops.
            runtime.spawn(watched::serve(listener, shared.clone()));
        }
        let accepting = runtime.spawn(connection::accept(
            listener,
            certificates.clone(),
            shared.clone(),
            around,
            stopped.clone(),
        ));
        runtime.spawn(store_check_ins(shared.clone(), stopped.clone()));
        runtime.spawn(permit::look_again(shared.clone(), stopped.clone()));
        runtime.spawn(find_out_how_late(shared.clone(), stopped.clone()));
        runtime.spawn(retention::run(
            shared.service.clone(),
            shared.options.keep,
            shared.metrics.forgotten.clone(),
            stopped.clone(),
        ));
        runtime.spawn(places::run(shared.service.clone(), stopped.clone()));
        let making = runtime.spawn(deltas::run(shared.clone(), stopped.clone()));
        runtime.spawn(webhooks::run(
            shared.service.clone(),
            shared.options.webhooks.clone(),
            shared.metrics.clone(),
            stopped.clone(),
        ));
        if let Some(post) = shared.options.post() {
            let (service, metrics) = (shared.service.clone(), shared.metrics.clone());
            runtime.spawn(mail::run(service, post, metrics, stopped.clone()));
        }
        if let Some(certificates) = certificates.clone() {
            runtime.spawn(watch_certificates(certificates, stopped));
        }
        let url = |scheme, address| format!("{scheme}://{}", reached(address));
        Ok(Running {
            url: url(scheme, address),
            port: address.port(),
            metrics_url: watched_address.map(|address| url("http", address)),
            certificates,
            shared,
            stop,
            held,
            threads: Some((runtime, accepting, making)),
        })
    }
}

fn open_page(options: &Options) -> Result<Page, StartError> {
    Page::open(options.page.as_deref()).map_err(|source| {
        let path = options.page.clone().unwrap_or_default();
        StartError::Page { path, source }
    })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// How this machine reaches what listens there.
fn reached(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], address.port())),
        false => address,
    }
}

/// A server that runs. It stops when this is dropped.
pub struct Running {
    url: String,
    port: u16,
    metrics_url: Option<String>,
    certificates: Option<Arc<Certificates>>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    /// The folder, as long as this is there.
    held: Option<sqlite::Lock>,
    threads: Option<(Runtime, tokio::task::JoinHandle<()>, tokio::task::JoinHandle<()>)>,
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

    /// Where it is for whoever watches it, if [`Options::metrics`] says that there is such a place.
    pub fn metrics_url(&self) -> Option<&str> {
        self.metrics_url.as_deref()
    }

    /// Reads the certificate, its key and the authority of clients anew. False when they cannot be used: then the old ones
    /// stay. Without TLS there is nothing to read.
    pub fn reload(&self) -> bool {
        self.certificates.as_ref().is_none_or(|certificates| certificates.read_again())
    }

    /// What opens its management API.
    pub fn management_token(&self) -> &str {
        &self.shared.secrets.management_token
    }

    /// A link for the person who is to make the first user; `None` when there is one, or when it could not be stored, which the
    /// log says. It works once, and another one ends it, also of another process on the same store.
    pub fn first_user_link(&self) -> Option<String> {
        let shared = &self.shared;
        let (runtime, ..) = self.threads.as_ref().filter(|_| !has_user(shared))?;
        let token = id::hex(&id::random::<32>().ok()?);
        let url = shared.options.public_url.as_ref().unwrap_or(&self.url);
        let link = format!("{url}/#/start/{token}");
        let keys = vec![Key::Document(Kind::Secret, users::FIRST.to_owned())];
        match runtime.block_on(shared.service.change(keys, move |work| users::invite(work, &token))) {
            Ok(()) => Some(link),
            Err(ChangeError::Refused(NotLoaded)) => None,
            Err(ChangeError::Failed(failed)) => {
                log::warn!("there is no link for the first user: {}", failed.0);
                None
            }
        }
    }

    /// Stops it: requests that are being answered get a few seconds, and everything is stored.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((runtime, accepting, making)) = self.threads.take() else { return };
        self.stop.send_replace(true);
        if let Err(error) = runtime.block_on(accepting) {
            log::error!("the server did not end as it should: {error}");
        }
        // What it makes is given back, which is stored.
        if runtime.block_on(async { tokio::time::timeout(LAST, making).await }).is_err() {
            log::warn!("deltas that are being made are made again in a minute");
        }
        let store = &self.shared.service.store;
        if let Err(error) = runtime.block_on(self.shared.heard.flush(&**store)) {
            log::error!("the last changes could not be stored: {error}");
        }
        runtime.block_on(store.stop());
        runtime.shutdown_timeout(LAST);
        // Nothing of this process writes there any more.
        drop(self.held.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The times at which devices were heard of change with every request, so they are stored now and then.
async fn store_check_ins(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let (mut stored, mut pause) = (Instant::now(), CHECK_IN_INTERVAL);
    loop {
        tokio::select! {
            () = tokio::time::sleep(std::mem::replace(&mut pause, CHECK_IN_INTERVAL)) => {}
            _ = stop.changed() => return,
        }
        if !shared.heard.is_due(stored.elapsed()) {
            continue;
        }
        stored = Instant::now();
        let store = &shared.service.store;
        if let Err(error) = shared.heard.flush(&**store).await {
            log::warn!("when devices were heard of could not be stored: {error}");
            // What is told each few seconds hides all else.
            pause = heard::INTERVAL;
        }
    }
}

/// Certificates are renewed by programs that know nothing of this one.
async fn watch_certificates(certificates: Arc<Certificates>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CERTIFICATE_INTERVAL) => {}
            _ = stop.changed() => return,
        }
        let certificates = certificates.clone();
        // It reads files. That it ends is all there is to know.
        let _ = tokio::task::spawn_blocking(move || certificates.read_if_changed()).await;
    }
}

/// Whoever waits for a moment hears of it late when the threads have too much to do: as late as a request is answered.
async fn find_out_how_late(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    loop {
        let began = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(LATE_INTERVAL) => {}
            _ = stop.changed() => return,
        }
        let late = began.elapsed().saturating_sub(LATE_INTERVAL).as_millis();
        let late = u64::try_from(late).unwrap_or(u64::MAX);
        // What was so lately is not over at once.
        shared.metrics.late.set(late.max(shared.metrics.late.value() * 3 / 4));
    }
}

/// Opens what survives: the fleet first, since its lock comes before anything else is touched.
async fn open(
    options: &Options,
    metrics: Arc<Metrics>,
) -> Result<(Service, Arc<dyn Blobs>, Secrets), StoreError> {
    let service = Service::open(open_fleet(options).await?, metrics).await?;
    let blobs = open_blobs(options).map_err(of_blobs)?;
    let secrets = match &options.database {
        Some(_) => Secrets::open_shared(&*service.store, &options.data_dir).await?,
        None => Secrets::open(&options.data_dir)?,
    };
    // Devices report, and people see their fleet, also while artifacts cannot be read.
    match blobs.list(Shelf::Artifacts).await {
        Ok(listing) => {
            let artifacts = service.catalogue.artifacts();
            // Those of configurations are at most one a device.
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
        | BlobError::NotAFile { .. }
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
    match &options.database {
        Some(database) => postgres::open(database.target()?, postgres::Sharing::Servers).await,
        None => sqlite::open(&options.data_dir),
    }
}
