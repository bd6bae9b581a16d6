//! The server that a device talks to, on the loopback of this machine, and what a scenario asks it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client_core::artifact::write::{self, ArtifactSpec, PayloadSource, SoftwareName};
use client_core::artifact::{Compression, CompressionLevel, Signer};
use serde_json::{Value, json};
use server_core::client::{DeviceDeploymentInfo, Management};
use server_core::{Options, StartError};
use testkit::artifacts::named;
use testserver::{RecordedRequest, TestServer};

use crate::kit::Kit;
use crate::rootfs::DEVICE_TYPE;
use crate::{Outcome, read, run};

/// What a deployment ends with.
pub const FINISHED: [&str; 4] = ["success", "failure", "aborted", "already-installed"];

/// The server, and the one device that it knows.
pub struct Fleet {
    /// `None` only while it is replaced by itself as it was earlier.
    running: Option<TestServer>,
    management: Management,
    device: String,
    directory: PathBuf,
    port: u16,
}

impl Fleet {
    /// Starts one with its data in `directory`, which knows the key of the device already.
    pub fn start(kit: &Kit, directory: &Path) -> Outcome<Fleet> {
        let running = TestServer::start(options(directory)).map_err(said)?;
        let management = Management::new(running.url(), running.management_token());
        let identity = json!({ "serial": "testboard-1" });
        let device = management.preauthorize(&identity, &kit.keys.device_public).map_err(said)?;
        let (directory, port) = (directory.to_path_buf(), running.port());
        Ok(Fleet { running: Some(running), management, device, directory, port })
    }

    /// Its port on the loopback. For the machines it is 10.0.2.2.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its faults on order.
    pub fn faults(&self) -> testserver::FaultsHandle {
        self.running.as_ref().map(TestServer::faults).unwrap_or_default()
    }

    /// Keeps what the server knows now in the folder `to`, and tells after how many requests of the device.
    pub fn keep(&self, to: &Path) -> Outcome<usize> {
        for _try in 0..50 {
            let asked = self.questions();
            copy_server(&self.directory, to)?;
            if self.questions() == asked && self.is_still(to)? {
                return Ok(asked);
            }
        }
        Err("the server's database does not come to rest".into())
    }

    /// Whether the database is what it was when `kept` was kept.
    pub fn is_still(&self, kept: &Path) -> Outcome<bool> {
        for name in DATABASE {
            if read(&self.directory.join(name))? != read(&kept.join(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the server again what it was when `kept` was kept, at the same address.
    pub fn go_back(&mut self, kept: &Path) -> Outcome {
        // It lets go of its folder and of its port.
        self.running = None;
        std::fs::remove_dir_all(&self.directory)
            .map_err(|error| format!("{}: {error}", self.directory.display()))?;
        copy_server(kept, &self.directory)?;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut tries = 0;
        let running = loop {
            match TestServer::start(options(&self.directory).listen(address)) {
                Ok(running) => break running,
                // Somebody's connection may have got the number for a moment.
                Err(StartError::Listen { .. }) if tries < 100 => tries += 1,
                Err(error) => return Err(said(error)),
            }
            // No event says when a port is free again: it sleeps.
            std::thread::sleep(Duration::from_millis(50));
        };
        self.management = Management::new(running.url(), running.management_token());
        self.running = Some(running);
        Ok(())
    }

    /// How many requests of the device were answered.
    pub fn questions(&self) -> usize {
        self.count(|_path| true)
    }

    /// How many of them reported a status, which changes what the server knows.
    pub fn reports(&self) -> usize {
        self.count(|path| path.ends_with("/status"))
    }

    fn count(&self, is_meant: impl Fn(&str) -> bool) -> usize {
        let requests = self.requests();
        let paths = requests.iter().map(|request| request.path.as_str());
        paths.filter(|path| path.starts_with("/api/devices/") && is_meant(path)).count()
    }

    /// Uploads an artifact and orders it for the device; gives the id of the deployment.
    pub fn deploy(&self, artifact: &Path, name: &str) -> Outcome<String> {
        self.management.upload_artifact(artifact).map_err(said)?;
        self.order(name)
    }

    /// Orders an artifact that is there.
    pub fn order(&self, name: &str) -> Outcome<String> {
        self.management.deploy(name, name, std::slice::from_ref(&self.device)).map_err(said)
    }

    fn known(&self, deployment: &str) -> Option<DeviceDeploymentInfo> {
        self.management.device_deployments(deployment).ok()?.into_iter().next()
    }

    /// How far the device is, as the server knows it.
    pub fn status(&self, deployment: &str) -> Option<String> {
        self.known(deployment).map(|device| device.status)
    }

    /// What the device added to its status.
    pub fn remark(&self, deployment: &str) -> Option<String> {
        self.known(deployment)?.substate
    }

    /// How the deployment ended, if it did.
    pub fn outcome(&self, deployment: &str) -> Option<String> {
        self.status(deployment).filter(|status| FINISHED.contains(&status.as_str()))
    }

    /// The log that came with a failure.
    pub fn log(&self, deployment: &str) -> Outcome<String> {
        self.management.log(deployment, &self.device).map_err(said)
    }

    /// One attribute of the device's inventory.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let attributes = self.management.inventory(&self.device).ok()?;
        let found = attributes.iter().find(|attribute| attribute["name"] == name)?;
        found["value"].as_str().map(str::to_owned)
    }

    /// Bytes of artifacts that were sent to the device after its first `requests` requests, where the answer to each stopped after
    /// at most `most`.
    pub fn bytes_sent(&self, requests: usize, most: u64) -> u64 {
        let requests = self.requests().into_iter().skip(requests);
        let downloads = requests.filter(|request| request.path.contains("/download"));
        downloads.map(|request| request.response_bytes.min(most)).sum()
    }

    /// Everything that it was asked.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.running.as_ref().map(TestServer::requests).unwrap_or_default()
    }

    /// The statuses that were reported for a deployment, in order. One that is repeated stands there once: a download that
    /// takes long is reported again.
    pub fn reported(&self, deployment: &str) -> Vec<String> {
        let path = format!("/{deployment}/status");
        let reports = self.requests().into_iter().filter(|request| request.path.ends_with(&path));
        let reports = reports.filter(|request| request.path.starts_with("/api/devices/"));
        let status = |request: RecordedRequest| {
            let body: Value = serde_json::from_slice(&request.body).ok()?;
            Some(body["status"].as_str()?.to_owned())
        };
        let mut statuses: Vec<String> = reports.filter_map(status).collect();
        statuses.dedup();
        statuses
    }
}

fn options(directory: &Path) -> Options {
    Options::new(directory).auto_accept(true)
}

/// The database in the folder of a server that runs, and what it has not put into it yet.
const DATABASE: [&str; 2] = ["fleet.sqlite", "fleet.sqlite-wal"];

/// Copies the server's folder. Artifacts never change: they get one more name.
fn copy_server(from: &Path, to: &Path) -> Outcome {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let entries = std::fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    for entry in entries.flatten() {
        let how = if entry.file_name() == "artifacts" { "-al" } else { "-a" };
        run(Command::new("cp").arg(how).arg("--sparse=auto").arg(entry.path()).arg(to))?;
    }
    Ok(())
}

fn said(error: impl std::fmt::Display) -> String {
    format!("the server: {error}")
}

/// A payload file on disk.
struct ImageFile<'a> {
    name: &'a str,
    path: &'a Path,
    bytes: u64,
}

impl PayloadSource for ImageFile<'_> {
    fn name(&self) -> &str {
        self.name
    }
    fn size(&self) -> u64 {
        self.bytes
    }
    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + '_>> {
        Ok(Box::new(std::fs::File::open(self.path)?))
    }
}

/// Writes an artifact `name` with a root file system to `to`.
pub fn rootfs_artifact(
    name: &str,
    image: &Path,
    device_type: &str,
    signer: Option<&Signer>,
    to: &Path,
) -> Outcome {
    let software = SoftwareName::of_payload_type(write::ROOTFS_IMAGE);
    let mut spec = ArtifactSpec::rootfs_image(named(name), vec![named(device_type)]);
    spec.provide_version(&software, name);
    spec.clear_software(&software);
    spec.compression = CompressionLevel::default_of(Compression::Gzip);
    write_artifact(&spec, "rootfs.ext4", image, signer, to)
}

/// What the host tool says to these words.
pub fn host_tool(words: &[&OsStr]) -> Outcome<String> {
    let (mut said, mut complaints) = (Vec::new(), Vec::new());
    let words = words.iter().map(|word| (*word).to_owned());
    if rust_ota_artifact::run(words, &mut said, &mut complaints) {
        return Ok(String::from_utf8_lossy(&said).into_owned());
    }
    Err(String::from_utf8_lossy(&complaints).trim().to_owned())
}

/// Writes an artifact `name` with one file for the update module `payload_type` to `to`.
pub fn module_artifact(name: &str, payload_type: &str, file: &Path, kit: &Kit, to: &Path) -> Outcome {
    let mut spec = ArtifactSpec::module_image(named(name), vec![named(DEVICE_TYPE)], named(payload_type));
    spec.compression = CompressionLevel::default_of(Compression::Gzip);
    write_artifact(&spec, "payload", file, Some(&kit.keys.signer), to)
}

fn write_artifact(
    spec: &ArtifactSpec,
    name: &str,
    file: &Path,
    signer: Option<&Signer>,
    to: &Path,
) -> Outcome {
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    let bytes = std::fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    let payload = ImageFile { name, path: file, bytes };
    let mut output = std::io::BufWriter::new(std::fs::File::create(to).map_err(failed)?);
    let staged = to.with_extension("staged");
    let mut options = std::fs::File::options();
    let mut spool = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&staged)
        .map_err(|error| format!("{}: {error}", staged.display()))?;
    let written = write::write(spec, &[&payload], signer, &mut spool, &mut output);
    // Written either way.
    let _ = std::fs::remove_file(&staged);
    written.map_err(|error| format!("{}: {error}", to.display()))?;
    std::io::Write::flush(&mut output).map_err(failed)
}
