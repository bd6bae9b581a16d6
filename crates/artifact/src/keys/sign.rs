//! Private keys: reading, making and signing with them.

use super::der::{self, Der, OID_EC, OID_ED25519, OID_RSA, algorithm_identifier};
use super::error::KeyError;
#[cfg(feature = "rsa-ecdsa")]
use super::pkcs8;
use crate::Sha256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use std::fmt;

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
                der::encode(0xa0, &der::encode(der::OID, der::OID_P256)),
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
        der::pem_encode("PUBLIC KEY", &self.public_der())
    }

    /// The SHA-256 of the public key, by which a person knows it: of its DER, as `openssl pkey -pubout -outform DER` writes it.
    pub fn public_sha256(&self) -> Sha256 {
        Sha256::of(&self.public_der())
    }

    /// The public key as a SubjectPublicKeyInfo.
    fn public_der(&self) -> Vec<u8> {
        let (kind, parameters, key) = match &self.key {
            PrivateKey::Ed25519(key) => (OID_ED25519, Vec::new(), key.verifying_key().to_bytes().to_vec()),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::Rsa(key) => (OID_RSA, der::encode(der::NULL, &[]), key.public().as_ref().to_vec()),
            #[cfg(feature = "rsa-ecdsa")]
            PrivateKey::EcdsaP256(key) => (
                OID_EC,
                der::encode(der::OID, der::OID_P256),
                ring::signature::KeyPair::public_key(key).as_ref().to_vec(),
            ),
        };
        let algorithm = [der::encode(der::OID, kind), parameters].concat();
        let bits = [&[0][..], &key].concat();
        let info = [der::encode(der::SEQUENCE, &algorithm), der::encode(der::BIT_STRING, &bits)].concat();
        der::encode(der::SEQUENCE, &info)
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

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
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
        if curve != Some(der::OID_P256) {
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
