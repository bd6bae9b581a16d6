//! A system that was committed is turned off and on twenty times, six on every change, without being told before. Not a byte of the boot
//! environment changes, and neither bootloader nor client writes to the partition that it is on.

use super::{ONE_EACH, OTHERS, Scenario, expect};
use crate::Outcome;
use crate::device::{BOOT, Make, Tally};
use crate::machine::Seen;
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "writes_nothing_to_the_environment_of_a_committed_system",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let deployment = device.deploy(&System::new("2.0"))?;
    let (end, machine, _running) = device.finish(&deployment, 2)?;
    machine.kill();
    expect("the end on the server", &end, "success")?;
    // What the update wrote last may not have been on the disk yet.
    let (machine, running) = device.come_up(1)?;
    machine.kill();
    expect("the version", &running.version, "2.0")?;
    let before = device.environment()?;
    let boots = if scene.all { 20 } else { 6 };
    for boot in 0..boots {
        let mut machine = device.start_recorded()?;
        // The client is there, and has talked to the server.
        if let Seen::Ended = machine.wait_for("accepted by", BOOT)? {
            return Err(format!("it did not come up in boot {boot}"));
        }
        machine.kill();
        device.tally.cuts += 1;
        if device.environment()? != before {
            return Err(format!("boot {boot} changed the boot environment"));
        }
        let writes = device.writes_to_environment()?;
        if writes > 0 {
            return Err(format!("boot {boot} wrote {writes} times to the partition of the boot environment"));
        }
    }
    Ok(device.tally)
}
