//! Control maps as a gate: what programs on the bus have said about installing, restarting and committing.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::gates::{Answer, Gate, Gatekeeper, Question};

use super::control_maps::{ControlAction, ControlMaps, ControlPoint, SharedControlMaps};

/// How often a pause is looked at again at least; a new map wakes the daemon.
const PAUSE_AGAIN: Duration = Duration::from_secs(600);

/// Asks the maps.
pub struct ControlGate {
    maps: SharedControlMaps,
    clock: Arc<dyn Clock>,
}

impl ControlGate {
    /// A gate that these maps keep.
    pub fn new(maps: SharedControlMaps, clock: Arc<dyn Clock>) -> ControlGate {
        ControlGate { maps, clock }
    }

    fn maps(&self) -> MutexGuard<'_, ControlMaps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no word about downloads.
fn point(gate: Gate) -> Option<ControlPoint> {
    match gate {
        Gate::Download => None,
        Gate::Install => Some(ControlPoint::Install),
        Gate::Reboot => Some(ControlPoint::Reboot),
        Gate::Commit => Some(ControlPoint::Commit),
    }
}

impl Gatekeeper for ControlGate {
    fn watches(&self, gate: Gate) -> bool {
        point(gate).is_some_and(|point| self.maps().has_a_say_at(point))
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        let Some(point) = point(question.gate) else { return Answer::Open { note: None } };
        let now = self.clock.now();
        let mut maps = self.maps();
        let action = maps.action_for(point, now);
        match action {
            ControlAction::Continue => Answer::Open { note: None },
            ControlAction::ForceContinue => {
                maps.executed(point, action, now);
                Answer::Open { note: Some("a control map lets it go on".to_owned()) }
            }
            // Carried out until another map comes or this one ends.
            ControlAction::Pause => Answer::Closed {
                reason: "paused by a control map".to_owned(),
                ask_again: maps.next_end_in(now).unwrap_or(PAUSE_AGAIN).min(PAUSE_AGAIN),
            },
            ControlAction::Fail => {
                maps.executed(point, action, now);
                maps.forget_ended(now);
                Answer::Refused { reason: "by a control map".to_owned() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use linux::waiter::LinuxClock;
    use std::sync::Mutex;

    use super::*;

    const ID: &str = "d0000000-0000-4000-8000-000000000001";

    #[test]
    fn a_map_pauses_a_deployment_until_another_lets_it_go_on_or_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(LinuxClock::new());
        let hour = Duration::from_secs(3600);
        let maps = Arc::new(Mutex::new(ControlMaps::load(folder.path(), hour, hour, clock.now())));
        let mut gate = ControlGate::new(Arc::clone(&maps), clock.clone());
        let set = |action: &str| {
            let map =
                format!(r#"{{"id":"{ID}","states":{{"ArtifactInstall_Enter":{{"action":"{action}"}}}}}}"#);
            maps.lock().unwrap().accept(&map, clock.now()).unwrap();
        };
        let question = Question { gate: Gate::Install, deployment: Some("d"), artifact_name: "a" };
        assert!(!gate.watches(Gate::Install));
        set("pause");
        assert!(gate.watches(Gate::Install) && !gate.watches(Gate::Commit) && !gate.watches(Gate::Download));
        let answer = gate.ask(&question);
        let Answer::Closed { ask_again, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(ask_again, PAUSE_AGAIN);
        set("force_continue");
        assert!(matches!(gate.ask(&question), Answer::Open { note: Some(_) }));
        set("fail");
        assert!(matches!(gate.ask(&question), Answer::Refused { .. }));
    }
}
