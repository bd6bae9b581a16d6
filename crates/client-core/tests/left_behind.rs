//! What nobody comes back for, under power cuts: an update that was installed by hand beside a daemon, with and without
//! the loss of the record behind it. The daemon winds up what was cut and what the bootloader gave up, and leaves to the
//! person what waits for one.
//!
//! What must hold after every cut, once the device has been started again as often as it wants:
//! - some slot comes up, with exactly the old or exactly the new image;
//! - the record names what runs, or says that it does not know;
//! - nothing is in progress but an installation that waits for its commit, no trial is open but that one's;
//! - the next update is taken.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::cell::Cell;
use std::io::Cursor;
use std::rc::Rc;

use crate::machine::board::Restarting;
use crate::machine::{MACHINES, Machine, RECORD_BYTES, new_image, old_image, plainly, selected, version};
use client_core::artifact::{Limits, Trust};
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::{self, Device, NoReporter, Options as Order, Policy, Stage, Status};
use client_core::install::NoModules;
use client_core::slot::{Restart, Slot};
use client_core::state_store::{StateStore, TwoCopyRecord};
use client_core::storage::BlockDevice;
use testkit::artifacts;
use testkit::bootloader::{Behaviour, Boot};
use testkit::device::{CrashSlots, Notices, ScriptLog};
use testkit::enumerator::{After, Scenario, explore};
use testkit::storage::{CrashDevice, CrashWorld};

/// What becomes of the update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// The new image comes up, and a person commits it.
    Commit,
    /// It does not come up.
    FallBack,
}

/// How it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beginning {
    /// An artifact is installed.
    Install,
    /// What was committed in the other slot before is tried again.
    OtherSlot,
}

/// Who is there after a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Keeper {
    Daemon,
    /// Negative control.
    Nobody,
}

/// What becomes of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Kept,
    /// Both copies are gone at the first start.
    Lost,
}

#[derive(Hash, Clone)]
struct Facts {
    running: Slot,
    lost: bool,
}

/// The record as `linux::state_file` opens it: one that cannot be read is replaced.
fn open_record(world: &CrashWorld) -> TwoCopyRecord<CrashDevice> {
    let mut record = TwoCopyRecord::open(world.open("record")).unwrap();
    if record.load().is_ok() {
        return record;
    }
    let document = Record::after_loss("no copy is valid").to_json().unwrap();
    TwoCopyRecord::format_new(world.open("record"), &document).unwrap()
}

/// One process of the client.
fn client<T>(
    world: &CrashWorld,
    machine: Machine,
    running: Slot,
    work: impl FnOnce(&mut Device<'_>) -> T,
) -> T {
    work(&mut Device {
        boot: &mut *machine.control(world, plainly(running)),
        slots: &mut CrashSlots::new(world, running),
        system: &Restarting::new(running, Rc::new(Cell::new(false))),
        modules: &mut NoModules,
        state: &mut open_record(world),
        scripts: &mut ScriptLog::default(),
        observer: &mut Notices::default(),
        gates: &mut AlwaysOpen,
        reporter: &mut NoReporter,
    })
}

fn install(world: &CrashWorld, machine: Machine, running: Slot, artifact: &[u8]) -> Result<(), String> {
    let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
    let source = Cursor::new(artifact.to_vec());
    let installed =
        client(world, machine, running, |device| deploy::install(device, source, &policy, &Order::default()));
    match installed {
        Ok(summary) if summary.status == Status::Installed => Ok(()),
        Ok(summary) => Err(format!("an update is not taken: {:?}", summary.error)),
        Err(error) => Err(format!("an update cannot be tried: {error}")),
    }
}

/// A whole update: installed, started and committed. The slot that runs.
fn update(world: &CrashWorld, machine: Machine, running: Slot, artifact: &[u8]) -> Slot {
    install(world, machine, running, artifact).unwrap();
    let booted = machine.boot(world, &Restart::Plain, &mut |_| { Behaviour::Good }.start());
    assert!(matches!(booted, Boot::Up { slot, .. } if slot != running));
    let committed = client(world, machine, !running, |device| deploy::commit(device, &Order::default()));
    assert!(committed.unwrap().success);
    !running
}

fn lose_record(world: &CrashWorld) {
    let mut device = world.open("record");
    device.write_at(0, &[0; RECORD_BYTES]).unwrap();
    device.sync().unwrap();
}

fn scenario(
    machine: Machine,
    (beginning, ending, fate): (Beginning, Ending, Fate),
    keeper: Keeper,
) -> Scenario<Facts> {
    let artifact = Rc::new(artifacts::rootfs("new", &new_image()));
    let again = Rc::clone(&artifact);
    Scenario::new(move |world| {
        machine.set_up(world, Slot::A);
        if beginning == Beginning::OtherSlot {
            // The old image is back in its slot, and the new one known in the other.
            let running = update(world, machine, Slot::A, &artifacts::rootfs("new", &new_image()));
            update(world, machine, running, &artifacts::rootfs("old", &old_image()));
        }
        Facts { running: Slot::A, lost: false }
    })
    .run(move |world, facts| match beginning {
        Beginning::Install => install(world, machine, facts.running, &artifact),
        Beginning::OtherSlot => {
            let tried = client(world, machine, facts.running, |device| {
                deploy::try_other_slot(device, &Order::default())
            });
            match tried {
                Ok(summary) if summary.status == Status::Installed => Ok(()),
                Ok(summary) => Err(format!("the other slot is not tried: {:?}", summary.error)),
                Err(error) => Err(format!("the other slot cannot be tried: {error}")),
            }
        }
    })
    .boot(move |world, facts| {
        let booted = machine.boot(world, &Restart::Plain, &mut |slot| {
            let dead = (slot, ending) == (Slot::B, Ending::FallBack);
            { if dead { Behaviour::NeverUp } else { Behaviour::Good } }.start()
        });
        match booted {
            Boot::Up { slot, .. } => facts.running = slot,
            Boot::Stuck { slot, .. } => return Err(format!("nothing comes up: slot {slot} is tried again")),
        }
        version(world, facts.running).map(drop).ok_or_else(|| "a broken image runs".to_owned())
    })
    .recover(move |world, facts| {
        if fate == Fate::Lost && !facts.lost {
            lose_record(world);
            facts.lost = true;
        }
        let running = facts.running;
        let taken = match keeper {
            Keeper::Daemon => client(world, machine, running, deploy::take_over),
            Keeper::Nobody => Ok(None),
        }
        .map_err(|error| error.to_string())?;
        match taken.map(|summary| summary.status) {
            Some(Status::Rebooting) => return Ok(After::Reboot),
            Some(Status::Inconsistent) => return Err("the device was called inconsistent".into()),
            _ => {}
        }
        let record = client(world, machine, running, deploy::load).map_err(|error| error.to_string())?;
        let waiting = record.deployment.filter(|deployment| deployment.stage != Stage::Download);
        if let Some(deployment) = waiting {
            let armed = selected(world, machine)?;
            if (deployment.stage, deployment.entered) != (Stage::Commit, false) || !armed.1 {
                return Err(format!("{:?} is left behind, {armed:?} boots", deployment.stage));
            }
            if armed.0 != running {
                return Ok(After::Reboot); // the person restarts the device
            }
            let committed =
                client(world, machine, running, |device| deploy::commit(device, &Order::default()));
            if !committed.is_ok_and(|summary| summary.success) {
                return Err("what waits for its commit cannot be committed".into());
            }
        }
        let (next, trial) = selected(world, machine)?;
        if trial || next != running {
            return Err(format!("slot {running} runs, {next} is selected, trial {trial}: of nobody"));
        }
        let record = client(world, machine, running, deploy::load).map_err(|error| error.to_string())?;
        let name = record.installed.name();
        let unknown = facts.lost && name == "unknown" && record.lost.is_some();
        if !unknown && Some(name) != version(world, running) {
            return Err(format!("the record says {name}"));
        }
        install(world, machine, running, &again)?;
        Ok(After::Settled)
    })
    .check(move |world, facts| {
        let armed = selected(world, machine)?;
        if armed != (!facts.running, true) || version(world, armed.0) != Some("new") {
            return Err(format!("the next update is not armed: {armed:?}"));
        }
        Ok(())
    })
    .fold_equal_states()
}

const COURSES: [(Beginning, Ending, Fate); 6] = [
    (Beginning::Install, Ending::Commit, Fate::Kept),
    (Beginning::Install, Ending::FallBack, Fate::Kept),
    (Beginning::Install, Ending::Commit, Fate::Lost),
    (Beginning::Install, Ending::FallBack, Fate::Lost),
    (Beginning::OtherSlot, Ending::Commit, Fate::Kept),
    (Beginning::OtherSlot, Ending::FallBack, Fate::Kept),
];

fn check(cuts: u32, budget: u64) {
    let mut states = 0;
    for machine in MACHINES {
        for course in COURSES {
            let options = machine.limits(cuts).budget(budget, budget / 20);
            let report = explore(&scenario(machine, course, Keeper::Daemon), &options);
            println!("{machine:?} {course:?}: {report}");
            report.assert_holds();
            states += report.states;
        }
    }
    println!("power-cut states with {cuts} cuts: {states}");
}

#[test]
fn after_any_power_cut_an_update_by_hand_keeps_the_device_from_no_other_one() {
    check(1, u64::MAX);
}

#[test]
fn nor_after_a_second_cut_while_that_is_wound_up() {
    check(2, 600);
}

/// Negative control: without anybody who winds it up, each of these courses ends the updates of the device.
#[test]
fn with_nobody_who_winds_it_up_it_does() {
    // Where the person comes back, only some cuts need anybody else; where the bootloader went back, a lost record leaves
    // nothing open.
    let needs_somebody = |(_, ending, fate): &(Beginning, Ending, Fate)| match (ending, fate) {
        (Ending::FallBack, Fate::Kept) | (Ending::Commit, Fate::Lost) => true,
        (Ending::Commit, Fate::Kept) | (Ending::FallBack, Fate::Lost) => false,
    };
    for course in COURSES.into_iter().filter(needs_somebody) {
        let scenario = scenario(Machine::UBoot, course, Keeper::Nobody);
        let report = explore(&scenario, &Machine::UBoot.limits(1).budget(600, 0));
        assert!(report.violation_count > 0, "{course:?}: {report}");
    }
}
