//! Three updates that must not stay, one after another: a client that does not stay up, where what keeps it running restarts the
//! machine; a health check that says that the system is not well; and garbage in the slot, where the bootloader finds no kernel.

use testkit::choice::Generator;

use super::{NOTHING_NOTED, ONE_EACH, OTHERS, Scenario, falls_back, takes_another};
use crate::device::{Make, Tally};
use crate::fleet::rootfs_artifact;
use crate::rootfs::{DEVICE_TYPE, Fault, System};
use crate::runner::Scene;
use crate::{Outcome, write};

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_client_an_application_and_a_slot_that_do_not_work",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let (mut machine, _running) = device.come_up(1)?;
    for (version, fault, cause) in [
        ("1.1-ends", Fault::ClientDoesNotComeUp, "rust-ota does not stay up: it ended 3 times, with 1"),
        ("1.2-sick", Fault::HealthCheckFails, "health check: /bin/false"),
    ] {
        let deployment = device.deploy(&System::with(version, fault))?;
        machine = falls_back(&mut device, machine, &deployment, 6, cause)
            .map_err(|error| format!("{fault:?}: {error}"))?;
    }

    let mut random = Generator::new(scene.seed);
    let garbage: Vec<u8> = (0..256 * 1024).flat_map(|_| random.next_word().to_le_bytes()).collect();
    let image = device.path("garbage");
    write(&image, garbage)?;
    let artifact = device.path("garbage.mender");
    rootfs_artifact("1.3-garbage", &image, DEVICE_TYPE, Some(&scene.kit.keys.signer), &artifact)?;
    let deployment = device.fleet.deploy(&artifact, "1.3-garbage")?;
    machine = falls_back(&mut device, machine, &deployment, 4, NOTHING_NOTED)
        .map_err(|error| format!("garbage: {error}"))?;
    takes_another(&mut device, machine)?;
    Ok(device.tally)
}
