//! The power goes at a point of a whole update, which was written down: firmware, bootloader, download, installation, restart,
//! trial and commit. Half of the points are where the boot environment is written, the others are spread over all that the
//! disks are told. What was not flushed is there in part. Then the device is turned on: it comes up, old or new, tells the
//! server the truth, and takes the update.

use std::collections::BTreeSet;

use testkit::choice::Generator;

use super::{GRUB_UEFI, ONE_EACH, OTHERS, Scenario, expect};
use crate::Outcome;
use crate::device::{Device, Make, Tally};
use crate::power::{self, Cut};
use crate::rootfs::System;
use crate::runner::Scene;
use crate::trace::{Point, Trace};

pub const SCENARIO: Scenario = Scenario {
    name: "survives_the_plug_being_pulled_at_any_point",
    boards: &[ONE_EACH[0], ONE_EACH[1], GRUB_UEFI],
    more_boards: OTHERS,
    // Each part writes down an update of its own.
    parts: |cuts| cuts.div_ceil(10).max(1),
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let (part, parts) = scene.part;
    let share = |part: u64| part * scene.cuts / parts;
    let count = usize::try_from(share(part + 1) - share(part)).unwrap_or(0);
    let mut random = Generator::new(scene.seed_of_part());
    let mut device = scene.device(&Make::new())?;
    let deployment = device.deploy(&System::new("2.0"))?;
    let trace = device.record_update(&deployment)?;
    if trace.points_at_environment().is_empty() {
        return Err("the update never wrote to the boot environment".into());
    }
    let mut states = BTreeSet::new();
    for point in trace.choose(count, &mut random) {
        let cut = device.cut_at(&trace, &point, &mut random)?;
        states.insert(power::hash(&[point.run as u64, point.stretch as u64, cut.state]));
        survives(&mut device, &deployment, &cut).map_err(|error| point.because(&error))?;
    }
    // Where little is at risk they may all have lost nothing, and were no power cuts: then one more, that does.
    if device.tally.lost == 0 {
        let (point, cut) = lose_something(&mut device, &trace, &mut random)?;
        states.insert(power::hash(&[point.run as u64, point.stretch as u64, cut.state]));
        survives(&mut device, &deployment, &cut).map_err(|error| point.because(&error))?;
    }
    device.tally.states += states.len() as u64;
    if part == 0 {
        // A disk that loses what it promised to keep cannot be survived: this has to be noticed.
        device.lose_slot_b(&trace)?;
        // None of those that are counted.
        device.tally.cuts -= 1;
        match survives(&mut device, &deployment, &Cut::default()) {
            Err(error) if error.contains("was told \"success\" and \"1.0\" runs") => {}
            Err(error) => return Err(format!("a disk that lies was noticed, but not why: {error}")),
            Ok(()) => return Err("a disk that lost the committed system was not noticed".into()),
        }
    }
    Ok(device.tally)
}

/// Looks for a point where the environment is written, and something is lost when the power goes.
fn lose_something(device: &mut Device, trace: &Trace, random: &mut Generator) -> Outcome<(Point, Cut)> {
    for point in trace.points_at_environment() {
        let cut = device.cut_at(trace, &point, random)?;
        if cut.lost > 0 {
            return Ok((point, cut));
        }
        device.tally.cuts -= 1;
    }
    Err("nothing is ever lost where the environment is written: these are no power cuts".into())
}

fn survives(device: &mut Device, deployment: &str, cut: &Cut) -> Outcome {
    let told = device.fleet.status(deployment).unwrap_or_default();
    let context =
        |error: String| format!("{} of {} writes at risk lost, {told:?}: {error}", cut.lost, cut.at_risk);

    // It comes up whole, old or new, and comes to an end that is true. The boot of a trial may have been counted before the
    // cut: then the next one falls back, without a system that comes up in between.
    let (end, machine, running) = device.finish(deployment, 5).map_err(context)?;
    match (end.as_str(), running.version.as_str()) {
        ("success", "2.0") => device.expect_whole(&running).map_err(context),
        // A trial that was cut short has failed; the next order has to succeed.
        ("failure", "1.0") => {
            device.expect_whole(&running).map_err(context)?;
            let again = device.fleet.order("2.0")?;
            let (end, _machine, running) = device.finish_on(machine, &again, 3)?;
            expect("the end of the second order", &end, "success").map_err(context)?;
            expect("the version after it", &running.version, "2.0").map_err(context)
        }
        (end, version) => Err(context(format!("the server was told {end:?} and {version:?} runs"))),
    }
}
