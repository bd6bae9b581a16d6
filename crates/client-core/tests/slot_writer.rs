//! The writer of a slot with sources that are no payload file, and the digest that it has to come to.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use crate::machine::{IMAGE_BYTES, new_image, old_image};
use client_core::artifact::{self, Limits, Reading, Trust};
use client_core::install::{InstallError, Progress, SlotWriter, TargetDigest, WriteStatistics, WrittenImage};
use client_core::slot::{Slot, Slots};
use client_core::storage::{BlockDevice, PastCache, ReadAt};
use testkit::artifacts;
use testkit::choice::{Choices, Generator};
use testkit::device::{CrashSlots, slot_device};
use testkit::enumerator::Options;
use testkit::storage::{CrashWorld, Fault, Injection, Lasting, Operation};

struct Quiet;

impl Progress for Quiet {
    fn written(&mut self, _: u64, _: u64) {}
    fn verified(&mut self, _: u64, _: u64) {}
}

/// Of the image that an artifact with `image` names.
fn target(image: &[u8]) -> TargetDigest {
    let bytes = Cursor::new(artifacts::rootfs("new", image));
    let mut artifact = artifact::open(bytes, &Trust::DangerUnsigned, &Limits::default()).unwrap();
    let file = artifact.payload.next_file().unwrap().unwrap();
    TargetDigest::of(&file)
}

/// Writes `parts` to slot B of a device on which A runs with the old image, every part from a reader of its own.
fn write(parts: &[&[u8]], target: TargetDigest) -> Result<(WrittenImage, WriteStatistics), InstallError> {
    let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
    for slot in Slot::BOTH {
        world.add_device(slot_device(slot), old_image());
    }
    let mut slots = CrashSlots::new(&world, Slot::A);
    // As a difference to the running image would be read.
    let mut source = slots.open_source(Slot::A).unwrap();
    let mut device = slots.open(Slot::B).unwrap();
    let mut writer = SlotWriter::new(&mut *device, Slot::B, IMAGE_BYTES as u64)?;
    for part in parts {
        writer.copy_from(&mut Cursor::new(part), &mut Quiet)?;
    }
    let (written, statistics) = writer.finish(target, &mut Quiet)?;
    let mut running = vec![0; IMAGE_BYTES];
    source.read_at(0, &mut running).unwrap();
    assert_eq!(running, old_image());
    Ok((written.image().clone(), statistics))
}

#[test]
fn an_image_may_come_from_several_readers() {
    let image = new_image();
    let (written, statistics) = write(&[&image[..1000], &[], &image[1000..]], target(&image)).unwrap();
    assert_eq!((written.slot, written.size_bytes), (Slot::B, IMAGE_BYTES as u64));
    assert_eq!(statistics.total_bytes, IMAGE_BYTES as u64);
}

#[test]
fn what_is_not_the_target_is_not_written_whoever_made_it() {
    let (old, new) = (old_image(), new_image());
    assert!(matches!(write(&[&old], target(&new)), Err(InstallError::ReadBack { slot: Slot::B, .. })));
    assert!(matches!(
        write(&[&new[..1000]], target(&new)),
        Err(InstallError::Storage { doing: "complete", .. })
    ));
    assert!(matches!(write(&[&new, &[0]], target(&new)), Err(InstallError::SlotTooSmall { .. })));
}

/// A slot B of `content`, and what is on its medium.
fn slot_b(content: Vec<u8>) -> CrashWorld {
    let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
    world.add_device(slot_device(Slot::B), content);
    world
}

/// An image without a pattern that could hide a shift.
fn image_of(len: usize, seed: u64) -> Vec<u8> {
    let mut noise = Generator::new(seed);
    (0..len).map(|_| noise.next_word().to_le_bytes()[7]).collect()
}

#[test]
fn an_image_may_come_in_pieces_of_any_length() {
    let image = image_of(300 * 1024 - 512, 1);
    // What is there already, and is not written again: the first quarter.
    let mut old = image_of(300 * 1024, 2);
    old[..64 * 1024].copy_from_slice(&image[..64 * 1024]);
    for piece in [1000, 4096, 64 * 1024, 70_000, 1024 * 1024] {
        let world = slot_b(old.clone());
        let mut device = world.open(slot_device(Slot::B));
        let mut writer = SlotWriter::new(&mut device, Slot::B, image.len() as u64).unwrap();
        let mut taken = 0;
        for piece in image.chunks(piece) {
            writer.append(piece, &mut Quiet).unwrap();
            taken += piece.len() as u64;
            assert_eq!(writer.position(), taken);
        }
        assert!(writer.append(&[0], &mut Quiet).is_err());
        let (_, statistics) = writer.finish(target(&image), &mut Quiet).unwrap();
        assert_eq!(statistics.written_bytes + statistics.skipped_bytes, image.len() as u64);
        assert_eq!(statistics.skipped_bytes, 64 * 1024, "pieces of {piece}");
        assert_eq!(&world.durable(slot_device(Slot::B))[..image.len()], image);
    }
}

#[test]
fn what_was_made_durable_is_on_the_medium_and_a_later_process_goes_on_behind_it() {
    let image = image_of(200 * 1024 + 512, 1);
    let world = slot_b(image_of(256 * 1024, 2));
    let mut device = world.open(slot_device(Slot::B));
    let mut writer = SlotWriter::new(&mut device, Slot::B, image.len() as u64).unwrap();
    assert_eq!(writer.make_durable().unwrap(), 0);
    writer.append(&image[..100_000], &mut Quiet).unwrap();
    // Whole blocks only.
    let at = writer.make_durable().unwrap();
    assert_eq!(at, 100_000 / 4096 * 4096);
    let durable = |world: &CrashWorld| world.durable(slot_device(Slot::B));
    assert_eq!(durable(&world)[..at as usize], image[..at as usize]);
    drop(writer);

    let world = slot_b(durable(&world));
    let mut device = world.open(slot_device(Slot::B));
    let mut writer =
        SlotWriter::resume(&mut device, Slot::B, image.len() as u64, at, Reading::Ahead).unwrap();
    assert_eq!(writer.position(), at);
    writer.append(&image[at as usize..], &mut Quiet).unwrap();
    let (written, statistics) = writer.finish(target(&image), &mut Quiet).unwrap();
    assert_eq!(written.image().size_bytes, image.len() as u64);
    assert_eq!(statistics.written_bytes, image.len() as u64 - at);
    assert_eq!(&durable(&world)[..image.len()], image);
}

#[test]
fn what_lies_before_a_place_to_go_on_at_is_read_back_too() {
    let image = image_of(64 * 1024, 1);
    let world = slot_b(image_of(64 * 1024, 2));
    let mut device = world.open(slot_device(Slot::B));
    let mut writer =
        SlotWriter::resume(&mut device, Slot::B, image.len() as u64, 4096, Reading::Ahead).unwrap();
    writer.append(&image[4096..], &mut Quiet).unwrap();
    let refused = writer.finish(target(&image), &mut Quiet);
    assert!(matches!(refused, Err(InstallError::ReadBack { slot: Slot::B, .. })));
}

#[test]
fn nothing_goes_on_in_a_block_behind_the_image_or_in_a_volume() {
    let world = slot_b(vec![0; 64 * 1024]);
    world.add_volume("volume", vec![0; 64 * 1024]);
    let refused = |device: &str, at: u64| {
        let mut device = world.open(device);
        matches!(
            SlotWriter::resume(&mut device, Slot::B, 32 * 1024, at, Reading::Ahead),
            Err(InstallError::Storage { doing: "go on with", .. })
        )
    };
    for (device, at) in [("slot-b", 1000), ("slot-b", 36 * 1024), ("volume", 4096)] {
        assert!(refused(device, at), "{device} at {at}");
    }
    assert!(!refused("slot-b", 32 * 1024));
    // A volume is one update: nothing of it is durable before its end.
    let mut volume = world.open("volume");
    let mut writer = SlotWriter::new(&mut volume, Slot::B, 32 * 1024).unwrap();
    writer.append(&[1; 8192], &mut Quiet).unwrap();
    assert_eq!(writer.make_durable().unwrap(), 0);
}

#[test]
fn the_running_slot_opens_as_a_source_only() {
    let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
    world.add_device(slot_device(Slot::A), old_image());
    let mut slots = CrashSlots::new(&world, Slot::A);
    assert!(slots.open(Slot::A).is_err());
    let source = slots.open_source(Slot::A).unwrap();
    assert_eq!(source.len(), IMAGE_BYTES as u64);
}

/// How a device of memory can be read beside the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadBeside {
    Not,
    InTheSameThread,
    InAnyThread,
}

/// A device of memory that says it has more bytes than it has: what lies behind begins at the front again.
#[derive(Clone)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    len: u64,
    way: ReadBeside,
    /// The how many-th sync from now changes the byte at this place.
    spoils: Option<(u32, usize)>,
    reads: u64,
    /// The threads that read beside the writer.
    readers: Arc<Mutex<HashSet<ThreadId>>>,
}

impl Memory {
    fn new(bytes: Vec<u8>, len: u64, way: ReadBeside) -> Memory {
        Memory {
            bytes: Arc::new(Mutex::new(bytes)),
            len,
            way,
            spoils: None,
            reads: 0,
            readers: Arc::default(),
        }
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        let bytes = self.bytes.lock().unwrap();
        for (at, byte) in buf.iter_mut().enumerate() {
            *byte = bytes[(offset as usize + at) % bytes.len()];
        }
    }
}

impl ReadAt for Memory {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.readers.lock().unwrap().insert(std::thread::current().id());
        self.read(offset, buf);
        Ok(())
    }

    fn name(&self) -> &str {
        "memory"
    }
}

impl BlockDevice for Memory {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.reads += buf.len() as u64;
        self.read(offset, buf);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let len = bytes.len();
        data.iter().enumerate().for_each(|(at, byte)| bytes[(offset as usize + at) % len] = *byte);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some((nth, at)) = &mut self.spoils {
            *nth = nth.wrapping_sub(1);
            self.bytes.lock().unwrap()[*at] ^= u8::from(*nth == 0);
        }
        Ok(())
    }

    fn drop_cache(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn past_cache(&mut self) -> PastCache {
        match self.way {
            ReadBeside::Not => PastCache::No,
            ReadBeside::InTheSameThread => PastCache::Here(Box::new(self.clone())),
            ReadBeside::InAnyThread => PastCache::Anywhere(Box::new(self.clone())),
        }
    }

    fn name(&self) -> &str {
        "memory"
    }
}

const MIB: usize = 1024 * 1024;
const WAYS: [ReadBeside; 3] = [ReadBeside::Not, ReadBeside::InTheSameThread, ReadBeside::InAnyThread];

/// Writes `image` to a device of memory in windows of 1 MiB.
fn write_to(device: &mut Memory, image: &[u8]) -> Result<WriteStatistics, InstallError> {
    let mut writer = SlotWriter::new(device, Slot::B, image.len() as u64)?;
    for window in image.chunks(MIB) {
        writer.append(window, &mut Quiet)?;
        writer.make_durable()?;
    }
    Ok(writer.finish(target(image), &mut Quiet)?.1)
}

#[test]
fn what_the_medium_kept_is_proved_however_it_is_read() {
    let image = image_of(5 * MIB + 1000, 1);
    for way in WAYS {
        let mut device = Memory::new(vec![0; 6 * MIB], 6 * MIB as u64, way);
        let statistics = write_to(&mut device, &image).unwrap();
        assert_eq!(statistics.written_bytes, image.len() as u64, "{way:?}");
        assert_eq!(device.bytes.lock().unwrap()[..image.len()], image);
    }
}

#[test]
fn a_window_that_the_medium_did_not_keep_is_named() {
    let image = image_of(3 * MIB, 1);
    for way in WAYS {
        let mut device = Memory::new(vec![0; 3 * MIB], 3 * MIB as u64, way);
        device.spoils = Some((3, 2 * MIB + 77));
        let found = match write_to(&mut device, &image) {
            Err(InstallError::NotKept { slot: Slot::B, offset, len, .. }) => (offset, len),
            other => panic!("{way:?}: {other:?}"),
        };
        let expected = match way {
            ReadBeside::Not => (0, 3 * MIB as u64),
            ReadBeside::InTheSameThread | ReadBeside::InAnyThread => (2 * MIB as u64, MIB as u64),
        };
        assert_eq!(found, expected, "{way:?}");
    }
}

#[test]
fn a_medium_that_is_smaller_than_it_says_is_noticed_though_every_window_was_read_right() {
    let image = image_of(6 * MIB, 1);
    for way in WAYS {
        let mut device = Memory::new(vec![0; 4 * MIB], 8 * MIB as u64, way);
        let refused = write_to(&mut device, &image);
        // A thread may be behind, and read a window when it was overwritten already.
        let found = matches!(refused, Err(InstallError::NotKept { offset, .. })
            if offset == 0 || way == ReadBeside::InAnyThread);
        assert!(found, "{way:?}: {refused:?}");
    }
}

#[test]
fn a_writer_that_is_given_up_leaves_no_reader_behind() {
    let mut device = Memory::new(vec![0; 4 * MIB], 4 * MIB as u64, ReadBeside::InAnyThread);
    let mut writer = SlotWriter::new(&mut device, Slot::B, 4 * MIB as u64).unwrap();
    writer.append(&image_of(2 * MIB, 1), &mut Quiet).unwrap();
    writer.make_durable().unwrap();
    drop(writer);
    assert_eq!(Arc::strong_count(&device.bytes), 1);
}

#[test]
fn a_slot_in_which_nothing_matches_is_read_no_further_until_something_does() {
    let image = image_of(24 * MIB, 1);
    let mut old = image_of(24 * MIB, 2);
    // From here on all of it is there.
    old[20 * MIB..].copy_from_slice(&image[20 * MIB..]);
    let mut device = Memory::new(old, 24 * MIB as u64, ReadBeside::InTheSameThread);
    let statistics = write_to(&mut device, &image).unwrap();
    assert_eq!(statistics.skipped_bytes, 4 * MIB as u64);
    let looked = device.reads;
    assert!(looked < 13 * MIB as u64, "{looked} bytes of the slot were read to compare");
    // Another change of one byte: everything is compared, and all but its step is skipped.
    let mut device = Memory::new(image.clone(), 24 * MIB as u64, ReadBeside::InTheSameThread);
    device.bytes.lock().unwrap()[12 * MIB + 5] ^= 1;
    let statistics = write_to(&mut device, &image).unwrap();
    assert!(statistics.written_bytes <= 64 * 1024);
}

#[test]
fn what_lies_behind_the_image_is_discarded_where_the_device_is_set_up_for_it() {
    let image = image_of(8 * 1024, 1);
    for (discards, expected) in [(false, 0), (true, 8 * 1024)] {
        let world = slot_b(vec![7; 16 * 1024]);
        let mut device = world.open(slot_device(Slot::B));
        if discards {
            device = device.discarding();
        }
        let mut writer = SlotWriter::new(&mut device, Slot::B, image.len() as u64).unwrap();
        writer.append(&image, &mut Quiet).unwrap();
        let (_, statistics) = writer.finish(target(&image), &mut Quiet).unwrap();
        assert_eq!(statistics.discarded_bytes, expected);
        let content = world.durable(slot_device(Slot::B));
        assert_eq!(content[..image.len()], image);
        assert_eq!(content[image.len()..].iter().all(|&byte| byte == 7), !discards);
    }
}

#[test]
fn a_write_that_the_medium_lost_or_changed_is_found_past_the_cache() {
    for fault in [Fault::LostWrite, Fault::CorruptWrite] {
        let image = image_of(8 * 1024, 1);
        let world = slot_b(vec![7; 8 * 1024]);
        let (device, operation) = (Some(slot_device(Slot::B).to_owned()), Operation::Write);
        world.inject(Injection { device, operation, nth: 1, fault, lasting: Lasting::Once });
        let mut device = world.open(slot_device(Slot::B));
        let mut writer = SlotWriter::new(&mut device, Slot::B, image.len() as u64).unwrap();
        writer.append(&image, &mut Quiet).unwrap();
        let refused = writer.finish(target(&image), &mut Quiet);
        assert!(matches!(refused, Err(InstallError::NotKept { offset: 0, len: 8192, .. })), "{refused:?}");
    }
}

#[test]
fn a_process_that_wants_no_threads_gets_none_for_the_read_back() {
    let image = image_of(3 * MIB, 1);
    for reading in [Reading::Ahead, Reading::InTurn] {
        let mut device = Memory::new(vec![0; 3 * MIB], 3 * MIB as u64, ReadBeside::InAnyThread);
        let mut writer = SlotWriter::resume(&mut device, Slot::B, image.len() as u64, 0, reading).unwrap();
        writer.append(&image, &mut Quiet).unwrap();
        writer.finish(target(&image), &mut Quiet).unwrap();
        let readers = device.readers.lock().unwrap().clone();
        let here = HashSet::from([std::thread::current().id()]);
        assert_eq!((readers.len(), readers == here), (1, reading == Reading::InTurn), "{reading:?}");
    }
}
