//! Moves a fleet between a folder and a database, and copies a folder while it is served.
//!
//! What is moved is the fleet, the keys, and the artifacts of a data folder. Artifacts in S3 stay where they are: whoever
//! serves the fleet afterwards names the same bucket.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::model::Artifact;
use crate::options::DatabaseOptions;
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
    /// In a database, with the data folder of one of its servers, which has the artifacts if they are not in S3.
    Database(DatabaseOptions, Option<PathBuf>),
}

/// Where a fleet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Nobody else uses it.
    Alone,
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
    /// Ids of artifacts of the fleet that were not there to be copied.
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
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    copy(from, Use::Alone, to, progress)
}

/// Copies everything into a new folder while a server goes on. The folder is one that can be served. What is changed after
/// this has begun is not in it.
///
/// # Errors
/// What is wrong with one of the two.
pub fn backup(
    from: &Place,
    to: &Path,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    copy(from, Use::Beside, &Place::Folder(to.to_owned()), progress)
}

fn copy(
    from: &Place,
    used: Use,
    to: &Place,
    progress: &mut (dyn FnMut(&Moved) + Send),
) -> Result<Moved, StoreError> {
    let here = runtime()?;
    let there = runtime()?;
    let source = here.block_on(open(from, used))?;
    let target = there.block_on(open(to, Use::Alone))?;
    let kept = match from {
        Place::Folder(folder) => Kept::found_in(folder)?,
        Place::Database(..) => here.block_on(Kept::in_store(&*source))?,
    };
    let mut moved = Moved::default();
    let mut artifacts = Vec::new();
    let copied = rows(&here, &*source, &there, &*target, &mut |row| {
        if let DumpRow::Document(Kind::Artifact | Kind::MadeArtifact, _, value) = row {
            if let Ok(artifact) = serde_json::from_value::<Artifact>(value.clone()) {
                artifacts.push((artifact.id, artifact.size));
            }
        }
        moved.count(row);
        if moved.rows() % EVERY == 0 {
            progress(&moved);
        }
    });
    let finished = copied.and_then(|()| {
        if let (Some(from), Place::Folder(to)) = (folder_of(from), to) {
            files(from, to, &artifacts, &mut moved)?;
        }
        match (kept, to) {
            (None, _) => Ok(()),
            (Some(kept), Place::Folder(folder)) => kept.write_to(folder),
            (Some(kept), Place::Database(..)) => there.block_on(kept.share(&*target)).map(|_| ()),
        }
    });
    there.block_on(target.stop());
    here.block_on(source.stop());
    finished?;
    progress(&moved);
    Ok(moved)
}

/// The folder that has the artifacts.
fn folder_of(place: &Place) -> Option<&Path> {
    match place {
        Place::Folder(folder) => Some(folder),
        Place::Database(_, folder) => folder.as_deref(),
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
        (Place::Folder(folder), Use::Beside) => sqlite::open_beside(folder),
        (Place::Database(database, _), Use::Alone | Use::Beside) => postgres::open(database.target()?).await,
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
        let mut rows = rows.by_ref().inspect(|row| {
            if let Ok(row) = row {
                seen(row);
            }
        });
        there.block_on(target.fill(&mut rows))
    })
}

/// Links artifacts, or copies them to another file system. They never change under their name.
fn files(from: &Path, to: &Path, artifacts: &[(String, u64)], moved: &mut Moved) -> Result<(), StoreError> {
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::Io { doing, path, source }
    };
    let folder = to.join("artifacts");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io("making", &folder))?;
    for (id, size) in artifacts {
        let name = format!("{id}.mender");
        let (old, new) = (from.join("artifacts").join(&name), folder.join(&name));
        let found = fs::metadata(&old).ok().filter(|file| file.len() == *size);
        if found.is_none() {
            moved.missing_artifacts.push(id.clone());
            continue;
        }
        if fs::hard_link(&old, &new).is_err() {
            let copied = || -> io::Result<()> {
                let mut source = File::open(&old)?;
                let mut target =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
                io::copy(&mut source, &mut target)?;
                target.sync_all()
            };
            copied().map_err(io("writing", &new))?;
        }
        moved.artifacts += 1;
    }
    File::open(&folder).and_then(|folder| folder.sync_all()).map_err(io("writing", &folder))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
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
    fn a_fleet_moves_into_a_database_and_back_with_its_keys() {
        let Some(url) = postgres::test_url() else { return };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = fleet(one.path());
        crate::store::Secrets::open(one.path()).unwrap();
        let folder = Place::Folder(one.path().to_owned());
        let database = Place::Database(DatabaseOptions::new(&url), None);
        let moved = move_fleet(&folder, &database, &mut |_| {}).unwrap();
        assert_eq!(moved.documents, 50);
        assert_eq!(lines(&database), before);
        assert!(matches!(move_fleet(&folder, &database, &mut |_| {}), Err(StoreError::NotEmpty { .. })));
        let back = Place::Folder(two.path().to_owned());
        move_fleet(&database, &back, &mut |_| {}).unwrap();
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
            move_fleet(&place, &Place::Folder(target.clone()), &mut |_| {}),
            Err(StoreError::InUse(_))
        ));
        backup(&place, &target, &mut |_| {}).unwrap();
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
}
