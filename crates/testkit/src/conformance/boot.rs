//! What every backend of [`BootControl`] has to hold: two updates one after the other, the client and the bootloader
//! both losing power at any operation, and the slot that comes up is always whole and the one that was promised.
//!
//! The client here is the shortest that keeps its rules; its record and its slots are perfect, so that only the boot
//! control and the bootloader can break anything. Each update is armed, called off, armed again, tried, and committed or
//! given up; the new image comes up, never comes up, or fails once.
//!
//! # A backend brings
//! - its devices in the [`CrashWorld`], as they are on a device that runs from a slot;
//! - a model of its bootloader, which shares no code with what it is to check (see [`bootloader`](crate::bootloader));
//! - its [`BootControl`], the production code, opened over those devices.
//!
//! ```
//! use client_core::boot::{BootControl, BootEnv, mender_vars::{MenderVars, Partitions}};
//! use client_core::slot::{Restart, Slot};
//! # use client_core::boot::{BootEnvError, Variables};
//! use testkit::bootloader::{Boot, Startup, UBootModel};
//! use testkit::conformance::boot::{Backend, Booted, Suite};
//! use testkit::enumerator::Options;
//! use testkit::storage::CrashWorld;
//! # use client_core::storage::BlockDevice;
//! # /// A codec as plain as can be, over the code of the model.
//! # struct Codec(CrashWorld);
//! # impl BootEnv for Codec {
//! #     fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
//! #         let found = model().variables(&self.0).unwrap();
//! #         Variables::from_bytes(names, |name| Some(found.get(name)?.clone().into_bytes()))
//! #     }
//! #     fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
//! #         assert!(model().set(&self.0, changes));
//! #         ["env0", "env1"].map(|device| self.0.open(device).sync().unwrap());
//! #         Ok(())
//! #     }
//! #     fn check_write(&mut self, _: &[(&str, &str)]) -> Result<(), BootEnvError> { Ok(()) }
//! #     fn describe(&self) -> String { "a codec".into() }
//! # }
//!
//! fn model() -> UBootModel {
//!     UBootModel::redundant(("env0", 0), ("env1", 0), 512).flushing()
//! }
//!
//! struct UBoot;
//!
//! impl Backend for UBoot {
//!     fn install(&self, world: &CrashWorld, running: Slot) {
//!         world.add_device("env0", vec![0xff; 512]);
//!         world.add_device("env1", vec![0xff; 512]);
//!         model().install(world, running);
//!     }
//!     fn boot(&self, world: &CrashWorld, _: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
//!         model().boot(world, start)
//!     }
//!     fn open(&self, world: &CrashWorld, _: Booted) -> Box<dyn BootControl> {
//!         Box::new(MenderVars::new(Codec(world.clone()), Partitions::new(2, 3).unwrap()))
//!     }
//! }
//!
//! Suite::new(UBoot).check(&Options::cuts(1)).assert_holds();
//! ```

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use client_core::artifact::Sha256;
use client_core::boot::{BootControl, BootError, Intent, Verdict, check_settled, commit_trial, verdict};
use client_core::install::{self, Written, WrittenImage};
use client_core::slot::{Restart, Slot};
use client_core::storage::BlockDevice;

use crate::bootloader::{Behaviour, Boot, Startup};
use crate::device::Notices;
use crate::enumerator::{After, Options, Report, Scenario, explore};
use crate::storage::CrashWorld;

/// A bootloader, and the client's way to what it keeps. Nothing of it may be remembered between calls but what never
/// changes: what is not in the world does not survive a power cut.
pub trait Backend: 'static {
    /// Adds the devices of a machine that runs from `slot`.
    fn install(&self, world: &CrashWorld, slot: Slot);

    /// One start of the machine with the model of the bootloader, with as many resets as it takes until something comes
    /// up; `restart` is what led to it, and [`Restart::Plain`] after a power cut.
    fn boot(&self, world: &CrashWorld, restart: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot;

    /// The boot control of the system that came up like this, opened anew.
    fn open(&self, world: &CrashWorld, booted: Booted) -> Box<dyn BootControl>;

    /// Whether the bootloader has nothing valid left to go by. Asked before each start; does no operation.
    fn is_lost(&self, _world: &CrashWorld) -> bool {
        false
    }
}

/// How the system that runs came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Booted {
    /// From which slot.
    pub slot: Slot,
    /// Whether because the restart asked for it, this once.
    pub one_shot: bool,
}

/// What it means for a case that the bootloader finds nothing valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It must not happen.
    IsAViolation,
    /// The case ends there: only what is worse is looked for.
    EndsTheCase,
}

/// The suite over one backend.
pub struct Suite<B> {
    backend: Rc<B>,
    loss: Loss,
}

impl<B: Backend> Suite<B> {
    /// The whole of it.
    pub fn new(backend: B) -> Suite<B> {
        Suite { backend: Rc::new(backend), loss: Loss::IsAViolation }
    }

    /// For a backend with a known limit: the bootloader may lose what it keeps, but never boot a wrong slot before.
    #[must_use]
    pub fn tolerating_loss(&self) -> Suite<B> {
        Suite { backend: Rc::clone(&self.backend), loss: Loss::EndsTheCase }
    }

    /// Every start slot and every behaviour of the new image, under every power cut that `options` allow. Prints how
    /// much that was.
    pub fn check(&self, options: &Options) -> Report {
        let started = Instant::now();
        let mut total = Report { exhausted: true, ..Report::default() };
        for start in Slot::BOTH {
            for behaviour in [Behaviour::Good, Behaviour::NeverUp, Behaviour::PanicsOnce] {
                total.add(explore(&self.scenario(start, behaviour), options));
            }
        }
        print_summary(&total, started.elapsed().as_secs_f64());
        total
    }

    /// Two updates of a device that starts from `start`, to images that behave like this.
    fn scenario(&self, start: Slot, behaviour: Behaviour) -> Scenario<Facts> {
        let loss = self.loss;
        let [set_up, booting, opening] = [(); 3].map(|()| Rc::clone(&self.backend));
        Scenario::new(move |world| {
            set_up.install(world, start);
            Facts::of_a_device_that_runs(start)
        })
        .boot(move |world, facts| boot(world, facts, &*booting, loss))
        .recover(move |world, facts| {
            if facts.lost {
                return Ok(After::Settled);
            }
            let mut control = opening.open(world, facts.booted);
            client(world, facts, control.as_mut(), behaviour).map_err(|failure| failure.to_string())
        })
        .fold_equal_states()
    }
}

// The numbers are what the reliability report is made of.
#[allow(clippy::print_stdout)]
fn print_summary(total: &Report, seconds: f64) {
    let mut head = total.clone();
    head.violations.truncate(2);
    println!("{head}\n{:.0} states/s, {seconds:.2} s", total.states as f64 / seconds);
}

/// What is true of the machine and what the client, through its record, knows.
#[derive(Clone, Hash)]
struct Facts {
    /// Whether each slot holds a whole image, and what that does.
    slots: [(bool, Behaviour); 2],
    booted: Booted,
    step: Step,
    /// The slot that must come up, where there is only one.
    promised: Option<Slot>,
    /// What the client asked the machine for when it restarted it; gone with the power.
    restart: Restart,
    /// Restarts into the image that is being tried.
    tries: u8,
    lost: bool,
    updates_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Installing,
    /// The arming of this slot has begun.
    Armed(Slot),
}

/// Restarts into an image of which nothing is heard, before it is given up.
const TRIES: u8 = 2;

impl Facts {
    fn of_a_device_that_runs(slot: Slot) -> Facts {
        let good = (true, Behaviour::Good);
        Facts {
            slots: [good, good],
            booted: Booted { slot, one_shot: false },
            step: Step::Idle,
            promised: Some(slot),
            restart: Restart::Plain,
            tries: 0,
            lost: false,
            updates_left: 2,
        }
    }

    fn slot(&mut self, slot: Slot) -> &mut (bool, Behaviour) {
        match slot {
            Slot::A => &mut self.slots[0],
            Slot::B => &mut self.slots[1],
        }
    }

    /// The update is over, and what runs stays.
    fn finish(&mut self) -> After {
        self.promised = Some(self.booted.slot);
        self.step = Step::Idle;
        self.tries = 0;
        self.updates_left -= 1;
        After::Reboot
    }
}

/// The bootloader's turn: what it boots must be whole, and the promised slot where there is one.
fn boot(world: &CrashWorld, facts: &mut Facts, backend: &dyn Backend, loss: Loss) -> Result<(), String> {
    let restart = std::mem::take(&mut facts.restart);
    // It is lost whether or not the power lasts until the bootloader has made something up.
    facts.lost |= backend.is_lost(world);
    let mut half_written = false;
    let boot = backend.boot(world, &restart, &mut |slot| {
        let (whole, behaviour) = facts.slot(slot);
        half_written |= !*whole;
        if *whole { behaviour.start() } else { Startup::Fails }
    });
    facts.lost |= matches!(boot, Boot::Up { defaulted: true, .. } | Boot::Stuck { defaulted: true, .. });
    if facts.lost && loss == Loss::EndsTheCase {
        return Ok(());
    }
    if half_written {
        return Err(format!("a half-written slot was booted: {boot:?}"));
    }
    match boot {
        Boot::Up { slot, .. } if facts.promised.is_some_and(|promised| promised != slot) => {
            Err(format!("slot {slot} came up, the other one was promised: {boot:?}"))
        }
        Boot::Up { defaulted: true, .. } => Err(format!("the bootloader lost its environment: {boot:?}")),
        Boot::Up { slot, one_shot, .. } => {
            facts.booted = Booted { slot, one_shot };
            Ok(())
        }
        Boot::Stuck { .. } => Err(format!("nothing comes up: {boot:?}")),
    }
}

/// One start of the client, from where its record says it was to the next restart.
fn client(
    world: &CrashWorld,
    facts: &mut Facts,
    control: &mut dyn BootControl,
    behaviour: Behaviour,
) -> Result<After, Failure> {
    let running = facts.booted.slot;
    match facts.step {
        Step::Armed(target) => judge(world, facts, control, target),
        // Cut between the first byte and the arming.
        Step::Installing => {
            control.settle_on(running)?;
            Ok(facts.finish())
        }
        Step::Idle => {
            check_settled(control, running)?;
            if facts.updates_left == 0 {
                return Ok(After::Settled);
            }
            control.check_arm(!running)?;
            // Armed and called off: nothing may be left of it.
            write(world, facts, behaviour);
            arm(facts, control)?;
            control.settle_on(running)?;
            facts.promised = Some(running);
            write(world, facts, behaviour);
            arm(facts, control)?;
            restart(world, facts, control, !running)
        }
    }
}

/// Writes the slot that does not run, while nothing points at it.
fn write(world: &CrashWorld, facts: &mut Facts, behaviour: Behaviour) {
    let target = !facts.booted.slot;
    facts.step = Step::Installing;
    *facts.slot(target) = (false, behaviour);
    world.crash_point("slot write");
    *facts.slot(target) = (true, behaviour);
}

/// From the first operation of an arming on, either slot may come up.
fn arm(facts: &mut Facts, control: &mut dyn BootControl) -> Result<(), Failure> {
    let target = !facts.booted.slot;
    facts.step = Step::Armed(target);
    facts.promised = None;
    Ok(install::arm(control, &proof(target))?)
}

/// Restarts the machine into `target`, in the way that the backend wants.
fn restart(
    world: &CrashWorld,
    facts: &mut Facts,
    control: &mut dyn BootControl,
    target: Slot,
) -> Result<After, Failure> {
    facts.tries += 1;
    let restart = install::restart_with(control, &proof(target))?;
    world.crash_point("restart");
    facts.restart = restart;
    Ok(After::Reboot)
}

/// After a start with an update in progress: commits what runs on trial, gives up what fell back, and tries again what
/// was not tried.
fn judge(
    world: &CrashWorld,
    facts: &mut Facts,
    control: &mut dyn BootControl,
    target: Slot,
) -> Result<After, Failure> {
    let running = facts.booted.slot;
    match verdict(control.state()?, running, target, Intent::Try) {
        Verdict::Untouched if facts.tries < TRIES => restart(world, facts, control, target),
        Verdict::Untouched => {
            control.settle_on(running)?;
            Ok(facts.finish())
        }
        Verdict::Trial => {
            commit_trial(control, running, target)?;
            Ok(facts.finish())
        }
        // Committed before the cut, or fallen back to.
        Verdict::Committed | Verdict::FellBack => Ok(facts.finish()),
        verdict @ (Verdict::Reverting | Verdict::Contradictory) => Err(Failure::Impossible(verdict)),
    }
}

/// What a client that keeps its rules must not meet.
enum Failure {
    Boot(BootError),
    Impossible(Verdict),
}

impl From<BootError> for Failure {
    fn from(error: BootError) -> Failure {
        Failure::Boot(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Boot(error) => error.fmt(f),
            Failure::Impossible(verdict) => write!(f, "the bootloader left what cannot be: {verdict}"),
        }
    }
}

/// The proof that `slot` was written, which arming takes. The slots of this suite are perfect: it is of a device that
/// holds nothing but a zero.
fn proof(slot: Slot) -> Written {
    let image = WrittenImage { slot, size_bytes: 1, sha256: Sha256::of(&[0]) };
    Written::verify(&mut Zero, image, &mut Notices::default()).expect("the digest of a zero")
}

/// A device of one byte that is never written.
struct Zero;

impl BlockDevice for Zero {
    fn len(&self) -> u64 {
        1
    }
    fn read_at(&mut self, _: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.fill(0);
        Ok(())
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn name(&self) -> &str {
        "a zero"
    }
}
