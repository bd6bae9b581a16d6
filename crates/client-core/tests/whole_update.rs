//! A whole update as a scenario: install, trial, commit, fall-back or roll-back, with the production codecs, record and
//! state machine over crash devices, against bootloader models that share no code with them.
//!
//! What must hold after every cut, once the device has been started again:
//! - some slot comes up, and what comes up is exactly the old or exactly the new image;
//! - the boot environment never selects anything else;
//! - with no deployment in progress, the record names what runs;
//! - `resume`, and a second installation where the first was lost, end with the new image committed (or, when it
//!   cannot come up, with the old one and a settled environment).

// All of this file is test code, of which each suite uses its own part.
#![allow(clippy::unwrap_used, clippy::print_stdout, unreachable_pub)]

use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use crate::machine::{IMAGE_BYTES, Machine, new_image, old_image, plainly, selected, version};
use client_core::artifact::{Limits, Places, Supply, Trust};
use client_core::boot::{BootEnv, BootEnvError, Variables};
use client_core::delta::Compression;
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::{
    self, DeployError, Device, NoReporter, Options as Order, Policy, Stage, Status, Summary,
};
use client_core::install::NoModules;
use client_core::slot::{Restart, Slot};
use client_core::state_store::{StateError, StateStore, TwoCopyRecord};
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot, TrybootModel};
use testkit::conformance::boot::Booted;
use testkit::deltas::{self, Making};
use testkit::device::{KnownSystem, Notices, ScriptLog, slot_device};
use testkit::enumerator::{After, Options, Report, Scenario, explore};
use testkit::storage::{CrashDevice, CrashWorld, Fault, Injection, Lasting, Operation, Suppressed};
use testkit::vcdiff;

/// What the update does after its installation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// The new image comes up and is committed.
    Commit,
    /// The new image never comes up.
    FallBack,
    /// The new image comes up, and the order is to go back.
    RollBack,
}

pub const ENDINGS: [Ending; 3] = [Ending::Commit, Ending::FallBack, Ending::RollBack];

/// A deliberate mistake, to show that it would be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    None,
    /// The how-manieth sync of this device does nothing.
    LostSync(&'static str, u64),
    /// No sync of this device does anything.
    NoSync(&'static str),
    /// Durable step number n of a command (saves of the record and writes of the environment) is carried out only
    /// after the next.
    Swap(Command, usize),
    /// Writes to the slot are lost silently: the device says that they are there until its cache is dropped.
    LostSlotWrites,
    /// An operation of a command fails.
    Fails(Command, Operation, Fault, Lasting, u64),
}

/// How the new image comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrives {
    /// As it is.
    Whole,
    /// As the difference to what runs, in two groups.
    AsDelta,
    /// As the difference to what runs, of Mender's kind.
    AsVcdiff,
    /// As it is, from a source that can be read from any place on, with a checkpoint after each block.
    ByPlace,
}

impl Arrives {
    fn artifact(self) -> Artifact {
        let bytes = match self {
            Arrives::Whole | Arrives::ByPlace => artifacts::rootfs("new", &new_image()),
            Arrives::AsDelta => {
                let making =
                    Making { segment_blocks: 1, group_segments: 1, ..Making::small(Compression::Zstd) };
                let made = deltas::make(&old_image(), &new_image(), &making);
                let mut spec = deltas::spec("new", &made.signed);
                // The record of these machines knows no digest.
                spec.depends.clear();
                deltas::around(&spec, made.file())
            }
            Arrives::AsVcdiff => {
                let mut spec = vcdiff::spec("new", &old_image(), &new_image());
                spec.depends.clear();
                deltas::around(&spec, vcdiff::make(&old_image(), &new_image(), true))
            }
        };
        Rc::new(Comes { bytes, arrives: self })
    }
}

/// An artifact, and how it comes.
struct Comes {
    bytes: Vec<u8>,
    arrives: Arrives,
}

impl Comes {
    fn supply(&self) -> Supply {
        match self.arrives {
            Arrives::Whole | Arrives::AsDelta | Arrives::AsVcdiff => Cursor::new(self.bytes.clone()).into(),
            Arrives::ByPlace => Supply::Places(Box::new(Bought(self.bytes.clone()))),
        }
    }
}

/// Bytes that cost something, from any place on.
struct Bought(Vec<u8>);

impl Places for Bought {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.0.len());
        let (start, end) = (within(offset), end.map_or(self.0.len(), within));
        Ok(Box::new(Cursor::new(self.0[start..end.max(start)].to_vec())))
    }

    fn can_jump(&self) -> bool {
        true
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn note_every(&self) -> Option<u64> {
        Some(2048)
    }
}

/// What the client is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    Install,
    /// `resume` or `rollback` after the restart.
    Finish,
}

impl Mistake {
    /// The step that `command` takes too late.
    fn late(self, command: Command) -> Option<usize> {
        match self {
            Mistake::Swap(which, step) if which == command => Some(step),
            Mistake::None
            | Mistake::LostSync(..)
            | Mistake::NoSync(_)
            | Mistake::Swap(..)
            | Mistake::LostSlotWrites
            | Mistake::Fails(..) => None,
        }
    }

    /// What goes wrong with the devices during `command`.
    fn injection(self, command: Command) -> Option<Injection> {
        match self {
            Mistake::Fails(which, operation, fault, lasting, nth) if which == command => {
                Some(Injection { device: None, operation, nth, fault, lasting })
            }
            Mistake::None
            | Mistake::LostSync(..)
            | Mistake::NoSync(_)
            | Mistake::Swap(..)
            | Mistake::LostSlotWrites
            | Mistake::Fails(..) => None,
        }
    }
}

#[derive(Hash, Clone)]
pub struct Facts {
    booted: Booted,
    /// What the machine was asked for when it was restarted; gone with the power.
    restart: Restart,
    /// An installation was reported as done, and nothing has started its image since. Only of a bootloader that counts
    /// nothing: others may have used a trial up before its image.
    untried: bool,
    /// Restarts into an image of which nothing was heard.
    tries: u32,
    installs: u32,
    went_back: bool,
    /// The failure of the finishing command has been had.
    failed: bool,
    /// An installation was reported as done, and the device not started since.
    promised: bool,
}

/// Restarts into an image of which nothing is heard before a person gives up: one more than the power can take away.
const TRIES: u32 = 3;

impl Facts {
    fn of_a_device_that_runs(slot: Slot) -> Facts {
        Facts {
            booted: plainly(slot),
            restart: Restart::Plain,
            untried: false,
            tries: 0,
            installs: 1,
            went_back: false,
            failed: false,
            promised: false,
        }
    }

    /// A person restarts the device after an installation, as its bootloader wants it.
    fn restart_into_trial(&mut self, world: &CrashWorld, machine: Machine) {
        if machine == Machine::OneShot {
            self.untried = true;
            world.crash_point("the restart");
            self.restart = Restart::With { argument: TrybootModel::ARGUMENT.into() };
        }
    }

    /// Nothing came of so many tries that a person does not wait for more.
    fn gives_up(&self) -> bool {
        self.tries > TRIES
    }
}

/// The slot that the next start is going to try.
fn to_be_tried(world: &CrashWorld, machine: Machine, restart: &Restart) -> Result<Option<Slot>, String> {
    let (next, trial) = selected(world, machine)?;
    Ok(match restart {
        Restart::Plain => trial.then_some(next),
        Restart::With { .. } => Some(!next),
    })
}

/// Carries out durable steps in order, or one of them too late.
#[derive(Default)]
struct Steps {
    count: usize,
    late: Option<usize>,
    held: Option<Box<dyn FnOnce()>>,
}

impl Steps {
    /// Whether the step that is about to be taken is the one to hold back.
    fn hold(&mut self) -> bool {
        self.count += 1;
        self.late == Some(self.count)
    }
}

struct SwappedEnv {
    inner: Rc<RefCell<Box<dyn BootEnv>>>,
    steps: Rc<RefCell<Steps>>,
}

impl SwappedEnv {
    fn around(inner: Box<dyn BootEnv>, steps: &Rc<RefCell<Steps>>) -> Box<dyn BootEnv> {
        Box::new(SwappedEnv { inner: Rc::new(RefCell::new(inner)), steps: Rc::clone(steps) })
    }
}

impl BootEnv for SwappedEnv {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        self.inner.borrow_mut().read(names)
    }

    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        if self.steps.borrow_mut().hold() {
            let inner = Rc::clone(&self.inner);
            let changes: Vec<(String, String)> =
                changes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            self.steps.borrow_mut().held = Some(Box::new(move || {
                let changes: Vec<(&str, &str)> =
                    changes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                inner.borrow_mut().write(&changes).unwrap();
            }));
            return Ok(());
        }
        self.inner.borrow_mut().write(changes)?;
        release(&self.steps);
        Ok(())
    }

    fn check_write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        self.inner.borrow_mut().check_write(changes)
    }

    fn describe(&self) -> String {
        self.inner.borrow().describe()
    }
}

struct SwappedStore {
    inner: Rc<RefCell<TwoCopyRecord<CrashDevice>>>,
    steps: Rc<RefCell<Steps>>,
}

impl StateStore for SwappedStore {
    fn capacity_bytes(&self) -> usize {
        self.inner.borrow().capacity_bytes()
    }

    fn load(&mut self) -> Result<Vec<u8>, StateError> {
        self.inner.borrow_mut().load()
    }

    fn save(&mut self, document: &[u8]) -> Result<(), StateError> {
        if self.steps.borrow_mut().hold() {
            let (inner, document) = (Rc::clone(&self.inner), document.to_vec());
            self.steps.borrow_mut().held =
                Some(Box::new(move || inner.borrow_mut().save(&document).unwrap()));
            return Ok(());
        }
        self.inner.borrow_mut().save(document)?;
        release(&self.steps);
        Ok(())
    }
}

fn release(steps: &Rc<RefCell<Steps>>) {
    let held = steps.borrow_mut().held.take();
    if let Some(step) = held {
        step();
    }
}

/// Runs one command of the client, as a process of its own would.
pub fn client(
    world: &CrashWorld,
    machine: Machine,
    booted: Booted,
    late: Option<usize>,
    command: impl FnOnce(&mut Device<'_>) -> Result<Summary, DeployError>,
) -> Result<Summary, DeployError> {
    let running = booted.slot;
    let steps = Rc::new(RefCell::new(Steps { late, ..Steps::default() }));
    let record = TwoCopyRecord::open(world.open("record"))
        .map_err(|error| DeployError::Record(client_core::deploy::record::RecordError::Store(error)))?;
    let mut state = SwappedStore { inner: Rc::new(RefCell::new(record)), steps: Rc::clone(&steps) };
    let mut boot = machine.control_through(world, booted, &|env| SwappedEnv::around(env, &steps));
    let mut slots = machine.slots(world, running);
    let system = KnownSystem { running, device_type: artifacts::DEVICE_TYPE.into() };
    let mut scripts = ScriptLog::default();
    let mut notices = Notices::default();
    let result = command(&mut Device {
        boot: &mut *boot,
        slots: &mut slots,
        system: &system,
        modules: &mut NoModules,
        state: &mut state,
        scripts: &mut scripts,
        observer: &mut notices,
        gates: &mut AlwaysOpen,
        reporter: &mut NoReporter,
    });
    release(&steps);
    result
}

fn install(
    world: &CrashWorld,
    machine: Machine,
    booted: Booted,
    late: Option<usize>,
    artifact: &Artifact,
) -> Result<Summary, DeployError> {
    let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
    let supply = artifact.supply();
    client(world, machine, booted, late, |device| deploy::install(device, supply, &policy, &Order::default()))
}

/// What the record says is installed; `None` while a deployment is in progress.
fn recorded(world: &CrashWorld) -> Result<Option<String>, String> {
    let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
    let record = Record::load(&mut store).map_err(|error| error.to_string())?;
    // What a cut download leaves behind is no deployment.
    let counted = record
        .wear
        .values()
        .any(|wear| wear.installations > 0 && wear.written_bytes + wear.skipped_bytes >= IMAGE_BYTES as u64);
    if record.installed.name() == "new" && !counted {
        return Err(format!("what was written is not counted: {:?}", record.wear));
    }
    let idle = record.deployment.is_none_or(|deployment| deployment.stage == Stage::Download);
    Ok(idle.then(|| record.installed.name().to_owned()))
}

/// One line of a table: what is updated from which slot, how that ends, and what is broken on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    pub machine: Machine,
    pub start: Slot,
    pub arrives: Arrives,
    pub ending: Ending,
    pub mistake: Mistake,
}

/// An artifact that more than one step installs.
type Artifact = Rc<Comes>;

impl Update {
    /// The line, step by step.
    pub fn scenario(self) -> Scenario<Facts> {
        let artifact = self.arrives.artifact();
        let again = Rc::clone(&artifact);
        Scenario::new(move |world| self.set_up(world))
            .run(move |world, facts| self.install_first(world, facts, &artifact))
            .boot(move |world, facts| self.boot(world, facts))
            .recover(move |world, facts| self.recover(world, facts, &again))
            .check(move |world, facts| self.check(world, facts))
            .fold_equal_states()
    }

    fn target(self) -> Slot {
        !self.start
    }

    fn set_up(self, world: &CrashWorld) -> Facts {
        self.machine.set_up(world, self.start);
        match self.mistake {
            Mistake::LostSync(device, nth) => world.suppress_sync(device, Suppressed::Nth(nth)),
            Mistake::NoSync(device) => world.suppress_sync(device, Suppressed::Every),
            Mistake::LostSlotWrites => world.inject(Injection {
                device: Some(slot_device(self.target()).into()),
                operation: Operation::Write,
                nth: self.machine.first_slot_write(),
                fault: Fault::LostWrite,
                lasting: Lasting::Once,
            }),
            Mistake::None | Mistake::Swap(..) | Mistake::Fails(..) => {}
        }
        Facts::of_a_device_that_runs(self.start)
    }

    fn install_first(self, world: &CrashWorld, facts: &mut Facts, artifact: &Artifact) -> Result<(), String> {
        let fails = self.break_devices(world, Command::Install);
        let late = self.mistake.late(Command::Install);
        let result = install(world, self.machine, facts.booted, late, artifact);
        world.heal();
        match result {
            // Whatever it said: the start after it finds out.
            _ if fails => Ok(()),
            Ok(summary) if summary.success => {
                facts.restart_into_trial(world, self.machine);
                facts.promised = true;
                Ok(())
            }
            Ok(summary) if self.mistake == Mistake::LostSlotWrites => {
                // The read-back found it: nothing was armed.
                assert_eq!(summary.status, Status::NotModified);
                Ok(())
            }
            Ok(summary) => Err(format!("the installation failed: {:?}", summary.error)),
            Err(error) => Err(format!("the installation could not be tried: {error}")),
        }
    }

    /// Whether an operation of `command` is going to fail.
    fn break_devices(self, world: &CrashWorld, command: Command) -> bool {
        let injection = self.mistake.injection(command);
        let fails = injection.is_some();
        injection.into_iter().for_each(|injection| world.inject(injection));
        fails
    }

    fn boot(self, world: &CrashWorld, facts: &mut Facts) -> Result<(), String> {
        let (restart, target) = (std::mem::take(&mut facts.restart), self.target());
        let promised = std::mem::take(&mut facts.promised);
        if promised && to_be_tried(world, self.machine, &restart)? != Some(target) {
            return Err("what was reported as installed is not going to be tried".into());
        }
        let mut broken = None;
        let booted = self.machine.boot(world, &restart, &mut |slot| {
            if version(world, slot).is_none() {
                broken = Some(slot);
            }
            facts.untried &= slot != target;
            self.behaviour(slot).start()
        });
        if let Some(slot) = broken {
            return Err(format!("slot {slot} was booted and holds neither the old image nor the new one"));
        }
        match booted {
            Boot::Up { slot, one_shot, .. } => {
                facts.booted = Booted { slot, one_shot };
                Ok(())
            }
            Boot::Stuck { slot, .. } => Err(format!(
                "nothing comes up: the bootloader keeps trying slot {slot}, which holds {:?}",
                version(world, slot)
            )),
        }
    }

    fn behaviour(self, slot: Slot) -> Behaviour {
        match (slot == self.target(), self.ending) {
            (true, Ending::FallBack) => Behaviour::NeverUp,
            (true, Ending::Commit | Ending::RollBack) | (false, _) => Behaviour::Good,
        }
    }

    fn recover(self, world: &CrashWorld, facts: &mut Facts, artifact: &Artifact) -> Result<After, String> {
        let running = facts.booted.slot;
        let runs = version(world, running).ok_or("what runs is neither the old image nor the new one")?;
        let fails = !facts.failed && self.break_devices(world, Command::Finish);
        let result = self.finish(world, facts);
        if fails {
            // Whatever it said: the device is mended and started again.
            facts.failed = true;
            world.heal();
            return Ok(After::Reboot);
        }
        let progress = match result {
            Err(DeployError::NothingInProgress) => None,
            Err(error) => return Err(format!("the deployment cannot be resumed: {error}")),
            Ok(summary) => Some(summary.status),
        };
        if facts.untried && !facts.gives_up() && progress != Some(Status::Installed) {
            return Err("an installation was given up before it was tried".into());
        }
        match progress {
            Some(Status::Installed) => {
                selected(world, self.machine)?;
                facts.tries += 1;
                facts.restart_into_trial(world, self.machine);
                return Ok(After::Reboot);
            }
            Some(Status::Inconsistent) => return Err("the device was called inconsistent".into()),
            _ => {}
        }
        if self.settles_by_a_restart(world, running, runs)? {
            return Ok(After::Reboot);
        }
        self.end_or_install_again(world, facts, artifact, (runs, progress.is_some()))
    }

    /// What the client does after a start. A person may order a roll-back as long as the trial runs, and gives up what does
    /// not come up.
    fn finish(self, world: &CrashWorld, facts: &mut Facts) -> Result<Summary, DeployError> {
        let (late, booted, gives_up) = (self.mistake.late(Command::Finish), facts.booted, facts.gives_up());
        let goes_back = self.ending == Ending::RollBack && booted.slot == self.target() && !facts.went_back;
        let goes_on =
            || client(world, self.machine, booted, late, |device| deploy::resume(device, &Order::default()));
        if !goes_back && !gives_up {
            return goes_on();
        }
        facts.went_back = true;
        let back =
            client(world, self.machine, booted, late, |device| deploy::roll_back(device, &Order::default()));
        match back {
            // Given up before a power cut: what is left is to wind it up.
            Err(DeployError::CannotRollBackHere) if gives_up => goes_on(),
            back => back,
        }
    }

    /// Environment and record against what runs: whether another slot is going to be started, or nothing more is open.
    fn settles_by_a_restart(self, world: &CrashWorld, running: Slot, runs: &str) -> Result<bool, String> {
        let (next, trial) = selected(world, self.machine)?;
        if trial {
            return Err("a trial is open and nobody knows of it".into());
        }
        match recorded(world)? {
            None => Err("a deployment stays in progress".into()),
            Some(_) if next != running => Ok(true),
            // A roll-back that a failing device prevented is called what it is, until something is installed.
            Some(name) if name == "new_INCONSISTENT" && matches!(self.mistake, Mistake::Fails(..)) => {
                Ok(false)
            }
            Some(name) if name != runs => Err(format!("the record says {name}, and {runs} runs")),
            Some(_) => Ok(false),
        }
    }

    /// The end that was wanted, or another installation when the first one was lost before it came to anything.
    fn end_or_install_again(
        self,
        world: &CrashWorld,
        facts: &mut Facts,
        artifact: &Artifact,
        (runs, had_progress): (&str, bool),
    ) -> Result<After, String> {
        match (runs, self.ending) {
            // The commit was quicker than the order to go back.
            ("new", Ending::Commit | Ending::RollBack) => return Ok(After::Settled),
            ("new", Ending::FallBack) => return Err("a dead image runs".into()),
            (_, Ending::FallBack | Ending::RollBack)
                if had_progress || facts.went_back || facts.installs > 1 =>
            {
                return Ok(After::Settled);
            }
            (_, Ending::Commit | Ending::FallBack | Ending::RollBack) => {}
        }
        if facts.installs == 3 {
            return Err("three installations were lost".into());
        }
        facts.installs += 1;
        facts.tries = 0;
        match install(world, self.machine, facts.booted, None, artifact) {
            Ok(summary) if summary.success => {
                facts.restart_into_trial(world, self.machine);
                Ok(After::Reboot)
            }
            Ok(summary) => Err(format!("the installation cannot be repeated: {:?}", summary.error)),
            Err(error) => Err(format!("the installation cannot be repeated: {error}")),
        }
    }

    fn check(self, world: &CrashWorld, facts: &Facts) -> Result<(), String> {
        let (next, trial) = selected(world, self.machine)?;
        if trial || next != facts.booted.slot {
            return Err(format!("slot {next} is selected, trial {trial}, slot {} runs", facts.booted.slot));
        }
        Ok(())
    }
}

/// Every machine from both slots with every ending: holds with so many cuts. The states.
pub fn assert_holds(
    machines: impl IntoIterator<Item = Machine>,
    endings: &[Ending],
    mistake: Mistake,
    options: impl Fn(Machine) -> Options,
) -> u64 {
    assert_arrival_holds(Arrives::Whole, machines, endings, mistake, options)
}

/// The same for an image that comes like this.
pub fn assert_arrival_holds(
    arrives: Arrives,
    machines: impl IntoIterator<Item = Machine>,
    endings: &[Ending],
    mistake: Mistake,
    options: impl Fn(Machine) -> Options,
) -> u64 {
    let mut states = 0;
    for machine in machines {
        for start in Slot::BOTH {
            for &ending in endings {
                let update = Update { machine, start, arrives, ending, mistake };
                let report: Report = explore(&update.scenario(), &options(machine));
                println!("{machine:?} from {start}, {ending:?}: {report}");
                assert_eq!(report.violation_count, 0, "{update:?}: {report}");
                states += report.states;
            }
        }
    }
    states
}

/// Whether one cut shows that the mistake breaks an invariant on this machine.
pub fn is_found(machine: Machine, mistake: Mistake) -> bool {
    is_found_when(Arrives::Whole, machine, mistake)
}

/// The same for an image that comes like this.
pub fn is_found_when(arrives: Arrives, machine: Machine, mistake: Mistake) -> bool {
    for ending in ENDINGS {
        let mut options = machine.limits(1).budget(40_000, 0);
        options.limits.images = 8;
        options.kept_violations = 1;
        let update = Update { machine, start: Slot::A, arrives, ending, mistake };
        if let Some(violation) = explore(&update.scenario(), &options).violations.first() {
            println!("{machine:?} {mistake:?}: {}", violation.invariant);
            return true;
        }
    }
    println!("{machine:?} {mistake:?}: not found");
    false
}

/// Every operation of install and of what comes after it failing in every way: the cases.
pub fn fail_everywhere(machine: Machine) -> u64 {
    fail_arrival_everywhere(Arrives::Whole, machine)
}

/// The same for an image that comes like this.
pub fn fail_arrival_everywhere(arrives: Arrives, machine: Machine) -> u64 {
    let mut cases = 0;
    for mistake in failures() {
        for ending in ENDINGS {
            let update = Update { machine, start: Slot::A, arrives, ending, mistake };
            let report = explore(&update.scenario(), &machine.limits(0).budget(200, 0));
            assert_eq!(report.violation_count, 0, "{update:?}: {report}");
            cases += report.cases;
        }
    }
    cases
}

const FAILURES: [(Operation, Fault, u64); 5] = [
    (Operation::Write, Fault::InputOutput, 30),
    (Operation::Write, Fault::NoSpace, 30),
    (Operation::Write, Fault::ShortWrite, 30),
    (Operation::Sync, Fault::InputOutput, 40),
    (Operation::Read, Fault::InputOutput, 40),
];

fn failures() -> impl Iterator<Item = Mistake> {
    let commands = [Command::Install, Command::Finish];
    let kinds = commands.into_iter().flat_map(|command| FAILURES.map(|failure| (command, failure)));
    kinds.flat_map(|(command, (operation, fault, operations))| {
        [Lasting::Once, Lasting::ForGood].into_iter().flat_map(move |lasting| {
            (1..=operations).map(move |nth| Mistake::Fails(command, operation, fault, lasting, nth))
        })
    })
}
