//! Servers on this machine, with certificates that are made for each test.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client_core::clock::utc;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::board::{Board, check, check_facts, check_report};

const DAY: i64 = 24 * 3600;

/// One element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        middle @ 0x80..0x100 => out.extend([0x81, middle as u8]),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend(content);
    out
}

struct Certificate {
    der: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Signed by itself, for 127.0.0.`host`, good from and until so many seconds from now.
    fn new(host: u8, from: i64, until: i64) -> Certificate {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).unwrap();
        let name = der(
            0x30,
            &[&der(0x31, &[&der(0x30, &[&[6, 3, 0x55, 4, 3], &der(0x0c, &[b"test", &[b'0' + host]])])])],
        );
        let with_sha256 = der(0x30, &[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
        let curve: [&[u8]; 2] =
            [&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]];
        let public = der(3, &[&[0], pair.public_key().as_ref()]);
        let names = der(4, &[&der(0x30, &[&[0x87, 4, 127, 0, 0, host]])]);
        let extensions = der(0xa3, &[&der(0x30, &[&der(0x30, &[&[6, 3, 0x55, 0x1d, 0x11], &names])])]);
        let body = der(
            0x30,
            &[
                &[0xa0, 3, 2, 1, 2],
                &[2, 1, 1],
                &with_sha256,
                &name,
                &der(0x30, &[&time(from), &time(until)]),
                &name,
                &der(0x30, &[&der(0x30, &curve), &public]),
                &extensions,
            ],
        );
        let signature = pair.sign(&random, &body).unwrap();
        let der = der(0x30, &[&body, &with_sha256, &der(3, &[&[0], signature.as_ref()])]);
        Certificate { der, key: key.as_ref().to_vec() }
    }

    fn pem(&self) -> String {
        let lines: Vec<String> = STANDARD
            .encode(&self.der)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into())
            .collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// A server that shows it; its port.
    fn serve(&self) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let chain = vec![CertificateDer::from(self.der.clone())];
        let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                // Until the other side closes.
                let _ = StreamOwned::new(connection, stream.unwrap()).read_to_end(&mut Vec::new());
            }
        });
        port
    }
}

/// `GeneralizedTime`, so many seconds from now.
fn time(seconds: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let digits: String =
        utc(now.saturating_add_signed(seconds)).chars().filter(char::is_ascii_digit).take(14).collect();
    der(0x18, &[digits.as_bytes(), b"Z"])
}

fn board(url: &str, certificate: Option<&Certificate>) -> Board {
    Board::with(|board| {
        board.edit("etc/mender/mender.conf", "https://updates.example.com", url);
        if let Some(certificate) = certificate {
            board.write("etc/mender/server.crt", certificate.pem());
            board.set(r#""ServerCertificate": "/etc/mender/server.crt""#);
        }
    })
}

/// What is not as it should be when the server is tried, with words in the first line of that kind.
#[track_caller]
fn check_tried(board: &Board, exit_code: u8, expected: &[&str], words: &str) {
    let mut facts = board.facts(Some(Duration::from_secs(10)));
    facts.server.now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let report = facts.judge();
    check_report(&report, exit_code, expected);
    assert!(report.lines().contains(words), "{words}\n{}", report.lines());
}

fn https(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

#[test]
fn a_server_whose_certificate_is_right() {
    let certificate = Certificate::new(1, -DAY, 90 * DAY);
    let good = board(&https(certificate.serve()), Some(&certificate));
    check_tried(&good, 0, &[], "connected, its certificate is good until");
    let reached = good.facts(Some(Duration::from_secs(10))).judge();
    assert!(reached.findings.iter().any(|finding| finding.check.id == "server-reached"));
    let short = Certificate::new(1, -DAY, 9 * DAY);
    let soon = board(&https(short.serve()), Some(&short));
    check_tried(&soon, 1, &["server-certificate-ends-soon"], "good until");
}

#[test]
fn a_server_whose_certificate_is_not_good_now() {
    let old = Certificate::new(1, -90 * DAY, -DAY);
    let expired = board(&https(old.serve()), Some(&old));
    check_tried(
        &expired,
        2,
        &["server-certificate-file-expired", "server-certificate-time"],
        "it has to be renewed",
    );
    let young = Certificate::new(1, DAY, 90 * DAY);
    let early = board(&https(young.serve()), Some(&young));
    check_tried(&early, 2, &["server-certificate-time"], "set the clock");
}

#[test]
fn a_server_that_is_not_the_right_one() {
    let (certificate, other) = (Certificate::new(1, -DAY, 90 * DAY), Certificate::new(2, -DAY, 90 * DAY));
    let unknown = board(&https(certificate.serve()), Some(&other));
    check_tried(&unknown, 2, &["server-certificate-refused"], "signed by nobody whom this device trusts");
    let elsewhere = Certificate::new(9, -DAY, 90 * DAY);
    let name = board(&https(elsewhere.serve()), Some(&elsewhere));
    check_tried(&name, 2, &["server-certificate-refused"], "not for 127.0.0.1");
    name.set(r#""SkipVerify": true"#);
    let expected = ["config-key-without-effect", "server-skip-verify"];
    check_tried(&name, 1, &expected, "whoever answers is taken for the server");
}

#[test]
fn a_server_that_is_not_there() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    check_tried(&board(&https(port), None), 2, &["server-unreachable"], "cannot connect to 127.0.0.1");
    let certificate = Certificate::new(1, -DAY, 90 * DAY);
    let two = Board::with(|board| {
        let servers = format!(
            r#""Servers": [{{"ServerURL": "{}"}}, {{"ServerURL": "{}"}}]"#,
            https(port),
            https(certificate.serve())
        );
        board.edit("etc/mender/mender.conf", r#""ServerURL": "https://updates.example.com""#, &servers);
        board.write("etc/mender/server.crt", certificate.pem());
        board.set(r#""ServerCertificate": "/etc/mender/server.crt""#);
    });
    check_tried(&two, 1, &["server-fallback-unreachable"], "connected");
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_was_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = board(&https(listener.local_addr().unwrap().port()), None);
    let report = silent.facts(Some(Duration::from_millis(50))).judge();
    check_report(&report, 2, &["server-unreachable"]);
}

#[test]
fn a_server_without_encryption() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = board(&format!("http://{}", listener.local_addr().unwrap()), None);
    check_tried(&plain, 1, &["server-unencrypted"], "connected");
}

#[test]
fn files_for_encryption_that_cannot_be_used() {
    let certificate = Certificate::new(1, -DAY, 90 * DAY);
    let given = || board("https://127.0.0.1:9", Some(&certificate));
    let missing = given();
    missing.remove("etc/mender/server.crt");
    check(&missing, 2, &["server-certificate-file"]);
    let binary = given();
    binary.write("etc/mender/server.crt", &certificate.der);
    check(&binary, 2, &["server-certificate-file"]);
    let client = given();
    client.set(r#""HttpsClient": {"Certificate": "/etc/mender/server.crt", "Key": "/etc/mender/none.key"}"#);
    check(&client, 2, &["server-certificate-file"]);
    let other_key = given();
    other_key.write("etc/mender/client.key", other_key.read("etc/mender/key.pem"));
    other_key
        .set(r#""HttpsClient": {"Certificate": "/etc/mender/server.crt", "Key": "/etc/mender/client.key"}"#);
    check(&other_key, 2, &["server-certificate-file"]);
}

#[test]
fn a_clock_and_a_proxy_that_are_wrong() {
    check_facts(|facts| facts.server.now = 5, 1, &["clock-before-build"]);
    check_facts(
        |facts| facts.server.proxy = Err("https_proxy: not a proxy".into()),
        2,
        &["server-proxy-wrong"],
    );
    let proxy = Some("proxy:3128".to_owned());
    let mut facts = Board::good().facts(None);
    facts.server.proxy = Ok(proxy);
    let report = facts.judge();
    check_report(&report, 0, &[]);
    assert!(report.findings.iter().any(|finding| finding.check.id == "server-proxy"));
    check_facts(|facts| facts.server.servers.clear(), 1, &["server-none"]);
}
