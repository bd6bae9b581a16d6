//! The signature of the manifest: which keys are trusted, whether one of them signed exactly these bytes, and signing.
//!
//! Kinds of signature, all over SHA-256 of the raw manifest but the last: RSA PKCS#1 v1.5, ECDSA on P-256 and P-384
//! (`r‖s` as the artifact tools write it, or DER as hardware signers do), and Ed25519, which hashes by itself.
//! It does not read key files: PEM text comes in from the caller.

mod der;
mod error;
#[cfg(feature = "rsa-ecdsa")]
mod pkcs8;
mod sign;
mod verify;

pub use self::error::KeyError;
pub use self::sign::{KeyPairPem, Signer};

use self::verify::PublicKey;
use crate::error::ArtifactError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Whom to believe.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The artifact has to be signed by one of these. With no key at all everything is refused.
    Keys(VerifyKeys),
    /// Accept artifacts without looking at the signature: checksums still have to match, but anyone can have made
    /// them. For the bootstrap artifact and for devices that were configured so.
    DangerUnsigned,
}

/// What is known about who made an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureStatus {
    /// The key of this name signed the manifest.
    Verified {
        /// The name the key was added under.
        key: String,
    },
    /// There is a signature, and it was not checked because unsigned artifacts are accepted.
    NotChecked,
    /// There is no signature.
    Unsigned,
}

/// The keys that may sign artifacts. Each has a name, such as its path, for messages.
#[derive(Debug, Clone, Default)]
pub struct VerifyKeys {
    keys: Vec<VerifyKey>,
}

#[derive(Debug, Clone)]
struct VerifyKey {
    name: String,
    key: PublicKey,
}

impl VerifyKeys {
    /// No keys: nothing verifies.
    pub fn new() -> VerifyKeys {
        VerifyKeys::default()
    }

    /// Adds every key of a PEM file with `PUBLIC KEY` blocks. A key that is there already is not added again, so that
    /// one key can never count twice.
    ///
    /// # Errors
    /// When there is none, or one that cannot be used. Those that can be used were added.
    pub fn add_pem(&mut self, name: &str, pem: &[u8]) -> Result<(), KeyError> {
        let blocks = der::pem_blocks(pem).ok_or(KeyError::Malformed)?;
        let (mut found, mut refused) = (false, None);
        for block in blocks.iter().filter(|block| block.label == "PUBLIC KEY") {
            found = true;
            match PublicKey::parse(&block.content) {
                Ok(key) if self.keys.iter().any(|known| known.key == key) => {}
                Ok(key) => self.keys.push(VerifyKey { name: name.to_owned(), key }),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None if found => Ok(()),
            None => Err(KeyError::NotPem { expected: "PUBLIC KEY" }),
        }
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name and the kind of each key.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.keys.iter().map(|known| (known.name.as_str(), known.key.kind()))
    }

    /// Number of different keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The name of the first key that signed `message`.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Option<&str> {
        let signed = |known: &&VerifyKey| known.key.verify(message, signature);
        self.keys.iter().find(signed).map(|known| known.name.as_str())
    }
}

/// The decision about the signature; `manifest` are the bytes as they are in the artifact, not yet parsed.
pub(crate) fn check(
    trust: &Trust,
    manifest: &[u8],
    signature: Option<&[u8]>,
) -> Result<SignatureStatus, ArtifactError> {
    match (trust, signature) {
        (Trust::Keys(keys), _) if keys.is_empty() => Err(ArtifactError::NoVerifyKeys),
        (Trust::Keys(_), None) => Err(ArtifactError::Unsigned),
        (Trust::Keys(keys), Some(base64)) => {
            let signature = decode_base64(base64).ok_or(ArtifactError::SignatureEncoding)?;
            let mismatch = || ArtifactError::SignatureMismatch {
                keys: keys.keys.iter().map(|known| known.name.clone()).collect(),
            };
            let key = keys.verify(manifest, &signature).ok_or_else(mismatch)?.to_owned();
            Ok(SignatureStatus::Verified { key })
        }
        (Trust::DangerUnsigned, Some(base64)) => {
            match decode_base64(base64) {
                Some(_) => log::warn!("manifest.sig is not checked: unsigned artifacts are accepted"),
                None => log::warn!(
                    "manifest.sig is not Base64, and is installed: unsigned artifacts are accepted"
                ),
            }
            Ok(SignatureStatus::NotChecked)
        }
        (Trust::DangerUnsigned, None) => {
            log::warn!("the artifact is not signed, and is installed: unsigned artifacts are accepted");
            Ok(SignatureStatus::Unsigned)
        }
    }
}

/// Base64 of the standard alphabet with padding; line ends anywhere are ignored, as signing by hand leaves some.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pem: &str) -> VerifyKeys {
        let mut keys = VerifyKeys::new();
        keys.add_pem("key", pem.as_bytes()).unwrap();
        keys
    }

    /// Signs, and verifies the signature, every changed byte of it and a changed message.
    fn check(pair: &KeyPairPem) {
        let signer = Signer::from_pem(pair.private.as_bytes()).unwrap();
        assert_eq!(signer.public_pem(), pair.public);
        let keys = keys(&pair.public);
        let signature = signer.sign(b"message").unwrap();
        assert_eq!(keys.verify(b"message", &signature), Some("key"));
        assert_eq!(keys.verify(b"massage", &signature), None);
        for at in 0..signature.len() {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            assert_eq!(keys.verify(b"message", &changed), None, "{at}");
        }
        for length in (0..200).filter(|length| *length != signature.len()) {
            let other: Vec<u8> = signature.iter().copied().cycle().take(length).collect();
            assert_eq!(keys.verify(b"message", &other), None, "{length}");
        }
    }

    #[test]
    fn an_ed25519_key_signs_and_verifies() {
        check(&Signer::generate_ed25519(&[3; 32]));
    }

    #[cfg(feature = "rsa-ecdsa")]
    #[test]
    fn an_ecdsa_key_signs_and_verifies() {
        let pair = Signer::generate_ecdsa_p256().unwrap();
        assert!(pair.private.contains("BEGIN EC PRIVATE KEY"));
        check(&pair);
    }

    #[test]
    fn every_key_of_a_file_counts_and_none_is_passed_over_in_silence() {
        let [one, other] = [[1; 32], [2; 32]].map(|seed| Signer::generate_ed25519(&seed));
        let mut keys = VerifyKeys::new();
        keys.add_pem("both", format!("{}{}", one.public, other.public).as_bytes()).unwrap();
        for pair in [&one, &other] {
            let signature = Signer::from_pem(pair.private.as_bytes()).unwrap().sign(b"text").unwrap();
            assert_eq!(keys.verify(b"text", &signature), Some("both"));
        }
        let mut keys = VerifyKeys::new();
        let odd = der::pem_encode("PUBLIC KEY", b"no key");
        for text in [format!("{odd}{}", one.public), format!("{}{odd}", one.public)] {
            assert!(keys.add_pem("half", text.as_bytes()).is_err());
            assert_eq!(keys.len(), 1);
        }
    }

    #[test]
    fn keys_that_are_none_or_too_weak_are_refused() {
        let refused = |pem: &str| VerifyKeys::new().add_pem("key", pem.as_bytes()).unwrap_err();
        assert!(matches!(refused(""), KeyError::NotPem { .. }));
        assert!(matches!(refused(&Signer::generate_ed25519(&[1; 32]).private), KeyError::NotPem { .. }));
        assert_eq!(refused("-----BEGIN PUBLIC KEY-----\nMCo="), KeyError::Malformed);
        let spki = |key: &[u8]| {
            let algorithm = der::encode(der::SEQUENCE, &der::encode(der::OID, der::OID_ED25519));
            let bits = der::encode(der::BIT_STRING, &[&[0][..], key].concat());
            der::pem_encode("PUBLIC KEY", &der::encode(der::SEQUENCE, &[algorithm, bits].concat()))
        };
        assert_eq!(refused(&spki(&[1; 31])), KeyError::Malformed);
        // The neutral element: every signature would be as good as any.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(matches!(refused(&spki(&neutral)), KeyError::Unsupported { .. }));
    }

    #[test]
    fn every_changed_byte_of_a_public_key_is_refused_or_another_key() {
        let pair = Signer::generate_ed25519(&[3; 32]);
        let signature = Signer::from_pem(pair.private.as_bytes()).unwrap().sign(b"message").unwrap();
        let spki = der::pem_blocks(pair.public.as_bytes()).unwrap().remove(0).content;
        for at in 0..spki.len() {
            let mut changed = spki.clone();
            changed[at] ^= 1;
            let mut keys = VerifyKeys::new();
            if keys.add_pem("key", der::pem_encode("PUBLIC KEY", &changed).as_bytes()).is_ok() {
                assert_eq!(keys.verify(b"message", &signature), None, "{at}");
            }
        }
    }

    #[test]
    fn encrypted_private_keys_are_named_so() {
        let pem = der::pem_encode("ENCRYPTED PRIVATE KEY", b"x");
        assert_eq!(Signer::from_pem(pem.as_bytes()).unwrap_err(), KeyError::Encrypted);
        let old = der::pem_encode("RSA PRIVATE KEY", b"x").replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1);
        assert_eq!(Signer::from_pem(old.as_bytes()).unwrap_err(), KeyError::EncryptedTraditionally);
        let none = Signer::from_pem(Signer::generate_ed25519(&[1; 32]).public.as_bytes());
        assert!(matches!(none, Err(KeyError::NotPem { .. })));
    }
}
