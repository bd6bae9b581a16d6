//! Artifacts: they are read while they come in, and kept when they are what they say.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use artifact::SignatureStatus;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::paging::{Direction, Page, sort};
use super::routes::{Route, made};
use super::seen::{Seen, tagged};
use super::{ApiError, Call, Reply, Shared, audit, direct, download, generate, permit, reply};
use crate::blobs::intake::{Intake, Taken};
use crate::blobs::{Blobs, Name};
use crate::domain::artifacts::{self as rules, ArtifactError};
use crate::domain::audit::Entry;
use crate::domain::{id, limits};
use crate::model::Artifact;
use crate::model::time::Timestamp;
use crate::service::{ChangeError, Service};
use crate::work::{Key, Kind, Work};

/// Longest description.
pub(super) const DESCRIPTION_BYTES: u64 = 4096;

/// What still comes of an artifact that is refused is read and dropped up to here: an answer to somebody who is sending is
/// mostly lost.
const DROPPED_BYTES: u64 = 16 * 1024 * 1024;

/// Files that the artifact of a device in a deployment lists: it is told again for each device.
const FILES_OF_AN_IMAGE: usize = 10;

/// What lists can be asked.
const QUERIES: &[&str] = &["name*", "description", "device_type", "sort"];

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/management/v1|v2/deployments/artifacts", "Upload an artifact")
        .takes_form(&["size?", "description?", "artifact"])
        .status(201)
        .fails(&[409, 502, 507]),
    Route::post("/api/management/v1|v2/deployments/artifacts/generate", "Make an artifact of one file")
        .takes_form(&["name", "description?", "device_types_compatible", "type", "args?", "file"])
        .status(201)
        .fails(&[409, 502, 507]),
    Route::get("/api/management/v1|v2/deployments/artifacts", "List artifacts")
        .queries(QUERIES)
        .paged()
        .gives("[Artifact]"),
    Route::get("/api/management/v1|v2/deployments/artifacts/list", "The same")
        .queries(QUERIES)
        .paged()
        .gives("[Artifact]"),
    Route::get("/api/management/v1|v2/deployments/artifacts/{artifact}", "One artifact")
        .gives("Artifact")
        .fails(&[404]),
    Route::put("/api/management/v1|v2/deployments/artifacts/{artifact}", "Describe an artifact")
        .takes(made::<Described>)
        .fails(&[404, 412]),
    Route::delete("/api/management/v1|v2/deployments/artifacts/{artifact}", "Delete an artifact")
        .fails(&[404, 409]),
    Route::get(
        "/api/management/v1|v2/deployments/artifacts/{artifact}/download",
        "A link to load an artifact by",
    )
    .gives("Link")
    .fails(&[404]),
    Route::get("/api/management/v1/deployments/limits/storage", "How much is stored").gives("Storage"),
];

/// Whether the body of a request is an artifact, or is to become one, and has to be read by [`route`].
pub(super) fn is_upload(call: &Call) -> bool {
    call.method == Method::POST
        && matches!(
            call.segments().as_slice(),
            ["api", "management", _, "deployments", "artifacts"]
                | ["api", "management", _, "deployments", "artifacts", "generate"]
        )
}

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    match rest {
        [one, ..] if !matches!(*one, "list" | "generate" | "directupload") => reply::check_id(one)?,
        [..] => {}
    }
    match (rest, &call.method) {
        ([], &Method::POST) => match upload {
            Some(body) => take(shared, call, body).await,
            None => Err(ApiError::bad_request("there is no body")),
        },
        (["generate"], &Method::POST) => match upload {
            Some(body) => generate::take(shared, call, body).await,
            None => Err(ApiError::bad_request("there is no body")),
        },
        (["directupload"], &Method::POST) => direct::begin(shared, call).await,
        (["directupload", id, "complete"], &Method::POST) => direct::complete(shared, id).await,
        ([] | ["list"], &Method::GET) => list(shared, call),
        ([id], &Method::GET) => {
            let artifact = shared.service.catalogue.artifact(id).ok_or_else(ApiError::not_found)?;
            Ok(tagged(reply::json(StatusCode::OK, &describe(&artifact)), &artifact.description))
        }
        ([id], &Method::PUT) => {
            let text = call.json::<Described>()?.description;
            if text.len() as u64 > DESCRIPTION_BYTES {
                return Err(ApiError::bad_request("the description is too long"));
            }
            let id = (*id).to_owned();
            let keys = vec![Key::Document(Kind::Artifact, id.clone())];
            let seen = Seen::of(call);
            let rule = move |work: &mut Work| {
                if let Some(known) = work.document::<Artifact>(Kind::Artifact, &id)? {
                    seen.is(&known.description)?;
                }
                Ok::<_, ApiError>(rules::describe(work, &id, &text)?)
            };
            shared.change(keys, rule).await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id], &Method::DELETE) => {
            let (id, catalogue) = ((*id).to_owned(), shared.service.catalogue.clone());
            let keys = vec![Key::Document(Kind::Artifact, id.clone())];
            let gone = id.clone();
            shared.change(keys, move |work| rules::delete(work, &id, &|name| catalogue.users(name))).await?;
            remove(&*shared.blobs, &gone).await;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id, "download"], &Method::GET) => {
            let artifact = shared.service.catalogue.artifact(id).ok_or_else(ApiError::not_found)?;
            let link = download::link(shared, call, &artifact).await;
            Ok(reply::json(StatusCode::OK, &json!({ "uri": link.uri, "expire": link.expire })))
        }
        _ => Err(ApiError::no_route()),
    }
}

/// What people say about an artifact.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewDescription")]
struct Described {
    description: String,
}

/// Removes what has no record any more. When that fails it is left, as the log and each start say.
pub(super) async fn remove(blobs: &dyn Blobs, id: &str) {
    let Some(name) = Name::artifact(id) else { return };
    if let Err(error) = blobs.remove(&name).await {
        log::warn!("the file of artifact {id} could not be removed: {error}");
    }
}

/// How much there is.
pub(super) fn storage(shared: &Shared) -> Result<Reply, ApiError> {
    let usage: u64 = shared.service.catalogue.artifacts().iter().map(|artifact| artifact.size).sum();
    Ok(reply::json(StatusCode::OK, &json!({ "limit": 0, "usage": usage })))
}

fn list(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let page = Page::of(call)?;
    let names = call.queries("name");
    if names.len() > 1 && names.iter().any(|name| name.ends_with('*')) {
        return Err(ApiError::bad_request("name: only one that ends in * can be asked for"));
    }
    let (description, device_type) = (call.query("description"), call.query("device_type"));
    let mut criteria = sort(call)?;
    // What is equal is told apart by its name.
    criteria.push(("name".to_owned(), Direction::Ascending));
    if criteria.iter().any(|(name, _)| compare(name).is_none()) {
        return Err(ApiError::bad_request("sort: artifacts have a name, description, size and modified"));
    }
    let mut found: Vec<Arc<Artifact>> = shared.service.catalogue.artifacts();
    found.retain(|artifact| {
        let one = |wanted: &String| artifact.device_types.iter().any(|kind| fits(wanted, kind));
        (names.is_empty() || names.iter().any(|name| fits(name, &artifact.name)))
            && description.as_ref().is_none_or(|wanted| fits(wanted, &artifact.description))
            && device_type.as_ref().is_none_or(one)
    });
    for (name, direction) in criteria.iter().rev() {
        if let Some(compare) = compare(name) {
            found.sort_by(|a, b| direction.apply(compare(a, b)));
        }
    }
    Ok(page.list(call, &found, |artifact| describe(artifact)))
}

/// Whether `text` is the one that is wanted, or begins with it where that ends in `*`.
pub(super) fn fits(wanted: &str, text: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == wanted,
    }
}

/// How artifacts are compared by one of their fields.
fn compare(field: &str) -> Option<fn(&Artifact, &Artifact) -> Ordering> {
    Some(match field {
        "name" => |a, b| a.name.cmp(&b.name),
        "description" => |a, b| a.description.cmp(&b.description),
        "size" => |a, b| a.size.cmp(&b.size),
        "modified" => |a, b| a.modified.cmp(&b.modified),
        _ => return None,
    })
}

pub(super) fn describe(artifact: &Artifact) -> Value {
    let mut described = says(artifact, usize::MAX);
    described["id"] = json!(artifact.id);
    described["description"] = json!(artifact.description);
    described["size"] = json!(artifact.size);
    described["sha256"] = json!(artifact.sha256);
    described["modified"] = json!(artifact.modified);
    described
}

/// The artifact of a device in a deployment.
pub(super) fn describe_image(artifact: &Artifact) -> Value {
    json!({
        "id": artifact.id,
        "meta": { "description": artifact.description },
        "meta_artifact": says(artifact, FILES_OF_AN_IMAGE),
        "size": artifact.size,
        "modified": artifact.modified,
    })
}

/// What an artifact says about itself. Where there are more than `most` files, none is listed.
fn says(artifact: &Artifact, most: usize) -> Value {
    let listed = artifact.files.iter().filter(|_| artifact.files.len() <= most);
    let files: Vec<Value> = listed
        .map(|file| {
            json!({
                "name": file.name,
                "checksum": file.checksum,
                "size": file.size,
                "date": artifact.modified,
            })
        })
        .collect();
    let mut update = json!({
        "type_info": { "type": artifact.payload_type },
        "files": if files.is_empty() { Value::Null } else { Value::Array(files) },
        "metadata": artifact.meta_data.clone().unwrap_or_else(|| json!({})),
    });
    if let Some(meta_data) = &artifact.meta_data {
        update["meta_data"] = meta_data.clone();
    }
    json!({
        "name": artifact.name,
        "device_types_compatible": artifact.device_types,
        "info": { "format": "mender", "version": 3 },
        "signed": artifact.signed,
        "updates": [update],
        "artifact_provides": artifact.provides,
        "artifact_depends": depends(artifact),
        "clears_artifact_provides": artifact.clears_provides,
    })
}

/// As an artifact has them: those that are lists by their nature as lists, others of one value as that value.
fn depends(artifact: &Artifact) -> Value {
    let written = |(name, values): (&String, &Vec<String>)| {
        let value = match values.as_slice() {
            [one] if !matches!(name.as_str(), "artifact_name" | "artifact_group") => json!(one),
            all => json!(all),
        };
        (name.clone(), value)
    };
    let mut depends: Map<String, Value> = artifact.depends.iter().map(written).collect();
    depends.insert("device_type".to_owned(), json!(artifact.device_types));
    Value::Object(depends)
}

async fn take(shared: &Shared, call: &Call, body: Incoming) -> Result<Reply, ApiError> {
    let _place = shared.place_for_upload().await?;
    let id = id::uuid()?;
    audit::about(&id);
    let (intake, description) = receive(shared, call, body, &id).await?;
    // It may have taken an hour.
    if let Err(error) = permit::admit(shared, call).await {
        intake.discard().await;
        return Err(error);
    }
    Keeper::of(shared).keep(intake, id.clone(), description).await?;
    Ok(reply::created(&format!("./management/v1/deployments/artifacts/{id}")))
}

/// Makes what came in an artifact of the fleet.
#[derive(Clone)]
pub(crate) struct Keeper {
    service: Service,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) most_bytes: u64,
}

impl Keeper {
    pub(crate) fn of(shared: &Shared) -> Keeper {
        let most_bytes = shared.options.max_artifact_bytes;
        Keeper { service: shared.service.clone(), blobs: shared.blobs.clone(), most_bytes }
    }

    /// Begins to take an artifact.
    pub(crate) async fn begin(&self, id: &str) -> Result<Intake, ApiError> {
        let name = Name::artifact(id).ok_or_else(|| ApiError::bad_request("the id is not a UUID"))?;
        Ok(Intake::begin(&*self.blobs, &name, self.most_bytes).await?)
    }

    /// Keeps it, also when whoever has sent it goes away meanwhile.
    pub(super) async fn keep(self, intake: Intake, id: String, description: String) -> Result<(), ApiError> {
        self.keep_checked(intake, id, description, Vec::new(), |_| Ok(())).await
    }

    /// Keeps it if `check` finds nothing wrong with it, and the artifacts that it was made of are there still.
    pub(crate) async fn keep_checked(
        self,
        intake: Intake,
        id: String,
        description: String,
        made_of: Vec<String>,
        check: impl FnOnce(&Artifact) -> Result<(), String> + Send + 'static,
    ) -> Result<(), ApiError> {
        let entry = audit::pending();
        let kept = tokio::spawn(async move {
            let taken = intake.keep().await?;
            let artifact = record(&id, taken, description);
            if let Err(reason) = check(&artifact) {
                remove(&*self.blobs, &id).await;
                return Err(ApiError::bad_request(&reason));
            }
            self.add(artifact, made_of, entry).await
        });
        kept.await.unwrap_or_else(|_| Err(ApiError::internal("the artifact could not be kept")))?;
        audit::written();
        Ok(())
    }

    /// The record of what is kept already: a record without its file would be offered to devices.
    async fn add(
        &self,
        artifact: Artifact,
        made_of: Vec<String>,
        entry: Option<Entry>,
    ) -> Result<(), ApiError> {
        let catalogue = self.service.catalogue.clone();
        let known = move |name: &str| -> Vec<String> {
            catalogue.artifacts_named(name).iter().map(|artifact| artifact.id.clone()).collect()
        };
        let id = artifact.id.clone();
        let keys = rules::keys(&id, &artifact.name, &known(&artifact.name));
        let rule = move |work: &mut Work| {
            rules::add_made(work, &artifact, &known(&artifact.name), &made_of)?;
            if let Some(entry) = &entry {
                audit::note(work, entry, None);
            }
            Ok::<(), ArtifactError>(())
        };
        match self.service.change(keys, rule).await {
            Ok(()) => Ok(()),
            Err(ChangeError::Refused(error)) => {
                remove(&*self.blobs, &id).await;
                Err(error.into())
            }
            Err(ChangeError::Failed(error)) => {
                // A transaction whose end nobody has heard of may be stored all the same, and then needs its file.
                match self.service.store.document(Kind::Artifact, &id).await {
                    Ok(None) => remove(&*self.blobs, &id).await,
                    Ok(Some(_)) => {}
                    Err(unknown) => log::warn!("whether artifact {id} is stored is not known: {unknown}"),
                }
                Err(error.into())
            }
        }
    }

    /// Runs a rule.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        keys: Vec<Key>,
        rule: impl FnMut(&mut Work) -> Result<T, ArtifactError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.service.change(keys, rule).await.map_err(ApiError::of_change)
    }
}

/// Puts the artifact of a device's configuration, which this server has made, to the others. Its record is for the caller to
/// keep.
pub(super) async fn put_made(
    shared: &Shared,
    id: &str,
    bytes: Vec<u8>,
    device: &str,
) -> Result<Artifact, ApiError> {
    let mut intake = Keeper::of(shared).begin(id).await?;
    let taken = match intake.write(Bytes::from(bytes)).await {
        Ok(()) => intake.keep().await?,
        Err(error) => {
            intake.discard().await;
            return Err(error.into());
        }
    };
    let mut artifact = record(id, taken, format!("configuration of device {device}"));
    artifact.configuration_of = Some(device.to_owned());
    Ok(artifact)
}

/// A form that comes in.
pub(super) struct Form {
    fields: multer::Multipart<'static>,
    patience: Duration,
}

impl Form {
    /// The form of a request. Texts are short, and `large` is the field that is not.
    pub(super) fn of(shared: &Shared, call: &Call, body: Incoming, large: &str) -> Result<Form, ApiError> {
        let boundary = call.header("content-type").and_then(|kind| multer::parse_boundary(kind).ok());
        let boundary =
            boundary.ok_or_else(|| ApiError::bad_request("the body is not multipart/form-data"))?;
        let most = shared.options.max_artifact_bytes;
        let sizes = multer::SizeLimit::new()
            .for_field("size", 64)
            .for_field(large, most)
            .per_field(DESCRIPTION_BYTES)
            .whole_stream(most.saturating_add(limits::BODY_BYTES as u64));
        let constraints = multer::Constraints::new().size_limit(sizes);
        let fields = multer::Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
        Ok(Form { fields, patience: Duration::from_secs(shared.options.read_timeout_seconds) })
    }

    /// The next field; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Field>, ApiError> {
        let next = tokio::time::timeout(self.patience, self.fields.next_field()).await.map_err(late)?;
        let patience = self.patience;
        Ok(next.map_err(|error| bad_form(&error))?.map(|field| Field { field, patience }))
    }
}

/// A field of a form.
pub(super) struct Field {
    field: multer::Field<'static>,
    patience: Duration,
}

impl Field {
    /// Its name.
    pub(super) fn name(&self) -> String {
        self.field.name().unwrap_or_default().to_owned()
    }

    /// The name of its file.
    pub(super) fn file_name(&self) -> Option<String> {
        self.field.file_name().map(str::to_owned)
    }

    /// All of it, which is short.
    pub(super) async fn text(self) -> Result<String, ApiError> {
        let text = tokio::time::timeout(self.patience, self.field.text()).await.map_err(late)?;
        text.map_err(|error| bad_form(&error))
    }

    /// The next bytes; `None` at its end.
    pub(super) async fn bytes(&mut self) -> Result<Option<Bytes>, ApiError> {
        let bytes = tokio::time::timeout(self.patience, self.field.chunk()).await.map_err(late)?;
        bytes.map_err(|error| bad_form(&error))
    }

    /// Reads what still comes, and drops it: what was wrong is known.
    pub(super) async fn drop_rest(&mut self) {
        let mut dropped = 0;
        while let Ok(Some(bytes)) = self.bytes().await {
            dropped += bytes.len() as u64;
            if dropped > DROPPED_BYTES {
                return;
            }
        }
    }
}

fn late(_: tokio::time::error::Elapsed) -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")
}

fn bad_form(error: &multer::Error) -> ApiError {
    let is_large =
        matches!(error, multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. });
    match is_large {
        true => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact or a field is too large"),
        false => ApiError::bad_request(&format!("the form: {error}")),
    }
}

/// Streams the form: the description, then the artifact to where it is read and kept.
async fn receive(
    shared: &Shared,
    call: &Call,
    body: Incoming,
    id: &str,
) -> Result<(Intake, String), ApiError> {
    let mut form = Form::of(shared, call, body, "artifact")?;
    let mut description = String::new();
    while let Some(mut field) = form.next().await? {
        match field.name().as_str() {
            "description" => description = field.text().await?,
            "artifact" => {
                let mut intake = Keeper::of(shared).begin(id).await?;
                while let Some(bytes) = field.bytes().await? {
                    if let Err(error) = intake.write(bytes).await {
                        intake.discard().await;
                        field.drop_rest().await;
                        return Err(error.into());
                    }
                }
                return Ok((intake, description));
            }
            _ => {
                field.text().await?;
            }
        }
    }
    Err(ApiError::bad_request("the form has no field artifact"))
}

fn record(id: &str, taken: Taken, description: String) -> Artifact {
    let Taken { header, files, size_bytes, sha256 } = taken;
    let mut depends = header.depends.type_info;
    depends.extend(header.depends.artifact_name.map(|names| ("artifact_name".to_owned(), names)));
    depends.extend(header.depends.artifact_group.map(|groups| ("artifact_group".to_owned(), groups)));
    let mut provides = header.provides.unwrap_or_default();
    provides.insert("artifact_name".to_owned(), header.artifact_name.to_string());
    provides.extend(header.artifact_group.map(|group| ("artifact_group".to_owned(), group)));
    let (payload_type, meta_data) = match header.payload {
        Some(payload) => (Some(payload.payload_type.into()), payload.meta_data),
        None => (None, None),
    };
    Artifact {
        id: id.to_owned(),
        name: header.artifact_name.into(),
        description,
        device_types: header.depends.device_type.into_iter().map(String::from).collect(),
        depends,
        provides,
        clears_provides: header.clears_provides.unwrap_or_default(),
        payload_type,
        meta_data: meta_data.and_then(|text| serde_json::from_str(&text).ok()),
        files,
        signed: header.signature != SignatureStatus::Unsigned,
        size: size_bytes,
        sha256,
        modified: Timestamp::now(),
        configuration_of: None,
    }
}
