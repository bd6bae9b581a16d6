//! The power goes in the middle of a download. The server offers the update again, what is in the slot already is not
//! written again, and the update succeeds.

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{Make, Tally, UPDATE};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "takes_the_update_after_a_reset_in_its_download",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

/// More than the system itself writes before the download is well on its way.
const WRITTEN: u64 = 8 * 1024 * 1024;

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let deployment = device.deploy(&System::new("2.0"))?;
    let mut machine = device.start_recorded()?;
    let slots = device.disks().len() - 1;
    let record = device.record(slots);
    let there = machine.until("the download does not get far", UPDATE, |_lines| {
        let bytes = std::fs::metadata(&record).map_or(0, |file| file.len());
        (bytes >= WRITTEN).then_some(())
    })?;
    there.ok_or("the machine ended before the download got far")?;
    let mut random = testkit::choice::Generator::new(scene.seed);
    device.cut_power(machine, &mut random)?;
    expect("the status in the middle", &device.fleet.status(&deployment).unwrap_or_default(), "downloading")?;

    let mut machine = device.start()?;
    let line = device.expect(&mut machine, "equal already")?;
    let equal = line.split(" written, ").nth(1).and_then(|rest| rest.split(' ').next());
    let equal: u64 = equal.and_then(|number| number.parse().ok()).ok_or_else(|| format!("{line:?}"))?;
    if equal < WRITTEN / 2 {
        return Err(format!("what was in the slot was written again: {line}"));
    }
    let (end, machine, running) = device.finish_on(machine, &deployment, 1)?;
    machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;
    Ok(device.tally)
}
