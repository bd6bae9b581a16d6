//! A deployment whose handler cannot be opened any more.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::Cell;
use std::rc::Rc;

use crate::machine::board::Restarting;
use crate::machine::{IMAGE_BYTES, MACHINES, RECORD_BYTES, old_image, plainly};
use client_core::boot::{Armable, Arming, BootControl, BootError, BootState};
use client_core::deploy::gates::AlwaysOpen;
use client_core::deploy::record::Record;
use client_core::deploy::{self, DeployError, Device, NoReporter, Options, Status};
use client_core::install::{
    Candidates, HandledBy, InstallError, Modules, NoModules, PayloadHandler, UpdateModuleFile,
};
use client_core::slot::Slot;
use client_core::state_store::TwoCopyRecord;
use testkit::choice::Choices;
use testkit::device::{CrashSlots, Notices, ScriptLog, slot_device};
use testkit::enumerator::Options as Enumeration;
use testkit::storage::CrashWorld;

const WHY: &str = "the data partition is not there";

/// An update module that is there and cannot be opened.
struct OutOfReach;

impl Modules for OutOfReach {
    fn candidates(&self, _: &str) -> Candidates {
        Candidates { update_module: UpdateModuleFile::Executable, ..Candidates::default() }
    }

    fn open<'m>(&'m mut self, _: &str, _: HandledBy) -> Result<Box<dyn PayloadHandler + 'm>, InstallError> {
        Err(InstallError::Handler { step: "open", reason: WHY.into() })
    }
}

#[test]
fn a_failure_whose_handler_cannot_be_opened_ends_with_the_reason_for_that_and_not_with_a_second_one() {
    let machine = MACHINES[0];
    let world = CrashWorld::new(Choices::exhaustive(), Enumeration::cuts(0).limits);
    world.add_device(slot_device(Slot::A), old_image());
    world.add_device(slot_device(Slot::B), vec![0x55; IMAGE_BYTES]);
    machine.install(&world, Slot::A);
    world.add_device("record", vec![0; RECORD_BYTES]);
    let found = r#"{"version":1,"installed":{"artifact_name":"old"},"deployment":{"id":"d1",
        "artifact_name":"new","payload_type":"application","handled_by":"update-module","stage":"Failure",
        "entered":true,"failed":true,"transitions":5}}"#;
    let mut state = TwoCopyRecord::format_new(world.open("record"), found.as_bytes()).unwrap();
    let summary = deploy::resume(
        &mut Device {
            boot: &mut *machine.control(&world, plainly(Slot::A)),
            slots: &mut CrashSlots::new(&world, Slot::A),
            system: &Restarting::new(Slot::A, Rc::new(Cell::new(false))),
            modules: &mut OutOfReach,
            state: &mut state,
            scripts: &mut ScriptLog::default(),
            observer: &mut Notices::default(),
            gates: &mut AlwaysOpen,
            reporter: &mut NoReporter,
        },
        &Options::default(),
    )
    .unwrap();
    let error = summary.error.unwrap().to_string();
    assert!(error.contains(WHY), "{error}");
    assert_eq!((summary.status, summary.success), (Status::RolledBack, false));
    assert!(summary.ended.unwrap().failed);
    let record = Record::load(&mut state).unwrap();
    assert_eq!((record.deployment, record.installed.name()), (None, "old"));
}

/// A bootloader that says this and takes no change.
struct Says(BootState);

impl BootControl for Says {
    fn check_configured(&mut self) -> Result<(), BootError> {
        Ok(())
    }
    fn state(&mut self) -> Result<BootState, BootError> {
        Ok(self.0)
    }
    fn check_arm(&mut self, _: Slot) -> Result<(), BootError> {
        Ok(())
    }
    fn arm(&mut self, _: Armable) -> Result<(), BootError> {
        panic!("armed")
    }
    fn commit(&mut self, _: Slot) -> Result<(), BootError> {
        panic!("committed")
    }
    fn settle_on(&mut self, _: Slot) -> Result<(), BootError> {
        panic!("settled")
    }
    fn describe(&self) -> String {
        "a bootloader".into()
    }
}

/// What `commit` does with a deployment that has changed its stage very often, and the record after it.
fn commit_after_many_stages(
    entered: bool,
    running: Slot,
    state: BootState,
) -> (Result<Status, DeployError>, Record) {
    let world = CrashWorld::new(Choices::exhaustive(), Enumeration::cuts(0).limits);
    world.add_device(slot_device(Slot::A), old_image());
    world.add_device(slot_device(Slot::B), vec![0x55; IMAGE_BYTES]);
    world.add_device("record", vec![0; RECORD_BYTES]);
    let found = format!(
        r#"{{"version":1,"installed":{{"artifact_name":"old"}},"deployment":{{"artifact_name":"new",
        "payload_type":"rootfs-image","image":{{"slot":"B","size_bytes":4096,"sha256":"{}"}},"stage":"Commit",
        "entered":{entered},"transitions":40}}}}"#,
        "ab".repeat(32)
    );
    let mut store = TwoCopyRecord::format_new(world.open("record"), found.as_bytes()).unwrap();
    let result = deploy::commit(
        &mut Device {
            boot: &mut Says(state),
            slots: &mut CrashSlots::new(&world, running),
            system: &Restarting::new(running, Rc::new(Cell::new(false))),
            modules: &mut NoModules,
            state: &mut store,
            scripts: &mut ScriptLog::default(),
            observer: &mut Notices::default(),
            gates: &mut AlwaysOpen,
            reporter: &mut NoReporter,
        },
        &Options::default(),
    );
    (result.map(|summary| summary.status), Record::load(&mut store).unwrap())
}

#[test]
fn a_commit_asks_what_boots_however_often_the_stage_has_changed() {
    let armed = BootState { selected: Slot::B, trial: true, arming: Arming::Durable };
    let (result, record) = commit_after_many_stages(false, Slot::A, armed);
    assert!(matches!(result, Err(DeployError::NotRestarted)), "{result:?}");
    assert_eq!(record.deployment.unwrap().transitions, 40);
    let committed = BootState { trial: false, ..armed };
    let (result, record) = commit_after_many_stages(true, Slot::B, committed);
    assert_eq!(result.unwrap(), Status::Committed);
    assert_eq!((record.deployment, record.installed.name()), (None, "new"));
}
