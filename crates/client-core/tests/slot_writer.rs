//! The writer of a slot with sources that are no payload file, and the digest that it has to come to.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use crate::machine::{IMAGE_BYTES, new_image, old_image};
use client_core::artifact::{self, Limits, Trust};
use client_core::install::{InstallError, Progress, SlotWriter, TargetDigest, WriteStatistics, WrittenImage};
use client_core::slot::{Slot, Slots};
use testkit::artifacts;
use testkit::choice::Choices;
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

#[test]
fn the_running_slot_opens_as_a_source_only() {
    let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
    world.add_device(slot_device(Slot::A), old_image());
    let mut slots = CrashSlots::new(&world, Slot::A);
    assert!(slots.open(Slot::A).is_err());
    let source = slots.open_source(Slot::A).unwrap();
    assert_eq!(source.len(), IMAGE_BYTES as u64);
}
