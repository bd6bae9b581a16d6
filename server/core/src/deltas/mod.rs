//! Deltas in the background: what active deployments will meet is looked up, and made by a program that runs beside the
//! server, a few at a time. What was made enters as an upload does, so nothing has to trust the program.

mod child;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hyper::body::Bytes;
use roaring::RoaringBitmap;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::api::{Keeper, Shared};
use crate::blobs::{Name, Span};
use crate::domain::deltas::{self as rules, CHECKSUM, DeltaJob, DeltaSettings, Outcome, Pair, Take, Task};
use crate::domain::filter::{Filter, filter_query};
use crate::domain::id;
use crate::model::time::Timestamp;
use crate::model::{Artifact, AuthStatus};
use crate::service::{ChangeError, Service};
use crate::store::{Committed, StoreError, Watch};
use crate::work::query::{Active, Attr, DeviceQuery, Scope, Test};
use crate::work::{Key, Kind, NotLoaded, Work};
use child::{Bounds, Trouble};
use place::{Bench, Place};

/// How often a process says that it still has a job: the lease is three times as long.
const RENEW: Duration = Duration::from_secs(20);
/// How often it is looked for jobs that another process has left.
const LOOK: Duration = Duration::from_secs(30);
/// How often it is looked up anew what an active deployment will meet: devices come, and report.
const PLAN: Duration = Duration::from_secs(300);
/// Pieces of a file.
const PIECE_BYTES: usize = 256 * 1024;
/// What the program makes.
const MADE: &str = "delta.mender";
/// What it may write besides what it is expected to.
const SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// Inventory attributes.
const DEVICE_TYPE: &str = "device_type";
const ARTIFACT_NAME: &str = "artifact_name";

/// What wakes the worker.
struct Wakes(Arc<Notify>);

impl Watch for Wakes {
    fn committed(&self, committed: &Committed) {
        let is_new = |id: &String| committed.members.iter().any(|(of, _)| of == id);
        let mut deployments = committed.deployments.iter();
        if deployments.any(|deployment| deployment.autogenerate_delta && is_new(&deployment.id)) {
            self.0.notify_one();
        }
    }
}

/// What every job uses.
struct Worker {
    shared: Arc<Shared>,
    place: Place,
    stop: watch::Receiver<bool>,
}

/// Why something could not be looked up or stored.
#[derive(Debug)]
enum DeltaError {
    Store(StoreError),
    /// Nothing can be stored; why.
    Failed(Arc<str>),
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeltaError::Store(error) => error.fmt(f),
            DeltaError::Failed(reason) => write!(f, "nothing can be stored: {reason}"),
        }
    }
}

impl From<StoreError> for DeltaError {
    fn from(error: StoreError) -> DeltaError {
        DeltaError::Store(error)
    }
}

/// Makes deltas until `stop` says so. What is being made then is given back.
pub(crate) async fn run(shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let at_once = shared.options.deltas;
    if at_once == 0 {
        return;
    }
    let place = match Place::open(&shared.options.data_dir) {
        Ok(place) => place,
        Err(error) => {
            log::error!("no deltas are made: the folder deltas of the data folder cannot be used: {error}");
            return;
        }
    };
    let notify = Arc::new(Notify::new());
    shared.service.store.watch(Arc::new(Wakes(notify.clone())));
    let worker = Arc::new(Worker { shared, place, stop: stop.clone() });
    if let Err(error) = worker.reclaim().await {
        log::warn!("deltas that were being made are made again in a minute: {error}");
    }
    let (mut planned, mut at_work) = (BTreeMap::new(), BTreeSet::new());
    let mut running: JoinSet<String> = JoinSet::new();
    let mut stopped = stop;
    loop {
        if let Err(error) = worker.plan(&mut planned).await {
            log::warn!("which deltas are wanted could not be found out: {error}");
        }
        for id in worker.free(&at_work).into_iter().take(at_once.saturating_sub(at_work.len())) {
            at_work.insert(id.clone());
            let worker = worker.clone();
            running.spawn(async move {
                if let Err(error) = worker.job(&id).await {
                    log::warn!("the delta {id}: {error}");
                    // Nothing can be stored now: whoever tries again at once tries for nothing.
                    worker.pause().await;
                }
                id
            });
        }
        tokio::select! {
            _ = stopped.changed() => break,
            () = notify.notified() => {}
            Some(ended) = running.join_next(), if !running.is_empty() => match ended {
                Ok(id) => { at_work.remove(&id); }
                // One that panicked: nothing of ours has to, and the rest goes on.
                Err(_) => at_work.clear(),
            },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    // Each sees that it has to stop, and gives back what it has.
    while running.join_next().await.is_some() {}
}

impl Worker {
    fn service(&self) -> &Service {
        &self.shared.service
    }

    async fn change<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<T, NotLoaded> + Send + 'static,
    ) -> Result<T, DeltaError> {
        self.service().change(keys, rule).await.map_err(|error| match error {
            ChangeError::Failed(failed) => DeltaError::Failed(failed.0),
            ChangeError::Refused(NotLoaded) => DeltaError::Failed("a record was not loaded".into()),
        })
    }

    /// Until it stops, or a while.
    async fn pause(&self) {
        let mut stop = self.stop.clone();
        let _ = tokio::time::timeout(LOOK, stop.wait_for(|stopped| *stopped)).await;
    }

    fn jobs(&self) -> Vec<(String, DeltaJob)> {
        self.service().catalogue.documents(Kind::DeltaJob)
    }

    /// What this process had when it was killed waits again.
    async fn reclaim(&self) -> Result<(), DeltaError> {
        let holder = self.place.holder().to_owned();
        let own = |job: &DeltaJob| job.holder.as_ref() == Some(&holder);
        let ids: Vec<String> =
            self.jobs().into_iter().filter(|(_, job)| own(job)).map(|(id, _)| id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let count = self.change(keys(&ids), move |work| rules::reclaim(work, &ids, &holder)).await?;
        log::info!("{count} deltas were being made when the server ended, and are made again");
        Ok(())
    }

    /// Jobs to begin with, those for the most devices first.
    fn free(&self, at_work: &BTreeSet<String>) -> Vec<String> {
        let now = Timestamp::now();
        let mut free: Vec<(String, DeltaJob)> = self.jobs();
        free.retain(|(id, job)| job.is_free(now) && !at_work.contains(id));
        free.sort_by_key(|(id, job)| (std::cmp::Reverse(job.devices), job.created, id.clone()));
        free.into_iter().map(|(id, _)| id).collect()
    }

    /// Makes the jobs of deployments that want deltas, if that was not done lately.
    async fn plan(&self, planned: &mut BTreeMap<String, Instant>) -> Result<(), DeltaError> {
        let mut active = self.service().catalogue.active();
        let ids: BTreeSet<String> = active.iter().map(|active| active.deployment.id.clone()).collect();
        planned.retain(|id, last| ids.contains(id) && last.elapsed() < PLAN);
        active.retain(|active| {
            let deployment = &active.deployment;
            deployment.autogenerate_delta
                && deployment.configuration.is_none()
                && !planned.contains_key(&deployment.id)
        });
        for active in active {
            let (id, sequence) = (active.deployment.id.clone(), active.deployment.sequence);
            let pairs = self.pairs(&active).await?;
            planned.insert(id.clone(), Instant::now());
            if pairs.is_empty() {
                continue;
            }
            let jobs: Vec<String> = pairs.iter().map(|(pair, _)| pair.id()).collect();
            let name = active.deployment.name.clone();
            let rule = move |work: &mut Work| rules::plan(work, &id, sequence, &pairs);
            let count = self.change(keys(&jobs), rule).await?;
            if count > 0 {
                log::info!("{count} deltas are to be made for the deployment {name}");
            }
        }
        let surplus = rules::surplus(&self.jobs(), &ids);
        if !surplus.is_empty() {
            self.change(keys(&surplus), move |work| rules::forget(work, &surplus)).await?;
        }
        Ok(())
    }

    /// The pairs that a deployment will meet, with how many devices each is for.
    async fn pairs(&self, active: &Active) -> Result<Vec<(Pair, u64)>, DeltaError> {
        let artifacts = self.service().catalogue.artifacts();
        let mut counted = Vec::new();
        for pair in rules::possible(&artifacts, &active.deployment.artifact_name) {
            let devices = self.devices(active, &pair.source).await?;
            counted.push((pair, devices));
        }
        Ok(rules::worth(counted))
    }

    /// How many devices of a deployment say that they run the image of an artifact: by its digest, or by its name where they
    /// do not report that.
    async fn devices(&self, active: &Active, source: &Artifact) -> Result<u64, DeltaError> {
        let filter = active.deployment.filter.as_ref();
        let mut base = match filter.map(Filter::deserialize) {
            None => DeviceQuery::default(),
            // One that this server cannot read holds for nobody.
            Some(filter) => match filter.ok().and_then(|filter| filter_query(&filter).ok()) {
                None => return Ok(0),
                Some(query) => query,
            },
        };
        base.statuses = vec![AuthStatus::Accepted];
        let attr = |name: &str| Attr { scope: Some(Scope::Inventory), name: name.to_owned() };
        let image = rules::image(source).unwrap_or_default();
        let mut by_image = base.clone();
        by_image.tests.push((attr(CHECKSUM), Test::Equal(json!(image))));
        let mut by_name = base;
        let kinds = source.device_types.iter().map(|kind| json!(kind)).collect();
        by_name.tests.extend([
            (attr(ARTIFACT_NAME), Test::Equal(json!(source.name))),
            (attr(DEVICE_TYPE), Test::In(kinds)),
            (attr(CHECKSUM), Test::Exists(false)),
        ]);
        let store = &self.service().store;
        let mut numbers: RoaringBitmap = store.device_numbers(&by_image).await?;
        numbers |= store.device_numbers(&by_name).await?;
        match filter {
            Some(_) => Ok(numbers.len()),
            None => Ok(numbers.intersection_len(&active.members)),
        }
    }

    /// One job, from taking it to its end.
    async fn job(&self, id: &str) -> Result<(), DeltaError> {
        let Ok(artifact) = id::uuid() else {
            return Err(DeltaError::Failed("the system has no random numbers".into()));
        };
        let holder = self.place.holder().to_owned();
        let has_key = self.shared.options.delta_key.is_some();
        let (own, by) = (id.to_owned(), holder.clone());
        let taken = self
            .change(keys(&[id.to_owned()]), move |work| rules::take(work, &own, &by, &artifact, has_key))
            .await?;
        let task = match taken {
            Take::Nothing => return Ok(()),
            Take::Ended(job) => {
                let reason = job.reason.as_deref().unwrap_or("it is there already");
                log::warn!("no delta from {} to {} is made: {reason}", job.from_version, job.to_version);
                return Ok(());
            }
            Take::Make(task) => task,
        };
        let began = Instant::now();
        let mut stop = self.stop.clone();
        let outcome = tokio::select! {
            outcome = self.make(&task) => Some(outcome),
            () = self.renew(id) => None,
            _ = stop.wait_for(|stopped| *stopped) => Some(Outcome::Stopped),
        };
        // Another process has it now.
        let Some(outcome) = outcome else { return Ok(()) };
        self.tell(&task, &outcome, began.elapsed());
        let own = id.to_owned();
        self.change(keys(&[id.to_owned()]), move |work| rules::end(work, &own, &holder, &outcome)).await
    }

    fn tell(&self, task: &Task, outcome: &Outcome, took: Duration) {
        let (metrics, full) = (&self.shared.metrics, task.target.size);
        let (from, to, seconds) = (&task.source.name, &task.target.name, took.as_secs());
        metrics.delta_milliseconds.add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        match outcome {
            Outcome::Made(bytes) => {
                metrics.deltas_made.add(1);
                metrics.delta_bytes.add(*bytes);
                metrics.delta_full_bytes.add(full);
                log::info!("the delta from {from} to {to} has {bytes} bytes of {full}, in {seconds} seconds");
            }
            Outcome::Failed(reason) => {
                metrics.deltas_failed.add(1);
                log::warn!("there is no delta from {from} to {to}: {reason}");
            }
            Outcome::Later(reason) => {
                log::warn!("the delta from {from} to {to} is made later: {reason}");
            }
            Outcome::Stopped => log::info!("the delta from {from} to {to} is made after the next start"),
        }
    }

    /// Says again and again that the job is this process's; ends when it is not.
    async fn renew(&self, id: &str) {
        loop {
            tokio::time::sleep(RENEW).await;
            let (own, holder) = (id.to_owned(), self.place.holder().to_owned());
            let rule = move |work: &mut Work| rules::renew(work, &own, &holder);
            match self.change(keys(&[id.to_owned()]), rule).await {
                Ok(true) => {}
                Ok(false) => return log::warn!("the delta {id} has been taken by another process"),
                Err(error) => log::warn!("the delta {id} may be taken by another process: {error}"),
            }
        }
    }

    async fn make(&self, task: &Task) -> Outcome {
        let bench = match self.place.bench() {
            Ok(bench) => bench,
            Err(error) => return Outcome::Later(format!("making a folder for it: {error}")),
        };
        let (old, new, made) = (bench.at("old.mender"), bench.at("new.mender"), bench.at(MADE));
        for (artifact, path) in [(&task.source, &old), (&task.target, &new)] {
            if let Err(reason) = self.fetch(artifact, path).await {
                return Outcome::Later(format!("reading the artifact {}: {reason}", artifact.name));
            }
        }
        let arguments = self.arguments(&bench, &old, &new, &made);
        let options = &self.shared.options;
        let time = Duration::from_secs(options.delta_seconds);
        let bounds = Bounds { time, bytes: room(task), nice: options.delta_nice };
        match child::run(&options.delta_command, &arguments, bench.path(), bounds).await {
            Ok(said) if said.is_empty() => {}
            Ok(said) => log::debug!("the program that makes deltas: {said}"),
            Err(Trouble::Passing(reason)) => return Outcome::Later(reason),
            Err(Trouble::Lasting(reason)) => return Outcome::Failed(reason),
        }
        self.enter(task, &bench).await
    }

    fn arguments(&self, bench: &Bench, old: &Path, new: &Path, made: &Path) -> Vec<OsString> {
        let settings: DeltaSettings =
            self.service().catalogue.document(Kind::Settings, rules::SETTINGS).unwrap_or_default();
        let mut arguments: Vec<OsString> =
            ["delta", "--no-progress", "--json", "--jobs", "1", "--compression"].map(OsString::from).into();
        arguments.push(settings.compression.name().into());
        arguments.extend(["--tmp".into(), bench.path().into()]);
        if let Some(key) = &self.shared.options.delta_key {
            arguments.extend(["--key".into(), key.into()]);
        }
        arguments.extend(["--output-path".into(), made.into(), old.into(), new.into()]);
        arguments
    }

    /// Puts the bytes of an artifact into a file.
    async fn fetch(&self, artifact: &Artifact, path: &Path) -> Result<(), String> {
        let name = Name::artifact(&artifact.id).ok_or("its id is not a UUID")?;
        let pieces = self.shared.blobs.read(&name, Span::all(artifact.size)).await;
        let mut pieces = pieces.map_err(|error| error.to_string())?;
        let failed = |error: std::io::Error| error.to_string();
        let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }

    /// Takes what was made, if it is what was ordered and worth it.
    async fn enter(&self, task: &Task, bench: &Bench) -> Outcome {
        let failed =
            |error: std::io::Error| Outcome::Failed(format!("reading what the program made: {error}"));
        let (file, size) = match bench.open(MADE) {
            Err(error) => return failed(error),
            // It may still grow: what was looked at is what is taken.
            Ok((file, size)) => (tokio::fs::File::from_std(file), size),
        };
        let mut file = file.take(size);
        let full = task.target.size;
        if u128::from(size) * 100 > u128::from(full) * u128::from(rules::MOST_PERCENT) {
            return Outcome::Failed(format!(
                "the delta has {size} bytes and the full artifact {full}: more than {} percent are not worth it",
                rules::MOST_PERCENT
            ));
        }
        let Some(id) = task.job.artifact.clone() else {
            return Outcome::Failed("the job has no id for its artifact".to_owned());
        };
        let Ok(_place) = self.shared.uploading.clone().acquire_owned().await else { return Outcome::Stopped };
        let keeper = Keeper::of(&self.shared);
        let mut intake = match keeper.begin(&id).await {
            Ok(intake) => intake,
            Err(error) => return Outcome::Later(error.message),
        };
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let count = match file.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => {
                    intake.discard().await;
                    return Outcome::Later(format!("reading what the program made: {error}"));
                }
            };
            let piece = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
            if let Err(error) = intake.write(piece).await {
                intake.discard().await;
                return outcome(&error.into());
            }
        }
        let (ordered, must_be_signed) = (task.clone(), self.shared.options.delta_key.is_some());
        let description = format!("delta from {}, made by the server", task.source.name);
        let check = move |made: &Artifact| ordered.check(made, must_be_signed);
        let made_of = vec![task.source.id.clone(), task.target.id.clone()];
        match keeper.keep_checked(intake, id, description, made_of, check).await {
            Ok(()) => Outcome::Made(size),
            Err(error) => outcome(&error),
        }
    }
}

/// What there may be of both artifacts, both images and the delta, with as much again for what the program does in between.
fn room(task: &Task) -> u64 {
    let of = |artifact: &Artifact| {
        let files = artifact.files.iter().map(|file| file.size);
        files.fold(artifact.size, u64::saturating_add)
    };
    of(&task.source).saturating_add(of(&task.target)).saturating_mul(2).saturating_add(SPARE_BYTES)
}

/// What comes of a job whose artifact was not taken: what is wrong with that stays wrong.
fn outcome(error: &crate::api::ApiError) -> Outcome {
    match error.status.is_server_error() {
        true => Outcome::Later(error.message.clone()),
        false => Outcome::Failed(error.message.clone()),
    }
}

fn keys(ids: &[String]) -> Vec<Key> {
    ids.iter().map(|id| Key::Document(Kind::DeltaJob, id.clone())).collect()
}
