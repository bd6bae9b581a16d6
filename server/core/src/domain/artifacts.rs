//! Artifacts and releases: what may be beside what is there, and what goes with it. A release is all artifacts of one name;
//! its document has what people say about it, and lists them, so that two uploads at once see each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rollout::newest_of;
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::work::{Key, Kind, NotLoaded, Work};

/// Tags of one release.
pub(crate) const TAGS: usize = 20;
/// Different tags of all releases.
pub(crate) const TAGS_OF_ALL: usize = 100;
/// Characters of one tag.
pub(crate) const TAG_CHARS: usize = 1024;
/// Characters of notes.
pub(crate) const NOTES_CHARS: usize = 1024;
/// How long somebody has an upload to read without saying so again.
pub(crate) const READER_SECONDS: u64 = 60;
/// Direct uploads that are begun and not completed.
pub(crate) const UPLOADS: usize = 1000;

/// What people say about a release, and its artifacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Release {
    /// For people.
    #[serde(default)]
    pub(crate) notes: String,
    /// For people, sorted.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    /// When it, or one of its artifacts, last changed.
    #[serde(default)]
    pub(crate) modified: Timestamp,
    /// The ids of its artifacts. Those that were imported need not be here.
    #[serde(default)]
    pub(crate) artifacts: BTreeSet<String>,
}

/// An upload that goes past this server, or is still to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirectUpload {
    /// When its link ends.
    pub(crate) expire: Timestamp,
    /// Who reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reader: Option<String>,
    /// Until when that one has it without saying so again. After that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
}

impl DirectUpload {
    /// Whether somebody reads it.
    pub(crate) fn is_read(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Why an artifact or a release was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArtifactError {
    /// The rule is run again.
    NotLoaded,
    /// There is none.
    NotFound,
    /// The same name, a common device type and the same depends: a device could not know which one to take.
    Conflict {
        /// The one that is there.
        existing: String,
    },
    /// Active deployments need it.
    InUse {
        /// Their ids.
        deployments: Vec<String>,
    },
    /// What it was made of was deleted meanwhile.
    Withdrawn,
    /// It is being read already.
    AtWork,
    /// There are too many uploads that are not completed.
    TooManyUploads,
    /// All releases together would have too many different tags.
    TooManyTags,
}

impl From<NotLoaded> for ArtifactError {
    fn from(_: NotLoaded) -> ArtifactError {
        ArtifactError::NotLoaded
    }
}

/// What [`add`] asks for, as far as that is known: `known` are artifacts with the same name.
pub(crate) fn keys(id: &str, name: &str, known: &[String]) -> Vec<Key> {
    let ids = known.iter().map(String::as_str).chain([id]);
    let artifacts = ids.map(|id| Key::Document(Kind::Artifact, id.to_owned()));
    artifacts.chain([Key::Document(Kind::Release, name.to_owned())]).collect()
}

/// Takes a new artifact.
pub(crate) fn add(work: &mut Work, artifact: &Artifact, known: &[String]) -> Result<(), ArtifactError> {
    let siblings = of_release(work, &artifact.name, known)?;
    let conflict = siblings.values().find(|existing| {
        existing.id != artifact.id
            && existing.depends == artifact.depends
            && existing.device_types.iter().any(|kind| artifact.device_types.contains(kind))
    });
    if let Some(existing) = conflict {
        return Err(ArtifactError::Conflict { existing: existing.id.clone() });
    }
    let mut release: Release = work.document(Kind::Release, &artifact.name)?.unwrap_or_default();
    release.artifacts = siblings.into_keys().collect();
    release.artifacts.insert(artifact.id.clone());
    release.modified = work.now();
    work.put_document(Kind::Release, &artifact.name, Some(&release))?;
    Ok(work.put_document(Kind::Artifact, &artifact.id, Some(artifact))?)
}

/// Takes a new artifact that was made of others, if those are there still: who deletes them does not want it.
pub(crate) fn add_made(
    work: &mut Work,
    artifact: &Artifact,
    known: &[String],
    made_of: &[String],
) -> Result<(), ArtifactError> {
    for id in made_of {
        work.document::<serde_json::Value>(Kind::Artifact, id)?.ok_or(ArtifactError::Withdrawn)?;
    }
    add(work, artifact, known)
}

/// The artifacts of a release: those that its document lists, and those that are `known`, as far as they are there.
fn of_release(
    work: &mut Work,
    name: &str,
    known: &[String],
) -> Result<BTreeMap<String, Artifact>, NotLoaded> {
    let release: Option<Release> = work.document(Kind::Release, name)?;
    let mut ids = release.map(|release| release.artifacts).unwrap_or_default();
    ids.extend(known.iter().cloned());
    // All are asked for before one that is missing ends this.
    let found: Vec<Result<Option<Artifact>, NotLoaded>> =
        ids.iter().map(|id| work.document(Kind::Artifact, id)).collect();
    let mut artifacts = BTreeMap::new();
    for artifact in found {
        artifacts.extend(artifact?.filter(|found| found.name == name).map(|found| (found.id.clone(), found)));
    }
    Ok(artifacts)
}

/// Changes the description of an artifact.
pub(crate) fn describe(work: &mut Work, id: &str, text: &str) -> Result<(), ArtifactError> {
    let artifact: Option<Artifact> = work.document(Kind::Artifact, id)?;
    let mut artifact = artifact.ok_or(ArtifactError::NotFound)?;
    artifact.description = text.to_owned();
    artifact.modified = work.now();
    Ok(work.put_document(Kind::Artifact, id, Some(&artifact))?)
}

/// Forgets an artifact. `users` says which active deployments need a name.
pub(crate) fn delete(
    work: &mut Work,
    id: &str,
    users: &dyn Fn(&str) -> Vec<String>,
) -> Result<(), ArtifactError> {
    let artifact: Option<Artifact> = work.document(Kind::Artifact, id)?;
    let name = artifact.ok_or(ArtifactError::NotFound)?.name;
    let deployments = used_by(work, &name, users)?;
    if !deployments.is_empty() {
        return Err(ArtifactError::InUse { deployments });
    }
    forget(work, &name, &[id.to_owned()], &[])
}

/// Active deployments of a name: those that are known, and one that was made a moment ago.
fn used_by(
    work: &mut Work,
    name: &str,
    users: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, NotLoaded> {
    let mut deployments = users(name);
    if let Some(newest) = work.document::<String>(Kind::Order, &newest_of(name))? {
        let is_active = work.deployment(&newest)?.is_some_and(|newest| newest.finished.is_none());
        if is_active && !deployments.contains(&newest) {
            deployments.push(newest);
        }
    }
    Ok(deployments)
}

/// Forgets releases with all their artifacts; the ids of those. `known` are the artifacts that they have as far as is known.
/// Either all go or none.
pub(crate) fn delete_releases(
    work: &mut Work,
    names: &[String],
    known: &[String],
    users: &dyn Fn(&str) -> Vec<String>,
) -> Result<Vec<String>, ArtifactError> {
    let mut deployments = Vec::new();
    for name in names {
        deployments.extend(used_by(work, name, users)?);
    }
    if !deployments.is_empty() {
        return Err(ArtifactError::InUse { deployments });
    }
    let mut gone = Vec::new();
    for name in names {
        let ids: Vec<String> = of_release(work, name, known)?.into_keys().collect();
        forget(work, name, &ids, known)?;
        gone.extend(ids);
    }
    Ok(gone)
}

/// Takes artifacts away, and their release when it has no others.
fn forget(work: &mut Work, name: &str, ids: &[String], known: &[String]) -> Result<(), ArtifactError> {
    let mut left: BTreeSet<String> = of_release(work, name, known)?.into_keys().collect();
    left.retain(|id| !ids.contains(id));
    for id in ids {
        let artifact: Option<Artifact> = work.document(Kind::Artifact, id)?;
        if artifact.is_some() {
            work.put_document(Kind::Artifact, id, None::<&Artifact>)?;
        }
    }
    let release: Option<Release> = work.document(Kind::Release, name)?;
    let Some(mut release) = release else { return Ok(()) };
    if left.is_empty() {
        return Ok(work.put_document(Kind::Release, name, None::<&Release>)?);
    }
    release.artifacts = left;
    release.modified = work.now();
    Ok(work.put_document(Kind::Release, name, Some(&release))?)
}

/// Changes what people say about a release.
pub(crate) fn change_release(
    work: &mut Work,
    name: &str,
    known: &[String],
    change: &dyn Fn(&mut Release),
) -> Result<(), ArtifactError> {
    let artifacts = of_release(work, name, known)?;
    if artifacts.is_empty() {
        return Err(ArtifactError::NotFound);
    }
    let mut release: Release = work.document(Kind::Release, name)?.unwrap_or_default();
    release.artifacts = artifacts.into_keys().collect();
    release.modified = work.now();
    change(&mut release);
    Ok(work.put_document(Kind::Release, name, Some(&release))?)
}

/// Begins a direct upload. `waiting` is how many there are as far as is known.
pub(crate) fn begin_upload(
    work: &mut Work,
    id: &str,
    expire: Timestamp,
    waiting: usize,
) -> Result<(), ArtifactError> {
    if waiting >= UPLOADS {
        return Err(ArtifactError::TooManyUploads);
    }
    let upload = DirectUpload { expire, reader: None, until: None };
    Ok(work.put_document(Kind::Upload, id, Some(&upload))?)
}

/// Begins to read a direct upload: only one may at a time.
pub(crate) fn claim_upload(work: &mut Work, id: &str, reader: &str) -> Result<(), ArtifactError> {
    let upload: Option<DirectUpload> = work.document(Kind::Upload, id)?;
    let upload = upload.ok_or(ArtifactError::NotFound)?;
    if upload.is_read(work.now()) {
        return Err(ArtifactError::AtWork);
    }
    let until = Some(work.now().plus_seconds(READER_SECONDS));
    let claimed = DirectUpload { reader: Some(reader.to_owned()), until, ..upload };
    Ok(work.put_document(Kind::Upload, id, Some(&claimed))?)
}

/// A direct upload as long as somebody has it.
fn read_by(work: &mut Work, id: &str, reader: &str) -> Result<Option<DirectUpload>, NotLoaded> {
    let upload: Option<DirectUpload> = work.document(Kind::Upload, id)?;
    Ok(upload.filter(|upload| upload.reader.as_deref() == Some(reader)))
}

/// It is still being read. False when somebody else reads it now, or it is gone.
pub(crate) fn renew_upload(work: &mut Work, id: &str, reader: &str) -> Result<bool, ArtifactError> {
    let Some(upload) = read_by(work, id, reader)? else { return Ok(false) };
    let until = Some(work.now().plus_seconds(READER_SECONDS));
    work.put_document(Kind::Upload, id, Some(&DirectUpload { until, ..upload }))?;
    Ok(true)
}

/// Reading a direct upload did not come to an end: it may be read again.
pub(crate) fn release_upload(work: &mut Work, id: &str, reader: &str) -> Result<(), ArtifactError> {
    let Some(upload) = read_by(work, id, reader)? else { return Ok(()) };
    let free = DirectUpload { reader: None, until: None, ..upload };
    Ok(work.put_document(Kind::Upload, id, Some(&free))?)
}

/// Forgets a direct upload.
pub(crate) fn end_upload(work: &mut Work, id: &str) -> Result<(), ArtifactError> {
    Ok(work.put_document(Kind::Upload, id, None::<&DirectUpload>)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Loaded, testing};

    fn artifact(id: &str, name: &str, kinds: &[&str]) -> Artifact {
        Artifact { modified: Timestamp(0), ..Artifact::plain(id, name, kinds) }
    }

    /// Runs a rule as a store does, on a fleet without documents but for `work`'s.
    fn run<T>(
        work: &mut Work,
        rule: impl FnMut(&mut Work) -> Result<T, ArtifactError>,
    ) -> Result<T, ArtifactError> {
        testing::run(work, |key| matches!(key, Key::Document(..)), rule)
    }

    fn release(work: &mut Work, name: &str) -> Option<Release> {
        work.document(Kind::Release, name).unwrap()
    }

    const NOBODY: &dyn Fn(&str) -> Vec<String> = &|_| Vec::new();

    #[test]
    fn artifacts_of_one_name_must_be_told_apart_also_when_they_come_at_once() {
        let mut work = Work::new(Timestamp(5));
        let first = artifact("1", "r", &["a", "b"]);
        run(&mut work, |work| add(work, &first, &[])).unwrap();
        let conflict = Err(ArtifactError::Conflict { existing: "1".to_owned() });
        assert_eq!(run(&mut work, |work| add(work, &artifact("2", "r", &["b"]), &[])), conflict);
        let mut other = artifact("3", "r", &["b"]);
        other.depends.insert("x".to_owned(), vec!["y".to_owned()]);
        run(&mut work, |work| add(work, &other, &[])).unwrap();
        run(&mut work, |work| add(work, &artifact("4", "s", &["b"]), &[])).unwrap();
        run(&mut work, |work| add(work, &artifact("5", "r", &["c"]), &[])).unwrap();
        let release = release(&mut work, "r").unwrap();
        assert_eq!(release.artifacts.into_iter().collect::<Vec<_>>(), ["1", "3", "5"]);
        assert_eq!(release.modified, Timestamp(5));
    }

    #[test]
    fn an_imported_artifact_counts_although_no_release_lists_it() {
        let mut work = Work::new(Timestamp(5));
        let old = serde_json::to_value(artifact("1", "r", &["a"])).unwrap();
        work.load(Loaded::Document(Kind::Artifact, "1".to_owned(), Some(old)));
        let known = ["1".to_owned()];
        let conflict = Err(ArtifactError::Conflict { existing: "1".to_owned() });
        assert_eq!(run(&mut work, |work| add(work, &artifact("2", "r", &["a"]), &known)), conflict);
        run(&mut work, |work| change_release(work, "r", &known, &|release| release.notes = "n".to_owned()))
            .unwrap();
        assert_eq!(release(&mut work, "r").unwrap().notes, "n");
    }

    #[test]
    fn what_people_say_goes_with_the_last_artifact() {
        let mut work = Work::new(Timestamp(5));
        run(&mut work, |work| add(work, &artifact("1", "r", &["a"]), &[])).unwrap();
        run(&mut work, |work| add(work, &artifact("2", "r", &["b"]), &[])).unwrap();
        let tag = |release: &mut Release| release.tags = vec!["t".to_owned()];
        run(&mut work, |work| change_release(work, "r", &[], &tag)).unwrap();
        run(&mut work, |work| delete(work, "1", NOBODY)).unwrap();
        assert_eq!(release(&mut work, "r").unwrap().tags, ["t"]);
        run(&mut work, |work| delete(work, "2", NOBODY)).unwrap();
        assert_eq!(release(&mut work, "r"), None);
        assert_eq!(run(&mut work, |work| delete(work, "2", NOBODY)), Err(ArtifactError::NotFound));
        assert_eq!(run(&mut work, |work| change_release(work, "r", &[], &tag)), Err(ArtifactError::NotFound));
    }

    #[test]
    fn of_what_is_deployed_nothing_goes() {
        let mut work = Work::new(Timestamp(5));
        for (id, name) in [("1", "r"), ("2", "s")] {
            run(&mut work, |work| add(work, &artifact(id, name, &["a"]), &[])).unwrap();
        }
        let users = |name: &str| if name == "s" { vec!["d".to_owned()] } else { Vec::new() };
        let in_use = ArtifactError::InUse { deployments: vec!["d".to_owned()] };
        assert_eq!(run(&mut work, |work| delete(work, "2", &users)), Err(in_use.clone()));
        let names = ["r".to_owned(), "s".to_owned()];
        assert_eq!(run(&mut work, |work| delete_releases(work, &names, &[], &users)), Err(in_use));
        assert!(release(&mut work, "r").is_some(), "none goes when one cannot");
        assert_eq!(run(&mut work, |work| delete_releases(work, &names, &[], NOBODY)).unwrap(), ["1", "2"]);
        assert_eq!((release(&mut work, "r"), release(&mut work, "s")), (None, None));
    }

    #[test]
    fn a_direct_upload_is_read_by_one() {
        let mut work = Work::new(Timestamp(5));
        run(&mut work, |work| begin_upload(work, "u", Timestamp(9), 0)).unwrap();
        let claim = |work: &mut Work, reader: &str| run(work, |work| claim_upload(work, "u", reader));
        let renew = |work: &mut Work, reader: &str| run(work, |work| renew_upload(work, "u", reader));
        claim(&mut work, "a").unwrap();
        assert_eq!(claim(&mut work, "b"), Err(ArtifactError::AtWork));
        run(&mut work, |work| release_upload(work, "u", "b")).unwrap();
        assert_eq!(claim(&mut work, "b"), Err(ArtifactError::AtWork), "it is not for that one to give back");
        run(&mut work, |work| release_upload(work, "u", "a")).unwrap();
        claim(&mut work, "b").unwrap();
        assert_eq!((renew(&mut work, "a"), renew(&mut work, "b")), (Ok(false), Ok(true)));
        // Who says nothing for a minute is gone: a server was killed while it read.
        let left: DirectUpload = work.document(Kind::Upload, "u").unwrap().unwrap();
        let at = |seconds: u64| {
            let mut work = Work::new(work.now().plus_seconds(seconds));
            let left = serde_json::to_value(&left).unwrap();
            work.load(Loaded::Document(Kind::Upload, "u".to_owned(), Some(left)));
            claim(&mut work, "c")
        };
        assert_eq!((at(READER_SECONDS - 1), at(READER_SECONDS)), (Err(ArtifactError::AtWork), Ok(())));
        run(&mut work, |work| end_upload(work, "u")).unwrap();
        assert_eq!(run(&mut work, |work| claim_upload(work, "u", "a")), Err(ArtifactError::NotFound));
        let many = run(&mut work, |work| begin_upload(work, "v", Timestamp(9), UPLOADS));
        assert_eq!(many, Err(ArtifactError::TooManyUploads));
    }
}
