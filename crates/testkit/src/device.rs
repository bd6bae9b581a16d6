//! A device of doubles: everything [`Device`](client_core::deploy::Device) needs, over a [`CrashWorld`].

use client_core::artifact::StateScript;
use client_core::deploy::scripts::{OnScriptFailure, ScriptError, ScriptPoint, ScriptRunner};
use client_core::deploy::{Notice, Observer};
use client_core::install::Progress;
use client_core::slot::{Restart, Slot, SlotError, Slots, System};
use client_core::storage::{BlockDevice, ReadAt, ReadOnly};

use crate::storage::CrashWorld;

/// Name of the crash device that holds `slot`.
pub fn slot_device(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "slot-a",
        Slot::B => "slot-b",
    }
}

/// Two slots on the crash devices `slot-a` and `slot-b`. Refuses to open the running one but as a source.
pub struct CrashSlots {
    world: CrashWorld,
    running: Slot,
    discards: bool,
}

impl CrashSlots {
    /// Slots of a machine on which `running` runs.
    pub fn new(world: &CrashWorld, running: Slot) -> CrashSlots {
        CrashSlots { world: world.clone(), running, discards: false }
    }

    /// Lets the medium forget what lies behind an image.
    #[must_use]
    pub fn discarding(self) -> CrashSlots {
        CrashSlots { discards: true, ..self }
    }
}

impl Slots for CrashSlots {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        if slot == self.running {
            return Err(SlotError::Running { slot, path: slot_device(slot).into() });
        }
        let device = self.world.open(slot_device(slot));
        Ok(Box::new(if self.discards { device.discarding() } else { device }))
    }

    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        Ok(Box::new(ReadOnly::new(self.world.open(slot_device(slot)))))
    }
}

/// A system of which everything is known.
pub struct KnownSystem {
    /// The running slot.
    pub running: Slot,
    /// The device type.
    pub device_type: String,
}

impl System for KnownSystem {
    fn running_slot(&self) -> Result<Slot, SlotError> {
        Ok(self.running)
    }

    fn device_type(&self) -> Result<String, SlotError> {
        Ok(self.device_type.clone())
    }

    fn reboot(&self, _: &Restart) -> Result<(), SlotError> {
        Ok(())
    }
}

/// State scripts that all succeed. Panics when a script runs that was not published.
#[derive(Debug, Default)]
pub struct ScriptLog {
    staged: bool,
    published: bool,
    /// The points that were passed.
    pub points: Vec<String>,
    /// The point whose scripts fail.
    pub failing: Option<String>,
}

impl ScriptRunner for ScriptLog {
    fn stage(&mut self, scripts: &[StateScript]) -> Result<(), ScriptError> {
        self.staged = !scripts.is_empty();
        self.published = false;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), ScriptError> {
        self.published = self.staged;
        Ok(())
    }

    fn run(&mut self, point: ScriptPoint, _: OnScriptFailure) -> Result<(), ScriptError> {
        let point = point.to_string();
        self.points.push(point.clone());
        if self.failing.as_ref() == Some(&point) {
            return Err(ScriptError::Failed { script: point, how: "exit status 1".into() });
        }
        Ok(())
    }

    fn check_root_scripts(&mut self) -> Result<(), ScriptError> {
        Ok(())
    }

    fn discard(&mut self) -> Result<(), ScriptError> {
        (self.staged, self.published) = (false, false);
        Ok(())
    }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
pub struct Notices(pub Vec<Notice>);

impl Progress for Notices {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}

impl Observer for Notices {
    fn notice(&mut self, notice: Notice) {
        self.0.push(notice);
    }
}
