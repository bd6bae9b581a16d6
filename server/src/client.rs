//! The management API from the other side, blocking, for the command line, the demo and tests. HTTP without TLS.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::{Agent, Body, SendBody, http};

/// Between the parts of an upload. An artifact is a tar archive of text and compressed data; a boundary of 128 random
/// bits written once does not come up in it.
const BOUNDARY: &str = "rust-ota-6c1f0bb2a94e4d0f8a37e5d1c04b9f26";
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
    /// The artifact could not be read.
    File(std::io::Error),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Transport(error) => write!(f, "{error}"),
            ClientError::Status { status, error } => write!(f, "the server answered {status}: {error}"),
            ClientError::Answer { expected } => write!(f, "the server's answer is not {expected}"),
            ClientError::File(error) => write!(f, "the artifact: {error}"),
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
    /// Whether there is a log.
    #[serde(default)]
    pub log: bool,
    /// When it was done.
    #[serde(default)]
    pub finished: Option<String>,
}

/// Asks one server.
#[derive(Debug, Clone)]
pub struct Management {
    url: String,
    token: String,
    agent: Agent,
}

impl Management {
    /// The server at `url`, opened by `token`.
    pub fn new(url: &str, token: &str) -> Management {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .build();
        Management {
            url: url.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
            agent: config.into(),
        }
    }

    /// Every device.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>, ClientError> {
        self.pages("/api/management/v2/devauth/devices")
    }

    /// Accepts the device `id`: its newest key that is not accepted.
    ///
    /// # Errors
    /// Why it was not.
    pub fn accept(&self, id: &str) -> Result<(), ClientError> {
        self.decide(id, "accepted")
    }

    /// Rejects the device `id`: all its keys.
    ///
    /// # Errors
    /// Why it was not.
    pub fn reject(&self, id: &str) -> Result<(), ClientError> {
        self.decide(id, "rejected")
    }

    fn decide(&self, id: &str, status: &str) -> Result<(), ClientError> {
        let device: DeviceInfo =
            self.parsed("GET", &format!("/api/management/v2/devauth/devices/{id}"), None)?;
        let others =
            device.auth_sets.iter().filter(|set| set.status != status && set.status != "preauthorized");
        // Accepting one set rejects the others.
        let count = if status == "accepted" { 1 } else { usize::MAX };
        for set in others.rev().take(count) {
            let path = format!("/api/management/v2/devauth/devices/{id}/auth/{}/status", set.id);
            self.call("PUT", &path, Some(json!({ "status": status })))?;
        }
        Ok(())
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
        let file = File::open(path).map_err(ClientError::File)?;
        let size = file.metadata().map_err(ClientError::File)?.len();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"artifact\"; filename=\"artifact.mender\"\r\n\
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
        self.created("POST", "/api/management/v1/deployments/deployments", body)
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

    /// Puts a device into a group.
    ///
    /// # Errors
    /// Why it was not.
    pub fn set_group(&self, device: &str, group: &str) -> Result<(), ClientError> {
        let path = format!("/api/management/v1/inventory/devices/{device}/group");
        self.call("PUT", &path, Some(json!({ "group": group }))).map(drop)
    }

    /// Any question of the management API: the status and the text of the answer.
    ///
    /// # Errors
    /// There is no answer, or the status is not one of success.
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, String), ClientError> {
        let answer = self.call(method, path, body)?;
        Ok((answer.status().as_u16(), text(answer)?))
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
        let answer = answer.map_err(|error| ClientError::Transport(Box::new(error)))?;
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
