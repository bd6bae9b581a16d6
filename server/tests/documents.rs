//! The commands of README.md and docs/server-api.md, run as they are written.
//!
//! Only what no test can have is changed: the port, and the words that stand for the id of a device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::common::{Answer, Device, artifact, parse, request_bytes, soon};

/// The command lines of a document, in their order: indented, and with what is continued on one line.
fn commands(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(document);
    let text = std::fs::read_to_string(path).unwrap().replace("\\\n", " ");
    let indented = text.lines().filter_map(|line| line.strip_prefix("    "));
    let known = ["rust-ota-server ", "export ", "openssl "];
    indented.filter(|line| known.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
}

/// A shell in a folder of its own, with the program in its path.
struct Desk {
    folder: TempDir,
    exports: Vec<String>,
    servers: Vec<Child>,
    /// Where the documents say that a server is, and where it is.
    addresses: Vec<(String, String)>,
}

impl Desk {
    fn new() -> Desk {
        Desk {
            folder: tempfile::tempdir().unwrap(),
            exports: Vec::new(),
            servers: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn shell(&self, line: &str) -> Command {
        let mut text = self.exports.join("; ") + "\nexec " + line;
        for (written, real) in &self.addresses {
            text = text.replace(written, real);
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rust-ota-server"));
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", &text]).current_dir(self.folder.path()).env("PATH", path);
        command.env("XDG_CONFIG_HOME", self.folder.path().join("none"));
        command
    }

    fn run(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.shell(line).output().unwrap();
        assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// Starts a server as it is written, on a free port in place of the one that stands there.
    fn serve(&mut self, line: &str) {
        let (_, address) = line.split_once("--listen ").unwrap();
        let written = address.split(' ').next().unwrap().to_owned();
        let free = line.replace(&written, "127.0.0.1:0");
        let mut server = self.shell(&free).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let (_, real) = said.trim().rsplit_once('/').unwrap_or_else(|| panic!("{line}: {said}"));
        self.addresses.push((written, real.to_owned()));
        self.servers.push(server);
    }

    /// Makes a certificate as it is written; where there is no `openssl`, what it would have made is taken.
    fn certificate(&self, line: &str) {
        if Command::new("openssl").arg("version").output().is_ok() {
            self.run(line);
            return;
        }
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        for ending in ["pem", "key"] {
            let made = self.folder.path().join(format!("server.{ending}"));
            std::fs::copy(fixtures.join(format!("tls-self.{ending}")), made).unwrap();
        }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.addresses[0].1).unwrap();
        stream.write_all(&request_bytes(method, path, headers, body.as_bytes())).unwrap();
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
        parse(&answer).unwrap()
    }

    /// Has the device ask for a token.
    fn authenticate(&self, device: &mut Device) {
        let (body, signature) = device.auth_request();
        let headers = [("X-MEN-Signature", signature.as_str())];
        let answer = self.ask("POST", "/api/devices/v1/authentication/auth_requests", &headers, &body);
        device.token = if answer.status == 200 { answer.text() } else { String::new() };
    }

    /// Has the device do the next deployment that it is offered.
    fn update(&self, device: &Device) {
        let bearer = format!("Bearer {}", device.token);
        let headers = [("Authorization", bearer.as_str())];
        let provides = json!({ "artifact_name": device.artifact_name, "device_type": device.device_type });
        let path = "/api/devices/v1/deployments/device/deployments";
        // A device asks again: nobody tells it.
        let offer = soon(|| {
            let answer = self.ask("POST", &format!("{path}/next"), &headers, &provides.to_string());
            (answer.status == 200).then(|| answer.json())
        });
        let path = format!("{path}/{}/status", offer["id"].as_str().unwrap());
        assert_eq!(self.ask("PUT", &path, &headers, "{\"status\":\"success\"}").status, 204);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It has ended when that does not work.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Runs every command of a document, with a device that does what it is told to.
fn check(document: &str, desk: &mut Desk) {
    let mut device = Device::new("02:00:00:00:00:01");
    if !desk.servers.is_empty() {
        desk.authenticate(&mut device);
    }
    let file = artifact("release-2", &device.device_type);
    std::fs::copy(file.path(), desk.folder.path().join("release-2.mender")).unwrap();
    let mut id = String::new();
    let mut count = 0;
    for line in commands(document) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "export" {
            desk.exports.push(line);
            continue;
        }
        count += 1;
        if words[0] == "openssl" {
            desk.certificate(&line);
            continue;
        }
        if words[1] == "serve" {
            desk.serve(&line);
            if desk.servers.len() == 1 {
                desk.authenticate(&mut device);
            }
            continue;
        }
        let line = line.replace("DEVICE", &id);
        match words[1] {
            "devices" if id.is_empty() => {
                let said = desk.run(&line);
                assert!(said.contains("mac=02:00:00:00:00:01") && said.contains("1 pending"), "{said}");
                said.lines().nth(1).unwrap()[..8].clone_into(&mut id);
            }
            "accept" => {
                desk.run(&line);
                desk.authenticate(&mut device);
                assert!(!device.token.is_empty(), "{line}: the device is not let in");
            }
            "deploy" => {
                let waiting = desk.shell(&line).stdout(Stdio::piped()).spawn().unwrap();
                desk.update(&device);
                let output = waiting.wait_with_output().unwrap();
                let said = String::from_utf8(output.stdout).unwrap();
                assert!(output.status.success() && said.contains("1 device: 1 success"), "{line}: {said}");
            }
            "configure" => {
                desk.run(&line);
                desk.update(&device);
            }
            _ => assert_ne!(desk.run(&line), "", "{line} says something"),
        }
    }
    assert!(count >= 4, "{document} has commands");
}

#[test]
fn the_commands_of_the_page_about_the_server_do_what_it_says() {
    let mut desk = Desk::new();
    check("docs/server-api.md", &mut desk);
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let mut desk = Desk::new();
    desk.serve("rust-ota-server serve --data updates --listen 127.0.0.1:8080");
    // There it listens everywhere, on the port that is asked when nothing else is said.
    desk.exports.push("export RUST_OTA_SERVER=http://127.0.0.1:8080".to_owned());
    check("README.md", &mut desk);
}
