//! What devices go through, one file for each.

mod falls_back_from_a_client_that_does_not_come_up;
mod falls_back_from_a_failing_health_check;
mod falls_back_from_a_kernel_that_panics;
mod falls_back_from_a_root_file_system_that_is_garbage;
mod refuses_a_corrupted_artifact;
mod refuses_a_foreign_artifact;
mod refuses_an_unsigned_artifact;
mod resumes_a_download_across_a_reset_connection;
mod runs_an_update_module_on_the_real_root;
mod survives_the_plug_being_pulled_at_any_point;
mod takes_an_update_over_the_air_and_commits;
mod takes_the_update_after_a_reset_in_its_download;
mod takes_twenty_updates_in_a_row;
mod updates_256_mib_with_48_mib_of_memory;
mod updates_with_a_clock_at_1970;
mod updates_with_a_full_data_partition;
mod writes_nothing_to_the_environment_of_a_committed_system;

use crate::Outcome;
use crate::device::{Device, Make, Running, Tally};
use crate::rootfs::{Fault, System};
use crate::runner::Scene;

/// One of them.
pub struct Scenario {
    /// A sentence.
    pub name: &'static str,
    /// Where it runs on every change.
    pub boards: &'static [&'static str],
    /// Where it runs as well with `--all`, or when it is named.
    pub more_boards: &'static [&'static str],
    /// In how many parts it is run, side by side.
    pub parts: u64,
    /// It.
    pub run: fn(&Scene) -> Outcome<Tally>,
}

/// One board of each bootloader: the one with two copies of the environment.
const ONE_EACH: &[&str] = &["grub-x86_64", "uboot-aarch64-fat"];
/// The others, for which two scenarios are enough on every change.
const OTHERS: &[&str] = &["uboot-x86_64", "uboot-aarch64", "uboot-aarch64-nor", "uboot-armv7"];
/// All of them but the one with a processor that no other board has: its client would be built on every change.
const EVERYWHERE: &[&str] =
    &["grub-x86_64", "uboot-x86_64", "uboot-aarch64", "uboot-aarch64-fat", "uboot-aarch64-nor"];

/// In the order in which they are begun: what takes long comes last.
pub const ALL: &[Scenario] = &[
    takes_an_update_over_the_air_and_commits::SCENARIO,
    falls_back_from_a_kernel_that_panics::SCENARIO,
    falls_back_from_a_client_that_does_not_come_up::SCENARIO,
    falls_back_from_a_failing_health_check::SCENARIO,
    falls_back_from_a_root_file_system_that_is_garbage::SCENARIO,
    refuses_a_corrupted_artifact::SCENARIO,
    refuses_a_foreign_artifact::SCENARIO,
    refuses_an_unsigned_artifact::SCENARIO,
    resumes_a_download_across_a_reset_connection::SCENARIO,
    runs_an_update_module_on_the_real_root::SCENARIO,
    takes_the_update_after_a_reset_in_its_download::SCENARIO,
    updates_with_a_clock_at_1970::SCENARIO,
    updates_with_a_full_data_partition::SCENARIO,
    writes_nothing_to_the_environment_of_a_committed_system::SCENARIO,
    survives_the_plug_being_pulled_at_any_point::SCENARIO,
    updates_256_mib_with_48_mib_of_memory::SCENARIO,
    takes_twenty_updates_in_a_row::SCENARIO,
];

/// A device with 1.0 in slot A gets `system`, which must not stay: the server hears of a failure, with a log, and the
/// device runs 1.0 from slot A and takes the next update.
fn falls_back(scene: &Scene, device: &mut Device, deployment: &str, boots: u32) -> Outcome {
    let (end, mut machine, running) = device.finish(deployment, boots)?;
    expect("the end on the server", &end, "failure")?;
    expect_running(&running, "a", "1.0")?;
    let log = device.log_of(&mut machine, deployment)?;
    machine.kill();
    // It was tried, and did not fail before.
    device.expect_trial()?;
    device.expect_whole(&running)?;
    if log.trim().is_empty() {
        return Err("no log came with the failure".into());
    }
    takes_another(scene, device)
}

/// The device takes an update and runs it: it is as good as before.
fn takes_another(_scene: &Scene, device: &mut Device) -> Outcome {
    let next = System::new("2.0");
    let deployment = device.deploy(&next)?;
    let (end, machine, running) = device.finish(&deployment, 3)?;
    machine.kill();
    expect("the end of the next update", &end, "success")?;
    expect("the version after it", &running.version, "2.0")
}

/// A device whose update is faulty.
fn falls_back_from(scene: &Scene, fault: Fault) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let deployment = device.deploy(&System::with("1.1-bad", fault))?;
    falls_back(scene, &mut device, &deployment, 6)?;
    Ok(device.tally)
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

/// Orders an artifact that must not be taken: it fails, nothing is armed, and the running system goes on. `because` is in
/// the log that the server gets.
fn refuses(device: &mut Device, deployment: &str, because: &str) -> Outcome {
    let before = device.environment()?;
    let (end, mut machine, running) = device.finish(deployment, 1)?;
    expect("the end on the server", &end, "failure")?;
    expect_running(&running, "a", "1.0")?;
    let log = device.log_of(&mut machine, deployment)?;
    machine.kill();
    if !log.contains(because) {
        return Err(format!("the log does not say {because:?}: {log}"));
    }
    if device.environment()? != before {
        return Err("the boot environment was written".into());
    }
    Ok(())
}
