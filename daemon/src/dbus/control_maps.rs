//! Update control maps: where a deployment goes on, pauses or fails before it installs, restarts or commits.
//!
//! Other programs of the device set them, each for itself and with an end: a program that dies must not stop
//! updates for ever. They survive a restart, with an end of their own. What a map says is decided here; who
//! asks, waits and reports is the daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use linux::atomic_file;
use serde_json::{Map, Value, json};

/// Longest map, in bytes.
const MAP_BYTES: usize = 16 * 1024;
/// Maps at the same time: one for each program that has a say, with room for those that left theirs.
const MAPS: usize = 32;
/// Longest file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;
/// The file in the datastore.
const FILE_NAME: &str = "update-control-maps.json";

/// The store, as threads share it.
pub type SharedControlMaps = Arc<Mutex<ControlMaps>>;

/// Where a map may have a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlPoint {
    /// `ArtifactInstall_Enter`.
    Install,
    /// `ArtifactReboot_Enter`.
    Reboot,
    /// `ArtifactCommit_Enter`.
    Commit,
}

impl ControlPoint {
    const ALL: [ControlPoint; 3] = [ControlPoint::Install, ControlPoint::Reboot, ControlPoint::Commit];

    fn name(self) -> &'static str {
        match self {
            ControlPoint::Install => "ArtifactInstall_Enter",
            ControlPoint::Reboot => "ArtifactReboot_Enter",
            ControlPoint::Commit => "ArtifactCommit_Enter",
        }
    }
}

/// What to do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlAction {
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
#[derive(Debug)]
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
    /// It cannot be kept.
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl fmt::Display for ControlMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlMapError::TooLong { bytes } => {
                write!(f, "a control map of {bytes} bytes is longer than {MAP_BYTES}")
            }
            ControlMapError::Malformed(reason) => write!(f, "not a control map: {reason}"),
            ControlMapError::TooMany => write!(f, "there are {MAPS} control maps already"),
            ControlMapError::Io { path, source } => write!(f, "cannot write {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for ControlMapError {}

/// What a map says about one point.
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
    rules: BTreeMap<ControlPoint, Rule>,
}

/// The maps that have a say. Times are those of [`Clock::now`](client_core::clock::Clock::now).
#[derive(Debug)]
pub struct ControlMaps {
    /// Each with its end.
    maps: Vec<(ControlMap, Duration)>,
    lifetime: Duration,
    path: PathBuf,
}

impl ControlMaps {
    /// The maps that an earlier process kept in `datastore`, good for `after_start` from `now` on. New ones
    /// are good for `lifetime`. A file that cannot be read is none.
    pub fn load(datastore: &Path, lifetime: Duration, after_start: Duration, now: Duration) -> ControlMaps {
        let path = datastore.join(FILE_NAME);
        let end = now.saturating_add(after_start);
        let maps = match read(&path) {
            Ok(maps) => maps.into_iter().map(|map| (map, end)).collect(),
            Err(reason) => {
                log::warn!("the control maps in {} are lost: {reason}", path.display());
                Vec::new()
            }
        };
        ControlMaps { maps, lifetime, path }
    }

    /// Takes a map in place of the one with its id and priority; one without states only removes that. Says
    /// after how long it should be sent again.
    ///
    /// # Errors
    /// When it is not one or cannot be kept: nothing has changed then.
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
        write(&self.path, &maps).map_err(|source| ControlMapError::Io { path: self.path.clone(), source })?;
        self.maps = maps;
        Ok(self.lifetime / 2)
    }

    /// Whether a map says anything about `point`.
    pub fn has_a_say_at(&self, point: ControlPoint) -> bool {
        self.maps.iter().any(|(map, _)| map.rules.contains_key(&point))
    }

    /// What to do at `point`: the highest priority that has a say decides, and in it the most careful map.
    pub fn action_for(&self, point: ControlPoint, now: Duration) -> ControlAction {
        let mut said: Vec<(i64, ControlAction)> = Vec::new();
        for (map, end) in &self.maps {
            if let Some(rule) = map.rules.get(&point) {
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

    /// `action` was carried out at `point`: maps that asked for it may say something else from now on.
    pub fn executed(&mut self, point: ControlPoint, action: ControlAction, now: Duration) {
        let mut changed = false;
        for (map, end) in &mut self.maps {
            let rule = map.rules.get_mut(&point).filter(|rule| *end > now && rule.action == action);
            if let Some(rule) = rule {
                changed |= rule.action != rule.on_action_executed;
                rule.action = rule.on_action_executed;
            }
        }
        if changed {
            self.save();
        }
    }

    /// How long it takes until a map ends, after which [`action_for`](ControlMaps::action_for) may say something else.
    pub fn next_end_in(&self, now: Duration) -> Option<Duration> {
        self.maps.iter().map(|(_, end)| *end).filter(|end| *end > now).min().map(|end| end - now)
    }

    /// A deployment is over: maps that ended have no say in the next one.
    pub fn forget_ended(&mut self, now: Duration) {
        let before = self.maps.len();
        self.maps.retain(|(_, end)| *end > now);
        if self.maps.len() != before {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = write(&self.path, &self.maps) {
            // What was decided holds as long as this process lives; after a restart the older word holds.
            log::warn!("cannot write {}: {error}", self.path.display());
        }
    }
}

fn read(path: &Path) -> Result<Vec<ControlMap>, String> {
    let file = match linux::regular_file::open_for_reading(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut content = Vec::new();
    file.take(FILE_BYTES).read_to_end(&mut content).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_slice(&content).map_err(|error| error.to_string())?;
    let maps = value["maps"].as_array().ok_or("it has no list of maps")?;
    maps.iter().take(MAPS).map(ControlMap::from_json).collect()
}

fn write(path: &Path, maps: &[(ControlMap, Duration)]) -> io::Result<()> {
    let maps: Vec<Value> = maps.iter().map(|(map, _)| map.to_json()).collect();
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The content before the name: the file is whole whenever it is there.
    atomic_file::write_new(&new, json!({ "maps": maps }).to_string().as_bytes(), 0o600)?;
    atomic_file::publish(&new, path)
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
                let point = ControlPoint::ALL.into_iter().find(|point| point.name() == name);
                let point = point.ok_or_else(|| format!("there is no state {name:?}"))?;
                rules.insert(point, Rule::from_json(state).map_err(|reason| format!("{name}: {reason}"))?);
            }
        }
        Ok(ControlMap { id: id.to_ascii_lowercase(), priority, rules })
    }

    fn to_json(&self) -> Value {
        let states: Map<String, Value> =
            self.rules.iter().map(|(point, rule)| (point.name().to_owned(), rule.to_json())).collect();
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

    struct Fixture {
        folder: tempfile::TempDir,
        maps: ControlMaps,
    }

    impl Fixture {
        fn new() -> Fixture {
            let folder = tempfile::tempdir().unwrap();
            let maps = load(&folder);
            Fixture { folder, maps }
        }

        fn set(&mut self, priority: i64, states: Value) {
            let text = map(1, priority, states);
            assert_eq!(self.maps.accept(&text, Duration::ZERO).unwrap(), LIFETIME / 2);
        }

        fn at(&self, point: ControlPoint, seconds: u64) -> ControlAction {
            self.maps.action_for(point, Duration::from_secs(seconds))
        }
    }

    fn load(folder: &tempfile::TempDir) -> ControlMaps {
        ControlMaps::load(folder.path(), LIFETIME, Duration::from_secs(600), Duration::ZERO)
    }

    fn map(number: u32, priority: i64, states: Value) -> String {
        let id = format!("d0000000-0000-4000-8000-{number:012}");
        json!({ "id": id, "priority": priority, "states": states }).to_string()
    }

    #[test]
    fn a_map_pauses_until_it_is_replaced_or_ends() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.at(ControlPoint::Install, 0), ControlAction::Continue);
        fixture.set(0, json!({ "ArtifactInstall_Enter": { "action": "pause" } }));
        assert_eq!(fixture.at(ControlPoint::Install, 59), ControlAction::Pause);
        assert_eq!(fixture.at(ControlPoint::Commit, 59), ControlAction::Continue);
        assert_eq!(fixture.maps.next_end_in(Duration::from_secs(50)), Some(Duration::from_secs(10)));
        // Unless it says otherwise, a pause that nobody cares for any more is a failure.
        assert_eq!(fixture.at(ControlPoint::Install, 60), ControlAction::Fail);
        fixture
            .set(0, json!({ "ArtifactInstall_Enter": { "action": "pause", "on_map_expire": "continue" } }));
        assert_eq!(fixture.at(ControlPoint::Install, 60), ControlAction::Continue);
        fixture.set(0, json!({}));
        assert_eq!(fixture.at(ControlPoint::Install, 0), ControlAction::Continue);
        fixture.set(0, json!({ "ArtifactReboot_Enter": { "action": "pause" } }));
        fixture.maps.forget_ended(LIFETIME);
        assert_eq!(fixture.at(ControlPoint::Reboot, 60), ControlAction::Continue);
    }

    #[test]
    fn the_highest_priority_with_a_say_decides_and_in_it_the_most_careful_map() {
        let mut fixture = Fixture::new();
        let enter = |action: &str| json!({ "ArtifactCommit_Enter": { "action": action } });
        let mut expect = |priority, number, action, expected| {
            fixture.maps.accept(&map(number, priority, enter(action)), Duration::ZERO).unwrap();
            assert_eq!(fixture.at(ControlPoint::Commit, 1), expected, "{priority} {action}");
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
        let mut fixture = Fixture::new();
        let rule = json!({ "action": "force_continue", "on_action_executed": "pause" });
        fixture.set(0, json!({ "ArtifactInstall_Enter": rule }));
        fixture.maps.executed(ControlPoint::Install, ControlAction::Fail, Duration::ZERO);
        fixture.maps.executed(ControlPoint::Reboot, ControlAction::ForceContinue, Duration::ZERO);
        assert_eq!(fixture.at(ControlPoint::Install, 1), ControlAction::ForceContinue);
        fixture.maps.executed(ControlPoint::Install, ControlAction::ForceContinue, Duration::ZERO);
        assert_eq!(fixture.at(ControlPoint::Install, 1), ControlAction::Pause);
        fixture.maps = load(&fixture.folder);
        assert_eq!(fixture.at(ControlPoint::Install, 1), ControlAction::Pause);
    }

    #[test]
    fn maps_survive_a_restart_with_an_end_of_their_own() {
        let mut fixture = Fixture::new();
        fixture.set(
            3,
            json!({ "ArtifactReboot_Enter": { "action": "pause", "on_map_expire": "force_continue" } }),
        );
        let again = load(&fixture.folder);
        assert_eq!(again.action_for(ControlPoint::Reboot, Duration::from_secs(599)), ControlAction::Pause);
        let end = Duration::from_secs(600);
        assert_eq!(again.action_for(ControlPoint::Reboot, end), ControlAction::ForceContinue);
        assert_eq!(again.maps[0].0, fixture.maps.maps[0].0);
        fs::write(fixture.folder.path().join(FILE_NAME), "{\"maps\":[{}]}").unwrap();
        assert!(load(&fixture.folder).maps.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused_and_changes_nothing() {
        let mut fixture = Fixture::new();
        fixture.set(0, json!({ "ArtifactInstall_Enter": { "action": "pause" } }));
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
            assert!(fixture.maps.accept(text, Duration::ZERO).is_err(), "{text}");
            assert_eq!(fixture.at(ControlPoint::Install, 1), ControlAction::Pause);
        }
    }

    #[test]
    fn there_are_only_so_many_and_one_that_ended_makes_room() {
        let mut fixture = Fixture::new();
        let fail = || json!({ "ArtifactInstall_Enter": { "action": "fail" } });
        for number in 0..u32::try_from(MAPS).unwrap() {
            fixture.maps.accept(&map(number, 0, fail()), Duration::ZERO).unwrap();
        }
        let more = map(99, 0, fail());
        assert!(matches!(fixture.maps.accept(&more, Duration::ZERO), Err(ControlMapError::TooMany)));
        fixture.maps.accept(&map(1, 0, fail()), Duration::ZERO).unwrap();
        fixture.maps.accept(&more, LIFETIME).unwrap();
        assert_eq!(fixture.maps.maps.len(), MAPS);
    }

    #[test]
    fn a_map_that_cannot_be_kept_is_not_taken() {
        let mut fixture = Fixture::new();
        fixture.maps.path = fixture.folder.path().join("missing/file");
        let text = map(1, 0, json!({ "ArtifactInstall_Enter": { "action": "fail" } }));
        assert!(matches!(fixture.maps.accept(&text, Duration::ZERO), Err(ControlMapError::Io { .. })));
        assert_eq!(fixture.at(ControlPoint::Install, 1), ControlAction::Continue);
    }
}
