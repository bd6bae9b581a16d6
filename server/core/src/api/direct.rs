//! Uploads that go past the API: a link to where the bytes go, and a word when they are there. Then they are read like any
//! other artifact, into another place: whoever has the link can still write to the first one.

use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::json;

use super::artifacts::Keeper;
use super::routes::Route;
use super::{ApiError, Call, Reply, Shared, download, reply};
use crate::blobs::{Name, Span, Verb};
use crate::domain::artifacts::{self as rules, DirectUpload};
use crate::domain::id;
use crate::domain::link::Holder;
use crate::model::time::Timestamp;
use crate::work::{Key, Kind};

/// How long a link takes an upload.
const LINK_SECONDS: u64 = 3600;
/// How long what nobody has completed is kept after its link.
const LEFT_SECONDS: u64 = 24 * 3600;
/// How long the answer waits for the artifact to be read. After that it is read on without anybody who waits.
const READING: Duration = Duration::from_secs(10);

/// How often it is said that an upload is being read.
const RENEW: Duration = Duration::from_secs(rules::READER_SECONDS / 3);

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::post("/api/management/v1|v2/deployments/artifacts/directupload", "Begin an upload past the API")
        .gives("UploadLink")
        .fails(&[409, 502]),
    Route::post(
        "/api/management/v1|v2/deployments/artifacts/directupload/{upload}/complete",
        "Say that it is uploaded",
    )
    .status(202)
    .fails(&[404, 409, 502, 507]),
    Route::put("/upload/{upload}", "Upload, by a link")
        .queries(&["expire", "signature"])
        .takes_bytes()
        .status(200)
        .fails(&[507]),
];

fn key(id: &str) -> Vec<Key> {
    vec![Key::Document(Kind::Upload, id.to_owned())]
}

/// Gives a link.
pub(super) async fn begin(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    let id = id::uuid()?;
    let name = Name::direct(&id).ok_or_else(|| ApiError::internal("the id is not a UUID"))?;
    let now = Timestamp::now();
    let expire = now.plus_seconds(LINK_SECONDS);
    let uploads: Vec<(String, DirectUpload)> = shared.service.catalogue.documents(Kind::Upload);
    let waiting = uploads.len();
    forget_old(shared, uploads, now);
    let valid = Duration::from_secs(LINK_SECONDS);
    let uri = match shared.blobs.link(Verb::Put, &name, valid).await? {
        Some(uri) => uri,
        None => download::own(shared, call, &format!("/upload/{id}"), &Holder::Anybody, expire),
    };
    let begun = id.clone();
    shared.change(key(&id), move |work| rules::begin_upload(work, &begun, expire, waiting)).await?;
    Ok(reply::json(StatusCode::OK, &json!({ "id": id, "uri": uri, "expire": expire })))
}

/// Takes what was never completed away. Nobody waits for it: it is done again at the next upload.
fn forget_old(shared: &Shared, uploads: Vec<(String, DirectUpload)>, now: Timestamp) {
    let old = |upload: &DirectUpload| upload.expire.plus_seconds(LEFT_SECONDS) < now;
    let old: Vec<String> = uploads.into_iter().filter(|(_, upload)| old(upload)).map(|(id, _)| id).collect();
    if old.is_empty() {
        return;
    }
    let keeper = Keeper::of(shared);
    tokio::spawn(async move {
        for id in old {
            if let Err(error) = end(&keeper, &id).await {
                log::warn!("the upload {id} could not be removed: {}", error.message);
            }
        }
    });
}

/// Takes the bytes away, and then the record.
async fn end(keeper: &Keeper, id: &str) -> Result<(), ApiError> {
    if let Some(name) = Name::direct(id) {
        keeper.blobs.remove(&name).await?;
    }
    let gone = id.to_owned();
    keeper.change(key(id), move |work| rules::end_upload(work, &gone)).await
}

/// Takes the bytes that a link of ours is for.
pub(super) async fn put(
    shared: &Shared,
    call: &Call,
    rest: &[&str],
    upload: Option<Incoming>,
) -> Result<Reply, ApiError> {
    let ([id], &Method::PUT) = (rest, &call.method) else { return Err(ApiError::not_found()) };
    download::check(shared, call).await?;
    let mut body = upload.ok_or_else(|| ApiError::bad_request("there is no body"))?;
    let known: Option<DirectUpload> = shared.service.catalogue.document(Kind::Upload, id);
    let is_open = known.is_some_and(|upload| !upload.is_read(shared.service.now()));
    let name = Name::direct(id).filter(|_| is_open).ok_or_else(ApiError::not_found)?;
    let _place = shared.place_for_upload().await?;
    let patience = Duration::from_secs(shared.options.read_timeout_seconds);
    let most = shared.options.max_artifact_bytes;
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact is too large");
    let mut blob = shared.blobs.create(&name).await?;
    let mut size = 0_u64;
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come");
        let Some(frame) = frame.map_err(late)? else { break };
        let frame = frame.map_err(|_| ApiError::bad_request("the body is broken"))?;
        if let Ok(bytes) = frame.into_data() {
            size = size.saturating_add(bytes.len() as u64);
            if size > most {
                return Err(too_large());
            }
            blob.write(bytes).await?;
        }
    }
    blob.keep().await?;
    Ok(reply::empty(StatusCode::OK))
}

/// Makes what was put there an artifact.
pub(super) async fn complete(shared: &Shared, id: &str) -> Result<Reply, ApiError> {
    let name = Name::direct(id).ok_or_else(|| ApiError::bad_request("the id is not a UUID"))?;
    let place = shared.place_for_upload().await?;
    let (keeper, claimed, reader) = (Keeper::of(shared), id.to_owned(), id::uuid()?);
    let by = reader.clone();
    shared.change(key(id), move |work| rules::claim_upload(work, &claimed, &by)).await?;
    let id = id.to_owned();
    let reading = tokio::spawn(async move {
        let result = tokio::select! {
            result = read(&keeper, &name, &id) => result,
            // What is left of it is for that one.
            () = renew(&keeper, &id, &reader) => Err(ApiError::conflict("the upload is read by somebody else now")),
        };
        drop(place);
        let after = match &result {
            // Nothing more can come of it.
            Ok(())
            | Err(ApiError { status: StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, .. }) => {
                end(&keeper, &id).await
            }
            // It may be completed again.
            Err(_) => {
                let again = id.clone();
                keeper.change(key(&id), move |work| rules::release_upload(work, &again, &reader)).await
            }
        };
        if let Err(error) = after {
            log::warn!("the upload {id}: {}", error.message);
        }
        if let Err(error) = &result {
            log::warn!("the upload {id} is no artifact yet: {}", error.message);
        }
        result
    });
    match tokio::time::timeout(READING, reading).await {
        Ok(Ok(result)) => result?,
        Ok(Err(_)) => return Err(ApiError::internal("the upload could not be read")),
        // The log says what comes of it.
        Err(_) => {}
    }
    Ok(reply::empty(StatusCode::ACCEPTED))
}

/// Says again and again that somebody reads an upload; ends when somebody else does. A server that ends says it no more, and then
/// it is read by whoever is told next that it is complete.
async fn renew(keeper: &Keeper, id: &str, reader: &str) {
    loop {
        tokio::time::sleep(RENEW).await;
        let (own, reader) = (id.to_owned(), reader.to_owned());
        match keeper.change(key(id), move |work| rules::renew_upload(work, &own, &reader)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => log::warn!("the upload {id} may be read by somebody else: {}", error.message),
        }
    }
}

/// Reads what was uploaded into its place.
async fn read(keeper: &Keeper, name: &Name, id: &str) -> Result<(), ApiError> {
    let nothing = || ApiError::conflict("nothing was uploaded yet");
    let size = keeper.blobs.size(name).await?.ok_or_else(nothing)?;
    if size > keeper.most_bytes {
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact is too large"));
    }
    let mut pieces = keeper.blobs.read(name, Span::all(size)).await?;
    let mut intake = keeper.begin(id).await?;
    while let Some(piece) = pieces.next().await {
        let written = match piece {
            Ok(bytes) => intake.write(bytes).await.map_err(ApiError::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = written {
            intake.discard().await;
            return Err(error);
        }
    }
    keeper.clone().keep(intake, id.to_owned(), String::new()).await
}
