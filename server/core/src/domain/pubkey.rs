//! Public keys of devices: `PUBLIC KEY` PEM, normalised, and the check of `X-MEN-Signature`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p521::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::id;

/// No key of a device is longer than this; RSA with 8192 bits needs 1,476 bytes of PEM.
const PEM_BYTES: usize = 4096;
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What is wrong with a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum PublicKeyError {
    /// Not one PEM block of the type `PUBLIC KEY`.
    NotPem,
    /// Not a SubjectPublicKeyInfo.
    NotDer,
    /// A kind of key that is not RSA, ECDSA on P-256, P-384 or P-521, or Ed25519.
    UnknownAlgorithm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rsa,
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Ed25519,
}

/// A key that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    /// The key as every device's key is stored and compared: PEM with lines of 64.
    pub(crate) pem: String,
    algorithm: Algorithm,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(pem: &str) -> Result<PublicKey, PublicKeyError> {
        if pem.len() > PEM_BYTES {
            return Err(PublicKeyError::NotPem);
        }
        let der = from_pem(pem).ok_or(PublicKeyError::NotPem)?;
        let (algorithm, key) = parse_info(&der)?;
        Ok(PublicKey { pem: to_pem(&der), algorithm, key })
    }

    /// Whether `signature` is the one of this key over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.algorithm {
            Algorithm::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            Algorithm::EcdsaP384 => &signature::ECDSA_P384_SHA256_ASN1,
            Algorithm::EcdsaP521 => return verifies_p521(&self.key, message, signature),
            Algorithm::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

/// What `openssl pkey -pubin -outform DER | sha256sum` says of a key that was understood, in hexadecimal: by it a person knows the key
/// that a device has. `None` of what is no PEM.
pub(crate) fn sha256_of(pem: &str) -> Option<String> {
    Some(id::sha256_hex(&from_pem(pem)?))
}

/// `ring` has no P-521.
fn verifies_p521(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) =
        (p521::ecdsa::VerifyingKey::from_sec1_bytes(key), p521::ecdsa::Signature::from_der(signature))
    else {
        return false;
    };
    // As the number that it is (FIPS 186-5, section 6.4.1), in as many bytes as the curve has: the library refuses a
    // digest that is much shorter.
    let mut digest = [0; 66];
    digest[34..].copy_from_slice(&id::sha256(message));
    key.verify_prehash(&digest, &signature).is_ok()
}

fn from_pem(pem: &str) -> Option<Vec<u8>> {
    let inner = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let base64: String = inner.split_ascii_whitespace().collect();
    STANDARD.decode(&base64).ok()
}

fn to_pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut pem = format!("{BEGIN}\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem += line;
        pem.push('\n');
        rest = after;
    }
    pem + END + "\n"
}

/// `SEQUENCE { SEQUENCE { algorithm OID, parameters }, BIT STRING key }`
fn parse_info(der: &[u8]) -> Result<(Algorithm, Vec<u8>), PublicKeyError> {
    let not_der = PublicKeyError::NotDer;
    let (info, rest) = element(der, 0x30).ok_or(not_der)?;
    if !rest.is_empty() {
        return Err(not_der);
    }
    let (identifier, rest) = element(info, 0x30).ok_or(not_der)?;
    let (bits, rest) = element(rest, 0x03).ok_or(not_der)?;
    let (oid, parameters) = element(identifier, 0x06).ok_or(not_der)?;
    // The first byte counts the unused bits of the last one.
    let key = bits.strip_prefix(&[0]).filter(|_| rest.is_empty()).ok_or(not_der)?;
    let algorithm = match oid {
        OID_RSA => Algorithm::Rsa,
        OID_ED25519 => Algorithm::Ed25519,
        OID_EC => match element(parameters, 0x06).ok_or(PublicKeyError::UnknownAlgorithm)?.0 {
            OID_P256 => Algorithm::EcdsaP256,
            OID_P384 => Algorithm::EcdsaP384,
            OID_P521 => Algorithm::EcdsaP521,
            _ => return Err(PublicKeyError::UnknownAlgorithm),
        },
        _ => return Err(PublicKeyError::UnknownAlgorithm),
    };
    Ok((algorithm, key.to_vec()))
}

/// The content of the element `tag` at the start, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
        _ => return None,
    };
    (found == tag && rest.len() >= length).then(|| rest.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::{PublicKey, PublicKeyError};

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
                           -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_is_normalised() {
        let strange = ED25519.replace('=', "=\r\n\r\n").replace("AyEA", "Ay\nEA");
        assert_eq!(PublicKey::parse(&strange).unwrap().pem, ED25519);
    }

    #[test]
    fn other_blocks_and_broken_keys_are_refused() {
        let check = |pem: &str, error| assert_eq!(PublicKey::parse(pem), Err(error));
        check("", PublicKeyError::NotPem);
        check(&ED25519.replace("PUBLIC", "RSA PUBLIC"), PublicKeyError::NotPem);
        check(&ED25519.replace("PUBLIC", "PRIVATE"), PublicKeyError::NotPem);
        check(&ED25519.replace("MCow", "!!!!"), PublicKeyError::NotPem);
        check(&ED25519.replace("MCow", "MCsw"), PublicKeyError::NotDer);
        check(&ED25519.replace("K2Vw", "K2Vx"), PublicKeyError::UnknownAlgorithm);
        check(&"x".repeat(5000), PublicKeyError::NotPem);
    }

    #[test]
    fn every_length_of_a_key_is_looked_at_before_it_is_used() {
        let long = ED25519.replace("MCow", "MIIw").replace("MIIw", "MIL/");
        assert!(PublicKey::parse(&long).is_err());
    }
}
