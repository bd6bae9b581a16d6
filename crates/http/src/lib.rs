//! HTTP over this program's own connections: the transport of the device API, and the source of the command line.
//!
//! [`HttpTransport`] sends one request and hands on one answer. It follows no redirect and knows no credentials.

#![forbid(unsafe_code)]

mod certificate;
mod connection;
mod proxy;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
mod tls;

pub use certificate::Dates;
pub use connection::{ConnectError, Dialer, RawConnection, Reached};
pub use proxy::{ProxyError, ProxyRules};
pub use tls::TlsOptions;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client_core::clock::Clock;
use client_core::server::{Method, Purpose, Request, Response, Transport, TransportError};
use ureq::config::{AutoHeaderValue, ConfigBuilder};
use ureq::http;
use ureq::typestate::{AgentScope, HttpCrateScope};
use ureq::{Agent, Body};

use connection::{Interruption, NoResolver, SharedDialer};
use tls::Tls;

/// Longest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Connections that are kept: to the server, and to its storage.
const KEPT: usize = 2;
/// How long they are kept. The requests of one poll follow each other within seconds, and servers close after about
/// a minute by themselves.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Name, connection, proxy and encryption together.
    pub connect: Duration,
    /// The whole request, head and body each.
    pub send: Duration,
    /// From the end of the request to the end of the head of the answer.
    pub head: Duration,
    /// One silence of the server.
    pub read: Duration,
    /// The whole body of the answer.
    pub body: Option<Duration>,
}

impl Deadlines {
    /// A small question with a small answer.
    const API: Deadlines = Deadlines {
        connect: Duration::from_secs(30),
        send: Duration::from_secs(60),
        head: Duration::from_secs(60),
        read: Duration::from_secs(30),
        body: Some(Duration::from_secs(120)),
    };

    /// An artifact takes as long as it takes.
    const DOWNLOAD: Deadlines = Deadlines {
        connect: Duration::from_secs(30),
        send: Duration::from_secs(60),
        head: Duration::from_secs(60),
        read: Duration::from_secs(60),
        body: None,
    };
}

/// Why there is no client, or nothing to read from it.
pub enum HttpError {
    /// A file with certificates cannot be used.
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key for the server cannot be used, or does not belong to the certificate.
    ClientKey {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Encryption cannot be set up.
    Tls {
        /// Why not.
        reason: String,
    },
    /// The environment names a proxy that cannot be used.
    Proxy(ProxyError),
}

client_core::artifact::debug_as_displayed!(HttpError);

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Authorities { path, reason } => {
                write!(f, "cannot use the certificates in {path}: {reason}")
            }
            HttpError::ClientKey { path, reason } => {
                write!(f, "cannot use the key for the server, {path}: {reason}")
            }
            HttpError::Tls { reason } => write!(f, "cannot set up encryption: {reason}"),
            HttpError::Proxy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HttpError {}

/// It cannot be earlier than this, in seconds since 1970: this program was built then.
pub const BUILT: u64 = tls::BUILT;

/// When the certificates in the file `path` are good.
///
/// # Errors
/// When it cannot be read, or there is none in it.
pub fn certificate_dates(path: &str) -> Result<Vec<Dates>, HttpError> {
    tls::dates_in(path)
}

/// Sends the requests of the device API and of downloads.
pub struct HttpTransport {
    dialer: Arc<Dialer>,
    clock: Arc<dyn Clock>,
    agent: Arc<Mutex<Agent>>,
    api: Deadlines,
    download: Deadlines,
}

/// Closes the connections of a transport that nobody uses.
#[derive(Clone)]
pub struct IdleConnections {
    dialer: Arc<Dialer>,
    agent: Arc<Mutex<Agent>>,
}

impl IdleConnections {
    /// Closes them. What the next handshake can skip is still remembered.
    pub fn close(&self) {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = agent(&self.dialer);
    }
}

impl HttpTransport {
    /// Opens nothing yet, and reads no file before the first encrypted connection.
    pub fn new(tls: TlsOptions, proxies: ProxyRules, clock: Arc<dyn Clock>) -> HttpTransport {
        let dialer = Arc::new(Dialer::new(Tls::new(tls), proxies, Arc::clone(&clock)));
        let agent = Arc::new(Mutex::new(agent(&dialer)));
        HttpTransport { dialer, clock, agent, api: Deadlines::API, download: Deadlines::DOWNLOAD }
    }

    /// With another longest time for name, connection, proxy and encryption together.
    pub fn connecting_within(mut self, time: Duration) -> HttpTransport {
        (self.api.connect, self.download.connect) = (time, time);
        self
    }

    /// Reads the files that encrypted connections need, to report what is wrong with them early.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn check(&self) -> Result<(), HttpError> {
        self.dialer.tls().config().map(|_| ())
    }

    /// A transport with connections of its own; certificates and what handshakes can skip are shared.
    pub fn another(&self) -> HttpTransport {
        HttpTransport {
            dialer: Arc::clone(&self.dialer),
            clock: Arc::clone(&self.clock),
            agent: Arc::new(Mutex::new(agent(&self.dialer))),
            api: self.api,
            download: self.download,
        }
    }

    /// A handle to close idle connections with, before a long wait.
    pub fn idle_connections(&self) -> IdleConnections {
        IdleConnections { dialer: Arc::clone(&self.dialer), agent: Arc::clone(&self.agent) }
    }

    /// What opens its connections, for one without the HTTP client.
    pub fn dialer(&self) -> Arc<Dialer> {
        Arc::clone(&self.dialer)
    }

    fn send_once(&self, request: &Request<'_>) -> Result<http::Response<Body>, ureq::Error> {
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
        };
        let mut builder = http::Request::builder().method(method).uri(request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let deadlines = match request.purpose {
            Purpose::Api => self.api,
            Purpose::Download => self.download,
        };
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (request.method, request.body) {
            (Method::Get, _) => {
                agent.run(deadlines.apply(agent.configure_request(builder.body(())?)).build())
            }
            (Method::Post | Method::Put | Method::Patch, body) => {
                let body = body.unwrap_or_default();
                agent.run(deadlines.apply(agent.configure_request(builder.body(body)?)).build())
            }
        }
    }
}

impl Deadlines {
    fn apply<S: ureq::AsSendBody>(
        self,
        config: ConfigBuilder<HttpCrateScope<S>>,
    ) -> ConfigBuilder<HttpCrateScope<S>> {
        config
            .timeout_connect(Some(self.connect))
            .timeout_send_request(Some(self.send))
            .timeout_send_body(Some(self.send))
            .timeout_recv_response(Some(self.head))
            .timeout_recv_body(self.body)
            .timeout_per_read(Some(self.read))
            .timeout_per_write(Some(self.read))
    }
}

impl Transport for HttpTransport {
    fn send(&mut self, request: &Request<'_>) -> Result<Response, TransportError> {
        let mut kept_connections = KEPT;
        loop {
            if self.clock.stop_requested() {
                let reason = Interruption::Stopped.to_string();
                return Err(TransportError { may_pass: true, reason });
            }
            match self.send_once(request) {
                Ok(response) => return Ok(answer(response)),
                // The server closed it while it was kept. Every request of a device may be repeated.
                Err(ureq::Error::Io(error))
                    if Interruption::of(&error) == Some(Interruption::Stale) && kept_connections > 0 =>
                {
                    kept_connections -= 1;
                }
                Err(error) => return Err(transport_error(error)),
            }
        }
    }
}

fn answer(response: http::Response<Body>) -> Response {
    let (head, body) = response.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Response {
        status: head.status.as_u16(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        body: Box::new(body.into_reader()),
    }
}

// Not our enum: a new kind of error is one that may pass.
#[allow(clippy::wildcard_enum_match_arm)]
fn transport_error(error: ureq::Error) -> TransportError {
    let may_pass = |reason| TransportError { may_pass: true, reason };
    match error {
        ureq::Error::Io(error) => {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectError>()) {
                Some(failed) => TransportError { may_pass: failed.may_pass, reason: failed.reason.clone() },
                None => may_pass(error.to_string()),
            }
        }
        // These would print the address, which may hold a secret.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            TransportError { may_pass: false, reason: "the address or a header is not valid".into() }
        }
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            may_pass("cannot connect in time".into())
        }
        ureq::Error::Timeout(_) => may_pass("the server does not answer in time".into()),
        other => may_pass(other.to_string()),
    }
}

/// What every client of this program has in common.
fn settings() -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_response_header_size(HEAD_BYTES)
        .max_idle_connections(KEPT)
        .max_idle_connections_per_host(1)
        .max_idle_age(KEPT_FOR)
        // Proxies are the business of the dialer.
        .proxy(None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .user_agent(concat!("rust-ota/", env!("CARGO_PKG_VERSION")))
}

/// A client that hands on what it gets.
fn agent(dialer: &Arc<Dialer>) -> Agent {
    let config = settings().max_redirects(0).max_redirects_will_error(false).build();
    Agent::with_parts(config, SharedDialer(Arc::clone(dialer)), NoResolver)
}
