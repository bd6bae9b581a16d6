//! What is watched, over looks, restarts and power cuts: which alerts wait for the server, and that none is lost.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use client_core::clock::Clock;
use client_core::monitor::{
    Alert, Around, Book, Check, Level, LogSource, Looker, Pattern, Position, Rules, Scan, Unseen, Watch,
    Watched,
};
use client_core::state_store::{StateError, StateStore, TwoCopyRecord};
use testkit::choice::Choices;
use testkit::clock::VirtualClock;
use testkit::enumerator::{After, Options, Scenario, explore};
use testkit::storage::{CrashWorld, Limits, Tear};

const MINUTE: Duration = Duration::from_secs(60);
const DEVICE_BYTES: usize = 2 * 16 * 1024;

/// What the device is like, and where the alerts are kept. Clones are the same device.
#[derive(Clone)]
pub(crate) struct Facts {
    state: Rc<RefCell<State>>,
    world: CrashWorld,
    checks: Vec<Check>,
}

#[derive(Default)]
struct State {
    /// How full file systems are; what is not in here cannot be looked at.
    used: BTreeMap<String, u32>,
    unit: String,
    lines: VecDeque<String>,
    is_unreadable: bool,
    boot_id: String,
    certificate_end: u64,
    looks: u64,
}

fn check(name: &str, watched: Watched) -> Check {
    Check { name: name.to_owned(), looks: 1, watched }
}

fn disk(name: &str) -> Check {
    check(name, Watched::Disk { path: name.to_owned(), used_percent: 90 })
}

fn store(world: &CrashWorld) -> TwoCopyRecord<testkit::storage::CrashDevice> {
    TwoCopyRecord::open(world.open("book")).unwrap()
}

fn add_book(world: &CrashWorld) {
    world.add_device("book", vec![0; DEVICE_BYTES]);
    TwoCopyRecord::format_new(world.open("book"), &Book::default().to_json()).unwrap();
}

impl Facts {
    /// File systems that are so full.
    pub(crate) fn new(disks: &[(&str, u32)]) -> Facts {
        let facts = Facts::watching(disks.iter().map(|(name, _)| disk(name)).collect());
        facts.state().used = disks.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect();
        facts
    }

    /// Deployments.
    pub(crate) fn updates() -> Facts {
        Facts::watching(vec![check("updates", Watched::Updates { failed: 1 })])
    }

    fn watching(checks: Vec<Check>) -> Facts {
        let world = CrashWorld::new(Choices::exhaustive(), Limits { cuts: 0, ..Limits::default() });
        add_book(&world);
        Facts { state: Rc::default(), world, checks }
    }

    fn state(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// A process that watches.
    pub(crate) fn watch(&self, clock: Arc<dyn Clock>) -> Watch {
        let rules = Rules { interval: MINUTE, checks: self.checks.clone() };
        Watch::open(rules, Box::new(self.clone()), Box::new(store(&self.world)), clock).unwrap()
    }

    /// The words of the alert of a check that there was not before.
    pub(crate) fn what_a_new_check_of_updates_says(&self) -> String {
        let checks = vec![check("later", Watched::Updates { failed: 1 })];
        let mut watch = Facts { checks, ..self.clone() }.watch(VirtualClock::new(9).shared());
        watch.look();
        let alerts = watch.next_alerts();
        let found = alerts.iter().find(|alert| alert.name == "later");
        found.map(|alert| alert.description.clone()).unwrap_or_default()
    }

    /// How often the first check was looked at.
    pub(crate) fn looks(&self) -> u64 {
        self.state().looks
    }
}

impl Looker for Facts {
    fn service(&mut self, _: &str) -> Result<String, Unseen> {
        Ok(self.state().unit.clone())
    }
    fn log(
        &mut self,
        _: &str,
        _: &LogSource,
        from: Option<&Position>,
        scan: &mut Scan<'_>,
    ) -> Result<Option<Position>, Unseen> {
        let mut lines = match from {
            Some(Position::File { lines, .. }) => *lines,
            Some(Position::Journal { .. }) | None => 0,
        };
        if self.state().is_unreadable {
            return Err(Unseen("no permission".to_owned()));
        }
        for line in self.state().lines.drain(..) {
            lines += 1;
            scan.line(lines, line.as_bytes());
        }
        Ok(Some(Position::File { inode: 1, offset: lines, lines }))
    }
    fn used_percent(&mut self, path: &str) -> Result<u32, Unseen> {
        let mut state = self.state();
        state.looks += u64::from(path == self.checks[0].name);
        state.used.get(path).copied().ok_or_else(|| Unseen("no such file system".to_owned()))
    }
    fn certificate_end(&mut self, _: &str) -> Result<u64, Unseen> {
        Ok(self.state().certificate_end)
    }
    fn boot_id(&mut self) -> Result<String, Unseen> {
        Ok(self.state().boot_id.clone())
    }
}

/// What waits, as `name LEVEL`.
fn waiting(watch: &Watch) -> Vec<String> {
    watch.next_alerts().iter().map(|alert| format!("{} {}", alert.name, alert.level.name())).collect()
}

/// Looks a minute later. What comes new.
fn look(watch: &mut Watch, clock: &VirtualClock) -> Vec<String> {
    let before = watch.next_alerts().len();
    clock.advance(MINUTE);
    watch.look();
    waiting(watch).split_off(before)
}

#[test]
fn an_alert_waits_over_restarts_until_it_is_taken_and_comes_once_for_each_change() {
    let (facts, clock) = (Facts::new(&[("a", 95), ("b", 10)]), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    assert_eq!(look(&mut watch, &clock), ["a CRITICAL"]);
    assert!(look(&mut watch, &clock).is_empty());
    facts.state().used.insert("b".to_owned(), 99);
    facts.state().used.insert("a".to_owned(), 20);
    let mut watch = facts.watch(clock.shared());
    assert_eq!(look(&mut watch, &clock), ["a OK", "b CRITICAL"]);
    watch.taken(2);
    let mut watch = facts.watch(clock.shared());
    assert_eq!(waiting(&watch), ["b CRITICAL"]);
    watch.taken(1);
    assert!(look(&mut watch, &clock).is_empty());
    let watch = facts.watch(clock.shared());
    assert!(watch.next_alerts().is_empty());
    assert!(watch.has_news(), "a new process has told of no checks");
}

#[test]
fn what_cannot_be_looked_at_is_not_well_and_says_why() {
    let (mut facts, clock) = (Facts::new(&[("a", 10)]), VirtualClock::new(1));
    facts.state().used.clear();
    let mut watch = facts.watch(clock.shared());
    assert_eq!(look(&mut watch, &clock), ["a CRITICAL"]);
    assert_eq!(watch.next_alerts()[0].description, "it cannot be looked at: no such file system");
    // It is not watched any more.
    facts.checks = vec![disk("other")];
    facts.state().used.insert("other".to_owned(), 1);
    let mut watch = facts.watch(clock.shared());
    assert!(look(&mut watch, &clock).is_empty());
    assert_eq!(waiting(&watch), ["a CRITICAL", "a OK"]);
}

#[test]
fn a_service_has_to_be_wrong_in_as_many_looks_in_a_row_as_the_check_says() {
    let service = Check { looks: 2, ..check("app", Watched::Service { unit: "app".to_owned() }) };
    let (facts, clock) = (Facts::watching(vec![service]), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    let mut check = |unit: &str, expected: &[&str]| {
        facts.state().unit = unit.to_owned();
        assert_eq!(look(&mut watch, &clock), expected, "{unit}");
    };
    check("activating", &[]);
    check("active", &[]);
    check("failed", &[]);
    check("failed", &["app CRITICAL"]);
    check("failed", &[]);
    check("active", &["app OK"]);
    check("failed", &[]);
}

/// A log in which nothing of this is well for three minutes behind it.
fn log_of_panics() -> Facts {
    let log = Watched::Log {
        source: LogSource::File("/log".to_owned()),
        pattern: Pattern::parse("panic").unwrap(),
        around: Around { before: 1, after: 1 },
        ok_after: 3 * MINUTE,
    };
    Facts::watching(vec![check("log", log)])
}

#[test]
fn a_log_that_cannot_be_read_for_a_moment_is_not_well_the_sooner() {
    let (facts, clock) = (log_of_panics(), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    facts.state().lines.push_back("a panic".to_owned());
    assert_eq!(look(&mut watch, &clock), ["log CRITICAL"]);
    facts.state().is_unreadable = true;
    assert!(look(&mut watch, &clock).is_empty());
    facts.state().is_unreadable = false;
    assert!(look(&mut watch, &clock).is_empty(), "two minutes behind the panic");
    assert_eq!(look(&mut watch, &clock), ["log OK"]);
}

#[test]
fn a_log_is_well_again_after_its_time_without_such_a_line() {
    let (facts, clock) = (log_of_panics(), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    let write = |lines: &[&str]| facts.state().lines.extend(lines.iter().map(|line| (*line).to_owned()));
    write(&["well", "before", "a panic", "behind"]);
    assert_eq!(look(&mut watch, &clock), ["log CRITICAL"]);
    let excerpt = watch.next_alerts()[0].excerpt.clone().unwrap();
    assert_eq!((excerpt.line.number, &*excerpt.line.data), (3, "a panic"));
    assert_eq!((&*excerpt.before[0].data, &*excerpt.after[0].data), ("before", "behind"));
    assert!(look(&mut watch, &clock).is_empty());
    write(&["panic again"]);
    for _ in 0..3 {
        assert!(look(&mut watch, &clock).is_empty());
    }
    // A restart begins that time anew.
    let mut watch = facts.watch(clock.shared());
    for _ in 0..2 {
        assert!(look(&mut watch, &clock).is_empty());
    }
    assert_eq!(look(&mut watch, &clock), ["log OK"]);
}

#[test]
fn without_a_clock_certificates_and_starts_say_nothing() {
    let certificate = Watched::Certificate { file: "c.pem".to_owned(), days_left: 14 };
    let reboots = Watched::Reboots { most: 1, within: 60 * MINUTE };
    let facts = Facts::watching(vec![check("certificate", certificate), check("reboots", reboots)]);
    let clock = VirtualClock::new(1);
    let set = clock.wall();
    clock.set_wall(MINUTE);
    let boot = |id: &str| facts.state().boot_id = id.to_owned();
    let mut watch = facts.watch(clock.shared());
    for id in ["1", "2", "3"] {
        boot(id);
        assert!(look(&mut watch, &clock).is_empty());
    }
    clock.set_wall(set);
    // Only the last start has a time now.
    assert_eq!(look(&mut watch, &clock), ["certificate CRITICAL"]);
    boot("4");
    assert_eq!(look(&mut watch, &clock), ["reboots CRITICAL"]);
    clock.advance(60 * MINUTE);
    assert_eq!(look(&mut watch, &clock), ["reboots OK"]);
}

#[test]
fn of_several_that_are_refused_only_the_one_goes_that_is_refused_alone() {
    let (facts, clock) = (Facts::new(&[("a", 99), ("b", 99), ("c", 99)]), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    look(&mut watch, &clock);
    let mut taken = Vec::new();
    while !watch.next_alerts().is_empty() {
        let alerts = watch.next_alerts();
        match alerts.iter().any(|alert| alert.name == "b") {
            true => watch.refused(&alerts),
            false => {
                taken.extend(alerts.iter().map(|alert| alert.name.clone()));
                watch.taken(alerts.len());
            }
        }
    }
    assert_eq!(taken, ["a", "c"]);
    assert!(facts.watch(clock.shared()).next_alerts().is_empty());
}

#[test]
fn looks_are_an_interval_apart_and_the_first_comes_within_one() {
    let clock = VirtualClock::new(3);
    let facts = Facts::new(&[("a", 1)]);
    let mut watch = facts.watch(clock.shared());
    assert!(watch.next_in(clock.now()) <= MINUTE);
    for _ in 0..20 {
        watch.look();
        let next = watch.next_in(clock.now());
        assert!((MINUTE * 9 / 10..=MINUTE * 11 / 10).contains(&next), "{next:?}");
    }
}

#[test]
fn what_is_found_while_the_process_is_asked_to_stop_does_not_count() {
    let (facts, clock) = (Facts::new(&[("a", 99)]), VirtualClock::new(1));
    let mut watch = facts.watch(clock.shared());
    clock.stop();
    watch.look();
    assert!(watch.next_alerts().is_empty());
}

/// Holds what it had, and takes nothing.
struct FullDisk(Vec<u8>);

impl StateStore for FullDisk {
    fn load(&mut self) -> Result<Vec<u8>, StateError> {
        Ok(self.0.clone())
    }
    fn save(&mut self, _: &[u8]) -> Result<(), StateError> {
        Err(StateError::TooLarge { need_bytes: 1, have_bytes: 0 })
    }
    fn capacity_bytes(&self) -> usize {
        0
    }
}

#[test]
fn what_cannot_be_kept_is_sent_all_the_same_and_what_cannot_be_read_is_an_error() {
    let (facts, clock) = (Facts::new(&[("a", 99)]), VirtualClock::new(1));
    let open = |document: &[u8]| {
        let rules = Rules { interval: MINUTE, checks: facts.checks.clone() };
        let store = Box::new(FullDisk(document.to_vec()));
        Watch::open(rules, Box::new(facts.clone()), store, clock.shared())
    };
    let mut watch = open(b"{}").unwrap();
    assert_eq!(look(&mut watch, &clock), ["a CRITICAL"]);
    watch.taken(1);
    assert!(watch.next_alerts().is_empty());
    assert!(open(b"nonsense").is_err());
}

/// What a server heard and what the device was like: no power cut takes that back.
#[derive(Clone, Hash, Default)]
struct History {
    /// Changes so far: the file system is full after the first one, and after every other one.
    changes: usize,
    /// When each alert was seen, and whether it says that something is wrong.
    heard: Vec<(String, bool)>,
}

impl History {
    fn watch(&self, world: &CrashWorld) -> Watch {
        let facts = Facts { state: Rc::default(), world: world.clone(), checks: vec![disk("a")] };
        facts.state().used.insert("a".to_owned(), if self.changes % 2 == 1 { 99 } else { 1 });
        let clock = VirtualClock::new(1);
        clock.advance(MINUTE * self.changes as u32);
        let rules = Rules { interval: MINUTE, checks: facts.checks.clone() };
        let store = Box::new(store(world));
        Watch::open(rules, Box::new(facts), store, clock.shared()).unwrap()
    }

    fn send(&mut self, watch: &mut Watch) {
        let alerts: Vec<Alert> = watch.next_alerts();
        self.heard.extend(alerts.iter().map(|alert| (alert.at.clone(), alert.level == Level::Critical)));
        watch.taken(alerts.len());
    }

    /// Each change once, in its order; those that were sent again do not count.
    fn is_right(&self) -> Result<(), String> {
        let mut levels = Vec::new();
        let mut known = Vec::new();
        for (at, is_wrong) in &self.heard {
            if !known.contains(&at) {
                known.push(at);
                levels.push(*is_wrong);
            }
        }
        let expected: Vec<bool> = (0..self.changes).map(|change| change % 2 == 0).collect();
        if levels == expected { Ok(()) } else { Err(format!("{} changes: {:?}", self.changes, self.heard)) }
    }
}

#[test]
fn two_power_cuts_lose_no_alert_and_change_no_order() {
    let scenario = Scenario::new(|world| {
        add_book(world);
        History::default()
    })
    .run(|world, history| {
        for change in 1..=3 {
            history.changes = change;
            let mut watch = history.watch(world);
            watch.look();
            // The first two wait for each other.
            if change >= 2 {
                history.send(&mut watch);
            }
        }
        Ok(())
    })
    .recover(|world, history| {
        let mut watch = history.watch(world);
        watch.look();
        history.send(&mut watch);
        Ok(After::Settled)
    })
    .check(|_, history| history.is_right())
    .fold_equal_states();
    let mut options = Options::cuts(2);
    options.limits.tears = vec![Tear::Garbage];
    explore(&scenario, &options).assert_holds();
}
