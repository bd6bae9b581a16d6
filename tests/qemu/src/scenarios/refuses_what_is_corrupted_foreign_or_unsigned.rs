//! Three artifacts that must not be taken, one after another, without a restart in between: a byte of the image is not what was
//! signed, which is found when it has been written to the other slot; signed with a key that the device does not know; and
//! not signed at all.

use super::{GRUB_UEFI, ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::device::{Device, Make, Tally};
use crate::fleet::rootfs_artifact;
use crate::machine::Machine;
use crate::rootfs::{DEVICE_TYPE, System};
use crate::runner::Scene;
use crate::{Outcome, read, write};

pub const SCENARIO: Scenario = Scenario {
    name: "refuses_what_is_corrupted_foreign_or_unsigned",
    boards: &[ONE_EACH[0], ONE_EACH[1], GRUB_UEFI],
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let before = device.environment()?;
    let corrupted = device.deploy(&System::new("2.0"))?;
    // The server does not take such an artifact: its copy goes bad afterwards.
    let stored = device.path("server/artifacts");
    let stored = std::fs::read_dir(&stored).map_err(|error| format!("{}: {error}", stored.display()))?;
    let stored = stored.flatten().next().ok_or("the server keeps no artifact")?.path();
    let mut bytes = read(&stored)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&stored, bytes)?;
    let (mut machine, running) = device.come_up(1)?;
    expect_running(&running, "a", "1.0")?;
    machine = refuses(&mut device, machine, &corrupted, "checksum mismatch")
        .map_err(|error| format!("a corrupted artifact: {error}"))?;

    let image = scene.kit.root(scene.board, &System::new("2.0"))?;
    for (name, signer) in [("foreign", Some(&scene.kit.keys.foreign)), ("unsigned", None)] {
        let artifact = device.path(&format!("{name}.mender"));
        rootfs_artifact(name, &image, DEVICE_TYPE, signer, &artifact)?;
        let deployment = device.fleet.deploy(&artifact, name)?;
        machine = refuses(&mut device, machine, &deployment, "signature")
            .map_err(|error| format!("an artifact that is {name}: {error}"))?;
    }
    machine.kill();
    if device.environment()? != before {
        return Err("the boot environment was written".into());
    }
    Ok(device.tally)
}

/// It fails, and the running system goes on. `because` is in the log that the server gets.
fn refuses(device: &mut Device, machine: Machine, deployment: &str, because: &str) -> Outcome<Machine> {
    let (end, mut machine, running) = device.finish_on(machine, deployment, 0)?;
    expect("the end on the server", &end, "failure")?;
    expect_running(&running, "a", "1.0")?;
    let log = device.log_of(&mut machine, deployment)?;
    if !log.contains(because) {
        return Err(format!("the log does not say {because:?}: {log}"));
    }
    Ok(machine)
}
