//! The server `rust-ota-server`, as the demo and the benchmark use it: a process that is asked with its own commands.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Line, Process};
use xtask::{Outcome, workspace};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A device as the server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// What the server calls it.
    pub id: String,
    /// `pending`, `accepted` and so on.
    pub status: String,
}

/// The running server.
pub struct UpdateServer {
    program: PathBuf,
    directory: PathBuf,
    url: String,
    _process: Process,
}

impl UpdateServer {
    /// Starts `program` on a free port of the loopback, with its data in `directory`.
    pub fn start(program: &Path, directory: &Path, options: &[&str]) -> Outcome<UpdateServer> {
        UpdateServer::start_for(program, directory, options, None)
    }

    /// The same, and lets the person `user` log in, a `NAME:PASSWORD`.
    pub fn start_for(
        program: &Path,
        directory: &Path,
        options: &[&str],
        user: Option<&str>,
    ) -> Outcome<UpdateServer> {
        workspace::fresh_directory(directory)?;
        let mut command = Command::new(program);
        // Not on the command line, which everybody on this machine can read.
        command.envs(user.map(|user| ("RUST_OTA_SERVER_USER", user)));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(directory.join("data"));
        let process = Process::start(command.args(options), &directory.join("server.log"))?;
        loop {
            match process.next_line(PATIENCE)? {
                Some(Line::Output(line)) => {
                    if let Some(url) = line.strip_prefix("listening on ") {
                        return Ok(UpdateServer {
                            program: program.to_path_buf(),
                            directory: directory.to_path_buf(),
                            url: url.to_owned(),
                            _process: process,
                        });
                    }
                }
                Some(Line::Log(_)) => {}
                None => return Err("the server does not say that it listens".into()),
            }
        }
    }

    /// Its address, as it says it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> Outcome<SocketAddr> {
        let (_, address) = self.url.split_once("://").ok_or("the address of the server has no scheme")?;
        address.trim_end_matches('/').parse().map_err(|error| format!("{address}: {error}"))
    }

    /// What opens its management API.
    pub fn token_file(&self) -> PathBuf {
        self.directory.join("data/management-token")
    }

    /// A call of one of its commands.
    pub fn command(&self, command: &str, words: &[&str]) -> Command {
        let mut process = Command::new(&self.program);
        process.args([command, "--server", self.url(), "--token-file"]).arg(self.token_file());
        process.args(words).stdin(Stdio::null());
        process
    }

    /// What one of its commands says.
    pub fn ask(&self, command: &str, words: &[&str]) -> Outcome<String> {
        let output = workspace::capture(&mut self.command(command, words))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The devices that it knows.
    pub fn devices(&self) -> Outcome<Vec<ListedDevice>> {
        let listed: Value = serde_json::from_str(&self.ask("devices", &["--json"])?)
            .map_err(|error| format!("the server's list of devices: {error}"))?;
        let word = |device: &Value, name: &str| {
            device[name].as_str().map(str::to_owned).ok_or("the server lists a device without its status")
        };
        let mut devices = Vec::new();
        for device in listed.as_array().into_iter().flatten() {
            devices.push(ListedDevice { id: word(device, "id")?, status: word(device, "status")? });
        }
        Ok(devices)
    }
}
