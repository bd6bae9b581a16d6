//! The question that a deployment asks somebody on the device, and what was said to it.

use std::time::Duration;

use super::{Answer, Gate};

/// How often a question is looked at again at least; a decision wakes whoever waits for it.
const AGAIN: Duration = Duration::from_secs(3600);

/// What somebody says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The deployment may go on.
    Allow,
    /// It must not.
    Refuse {
        /// Why; the server is told.
        reason: String,
    },
}

/// A question that waits for somebody on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenQuestion {
    /// Before what.
    pub gate: Gate,
    /// The deployment.
    pub deployment: String,
    /// When it was first asked, on the monotonic clock.
    since: Duration,
    decision: Option<Decision>,
}

/// Why a decision cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSuchQuestion {
    /// Nothing is asked.
    NothingAsked,
    /// Something else is asked.
    AnotherOne,
}

/// The question that waits, if one does. There is one at a time: a deployment stands before one gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingQuestion(Option<OpenQuestion>);

impl PendingQuestion {
    /// Decides the question that waits. `gate` and `deployment` must be those of the question, where they are given, so
    /// that nobody allows what they did not see. What was decided.
    ///
    /// # Errors
    /// When that is not what is asked.
    pub fn decide(
        &mut self,
        gate: Option<Gate>,
        deployment: Option<&str>,
        decision: Decision,
    ) -> Result<OpenQuestion, NoSuchQuestion> {
        let question = self.0.as_mut().ok_or(NoSuchQuestion::NothingAsked)?;
        let is_another = gate.is_some_and(|gate| gate != question.gate)
            || deployment.is_some_and(|deployment| deployment != question.deployment);
        if is_another {
            return Err(NoSuchQuestion::AnotherOne);
        }
        question.decision = Some(decision);
        Ok(question.clone())
    }

    /// Asks whether `deployment` may pass `gate`: what was said to that, if anything was. After `patience` without a word it
    /// must not; without one it waits for ever.
    pub(super) fn ask(
        &mut self,
        gate: Gate,
        deployment: &str,
        patience: Option<Duration>,
        now: Duration,
    ) -> Answer {
        let same = self.0.take().filter(|known| known.gate == gate && known.deployment == deployment);
        let new = || OpenQuestion { gate, deployment: deployment.to_owned(), since: now, decision: None };
        let question = self.0.insert(same.unwrap_or_else(new));
        let waited = now.saturating_sub(question.since);
        match (&question.decision, patience) {
            (Some(Decision::Allow), _) => Answer::Open { note: Some("allowed on the device".to_owned()) },
            (Some(Decision::Refuse { reason }), _) => {
                Answer::Refused { reason: format!("on the device: {reason}") }
            }
            (None, Some(patience)) if waited >= patience => {
                Answer::Refused { reason: format!("nobody answered in {} s", patience.as_secs()) }
            }
            (None, patience) => Answer::Closed {
                reason: "asked on the device".to_owned(),
                ask_again: patience.map_or(AGAIN, |patience| (patience - waited).min(AGAIN)),
            },
        }
    }

    /// Nothing is asked any more: a decision is for one question only.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn closed(seconds: u64) -> Answer {
        Answer::Closed { reason: "asked on the device".into(), ask_again: Duration::from_secs(seconds) }
    }

    #[test]
    fn silence_becomes_a_refusal_when_there_is_an_end_to_patience() {
        for (patience, waited, expected) in [
            (None, 0, closed(3600)),
            (None, 1_000_000, closed(3600)),
            (Some(100), 0, closed(100)),
            (Some(100), 99, closed(1)),
            (Some(100_000), 0, closed(3600)),
            (Some(100), 100, Answer::Refused { reason: "nobody answered in 100 s".into() }),
        ] {
            let mut pending = PendingQuestion::default();
            let patience = patience.map(Duration::from_secs);
            let mut ask = |later| pending.ask(Gate::Install, "d", patience, SECOND + later);
            ask(Duration::ZERO);
            assert_eq!(ask(Duration::from_secs(waited)), expected, "{patience:?} {waited}");
        }
    }

    #[test]
    fn only_the_question_that_is_asked_is_decided() {
        let mut pending = PendingQuestion::default();
        let allow = || Decision::Allow;
        assert_eq!(pending.decide(None, None, allow()), Err(NoSuchQuestion::NothingAsked));
        pending.ask(Gate::Install, "d1", None, SECOND);
        for (gate, deployment) in
            [(Some(Gate::Reboot), None), (None, Some("d2")), (Some(Gate::Install), Some("d2"))]
        {
            assert_eq!(pending.decide(gate, deployment, allow()), Err(NoSuchQuestion::AnotherOne));
            assert_eq!(pending.ask(Gate::Install, "d1", None, SECOND), closed(3600));
        }
        let decided = pending.decide(Some(Gate::Install), Some("d1"), allow()).unwrap();
        assert_eq!((decided.gate, decided.deployment.as_str()), (Gate::Install, "d1"));
        let allowed = Answer::Open { note: Some("allowed on the device".into()) };
        assert_eq!(pending.ask(Gate::Install, "d1", None, SECOND), allowed);
    }

    #[test]
    fn a_decision_is_for_one_question_only() {
        let decided = |decision: Decision| {
            let mut pending = PendingQuestion::default();
            pending.ask(Gate::Install, "d1", None, SECOND);
            pending.decide(None, None, decision).unwrap();
            pending
        };
        for (gate, deployment) in [(Gate::Reboot, "d1"), (Gate::Install, "d2")] {
            assert_eq!(decided(Decision::Allow).ask(gate, deployment, None, SECOND), closed(3600));
        }
        let refusal = Decision::Refuse { reason: "we are at sea".into() };
        let refused = Answer::Refused { reason: "on the device: we are at sea".into() };
        let mut pending = decided(refusal);
        assert_eq!(pending.ask(Gate::Install, "d1", None, SECOND), refused);
        pending.clear();
        assert_eq!(pending.ask(Gate::Install, "d1", None, SECOND), closed(3600));
    }
}
