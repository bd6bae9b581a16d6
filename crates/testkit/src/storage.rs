//! Block devices that lose power: what was written and not flushed is lost, kept, mixed up or torn, and which of
//! it is decided by the enumeration.
//!
//! A [`CrashWorld`] is one machine: its devices share one power supply. Each device has what reads return
//! (*live*), what is on the medium (*durable*) and the requests between the two (*pending*).
//!
//! # What a power cut does
//! It comes in the middle of a write, in the middle of a sync, at [`CrashWorld::crash_point`], or while the
//! machine idles with something pending. The middle of a write includes the moment before it, because every
//! sector of the request may still be old. Then:
//! - every pending sector becomes the old content or any pending version of it, independently of the others;
//! - one sector that changes, the first or last one, or all sectors of one request may be torn instead
//!   ([`Tear`]), one in the whole machine;
//! - where that makes more than [`Limits::images`] combinations, the sectors go by classes: none, all, all but
//!   the first, all but the last, only the first, only the last, the first half, every other one, those of one
//!   device, those of all other devices.
//!
//! # What a failed sync does
//! Each pending sector becomes old or new on the medium, nobody is told which, reads go on showing the new
//! content until the cache is dropped, and a later sync that succeeds changes nothing about that.
//!
//! The machine is dead after a cut until the harness switches it on. A write by somebody who did not notice, such
//! as a destructor, has no effect and fails the case.
//!
//! There is no model of erase blocks here, nor of UBI volumes: every device is rewritable in 512-byte sectors.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use client_core::storage::BlockDevice;

use crate::choice::{Choices, Generator, Mixer};
use crate::files::FileSystem;

/// Bytes that are written or lost together.
pub const SECTOR_LEN: usize = 512;

/// What is left of a sector that was being written when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Bytes that are neither the old content nor the new.
    Garbage,
    /// Reading it is an error until it is written as a whole.
    Unreadable,
    /// So many bytes of the new content, then the old. No disk with a checksum per sector does this; a
    /// controller without one may.
    Prefix(usize),
}

/// Bounds of the enumeration.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Power cuts in one case.
    pub cuts: u32,
    /// What a torn sector may look like.
    pub tears: Vec<Tear>,
    /// Combinations of sectors up to which all of them are tried, per cut.
    pub images: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { cuts: 1, tears: vec![Tear::Garbage, Tear::Unreadable], images: 256 }
    }
}

/// What a device is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `read_at`.
    Read,
    /// `write_at`.
    Write,
    /// `sync`.
    Sync,
    /// `drop_cache`.
    DropCache,
}

/// How an operation goes wrong without a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails with `EIO`. A write may have happened in part; of a sync see the module documentation.
    InputOutput,
    /// It fails with `ENOSPC` and has no effect.
    NoSpace,
    /// The first half of a write happens, then it fails.
    ShortWrite,
    /// A write succeeds and shows in reads, but never reaches the medium.
    LostWrite,
    /// A write succeeds and shows in reads, but its first sector reaches the medium changed.
    CorruptWrite,
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// To one operation.
    Once,
    /// To that operation and every later one of its kind.
    ForGood,
}

/// A fault to come.
#[derive(Debug, Clone)]
pub struct Injection {
    /// To this device only, or to any.
    pub device: Option<String>,
    /// To operations of this kind.
    pub operation: Operation,
    /// To the how many-th of them from now, starting with 1.
    pub nth: u64,
    /// What happens.
    pub fault: Fault,
    /// How often.
    pub lasting: Lasting,
}

/// Which syncs of a device do nothing and say `Ok`. This breaks the code under test on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppressed {
    /// The how many-th, starting with 1.
    Nth(u64),
    /// All of them.
    Every,
}

/// The payload of the panic that is a power cut.
pub(crate) struct PowerCut;

/// One machine: its devices, its power supply, and the choices of the case it lives through.
#[derive(Clone)]
pub struct CrashWorld(pub(crate) Rc<RefCell<World>>);

pub(crate) struct World {
    devices: Vec<Device>,
    pub(crate) files: FileSystem,
    pub(crate) choices: Choices,
    limits: Limits,
    powered: bool,
    /// Handles belong to one boot. Using one of an earlier boot is an error of the test.
    boot: u32,
    cuts: u32,
    counters: Counters,
    operations: u64,
    injections: Vec<Armed>,
    suppressed: Vec<(usize, Suppressed)>,
    misuse: Vec<String>,
    trace: Option<Vec<String>>,
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

#[derive(Clone)]
struct Armed {
    injection: Injection,
    device: Option<usize>,
    seen: u64,
}

#[derive(Clone)]
struct Device {
    name: Rc<str>,
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors whose read fails, as reads see it and on the medium.
    live_bad: BTreeSet<usize>,
    durable_bad: BTreeSet<usize>,
    pending: Vec<Request>,
    /// The cache shows something that neither is on the medium nor will be.
    cache_lies: bool,
    syncs: u64,
}

/// Consecutive whole sectors on their way to the medium.
#[derive(Clone)]
struct Request {
    first: usize,
    data: Vec<u8>,
}

impl Request {
    fn sectors(&self) -> Range<usize> {
        self.first..self.first + self.data.len() / SECTOR_LEN
    }

    fn sector(&self, sector: usize) -> &[u8] {
        &self.data[bytes_of(sector - self.first)]
    }
}

fn bytes_of(sector: usize) -> Range<usize> {
    sector * SECTOR_LEN..(sector + 1) * SECTOR_LEN
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
            trace: None,
        })))
    }

    /// Adds a device with this content, durable.
    ///
    /// # Panics
    /// When the name is taken or the length is not a multiple of [`SECTOR_LEN`].
    pub fn add_device(&self, name: &str, content: Vec<u8>) {
        let mut world = self.0.borrow_mut();
        assert!(world.devices.iter().all(|device| &*device.name != name), "two devices are called {name}");
        assert!(content.len() % SECTOR_LEN == 0, "{name} must have whole sectors");
        world.devices.push(Device {
            name: name.into(),
            durable: content.clone(),
            live: content,
            live_bad: BTreeSet::new(),
            durable_bad: BTreeSet::new(),
            pending: Vec::new(),
            cache_lies: false,
            syncs: 0,
        });
    }

    /// A handle for this boot. Several handles may be open on one device; they share its cache.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn open(&self, name: &str) -> CrashDevice {
        let (index, world) = (self.index(name), self.0.borrow());
        let device = &world.devices[index];
        CrashDevice {
            world: self.clone(),
            index,
            boot: world.boot,
            name: device.name.clone(),
            len: device.live.len() as u64,
        }
    }

    /// What reads of the whole device would return, for checks. Not an operation.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn live(&self, name: &str) -> Vec<u8> {
        let index = self.index(name);
        self.0.borrow().devices[index].live.clone()
    }

    /// What is on the medium, for checks. Not an operation.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn durable(&self, name: &str) -> Vec<u8> {
        let index = self.index(name);
        self.0.borrow().devices[index].durable.clone()
    }

    /// Whether anything written to the device is not flushed yet.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn is_pending(&self, name: &str) -> bool {
        let index = self.index(name);
        !self.0.borrow().devices[index].pending.is_empty()
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
        if let Some(trace) = &mut self.0.borrow_mut().trace {
            trace.push(line());
        }
    }

    /// Makes everything written so far durable: the end of a set-up.
    pub(crate) fn settle_everything(&self) {
        for device in &mut self.0.borrow_mut().devices {
            device.pending.clear();
            device.durable.copy_from_slice(&device.live);
            device.durable_bad.clone_from(&device.live_bad);
            device.syncs = 0;
        }
        self.0.borrow_mut().files.settle();
        self.0.borrow_mut().operations = 0;
    }

    pub(crate) fn set_cuts_allowed(&self, cuts: u32) {
        self.0.borrow_mut().limits.cuts = cuts;
    }

    pub(crate) fn keep_trace(&self) {
        self.0.borrow_mut().trace = Some(Vec::new());
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.0.borrow_mut().trace.take().unwrap_or_default()
    }

    /// The machine starts: page caches are empty, handles of earlier boots are void, pending requests are where
    /// they were, for the device itself had no reason to lose them.
    pub(crate) fn start(&self) {
        let mut world = self.0.borrow_mut();
        world.powered = true;
        world.boot += 1;
        for device in &mut world.devices {
            device.drop_cache();
        }
    }

    pub(crate) fn anything_pending(&self) -> bool {
        let world = self.0.borrow();
        world.files.is_pending() || world.devices.iter().any(|device| !device.pending.is_empty())
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
            hash.bytes(&device.durable);
            for &sector in &device.durable_bad {
                hash.word(sector as u64);
            }
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

/// What a fault makes of an operation.
enum Outcome {
    Good,
    Faulty(Fault),
}

impl World {
    /// Counts an operation and finds the fault it meets.
    fn begin(&mut self, index: usize, boot: u32, operation: Operation) -> io::Result<Outcome> {
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
        let mut outcome = Outcome::Good;
        for armed in &mut self.injections {
            if armed.injection.operation == operation && armed.device.is_none_or(|device| device == index) {
                armed.seen += 1;
                let due = match armed.injection.lasting {
                    Lasting::Once => armed.seen == armed.injection.nth,
                    Lasting::ForGood => armed.seen >= armed.injection.nth,
                };
                if due {
                    outcome = Outcome::Faulty(armed.injection.fault);
                }
            }
        }
        Ok(outcome)
    }

    /// Counts a file operation, which is an error when the power is off.
    pub(crate) fn begin_file_operation(&mut self, line: impl FnOnce() -> String) -> io::Result<()> {
        let line = line();
        if !self.powered {
            self.misuse.push(format!("{line} after the power was cut"));
            return Err(io::Error::other("the power is off"));
        }
        self.operations += 1;
        self.log(|| line);
        Ok(())
    }

    pub(crate) fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    /// Cuts the power here, if the enumeration says so.
    pub(crate) fn maybe_cut(&mut self, at: impl FnOnce() -> String) {
        if self.cuts >= self.limits.cuts || self.choices.choose_rarely(2) == 0 {
            return;
        }
        if self.choices.is_new() {
            self.counters.crash_points += 1;
        }
        self.cuts += 1;
        self.powered = false;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("POWER CUT in {}", at()));
        }
        self.choose_image();
        // Without new choices the image is as new as the cut.
        if self.choices.is_new() {
            self.counters.images += 1;
        }
        std::panic::resume_unwind(Box::new(PowerCut));
    }

    /// Decides what the media hold after the power was cut, of all devices together.
    fn choose_image(&mut self) {
        let torn = self.choose_tear();
        let open: Vec<Undecided> = self
            .devices
            .iter()
            .enumerate()
            .flat_map(|(index, device)| {
                let torn = match &torn {
                    Some((torn, sectors, _)) if *torn == index => sectors.clone(),
                    Some(_) | None => 0..0,
                };
                device.undecided(index).into_iter().filter(move |place| !torn.contains(&place.sector))
            })
            .collect();
        decide(&mut self.devices, &open, &mut self.choices, self.limits.images, &mut self.trace);
        if let Some((index, sectors, tear)) = torn {
            let device = &mut self.devices[index];
            let line = format!("  {}: torn {sectors:?}, {tear:?}", device.name);
            for sector in sectors {
                device.tear(sector, tear);
            }
            self.log(|| line);
        }
        for device in &mut self.devices {
            if !device.pending.is_empty() || device.cache_lies {
                device.pending.clear();
                device.live.copy_from_slice(&device.durable);
                device.live_bad.clone_from(&device.durable_bad);
                device.cache_lies = false;
            }
        }
        self.files.cut(&mut self.choices, self.limits.images, &mut self.trace);
    }

    /// Nothing, one sector, or one whole request.
    fn choose_tear(&mut self) -> Option<(usize, Range<usize>, Tear)> {
        let places: Vec<(usize, Range<usize>)> = self
            .devices
            .iter()
            .enumerate()
            .flat_map(|(index, device)| {
                let places = device.tear_places(self.limits.images);
                places.into_iter().map(move |sectors| (index, sectors))
            })
            .collect();
        let tears = &self.limits.tears;
        let chosen = self.choices.choose(1 + places.len() * tears.len()).checked_sub(1)?;
        let (index, sectors) = places[chosen / tears.len()].clone();
        Some((index, sectors, tears[chosen % tears.len()]))
    }

    fn is_suppressed(&self, index: usize) -> bool {
        let nth = self.devices[index].syncs;
        self.suppressed.iter().any(|&(device, which)| {
            device == index
                && match which {
                    Suppressed::Nth(n) => n == nth,
                    Suppressed::Every => true,
                }
        })
    }
}

impl Device {
    fn check_range(&self, offset: u64, len: usize) -> io::Result<Range<usize>> {
        let past_the_end = || io::Error::new(io::ErrorKind::InvalidInput, "past the end of the device");
        let start = usize::try_from(offset).map_err(|_| past_the_end())?;
        let end = start.checked_add(len).filter(|&end| end <= self.live.len()).ok_or_else(past_the_end)?;
        Ok(start..end)
    }

    /// Puts a write into the cache and on its way to the medium.
    fn accept(&mut self, start: usize, data: &[u8], fate: Option<Fault>) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = start + data.len();
        let sectors = start / SECTOR_LEN..end.div_ceil(SECTOR_LEN);
        // A sector that is written in part is read first.
        for (sector, whole) in [
            (sectors.start, start % SECTOR_LEN == 0 && (end >= bytes_of(sectors.start).end)),
            (sectors.end - 1, end % SECTOR_LEN == 0),
        ] {
            if !whole && self.live_bad.contains(&sector) {
                return Err(io::Error::other("unreadable sector"));
            }
        }
        self.live[start..end].copy_from_slice(data);
        if !self.live_bad.is_empty() {
            for sector in sectors.clone() {
                self.live_bad.remove(&sector);
            }
        }
        let mut data = self.live[sectors.start * SECTOR_LEN..sectors.end * SECTOR_LEN].to_vec();
        match fate {
            Some(Fault::LostWrite) => {
                self.cache_lies = true;
                return Ok(());
            }
            Some(Fault::CorruptWrite) => {
                self.cache_lies = true;
                garble(&mut data[..SECTOR_LEN], sectors.start);
            }
            Some(Fault::InputOutput | Fault::NoSpace | Fault::ShortWrite) | None => {}
        }
        self.pending.push(Request { first: sectors.start, data });
        Ok(())
    }

    fn flush(&mut self) {
        for request in self.pending.drain(..) {
            let start = request.first * SECTOR_LEN;
            self.durable[start..start + request.data.len()].copy_from_slice(&request.data);
            if !self.durable_bad.is_empty() {
                for sector in request.sectors() {
                    self.durable_bad.remove(&sector);
                }
            }
        }
    }

    /// Forgets what is cached of sectors that nothing is pending for.
    fn drop_cache(&mut self) {
        if !self.cache_lies {
            return;
        }
        self.live.copy_from_slice(&self.durable);
        self.live_bad.clone_from(&self.durable_bad);
        for request in &self.pending {
            let start = request.first * SECTOR_LEN;
            self.live[start..start + request.data.len()].copy_from_slice(&request.data);
            for sector in request.sectors() {
                self.live_bad.remove(&sector);
            }
        }
        self.cache_lies = false;
    }

    /// The pending sectors that may hold more than one thing afterwards.
    fn undecided(&self, device: usize) -> Vec<Undecided> {
        let mut places: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for request in &self.pending {
            for sector in request.sectors() {
                let new = request.sector(sector);
                // What is unreadable is not the same as any content.
                let is_old = !self.durable_bad.contains(&sector) && self.durable[bytes_of(sector)] == *new;
                let versions = places.entry(sector).or_default();
                if !is_old && versions.iter().all(|version| version != new) {
                    versions.push(new.to_vec());
                }
            }
        }
        places.retain(|_, versions| !versions.is_empty());
        places.into_iter().map(|(sector, versions)| Undecided { device, sector, versions }).collect()
    }

    /// Where a tear is tried.
    fn tear_places(&self, limit: usize) -> Vec<Range<usize>> {
        let pending: BTreeSet<usize> = self.pending.iter().flat_map(Request::sectors).collect();
        // One sector that keeps its content stands for all that do.
        let mut sectors: BTreeSet<usize> =
            [pending.first(), pending.last()].into_iter().flatten().copied().collect();
        let changing = self.undecided(0);
        if changing.len() <= limit {
            sectors.extend(changing.iter().map(|place| place.sector));
        }
        let mut places: Vec<Range<usize>> = sectors.into_iter().map(|sector| sector..sector + 1).collect();
        for request in &self.pending {
            let sectors = request.sectors();
            if sectors.len() > 1 && !places.contains(&sectors) {
                places.push(sectors);
            }
        }
        places
    }

    fn tear(&mut self, sector: usize, tear: Tear) {
        let newest = self.pending.iter().rev().find(|request| request.sectors().contains(&sector));
        let content = &mut self.durable[bytes_of(sector)];
        self.durable_bad.remove(&sector);
        match tear {
            Tear::Garbage => garble(content, sector),
            Tear::Unreadable => {
                content.fill(0);
                self.durable_bad.insert(sector);
            }
            Tear::Prefix(len) => {
                if let Some(newest) = newest {
                    content[..len].copy_from_slice(&newest.sector(sector)[..len]);
                }
            }
        }
    }
}

/// A pending sector and what it may become besides staying as it is.
struct Undecided {
    device: usize,
    sector: usize,
    versions: Vec<Vec<u8>>,
}

/// Puts the old or one of the new versions of every sector on its medium.
fn decide(
    devices: &mut [Device],
    open: &[Undecided],
    choices: &mut Choices,
    limit: usize,
    trace: &mut Option<Vec<String>>,
) {
    let combinations =
        open.iter().try_fold(1_usize, |product, place| product.checked_mul(1 + place.versions.len()));
    let picks: Vec<usize> = if combinations.is_some_and(|combinations| combinations <= limit) {
        open.iter().map(|place| choices.choose(1 + place.versions.len())).collect()
    } else {
        let class = choices.choose(CLASSES.len() + 2 * devices.len());
        let is_new = |at: usize, place: &Undecided| match class.checked_sub(CLASSES.len()) {
            None => CLASSES[class](at, open.len()),
            Some(device) if device < devices.len() => place.device == device,
            Some(device) => place.device != device - devices.len(),
        };
        let newest = |(at, place)| if is_new(at, place) { place.versions.len() } else { 0 };
        open.iter().enumerate().map(newest).collect()
    };
    for (place, pick) in open.iter().zip(picks) {
        let device = &mut devices[place.device];
        if let Some(trace) = trace {
            let of = place.versions.len();
            trace.push(format!("  {}: sector {} has version {pick} of {of}", device.name, place.sector));
        }
        if let Some(pick) = pick.checked_sub(1) {
            device.durable[bytes_of(place.sector)].copy_from_slice(&place.versions[pick]);
            device.durable_bad.remove(&place.sector);
        }
    }
}

/// Which sectors of many became new, by their place among them.
const CLASSES: [fn(usize, usize) -> bool; 8] = [
    |_, _| false,
    |_, _| true,
    |at, _| at != 0,
    |at, count| at + 1 != count,
    |at, _| at == 0,
    |at, count| at + 1 == count,
    |at, count| at < count / 2,
    |at, _| at % 2 == 0,
];

fn garble(content: &mut [u8], sector: usize) {
    let mut noise = Generator::new(sector as u64);
    for byte in content {
        *byte = noise.next_word().to_le_bytes()[0];
    }
}

/// A handle on one device of a [`CrashWorld`], valid until the machine starts again.
#[derive(Clone)]
pub struct CrashDevice {
    world: CrashWorld,
    index: usize,
    boot: u32,
    name: Rc<str>,
    len: u64,
}

impl BlockDevice for CrashDevice {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let world = &mut *self.world.0.borrow_mut();
        let outcome = world.begin(self.index, self.boot, Operation::Read)?;
        if let Outcome::Faulty(_) = outcome {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let device = &world.devices[self.index];
        let range = device.check_range(offset, buf.len())?;
        if !device.live_bad.is_empty() && !range.is_empty() {
            let sectors = range.start / SECTOR_LEN..range.end.div_ceil(SECTOR_LEN);
            if device.live_bad.range(sectors).next().is_some() {
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        buf.copy_from_slice(&device.live[range]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let world = &mut *self.world.0.borrow_mut();
        let outcome = world.begin(self.index, self.boot, Operation::Write)?;
        let name = self.name.clone();
        world.log(|| format!("write {name} {offset}+{}", data.len()));
        let device = &mut world.devices[self.index];
        let start = device.check_range(offset, data.len())?.start;
        let fate = match outcome {
            Outcome::Good => None,
            Outcome::Faulty(fault) => Some(fault),
        };
        match fate {
            None | Some(Fault::LostWrite | Fault::CorruptWrite) => device.accept(start, data, fate)?,
            Some(Fault::NoSpace) => return Err(io::Error::from_raw_os_error(ENOSPC)),
            Some(Fault::ShortWrite) => {
                device.accept(start, &data[..data.len() / 2], None)?;
                return Err(io::ErrorKind::WriteZero.into());
            }
            Some(Fault::InputOutput) => {
                let part = [0, data.len() / 2, data.len()][world.choices.choose(3)];
                device.accept(start, &data[..part], None)?;
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        world.maybe_cut(|| format!("write {name} {offset}+{}", data.len()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let world = &mut *self.world.0.borrow_mut();
        let outcome = world.begin(self.index, self.boot, Operation::Sync)?;
        let name = self.name.clone();
        world.log(|| format!("sync {name}"));
        world.devices[self.index].syncs += 1;
        if world.is_suppressed(self.index) {
            return Ok(());
        }
        world.maybe_cut(|| format!("sync {name}"));
        let device = &mut world.devices[self.index];
        if let Outcome::Faulty(fault) = outcome {
            let open = device.undecided(self.index);
            device.pending.clear();
            device.cache_lies = true;
            decide(&mut world.devices, &open, &mut world.choices, world.limits.images, &mut world.trace);
            return Err(io::Error::from_raw_os_error(match fault {
                Fault::NoSpace => ENOSPC,
                Fault::InputOutput | Fault::ShortWrite | Fault::LostWrite | Fault::CorruptWrite => EIO,
            }));
        }
        device.flush();
        Ok(())
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        let world = &mut *self.world.0.borrow_mut();
        if let Outcome::Faulty(_) = world.begin(self.index, self.boot, Operation::DropCache)? {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        world.devices[self.index].drop_cache();
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for CrashDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashDevice({})", self.name)
    }
}

/// The numbers Linux has for these errors.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn world(sectors: usize) -> CrashWorld {
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        world.add_device("disk", vec![0; sectors * SECTOR_LEN]);
        world
    }

    fn inject(world: &CrashWorld, operation: Operation, fault: Fault, lasting: Lasting) {
        world.inject(Injection { device: Some("disk".to_owned()), operation, nth: 1, fault, lasting });
    }

    fn first_byte(disk: &mut CrashDevice) -> u8 {
        let mut byte = [0];
        disk.read_at(0, &mut byte).unwrap();
        byte[0]
    }

    /// Every content a cut can leave after two whole-device writes, as the first byte of each sector.
    fn images(sectors: usize, tears: Vec<Tear>) -> BTreeSet<Vec<u8>> {
        let mut choices = Choices::exhaustive();
        let mut images = BTreeSet::new();
        loop {
            let limits = Limits { cuts: 1, tears: tears.clone(), ..Limits::default() };
            let world = CrashWorld::new(choices, limits);
            world.add_device("disk", vec![0; sectors * SECTOR_LEN]);
            let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut disk = world.open("disk");
                disk.write_at(0, &vec![1; sectors * SECTOR_LEN]).unwrap();
                disk.write_at(0, &vec![2; sectors * SECTOR_LEN]).unwrap();
            }));
            if cut.is_err() {
                images.insert(world.durable("disk").chunks(SECTOR_LEN).map(|sector| sector[0]).collect());
            }
            choices = world.with_choices(|choices| choices.clone());
            if !choices.advance() {
                return images;
            }
        }
    }

    #[test]
    fn each_pending_sector_is_old_or_any_version_of_it() {
        let expected = (0..9).map(|n| vec![n / 3, n % 3]).collect();
        assert_eq!(images(2, Vec::new()), expected);
    }

    #[test]
    fn a_torn_sector_is_neither_and_the_others_are_whole() {
        let all = images(2, vec![Tear::Garbage]);
        let whole = |byte: &u8| *byte <= 2;
        assert!(all.iter().any(|image| !whole(&image[0]) && whole(&image[1])));
        assert!(all.iter().any(|image| whole(&image[0]) && !whole(&image[1])));
        assert!(all.iter().any(|image| !image.iter().any(whole)));
    }

    #[test]
    fn a_big_device_goes_by_classes() {
        let all = images(64, Vec::new());
        assert!(all.len() <= 2 * (CLASSES.len() + 2));
        for expected in [vec![0; 64], vec![2; 64]] {
            assert!(all.contains(&expected));
        }
    }

    #[test]
    fn a_sync_makes_only_its_own_device_durable_whoever_wrote() {
        let world = world(1);
        world.add_device("other", vec![0; SECTOR_LEN]);
        world.open("disk").write_at(0, &[1]).unwrap();
        world.open("other").write_at(0, &[1]).unwrap();
        world.open("disk").sync().unwrap();
        assert_eq!((world.durable("disk")[0], world.durable("other")[0]), (1, 0));
        assert!(world.is_pending("other"));
    }

    #[test]
    fn a_later_sync_does_not_bring_back_what_a_failed_one_lost() {
        let world = world(1);
        let mut disk = world.open("disk");
        inject(&world, Operation::Sync, Fault::InputOutput, Lasting::Once);
        disk.write_at(0, &[1]).unwrap();
        assert_eq!(disk.sync().unwrap_err().raw_os_error(), Some(EIO));
        disk.sync().unwrap();
        // The first choice is that the old content stayed.
        assert_eq!((first_byte(&mut disk), world.durable("disk")[0]), (1, 0));
        disk.drop_cache().unwrap();
        assert_eq!(first_byte(&mut disk), 0);
    }

    #[test]
    fn a_lost_write_and_a_corrupt_one_show_only_after_the_cache_is_dropped() {
        for fault in [Fault::LostWrite, Fault::CorruptWrite] {
            let world = world(1);
            let mut disk = world.open("disk");
            inject(&world, Operation::Write, fault, Lasting::Once);
            disk.write_at(0, &[1]).unwrap();
            disk.sync().unwrap();
            assert_eq!(first_byte(&mut disk), 1, "{fault:?}");
            disk.drop_cache().unwrap();
            assert_ne!(first_byte(&mut disk), 1, "{fault:?}");
        }
    }

    #[test]
    fn a_short_write_leaves_its_first_half() {
        let world = world(2);
        inject(&world, Operation::Write, Fault::ShortWrite, Lasting::Once);
        assert!(world.open("disk").write_at(0, &[1; 2 * SECTOR_LEN]).is_err());
        assert_eq!((world.live("disk")[0], world.live("disk")[SECTOR_LEN]), (1, 0));
    }

    #[test]
    fn a_fault_happens_once_or_for_good() {
        for (lasting, second_fails) in [(Lasting::Once, false), (Lasting::ForGood, true)] {
            let world = world(1);
            let mut disk = world.open("disk");
            inject(&world, Operation::Write, Fault::NoSpace, lasting);
            assert_eq!(disk.write_at(0, &[1]).unwrap_err().raw_os_error(), Some(ENOSPC));
            assert_eq!(disk.write_at(0, &[1]).is_err(), second_fails);
        }
    }

    #[test]
    fn an_unreadable_sector_is_healed_only_by_a_whole_write() {
        let world = world(1);
        world.0.borrow_mut().devices[0].live_bad.insert(0);
        let mut disk = world.open("disk");
        assert!(disk.read_at(0, &mut [0]).is_err());
        assert!(disk.write_at(0, &[1; 100]).is_err());
        disk.write_at(0, &[1; SECTOR_LEN]).unwrap();
        assert_eq!(first_byte(&mut disk), 1);
    }

    #[test]
    fn calls_past_the_end_are_errors_without_effect() {
        let world = world(1);
        let mut disk = world.open("disk");
        for offset in [1, SECTOR_LEN as u64, u64::MAX] {
            assert!(disk.write_at(offset, &[1; SECTOR_LEN]).is_err());
            assert!(disk.read_at(offset, &mut [0; SECTOR_LEN]).is_err());
        }
        assert!(!world.is_pending("disk"));
    }

    #[test]
    fn writing_to_a_dead_machine_or_through_an_old_handle_is_remembered() {
        let world = world(1);
        let mut disk = world.open("disk");
        world.0.borrow_mut().powered = false;
        assert!(disk.write_at(0, &[1]).is_err());
        world.start();
        assert!(disk.write_at(0, &[1]).is_err());
        assert_eq!(world.misuse().len(), 2);
        assert_eq!(world.live("disk")[0], 0);
    }
}
