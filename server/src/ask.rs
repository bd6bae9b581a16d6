//! Commands for people: each asks a running server one thing.

use std::path::PathBuf;

use lexopt::prelude::*;
use rust_ota_server::client::{ClientError, Management};

use crate::cli::{CliError, print};

const HELP: &str = "\
rust-ota-server devices   [--server URL] --token-file FILE             list devices
rust-ota-server accept    [--server URL] --token-file FILE DEVICE      let a device in
rust-ota-server reject    [--server URL] --token-file FILE DEVICE      keep a device out
rust-ota-server artifacts [--server URL] --token-file FILE             list artifacts
rust-ota-server upload    [--server URL] --token-file FILE ARTIFACT    upload an artifact
rust-ota-server deploy    [--server URL] --token-file FILE NAME ARTIFACT-NAME [DEVICE]...
                                                    make a deployment; for all when no device is named
rust-ota-server abort     [--server URL] --token-file FILE DEPLOYMENT  stop a deployment
rust-ota-server status    [--server URL] --token-file FILE [DEPLOYMENT]
                                                    list deployments, or the devices of one
rust-ota-server log       [--server URL] --token-file FILE DEPLOYMENT DEVICE
                                                    print the log that a device has sent
rust-ota-server show-configuration [--server URL] --token-file FILE DEVICE
                                                    what a device is to be configured with, and what it says
rust-ota-server configure [--server URL] --token-file FILE DEVICE [NAME=VALUE]...
                                                    configure a device with this and nothing else, and deploy it
rust-ota-server connection [--server URL] --token-file FILE DEVICE     say whether work on a device is possible:
                                                    connected, disconnected, or unknown
rust-ota-server check-update [--server URL] --token-file FILE DEVICE   have a connected device ask for an update
rust-ota-server send-inventory [--server URL] --token-file FILE DEVICE have a connected device send its inventory

  --server URL        http://HOST:PORT (http://127.0.0.1:8080)
  --token-file FILE   the server's DATA/management-token
";

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        CliError::Failed(error.to_string())
    }
}

/// Asks, if `command` is one of these.
pub(crate) fn run(command: &str, mut parser: lexopt::Parser) -> Result<(), CliError> {
    let mut server = "http://127.0.0.1:8080".to_owned();
    let mut token = None;
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return print(HELP),
            Long("server") => server = parser.value()?.string()?,
            Long("token-file") => {
                let path = PathBuf::from(parser.value()?);
                let text = std::fs::read_to_string(&path);
                token = Some(text.map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?);
            }
            Value(word) => words.push(word.string()?),
            other @ (Short(_) | Long(_)) => return Err(other.unexpected().into()),
        }
    }
    let token = token.ok_or_else(|| CliError::Failed("--token-file is missing (try --help)".to_owned()))?;
    let management = Management::new(&server, &token);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = match (command, words.as_slice()) {
        ("devices", []) => devices(&management)?,
        ("accept", [id]) => management.accept(id).map(|()| String::new())?,
        ("reject", [id]) => management.reject(id).map(|()| String::new())?,
        ("artifacts", []) => artifacts(&management)?,
        ("upload", [path]) => management.upload_artifact(path.as_ref())? + "\n",
        ("deploy", [name, artifact, devices @ ..]) => {
            let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
            management.deploy(name, artifact, &devices)? + "\n"
        }
        ("abort", [id]) => management.abort(id).map(|()| String::new())?,
        ("status", []) => deployments(&management)?,
        ("status", [id]) => of_deployment(&management, id)?,
        ("show-configuration", [id]) => format!("{:#}\n", management.configuration(id)?),
        ("configure", [id, settings @ ..]) => {
            let pair = |word: &&str| Some(word.split_once('=')?).map(|(k, v)| (k.to_owned(), v.to_owned()));
            let wrong = || CliError::Failed("a setting is NAME=VALUE".to_owned());
            let settings: Option<_> = settings.iter().map(pair).collect();
            management.configure(id, &settings.ok_or_else(wrong)?)?;
            management.deploy_configuration(id)? + "\n"
        }
        ("connection", [id]) => management.connection(id)? + "\n",
        ("check-update" | "send-inventory", [id]) => {
            management.command(id, command).map(|()| String::new())?
        }
        ("log", [id, device]) => management.log(id, device)?,
        _ => {
            return Err(CliError::Failed(format!(
                "{command} with other words is needed (try {command} --help)"
            )));
        }
    };
    print(&text)
}

fn devices(management: &Management) -> Result<String, ClientError> {
    let mut text = String::new();
    for device in management.devices()? {
        let seen = device.check_in_time.as_deref().unwrap_or("never");
        text += &format!("{} {:13} {} last seen {seen}\n", device.id, device.status, device.identity_data);
    }
    Ok(text)
}

fn artifacts(management: &Management) -> Result<String, ClientError> {
    let mut text = String::new();
    for artifact in management.artifacts()? {
        let word = |name: &str| artifact[name].as_str().unwrap_or_default().to_owned();
        text += &format!(
            "{} {} for {} ({} bytes, {})\n",
            word("id"),
            word("name"),
            artifact["device_types_compatible"],
            artifact["size"],
            if artifact["signed"] == true { "signed" } else { "not signed" },
        );
    }
    Ok(text)
}

fn deployments(management: &Management) -> Result<String, ClientError> {
    let mut text = String::new();
    for deployment in management.deployments()? {
        let word = |name: &str| deployment[name].as_str().unwrap_or_default().to_owned();
        text += &format!(
            "{} {:10} {}: {} on {} devices\n",
            word("id"),
            word("status"),
            word("name"),
            word("artifact_name"),
            deployment["device_count"],
        );
    }
    Ok(text)
}

fn of_deployment(management: &Management, id: &str) -> Result<String, ClientError> {
    let mut text = String::new();
    for device in management.device_deployments(id)? {
        let log = if device.log { " (log)" } else { "" };
        text += &format!("{} {} {}{log}\n", device.id, device.status, device.substate.unwrap_or_default());
    }
    Ok(text)
}
