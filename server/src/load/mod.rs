//! `load`: many devices that ask one server, and how long it takes to answer them.

mod device;
mod http;
mod measure;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lexopt::prelude::*;
use serde_json::json;
use tokio::time::Instant;

use crate::console::{CliError, help_of, print};
use crate::value::{COUNT, OptionValue, SOME};
use device::LoadDevice;
use http::Connection;
pub(crate) use http::{Head, head};
use measure::Measured;

/// Why a question has no answer.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The connection.
    Io(std::io::Error),
    /// The answer is not HTTP as this server speaks it.
    NotHttp,
    /// Another status than expected.
    Status(u16, String),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Io(error) => write!(f, "{error}"),
            LoadError::NotHttp => write!(f, "the answer is not HTTP"),
            LoadError::Status(status, body) => write!(f, "the server answered {status}: {body}"),
        }
    }
}

impl From<std::io::Error> for LoadError {
    fn from(error: std::io::Error) -> LoadError {
        LoadError::Io(error)
    }
}

struct Wanted {
    host: String,
    devices: usize,
    seconds: u64,
    rate: Option<f64>,
    connections: usize,
    keep_alive: bool,
    token: Option<String>,
    json: bool,
    not_loopback: bool,
}

/// Puts load on a server.
pub(crate) fn run(parser: lexopt::Parser) -> Result<(), CliError> {
    let Some(wanted) = parse(parser)? else { return help_of("load") };
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(error.to_string());
    let address = address(&wanted.host, wanted.not_loopback)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| failed(&error))?.block_on(load(wanted, address))
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, CliError> {
    let mut host = None;
    let mut wanted = Wanted {
        host: String::new(),
        devices: 1000,
        seconds: 10,
        rate: None,
        connections: 64,
        keep_alive: true,
        token: None,
        json: false,
        not_loopback: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("server") => {
                host = Some(host_of(OptionValue::of("server", &mut parser)?)?);
            }
            Long("devices") => wanted.devices = OptionValue::of("devices", &mut parser)?.number(SOME)?,
            Long("seconds") => wanted.seconds = OptionValue::of("seconds", &mut parser)?.number(COUNT)?,
            Long("rate") => wanted.rate = Some(OptionValue::of("rate", &mut parser)?.fraction()?),
            Long("connections") => {
                wanted.connections = OptionValue::of("connections", &mut parser)?.number(SOME)?;
            }
            Long("keep-alive") => {
                wanted.keep_alive = keep_alive(OptionValue::of("keep-alive", &mut parser)?)?
            }
            Long("token-file") => {
                let path = OptionValue::of("token-file", &mut parser)?.file()?;
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?;
                wanted.token = Some(text.trim().to_owned());
            }
            Long("json") => wanted.json = true,
            Long("not-loopback") => wanted.not_loopback = true,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    wanted.host = host.ok_or_else(|| CliError::missing("server"))?;
    Ok(Some(wanted))
}

/// The host and port in the address of a server.
pub(crate) fn host_of(url: OptionValue<'_>) -> Result<String, CliError> {
    let wrong = url.refused("http://HOST:PORT");
    let url = url.url().unwrap_or_default();
    url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned()).ok_or(wrong)
}

/// Whether connections stay open.
pub(crate) fn keep_alive(value: OptionValue<'_>) -> Result<bool, CliError> {
    Ok(value.word(&["yes", "no"])? == "yes")
}

/// Where the server is. Every address of the name has to be one of this machine.
pub(crate) fn address(host: &str, not_loopback: bool) -> Result<SocketAddr, CliError> {
    let failed = |why: String| CliError::Failed(format!("{host}: {why}"));
    let all: Vec<SocketAddr> = host.to_socket_addrs().map_err(|error| failed(error.to_string()))?.collect();
    if !not_loopback && all.iter().any(|address| !address.ip().is_loopback()) {
        return Err(failed("not on this machine; --not-loopback allows it".to_owned()));
    }
    all.first().copied().ok_or_else(|| failed("no address".to_owned()))
}

async fn load(wanted: Wanted, address: SocketAddr) -> Result<(), CliError> {
    let failed = |error: LoadError| CliError::Failed(error.to_string());
    let made = Instant::now();
    let mut devices = Vec::with_capacity(wanted.devices);
    for number in 0..wanted.devices {
        let device = LoadDevice::new(number);
        devices.push(device.ok_or_else(|| CliError::Failed("no random numbers".to_owned()))?);
    }
    let making = made.elapsed();
    let shared = Arc::new(Shared {
        host: wanted.host.clone(),
        address,
        keep_alive: wanted.keep_alive,
        token: wanted.token.clone(),
    });

    let started = Instant::now();
    let authenticated = authenticate(&shared, devices, wanted.connections).await.map_err(failed)?;
    let (polls, mut authentication) = authenticated;
    authentication.seconds = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let mut polling = poll(&shared, Arc::new(polls), &wanted, started).await;
    polling.seconds = started.elapsed().as_secs_f64();

    if wanted.json {
        let all = json!({
            "devices": wanted.devices,
            "connections": wanted.connections,
            "keep_alive": wanted.keep_alive,
            "authentication": authentication.json(),
            "polls": polling.json(),
        });
        return print(&format!("{all}\n"));
    }
    print(&format!(
        "devices: {} (keys made in {:.1} s), connections: {}, keep-alive: {}\nauthentication: {authentication}\npolls: {polling}\n",
        wanted.devices,
        making.as_secs_f64(),
        wanted.connections,
        if wanted.keep_alive { "yes" } else { "no" },
    ))
}

/// What every connection needs to know.
struct Shared {
    host: String,
    address: SocketAddr,
    keep_alive: bool,
    token: Option<String>,
}

/// Lets every device get its token, and gives the bytes of its later question.
async fn authenticate(
    shared: &Arc<Shared>,
    devices: Vec<LoadDevice>,
    connections: usize,
) -> Result<(Vec<Vec<u8>>, Measured), LoadError> {
    let devices = Arc::new(devices);
    let turn = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (shared, devices, turn) = (shared.clone(), devices.clone(), turn.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::new(shared.address, shared.keep_alive);
            let mut measured = Measured::default();
            let mut polls = Vec::new();
            while let Some(device) = devices.get(turn.fetch_add(1, Ordering::Relaxed)) {
                if let Some(token) = &shared.token {
                    let answer = connection.ask(&device.preauthorization(&shared.host, token)).await?;
                    if answer.status != 201 {
                        return Err(LoadError::Status(answer.status, answer.body));
                    }
                }
                let begun = Instant::now();
                let answer = connection.ask(&device.auth_request(&shared.host, shared.keep_alive)).await?;
                if answer.status != 200 {
                    return Err(LoadError::Status(answer.status, answer.body));
                }
                measured.add(begun.elapsed());
                polls.push(LoadDevice::poll(&shared.host, &answer.body, shared.keep_alive));
            }
            Ok((polls, measured))
        }));
    }
    let (mut polls, mut measured) = (Vec::new(), Measured::default());
    for task in tasks {
        let (some, own) = task.await.map_err(|error| LoadError::Io(std::io::Error::other(error)))??;
        polls.extend(some);
        measured.extend(&own);
    }
    Ok((polls, measured))
}

/// Lets the devices ask in turn. With a rate, a question's time begins when it was due: a server that is late makes the
/// next ones late too, and that has to show.
async fn poll(shared: &Arc<Shared>, polls: Arc<Vec<Vec<u8>>>, wanted: &Wanted, started: Instant) -> Measured {
    let end = started + Duration::from_secs(wanted.seconds);
    let turn = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..wanted.connections {
        let (shared, polls, turn, rate) = (shared.clone(), polls.clone(), turn.clone(), wanted.rate);
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::new(shared.address, shared.keep_alive);
            let mut measured = Measured::default();
            loop {
                let number = turn.fetch_add(1, Ordering::Relaxed);
                let due = match rate {
                    Some(rate) => started + Duration::from_secs_f64(number as f64 / rate),
                    None => Instant::now(),
                };
                if due >= end || Instant::now() >= end {
                    return measured;
                }
                tokio::time::sleep_until(due).await;
                match connection.ask(&polls[number % polls.len()]).await {
                    Ok(answer) if answer.status == 204 || answer.status == 200 => measured.add(due.elapsed()),
                    Ok(_) | Err(_) => measured.failed += 1,
                }
            }
        }));
    }
    let mut measured = Measured::default();
    for task in tasks {
        match task.await {
            Ok(own) => measured.extend(&own),
            Err(_) => measured.failed += 1,
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_this_machine_is_loaded() {
        assert!(super::address("127.0.0.1:80", false).is_ok());
        assert!(super::address("[::1]:80", false).is_ok());
        assert!(super::address("192.0.2.1:80", false).is_err());
        assert!(super::address("192.0.2.1:80", true).is_ok());
    }
}
