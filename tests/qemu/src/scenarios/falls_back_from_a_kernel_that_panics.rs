//! The new system's kernel starts and panics, because it has no process 1.

use super::{EVERYWHERE, Scenario, falls_back_from};
use crate::rootfs::Fault;

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_kernel_that_panics",
    boards: EVERYWHERE,
    more_boards: &["uboot-armv7"],
    parts: 1,
    run: |scene| falls_back_from(scene, Fault::KernelPanics),
};
