//! Compresses answers for those who ask for it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Bytes};
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};

use super::reply::Body;
use super::{Call, Reply};

/// Shorter answers are not worth it: one network packet carries them as they are.
const LEAST_BYTES: u64 = 1400;

/// The answer, compressed when it is JSON, not short, and the client has said that it can read gzip.
pub(super) fn compress(call: &Call, reply: Reply) -> Reply {
    let is_json = reply.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let is_long = reply.body().size_hint().exact().is_some_and(|size| size >= LEAST_BYTES);
    if !(is_json && is_long && is_accepted(call) && reply.status() == StatusCode::OK) {
        return reply;
    }
    let (mut parts, body) = reply.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    // A JSON answer is one frame; an encoder is used up by it.
    let compressed: Body = body
        .map_frame(move |frame| {
            frame.map_data(|data| match encoder.take() {
                Some(encoder) => Bytes::from(encode(encoder, &data)),
                None => Bytes::new(),
            })
        })
        .boxed();
    Reply::from_parts(parts, compressed)
}

fn encode(mut encoder: GzEncoder<Vec<u8>>, data: &[u8]) -> Vec<u8> {
    // Writing to memory does not fail.
    encoder.write_all(data).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// Whether the client reads gzip.
pub(super) fn is_accepted(call: &Call) -> bool {
    call.header(ACCEPT_ENCODING.as_str()).is_some_and(accepts)
}

fn accepts(header: &str) -> bool {
    header.split(',').any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let refused = matches!(weight.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_who_asks_for_gzip_gets_it() {
        for (header, wanted) in
            [("gzip", true), ("deflate, gzip;q=0.5", true), ("gzip; q=0", false), ("br", false)]
        {
            assert_eq!(super::accepts(header), wanted, "{header}");
        }
    }
}
