//! A board without a battery: every boot begins in 1970.

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "updates_with_a_clock_at_1970",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut make = Make::new();
    // The clock chip of a PC knows two digits of a year: the system sets it back.
    let set = "date -s '1970-01-01 00:00:30'; echo \"rota-test: the clock says $(date +%Y)\"\n";
    make.data.push(("before-client".to_owned(), set.as_bytes().to_vec()));
    let mut device = scene.device(&make)?;
    let deployment = device.deploy(&System::new("2.0"))?;
    let (end, machine, running) = device.finish(&deployment, 2)?;
    let heard = machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;
    if !heard.iter().any(|line| line.contains("the clock says 1970")) {
        return Err("the clock is not at 1970".into());
    }
    Ok(device.tally)
}
