//! Faults, set by tests from outside. There only when the server was told so.

use hyper::{Method, StatusCode};

use super::{ApiError, Call, Reply, Shared, reply};
use serde_json::json;

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
