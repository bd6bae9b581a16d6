//! The power goes at a point of a whole update, spread over all that the disks are told in it: firmware, bootloader,
//! download, installation, restart, trial and commit. What was not flushed is there in part. Then the device is turned on:
//! it comes up, old or new, tells the server the truth, and takes the update.

use testkit::choice::Generator;

use super::{ONE_EACH, OTHERS, Scenario, expect};
use crate::Outcome;
use crate::device::{Device, Make, Tally, UPDATE};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "survives_the_plug_being_pulled_at_any_point",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: 4,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let (part, parts) = scene.part;
    // One whole update tells how many writes and flushes there are, from power on to the end on the server.
    let mut device = scene.device_in("whole", &Make::new())?;
    let all = whole_update(&mut device)?;
    let mut tally = device.tally;
    drop(device);
    for number in (0..scene.cuts).filter(|number| number % parts == part) {
        let mut random = Generator::new(scene.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number));
        // One point in each of as many stretches of the same length as there are cuts.
        let stretch = (all / scene.cuts).max(1);
        let point = number * all / scene.cuts + random.next_word() % stretch;
        let point = point.max(1);
        let mut device = scene.device_in(&format!("cut-{number:03}"), &Make::new())?;
        let result = survives(&mut device, point, &mut random);
        tally += device.tally;
        result.map_err(|error| format!("cut {number} at {point} of {all} writes and flushes: {error}"))?;
        device.clean_up()?;
    }
    // Else these were no power cuts.
    if scene.cuts >= parts && tally.lost == 0 {
        return Err(format!("nothing was lost in {} cuts", tally.cuts));
    }
    Ok(tally)
}

/// Runs an update and counts what its disks were told.
fn whole_update(device: &mut Device) -> Outcome<u64> {
    let deployment = device.deploy(&System::new("2.0"))?;
    let mut all = 0;
    for _boot in 0..2 {
        let mut machine = device.start_recorded()?;
        let end = device.finish_with(&mut machine, &deployment)?;
        machine.kill();
        all += device.recorded();
        if let Some(end) = end {
            expect("the end of the whole update", &end, "success")?;
            return Ok(all);
        }
    }
    Err("the whole update took more than two boots".into())
}

fn survives(device: &mut Device, point: u64, random: &mut Generator) -> Outcome {
    let deployment = device.deploy(&System::new("2.0"))?;
    let mut before = 0;
    // As long as it takes to get there: the second run begins with the restart into the trial.
    let cut = loop {
        let mut machine = device.start_recorded()?;
        let there = machine.until("the point of the cut was not reached", UPDATE, |_lines| {
            let there = before + device.recorded() >= point;
            (there || device.fleet.outcome(&deployment).is_some()).then_some(())
        })?;
        if there.is_some() {
            break device.cut_power(machine, random)?;
        }
        before += device.recorded();
    };
    let told = device.fleet.status(&deployment).unwrap_or_default();
    let context =
        |error: String| format!("{} of {} writes at risk lost, {told:?}: {error}", cut.lost, cut.at_risk);

    // It comes up whole, old or new, and comes to an end that is true. The boot of a trial may have been counted before the
    // cut: then the next one falls back, without a system that comes up in between.
    let (end, machine, running) = device.finish(&deployment, 5).map_err(context)?;
    machine.kill();
    match (end.as_str(), running.version.as_str()) {
        ("success", "2.0") => device.expect_whole(&running).map_err(context),
        // A trial that was cut short has failed; the next order has to succeed.
        ("failure", "1.0") => {
            device.expect_whole(&running).map_err(context)?;
            let again = device.fleet.order("2.0")?;
            let (end, machine, running) = device.finish(&again, 4)?;
            machine.kill();
            expect("the end of the second order", &end, "success").map_err(context)?;
            expect("the version after it", &running.version, "2.0").map_err(context)
        }
        (end, version) => Err(context(format!("the server was told {end:?} and {version:?} runs"))),
    }
}
