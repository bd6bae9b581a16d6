//! The servers: whether a connection can be made, and whether certificates and the clock go together.
//!
//! Nothing is asked of a server: a connection is made, encrypted where the address says so, and closed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::{Clock, utc};
use device::compose::Setup;
use http::{Dates, HttpError};
use linux::clock::LinuxClock;
use linux::regular_file;

use crate::finding::{self as check, Finding, add};
use crate::world::World;

/// Servers that are tried.
const SERVERS: usize = 4;
/// Longest file with certificates or keys that is read.
const FILE_BYTES: u64 = 4 << 20;
/// When the end of a certificate is near.
const SOON_SECONDS: u64 = 30 * 24 * 3600;

/// What was found out.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) servers: Vec<(String, Outcome)>,
    pub(crate) proxy: Result<Option<String>, String>,
    /// The keys that name files with certificates, and those files with the dates of what is in them.
    pub(crate) files: Vec<(&'static str, String, Certificates)>,
    /// Why no encrypted connection can be set up.
    pub(crate) setup_error: Option<String>,
    pub(crate) skips_verification: bool,
    pub(crate) now: u64,
}

/// The dates of the certificates in a file, or why there are none.
type Certificates = Result<Vec<Dates>, String>;

/// How it went with one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not tried: told not to, or it could not be.
    NotTried,
    /// With the dates of its certificate, where it is encrypted.
    Reached(Option<Dates>),
    /// There is no connection.
    Unreachable(String),
    /// Its certificate is not accepted.
    Refused(String),
    /// It would be at another time.
    WrongTime(String),
}

pub(crate) fn gather(setup: &Setup, world: &World, connecting: Option<Duration>) -> Facts {
    let config = &setup.config;
    let client = config.https_client.as_ref();
    let named = [
        ("ServerCertificate", config.server_certificate.as_ref().filter(|path| !path.is_empty())),
        ("HttpsClient.Certificate", client.map(|client| &client.certificate)),
    ];
    let dates = |path: &String| {
        // Only asked of files: anything else might never end.
        regular_file::read(Path::new(path), FILE_BYTES).map_err(|error| error.to_string())?;
        http::certificate_dates(path).map_err(|error| error.to_string())
    };
    let files: Vec<_> =
        named.into_iter().filter_map(|(key, path)| Some((key, path?.clone(), dates(path?)))).collect();
    let mut facts = Facts {
        servers: config.servers.iter().take(SERVERS).map(|url| (url.clone(), Outcome::NotTried)).collect(),
        proxy: Ok(None),
        files,
        setup_error: None,
        skips_verification: setup.skips_verification(),
        now: world.now,
    };
    let clock: Arc<dyn Clock> = Arc::new(LinuxClock::new());
    let transport = match setup.http_transport(clock) {
        Ok(transport) => transport,
        Err(error) => {
            facts.proxy = Err(error.to_string());
            return facts;
        }
    };
    let dialer = transport.dialer();
    facts.proxy = Ok(facts.servers.iter().find_map(|(url, _)| dialer.proxy_for(url)));
    let key = client.map(|client| regular_file::read(Path::new(&client.key), FILE_BYTES).map(drop));
    let is_any_encrypted = facts.servers.iter().any(|(url, _)| is_encrypted(url));
    if let Some(Err(error)) = key {
        facts.setup_error = Some(format!("HttpsClient.Key: {error}"));
    } else if is_any_encrypted && facts.files.iter().all(|(.., dates)| dates.is_ok()) {
        facts.setup_error = transport.check().err().map(|error: HttpError| error.to_string());
    }
    let is_set_up = facts.setup_error.is_none() && facts.files.iter().all(|(.., dates)| dates.is_ok());
    if let Some(time) = connecting {
        for (url, outcome) in &mut facts.servers {
            if is_set_up || !is_encrypted(url) {
                *outcome = match dialer.reach(url, time) {
                    Ok(reached) => Outcome::Reached(reached.certificate),
                    Err(error) if error.is_refusal && error.may_pass => Outcome::WrongTime(error.reason),
                    Err(error) if error.is_refusal => Outcome::Refused(error.reason),
                    Err(error) => Outcome::Unreachable(error.reason),
                };
            }
        }
    }
    facts
}

fn is_encrypted(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

pub(crate) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut said = Vec::new();
    if facts.now < http::BUILT {
        add(
            &mut said,
            &check::CLOCK_EARLY,
            format_args!(
                "the clock says {}, and this program was built {}",
                utc(facts.now),
                utc(http::BUILT)
            ),
        );
    }
    for (key, path, dates) in &facts.files {
        match dates {
            Err(error) => add(&mut said, &check::SERVER_FILE, format_args!("{key}, {path}: {error}")),
            Ok(dates) => {
                let ended = dates.iter().filter(|dates| dates.not_after < facts.now.max(http::BUILT));
                if let Some(dates) = ended.max_by_key(|dates| dates.not_after) {
                    add(
                        &mut said,
                        &check::SERVER_FILE_EXPIRED,
                        format_args!(
                            "{key}, {path}: a certificate in it was good until {}",
                            utc(dates.not_after)
                        ),
                    );
                }
            }
        }
    }
    said.extend(facts.setup_error.iter().map(|error| check::SERVER_FILE.found(format_args!("{error}"))));
    match &facts.proxy {
        Ok(Some(proxy)) => add(
            &mut said,
            &check::SERVER_PROXY,
            format_args!("the server is reached through the proxy {proxy}"),
        ),
        Ok(None) => {}
        Err(error) => add(&mut said, &check::SERVER_PROXY_WRONG, format_args!("{error}")),
    }
    if facts.servers.is_empty() {
        add(
            &mut said,
            &check::SERVER_NONE,
            format_args!("no server is configured: the daemon has nobody to ask"),
        );
        return said;
    }
    let is_any_reached = facts.servers.iter().any(|(_, outcome)| matches!(outcome, Outcome::Reached(_)));
    for (url, outcome) in &facts.servers {
        said.extend(judge_server(facts, url, outcome, is_any_reached));
    }
    if facts.skips_verification && facts.servers.iter().any(|(url, _)| is_encrypted(url)) {
        add(
            &mut said,
            &check::SERVER_SKIP_VERIFY,
            format_args!("SkipVerify: whoever answers is taken for the server"),
        );
    }
    said
}

fn judge_server(facts: &Facts, url: &str, outcome: &Outcome, is_any_reached: bool) -> Vec<Finding> {
    let mut said = Vec::new();
    match outcome {
        Outcome::NotTried => {
            add(&mut said, &check::SERVER_NOT_ASKED, format_args!("{url}: no connection was tried"))
        }
        Outcome::Reached(dates) => {
            let until = dates.map_or_else(String::new, |dates| {
                format!(", its certificate is good until {}", utc(dates.not_after))
            });
            add(&mut said, &check::SERVER, format_args!("{url}: connected{until}"));
            if let Some(dates) =
                dates.filter(|dates| dates.not_after < facts.now.saturating_add(SOON_SECONDS))
            {
                add(
                    &mut said,
                    &check::SERVER_ENDS,
                    format_args!("{url}: its certificate is good until {}", utc(dates.not_after)),
                );
            }
        }
        Outcome::Unreachable(reason) if is_any_reached => {
            add(&mut said, &check::SERVER_FALLBACK, format_args!("{url}: {reason}"))
        }
        Outcome::Unreachable(reason) => {
            add(&mut said, &check::SERVER_UNREACHABLE, format_args!("{url}: {reason}"))
        }
        Outcome::Refused(reason) => add(&mut said, &check::SERVER_REFUSED, format_args!("{url}: {reason}")),
        Outcome::WrongTime(reason) => add(&mut said, &check::SERVER_TIME, format_args!("{url}: {reason}")),
    }
    if !is_encrypted(url) {
        add(&mut said, &check::SERVER_PLAIN, format_args!("{url} is not encrypted"));
    }
    said
}
