//! The cookies that have a token, and when they are believed. A browser sends them with every request to this server, whoever
//! has made the request, so what changes something has to have come from the page itself.

use hyper::Method;
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, HeaderValue, ORIGIN, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};

use super::{ApiError, Call, Reply, Shared};

/// The name of the page's.
pub(super) const NAME: &str = "rust_ota_session";
/// The one in which any page may bring a token for a WebSocket: it cannot give one a header.
const OF_WEBSOCKET: &str = "JWT";
/// A page of another server cannot give a request this header without asking this one, which says no.
const HEADER: &str = "x-requested-with";
const PAGE: &str = "rust-ota";

/// What of a request says where it was made.
#[derive(Debug, Clone, Copy)]
struct Made<'a> {
    method: &'a Method,
    is_websocket: bool,
    /// What the browser says whose page has made it.
    origin: Option<&'a str>,
    /// What the server is called, by the request and by whoever runs it.
    hosts: [Option<&'a str>; 2],
    has_header: bool,
}

impl<'a> Made<'a> {
    fn of(shared: &'a Shared, call: &'a Call) -> Made<'a> {
        let public = shared.options.public_url.as_deref().and_then(|url| Some(url.split_once("://")?.1));
        let public = public.map(|rest| rest.split('/').next().unwrap_or(rest));
        Made {
            method: &call.method,
            is_websocket: call.has_word(&UPGRADE, "websocket"),
            // One that is no text is one of somebody else.
            origin: call.headers.get(ORIGIN).map(|value| value.to_str().unwrap_or_default()),
            hosts: [call.header(HOST.as_str()), public],
            has_header: call.header(HEADER) == Some(PAGE),
        }
    }

    /// Whether the origin is this server. `null`, which a page without one has, is not.
    fn is_of(&self, origin: &str) -> bool {
        let Some((scheme, host)) = origin.split_once("://") else { return false };
        let port = match scheme {
            "https" => ":443",
            _ => ":80",
        };
        let plain = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
        !host.is_empty() && self.hosts.iter().flatten().any(|own| plain(own) == plain(host))
    }

    /// Whether another page may have made it.
    fn is_foreign(&self) -> bool {
        self.origin.is_some_and(|origin| !self.is_of(origin))
    }

    /// Whether the cookie of the page is believed.
    fn is_believed(&self) -> bool {
        match (self.is_websocket, self.method) {
            // Browsers always say it here, and let every page open one.
            (true, _) => self.origin.is_some() && !self.is_foreign(),
            // Nothing is changed, and no other page sees the answer.
            (false, &Method::GET | &Method::HEAD) => true,
            (false, _) => self.has_header && !self.is_foreign(),
        }
    }
}

/// The token in a cookie of a request that has no `Authorization`. That of the page comes first.
///
/// # Errors
/// There is one, and the request may be another page's.
pub(super) fn token<'a>(shared: &Shared, call: &'a Call) -> Result<Option<&'a str>, ApiError> {
    if call.headers.contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    let Some(token) = call.cookie(NAME).filter(|token| !token.is_empty()) else {
        return of_websocket(shared, call);
    };
    match Made::of(shared, call).is_believed() {
        true => Ok(Some(token)),
        false => Err(ApiError::forbidden("the request is not made by the page of this server")),
    }
}

/// The token in the cookie `JWT`, for a WebSocket without `Authorization`. A program sends no origin with it.
///
/// # Errors
/// There is one, and the request is another page's.
pub(super) fn of_websocket<'a>(shared: &Shared, call: &'a Call) -> Result<Option<&'a str>, ApiError> {
    if call.headers.contains_key(AUTHORIZATION) || !call.has_word(&UPGRADE, "websocket") {
        return Ok(None);
    }
    let Some(token) = call.cookie(OF_WEBSOCKET) else { return Ok(None) };
    check_origin(shared, call)?;
    Ok(Some(token))
}

/// Refuses what another page wants a browser to log in with: the person would be at work as somebody else.
///
/// # Errors
/// 403.
pub(super) fn check_origin(shared: &Shared, call: &Call) -> Result<(), ApiError> {
    match Made::of(shared, call).is_foreign() {
        true => Err(ApiError::forbidden("the request is made by a page of another server")),
        false => Ok(()),
    }
}

/// The answer to a request of the page: a browser keeps nothing of it, and takes no file of a device for a page.
pub(super) fn guarded(call: &Call, mut reply: Reply) -> Reply {
    if !call.headers.contains_key(AUTHORIZATION) {
        for (name, value) in [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")] {
            reply.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    reply
}

/// What has a browser keep a token for so many seconds; for none, forget it.
pub(super) fn set(shared: &Shared, token: &str, seconds: u64) -> HeaderValue {
    let is_encrypted = shared.options.tls.is_some()
        || shared.options.public_url.as_ref().is_some_and(|url| url.starts_with("https://"));
    let secure = if is_encrypted { "; Secure" } else { "" };
    let text = format!("{NAME}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    // A token is letters, digits and dots.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_believed_when_the_page_has_made_the_request() {
        const HERE: Option<&str> = Some("http://here:8080");
        const THERE: Option<&str> = Some("http://there:8080");
        let null = Some("null");
        for (method, is_websocket, origin, has_header, expected) in [
            ("GET", false, None, false, true),
            ("GET", false, THERE, false, true),
            ("HEAD", false, None, false, true),
            ("GET", true, HERE, false, true),
            ("GET", true, None, false, false),
            ("GET", true, None, true, false),
            ("GET", true, THERE, true, false),
            ("GET", true, null, true, false),
            ("POST", false, HERE, true, true),
            ("POST", false, None, true, true),
            ("POST", false, HERE, false, false),
            ("POST", false, THERE, true, false),
            ("POST", false, null, true, false),
            ("POST", false, Some(""), true, false),
            ("PUT", false, None, false, false),
            ("DELETE", false, None, false, false),
            ("PATCH", false, None, false, false),
            ("OPTIONS", false, None, false, false),
            ("GETS", false, None, false, false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let hosts = [Some("here:8080"), None];
            let made = Made { method: &method, is_websocket, origin, hosts, has_header };
            assert_eq!(made.is_believed(), expected, "{made:?}");
        }
    }

    #[test]
    fn an_origin_is_this_server_by_its_host_and_port() {
        for (host, origin, expected) in [
            ("here", "http://here", true),
            ("Here", "https://hERE", true),
            ("here:443", "https://here", true),
            ("here", "http://here:80", true),
            ("here:80", "https://here", false),
            ("here:8080", "http://here", false),
            ("here:8080", "http://here:8081", false),
            ("here", "http://here.there", false),
            ("here", "http://there", false),
            ("here", "here", false),
            ("", "http://", false),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("inner:8080", "https://public.example.org", true),
        ] {
            let hosts = [Some(host), Some("public.example.org")];
            let made =
                Made { method: &Method::POST, is_websocket: false, origin: None, hosts, has_header: true };
            assert_eq!(made.is_of(origin), expected, "{host} {origin}");
        }
    }
}
