//! The signature of the manifest: which keys are trusted, whether one of them signed exactly these bytes, and signing.
//!
//! Kinds of signature, all over SHA-256 of the raw manifest but the last: RSA PKCS#1 v1.5, ECDSA on P-256 and P-384
//! (`r‖s` as the artifact tools write it, or DER as hardware signers do), and Ed25519, which hashes by itself.
//! It does not read key files: PEM text comes in from the caller.

pub(crate) mod der;
#[cfg(feature = "rsa-ecdsa")]
mod pkcs8;

use self::der::Der;
use crate::error::ArtifactError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use std::fmt;

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

#[derive(Debug, Clone, PartialEq, Eq)]
enum PublicKey {
    Ed25519(ed25519_dalek::VerifyingKey),
    /// `RSAPublicKey` of PKCS#1.
    Rsa(Vec<u8>),
    /// The uncompressed point.
    EcdsaP256(Vec<u8>),
    EcdsaP384(Vec<u8>),
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No PEM block of the kind that was looked for.
    NotPem {
        /// The labels that would do.
        expected: &'static str,
    },
    /// The block does not hold what its label says.
    Malformed,
    /// A kind or size of key that is not supported.
    Unsupported {
        /// What it is.
        found: String,
    },
    /// The private key is encrypted, and no passphrase is given.
    Encrypted,
    /// The private key is encrypted in the old way of OpenSSL (`Proc-Type: 4,ENCRYPTED`), which is weak.
    EncryptedTraditionally,
    /// The passphrase does not open the private key.
    WrongPassphrase,
    /// Signing failed, or the system has no randomness.
    CannotSign,
}

impl std::error::Error for KeyError {}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NotPem { expected } => write!(f, "no PEM block {expected}"),
            KeyError::Malformed => write!(f, "malformed key"),
            KeyError::Unsupported { found } => write!(f, "{found} is not supported"),
            KeyError::Encrypted => write!(f, "the private key is encrypted, and there is no passphrase"),
            KeyError::EncryptedTraditionally => write!(
                f,
                "the private key is encrypted in the old way of OpenSSL; convert it with `openssl pkcs8 -topk8`"
            ),
            KeyError::WrongPassphrase => write!(f, "the passphrase does not open the private key"),
            KeyError::CannotSign => write!(f, "cannot sign with this key"),
        }
    }
}

const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];

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

impl PublicKey {
    /// From `SubjectPublicKeyInfo`.
    fn parse(spki: &[u8]) -> Result<PublicKey, KeyError> {
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

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
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

/// An object identifier, and its parameter if that is one too.
type Algorithm<'a> = (&'a [u8], Option<&'a [u8]>);

/// The algorithm and the key.
fn split_spki(spki: &[u8]) -> Option<(Algorithm<'_>, &[u8])> {
    let mut info = Der::new(Der::only(spki, der::SEQUENCE)?);
    let algorithm = algorithm_identifier(&mut info)?;
    let key = info.bit_string()?;
    info.is_empty().then_some((algorithm, key))
}

fn algorithm_identifier<'a>(info: &mut Der<'a>) -> Option<Algorithm<'a>> {
    let mut identifier = info.sequence()?;
    let algorithm = identifier.take(der::OID)?;
    let parameters = if identifier.next_is(der::OID) {
        Some(identifier.take(der::OID)?)
    } else if identifier.next_is(der::NULL) {
        identifier.take(der::NULL)?.is_empty().then_some(())?;
        None
    } else {
        None
    };
    identifier.is_empty().then_some((algorithm, parameters))
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

/// A private key that signs manifests.
pub struct Signer {
    key: PrivateKey,
}

enum PrivateKey {
    Ed25519(ed25519_dalek::SigningKey),
    #[cfg(feature = "rsa-ecdsa")]
    Rsa(Box<ring::rsa::KeyPair>),
    #[cfg(feature = "rsa-ecdsa")]
    EcdsaP256(ring::signature::EcdsaKeyPair),
}

/// The kind is all that may be shown of it.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.kind())
    }
}

/// A new private key and its public key, as PEM.
pub struct KeyPairPem {
    /// The private key: PKCS#8 for Ed25519, SEC1 for ECDSA, which every release of `mender-artifact` reads.
    pub private: String,
    /// The public key, `PUBLIC KEY`.
    pub public: String,
}

impl Signer {
    /// Reads a private key: PKCS#8 (`PRIVATE KEY`), PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    pub fn from_pem(pem: &[u8]) -> Result<Signer, KeyError> {
        Signer::from_pem_with_passphrase(pem, None)
    }

    /// The same, and PKCS#8 that is encrypted with a passphrase (`ENCRYPTED PRIVATE KEY`).
    pub fn from_pem_with_passphrase(pem: &[u8], passphrase: Option<&[u8]>) -> Result<Signer, KeyError> {
        if String::from_utf8_lossy(pem).contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::EncryptedTraditionally);
        }
        let blocks = der::pem_blocks(pem).ok_or(KeyError::Malformed)?;
        for block in blocks {
            match block.label.as_str() {
                "PRIVATE KEY" => return Signer::from_pkcs8(&block.content),
                "ENCRYPTED PRIVATE KEY" => {
                    let passphrase = passphrase.ok_or(KeyError::Encrypted)?;
                    return Signer::from_encrypted(&block.content, passphrase);
                }
                "RSA PRIVATE KEY" => return Signer::from_rsa(&block.content),
                "EC PRIVATE KEY" => return Signer::from_sec1(&block.content, None),
                // `openssl ecparam -genkey` writes the parameters in front of the key.
                _ => {}
            }
        }
        Err(KeyError::NotPem { expected: "PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY" })
    }

    /// A new Ed25519 key from 32 random bytes, which have to come from a cryptographic source.
    pub fn generate_ed25519(random: &[u8; 32]) -> KeyPairPem {
        let key = ed25519_dalek::SigningKey::from_bytes(random);
        let algorithm = der::encode(der::SEQUENCE, &der::encode(der::OID, OID_ED25519));
        let secret = der::encode(der::OCTET_STRING, &der::encode(der::OCTET_STRING, random));
        let private = [der::encode(der::INTEGER, &[0]), algorithm, secret].concat();
        let signer = Signer { key: PrivateKey::Ed25519(key) };
        KeyPairPem {
            private: der::pem_encode("PRIVATE KEY", &der::encode(der::SEQUENCE, &private)),
            public: signer.public_pem(),
        }
    }

    /// A new ECDSA key on P-256, by the system's randomness.
    #[cfg(feature = "rsa-ecdsa")]
    pub fn generate_ecdsa_p256() -> Result<KeyPairPem, KeyError> {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ALGORITHM, EcdsaKeyPair};
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ALGORITHM, &random).map_err(|_| KeyError::CannotSign)?;
        let signer = Signer::from_pkcs8(pkcs8.as_ref())?;
        let public = signer.public_pem();
        let sec1 = (|| {
            let mut info = Der::new(Der::only(pkcs8.as_ref(), der::SEQUENCE)?);
            info.take(der::INTEGER)?;
            algorithm_identifier(&mut info)?;
            let mut inner = Der::new(Der::only(info.take(der::OCTET_STRING)?, der::SEQUENCE)?);
            inner.take(der::INTEGER)?;
            let scalar = inner.take(der::OCTET_STRING)?;
            if inner.next_is(0xa0) {
                inner.take(0xa0)?;
            }
            let point = inner.take(0xa1)?;
            let parts = [
                der::encode(der::INTEGER, &[1]),
                der::encode(der::OCTET_STRING, scalar),
                der::encode(0xa0, &der::encode(der::OID, OID_P256)),
                der::encode(0xa1, point),
            ];
            Some(der::encode(der::SEQUENCE, &parts.concat()))
        })()
        .ok_or(KeyError::Malformed)?;
        Ok(KeyPairPem { private: der::pem_encode("EC PRIVATE KEY", &sec1), public })
    }

    /// What kind of key it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.key {
            PrivateKey::Ed25519(_) => "Ed25519",
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::Rsa(_) => "RSA",
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::EcdsaP256(_) => "ECDSA P-256",
        }
    }

    /// The content of `manifest.sig`: Base64 on one line, without a line feed.
    pub(crate) fn sign_manifest(&self, manifest: &[u8]) -> Result<String, KeyError> {
        Ok(STANDARD.encode(self.sign(manifest)?))
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        let (algorithm, key) = match &self.key {
            PrivateKey::Ed25519(key) => {
                (der::encode(der::OID, OID_ED25519), key.verifying_key().to_bytes().to_vec())
            }
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::Rsa(key) => (
                [der::encode(der::OID, OID_RSA), der::encode(der::NULL, &[])].concat(),
                key.public().as_ref().to_vec(),
            ),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::EcdsaP256(key) => (
                [der::encode(der::OID, OID_EC), der::encode(der::OID, OID_P256)].concat(),
                ring::signature::KeyPair::public_key(key).as_ref().to_vec(),
            ),
        };
        let bits = [&[0][..], &key].concat();
        let info = [der::encode(der::SEQUENCE, &algorithm), der::encode(der::BIT_STRING, &bits)].concat();
        der::pem_encode("PUBLIC KEY", &der::encode(der::SEQUENCE, &info))
    }

    /// The signature over `message` as the device API wants it: like that of a manifest, but ECDSA in DER.
    pub fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.sign(message)?;
        match &self.key {
            PrivateKey::Ed25519(_) => Ok(signature),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::Rsa(_) => Ok(signature),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::EcdsaP256(_) => {
                let (r, s) = signature.split_at(signature.len() / 2);
                let numbers = [der::encode_unsigned(r), der::encode_unsigned(s)].concat();
                Ok(der::encode(der::SEQUENCE, &numbers))
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.key {
            PrivateKey::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = ring::rand::SystemRandom::new();
                key.sign(&ring::signature::RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| KeyError::CannotSign)?;
                Ok(signature)
            }
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::EcdsaP256(key) => {
                let random = ring::rand::SystemRandom::new();
                let signature = key.sign(&random, message).map_err(|_| KeyError::CannotSign)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Signer, KeyError> {
        let parts = (|| {
            let mut info = Der::new(Der::only(pkcs8, der::SEQUENCE)?);
            info.take(der::INTEGER)?;
            let (algorithm, parameters) = algorithm_identifier(&mut info)?;
            // Attributes and a public key may follow; neither is needed.
            Some((algorithm, parameters, info.take(der::OCTET_STRING)?))
        })();
        match parts.ok_or(KeyError::Malformed)? {
            (OID_ED25519, None, key) => {
                let seed = Der::only(key, der::OCTET_STRING).and_then(|seed| seed.try_into().ok());
                let seed: &[u8; 32] = seed.ok_or(KeyError::Malformed)?;
                Ok(Signer { key: PrivateKey::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed)) })
            }
            (OID_RSA, None, key) => Signer::from_rsa(key),
            (OID_EC, Some(curve), key) => Signer::from_sec1(key, Some(curve)),
            _ => Err(KeyError::Unsupported { found: "this kind of private key".to_owned() }),
        }
    }

    #[cfg(feature = "rsa-ecdsa")]
    fn from_encrypted(encrypted: &[u8], passphrase: &[u8]) -> Result<Signer, KeyError> {
        Signer::from_pkcs8(&pkcs8::decrypt(encrypted, passphrase)?)
    }

    #[cfg(not(feature = "rsa-ecdsa"))]
    fn from_encrypted(_: &[u8], _: &[u8]) -> Result<Signer, KeyError> {
        Err(KeyError::Unsupported { found: "an encrypted private key in this build".to_owned() })
    }

    #[cfg(feature = "rsa-ecdsa")]
    fn from_rsa(pkcs1: &[u8]) -> Result<Signer, KeyError> {
        let key = ring::rsa::KeyPair::from_der(pkcs1)
            .map_err(|error| KeyError::Unsupported { found: format!("this RSA private key ({error})") })?;
        Ok(Signer { key: PrivateKey::Rsa(Box::new(key)) })
    }

    #[cfg(feature = "rsa-ecdsa")]
    fn from_sec1(sec1: &[u8], curve: Option<&[u8]>) -> Result<Signer, KeyError> {
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ALGORITHM, EcdsaKeyPair};
        let parts = (|| {
            let mut key = Der::new(Der::only(sec1, der::SEQUENCE)?);
            key.take(der::INTEGER)?;
            let scalar = key.take(der::OCTET_STRING)?;
            let own_curve = match key.next_is(0xa0) {
                true => Some(Der::only(key.take(0xa0)?, der::OID)?),
                false => None,
            };
            let point = match key.next_is(0xa1) {
                true => Some(Der::new(key.take(0xa1)?).bit_string()?),
                false => None,
            };
            Some((scalar, own_curve.or(curve), point))
        })();
        let (scalar, curve, point) = parts.ok_or(KeyError::Malformed)?;
        if curve != Some(OID_P256) {
            let found = "signing with an elliptic curve other than P-256".to_owned();
            return Err(KeyError::Unsupported { found });
        }
        let point = point.ok_or_else(|| KeyError::Unsupported {
            found: "an EC private key file without the public key".to_owned(),
        })?;
        let random = ring::rand::SystemRandom::new();
        let key = EcdsaKeyPair::from_private_key_and_public_key(&ALGORITHM, scalar, point, &random)
            .map_err(|_| KeyError::Malformed)?;
        Ok(Signer { key: PrivateKey::EcdsaP256(key) })
    }

    #[cfg(not(feature = "rsa-ecdsa"))]
    fn from_rsa(_: &[u8]) -> Result<Signer, KeyError> {
        Err(KeyError::Unsupported { found: "a key other than Ed25519 in this build".to_owned() })
    }

    #[cfg(not(feature = "rsa-ecdsa"))]
    fn from_sec1(_: &[u8], _: Option<&[u8]>) -> Result<Signer, KeyError> {
        Err(KeyError::Unsupported { found: "a key other than Ed25519 in this build".to_owned() })
    }
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
            let algorithm = der::encode(der::SEQUENCE, &der::encode(der::OID, OID_ED25519));
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
