//! A whole update under power cuts and failing devices: install, trial, commit or fall-back, with the production
//! codecs, record and state machine over crash devices, against bootloader models that share no code with them.
//!
//! What must hold after every cut, once the device has been started again:
//! - some slot comes up, and what comes up is exactly the old or exactly the new image;
//! - the boot environment never selects anything else;
//! - with no deployment in progress, the record names what runs;
//! - `resume`, and a second installation where the first was lost, end with the new image committed (or, when it
//!   cannot come up, with the old one and a settled environment).

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::RefCell;
use std::io::Cursor;
use std::rc::Rc;

use crate::machine::{
    IMAGE_BYTES, MACHINES, Machine, RECORD_BYTES, new_image, old_image, plainly, selected, version,
};
use client_core::artifact::{Limits, Trust};
use client_core::boot::{BootEnv, BootEnvError, Variables};
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
use testkit::choice::so_many;
use testkit::conformance::boot::Booted;
use testkit::device::{CrashSlots, KnownSystem, Notices, ScriptLog, slot_device};
use testkit::enumerator::{After, Report, Scenario, explore};
use testkit::storage::{CrashDevice, CrashWorld, Fault, Injection, Lasting, Operation, Suppressed};

/// What the update does after its installation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// The new image comes up and is committed.
    Commit,
    /// The new image never comes up.
    FallBack,
    /// The new image comes up, and the order is to go back.
    RollBack,
}

const ENDINGS: [Ending; 3] = [Ending::Commit, Ending::FallBack, Ending::RollBack];

/// A deliberate mistake, to show that it would be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mistake {
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

/// What the client is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Command {
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
struct Facts {
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
fn client(
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
    let mut slots = CrashSlots::new(world, running);
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
    artifact: &Rc<Vec<u8>>,
) -> Result<Summary, DeployError> {
    let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
    let source = Cursor::new(artifact.to_vec());
    client(world, machine, booted, late, |device| deploy::install(device, source, &policy, &Order::default()))
}

/// What the record says is installed; `None` while a deployment is in progress.
fn recorded(world: &CrashWorld) -> Result<Option<String>, String> {
    let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
    let record = Record::load(&mut store).map_err(|error| error.to_string())?;
    // What a cut download leaves behind is no deployment.
    let idle = record.deployment.is_none_or(|deployment| deployment.stage == Stage::Download);
    Ok(idle.then(|| record.installed.name().to_owned()))
}

/// The scenario: one machine, one start slot, one ending, one mistake.
fn scenario(machine: Machine, start: Slot, ending: Ending, mistake: Mistake) -> Scenario<Facts> {
    let artifact = Rc::new(artifacts::rootfs("new", &new_image()));
    let (for_run, for_recovery) = (Rc::clone(&artifact), artifact);
    let target = !start;
    Scenario::new(move |world| {
        world.add_device(slot_device(start), old_image());
        world.add_device(slot_device(target), vec![0x55; IMAGE_BYTES]);
        machine.install(world, start);
        world.add_device("record", vec![0; RECORD_BYTES]);
        let mut record = Record::new();
        record.installed.artifact_name = Some("old".into());
        TwoCopyRecord::format_new(world.open("record"), &record.to_json().unwrap()).unwrap();
        match mistake {
            Mistake::LostSync(device, nth) => world.suppress_sync(device, Suppressed::Nth(nth)),
            Mistake::NoSync(device) => world.suppress_sync(device, Suppressed::Every),
            Mistake::LostSlotWrites => world.inject(Injection {
                device: Some(slot_device(target).into()),
                operation: Operation::Write,
                nth: 1,
                fault: Fault::LostWrite,
                lasting: Lasting::Once,
            }),
            Mistake::None | Mistake::Swap(..) | Mistake::Fails(..) => {}
        }
        Facts::of_a_device_that_runs(start)
    })
    .run(move |world, facts| {
        let injection = mistake.injection(Command::Install);
        let fails = injection.is_some();
        injection.into_iter().for_each(|injection| world.inject(injection));
        let result = install(world, machine, facts.booted, mistake.late(Command::Install), &for_run);
        world.heal();
        match result {
            // Whatever it said: the start after it finds out.
            _ if fails => Ok(()),
            Ok(summary) if summary.success => {
                facts.restart_into_trial(world, machine);
                facts.promised = true;
                Ok(())
            }
            Ok(summary) if mistake == Mistake::LostSlotWrites => {
                // The read-back found it: nothing was armed.
                assert_eq!(summary.status, Status::NotModified);
                Ok(())
            }
            Ok(summary) => Err(format!("the installation failed: {:?}", summary.error)),
            Err(error) => Err(format!("the installation could not be tried: {error}")),
        }
    })
    .boot(move |world, facts| {
        let restart = std::mem::take(&mut facts.restart);
        if std::mem::take(&mut facts.promised) && to_be_tried(world, machine, &restart)? != Some(target) {
            return Err("what was reported as installed is not going to be tried".into());
        }
        let mut broken = None;
        let booted = machine.boot(world, &restart, &mut |slot| {
            if version(world, slot).is_none() {
                broken = Some(slot);
            }
            facts.untried &= slot != target;
            let behaviour = match (slot == target, ending) {
                (true, Ending::FallBack) => Behaviour::NeverUp,
                (true, Ending::Commit | Ending::RollBack) | (false, _) => Behaviour::Good,
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
            Boot::Stuck { slot, .. } => Err(format!(
                "nothing comes up: the bootloader keeps trying slot {slot}, which holds {:?}",
                version(world, slot)
            )),
        }
    })
    .recover(move |world, facts| {
        let booted = facts.booted;
        let running = booted.slot;
        let version_now =
            version(world, running).ok_or("what runs is neither the old image nor the new one")?;
        let late = mistake.late(Command::Finish);
        let injection = mistake.injection(Command::Finish).filter(|_| !facts.failed);
        let fails = injection.is_some();
        injection.into_iter().for_each(|injection| world.inject(injection));
        // A person may order a roll-back as long as the trial runs, and gives up what does not come up.
        let gives_up = facts.tries > TRIES;
        let goes_on =
            || client(world, machine, booted, late, |device| deploy::resume(device, &Order::default()));
        let result = if gives_up || (ending == Ending::RollBack && running == target && !facts.went_back) {
            facts.went_back = true;
            let back =
                client(world, machine, booted, late, |device| deploy::roll_back(device, &Order::default()));
            match back {
                // Given up before a power cut: what is left is to wind it up.
                Err(DeployError::CannotRollBackHere) if gives_up => goes_on(),
                back => back,
            }
        } else {
            goes_on()
        };
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
        if facts.untried && !gives_up && progress != Some(Status::Installed) {
            return Err("an installation was given up before it was tried".into());
        }
        let (next, trial) = selected(world, machine)?;
        match progress {
            Some(Status::Installed) => {
                facts.tries += 1;
                facts.restart_into_trial(world, machine);
                return Ok(After::Reboot);
            }
            Some(Status::Inconsistent) => return Err("the device was called inconsistent".into()),
            _ => {}
        }
        if trial {
            return Err("a trial is open and nobody knows of it".into());
        }
        match recorded(world)? {
            None => return Err("a deployment stays in progress".into()),
            Some(_) if next != running => return Ok(After::Reboot),
            // A roll-back that a failing device prevented is called what it is, until something is installed.
            Some(name) if name == "new_INCONSISTENT" && matches!(mistake, Mistake::Fails(..)) => {}
            Some(name) if name != version_now => {
                return Err(format!("the record says {name}, and {version_now} runs"));
            }
            Some(_) => {}
        }
        let wanted = if ending == Ending::Commit { "new" } else { "old" };
        if version_now == wanted
            && (wanted == "new" || progress.is_some() || facts.went_back || facts.installs > 1)
        {
            return Ok(After::Settled);
        }
        if version_now == "new" {
            // The commit was quicker than the order to go back.
            return if ending == Ending::RollBack {
                Ok(After::Settled)
            } else {
                Err("a dead image runs".into())
            };
        }
        if facts.installs == 3 {
            return Err("three installations were lost".into());
        }
        facts.installs += 1;
        facts.tries = 0;
        match install(world, machine, booted, None, &for_recovery) {
            Ok(summary) if summary.success => {
                facts.restart_into_trial(world, machine);
                Ok(After::Reboot)
            }
            Ok(summary) => Err(format!("the installation cannot be repeated: {:?}", summary.error)),
            Err(error) => Err(format!("the installation cannot be repeated: {error}")),
        }
    })
    .check(move |world, facts| {
        let (next, trial) = selected(world, machine)?;
        if trial || next != facts.booted.slot {
            return Err(format!("slot {next} is selected, trial {trial}, slot {} runs", facts.booted.slot));
        }
        Ok(())
    })
    .fold_equal_states()
}

fn run_all(cuts: u32, budget: u64, mistake: Mistake, endings: &[Ending]) -> Vec<(String, Report)> {
    let mut reports = Vec::new();
    for machine in
        MACHINES.into_iter().chain([Machine::UBootStockCached, Machine::GrubStockCached, Machine::OneShot])
    {
        for start in Slot::BOTH {
            for ending in endings {
                let scenario = scenario(machine, start, *ending, mistake);
                let options = machine.limits(cuts).budget(budget, budget / 20);
                reports.push((format!("{machine:?} from {start}, {ending:?}"), explore(&scenario, &options)));
            }
        }
    }
    reports
}

#[test]
fn every_single_power_cut_leaves_a_whole_system_and_a_true_record() {
    let mut states = 0;
    for (name, report) in run_all(1, u64::MAX, Mistake::None, &ENDINGS) {
        println!("{name}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states with one cut: {states}");
}

#[test]
fn a_second_power_cut_during_the_recovery_changes_nothing_about_that() {
    let mut states = 0;
    for (name, report) in run_all(2, so_many(8_000), Mistake::None, &ENDINGS) {
        println!("{name}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states with two cuts: {states}");
}

/// Whether one cut shows that the mistake breaks an invariant on this machine.
fn is_found(machine: Machine, mistake: Mistake) -> bool {
    for ending in ENDINGS {
        let scenario = scenario(machine, Slot::A, ending, mistake);
        let mut options = machine.limits(1).budget(6_000, 0);
        options.limits.images = 8;
        options.kept_violations = 1;
        let report = explore(&scenario, &options);
        if let Some(violation) = report.violations.first() {
            println!("{machine:?} {mistake:?}: {}", violation.invariant);
            return true;
        }
    }
    println!("{machine:?} {mistake:?}: not found");
    false
}

#[test]
fn a_device_that_is_never_synced_is_found() {
    for device in ["slot-b", "env", "record"] {
        assert!(is_found(Machine::UBoot, Mistake::NoSync(device)), "{device}");
    }
    // Not the second copy: the first one is what GRUB reads, and what repairs the other.
    assert!(is_found(Machine::Grub, Mistake::NoSync("env1")));
}

/// The other syncs of a successful update are flushes before something is trusted, which matter with a bootloader that
/// leaves its writes in a cache (`boot_environment.rs` holds those), and the ones of one GRUB copy, which the other copy
/// makes good.
#[test]
fn leaving_out_a_sync_is_found() {
    for (machine, device, syncs) in [
        (Machine::UBoot, "slot-b", vec![1]),
        (Machine::UBoot, "env", vec![2, 5]),
        (Machine::UBoot, "record", vec![2, 3, 6, 7, 8]),
        (Machine::Grub, "env1", vec![2]),
    ] {
        for nth in syncs {
            assert!(is_found(machine, Mistake::LostSync(device, nth)), "{machine:?} {device} {nth}");
        }
    }
}

/// Install: download, install, arm, wait. Finish: commit, environment, committed, end. Arming and the record that says
/// that arming is done may change places: between them the environment decides. The last step has nothing behind it.
#[test]
fn swapping_two_durable_steps_is_found() {
    for machine in [Machine::UBoot, Machine::Grub] {
        for (command, steps) in [(Command::Install, vec![1, 2]), (Command::Finish, vec![1, 2, 3, 4])] {
            for step in steps {
                assert!(is_found(machine, Mistake::Swap(command, step)), "{machine:?} {command:?} {step}");
            }
        }
    }
}

#[test]
fn a_failing_operation_anywhere_leaves_a_whole_system_and_a_true_record() {
    let mut cases = 0;
    for machine in [Machine::UBoot, Machine::Grub] {
        for ending in ENDINGS {
            for command in [Command::Install, Command::Finish] {
                for (operation, fault, operations) in [
                    (Operation::Write, Fault::InputOutput, 30),
                    (Operation::Write, Fault::NoSpace, 30),
                    (Operation::Write, Fault::ShortWrite, 30),
                    (Operation::Sync, Fault::InputOutput, 40),
                    (Operation::Read, Fault::InputOutput, 40),
                ] {
                    for lasting in [Lasting::Once, Lasting::ForGood] {
                        for nth in 1..=operations {
                            let mistake = Mistake::Fails(command, operation, fault, lasting, nth);
                            let scenario = scenario(machine, Slot::A, ending, mistake);
                            let report = explore(&scenario, &machine.limits(0).budget(200, 0));
                            assert_eq!(
                                report.violation_count, 0,
                                "{machine:?} {ending:?} {mistake:?}: {report}"
                            );
                            cases += report.cases;
                        }
                    }
                }
            }
        }
    }
    println!("failing operations: {cases} cases");
}

#[test]
fn lost_slot_writes_are_found_by_reading_back() {
    for (name, report) in run_all(0, 100, Mistake::LostSlotWrites, &[Ending::Commit]) {
        assert_eq!(report.violation_count, 0, "{name}: {report}");
    }
}
