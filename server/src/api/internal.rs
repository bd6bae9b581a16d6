//! What is asked by whoever watches the server, and faults, set by tests from outside: those only when the server was told
//! so.

use hyper::{Method, StatusCode};

use super::{ApiError, Call, Reply, Shared, reply};
use serde_json::json;

/// Whether the server works: as long as nothing can be stored it does not, and says why.
pub(super) fn health(shared: &Shared) -> Result<Reply, ApiError> {
    shared.store.writer.check()?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

pub(super) fn faults(shared: &Shared, call: &Call) -> Result<Reply, ApiError> {
    match call.method {
        Method::PUT => {
            shared.faults.set(call.json()?);
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Method::DELETE => {
            shared.faults.clear();
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Method::GET => {
            let answer = json!({ "rules": shared.faults.rules(), "hits": shared.faults.hits() });
            Ok(reply::json(StatusCode::OK, &answer))
        }
        _ => Err(ApiError::not_found()),
    }
}
