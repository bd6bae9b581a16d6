//! The management API from the other side, blocking, for the command line, the demo and tests.

pub(crate) mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Cursor, ErrorKind, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, HandshakeError};
use ureq::config::Config;
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, Body, SendBody, http};

pub use tls::TlsError;
use tls::{Encrypt, Stream, Trust};

/// Between the parts of an upload. An artifact is a tar archive of text and compressed data; a boundary of 128 random
/// bits written once does not come up in it.
const BOUNDARY: &str = "rust-ota-6c1f0bb2a94e4d0f8a37e5d1c04b9f26";
/// How long the server may take to open a WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// What a connected device is asked through.
const DEVICECONNECT: &str = "/api/management/v1/deviceconnect/devices";
/// Most bytes of an answer.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Why a question got no answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The server was not reached, or the connection broke.
    Transport(Box<ureq::Error>),
    /// The server refused.
    Status {
        /// Its status.
        status: u16,
        /// Its words.
        error: String,
    },
    /// The answer was not understood.
    Answer {
        /// What was expected.
        expected: &'static str,
    },
    /// A file could not be read.
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A WebSocket could not be encrypted.
    Tls(TlsError),
    /// A WebSocket was not made, or it broke.
    WebSocket(Box<tungstenite::Error>),
    /// The server has closed a WebSocket.
    Closed {
        /// The number of the reason (RFC 6455, section 7.4).
        code: u16,
        /// Its words.
        reason: String,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Transport(error) => {
                // One of ours, which says all there is to say.
                if let ureq::Error::Other(own) = &**error { own.fmt(f) } else { error.fmt(f) }
            }
            ClientError::Status { status, error } => write!(f, "the server answered {status}: {error}"),
            ClientError::Answer { expected } => write!(f, "the server's answer is not {expected}"),
            ClientError::File { path, source } => write!(f, "{}: {source}", path.display()),
            ClientError::Tls(error) => error.fmt(f),
            ClientError::WebSocket(error) => write!(f, "the WebSocket: {error}"),
            ClientError::Closed { code, reason } => write!(f, "the server closed with {code}: {reason}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// A device as the server knows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its id.
    pub id: String,
    /// What names it.
    pub identity_data: Value,
    /// `pending`, `accepted`, `rejected`, `preauthorized` or `noauth`.
    pub status: String,
    /// Its keys.
    pub auth_sets: Vec<AuthSetInfo>,
    /// When it was last heard of.
    #[serde(default)]
    pub check_in_time: Option<String>,
}

/// One key of a device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct AuthSetInfo {
    /// Its id.
    pub id: String,
    /// The key as PEM.
    pub pubkey: String,
    /// Its status.
    pub status: String,
    /// Since when it is known.
    #[serde(default)]
    pub ts: String,
    /// What only this server says of it.
    #[serde(default)]
    pub rust_ota: AuthSetMore,
}

/// What only this server says of a key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct AuthSetMore {
    /// By what a person knows the key: what `openssl pkey -pubout -outform DER | sha256sum` says on the device.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// How far a device is with a deployment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct DeviceDeploymentInfo {
    /// The device.
    pub id: String,
    /// Its status.
    pub status: String,
    /// What it adds to that.
    #[serde(default)]
    pub substate: Option<String>,
    /// The type that the device said it is of, once it has asked.
    #[serde(default)]
    pub device_type: Option<String>,
    /// Whether there is a log.
    #[serde(default)]
    pub log: bool,
    /// When it was done.
    #[serde(default)]
    pub finished: Option<String>,
}

/// A WebSocket with whole frames of `mender-connect`, which are not looked at here. Also what a device opens: the
/// path and the token make the difference.
pub struct FrameStream {
    socket: tungstenite::WebSocket<Stream>,
}

impl fmt::Debug for FrameStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameStream").finish_non_exhaustive()
    }
}

impl FrameStream {
    /// Opens one at `path` of the server at `url` with a bearer token.
    ///
    /// # Errors
    /// Why it did not open.
    pub fn open(url: &str, path: &str, token: &str) -> Result<FrameStream, ClientError> {
        FrameStream::open_trusting(&Trust::default(), url, path, token)
    }

    fn open_trusting(trust: &Trust, url: &str, path: &str, token: &str) -> Result<FrameStream, ClientError> {
        let (is_secure, address) = match url.strip_prefix("https://") {
            Some(address) => (true, address),
            None => (false, url.strip_prefix("http://").unwrap_or(url)),
        };
        let address = address.trim_end_matches('/');
        let io = |error| ClientError::WebSocket(Box::new(tungstenite::Error::Io(error)));
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let stream = match has_port {
            true => TcpStream::connect(address),
            false => TcpStream::connect((address, if is_secure { 443 } else { 80 })),
        };
        let stream = stream.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(HANDSHAKE)).map_err(io)?;
        let stream = if is_secure {
            let name =
                if has_port { address.rsplit_once(':').map_or(address, |(name, _)| name) } else { address };
            Stream::encrypted(trust, name, stream).map_err(ClientError::Tls)?
        } else {
            Stream::plain(stream)
        };
        // The stream is encrypted already; to the library both are `ws`.
        let request = format!("ws://{address}{path}").into_client_request();
        let mut request = request.map_err(|error| ClientError::WebSocket(Box::new(error)))?;
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| ClientError::Answer { expected: "for a token like this" })?;
        request.headers_mut().insert("authorization", bearer);
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(FrameStream { socket }),
            Err(HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let body = answer.body().clone().unwrap_or_default();
                let words: Value = serde_json::from_slice(&body).unwrap_or_default();
                let error = words["error"].as_str().unwrap_or_default().to_owned();
                Err(ClientError::Status { status: answer.status().as_u16(), error })
            }
            Err(HandshakeError::Failure(error)) => Err(ClientError::WebSocket(Box::new(error))),
            Err(HandshakeError::Interrupted(_)) => Err(io(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// Why it did not go.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), ClientError> {
        let frame = tungstenite::Message::binary(frame.to_vec());
        self.socket.send(frame).map_err(|error| ClientError::WebSocket(Box::new(error)))
    }

    /// The next frame, as soon as there is one within `patience`. Pings are answered meanwhile.
    ///
    /// # Errors
    /// How the connection ended.
    pub fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, ClientError> {
        use tungstenite::{Error, Message};
        let broken = |error| ClientError::WebSocket(Box::new(error));
        let deadline = Instant::now() + patience;
        loop {
            // A timeout of nothing would be none at all.
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.socket.get_ref().set_read_timeout(left).map_err(|error| broken(Error::Io(error)))?;
            match self.socket.read() {
                Ok(Message::Binary(frame)) => return Ok(Some(frame.to_vec())),
                Ok(Message::Close(close)) => {
                    // The answer to it; who has closed need not hear it any more.
                    let _ = self.socket.flush();
                    let (code, reason) = close
                        .map_or((1005, String::new()), |close| (close.code.into(), close.reason.to_string()));
                    return Err(ClientError::Closed { code, reason });
                }
                Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(error))
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(broken(error)),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

/// An HTTP client that finds addresses in its own way, and trusts the authorities of this file or those of the system.
pub(crate) fn agent_that_resolves(
    authorities: Option<&Path>,
    config: Config,
    resolver: impl Resolver,
) -> Agent {
    let connector = ().chain(TcpConnector::default()).chain(Encrypt(Trust::new(authorities)));
    Agent::with_parts(config, connector, resolver)
}

/// Asks one server.
#[derive(Debug, Clone)]
pub struct Management {
    url: String,
    token: String,
    agent: Agent,
    trust: Trust,
}

impl Management {
    /// The server at `url`, opened by `token`.
    pub fn new(url: &str, token: &str) -> Management {
        Management::with_authority(url, token, None)
    }

    /// The same, over `https` with a server whose certificate is in the file `authority` (PEM), or is of an authority in
    /// it. Without a file the authorities of the system are trusted.
    pub fn with_authority(url: &str, token: &str, authority: Option<&Path>) -> Management {
        let trust = Trust::new(authority);
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(Encrypt(trust.clone()));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .build();
        Management {
            url: url.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
            agent: Agent::with_parts(config, connector, DefaultResolver::default()),
            trust,
        }
    }

    /// Every device.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>, ClientError> {
        self.pages("/api/management/v2/devauth/devices")
    }

    /// One device.
    ///
    /// # Errors
    /// Why there is no answer: 404 when there is no such device.
    pub fn device(&self, id: &str) -> Result<DeviceInfo, ClientError> {
        self.parsed("GET", &format!("/api/management/v2/devauth/devices/{id}"), None)
    }

    /// Accepts the device `id`: its newest key that waits. Where none waits and none is accepted or to be accepted when it
    /// comes, the newest one that was rejected. A key that was rejected never takes the place of one that is accepted this way.
    ///
    /// # Errors
    /// Why it was not.
    pub fn accept(&self, id: &str) -> Result<(), ClientError> {
        let device = self.device(id)?;
        let newest = |status: &str| device.auth_sets.iter().rev().find(|set| set.status == status);
        if let Some(waiting) = newest("pending") {
            return self.set_key_status(id, &waiting.id, "accepted");
        }
        if newest("accepted").or(newest("preauthorized")).is_some() {
            return Ok(());
        }
        match newest("rejected") {
            Some(rejected) => self.set_key_status(id, &rejected.id, "accepted"),
            None => Err(ClientError::Answer { expected: "a device with a key: it has to ask first" }),
        }
    }

    /// Rejects the device `id`: all its keys.
    ///
    /// # Errors
    /// Why it was not.
    pub fn reject(&self, id: &str) -> Result<(), ClientError> {
        let device = self.device(id)?;
        let others =
            device.auth_sets.iter().filter(|set| set.status == "accepted" || set.status == "pending");
        for set in others.rev() {
            self.set_key_status(id, &set.id, "rejected")?;
        }
        Ok(())
    }

    /// Decides about one key of a device: `accepted`, `rejected` or `pending`. What was accepted before is not any more.
    ///
    /// # Errors
    /// Why it was not done: 422 when a key cannot become that.
    pub fn set_key_status(&self, device: &str, key: &str, status: &str) -> Result<(), ClientError> {
        let path = format!("/api/management/v2/devauth/devices/{device}/auth/{key}/status");
        self.call("PUT", &path, Some(json!({ "status": status }))).map(drop)
    }

    /// Forgets a device.
    ///
    /// # Errors
    /// Why it was not.
    pub fn decommission(&self, id: &str) -> Result<(), ClientError> {
        self.call("DELETE", &format!("/api/management/v2/devauth/devices/{id}"), None).map(drop)
    }

    /// Accepts a device before it is heard of, and gives its id.
    ///
    /// # Errors
    /// Why it was not.
    pub fn preauthorize(&self, identity: &Value, pubkey: &str) -> Result<String, ClientError> {
        let body = json!({ "identity_data": identity, "pubkey": pubkey });
        self.created("POST", "/api/management/v2/devauth/devices", body)
    }

    /// Uploads an artifact, and gives its id.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn upload_artifact(&self, path: &Path) -> Result<String, ClientError> {
        self.upload_described(path, "")
    }

    /// Uploads an artifact with a description, and gives its id.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn upload_described(&self, path: &Path, description: &str) -> Result<String, ClientError> {
        let unread = |source| ClientError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(unread)?;
        let known = file.metadata().map_err(unread)?;
        if !known.is_file() {
            return Err(unread(std::io::Error::other("not a file")));
        }
        let size = known.len();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"description\"\r\n\r\n{description}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"artifact\"; filename=\"artifact.mender\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        let length = head.len() as u64 + size + tail.len() as u64;
        let body = Cursor::new(head).chain(file.take(size)).chain(Cursor::new(tail));
        let request = self
            .request("POST", "/api/management/v1/deployments/artifacts")
            .header("Content-Type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .header("Content-Length", length.to_string());
        let request = request.body(SendBody::from_owned_reader(body));
        location(&self.answer(self.agent.run(request.map_err(broken)?))?)
    }

    /// Every artifact, as the server describes it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn artifacts(&self) -> Result<Vec<Value>, ClientError> {
        self.pages("/api/management/v1/deployments/artifacts/list")
    }

    /// Deletes an artifact.
    ///
    /// # Errors
    /// Why it was not.
    pub fn delete_artifact(&self, id: &str) -> Result<(), ClientError> {
        self.call("DELETE", &format!("/api/management/v1/deployments/artifacts/{id}"), None).map(drop)
    }

    /// Makes a deployment for these devices, or for all when there are none, and gives its id.
    ///
    /// # Errors
    /// Why it was not made.
    pub fn deploy(&self, name: &str, artifact_name: &str, devices: &[String]) -> Result<String, ClientError> {
        let mut body = json!({ "name": name, "artifact_name": artifact_name });
        if devices.is_empty() {
            body["all_devices"] = json!(true);
        } else {
            body["devices"] = json!(devices);
        }
        self.create_deployment(&body)
    }

    /// Makes a deployment as the API describes one, and gives its id.
    ///
    /// # Errors
    /// Why it was not made.
    pub fn create_deployment(&self, deployment: &Value) -> Result<String, ClientError> {
        self.created("POST", "/api/management/v1/deployments/deployments", deployment.clone())
    }

    /// What a deployment would do, which is not made.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn dry_run(&self, deployment: &Value) -> Result<Value, ClientError> {
        self.parsed("POST", "/api/management/v1/deployments/deployments/dry_run", Some(deployment.clone()))
    }

    /// Stops a deployment.
    ///
    /// # Errors
    /// Why it was not.
    pub fn abort(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/api/management/v1/deployments/deployments/{id}/status");
        self.call("PUT", &path, Some(json!({ "status": "aborted" }))).map(drop)
    }

    /// Every deployment, the newest first, as the server describes it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn deployments(&self) -> Result<Vec<Value>, ClientError> {
        self.pages("/api/management/v1/deployments/deployments")
    }

    /// One deployment, as the server describes it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn deployment(&self, id: &str) -> Result<Value, ClientError> {
        self.parsed("GET", &format!("/api/management/v1/deployments/deployments/{id}"), None)
    }

    /// How far each device is with a deployment.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn device_deployments(&self, id: &str) -> Result<Vec<DeviceDeploymentInfo>, ClientError> {
        self.pages(&format!("/api/management/v1/deployments/deployments/{id}/devices/list"))
    }

    /// How many devices of a deployment have each status.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn statistics(&self, id: &str) -> Result<Value, ClientError> {
        self.parsed("GET", &format!("/api/management/v1/deployments/deployments/{id}/statistics"), None)
    }

    /// The log of a deployment on one device.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn log(&self, id: &str, device: &str) -> Result<String, ClientError> {
        let path = format!("/api/management/v1/deployments/deployments/{id}/devices/{device}/log");
        text(self.call("GET", &path, None)?)
    }

    /// What a device reported: scope, name and value of each attribute.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn inventory(&self, device: &str) -> Result<Vec<Value>, ClientError> {
        let path = format!("/api/management/v1/inventory/devices/{device}");
        let described: Value = self.parsed("GET", &path, None)?;
        let attributes = described["attributes"].as_array().cloned();
        attributes.ok_or(ClientError::Answer { expected: "a list of attributes" })
    }

    /// What a device is to be configured with, and what it reports: `configured` and `reported` of the answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn configuration(&self, device: &str) -> Result<Value, ClientError> {
        self.parsed("GET", &configuration_path(device), None)
    }

    /// Sets what a device is to be configured with, in place of what was set. Nothing is deployed by that.
    ///
    /// # Errors
    /// Why it was not.
    pub fn configure(&self, device: &str, settings: &BTreeMap<String, String>) -> Result<(), ClientError> {
        self.call("PUT", &configuration_path(device), Some(json!(settings))).map(drop)
    }

    /// Deploys what a device is to be configured with. The id of the deployment.
    ///
    /// # Errors
    /// Why it was not.
    pub fn deploy_configuration(&self, device: &str) -> Result<String, ClientError> {
        let path = configuration_path(device) + "/deploy";
        let answer: Value = self.parsed("POST", &path, Some(json!({ "retries": 0 })))?;
        let id = answer["deployment_id"].as_str().map(str::to_owned);
        id.ok_or(ClientError::Answer { expected: "the id of a deployment" })
    }

    /// Puts a device into a group.
    ///
    /// # Errors
    /// Why it was not.
    pub fn set_group(&self, device: &str, group: &str) -> Result<(), ClientError> {
        let path = format!("/api/management/v1/inventory/devices/{device}/group");
        self.call("PUT", &path, Some(json!({ "group": group }))).map(drop)
    }

    /// Takes a device out of its group.
    ///
    /// # Errors
    /// Why it was not: 404 when it is in none.
    pub fn clear_group(&self, device: &str) -> Result<(), ClientError> {
        let path = format!("/api/management/v1/inventory/devices/{device}/group");
        let known: Value = self.parsed("GET", &path, None)?;
        let group = known["group"].as_str().unwrap_or_default();
        self.call("DELETE", &format!("{path}/{group}"), None).map(drop)
    }

    /// Every group.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn groups(&self) -> Result<Vec<String>, ClientError> {
        self.parsed("GET", "/api/management/v1/inventory/groups", None)
    }

    /// The ids of the devices in a group.
    ///
    /// # Errors
    /// Why there is no answer: 404 when there is no such group.
    pub fn group(&self, group: &str) -> Result<Vec<String>, ClientError> {
        self.pages(&format!("/api/management/v1/inventory/groups/{group}/devices"))
    }

    /// Any question of the management API: the status and the text of the answer.
    ///
    /// # Errors
    /// There is no answer, or the status is not one of success.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, String), ClientError> {
        let answer = self.call(method, path, body)?;
        Ok((answer.status().as_u16(), text(answer)?))
    }

    /// Whether the device has a connection for work on it: `connected`, `disconnected` or `unknown`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn connection(&self, device: &str) -> Result<String, ClientError> {
        let answer: Value = self.parsed("GET", &format!("{DEVICECONNECT}/{device}"), None)?;
        let status = answer["status"].as_str().map(str::to_owned);
        status.ok_or(ClientError::Answer { expected: "the status of a connection" })
    }

    /// Has the device ask for an update at once (`check-update`), or send its inventory (`send-inventory`).
    ///
    /// # Errors
    /// Why it was not told: 409 when it is not connected.
    pub fn command(&self, device: &str, command: &str) -> Result<(), ClientError> {
        self.call("POST", &format!("{DEVICECONNECT}/{device}/{command}"), None).map(drop)
    }

    /// Opens a session with a connected device.
    ///
    /// # Errors
    /// Why there is none: 404 when the device is not connected.
    pub fn connect(&self, device: &str) -> Result<FrameStream, ClientError> {
        let path = format!("{DEVICECONNECT}/{device}/connect");
        FrameStream::open_trusting(&self.trust, &self.url, &path, &self.token)
    }

    /// Every page of a list.
    fn pages<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        for page in 1.. {
            let some: Vec<T> = self.parsed("GET", &format!("{path}?page={page}&per_page=500"), None)?;
            let more = some.len() == 500;
            all.extend(some);
            if !more {
                break;
            }
        }
        Ok(all)
    }

    fn parsed<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, ClientError> {
        let text = text(self.call(method, path, body)?)?;
        serde_json::from_str(&text).map_err(|_| ClientError::Answer { expected: "the JSON of the API" })
    }

    fn created(&self, method: &str, path: &str, body: Value) -> Result<String, ClientError> {
        location(&self.call(method, path, Some(body))?)
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<http::Response<Body>, ClientError> {
        let request = self.request(method, path);
        let answer = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(broken)?)
            }
            None => self.agent.run(request.body(()).map_err(broken)?),
        };
        self.answer(answer)
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token))
    }

    fn answer(
        &self,
        answer: Result<http::Response<Body>, ureq::Error>,
    ) -> Result<http::Response<Body>, ClientError> {
        let answer = answer.map_err(|error| ClientError::Transport(Box::new(self.named(error))))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let text = text(answer)?;
        let error = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or(text);
        Err(ClientError::Status { status, error })
    }

    /// `error` with the server in it: which one is asked may stand in a file that nobody thinks of.
    fn named(&self, error: ureq::Error) -> ureq::Error {
        let url = &self.url;
        let said = if let ureq::Error::Io(why) = &error {
            format!("no answer from {url}: {why}")
        } else if let ureq::Error::HostNotFound = &error {
            format!("no answer from {url}: no such host")
        } else if let ureq::Error::Protocol(why) = &error {
            format!("what {url} answers is no HTTP; is it https? ({why})")
        } else {
            return error;
        };
        ureq::Error::Other(said.into())
    }
}

fn broken(error: http::Error) -> ClientError {
    ClientError::Transport(Box::new(ureq::Error::Http(error)))
}

fn text(mut answer: http::Response<Body>) -> Result<String, ClientError> {
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string();
    body.map_err(|error| ClientError::Transport(Box::new(error)))
}

/// The last part of `Location`.
fn location(answer: &http::Response<Body>) -> Result<String, ClientError> {
    answer
        .headers()
        .get("location")
        .and_then(|value| value.to_str().ok()?.rsplit('/').next())
        .map(str::to_owned)
        .ok_or(ClientError::Answer { expected: "the place of something new" })
}

fn configuration_path(device: &str) -> String {
    format!("/api/management/v1/deviceconfig/configurations/device/{device}")
}
