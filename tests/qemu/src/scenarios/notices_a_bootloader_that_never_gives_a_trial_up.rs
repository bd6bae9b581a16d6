//! The control of the fall-backs: the same update with a kernel that panics, on a bootloader whose limit was taken out. It must be
//! seen that the device does not come back.

use super::{NOTHING_NOTED, Scenario, falls_back};
use crate::device::{Make, Tally};
use crate::disk;
use crate::rootfs::{Fault, System};
use crate::runner::Scene;
use crate::{Outcome, read};

pub const SCENARIO: Scenario = Scenario {
    name: "notices_a_bootloader_that_never_gives_a_trial_up",
    boards: &["grub-bios-x86_64"],
    more_boards: &[],
    parts: |_cuts| 1,
    run,
};

const LIMIT: &str = "[ \"$bootcount\" -lt \"$rota_limit\" ]";

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let logic = String::from_utf8_lossy(&read(&scene.kit.product("grub/grub.cfg"))?).into_owned();
    if logic.matches(LIMIT).count() != 1 {
        return Err("the boot logic has its limit in another form".into());
    }
    let broken = device.path("grub.cfg");
    crate::write(&broken, logic.replace(LIMIT, "true"))?;
    disk::replace_in_fat(&device.disks()[0].image, disk::MIB, &broken, "boot/grub/grub.cfg")?;
    let (machine, _running) = device.come_up(1)?;
    let deployment = device.deploy(&System::with("1.1-bad", Fault::KernelPanics))?;
    match falls_back(&mut device, machine, &deployment, 3, NOTHING_NOTED) {
        Err(error) if error.contains("no end in 4 boots") => {
            device.expect_trial(0)?;
            Ok(device.tally)
        }
        Err(error) => Err(format!("it failed for another reason: {error}")),
        Ok(_machine) => Err("a bootloader without a limit went unnoticed".into()),
    }
}
