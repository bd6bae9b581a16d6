//! An image of 256 MiB on a board with 48 MiB of memory for everything: kernel, system, client.

use super::{Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "updates_256_mib_with_48_mib_of_memory",
    // The kernels of the other boards do not start in so little.
    boards: &["uboot-aarch64-fat"],
    more_boards: &[],
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let make = Make { slot_mib: Some(256), ..Make::new() };
    let mut device = scene.device(&make)?;
    device.memory_mib = 48;
    let system = System { mib: Some(256), ..System::new("2.0") };
    let deployment = device.deploy(&system)?;
    let (end, machine, running) = device.finish(&deployment, 2)?;
    let heard = machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;
    let line = heard.iter().find(|line| line.contains("rota-test: up")).ok_or("no system came up")?;
    let memory = line.split("memory=").nth(1).and_then(|rest| rest.split(' ').next());
    let memory: u64 = memory.and_then(|kib| kib.parse().ok()).ok_or_else(|| format!("{line:?}"))?;
    if memory > 48 * 1024 {
        return Err(format!("the board has more memory: {memory} KiB"));
    }
    Ok(device.tally)
}
