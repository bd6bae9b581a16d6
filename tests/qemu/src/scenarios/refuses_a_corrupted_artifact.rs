//! The signature is right, and a byte of the image is not. That is found when it has been written to the other slot:
//! it is not selected.

use super::{ONE_EACH, OTHERS, Scenario, refuses};
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;
use crate::{Outcome, read, write};

pub const SCENARIO: Scenario =
    Scenario { name: "refuses_a_corrupted_artifact", boards: ONE_EACH, more_boards: OTHERS, parts: 1, run };

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let deployment = device.deploy(&System::new("2.0"))?;
    // The server does not take such an artifact: its copy goes bad afterwards.
    let stored = device.path("server/artifacts");
    let stored = std::fs::read_dir(&stored).map_err(|error| format!("{}: {error}", stored.display()))?;
    let stored = stored.flatten().next().ok_or("the server keeps no artifact")?.path();
    let mut bytes = read(&stored)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&stored, bytes)?;
    refuses(&mut device, &deployment, "checksum mismatch")?;
    Ok(device.tally)
}
