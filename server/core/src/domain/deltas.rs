//! Deltas that the server makes: which pairs of images a deployment will meet, and which process makes which of them.
//!
//! A job is one pair: an image that devices run, and the artifact that they are to get. It is a document with an id made of
//! both, so that nothing makes it twice, however many processes and deployments want it.

use std::collections::BTreeSet;
use std::sync::Arc;

use artifact::write::{CHECKSUM_KEYS, ROOTFS_IMAGE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id;
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::work::{Kind, NotLoaded, Work};

/// Pairs of one deployment.
pub(crate) const PAIRS: usize = 20;
/// Images that the fleet is asked about for one deployment: the newest.
pub(crate) const SOURCES: usize = 50;
/// Jobs that are kept: after that the oldest that have ended go.
pub(crate) const JOBS: usize = 1000;
/// How often a job is begun that never comes to an end.
pub(crate) const ATTEMPTS: u32 = 3;
/// How long a process has a job without saying so again.
pub(crate) const LEASE_SECONDS: u64 = 60;
/// The largest part of the full artifact, in percent, that a delta may have.
pub(crate) const MOST_PERCENT: u64 = 80;
/// What says which image a device runs.
pub(crate) const CHECKSUM: &str = CHECKSUM_KEYS[0];
/// The payload type of the deltas that are made.
const PAYLOAD_TYPE: &str = "rust-ota-delta";
/// Characters of a reason.
const REASON_CHARS: usize = 1000;

/// How far a job is. The names are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It waits for a process.
    Pending,
    /// A process has it.
    Queued,
    /// The delta is there.
    Success,
    /// There will be none; the reason is in the job.
    Failed,
}

/// Every state.
pub(crate) const STATES: [State; 4] = [State::Pending, State::Queued, State::Success, State::Failed];

impl State {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Queued => "queued",
            State::Success => "success",
            State::Failed => "failed",
        }
    }

    /// The state with this name.
    pub(crate) fn parse(name: &str) -> Option<State> {
        STATES.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing follows by itself.
    pub(crate) fn has_ended(self) -> bool {
        match self {
            State::Success | State::Failed => true,
            State::Pending | State::Queued => false,
        }
    }
}

/// A delta to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeltaJob {
    /// Made of the pair.
    pub(crate) id: String,
    /// The newest deployment that wants it.
    pub(crate) deployment: String,
    /// Its sequence number.
    pub(crate) sequence: u64,
    /// The artifact with the image that devices run.
    pub(crate) source: String,
    /// The artifact that they are to get.
    pub(crate) target: String,
    /// The name of the first.
    pub(crate) from_version: String,
    /// The name of the second.
    pub(crate) to_version: String,
    /// Which devices the second is for.
    pub(crate) device_types: Vec<String>,
    /// How many devices ran the image when the job was made.
    pub(crate) devices: u64,
    /// How far it is.
    pub(crate) state: State,
    /// Why it has failed, or why it did not work the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// When a process last began with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished: Option<Timestamp>,
    /// The process that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holder: Option<String>,
    /// Until when that process has it; before when nobody begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
    /// How often it was begun without an end.
    #[serde(default)]
    pub(crate) attempts: u32,
    /// The id that its artifact has, or will have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact: Option<String>,
    /// Bytes of its artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Bytes of the full artifact.
    pub(crate) full_bytes: u64,
}

impl DeltaJob {
    /// Whether a process may begin with it.
    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        match self.state {
            State::Pending => self.until.is_none_or(|until| until <= now),
            // Who had it is gone.
            State::Queued => self.until.is_none_or(|until| until < now),
            State::Success | State::Failed => false,
        }
    }

    fn end(&mut self, state: State, reason: Option<String>, now: Timestamp) {
        self.state = state;
        self.reason = reason.map(|reason| reason.chars().take(REASON_CHARS).collect());
        self.finished = Some(now);
        self.holder = None;
        self.until = None;
    }
}

/// An image that devices run, and what they are to get.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    /// The artifact with the first.
    pub(crate) source: Arc<Artifact>,
    /// The artifact with the second.
    pub(crate) target: Arc<Artifact>,
}

impl Pair {
    /// The id of its job.
    pub(crate) fn id(&self) -> String {
        let image = image(&self.source).unwrap_or_default();
        id::uuid_of_name(&format!("delta\n{image}\n{}", self.target.id))
    }
}

/// The digest of the image in an artifact that has nothing else, if devices know it by that afterwards.
pub(crate) fn image(artifact: &Artifact) -> Option<&str> {
    let [file] = artifact.files.as_slice() else { return None };
    let is_image = artifact.payload_type.as_deref() == Some(ROOTFS_IMAGE);
    (is_image && artifact.provides.get(CHECKSUM) == Some(&file.checksum)).then_some(&*file.checksum)
}

/// The pairs for which a delta could be made and is not there: for each full artifact of a release with every other image
/// for one of its device types, the newest first.
pub(crate) fn possible(artifacts: &[Arc<Artifact>], release: &str) -> Vec<Pair> {
    let mut sources: Vec<&Arc<Artifact>> = artifacts.iter().filter(|one| image(one).is_some()).collect();
    sources.sort_by_key(|artifact| (std::cmp::Reverse(artifact.modified), &artifact.id));
    let siblings: Vec<&Arc<Artifact>> = artifacts.iter().filter(|one| one.name == release).collect();
    let full = siblings.iter().filter(|one| image(one).is_some() && !one.depends.contains_key(CHECKSUM));
    let mut pairs = Vec::new();
    for target in full {
        let mut seen: BTreeSet<&str> = image(target).into_iter().collect();
        let shares =
            |other: &Artifact| other.device_types.iter().any(|kind| target.device_types.contains(kind));
        let fits = sources.iter().filter(|source| shares(source));
        for source in fits {
            let Some(old) = image(source).filter(|old| seen.insert(old)) else { continue };
            let is_there = siblings.iter().any(|sibling| {
                shares(sibling)
                    && sibling.depends.get(CHECKSUM).is_some_and(|images| images.iter().any(|one| one == old))
            });
            if !is_there && pairs.len() < SOURCES {
                pairs.push(Pair { source: (*source).clone(), target: (*target).clone() });
            }
        }
    }
    pairs
}

/// Of pairs with how many devices they are for those that are worth a job, the most frequent first.
pub(crate) fn worth(mut counted: Vec<(Pair, u64)>) -> Vec<(Pair, u64)> {
    counted.retain(|(_, devices)| *devices > 0);
    counted.sort_by_key(|(pair, devices)| (std::cmp::Reverse(*devices), pair.id()));
    counted.truncate(PAIRS);
    counted
}

/// Puts the jobs that a deployment wants and that are not there. One that has ended without a delta that is still there is
/// begun anew for a deployment that came later, and never again for one that has seen its end. How many were put.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn plan(
    work: &mut Work,
    deployment: &str,
    sequence: u64,
    pairs: &[(Pair, u64)],
) -> Result<usize, NotLoaded> {
    let ids: Vec<String> = pairs.iter().map(|(pair, _)| pair.id()).collect();
    let known: Vec<Result<Option<DeltaJob>, NotLoaded>> =
        ids.iter().map(|id| work.document(Kind::DeltaJob, id)).collect();
    let mut count = 0;
    for ((id, known), (pair, devices)) in ids.into_iter().zip(known).zip(pairs) {
        let known = known?;
        let is_wanted = match &known {
            None => true,
            Some(job) => job.state != State::Queued && job.sequence < sequence,
        };
        if !is_wanted {
            continue;
        }
        let job = DeltaJob {
            id: id.clone(),
            deployment: deployment.to_owned(),
            sequence,
            source: pair.source.id.clone(),
            target: pair.target.id.clone(),
            from_version: pair.source.name.clone(),
            to_version: pair.target.name.clone(),
            device_types: pair.target.device_types.clone(),
            devices: *devices,
            state: State::Pending,
            reason: None,
            created: work.now(),
            started: None,
            finished: None,
            holder: None,
            until: None,
            attempts: 0,
            // What was made is perhaps only not known to this process yet.
            artifact: known.and_then(|job| job.artifact),
            bytes: None,
            full_bytes: pair.target.size,
        };
        work.put_document(Kind::DeltaJob, &id, Some(&job))?;
        count += 1;
    }
    Ok(count)
}

/// What became of taking a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Take {
    /// It is not free.
    Nothing,
    /// It ended without any work.
    Ended(Box<DeltaJob>),
    /// Make it.
    Make(Box<Task>),
}

/// What to make.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    /// The job.
    pub(crate) job: DeltaJob,
    /// The artifact with the image that devices run.
    pub(crate) source: Artifact,
    /// The artifact that they are to get.
    pub(crate) target: Artifact,
}

impl Task {
    /// What is wrong with an artifact that is said to be the delta.
    pub(crate) fn check(&self, made: &Artifact, must_be_signed: bool) -> Result<(), String> {
        let (old, new) = (image(&self.source), image(&self.target));
        let depends = made.depends.get(CHECKSUM).map(Vec::as_slice);
        let wrong = if made.name != self.target.name || made.device_types != self.target.device_types {
            "it is for another release or other devices"
        } else if made.payload_type.as_deref() != Some(PAYLOAD_TYPE) {
            "it is no delta"
        } else if !matches!(depends, Some([one]) if old == Some(one)) {
            "it is not for devices with the old image"
        } else if made.provides.get(CHECKSUM).map(String::as_str) != new {
            "it does not lead to the new image"
        } else if must_be_signed && !made.signed {
            "it is not signed"
        } else {
            return Ok(());
        };
        Err(format!("what was made is not what was ordered: {wrong}"))
    }
}

/// Gives a job to a process for a while. Its artifact will be called `artifact`.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn take(
    work: &mut Work,
    id: &str,
    holder: &str,
    artifact: &str,
    has_key: bool,
) -> Result<Take, NotLoaded> {
    let now = work.now();
    let job: Option<DeltaJob> = work.document(Kind::DeltaJob, id)?;
    let Some(mut job) = job.filter(|job| job.is_free(now)) else { return Ok(Take::Nothing) };
    let made: Option<Artifact> = match &job.artifact {
        Some(made) => work.document(Kind::Artifact, made)?,
        None => None,
    };
    let source: Option<Artifact> = work.document(Kind::Artifact, &job.source)?;
    let target: Option<Artifact> = work.document(Kind::Artifact, &job.target)?;
    let is_wanted = work.deployment(&job.deployment)?.is_some_and(|deployment| deployment.finished.is_none());
    let deleted = |name: &str, id: &str| format!("the artifact {name} ({id}) was deleted");
    let reason = match (source, target) {
        // Whoever made it ended before it could say so.
        _ if made.is_some() => None,
        (None, _) => Some(deleted(&job.from_version, &job.source)),
        (_, None) => Some(deleted(&job.to_version, &job.target)),
        _ if !is_wanted => Some("the deployment ended before the delta was made".to_owned()),
        _ if job.attempts >= ATTEMPTS => {
            let before = job.reason.as_deref().unwrap_or("each time the server ended first");
            Some(format!("it was begun {ATTEMPTS} times: {before}"))
        }
        (_, Some(target)) if target.signed && !has_key => {
            Some(format!("the artifact {} is signed, and the server has no key (--delta-key)", target.name))
        }
        (Some(source), Some(target)) => {
            job.state = State::Queued;
            job.holder = Some(holder.to_owned());
            job.until = Some(now.plus_seconds(LEASE_SECONDS));
            job.started = Some(now);
            job.finished = None;
            job.attempts += 1;
            job.artifact = Some(artifact.to_owned());
            work.put_document(Kind::DeltaJob, id, Some(&job))?;
            return Ok(Take::Make(Box::new(Task { job, source, target })));
        }
    };
    match (made, reason) {
        (Some(made), _) => {
            job.bytes = Some(made.size);
            job.end(State::Success, None, now);
        }
        (None, reason) => {
            job.artifact = None;
            if !is_wanted {
                // Nothing was tried: an older deployment may want it still.
                job.sequence = 0;
            }
            job.end(State::Failed, reason, now);
        }
    }
    work.put_document(Kind::DeltaJob, id, Some(&job))?;
    Ok(Take::Ended(Box::new(job)))
}

/// How the work on a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The delta is there, with so many bytes.
    Made(u64),
    /// There will be none.
    Failed(String),
    /// The server could not; it may be able to later.
    Later(String),
    /// The server stops.
    Stopped,
}

/// A job as long as a process has it.
fn held(work: &mut Work, id: &str, holder: &str) -> Result<Option<DeltaJob>, NotLoaded> {
    let job: Option<DeltaJob> = work.document(Kind::DeltaJob, id)?;
    Ok(job.filter(|job| job.state == State::Queued && job.holder.as_deref() == Some(holder)))
}

/// The process still works on it. False when the job is not its own any more.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn renew(work: &mut Work, id: &str, holder: &str) -> Result<bool, NotLoaded> {
    let Some(mut job) = held(work, id, holder)? else { return Ok(false) };
    job.until = Some(work.now().plus_seconds(LEASE_SECONDS));
    work.put_document(Kind::DeltaJob, id, Some(&job))?;
    Ok(true)
}

/// Says what came of a job. Nothing when it is not the process's own any more.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn end(work: &mut Work, id: &str, holder: &str, outcome: &Outcome) -> Result<(), NotLoaded> {
    let now = work.now();
    let Some(mut job) = held(work, id, holder)? else { return Ok(()) };
    match outcome {
        Outcome::Made(bytes) => {
            job.bytes = Some(*bytes);
            job.end(State::Success, None, now);
        }
        Outcome::Failed(reason) => {
            job.artifact = None;
            job.end(State::Failed, Some(reason.clone()), now);
        }
        Outcome::Later(reason) => {
            job.end(State::Pending, Some(reason.clone()), now);
            job.finished = None;
            job.until = Some(now.plus_seconds(LEASE_SECONDS));
        }
        Outcome::Stopped => {
            job.end(State::Pending, job.reason.clone(), now);
            job.finished = None;
            job.attempts = job.attempts.saturating_sub(1);
        }
    }
    work.put_document(Kind::DeltaJob, id, Some(&job))
}

/// A process that ended without a word has come again: what it had waits again. The attempt counts.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn reclaim(work: &mut Work, ids: &[String], holder: &str) -> Result<usize, NotLoaded> {
    let held: Vec<_> = ids.iter().map(|id| held(work, id, holder)).collect();
    let mut count = 0;
    for job in held {
        let Some(mut job) = job? else { continue };
        job.state = State::Pending;
        job.holder = None;
        job.until = None;
        work.put_document(Kind::DeltaJob, &job.id, Some(&job))?;
        count += 1;
    }
    Ok(count)
}

/// The jobs that go because there are too many: those that ended first, of deployments that are over.
pub(crate) fn surplus(jobs: &[(String, DeltaJob)], active: &BTreeSet<String>) -> Vec<String> {
    let mut over: Vec<&(String, DeltaJob)> =
        jobs.iter().filter(|(_, job)| job.state.has_ended() && !active.contains(&job.deployment)).collect();
    over.sort_by_key(|(id, job)| (job.finished, id));
    over.into_iter().take(jobs.len().saturating_sub(JOBS)).map(|(id, _)| id.clone()).collect()
}

/// Takes jobs away that have ended.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn forget(work: &mut Work, ids: &[String]) -> Result<(), NotLoaded> {
    let jobs: Vec<Result<Option<DeltaJob>, NotLoaded>> =
        ids.iter().map(|id| work.document(Kind::DeltaJob, id)).collect();
    for job in jobs {
        if let Some(job) = job?.filter(|job| job.state.has_ended()) {
            work.put_document(Kind::DeltaJob, &job.id, None::<&DeltaJob>)?;
        }
    }
    Ok(())
}

/// How deltas are compressed, as `rust-ota-artifact delta --compression` calls it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Coding {
    /// zstd.
    #[default]
    #[serde(rename = "zstd_best")]
    Zstd,
    /// xz: a little smaller, and more work for the device.
    #[serde(rename = "lzma")]
    Xz,
}

impl Coding {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd_best",
            Coding::Xz => "lzma",
        }
    }
}

/// The id of the document of [`DeltaSettings`] among the settings.
pub(crate) const SETTINGS: &str = "deltas";

/// What people want of deltas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeltaSettings {
    /// How they are compressed.
    #[serde(default)]
    pub(crate) compression: Coding,
}

/// Keeps what people want of deltas.
///
/// # Errors
/// Something has to be loaded first.
pub(crate) fn set(work: &mut Work, settings: DeltaSettings) -> Result<(), NotLoaded> {
    work.put_document(Kind::Settings, SETTINGS, Some(&settings))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::ArtifactFile;
    use crate::model::{Deployment, time::Timestamp};
    use crate::work::{Loaded, testing};

    fn artifact(id: &str, name: &str, image: &str, modified: u64) -> Artifact {
        Artifact {
            provides: BTreeMap::from([(CHECKSUM.to_owned(), image.to_owned())]),
            payload_type: Some(ROOTFS_IMAGE.to_owned()),
            files: vec![ArtifactFile { name: "f".to_owned(), checksum: image.to_owned(), size: 1 }],
            size: 100,
            modified: Timestamp(modified),
            ..Artifact::plain(id, name, &["board"])
        }
    }

    fn fleet() -> Vec<Artifact> {
        vec![artifact("1", "old", "a", 1), artifact("2", "older", "b", 2), artifact("3", "new", "c", 3)]
    }

    fn names(pairs: &[Pair]) -> Vec<(&str, &str)> {
        pairs.iter().map(|pair| (&*pair.source.name, &*pair.target.name)).collect()
    }

    fn possible_of(artifacts: Vec<Artifact>) -> Vec<Pair> {
        let artifacts: Vec<Arc<Artifact>> = artifacts.into_iter().map(Arc::new).collect();
        possible(&artifacts, "new")
    }

    #[test]
    fn a_pair_is_an_image_of_the_same_devices_for_which_nobody_has_made_a_delta() {
        assert_eq!(names(&possible_of(fleet())), [("older", "new"), ("old", "new")]);
        let changed = |change: &dyn Fn(&mut Vec<Artifact>)| {
            let mut artifacts = fleet();
            change(&mut artifacts);
            let pairs = possible_of(artifacts);
            names(&pairs).iter().map(|(from, _)| (*from).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(changed(&|all| all[0].device_types = vec!["other".to_owned()]), ["older"]);
        assert_eq!(changed(&|all| all[0].payload_type = Some("deb".to_owned())), ["older"]);
        assert_eq!(
            changed(&|all| all[0].provides.clear()),
            ["older"],
            "devices would not know that they run it"
        );
        assert_eq!(changed(&|all| all[0] = artifact("1", "copy", "b", 9)), ["copy"], "one job for one image");
        assert_eq!(changed(&|all| all[0] = artifact("1", "same", "c", 9)), ["older"]);
        let with_delta = |all: &mut Vec<Artifact>| {
            let mut delta = artifact("4", "new", "c", 9);
            delta.payload_type = Some(PAYLOAD_TYPE.to_owned());
            delta.depends.insert(CHECKSUM.to_owned(), vec!["a".to_owned()]);
            all.push(delta);
        };
        assert_eq!(changed(&with_delta), ["older"]);
        let only_depending = |all: &mut Vec<Artifact>| {
            all[2].depends.insert(CHECKSUM.to_owned(), vec!["x".to_owned()]);
        };
        assert!(changed(&only_depending).is_empty());
    }

    #[test]
    fn the_most_frequent_pairs_come_first_and_those_without_devices_not_at_all() {
        let pairs = possible_of(
            (0..30).map(|n| artifact(&n.to_string(), "old", &format!("i{n}"), n)).chain(fleet()).collect(),
        );
        assert_eq!(pairs.len(), 32);
        let counted = pairs.into_iter().zip((0..32).map(|n| n % 27)).collect();
        let worth = worth(counted);
        assert_eq!(worth.len(), PAIRS);
        assert_eq!((worth[0].1, worth[1].1, worth[PAIRS - 1].1), (26, 25, 7));
    }

    fn deployment(id: &str, sequence: u64) -> Deployment {
        let mut work = Work::new(Timestamp(1));
        work.load(Loaded::Document(Kind::Order, crate::domain::rollout::RECENT.to_owned(), None));
        let new = crate::domain::rollout::NewDeployment {
            artifacts: Vec::new(),

            members: [1].into_iter().collect(),
            ..Default::default()
        };
        let made = crate::domain::rollout::create(&mut work, new).unwrap();
        let made = work.deployment(&made).unwrap().unwrap();
        Deployment { id: id.to_owned(), sequence, autogenerate_delta: true, ..made }
    }

    struct Bench {
        artifacts: Vec<Artifact>,
        deployments: Vec<Deployment>,
        jobs: Vec<DeltaJob>,
    }

    impl Bench {
        /// A fleet with one job, for the pair of `old` and `new`.
        fn new() -> (Bench, String) {
            let deployments = vec![deployment("d1", 1), deployment("d2", 2)];
            let mut bench = Bench { artifacts: fleet(), deployments, jobs: Vec::new() };
            assert_eq!(bench.plan(0, "d1", 1), 1);
            let id = bench.jobs[0].id.clone();
            (bench, id)
        }

        /// Runs a rule on what is there at a second.
        fn run<T>(&mut self, second: u64, mut rule: impl FnMut(&mut Work) -> Result<T, NotLoaded>) -> T {
            let mut work = Work::new(Timestamp(second * 1000));
            let mut load =
                |kind, id: &str, value| work.load(Loaded::Document(kind, id.to_owned(), Some(value)));
            self.artifacts
                .iter()
                .for_each(|one| load(Kind::Artifact, &one.id, serde_json::to_value(one).unwrap()));
            self.jobs
                .iter()
                .for_each(|one| load(Kind::DeltaJob, &one.id, serde_json::to_value(one).unwrap()));
            for one in &self.deployments {
                work.load(Loaded::Deployment(one.id.clone(), Some(one.clone())));
            }
            let done = testing::run(&mut work, |_| true, &mut rule).unwrap();
            for ((kind, id), row) in work.changed_documents() {
                assert_eq!(*kind, Kind::DeltaJob);
                self.jobs.retain(|job| job.id != *id);
                self.jobs
                    .extend(row.now.clone().map(|value| serde_json::from_value::<DeltaJob>(value).unwrap()));
            }
            done
        }

        fn plan(&mut self, second: u64, deployment: &str, sequence: u64) -> usize {
            let pair = possible_of(fleet()).pop().unwrap();
            self.run(second, |work| plan(work, deployment, sequence, &[(pair.clone(), 7)]))
        }

        fn take(&mut self, second: u64, id: &str, holder: &str) -> Take {
            self.run(second, |work| take(work, id, holder, &format!("made-by-{holder}"), false))
        }

        fn end(&mut self, second: u64, id: &str, holder: &str, outcome: &Outcome) {
            self.run(second, |work| end(work, id, holder, outcome));
        }

        fn job(&self) -> &DeltaJob {
            &self.jobs[0]
        }

        fn reason(&self) -> &str {
            assert_eq!(self.job().state, State::Failed);
            self.job().reason.as_deref().unwrap()
        }
    }

    #[test]
    fn one_pair_has_one_job_and_one_that_has_ended_is_begun_anew_only_for_a_later_deployment() {
        let (mut bench, id) = Bench::new();
        assert_eq!((bench.plan(1, "d1", 1), bench.jobs.len()), (0, 1));
        assert!(matches!(bench.take(2, &id, "p"), Take::Make(_)));
        assert_eq!(bench.plan(3, "d2", 2), 0, "it is being made");
        bench.end(4, &id, "p", &Outcome::Failed("broken".to_owned()));
        assert_eq!((bench.plan(5, "d1", 1), bench.reason()), (0, "broken"));
        assert_eq!((bench.plan(6, "d2", 2), bench.job().state), (1, State::Pending));
        assert_eq!(bench.plan(7, "d1", 1), 0, "two deployments do not take it from each other");
    }

    #[test]
    fn a_job_is_taken_by_one_process_until_that_says_nothing_for_a_minute() {
        let (mut bench, id) = Bench::new();
        let Take::Make(task) = bench.take(10, &id, "p") else { panic!() };
        assert_eq!((task.source.id.as_str(), task.target.id.as_str()), ("1", "3"));
        assert_eq!(bench.take(20, &id, "q"), Take::Nothing);
        assert!(bench.run(60, |work| renew(work, &id, "p")));
        assert_eq!(bench.take(120, &id, "q"), Take::Nothing);
        assert!(matches!(bench.take(121, &id, "q"), Take::Make(_)));
        assert!(!bench.run(122, |work| renew(work, &id, "p")), "it is another's now");
        bench.end(123, &id, "p", &Outcome::Made(1));
        assert_eq!(bench.job().state, State::Queued);
        bench.end(124, &id, "q", &Outcome::Made(30));
        let job = bench.job();
        assert_eq!(
            (job.state, job.bytes, job.artifact.as_deref()),
            (State::Success, Some(30), Some("made-by-q"))
        );
    }

    #[test]
    fn a_stop_costs_nothing_a_trouble_waits_a_minute_and_what_never_ends_is_given_up() {
        let (mut bench, id) = Bench::new();
        for second in 0..10 {
            assert!(matches!(bench.take(second, &id, "p"), Take::Make(_)));
            bench.end(second, &id, "p", &Outcome::Stopped);
        }
        for attempt in 1..=u64::from(ATTEMPTS) {
            assert!(matches!(bench.take(attempt * 100, &id, "p"), Take::Make(_)));
            bench.end(attempt * 100, &id, "p", &Outcome::Later("the disk is full".to_owned()));
            assert_eq!(bench.take(attempt * 100 + 59, &id, "p"), Take::Nothing);
        }
        bench.take(1000, &id, "p");
        assert_eq!(bench.reason(), "it was begun 3 times: the disk is full");
    }

    #[test]
    fn a_process_that_comes_again_goes_on_with_what_it_had_and_sees_what_it_had_made() {
        let (mut bench, id) = Bench::new();
        bench.take(1, &id, "p");
        assert_eq!(bench.run(2, |work| reclaim(work, std::slice::from_ref(&id), "other")), 0);
        assert_eq!(bench.run(2, |work| reclaim(work, std::slice::from_ref(&id), "p")), 1);
        assert_eq!((bench.job().state, bench.job().attempts), (State::Pending, 1));
        let mut made = artifact("made-by-p", "new", "c", 9);
        made.size = 12;
        bench.artifacts.push(made);
        assert!(matches!(bench.take(3, &id, "p"), Take::Ended(_)));
        assert_eq!((bench.job().state, bench.job().bytes), (State::Success, Some(12)));
    }

    #[test]
    fn what_cannot_be_made_any_more_ends_with_its_reason() {
        let (mut bench, id) = Bench::new();
        bench.artifacts.remove(0);
        assert!(matches!(bench.take(1, &id, "p"), Take::Ended(_)));
        assert_eq!(bench.reason(), "the artifact old (1) was deleted");
        let (mut bench, id) = Bench::new();
        bench.artifacts[2].signed = true;
        bench.take(1, &id, "p");
        assert_eq!(bench.reason(), "the artifact new is signed, and the server has no key (--delta-key)");
        let (mut bench, id) = Bench::new();
        bench.deployments[0].finished = Some(Timestamp(1));
        bench.take(1, &id, "p");
        assert_eq!(bench.reason(), "the deployment ended before the delta was made");
    }

    #[test]
    fn a_newer_deployment_that_ends_leaves_the_delta_to_the_older_one() {
        let (mut bench, id) = Bench::new();
        assert_eq!(bench.plan(1, "d2", 2), 1);
        bench.deployments[1].finished = Some(Timestamp(2));
        assert!(matches!(bench.take(3, &id, "p"), Take::Ended(_)));
        assert_eq!(bench.plan(4, "d1", 1), 1, "it wants it still");
        assert!(matches!(bench.take(5, &id, "p"), Take::Make(_)));
    }

    #[test]
    fn only_the_delta_that_was_ordered_is_taken() {
        let (mut bench, id) = Bench::new();
        let Take::Make(task) = bench.take(1, &id, "p") else { panic!() };
        let mut good = artifact("x", "new", "c", 1);
        good.payload_type = Some(PAYLOAD_TYPE.to_owned());
        good.depends.insert(CHECKSUM.to_owned(), vec!["a".to_owned()]);
        assert_eq!(task.check(&good, false), Ok(()));
        let bad: [&dyn Fn(&mut Artifact); 5] = [
            &|made| made.name = "other".to_owned(),
            &|made| made.payload_type = Some(ROOTFS_IMAGE.to_owned()),
            &|made| made.depends.clear(),
            &|made| made.depends.get_mut(CHECKSUM).unwrap().push("b".to_owned()),
            &|made| made.provides.clear(),
        ];
        for change in bad {
            let mut made = good.clone();
            change(&mut made);
            assert!(task.check(&made, false).is_err());
        }
        assert!(task.check(&good, true).is_err());
    }

    #[test]
    fn of_too_many_jobs_those_that_ended_first_go() {
        let (bench, _) = Bench::new();
        let job = |n: usize, state, deployment: &str| {
            let finished = Some(Timestamp(n as u64));
            let job = DeltaJob { state, finished, deployment: deployment.to_owned(), ..bench.job().clone() };
            (format!("{n:04}"), job)
        };
        let mut jobs: Vec<_> = (0..JOBS).map(|n| job(n, State::Pending, "over")).collect();
        assert!(surplus(&jobs, &BTreeSet::new()).is_empty());
        jobs.extend([job(2002, State::Failed, "over"), job(2001, State::Success, "over")]);
        jobs.push(job(2000, State::Failed, "d1"));
        let active = BTreeSet::from(["d1".to_owned()]);
        assert_eq!(surplus(&jobs, &active), ["2001", "2002"]);
    }
}
