//! An update in frames and then one as a delta, both over the air, and in each download the power goes twice. The device goes on
//! where the medium is known to be good, commits, and what came over the network is counted.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::choice::Generator;
use testserver::{Action, Rule};

use super::{ONE_EACH, OTHERS, Scenario, expect, expect_running};
use crate::device::{Device, Make, Running, Tally, UPDATE};
use crate::disk::MIB;
use crate::fleet;
use crate::rootfs::System;
use crate::runner::Scene;
use crate::{Outcome, read};

pub const SCENARIO: Scenario = Scenario {
    name: "takes_frames_and_a_delta_with_the_power_cut_in_their_downloads",
    boards: &[ONE_EACH[0]],
    more_boards: &[ONE_EACH[1], OTHERS[0], OTHERS[1], OTHERS[2], OTHERS[3], OTHERS[4]],
    parts: |_cuts| 1,
    run,
};

/// Of the image, and of that what no other version has: more than a group of a delta.
const IMAGE_MIB: u64 = 44;
const OWN_MIB: u64 = 14;
/// A delta can be gone on with at each of its groups, of which each makes so much of the image.
const GROUP: u64 = 16 * MIB;
/// Frames are made durable after so much of the image that was fetched.
const DURABLE_EVERY: u64 = 4 * MIB;
/// The head of the artifact, which comes first each time that a download is begun.
const HEAD: u64 = 64 * 1024;
/// What is on its way when the power goes, and counted though it did not arrive.
const ON_ITS_WAY: u64 = 512 * 1024;
/// When the disks are told nothing for so long, the device has done all that it can with what it got.
const QUIET: Duration = Duration::from_millis(1500);

/// Where the power goes in a download.
struct PowerCut {
    /// The answers of the server stop after so many bytes.
    after: u64,
    /// Not before the disks were told so many bytes since the device was turned on.
    written: u64,
}

fn run(scene: &Scene) -> Outcome<Tally> {
    let [one, two, three] = ["1.0", "2.0", "3.0"].map(release);
    let make = Make { system: one.clone(), slot_mib: Some(IMAGE_MIB), ..Make::new() };
    let mut device = scene.device(&make)?;
    let mut random = Generator::new(scene.seed);
    let images = [device.image(&one)?, device.image(&two)?, device.image(&three)?];

    let command = ["write", "rootfs-image", "--frames", "--compression", "zstd_fast", "-f"].map(OsStr::new);
    let framed = device.write_artifact(&[&command[..], &[images[1].as_os_str()]].concat(), "2.0")?;
    let words = [OsStr::new("frames"), OsStr::new("--json"), OsStr::new("--running"), images[0].as_os_str()];
    let told = fleet::host_tool(&[&words[..], &[framed.as_os_str()]].concat())?;
    let (once, table) = (figure(&told, "fetched_bytes")?, figure(&told, "table_bytes")?);
    // Each cut costs what is not durable yet and what is read ahead; a client that kept nothing would fetch all of it again.
    let cut = |steps: u64| PowerCut { after: steps * DURABLE_EVERY + 2 * MIB, written: DURABLE_EVERY / 2 };
    let fetched = take(&mut device, &framed, &two, ("b", &[cut(2), cut(1)]), &mut random)?;
    let again = 2 * (DURABLE_EVERY + MIB) + 2 * (HEAD + table);
    report(scene, "frames", &framed, once, fetched, again)?;

    let command = [OsStr::new("delta"), images[1].as_os_str(), images[2].as_os_str()];
    let delta = device.write_artifact(&command, "3.0")?;
    let once = read(&delta)?.len() as u64;
    let groups = new_bytes_of_groups(&images[1], &images[2])?;
    let [first, second, ..] = groups[..] else { return Err(format!("groups of a delta: {groups:?}")) };
    // Behind the first group, and then behind the second where there is enough of it, else in it.
    let cuts =
        [PowerCut { after: first + second / 4, written: first }, PowerCut { after: second / 2, written: 0 }];
    let fetched = take(&mut device, &delta, &three, ("a", &cuts), &mut random)?;
    report(scene, "delta", &delta, once, fetched, second / 4 + second / 2 + 2 * HEAD)?;
    Ok(device.tally)
}

fn release(version: &str) -> System {
    System { mib: Some(IMAGE_MIB), own_mib: OWN_MIB, ..System::new(version) }
}

/// Updates `device` with `artifact` of `system`; gives the bytes that were sent.
fn take(
    device: &mut Device,
    artifact: &Path,
    system: &System,
    (slot, cuts): (&str, &[PowerCut]),
    random: &mut Generator,
) -> Outcome<u64> {
    let version = &system.version;
    let deployment = device.fleet.deploy(artifact, version)?;
    let mut sent = 0;
    for cut in cuts {
        let stall = Action::Stall { after: cut.after, seconds: None };
        device.fleet.faults().set(vec![Rule::new(stall).method("GET").path("/download").times(0)]);
        let before = device.fleet.requests().len();
        let mut machine = device.start_recorded()?;
        let record = device.record(device.disks().len() - 1);
        let (mut bytes, mut since) = (0, Instant::now());
        let fleet = &device.fleet;
        let there = machine.until("the download does not get far", UPDATE, |_lines| {
            let now = std::fs::metadata(&record).map_or(0, |file| file.len());
            if now != bytes {
                (bytes, since) = (now, Instant::now());
            }
            let is_far = bytes >= cut.written && since.elapsed() >= QUIET;
            (is_far && fleet.bytes_sent(before, cut.after) >= cut.after).then_some(())
        })?;
        there.ok_or("the machine ended before the download got far")?;
        device.cut_power(machine, random)?;
        let status = device.fleet.status(&deployment).unwrap_or_default();
        expect("the status in the middle", &status, "downloading")?;
        sent += device.fleet.bytes_sent(before, cut.after);
    }
    device.fleet.faults().clear();
    let before = device.fleet.requests().len();
    let machine = device.start()?;
    let (end, machine, running) = device.finish_on(machine, &deployment, 1)?;
    machine.kill();
    expect("the end on the server", &end, "success")?;
    expect_running(&running, slot, version)?;
    device.expect_image(&Running { slot: slot.to_owned(), version: version.clone() }, system)?;
    // Committed: it stays over a restart.
    let (machine, running) = device.come_up(1)?;
    machine.kill();
    expect_running(&running, slot, version)?;
    Ok(sent + device.fleet.bytes_sent(before, u64::MAX))
}

/// States what was fetched, and that it is what comes without a power cut and at most `again`.
fn report(scene: &Scene, kind: &str, artifact: &Path, once: u64, fetched: u64, again: u64) -> Outcome {
    let bytes = read(artifact)?.len();
    println!(
        "        {:<22} {kind}: {fetched} bytes fetched with two power cuts, {once} without; the artifact has {bytes}",
        scene.board.name()
    );
    if fetched <= once + again + ON_ITS_WAY {
        return Ok(());
    }
    Err(format!("{fetched} bytes were fetched for a {kind} of {once}, and {again} may come again"))
}

fn figure(json: &str, name: &str) -> Outcome<u64> {
    let told: Value = serde_json::from_str(json).map_err(|error| format!("{json}: {error}"))?;
    told[name].as_u64().ok_or_else(|| format!("{json} has no {name}"))
}

/// For each group of a delta: bytes of blocks of the new image that the old one has nowhere. They are random: the delta has them
/// as they are, and little besides.
fn new_bytes_of_groups(old: &Path, new: &Path) -> Outcome<Vec<u64>> {
    const BLOCK: usize = 4096;
    let (old, new) = (read(old)?, read(new)?);
    let known: HashSet<&[u8]> = old.chunks(BLOCK).collect();
    let group = |bytes: &[u8]| {
        let new = bytes.chunks(BLOCK).filter(|block| !known.contains(block));
        new.map(|block| block.len() as u64).sum::<u64>()
    };
    Ok(new.chunks(GROUP as usize).map(group).collect())
}
