//! The main job: from the server into the other slot, on trial, committed; and the way back, to the first slot.

use super::{EVERYWHERE, Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{BOOT, Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "takes_an_update_over_the_air_and_commits",
    boards: EVERYWHERE,
    more_boards: &["uboot-armv7"],
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let (mut machine, _running) = device.come_up(1)?;
    for (version, slot) in [("2.0", "b"), ("3.0", "a")] {
        let deployment = device.deploy(&System::new(version))?;
        let (end, on, running) = device.finish_on(machine, &deployment, 1)?;
        machine = on;
        expect("the end on the server", &end, "success")?;
        expect_running(&running, slot, version)?;
        // The server knows the end a moment before the request that said so is among those that it has answered.
        let expected = ["downloading", "installing", "rebooting", "installing", "success"];
        let fleet = &device.fleet;
        let all = machine.until("it did not report every step", BOOT, |_lines| {
            Some(fleet.reported(&deployment)).filter(|reported| reported.len() >= expected.len())
        })?;
        expect("what was reported", &all.unwrap_or_default().join(" "), &expected.join(" "))?;
    }
    machine.kill();
    // Committed: it stays over a restart.
    let (machine, running) = device.come_up(1)?;
    machine.kill();
    expect_running(&running, "a", "3.0")?;
    Ok(device.tally)
}
