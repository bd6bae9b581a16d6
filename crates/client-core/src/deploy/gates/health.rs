//! Whether the system is well enough for an update to become permanent.

use std::time::Duration;

use super::Answer;

/// What must be well, all at once, and how long that may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Commands for a shell, which must exit with 0.
    pub commands: Vec<String>,
    /// Units of the service manager, which must be active.
    pub units: Vec<String>,
    /// Until all are well in one round.
    pub timeout: Duration,
    /// Between two rounds.
    pub interval: Duration,
}

/// How one round of the check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Round {
    /// Everything was well.
    Well,
    /// This was not.
    Problem(String),
    /// The process was asked to stop, and nothing is known.
    Stopped,
}

/// What follows from a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Another round, after the interval.
    Again {
        /// What was not well in this one.
        problem: String,
    },
    /// This is the answer.
    Settled(Answer),
}

impl HealthCheck {
    /// What follows from `round`, which ended when the check had taken `elapsed`.
    pub fn judge(&self, round: Round, elapsed: Duration) -> Judgement {
        Judgement::Settled(match round {
            Round::Well => {
                Answer::Open { note: Some(format!("health check passed after {} s", elapsed.as_secs())) }
            }
            // Whoever asked sees the stop and decides nothing.
            Round::Stopped => {
                Answer::Closed { reason: "asked to stop".to_owned(), ask_again: Duration::ZERO }
            }
            Round::Problem(problem) if elapsed.saturating_add(self.interval) < self.timeout => {
                return Judgement::Again { problem };
            }
            Round::Problem(last) => Answer::Refused { reason: format!("health check: {last}") },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_settles_the_check_when_all_is_well_or_no_time_is_left_for_another() {
        let seconds = Duration::from_secs;
        let check =
            HealthCheck { commands: vec![], units: vec![], timeout: seconds(10), interval: seconds(2) };
        let problem = || Round::Problem("disk".into());
        let again = Judgement::Again { problem: "disk".into() };
        let refused = Answer::Refused { reason: "health check: disk".into() };
        let passed = Answer::Open { note: Some("health check passed after 11 s".into()) };
        let stopped = Answer::Closed { reason: "asked to stop".into(), ask_again: Duration::ZERO };
        for (round, elapsed, expected) in [
            (problem(), 0, again.clone()),
            (problem(), 7, again),
            (problem(), 8, Judgement::Settled(refused.clone())),
            (problem(), u64::MAX, Judgement::Settled(refused)),
            // A round that took longer and went well is well.
            (Round::Well, 11, Judgement::Settled(passed)),
            (Round::Stopped, 11, Judgement::Settled(stopped)),
        ] {
            assert_eq!(check.judge(round.clone(), seconds(elapsed)), expected, "{round:?} {elapsed}");
        }
    }
}
