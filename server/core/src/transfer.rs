//! Moves a fleet between a folder and a database, and copies a folder while it is served.
//!
//! What is moved is the fleet, the keys, and the artifacts ([`Artifacts`]): those first, so that what was cut short there has
//! written nothing into a store, and goes on when it is begun again. A fleet whose artifacts are not named, as those of a
//! database, leaves them where they are.

mod artifacts;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use serde_json::Value;

use artifacts::{Arrived, Wanted, Way};
pub use artifacts::{Artifacts, Ways};

use crate::domain::webhooks;
use crate::model::Artifact;
use crate::options::DatabaseOptions;
use crate::store::postgres::Sharing;
use crate::store::{DumpRow, Kept, Store, StoreError, postgres, sqlite};
use crate::work::Kind;

/// Rows on their way.
const UNDER_WAY: usize = 4096;
/// How often progress is said.
const EVERY: u64 = 10_000;

/// Where a fleet is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a data folder.
    Folder(PathBuf),
    /// In a database.
    Database(DatabaseOptions),
}

/// How a fleet is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nobody else uses it.
    Alone,
    /// The same, and there is one.
    Source,
    /// A server may use it.
    Beside,
}

/// What was moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Devices that there are.
    pub devices: u64,
    /// Deployments.
    pub deployments: u64,
    /// Deployments on devices.
    pub records: u64,
    /// Logs.
    pub logs: u64,
    /// Everything else that is about the fleet.
    pub documents: u64,
    /// Events.
    pub events: u64,
    /// Artifacts that were copied or linked.
    pub artifacts: u64,
    /// The bytes in them.
    pub artifact_bytes: u64,
    /// Artifacts that were there before, as they should be.
    pub artifacts_before: u64,
    /// Artifacts of the fleet that nobody has said where to copy: they are where they were.
    pub artifacts_left: u64,
    /// What could not be read, by its kind and its id: it is not where the rest is, or, of an artifact that nobody knows by its
    /// record, its file is not.
    pub damaged: Vec<String>,
    /// Ids of artifacts of the fleet that are not where they are to be: they were not there to be copied, or were damaged.
    pub missing_artifacts: Vec<String>,
}

impl Moved {
    fn count(&mut self, row: &DumpRow) {
        match row {
            DumpRow::Device(_) => self.devices += 1,
            DumpRow::Gone { .. } => {}
            DumpRow::Deployment(..) => self.deployments += 1,
            DumpRow::Record(_) => self.records += 1,
            DumpRow::Log { .. } => self.logs += 1,
            DumpRow::Document(..) => self.documents += 1,
            DumpRow::Damaged(what) => self.damaged.push(what.clone()),
            DumpRow::Event(_) => self.events += 1,
        }
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.devices + self.deployments + self.records + self.logs + self.documents + self.events
    }
}

/// Moves everything into an empty place. Where it comes from stays as it is, and must not be served meanwhile.
///
/// # Errors
/// What is wrong with one of the two. The other place is empty then, or says that it is not complete.
pub fn move_fleet(
    from: &Place,
    to: &Place,
    ways: &Ways,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    copy(from, Use::Source, to, ways, progress)
}

/// Copies everything into a new folder while a server goes on. The folder is one that can be served. What is changed after
/// this has begun is not in it.
///
/// # Errors
/// What is wrong with one of the two.
pub fn backup(
    from: &Place,
    to: &Path,
    ways: &Ways,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    copy(from, Use::Beside, &Place::Folder(to.to_owned()), ways, progress)
}

fn copy(
    from: &Place,
    used: Use,
    to: &Place,
    ways: &Ways,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    let here = runtime()?;
    let there = runtime()?;
    let source = here.block_on(open(from, used))?;
    let target = there.block_on(open(to, Use::Alone))?;
    // One that has a fleet is refused before anything is put there.
    if let Err(error) = there.block_on(target.fill(&mut std::iter::empty())) {
        there.block_on(target.stop());
        here.block_on(source.stop());
        return Err(error);
    }
    let kept = match from {
        Place::Folder(folder) => Kept::found_in(folder)?,
        Place::Database(..) => here.block_on(Kept::in_store(&*source))?,
    };
    let way = match (ways.from.clone().or(folder_of(from)), ways.to.clone().or(folder_of(to))) {
        (Some(from), Some(to)) => Some(there.block_on(async { Way::open(&from, &to) })?),
        (Some(_), None) | (None, _) => None,
    };
    let mut moved = Moved::default();
    let mut done = HashSet::new();
    let mut artifacts = Vec::new();
    let copied = (|| {
        if let Some(way) = &way {
            let first = here.block_on(wanted(&*source))?;
            bring(&there, way, &first, &mut done, &mut moved, progress)?;
        }
        rows(&here, &*source, &there, &*target, &mut |row| {
            if let DumpRow::Document(kind @ (Kind::Artifact | Kind::MadeArtifact), id, value) = row {
                match read(value) {
                    Some(artifact) => artifacts.push(artifact),
                    None => moved.damaged.push(format!("the {} {id}", kind.name())),
                }
            }
            moved.count(row);
            if moved.rows() % EVERY == 0 {
                progress(&moved);
            }
        })?;
        if let Some(way) = &way {
            // Those that came while the others were copied.
            bring(&there, way, &artifacts, &mut done, &mut moved, progress)?;
            moved.missing_artifacts = there.block_on(way.lacking(&artifacts))?;
        } else {
            moved.artifacts_left = artifacts.len() as u64;
        }
        match (kept, to) {
            (None, _) => Ok(()),
            (Some(kept), Place::Folder(folder)) => kept.write_to(folder),
            (Some(kept), Place::Database(..)) => there.block_on(kept.share(&*target)).map(|_| ()),
        }
    })();
    there.block_on(target.stop());
    here.block_on(source.stop());
    copied?;
    progress(&moved);
    Ok(moved)
}

fn read(document: &Value) -> Option<Wanted> {
    serde_json::from_value::<Artifact>(document.clone()).ok().as_ref().map(Wanted::from)
}

/// The artifacts of a fleet.
async fn wanted(source: &dyn Store) -> Result<Vec<Wanted>, StoreError> {
    let mut all = Vec::new();
    for kind in [Kind::Artifact, Kind::MadeArtifact] {
        match source.documents(kind).await {
            Ok(found) => all.extend(found.iter().filter_map(|(_, value)| read(value))),
            // It is named with the rows, and the others come behind them.
            Err(StoreError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Brings over what is not done.
fn bring(
    there: &tokio::runtime::Runtime,
    way: &Way,
    wanted: &[Wanted],
    done: &mut HashSet<String>,
    moved: &mut Moved,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<(), StoreError> {
    for one in wanted {
        if !done.insert(one.id.clone()) {
            continue;
        }
        match there.block_on(way.bring(one))? {
            Arrived::Now => {
                moved.artifacts += 1;
                moved.artifact_bytes += one.size;
            }
            Arrived::Before => moved.artifacts_before += 1,
            Arrived::Not(why) => log::error!("artifact {}: {why}", one.id),
        }
        progress(moved);
    }
    Ok(())
}

/// The folder that has the artifacts, if nothing else is said.
fn folder_of(place: &Place) -> Option<Artifacts> {
    match place {
        Place::Folder(folder) => Some(Artifacts::Folder(folder.clone())),
        Place::Database(_) => None,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, StoreError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|source| StoreError::Io {
        doing: "starting threads for",
        path: PathBuf::from("."),
        source,
    })
}

async fn open(place: &Place, used: Use) -> Result<Arc<dyn Store>, StoreError> {
    match (place, used) {
        (Place::Folder(folder), Use::Alone) => sqlite::open(folder),
        (Place::Folder(folder), Use::Source) => sqlite::open_known(folder),
        (Place::Folder(folder), Use::Beside) => sqlite::open_beside(folder),
        (Place::Database(database), Use::Alone | Use::Source) => {
            postgres::open(database.target()?, Sharing::Nobody).await
        }
        (Place::Database(database), Use::Beside) => {
            postgres::open(database.target()?, Sharing::Anybody).await
        }
    }
}

/// Rows go from one thread to the other, so that neither store has to wait for the other one's whole.
fn rows(
    here: &tokio::runtime::Runtime,
    source: &dyn Store,
    there: &tokio::runtime::Runtime,
    target: &dyn Store,
    seen: &mut (dyn FnMut(&DumpRow) + Send),
) -> Result<(), StoreError> {
    let (give, take) = sync_channel::<Result<DumpRow, StoreError>>(UNDER_WAY);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let stopped = || StoreError::Database {
                place: "the other one".to_owned(),
                reason: "it has stopped".to_owned(),
            };
            let failed = give.clone();
            let mut each = move |row| give.send(Ok(row)).map_err(|_| stopped());
            if let Err(error) = here.block_on(source.dump(&mut each)) {
                // Nobody takes it when the other one has failed first, and says why.
                let _ = failed.send(Err(error));
            }
        });
        // Keys are moved by themselves: a folder has them in files.
        let mut rows =
            take.into_iter().filter(|row| !matches!(row, Ok(DumpRow::Document(Kind::Secret, _, _))));
        let mut rows = rows.by_ref().map(|mut row| {
            if let Ok(DumpRow::Damaged(what)) = &row {
                log::error!("{what} cannot be read");
            }
            if let Ok(DumpRow::Document(Kind::Progress, id, value)) = &mut row {
                webhooks::moved(id, value);
            }
            if let Ok(row) = &row {
                seen(row);
            }
            row
        });
        there.block_on(target.fill(&mut rows))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use std::fs;

    use super::*;
    use crate::blobs::conformance::{S3Server, s3_options};
    use crate::blobs::{Blobs as _, Folder, Name, Span};
    use crate::domain::id;
    use crate::store::conformance::{change, dump};

    fn fleet(folder: &Path) -> Vec<String> {
        let runtime = runtime().unwrap();
        runtime.block_on(async {
            let store = sqlite::open(folder).unwrap();
            let kept = Kept::found_in(folder).unwrap();
            assert!(kept.is_none());
            let written = change(&*store, vec![], |work| {
                for at in 0..50 {
                    let id = format!("u{at}");
                    work.document::<String>(Kind::User, &id)?;
                    work.put_document(Kind::User, &id, Some(&json!({"email": id})))?;
                }
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
            let lines = dump(&*store).await;
            store.stop().await;
            lines
        })
    }

    fn lines(place: &Place) -> Vec<String> {
        let runtime = runtime().unwrap();
        runtime.block_on(async {
            let store = open(place, Use::Beside).await.unwrap();
            let lines = dump(&*store).await;
            store.stop().await;
            lines.into_iter().filter(|line| !line.contains("Secret")).collect()
        })
    }

    #[test]
    fn a_folder_without_a_fleet_is_no_source_and_one_with_a_fleet_no_target() {
        let folders = tempfile::tempdir().unwrap();
        let at = |name: &str| Place::Folder(folders.path().join(name));
        let moved = |from: &str, to: &str| move_fleet(&at(from), &at(to), &Ways::default(), &mut |_| {});
        assert!(matches!(moved("none", "new"), Err(StoreError::Io { .. })));
        assert!(!folders.path().join("none").exists() && !folders.path().join("new").exists());
        fleet(&folders.path().join("one"));
        fleet(&folders.path().join("two"));
        let artifacts = folders.path().join("one/artifacts");
        fs::create_dir_all(&artifacts).unwrap();
        assert!(matches!(moved("one", "two"), Err(StoreError::NotEmpty { .. })));
        assert!(!folders.path().join("two/artifacts").exists(), "nothing is put there before");
    }

    #[test]
    fn a_fleet_moves_into_a_database_and_back_with_its_keys() {
        let Some(url) = postgres::test_url() else { return };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = fleet(one.path());
        crate::store::Secrets::open(one.path()).unwrap();
        let folder = Place::Folder(one.path().to_owned());
        let database = Place::Database(DatabaseOptions::new(&url));
        let moved = move_fleet(&folder, &database, &Ways::default(), &mut |_| {}).unwrap();
        assert_eq!(moved.documents, 50);
        assert_eq!(lines(&database), before);
        assert!(matches!(
            move_fleet(&folder, &database, &Ways::default(), &mut |_| {}),
            Err(StoreError::NotEmpty { .. })
        ));
        let back = Place::Folder(two.path().to_owned());
        move_fleet(&database, &back, &Ways::default(), &mut |_| {}).unwrap();
        assert_eq!(lines(&back), before);
        for secret in ["secrets/token-key.pk8", "secrets/link-key", "management-token"] {
            assert_eq!(
                fs::read(one.path().join(secret)).unwrap(),
                fs::read(two.path().join(secret)).unwrap()
            );
        }
    }

    #[test]
    fn a_folder_is_backed_up_while_it_is_in_use() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = fleet(one.path());
        let secrets = crate::store::Secrets::open(one.path()).unwrap();
        let runtime = runtime().unwrap();
        let server = runtime.block_on(async { sqlite::open(one.path()) }).unwrap();
        let target = two.path().join("backup");
        let place = Place::Folder(one.path().to_owned());
        assert!(matches!(
            move_fleet(&place, &Place::Folder(target.clone()), &Ways::default(), &mut |_| {}),
            Err(StoreError::InUse(_))
        ));
        backup(&place, &target, &Ways::default(), &mut |_| {}).unwrap();
        assert_eq!(lines(&Place::Folder(target.clone())), before);
        let copied = crate::store::Secrets::open(&target).unwrap();
        assert_eq!(copied.management_token, secrets.management_token);
        // The server goes on.
        let written = change(&*server, vec![], |work| {
            work.document::<String>(Kind::User, "later")?;
            work.put_document(Kind::User, "later", Some(&1))?;
            Ok(Some(()))
        });
        runtime.block_on(written).unwrap().unwrap();
        runtime.block_on(server.stop());
        assert_eq!(lines(&Place::Folder(target)), before);
    }

    const BYTES: usize = 200_000;

    /// Artifacts of a fleet in a folder, with their records and files. The ids.
    fn artifacts(folder: &Path, count: usize) -> Vec<String> {
        let made: Vec<(String, Vec<u8>)> =
            (0..count).map(|at| (id::uuid().unwrap(), vec![u8::try_from(at).unwrap(); BYTES])).collect();
        fs::create_dir_all(folder.join("artifacts")).unwrap();
        for (id, bytes) in &made {
            fs::write(file(folder, id), bytes).unwrap();
        }
        let ids = made.iter().map(|(id, _)| id.clone()).collect();
        runtime().unwrap().block_on(async {
            let store = sqlite::open(folder).unwrap();
            let written = change(&*store, vec![], move |work| {
                for (id, bytes) in &made {
                    work.document::<Value>(Kind::Artifact, id)?;
                    let record = json!({
                        "id": id, "name": "a", "device_types": ["x"], "depends": {}, "provides": {}, "clears_provides": [],
                        "payload_type": null, "files": [], "signed": false, "size": bytes.len(),
                        "sha256": id::sha256_hex(bytes), "modified": "2026-01-01T00:00:00Z",
                    });
                    work.put_document(Kind::Artifact, id, Some(&record))?;
                }
                Ok(Some(()))
            });
            written.await.unwrap().unwrap();
            store.stop().await;
        });
        ids
    }

    fn file(folder: &Path, id: &str) -> PathBuf {
        folder.join("artifacts").join(format!("{id}.mender"))
    }

    fn s3(server: &S3Server) -> Option<Artifacts> {
        Some(Artifacts::S3(Box::new(s3_options(server))))
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_goes_on() {
        let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
        let path = |at: usize| folders[at].path();
        fleet(path(0));
        let ids = artifacts(path(0), 3);
        let connection = rusqlite::Connection::open(path(0).join("fleet.sqlite")).unwrap();
        for (kind, id, data) in [
            (Kind::User, "u7", "{"),
            (Kind::User, "u8", ""),
            (Kind::Artifact, &*ids[0], "not JSON"),
            (Kind::Artifact, &*ids[1], "{}"),
        ] {
            let sql = "UPDATE document SET data = ?1 WHERE kind = ?2 AND id = ?3";
            assert_eq!(connection.execute(sql, (data, kind.name(), id)).unwrap(), 1, "{id}");
        }
        drop(connection);
        let place = Place::Folder(path(0).to_owned());
        let moved = backup(&place, &path(1).join("to"), &Ways::default(), &mut |_| {}).unwrap();
        let mut named = moved.damaged.clone();
        named.sort();
        let kind = Kind::Artifact.name();
        let mut expected = vec![
            format!("the {} u7", Kind::User.name()),
            format!("the {} u8", Kind::User.name()),
            format!("the {kind} {}", ids[0]),
            format!("the {kind} {}", ids[1]),
        ];
        expected.sort();
        assert_eq!(named, expected);
        assert_eq!((moved.artifacts, moved.documents, moved.missing_artifacts.len()), (1, 50, 0));
        assert!(file(&path(1).join("to"), &ids[2]).exists());
        // What was read is there as it was.
        let left = |place: &Place| lines(place).into_iter().filter(|line| !line.contains("damaged"));
        assert_eq!(
            left(&place).collect::<Vec<_>>(),
            left(&Place::Folder(path(1).join("to"))).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_is_no_file_is_no_artifact_and_nothing_waits_for_it() {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let path = |at: usize| folders[at].path();
        fleet(path(0));
        let mut ids = artifacts(path(0), 5);
        for id in &ids[..4] {
            fs::remove_file(file(path(0), id)).unwrap();
        }
        let (pipe, folder) = (file(path(0), &ids[0]), file(path(0), &ids[1]));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        fs::create_dir(folder).unwrap();
        std::os::unix::fs::symlink("/dev/zero", file(path(0), &ids[2])).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(file(path(0), &ids[3])).unwrap();
        let place = |at: usize| Place::Folder(path(at).to_owned());
        let moved = move_fleet(&place(0), &place(1), &Ways::default(), &mut |_| {}).unwrap();
        let copied = backup(&place(0), path(2), &Ways::default(), &mut |_| {}).unwrap();
        let whole = ids.split_off(4).remove(0);
        ids.sort();
        for (moved, to) in [(moved, path(1)), (copied, path(2))] {
            let mut missing = moved.missing_artifacts.clone();
            missing.sort();
            assert_eq!((missing, moved.artifacts, moved.documents), (ids.clone(), 1, 55));
            assert!(file(to, &whole).is_file());
            assert!(ids.iter().all(|id| !file(to, id).exists()));
        }
        // What is said of each of them names it.
        for id in &ids {
            let (name, from) = (Name::artifact(id).unwrap(), Folder::to_read(path(0)));
            let error = runtime().unwrap().block_on(from.read(&name, Span::all(0))).err().unwrap();
            assert_eq!(error.to_string(), format!("{} is no regular file", file(path(0), id).display()));
        }
    }

    #[test]
    fn artifacts_go_from_a_folder_into_s3_and_back_and_what_is_there_is_not_sent_again() {
        let Some(mut server) = S3Server::start() else { return };
        let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
        let path = |at: usize| folders[at].path();
        fleet(path(0));
        let ids = artifacts(path(0), 4);
        let place = |at: usize| Place::Folder(path(at).to_owned());
        let into_s3 = Ways { from: None, to: s3(&server) };
        // One is damaged, one is cut, one is gone.
        fs::write(file(path(0), &ids[0]), vec![9; BYTES]).unwrap();
        fs::write(file(path(0), &ids[1]), vec![1; BYTES - 1]).unwrap();
        let third = fs::read(file(path(0), &ids[2])).unwrap();
        fs::remove_file(file(path(0), &ids[2])).unwrap();
        let mut seen = Vec::new();
        let moved =
            move_fleet(&place(0), &place(1), &into_s3, &mut |moved| seen.push(moved.artifacts)).unwrap();
        assert_eq!((moved.artifacts, moved.artifact_bytes, moved.artifacts_before), (1, BYTES as u64, 0));
        let mut missing = ids[..3].to_vec();
        missing.sort();
        let mut named = moved.missing_artifacts.clone();
        named.sort();
        assert_eq!(named, missing);
        assert_eq!(server.objects().len(), 1);
        assert_eq!(seen.last(), Some(&1));
        assert!(!file(path(1), &ids[3]).exists());
        // Put right, it goes on: what is there is left, and what is there and is something else is replaced.
        for (at, bytes) in [(0, vec![0; BYTES]), (1, vec![1; BYTES]), (2, third)] {
            fs::write(file(path(0), &ids[at]), bytes).unwrap();
        }
        server.damage(&format!("a/b/artifacts/{}.mender", ids[3]));
        let moved = backup(&place(0), path(2), &into_s3, &mut |_| {}).unwrap();
        assert_eq!((moved.artifacts, moved.artifacts_before, moved.missing_artifacts.len()), (4, 0, 0));
        let back = Ways { from: s3(&server), to: None };
        let moved = move_fleet(&place(2), &place(3), &back, &mut |_| {}).unwrap();
        assert_eq!((moved.artifacts, moved.documents, moved.missing_artifacts.len()), (4, 54, 0));
        for id in &ids {
            assert_eq!(fs::read(file(path(3), id)).unwrap(), fs::read(file(path(0), id)).unwrap());
        }
        let again = tempfile::tempdir().unwrap();
        let moved = backup(&place(3), again.path(), &into_s3, &mut |_| {}).unwrap();
        assert_eq!((moved.artifacts, moved.artifacts_before), (0, 4));
        // Without S3 nothing is written, and the same again goes on.
        server.stop();
        let late = tempfile::tempdir().unwrap();
        let target = Place::Folder(late.path().to_owned());
        let quick =
            |options: crate::blobs::S3Options| options.patience(std::time::Duration::from_millis(300));
        let gone = Ways { from: Some(Artifacts::S3(Box::new(quick(s3_options(&server))))), to: None };
        let error = move_fleet(&place(3), &target, &gone, &mut |_| {}).unwrap_err();
        assert!(matches!(error, StoreError::Artifacts { .. }), "{error}");
        let moved = move_fleet(&place(3), &target, &Ways::default(), &mut |_| {}).unwrap();
        assert_eq!((moved.artifacts, moved.documents, moved.missing_artifacts.len()), (4, 54, 0));
    }
}
