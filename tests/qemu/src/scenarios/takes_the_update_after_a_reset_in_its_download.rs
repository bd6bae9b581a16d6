//! The power goes in the middle of a download, with a part of the image written. The server offers the update again, and it
//! succeeds.

use testserver::{Action, Rule};

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::device::{Make, Tally, UPDATE};
use crate::rootfs::System;
use crate::runner::Scene;
use crate::{Outcome, read};

pub const SCENARIO: Scenario = Scenario {
    name: "takes_the_update_after_a_reset_in_its_download",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

/// More than the system itself writes, and less than what the client has written back of two thirds of the image.
const WRITTEN: u64 = 2 * 1024 * 1024;

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let system = System::new("2.0");
    let bytes = read(&device.artifact(&system)?)?.len() as u64;
    let deployment = device.deploy(&system)?;
    // The rest does not come: however fast the machine is, the power goes before the download is over.
    let stall = Action::Stall { after: bytes / 3 * 2, seconds: None };
    device.fleet.faults().set(vec![Rule::new(stall).method("GET").path("/download")]);
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

    let machine = device.start()?;
    let (end, machine, running) = device.finish_on(machine, &deployment, 1)?;
    machine.kill();
    if device.fleet.faults().hits() != [1] {
        return Err("the download was not held".into());
    }
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;
    Ok(device.tally)
}
