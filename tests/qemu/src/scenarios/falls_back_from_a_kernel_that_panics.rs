//! The new system's kernel starts and panics, because its process 1 ends. Where the firmware keeps what the kernel said last, the
//! server hears it.

use super::{EVERYWHERE, GRUB_UEFI, NOTHING_NOTED, Scenario, falls_back, takes_another};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::rootfs::{Fault, System};
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_kernel_that_panics",
    boards: EVERYWHERE,
    more_boards: &["uboot-armv7"],
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let (machine, _running) = device.come_up(1)?;
    let deployment = device.deploy(&System::with("1.1-bad", Fault::KernelPanics))?;
    let cause = match scene.board.name() {
        GRUB_UEFI => "its kernel crashed: Kernel panic - not syncing: Attempted to kill init!",
        _ => NOTHING_NOTED,
    };
    let machine = falls_back(&mut device, machine, &deployment, 6, cause)?;
    takes_another(&mut device, machine)?;
    Ok(device.tally)
}
