//! Tokens: JWTs signed with Ed25519 by the key of this server.
//!
//! A token of a device names its authentication set (`jti`) and the set's serial number. Revoking a token raises the
//! serial number of the set, so nothing has to be written when a token is issued.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::id;
use super::time::Timestamp;

/// No token of ours is longer.
const TOKEN_BYTES: usize = 2048;
/// `{"alg":"EdDSA","typ":"JWT"}`: the only header that is written, and the only one that is accepted. A token that
/// names another algorithm, or none, is no token of ours.
const HEADER: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9";
const ISSUER: &str = "Mender";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The authentication set of a device, or a random number for a person.
    pub(crate) jti: String,
    /// The device or the person.
    pub(crate) sub: String,
    /// Who issued it.
    pub(crate) iss: String,
    /// Issued at, in seconds since 1970.
    pub(crate) iat: u64,
    /// Not valid from then on, in seconds since 1970.
    pub(crate) exp: u64,
    /// The token of a device.
    #[serde(rename = "mender.device", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) device: bool,
    /// The token of a person.
    #[serde(rename = "mender.user", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) user: bool,
    /// The serial number of the authentication set when it was issued.
    #[serde(rename = "rust-ota.serial", default)]
    pub(crate) serial: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// Not a token that this server has signed.
    Invalid,
    /// It was one.
    Expired,
}

/// Issues and checks tokens.
pub(crate) struct TokenKey {
    pair: Ed25519KeyPair,
    verified: Mutex<Verified>,
}

/// Tokens whose signature was good, by their digest: a device sends the same one for days, and to check a signature is
/// most of the work of a poll. Two generations, so that what is used stays.
#[derive(Default)]
struct Verified {
    young: HashMap<[u8; 32], Claims>,
    old: HashMap<[u8; 32], Claims>,
}

/// Tokens of one generation, at about 300 bytes each.
const VERIFIED: usize = 100_000;

impl Verified {
    fn find(&mut self, digest: &[u8; 32]) -> Option<Claims> {
        if let Some(claims) = self.young.get(digest) {
            return Some(claims.clone());
        }
        let claims = self.old.remove(digest)?;
        self.add(*digest, claims.clone());
        Some(claims)
    }

    fn add(&mut self, digest: [u8; 32], claims: Claims) {
        if self.young.len() >= VERIFIED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, claims);
    }
}

impl TokenKey {
    /// Reads a key from PKCS#8; `None` when it is not one.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<TokenKey> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        Some(TokenKey { pair, verified: Mutex::default() })
    }

    /// The token that says `claims`.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        // Numbers and strings always become JSON.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token for a device or, with `user`, for a person.
    pub(crate) fn issue(&self, subject: Subject<'_>, now: Timestamp, lifetime_seconds: u64) -> String {
        let (jti, sub, serial, device) = match subject {
            Subject::Device { auth_set, device, serial } => (auth_set, device, serial, true),
            Subject::User { id, name } => (id, name, 0, false),
        };
        self.sign(&Claims {
            jti: jti.to_owned(),
            sub: sub.to_owned(),
            iss: ISSUER.to_owned(),
            iat: now.seconds(),
            exp: now.seconds().saturating_add(lifetime_seconds),
            device,
            user: !device,
            serial,
        })
    }

    /// Checks signature and lifetime.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let digest = id::sha256(token.as_bytes());
        let known = self.verified().find(&digest);
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = self.verify_signature(token)?;
                self.verified().add(digest, claims.clone());
                claims
            }
        };
        if claims.exp <= now.seconds() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let claims = signed.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('.'));
        let claims = URL_SAFE_NO_PAD.decode(claims.ok_or(TokenError::Invalid)?);
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Invalid)?;
        UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| TokenError::Invalid)?;
        claims.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or(TokenError::Invalid)
    }
}

/// Whom a token is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A device, by its authentication set.
    Device {
        /// The set.
        auth_set: &'a str,
        /// The device.
        device: &'a str,
        /// The serial number of the set.
        serial: u64,
    },
    /// A person.
    User {
        /// Random.
        id: &'a str,
        /// The name used at the login.
        name: &'a str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    fn key() -> TokenKey {
        TokenKey::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap()
    }

    const DEVICE: Subject<'_> = Subject::Device { auth_set: "set", device: "device", serial: 3 };

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let (key, now) = (key(), Timestamp(1_000_000));
        let token = key.issue(DEVICE, now, 60);
        let claims = key.verify(&token, now.plus_seconds(59)).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.serial, claims.device, claims.user),
            ("device", 3, true, false)
        );
        assert_eq!(key.verify(&token, now.plus_seconds(59)), Ok(claims), "from memory");
        assert_eq!(key.verify(&token, now.plus_seconds(60)), Err(TokenError::Expired));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let (key, now) = (key(), Timestamp(1_000_000));
        let token = key.issue(DEVICE, now, 60);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let payload = signed.split_once('.').unwrap().1;
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        let forgeries = [
            format!("{none}.{payload}."),
            format!("{none}.{payload}.{signature}"),
            format!("{signed}."),
            signed.to_owned(),
            format!("{HEADER}.{payload}A.{signature}"),
            self::key().issue(DEVICE, now, 60),
            "..".to_owned(),
            String::new(),
            "x".repeat(10_000),
        ];
        for forgery in forgeries {
            assert_eq!(key.verify(&forgery, now), Err(TokenError::Invalid), "{forgery}");
        }
    }
}
