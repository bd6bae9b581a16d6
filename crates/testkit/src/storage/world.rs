//! The machine: its power, the faults that wait in it, and the trace of what happened. What a medium makes of that is its
//! own affair.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::disk::{Disk, Tear};
use super::faults::{Armed, Fault, Injection, Operation, Suppressed};
use super::file_system::FileSystem;
use super::flash::{Flash, FlashGeometry};
use super::handle::CrashDevice;
use super::medium::{Device, Kind};
use super::volume::Volume;
use crate::choice::{Choices, Mixer};

/// Bounds of the enumeration.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Power cuts in one case.
    pub cuts: u32,
    /// What a torn sector may look like. Without any, steps of flash happen as a whole as well.
    pub tears: Vec<Tear>,
    /// Combinations of sectors up to which all of them are tried, per cut.
    pub images: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cuts: 1, tears: vec![Tear::Garbage, Tear::Unreadable], images: 256 }
    }
}

/// The payload of the panic that is a power cut.
pub(crate) struct PowerCut;

/// One machine: its devices, its power supply, and the choices of the case it lives through.
#[derive(Clone)]
pub struct CrashWorld(pub(crate) Rc<RefCell<World>>);

pub(crate) struct World {
    pub(super) devices: Vec<Device>,
    pub(crate) files: FileSystem,
    pub(crate) choices: Choices,
    pub(super) limits: Limits,
    pub(super) powered: bool,
    /// Handles belong to one boot. Using one of an earlier boot is an error of the test.
    pub(super) boot: u32,
    pub(super) cuts: u32,
    pub(super) counters: Counters,
    operations: u64,
    injections: Vec<Armed>,
    suppressed: Vec<(usize, Suppressed)>,
    misuse: Vec<String>,
    pub(super) trace: Trace,
}

/// What happened, line by line, where somebody wants to know.
#[derive(Default)]
pub(crate) struct Trace(Option<Vec<String>>);

impl Trace {
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(line());
        }
    }
}

/// What the enumeration came to see that no earlier case had.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) crash_points: u64,
    pub(crate) images: u64,
}

/// A machine without power. Nothing is pending in it.
pub(crate) struct Snapshot {
    devices: Vec<Device>,
    files: FileSystem,
    boot: u32,
    cuts: u32,
    operations: u64,
    injections: Vec<Armed>,
    suppressed: Vec<(usize, Suppressed)>,
}

impl CrashWorld {
    /// A machine without devices.
    pub fn new(choices: Choices, limits: Limits) -> CrashWorld {
        CrashWorld(Rc::new(RefCell::new(World {
            devices: Vec::new(),
            files: FileSystem::default(),
            choices,
            limits,
            powered: true,
            boot: 0,
            cuts: 0,
            counters: Counters::default(),
            operations: 0,
            injections: Vec::new(),
            suppressed: Vec::new(),
            misuse: Vec::new(),
            trace: Trace::default(),
        })))
    }

    /// Adds a disk with this content, durable: 512-byte sectors that can be rewritten.
    ///
    /// # Panics
    /// When the name is taken or the length is not a multiple of [`SECTOR_LEN`](super::SECTOR_LEN).
    pub fn add_device(&self, name: &str, content: Vec<u8>) {
        self.add(name, Kind::Disk(Disk::new(content)));
    }

    /// Adds raw flash with this content, durable.
    ///
    /// # Panics
    /// When the name is taken or the length is not a multiple of the erase block.
    pub fn add_flash(&self, name: &str, geometry: FlashGeometry, content: Vec<u8>) {
        self.add(name, Kind::Flash(Flash::new(geometry, content)));
    }

    /// Adds a UBI volume with this content, durable.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn add_volume(&self, name: &str, content: Vec<u8>) {
        self.add(name, Kind::Volume(Volume::new(content)));
    }

    fn add(&self, name: &str, kind: Kind) {
        let mut world = self.0.borrow_mut();
        assert!(world.devices.iter().all(|device| &*device.name != name), "two devices are called {name}");
        world.devices.push(Device { name: name.into(), syncs: 0, kind });
    }

    /// A handle for this boot. Several handles may be open on one device; they share its cache.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn open(&self, name: &str) -> CrashDevice {
        let (index, world) = (self.index(name), self.0.borrow());
        let device = &world.devices[index];
        CrashDevice::new(self.clone(), index, world.boot, device)
    }

    /// What reads of the whole device would return, for checks; empty where a volume cannot be read. Not an operation.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn live(&self, name: &str) -> Vec<u8> {
        let index = self.index(name);
        self.0.borrow().devices[index].model().live()
    }

    /// What is on the medium, for checks; empty where a volume cannot be read. Not an operation.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn durable(&self, name: &str) -> Vec<u8> {
        let index = self.index(name);
        self.0.borrow().devices[index].model().durable()
    }

    /// Whether anything written to the device is not flushed yet.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn is_pending(&self, name: &str) -> bool {
        let index = self.index(name);
        self.0.borrow().devices[index].model().is_pending()
    }

    /// One of `0..n`, enumerated along with everything else: for what a scenario leaves open.
    pub fn choose(&self, n: usize) -> usize {
        self.0.borrow_mut().choices.choose(n)
    }

    /// A place to lose power between operations, for effects that are not storage (a report was sent).
    pub fn crash_point(&self, what: &str) {
        let mut world = self.0.borrow_mut();
        if world.powered {
            world.maybe_cut(|| what.to_owned());
        }
    }

    /// Lets an operation fail.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn inject(&self, injection: Injection) {
        let device = injection.device.as_deref().map(|name| self.index(name));
        self.0.borrow_mut().injections.push(Armed { injection, device, seen: 0 });
    }

    /// Takes back every injected fault.
    pub fn heal(&self) {
        self.0.borrow_mut().injections.clear();
    }

    /// Breaks syncs of a device: a negative control.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn suppress_sync(&self, device: &str, which: Suppressed) {
        let index = self.index(device);
        self.0.borrow_mut().suppressed.push((index, which));
    }

    /// Operations of all devices so far.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Power cuts so far.
    pub fn cuts(&self) -> u32 {
        self.0.borrow().cuts
    }

    /// Adds a line to the trace of a replayed case.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.0.borrow_mut().trace.note(line);
    }

    /// Makes everything written so far durable: the end of a set-up.
    pub(crate) fn settle_everything(&self) {
        for device in &mut self.0.borrow_mut().devices {
            device.model_mut().settle();
            device.syncs = 0;
        }
        self.0.borrow_mut().files.settle();
        self.0.borrow_mut().operations = 0;
    }

    pub(crate) fn set_cuts_allowed(&self, cuts: u32) {
        self.0.borrow_mut().limits.cuts = cuts;
    }

    pub(crate) fn keep_trace(&self) {
        self.0.borrow_mut().trace = Trace(Some(Vec::new()));
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.0.borrow_mut().trace.0.take().unwrap_or_default()
    }

    /// The machine starts: page caches are empty, handles of earlier boots are void, pending requests are where
    /// they were, for the device itself had no reason to lose them.
    pub(crate) fn start(&self) {
        let mut world = self.0.borrow_mut();
        world.powered = true;
        world.boot += 1;
        for device in &mut world.devices {
            device.model_mut().start();
        }
    }

    pub(crate) fn anything_pending(&self) -> bool {
        let world = self.0.borrow();
        world.files.is_pending() || world.devices.iter().any(|device| device.model().is_pending())
    }

    pub(crate) fn cuts_left(&self) -> bool {
        let world = self.0.borrow();
        world.cuts < world.limits.cuts
    }

    /// The machine as it lies there after a power cut, to be gone on from more than once.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let world = self.0.borrow();
        Snapshot {
            devices: world.devices.clone(),
            files: world.files.clone(),
            boot: world.boot,
            cuts: world.cuts,
            operations: world.operations,
            injections: world.injections.clone(),
            suppressed: world.suppressed.clone(),
        }
    }

    /// The machine of a snapshot, with choices of its own from there on.
    pub(crate) fn restore(snapshot: &Snapshot, choices: Choices, limits: Limits) -> CrashWorld {
        let restored = CrashWorld::new(choices, limits);
        {
            let mut world = restored.0.borrow_mut();
            world.devices.clone_from(&snapshot.devices);
            world.files.clone_from(&snapshot.files);
            world.boot = snapshot.boot;
            world.cuts = snapshot.cuts;
            world.operations = snapshot.operations;
            world.injections.clone_from(&snapshot.injections);
            world.suppressed.clone_from(&snapshot.suppressed);
            world.powered = false;
        }
        restored
    }

    pub(crate) fn is_off(&self) -> bool {
        !self.0.borrow().powered
    }

    pub(crate) fn misuse(&self) -> Vec<String> {
        self.0.borrow().misuse.clone()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.0.borrow().counters
    }

    pub(crate) fn with_choices<T>(&self, act: impl FnOnce(&mut Choices) -> T) -> T {
        act(&mut self.0.borrow_mut().choices)
    }

    /// A number for everything that decides what can happen from here on, as long as nothing is pending.
    pub(crate) fn hash(&self, hash: &mut Mixer) {
        let world = self.0.borrow();
        hash.word(u64::from(world.cuts));
        for device in &world.devices {
            device.model().hash(hash);
            hash.word(u64::MAX);
        }
        world.files.hash(hash);
        for (device, which) in &world.suppressed {
            if let Suppressed::Nth(_) = which {
                hash.word(world.devices[*device].syncs);
            }
        }
        for armed in &world.injections {
            hash.word(armed.seen);
        }
    }

    fn index(&self, name: &str) -> usize {
        let found = self.0.borrow().devices.iter().position(|device| &*device.name == name);
        found.unwrap_or_else(|| panic!("there is no device {name}"))
    }
}

impl fmt::Debug for CrashWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.0.borrow();
        let devices: Vec<_> = world.devices.iter().map(|device| &*device.name).collect();
        f.debug_struct("CrashWorld").field("devices", &devices).field("cuts", &world.cuts).finish()
    }
}

impl World {
    /// Counts an operation and finds the fault it meets.
    pub(super) fn begin(
        &mut self,
        index: usize,
        boot: u32,
        operation: Operation,
    ) -> io::Result<Option<Fault>> {
        let name = &self.devices[index].name;
        if !self.powered {
            if operation == Operation::Write || operation == Operation::Sync {
                self.misuse.push(format!("{operation:?} on {name} after the power was cut"));
            }
            return Err(io::Error::other("the power is off"));
        }
        if boot != self.boot {
            self.misuse.push(format!("{operation:?} on {name} through a handle of an earlier boot"));
            return Err(io::Error::other("a handle of an earlier boot"));
        }
        self.operations += 1;
        // Each of them counts the operation; the newest that is due decides.
        let faults = self.injections.iter_mut().filter_map(|armed| armed.meet(index, operation));
        Ok(faults.last())
    }

    /// Counts a file operation, which is an error when the power is off.
    pub(crate) fn begin_file_operation(&mut self, line: impl FnOnce() -> String) -> io::Result<()> {
        let line = line();
        if !self.powered {
            self.misuse.push(format!("{line} after the power was cut"));
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.trace.note(|| line);
        Ok(())
    }

    /// Counts a sync. Whether it is broken on purpose.
    pub(super) fn count_sync(&mut self, index: usize) -> bool {
        self.devices[index].syncs += 1;
        let sync = self.devices[index].syncs;
        self.suppressed.iter().any(|&(device, which)| device == index && which.covers(sync))
    }
}
