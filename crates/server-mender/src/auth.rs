//! Authentication: what a device says to be let in, and what a token looks like.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use client_core::server::{Headers, ServerError};

use crate::{Credentials, CredentialsError, Settings};

/// Where devices ask to be let in.
pub(crate) const PATH: &str = "/api/devices/v1/authentication/auth_requests";
/// Longest token. It travels in a header of every request.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Body and headers of a request to be let in. The signature covers exactly these bytes.
pub(crate) fn request(
    credentials: &mut dyn Credentials,
    settings: &Settings,
) -> Result<(Vec<u8>, Headers), ServerError> {
    let unusable = |error: CredentialsError| ServerError::Credentials { reason: error.to_string() };
    let mut fields = Map::new();
    let mut field = |name: &str, value: String| fields.insert(name.to_owned(), Value::String(value));
    field("id_data", credentials.id_data().map_err(unusable)?);
    field("pubkey", credentials.public_key_pem());
    if !settings.tenant_token.is_empty() {
        field("tenant_token", settings.tenant_token.clone());
    }
    if let Some(tier) = &settings.device_tier {
        field("tier", tier.clone());
    }
    let body = Value::Object(fields).to_string().into_bytes();
    let signature = STANDARD.encode(credentials.sign(&body).map_err(unusable)?);
    let headers = vec![
        // A literal, which clients from 4.0 on send and servers ignore; some gateways in between ask for the header.
        ("authorization", "API_KEY".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("x-men-signature", signature),
    ];
    Ok((body, headers))
}

/// The token in the body of a good answer. A captive portal answers with anything; a token has three parts of
/// base64url.
pub(crate) fn token(body: &[u8]) -> Result<String, &'static str> {
    let body = body.trim_ascii();
    if body.len() > TOKEN_BYTES_MAX {
        return Err("a token that is too long");
    }
    let parts: Vec<&[u8]> = body.split(|byte| *byte == b'.').collect();
    let letters = |part: &&[u8]| {
        !part.is_empty() && part.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
    };
    if parts.len() != 3 || !parts.iter().all(letters) {
        return Err("not a token (a captive portal?)");
    }
    Ok(String::from_utf8_lossy(body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_parts_of_base64url_are_a_token() {
        assert_eq!(token(b" tok1.e30.sig_-\n").unwrap(), "tok1.e30.sig_-");
        for body in
            [&b""[..], b"a.b", b"a.b.", b"a.b.c.d", b"<html>a.b.c", b"a.b.c\r\nx: y", b"a.b.\xff", b"a. b.c"]
        {
            assert!(token(body).is_err(), "{body:?}");
        }
        let part = vec![b'a'; TOKEN_BYTES_MAX - 4];
        assert!(token(&[&part[..], b".b.c"].concat()).is_ok());
        assert!(token(&[&part[..], b"a.b.c"].concat()).is_err());
    }
}
