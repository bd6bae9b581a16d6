//! The page of people: files, and the headers that keep a browser from believing anything else.

use hyper::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, StatusCode};

use super::{ApiError, Call, Reply, Shared, gzip, reply, routes};
use crate::domain::etag;
use crate::page::{Asset, INDEX};

/// Scripts, styles and answers come from this server and from nowhere else, nothing stands in the page itself, and no other
/// page may show this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What every file is answered with.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // It is asked for each time, and mostly answered 304: a new server has a new page at once.
    (CACHE_CONTROL, "no-cache"),
    (VARY, "Accept-Encoding"),
];

/// The file that a path means; `None` for what is not of the page.
pub(super) fn name(path: &str) -> Option<&str> {
    match path {
        "/" => Some(INDEX),
        path => path.strip_prefix("/page/"),
    }
}

/// Answers with a file.
pub(super) async fn route(shared: &Shared, call: &Call, name: &str) -> Result<Reply, ApiError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(routes::only("GET, HEAD"));
    }
    let asset = shared.page.file(name).await?.ok_or_else(ApiError::not_found)?;
    let mut reply = answer(call, asset);
    for (name, value) in HEADERS {
        reply.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(reply)
}

fn answer(call: &Call, asset: Asset) -> Reply {
    let packed = asset.gzip.filter(|_| gzip::is_accepted(call));
    // Other bytes have another tag.
    let tag = if packed.is_some() { format!("{}-gzip", asset.tag) } else { asset.tag.clone() };
    let is_tag = |tags: &str| etag::names(tags, |name| name == tag);
    let is_known = call.header(IF_NONE_MATCH.as_str()).is_some_and(is_tag);
    let is_packed = packed.is_some() && !is_known;
    let mut reply = match is_known {
        true => reply::empty(StatusCode::NOT_MODIFIED),
        false => reply::bytes(StatusCode::OK, asset.kind, packed.unwrap_or(asset.bytes)),
    };
    if is_packed {
        reply.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        reply.headers_mut().insert(ETAG, tag);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_first_path_and_one_folder() {
        for (path, expected) in [
            ("/", Some("index.html")),
            ("/page/main.js", Some("main.js")),
            ("/page/lib/a.js", Some("lib/a.js")),
            ("/page/", Some("")),
            ("/page", None),
            ("/pages/a", None),
            ("/index.html", None),
            ("//", None),
            ("*", None),
        ] {
            assert_eq!(name(path), expected, "{path}");
        }
    }
}
