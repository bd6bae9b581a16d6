//! The writer of a slot with sources that are no payload file, and the digest that it has to come to.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use crate::machine::{IMAGE_BYTES, new_image, old_image};
use client_core::artifact::{self, Limits, Trust};
use client_core::install::{InstallError, Progress, SlotWriter, TargetDigest, WriteStatistics, WrittenImage};
use client_core::slot::{Slot, Slots};
use testkit::artifacts;
use testkit::choice::{Choices, Generator};
use testkit::device::{CrashSlots, slot_device};
use testkit::enumerator::Options;
use testkit::storage::CrashWorld;

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
    let mut writer = SlotWriter::resume(&mut device, Slot::B, image.len() as u64, at).unwrap();
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
    let mut writer = SlotWriter::resume(&mut device, Slot::B, image.len() as u64, 4096).unwrap();
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
            SlotWriter::resume(&mut device, Slot::B, 32 * 1024, at),
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
