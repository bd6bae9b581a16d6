//! TLS, and clients that have to show a certificate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use server_core::client::Management;
use server_core::{Options, Running, Server, StartError};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto};

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What comes back over TLS, with or without a certificate of the client.
fn ask(running: &Running, with_certificate: bool) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(fixture("tls-ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = if with_certificate {
        let certificate = CertificateDer::from_pem_file(fixture("tls-client.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixture("tls-client.key")).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn with_tls(options: Options) -> Options {
    options.tls(fixture("tls-server.pem"), fixture("tls-server.key"))
}

#[test]
fn requests_come_over_tls() {
    let (running, _, _folder) = common::server(with_tls);
    assert!(running.url().starts_with("https://"));
    assert!(ask(&running, false).unwrap().starts_with("HTTP/1.1 404"));
}

#[test]
fn only_clients_with_a_certificate_are_served_when_that_is_asked_for() {
    let (running, _, _folder) = common::server(|options| with_tls(options).client_ca(fixture("tls-ca.pem")));
    assert!(ask(&running, true).unwrap().starts_with("HTTP/1.1 404"));
    assert!(ask(&running, false).is_err());
}

#[test]
fn certificates_that_cannot_be_used_are_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let start = |change: fn(Options) -> Options| Server::start(change(Options::new(folder.path())));
    assert!(matches!(start(|o| o.tls("none", "none")), Err(StartError::Tls { .. })));
    let other_key = start(|o| o.tls(fixture("tls-server.pem"), fixture("tls-client.key")));
    assert!(matches!(other_key, Err(StartError::Tls { .. })), "{other_key:?}");
    assert!(matches!(start(|o| o.client_ca(fixture("tls-ca.pem"))), Err(StartError::ClientCaWithoutTls)));
}

/// What the command line says to a server that speaks TLS.
fn devices(running: &Running, folder: &std::path::Path, ca: Option<&str>) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(["devices", "--server", running.url(), "--token-file"]).arg(folder.join("management-token"));
    command.env("XDG_CONFIG_HOME", folder.join("none"));
    if let Some(ca) = ca {
        command.arg("--ca").arg(fixture(ca));
    }
    command.output().unwrap()
}

#[test]
fn the_command_line_asks_over_tls_and_trusts_whom_it_is_told_to() {
    let (running, _, folder) = common::server(with_tls);
    let output = devices(&running, folder.path(), Some("tls-ca.pem"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no devices\n", "{output:?}");
    // Neither everybody nor somebody else.
    for ca in [None, Some("tls-self.pem")] {
        let output = devices(&running, folder.path(), ca);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("--ca FILE"), "{error}");
    }
    let output = devices(&running, folder.path(), Some("tls-client.key"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no certificate in it"), "{output:?}");
}

#[test]
fn a_certificate_that_signs_itself_is_trusted_when_it_is_named() {
    let (running, _, folder) =
        common::server(|options| options.tls(fixture("tls-self.pem"), fixture("tls-self.key")));
    let output = devices(&running, folder.path(), Some("tls-self.pem"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no devices\n", "{output:?}");
    assert_eq!(devices(&running, folder.path(), Some("tls-ca.pem")).status.code(), Some(1));
}

#[test]
fn artifacts_and_sessions_go_over_tls_too() {
    let (running, _, _folder) = common::server(with_tls);
    let management =
        Management::with_authority(running.url(), running.management_token(), Some(&fixture("tls-ca.pem")));
    let file = common::artifact_with("release-2", "testdev", 1_000_000, |_| {});
    let id = management.upload_artifact(file.path()).unwrap();
    assert_eq!(management.artifacts().unwrap()[0]["id"], *id);
    let device = management.preauthorize(&serde_json::json!({ "mac": "a" }), &common::Device::new("a").pem());
    // The handshake of the WebSocket was read by the server: it is the device that is missing.
    let refused = management.connect(&device.unwrap()).unwrap_err().to_string();
    assert!(refused.contains("404") && refused.contains("device disconnected"), "{refused}");
    let stranger = Management::with_authority(running.url(), "x", Some(&fixture("tls-self.pem")));
    assert!(stranger.connect("any").unwrap_err().to_string().contains("--ca FILE"));
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_not_trusted() {
    let (running, _, _folder) = common::server(|options| options);
    let url = running.url().replace("http://", "https://");
    let management = Management::with_authority(&url, "x", Some(&fixture("tls-ca.pem")));
    let error = management.devices().unwrap_err().to_string();
    assert!(error.contains("is it http?"), "{error}");
}
