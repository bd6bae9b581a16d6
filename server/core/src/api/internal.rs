//! What is asked by whoever watches the server.

use hyper::StatusCode;
use serde_json::json;

use super::{ApiError, Reply, Shared, reply};
use crate::readiness::Trouble;

/// Whether the server works: as long as nothing can be stored it does not, and says why.
pub(super) fn health(shared: &Shared) -> Result<Reply, ApiError> {
    shared.service.store.check()?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
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
