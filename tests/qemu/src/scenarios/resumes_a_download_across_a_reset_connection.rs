//! The connection is reset twice in the middle of a download. The device asks for the rest each time, and the artifact
//! comes over the network once.

use testserver::{Action, Rule};

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::device::{Make, Tally};
use crate::rootfs::System;
use crate::runner::Scene;
use crate::{Outcome, read};

pub const SCENARIO: Scenario = Scenario {
    name: "resumes_a_download_across_a_reset_connection",
    boards: ONE_EACH,
    more_boards: OTHERS,
    parts: |_cuts| 1,
    run,
};

fn run(scene: &Scene) -> Outcome<Tally> {
    let mut device = scene.device(&Make::new())?;
    let system = System::new("2.0");
    let bytes = read(&device.artifact(&system)?)?.len() as u64;
    let deployment = device.deploy(&system)?;
    let cut = |after| Rule::new(Action::Cut { after }).method("GET").path("/download");
    device.fleet.faults().set(vec![cut(bytes / 3), cut(bytes / 3)]);
    let (end, machine, running) = device.finish(&deployment, 2)?;
    machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, "b", "2.0")?;

    let hits = device.fleet.faults().hits();
    if hits != [1, 1] {
        return Err(format!("the connection was not cut twice: {hits:?}"));
    }
    let requests = device.fleet.requests();
    let downloads: Vec<_> = requests.iter().filter(|request| request.path.contains("/download")).collect();
    let ranges = downloads
        .iter()
        .filter(|request| request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("range")));
    if ranges.count() < 2 {
        return Err("it did not ask for the rest".into());
    }
    // What was cut off had been sent up to the cut: nothing comes twice but what the network held at that moment.
    let sent: u64 = downloads.iter().map(|request| request.response_bytes).sum();
    if sent > bytes + bytes / 10 {
        return Err(format!("{sent} bytes were sent for an artifact of {bytes}"));
    }
    Ok(device.tally)
}
