//! Tokens: JWTs with an HMAC of this server. It is the only one that has to check them, and it does so at every request.
//!
//! A token of a device names its authentication set (`jti`) and the set's serial number. Revoking a token raises the
//! serial number of the set, so nothing has to be written when a token is issued. A token of a person names the login,
//! and holds only as long as what the person has logged in with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// No token of ours is longer.
const TOKEN_BYTES: usize = 2048;
/// `{"alg":"HS256","typ":"JWT"}`: the only header that is written. A token that names none, or an algorithm that is not
/// one of these two, is no token of ours.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// `{"alg":"EdDSA","typ":"JWT"}`: what older servers have written. To check one takes most of the time of a poll.
const OLD_HEADER: &str = "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9";
/// What makes a key of tokens of the key that older servers have signed them with.
const TOKENS: &[u8] = b"rust-ota-server tokens HS256";
/// What makes a mark of logins of that key.
const LOGINS: &[u8] = b"rust-ota-server logins";
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
    /// What the person has logged in with, as [`TokenKey::mark`].
    #[serde(rename = "rust-ota.login", default, skip_serializing_if = "String::is_empty")]
    pub(crate) login: String,
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
    key: hmac::Key,
    logins: hmac::Key,
    old: Ed25519KeyPair,
}

impl TokenKey {
    /// Reads a key from PKCS#8; `None` when it is not one.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Option<TokenKey> {
        let old = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, der);
        let derived = |purpose| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, purpose).as_ref());
        Some(TokenKey { key: derived(TOKENS), logins: derived(LOGINS), old })
    }

    /// Stands for what a person logs in with: another password, another name, or another management token give another.
    pub(crate) fn mark(&self, name: &str, password: &str, management_token: &str) -> String {
        let mut context = hmac::Context::with_key(&self.logins);
        for part in [name, password, management_token] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        URL_SAFE_NO_PAD.encode(&context.sign().as_ref()[..16])
    }

    /// The token that says `claims`.
    pub(crate) fn sign(&self, claims: &Claims) -> String {
        // Numbers and strings always become JSON.
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// A token for a device or, with `user`, for a person.
    pub(crate) fn issue(&self, subject: Subject<'_>, now: Timestamp, lifetime_seconds: u64) -> String {
        let (jti, sub, serial, device, login) = match subject {
            Subject::Device { auth_set, device, serial } => (auth_set, device, serial, true, ""),
            Subject::User { id, name, login } => (id, name, 0, false, login),
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
            login: login.to_owned(),
        })
    }

    /// The same claims in a token as older servers have written it; `None` when `token` is none.
    pub(crate) fn sign_as_before(&self, token: &str) -> Option<String> {
        let signed = format!("{OLD_HEADER}.{}", token.split('.').nth(1)?);
        let signature = self.old.sign(signed.as_bytes());
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Checks signature and lifetime.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Invalid)?;
        let verified = match header {
            HEADER => hmac::verify(&self.key, signed.as_bytes(), &signature),
            OLD_HEADER => UnparsedPublicKey::new(&ED25519, self.old.public_key().as_ref())
                .verify(signed.as_bytes(), &signature),
            _ => return Err(TokenError::Invalid),
        };
        verified.map_err(|_| TokenError::Invalid)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Invalid)?;
        if claims.exp <= now.seconds() {
            return Err(TokenError::Expired);
        }
        Ok(claims)
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
        /// The mark of what was used there.
        login: &'a str,
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
        assert_eq!(key.verify(&token, now.plus_seconds(60)), Err(TokenError::Expired));
    }

    #[test]
    fn a_clock_that_is_set_makes_no_token_of_another() {
        let (key, now) = (key(), Timestamp(1_000_000_000_000));
        let token = key.issue(DEVICE, now, 7 * 24 * 3600);
        let (back, ahead) = (Timestamp(now.0 - 3_600_000), now.plus_seconds(365 * 24 * 3600));
        assert!(key.verify(&token, back).is_ok(), "it was issued an hour later than it is");
        assert_eq!(key.verify(&token, ahead), Err(TokenError::Expired));
        // What was issued meanwhile is valid too when the clock is right again.
        let meanwhile = key.issue(DEVICE, ahead, 60);
        assert!(key.verify(&token, now).is_ok() && key.verify(&meanwhile, now).is_ok());
    }

    #[test]
    fn a_token_of_an_older_server_is_valid_until_it_expires() {
        let (key, now) = (key(), Timestamp(1_000_000));
        let token = key.sign_as_before(&key.issue(DEVICE, now, 60)).unwrap();
        assert_eq!(key.verify(&token, now).unwrap().sub, "device");
        assert_eq!(key.verify(&token, now.plus_seconds(60)), Err(TokenError::Expired));
        let other = self::key().sign_as_before(&token).unwrap();
        assert_eq!(key.verify(&other, now), Err(TokenError::Invalid));
    }

    #[test]
    fn another_name_password_or_management_token_is_another_login() {
        let key = key();
        let mark = key.mark("ada", "secret", "token");
        assert_eq!(mark, key.mark("ada", "secret", "token"));
        for (name, password, token) in
            [("ad", "asecret", "token"), ("ada", "secret2", "token"), ("ada", "secret", "other")]
        {
            assert_ne!(mark, key.mark(name, password, token));
        }
        assert_ne!(mark, self::key().mark("ada", "secret", "token"));
    }

    #[test]
    fn forged_tokens_are_refused() {
        let (key, now) = (key(), Timestamp(1_000_000));
        let token = key.issue(DEVICE, now, 60);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let payload = signed.split_once('.').unwrap().1;
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        // The public key is known to everybody; it must be no key of an HMAC.
        let public = hmac::Key::new(hmac::HMAC_SHA256, key.old.public_key().as_ref());
        let confused = URL_SAFE_NO_PAD.encode(hmac::sign(&public, signed.as_bytes()));
        let forgeries = [
            format!("{signed}.{confused}"),
            format!("{OLD_HEADER}.{payload}.{signature}"),
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
