//! Who may hold a deployment up on this device: what `client-core` makes of the rules of the configuration, with the facts
//! that it needs for that, and what else is asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::gates::{
    Answer, Decision, Gate, GateRules, Gatekeeper, Moment, NoSuchQuestion, OpenQuestion, PendingQuestion,
    Question, WeekTime,
};
use linux::{health_check, week_time};

use crate::config_files::ConfigFiles;

/// The question that waits for somebody on the device, where the gatekeeper and whoever answers both find it. Clones are
/// the same question.
#[derive(Debug, Clone, Default)]
pub struct SharedQuestion(Arc<Mutex<PendingQuestion>>);

impl SharedQuestion {
    /// Decides the question that waits, as [`PendingQuestion::decide`] does.
    ///
    /// # Errors
    /// When that is not what is asked.
    pub fn decide(
        &self,
        gate: Option<Gate>,
        deployment: Option<&str>,
        decision: Decision,
    ) -> Result<OpenQuestion, NoSuchQuestion> {
        self.lock().decide(gate, deployment, decision)
    }

    /// Nothing is asked any more.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// A thread that panicked leaves nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, PendingQuestion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    rules: GateRules,
    question: SharedQuestion,
    clock: Arc<dyn Clock>,
    /// Asked first, about deployments that a server ordered.
    others: Vec<Box<dyn Gatekeeper>>,
}

impl Gates {
    /// Keeps `rules`; what is asked lies in `question`.
    pub fn new(rules: GateRules, question: SharedQuestion, clock: Arc<dyn Clock>) -> Gates {
        Gates { rules, question, clock, others: Vec::new() }
    }

    /// Asks `other` too, before these.
    pub fn behind(mut self, other: Box<dyn Gatekeeper>) -> Gates {
        self.others.push(other);
        self
    }

    /// What the others say.
    fn others(&mut self, question: &Question<'_>) -> Answer {
        let others = self.others.iter_mut().filter(|_| question.deployment.is_some());
        others.fold(Answer::Open { note: None }, |said, other| said.and_then(|| other.ask(question)))
    }

    fn moment(&self) -> Moment {
        let wall = self.clock.wall();
        let in_utc = self.rules.window.as_ref().is_none_or(|window| window.utc);
        let week = if in_utc { WeekTime::utc(wall) } else { local_week_time(wall) };
        Moment { now: self.clock.now(), wall, week }
    }

    fn health(&self, gate: Gate) -> Answer {
        match self.rules.health_check_at(gate) {
            Some(check) => health_check::run(check, &*self.clock),
            None => Answer::Open { note: None },
        }
    }
}

fn local_week_time(wall: Duration) -> WeekTime {
    week_time::local(wall).unwrap_or_else(|error| {
        log::warn!("the maintenance window is taken as UTC: {error}");
        WeekTime::utc(wall)
    })
}

impl Gatekeeper for Gates {
    fn watches(&self, gate: Gate) -> bool {
        self.rules.watches(gate) || self.others.iter().any(|other| other.watches(gate))
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        let answer = self
            .others(question)
            .and_then(|| self.rules.ask(question, self.moment(), &mut self.question.lock()))
            .and_then(|| self.health(question.gate));
        if matches!(answer, Answer::Open { .. }) {
            self.question.clear();
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::config::{Config, Source};
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

    fn gates(rust_ota: &str) -> (Gates, SharedQuestion, Arc<Hands>) {
        let content = format!(r#"{{"RustOta":{rust_ota}}}"#);
        let config = Config::parse(&[Source { name: "test", content: content.as_bytes() }]).unwrap();
        let (question, clock) = (SharedQuestion::default(), Arc::<Hands>::default());
        (Gates::new(config.gates, question.clone(), clock.clone()), question, clock)
    }

    fn before(gate: Gate) -> Question<'static> {
        Question { gate, deployment: Some("d1"), artifact_name: "a", cost: None }
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
        // A person who gives the command does not wait for the window.
        clock.wall.fetch_add(7200, Ordering::Relaxed);
        let attended = Question { deployment: None, ..before(Gate::Install) };
        assert_eq!(gates.ask(&attended), Answer::Open { note: None });
    }

    #[test]
    fn a_question_waits_for_its_own_answer_and_is_forgotten_when_its_gate_opens() {
        let (mut gates, question, clock) =
            gates(r#"{"AskBefore":["install","reboot"],"AskTimeoutSeconds":100}"#);
        let allow = || Decision::Allow;
        assert_eq!(question.decide(None, None, allow()), Err(NoSuchQuestion::NothingAsked));
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Closed { .. }));
        assert_eq!(question.decide(Some(Gate::Reboot), None, allow()), Err(NoSuchQuestion::AnotherOne));
        question.decide(Some(Gate::Install), Some("d1"), allow()).unwrap();
        assert!(matches!(gates.ask(&before(Gate::Install)), Answer::Open { note: Some(_) }));
        assert_eq!(question.decide(None, None, allow()), Err(NoSuchQuestion::NothingAsked));
        assert!(matches!(gates.ask(&before(Gate::Reboot)), Answer::Closed { .. }));
        clock.now.fetch_add(100, Ordering::Relaxed);
        let refused = gates.ask(&before(Gate::Reboot));
        assert_eq!(refused, Answer::Refused { reason: "nobody answered in 100 s".into() });
    }

    #[test]
    fn others_are_asked_first_and_only_about_what_a_server_ordered() {
        struct No;
        impl Gatekeeper for No {
            fn watches(&self, gate: Gate) -> bool {
                gate == Gate::Download
            }
            fn ask(&mut self, _: &Question<'_>) -> Answer {
                Answer::Refused { reason: "no".into() }
            }
        }
        let (gates, question, _) = gates(r#"{"AskBefore":["install"]}"#);
        let mut gates = gates.behind(Box::new(No));
        assert_eq!(Gate::ALL.map(|gate| gates.watches(gate)), [true, true, false, false]);
        assert_eq!(gates.ask(&before(Gate::Install)), Answer::Refused { reason: "no".into() });
        assert_eq!(question.decide(None, None, Decision::Allow), Err(NoSuchQuestion::NothingAsked));
        let attended = Question { deployment: None, ..before(Gate::Install) };
        assert_eq!(gates.ask(&attended), Answer::Open { note: None });
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
