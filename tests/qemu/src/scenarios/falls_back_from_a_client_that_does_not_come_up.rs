//! The new system starts, and its client does not stay up: what keeps the client running restarts the machine.

use super::{ONE_EACH, OTHERS, Scenario, falls_back_from};
use crate::rootfs::Fault;

pub const SCENARIO: Scenario = Scenario {
    name: "falls_back_from_a_client_that_does_not_come_up",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: 1,
    run: |scene| falls_back_from(scene, Fault::ClientDoesNotComeUp),
};
