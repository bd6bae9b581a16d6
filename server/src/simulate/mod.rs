//! `simulate`: lets a fleet that `seed` has made ask a server, as its devices would, while a person looks at lists.
//!
//! Devices ask on a schedule that no answer moves: a question's time begins when it was due, so a server that is late makes
//! the next ones late too, and that shows. What the server puts off (429 with `Retry-After`) is asked again when it said.

mod browse;
mod connection;
mod queue;
mod request;
mod rollout;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use lexopt::prelude::*;
use serde_json::{Value as Json, json};
use server_core::client::Management;
use server_core::simulated::Simulated;

use crate::console::{CliError, help_of, print};
use crate::histogram::Histogram;
use crate::load;
use crate::serve::raise_descriptors;
use crate::value::{COUNT, OptionValue, SOME};
use browse::{Looks, browse};
use connection::Connection;
use queue::{Queue, Schedule, Turn};
use request::{ROLL_OUT, Requests, Step};
use rollout::{RollOut, Target};

/// A deployment that takes half an hour has a second between two questions of a device; a shorter one has less.
const PAUSES: f64 = 1800.0;
/// After a broken connection.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a device tries to get an answer.
const PATIENCE: Duration = Duration::from_secs(600);
/// A prime: so devices come in an order that is not that in which they are stored.
const STRIDE: u64 = 611_953;

/// How often devices ask.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rate {
    /// In each second.
    PerSecond(f64),
    /// As often as the server answers.
    Full,
}

struct Wanted {
    hosts: Vec<String>,
    data: PathBuf,
    devices: u32,
    seconds: u64,
    polls: Option<Rate>,
    inventories: Option<Rate>,
    herd: Option<f64>,
    roll_out: Option<Target>,
    within: Option<f64>,
    browse: bool,
    check: bool,
    connections: usize,
    keep_alive: bool,
    json: bool,
    not_loopback: bool,
}

/// Puts the load of a fleet on a server.
pub(crate) fn run(parser: lexopt::Parser) -> Result<(), CliError> {
    let Some(wanted) = parse(parser)? else { return help_of("simulate") };
    let mut servers = Vec::new();
    for host in &wanted.hosts {
        servers.push(load::address(host, wanted.not_loopback)?);
    }
    raise_descriptors();
    let result = simulate(&wanted, &servers)?;
    print(&if wanted.json { format!("{result}\n") } else { format!("{result:#}\n") })
}

fn parse(mut parser: lexopt::Parser) -> Result<Option<Wanted>, CliError> {
    let mut data = None;
    let mut wanted = Wanted {
        hosts: Vec::new(),
        data: PathBuf::new(),
        devices: 1000,
        seconds: 10,
        polls: None,
        inventories: None,
        herd: None,
        roll_out: None,
        within: None,
        browse: false,
        check: false,
        connections: 32,
        keep_alive: true,
        json: false,
        not_loopback: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("server") => {
                wanted.hosts.push(load::host_of(OptionValue::of("server", &mut parser)?)?);
            }
            Long("data") => data = Some(OptionValue::of("data", &mut parser)?.path()?),
            Long("devices") => wanted.devices = OptionValue::of("devices", &mut parser)?.number(SOME)?,
            Long("seconds") => wanted.seconds = OptionValue::of("seconds", &mut parser)?.number(COUNT)?,
            Long("polls") => wanted.polls = Some(rate(OptionValue::of("polls", &mut parser)?)?),
            Long("inventories") => {
                wanted.inventories = Some(rate(OptionValue::of("inventories", &mut parser)?)?);
            }
            Long("herd") => wanted.herd = Some(OptionValue::of("herd", &mut parser)?.fraction()?),
            Long("roll-out") => {
                let target = OptionValue::of("roll-out", &mut parser)?.word(&["tenth", "all"])?;
                wanted.roll_out = Some(if target == "all" { Target::All } else { Target::Tenth });
            }
            Long("within") => wanted.within = Some(OptionValue::of("within", &mut parser)?.fraction()?),
            Long("browse") => wanted.browse = true,
            Long("check") => wanted.check = true,
            Long("connections") => {
                wanted.connections = OptionValue::of("connections", &mut parser)?.number(SOME)?;
            }
            Long("keep-alive") => {
                wanted.keep_alive = load::keep_alive(OptionValue::of("keep-alive", &mut parser)?)?;
            }
            Long("json") => wanted.json = true,
            Long("not-loopback") => wanted.not_loopback = true,
            other @ (Short(_) | Long(_) | Value(_)) => return Err(other.unexpected().into()),
        }
    }
    if wanted.hosts.is_empty() {
        return Err(CliError::missing("server"));
    }
    wanted.data = data.ok_or_else(|| CliError::missing("data"))?;
    Ok(Some(wanted))
}

fn rate(value: OptionValue<'_>) -> Result<Rate, CliError> {
    if value.is("full") {
        return Ok(Rate::Full);
    }
    let wrong = value.refused("a number above 0, or full");
    value.fraction().map(Rate::PerSecond).map_err(|_| wrong)
}

/// One kind of load.
struct Part {
    name: &'static str,
    /// What each of its devices asks, one after the other.
    steps: &'static [Step],
    pause: Duration,
    queue: Queue,
    begin: Instant,
    /// For each device of a deployment, how many of its questions were answered.
    acknowledged: Vec<AtomicU8>,
    target: Target,
}

/// How it went.
#[derive(Default)]
struct Counted {
    /// From when a question was due to its answer.
    times: Histogram,
    /// The same for those that the server had put off, or that had no connection: from when they were due first.
    waits: Histogram,
    /// The server has said: later.
    later: u64,
    /// There was no connection, or it broke.
    broken: u64,
    /// The answer was another one than the device expects.
    failed: u64,
    complaint: Option<String>,
    seconds: f64,
}

impl Counted {
    fn extend(&mut self, other: Counted) {
        self.times.extend(&other.times);
        self.waits.extend(&other.waits);
        self.later += other.later;
        self.broken += other.broken;
        self.failed += other.failed;
        self.complaint = self.complaint.take().or(other.complaint);
        self.seconds = self.seconds.max(other.seconds);
    }

    fn json(&self) -> Json {
        let mut json = self.times.json(self.seconds);
        json["put_off"] = json!(self.later);
        json["broken"] = json!(self.broken);
        json["failed"] = json!(self.failed);
        json["complaint"] = json!(self.complaint);
        if self.waits.count() > 0 {
            json["after_waiting"] = self.waits.json(self.seconds);
        }
        json
    }
}

fn simulate(wanted: &Wanted, servers: &[SocketAddr]) -> Result<Json, CliError> {
    let fleet = Simulated::open(&wanted.data).map_err(|error| CliError::Failed(error.to_string()))?;
    let host = wanted.hosts.first().cloned().unwrap_or_default();
    let token = fleet.management_token().to_owned();
    // The last one: of two servers, the first is the one that is stopped meanwhile.
    let last = wanted.hosts.last().cloned().unwrap_or_default();
    let management = Management::new(&format!("http://{last}"), &token);
    let roll_out = wanted.roll_out.map(|target| RollOut::begin(&management, target)).transpose()?;
    let salt = std::process::id();
    let deployment = roll_out.as_ref().map(|roll_out| roll_out.id.clone()).unwrap_or_default();
    let requests = Requests { fleet, host, deployment, salt };
    let begin = Instant::now();
    let parts = parts(wanted, begin);

    let stop = AtomicBool::new(false);
    let (counted, looks) = std::thread::scope(|scope| {
        let looking = wanted.browse.then(|| {
            let (stop, token) = (&stop, token.as_str());
            scope.spawn(move || {
                let turn = servers.len().saturating_sub(1);
                browse(&mut Connection::new(servers, turn), &last, token, wanted.devices, stop)
            })
        });
        let mut working = Vec::new();
        for part in &parts {
            let workers = (0..wanted.connections).map(|number| {
                let requests = &requests;
                let connection = match wanted.keep_alive {
                    true => Connection::new(servers, number),
                    false => Connection::for_each(servers, number),
                };
                scope.spawn(move || work(part, requests, connection))
            });
            working.push((part.name, workers.collect::<Vec<_>>()));
        }
        let mut counted = Vec::new();
        for (name, workers) in working {
            let mut all = Counted::default();
            for worker in workers {
                match worker.join() {
                    Ok(own) => all.extend(own),
                    Err(_) => all.failed += 1,
                }
            }
            counted.push((name, all));
        }
        if parts.is_empty() {
            std::thread::sleep(Duration::from_secs(wanted.seconds));
        }
        stop.store(true, Ordering::Relaxed);
        let looks = looking.and_then(|looking| looking.join().ok());
        (counted, looks)
    });

    let mut result = json!({ "devices": wanted.devices, "connections": wanted.connections });
    for (name, counted) in &counted {
        result[*name] = counted.json();
    }
    if let Some(looks) = looks {
        result["browse"] = looks_json(&looks);
    }
    if let Some(roll_out) = &roll_out {
        let mut ended = roll_out.end(roll_out.target.count(wanted.devices))?;
        let part = parts.iter().find(|part| !part.acknowledged.is_empty()).filter(|_| wanted.check);
        if let Some(part) = part {
            ended["check"] = roll_out.lost(&part.acknowledged)?;
        }
        result["deployment"] = ended;
    }
    Ok(result)
}

fn looks_json(looks: &Looks) -> Json {
    let looks = looks.iter().map(|(name, (times, wrong))| {
        let mut json = times.json(0.0);
        json["wrong"] = json!(wrong);
        ((*name).to_owned(), json)
    });
    Json::Object(looks.collect())
}

fn parts(wanted: &Wanted, begin: Instant) -> Vec<Part> {
    let seconds = wanted.seconds as f64;
    let end = begin + Duration::from_secs(wanted.seconds);
    let every = |rate: f64| Some(Duration::from_secs_f64(1.0 / rate));
    let mut parts = Vec::new();
    let mut add = |name, steps, pause, schedule: Schedule, target: Target| {
        let count = target.count(wanted.devices);
        let queue = Queue::new(schedule, move |number| target.device(shuffled(number, count)));
        let is_roll_out = steps == ROLL_OUT;
        let acknowledged = (0..if is_roll_out { count } else { 0 }).map(|_| AtomicU8::new(0)).collect();
        parts.push(Part { name, steps, pause, queue, begin, acknowledged, target });
    };
    for (name, steps, rate) in [
        ("polls", &[Step::Poll] as &[Step], wanted.polls),
        ("inventories", &[Step::Inventory], wanted.inventories),
    ] {
        let schedule = match rate {
            None => continue,
            Some(Rate::PerSecond(rate)) => {
                let count = (rate * seconds).ceil() as u64;
                Schedule { begin, interval: every(rate), count, end: None }
            }
            Some(Rate::Full) => Schedule { begin, interval: None, count: u64::MAX, end: Some(end) },
        };
        add(name, steps, Duration::ZERO, schedule, Target::All);
    }
    if let Some(within) = wanted.herd {
        let count = u64::from(wanted.devices);
        let interval = every(count as f64 / within);
        add(
            "herd",
            &[Step::Poll],
            Duration::ZERO,
            Schedule { begin, interval, count, end: None },
            Target::All,
        );
    }
    if let Some(target) = wanted.roll_out {
        let members = u64::from(target.count(wanted.devices));
        let (pause, schedule) = match wanted.within {
            Some(within) => {
                let rate = members as f64 / within;
                let count = members.min((rate * seconds).ceil() as u64);
                (
                    Duration::from_secs_f64(within / PAUSES),
                    Schedule { begin, interval: every(rate), count, end: None },
                )
            }
            None => (Duration::ZERO, Schedule { begin, interval: None, count: members, end: None }),
        };
        add("roll_out", ROLL_OUT, pause, schedule, target);
    }
    parts
}

/// Each number below `count` once, in another order.
fn shuffled(number: u64, count: u32) -> u32 {
    let count = u64::from(count.max(1));
    let stride = if count % STRIDE == 0 { 1 } else { STRIDE };
    u32::try_from((number % count) * stride % count).unwrap_or(0)
}

/// What one connection does, until there is nothing left.
fn work(part: &Part, requests: &Requests, mut connection: Connection<'_>) -> Counted {
    let mut counted = Counted::default();
    let (mut bytes, mut body) = (Vec::new(), Vec::new());
    while let Some(turn) = part.queue.take(Instant::now()) {
        let Some(step) = part.steps.get(usize::from(turn.step)).copied() else { continue };
        // The token is made while there is time.
        requests.write(step, turn.device, &mut bytes, &mut body);
        let early = turn.due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        let answer = connection.ask(&bytes).map(|answer| answer.head);
        let now = Instant::now();
        match answer {
            Ok(head) if step.is_expected(head.status) => {
                counted.times.add(now.duration_since(turn.due));
                if turn.due != turn.first {
                    counted.waits.add(now.duration_since(turn.first));
                }
                part.is_answered(turn, now);
            }
            Ok(head) if matches!(head.status, 429 | 503) && now.duration_since(turn.first) < PATIENCE => {
                counted.later += 1;
                let wait = Duration::from_secs(head.retry_after.unwrap_or(1));
                part.queue.put(Turn { due: now + wait, ..turn });
            }
            Ok(head) => {
                counted.failed += 1;
                let answered =
                    format!("{step:?} of device {} was answered with {}", turn.device, head.status);
                counted.complaint.get_or_insert(answered);
            }
            Err(_) if now.duration_since(turn.first) < PATIENCE => {
                counted.broken += 1;
                part.queue.put(Turn { due: now + AGAIN, ..turn });
            }
            Err(error) => {
                counted.failed += 1;
                counted.complaint.get_or_insert(error.to_string());
            }
        }
        counted.seconds = now.duration_since(part.begin).as_secs_f64();
    }
    counted
}

impl Part {
    /// The device goes on, if it has more to ask.
    fn is_answered(&self, turn: Turn, now: Instant) {
        let step = turn.step + 1;
        if let Some(told) = self.acknowledged.get(self.target.place(turn.device)) {
            told.fetch_max(step, Ordering::Relaxed);
        }
        if usize::from(step) < self.steps.len() {
            let due = now + self.pause;
            self.queue.put(Turn { due, first: due, device: turn.device, step });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_comes_once() {
        for count in [1, 2, 1000, 611_953] {
            let all: std::collections::HashSet<u32> =
                (0..u64::from(count)).map(|n| shuffled(n, count)).collect();
            assert_eq!(all.len(), count as usize);
        }
    }

    #[test]
    fn a_rate_is_a_number_above_zero_or_full() {
        let rate = |typed: &str| rate(OptionValue::typed(typed));
        assert_eq!(rate("full").ok(), Some(Rate::Full));
        assert_eq!(rate("0.5").ok(), Some(Rate::PerSecond(0.5)));
        assert!(rate("0").is_err() && rate("-1").is_err() && rate("fast").is_err());
    }
}
