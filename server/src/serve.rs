//! `serve`: a server until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lexopt::prelude::*;
use log::LevelFilter;
use server_core::{LogFormat, Options, Running, S3Options, Server, StartError, log_to_stderr};
use testserver::{Faults, FaultsHandle, Rule};

use crate::console::{CliError, help_of, print};
use crate::database;
use crate::notice::ServiceNotice;

/// More than the server has use for.
const DESCRIPTORS: u64 = 65_536;

struct Wanted {
    options: Options,
    level: LevelFilter,
    format: LogFormat,
    /// What tests have on order; without it nothing stands around the server.
    faults: Option<FaultsHandle>,
}

impl Wanted {
    fn start(self) -> Result<Running, StartError> {
        match self.faults {
            Some(faults) => Server::start_within(self.options, Arc::new(Faults::new(faults))),
            None => Server::start(self.options),
        }
    }
}

/// Serves.
pub(crate) fn run(parser: lexopt::Parser) -> Result<(), CliError> {
    let Some(wanted) = parse(parser)? else { return help_of("serve") };
    log_to_stderr(wanted.level, wanted.format);
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    // Before the line that says it is ready: whoever has read it may send the signal at once.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(|error| failed(&error))?;
    raise_descriptors();
    let running = wanted.start().map_err(|error| failed(&error))?;
    let manager = ServiceNotice::of_environment();
    // In one piece: whoever reads the first line may close the other end behind it.
    print(&said(&running))?;
    manager.tell("READY=1");
    while runtime.block_on(signals.wait()) == Wish::Reload {
        manager.tell_reloading();
        running.reload();
        manager.tell("READY=1");
    }
    log::info!("stopping");
    manager.tell("STOPPING=1");
    running.stop();
    Ok(())
}

/// What is printed when it is ready.
fn said(running: &Running) -> String {
    let mut said = format!("listening on {}\n", running.url());
    if let Some(url) = running.metrics_url() {
        said += &format!("metrics on {url}/metrics\n");
    }
    if let Some(link) = running.first_user_link() {
        said += &format!("there is no user yet; make the first one at {link}\n");
    }
    said
}

/// A connection needs a file descriptor, a download another one. The usual limit, 1,024, is for programs that use an old
/// way of waiting, and every process may raise it as far as its hard limit.
pub(crate) fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        log::warn!("the limit of file descriptors could not be raised: {error}");
    }
}

/// What a signal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Reload,
    Stop,
}

struct Signals {
    hang_up: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

/// What an option changes.
type Change = Box<dyn FnOnce(Options) -> Options>;

/// What was typed so far.
struct Typed {
    data: Option<PathBuf>,
    listen: SocketAddr,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    user: Option<String>,
    database: database::Typed,
    level: LevelFilter,
    format: LogFormat,
    faults: Option<FaultsHandle>,
    changes: Vec<Change>,
}

/// `None` when only help is wanted.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, CliError> {
    let mut typed = Typed {
        data: None,
        listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        certificate: None,
        key: None,
        user: std::env::var("RUST_OTA_SERVER_USER").ok(),
        database: database::Typed::default(),
        level: LevelFilter::Info,
        format: LogFormat::Text,
        faults: None,
        changes: Vec::new(),
    };
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return Ok(None),
            Long(name) => name.to_owned(),
            other @ (Short(_) | Value(_)) => return Err(other.unexpected().into()),
        };
        typed.option(&name, &mut parser)?;
    }
    typed.wanted().map(Some)
}

impl Typed {
    fn option(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<(), CliError> {
        match name {
            "data" => self.data = Some(parser.value()?.into()),
            "listen" => self.listen = parser.value()?.parse()?,
            "tls-cert" => self.certificate = Some(parser.value()?.into()),
            "tls-key" => self.key = Some(parser.value()?.into()),
            "user" => self.user = Some(parser.value()?.string()?),
            "quiet" => self.level = LevelFilter::Warn,
            "verbose" => self.level = LevelFilter::Debug,
            "log-format" => {
                self.format = match parser.value()?.string()?.as_str() {
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    other => return Err(CliError::Failed(format!("{other:?} is no format of a log"))),
                }
            }
            "enable-faults" => {
                self.faults.get_or_insert_default();
            }
            "faults" => {
                let rules = faults(parser.value()?.into())?;
                self.faults.get_or_insert_default().set(rules);
            }
            name if self.database.takes(name, parser)? => {}
            name => self.changes.push(change(name, parser)?),
        }
        Ok(())
    }

    fn wanted(self) -> Result<Wanted, CliError> {
        let data = self.data.ok_or_else(|| CliError::Failed("--data is missing (try --help)".to_owned()))?;
        let options = Options::new(data).listen(self.listen).delta_command(host_tool());
        let mut options = self.changes.into_iter().fold(options, |options, change| change(options));
        if let Some(database) = self.database.wanted()? {
            options = options.database(database);
        }
        match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => options = options.tls(certificate, key),
            (None, None) => {}
            _ => return Err(CliError::Failed("--tls-cert and --tls-key belong together".to_owned())),
        }
        if let Some(user) = self.user {
            let (name, password) = user
                .split_once(':')
                .filter(|(name, password)| !name.is_empty() && !password.is_empty())
                .ok_or_else(|| CliError::Failed("the user is NAME:PASSWORD".to_owned()))?;
            options = options.user(name, password);
        }
        Ok(Wanted { options, level: self.level, format: self.format, faults: self.faults })
    }
}

/// What the option called `name` changes.
fn change(name: &str, parser: &mut lexopt::Parser) -> Result<Change, CliError> {
    Ok(match name {
        "client-ca" => {
            let path = PathBuf::from(parser.value()?);
            Box::new(|options| options.client_ca(path))
        }
        "public-url" => {
            let url = parser.value()?.string()?;
            Box::new(move |options| options.public_url(&url))
        }
        "auto-accept" => Box::new(|options| options.auto_accept(true)),
        "max-devices" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.max_devices(count))
        }
        "link-lifetime" => {
            let seconds = parser.value()?.parse()?;
            Box::new(move |options| options.link_lifetime_seconds(seconds))
        }
        "token-lifetime" => {
            let seconds = parser.value()?.parse()?;
            Box::new(move |options| options.token_lifetime_seconds(seconds))
        }
        "max-artifact" => {
            let bytes = parser.value()?.parse()?;
            Box::new(move |options| options.max_artifact_bytes(bytes))
        }
        "configuration-key" => {
            let pem = signing_key("configuration key", &PathBuf::from(parser.value()?))?;
            Box::new(|options| options.configuration_key(pem))
        }
        "deltas" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.deltas(count))
        }
        "delta-command" => {
            let path = PathBuf::from(parser.value()?);
            // It is started in another folder; a bare name is looked for in PATH.
            let is_bare = path.components().count() == 1 && !path.is_absolute();
            let path = if is_bare { Ok(path) } else { std::path::absolute(&path) };
            let path = path.map_err(|error| CliError::Failed(format!("the program for deltas: {error}")))?;
            Box::new(|options| options.delta_command(path))
        }
        "delta-key" => {
            let path = PathBuf::from(parser.value()?);
            signing_key("delta key", &path)?;
            // The program that reads it is started in another folder.
            let path = std::path::absolute(&path)
                .map_err(|error| CliError::Failed(format!("the delta key {}: {error}", path.display())))?;
            Box::new(|options| options.delta_key(path))
        }
        "delta-time" => {
            let seconds = parser.value()?.parse()?;
            Box::new(move |options| options.delta_seconds(seconds))
        }
        "s3-bucket" => s3(parser, S3Options::bucket)?,
        "s3-prefix" => s3(parser, S3Options::prefix)?,
        "s3-endpoint" => s3(parser, S3Options::endpoint)?,
        "s3-public-endpoint" => s3(parser, S3Options::public_endpoint)?,
        "s3-region" => s3(parser, S3Options::region)?,
        "s3-allow-http" => Box::new(|options| options.s3(|s3| s3.allow_http(true))),
        "s3-through-server" => Box::new(|options| options.s3(|s3| s3.through_server(true))),
        "threads" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.threads(count))
        }
        "metrics" => {
            let address = parser.value()?.parse()?;
            Box::new(move |options| options.metrics(address))
        }
        "device-requests" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.device_requests(count))
        }
        "downloads" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.downloads(count))
        }
        "people-requests" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.people_requests(count))
        }
        "late" => {
            let milliseconds = parser.value()?.parse()?;
            Box::new(move |options| options.late_milliseconds(milliseconds))
        }
        "device-rate" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.device_rate(count))
        }
        "keep-audit" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_audit_days(days))
        }
        "keep-alerts" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_alerts_days(days))
        }
        "record-terminals" => Box::new(|options| options.record_terminals(true)),
        "keep-recordings" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_recordings_days(days))
        }
        "keep-webhooks" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_webhooks_days(days))
        }
        "webhook-allow-private" => Box::new(|options| options.webhooks_may_be_private(true)),
        "webhook-ca" => {
            let path = PathBuf::from(parser.value()?);
            Box::new(move |options| options.webhook_authorities(&path))
        }
        "keep-logs" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_logs_days(days))
        }
        "keep-deployments" => {
            let days = parser.value()?.parse()?;
            Box::new(move |options| options.keep_deployments_days(days))
        }
        "address-rate" => {
            let count = parser.value()?.parse()?;
            Box::new(move |options| options.address_rate(count))
        }
        "page" => {
            let folder = PathBuf::from(parser.value()?);
            Box::new(|options| options.page(folder))
        }
        "no-v2" => Box::new(|options| options.v2(false)),
        unknown => return Err(lexopt::Error::UnexpectedOption(format!("--{unknown}")).into()),
    })
}

/// An option about S3 with a value.
fn s3(parser: &mut lexopt::Parser, change: fn(S3Options, &str) -> S3Options) -> Result<Change, CliError> {
    let value = parser.value()?.string()?;
    Ok(Box::new(move |options| options.s3(|s3| change(s3, &value))))
}

/// The PEM of a key that signs: what does not is said now, not at the first deployment.
fn signing_key(what: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    let wrong =
        |error: &dyn std::fmt::Display| CliError::Failed(format!("the {what} {}: {error}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    artifact::Signer::from_pem(&pem).map_err(|error| wrong(&error))?;
    Ok(pem)
}

/// The program that makes deltas: the one beside this program, or what `PATH` has.
fn host_tool() -> PathBuf {
    const NAME: &str = "rust-ota-artifact";
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(NAME));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(NAME))
}

fn faults(path: PathBuf) -> Result<Vec<Rule>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}
