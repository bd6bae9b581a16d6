//! A board for the daemon's loop: the seams of the agent over a [`Machine`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use client_core::agent::{Event, Host, HostError, Known};
use client_core::artifact::{Limits, Trust};
use client_core::clock::{Clock, Waiter, Wake};
use client_core::deploy::gates::{
    Answer, ControlMaps, Decision, Gate, GateRules, Gatekeeper, HealthCheck, Judgement, MaintenanceWindow,
    Moment, PendingQuestion, Question, Round, WeekTime, Window,
};
use client_core::deploy::record::Record;
use client_core::deploy::scripts::ScriptRunner;
use client_core::deploy::{Device, Notice, Observer, Policy, PolicyError, Reporter};
use client_core::install::{Modules, Progress};
use client_core::monitor::Watch;
use client_core::server::{Attribute, Transport};
use client_core::slot::{Restart, Slot, SlotError, System};
use client_core::state_store::TwoCopyRecord;
use testkit::artifacts;
use testkit::clock::VirtualClock;
use testkit::conformance::boot::Booted;
use testkit::device::ScriptLog;
use testkit::server::ServerModel;
use testkit::storage::{CrashWorld, PowerCuts};

use super::{Machine, plainly};

/// A place to lose power outside of storage.
pub fn crash_point(what: &str) {
    PowerCuts::here(what);
}

/// A system that notes that it was asked to restart.
pub struct Restarting {
    pub booted: Booted,
    pub rebooted: Rc<Cell<bool>>,
    /// How it was asked to.
    pub with: Rc<RefCell<Restart>>,
}

impl Restarting {
    /// On a machine that came up without being asked to try something.
    pub fn new(running: Slot, rebooted: Rc<Cell<bool>>) -> Restarting {
        Restarting { booted: plainly(running), rebooted, with: Rc::default() }
    }
}

impl System for Restarting {
    fn running_slot(&self) -> Result<Slot, SlotError> {
        Ok(self.booted.slot)
    }
    fn device_type(&self) -> Result<String, SlotError> {
        Ok(artifacts::DEVICE_TYPE.into())
    }
    fn reboot(&self, restart: &Restart) -> Result<(), SlotError> {
        crash_point("the restart");
        self.with.replace(restart.clone());
        self.rebooted.set(true);
        Ok(())
    }
}

/// Every gate is closed when it is asked for the first time in a process, and open from then on; one may refuse.
#[derive(Default)]
pub struct ClosedAtFirst {
    pub refused: Option<Gate>,
    asked: Vec<Gate>,
}

impl ClosedAtFirst {
    pub fn refusing(gate: Gate) -> ClosedAtFirst {
        ClosedAtFirst { refused: Some(gate), asked: Vec::new() }
    }
}

impl Gatekeeper for ClosedAtFirst {
    fn watches(&self, _: Gate) -> bool {
        true
    }
    fn ask(&mut self, question: &Question<'_>) -> Answer {
        crash_point("the gate is asked");
        let known = self.asked.contains(&question.gate);
        self.asked.push(question.gate);
        if self.refused == Some(question.gate) {
            Answer::Refused { reason: "not here".into() }
        } else if known {
            Answer::Open { note: Some("now".into()) }
        } else {
            Answer::Closed { reason: "not now".into(), ask_again: Duration::from_secs(60) }
        }
    }
}

/// Who has the last word about a deployment on a device with rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// In the end nobody objects.
    Nobody,
    /// Somebody is asked before the installation and says no.
    Person,
    /// Somebody is asked before the installation and never says anything.
    Silence,
    /// A control map fails the deployment before the restart.
    Map,
    /// A control map pauses the deployment before the commit, and ends.
    MapThatEnds,
    /// The new software is never well.
    Health,
}

/// The rules that a device can be given, as the core decides about them: a window that is closed at first, a question
/// before the installation and the commit, a health check, and control maps. All of it is lost with the process; whoever set
/// a control map sets it again.
pub struct Ruled {
    word: Word,
    rules: GateRules,
    pending: PendingQuestion,
    maps: ControlMaps,
    clock: Arc<dyn Clock>,
    asked: u32,
}

impl Ruled {
    pub fn new(word: Word, clock: Arc<dyn Clock>) -> Ruled {
        let seconds = Duration::from_secs;
        let times = vec![Window::parse(&["sun"], "19:15", "24:00").unwrap()];
        let before = vec![Gate::Download, Gate::Install, Gate::Reboot];
        let rules = GateRules {
            window: Some(MaintenanceWindow { times, before, utc: true }),
            ask_before: vec![Gate::Install, Gate::Commit],
            ask_timeout: Some(seconds(3600)),
            health: Some(HealthCheck {
                commands: Vec::new(),
                units: vec!["application".into()],
                timeout: seconds(30),
                interval: seconds(10),
            }),
        };
        let mut maps = ControlMaps::new(seconds(900));
        let states = match word {
            Word::Nobody => {
                r#"{"ArtifactReboot_Enter":{"action":"pause","on_map_expire":"force_continue"},
                    "ArtifactCommit_Enter":{"action":"force_continue","on_action_executed":"fail"}}"#
            }
            Word::Map => r#"{"ArtifactReboot_Enter":{"action":"fail"}}"#,
            Word::MapThatEnds => r#"{"ArtifactCommit_Enter":{"action":"pause"}}"#,
            Word::Person | Word::Silence | Word::Health => "{}",
        };
        let map = format!(r#"{{"id":"d0000000-0000-4000-8000-000000000002","states":{states}}}"#);
        maps.accept(&map, clock.now()).unwrap();
        Ruled { word, rules, pending: PendingQuestion::default(), maps, clock, asked: 0 }
    }

    /// Somebody sees the question when it is asked for the second time.
    fn somebody_decides(&mut self, gate: Gate) {
        let decision = match self.word {
            Word::Silence => return,
            Word::Person => Decision::Refuse { reason: "not here".into() },
            Word::Nobody | Word::Map | Word::MapThatEnds | Word::Health => Decision::Allow,
        };
        // Nothing may be asked yet: the window is closed.
        let _ = self.pending.decide(Some(gate), None, decision);
    }

    /// The application is well after some time, or never.
    fn health(&self, gate: Gate) -> Answer {
        let Some(check) = self.rules.health_check_at(gate) else { return Answer::Open { note: None } };
        let mut elapsed = Duration::ZERO;
        loop {
            let is_well = self.word != Word::Health && elapsed >= check.interval;
            let round = if is_well { Round::Well } else { Round::Problem("application".into()) };
            match check.judge(round, elapsed) {
                Judgement::Settled(answer) => return answer,
                Judgement::Again { .. } => elapsed += check.interval,
            }
        }
    }
}

impl Gatekeeper for Ruled {
    fn watches(&self, gate: Gate) -> bool {
        self.rules.watches(gate) || self.maps.watches(gate)
    }
    fn ask(&mut self, question: &Question<'_>) -> Answer {
        crash_point("the gate is asked");
        self.asked += 1;
        assert!(self.asked < 100, "a gate is asked again and again");
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let moment = Moment { now, wall, week: WeekTime::utc(wall) };
        self.somebody_decides(question.gate);
        let answer = self
            .maps
            .ask(question.gate, now)
            .and_then(|| self.rules.ask(question, moment, &mut self.pending))
            .and_then(|| self.health(question.gate));
        if matches!(answer, Answer::Open { .. }) {
            self.pending.clear();
        }
        answer
    }
}

/// A device of doubles around the production code, for the agent.
pub struct Board {
    pub world: CrashWorld,
    pub machine: Machine,
    pub system: Restarting,
    pub scripts: ScriptLog,
    /// Handlers of other payloads than images.
    pub modules: Box<dyn Modules>,
    /// Who may hold a deployment up.
    pub gates: Box<dyn Gatekeeper>,
    /// Where downloads come from.
    pub wire: Box<dyn Fn() -> Box<dyn Transport>>,
    /// How often the device was opened, or looked at.
    pub openings: Rc<Cell<u32>>,
    /// The logs that were begun and ended, as `begin ID` and `end`.
    pub logs: Vec<String>,
    /// Whether the process was asked to stop.
    pub clock: Arc<dyn Clock>,
    /// What is watched, if something is.
    pub watch: Option<Watch>,
}

impl Host for Board {
    fn with_device(
        &mut self,
        reporter: &mut dyn Reporter,
        work: &mut dyn FnMut(&mut Device<'_>),
    ) -> Result<(), HostError> {
        self.openings.set(self.openings.get() + 1);
        let mut state = TwoCopyRecord::open(self.world.open("record"))
            .map_err(|error| HostError::Device(error.into()))?;
        let mut boot = self.machine.control(&self.world, self.system.booted);
        let mut slots = self.machine.slots(&self.world, self.system.booted.slot);
        work(&mut Device {
            boot: &mut *boot,
            slots: &mut slots,
            system: &self.system,
            modules: &mut *self.modules,
            state: &mut state,
            scripts: &mut self.scripts,
            observer: &mut Watching(Arc::clone(&self.clock)),
            gates: &mut *self.gates,
            reporter,
        });
        Ok(())
    }
    fn look(&mut self) -> Result<Option<Known>, HostError> {
        self.openings.set(self.openings.get() + 1);
        let record = TwoCopyRecord::open(self.world.open("record")).and_then(|mut record| record.peek());
        let record = record.ok().and_then(|document| Record::from_json(&document).ok());
        Ok(record.map(|record| Known { record, device_type: self.system.device_type() }))
    }
    fn policy(&mut self) -> Result<Policy, PolicyError> {
        Ok(Policy { trust: Trust::DangerUnsigned, limits: Limits::default() })
    }
    fn scripts(&mut self) -> &mut dyn ScriptRunner {
        &mut self.scripts
    }
    fn inventory(&mut self) -> Result<Vec<Attribute>, HostError> {
        Ok(Vec::new())
    }
    fn watch(&mut self) -> Option<&mut Watch> {
        self.watch.as_mut()
    }
    fn download_transport(&mut self) -> Box<dyn Transport> {
        (self.wire)()
    }
    fn begin_log(&mut self, id: &client_core::deploy::DeploymentId) {
        self.logs.push(format!("begin {id}"));
    }
    fn end_log(&mut self) {
        self.logs.push("end".into());
    }
    fn log_messages(&mut self, _: &client_core::deploy::DeploymentId) -> Vec<u8> {
        br#"{"timestamp":"2026-11-23T00:00:00Z","level":"error","message":"why"}"#.to_vec()
    }
    fn tell(&mut self, _: &Event<'_>) {}
}

/// Nobody watches, and the clock says when to stop.
struct Watching(Arc<dyn Clock>);

impl Progress for Watching {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}

impl Observer for Watching {
    fn notice(&mut self, _: Notice) {}
    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}

/// Ends the process when it is restarted, when all is over, or when nothing moves any more: when the server was asked for a
/// deployment and had none.
pub struct Waits {
    pub time: VirtualClock,
    pub rebooted: Rc<Cell<bool>>,
    pub server: ServerModel,
    pub left: u32,
}

impl Waiter for Waits {
    fn wait(&mut self, time: Duration) -> Wake {
        self.left = self.left.saturating_sub(1);
        if self.rebooted.get() || self.left == 0 || self.server.vain_questions() > 0 {
            self.time.stop();
            return Wake::Stop;
        }
        self.time.advance(time.saturating_add(Duration::from_secs(1)));
        Wake::Elapsed
    }
}

/// What must hold of all final reports together, whatever was cut: there is one, they all say the same, and whether that is
/// success. `None` where the deployment was aborted before anybody had to report.
pub fn told(server: &ServerModel, id: &str) -> Result<Option<bool>, String> {
    let finals = server.final_reports(id);
    match finals.first() {
        None if server.is_aborted(id) => Ok(None),
        None => Err("the server was never told how it ended".into()),
        Some(said) if finals.iter().any(|other| other != said) => {
            Err(format!("the server was told both: {finals:?}"))
        }
        Some(said) => Ok(Some(said == "success")),
    }
}
