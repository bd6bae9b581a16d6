//! A whole update under power cuts and failing devices: install, trial, commit or fall-back, with the production
//! codecs, record and state machine over crash devices, against bootloader models that share no code with them.
//!
//! What must hold after every cut, once the device has been started again:
//! - some slot comes up, and what comes up is exactly the old or exactly the new image;
//! - the boot environment never selects anything else;
//! - with no deployment in progress, the record names what runs;
//! - `resume`, and a second installation where the first was lost, end with the new image committed (or, when it
//!   cannot come up, with the old one and a settled environment).

use std::cell::RefCell;
use std::io::Cursor;
use std::rc::Rc;

use bootloader_grub::{GrubCopy, GrubEnv};
use bootloader_uboot::UBootEnv;
use client_core::artifact::{Limits, Trust};
use client_core::boot::{BootEnv, BootEnvError};
use client_core::deploy::record::Record;
use client_core::deploy::{self, DeployError, Device, Options as Order, Policy, Stage, Status, Summary};
use client_core::slot::Slot;
use client_core::state_store::{StateError, StateStore, TwoCopyRecord};
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot, GrubModel, UBootModel};
use testkit::device::{CrashSlots, KnownSystem, Notices, ScriptLog, slot_device};
use testkit::enumerator::{After, Options, Report, Scenario, explore};
use testkit::storage::{CrashDevice, CrashWorld, Fault, Injection, Lasting, Operation, Suppressed, Tear};

/// Sixteen sectors: enough for "all but the first", "all but the last" and "one torn" to differ.
const IMAGE_BYTES: usize = 16 * 512;
const ENV_BYTES: usize = 512;
const RECORD_BYTES: usize = 2 * 8 * 512;

/// Whose bootloader the machine has, and whether what the bootloader writes is on the medium when it goes on
/// (`...Cached`: it stays in a cache until somebody flushes, and any part of it may be lost).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Machine {
    UBoot,
    UBootCached,
    Grub,
    GrubCached,
}

const MACHINES: [Machine; 4] = [Machine::UBoot, Machine::UBootCached, Machine::Grub, Machine::GrubCached];

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
    /// Durable step number n (saves of the record and writes of the environment) is carried out only after the next.
    Swap(usize),
    /// The slot is armed although what it holds was never read back: writes are lost silently.
    LostSlotWrites,
}

#[derive(Hash, Clone)]
struct Facts {
    running: Slot,
    installs: u32,
    went_back: bool,
}

fn old_image() -> Vec<u8> {
    vec![0x11; IMAGE_BYTES]
}

fn new_image() -> Vec<u8> {
    (0..IMAGE_BYTES).map(|at| 0x80 | (at / 512) as u8).collect()
}

fn version(world: &CrashWorld, slot: Slot) -> Option<&'static str> {
    let content = world.live(slot_device(slot));
    [("old", old_image()), ("new", new_image())].into_iter().find(|(_, image)| *image == content).map(|(name, _)| name)
}

impl Machine {
    fn install(self, world: &CrashWorld, running: Slot) {
        match self {
            Machine::UBoot | Machine::UBootCached => {
                world.add_device("env", vec![0; 2 * ENV_BYTES]);
                self.uboot().install(world, running);
            }
            Machine::Grub | Machine::GrubCached => self.grub().install(world, running),
        }
    }

    fn env(self, world: &CrashWorld) -> Box<dyn BootEnv> {
        match self {
            Machine::UBoot | Machine::UBootCached => Box::new(
                UBootEnv::redundant_on_one(world.open("env"), [0, ENV_BYTES as u64], ENV_BYTES as u64).unwrap(),
            ),
            Machine::Grub | Machine::GrubCached => {
                let copy = |env: &str, lock: &str| GrubCopy {
                    env: world.open(env),
                    lock: world.open(lock),
                    lock_sum: None,
                };
                Box::new(GrubEnv::new([copy("env1", "lock1"), copy("env2", "lock2")]))
            }
        }
    }

    fn boot(self, world: &CrashWorld, start: &mut dyn FnMut(Slot) -> testkit::bootloader::Startup) -> Boot {
        match self {
            Machine::UBoot | Machine::UBootCached => self.uboot().boot(world, start),
            Machine::Grub | Machine::GrubCached => self.grub().boot(world, start),
        }
    }

    fn is_cached(self) -> bool {
        match self {
            Machine::UBoot | Machine::Grub => false,
            Machine::UBootCached | Machine::GrubCached => true,
        }
    }

    fn uboot(self) -> UBootModel {
        let model = UBootModel::redundant(("env", 0), ("env", ENV_BYTES as u64), ENV_BYTES);
        if self.is_cached() { model } else { model.flushing() }
    }

    fn grub(self) -> GrubModel {
        let model = GrubModel::new(("env1", "lock1"), ("env2", "lock2"));
        if self.is_cached() { model } else { model.flushing() }
    }

    /// What a power cut may leave behind. GRUB itself cannot repair a block whose first sector is torn before a client
    /// could (see `boot_environment.rs`), and a bootloader that writes both copies before anything is flushed is only
    /// promised that what it writes is there or not.
    fn limits(self, cuts: u32) -> Options {
        let mut options = Options::cuts(cuts);
        match self {
            Machine::UBoot => {}
            // Behind the variables: the padding of an environment block, and any other sector as well.
            Machine::Grub => options.limits.tears = vec![Tear::Prefix(300)],
            Machine::UBootCached | Machine::GrubCached => options.limits.tears.clear(),
        }
        options
    }
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

impl BootEnv for SwappedEnv {
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
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

    fn describe(&self) -> String {
        self.inner.borrow().describe()
    }
}

struct SwappedStore {
    inner: Rc<RefCell<TwoCopyRecord<CrashDevice>>>,
    steps: Rc<RefCell<Steps>>,
}

impl StateStore for SwappedStore {
    fn load(&mut self) -> Result<Vec<u8>, StateError> {
        self.inner.borrow_mut().load()
    }

    fn save(&mut self, document: &[u8]) -> Result<(), StateError> {
        if self.steps.borrow_mut().hold() {
            let (inner, document) = (Rc::clone(&self.inner), document.to_vec());
            self.steps.borrow_mut().held = Some(Box::new(move || inner.borrow_mut().save(&document).unwrap()));
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
    running: Slot,
    late: Option<usize>,
    command: impl FnOnce(&mut Device<'_>) -> Result<Summary, DeployError>,
) -> Result<Summary, DeployError> {
    let steps = Rc::new(RefCell::new(Steps { late, ..Steps::default() }));
    let record = TwoCopyRecord::open(world.open("record"))
        .map_err(|error| DeployError::Record(client_core::deploy::record::RecordError::Store(error)))?;
    let mut state = SwappedStore { inner: Rc::new(RefCell::new(record)), steps: Rc::clone(&steps) };
    let mut env = SwappedEnv { inner: Rc::new(RefCell::new(machine.env(world))), steps: Rc::clone(&steps) };
    let mut slots = CrashSlots::new(world, running);
    let mut system = KnownSystem { running, device_type: artifacts::DEVICE_TYPE.into() };
    let mut scripts = ScriptLog::default();
    let mut notices = Notices::default();
    let result = command(&mut Device {
        boot_env: &mut env,
        slots: &mut slots,
        system: &mut system,
        state: &mut state,
        scripts: &mut scripts,
        observer: &mut notices,
    });
    release(&steps);
    result
}

fn install(
    world: &CrashWorld,
    machine: Machine,
    running: Slot,
    late: Option<usize>,
    artifact: &Rc<Vec<u8>>,
) -> Result<Summary, DeployError> {
    let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
    let source = Cursor::new(artifact.to_vec());
    client(world, machine, running, late, |device| deploy::install(device, source, &policy, &Order::default()))
}

/// What the record says is installed; `None` while a deployment is in progress.
fn recorded(world: &CrashWorld) -> Result<Option<String>, String> {
    let mut store = TwoCopyRecord::open(world.open("record")).map_err(|error| error.to_string())?;
    let record = Record::load(&mut store).map_err(|error| error.to_string())?;
    // What a cut download leaves behind is no deployment.
    let idle = record.deployment.is_none_or(|deployment| deployment.stage == Stage::Download);
    Ok(idle.then(|| record.installed.name().to_owned()))
}

/// What the bootloader would boot next, and whether on trial. Read by the model: no operation of ours.
fn selected(world: &CrashWorld, machine: Machine) -> Result<(Slot, bool), String> {
    let variables = match machine {
        Machine::UBoot | Machine::UBootCached => {
            machine.uboot().variables(world).ok_or("U-Boot has no environment")?
        }
        Machine::Grub | Machine::GrubCached => machine.grub().variables(world, 0),
    };
    let value = |name: &str| variables.get(name).map(String::as_str);
    let slot = match value("mender_boot_part") {
        Some("2") => Slot::A,
        Some("3") => Slot::B,
        other => return Err(format!("mender_boot_part is {other:?}")),
    };
    Ok((slot, value("upgrade_available") == Some("1")))
}

/// The scenario: one machine, one start slot, one ending, one mistake.
fn scenario(machine: Machine, start: Slot, ending: Ending, mistake: Mistake) -> Scenario<Facts> {
    let artifact = Rc::new(artifacts::rootfs("new", &new_image()));
    let late = match mistake {
        Mistake::Swap(step) => Some(step),
        Mistake::None | Mistake::LostSync(..) | Mistake::NoSync(_) | Mistake::LostSlotWrites => None,
    };
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
            Mistake::None | Mistake::Swap(_) => {}
        }
        Facts { running: start, installs: 1, went_back: false }
    })
    .run(move |world, facts| {
        let result = install(world, machine, facts.running, late, &for_run);
        match result {
            Ok(summary) if summary.success => Ok(()),
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
        let booted = machine.boot(world, &mut |slot| {
            let behaviour = match (slot == target, ending) {
                (true, Ending::FallBack) => Behaviour::NeverUp,
                (true, Ending::Commit | Ending::RollBack) | (false, _) => Behaviour::Good,
            };
            // An image that is not whole does not come up either; the check below names it.
            if version(world, slot).is_some() { { behaviour }.start() } else { Behaviour::NeverUp.start() }
        });
        match booted {
            Boot::Up { slot, .. } => {
                facts.running = slot;
                Ok(())
            }
            Boot::Stuck { slot, .. } => Err(format!(
                "nothing comes up: the bootloader keeps trying slot {slot}, which holds {:?}",
                version(world, slot)
            )),
        }
    })
    .recover(move |world, facts| {
        let running = facts.running;
        let version_now = version(world, running).ok_or("what runs is neither the old image nor the new one")?;
        let late = None;
        // A person may order a roll-back as long as the trial runs.
        let result = if ending == Ending::RollBack && running == target && !facts.went_back {
            facts.went_back = true;
            client(world, machine, running, late, |device| deploy::roll_back(device, &Order::default()))
        } else {
            client(world, machine, running, late, |device| deploy::resume(device, &Order::default()))
        };
        let progress = match result {
            Err(DeployError::NothingInProgress) => None,
            Err(error) => return Err(format!("the deployment cannot be resumed: {error}")),
            Ok(summary) => Some(summary.status),
        };
        let (next, trial) = selected(world, machine)?;
        match progress {
            Some(Status::Installed) => return Ok(After::Reboot),
            Some(Status::Inconsistent) => return Err("the device was called inconsistent".into()),
            _ => {}
        }
        if trial {
            return Err("a trial is open and nobody knows of it".into());
        }
        match recorded(world)? {
            None => return Err("a deployment stays in progress".into()),
            Some(_) if next != running => return Ok(After::Reboot),
            Some(name) if name != version_now => {
                return Err(format!("the record says {name}, and {version_now} runs"));
            }
            Some(_) => {}
        }
        let wanted = if ending == Ending::Commit { "new" } else { "old" };
        if version_now == wanted && (wanted == "new" || progress.is_some() || facts.went_back || facts.installs > 1) {
            return Ok(After::Settled);
        }
        if version_now == "new" {
            // The commit was quicker than the order to go back.
            return if ending == Ending::RollBack { Ok(After::Settled) } else { Err("a dead image runs".into()) };
        }
        if facts.installs == 3 {
            return Err("three installations were lost".into());
        }
        facts.installs += 1;
        match install(world, machine, running, None, &for_recovery) {
            Ok(summary) if summary.success => Ok(After::Reboot),
            Ok(summary) => Err(format!("the installation cannot be repeated: {:?}", summary.error)),
            Err(error) => Err(format!("the installation cannot be repeated: {error}")),
        }
    })
    .check(move |world, facts| {
        let (next, trial) = selected(world, machine)?;
        if trial || next != facts.running {
            return Err(format!("slot {next} is selected, trial {trial}, slot {} runs", facts.running));
        }
        Ok(())
    })
    .fold_equal_states()
}

fn run_all(cuts: u32, budget: u64, mistake: Mistake, endings: &[Ending]) -> Vec<(String, Report)> {
    let mut reports = Vec::new();
    for machine in MACHINES {
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
    for (name, report) in run_all(2, 30_000, Mistake::None, &ENDINGS) {
        println!("{name}: {report}");
        report.assert_holds();
        states += report.states;
    }
    println!("power-cut states with two cuts: {states}");
}

/// Whether at least one of the scenarios shows the mistake.
fn is_found(mistake: Mistake) -> bool {
    let reports = run_all(1, 20_000, mistake, &ENDINGS);
    let violations: u64 = reports.iter().map(|(_, report)| report.violation_count).sum();
    if let Some((name, report)) = reports.iter().find(|(_, report)| report.violation_count > 0) {
        println!("{mistake:?}: {violations} violations, first in {name}: {}", report.violations[0].invariant);
    } else {
        println!("{mistake:?}: no violation");
    }
    violations > 0
}

#[test]
fn a_device_that_is_never_synced_is_found() {
    for device in ["slot-a", "slot-b", "env", "record"] {
        assert!(is_found(Mistake::NoSync(device)), "{device}");
    }
}

#[test]
fn lost_slot_writes_are_found_by_reading_back() {
    for (name, report) in run_all(0, 100, Mistake::LostSlotWrites, &[Ending::Commit]) {
        assert_eq!(report.violation_count, 0, "{name}: {report}");
    }
}
