//! An image in frames: what of it is fetched, what a damaged slot, payload or table does, and every power cut on the way.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::Cell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use crate::machine::{Machine, plainly};
use client_core::artifact::frames::FramesInfo;
use client_core::artifact::{self, Compression, Limits, Places, Trust};
use client_core::install::{
    Arriving, Cost, Current, HandlerState, InstallError, PayloadHandler, Progress, RootfsImage, StateKeeper,
};
use client_core::server::{Download, DownloadSettings};
use client_core::slot::{Slot, SlotError, Slots};
use client_core::storage::{BlockDevice, ReadAt};
use testkit::artifacts::{self, MemoryFile};
use testkit::choice::Choices;
use testkit::clock::VirtualClock;
use testkit::device::{CrashSlots, KnownSystem, slot_device};
use testkit::enumerator::{After, Options, Scenario, explore};
use testkit::storage::CrashWorld;
use testkit::transport::{Reply, ScriptedTransport, Sent};

/// A file as a file system lays it out, of bytes that do not compress: long enough for a frame of its own.
fn file(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 | 1
    };
    let mut file: Vec<u8> = std::iter::repeat_with(noise).take(length).collect();
    file.resize(length.next_multiple_of(4096), 0);
    file
}

const LENGTH: usize = 40_000;
const LAID_OUT: usize = 40_960;

fn old_image() -> Vec<u8> {
    [file(1, LENGTH), file(2, LENGTH), file(3, LENGTH), file(4, LENGTH)].concat()
}

/// One file is new, one is gone, two have moved, and there is room.
fn new_image() -> Vec<u8> {
    let zeros = vec![0; 2 * LAID_OUT];
    [file(3, LENGTH), file(9, LENGTH), zeros, file(1, LENGTH), file(2, LENGTH)].concat()
}

fn framed(image: &[u8]) -> Vec<u8> {
    let mut spec = artifacts::rootfs_spec("new", Compression::Zstd);
    spec.frames = true;
    artifacts::build(&spec, &[MemoryFile { name: "image".into(), content: image.to_vec() }], None)
}

/// An artifact on a server, and what was asked of it.
#[derive(Clone)]
struct Server {
    bytes: Arc<Vec<u8>>,
    jumps: bool,
    /// What may still be transferred.
    affordable: u64,
    asked: Arc<Mutex<Vec<std::ops::Range<u64>>>>,
}

impl Server {
    fn new(bytes: Vec<u8>) -> Server {
        Server { bytes: Arc::new(bytes), jumps: true, affordable: u64::MAX, asked: Arc::default() }
    }

    fn bought(&self) -> u64 {
        self.asked.lock().unwrap().iter().map(|range| range.end - range.start).sum()
    }

    /// Something else at the last place where `old` is.
    fn with(mut self, old: &[u8], new: &[u8]) -> Server {
        let mut bytes = self.bytes.to_vec();
        let at = bytes.windows(old.len()).rposition(|window| window == old).unwrap();
        bytes[at..at + new.len()].copy_from_slice(new);
        self.bytes = Arc::new(bytes);
        self
    }
}

impl Places for Server {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let end = end.unwrap_or(u64::MAX).min(self.bytes.len() as u64);
        self.asked.lock().unwrap().push(offset..end);
        let part = self.bytes[usize::try_from(offset).unwrap()..usize::try_from(end).unwrap()].to_vec();
        Ok(Box::new(Cursor::new(part)))
    }

    fn can_jump(&self) -> bool {
        self.jumps
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn check_affordable(&self, more_bytes: u64) -> io::Result<()> {
        if more_bytes <= self.affordable { Ok(()) } else { Err(io::Error::other("too much")) }
    }
}

/// What is done to the running slot between two looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Running {
    Steady,
    Unreadable,
    Closed,
    /// From this read on one byte of it is another.
    Changes {
        read: u32,
        byte: u64,
    },
}

struct TouchedSlots {
    inner: CrashSlots,
    running: Running,
}

struct Touched {
    inner: Box<dyn ReadAt>,
    running: Running,
    reads: Cell<u32>,
}

impl Slots for TouchedSlots {
    fn open(&mut self, slot: Slot) -> Result<Box<dyn BlockDevice + '_>, SlotError> {
        self.inner.open(slot)
    }

    fn open_source(&mut self, slot: Slot) -> Result<Box<dyn ReadAt>, SlotError> {
        if self.running == Running::Closed {
            return Err(SlotError::NotConfigured { key: "RootfsPartA" });
        }
        let inner = self.inner.open_source(slot)?;
        Ok(Box::new(Touched { inner, running: self.running, reads: Cell::new(0) }))
    }
}

impl ReadAt for Touched {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        self.inner.read_at(offset, buf)?;
        match self.running {
            Running::Steady | Running::Closed => {}
            Running::Unreadable => return Err(io::Error::other("a bad sector")),
            Running::Changes { read, byte } => {
                let place = byte.checked_sub(offset).and_then(|at| buf.get_mut(usize::try_from(at).unwrap()));
                if let Some(place) = place.filter(|_| self.reads.get() >= read) {
                    *place ^= 1;
                }
            }
        }
        Ok(())
    }
}

/// What the handler keeps, and what it says.
#[derive(Default)]
struct Told {
    reused: u64,
    total: u64,
    skipped: u64,
    syncs: u32,
    cost: Option<Cost>,
}

impl StateKeeper for Told {
    fn set(&mut self, _: HandlerState) {}
    fn save(&mut self) -> Result<(), InstallError> {
        Ok(())
    }
}

impl Progress for Told {
    fn written(&mut self, done: u64, _: u64) {
        self.total = done;
    }
    fn verified(&mut self, _: u64, _: u64) {}
    fn will_cost(&mut self, cost: &Cost) {
        assert_eq!((self.cost.replace(*cost), self.total), (None, 0), "once, and before anything is written");
    }
    fn reused(&mut self, bytes: u64) {
        self.reused += bytes;
    }
    fn finished(&mut self, statistics: &client_core::install::WriteStatistics) {
        self.skipped = statistics.skipped_bytes;
        self.syncs = statistics.syncs;
    }
}

fn set_up(world: &CrashWorld, target: Vec<u8>) {
    let mut old = old_image();
    old.resize(new_image().len(), 0);
    world.add_device(slot_device(Slot::A), old);
    world.add_device(slot_device(Slot::B), target);
    Machine::UBoot.install(world, Slot::A);
}

/// Downloads into slot B of a device that runs from slot A.
fn download(world: &CrashWorld, server: &Server, running: Running) -> Result<Told, InstallError> {
    download_from(world, Box::new(server.clone()), running)
}

fn download_from(
    world: &CrashWorld,
    places: Box<dyn Places>,
    running: Running,
) -> Result<Told, InstallError> {
    let mut artifact = artifact::open_at_places(places, &Trust::DangerUnsigned, &Limits::default())?;
    let mut boot = Machine::UBoot.control(world, plainly(Slot::A));
    let mut slots = TouchedSlots { inner: CrashSlots::new(world, Slot::A), running };
    let system = KnownSystem { running: Slot::A, device_type: artifacts::DEVICE_TYPE.into() };
    let mut handler = RootfsImage::new(&mut *boot, &mut slots, &system)?;
    let (mut kept, mut told) = (Told::default(), Told::default());
    let mut arriving = Arriving {
        header: &artifact.header,
        current: Current { artifact_name: "old", artifact_group: None, device_type: artifacts::DEVICE_TYPE },
        payload: &mut artifact.payload,
        state: &mut kept,
        earlier: HandlerState::default(),
    };
    handler.download(&mut arriving, &mut told)?;
    Ok(told)
}

fn uncut() -> CrashWorld {
    CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits)
}

/// Installs onto a device whose target slot holds `target`; what is bought lies in `bought`, and the slot holds the image.
#[track_caller]
fn check(server: &Server, target: Vec<u8>, running: Running, bought: std::ops::Range<u64>) -> Told {
    let world = uncut();
    set_up(&world, target);
    let told = download(&world, server, running).unwrap();
    assert!(world.live(slot_device(Slot::B)) == new_image());
    assert!(bought.contains(&server.bought()), "{} of {bought:?}", server.bought());
    told
}

fn empty_target() -> Vec<u8> {
    vec![0x55; new_image().len()]
}

const HEAD: u64 = artifact::HEAD_BYTES;
/// A frame with one file of such bytes, at least; and the table, and what a frame may be longer.
const FRAME: u64 = 34_900;
const TABLE: u64 = 2500;

#[test]
fn only_the_frame_of_the_new_file_is_fetched() {
    let server = Server::new(framed(&new_image()));
    let told = check(&server, empty_target(), Running::Steady, HEAD + FRAME..HEAD + FRAME + TABLE);
    assert_eq!(told.reused, 3 * LAID_OUT as u64);
    // The head, the table, and one part, which is what it was said to cost.
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked.len(), 3);
    let cost = told.cost.unwrap();
    assert_eq!(cost.transfer_bytes, Some(asked[2].end - asked[2].start));
    assert_eq!((cost.image_bytes, cost.changed_bytes), (Some(new_image().len() as u64), None));
    assert!((1..100_000).contains(&cost.memory_bytes.unwrap()), "{cost}");
}

#[test]
fn a_plan_that_costs_more_than_it_may_is_not_begun() {
    let world = uncut();
    set_up(&world, empty_target());
    let mut server = Server::new(framed(&new_image()));
    server.affordable = FRAME - 1000;
    let error = download(&world, &server, Running::Steady).err().unwrap().to_string();
    assert!(error.contains("too much"), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 2, "the head and the table");
    assert!(world.live(slot_device(Slot::B)) == empty_target());
    server.affordable = FRAME + TABLE;
    download(&world, &server, Running::Steady).unwrap();
}

#[test]
fn what_the_target_holds_in_place_is_neither_fetched_nor_written() {
    let server = Server::new(framed(&new_image()));
    let mut half = new_image();
    half[LAID_OUT * 5..].fill(0x55);
    let told = check(&server, half, Running::Steady, HEAD..HEAD + TABLE);
    assert!(told.skipped >= 4 * LAID_OUT as u64, "{}", told.skipped);
    // Without a running slot as well.
    let server = Server::new(framed(&new_image()));
    check(&server, new_image(), Running::Unreadable, HEAD..HEAD + TABLE);
}

#[test]
fn everything_comes_from_the_first_byte_to_the_last_where_nothing_can_be_chosen() {
    let whole = framed(&new_image()).len() as u64;
    let plain = whole..whole + TABLE;
    let mut server = Server::new(framed(&new_image()));
    server.jumps = false;
    check(&server, empty_target(), Running::Steady, plain.clone());
    check(&Server::new(framed(&new_image())), empty_target(), Running::Closed, plain.clone());
    // One request brings all frames but those of zeros.
    let none_found = whole - TABLE..whole + HEAD + TABLE;
    check(&Server::new(framed(&new_image())), empty_target(), Running::Unreadable, none_found);
    // A table that is not the one that was signed.
    let server = Server::new(framed(&new_image())).with(b"rotafrm1", b"rotafrm2");
    check(&server, empty_target(), Running::Steady, plain);
}

#[test]
fn a_block_of_the_running_slot_that_changes_costs_its_frame_and_no_other() {
    let frames = |count: u64| HEAD + count * FRAME..HEAD + count * FRAME + TABLE;
    // Before it is looked for, and between that and its use.
    for read in [1, 2] {
        let running = Running::Changes { read, byte: LAID_OUT as u64 + 5000 };
        let server = Server::new(framed(&new_image()));
        let told = check(&server, empty_target(), running, frames(2));
        assert_eq!(told.reused, 2 * LAID_OUT as u64, "{read}");
    }
}

#[test]
fn a_frame_that_is_not_the_one_that_was_signed_ends_the_installation() {
    let world = uncut();
    set_up(&world, empty_target());
    let mut artifact = framed(&new_image());
    // In the middle of the second frame, behind what is before the payload.
    artifact[60_000] ^= 1;
    let error = download(&world, &Server::new(artifact), Running::Steady).err().unwrap().to_string();
    let named = ["is not the one that was signed", "cannot decompress zstd"];
    assert!(named.iter().any(|words| error.contains(words)), "{error}");
}

#[test]
fn what_was_bought_is_made_durable_on_the_way() {
    let image: Vec<u8> = (20..30).flat_map(|seed| file(seed, 1 << 20)).collect();
    let world = uncut();
    world.add_device(slot_device(Slot::A), vec![0; image.len()]);
    world.add_device(slot_device(Slot::B), vec![0; image.len()]);
    Machine::UBoot.install(&world, Slot::A);
    let told = download(&world, &Server::new(framed(&image)), Running::Steady).unwrap();
    assert!(world.live(slot_device(Slot::B)) == image);
    // Twice on the way, and at the end.
    assert_eq!((told.syncs, told.reused), (3, 0));
}

/// The part that is asked for, of a storage that gives parts.
fn part(bytes: &[u8], sent: &Sent, tag: &str) -> Reply {
    let Some(range) = sent.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Reply::new(200, bytes).sized().header("etag", tag);
    };
    let (first, last) = range.split_once('-').unwrap();
    let end = last.parse().map_or(bytes.len(), |last: usize| bytes.len().min(last + 1));
    let first: usize = first.parse().unwrap();
    let range = format!("bytes {first}-{}/{}", end - 1, bytes.len());
    Reply::new(206, &bytes[first..end]).sized().header("content-range", range).header("etag", tag)
}

/// Over a network of which every answer is made by `answer`: what was received, and what came of it.
fn over_the_network(
    mut answer: impl FnMut(&[u8], &Sent, u32) -> Reply + Send + 'static,
) -> (Result<Told, InstallError>, u64, CrashWorld) {
    let (world, bytes, mut count) = (uncut(), framed(&new_image()), 0);
    set_up(&world, empty_target());
    let clock = VirtualClock::new(1);
    let transport = ScriptedTransport::answering(move |sent| {
        count += 1;
        answer(&bytes, sent, count)
    });
    let transport = transport.with_clock(&clock);
    let settings = DownloadSettings { begin_with: Some(HEAD), ..DownloadSettings::default() };
    let url = "https://storage.test/a";
    let download = Download::open(url, transport.boxed(), clock.shared(), settings).unwrap();
    let statistics = download.statistics();
    let result = download_from(&world, download.into_places(), Running::Steady);
    (result, statistics.received(), world)
}

#[test]
fn servers_that_give_parts_none_or_broken_ones_lead_to_the_image() {
    let whole = framed(&new_image()).len() as u64;
    let few = HEAD + FRAME..HEAD + FRAME + TABLE;
    let check = |answer: fn(&[u8], &Sent, u32) -> Reply, bought: std::ops::Range<u64>| {
        let (result, received, world) = over_the_network(answer);
        result.unwrap();
        assert!(world.live(slot_device(Slot::B)) == new_image());
        assert!(bought.contains(&received), "{received} of {bought:?}");
    };
    check(|bytes, sent, _| part(bytes, sent, "\"v1\""), few.clone());
    // Every second answer breaks off.
    check(
        |bytes, sent, count| match count % 2 {
            0 => part(bytes, sent, "\"v1\"").breaking_after(999),
            _ => part(bytes, sent, "\"v1\""),
        },
        few.clone(),
    );
    // Too few bytes in an answer that is otherwise good.
    check(
        |bytes, sent, count| match count {
            3 => part(bytes, sent, "\"v1\"").ending_after(100),
            _ => part(bytes, sent, "\"v1\""),
        },
        few.clone(),
    );
    // Storage that another server redirects to, each time.
    check(
        |bytes, sent, _| match sent.path().starts_with("/a") {
            true => Reply::new(307, "").header("location", "https://bucket.test/b?signed"),
            false => part(bytes, sent, "\"v1\""),
        },
        few,
    );
    // No parts at all.
    check(|bytes, _, _| Reply::new(200, bytes).sized(), whole..whole + 1);
}

#[test]
fn content_that_changes_on_the_way_ends_the_installation() {
    let (result, _, world) = over_the_network(|bytes, sent, count| match count {
        1 | 2 => part(bytes, sent, "\"v1\""),
        _ => part(&vec![7; bytes.len()], sent, "\"v2\""),
    });
    assert!(result.is_err());
    assert_eq!(crate::machine::selected(&world, Machine::UBoot), Ok((Slot::A, false)));
}

#[test]
fn an_image_in_frames_is_named_in_the_signed_header() {
    let bytes = Cursor::new(framed(&new_image()));
    let artifact = artifact::open(bytes, &Trust::DangerUnsigned, &Limits::default()).unwrap();
    assert!(FramesInfo::of(&artifact.header).is_some());
}

/// Bytes that were bought before the power was cut, and after.
#[derive(Hash, Clone, Default)]
struct Bought {
    done: bool,
    attempts: u64,
}

/// Every cut, and then another attempt: the image is there in the end, and an attempt that begins again finds what it wrote
/// and made durable.
#[test]
fn after_every_power_cut_the_image_is_completed() {
    let artifact = Rc::new(framed(&new_image()));
    let attempt = move |world: &CrashWorld, facts: &mut Bought| {
        facts.attempts += 1;
        let server = Server::new(artifact.to_vec());
        download(world, &server, Running::Steady).map_err(|error| error.to_string())?;
        facts.done = true;
        // Head, table and the frame of the new file: never more, whatever was lost.
        match server.bought() <= HEAD + FRAME + TABLE {
            true => Ok(()),
            false => Err(format!("{} bytes were bought", server.bought())),
        }
    };
    let again = attempt.clone();
    let scenario = Scenario::new(|world| {
        set_up(world, empty_target());
        Bought::default()
    })
    .run(attempt)
    .recover(move |world, facts| again(world, facts).map(|()| After::Settled))
    .check(|world, facts| {
        if !facts.done || world.live(slot_device(Slot::B)) != new_image() {
            return Err("the image is not there".to_owned());
        }
        let (next, trial) = crate::machine::selected(world, Machine::UBoot)?;
        match (next, trial) {
            (Slot::A, false) => Ok(()),
            other => Err(format!("the download has armed something: {other:?}")),
        }
    })
    .fold_equal_states();
    let report = explore(&scenario, &Machine::UBoot.limits(1).budget(300, 40));
    println!("{report}");
    report.assert_holds();
}
