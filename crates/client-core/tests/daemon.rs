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
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::machine::board::{Board, ClosedAtFirst, Restarting, Ruled, Waits, Word, told};
use crate::machine::{MACHINES, Machine, new_image, plainly, selected, version};
use client_core::agent::{Agent, AgentSettings, Memory};
use client_core::clock::Clock;
use client_core::deploy::gates::{AlwaysOpen, Gate, Gatekeeper};
use client_core::deploy::record::Record;
use client_core::install::NoModules;
use client_core::schedule::Schedule;
use client_core::server::DownloadSettings;
use client_core::slot::{Restart, Slot};
use client_core::state_store::TwoCopyRecord;
use server_mender::{Api, Settings};
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot};
use testkit::choice::so_many;
use testkit::clock::VirtualClock;
use testkit::conformance::boot::Booted;
use testkit::device::ScriptLog;
use testkit::enumerator::{After, Report, Scenario, explore};
use testkit::server::{SERVER, ServerFacts, ServerModel, TestCredentials};
use testkit::storage::{CrashWorld, PowerCuts, Suppressed};

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

    /// What the server and the way to it are like for the system that runs.
    fn arrange(self, server: &ServerModel, on_new: bool) {
        // The new system has no network until it is given up. The old one does.
        server.set_reachable(SERVER, self != Ending::Unreachable || !on_new);
        if self == Ending::Abort || (self == Ending::LateAbort && on_new) {
            server.abort_at_report(ID, "installing", 1);
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

/// What is true of the device, and what the server knows, which no power cut erases.
#[derive(Hash, Clone)]
struct Facts {
    booted: Booted,
    /// What the daemon asked the machine for; gone with the power.
    restart: Restart,
    server: ServerFacts,
    boots: u32,
}

/// One line of a table: the machine, the slot it starts from, how the deployment goes, and a device that is never synced.
#[derive(Clone, Copy)]
struct Case {
    machine: Machine,
    start: Slot,
    ending: Ending,
    unsynced: Option<&'static str>,
}

fn scenario(
    machine: Machine,
    start: Slot,
    ending: Ending,
    unsynced: Option<&'static str>,
) -> Scenario<Facts> {
    let case = Case { machine, start, ending, unsynced };
    Scenario::new(move |world| case.set_up(world))
        .run(move |world, facts| {
            case.daemon(world, facts);
            Ok(())
        })
        .boot(move |world, facts| case.boot(world, facts))
        .recover(move |world, facts| case.recover(world, facts))
        .fold_equal_states()
}

impl Case {
    fn set_up(self, world: &CrashWorld) -> Facts {
        self.machine.set_up(world, self.start);
        if let Some(device) = self.unsynced {
            world.suppress_sync(device, Suppressed::Every);
        }
        let server = ServerModel::new();
        server.set_recording(false);
        server.deploy(ID, "new", artifacts::DEVICE_TYPE, &artifacts::rootfs("new", &new_image()));
        Facts { booted: plainly(self.start), restart: Restart::Plain, server: ServerFacts(server), boots: 0 }
    }

    /// The daemon from its start to its end. Whether it asked for a restart.
    fn daemon(self, world: &CrashWorld, facts: &mut Facts) -> bool {
        let booted = facts.booted;
        let server = facts.server.0.clone();
        self.ending.arrange(&server, version(world, booted.slot) == Some("new"));
        let _cuts = PowerCuts::of(world);
        let time = VirtualClock::new(4);
        let clock = time.shared();
        let settings = Settings { servers: vec![SERVER.into()], ..Settings::default() };
        let credentials = Box::new(TestCredentials::default());
        let api = Api::new(server.transport(), credentials, Arc::clone(&clock), settings);
        let (rebooted, with) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(Restart::Plain)));
        let mut waits = Waits { time, rebooted: Rc::clone(&rebooted), server: server.clone(), left: 40 };
        let mut host = Board {
            world: world.clone(),
            machine: self.machine,
            system: Restarting { booted, rebooted: Rc::clone(&rebooted), with: Rc::clone(&with) },
            scripts: ScriptLog::default(),
            modules: Box::new(NoModules),
            gates: self.ending.gates(&clock),
            wire: Box::new(move || server.transport()),
            openings: Rc::default(),
            logs: Vec::new(),
            clock: Arc::clone(&clock),
            watch: None,
        };
        let schedule = Schedule::new(&*clock, Duration::from_secs(1800), Duration::from_secs(28800));
        let settings = AgentSettings {
            retry_interval: Duration::from_secs(300),
            retry_count: 3,
            download: DownloadSettings::default(),
        };
        Agent::new(
            &mut host,
            Arc::new(Mutex::new(api)),
            clock,
            &mut waits,
            &settings,
            &mut Memory::new(schedule, &settings),
        )
        .run();
        facts.restart = with.take();
        rebooted.get()
    }

    fn boot(self, world: &CrashWorld, facts: &mut Facts) -> Result<(), String> {
        facts.boots += 1;
        if facts.boots > 12 {
            return Err("the device restarts without end".into());
        }
        let mut broken = None;
        let restart = std::mem::take(&mut facts.restart);
        let booted = self.machine.boot(world, &restart, &mut |slot| {
            if version(world, slot).is_none() {
                broken = Some(slot);
            }
            let dead = slot != self.start && self.ending == Ending::FallBack;
            { if dead { Behaviour::NeverUp } else { Behaviour::Good } }.start()
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
    }

    fn recover(self, world: &CrashWorld, facts: &mut Facts) -> Result<After, String> {
        if self.daemon(world, facts) {
            return Ok(After::Reboot);
        }
        let server = &facts.server.0;
        if server.vain_questions() == 0 {
            return Err(format!("the daemon does not ask again: {:?}", server.statuses(ID)));
        }
        let running = facts.booted.slot;
        let runs = version(world, running).ok_or("what runs is neither the old image nor the new one")?;
        self.check_device(world, running, runs)?;
        self.check_report(server, runs)?;
        Ok(After::Settled)
    }

    /// Nothing is in progress, no trial is open, and the record names what runs.
    fn check_device(self, world: &CrashWorld, running: Slot, runs: &str) -> Result<(), String> {
        let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
        let record = Record::load(&mut store).map_err(|error| error.to_string())?;
        if record.deployment.is_some() || record.unreported.is_some() {
            return Err(format!("the record is not settled: {record:?}"));
        }
        let (next, trial) = selected(world, self.machine)?;
        if trial || next != running {
            return Err(format!("slot {next} is selected, trial {trial}, slot {running} runs"));
        }
        if record.installed.name() != runs {
            return Err(format!("the record says {}, and {runs} runs", record.installed.name()));
        }
        Ok(())
    }

    /// What the server was told is true.
    fn check_report(self, server: &ServerModel, runs: &str) -> Result<(), String> {
        match told(server, ID)? {
            // Given up by the server before the download was over: it was cut short and is not offered again.
            None if runs == "old" => Ok(()),
            None => Err("the server was never told how it ended".into()),
            Some(said) if said != (runs == "new") => {
                Err(format!("the server was told success {said}, and {runs} runs"))
            }
            Some(true) if !self.ending.may_succeed() => Err("a deployment that must fail succeeded".into()),
            Some(_) => Ok(()),
        }
    }
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
    for (name, report) in run_all(2, so_many(3_500)) {
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
