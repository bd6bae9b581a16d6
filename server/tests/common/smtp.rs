//! A real SMTP server on the loopback, which was written by others: `aiosmtpd`.
//!
//! `cargo xtask test` installs it and says with which Python it runs (`ROTA_SMTP`); by itself a test looks into `target/smtp`.
//! Where there is none, what needs it is left out, and said.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests may panic and say what they skip"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::PATIENCE;
use crate::tls::fixture;
use serde_json::Value;

/// A server for mails. It ends with this.
pub(crate) struct SmtpServer {
    child: Child,
    pub(crate) port: u16,
    said: Receiver<Value>,
}

impl SmtpServer {
    /// Starts it with these options on any port; `None` with a word about it when it is not installed.
    pub(crate) fn start(options: &[&str]) -> Option<SmtpServer> {
        SmtpServer::start_on(0, options)
    }

    /// The same on a port that is known.
    pub(crate) fn start_on(port: u16, options: &[&str]) -> Option<SmtpServer> {
        let mut command = Command::new(python()?);
        command.arg(fixture("smtp_server.py")).args(["--port", &port.to_string()]).args(options);
        command.arg("--certificate").arg(fixture("tls-server.pem"));
        command.arg("--key").arg(fixture("tls-server.key"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, said) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        let mut server = SmtpServer { child, port: 0, said };
        server.port = server.next("port").as_u64().unwrap().try_into().unwrap();
        Some(server)
    }

    /// The next thing that it says, which is of this kind.
    pub(crate) fn next(&self, kind: &str) -> Value {
        let said = self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it says something of {kind}"));
        said.get(kind).unwrap_or_else(|| panic!("{kind}, not {said}")).clone()
    }

    /// The next mail: to whom, and its text. Headers that were folded are in one line.
    pub(crate) fn mail(&self) -> (String, String) {
        let mail = self.next("mail");
        (mail["to"][0].as_str().unwrap().to_owned(), mail["data"].as_str().unwrap().replace("\r\n ", " "))
    }

    /// Whether it has said nothing more.
    pub(crate) fn is_silent(&self) -> bool {
        self.said.try_recv().is_err()
    }

    /// Ends it: nobody answers there any more.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn python() -> Option<PathBuf> {
    if let Some(told) = std::env::var_os("ROTA_SMTP") {
        let told = PathBuf::from(told);
        assert!(told.is_file(), "{} is required and not there", told.display());
        return Some(told);
    }
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|at| at.join("Cargo.lock").is_file());
    let found = workspace.unwrap().join("target/smtp/venv/bin/python");
    if !found.is_file() {
        println!("SKIPPED mails: {} is not there; cargo xtask test installs it", found.display());
        return None;
    }
    Some(found)
}
