//! A delta on a device: what is refused and leaves everything as it was, and a whole update under power cuts.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic)]

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::{MACHINES, Machine, RECORD_BYTES, plainly, selected};
use crate::whole_update::{
    Arrives, ENDINGS, Ending, Mistake, assert_arrival_holds, client, fail_arrival_everywhere, is_found_when,
};
use client_core::artifact::write::ArtifactSpec;
use client_core::artifact::{self, ArtifactError, Limits, Places, Reading, Trust};
use client_core::delta::{Compression, Signed};
use client_core::deploy::record::Record;
use client_core::deploy::{self, Options as Order, Policy, Status, Summary};
use client_core::install::{
    Arriving, Current, HandlerState, InstallError, PayloadHandler, RootfsImage, StateKeeper,
};
use client_core::slot::Slot;
use client_core::state_store::TwoCopyRecord;
use testkit::choice::{Choices, Generator, so_many};
use testkit::deltas::{self, MadeDelta, Making};
use testkit::device::{CrashSlots, KnownSystem, Notices, slot_device};
use testkit::enumerator::Options;
use testkit::storage::CrashWorld;

const BLOCK: usize = 4096;
const SLOT_BYTES: usize = 48 * BLOCK;
const CHECKSUM: &str = "rootfs-image.checksum";

/// 40 blocks of which none is like another.
fn old() -> Vec<u8> {
    (0..40 * BLOCK / 4).flat_map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// The same with blocks that were moved, changed, emptied and added.
fn new() -> Vec<u8> {
    let mut new = old();
    new.copy_within(20 * BLOCK..25 * BLOCK, 3 * BLOCK);
    new.iter_mut().skip(8 * BLOCK).step_by(701).take(60).for_each(|byte| *byte ^= 0x5a);
    new[30 * BLOCK..33 * BLOCK].fill(0);
    new.extend(old().iter().take(2 * BLOCK + 100).map(|byte| byte ^ 0xff));
    new
}

fn made() -> MadeDelta {
    deltas::make(&old(), &new(), &Making::small(Compression::Zstd))
}

fn whole(made: &MadeDelta) -> Vec<u8> {
    deltas::around(&deltas::spec("new", &made.signed), made.file())
}

/// A device that runs the old image from slot A, knows its digest, and has something else in slot B.
struct Board(CrashWorld);

impl Board {
    fn new() -> Board {
        let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
        let mut running = old();
        running.resize(SLOT_BYTES, 0xee);
        world.add_device(slot_device(Slot::A), running);
        world.add_device(slot_device(Slot::B), vec![0x55; SLOT_BYTES]);
        Machine::UBoot.install(&world, Slot::A);
        world.add_device("record", vec![0; 2 * RECORD_BYTES]);
        let mut record = Record::new();
        record.installed.artifact_name = Some("old".into());
        let digest = artifact::Sha256::of(&old()).to_string();
        record.installed.provides.insert(CHECKSUM.into(), digest);
        record.installed.provides.insert("rootfs-image.version".into(), "old".into());
        TwoCopyRecord::format_new(world.open("record"), &record.to_json().unwrap()).unwrap();
        Board(world)
    }

    fn install(&self, artifact: Vec<u8>) -> Summary {
        let policy = Policy { trust: Trust::DangerUnsigned, limits: Limits::default() };
        client(&self.0, Machine::UBoot, plainly(Slot::A), None, |device| {
            deploy::install(device, Cursor::new(artifact), &policy, &Order::default())
        })
        .unwrap()
    }

    fn provides(&self, key: &str) -> Option<String> {
        let mut store = TwoCopyRecord::open(self.0.open("record")).unwrap();
        let record = Record::load(&mut store).unwrap();
        assert!(record.deployment.is_none());
        record.installed.provides.get(key).cloned()
    }

    fn slot_b(&self) -> Vec<u8> {
        self.0.live(slot_device(Slot::B))
    }

    /// Refused with these words, with nothing armed and the running slot as it was; what the other slot holds then.
    #[track_caller]
    fn refuses(&self, artifact: Vec<u8>, words: &str) -> Vec<u8> {
        let running = self.0.live(slot_device(Slot::A));
        let summary = self.install(artifact);
        let error = summary.error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{error:?}, not {words:?}");
        assert_eq!(summary.status, Status::NotModified);
        assert_eq!(selected(&self.0, Machine::UBoot), Ok((Slot::A, false)));
        assert!(self.0.live(slot_device(Slot::A)) == running);
        self.slot_b()
    }
}

/// Refused, and not a byte of the other slot has changed.
#[track_caller]
fn refused_untouched(artifact: Vec<u8>, words: &str) {
    let board = Board::new();
    assert!(board.refuses(artifact, words).iter().all(|byte| *byte == 0x55), "the slot was written");
    assert!(board.provides(CHECKSUM).is_some());
}

#[test]
fn a_delta_makes_the_new_image_of_the_one_that_runs() {
    for compression in [Compression::Zstd, Compression::Xz] {
        let board = Board::new();
        let summary = board.install(deltas::artifact("new", &old(), &new(), &Making::small(compression)));
        assert!(summary.success, "{:?}", summary.error);
        assert!(board.slot_b().starts_with(&new()));
        assert!(board.slot_b()[new().len()..].iter().all(|byte| *byte == 0x55));
        assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::B, true)));
    }
}

#[test]
fn a_running_slot_that_differs_by_a_block_is_named_and_its_digest_taken_back() {
    let artifact = whole(&made());
    for block in 0..40 {
        let board = Board::new();
        let mut device = board.0.open(slot_device(Slot::A));
        let mut changed = old()[block * BLOCK..(block + 1) * BLOCK].to_vec();
        changed[9] ^= 1;
        client_core::storage::BlockDevice::write_at(&mut device, (block * BLOCK) as u64, &changed).unwrap();
        client_core::storage::BlockDevice::sync(&mut device).unwrap();
        drop(device);
        let summary = board.install(artifact.clone());
        if summary.success {
            // Nothing of the delta builds on that block.
            assert!(board.slot_b().starts_with(&new()), "{block}");
            continue;
        }
        let error = summary.error.unwrap().to_string();
        assert!(error.contains("the running slot A is not what the delta was made from"), "{error}");
        assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::A, false)));
        assert_eq!(board.provides(CHECKSUM), None, "{block}");
        assert_eq!(board.provides("rootfs-image.version").as_deref(), Some("old"));
        // What was written is the new image as far as it was proved, and nothing else.
        let slot = board.slot_b();
        let written = slot.iter().zip(&new()).take_while(|(slot, new)| slot == new).count();
        assert!(slot[written.next_multiple_of(BLOCK)..].iter().all(|byte| *byte == 0x55), "{block}");
        // The next delta is not even begun: it depends on what is no longer provided.
        board.refuses(artifact.clone(), "missing 'rootfs-image.checksum' in provides");
    }
}

#[test]
fn a_header_that_says_nothing_or_something_else_is_refused_before_the_slot_is_touched() {
    let made = made();
    let with = |edit: fn(&mut Signed)| {
        let mut signed = made.signed;
        edit(&mut signed);
        let mut spec = deltas::spec("new", &signed);
        // It has to arrive at the handler all the same.
        spec.depends.clear();
        deltas::around(&spec, made.file())
    };
    let said = "the delta and its signed header do not agree about";
    refused_untouched(
        with(|signed| signed.memory_bytes = 7 << 20),
        "the delta needs 7340032 bytes of memory",
    );
    refused_untouched(with(|signed| signed.memory_bytes -= 1), said);
    refused_untouched(with(|signed| signed.transfer_bytes += 1), said);
    refused_untouched(with(|signed| signed.target.bytes -= 1), said);
    refused_untouched(with(|signed| signed.target.sha256 = artifact::Sha256::of(b"x")), said);
    refused_untouched(with(|signed| signed.source.sha256 = artifact::Sha256::of(b"x")), said);
    refused_untouched(with(|signed| signed.source.bytes = 1 << 40), "has 196608");
    let spec = |edit: fn(&mut ArtifactSpec)| {
        let mut spec = deltas::spec("new", &made.signed);
        edit(&mut spec);
        deltas::around(&spec, made.file())
    };
    use client_core::artifact::write::MetaData;
    use client_core::artifact::{Compression, CompressionLevel};
    refused_untouched(spec(|spec| spec.meta_data = MetaData::Absent), "says nothing about a delta");
    refused_untouched(
        spec(|spec| spec.meta_data = MetaData::Json("{\"rust_ota\":{\"delta\":9}}".into())),
        "version",
    );
    let gzip = |spec: &mut ArtifactSpec| spec.compression = CompressionLevel::default_of(Compression::Gzip);
    refused_untouched(spec(gzip), "the data member of the artifact is compressed");
    refused_untouched(
        deltas::around(
            &deltas::spec("new", &made.signed),
            b"no delta at all, and long enough for one".to_vec(),
        ),
        "is no delta",
    );
    let large = deltas::make(&old(), &vec![1; SLOT_BYTES + 1], &Making::small(self::Compression::Zstd));
    refused_untouched(whole(&large), "larger than slot B");
}

#[test]
fn a_delta_that_is_cut_or_spoiled_anywhere_arms_nothing() {
    let made = made();
    let (file, new) = (made.file(), new());
    let mut spec = deltas::spec("new", &made.signed);
    spec.depends.clear();
    for at in (0..file.len()).step_by(file.len() / 60) {
        let mut spoiled = file.clone();
        spoiled[at] ^= 0x20;
        let cut = file[..at].to_vec();
        for file in [spoiled, cut] {
            let board = Board::new();
            let summary = board.install(deltas::around(&spec, file));
            assert!(!summary.success, "{at}");
            assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::A, false)));
            let slot = board.slot_b();
            let written = slot.iter().zip(&new).take_while(|(slot, new)| slot == new).count();
            assert!(slot[written.next_multiple_of(BLOCK)..].iter().all(|byte| *byte == 0x55), "{at}");
            // The running slot is what it was said to be: that stays known.
            assert!(board.provides(CHECKSUM).is_some(), "{at}");
        }
    }
}

#[test]
fn every_power_cut_of_an_update_by_delta_leaves_a_whole_system_and_a_true_record() {
    // What a bootloader makes of an image does not depend on how it came: one of each kind.
    let machines = [Machine::UBoot, Machine::GrubCached, Machine::OneShot];
    let endings = [Ending::Commit];
    let states = assert_arrival_holds(Arrives::AsDelta, machines, &endings, Mistake::None, |machine| {
        machine.limits(1)
    });
    println!("power-cut states of a delta with one cut: {states}");
}

#[test]
fn a_second_power_cut_during_a_delta_changes_nothing_about_that() {
    let budget = so_many(4_000);
    let machines = [Machine::UBoot, Machine::GrubCached];
    let states = assert_arrival_holds(Arrives::AsDelta, machines, &ENDINGS, Mistake::None, |machine| {
        machine.limits(2).budget(budget, budget / 20)
    });
    println!("power-cut states of a delta with two cuts: {states}");
}

#[test]
fn a_failing_operation_anywhere_in_a_delta_leaves_a_whole_system_and_a_true_record() {
    let cases = fail_arrival_everywhere(Arrives::AsDelta, Machine::UBoot);
    println!("failing operations in a delta: {cases} cases");
}

#[test]
fn writes_of_a_delta_that_are_lost_are_found() {
    assert_arrival_holds(Arrives::AsDelta, MACHINES, &[Ending::Commit], Mistake::LostSlotWrites, |machine| {
        machine.limits(0).budget(100, 0)
    });
    assert!(is_found_when(Arrives::AsDelta, Machine::UBoot, Mistake::NoSync("slot-b")));
}

/// An artifact at some place that breaks off after so many bytes, all its readers together.
struct BreaksOff {
    bytes: Arc<Vec<u8>>,
    left: Arc<AtomicUsize>,
}

impl Places for BreaksOff {
    fn open_at(&mut self, offset: u64, end: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let end = end.map_or(self.bytes.len(), |end| (end as usize).min(self.bytes.len()));
        let left = Arc::clone(&self.left);
        Ok(Box::new(Breaking { rest: Cursor::new(self.bytes[offset as usize..end].to_vec()), left }))
    }

    fn can_jump(&self) -> bool {
        true
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }
}

struct Breaking {
    rest: Cursor<Vec<u8>>,
    left: Arc<AtomicUsize>,
}

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let most = buffer.len().min(left).min(4096);
        let count = self.rest.read(&mut buffer[..most])?;
        self.left.fetch_sub(count, Ordering::Relaxed);
        Ok(count)
    }
}

/// Keeps what was saved, as the record would.
#[derive(Default)]
struct Kept {
    set: HandlerState,
    saved: HandlerState,
    /// Nothing can be saved; how often it was tried.
    fails: Option<u32>,
}

impl StateKeeper for Kept {
    fn set(&mut self, state: HandlerState) {
        self.set = state;
    }

    fn save(&mut self) -> Result<(), InstallError> {
        if let Some(times) = &mut self.fails {
            *times += 1;
            return Err(InstallError::StateNotKept { source: "the store is full".into() });
        }
        self.saved = self.set.clone();
        Ok(())
    }
}

/// A delta of which most is new, in groups of 64 KiB.
struct Large {
    old: Vec<u8>,
    new: Vec<u8>,
    artifact: Arc<Vec<u8>>,
}

impl Large {
    fn new() -> Large {
        let mut generator = Generator::new(5);
        let (old, mut new) = (old(), old());
        new.extend((0..600 << 7).flat_map(|_| generator.next_word().to_le_bytes()));
        let making = Making { group_segments: 1, ..Making::small(Compression::Zstd) };
        let made = deltas::make(&old, &new, &making);
        Large { artifact: Arc::new(whole(&made)), old, new }
    }

    fn board(&self) -> CrashWorld {
        let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
        world.add_device(slot_device(Slot::A), self.old.clone());
        world.add_device(slot_device(Slot::B), vec![0x55; self.new.len()]);
        Machine::UBoot.install(&world, Slot::A);
        world
    }

    /// One download that breaks off after `bytes`; what was transferred, and how it ended.
    fn download(
        &self,
        world: &CrashWorld,
        bytes: usize,
        kept: &mut Kept,
    ) -> (usize, Result<(), InstallError>) {
        let left = Arc::new(AtomicUsize::new(bytes));
        let places = Box::new(BreaksOff { bytes: Arc::clone(&self.artifact), left: Arc::clone(&left) });
        let mut limits = Limits::default();
        limits.reading = Reading::InTurn;
        let mut boot = Machine::UBoot.control(world, plainly(Slot::A));
        let mut slots = CrashSlots::new(world, Slot::A);
        let system = KnownSystem { running: Slot::A, device_type: "testbox".into() };
        let mut handler = RootfsImage::of_delta(&mut *boot, &mut slots, &system).unwrap();
        let ended = artifact::open_at_places(places, &Trust::DangerUnsigned, &limits)
            .map_err(InstallError::from)
            .and_then(|mut artifact| {
                let earlier = kept.saved.clone();
                handler.restore(earlier.clone());
                let current = Current { artifact_name: "old", artifact_group: None, device_type: "testbox" };
                let (header, payload) = (&artifact.header, &mut artifact.payload);
                let mut arriving = Arriving { header, current, payload, state: kept, earlier };
                handler.download(&mut arriving, &mut Notices::default())
            });
        (bytes - left.load(Ordering::Relaxed), ended)
    }
}

#[test]
fn a_download_of_a_delta_goes_on_at_the_last_group_that_is_durable() {
    let large = Large::new();
    let total = large.artifact.len();
    assert!(total > 600 << 10, "{total}");
    for step in 2..12 {
        let world = large.board();
        let mut kept = Kept::default();
        let mut transferred = 0;
        let mut cuts = 0;
        // Cut again and again, each time after a part of what is left.
        loop {
            let (bytes, ended) = large.download(&world, (64 << 10) + step * total / 12, &mut kept);
            transferred += bytes;
            match ended {
                Ok(()) => break,
                Err(InstallError::Artifact(ArtifactError::Source { .. })) => cuts += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(cuts < 30);
        }
        assert_eq!(world.durable(slot_device(Slot::B)), large.new);
        // For each cut: the 64 KiB that are asked for first, the head of the file, and the group that was cut.
        let most = total + cuts * ((64 << 10) + (70 << 10));
        assert!(transferred <= most, "{transferred} of {total} bytes with {cuts} cuts");
        println!("{transferred} of {total} bytes with {cuts} cuts");
    }
}

#[test]
fn a_journal_that_the_medium_does_not_bear_out_is_not_believed() {
    let large = Large::new();
    let half = large.artifact.len() / 2;
    let cut = || {
        let (world, mut kept) = (large.board(), Kept::default());
        assert!(large.download(&world, half, &mut kept).1.is_err());
        assert_ne!(kept.saved, HandlerState::default());
        (world, kept)
    };
    let from_the_start = |world: CrashWorld, mut kept: Kept| {
        let (transferred, ended) = large.download(&world, usize::MAX, &mut kept);
        ended.unwrap();
        assert_eq!(world.durable(slot_device(Slot::B)), large.new);
        assert!(transferred >= large.artifact.len(), "{transferred}");
    };
    let (world, kept) = cut();
    let mut device = world.open(slot_device(Slot::B));
    client_core::storage::BlockDevice::write_at(&mut device, 4096, &[1; 512]).unwrap();
    drop(device);
    from_the_start(world, kept);
    for odd in [r#"{"groups":99}"#, r#"{"groups":0}"#, r#"{"groups":-1}"#, r#"{"else":1}"#] {
        let (world, mut kept) = cut();
        kept.saved = serde_json::from_str(odd).unwrap();
        from_the_start(world, kept);
    }
}

#[test]
fn a_delta_whose_progress_cannot_be_noted_is_installed_all_the_same() {
    let large = Large::new();
    let (world, mut kept) = (large.board(), Kept { fails: Some(0), ..Kept::default() });
    large.download(&world, usize::MAX, &mut kept).1.unwrap();
    assert_eq!(world.durable(slot_device(Slot::B)), large.new);
    assert_eq!(kept.fails, Some(1), "it is not tried again and again");
}
