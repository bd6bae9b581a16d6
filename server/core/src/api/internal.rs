//! What is asked by whoever watches the server.

use hyper::StatusCode;

use super::{ApiError, Reply, Shared, reply};

/// Whether the server works: as long as nothing can be stored it does not, and says why.
pub(super) fn health(shared: &Shared) -> Result<Reply, ApiError> {
    shared.service.store.check()?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
