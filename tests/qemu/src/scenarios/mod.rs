//! What devices go through, one file for each.

mod falls_back_from_a_client_an_application_and_a_slot_that_do_not_work;
mod falls_back_from_a_kernel_that_panics;
mod notices_a_bootloader_that_never_gives_a_trial_up;
mod refuses_what_is_corrupted_foreign_or_unsigned;
mod resumes_a_download_across_a_reset_connection;
mod runs_an_update_module_on_the_real_root;
mod survives_the_plug_being_pulled_at_any_point;
mod takes_an_update_over_the_air_and_commits;
mod takes_frames_and_a_delta_with_the_power_cut_in_their_downloads;
mod takes_the_update_after_a_reset_in_its_download;
mod takes_twenty_updates_in_a_row;
mod updates_256_mib_with_48_mib_of_memory;
mod updates_with_a_clock_at_1970;
mod updates_with_a_full_data_partition;
mod writes_nothing_to_the_environment_of_a_committed_system;

use crate::Outcome;
use crate::device::{Device, Running, Tally};
use crate::machine::Machine;
use crate::rootfs::System;
use crate::runner::Scene;

/// One of them.
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// Where it runs on every change.
    pub boards: &'static [&'static str],
    /// Where it runs as well with `--all`, or when it is named.
    pub more_boards: &'static [&'static str],
    /// In how many parts it is run, side by side, with so many power cuts.
    pub parts: fn(u64) -> u64,
    /// It.
    pub run: fn(&Scene) -> Outcome<Tally>,
}

/// The board with UEFI, which takes three times as long to start: one scenario of each kind on every change.
pub const GRUB_UEFI: &str = "grub-x86_64";
/// One board of each bootloader: the one with two copies of the environment that starts soonest.
const ONE_EACH: &[&str] = &["grub-bios-x86_64", "uboot-aarch64-fat"];
/// The others, for which two scenarios are enough on every change.
const OTHERS: &[&str] = &[GRUB_UEFI, "uboot-x86_64", "uboot-aarch64", "uboot-aarch64-nor", "uboot-armv7"];
/// All of them but the one with a processor that no other board has: its client would be built on every change.
const EVERYWHERE: &[&str] = &[
    "grub-bios-x86_64",
    GRUB_UEFI,
    "uboot-x86_64",
    "uboot-aarch64",
    "uboot-aarch64-fat",
    "uboot-aarch64-nor",
];

/// In the order in which they are begun: what shows most first, then what takes long, so that what is short fills the end.
pub const ALL: &[Scenario] = &[
    takes_an_update_over_the_air_and_commits::SCENARIO,
    falls_back_from_a_kernel_that_panics::SCENARIO,
    survives_the_plug_being_pulled_at_any_point::SCENARIO,
    updates_256_mib_with_48_mib_of_memory::SCENARIO,
    takes_twenty_updates_in_a_row::SCENARIO,
    falls_back_from_a_client_an_application_and_a_slot_that_do_not_work::SCENARIO,
    writes_nothing_to_the_environment_of_a_committed_system::SCENARIO,
    updates_with_a_full_data_partition::SCENARIO,
    takes_the_update_after_a_reset_in_its_download::SCENARIO,
    takes_frames_and_a_delta_with_the_power_cut_in_their_downloads::SCENARIO,
    refuses_what_is_corrupted_foreign_or_unsigned::SCENARIO,
    resumes_a_download_across_a_reset_connection::SCENARIO,
    runs_an_update_module_on_the_real_root::SCENARIO,
    updates_with_a_clock_at_1970::SCENARIO,
    notices_a_bootloader_that_never_gives_a_trial_up::SCENARIO,
];

/// How many scenarios there are for a board.
pub fn count_on(board: &str) -> usize {
    let runs_on =
        |scenario: &&Scenario| scenario.boards.contains(&board) || scenario.more_boards.contains(&board);
    ALL.iter().filter(runs_on).count()
}

/// What is told of a trial that left nothing behind.
const NOTHING_NOTED: &str = "its client did not come up, and nothing was noted";

/// A device with 1.0 in slot A gets an update that must not stay: the server hears of a failure, with the cause in its remark and
/// in a log, and the device runs 1.0 from slot A.
fn falls_back(
    device: &mut Device,
    machine: Machine,
    deployment: &str,
    boots: u32,
    cause: &str,
) -> Outcome<Machine> {
    let before = device.tally.boots;
    let (end, mut machine, running) = device.finish_on(machine, deployment, boots)?;
    expect("the end on the server", &end, "failure")?;
    expect_running(&running, "a", "1.0")?;
    let log = device.log_of(&mut machine, deployment)?;
    // It was tried, and did not fail before.
    device.expect_trial(before)?;
    device.expect_whole(&running)?;
    let remark = device.fleet.remark(deployment).unwrap_or_default();
    for (what, said) in [("log", &log), ("remark", &remark)] {
        if !said.contains(cause) {
            return Err(format!("the {what} does not say {cause:?}: {said}"));
        }
    }
    Ok(machine)
}

/// The device takes an update and runs it: it is as good as before.
fn takes_another(device: &mut Device, machine: Machine) -> Outcome {
    let deployment = device.deploy(&System::new("2.0"))?;
    let (end, machine, running) = device.finish_on(machine, &deployment, 1)?;
    machine.kill();
    expect("the end of the next update", &end, "success")?;
    expect("the version after it", &running.version, "2.0")
}

/// An error that names what was expected.
fn expect(what: &str, found: &str, expected: &str) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what} is {found:?}, not {expected:?}")) }
}

/// Slot and version.
fn expect_running(running: &Running, slot: &str, version: &str) -> Outcome {
    expect("the slot", &running.slot, slot)?;
    expect("the version", &running.version, version)
}
