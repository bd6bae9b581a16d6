//! A committed system is turned off and on twenty times, without being told before. Not a byte of the boot environment
//! changes, and not one is written: the partition that it is on sees no write from the bootloader.

use super::{ONE_EACH, OTHERS, Scenario, expect_running};
use crate::Outcome;
use crate::device::{BOOT, Make, Tally, UP};
use crate::machine::Seen;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "writes_nothing_to_the_environment_of_a_committed_system",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let (machine, running) = device.come_up(1)?;
    machine.kill();
    expect_running(&running, "a", "1.0")?;
    let before = device.environment();
    if before.iter().any(Option::is_none) {
        return Err("a file of the boot environment is missing".into());
    }
    for boot in 0..20 {
        let mut machine = device.start_recorded()?;
        if let Seen::Ended = machine.wait_for(UP, BOOT)? {
            return Err(format!("it did not come up in boot {boot}"));
        }
        machine.kill();
        device.tally.cuts += 1;
        if device.environment() != before {
            return Err(format!("boot {boot} changed the boot environment"));
        }
    }
    Ok(device.tally)
}
