//! A binary delta of Mender's commercial plans on a device: what is refused and leaves everything as it was, and a whole
//! update under power cuts.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::Cursor;

use crate::machine::{MACHINES, Machine, RECORD_BYTES, plainly, selected};
use crate::whole_update::{Arrives, Ending, Mistake, assert_arrival_holds, client, fail_arrival_everywhere};
use client_core::artifact::write::{ArtifactSpec, MetaData};
use client_core::artifact::{self, Limits, Trust};
use client_core::deploy::record::Record;
use client_core::deploy::{self, Options as Order, Policy, Status, Summary};
use client_core::slot::Slot;
use client_core::state_store::TwoCopyRecord;
use testkit::choice::Choices;
use testkit::device::slot_device;
use testkit::enumerator::Options;
use testkit::storage::CrashWorld;
use testkit::{deltas, vcdiff};

const BLOCK: usize = 4096;
const SLOT_BYTES: usize = 32 * BLOCK;
const CHECKSUM: &str = "rootfs-image.checksum";

/// 24 blocks of which none is like another.
fn old() -> Vec<u8> {
    (0..24 * BLOCK / 4).flat_map(|at| (at as u32).wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// The same with blocks that were moved and changed, and an end that is no whole block.
fn new() -> Vec<u8> {
    let mut new = old();
    new.copy_within(10 * BLOCK..14 * BLOCK, 3 * BLOCK);
    new[8 * BLOCK + 7] ^= 1;
    new.extend_from_slice(&[9; 700]);
    new
}

fn artifact(checksums: bool, edit: impl FnOnce(&mut ArtifactSpec)) -> Vec<u8> {
    let mut spec = vcdiff::spec("new", &old(), &new());
    edit(&mut spec);
    deltas::around(&spec, vcdiff::make(&old(), &new(), checksums))
}

/// A device that runs the old image from slot A, knows its digest, and has something else in slot B.
struct Board(CrashWorld);

impl Board {
    fn new(running: &[u8]) -> Board {
        let world = CrashWorld::new(Choices::exhaustive(), Options::cuts(0).limits);
        let mut running = running.to_vec();
        running.resize(SLOT_BYTES, 0xee);
        world.add_device(slot_device(Slot::A), running);
        world.add_device(slot_device(Slot::B), vec![0x55; SLOT_BYTES]);
        Machine::UBoot.install(&world, Slot::A);
        world.add_device("record", vec![0; 2 * RECORD_BYTES]);
        let mut record = Record::new();
        record.installed.artifact_name = Some("old".into());
        record.installed.provides.insert(CHECKSUM.into(), artifact::Sha256::of(&old()).to_string());
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

    fn slot_b(&self) -> Vec<u8> {
        self.0.live(slot_device(Slot::B))
    }

    /// Refused with these words, with nothing armed.
    #[track_caller]
    fn refuses(&self, artifact: Vec<u8>, words: &str) {
        let summary = self.install(artifact);
        let error = summary.error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(words), "{error:?}, not {words:?}");
        assert_eq!(summary.status, Status::NotModified);
        assert_eq!(selected(&self.0, Machine::UBoot), Ok((Slot::A, false)));
    }

    fn knows_its_digest(&self) -> bool {
        let mut store = TwoCopyRecord::open(self.0.open("record")).unwrap();
        Record::load(&mut store).unwrap().installed.provides.contains_key(CHECKSUM)
    }
}

#[test]
fn a_delta_of_menders_makes_the_new_image_of_the_one_that_runs() {
    for checksums in [true, false] {
        let board = Board::new(&old());
        let summary = board.install(artifact(checksums, |_| {}));
        assert!(summary.success, "{:?}", summary.error);
        let slot = board.slot_b();
        assert!(slot.starts_with(&new()));
        assert!(
            slot[new().len()..].iter().all(|byte| *byte == 0x55),
            "something behind the image was written"
        );
        assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::B, true)));
    }
}

/// What `xdelta3` makes of the two images; `None` where it is not installed.
fn xdelta3(options: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("old"), old()).unwrap();
    std::fs::write(folder.path().join("new"), new()).unwrap();
    let mut command = std::process::Command::new("xdelta3");
    command.current_dir(folder.path()).arg("-e").args(options).args(["-s", "old", "new", "delta"]);
    assert!(command.status().ok()?.success());
    Some(std::fs::read(folder.path().join("delta")).unwrap())
}

#[test]
fn deltas_of_xdelta3_itself_make_the_new_image() {
    for options in [&["-S", "lzma"][..], &["-S", "djw", "-W", "16384"], &["-S", "none", "-n"], &["-9"]] {
        let Some(delta) = xdelta3(options) else { return println!("skipped: xdelta3 is not installed") };
        let board = Board::new(&old());
        let summary = board.install(deltas::around(&vcdiff::spec("new", &old(), &new()), delta));
        assert!(summary.success, "{options:?}: {:?}", summary.error);
        assert!(board.slot_b().starts_with(&new()), "{options:?}");
        assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::B, true)));
    }
}

#[test]
fn a_running_slot_that_was_changed_is_named_and_its_digest_taken_back() {
    let mut changed = old();
    changed[11 * BLOCK] ^= 1;
    // With checksums it is found in the window; without, when the slot was read back.
    for checksums in [true, false] {
        let board = Board::new(&changed);
        board.refuses(artifact(checksums, |_| {}), "the running slot A is not what the delta was made from");
        assert!(!board.knows_its_digest());
        board.refuses(artifact(checksums, |_| {}), "missing 'rootfs-image.checksum' in provides");
    }
    // A header that does not say how large the old image was leaves nothing to compare.
    let board = Board::new(&changed);
    let without = artifact(true, |spec| spec.meta_data = MetaData::Absent);
    board.refuses(without, "window 1 has another checksum than the delta says");
}

#[test]
fn a_header_that_says_something_else_is_refused_before_the_slot_is_touched() {
    let json = |text: &str| MetaData::Json(text.into());
    for (refused, words) in [
        (
            artifact(true, |spec| spec.meta_data = json(r#"{"delta_algorithm":"zdelta"}"#)),
            "the delta was made with \"zdelta\", which is not supported",
        ),
        (
            artifact(true, |spec| drop(spec.provides.remove(CHECKSUM))),
            "the header of the delta does not say which digest the new image has",
        ),
        (
            deltas::around(&vcdiff::spec("new", &old(), &new()), b"BSDIFF40 and so on".to_vec()),
            "it is no VCDIFF delta",
        ),
    ] {
        let board = Board::new(&old());
        board.refuses(refused, words);
        assert!(board.slot_b().iter().all(|byte| *byte == 0x55));
        assert!(board.knows_its_digest());
    }
}

#[test]
fn a_delta_that_makes_another_image_than_was_signed_arms_nothing() {
    let other = [new(), vec![1]].concat();
    let large = vec![7; SLOT_BYTES + 1];
    let spec = vcdiff::spec("new", &old(), &new());
    for (made, words) in [(other, "sha256"), (Vec::new(), "empty"), (large, "larger than slot B")] {
        let board = Board::new(&old());
        board.refuses(deltas::around(&spec, vcdiff::make(&old(), &made, true)), words);
        assert!(board.knows_its_digest(), "{words}");
    }
}

#[test]
fn a_delta_of_menders_that_is_cut_or_spoiled_anywhere_arms_nothing() {
    let spec = vcdiff::spec("new", &old(), &new());
    let file = vcdiff::make(&old(), &new(), true);
    for at in (0..file.len()).step_by(file.len() / 40) {
        let mut spoiled = file.clone();
        spoiled[at] ^= 0x20;
        for file in [spoiled, file[..at].to_vec()] {
            let board = Board::new(&old());
            assert!(!board.install(deltas::around(&spec, file)).success, "{at}");
            assert_eq!(selected(&board.0, Machine::UBoot), Ok((Slot::A, false)));
        }
    }
}

#[test]
fn every_power_cut_of_an_update_by_menders_delta_leaves_a_whole_system_and_a_true_record() {
    let machines = [Machine::UBoot, Machine::OneShot];
    let endings = [Ending::Commit];
    let states = assert_arrival_holds(Arrives::AsVcdiff, machines, &endings, Mistake::None, |machine| {
        machine.limits(1)
    });
    println!("power-cut states of Mender's delta with one cut: {states}");
}

#[test]
fn a_failing_operation_anywhere_in_menders_delta_leaves_a_whole_system_and_a_true_record() {
    let cases = fail_arrival_everywhere(Arrives::AsVcdiff, Machine::UBoot);
    println!("failing operations in Mender's delta: {cases} cases");
}

#[test]
fn writes_of_menders_delta_that_are_lost_are_found() {
    assert_arrival_holds(
        Arrives::AsVcdiff,
        MACHINES,
        &[Ending::Commit],
        Mistake::LostSlotWrites,
        |machine| machine.limits(0).budget(100, 0),
    );
}
