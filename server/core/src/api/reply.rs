//! Answers, and errors in the words of the protocol.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::blobs::BlobError;
use crate::blobs::intake::IntakeError;
use crate::domain::admission::AdmissionError;
use crate::domain::artifacts::ArtifactError;
use crate::domain::id::{self, NoRandomness};
use crate::domain::inventory::InventoryError;
use crate::domain::limits;
use crate::metrics::Refusal;
use crate::model::time::Timestamp;
use crate::request_id;
use crate::store::{StoreError, WriterFailed};
use crate::throttle::Refused;
use crate::work::NotLoaded;

/// The bytes of an answer.
pub type Body = BoxBody<Bytes, std::io::Error>;
/// An answer.
pub type Reply = Response<Body>;

/// After how many seconds what could not be reached may be asked for again, at least.
const AWAY_SECONDS: u64 = 10;
/// And up to so many more.
const AWAY_SPREAD_SECONDS: u64 = 30;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// After how many seconds it may be tried again.
    pub(crate) retry_after_seconds: Option<u64>,
    /// Whether the same with a code of the second factor is none.
    pub(crate) second_factor: bool,
    /// The member of the body that it is about.
    pub(crate) field: Option<&'static str>,
    /// The deployment that is in its way.
    pub(crate) deployment: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: &str) -> ApiError {
        ApiError {
            status,
            message: message.to_owned(),
            retry_after_seconds: None,
            second_factor: false,
            field: None,
            deployment: None,
        }
    }

    /// It is about this member of the body.
    pub(crate) fn about(self, field: &'static str) -> ApiError {
        ApiError { field: Some(field), ..self }
    }

    /// The request is wrong.
    pub fn bad_request(message: &str) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unauthorized(message: &str) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// The password was right, and a code is needed besides.
    pub(crate) fn second_factor(message: &str) -> ApiError {
        ApiError { second_factor: true, ..ApiError::unauthorized(message) }
    }

    /// It cannot be done now, and perhaps in a while: not by all at the same moment.
    pub(crate) fn unavailable(message: &str) -> ApiError {
        let spread = id::random::<1>().map_or(0, |[byte]| u64::from(byte) % AWAY_SPREAD_SECONDS);
        ApiError {
            retry_after_seconds: Some(AWAY_SECONDS + spread),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// Nothing is there.
    pub fn not_found() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not found")
    }

    /// There is no such request at all.
    pub(crate) fn no_route() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "no such route")
    }

    pub(crate) fn forbidden(message: &str) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn unprocessable(message: &str) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }

    pub(crate) fn conflict(message: &str) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: &str) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The answer, in the words of the API.
    pub fn into_reply(self) -> Reply {
        let request_id = request_id::current().unwrap_or_default();
        let mut said = json!({ "error": self.message, "request_id": request_id });
        if self.second_factor {
            said["second_factor"] = true.into();
        }
        if let Some(field) = self.field {
            said["field"] = field.into();
        }
        if let Some(deployment) = self.deployment {
            said["deployment_id"] = deployment.into();
        }
        let mut reply = json(self.status, &said);
        if let Some(seconds) = self.retry_after_seconds {
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            reply
                .headers_mut()
                .insert("WWW-Authenticate", HeaderValue::from_static("Bearer realm=\"rust-ota\""));
        }
        reply
    }
}

/// Ids of artifacts and deployments are UUIDs; anything else is a mistake of whoever asks, and is told so.
pub(crate) fn check_id(text: &str) -> Result<(), ApiError> {
    if id::has_uuid_form(text) { Ok(()) } else { Err(ApiError::bad_request("the id is not a UUID")) }
}

impl From<WriterFailed> for ApiError {
    fn from(WriterFailed(reason): WriterFailed) -> ApiError {
        ApiError::unavailable(&format!("nothing can be stored: {reason}"))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        match error {
            StoreError::Database { .. } => {
                warn_now_and_then(&error);
                ApiError::unavailable("the store could not be read")
            }
            StoreError::Io { .. }
            | StoreError::NoFolder
            | StoreError::Missing { .. }
            | StoreError::Empty { .. }
            | StoreError::InUse(_)
            | StoreError::Served { .. }
            | StoreError::Moving { .. }
            | StoreError::UnknownFormat { .. }
            | StoreError::Damaged { .. }
            | StoreError::NotEmpty { .. }
            | StoreError::Artifacts { .. }
            | StoreError::NoRandomness => {
                log::error!("{error}");
                ApiError::internal("the store could not be read")
            }
        }
    }
}

/// All devices meet a database that is away: one line a second says so.
fn warn_now_and_then(error: &StoreError) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = Timestamp::now().seconds();
    if LAST.swap(now, Ordering::Relaxed) == now {
        log::debug!("{error}");
    } else {
        log::error!("{error}");
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let reason = match refused.why {
            Refusal::Busy | Refusal::Late => "the server is busy",
            Refusal::Device => "the device asks too often",
            Refusal::Address => "this address asks too often",
        };
        let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, reason);
        error.retry_after_seconds = Some(refused.after_seconds);
        error
    }
}

impl From<NoRandomness> for ApiError {
    fn from(_: NoRandomness) -> ApiError {
        ApiError::internal("no random numbers")
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> ApiError {
        log::error!("{error}");
        let is_full =
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
        match is_full {
            true => ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "there is no room on the server's disk"),
            false => ApiError::internal("a file could not be read or written"),
        }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> ApiError {
        match error {
            BlobError::Io { source, .. } => source.into(),
            BlobError::Missing { .. } | BlobError::Damaged { .. } | BlobError::NotAFile { .. } => {
                ApiError::internal("the file of the artifact is damaged")
            }
            BlobError::TooLarge { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact is larger than S3 takes")
            }
            // Addresses and what S3 says are for the log.
            BlobError::Unreachable { .. } => ApiError::unavailable("the store of artifacts does not answer"),
            BlobError::Refused { .. } => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the store of artifacts refuses")
            }
            BlobError::Lies { .. } => {
                ApiError::new(StatusCode::BAD_GATEWAY, "the store of artifacts answered something else")
            }
            BlobError::Settings { reason } => ApiError::internal(&reason),
        }
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> ApiError {
        match error {
            IntakeError::NotAnArtifact { .. } => ApiError::bad_request(&error.to_string()),
            IntakeError::TooLarge { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the artifact or a field is too large")
            }
            IntakeError::Blob(error) => {
                log::error!("an artifact was not kept: {error}");
                error.into()
            }
            IntakeError::Stopped => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server stops"),
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> ApiError {
        match error {
            ArtifactError::NotLoaded => NotLoaded.into(),
            ArtifactError::NotFound => ApiError::not_found(),
            ArtifactError::Conflict { existing } => ApiError::conflict(&format!(
                "artifact {existing} has the same name, depends, and one of the device types"
            )),
            ArtifactError::InUse { .. } => ApiError::conflict("the artifact is used by an active deployment"),
            ArtifactError::Withdrawn => {
                ApiError::conflict("the artifact that it was made of, or for, was deleted")
            }
            ArtifactError::AtWork => ApiError::conflict("the upload is being read already"),
            ArtifactError::TooManyUploads => {
                ApiError::conflict("too many direct uploads are begun and not completed")
            }
            ArtifactError::TooManyTags => {
                ApiError::conflict("the total number of unique tags has been exceeded")
            }
        }
    }
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> ApiError {
        match error {
            AdmissionError::NotLoaded => NotLoaded.into(),
            AdmissionError::NotFound => ApiError::not_found(),
            AdmissionError::Exists(_) => ApiError::conflict("the device exists"),
            AdmissionError::BadTransition => ApiError::unprocessable("the status cannot become that one"),
            AdmissionError::DeviceLimit => {
                ApiError::unprocessable("maximum number of accepted devices reached")
            }
            AdmissionError::NoRandomness => NoRandomness.into(),
        }
    }
}

impl From<InventoryError> for ApiError {
    fn from(error: InventoryError) -> ApiError {
        match error {
            InventoryError::NotLoaded => NotLoaded.into(),
            InventoryError::NotFound => ApiError::not_found(),
            InventoryError::Unauthorized => ApiError::unauthorized("dev auth: unauthorized"),
            InventoryError::TooManyTags(count) => ApiError::bad_request(&format!(
                "the device would have {count} tags; {} are allowed",
                limits::TAGS
            )),
            InventoryError::Changed => {
                ApiError::new(StatusCode::PRECONDITION_FAILED, "the tags have been changed")
            }
            InventoryError::TooMany(count) => ApiError::bad_request(&format!(
                "the device would have {count} attributes; {} are allowed",
                limits::ATTRIBUTES_OF_A_DEVICE
            )),
            InventoryError::TooLarge(bytes) => ApiError::bad_request(&format!(
                "the attributes of the device would have {bytes} bytes; {} are allowed",
                limits::INVENTORY_BYTES
            )),
        }
    }
}

/// A rule that ends with this is run again, so nobody hears of it.
impl From<NotLoaded> for ApiError {
    fn from(_: NotLoaded) -> ApiError {
        ApiError::internal("a record was not loaded")
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Reply {
        error.into_reply()
    }
}

/// These bytes.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// No body.
pub fn empty(status: StatusCode) -> Reply {
    let mut reply = bytes(status, "application/json", Bytes::new());
    reply.headers_mut().remove(CONTENT_TYPE);
    reply
}

/// A value as JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => bytes(status, "application/json", text),
        Err(error) => ApiError::internal(&error.to_string()).into_reply(),
    }
}

/// A tag that changes when a value does.
pub(crate) fn etag_of<T: Serialize>(value: &T) -> String {
    tag_of(&serde_json::to_vec(value).unwrap_or_default())
}

fn tag_of(text: &[u8]) -> String {
    format!("\"{}\"", &id::sha256_hex(text)[..32])
}

/// Something new, and where it is.
pub(crate) fn created(location: &str) -> Reply {
    let mut reply = empty(StatusCode::CREATED);
    if let Ok(location) = HeaderValue::from_str(location) {
        reply.headers_mut().insert(hyper::header::LOCATION, location);
    }
    reply
}

/// Text of whatever kind.
pub fn text(status: StatusCode, text: &str) -> Reply {
    bytes(status, "application/json", text.as_bytes().to_vec())
}
