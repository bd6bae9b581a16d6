//! One exchange with a server's API: a request out, a bounded answer in. Follows the redirects that may be followed,
//! knows nothing of tokens and endpoints.

use std::time::Duration;

use super::{
    Headers, Method, Purpose, Request, Response, ServerError, Transport, TransportError, retry_after, url,
};
use crate::clock::Clock;
use crate::text::printable;

/// Longest answer that is read.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How much of an explanation of an error is read.
const EXPLANATION_BYTES_MAX: usize = 16 * 1024;
/// Redirects that are followed.
pub(super) const REDIRECTS_MAX: usize = 5;
/// Longest time for the body of an answer: a server that dribbles is as good as one that is silent.
const BODY_TIME: Duration = Duration::from_secs(120);
/// Characters of a server's message that are shown.
const MESSAGE_CHARS: usize = 200;

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The address that answered, as it may be shown.
    pub url: String,
    /// The status code.
    pub status: u16,
    /// The body, bounded.
    pub body: Vec<u8>,
    /// What the server says, as it came: see [`Answer::show_without`].
    said: String,
    retry_after: Option<Duration>,
}

/// Sends a request and reads the answer.
///
/// # Errors
/// When there is no answer, or none that can be read; a status that says so is an answer.
pub fn exchange(
    transport: &mut dyn Transport,
    clock: &dyn Clock,
    method: Method,
    target: &str,
    headers: &Headers,
    body: Option<&[u8]>,
) -> Result<Answer, ServerError> {
    let mut target = target.to_owned();
    let mut redirects = 0;
    loop {
        if clock.stop_requested() {
            return Err(ServerError::Stopped);
        }
        let request = Request { method, url: &target, headers: headers.clone(), body, purpose: Purpose::Api };
        let response = transport.send(&request).map_err(|error| no_answer(clock, &target, error))?;
        if !is_redirect(response.status) {
            return read(clock, &target, response);
        }
        // RFC 9110, 15.4: with 301, 302 and 303 a client may turn the request into a GET without its body. That is not
        // what was asked.
        let repeatable = method == Method::Get || matches!(response.status, 307 | 308);
        let next = response.header("location").and_then(|location| url::resolve(&target, location));
        let next = next.filter(|next| repeatable && url::same_place(&target, next));
        let message = match next {
            Some(next) if redirects < REDIRECTS_MAX => {
                redirects += 1;
                target = next;
                continue;
            }
            Some(_) => "too many redirects",
            None => "redirected elsewhere (a captive portal?)",
        };
        let (url, message) = (url::shown(&target), message.to_owned());
        return Err(ServerError::Status { url, status: response.status, message, retry_after: None });
    }
}

/// Whether the answer only says where else to ask.
pub(super) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// What having no answer means. An address in the reason is shown without its secrets.
pub(super) fn no_answer(clock: &dyn Clock, target: &str, mut error: TransportError) -> ServerError {
    if clock.stop_requested() {
        return ServerError::Stopped;
    }
    let shown = url::shown(target);
    error.reason = error.reason.replace(target, &shown);
    ServerError::Transport { url: shown, source: error }
}

fn read(clock: &dyn Clock, target: &str, response: Response) -> Result<Answer, ServerError> {
    let shown = url::shown(target);
    let malformed = |reason: String| ServerError::Malformed { url: shown.clone(), reason };
    let status = response.status;
    let good = (200..300).contains(&status);
    if let Some(coding) = foreign_coding(&response) {
        return Err(malformed(format!("content encoding {}, which was not asked for", shortened(coding))));
    }
    let asked_for = matches!(status, 429 | 503);
    let retry_after = response.header("retry-after").filter(|_| asked_for);
    let retry_after = retry_after.and_then(|text| retry_after::parse(text, clock.wall()));
    let mut reader = response.body;
    let mut body = Vec::new();
    let mut chunk = [0; 4096];
    let begun = clock.now();
    loop {
        if clock.stop_requested() {
            return Err(ServerError::Stopped);
        }
        let failure = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                body.extend_from_slice(&chunk[..count]);
                if !good && body.len() > EXPLANATION_BYTES_MAX {
                    break;
                }
                if body.len() > ANSWER_BYTES_MAX {
                    return Err(malformed(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
                }
                if clock.now().saturating_sub(begun) < BODY_TIME {
                    continue;
                }
                "the answer takes too long".to_owned()
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => error.to_string(),
        };
        // What is wrong is known from the status; its explanation may be cut.
        if !good {
            break;
        }
        let error = TransportError { may_pass: true, reason: failure };
        return Err(no_answer(clock, target, error));
    }
    Ok(Answer::new(shown, status, body, retry_after))
}

/// A content encoding that nobody asked for.
pub(super) fn foreign_coding(response: &Response) -> Option<&str> {
    let coding = response.header("content-encoding")?.trim();
    let identity = coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    (!identity).then_some(coding)
}

impl Answer {
    /// An answer as it came.
    pub fn new(url: String, status: u16, body: Vec<u8>, retry_after: Option<Duration>) -> Answer {
        let mut answer = Answer { url, status, body, said: String::new(), retry_after };
        answer.said = match status {
            // Nobody explains success.
            200..300 => String::new(),
            _ if answer.is_web_page() => "a web page (a captive portal?)".to_owned(),
            _ => explanation(&answer.body),
        };
        answer
    }

    /// The answer as the error it is for its call.
    pub fn into_error(self) -> ServerError {
        ServerError::Status {
            url: self.url,
            status: self.status,
            message: self.said,
            retry_after: self.retry_after,
        }
    }

    /// A good status with a body that is not what was asked for.
    pub fn malformed(&self, reason: impl Into<String>) -> ServerError {
        ServerError::Malformed { url: self.url.clone(), reason: reason.into() }
    }

    /// Whether this is a page for people: no device API answers with one, but what lies between does.
    pub fn is_web_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// Refuses a page for people: without this a captive portal would take a report, or abort a deployment.
    ///
    /// # Errors
    /// When it is one.
    pub fn unless_web_page(self) -> Result<Answer, ServerError> {
        if self.is_web_page() {
            return Err(self.malformed(format!("status {} with a web page (a captive portal?)", self.status)));
        }
        Ok(self)
    }

    /// Whether the service itself says why: a JSON object with an `error` (docs/spec/server-protocol.md, "Rules for every request").
    pub fn explains_itself(&self) -> bool {
        let body: Result<serde_json::Value, _> = serde_json::from_slice(&self.body);
        body.is_ok_and(|body| body.get("error").is_some())
    }

    /// What the server says, for people.
    pub fn message(&self) -> &str {
        &self.said
    }

    /// Makes what is shown of this answer presentable. `hide` takes secrets out: a server can say them back. First it,
    /// then the shortening, which could leave a part of a secret.
    pub fn show_without(&mut self, hide: impl Fn(&str) -> String) {
        self.url = hide(&self.url);
        self.said = shortened(&hide(&self.said));
    }
}

/// `{"error":"..."}`, or the text as it is.
fn explanation(body: &[u8]) -> String {
    if body.is_empty() {
        return "no explanation".to_owned();
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error")?.as_str());
    error.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

/// Text from outside, shortened and on one line.
pub(super) fn shortened(text: &str) -> String {
    // A page of HTML has line ends: as blanks they are easier to read.
    let one_line = |c: char| if c.is_whitespace() { ' ' } else { c };
    let start: String = text.trim().chars().take(MESSAGE_CHARS).map(one_line).collect();
    let mut shown = printable(&start).into_owned();
    if text.trim().chars().nth(MESSAGE_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_stays_on_its_line_and_acts_on_nothing() {
        let check =
            |said: &str, expected: &str| assert_eq!(shortened(&explanation(said.as_bytes())), expected);
        check("<p>\r\nno\tsuch</p>\n", "<p>  no such</p>");
        check("\u{1b}[2J\u{9b}31m\u{202e}x\u{7}", "\\u{1b}[2J\\u{9b}31m\\u{202e}x\\u{7}");
        check("{\"error\":\"\\u001b[2J\\u202ex\"}", "\\u{1b}[2J\\u{202e}x");
        assert_eq!(shortened(&"\u{1b}".repeat(1000)).matches("\\u{1b}").count(), MESSAGE_CHARS);
    }
}
