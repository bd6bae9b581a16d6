//! Everything is right with the artifact but that nobody signed it.

use super::{ONE_EACH, OTHERS, Scenario, refuses};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::fleet::rootfs_artifact;
use crate::rootfs::{DEVICE_TYPE, System};
use crate::runner::Scene;

pub const SCENARIO: Scenario =
    Scenario { name: "refuses_an_unsigned_artifact", boards: ONE_EACH, more_boards: OTHERS, parts: 1, run };

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let artifact = device.path("unsigned.mender");
    let image = scene.kit.root(scene.board, &System::new("2.0"))?;
    rootfs_artifact("2.0", &image, DEVICE_TYPE, None, &artifact)?;
    let deployment = device.fleet.deploy(&artifact, "2.0")?;
    refuses(&mut device, &deployment, "signature")?;
    Ok(device.tally)
}
