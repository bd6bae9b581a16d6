//! The new system starts, its client too, and the health check says that it is not well: no commit.

use super::{ONE_EACH, OTHERS, Scenario, falls_back_from};
use crate::rootfs::Fault;

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_failing_health_check",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: 1,
    run: |scene| falls_back_from(scene, Fault::HealthCheckFails),
};
