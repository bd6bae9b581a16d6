//! Update control maps: where a deployment goes on, pauses or fails before it installs, restarts or commits.
//!
//! Other programs of the device set them, each for itself and with an end: a program that dies must not stop
//! updates for ever. They survive a restart, with an end of their own. What a map says is decided here; where they are
//! kept is the business of the caller.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Answer, Gate};

/// Longest map, in bytes.
const MAP_BYTES: usize = 16 * 1024;
/// Maps at the same time: one for each program that has a say, with room for those that left theirs.
const MAPS: usize = 32;
/// How often a pause is looked at again at least; a new map wakes whoever waits.
const AGAIN: Duration = Duration::from_secs(600);

/// What a map calls the state that `gate` stands before. There is no word about downloads.
fn state_name(gate: Gate) -> Option<&'static str> {
    match gate {
        Gate::Download => None,
        Gate::Install => Some("ArtifactInstall_Enter"),
        Gate::Reboot => Some("ArtifactReboot_Enter"),
        Gate::Commit => Some("ArtifactCommit_Enter"),
    }
}

/// What a map wants at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ControlAction {
    /// Go on: this map has no objection.
    Continue,
    /// Go on, whatever maps of lower priority say.
    ForceContinue,
    /// Wait until another map comes or this one ends.
    Pause,
    /// End the deployment as a failed one.
    Fail,
}

impl ControlAction {
    const ALL: [ControlAction; 4] =
        [ControlAction::Continue, ControlAction::ForceContinue, ControlAction::Pause, ControlAction::Fail];

    fn name(self) -> &'static str {
        match self {
            ControlAction::Continue => "continue",
            ControlAction::ForceContinue => "force_continue",
            ControlAction::Pause => "pause",
            ControlAction::Fail => "fail",
        }
    }
}

/// Why a map is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlMapError {
    /// Longer than any sensible one.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not what a map looks like.
    Malformed(String),
    /// There are too many already.
    TooMany,
}

impl fmt::Display for ControlMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlMapError::TooLong { bytes } => {
                write!(f, "a control map of {bytes} bytes is longer than {MAP_BYTES}")
            }
            ControlMapError::Malformed(reason) => write!(f, "not a control map: {reason}"),
            ControlMapError::TooMany => write!(f, "there are {MAPS} control maps already"),
        }
    }
}

impl std::error::Error for ControlMapError {}

/// What a map says about one gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    action: ControlAction,
    on_map_expire: ControlAction,
    on_action_executed: ControlAction,
}

/// One map.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ControlMap {
    id: String,
    /// From -10 to 10; a higher one is asked first.
    priority: i64,
    rules: BTreeMap<Gate, Rule>,
}

/// The maps that have a say. Times are those of [`Clock::now`](crate::clock::Clock::now).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlMaps {
    /// Each with its end.
    maps: Vec<(ControlMap, Duration)>,
    lifetime: Duration,
}

impl ControlMaps {
    /// No maps. New ones are good for `lifetime`.
    pub fn new(lifetime: Duration) -> ControlMaps {
        ControlMaps { maps: Vec::new(), lifetime }
    }

    /// These, and the maps of the `document` that an earlier process kept; those are good until `end`.
    ///
    /// # Errors
    /// Why the document cannot be understood, in words.
    pub fn with_kept(self, document: &[u8], end: Duration) -> Result<ControlMaps, String> {
        let value: Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        let kept = value["maps"].as_array().ok_or("it has no list of maps")?;
        let kept = kept.iter().take(MAPS).map(|map| Ok((ControlMap::from_json(map)?, end)));
        let maps = self.maps.into_iter().map(Ok).chain(kept).collect::<Result<_, String>>()?;
        Ok(ControlMaps { maps, lifetime: self.lifetime })
    }

    /// The document to keep for the next process.
    pub fn to_json(&self) -> Value {
        let maps: Vec<Value> = self.maps.iter().map(|(map, _)| map.to_json()).collect();
        json!({ "maps": maps })
    }

    /// Takes a map in place of the one with its id and priority; one without states only removes that. Says
    /// after how long it should be sent again.
    ///
    /// # Errors
    /// When it is not one, or there are too many: nothing has changed then.
    pub fn accept(&mut self, text: &str, now: Duration) -> Result<Duration, ControlMapError> {
        if text.len() > MAP_BYTES {
            return Err(ControlMapError::TooLong { bytes: text.len() });
        }
        let value =
            serde_json::from_str(text).map_err(|error| ControlMapError::Malformed(error.to_string()))?;
        let map = ControlMap::from_json(&value).map_err(ControlMapError::Malformed)?;
        let mut maps = self.maps.clone();
        maps.retain(|(known, _)| (&known.id, known.priority) != (&map.id, map.priority));
        if !map.rules.is_empty() {
            if maps.len() >= MAPS {
                // One that has ended has had its say.
                let ended = maps.iter().position(|(_, end)| *end <= now).ok_or(ControlMapError::TooMany)?;
                maps.remove(ended);
            }
            maps.push((map, now.saturating_add(self.lifetime)));
        }
        self.maps = maps;
        Ok(self.lifetime / 2)
    }

    /// Whether a map says anything about `gate`.
    pub fn watches(&self, gate: Gate) -> bool {
        self.maps.iter().any(|(map, _)| map.rules.contains_key(&gate))
    }

    /// Whether a deployment may pass `gate`. What was said is carried out with that: maps that asked for it may say
    /// something else from now on, and those that ended have no say in the next deployment.
    pub fn ask(&mut self, gate: Gate, now: Duration) -> Answer {
        let action = self.action_for(gate, now);
        match action {
            ControlAction::Continue => Answer::PASS,
            ControlAction::ForceContinue => {
                self.executed(gate, action, now);
                Answer::Open { note: Some("a control map lets it go on".to_owned()) }
            }
            // Carried out until another map comes or this one ends.
            ControlAction::Pause => Answer::Closed {
                reason: "paused by a control map".to_owned(),
                ask_again: self.next_end_in(now).unwrap_or(AGAIN).min(AGAIN),
            },
            ControlAction::Fail => {
                self.executed(gate, action, now);
                self.maps.retain(|(_, end)| *end > now);
                Answer::Refused { reason: "by a control map".to_owned() }
            }
        }
    }

    /// What to do at `gate`: the highest priority that has a say decides, and in it the most careful map.
    fn action_for(&self, gate: Gate, now: Duration) -> ControlAction {
        let mut said: Vec<(i64, ControlAction)> = Vec::new();
        for (map, end) in &self.maps {
            if let Some(rule) = map.rules.get(&gate) {
                said.push((map.priority, if *end <= now { rule.on_map_expire } else { rule.action }));
            }
        }
        let weight = |action: ControlAction| match action {
            ControlAction::Continue => 0,
            ControlAction::ForceContinue => 1,
            ControlAction::Pause => 2,
            ControlAction::Fail => 3,
        };
        said.retain(|(_, action)| *action != ControlAction::Continue);
        let strongest = said.into_iter().max_by_key(|(priority, action)| (*priority, weight(*action)));
        strongest.map_or(ControlAction::Continue, |(_, action)| action)
    }

    /// `action` was carried out at `gate`.
    fn executed(&mut self, gate: Gate, action: ControlAction, now: Duration) {
        for (map, end) in &mut self.maps {
            if let Some(rule) = map.rules.get_mut(&gate).filter(|rule| *end > now && rule.action == action) {
                rule.action = rule.on_action_executed;
            }
        }
    }

    /// How long it takes until a map ends, after which it may say something else.
    fn next_end_in(&self, now: Duration) -> Option<Duration> {
        self.maps.iter().map(|(_, end)| *end).filter(|end| *end > now).min().map(|end| end - now)
    }
}

impl ControlMap {
    /// Refuses what it does not know: a word that was meant as a brake must not be overlooked.
    fn from_json(value: &Value) -> Result<ControlMap, String> {
        let object = value.as_object().ok_or("not an object")?;
        only_known(object, &["id", "priority", "states"])?;
        let id = object.get("id").and_then(Value::as_str).filter(|id| is_uuid(id)).ok_or("id is no UUID")?;
        let priority = match object.get("priority") {
            None => 0,
            Some(value) => value
                .as_i64()
                .filter(|priority| (-10..=10).contains(priority))
                .ok_or("priority is no whole number from -10 to 10")?,
        };
        let mut rules = BTreeMap::new();
        if let Some(states) = object.get("states").filter(|states| !states.is_null()) {
            for (name, state) in states.as_object().ok_or("states is not an object")? {
                let gate = Gate::ALL.into_iter().find(|gate| state_name(*gate) == Some(name));
                let gate = gate.ok_or_else(|| format!("there is no state {name:?}"))?;
                rules.insert(gate, Rule::from_json(state).map_err(|reason| format!("{name}: {reason}"))?);
            }
        }
        Ok(ControlMap { id: id.to_ascii_lowercase(), priority, rules })
    }

    fn to_json(&self) -> Value {
        let state = |(gate, rule): (&Gate, &Rule)| Some((state_name(*gate)?.to_owned(), rule.to_json()));
        let states: Map<String, Value> = self.rules.iter().filter_map(state).collect();
        json!({ "id": self.id, "priority": self.priority, "states": states })
    }
}

impl Rule {
    fn from_json(value: &Value) -> Result<Rule, String> {
        let object = value.as_object().ok_or("not an object")?;
        only_known(object, &["action", "on_map_expire", "on_action_executed"])?;
        let read = |key: &str| match object.get(key) {
            None => Ok(None),
            Some(value) => {
                // Empty is how "not set" is written.
                let known = ControlAction::ALL.into_iter().find(|action| value == action.name());
                if value == "" || known.is_some() { Ok(known) } else { Err(format!("{key} is {value}")) }
            }
        };
        let action = read("action")?.unwrap_or(ControlAction::Continue);
        let at_its_end = match action {
            ControlAction::Pause => ControlAction::Fail,
            ControlAction::Continue | ControlAction::ForceContinue | ControlAction::Fail => action,
        };
        let on_map_expire = read("on_map_expire")?.unwrap_or(at_its_end);
        if on_map_expire == ControlAction::Pause {
            return Err("a map that has ended cannot pause".to_owned());
        }
        Ok(Rule { action, on_map_expire, on_action_executed: read("on_action_executed")?.unwrap_or(action) })
    }

    fn to_json(self) -> Value {
        json!({
            "action": self.action.name(),
            "on_map_expire": self.on_map_expire.name(),
            "on_action_executed": self.on_action_executed.name(),
        })
    }
}

fn only_known(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key {key:?}")),
        None => Ok(()),
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn maps() -> ControlMaps {
        ControlMaps::new(LIFETIME)
    }

    fn restarted(maps: &ControlMaps) -> ControlMaps {
        let kept = maps.to_json().to_string();
        ControlMaps::new(LIFETIME).with_kept(kept.as_bytes(), Duration::from_secs(600)).unwrap()
    }

    fn set(maps: &mut ControlMaps, priority: i64, states: Value) {
        assert_eq!(maps.accept(&map(1, priority, states), Duration::ZERO).unwrap(), LIFETIME / 2);
    }

    fn at(maps: &ControlMaps, gate: Gate, seconds: u64) -> ControlAction {
        maps.action_for(gate, Duration::from_secs(seconds))
    }

    fn map(number: u32, priority: i64, states: Value) -> String {
        let id = format!("d0000000-0000-4000-8000-{number:012}");
        json!({ "id": id, "priority": priority, "states": states }).to_string()
    }

    #[test]
    fn a_map_pauses_until_it_is_replaced_or_ends() {
        let mut maps = maps();
        assert_eq!(at(&maps, Gate::Install, 0), ControlAction::Continue);
        set(&mut maps, 0, json!({ "ArtifactInstall_Enter": { "action": "pause" } }));
        assert_eq!(at(&maps, Gate::Install, 59), ControlAction::Pause);
        assert_eq!(at(&maps, Gate::Commit, 59), ControlAction::Continue);
        assert_eq!(maps.next_end_in(Duration::from_secs(50)), Some(Duration::from_secs(10)));
        // Unless it says otherwise, a pause that nobody cares for any more is a failure.
        assert_eq!(at(&maps, Gate::Install, 60), ControlAction::Fail);
        set(
            &mut maps,
            0,
            json!({ "ArtifactInstall_Enter": { "action": "pause", "on_map_expire": "continue" } }),
        );
        assert_eq!(at(&maps, Gate::Install, 60), ControlAction::Continue);
        set(&mut maps, 0, json!({}));
        assert_eq!(at(&maps, Gate::Install, 0), ControlAction::Continue);
    }

    #[test]
    fn what_a_map_says_is_an_answer_at_its_gates_and_at_no_others() {
        let closed = |seconds| Answer::Closed {
            reason: "paused by a control map".into(),
            ask_again: Duration::from_secs(seconds),
        };
        let open = Answer::Open { note: Some("a control map lets it go on".into()) };
        let refused = Answer::Refused { reason: "by a control map".into() };
        for (action, seconds, expected) in [
            ("continue", 0, Answer::PASS),
            ("pause", 0, closed(60)),
            ("pause", 59, closed(1)),
            ("pause", 60, refused.clone()),
            ("force_continue", 0, open),
            ("fail", 0, refused),
        ] {
            let mut maps = maps();
            assert!(Gate::ALL.iter().all(|gate| !maps.watches(*gate)));
            set(&mut maps, 0, json!({ "ArtifactInstall_Enter": { "action": action } }));
            assert_eq!(Gate::ALL.map(|gate| maps.watches(gate)), [false, true, false, false]);
            let now = Duration::from_secs(seconds);
            assert_eq!(maps.ask(Gate::Install, now), expected, "{action} {seconds}");
            assert_eq!(maps.ask(Gate::Download, now), Answer::PASS);
            assert_eq!(maps.ask(Gate::Commit, now), Answer::PASS);
        }
        // However long a map lives, it is looked at again now and then.
        let mut long = ControlMaps::new(Duration::from_secs(10_000));
        long.accept(&map(1, 0, json!({ "ArtifactInstall_Enter": { "action": "pause" } })), Duration::ZERO)
            .unwrap();
        assert_eq!(long.ask(Gate::Install, Duration::ZERO), closed(600));
    }

    #[test]
    fn a_map_that_has_ended_has_no_say_in_the_deployment_after_the_one_that_it_ended() {
        let mut maps = maps();
        set(&mut maps, 0, json!({ "ArtifactReboot_Enter": { "action": "pause" } }));
        assert!(matches!(maps.ask(Gate::Reboot, LIFETIME), Answer::Refused { .. }));
        assert_eq!(maps.ask(Gate::Reboot, LIFETIME), Answer::PASS);
    }

    #[test]
    fn the_highest_priority_with_a_say_decides_and_in_it_the_most_careful_map() {
        let mut maps = maps();
        let enter = |action: &str| json!({ "ArtifactCommit_Enter": { "action": action } });
        let mut expect = |priority, number, action, expected| {
            maps.accept(&map(number, priority, enter(action)), Duration::ZERO).unwrap();
            assert_eq!(at(&maps, Gate::Commit, 1), expected, "{priority} {action}");
        };
        expect(0, 1, "pause", ControlAction::Pause);
        expect(1, 2, "continue", ControlAction::Pause);
        expect(1, 3, "force_continue", ControlAction::ForceContinue);
        expect(1, 4, "pause", ControlAction::Pause);
        expect(1, 5, "fail", ControlAction::Fail);
        expect(10, 6, "force_continue", ControlAction::ForceContinue);
        expect(-10, 7, "fail", ControlAction::ForceContinue);
    }

    #[test]
    fn what_was_carried_out_may_change_what_is_said() {
        let mut maps = maps();
        let rule = json!({ "action": "force_continue", "on_action_executed": "pause" });
        set(&mut maps, 0, json!({ "ArtifactInstall_Enter": rule }));
        maps.ask(Gate::Reboot, Duration::ZERO);
        assert_eq!(at(&maps, Gate::Install, 1), ControlAction::ForceContinue);
        maps.ask(Gate::Install, Duration::ZERO);
        assert_eq!(at(&maps, Gate::Install, 1), ControlAction::Pause);
        assert_eq!(at(&restarted(&maps), Gate::Install, 1), ControlAction::Pause);
    }

    #[test]
    fn maps_survive_a_restart_with_an_end_of_their_own() {
        let mut maps = maps();
        set(
            &mut maps,
            3,
            json!({ "ArtifactReboot_Enter": { "action": "pause", "on_map_expire": "force_continue" } }),
        );
        let again = restarted(&maps);
        assert_eq!(at(&again, Gate::Reboot, 599), ControlAction::Pause);
        assert_eq!(at(&again, Gate::Reboot, 600), ControlAction::ForceContinue);
        assert_eq!(again.maps[0].0, maps.maps[0].0);
        for damaged in ["", "{}", "{\"maps\":[{}]}"] {
            let kept = ControlMaps::new(LIFETIME).with_kept(damaged.as_bytes(), LIFETIME);
            assert!(kept.is_err(), "{damaged}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_changes_nothing() {
        let mut maps = maps();
        set(&mut maps, 0, json!({ "ArtifactInstall_Enter": { "action": "pause" } }));
        let before = maps.clone();
        let good = map(1, 0, json!({}));
        for text in [
            "",
            "[]",
            "{}",
            &good.replace("d0000000-", "d000000-"),
            &good.replace("\"priority\":0", "\"priority\":11"),
            &good.replace("\"priority\":0", "\"priority\":0.5"),
            &good.replace("priority", "prio"),
            &map(1, 0, json!([])),
            &map(1, 0, json!({ "Download_Enter": { "action": "pause" } })),
            &map(1, 0, json!({ "ArtifactInstall_Enter": "pause" })),
            &map(1, 0, json!({ "ArtifactInstall_Enter": { "action": "stop" } })),
            &map(1, 0, json!({ "ArtifactInstall_Enter": { "on_map_expire": "pause" } })),
            &map(1, 0, json!({ "ArtifactInstall_Enter": { "on_expire": "fail" } })),
            &format!("{good}{}", " ".repeat(MAP_BYTES)),
        ] {
            assert!(maps.accept(text, Duration::ZERO).is_err(), "{text}");
            assert_eq!(maps, before, "{text}");
        }
    }

    #[test]
    fn there_are_only_so_many_and_one_that_ended_makes_room() {
        let mut maps = maps();
        let fail = || json!({ "ArtifactInstall_Enter": { "action": "fail" } });
        for number in 0..u32::try_from(MAPS).unwrap() {
            maps.accept(&map(number, 0, fail()), Duration::ZERO).unwrap();
        }
        let more = map(99, 0, fail());
        assert_eq!(maps.accept(&more, Duration::ZERO), Err(ControlMapError::TooMany));
        maps.accept(&map(1, 0, fail()), Duration::ZERO).unwrap();
        maps.accept(&more, LIFETIME).unwrap();
        assert_eq!(maps.maps.len(), MAPS);
    }
}
