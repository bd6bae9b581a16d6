//! Releases: all artifacts of one name, with what people say about them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::artifacts::{describe, fits, remove};
use super::call::decode;
use super::paging::{Direction, Page, sort};
use super::routes::{Route, made};
use super::seen::{Seen, tagged};
use super::{ApiError, Call, Reply, Shared, audit, reply};
use crate::domain::artifacts::{
    self as rules, ArtifactError, NOTES_CHARS, Release, TAG_CHARS, TAGS, TAGS_OF_ALL,
};
use crate::domain::id;
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::service::ChangeError;
use crate::work::{Key, Kind, Work};

/// Names of one request that deletes.
const NAMES: usize = 100;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/api/management/v1/deployments/deployments/releases", "List releases")
        .queries(&["name", "description", "device_type", "update_type"])
        .gives("[ReleaseV1]"),
    Route::get("/api/management/v1/deployments/deployments/releases/list", "List releases in pages")
        .queries(&["name", "description", "device_type", "update_type"])
        .paged()
        .gives("[ReleaseV1]"),
    Route::get("/api/management/v2/deployments/deployments/releases", "List releases")
        .queries(&["name", "tag*", "update_type", "sort"])
        .paged()
        .gives("[Release]"),
    Route::delete("/api/management/v2/deployments/deployments/releases", "Delete releases")
        .queries(&["name*"])
        .fails(&[404, 409]),
    Route::get("/api/management/v2/deployments/deployments/releases/{release}", "One release")
        .gives("Release")
        .fails(&[404]),
    Route::patch("/api/management/v2/deployments/deployments/releases/{release}", "Describe a release")
        .takes(made::<Changed>)
        .fails(&[404, 412]),
    Route::put(
        "/api/management/v2/deployments/deployments/releases/{release}/tags",
        "Replace the tags of a release",
    )
    .takes(made::<BTreeSet<String>>)
    .fails(&[404, 409, 412]),
    Route::get("/api/management/v2/deployments/releases/all/tags", "Every tag of a release").gives("[text]"),
    Route::get("/api/management/v2/deployments/releases/all/types", "Every type of a payload")
        .gives("[text]"),
    Route::get("/api/management/v1alpha1/deployments/software", "List releases, in the words of newer pages")
        .queries(&["name*", "name_prefix", "kind", "tag*", "update_type", "sort"])
        .paged()
        .gives("[Software]"),
    Route::get("/api/management/v1alpha1/deployments/software/tags", "Every tag of a release")
        .queries(&["kind"])
        .gives("[text]"),
];

/// A release as it is shown.
struct Shown {
    name: String,
    said: Release,
    artifacts: Vec<Arc<Artifact>>,
}

impl Shown {
    fn modified(&self) -> Timestamp {
        let artifacts = self.artifacts.iter().map(|artifact| artifact.modified);
        artifacts.chain([self.said.modified]).max().unwrap_or_default()
    }

    fn has_type(&self, wanted: &str) -> bool {
        self.artifacts.iter().any(|artifact| artifact.payload_type.as_deref() == Some(wanted))
    }

    fn device_types(&self) -> BTreeSet<&str> {
        self.artifacts.iter().flat_map(|artifact| &artifact.device_types).map(String::as_str).collect()
    }

    /// In the words of the second version; a list counts besides.
    fn describe(&self) -> Value {
        json!({
            "name": self.name,
            "modified": self.modified(),
            "artifacts": self.artifacts.iter().map(|artifact| describe(artifact)).collect::<Vec<_>>(),
            "artifacts_count": self.artifacts.len(),
            "tags": self.said.tags,
            "notes": self.said.notes,
        })
    }

    /// In those of the first.
    fn describe_v1(&self) -> Value {
        json!({
            "Name": self.name,
            "modified": self.modified(),
            "Artifacts": self.artifacts.iter().map(|artifact| describe(artifact)).collect::<Vec<_>>(),
            "ArtifactsCount": self.artifacts.len(),
            "tags": self.said.tags,
            "notes": self.said.notes,
        })
    }

    fn describe_software(&self) -> Value {
        json!({
            "name": self.name,
            "kind": "release",
            "modified": self.modified(),
            "compatible_types": self.device_types(),
            "tags": self.said.tags,
            "notes": self.said.notes,
        })
    }
}

/// Every release, by name.
fn every(shared: &Shared) -> Vec<Shown> {
    let catalogue = &shared.service.catalogue;
    let mut said: BTreeMap<String, Release> = catalogue.documents(Kind::Release).into_iter().collect();
    let mut releases: BTreeMap<String, Vec<Arc<Artifact>>> = BTreeMap::new();
    for artifact in catalogue.artifacts() {
        releases.entry(artifact.name.clone()).or_default().push(artifact);
    }
    let shown = releases.into_iter().map(|(name, artifacts)| {
        let said = said.remove(&name).unwrap_or_default();
        Shown { name, said, artifacts }
    });
    shown.collect()
}

fn one(shared: &Shared, name: &str) -> Result<Shown, ApiError> {
    let artifacts = shared.service.catalogue.artifacts_named(name);
    if artifacts.is_empty() {
        return Err(ApiError::not_found());
    }
    let said = shared.service.catalogue.document(Kind::Release, name).unwrap_or_default();
    Ok(Shown { name: name.to_owned(), said, artifacts })
}

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    version: &str,
    rest: &[&str],
) -> Result<Reply, ApiError> {
    match (version, rest, &call.method) {
        ("v1", [], &Method::GET) => {
            let found: Vec<Value> = list_v1(shared, call).iter().map(Shown::describe_v1).collect();
            Ok(reply::json(StatusCode::OK, &found))
        }
        ("v1", ["list"], &Method::GET) => {
            Ok(Page::of(call)?.list(call, &list_v1(shared, call), Shown::describe_v1))
        }
        ("v2", [], &Method::GET) => list(shared, call),
        ("v2", [], &Method::DELETE) => delete(shared, call).await,
        ("v2", [name], &Method::GET) => {
            let release = one(shared, &decode(name))?;
            Ok(tagged(reply::json(StatusCode::OK, &release.describe()), &people_say(&release.said)))
        }
        ("v2", [name], &Method::PATCH) => {
            let notes = call.json::<Changed>()?.notes;
            if notes.as_ref().is_some_and(|notes| notes.chars().count() > NOTES_CHARS) {
                return Err(ApiError::bad_request(&format!("notes have at most {NOTES_CHARS} characters")));
            }
            change(shared, call, &decode(name), move |release| {
                if let Some(notes) = &notes {
                    release.notes.clone_from(notes);
                }
            })
            .await
        }
        ("v2", [name, "tags"], &Method::PUT) => {
            let tags = tags(call)?;
            let name = decode(name);
            let others = every(shared).into_iter().filter(|release| release.name != name);
            let mut all: BTreeSet<String> = others.flat_map(|release| release.said.tags).collect();
            all.extend(tags.iter().cloned());
            if all.len() > TAGS_OF_ALL {
                return Err(ArtifactError::TooManyTags.into());
            }
            change(shared, call, &name, move |release| release.tags.clone_from(&tags)).await
        }
        _ => Err(ApiError::no_route()),
    }
}

/// What people say about a release.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewNotes")]
struct Changed {
    notes: Option<String>,
}

/// The tags in a request, sorted.
fn tags(call: &Call) -> Result<Vec<String>, ApiError> {
    let tags: BTreeSet<String> = call.json()?;
    if tags.len() > TAGS {
        return Err(ApiError::bad_request(&format!("a release has at most {TAGS} tags")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_good = |tag: &String| !tag.is_empty() && tag.len() <= TAG_CHARS && tag.bytes().all(plain);
    match tags.iter().all(is_good) {
        true => Ok(tags.into_iter().collect()),
        false => Err(ApiError::bad_request("a tag has only letters, digits, \"_\", \".\" and \"-\"")),
    }
}

/// What of a release people change.
fn people_say(release: &Release) -> (&str, &[String]) {
    (&release.notes, &release.tags)
}

async fn change(
    shared: &Shared,
    call: &Call,
    name: &str,
    change: impl Fn(&mut Release) + Send + 'static,
) -> Result<Reply, ApiError> {
    let (name, known) = (name.to_owned(), known(shared, name));
    let keys = keys(std::slice::from_ref(&name), &known);
    let seen = Seen::of(call);
    let rule = move |work: &mut Work| {
        let now: Release = work.document(Kind::Release, &name)?.unwrap_or_default();
        // What is not there is not found, whatever somebody has seen.
        rules::change_release(work, &name, &known, &change)?;
        seen.is(&people_say(&now))
    };
    shared.change(keys, rule).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn known(shared: &Shared, name: &str) -> Vec<String> {
    shared.service.catalogue.artifacts_named(name).iter().map(|artifact| artifact.id.clone()).collect()
}

fn keys(names: &[String], known: &[String]) -> Vec<Key> {
    let releases = names.iter().map(|name| Key::Document(Kind::Release, name.clone()));
    releases.chain(known.iter().map(|id| Key::Document(Kind::Artifact, id.clone()))).collect()
}

/// Deletes all that are named, or none.
async fn delete(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let names = call.queries("name");
    if names.is_empty() || names.len() > NAMES {
        return Err(ApiError::bad_request(&format!("name: between 1 and {NAMES} releases can be deleted")));
    }
    let known: Vec<String> = names.iter().flat_map(|name| known(shared, name)).collect();
    let catalogue = shared.service.catalogue.clone();
    let keys = keys(&names, &known);
    let rule =
        move |work: &mut _| rules::delete_releases(work, &names, &known, &|name| catalogue.users(name));
    audit::about(&call.query);
    match shared.try_change(keys, rule).await {
        Ok(gone) => {
            for id in gone {
                remove(&*shared.blobs, &id).await;
            }
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Err(ChangeError::Refused(ArtifactError::InUse { deployments })) => {
            let answer = json!({
                "error": "releases are used by active deployments",
                "active_deployments": deployments,
                "request_id": id::uuid().unwrap_or_default(),
            });
            Ok(reply::json(StatusCode::CONFLICT, &answer))
        }
        Err(error) => Err(ApiError::of_change(error)),
    }
}

fn list_v1(shared: &Shared, call: &Call) -> Vec<Shown> {
    let wanted = |name: &str| call.query(name).filter(|text| !text.is_empty());
    let (name, description) = (wanted("name"), wanted("description"));
    let (device_type, update_type) = (wanted("device_type"), wanted("update_type"));
    let mut found = every(shared);
    found.retain(|release| {
        let any = |is: &dyn Fn(&Artifact) -> bool| release.artifacts.iter().any(|artifact| is(artifact));
        let has_kind = |wanted: &String| any(&|one| one.device_types.iter().any(|kind| fits(wanted, kind)));
        name.as_ref().is_none_or(|wanted| fits(wanted, &release.name))
            && description.as_ref().is_none_or(|wanted| any(&|one| fits(wanted, &one.description)))
            && device_type.as_ref().is_none_or(has_kind)
            && update_type.as_ref().is_none_or(|wanted| release.has_type(wanted))
    });
    found
}

fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let mut found = chosen(shared, call)?;
    // People type a part of a name.
    let part = call.query("name").unwrap_or_default().to_lowercase();
    found.retain(|release| release.name.to_lowercase().contains(&part));
    Ok(Page::of(call)?.list(call, &found, Shown::describe))
}

/// Releases with one of the tags and the type that a query wants, sorted as it wants.
fn chosen(shared: &Shared, call: &Call) -> Result<Vec<Shown>, ApiError> {
    let tags = call.queries("tag");
    let update_type = call.query("update_type").filter(|text| !text.is_empty());
    let mut criteria = sort(call)?;
    criteria.push(("name".to_owned(), Direction::Ascending));
    let mut found = every(shared);
    found.retain(|release| {
        (tags.is_empty() || tags.iter().any(|tag| release.said.tags.contains(tag)))
            && update_type.as_ref().is_none_or(|wanted| release.has_type(wanted))
    });
    // The least important first: the order of what is equal stays.
    for (field, direction) in criteria.iter().rev() {
        let compare = compare(field).ok_or_else(|| {
            ApiError::bad_request("sort: releases have a name, modified, artifacts_count and tags")
        })?;
        found.sort_by(|a, b| direction.apply(compare(a, b)));
    }
    Ok(found)
}

fn compare(field: &str) -> Option<fn(&Shown, &Shown) -> Ordering> {
    Some(match field {
        "name" => |a, b| a.name.cmp(&b.name),
        "modified" => |a, b| a.modified().cmp(&b.modified()),
        "artifacts_count" => |a, b| a.artifacts.len().cmp(&b.artifacts.len()),
        "tags" => |a, b| a.said.tags.cmp(&b.said.tags),
        _ => return None,
    })
}

/// Everything that releases have of one kind.
pub(super) fn all(shared: &Shared, call: &Call, what: &str) -> Result<Reply, ApiError> {
    let releases = every(shared);
    let found: BTreeSet<&str> = match (what, &call.method) {
        ("tags", &Method::GET) => {
            releases.iter().flat_map(|release| &release.said.tags).map(String::as_str).collect()
        }
        ("types", &Method::GET) => {
            let artifacts = releases.iter().flat_map(|release| &release.artifacts);
            artifacts.filter_map(|artifact| artifact.payload_type.as_deref()).collect()
        }
        _ => return Err(ApiError::no_route()),
    };
    Ok(reply::json(StatusCode::OK, &found))
}

/// The same in the words of newer pages. There is one kind of software here: releases.
pub(super) fn software(shared: &Shared, call: &Call, rest: &[&str]) -> Result<Reply, ApiError> {
    let kind = call.query("kind").filter(|kind| !kind.is_empty());
    let is_wanted = match kind.as_deref() {
        None | Some("release") => true,
        Some("manifest") => false,
        Some(_) => return Err(ApiError::bad_request("kind: software is a release or a manifest")),
    };
    match (rest, &call.method) {
        (["tags"], &Method::GET) if is_wanted => all(shared, call, "tags"),
        (["tags"], &Method::GET) => Ok(reply::json(StatusCode::OK, &json!([]))),
        ([], &Method::GET) => {
            let names = call.queries("name");
            let prefix = call.query("name_prefix").unwrap_or_default();
            let mut found = chosen(shared, call)?;
            found.retain(|release| {
                is_wanted
                    && (names.is_empty() || names.contains(&release.name))
                    && release.name.starts_with(&prefix)
            });
            Ok(Page::of(call)?.list(call, &found, Shown::describe_software))
        }
        _ => Err(ApiError::no_route()),
    }
}
