//! What a handler of files or modules never asks for, and what it keeps.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::panic)]

use client_core::boot::{Armable, BootControl, BootError, BootState};
use client_core::install::{HandlerState, InstallError, Modules, Progress, Registry, StateKeeper};
use client_core::slot::{Slot, SlotError, Slots};
use client_core::storage::{BlockDevice, ReadAt};
use testkit::artifacts::DEVICE_TYPE;
use testkit::device::KnownSystem;

pub(crate) struct Quiet;

impl Progress for Quiet {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}

pub(crate) struct KeepsNothing;

impl StateKeeper for KeepsNothing {
    fn set(&mut self, _: HandlerState) {
        panic!("no handler here has a state")
    }
    fn save(&mut self) -> Result<(), InstallError> {
        panic!("no handler here has a state")
    }
}

struct NoSlots;

impl Slots for NoSlots {
    fn open(&mut self, _: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        panic!("no payload here is an image")
    }
    fn open_source(&mut self, _: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        panic!("no payload here is an image")
    }
}

struct NoBoot;

impl BootControl for NoBoot {
    fn check_configured(&mut self) -> Result<(), BootError> {
        panic!("no payload here is an image")
    }
    fn state(&mut self) -> Result<BootState, BootError> {
        panic!("no payload here is an image")
    }
    fn check_arm(&mut self, _: Slot) -> Result<(), BootError> {
        panic!("no payload here is an image")
    }
    fn arm(&mut self, _: Armable) -> Result<(), BootError> {
        panic!("no payload here is an image")
    }
    fn commit(&mut self, _: Slot) -> Result<(), BootError> {
        panic!("no payload here is an image")
    }
    fn settle_on(&mut self, _: Slot) -> Result<(), BootError> {
        panic!("no payload here is an image")
    }
    fn describe(&self) -> String {
        "none".to_owned()
    }
}

/// All handlers of a device that has no slots.
pub(crate) fn with_registry<T>(modules: &mut dyn Modules, work: impl FnOnce(Registry<'_>) -> T) -> T {
    let system = KnownSystem { running: Slot::A, device_type: DEVICE_TYPE.to_owned() };
    work(Registry { boot: &mut NoBoot, slots: &mut NoSlots, system: &system, modules })
}
