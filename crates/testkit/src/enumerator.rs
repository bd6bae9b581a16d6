//! Runs a scenario through every power cut: at each operation, with each image the cut may leave, with further
//! cuts while the bootloader and the client recover, and checks after each what must hold.
//!
//! One *case* is one history:
//!
//! ```text
//!  set_up ─▶ run ─▶ boot ─▶ recover ─▶ … ─▶ check
//!             │      ▲│        │
//!             └──────┘└────────┘   power cut, or recover asked for a reboot
//! ```
//!
//! `set_up` builds a fresh machine and the *facts*: what a check needs to know and no power cut erases (what was
//! promised to whom, which slot holds what). Everything else has to be in devices. `run`, `boot` and `recover` may
//! lose power at any operation; they set facts before or after operations, never instead of them.
//!
//! Cases are re-run from their beginning, or from a state in between
//! ([`fold_equal_states`](Scenario::fold_equal_states)). So a scenario has to be deterministic but for
//! [`CrashWorld::choose`](crate::storage::CrashWorld::choose).

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::choice::{Choices, Generator, Mixer, ReplayId};
use crate::storage::{CrashWorld, Limits, PowerCut, Snapshot};

/// What the client wants after it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing more: the case is over.
    Settled,
    /// To be started again, in good order.
    Reboot,
}

type SetUp<F> = Box<dyn Fn(&CrashWorld) -> F>;
type Step<F> = Box<dyn Fn(&CrashWorld, &mut F) -> Result<(), String>>;
type Recover<F> = Box<dyn Fn(&CrashWorld, &mut F) -> Result<After, String>>;
type Check<F> = Box<dyn Fn(&CrashWorld, &F) -> Result<(), String>>;

/// A scenario, as closures over the world and the facts. An `Err` is a broken invariant, in words.
pub struct Scenario<F> {
    set_up: SetUp<F>,
    run: Step<F>,
    boot: Step<F>,
    recover: Recover<F>,
    check: Check<F>,
    folding: Option<Folding<F>>,
}

impl<F> Scenario<F> {
    /// Starts with how to build the machine. What it writes is durable before anything else happens.
    pub fn new(set_up: impl Fn(&CrashWorld) -> F + 'static) -> Scenario<F> {
        Scenario {
            set_up: Box::new(set_up),
            run: Box::new(|_, _| Ok(())),
            boot: Box::new(|_, _| Ok(())),
            recover: Box::new(|_, _| Ok(After::Settled)),
            check: Box::new(|_, _| Ok(())),
            folding: None,
        }
    }

    /// What is done first, on a machine that is up.
    #[must_use]
    pub fn run(mut self, run: impl Fn(&CrashWorld, &mut F) -> Result<(), String> + 'static) -> Self {
        self.run = Box::new(run);
        self
    }

    /// What happens between power on and the start of the client: a bootloader model.
    #[must_use]
    pub fn boot(mut self, boot: impl Fn(&CrashWorld, &mut F) -> Result<(), String> + 'static) -> Self {
        self.boot = Box::new(boot);
        self
    }

    /// What the client does when it starts.
    #[must_use]
    pub fn recover(
        mut self,
        recover: impl Fn(&CrashWorld, &mut F) -> Result<After, String> + 'static,
    ) -> Self {
        self.recover = Box::new(recover);
        self
    }

    /// What must hold once everything has settled.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&CrashWorld, &F) -> Result<(), String> + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Goes on only once from equal machines with equal facts, and from there rather than from the beginning. Makes
    /// an enumeration many times faster, and needs facts that hold nothing of the world (a handle, a device).
    #[must_use]
    pub fn fold_equal_states(mut self) -> Self
    where
        F: Hash + Clone,
    {
        self.folding = Some(Folding {
            fingerprint: |facts| {
                let mut hasher = FactsHasher(Mixer::new());
                facts.hash(&mut hasher);
                hasher.finish()
            },
            copy: F::clone,
        });
        self
    }
}

struct Folding<F> {
    fingerprint: fn(&F) -> u64,
    copy: fn(&F) -> F,
}

struct FactsHasher(Mixer);

impl Hasher for FactsHasher {
    fn finish(&self) -> u64 {
        self.0.finish()
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }
}

/// How far to go.
#[derive(Debug, Clone)]
pub struct Options {
    /// Power cuts per case and what they leave behind.
    pub limits: Limits,
    /// Cases up to which the enumeration is exhaustive.
    pub cases: u64,
    /// Cases drawn at random when it was not.
    pub random_cases: u64,
    /// Where the drawing starts; by itself at that of this run.
    pub seed: u64,
    /// Starts of the machine without a power cut in between, after which it counts as looping.
    pub starts: u32,
    /// Violations kept in the report with their trace; all are counted.
    pub kept_violations: usize,
}

impl Options {
    /// Up to so many power cuts in one case, exhaustively.
    pub fn cuts(cuts: u32) -> Options {
        Options {
            limits: Limits { cuts, ..Limits::default() },
            cases: u64::MAX,
            random_cases: 0,
            seed: crate::choice::seed(),
            starts: 10,
            kept_violations: 3,
        }
    }

    /// Exhaustive for so many cases, then so many random ones.
    #[must_use]
    pub fn budget(self, cases: u64, random_cases: u64) -> Options {
        Options { cases, random_cases, ..self }
    }
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Places in which the power was cut, once for every state that leads there.
    pub crash_points: u64,
    /// Machines after a cut: crash points times the images each may leave.
    pub states: u64,
    /// Those of them that equalled an earlier one and were not followed again.
    pub folded: u64,
    /// Histories run, whole or from one state to the next.
    pub cases: u64,
    /// Histories among them that were drawn at random.
    pub random_cases: u64,
    /// Seed of the random ones.
    pub seed: u64,
    /// Whether there is no case left that was not run.
    pub exhausted: bool,
    /// Cases that broke an invariant.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
}

/// One case that broke an invariant.
#[derive(Debug, Clone)]
pub struct Violation {
    /// For [`replay`].
    pub id: ReplayId,
    /// The invariant.
    pub invariant: String,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crash points, {} states ({} folded), {} cases, {} violations",
            self.crash_points, self.states, self.folded, self.cases, self.violation_count
        )?;
        if !self.exhausted {
            write!(f, "; not exhaustive, {} cases drawn from seed {}", self.random_cases, self.seed)?;
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay {}: {}", self.id, self.invariant)?;
        self.trace.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl Report {
    /// Fails the test unless nothing was violated and something was tried.
    ///
    /// # Panics
    /// When an invariant was broken, or no power cut was made.
    pub fn assert_holds(&self) {
        assert!(self.violation_count == 0, "{self}");
        assert!(self.states > 0, "nothing was tried: {self}");
    }

    /// Fails the test unless an invariant with these words in it was broken: for negative controls.
    ///
    /// # Panics
    /// When no kept violation says that.
    pub fn assert_violates(&self, words: &str) {
        assert!(
            self.violations.iter().any(|violation| violation.invariant.contains(words)),
            "no violation says {words:?}: {self}"
        );
    }
}

/// Runs every case, or as many as the options allow.
pub fn explore<F>(scenario: &Scenario<F>, options: &Options) -> Report {
    let mut report = Report { seed: options.seed, ..Report::default() };
    report.exhausted = match &scenario.folding {
        Some(folding) => explore_states(scenario, folding, options, &mut report),
        None => explore_from(scenario, options, None, &mut report, &mut |_, _, _, _| unreachable!()),
    };
    if !report.exhausted {
        let mut seeds = Generator::new(options.seed);
        for _ in 0..options.random_cases {
            let world = CrashWorld::new(Choices::random(seeds.next_word()), options.limits.clone());
            let ending =
                Case { scenario, options, world: &world, in_pieces: false }.live_from_the_beginning();
            report.note(scenario, options, &world, &ReplayId::start(), &ending);
            report.random_cases += 1;
        }
    }
    report
}

/// A machine about to start, and how it came to that.
struct State<F> {
    snapshot: Snapshot,
    facts: F,
    starts: u32,
    copy: fn(&F) -> F,
    id: ReplayId,
}

/// Goes from state to state, once from each. Returns whether that was all.
fn explore_states<F>(
    scenario: &Scenario<F>,
    folding: &Folding<F>,
    options: &Options,
    report: &mut Report,
) -> bool {
    let mut known = HashSet::new();
    let mut waiting = Vec::new();
    let mut from: Option<State<F>> = None;
    loop {
        let mut folded = 0;
        let all = explore_from(scenario, options, from.as_ref(), report, &mut |world, facts, starts, id| {
            let mut hash = Mixer::new();
            hash.word(u64::from(starts));
            hash.word((folding.fingerprint)(&facts));
            world.hash(&mut hash);
            if known.insert(hash.finish()) {
                waiting.push(State { snapshot: world.snapshot(), facts, starts, copy: folding.copy, id });
            } else if starts == 0 {
                folded += 1;
            }
        });
        report.folded += folded;
        if !all {
            return false;
        }
        from = waiting.pop();
        if from.is_none() {
            return true;
        }
    }
}

/// Runs every case from the beginning, or from one state to the next ones, which `on_pause` is told. Returns whether
/// the budget was enough.
fn explore_from<F>(
    scenario: &Scenario<F>,
    options: &Options,
    from: Option<&State<F>>,
    report: &mut Report,
    on_pause: &mut dyn FnMut(&CrashWorld, F, u32, ReplayId),
) -> bool {
    let mut choices = Choices::exhaustive();
    let start = ReplayId::start();
    let so_far = from.map_or(&start, |state| &state.id);
    let in_pieces = scenario.folding.is_some();
    while report.cases < options.cases {
        let limits = options.limits.clone();
        let (world, ending) = match from {
            None => {
                let world = CrashWorld::new(choices, limits);
                let ending = Case { scenario, options, world: &world, in_pieces }.live_from_the_beginning();
                (world, ending)
            }
            Some(state) => {
                let world = CrashWorld::restore(&state.snapshot, choices, limits);
                let facts = (state.copy)(&state.facts);
                let ending = Case { scenario, options, world: &world, in_pieces }
                    .live_from_a_state(facts, state.starts);
                (world, ending)
            }
        };
        report.note(scenario, options, &world, so_far, &ending);
        if let Ending::Paused(facts, starts) = ending {
            on_pause(&world, facts, starts, so_far.then(&world.with_choices(|choices| choices.id())));
        }
        choices = world.with_choices(|choices| choices.clone());
        if !choices.advance() {
            return true;
        }
    }
    false
}

impl Report {
    /// Both together, of two scenarios.
    pub fn add(&mut self, other: Report) {
        self.crash_points += other.crash_points;
        self.states += other.states;
        self.folded += other.folded;
        self.cases += other.cases;
        self.random_cases += other.random_cases;
        self.exhausted &= other.exhausted;
        self.violation_count += other.violation_count;
        self.violations.extend(other.violations);
    }

    /// Writes down what came of a case.
    fn note<F>(
        &mut self,
        scenario: &Scenario<F>,
        options: &Options,
        world: &CrashWorld,
        so_far: &ReplayId,
        ending: &Ending<F>,
    ) {
        let counters = world.counters();
        self.crash_points += counters.crash_points;
        self.states += counters.images;
        self.cases += 1;
        let Ending::Broken(invariant) = ending else {
            return;
        };
        self.violation_count += 1;
        if self.violations.len() < options.kept_violations {
            let id = so_far.then(&world.with_choices(|choices| choices.id()));
            let again = replay_id(scenario, options, &id);
            self.violations.push(match again {
                Some(again) if again.invariant == *invariant => again,
                Some(_) | None => Violation {
                    id,
                    invariant: format!("the scenario is not deterministic: {invariant}"),
                    trace: Vec::new(),
                },
            });
        }
    }
}

/// Runs exactly one case, given as a report printed it.
///
/// # Panics
/// When `id` is not a replay id.
pub fn replay<F>(scenario: &Scenario<F>, options: &Options, id: &str) -> Option<Violation> {
    let id: ReplayId = id.parse().expect("a replay id");
    replay_id(scenario, options, &id)
}

fn replay_id<F>(scenario: &Scenario<F>, options: &Options, id: &ReplayId) -> Option<Violation> {
    let world = CrashWorld::new(Choices::replay(id), options.limits.clone());
    world.keep_trace();
    let case = Case { scenario, options, world: &world, in_pieces: false };
    match case.live_from_the_beginning() {
        Ending::Holds | Ending::Paused(..) => None,
        Ending::Broken(invariant) => Some(Violation { id: id.clone(), invariant, trace: world.take_trace() }),
    }
}

/// How a case ended.
enum Ending<F> {
    Holds,
    /// Not yet: it was followed up to a power cut, or a start in good order with nothing pending. The facts, and
    /// the starts since the last cut.
    Paused(F, u32),
    Broken(String),
}

/// How a part of a case ended.
enum Part<T> {
    Done(T),
    Cut,
    Broken(String),
}

struct Case<'a, F> {
    scenario: &'a Scenario<F>,
    options: &'a Options,
    world: &'a CrashWorld,
    in_pieces: bool,
}

impl<F> Case<'_, F> {
    fn live_from_the_beginning(&self) -> Ending<F> {
        let (world, scenario) = (self.world, self.scenario);
        world.set_cuts_allowed(0);
        let mut facts = match attempt(|| Ok((scenario.set_up)(world))) {
            Part::Done(facts) => facts,
            Part::Cut => return Ending::Broken("the power was cut during the set-up".to_owned()),
            Part::Broken(invariant) => return Ending::Broken(invariant),
        };
        world.settle_everything();
        world.set_cuts_allowed(self.options.limits.cuts);
        world.start();
        let ran = match self.part("run", || (scenario.run)(world, &mut facts)) {
            Part::Done(()) => self.idle(),
            cut_or_broken @ (Part::Cut | Part::Broken(_)) => cut_or_broken,
        };
        self.judged(match ran {
            Part::Done(()) => self.start_until_settled(facts, 1),
            Part::Cut => self.after_cut(facts),
            Part::Broken(invariant) => Ending::Broken(invariant),
        })
    }

    fn live_from_a_state(&self, facts: F, starts: u32) -> Ending<F> {
        self.judged(self.start_until_settled(facts, starts))
    }

    /// A machine that was written to while it was off proves nothing.
    fn judged(&self, ending: Ending<F>) -> Ending<F> {
        match self.world.misuse().into_iter().next() {
            Some(misuse) => Ending::Broken(misuse),
            None => ending,
        }
    }

    fn after_cut(&self, facts: F) -> Ending<F> {
        if self.in_pieces { Ending::Paused(facts, 0) } else { self.start_until_settled(facts, 0) }
    }

    /// Starts the machine until the client wants nothing more. `starts` were made since the last cut.
    fn start_until_settled(&self, mut facts: F, mut starts: u32) -> Ending<F> {
        let (world, scenario) = (self.world, self.scenario);
        loop {
            if starts > self.options.starts {
                return Ending::Broken(format!("not settled after {} starts", self.options.starts));
            }
            starts += 1;
            world.start();
            let recovered = match self.part("boot", || (scenario.boot)(world, &mut facts)) {
                Part::Done(()) => self.part("recover", || (scenario.recover)(world, &mut facts)),
                Part::Cut => Part::Cut,
                Part::Broken(invariant) => Part::Broken(invariant),
            };
            let settled = match recovered {
                Part::Done(After::Reboot) if self.in_pieces && !world.anything_pending() => {
                    return Ending::Paused(facts, starts);
                }
                Part::Done(After::Reboot) => continue,
                Part::Done(After::Settled) => self.settled(&facts),
                Part::Cut => Part::Cut,
                Part::Broken(invariant) => Part::Broken(invariant),
            };
            match settled {
                Part::Done(()) => return Ending::Holds,
                Part::Broken(invariant) => return Ending::Broken(invariant),
                Part::Cut if self.in_pieces => return Ending::Paused(facts, 0),
                Part::Cut => starts = 0,
            }
        }
    }

    fn settled(&self, facts: &F) -> Part<()> {
        let (world, scenario) = (self.world, self.scenario);
        match self.part("check", || (scenario.check)(world, facts)) {
            Part::Done(()) => self.idle(),
            Part::Cut => Part::Broken("a check must not do operations".to_owned()),
            broken @ Part::Broken(_) => broken,
        }
    }

    /// The machine does nothing for a while. Losing power now matters only if something is pending.
    fn idle(&self) -> Part<()> {
        if self.world.anything_pending() && self.world.cuts_left() {
            self.part("idle", || {
                self.world.crash_point("idle");
                Ok(())
            })
        } else {
            Part::Done(())
        }
    }

    fn part<T>(&self, name: &str, act: impl FnOnce() -> Result<T, String>) -> Part<T> {
        self.world.note(|| format!("-- {name}"));
        let part = attempt(act);
        if let Part::Done(_) = part {
            if self.world.is_off() {
                return Part::Broken(format!("{name} swallowed a power cut"));
            }
        }
        part
    }
}

/// Runs something that may lose power or fail.
fn attempt<T>(act: impl FnOnce() -> Result<T, String>) -> Part<T> {
    // Facts are only changed between operations, and a power cut happens inside one.
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Part::Done(value),
        Ok(Err(invariant)) => Part::Broken(invariant),
        Err(payload) if payload.is::<PowerCut>() => Part::Cut,
        Err(payload) => Part::Broken(format!("panicked: {}", panic_message(payload.as_ref()))),
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("with no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SECTOR_LEN;
    use client_core::storage::BlockDevice;

    /// Writes 1, 2, 3 to one sector with a sync each; a check that knows better than to allow 2 fails.
    fn counting(allowed: fn(u8) -> bool) -> Scenario<()> {
        Scenario::new(|world| world.add_device("disk", vec![0; SECTOR_LEN]))
            .run(|world, ()| {
                let mut disk = world.open("disk");
                for number in 1..=3 {
                    disk.write_at(0, &[number; SECTOR_LEN]).unwrap();
                    disk.sync().unwrap();
                }
                Ok(())
            })
            .check(move |world, ()| {
                let found = world.durable("disk")[0];
                if allowed(found) { Ok(()) } else { Err(format!("found {found}")) }
            })
    }

    fn whole_sectors(cuts: u32) -> Options {
        let mut options = Options::cuts(cuts);
        options.limits.tears.clear();
        options
    }

    #[test]
    fn every_operation_is_cut_with_every_image() {
        let report = explore(&counting(|_| true), &whole_sectors(1));
        report.assert_holds();
        assert!(report.exhausted);
        assert_eq!((report.crash_points, report.states, report.cases), (6, 12, 13));
    }

    #[test]
    fn going_on_from_states_finds_what_going_from_the_beginning_finds() {
        let options = whole_sectors(2);
        let (slow, fast) = (counting(|found| found != 2), counting(|found| found != 2).fold_equal_states());
        let (slow, fast) = (explore(&slow, &options), explore(&fast, &options));
        assert!(fast.folded > 0);
        assert!(slow.violation_count >= fast.violation_count && fast.violation_count > 0);
        slow.assert_violates("found 2");
        fast.assert_violates("found 2");
    }

    #[test]
    fn a_violation_is_replayed_by_its_id_and_by_no_other() {
        let (scenario, options) = (counting(|found| found != 2), whole_sectors(1));
        let report = explore(&scenario, &options);
        let first = &report.violations[0];
        let again = replay(&scenario, &options, &first.id.to_string()).unwrap();
        assert_eq!((again.invariant, again.trace.clone()), (first.invariant.clone(), first.trace.clone()));
        assert!(again.trace.iter().any(|line| line.starts_with("POWER CUT")));
        assert!(replay(&scenario, &options, "0").is_none());
    }

    #[test]
    fn beyond_the_budget_cases_are_drawn_from_a_seed() {
        let options = whole_sectors(1).budget(3, 200);
        let report = explore(&counting(|found| found != 2), &options);
        assert!(!report.exhausted);
        assert_eq!((report.cases, report.random_cases), (203, 200));
        report.assert_violates("found 2");
    }

    #[test]
    fn a_panic_of_the_code_under_test_is_a_violation() {
        let scenario = counting(|_| true).recover(|_, ()| panic!("an invariant of its own"));
        explore(&scenario, &Options { kept_violations: 1, ..whole_sectors(0) })
            .assert_violates("panicked: an invariant of its own");
    }

    #[test]
    fn a_client_that_reboots_for_ever_is_a_violation() {
        let scenario = counting(|_| true).recover(|_, ()| Ok(After::Reboot)).fold_equal_states();
        explore(&scenario, &whole_sectors(0)).assert_violates("not settled after");
    }

    #[test]
    fn a_destructor_that_writes_after_the_cut_is_a_violation() {
        struct WritesWhenDropped(crate::storage::CrashDevice);
        impl Drop for WritesWhenDropped {
            fn drop(&mut self) {
                self.0.write_at(0, &[9]).unwrap_or_default();
            }
        }
        let scenario = counting(|_| true).run(|world, ()| {
            let mut guard = WritesWhenDropped(world.open("disk"));
            guard.0.write_at(0, &[1]).unwrap();
            guard.0.sync().unwrap();
            Ok(())
        });
        explore(&scenario, &whole_sectors(1)).assert_violates("after the power was cut");
    }
}
