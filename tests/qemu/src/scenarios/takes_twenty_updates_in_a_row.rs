//! Twenty updates, slot after slot.

use super::{Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "takes_twenty_updates_in_a_row",
    boards: &["uboot-aarch64-fat"],
    more_boards: &[
        "grub-bios-x86_64",
        "grub-x86_64",
        "uboot-x86_64",
        "uboot-aarch64",
        "uboot-aarch64-nor",
        "uboot-armv7",
    ],
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let (mut machine, _running) = device.come_up(1)?;
    for number in 2..=21 {
        // Two systems and twenty names of artifacts: an image for each would cost more than it shows.
        let system = System::new(if number % 2 == 0 { "2.0" } else { "3.0" });
        let name = format!("update-{number}");
        let renamed = device.path("next.mender");
        let image = scene.kit.root(scene.board, &system)?;
        crate::fleet::rootfs_artifact(
            &name,
            &image,
            crate::rootfs::DEVICE_TYPE,
            Some(&scene.kit.keys.signer),
            &renamed,
        )?;
        let deployment = device.fleet.deploy(&renamed, &name)?;
        let (end, on, running) = device.finish_on(machine, &deployment, 1)?;
        machine = on;
        let slot = if number % 2 == 0 { "b" } else { "a" };
        expect("the end on the server", &end, "success")
            .map_err(|error| format!("update {number}: {error}"))?;
        expect_running(&running, slot, &system.version)
            .map_err(|error| format!("update {number}: {error}"))?;
    }
    machine.kill();
    Ok(device.tally)
}
