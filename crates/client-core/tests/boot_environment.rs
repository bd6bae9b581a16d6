//! The boot environment under power cuts: the conformance suite of boot controls, over U-Boot and GRUB with the
//! production codecs and with stand-ins for them that make a mistake, and over a bootloader with one-shot trials.

// All of this file is test code.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use client_core::boot::mender_vars::{BOOT_PART_HEX, MenderVars, Partitions};
use client_core::boot::{BootControl, BootEnv, BootEnvError, Variables};
use client_core::slot::{Restart, Slot};
use client_core::storage::BlockDevice;
use testkit::bootloader::{Boot, GrubModel, Startup, UBootModel};
use testkit::conformance::boot::{Backend, Booted, Suite};
use testkit::enumerator::{Options, Report};
use testkit::storage::{CrashWorld, Tear};

use crate::machine::Machine;

/// A bootloader with shared variables, and the client's way to them.
struct Board {
    bootloader: Bootloader,
    open: fn(&CrashWorld) -> Box<dyn BootEnv>,
    /// The copy that is not there at first.
    missing: Option<&'static str>,
}

enum Bootloader {
    UBoot(UBootModel),
    Grub(GrubModel),
}

const ENV_LEN: usize = 1024;

fn board(bootloader: Bootloader, open: fn(&CrashWorld) -> Box<dyn BootEnv>) -> Suite<Board> {
    Suite::new(Board { bootloader, open, missing: None })
}

/// The file of one copy was lost and is empty now, as the client makes it again.
fn board_without(
    copy: &'static str,
    bootloader: Bootloader,
    open: fn(&CrashWorld) -> Box<dyn BootEnv>,
) -> Suite<Board> {
    Suite::new(Board { bootloader, open, missing: Some(copy) })
}

impl Backend for Board {
    fn install(&self, world: &CrashWorld, slot: Slot) {
        match &self.bootloader {
            Bootloader::UBoot(model) => {
                world.add_device("env0", vec![0xff; ENV_LEN]);
                world.add_device("env1", vec![0xff; ENV_LEN]);
                model.install(world, slot);
            }
            Bootloader::Grub(model) => model.install(world, slot),
        }
        if let Some(copy) = self.missing {
            let mut device = world.open(copy);
            device.write_at(0, &vec![0; usize::try_from(device.len()).unwrap()]).unwrap();
            device.sync().unwrap();
        }
    }

    fn boot(&self, world: &CrashWorld, _: &Restart, start: &mut dyn FnMut(Slot) -> Startup) -> Boot {
        match &self.bootloader {
            Bootloader::UBoot(model) => model.boot(world, start),
            Bootloader::Grub(model) => model.boot(world, start),
        }
    }

    fn open(&self, world: &CrashWorld, _: Booted) -> Box<dyn BootControl> {
        Box::new(MenderVars::new((self.open)(world), Partitions::new(2, 3).unwrap()))
    }

    fn is_lost(&self, world: &CrashWorld) -> bool {
        match &self.bootloader {
            Bootloader::UBoot(model) => model.variables(world).is_none(),
            // GRUB has no defaults: it says so when it boots.
            Bootloader::Grub(_) => false,
        }
    }
}

/// The environment is longer than a sector, and a write changes both sectors of a copy.
fn u_boot() -> UBootModel {
    UBootModel::redundant(("env0", 0), ("env1", 0), ENV_LEN).with_default("bootcmd", &"x".repeat(480))
}

fn single_u_boot() -> UBootModel {
    UBootModel::single("env0", 0, ENV_LEN).with_default("bootcmd", &"x".repeat(480))
}

fn grub() -> GrubModel {
    GrubModel::new(("env1", "lock1"), ("env2", "lock2"))
}

/// How a client treats the environment. Only the first is right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    InOrder,
    NoSync,
    NoSettleFlush,
    Truncates,
}

fn answer(names: &[&str], variables: &BTreeMap<String, String>) -> Result<Variables, BootEnvError> {
    Variables::from_bytes(names, |name| Some(variables.get(name)?.clone().into_bytes()))
}

fn no_copy() -> BootEnvError {
    BootEnvError::NoValidCopy { copies: Vec::new(), hint: None }
}

/// Stands in for the client's codec: as plain as can be, over the code of the model.
struct UBootStandIn {
    world: CrashWorld,
    model: UBootModel,
    care: Care,
}

impl UBootStandIn {
    fn sync(&self) {
        for device in ["env0", "env1"] {
            self.world.open(device).sync().unwrap();
        }
    }
}

impl BootEnv for UBootStandIn {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        if self.care == Care::InOrder {
            self.sync();
        }
        let variables = self.model.variables(&self.world).ok_or_else(no_copy)?;
        answer(names, &variables)
    }
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        assert!(self.model.set(&self.world, changes));
        if self.care != Care::NoSync {
            self.sync();
        }
        Ok(())
    }
    fn check_write(&mut self, _: &[(&str, &str)]) -> Result<(), BootEnvError> {
        Ok(())
    }
    fn describe(&self) -> String {
        "stand-in".to_owned()
    }
}

/// As [`UBootStandIn`], for GRUB's four files.
struct GrubStandIn {
    world: CrashWorld,
    model: GrubModel,
    care: Care,
}

impl GrubStandIn {
    fn put(&self, name: &str, content: &[u8]) {
        let mut device = self.world.open(name);
        if self.care == Care::Truncates {
            // The file is empty, and durably so, until the new content is there.
            device.write_at(0, &vec![0; content.len()]).unwrap();
            device.sync().unwrap();
        }
        device.write_at(0, content).unwrap();
        if self.care != Care::NoSync {
            device.sync().unwrap();
        }
    }

    fn put_copy(&self, copy: usize, variables: &BTreeMap<String, String>) {
        let (env, lock) = (format!("env{}", copy + 1), format!("lock{}", copy + 1));
        self.put(&lock, &GrubModel::held_lock());
        self.put(&env, &GrubModel::env(variables));
        self.put(&lock, &GrubModel::open_lock());
    }

    fn is_good(&self, copy: usize) -> bool {
        self.model.is_open(&self.world, copy) && self.model.variables(&self.world, copy).len() == 3
    }

    fn settled(&self) -> Result<BTreeMap<String, String>, BootEnvError> {
        if self.care != Care::NoSettleFlush && self.care != Care::NoSync {
            for device in ["env1", "lock1", "env2", "lock2"] {
                self.world.open(device).sync().unwrap();
            }
        }
        match (self.is_good(0), self.is_good(1)) {
            (false, false) => Err(no_copy()),
            (false, true) => {
                let variables = self.model.variables(&self.world, 1);
                self.put_copy(0, &variables);
                Ok(variables)
            }
            (true, false) => {
                let variables = self.model.variables(&self.world, 0);
                self.put_copy(1, &variables);
                Ok(variables)
            }
            (true, true) => Ok(self.model.variables(&self.world, 0)),
        }
    }
}

impl BootEnv for GrubStandIn {
    fn read(&mut self, names: &[&str]) -> Result<Variables, BootEnvError> {
        let variables = self.settled()?;
        answer(names, &variables)
    }
    fn write(&mut self, changes: &[(&str, &str)]) -> Result<(), BootEnvError> {
        let mut variables = self.settled()?;
        for (name, value) in changes.iter().filter(|(name, _)| *name != BOOT_PART_HEX) {
            variables.insert((*name).to_owned(), (*value).to_owned());
        }
        self.put_copy(1, &variables);
        self.put_copy(0, &variables);
        Ok(())
    }
    fn check_write(&mut self, _: &[(&str, &str)]) -> Result<(), BootEnvError> {
        Ok(())
    }
    fn describe(&self) -> String {
        "stand-in".to_owned()
    }
}

fn u_boot_env(world: &CrashWorld, model: UBootModel, care: Care) -> Box<dyn BootEnv> {
    Box::new(UBootStandIn { world: world.clone(), model, care })
}

fn grub_env(world: &CrashWorld, care: Care) -> Box<dyn BootEnv> {
    Box::new(GrubStandIn { world: world.clone(), model: grub(), care })
}

/// Up to so many cuts, on a disk that writes a sector as a whole or not at all.
fn cuts_between_sectors(cuts: u32) -> Options {
    let mut options = Options::cuts(cuts);
    options.limits.tears = Vec::new();
    options
}

fn keeping_all(options: Options) -> Options {
    Options { kept_violations: 1000, ..options }
}

/// What a change that did not last leads to: to what was called off, and away from what was committed.
fn assert_finds_both(report: &Report) {
    report.assert_violates("half-written slot was booted");
    report.assert_violates("promised");
}

#[test]
fn a_redundant_u_boot_environment_survives_two_power_cuts() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::InOrder);
    board(Bootloader::UBoot(u_boot().flushing()), open).check(&Options::cuts(2)).assert_holds();
}

#[test]
fn a_redundant_u_boot_environment_survives_three_power_cuts_that_tear_one_sector_into_garbage() {
    let mut options = Options::cuts(3);
    options.limits.tears = vec![Tear::Garbage];
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::InOrder);
    board(Bootloader::UBoot(u_boot().flushing()), open).check(&options).assert_holds();
}

/// All variables lie in the first sector, so that a block can only be torn in its padding. What happens when the
/// first sector itself is torn is looked at below.
#[test]
fn a_grub_environment_written_in_place_survives_three_power_cuts_that_leave_sectors_whole() {
    let mut options = Options::cuts(3);
    options.limits.tears = vec![Tear::Prefix(300)];
    let open = |world: &CrashWorld| grub_env(world, Care::InOrder);
    board(Bootloader::Grub(grub().flushing()), open).check(&options).assert_holds();
}

/// A limit of GRUB, not of the client: it cannot repair a block without its signature, clears the lock all the
/// same, and has nothing to load when it is started again before a client could repair it. A second power cut does
/// that, or an image that does not come up.
#[test]
fn a_torn_first_sector_can_cost_the_stock_grub_its_environment_and_not_ours() {
    let mut options = Options::cuts(1);
    options.limits.tears = vec![Tear::Garbage];
    let open = |world: &CrashWorld| grub_env(world, Care::InOrder);
    let stock = board(Bootloader::Grub(grub().stock().flushing()), open);
    stock.check(&options).assert_violates("lost its environment");
    stock.tolerating_loss().check(&options).assert_holds();
    // Ours copies nothing that makes no sense, and reads the other copy.
    board(Bootloader::Grub(grub().flushing()), open).check(&options).assert_holds();
}

/// A limit of U-Boot on a disk with a volatile cache: counting a trial and giving it up save both copies, and nobody flushes
/// in between when the trial does not come up. It costs the environment, never a slot that was promised.
#[test]
fn without_a_flush_u_boot_can_lose_its_environment_and_nothing_worse() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::InOrder);
    let board = board(Bootloader::UBoot(u_boot()), open);
    board.check(&Options::cuts(1)).assert_violates("lost its environment");
    board.tolerating_loss().check(&Options::cuts(2)).assert_holds();
}

/// Negative control: the bootloader fell back, the client believed it and began to overwrite the other slot.
#[test]
fn without_the_settle_flush_a_fallback_is_lost_after_the_client_believed_it() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::NoSettleFlush);
    let board = board(Bootloader::UBoot(u_boot()), open).tolerating_loss();
    assert_finds_both(&board.check(&keeping_all(Options::cuts(1))));
}

/// Negative control.
#[test]
fn a_single_u_boot_environment_does_not_survive_a_power_cut() {
    let open = |world: &CrashWorld| u_boot_env(world, single_u_boot(), Care::InOrder);
    let board = board(Bootloader::UBoot(single_u_boot().flushing()), open);
    board.check(&Options::cuts(1)).assert_violates("lost its environment");
}

/// Negative control.
#[test]
fn a_u_boot_environment_that_is_not_synced_does_not_survive_a_power_cut() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::NoSync);
    let board = board(Bootloader::UBoot(u_boot().flushing()), open).tolerating_loss();
    assert_finds_both(&board.check(&keeping_all(Options::cuts(1))));
}

/// Negative control.
#[test]
fn a_grub_environment_that_is_not_synced_does_not_survive_a_power_cut() {
    let open = |world: &CrashWorld| grub_env(world, Care::NoSync);
    let board = board(Bootloader::Grub(grub().flushing()), open).tolerating_loss();
    assert_finds_both(&board.check(&keeping_all(cuts_between_sectors(1))));
}

/// Negative control: GRUB cannot repair an empty file.
#[test]
fn a_grub_environment_that_is_truncated_first_does_not_survive_a_power_cut() {
    let open = |world: &CrashWorld| grub_env(world, Care::Truncates);
    let board = board(Bootloader::Grub(grub().stock().flushing()), open);
    board.check(&cuts_between_sectors(1)).assert_violates("lost its environment");
}

fn production_u_boot(world: &CrashWorld) -> Box<dyn BootEnv> {
    let devices = ["env0", "env1"].map(|name| world.open(name));
    Box::new(bootloader_uboot::UBootEnv::redundant_on_two(devices, [0, 0], ENV_LEN as u64).unwrap())
}

fn production_grub(world: &CrashWorld) -> Box<dyn BootEnv> {
    let copy = |env, lock| bootloader_grub::GrubCopy {
        env: world.open(env),
        lock: world.open(lock),
        lock_sum: None,
    };
    Box::new(bootloader_grub::GrubEnv::new([copy("env1", "lock1"), copy("env2", "lock2")]))
}

#[test]
fn the_u_boot_codec_survives_two_power_cuts() {
    board(Bootloader::UBoot(u_boot().flushing()), production_u_boot).check(&Options::cuts(2)).assert_holds();
}

#[test]
fn the_codecs_survive_a_power_cut_also_where_one_copy_was_lost_before() {
    for copy in ["env0", "env1"] {
        let board = board_without(copy, Bootloader::UBoot(u_boot().flushing()), production_u_boot);
        board.check(&Options::cuts(1)).assert_holds();
    }
    let mut options = Options::cuts(1);
    options.limits.tears = vec![Tear::Prefix(300)];
    let board = board_without("env2", Bootloader::Grub(grub().flushing()), production_grub);
    board.check(&options).assert_holds();
}

#[test]
fn the_u_boot_codec_keeps_what_was_promised_when_the_bootloader_does_not_flush() {
    let board = board(Bootloader::UBoot(u_boot()), production_u_boot).tolerating_loss();
    board.check(&Options::cuts(2)).assert_holds();
}

#[test]
fn the_grub_codec_survives_three_power_cuts_that_leave_sectors_whole() {
    let mut options = Options::cuts(3);
    options.limits.tears = vec![Tear::Prefix(300)];
    board(Bootloader::Grub(grub().flushing()), production_grub).check(&options).assert_holds();
}

#[test]
fn the_grub_codec_keeps_what_was_promised_when_the_first_sector_is_torn() {
    let board = board(Bootloader::Grub(grub().flushing()), production_grub).tolerating_loss();
    board.check(&Options::cuts(1)).assert_holds();
}

#[test]
fn the_grub_codec_keeps_what_was_promised_when_the_bootloader_does_not_flush() {
    let board = board(Bootloader::Grub(grub()), production_grub).tolerating_loss();
    board.check(&Options::cuts(1)).assert_holds();
}

#[test]
fn one_shot_trials_survive_three_power_cuts_that_leave_sectors_whole() {
    Suite::new(Machine::OneShot).check(&cuts_between_sectors(3)).assert_holds();
}

/// Negative control: one sector is all there is, and nothing can repair it.
#[test]
fn one_shot_trials_do_not_survive_a_torn_sector() {
    let mut options = Options::cuts(1);
    options.limits.tears = vec![Tear::Garbage];
    Suite::new(Machine::OneShot).check(&options).assert_violates("lost its environment");
}
