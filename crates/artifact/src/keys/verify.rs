//! Public keys, and whether one of them signed exactly these bytes.

use super::der::{
    self, Algorithm, Der, OID_EC, OID_ED25519, OID_P256, OID_P384, OID_RSA, algorithm_identifier,
};
use super::error::KeyError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    /// `RSAPublicKey` of PKCS#1.
    Rsa(Vec<u8>),
    /// The uncompressed point.
    EcdsaP256(Vec<u8>),
    EcdsaP384(Vec<u8>),
}

impl PublicKey {
    /// From `SubjectPublicKeyInfo`.
    pub(super) fn parse(spki: &[u8]) -> Result<PublicKey, KeyError> {
        let (algorithm, key) = split_spki(spki).ok_or(KeyError::Malformed)?;
        match algorithm {
            (OID_ED25519, None) => {
                let bytes = key.try_into().map_err(|_| KeyError::Malformed)?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Malformed)?;
                match key.is_weak() {
                    true => Err(KeyError::Unsupported { found: "a weak Ed25519 key".to_owned() }),
                    false => Ok(PublicKey::Ed25519(key)),
                }
            }
            _ if !cfg!(feature = "rsa-ecdsa") => {
                Err(KeyError::Unsupported { found: "a key other than Ed25519 in this build".to_owned() })
            }
            (OID_RSA, _) => {
                let bits = rsa_bits(key).ok_or(KeyError::Malformed)?;
                match bits {
                    2048..=8192 => Ok(PublicKey::Rsa(key.to_vec())),
                    _ => Err(KeyError::Unsupported { found: format!("an RSA key of {bits} bits") }),
                }
            }
            (OID_EC, Some(OID_P256)) => uncompressed(key, 32).map(PublicKey::EcdsaP256),
            (OID_EC, Some(OID_P384)) => uncompressed(key, 48).map(PublicKey::EcdsaP384),
            (OID_EC, _) => Err(KeyError::Unsupported {
                found: "an elliptic curve other than P-256 and P-384".to_owned(),
            }),
            _ => Err(KeyError::Unsupported { found: "this kind of key".to_owned() }),
        }
    }

    /// What kind of key it is, for a person.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            PublicKey::Ed25519(_) => "Ed25519",
            PublicKey::Rsa(_) => "RSA",
            PublicKey::EcdsaP256(_) => "P-256",
            PublicKey::EcdsaP384(_) => "P-384",
        }
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            PublicKey::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            PublicKey::Rsa(key) => verify_rsa(key, message, signature),
            PublicKey::EcdsaP256(point) => verify_p256(point, message, signature),
            PublicKey::EcdsaP384(point) => verify_p384(point, message, signature),
        }
    }
}

#[cfg(feature = "rsa-ecdsa")]
fn verify_rsa(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    ring_verify(&ring::signature::RSA_PKCS1_2048_8192_SHA256, key, message, signature)
}

/// DER, or `r‖s` when it is exactly as long as that.
#[cfg(feature = "rsa-ecdsa")]
fn verify_p256(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let fixed = || ring_verify(&ring::signature::ECDSA_P256_SHA256_FIXED, point, message, signature);
    ring_verify(&ring::signature::ECDSA_P256_SHA256_ASN1, point, message, signature)
        || (signature.len() == 64 && fixed())
}

/// As for P-256; the library has SHA-256 with P-384 only for DER, so `r‖s` is put into it.
#[cfg(feature = "rsa-ecdsa")]
fn verify_p384(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithm = &ring::signature::ECDSA_P384_SHA256_ASN1;
    let fixed = || {
        let (r, s) = signature.split_at(48);
        let pair = [der::encode_unsigned(r), der::encode_unsigned(s)].concat();
        ring_verify(algorithm, point, message, &der::encode(der::SEQUENCE, &pair))
    };
    ring_verify(algorithm, point, message, signature) || (signature.len() == 96 && fixed())
}

#[cfg(feature = "rsa-ecdsa")]
fn ring_verify(
    algorithm: &'static dyn ring::signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    ring::signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

// Without the feature `PublicKey::parse` makes no such keys.
#[cfg(not(feature = "rsa-ecdsa"))]
fn verify_rsa(_: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}
#[cfg(not(feature = "rsa-ecdsa"))]
fn verify_p256(_: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}
#[cfg(not(feature = "rsa-ecdsa"))]
fn verify_p384(_: &[u8], _: &[u8], _: &[u8]) -> bool {
    false
}

/// The algorithm and the key.
fn split_spki(spki: &[u8]) -> Option<(Algorithm<'_>, &[u8])> {
    let mut info = Der::new(Der::only(spki, der::SEQUENCE)?);
    let algorithm = algorithm_identifier(&mut info)?;
    let key = info.bit_string()?;
    info.is_empty().then_some((algorithm, key))
}

fn rsa_bits(key: &[u8]) -> Option<usize> {
    let mut key = Der::new(Der::only(key, der::SEQUENCE)?);
    let modulus = key.take(der::INTEGER)?;
    key.take(der::INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let top = modulus.first().filter(|byte| **byte != 0)?;
    key.is_empty().then_some(modulus.len() * 8 - top.leading_zeros() as usize)
}

fn uncompressed(point: &[u8], coordinate_bytes: usize) -> Result<Vec<u8>, KeyError> {
    match point.first() {
        Some(4) if point.len() == 1 + 2 * coordinate_bytes => Ok(point.to_vec()),
        Some(2 | 3) => Err(KeyError::Unsupported { found: "a compressed elliptic curve point".to_owned() }),
        _ => Err(KeyError::Malformed),
    }
}
