//! The boot environment under power cuts: two updates one after the other, the client and the bootloader both
//! losing power, and the slot that comes up is always whole and the one that was promised.
//!
//! The client here is the shortest that keeps its rules; its record and its slots are perfect, so that only the
//! environment can break anything. Any [`BootEnv`] goes in through [`Board::open`].

// All of this file is test code; the numbers printed go into the reliability report.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Instant;

use client_core::boot::{BOOT_COUNT, BOOT_PART, BOOT_PART_HEX, BootEnv, BootEnvError, UPGRADE_AVAILABLE};
use client_core::slot::Slot;
use client_core::storage::BlockDevice;
use testkit::bootloader::{Behaviour, Boot, GrubModel, Partitions, Startup, UBootModel};
use testkit::enumerator::{After, Options, Report, Scenario, explore};
use testkit::storage::{CrashWorld, Tear};

/// A bootloader, and the client's way to its environment.
#[derive(Clone)]
struct Board {
    bootloader: Bootloader,
    open: fn(&CrashWorld) -> Box<dyn BootEnv>,
    /// What a bootloader that finds no valid environment means for the case.
    lost_environment: Lost,
    /// The copy that is not there at first.
    missing: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It must not happen.
    IsAViolation,
    /// The case ends there: only what is worse is looked for.
    EndsTheCase,
}

#[derive(Clone)]
enum Bootloader {
    UBoot(UBootModel),
    Grub(GrubModel),
}

/// What is true of the machine and what the client, through its record, knows.
#[derive(Clone, Hash)]
struct Facts {
    /// Whether each slot holds a whole image, and what that does.
    slots: [(bool, Behaviour); 2],
    running: Slot,
    step: Step,
    /// The slot that must come up, where there is only one.
    promised: Option<Slot>,
    lost_environment: bool,
    updates_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    Installing,
    Armed,
}

fn at(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

/// Two updates of a device that starts from `start`, to images that behave like this.
fn scenario(board: Board, start: Slot, behaviour: Behaviour) -> Scenario<Facts> {
    let (set_up, open, lost, bootloader) =
        (board.clone(), board.open, board.lost_environment, board.bootloader);
    Scenario::new(move |world| {
        set_up.install(world, start);
        let good = (true, Behaviour::Good);
        Facts {
            slots: [good, good],
            running: start,
            step: Step::Idle,
            promised: Some(start),
            lost_environment: false,
            updates_left: 2,
        }
    })
    .boot(move |world, facts| {
        let mut half_written = false;
        let mut start = |slot: Slot| {
            let (whole, behaviour) = &mut facts.slots[at(slot)];
            half_written |= !*whole;
            if *whole { behaviour.start() } else { Startup::Fails }
        };
        if let Bootloader::UBoot(model) = &bootloader {
            // It is lost whether or not the power lasts until U-Boot has made up another one.
            facts.lost_environment |= model.variables(world).is_none();
        }
        let boot = match &bootloader {
            Bootloader::UBoot(model) => model.boot(world, &mut start),
            Bootloader::Grub(model) => model.boot(world, &mut start),
        };
        facts.lost_environment |=
            matches!(boot, Boot::Up { defaulted: true, .. } | Boot::Stuck { defaulted: true, .. });
        if facts.lost_environment && lost == Lost::EndsTheCase {
            return Ok(());
        }
        if half_written {
            return Err(format!("a half-written slot was booted: {boot:?}"));
        }
        match boot {
            Boot::Up { slot, .. } if facts.promised.is_some_and(|promised| promised != slot) => {
                Err(format!("slot {slot} came up, the other one was promised: {boot:?}"))
            }
            Boot::Up { slot, defaulted: false, .. } => {
                facts.running = slot;
                Ok(())
            }
            Boot::Up { defaulted: true, .. } => Err(format!("the bootloader lost its environment: {boot:?}")),
            Boot::Stuck { .. } => Err(format!("nothing comes up: {boot:?}")),
        }
    })
    .recover(move |world, facts| {
        if facts.lost_environment {
            return Ok(After::Settled);
        }
        client(world, facts, open(world).as_mut(), behaviour).map_err(|error| error.to_string())
    })
    .fold_equal_states()
}

fn client(
    world: &CrashWorld,
    facts: &mut Facts,
    env: &mut dyn BootEnv,
    behaviour: Behaviour,
) -> Result<After, BootEnvError> {
    let running = facts.running;
    let trial = env.read(&[UPGRADE_AVAILABLE])?[0].as_deref() == Some("1");
    match (facts.step, trial) {
        (Step::Armed, true) => {
            // On the target this commits; on the old slot it takes the order back.
            env.write(&settled_on(running))?;
            return Ok(finish(facts, running));
        }
        // Committed before the cut, or fallen back to.
        (Step::Armed, false) => return Ok(finish(facts, running)),
        (Step::Installing, _) => {
            env.write(&settled_on(running))?;
            return Ok(finish(facts, running));
        }
        (Step::Idle, _) => {}
    }
    if facts.updates_left == 0 {
        return Ok(After::Settled);
    }
    env.write(&settled_on(running))?;
    facts.step = Step::Installing;
    facts.slots[at(!running)] = (false, behaviour);
    world.crash_point("slot write");
    facts.slots[at(!running)].0 = true;
    facts.step = Step::Armed;
    facts.promised = None;
    let part = Partitions::default().number(!running).to_string();
    env.write(&[(BOOT_PART, &part), (BOOT_PART_HEX, &part), (UPGRADE_AVAILABLE, "1"), (BOOT_COUNT, "0")])?;
    Ok(After::Reboot)
}

fn finish(facts: &mut Facts, running: Slot) -> After {
    facts.promised = Some(running);
    facts.step = Step::Idle;
    facts.updates_left -= 1;
    After::Reboot
}

fn settled_on(slot: Slot) -> [(&'static str, &'static str); 4] {
    let part = match slot {
        Slot::A => "2",
        Slot::B => "3",
    };
    [(BOOT_PART, part), (BOOT_PART_HEX, part), (UPGRADE_AVAILABLE, "0"), (BOOT_COUNT, "0")]
}

const ENV_LEN: usize = 1024;

fn board(bootloader: Bootloader, open: fn(&CrashWorld) -> Box<dyn BootEnv>) -> Board {
    Board { bootloader, open, lost_environment: Lost::IsAViolation, missing: None }
}

impl Board {
    fn tolerating_lost_environments(self) -> Board {
        Board { lost_environment: Lost::EndsTheCase, ..self }
    }

    /// The file of one copy was lost and is empty now, as the client makes it again.
    fn without(self, copy: &'static str) -> Board {
        Board { missing: Some(copy), ..self }
    }

    fn install(&self, world: &CrashWorld, slot: Slot) {
        self.install_whole(world, slot);
        if let Some(copy) = self.missing {
            let mut device = world.open(copy);
            device.write_at(0, &vec![0; usize::try_from(device.len()).unwrap()]).unwrap();
            device.sync().unwrap();
        }
    }

    fn install_whole(&self, world: &CrashWorld, slot: Slot) {
        match &self.bootloader {
            Bootloader::UBoot(model) => {
                world.add_device("env0", vec![0xff; ENV_LEN]);
                world.add_device("env1", vec![0xff; ENV_LEN]);
                model.install(world, slot);
            }
            Bootloader::Grub(model) => model.install(world, slot),
        }
    }

    /// Every start slot and every behaviour of the new image.
    fn check(self, options: &Options) -> Report {
        let started = Instant::now();
        let mut total = Report { exhausted: true, ..Report::default() };
        for start in Slot::BOTH {
            for behaviour in [Behaviour::Good, Behaviour::NeverUp, Behaviour::PanicsOnce] {
                let report = explore(&scenario(self.clone(), start, behaviour), options);
                total.crash_points += report.crash_points;
                total.states += report.states;
                total.folded += report.folded;
                total.cases += report.cases;
                total.exhausted &= report.exhausted;
                total.violation_count += report.violation_count;
                total.violations.extend(report.violations);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut head = total.clone();
        head.violations.truncate(2);
        println!("{head}\n{:.0} states/s, {seconds:.2} s", total.states as f64 / seconds);
        total
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
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
        if self.care == Care::InOrder {
            self.sync();
        }
        let no_copy = || BootEnvError::NoValidCopy { copies: "none".to_owned() };
        let variables = self.model.variables(&self.world).ok_or_else(no_copy)?;
        Ok(names.iter().map(|&name| variables.get(name).cloned()).collect())
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
            (false, false) => Err(BootEnvError::NoValidCopy { copies: "both".to_owned() }),
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
    fn read(&mut self, names: &[&str]) -> Result<Vec<Option<String>>, BootEnvError> {
        let variables = self.settled()?;
        Ok(names.iter().map(|&name| variables.get(name).cloned()).collect())
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
    stock.clone().check(&options).assert_violates("lost its environment");
    stock.tolerating_lost_environments().check(&options).assert_holds();
    // Ours copies nothing that makes no sense, and reads the other copy.
    board(Bootloader::Grub(grub().flushing()), open).check(&options).assert_holds();
}

/// A limit of U-Boot on a disk with a volatile cache: counting a trial and giving it up save both copies, and nobody flushes
/// in between when the trial does not come up. It costs the environment, never a slot that was promised.
#[test]
fn without_a_flush_u_boot_can_lose_its_environment_and_nothing_worse() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::InOrder);
    let board = board(Bootloader::UBoot(u_boot()), open);
    board.clone().check(&Options::cuts(1)).assert_violates("lost its environment");
    board.tolerating_lost_environments().check(&Options::cuts(2)).assert_holds();
}

/// Negative control: the bootloader fell back, the client believed it and began to overwrite the other slot.
#[test]
fn without_the_settle_flush_a_fallback_is_lost_after_the_client_believed_it() {
    let open = |world: &CrashWorld| u_boot_env(world, u_boot(), Care::NoSettleFlush);
    let board = board(Bootloader::UBoot(u_boot()), open).tolerating_lost_environments();
    board.check(&Options::cuts(1)).assert_violates("promised");
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
    board(Bootloader::UBoot(u_boot().flushing()), open)
        .tolerating_lost_environments()
        .check(&Options::cuts(1))
        .assert_violates("promised");
}

/// Negative control.
#[test]
fn a_grub_environment_that_is_not_synced_does_not_survive_a_power_cut() {
    let open = |world: &CrashWorld| grub_env(world, Care::NoSync);
    board(Bootloader::Grub(grub().flushing()), open)
        .tolerating_lost_environments()
        .check(&cuts_between_sectors(1))
        .assert_violates("promised");
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
        let board = board(Bootloader::UBoot(u_boot().flushing()), production_u_boot).without(copy);
        board.check(&Options::cuts(1)).assert_holds();
    }
    let mut options = Options::cuts(1);
    options.limits.tears = vec![Tear::Prefix(300)];
    let board = board(Bootloader::Grub(grub().flushing()), production_grub).without("env2");
    board.check(&options).assert_holds();
}

#[test]
fn the_u_boot_codec_keeps_what_was_promised_when_the_bootloader_does_not_flush() {
    let board = board(Bootloader::UBoot(u_boot()), production_u_boot).tolerating_lost_environments();
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
    let board = board(Bootloader::Grub(grub().flushing()), production_grub).tolerating_lost_environments();
    board.check(&Options::cuts(1)).assert_holds();
}

#[test]
fn the_grub_codec_keeps_what_was_promised_when_the_bootloader_does_not_flush() {
    let board = board(Bootloader::Grub(grub()), production_grub).tolerating_lost_environments();
    board.check(&Options::cuts(1)).assert_holds();
}
