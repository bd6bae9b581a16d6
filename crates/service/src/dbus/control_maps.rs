//! The file of the control maps, and what the daemon asks of them. What a map says is decided in `client-core`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client_core::clock::Clock;
use client_core::deploy::gates::{Answer, ControlMapError, ControlMaps, Gate, Gatekeeper, Question};
use linux::{atomic_file, regular_file};

/// Longest file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;
/// The file in the datastore.
const FILE_NAME: &str = "update-control-maps.json";

/// Why a map is not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It is not one, or one too many.
    Map(ControlMapError),
    /// It cannot be kept.
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotTaken::Map(error) => error.fmt(f),
            NotTaken::Io { path, source } => write!(f, "cannot write {}: {source}", path.display()),
        }
    }
}

/// Control maps in a file of the datastore. Clones are the same maps.
#[derive(Clone)]
pub(crate) struct KeptControlMaps {
    maps: Arc<Mutex<ControlMaps>>,
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl KeptControlMaps {
    /// The maps that an earlier process kept in `datastore`, good for `after_start` from now on; new ones are good for
    /// `lifetime`. A file that cannot be read is none.
    pub(crate) fn load(
        datastore: &Path,
        lifetime: Duration,
        after_start: Duration,
        clock: Arc<dyn Clock>,
    ) -> KeptControlMaps {
        let path = datastore.join(FILE_NAME);
        let end = clock.now().saturating_add(after_start);
        let kept = match regular_file::read(&path, FILE_BYTES) {
            Ok(document) => ControlMaps::new(lifetime).with_kept(&document, end),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(ControlMaps::new(lifetime)),
            Err(error) => Err(error.to_string()),
        };
        let maps = kept.unwrap_or_else(|reason| {
            log::warn!("the control maps in {} are lost: {reason}", path.display());
            ControlMaps::new(lifetime)
        });
        KeptControlMaps { maps: Arc::new(Mutex::new(maps)), path, clock }
    }

    /// Takes a map, and keeps it before it has a say. Says after how long it should be sent again.
    ///
    /// # Errors
    /// When it is not one or cannot be kept: nothing has changed then.
    pub(crate) fn accept(&self, text: &str) -> Result<Duration, NotTaken> {
        let mut maps = self.maps();
        let mut changed = maps.clone();
        let refresh = changed.accept(text, self.clock.now()).map_err(NotTaken::Map)?;
        write(&self.path, &changed).map_err(|source| NotTaken::Io { path: self.path.clone(), source })?;
        *maps = changed;
        Ok(refresh)
    }

    fn maps(&self) -> MutexGuard<'_, ControlMaps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gatekeeper for KeptControlMaps {
    fn watches(&self, gate: Gate) -> bool {
        self.maps().watches(gate)
    }

    fn ask(&mut self, question: &Question<'_>) -> Answer {
        let mut maps = self.maps();
        let before = maps.clone();
        let answer = maps.ask(question.gate, self.clock.now());
        if *maps != before {
            if let Err(error) = write(&self.path, &maps) {
                // What was decided holds as long as this process lives; after a restart the older word holds.
                log::warn!("cannot write {}: {error}", self.path.display());
            }
        }
        answer
    }
}

fn write(path: &Path, maps: &ControlMaps) -> io::Result<()> {
    atomic_file::replace(path, maps.to_json().to_string().as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use linux::clock::LinuxClock;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn load(folder: &Path) -> KeptControlMaps {
        KeptControlMaps::load(folder, HOUR, HOUR, Arc::new(LinuxClock::new()))
    }

    fn map(rule: &str) -> String {
        let id = "d0000000-0000-4000-8000-000000000001";
        format!(r#"{{"id":"{id}","states":{{"ArtifactInstall_Enter":{rule}}}}}"#)
    }

    fn before(gate: Gate) -> Question<'static> {
        Question { gate, deployment: Some("d"), artifact_name: "a", cost: None }
    }

    #[test]
    fn a_map_pauses_a_deployment_until_another_lets_it_go_on_or_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut maps = load(folder.path());
        assert!(!maps.watches(Gate::Install));
        let mut said = |action: &str| {
            maps.accept(&map(&format!(r#"{{"action":"{action}"}}"#))).unwrap();
            assert_eq!(Gate::ALL.map(|gate| maps.watches(gate)), [false, true, false, false]);
            maps.ask(&before(Gate::Install))
        };
        assert!(matches!(said("pause"), Answer::Closed { .. }));
        assert!(matches!(said("force_continue"), Answer::Open { note: Some(_) }));
        assert!(matches!(said("fail"), Answer::Refused { .. }));
    }

    #[test]
    fn what_maps_say_and_what_became_of_it_survives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut maps = load(folder.path());
        maps.accept(&map(r#"{"action":"force_continue","on_action_executed":"pause"}"#)).unwrap();
        assert!(matches!(load(folder.path()).maps().ask(Gate::Install, HOUR / 2), Answer::Open { .. }));
        maps.ask(&before(Gate::Install));
        assert!(matches!(load(folder.path()).ask(&before(Gate::Install)), Answer::Closed { .. }));
        fs::write(folder.path().join(FILE_NAME), "{\"maps\":[{}]}").unwrap();
        assert!(!load(folder.path()).watches(Gate::Install));
    }

    #[test]
    fn a_map_that_cannot_be_kept_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let maps = load(&folder.path().join("missing"));
        assert!(matches!(maps.accept(&map(r#"{"action":"fail"}"#)), Err(NotTaken::Io { .. })));
        assert!(!maps.watches(Gate::Install));
        assert!(matches!(maps.accept("{}"), Err(NotTaken::Map(_))));
    }
}
