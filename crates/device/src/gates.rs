//! Who may hold a deployment up on this device: the maintenance window, whoever is asked over the local socket, and the
//! health check before the commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{Config, HealthCheck, MaintenanceWindow};
use client_core::clock::Clock;
use client_core::deploy::gates::{Answer, Gate, Gatekeeper, Question};
use client_core::window::WeekTime;
use linux::health_check::{self, Unwell};
use linux::week_time;

use crate::compose::ConfigFiles;

/// How often it is looked at a window again at least: wall time may step.
const WINDOW_AGAIN: Duration = Duration::from_secs(600);
/// How often a question is looked at again at least; an answer wakes the daemon.
const QUESTION_AGAIN: Duration = Duration::from_secs(3600);
/// Before this time the clock was never set (2024-01-01 UTC, in seconds since 1970).
const CLOCK_WAS_SET: u64 = 1_704_067_200;

/// A question that waits for somebody on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenQuestion {
    /// Before what.
    pub gate: Gate,
    /// The deployment.
    pub deployment: String,
    /// When it was first asked, on the monotonic clock.
    since: Duration,
    /// What was said.
    answer: Option<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Yes,
    No(String),
}

/// Where questions lie and answers are given: shared by the gatekeeper and the socket.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    question: Arc<Mutex<Option<OpenQuestion>>>,
}

/// Why an answer cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSuchQuestion {
    /// Nothing is asked.
    NothingAsked,
    /// Something else is asked.
    AnotherOne,
}

impl Desk {
    fn question(&self) -> MutexGuard<'_, Option<OpenQuestion>> {
        self.question.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the question that lies here. `gate` and `deployment` must be those of the question, where they are given;
    /// `refused` is why not, and `None` means yes.
    ///
    /// # Errors
    /// When that is not what is asked.
    pub fn answer(
        &self,
        gate: Option<Gate>,
        deployment: Option<&str>,
        refused: Option<String>,
    ) -> Result<OpenQuestion, NoSuchQuestion> {
        let mut lying = self.question();
        let question = lying.as_mut().ok_or(NoSuchQuestion::NothingAsked)?;
        if gate.is_some_and(|gate| gate != question.gate)
            || deployment.is_some_and(|deployment| deployment != question.deployment)
        {
            return Err(NoSuchQuestion::AnotherOne);
        }
        question.answer = Some(refused.map_or(Said::Yes, Said::No));
        Ok(question.clone())
    }

    /// What was answered to `asked`; puts it here if it is not here yet. With the time since when it lies here.
    fn put(&self, asked: &Question<'_>, deployment: &str, now: Duration) -> (Option<Said>, Duration) {
        let mut lying = self.question();
        let same =
            lying.as_ref().is_some_and(|lying| lying.gate == asked.gate && lying.deployment == deployment);
        if !same {
            let deployment = deployment.to_owned();
            *lying = Some(OpenQuestion { gate: asked.gate, deployment, since: now, answer: None });
        }
        lying.as_ref().map_or((None, now), |question| (question.answer.clone(), question.since))
    }

    /// Nothing is asked any more.
    pub fn clear(&self) {
        *self.question() = None;
    }
}

/// Refuses to commit what made the configuration a bad one: the next daemon could not use it, and another update would
/// have to put it right.
pub struct ConfigurationGate(pub ConfigFiles);

impl Gatekeeper for ConfigurationGate {
    fn watches(&self, gate: Gate) -> bool {
        gate == Gate::Commit && self.0.problem().is_some()
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        match self.0.problem().filter(|_| question.gate == Gate::Commit) {
            Some(reason) => Answer::Refused { reason: format!("configuration: {reason}") },
            None => Answer::Open { note: None },
        }
    }
}

/// The gates of this device.
pub struct Gates {
    window: Option<MaintenanceWindow>,
    ask_before: Vec<Gate>,
    ask_timeout: Option<Duration>,
    health: Option<HealthCheck>,
    desk: Desk,
    clock: Arc<dyn Clock>,
    /// Asked first.
    others: Vec<Box<dyn Gatekeeper>>,
}

impl Gates {
    /// Asks `other` too, before these.
    pub fn behind(mut self, other: Box<dyn Gatekeeper>) -> Gates {
        self.others.push(other);
        self
    }

    /// Those of the daemon.
    pub fn of_daemon(config: &Config, desk: Desk, clock: Arc<dyn Clock>) -> Gates {
        Gates {
            window: config.maintenance_window.clone(),
            ask_before: config.ask_before.iter().filter_map(|name| Gate::named(name)).collect(),
            ask_timeout: Some(Duration::from_secs(config.ask_timeout_seconds)).filter(|time| !time.is_zero()),
            ..Gates::of_commands(config, desk, clock)
        }
    }

    /// Those of the command line: whoever gave the command has decided that it is time. Whether the new software is well
    /// is another question.
    pub fn of_commands(config: &Config, desk: Desk, clock: Arc<dyn Clock>) -> Gates {
        Gates {
            window: None,
            ask_before: Vec::new(),
            ask_timeout: None,
            health: config.health_check.clone(),
            desk,
            clock,
            others: Vec::new(),
        }
    }

    /// Why the window is closed, and for how long.
    fn window_closed(&self, gate: Gate) -> Option<(String, Duration)> {
        let window =
            self.window.as_ref().filter(|window| window.before.iter().any(|word| word == gate.name()))?;
        let wall = self.clock.wall();
        if wall.as_secs() < CLOCK_WAS_SET {
            return Some(("maintenance window, and the clock was not set yet".to_owned(), WINDOW_AGAIN));
        }
        let now = week_time(window, wall);
        let opens_in = window.times.iter().map(|times| times.opens_in(now)).min()?;
        if opens_in.is_zero() {
            return None;
        }
        Some(("outside of the maintenance window".to_owned(), opens_in.min(WINDOW_AGAIN)))
    }

    /// What whoever is asked says.
    fn asked(&self, question: &Question<'_>, deployment: &str) -> Answer {
        let now = self.clock.now();
        let (said, since) = self.desk.put(question, deployment, now);
        let waited = now.saturating_sub(since);
        match said {
            Some(Said::Yes) => Answer::Open { note: Some("allowed on the device".to_owned()) },
            Some(Said::No(reason)) => Answer::Refused { reason: format!("on the device: {reason}") },
            None => match self.ask_timeout {
                Some(timeout) if waited >= timeout => {
                    Answer::Refused { reason: format!("nobody answered in {} s", timeout.as_secs()) }
                }
                timeout => {
                    let left = timeout.map_or(QUESTION_AGAIN, |timeout| timeout.saturating_sub(waited));
                    Answer::Closed {
                        reason: "asked on the device".to_owned(),
                        ask_again: left.min(QUESTION_AGAIN),
                    }
                }
            },
        }
    }

    fn health(&self) -> Option<Answer> {
        let check = self.health.as_ref()?;
        let seconds = Duration::from_secs;
        let check = health_check::HealthCheck {
            commands: check.commands.clone(),
            units: check.units.clone(),
            timeout: seconds(check.timeout_seconds),
            interval: seconds(check.interval_seconds),
        };
        Some(match check.run(&*self.clock) {
            Ok(took) => {
                Answer::Open { note: Some(format!("health check passed after {} s", took.as_secs())) }
            }
            Err(Unwell::TimedOut { last }) => Answer::Refused { reason: format!("health check: {last}") },
            // Whoever asked sees the stop and decides nothing.
            Err(Unwell::Stopped) => {
                Answer::Closed { reason: "asked to stop".to_owned(), ask_again: Duration::ZERO }
            }
        })
    }
}

fn week_time(window: &MaintenanceWindow, wall: Duration) -> WeekTime {
    let utc = week_time::utc(wall);
    if window.utc {
        return utc;
    }
    week_time::local(wall).unwrap_or_else(|error| {
        log::warn!("the maintenance window is taken as UTC: {error}");
        utc
    })
}

impl Gatekeeper for Gates {
    fn watches(&self, gate: Gate) -> bool {
        let in_window = |window: &MaintenanceWindow| window.before.iter().any(|word| word == gate.name());
        self.window.as_ref().is_some_and(in_window)
            || self.ask_before.contains(&gate)
            || gate == Gate::Commit && self.health.is_some()
            || self.others.iter().any(|other| other.watches(gate))
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        let mut notes = Vec::new();
        if let Some(deployment) = question.deployment {
            for other in &mut self.others {
                match other.ask(question) {
                    Answer::Open { note } => notes.extend(note),
                    answer @ (Answer::Closed { .. } | Answer::Refused { .. }) => return answer,
                }
            }
            if let Some((reason, ask_again)) = self.window_closed(question.gate) {
                return Answer::Closed { reason, ask_again };
            }
            if self.ask_before.contains(&question.gate) {
                match self.asked(question, deployment) {
                    Answer::Open { note } => notes.extend(note),
                    other @ (Answer::Closed { .. } | Answer::Refused { .. }) => return other,
                }
            }
        }
        if question.gate == Gate::Commit {
            match self.health() {
                Some(Answer::Open { note }) => notes.extend(note),
                Some(other @ (Answer::Closed { .. } | Answer::Refused { .. })) => return other,
                None => {}
            }
        }
        self.desk.clear();
        Answer::Open { note: Some(notes.join(", ")).filter(|note| !note.is_empty()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::config::Source;
    use client_core::clock::Paused;

    use super::*;

    /// A clock that is set by hand.
    #[derive(Default)]
    struct Hands {
        now: AtomicU64,
        wall: AtomicU64,
    }

    impl Clock for Hands {
        fn now(&self) -> Duration {
            Duration::from_secs(self.now.load(Ordering::Relaxed))
        }
        fn wall(&self) -> Duration {
            Duration::from_secs(self.wall.load(Ordering::Relaxed))
        }
        fn pause(&self, _: Duration) -> Paused {
            Paused::Elapsed
        }
        fn stop_requested(&self) -> bool {
            false
        }
        fn random(&self) -> u64 {
            0
        }
    }

    fn gates(rust_ota: &str) -> (Gates, Desk, Arc<Hands>) {
        let content = format!(r#"{{"RustOta":{rust_ota}}}"#);
        let config = Config::parse(&[Source { name: "test", content: content.as_bytes() }]).unwrap();
        let (desk, clock) = (Desk::default(), Arc::<Hands>::default());
        (Gates::of_daemon(&config, desk.clone(), clock.clone()), desk, clock)
    }

    fn before(gate: Gate) -> Question<'static> {
        Question { gate, deployment: Some("d1"), artifact_name: "a" }
    }

    #[test]
    fn without_configuration_nothing_is_watched() {
        let (gates, ..) = gates("{}");
        assert!(Gate::ALL.iter().all(|gate| !gates.watches(*gate)));
    }

    #[test]
    fn a_window_is_closed_until_it_opens_and_while_the_clock_was_never_set() {
        let (mut gates, _, clock) = gates(
            r#"{"MaintenanceWindow":{"Times":[{"Days":["wed"],"From":"02:00","To":"04:00"}],"Utc":true}}"#,
        );
        assert!(gates.watches(Gate::Install) && gates.watches(Gate::Reboot));
        assert!(!gates.watches(Gate::Download) && !gates.watches(Gate::Commit));
        let closed = |answer: Answer| match answer {
            Answer::Closed { reason, ask_again } => (reason, ask_again.as_secs()),
            other @ (Answer::Open { .. } | Answer::Refused { .. }) => panic!("{other:?}"),
        };
        let (reason, _) = closed(gates.ask(&before(Gate::Install)));
        assert!(reason.contains("clock was not set"), "{reason}");
        // Wednesday, 2026-11-18 01:59:00 UTC.
        clock.wall.store(1_794_967_140, Ordering::Relaxed);
        assert_eq!(closed(gates.ask(&before(Gate::Install))).1, 60);
        clock.wall.fetch_add(60, Ordering::Relaxed);
        assert_eq!(gates.ask(&before(Gate::Install)), Answer::Open { note: None });
        clock.wall.fetch_add(7200, Ordering::Relaxed);
        assert_eq!(closed(gates.ask(&before(Gate::Install))).1, WINDOW_AGAIN.as_secs());
        // A person who gives the command does not wait for the window.
        let attended = Question { deployment: None, ..before(Gate::Install) };
        assert_eq!(gates.ask(&attended), Answer::Open { note: None });
    }

    #[test]
    fn a_question_waits_for_its_own_answer() {
        let (mut gates, desk, clock) = gates(r#"{"AskBefore":["install","reboot"],"AskTimeoutSeconds":100}"#);
        assert_eq!(desk.answer(None, None, None), Err(NoSuchQuestion::NothingAsked));
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Closed { .. }));
        assert_eq!(desk.answer(Some(Gate::Reboot), None, None), Err(NoSuchQuestion::AnotherOne));
        assert_eq!(desk.answer(None, Some("d2"), None), Err(NoSuchQuestion::AnotherOne));
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Closed { .. }));
        desk.answer(Some(Gate::Install), Some("d1"), None).unwrap();
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Open { note: Some(_) }));
        // A yes is for one question only.
        assert!(matches!(gates.ask(&before(Gate::Reboot)), Answer::Closed { .. }));
        desk.answer(None, None, Some("we are at sea".into())).unwrap();
        let refused = gates.ask(&before(Gate::Reboot));
        assert_eq!(refused, Answer::Refused { reason: "on the device: we are at sea".into() });
        desk.clear();
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Closed { .. }));
        clock.now.fetch_add(100, Ordering::Relaxed);
        let refused = gates.ask(&before(Gate::Install));
        assert_eq!(refused, Answer::Refused { reason: "nobody answered in 100 s".into() });
    }

    #[test]
    fn the_health_check_guards_the_commit_and_nothing_else() {
        let (mut gates, ..) = gates(r#"{"HealthCheck":{"Commands":["exit 7"],"TimeoutSeconds":0}}"#);
        assert!(gates.watches(Gate::Commit) && !gates.watches(Gate::Install));
        let answer = gates.ask(&Question { deployment: None, ..before(Gate::Commit) });
        let Answer::Refused { reason } = answer else { panic!("{answer:?}") };
        assert!(reason.contains("exit 7: exit status: 7"), "{reason}");
    }
}
