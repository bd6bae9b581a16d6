//! What is asked by whoever watches the server.

use std::sync::LazyLock;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::json;

use super::routes::{self, Route};
use super::{ApiError, Reply, Shared, reply};
use crate::readiness::Trouble;

/// Its lines in the description of the API.
pub(super) const ROUTES: &[Route] = &[
    Route::get("/health", "Whether the server can store what it is told"),
    Route::head("/health", "The same"),
    Route::get("/api/internal/v1/health", "The same"),
    Route::head("/api/internal/v1/health", "The same"),
    Route::get("/health/live", "Whether the process answers"),
    Route::get("/health/ready", "Whether the server can do what it is asked").gives("Ready"),
    Route::get("/api/openapi.json", "This description").gives("map"),
];

/// Whether the server works: as long as nothing can be stored it does not, and says why.
pub(super) fn health(shared: &Shared) -> Result<Reply, ApiError> {
    shared.service.store.check()?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// The description of the API. It is the same for everybody, and says nothing about this server.
pub(super) fn openapi() -> Reply {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| routes::description().to_string().into());
    reply::bytes(StatusCode::OK, "application/json", TEXT.clone())
}

/// The process answers: that is all it says.
pub(crate) fn live() -> Reply {
    reply::empty(StatusCode::NO_CONTENT)
}

/// Whether the server can do what it is asked, and what keeps it from that.
pub(crate) async fn ready(shared: &Shared) -> Reply {
    let troubles = shared.readiness.troubles(&shared.service, &*shared.blobs).await;
    let status = if troubles.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reasons: Vec<_> =
        troubles.iter().map(|Trouble { part, reason }| json!({ "part": part, "reason": reason })).collect();
    reply::json(status, &json!({ "ready": troubles.is_empty(), "reasons": reasons }))
}
