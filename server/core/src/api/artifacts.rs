//! Artifacts: they are read while they come in, and kept when they are what they say.

use std::cmp::Ordering;
use std::io::Read;
use std::time::Duration;

use artifact::{self, ArtifactError, Header, Limits, SignatureStatus, Trust};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use ring::digest;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;

use super::paging::{Direction, Page, sort};
use super::{ApiError, Call, Reply, Shared, download, reply};
use crate::domain::model::{Artifact, ArtifactFile};
use crate::domain::time::Timestamp;
use crate::domain::{id, limits};

/// Longest description.
const DESCRIPTION_BYTES: u64 = 4096;

/// Files that the artifact of a device in a deployment lists: it is told again for each device.
const FILES_OF_AN_IMAGE: usize = 10;

/// Whether the body of a request is an artifact and has to be read by [`route`].
pub(super) fn is_upload(call: &Call) -> bool {
    call.method == Method::POST
        && matches!(call.segments().as_slice(), ["api", "management", _, "deployments", "artifacts"])
}

pub(super) async fn route(
    shared: &Shared,
    call: &Call,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    if let [one, ..] = rest {
        if !matches!(*one, "list" | "generate" | "directupload") {
            reply::check_id(one)?;
        }
    }
    match (rest, &call.method) {
        ([], &Method::POST) => match upload {
            Some(body) => take(shared, call, body).await,
            None => Err(ApiError::bad_request("there is no body")),
        },
        ([] | ["list"], &Method::GET) => list(shared, call),
        ([id], &Method::GET) => {
            let fleet = shared.fleet();
            let artifact = fleet.shown_artifact(id).ok_or_else(ApiError::not_found)?;
            Ok(reply::json(StatusCode::OK, &describe(artifact)))
        }
        ([id], &Method::PUT) => {
            #[derive(Deserialize)]
            struct Described {
                description: String,
            }
            let text = call.json::<Described>()?.description;
            if text.len() as u64 > DESCRIPTION_BYTES {
                return Err(ApiError::bad_request("the description is too long"));
            }
            shared
                .change(|fleet, now| {
                    let changes = fleet.describe_artifact(id, text, now);
                    changes.map(|changes| ((), changes)).ok_or_else(ApiError::not_found)
                })
                .await?;
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id], &Method::DELETE) => {
            let gone = shared.change(|fleet, _| fleet.delete_artifact(id)).await?;
            shared.store.blobs.remove(&gone.id);
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        ([id, "download"], &Method::GET) => {
            let artifact = shared.fleet().shown_artifact(id).cloned().ok_or_else(ApiError::not_found)?;
            let link = download::link(shared, call, &artifact);
            Ok(reply::json(StatusCode::OK, &json!({ "uri": link.uri, "expire": link.expire })))
        }
        _ => Err(ApiError::not_found()),
    }
}

/// How much there is.
pub(super) fn storage(shared: &Shared) -> Result<Reply, ApiError> {
    let usage = shared.fleet().artifact_bytes();
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
    let fleet = shared.fleet();
    let mut found: Vec<&Artifact> = fleet
        .artifacts()
        .filter(|artifact| names.is_empty() || names.iter().any(|name| fits(name, &artifact.name)))
        .filter(|artifact| description.as_ref().is_none_or(|wanted| fits(wanted, &artifact.description)))
        .filter(|artifact| {
            let one = |wanted: &String| artifact.device_types.iter().any(|kind| fits(wanted, kind));
            device_type.as_ref().is_none_or(one)
        })
        .collect();
    for (name, direction) in criteria.iter().rev() {
        if let Some(compare) = compare(name) {
            found.sort_by(|a, b| direction.apply(compare(a, b)));
        }
    }
    Ok(page.list(call, &found, |artifact| describe(artifact)))
}

/// Whether `text` is the one that is wanted, or begins with it where that ends in `*`.
fn fits(wanted: &str, text: &str) -> bool {
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
        .map(|file| json!({ "name": file.name, "checksum": file.checksum, "size": file.size }))
        .collect();
    let mut update = json!({
        "type_info": { "type": artifact.payload_type },
        "files": if files.is_empty() { Value::Null } else { Value::Array(files) },
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

/// What has come in as a file.
struct Received {
    size: u64,
    sha256: String,
}

async fn take(shared: &Shared, call: &Call, body: Incoming) -> Result<Reply, ApiError> {
    let id = id::uuid()?;
    let result = receive(shared, call, body, &id).await;
    let (received, description) = match result {
        Ok(received) => received,
        Err(error) => {
            shared.store.blobs.discard(&id);
            return Err(error);
        }
    };
    keep(shared, &id, received, description, None).await?;
    Ok(reply::created(&format!("./management/v1/deployments/artifacts/{id}")))
}

/// Makes what came in an artifact of the fleet, if it is one.
async fn keep(
    shared: &Shared,
    id: &str,
    received: Received,
    description: String,
    configuration_of: Option<String>,
) -> Result<(), ApiError> {
    let path = shared.store.blobs.incoming(id);
    let read = tokio::task::spawn_blocking(move || read(&path)).await;
    let read = read.map_err(|_| ApiError::bad_request("the artifact could not be read"));
    let (header, files) = match read.and_then(|read| read) {
        Ok(read) => read,
        Err(error) => {
            shared.store.blobs.discard(id);
            return Err(error);
        }
    };
    let mut artifact = record(id, header, files, received, description);
    artifact.configuration_of = configuration_of;
    let kept = shared.store.blobs.clone();
    let to_keep = id.to_owned();
    let moved = tokio::task::spawn_blocking(move || kept.keep(&to_keep)).await;
    let moved = moved.map_err(|_| ApiError::bad_request("the artifact could not be kept"));
    // The file first: a record without its file would be offered to devices.
    if let Err(error) = moved.and_then(|kept| Ok(kept?)) {
        shared.store.blobs.discard(id);
        return Err(error);
    }
    if let Err(error) = shared.change(|fleet, _| fleet.add_artifact(artifact)).await {
        // A record that could not be stored yet will be, and then needs its file.
        if shared.fleet().artifact(id).is_none() {
            shared.store.blobs.remove(id);
        }
        return Err(error);
    }
    Ok(())
}

/// Takes the artifact of a device's configuration, which this server has made and which lies where uploads come in.
pub(super) async fn keep_configuration(
    shared: &Shared,
    id: &str,
    bytes: &[u8],
    device: &str,
) -> Result<(), ApiError> {
    let sha256 = id::hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let received = Received { size: bytes.len() as u64, sha256 };
    keep(shared, id, received, format!("configuration of device {device}"), Some(device.to_owned())).await
}

/// Streams the form: the description, then the artifact into a file.
async fn receive(
    shared: &Shared,
    call: &Call,
    body: Incoming,
    id: &str,
) -> Result<(Received, String), ApiError> {
    let bad = |error: multer::Error| {
        use multer::Error::{FieldSizeExceeded, StreamSizeExceeded};
        if matches!(error, StreamSizeExceeded { .. } | FieldSizeExceeded { .. }) {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact or a field is too large")
        } else {
            ApiError::bad_request(&format!("the form: {error}"))
        }
    };
    let boundary = call.header("content-type").and_then(|kind| multer::parse_boundary(kind).ok());
    let boundary = boundary.ok_or_else(|| ApiError::bad_request("the body is not multipart/form-data"))?;
    let most = shared.options.max_artifact_bytes;
    let sizes = multer::SizeLimit::new()
        .for_field("description", DESCRIPTION_BYTES)
        .for_field("size", 64)
        .for_field("artifact", most)
        .per_field(DESCRIPTION_BYTES)
        .whole_stream(most.saturating_add(limits::BODY_BYTES as u64));
    let constraints = multer::Constraints::new().size_limit(sizes);
    let mut form = multer::Multipart::with_constraints(body.into_data_stream(), boundary, constraints);
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
    let mut description = String::new();
    while let Some(mut field) =
        tokio::time::timeout(patience, form.next_field()).await.map_err(late)?.map_err(bad)?
    {
        match field.name() {
            Some("description") => description = field.text().await.map_err(bad)?,
            Some("artifact") => {
                let mut file = tokio::fs::File::from_std(shared.store.blobs.create(id)?);
                let mut context = digest::Context::new(&digest::SHA256);
                let mut size = 0_u64;
                while let Some(bytes) =
                    tokio::time::timeout(patience, field.chunk()).await.map_err(late)?.map_err(bad)?
                {
                    context.update(&bytes);
                    size += bytes.len() as u64;
                    file.write_all(&bytes).await?;
                }
                file.flush().await?;
                return Ok((Received { size, sha256: id::hex(context.finish().as_ref()) }, description));
            }
            _ => {
                field.bytes().await.map_err(bad)?;
            }
        }
    }
    Err(ApiError::bad_request("the form has no field artifact"))
}

/// Reads all of an artifact: what it says, and that its checksums are right. Whether its signature is, is for the
/// devices to judge: they have the keys.
fn read(path: &std::path::Path) -> Result<(Header, Vec<ArtifactFile>), ApiError> {
    let wrong = |error: ArtifactError| ApiError::bad_request(&format!("not a valid artifact: {error}"));
    let file = std::fs::File::open(path)?;
    let artifact::Artifact { header, mut payload, .. } =
        artifact::open(file, &Trust::DangerUnsigned, &Limits::default()).map_err(wrong)?;
    let mut files = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    while let Some(mut file) = payload.next_file().map_err(wrong)? {
        files.push(ArtifactFile {
            name: file.name().to_owned(),
            checksum: file.expected_sha256().to_string(),
            size: file.size(),
        });
        while file
            .read(&mut buffer)
            .map_err(|error| ApiError::bad_request(&format!("not a valid artifact: {error}")))?
            > 0
        {}
    }
    Ok((header, files))
}

fn record(
    id: &str,
    header: Header,
    files: Vec<ArtifactFile>,
    received: Received,
    description: String,
) -> Artifact {
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
        size: received.size,
        sha256: received.sha256,
        modified: Timestamp::now(),
        configuration_of: None,
    }
}
