//! What the daemon's loop does when the server, the network or a person does not play along.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::machine::board::{Board, ClosedAtFirst, Restarting};
use crate::machine::log_lines::logged_by;
use crate::machine::{Machine, new_image, plainly, version};
use crate::monitor::Facts;
use client_core::agent::{Agent, AgentSettings, Memory};
use client_core::artifact::{Limits, Trust};
use client_core::clock::{Clock, Waiter, Wake};
use client_core::deploy::gates::{AlwaysOpen, Answer, Gate, Gatekeeper, Question};
use client_core::deploy::record::{CUT_DOWNLOADS_MAX, CutDownloads, Deployment, Record};
use client_core::deploy::{
    self, DeployError, DeploymentId, Device, NoReporter, Options, Ordered, Policy, PolicyError, Report,
};
use client_core::install::{Cost, NoModules};
use client_core::monitor::{Alert, Check, Watch};
use client_core::provides::DependsError;
use client_core::schedule::Schedule;
use client_core::server::{
    Attribute, DownloadSettings, Poll, ReportAnswer, Request, Response, ServerError, Source, Transport,
    TransportError, UpdateServer,
};
use client_core::slot::{Restart, Slot};
use client_core::state_store::{StateStore, TwoCopyRecord};
use server_mender::{Api, Settings};
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot};
use testkit::choice::Choices;
use testkit::clock::VirtualClock;
use testkit::device::{CrashSlots, KnownSystem, Notices, ScriptLog};
use testkit::server::{Endpoint, Failure, Matcher, SERVER, ServerModel, TestCredentials};
use testkit::storage::{CrashWorld, Fault, Injection, Lasting, Limits as PowerLimits, Operation};

const ID: &str = "d0000000-0000-4000-8000-000000000001";
const MACHINE: Machine = Machine::UBoot;

/// A device with the old image in slot A, and a server that knows it.
struct Bench {
    world: CrashWorld,
    server: ServerModel,
    clock: VirtualClock,
    running: Slot,
    logs: Vec<String>,
    gates: Option<Box<dyn Gatekeeper>>,
    budget_bytes: Option<u64>,
    /// Another server than the one over the wire.
    other_server: Option<Arc<Mutex<dyn UpdateServer>>>,
    /// How often the device was opened, or looked at.
    openings: Rc<Cell<u32>>,
    /// How long the daemon waited, each time.
    waited: Vec<Duration>,
    /// What goes wrong on the way to the server.
    disturbance: Option<Disturbance>,
    /// What the artifact is replaced by, again and again, whenever the rest of it is asked for.
    replacements: Vec<Vec<u8>>,
    /// What happens when only so many waits are left.
    meanwhile: Option<(u32, Box<dyn FnOnce()>)>,
    /// What is watched.
    watch: Option<OpenWatch>,
}

/// What begins to watch, by the clock of the process.
type OpenWatch = Box<dyn FnOnce(Arc<dyn Clock>) -> Watch>;

/// A storage in which the artifact becomes another one while it is transferred.
struct ReplacingWire {
    wire: Box<dyn Transport>,
    server: ServerModel,
    replacements: Vec<Vec<u8>>,
    times: Arc<AtomicUsize>,
}

impl Transport for ReplacingWire {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        if request.headers.iter().any(|(name, _)| *name == "range") {
            let time = self.times.fetch_add(1, Ordering::Relaxed);
            let replacement = &self.replacements[time % self.replacements.len()];
            self.server.replace_artifact(ID, replacement, Some(&format!("\"replaced-{time}\"")));
        }
        self.wire.send(request)
    }
}

/// One exchange that goes wrong, counted over all processes of the device.
#[derive(Clone)]
struct Disturbance {
    exchanges: Arc<AtomicUsize>,
    at: usize,
    how: Broken,
    /// Bytes of the answer's body, once it was seen.
    body_bytes: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    NotReached,
    RequestLost,
    AnswerLost,
    /// The connection breaks after so many bytes of the body.
    BodyCut(usize),
}

struct DisturbedWire {
    wire: Box<dyn Transport>,
    disturbance: Disturbance,
}

impl Transport for DisturbedWire {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        let Disturbance { exchanges, at, how, body_bytes } = &self.disturbance;
        if exchanges.fetch_add(1, Ordering::Relaxed) != *at {
            return self.wire.send(request);
        }
        let lost = || TransportError { may_pass: true, reason: format!("{how:?}") };
        match how {
            Broken::NotReached => Err(lost()),
            Broken::RequestLost => Err(lost()),
            Broken::AnswerLost => {
                self.wire.send(request)?;
                Err(lost())
            }
            Broken::BodyCut(after) => {
                let mut response = self.wire.send(request)?;
                let mut body = Vec::new();
                response.body.read_to_end(&mut body).unwrap();
                body_bytes.store(body.len(), Ordering::Relaxed);
                let broken = body.len() > *after;
                body.truncate(*after);
                let end = if broken { Some(io::Error::from(io::ErrorKind::ConnectionReset)) } else { None };
                response.body = Box::new(io::Cursor::new(body).chain(End(end)));
                Ok(response)
            }
        }
    }
}

/// An error at the end.
struct End(Option<io::Error>);

impl Read for End {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Ends the process when the device restarts, or after so many waits.
struct Waits {
    clock: VirtualClock,
    rebooted: Rc<Cell<bool>>,
    left: u32,
    meanwhile: Option<(u32, Box<dyn FnOnce()>)>,
    waited: Vec<Duration>,
}

impl Waiter for Waits {
    fn wait(&mut self, time: Duration) -> Wake {
        if let Some((_, happen)) = self.meanwhile.take_if(|(when, _)| *when == self.left) {
            happen();
        }
        if self.rebooted.get() || self.left == 0 {
            self.clock.stop();
            return Wake::Stop;
        }
        self.left -= 1;
        self.waited.push(time);
        self.clock.wait(time)
    }
}

impl Bench {
    fn new() -> Bench {
        let world = CrashWorld::new(Choices::exhaustive(), PowerLimits { cuts: 0, ..PowerLimits::default() });
        MACHINE.set_up(&world, Slot::A);
        Bench {
            world,
            server: ServerModel::new(),
            clock: VirtualClock::new(7),
            running: Slot::A,
            logs: Vec::new(),
            gates: None,
            budget_bytes: None,
            other_server: None,
            openings: Rc::default(),
            waited: Vec::new(),
            disturbance: None,
            replacements: Vec::new(),
            meanwhile: None,
            watch: None,
        }
    }

    /// The way to the server, disturbed or not.
    fn wire(&self) -> Box<dyn Fn() -> Box<dyn Transport>> {
        let (server, disturbance) = (self.server.clone(), self.disturbance.clone());
        if !self.replacements.is_empty() {
            let (replacements, times) = (self.replacements.clone(), Arc::default());
            return Box::new(move || {
                let (server, times) = (server.clone(), Arc::clone(&times));
                let (wire, replacements) = (server.transport(), replacements.clone());
                Box::new(ReplacingWire { wire, server, replacements, times })
            });
        }
        Box::new(move || match disturbance.clone() {
            None => server.transport(),
            Some(disturbance) => Box::new(DisturbedWire { wire: server.transport(), disturbance }),
        })
    }

    fn order(&self) {
        let artifact = artifacts::rootfs("new", &new_image());
        self.server.deploy(ID, "new", artifacts::DEVICE_TYPE, &artifact);
    }

    /// The daemon as one process, for so many waits. Whether it asked for a restart.
    fn daemon(&mut self, waits: u32) -> bool {
        // A process that was stopped is not the one that starts.
        self.clock = VirtualClock::new(self.clock.now().as_secs());
        let clock = self.clock.shared();
        let settings = Settings { servers: vec![SERVER.into()], ..Settings::default() };
        let wire = self.wire();
        let api = Api::new(wire(), Box::new(TestCredentials::default()), Arc::clone(&clock), settings);
        let rebooted = Rc::new(Cell::new(false));
        let mut host = Board {
            world: self.world.clone(),
            machine: MACHINE,
            system: Restarting::new(self.running, Rc::clone(&rebooted)),
            scripts: ScriptLog::default(),
            modules: Box::new(NoModules),
            gates: self.gates.take().unwrap_or_else(|| Box::new(AlwaysOpen)),
            wire,
            openings: Rc::clone(&self.openings),
            logs: Vec::new(),
            watch: self.watch.take().map(|open| open(Arc::clone(&clock))),
            clock: Arc::clone(&clock),
        };
        let mut waiter = Waits {
            clock: self.clock.clone(),
            rebooted: Rc::clone(&rebooted),
            left: waits,
            meanwhile: self.meanwhile.take(),
            waited: Vec::new(),
        };
        let schedule = Schedule::new(&*clock, Duration::from_secs(1800), Duration::from_secs(28800));
        let settings = AgentSettings {
            retry_interval: Duration::from_secs(300),
            retry_count: 0,
            download: DownloadSettings { budget_bytes: self.budget_bytes, ..DownloadSettings::default() },
        };
        let server = self.other_server.clone().unwrap_or_else(|| Arc::new(Mutex::new(api)));
        Agent::new(&mut host, server, clock, &mut waiter, &settings, &mut Memory::new(schedule, &settings))
            .run();
        self.waited = waiter.waited;
        self.logs = host.logs;
        rebooted.get()
    }

    fn boot(&mut self) {
        match MACHINE.boot(&self.world, &Restart::Plain, &mut |_| { Behaviour::Good }.start()) {
            Boot::Up { slot, .. } => self.running = slot,
            Boot::Stuck { slot, .. } => panic!("slot {slot} does not come up"),
        }
    }

    fn record(&self) -> Record {
        Record::load(&mut TwoCopyRecord::open(self.world.open("record")).unwrap()).unwrap()
    }

    /// How often the server was asked for a deployment since `take_sent` was called last.
    fn questions(&self) -> usize {
        self.server.take_sent().iter().filter(|sent| sent.path().ends_with("/deployments/next")).count()
    }
}

#[test]
fn a_deployment_from_the_order_to_the_success() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    assert!(!bench.daemon(3));
    assert_eq!(
        bench.server.statuses(ID),
        ["downloading", "installing", "rebooting", "installing", "success"]
    );
    assert_eq!(version(&bench.world, bench.running), Some("new"));
    assert_eq!(bench.record().installed.name(), "new");
    assert!(bench.server.inventories() >= 2, "what is installed changed");
}

/// A person installs an update on the device.
fn by_hand(bench: &Bench, command: impl FnOnce(&mut Device<'_>)) {
    command(&mut Device {
        boot: &mut *MACHINE.control(&bench.world, plainly(bench.running)),
        slots: &mut CrashSlots::new(&bench.world, bench.running),
        system: &KnownSystem { running: bench.running, device_type: artifacts::DEVICE_TYPE.into() },
        modules: &mut NoModules,
        state: &mut TwoCopyRecord::open(bench.world.open("record")).unwrap(),
        scripts: &mut ScriptLog::default(),
        observer: &mut Notices::default(),
        gates: &mut AlwaysOpen,
        reporter: &mut NoReporter,
    });
}

fn install_by_hand(bench: &Bench) {
    let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
    let artifact = io::Cursor::new(artifacts::rootfs("new", &new_image()));
    by_hand(bench, |device| {
        assert!(deploy::install(device, artifact, &policy, &Options::default()).unwrap().success);
    });
}

#[test]
fn an_update_by_hand_that_fell_back_does_not_keep_the_daemon_from_asking() {
    let mut bench = Bench::new();
    install_by_hand(&bench);
    // Armed, then running on trial: both are the person's.
    for _ in 0..2 {
        assert!(!bench.daemon(3));
        assert_eq!(bench.questions(), 0);
        assert!(bench.record().deployment.is_some());
        bench.boot();
    }
    // Nobody came to commit it, and the bootloader went back.
    assert_eq!(version(&bench.world, bench.running), Some("old"));
    assert!(!bench.daemon(3));
    assert!(bench.questions() > 0);
    assert_eq!((bench.record().deployment, bench.record().installed.name()), (None, "old"));
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.daemon(3);
    assert_eq!(bench.server.finals(ID), ["success"]);
}

#[test]
fn a_lost_record_with_a_trial_that_runs_is_gone_back_from_and_the_daemon_asks_on() {
    let mut bench = Bench::new();
    install_by_hand(&bench);
    bench.boot();
    let lost = Record::after_loss("no copy is valid").to_json().unwrap();
    TwoCopyRecord::format_new(bench.world.open("record"), &lost).unwrap();
    // A commit would make permanent what nobody knows.
    by_hand(&bench, |device| {
        let refused = deploy::commit(device, &Options::default());
        assert!(matches!(refused, Err(deploy::DeployError::RecordLost)), "{refused:?}");
    });
    assert!(bench.daemon(3), "the old system is to be restarted into");
    bench.boot();
    assert_eq!(version(&bench.world, bench.running), Some("old"));
    assert!(!bench.daemon(3));
    assert!(bench.questions() > 0);
    assert_eq!(bench.record().installed.name(), "unknown");
    assert!(bench.record().lost.is_some_and(|lost| lost.settled));
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.daemon(3);
    assert_eq!((bench.record().installed.name(), bench.record().lost), ("new", None));
}

#[test]
fn a_lost_record_of_a_settled_device_restarts_nothing() {
    let mut bench = Bench::new();
    let lost = Record::after_loss("no copy is valid").to_json().unwrap();
    TwoCopyRecord::format_new(bench.world.open("record"), &lost).unwrap();
    assert!(!bench.daemon(3));
    assert!(bench.questions() > 0);
    // A trial that is armed later is not the lost one's.
    install_by_hand(&bench);
    bench.boot();
    assert!(!bench.daemon(3));
    assert!(bench.record().deployment.is_some());
}

#[test]
fn a_device_that_waited_long_to_be_accepted_sends_its_inventory_with_the_first_answer() {
    for waited in 30..60 {
        let mut bench = Bench::new();
        bench.server.set_accepting(false);
        let (server, accepted_at) = (bench.server.clone(), Rc::new(Cell::new(Duration::ZERO)));
        let at = Rc::clone(&accepted_at);
        // Long after the retries of both timers are used up, at any phase of them.
        bench.clock = VirtualClock::new(waited);
        bench.meanwhile = Some((
            4,
            Box::new(move || {
                server.take_sent();
                server.set_accepting(true);
                at.set(Duration::from_secs(1));
            }),
        ));
        bench.daemon(waited as u32);
        assert_eq!((accepted_at.get(), bench.server.inventories()), (Duration::from_secs(1), 1), "{waited}");
        let asked = bench.server.take_sent();
        let place = |end: &str| asked.iter().position(|sent| sent.path().ends_with(end));
        // Not behind the next question, but directly behind the first that was answered.
        let (question, inventory) = (place("/deployments/next"), place("/device/attributes"));
        assert!(inventory.is_some_and(|inventory| question.is_none_or(|question| inventory <= question + 2)));
    }
}

#[test]
fn an_artifact_that_is_replaced_in_the_middle_is_begun_again_and_is_no_failure() {
    let mut bench = Bench::new();
    bench.order();
    bench.server.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(7000));
    bench.replacements = vec![artifacts::rootfs("new", &new_image())];
    assert!(bench.daemon(20));
    assert_eq!(bench.record().cut_downloads.map(|cut| cut.times), Some(1));
    bench.boot();
    bench.daemon(3);
    assert_eq!(bench.server.finals(ID), ["success"]);
    assert_eq!(version(&bench.world, bench.running), Some("new"));
}

#[test]
fn an_artifact_that_never_stays_the_same_is_given_up_in_the_end() {
    let mut bench = Bench::new();
    bench.order();
    bench.server.fail_always(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(7000));
    bench.replacements = vec![artifacts::rootfs("new", &new_image())];
    assert!(!bench.daemon(60));
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(version(&bench.world, bench.running), Some("old"));
    let began = bench.server.reports(ID).iter().filter(|status| *status == "downloading").count();
    assert_eq!(began, CUT_DOWNLOADS_MAX as usize + 1);
}

#[test]
fn a_failed_deployment_brings_its_log() {
    for id in [ID, "a:b"] {
        let mut bench = Bench::new();
        order_half_an_artifact(&bench, id);
        assert!(!bench.daemon(6));
        assert_eq!(bench.server.finals(id), ["failure"]);
        assert_eq!(bench.server.logs(id).len(), 1);
        assert_eq!(bench.logs.first().map(String::as_str), Some(&*format!("begin {id}")));
        assert_eq!(bench.record().unreported, None);
    }
}

fn order_half_an_artifact(bench: &Bench, id: &str) {
    let artifact = artifacts::rootfs("new", &new_image());
    bench.server.deploy(id, "new", artifacts::DEVICE_TYPE, &artifact[..artifact.len() / 2]);
}

#[test]
fn a_failure_is_one_error_line_and_every_line_of_a_deployment_begins_with_its_id() {
    let mut bench = Bench::new();
    order_half_an_artifact(&bench, ID);
    let lines = logged_by(|| assert!(!bench.daemon(6)));
    let errors: Vec<_> = lines.iter().filter(|(level, _)| *level == log::Level::Error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    // What crates log that know of no deployment, the logger of the program labels.
    let label = format!("deployment {ID}: ");
    assert!(lines.len() > 3 && lines.iter().all(|(_, line)| line.starts_with(&label)), "{lines:?}");
}

#[test]
fn new_software_that_is_not_let_in_is_one_error_line_too() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.server.fail_next(Matcher::Report("installing"), Failure::Status(409));
    let lines = logged_by(|| assert!(bench.daemon(20), "it goes back"));
    let errors: Vec<_> = lines.iter().filter(|(level, _)| *level == log::Level::Error).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].1, format!("deployment {ID}: the server aborted the deployment"));
}

#[test]
fn a_question_with_nothing_to_do_looks_at_the_device_once_and_writes_and_flushes_nothing() {
    let after = |waits| {
        let mut bench = Bench::new();
        bench.daemon(waits);
        (bench.questions() as u64, u64::from(bench.openings.get()), bench.world.operations())
    };
    let (few, many) = (after(6), after(16));
    let questions = many.0 - few.0;
    assert!(questions > 3, "{few:?} {many:?}");
    assert_eq!(many.1 - few.1, questions, "{few:?} {many:?}");
    let bench = Bench::new();
    let before = bench.world.operations();
    TwoCopyRecord::open(bench.world.open("record")).unwrap().peek().unwrap();
    assert_eq!(many.2 - few.2, questions * (bench.world.operations() - before));
}

#[test]
fn looking_at_a_record_flushes_nothing() {
    let bench = Bench::new();
    bench.world.inject(Injection {
        device: None,
        operation: Operation::Sync,
        nth: 1,
        fault: Fault::InputOutput,
        lasting: Lasting::ForGood,
    });
    let mut record = TwoCopyRecord::open(bench.world.open("record")).unwrap();
    assert!(record.peek().is_ok() && record.load().is_err());
}

/// An order whose source must not be asked.
fn refused_unseen(policy: Result<Policy, PolicyError>, device_types: &[&str]) -> DeployError {
    let bench = Bench::new();
    let order = Ordered {
        id: DeploymentId::parse(ID).unwrap(),
        artifact_name: "new".into(),
        device_types: device_types.iter().map(|name| (*name).to_owned()).collect(),
    };
    let (mut policy, mut error) = (Some(policy), None);
    by_hand(&bench, |device| {
        let policy = policy.take().unwrap();
        let summary = deploy::deploy(device, &order, &mut || panic!("a byte was asked for"), policy).unwrap();
        assert!(summary.ended.is_some_and(|ended| ended.failed));
        error = summary.error;
    });
    assert_eq!(bench.record().deployment, None);
    error.unwrap()
}

#[test]
fn what_cannot_be_trusted_or_is_for_other_devices_is_refused_by_name_before_a_byte_of_it() {
    let unsigned = || Ok(Policy { trust: Trust::DangerUnsigned, limits: Limits::default() });
    let no_keys = refused_unseen(Err(PolicyError::new("no key can be read")), &[]);
    assert!(matches!(&no_keys, DeployError::Policy(_)), "{no_keys:?}");
    assert_eq!(no_keys.to_string(), "no key can be read");
    let foreign = refused_unseen(unsigned(), &["toaster"]);
    assert!(matches!(&foreign, DeployError::Depends(DependsError::DeviceType { .. })), "{foreign:?}");
}

/// A server that wants to be asked again at its own time.
struct Paced(Duration);

impl UpdateServer for Paced {
    fn next(&mut self, _: &BTreeMap<String, String>) -> Result<Poll, ServerError> {
        Ok(Poll { offer: None, ask_again_in: Some(self.0) })
    }
    fn refresh(
        &mut self,
        _: &DeploymentId,
        _: &BTreeMap<String, String>,
    ) -> Result<Option<Source>, ServerError> {
        Ok(None)
    }
    fn report(&mut self, _: &DeploymentId, _: Report, _: Option<&str>) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn upload_log(&mut self, _: &DeploymentId, _: &[u8]) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn send_inventory(&mut self, _: &[Attribute]) -> Result<(), ServerError> {
        Ok(())
    }
    fn forget_sent_inventory(&mut self) {}
    fn forget_token(&mut self) {}
    fn is_authorized(&self) -> bool {
        true
    }
    fn server(&self) -> Option<&str> {
        None
    }
}

#[test]
fn a_server_that_says_when_it_wants_to_be_asked_again_is_asked_then() {
    let wished = Duration::from_secs(77);
    let mut bench = Bench::new();
    bench.other_server = Some(Arc::new(Mutex::new(Paced(wished))));
    bench.daemon(8);
    // The first waits are those of the start: for the inventory and the first question.
    let paced = &bench.waited[3..];
    assert!(paced.iter().all(|wait| (wished..=wished * 11 / 10).contains(wait)), "{:?}", bench.waited);
}

/// A server that answers the sending of alerts in turn as it is told, and then takes them.
#[derive(Default)]
struct AlertServer {
    answers: Vec<Result<ReportAnswer, ServerError>>,
    /// Of the first inventory, if it is not taken.
    inventory: Option<ServerError>,
    inventories: usize,
    heard: Vec<String>,
    checks: Vec<String>,
}

impl UpdateServer for AlertServer {
    fn next(&mut self, _: &BTreeMap<String, String>) -> Result<Poll, ServerError> {
        Ok(Poll::default())
    }
    fn refresh(
        &mut self,
        _: &DeploymentId,
        _: &BTreeMap<String, String>,
    ) -> Result<Option<Source>, ServerError> {
        Ok(None)
    }
    fn report(&mut self, _: &DeploymentId, _: Report, _: Option<&str>) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn upload_log(&mut self, _: &DeploymentId, _: &[u8]) -> Result<ReportAnswer, ServerError> {
        Ok(ReportAnswer::Accepted)
    }
    fn send_inventory(&mut self, _: &[Attribute]) -> Result<(), ServerError> {
        self.inventories += 1;
        self.inventory.take().map_or(Ok(()), Err)
    }
    fn forget_sent_inventory(&mut self) {}
    fn send_checks(&mut self, checks: &[Check]) -> Result<ReportAnswer, ServerError> {
        self.checks.extend(checks.iter().map(|check| check.name.clone()));
        Ok(ReportAnswer::Accepted)
    }
    fn send_alerts(&mut self, alerts: &[Alert]) -> Result<ReportAnswer, ServerError> {
        let answer = self.answers.pop().unwrap_or(Ok(ReportAnswer::Accepted));
        let names = alerts.iter().map(|alert| format!("{} {}", alert.name, alert.level.name()));
        let said = match &answer {
            Ok(answer) => format!("{answer:?}: "),
            Err(_) => "silence: ".to_owned(),
        };
        self.heard.push(said + &names.collect::<Vec<_>>().join(", "));
        answer
    }
    fn forget_token(&mut self) {}
    fn is_authorized(&self) -> bool {
        true
    }
    fn server(&self) -> Option<&str> {
        None
    }
}

#[test]
fn alerts_are_sent_in_their_order_until_they_are_taken_and_the_device_is_looked_at_in_its_own_time() {
    if !cfg!(feature = "monitor") {
        println!("left out: this build watches nothing, it has not the feature monitor");
        return;
    }
    let silence = || {
        let source = TransportError { may_pass: true, reason: "nobody there".to_owned() };
        Err(ServerError::Transport { url: SERVER.to_owned(), source })
    };
    let server = Arc::new(Mutex::new(AlertServer { answers: vec![silence()], ..AlertServer::default() }));
    let facts = Facts::new(&[("a", 99), ("b", 10)]);
    let (looks, at_start) = (facts.clone(), VirtualClock::new(0).now());
    let mut bench = Bench::new();
    bench.other_server = Some(server.clone());
    bench.watch = Some(Box::new(move |clock| looks.watch(clock)));
    bench.daemon(40);
    let server = server.lock().unwrap();
    assert_eq!(server.checks, ["a", "b"], "once for each process");
    assert_eq!(server.heard, ["silence: a CRITICAL", "Accepted: a CRITICAL"]);
    // An interval is a minute, ten percent more or less, whatever else there is to do.
    let (looks, passed) = (facts.looks(), (bench.clock.now() - at_start).as_secs());
    assert!((passed / 66..=passed / 54 + 1).contains(&looks), "{looks} looks in {passed} s");
    assert!(looks > 30, "{looks}");
}

/// What a server heard, how many inventories came, and for how many seconds the daemon ran, when the first of each is not
/// taken and the next is wanted in an hour.
fn told_to_come_in_an_hour(waits: u32) -> (Vec<String>, usize, u64) {
    let busy = || ServerError::Status {
        url: SERVER.to_owned(),
        status: 503,
        message: String::new(),
        retry_after: Some(Duration::from_secs(3600)),
    };
    let (answers, inventory) = (vec![Err(busy())], Some(busy()));
    let server = Arc::new(Mutex::new(AlertServer { answers, inventory, ..AlertServer::default() }));
    let (facts, at_start) = (Facts::new(&[("a", 99)]), VirtualClock::new(0).now());
    let mut bench = Bench::new();
    bench.other_server = Some(server.clone());
    bench.watch = Some(Box::new(move |clock| facts.watch(clock)));
    bench.daemon(waits);
    let server = server.lock().unwrap();
    (server.heard.clone(), server.inventories, (bench.clock.now() - at_start).as_secs())
}

#[test]
fn a_server_that_says_when_it_takes_alerts_and_inventories_again_hears_none_before_however_often_it_answers()
{
    let watches = cfg!(feature = "monitor");
    if !watches {
        println!("left out: alerts, this build has not the feature monitor");
    }
    let heard =
        |words: &[&str]| words.iter().filter(|_| watches).map(|&word| word.to_owned()).collect::<Vec<_>>();
    let runs = || (10..).step_by(10).map(told_to_come_in_an_hour);
    let (alerts, inventories, passed) = runs().take_while(|(_, _, passed)| *passed < 3600).last().unwrap();
    assert!(passed > 2400, "{passed}");
    assert_eq!((alerts, inventories), (heard(&["silence: a CRITICAL"]), 1));
    let (alerts, inventories, _) = runs().find(|(_, _, passed)| *passed > 3600 * 11 / 10 + 120).unwrap();
    assert_eq!((alerts, inventories), (heard(&["silence: a CRITICAL", "Accepted: a CRITICAL"]), 2));
}

#[test]
fn a_deployment_that_failed_is_counted_where_that_is_watched() {
    let mut bench = Bench::new();
    let server = bench.server.clone();
    // What is handed out is no artifact.
    server.deploy(ID, "new", artifacts::DEVICE_TYPE, b"nonsense");
    let facts = Facts::updates();
    let looks = facts.clone();
    bench.watch = Some(Box::new(move |clock| looks.watch(clock)));
    bench.daemon(12);
    assert_eq!(server.statuses(ID).last().map(String::as_str), Some("failure"));
    // The server of this bench refuses alerts; a check that is new finds what was counted.
    assert_eq!(facts.what_a_new_check_of_updates_says(), "the last deployment failed");
}

/// Is closed once at each gate, and opens with the very words the server heard then.
#[derive(Default)]
struct Parrot(Vec<Gate>);

impl Gatekeeper for Parrot {
    fn watches(&self, gate: Gate) -> bool {
        matches!(gate, Gate::Download | Gate::Install)
    }
    fn ask(&mut self, question: &Question<'_>) -> Answer {
        let gate = question.gate;
        if self.0.contains(&gate) {
            return Answer::Open { note: Some(format!("waiting before {gate}: later")) };
        }
        self.0.push(gate);
        Answer::Closed { reason: "later".into(), ask_again: Duration::from_secs(1) }
    }
}

#[test]
fn the_same_words_are_kept_back_only_where_the_status_on_the_wire_is_the_same() {
    let mut bench = Bench::new();
    bench.order();
    bench.gates = Some(Box::<Parrot>::default());
    assert!(bench.daemon(30));
    assert_eq!(
        bench.server.reports(ID),
        ["downloading", "pause_before_installing", "installing", "rebooting"]
    );
}

#[test]
fn nothing_is_asked_before_the_end_of_the_last_deployment_is_reported() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.server.fail_always(Matcher::Report("success"), Failure::Status(500));
    bench.server.take_sent();
    bench.daemon(8);
    assert_eq!(bench.questions(), 0);
    assert_eq!(bench.record().unreported.map(|unreported| unreported.failed), Some(false));
    // Another process, and the server has recovered.
    bench.server.heal();
    bench.daemon(4);
    assert_eq!(bench.server.finals(ID), ["success"]);
    assert_eq!(bench.record().unreported, None);
    assert!(bench.questions() > 0);
}

#[test]
fn a_report_that_is_never_taken_does_not_keep_the_device_from_its_updates() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.server.fail_always(Matcher::Report("success"), Failure::Status(500));
    bench.server.take_sent();
    bench.daemon(60);
    assert!(bench.questions() > 0);
    // The server has not heard of the end and orders it again: it is not installed again.
    let restarts = bench.server.reports(ID).iter().filter(|report| *report == "rebooting").count();
    assert_eq!(restarts, 1, "{:?}", bench.server.reports(ID));
    assert_eq!(version(&bench.world, bench.running), Some("new"));
}

#[test]
fn a_report_whose_answer_is_lost_is_repeated_with_the_same_words() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    bench.server.fail_next(Matcher::Report("success"), Failure::LostAnswer);
    bench.daemon(6);
    assert_eq!(bench.server.finals(ID), ["success"]);
    assert_eq!(bench.record().unreported, None);
}

#[test]
fn new_software_that_cannot_reach_the_server_is_given_up() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    assert_eq!(version(&bench.world, bench.running), Some("new"));
    bench.server.fail_always(Matcher::Any, Failure::NotReached);
    assert!(bench.daemon(20), "it goes back");
    bench.server.heal();
    bench.boot();
    bench.daemon(6);
    assert_eq!(version(&bench.world, bench.running), Some("old"));
    assert_eq!(
        (bench.server.finals(ID), bench.record().installed.name()),
        (vec!["failure".to_owned()], "old")
    );
}

#[test]
fn an_abort_is_noticed_at_the_next_report() {
    let mut bench = Bench::new();
    bench.order();
    bench.server.fail_next(Matcher::Report("installing"), Failure::Status(409));
    assert!(!bench.daemon(6), "nothing was armed");
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(bench.record().deployment, None);
}

#[test]
fn a_download_that_is_stopped_has_not_happened_and_is_done_by_the_next_process() {
    let mut bench = Bench::new();
    bench.order();
    // The link works and brings nothing more; the process is asked to stop while it waits for more.
    bench.server.fail_next(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(7000));
    bench.server.fail_always(Matcher::Of(Endpoint::Artifact), Failure::CutAfter(0));
    stopped_in_the_middle(&mut bench);
    assert_eq!(bench.record().deployment, None, "a stop is no failure");
    assert_eq!(bench.server.finals(ID), [""; 0]);
    bench.server.heal();
    assert!(bench.daemon(20));
    bench.boot();
    bench.daemon(3);
    assert_eq!(bench.server.finals(ID), ["success"]);
}

/// The daemon, asked to stop while it waits for the rest of a download.
fn stopped_in_the_middle(bench: &mut Bench) {
    let clock = VirtualClock::new(7);
    clock.stop_in(Duration::from_secs(100));
    let shared = clock.shared();
    let settings = Settings { servers: vec![SERVER.into()], ..Settings::default() };
    let api = Api::new(
        bench.server.transport(),
        Box::new(TestCredentials::default()),
        Arc::clone(&shared),
        settings,
    );
    let rebooted = Rc::new(Cell::new(false));
    let server = bench.server.clone();
    let mut host = Board {
        world: bench.world.clone(),
        machine: MACHINE,
        system: Restarting::new(bench.running, Rc::clone(&rebooted)),
        scripts: ScriptLog::default(),
        modules: Box::new(NoModules),
        gates: Box::new(AlwaysOpen),
        wire: Box::new(move || server.transport()),
        openings: Rc::default(),
        logs: Vec::new(),
        clock: Arc::clone(&shared),
        watch: None,
    };
    let mut waiter = clock.clone();
    let schedule = Schedule::new(&*shared, Duration::from_secs(20), Duration::from_secs(28800));
    let settings = AgentSettings {
        retry_interval: Duration::from_secs(300),
        retry_count: 0,
        download: DownloadSettings {
            attempts_max: 10_000,
            longest_wait: Duration::from_secs(5),
            ..DownloadSettings::default()
        },
    };
    Agent::new(
        &mut host,
        Arc::new(Mutex::new(api)),
        shared,
        &mut waiter,
        &settings,
        &mut Memory::new(schedule, &settings),
    )
    .run();
}

#[test]
fn a_deployment_waits_before_every_gate_and_tells_why() {
    let mut bench = Bench::new();
    bench.order();
    bench.gates = Some(Box::<ClosedAtFirst>::default());
    assert!(bench.daemon(30));
    bench.boot();
    bench.gates = Some(Box::<ClosedAtFirst>::default());
    assert!(!bench.daemon(8));
    assert_eq!(
        bench.server.reports(ID),
        [
            "downloading",
            "downloading",
            "pause_before_installing",
            "installing",
            "pause_before_rebooting",
            "rebooting",
            "pause_before_committing",
            "installing",
            "success"
        ]
    );
    let remarks = bench.server.substates(ID);
    assert_eq!(remarks[0].as_deref(), Some("waiting before download: not now"));
    assert_eq!(remarks[2].as_deref(), Some("waiting before install: not now"));
    assert_eq!(remarks[3].as_deref(), Some("now"), "who opened the gate is told with the next report");
    assert_eq!(remarks[8], None);
    assert_eq!(version(&bench.world, bench.running), Some("new"));
}

#[test]
fn a_gate_that_refuses_ends_the_deployment_and_says_why() {
    for gate in Gate::ALL {
        let mut bench = Bench::new();
        bench.order();
        for _ in 0..3 {
            bench.gates = Some(Box::new(ClosedAtFirst::refusing(gate)));
            if !bench.daemon(30) {
                break;
            }
            bench.boot();
        }
        assert_eq!(bench.server.finals(ID), ["failure"], "{gate}");
        let remarks = bench.server.substates(ID);
        let refused = format!("refused before {gate}: not here");
        assert_eq!(remarks.last().unwrap().as_deref(), Some(&*refused), "{gate}");
        assert_eq!(version(&bench.world, bench.running), Some("old"), "{gate}");
        assert_eq!(bench.record().installed.name(), "old", "{gate}");
    }
}

#[test]
fn the_server_may_abort_what_waits() {
    let mut bench = Bench::new();
    bench.order();
    bench.gates = Some(Box::<ClosedAtFirst>::default());
    bench.server.fail_next(Matcher::Report("pause_before_installing"), Failure::Status(409));
    assert!(!bench.daemon(10), "nothing was armed");
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(bench.record().deployment, None);
}

#[test]
fn waiting_costs_nothing_of_the_stages_a_deployment_may_enter() {
    struct Patient(u32);
    impl Gatekeeper for Patient {
        fn watches(&self, gate: Gate) -> bool {
            gate == Gate::Install
        }
        fn ask(&mut self, _: &Question<'_>) -> Answer {
            self.0 -= 1;
            match self.0 {
                0 => Answer::Open { note: None },
                _ => Answer::Closed { reason: "wait".into(), ask_again: Duration::from_secs(60) },
            }
        }
    }
    let mut bench = Bench::new();
    bench.order();
    bench.gates = Some(Box::new(Patient(100)));
    assert!(bench.daemon(400));
    bench.boot();
    bench.daemon(3);
    assert_eq!(bench.server.finals(ID), ["success"]);
    // The same words again and again would only cost traffic; now and then shows that the device lives.
    let paused =
        bench.server.reports(ID).iter().filter(|report| *report == "pause_before_installing").count();
    assert!((2..50).contains(&paused), "{paused}");
}

#[test]
fn gates_behind_the_download_see_what_it_cost() {
    type Seen = Vec<(Gate, Option<Cost>)>;
    struct Curious(Rc<RefCell<Seen>>);
    impl Gatekeeper for Curious {
        fn watches(&self, _: Gate) -> bool {
            true
        }
        fn ask(&mut self, question: &Question<'_>) -> Answer {
            self.0.borrow_mut().push((question.gate, question.cost));
            Answer::Open { note: None }
        }
    }
    let mut bench = Bench::new();
    bench.order();
    let seen = Rc::new(RefCell::new(Vec::new()));
    bench.gates = Some(Box::new(Curious(Rc::clone(&seen))));
    assert!(bench.daemon(20));
    let seen = seen.borrow();
    assert_eq!(seen[0], (Gate::Download, None), "nothing was bought yet");
    let image_bytes = Some(new_image().len() as u64);
    for (gate, cost) in &seen[1..] {
        assert_eq!(cost.unwrap().image_bytes, image_bytes, "{gate}");
        assert!(cost.unwrap().transfer_bytes > image_bytes, "{gate}: its archive comes too");
    }
    assert_eq!(
        seen.iter().map(|(gate, _)| *gate).collect::<Vec<_>>(),
        [Gate::Download, Gate::Install, Gate::Reboot]
    );
}

#[test]
fn an_artifact_beyond_the_byte_budget_is_not_begun() {
    let mut bench = Bench::new();
    bench.order();
    bench.budget_bytes = Some(1000);
    assert!(!bench.daemon(6));
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(version(&bench.world, !bench.running), None, "nothing was written");
}

/// The record as a process left it that ended in the middle.
fn change_deployment(bench: &Bench, change: impl FnOnce(&mut Record)) {
    let mut store = TwoCopyRecord::open(bench.world.open("record")).unwrap();
    let mut record = Record::load(&mut store).unwrap();
    change(&mut record);
    record.save(&mut store).unwrap();
}

#[test]
fn the_end_of_a_loop_closes_its_trial_and_the_device_takes_other_updates() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    assert_eq!(version(&bench.world, bench.running), Some("new"));
    // Something has ended the process again and again.
    change_deployment(&bench, |record| record.deployment.as_mut().unwrap().transitions = 40);
    assert!(bench.daemon(20), "it goes back");
    bench.boot();
    assert_eq!(version(&bench.world, bench.running), Some("old"));
    bench.daemon(6);
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(bench.record().installed.name(), "new_INCONSISTENT");
    let again = "d0000000-0000-4000-8000-000000000002";
    bench.server.deploy(again, "new", artifacts::DEVICE_TYPE, &artifacts::rootfs("new", &new_image()));
    assert!(bench.daemon(20));
    bench.boot();
    bench.daemon(6);
    assert_eq!(bench.server.finals(again), ["success"]);
}

#[test]
fn a_gateway_without_its_service_aborts_nothing() {
    let mut bench = Bench::new();
    bench.order();
    assert!(bench.daemon(20));
    bench.boot();
    // "404 page not found" in plain text, as some gateways say it.
    bench.server.fail_next(Matcher::Report("installing"), Failure::Plain(404));
    bench.server.fail_next(Matcher::Report("success"), Failure::Plain(404));
    bench.daemon(8);
    assert_eq!(bench.server.finals(ID), ["success"]);
    assert_eq!(version(&bench.world, bench.running), Some("new"));
}

#[test]
fn what_a_person_has_installed_is_left_alone() {
    let mut bench = Bench::new();
    install_by_hand(&bench);
    bench.order();
    bench.server.take_sent();
    assert!(!bench.daemon(6));
    assert_eq!(bench.questions(), 0, "no second update over one that waits");
    assert_eq!(bench.record().deployment.map(|waiting| waiting.artifact_name).as_deref(), Some("new"));
    assert!(bench.server.inventories() > 0);
}

/// A deployment with one exchange broken. The length of the broken body; `None` when there were fewer exchanges.
fn deploy_with(at: usize, how: Broken, artifact: &[u8]) -> Option<usize> {
    let mut bench = Bench::new();
    bench.server.set_recording(false);
    bench.server.deploy(ID, "new", artifacts::DEVICE_TYPE, artifact);
    let (exchanges, body_bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    bench.disturbance =
        Some(Disturbance { exchanges: Arc::clone(&exchanges), at, how, body_bytes: Arc::clone(&body_bytes) });
    assert!(bench.daemon(30), "{at} {how:?}: no restart: {:?}", bench.server.statuses(ID));
    bench.boot();
    assert!(!bench.daemon(8), "{at} {how:?}: another restart");
    assert_eq!(bench.server.finals(ID), ["success"], "{at} {how:?}: {:?}", bench.server.reports(ID));
    assert_eq!(version(&bench.world, bench.running), Some("new"), "{at} {how:?}");
    let record = bench.record();
    assert!(record.deployment.is_none() && record.unreported.is_none(), "{at} {how:?}: {record:?}");
    (exchanges.load(Ordering::Relaxed) > at).then(|| body_bytes.load(Ordering::Relaxed))
}

/// The artifact itself is cut at every byte in `download.rs`; here at some, because each costs a whole deployment.
#[test]
fn every_exchange_broken_at_every_byte_ends_in_success() {
    let artifact = artifacts::rootfs("new", &new_image());
    let mut runs = 0;
    for at in 0.. {
        for how in [Broken::NotReached, Broken::RequestLost, Broken::AnswerLost] {
            deploy_with(at, how, &artifact);
            runs += 1;
        }
        let Some(length) = deploy_with(at, Broken::BodyCut(0), &artifact) else { break };
        let step = if length > 4096 { 7 } else { 1 };
        for after in (0..length).step_by(step) {
            deploy_with(at, Broken::BodyCut(after), &artifact);
            runs += 1;
        }
    }
    println!("deployments with one broken exchange: {runs}");
    assert!(runs > 1000, "{runs}");
}

/// A device whose download was cut short for the tenth time, or once more.
fn after_a_cut_download(times: u32) -> Bench {
    let bench = Bench::new();
    bench.order();
    change_deployment(&bench, |record| {
        let mut deployment = Deployment::new("new".into(), Some("rootfs-image".into()));
        deployment.id = Some(ID.into());
        record.deployment = Some(deployment);
        record.cut_downloads = Some(CutDownloads { id: ID.into(), times });
    });
    bench
}

#[test]
fn a_download_that_is_cut_short_begins_again_but_not_without_end() {
    let mut bench = after_a_cut_download(CUT_DOWNLOADS_MAX - 1);
    assert!(bench.daemon(20), "it is installed");
    bench.boot();
    bench.daemon(6);
    assert_eq!(bench.server.finals(ID), ["success"]);
    assert_eq!(bench.record().cut_downloads, None);

    let mut bench = after_a_cut_download(CUT_DOWNLOADS_MAX);
    assert!(!bench.daemon(20));
    assert_eq!(bench.server.finals(ID), ["failure"]);
    assert_eq!(version(&bench.world, !bench.running), None, "nothing was written");
}
