//! Who sends a request, found out before its body comes. Without a token a body is dropped as it comes, or it is small:
//! there may be thousands of them at once.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{Method, StatusCode, header};

use super::call::Caller;
use super::surround::Around;
use super::{ApiError, Call, Shared, artifacts, device, download, files, users};
use crate::domain::limits;

/// What is done with the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    /// It is read.
    Read {
        /// How much of it.
        most: usize,
    },
    /// It is an upload, and is read as it is written to the disk.
    Stream,
    /// It is read, but nobody knows whose it is.
    ReadOfStranger {
        /// How much of it.
        most: usize,
    },
    /// Nothing is expected in it; the link of the request opens something.
    Download,
    /// Nothing is expected in it, or its sender may not say anything.
    Discard,
}

/// Finds out who sends the request, and what that means for its body.
///
/// # Errors
/// The store could not be read, or another page sends what the cookie of ours came with.
pub(super) async fn recognise(
    shared: &Shared,
    around: &dyn Around,
    call: &mut Call,
) -> Result<Intake, ApiError> {
    let known = Intake::Read { most: limits::BODY_BYTES };
    if around.is_asked(call) {
        return Ok(known);
    }
    let segments = call.segments();
    let (caller, intake) = match (segments.as_slice(), &call.method) {
        (["api", "devices", _, "authentication", "auth_requests"], &Method::POST) => {
            return Ok(Intake::ReadOfStranger { most: limits::AUTH_BODY_BYTES });
        }
        (["api", "management", "v1", "useradm", "auth", "login"], &Method::POST) => {
            // Without a password nothing in it matters.
            return Ok(match call.headers.contains_key(header::AUTHORIZATION) {
                true => Intake::ReadOfStranger { most: limits::AUTH_BODY_BYTES },
                false => Intake::Discard,
            });
        }
        (["api", "management", "v1", "useradm", "auth", "session" | "first-user"], &Method::POST) => {
            return Ok(Intake::ReadOfStranger { most: limits::AUTH_BODY_BYTES });
        }
        (["api", "devices", ..], _) => (device::caller(shared, call).await?, known),
        (["api", "management", ..], _) => {
            let is_upload = artifacts::is_upload(call) || files::is_upload(&call.method, &call.path);
            let intake = if is_upload { Intake::Stream } else { known };
            (users::caller(shared, call)?, intake)
        }
        (["download", ..], _) if download::check(shared, call).await.is_ok() => return Ok(Intake::Download),
        (["upload", ..], &Method::PUT) if download::check(shared, call).await.is_ok() => {
            return Ok(Intake::Stream);
        }
        _ => return Ok(Intake::Discard),
    };
    call.caller = caller;
    Ok(match call.caller {
        Caller::Stranger => Intake::Discard,
        Caller::Device(_) | Caller::Person(_) => intake,
    })
}

/// All of a body.
pub(super) async fn read_body(
    incoming: Incoming,
    most: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    // Who says that it is too large need not send it.
    if incoming.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(patience, Limited::new(incoming, most).collect()).await {
        Err(_) => Err(late()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(broken()),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

/// All of a body of whoever it is. When too many are waited for, and this one longest, it is as if it had not come.
pub(super) async fn read_of_stranger(
    shared: &Shared,
    incoming: Incoming,
    most: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    let awaited = shared.bodies.expect();
    tokio::select! {
        body = read_body(incoming, most, patience) => body,
        () = awaited.has_to_go() => Err(late()),
    }
}

/// Takes a body and keeps nothing of it: an answer to somebody who is still sending is mostly lost, and a device has to
/// hear that its token has expired. Who waits to be asked for the body, or sends very much, is answered at once; so is
/// who has sent longest while there are many, because each costs the buffer that its connection reads into.
pub(super) async fn discard_body(
    shared: &Shared,
    call: &mut Call,
    mut incoming: Incoming,
    patience: Duration,
) -> Result<(), ApiError> {
    let most = limits::BODY_BYTES as u64;
    if incoming.is_end_stream() {
        return Ok(());
    }
    if call.headers.contains_key(header::EXPECT) || incoming.size_hint().lower() > most {
        call.is_unread = true;
        return Ok(());
    }
    let awaited = shared.bodies.expect();
    let all = async {
        let mut taken = 0;
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|_| broken())?;
            taken += frame.data_ref().map_or(0, |data| data.len() as u64);
            if taken > most {
                return Err(too_large());
            }
        }
        Ok(())
    };
    tokio::select! {
        all = tokio::time::timeout(patience, all) => all.unwrap_or_else(|_| Err(late())),
        () = awaited.has_to_go() => {
            call.is_unread = true;
            Ok(())
        }
    }
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
}

fn late() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")
}

fn broken() -> ApiError {
    ApiError::bad_request("the body is broken")
}
