//! A whole update of a device with flash under power cuts and failing devices: the environment in erase blocks of NOR and
//! NAND flash and in UBI volumes, the slots in UBI volumes. The properties are those of `deployment.rs`, each for every
//! board.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use crate::machine::flash::FlashBoard;
use crate::machine::{ENV_BYTES, Machine};
use crate::whole_update::{Command, ENDINGS, Ending, Mistake, assert_holds, fail_everywhere, is_found};
use testkit::choice::so_many;
use testkit::conformance::boot::Suite;
use testkit::storage::FlashGeometry;

/// An erase block for each copy, with nothing else in it.
const NOR: FlashBoard = FlashBoard::raw("NOR", FlashGeometry::nor(ENV_BYTES));
/// Erase blocks that hold more than a copy.
const NOR_ROOMY: FlashBoard = FlashBoard::raw("NOR, roomy blocks", FlashGeometry::nor(4 * ENV_BYTES));
/// A copy goes over two erase blocks.
const NOR_SMALL: FlashBoard = FlashBoard::raw("NOR, two blocks a copy", FlashGeometry::nor(ENV_BYTES / 2));
const NAND: FlashBoard = FlashBoard::raw("NAND", FlashGeometry::nand(2 * ENV_BYTES));
const VOLUMES: FlashBoard = FlashBoard::volumes("UBI");

const BOARDS: [Machine; 9] = [
    Machine::Flash(NOR),
    Machine::Flash(FlashBoard { name: "NOR, second copy", ..NOR.second_copy_active() }),
    Machine::Flash(FlashBoard { name: "NOR, cached", ..NOR.cached() }),
    Machine::Flash(FlashBoard { name: "NOR, stock, cached", ..NOR.stock().cached() }),
    Machine::Flash(NOR_ROOMY),
    Machine::Flash(NOR_SMALL),
    Machine::Flash(FlashBoard { name: "NAND, second copy", ..NAND.second_copy_active() }),
    Machine::Flash(NAND),
    Machine::Flash(VOLUMES),
];

#[test]
fn the_boot_control_over_flash_survives_two_power_cuts() {
    for machine in BOARDS {
        println!("{machine:?}");
        Suite::new(machine).check(&machine.limits(2)).assert_holds();
    }
}

#[test]
fn every_single_power_cut_leaves_a_whole_system_and_a_true_record() {
    let states = assert_holds(BOARDS, &ENDINGS, Mistake::None, |machine| machine.limits(1));
    println!("power-cut states on flash with one cut: {states}");
}

#[test]
fn a_second_power_cut_during_the_recovery_changes_nothing_about_that() {
    let budget = so_many(1_000);
    let states = assert_holds(BOARDS, &ENDINGS, Mistake::None, |machine| {
        machine.limits(2).budget(budget, budget / 20)
    });
    println!("power-cut states on flash with two cuts: {states}");
}

#[test]
fn a_failing_operation_anywhere_leaves_a_whole_system_and_a_true_record() {
    let boards = [NOR, NAND, VOLUMES].map(Machine::Flash);
    let cases: u64 = boards.into_iter().map(fail_everywhere).sum();
    println!("failing operations on flash: {cases} cases");
}

#[test]
fn an_update_of_a_volume_that_loses_its_data_is_never_armed() {
    assert_holds([Machine::Flash(VOLUMES)], &[Ending::Commit], Mistake::LostSlotWrites, |machine| {
        machine.limits(0).budget(100, 0)
    });
}

#[test]
fn a_device_that_is_never_synced_is_found() {
    for board in [NOR, NAND, VOLUMES] {
        for device in ["slot-b", "env", "record"] {
            assert!(is_found(Machine::Flash(board), Mistake::NoSync(device)), "{board:?} {device}");
        }
    }
}

#[test]
fn swapping_two_durable_steps_is_found() {
    for board in [NOR, VOLUMES] {
        for (command, steps) in [(Command::Install, vec![1, 2]), (Command::Finish, vec![1, 2, 3, 4])] {
            for step in steps {
                let machine = Machine::Flash(board);
                assert!(is_found(machine, Mistake::Swap(command, step)), "{board:?} {command:?} {step}");
            }
        }
    }
}

#[test]
fn marking_the_old_copy_before_the_new_one_is_there_is_found() {
    // Where the first copy counts it goes on counting until it is overwritten, and nothing comes of it.
    assert!(is_found(Machine::Flash(NOR.second_copy_active().marking_first()), Mistake::None));
}

#[test]
fn two_copies_in_one_erase_block_are_found() {
    for board in [NOR_ROOMY, NAND] {
        assert!(is_found(Machine::Flash(board.in_one_block()), Mistake::None), "{board:?}");
    }
}
