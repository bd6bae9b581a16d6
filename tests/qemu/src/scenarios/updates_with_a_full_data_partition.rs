//! Not a byte is free on the data partition. An update writes its slot and its record, for which there is always room,
//! and succeeds; what cannot be kept is the log.

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::Outcome;
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;

pub const SCENARIO: Scenario = Scenario {
    name: "updates_with_a_full_data_partition",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

/// The first boot is with room, as on a device that was in use before; then it fills up.
const FILL: &str = "\
if [ -e /data/mender/rust-ota-state ]; then
    dd if=/dev/zero of=/data/fill bs=64k 2>/dev/null
    (while echo more >>/data/fill; do :; done) 2>/dev/null
    echo \"rota-test: data partition has $(df -k /data | tail -n 1 | tr -s ' ' | cut -d' ' -f4) KiB free\"
fi
";

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut make = Make::new();
    make.data.push(("before-client".to_owned(), FILL.as_bytes().to_vec()));
    let mut device = scene.device(&make)?;
    let (mut machine, _running) = device.come_up(1)?;
    let fleet = &device.fleet;
    let known = machine
        .until("no inventory comes", crate::device::BOOT, |_lines| fleet.attribute("artifact_name"))?;
    known.ok_or("the machine ended")?;
    machine.kill();

    let deployment = device.deploy(&System::new("2.0"))?;
    let mut machine = device.start()?;
    let free = device.expect(&mut machine, "KiB free")?;
    if !free.contains(" 0 KiB") {
        return Err(format!("the data partition is not full: {free}"));
    }
    let (end, machine, running) = device.finish_on(machine, &deployment, 1)?;
    machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;
    Ok(device.tally)
}
