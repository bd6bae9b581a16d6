//! What the configuration of a device says about its gates, all of it together.

use std::time::Duration;

use super::{Answer, Gate, HealthCheck, MaintenanceWindow, PendingQuestion, Question, WeekTime};

/// The gates of one device. The default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateRules {
    /// When updates may disturb.
    pub window: Option<MaintenanceWindow>,
    /// Where somebody on the device is asked.
    pub ask_before: Vec<Gate>,
    /// When silence becomes a refusal; `None` for never.
    pub ask_timeout: Option<Duration>,
    /// What must be well before the commit.
    pub health: Option<HealthCheck>,
}

/// When it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// On the monotonic clock.
    pub now: Duration,
    /// Since 1970, as far as the device knows.
    pub wall: Duration,
    /// The same in the week, in the time zone in which the window counts.
    pub week: WeekTime,
}

impl GateRules {
    /// Those that hold for somebody at a prompt: whoever gave the command has decided that it is time. Whether the new
    /// software is well is another question.
    pub fn attended(self) -> GateRules {
        GateRules { health: self.health, ..GateRules::default() }
    }

    /// Whether there is anything to ask at `gate`.
    pub fn watches(&self, gate: Gate) -> bool {
        self.window.as_ref().is_some_and(|window| window.before.contains(&gate))
            || self.ask_before.contains(&gate)
            || self.health_check_at(gate).is_some()
    }

    /// What window and people say. A deployment that no server ordered waits for neither.
    pub fn ask(&self, question: &Question<'_>, moment: Moment, pending: &mut PendingQuestion) -> Answer {
        let (gate, Some(deployment)) = (question.gate, question.deployment) else { return Answer::PASS };
        let window = self.window.as_ref();
        let windows_word = window.map_or(Answer::PASS, |window| window.ask(gate, moment.wall, moment.week));
        // Nobody is asked at an hour at which the answer would change nothing.
        windows_word.and_then(|| match self.ask_before.contains(&gate) {
            true => pending.ask(gate, deployment, self.ask_timeout, moment.now),
            false => Answer::PASS,
        })
    }

    /// The check that guards `gate`, if one does.
    pub fn health_check_at(&self, gate: Gate) -> Option<&HealthCheck> {
        self.health.as_ref().filter(|_| gate == Gate::Commit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decision, Window};
    use super::*;

    /// Wednesday, 2026-11-18 01:59:00 UTC, and so many seconds later.
    fn moment(later: u64) -> Moment {
        let wall = Duration::from_secs(1_794_967_140 + later);
        Moment { now: Duration::from_secs(later), wall, week: WeekTime::utc(wall) }
    }

    fn before(gate: Gate) -> Question<'static> {
        Question { gate, deployment: Some("d1"), artifact_name: "a", cost: None }
    }

    fn rules() -> GateRules {
        let times = vec![Window::parse(&["wed"], "02:00", "04:00").unwrap()];
        GateRules {
            window: Some(MaintenanceWindow { times, before: vec![Gate::Install], utc: true }),
            ask_before: vec![Gate::Install, Gate::Reboot],
            ask_timeout: None,
            health: Some(HealthCheck {
                commands: vec!["true".into()],
                units: vec![],
                timeout: Duration::from_secs(9),
                interval: Duration::from_secs(1),
            }),
        }
    }

    #[test]
    fn a_gate_is_watched_when_any_rule_names_it() {
        let watched = |rules: &GateRules| Gate::ALL.map(|gate| rules.watches(gate));
        assert_eq!(watched(&GateRules::default()), [false; 4]);
        assert_eq!(watched(&rules()), [false, true, true, true]);
        assert_eq!(watched(&rules().attended()), [false, false, false, true]);
        assert_eq!(watched(&GateRules { window: None, health: None, ..rules() }), [false, true, true, false]);
        let only_window = GateRules { window: rules().window, ..GateRules::default() };
        assert_eq!(watched(&only_window), [false, true, false, false]);
    }

    #[test]
    fn somebody_is_asked_once_the_window_is_open() {
        let (rules, mut pending) = (rules(), PendingQuestion::default());
        let outside = rules.ask(&before(Gate::Install), moment(0), &mut pending);
        assert!(
            matches!(&outside, Answer::Closed { reason, .. } if reason.contains("window")),
            "{outside:?}"
        );
        assert_eq!(pending, PendingQuestion::default());
        let asked = rules.ask(&before(Gate::Install), moment(60), &mut pending);
        assert!(matches!(&asked, Answer::Closed { reason, .. } if reason.contains("asked")), "{asked:?}");
        pending.decide(None, None, Decision::Allow).unwrap();
        let allowed = rules.ask(&before(Gate::Install), moment(61), &mut pending);
        assert_eq!(allowed, Answer::Open { note: Some("allowed on the device".into()) });
        assert_eq!(rules.ask(&before(Gate::Download), moment(0), &mut pending), Answer::PASS);
    }

    #[test]
    fn whoever_gave_the_command_is_not_asked_whether_it_is_time() {
        let attended = Question { deployment: None, ..before(Gate::Install) };
        let mut pending = PendingQuestion::default();
        assert_eq!(rules().ask(&attended, moment(0), &mut pending), Answer::PASS);
        assert_eq!(pending, PendingQuestion::default());
    }

    #[test]
    fn the_health_check_guards_the_commit_and_nothing_else() {
        let guarded = Gate::ALL.map(|gate| rules().health_check_at(gate).is_some());
        assert_eq!(guarded, [false, false, false, true]);
    }
}
