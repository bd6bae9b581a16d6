//! `serve`: a server until SIGTERM or SIGINT.

use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::prelude::*;
use log::LevelFilter;
use rust_ota_server::{Options, Rule, Server, log_to_stderr};

use crate::cli::{CliError, print};

const HELP: &str = "\
rust-ota-server serve --data DIR [OPTION]...

  --data DIR              where everything is kept; made when it is not there
  --listen ADDRESS:PORT   where to listen (127.0.0.1:8080; port 0 is any that is free)
  --tls-cert FILE         speak TLS with this certificate chain (PEM)
  --tls-key FILE          and this key (PEM)
  --client-ca FILE        serve only clients with a certificate of this authority (PEM)
  --public-url URL        what download links begin with (the host of the request)
  --auto-accept           accept new devices without asking
  --max-devices N         most accepted devices (no limit)
  --link-lifetime N       seconds for which a download link opens its artifact (86400)
  --token-lifetime N      seconds for which a device's token is valid (604800)
  --max-artifact N        bytes of the largest artifact that is taken (10 GiB)
  --configuration-key FILE
                          sign generated configuration artifacts with this private key (PEM)
  --no-v2                 answer 404 to the second version of deployments/next
  --user NAME:PASSWORD    let this person log in; read from the environment variable
                          RUST_OTA_SERVER_USER when the option is not there
  --threads N             threads that serve (2)
  --enable-faults         let PUT /api/internal/v1/faults set faults: for tests
  --faults FILE           begin with the faults in FILE (JSON): for tests
  --quiet                 say only what is wrong

When it is ready it prints one line, `listening on URL`. What opens the management API is in DIR/management-token.
";

/// More than the server has use for.
const DESCRIPTORS: u64 = 65_536;

struct Wanted {
    options: Options,
    level: LevelFilter,
}

/// Serves.
pub(crate) fn run(parser: lexopt::Parser) -> Result<(), CliError> {
    let Some(wanted) = parse(parser)? else { return print(HELP) };
    log_to_stderr(wanted.level);
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(&error))?;
    // Before the line that says it is ready: whoever has read it may send the signal at once.
    let mut signals = runtime.block_on(async { Signals::new() }).map_err(|error| failed(&error))?;
    raise_descriptors();
    let running = Server::start(wanted.options).map_err(|error| failed(&error))?;
    print(&format!("listening on {}\n", running.url()))?;
    runtime.block_on(signals.wait());
    log::info!("stopping");
    running.stop();
    Ok(())
}

/// A connection needs a file descriptor, a download another one. The usual limit, 1,024, is for programs that use an old
/// way of waiting, and every process may raise it as far as its hard limit.
fn raise_descriptors() {
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

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// `None` when only help is wanted.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, CliError> {
    let mut data = None;
    let (mut certificate, mut key) = (None, None);
    let mut user = std::env::var("RUST_OTA_SERVER_USER").ok();
    let mut level = LevelFilter::Info;
    let mut changes: Vec<Box<dyn FnOnce(Options) -> Options>> = Vec::new();
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 8080));
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("data") => data = Some(PathBuf::from(parser.value()?)),
            Long("listen") => listen = parser.value()?.parse()?,
            Long("tls-cert") => certificate = Some(PathBuf::from(parser.value()?)),
            Long("tls-key") => key = Some(PathBuf::from(parser.value()?)),
            Long("client-ca") => {
                let path = PathBuf::from(parser.value()?);
                changes.push(Box::new(|options| options.client_ca(path)));
            }
            Long("public-url") => {
                let url = parser.value()?.string()?;
                changes.push(Box::new(move |options| options.public_url(&url)));
            }
            Long("auto-accept") => changes.push(Box::new(|options| options.auto_accept(true))),
            Long("max-devices") => {
                let count = parser.value()?.parse()?;
                changes.push(Box::new(move |options| options.max_devices(count)));
            }
            Long("link-lifetime") => {
                let seconds = parser.value()?.parse()?;
                changes.push(Box::new(move |options| options.link_lifetime_seconds(seconds)));
            }
            Long("token-lifetime") => {
                let seconds = parser.value()?.parse()?;
                changes.push(Box::new(move |options| options.token_lifetime_seconds(seconds)));
            }
            Long("max-artifact") => {
                let bytes = parser.value()?.parse()?;
                changes.push(Box::new(move |options| options.max_artifact_bytes(bytes)));
            }
            Long("configuration-key") => {
                let path = PathBuf::from(parser.value()?);
                let wrong = |error: &dyn std::fmt::Display| {
                    CliError::Failed(format!("the configuration key {}: {error}", path.display()))
                };
                let pem = std::fs::read(&path).map_err(|error| wrong(&error))?;
                // Now, not at the first deployment.
                artifact::Signer::from_pem(&pem).map_err(|error| wrong(&error))?;
                changes.push(Box::new(|options| options.configuration_key(pem)));
            }
            Long("threads") => {
                let count = parser.value()?.parse()?;
                changes.push(Box::new(move |options| options.threads(count)));
            }
            Long("no-v2") => changes.push(Box::new(|options| options.v2(false))),
            Long("user") => user = Some(parser.value()?.string()?),
            Long("enable-faults") => changes.push(Box::new(|options| options.enable_faults(true))),
            Long("faults") => {
                let rules = faults(PathBuf::from(parser.value()?))?;
                changes.push(Box::new(|options| options.faults(rules)));
            }
            Long("quiet") => level = LevelFilter::Warn,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    let data = data.ok_or_else(|| CliError::Failed("--data is missing (try --help)".to_owned()))?;
    let mut options =
        changes.into_iter().fold(Options::new(data).listen(listen), |options, change| change(options));
    match (certificate, key) {
        (Some(certificate), Some(key)) => options = options.tls(certificate, key),
        (None, None) => {}
        _ => return Err(CliError::Failed("--tls-cert and --tls-key belong together".to_owned())),
    }
    if let Some(user) = user {
        let (name, password) = user
            .split_once(':')
            .filter(|(name, password)| !name.is_empty() && !password.is_empty())
            .ok_or_else(|| CliError::Failed("the user is NAME:PASSWORD".to_owned()))?;
        options = options.user(name, password);
    }
    Ok(Some(Wanted { options, level }))
}

fn faults(path: PathBuf) -> Result<Vec<Rule>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}
