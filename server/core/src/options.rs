//! What a server can be told.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::blobs::S3Options;
use crate::mail::Post;
use crate::mail::smtp::SmtpOptions;
use crate::retention::Keep;
use crate::store::StoreError;
use crate::store::postgres::Target;
use crate::throttle::Allowed;
use crate::webhooks::Reach;

/// A database of PostgreSQL, which several processes may share.
#[derive(Clone)]
pub struct DatabaseOptions {
    url: String,
    password_file: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

impl fmt::Debug for DatabaseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be a password in the address.
        f.debug_struct("DatabaseOptions").finish_non_exhaustive()
    }
}

impl DatabaseOptions {
    /// By its address: `postgres://USER@HOST/NAME`, or `host=… dbname=…`. A password that is not in it comes from `PGPASSWORD`.
    pub fn new(url: &str) -> DatabaseOptions {
        DatabaseOptions { url: url.to_owned(), password_file: None, authorities: None }
    }

    /// The password is in this file.
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> DatabaseOptions {
        self.password_file = Some(path.into());
        self
    }

    /// Speak TLS, and trust what these certificates (PEM) have signed.
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> DatabaseOptions {
        self.authorities = Some(path.into());
        self
    }

    /// Reads the address and the files that go with it, and connects to nothing.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), StoreError> {
        self.target().map(drop)
    }

    pub(crate) fn target(&self) -> Result<Target, StoreError> {
        Target::parse(&self.url, self.password_file.as_deref(), self.authorities.as_deref())
    }
}

/// What a server is told when it starts. Only the data folder has to be named.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) public_url: Option<String>,
    pub(crate) auto_accept: bool,
    pub(crate) max_devices: usize,
    pub(crate) link_lifetime_seconds: u64,
    pub(crate) token_lifetime_seconds: u64,
    pub(crate) v2: bool,
    pub(crate) user: Option<(String, String)>,
    pub(crate) max_artifact_bytes: u64,
    pub(crate) read_timeout_seconds: u64,
    pub(crate) threads: usize,
    pub(crate) record_terminals: bool,
    pub(crate) ping_seconds: u64,
    pub(crate) write_seconds: u64,
    pub(crate) configuration_key: Option<Vec<u8>>,
    pub(crate) watched: Option<SocketAddr>,
    pub(crate) allowed: Allowed,
    pub(crate) keep: Keep,
    pub(crate) webhooks: Reach,
    pub(crate) smtp: Option<SmtpOptions>,
    pub(crate) deltas: usize,
    pub(crate) delta_command: PathBuf,
    pub(crate) delta_key: Option<PathBuf>,
    pub(crate) delta_seconds: u64,
    pub(crate) delta_nice: i32,
    pub(crate) s3: Option<S3Options>,
    pub(crate) database: Option<DatabaseOptions>,
    pub(crate) page: Option<PathBuf>,
}

impl Options {
    /// A server with its data in `data_dir`, on a free port of the loopback.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            client_ca: None,
            public_url: None,
            auto_accept: false,
            max_devices: 0,
            link_lifetime_seconds: 24 * 3600,
            token_lifetime_seconds: 7 * 24 * 3600,
            v2: true,
            user: None,
            max_artifact_bytes: 10 * 1024 * 1024 * 1024,
            read_timeout_seconds: 30,
            threads: 2,
            record_terminals: false,
            ping_seconds: 54,
            write_seconds: 10,
            configuration_key: None,
            watched: None,
            allowed: Allowed::default(),
            keep: Keep::default(),
            webhooks: Reach::default(),
            smtp: None,
            deltas: 0,
            delta_command: PathBuf::from("rust-ota-artifact"),
            delta_key: None,
            delta_seconds: 3600,
            delta_nice: 19,
            s3: None,
            database: None,
            page: None,
        }
    }

    /// Where to listen. Port 0 is any that is free.
    pub fn listen(mut self, address: SocketAddr) -> Options {
        self.listen = address;
        self
    }

    /// Speak TLS with this certificate chain and key, both PEM.
    pub fn tls(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Options {
        self.tls = Some((certificate.into(), key.into()));
        self
    }

    /// Serve only clients with a certificate of this authority (PEM). Needs [`Options::tls`].
    pub fn client_ca(mut self, certificate: impl Into<PathBuf>) -> Options {
        self.client_ca = Some(certificate.into());
        self
    }

    /// What links begin with. By default it is taken from the `Host` header of the request.
    pub fn public_url(mut self, url: &str) -> Options {
        self.public_url = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// Accept new devices without asking anybody. A second key of a device is not accepted that way.
    pub fn auto_accept(mut self, yes: bool) -> Options {
        self.auto_accept = yes;
        self
    }

    /// Sign generated configuration artifacts with this private key (PEM). Without one they are not signed, and devices that
    /// have a verification key refuse them.
    pub fn configuration_key(mut self, pem: impl Into<Vec<u8>>) -> Options {
        self.configuration_key = Some(pem.into());
        self
    }

    /// Keep artifacts in S3 and not in the data folder: what is said there already is changed by `change`.
    pub fn s3(mut self, change: impl FnOnce(S3Options) -> S3Options) -> Options {
        self.s3 = Some(change(self.s3.unwrap_or_default()));
        self
    }

    /// Keep the fleet in a database and not in the data folder.
    pub fn database(mut self, database: DatabaseOptions) -> Options {
        self.database = Some(database);
        self
    }

    /// Most accepted devices; 0 is no limit.
    pub fn max_devices(mut self, count: usize) -> Options {
        self.max_devices = count;
        self
    }

    /// How long a download link opens its artifact.
    pub fn link_lifetime_seconds(mut self, seconds: u64) -> Options {
        self.link_lifetime_seconds = seconds;
        self
    }

    /// How long a device's token is valid.
    pub fn token_lifetime_seconds(mut self, seconds: u64) -> Options {
        self.token_lifetime_seconds = seconds;
        self
    }

    /// Whether `deployments/next` exists in its second version. The open-source server has only the first.
    pub fn v2(mut self, yes: bool) -> Options {
        self.v2 = yes;
        self
    }

    /// A person who may log in with a name and a password.
    pub fn user(mut self, name: &str, password: &str) -> Options {
        self.user = Some((name.to_owned(), password.to_owned()));
        self
    }

    /// The largest artifact that is taken.
    pub fn max_artifact_bytes(mut self, bytes: u64) -> Options {
        self.max_artifact_bytes = bytes;
        self
    }

    /// How long a client may take for the head of a request, and again for its body.
    pub fn read_timeout_seconds(mut self, seconds: u64) -> Options {
        self.read_timeout_seconds = seconds.max(1);
        self
    }

    /// How often a WebSocket is pinged. One that says nothing for a ninth longer is closed: 54 and 60 seconds, as
    /// `mender-connect` has it.
    pub fn websocket_ping_seconds(mut self, seconds: u64) -> Options {
        self.ping_seconds = seconds.max(1);
        self
    }

    /// How long the other side of a WebSocket may take for one frame.
    pub fn websocket_write_seconds(mut self, seconds: u64) -> Options {
        self.write_seconds = seconds.max(1);
        self
    }

    /// Also listen here, for whoever watches the server: `GET /metrics`, and whether it works. It is not encrypted and asks
    /// for no token, so it is for an address that only those reach. Port 0 is any that is free.
    pub fn metrics(mut self, address: SocketAddr) -> Options {
        self.watched = Some(address);
        self
    }

    /// Requests of devices that are answered at one time; 0 is no limit. To more the server answers 429.
    pub fn device_requests(mut self, count: u64) -> Options {
        self.allowed.devices = count;
        self
    }

    /// Artifacts that are sent at one time; 0 is no limit.
    pub fn downloads(mut self, count: u64) -> Options {
        self.allowed.downloads = count;
        self
    }

    /// Requests of people that are answered at one time; 0 is no limit.
    pub fn people_requests(mut self, count: u64) -> Options {
        self.allowed.people = count;
        self
    }

    /// How late the server may be with what it wants to do before it answers an eighth of the devices only; 0 is no limit.
    pub fn late_milliseconds(mut self, milliseconds: u64) -> Options {
        self.allowed.late_milliseconds = milliseconds;
        self
    }

    /// Requests of one device in a second, and ten times as many at once; 0 is no limit.
    pub fn device_rate(mut self, count: u64) -> Options {
        self.allowed.device_rate = count;
        self
    }

    /// Requests of one address in a second, and ten times as many at once; 0, as it is at first, is no limit: behind a proxy
    /// all devices have one address.
    pub fn address_rate(mut self, count: u64) -> Options {
        self.allowed.address_rate = count;
        self
    }

    /// For how many days it is kept what people did; 0 is for ever.
    pub fn keep_audit_days(mut self, days: u64) -> Options {
        self.keep.audit = days;
        self
    }

    /// For how many days alerts of monitors are kept; 0 is for ever.
    pub fn keep_alerts_days(mut self, days: u64) -> Options {
        self.keep.alerts = days;
        self
    }

    /// Record what terminals of devices print, for [`Options::keep_recordings_days`].
    pub fn record_terminals(mut self, yes: bool) -> Options {
        self.record_terminals = yes;
        self
    }

    /// For how many days recorded terminals are kept; 0 is for ever.
    pub fn keep_recordings_days(mut self, days: u64) -> Options {
        self.keep.recordings = days;
        self
    }

    /// For how many days it is kept what webhooks were told and what they answered; 0 is for ever.
    pub fn keep_webhooks_days(mut self, days: u64) -> Options {
        self.keep.webhooks = days;
        self
    }

    /// Make so many deltas at once for deployments that want them; 0, as it is at first, is none.
    pub fn deltas(mut self, count: usize) -> Options {
        self.deltas = count;
        self
    }

    /// The program that makes deltas: `rust-ota-artifact`, which is looked for in `PATH` when it has no folder.
    pub fn delta_command(mut self, program: impl Into<PathBuf>) -> Options {
        self.delta_command = program.into();
        self
    }

    /// Sign deltas with the private key (PEM) in this file, by its absolute path. Without one no delta is made of a signed
    /// artifact.
    pub fn delta_key(mut self, path: impl Into<PathBuf>) -> Options {
        self.delta_key = Some(path.into());
        self
    }

    /// How many seconds the program may take for one delta.
    pub fn delta_seconds(mut self, seconds: u64) -> Options {
        self.delta_seconds = seconds.max(1);
        self
    }

    /// How much that program gives way to others: from 0, as little as the server, to 19, to all.
    pub fn delta_nice(mut self, nice: u8) -> Options {
        self.delta_nice = i32::from(nice.min(19));
        self
    }

    /// For how many days logs of devices are kept, from when the device was done; 0 is for ever.
    pub fn keep_logs_days(mut self, days: u64) -> Options {
        self.keep.logs = days;
        self
    }

    /// For how many days deployments are kept, from their end; 0, as it is at first, is for ever.
    pub fn keep_deployments_days(mut self, days: u64) -> Options {
        self.keep.deployments = days;
        self
    }

    /// Tell webhooks also at addresses that are not of the public network, such as this machine's own.
    pub fn webhooks_may_be_private(mut self, may: bool) -> Options {
        self.webhooks.private = may;
        self
    }

    /// Trust these authorities (PEM) of webhooks in place of the system's.
    pub fn webhook_authorities(mut self, path: &std::path::Path) -> Options {
        self.webhooks.authorities = Some(path.to_owned());
        self
    }

    /// Send mails about alerts by this server. Who gets them is set by people.
    pub fn smtp(mut self, smtp: SmtpOptions) -> Options {
        self.smtp = Some(smtp);
        self
    }

    /// How mails are sent, if they are.
    pub(crate) fn post(&self) -> Option<Post> {
        let smtp = self.smtp.clone()?;
        Some(Post { smtp, public_url: self.public_url.clone() })
    }

    /// Serve the page for people from this folder, as it is each time, and not the one in the program: for whoever changes it.
    pub fn page(mut self, folder: impl Into<PathBuf>) -> Options {
        self.page = Some(folder.into());
        self
    }

    /// Threads that serve requests.
    pub fn threads(mut self, count: usize) -> Options {
        self.threads = count.max(1);
        self
    }
}
