//! `serve`: a server until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lexopt::prelude::*;
use log::LevelFilter;
use server_core::{LogFormat, Options, Running, S3Options, Server, StartError, log_to_stderr};
use testserver::{Faults, FaultsHandle, Rule};

use crate::console::{CliError, help_of, print};
use crate::database;
use crate::mail;
use crate::notice::ServiceNotice;
use crate::value::{COUNT, DAYS, OptionValue, SECONDS, find_program};

/// More than the server has use for.
const DESCRIPTORS: u64 = 65_536;
/// More threads than any machine has processors.
const MOST_THREADS: u64 = 1024;
/// Deltas at a time: each is a process that takes one processor.
const MOST_DELTAS: u64 = 1024;
/// An exbibyte: more than any disk has, and a sum of a few of them still is a number.
const MOST_BYTES: u64 = 1 << 60;
/// The program that makes deltas.
const HOST_TOOL: &str = "rust-ota-artifact";

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
    client_authority: Option<PathBuf>,
    user: Option<String>,
    deltas: usize,
    delta_command: Option<PathBuf>,
    database: database::Typed,
    mail: mail::Typed,
    /// The options about S3 that were typed.
    of_s3: Vec<String>,
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
        client_authority: None,
        user: std::env::var("RUST_OTA_SERVER_USER").ok(),
        deltas: 0,
        delta_command: None,
        database: database::Typed::default(),
        mail: mail::Typed::default(),
        of_s3: Vec::new(),
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
            "data" => self.data = Some(OptionValue::of(name, parser)?.path()?),
            "listen" => self.listen = OptionValue::of(name, parser)?.address()?,
            "tls-cert" => self.certificate = Some(OptionValue::of(name, parser)?.file()?),
            "tls-key" => self.key = Some(OptionValue::of(name, parser)?.file()?),
            "client-ca" => self.client_authority = Some(OptionValue::of(name, parser)?.file()?),
            "user" => self.user = Some(OptionValue::of(name, parser)?.secret()?),
            "deltas" => self.deltas = OptionValue::of(name, parser)?.number(0..=MOST_DELTAS)?,
            "delta-command" => self.delta_command = Some(OptionValue::of(name, parser)?.program()?),
            "quiet" => self.level = LevelFilter::Warn,
            "verbose" => self.level = LevelFilter::Debug,
            "log-format" => {
                let format = OptionValue::of(name, parser)?.word(&["text", "json"])?;
                self.format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
            }
            "enable-faults" => {
                self.faults.get_or_insert_default();
            }
            "faults" => {
                let rules = faults(OptionValue::of(name, parser)?.file()?)?;
                self.faults.get_or_insert_default().set(rules);
            }
            name if self.database.takes(name, parser)? => {}
            name if self.mail.takes(name, parser)? => {}
            name => {
                self.changes.push(change(name, parser)?);
                if name.starts_with("s3-") {
                    self.of_s3.push(name.to_owned());
                }
            }
        }
        Ok(())
    }

    fn wanted(self) -> Result<Wanted, CliError> {
        let data = self.data.ok_or_else(|| CliError::missing("data"))?;
        let options = Options::new(data).listen(self.listen).deltas(self.deltas);
        let mut options = self.changes.into_iter().fold(options, |options, change| change(options));
        match self.of_s3.first() {
            Some(first) if self.of_s3.iter().all(|name| name != "s3-bucket") => {
                return Err(CliError::usage(format!("--{first} needs --s3-bucket")));
            }
            Some(_) | None => {}
        }
        if let Some(database) = self.database.wanted()? {
            options = options.database(database);
        }
        if let Some(smtp) = self.mail.wanted()? {
            options = options.smtp(smtp);
        }
        if self.deltas > 0 {
            let program = self.delta_command.or_else(host_tool).ok_or_else(|| {
                let deltas = self.deltas;
                CliError::usage(format!(
                    "--deltas {deltas} needs the program {HOST_TOOL}, which is neither beside this one nor in PATH: \
                     install it, or name it with --delta-command"
                ))
            })?;
            options = options.delta_command(program);
        }
        match (self.certificate, self.key, &self.client_authority) {
            (Some(certificate), Some(key), _) => options = options.tls(certificate, key),
            (None, None, None) => {}
            (None, None, Some(_)) => {
                return Err(CliError::usage("--client-ca needs --tls-cert and --tls-key".to_owned()));
            }
            (Some(_), None, _) | (None, Some(_), _) => {
                return Err(CliError::usage("--tls-cert and --tls-key belong together".to_owned()));
            }
        }
        if let Some(authority) = self.client_authority {
            options = options.client_ca(authority);
        }
        if let Some(user) = self.user {
            let parts = user.split_once(':');
            let parts = parts.filter(|(name, password)| !name.is_empty() && !password.is_empty());
            // There may be a password in it.
            let (name, password) = parts.ok_or_else(|| {
                CliError::usage(
                    "--user (or RUST_OTA_SERVER_USER) is NAME:PASSWORD, neither of them empty".to_owned(),
                )
            })?;
            options = options.user(name, password);
        }
        Ok(Wanted { options, level: self.level, format: self.format, faults: self.faults })
    }
}

/// What the option called `name` changes.
fn change(name: &str, parser: &mut lexopt::Parser) -> Result<Change, CliError> {
    // What takes no value comes first: it must not be asked for one.
    let value = |parser: &mut lexopt::Parser| OptionValue::of(name, parser);
    Ok(match name {
        "auto-accept" => Box::new(|options| options.auto_accept(true)),
        "record-terminals" => Box::new(|options| options.record_terminals(true)),
        "webhook-allow-private" => Box::new(|options| options.webhooks_may_be_private(true)),
        "s3-allow-http" => Box::new(|options| options.s3(|s3| s3.allow_http(true))),
        "s3-through-server" => Box::new(|options| options.s3(|s3| s3.through_server(true))),
        "no-v2" => Box::new(|options| options.v2(false)),
        "public-url" => {
            let url = value(parser)?.url()?;
            Box::new(move |options| options.public_url(&url))
        }
        "max-devices" => number(value(parser)?, COUNT, Options::max_devices)?,
        "link-lifetime" => number(value(parser)?, SECONDS, Options::link_lifetime_seconds)?,
        "token-lifetime" => number(value(parser)?, SECONDS, Options::token_lifetime_seconds)?,
        "max-artifact" => number(value(parser)?, 1..=MOST_BYTES, Options::max_artifact_bytes)?,
        "configuration-key" => {
            let pem = signing_key(name, &value(parser)?.file()?)?;
            Box::new(|options| options.configuration_key(pem))
        }
        "delta-key" => {
            let path = value(parser)?.file()?;
            signing_key(name, &path)?;
            // The program that reads it is started in another folder.
            let path = std::path::absolute(&path)
                .map_err(|error| CliError::Failed(format!("the delta key {}: {error}", path.display())))?;
            Box::new(|options| options.delta_key(path))
        }
        "delta-time" => number(value(parser)?, SECONDS, Options::delta_seconds)?,
        "delta-nice" => number(value(parser)?, 0..=19, Options::delta_nice)?,
        "s3-bucket" => s3(value(parser)?.text()?, S3Options::bucket),
        "s3-prefix" => s3(value(parser)?.any_text()?, S3Options::prefix),
        "s3-endpoint" => s3(value(parser)?.url()?, S3Options::endpoint),
        "s3-public-endpoint" => s3(value(parser)?.url()?, S3Options::public_endpoint),
        "s3-region" => s3(value(parser)?.text()?, S3Options::region),
        "threads" => number(value(parser)?, 1..=MOST_THREADS, Options::threads)?,
        "metrics" => {
            let address = value(parser)?.address()?;
            Box::new(move |options| options.metrics(address))
        }
        "device-requests" => number(value(parser)?, COUNT, Options::device_requests)?,
        "downloads" => number(value(parser)?, COUNT, Options::downloads)?,
        "people-requests" => number(value(parser)?, COUNT, Options::people_requests)?,
        "late" => number(value(parser)?, COUNT, Options::late_milliseconds)?,
        "device-rate" => number(value(parser)?, COUNT, Options::device_rate)?,
        "address-rate" => number(value(parser)?, COUNT, Options::address_rate)?,
        "keep-audit" => number(value(parser)?, DAYS, Options::keep_audit_days)?,
        "keep-alerts" => number(value(parser)?, DAYS, Options::keep_alerts_days)?,
        "keep-recordings" => number(value(parser)?, DAYS, Options::keep_recordings_days)?,
        "keep-webhooks" => number(value(parser)?, DAYS, Options::keep_webhooks_days)?,
        "keep-logs" => number(value(parser)?, DAYS, Options::keep_logs_days)?,
        "keep-deployments" => number(value(parser)?, DAYS, Options::keep_deployments_days)?,
        "webhook-ca" => {
            let path = value(parser)?.file()?;
            Box::new(move |options| options.webhook_authorities(&path))
        }
        "page" => {
            let folder = value(parser)?.path()?;
            Box::new(|options| options.page(folder))
        }
        unknown => return Err(lexopt::Error::UnexpectedOption(format!("--{unknown}")).into()),
    })
}

/// An option with a number.
fn number<T: TryFrom<u64> + 'static>(
    value: OptionValue<'_>,
    range: RangeInclusive<u64>,
    change: fn(Options, T) -> Options,
) -> Result<Change, CliError> {
    let number = value.number(range)?;
    Ok(Box::new(move |options| change(options, number)))
}

/// An option about S3 with a value.
fn s3(value: String, change: fn(S3Options, &str) -> S3Options) -> Change {
    Box::new(move |options| options.s3(|s3| change(s3, &value)))
}

/// The PEM of a key that signs: what does not is said now, not at the first deployment.
fn signing_key(name: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::usage(format!("--{name} is a file with a private key (PEM); {}: {error}", path.display()))
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    artifact::Signer::from_pem(&pem).map_err(|error| wrong(&error))?;
    Ok(pem)
}

/// The program that makes deltas: the one beside this program, or what `PATH` has.
fn host_tool() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|folder| folder.join(HOST_TOOL));
    beside.and_then(|path| find_program(&path)).or_else(|| find_program(Path::new(HOST_TOOL)))
}

fn faults(path: PathBuf) -> Result<Vec<Rule>, CliError> {
    let wrong = |error: &dyn std::fmt::Display| {
        CliError::usage(format!(
            "--faults is a file with a list of faults (JSON); {}: {error}",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
