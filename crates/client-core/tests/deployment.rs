//! A whole update of a device with disks under power cuts and failing devices: the properties, each for every machine.

// Helpers outside of test functions: a failure in one is a failure of the test.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use crate::machine::{MACHINES, Machine};
use crate::whole_update::{Command, ENDINGS, Ending, Mistake, assert_holds, fail_everywhere, is_found};
use testkit::choice::so_many;

fn all_machines() -> impl Iterator<Item = Machine> {
    MACHINES.into_iter().chain([Machine::UBootStockCached, Machine::GrubStockCached, Machine::OneShot])
}

#[test]
fn every_single_power_cut_leaves_a_whole_system_and_a_true_record() {
    let states = assert_holds(all_machines(), &ENDINGS, Mistake::None, |machine| machine.limits(1));
    println!("power-cut states with one cut: {states}");
}

#[test]
fn a_second_power_cut_during_the_recovery_changes_nothing_about_that() {
    let budget = so_many(8_000);
    let states = assert_holds(all_machines(), &ENDINGS, Mistake::None, |machine| {
        machine.limits(2).budget(budget, budget / 20)
    });
    println!("power-cut states with two cuts: {states}");
}

#[test]
fn a_device_that_is_never_synced_is_found() {
    for device in ["slot-b", "env", "record"] {
        assert!(is_found(Machine::UBoot, Mistake::NoSync(device)), "{device}");
    }
    // Not the second copy: the first one is what GRUB reads, and what repairs the other.
    assert!(is_found(Machine::Grub, Mistake::NoSync("env1")));
}

/// The other syncs of a successful update are flushes before something is trusted, which matter with a bootloader that
/// leaves its writes in a cache (`boot_environment.rs` holds those), and the ones of one GRUB copy, which the other copy
/// makes good.
#[test]
fn leaving_out_a_sync_is_found() {
    for (machine, device, syncs) in [
        (Machine::UBoot, "slot-b", vec![1]),
        (Machine::UBoot, "env", vec![2, 5]),
        (Machine::UBoot, "record", vec![2, 3, 6, 7, 8]),
        (Machine::Grub, "env1", vec![2]),
    ] {
        for nth in syncs {
            assert!(is_found(machine, Mistake::LostSync(device, nth)), "{machine:?} {device} {nth}");
        }
    }
}

/// Install: download, install, arm, wait. Finish: commit, environment, committed, end. Arming and the record that says
/// that arming is done may change places: between them the environment decides. The last step has nothing behind it.
#[test]
fn swapping_two_durable_steps_is_found() {
    for machine in [Machine::UBoot, Machine::Grub] {
        for (command, steps) in [(Command::Install, vec![1, 2]), (Command::Finish, vec![1, 2, 3, 4])] {
            for step in steps {
                assert!(is_found(machine, Mistake::Swap(command, step)), "{machine:?} {command:?} {step}");
            }
        }
    }
}

#[test]
fn a_failing_operation_anywhere_leaves_a_whole_system_and_a_true_record() {
    let cases: u64 = [Machine::UBoot, Machine::Grub].into_iter().map(fail_everywhere).sum();
    println!("failing operations: {cases} cases");
}

#[test]
fn lost_slot_writes_are_found_by_reading_back() {
    assert_holds(all_machines(), &[Ending::Commit], Mistake::LostSlotWrites, |machine| {
        machine.limits(0).budget(100, 0)
    });
}
