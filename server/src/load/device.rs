//! One device: a key, an identity, and the bytes of what it asks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

/// What stands before an Ed25519 key in its `SubjectPublicKeyInfo`.
const INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// A device.
pub(super) struct LoadDevice {
    identity: serde_json::Value,
    pem: String,
    key: Ed25519KeyPair,
}

impl LoadDevice {
    /// A device with a new key. `None` when there are no random numbers.
    pub(super) fn new(number: usize) -> Option<LoadDevice> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok()?;
        let info = STANDARD.encode([INFO, key.public_key().as_ref()].concat());
        Some(LoadDevice {
            // With the process, so that a second run is about new devices.
            identity: json!({ "load": format!("{}-{number}", std::process::id()) }),
            pem: format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----\n"),
            key,
        })
    }

    /// A person accepts the device before it asks.
    pub(super) fn preauthorization(&self, host: &str, token: &str) -> Vec<u8> {
        let body = json!({ "identity_data": self.identity, "pubkey": self.pem }).to_string();
        let path = "/api/management/v2/devauth/devices";
        bytes("POST", path, host, true, &format!("Authorization: Bearer {token}\r\n"), &body)
    }

    /// It asks for a token.
    pub(super) fn auth_request(&self, host: &str, keep_alive: bool) -> Vec<u8> {
        let body = json!({ "id_data": self.identity.to_string(), "pubkey": self.pem }).to_string();
        let signature = STANDARD.encode(self.key.sign(body.as_bytes()));
        let path = "/api/devices/v1/authentication/auth_requests";
        bytes("POST", path, host, keep_alive, &format!("X-MEN-Signature: {signature}\r\n"), &body)
    }

    /// It asks for an update.
    pub(super) fn poll(host: &str, token: &str, keep_alive: bool) -> Vec<u8> {
        let provides = json!({
            "artifact_name": "release-1",
            "device_type": "load",
            "rootfs-image.version": "release-1",
            "rootfs-image.checksum": "4d480539cdb23a4aee6330ff80673a5af92b7793eb1c57c4694532f96383b619",
        });
        let body = json!({ "device_provides": provides }).to_string();
        let path = "/api/devices/v2/deployments/device/deployments/next";
        bytes("POST", path, host, keep_alive, &format!("Authorization: Bearer {token}\r\n"), &body)
    }
}

fn bytes(method: &str, path: &str, host: &str, keep_alive: bool, header: &str, body: &str) -> Vec<u8> {
    let close = if keep_alive { "" } else { "Connection: close\r\n" };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{close}{header}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
