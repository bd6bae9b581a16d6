//! The whole daemon under power cuts, with a server that keeps what it was told: the production loop, state machine,
//! boot environment codecs and record over crash devices, against bootloader models.
//!
//! Power fails at every durable operation, and before and after every request that reaches the server. What must hold
//! once the device has been started again, as often as it likes:
//! - some slot comes up, with exactly the old or exactly the new image;
//! - the server gets a final report, all final reports say the same, and what they say is true;
//! - the record names what runs, no deployment is left, no trial is open;
//! - the daemon asks the server again.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::io::Cursor;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::machine::board::{Board, ClosedAtFirst, Restarting, Ruled, WORLD, Word, crash_point};
use crate::machine::{
    IMAGE_BYTES, MACHINES, Machine, RECORD_BYTES, new_image, old_image, plainly, selected, version,
};
use client_core::agent::{Agent, AgentSettings};
use client_core::clock::{Clock, Waiter, Wake};
use client_core::deploy::gates::{AlwaysOpen, Gate, Gatekeeper};
use client_core::deploy::record::Record;
use client_core::install::NoModules;
use client_core::schedule::Schedule;
use client_core::server::{DownloadSettings, Request, Response, Transport, TransportError};
use client_core::slot::{Restart, Slot};
use client_core::state_store::TwoCopyRecord;
use server_mender::{Api, Settings};
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot};
use testkit::choice::so_many;
use testkit::clock::VirtualClock;
use testkit::conformance::boot::Booted;
use testkit::device::{ScriptLog, slot_device};
use testkit::enumerator::{After, Report, Scenario, explore};
use testkit::server::TestCredentials;
use testkit::storage::{CrashWorld, Suppressed};

const ID: &str = "d0000000-0000-4000-8000-000000000001";

/// How the deployment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// The new image comes up, reaches the server, and is committed.
    Commit,
    /// The new image never comes up.
    FallBack,
    /// The new image comes up and cannot reach the server.
    Unreachable,
    /// The server aborts as soon as it hears of the installation.
    Abort,
    /// The server aborts when the new image asks to be committed.
    LateAbort,
    /// As `Commit`; every gate is closed at first, so that the deployment waits before each of them.
    Held,
    /// The same, and this gate refuses.
    Refused(Gate),
    /// The rules of the device decide.
    Ruled(Word),
}

impl Ending {
    fn gates(self, clock: &Arc<dyn Clock>) -> Box<dyn Gatekeeper> {
        match self {
            Ending::Commit | Ending::FallBack | Ending::Unreachable | Ending::Abort | Ending::LateAbort => {
                Box::new(AlwaysOpen)
            }
            Ending::Held => Box::<ClosedAtFirst>::default(),
            Ending::Refused(gate) => Box::new(ClosedAtFirst::refusing(gate)),
            Ending::Ruled(word) => Box::new(Ruled::new(word, Arc::clone(clock))),
        }
    }

    fn may_succeed(self) -> bool {
        // A power cut before the answer is the restart that would have been refused.
        let by_a_restart = matches!(self, Ending::Refused(Gate::Reboot) | Ending::Ruled(Word::Map));
        by_a_restart || matches!(self, Ending::Commit | Ending::Held | Ending::Ruled(Word::Nobody))
    }
}

const ENDINGS: [Ending; 5] =
    [Ending::Commit, Ending::FallBack, Ending::Unreachable, Ending::Abort, Ending::LateAbort];

/// What the server knows. Survives every power cut of the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Server {
    /// Final reports, in order; the second of the same kind is kept too.
    finals: Vec<bool>,
    /// Somebody was told that the deployment is aborted.
    aborted: bool,
    /// Requests for an update after the final report.
    asked_after: u32,
}

#[derive(Hash, Clone)]
struct Facts {
    booted: Booted,
    /// What the daemon asked the machine for; gone with the power.
    restart: Restart,
    server: Server,
    boots: u32,
}

struct Wire {
    server: Arc<Mutex<Server>>,
    artifact: Arc<Vec<u8>>,
    ending: Ending,
    on_new: bool,
}

impl Wire {
    fn answer(&self, request: &Request<'_>) -> (u16, Vec<u8>) {
        let path = request.url.strip_prefix("http://server").unwrap();
        let mut server = self.server.lock().unwrap();
        if path.ends_with("/auth_requests") {
            return (200, b"aGVhZA.Y2xhaW1z.c2ln".to_vec());
        }
        if path.ends_with("/attributes") {
            return (200, Vec::new());
        }
        if path == "/artifact" {
            return (200, self.artifact.to_vec());
        }
        if path.contains("/deployments/next") {
            if !server.finals.is_empty() || server.aborted {
                server.asked_after += 1;
                return (204, Vec::new());
            }
            let body = format!(
                r#"{{"id":"{ID}","artifact":{{"artifact_name":"new","source":{{"uri":"http://server/artifact"}},"device_types_compatible":["{}"]}}}}"#,
                artifacts::DEVICE_TYPE
            );
            return (200, body.into_bytes());
        }
        if path.ends_with("/log") {
            return (204, Vec::new());
        }
        assert!(path.ends_with("/status"), "{path}");
        let body = std::str::from_utf8(request.body.unwrap()).unwrap();
        let says = |status: &str| body.contains(&format!("\"{status}\""));
        if says("success") || says("failure") {
            server.finals.push(says("success"));
            return (if server.aborted { 409 } else { 204 }, Vec::new());
        }
        let aborts = match self.ending {
            Ending::Abort => says("installing"),
            Ending::LateAbort => says("installing") && self.on_new,
            Ending::Commit
            | Ending::FallBack
            | Ending::Unreachable
            | Ending::Held
            | Ending::Refused(_)
            | Ending::Ruled(_) => false,
        };
        server.aborted |= aborts;
        (if server.aborted { 409 } else { 204 }, Vec::new())
    }
}

impl Transport for Wire {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        let path = request.url.rsplit('/').next().unwrap_or_default();
        crash_point(&format!("before the request {path}"));
        // The new system has no network until it is given up. The old one does.
        if self.ending == Ending::Unreachable && self.on_new {
            let reason = "no route".to_owned();
            return Err(TransportError { may_pass: true, reason });
        }
        let (status, body) = self.answer(request);
        crash_point(&format!("after the request {path}"));
        let headers = vec![("content-length".to_owned(), body.len().to_string())];
        Ok(Response { status, headers, body: Box::new(Cursor::new(body)) })
    }
}

/// Ends the process when it is restarted, when all is over, or when nothing moves any more.
struct Waits {
    time: VirtualClock,
    rebooted: Rc<Cell<bool>>,
    server: Arc<Mutex<Server>>,
    left: u32,
}

impl Waiter for Waits {
    fn wait(&mut self, time: Duration) -> Wake {
        self.left = self.left.saturating_sub(1);
        if self.rebooted.get() || self.left == 0 || self.server.lock().unwrap().asked_after > 0 {
            self.time.stop();
            return Wake::Stop;
        }
        self.time.advance(time.saturating_add(Duration::from_secs(1)));
        Wake::Elapsed
    }
}

/// Copies what the server knows back into the facts, also when the power fails.
struct Keep<'f> {
    facts: &'f mut Facts,
    server: Arc<Mutex<Server>>,
}

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        self.facts.server = self.server.lock().unwrap_or_else(|poison| poison.into_inner()).clone();
        WORLD.with(|current| current.borrow_mut().take());
    }
}

/// The daemon from its start to its end. Whether it asked for a restart.
fn daemon(
    world: &CrashWorld,
    machine: Machine,
    ending: Ending,
    artifact: &Arc<Vec<u8>>,
    facts: &mut Facts,
) -> bool {
    let booted = facts.booted;
    let running = booted.slot;
    let server = Arc::new(Mutex::new(facts.server.clone()));
    WORLD.with(|current| current.borrow_mut().replace(world.clone()));
    let keep = Keep { facts, server: Arc::clone(&server) };
    let on_new = version(world, running) == Some("new");
    let wire = || Wire { server: Arc::clone(&server), artifact: Arc::clone(artifact), ending, on_new };
    let time = VirtualClock::new(4);
    let clock = time.shared();
    let settings = Settings { servers: vec!["http://server".into()], ..Settings::default() };
    let api = Api::new(Box::new(wire()), Box::new(TestCredentials::default()), Arc::clone(&clock), settings);
    let (rebooted, with) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Restart::Plain)));
    let mut waits = Waits { time, rebooted: Rc::clone(&rebooted), server: Arc::clone(&server), left: 40 };
    let mut host = Board {
        world: world.clone(),
        machine,
        system: Restarting { booted, rebooted: Rc::clone(&rebooted), with: Rc::clone(&with) },
        scripts: ScriptLog::default(),
        modules: Box::new(NoModules),
        gates: ending.gates(&clock),
        wire: {
            let (server, artifact) = (Arc::clone(&server), Arc::clone(artifact));
            Box::new(move || {
                let (server, artifact) = (Arc::clone(&server), Arc::clone(&artifact));
                Box::new(Wire { server, artifact, ending, on_new })
            })
        },
        openings: Rc::default(),
        logs: Vec::new(),
        clock: Arc::clone(&clock),
    };
    let schedule = Schedule::new(&*clock, Duration::from_secs(1800), Duration::from_secs(28800));
    let settings = AgentSettings {
        retry_interval: Duration::from_secs(300),
        retry_count: 3,
        download: DownloadSettings::default(),
    };
    Agent::new(&mut host, Arc::new(Mutex::new(api)), clock, &mut waits, settings, schedule).run();
    keep.facts.restart = with.take();
    rebooted.get()
}

fn scenario(
    machine: Machine,
    start: Slot,
    ending: Ending,
    unsynced: Option<&'static str>,
) -> Scenario<Facts> {
    let artifact = Arc::new(artifacts::rootfs("new", &new_image()));
    let for_recovery = Arc::clone(&artifact);
    let target = !start;
    Scenario::new(move |world| {
        world.add_device(slot_device(start), old_image());
        world.add_device(slot_device(target), vec![0x55; IMAGE_BYTES]);
        machine.install(world, start);
        world.add_device("record", vec![0; RECORD_BYTES]);
        let mut record = Record::new();
        record.installed.artifact_name = Some("old".into());
        TwoCopyRecord::format_new(world.open("record"), &record.to_json().unwrap()).unwrap();
        if let Some(device) = unsynced {
            world.suppress_sync(device, Suppressed::Every);
        }
        Facts { booted: plainly(start), restart: Restart::Plain, server: Server::default(), boots: 0 }
    })
    .run(move |world, facts| {
        daemon(world, machine, ending, &artifact, facts);
        Ok(())
    })
    .boot(move |world, facts| {
        facts.boots += 1;
        if facts.boots > 12 {
            return Err("the device restarts without end".into());
        }
        let mut broken = None;
        let restart = std::mem::take(&mut facts.restart);
        let booted = machine.boot(world, &restart, &mut |slot| {
            if version(world, slot).is_none() {
                broken = Some(slot);
            }
            let behaviour = match (slot == target, ending) {
                (true, Ending::FallBack) => Behaviour::NeverUp,
                (_, _) => Behaviour::Good,
            };
            { behaviour }.start()
        });
        if let Some(slot) = broken {
            return Err(format!("slot {slot} was booted and holds neither the old image nor the new one"));
        }
        match booted {
            Boot::Up { slot, one_shot, .. } => {
                facts.booted = Booted { slot, one_shot };
                Ok(())
            }
            Boot::Stuck { slot, .. } => Err(format!("nothing comes up: slot {slot} is tried for ever")),
        }
    })
    .recover(move |world, facts| {
        if daemon(world, machine, ending, &for_recovery, facts) {
            return Ok(After::Reboot);
        }
        if facts.server.asked_after == 0 {
            return Err(format!("the daemon does not ask again: {:?}", facts.server));
        }
        let runs =
            version(world, facts.booted.slot).ok_or("what runs is neither the old image nor the new one")?;
        let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
        let record = Record::load(&mut store).map_err(|error| error.to_string())?;
        if record.deployment.is_some() || record.unreported.is_some() {
            return Err(format!("the record is not settled: {record:?}"));
        }
        let (next, trial) = selected(world, machine)?;
        if trial || next != facts.booted.slot {
            return Err(format!("slot {next} is selected, trial {trial}, slot {} runs", facts.booted.slot));
        }
        if record.installed.name() != runs {
            return Err(format!("the record says {}, and {runs} runs", record.installed.name()));
        }
        let finals = &facts.server.finals;
        match finals.first() {
            // Given up by the server before the download was over: it was cut short and is not offered again.
            None if facts.server.aborted && runs == "old" => Ok(After::Settled),
            None => Err("the server was never told how it ended".into()),
            Some(said) if finals.iter().any(|other| other != said) => {
                Err(format!("the server was told both: {finals:?}"))
            }
            Some(said) if *said != (runs == "new") => {
                Err(format!("the server was told success {said}, and {runs} runs"))
            }
            Some(true) if !ending.may_succeed() => Err("a deployment that must fail succeeded".into()),
            Some(_) => Ok(After::Settled),
        }
    })
    .fold_equal_states()
}

fn run_all(cuts: u32, budget: u64) -> Vec<(String, Report)> {
    let mut reports = Vec::new();
    for machine in MACHINES.into_iter().chain([Machine::OneShot]) {
        for (start, ending) in Slot::BOTH.into_iter().zip([0, 1]).flat_map(|(start, half)| {
            // Each ending from one of the slots; which one is only a name.
            ENDINGS
                .into_iter()
                .enumerate()
                .filter(move |(at, _)| at % 2 == half)
                .map(move |(_, e)| (start, e))
        }) {
            let options = machine.limits(cuts).budget(budget, budget / 20);
            let report = explore(&scenario(machine, start, ending, None), &options);
            reports.push((format!("{machine:?} from {start}, {ending:?}"), report));
        }
    }
    reports
}

#[test]
fn every_power_cut_of_a_deployment_ends_in_one_true_report() {
    let mut states = 0;
    for (name, report) in run_all(1, u64::MAX) {
        println!("{name}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states of the daemon with one cut: {states}");
}

#[test]
fn a_deployment_that_is_held_up_or_refused_at_a_gate_loses_nothing_to_a_power_cut() {
    let mut states = 0;
    let endings = [Ending::Held].into_iter().chain(Gate::ALL.map(Ending::Refused));
    for (machine, ending) in MACHINES.into_iter().cycle().zip(endings.cycle().take(8)) {
        let report = explore(&scenario(machine, Slot::A, ending, None), &machine.limits(1));
        println!("{machine:?}, {ending:?}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states of the daemon with gates: {states}");
}

#[test]
fn what_the_rules_of_a_device_decide_is_decided_after_a_power_cut_too() {
    use Word::{Health, Map, MapThatEnds, Nobody, Person, Silence};
    let mut states = 0;
    let words = [Nobody, Person, Silence, Map, MapThatEnds, Health];
    for (machine, word) in MACHINES.into_iter().cycle().zip(words) {
        let report = explore(&scenario(machine, Slot::A, Ending::Ruled(word), None), &machine.limits(1));
        println!("{machine:?}, {word:?}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states of the daemon with the rules of a device: {states}");
}

#[test]
fn a_second_power_cut_of_the_daemon_changes_nothing_about_that() {
    let mut states = 0;
    for (name, report) in run_all(2, so_many(3_000)) {
        println!("{name}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states of the daemon with two cuts: {states}");
}

#[test]
fn a_device_that_is_never_synced_makes_the_daemon_lie_or_stop_and_is_found() {
    // The slot itself is in `deployment.rs`: the writes are the same.
    for device in ["record", "env"] {
        let found = ENDINGS.into_iter().find_map(|ending| {
            let mut options = Machine::UBoot.limits(1).budget(6_000, 0);
            options.limits.images = 8;
            options.kept_violations = 1;
            let report = explore(&scenario(Machine::UBoot, Slot::A, ending, Some(device)), &options);
            report.violations.first().map(|violation| violation.invariant.clone())
        });
        println!("{device}: {found:?}");
        assert!(found.is_some(), "{device}");
    }
}
