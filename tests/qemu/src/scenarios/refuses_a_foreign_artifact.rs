//! Signed with a key that the device does not know.

use super::{ONE_EACH, OTHERS, Scenario, refuses};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::fleet::rootfs_artifact;
use crate::rootfs::{DEVICE_TYPE, System};
use crate::runner::Scene;

pub const SCENARIO: Scenario =
    Scenario { name: "refuses_a_foreign_artifact", boards: ONE_EACH, more_boards: OTHERS, parts: 1, run };

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let image = scene.kit.root(scene.board, &System::new("2.0"))?;
    let artifact = device.path("foreign.mender");
    rootfs_artifact("foreign", &image, DEVICE_TYPE, Some(&scene.kit.keys.foreign), &artifact)?;
    let deployment = device.fleet.deploy(&artifact, "foreign")?;
    refuses(&mut device, &deployment, "signature")?;
    Ok(device.tally)
}
