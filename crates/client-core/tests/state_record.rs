//! The state record under power cuts: what is loaded afterwards is what was saved last, or what was being saved.

// All of this file is test code; the numbers printed go into the reliability report.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io;

use client_core::state_store::{StateStore, TwoCopyRecord};
use client_core::storage::BlockDevice;
use testkit::enumerator::{After, Options, Report, Scenario, explore};
use testkit::storage::{CrashDevice, CrashWorld, Suppressed, Tear};

const DEVICE_LEN: usize = 2 * 4096;

/// What the client was told about the record.
#[derive(Clone, Hash)]
struct Promises {
    /// The last save that returned `Ok`.
    saved: u8,
    /// The one that has begun since.
    saving: u8,
}

/// A document of two sectors, so that it can be half there.
fn document(number: u8) -> Vec<u8> {
    let mut document = vec![b'a' + number; 700];
    document[0] = number;
    document
}

fn save(record: &mut dyn StateStore, promises: &mut Promises) -> Result<(), String> {
    promises.saving = promises.saved + 1;
    record.save(&document(promises.saving)).map_err(|error| error.to_string())?;
    promises.saved = promises.saving;
    Ok(())
}

fn load(record: &mut dyn StateStore, promises: &mut Promises) -> Result<(), String> {
    let loaded = record.load().map_err(|error| error.to_string())?;
    let number = loaded[0];
    if loaded != document(number) {
        return Err("loaded what was never saved".to_owned());
    }
    if number != promises.saved && number != promises.saving {
        return Err(format!("loaded {number}, saved {}, saving {}", promises.saved, promises.saving));
    }
    // What was loaded may have been acted on: from here on it must stay.
    (promises.saved, promises.saving) = (number, number);
    Ok(())
}

type Open = fn(CrashDevice) -> Box<dyn StateStore>;

fn two_copies(device: CrashDevice) -> Box<dyn StateStore> {
    Box::new(TwoCopyRecord::open(device).unwrap())
}

/// Saves twice, then, whenever it starts, loads, saves once more and loads.
fn scenario(open: Open, sabotage: fn(&CrashWorld)) -> Scenario<Promises> {
    Scenario::new(move |world| {
        world.add_device("record", vec![0; DEVICE_LEN]);
        TwoCopyRecord::format_new(world.open("record"), &document(0)).unwrap();
        sabotage(world);
        Promises { saved: 0, saving: 0 }
    })
    .run(move |world, promises| {
        let mut record = open(world.open("record"));
        load(record.as_mut(), promises)?;
        save(record.as_mut(), promises)?;
        save(record.as_mut(), promises)
    })
    .recover(move |world, promises| {
        let mut record = open(world.open("record"));
        load(record.as_mut(), promises)?;
        save(record.as_mut(), promises)?;
        load(record.as_mut(), promises)?;
        Ok(After::Settled)
    })
    .fold_equal_states()
}

fn check(open: Open, sabotage: fn(&CrashWorld), options: &Options) -> Report {
    let started = std::time::Instant::now();
    let report = explore(&scenario(open, sabotage), options);
    let seconds = started.elapsed().as_secs_f64();
    println!("{report}\n{:.0} states/s, {seconds:.2} s", report.states as f64 / seconds);
    report
}

fn nothing(_: &CrashWorld) {}

#[test]
fn three_power_cuts_leave_the_old_document_or_the_new_one() {
    let mut options = Options::cuts(3);
    options.limits.tears = vec![Tear::Garbage];
    check(two_copies, nothing, &options).assert_holds();
}

#[test]
fn two_power_cuts_with_sectors_torn_in_the_middle_leave_the_old_document_or_the_new_one() {
    let mut options = Options::cuts(2);
    options.limits.tears = vec![Tear::Prefix(24), Tear::Prefix(56), Tear::Prefix(300), Tear::Unreadable];
    check(two_copies, nothing, &options).assert_holds();
}

/// Negative control.
#[test]
fn without_syncs_a_power_cut_loses_what_was_promised() {
    let sabotage = |world: &CrashWorld| world.suppress_sync("record", Suppressed::Every);
    check(two_copies, sabotage, &Options::cuts(1)).assert_violates("saving");
}

/// Negative control, for each sync there is: the first load's, and that of each save.
#[test]
fn without_any_one_sync_of_a_save_a_power_cut_loses_what_was_promised() {
    for sabotage in
        [(|world| world.suppress_sync("record", Suppressed::Nth(2))) as fn(&CrashWorld), |world| {
            world.suppress_sync("record", Suppressed::Nth(3))
        }]
    {
        check(two_copies, sabotage, &Options::cuts(1)).assert_violates("saving");
    }
}

/// Negative control.
#[test]
fn a_single_copy_does_not_survive_a_power_cut() {
    let open: Open = |device| Box::new(TwoCopyRecord::open(Misplaced::new(device, |_, _| 0)).unwrap());
    check(open, nothing, &Options::cuts(1)).assert_violates("no valid copy");
}

/// Negative control.
#[test]
fn writing_the_newer_copy_does_not_survive_a_power_cut() {
    let open: Open = |device| {
        let other_half = |half, written| if written { 1 - half } else { half };
        Box::new(TwoCopyRecord::open(Misplaced::new(device, other_half)).unwrap())
    };
    check(open, nothing, &Options::cuts(1)).assert_violates("loaded 1, saved 2");
}

/// Puts what is meant for one half of the device into another one, and finds it there when it is read back.
struct Misplaced {
    device: CrashDevice,
    /// Which half is used for which, and whether it is a write or its read-back.
    half: fn(u64, bool) -> u64,
    wrote: bool,
}

impl Misplaced {
    fn new(device: CrashDevice, half: fn(u64, bool) -> u64) -> Misplaced {
        Misplaced { device, half, wrote: false }
    }

    fn offset(&self, offset: u64, written: bool) -> u64 {
        let half_len = DEVICE_LEN as u64 / 2;
        (self.half)(offset / half_len, written) * half_len + offset % half_len
    }
}

impl BlockDevice for Misplaced {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let reading_back = std::mem::take(&mut self.wrote);
        self.device.read_at(self.offset(offset, reading_back), buf)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.wrote = true;
        self.device.write_at(self.offset(offset, true), data)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.device.sync()
    }
    fn drop_cache(&mut self) -> io::Result<()> {
        self.device.drop_cache()
    }
    fn name(&self) -> &str {
        self.device.name()
    }
}
