//! Heads of messages: what a local client may ask, and what is changed in a head on its way.
//!
//! A head is taken apart completely and written anew, so that the server reads what was checked here.

use std::fmt::Write;

use super::body::{Body, Chunks};

/// Longest head of a request, in bytes. A token has up to 16 KiB.
pub(super) const REQUEST_BYTES: usize = 32 * 1024;
/// Longest head of an answer, in bytes.
pub(super) const ANSWER_BYTES: usize = 64 * 1024;
/// Header lines of a head.
const LINES: usize = 96;
/// Where local clients may go.
const ALLOWED: &str = "/api/devices/";
/// The one place with a WebSocket.
const WEBSOCKET_PATH: &str = "/api/devices/v1/deviceconnect/connect";
/// Headers that are about one connection, not about the message (RFC 9110, section 7.6.1), and those that are
/// made anew. `connection` may name more.
const OF_ONE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "host",
];

/// An answer of the proxy itself: a request that goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The status code.
    pub status: u16,
    /// Why, for a person.
    pub reason: &'static str,
}

/// Shorthand for the table of reasons below.
pub(super) const fn refusal(status: u16, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

/// There is no way to the server, or no sensible answer from it.
pub(super) const NO_ANSWER: Refusal = refusal(503, "the server cannot be reached");
/// The token is not the one that was announced.
pub(super) const WRONG_TOKEN: Refusal = refusal(401, "this needs the token that the daemon announced");
/// More at the same time than are served.
pub(super) const TOO_MANY: Refusal = refusal(503, "too many connections");

impl Refusal {
    /// The whole answer.
    pub(super) fn bytes(self) -> Vec<u8> {
        let phrase = match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let body = format!("{{\"error\":\"{}\"}}\n", self.reason);
        format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

/// A request whose head was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestHead {
    method: String,
    target: String,
    /// What is passed on, in order.
    headers: Vec<(String, Vec<u8>)>,
    /// The token that the client has.
    bearer: Option<Vec<u8>>,
    /// Whether the connection is to become a WebSocket.
    pub upgrade: bool,
    /// The client waits before it sends the body.
    pub expects_continue: bool,
    /// What follows the head.
    pub body: Body,
}

impl RequestHead {
    /// Understands `bytes`, the start of a connection. `None` when the head is not complete yet; else the
    /// head and its length in bytes.
    ///
    /// # Errors
    /// When this cannot be passed on, whatever follows.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut request = httparse::Request::new(&mut lines);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < REQUEST_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Err(refusal(431, "the head of the request is too long"));
            }
            Err(_) => return Err(refusal(400, "this is not HTTP/1.1")),
        };
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        check_path(target)?;
        let fields = Fields(request.headers);
        let upgrade = match fields.only("upgrade")? {
            None => false,
            Some(protocol) if protocol.eq_ignore_ascii_case(b"websocket") => true,
            Some(_) => return Err(refusal(403, "only WebSockets can be upgraded to")),
        };
        if upgrade && (method != "GET" || path_of(target) != WEBSOCKET_PATH) {
            return Err(refusal(403, "there is no WebSocket here"));
        }
        let body = fields.body()?.unwrap_or(Body::NONE);
        if upgrade && !body.is_over() {
            return Err(refusal(400, "a WebSocket has no body"));
        }
        let authorization = fields.only("authorization")?;
        let bearer = authorization.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii().to_vec())
        });
        let expects_continue =
            fields.only("expect")?.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
        let ours = |name: &str| ["authorization", "expect"].iter().any(|own| name.eq_ignore_ascii_case(own));
        let mut headers = fields.end_to_end();
        headers.retain(|(name, _)| !ours(name));
        Ok(Some((
            RequestHead {
                method: method.to_owned(),
                target: target.to_owned(),
                headers,
                bearer,
                upgrade,
                expects_continue,
                body,
            },
            length,
        )))
    }

    /// Whether the client showed `token`. Takes as long for a nearly right one as for any other.
    pub(super) fn shows(&self, token: &str) -> bool {
        self.bearer.as_deref().is_some_and(|shown| same(shown, token.as_bytes()))
    }

    /// Whether the answer has a head only.
    pub(super) fn wants_head_only(&self) -> bool {
        self.method == "HEAD"
    }

    /// The head as the server `authority` gets it: its path below `prefix`, with `token`.
    pub(super) fn forwarded(&self, authority: &str, prefix: &str, token: &str) -> Vec<u8> {
        let mut head = format!("{} {prefix}{} HTTP/1.1\r\n", self.method, self.target);
        // Writing to a string cannot fail.
        let _ = write!(head, "Host: {authority}\r\nAuthorization: Bearer {token}\r\n");
        head.push_str(connection_lines(self.upgrade));
        with_headers(head, &self.headers)
    }
}

fn connection_lines(upgrade: bool) -> &'static str {
    if upgrade { "Connection: Upgrade\r\nUpgrade: websocket\r\n" } else { "Connection: close\r\n" }
}

fn with_headers(head: String, headers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = head.into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Compares without stopping at the first difference: the time must not tell how much of a guess was right.
fn same(one: &[u8], other: &[u8]) -> bool {
    let different = one.iter().zip(other).fold(0, |different, (a, b)| different | (a ^ b));
    std::hint::black_box(different) == 0 && one.len() == other.len()
}

fn path_of(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// Only paths of the device API that mean the same to everybody who reads them.
fn check_path(target: &str) -> Result<(), Refusal> {
    let path = path_of(target);
    let elsewhere = refusal(404, "only the device API can be reached here");
    let below = path.strip_prefix(ALLOWED).ok_or(elsewhere)?;
    // Written out, so that no two programs on the way disagree about what is in the path.
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&byte);
    if !target.bytes().all(plain) {
        return Err(refusal(400, "the path has characters that do not belong there"));
    }
    let lower = below.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%25", "%00"].iter().any(|hidden| lower.contains(hidden));
    let mut segments = lower.split('/').peekable();
    let mut odd = hidden;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        odd |=
            segment == "." || segment == ".." || segment.starts_with("..;") || (segment.is_empty() && !last);
    }
    if odd {
        return Err(refusal(400, "the path goes astray"));
    }
    // Only the daemon speaks for the device.
    if lower.split('/').nth(1) == Some("authentication") {
        return Err(refusal(403, "the daemon authenticates by itself"));
    }
    Ok(())
}

/// An answer of the server whose head was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// The status code.
    pub status: u16,
    /// The head as the client gets it.
    pub bytes: Vec<u8>,
    /// What follows it. After 101 that is a WebSocket.
    pub body: Body,
}

impl AnswerHead {
    /// Understands `bytes`, the start of what the server says to `request`. `None` when the head is not
    /// complete yet; else the head and its length in bytes.
    ///
    /// # Errors
    /// When this is no answer to that request.
    pub(super) fn parse(bytes: &[u8], request: &RequestHead) -> Result<Option<(AnswerHead, usize)>, Refusal> {
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut answer = httparse::Response::new(&mut lines);
        let length = match answer.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) | Err(_) => return Err(NO_ANSWER),
        };
        let status = answer.code.unwrap_or_default();
        let fields = Fields(answer.headers);
        let switched = status == 101;
        if switched && !request.upgrade {
            return Err(NO_ANSWER);
        }
        let body = match status {
            101 => Body::UntilEnd,
            100..200 | 204 | 304 => Body::NONE,
            _ if request.wants_head_only() => Body::NONE,
            _ => fields.body().map_err(|_| NO_ANSWER)?.unwrap_or(Body::UntilEnd),
        };
        let reason: String =
            answer.reason.unwrap_or_default().chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
        let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
        head.push_str(connection_lines(switched));
        Ok(Some((AnswerHead { status, bytes: with_headers(head, &fields.end_to_end()), body }, length)))
    }
}

/// The header lines of one message.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl Fields<'_> {
    fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f [u8]> {
        let named = self.0.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        named.map(|line| line.value.trim_ascii())
    }

    /// The value of a header that may be there once.
    fn only(&self, name: &str) -> Result<Option<&[u8]>, Refusal> {
        let mut values = self.0.iter().filter(|line| line.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|line| line.value.trim_ascii());
        if values.next().is_some() {
            return Err(refusal(400, "a header is there twice"));
        }
        Ok(value)
    }

    /// What the head says of its body. More than one opinion is none (RFC 9112, section 6.3).
    fn body(&self) -> Result<Option<Body>, Refusal> {
        let unclear = refusal(400, "the length of the body is not clear");
        let length = self.only("content-length").map_err(|_| unclear)?;
        let coding = self.only("transfer-encoding").map_err(|_| unclear)?;
        match (length, coding) {
            (None, None) => Ok(None),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Some(Body::Chunked(Chunks::default())))
            }
            (Some(digits), None) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                length.map(|length| Some(Body::Length(length))).ok_or(unclear)
            }
            (Some(_) | None, Some(_)) | (Some(_), None) => Err(unclear),
        }
    }

    /// What is not about one connection only.
    fn end_to_end(&self) -> Vec<(String, Vec<u8>)> {
        let named: Vec<String> = self
            .all("connection")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(|name| String::from_utf8_lossy(name).trim().to_ascii_lowercase())
            // The length of a message is not for a list to remove.
            .filter(|name| !["content-length", "transfer-encoding"].contains(&name.as_str()))
            .collect();
        let stays = |line: &&httparse::Header<'_>| {
            let name = line.name.to_ascii_lowercase();
            !OF_ONE_CONNECTION.contains(&name.as_str()) && !named.contains(&name)
        };
        self.0.iter().filter(stays).map(|line| (line.name.to_owned(), line.value.to_vec())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/api/devices/v1/inventory/device/attributes";

    fn parse(text: &str) -> Result<RequestHead, u16> {
        let parsed = RequestHead::parse(text.as_bytes()).map_err(|refusal| refusal.status)?;
        let (head, length) = parsed.unwrap();
        assert_eq!(length, text.len());
        Ok(head)
    }

    fn with(lines: &str) -> Result<RequestHead, u16> {
        parse(&format!("PUT {PATH} HTTP/1.1\r\n{lines}\r\n"))
    }

    #[test]
    fn only_plain_paths_of_the_device_api_are_passed_on() {
        let check = |path: &str, status: Option<u16>| {
            assert_eq!(parse(&format!("GET {path} HTTP/1.1\r\n\r\n")).err(), status, "{path}");
        };
        for path in ["/api/devices/v1/a", "/api/devices/v2/a/?x=../%2e", "/api/devices/v1/x/a%20b..c"] {
            check(path, None);
        }
        for path in ["/", "/api/management/v1/x", "/api/devices", "http://other/api/devices/v1/x", "*"] {
            check(path, Some(404));
        }
        for path in [
            "/api/devices/../management/x",
            "/api/devices/v1/./x",
            "/api/devices/v1/..",
            "/api/devices/v1/%2E%2e/x",
            "/api/devices//v1/x",
            "/api/devices/v1/a%2fb",
            "/api/devices/v1/a%5Cb",
            "/api/devices/v1/%252e",
            "/api/devices/v1/..;/x",
            "/api/devices/v1/a\\b",
            "/api/devices/v1/a{b}",
            "/api/devices/v1/\u{e9}",
        ] {
            check(path, Some(400));
        }
        for path in ["v1/authentication/auth_requests", "v2/Authentication", "v1/authentication/"] {
            check(&format!("/api/devices/{path}"), Some(403));
        }
    }

    #[test]
    fn a_body_has_one_length() {
        assert_eq!(with("").unwrap().body, Body::NONE);
        assert_eq!(with("Content-Length: 12\r\n").unwrap().body, Body::Length(12));
        let chunked = with("Transfer-Encoding: Chunked\r\n").unwrap();
        assert_eq!(chunked.body, Body::Chunked(Chunks::default()));
        for lines in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: y\r\n Content-Length: 1\r\n",
        ] {
            assert_eq!(with(lines), Err(400), "{lines}");
        }
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let head = with(
            "Host: 127.0.0.1:5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\
             TE: trailers\r\nAuthorization: Bearer old\r\nExpect: 100-continue\r\nContent-Length: 3\r\nX-Kept: a b\r\n",
        );
        let head = head.unwrap();
        assert!(head.expects_continue && !head.upgrade);
        assert_eq!(
            String::from_utf8(head.forwarded("a.example:8", "/base", "new")).unwrap(),
            format!(
                "PUT /base{PATH} HTTP/1.1\r\nHost: a.example:8\r\nAuthorization: Bearer new\r\n\
                 Connection: close\r\nContent-Length: 3\r\nX-Kept: a b\r\n\r\n"
            )
        );
        // A client cannot hide the length of its body from the server.
        let head = with("Connection: content-length\r\nContent-Length: 3\r\n").unwrap();
        assert!(head.forwarded("a", "", "t").ends_with(b"Content-Length: 3\r\n\r\n"));
    }

    #[test]
    fn one_token_is_asked_for() {
        let shows = |lines: &str| with(lines).unwrap().shows("a.b.c");
        assert!(shows("Authorization: Bearer a.b.c\r\n") && shows("authorization: bearer  a.b.c \r\n"));
        for wrong in
            ["", "Authorization: a.b.c\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer \r\n"]
        {
            assert!(!shows(wrong), "{wrong}");
        }
        for wrong in ["a.b.", "a.b.cd", "a.b.d", "x"] {
            assert!(!shows(&format!("Authorization: Bearer {wrong}\r\n")), "{wrong}");
        }
        assert_eq!(with("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), Err(400));
    }

    #[test]
    fn a_websocket_is_opened_at_one_place_only() {
        let check = |line: &str, upgrade: &str, status: Option<u16>| {
            let text = format!("{line} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
            assert_eq!(parse(&text).err(), status, "{text}");
        };
        check("GET /api/devices/v1/deviceconnect/connect", "WebSocket", None);
        check("GET /api/devices/v1/deviceconnect/connect?x=1", "websocket", None);
        check("GET /api/devices/v1/deviceconnect/connect", "h2c", Some(403));
        check("GET /api/devices/v1/deviceconnect/other", "websocket", Some(403));
        check("POST /api/devices/v1/deviceconnect/connect", "websocket", Some(403));
        let text = "GET /api/devices/v1/deviceconnect/connect HTTP/1.1\r\nUpgrade: websocket\r\nX: y\r\n\r\n";
        let head = String::from_utf8(parse(text).unwrap().forwarded("a", "", "t")).unwrap();
        assert!(head.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n"), "{head}");
    }

    #[test]
    fn heads_are_bounded_and_what_is_no_http_is_refused_early() {
        let status = |bytes: &[u8]| RequestHead::parse(bytes).map(|parsed| parsed.is_some());
        assert_eq!(status(b"GET /api"), Ok(false));
        assert_eq!(status(b"\x16\x03\x01\x02\x00").unwrap_err().status, 400);
        let long = [b"GET /api/devices/v1/x HTTP/1.1\r\nX: ", &[b'a'; REQUEST_BYTES][..]].concat();
        assert_eq!(status(&long).unwrap_err().status, 431);
        let many = format!("GET {PATH} HTTP/1.1\r\n{}", "X: y\r\n".repeat(LINES + 1));
        assert_eq!(status(many.as_bytes()).unwrap_err().status, 431);
    }

    fn answer(text: &str, request: &RequestHead) -> Result<AnswerHead, Refusal> {
        Ok(AnswerHead::parse(text.as_bytes(), request)?.unwrap().0)
    }

    #[test]
    fn answers_end_where_the_standard_says() {
        let put = with("").unwrap();
        let get = |status: &str, lines: &str| answer(&format!("HTTP/1.1 {status}\r\n{lines}\r\n"), &put);
        assert_eq!(get("200 OK", "Content-Length: 5\r\n").unwrap().body, Body::Length(5));
        assert_eq!(get("200 OK", "").unwrap().body, Body::UntilEnd);
        assert_eq!(get("204 No Content", "").unwrap().body, Body::NONE);
        assert_eq!(get("100 Continue", "").unwrap().body, Body::NONE);
        assert_eq!(get("101 Switching Protocols", ""), Err(NO_ANSWER));
        assert_eq!(get("200 OK", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Err(NO_ANSWER));
        let head = parse(&format!("HEAD {PATH} HTTP/1.1\r\n\r\n")).unwrap();
        let answered =
            answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: 1\r\n\r\n", &head).unwrap();
        assert_eq!(answered.body, Body::NONE);
        let text = String::from_utf8(answered.bytes).unwrap();
        assert_eq!(text, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n");
    }
}
