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
//! Cases are re-run from their beginning, so a scenario has to be deterministic but for
//! [`CrashWorld::choose`](crate::storage::CrashWorld::choose).

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::choice::{Choices, Generator, Mixer, ReplayId};
use crate::storage::{CrashWorld, Limits, PowerCut};

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
    fingerprint: Option<fn(&F) -> u64>,
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
            fingerprint: None,
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

    /// Goes on only once from equal machines with equal facts. Saves most of the work from the second cut on.
    #[must_use]
    pub fn fold_equal_states(mut self) -> Self
    where
        F: Hash,
    {
        self.fingerprint = Some(|facts| {
            let mut hasher = FactsHasher(Mixer::new());
            facts.hash(&mut hasher);
            hasher.finish()
        });
        self
    }
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
    /// Where the drawing starts.
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
            seed: 1,
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
    /// Places in which the power was cut, counted once each.
    pub crash_points: u64,
    /// Machines started after a cut, each with another history: crash points times images.
    pub states: u64,
    /// Those of them that equalled an earlier one and were not followed again.
    pub folded: u64,
    /// Histories run, whole or up to a folded state.
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
    let mut known = HashMap::new();
    let mut choices = Choices::exhaustive();
    while report.cases < options.cases {
        let mut case = Case::new(scenario, options, choices);
        case.known = Some(&mut known);
        choices = case.finish(&mut report);
        if !choices.advance() {
            report.exhausted = true;
            break;
        }
    }
    if !report.exhausted {
        let mut seeds = Generator::new(options.seed);
        for _ in 0..options.random_cases {
            Case::new(scenario, options, Choices::random(seeds.next_word())).finish(&mut report);
            report.random_cases += 1;
        }
    }
    report
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
    let mut case = Case::new(scenario, options, Choices::replay(id));
    case.world.keep_trace();
    let ending = case.live();
    match ending {
        Ending::Holds | Ending::Folded => None,
        Ending::Broken(invariant) => {
            Some(Violation { id: id.clone(), invariant, trace: case.world.take_trace() })
        }
    }
}

/// How a case ended.
enum Ending {
    Holds,
    Folded,
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
    world: CrashWorld,
    known: Option<&'a mut HashMap<u64, u64>>,
}

impl<'a, F> Case<'a, F> {
    fn new(scenario: &'a Scenario<F>, options: &'a Options, choices: Choices) -> Self {
        let world = CrashWorld::new(choices, options.limits.clone());
        Case { scenario, options, world, known: None }
    }

    /// Lives through the case and writes down what came of it.
    fn finish(mut self, report: &mut Report) -> Choices {
        let ending = self.live();
        let counters = self.world.counters();
        report.crash_points += counters.crash_points;
        report.states += counters.images;
        report.cases += 1;
        match ending {
            Ending::Holds => {}
            Ending::Folded => {
                if self.world.with_choices(|choices| choices.is_new()) {
                    report.folded += 1;
                }
            }
            Ending::Broken(invariant) => {
                report.violation_count += 1;
                if report.violations.len() < self.options.kept_violations {
                    let id = self.world.with_choices(|choices| choices.id());
                    let again = replay_id(self.scenario, self.options, &id);
                    report.violations.push(match again {
                        Some(again) if again.invariant == invariant => again,
                        Some(_) | None => Violation {
                            id,
                            invariant: format!("the scenario is not deterministic: {invariant}"),
                            trace: Vec::new(),
                        },
                    });
                }
            }
        }
        self.world.with_choices(|choices| choices.clone())
    }

    fn live(&mut self) -> Ending {
        let ending = self.history();
        // A machine that was written to while it was off proves nothing.
        match self.world.misuse().first() {
            Some(misuse) => Ending::Broken(misuse.clone()),
            None => ending,
        }
    }

    fn history(&mut self) -> Ending {
        let (world, scenario) = (self.world.clone(), self.scenario);
        world.set_limits_cuts(0);
        let mut facts = match attempt(|| Ok((scenario.set_up)(&world))) {
            Part::Done(facts) => facts,
            Part::Cut => return Ending::Broken("the power was cut during the set-up".to_owned()),
            Part::Broken(invariant) => return Ending::Broken(invariant),
        };
        world.settle_everything();
        world.set_limits_cuts(self.options.limits.cuts);
        world.start();

        let mut starts = match self.part("run", || (scenario.run)(&world, &mut facts)) {
            Part::Done(()) => match self.idle() {
                Part::Done(()) => 1,
                Part::Cut => 0,
                Part::Broken(invariant) => return Ending::Broken(invariant),
            },
            Part::Cut => 0,
            Part::Broken(invariant) => return Ending::Broken(invariant),
        };
        loop {
            if starts == 0 && self.is_known(&facts) {
                return Ending::Folded;
            }
            if starts > self.options.starts {
                return Ending::Broken(format!("not settled after {} starts", self.options.starts));
            }
            starts += 1;
            world.start();
            match self.part("boot", || (scenario.boot)(&world, &mut facts)) {
                Part::Done(()) => {}
                Part::Cut => {
                    starts = 0;
                    continue;
                }
                Part::Broken(invariant) => return Ending::Broken(invariant),
            }
            match self.part("recover", || (scenario.recover)(&world, &mut facts)) {
                Part::Done(After::Reboot) => {}
                Part::Done(After::Settled) => match self.settled(&facts) {
                    Part::Done(()) => return Ending::Holds,
                    Part::Cut => starts = 0,
                    Part::Broken(invariant) => return Ending::Broken(invariant),
                },
                Part::Cut => starts = 0,
                Part::Broken(invariant) => return Ending::Broken(invariant),
            }
        }
    }

    fn settled(&self, facts: &F) -> Part<()> {
        let (world, scenario) = (&self.world, self.scenario);
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

    /// Whether an earlier history led to this very state.
    fn is_known(&mut self, facts: &F) -> bool {
        let (Some(fingerprint), Some(known)) = (self.scenario.fingerprint, &mut self.known) else {
            return false;
        };
        let mut hash = Mixer::new();
        hash.word(fingerprint(facts));
        self.world.hash(&mut hash);
        let here = self.world.with_choices(|choices| choices.prefix_hash());
        let first = *known.entry(hash.finish()).or_insert(here);
        first != here
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
