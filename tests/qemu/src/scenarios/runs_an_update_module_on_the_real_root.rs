//! A payload for an update module: a program on the root file system, which keeps what it gets on the data partition.
//! The boot environment has no part in it.

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::device::{Make, Tally};
use crate::fleet::module_artifact;
use crate::runner::Scene;
use crate::{Outcome, write};

pub const SCENARIO: Scenario = Scenario {
    name: "runs_an_update_module_on_the_real_root",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let before = device.environment()?;
    let payload = device.path("payload");
    write(&payload, "settings of the application\n")?;
    let artifact = device.path("application.mender");
    module_artifact("application-2", "keep-on-data", &payload, scene.kit, &artifact)?;
    let deployment = device.fleet.deploy(&artifact, "application-2")?;
    let mut machine = device.start()?;
    device.expect(&mut machine, "keep-on-data: installed settings of the application")?;
    let end = device.finish_with(&mut machine, &deployment)?;
    machine.kill();
    expect("the end on the server", end.as_deref().unwrap_or("none"), "success")?;
    if device.environment()? != before {
        return Err("the boot environment was written".into());
    }
    let (mut machine, running) = device.come_up(1)?;
    expect_running(&running, "a", "1.0")?;
    // It is still there after a restart, and the server knows about it.
    let fleet = &device.fleet;
    machine.until("the inventory does not name the application", crate::device::BOOT, |_lines| {
        (fleet.attribute("artifact_name")? == "application-2").then_some(())
    })?;
    machine.kill();
    Ok(device.tally)
}
