//! What was signed and installed is no file system at all: the bootloader finds no kernel.

use testkit::choice::Generator;

use super::{ONE_EACH, OTHERS, Scenario, falls_back};
use crate::device::{Make, Tally};
use crate::fleet::rootfs_artifact;
use crate::rootfs::DEVICE_TYPE;
use crate::runner::Scene;
use crate::{Outcome, write};

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_root_file_system_that_is_garbage",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let mut random = Generator::new(scene.seed);
    let garbage: Vec<u8> = (0..256 * 1024).flat_map(|_| random.next_word().to_le_bytes()).collect();
    let image = device.path("garbage");
    write(&image, garbage)?;
    let artifact = device.path("garbage.mender");
    rootfs_artifact("1.1-bad", &image, DEVICE_TYPE, Some(&scene.kit.keys.signer), &artifact)?;
    let deployment = device.fleet.deploy(&artifact, "1.1-bad")?;
    falls_back(scene, &mut device, &deployment, 4)?;
    Ok(device.tally)
}
