//! An artifact from a web server as a reader that survives a broken connection.
//!
//! When the connection breaks or stalls, the next request asks for the rest (`Range`, guarded by `If-Range` where the
//! server gave a validator), and the bytes go on where they stopped: nothing is transferred twice. Waits grow with
//! every attempt without progress, and progress resets them. Whether the bytes are the right ones is not decided here
//! but by the signature.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use linux::waiter::LinuxClock;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body, BodyReader};

use super::connection::{Dialer, NoResolver, SharedDialer};
use super::proxy::ProxyRules;
use super::tls::{Tls, TlsOptions};
use super::{HttpError, may_pass, settings, shown};

/// Longest silence of the server on an open connection.
const STALL: Duration = Duration::from_secs(60);
/// Longest time to reach the server.
const CONNECT: Duration = Duration::from_secs(30);
/// Redirects that are followed.
const REDIRECTS: u32 = 5;
/// Attempts in a row that bring no byte, after which the transfer is given up.
const ATTEMPTS: u32 = 10;
/// Wait after the first such attempt; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How to reach a server.
pub type HttpOptions = TlsOptions;

/// An artifact being transferred.
pub struct HttpSource {
    agent: Agent,
    url: String,
    body: Option<BodyReader<'static>>,
    /// Bytes handed on so far.
    offset: u64,
    /// Length of the whole, where the server told it.
    total: Option<u64>,
    /// Strong validator of what is being transferred.
    validator: Option<String>,
    /// Attempts in a row without a byte.
    fruitless: u32,
    first_wait: Duration,
}

/// What an answer to a request for the rest means.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The body begins at the wanted byte.
    Rest,
    /// The body begins at byte 0: skip what is here already.
    Whole,
    /// There is no rest: everything is here already.
    Complete,
    /// Trying again may help.
    TryAgain(String),
    /// It will not.
    Refused(String),
}

impl HttpSource {
    /// Asks for `url`; returns when the server has begun to answer.
    ///
    /// # Errors
    /// When the server refuses or cannot be reached.
    pub fn open(url: &str, options: &HttpOptions) -> Result<HttpSource, HttpError> {
        HttpSource::with_wait(url, options, FIRST_WAIT)
    }

    fn with_wait(url: &str, options: &HttpOptions, first_wait: Duration) -> Result<HttpSource, HttpError> {
        let agent = agent(url, options)?;
        let mut source = HttpSource {
            agent,
            url: url.to_owned(),
            body: None,
            offset: 0,
            total: None,
            validator: None,
            fruitless: 0,
            first_wait,
        };
        loop {
            match source.connect() {
                Ok(()) => return Ok(source),
                Err(Failure::Status(status)) => return Err(HttpError::Status { url: shown(url), status }),
                Err(Failure::Refused(reason)) => {
                    return Err(HttpError::Unreachable { url: shown(url), reason });
                }
                Err(Failure::TryAgain(reason)) => {
                    source.wait(&reason).map_err(|_| HttpError::Unreachable { url: shown(url), reason })?;
                }
            }
        }
    }

    fn connect(&mut self) -> Result<(), Failure> {
        let mut request = self.agent.get(&self.url).header(header::ACCEPT_ENCODING, "identity");
        if self.offset > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", self.offset));
            if let Some(validator) = &self.validator {
                request = request.header(header::IF_RANGE, validator.as_str());
            }
        }
        let response = request.call().map_err(|error| {
            let reason = error.to_string();
            if may_pass(&error) { Failure::TryAgain(reason) } else { Failure::Refused(reason) }
        })?;
        if self.offset == 0 {
            return self.begin(response);
        }
        match judge(&response, self.offset, self.total, self.validator.as_deref()) {
            Answer::Rest => {
                self.body = Some(response.into_body().into_reader());
                Ok(())
            }
            Answer::Whole => {
                let mut body = response.into_body().into_reader();
                log::warn!("the server sends everything again: skipping {} bytes", self.offset);
                let skipped = io::copy(&mut body.by_ref().take(self.offset), &mut io::sink())
                    .map_err(|error| Failure::TryAgain(error.to_string()))?;
                if skipped < self.offset {
                    return Err(Failure::TryAgain("the answer is shorter than what is here already".into()));
                }
                self.body = Some(body);
                Ok(())
            }
            Answer::Complete => {
                self.total = Some(self.offset);
                self.body = Some(response.into_body().into_with_config().limit(0).reader());
                Ok(())
            }
            Answer::TryAgain(reason) => Err(Failure::TryAgain(reason)),
            Answer::Refused(reason) => Err(Failure::Refused(reason)),
        }
    }

    fn begin(&mut self, response: Response<Body>) -> Result<(), Failure> {
        let status = response.status();
        if status != StatusCode::OK {
            let transient = status.is_server_error()
                || status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT;
            return Err(if transient {
                Failure::TryAgain(format!("the server answered {status}"))
            } else {
                Failure::Status(status)
            });
        }
        self.validator = strong_validator(&response);
        self.total = response.body().content_length();
        self.body = Some(response.into_body().into_reader());
        Ok(())
    }

    /// Waits before the next attempt, or gives up.
    fn wait(&mut self, reason: &str) -> io::Result<()> {
        self.body = None;
        self.fruitless += 1;
        if self.fruitless >= ATTEMPTS {
            return Err(io::Error::other(format!("giving up after {ATTEMPTS} attempts: {reason}")));
        }
        let wait = self.first_wait.saturating_mul(1 << (self.fruitless - 1)).min(LONGEST_WAIT);
        log::warn!(
            "transfer interrupted at byte {}: {reason}; going on in {:.0?}, attempt {} of {ATTEMPTS}",
            self.offset,
            wait,
            self.fruitless + 1
        );
        thread::sleep(wait);
        Ok(())
    }
}

impl Read for HttpSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(body) = &mut self.body else {
                match self.connect() {
                    Ok(()) => continue,
                    Err(Failure::TryAgain(reason)) => self.wait(&reason)?,
                    Err(Failure::Refused(reason)) => return Err(io::Error::other(reason)),
                    Err(Failure::Status(status)) => {
                        return Err(io::Error::other(format!("the server answered {status}")));
                    }
                }
                continue;
            };
            let reason = match body.read(buffer) {
                Ok(0) if self.total.is_none_or(|total| self.offset >= total) => return Ok(0),
                Ok(0) => "the connection ended too early".to_owned(),
                Ok(count) => {
                    self.offset += count as u64;
                    self.fruitless = 0;
                    return Ok(count);
                }
                Err(error) => error.to_string(),
            };
            self.wait(&reason)?;
        }
    }
}

/// Why an attempt brought nothing.
enum Failure {
    TryAgain(String),
    Refused(String),
    Status(StatusCode),
}

/// What the answer to a request for the bytes from `offset` on means (RFC 9110, sections 14 and 15).
fn judge(response: &Response<Body>, offset: u64, total: Option<u64>, validator: Option<&str>) -> Answer {
    let status = response.status();
    let changed = || Answer::Refused("what the server offers changed during the transfer".into());
    let same = validator.is_none_or(|old| strong_validator(response).is_none_or(|new| new == old));
    if status == StatusCode::PARTIAL_CONTENT {
        let text = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        return match text.and_then(content_range) {
            Some((_, whole)) if whole.is_some() && total.is_some() && whole != total => changed(),
            _ if !same => changed(),
            Some((start, _)) if start == offset => Answer::Rest,
            Some((start, _)) => Answer::TryAgain(format!("the server sent byte {start}, asked was {offset}")),
            None => Answer::TryAgain("a partial answer without a usable Content-Range".into()),
        };
    }
    if status == StatusCode::OK {
        let length = response.body().content_length();
        if !same || length.is_some() && total.is_some() && length != total {
            return changed();
        }
        return Answer::Whole;
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        // `bytes */N` tells the length: with N bytes here, only the end of the transfer was lost (RFC 9110, 15.5.17).
        let text = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let whole = text.and_then(|text| text.trim().strip_prefix("bytes */")?.parse().ok());
        return if total.is_none() && whole == Some(offset) { Answer::Complete } else { changed() };
    }
    if status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
    {
        return Answer::TryAgain(format!("the server answered {status}"));
    }
    Answer::Refused(format!("the server answered {status}"))
}

/// Start and whole length of `bytes 5-9/10`; the length may be `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, whole) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    let whole = if whole == "*" { None } else { Some(whole.parse().ok()?) };
    (start <= end && whole.is_none_or(|whole| end < whole)).then_some((start, whole))
}

/// A validator that guarantees the same bytes: a strong entity tag.
fn strong_validator(response: &Response<Body>) -> Option<String> {
    let tag = response.headers().get(header::ETAG)?.to_str().ok()?;
    (!tag.starts_with("W/")).then(|| tag.to_owned())
}

fn agent(url: &str, options: &HttpOptions) -> Result<Agent, HttpError> {
    let https = url.starts_with("https://");
    let config = settings()
        // From https never to http.
        .https_only(https)
        .max_redirects(REDIRECTS)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(STALL))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL))
        .build();
    let proxies = ProxyRules::from_environment(|name| std::env::var(name).ok()).map_err(HttpError::Proxy)?;
    let tls = Tls::new(options.clone());
    if https {
        tls.config()?;
    }
    let dialer = Dialer::new(tls, proxies, Arc::new(LinuxClock::new()));
    Ok(Agent::with_parts(config, SharedDialer(Arc::new(dialer)), NoResolver))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// A server that gives each connection the next of `answers` and reports the request heads.
    fn serve(answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a?secret=1", listener.local_addr().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                sender.send(head.to_ascii_lowercase()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        (url, receiver)
    }

    fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n{body}").into_bytes()
    }

    fn fetch(url: &str) -> Result<String, String> {
        let mut source = HttpSource::with_wait(url, &HttpOptions::default(), Duration::ZERO)
            .map_err(|error| error.to_string())?;
        let mut text = String::new();
        source.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    #[test]
    fn a_broken_transfer_goes_on_at_the_exact_byte() {
        let (url, requests) = serve(vec![
            answer("200 OK", "Content-Length: 10\r\nETag: \"v1\"\r\n", "0123"),
            answer("503 Service Unavailable", "Content-Length: 0\r\n", ""),
            answer("206 Partial Content", "Content-Length: 6\r\nContent-Range: bytes 4-9/10\r\n", "45"),
            answer("206 Partial Content", "Content-Length: 4\r\nContent-Range: bytes 6-9/10\r\n", "6789"),
        ]);
        assert_eq!(fetch(&url).unwrap(), "0123456789");
        let requests: Vec<String> = requests.iter().collect();
        assert!(!requests[0].contains("range:"));
        assert!(requests[2].contains("range: bytes=4-") && requests[2].contains("if-range: \"v1\""));
        assert!(requests[3].contains("range: bytes=6-"));
    }

    #[test]
    fn a_server_that_sends_everything_again_is_skipped_through() {
        let (url, _requests) = serve(vec![
            answer("200 OK", "Content-Length: 10\r\n", "0123"),
            answer("200 OK", "Content-Length: 10\r\n", "0123456789"),
        ]);
        assert_eq!(fetch(&url).unwrap(), "0123456789");
    }

    #[test]
    fn content_that_changed_is_refused() {
        let check = |second: Vec<u8>| {
            let first = answer("200 OK", "Content-Length: 10\r\nETag: \"v1\"\r\n", "0123");
            let (url, _requests) = serve(vec![first, second]);
            let error = fetch(&url).unwrap_err();
            assert!(error.contains("changed during the transfer"), "{error}");
        };
        check(answer("200 OK", "Content-Length: 10\r\nETag: \"v2\"\r\n", "abcdefghij"));
        check(answer("200 OK", "Content-Length: 11\r\n", "abcdefghijk"));
        check(answer(
            "206 Partial Content",
            "Content-Length: 7\r\nContent-Range: bytes 4-10/11\r\n",
            "4567890",
        ));
        check(answer("416 Range Not Satisfiable", "Content-Length: 0\r\n", ""));
    }

    #[test]
    fn a_refusal_names_the_status_and_not_the_secret() {
        let (url, _requests) = serve(vec![answer("404 Not Found", "Content-Length: 0\r\n", "")]);
        let error = fetch(&url).unwrap_err();
        assert!(error.contains("404 Not Found") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_transfer_without_progress_is_given_up() {
        let mut answers = vec![answer("200 OK", "Content-Length: 10\r\n", "0123")];
        answers.resize(ATTEMPTS as usize, answer("500 Internal Server Error", "Content-Length: 0\r\n", ""));
        let (url, requests) = serve(answers);
        let error = fetch(&url).unwrap_err();
        assert!(error.contains("giving up after 10 attempts"), "{error}");
        assert_eq!(requests.iter().count(), ATTEMPTS as usize);
    }

    #[test]
    fn a_transfer_whose_end_was_lost_is_complete_when_the_server_says_so() {
        let (url, _requests) = serve(vec![
            answer("200 OK", "Transfer-Encoding: chunked\r\n", "4\r\n0123\r\n"),
            answer("416 Range Not Satisfiable", "Content-Length: 0\r\nContent-Range: bytes */4\r\n", ""),
        ]);
        assert_eq!(fetch(&url).unwrap(), "0123");
    }

    #[test]
    fn a_plain_address_may_lead_to_an_encrypted_one() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let redirect = format!("Content-Length: 0\r\nLocation: https://{unused}/\r\n");
        let (url, _requests) = serve(vec![answer("301 Moved Permanently", &redirect, ""); 10]);
        // Nobody listens there; what matters is that it is an error and not a panic.
        assert!(fetch(&url).unwrap_err().contains("cannot get"));
    }

    #[test]
    fn a_content_range_must_make_sense() {
        let check = |text, expected| assert_eq!(content_range(text), expected, "{text}");
        check("bytes 5-9/10", Some((5, Some(10))));
        check("bytes 5-9/*", Some((5, None)));
        check("bytes 9-5/10", None);
        check("bytes 5-10/10", None);
        check("bytes -5/10", None);
        check("items 5-9/10", None);
        check("bytes 18446744073709551616-9/10", None);
    }
}
