//! Files to and from devices.

use std::io;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::artifacts::Form;
use super::call;
use super::users::Person;
use super::{ApiError, Call, Reply, Shared, audit, permit, reply};
use crate::connect::files::{self, Download, Piece, Target, TransferError, Upload};
use crate::domain::limits;

impl From<TransferError> for ApiError {
    fn from(error: TransferError) -> ApiError {
        let status = match error {
            TransferError::NoSuchFile { .. } => StatusCode::NOT_FOUND,
            TransferError::NotRegular | TransferError::Refused { .. } | TransferError::Left => {
                StatusCode::BAD_REQUEST
            }
            TransferError::NotOffered | TransferError::Closed(_) | TransferError::Lies(_) => {
                StatusCode::BAD_GATEWAY
            }
            TransferError::Silent => StatusCode::GATEWAY_TIMEOUT,
        };
        ApiError::new(status, &error.to_string())
    }
}

/// Whether the body of a request is a file for a device.
pub(super) fn is_upload(method: &Method, path: &str) -> bool {
    let segments = call::segments(path);
    *method == Method::PUT
        && matches!(segments.as_slice(), ["api", "management", _, "deviceconnect", "devices", _, "upload"])
}

/// A file of the device.
pub(super) async fn download(
    shared: &Shared,
    call: &Call,
    person: &Person,
    device: &str,
) -> Result<Reply, ApiError> {
    let path = checked(call.query("path").unwrap_or_default())?;
    audit::says(&path);
    let board = &shared.switchboard;
    let place = board.place_for_file()?;
    let (end, line) = board.open(device, &person.name, permit::pass(shared, call)?)?;
    let Download { info, mut pieces } = files::download(end, line, place, path.clone()).await?;
    let mut is_over = false;
    let body = StreamBody::new(stream::poll_fn(move |context| {
        if is_over {
            return std::task::Poll::Ready(None);
        }
        pieces.poll_recv(context).map(|piece| {
            is_over = !matches!(piece, Some(Piece::Bytes(_)));
            match piece {
                Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Piece::End) => None,
                None => Some(Err(io::Error::other("the device has not sent all of the file"))),
            }
        })
    }));
    let mut reply = Response::new(BodyExt::boxed(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = path.rsplit('/').next().unwrap_or_default();
    let name: String = name
        .chars()
        .map(|char| if char.is_ascii_graphic() && !matches!(char, '"' | '\\') { char } else { '_' })
        .collect();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    if let Ok(value) = HeaderValue::from_bytes(path.as_bytes()) {
        headers.insert(HeaderName::from_static("x-men-file-path"), value);
    }
    let numbers = [
        ("x-men-file-uid", info.uid.map(|uid| uid.to_string())),
        ("x-men-file-gid", info.gid.map(|gid| gid.to_string())),
        ("x-men-file-mode", info.mode.map(|mode| format!("{mode:o}"))),
        ("x-men-file-size", info.size.map(|size| size.to_string())),
    ];
    for (name, text) in numbers {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(reply)
}

/// A file for the device.
pub(super) async fn upload(
    shared: &Shared,
    call: &Call,
    person: &Person,
    device: &str,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let mut form = Form::of(shared, call, body, "file")?;
    let mut target = Target::default();
    while let Some(mut field) = form.next().await? {
        match field.name().as_str() {
            "path" => target.path = field.text().await?,
            "uid" => target.uid = number("uid", &field.text().await?, 10)?,
            "gid" => target.gid = number("gid", &field.text().await?, 10)?,
            "mode" => target.mode = number("mode", &field.text().await?, 8)?,
            // It is the last one: what comes behind it is not looked at.
            "file" => {
                let sent = async {
                    target.path = checked(target.path)?;
                    audit::says(&target.path);
                    // What stands before it may have come slowly.
                    permit::admit(shared, call).await?;
                    let board = &shared.switchboard;
                    let place = board.place_for_file()?;
                    let (end, line) = board.open(device, &person.name, permit::pass(shared, call)?)?;
                    let upload = Upload::begin(end, line, place, target);
                    while let Some(bytes) = field.bytes().await? {
                        if !upload.write(bytes).await {
                            break;
                        }
                    }
                    Ok(upload.finish().await?)
                };
                let sent: Result<(), ApiError> = sent.await;
                if sent.is_err() {
                    field.drop_rest().await;
                }
                sent?;
                return Ok(reply::empty(StatusCode::CREATED));
            }
            _ => {
                field.text().await?;
            }
        }
    }
    Err(ApiError::bad_request("the form has no field file"))
}

fn checked(path: String) -> Result<String, ApiError> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ApiError::bad_request("path: it is no absolute path"));
    }
    if path.len() > limits::PATH_BYTES {
        return Err(ApiError::bad_request("path: it is too long"));
    }
    Ok(path)
}

/// A number in a field; an empty field says nothing.
fn number(name: &str, text: &str, radix: u32) -> Result<Option<u32>, ApiError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || ApiError::bad_request(&format!("{name}: not a number of base {radix}"));
    u32::from_str_radix(text, radix).map(Some).map_err(|_| wrong())
}
